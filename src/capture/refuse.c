/*
 * refuse.c
 *	  Rows of a product with the ids of sessions that stay ended.
 *
 * They are deleted by the trigger of the very statement that wrote them (ended_id.c says
 * why), and nobody is logged in by them.  The product's statement is no error.
 */
#include "capture/apply.h"
#include "capture/deletion.h"
#include "capture/failure.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* The applications for which this table is watched as one of sessions. */
static List *
refuse_applications(const SaWatch *watch)
{
	Relation	relation = table_open(watch->relid, AccessShareLock);
	List	   *applications = NIL;
	ListCell   *cell;

	foreach(cell, sa_watches_of(relation))
	{
		SaWatch    *other = lfirst(cell);

		if (other->part == SA_PART_SESSION && other->names_user)
			applications = lappend(applications, unconstify(char *, other->application));
	}
	table_close(relation, NoLock);
	return applications;
}

/* Has it ended in one of these applications?  The row then goes from all of them. */
static bool
refuse_has_ended(const uint8 *hash, List *applications)
{
	ListCell   *cell;

	foreach(cell, applications)
	{
		if (sa_id_has_ended(hash, lfirst(cell)))
			return true;
	}
	return false;
}

/*
 * Mark the rows that bring back what has ended, by the id that they have now or, if
 * they could not be deleted, had before.  Returns how many.
 */
int
sa_refuse_mark(SaBatch *batch)
{
	List	   *applications = refuse_applications(batch->watch);
	int			refused = 0;
	ListCell   *cell;

	foreach(cell, batch->session_rows)
	{
		SaSessionRow *row = lfirst(cell);
		bool		same_id = memcmp(row->id.hash, row->old_id.hash, SA_HASH_LEN) == 0;

		CHECK_FOR_INTERRUPTS();
		row->refused = refuse_has_ended(row->id.hash, applications) ||
			(!same_id && refuse_has_ended(row->old_id.hash, applications));
		refused += row->refused;
	}
	return refused;
}

typedef struct Refusal
{
	const SaWatch *watch;
	ArrayType  *secrets;
	ArrayType  *hashes;
	SaEnding	ending;
	uint64		deleted;
} Refusal;

static void
refuse_delete_step(void *argument)
{
	Refusal    *refusal = argument;

	refusal->deleted = sa_delete_written_rows(refusal->watch, refusal->secrets, refusal->hashes,
											  &refusal->ending);
}

/*
 * Report that rows of sessions that have ended are still in the product's table.
 * Nobody is logged in by them: each request that uses one comes here again.
 */
static void
refuse_rows_remain(const SaWatch *watch, const char *why)
{
	char	   *message = psprintf("rows of ended sessions were not deleted: %s", why);

	if (sa_failure_note_once(watch->application, watch->relid, "DELETE", message))
		ereport(WARNING,
				(errmsg("\"%s\": %s", get_rel_name(watch->relid), message)));
}

/*
 * Refuse the rows that are marked: delete them in the product's table and end what
 * went on under another id until now.  The product's statement is no error.
 */
void
sa_refuse_rows(SaBatch *batch)
{
	const SaWatch *watch = batch->watch;
	MemoryContext context = CurrentMemoryContext;
	ArrayBuildState *secrets = initArrayResult(TEXTOID, context, false);
	ArrayBuildState *hashes = initArrayResult(BYTEAOID, context, false);
	SaValues	renamed = {0};
	Refusal		refusal = {
		.watch = watch,
		.ending = {.reason = "admin", .at = GetCurrentTimestamp(),.options.spares_products = true}
	};
	ErrorData  *error;
	ListCell   *cell;

	foreach(cell, batch->session_rows)
	{
		SaSessionRow *row = lfirst(cell);

		if (!row->refused)
			continue;
		accumArrayResult(secrets, CStringGetTextDatum(row->secret), false, TEXTOID, context);
		accumArrayResult(hashes, PointerGetDatum(sa_bytea(row->id.hash, SA_HASH_LEN)),
						 false, BYTEAOID, context);
		if (memcmp(row->id.hash, row->old_id.hash, SA_HASH_LEN) != 0)
			sa_batch_add(batch, &renamed,
						 PointerGetDatum(sa_bytea(row->old_id.hash, SA_HASH_LEN)), false);
	}
	refusal.secrets = DatumGetArrayTypeP(makeArrayResult(secrets, context));
	refusal.hashes = DatumGetArrayTypeP(makeArrayResult(hashes, context));
	error = sa_capture_attempt(refuse_delete_step, &refusal);

	if (error)
		refuse_rows_remain(watch, error->message);
	else
		batch->refused += refusal.deleted;

	sa_count_refused(refusal.hashes, watch->application);
	if (renamed.n > 0)
	{
		SaEnding	ending = {.reason = "renewed", .at = refusal.ending.at,.options.spares_products = true};

		sa_end_sessions(sa_array(renamed.values, renamed.n, BYTEAOID), watch->application, &ending, NULL);
	}
}

/* Take the refused rows out of the batch, and wipe their ids. */
void
sa_refuse_leave(SaBatch *batch)
{
	List	   *left = NIL;
	ListCell   *cell;

	foreach(cell, batch->session_rows)
	{
		SaSessionRow *row = lfirst(cell);

		if (row->refused)
			explicit_bzero(row->secret, strlen(row->secret));
		else
			left = lappend(left, row);
	}
	batch->session_rows = left;
}
