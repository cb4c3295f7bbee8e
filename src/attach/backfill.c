/*
 * backfill.c
 *	  The sessions that were in a product's own table before it was attached.
 *
 * They are read in batches, each in a transaction of its own, in the order of their place
 * in the table.  README.md says why no row is missed.
 */
#include "attach/attach.h"
#include "capture/capture.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(sa_backfill_batch);

/* How far the backfill of one table has come. */
typedef struct Backfill
{
	const char *product;
	Oid			relid;
	ItemPointerData next;
} Backfill;

/*
 * Find, and lock, the next table of sessions that has rows left to be read.  A table
 * that was rewritten since is read anew.
 */
static bool
backfill_find_table(const char *application, Backfill *backfill)
{
	static SaStatement start = {.sql =
		"INSERT INTO session_admin_internal.backfill (application, product, part, file)"
		" SELECT DISTINCT a.application, a.product, a.part, pg_relation_filenode(a.relation)"
		" FROM session_admin_internal.attachment a"
		" JOIN session_admin_internal.attachment_column c USING (application, product, part)"
		" JOIN pg_class r ON r.oid = a.relation"
		" WHERE a.application = $1 AND a.part = 'session' AND c.role IN ('user_name', 'user_key')"
		" ON CONFLICT (application, product, part) DO NOTHING"
	};
	static SaStatement find_next = {.sql =
		"SELECT b.product::text, a.relation::oid,"
		"  CASE WHEN b.file = pg_relation_filenode(a.relation) THEN b.next_row ELSE '(0,1)' END"
		" FROM session_admin_internal.backfill b"
		" JOIN session_admin_internal.attachment a USING (application, product, part)"
		" JOIN pg_class r ON r.oid = a.relation"
		" WHERE b.application = $1 AND b.finished_at IS NULL"
		" ORDER BY b.product LIMIT 1 FOR UPDATE OF b"
	};
	SaArgs		args = {0};
	bool		isnull;

	sa_arg_text(&args, application);
	sa_run(&start, &args);
	if (sa_run(&find_next, &args) == 0)
		return false;
	backfill->product = sa_result_text(0, 1);
	backfill->relid = DatumGetObjectId(sa_result(0, 2, &isnull));
	backfill->next = *(ItemPointer) DatumGetPointer(sa_result(0, 3, &isnull));
	return true;
}

/* Say that there is no table of sessions at all: the application may be the wrong one. */
static void
backfill_tell_unattached(const char *application)
{
	static SaStatement find_attachment = {.sql =
		"SELECT FROM session_admin_internal.attachment WHERE application = $1 AND part = 'session' LIMIT 1"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	if (sa_run(&find_attachment, &args) == 0)
		ereport(NOTICE,
				(errmsg("no table of sessions is attached to application \"%s\"", application),
				 errhint("See session_admin.verify_attachments() for what is attached to which application.")));
}

static const SaWatch *
backfill_watch(Relation relation, const char *application, const char *product)
{
	ListCell   *cell;

	foreach(cell, sa_watches_of(relation))
	{
		SaWatch    *watch = lfirst(cell);

		if (watch->part == SA_PART_SESSION && strcmp(watch->application, application) == 0 &&
			strcmp(watch->product, product) == 0)
			return watch;
	}
	elog(ERROR, "table \"%s\" is not attached", RelationGetRelationName(relation));
}

/*
 * Read some rows, from backfill->next on, which is moved; returns how many.  *more is
 * set if there are others.
 */
static int64
backfill_read(const SaWatch *watch, Relation relation, Backfill *backfill, int64 batch_size, bool *more)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TupleTableSlot *locked = table_slot_create(relation, NULL);
	ItemPointerData last;
	TableScanDesc scan;
	SaBatch    *batch = sa_batch_begin(watch, SA_BATCH_BACKFILL);
	int64		rows = 0;

	ItemPointerSet(&last, MaxBlockNumber, MaxOffsetNumber);
	scan = table_beginscan_tidrange(relation, snapshot, &backfill->next, &last);
	*more = false;
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		TM_FailureData failure;
		TM_Result	result;

		CHECK_FOR_INTERRUPTS();
		backfill->next = slot->tts_tid;
		*more = rows == batch_size;
		if (*more)
			break;
		result = table_tuple_lock(relation, &slot->tts_tid, snapshot, locked,
								  GetCurrentCommandId(false), LockTupleKeyShare,
								  rows == 0 ? LockWaitBlock : LockWaitSkip, 0, &failure);
		*more = result == TM_WouldBlock;
		if (*more)
			break;
		if (result == TM_Ok)
			sa_row_inserted(batch, locked);
		rows++;
	}
	if (rows > 0)
		sa_apply(batch);
	sa_batch_end(batch);

	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(locked);
	UnregisterSnapshot(snapshot);
	return rows;
}

/* Note how far it has come. */
static void
backfill_note(const char *application, Backfill *backfill, Relation relation, int64 rows, bool more)
{
	static SaStatement update_backfill = {.sql =
		"UPDATE session_admin_internal.backfill SET next_row = $3, rows_read = rows_read + $4,"
		"  file = pg_relation_filenode($5), blocks = $6, last_at = clock_timestamp(),"
		"  finished_at = CASE WHEN NOT $7 THEN clock_timestamp() END"
		" WHERE application = $1 AND product = $2"
		" RETURNING rows_read"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, backfill->product);
	sa_arg(&args, TIDOID, PointerGetDatum(&backfill->next), false);
	sa_arg(&args, INT8OID, Int64GetDatum(rows), false);
	sa_arg(&args, REGCLASSOID, ObjectIdGetDatum(backfill->relid), false);
	sa_arg(&args, INT8OID, Int64GetDatum(RelationGetNumberOfBlocks(relation)), false);
	sa_arg(&args, BOOLOID, BoolGetDatum(more), false);
	sa_run(&update_backfill, &args);
	ereport(NOTICE,
			(errmsg("sessions of \"%s\": " INT64_FORMAT " rows so far",
					RelationGetRelationName(relation), sa_result_int64(0, 1))));
}

/* backfill_batch(batch_size, application): true if there was something to do */
Datum
sa_backfill_batch(PG_FUNCTION_ARGS)
{
	int32		batch_size = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);
	char	   *application = sa_application_arg(fcinfo, 1);
	Backfill	backfill;
	bool		found;

	if (batch_size < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch_size must be positive")));

	SPI_connect();
	found = backfill_find_table(application, &backfill);
	if (!found)
		backfill_tell_unattached(application);
	else
	{
		Relation	relation = table_open(backfill.relid, RowShareLock);
		const SaWatch *watch = backfill_watch(relation, application, backfill.product);
		bool		more;
		int64		rows = backfill_read(watch, relation, &backfill, batch_size, &more);

		backfill_note(application, &backfill, relation, rows, more);
		table_close(relation, NoLock);
	}
	SPI_finish();
	PG_RETURN_BOOL(found);
}
