/*
 * wait.c
 *	  wait_for_nodes(): waits until no node can honour what an invalidation ended.
 */
#include "node/node.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define WAIT_COLUMNS		2
#define WAIT_FIRST_DELAY	1	/* milliseconds between two looks at the nodes */
#define WAIT_LAST_DELAY		20

PG_FUNCTION_INFO_V1(sa_wait_for_nodes);

/* An argument that says how long to wait at most, in microseconds */
int64
sa_node_interval_arg(FunctionCallInfo fcinfo, int argno, const char *name)
{
	Interval   *interval;
	int64		days;
	int64		result;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be null", name)));

	interval = PG_GETARG_INTERVAL_P(argno);
	days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &result) ||
		pg_add_s64_overflow(result, interval->time, &result))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", name)));
	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name)));
	return result;
}

/* The committed transaction of an invalidation */
static Datum
wait_xid(int64 id)
{
	static SaStatement invalidation_find = {.sql =
		"SELECT xid, coalesce(xid = pg_current_xact_id_if_assigned(), false)"
		" FROM session_admin_internal.invalidation WHERE id = $1"
	};
	SaArgs		args = {0};
	bool		isnull;

	sa_arg(&args, INT8OID, Int64GetDatum(id), false);
	if (sa_run(&invalidation_find, &args) == 0)
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("invalidation %lld does not exist", (long long) id),
				 errhint("Invalidations are kept for as long as the policy \"feed_retention\" says.")));
	if (DatumGetBool(sa_result(0, 2, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("invalidation %lld is not committed yet", (long long) id),
				 errhint("Nodes learn of it when this transaction commits. Commit first, then wait.")));
	return SPI_datumTransfer(sa_result(0, 1, &isnull), FLOAT8PASSBYVAL, 8);
}

/*
 * sa_wait_for_nodes
 *		Wait until no node can honour what an invalidation ended, or a timeout.
 */
Datum
sa_wait_for_nodes(PG_FUNCTION_ARGS)
{
	static SaStatement node_states = {.sql =
		"SELECT node, CASE"
		"  WHEN pg_visible_in_snapshot($1, applied) THEN 'applied'"
		"  WHEN lease_is_over THEN 'lease expired'"
		"  ELSE 'behind' END"
		" FROM session_admin_internal.node_state"

		/*
		 * a product's own row of a session that has ended still lets its user
		 * in there
		 */
		" UNION ALL SELECT DISTINCT '" SA_PRODUCT_PREFIX "' || product, 'behind'"
		"  FROM session_admin_internal.product_remains WHERE xid = $1"
		" ORDER BY 1"
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		timeout = sa_node_interval_arg(fcinfo, 1, "timeout");
	int64		deadline;
	long		delay = WAIT_FIRST_DELAY;
	SaArgs		args = {0};
	uint64		rows;

	/* an endless one is an error, as it is with a time */
	(void) sa_time_after(GetCurrentTimestamp(), timeout);
	deadline = sa_monotonic_now() + timeout;
	sa_init_materialized_srf(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;

	SPI_connect();
	if (!RecoveryInProgress() && !XactReadOnly)
		sa_server_run_note();
	sa_arg(&args, XID8OID, wait_xid(PG_GETARG_INT64(0)), false);

	for (;;)
	{
		bool		behind = false;
		long		left;

		CHECK_FOR_INTERRUPTS();
		rows = sa_run(&node_states, &args);
		for (uint64 row = 0; row < rows && !behind; row++)
		{
			char	   *state = sa_result_text(row, 2);

			behind = strcmp(state, "behind") == 0;
			pfree(state);
		}

		left = (long) ((deadline - sa_monotonic_now()) / 1000);
		if (!behind || left <= 0)
			break;

		SPI_freetuptable(SPI_tuptable);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(delay, left), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		delay = Min(delay * 2, WAIT_LAST_DELAY);
	}

	for (uint64 row = 0; row < rows; row++)
	{
		Datum		values[WAIT_COLUMNS];
		bool		nulls[WAIT_COLUMNS];

		for (int column = 0; column < WAIT_COLUMNS; column++)
			values[column] = sa_result(row, column + 1, &nulls[column]);
		/* whatever a node calls itself */
		if (!nulls[0] && !sa_is_shown(TextDatumGetCString(values[0])))
			values[0] = CStringGetTextDatum(sa_shown(TextDatumGetCString(values[0])));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	SPI_finish();
	return (Datum) 0;
}
