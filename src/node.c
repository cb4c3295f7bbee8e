/*
 * node.c
 *	  Nodes follow the feed of invalidations, and give receipts for them.
 *
 * A position in the feed is a snapshot.  What a node has yet to see is what is
 * committed now and was not visible in the snapshot that it holds: that has no
 * gap, however transactions interleave, abort or nest, and waits for nobody.
 * The highest id, or a time, would skip whatever commits later than a row with
 * a higher one.
 *
 * Why nothing is missed and nothing comes twice:
 *
 * - A new position and the rows that lead up to it are read by one statement,
 *	 that is by one snapshot.  (feed_position() gives the active snapshot, which
 *	 is the one that the statement reads with, be it newer than that of a
 *	 transaction under REPEATABLE READ.)  A row is visible to a snapshot if its
 *	 transaction is, subtransactions included, so the rows between position A
 *	 and position B are those visible now of which xid is not visible in A.
 * - A snapshot does not list the transaction that takes it, and pg_snapshot
 *	 therefore calls it finished as soon as a later one is.  Positions list it as
 *	 running: its rows are not committed and not delivered yet, to itself either.
 * - Presenting a position is the receipt for what led up to it.  Only two are
 *	 taken: the one that the node was handed last, and the one that it presented
 *	 last (the answer to that may have been lost on its way).  Both are as
 *	 durable as the call that handed them out, which is committed synchronously;
 *	 and all that a position calls finished was in the write-ahead log before
 *	 it.  So after a crash none of its transaction ids is given out again, and a
 *	 position that a restored or promoted server does not remember is refused.
 * - Purging raises the horizon and deletes the rows in one transaction.  A fetch
 *	 sees both or neither, since it reads both with one snapshot.
 *
 * Calls for one node are done one after the other, under a lock on its name: the
 * node's row is not there yet when it joins, and waiting for a row would be an
 * error under REPEATABLE READ.  Each statement takes its own latest snapshot
 * after that lock.  The lock is kept until the transaction ends, when the row is
 * visible to others.
 */
#include "session_admin.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define NODE_NAME_MAX		255 /* bytes; as the table checks */
#define SYNC_COLUMNS		9
#define WAIT_COLUMNS		2
#define WAIT_FIRST_DELAY	1	/* milliseconds between two looks at the nodes */
#define WAIT_LAST_DELAY		20
#define PURGE_BATCH			1000	/* rows */

static SaStatement here = {.sql = "SELECT session_admin.feed_position()"};

PG_FUNCTION_INFO_V1(sa_feed_position);
PG_FUNCTION_INFO_V1(sa_join_node);
PG_FUNCTION_INFO_V1(sa_sync_node);
PG_FUNCTION_INFO_V1(sa_leave_node);
PG_FUNCTION_INFO_V1(sa_wait_for_nodes);

/* The name of a node; nobody may leave the name out, or make it endless */
static char *
node_arg(FunctionCallInfo fcinfo, int argno)
{
	char	   *node = sa_text_or_null(fcinfo, argno);

	if (node == NULL || node[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a node must not be null or empty")));
	if (strlen(node) > NODE_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a node is too long"),
				 errdetail("The maximum is %d bytes.", NODE_NAME_MAX)));
	sa_check_printable("name of node", node);
	return node;
}

/*
 * feed_position(): the position of the statement that this is part of
 *
 * That is its snapshot, with its own transaction among those that are running.
 */
Datum
sa_feed_position(pg_attribute_unused() PG_FUNCTION_ARGS)
{
	Datum		snapshot = DirectFunctionCall1(pg_current_snapshot, (Datum) 0);
	FullTransactionId own = GetTopFullTransactionIdIfAny();
	uint64		xid = U64FromFullTransactionId(own);
	uint64		xmin = DatumGetInt64(DirectFunctionCall1(pg_snapshot_xmin, snapshot));
	uint64		xmax = DatumGetInt64(DirectFunctionCall1(pg_snapshot_xmax, snapshot));
	char	   *running;
	StringInfoData text;
	bool		placed = false;

	if (!FullTransactionIdIsValid(own) || xid >= xmax)
		return snapshot;

	/* xmin:xmax:xid,xid...; xmin has counted it already */
	running = DatumGetCString(DirectFunctionCall1(pg_snapshot_out, snapshot));
	running = strchr(strchr(running, ':') + 1, ':') + 1;
	initStringInfo(&text);
	appendStringInfo(&text, UINT64_FORMAT ":" UINT64_FORMAT ":", xmin, xmax);
	for (char *next = running; *next != '\0'; next += *next == ',')
	{
		uint64		other = strtou64(next, &next, 10);

		if (!placed && xid < other)
		{
			appendStringInfo(&text, UINT64_FORMAT ",", xid);
			placed = true;
		}
		appendStringInfo(&text, UINT64_FORMAT ",", other);
	}
	if (!placed)
		appendStringInfo(&text, UINT64_FORMAT, xid);
	return DirectFunctionCall1(pg_snapshot_in, CStringGetDatum(text.data));
}

/* One call at a time for each node, until the end of the transaction */
static void
node_lock(FunctionCallInfo fcinfo, const char *node)
{
	Oid			relid;
	uint32		key;

	/*
	 * clients that look for the primary know this error, and not that of the
	 * lock
	 */
	PreventCommandDuringRecovery(get_func_name(fcinfo->flinfo->fn_oid));

	relid = get_relname_relid("node", get_namespace_oid("session_admin", false));
	key = DatumGetUInt32(hash_any((const unsigned char *) node, strlen(node)));
	LockDatabaseObject(relid, key, 0, ExclusiveLock);
}

/*
 * A node is its role's: nobody else gives receipts in its name, or says that it
 * has left.  A role that may act as that one may.  Whoever joins may take over a
 * name when its lease is over.
 */
static void
node_check_role(const char *node, bool joins)
{
	static SaStatement node_of_another = {.sql =
		"SELECT FROM session_admin.node n WHERE node = $1 AND joined_by <> session_user"
		"  AND (NOT $2 OR lease_expires_at > clock_timestamp())"
		"  AND NOT EXISTS (SELECT FROM pg_roles"
		"    WHERE rolname = n.joined_by AND pg_has_role(session_user, oid, 'MEMBER'))"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, node);
	sa_arg(&args, BOOLOID, BoolGetDatum(joins), false);
	if (sa_run(&node_of_another, &args) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("node \"%s\" has joined as another role", node),
				 errhint("Use another name, or join when its lease has expired.")));
}

/* The moment that is an interval after another; what cannot be is an error */
static TimestampTz
time_after(TimestampTz at, int64 microseconds)
{
	TimestampTz result;

	if (pg_add_s64_overflow(at, microseconds, &result) || !IS_VALID_TIMESTAMP(result))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("interval is too long")));
	return result;
}

/*
 * sa_join_node
 *		The position from which an empty cache is right.
 */
Datum
sa_join_node(PG_FUNCTION_ARGS)
{
	/*
	 * Whoever joins under the name of a node that is still known may have
	 * come after it while it still answers from its cache: its lease is left
	 * to run out.
	 */
	static SaStatement node_join = {.sql =
		"INSERT INTO session_admin.node AS n (node, application, handed)"
		" VALUES ($1, $2, $3)"
		" ON CONFLICT (node) DO UPDATE SET application = excluded.application,"
		"  joined_at = excluded.joined_at, joined_by = excluded.joined_by,"
		"  applied = NULL, handed = excluded.handed"
	};
	char	   *node = node_arg(fcinfo, 0);
	char	   *name = sa_application_arg(fcinfo, 1);
	SaApplication application;
	SaArgs		args = {0};
	bool		isnull;
	Datum		position;

	SPI_connect();
	sa_application_make(name, &application);
	node_lock(fcinfo, node);
	node_check_role(node, true);

	sa_run(&here, NULL);
	position = SPI_datumTransfer(sa_result(0, 1, &isnull), false, -1);

	sa_arg_text(&args, node);
	sa_arg_text(&args, name);
	sa_arg(&args, PG_SNAPSHOTOID, position, false);
	sa_run(&node_join, &args);
	sa_policy_settle();

	sa_commit_durably(name);
	SPI_finish();
	PG_RETURN_DATUM(position);
}

/*
 * sa_sync_node
 *		Receipt, heartbeat and fetch: what was committed after a position.
 *
 * The lease is counted from a later moment here than on the node, which counts
 * from before its call: the node stops trusting its cache before the server
 * says that it has.
 */
Datum
sa_sync_node(PG_FUNCTION_ARGS)
{
	/*
	 * pg_snapshot has no equality, and none is needed: what was handed out
	 * comes back
	 */
	static SaStatement node_find = {.sql =
		"SELECT application,"
		"       coalesce($2::text IN (handed::text, applied::text), false),"
		"       joined_by = session_user"
		" FROM session_admin.node WHERE node = $1"
	};

	/*
	 * At least one row, with no id if there is nothing after position $1.
	 * Whatever that is, the rows are found by the index.
	 */
	static SaStatement fetch = {.generic = true,.sql =
		"SELECT session_admin.feed_position(), pg_snapshot_xmin($1) > purged_xid,"
		"  id, scope, application, user_name, session_hash, reason, at"
		" FROM session_admin.feed_horizon LEFT JOIN session_admin.invalidation"
		"   ON xid >= pg_snapshot_xmin($1) AND NOT pg_visible_in_snapshot(xid, $1)"
		"  AND xid IS DISTINCT FROM pg_current_xact_id_if_assigned()"
		" ORDER BY xid, id"
	};
	static SaStatement node_insert = {.sql =
		"INSERT INTO session_admin.node"
		"  (node, application, last_sync_at, lease_expires_at, applied, handed)"
		" VALUES ($1, $2, $3, $4, $5, $6)"
	};
	static SaStatement node_update = {.sql =
		"UPDATE session_admin.node"
		" SET last_sync_at = $3, lease_expires_at = $4, applied = $5, handed = $6"
		" WHERE node = $1 AND application = $2"
	};
	char	   *node = node_arg(fcinfo, 0);
	Datum		presented = PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1);
	bool		known;
	bool		remembered = false;
	char	   *name;
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SaApplication application;
	SaArgs		args = {0};
	Interval	lease = {0};
	TimestampTz now;
	Datum		values[SYNC_COLUMNS] = {0};
	bool		nulls[SYNC_COLUMNS];
	bool		isnull;
	uint64		rows;

	sa_init_materialized_srf(fcinfo);
	SPI_connect();
	node_lock(fcinfo, node);
	sa_arg_text(&args, node);
	sa_arg(&args, PG_SNAPSHOTOID, presented, PG_ARGISNULL(1));
	known = sa_run(&node_find, &args) > 0;
	name = known ? sa_result_text(0, 1) : pstrdup(sa_application);
	if (known)
	{
		remembered = DatumGetBool(sa_result(0, 2, &isnull));
		/* nearly always the same role */
		if (!DatumGetBool(sa_result(0, 3, &isnull)))
			node_check_role(node, false);
	}
	sa_application_make(name, &application);

	if (remembered)
	{
		memset(&args, 0, sizeof(args));
		sa_arg(&args, PG_SNAPSHOTOID, presented, false);
		rows = sa_run(&fetch, &args);
		remembered = DatumGetBool(sa_result(0, 2, &isnull));
	}
	if (!remembered)
		rows = sa_run(&here, NULL);

	lease.time = application.node_lease;
	values[0] = sa_result(0, 1, &isnull);
	values[8] = IntervalPGetDatum(&lease);
	memset(nulls, true, sizeof(nulls));
	nulls[0] = nulls[8] = false;

	if (remembered)
	{
		for (uint64 row = 0; row < rows; row++)
		{
			for (int column = 1; column <= 7; column++)
				values[column] = sa_result(row, column + 2, &nulls[column]);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	else
	{
		/*
		 * An id that no row has: a reader that skips rows without one must
		 * not skip this
		 */
		values[1] = Int64GetDatum(0);
		values[2] = CStringGetTextDatum("all");
		values[6] = CStringGetTextDatum("resync");
		nulls[1] = nulls[2] = nulls[6] = false;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	now = GetCurrentTimestamp();
	memset(&args, 0, sizeof(args));
	sa_arg_text(&args, node);
	sa_arg_text(&args, name);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
	sa_arg(&args, TIMESTAMPTZOID,
		   TimestampTzGetDatum(time_after(now, application.node_lease)), false);
	sa_arg(&args, PG_SNAPSHOTOID, presented, !remembered);
	sa_arg(&args, PG_SNAPSHOTOID, values[0], false);
	/* the purge may have forgotten it meanwhile */
	if (!known || sa_run(&node_update, &args) == 0)
		sa_run(&node_insert, &args);
	sa_policy_settle();

	sa_commit_durably(name);
	SPI_finish();
	return (Datum) 0;
}

/*
 * sa_leave_node
 *		The node no longer answers from its cache, and waits for nothing more.
 */
Datum
sa_leave_node(PG_FUNCTION_ARGS)
{
	static SaStatement node_leave = {.sql =
		"DELETE FROM session_admin.node WHERE node = $1"
	};
	char	   *node = node_arg(fcinfo, 0);
	SaArgs		args = {0};
	uint64		rows;

	SPI_connect();
	node_lock(fcinfo, node);
	node_check_role(node, false);
	sa_arg_text(&args, node);
	rows = sa_run(&node_leave, &args);
	SPI_finish();
	PG_RETURN_BOOL(rows > 0);
}

/* How long to wait at most, in microseconds */
static int64
timeout_arg(FunctionCallInfo fcinfo, int argno)
{
	Interval   *timeout;
	int64		days;
	int64		result;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be null")));

	timeout = PG_GETARG_INTERVAL_P(argno);
	days = (int64) timeout->month * DAYS_PER_MONTH + timeout->day;
	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &result) ||
		pg_add_s64_overflow(result, timeout->time, &result))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout is too long")));
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	return result;
}

/* The committed transaction of an invalidation */
static Datum
invalidation_xid(int64 id)
{
	static SaStatement invalidation_find = {.sql =
		"SELECT xid, coalesce(xid = pg_current_xact_id_if_assigned(), false)"
		" FROM session_admin.invalidation WHERE id = $1"
	};
	SaArgs		args = {0};
	bool		isnull;

	sa_arg(&args, INT8OID, Int64GetDatum(id), false);
	if (sa_run(&invalidation_find, &args) == 0)
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("invalidation %lld does not exist", (long long) id),
				 errhint("Invalidations are kept for as long as the policy \"feed_retention\" says.")));
	if (DatumGetBool(sa_result(0, 2, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("invalidation %lld is not committed yet", (long long) id),
				 errhint("Nodes learn of it when this transaction commits. Commit first, then wait.")));
	return SPI_datumTransfer(sa_result(0, 1, &isnull), FLOAT8PASSBYVAL, 8);
}

/*
 * sa_wait_for_nodes
 *		Wait until no node can honour what an invalidation ended, or a timeout.
 */
Datum
sa_wait_for_nodes(PG_FUNCTION_ARGS)
{
	static SaStatement node_states = {.sql =
		"SELECT node, CASE"
		"  WHEN pg_visible_in_snapshot($1, applied) THEN 'applied'"
		"  WHEN lease_expires_at > clock_timestamp() THEN 'behind'"
		"  ELSE 'lease expired' END"
		" FROM session_admin.node"

		/*
		 * a product's own row of a session that has ended still lets its user
		 * in there
		 */
		" UNION ALL SELECT DISTINCT 'product:' || product, 'behind'"
		"  FROM session_admin.product_remains WHERE xid = $1"
		" ORDER BY 1"
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		timeout = timeout_arg(fcinfo, 1);
	TimestampTz deadline = time_after(GetCurrentTimestamp(), timeout);
	long		delay = WAIT_FIRST_DELAY;
	SaArgs		args = {0};
	uint64		rows;

	sa_init_materialized_srf(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;

	SPI_connect();
	sa_arg(&args, XID8OID, invalidation_xid(PG_GETARG_INT64(0)), false);

	for (;;)
	{
		bool		behind = false;
		long		left;

		CHECK_FOR_INTERRUPTS();
		rows = sa_run(&node_states, &args);
		for (uint64 row = 0; row < rows && !behind; row++)
		{
			char	   *state = sa_result_text(row, 2);

			behind = strcmp(state, "behind") == 0;
			pfree(state);
		}

		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (!behind || left <= 0)
			break;

		SPI_freetuptable(SPI_tuptable);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(delay, left), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		delay = Min(delay * 2, WAIT_LAST_DELAY);
	}

	for (uint64 row = 0; row < rows; row++)
	{
		Datum		values[WAIT_COLUMNS];
		bool		nulls[WAIT_COLUMNS];

		for (int column = 0; column < WAIT_COLUMNS; column++)
			values[column] = sa_result(row, column + 1, &nulls[column]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	SPI_finish();
	return (Datum) 0;
}

/*
 * sa_feed_purge
 *		Delete what is older than the retention, and forget nodes as long gone.
 *
 * One batch, of the oldest rows.  Positions that may not have seen them are
 * refused from then on.  What is not older than every running transaction stays
 * until that has ended: the horizon must stay below the positions in use.
 */
int64
sa_feed_purge(bool *more)
{
	/*
	 * The feed is one for all applications: the longest retention of any of
	 * them
	 */
	static SaStatement feed_cutoff = {.sql =
		"SELECT clock_timestamp() - coalesce(max(value::interval), '1 day')"
		" FROM session_admin.effective_policy WHERE name = 'feed_retention'"
	};
	static SaStatement feed_purge = {.sql =
		"WITH oldest AS MATERIALIZED ("
		"  SELECT id, at, xid FROM session_admin.invalidation ORDER BY id LIMIT $2),"
		" purged AS ("
		"  DELETE FROM session_admin.invalidation WHERE id IN ("
		"    SELECT id FROM oldest"
		"    WHERE at < $1 AND xid < pg_snapshot_xmin(pg_current_snapshot()))"
		"  RETURNING xid),"
		" raised AS ("
		"  UPDATE session_admin.feed_horizon SET purged_xid = greatest(purged_xid, highest)"
		"  FROM (SELECT xid FROM purged ORDER BY xid DESC LIMIT 1) AS h (highest))"
		" SELECT count(*) FROM purged"
	};
	static SaStatement nodes_forget = {.sql =
		"DELETE FROM session_admin.node WHERE coalesce(lease_expires_at, joined_at) < $1"
	};
	SaArgs		args = {0};
	Datum		cutoff;
	bool		isnull;
	int64		deleted;

	SPI_connect();
	sa_run(&feed_cutoff, NULL);
	cutoff = sa_result(0, 1, &isnull);
	sa_arg(&args, TIMESTAMPTZOID, cutoff, isnull);
	sa_run(&nodes_forget, &args);
	sa_arg(&args, INT8OID, Int64GetDatum(PURGE_BATCH), false);
	sa_run(&feed_purge, &args);
	deleted = sa_result_int64(0, 1);
	SPI_finish();
	*more = deleted >= PURGE_BATCH;
	return deleted;
}
