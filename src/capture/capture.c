/*
 * capture.c
 *	  Triggers on the products' own tables.
 *
 * A trigger fires once a statement, and reads the rows before and after in transition
 * tables: PostgreSQL adds the old and the new row of an UPDATE to the two together, so that
 * the rows at the same place belong together.  README.md says when this holds, and what
 * happens where changes are applied that come from elsewhere.
 */
#include "capture/capture.h"
#include "capture/batch.h"
#include "capture/deletion.h"
#include "capture/failure.h"
#include "capture/row.h"

#include "access/tableam.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "replication/worker_internal.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(sa_capture);

/* Rows that are applied together */
#define BATCH_ROWS		10000

static void
capture_rows(SaBatch *batch, Relation relation, Tuplestorestate *rows,
			 void (*row) (SaBatch *, TupleTableSlot *))
{
	SaRowReader reader;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);

	sa_rows_begin(&reader, relation, rows);
	while (sa_rows_next(&reader))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);

		row(batch, reader.slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (++batch->rows >= BATCH_ROWS)
			sa_apply(batch);
	}
	sa_rows_end(&reader);
	MemoryContextDelete(scratch);
}

static void
capture_pairs(SaBatch *batch, Relation relation, Tuplestorestate *old_rows,
			  Tuplestorestate *new_rows)
{
	SaRowReader old_reader;
	SaRowReader new_reader;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);

	if (tuplestore_tuple_count(old_rows) != tuplestore_tuple_count(new_rows))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("cannot tell which old row became which new row")));

	sa_rows_begin(&old_reader, relation, old_rows);
	sa_rows_begin(&new_reader, relation, new_rows);
	while (sa_rows_next(&old_reader) && sa_rows_next(&new_reader))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);

		sa_row_updated(batch, old_reader.slot, new_reader.slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (batch->rows >= BATCH_ROWS)
			sa_apply(batch);
	}
	sa_rows_end(&old_reader);
	sa_rows_end(&new_reader);
	MemoryContextDelete(scratch);
}

/* All that one statement tells of one part. */
static void
capture_statement(SaBatch *batch, TriggerData *trigdata)
{
	Relation	relation = trigdata->tg_relation;
	TriggerEvent event = trigdata->tg_event;

	if (TRIGGER_FIRED_BY_TRUNCATE(event))
	{
		sa_apply_truncated(batch);
		sa_batch_end(batch);
		return;
	}

	if (TRIGGER_FIRED_FOR_ROW(event))
	{
		batch->rows = 1;
		if (TRIGGER_FIRED_BY_INSERT(event))
			sa_row_inserted(batch, trigdata->tg_trigslot);
		else if (TRIGGER_FIRED_BY_DELETE(event))
			sa_row_deleted(batch, trigdata->tg_trigslot);
		else
			sa_row_updated(batch, trigdata->tg_trigslot, trigdata->tg_newslot);
		batch->complete = true;
		sa_apply(batch);
		sa_batch_end(batch);
		return;
	}

	if (TRIGGER_FIRED_BY_INSERT(event))
		capture_rows(batch, relation, trigdata->tg_newtable, sa_row_inserted);
	else if (TRIGGER_FIRED_BY_DELETE(event))
		capture_rows(batch, relation, trigdata->tg_oldtable, sa_row_deleted);
	else
		capture_pairs(batch, relation, trigdata->tg_oldtable, trigdata->tg_newtable);

	batch->complete = !batch->flushed;
	if (batch->rows > 0)
		sa_apply(batch);
	sa_batch_end(batch);
}

/* Does a subscription copy a table, of which all rows were there before? */
static bool
capture_is_first_copy(void)
{
	return MyLogicalRepWorker != NULL && OidIsValid(MyLogicalRepWorker->relid);
}

typedef struct Statement
{
	SaBatch    *batch;
	TriggerData *trigdata;
} Statement;

static void
capture_follow(void *argument)
{
	Statement  *statement = argument;

	capture_statement(statement->batch, statement->trigdata);
}

/* Follow one statement for one part. */
static void
capture_guarded(const SaWatch *watch, TriggerData *trigdata)
{
	SaBatch    *batch = sa_batch_begin(watch, capture_is_first_copy() ? SA_BATCH_BACKFILL : SA_BATCH_CHANGES);
	Statement	statement = {batch, trigdata};
	ErrorData  *error;

	batch->insertion = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event);
	batch->ending = sa_deletion_under_way(watch, &batch->ended);

	error = sa_capture_attempt(capture_follow, &statement);
	if (error)
		sa_failure_of_statement(watch, trigdata, error->message, sa_batch_users(batch));
	else if (batch->unclear)
		sa_failure_of_statement(watch, trigdata, watch->broken,
								batch->unclear_whom ? NULL :
								DatumGetArrayTypeP(makeArrayResult(batch->unclear_users,
																   CurrentMemoryContext)));
}

#define UNKNOWN_TABLE "the table is watched, but nothing says as what"

static void
capture_record_unknown(void *argument)
{
	TriggerData *trigdata = argument;
	bool		first;

	SPI_connect();
	first = sa_failure_note_once(NULL, RelationGetRelid(trigdata->tg_relation),
								 sa_failure_event(trigdata->tg_event), UNKNOWN_TABLE);
	SPI_finish();
	if (first)
		ereport(WARNING,
				(errmsg("session_admin could not follow %s of \"%s\": %s", sa_failure_event(trigdata->tg_event),
						RelationGetRelationName(trigdata->tg_relation), UNKNOWN_TABLE),
				 errhint("Call session_admin.attach_application() again.")));
}

/*
 * Our triggers are there, and what they are for has got lost, in a restore for instance:
 * tell, once, as nobody is logged out by what happens here.
 */
static void
capture_unknown(TriggerData *trigdata)
{
	if (!sa_is_told_unknown(trigdata->tg_relation))
		(void) sa_capture_attempt(capture_record_unknown, trigdata);
}

static bool
capture_has_tables(const TriggerData *trigdata)
{
	return (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) || trigdata->tg_oldtable != NULL) &&
		(TRIGGER_FIRED_BY_DELETE(trigdata->tg_event) || trigdata->tg_newtable != NULL);
}

/* Trigger on a product's table, made by attach_application. */
Datum
sa_capture(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	List	   *watches;
	ListCell   *cell;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		(TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event) &&
		 !TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event) && !capture_has_tables(trigdata)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"capture\" must be fired after a statement, with transition tables"),
				 errhint("Triggers that call it are made by session_admin.attach_application.")));

	/* each change is followed once, whichever triggers somebody has enabled */
	if (!TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event) &&
		(TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) != 0) !=
		(SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA))
		PG_RETURN_POINTER(NULL);

	/* most statements of some products touch no row */
	if ((trigdata->tg_newtable && tuplestore_tuple_count(trigdata->tg_newtable) == 0) ||
		(trigdata->tg_oldtable && tuplestore_tuple_count(trigdata->tg_oldtable) == 0))
		PG_RETURN_POINTER(NULL);

	watches = sa_watches_of(trigdata->tg_relation);
	if (watches == NIL)
		capture_unknown(trigdata);
	foreach(cell, watches)
	{
		const SaWatch *watch = lfirst(cell);

		/* whose sessions these are cannot be seen: there is nothing to follow */
		if (watch->part != SA_PART_SESSION || watch->names_user)
			capture_guarded(watch, trigdata);
	}

	PG_RETURN_POINTER(NULL);
}

/*
 * Take all rows that the snapshot sees as known, but those that "done" (if any)
 * saw too: they have not changed since.  Returns the number of rows.
 */
int64
sa_capture_existing(const SaWatch *watch, Relation relation, Snapshot snapshot, Snapshot done)
{
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);
	SaBatch    *batch = sa_batch_begin(watch, SA_BATCH_BACKFILL);
	int64		rows = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (done && table_tuple_satisfies_snapshot(relation, slot, done))
			continue;

		old = MemoryContextSwitchTo(scratch);
		sa_row_inserted(batch, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		rows++;
		if (++batch->rows >= BATCH_ROWS)
			sa_apply(batch);
	}
	if (batch->rows > 0)
		sa_apply(batch);
	sa_batch_end(batch);
	pfree(batch);

	MemoryContextDelete(scratch);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	return rows;
}
