/*
 * scan.c
 *	  Our own tables, read by key or whole, without a statement: nothing is parsed or
 *	  planned, which takes longer than to read a few rows.
 *
 * As in spi.c, the latest data is read, whatever the caller's snapshot. A table with no
 * block has no row, so that its index is not even opened.
 */
#include "base/base.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* The column, a text COLLATE "C", is equal to this. */
void
sa_scan_key_text(ScanKey key, AttrNumber column, const char *value)
{
	if (value == NULL)
		ScanKeyEntryInitialize(key, SK_ISNULL | SK_SEARCHNULL, column, InvalidStrategy,
							   InvalidOid, InvalidOid, InvalidOid, (Datum) 0);
	else
		ScanKeyEntryInitialize(key, 0, column, BTEqualStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(value));
}

/* The column, a bytea, is equal to this hash. */
void
sa_scan_key_hash(ScanKey key, AttrNumber column, const uint8 *hash)
{
	ScanKeyInit(key, column, BTEqualStrategyNumber, F_BYTEAEQ,
				PointerGetDatum(sa_bytea(hash, SA_HASH_LEN)));
}

/*
 * Read what the index finds, as the snapshot has it.  The keys are of its columns, and
 * must outlive the scan.
 *
 * Parameters: those of a scan by PostgreSQL.
 */
void
sa_scan_begin_at(SaScan *scan, SaRelation table, SaRelation index, Snapshot snapshot,
				 ScanKey keys, int nkeys)
{
	memset(scan, 0, sizeof(*scan));
	scan->rel = table_open(sa_relation(table), AccessShareLock);
	if (RelationGetNumberOfBlocks(scan->rel) == 0)
		return;
	scan->index = index_open(sa_relation(index), AccessShareLock);

	/* after all locks were taken, which accepts invalidations */
	scan->snapshot = RegisterSnapshot(snapshot != NULL ? snapshot : GetLatestSnapshot());
	scan->slot = table_slot_create(scan->rel, NULL);
	scan->index_scan = sa_index_beginscan(scan->rel, scan->index, scan->snapshot, nkeys);
	index_rescan(scan->index_scan, keys, nkeys, NULL, 0);
}

/* Read what the index finds now. */
void
sa_scan_begin_by(SaScan *scan, SaRelation table, SaRelation index, ScanKey keys, int nkeys)
{
	sa_scan_begin_at(scan, table, index, NULL, keys, nkeys);
}

/* Read all rows of a small table. */
void
sa_scan_begin(SaScan *scan, SaRelation table)
{
	memset(scan, 0, sizeof(*scan));
	scan->rel = table_open(sa_relation(table), AccessShareLock);
	if (RelationGetNumberOfBlocks(scan->rel) == 0)
		return;
	scan->snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan->slot = table_slot_create(scan->rel, NULL);
	scan->table_scan = table_beginscan(scan->rel, scan->snapshot, 0, NULL);
}

/* Go on to the next row; false if there is none. */
bool
sa_scan_next(SaScan *scan)
{
	if (scan->index_scan != NULL)
		return index_getnext_slot(scan->index_scan, ForwardScanDirection, scan->slot);
	return scan->table_scan != NULL &&
		table_scan_getnextslot(scan->table_scan, ForwardScanDirection, scan->slot);
}

/* One field of the row. */
Datum
sa_scan_value(SaScan *scan, AttrNumber column, bool *isnull)
{
	return slot_getattr(scan->slot, column, isnull);
}

/* One field of the row, of type text; null is NULL. */
char *
sa_scan_text(SaScan *scan, AttrNumber column)
{
	bool		isnull;
	Datum		value = sa_scan_value(scan, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

void
sa_scan_end(SaScan *scan)
{
	if (scan->index_scan != NULL)
		index_endscan(scan->index_scan);
	if (scan->table_scan != NULL)
		table_endscan(scan->table_scan);
	if (scan->slot != NULL)
		ExecDropSingleTupleTableSlot(scan->slot);
	if (scan->snapshot != NULL)
		UnregisterSnapshot(scan->snapshot);
	if (scan->index != NULL)
		index_close(scan->index, AccessShareLock);
	table_close(scan->rel, AccessShareLock);
}

/* An array with space for more elements, in the current context. */
void *
sa_grown(void *array, int *space, Size element)
{
	*space = Max(*space * 2, 8);
	return array == NULL ? palloc(*space * element) :
		repalloc_huge(array, *space * element);
}
