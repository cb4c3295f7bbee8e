/*
 * expire.c
 *	  Tasks: archive what has ended by time, and note when its users were last seen.
 *
 * Each run of the worker looks at a slice of the table, and the next one goes on from there:
 * after some runs each row was looked at.  That writes nothing and needs no index, which
 * would cost each session that goes on; a look at a row that is valid is a fraction of a
 * microsecond; and what ends by a policy that is changed, or with its generation, is found
 * as everything else is.  maintain() looks at the whole table.
 */
#include "housekeeping/task.h"
#include "ending/ending.h"
#include "live/live.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define SLICE_MIN	2048		/* blocks that a run looks at, at least */
#define SLICES		10			/* of a table that has more than that */

/* A table whose rows end by time. */
typedef struct ExpireTable
{
	SaRelation	relation;
	int			application_column;
	/* does the row go on, as far as that can be told without SQL? */
	bool		(*is_valid) (TupleTableSlot *slot, const SaApplication *application,
							 TimestampTz now);
} ExpireTable;

static bool expire_session_is_valid(TupleTableSlot *slot, const SaApplication *application,
									TimestampTz now);
static bool expire_token_is_valid(TupleTableSlot *slot, const SaApplication *application,
								  TimestampTz now);

static const ExpireTable expire_tables[SA_EXPIRE_TABLES] = {
	{SA_TABLE_SESSION, SA_SESSION_APPLICATION, expire_session_is_valid},
	{SA_TABLE_REMEMBER_ME_TOKEN, SA_TOKEN_APPLICATION, expire_token_is_valid},
};

/* How far it has come with a table. */
typedef struct ExpirePass
{
	BlockNumber position;		/* where to go on */
	BlockNumber left;			/* blocks of this run's slice */
	bool		has_begun;		/* this run's slice */
} ExpirePass;

static ExpirePass expire_passes[SA_EXPIRE_TABLES];
static bool expire_looks_at_all = true;

/* A run begins, at these positions; NULL: one that looks at the whole tables. */
void
sa_expire_begin(const BlockNumber *positions)
{
	memset(expire_passes, 0, sizeof(expire_passes));
	for (int i = 0; positions != NULL && i < SA_EXPIRE_TABLES; i++)
		expire_passes[i].position = positions[i];
	expire_looks_at_all = positions == NULL;
}

/* Where the next run is to begin. */
void
sa_expire_end(BlockNumber *positions)
{
	for (int i = 0; i < SA_EXPIRE_TABLES; i++)
		positions[i] = expire_passes[i].position;
}

static bool
expire_session_is_valid(TupleTableSlot *slot, const SaApplication *application, TimestampTz now)
{
	bool		isnull;
	bytea	   *hash = DatumGetByteaPP(slot_getattr(slot, SA_SESSION_HASH, &isnull));

	return sa_session_row_is_valid(slot, application, (uint8 *) VARDATA_ANY(hash), now);
}

static bool
expire_token_is_valid(TupleTableSlot *slot, const SaApplication *application, TimestampTz now)
{
	bool		isnull;

	/* late endings are left to the statement */
	return application->n_late_endings == 0 &&
		DatumGetInt64(slot_getattr(slot, SA_TOKEN_GENERATION, &isnull)) == application->generation &&
		DatumGetTimestampTz(slot_getattr(slot, SA_TOKEN_CREATED_AT, &isnull)) >
		now - application->remember_me_lifetime;
}

/* What holds for the row's application, which is often that of the row before. */
static bool
expire_application_of(TupleTableSlot *slot, int column, SaApplication *application)
{
	bool		isnull;
	text	   *name = DatumGetTextPP(slot_getattr(slot, column, &isnull));
	size_t		length = VARSIZE_ANY_EXHDR(name);

	if (application->name[0] != '\0' && length == strlen(application->name) &&
		memcmp(VARDATA_ANY(name), application->name, length) == 0)
		return true;
	if (sa_application_find(text_to_cstring(name), application))
		return true;
	application->name[0] = '\0';
	return false;
}

/*
 * Find at most SA_TASK_BATCH rows that have probably ended, in at most *left blocks from
 * *position on; *position is where to go on then.  Returns how many there are.
 */
static int
expire_find(const ExpireTable *table, Relation rel, BlockNumber *position, BlockNumber *left,
			Datum *tids)
{
	BlockNumber end = *position + *left;
	TimestampTz now = GetCurrentStatementStartTimestamp();
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
													  ALLOCSET_SMALL_SIZES);
	MemoryContext outer = CurrentMemoryContext;
	SaApplication application = {0};
	ItemPointerData *found = palloc(SA_TASK_BATCH * sizeof(ItemPointerData));
	ItemPointerData first;
	ItemPointerData last;
	TableScanDesc scan;
	int			n = 0;

	ItemPointerSet(&first, *position, 1);
	ItemPointerSet(&last, end - 1, MaxOffsetNumber);
	scan = table_beginscan_tidrange(rel, snapshot, &first, &last);
	while (n < SA_TASK_BATCH && table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		MemoryContextSwitchTo(row_context);
		if (expire_application_of(slot, table->application_column, &application) &&
			!table->is_valid(slot, &application, now))
		{
			found[n] = slot->tts_tid;
			tids[n] = PointerGetDatum(&found[n]);
			n++;
		}
		MemoryContextSwitchTo(outer);
		MemoryContextReset(row_context);
	}
	table_endscan(scan);

	/* there may be more on the block of the last one */
	if (n == SA_TASK_BATCH)
		*position = ItemPointerGetBlockNumber(&found[n - 1]);
	else
		*position = end;
	*left = end - *position;

	MemoryContextDelete(row_context);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	return n;
}

/*
 * A batch of a table: those of the rows found that have ended are deleted.  Returns how many
 * that were.
 */
static int64
expire_batch(int which, SaEnding *ending, SaStatement *delete_ended, bool *more)
{
	ExpirePass *pass = &expire_passes[which];
	Relation	rel = table_open(sa_relation(expire_tables[which].relation), RowExclusiveLock);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	BlockNumber left;
	Datum	   *tids = palloc(SA_TASK_BATCH * sizeof(Datum));
	SaArgs		args = {0};
	int			n = 0;

	if (!pass->has_begun)
		pass->left = expire_looks_at_all ? blocks : Min(blocks, Max(SLICE_MIN, blocks / SLICES));
	pass->has_begun = true;
	/* the end of the table is followed by its beginning */
	if (pass->position >= blocks)
		pass->position = 0;
	left = Min(pass->left, blocks - pass->position);
	pass->left -= left;
	if (left > 0)
		n = expire_find(&expire_tables[which], rel, &pass->position, &left, tids);
	pass->left += left;
	/* the table may have become shorter */
	if (blocks == 0)
		pass->left = 0;
	table_close(rel, NoLock);
	*more = pass->left > 0;
	if (!*more)
		pass->has_begun = false;

	if (n == 0)
		return 0;
	sa_arg_array(&args, TIDARRAYOID, sa_array(tids, n, TIDOID));
	/* the planner must not choose to look at the whole table for each batch */
	sa_arg(&args, TIDOID, tids[0], false);
	sa_arg(&args, TIDOID, tids[n - 1], false);
	return (int64) sa_delete_for(ending, NULL, delete_ended, &args);
}

/* Sessions that have ended by time or with their generation. */
int64
sa_expire_sessions(bool *more)
{
	static SaStatement delete_ended = {.sql =
		"DELETE FROM session_admin.session WHERE ctid = ANY (ARRAY("
		"  SELECT l.ctid FROM session_admin_internal.session_state e"
		"  JOIN session_admin.session l ON l.ctid = e.tid"
		"  WHERE e.tid = ANY ($1) AND e.tid >= $2 AND e.tid <= $3 AND l.ctid >= $2 AND l.ctid <= $3"
		"    AND e.ended_at IS NOT NULL FOR UPDATE OF l SKIP LOCKED))"
	};
	SaEnding	ending = {.reason = "idle_timeout", .at = GetCurrentTimestamp(),
	.options = {.skips_locked = true, .had_ended = true}};

	return expire_batch(0, &ending, &delete_ended, more);
}

/* Remember-me tokens, likewise. */
int64
sa_expire_tokens(bool *more)
{
	static SaStatement delete_ended = {.sql =
		"DELETE FROM session_admin.remember_me_token WHERE ctid = ANY (ARRAY("
		"  SELECT t.ctid FROM session_admin.remember_me_token t" SA_JOIN_TOKEN_LIMITS("t")
		"  WHERE t.ctid = ANY ($1) AND t.ctid >= $2 AND t.ctid <= $3 AND " SA_TOKEN_HAS_ENDED("t")
		"  FOR UPDATE OF t SKIP LOCKED))"
	};
	SaEnding	ending = {.reason = "absolute_timeout", .at = GetCurrentTimestamp(),
	.options.had_ended = true};

	return expire_batch(1, &ending, &delete_ended, more);
}

/*
 * Note when users were last seen, from the sessions that ended. The accounts are locked
 * first: renaming a user also locks the account before these rows.
 */
int64
sa_expire_note_seen(bool *more)
{
	static SaStatement fold = {.sql =
		"WITH seen AS MATERIALIZED ("
		"  SELECT ctid, application, user_name FROM session_admin_internal.account_seen LIMIT $1"
		"), locked AS MATERIALIZED ("
		"  SELECT application, user_name FROM session_admin_internal.account"
		"  WHERE (user_name, application) IN (SELECT user_name, application FROM seen)"
		"  FOR NO KEY UPDATE SKIP LOCKED"
		"), gone AS ("
		"  DELETE FROM session_admin_internal.account_seen s USING seen"
		"  WHERE s.ctid = seen.ctid"
		"    AND ((seen.user_name, seen.application) IN (SELECT user_name, application FROM locked)"
		"      OR NOT EXISTS (SELECT FROM session_admin_internal.account a"
		"        WHERE a.user_name = seen.user_name AND a.application = seen.application))"
		"  RETURNING s.application, s.user_name, s.at, s.login_failed, s.logins"
		"), updated AS ("
		"  UPDATE session_admin_internal.account a SET last_seen_at = greatest(a.last_seen_at, n.at),"
		"    last_failed_login_at = greatest(a.last_failed_login_at, n.last_failed_at),"
		"    login_count = a.login_count + n.logins,"
		"    previous_login_at = CASE WHEN n.last_login_at > a.last_login_at THEN a.last_login_at"
		"      ELSE a.previous_login_at END,"
		"    last_login_at = greatest(a.last_login_at, n.last_login_at),"
		"    current_failed_count = a.current_failed_count + n.failed_since_login,"
		"    total_failed_count = a.total_failed_count + n.failed"
		"  FROM (SELECT g.application, g.user_name, max(g.at) FILTER (WHERE NOT g.login_failed) AS at,"
		"      max(g.at) FILTER (WHERE g.login_failed) AS last_failed_at,"
		"      sum(g.logins) AS logins, max(g.at) FILTER (WHERE g.logins > 0) AS last_login_at,"
		"      count(*) FILTER (WHERE g.login_failed) AS failed,"
		"      count(*) FILTER (WHERE g.login_failed"
		"        AND (g.at > b.last_login_at OR b.last_login_at IS NULL)) AS failed_since_login"
		"    FROM gone g JOIN session_admin_internal.account b USING (application, user_name)"
		"    GROUP BY g.application, g.user_name) n"
		"  WHERE a.application = n.application AND a.user_name = n.user_name"
		")"
		" SELECT count(*) FROM gone"
	};
	SaArgs		args = {0};

	sa_arg(&args, INT8OID, Int64GetDatum(SA_TASK_BATCH), false);
	sa_run(&fold, &args);
	return sa_task_batch_done(sa_result_int64(0, 1), more);
}
