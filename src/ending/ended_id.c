/*
 * ended_id.c
 *	  Ids of sessions that have ended here stay ended, for as long as the session could
 *	  have lived.
 *
 * README.md says which ids are remembered, and why a race brings none of them back.  The
 * index is not unique, on purpose: an ending waits for nothing that counts or purges.
 */
#include "ending/ending.h"
#include "live/live.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_ended_until);

/* Browsers keep no cookie for longer than this. */
#define LONGEST			(400 * USECS_PER_DAY)

/* The default, for an application that is gone. */
#define ABSOLUTE_TIMEOUT_DEFAULT	USECS_PER_DAY

#define BATCH			1000

/* The columns of ended_id. */
enum
{
	ENDED_ID_HASH = 1,
	ENDED_ID_APPLICATION,
	ENDED_ID_UNTIL
};

/* Add a time, but no more than the longest one; infinity stays infinity. */
static TimestampTz
ended_id_later(TimestampTz at, int64 time)
{
	TimestampTz result;

	if (TIMESTAMP_NOT_FINITE(at))
		return at;
	if (pg_add_s64_overflow(at, Min(time, LONGEST), &result) || !IS_VALID_TIMESTAMP(result))
		return DT_NOEND;
	return result;
}

/*
 * ended_until(application, user_name, product, idle_timeout, created_at, ended_at)
 *
 * How long the session could have lived that ended then: to its absolute timeout; one
 * in a product's own table for as long as the product let it be idle, counted from
 * the end, but no shorter than the absolute timeout.
 */
Datum
sa_ended_until(PG_FUNCTION_ARGS)
{
	char	   *user_name = sa_text_or_null(fcinfo, 1);
	bool		of_product = !PG_ARGISNULL(2);
	int64		absolute = ABSOLUTE_TIMEOUT_DEFAULT;
	SaApplication application;
	TimestampTz ended_at;
	TimestampTz until;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(4) || PG_ARGISNULL(5))
		PG_RETURN_NULL();
	ended_at = PG_GETARG_TIMESTAMPTZ(5);
	if (sa_application_find(text_to_cstring(PG_GETARG_TEXT_PP(0)), &application))
		absolute = sa_absolute_timeout(&application, user_name);
	if (of_product)
	{
		int64		idle = PG_ARGISNULL(3) ? LONGEST : sa_usecs_of_interval(PG_GETARG_INTERVAL_P(3));

		until = ended_id_later(ended_at, Max(idle, absolute));
	}
	else
		until = ended_id_later(PG_GETARG_TIMESTAMPTZ(4), absolute);
	PG_RETURN_TIMESTAMPTZ(Min(until, ended_id_later(ended_at, LONGEST)));
}

/* Is this id remembered as one that has ended? */
bool
sa_id_is_remembered(const uint8 *hash, const char *application)
{
	TimestampTz now = GetCurrentTimestamp();
	SaScan		scan;
	ScanKeyData keys[2];
	bool		found = false;

	sa_scan_key_hash(&keys[0], 1, hash);
	sa_scan_key_text(&keys[1], 2, application);
	sa_scan_begin_by(&scan, SA_TABLE_ENDED_ID, SA_INDEX_ENDED_ID_KEY, keys, lengthof(keys));
	while (!found && sa_scan_next(&scan))
	{
		bool		isnull;

		found = DatumGetTimestampTz(sa_scan_value(&scan, ENDED_ID_UNTIL, &isnull)) > now;
	}
	sa_scan_end(&scan);
	return found;
}

/* Has a session with this id ended whose row is still there, and not by time? */
static bool
ended_id_in_place(const uint8 *hash, const char *application_name)
{
	static SaStatement find_end = {.sql =
		"SELECT FROM session_admin_internal.session_state e"
		" JOIN session_admin.session s ON s.session_hash = e.session_hash AND s.application = e.application"
		" WHERE e.session_hash = $1 AND e.application = $2 AND e.ended_at IS NOT NULL"
		"  AND e.end_reason NOT IN ('idle_timeout', 'absolute_timeout')"
		"  AND session_admin_internal.ended_until(s.application, s.user_name, s.product, s.idle_timeout,"
		"    s.created_at, e.ended_at) > clock_timestamp()"
	};
	SaApplication application;
	SaSession	session;
	SaArgs		args = {0};

	if (!sa_session_read(hash, application_name, &session) ||
		!sa_application_find(application_name, &application) ||
		sa_session_is_valid(&session, &application, hash, GetCurrentTimestamp()))
		return false;
	sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(hash, SA_HASH_LEN)), false);
	sa_arg_text(&args, application_name);
	return sa_run(&find_end, &args) > 0;
}

/* Is this the id of a session that has ended and stays ended?  The caller is connected to SPI. */
bool
sa_id_has_ended(const uint8 *hash, const char *application)
{
	return sa_id_is_remembered(hash, application) || ended_id_in_place(hash, application);
}

/* Refuse to open a session with such an id. */
void
sa_refuse_ended_id(void)
{
	ereport(ERROR,
			(errcode(SA_ERRCODE_GONE),
			 errmsg("session id has ended and cannot be used again"),
			 errhint("Make a new id for each login, and none from a cookie that came with the request.")));
}

/*
 * Count that a product has written sessions with these ids (an array of hashes), which
 * are refused.  Rows that are locked are not waited for, and not counted.  The caller
 * is connected to SPI.
 */
void
sa_count_refused(ArrayType *hashes, const char *application)
{
	static SaStatement archive = {.sql =
		"DELETE FROM session_admin.session s USING ("
		"  SELECT session_hash, application FROM session_admin.session"
		"  WHERE session_hash = ANY ($1) AND application = $2 FOR UPDATE SKIP LOCKED) l"
		" WHERE s.session_hash = l.session_hash AND s.application = l.application"
	};
	static SaStatement count = {.sql =
		"UPDATE session_admin_internal.ended_id e SET refused = e.refused + 1"
		" FROM (SELECT ctid FROM session_admin_internal.ended_id"
		"   WHERE session_hash = ANY ($1) AND application = $2 AND until > clock_timestamp()"
		"   FOR UPDATE SKIP LOCKED) l"
		" WHERE e.ctid = l.ctid"
	};
	SaEnding	ending = {.reason = "replaced", .at = GetCurrentTimestamp(),.options.spares_products = true};
	SaArgs		args = {0};

	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(hashes), false);
	sa_arg_text(&args, application);

	/*
	 * a row that has ended with its generation is archived as that, and
	 * remembered
	 */
	sa_delete_for(&ending, NULL, &archive, &args);
	sa_run(&count, &args);
}

/* Forget those that could not have lived until now: a task of maintain(). */
int64
sa_ended_ids_purge(bool *more)
{
	static SaStatement forget = {.sql =
		"DELETE FROM session_admin_internal.ended_id WHERE ctid = ANY (ARRAY("
		"  SELECT ctid FROM session_admin_internal.ended_id WHERE until <= clock_timestamp()"
		"  ORDER BY until LIMIT $1 FOR UPDATE SKIP LOCKED))"
	};
	SaArgs		args = {0};
	int64		rows;

	sa_arg(&args, INT8OID, Int64GetDatum(BATCH), false);
	rows = (int64) sa_run(&forget, &args);
	if (rows >= BATCH)
		*more = true;
	return rows;
}
