/*
 * reconcile.c
 *	  Compares the sessions of products with the rows in the products' own tables.
 *
 * The net under the triggers: it finds whatever was done while they were disabled, by
 * TRUNCATE or COPY in a replica's role, or to the table as a whole.  README.md says how
 * both sides go on meanwhile.
 */
#include "attach/reconcile.h"
#include "policy/policy.h"
#include "ending/ending.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define SLICE			10000	/* rows or sessions that the worker looks at */
#define SESSIONS		100000	/* that are sought in one pass over the table */

PG_FUNCTION_INFO_V1(sa_reconcile_sessions);

/*
 * What there is of tables of sessions, and of sessions whose table is gone: dropped,
 * renamed so that another one has its name, or not attached any more.
 */
static Pair *
reconcile_list(const char *application, bool only_gone, int *n)
{
	/*
	 * from one product to the next by the index, however many sessions each
	 * has
	 */
	static SaStatement find_pairs = {.sql =
		"WITH RECURSIVE known AS ("
		"  (SELECT application, product FROM session_admin.session WHERE product IS NOT NULL"
		"   ORDER BY application, product LIMIT 1)"
		"  UNION ALL"
		"  SELECT n.application, n.product FROM known k CROSS JOIN LATERAL ("
		"   SELECT s.application, s.product FROM session_admin.session s WHERE s.product IS NOT NULL"
		"    AND (s.application, s.product) > (k.application, k.product)"
		"   ORDER BY s.application, s.product LIMIT 1) n"
		")"
		" SELECT a.application::text, a.product::text, a.table_name,"
		"  CASE WHEN c.oid IS NOT NULL AND o.other IS NULL THEN a.relation::oid END,"
		"  CASE WHEN c.oid IS NULL THEN 'the table is gone'"
		"    WHEN o.other IS NOT NULL THEN 'another table has its name: attach_application() again' END,"
		"  coalesce(r.was_empty, false) OR b.finished_at IS NOT NULL"
		"   OR a.attached_at < clock_timestamp() - interval '10 minutes'"
		" FROM session_admin_internal.attachment a"
		" LEFT JOIN pg_class c ON c.oid = a.relation"
		" CROSS JOIN LATERAL (SELECT CASE WHEN to_regclass(a.table_name) <> a.relation"
		"   THEN to_regclass(a.table_name) END AS other) o"
		" LEFT JOIN session_admin_internal.reconciliation r"
		"  ON r.application = a.application AND r.product = a.product"
		" LEFT JOIN session_admin_internal.backfill b"
		"  ON b.application = a.application AND b.product = a.product AND b.part = a.part"
		" WHERE a.part = 'session' AND ($1 IS NULL OR a.application = $1)"
		"  AND (NOT $2 OR c.oid IS NULL OR o.other IS NOT NULL)"
		"  AND EXISTS (SELECT FROM session_admin_internal.attachment_column k WHERE k.application = a.application"
		"    AND k.product = a.product AND k.part = a.part AND k.role IN ('user_name', 'user_key'))"
		" UNION ALL"
		" SELECT s.application::text, s.product::text, '', NULL, 'no table is attached', true"
		" FROM known s"
		" WHERE ($1 IS NULL OR s.application = $1) AND NOT EXISTS (SELECT FROM session_admin_internal.attachment a WHERE a.application = s.application"
		"   AND a.product = s.product AND a.part = 'session')"
		" ORDER BY 1, 2"
	};
	SaArgs		args = {0};
	Pair	   *pairs;

	sa_arg_text(&args, application);
	sa_arg(&args, BOOLOID, BoolGetDatum(only_gone), false);
	*n = (int) sa_run(&find_pairs, &args);
	pairs = palloc0((*n + 1) * sizeof(Pair));
	for (int i = 0; i < *n; i++)
	{
		bool		isnull;
		Datum		relid = sa_result(i, 4, &isnull);
		char	   *note = sa_result_text(i, 5);

		pairs[i].application = sa_result_text(i, 1);
		pairs[i].product = sa_result_text(i, 2);
		pairs[i].table_name = sa_result_text(i, 3);
		pairs[i].relid = isnull ? InvalidOid : DatumGetObjectId(relid);
		pairs[i].note = note ? note : "";
		pairs[i].takes_new = DatumGetBool(sa_result(i, 6, &isnull));
	}
	return pairs;
}

static const SaWatch *
reconcile_watch(Relation relation, const Pair *pair)
{
	ListCell   *cell;

	foreach(cell, sa_watches_of(relation))
	{
		SaWatch    *watch = lfirst(cell);

		if (watch->part == SA_PART_SESSION && strcmp(watch->application, pair->application) == 0 &&
			strcmp(watch->product, pair->product) == 0)
			return watch;
	}
	return NULL;
}

/*
 * Go on from the position, through so many rows and sessions at most; returns how many
 * there were.
 */
static int64
reconcile_pair(Pair *pair, Position *position, int64 limit, bool tell)
{
	Relation	relation = NULL;
	const SaWatch *watch = NULL;
	int64		n = 0;

	if (OidIsValid(pair->relid))
	{
		relation = try_table_open(pair->relid, RowShareLock);
		watch = relation ? reconcile_watch(relation, pair) : NULL;
		if (watch == NULL || !SA_HAS(watch, SA_ROLE_SECRET) ||
			!(SA_HAS(watch, SA_ROLE_USER_NAME) || SA_HAS(watch, SA_ROLE_USER_KEY)))
		{
			pair->note = "not compared: see verify_attachments()";
			position->finished = true;
			if (relation)
				table_close(relation, NoLock);
			return 0;
		}
	}
	if (!position->in_sessions && relation != NULL)
		n += sa_reconcile_rows_of(pair, watch, relation, position, limit, tell);
	if (relation == NULL || position->in_sessions)
	{
		while (!position->finished && n < limit)
		{
			CHECK_FOR_INTERRUPTS();
			n += sa_reconcile_sessions_of(pair, watch, position, Min(limit - n, SESSIONS), tell);
		}
	}
	if (relation)
		table_close(relation, NoLock);
	return n;
}

static Position
reconcile_beginning(void)
{
	Position	position = {0};

	ItemPointerSet(&position.next_row, 0, FirstOffsetNumber);
	return position;
}

/* reconcile_sessions(application) */
Datum
sa_reconcile_sessions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *application = sa_application_arg(fcinfo, 0);
	Pair	   *pairs;
	int			n;

	sa_init_materialized_srf(fcinfo);
	SPI_connect();
	pairs = reconcile_list(application, false, &n);
	if (n == 0)
		ereport(NOTICE,
				(errmsg("no table of sessions that names users is attached to application \"%s\"", application),
				 errhint("See session_admin.verify_attachments() for what is attached to which application.")));
	for (int i = 0; i < n; i++)
	{
		Pair	   *pair = &pairs[i];
		Position	position = reconcile_beginning();
		SaApplication state;
		Datum		values[7];
		bool		nulls[7] = {false};

		/* what came from a dump ends first, with the product's rows */
		sa_application_ensure(pair->application, &state);
		pair->takes_new = true;
		reconcile_pair(pair, &position, PG_INT64_MAX, true);
		values[0] = CStringGetTextDatum(pair->product);
		values[1] = CStringGetTextDatum(pair->table_name);
		values[2] = Int64GetDatum(pair->rows_read);
		values[3] = Int64GetDatum(pair->ended);
		values[4] = Int64GetDatum(pair->taken);
		values[5] = Int64GetDatum(pair->deleted);
		values[6] = CStringGetTextDatum(pair->note);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	SPI_finish();
	return (Datum) 0;
}

/*
 * A product was attached anew: what has no row in its table ends, which may be another
 * one now.  Rows that are there are for backfill_sessions; if there are none, whatever
 * comes unseen is a difference.  The caller is connected to SPI and has the table locked
 * against writers.
 */
void
sa_reconcile_attached(const char *application, const char *product)
{
	static SaStatement note_empty = {.sql =
		"INSERT INTO session_admin_internal.reconciliation"
		" (application, product, in_sessions, next_row, last_hash, was_empty)"
		" VALUES ($1, $2, false, '(0,1)', decode(repeat('00', 32), 'hex'), true)"
		" ON CONFLICT (application, product) DO UPDATE SET was_empty = true"
	};
	int			n;
	Pair	   *pairs = reconcile_list(application, false, &n);

	for (int i = 0; i < n; i++)
	{
		Position	position = reconcile_beginning();

		if (strcmp(pairs[i].product, product) != 0)
			continue;
		position.in_sessions = true;
		reconcile_pair(&pairs[i], &position, PG_INT64_MAX, false);
		if (OidIsValid(pairs[i].relid) && sa_table_is_empty(pairs[i].relid))
		{
			SaArgs		args = {0};

			sa_arg_text(&args, application);
			sa_arg_text(&args, product);
			sa_run(&note_empty, &args);
		}
	}
}

/* End the sessions whose table is gone: a task of maintain(). */
int64
sa_reconcile_gone(bool *more)
{
	int			n;
	Pair	   *pairs = reconcile_list(NULL, true, &n);
	int64		ended = 0;

	for (int i = 0; i < n; i++)
	{
		Position	position = reconcile_beginning();

		reconcile_pair(&pairs[i], &position, RECONCILE_BATCH, false);
		ended += pairs[i].ended;
	}
	*more = ended >= RECONCILE_BATCH;
	return ended;
}

/* Where the last slice ended; from the beginning, if the table was written anew. */
static Position
reconcile_read_position(const Pair *pair)
{
	static SaStatement find_position = {.sql =
		"SELECT in_sessions, CASE WHEN file = pg_relation_filenode($3) THEN next_row ELSE '(0,1)' END,"
		"  last_hash FROM session_admin_internal.reconciliation WHERE application = $1 AND product = $2"
	};
	Position	position = reconcile_beginning();
	SaArgs		args = {0};
	bool		isnull;

	sa_arg_text(&args, pair->application);
	sa_arg_text(&args, pair->product);
	sa_arg(&args, REGCLASSOID, ObjectIdGetDatum(pair->relid), false);
	if (sa_run(&find_position, &args) == 0)
		return position;
	position.in_sessions = DatumGetBool(sa_result(0, 1, &isnull));
	position.next_row = *(ItemPointer) DatumGetPointer(sa_result(0, 2, &isnull));
	memcpy(position.last_hash, VARDATA_ANY(DatumGetByteaPP(sa_result(0, 3, &isnull))), SA_HASH_LEN);
	return position;
}

static void
reconcile_note_position(const Pair *pair, Position position)
{
	static SaStatement upsert = {.sql =
		"INSERT INTO session_admin_internal.reconciliation AS r"
		" (application, product, in_sessions, next_row, file, last_hash, differences, last_at)"
		" VALUES ($1, $2, $3, $4, pg_relation_filenode($5), $6, $7, clock_timestamp())"
		" ON CONFLICT (application, product) DO UPDATE SET in_sessions = $3, next_row = $4,"
		"  file = excluded.file, last_hash = $6, differences = r.differences + $7,"
		"  last_at = excluded.last_at"
	};
	SaArgs		args = {0};

	if (position.finished)
		position = reconcile_beginning();
	sa_arg_text(&args, pair->application);
	sa_arg_text(&args, pair->product);
	sa_arg(&args, BOOLOID, BoolGetDatum(position.in_sessions), false);
	sa_arg(&args, TIDOID, PointerGetDatum(&position.next_row), false);
	sa_arg(&args, REGCLASSOID, ObjectIdGetDatum(pair->relid), false);
	sa_arg_hash(&args, position.last_hash);
	sa_arg(&args, INT8OID, Int64GetDatum(pair->ended + pair->taken + pair->deleted), false);
	sa_run(&upsert, &args);
}

/* What a slice of a table is reconciled by. */
typedef struct Slice
{
	Pair	   *pair;
	Position	position;
	int64		left;			/* so many rows and sessions, at most */
} Slice;

static void
reconcile_step(void *argument)
{
	Slice	   *slice = argument;

	slice->position = reconcile_read_position(slice->pair);
	slice->left -= reconcile_pair(slice->pair, &slice->position, slice->left, false);
	reconcile_note_position(slice->pair, slice->position);
}

/* One product's table that cannot be compared does not keep the others from it. */
static int64
reconcile_slice(Pair *pair, int64 left)
{
	Slice		slice = {.pair = pair, .left = left};
	ErrorData  *error = sa_attempt(reconcile_step, &slice);
	char	   *message;

	if (error == NULL)
		return slice.left;
	if (sa_was_canceled(error))
		ReThrowError(error);
	pair->ended = pair->taken = pair->deleted = 0;
	/* the message may be the product's, and tell what nobody should read */
	message = psprintf("rows were not compared with sessions: SQLSTATE %s",
					   unpack_sql_state(error->sqlerrcode));
	/* a table that is locked is no failure */
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED &&
		sa_failure_note_once(pair->application, pair->relid, "UPDATE", message))
		ereport(WARNING,
				(errmsg("\"%s\": %s", pair->table_name, message),
				 errhint("Call session_admin.reconcile_sessions() to see why.")));
	/* the others come first the next time */
	reconcile_note_position(pair, reconcile_read_position(pair));
	return left - 1;
}

/*
 * A slice of one table, the one that has waited longest: a task of maintain().  Small
 * tables are gone through as a whole.
 */
int64
sa_reconcile_slice(pg_attribute_unused() bool *more)
{
	static SaStatement find_last = {.sql =
		"SELECT extract(epoch FROM max(last_at))::bigint FROM session_admin_internal.reconciliation"
		" WHERE application = $1 AND product = $2"
	};
	int			n;
	Pair	   *pairs = reconcile_list(NULL, false, &n);
	bool	   *done = palloc0((n + 1) * sizeof(bool));
	int64		left = SLICE;
	int64		differences = 0;

	while (left > 0)
	{
		Pair	   *oldest = NULL;
		int64		oldest_at = PG_INT64_MAX;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
		{
			SaArgs		args = {0};

			if (done[i] || !OidIsValid(pairs[i].relid))
				continue;
			sa_arg_text(&args, pairs[i].application);
			sa_arg_text(&args, pairs[i].product);
			sa_run(&find_last, &args);
			if (sa_result_int64(0, 1) < oldest_at)
			{
				oldest = &pairs[i];
				oldest_at = sa_result_int64(0, 1);
			}
		}
		if (oldest == NULL)
			break;
		done[oldest - pairs] = true;
		/* a table that is locked is left for the next time */
		if (!ConditionalLockRelationOid(oldest->relid, RowShareLock))
			continue;
		left = reconcile_slice(oldest, left);
		differences += oldest->ended + oldest->taken + oldest->deleted;
	}
	return differences;
}
