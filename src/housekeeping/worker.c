/*
 * worker.c
 *	  The background worker: one run of housekeeping in one database.
 *
 * Each batch is a transaction of its own, as the owner of the tables.  The worker does
 * nothing while maintain() is at work, and does not wait long for a lock.  A task that fails
 * is logged and rests; the others are done.
 */
#include "housekeeping/roster.h"
#include "live/live.h"
#include "ending/ending.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

PGDLLEXPORT void sa_worker_main(Datum arg);

/* Shorter than any deadlock_timeout that is in use: the others go first. */
#define LOCK_TIMEOUT	"500ms"

#define PAUSE			SECONDS(1)	/* before what failed is tried again */
#define BACKOFF_MAX		SECONDS(600)
#define RUN_MAX			SECONDS(2)	/* no new batch is begun after it */
#define REST_FACTOR		20		/* a task rests so many times as long as it
								 * took */

/*
 * The worker
 */

/* Is this our extension, in a version that we know, and is maintain() not at work? */
static SaOutcome
worker_look(void)
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
worker_run_batch(const SaTask *task, int64 *done, bool *waits)
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

	outcome = worker_look();
	if (outcome == OUTCOME_DONE)
	{
		SaOwner		owner;
		SaDatabaseState state;

		sa_owner_enter(&owner);
		state = sa_database_state();
		*waits = state == SA_DATABASE_IN_RESTORE ||
			(state == SA_DATABASE_UNUSED && !task->when_unused);
		if (!*waits && sa_task_run(task, &rows))
			outcome = OUTCOME_UNFINISHED;
		sa_owner_leave(&owner);
	}
	else if (outcome == OUTCOME_NOT_USED)
	{
		bool		more;

		(void) sa_live_forget(&more);
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
worker_error_callback(void *task)
{
	errcontext("session_admin task \"%s\"", ((const SaTask *) task)->name);
}

/*
 * Run a batch. If it fails, log the error, note it for the task and abort the transaction.
 * That holds for a cancel, too, as autovacuum goes on with its next table.
 */
static SaOutcome
worker_attempt_batch(const SaTask *task, int64 *done, bool *waits, SaTrouble *trouble)
{
	ErrorContextCallback callback = {
		.callback = worker_error_callback,
		.arg = unconstify(SaTask *, task),
		.previous = error_context_stack
	};
	volatile SaOutcome outcome = OUTCOME_FAILED;

	error_context_stack = &callback;
	PG_TRY();
	{
		outcome = worker_run_batch(task, done, waits);
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
worker_rest_of(const SaTask *task, int64 spent)
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

/* Tell the launcher that we do not stand still. */
static void
worker_tell_moved(SaWorkerRun *run, int64 now)
{
	SaWorkerRun *mine;

	run->moved = now;
	SpinLockAcquire(&sa_roster->mutex);
	mine = sa_roster_run(run->database);
	if (mine != NULL && mine->pid == MyProcPid)
		mine->moved = now;
	SpinLockRelease(&sa_roster->mutex);
}

/*
 * The task that has been due the longest, among the tasks that flush or among the others;
 * -1: none.
 */
static int
worker_next_task(const SaWorkerRun *run, bool flushing, const bool *over, int64 now)
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
worker_run_tasks(SaWorkerRun *run, bool flushing, int64 deadline)
{
	int			n;
	const SaTask *tasks = sa_tasks(&n);
	bool		over[SA_TASKS_MAX] = {false};
	int64		spent[SA_TASKS_MAX] = {0};
	int64		now = sa_monotonic_now();
	int			i;

	while ((i = worker_next_task(run, flushing, over, now)) >= 0)
	{
		int64		began = now;
		bool		waits = false;
		SaOutcome	outcome;

		CHECK_FOR_INTERRUPTS();
		if (now >= deadline)
			return OUTCOME_UNFINISHED;
		worker_tell_moved(run, now);
		outcome = worker_attempt_batch(&tasks[i], &run->done[i], &waits, &run->troubles[i]);
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
									 worker_rest_of(&tasks[i], spent[i]));
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
worker_housekeep(SaWorkerRun *run)
{
	SaOutcome	outcome = worker_run_tasks(run, true, NEVER);

	if (outcome != OUTCOME_DONE)
		return outcome;
	return worker_run_tasks(run, false, sa_monotonic_now() + RUN_MAX);
}

/*
 * The outcome of the run if tasks are in trouble, including tasks that this run has not
 * tried again.
 */
static SaOutcome
worker_outcome(const SaWorkerRun *run, SaOutcome outcome, int *sqlstate)
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
worker_report(const SaWorkerRun *run, SaOutcome outcome, int sqlstate)
{
	SaWorkerRun *mine;

	SpinLockAcquire(&sa_roster->mutex);
	mine = sa_roster_run(run->database);
	if (mine != NULL && mine->pid == MyProcPid)
	{
		*mine = *run;
		sa_expire_end(mine->positions);
		mine->outcome = outcome;
		mine->sqlstate = sqlstate;
	}
	SpinLockRelease(&sa_roster->mutex);
}

/* Settings of the database or of a role are meant for others. */
static void
worker_reset_settings(void)
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
	SaWorkerRun run = {0};
	SaWorkerRun *mine;
	SaOutcome	outcome;
	int			sqlstate;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	SpinLockAcquire(&sa_roster->mutex);
	mine = sa_roster_run(DatumGetObjectId(arg));
	if (mine != NULL && mine->pid == 0)
	{
		mine->pid = MyProcPid;
		run = *mine;
	}
	SpinLockRelease(&sa_roster->mutex);
	/* another launcher has other plans */
	if (run.pid != MyProcPid)
		proc_exit(0);

	BackgroundWorkerInitializeConnectionByOid(run.database, InvalidOid, 0);
	worker_reset_settings();
	sa_expire_begin(run.positions);

	PG_TRY();
	{
		outcome = worker_housekeep(&run);
	}
	PG_CATCH();
	{
		worker_report(&run, OUTCOME_FAILED, geterrcode());
		PG_RE_THROW();
	}
	PG_END_TRY();

	outcome = worker_outcome(&run, outcome, &sqlstate);
	worker_report(&run, outcome, sqlstate);
	/* the postmaster logs it */
	proc_exit(any_failed ? 1 : 0);
}
