/*
 * late_ending.c
 *	  Has a session ended although somebody else had it locked?
 *
 * Reads the rows of late_ending that concern an application, as part of what holds for
 * it; ending/late.c writes them.
 */
#include "policy/load.h"

#include "utils/xid8.h"

/* Read those of an application, into this context.  The caller is connected to SPI. */
void
sa_late_endings_read(SaApplication *application, MemoryContext context)
{
	static SaStatement read_endings = {.sql =
		"SELECT user_name::text, session_hash, before_xid, keep_hash FROM session_admin_internal.late_ending"
		" WHERE application IS NULL OR application = $1"
	};
	SaArgs		args = {0};
	uint64		rows;

	sa_arg_text(&args, application->name);
	rows = sa_run(&read_endings, &args);
	application->n_late_endings = (int) rows;
	application->late_endings = rows == 0 ? NULL :
		MemoryContextAllocZero(context, rows * sizeof(SaLateEnding));
	for (uint64 i = 0; i < rows; i++)
	{
		SaLateEnding *late = &application->late_endings[i];
		char	   *user_name = sa_result_text(i, 1);
		bool		isnull;
		Datum		hash = sa_result(i, 2, &isnull);
		Datum		keep;

		late->any_user = user_name == NULL;
		late->user_key = sa_user_key(user_name);
		late->any_session = isnull;
		if (!isnull)
			memcpy(late->hash, VARDATA_ANY(DatumGetByteaPP(hash)), SA_HASH_LEN);
		keep = sa_result(i, 4, &isnull);
		late->keeps = !isnull;
		if (!isnull)
			memcpy(late->keep, VARDATA_ANY(DatumGetByteaPP(keep)), SA_HASH_LEN);
		late->before_xid = U64FromFullTransactionId(DatumGetFullTransactionId(sa_result(i, 3, &isnull)));
	}
}

/* Has the session ended late?  user_key is 0 for an anonymous one. */
bool
sa_late_ended(const SaApplication *application, uint64 user_key, const uint8 *hash,
			  uint64 opened_xid)
{
	for (int i = 0; i < application->n_late_endings; i++)
	{
		const SaLateEnding *late = &application->late_endings[i];

		if (opened_xid < late->before_xid &&
			(late->any_user || late->user_key == user_key) &&
			(late->any_session || memcmp(late->hash, hash, SA_HASH_LEN) == 0) &&
			!(late->keeps && memcmp(late->keep, hash, SA_HASH_LEN) == 0))
			return true;
	}
	return false;
}
