/*
 * dropped.c
 *	  What shared memory knows of a database is forgotten when that is dropped: another one
 *	  may be made with the same number, and with tables of the same numbers, by CREATE
 *	  DATABASE with an OID.
 *
 * The owner of such memory names a kind of item for the end of a transaction.  When DROP
 * DATABASE commits, nobody is connected to that database any more.
 */
#include "base/init.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"

#define KINDS_MAX	4

static const SaAtEndKind *dropped_kinds[KINDS_MAX];
static int	n_dropped_kinds = 0;

static object_access_hook_type prev_object_access_hook = NULL;

/* Add an item of this kind, all zero, to a transaction that drops a database. */
void
sa_at_database_drop(const SaAtEndKind *kind)
{
	if (n_dropped_kinds == KINDS_MAX)
		elog(ERROR, "too many kinds of items for dropped databases");
	dropped_kinds[n_dropped_kinds++] = kind;
}

static void
dropped_object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	static const char nothing[SA_AT_END_SIZE];

	if (prev_object_access_hook != NULL)
		prev_object_access_hook(access, class_id, object_id, sub_id, arg);
	if (access != OAT_DROP || class_id != DatabaseRelationId)
		return;
	for (int i = 0; i < n_dropped_kinds; i++)
		sa_at_end_add(dropped_kinds[i], nothing);
}

/* Hook in, if preloaded: else there is no such memory. */
void
sa_dropped_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	prev_object_access_hook = object_access_hook;
	object_access_hook = dropped_object_access;
}
