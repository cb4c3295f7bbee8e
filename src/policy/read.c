/*
 * read.c
 *	  Reads what holds for an application from its tables, by key and without a statement:
 *	  the first call of each connection does, and each after a change.
 *
 * The generation and the policies are those of the views application_state and
 * effective_policy, which say it in SQL.
 */
#include "policy/load.h"

#include "miscadmin.h"
#include "utils/fmgrprotos.h"

/* The columns of the tables, as far as they are read. */
enum
{
	APPLICATION_NAME = 1,
	APPLICATION_GENERATION,
	APPLICATION_CREATED_AT,
	APPLICATION_HOME
};

enum
{
	INSTALLATION_ID = 2
};

enum
{
	DEFINITION_NAME = 1,
	DEFINITION_TYPE,
	DEFINITION_DEFAULT
};

/* The mark of this database; NULL if it has none. */
static char *
installation_mark_read(void)
{
	SaScan		scan;
	char	   *mark = NULL;

	sa_scan_begin(&scan, SA_TABLE_INSTALLATION);
	if (sa_scan_next(&scan))
	{
		bool		isnull;
		Datum		id = sa_scan_value(&scan, INSTALLATION_ID, &isnull);

		mark = psprintf("%s/%u", DatumGetCString(DirectFunctionCall1(uuid_out, id)), MyDatabaseId);
	}
	sa_scan_end(&scan);
	return mark;
}

/* Read its generation, and whether it came from a dump; false if there is none. */
static bool
generation_read(SaApplication *application)
{
	SaScan		scan;
	ScanKeyData key;
	bool		found;

	sa_scan_key_text(&key, APPLICATION_NAME, application->name);
	sa_scan_begin_by(&scan, SA_TABLE_APPLICATION, SA_INDEX_APPLICATION_NAME, &key, 1);
	found = sa_scan_next(&scan);
	if (found)
	{
		bool		isnull;
		char	   *home = sa_scan_text(&scan, APPLICATION_HOME);
		char	   *mark = installation_mark_read();

		application->generation = DatumGetInt64(sa_scan_value(&scan, APPLICATION_GENERATION, &isnull));
		application->moved = mark == NULL || home == NULL || strcmp(mark, home) != 0;
	}
	sa_scan_end(&scan);
	return found;
}

/* Read the default of each policy. */
static void
defaults_read(SaApplication *application, MemoryContext context)
{
	SaScan		scan;

	sa_scan_begin(&scan, SA_TABLE_POLICY_DEFINITION);
	while (sa_scan_next(&scan))
		sa_policy_value_set(application, sa_scan_text(&scan, DEFINITION_NAME),
							sa_scan_text(&scan, DEFINITION_DEFAULT), context);
	sa_scan_end(&scan);
}

/* Does any user of the application have policies of their own? */
static bool
user_limits_exist(const SaApplication *application)
{
	SaScan		scan;
	ScanKeyData keys[2];
	bool		exist;

	sa_scan_key_text(&keys[0], SA_POLICY_APPLICATION, application->name);
	ScanKeyEntryInitialize(&keys[1], SK_ISNULL | SK_SEARCHNOTNULL, SA_POLICY_USER_NAME,
						   InvalidStrategy, InvalidOid, InvalidOid, InvalidOid, (Datum) 0);
	sa_scan_begin_by(&scan, SA_TABLE_POLICY, SA_INDEX_POLICY_KEY, keys, lengthof(keys));
	exist = sa_scan_next(&scan);
	sa_scan_end(&scan);
	return exist;
}

/* Read the policies that are set for the application. */
static void
set_policies_read(SaApplication *application, MemoryContext context)
{
	SaScan		scan;
	ScanKeyData keys[2];

	sa_scan_key_text(&keys[0], SA_POLICY_APPLICATION, application->name);
	sa_scan_key_text(&keys[1], SA_POLICY_USER_NAME, NULL);
	sa_scan_begin_by(&scan, SA_TABLE_POLICY, SA_INDEX_POLICY_KEY, keys, lengthof(keys));
	while (sa_scan_next(&scan))
		sa_policy_value_set(application, sa_scan_text(&scan, SA_POLICY_NAME),
							sa_scan_text(&scan, SA_POLICY_VALUE), context);
	sa_scan_end(&scan);
}

/*
 * Read what holds for the application of this name; false if there is none.  All but
 * numbers goes into the context.
 */
bool
sa_application_read(SaApplication *application, MemoryContext context)
{
	if (!generation_read(application))
		return false;
	defaults_read(application, context);
	set_policies_read(application, context);
	application->has_user_limits = user_limits_exist(application);
	/* no session and no token has this generation */
	if (application->moved && application->on_restore != SA_KEEP)
		application->generation = -1;
	sa_probe_rules_read(application, context);
	sa_late_endings_read(application, context);
	return true;
}
