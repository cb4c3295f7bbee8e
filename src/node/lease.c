/*
 * lease.c
 *	  Whether the lease of a node has run out, however clocks are set.
 *
 * A node's row has the times that people read, and how far the clock that showed them
 * was then ahead of the one that nobody sets.  So what is a time of this run of the
 * server is one by that clock, too, wherever the first has been set to since.
 *
 * Of another run (before a restart, or on another machine) that difference means
 * nothing.  Then it is reckoned from the first moment that is known of this run: what
 * was granted before it has surely run out when its whole length has passed since.
 * That is never too early, and too late by no more than the length of a lease.
 */
#include "session_admin.h"

#include "access/xlog.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define RUN_LEN		48

PG_FUNCTION_INFO_V1(sa_health_lease_is_over);

/*
 * The run of the server as primary: another one after a restart, and after a standby
 * was promoted.
 */
const char *
sa_server_run(void)
{
	static char run[RUN_LEN];

	snprintf(run, sizeof(run), INT64_FORMAT "/%u", PgStartTime, GetWALInsertionTimeLine());
	return run;
}

/* The first moment at which this backend has looked at a clock in this run. */
static int64
first_look(const char *run)
{
	static char seen_run[RUN_LEN] = "";
	static int64 seen = 0;

	if (strcmp(seen_run, run) != 0)
	{
		seen = sa_monotonic_now();
		strlcpy(seen_run, run, sizeof(seen_run));
	}
	return seen;
}

/*
 * Remember since when this run is known, unless it is known already.  Nobody waits for
 * another one who does so.  The caller is connected to SPI.
 */
void
sa_note_server_run(void)
{
	static SaStatement find_run = {.sql =
		"SELECT FROM session_admin_internal.server_run WHERE run = $1"
	};
	static SaStatement note_run = {.sql =
		"UPDATE session_admin_internal.server_run SET run = $1, seen = $2"
		" WHERE singleton IN (SELECT singleton FROM session_admin_internal.server_run FOR UPDATE SKIP LOCKED)"
	};
	const char *run = sa_server_run();
	SaArgs		args = {0};

	sa_arg_text(&args, run);
	if (sa_run(&find_run, &args) > 0)
		return;
	sa_arg(&args, INT8OID, Int64GetDatum(first_look(run)), false);
	sa_run(&note_run, &args);
}

/* How far the clock that people set is ahead of the one that nobody sets, in microseconds. */
int64
sa_clock_ahead(TimestampTz now)
{
	return now - sa_monotonic_now();
}

/*
 * health_lease_is_over(begins, ends, ahead, run, seen, seen_run): has a lease surely run out
 * that was granted in a run of the server, if another run is known since a moment?
 * A standby has no other clock than the one that people set, and nor has a row that
 * was written by hand.
 */
Datum
sa_health_lease_is_over(PG_FUNCTION_ARGS)
{
	TimestampTz begins;
	TimestampTz ends;
	const char *run;
	int64		seen;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	ends = PG_GETARG_TIMESTAMPTZ(1);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(2) || PG_ARGISNULL(3) ||
		TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(0)) || TIMESTAMP_NOT_FINITE(ends) ||
		RecoveryInProgress())
		PG_RETURN_BOOL(ends <= GetCurrentTimestamp());

	begins = PG_GETARG_TIMESTAMPTZ(0);
	run = sa_server_run();
	seen = first_look(run);
	if (strcmp(text_to_cstring(PG_GETARG_TEXT_PP(3)), run) == 0)
		PG_RETURN_BOOL(ends - PG_GETARG_INT64(2) <= sa_monotonic_now());

	if (!PG_ARGISNULL(4) && !PG_ARGISNULL(5) &&
		strcmp(text_to_cstring(PG_GETARG_TEXT_PP(5)), run) == 0)
		seen = Min(seen, PG_GETARG_INT64(4));
	PG_RETURN_BOOL(seen + (ends - begins) <= sa_monotonic_now());
}
