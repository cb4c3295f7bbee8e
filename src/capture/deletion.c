/*
 * deletion.c
 *	  Deletes rows from the products' own tables of sessions and remember-me tokens when
 *	  sessions end, or clears the column where that is one of many.
 *
 * No product can keep a session from ending.  The rows of each table are deleted in
 * subtransactions, with a limit to how long one may take; what cannot be deleted is noted
 * and tried again later (retry.c).
 */
#include "capture/deletion.h"
#include "capture/failure.h"
#include "capture/row.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* Of a batch that fails, parts are tried as long as so many have not failed, too. */
#define ERRORS_MAX			500
/* Of those that take their time, fewer: each counts for so many of the most. */
#define FAILURES_MAX		20
#define FAILURES_SLOW		5

/* The table whose rows we delete right now, for which application, and why. */
static const SaWatch *deleting_watch = NULL;
static const SaEnding *deleting_for = NULL;
static SaEnded *deleting_ended = NULL;

/*
 * The ending for which this backend deletes rows of this table, and its result; NULL if
 * the statement is the product's own.
 */
const SaEnding *
sa_deletion_under_way(const SaWatch *watch, SaEnded **ended)
{
	*ended = deleting_ended;
	if (deleting_watch != NULL && deleting_watch->relid == watch->relid &&
		strcmp(deleting_watch->application, watch->application) == 0)
		return deleting_for;
	return NULL;
}

static TimeoutId deletion_timeout = MAX_TIMEOUTS;
static volatile sig_atomic_t deletion_timed_out = false;

/* Raise a cancel, which stops what runs; the flag tells it from one of the user. */
static void
deletion_timeout_handler(void)
{
	deletion_timed_out = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

static ExecutorStart_hook_type outer_executor_start = NULL;

/*
 * While we delete, constraints are checked at once, and no trigger is put off to the end
 * of the transaction: there a product's failure would be the caller's.  (Nor could it be,
 * as the owner of the table.)  The executor works on its own copy of the triggers.
 */
static void
deletion_executor_start(QueryDesc *query, int eflags)
{
	ListCell   *cell;

	if (outer_executor_start)
		outer_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	foreach(cell, query->estate->es_opened_result_relations)
	{
		TriggerDesc *triggers = ((ResultRelInfo *) lfirst(cell))->ri_TrigDesc;

		for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		{
			triggers->triggers[i].tgdeferrable = false;
			triggers->triggers[i].tginitdeferred = false;
		}
	}
}

typedef struct DeletionBatch
{
	SaDeletion *deletion;
	const SaEnding *ending;
	SaEnded    *ended;
	SaPlace    *rows;
	int			n;
	int			result;			/* of SPI */
	uint64		deleted;
	bool		timed_out;
} DeletionBatch;

/* Delete the rows of a batch, which are locked. */
static void
deletion_step(void *argument)
{
	DeletionBatch *batch = argument;
	Relation	relation = table_open(batch->deletion->relid, RowExclusiveLock);

	batch->result = sa_table_end_rows(batch->deletion->watch, relation, batch->rows, batch->n,
									  &batch->deleted);
	table_close(relation, NoLock);
}

/*
 * Delete a batch, for no longer than a limit; returns why that failed.  A trigger of
 * the product may call us again: then the time of the outer batch goes on.
 */
static ErrorData *
deletion_run_batch(DeletionBatch *batch)
{
	bool		is_inner = deletion_timeout != MAX_TIMEOUTS && get_timeout_active(deletion_timeout);
	TimestampTz outer_until = is_inner ? get_timeout_finish_time(deletion_timeout) : 0;
	bool		outer_timed_out = deletion_timed_out;
	const SaWatch *outer_watch = deleting_watch;
	const SaEnding *outer_ending = deleting_for;
	SaEnded    *outer_ended = deleting_ended;
	ExecutorStart_hook_type outer_hook = outer_executor_start;
	ExecutorStart_hook_type hook = ExecutorStart_hook;
	int64		tokens_revoked = batch->ended->tokens_revoked;
	int			n_users = batch->ended->revoked_users ? batch->ended->revoked_users->nelems : 0;
	ErrorData  *volatile error = NULL;

	if (deletion_timeout == MAX_TIMEOUTS)
		deletion_timeout = RegisterTimeout(USER_TIMEOUT, deletion_timeout_handler);
	deleting_watch = batch->deletion->watch;
	deleting_for = batch->ending;
	deleting_ended = batch->ended;
	if (hook != deletion_executor_start)
		outer_executor_start = hook;
	ExecutorStart_hook = deletion_executor_start;
	deletion_timed_out = false;
	enable_timeout_every(deletion_timeout, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SA_DELETION_TIME),
						 SA_DELETION_TIME);
	PG_TRY();
	{
		error = sa_attempt(deletion_step, batch);
	}
	PG_FINALLY();
	{
		disable_timeout(deletion_timeout, false);
		batch->timed_out = deletion_timed_out;
		/* what came too late to stop anything must not stop what follows */
		if (deletion_timed_out)
			QueryCancelPending = false;
		deletion_timed_out = outer_timed_out;
		if (is_inner)
			enable_timeout_every(deletion_timeout, outer_until, SA_DELETION_TIME);
		ExecutorStart_hook = hook;
		outer_executor_start = outer_hook;
		deleting_watch = outer_watch;
		deleting_for = outer_ending;
		deleting_ended = outer_ended;
	}
	PG_END_TRY();

	if (error != NULL)
	{
		batch->ended->tokens_revoked = tokens_revoked;
		if (batch->ended->revoked_users)
			batch->ended->revoked_users->nelems = n_users;
		if (sa_was_canceled(error) && !batch->timed_out)
			ReThrowError(error);
	}
	return error;
}

/* Which of a batch's rows are still there, though deleting them was no error? */
static void
deletion_find_kept(void *argument)
{
	DeletionBatch *batch = argument;
	SaDeletion *deletion = batch->deletion;
	Relation	relation = table_open(deletion->relid, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	SaPlaces	rows = {.n = batch->n, .rows = batch->rows};
	SaPlaces	found = {0};

	/* a rule or trigger may have changed them instead */
	SaTarget	target = {.hashes = sa_places_hashes(&rows)};
	Snapshot	snapshot;

	if (sa_array_length(target.hashes) > 0)
		sa_table_search(deletion->watch, &target, relation, &found);

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < found.n; i++)
	{
		uint8		hash[SA_HASH_LEN];

		if (table_tuple_fetch_row_version(relation, &found.rows[i].tid, snapshot, slot) &&
			sa_row_hash(deletion->watch, slot, hash))
			sa_places_add(&deletion->left, &found.rows[i].tid, hash, true);
	}
	for (int i = 0; i < batch->n; i++)
	{
		if (!batch->rows[i].has_hash &&
			table_tuple_fetch_row_version(relation, &batch->rows[i].tid, snapshot, slot))
			sa_places_add(&deletion->left, &batch->rows[i].tid, NULL, true);
	}
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, NoLock);
}

/* Is there no time left for this? */
bool
sa_deletion_is_over(const SaDeletion *deletion)
{
	return deletion->deadline != 0 && sa_monotonic_now() >= deletion->deadline;
}

/* Delete rows, and find those that make it fail. */
static void
deletion_run_rows(SaDeletion *deletion, const SaEnding *ending, SaEnded *ended, SaPlace *rows, int n)
{
	DeletionBatch batch = {.deletion = deletion, .ending = ending, .ended = ended, .rows = rows, .n = n};
	ErrorData  *error;
	bool		slow;

	CHECK_FOR_INTERRUPTS();
	if (deletion->failures >= FAILURES_MAX || sa_deletion_is_over(deletion))
	{
		sa_places_append(&deletion->left, rows, n);
		return;
	}
	error = deletion_run_batch(&batch);
	if (error == NULL)
	{
		deletion->deleted += batch.deleted;
		if (batch.deleted == (uint64) n &&
			batch.result == (deletion->watch->clears ? SPI_OK_UPDATE : SPI_OK_DELETE))
			return;
		if (deletion->message == NULL)
			deletion->message = "a rule or trigger keeps them";
		if (sa_deletion_attempt(deletion_find_kept, &batch) != NULL)
			sa_places_append(&deletion->left, rows, n);
		/* if none of many was deleted, the rest will not be, either */
		if (batch.deleted == 0 && n > 1)
			deletion->failures = FAILURES_MAX;
		return;
	}

	sa_deletion_failed(deletion, error, batch.timed_out);
	slow = batch.timed_out || error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
	if (slow)
		deletion->failures += FAILURES_SLOW;
	else if (++deletion->errors >= ERRORS_MAX)
		deletion->failures = FAILURES_MAX;
	if (n == 1)
	{
		sa_places_append(&deletion->left, rows, 1);
		return;
	}
	/* what takes so long is not tried again while somebody waits */
	if (batch.timed_out)
		deletion->failures = FAILURES_MAX;
	deletion_run_rows(deletion, ending, ended, rows, n / 2);
	deletion_run_rows(deletion, ending, ended, rows + n / 2, n - n / 2);
}

/* Keep the rows of sessions that are valid. */
static void
deletion_spare_valid(SaDeletion *deletion)
{
	static SaStatement find_valid = {.sql =
		"SELECT coalesce(array_agg(session_hash), '{}') FROM session_admin_internal.session_state"
		" WHERE application = $1 AND session_hash = ANY ($2) AND ended_at IS NULL"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, deletion->application);
	sa_arg_array(&args, BYTEAARRAYOID, sa_places_hashes(&deletion->rows));
	sa_run(&find_valid, &args);
	sa_places_drop(&deletion->rows, sa_result_array(0, 1));
}

/* Begin with a random row, and keep the order. */
static void
deletion_rotate(SaPlaces *rows)
{
	SaPlace    *rotated;
	int			first;

	if (rows->n < 2)
		return;
	first = (int) (pg_prng_uint64_range(&pg_global_prng_state, 0, rows->n - 1));
	rotated = palloc(rows->n * sizeof(SaPlace));
	for (int i = 0; i < rows->n; i++)
		rotated[i] = rows->rows[(first + i) % rows->n];
	rows->rows = rotated;
	rows->allocated = rows->n;
}

/* Delete the rows that are locked; those that cannot be deleted are left. */
void
sa_deletion_run(SaDeletion *deletion, const SaEnding *ending, SaEnded *ended)
{
	int			batch = Max(SA_DELETION_ROWS >> Min(deletion->tries, 10), 1);

	if (deletion->spares_valid && deletion->part == SA_PART_SESSION)
		deletion_spare_valid(deletion);
	/* what fails must not keep what follows from being tried for ever */
	if (deletion->tries > 0)
		deletion_rotate(&deletion->rows);
	for (int i = 0; i < deletion->rows.n; i += batch)
		deletion_run_rows(deletion, ending, ended, deletion->rows.rows + i, Min(batch, deletion->rows.n - i));
}

/* The rows of this table cannot be deleted, as it lacks a column. */
static void
deletion_warn_of_users(const SaWatch *watch, ArrayType *user_names)
{
	const char *message = "rows are not deleted: no column names users any more";

	ereport(WARNING,
			(errmsg("\"%s\": %s", get_rel_name(watch->relid), message),
			 errhint("Call session_admin.verify_attachments().")));
	sa_failure_note(watch->application, watch->relid, "DELETE", message, user_names);
}

/* Remember the sessions whose rows are gone: the caller ends them, too. */
static void
deletion_tell_gone(SaDeletion *deletion, SaEnded *ended)
{
	if (deletion->part != SA_PART_SESSION || ended->context == NULL)
		return;
	for (int i = 0; i < deletion->rows.n; i++)
	{
		SaPlace    *row = &deletion->rows.rows[i];

		if (row->has_hash && row->by_user)
			ended->found_by_user = accumArrayResult(ended->found_by_user,
													PointerGetDatum(sa_bytea(row->hash, SA_HASH_LEN)),
													false, BYTEAOID, ended->context);
	}
}

/*
 * Delete what is locked; what remains is noted.  The caller ends the sessions, those in
 * ended->found_by_user, too, if it has given a context.
 */
void
sa_deletions_run(List *deletions, const SaEnding *ending, SaEnded *ended)
{
	ListCell   *cell;

	foreach(cell, deletions)
	{
		SaDeletion *deletion = lfirst(cell);

		if (!deletion->unsearched && deletion->watch != NULL)
		{
			if (deletion->part == SA_PART_REMEMBER_ME && !sa_table_has_users(deletion->watch))
				deletion_warn_of_users(deletion->watch, deletion->target.user_names);
			sa_deletion_run(deletion, ending, ended);
			deletion_tell_gone(deletion, ended);
		}
		if (!ending->options.skips_locked)
			sa_places_append(&deletion->left, deletion->busy.rows, deletion->busy.n);
		if (deletion->left.n > 0 || (deletion->unsearched && !ending->options.skips_locked) ||
			(deletion->unsearched && deletion->message != NULL))
			sa_remains_note(deletion, ending);
	}
}
