/*
 * probe_rule.c
 *	  Which anonymous sessions are probes: the rules, as part of what holds for an
 *	  application.  They are counted in session/probe.c.
 */
#include "policy/load.h"

#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

/* A rule in 64 bits. */
uint64
sa_probe_rule_key(const char *application, const char *user_agent_like, const char *address)
{
	uint8		hash[SA_HASH_LEN];
	uint64		key;
	StringInfoData rule;

	/* the name of an application has no line feed */
	initStringInfo(&rule);
	appendStringInfo(&rule, "%s\n%s\n%s", application, address ? address : "",
					 user_agent_like ? user_agent_like : "");
	sa_sha256(rule.data, rule.len, hash);
	pfree(rule.data);
	memcpy(&key, hash, sizeof(key));
	return key;
}

/* The columns of the table. */
enum
{
	RULE_APPLICATION = 1,
	RULE_USER_AGENT_LIKE,
	RULE_ADDRESS
};

/* Read a rule into the current context. */
static void
probe_rule_read(SaScan *scan, const char *application, SaProbeRule *rule)
{
	bool		isnull;
	Datum		address = sa_scan_value(scan, RULE_ADDRESS, &isnull);

	rule->user_agent_like = sa_scan_text(scan, RULE_USER_AGENT_LIKE);
	rule->address = isnull ? NULL : (inet *) PG_DETOAST_DATUM_COPY(address);
	rule->key = sa_probe_rule_key(application, rule->user_agent_like, isnull ? NULL :
								  TextDatumGetCString(DirectFunctionCall1(network_show, address)));
}

/* Read the application's rules, in the order of the index, into this context. */
void
sa_probe_rules_read(SaApplication *application, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	SaScan		scan;
	ScanKeyData key;
	int			space = 0;

	application->n_probe_rules = 0;
	application->probe_rules = NULL;
	sa_scan_key_text(&key, RULE_APPLICATION, application->name);
	sa_scan_begin_by(&scan, SA_TABLE_PROBE_RULE, SA_INDEX_PROBE_RULE_KEY, &key, 1);
	while (sa_scan_next(&scan))
	{
		if (application->n_probe_rules == space)
			application->probe_rules = sa_grown(application->probe_rules, &space, sizeof(SaProbeRule));
		probe_rule_read(&scan, application->name,
						&application->probe_rules[application->n_probe_rules++]);
	}
	sa_scan_end(&scan);
	MemoryContextSwitchTo(old);
}

/* Does the rule match an anonymous session with these properties? */
bool
sa_probe_rule_matches(const SaProbeRule *rule, const char *user_agent, inet *address)
{
	if (rule->user_agent_like != NULL &&
		(user_agent == NULL ||
		 !DatumGetBool(DirectFunctionCall2Coll(textlike, C_COLLATION_OID,
											   CStringGetTextDatum(user_agent),
											   CStringGetTextDatum(rule->user_agent_like)))))
		return false;
	if (rule->address != NULL &&
		(address == NULL ||
		 !DatumGetBool(DirectFunctionCall2(network_subeq, InetPGetDatum(address),
										   InetPGetDatum(rule->address)))))
		return false;
	return true;
}
