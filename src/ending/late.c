/*
 * late.c
 *	  What has ended although another transaction had it locked: rows of late_ending.
 *
 * They are part of what holds for an application: each backend keeps them with its
 * policies, and is told of changes in the same way, before the commit is answered.
 */
#include "ending/ending.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
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

	/* assigned now, our own id is below the next one */
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

/*
 * A task of maintain(): forget those of which nothing can come any more.  What they
 * have ended was archived before; what an open transaction holds may still come.
 */
int64
sa_late_purge(pg_attribute_unused() bool *more)
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
	 * while a transaction stays open for long, the same may end again and
	 * again
	 */
	return forgotten + (int64) sa_run(&forget_repeated, NULL);
}
