/*
 * pg_session_follow.c
 *	  Follow the feed of invalidations as a node: print them, or run a command.
 *
 * This is also the reference for those who write a node in their language.  All
 * of it is in main() and follow():
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

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/logging.h"
#include "common/string.h"
#include "libpq-fe.h"

#include "events.h"
#include "options.h"

#define MIN_HEARTBEAT	50
#define QUERY_TIMEOUT	30000	/* then the connection is taken for dead */
#define CONNECT_TIMEOUT "10"	/* seconds, where the user set none */

/* The error that a server in recovery gives; another try may find the primary */
#define ERRCODE_READ_ONLY	"25006"

static const char *const sync_sql =
"SELECT s.applied, (extract(epoch FROM s.lease) * 1000)::bigint,"
"       CASE WHEN s.id IS NOT NULL THEN json_strip_nulls(row_to_json(j)) END"
" FROM session_admin.sync_node($1, $2::pg_snapshot) AS s,"
" LATERAL (SELECT nullif(s.id, 0) AS id, s.scope, s.application, s.user_name AS \"user\","
"   CASE WHEN s.scope <> 'user' THEN encode(s.session_hash, 'hex') END AS session,"
"   CASE WHEN s.scope = 'user' THEN encode(s.session_hash, 'hex') END AS keep,"
"   s.reason, s.at) AS j"
" ORDER BY s.id";

static PGconn *conn;			/* NULL: not connected */
static char *password;
static char *position;			/* NULL: not joined, or unknown */

static void
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
static PGresult *
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
		wait_for_events(PQsocket(conn), POLLIN | (unsent ? POLLOUT : 0), until - now_ms());
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

static bool
run(const char *sql, int nparams, const char *const *params)
{
	PGresult   *result = query(sql, nparams, params);

	PQclear(result);
	return result != NULL;
}

/* Connect, as psql does; false if that failed, which was said then */
static bool
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

static void
set_position(const char *value)
{
	char	   *copy = pg_strdup(value);

	pg_free(position);
	position = copy;
}

/*
 * Read the position that an earlier run left; false if there is no such file.
 * An empty file is a position that no server remembers.
 */
static bool
position_read(void)
{
	char		buffer[65536];
	size_t		length;
	FILE	   *file = fopen(options.position_file, "r");

	if (file == NULL)
	{
		if (errno != ENOENT)
			pg_fatal("could not open file \"%s\": %m", options.position_file);
		return false;
	}
	length = fread(buffer, 1, sizeof(buffer) - 1, file);
	if (ferror(file))
		pg_fatal("could not read file \"%s\": %m", options.position_file);
	fclose(file);

	buffer[length] = '\0';
	(void) pg_strip_crlf(buffer);
	if (strspn(buffer, "0123456789:,") != strlen(buffer))
		pg_fatal("file \"%s\" does not contain a position", options.position_file);
	if (buffer[0] != '\0')
		set_position(buffer);
	return true;
}

/*
 * Write the position before it is presented.  Should a crash of the machine
 * leave an older one, or an empty file, the server does not remember that, and
 * answers with a resync: there is no need to wait for the disk.
 */
static void
position_write(void)
{
	char		temporary[MAXPGPATH];
	FILE	   *file;

	snprintf(temporary, sizeof(temporary), "%s.tmp", options.position_file);
	file = fopen(temporary, "w");
	if (file == NULL)
		pg_fatal("could not open file \"%s\": %m", temporary);
	if (fprintf(file, "%s\n", position) < 0 || fclose(file) != 0)
		pg_fatal("could not write file \"%s\": %m", temporary);
	if (rename(temporary, options.position_file) != 0)
		pg_fatal("could not rename file \"%s\" to \"%s\": %m", temporary, options.position_file);
}

/* Write all of a string; false if it could not be, or if we are to stop */
static bool
write_all(int fd, const char *data)
{
	size_t		length = strlen(data);

	while (length > 0)
	{
		ssize_t		written = write(fd, data, length);

		if (written < 0 && errno == EAGAIN)
		{
			struct pollfd ready = {.fd = fd, .events = POLLOUT};

			written = Min(poll(&ready, 1, -1), 0);
		}
		if (written < 0 && errno == EINTR && !stopping)
			continue;
		if (written < 0)
			return false;
		data += written;
		length -= written;
	}
	return true;
}

/* Run the command with a line on its standard input; whether it exited with 0 */
static bool
run_command(const char *line)
{
	bool		watch = true;
	bool		told = false;
	int			input[2];
	int			status;
	pid_t		child;
	pid_t		ended;

	if (pipe(input) != 0)
		pg_fatal("could not create pipe: %m");
	child = fork();
	if (child < 0)
	{
		pg_log_error("could not create process: %m");
		close(input[0]);
		close(input[1]);
		return false;
	}
	if (child == 0)
	{
		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		signal(SIGCHLD, SIG_DFL);
		signal(SIGPIPE, SIG_DFL);
		if (dup2(input[0], STDIN_FILENO) < 0)
			_exit(126);
		if (input[0] != STDIN_FILENO)
			close(input[0]);
		close(input[1]);
		execl("/bin/sh", "sh", "-c", options.command, (char *) NULL);
		_exit(127);
	}

	/* a command that does not read what it is given may still succeed */
	close(input[0]);
	(void) write_all(input[1], line);
	close(input[1]);

	/* however long it runs, the server must not wait for us to read */
	while ((ended = waitpid(child, &status, WNOHANG)) == 0)
	{
		wait_for_events(watch ? PQsocket(conn) : -1, POLLIN, -1);
		if (watch && conn != NULL && PQconsumeInput(conn) == 0)
			watch = false;
		if (stopping && !told)
		{
			kill(child, SIGTERM);
			told = true;
		}
	}
	if (ended < 0)
		pg_fatal("could not wait for command: %m");
	if (status != 0)
	{
		char	   *reason = wait_result_to_str(status);

		pg_log_error("command failed: %s", reason);
		free(reason);
	}
	return status == 0;
}

/*
 * The JSON as a line.  It has no control characters of ASCII but DEL; this and those
 * of Unicode, which terminals obey, too, are written as numbers.
 */
static char *
json_line(const char *json)
{
	char	   *line = pg_malloc(6 * strlen(json) + 2);
	char	   *to = line;

	for (const unsigned char *c = (const unsigned char *) json; *c; c++)
	{
		if (*c == 0x7f)
			to += sprintf(to, "\\u007f");
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			to += sprintf(to, "\\u00%02x", *++c);
		else
			*to++ = (char) *c;
	}
	strcpy(to, "\n");
	return line;
}

/* Apply one invalidation, however often it takes; false if we are to stop */
static bool
apply(const char *json)
{
	char	   *line = json_line(json);
	int			delay = MIN_BACKOFF;
	bool		applied = false;

	if (options.command == NULL)
	{
		applied = write_all(STDOUT_FILENO, line);
		if (!applied && !stopping)
			pg_fatal("could not write to standard output: %m");
	}
	else
	{
		while (!stopping && !(applied = run_command(line)))
			back_off(&delay);
	}
	pg_free(line);
	return applied;
}

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
		wait_for_events(PQsocket(conn), POLLIN, until - now_ms());
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
