/*
 * feed.c
 *	  What nodes are told: rows of invalidation, which are the truth.  A notification is
 *	  only a bell (bell.c).
 */
#include "ending/ending.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#define PAYLOAD_MAX			(BLCKSZ - NAMEDATALEN - 128)	/* as in async.c */
#define PURGE_BATCH			1000	/* rows */

/*
 * Append ,"key":"value" unless there is no value; false if it has bytes that are no
 * characters.  A listener whose encoding does not have them would fail on any but ASCII.
 */
static bool
feed_append_pair(StringInfo json, const char *key, const char *value)
{
	if (value == NULL)
		return true;
	appendStringInfo(json, ",\"%s\":", key);
	return sa_append_json(json, value);
}

/* Write one row of the feed and set its id.  The caller is connected to SPI. */
void
sa_feed_write(SaFeedRow *row, const SaEnding *ending, const SaEnded *ended)
{
	static SaStatement insert_invalidation = {.sql =
		"INSERT INTO session_admin_internal.invalidation"
		" (at, scope, application, user_name, session_hash, reason, actor,"
		"  sessions_ended, tokens_revoked)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id"
	};
	SaArgs		args = {0};

	row->reason = ending->reason;

	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending->at), false);
	sa_arg_text(&args, row->scope);
	sa_arg_text(&args, row->application);
	sa_arg_text(&args, row->user_name);
	sa_arg(&args, BYTEAOID,
		   row->session_hash ? PointerGetDatum(sa_bytea(row->session_hash, SA_HASH_LEN)) : (Datum) 0,
		   row->session_hash == NULL);
	sa_arg_text(&args, row->reason);
	sa_arg_text(&args, sa_actor_or_null());
	sa_arg(&args, INT8OID, Int64GetDatum(ended->sessions_ended), ended->sessions_ended < 0);
	sa_arg(&args, INT8OID, Int64GetDatum(ended->tokens_revoked), ended->tokens_revoked < 0);
	sa_run(&insert_invalidation, &args);

	row->id = sa_result_int64(0, 1);
	sa_commit_durably(row->application);
}

/* Tell of one row of the feed, when the transaction commits. */
void
sa_feed_queue(const SaFeedRow *row)
{
	MemoryContext context = MemoryContextSwitchTo(TopTransactionContext);
	StringInfoData json;
	bool		told;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"id\":" INT64_FORMAT, row->id);
	told = feed_append_pair(&json, "scope", row->scope);
	told = feed_append_pair(&json, "application", row->application) && told;
	told = feed_append_pair(&json, "user", row->user_name) && told;
	if (row->session_hash != NULL)
	{
		char		hex[SA_HASH_LEN * 2 + 1];

		hex[hex_encode((const char *) row->session_hash, SA_HASH_LEN, hex)] = '\0';
		told = feed_append_pair(&json, strcmp(row->scope, "session") == 0 ? "session" : "keep", hex) && told;
	}
	told = feed_append_pair(&json, "reason", row->reason) && told;
	appendStringInfoChar(&json, '}');
	MemoryContextSwitchTo(context);

	sa_bell_queue(row->id, told && json.len < PAYLOAD_MAX ? json.data : NULL);
}

/* Tell of several rows, up to this one. */
void
sa_feed_queue_many(int64 id)
{
	sa_bell_queue(id, NULL);
}

/* Forget nodes whose lease was over at this time already. */
static void
feed_forget_nodes(TimestampTz cutoff)
{
	static SaStatement nodes_forget = {.sql =
		"DELETE FROM session_admin_internal.node WHERE node = ANY (ARRAY("
		"  SELECT node FROM session_admin_internal.node_state"
		"  WHERE lease_is_over AND join_is_over AND coalesce(lease_expires_at, joined_at) < $1))"
	};
	SaArgs		args = {0};

	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(cutoff), false);
	sa_run(&nodes_forget, &args);
}

/*
 * A batch of rows that were written when the clock was ahead: they would stay for as long
 * as it was, too.  True if there may be more.
 */
static bool
feed_set_back(void)
{
	static SaStatement set_back = {.sql =
		"UPDATE session_admin_internal.invalidation SET at = clock_timestamp()"
		" WHERE id = ANY (ARRAY(SELECT id FROM session_admin_internal.invalidation"
		"   WHERE at > clock_timestamp() + '1 minute' LIMIT $1 FOR UPDATE SKIP LOCKED))"
	};
	SaArgs		args = {0};

	sa_arg(&args, INT8OID, Int64GetDatum(PURGE_BATCH), false);
	return sa_run(&set_back, &args) >= PURGE_BATCH;
}

/*
 * sa_feed_purge
 *		Delete what is older than the retention, and forget nodes as long gone.
 *
 * One batch, of the oldest rows.  Positions that may not have seen them are refused
 * from then on, and no others: a transaction that is open for long keeps no row but its
 * own from being purged, and no node from going on.
 *
 * Whatever runs while rows are purged is noted in feed_running, and stays there while
 * it runs, and for the retention after it was last seen running.  As long as it is
 * there, nothing of it is purged.  So:
 *
 * - Of what is noted now nothing was ever purged: before it was first noted it was
 *	 running, and its rows were visible to nobody, and since then they were kept.
 * - A position has missed nothing that was purged if its xmax is higher than all of
 *	 that, and those of its running transactions that are not are all noted: every other
 *	 transaction below its xmax it has seen.
 * - A node in touch has such a position.  What was purged was committed before its last
 *	 call, or had ended by the purge before it, and then its position does not list it;
 *	 or it was running at a purge within the retention, and is noted.
 * - What has ended and wrote nothing is forgotten earlier, when the longest lease has
 *	 passed since: a node in touch has a later position.
 * - What was written early and committed late is kept for the retention from then on:
 *	 its rows are older than that when they become visible, but it was noted as running.
 */
int64
sa_feed_purge(bool *more)
{
	/*
	 * The feed is one for all applications: the longest retention of any of
	 * them
	 */
	static SaStatement feed_cutoff = {.sql =
		"SELECT clock_timestamp() - coalesce(max(value::interval)"
		"    FILTER (WHERE name = 'feed_retention'), '1 day'),"
		"  clock_timestamp() - coalesce(max(value::interval)"
		"    FILTER (WHERE name = 'node_lease'), '1 day')"
		" FROM session_admin_internal.effective_policy WHERE name IN ('feed_retention', 'node_lease')"
	};

	/* where there is nothing to purge, nor will be, nothing is written */
	static SaStatement feed_purge = {.sql =
		"WITH running AS MATERIALIZED ("
		"  SELECT xid FROM ("
		"    SELECT pg_snapshot_xip(pg_current_snapshot())"
		"    UNION SELECT pg_current_xact_id_if_assigned()) AS r (xid)"
		"  WHERE xid IS NOT NULL AND (EXISTS (SELECT FROM session_admin_internal.invalidation)"
		"    OR EXISTS (SELECT FROM pg_locks WHERE granted AND mode = 'RowExclusiveLock'"
		"      AND locktype = 'relation' AND pid <> pg_backend_pid()"
		"      AND relation = 'session_admin_internal.invalidation'::regclass"
		"      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())))),"
		" noted AS ("
		"  INSERT INTO session_admin_internal.feed_running AS r (xid, seen_at)"
		"  SELECT xid, clock_timestamp() FROM running"
		"  ON CONFLICT (xid) DO UPDATE SET seen_at = excluded.seen_at),"
		" forgotten AS ("
		"  DELETE FROM session_admin_internal.feed_running"
		"  WHERE xid NOT IN (SELECT xid FROM running) AND (seen_at < $1"
		"    OR seen_at < $3 AND NOT EXISTS (SELECT FROM session_admin_internal.invalidation i"
		"      WHERE i.xid >= feed_running.xid AND i.xid <= feed_running.xid))),"
		" purged AS ("
		"  DELETE FROM session_admin_internal.invalidation WHERE id = ANY (ARRAY("
		"    SELECT id FROM session_admin_internal.invalidation"
		"    WHERE at < $1 AND xid NOT IN (SELECT xid FROM running)"
		"      AND xid NOT IN (SELECT xid FROM session_admin_internal.feed_running WHERE seen_at >= $1)"
		"    ORDER BY at LIMIT $2))"
		"  RETURNING xid),"
		" raised AS ("
		"  UPDATE session_admin_internal.feed_horizon SET purged_xid = greatest(purged_xid, highest)"
		"  FROM (SELECT xid FROM purged ORDER BY xid DESC LIMIT 1) AS h (highest))"
		" SELECT count(*) FROM purged"
	};
	SaArgs		args = {0};
	Datum		cutoff;
	Datum		longest_lease;
	bool		isnull;
	int64		deleted;

	SPI_connect();
	sa_server_run_note();
	sa_run(&feed_cutoff, NULL);
	cutoff = sa_result(0, 1, &isnull);
	longest_lease = sa_result(0, 2, &isnull);
	feed_forget_nodes(DatumGetTimestampTz(cutoff));
	sa_arg(&args, TIMESTAMPTZOID, cutoff, false);
	*more = feed_set_back();
	sa_arg(&args, INT8OID, Int64GetDatum(PURGE_BATCH), false);
	sa_arg(&args, TIMESTAMPTZOID, longest_lease, false);
	sa_run(&feed_purge, &args);
	deleted = sa_result_int64(0, 1);
	SPI_finish();
	*more = *more || deleted >= PURGE_BATCH;
	return deleted;
}
