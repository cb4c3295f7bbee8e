/*
 * account.c
 *	  Login counters of each user, and the row lock that orders the logins of a
 *	  user against the invalidations of that user.
 *
 * Whoever opens a session for a user, and whoever ends all sessions of a user,
 * locks the user's account first and keeps the lock until commit.  So an
 * invalidation waits for a login that is under way and then ends its session
 * too, and a login waits for an invalidation and starts after it.  Nothing else
 * locks accounts while it holds locks on sessions: there is no deadlock.
 */
#include "session_admin.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Lock the account; false if there is none.  The caller is connected to SPI. */
bool
sa_account_lock(const char *application, const char *user_name)
{
	static SaStatement lock_account = {.sql =
		"SELECT FROM session_admin.account"
		" WHERE application = $1 AND user_name = $2 FOR NO KEY UPDATE"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	return sa_run(&lock_account, &args) > 0;
}

/* Lock the account, made if there is none.  The caller is connected to SPI. */
void
sa_account_make(const char *application, const char *user_name)
{
	static SaStatement insert_account = {.sql =
		"INSERT INTO session_admin.account (application, user_name) VALUES ($1, $2)"
		" ON CONFLICT (application, user_name) DO NOTHING"
	};

	while (!sa_account_lock(application, user_name))
	{
		SaArgs		args = {0};

		CHECK_FOR_INTERRUPTS();
		sa_arg_text(&args, application);
		sa_arg_text(&args, user_name);
		sa_run(&insert_account, &args);
	}
}

/* Count a login, and lock the account.  The caller is connected to SPI. */
void
sa_account_logged_in(const char *application, const char *user_name,
					 TimestampTz at, inet *address, const char *login_method)
{
	static SaStatement count_login = {.sql =
		"INSERT INTO session_admin.account AS a (application, user_name, login_count,"
		" last_login_at, last_login_address, last_login_method, last_seen_at)"
		" VALUES ($1, $2, 1, $3, $4, $5, $3)"
		" ON CONFLICT (application, user_name) DO UPDATE SET"
		" login_count = a.login_count + 1, previous_login_at = a.last_login_at,"
		" last_login_at = greatest(a.last_login_at, excluded.last_login_at),"
		" last_login_address = excluded.last_login_address,"
		" last_login_method = excluded.last_login_method,"
		" last_seen_at = greatest(a.last_seen_at, excluded.last_seen_at),"
		" current_failed_count = 0"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	sa_arg(&args, INETOID, InetPGetDatum(address), address == NULL);
	sa_arg_text(&args, login_method);
	sa_run(&count_login, &args);
}

/*
 * Count a failed login.  Who is unknown gets no account: somebody who guesses
 * names must not fill the table.  The caller is connected to SPI.
 */
void
sa_account_login_failed(const char *application, const char *user_name, TimestampTz at)
{
	static SaStatement count_failure = {.sql =
		"UPDATE session_admin.account SET"
		" last_failed_login_at = greatest(last_failed_login_at, $3),"
		" current_failed_count = current_failed_count + 1,"
		" total_failed_count = total_failed_count + 1"
		" WHERE application = $1 AND user_name = $2"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	sa_run(&count_failure, &args);
}
