/*
 * pg_session_follow.c
 *	  Follow the feed of invalidations as a node: print them, or run a command.
 *
 * This is also the reference for those who write a node in their language.  All
 * of it is in main() and follow(), in this file:
 *
 *	1. LISTEN, then join_node() once: the position from which an empty cache is
 *	   right.
 *	2. sync_node(position): the rows committed since, and the next position.
 *	3. Apply the rows.  If there were any, go to 2 at once: presenting the next
 *	   position is the receipt for them.
 *	4. Wait for a notification, a third of the lease at most, and go to 2.
 *
 * The notification is a bell and nothing more: one that is lost costs at most a
 * third of the lease.  When the connection is lost, connect again and go to 2
 * with the position as it was: the server remembers it, or answers with an
 * invalidation of everything.
 *
 * What could not be applied is tried again, and nothing is said to the server
 * meanwhile: its lease runs out, which is the truth about this node.
 */
#include "postgres_fe.h"

#include <poll.h>
#include <signal.h>

#include "common/logging.h"
#include "follow.h"

#define MIN_HEARTBEAT	50

static const char *const sync_sql =
"SELECT s.applied, (extract(epoch FROM s.lease) * 1000)::bigint,"
"       CASE WHEN s.id IS NOT NULL THEN json_strip_nulls(row_to_json(j)) END"
" FROM session_admin.sync_node($1, $2::pg_snapshot) AS s,"
" LATERAL (SELECT nullif(s.id, 0) AS id, s.scope, s.application, s.user_name AS \"user\","
"   CASE WHEN s.scope <> 'user' THEN encode(s.session_hash, 'hex') END AS session,"
"   CASE WHEN s.scope = 'user' THEN encode(s.session_hash, 'hex') END AS keep,"
"   s.reason, s.at) AS j"
" ORDER BY s.id";

static bool
notified(void)
{
	PGnotify   *notify;
	bool		any = false;

	while ((notify = PQnotifies(conn)) != NULL)
	{
		any = true;
		PQfreemem(notify);
	}
	return any;
}

static bool
join(void)
{
	const char *params[] = {options.node, options.application};
	PGresult   *result = query("SELECT session_admin.join_node($1, $2)", 2, params);

	if (result == NULL)
		return false;
	set_position(PQgetvalue(result, 0, 0));
	PQclear(result);
	if (options.verbose)
		pg_log_info("joined as node \"%s\" at position %s", options.node, position);
	return true;
}

static void
leave(void)
{
	if (conn != NULL && PQtransactionStatus(conn) == PQTRANS_IDLE &&
		run("SELECT session_admin.leave_node($1)", 1, &options.node) && options.verbose)
		pg_log_info("node \"%s\" left", options.node);
}

/* Wait for a notification, or for a third of the lease; false if disconnected */
static bool
wait_for_bell(int64 lease)
{
	int64		until = now_ms() + Max(lease / 3, MIN_HEARTBEAT);

	while (!stopping && !notified() && now_ms() < until)
	{
		wait_for_events(conn, POLLIN, until - now_ms());
		if (PQconsumeInput(conn) == 0)
		{
			pg_log_error("connection to server was lost: %s", PQerrorMessage(conn));
			disconnect();
			return false;
		}
	}
	return true;
}

/* Follow the feed until the connection is lost, or we are to stop */
static void
follow(int *delay)
{
	while (!stopping)
	{
		const char *params[] = {options.node, position};
		PGresult   *result;
		int			rows;
		int64		lease;
		bool		any = false;

		/* those from before this fetch need no other */
		(void) notified();
		result = query(sync_sql, 2, params);
		if (result == NULL)
			return;
		*delay = MIN_BACKOFF;

		rows = PQntuples(result);
		for (int row = 0; row < rows; row++)
		{
			if (PQgetisnull(result, row, 2))
				continue;
			any = true;
			if (!apply(PQgetvalue(result, row, 2)))
			{
				PQclear(result);
				return;
			}
		}

		set_position(PQgetvalue(result, 0, 0));
		lease = strtoll(PQgetvalue(result, 0, 1), NULL, 10);
		PQclear(result);
		if (options.position_file != NULL)
			position_write();

		if (!any && !wait_for_bell(lease))
			return;
	}
}

int
main(int argc, char *argv[])
{
	int			delay = MIN_BACKOFF;
	bool		known;

	pg_logging_init(argv[0]);
	progname = get_progname(argv[0]);
	set_pglocale_pgservice(argv[0], PG_TEXTDOMAIN("session_admin"));
	parse_options(argc, argv);
	handle_signals();

	/* what is wrong at the start, like a wrong name, is not tried again */
	known = options.position_file != NULL && position_read();
	if (!connect_to_server())
		exit(1);

	while (!stopping)
	{
		if (conn != NULL && (known || (known = join())))
			follow(&delay);
		if (stopping || conn != NULL)
			continue;
		back_off(&delay);
		if (!stopping && connect_to_server() && options.verbose)
			pg_log_info("connected again");
	}

	if (options.position_file == NULL)
		leave();
	if (conn != NULL)
		disconnect();
	return 0;
}
