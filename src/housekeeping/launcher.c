/*
 * launcher.c
 *	  The process that starts background workers where something is due.
 *
 * It lives as long as the server, on a standby from its promotion on.  README.md says how
 * databases are found, and who is next.
 */
#include "housekeeping/roster.h"
#include "live/live.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/spin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PGDLLEXPORT void sa_launcher_main(Datum arg);

#define PAUSE			SECONDS(1)	/* between runs, so that others get in */
#define BATCH_MAX		SECONDS(16 * 60)	/* a statement_timeout goes by a
											 * clock that may be set back */
#define LOOK			(SECONDS(1) / 2)	/* how often the launcher looks
											 * after workers */

/* A database, and when there is something to do. */
typedef struct Visit
{
	Oid			database;
	int64		at;
} Visit;

/* The workers that do sa_roster->runs; NULL where there is none. */
static BackgroundWorkerHandle *handles[WORKERS_MAX];

/* Databases that a worker has looked into, and when one may look into others. */
static List *visited = NIL;
static int	failed_visits = 0;	/* since the last that did not fail */
static int64 next_visit = 0;

/* What the launcher and the worker have in common. */
static void
launcher_describe(BackgroundWorker *worker, const char *name, const char *function)
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

/* What this folder sets up; registers the launcher, if preloaded. */
void
sa_housekeeping_init(void)
{
	BackgroundWorker launcher;

	sa_maintain_init();
	sa_roster_init();

	/* pg_upgrade wants no other session in the databases */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	launcher_describe(&launcher, "session_admin launcher", "sa_launcher_main");
	launcher.bgw_restart_time = 5;
	RegisterBackgroundWorker(&launcher);
}

/* All databases, and those among them that can be connected to. */
static void
launcher_list_databases(List **all, List **connectable)
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
launcher_others_want(Oid database)
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

/* Has it flushed what there was to flush? */
static bool
launcher_has_flushed(const SaWorkerRun *run)
{
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	if (run->outcome != OUTCOME_DONE && run->outcome != OUTCOME_UNFINISHED &&
		run->outcome != OUTCOME_TASKS_FAILED && run->outcome != OUTCOME_TASKS_LOCKED_OUT)
		return false;
	for (int i = 0; i < n; i++)
	{
		if (tasks[i].every == 0 && run->troubles[i].failures > 0)
			return false;
	}
	return true;
}

/* What a run that has ended means for the database that it ran in. */
static void
launcher_take_report(SaWorkerRun *run)
{
	int64		now = sa_monotonic_now();
	Oid			database = run->database;
	bool		conclusive;

	SpinLockAcquire(&sa_roster->mutex);
	conclusive = run->outcome != OUTCOME_NONE && run->outcome != OUTCOME_FAILED;
	run->pid = 0;
	run->ended = now;
	run->ended_at = GetCurrentTimestamp();
	if (run->outcome == OUTCOME_NOT_USED)
	{
		SaDatabase *entry = sa_roster_find(database, false);

		/* unless it was made again meanwhile */
		if (entry != NULL && entry->notes == run->notes)
			sa_roster_forget(entry);
	}
	else
	{
		SaDatabase *entry = sa_roster_find(database, conclusive);

		if (entry != NULL)
		{
			entry->last = *run;
			/* it may not have seen what a backend asked for meanwhile */
			if (entry->wakes != run->wakes)
				sa_roster_make_due(&entry->last);
			entry->not_before = now + PAUSE;
			if (launcher_has_flushed(run))
				entry->flushed = now;
			if (run->outcome == OUTCOME_DONE || run->outcome == OUTCOME_UNFINISHED)
			{
				entry->failures = 0;
				entry->succeeded = now;
				entry->succeeded_at = run->ended_at;
			}
			else
			{
				entry->failures++;
				/* a task in trouble rests by itself */
				if (run->outcome != OUTCOME_TASKS_FAILED && run->outcome != OUTCOME_TASKS_LOCKED_OUT)
					entry->not_before = sa_worker_back_off(now, entry->failures, !conclusive);
			}
		}
	}
	run->database = InvalidOid;
	SpinLockRelease(&sa_roster->mutex);

	failed_visits = conclusive ? 0 : failed_visits + 1;
	next_visit = conclusive ? now : sa_worker_back_off(now, failed_visits, true);
	if (conclusive && !list_member_oid(visited, database))
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		visited = lappend_oid(visited, database);
		MemoryContextSwitchTo(old);
	}
}

/* Has its batch taken longer than any may? */
static bool
launcher_stands_still(const SaWorkerRun *run)
{
	int64		moved;

	SpinLockAcquire(&sa_roster->mutex);
	moved = run->moved;
	SpinLockRelease(&sa_roster->mutex);
	return sa_monotonic_now() - moved > BATCH_MAX;
}

/* Take the reports of workers that have ended; returns how many have not. */
static int
launcher_look_after_workers(void)
{
	int			running = 0;

	for (int i = 0; i < WORKERS_MAX; i++)
	{
		pid_t		pid;

		if (handles[i] == NULL)
			continue;
		if (GetBackgroundWorkerPid(handles[i], &pid) == BGWH_STOPPED)
		{
			pfree(handles[i]);
			handles[i] = NULL;
			launcher_take_report(&sa_roster->runs[i]);
			continue;
		}
		running++;
		if (launcher_others_want(sa_roster->runs[i].database) || launcher_stands_still(&sa_roster->runs[i]))
			TerminateBackgroundWorker(handles[i]);
	}
	return running;
}

/* Start a worker in this place; false if there was no process for it. */
static bool
launcher_start_worker(int place, Oid database)
{
	SaWorkerRun *run = &sa_roster->runs[place];
	BackgroundWorker worker;
	SaDatabase *entry;
	MemoryContext old;
	bool		registered;

	SpinLockAcquire(&sa_roster->mutex);
	memset(run, 0, sizeof(*run));
	entry = sa_roster_find(database, false);
	if (entry != NULL)
	{
		memcpy(run->due, entry->last.due, sizeof(run->due));
		memcpy(run->troubles, entry->last.troubles, sizeof(run->troubles));
		memcpy(run->positions, entry->last.positions, sizeof(run->positions));
		run->notes = entry->notes;
		run->wakes = entry->wakes;
	}
	run->database = database;
	run->started_at = GetCurrentTimestamp();
	run->moved = sa_monotonic_now();
	SpinLockRelease(&sa_roster->mutex);

	launcher_describe(&worker, "session_admin worker", "sa_worker_main");
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &handles[place]);
	MemoryContextSwitchTo(old);
	if (!registered)
	{
		SpinLockAcquire(&sa_roster->mutex);
		run->database = InvalidOid;
		SpinLockRelease(&sa_roster->mutex);
	}
	return registered;
}

/* When is there something to do in this database? */
static int64
launcher_next_run(Oid database, int64 now)
{
	SaDatabase	copy;
	SaDatabase *entry;
	int64		next = NEVER;
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	SpinLockAcquire(&sa_roster->mutex);
	entry = sa_roster_find(database, false);
	if (entry != NULL)
		copy = *entry;
	SpinLockRelease(&sa_roster->mutex);
	if (entry == NULL)
		return list_member_oid(visited, database) ? NEVER : next_visit;

	for (int i = 0; i < n; i++)
	{
		int64		due = copy.last.due[i];

		/* nothing to flush: look again later */
		if (tasks[i].every == 0 && due <= now)
		{
			if (copy.nothing_until <= now && !sa_live_any_unflushed(database))
				copy.nothing_until = now + SECONDS(sa_flush_interval);
			due = Max(due, copy.nothing_until);
		}
		next = Min(next, due);
	}

	SpinLockAcquire(&sa_roster->mutex);
	entry = sa_roster_find(database, false);
	if (entry != NULL)
		entry->nothing_until = copy.nothing_until;
	SpinLockRelease(&sa_roster->mutex);
	return Max(next, copy.not_before);
}

/* Forget databases that were dropped. */
static void
launcher_forget_dropped(const Oid *known, int n, const List *all)
{
	ListCell   *cell;

	foreach(cell, visited)
	{
		if (!list_member_oid(all, lfirst_oid(cell)))
			visited = foreach_delete_current(visited, cell);
	}
	for (int i = 0; i < n; i++)
	{
		SaDatabase *entry;

		if (list_member_oid(all, known[i]))
			continue;
		SpinLockAcquire(&sa_roster->mutex);
		entry = sa_roster_find(known[i], false);
		if (entry != NULL)
			sa_roster_forget(entry);
		SpinLockRelease(&sa_roster->mutex);
	}
}

static int
launcher_compare_visits(const void *a, const void *b)
{
	int64		at_a = ((const Visit *) a)->at;
	int64		at_b = ((const Visit *) b)->at;

	return at_a < at_b ? -1 : at_a > at_b;
}

/* Start workers where something is due.  Returns when to come again. */
static int64
launcher_make_round(int *running)
{
	Oid			known[DATABASES_MAX];
	int			n;
	List	   *all = NIL;
	List	   *connectable = NIL;
	ListCell   *cell;
	Visit	   *visits;
	int			n_visits = 0;
	int64		now = sa_monotonic_now();
	int64		again = NEVER;
	bool		no_process = false;

	/*
	 * first this, then the list: a database that is known and not in the list
	 * was dropped
	 */
	SpinLockAcquire(&sa_roster->mutex);
	n = sa_roster->n_databases;
	for (int i = 0; i < n; i++)
		known[i] = sa_roster->databases[i].last.database;
	SpinLockRelease(&sa_roster->mutex);
	launcher_list_databases(&all, &connectable);
	launcher_forget_dropped(known, n, all);

	visits = palloc((list_length(connectable) + 1) * sizeof(Visit));
	foreach(cell, connectable)
	{
		Oid			database = lfirst_oid(cell);

		/* only the launcher changes which databases these are */
		if (sa_roster_run(database) != NULL)
			continue;
		visits[n_visits].database = database;
		visits[n_visits++].at = launcher_next_run(database, now);
	}
	qsort(visits, n_visits, sizeof(Visit), launcher_compare_visits);

	for (int i = 0; i < n_visits; i++)
	{
		int			place = 0;

		if (visits[i].at > now)
		{
			again = Min(again, visits[i].at);
			break;
		}
		/* the end of a worker wakes us up */
		if (*running == WORKERS_MAX)
			break;
		while (handles[place] != NULL)
			place++;
		if (launcher_others_want(visits[i].database))
			again = Min(again, now + SECONDS(sa_flush_interval));
		else if (launcher_start_worker(place, visits[i].database))
			(*running)++;
		else
		{
			no_process = *running == 0;
			again = Min(again, now + SECONDS(sa_flush_interval));
			break;
		}
	}
	sa_roster->no_process = no_process;
	/* one that is closed may be opened */
	if (n > 0)
		again = Min(again, now + SECONDS(sa_flush_interval));
	return again;
}

/* The settings have changed: tasks that were to be done later may be due now. */
static void
launcher_expect_anything(void)
{
	SpinLockAcquire(&sa_roster->mutex);
	for (int i = 0; i < sa_roster->n_databases; i++)
	{
		SaDatabase *entry = &sa_roster->databases[i];

		entry->nothing_until = 0;
		memset(entry->last.due, 0, sizeof(entry->last.due));
	}
	SpinLockRelease(&sa_roster->mutex);
}

static void
launcher_exit(pg_attribute_unused() int code, pg_attribute_unused() Datum arg)
{
	SpinLockAcquire(&sa_roster->mutex);
	sa_roster->launcher_pid = 0;
	sa_roster->launcher_latch = NULL;
	SpinLockRelease(&sa_roster->mutex);
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
	SpinLockAcquire(&sa_roster->mutex);
	sa_roster->launcher_pid = MyProcPid;
	sa_roster->launcher_latch = MyLatch;
	/* workers of an earlier launcher have no one to report to */
	memset(sa_roster->runs, 0, sizeof(sa_roster->runs));
	SpinLockRelease(&sa_roster->mutex);

	while (!ShutdownRequestPending)
	{
		int64		again = NEVER;
		int64		now;
		int			running;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			launcher_expect_anything();
		}
		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		running = launcher_look_after_workers();
		if (sa_worker_enabled)
			again = launcher_make_round(&running);

		now = sa_monotonic_now();
		if (running > 0)
			again = Min(again, now + LOOK);
		if (!ConfigReloadPending && again > now)
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
							 (again == NEVER ? 0 : WL_TIMEOUT),
							 again == NEVER ? -1 : (again - now + 999) / 1000,
							 PG_WAIT_EXTENSION);
	}
	for (int i = 0; i < WORKERS_MAX; i++)
	{
		if (handles[i] != NULL)
			TerminateBackgroundWorker(handles[i]);
	}
	/* the postmaster starts it again, unless it is about to stop */
	proc_exit(1);
}
