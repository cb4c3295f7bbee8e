/*
 * history.c
 *	  Tasks: make and drop partitions of the history, and forget what is older than its
 *	  application keeps it.
 *
 * Rows for which there is no partition yet go to the default partition meanwhile.
 */
#include "housekeeping/task.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#define MONTHS_AHEAD	2		/* partitions made before they are needed */

/*
 * Tables whose rows are kept for some time; the partitioned ones, with the column of their
 * partitions, come first.
 */
static const struct
{
	const char *table;
	const char *column;
	const char *retention;
}			histories[] =
{
	{"ended_session", "ended_at", "history_retention"},
	{"login_event", "at", "login_event_retention"},
	{"account_key", "gone_at", "login_event_retention"},
	{"capture_failure", "at", "login_event_retention"},
};

#define NPARTITIONED	2

static uint64 history_run(const char *format,...) pg_attribute_printf(1, 2);

/* Run a statement whose table is one of ours. */
static uint64
history_run(const char *format,...)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}

	(void) sa_run_once(sql.data, NULL);
	pfree(sql.data);
	return SPI_processed;
}

/*
 * History that is older than its application keeps it.  Each application's is looked up by
 * the index.  Partitions of which no application keeps anything are left to
 * sa_history_drop_partitions(), but for the default one, which is never dropped.
 */
int64
sa_history_forget(bool *more)
{
	int64		rows = 0;

	for (size_t i = 0; i < lengthof(histories); i++)
	{
		const char *table = histories[i].table;
		const char *column = histories[i].column;
		const char *retention = histories[i].retention;
		const char *kept = "";

		if (i < NPARTITIONED)
			kept = psprintf(" AND (h.tableoid = 'session_admin_internal.%s_default'::regclass"
							" OR h.%s >= (SELECT date_trunc('month', statement_timestamp() - max(value::interval), 'UTC')"
							"   FROM session_admin_internal.effective_policy WHERE name = '%s'))",
							table, column, retention);
		rows += sa_task_batch_done(history_run("DELETE FROM session_admin_internal.%s WHERE (tableoid, ctid) IN ("
											   " SELECT o.tableoid, o.ctid FROM session_admin_internal.effective_policy p"
											   " CROSS JOIN LATERAL (SELECT h.tableoid, h.ctid FROM session_admin_internal.%s h"
											   "   WHERE h.application = p.application"
											   "     AND h.%s < statement_timestamp() - p.value::interval%s"
											   "   ORDER BY h.application, h.%s LIMIT %d FOR UPDATE SKIP LOCKED) o"
											   " WHERE p.name = '%s' LIMIT %d)",
											   table, table, column, kept, column, SA_TASK_BATCH,
											   retention, SA_TASK_BATCH),
								   more);
	}
	return rows;
}

/* Is there a partition of this name? */
static bool
partition_exists(const char *name)
{
	return OidIsValid(get_relname_relid(name, get_namespace_oid(SA_INTERNAL_SCHEMA, false)));
}

/* Make the partition of one month, and move there what waits in the default one. */
static void
partition_make(const char *table, const char *column, const char *name,
			   const char *from, const char *to)
{
	/*
	 * an INSERT that has chosen the default partition already would find that
	 * it no longer takes the row
	 */
	history_run("LOCK TABLE session_admin_internal.%s IN SHARE ROW EXCLUSIVE MODE", table);
	history_run("LOCK TABLE session_admin_internal.%s_default IN ACCESS EXCLUSIVE MODE", table);
	history_run("CREATE TABLE session_admin_internal.%s (LIKE session_admin_internal.%s)", name, table);
	history_run("CREATE INDEX %s_user_idx ON session_admin_internal.%s (user_name, application, %s)",
				name, name, column);
	history_run("CREATE INDEX %s_age_idx ON session_admin_internal.%s (application, %s)",
				name, name, column);
	history_run("WITH moved AS (DELETE FROM session_admin_internal.%s_default"
				"   WHERE %s >= '%s' AND %s < '%s' RETURNING *)"
				" INSERT INTO session_admin_internal.%s SELECT * FROM moved",
				table, column, from, column, to, name);
	history_run("ALTER TABLE session_admin_internal.%s ATTACH PARTITION session_admin_internal.%s"
				" FOR VALUES FROM ('%s') TO ('%s')",
				table, name, from, to);
}

/* This month's partitions and those of the months to come; months are those of UTC. */
int64
sa_history_make_partitions(pg_attribute_unused() bool *more)
{
	int64		made = 0;
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(GetCurrentTimestamp(), NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));

	for (int ahead = 0; ahead <= MONTHS_AHEAD; ahead++)
	{
		int			month = tm.tm_year * 12 + tm.tm_mon - 1 + ahead;
		char		from[32];
		char		to[32];

		snprintf(from, sizeof(from), "%04d-%02d-01 00:00:00+00", month / 12, month % 12 + 1);
		snprintf(to, sizeof(to), "%04d-%02d-01 00:00:00+00",
				 (month + 1) / 12, (month + 1) % 12 + 1);
		for (size_t i = 0; i < NPARTITIONED; i++)
		{
			char		name[NAMEDATALEN];

			snprintf(name, sizeof(name), "%s_%04d_%02d",
					 histories[i].table, month / 12, month % 12 + 1);
			if (partition_exists(name))
				continue;
			partition_make(histories[i].table, histories[i].column, name, from, to);
			made++;
		}
	}
	return made;
}

/* Partitions that are older than all applications keep them. */
int64
sa_history_drop_partitions(pg_attribute_unused() bool *more)
{
	static SaStatement longest_retention = {.sql =
		"SELECT coalesce(max(value::interval), '2 years') FROM session_admin_internal.effective_policy"
		" WHERE name = $1"
	};
	static SaStatement old_partitions = {.sql =
		"SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
		" WHERE i.inhparent = ('session_admin_internal.' || $1)::regclass"
		"   AND c.relname ~ ('^' || $1 || '_[0-9]{4}_[0-9]{2}$')"
		"   AND to_timestamp(right(c.relname, 7) || ' +00', 'YYYY_MM TZH')"
		"       + '1 month' <= clock_timestamp() - $2"
		" ORDER BY 1"
	};
	int64		dropped = 0;

	for (size_t i = 0; i < NPARTITIONED; i++)
	{
		SaArgs		args = {0};
		SaArgs		old_args = {0};
		bool		isnull;
		uint64		rows;
		char	  **names;

		sa_arg_text(&args, histories[i].retention);
		sa_run(&longest_retention, &args);
		sa_arg_text(&old_args, histories[i].table);
		sa_arg(&old_args, INTERVALOID, sa_result(0, 1, &isnull), false);
		rows = sa_run(&old_partitions, &old_args);

		names = palloc((rows + 1) * sizeof(char *));
		for (uint64 row = 0; row < rows; row++)
			names[row] = sa_result_text(row, 1);
		for (uint64 row = 0; row < rows; row++)
			history_run("DROP TABLE session_admin_internal.%s", quote_identifier(names[row]));
		dropped += rows;
	}
	return dropped;
}
