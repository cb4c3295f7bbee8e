/*
 * forget.c
 *	  Deletes the rows of users from the products' own remember-me tables when
 *	  their sessions end.
 *
 * These are the only statements that touch a product's table.  They run as its
 * owner, since its triggers and functions are not ours.  Our own trigger fires
 * too; it asks here whether it was us, so that this is no event of its own.
 */
#include "capture.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

/* The table whose rows we delete ourselves right now. */
static Oid	forgetting_relid = InvalidOid;
static SaEnding *forgetting = NULL;

/* What we delete rows of this table for; NULL if it is not us who does. */
SaEnding *
sa_forgetting(Oid relid)
{
	return forgetting_relid == relid ? forgetting : NULL;
}

/*
 * Delete from one of the product's remember-me tables, as the owner of that
 * table: its triggers are not ours and must not run with our rights.  They find
 * the names that they expect in its own schema.
 */
static void
forget(const SaWatch *watch, const char *condition, ArrayType *values, SaEnding *ending)
{
	Relation	relation = table_open(watch->relid, condition ? RowExclusiveLock : ShareRowExclusiveLock);
	char	   *schema = get_namespace_name(RelationGetNamespace(relation));
	Oid			outer_relid = forgetting_relid;
	SaEnding   *outer_forgetting = forgetting;
	Oid			types[1] = {TEXTARRAYOID};
	Datum		arguments[1] = {PointerGetDatum(values)};
	Oid			userid;
	int			sec_context;
	int			nestlevel;
	StringInfoData sql;
	SPIPlanPtr	plan;

	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM ONLY %s",
					 quote_qualified_identifier(schema, RelationGetRelationName(relation)));
	if (condition)
		appendStringInfo(&sql, " WHERE %s", condition);

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
	forgetting = ending;
	PG_TRY();
	{
		plan = SPI_prepare(sql.data, condition ? 1 : 0, types);
		if (plan == NULL)
			elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
		SPI_execute_snapshot(plan, arguments, NULL, GetLatestSnapshot(), InvalidSnapshot,
							 false, true, 0);
		SPI_freeplan(plan);
	}
	PG_FINALLY();
	{
		forgetting_relid = outer_relid;
		forgetting = outer_forgetting;
	}
	PG_END_TRY();

	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
	table_close(relation, NoLock);
}

/* The keys, names, or both, by which the table knows these users. */
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

/*
 * Delete these users' rows from the products' own remember-me tables, and count
 * them.  The caller is connected to SPI and has locked the accounts.
 */
void
sa_capture_forget_users(const char *application, ArrayType *user_names, SaEnding *ending)
{
	List	   *watches = ending->spares_products ? NIL :
	sa_watches_of_part(application, SA_PART_REMEMBER_ME);
	ListCell   *cell;

	foreach(cell, watches)
	{
		SaWatch    *watch = lfirst(cell);
		SaRole		role = SA_HAS(watch, SA_ROLE_USER_KEY) ? SA_ROLE_USER_KEY : SA_ROLE_USER_NAME;
		ArrayType  *values = known_as(watch, user_names);
		const char *column;
		char	   *condition;

		if (!SA_HAS(watch, role))
		{
			const char *message = "rows are not deleted: no column names users any more";

			ereport(WARNING,
					(errmsg("\"%s\": %s", get_rel_name(watch->relid), message),
					 errhint("Call session_admin.verify_attachments().")));
			sa_capture_failure(application, watch->relid, "DELETE", message, user_names);
		}
		if (values == NULL || !SA_HAS(watch, role))
			continue;
		column = quote_identifier(get_attname(watch->relid, watch->columns[role].attnum, false));
		if (watch->columns[role].reading == SA_READING_ANY_CASE)
			condition = psprintf("pg_catalog.lower(%s::text) OPERATOR(pg_catalog.=) ANY ($1)", column);
		else
			condition = psprintf("%s OPERATOR(pg_catalog.=) ANY ($1::%s[])", column,
								 format_type_extended(watch->columns[role].type, -1,
													  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		forget(watch, condition, values, ending);
	}
}

/*
 * Empty the products' own remember-me tables, and count the rows.  By
 * DELETE, as TRUNCATE would wait for everybody who reads them, pg_dump for
 * instance, and keep all others out meanwhile.  The lock waits only for those who
 * write, so that no row of theirs is missed, and lets everybody read.
 */
void
sa_capture_forget_application(const char *application, SaEnding *ending)
{
	List	   *watches = ending->spares_products ? NIL :
	sa_watches_of_part(application, SA_PART_REMEMBER_ME);
	ListCell   *cell;

	foreach(cell, watches)
		forget(lfirst(cell), NULL, NULL, ending);
}
