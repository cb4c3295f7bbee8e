/*
 * row.c
 *	  What one row of a product's table tells, before and after a change.
 *
 * Only columns that play a role are compared.
 */
#include "capture/row.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

static void
row_add_ended(SaBatch *batch, const char *name, SaEndedBy by, SaEndedIf condition)
{
	if (name == NULL)
		return;
	sa_batch_add_text(batch, &batch->ended_name, name);
	sa_batch_add(batch, &batch->ended_by, Int32GetDatum(by), false);
	sa_batch_add(batch, &batch->ended_if, Int32GetDatum(condition), false);
}

/* The sessions of the user of this row end, under all spellings of the name. */
static void
row_user_ended(SaBatch *batch, TupleTableSlot *slot, SaEndedBy by, SaEndedIf condition)
{
	const SaWatch *watch = batch->watch;
	char	   *name = sa_row_user_name(watch, slot);
	char	   *other = sa_value_text(watch, SA_ROLE_OTHER_NAME, slot);

	if (!SA_HAS(watch, SA_ROLE_USER_NAME))
		sa_batch_unclear(batch, NULL);
	row_add_ended(batch, name, by, condition);
	if (name && other && strcmp(name, other) != 0)
		row_add_ended(batch, other, by, SA_ENDED_IF_KNOWN);
}

static void
row_add_renamed(SaBatch *batch, const char *from, const char *to, const char *key)
{
	if (strcmp(from, to) == 0)
		return;
	sa_batch_add_text(batch, &batch->renamed_from, from);
	sa_batch_add_text(batch, &batch->renamed_to, to);
	sa_batch_add_text(batch, &batch->renamed_key, key);
}

static void
row_add_key(SaBatch *batch, TupleTableSlot *slot, const char *name)
{
	char	   *key = sa_value_text(batch->watch, SA_ROLE_KEY, slot);

	if (key == NULL)
		return;
	sa_batch_add_text(batch, &batch->key, key);
	sa_batch_add_text(batch, &batch->key_user, name);
}

static void
row_add_key_gone(SaBatch *batch, TupleTableSlot *slot)
{
	char	   *key = sa_value_text(batch->watch, SA_ROLE_KEY, slot);

	if (key != NULL)
		sa_batch_add_text(batch, &batch->key_gone, key);
}

/* Add one thing that a value tells of a user's logins, if it makes sense. */
static void
row_add_login(SaBatch *batch, TupleTableSlot *slot, SaColumnRole role, const SaValue *value)
{
	const SaWatch *watch = batch->watch;
	SaColumnRole key_role = SA_HAS(watch, SA_ROLE_USER_KEY) ? SA_ROLE_USER_KEY : SA_ROLE_KEY;
	char	   *key = sa_value_text(watch, key_role, slot);
	char	   *user = sa_row_user_name(watch, slot);
	TimestampTz at = 0;
	int64		number = 0;
	char	   *address = NULL;
	bool		is_time = false;
	bool		is_number = false;
	MemoryContext old;

	switch (role)
	{
		case SA_ROLE_LOGIN_COUNT:
		case SA_ROLE_CURRENT_FAILED_COUNT:
		case SA_ROLE_TOTAL_FAILED_COUNT:
			is_number = sa_value_read_number(sa_value_as_text(value), &number);
			break;
		case SA_ROLE_LAST_LOGIN_ADDRESS:
			if (value->type == INETOID)
				address = sa_value_as_text(value);
			break;
		default:
			is_time = sa_value_read_time(value, &at);
			break;
	}
	if ((key == NULL && user == NULL) || !(is_time || is_number || address))
		return;

	sa_batch_add_text(batch, &batch->login_key, key);
	sa_batch_add_text(batch, &batch->login_user, user);
	sa_batch_add_text(batch, &batch->login_role, sa_role_names[role]);

	/*
	 * where a Datum has 32 bits, these are allocated, and live as long as the
	 * batch
	 */
	old = MemoryContextSwitchTo(batch->context);
	sa_batch_add(batch, &batch->login_at, TimestampTzGetDatum(at), !is_time);
	sa_batch_add(batch, &batch->login_number, Int64GetDatum(number), !is_number);
	MemoryContextSwitchTo(old);
	sa_batch_add_text(batch, &batch->login_address, address);
}

/* Add all that the columns of this row tell of logins. */
static void
row_add_logins(SaBatch *batch, TupleTableSlot *slot)
{
	for (SaColumnRole role = 0; role < SA_NROLES; role++)
	{
		SaValue		value;

		if (SA_IS_LOGIN_ROLE(role) && sa_value_get(batch->watch, role, slot, &value))
			row_add_login(batch, slot, role, &value);
	}
}

/* A count of failures that goes up, with no time, means now. */
static void
row_add_failure(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = batch->watch;
	SaValue		now = {.type = TIMESTAMPTZOID};
	int64		old_count = 0;
	int64		new_count;

	if (SA_HAS(watch, SA_ROLE_LAST_FAILED_LOGIN_AT) ||
		!sa_value_read_number(sa_value_text(watch, SA_ROLE_CURRENT_FAILED_COUNT, new), &new_count))
		return;
	if (old != NULL)
		(void) sa_value_read_number(sa_value_text(watch, SA_ROLE_CURRENT_FAILED_COUNT, old), &old_count);
	if (new_count <= old_count)
		return;
	now.value = TimestampTzGetDatum(GetCurrentTimestamp());
	row_add_login(batch, new, SA_ROLE_LAST_FAILED_LOGIN_AT, &now);
}

/* Add what an attribute tells of logins, if it is one of those that do. */
static void
row_add_attribute(SaBatch *batch, TupleTableSlot *slot)
{
	const SaWatch *watch = batch->watch;
	char	   *name = sa_value_text(watch, SA_ROLE_ATTRIBUTE_NAME, slot);

	for (int i = 0; name != NULL && i < watch->nattributes; i++)
	{
		const SaAttribute *attribute = &watch->attributes[i];
		SaValue		value;

		if (strcmp(attribute->name, name) != 0 ||
			!sa_value_get(watch, SA_ROLE_ATTRIBUTE_VALUE, slot, &value))
			continue;
		value.reading = attribute->reading;
		row_add_login(batch, slot, attribute->role, &value);
	}
}

/* The first digits of the hash of a secret, to tell one from another. */
static char *
row_secret_ref(char *secret)
{
	uint8		hash[SA_HASH_LEN];
	char	   *ref;

	if (secret == NULL)
		return NULL;
	sa_sha256(secret, strlen(secret), hash);
	explicit_bzero(secret, strlen(secret));
	ref = palloc0(SA_HASH_LEN * 2 + 1);
	hex_encode((char *) hash, SA_HASH_LEN, ref);
	ref[SA_REF_LEN] = '\0';
	return ref;
}

static void
row_add_token(SaBatch *batch, TupleTableSlot *slot, const char *event)
{
	const SaWatch *watch = batch->watch;

	sa_batch_add_text(batch, &batch->token_user, sa_row_user(watch, slot));
	sa_batch_add_text(batch, &batch->token_event, event);
	sa_batch_add_text(batch, &batch->token_ref,
					  row_secret_ref(sa_value_text(watch, SA_ROLE_SECRET, slot)));
	sa_batch_add_text(batch, &batch->token_series,
					  row_secret_ref(sa_value_text(watch, SA_ROLE_SERIES, slot)));
}

/* A row that is new, or that is there when we come. */
void
sa_row_inserted(SaBatch *batch, TupleTableSlot *slot)
{
	const SaWatch *watch = batch->watch;
	char	   *name;

	if (sa_row_is_excluded(watch, slot))
		return;

	switch (watch->part)
	{
		case SA_PART_ACCOUNT:
		case SA_PART_IDENTITY:
			name = sa_row_user_name(watch, slot);
			if (name == NULL)
			{
				if (!SA_HAS(watch, SA_ROLE_USER_NAME))
					sa_batch_unclear(batch, NULL);
				return;
			}
			row_add_key(batch, slot, name);
			if (watch->part == SA_PART_ACCOUNT)
			{
				sa_batch_add_text(batch, &batch->account, name);
				row_add_logins(batch, slot);
			}
			break;
		case SA_PART_ATTRIBUTE:
			row_add_attribute(batch, slot);
			break;
		case SA_PART_LOGIN:
			row_add_logins(batch, slot);
			if (!batch->backfill)
				row_add_failure(batch, NULL, slot);
			break;
		case SA_PART_REMEMBER_ME:
			if (!batch->backfill && sa_row_holds_secret(watch, slot))
				row_add_token(batch, slot, "remember_me_issued");
			break;
		case SA_PART_SESSION:
			sa_row_session_inserted(batch, slot);
			break;
	}
}

/* A row that is gone. */
void
sa_row_deleted(SaBatch *batch, TupleTableSlot *slot)
{
	if (sa_row_is_excluded(batch->watch, slot))
		return;

	switch (batch->watch->part)
	{
		case SA_PART_ACCOUNT:
			row_user_ended(batch, slot, SA_ENDED_BY_DELETION, SA_ENDED_ALWAYS);
			row_add_key_gone(batch, slot);
			break;
		case SA_PART_IDENTITY:
			row_user_ended(batch, slot, SA_ENDED_BY_DELETION, SA_ENDED_IF_LIVE);
			row_add_key_gone(batch, slot);
			break;
		case SA_PART_REMEMBER_ME:
			if (sa_row_holds_secret(batch->watch, slot))
				row_add_token(batch, slot, "remember_me_revoked");
			break;
		case SA_PART_SESSION:
			sa_row_session_deleted(batch, slot);
			break;
		case SA_PART_ATTRIBUTE:
		case SA_PART_LOGIN:
			break;
	}
}

/* A row of which a column that tells of logins may differ. */
static void
row_logins_updated(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = batch->watch;
	bool		unchanged = true;

	for (SaColumnRole role = 0; role < SA_NROLES; role++)
	{
		if (SA_IS_LOGIN_ROLE(role) && !sa_value_unchanged(watch, role, old, new))
			unchanged = false;
	}
	if (unchanged)
		return;

	row_add_logins(batch, new);

	row_add_failure(batch, old, new);
}

/* A row of part account or identity, of which at least one column differs. */
static void
row_user_updated(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = batch->watch;
	char	   *old_name = sa_row_user_name(watch, old);
	char	   *new_name = sa_row_user_name(watch, new);
	char	   *old_other = sa_value_text(watch, SA_ROLE_OTHER_NAME, old);
	char	   *new_other = sa_value_text(watch, SA_ROLE_OTHER_NAME, new);

	if (!SA_HAS(watch, SA_ROLE_USER_NAME))
	{
		if (!sa_value_unchanged(watch, SA_ROLE_CREDENTIAL, old, new) ||
			!sa_value_unchanged(watch, SA_ROLE_ACTIVE, old, new) ||
			!sa_value_unchanged(watch, SA_ROLE_LOCKED_AT, old, new) ||
			!sa_value_unchanged(watch, SA_ROLE_DELETED_AT, old, new))
			sa_batch_unclear(batch, NULL);
		return;
	}
	if (new_name == NULL)
	{
		sa_row_deleted(batch, old);
		return;
	}
	if (old_name == NULL)
	{
		sa_row_inserted(batch, new);
		return;
	}

	row_add_renamed(batch, old_name, new_name, sa_value_text(watch, SA_ROLE_KEY, old));
	if (old_other != NULL && strcmp(old_other, old_name) != 0)
		row_add_renamed(batch, old_other, new_other ? new_other : new_name, NULL);

	/* a new name ends the sessions of the old one anyway */
	if (strcmp(old_name, new_name) == 0)
	{
		if (sa_value_became_set(watch, SA_ROLE_DELETED_AT, old, new))
			row_user_ended(batch, old, SA_ENDED_BY_DELETION, SA_ENDED_ALWAYS);
		else if (sa_value_became_set(watch, SA_ROLE_LOCKED_AT, old, new) ||
				 (SA_HAS(watch, SA_ROLE_ACTIVE) &&
				  sa_value_is_true(watch, SA_ROLE_ACTIVE, old) &&
				  !sa_value_is_true(watch, SA_ROLE_ACTIVE, new)))
			row_user_ended(batch, old, SA_ENDED_BY_DEACTIVATION, SA_ENDED_ALWAYS);
		else if (!sa_value_unchanged(watch, SA_ROLE_CREDENTIAL, old, new))
			row_user_ended(batch, old, SA_ENDED_BY_PASSWORD, SA_ENDED_ALWAYS);
	}

	if (!sa_value_unchanged(watch, SA_ROLE_KEY, old, new))
		row_add_key_gone(batch, old);
	if (!sa_value_unchanged(watch, SA_ROLE_KEY, old, new) || strcmp(old_name, new_name) != 0)
	{
		row_add_key(batch, new, new_name);
		if (watch->part == SA_PART_ACCOUNT)
			sa_batch_add_text(batch, &batch->account, new_name);
	}

	row_logins_updated(batch, old, new);
}

/* A row of a remember-me token: rotated, or marked as used; or one column of many. */
static void
row_token_updated(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = batch->watch;
	bool		was_set = sa_row_holds_secret(watch, old);
	bool		is_set = sa_row_holds_secret(watch, new);

	if (sa_value_unchanged(watch, SA_ROLE_SECRET, old, new) &&
		sa_value_unchanged(watch, SA_ROLE_USED_AT, old, new))
		return;
	if (was_set && is_set)
		row_add_token(batch, new, "remember_me_used");
	else if (is_set)
		row_add_token(batch, new, "remember_me_issued");
	else if (was_set)
		row_add_token(batch, old, "remember_me_revoked");
}

/* A row that is left alone from now on, or was until now. */
static void
row_replaced(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new)
{
	batch->rows++;
	sa_row_deleted(batch, old);
	sa_row_inserted(batch, new);
}

/* A row that was written, perhaps with nothing new in it. */
void
sa_row_updated(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = batch->watch;
	bool		unchanged = true;

	if (watch->part == SA_PART_SESSION)
	{
		/* a row that we end is not being used */
		if (batch->ending != NULL)
			return;
		if (sa_row_is_excluded(watch, old) || sa_row_is_excluded(watch, new))
			row_replaced(batch, old, new);
		else
			sa_row_session_updated(batch, old, new);
		return;
	}

	if (watch->broken && !sa_value_others_unchanged(watch, old, new))
		sa_batch_unclear(batch, sa_row_user_name(watch, old));

	for (SaColumnRole role = 0; role < SA_NROLES && unchanged; role++)
		unchanged = sa_value_unchanged(watch, role, old, new);
	if (unchanged)
		return;

	if (sa_row_is_excluded(watch, old) || sa_row_is_excluded(watch, new))
	{
		row_replaced(batch, old, new);
		return;
	}
	batch->rows++;
	switch (watch->part)
	{
		case SA_PART_ACCOUNT:
		case SA_PART_IDENTITY:
			row_user_updated(batch, old, new);
			break;
		case SA_PART_ATTRIBUTE:
			row_add_attribute(batch, new);
			break;
		case SA_PART_LOGIN:
			row_logins_updated(batch, old, new);
			break;
		case SA_PART_REMEMBER_ME:
			row_token_updated(batch, old, new);
			break;
		case SA_PART_SESSION:
			break;
	}
}
