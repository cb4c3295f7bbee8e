/*
 * reconcile_session.c
 *	  Sessions of products whose rows are gone.
 *
 * A session is locked, and its row sought again with a snapshot that is taken after that:
 * what has committed until then is seen.  What is locked is left for the next time.
 */
#include "attach/reconcile.h"
#include "ending/ending.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#define REASON			"custom:reconciled"

/* The hashes in the last result, and how many they are; NULL if there are none. */
static ArrayType *
reconcile_result(int *n)
{
	ArrayType  *hashes = sa_result_array(0, 1);

	*n = hashes ? sa_array_length(hashes) : 0;
	return hashes;
}

/* Those of these sessions that nobody has locked; from here on we have. */
static ArrayType *
reconcile_lock(const Pair *pair, ArrayType *hashes, int *n)
{
	static SaStatement lock = {.sql =
		"SELECT array_agg(session_hash) FROM ("
		"  SELECT session_hash FROM session_admin.session"
		"  WHERE session_hash = ANY ($1) AND application = $2 AND product = $3"
		"  ORDER BY session_hash FOR UPDATE SKIP LOCKED) l"
	};
	SaArgs		args = {0};

	sa_arg_array(&args, BYTEAARRAYOID, hashes);
	sa_arg_text(&args, pair->application);
	sa_arg_text(&args, pair->product);
	sa_run(&lock, &args);
	return reconcile_result(n);
}

/*
 * End these sessions, but for those that are locked and (if there is a table) those
 * that have a row in it now.
 */
void
sa_reconcile_end(Pair *pair, const SaWatch *watch, ArrayType *hashes, const char *reason)
{
	static SaStatement delete_sessions = {.sql =
		"DELETE FROM session_admin.session WHERE session_hash = ANY ($1) AND application = $2"
	};
	SaEnding	ending = {.reason = reason, .at = GetCurrentTimestamp(),
	.options = {.spares_products = true, .may_return = true}};
	SaEnded		ended = {0};
	SaArgs		args = {0};
	int			n;

	hashes = reconcile_lock(pair, hashes, &n);
	if (n > 0 && watch != NULL)
		hashes = sa_table_without_rows(watch, hashes, &n);
	if (n == 0)
		return;
	sa_arg_array(&args, BYTEAARRAYOID, hashes);
	sa_arg_text(&args, pair->application);
	sa_delete_for(&ending, &ended, &delete_sessions, &args);
	pair->ended += ended.sessions_ended;
}

/* The next sessions of the product, in the order of their hashes. */
static ArrayType *
reconcile_next(const Pair *pair, Position *position, int64 limit, int *n)
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
	sa_arg_hash(&args, position->last_hash);
	sa_arg(&args, INT8OID, Int64GetDatum(limit), false);
	sa_run(&find_sessions, &args);
	hashes = reconcile_result(n);
	if (*n > 0)
	{
		Datum	   *values;
		int			count;

		values = sa_array_values(hashes, BYTEAOID, &count);
		memcpy(position->last_hash, VARDATA_ANY(DatumGetByteaPP(values[count - 1])), SA_HASH_LEN);
	}
	return hashes;
}

/* End those of these sessions that have no row, a batch at a time. */
static void
reconcile_end_without_rows(Pair *pair, const SaWatch *watch, ArrayType *hashes, bool tell)
{
	Datum	   *values;
	int			n;

	values = sa_array_values(hashes, BYTEAOID, &n);
	for (int i = 0; i < n; i += RECONCILE_BATCH)
	{
		CHECK_FOR_INTERRUPTS();
		sa_reconcile_end(pair, watch,
						 sa_array(values + i, Min(RECONCILE_BATCH, n - i), BYTEAOID),
						 REASON);
		if (tell && n > RECONCILE_BATCH)
			reconcile_tell(pair, "sessions without a row", pair->ended);
	}
}

/* Look for the rows of some sessions; returns how many sessions that were. */
int64
sa_reconcile_sessions_of(Pair *pair, const SaWatch *watch, Position *position, int64 limit, bool tell)
{
	int			n;
	int			missing;
	ArrayType  *hashes;
	int64		sessions;

	/* what it takes is given back: there may be millions of sessions */
	SPI_connect();
	hashes = reconcile_next(pair, position, limit, &n);
	sessions = n;
	if (n > 0 && watch != NULL)
		hashes = sa_table_without_rows(watch, hashes, &missing);
	else
		missing = n;
	if (missing > 0)
		reconcile_end_without_rows(pair, watch, hashes, tell);
	SPI_finish();
	position->finished = sessions < limit;
	return sessions;
}
