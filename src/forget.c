/*
 * forget.c
 *	  Deletes rows from the products' own tables of sessions and remember-me tokens
 *	  when sessions end, or clears the column where that is one of many.
 *
 * A row of users is never deleted: attach_application refuses it, and here it is looked
 * at once more, as the table may have got another part since.
 *
 * These are the only statements that touch a product's table.  They run as its
 * owner, since its triggers and functions are not ours.  Our own trigger fires
 * too; it asks here whether it was us, so that this is no event of its own.
 *
 * Locks.  The product's statement has its row locked when our trigger comes to the
 * row of session.  So who ends sessions deletes the product's rows first, too, then
 * ours: who waits for a product's row holds no lock on session that the product could
 * be waiting for.  A login locks the account between the two, and so does an
 * invalidation of the user before both; but a login's row is new, or was nobody's, so
 * that the invalidation is not waiting for it.  What changes a row that is the user's
 * already locks no account.  The exceptions: a DBA's own DELETE from session has our
 * rows first, and may deadlock with a logout, of which PostgreSQL then ends one; and
 * housekeeping waits for no product's row, but leaves what is locked.
 */
#include "capture.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/* The table whose rows we delete ourselves right now. */
static Oid	forgetting_relid = InvalidOid;
static const char *forgetting_application = NULL;
static SaEnding *forgetting = NULL;

/*
 * What we delete rows of this table for; NULL if it is not us who does, or for another
 * application that has its sessions there, too: there it is as if the product did it.
 */
SaEnding *
sa_forgetting(const SaWatch *watch)
{
	return forgetting_relid == watch->relid &&
		strcmp(forgetting_application, watch->application) == 0 ? forgetting : NULL;
}

/* Which rows to delete: any of these, or all if none is given. */
typedef struct Target
{
	ArrayType  *users;			/* text[]: names, or keys of users */
	ArrayType  *keys;			/* text[]: role key */
	ArrayType  *hashes;			/* bytea[]: of role secret */
	ArrayType  *secrets;		/* text[]: of these only, to find them by an
								 * index */
	const uint8 *keep;			/* the hash of a session that stays */
} Target;

static const char *
column_name(const SaWatch *watch, SaRole role)
{
	return quote_identifier(get_attname(watch->relid, watch->columns[role].attnum, false));
}

/* The hash of the session id, so that an index on the same expression may serve. */
static char *
hash_expression(const SaWatch *watch)
{
	return psprintf("pg_catalog.sha256(pg_catalog.replace(%s::pg_catalog.text,"
					" pg_catalog.chr(92), pg_catalog.repeat(pg_catalog.chr(92), 2))::pg_catalog.bytea)",
					column_name(watch, SA_ROLE_SECRET));
}

static char *
array_literal(ArrayType *array)
{
	return psprintf("%s::pg_catalog.text[]",
					quote_literal_cstr(OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array))));
}

/* A column is one of the values in an argument. */
static char *
is_any_of(const SaWatch *watch, SaRole role, int argument)
{
	const SaColumn *column = &watch->columns[role];
	const char *name = column_name(watch, role);

	if (column->path != NULL)
		return psprintf("%s OPERATOR(pg_catalog.#>>) %s OPERATOR(pg_catalog.=) ANY ($%d)",
						name, array_literal(column->path), argument);
	if (column->reading == SA_READING_ANY_CASE)
		return psprintf("pg_catalog.lower(%s::text) OPERATOR(pg_catalog.=) ANY ($%d)", name, argument);
	return psprintf("%s OPERATOR(pg_catalog.=) ANY ($%d::%s[])", name, argument,
					format_type_extended(column->type, -1,
										 FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
}

/* The condition for these rows; NULL if there can be none. */
static char *
condition_for(const SaWatch *watch, const Target *target)
{
	SaRole		user_role = SA_HAS(watch, SA_ROLE_USER_KEY) ? SA_ROLE_USER_KEY : SA_ROLE_USER_NAME;
	const SaColumn *user = &watch->columns[user_role];
	bool		all = !target->users && !target->keys && !target->hashes;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, all ? "(true" : "(false");
	/* of text that should be JSON, one row that is not would fail for all */
	if (target->users && user->attnum != InvalidAttrNumber &&
		(user->path == NULL || user->type == JSONOID || user->type == JSONBOID))
		appendStringInfo(&sql, " OR %s", is_any_of(watch, user_role, 1));
	if (target->keys && SA_HAS(watch, SA_ROLE_KEY))
		appendStringInfo(&sql, " OR %s", is_any_of(watch, SA_ROLE_KEY, 2));
	if (target->hashes && SA_HAS(watch, SA_ROLE_SECRET))
		appendStringInfo(&sql, " OR %s OPERATOR(pg_catalog.=) ANY ($3)", hash_expression(watch));
	if (!all && strcmp(sql.data, "(false") == 0)
		return NULL;
	appendStringInfoChar(&sql, ')');

	if (target->secrets)
		appendStringInfo(&sql, " AND %s", is_any_of(watch, SA_ROLE_SECRET, 5));
	if (target->keep && SA_HAS(watch, SA_ROLE_SECRET))
		appendStringInfo(&sql, " AND %s OPERATOR(pg_catalog.<>) $4", hash_expression(watch));
	for (SaRole role = 0; role < SA_NROLES; role++)
	{
		ArrayType  *excludes = watch->columns[role].excludes;

		if (excludes != NULL)
			appendStringInfo(&sql, " AND (%s::pg_catalog.text OPERATOR(pg_catalog.=) ANY (%s)) IS NOT TRUE",
							 column_name(watch, role), array_literal(excludes));
	}
	return sql.data;
}

/* What the column of the secret is set to. */
static char *
cleared_value(const SaWatch *watch)
{
	return watch->clear_to ? quote_literal_cstr(watch->clear_to) : "NULL";
}

/* The statement that ends what the condition is for. */
static char *
ending_statement(const SaWatch *watch, const char *table, const char *condition, bool all,
				 bool skips_locked)
{
	char	   *verb = psprintf("DELETE FROM ONLY %s", table);

	if (watch->clears)
	{
		const char *secret = column_name(watch, SA_ROLE_SECRET);

		verb = psprintf("UPDATE ONLY %s SET %s = %s", table, secret, cleared_value(watch));

		/*
		 * Of one user, a row is written that has nothing in it, too: somebody
		 * who is putting a token there has to be waited for.
		 */
		if (all)
			condition = psprintf("%s AND %s IS DISTINCT FROM %s", condition, secret, cleared_value(watch));
	}
	if (skips_locked)
		return psprintf("%s WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
						"SELECT ctid FROM ONLY %s WHERE %s FOR UPDATE SKIP LOCKED))",
						verb, table, condition);
	return psprintf("%s WHERE %s", verb, condition);
}

/* Why nothing can be ended there; NULL if it can. */
static const char *
refused_to_end(const SaWatch *watch, Relation relation)
{
	ListCell   *cell;

	if (watch->clears)
		return SA_HAS(watch, SA_ROLE_SECRET) ? NULL : "tokens are not cleared: the column is not there any more";
	foreach(cell, sa_watches_of(relation))
	{
		SaWatch    *other = lfirst(cell);

		if (other->part != SA_PART_SESSION && other->part != SA_PART_REMEMBER_ME)
			return "rows are not deleted: they are users";
	}
	return NULL;
}

/*
 * Delete from one of the product's tables, as the owner of that table: its
 * triggers are not ours and must not run with our rights.  They find the names
 * that they expect in its own schema.  Returns how many rows there were.  The caller
 * is connected to SPI.
 */
static uint64
forget(const SaWatch *watch, const Target *target, LOCKMODE lockmode, SaEnding *ending)
{
	Relation	relation = table_open(watch->relid, lockmode);
	char	   *schema = get_namespace_name(RelationGetNamespace(relation));
	char	   *table = quote_qualified_identifier(schema, RelationGetRelationName(relation));
	char	   *condition = condition_for(watch, target);
	const char *refused = refused_to_end(watch, relation);
	Oid			outer_relid = forgetting_relid;
	const char *outer_application = forgetting_application;
	SaEnding   *outer_forgetting = forgetting;
	SaArgs		args = {0};
	char	   *sql;
	Oid			userid;
	int			sec_context;
	int			nestlevel;
	SPIPlanPtr	plan;
	volatile uint64 rows = 0;

	if (condition == NULL)
	{
		table_close(relation, NoLock);
		return 0;
	}
	if (refused)
	{
		if (sa_capture_failure_once(watch->application, watch->relid, "DELETE", refused))
			ereport(WARNING,
					(errmsg("\"%s\": %s", get_rel_name(watch->relid), refused),
					 errhint("Call session_admin.verify_attachments().")));
		table_close(relation, NoLock);
		return 0;
	}
	sql = ending_statement(watch, table, condition,
						   !target->users && !target->keys && !target->hashes,
						   ending->skips_locked);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(target->users), target->users == NULL);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(target->keys), target->keys == NULL);
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(target->hashes), target->hashes == NULL);
	sa_arg(&args, BYTEAOID,
		   target->keep ? PointerGetDatum(sa_bytea(target->keep, SA_HASH_LEN)) : (Datum) 0,
		   target->keep == NULL);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(target->secrets), target->secrets == NULL);

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(relation->rd_rel->relowner,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path",
							 psprintf("pg_catalog, %s, pg_temp", quote_identifier(schema)),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	/* policies must not hide rows from us silently */
	(void) set_config_option("row_security", "off",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	forgetting_relid = watch->relid;
	forgetting_application = watch->application;
	forgetting = ending;
	PG_TRY();
	{
		plan = SPI_prepare(sql, args.n, args.types);
		if (plan == NULL)
			elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
		SPI_execute_snapshot(plan, args.values, args.nulls, GetLatestSnapshot(), InvalidSnapshot,
							 false, true, 0);
		rows = SPI_processed;
		SPI_freeplan(plan);
	}
	PG_FINALLY();
	{
		forgetting_relid = outer_relid;
		forgetting_application = outer_application;
		forgetting = outer_forgetting;
	}
	PG_END_TRY();

	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
	table_close(relation, NoLock);
	return rows;
}

/* The keys, names, or both, by which the table knows these users; NULL if by none. */
static ArrayType *
known_as(const SaWatch *watch, ArrayType *user_names)
{
	static SaStatement keys_of_users = {.sql =
		"SELECT array_agg(key::text) FROM ("
		"  SELECT key FROM session_admin.account_key"
		"  WHERE application = $1 AND product = $2 AND part = $3 AND user_name = ANY ($4)"
		"  UNION SELECT unnest($4) WHERE $5) k"
	};
	bool		isnull;
	SaArgs		args = {0};
	Datum		keys;

	if (!SA_HAS(watch, SA_ROLE_USER_KEY))
		return user_names;

	sa_arg_text(&args, watch->application);
	sa_arg_text(&args, watch->product);
	sa_arg_text(&args, sa_part_names[watch->key_of]);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(user_names), false);
	sa_arg(&args, BOOLOID,
		   BoolGetDatum(watch->columns[SA_ROLE_USER_KEY].reading == SA_READING_KEY_OR_NAME), false);
	sa_run(&keys_of_users, &args);
	keys = sa_result(0, 1, &isnull);
	return isnull ? NULL : DatumGetArrayTypePCopy(keys);
}

/* What the rows in the result say of sessions in products' own tables: see the callers. */
typedef struct Doomed
{
	char	   *application;
	char	   *product;
	ArrayType  *keys;
	ArrayType  *hashes;
} Doomed;

static ArrayType *
result_array(uint64 row, int column)
{
	bool		isnull;
	Datum		value = sa_result(row, column, &isnull);

	return isnull ? NULL : DatumGetArrayTypePCopy(value);
}

static Doomed *
find_doomed(SaStatement *which, SaArgs *args, uint64 *n)
{
	Doomed	   *doomed;

	*n = sa_run(which, args);
	doomed = palloc((*n + 1) * sizeof(Doomed));
	for (uint64 i = 0; i < *n; i++)
	{
		doomed[i].application = sa_result_text(i, 1);
		doomed[i].product = sa_result_text(i, 2);
		doomed[i].keys = result_array(i, 3);
		doomed[i].hashes = result_array(i, 4);
	}
	return doomed;
}

/*
 * Delete the rows that sessions have in the products' own tables.  "which" finds the
 * sessions: it gives application, product, their keys, and the hashes of those that
 * have no key.  The caller is connected to SPI, and ends the sessions next.
 */
void
sa_capture_forget_sessions(SaStatement *which, SaArgs *args, SaEnding *ending)
{
	uint64		n;
	Doomed	   *doomed = find_doomed(which, args, &n);

	for (uint64 i = 0; i < n; i++)
	{
		Target		target = {.keys = doomed[i].keys, .hashes = doomed[i].hashes};
		ListCell   *cell;

		foreach(cell, sa_watches_to_forget(doomed[i].application))
		{
			SaWatch    *watch = lfirst(cell);

			if (watch->part == SA_PART_SESSION && strcmp(watch->product, doomed[i].product) == 0)
				forget(watch, &target, RowExclusiveLock, ending);
		}
	}
}

/* The users' sessions that products have, but for the one that is kept. */
static Doomed *
sessions_of_users(const char *application, ArrayType *user_names, const uint8 *keep_session,
				  uint64 *n)
{
	static SaStatement find_sessions = {.sql =
		"SELECT application::text, product::text,"
		"  array_agg(product_key::text) FILTER (WHERE product_key IS NOT NULL),"
		"  array_agg(session_hash) FILTER (WHERE product_key IS NULL)"
		" FROM session_admin.session"
		" WHERE application = $1 AND user_name = ANY ($2) AND product IS NOT NULL"
		"  AND session_hash IS DISTINCT FROM $3"
		" GROUP BY application, product"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(user_names), false);
	sa_arg(&args, BYTEAOID,
		   keep_session ? PointerGetDatum(sa_bytea(keep_session, SA_HASH_LEN)) : (Datum) 0,
		   keep_session == NULL);
	return find_doomed(&find_sessions, &args, n);
}

/* The rows of this table cannot be deleted, as it lacks a column. */
static void
warn_of_users(const SaWatch *watch, ArrayType *user_names)
{
	const char *message = "rows are not deleted: no column names users any more";

	ereport(WARNING,
			(errmsg("\"%s\": %s", get_rel_name(watch->relid), message),
			 errhint("Call session_admin.verify_attachments().")));
	sa_capture_failure(watch->application, watch->relid, "DELETE", message, user_names);
}

/*
 * Delete these users' rows from the products' own tables of sessions, but for one
 * session, and of remember-me tokens, unless kept; the tokens are counted.  The
 * caller is connected to SPI and has locked the accounts.
 */
void
sa_capture_forget_users(const char *application, ArrayType *user_names,
						const uint8 *keep_session, bool keep_remember_me, SaEnding *ending)
{
	List	   *watches = ending->spares_products ? NIL : sa_watches_to_forget(application);
	ListCell   *cell;

	foreach(cell, watches)
	{
		SaWatch    *watch = lfirst(cell);
		Target		target = {.users = known_as(watch, user_names)};
		bool		has_user = SA_HAS(watch, SA_ROLE_USER_NAME) || SA_HAS(watch, SA_ROLE_USER_KEY);

		if (watch->part == SA_PART_SESSION)
		{
			uint64		n;
			Doomed	   *doomed = sessions_of_users(application, user_names, keep_session, &n);

			/* by the user, too: not all rows may be known yet */
			for (uint64 i = 0; i < n; i++)
			{
				if (strcmp(watch->product, doomed[i].product) == 0)
				{
					target.keys = doomed[i].keys;
					target.hashes = doomed[i].hashes;
				}
			}
			target.keep = keep_session;
		}
		else if (keep_remember_me)
			continue;
		else if (!has_user)
			warn_of_users(watch, user_names);
		if ((target.users && has_user) || target.keys || target.hashes)
			forget(watch, &target, RowExclusiveLock, ending);
	}
}

/*
 * Empty the products' own tables of sessions and remember-me tokens, and count the
 * tokens.  By DELETE, as TRUNCATE would wait for everybody who reads them, pg_dump for
 * instance, and keep all others out meanwhile.  The lock waits only for those who
 * write, so that no row of theirs is missed, and lets everybody read.
 */
void
sa_capture_forget_application(const char *application, SaEnding *ending)
{
	List	   *watches = ending->spares_products ? NIL : sa_watches_to_forget(application);
	Target		everything = {0};
	ListCell   *cell;

	foreach(cell, watches)
		forget(lfirst(cell), &everything, ShareRowExclusiveLock, ending);
}

/*
 * Is any of these rows still there?  Asked with our own rights, as only functions and
 * types of PostgreSQL's own are in the condition.
 */
static bool
any_is_left(const SaWatch *watch, const Target *target)
{
	Oid			types[5] = {TEXTARRAYOID, TEXTARRAYOID, BYTEAARRAYOID, BYTEAOID, TEXTARRAYOID};
	Datum		values[5] = {0};
	char	   *condition = condition_for(watch, target);
	char	   *sql = psprintf("SELECT FROM ONLY %s WHERE %s",
							   quote_qualified_identifier(get_namespace_name(get_rel_namespace(watch->relid)),
														  get_rel_name(watch->relid)), condition);
	SPIPlanPtr	plan = SPI_prepare(sql, lengthof(types), types);
	bool		any;

	if (plan == NULL)
		elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
	values[2] = PointerGetDatum(target->hashes);
	values[4] = PointerGetDatum(target->secrets);
	SPI_execute_snapshot(plan, values, "nn n ", GetLatestSnapshot(), InvalidSnapshot, false, true, 1);
	any = SPI_processed > 0;
	SPI_freeplan(plan);
	return any;
}

/* Is there no row in the table, for a snapshot taken now? */
bool
sa_capture_is_empty(Oid relid)
{
	Relation	relation = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	bool		any = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, NoLock);
	return !any;
}

/*
 * Those of these hashes (all distinct) for which there is no row of the session part
 * that a snapshot taken now sees; *n is how many.  Asked with our own rights, as above.
 */
ArrayType *
sa_capture_without_rows(const SaWatch *watch, ArrayType *hashes, int *n)
{
	Oid			type = BYTEAARRAYOID;
	Datum		value = PointerGetDatum(hashes);
	char	   *sql = psprintf("SELECT pg_catalog.array_agg(h.hash ORDER BY h.hash)"
							   " FROM pg_catalog.unnest($1) AS h (hash)"
							   " WHERE NOT EXISTS (SELECT FROM ONLY %s t WHERE %s OPERATOR(pg_catalog.=) h.hash)",
							   quote_qualified_identifier(get_namespace_name(get_rel_namespace(watch->relid)),
														  get_rel_name(watch->relid)),
							   hash_expression(watch));
	int			nestlevel = NewGUCNestLevel();
	ArrayType  *result = NULL;
	SPIPlanPtr	plan;
	bool		isnull;
	Datum		found;

	/* without an index on the hashes it would read the table for each of them */
	(void) set_config_option("enable_nestloop", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	plan = SPI_prepare(sql, 1, &type);
	if (plan == NULL)
		elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
	SPI_execute_snapshot(plan, &value, " ", GetLatestSnapshot(), InvalidSnapshot, false, true, 0);
	found = sa_result(0, 1, &isnull);
	*n = 0;
	if (!isnull)
	{
		result = DatumGetArrayTypePCopy(found);
		*n = ArrayGetNItems(ARR_NDIM(result), ARR_DIMS(result));
	}
	SPI_freeplan(plan);
	AtEOXact_GUC(false, nestlevel);
	return result;
}

/*
 * Delete rows that a statement of the product itself has just written, by the ids in
 * them and the hashes of these: nobody is waited for, as the statement has them
 * locked.  False if any is left.  The caller is connected to SPI.
 */
bool
sa_capture_forget_rows(const SaWatch *watch, ArrayType *secrets, ArrayType *hashes,
					   SaEnding *ending)
{
	Target		target = {.hashes = hashes, .secrets = secrets};
	uint64		n = ArrayGetNItems(ARR_NDIM(hashes), ARR_DIMS(hashes));

	ending->skips_locked = true;
	/* somebody else may have deleted them, as with two applications in one table */
	return forget(watch, &target, RowExclusiveLock, ending) >= n || !any_is_left(watch, &target);
}
