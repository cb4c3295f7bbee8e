/*
 * reconcile.c
 *	  Compares the sessions of products with the rows in the products' own tables.
 *
 * The net under the triggers: whatever was done while they were disabled, by TRUNCATE
 * or COPY in a replica's role, or to the table as a whole, is found here.  A session
 * whose row is gone ends; a row of which nothing is known is taken up as
 * backfill_sessions does, counting no login; one that has another user, key or time is
 * brought in line; one with the id of a session that has ended is deleted.
 *
 * Both sides go on meanwhile, and nobody is waited for.  What a batch finds doubtful is
 * looked at once more: a row is locked in the way in which a foreign key locks, and
 * left alone if it has changed since, as then its trigger has fired.  A session is
 * locked, and its row sought again with a snapshot that is taken after that: what has
 * committed until then is seen.  What is locked is left for the next time.
 *
 * If the row of a session that ends here comes back, that is a new session: the
 * product may use the id again, as after a logout.
 */
#include "attach/attach.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_reconcile_sessions);

#define REASON			"custom:reconciled"

#define BATCH			1000	/* rows that are compared, sessions that end,
								 * at a time */
#define SLICE			10000	/* rows or sessions that the worker looks at */
#define SESSIONS		100000	/* that are sought in one pass over the table */

/* What there is to be compared. */
typedef struct Pair
{
	char	   *application;
	char	   *product;
	char	   *table_name;
	Oid			relid;			/* InvalidOid: the table is gone, or nothing
								 * is attached */
	const char *note;
	bool		takes_new;		/* rows of which nothing is known */
	int64		rows_read;
	int64		ended;
	int64		taken;
	int64		deleted;
} Pair;

/* How far it has come: first through the rows, then through the sessions. */
typedef struct Position
{
	bool		in_sessions;
	ItemPointerData next_row;
	uint8		last_hash[SA_HASH_LEN];
	bool		finished;
} Position;

static void
report_progress(const Pair *pair, const char *of_what, int64 n)
{
	ereport(NOTICE,
			(errmsg("%s of \"%s\": " INT64_FORMAT " so far", of_what, pair->table_name, n)));
}

/*
 * Sessions whose rows are gone
 */

/* An array of bytea in the result; NULL if it is empty. */
static ArrayType *
result_hashes(int *n)
{
	bool		isnull;
	Datum		value = sa_result(0, 1, &isnull);
	ArrayType  *hashes;

	*n = 0;
	if (isnull)
		return NULL;
	hashes = DatumGetArrayTypePCopy(value);
	*n = ArrayGetNItems(ARR_NDIM(hashes), ARR_DIMS(hashes));
	return hashes;
}

/* Those of these sessions that nobody has locked; from here on we have. */
static ArrayType *
lock_sessions(const Pair *pair, ArrayType *hashes, int *n)
{
	static SaStatement lock = {.sql =
		"SELECT array_agg(session_hash) FROM ("
		"  SELECT session_hash FROM session_admin.session"
		"  WHERE session_hash = ANY ($1) AND application = $2 AND product = $3"
		"  ORDER BY session_hash FOR UPDATE SKIP LOCKED) l"
	};
	SaArgs		args = {0};

	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(hashes), false);
	sa_arg_text(&args, pair->application);
	sa_arg_text(&args, pair->product);
	sa_run(&lock, &args);
	return result_hashes(n);
}

/*
 * End these sessions, but for those that are locked and (if there is a table) those
 * that have a row in it now.
 */
static void
end_sessions(Pair *pair, const SaWatch *watch, ArrayType *hashes, const char *reason)
{
	static SaStatement delete_sessions = {.sql =
		"DELETE FROM session_admin.session WHERE session_hash = ANY ($1) AND application = $2"
	};
	SaEnding	ending = {.reason = reason, .at = GetCurrentTimestamp(),
	.spares_products = true, .may_return = true};
	SaArgs		args = {0};
	int			n;

	hashes = lock_sessions(pair, hashes, &n);
	if (n > 0 && watch != NULL)
		hashes = sa_capture_without_rows(watch, hashes, &n);
	if (n == 0)
		return;
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(hashes), false);
	sa_arg_text(&args, pair->application);
	sa_run_ending(&ending, &delete_sessions, &args);
	pair->ended += ending.sessions_ended;
}

/* The next sessions of the product, in the order of their hashes. */
static ArrayType *
next_sessions(const Pair *pair, Position *position, int64 limit, int *n)
{
	static SaStatement find_sessions = {.sql =
		"SELECT array_agg(session_hash) FROM ("
		"  SELECT session_hash FROM session_admin.session"
		"  WHERE application = $1 AND product = $2 AND session_hash > $3"
		"  ORDER BY session_hash LIMIT $4) s"
	};
	SaArgs		args = {0};
	ArrayType  *hashes;

	sa_arg_text(&args, pair->application);
	sa_arg_text(&args, pair->product);
	sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(position->last_hash, SA_HASH_LEN)), false);
	sa_arg(&args, INT8OID, Int64GetDatum(limit), false);
	sa_run(&find_sessions, &args);
	hashes = result_hashes(n);
	if (*n > 0)
	{
		Datum	   *values;
		int			count;

		deconstruct_array(hashes, BYTEAOID, -1, false, TYPALIGN_INT, &values, NULL, &count);
		memcpy(position->last_hash, VARDATA_ANY(DatumGetByteaPP(values[count - 1])), SA_HASH_LEN);
	}
	return hashes;
}

/* End those of these sessions that have no row, a batch at a time. */
static void
end_without_rows(Pair *pair, const SaWatch *watch, ArrayType *hashes, bool tell)
{
	Datum	   *values;
	int			n;

	deconstruct_array(hashes, BYTEAOID, -1, false, TYPALIGN_INT, &values, NULL, &n);
	for (int i = 0; i < n; i += BATCH)
	{
		CHECK_FOR_INTERRUPTS();
		end_sessions(pair, watch,
					 construct_array(values + i, Min(BATCH, n - i), BYTEAOID, -1, false, TYPALIGN_INT),
					 REASON);
		if (tell && n > BATCH)
			report_progress(pair, "sessions without a row", pair->ended);
	}
}

/* Look for the rows of some sessions; returns how many sessions that were. */
static int64
compare_sessions(Pair *pair, const SaWatch *watch, Position *position, int64 limit, bool tell)
{
	int			n;
	int			missing;
	ArrayType  *hashes;
	int64		sessions;

	/* as in compare_batch */
	SPI_connect();
	hashes = next_sessions(pair, position, limit, &n);
	sessions = n;
	if (n > 0 && watch != NULL)
		hashes = sa_capture_without_rows(watch, hashes, &missing);
	else
		missing = n;
	if (missing > 0)
		end_without_rows(pair, watch, hashes, tell);
	SPI_finish();
	position->finished = sessions < limit;
	return sessions;
}

/*
 * Rows whose sessions are not here, or are others
 */

/* Which of these rows are not as the sessions are, or have one that has ended; NULL: none. */
static bool *
find_doubtful(const Pair *pair, const SaWatch *watch, SaCaptured *reader)
{
	static SaStatement find_differences = {.sql =
		"SELECT array_agg(r.n) FROM unnest($3::bytea[], $4::text[], $5::text[])"
		"  WITH ORDINALITY AS r (hash, key, user_name, n)"

		/*
		 * by the key, whatever the planner thinks of a table that nobody has
		 * analyzed
		 */
		" LEFT JOIN LATERAL (SELECT * FROM session_admin.session s"
		"   WHERE s.session_hash = r.hash AND s.application = $1 LIMIT 1) s ON true"
		" WHERE ($6 OR s.session_hash IS NOT NULL)"
		"  AND (s.product IS DISTINCT FROM $2"
		"   OR s.user_name IS DISTINCT FROM r.user_name OR s.product_key IS DISTINCT FROM r.key)"
	};
	SaValues	hashes = {0};
	SaValues	keys = {0};
	SaValues	users = {0};
	SaArgs		args = {0};
	bool	   *doubtful = palloc0(list_length(reader->session_rows) * sizeof(bool));
	bool		any = false;
	bool		isnull;
	Datum		result;
	SaApplication application;
	ListCell   *cell;

	foreach(cell, reader->session_rows)
	{
		SaSessionRow *row = lfirst(cell);

		sa_captured_add(reader, &hashes, PointerGetDatum(sa_bytea(row->id.hash, SA_HASH_LEN)), false);
		sa_captured_add_text(reader, &keys, row->key);
		sa_captured_add_text(reader, &users, row->user);
	}
	if (SA_HAS(watch, SA_ROLE_USER_KEY))
	{
		SaValues	user_keys = users;

		sa_captured_resolve(reader, &user_keys, &users);
	}
	sa_arg_text(&args, pair->application);
	sa_arg_text(&args, pair->product);
	sa_captured_arg(&args, &hashes, BYTEAOID);
	sa_captured_arg(&args, &keys, TEXTOID);
	sa_captured_arg(&args, &users, TEXTOID);
	sa_arg(&args, BOOLOID, BoolGetDatum(pair->takes_new), false);
	sa_run(&find_differences, &args);
	result = sa_result(0, 1, &isnull);
	if (!isnull)
	{
		Datum	   *numbers;
		int			n;

		deconstruct_array(DatumGetArrayTypeP(result), INT8OID, 8, FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &numbers, NULL, &n);
		for (int i = 0; i < n; i++)
			doubtful[DatumGetInt64(numbers[i]) - 1] = any = true;
	}
	foreach(cell, reader->session_rows)
	{
		SaSessionRow *row = lfirst(cell);
		SaSession	session;

		CHECK_FOR_INTERRUPTS();
		sa_application_get(pair->application, &application);
		if (!doubtful[foreach_current_index(cell)] &&
			sa_session_read(row->id.hash, pair->application, &session) &&
			!sa_session_is_valid(&session, &application, row->id.hash, GetCurrentTimestamp()))
			doubtful[foreach_current_index(cell)] = any = true;
	}
	return any ? doubtful : NULL;
}

/* Sessions that the product has let expire. */
static void
end_expired(Pair *pair, SaCaptured *reader)
{
	static SaStatement find_live = {.sql =
		"SELECT array_agg(session_hash) FROM session_admin_internal.session_state"
		" WHERE session_hash = ANY ($1) AND application = $2 AND ended_at IS NULL"
	};
	SaArgs		args = {0};
	ArrayType  *hashes;
	int			n;

	if (reader->session_expired.n == 0)
		return;
	sa_captured_arg(&args, &reader->session_expired, BYTEAOID);
	sa_arg_text(&args, pair->application);
	sa_run(&find_live, &args);
	hashes = result_hashes(&n);
	if (n > 0)
		end_sessions(pair, NULL, hashes, "idle_timeout");
}

/* Rows that were read together, with their places. */
typedef struct Rows
{
	SaCaptured	reader;
	ItemPointerData places[BATCH];
	int			n;
} Rows;

/*
 * Lock a row that nobody has locked, or is changing: whoever does has a session of it
 * that we would wait for.
 */
static bool
lock_row(Relation relation, ItemPointer place, Snapshot snapshot, TupleTableSlot *slot)
{
	TM_FailureData failure;
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	return table_tuple_lock(relation, place, snapshot, slot, GetCurrentCommandId(false),
							LockTupleKeyShare, LockWaitSkip, 0, &failure) == TM_Ok &&
		table_tuple_satisfies_snapshot(relation, slot, &dirty) &&
		!TransactionIdIsValid(dirty.xmax);
}

/* Compare what was read, and apply what differs. */
static void
compare_batch(Pair *pair, const SaWatch *watch, Relation relation, Snapshot snapshot, Rows *rows)
{
	TupleTableSlot *slot;
	SaCaptured	writer;
	bool	   *doubtful;

	/* what it takes is given back: there may be millions of rows */
	SPI_connect();
	end_expired(pair, &rows->reader);
	doubtful = rows->n > 0 ? find_doubtful(pair, watch, &rows->reader) : NULL;
	sa_captured_wipe(rows->reader.session_rows);
	if (doubtful == NULL)
	{
		SPI_finish();
		return;
	}

	slot = table_slot_create(relation, NULL);
	sa_captured_begin(&writer, watch);
	writer.backfill = writer.reconciling = true;
	for (int i = 0; i < rows->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (doubtful[i] && lock_row(relation, &rows->places[i], snapshot, slot))
		{
			sa_row_inserted(&writer, slot);
			writer.rows++;
		}
	}
	if (writer.rows > 0)
		sa_captured_flush(&writer);
	pair->taken += writer.written;
	pair->deleted += writer.refused;
	sa_captured_end(&writer);
	ExecDropSingleTupleTableSlot(slot);
	SPI_finish();
}

static void
begin_batch(Rows *rows, const SaWatch *watch)
{
	sa_captured_begin(&rows->reader, watch);
	rows->reader.backfill = rows->reader.reconciling = true;
	rows->n = 0;
}

/* Compare some rows, from the position on; returns how many. */
static int64
compare_rows(Pair *pair, const SaWatch *watch, Relation relation, Position *position, int64 limit,
			 bool tell)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	Rows	   *rows = palloc(sizeof(Rows));
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);
	ItemPointerData last;
	TableScanDesc scan;
	int64		n = 0;
	int			in_batch = 0;

	ItemPointerSet(&last, MaxBlockNumber, MaxOffsetNumber);
	scan = table_beginscan_tidrange(relation, snapshot, &position->next_row, &last);
	begin_batch(rows, watch);
	position->in_sessions = true;
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		int			before = list_length(rows->reader.session_rows);
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (n == limit)
		{
			position->next_row = slot->tts_tid;
			position->in_sessions = false;
			break;
		}
		old = MemoryContextSwitchTo(scratch);
		sa_row_inserted(&rows->reader, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (list_length(rows->reader.session_rows) > before)
			rows->places[rows->n++] = slot->tts_tid;
		n++;
		if (++in_batch == BATCH)
		{
			compare_batch(pair, watch, relation, snapshot, rows);
			sa_captured_end(&rows->reader);
			begin_batch(rows, watch);
			in_batch = 0;
			if (tell)
				report_progress(pair, "rows", pair->rows_read + n);
		}
	}
	compare_batch(pair, watch, relation, snapshot, rows);
	sa_captured_end(&rows->reader);
	pair->rows_read += n;

	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(scratch);
	pfree(rows);
	return n;
}

/*
 * Tables
 */

/*
 * What there is of tables of sessions, and of sessions whose table is gone: dropped,
 * renamed so that another one has its name, or not attached any more.
 */
static Pair *
list_pairs(const char *application, bool only_gone, int *n)
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
find_watch(Relation relation, const Pair *pair)
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
reconcile(Pair *pair, Position *position, int64 limit, bool tell)
{
	Relation	relation = NULL;
	const SaWatch *watch = NULL;
	int64		n = 0;

	if (OidIsValid(pair->relid))
	{
		relation = try_table_open(pair->relid, RowShareLock);
		watch = relation ? find_watch(relation, pair) : NULL;
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
		n += compare_rows(pair, watch, relation, position, limit, tell);
	if (relation == NULL || position->in_sessions)
	{
		while (!position->finished && n < limit)
		{
			CHECK_FOR_INTERRUPTS();
			n += compare_sessions(pair, watch, position, Min(limit - n, SESSIONS), tell);
		}
	}
	if (relation)
		table_close(relation, NoLock);
	return n;
}

static Position
beginning(void)
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
	pairs = list_pairs(application, false, &n);
	if (n == 0)
		ereport(NOTICE,
				(errmsg("no table of sessions that names users is attached to application \"%s\"", application),
				 errhint("See session_admin.verify_attachments() for what is attached to which application.")));
	for (int i = 0; i < n; i++)
	{
		Pair	   *pair = &pairs[i];
		Position	position = beginning();
		SaApplication state;
		Datum		values[7];
		bool		nulls[7] = {false};

		/* what came from a dump ends first, with the product's rows */
		sa_application_make(pair->application, &state);
		pair->takes_new = true;
		reconcile(pair, &position, PG_INT64_MAX, true);
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
	Pair	   *pairs = list_pairs(application, false, &n);

	for (int i = 0; i < n; i++)
	{
		Position	position = beginning();

		if (strcmp(pairs[i].product, product) != 0)
			continue;
		position.in_sessions = true;
		reconcile(&pairs[i], &position, PG_INT64_MAX, false);
		if (OidIsValid(pairs[i].relid) && sa_capture_is_empty(pairs[i].relid))
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
	Pair	   *pairs = list_pairs(NULL, true, &n);
	int64		ended = 0;

	for (int i = 0; i < n; i++)
	{
		Position	position = beginning();

		reconcile(&pairs[i], &position, BATCH, false);
		ended += pairs[i].ended;
	}
	*more = ended >= BATCH;
	return ended;
}

/* Where the last slice ended; from the beginning, if the table was written anew. */
static Position
read_position(const Pair *pair)
{
	static SaStatement find_position = {.sql =
		"SELECT in_sessions, CASE WHEN file = pg_relation_filenode($3) THEN next_row ELSE '(0,1)' END,"
		"  last_hash FROM session_admin_internal.reconciliation WHERE application = $1 AND product = $2"
	};
	Position	position = beginning();
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
note_position(const Pair *pair, Position position)
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
		position = beginning();
	sa_arg_text(&args, pair->application);
	sa_arg_text(&args, pair->product);
	sa_arg(&args, BOOLOID, BoolGetDatum(position.in_sessions), false);
	sa_arg(&args, TIDOID, PointerGetDatum(&position.next_row), false);
	sa_arg(&args, REGCLASSOID, ObjectIdGetDatum(pair->relid), false);
	sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(position.last_hash, SA_HASH_LEN)), false);
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

	slice->position = read_position(slice->pair);
	slice->left -= reconcile(slice->pair, &slice->position, slice->left, false);
	note_position(slice->pair, slice->position);
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
	/* who has it locked is not in trouble */
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED &&
		sa_capture_failure_once(pair->application, pair->relid, "UPDATE", message))
		ereport(WARNING,
				(errmsg("\"%s\": %s", pair->table_name, message),
				 errhint("Call session_admin.reconcile_sessions() to see why.")));
	/* the others come first the next time */
	note_position(pair, read_position(pair));
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
	Pair	   *pairs = list_pairs(NULL, false, &n);
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
		/* nobody is waited for */
		if (!ConditionalLockRelationOid(oldest->relid, RowShareLock))
			continue;
		left = reconcile_slice(oldest, left);
		differences += oldest->ended + oldest->taken + oldest->deleted;
	}
	return differences;
}
