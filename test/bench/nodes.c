/*
 * nodes.c
 *	  How long it takes until the last of many nodes knows of an invalidation.
 *
 *	nodes CONNINFO NODES INVALIDATIONS
 *
 * Each node has a connection of its own and does what pg_session_follow does:
 * LISTEN; at a notification sync_node(), apply the rows, and sync_node() again,
 * which is the receipt.  One more connection invalidates one user after the
 * other, each when every node has acknowledged the one before.  All of it is in
 * one process, on one clock.
 *
 * For each invalidation it prints four moments, in milliseconds after the call:
 * the call's answer, then when the last node was notified, had fetched the row
 * and so dropped the user from its cache, and knew that its receipt was taken.
 */
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libpq-fe.h"

#define HEARTBEAT 1000			/* milliseconds: a lost notification costs this */

typedef enum State
{
	IDLE,
	FETCHING,
	ACKNOWLEDGING
} State;

typedef struct Node
{
	PGconn	   *conn;
	char		name[32];
	char	   *position;
	State		state;
	bool		rung;			/* the bell rang while a call was under way */
	bool		found;			/* the answer has the current invalidation */
	bool		acknowledged;	/* the current invalidation */
} Node;

static const char *const join_sql = "SELECT session_admin.join_node($1)";
static const char *const sync_sql =
"SELECT applied, user_name FROM session_admin.sync_node($1, $2::pg_snapshot)";
static const char *const invalidate_sql =
"SELECT invalidation_id FROM session_admin.invalidate_user($1)";

static int	nnodes;
static Node *nodes;
static struct pollfd *fds;		/* of the nodes, then of the driver */
static PGconn *driver;

/* The current invalidation */
static char user_name[32];
static double started;
static double answered;
static double notified;
static double fetched;
static double acknowledged;
static int	nacknowledged;

static void
die(const char *message)
{
	fprintf(stderr, "nodes: %s\n", message);
	exit(1);
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static PGconn *
open_connection(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		die(PQerrorMessage(conn));
	return conn;
}

static PGresult *
checked(PGconn *conn, PGresult *result)
{
	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		die(PQerrorMessage(conn));
	return result;
}

static void
set_position(Node *node, const char *position)
{
	free(node->position);
	node->position = strdup(position);
	if (node->position == NULL)
		die("out of memory");
}

static void
send_sync(Node *node, State state)
{
	const char *values[] = {node->name, node->position};

	if (PQsendQueryPrepared(node->conn, "sync", 2, values, NULL, NULL, 0) == 0)
		die(PQerrorMessage(node->conn));
	node->state = state;
}

/* LISTEN comes first, so that nothing is missed between the two. */
static void
join(Node *node, const char *conninfo, int number)
{
	const char *values[1];
	PGresult   *result;

	snprintf(node->name, sizeof(node->name), "node%d", number);
	values[0] = node->name;
	node->conn = open_connection(conninfo);
	PQclear(checked(node->conn, PQexec(node->conn, "LISTEN session_admin")));
	result = checked(node->conn, PQexecParams(node->conn, join_sql, 1, NULL, values, NULL, NULL, 0));
	set_position(node, PQgetvalue(result, 0, 0));
	PQclear(result);
	PQclear(checked(node->conn, PQprepare(node->conn, "sync", sync_sql, 2, NULL)));
	fds[number].fd = PQsocket(node->conn);
	fds[number].events = POLLIN;
}

/* Apply what sync_node() gave: is the user that we wait for in it? */
static bool
apply(Node *node, PGresult *result)
{
	bool		found = false;

	checked(node->conn, result);
	for (int row = 0; row < PQntuples(result); row++)
		found |= strcmp(PQgetvalue(result, row, 1), user_name) == 0;
	set_position(node, PQgetvalue(result, 0, 0));
	return found;
}

/* The answer of sync_node() is complete. */
static void
finish_sync(Node *node)
{
	State		state = node->state;

	node->state = IDLE;
	if (node->found)
	{
		node->found = false;
		fetched = now() - started;
		send_sync(node, ACKNOWLEDGING);
	}
	else if (state == ACKNOWLEDGING && !node->acknowledged)
	{
		node->acknowledged = true;
		nacknowledged++;
		acknowledged = now() - started;
	}
}

/* Something came from the server. */
static void
handle_node(Node *node)
{
	PGnotify   *notification;

	if (PQconsumeInput(node->conn) == 0)
		die(PQerrorMessage(node->conn));

	while (node->state != IDLE && !PQisBusy(node->conn))
	{
		PGresult   *result = PQgetResult(node->conn);

		if (result != NULL)
			node->found |= apply(node, result);
		else
			finish_sync(node);
		PQclear(result);
	}

	while ((notification = PQnotifies(node->conn)) != NULL)
	{
		PQfreemem(notification);
		node->rung = true;
		notified = now() - started;
	}
	if (node->rung && node->state == IDLE)
	{
		node->rung = false;
		send_sync(node, FETCHING);
	}
}

/* The answer of invalidate_user() */
static void
handle_driver(void)
{
	PGresult   *result;

	if (PQconsumeInput(driver) == 0)
		die(PQerrorMessage(driver));
	while (answered < 0 && !PQisBusy(driver))
	{
		result = PQgetResult(driver);
		if (result != NULL)
			PQclear(checked(driver, result));
		else
			answered = now() - started;
	}
}

/* Invalidate one user, until every node has acknowledged it. */
static void
invalidate(int number)
{
	const char *values[] = {user_name};

	snprintf(user_name, sizeof(user_name), "user%d", number);
	for (int i = 0; i < nnodes; i++)
		nodes[i].acknowledged = false;
	nacknowledged = 0;
	answered = -1;

	started = now();
	if (PQsendQueryPrepared(driver, "invalidate", 1, values, NULL, NULL, 0) == 0)
		die(PQerrorMessage(driver));

	while (nacknowledged < nnodes || answered < 0)
	{
		int			ready = poll(fds, nnodes + 1, HEARTBEAT);

		for (int i = 0; i < nnodes; i++)
		{
			if (fds[i].revents != 0)
				handle_node(&nodes[i]);
			else if (ready == 0 && nodes[i].state == IDLE)
				send_sync(&nodes[i], FETCHING);
		}
		if (fds[nnodes].revents != 0)
			handle_driver();
	}
}

int
main(int argc, char **argv)
{
	int			invalidations;

	if (argc != 4)
		die("usage: nodes CONNINFO NODES INVALIDATIONS");
	nnodes = atoi(argv[2]);
	invalidations = atoi(argv[3]);

	nodes = calloc(nnodes, sizeof(Node));
	fds = calloc(nnodes + 1, sizeof(struct pollfd));
	if (nodes == NULL || fds == NULL)
		die("out of memory");
	for (int i = 0; i < nnodes; i++)
		join(&nodes[i], argv[1], i);

	driver = open_connection(argv[1]);
	PQclear(checked(driver, PQprepare(driver, "invalidate", invalidate_sql, 1, NULL)));
	fds[nnodes].fd = PQsocket(driver);
	fds[nnodes].events = POLLIN;

	/* some first, which are not counted: the servers' caches are empty */
	for (int i = -10; i < invalidations; i++)
	{
		invalidate(i + 11);
		if (i >= 0)
			printf("%.3f %.3f %.3f %.3f\n", answered, notified, fetched, acknowledged);
	}

	for (int i = 0; i < nnodes; i++)
	{
		const char *values[] = {nodes[i].name};

		PQclear(checked(nodes[i].conn,
						PQexecParams(nodes[i].conn, "SELECT session_admin.leave_node($1)",
									 1, NULL, values, NULL, NULL, 0)));
		PQfinish(nodes[i].conn);
	}
	PQfinish(driver);
	return 0;
}
