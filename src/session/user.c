/*
 * user.c
 *	  What becomes of the data of a user who is renamed, anonymized or erased.
 *
 * All three end the user's sessions and tokens under the old name first: see README.md.
 */
#include "session/session.h"
#include "ending/ending.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_anonymize_user);
PG_FUNCTION_INFO_V1(sa_rename_user);
PG_FUNCTION_INFO_V1(sa_erase_user);

static void
user_unknown(const char *application, const char *user_name)
{
	ereport(ERROR,
			(errcode(SA_ERRCODE_NOT_FOUND),
			 errmsg("user \"%s\" is not known in application \"%s\"",
					sa_clean(user_name, strlen(user_name), SA_USER_NAME_MAX), application),
			 errhint("See view session_admin.last_login for the users that are.")));
}

/* Run all statements with the same arguments and return the number of rows. */
static uint64
user_run_all(SaStatement *statements, int n, SaArgs *args)
{
	uint64		rows = 0;

	for (int i = 0; i < n; i++)
		rows += sa_run(&statements[i], args);
	return rows;
}

/* Moves that count: there was something under the old name. */
static SaStatement move[] = {
	{.sql = "UPDATE session_admin_internal.account_seen SET user_name = $3"
	" WHERE application = $1 AND user_name = $2"},
	{.sql = "UPDATE session_admin_internal.ended_session SET user_name = $3,"
		"  client_address = CASE WHEN NOT $4 THEN client_address END,"
		"  peer_address = CASE WHEN NOT $4 THEN peer_address END,"
		"  log_id = CASE WHEN NOT $4 THEN log_id END,"
		"  user_agent = CASE WHEN NOT $4 THEN user_agent END,"
		"  device = CASE WHEN NOT $4 THEN device END"
	" WHERE application = $1 AND user_name = $2"},
	{.sql = "UPDATE session_admin_internal.login_event SET user_name = $3,"
		"  client_address = CASE WHEN NOT $4 THEN client_address END,"
		"  user_agent = CASE WHEN NOT $4 THEN user_agent END,"
		"  device = CASE WHEN NOT $4 THEN device END"
	" WHERE application = $1 AND user_name = $2"}
};

/* Moves that do not count: a name that nobody ever had may have such rows. */
static SaStatement move_more[] = {
	/* of two logins, the address and method are those of the later one */
	{.sql = "WITH old AS ("
		"  DELETE FROM session_admin_internal.account WHERE application = $1 AND user_name = $2"
		"  RETURNING *"
		")"
		" UPDATE session_admin_internal.account a SET"
		"  login_count = a.login_count + old.login_count,"
		"  last_login_at = greatest(a.last_login_at, old.last_login_at),"
		"  last_login_address = CASE WHEN $4 THEN NULL"
		"    WHEN a.last_login_at >= old.last_login_at OR old.last_login_at IS NULL"
		"    THEN a.last_login_address ELSE old.last_login_address END,"
		"  last_login_method = CASE"
		"    WHEN a.last_login_at >= old.last_login_at OR old.last_login_at IS NULL"
		"    THEN a.last_login_method ELSE old.last_login_method END,"
		"  previous_login_at = greatest(a.previous_login_at, old.previous_login_at,"
		"    CASE WHEN a.last_login_at IS NOT NULL AND old.last_login_at IS NOT NULL"
		"    THEN least(a.last_login_at, old.last_login_at) END),"
		"  last_failed_login_at = greatest(a.last_failed_login_at, old.last_failed_login_at),"
		"  current_failed_count = a.current_failed_count + old.current_failed_count,"
		"  total_failed_count = a.total_failed_count + old.total_failed_count,"
		"  last_seen_at = greatest(a.last_seen_at, old.last_seen_at),"
		"  created_at = least(a.created_at, old.created_at)"
	" FROM old WHERE a.application = $1 AND a.user_name = $3"},
	{.sql = "UPDATE session_admin_internal.account_key SET user_name = $3"
	" WHERE application = $1 AND user_name = $2"},
	{.sql = "UPDATE session_admin_internal.invalidation SET user_name = $3"
		" WHERE application = $1 AND user_name = $2"
	"  AND xid <> pg_current_xact_id()"},
	{.sql = "UPDATE session_admin_internal.capture_failure"
		" SET user_names = array_replace(user_names, $2, $3)"
	" WHERE application = $1 AND $2 = ANY (user_names)"},
	{.sql = "UPDATE session_admin_internal.product_remains SET user_name = $3"
	" WHERE application = $1 AND user_name = $2"},
	/* what the new name has of its own stays */
	{.sql = "WITH old AS ("
		"  DELETE FROM session_admin_internal.policy WHERE application = $1 AND user_name = $2"
		"  RETURNING *"
		")"
		" INSERT INTO session_admin_internal.policy (application, user_name, name, value)"
		" SELECT application, $3, name, value FROM old"
	" ON CONFLICT (application, user_name, name) DO NOTHING"}
};

/* What the user did to others. */
static SaStatement rename_actor[] = {
	{.sql = "UPDATE session_admin_internal.ended_session SET actor = $3 WHERE application = $1 AND actor = $2"},
	{.sql = "UPDATE session_admin_internal.application_generation SET actor = $3"
	" WHERE application = $1 AND actor = $2"},
	{.sql = "UPDATE session_admin_internal.invalidation SET actor = $3 WHERE application = $1 AND actor = $2"}
};

/*
 * Move everything of one user to another name, which may have data already, and return how
 * many rows there were. Accounts, rows of the feed and policies do not count: a name that
 * nobody ever had may have them. Both accounts are locked.
 */
static uint64
user_move(const char *application, const char *old_name, const char *new_name, bool anonymize)
{
	SaArgs		args = {0};
	uint64		rows;

	sa_arg_text(&args, application);
	sa_arg_text(&args, old_name);
	sa_arg_text(&args, new_name);
	sa_arg(&args, BOOLOID, BoolGetDatum(anonymize), false);
	rows = user_run_all(move, lengthof(move), &args);
	user_run_all(move_more, lengthof(move_more), &args);
	if (anonymize)
		user_run_all(rename_actor, lengthof(rename_actor), &args);

	return rows;
}

/*
 * End everything of old_name and give its data to new_name; false if old_name is not
 * known. With reason "user_anonymized", everything that identifies the user is removed.
 * The ending counts from the time at which the accounts are locked. The caller is
 * connected to SPI.
 */
bool
sa_user_rename(const char *application, const char *old_name, const char *new_name,
			   const SaEnding *ending, SaEnded *ended)
{
	SaEnding	now = *ending;
	bool		known;

	/*
	 * In the order of names, as whenever several accounts are locked. Making
	 * one waits for a first login that is under way.
	 */
	if (strcmp(old_name, new_name) < 0)
	{
		known = !sa_account_ensure(application, old_name);
		sa_account_ensure(application, new_name);
	}
	else
	{
		sa_account_ensure(application, new_name);
		known = !sa_account_ensure(application, old_name);
	}

	now.at = GetCurrentTimestamp();
	sa_end_user(application, old_name, NULL, false, &now, ended);
	if (user_move(application, old_name, new_name,
				  strcmp(ending->reason, "user_anonymized") == 0) > 0)
		known = true;
	return known;
}

/*
 * Give everything of a name that only stood in for another one to that.  The
 * caller is connected to SPI.
 */
void
sa_user_move(const char *application, const char *old_name, const char *new_name, bool anonymize)
{
	(void) sa_account_ensure(application, new_name);
	(void) user_move(application, old_name, new_name, anonymize);
}

static Datum
user_rename_call(FunctionCallInfo fcinfo, const char *reason)
{
	char	   *old_name = sa_user_name_arg(fcinfo, 0);
	char	   *new_name = sa_user_name_arg(fcinfo, 1);
	char	   *application = sa_application_arg(fcinfo, 2);
	SaEnding	ending = {.reason = reason};
	SaEnded		ended = {0};
	Datum		names[2];

	sa_check_printable("user name", new_name);
	if (strcmp(old_name, new_name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("old and new name of the user are the same")));

	SPI_connect();
	names[0] = CStringGetTextDatum(old_name);
	names[1] = CStringGetTextDatum(new_name);
	sa_accounts_lock(application, sa_array(names, 2, TEXTOID));
	if (!sa_user_rename(application, old_name, new_name, &ending, &ended))
		user_unknown(application, old_name);
	SPI_finish();

	return sa_ending_result(fcinfo, &ended);
}

/* rename_user(old, new, application) */
Datum
sa_rename_user(PG_FUNCTION_ARGS)
{
	return user_rename_call(fcinfo, "user_renamed");
}

/* anonymize_user(user_name, alias, application) */
Datum
sa_anonymize_user(PG_FUNCTION_ARGS)
{
	return user_rename_call(fcinfo, "user_anonymized");
}

/* erase_user(user_name, application) */
Datum
sa_erase_user(PG_FUNCTION_ARGS)
{
	static SaStatement erase[] = {
		{.sql = "DELETE FROM session_admin_internal.account_seen WHERE application = $1 AND user_name = $2"},
		{.sql = "DELETE FROM session_admin_internal.ended_session WHERE application = $1 AND user_name = $2"},
		{.sql = "DELETE FROM session_admin_internal.login_event WHERE application = $1 AND user_name = $2"}
	};
	static SaStatement erase_more[] = {
		{.sql = "DELETE FROM session_admin_internal.account WHERE application = $1 AND user_name = $2"},
		{.sql = "DELETE FROM session_admin_internal.account_key WHERE application = $1 AND user_name = $2"},
		{.sql = "DELETE FROM session_admin_internal.invalidation WHERE application = $1 AND user_name = $2"
		" AND xid <> pg_current_xact_id()"},
		{.sql = "UPDATE session_admin_internal.capture_failure"
			" SET user_names = array_remove(user_names, $2)"
		" WHERE application = $1 AND $2 = ANY (user_names)"},
		{.sql = "DELETE FROM session_admin_internal.product_remains WHERE application = $1 AND user_name = $2"},
		{.sql = "DELETE FROM session_admin_internal.policy WHERE application = $1 AND user_name = $2"},
		{.sql = "UPDATE session_admin_internal.ended_session SET actor = NULL WHERE application = $1 AND actor = $2"},
		{.sql = "UPDATE session_admin_internal.application_generation SET actor = NULL"
		" WHERE application = $1 AND actor = $2"},
		{.sql = "UPDATE session_admin_internal.invalidation SET actor = NULL WHERE application = $1 AND actor = $2"}
	};
	char	   *user_name = sa_user_name_arg(fcinfo, 0);
	char	   *application = sa_application_arg(fcinfo, 1);
	SaEnding	ending = {.reason = "user_deleted"};
	SaEnded		ended = {0};
	SaArgs		args = {0};
	bool		known;

	SPI_connect();
	ending.wait_until = sa_wait_until();
	sa_accounts_lock(application, sa_array_of_text(user_name));
	known = !sa_account_ensure(application, user_name);
	ending.at = GetCurrentTimestamp();
	sa_end_user(application, user_name, NULL, false, &ending, &ended);

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	if (user_run_all(erase, lengthof(erase), &args) == 0 && !known)
		user_unknown(application, user_name);
	user_run_all(erase_more, lengthof(erase_more), &args);
	SPI_finish();

	return sa_ending_result(fcinfo, &ended);
}
