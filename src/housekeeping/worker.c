/*
 * worker.c
 *	  The background worker: housekeeping that starts by itself.
 *
 * Two kinds of processes.  The launcher (launcher.c) has no database; it knows
 * which ones use the extension and when something is due there, and starts a
 * worker.  A worker connects to one database, does what is due, and is gone: it
 * is in nobody's way who drops the database or the extension.
 *
 * A database is found in two ways: the launcher sends a worker to look once
 * into each that it sees for the first time, and a backend that uses the
 * extension for the first time says so (sa_worker_note_database).  Where there is
 * none, no worker comes again.
 *
 * The worker does each batch in a transaction of its own, as the owner of the
 * tables.  It goes only where maintain() is not at work, and it waits for no lock
 * for long: what it could not do it does the next time.  A task that fails is logged
 * and rests, ever longer; the others are done as if nothing had happened.
 *
 * Locks.  Shared memory is protected by a spinlock, held only to copy.  Anybody
 * adds a database; else the launcher alone changes and removes them.  A worker tells
 * what it did in one of "runs", and the launcher takes it from there.
 */
#include "session_admin.h"
#include "housekeeping/worker.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

PGDLLEXPORT void sa_worker_main(Datum arg);

PG_FUNCTION_INFO_V1(sa_note_database);
PG_FUNCTION_INFO_V1(sa_worker_status);

/* Shorter than any deadlock_timeout that is in use: the others go first. */
#define LOCK_TIMEOUT	"500ms"

#define PAUSE			SECONDS(1)	/* before what failed is tried again */
#define BACKOFF_MAX		SECONDS(600)
#define RUN_MAX			SECONDS(2)	/* no new batch is begun after it */
#define REST_FACTOR		20		/* a task rests so many times as long as it
								 * took */

/* How health calls what came of a run. */
static const char *const outcome_names[] = {
	"failed", "not used", "idle", "idle", "locked out", "other version", "failed",
	"locked out", "failed"
};

SaWorkers  *sa_workers = NULL;

/* In a backend: has this database been noted?  If not, do it at commit. */
static bool noted = false;
static bool note_at_commit = false;
static bool extension_made = false; /* in this transaction */
static bool wake_at_commit = false;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* The entry of a database, under the mutex; NULL if there is none, or no room for it. */
SaDatabase *
sa_worker_find(Oid database, bool add)
{
	SaDatabase *entry;

	for (int i = 0; i < sa_workers->n_databases; i++)
	{
		if (sa_workers->databases[i].last.database == database)
			return &sa_workers->databases[i];
	}
	if (!add)
		return NULL;
	if (sa_workers->n_databases == DATABASES_MAX)
	{
		sa_workers->no_room = true;
		return NULL;
	}
	entry = &sa_workers->databases[sa_workers->n_databases++];
	memset(entry, 0, sizeof(*entry));
	entry->last.database = database;
	return entry;
}

/* The run that is under way in a database, under the mutex; NULL if there is none. */
SaRun *
sa_worker_run(Oid database)
{
	for (int i = 0; i < WORKERS_MAX; i++)
	{
		if (sa_workers->runs[i].database == database)
			return &sa_workers->runs[i];
	}
	return NULL;
}

/* Forget it, under the mutex. */
void
sa_worker_forget(SaDatabase *entry)
{
	*entry = sa_workers->databases[--sa_workers->n_databases];
	sa_workers->no_room = false;
}

/* This database uses the extension: the launcher will know once this has committed. */
void
sa_worker_note_database(void)
{
	if (!noted && sa_workers != NULL)
		note_at_commit = true;
}

/* There is something to do soon, once this has committed: see tasks with a rest. */
void
sa_worker_wake(void)
{
	sa_worker_note_database();
	wake_at_commit = sa_workers != NULL;
}

/* What has a rest of its own is due now.  Under the mutex. */
void
sa_worker_make_due(SaRun *run)
{
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	for (int i = 0; i < n; i++)
	{
		if (tasks[i].rest != NULL)
			run->due[i] = 0;
	}
}

static void
wake(void)
{
	Latch	   *latch = NULL;
	SaDatabase *entry;

	SpinLockAcquire(&sa_workers->mutex);
	entry = sa_worker_find(MyDatabaseId, false);
	if (entry != NULL)
	{
		sa_worker_make_due(&entry->last);
		entry->wakes++;
		latch = sa_workers->launcher_latch;
	}
	SpinLockRelease(&sa_workers->mutex);
	if (latch != NULL)
		SetLatch(latch);
}

/* note_database(): called by CREATE EXTENSION, which may not be the first one here. */
Datum
sa_note_database(pg_attribute_unused() PG_FUNCTION_ARGS)
{
	noted = false;
	sa_worker_note_database();
	extension_made = true;
	PG_RETURN_VOID();
}

static void
xact_callback(XactEvent event, pg_attribute_unused() void *arg)
{
	Latch	   *latch = NULL;
	SaDatabase *entry;

	if (wake_at_commit && (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT))
	{
		wake_at_commit = false;
		if (event == XACT_EVENT_COMMIT)
			wake();
	}
	if (!note_at_commit || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;

	note_at_commit = false;
	if (event == XACT_EVENT_COMMIT)
	{
		SpinLockAcquire(&sa_workers->mutex);
		entry = sa_worker_find(MyDatabaseId, true);
		if (entry != NULL)
		{
			/* nothing was done for this one yet, if it was made again */
			if (extension_made)
			{
				memset(entry->last.due, 0, sizeof(entry->last.due));
				memset(entry->last.troubles, 0, sizeof(entry->last.troubles));
			}
			if (entry->notes++ == 0 || extension_made)
				latch = sa_workers->launcher_latch;
		}
		SpinLockRelease(&sa_workers->mutex);
		if (latch != NULL)
			SetLatch(latch);
		noted = true;
	}
	extension_made = false;
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(SaWorkers)));
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	sa_workers = ShmemInitStruct("session_admin worker", sizeof(SaWorkers), &found);
	if (!found)
	{
		memset(sa_workers, 0, sizeof(SaWorkers));
		SpinLockInit(&sa_workers->mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* What the launcher and the worker have in common. */
void
sa_worker_describe(BackgroundWorker *worker, const char *name, const char *function)
{
	memset(worker, 0, sizeof(*worker));
	strlcpy(worker->bgw_name, name, BGW_MAXLEN);
	strlcpy(worker->bgw_type, name, BGW_MAXLEN);
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker->bgw_library_name, "session_admin", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
}

/* Register the launcher, if preloaded. */
void
sa_worker_init(void)
{
	BackgroundWorker launcher;

	if (!process_shared_preload_libraries_in_progress)
		return;

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	RegisterXactCallback(xact_callback, NULL);

	/* pg_upgrade wants nobody else in the databases */
	if (IsBinaryUpgrade)
		return;
	sa_worker_describe(&launcher, "session_admin launcher", "sa_launcher_main");
	launcher.bgw_restart_time = 5;
	RegisterBackgroundWorker(&launcher);
}

/*
 * The worker
 */

/* Is this our extension, in a version that we know, with nobody else at work? */
static SaOutcome
look(void)
{
	static SaStatement find_extension = {.sql =
		"SELECT extversion FROM pg_extension WHERE extname = 'session_admin'"
	};
	Oid			relation = sa_relation_if_any(SA_TABLE_ENDED_SESSION);

	if (!OidIsValid(relation))
		return OUTCOME_NOT_USED;
	/* as maintain() does, which would otherwise flush the same touches */
	if (!ConditionalLockRelationOid(relation, ShareUpdateExclusiveLock))
		return OUTCOME_LOCKED_OUT;
	if (sa_run(&find_extension, NULL) == 0)
		return OUTCOME_NOT_USED;
	if (strcmp(sa_result_text(0, 1), SA_VERSION) != 0)
		return OUTCOME_OTHER_VERSION;
	return OUTCOME_DONE;
}

/*
 * One batch of a task in a transaction; rows done are added to *done.  Nothing is
 * done (*waits) where a restore may be under way.
 */
static SaOutcome
run_batch(const SaTask *task, int64 *done, bool *waits)
{
	SaOutcome	outcome;
	int64		rows = 0;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	/* only clients' statements have one by themselves */
	enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	pgstat_report_activity(STATE_RUNNING, task->name);

	outcome = look();
	if (outcome == OUTCOME_DONE)
	{
		SaOwner		owner;
		SaSettlement settlement;

		sa_owner_enter(&owner);
		settlement = sa_settlement();
		*waits = settlement == SA_UNSETTLED || (settlement == SA_UNUSED && !task->when_unused);
		if (!*waits && sa_task_run(task, &rows))
			outcome = OUTCOME_UNFINISHED;
		sa_owner_leave(&owner);
	}
	else if (outcome == OUTCOME_NOT_USED)
	{
		bool		more;

		(void) sa_forget_stale_entries(&more);
	}

	SPI_finish();
	PopActiveSnapshot();
	disable_timeout(STATEMENT_TIMEOUT, false);
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);

	*done += Max(rows, 0);
	return outcome;
}

/* Has this worker logged an error? */
static bool any_failed = false;

/* In an error of a task, it is named. */
static void
task_error_callback(void *task)
{
	errcontext("session_admin task \"%s\"", ((const SaTask *) task)->name);
}

/*
 * The same.  An error is logged and noted as the task's, and its transaction aborted:
 * also one that was canceled, as autovacuum goes on with its next table.
 */
static SaOutcome
attempt_batch(const SaTask *task, int64 *done, bool *waits, SaTrouble *trouble)
{
	ErrorContextCallback callback = {
		.callback = task_error_callback,
		.arg = unconstify(SaTask *, task),
		.previous = error_context_stack
	};
	volatile SaOutcome outcome = OUTCOME_FAILED;

	error_context_stack = &callback;
	PG_TRY();
	{
		outcome = run_batch(task, done, waits);
		if (outcome == OUTCOME_DONE || outcome == OUTCOME_UNFINISHED)
			memset(trouble, 0, sizeof(*trouble));
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		outcome = OUTCOME_TASKS_FAILED;
		trouble->failures++;
		trouble->sqlstate = geterrcode();
		if (trouble->sqlstate == ERRCODE_LOCK_NOT_AVAILABLE)
			outcome = OUTCOME_TASKS_LOCKED_OUT;
		else
		{
			any_failed = true;
			EmitErrorReport();
		}
		disable_all_timeouts(false);
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(TopMemoryContext);
		FlushErrorState();
		pgstat_report_activity(STATE_IDLE, NULL);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	return outcome;
}

/* How long a task rests that has taken this long. */
static int64
rest_of(const SaTask *task, int64 spent)
{
	if (task->every == 0)
		return SECONDS(sa_flush_interval);
	if (task->rest != NULL)
		return Max(Min(SECONDS(task->every), task->rest()), REST_FACTOR * spent);
	return Max(SECONDS(task->every), REST_FACTOR * spent);
}

/*
 * When to try again after so many failures.  Locks will be free soon; an error may
 * need somebody to look at it.
 */
int64
sa_worker_back_off(int64 now, int failures, bool is_error)
{
	int64		most = is_error ? BACKOFF_MAX : SECONDS(sa_flush_interval);

	return now + Min(PAUSE << Min(failures, 10), most);
}

/* Here we are: whoever waits for us knows that we do not stand still. */
static void
tell_moved(SaRun *run, int64 now)
{
	SaRun	   *mine;

	run->moved = now;
	SpinLockAcquire(&sa_workers->mutex);
	mine = sa_worker_run(run->database);
	if (mine != NULL && mine->pid == MyProcPid)
		mine->moved = now;
	SpinLockRelease(&sa_workers->mutex);
}

/* The task that has been due the longest, of those that flush or the others; -1: none. */
static int
next_task(const SaRun *run, bool flushing, const bool *over, int64 now)
{
	int			n;
	const SaTask *tasks = sa_tasks(&n);
	int			next = -1;

	for (int i = 0; i < n; i++)
	{
		if ((tasks[i].every == 0) == flushing && !over[i] && run->due[i] <= now &&
			(next < 0 || run->due[i] < run->due[next]))
			next = i;
	}
	return next;
}

/*
 * Do the tasks that are due, until the deadline, each of them once.  They take turns
 * by batches, so that one with much to do does not keep the others waiting.  Those
 * that flush have no deadline: each run begins anew, and the last touches would never be
 * flushed.
 */
static SaOutcome
run_tasks(SaRun *run, bool flushing, int64 deadline)
{
	int			n;
	const SaTask *tasks = sa_tasks(&n);
	bool		over[SA_TASKS_MAX] = {false};
	int64		spent[SA_TASKS_MAX] = {0};
	int64		now = sa_monotonic_now();
	int			i;

	while ((i = next_task(run, flushing, over, now)) >= 0)
	{
		int64		began = now;
		bool		waits = false;
		SaOutcome	outcome;

		CHECK_FOR_INTERRUPTS();
		if (now >= deadline)
			return OUTCOME_UNFINISHED;
		tell_moved(run, now);
		outcome = attempt_batch(&tasks[i], &run->done[i], &waits, &run->troubles[i]);
		now = sa_monotonic_now();
		spent[i] += now - began;
		over[i] = outcome != OUTCOME_UNFINISHED;
		switch (outcome)
		{
			case OUTCOME_UNFINISHED:
				run->due[i] = now;
				break;
			case OUTCOME_DONE:
				run->due[i] = now + (waits ? SECONDS((int64) sa_flush_interval) :
									 rest_of(&tasks[i], spent[i]));
				break;
			case OUTCOME_TASKS_FAILED:
			case OUTCOME_TASKS_LOCKED_OUT:
				run->due[i] = sa_worker_back_off(now, run->troubles[i].failures,
												 outcome == OUTCOME_TASKS_FAILED);
				break;
			default:
				return outcome;
		}
	}
	return OUTCOME_DONE;
}

/* Do all that is due, or as much as there is time for. */
static SaOutcome
housekeep(SaRun *run)
{
	SaOutcome	outcome = run_tasks(run, true, NEVER);

	if (outcome != OUTCOME_DONE)
		return outcome;
	return run_tasks(run, false, sa_monotonic_now() + RUN_MAX);
}

/*
 * What came of it, if tasks are in trouble: also of those that have not been tried again
 * by this run.
 */
static SaOutcome
outcome_of_troubles(const SaRun *run, SaOutcome outcome, int *sqlstate)
{
	int			n;

	(void) sa_tasks(&n);
	*sqlstate = 0;
	if (outcome != OUTCOME_DONE && outcome != OUTCOME_UNFINISHED)
		return outcome;
	for (int i = 0; i < n; i++)
	{
		const SaTrouble *trouble = &run->troubles[i];

		if (trouble->failures == 0)
			continue;
		if (trouble->sqlstate == ERRCODE_LOCK_NOT_AVAILABLE)
		{
			if (outcome != OUTCOME_TASKS_FAILED)
				outcome = OUTCOME_TASKS_LOCKED_OUT;
		}
		else if (outcome != OUTCOME_TASKS_FAILED)
		{
			outcome = OUTCOME_TASKS_FAILED;
			*sqlstate = trouble->sqlstate;
		}
	}
	return outcome;
}

/* Tell the launcher, unless it has started another worker meanwhile. */
static void
report(const SaRun *run, SaOutcome outcome, int sqlstate)
{
	SaRun	   *mine;

	SpinLockAcquire(&sa_workers->mutex);
	mine = sa_worker_run(run->database);
	if (mine != NULL && mine->pid == MyProcPid)
	{
		*mine = *run;
		mine->outcome = outcome;
		mine->sqlstate = sqlstate;
	}
	SpinLockRelease(&sa_workers->mutex);
}

/* Settings of the database or of a role are meant for others. */
static void
reset_settings(void)
{
	static const char *const settings[][2] = {
		{"application_name", "session_admin worker"},
		{"search_path", "pg_catalog, pg_temp"},
		{"lock_timeout", LOCK_TIMEOUT},
		/* of a batch: other databases may wait for its end */
		{"statement_timeout", "15min"},
		{"transaction_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"session_replication_role", "origin"},
		{"session_admin.actor", ""},
		/* a standby that is gone must not keep it here */
		{"synchronous_commit", "local"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
	{
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
}

/* Where the worker begins. */
void
sa_worker_main(Datum arg)
{
	SaRun		run = {0};
	SaRun	   *mine;
	SaOutcome	outcome;
	int			sqlstate;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	SpinLockAcquire(&sa_workers->mutex);
	mine = sa_worker_run(DatumGetObjectId(arg));
	if (mine != NULL && mine->pid == 0)
	{
		mine->pid = MyProcPid;
		run = *mine;
	}
	SpinLockRelease(&sa_workers->mutex);
	/* another launcher has other plans */
	if (run.pid != MyProcPid)
		proc_exit(0);

	BackgroundWorkerInitializeConnectionByOid(run.database, InvalidOid, 0);
	reset_settings();

	PG_TRY();
	{
		outcome = housekeep(&run);
	}
	PG_CATCH();
	{
		report(&run, OUTCOME_FAILED, geterrcode());
		PG_RE_THROW();
	}
	PG_END_TRY();

	outcome = outcome_of_troubles(&run, outcome, &sqlstate);
	report(&run, outcome, sqlstate);
	/* the postmaster logs it */
	proc_exit(any_failed ? 1 : 0);
}

/*
 * For health
 */

/* What of it was done, in words. */
static char *
done_text(const int64 *done)
{
	StringInfoData text;
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	initStringInfo(&text);
	for (int i = 0; i < n; i++)
	{
		if (done[i] > 0)
			appendStringInfo(&text, "%s" INT64_FORMAT " %s", text.len > 0 ? ", " : "",
							 done[i], tasks[i].name);
	}
	return text.data;
}

/* Which tasks do not get on, in words; NULL if all do. */
static char *
trouble_text(const SaTrouble *troubles)
{
	StringInfoData text;
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	initStringInfo(&text);
	for (int i = 0; i < n; i++)
	{
		if (troubles[i].failures > 0)
			appendStringInfo(&text, "%s%s (%d times, SQLSTATE %s)", text.len > 0 ? ", " : "",
							 tasks[i].name, troubles[i].failures,
							 unpack_sql_state(troubles[i].sqlstate));
	}
	return text.len > 0 ? text.data : NULL;
}

/*
 * How long something should have happened that did not: a batch has begun and not
 * ended, or a task is due and none has begun.  What there is to flush is told apart.
 */
static int64
overdue(const SaDatabase *database, const SaRun *run, int64 now)
{
	int64		due = NEVER;
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	if (run != NULL)
		return now - run->moved;
	for (int i = 0; i < n; i++)
	{
		if (tasks[i].every != 0)
			due = Min(due, database->last.due[i]);
	}
	due = Max(Max(due, database->last.ended), database->not_before);
	return Max(now - due, 0);
}

static Datum
interval_datum(int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	return IntervalPGetDatum(interval);
}

/*
 * worker_status() returns one row (state, launcher_pid, worker_pid, started_at,
 * ended_at, succeeded_at, failures, sqlstate, done, failing, since_success,
 * since_flush, overdue): of this database.
 */
Datum
sa_worker_status(PG_FUNCTION_ARGS)
{
	enum
	{
		STATE, LAUNCHER_PID, WORKER_PID, STARTED_AT, ENDED_AT, SUCCEEDED_AT, FAILURES, SQLSTATE,
		DONE, FAILING, SINCE_SUCCESS, SINCE_FLUSH, OVERDUE, COLUMNS
	};
	Datum		values[COLUMNS] = {0};
	bool		nulls[COLUMNS];
	TupleDesc	desc;
	SaRun	   *run;
	SaRun		under_way;
	SaDatabase	here = {0};
	SaDatabase *entry;
	int64		now = sa_monotonic_now();
	pid_t		worker_pid = 0;
	pid_t		launcher_pid;
	const char *state;
	char	   *failing;
	bool		no_process;
	bool		no_room;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(nulls, true, sizeof(nulls));
	nulls[STATE] = false;
	if (sa_workers == NULL)
	{
		values[STATE] = CStringGetTextDatum("not preloaded");
		PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
	}

	SpinLockAcquire(&sa_workers->mutex);
	launcher_pid = sa_workers->launcher_pid;
	no_process = sa_workers->no_process;
	no_room = sa_workers->no_room;
	run = sa_worker_run(MyDatabaseId);
	if (run != NULL)
	{
		worker_pid = run->pid;
		under_way = *run;
	}
	entry = sa_worker_find(MyDatabaseId, false);
	if (entry != NULL)
		here = *entry;
	SpinLockRelease(&sa_workers->mutex);

	if (!sa_worker_enabled)
		state = "off";
	else if (launcher_pid == 0)
		state = RecoveryInProgress() ? "standby" : "no launcher";
	else if (worker_pid != 0)
		state = "running";
	else if (no_process)
		state = "no process";
	else if (here.last.ended_at == 0)
		state = entry == NULL && no_room ? "no room" : "not begun";
	else
		state = outcome_names[here.last.outcome];

	values[STATE] = CStringGetTextDatum(state);
	nulls[LAUNCHER_PID] = launcher_pid == 0;
	values[LAUNCHER_PID] = Int32GetDatum(launcher_pid);
	nulls[WORKER_PID] = strcmp(state, "running") != 0;
	values[WORKER_PID] = Int32GetDatum(worker_pid);
	if (here.last.ended_at != 0)
	{
		nulls[STARTED_AT] = nulls[ENDED_AT] = nulls[DONE] = nulls[FAILURES] = false;
		values[STARTED_AT] = TimestampTzGetDatum(here.last.started_at);
		values[ENDED_AT] = TimestampTzGetDatum(here.last.ended_at);
		values[DONE] = CStringGetTextDatum(done_text(here.last.done));
		values[FAILURES] = Int32GetDatum(here.failures);
		nulls[SUCCEEDED_AT] = here.succeeded_at == 0;
		values[SUCCEEDED_AT] = TimestampTzGetDatum(here.succeeded_at);
		nulls[SQLSTATE] = here.last.sqlstate == 0;
		values[SQLSTATE] = CStringGetTextDatum(unpack_sql_state(here.last.sqlstate));
		failing = trouble_text(here.last.troubles);
		nulls[FAILING] = failing == NULL;
		values[FAILING] = failing ? CStringGetTextDatum(failing) : (Datum) 0;
		nulls[SINCE_SUCCESS] = here.succeeded == 0;
		values[SINCE_SUCCESS] = interval_datum(now - here.succeeded);
		nulls[SINCE_FLUSH] = here.flushed == 0;
		values[SINCE_FLUSH] = interval_datum(now - here.flushed);
	}
	if (run != NULL || here.last.ended_at != 0)
	{
		nulls[OVERDUE] = false;
		values[OVERDUE] = interval_datum(overdue(&here, run ? &under_way : NULL, now));
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
