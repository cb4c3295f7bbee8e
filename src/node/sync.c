/*
 * sync.c
 *	  sync_node(): receipt, heartbeat, and what was committed after a position.
 *
 * README.md in this folder says why nothing is missed and nothing comes twice.
 */
#include "node/node.h"
#include "policy/policy.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

/* A row of what sync_node() gives */
enum
{
	SYNC_POSITION, SYNC_ID, SYNC_SCOPE, SYNC_APPLICATION, SYNC_USER_NAME, SYNC_SESSION_HASH,
	SYNC_REASON, SYNC_AT, SYNC_LEASE, SYNC_COLUMNS
};

/*
 * The columns of a fetch: the position, its key, whether the rows are complete, and a row
 * of the feed from its id on
 */
enum
{
	FETCHED_POSITION = 1, FETCHED_KEY, FETCHED_COMPLETE, FETCHED_ID, FETCHED_REASON = 9
};

typedef struct Sync
{
	const char *node;
	const char *application;
	bool		presents;		/* a position, this one */
	Datum		presented;
	bool		known;			/* the node has joined, or synced before */
	bool		remembered;		/* the position is one that it was handed, and
								 * nothing after it is lost or purged */
	bool		delivers;		/* rows, of which the next call is the receipt */
	Interval	lease;
	TimestampTz start;			/* of the call */
	int64		start_ahead;	/* how far the clock was ahead then */
	int64		lease_noted;	/* that the row has, in microseconds; 0: none */
	bool		synced_later;	/* by another call, which began after this one
								 * did */
	SaClaim		claim;			/* of the position that is handed out */
	uint64		rows;			/* that were fetched: they are SPI's result */
} Sync;

PG_FUNCTION_INFO_V1(sa_sync_node);

/* Is this a text that the client cannot be shown? */
static bool
sync_is_hidden(Datum value, bool isnull)
{
	return !isnull && !sa_is_shown(TextDatumGetCString(value));
}

/*
 * Change a row of the feed to what the client can be shown, which could not go on
 * otherwise. What the row cannot name it must widen: if the name of a user cannot be
 * shown, the whole application ends; if that of the application cannot, everything does.
 */
static void
sync_show_row(Datum *values, bool *nulls)
{
	char	   *scope;
	bool		hides_application = sync_is_hidden(values[SYNC_APPLICATION], nulls[SYNC_APPLICATION]);
	bool		hides_user = sync_is_hidden(values[SYNC_USER_NAME], nulls[SYNC_USER_NAME]);

	if (sync_is_hidden(values[SYNC_REASON], nulls[SYNC_REASON]))
		values[SYNC_REASON] = CStringGetTextDatum(sa_shown(TextDatumGetCString(values[SYNC_REASON])));
	if (!hides_application && !hides_user)
		return;

	scope = TextDatumGetCString(values[SYNC_SCOPE]);
	nulls[SYNC_APPLICATION] = nulls[SYNC_APPLICATION] || hides_application;
	nulls[SYNC_USER_NAME] = true;
	/* a token is nothing that a cache has, and a session has its hash */
	if (strcmp(scope, "token") == 0 || (strcmp(scope, "session") == 0 && !hides_application))
		return;
	values[SYNC_SCOPE] = CStringGetTextDatum(hides_application ? "all" : "application");
	nulls[SYNC_SESSION_HASH] = true;
}

/* Does any of the rows that were fetched say more than that a session's time was up? */
static bool
sync_delivers_endings(uint64 rows)
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

/* Find the node, whose role must be ours, and how long it may use its cache. */
static void
sync_find(Sync *sync)
{
	/*
	 * pg_snapshot has no equality, and none is needed: a position comes back
	 * as it was handed out
	 */
	static SaStatement node_find = {.sql =
		"SELECT application,"
		"       coalesce($2::text IN (handed::text, applied::text), false),"
		"       joined_by = session_user, last_sync_at, synced_ahead, synced_run,"
		"       lease_expires_at"
		" FROM session_admin_internal.node WHERE node = $1"
	};
	SaArgs		args = {0};
	bool		isnull;

	sa_arg_text(&args, sync->node);
	sa_arg(&args, PG_SNAPSHOTOID, sync->presented, !sync->presents);
	sync->known = sa_run(&node_find, &args) > 0;
	sync->application = sync->known ? sa_result_text(0, 1) : pstrdup(sa_application);
	if (sync->known)
	{
		TimestampTz last;
		const char *run = sa_result_text(0, 6);

		sync->remembered = DatumGetBool(sa_result(0, 2, &isnull));
		/* by the clock that nobody sets */
		last = DatumGetTimestampTz(sa_result(0, 4, &isnull));
		sync->synced_later = !isnull && run != NULL && strcmp(run, sa_server_run()) == 0 &&
			last - sa_result_int64(0, 5) > sync->start - sync->start_ahead;
		if (!isnull)
			sync->lease_noted = DatumGetTimestampTz(sa_result(0, 7, &isnull)) - last;
		if (isnull)
			sync->lease_noted = 0;
		/* nearly always the same role */
		if (!DatumGetBool(sa_result(0, 3, &isnull)))
			sa_node_check_role(sync->node, false);
	}
	sync->lease.time = sa_node_lease(sync->application);
}

/*
 * Fetch the position now, and what came after the one that was presented, if it is
 * remembered.  It is not if that may not be complete: something was purged or lost.
 */
static void
sync_fetch(Sync *sync)
{
	/* at least one row, with no id if there is nothing after position $1 */
	static SaStatement fetch = {.generic = true, .sql =
		"SELECT (SELECT session_admin_internal.feed_position()),"
		"  (SELECT id::text FROM session_admin_internal.installation),"
		"  (SELECT " SA_FEED_COMPLETE " FROM session_admin_internal.feed_horizon h),"
		"  i.id, i.scope, i.application, i.user_name, i.session_hash, i.reason, i.at"
		" FROM (SELECT) AS one LEFT JOIN (" SA_FEED_AFTER ") AS i"
		"   ON i.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()"
		" ORDER BY i.xid, i.id"
	};
	SaArgs		args = {0};
	bool		isnull;

	if (sync->remembered)
	{
		sa_arg(&args, PG_SNAPSHOTOID, sync->presented, false);
		sync->rows = sa_run(&fetch, &args);
		sync->remembered = DatumGetBool(sa_result(0, FETCHED_COMPLETE, &isnull));
		sync->claim = sa_position_claim(sync->presented, sa_result_text(0, FETCHED_KEY));
	}
	else if (sync->presents)
	{
		sa_run(&sa_position_now, NULL);
		sync->claim = sa_position_claim(sync->presented, sa_result_text(0, FETCHED_KEY));
		if (sa_lost_note(sync->node, &sync->claim))
			sync->claim.place = InvalidXLogRecPtr;
	}
	if (!sync->remembered)
		sync->rows = sa_run(&sa_position_now, NULL);
}

/*
 * Return the rows that were fetched, or one that says that the node must begin anew. The
 * result is the new position.
 */
static Datum
sync_deliver(Sync *sync, ReturnSetInfo *rsinfo)
{
	Datum		values[SYNC_COLUMNS] = {0};
	bool		nulls[SYNC_COLUMNS];
	bool		isnull;
	char	   *key = sa_result_text(0, FETCHED_KEY);
	SaClaim		claim = sync->claim;

	/*
	 * what the node was told before still holds, and more if it is told more
	 * now
	 */
	if (sync->remembered && sync_delivers_endings(sync->rows))
		claim = sa_claim_now();
	values[SYNC_POSITION] =
		sa_position_with_claim(sa_result(0, FETCHED_POSITION, &isnull), &claim, key);
	values[SYNC_LEASE] = IntervalPGetDatum(&sync->lease);
	memset(nulls, true, sizeof(nulls));
	nulls[SYNC_POSITION] = nulls[SYNC_LEASE] = false;

	(void) sa_result(0, FETCHED_ID, &isnull);
	sync->delivers = !sync->remembered || !isnull;
	for (uint64 row = 0; sync->remembered && row < sync->rows; row++)
	{
		for (int column = SYNC_ID; column <= SYNC_AT; column++)
			values[column] = sa_result(row, column - SYNC_ID + FETCHED_ID, &nulls[column]);
		sync_show_row(values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	if (!sync->remembered)
	{
		/*
		 * An id that no row has: a reader that skips rows without one must
		 * not skip this
		 */
		values[SYNC_ID] = Int64GetDatum(0);
		values[SYNC_SCOPE] = CStringGetTextDatum("all");
		values[SYNC_REASON] = CStringGetTextDatum("resync");
		nulls[SYNC_ID] = nulls[SYNC_SCOPE] = nulls[SYNC_REASON] = false;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return values[SYNC_POSITION];
}

/* Are these two positions the same? */
static bool
sync_is_same(Datum position, Datum other)
{
	return strcmp(DatumGetCString(DirectFunctionCall1(pg_snapshot_out, position)),
				  DatumGetCString(DirectFunctionCall1(pg_snapshot_out, other))) == 0;
}

/* Note the receipt, the heartbeat and the position that is handed out. */
static void
sync_note(const Sync *sync, Datum handed)
{
	static SaStatement node_insert = {.sql =
		"INSERT INTO session_admin_internal.node"
		"  (node, application, last_sync_at, lease_expires_at, applied, handed,"
		"   synced_ahead, synced_run, unconfirmed, joined_at, joined_ahead, joined_run)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $3, $7, $8)"
	};
	static SaStatement node_update = {.sql =
		"UPDATE session_admin_internal.node"
		" SET last_sync_at = $3, lease_expires_at = $4, applied = $5, handed = $6,"
		"  synced_ahead = $7, synced_run = $8, unconfirmed = $9"
		" WHERE node = $1 AND application = $2"
	};

	/*
	 * The lease is counted from the start, as it is by the node, but never
	 * from before a later call: what that gave the node still holds
	 */
	bool		from_start = !sync->synced_later;

	/*
	 * A position that a crash has taken from the server may look as one that
	 * is handed out after it.  It must not become known by that.
	 */
	bool		repeats = sync->presents && !sync->remembered &&
	sync_is_same(handed, sync->presented);
	TimestampTz at = from_start ? sync->start : GetCurrentTimestamp();
	SaArgs		args = {0};

	sa_arg_text(&args, sync->node);
	sa_arg_text(&args, sync->application);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	sa_arg(&args, TIMESTAMPTZOID,
		   TimestampTzGetDatum(sa_time_after(at, sync->lease.time)), false);
	sa_arg(&args, PG_SNAPSHOTOID, sync->presented, !sync->remembered);
	sa_arg(&args, PG_SNAPSHOTOID, handed, repeats);
	sa_arg(&args, INT8OID, Int64GetDatum(from_start ? sync->start_ahead : sa_clock_ahead(at)), false);
	sa_arg_text(&args, sa_server_run());
	sa_arg(&args, BOOLOID, BoolGetDatum(sync->delivers), false);
	/* the purge may have forgotten it meanwhile */
	if (!sync->known || sa_run(&node_update, &args) == 0)
		sa_run(&node_insert, &args);
}

/*
 * May a crash take what this call is about to write? If it does, the server does not know
 * the position that was handed out, and tells the node to begin anew: see README.md. The
 * lease must be known even then, by what the row says already, and by the run of the
 * server, which only shared memory tells after a crash of a backend. What else the transaction
 * has written must not be lost, nor what others write in a transaction block.
 */
static bool
sync_may_be_lost(const Sync *sync, FunctionCallInfo fcinfo)
{
	return sa_shmem_usable() && sync->known && sync->remembered && sync->lease_noted >= sync->lease.time &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny()) && !IsTransactionBlock() &&
		sa_lone_statement(fcinfo) != NULL;
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
	Sync		sync = {.node = sa_node_arg(fcinfo, 0), .start = GetCurrentTimestamp()};
	int64		wait = sa_node_interval_arg(fcinfo, 2, "wait");
	Datum		position;
	bool		lazily;

	sync.start_ahead = sa_clock_ahead(sync.start);
	sync.presents = !PG_ARGISNULL(1);
	sync.presented = sync.presents ? PG_GETARG_DATUM(1) : (Datum) 0;
	sa_node_refuse_standby(fcinfo);

	sa_init_materialized_srf(fcinfo);
	SPI_connect();
	if (sync.presents && wait > 0)
	{
		SaFollow	follow = {.node = sync.node, .presented = sync.presented};

		follow.statement = sa_lone_statement(fcinfo);
		sa_sleep_until_news(&follow, wait);
	}
	sa_node_lock(fcinfo, sync.node);
	sync_find(&sync);
	sa_server_run_note();
	sync_fetch(&sync);
	position = sync_deliver(&sync, (ReturnSetInfo *) fcinfo->resultinfo);
	lazily = sync_may_be_lost(&sync, fcinfo);
	sync_note(&sync, position);
	sa_policy_wait_until_told();

	if (lazily)
		sa_commit_lazily();
	else
		sa_commit_durably(sync.application);
	SPI_finish();
	return (Datum) 0;
}
