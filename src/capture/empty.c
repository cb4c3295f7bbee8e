/*
 * empty.c
 *	  Deletes all rows of a product's table of sessions or tokens.
 */
#include "capture/deletion.h"
#include "capture/row.h"

#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* Rows of one table that are noted one by one when everything is deleted. */
#define LEFT_MAX			10000

/* Delete the rows that are locked so far. */
static void
empty_so_far(SaDeletion *deletion, const SaEnding *ending, SaEnded *ended)
{
	sa_deletion_run(deletion, ending, ended);
	deletion->rows.n = 0;
}

/* Delete all rows of a table, or those of transactions before one. */
static void
empty_table(SaDeletion *deletion, const SaEnding *ending, SaEnded *ended, Relation relation)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	TupleTableSlot *found = table_slot_create(relation, NULL);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);
	SaBusy		busy = {0};
	bool		over = false;

	while (table_scan_getnextslot(scan, ForwardScanDirection, found))
	{
		ItemPointerData tid = found->tts_tid;
		uint8		hash[SA_HASH_LEN];
		bool		has_hash;
		bool		excluded;
		SaRowLock	state;
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (!sa_deletion_concerns(deletion, found))
			continue;
		state = sa_lock_row(relation, &tid, LockTupleExclusive, slot, &busy);
		if (state == SA_ROW_GONE)
			continue;
		old = MemoryContextSwitchTo(scratch);
		excluded = sa_row_is_excluded(deletion->watch, state == SA_ROW_BUSY ? found : slot) ||
			(state != SA_ROW_BUSY && !sa_row_holds_secret(deletion->watch, slot));
		has_hash = sa_row_hash(deletion->watch, state == SA_ROW_BUSY ? found : slot, hash);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (!excluded)
			sa_places_add(state == SA_ROW_BUSY ? &deletion->left : &deletion->rows, &tid,
						  has_hash ? hash : NULL, true);
		if (deletion->rows.n >= SA_DELETION_ROWS)
			empty_so_far(deletion, ending, ended);
		/* as many as that are tried again from the beginning */
		over = deletion->left.n >= LEFT_MAX || sa_deletion_is_over(deletion);
		if (over)
			break;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(found);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(scratch);
	empty_so_far(deletion, ending, ended);
	if (over || deletion->left.n >= LEFT_MAX)
	{
		deletion->left.n = 0;
		deletion->unsearched = true;
	}
}

typedef struct EmptyStep
{
	SaDeletion *deletion;
	const SaEnding *ending;
	SaEnded    *ended;
} EmptyStep;

static void
empty_step(void *argument)
{
	EmptyStep  *step = argument;
	SaDeletion *deletion = step->deletion;
	Relation	relation;

	deletion->watch = sa_deletion_open(deletion, &relation);
	if (deletion->watch == NULL)
		return;
	empty_table(deletion, step->ending, step->ended, relation);
	table_close(relation, NoLock);
}

/* Does anybody else write the table now, so that there may be rows that nobody sees? */
static bool
empty_has_writers(Oid relid)
{
	return VirtualTransactionIdIsValid(sa_writers_of(relid)[0]);
}

/* Empty one table, as far as that can be done without waiting. */
void
sa_deletion_empty(SaDeletion *deletion, const SaEnding *ending, SaEnded *ended)
{
	EmptyStep	step = {deletion, ending, ended};
	int64		tokens_revoked = ended->tokens_revoked;
	SaBusy		busy = {0};
	ErrorData  *error;

	deletion->everything = true;
	deletion->unsearched = !sa_lock_table(deletion->relid, RowExclusiveLock, &busy);
	if (deletion->unsearched)
		return;
	/* sessions that nobody sees end with their generation */
	deletion->invisible = deletion->part == SA_PART_REMEMBER_ME && empty_has_writers(deletion->relid);
	error = sa_deletion_attempt(empty_step, &step);
	if (error == NULL)
		return;
	sa_deletion_failed(deletion, error, false);
	ended->tokens_revoked = tokens_revoked;
	deletion->left.n = 0;
	deletion->unsearched = true;
}
