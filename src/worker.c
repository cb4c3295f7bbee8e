/*
 * worker.c
 *	  The background worker: housekeeping that starts by itself.
 *
 * Two kinds of processes.  The launcher lives as long as the server, but for a
 * standby, which gets it when it is promoted; it has no database, knows which
 * ones use the extension and when something is due there, and starts the worker.
 * The worker connects to one database, does what is due, and is gone: it stands
 * in nobody's way who drops the database or the extension.  One runs at a time.
 *
 * A database is found in two ways: the launcher sends the worker to look once
 * into each that it sees for the first time, and a backend that uses the
 * extension for the first time says so (sa_worker_note_database).  Where there
 * is none, no worker comes again.
 *
 * The worker does a batch in a transaction, as the owner of the tables.  It
 * takes the lock of maintain(), which keeps it held until the shared table of
 * live sessions knows what was flushed, and it waits for no lock for long: others
 * are told "later" by nobody.  If it cannot go on it comes again.
 *
 * Locks.  Shared memory is protected by a spinlock, held only to copy.  The
 * launcher alone changes what is known of a database, except that anybody adds
 * one; the worker reports in "run", and the launcher takes it from there.
 */
#include "session_admin.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PGDLLEXPORT void sa_launcher_main(Datum arg);
PGDLLEXPORT void sa_worker_main(Datum arg);

PG_FUNCTION_INFO_V1(sa_note_database);
PG_FUNCTION_INFO_V1(sa_worker_status);

#define DATABASES_MAX	64
#define TASKS_MAX		16
#define SECONDS(n)		((n) * USECS_PER_SEC)
#define RUN_MAX			SECONDS(2)	/* no new batch is begun after it */
#define PAUSE			SECONDS(1)	/* between runs, so that others get in */
#define BACKOFF_MAX		SECONDS(600)
#define REST_FACTOR		20			/* a task rests so many times as long as it took */
#define LOOK_MS			500			/* how often the launcher looks after a worker */

/* Shorter than any deadlock_timeout that is in use: the others go first. */
#define LOCK_TIMEOUT	"500ms"

/* What came of a run, and how health calls it. */
typedef enum Outcome
{
	OUTCOME_NONE,				/* it ended before it could say */
	OUTCOME_NOT_USED,
	OUTCOME_DONE,
	OUTCOME_UNFINISHED,
	OUTCOME_LOCKED_OUT,
	OUTCOME_OTHER_VERSION,
	OUTCOME_FAILED
} Outcome;

static const char *const outcome_names[] = {
	"failed", "not used", "idle", "idle", "locked out", "other version", "failed"
};

typedef struct Run
{
	Oid			database;
	pid_t		pid;			/* 0: has not begun */
	Outcome		outcome;
	int			sqlstate;		/* if it failed */
	uint32		notes;			/* of the database when it began */
	TimestampTz started_at;		/* 0: never */
	TimestampTz ended_at;
	TimestampTz due[TASKS_MAX];
	int64		done[TASKS_MAX];
} Run;

/* A database that uses the extension. */
typedef struct Database
{
	uint32		notes;			/* how often somebody said so */
	TimestampTz not_before;		/* no run until then */
	int			failures;		/* runs that came to nothing since the last success */
	TimestampTz succeeded_at;	/* 0: never */
	Run			last;			/* and what is due next */
} Database;

typedef struct Shared
{
	slock_t		mutex;
	pid_t		launcher_pid;	/* 0: none */
	Latch	   *launcher_latch;
	bool		no_process;		/* max_worker_processes are in use */
	bool		no_room;		/* more databases than DATABASES_MAX */
	Run			run;
	int			n_databases;
	Database	databases[DATABASES_MAX];
} Shared;

static Shared *shared = NULL;

/* In a backend: has this database been noted?  If not, do it at commit. */
static bool noted = false;
static bool note_at_commit = false;

/* In the launcher: databases that a worker has looked into, and when it may go on. */
static List *visited = NIL;
static int	failed_visits = 0;	/* since the last that did not fail */
static TimestampTz next_visit = 0;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/*
 * What all processes do
 */

/* The entry of a database, under the mutex; NULL if there is none, or no room for it. */
static Database *
find_database(Oid database, bool add)
{
	Database   *entry;

	for (int i = 0; i < shared->n_databases; i++)
	{
		if (shared->databases[i].last.database == database)
			return &shared->databases[i];
	}
	if (!add)
		return NULL;
	if (shared->n_databases == DATABASES_MAX)
	{
		shared->no_room = true;
		return NULL;
	}
	entry = &shared->databases[shared->n_databases++];
	memset(entry, 0, sizeof(*entry));
	entry->last.database = database;
	return entry;
}

/* Forget it, under the mutex. */
static void
remove_database(Database *entry)
{
	*entry = shared->databases[--shared->n_databases];
	shared->no_room = false;
}

/* This database uses the extension: the launcher will know once this has committed. */
void
sa_worker_note_database(void)
{
	if (!noted && shared != NULL)
		note_at_commit = true;
}

/* note_database(): called by CREATE EXTENSION, which may not be the first one here. */
Datum
sa_note_database(pg_attribute_unused() PG_FUNCTION_ARGS)
{
	noted = false;
	sa_worker_note_database();
	PG_RETURN_VOID();
}

static void
xact_callback(XactEvent event, pg_attribute_unused() void *arg)
{
	Latch	   *latch = NULL;
	Database   *entry;

	if (!note_at_commit || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;

	note_at_commit = false;
	if (event == XACT_EVENT_ABORT)
		return;

	SpinLockAcquire(&shared->mutex);
	entry = find_database(MyDatabaseId, true);
	if (entry != NULL && entry->notes++ == 0)
		latch = shared->launcher_latch;
	SpinLockRelease(&shared->mutex);
	if (latch != NULL)
		SetLatch(latch);
	noted = true;
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(Shared)));
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("session_admin worker", sizeof(Shared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(Shared));
		SpinLockInit(&shared->mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* What the launcher and the worker have in common. */
static void
register_process(BackgroundWorker *worker, const char *name, const char *function)
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
	register_process(&launcher, "session_admin launcher", "sa_launcher_main");
	launcher.bgw_restart_time = 5;
	RegisterBackgroundWorker(&launcher);
}

/*
 * The worker
 */

/* Is this our extension, in a version that we know, with nobody else at work? */
static Outcome
look(void)
{
	static SaStatement find_extension = {.sql =
		"SELECT extversion FROM pg_extension WHERE extname = 'session_admin'"
	};
	Oid			schema = get_namespace_oid("session_admin", true);
	Oid			relation = OidIsValid(schema) ? get_relname_relid("ended_session", schema) : InvalidOid;

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

/* One batch of a task in a transaction; rows done are added to *done. */
static Outcome
run_batch(const SaTask *task, int64 *done)
{
	Outcome		outcome;
	int64		rows = 0;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	pgstat_report_activity(STATE_RUNNING, task->name);

	outcome = look();
	if (outcome == OUTCOME_DONE)
	{
		SaOwner		owner;

		sa_owner_enter(&owner);
		if (sa_task_run(task, &rows))
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
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);

	*done += Max(rows, 0);
	return outcome;
}

/* How long a task rests after it has begun and ended at these times. */
static int64
rest_of(const SaTask *task, TimestampTz began, TimestampTz ended)
{
	if (task->every == 0)
		return SECONDS((int64) sa_flush_interval);
	return Max(SECONDS((int64) task->every), REST_FACTOR * (ended - began));
}

/*
 * Do the tasks that are due, until the deadline.  Those that flush have none:
 * each run begins anew, and the last touches would never be flushed.
 */
static Outcome
run_tasks(Run *run, bool flushing, TimestampTz deadline)
{
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	for (int i = 0; i < n; i++)
	{
		TimestampTz began = GetCurrentTimestamp();
		TimestampTz now = began;
		Outcome		outcome;

		if ((tasks[i].every == 0) != flushing || run->due[i] > began)
			continue;
		do
		{
			CHECK_FOR_INTERRUPTS();
			if (now >= deadline)
				return OUTCOME_UNFINISHED;
			outcome = run_batch(&tasks[i], &run->done[i]);
			now = GetCurrentTimestamp();
		} while (outcome == OUTCOME_UNFINISHED);
		if (outcome != OUTCOME_DONE)
			return outcome;
		run->due[i] = now + rest_of(&tasks[i], began, now);
	}
	return OUTCOME_DONE;
}

/* Do all that is due, or as much as there is time for. */
static Outcome
housekeep(Run *run)
{
	Outcome		outcome = run_tasks(run, true, DT_NOEND);

	if (outcome != OUTCOME_DONE)
		return outcome;
	return run_tasks(run, false, GetCurrentTimestamp() + RUN_MAX);
}

/* Tell the launcher, unless it has started another worker meanwhile. */
static void
report(const Run *run, Outcome outcome, int sqlstate)
{
	SpinLockAcquire(&shared->mutex);
	if (shared->run.pid == MyProcPid)
	{
		shared->run = *run;
		shared->run.outcome = outcome;
		shared->run.sqlstate = sqlstate;
	}
	SpinLockRelease(&shared->mutex);
}

/* Settings of the database or of a role are meant for others. */
static void
reset_settings(void)
{
	static const char *const settings[][2] = {
		{"application_name", "session_admin worker"},
		{"search_path", "pg_catalog, pg_temp"},
		{"lock_timeout", LOCK_TIMEOUT},
		{"statement_timeout", "0"},
		{"transaction_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"row_security", "on"},
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
	Run			run;
	Outcome		outcome;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	SpinLockAcquire(&shared->mutex);
	shared->run.pid = MyProcPid;
	run = shared->run;
	SpinLockRelease(&shared->mutex);
	if (run.database != DatumGetObjectId(arg))
		proc_exit(0);

	BackgroundWorkerInitializeConnectionByOid(run.database, InvalidOid, 0);
	reset_settings();

	PG_TRY();
	{
		outcome = housekeep(&run);
	}
	PG_CATCH();
	{
		int			sqlstate = geterrcode();

		if (sqlstate != ERRCODE_LOCK_NOT_AVAILABLE)
		{
			report(&run, OUTCOME_FAILED, sqlstate);
			PG_RE_THROW();
		}
		FlushErrorState();
		outcome = OUTCOME_LOCKED_OUT;
	}
	PG_END_TRY();

	report(&run, outcome, 0);
	proc_exit(0);
}

/*
 * The launcher
 */

/* All databases, and those among them that can be connected to. */
static void
list_databases(List **all, List **connectable)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old = MemoryContextSwitchTo(context);

		*all = lappend_oid(*all, database->oid);
		/* below -1: a DROP DATABASE has begun and failed */
		if (database->datallowconn && database->datconnlimit >= -1)
			*connectable = lappend_oid(*connectable, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* Does somebody drop, rename, move or copy the database? */
static bool
others_want(Oid database)
{
	LOCKTAG		tag;
	bool		wanted;
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, database, 0);
	wanted = LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL;
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return wanted;
}

/*
 * When to try again after so many runs that came to nothing.  Locks will be free
 * soon; an error may need somebody to look at it.
 */
static TimestampTz
back_off(TimestampTz now, int failures, bool is_error)
{
	int64		most = is_error ? BACKOFF_MAX : SECONDS((int64) sa_flush_interval);

	return now + Min(PAUSE << Min(failures, 10), most);
}

/* What the last run means for the database that it ran in. */
static void
take_report(void)
{
	TimestampTz now = GetCurrentTimestamp();
	Run		   *run = &shared->run;
	bool		conclusive;

	SpinLockAcquire(&shared->mutex);
	conclusive = run->outcome != OUTCOME_NONE && run->outcome != OUTCOME_FAILED;
	run->pid = 0;
	run->ended_at = now;
	if (run->outcome == OUTCOME_NOT_USED)
	{
		Database   *entry = find_database(run->database, false);

		/* unless it was made again meanwhile */
		if (entry != NULL && entry->notes == run->notes)
			remove_database(entry);
	}
	else
	{
		Database   *entry = find_database(run->database, conclusive);

		if (entry != NULL)
		{
			entry->last = *run;
			entry->not_before = now + PAUSE;
			if (run->outcome == OUTCOME_DONE || run->outcome == OUTCOME_UNFINISHED)
			{
				entry->failures = 0;
				entry->succeeded_at = now;
			}
			else
				entry->not_before = back_off(now, ++entry->failures, !conclusive);
		}
	}
	SpinLockRelease(&shared->mutex);

	failed_visits = conclusive ? 0 : failed_visits + 1;
	next_visit = conclusive ? now : back_off(now, failed_visits, true);
	if (conclusive && !list_member_oid(visited, run->database))
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		visited = lappend_oid(visited, run->database);
		MemoryContextSwitchTo(old);
	}
}

/* Run the worker in this database, to its end; false if there was no process for it. */
static bool
run_worker(Oid database)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	Database   *entry;
	bool		registered;
	pid_t		pid;

	SpinLockAcquire(&shared->mutex);
	memset(&shared->run, 0, sizeof(shared->run));
	entry = find_database(database, false);
	if (entry != NULL)
	{
		memcpy(shared->run.due, entry->last.due, sizeof(shared->run.due));
		shared->run.notes = entry->notes;
	}
	shared->run.database = database;
	shared->run.started_at = GetCurrentTimestamp();
	SpinLockRelease(&shared->mutex);

	register_process(&worker, "session_admin worker", "sa_worker_main");
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	registered = RegisterDynamicBackgroundWorker(&worker, &handle);
	shared->no_process = !registered;
	if (!registered)
		return false;

	for (;;)
	{
		BgwHandleStatus status = GetBackgroundWorkerPid(handle, &pid);

		if (status == BGWH_STOPPED)
			break;
		if (ShutdownRequestPending || others_want(database))
			TerminateBackgroundWorker(handle);
		if (ShutdownRequestPending || status == BGWH_POSTMASTER_DIED)
			proc_exit(1);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	pfree(handle);
	take_report();
	return true;
}

/* When is there something to do in this database? */
static TimestampTz
next_run(Oid database, TimestampTz now)
{
	Database	copy;
	Database   *entry;
	TimestampTz next = DT_NOEND;
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	SpinLockAcquire(&shared->mutex);
	entry = find_database(database, false);
	if (entry != NULL)
		copy = *entry;
	SpinLockRelease(&shared->mutex);
	if (entry == NULL)
		return list_member_oid(visited, database) ? DT_NOEND : Max(now, next_visit);

	for (int i = 0; i < n; i++)
	{
		/* nothing to flush: look again later */
		if (tasks[i].every == 0 && copy.last.due[i] <= now && !sa_live_any_unflushed(database))
			copy.last.due[i] = now + SECONDS((int64) sa_flush_interval);
		next = Min(next, copy.last.due[i]);
	}
	return Max(next, copy.not_before);
}

/* Forget databases that were dropped. */
static void
forget_dropped(const Oid *known, int n, const List *all)
{
	ListCell   *cell;

	foreach(cell, visited)
	{
		if (!list_member_oid(all, lfirst_oid(cell)))
			visited = foreach_delete_current(visited, cell);
	}
	for (int i = 0; i < n; i++)
	{
		Database   *entry;

		if (list_member_oid(all, known[i]))
			continue;
		SpinLockAcquire(&shared->mutex);
		entry = find_database(known[i], false);
		if (entry != NULL)
			remove_database(entry);
		SpinLockRelease(&shared->mutex);
	}
}

/* Run the worker wherever it is due.  Returns when to come again. */
static TimestampTz
make_round(void)
{
	Oid			known[DATABASES_MAX];
	int			n;
	List	   *all = NIL;
	List	   *connectable = NIL;
	ListCell   *cell;
	TimestampTz again = DT_NOEND;

	/* first this, then the list: what is known and not in the list was dropped */
	SpinLockAcquire(&shared->mutex);
	n = shared->n_databases;
	for (int i = 0; i < n; i++)
		known[i] = shared->databases[i].last.database;
	SpinLockRelease(&shared->mutex);
	list_databases(&all, &connectable);
	forget_dropped(known, n, all);

	foreach(cell, connectable)
	{
		Oid			database = lfirst_oid(cell);
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz next = next_run(database, now);

		if (next <= now)
		{
			if (others_want(database) || !run_worker(database))
				next = now + SECONDS((int64) sa_flush_interval);
			else
				next = next_run(database, GetCurrentTimestamp());
		}
		again = Min(again, next);
	}
	/* one that is closed may be opened */
	if (n > 0)
		again = Min(again, GetCurrentTimestamp() + SECONDS((int64) sa_flush_interval));
	return again;
}

static void
launcher_exit(pg_attribute_unused() int code, pg_attribute_unused() Datum arg)
{
	SpinLockAcquire(&shared->mutex);
	shared->launcher_pid = 0;
	shared->launcher_latch = NULL;
	SpinLockRelease(&shared->mutex);
}

/* Where the launcher begins. */
void
sa_launcher_main(pg_attribute_unused() Datum arg)
{
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	context = AllocSetContextCreate(TopMemoryContext, "session_admin launcher",
									ALLOCSET_DEFAULT_SIZES);

	before_shmem_exit(launcher_exit, (Datum) 0);
	SpinLockAcquire(&shared->mutex);
	shared->launcher_pid = MyProcPid;
	shared->launcher_latch = MyLatch;
	SpinLockRelease(&shared->mutex);

	while (!ShutdownRequestPending)
	{
		TimestampTz again = DT_NOEND;
		TimestampTz now;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (sa_worker_enabled)
		{
			MemoryContextReset(context);
			MemoryContextSwitchTo(context);
			again = make_round();
		}

		now = GetCurrentTimestamp();
		if (!ConfigReloadPending && again > now)
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
							 (again == DT_NOEND ? 0 : WL_TIMEOUT),
							 again == DT_NOEND ? -1 : TimestampDifferenceMilliseconds(now, again),
							 PG_WAIT_EXTENSION);
	}
	/* the postmaster starts it again, unless it is about to stop */
	proc_exit(1);
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

/*
 * worker_status() returns one row (state, launcher_pid, worker_pid, started_at,
 * ended_at, succeeded_at, failures, sqlstate, done): of this database.
 */
Datum
sa_worker_status(PG_FUNCTION_ARGS)
{
	enum
	{
		STATE, LAUNCHER_PID, WORKER_PID, STARTED_AT, ENDED_AT, SUCCEEDED_AT, FAILURES, SQLSTATE,
		DONE, COLUMNS
	};
	Datum		values[COLUMNS] = {0};
	bool		nulls[COLUMNS];
	TupleDesc	desc;
	Run			run;
	Database	here = {0};
	Database   *entry;
	pid_t		launcher_pid;
	const char *state;
	bool		no_process;
	bool		no_room;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(nulls, true, sizeof(nulls));
	nulls[STATE] = false;
	if (shared == NULL)
	{
		values[STATE] = CStringGetTextDatum("not preloaded");
		PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
	}

	SpinLockAcquire(&shared->mutex);
	launcher_pid = shared->launcher_pid;
	no_process = shared->no_process;
	no_room = shared->no_room;
	run = shared->run;
	entry = find_database(MyDatabaseId, false);
	if (entry != NULL)
		here = *entry;
	SpinLockRelease(&shared->mutex);

	if (!sa_worker_enabled)
		state = "off";
	else if (launcher_pid == 0)
		state = RecoveryInProgress() ? "standby" : "no launcher";
	else if (run.database == MyDatabaseId && run.pid != 0)
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
	values[WORKER_PID] = Int32GetDatum(run.pid);
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
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
