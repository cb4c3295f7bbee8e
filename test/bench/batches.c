/*
 * batches.c
 *	  How many ids a second touch_sessions() takes from one connection.
 *
 *	batches CONNINFO text|bytea IDS_PER_CALL SECONDS
 *
 * As a node would do it: a prepared statement with one binary array, all of its
 * ids different and taken at random from all sessions.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libpq-fe.h"

#define TEXTOID			25
#define BYTEAOID		17
#define TEXTARRAYOID	1009
#define BYTEAARRAYOID	1001
#define ID_MAX			32

typedef struct Id
{
	int			length;
	char		data[ID_MAX];
} Id;

static PGconn *conn;

static void
die(const char *message)
{
	fprintf(stderr, "batches: %s\n", message);
	exit(1);
}

static PGresult *
checked(PGresult *result)
{
	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		die(PQerrorMessage(conn));
	return result;
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static char *
put_int32(char *to, uint32_t value)
{
	value = htonl(value);
	memcpy(to, &value, sizeof(value));
	return to + sizeof(value);
}

/* The ids of all sessions, in random order. */
static Id *
read_ids(const char *sql, int *count)
{
	PGresult   *result = checked(PQexecParams(conn, sql, 0, NULL, NULL, NULL, NULL, 1));
	Id		   *ids;

	*count = PQntuples(result);
	ids = calloc(*count + 1, sizeof(Id));
	if (ids == NULL)
		die("out of memory");
	for (int i = 0; i < *count; i++)
	{
		int			other = random() % (i + 1);

		ids[i] = ids[other];
		ids[other].length = PQgetlength(result, i, 0);
		if (ids[other].length > ID_MAX)
			die("an id is too long");
		memcpy(ids[other].data, PQgetvalue(result, i, 0), ids[other].length);
	}
	PQclear(result);
	return ids;
}

/* A one-dimensional array as array_recv() takes it; returns its length. */
static int
make_array(char *array, uint32_t type, const Id *ids, int count)
{
	char	   *to = array;

	to = put_int32(to, 1);		/* dimensions */
	to = put_int32(to, 0);		/* no nulls */
	to = put_int32(to, type);
	to = put_int32(to, count);
	to = put_int32(to, 1);		/* lower bound */
	for (int i = 0; i < count; i++)
	{
		to = put_int32(to, ids[i].length);
		memcpy(to, ids[i].data, ids[i].length);
		to += ids[i].length;
	}
	return to - array;
}

int
main(int argc, char **argv)
{
	bool		text;
	int			per_call;
	double		seconds;
	Id		   *ids;
	int			count;
	int			next = 0;
	Oid			array_type;
	char	   *array;
	double		start;
	double		touched = 0;

	if (argc != 5)
		die("usage: batches CONNINFO text|bytea IDS_PER_CALL SECONDS");
	text = strcmp(argv[2], "text") == 0;
	per_call = atoi(argv[3]);
	seconds = atof(argv[4]);

	conn = PQconnectdb(argv[1]);
	if (PQstatus(conn) != CONNECTION_OK)
		die(PQerrorMessage(conn));
	ids = read_ids(text ? "SELECT id FROM bench.session_id" :
				   "SELECT session_hash FROM session_admin.session", &count);
	if (per_call < 1 || per_call > count)
		die("there are not as many sessions");

	array_type = text ? TEXTARRAYOID : BYTEAARRAYOID;
	array = malloc(20 + per_call * (4 + ID_MAX));
	if (array == NULL)
		die("out of memory");
	PQclear(checked(PQprepare(conn, "touch",
							  "SELECT cardinality(session_admin.touch_sessions($1))",
							  1, &array_type)));

	start = now();
	do
	{
		const char *values[] = {array};
		int			lengths[1];
		int			formats[] = {1};
		PGresult   *result;

		if (next + per_call > count)
			next = 0;
		lengths[0] = make_array(array, text ? TEXTOID : BYTEAOID, ids + next, per_call);
		next += per_call;

		result = checked(PQexecPrepared(conn, "touch", 1, values, lengths, formats, 0));
		if (strcmp(PQgetvalue(result, 0, 0), "0") != 0)
			die("a session is not valid");
		PQclear(result);
		touched += per_call;
	} while (now() - start < seconds);

	printf("%.0f\n", touched / (now() - start));
	PQfinish(conn);
	return 0;
}
