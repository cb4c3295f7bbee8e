/*
 * relation.c
 *	  Our own tables, indexes and sequences by their names.
 *
 * Each is looked up once in a backend, and again after the relation or a schema
 * has changed: the extension may be dropped, and made anew.
 */
#include "base/init.h"

#include "catalog/namespace.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static const struct
{
	const char *schema;
	const char *name;
}			relations[] = {
	[SA_TABLE_SESSION] = {SA_SCHEMA, "session"},
	[SA_TABLE_REMEMBER_ME_TOKEN] = {SA_SCHEMA, "remember_me_token"},
	[SA_TABLE_APPLICATION] = {SA_SCHEMA, "application"},
	[SA_TABLE_ACCOUNT] = {SA_INTERNAL_SCHEMA, "account"},
	[SA_TABLE_ENDED_ID] = {SA_INTERNAL_SCHEMA, "ended_id"},
	[SA_TABLE_ENDED_SESSION] = {SA_INTERNAL_SCHEMA, "ended_session"},
	[SA_TABLE_NODE] = {SA_INTERNAL_SCHEMA, "node"},
	[SA_TABLE_INSTALLATION] = {SA_INTERNAL_SCHEMA, "installation"},
	[SA_TABLE_LATE_ENDING] = {SA_INTERNAL_SCHEMA, "late_ending"},
	[SA_TABLE_POLICY] = {SA_INTERNAL_SCHEMA, "policy"},
	[SA_TABLE_POLICY_DEFINITION] = {SA_INTERNAL_SCHEMA, "policy_definition"},
	[SA_TABLE_POLICY_SIGNAL] = {SA_INTERNAL_SCHEMA, "policy_signal"},
	[SA_TABLE_PROBE_RULE] = {SA_INTERNAL_SCHEMA, "probe_rule"},
	[SA_INDEX_APPLICATION_NAME] = {SA_SCHEMA, "application_pkey"},
	[SA_INDEX_POLICY_KEY] = {SA_INTERNAL_SCHEMA, "policy_key"},
	[SA_INDEX_PROBE_RULE_KEY] = {SA_INTERNAL_SCHEMA, "probe_rule_key"},
	[SA_INDEX_SESSION_APPLICATION] = {SA_SCHEMA, "session_application_idx"},
	[SA_INDEX_SESSION_KEY] = {SA_SCHEMA, "session_pkey"},
	[SA_INDEX_SESSION_USER_NAME] = {SA_SCHEMA, "session_user_name_idx"},
	[SA_INDEX_ENDED_ID_KEY] = {SA_INTERNAL_SCHEMA, "ended_id_key_idx"},
	[SA_SEQUENCE_SEAT_TICKET] = {SA_INTERNAL_SCHEMA, "seat_ticket"},
};

/* What was found; InvalidOid: not looked up, or there is none */
static Oid	found[lengthof(relations)];

/* Counts invalidations: one that comes during a look-up makes its answer too old to keep. */
static uint64 invalidations = 0;

static void
relation_forget(pg_attribute_unused() Datum arg, Oid relid)
{
	for (size_t i = 0; i < lengthof(found); i++)
	{
		if (relid == InvalidOid || relid == found[i])
			found[i] = InvalidOid;
	}
	invalidations++;
}

static void
relation_forget_all(Datum arg, pg_attribute_unused() int cacheid, pg_attribute_unused() uint32 hash)
{
	relation_forget(arg, InvalidOid);
}

/* Register for changes. */
void
sa_relation_init(void)
{
	CacheRegisterRelcacheCallback(relation_forget, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, relation_forget_all, (Datum) 0);
}

/* One of our relations; InvalidOid if this database does not have the extension. */
Oid
sa_relation_if_any(SaRelation which)
{
	uint64		before = invalidations;
	Oid			schema;
	Oid			relid;

	if (OidIsValid(found[which]))
		return found[which];
	schema = get_namespace_oid(relations[which].schema, true);
	relid = OidIsValid(schema) ? get_relname_relid(relations[which].name, schema) : InvalidOid;
	if (invalidations == before)
		found[which] = relid;
	return relid;
}

/* One of our relations. */
Oid
sa_relation(SaRelation which)
{
	Oid			relid = sa_relation_if_any(which);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist",
						relations[which].schema, relations[which].name)));
	return relid;
}
