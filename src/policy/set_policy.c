/*
 * set_policy.c
 *	  set_policy(): what a policy may be, and where it is written.
 */
#include "policy/policy.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sa_set_policy);

/* A row of policy_definition. */
typedef struct PolicyDefinition
{
	const char *name;
	const char *type;
	const char *lowest;
	const char *highest;
	const char *choices;		/* in quotes */
	bool		per_user;
} PolicyDefinition;

/* What is wrong with the value of a policy. */
typedef struct ValueError
{
	char	   *message;
	char	   *hint;
} ValueError;

/* The names of all policies, or of those that can be set for one user. */
static char *
policy_names(bool per_user)
{
	static SaStatement list_definitions = {.sql =
		"SELECT string_agg(format('\"%s\"', name), ', ' ORDER BY name)"
		" FROM session_admin_internal.policy_definition WHERE per_user OR NOT $1"
	};
	SaArgs		args = {0};

	sa_arg(&args, BOOLOID, BoolGetDatum(per_user), false);
	sa_run(&list_definitions, &args);
	return sa_result_text(0, 1);
}

/* The definition of a policy; an error if there is none of this name. */
static void
policy_definition_get(const char *name, PolicyDefinition *definition)
{
	static SaStatement find_definition = {.sql =
		"SELECT type, lowest, highest, per_user,"
		" (SELECT string_agg(format('\"%s\"', a), ', ' ORDER BY n)"
		"  FROM unnest(allowed) WITH ORDINALITY AS u (a, n))"
		" FROM session_admin_internal.policy_definition WHERE name = $1"
	};
	SaArgs		args = {0};
	bool		isnull;

	sa_arg_text(&args, name);
	if (sa_run(&find_definition, &args) == 0)
	{
		char	   *names = policy_names(false);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown policy \"%s\"", sa_clean(name, strlen(name), 64)),
				 errhint("Policies are %s.", names)));
	}
	definition->name = name;
	definition->type = sa_result_text(0, 1);
	definition->lowest = sa_result_text(0, 2);
	definition->highest = sa_result_text(0, 3);
	definition->per_user = DatumGetBool(sa_result(0, 4, &isnull));
	definition->choices = sa_result_text(0, 5);
}

/* What the value of a policy may be, for the hint. */
static char *
policy_allowed_values(const PolicyDefinition *definition)
{
	if (strcmp(definition->type, "choice") == 0)
		return psprintf("Use one of %s.", definition->choices);
	if (strcmp(definition->type, "interval") == 0)
		return psprintf("Use an interval from \"%s\" to \"%s\".", definition->lowest, definition->highest);
	if (strcmp(definition->type, "integer") == 0)
		return psprintf("Use a number from %s to %s.", definition->lowest, definition->highest);
	return pstrdup("Use a list of networks, such as \"10.0.0.0/8, 192.0.2.1\".");
}

/* Errors of an input function become ours: theirs repeat the value, however long. */
static void
policy_error_callback(void *arg)
{
	const ValueError *error = arg;

	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
	{
		errcode(ERRCODE_INVALID_PARAMETER_VALUE);
		errmsg("%s", error->message);
		errhint("%s", error->hint);
	}
}

/* The value as it is stored; an error if the policy does not allow it. */
static char *
policy_checked_value(const PolicyDefinition *definition, const char *value)
{
	static SaStatement check_interval = {.sql =
		"SELECT v::text, extract(epoch FROM v)"
		" BETWEEN extract(epoch FROM $2::interval) AND extract(epoch FROM $3::interval)"
		" FROM CAST($1 AS interval) AS v"
	};
	static SaStatement check_integer = {.sql =
		"SELECT v::text, v BETWEEN $2::integer AND $3::integer FROM CAST($1 AS integer) AS v"
	};
	static SaStatement check_networks = {.sql =
		"SELECT v::text, coalesce(array_ndims(v), 1) = 1"
		" AND NOT EXISTS (SELECT FROM unnest(v) AS network WHERE network IS NULL)"
		" FROM CAST($1 AS cidr[]) AS v"
	};
	static SaStatement check_choice = {.sql =
		"SELECT $1, $1 = ANY (allowed) FROM session_admin_internal.policy_definition WHERE name = $2"
	};
	SaStatement *check = strcmp(definition->type, "interval") == 0 ? &check_interval :
	strcmp(definition->type, "integer") == 0 ? &check_integer :
	strcmp(definition->type, "choice") == 0 ? &check_choice : &check_networks;
	ValueError	error = {
		.message = psprintf("\"%s\" is not a value for policy \"%s\"",
							sa_clean(value, strlen(value), 64), definition->name),
		.hint = policy_allowed_values(definition)
	};
	ErrorContextCallback callback = {.callback = policy_error_callback, .arg = &error};
	SaArgs		args = {0};
	bool		isnull;

	/* braces are for machines */
	if (check == &check_networks && value[strspn(value, " ")] != '{')
		value = psprintf("{%s}", value);

	sa_arg_text(&args, value);
	sa_arg_text(&args, check == &check_choice ? definition->name : definition->lowest);
	if (check != &check_choice)
		sa_arg_text(&args, definition->highest);

	callback.previous = error_context_stack;
	error_context_stack = &callback;
	sa_run(check, &args);
	error_context_stack = callback.previous;

	if (!DatumGetBool(sa_result(0, 2, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s", error.message),
				 errhint("%s", error.hint)));
	return sa_result_text(0, 1);
}

/* Write the value (NULL: none of its own) and return what holds from now on. */
static char *
policy_write(const char *application, const char *user_name, const char *name, char *value)
{
	static SaStatement delete_policy = {.sql =
		"DELETE FROM session_admin_internal.policy"
		" WHERE application = $1 AND user_name IS NOT DISTINCT FROM $2 AND name = $3"
	};
	static SaStatement upsert_policy = {.sql =
		"INSERT INTO session_admin_internal.policy (application, user_name, name, value)"
		" VALUES ($1, $2, $3, $4)"
		" ON CONFLICT (application, user_name, name) DO UPDATE SET value = excluded.value"
	};
	static SaStatement find_value = {.sql =
		"SELECT coalesce("
		" (SELECT value FROM session_admin_internal.policy"
		"  WHERE application = $1 AND user_name IS NULL AND name = $2),"
		" (SELECT default_value FROM session_admin_internal.policy_definition WHERE name = $2))"
	};
	SaArgs		args = {0};
	SaArgs		remaining = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg_text(&args, name);
	if (value != NULL)
	{
		sa_arg_text(&args, value);
		sa_run(&upsert_policy, &args);
		return value;
	}

	sa_run(&delete_policy, &args);
	sa_arg_text(&remaining, application);
	sa_arg_text(&remaining, name);
	sa_run(&find_value, &remaining);
	return sa_result_text(0, 1);
}

/* set_policy(name, value, user_name, application) */
Datum
sa_set_policy(PG_FUNCTION_ARGS)
{
	char	   *name = sa_text_or_null(fcinfo, 0);
	char	   *value = sa_text_or_null(fcinfo, 1);
	char	   *user_name = PG_ARGISNULL(2) ? NULL : sa_user_name_arg(fcinfo, 2);
	char	   *application_name = sa_application_arg(fcinfo, 3);
	PolicyDefinition definition;
	SaApplication application;
	text	   *result;
	bool		is_new;

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name of policy must not be null")));

	SPI_connect();
	policy_definition_get(name, &definition);
	if (user_name != NULL && !definition.per_user)
	{
		char	   *names = policy_names(true);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("policy \"%s\" cannot be set for one user", name),
				 errhint("Those that can are %s.", names)));
	}
	if (value != NULL)
		value = policy_checked_value(&definition, value);

	/* not adopted after a restore yet, so that this can still be on_restore */
	is_new = !sa_application_find(application_name, &application);
	sa_application_insert(application_name, &application);
	/* perhaps a slip: the policy of the one that was meant stays as it is */
	if (is_new && strcmp(application_name, sa_application) != 0)
		ereport(NOTICE,
				(errmsg("application \"%s\" was not known and has been made", application_name),
				 errhint("If that was a slip, a superuser can take it back: DELETE FROM session_admin.application WHERE name = %s.",
						 quote_literal_cstr(application_name))));
	value = policy_write(application_name, user_name, name, value);

	/* to where it outlives SPI_finish() */
	result = SPI_palloc(VARHDRSZ + strlen(value));
	SET_VARSIZE(result, VARHDRSZ + strlen(value));
	memcpy(VARDATA(result), value, strlen(value));
	SPI_finish();

	PG_RETURN_TEXT_P(result);
}
