/*
 * validity.c
 *	  Are these times and this generation valid, and how many sessions may a user have?
 */
#include "policy/load.h"

/* What a user's policies are read into */
typedef struct UserLimit
{
	SaApplication chosen;		/* 0: the application's */
	bool		has_max_sessions;
} UserLimit;

/* Read the policies of this user alone; false if nobody in the application has any. */
static bool
user_limit_read(const SaApplication *application, const char *user_name, UserLimit *limit)
{
	SaScan		scan;
	ScanKeyData keys[2];

	if (!application->has_user_limits || user_name == NULL)
		return false;
	memset(limit, 0, sizeof(*limit));
	sa_scan_key_text(&keys[0], SA_POLICY_APPLICATION, application->name);
	sa_scan_key_text(&keys[1], SA_POLICY_USER_NAME, user_name);
	sa_scan_begin_by(&scan, SA_TABLE_POLICY, SA_INDEX_POLICY_KEY, keys, lengthof(keys));
	while (sa_scan_next(&scan))
	{
		char	   *name = sa_scan_text(&scan, SA_POLICY_NAME);

		sa_policy_value_set(&limit->chosen, name, sa_scan_text(&scan, SA_POLICY_VALUE),
							CurrentMemoryContext);
		limit->has_max_sessions |= strcmp(name, "max_sessions_per_user") == 0;
	}
	sa_scan_end(&scan);
	return true;
}

/* Read the time limits of this user alone (NULL: anonymous). */
void
sa_time_limit_read(const SaApplication *application, const char *user_name, SaTimeLimit *limit)
{
	UserLimit	own;

	memset(limit, 0, sizeof(*limit));
	if (!user_limit_read(application, user_name, &own))
		return;
	limit->idle_timeout = own.chosen.idle_timeout;
	limit->absolute_timeout = own.chosen.absolute_timeout;
}

/*
 * How many sessions may this user have (negative: no limit), and what happens
 * when they open one more?
 */
int64
sa_max_sessions(const SaApplication *application, const char *user_name, int *on_session_limit)
{
	UserLimit	own;

	*on_session_limit = application->on_session_limit;
	if (!user_limit_read(application, user_name, &own))
		return application->max_sessions_per_user;
	if (own.chosen.on_session_limit != 0)
		*on_session_limit = own.chosen.on_session_limit;
	return own.has_max_sessions ? own.chosen.max_sessions_per_user :
		application->max_sessions_per_user;
}

static int64
absolute_timeout(const SaApplication *application, uint64 user_key, const SaTimeLimit *limit)
{
	if (user_key == 0)
		return application->anonymous_absolute_timeout;
	return limit->absolute_timeout > 0 ? limit->absolute_timeout : application->absolute_timeout;
}

/* How long a session of this user lives at most, as far as the policies say. */
int64
sa_absolute_timeout(const SaApplication *application, const char *user_name)
{
	SaTimeLimit limit;

	sa_time_limit_read(application, user_name, &limit);
	return absolute_timeout(application, user_name != NULL, &limit);
}

/*
 * How long may a session be idle?  user_key is 0 for an anonymous one.  With an idle
 * timeout of its own (not 0) no policy says so.
 */
int64
sa_idle_timeout(const SaApplication *application, uint64 user_key, const SaTimeLimit *limit,
				int64 idle_timeout)
{
	if (idle_timeout != 0)
		return idle_timeout;
	if (user_key == 0)
		return application->anonymous_idle_timeout;
	return limit->idle_timeout > 0 ? limit->idle_timeout : application->idle_timeout;
}

/*
 * Is a session of this generation, created and last used at these times, valid
 * now?  user_key is 0 for an anonymous one; the limit is that of its user.  With an idle
 * timeout of its own (not 0) no policy limits its time.
 *
 * Parameters: each touch calls it, with values of an entry that is in shared memory.
 */
bool
sa_times_are_valid(const SaApplication *application, uint64 user_key, const SaTimeLimit *limit,
				   int64 generation, TimestampTz created_at, TimestampTz last_access_at,
				   int64 idle_timeout, TimestampTz now)
{
	int64		idle = sa_idle_timeout(application, user_key, limit, idle_timeout);
	int64		absolute = idle_timeout != 0 ? SA_NO_TIMEOUT :
	absolute_timeout(application, user_key, limit);

	return generation == application->generation &&
		last_access_at > now - idle &&	/* infinity is not reckoned with */
		created_at > now - absolute;
}
