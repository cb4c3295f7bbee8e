/*
 * forget.c
 *	  Deletes rows from the products' own tables of sessions and remember-me tokens
 *	  when sessions end, or clears the column where that is one of many.
 *
 * A row of users is never deleted: attach_application refuses it, and here it is looked
 * at once more, as the table may have got another part since.
 *
 * What is deleted there and what ends here are the same sessions.  A row is found by its
 * key, by the hash of its session id, or by its user; then it is locked, and looked at
 * again: it may be another session by now, or another user's.  See lock.c for who waits.
 *
 * No product can keep a session from ending.  The rows of each table are deleted in
 * subtransactions, with a limit to how long one may take.  What cannot be deleted,
 * because somebody has it locked, or a rule, trigger or foreign key of the product keeps
 * it, is noted and tried again later: see remains.c.
 *
 * These are the only statements that touch a product's table.  They run as its
 * owner, since its triggers and functions are not ours.  Our own trigger fires
 * too; it asks here whether it was us, so that this is no event of its own.
 */
#include "capture/capture.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* Rows that are deleted together, and for how long that may take. */
#define BATCH_ROWS			1000
#define BATCH_TIME			2000	/* milliseconds */
/* For a row that refers to one of these, and that somebody has locked. */
#define CASCADE_LOCK_WAIT	"100ms"
/* Of a batch that fails, parts are tried as long as so many have not failed, too. */
#define ERRORS_MAX			500
/* Of those that take their time, fewer: each counts for so many of the most. */
#define FAILURES_MAX		20
#define FAILURES_SLOW		5
/* Rows of one table that are noted one by one when everything is deleted. */
#define LEFT_MAX			10000

/* The table whose rows we delete ourselves right now, and for which application. */
static const SaWatch *forgetting_watch = NULL;
static SaEnding *forgetting = NULL;

/* What we delete the rows of this table for; NULL if it is not us who does. */
SaEnding *
sa_forgetting(const SaWatch *watch)
{
	if (forgetting_watch != NULL && forgetting_watch->relid == watch->relid &&
		strcmp(forgetting_watch->application, watch->application) == 0)
		return forgetting;
	return NULL;
}

/*
 * Which rows
 */

static const char *
column_name(const SaWatch *watch, SaRole role)
{
	return quote_identifier(get_attname(watch->relid, watch->columns[role].attnum, false));
}

/* Has the column a collation in which different names are equal? */
static bool
is_nondeterministic(const SaWatch *watch, SaRole role)
{
	Oid			type;
	int32		typmod;
	Oid			collation;

	get_atttypetypmodcoll(watch->relid, watch->columns[role].attnum, &type, &typmod, &collation);
	return OidIsValid(collation) && !get_collation_isdeterministic(collation);
}

/* The column as text that is compared bytewise. */
static char *
text_expression(const SaWatch *watch, SaRole role)
{
	return psprintf("%s::pg_catalog.text%s", column_name(watch, role),
					is_nondeterministic(watch, role) ? " COLLATE pg_catalog.\"C\"" : "");
}

/* The hash of the session id, so that an index on the same expression may serve. */
static char *
hash_expression(const SaWatch *watch)
{
	return psprintf("pg_catalog.sha256(pg_catalog.replace(%s,"
					" pg_catalog.chr(92), pg_catalog.repeat(pg_catalog.chr(92), 2))::pg_catalog.bytea)",
					text_expression(watch, SA_ROLE_SECRET));
}

static char *
array_literal(ArrayType *array)
{
	return psprintf("%s::pg_catalog.text[]",
					quote_literal_cstr(OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array))));
}

/* A column is one of the values in an argument. */
static char *
is_any_of(const SaWatch *watch, SaRole role, int argument)
{
	const SaColumn *column = &watch->columns[role];
	const char *name = column_name(watch, role);

	if (column->path != NULL)
		return psprintf("%s OPERATOR(pg_catalog.#>>) %s OPERATOR(pg_catalog.=) ANY ($%d)",
						name, array_literal(column->path), argument);
	if (column->reading == SA_READING_ANY_CASE)
		return psprintf("pg_catalog.lower(%s) OPERATOR(pg_catalog.=) ANY ($%d)",
						text_expression(watch, role), argument);
	if (is_nondeterministic(watch, role))
		return psprintf("%s OPERATOR(pg_catalog.=) ANY ($%d)", text_expression(watch, role), argument);
	return psprintf("%s OPERATOR(pg_catalog.=) ANY ($%d::%s[])", name, argument,
					format_type_extended(column->type, -1,
										 FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
}

/* Of which column the table's users are. */
static SaRole
user_role(const SaWatch *watch)
{
	return SA_HAS(watch, SA_ROLE_USER_KEY) ? SA_ROLE_USER_KEY : SA_ROLE_USER_NAME;
}

static bool
has_users(const SaWatch *watch)
{
	return SA_HAS(watch, SA_ROLE_USER_NAME) || SA_HAS(watch, SA_ROLE_USER_KEY);
}

/* Can rows be found by their user?  Of text that should be JSON, one that is not fails. */
static bool
finds_users(const SaWatch *watch)
{
	const SaColumn *user = &watch->columns[user_role(watch)];

	return has_users(watch) &&
		(user->path == NULL || user->type == JSONOID || user->type == JSONBOID);
}

/*
 * The columns of the search for these rows: the place of each, and whether it was its
 * user that matched.  NULL if there can be none.
 */
static char *
search_query(const SaWatch *watch, const SaTarget *target, const char *table)
{
	char	   *by_user = target->users && finds_users(watch) ?
	psprintf("(%s) IS TRUE", is_any_of(watch, user_role(watch), 1)) : pstrdup("false");
	StringInfoData sql;
	bool		any = by_user[0] == '(';

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT ctid, %s FROM ONLY %s WHERE (%s", by_user, table, by_user);
	if (target->keys && SA_HAS(watch, SA_ROLE_KEY))
	{
		any = true;
		appendStringInfo(&sql, " OR %s", is_any_of(watch, SA_ROLE_KEY, 2));
	}
	if (target->hashes && SA_HAS(watch, SA_ROLE_SECRET))
	{
		any = true;
		appendStringInfo(&sql, " OR %s OPERATOR(pg_catalog.=) ANY ($3)", hash_expression(watch));
	}
	appendStringInfoChar(&sql, ')');
	if (target->secrets)
		appendStringInfo(&sql, " AND %s", is_any_of(watch, SA_ROLE_SECRET, 5));
	if (target->keep && SA_HAS(watch, SA_ROLE_SECRET))
		appendStringInfo(&sql, " AND %s OPERATOR(pg_catalog.<>) $4", hash_expression(watch));
	for (SaRole role = 0; role < SA_NROLES; role++)
	{
		ArrayType  *excludes = watch->columns[role].excludes;

		if (excludes != NULL)
			appendStringInfo(&sql, " AND (%s OPERATOR(pg_catalog.=) ANY (%s)) IS NOT TRUE",
							 text_expression(watch, role), array_literal(excludes));
	}
	return any ? sql.data : NULL;
}

static int
compare_hashes(const void *a, const void *b)
{
	return memcmp(a, b, SA_HASH_LEN);
}

/* The hashes in an array of bytea, sorted. */
static uint8 *
sorted_hashes(ArrayType *array, int *n)
{
	Datum	   *values;
	uint8	   *hashes;

	*n = 0;
	if (array == NULL)
		return NULL;
	deconstruct_array(array, BYTEAOID, -1, false, TYPALIGN_INT, &values, NULL, n);
	hashes = palloc(*n * SA_HASH_LEN + 1);
	for (int i = 0; i < *n; i++)
		memcpy(hashes + i * SA_HASH_LEN, VARDATA_ANY(DatumGetByteaPP(values[i])), SA_HASH_LEN);
	qsort(hashes, *n, SA_HASH_LEN, compare_hashes);
	return hashes;
}

static bool
is_among(const uint8 *hash, const uint8 *hashes, int n)
{
	return n > 0 && bsearch(hash, hashes, n, SA_HASH_LEN, compare_hashes) != NULL;
}

/* Is the user, or the key, in this array of text? */
static bool
is_one_of(const char *user, ArrayType *users)
{
	Datum	   *values;
	int			n;

	if (user == NULL || users == NULL)
		return false;
	deconstruct_array(users, TEXTOID, -1, false, TYPALIGN_INT, &values, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		if (strcmp(user, TextDatumGetCString(values[i])) == 0)
			return true;
	}
	return false;
}

/* The keys, names, or both, by which the table knows these users; NULL if by none. */
static ArrayType *
known_as(const SaWatch *watch, ArrayType *user_names)
{
	static SaStatement keys_of_users = {.sql =
		"SELECT array_agg(key::text) FROM ("
		"  SELECT key FROM session_admin_internal.account_key"
		"  WHERE application = $1 AND product = $2 AND part = $3 AND user_name = ANY ($4)"
		"  UNION SELECT unnest($4) WHERE $5) k"
	};
	bool		isnull;
	SaArgs		args = {0};
	Datum		keys;

	if (!SA_HAS(watch, SA_ROLE_USER_KEY))
		return user_names;

	sa_arg_text(&args, watch->application);
	sa_arg_text(&args, watch->product);
	sa_arg_text(&args, sa_part_names[watch->key_of]);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(user_names), false);
	sa_arg(&args, BOOLOID,
		   BoolGetDatum(watch->columns[SA_ROLE_USER_KEY].reading == SA_READING_KEY_OR_NAME), false);
	sa_run(&keys_of_users, &args);
	keys = sa_result(0, 1, &isnull);
	return isnull ? NULL : DatumGetArrayTypePCopy(keys);
}

/*
 * As the owner of a table
 */

typedef struct AsOwner
{
	Oid			userid;
	int			sec_context;
	int			nestlevel;
} AsOwner;

/*
 * Be the owner of the table: its triggers and functions are not ours, and must not run
 * with our rights.  They find the names that they expect in its own schema.  Policies
 * hide no row from us.
 */
static void
owner_enter(AsOwner *saved, Relation relation)
{
	char	   *schema = get_namespace_name(RelationGetNamespace(relation));

	GetUserIdAndSecContext(&saved->userid, &saved->sec_context);
	SetUserIdAndSecContext(relation->rd_rel->relowner,
						   saved->sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
	saved->nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path",
							 psprintf("pg_catalog, %s, pg_temp", quote_identifier(schema)),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("row_security", "off",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
owner_leave(const AsOwner *saved)
{
	AtEOXact_GUC(false, saved->nestlevel);
	SetUserIdAndSecContext(saved->userid, saved->sec_context);
}

static char *
table_name(Relation relation)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
									  RelationGetRelationName(relation));
}

static int
run_as_owner(const char *sql, SaArgs *args)
{
	SPIPlanPtr	plan = SPI_prepare(sql, args->n, args->types);
	int			result;

	if (plan == NULL)
		elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
	result = SPI_execute_snapshot(plan, args->values, args->nulls, GetLatestSnapshot(),
								  InvalidSnapshot, false, true, 0);
	if (result < 0)
		elog(ERROR, "could not execute statement: %s", SPI_result_code_string(result));
	SPI_freeplan(plan);
	return result;
}

/*
 * Searching and locking
 */

static void
add_row(SaRows *rows, const ItemPointerData * tid, const uint8 *hash, bool by_user)
{
	SaForgetRow *row;

	if (rows->n == rows->allocated)
	{
		rows->allocated = rows->allocated ? rows->allocated * 2 : 16;
		rows->rows = rows->rows ?
			repalloc_huge(rows->rows, rows->allocated * sizeof(SaForgetRow)) :
			palloc(rows->allocated * sizeof(SaForgetRow));
	}
	row = &rows->rows[rows->n++];
	memset(row, 0, sizeof(*row));
	row->tid = *tid;
	row->by_user = by_user;
	row->has_hash = hash != NULL;
	if (hash != NULL)
		memcpy(row->hash, hash, SA_HASH_LEN);
}

/* The hashes of rows, an array of bytea. */
ArrayType *
sa_hashes_of(const SaRows *rows)
{
	ArrayBuildState *hashes = initArrayResult(BYTEAOID, CurrentMemoryContext, false);

	for (int i = 0; i < rows->n; i++)
	{
		if (rows->rows[i].has_hash)
			accumArrayResult(hashes, PointerGetDatum(sa_bytea(rows->rows[i].hash, SA_HASH_LEN)),
							 false, BYTEAOID, CurrentMemoryContext);
	}
	return DatumGetArrayTypeP(makeArrayResult(hashes, CurrentMemoryContext));
}

/* The rows that match, as they were when the snapshot was taken. */
static void
search(const SaWatch *watch, const SaTarget *target, Relation relation, SaRows *found)
{
	char	   *sql = search_query(watch, target, table_name(relation));
	SaArgs		args = {0};
	AsOwner		saved;

	if (sql == NULL)
		return;
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(target->users), target->users == NULL);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(target->keys), target->keys == NULL);
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(target->hashes), target->hashes == NULL);
	sa_arg(&args, BYTEAOID,
		   target->keep ? PointerGetDatum(sa_bytea(target->keep, SA_HASH_LEN)) : (Datum) 0,
		   target->keep == NULL);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(target->secrets), target->secrets == NULL);
	owner_enter(&saved, relation);
	(void) run_as_owner(sql, &args);
	owner_leave(&saved);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		ItemPointer tid = (ItemPointer) DatumGetPointer(sa_result(i, 1, &isnull));

		add_row(found, tid, NULL, DatumGetBool(sa_result(i, 2, &isnull)));
	}
}

typedef struct Locking
{
	const SaWatch *watch;
	const SaTarget *target;
	Relation	relation;
	TupleTableSlot *slot;
	const uint8 *hashes;		/* of the target, sorted */
	int			n_hashes;
	MemoryContext scratch;
} Locking;

/* Is the row, as it is now, still one of those? */
static bool
still_matches(const Locking *locking, const uint8 *hash, bool *by_user, bool changed)
{
	const SaWatch *watch = locking->watch;
	const SaTarget *target = locking->target;

	if (changed)
	{
		if (sa_row_is_excluded(watch, locking->slot))
			return false;
		*by_user = target->users && finds_users(watch) &&
			is_one_of(sa_row_user(watch, locking->slot), target->users);
	}
	if (hash && target->keep && memcmp(hash, target->keep, SA_HASH_LEN) == 0)
		return false;
	if (*by_user)
		return true;
	/* without the session id, the key has to do */
	if (!SA_HAS(watch, SA_ROLE_SECRET))
		return !changed;
	return hash && is_among(hash, locking->hashes, locking->n_hashes);
}

/*
 * Was this version of a row made before a transaction, if that matters?  One that is
 * frozen still has its old id, which says nothing any more.
 */
static bool
is_before(TransactionId before, TupleTableSlot *slot)
{
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

/* Lock what was found, without waiting; what somebody else has is apart. */
static void
lock_found(Locking *locking, const SaRows *found, SaForget *forget, SaBusy *busy)
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
		state = sa_lock_row(locking->relation, &tid, LockTupleExclusive, locking->slot, busy);
		if (state == SA_ROW_GONE)
			continue;
		/* as far as anybody can tell, while it is changed */
		if (state == SA_ROW_BUSY &&
			!table_tuple_fetch_row_version(locking->relation, &tid, SnapshotAny, locking->slot))
			continue;
		if (!is_before(forget->before, locking->slot))
			continue;
		old = MemoryContextSwitchTo(locking->scratch);
		has_hash = sa_row_hash(locking->watch, locking->slot, hash);
		/* where somebody puts a token just now, there is none yet */
		matches = (state == SA_ROW_BUSY || sa_row_holds_secret(locking->watch, locking->slot)) &&
			still_matches(locking, has_hash ? hash : NULL, &by_user, state == SA_ROW_CHANGED);
		MemoryContextSwitchTo(old);
		MemoryContextReset(locking->scratch);
		ExecClearTuple(locking->slot);
		if (matches)
			add_row(state == SA_ROW_BUSY ? &forget->busy : &forget->rows, &tid,
					has_hash ? hash : NULL, by_user);
	}
}

/*
 * Rows that were found by the session that they held may hold one of somebody else by
 * now: of those that are locked, keep those whose session is still one of these users'.
 */
static void
confirm_users(SaForget *forget, const SaTarget *target)
{
	static SaStatement find_sessions = {.sql =
		"SELECT coalesce(array_agg(session_hash), '{}') FROM session_admin.session"
		" WHERE application = $1 AND session_hash = ANY ($2) AND user_name = ANY ($3)"
	};
	SaArgs		args = {0};
	int			n = 0;
	uint8	   *confirmed;
	int			n_confirmed;
	bool		isnull;

	if (forget->rows.n == 0)
		return;
	sa_arg_text(&args, forget->application);
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(sa_hashes_of(&forget->rows)), false);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(target->user_names), false);
	sa_run(&find_sessions, &args);
	confirmed = sorted_hashes(DatumGetArrayTypeP(sa_result(0, 1, &isnull)), &n_confirmed);
	for (int i = 0; i < forget->rows.n; i++)
	{
		SaForgetRow *row = &forget->rows.rows[i];

		if (row->by_user || !row->has_hash || is_among(row->hash, confirmed, n_confirmed))
			forget->rows.rows[n++] = *row;
	}
	forget->rows.n = n;
}

/* Why nothing can be ended there; NULL if it can. */
static const char *
refused_to_end(const SaWatch *watch, Relation relation)
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

/* Tell so, once. */
static bool
is_refused(const SaWatch *watch, Relation relation)
{
	const char *refused = refused_to_end(watch, relation);

	if (refused && sa_capture_failure_once(watch->application, watch->relid, "DELETE", refused))
		ereport(WARNING,
				(errmsg("\"%s\": %s", get_rel_name(watch->relid), refused),
				 errhint("Call session_admin.verify_attachments().")));
	return refused != NULL;
}

/* The watch of this table, opened; NULL if it is not watched, or not there, any more. */
static SaWatch *
open_watch(const SaForget *forget, Relation *relation)
{
	ListCell   *cell;

	*relation = NULL;
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(forget->relid)))
		return NULL;
	*relation = table_open(forget->relid, NoLock);
	foreach(cell, sa_watches_of(*relation))
	{
		SaWatch    *watch = lfirst(cell);

		if (watch->part == forget->part && strcmp(watch->application, forget->application) == 0 &&
			strcmp(watch->product, forget->product) == 0 && !is_refused(watch, *relation))
			return watch;
	}
	table_close(*relation, NoLock);
	*relation = NULL;
	return NULL;
}

typedef struct LockStep
{
	SaForget   *forget;
	SaBusy	   *busy;
	SaTarget	target;			/* as this table has it */
	SaRows		found;
} LockStep;

static int
compare_places(const void *a, const void *b)
{
	ItemPointerData place_a = ((const SaForgetRow *) a)->tid;
	ItemPointerData place_b = ((const SaForgetRow *) b)->tid;

	return ItemPointerCompare(&place_a, &place_b);
}

/* Search one table. */
static void
search_step(void *argument)
{
	LockStep   *step = argument;
	Relation	relation;
	SaWatch    *watch = open_watch(step->forget, &relation);

	if (watch == NULL)
		return;
	if (step->target.user_names)
		step->target.users = known_as(watch, step->target.user_names);
	search(watch, &step->target, relation, &step->found);
	table_close(relation, NoLock);
}

/* Lock what was found there, in one order for all. */
static void
lock_step(void *argument)
{
	LockStep   *step = argument;
	SaForget   *forget = step->forget;
	SaRows	   *found = &step->found;
	Locking		locking = {.target = &step->target};

	forget->watch = open_watch(forget, &locking.relation);
	if (forget->watch == NULL)
		return;
	locking.watch = forget->watch;
	locking.slot = table_slot_create(locking.relation, NULL);
	locking.scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
											ALLOCSET_DEFAULT_SIZES);
	locking.hashes = sorted_hashes(step->target.all_hashes, &locking.n_hashes);

	if (found->n > 1)
		qsort(found->rows, found->n, sizeof(SaForgetRow), compare_places);
	lock_found(&locking, found, forget, step->busy);
	if (step->target.user_names && forget->part == SA_PART_SESSION)
		confirm_users(forget, &step->target);

	MemoryContextDelete(locking.scratch);
	ExecDropSingleTupleTableSlot(locking.slot);
	table_close(locking.relation, NoLock);
}

/*
 * What the caller has to know, whatever a product does: a cancel of its own.  A product
 * may raise an error with any SQLSTATE, so that this tells nothing.
 */
bool
sa_was_canceled(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED && error->funcname != NULL &&
		strcmp(error->funcname, "ProcessInterrupts") == 0;
}

static void
note_failure(SaForget *forget, const ErrorData *error, bool timed_out)
{
	if (forget->message != NULL)
		return;
	forget->sqlstate = timed_out ? ERRCODE_QUERY_CANCELED : error->sqlerrcode;
	/* what a product's own code says may have the session id in it */
	if (error->sqlerrcode == ERRCODE_FOREIGN_KEY_VIOLATION && error->table_name)
		forget->message = psprintf("rows of \"%s\" refer to them", error->table_name);
	else if (timed_out)
		forget->message = psprintf("it took longer than %d s", BATCH_TIME / 1000);
	else if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		forget->message = "somebody has what refers to them locked";
	else
		forget->message = psprintf("it failed with SQLSTATE %s", unpack_sql_state(error->sqlerrcode));
}

/*
 * Search all these tables, and lock what is found.  What is not to be had is left out,
 * and the first of it told in *busy.
 */
void
sa_forget_lock(List *forgets, SaBusy *busy)
{
	ListCell   *cell;

	foreach(cell, forgets)
	{
		LockStep	step = {.forget = lfirst(cell), .busy = busy};
		ErrorData  *error;

		if (SA_STOPS(busy))
			return;

		step.forget->rows = (SaRows)
		{
			0
		};
		step.forget->busy = (SaRows)
		{
			0
		};
		step.forget->watch = NULL;
		step.forget->message = NULL;
		step.forget->unsearched = !sa_lock_table(step.forget->relid, RowExclusiveLock, busy);
		if (step.forget->unsearched)
			continue;
		step.target = step.forget->target;
		error = sa_attempt(search_step, &step);

		/*
		 * What may be given back is locked in no subtransaction of its own:
		 * who waits for a row waits for the whole transaction once that one
		 * has been released, and would not be told.
		 */
		if (error == NULL && busy->stops)
			lock_step(&step);
		else if (error == NULL)
			error = sa_attempt(lock_step, &step);
		if (error == NULL)
			continue;
		if (sa_was_canceled(error))
			ReThrowError(error);
		note_failure(step.forget, error, false);
		step.forget->unsearched = true;
	}
}

/* Is somebody else writing rows of sessions that are to end? */
bool
sa_forgets_busy(List *forgets)
{
	ListCell   *cell;

	foreach(cell, forgets)
	{
		SaForget   *forget = lfirst(cell);

		if (forget->part == SA_PART_SESSION && forget->busy.n > 0)
			return true;
	}
	return false;
}

/* Keep the rows of these sessions. */
static void
keep_these(SaRows *rows, ArrayType *hashes)
{
	int			n_hashes;
	uint8	   *sorted = sorted_hashes(hashes, &n_hashes);
	int			n = 0;

	for (int i = 0; i < rows->n; i++)
	{
		SaForgetRow *row = &rows->rows[i];

		if (!row->has_hash || is_among(row->hash, sorted, n_hashes))
			rows->rows[n++] = *row;
	}
	rows->n = n;
}

/* Of what is locked, keep the rows of these sessions. */
List *
sa_forgets_keep(List *forgets, ArrayType *hashes)
{
	ListCell   *cell;

	foreach(cell, forgets)
	{
		SaForget   *forget = lfirst(cell);

		keep_these(&forget->rows, hashes);
		keep_these(&forget->busy, hashes);
	}
	return forgets;
}

/*
 * Deleting
 */

static TimeoutId batch_timeout = MAX_TIMEOUTS;
static volatile sig_atomic_t batch_timed_out = false;

/* As a cancel, which what runs now heeds; of ours, the flag tells. */
static void
batch_timeout_handler(void)
{
	batch_timed_out = true;
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
executor_start(QueryDesc *query, int eflags)
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

typedef struct Batch
{
	SaForget   *forget;
	SaEnding   *ending;
	SaForgetRow *rows;
	int			n;
	int			result;			/* of SPI */
	uint64		deleted;
	bool		timed_out;
} Batch;

/* What ends a row's session or token. */
static char *
ending_verb(const SaWatch *watch, Relation relation)
{
	if (!watch->clears)
		return psprintf("DELETE FROM ONLY %s", table_name(relation));
	return psprintf("UPDATE ONLY %s SET %s = %s", table_name(relation),
					column_name(watch, SA_ROLE_SECRET),
					watch->clear_to ? quote_literal_cstr(watch->clear_to) : "NULL");
}

/* Delete the rows of a batch, which are locked. */
static void
delete_step(void *argument)
{
	Batch	   *batch = argument;
	Relation	relation = table_open(batch->forget->relid, RowExclusiveLock);
	Datum	   *tids = palloc(batch->n * sizeof(Datum));
	ArrayType  *places;
	SaArgs		args = {0};
	AsOwner		saved;

	for (int i = 0; i < batch->n; i++)
		tids[i] = PointerGetDatum(&batch->rows[i].tid);
	places = construct_array(tids, batch->n, TIDOID, sizeof(ItemPointerData), false,
							 TYPALIGN_SHORT);
	pfree(tids);
	sa_arg(&args, get_array_type(TIDOID), PointerGetDatum(places), false);
	owner_enter(&saved, relation);
	(void) set_config_option("lock_timeout", CASCADE_LOCK_WAIT, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	batch->result = run_as_owner(psprintf("%s WHERE ctid OPERATOR(pg_catalog.=) ANY ($1)",
										  ending_verb(batch->forget->watch, relation)), &args);
	batch->deleted = SPI_processed;
	owner_leave(&saved);
	table_close(relation, NoLock);
	pfree(places);
}

/*
 * Delete a batch for no longer than a limit; returns why not.  A trigger of the product
 * may call us again: then the time of the outer batch goes on.
 */
static ErrorData *
delete_batch(Batch *batch)
{
	bool		is_inner = batch_timeout != MAX_TIMEOUTS && get_timeout_active(batch_timeout);
	TimestampTz outer_until = is_inner ? get_timeout_finish_time(batch_timeout) : 0;
	bool		outer_timed_out = batch_timed_out;
	const SaWatch *outer_watch = forgetting_watch;
	SaEnding   *outer_forgetting = forgetting;
	ExecutorStart_hook_type outer_hook = outer_executor_start;
	ExecutorStart_hook_type hook = ExecutorStart_hook;
	int64		tokens_revoked = batch->ending->tokens_revoked;
	int			n_users = batch->ending->revoked_users ? batch->ending->revoked_users->nelems : 0;
	ErrorData  *volatile error = NULL;

	if (batch_timeout == MAX_TIMEOUTS)
		batch_timeout = RegisterTimeout(USER_TIMEOUT, batch_timeout_handler);
	forgetting_watch = batch->forget->watch;
	forgetting = batch->ending;
	if (hook != executor_start)
		outer_executor_start = hook;
	ExecutorStart_hook = executor_start;
	batch_timed_out = false;
	enable_timeout_every(batch_timeout, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BATCH_TIME),
						 BATCH_TIME);
	PG_TRY();
	{
		error = sa_attempt(delete_step, batch);
	}
	PG_FINALLY();
	{
		disable_timeout(batch_timeout, false);
		batch->timed_out = batch_timed_out;
		/* what came too late to stop anything must not stop what follows */
		if (batch_timed_out)
			QueryCancelPending = false;
		batch_timed_out = outer_timed_out;
		if (is_inner)
			enable_timeout_every(batch_timeout, outer_until, BATCH_TIME);
		ExecutorStart_hook = hook;
		outer_executor_start = outer_hook;
		forgetting_watch = outer_watch;
		forgetting = outer_forgetting;
	}
	PG_END_TRY();

	if (error != NULL)
	{
		batch->ending->tokens_revoked = tokens_revoked;
		if (batch->ending->revoked_users)
			batch->ending->revoked_users->nelems = n_users;
		if (sa_was_canceled(error) && !batch->timed_out)
			ReThrowError(error);
	}
	return error;
}

/* Which of a batch's rows are still there, though deleting them was no error? */
static void
find_kept(void *argument)
{
	Batch	   *batch = argument;
	SaForget   *forget = batch->forget;
	Relation	relation = table_open(forget->relid, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	SaRows		rows = {.n = batch->n, .rows = batch->rows};
	SaRows		found = {0};

	/* a rule or trigger may have changed them instead */
	SaTarget	target = {.hashes = sa_hashes_of(&rows)};
	Snapshot	snapshot;

	if (ArrayGetNItems(ARR_NDIM(target.hashes), ARR_DIMS(target.hashes)) > 0)
		search(forget->watch, &target, relation, &found);

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < found.n; i++)
	{
		uint8		hash[SA_HASH_LEN];

		if (table_tuple_fetch_row_version(relation, &found.rows[i].tid, snapshot, slot) &&
			sa_row_hash(forget->watch, slot, hash))
			add_row(&forget->left, &found.rows[i].tid, hash, true);
	}
	for (int i = 0; i < batch->n; i++)
	{
		if (!batch->rows[i].has_hash &&
			table_tuple_fetch_row_version(relation, &batch->rows[i].tid, snapshot, slot))
			add_row(&forget->left, &batch->rows[i].tid, NULL, true);
	}
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, NoLock);
}

static void
leave_rows(SaForget *forget, const SaForgetRow *rows, int n)
{
	for (int i = 0; i < n; i++)
		add_row(&forget->left, &rows[i].tid, rows[i].has_hash ? rows[i].hash : NULL,
				rows[i].by_user);
}

/* Is there no time left for this? */
static bool
is_over(const SaForget *forget)
{
	return forget->deadline != 0 && sa_monotonic_now() >= forget->deadline;
}

/* Delete rows, and find those that make it fail. */
static void
delete_rows(SaForget *forget, SaEnding *ending, SaForgetRow *rows, int n)
{
	Batch		batch = {.forget = forget, .ending = ending, .rows = rows, .n = n};
	ErrorData  *error;
	bool		slow;

	CHECK_FOR_INTERRUPTS();
	if (forget->failures >= FAILURES_MAX || is_over(forget))
	{
		leave_rows(forget, rows, n);
		return;
	}
	error = delete_batch(&batch);
	if (error == NULL)
	{
		forget->deleted += batch.deleted;
		if (batch.deleted == (uint64) n &&
			batch.result == (forget->watch->clears ? SPI_OK_UPDATE : SPI_OK_DELETE))
			return;
		if (forget->message == NULL)
			forget->message = "a rule or trigger keeps them";
		error = sa_attempt(find_kept, &batch);
		if (error != NULL && sa_was_canceled(error))
			ReThrowError(error);
		if (error != NULL)
			leave_rows(forget, rows, n);
		/* of many none: those that follow fare no better */
		if (batch.deleted == 0 && n > 1)
			forget->failures = FAILURES_MAX;
		return;
	}

	note_failure(forget, error, batch.timed_out);
	slow = batch.timed_out || error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
	if (slow)
		forget->failures += FAILURES_SLOW;
	else if (++forget->errors >= ERRORS_MAX)
		forget->failures = FAILURES_MAX;
	if (n == 1)
	{
		leave_rows(forget, rows, 1);
		return;
	}
	/* what takes so long is not tried again while somebody waits */
	if (batch.timed_out)
		forget->failures = FAILURES_MAX;
	delete_rows(forget, ending, rows, n / 2);
	delete_rows(forget, ending, rows + n / 2, n - n / 2);
}

/* Keep the rows of sessions that are valid. */
static void
spare_valid(SaForget *forget)
{
	static SaStatement find_valid = {.sql =
		"SELECT coalesce(array_agg(session_hash), '{}') FROM session_admin_internal.session_state"
		" WHERE application = $1 AND session_hash = ANY ($2) AND ended_at IS NULL"
	};
	SaArgs		args = {0};
	int			n_valid;
	int			n = 0;
	uint8	   *valid;
	bool		isnull;

	sa_arg_text(&args, forget->application);
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(sa_hashes_of(&forget->rows)), false);
	sa_run(&find_valid, &args);
	valid = sorted_hashes(DatumGetArrayTypeP(sa_result(0, 1, &isnull)), &n_valid);
	for (int i = 0; i < forget->rows.n; i++)
	{
		SaForgetRow *row = &forget->rows.rows[i];

		if (!row->has_hash || !is_among(row->hash, valid, n_valid))
			forget->rows.rows[n++] = *row;
	}
	forget->rows.n = n;
}

/* Begin with any of the rows, in the same order. */
static void
rotate_rows(SaRows *rows)
{
	SaForgetRow *rotated;
	int			first;

	if (rows->n < 2)
		return;
	first = (int) (pg_prng_uint64_range(&pg_global_prng_state, 0, rows->n - 1));
	rotated = palloc(rows->n * sizeof(SaForgetRow));
	for (int i = 0; i < rows->n; i++)
		rotated[i] = rows->rows[(first + i) % rows->n];
	rows->rows = rotated;
	rows->allocated = rows->n;
}

/* Delete the rows that are locked; those that cannot be deleted are left. */
void
sa_forget_rows(SaForget *forget, SaEnding *ending)
{
	int			batch = Max(BATCH_ROWS >> Min(forget->tries, 10), 1);

	if (forget->spares_valid && forget->part == SA_PART_SESSION)
		spare_valid(forget);
	/* what fails must not keep what follows from being tried for ever */
	if (forget->tries > 0)
		rotate_rows(&forget->rows);
	for (int i = 0; i < forget->rows.n; i += batch)
		delete_rows(forget, ending, forget->rows.rows + i, Min(batch, forget->rows.n - i));
}

/* The rows of this table cannot be deleted, as it lacks a column. */
static void
warn_of_users(const SaWatch *watch, ArrayType *user_names)
{
	const char *message = "rows are not deleted: no column names users any more";

	ereport(WARNING,
			(errmsg("\"%s\": %s", get_rel_name(watch->relid), message),
			 errhint("Call session_admin.verify_attachments().")));
	sa_capture_failure(watch->application, watch->relid, "DELETE", message, user_names);
}

/* Remember the sessions whose rows are gone: the caller ends them, too. */
static void
tell_forgotten(SaForget *forget, SaEnding *ending)
{
	if (forget->part != SA_PART_SESSION || ending->context == NULL)
		return;
	for (int i = 0; i < forget->rows.n; i++)
	{
		SaForgetRow *row = &forget->rows.rows[i];

		if (row->has_hash && row->by_user)
			ending->forgotten = accumArrayResult(ending->forgotten,
												 PointerGetDatum(sa_bytea(row->hash, SA_HASH_LEN)),
												 false, BYTEAOID, ending->context);
	}
}

/*
 * Delete what is locked; what remains is noted.  The caller ends the sessions, those in
 * ending->forgotten, too, if it has given a context.
 */
void
sa_forget(List *forgets, SaEnding *ending)
{
	ListCell   *cell;

	foreach(cell, forgets)
	{
		SaForget   *forget = lfirst(cell);

		if (!forget->unsearched && forget->watch != NULL)
		{
			if (forget->part == SA_PART_REMEMBER_ME && !has_users(forget->watch))
				warn_of_users(forget->watch, forget->target.user_names);
			sa_forget_rows(forget, ending);
			tell_forgotten(forget, ending);
		}
		if (!ending->skips_locked)
			leave_rows(forget, forget->busy.rows, forget->busy.n);
		if (forget->left.n > 0 || (forget->unsearched && !ending->skips_locked) ||
			(forget->unsearched && forget->message != NULL))
			sa_remain(forget, ending);
	}
}

/*
 * Whose rows
 */

static ArrayType *
result_array(uint64 row, int column)
{
	bool		isnull;
	Datum		value = sa_result(row, column, &isnull);

	return isnull ? NULL : DatumGetArrayTypePCopy(value);
}

/* The tables of the application in which sessions and tokens are; all products: NULL. */
List *
sa_forgets_of(const char *application, const char *product)
{
	static SaStatement find_tables = {.sql =
		"SELECT a.application::text, a.product::text, a.part::text, a.relation::oid, a.table_name"
		" FROM session_admin_internal.attachment a JOIN pg_class c ON c.oid = a.relation"
		" WHERE a.application = $1 AND ($2 IS NULL OR a.product = $2)"
		"  AND a.part IN ('session', 'remember_me')"
		/* of a table that was dropped, another one may have the number by now */
		"  AND (a.relation::regclass::text = a.table_name OR EXISTS (SELECT FROM pg_trigger"
		"    WHERE tgrelid = a.relation AND tgfoid = 'session_admin.capture'::regproc))"
		" ORDER BY a.relation::oid, a.product, a.part"
	};
	SaArgs		args = {0};
	List	   *forgets = NIL;
	uint64		rows;

	sa_arg_text(&args, application);
	sa_arg_text(&args, product);
	rows = sa_run(&find_tables, &args);
	for (uint64 i = 0; i < rows; i++)
	{
		SaForget   *forget = palloc0(sizeof(SaForget));
		bool		isnull;

		forget->application = sa_result_text(i, 1);
		forget->product = sa_result_text(i, 2);
		forget->part = (SaPart) sa_find_name(sa_part_names, SA_NPARTS, sa_result_text(i, 3));
		forget->relid = DatumGetObjectId(sa_result(i, 4, &isnull));
		forget->table = sa_result_text(i, 5);
		forgets = lappend(forgets, forget);
	}
	return forgets;
}

/*
 * The tables in which these sessions are.  "which" finds the sessions: it gives
 * application, product, their keys, the hashes of those that have no key, and those of
 * all.  The caller is connected to SPI.
 */
List *
sa_forgets_of_sessions(SaStatement *which, SaArgs *args)
{
	uint64		n = sa_run(which, args);
	SaForget   *told = palloc0((n + 1) * sizeof(SaForget));
	List	   *result = NIL;

	for (uint64 i = 0; i < n; i++)
	{
		told[i].application = sa_result_text(i, 1);
		told[i].product = sa_result_text(i, 2);
		told[i].target.keys = result_array(i, 3);
		told[i].target.hashes = result_array(i, 4);
		told[i].target.all_hashes = result_array(i, 5);
	}
	for (uint64 i = 0; i < n; i++)
	{
		ListCell   *cell;

		foreach(cell, sa_forgets_of(told[i].application, told[i].product))
		{
			SaForget   *forget = lfirst(cell);

			if (forget->part != SA_PART_SESSION)
				continue;
			forget->target = told[i].target;
			result = lappend(result, forget);
		}
	}
	return result;
}

/*
 * Delete the rows that sessions have in the products' own tables, as far as that can be
 * done without waiting.  The caller is connected to SPI, and ends the sessions.
 */
void
sa_capture_forget_sessions(SaStatement *which, SaArgs *args, SaEnding *ending)
{
	List	   *forgets = sa_forgets_of_sessions(which, args);
	SaBusy		busy = {0};

	sa_forget_lock(forgets, &busy);
	sa_forget(forgets, ending);
}

/* Is there no row in the table, for a snapshot taken now? */
bool
sa_capture_is_empty(Oid relid)
{
	Relation	relation = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	bool		any = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, NoLock);
	return !any;
}

/*
 * Those of these hashes (all distinct) for which there is no row of the session part
 * that a snapshot taken now sees; *n is how many.  Asked as the owner of the table: to
 * plan it may run what its indexes and statistics call.  Who may not read the own table
 * has no answer, and none are missed.
 */
ArrayType *
sa_capture_without_rows(const SaWatch *watch, ArrayType *hashes, int *n)
{
	Oid			type = BYTEAARRAYOID;
	Datum		value = PointerGetDatum(hashes);
	char	   *sql = psprintf("SELECT pg_catalog.array_agg(h.hash ORDER BY h.hash)"
							   " FROM pg_catalog.unnest($1) AS h (hash)"
							   " WHERE NOT EXISTS (SELECT FROM ONLY %s t WHERE %s OPERATOR(pg_catalog.=) h.hash)",
							   quote_qualified_identifier(get_namespace_name(get_rel_namespace(watch->relid)),
														  get_rel_name(watch->relid)),
							   hash_expression(watch));
	Relation	relation = table_open(watch->relid, AccessShareLock);
	Oid			owner = relation->rd_rel->relowner;
	ArrayType  *result = NULL;
	AsOwner		saved;
	SPIPlanPtr	plan;
	bool		isnull;
	Datum		found;

	*n = 0;
	if (pg_class_aclcheck(watch->relid, owner, ACL_SELECT) != ACLCHECK_OK)
	{
		table_close(relation, NoLock);
		return NULL;
	}
	owner_enter(&saved, relation);
	/* without an index on the hashes it would read the table for each of them */
	(void) set_config_option("enable_nestloop", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	plan = SPI_prepare(sql, 1, &type);
	if (plan == NULL)
		elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
	SPI_execute_snapshot(plan, &value, " ", GetLatestSnapshot(), InvalidSnapshot, false, true, 0);
	owner_leave(&saved);
	found = sa_result(0, 1, &isnull);
	if (!isnull)
	{
		result = DatumGetArrayTypePCopy(found);
		*n = ArrayGetNItems(ARR_NDIM(result), ARR_DIMS(result));
	}
	SPI_freeplan(plan);
	table_close(relation, NoLock);
	return result;
}

/*
 * Delete rows that a statement of the product itself has just written, by the ids in
 * them and the hashes of these.  What cannot be deleted is noted, once; what takes long is
 * not tried again with each such statement.  Returns how many are gone.  The caller is
 * connected to SPI.
 */
uint64
sa_capture_forget_rows(const SaWatch *watch, ArrayType *secrets, ArrayType *hashes,
					   SaEnding *ending)
{
	SaForget	forget = {
		.application = watch->application,
		.product = watch->product,
		.part = watch->part,
		.relid = watch->relid,
		.table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(watch->relid)),
											get_rel_name(watch->relid))
	};
	SaBusy		busy = {0};

	hashes = sa_remains_not(watch->application, hashes, true);
	if (ArrayGetNItems(ARR_NDIM(hashes), ARR_DIMS(hashes)) == 0)
		return 0;
	forget.target.secrets = secrets;
	forget.target.hashes = forget.target.all_hashes = hashes;
	sa_forget_lock(list_make1(&forget), &busy);
	if (!forget.unsearched && forget.watch != NULL)
		sa_forget_rows(&forget, ending);
	leave_rows(&forget, forget.busy.rows, forget.busy.n);
	if (forget.left.n > 0 || forget.unsearched)
	{
		forget.target.all_hashes = sa_remains_not(watch->application, hashes, false);
		keep_these(&forget.left, forget.target.all_hashes);
		if (forget.left.n > 0 || forget.unsearched)
			sa_remain(&forget, ending);
	}
	return forget.deleted;
}

/* The users' sessions that products have, but for the one that is kept. */
static void
add_sessions(List *forgets, const char *application, ArrayType *user_names, const uint8 *keep)
{
	static SaStatement find_sessions_of_users = {.sql =
		"SELECT product::text,"
		"  array_agg(product_key::text) FILTER (WHERE product_key IS NOT NULL),"
		"  array_agg(session_hash) FILTER (WHERE product_key IS NULL),"
		"  array_agg(session_hash)"
		" FROM session_admin.session"
		" WHERE application = $1 AND user_name = ANY ($2) AND product IS NOT NULL"
		"  AND session_hash IS DISTINCT FROM $3"
		" GROUP BY product"
	};
	SaArgs		args = {0};
	uint64		n;

	sa_arg_text(&args, application);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(user_names), false);
	sa_arg(&args, BYTEAOID, keep ? PointerGetDatum(sa_bytea(keep, SA_HASH_LEN)) : (Datum) 0,
		   keep == NULL);
	n = sa_run(&find_sessions_of_users, &args);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *product = sa_result_text(i, 1);
		ListCell   *cell;

		foreach(cell, forgets)
		{
			SaForget   *forget = lfirst(cell);

			if (forget->part != SA_PART_SESSION || strcmp(forget->product, product) != 0)
				continue;
			forget->target.keys = result_array(i, 2);
			forget->target.hashes = result_array(i, 3);
			forget->target.all_hashes = result_array(i, 4);
		}
	}
}

/*
 * The tables in which these users have rows, but for one session, and for tokens if they
 * are kept.  The caller is connected to SPI.
 */
List *
sa_forgets_of_users(const char *application, ArrayType *user_names, const uint8 *keep_session,
					bool keep_remember_me)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, sa_forgets_of(application, NULL))
	{
		SaForget   *forget = lfirst(cell);

		if (forget->part == SA_PART_REMEMBER_ME && keep_remember_me)
			continue;
		/* by the user, too: not all rows may be known yet */
		forget->target.user_names = user_names;
		if (forget->part == SA_PART_SESSION)
			forget->target.keep = keep_session;
		result = lappend(result, forget);
	}
	add_sessions(result, application, user_names, keep_session);
	return result;
}

/*
 * Everything
 */

/* Delete the rows that are locked so far. */
static void
delete_so_far(SaForget *forget, SaEnding *ending)
{
	sa_forget_rows(forget, ending);
	forget->rows.n = 0;
}

/* Delete all rows of a table, or those of transactions before one. */
static void
empty_table(SaForget *forget, SaEnding *ending, Relation relation)
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
		if (!is_before(forget->before, found))
			continue;
		state = sa_lock_row(relation, &tid, LockTupleExclusive, slot, &busy);
		if (state == SA_ROW_GONE)
			continue;
		old = MemoryContextSwitchTo(scratch);
		excluded = sa_row_is_excluded(forget->watch, state == SA_ROW_BUSY ? found : slot) ||
			(state != SA_ROW_BUSY && !sa_row_holds_secret(forget->watch, slot));
		has_hash = sa_row_hash(forget->watch, state == SA_ROW_BUSY ? found : slot, hash);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (!excluded)
			add_row(state == SA_ROW_BUSY ? &forget->left : &forget->rows, &tid,
					has_hash ? hash : NULL, true);
		if (forget->rows.n >= BATCH_ROWS)
			delete_so_far(forget, ending);
		/* as many as that are tried again from the beginning */
		over = forget->left.n >= LEFT_MAX || is_over(forget);
		if (over)
			break;
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(found);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(scratch);
	delete_so_far(forget, ending);
	if (over || forget->left.n >= LEFT_MAX)
	{
		forget->left.n = 0;
		forget->unsearched = true;
	}
}

typedef struct EmptyStep
{
	SaForget   *forget;
	SaEnding   *ending;
} EmptyStep;

static void
empty_step(void *argument)
{
	EmptyStep  *step = argument;
	SaForget   *forget = step->forget;
	Relation	relation;

	forget->watch = open_watch(forget, &relation);
	if (forget->watch == NULL)
		return;
	empty_table(forget, step->ending, relation);
	table_close(relation, NoLock);
}

/* Does anybody else write the table now, so that there may be rows that nobody sees? */
static bool
has_writers(Oid relid)
{
	return VirtualTransactionIdIsValid(sa_writers_of(relid)[0]);
}

/* Empty one table, as far as that can be done without waiting. */
void
sa_forget_table(SaForget *forget, SaEnding *ending)
{
	EmptyStep	step = {forget, ending};
	int64		tokens_revoked = ending->tokens_revoked;
	SaBusy		busy = {0};
	ErrorData  *error;

	forget->everything = true;
	forget->unsearched = !sa_lock_table(forget->relid, RowExclusiveLock, &busy);
	if (forget->unsearched)
		return;
	/* sessions that nobody sees end with their generation */
	forget->invisible = forget->part == SA_PART_REMEMBER_ME && has_writers(forget->relid);
	error = sa_attempt(empty_step, &step);
	if (error == NULL)
		return;
	if (sa_was_canceled(error))
		ReThrowError(error);
	note_failure(forget, error, false);
	ending->tokens_revoked = tokens_revoked;
	forget->left.n = 0;
	forget->unsearched = true;
}

/*
 * Empty the products' own tables of sessions and remember-me tokens, and count the
 * tokens.  By DELETE, as TRUNCATE would wait for everybody who reads them, pg_dump for
 * instance, and keep all others out meanwhile.  What is not committed yet, nobody sees:
 * of sessions, it ends with its generation, and is deleted when that is archived.
 */
void
sa_capture_forget_application(const char *application, SaEnding *ending)
{
	ListCell   *cell;

	if (ending->spares_products)
		return;
	foreach(cell, sa_forgets_of(application, NULL))
	{
		SaForget   *forget = lfirst(cell);

		sa_forget_table(forget, ending);
		if (forget->left.n > 0 || forget->unsearched || forget->invisible)
			sa_remain(forget, ending);
	}
}

/*
 * Before all that: wait for those who write the tables of an application (NULL: of all),
 * so that what they write is seen.  Nothing is locked yet.  False if that took too long.
 */
bool
sa_forget_wait_for_writers(const char *application, TimestampTz until)
{
	static SaStatement find_relations = {.sql =
		"SELECT DISTINCT a.relation::oid FROM session_admin_internal.attachment a"
		" WHERE a.part IN ('session', 'remember_me') AND ($1 IS NULL OR a.application = $1)"
		" ORDER BY 1"
	};
	SaArgs		args = {0};
	uint64		n;
	Oid		   *relids;

	if (until == 0)
		return true;
	sa_arg_text(&args, application);
	n = sa_run(&find_relations, &args);
	relids = palloc((n + 1) * sizeof(Oid));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(sa_result(i, 1, &isnull));
	}
	for (uint64 i = 0; i < n; i++)
	{
		for (VirtualTransactionId *writer = sa_writers_of(relids[i]);
			 VirtualTransactionIdIsValid(*writer); writer++)
		{
			SaBusy		busy = {.any = true, .writer = *writer};

			if (!sa_wait_for(&busy, until))
				return false;
		}
	}
	return true;
}

/*
 * What may keep rows of this table from being deleted (or a column from being cleared)
 * when sessions end, as far as that can be seen now: an array of text.  The caller is
 * connected to SPI.
 */
ArrayType *
sa_forget_obstacles(Oid relid, bool clears)
{
	static SaStatement find_obstacles = {.sql =
		"SELECT coalesce(array_agg(o.note ORDER BY o.n, o.note), '{}') FROM ("
		"  SELECT 1 AS n, format('rows that %s refers to cannot be deleted', c.conrelid::regclass) AS note"
		"  FROM pg_constraint c WHERE c.confrelid = $1 AND c.contype = 'f' AND NOT $2"
		"   AND c.confdeltype IN ('a', 'r') AND c.conparentid = 0"
		"  UNION ALL"
		"  SELECT 2, format('rule \"%s\" says what becomes of rows that end', r.rulename)"
		"  FROM pg_rewrite r WHERE r.ev_class = $1 AND r.ev_type = CASE WHEN $2 THEN '2' ELSE '4' END"
		"   AND r.ev_enabled <> 'D'"
		"  UNION ALL"
		"  SELECT 3, format('trigger \"%s\" may keep rows that end', t.tgname)"
		"  FROM pg_trigger t WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled <> 'D'"
		"   AND t.tgtype & 2 > 0 AND t.tgtype & CASE WHEN $2 THEN 16 ELSE 8 END > 0"
		"  UNION ALL"
		"  SELECT 4, format('its owner %s may not change it', pg_get_userbyid(c.relowner))"
		"  FROM pg_class c WHERE c.oid = $1"
		"   AND NOT has_table_privilege(c.relowner, c.oid, CASE WHEN $2 THEN 'UPDATE' ELSE 'DELETE' END)"
		"  UNION ALL"
		"  SELECT 5, 'policies hold for its owner, too; rows that end are deleted all the same'"
		"  FROM pg_class c WHERE c.oid = $1 AND c.relrowsecurity AND c.relforcerowsecurity"
		" ) o"
	};
	SaArgs		args = {0};
	bool		isnull;

	sa_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	sa_arg(&args, BOOLOID, BoolGetDatum(clears), false);
	sa_run(&find_obstacles, &args);
	return DatumGetArrayTypePCopy(sa_result(0, 1, &isnull));
}
