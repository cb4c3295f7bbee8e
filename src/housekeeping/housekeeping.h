/*
 * housekeeping.h
 *	  The list of tasks, the launcher and its workers.
 */
#ifndef SA_HOUSEKEEPING_H
#define SA_HOUSEKEEPING_H

#include "base/base.h"

/* maintain.c: housekeeping */
#define SA_TASKS_MAX		24

typedef struct SaTask
{
	const char *name;
	int64		(*run) (bool *more);	/* one batch; returns rows or
										 * partitions */
	bool		takes_strong_locks;
	int			every;			/* seconds between two runs by the worker; 0:
								 * flush_interval */
	bool		when_unused;	/* also before the first use */
	int64		(*rest) (void); /* microseconds to the next run, at the most;
								 * NULL: as above */
	bool		keeps_locks;	/* that others wait for, until the transaction
								 * ends */
} SaTask;

extern const SaTask *sa_tasks(int *n);
extern bool sa_task_run(const SaTask *task, int64 *rows);
extern int64 sa_forget_stale_entries(bool *more);

/* worker.c: the background worker */
extern void sa_worker_init(void);
extern void sa_worker_note_database(void);
extern void sa_worker_wake(void);

#endif							/* SA_HOUSEKEEPING_H */
