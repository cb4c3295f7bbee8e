/*
 * connection.c
 *	  The connection to the server, and queries that end.
 */
#include "postgres_fe.h"

#include <poll.h>
#include <signal.h>

#include "common/logging.h"
#include "common/string.h"
#include "follow.h"

#define QUERY_TIMEOUT	30000	/* then the connection is taken for dead */
#define CONNECT_TIMEOUT "10"	/* seconds, where the user set none */

/* The error that a server in recovery gives; another try may find the primary */
#define ERRCODE_READ_ONLY	"25006"

PGconn	   *conn = NULL;

static char *password = NULL;

void
disconnect(void)
{
	PQfinish(conn);
	conn = NULL;
}

/*
 * Whether an error is one that passes: the server is shut down, started or
 * short of something, or the transaction met another.
 */
static bool
may_pass(const char *sqlstate)
{
	static const char *const classes[] = {"08", "40", "53", "55", "57", "58"};

	if (sqlstate == NULL || strcmp(sqlstate, ERRCODE_READ_ONLY) == 0)
		return true;
	for (size_t i = 0; i < lengthof(classes); i++)
	{
		if (strncmp(sqlstate, classes[i], 2) == 0)
			return true;
	}
	return false;
}

/*
 * Run a query that gives rows.  NULL if it failed in a way that may pass: the
 * connection is closed then.
 */
PGresult *
query(const char *sql, int nparams, const char *const *params)
{
	int64		until = now_ms() + QUERY_TIMEOUT;
	PGresult   *result = NULL;
	PGresult   *next;

	if (PQsendQueryParams(conn, sql, nparams, NULL, params, NULL, NULL, 0) == 0)
	{
		pg_log_error("could not send query: %s", PQerrorMessage(conn));
		disconnect();
		return NULL;
	}

	/* The last result is the one that tells; NULL ends them */
	for (;;)
	{
		int			unsent = PQflush(conn);

		if (unsent < 0)
			break;
		if (!PQisBusy(conn))
		{
			next = PQgetResult(conn);
			if (next == NULL)
				break;
			PQclear(result);
			result = next;
			continue;
		}
		if (now_ms() >= until)
		{
			pg_log_error("server did not answer within %d seconds", QUERY_TIMEOUT / 1000);
			PQclear(result);
			disconnect();
			return NULL;
		}
		wait_for_events(conn, POLLIN | (unsent ? POLLOUT : 0), until - now_ms());
		if (PQconsumeInput(conn) == 0)
			break;
	}

	if (PQstatus(conn) == CONNECTION_OK &&
		(PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_COMMAND_OK))
		return result;

	if (PQstatus(conn) == CONNECTION_OK && result != NULL)
	{
		pg_log_error("%s", PQresultErrorMessage(result));
		if (!may_pass(PQresultErrorField(result, PG_DIAG_SQLSTATE)))
			exit(1);
	}
	else
		pg_log_error("%s", PQerrorMessage(conn));
	PQclear(result);
	disconnect();
	return NULL;
}

/* Run a query whose rows do not matter; false if it failed in a way that may pass */
bool
run(const char *sql, int nparams, const char *const *params)
{
	PGresult   *result = query(sql, nparams, params);

	PQclear(result);
	return result != NULL;
}

/* Connect, as psql does; false if that failed, which was said then */
bool
connect_to_server(void)
{
	/*
	 * what comes after dbname overrides a connection string, what is before
	 * does not
	 */
	const char *keywords[] = {"connect_timeout", "fallback_application_name",
	"dbname", "host", "port", "user", "password", "client_encoding", NULL};
	const char *values[lengthof(keywords)] = {
		getenv("PGCONNECT_TIMEOUT") != NULL ? NULL : CONNECT_TIMEOUT, progname,
	options.dbname, options.host, options.port, options.user, NULL, "UTF8", NULL};

	for (;;)
	{
		if (options.prompt_password == TRI_YES && password == NULL)
			password = simple_prompt("Password: ", false);
		values[6] = password;

		connecting = true;
		conn = PQconnectdbParams(keywords, values, true);
		connecting = false;
		if (conn == NULL)
			pg_fatal("out of memory");
		if (PQstatus(conn) == CONNECTION_OK)
			break;
		if (password != NULL || options.prompt_password == TRI_NO ||
			!PQconnectionNeedsPassword(conn))
		{
			pg_log_error("%s", PQerrorMessage(conn));
			disconnect();
			return false;
		}
		disconnect();
		options.prompt_password = TRI_YES;
	}

	if (PQsetnonblocking(conn, 1) != 0)
		pg_fatal("could not set up connection: %s", PQerrorMessage(conn));
	return run("SELECT pg_catalog.set_config('search_path', '', false),"
			   " pg_catalog.set_config('TimeZone', 'UTC', false)", 0, NULL) &&
		(options.application == NULL ||
		 run("SELECT set_config('session_admin.application', $1, false)",
			 1, &options.application)) &&
		run("LISTEN session_admin", 0, NULL);
}
