/*
 * lock.c
 *	  Locks that are taken without waiting, and waiting with nothing locked.
 *
 * README.md says how, and ending/README.md in which order and why.
 */
#include "base/base.h"

#include "access/heapam.h"
#include "access/multixact.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Until when a call that begins now may wait for others; 0: not at all. */
TimestampTz
sa_wait_until(void)
{
	PreventCommandDuringRecovery("an invalidation");
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return 0;
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), sa_lock_wait);
}

/* The transaction that has this version of a row locked; invalid if it is not known. */
static TransactionId
lock_holder_of(Relation rel, ItemPointer tid)
{
	HeapTupleData tuple;
	Buffer		buffer;
	TransactionId xmax;
	uint16		infomask;
	MultiXactMember *members;
	int			n;
	TransactionId holder = InvalidTransactionId;

	if (rel->rd_tableam != GetHeapamTableAmRoutine())
		return InvalidTransactionId;
	tuple.t_self = *tid;
	if (!heap_fetch(rel, SnapshotAny, &tuple, &buffer, false))
		return InvalidTransactionId;
	/* one without the other may be taken for a multixact that there never was */
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	xmax = HeapTupleHeaderGetRawXmax(tuple.t_data);
	infomask = tuple.t_data->t_infomask;
	UnlockReleaseBuffer(buffer);

	if (infomask & HEAP_XMAX_INVALID)
		return InvalidTransactionId;
	if (!(infomask & HEAP_XMAX_IS_MULTI))
		return TransactionIdIsInProgress(xmax) ? xmax : InvalidTransactionId;

	n = GetMultiXactIdMembers(xmax, &members, false, HEAP_XMAX_IS_LOCKED_ONLY(infomask));
	for (int i = 0; i < n && !TransactionIdIsValid(holder); i++)
	{
		if (!TransactionIdIsCurrentTransactionId(members[i].xid) &&
			TransactionIdIsInProgress(members[i].xid))
			holder = members[i].xid;
	}
	if (n > 0)
		pfree(members);
	return holder;
}

/*
 * Lock the newest version of a row, of which a version was found at *tid, without waiting.
 * If that succeeds, the slot has the newest version, and *tid is its place.
 */
SaRowLock
sa_lock_row(Relation rel, ItemPointer tid, LockTupleMode mode, TupleTableSlot *slot, SaBusy *busy)
{
	TM_FailureData failure = {0};
	TM_Result	result;

	result = table_tuple_lock(rel, tid, GetLatestSnapshot(), slot, GetCurrentCommandId(false), mode,
							  LockWaitSkip, TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
	switch (result)
	{
		case TM_Ok:
			*tid = slot->tts_tid;
			return failure.traversed ? SA_ROW_CHANGED : SA_ROW_LOCKED;
		case TM_WouldBlock:
			if (!busy->any)
			{
				busy->any = true;
				busy->holder = lock_holder_of(rel, tid);
			}
			return SA_ROW_BUSY;
		default:
			return SA_ROW_GONE;
	}
}

/*
 * Lock rows of one of our tables, in the order of a statement that gives their places, and
 * without waiting. The second column of the statement, of this type, is added to "locked"
 * or, for rows that another transaction has locked, to "left". The caller is connected to
 * SPI.
 *
 * Parameters: five say what to lock, three are the result.
 */
void
sa_lock_found(SaRelation table, LockTupleMode mode, SaStatement *which, SaArgs *args, Oid type,
			  ArrayBuildState **locked, ArrayBuildState **left, SaBusy *busy)
{
	uint64		n = sa_run(which, args);
	SPITupleTable *found = SPI_tuptable;
	Relation	rel;
	TupleTableSlot *slot;

	if (n == 0)
		return;
	rel = table_open(sa_relation(table), RowExclusiveLock);
	slot = table_slot_create(rel, NULL);
	for (uint64 i = 0; i < n && !SA_STOPS(busy); i++)
	{
		bool		isnull;
		ItemPointerData tid = *(ItemPointer) DatumGetPointer(SPI_getbinval(found->vals[i],
																		   found->tupdesc, 1, &isnull));
		Datum		value = SPI_getbinval(found->vals[i], found->tupdesc, 2, &isnull);
		SaRowLock	state;

		CHECK_FOR_INTERRUPTS();
		state = sa_lock_row(rel, &tid, mode, slot, busy);
		if (state == SA_ROW_BUSY)
			*left = accumArrayResult(*left, value, isnull, type, CurrentMemoryContext);
		else if (state != SA_ROW_GONE && locked != NULL)
			*locked = accumArrayResult(*locked, value, isnull, type, CurrentMemoryContext);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/* Lock a table without waiting. */
bool
sa_lock_table(Oid relid, LOCKMODE mode, SaBusy *busy)
{
	if (ConditionalLockRelationOid(relid, mode))
		return true;
	if (!busy->any)
	{
		busy->any = true;
		busy->relid = relid;
		busy->mode = mode;
	}
	return false;
}

/* The transactions that write this table now. */
VirtualTransactionId *
sa_writers_of(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	/* all writers conflict with this mode, and no reader does */
	return GetLockConflicts(&tag, ShareLock, NULL);
}

/*
 * Does another transaction write one of our tables, so that there may be rows that are not
 * visible yet?
 */
bool
sa_others_write(SaRelation table, SaBusy *busy)
{
	VirtualTransactionId writer = sa_writers_of(sa_relation(table))[0];

	if (!VirtualTransactionIdIsValid(writer))
		return false;
	if (!busy->any)
	{
		busy->any = true;
		busy->writer = writer;
	}
	return true;
}

static void
lock_wait_for_holder(SaBusy *busy, pg_attribute_unused() void *argument)
{
	if (TransactionIdIsValid(busy->holder))
		XactLockTableWait(busy->holder, NULL, NULL, XLTW_None);
	else if (VirtualTransactionIdIsValid(busy->writer))
		VirtualXactLock(busy->writer, true);
	else if (OidIsValid(busy->relid))
		LockRelationOid(busy->relid, busy->mode);
	else
		pg_usleep(1000);		/* it was let go meanwhile, or will be at once */
}

/*
 * Run a step that waits, but not beyond this time (0: hardly), and undo all that it did.
 * The subtransaction is opened as sa_attempt() opens its own, which keeps what was done.
 */
static bool
lock_wait_in_step(TimestampTz until, void (*step) (SaBusy *, void *), SaBusy *busy, void *argument)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	CHECK_FOR_INTERRUPTS();
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (LockTimeout == 0 || left < LockTimeout)
			(void) set_config_option("lock_timeout", psprintf("%ld", Max(left, 1)), PGC_USERSET,
									 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		step(busy, argument);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
		ReThrowError(error);
	return error == NULL;
}

/*
 * Wait for the lock that is busy without taking it; false if it was not released in time.
 */
bool
sa_wait_for(SaBusy *busy, TimestampTz until)
{
	return GetCurrentTimestamp() < until && lock_wait_in_step(until, lock_wait_for_holder, busy, NULL);
}

/*
 * Run a step that may have to wait, and undo all that it did; false if it waited too long.
 */
bool
sa_wait_with(TimestampTz until, void (*step) (SaBusy *, void *), void *argument)
{
	SaBusy		busy = {0};

	return lock_wait_in_step(until, step, &busy, argument);
}

/*
 * Take the locks of a call by "step". It waits for none of them, reports in *busy the
 * first one that is not to be had, and goes on without it. While there is such a lock and
 * there is time to wait (see sa_wait_until), all are given back and tried again. The last
 * try keeps what it has. Whether the subtransaction is kept depends on what the step has
 * found, so that sa_attempt() does not do.
 */
void
sa_lock_all(TimestampTz until, void (*step) (SaBusy *, void *), void *argument)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	while (until != 0)
	{
		SaBusy	   *busy = palloc0(sizeof(SaBusy));
		ErrorData  *volatile error = NULL;
		bool		waits = false;

		/*
		 * of two calls that meet, only one goes on: the other holds nothing
		 * that the first one wants
		 */
		busy->stops = GetCurrentTimestamp() < until;
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(context);
		PG_TRY();
		{
			step(busy, argument);
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(context);
			error = CopyErrorData();
			FlushErrorState();
		}
		PG_END_TRY();
		waits = !error && SA_STOPS(busy);
		if (error || waits)
			RollbackAndReleaseCurrentSubTransaction();
		else
			ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		if (!error && !waits)
			return;
		/* the last try tells what is wrong with one product from the others */
		if (error || !sa_wait_for(busy, until))
			until = 0;
	}

	{
		SaBusy		busy = {0};

		step(&busy, argument);
	}
}
