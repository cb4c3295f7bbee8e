/*
 * status.c
 *	  worker_status(): what the worker has done in this database, for view health.
 */
#include "housekeeping/housekeeping.h"
#include "housekeeping/roster.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_worker_status);

/* How health calls what came of a run. */
static const char *const outcome_names[] = {
	"failed", "not used", "idle", "idle", "locked out", "other version", "failed",
	"locked out", "failed"
};

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
overdue(const SaDatabase *database, const SaWorkerRun *run, int64 now)
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
	SaWorkerRun *run;
	SaWorkerRun under_way;
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
	if (sa_roster == NULL)
	{
		values[STATE] = CStringGetTextDatum("not preloaded");
		PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
	}

	SpinLockAcquire(&sa_roster->mutex);
	launcher_pid = sa_roster->launcher_pid;
	no_process = sa_roster->no_process;
	no_room = sa_roster->no_room;
	run = sa_roster_run(MyDatabaseId);
	if (run != NULL)
	{
		worker_pid = run->pid;
		under_way = *run;
	}
	entry = sa_roster_find(MyDatabaseId, false);
	if (entry != NULL)
		here = *entry;
	SpinLockRelease(&sa_roster->mutex);

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
