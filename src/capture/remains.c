/*
 * remains.c
 *	  Rows of products that could not be deleted when their sessions ended.
 *
 * They are noted in the transaction that ends the sessions, and tried again by
 * housekeeping until they are gone, first at once, then less and less often.  What is
 * noted is the hash of the session id: if the row holds another session by then, it is
 * not touched.  Where that hash is not known, as the table could not be read, it is whose
 * rows, and by which transaction they were written at the latest: a later login is not
 * ended.
 *
 * The session that such a row has is over.  Nothing that the product writes to the row
 * opens it again: see ended_id.c.
 */
#include "capture/capture.h"
#include "housekeeping/housekeeping.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#define RETRY_BATCH		1000	/* rows of product_remains */
/* No longer than this (and what was begun) are rows kept locked that are gone. */
#define RETRY_TIME		(5 * USECS_PER_SEC)
#define REST_MAX		(60 * USECS_PER_SEC)

/* When housekeeping has to look again, as far as this process knows. */
static int64 rest = REST_MAX;

/* Is this what is noted without the session's hash? */
static bool
has_unknown(const SaForget *forget)
{
	if (forget->invisible || (forget->unsearched && (forget->everything || forget->target.user_names)))
		return true;
	for (int i = 0; i < forget->left.n; i++)
	{
		if (!forget->left.rows[i].has_hash)
			return true;
	}
	return false;
}

/* Not of what somebody has locked for a moment, where that was not waited for. */
static void
warn(const SaForget *forget, const SaEnding *ending)
{
	if ((forget->left.n == 0 && !forget->unsearched) ||
		(forget->message == NULL && ending->wait_until == 0))
		return;
	ereport(WARNING,
			(errmsg("rows of \"%s\" could not be deleted: %s", forget->table,
					forget->message ? forget->message : "somebody has them locked"),
			 errdetail("Their sessions have ended in application \"%s\".", forget->application),
			 errhint("They are tried again until they are gone; see session_admin.health.")));
}

/* Note what could not be deleted.  The caller is connected to SPI. */
void
sa_remain(const SaForget *forget, const SaEnding *ending)
{
	static SaStatement note = {.sql =
		"INSERT INTO session_admin_internal.product_remains (application, product, part, table_name,"
		"  secret_hash, user_name, before_xid, reason, sqlstate, message)"
		" SELECT $1, $2, $3, $4, r.secret_hash, r.user_name,"
		"  CASE WHEN r.secret_hash IS NULL THEN pg_snapshot_xmax(pg_current_snapshot()) END, $5, $6, $7"
		" FROM (SELECT h AS secret_hash, NULL AS user_name FROM unnest($8) AS h"
		"  UNION ALL SELECT h, NULL FROM unnest($9) AS h"
		"  UNION ALL SELECT NULL, u FROM unnest($10) AS u"
		"  UNION ALL SELECT NULL, NULL WHERE $11) r"
	};
	bool		unknown = has_unknown(forget);
	ArrayType  *searched = forget->unsearched ? forget->target.all_hashes : NULL;
	ArrayType  *users = unknown && !forget->everything ? forget->target.user_names : NULL;
	SaArgs		args = {0};

	sa_arg_text(&args, forget->application);
	sa_arg_text(&args, forget->product);
	sa_arg_text(&args, sa_part_names[forget->part]);
	sa_arg_text(&args, forget->table);
	sa_arg_text(&args, ending->reason);
	sa_arg_text(&args, forget->sqlstate ? unpack_sql_state(forget->sqlstate) : NULL);
	sa_arg_text(&args, forget->message ? forget->message : "somebody has them locked");
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(sa_hashes_of(&forget->left)), false);
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(searched), searched == NULL);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(users), users == NULL);
	sa_arg(&args, BOOLOID, BoolGetDatum(unknown && forget->everything), false);
	sa_run(&note, &args);
	sa_worker_wake();
	warn(forget, ending);
}

/*
 * Those of these sessions (an array of hashes) of which no row is noted, or none that it
 * takes long to try again.
 */
ArrayType *
sa_remains_not(const char *application, ArrayType *hashes, bool only_slow)
{
	static SaStatement find = {.sql =
		"SELECT coalesce(array_agg(h), '{}') FROM unnest($1) AS h"
		" WHERE NOT EXISTS (SELECT FROM session_admin_internal.product_remains"
		"  WHERE secret_hash = h AND application = $2 AND part = 'session'"
		"   AND (sqlstate IN ('57014', '55P03') OR NOT $3))"
	};
	SaArgs		args = {0};
	bool		isnull;

	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(hashes), false);
	sa_arg_text(&args, application);
	sa_arg(&args, BOOLOID, BoolGetDatum(only_slow), false);
	sa_run(&find, &args);
	return DatumGetArrayTypePCopy(sa_result(0, 1, &isnull));
}

/* What is tried together: rows of one table, of one kind and for one reason. */
typedef struct RemainsGroup
{
	SaForget	forget;
	SaEnding	ending;
	bool		by_hash;
	bool		old;			/* no transaction that wrote such rows is
								 * still under way */
	ArrayType  *ids;			/* uuid[]: their rows of product_remains */
} RemainsGroup;

static ArrayType *
result_array(uint64 row, int column)
{
	bool		isnull;
	Datum		value = sa_result(row, column, &isnull);

	return isnull ? NULL : DatumGetArrayTypePCopy(value);
}

/* A batch of what is due. */
static RemainsGroup *
groups_find(uint64 *n, int64 *rows)
{
	static SaStatement find_due = {.sql =
		"SELECT r.application::text, r.product::text, r.part::text, r.reason, min(r.table_name),"
		"  array_agg(r.secret_hash) FILTER (WHERE r.secret_hash IS NOT NULL),"
		"  array_agg(DISTINCT r.user_name::text) FILTER (WHERE r.user_name IS NOT NULL),"
		"  coalesce(r.before_xid, '0')::text::bigint, min(r.tries)::bigint, array_agg(r.id), count(*),"
		"  coalesce(r.before_xid <= pg_snapshot_xmin(pg_current_snapshot()), true)"
		" FROM (SELECT * FROM session_admin_internal.product_remains"
		/* none is put off for so long: the clock was set back */
		"  WHERE next_try_at <= clock_timestamp() OR next_try_at > clock_timestamp() + interval '11 minutes'"
		"  ORDER BY next_try_at LIMIT $1) r"
		" GROUP BY r.application, r.product, r.part, r.reason, r.before_xid,"
		"  r.secret_hash IS NULL, r.user_name IS NULL"
		" ORDER BY 1, 2, 3"
	};
	SaArgs		args = {0};
	RemainsGroup *groups;

	sa_arg(&args, INT8OID, Int64GetDatum(RETRY_BATCH), false);
	*n = sa_run(&find_due, &args);
	*rows = 0;
	groups = palloc0((*n + 1) * sizeof(RemainsGroup));
	for (uint64 i = 0; i < *n; i++)
	{
		RemainsGroup *group = &groups[i];
		SaForget   *forget = &group->forget;
		bool		isnull;

		forget->application = sa_result_text(i, 1);
		forget->product = sa_result_text(i, 2);
		forget->part = (SaPart) sa_find_name(sa_part_names, SA_NPARTS, sa_result_text(i, 3));
		group->ending.reason = sa_result_text(i, 4);
		group->ending.at = GetCurrentTimestamp();
		forget->table = sa_result_text(i, 5);
		forget->target.hashes = forget->target.all_hashes = result_array(i, 6);
		forget->target.user_names = result_array(i, 7);
		forget->before = (TransactionId) sa_result_int64(i, 8);
		forget->tries = (int) sa_result_int64(i, 9);
		group->ids = result_array(i, 10);
		*rows += sa_result_int64(i, 11);
		group->old = DatumGetBool(sa_result(i, 12, &isnull));
		group->by_hash = forget->target.hashes != NULL;
		forget->spares_valid = true;
		forget->everything = !group->by_hash && forget->target.user_names == NULL;
	}
	return groups;
}

/* The table, if it is still watched. */
static bool
group_find_table(RemainsGroup *group)
{
	ListCell   *cell;

	foreach(cell, sa_forgets_of(group->forget.application, group->forget.product))
	{
		SaForget   *forget = lfirst(cell);

		if (forget->part == group->forget.part)
		{
			group->forget.relid = forget->relid;
			return true;
		}
	}
	return false;
}

/* Forget what is done of a group, and note when to try the rest again. */
static void
group_settle(const RemainsGroup *group, bool watched)
{
	static SaStatement forget_done = {.sql =
		"DELETE FROM session_admin_internal.product_remains WHERE id = ANY ($1)"
		" AND ($2 OR secret_hash <> ALL ($3))"
	};
	static SaStatement put_off = {.sql =
		"UPDATE session_admin_internal.product_remains SET tries = tries + 1,"
		"  next_try_at = clock_timestamp()"
		"    + least(interval '10 minutes', interval '1 second' * 2 ^ least(tries, 12)),"
		"  sqlstate = coalesce($2, sqlstate), message = coalesce($3, message)"
		" WHERE id = ANY ($1)"
	};
	const SaForget *forget = &group->forget;
	bool		clean = forget->left.n == 0 && forget->busy.n == 0 && !forget->unsearched &&
	group->old;
	SaRows		left = {0};
	SaArgs		args = {0};

	left.n = forget->left.n + forget->busy.n;
	left.rows = palloc((left.n + 1) * sizeof(SaForgetRow));
	if (forget->left.n > 0)
		memcpy(left.rows, forget->left.rows, forget->left.n * sizeof(SaForgetRow));
	if (forget->busy.n > 0)
		memcpy(left.rows + forget->left.n, forget->busy.rows, forget->busy.n * sizeof(SaForgetRow));

	sa_arg(&args, get_array_type(UUIDOID), PointerGetDatum(group->ids), false);
	if (!watched || clean || (group->by_hash && !forget->unsearched))
	{
		SaArgs		done_args = args;

		sa_arg(&done_args, BOOLOID, BoolGetDatum(!watched || clean), false);
		sa_arg(&done_args, BYTEAARRAYOID, PointerGetDatum(sa_hashes_of(&left)), false);
		sa_run(&forget_done, &done_args);
	}
	if (watched && !clean)
	{
		sa_arg_text(&args, forget->sqlstate ? unpack_sql_state(forget->sqlstate) : NULL);
		sa_arg_text(&args, forget->message);
		sa_run(&put_off, &args);
	}
}

static void
group_retry(RemainsGroup *group)
{
	List	   *forgets = list_make1(&group->forget);
	SaBusy		busy = {0};

	if (!group_find_table(group))
	{
		group_settle(group, false);
		return;
	}
	if (group->forget.everything)
		sa_forget_table(&group->forget, &group->ending);
	else
	{
		sa_forget_lock(forgets, &busy);
		if (!group->forget.unsearched && group->forget.watch)
			sa_forget_rows(&group->forget, &group->ending);
	}
	group_settle(group, group->forget.unsearched || group->forget.watch != NULL);
}

/* Of many notes of the same row, the latest are enough. */
static void
forget_repeated(void)
{
	static SaStatement forget_older = {.sql =
		"DELETE FROM session_admin_internal.product_remains r USING ("
		"  SELECT id, row_number() OVER (PARTITION BY application, product, part, secret_hash, user_name"
		"    ORDER BY at DESC, id) AS n FROM session_admin_internal.product_remains) o"
		" WHERE o.id = r.id AND o.n > 10"
	};

	sa_run(&forget_older, NULL);
}

/* A task of maintain(): try a batch again.  Returns how many are gone. */
int64
sa_remains_retry(bool *more)
{
	static SaStatement count = {.sql =
		"SELECT count(*), (extract(epoch FROM min(next_try_at) - clock_timestamp()) * 1000000)::bigint"
		" FROM session_admin_internal.product_remains"
	};
	int64		deadline = sa_monotonic_now() + RETRY_TIME;
	uint64		n;
	int64		tried;
	int64		before;
	RemainsGroup *groups;

	sa_run(&count, NULL);
	before = sa_result_int64(0, 1);
	rest = REST_MAX;
	if (before == 0)
		return 0;

	groups = groups_find(&n, &tried);
	for (uint64 i = 0; i < n; i++)
	{
		/* the others are due still; each batch does one at least */
		if (i > 0 && sa_monotonic_now() >= deadline)
		{
			*more = true;
			break;
		}
		groups[i].forget.deadline = deadline;
		group_retry(&groups[i]);
	}
	if (n > 0)
		forget_repeated();
	sa_run(&count, NULL);
	if (sa_result_int64(0, 1) > 0)
		rest = Min(Max(sa_result_int64(0, 2), USECS_PER_SEC), REST_MAX);
	*more = *more || tried >= RETRY_BATCH;
	return Max(before - sa_result_int64(0, 1), 0);
}

/* Try all of them the next time, whenever they are due. */
void
sa_remains_hurry(void)
{
	static SaStatement make_due = {.sql =
		"UPDATE session_admin_internal.product_remains SET next_try_at = clock_timestamp()"
		" WHERE next_try_at > clock_timestamp()"
	};

	sa_run(&make_due, NULL);
}

/* How long until the next of them is due, in microseconds. */
int64
sa_remains_rest(void)
{
	return rest;
}
