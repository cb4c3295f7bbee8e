/*
 * access.c
 *	  Capabilities: sets of functions and views, held by a role as ordinary privileges on
 *	  them.
 *
 * The privileges are the only record; README.md says what follows from that.
 */
#include "base/base.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sa_grant_access);
PG_FUNCTION_INFO_V1(sa_revoke_access);

/* The role argument as an identifier. */
static const char *
access_role_arg(FunctionCallInfo fcinfo, int argno)
{
	char	   *role;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("role must not be null")));
	if (!OidIsValid(PG_GETARG_OID(argno)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("access cannot be granted to PUBLIC"),
				 errhint("Name a role.")));
	role = GetUserNameFromId(PG_GETARG_OID(argno), true);
	if (role == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", PG_GETARG_OID(argno))));
	return quote_identifier(role);
}

/* The argument as a capability; an error if there is none of this name. */
static char *
access_capability_arg(FunctionCallInfo fcinfo, int argno)
{
	static SaStatement list_capabilities = {.sql =
		"SELECT string_agg(DISTINCT format('\"%s\"', capability), ', '),"
		" coalesce(bool_or(capability = $1), false)"
		" FROM session_admin_internal.capability"
	};
	char	   *capability = sa_text_or_null(fcinfo, argno);
	SaArgs		args = {0};
	bool		isnull;

	if (capability == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("capability must not be null")));

	sa_arg_text(&args, capability);
	sa_run(&list_capabilities, &args);
	if (!DatumGetBool(sa_result(0, 2, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown capability \"%s\"", sa_clean(capability, strlen(capability), 64)),
				 errhint("Capabilities are %s.", sa_result_text(0, 1))));
	return capability;
}

static void
access_execute(const char *command)
{
	int			result = sa_run_once(command, NULL);

	if (result != SPI_OK_UTILITY)
		elog(ERROR, "could not execute \"%s\": %s", command, SPI_result_code_string(result));
}

/* grant_access(role, capability) */
Datum
sa_grant_access(PG_FUNCTION_ARGS)
{
	static SaStatement list_privileges = {.sql =
		"SELECT privilege FROM session_admin_internal.capability_privilege WHERE capability = $1"
	};
	const char *role = access_role_arg(fcinfo, 0);
	SaArgs		args = {0};
	uint64		privileges;
	char	  **list;

	SPI_connect();
	sa_arg_text(&args, access_capability_arg(fcinfo, 1));
	privileges = sa_run(&list_privileges, &args);
	list = palloc(privileges * sizeof(char *));
	for (uint64 i = 0; i < privileges; i++)
		list[i] = sa_result_text(i, 1);

	access_execute(psprintf("GRANT USAGE ON SCHEMA session_admin TO %s", role));
	for (uint64 i = 0; i < privileges; i++)
		access_execute(psprintf("GRANT %s TO %s", list[i], role));
	SPI_finish();

	PG_RETURN_VOID();
}

/* revoke_access(role, capability): what no other capability of the role needs */
Datum
sa_revoke_access(PG_FUNCTION_ARGS)
{
	static SaStatement list_privileges = {.sql =
		"SELECT privilege FROM session_admin_internal.capability_privilege WHERE capability = $1"
		" EXCEPT"
		" SELECT p.privilege FROM session_admin_internal.capability_privilege p"
		" JOIN session_admin.access a ON a.capability = p.capability AND a.role = $2"
		" WHERE p.capability <> $1"
	};
	static SaStatement count_others = {.sql =
		"SELECT FROM session_admin.access WHERE role = $1"
	};
	const char *role = access_role_arg(fcinfo, 0);
	SaArgs		args = {0};
	SaArgs		role_args = {0};
	uint64		privileges;
	char	  **list;

	/* its functions run with what the owner may do */
	if (PG_GETARG_OID(0) == GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("access cannot be revoked from the owner of the extension")));

	SPI_connect();
	sa_arg_text(&args, access_capability_arg(fcinfo, 1));
	sa_arg(&args, REGROLEOID, PG_GETARG_DATUM(0), false);
	privileges = sa_run(&list_privileges, &args);
	list = palloc(privileges * sizeof(char *));
	for (uint64 i = 0; i < privileges; i++)
		list[i] = sa_result_text(i, 1);

	for (uint64 i = 0; i < privileges; i++)
		access_execute(psprintf("REVOKE %s FROM %s", list[i], role));
	sa_arg(&role_args, REGROLEOID, PG_GETARG_DATUM(0), false);
	if (sa_run(&count_others, &role_args) == 0)
		access_execute(psprintf("REVOKE USAGE ON SCHEMA session_admin FROM %s", role));
	SPI_finish();

	PG_RETURN_VOID();
}
