/*
 * reconcile_row.c
 *	  Rows of products whose sessions are not here, or are others.
 *
 * What a batch finds doubtful is looked at once more: the row is locked in the way in which
 * a foreign key locks, and left alone if it has changed since, as then its trigger has
 * fired.
 */
#include "attach/reconcile.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Sessions that the product has let expire. */
static void
reconcile_end_expired(Pair *pair, SaBatch *reader)
{
	static SaStatement find_live = {.sql =
		"SELECT array_agg(session_hash) FROM session_admin_internal.session_state"
		" WHERE session_hash = ANY ($1) AND application = $2 AND ended_at IS NULL"
	};
	ArrayType  *expired = sa_batch_expired(reader);
	ArrayType  *hashes;
	SaArgs		args = {0};

	if (expired == NULL)
		return;
	sa_arg_array(&args, BYTEAARRAYOID, expired);
	sa_arg_text(&args, pair->application);
	sa_run(&find_live, &args);
	hashes = sa_result_array(0, 1);
	if (hashes != NULL)
		sa_reconcile_end(pair, NULL, hashes, "idle_timeout");
}

/* Rows that were read together, with their places. */
typedef struct ReconcileRows
{
	SaBatch    *reader;
	ItemPointerData places[RECONCILE_BATCH];
	int			n;
} ReconcileRows;

/*
 * Lock a row that no other transaction has locked or is changing: such a one has its
 * session locked, too, which we would wait for.
 */
static bool
reconcile_lock_row(Relation relation, ItemPointer place, Snapshot snapshot, TupleTableSlot *slot)
{
	TM_FailureData failure;
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	return table_tuple_lock(relation, place, snapshot, slot, GetCurrentCommandId(false),
							LockTupleKeyShare, LockWaitSkip, 0, &failure) == TM_Ok &&
		table_tuple_satisfies_snapshot(relation, slot, &dirty) &&
		!TransactionIdIsValid(dirty.xmax);
}

/* Compare what was read, and apply what differs. */
static void
reconcile_compare(Pair *pair, const SaWatch *watch, Relation relation, Snapshot snapshot, ReconcileRows *rows)
{
	TupleTableSlot *slot;
	SaBatch    *writer;
	bool	   *doubtful;
	int64		taken;
	int64		deleted;
	int			n = 0;

	/* what it takes is given back: there may be millions of rows */
	SPI_connect();
	reconcile_end_expired(pair, rows->reader);
	doubtful = rows->n > 0 ? sa_batch_compare(rows->reader, pair->takes_new) : NULL;
	sa_batch_wipe(rows->reader);
	if (doubtful == NULL)
	{
		SPI_finish();
		return;
	}

	slot = table_slot_create(relation, NULL);
	writer = sa_batch_begin(watch, SA_BATCH_DIFFERENCES);
	for (int i = 0; i < rows->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (doubtful[i] && reconcile_lock_row(relation, &rows->places[i], snapshot, slot))
		{
			sa_row_inserted(writer, slot);
			n++;
		}
	}
	if (n > 0)
		sa_apply(writer);
	sa_batch_applied(writer, &taken, &deleted);
	pair->taken += taken;
	pair->deleted += deleted;
	sa_batch_end(writer);
	ExecDropSingleTupleTableSlot(slot);
	SPI_finish();
}

static void
reconcile_begin_batch(ReconcileRows *rows, const SaWatch *watch)
{
	rows->reader = sa_batch_begin(watch, SA_BATCH_DIFFERENCES);
	rows->n = 0;
}

static void
reconcile_end_batch(ReconcileRows *rows)
{
	sa_batch_end(rows->reader);
	pfree(rows->reader);
}

/* Compare some rows, from the position on; returns how many. */
int64
sa_reconcile_rows_of(Pair *pair, const SaWatch *watch, Relation relation, Position *position, int64 limit,
					 bool tell)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	ReconcileRows *rows = palloc(sizeof(ReconcileRows));
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);
	ItemPointerData last;
	TableScanDesc scan;
	int64		n = 0;
	int			in_batch = 0;

	ItemPointerSet(&last, MaxBlockNumber, MaxOffsetNumber);
	scan = table_beginscan_tidrange(relation, snapshot, &position->next_row, &last);
	reconcile_begin_batch(rows, watch);
	position->in_sessions = true;
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		int			before = sa_batch_sessions(rows->reader);
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (n == limit)
		{
			position->next_row = slot->tts_tid;
			position->in_sessions = false;
			break;
		}
		old = MemoryContextSwitchTo(scratch);
		sa_row_inserted(rows->reader, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (sa_batch_sessions(rows->reader) > before)
			rows->places[rows->n++] = slot->tts_tid;
		n++;
		if (++in_batch == RECONCILE_BATCH)
		{
			reconcile_compare(pair, watch, relation, snapshot, rows);
			reconcile_end_batch(rows);
			reconcile_begin_batch(rows, watch);
			in_batch = 0;
			if (tell)
				reconcile_tell(pair, "rows", pair->rows_read + n);
		}
	}
	reconcile_compare(pair, watch, relation, snapshot, rows);
	reconcile_end_batch(rows);
	pair->rows_read += n;

	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(scratch);
	pfree(rows);
	return n;
}
