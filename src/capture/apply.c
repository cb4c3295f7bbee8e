/*
 * apply.c
 *	  Applies a batch, to the extension's own tables only.
 *
 * The order matters: sessions end while the old keys still lead to the old names.
 */
#include "capture/apply.h"

/*
 * If users are renamed, lock all accounts of the batch before the first session ends,
 * in the order of names: what follows locks them again, for one reason after the other.
 * A batch that only ends sessions waits for no account.
 */
static void
apply_lock_renamed(SaBatch *batch)
{
	const SaValues *lists[] = {&batch->ended_name, &batch->renamed_from,
	&batch->renamed_to, &batch->login_user};
	SaValues	names = {0};

	if (batch->renamed_from.n == 0)
		return;
	for (size_t list = 0; list < lengthof(lists); list++)
	{
		for (int i = 0; i < lists[list]->n; i++)
			sa_batch_add(batch, &names, lists[list]->values[i], lists[list]->nulls[i]);
	}
	sa_batch_lock_accounts(batch, &names);
}

/* Apply the batch and empty it. */
void
sa_apply(SaBatch *batch)
{
	SPI_connect();
	apply_lock_renamed(batch);
	sa_apply_ended(batch);
	sa_apply_renamed(batch);
	sa_apply_keys(batch);
	sa_batch_make_accounts(batch, &batch->account);
	sa_apply_logins(batch);
	sa_apply_tokens(batch);
	sa_apply_sessions(batch);
	SPI_finish();

	sa_batch_reset(batch);
}

/* All rows are gone, and nobody knows which they were. */
void
sa_apply_truncated(SaBatch *batch)
{
	SPI_connect();
	switch (batch->watch->part)
	{
		case SA_PART_SESSION:
			sa_apply_truncated_sessions(batch);
			break;
		case SA_PART_REMEMBER_ME:
			sa_apply_truncated_tokens(batch);
			break;
		default:
			sa_apply_truncated_users(batch);
			break;
	}
	SPI_finish();
}
