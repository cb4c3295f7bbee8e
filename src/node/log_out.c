/*
 * log_out.c
 *	  CALL log_out(): ends sessions, commits, waits for the nodes, and says how it went.
 *
 * It does what its caller may do, by the functions that its caller could call instead: it
 * runs with the caller's rights, as a procedure that commits has to.  So each statement
 * names the schema of what it calls, types included, and uses no operator.
 */
#include "node/node.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* The arguments; the filters are those of invalidate_sessions(), in its order. */
enum
{
	OUT_USER_NAME, OUT_SESSION_REF, OUT_ADDRESS, OUT_USER_AGENT_LIKE, OUT_NODE,
	OUT_IDLE_FOR, OUT_OPENED_BEFORE, OUT_ANONYMOUS, OUT_EVERYBODY, OUT_REASON,
	OUT_TIMEOUT, OUT_APPLICATION
};

#define OUT_FIRST_DELAY		1	/* milliseconds between two looks at the nodes */
#define OUT_LAST_DELAY		20
#define OUT_DELAY_SHARE		10	/* a look is late by no more than this part */
#define OUT_NAME_SIZE		512 /* bytes; longer than any name of a node as it
								 * is shown */

PG_FUNCTION_INFO_V1(sa_log_out);

/* The argument as one of the statement. */
static void
out_arg(SaArgs *args, FunctionCallInfo fcinfo, int argno, Oid type)
{
	sa_arg(args, type, PG_GETARG_DATUM(argno), PG_ARGISNULL(argno));
}

/* Is everybody to be logged out? */
static bool
out_everybody(FunctionCallInfo fcinfo)
{
	return !PG_ARGISNULL(OUT_EVERYBODY) && PG_GETARG_BOOL(OUT_EVERYBODY);
}

/* Refuse what could not be done to its end, before anything is ended. */
static void
out_check(FunctionCallInfo fcinfo)
{
	bool		filtered = false;

	/*
	 * Only CALL tells, and only outside of a transaction block and of
	 * functions, that it is possible to commit here
	 */
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("log_out() cannot run in a transaction block or a function, as it commits"),
				 errhint("Call it on its own; or call invalidate_user() or another of these functions, commit, and then call wait_for_nodes().")));

	for (int argno = OUT_ADDRESS; argno <= OUT_ANONYMOUS; argno++)
		filtered = filtered || !PG_ARGISNULL(argno);
	if (!PG_ARGISNULL(OUT_USER_NAME) + !PG_ARGISNULL(OUT_SESSION_REF) + filtered +
		out_everybody(fcinfo) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("log_out() takes either a user, a session, filters or everybody"),
				 errhint("For example: CALL session_admin.log_out('alice'), CALL session_admin.log_out(address => '192.0.2.0/24'), CALL session_admin.log_out(everybody => true).")));

	/* an endless one is an error, as it is with a time */
	(void) sa_time_after(GetCurrentTimestamp(), sa_node_interval_arg(fcinfo, OUT_TIMEOUT, "timeout"));
}

/* End what the arguments say.  The result is that of the function that did it. */
static void
out_end(FunctionCallInfo fcinfo)
{
#define OUT_RESULT "SELECT r.invalidation_id, r.sessions_ended, r.tokens_revoked FROM session_admin."
	static SaStatement end_user = {.sql =
		OUT_RESULT "invalidate_user($3, NULL::pg_catalog.text, reason => $1, application => $2) r"
	};
	static SaStatement end_session = {.sql =
		OUT_RESULT "invalidate_session($3, $1, $2) r"
	};
	static SaStatement end_sessions = {.sql =
		OUT_RESULT "invalidate_sessions(NULL, $3, $4, $5, $6, $7, $8, $1, $2) r"
	};
	static SaStatement end_everybody = {.sql =
		OUT_RESULT "invalidate_application($1, $2) r"
	};
	static const Oid filter_types[] = {CIDROID, TEXTOID, TEXTOID, INTERVALOID, TIMESTAMPTZOID, BOOLOID};
	SaStatement *statement = &end_everybody;
	SaArgs		args = {0};

	out_arg(&args, fcinfo, OUT_REASON, TEXTOID);
	out_arg(&args, fcinfo, OUT_APPLICATION, TEXTOID);
	if (!PG_ARGISNULL(OUT_USER_NAME))
	{
		statement = &end_user;
		out_arg(&args, fcinfo, OUT_USER_NAME, TEXTOID);
	}
	else if (!PG_ARGISNULL(OUT_SESSION_REF))
	{
		statement = &end_session;
		out_arg(&args, fcinfo, OUT_SESSION_REF, TEXTOID);
	}
	else if (!out_everybody(fcinfo))
	{
		statement = &end_sessions;
		for (int argno = OUT_ADDRESS; argno <= OUT_ANONYMOUS; argno++)
			out_arg(&args, fcinfo, argno, filter_types[argno - OUT_ADDRESS]);
	}
	sa_run(statement, &args);
}

/* A count, of which there is none where they were too many to be counted. */
static char *
out_count(int column)
{
	bool		isnull;
	Datum		count = sa_result(0, column, &isnull);

	return isnull ? pstrdup("all") : psprintf(INT64_FORMAT, DatumGetInt64(count));
}

/*
 * One look at the nodes: print a line for each that is not behind any more, and was when
 * it was looked at before.  At the end, warn of those that still are.  True if any is.
 */
static bool
out_look(int64 id, int64 committed, bool at_end, HTAB *told)
{
	static SaStatement node_states = {.sql =
		"SELECT w.node, w.state FROM session_admin.wait_for_nodes($1, $2) w"
	};
	Interval	at_once = {0};
	SaArgs		args = {0};
	uint64		rows;
	double		passed;
	bool		behind = false;

	sa_arg(&args, INT8OID, Int64GetDatum(id), false);
	sa_arg(&args, INTERVALOID, IntervalPGetDatum(&at_once), false);
	rows = sa_run(&node_states, &args);
	passed = Max(sa_monotonic_now() - committed, 0) / 1000.0;

	for (uint64 row = 0; row < rows; row++)
	{
		char	   *node = sa_result_text(row, 1);
		char	   *state = sa_result_text(row, 2);
		bool		is_behind = strcmp(state, "behind") == 0;
		bool		found = false;

		behind = behind || is_behind;
		if (is_behind && at_end)
			ereport(WARNING,
					(errmsg("%s: still behind after %.1f ms", node, passed),
					 strncmp(node, SA_PRODUCT_PREFIX, strlen(SA_PRODUCT_PREFIX)) == 0 ?
					 errhint("Rows of the product's own tables remain, and let their users in: see view health.") :
					 errhint("It may answer from its cache until its lease has expired: SELECT * FROM session_admin.wait_for_nodes(%lld).",
							 (long long) id)));
		else if (!is_behind)
		{
			(void) hash_search(told, node, HASH_ENTER, &found);
			if (!found)
				ereport(INFO,
						(strcmp(state, "applied") == 0 ?
						 errmsg("%s: applied after %.1f ms", node, passed) :
						 errmsg("%s: %s", node, state)));
		}
		pfree(node);
		pfree(state);
	}
	SPI_freetuptable(SPI_tuptable);
	return behind;
}

/* Wait until no node is behind, at most until a moment. */
static void
out_wait(int64 id, int64 committed, int64 timeout)
{
	HASHCTL		ctl = {.keysize = OUT_NAME_SIZE, .entrysize = OUT_NAME_SIZE, .hcxt = CurrentMemoryContext};
	HTAB	   *told = hash_create("nodes that were told of", 64, &ctl,
								   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);

	for (;;)
	{
		int64		passed = sa_monotonic_now() - committed;
		bool		at_end = passed >= timeout;
		int64		delay;

		CHECK_FOR_INTERRUPTS();
		if (!out_look(id, committed, at_end, told) || at_end)
			break;
		delay = Min(Max(passed / 1000 / OUT_DELAY_SHARE, OUT_FIRST_DELAY), OUT_LAST_DELAY);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(delay, (timeout - passed) / 1000 + 1), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	hash_destroy(told);
}

/*
 * sa_log_out
 *		End sessions, commit, wait for the nodes, and print a line for each.
 *
 * What has committed stays, also if the wait is cancelled.
 */
Datum
sa_log_out(PG_FUNCTION_ARGS)
{
	int64		id;
	int64		committed;
	int64		timeout;
	bool		nothing;
	char	   *sessions;
	char	   *tokens;

	out_check(fcinfo);
	timeout = sa_node_interval_arg(fcinfo, OUT_TIMEOUT, "timeout");

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	out_end(fcinfo);
	id = DatumGetInt64(sa_result(0, 1, &nothing));
	sessions = out_count(2);
	tokens = out_count(3);
	SPI_commit();
	committed = sa_monotonic_now();

	ereport(INFO,
			(errmsg("sessions ended: %s, remember-me tokens revoked: %s", sessions, tokens)));
	if (!nothing)
		out_wait(id, committed, timeout);
	SPI_finish();
	return (Datum) 0;
}
