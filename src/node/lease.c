/*
 * lease.c
 *	  How long a node may answer from its cache, and whether that time has run out,
 *	  however clocks are set: see README.md.
 */
#include "node/node.h"
#include "policy/policy.h"
#include "ending/ending.h"

#include "access/xlog.h"
#include "common/int.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_health_lease_is_over);

/*
 * How long a node of this application may answer from its cache, in microseconds.
 * Nodes make no application: one may start before the first login, and is given what
 * holds by default.
 */
int64
sa_node_lease(const char *name)
{
	static SaStatement default_lease = {.sql =
		"SELECT (1000000 * extract(epoch FROM default_value::interval))::bigint"
		" FROM session_admin_internal.policy_definition WHERE name = 'node_lease'"
	};
	SaApplication application;

	if (!sa_application_find(name, &application))
	{
		sa_run(&default_lease, NULL);
		return sa_result_int64(0, 1);
	}
	/* it may have come from a dump, and is used from now on */
	sa_application_ensure(name, &application);
	return application.node_lease;
}

/* The moment that is an interval after another; what cannot be is an error. */
TimestampTz
sa_time_after(TimestampTz at, int64 microseconds)
{
	TimestampTz result;

	if (pg_add_s64_overflow(at, microseconds, &result) || !IS_VALID_TIMESTAMP(result))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("interval is too long")));
	return result;
}

/*
 * health_lease_is_over(begins, ends, ahead, run, seen, seen_run): has a lease surely run
 * out that was granted in a run of the server, if the current run is known since a moment?
 * On a standby, and for a row that was written by hand, only the clock that can be set is
 * known.
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
	seen = sa_server_run_seen(run);
	if (strcmp(text_to_cstring(PG_GETARG_TEXT_PP(3)), run) == 0)
		PG_RETURN_BOOL(ends - PG_GETARG_INT64(2) <= sa_monotonic_now());

	if (!PG_ARGISNULL(4) && !PG_ARGISNULL(5) &&
		strcmp(text_to_cstring(PG_GETARG_TEXT_PP(5)), run) == 0)
		seen = Min(seen, PG_GETARG_INT64(4));
	PG_RETURN_BOOL(seen + (ends - begins) <= sa_monotonic_now());
}
