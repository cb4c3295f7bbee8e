/*
 * maintain.c
 *	  The list of tasks, and maintain(), which runs them all in the caller's transaction.
 *
 * The worker runs each batch in a transaction of its own, when it is due.  README.md says
 * who may wait for whom.
 */
#include "housekeeping/task.h"
#include "live/live.h"
#include "ending/ending.h"
#include "session/session.h"
#include "capture/capture.h"
#include "attach/attach.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_maintain);

#define LOCK_TIMEOUT	"200ms"

/* What there is to do, in this order. */
static const SaTask tasks[] = {
	{"product rows deleted", sa_remains_retry, .every = 60, .keeps_locks = true, .rest = sa_remains_rest},
	{"sessions archived", sa_expire_sessions, .every = 60, .keeps_locks = true},
	{"sessions without table ended", sa_reconcile_gone, .every = 60, .keeps_locks = true},
	{"sessions reconciled", sa_reconcile_slice, .every = 300, .keeps_locks = true},

	/*
	 * after archiving, which adds requests that are not flushed: until commit
	 * both places have them
	 */
	{"touches flushed", sa_live_flush, .every = 0, .keeps_locks = true},
	{"probes counted", sa_probes_flush, .every = 0},
	{"tokens archived", sa_expire_tokens, .every = 60, .keeps_locks = true},
	{"ended ids forgotten", sa_ended_ids_purge, .every = 60, .keeps_locks = true},
	{"last seen noted", sa_expire_note_seen, .every = 60, .keeps_locks = true},
	{"late endings forgotten", sa_late_purge, .every = 60, .keeps_locks = true},
	{"history forgotten", sa_history_forget, .every = 60, .keeps_locks = true},
	{"partitions dropped", sa_history_drop_partitions, .takes_strong_locks = true, .every = 60, .keeps_locks = true},
	{"feed purged", sa_feed_purge, .every = 60, .keeps_locks = true},
	{"live entries forgotten", sa_live_forget, .every = 60, .when_unused = true},
	/* last: no login can go on from here to the end of the transaction */
	{"partitions made", sa_history_make_partitions, .takes_strong_locks = true, .every = 60, .when_unused = true, .keeps_locks = true},
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
task_run_without_waiting(void *argument)
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

	error = sa_attempt(task_run_without_waiting, &run);
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
maintain_is_in_block(void)
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
task_warn(const SaTask *task, ErrorData *error)
{
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	/* a lock that another transaction holds is no trouble */
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
task_run_all(const SaTask *task, int64 *done)
{
	TaskRun		run = {.task = task};

	*done = 0;
	do
	{
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		run.more = false;
		error = sa_attempt(task_run_without_waiting, &run);
		if (error != NULL)
		{
			task_warn(task, error);
			return false;
		}
		*done += run.rows;
		if (run.more)
			ereport(NOTICE,
					(errmsg("%s: " INT64_FORMAT " so far", task->name, *done)));
	} while (run.more);
	return true;
}

/* This transaction has called maintain(). */
typedef struct Maintained
{
	char		unused;
} Maintained;

/* The session that commits it would not know of the shared table. */
static const SaAtEndKind maintained_kind = {
	.size = sizeof(Maintained),
	.refuses_prepare = "called session_admin.maintain()",
	.refusal_rank = 1
};

/*
 * maintain() returns setof (task text, done bigint): done is the number of rows
 * or partitions; null if it could not be done.
 */
Datum
sa_maintain(PG_FUNCTION_ARGS)
{
	static SaStatement one_at_a_time = {.sql =
		"LOCK TABLE session_admin_internal.ended_session IN SHARE UPDATE EXCLUSIVE MODE"
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Maintained	maintained = {0};
	bool		in_block = maintain_is_in_block();

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
		sa_run(&one_at_a_time, NULL);
		sa_adopt_all();
		sa_remains_hurry();
	}
	sa_live_flush_begin();
	sa_expire_begin(NULL);
	sa_at_end_add(&maintained_kind, &maintained);
	for (size_t i = 0; i < lengthof(tasks); i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};
		int64		done = 0;

		nulls[1] = (in_block && tasks[i].keeps_locks) || !task_run_all(&tasks[i], &done);
		values[0] = CStringGetTextDatum(tasks[i].name);
		values[1] = Int64GetDatum(done);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	SPI_finish();
	return (Datum) 0;
}

void
sa_maintain_init(void)
{
	sa_at_end_register(&maintained_kind);
}
