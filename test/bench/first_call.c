/*
 * first_call.c
 *	  What the first statement of a connection costs.
 *
 *	first_call CONNINFO ROUNDS <STATEMENTS
 *
 * Each line of STATEMENTS is a name, a tab and a statement, in which # is a number that no
 * other call has.  In each round, each statement gets a new connection, in which it is
 * the first.  For each, it prints the name and the median processor time of the backend
 * from the arrival of the statement until it waits for the next one, in microseconds, as
 * /proc/PID/schedstat tells; so it runs on the machine of the server, as its user or root.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libpq-fe.h"

#define STATEMENTS_MAX	64

typedef struct Statement
{
	char	   *name;
	char	   *sql;
	double	   *times;
} Statement;

static Statement statements[STATEMENTS_MAX];
static int	nstatements;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "first_call: %s: %s\n", what, why);
	exit(1);
}

/* Is the process asleep? */
static int
asleep(int pid)
{
	char		path[64];
	char		line[512];
	char	   *state = NULL;
	FILE	   *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (file != NULL)
	{
		if (fgets(line, sizeof(line), file) != NULL)
			state = strrchr(line, ')');
		fclose(file);
	}
	if (state == NULL)
		die("could not read", path);
	return state[2] == 'S';
}

/* The processor time of a process that has nothing to do any more, in microseconds. */
static double
processor_time(int pid)
{
	char		path[64];
	FILE	   *file;
	uint64_t	time;

	while (!asleep(pid))
		nanosleep(&(struct timespec) {.tv_nsec = 50000}, NULL);
	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	file = fopen(path, "r");
	if (file == NULL || fscanf(file, "%" SCNu64, &time) != 1)
		die("could not read", path);
	fclose(file);
	return (double) time / 1000;
}

/* The statement with a number in the place of each #. */
static char *
numbered(const char *sql)
{
	static int	number = 0;
	char	   *result = malloc(strlen(sql) * 12 + 1);
	char	   *end = result;

	if (result == NULL)
		die("malloc", "out of memory");
	number++;
	for (; *sql; sql++)
	{
		if (*sql == '#')
			end += sprintf(end, "%d", number);
		else
			*end++ = *sql;
	}
	*end = '\0';
	return result;
}

/* One call, the first of its connection. */
static double
measure(const char *conninfo, const Statement *statement)
{
	PGconn	   *conn = PQconnectdb(conninfo);
	char	   *sql = numbered(statement->sql);
	PGresult   *result;
	double		before;
	double		after;

	if (PQstatus(conn) != CONNECTION_OK)
		die(statement->name, PQerrorMessage(conn));
	before = processor_time(PQbackendPID(conn));
	result = PQexec(conn, sql);
	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		die(statement->name, PQerrorMessage(conn));
	after = processor_time(PQbackendPID(conn));
	PQclear(result);
	PQfinish(conn);
	free(sql);
	return after - before;
}

static int
compare_times(const void *a, const void *b)
{
	double		left = *(const double *) a;
	double		right = *(const double *) b;

	return (left > right) - (left < right);
}

static void
read_statements(int rounds)
{
	char		line[4096];

	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		Statement  *statement = &statements[nstatements];
		char	   *tab = strchr(line, '\t');

		line[strcspn(line, "\n")] = '\0';
		if (tab == NULL || nstatements == STATEMENTS_MAX)
			die("wrong or too many lines", line);
		*tab = '\0';
		statement->name = strdup(line);
		statement->sql = strdup(tab + 1);
		statement->times = malloc(rounds * sizeof(double));
		if (statement->name == NULL || statement->sql == NULL || statement->times == NULL)
			die("malloc", "out of memory");
		nstatements++;
	}
}

int
main(int argc, char **argv)
{
	int			rounds = argc == 3 ? atoi(argv[2]) : 0;

	if (rounds <= 0)
		die("usage", "first_call CONNINFO ROUNDS <STATEMENTS");
	read_statements(rounds);
	for (int round = 0; round < rounds; round++)
	{
		for (int i = 0; i < nstatements; i++)
			statements[i].times[round] = measure(argv[1], &statements[i]);
	}
	for (int i = 0; i < nstatements; i++)
	{
		qsort(statements[i].times, rounds, sizeof(double), compare_times);
		printf("%s\t%.0f\n", statements[i].name, statements[i].times[rounds / 2]);
	}
	return 0;
}
