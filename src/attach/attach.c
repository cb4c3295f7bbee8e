/*
 * attach.c
 *	  How the tables of a product come to be watched, and how that ends.
 *
 * attach_application() finds the tables in a schema by what is described of the product,
 * notes what it found in attachment and attachment_column, and makes triggers that call
 * capture().  README.md says how that keeps nobody waiting.
 */
#include "attach/match.h"
#include "policy/policy.h"
#include "ending/ending.h"
#include "capture/capture.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define MANY_ROWS		100000	/* that take some time to be read */
#define FEW_ROWS		1000	/* that do not */
#define MAX_ROUNDS		10

PG_FUNCTION_INFO_V1(sa_attach_application);
PG_FUNCTION_INFO_V1(sa_detach_application);

/*
 * Note what was found, in the place of what was noted before, and return the
 * tables of that.
 */
static List *
attach_note(Match *matches, int nmatches, const char *application, const char *product)
{
	static SaStatement forget_attachment = {.sql =
		"WITH columns AS ("
		"  DELETE FROM session_admin_internal.attachment_column WHERE application = $1 AND product = $2"
		"), backfills AS ("
		"  DELETE FROM session_admin_internal.backfill WHERE application = $1 AND product = $2"
		"), reconciliations AS ("
		"  DELETE FROM session_admin_internal.reconciliation WHERE application = $1 AND product = $2"
		")"
		" DELETE FROM session_admin_internal.attachment WHERE application = $1 AND product = $2"
		" RETURNING relation::oid"
	};
	static SaStatement insert_attachment = {.sql =
		"INSERT INTO session_admin_internal.attachment"
		" (application, product, part, relation, table_name, key_of, alias_pattern, ends, clear_to)"
		" SELECT $1, $2, $3, $4, $4::regclass::text, $5, alias_pattern,"
		"  CASE WHEN $3 IN ('session', 'remember_me') THEN coalesce(d.ends, 'delete') END, d.clear_to"
		" FROM session_admin_internal.product p"
		" JOIN session_admin_internal.product_part d ON d.product = p.product AND d.part = $3"
		" WHERE p.product = $2"
	};
	static SaStatement insert_column = {.sql =
		"INSERT INTO session_admin_internal.attachment_column"
		" (application, product, part, role, column_name, reading, path, excludes)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
	};
	SaArgs		forget_args = {0};
	List	   *before = NIL;
	uint64		rows;

	sa_arg_text(&forget_args, application);
	sa_arg_text(&forget_args, product);
	rows = sa_run(&forget_attachment, &forget_args);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		before = lappend_oid(before, DatumGetObjectId(sa_result(i, 1, &isnull)));
	}

	for (int i = 0; i < nmatches; i++)
	{
		Match	   *match = &matches[i];
		SaArgs		args = {0};

		if (!sa_match_is_attached(match) || sa_matches_part(matches, nmatches, match->part) == NULL)
			continue;
		sa_arg_text(&args, application);
		sa_arg_text(&args, product);
		sa_arg_text(&args, match->part);
		if (match->role == NULL)
		{
			sa_arg(&args, OIDOID, ObjectIdGetDatum(match->relid), false);
			sa_arg_text(&args, match->key_of);
			sa_run(&insert_attachment, &args);
		}
		else
		{
			sa_arg_text(&args, match->role);
			sa_arg_text(&args, match->column_name);
			sa_arg_text(&args, match->reading);
			sa_arg(&args, TEXTARRAYOID, match->path, match->no_path);
			sa_arg(&args, TEXTARRAYOID, match->excludes, match->no_excludes);
			sa_run(&insert_column, &args);
		}
	}
	return before;
}

/* Take what is in the tables as known, and count the rows; see sa_capture_existing. */
static int64
attach_read(Match *matches, int nmatches, const char *application, const char *product,
			Snapshot snapshot, Snapshot done)
{
	int64		rows = 0;

	/* in the order of parts: keys come before what refers to them */
	for (SaTablePart part = 0; part < SA_NPARTS; part++)
	{
		Match	   *match = sa_matches_part(matches, nmatches, sa_part_names[part]);
		Relation	relation;
		ListCell   *cell;

		if (match == NULL || part == SA_PART_REMEMBER_ME || part == SA_PART_SESSION)
			continue;
		relation = table_open(match->relid, AccessShareLock);
		foreach(cell, sa_watches_of(relation))
		{
			SaWatch    *watch = lfirst(cell);

			if (watch->part == part && strcmp(watch->application, application) == 0 &&
				strcmp(watch->product, product) == 0)
				match->rows += sa_capture_existing(watch, relation, snapshot, done);
		}
		table_close(relation, NoLock);
		rows += match->rows;

		/* without statistics, what is new there is taken for empty */
		if (done == NULL)
			(void) sa_run_once("ANALYZE session_admin_internal.account, session_admin_internal.account_key", NULL);
	}
	return rows;
}

/* Say that it may take long, and who has to wait. */
static void
attach_tell_rows(Match *matches, int nmatches)
{
	static SaStatement estimate_rows = {.sql =
		"SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = $1"
	};
	int64		rows = 0;

	for (int i = 0; i < nmatches; i++)
	{
		SaArgs		args = {0};

		if (matches[i].role != NULL || !sa_match_is_attached(&matches[i]))
			continue;
		sa_arg(&args, OIDOID, ObjectIdGetDatum(matches[i].relid), false);
		if (sa_run(&estimate_rows, &args) > 0)
			rows += sa_result_int64(0, 1);
	}
	if (rows > MANY_ROWS)
		ereport(NOTICE,
				(errmsg("reading about " INT64_FORMAT " rows, for which nobody has to wait", rows),
				 errdetail("Then the tables are locked against writers until this transaction ends,"
						   " for the time it takes to make the triggers and to look which rows have changed.")));
}

/* Run the statements that a query gives. */
static void
attach_run_each(SaStatement *query, SaArgs *args)
{
	uint64		rows = sa_run(query, args);
	char	  **statements = palloc((rows + 1) * sizeof(char *));

	for (uint64 i = 0; i < rows; i++)
		statements[i] = sa_result_text(i, 1);
	for (uint64 i = 0; i < rows; i++)
		(void) sa_run_once(statements[i], NULL);
}

/* Make the triggers that are missing, and enable those that somebody disabled. */
static void
attach_make_triggers(const char *application, const char *product)
{
	static SaStatement list_statements = {.sql =
		"SELECT u.statement FROM session_admin_internal.attachment_trigger t"
		" CROSS JOIN LATERAL (VALUES (1, t.make), (2, t.enable)) AS u (n, statement)"
		" WHERE t.application = $1 AND t.product = $2 AND u.statement IS NOT NULL"
		/* two parts may be one table */
		" GROUP BY t.relation, t.name, u.n, u.statement"
		" ORDER BY t.relation, t.name, u.n"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, product);
	attach_run_each(&list_statements, &args);
}

/*
 * Read the tables, watch them, and read what has changed meanwhile.  That is done
 * under locks, and so it is made little first: by reading again, with none, as long
 * as the product has changed a lot.
 */
static void
attach_read_and_watch(Match *matches, int nmatches, const char *application, const char *product)
{
	List	   *relids = NIL;
	Snapshot	done = NULL;
	Snapshot	last;
	int64		before;
	int64		rows = 0;

	for (int round = 0; round < MAX_ROUNDS; round++)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		before = rows;
		rows = attach_read(matches, nmatches, application, product, snapshot, done);
		if (done != NULL)
			UnregisterSnapshot(done);
		done = snapshot;
		if (rows - before <= FEW_ROWS)
			break;
	}

	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role == NULL && sa_match_is_attached(&matches[i]))
			relids = list_append_unique_oid(relids, matches[i].relid);
	}
	sa_attach_lock(relids, ShareRowExclusiveLock);
	attach_make_triggers(application, product);
	last = RegisterSnapshot(GetLatestSnapshot());
	attach_read(matches, nmatches, application, product, last, done);
	UnregisterSnapshot(last);
	UnregisterSnapshot(done);
}

/* These tables were attached: drop the triggers of those that are not any more. */
static void
attach_leave_tables(List *relids)
{
	static SaStatement is_watched = {.sql =
		"SELECT FROM session_admin_internal.attachment WHERE relation = $1"
	};
	static SaStatement list_statements = {.sql =
		"SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)"
		" FROM pg_trigger t JOIN session_admin_internal.capture_trigger w ON w.name = t.tgname"
		" WHERE t.tgrelid = $1 AND t.tgfoid = 'session_admin.capture'::regproc"
	};
	List	   *left = NIL;
	ListCell   *cell;

	foreach(cell, relids)
	{
		Oid			relid = lfirst_oid(cell);
		SaArgs		args = {0};

		/* the product may have dropped it */
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
			continue;
		CacheInvalidateRelcacheByRelid(relid);
		sa_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
		if (sa_run(&is_watched, &args) == 0)
			left = list_append_unique_oid(left, relid);
	}

	sa_attach_lock(left, AccessExclusiveLock);
	foreach(cell, left)
	{
		SaArgs		args = {0};

		sa_arg(&args, OIDOID, ObjectIdGetDatum(lfirst_oid(cell)), false);
		attach_run_each(&list_statements, &args);
	}
}

/* attach_application(product, in_schema, application) */
Datum
sa_attach_application(PG_FUNCTION_ARGS)
{
	char	   *product = sa_text_or_null(fcinfo, 0);
	char	   *schema = sa_text_or_null(fcinfo, 1);
	char	   *application_name = sa_application_arg(fcinfo, 2);
	SaApplication application;
	Match	   *matches;
	List	   *before;
	int			nmatches;
	bool		built_in;

	if (product == NULL || schema == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("product and schema must not be null")));

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	built_in = sa_product_is_built_in(product);
	if (!OidIsValid(get_namespace_oid(schema, true)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema \"%s\" does not exist", sa_clean(schema, strlen(schema), NAMEDATALEN))));
	if (strcmp(schema, SA_SCHEMA) == 0 || strcmp(schema, SA_INTERNAL_SCHEMA) == 0 ||
		strncmp(schema, "pg_", 3) == 0 || strcmp(schema, "information_schema") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schema \"%s\" cannot hold the tables of a product", schema)));

	matches = sa_matches_find(product, schema, &nmatches);
	sa_matches_check(matches, nmatches, application_name, product, schema);
	if (!built_in)
		sa_matches_check_privileges(matches, nmatches);

	attach_tell_rows(matches, nmatches);

	sa_application_ensure(application_name, &application);
	before = attach_note(matches, nmatches, application_name, product);
	/* where the triggers are there already, nothing else tells the backends */
	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role == NULL && sa_match_is_attached(&matches[i]))
			CacheInvalidateRelcacheByRelid(matches[i].relid);
	}
	CommandCounterIncrement();

	attach_read_and_watch(matches, nmatches, application_name, product);

	attach_leave_tables(before);
	sa_reconcile_attached(application_name, product);

	sa_report_matches(fcinfo, matches, nmatches, application_name, product);
	SPI_finish();
	return (Datum) 0;
}

/* detach_application(product, in_schema, application) */
Datum
sa_detach_application(PG_FUNCTION_ARGS)
{
	static SaStatement delete_attachment = {.sql =
		"WITH gone AS ("
		"  DELETE FROM session_admin_internal.attachment t"
		"  WHERE t.application = $3 AND ($1 IS NULL OR t.product = $1)"
		"    AND ($2 IS NULL OR NOT EXISTS (SELECT FROM pg_class c"
		"      JOIN pg_namespace n ON n.oid = c.relnamespace"
		"      WHERE c.oid = t.relation AND n.nspname <> $2))"
		"  RETURNING t.product, t.part, t.relation"

		/*
		 * with the columns of parts that got lost, of which nobody knows the
		 * schema
		 */
		"), columns AS ("
		"  DELETE FROM session_admin_internal.attachment_column c"
		"  WHERE c.application = $3 AND ($1 IS NULL OR c.product = $1)"
		"    AND ((c.product, c.part) IN (SELECT product, part FROM gone)"
		"      OR NOT EXISTS (SELECT FROM session_admin_internal.attachment t"
		"        WHERE t.application = $3 AND t.product = c.product AND t.part = c.part))"
		"  RETURNING c.product, c.part"
		"), backfills AS ("
		"  DELETE FROM session_admin_internal.backfill b USING gone"
		"  WHERE b.application = $3 AND b.product = gone.product AND b.part = gone.part"
		"), reconciliations AS ("
		"  DELETE FROM session_admin_internal.reconciliation r USING gone"
		"  WHERE r.application = $3 AND r.product = gone.product AND gone.part = 'session'"
		"), keys AS ("
		"  DELETE FROM session_admin_internal.account_key k USING gone"
		"  WHERE k.application = $3 AND k.product = gone.product AND k.part = gone.part"
		/* nobody tells any more when they end: the policies do */
		"), sessions AS ("
		"  UPDATE session_admin.session s"
		"  SET product = NULL, product_key = NULL, idle_timeout = NULL"
		"  FROM gone WHERE s.application = $3 AND s.product = gone.product AND gone.part = 'session'"
		")"
		" SELECT part::text, relation::oid, relation::text FROM ("
		"  SELECT product, part, relation FROM gone"
		"  UNION ALL SELECT DISTINCT product, part, 0::regclass FROM columns"
		"  WHERE (product, part) NOT IN (SELECT product, part FROM gone)) g"
		" ORDER BY product, part"
	};
	char	   *application = sa_application_arg(fcinfo, 2);
	SaArgs		args = {0};
	Match	   *gone;
	List	   *relids = NIL;
	uint64		rows;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	sa_arg(&args, TEXTOID, PG_GETARG_DATUM(0), PG_ARGISNULL(0));
	sa_arg(&args, TEXTOID, PG_GETARG_DATUM(1), PG_ARGISNULL(1));
	sa_arg_text(&args, application);
	rows = sa_run(&delete_attachment, &args);
	if (rows == 0)
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("no table is attached to application \"%s\"", application),
				 errhint("See session_admin.verify_attachments() for what is attached to which application.")));

	gone = palloc0(rows * sizeof(Match));
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		gone[i].part = sa_result_text(i, 1);
		gone[i].relid = DatumGetObjectId(sa_result(i, 2, &isnull));
		gone[i].relation_name = sa_result_text(i, 3);
		relids = lappend_oid(relids, gone[i].relid);
	}
	attach_leave_tables(relids);
	for (uint64 i = 0; i < rows; i++)
		sa_report_row(fcinfo, gone[i].part, gone[i].relation_name, "detached", "");
	SPI_finish();
	return (Datum) 0;
}
