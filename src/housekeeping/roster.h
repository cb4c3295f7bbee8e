/*
 * roster.h
 *	  What the background worker and its launcher share.
 */
#ifndef SA_ROSTER_H
#define SA_ROSTER_H

#include "housekeeping/task.h"

#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/spin.h"

#define DATABASES_MAX	64
#define WORKERS_MAX		3		/* at a time, each in a database of its own */
#define SECONDS(n)		((int64) (n) * USECS_PER_SEC)

/* What came of a run. */
typedef enum SaOutcome
{
	OUTCOME_NONE,				/* it ended before it could say */
	OUTCOME_NOT_USED,
	OUTCOME_DONE,
	OUTCOME_UNFINISHED,
	OUTCOME_LOCKED_OUT,
	OUTCOME_OTHER_VERSION,
	OUTCOME_FAILED,
	/* of some tasks, or of a batch; the others were done */
	OUTCOME_TASKS_LOCKED_OUT,
	OUTCOME_TASKS_FAILED
} SaOutcome;

/* A task that fails, or does not get its locks. */
typedef struct SaTrouble
{
	int			failures;		/* since it last did not */
	int			sqlstate;		/* of the last */
} SaTrouble;

/*
 * Times are those of sa_monotonic_now(), except for three that are shown to users: the
 * clock may be set meanwhile.
 */
#define NEVER			PG_INT64_MAX

typedef struct SaWorkerRun
{
	Oid			database;		/* InvalidOid: of none */
	pid_t		pid;			/* 0: has not begun */
	SaOutcome	outcome;
	int			sqlstate;		/* if it failed */
	uint32		notes;			/* of the database when it began */
	uint32		wakes;			/* likewise */
	TimestampTz started_at;		/* shown; 0: never */
	TimestampTz ended_at;		/* shown */
	int64		moved;			/* when it began, or its last batch did */
	int64		ended;
	int64		due[SA_TASKS_MAX];
	int64		done[SA_TASKS_MAX];
	SaTrouble	troubles[SA_TASKS_MAX];
	BlockNumber positions[SA_EXPIRE_TABLES];	/* where archiving goes on */
} SaWorkerRun;

/* A database that uses the extension. */
typedef struct SaDatabase
{
	uint32		notes;			/* how often a backend said so */
	uint32		wakes;			/* how often there was something to do soon */
	int64		not_before;		/* no run until then */
	int64		nothing_until;	/* no look for touches to flush until then */
	int			failures;		/* runs that came to nothing since the last
								 * success */
	TimestampTz succeeded_at;	/* shown; 0: never */
	int64		succeeded;
	int64		flushed;		/* or there was nothing to flush */
	SaWorkerRun last;			/* and what is due next */
} SaDatabase;

typedef struct SaRoster
{
	slock_t		mutex;
	pid_t		launcher_pid;	/* 0: none */
	Latch	   *launcher_latch;
	bool		no_process;		/* max_worker_processes are in use */
	bool		no_room;		/* more databases than DATABASES_MAX */
	SaWorkerRun runs[WORKERS_MAX];	/* that are under way */
	int			n_databases;
	SaDatabase	databases[DATABASES_MAX];
} SaRoster;

extern SaRoster *sa_roster;		/* NULL if not preloaded */

extern SaDatabase *sa_roster_find(Oid database, bool add);
extern SaWorkerRun *sa_roster_run(Oid database);
extern void sa_roster_forget(SaDatabase *database);
extern void sa_roster_make_due(SaWorkerRun *run);
extern void sa_roster_init(void);

/* worker.c */
extern int64 sa_worker_back_off(int64 now, int failures, bool is_error);

#endif							/* SA_ROSTER_H */
