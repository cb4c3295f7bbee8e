/*
 * status.c
 *	  worker_status(): what the worker has done in this database, for view health.
 */
#include "housekeeping/roster.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_worker_status);

/* The columns of worker_status(). */
enum
{
	STATUS_STATE, STATUS_LAUNCHER_PID, STATUS_WORKER_PID, STATUS_STARTED_AT, STATUS_ENDED_AT,
	STATUS_SUCCEEDED_AT, STATUS_FAILURES, STATUS_SQLSTATE, STATUS_DONE, STATUS_FAILING,
	STATUS_SINCE_SUCCESS, STATUS_SINCE_FLUSH, STATUS_OVERDUE, STATUS_COLUMNS
};

/* A copy of what the roster says of this database. */
typedef struct Status
{
	pid_t		launcher_pid;
	bool		no_process;
	bool		no_room;
	bool		is_running;
	SaWorkerRun run;			/* if it is */
	bool		is_known;
	SaDatabase	here;			/* else all zero */
} Status;

/* How health calls what came of a run. */
static const char *const outcome_names[] = {
	"failed", "not used", "idle", "idle", "locked out", "other version", "failed",
	"locked out", "failed"
};

/* What of it was done, in words. */
static char *
status_done_text(const int64 *done)
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
status_trouble_text(const SaTrouble *troubles)
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
 * For how long something has been overdue: a batch that has begun and not ended, or a task
 * that is due and has not begun. Flushing has a column of its own.
 */
static int64
status_overdue(const SaDatabase *database, const SaWorkerRun *run, int64 now)
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
status_interval(int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	return IntervalPGetDatum(interval);
}

static void
status_copy(Status *status)
{
	const SaWorkerRun *run;
	const SaDatabase *entry;

	memset(status, 0, sizeof(*status));
	SpinLockAcquire(&sa_roster->mutex);
	status->launcher_pid = sa_roster->launcher_pid;
	status->no_process = sa_roster->no_process;
	status->no_room = sa_roster->no_room;
	run = sa_roster_run(MyDatabaseId);
	status->is_running = run != NULL;
	if (run != NULL)
		status->run = *run;
	entry = sa_roster_find(MyDatabaseId, false);
	status->is_known = entry != NULL;
	if (entry != NULL)
		status->here = *entry;
	SpinLockRelease(&sa_roster->mutex);
}

/* What the worker does, in words. */
static const char *
status_state(const Status *status)
{
	if (!sa_worker_enabled)
		return "off";
	if (status->launcher_pid == 0)
		return RecoveryInProgress() ? "standby" : "no launcher";
	if (status->run.pid != 0)
		return "running";
	if (status->no_process)
		return "no process";
	if (status->here.last.ended_at == 0)
		return !status->is_known && status->no_room ? "no room" : "not begun";
	return outcome_names[status->here.last.outcome];
}

static void
status_put(Datum *values, bool *nulls, int column, Datum value, bool isnull)
{
	values[column] = value;
	nulls[column] = isnull;
}

/* What came of the last run that has ended. */
static void
status_put_last(const SaDatabase *here, int64 now, Datum *values, bool *nulls)
{
	char	   *failing = status_trouble_text(here->last.troubles);

	status_put(values, nulls, STATUS_STARTED_AT, TimestampTzGetDatum(here->last.started_at), false);
	status_put(values, nulls, STATUS_ENDED_AT, TimestampTzGetDatum(here->last.ended_at), false);
	status_put(values, nulls, STATUS_SUCCEEDED_AT, TimestampTzGetDatum(here->succeeded_at),
			   here->succeeded_at == 0);
	status_put(values, nulls, STATUS_FAILURES, Int32GetDatum(here->failures), false);
	status_put(values, nulls, STATUS_SQLSTATE,
			   CStringGetTextDatum(unpack_sql_state(here->last.sqlstate)),
			   here->last.sqlstate == 0);
	status_put(values, nulls, STATUS_DONE,
			   CStringGetTextDatum(status_done_text(here->last.done)), false);
	status_put(values, nulls, STATUS_FAILING,
			   failing ? CStringGetTextDatum(failing) : (Datum) 0, failing == NULL);
	status_put(values, nulls, STATUS_SINCE_SUCCESS, status_interval(now - here->succeeded),
			   here->succeeded == 0);
	status_put(values, nulls, STATUS_SINCE_FLUSH, status_interval(now - here->flushed),
			   here->flushed == 0);
}

/*
 * worker_status() returns one row (state, launcher_pid, worker_pid, started_at,
 * ended_at, succeeded_at, failures, sqlstate, done, failing, since_success,
 * since_flush, overdue): of this database.
 */
Datum
sa_worker_status(PG_FUNCTION_ARGS)
{
	Datum		values[STATUS_COLUMNS] = {0};
	bool		nulls[STATUS_COLUMNS];
	TupleDesc	desc;
	Status		status;
	int64		now = sa_monotonic_now();
	const char *state = "not preloaded";

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(nulls, true, sizeof(nulls));
	if (sa_roster != NULL)
	{
		status_copy(&status);
		state = status_state(&status);
		status_put(values, nulls, STATUS_LAUNCHER_PID, Int32GetDatum(status.launcher_pid),
				   status.launcher_pid == 0);
		status_put(values, nulls, STATUS_WORKER_PID, Int32GetDatum(status.run.pid),
				   strcmp(state, "running") != 0);
		if (status.here.last.ended_at != 0)
			status_put_last(&status.here, now, values, nulls);
		if (status.is_running || status.here.last.ended_at != 0)
			status_put(values, nulls, STATUS_OVERDUE,
					   status_interval(status_overdue(&status.here,
													  status.is_running ? &status.run : NULL,
													  now)), false);
	}
	status_put(values, nulls, STATUS_STATE, CStringGetTextDatum(state), false);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
