/*
 * lock.c
 *	  Locks the tables of a product without keeping the product waiting.
 */
#include "attach/match.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#define LOCK_TIMEOUT	"300ms"
#define DEADLOCK_TIMEOUT "100ms"
#define LOCK_PAUSE		700		/* milliseconds */

typedef struct RelationsLock
{
	List	   *relids;
	LOCKMODE	mode;
	Oid			waits_for;		/* one of them, which was not to be had */
	bool		waited;			/* for it, in vain */
} RelationsLock;

static void
lock_relations(void *argument)
{
	RelationsLock *locking = argument;
	ListCell   *cell;

	if (OidIsValid(locking->waits_for))
	{
		int			nestlevel = NewGUCNestLevel();

		locking->waited = true;
		(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		(void) set_config_option("deadlock_timeout", DEADLOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		LockRelationOid(locking->waits_for, locking->mode);
		AtEOXact_GUC(false, nestlevel);
		locking->waited = false;
	}
	foreach(cell, locking->relids)
	{
		if (ConditionalLockRelationOid(lfirst_oid(cell), locking->mode))
			continue;
		locking->waits_for = lfirst_oid(cell);
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not obtain lock on relation %u", locking->waits_for)));
	}
}

/*
 * Lock all these tables without keeping others waiting.  A session that waits for a lock
 * also blocks every session that queues behind it, for as long as the oldest transaction
 * goes on.  So each wait is short and is repeated, and none of the other tables is held
 * meanwhile.  If the holder waits for us, each wait detects the deadlock, and we give up,
 * not the product.
 */
void
sa_attach_lock(List *relids, LOCKMODE mode)
{
	RelationsLock locking = {.relids = relids, .mode = mode};
	ErrorData  *error;

	while ((error = sa_attempt(lock_relations, &locking)) != NULL)
	{
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		CHECK_FOR_INTERRUPTS();
		if (locking.waited)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 LOCK_PAUSE, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
		locking.waited = false;
		FreeErrorData(error);
	}
}
