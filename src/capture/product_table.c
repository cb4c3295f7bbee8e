/*
 * product_table.c
 *	  The only statements that touch a product's table: they find rows of sessions and
 *	  tokens, and delete or clear them.
 *
 * They run as the owner of the table, since its triggers and functions are not ours.  Our
 * own trigger fires, too; it asks sa_deletion_under_way() whether it was us.
 */
#include "capture/deletion.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* How long to wait for a row that refers to a deleted one, and is locked. */
#define CASCADE_LOCK_WAIT	"100ms"

static const char *
table_column_name(const SaWatch *watch, SaColumnRole role)
{
	return quote_identifier(get_attname(watch->relid, watch->columns[role].attnum, false));
}

/* Does the column have a collation in which different names are equal? */
static bool
table_column_is_nondeterministic(const SaWatch *watch, SaColumnRole role)
{
	Oid			type;
	int32		typmod;
	Oid			collation;

	get_atttypetypmodcoll(watch->relid, watch->columns[role].attnum, &type, &typmod, &collation);
	return OidIsValid(collation) && !get_collation_isdeterministic(collation);
}

/* The column as text that is compared bytewise. */
static char *
table_text_expression(const SaWatch *watch, SaColumnRole role)
{
	return psprintf("%s::pg_catalog.text%s", table_column_name(watch, role),
					table_column_is_nondeterministic(watch, role) ? " COLLATE pg_catalog.\"C\"" : "");
}

/* The hash of the session id, so that an index on the same expression may serve. */
static char *
table_hash_expression(const SaWatch *watch)
{
	return psprintf("pg_catalog.sha256(pg_catalog.replace(%s,"
					" pg_catalog.chr(92), pg_catalog.repeat(pg_catalog.chr(92), 2))::pg_catalog.bytea)",
					table_text_expression(watch, SA_ROLE_SECRET));
}

static char *
table_array_literal(ArrayType *array)
{
	return psprintf("%s::pg_catalog.text[]",
					quote_literal_cstr(OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array))));
}

/* A column is one of the values in an argument. */
static char *
table_is_any_of(const SaWatch *watch, SaColumnRole role, int argument)
{
	const SaColumn *column = &watch->columns[role];
	const char *name = table_column_name(watch, role);

	if (column->path != NULL)
		return psprintf("%s OPERATOR(pg_catalog.#>>) %s OPERATOR(pg_catalog.=) ANY ($%d)",
						name, table_array_literal(column->path), argument);
	if (column->reading == SA_READING_ANY_CASE)
		return psprintf("pg_catalog.lower(%s) OPERATOR(pg_catalog.=) ANY ($%d)",
						table_text_expression(watch, role), argument);
	if (table_column_is_nondeterministic(watch, role))
		return psprintf("%s OPERATOR(pg_catalog.=) ANY ($%d)", table_text_expression(watch, role), argument);
	return psprintf("%s OPERATOR(pg_catalog.=) ANY ($%d::%s[])", name, argument,
					format_type_extended(column->type, -1,
										 FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
}

/* The role of the column that names the users of rows. */
static SaColumnRole
table_user_role(const SaWatch *watch)
{
	return SA_HAS(watch, SA_ROLE_USER_KEY) ? SA_ROLE_USER_KEY : SA_ROLE_USER_NAME;
}

/* Does the table name the users of its rows? */
bool
sa_table_has_users(const SaWatch *watch)
{
	return SA_HAS(watch, SA_ROLE_USER_NAME) || SA_HAS(watch, SA_ROLE_USER_KEY);
}

/* Can rows be found by their user?  Of text that should be JSON, one that is not fails. */
bool
sa_table_finds_users(const SaWatch *watch)
{
	const SaColumn *user = &watch->columns[table_user_role(watch)];

	return sa_table_has_users(watch) &&
		(user->path == NULL || user->type == JSONOID || user->type == JSONBOID);
}

static char *
table_qualified_name(Relation relation)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
									  RelationGetRelationName(relation));
}

/*
 * The columns of the search for these rows: the place of each, and whether it was its
 * user that matched.  NULL if there can be none.
 */
static char *
table_search_query(const SaWatch *watch, const SaTarget *target, const char *table)
{
	char	   *by_user = target->users && sa_table_finds_users(watch) ?
	psprintf("(%s) IS TRUE", table_is_any_of(watch, table_user_role(watch), 1)) : pstrdup("false");
	StringInfoData sql;
	bool		any = by_user[0] == '(';

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT ctid, %s FROM ONLY %s WHERE (%s", by_user, table, by_user);
	if (target->keys && SA_HAS(watch, SA_ROLE_KEY))
	{
		any = true;
		appendStringInfo(&sql, " OR %s", table_is_any_of(watch, SA_ROLE_KEY, 2));
	}
	if (target->hashes && SA_HAS(watch, SA_ROLE_SECRET))
	{
		any = true;
		appendStringInfo(&sql, " OR %s OPERATOR(pg_catalog.=) ANY ($3)", table_hash_expression(watch));
	}
	appendStringInfoChar(&sql, ')');
	if (target->secrets)
		appendStringInfo(&sql, " AND %s", table_is_any_of(watch, SA_ROLE_SECRET, 5));
	if (target->keep && SA_HAS(watch, SA_ROLE_SECRET))
		appendStringInfo(&sql, " AND %s OPERATOR(pg_catalog.<>) $4", table_hash_expression(watch));
	for (SaColumnRole role = 0; role < SA_NROLES; role++)
	{
		ArrayType  *excludes = watch->columns[role].excludes;

		if (excludes != NULL)
			appendStringInfo(&sql, " AND (%s OPERATOR(pg_catalog.=) ANY (%s)) IS NOT TRUE",
							 table_text_expression(watch, role), table_array_literal(excludes));
	}
	return any ? sql.data : NULL;
}

/*
 * Be the owner of the table: its triggers and functions are not ours, and must not run
 * with our rights.  They find the names that they expect in its own schema.  Policies
 * hide no row from us.  sa_owner_leave() ends it.
 */
static void
table_owner_enter(SaOwner *owner, Relation relation)
{
	char	   *schema = get_namespace_name(RelationGetNamespace(relation));

	GetUserIdAndSecContext(&owner->save_userid, &owner->save_sec_context);
	SetUserIdAndSecContext(relation->rd_rel->relowner,
						   owner->save_sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
	owner->save_nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path",
							 psprintf("pg_catalog, %s, pg_temp", quote_identifier(schema)),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("row_security", "off",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/* The rows that match, as they were when the snapshot was taken. */
void
sa_table_search(const SaWatch *watch, const SaTarget *target, Relation relation, SaPlaces *found)
{
	char	   *sql = table_search_query(watch, target, table_qualified_name(relation));
	SaArgs		args = {0};
	SaOwner		owner;

	if (sql == NULL)
		return;
	sa_arg_array(&args, TEXTARRAYOID, target->users);
	sa_arg_array(&args, TEXTARRAYOID, target->keys);
	sa_arg_array(&args, BYTEAARRAYOID, target->hashes);
	sa_arg_hash(&args, target->keep);
	sa_arg_array(&args, TEXTARRAYOID, target->secrets);
	table_owner_enter(&owner, relation);
	(void) sa_run_once(sql, &args);
	sa_owner_leave(&owner);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		ItemPointer tid = (ItemPointer) DatumGetPointer(sa_result(i, 1, &isnull));

		sa_places_add(found, tid, NULL, DatumGetBool(sa_result(i, 2, &isnull)));
	}
}

/* What ends a row's session or token. */
static char *
table_ending_verb(const SaWatch *watch, Relation relation)
{
	if (!watch->clears)
		return psprintf("DELETE FROM ONLY %s", table_qualified_name(relation));
	return psprintf("UPDATE ONLY %s SET %s = %s", table_qualified_name(relation),
					table_column_name(watch, SA_ROLE_SECRET),
					watch->clear_to ? quote_literal_cstr(watch->clear_to) : "NULL");
}

/*
 * Delete rows, or clear them, whichever ends a session or token there; returns the
 * result code of SPI and the number of rows.  They are locked.
 */
int
sa_table_end_rows(const SaWatch *watch, Relation relation, const SaPlace *rows, int n,
				  uint64 *ended)
{
	char	   *sql = psprintf("%s WHERE ctid OPERATOR(pg_catalog.=) ANY ($1)",
							   table_ending_verb(watch, relation));
	Datum	   *tids = palloc(n * sizeof(Datum));
	ArrayType  *places;
	SaArgs		args = {0};
	SaOwner		owner;
	int			result;

	for (int i = 0; i < n; i++)
		tids[i] = PointerGetDatum(&rows[i].tid);
	places = construct_array(tids, n, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT);
	pfree(tids);
	sa_arg(&args, get_array_type(TIDOID), PointerGetDatum(places), false);
	table_owner_enter(&owner, relation);
	(void) set_config_option("lock_timeout", CASCADE_LOCK_WAIT, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	result = sa_run_once(sql, &args);
	*ended = SPI_processed;
	sa_owner_leave(&owner);
	pfree(places);
	return result;
}

/* Is there no row in the table, for a snapshot taken now? */
bool
sa_table_is_empty(Oid relid)
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
 * Those of these hashes (all distinct) for which a snapshot taken now sees no row of
 * the session part; *n is how many.  The query runs as the owner of the table: planning
 * it may run what indexes and statistics call.  If the owner may not read the table,
 * there is no answer, and no row counts as missing.
 */
ArrayType *
sa_table_without_rows(const SaWatch *watch, ArrayType *hashes, int *n)
{
	SaArgs		args = {0};
	Relation	relation = table_open(watch->relid, AccessShareLock);
	char	   *sql = psprintf("SELECT pg_catalog.array_agg(h.hash ORDER BY h.hash)"
							   " FROM pg_catalog.unnest($1) AS h (hash)"
							   " WHERE NOT EXISTS (SELECT FROM ONLY %s t WHERE %s OPERATOR(pg_catalog.=) h.hash)",
							   table_qualified_name(relation), table_hash_expression(watch));
	Oid			owner = relation->rd_rel->relowner;
	ArrayType  *result = NULL;
	SaOwner		table_owner;

	*n = 0;
	if (pg_class_aclcheck(watch->relid, owner, ACL_SELECT) != ACLCHECK_OK)
	{
		table_close(relation, NoLock);
		return NULL;
	}
	sa_arg_array(&args, BYTEAARRAYOID, hashes);
	table_owner_enter(&table_owner, relation);
	/* without an index on the hashes it would read the table for each of them */
	(void) set_config_option("enable_nestloop", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) sa_run_once(sql, &args);
	sa_owner_leave(&table_owner);
	result = sa_result_array(0, 1);
	if (result != NULL)
		*n = sa_array_length(result);
	table_close(relation, NoLock);
	return result;
}

/*
 * What may keep rows of this table from being deleted (or a column from being cleared)
 * when sessions end, as far as that can be seen now: an array of text.  The caller is
 * connected to SPI.
 */
ArrayType *
sa_table_obstacles(Oid relid, bool clears)
{
	static SaStatement find_obstacles = {.sql =
		"SELECT coalesce(array_agg(o.note ORDER BY o.n, o.note), '{}') FROM ("
		"  SELECT 1 AS n, format('rows that %s refers to cannot be deleted', c.conrelid::regclass) AS note"
		"  FROM pg_constraint c WHERE c.confrelid = $1 AND c.contype = 'f' AND NOT $2"
		"   AND c.confdeltype IN ('a', 'r') AND c.conparentid = 0"
		"  UNION ALL"
		"  SELECT 2, format('rule \"%s\" says what becomes of rows that end', r.rulename)"
		"  FROM pg_rewrite r WHERE r.ev_class = $1 AND r.ev_type = CASE WHEN $2 THEN '2' ELSE '4' END"
		"   AND r.ev_enabled <> 'D'"
		"  UNION ALL"
		"  SELECT 3, format('trigger \"%s\" may keep rows that end', t.tgname)"
		"  FROM pg_trigger t WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled <> 'D'"
		"   AND t.tgtype & 2 > 0 AND t.tgtype & CASE WHEN $2 THEN 16 ELSE 8 END > 0"
		"  UNION ALL"
		"  SELECT 4, format('its owner %s may not change it', pg_get_userbyid(c.relowner))"
		"  FROM pg_class c WHERE c.oid = $1"
		"   AND NOT has_table_privilege(c.relowner, c.oid, CASE WHEN $2 THEN 'UPDATE' ELSE 'DELETE' END)"
		"  UNION ALL"
		"  SELECT 5, 'policies hold for its owner, too; rows that end are deleted all the same'"
		"  FROM pg_class c WHERE c.oid = $1 AND c.relrowsecurity AND c.relforcerowsecurity"
		" ) o"
	};
	SaArgs		args = {0};

	sa_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	sa_arg(&args, BOOLOID, BoolGetDatum(clears), false);
	sa_run(&find_obstacles, &args);
	return sa_result_array(0, 1);
}
