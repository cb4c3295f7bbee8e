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
 *	 Whether that server has lost something that the node was told, it sees from
 *	 what the position claims (position.c, lost.c).
 * - Purging raises the horizon and deletes the rows in one transaction (see
 *	 sa_feed_purge).  A fetch sees both or neither, since it reads both with one
 *	 snapshot.
 *
 * Calls for one node are done one after the other, under a lock on its name: the
 * node's row is not there yet when it joins, and waiting for a row would be an
 * error under REPEATABLE READ.  Each statement takes its own latest snapshot
 * after that lock.  The lock is kept until the transaction ends, when the row is
 * visible to others.
 */
#include "session_admin.h"

#include "access/xact.h"
#include "access/xlog.h"
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
#define PRODUCT_PREFIX		"product:"
#define SYNC_COLUMNS		9
#define FETCHED_REASON		9	/* the column of what is fetched */
#define WAIT_COLUMNS		2
#define WAIT_FIRST_DELAY	1	/* milliseconds between two looks at the nodes */
#define WAIT_LAST_DELAY		20

/* The position now, with the key that signs what it claims. */
static SaStatement here = {.sql =
	"SELECT session_admin_internal.feed_position(), (SELECT id::text FROM session_admin_internal.installation)"
};

PG_FUNCTION_INFO_V1(sa_join_node);
PG_FUNCTION_INFO_V1(sa_sync_node);
PG_FUNCTION_INFO_V1(sa_leave_node);
PG_FUNCTION_INFO_V1(sa_wait_for_nodes);

/* The name of a node; nobody may leave the name out, or make it endless */
char *
sa_node_arg(FunctionCallInfo fcinfo, int argno)
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
	if (strncmp(node, PRODUCT_PREFIX, strlen(PRODUCT_PREFIX)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a node must not begin with \"%s\"", PRODUCT_PREFIX),
				 errdetail("wait_for_nodes() names the products so of which rows remain.")));
	sa_check_printable("name of node", node);
	return node;
}

/* One call at a time for each node, until the end of the transaction */
void
sa_node_lock(FunctionCallInfo fcinfo, const char *node)
{
	Oid			relid;
	uint32		key;

	/*
	 * clients that look for the primary know this error, and not that of the
	 * lock
	 */
	PreventCommandDuringRecovery(get_func_name(fcinfo->flinfo->fn_oid));

	relid = sa_relation(SA_TABLE_NODE);
	key = DatumGetUInt32(hash_any((const unsigned char *) node, strlen(node)));
	LockDatabaseObject(relid, key, 0, ExclusiveLock);
}

/*
 * A node is its role's: nobody else gives receipts in its name, or says that it
 * has left.  A role that may act as that one may.  Whoever joins may take over a
 * name when its lease is over, or, if it has not synced yet, when as long a time has
 * passed.
 */
void
sa_node_check_role(const char *node, bool joins)
{
	static SaStatement node_of_another = {.sql =
		"SELECT FROM session_admin_internal.node_state n WHERE node = $1 AND joined_by <> session_user"
		"  AND NOT ($2 AND lease_is_over AND join_is_over)"
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

/*
 * How long a node of this application may answer from its cache, in microseconds.
 * Nodes make no application: one may start before the first login, and is given what
 * holds by default.
 */
static int64
node_lease(const char *name)
{
	static SaStatement default_lease = {.sql =
		"SELECT (1000000 * extract(epoch FROM default_value::interval))::bigint"
		" FROM session_admin_internal.policy_definition WHERE name = 'node_lease'"
	};
	SaApplication application;

	if (!sa_application_find(name, &application))
	{
		sa_run(&default_lease, NULL);
		return sa_result_int64(0, 1);
	}
	/* it may have come from a dump, and is used from now on */
	sa_application_make(name, &application);
	return application.node_lease;
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
		"INSERT INTO session_admin_internal.node AS n"
		"  (node, application, handed, joined_at, joined_ahead, joined_run)"
		" VALUES ($1, $2, $3, $4, $5, $6)"
		" ON CONFLICT (node) DO UPDATE SET application = excluded.application,"
		"  joined_at = excluded.joined_at, joined_by = excluded.joined_by,"
		"  joined_ahead = excluded.joined_ahead, joined_run = excluded.joined_run,"
		"  applied = NULL, handed = excluded.handed"
	};
	char	   *node = sa_node_arg(fcinfo, 0);
	char	   *name = sa_application_arg(fcinfo, 1);
	SaArgs		args = {0};
	bool		isnull;
	Datum		position;
	TimestampTz now;

	SPI_connect();
	sa_node_lock(fcinfo, node);
	(void) node_lease(name);
	sa_node_check_role(node, true);
	sa_note_server_run();

	sa_run(&here, NULL);
	position = SPI_datumTransfer(sa_result(0, 1, &isnull), false, -1);

	sa_arg_text(&args, node);
	sa_arg_text(&args, name);
	sa_arg(&args, PG_SNAPSHOTOID, position, false);
	now = GetCurrentTimestamp();
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
	sa_arg(&args, INT8OID, Int64GetDatum(sa_clock_ahead(now)), false);
	sa_arg_text(&args, sa_server_run());
	sa_run(&node_join, &args);
	sa_policy_settle();

	sa_commit_durably(name);
	SPI_finish();
	PG_RETURN_DATUM(position);
}

/* Is this a text that the client cannot be shown? */
static bool
is_hidden(Datum value, bool isnull)
{
	return !isnull && !sa_is_shown(TextDatumGetCString(value));
}

/*
 * A row of the feed as the client can be shown it, who else could not go on: what it
 * does not learn by name it must take for more.  Of a user whose name cannot be shown,
 * the whole application ends; of such an application, everything.
 */
static void
show_row(Datum *values, bool *nulls)
{
	enum
	{
		SCOPE = 2, APPLICATION, USER_NAME, SESSION_HASH, REASON
	};
	char	   *scope;
	bool		hides_application = is_hidden(values[APPLICATION], nulls[APPLICATION]);
	bool		hides_user = is_hidden(values[USER_NAME], nulls[USER_NAME]);

	if (is_hidden(values[REASON], nulls[REASON]))
		values[REASON] = CStringGetTextDatum(sa_shown(TextDatumGetCString(values[REASON])));
	if (!hides_application && !hides_user)
		return;

	scope = TextDatumGetCString(values[SCOPE]);
	nulls[APPLICATION] = nulls[APPLICATION] || hides_application;
	nulls[USER_NAME] = true;
	/* a token is nothing that a cache has, and a session has its hash */
	if (strcmp(scope, "token") == 0 || (strcmp(scope, "session") == 0 && !hides_application))
		return;
	values[SCOPE] = CStringGetTextDatum(hides_application ? "all" : "application");
	nulls[SESSION_HASH] = true;
}

/* Does any of the rows that were fetched say more than that a session's time was up? */
static bool
delivers_endings(uint64 rows)
{
	for (uint64 row = 0; row < rows; row++)
	{
		char	   *reason = sa_result_text(row, FETCHED_REASON);

		if (reason != NULL && strcmp(reason, "idle_timeout") != 0 &&
			strcmp(reason, "absolute_timeout") != 0)
			return true;
	}
	return false;
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
		" FROM session_admin_internal.node WHERE node = $1"
	};

	/*
	 * At least one row, with no id if there is nothing after position $1: of
	 * what was running there, or came later.  Whatever that is, only such
	 * rows are read, by the index: bounds on both sides of which the planner
	 * knows nothing tell it that they are few, whatever it knows of the
	 * table.  The rest is read once.
	 */
	static SaStatement fetch = {.generic = true, .sql =
		"SELECT (SELECT session_admin_internal.feed_position()),"
		"  (SELECT id::text FROM session_admin_internal.installation),"
		"  (SELECT pg_snapshot_xmax($1) > purged_xid AND NOT EXISTS ("
		"     SELECT FROM pg_snapshot_xip($1) AS p (xid)"
		"     WHERE p.xid <= h.purged_xid AND p.xid >= '" CppAsString2(SA_POSITION_XID_MIN) "'"
		"       AND NOT EXISTS (SELECT FROM session_admin_internal.feed_running r WHERE r.xid = p.xid))"
		"   FROM session_admin_internal.feed_horizon h),"
		"  i.id, i.scope, i.application, i.user_name, i.session_hash, i.reason, i.at"
		" FROM (SELECT) AS one LEFT JOIN ("
		"   SELECT * FROM session_admin_internal.invalidation"
		"   WHERE xid >= pg_snapshot_xmax($1)"
		"     AND xid < greatest(pg_snapshot_xmax($1), '9223372036854775807')"
		"   UNION ALL"
		"   SELECT r.* FROM pg_snapshot_xip($1) AS p (xid)"
		"   CROSS JOIN LATERAL (SELECT * FROM session_admin_internal.invalidation"
		"     WHERE xid >= p.xid AND xid <= p.xid OFFSET 0) AS r"
		"   WHERE p.xid >= '" CppAsString2(SA_POSITION_XID_MIN) "') AS i"
		"   ON i.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()"
		" ORDER BY i.xid, i.id"
	};
	static SaStatement node_insert = {.sql =
		"INSERT INTO session_admin_internal.node"
		"  (node, application, last_sync_at, lease_expires_at, applied, handed,"
		"   synced_ahead, synced_run, joined_at, joined_ahead, joined_run)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $3, $7, $8)"
	};
	static SaStatement node_update = {.sql =
		"UPDATE session_admin_internal.node"
		" SET last_sync_at = $3, lease_expires_at = $4, applied = $5, handed = $6,"
		"  synced_ahead = $7, synced_run = $8"
		" WHERE node = $1 AND application = $2"
	};
	char	   *node = sa_node_arg(fcinfo, 0);
	Datum		presented = PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1);
	bool		known;
	bool		remembered = false;
	char	   *name;
	char	   *key;
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SaArgs		args = {0};
	Interval	lease = {0};
	SaClaim		claim = {0};
	TimestampTz now;
	Datum		values[SYNC_COLUMNS] = {0};
	bool		nulls[SYNC_COLUMNS];
	bool		isnull;
	uint64		rows;

	sa_init_materialized_srf(fcinfo);
	SPI_connect();
	sa_node_lock(fcinfo, node);
	sa_arg_text(&args, node);
	sa_arg(&args, PG_SNAPSHOTOID, presented, PG_ARGISNULL(1));
	known = sa_run(&node_find, &args) > 0;
	name = known ? sa_result_text(0, 1) : pstrdup(sa_application);
	if (known)
	{
		remembered = DatumGetBool(sa_result(0, 2, &isnull));
		/* nearly always the same role */
		if (!DatumGetBool(sa_result(0, 3, &isnull)))
			sa_node_check_role(node, false);
	}
	lease.time = node_lease(name);
	sa_note_server_run();

	if (remembered)
	{
		memset(&args, 0, sizeof(args));
		sa_arg(&args, PG_SNAPSHOTOID, presented, false);
		rows = sa_run(&fetch, &args);
		remembered = DatumGetBool(sa_result(0, 3, &isnull));
		claim = sa_position_claim(presented, sa_result_text(0, 2));
	}
	else if (!PG_ARGISNULL(1))
	{
		sa_run(&here, NULL);
		claim = sa_position_claim(presented, sa_result_text(0, 2));
		if (sa_lost_note(node, &claim))
			claim.place = InvalidXLogRecPtr;
	}
	if (!remembered)
		rows = sa_run(&here, NULL);

	/*
	 * what the node was told before still holds, and more if it is told more
	 * now
	 */
	key = sa_result_text(0, 2);
	if (remembered && delivers_endings(rows))
		claim = sa_claim_now();
	values[0] = sa_position_with_claim(sa_result(0, 1, &isnull), &claim, key);
	values[8] = IntervalPGetDatum(&lease);
	memset(nulls, true, sizeof(nulls));
	nulls[0] = nulls[8] = false;

	if (remembered)
	{
		for (uint64 row = 0; row < rows; row++)
		{
			for (int column = 1; column <= 7; column++)
				values[column] = sa_result(row, column + 3, &nulls[column]);
			show_row(values, nulls);
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
		   TimestampTzGetDatum(time_after(now, lease.time)), false);
	sa_arg(&args, PG_SNAPSHOTOID, presented, !remembered);
	sa_arg(&args, PG_SNAPSHOTOID, values[0], false);
	sa_arg(&args, INT8OID, Int64GetDatum(sa_clock_ahead(now)), false);
	sa_arg_text(&args, sa_server_run());
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
		"DELETE FROM session_admin_internal.node WHERE node = $1"
	};
	char	   *node = sa_node_arg(fcinfo, 0);
	SaArgs		args = {0};
	uint64		rows;

	SPI_connect();
	sa_node_lock(fcinfo, node);
	sa_node_check_role(node, false);
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
		" FROM session_admin_internal.invalidation WHERE id = $1"
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
		"  WHEN lease_is_over THEN 'lease expired'"
		"  ELSE 'behind' END"
		" FROM session_admin_internal.node_state"

		/*
		 * a product's own row of a session that has ended still lets its user
		 * in there
		 */
		" UNION ALL SELECT DISTINCT 'product:' || product, 'behind'"
		"  FROM session_admin_internal.product_remains WHERE xid = $1"
		" ORDER BY 1"
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		timeout = timeout_arg(fcinfo, 1);
	int64		deadline;
	long		delay = WAIT_FIRST_DELAY;
	SaArgs		args = {0};
	uint64		rows;

	/* an endless one is an error, as it is with a time */
	(void) time_after(GetCurrentTimestamp(), timeout);
	deadline = sa_monotonic_now() + timeout;
	sa_init_materialized_srf(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;

	SPI_connect();
	if (!RecoveryInProgress() && !XactReadOnly)
		sa_note_server_run();
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

		left = (long) ((deadline - sa_monotonic_now()) / 1000);
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
		/* whatever a node calls itself */
		if (is_hidden(values[0], nulls[0]))
			values[0] = CStringGetTextDatum(sa_shown(TextDatumGetCString(values[0])));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	SPI_finish();
	return (Datum) 0;
}
