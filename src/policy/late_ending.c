/*
 * late_ending.c
 *	  Has a session ended although somebody else had it locked?
 *
 * Reads the rows of late_ending that concern an application, as part of what holds for
 * it; ending/late.c writes them.
 */
#include "policy/load.h"

#include "utils/xid8.h"

/* The columns of the table. */
enum
{
	LATE_APPLICATION = 2,
	LATE_USER_NAME,
	LATE_SESSION_HASH,
	LATE_KEEP_HASH,
	LATE_TOKENS,
	LATE_BEFORE_XID
};

/* Copy a hash; false if it is null. */
static bool
late_hash_read(SaScan *scan, AttrNumber column, uint8 *hash)
{
	bool		isnull;
	Datum		value = sa_scan_value(scan, column, &isnull);

	if (!isnull)
		memcpy(hash, VARDATA_ANY(DatumGetByteaPP(value)), SA_HASH_LEN);
	return !isnull;
}

static void
late_ending_read(SaScan *scan, SaLateEnding *late)
{
	char	   *user_name = sa_scan_text(scan, LATE_USER_NAME);
	bool		isnull;

	memset(late, 0, sizeof(*late));
	late->any_user = user_name == NULL;
	late->user_key = sa_user_key(user_name);
	late->any_session = !late_hash_read(scan, LATE_SESSION_HASH, late->hash);
	late->keeps = late_hash_read(scan, LATE_KEEP_HASH, late->keep);
	late->before_xid = U64FromFullTransactionId(
												DatumGetFullTransactionId(sa_scan_value(scan, LATE_BEFORE_XID, &isnull)));
}

/*
 * Read those of an application, into this context.  All rows are looked at: there are
 * few, for as long as those run who had locked what was to end.
 */
void
sa_late_endings_read(SaApplication *application, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SaScan		scan;
	int			space = 0;

	application->n_late_endings = 0;
	application->late_endings = NULL;
	sa_scan_begin(&scan, SA_TABLE_LATE_ENDING);
	while (sa_scan_next(&scan))
	{
		char	   *name = sa_scan_text(&scan, LATE_APPLICATION);

		if (name != NULL && strcmp(name, application->name) != 0)
			continue;
		if (application->n_late_endings == space)
			application->late_endings = sa_grown(application->late_endings, &space, sizeof(SaLateEnding));
		late_ending_read(&scan, &application->late_endings[application->n_late_endings++]);
	}
	sa_scan_end(&scan);
	MemoryContextSwitchTo(old);
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
