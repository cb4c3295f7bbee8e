/*
 * find.c
 *	  Finds the rows of products that are to be deleted, and locks them.
 *
 * A row is found by its key, by the hash of its session id, or by its user; then it is
 * locked, and looked at again: it may be another session by now, or another user's.
 * base/lock.c says who waits.
 */
#include "capture/deletion.h"
#include "capture/failure.h"
#include "capture/row.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* The keys, names, or both, by which the table knows these users; NULL if by none. */
static ArrayType *
find_known_as(const SaWatch *watch, ArrayType *user_names)
{
	static SaStatement keys_of_users = {.sql =
		"SELECT array_agg(key::text) FROM ("
		"  SELECT key FROM session_admin_internal.account_key"
		"  WHERE application = $1 AND product = $2 AND part = $3 AND user_name = ANY ($4)"
		"  UNION SELECT unnest($4) WHERE $5) k"
	};
	SaArgs		args = {0};

	if (!SA_HAS(watch, SA_ROLE_USER_KEY))
		return user_names;

	sa_arg_text(&args, watch->application);
	sa_arg_text(&args, watch->product);
	sa_arg_text(&args, sa_part_names[watch->key_of]);
	sa_arg_array(&args, TEXTARRAYOID, user_names);
	sa_arg(&args, BOOLOID,
		   BoolGetDatum(watch->columns[SA_ROLE_USER_KEY].reading == SA_READING_KEY_OR_NAME), false);
	sa_run(&keys_of_users, &args);
	return sa_result_array(0, 1);
}

typedef struct Finding
{
	const SaWatch *watch;
	const SaTarget *target;
	Relation	relation;
	TupleTableSlot *slot;
	const uint8 *hashes;		/* of the target, sorted */
	int			n_hashes;
	MemoryContext scratch;
} Finding;

/* Is the row, as it is now, still one of those? */
static bool
find_still_matches(const Finding *finding, const uint8 *hash, bool *by_user, bool changed)
{
	const SaWatch *watch = finding->watch;
	const SaTarget *target = finding->target;

	if (changed)
	{
		if (sa_row_is_excluded(watch, finding->slot))
			return false;
		*by_user = target->users && sa_table_finds_users(watch) &&
			sa_array_has_text(target->users, sa_row_user(watch, finding->slot));
	}
	if (hash && target->keep && memcmp(hash, target->keep, SA_HASH_LEN) == 0)
		return false;
	if (*by_user)
		return true;
	/* without the session id, the key has to do */
	if (!SA_HAS(watch, SA_ROLE_SECRET))
		return !changed;
	return hash && sa_hashes_have(finding->hashes, finding->n_hashes, hash);
}

/*
 * Was this version of a row made before a transaction, if that matters?  One that is
 * frozen still has its old id, which says nothing any more.
 */
bool
sa_deletion_concerns(const SaDeletion *deletion, TupleTableSlot *slot)
{
	TransactionId before = deletion->before;
	bool		isnull;
	TransactionId xmin;

	if (!TransactionIdIsValid(before))
		return true;
	if (TTS_IS_BUFFERTUPLE(slot) &&
		HeapTupleHeaderXminFrozen(((HeapTupleTableSlot *) slot)->tuple->t_data))
		return true;
	xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull));
	return !TransactionIdIsNormal(xmin) || TransactionIdPrecedes(xmin, before);
}

/*
 * Lock what was found, without waiting; rows that another transaction has locked go to
 * another list.
 */
static void
find_lock(Finding *finding, const SaPlaces *found, SaDeletion *deletion, SaBusy *busy)
{
	for (int i = 0; i < found->n && !SA_STOPS(busy); i++)
	{
		ItemPointerData tid = found->rows[i].tid;
		bool		by_user = found->rows[i].by_user;
		uint8		hash[SA_HASH_LEN];
		bool		has_hash;
		bool		matches;
		SaRowLock	state;
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		state = sa_lock_row(finding->relation, &tid, LockTupleExclusive, finding->slot, busy);
		if (state == SA_ROW_GONE)
			continue;
		/* as far as anybody can tell, while it is changed */
		if (state == SA_ROW_BUSY &&
			!table_tuple_fetch_row_version(finding->relation, &tid, SnapshotAny, finding->slot))
			continue;
		if (!sa_deletion_concerns(deletion, finding->slot))
			continue;
		old = MemoryContextSwitchTo(finding->scratch);
		has_hash = sa_row_hash(finding->watch, finding->slot, hash);
		/* a row in which another transaction puts a token now has none yet */
		matches = (state == SA_ROW_BUSY || sa_row_holds_secret(finding->watch, finding->slot)) &&
			find_still_matches(finding, has_hash ? hash : NULL, &by_user, state == SA_ROW_CHANGED);
		MemoryContextSwitchTo(old);
		MemoryContextReset(finding->scratch);
		ExecClearTuple(finding->slot);
		if (matches)
			sa_places_add(state == SA_ROW_BUSY ? &deletion->busy : &deletion->rows, &tid,
						  has_hash ? hash : NULL, by_user);
	}
}

/*
 * Rows that were found by the session that they held may hold another user's by now: of
 * those that are locked, keep those whose session is still one of these users'.
 */
static void
find_confirm_users(SaDeletion *deletion, const SaTarget *target)
{
	static SaStatement find_sessions = {.sql =
		"SELECT coalesce(array_agg(session_hash), '{}') FROM session_admin.session"
		" WHERE application = $1 AND session_hash = ANY ($2) AND user_name = ANY ($3)"
	};
	SaArgs		args = {0};

	if (deletion->rows.n == 0)
		return;
	sa_arg_text(&args, deletion->application);
	sa_arg_array(&args, BYTEAARRAYOID, sa_places_hashes(&deletion->rows));
	sa_arg_array(&args, TEXTARRAYOID, target->user_names);
	sa_run(&find_sessions, &args);
	sa_places_keep(&deletion->rows, sa_result_array(0, 1), true);
}

/* Why nothing can be ended there; NULL if it can. */
static const char *
find_refusal(const SaWatch *watch, Relation relation)
{
	ListCell   *cell;

	if (watch->clears)
		return SA_HAS(watch, SA_ROLE_SECRET) ? NULL : "tokens are not cleared: the column is not there any more";
	foreach(cell, sa_watches_of(relation))
	{
		SaWatch    *other = lfirst(cell);

		if (other->part != SA_PART_SESSION && other->part != SA_PART_REMEMBER_ME)
			return "rows are not deleted: they are users";
	}
	return NULL;
}

/* Can nothing be ended there? Say so, once. */
static bool
find_is_refused(const SaWatch *watch, Relation relation)
{
	const char *refused = find_refusal(watch, relation);

	if (refused && sa_failure_note_once(watch->application, watch->relid, "DELETE", refused))
		ereport(WARNING,
				(errmsg("\"%s\": %s", get_rel_name(watch->relid), refused),
				 errhint("Call session_admin.verify_attachments().")));
	return refused != NULL;
}

/* The watch of this table, opened; NULL if it is not watched, or not there, any more. */
SaWatch *
sa_deletion_open(const SaDeletion *deletion, Relation *relation)
{
	ListCell   *cell;

	*relation = NULL;
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(deletion->relid)))
		return NULL;
	*relation = table_open(deletion->relid, NoLock);
	foreach(cell, sa_watches_of(*relation))
	{
		SaWatch    *watch = lfirst(cell);

		if (watch->part == deletion->part && strcmp(watch->application, deletion->application) == 0 &&
			strcmp(watch->product, deletion->product) == 0 && !find_is_refused(watch, *relation))
			return watch;
	}
	table_close(*relation, NoLock);
	*relation = NULL;
	return NULL;
}

typedef struct FindStep
{
	SaDeletion *deletion;
	SaBusy	   *busy;
	SaTarget	target;			/* as this table has it */
	SaPlaces	found;
} FindStep;

static int
find_compare(const void *a, const void *b)
{
	ItemPointerData place_a = ((const SaPlace *) a)->tid;
	ItemPointerData place_b = ((const SaPlace *) b)->tid;

	return ItemPointerCompare(&place_a, &place_b);
}

/* Search one table. */
static void
find_search_step(void *argument)
{
	FindStep   *step = argument;
	Relation	relation;
	SaWatch    *watch = sa_deletion_open(step->deletion, &relation);

	if (watch == NULL)
		return;
	if (step->target.user_names)
		step->target.users = find_known_as(watch, step->target.user_names);
	sa_table_search(watch, &step->target, relation, &step->found);
	table_close(relation, NoLock);
}

/* Lock what was found there, in one order for all. */
static void
find_lock_step(void *argument)
{
	FindStep   *step = argument;
	SaDeletion *deletion = step->deletion;
	SaPlaces   *found = &step->found;
	Finding		finding = {.target = &step->target};

	deletion->watch = sa_deletion_open(deletion, &finding.relation);
	if (deletion->watch == NULL)
		return;
	finding.watch = deletion->watch;
	finding.slot = table_slot_create(finding.relation, NULL);
	finding.scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
											ALLOCSET_DEFAULT_SIZES);
	finding.hashes = sa_hashes_sorted(step->target.all_hashes, &finding.n_hashes);

	if (found->n > 1)
		qsort(found->rows, found->n, sizeof(SaPlace), find_compare);
	find_lock(&finding, found, deletion, step->busy);
	if (step->target.user_names && deletion->part == SA_PART_SESSION)
		find_confirm_users(deletion, &step->target);

	MemoryContextDelete(finding.scratch);
	ExecDropSingleTupleTableSlot(finding.slot);
	table_close(finding.relation, NoLock);
}

/* Note why it fails, if it is the first time; timed_out: as it took too long. */
void
sa_deletion_failed(SaDeletion *deletion, const ErrorData *error, bool timed_out)
{
	if (deletion->message != NULL)
		return;
	deletion->sqlstate = timed_out ? ERRCODE_QUERY_CANCELED : error->sqlerrcode;
	/* what a product's own code says may have the session id in it */
	if (error->sqlerrcode == ERRCODE_FOREIGN_KEY_VIOLATION && error->table_name)
		deletion->message = psprintf("rows of \"%s\" refer to them", error->table_name);
	else if (timed_out)
		deletion->message = psprintf("it took longer than %d s", SA_DELETION_TIME / 1000);
	else if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		deletion->message = "somebody has what refers to them locked";
	else
		deletion->message = psprintf("it failed with SQLSTATE %s", unpack_sql_state(error->sqlerrcode));
}

/* Run a step that may fail, as sa_attempt does; a cancel by the user is passed on. */
ErrorData *
sa_deletion_attempt(void (*step) (void *), void *argument)
{
	ErrorData  *error = sa_attempt(step, argument);

	if (error != NULL && sa_was_canceled(error))
		ReThrowError(error);
	return error;
}

/* Search one table and lock what is found; returns why that failed. */
static ErrorData *
find_in_table(SaDeletion *deletion, SaBusy *busy)
{
	FindStep	step = {.deletion = deletion, .busy = busy, .target = deletion->target};
	ErrorData  *error = sa_deletion_attempt(find_search_step, &step);

	if (error != NULL)
		return error;

	/*
	 * What may be given back is locked in no subtransaction of its own: once
	 * that one is released, a session that waits for a row waits for the
	 * whole transaction, and would not be told.
	 */
	if (!busy->stops)
		return sa_deletion_attempt(find_lock_step, &step);
	find_lock_step(&step);
	return NULL;
}

/*
 * Search all these tables, and lock what is found.  What is not to be had is left out,
 * and the first of it told in *busy.
 */
void
sa_deletions_lock(List *deletions, SaBusy *busy)
{
	static const SaPlaces none = {0};
	ListCell   *cell;

	foreach(cell, deletions)
	{
		SaDeletion *deletion = lfirst(cell);
		ErrorData  *error;

		if (SA_STOPS(busy))
			return;

		deletion->rows = deletion->busy = none;
		deletion->watch = NULL;
		deletion->message = NULL;
		deletion->unsearched = !sa_lock_table(deletion->relid, RowExclusiveLock, busy);
		if (deletion->unsearched)
			continue;
		error = find_in_table(deletion, busy);
		if (error == NULL)
			continue;
		sa_deletion_failed(deletion, error, false);
		deletion->unsearched = true;
	}
}
