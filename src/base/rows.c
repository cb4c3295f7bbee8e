/*
 * rows.c
 *	  Reads a transition table of a trigger.
 *
 * Several readers may read the same table: each has a read pointer of its own.
 */
#include "base/base.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

/* Begin with the first row of a table that has the columns of this relation. */
void
sa_rows_begin(SaRowReader *reader, Relation rel, Tuplestorestate *rows)
{
	reader->rows = rows;
	reader->pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(rows, reader->pointer);
	tuplestore_rescan(rows);
	reader->slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsMinimalTuple);
}

/* Go to the next row, which is in reader->slot then; false at the end. */
bool
sa_rows_next(SaRowReader *reader)
{
	CHECK_FOR_INTERRUPTS();
	tuplestore_select_read_pointer(reader->rows, reader->pointer);
	return tuplestore_gettupleslot(reader->rows, true, false, reader->slot);
}

/* Leave the table as it was found. */
void
sa_rows_end(SaRowReader *reader)
{
	tuplestore_select_read_pointer(reader->rows, 0);
	ExecDropSingleTupleTableSlot(reader->slot);
}
