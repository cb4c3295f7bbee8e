/*
 * attach.c
 *	  How the tables of a product come to be watched, and how that ends.
 *
 * What the tables of a product mean is data (tables product, product_part and
 * product_column).  attach_application finds them in a schema by their columns,
 * notes what it found in attachment and attachment_column, and makes triggers
 * that call capture().
 *
 * Attaching must not keep the product waiting.  So what is there is read first,
 * under no lock that matters to anybody; then all tables are locked against
 * writers, the triggers are made, and only the rows that changed since are read
 * again.  While it waits for one of these locks it holds none of the others.
 */
#include "attach/attach.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"

#define LOCK_TIMEOUT	"300ms"
#define DEADLOCK_TIMEOUT "100ms"
#define LOCK_PAUSE		700		/* milliseconds */
#define MANY_ROWS		100000	/* that take some time to be read */
#define FEW_ROWS		1000	/* that do not */
#define MAX_ROUNDS		10

PG_FUNCTION_INFO_V1(sa_attach_application);
PG_FUNCTION_INFO_V1(sa_detach_application);

/* One row of match_product: a part if role is NULL, else a column of it. */
typedef struct Match
{
	char	   *part;
	Oid			relid;
	char	   *relation_name;
	char	   *role;
	char	   *column_name;
	char	   *reading;
	char	   *key_of;
	char	   *state;
	char	   *note;
	Datum		path;			/* arrays of text */
	bool		no_path;
	Datum		excludes;
	bool		no_excludes;
	bool		clears;			/* what ends in this part */
	int64		rows;			/* read of this part */
} Match;

/* Add one row to the report. */
static void
report(FunctionCallInfo fcinfo, const char *part, const char *object, const char *state,
	   const char *note)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = CStringGetTextDatum(part);
	values[1] = CStringGetTextDatum(object);
	values[2] = CStringGetTextDatum(state);
	values[3] = CStringGetTextDatum(note);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Refuse a product that nobody has described. */
static void
check_product(const char *product, bool *built_in)
{
	static SaStatement find_product = {.sql =
		"SELECT (SELECT built_in FROM session_admin_internal.product WHERE product = $1),"
		" (SELECT string_agg(product, ', ' ORDER BY product) FROM session_admin_internal.product)"
	};
	SaArgs		args = {0};
	bool		isnull;

	sa_arg_text(&args, product);
	sa_run(&find_product, &args);
	*built_in = DatumGetBool(sa_result(0, 1, &isnull));
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown product \"%s\"", sa_clean(product, strlen(product), SA_NAME_MAX)),
				 errhint("Products are %s.", sa_result_text(0, 2))));
}

/* Find the product's tables in the schema. */
static Match *
find_tables(const char *product, const char *schema, int *nmatches)
{
	static SaStatement match_product = {.sql =
		"SELECT part, relation, relation_name, role, column_name, reading, key_of, state, note,"
		"  path, excludes,"
		"  (SELECT p.ends = 'clear' FROM session_admin_internal.product_part p"
		"    WHERE p.product = $1 AND p.part = m.part)"
		" FROM session_admin_internal.match_product($1, $2) m"
	};
	SaArgs		args = {0};
	Match	   *matches;
	uint64		rows;

	sa_arg_text(&args, product);
	sa_arg_text(&args, schema);
	rows = sa_run(&match_product, &args);
	matches = palloc0((rows + 1) * sizeof(Match));
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		matches[i].part = sa_result_text(i, 1);
		matches[i].relid = DatumGetObjectId(sa_result(i, 2, &isnull));
		matches[i].relation_name = sa_result_text(i, 3);
		matches[i].role = sa_result_text(i, 4);
		matches[i].column_name = sa_result_text(i, 5);
		matches[i].reading = sa_result_text(i, 6);
		matches[i].key_of = sa_result_text(i, 7);
		matches[i].state = sa_result_text(i, 8);
		matches[i].note = sa_result_text(i, 9);
		matches[i].path = sa_result(i, 10, &matches[i].no_path);
		matches[i].excludes = sa_result(i, 11, &matches[i].no_excludes);
		matches[i].clears = DatumGetBool(sa_result(i, 12, &isnull)) && !isnull;
	}
	*nmatches = (int) rows;
	return matches;
}

static bool
is_attached(const Match *match)
{
	return strcmp(match->state, "attached") == 0;
}

/* The match that stands for this part as a whole; NULL if it is not attached. */
static Match *
attached_part(Match *matches, int nmatches, const char *part)
{
	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role == NULL && strcmp(matches[i].part, part) == 0)
			return is_attached(&matches[i]) ? &matches[i] : NULL;
	}
	return NULL;
}

/* Refuse what is not there; leave out the parts that make no sense alone. */
static void
check_parts(Match *matches, int nmatches, const char *product, const char *schema)
{
	int			attached = 0;

	for (int i = 0; i < nmatches; i++)
	{
		Match	   *match = &matches[i];

		if (match->role != NULL)
			continue;
		if (strcmp(match->state, "required") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("schema \"%s\" does not hold the tables of product \"%s\"", schema, product),
					 errdetail("%s: %s.", match->relation_name, match->note)));
		if (is_attached(match) && match->key_of != NULL &&
			attached_part(matches, nmatches, match->key_of) == NULL)
		{
			match->state = "missing";
			match->note = psprintf("part \"%s\" is missing, and with it the names of users",
								   match->key_of);
		}
		attached += is_attached(match);
	}
	if (attached == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("schema \"%s\" holds no table of product \"%s\"", schema, product)));
}

/* The column that plays this role in the part; NULL if there is none. */
static char *
column_of_role(Match *matches, int nmatches, const char *part, const char *role)
{
	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role != NULL && is_attached(&matches[i]) &&
			strcmp(matches[i].part, part) == 0 && strcmp(matches[i].role, role) == 0)
			return matches[i].column_name;
	}
	return NULL;
}

/* Refuse to have rows deleted that are users. */
static void
check_endings(Match *matches, int nmatches, const char *application, const char *product,
			  const char *schema)
{
	static SaStatement find_reason = {.sql =
		"SELECT reason, ambiguous FROM session_admin_internal.refused_ending($1, $2, $3, $4, $5, $6, $7)"
	};

	for (int i = 0; i < nmatches; i++)
	{
		Match	   *match = &matches[i];
		SaArgs		args = {0};
		char	   *user;
		char	   *reason;
		bool		isnull;

		if (match->role != NULL || !is_attached(match))
			continue;
		user = column_of_role(matches, nmatches, match->part, "user_key");
		if (user == NULL)
			user = column_of_role(matches, nmatches, match->part, "user_name");
		sa_arg_text(&args, application);
		sa_arg_text(&args, product);
		sa_arg_text(&args, schema);
		sa_arg_text(&args, match->part);
		sa_arg(&args, OIDOID, ObjectIdGetDatum(match->relid), false);
		sa_arg_text(&args, user);
		sa_arg_text(&args, column_of_role(matches, nmatches, match->part, "secret"));
		if (sa_run(&find_reason, &args) == 0 || (reason = sa_result_text(0, 1)) == NULL)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" cannot be part \"%s\": rows of users could be deleted",
						match->relation_name, match->part),
				 errdetail("%c%s.", pg_toupper((unsigned char) reason[0]), reason + 1),
				 DatumGetBool(sa_result(0, 2, &isnull)) ?
				 errhint("Describe the part with \"ends\": \"clear\", if its token is one column of a row of users, or \"ends\": \"delete\", if each row is one session or token.") :
				 errhint("A part with \"ends\": \"clear\" sets the token to null, or to \"clear_to\".")));
	}
}

/*
 * What came with the extension reads names and times, compares credentials and
 * keeps of secrets a hash: capability administrator is enough.  What somebody
 * else described could read anything: they must be allowed to.
 */
static void
check_privileges(Match *matches, int nmatches)
{
	for (int i = 0; i < nmatches; i++)
	{
		AclMode		needed = ACL_SELECT | ACL_TRIGGER |
		(matches[i].clears ? ACL_UPDATE : ACL_DELETE);

		if (matches[i].role == NULL && is_attached(&matches[i]) &&
			pg_class_aclmask(matches[i].relid, GetOuterUserId(), needed, ACLMASK_ALL) != needed)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for table %s", matches[i].relation_name),
					 errhint("To attach what was described, SELECT, TRIGGER and %s are needed on its tables.",
							 matches[i].clears ? "UPDATE" : "DELETE")));
	}
}

/*
 * Note what was found, in the place of what was noted before, and return the
 * tables of that.
 */
static List *
note_attachment(Match *matches, int nmatches, const char *application, const char *product)
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

		if (!is_attached(match) || attached_part(matches, nmatches, match->part) == NULL)
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

static void
run_utility(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute statement: %s", SPI_result_code_string(result));
}

/* Take what is in the tables as known, and count the rows; see sa_capture_existing. */
static int64
read_tables(Match *matches, int nmatches, const char *application, const char *product,
			Snapshot snapshot, Snapshot done)
{
	int64		rows = 0;

	/* in the order of parts: keys come before what refers to them */
	for (SaPart part = 0; part < SA_NPARTS; part++)
	{
		Match	   *match = attached_part(matches, nmatches, sa_part_names[part]);
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
			run_utility("ANALYZE session_admin_internal.account, session_admin_internal.account_key");
	}
	return rows;
}

/* Say how long it may take, and who has to wait for it. */
static void
tell_rows(Match *matches, int nmatches)
{
	static SaStatement estimate_rows = {.sql =
		"SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = $1"
	};
	int64		rows = 0;

	for (int i = 0; i < nmatches; i++)
	{
		SaArgs		args = {0};

		if (matches[i].role != NULL || !is_attached(&matches[i]))
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

typedef struct Locking
{
	List	   *relids;
	LOCKMODE	mode;
	Oid			waits_for;		/* one of them, which was not to be had */
	bool		waited;			/* for it, in vain */
} Locking;

static void
lock_all(void *argument)
{
	Locking    *locking = argument;
	ListCell   *cell;

	if (OidIsValid(locking->waits_for))
	{
		int			nestlevel = NewGUCNestLevel();

		locking->waited = true;
		(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		(void) set_config_option("deadlock_timeout", DEADLOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		LockRelationOid(locking->waits_for, locking->mode);
		AtEOXact_GUC(false, nestlevel);
		locking->waited = false;
	}
	foreach(cell, locking->relids)
	{
		if (ConditionalLockRelationOid(lfirst_oid(cell), locking->mode))
			continue;
		locking->waits_for = lfirst_oid(cell);
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not obtain lock on relation %u", locking->waits_for)));
	}
}

/*
 * Lock all these tables without keeping others waiting.  Who waits for a lock has
 * all behind it that come later, for as long as the oldest transaction goes on: so
 * one is waited for only shortly, time and again, and none of the others held
 * meanwhile.  If who holds it waits for us, each of these times finds out, and it is
 * us who gives up, not the product.
 */
static void
lock_tables(List *relids, LOCKMODE mode)
{
	Locking		locking = {.relids = relids, .mode = mode};
	ErrorData  *error;

	while ((error = sa_attempt(lock_all, &locking)) != NULL)
	{
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		CHECK_FOR_INTERRUPTS();
		if (locking.waited)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 LOCK_PAUSE, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
		locking.waited = false;
		FreeErrorData(error);
	}
}

/* Run the statements that a query gives. */
static void
run_each(SaStatement *query, SaArgs *args)
{
	uint64		rows = sa_run(query, args);
	char	  **statements = palloc((rows + 1) * sizeof(char *));

	for (uint64 i = 0; i < rows; i++)
		statements[i] = sa_result_text(i, 1);
	for (uint64 i = 0; i < rows; i++)
		run_utility(statements[i]);
}

/* Make the triggers that are missing, and enable those that somebody disabled. */
static void
make_triggers(const char *application, const char *product)
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
	run_each(&list_statements, &args);
}

/*
 * Read the tables, watch them, and read what has changed meanwhile.  That is done
 * under locks, and so it is made little first: by reading again, with none, as long
 * as the product has changed a lot.
 */
static void
read_and_watch(Match *matches, int nmatches, const char *application, const char *product)
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
		rows = read_tables(matches, nmatches, application, product, snapshot, done);
		if (done != NULL)
			UnregisterSnapshot(done);
		done = snapshot;
		if (rows - before <= FEW_ROWS)
			break;
	}

	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role == NULL && is_attached(&matches[i]))
			relids = list_append_unique_oid(relids, matches[i].relid);
	}
	lock_tables(relids, ShareRowExclusiveLock);
	make_triggers(application, product);
	last = RegisterSnapshot(GetLatestSnapshot());
	read_tables(matches, nmatches, application, product, last, done);
	UnregisterSnapshot(last);
	UnregisterSnapshot(done);
}

/* These tables were attached: drop the triggers of those that are not any more. */
static void
leave_tables(List *relids)
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

	lock_tables(left, AccessExclusiveLock);
	foreach(cell, left)
	{
		SaArgs		args = {0};

		sa_arg(&args, OIDOID, ObjectIdGetDatum(lfirst_oid(cell)), false);
		run_each(&list_statements, &args);
	}
}

/* What the report says of a part that is attached. */
static const char *
note_on_part(const Match *matches, int nmatches, const Match *match)
{
	if (strcmp(match->part, "remember_me") == 0)
		return match->clears ? "tokens are cleared, no row is deleted" : match->note;
	if (strcmp(match->part, "session") != 0)
		return psprintf(INT64_FORMAT " rows read", match->rows);
	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role != NULL && strcmp(matches[i].part, match->part) == 0 &&
			strncmp(matches[i].role, "user_", 5) == 0 && is_attached(&matches[i]))
			return "new rows are seen from now on; for those that are there, CALL session_admin.backfill_sessions()";
	}
	return "rows are deleted when everybody is logged out; whose they are is not seen";
}

/* Who watches this table, too; NULL: nobody. */
static char *
other_attachments(Oid relid, const char *application, const char *product)
{
	static SaStatement list_others = {.sql =
		"SELECT string_agg(format('also watched as product \"%s\" of application \"%s\"',"
		"   product, application), '; ' ORDER BY application, product)"
		" FROM session_admin_internal.attachment"
		" WHERE relation = $1 AND (application, product) <> ($2, $3)"
	};
	SaArgs		args = {0};

	sa_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	sa_arg_text(&args, application);
	sa_arg_text(&args, product);
	sa_run(&list_others, &args);
	return sa_result_text(0, 1);
}

/* What is seen coming that may keep rows of sessions or tokens that end. */
static void
report_obstacles(FunctionCallInfo fcinfo, const Match *match)
{
	Datum	   *notes;
	int			n;

	deconstruct_array(sa_forget_obstacles(match->relid, match->clears), TEXTOID, -1, false,
					  TYPALIGN_INT, &notes, NULL, &n);
	for (int i = 0; i < n; i++)
		report(fcinfo, match->part, match->relation_name, "warning", TextDatumGetCString(notes[i]));
}

static void
report_matches(FunctionCallInfo fcinfo, Match *matches, int nmatches, const char *application,
			   const char *product)
{
	static SaStatement read_notes = {.sql =
		"SELECT n.note FROM session_admin_internal.product p"
		" CROSS JOIN unnest(p.notes) WITH ORDINALITY AS n (note, n)"
		" WHERE p.product = $1 ORDER BY n.n"
	};
	SaArgs		args = {0};
	uint64		rows;

	for (int i = 0; i < nmatches; i++)
	{
		Match	   *match = &matches[i];

		if (match->role == NULL)
		{
			char	   *others = is_attached(match) ?
			other_attachments(match->relid, application, product) : NULL;

			report(fcinfo, match->part, match->relation_name, match->state,
				   is_attached(match) ? note_on_part(matches, nmatches, match) : match->note);
			if (others)
				report(fcinfo, match->part, match->relation_name, "warning", others);
			if (is_attached(match) &&
				(strcmp(match->part, "session") == 0 || strcmp(match->part, "remember_me") == 0))
				report_obstacles(fcinfo, match);
		}
		else if (attached_part(matches, nmatches, match->part) == NULL)
			continue;
		else if (match->column_name == NULL)
			report(fcinfo, match->part, match->relation_name, match->state,
				   psprintf("%s: %s", match->role, match->note));
		else
			report(fcinfo, match->part,
				   psprintf("%s.%s", match->relation_name, match->column_name), match->state,
				   match->note[0] == '\0' ? match->role :
				   psprintf("%s: %s", match->role, match->note));
	}

	if (attached_part(matches, nmatches, "session") == NULL)
		report(fcinfo, "product", product, "not seen",
			   "HTTP sessions are not in these tables: nodes that follow the feed have to end them");
	sa_arg_text(&args, product);
	rows = sa_run(&read_notes, &args);
	for (uint64 i = 0; i < rows; i++)
		report(fcinfo, "product", product, "not seen", sa_result_text(i, 1));
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
	check_product(product, &built_in);
	if (!OidIsValid(get_namespace_oid(schema, true)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema \"%s\" does not exist", sa_clean(schema, strlen(schema), NAMEDATALEN))));
	if (strcmp(schema, SA_SCHEMA) == 0 || strcmp(schema, SA_INTERNAL_SCHEMA) == 0 ||
		strncmp(schema, "pg_", 3) == 0 || strcmp(schema, "information_schema") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schema \"%s\" cannot hold the tables of a product", schema)));

	matches = find_tables(product, schema, &nmatches);
	check_parts(matches, nmatches, product, schema);
	check_endings(matches, nmatches, application_name, product, schema);
	if (!built_in)
		check_privileges(matches, nmatches);

	tell_rows(matches, nmatches);

	sa_application_make(application_name, &application);
	before = note_attachment(matches, nmatches, application_name, product);
	/* where the triggers are there already, nothing else tells the backends */
	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role == NULL && is_attached(&matches[i]))
			CacheInvalidateRelcacheByRelid(matches[i].relid);
	}
	CommandCounterIncrement();

	read_and_watch(matches, nmatches, application_name, product);

	leave_tables(before);
	sa_reconcile_attached(application_name, product);

	report_matches(fcinfo, matches, nmatches, application_name, product);
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
	leave_tables(relids);
	for (uint64 i = 0; i < rows; i++)
		report(fcinfo, gone[i].part, gone[i].relation_name, "detached", "");
	SPI_finish();
	return (Datum) 0;
}
