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

/* Read the application's rules, into this context.  The caller is connected to SPI. */
void
sa_probe_rules_read(SaApplication *application, MemoryContext context)
{
	static SaStatement read_rules = {.sql =
		"SELECT user_agent_like, address::text, address::inet FROM session_admin_internal.probe_rule"
		" WHERE application = $1 ORDER BY probe_rule.user_agent_like, probe_rule.address"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application->name);
	application->n_probe_rules = (int) sa_run(&read_rules, &args);
	application->probe_rules = application->n_probe_rules == 0 ? NULL :
		MemoryContextAllocZero(context, application->n_probe_rules * sizeof(SaProbeRule));
	for (int i = 0; i < application->n_probe_rules; i++)
	{
		SaProbeRule *rule = &application->probe_rules[i];
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;
		Datum		address = sa_result(i, 3, &isnull);
		char	   *address_text = sa_result_text(i, 2);

		rule->user_agent_like = sa_result_text(i, 1);
		rule->address = isnull ? NULL : (inet *) PG_DETOAST_DATUM_COPY(address);
		rule->key = sa_probe_rule_key(application->name, rule->user_agent_like, address_text);
		MemoryContextSwitchTo(old);
	}
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
