/*
 * maintain.c
 *	  Housekeeping: archives what has ended, makes and drops partitions, purges.
 *
 * It is a list of tasks, each of which does one batch and tells how many rows it
 * handled.  maintain() runs them all in the caller's transaction; the worker
 * (worker.c) runs each batch in a transaction of its own, when it is due.
 *
 * A task that fails does not keep the next from running: it is told as a warning here,
 * and by view health of the worker.
 *
 * Nobody waits for housekeeping: it takes the strong locks that partitions need
 * only if it gets them at once, or else tries again the next time.  Rows for
 * which there is no partition yet go to the default partition meanwhile.  Nor does it
 * wait for others while it holds locks on sessions, tokens and accounts, in an order
 * that is not theirs: what somebody has locked is left for the next time.  In a
 * transaction block, which may last, maintain() leaves out what others would wait for.
 */
#include "session_admin.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_maintain);

#define BATCH			1000	/* rows */
#define MONTHS_AHEAD	2		/* partitions made before they are needed */
#define LOCK_TIMEOUT	"200ms"

/* What is kept for some time: the partitioned tables, with the column of their partitions, first. */
static const struct
{
	const char *table;
	const char *column;
	const char *retention;
}			histories[] =
{
	{"ended_session", "ended_at", "history_retention"},
	{"login_event", "at", "login_event_retention"},
	{"account_key", "gone_at", "login_event_retention"},
	{"capture_failure", "at", "login_event_retention"},
};

#define NPARTITIONED	2

static uint64 run_sql(const char *format,...) pg_attribute_printf(1, 2);

/* Run a statement whose table is one of ours. */
static uint64
run_sql(const char *format,...)
{
	StringInfoData sql;
	int			result;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}

	result = SPI_execute(sql.data, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute statement: %s", SPI_result_code_string(result));
	pfree(sql.data);
	return SPI_processed;
}

/* A full batch: there may be more to do. */
static int64
batch_done(int64 rows, bool *more)
{
	if (rows >= BATCH)
		*more = true;
	return rows;
}

/* Where the next batch begins. */
static uint32 flush_position = 0;

/* In this transaction they were flushed, and are counted twice until it ends. */
static bool flushed_before = false;

/* A batch of what only the shared table of live sessions knows of touches. */
static int64
flush_touches(bool *more)
{
	static SaStatement write_touches = {.sql =
		"WITH touched AS ("
		"  SELECT t.* FROM unnest($1, $2, $3, $4) WITH ORDINALITY"
		"    AS t (session_hash, application, at, requests, n)"
		"), found AS ("
		"  SELECT s.session_hash, s.application, t.at, t.requests, t.n"
		"  FROM touched t JOIN session_admin.session s USING (session_hash, application)"
		"  ORDER BY s.session_hash FOR NO KEY UPDATE OF s SKIP LOCKED"
		"), written AS ("
		"  UPDATE session_admin.session s SET last_access_at = greatest(s.last_access_at, f.at),"
		"    requests = s.requests + f.requests"
		"  FROM found f WHERE s.session_hash = f.session_hash AND s.application = f.application"
		"    AND (f.requests <> 0 OR s.last_access_at < f.at)"
		")"
		" SELECT n FROM found"
		" UNION ALL SELECT n FROM touched t WHERE NOT EXISTS (SELECT FROM session_admin.session s"
		"   WHERE s.session_hash = t.session_hash AND s.application = t.application)"
	};
	SaLiveTouch *touches = palloc(BATCH * sizeof(SaLiveTouch));
	Datum	   *hashes = palloc(BATCH * sizeof(Datum));
	Datum	   *names = palloc(BATCH * sizeof(Datum));
	Datum	   *times = palloc(BATCH * sizeof(Datum));
	Datum	   *requests = palloc(BATCH * sizeof(Datum));
	Oid			relation = sa_relation_if_any(SA_TABLE_SESSION);
	SaArgs		args = {0};
	int			n = 0;
	uint64		settled;

	if (flushed_before)
		return 0;
	do
	{
		CHECK_FOR_INTERRUPTS();
		n += sa_live_unflushed(touches + n, BATCH - n, &flush_position, relation);
	} while (n < BATCH / 2 && flush_position != 0);
	if (n == 0)
		return 0;

	for (int i = 0; i < n; i++)
	{
		hashes[i] = PointerGetDatum(sa_bytea(touches[i].key.hash, SA_HASH_LEN));
		names[i] = CStringGetTextDatum(sa_application_of_key(touches[i].key.application));
		times[i] = TimestampTzGetDatum(touches[i].last_access_at);
		requests[i] = Int64GetDatum(touches[i].requests);
	}
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(construct_array(hashes, n, BYTEAOID, -1, false, TYPALIGN_INT)), false);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT)), false);
	sa_arg(&args, TIMESTAMPTZARRAYOID, PointerGetDatum(construct_array(times, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)), false);
	sa_arg(&args, INT8ARRAYOID, PointerGetDatum(construct_array(requests, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)), false);

	/* what somebody has locked is written the next time */
	settled = sa_run_writing(&write_touches, &args);
	for (uint64 i = 0; i < settled; i++)
		sa_pending_flushed(&touches[sa_result_int64(i, 1) - 1]);

	/* a full pass over the shared table ends where it began */
	*more = flush_position != 0;
	return n;
}

/*
 * Entries of the shared table of live sessions that are of no use.  Where the
 * extension was dropped, these are all of the database.
 */
int64
sa_forget_stale_entries(pg_attribute_unused() bool *more)
{
	static SaStatement list_databases = {.sql =
		"SELECT array_agg(oid) FROM pg_database"
	};
	SaLiveOwners owners;
	uint32		position = 0;
	int64		n = 0;
	bool		isnull;
	ArrayType  *databases;

	if (!sa_live_enabled())
		return 0;

	sa_run(&list_databases, NULL);
	databases = DatumGetArrayTypeP(sa_result(0, 1, &isnull));
	owners.relation = sa_relation_if_any(SA_TABLE_SESSION);
	owners.databases = (Oid *) ARR_DATA_PTR(databases);
	owners.n_databases = ArrayGetNItems(ARR_NDIM(databases), ARR_DIMS(databases));
	do
	{
		CHECK_FOR_INTERRUPTS();
		n += sa_live_forget_stale(&owners, &position);
	} while (position != 0);
	return n;
}

/* Sessions that have ended by time or with their generation. */
static int64
archive_sessions(bool *more)
{
	static SaStatement delete_ended = {.sql =
		"DELETE FROM session_admin.session s USING ("
		"  SELECT l.session_hash, l.application FROM session_admin_internal.session_state e"
		"  JOIN session_admin.session l"
		"    ON l.session_hash = e.session_hash AND l.application = e.application"
		"  WHERE e.ended_at IS NOT NULL LIMIT $1 FOR UPDATE OF l SKIP LOCKED) e"
		" WHERE s.session_hash = e.session_hash AND s.application = e.application"
	};
	SaEnding	ending = {.reason = "idle_timeout", .at = GetCurrentTimestamp(), .skips_locked = true, .had_ended = true};
	SaArgs		args = {0};

	sa_arg(&args, INT8OID, Int64GetDatum(BATCH), false);
	return batch_done(sa_run_ending(&ending, &delete_ended, &args), more);
}

/* Remember-me tokens, likewise. */
static int64
archive_tokens(bool *more)
{
	static SaStatement delete_ended = {.sql =
		"DELETE FROM session_admin.remember_me_token t USING ("
		"  SELECT series, t.application FROM session_admin.remember_me_token t"
		"  JOIN session_admin_internal.application_state a ON a.name = t.application"
		"  JOIN session_admin_internal.time_limit l ON l.application = t.application"
		"  WHERE t.generation <> a.generation"
		"    OR t.created_at + l.remember_me_lifetime <= clock_timestamp()"
		"    OR " SA_TOKEN_ENDED_LATE("t")
		"  LIMIT $1 FOR UPDATE OF t SKIP LOCKED) e"
		" WHERE t.series = e.series AND t.application = e.application"
	};
	SaEnding	ending = {.reason = "absolute_timeout", .at = GetCurrentTimestamp(), .had_ended = true};
	SaArgs		args = {0};

	sa_arg(&args, INT8OID, Int64GetDatum(BATCH), false);
	return batch_done(sa_run_ending(&ending, &delete_ended, &args), more);
}

/*
 * When users were last seen, from the sessions that ended.  The accounts come first:
 * who renames a user has the account before these rows.
 */
static int64
note_last_seen(bool *more)
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

	sa_arg(&args, INT8OID, Int64GetDatum(BATCH), false);
	sa_run(&fold, &args);
	return batch_done(sa_result_int64(0, 1), more);
}

/* History that is older than its application keeps it. */
static int64
forget_history(bool *more)
{
	int64		rows = 0;

	for (size_t i = 0; i < lengthof(histories); i++)
		rows += batch_done(run_sql("DELETE FROM session_admin_internal.%s WHERE (tableoid, ctid) IN ("
								   " SELECT h.tableoid, h.ctid FROM session_admin_internal.%s h"
								   " JOIN session_admin_internal.effective_policy p ON p.application = h.application"
								   "   AND p.name = '%s'"
								   " WHERE h.%s < clock_timestamp() - p.value::interval"
								   "   AND h.%s < (SELECT clock_timestamp() - min(value::interval)"
								   "     FROM session_admin_internal.effective_policy WHERE name = '%s')"
								   " LIMIT %d FOR UPDATE OF h SKIP LOCKED)",
								   histories[i].table, histories[i].table, histories[i].retention,
								   histories[i].column, histories[i].column, histories[i].retention, BATCH),
						   more);
	return rows;
}

/* Is there a partition of this name? */
static bool
table_exists(const char *name)
{
	return OidIsValid(get_relname_relid(name, get_namespace_oid(SA_INTERNAL_SCHEMA, false)));
}

/* Make the partition of one month, and move there what waits in the default one. */
static void
make_partition(const char *table, const char *column, const char *name,
			   const char *from, const char *to)
{
	/*
	 * who chose the default partition before would find that it takes the row
	 * no more
	 */
	run_sql("LOCK TABLE session_admin_internal.%s IN SHARE ROW EXCLUSIVE MODE", table);
	run_sql("LOCK TABLE session_admin_internal.%s_default IN ACCESS EXCLUSIVE MODE", table);
	run_sql("CREATE TABLE session_admin_internal.%s (LIKE session_admin_internal.%s)", name, table);
	run_sql("CREATE INDEX %s_user_idx ON session_admin_internal.%s (user_name, application, %s)",
			name, name, column);
	run_sql("WITH moved AS (DELETE FROM session_admin_internal.%s_default"
			"   WHERE %s >= '%s' AND %s < '%s' RETURNING *)"
			" INSERT INTO session_admin_internal.%s SELECT * FROM moved",
			table, column, from, column, to, name);
	run_sql("ALTER TABLE session_admin_internal.%s ATTACH PARTITION session_admin_internal.%s"
			" FOR VALUES FROM ('%s') TO ('%s')",
			table, name, from, to);
}

/* This month's partitions and those of the months to come; months are those of UTC. */
static int64
make_partitions(pg_attribute_unused() bool *more)
{
	int64		made = 0;
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(GetCurrentTimestamp(), NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));

	for (int ahead = 0; ahead <= MONTHS_AHEAD; ahead++)
	{
		int			month = tm.tm_year * 12 + tm.tm_mon - 1 + ahead;
		char		from[32];
		char		to[32];

		snprintf(from, sizeof(from), "%04d-%02d-01 00:00:00+00", month / 12, month % 12 + 1);
		snprintf(to, sizeof(to), "%04d-%02d-01 00:00:00+00",
				 (month + 1) / 12, (month + 1) % 12 + 1);
		for (size_t i = 0; i < NPARTITIONED; i++)
		{
			char		name[NAMEDATALEN];

			snprintf(name, sizeof(name), "%s_%04d_%02d",
					 histories[i].table, month / 12, month % 12 + 1);
			if (table_exists(name))
				continue;
			make_partition(histories[i].table, histories[i].column, name, from, to);
			made++;
		}
	}
	return made;
}

/* Partitions that are older than all applications keep them. */
static int64
drop_partitions(pg_attribute_unused() bool *more)
{
	static SaStatement longest_retention = {.sql =
		"SELECT coalesce(max(value::interval), '2 years') FROM session_admin_internal.effective_policy"
		" WHERE name = $1"
	};
	static SaStatement old_partitions = {.sql =
		"SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
		" WHERE i.inhparent = ('session_admin_internal.' || $1)::regclass"
		"   AND c.relname ~ ('^' || $1 || '_[0-9]{4}_[0-9]{2}$')"
		"   AND to_timestamp(right(c.relname, 7) || ' +00', 'YYYY_MM TZH')"
		"       + '1 month' <= clock_timestamp() - $2"
		" ORDER BY 1"
	};
	int64		dropped = 0;

	for (size_t i = 0; i < NPARTITIONED; i++)
	{
		SaArgs		args = {0};
		SaArgs		old_args = {0};
		bool		isnull;
		uint64		rows;
		char	  **names;

		sa_arg_text(&args, histories[i].retention);
		sa_run(&longest_retention, &args);
		sa_arg_text(&old_args, histories[i].table);
		sa_arg(&old_args, INTERVALOID, sa_result(0, 1, &isnull), false);
		rows = sa_run(&old_partitions, &old_args);

		names = palloc((rows + 1) * sizeof(char *));
		for (uint64 row = 0; row < rows; row++)
			names[row] = sa_result_text(row, 1);
		for (uint64 row = 0; row < rows; row++)
			run_sql("DROP TABLE session_admin_internal.%s", quote_identifier(names[row]));
		dropped += rows;
	}
	return dropped;
}

/* What there is to do, in this order. */
static const SaTask tasks[] = {
	{"product rows deleted", sa_remains_retry, .every = 60, .keeps_locks = true, .rest = sa_remains_rest},
	{"sessions archived", archive_sessions, .every = 60, .keeps_locks = true},
	{"sessions without table ended", sa_reconcile_gone, .every = 60, .keeps_locks = true},
	{"sessions reconciled", sa_reconcile_slice, .every = 300, .keeps_locks = true},

	/*
	 * after archiving, which adds what is not flushed: until commit both have
	 * it
	 */
	{"touches flushed", flush_touches, .every = 0, .keeps_locks = true},
	{"probes counted", sa_probes_flush, .every = 0},
	{"tokens archived", archive_tokens, .every = 60, .keeps_locks = true},
	{"ended ids forgotten", sa_forget_ended_ids, .every = 60, .keeps_locks = true},
	{"last seen noted", note_last_seen, .every = 60, .keeps_locks = true},
	{"late endings forgotten", sa_late_forget, .every = 60, .keeps_locks = true},
	{"history forgotten", forget_history, .every = 60, .keeps_locks = true},
	{"partitions dropped", drop_partitions, .takes_strong_locks = true, .every = 60, .keeps_locks = true},
	{"feed purged", sa_feed_purge, .every = 60, .keeps_locks = true},
	{"live entries forgotten", sa_forget_stale_entries, .every = 60, .when_unused = true},
	/* last: no login can go on from here to the end of the transaction */
	{"partitions made", make_partitions, .takes_strong_locks = true, .every = 60, .when_unused = true, .keeps_locks = true},
};

StaticAssertDecl(lengthof(tasks) <= SA_TASKS_MAX, "SA_TASKS_MAX is too small");

const SaTask *
sa_tasks(int *n)
{
	*n = lengthof(tasks);
	return tasks;
}

typedef struct TaskRun
{
	const SaTask *task;
	int64		rows;
	bool		more;
} TaskRun;

static void
run_without_waiting(void *argument)
{
	TaskRun    *run = argument;
	int			nestlevel = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	run->rows = run->task->run(&run->more);
	AtEOXact_GUC(false, nestlevel);
}

/*
 * Run one batch of a task; true if there may be more to do.  The caller is
 * connected to SPI.  One that needs strong locks does nothing (*rows = -1) if it
 * does not get them soon.
 */
bool
sa_task_run(const SaTask *task, int64 *rows)
{
	TaskRun		run = {.task = task};
	ErrorData  *error;

	if (!task->takes_strong_locks)
	{
		*rows = task->run(&run.more);
		return run.more;
	}

	error = sa_attempt(run_without_waiting, &run);
	if (error && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	*rows = error ? -1 : run.rows;
	return run.more;
}

/*
 * Is this in a transaction block, which may go on for as long as its client likes?
 * A message of several statements is none, if they do not begin one.  A subtransaction
 * is of one, or of a function that began with this very statement.
 */
static bool
in_transaction_block(void)
{
	/* in a savepoint of the client's, even one of this very message */
	if (ActivePortal != NULL && ActivePortal->createSubid > TopSubTransactionId)
		return true;
	if (GetCurrentTransactionNestLevel() > 1)
		return GetCurrentTransactionStartTimestamp() != GetCurrentStatementStartTimestamp();
	if (!IsTransactionBlock())
		return false;
	EndImplicitTransactionBlock();
	if (IsTransactionBlock())
		return true;
	BeginImplicitTransactionBlock();
	return false;
}

/* Tell of an error that has ended a task, unless the caller has to know it as one. */
static void
warn(const SaTask *task, ErrorData *error)
{
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	/* who has it locked is not in trouble */
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		return;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("%s: %s", task->name, error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

/* All batches of a task; false if it could not be done. */
static bool
run_task(const SaTask *task, int64 *done)
{
	TaskRun		run = {.task = task};

	*done = 0;
	do
	{
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		run.more = false;
		error = sa_attempt(run_without_waiting, &run);
		if (error != NULL)
		{
			warn(task, error);
			return false;
		}
		*done += run.rows;
		if (run.more)
			ereport(NOTICE,
					(errmsg("%s: " INT64_FORMAT " so far", task->name, *done)));
	} while (run.more);
	return true;
}

/*
 * maintain() returns setof (task text, done bigint): done is the number of rows
 * or partitions; null if it could not be done.
 */
Datum
sa_maintain(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		in_block = in_transaction_block();

	PreventCommandIfReadOnly("session_admin.maintain()");
	PreventCommandDuringRecovery("session_admin.maintain()");
	sa_init_materialized_srf(fcinfo);
	SPI_connect();

	if (in_block)
		ereport(WARNING,
				(errmsg("most of the housekeeping is left out in a transaction block"),
				 errdetail("Logins and others would have to wait until it ends."),
				 errhint("Call session_admin.maintain() as a statement of its own, or leave it to the background worker.")));
	else
	{
		/* one at a time; this blocks no reader and no login */
		run_sql("LOCK TABLE session_admin_internal.ended_session IN SHARE UPDATE EXCLUSIVE MODE");
		sa_settle_all();
		sa_remains_hurry();
	}
	/* an earlier call may have failed midway */
	flush_position = 0;
	flushed_before = sa_pending_any_flushed();
	sa_pending_maintained();
	for (size_t i = 0; i < lengthof(tasks); i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};
		int64		done = 0;

		nulls[1] = (in_block && tasks[i].keeps_locks) || !run_task(&tasks[i], &done);
		values[0] = CStringGetTextDatum(tasks[i].name);
		values[1] = Int64GetDatum(done);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	SPI_finish();
	return (Datum) 0;
}
