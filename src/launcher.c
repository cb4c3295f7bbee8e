/*
 * launcher.c
 *	  The process that starts the background worker where something is due.
 *
 * It lives as long as the server, but on a standby not before it is promoted.  It
 * runs one worker at a time, and ends it when somebody wants to drop, rename, move
 * or copy the database: that waits until all others have left, which one batch
 * may be too long for.
 *
 * What fails is tried again, ever more rarely.  With nothing to flush, a database
 * is visited as often as its other tasks want; with no database that uses the
 * extension, the launcher sleeps until it is told of one.
 */
#include "session_admin.h"
#include "worker.h"

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
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PGDLLEXPORT void sa_launcher_main(Datum arg);

#define PAUSE			SECONDS(1)	/* between runs, so that others get in */
#define BACKOFF_MAX		SECONDS(600)
#define LOOK_MS			500		/* how often the launcher looks after a worker */

/* Databases that a worker has looked into, and when it may look into others. */
static List *visited = NIL;
static int	failed_visits = 0;	/* since the last that did not fail */
static TimestampTz next_visit = 0;

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
	int64		most = is_error ? BACKOFF_MAX : SECONDS(sa_flush_interval);

	return now + Min(PAUSE << Min(failures, 10), most);
}

/* What the last run means for the database that it ran in. */
static void
take_report(void)
{
	TimestampTz now = GetCurrentTimestamp();
	SaRun	   *run = &sa_workers->run;
	bool		conclusive;

	SpinLockAcquire(&sa_workers->mutex);
	conclusive = run->outcome != OUTCOME_NONE && run->outcome != OUTCOME_FAILED;
	run->pid = 0;
	run->ended_at = now;
	if (run->outcome == OUTCOME_NOT_USED)
	{
		SaDatabase *entry = sa_worker_find(run->database, false);

		/* unless it was made again meanwhile */
		if (entry != NULL && entry->notes == run->notes)
			sa_worker_forget(entry);
	}
	else
	{
		SaDatabase *entry = sa_worker_find(run->database, conclusive);

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
	SpinLockRelease(&sa_workers->mutex);

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
	SaDatabase *entry;
	bool		registered;
	pid_t		pid;

	SpinLockAcquire(&sa_workers->mutex);
	memset(&sa_workers->run, 0, sizeof(sa_workers->run));
	entry = sa_worker_find(database, false);
	if (entry != NULL)
	{
		memcpy(sa_workers->run.due, entry->last.due, sizeof(sa_workers->run.due));
		sa_workers->run.notes = entry->notes;
	}
	sa_workers->run.database = database;
	sa_workers->run.started_at = GetCurrentTimestamp();
	SpinLockRelease(&sa_workers->mutex);

	sa_worker_describe(&worker, "session_admin worker", "sa_worker_main");
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	registered = RegisterDynamicBackgroundWorker(&worker, &handle);
	sa_workers->no_process = !registered;
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
	SaDatabase	copy;
	SaDatabase *entry;
	TimestampTz next = DT_NOEND;
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	SpinLockAcquire(&sa_workers->mutex);
	entry = sa_worker_find(database, false);
	if (entry != NULL)
		copy = *entry;
	SpinLockRelease(&sa_workers->mutex);
	if (entry == NULL)
		return list_member_oid(visited, database) ? DT_NOEND : Max(now, next_visit);

	for (int i = 0; i < n; i++)
	{
		/* nothing to flush: look again later */
		if (tasks[i].every == 0 && copy.last.due[i] <= now && !sa_live_any_unflushed(database))
			copy.last.due[i] = now + SECONDS(sa_flush_interval);
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
		SaDatabase *entry;

		if (list_member_oid(all, known[i]))
			continue;
		SpinLockAcquire(&sa_workers->mutex);
		entry = sa_worker_find(known[i], false);
		if (entry != NULL)
			sa_worker_forget(entry);
		SpinLockRelease(&sa_workers->mutex);
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

	/*
	 * first this, then the list: what is known and not in the list was
	 * dropped
	 */
	SpinLockAcquire(&sa_workers->mutex);
	n = sa_workers->n_databases;
	for (int i = 0; i < n; i++)
		known[i] = sa_workers->databases[i].last.database;
	SpinLockRelease(&sa_workers->mutex);
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
				next = now + SECONDS(sa_flush_interval);
			else
				next = next_run(database, GetCurrentTimestamp());
		}
		again = Min(again, next);
	}
	/* one that is closed may be opened */
	if (n > 0)
		again = Min(again, GetCurrentTimestamp() + SECONDS(sa_flush_interval));
	return again;
}

static void
launcher_exit(pg_attribute_unused() int code, pg_attribute_unused() Datum arg)
{
	SpinLockAcquire(&sa_workers->mutex);
	sa_workers->launcher_pid = 0;
	sa_workers->launcher_latch = NULL;
	SpinLockRelease(&sa_workers->mutex);
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
	SpinLockAcquire(&sa_workers->mutex);
	sa_workers->launcher_pid = MyProcPid;
	sa_workers->launcher_latch = MyLatch;
	SpinLockRelease(&sa_workers->mutex);

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
