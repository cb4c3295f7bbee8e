/*
 * node.c
 *	  Nodes join and leave the feed of invalidations.
 *
 * README.md in this folder says what a position in the feed is, and why a node that
 * follows it misses nothing.
 */
#include "node/node.h"
#include "policy/policy.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_join_node);
PG_FUNCTION_INFO_V1(sa_leave_node);

/* Gives the position now, with the key that signs what it claims. */
SaStatement sa_position_now = {.sql =
	"SELECT session_admin_internal.feed_position(), (SELECT id::text FROM session_admin_internal.installation)"
};

/*
 * sa_join_node
 *		The position from which an empty cache is right.
 */
Datum
sa_join_node(PG_FUNCTION_ARGS)
{
	/*
	 * A node may join under the name of one that is still known and still
	 * answers from its cache: the lease of that one is left to run out.
	 */
	static SaStatement node_join = {.sql =
		"INSERT INTO session_admin_internal.node AS n"
		"  (node, application, handed, joined_at, joined_ahead, joined_run)"
		" VALUES ($1, $2, $3, $4, $5, $6)"
		" ON CONFLICT (node) DO UPDATE SET application = excluded.application,"
		"  joined_at = excluded.joined_at, joined_by = excluded.joined_by,"
		"  joined_ahead = excluded.joined_ahead, joined_run = excluded.joined_run,"
		"  applied = NULL, handed = excluded.handed, unconfirmed = false"
	};
	char	   *node = sa_node_arg(fcinfo, 0);
	char	   *name = sa_application_arg(fcinfo, 1);
	SaArgs		args = {0};
	bool		isnull;
	Datum		position;
	TimestampTz now;

	SPI_connect();
	sa_node_lock(fcinfo, node);
	(void) sa_node_lease(name);
	sa_node_check_role(node, true);
	sa_server_run_note();

	sa_run(&sa_position_now, NULL);
	position = SPI_datumTransfer(sa_result(0, 1, &isnull), false, -1);

	sa_arg_text(&args, node);
	sa_arg_text(&args, name);
	sa_arg(&args, PG_SNAPSHOTOID, position, false);
	now = GetCurrentTimestamp();
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
	sa_arg(&args, INT8OID, Int64GetDatum(sa_clock_ahead(now)), false);
	sa_arg_text(&args, sa_server_run());
	sa_run(&node_join, &args);
	sa_policy_wait_until_told();

	sa_commit_durably(name);
	SPI_finish();
	PG_RETURN_DATUM(position);
}

/*
 * sa_leave_node
 *		The node no longer answers from its cache, and waits for nothing more.
 */
Datum
sa_leave_node(PG_FUNCTION_ARGS)
{
	static SaStatement node_leave = {.sql =
		"DELETE FROM session_admin_internal.node WHERE node = $1"
	};
	char	   *node = sa_node_arg(fcinfo, 0);
	SaArgs		args = {0};
	uint64		rows;

	SPI_connect();
	sa_node_lock(fcinfo, node);
	sa_node_check_role(node, false);
	sa_arg_text(&args, node);
	rows = sa_run(&node_leave, &args);
	SPI_finish();
	PG_RETURN_BOOL(rows > 0);
}
