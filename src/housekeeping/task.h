/*
 * task.h
 *	  A task of housekeeping, and the list of them.
 */
#ifndef SA_TASK_H
#define SA_TASK_H

#include "housekeeping/housekeeping.h"

#include "storage/block.h"

#define SA_TASK_BATCH		1000	/* rows */

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
extern void sa_maintain_init(void);
extern bool sa_task_run(const SaTask *task, int64 *rows);

/* A full batch: there may be more to do. */
static inline int64
sa_task_batch_done(int64 rows, bool *more)
{
	if (rows >= SA_TASK_BATCH)
		*more = true;
	return rows;
}

/* expire.c: archives what has ended by time */
#define SA_EXPIRE_TABLES	2	/* whose rows end by time */

extern void sa_expire_begin(const BlockNumber *positions);
extern void sa_expire_end(BlockNumber *positions);
extern int64 sa_expire_sessions(bool *more);
extern int64 sa_expire_tokens(bool *more);
extern int64 sa_expire_note_seen(bool *more);

/* history.c: partitions and retention */
extern int64 sa_history_forget(bool *more);
extern int64 sa_history_make_partitions(bool *more);
extern int64 sa_history_drop_partitions(bool *more);

#endif							/* SA_TASK_H */
