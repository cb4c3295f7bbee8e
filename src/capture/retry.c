/*
 * retry.c
 *	  Housekeeping tries again to delete rows of products whose sessions have ended.
 *
 * Each is tried until it is gone, first at once, then less and less often.  If the row
 * holds another session by then, it is not touched.
 */
#include "capture/deletion.h"

#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#define RETRY_BATCH		1000	/* rows of product_remains */
/* Deleted rows stay locked no longer than this, but for what was begun. */
#define RETRY_TIME		(5 * USECS_PER_SEC)
#define REST_MAX		(60 * USECS_PER_SEC)

/* When housekeeping has to look again, as far as this process knows. */
static int64 rest = REST_MAX;

/* What is tried together: rows of one table, of one kind and for one reason. */
typedef struct RetryGroup
{
	SaDeletion	deletion;
	SaEnding	ending;
	bool		by_hash;
	bool		old;			/* no transaction that wrote such rows is
								 * still under way */
	ArrayType  *ids;			/* uuid[]: their rows of product_remains */
} RetryGroup;

/* A batch of what is due. */
static RetryGroup *
retry_find_groups(uint64 *n, int64 *rows)
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
	RetryGroup *groups;

	sa_arg(&args, INT8OID, Int64GetDatum(RETRY_BATCH), false);
	*n = sa_run(&find_due, &args);
	*rows = 0;
	groups = palloc0((*n + 1) * sizeof(RetryGroup));
	for (uint64 i = 0; i < *n; i++)
	{
		RetryGroup *group = &groups[i];
		SaDeletion *deletion = &group->deletion;
		bool		isnull;

		deletion->application = sa_result_text(i, 1);
		deletion->product = sa_result_text(i, 2);
		deletion->part = (SaTablePart) sa_find_name(sa_part_names, SA_NPARTS, sa_result_text(i, 3));
		group->ending.reason = sa_result_text(i, 4);
		group->ending.at = GetCurrentTimestamp();
		deletion->table = sa_result_text(i, 5);
		deletion->target.hashes = deletion->target.all_hashes = sa_result_array(i, 6);
		deletion->target.user_names = sa_result_array(i, 7);
		deletion->before = (TransactionId) sa_result_int64(i, 8);
		deletion->tries = (int) sa_result_int64(i, 9);
		group->ids = sa_result_array(i, 10);
		*rows += sa_result_int64(i, 11);
		group->old = DatumGetBool(sa_result(i, 12, &isnull));
		group->by_hash = deletion->target.hashes != NULL;
		deletion->spares_valid = true;
		deletion->everything = !group->by_hash && deletion->target.user_names == NULL;
	}
	return groups;
}

/* The table, if it is still watched. */
static bool
retry_find_table(RetryGroup *group)
{
	ListCell   *cell;

	foreach(cell, sa_deletions_of(group->deletion.application, group->deletion.product))
	{
		SaDeletion *deletion = lfirst(cell);

		if (deletion->part == group->deletion.part)
		{
			group->deletion.relid = deletion->relid;
			return true;
		}
	}
	return false;
}

/* Forget what is done of a group, and note when to try the rest again. */
static void
retry_settle(const RetryGroup *group, bool watched)
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
	const SaDeletion *deletion = &group->deletion;
	bool		clean = deletion->left.n == 0 && deletion->busy.n == 0 && !deletion->unsearched &&
	group->old;
	SaPlaces	left = {0};
	SaArgs		args = {0};

	sa_places_append(&left, deletion->left.rows, deletion->left.n);
	sa_places_append(&left, deletion->busy.rows, deletion->busy.n);

	sa_arg(&args, get_array_type(UUIDOID), PointerGetDatum(group->ids), false);
	if (!watched || clean || (group->by_hash && !deletion->unsearched))
	{
		SaArgs		done_args = args;

		sa_arg(&done_args, BOOLOID, BoolGetDatum(!watched || clean), false);
		sa_arg_array(&done_args, BYTEAARRAYOID, sa_places_hashes(&left));
		sa_run(&forget_done, &done_args);
	}
	if (watched && !clean)
	{
		sa_arg_text(&args, deletion->sqlstate ? unpack_sql_state(deletion->sqlstate) : NULL);
		sa_arg_text(&args, deletion->message);
		sa_run(&put_off, &args);
	}
}

static void
retry_group(RetryGroup *group)
{
	List	   *deletions = list_make1(&group->deletion);
	SaEnded		ended = {0};
	SaBusy		busy = {0};

	if (!retry_find_table(group))
	{
		retry_settle(group, false);
		return;
	}
	if (group->deletion.everything)
		sa_deletion_empty(&group->deletion, &group->ending, &ended);
	else
	{
		sa_deletions_lock(deletions, &busy);
		if (!group->deletion.unsearched && group->deletion.watch)
			sa_deletion_run(&group->deletion, &group->ending, &ended);
	}
	retry_settle(group, group->deletion.unsearched || group->deletion.watch != NULL);
}

/* Of many notes of the same row, the latest are enough. */
static void
retry_drop_repeated(void)
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
	RetryGroup *groups;

	sa_run(&count, NULL);
	before = sa_result_int64(0, 1);
	rest = REST_MAX;
	if (before == 0)
		return 0;

	groups = retry_find_groups(&n, &tried);
	for (uint64 i = 0; i < n; i++)
	{
		/* the others are due still; each batch does one at least */
		if (i > 0 && sa_monotonic_now() >= deadline)
		{
			*more = true;
			break;
		}
		groups[i].deletion.deadline = deadline;
		retry_group(&groups[i]);
	}
	if (n > 0)
		retry_drop_repeated();
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
