/*
 * late.c
 *	  What has ended although somebody else had it locked.
 *
 * An invalidation waits for nobody's open transaction.  What it could not lock, or
 * could not see because it is not committed, it ends by a row of late_ending: all
 * that a transaction opened there whose id is less than "before_xid".  Every session
 * and token has the id of the transaction that opened it, so that a later login is
 * not concerned, whatever the clocks say.
 *
 * The rows are part of what holds for an application: each backend keeps them with
 * its policies, and is told of changes in the same way (policy.c), before whoever
 * commits them is answered.  Housekeeping archives what they have ended, by the one
 * door, and then deletes them.
 */
#include "session_admin.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

/*
 * End all sessions (and tokens, if they are to end, too) that were opened by now: of
 * this application (NULL: of all), of this user (NULL: of all), or this session alone,
 * but for one that is kept (unless NULL).  The caller is connected to SPI and has set reason
 * and time.
 */
void
sa_late_end(const char *application, const char *user_name, const uint8 *hash, const uint8 *keep,
			bool tokens, const SaEnding *ending)
{
	static SaStatement insert_ending = {.sql =
		"INSERT INTO session_admin_internal.late_ending"
		" (application, user_name, session_hash, tokens, before_xid, at, reason, ended_by, actor,"
		"  keep_hash)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce($8, session_user), $9, $10)"
	};
	SaArgs		args = {0};

	/* ours is below the next one */
	(void) GetTopFullTransactionId();
	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg(&args, BYTEAOID, hash ? PointerGetDatum(sa_bytea(hash, SA_HASH_LEN)) : (Datum) 0,
		   hash == NULL);
	sa_arg(&args, BOOLOID, BoolGetDatum(tokens), false);
	sa_arg(&args, XID8OID, FullTransactionIdGetDatum(ReadNextFullTransactionId()), false);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending->at), false);
	sa_arg_text(&args, ending->reason);
	sa_arg_text(&args, ending->ended_by);
	sa_arg_text(&args, sa_actor_or_null());
	sa_arg(&args, BYTEAOID, keep ? PointerGetDatum(sa_bytea(keep, SA_HASH_LEN)) : (Datum) 0,
		   keep == NULL);
	sa_run(&insert_ending, &args);
}

/* Read those of an application, into this context.  The caller is connected to SPI. */
void
sa_late_read(SaApplication *application, MemoryContext context)
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

/*
 * A task of maintain(): forget those of which nothing can come any more.  What they
 * have ended was archived before; what an open transaction holds may still come.
 */
int64
sa_late_forget(pg_attribute_unused() bool *more)
{
	static SaStatement any_ending = {.sql =
		"SELECT FROM session_admin_internal.late_ending LIMIT 1"
	};
	static SaStatement forget_endings = {.sql =
		"DELETE FROM session_admin_internal.late_ending l"
		" WHERE l.before_xid <= pg_snapshot_xmin(pg_current_snapshot())"
		"  AND NOT EXISTS (SELECT FROM session_admin.session s"
		"    WHERE s.opened_xid < l.before_xid"
		"      AND (l.application IS NULL OR s.application = l.application)"
		"      AND (l.user_name IS NULL OR s.user_name = l.user_name)"
		"      AND (l.session_hash IS NULL OR s.session_hash = l.session_hash)"
		"      AND l.keep_hash IS DISTINCT FROM s.session_hash)"
		"  AND NOT EXISTS (SELECT FROM session_admin.remember_me_token t"
		"    WHERE l.tokens AND t.opened_xid < l.before_xid"
		"      AND (l.application IS NULL OR t.application = l.application)"
		"      AND (l.user_name IS NULL OR t.user_name = l.user_name))"
	};

	static SaStatement forget_repeated = {.sql =
		"DELETE FROM session_admin_internal.late_ending l USING session_admin_internal.late_ending n"
		" WHERE n.id > l.id AND n.before_xid >= l.before_xid AND n.reason = l.reason"
		"  AND n.tokens >= l.tokens"
		"  AND n.application IS NOT DISTINCT FROM l.application"
		"  AND n.user_name IS NOT DISTINCT FROM l.user_name"
		"  AND n.session_hash IS NOT DISTINCT FROM l.session_hash"
		"  AND n.keep_hash IS NOT DISTINCT FROM l.keep_hash"
	};
	int64		forgotten;

	/* each change tells all backends */
	if (sa_run(&any_ending, NULL) == 0)
		return 0;
	forgotten = (int64) sa_run(&forget_endings, NULL);

	/*
	 * somebody may stay in a transaction for long, and others end the same
	 * again and again
	 */
	return forgotten + (int64) sa_run(&forget_repeated, NULL);
}
