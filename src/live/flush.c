/*
 * flush.c
 *	  Writes to their rows the touches that only the shared table of live sessions knows of.
 *
 * They are taken from the entry before the flush commits, and put back if it aborts.  Until
 * then it has the row locked: whoever archives the session waits, and counts them once.
 */
#include "live/table.h"
#include "policy/policy.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#define FLUSH_BATCH		1000	/* rows */

/* Where the next batch begins. */
static uint32 flush_position = 0;

/* In this transaction they were flushed, and are counted twice until it ends. */
static bool flushed_before = false;

/* These touches are about to be in the table, or are not after all. */
static void
live_flushed(const LiveTouch *touch, bool flushed)
{
	uint32		hash_value = live_hash(&touch->key);
	LWLock	   *lock = live_lock_of(hash_value);
	LiveEntry  *entry;

	LWLockAcquire(lock, LW_SHARED);
	entry = live_entry_find_at(touch, hash_value);
	if (entry != NULL)
	{
		pg_atomic_fetch_add_u64(&entry->requests, flushed ? -touch->requests : touch->requests);
		/* what the row tells after all is not known: once more does no harm */
		if (flushed)
			live_time_advance(&entry->written_access_at, touch->last_access_at);
		else
			pg_atomic_write_u64(&entry->written_access_at, 0);
	}
	LWLockRelease(lock);
}

static void
flushed_before_commit(const void *touch)
{
	live_flushed(touch, true);
}

static void
flushed_after(const void *touch, bool committed)
{
	if (!committed)
		live_flushed(touch, false);
}

/* These requests will be in the table when this transaction has committed. */
static const SaAtEndKind flushed_kind = {
	.size = sizeof(LiveTouch),
	.before = flushed_before_commit,
	.after = flushed_after,
	/* the session that commits it would not know of the shared table */
	.refuses_prepare = "called session_admin.maintain()",
	.refusal_rank = 1
};

/* maintain() begins: an earlier call may have failed midway. */
void
sa_live_flush_begin(void)
{
	flush_position = 0;
	flushed_before = sa_at_end_any_of(&flushed_kind);
}

/*
 * A task of maintain(): write a batch of the touches that only the shared table knows of
 * to their rows.
 */
int64
sa_live_flush(bool *more)
{
	static SaStatement write_touches = {.sql =
		"WITH touched AS ("
		"  SELECT t.* FROM unnest($1, $2, $3, $4) WITH ORDINALITY"
		"    AS t (session_hash, application, at, requests, n)"
		"), found AS ("
		"  SELECT s.session_hash, s.application, t.at, t.requests, t.n"
		"  FROM touched t JOIN session_admin.session s USING (session_hash, application)"
		"  ORDER BY s.session_hash FOR NO KEY UPDATE OF s SKIP LOCKED"
		"), written AS ("
		"  UPDATE session_admin.session s SET last_access_at = greatest(s.last_access_at, f.at),"
		"    requests = s.requests + f.requests"
		"  FROM found f WHERE s.session_hash = f.session_hash AND s.application = f.application"
		"    AND (f.requests <> 0 OR s.last_access_at < f.at)"
		")"
		" SELECT n FROM found"
		" UNION ALL SELECT n FROM touched t WHERE NOT EXISTS (SELECT FROM session_admin.session s"
		"   WHERE s.session_hash = t.session_hash AND s.application = t.application)"
	};
	LiveTouch  *touches = palloc(FLUSH_BATCH * sizeof(LiveTouch));
	Datum	   *hashes = palloc(FLUSH_BATCH * sizeof(Datum));
	Datum	   *names = palloc(FLUSH_BATCH * sizeof(Datum));
	Datum	   *times = palloc(FLUSH_BATCH * sizeof(Datum));
	Datum	   *requests = palloc(FLUSH_BATCH * sizeof(Datum));
	Oid			relation = sa_relation_if_any(SA_TABLE_SESSION);
	SaArgs		args = {0};
	int			n = 0;
	uint64		settled;

	if (flushed_before)
		return 0;
	do
	{
		CHECK_FOR_INTERRUPTS();
		n += sa_live_unflushed(touches + n, FLUSH_BATCH - n, &flush_position, relation);
	} while (n < FLUSH_BATCH / 2 && flush_position != 0);
	if (n == 0)
		return 0;

	for (int i = 0; i < n; i++)
	{
		hashes[i] = PointerGetDatum(sa_bytea(touches[i].key.hash, SA_HASH_LEN));
		names[i] = CStringGetTextDatum(sa_application_of_key(touches[i].key.application));
		times[i] = TimestampTzGetDatum(touches[i].last_access_at);
		requests[i] = Int64GetDatum(touches[i].requests);
	}
	sa_arg_array(&args, BYTEAARRAYOID, sa_array(hashes, n, BYTEAOID));
	sa_arg_array(&args, TEXTARRAYOID, sa_array(names, n, TEXTOID));
	sa_arg_array(&args, TIMESTAMPTZARRAYOID, sa_array(times, n, TIMESTAMPTZOID));
	sa_arg_array(&args, INT8ARRAYOID, sa_array(requests, n, INT8OID));

	/* rows that are locked are written the next time */
	settled = sa_run_touch(&write_touches, &args);
	for (uint64 i = 0; i < settled; i++)
		sa_at_end_add(&flushed_kind, &touches[sa_result_int64(i, 1) - 1]);

	/* a full pass over the shared table ends where it began */
	*more = flush_position != 0;
	return n;
}

void
sa_flush_init(void)
{
	sa_at_end_register(&flushed_kind);
}
