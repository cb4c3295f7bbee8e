/*
 * validity.c
 *	  Are these times and this generation valid, and how many sessions may a user have?
 */
#include "policy/load.h"


/* The user has no limit of sessions of their own. */
#define NO_LIMIT_OF_THEIR_OWN	PG_INT64_MIN

static int
user_limit_compare(const void *a, const void *b)
{
	uint64		left = ((const SaUserLimit *) a)->user_key;
	uint64		right = ((const SaUserLimit *) b)->user_key;

	return left < right ? -1 : left > right ? 1 : 0;
}

/* Read the policies of single users, into this context. The caller is connected to SPI. */
void
sa_user_limits_read(SaApplication *application, MemoryContext context)
{
	static SaStatement read_user_limits = {.sql =
		"SELECT user_name::text,"
		"       max(value) FILTER (WHERE name = 'idle_timeout'),"
		"       max(value) FILTER (WHERE name = 'absolute_timeout'),"
		"       max(value) FILTER (WHERE name = 'max_sessions_per_user'),"
		"       max(value) FILTER (WHERE name = 'on_session_limit')"
		" FROM session_admin_internal.policy"
		" WHERE application = $1 AND user_name IS NOT NULL"
		"   AND name IN ('idle_timeout', 'absolute_timeout',"
		"                'max_sessions_per_user', 'on_session_limit')"
		" GROUP BY user_name"
	};
	SaArgs		args = {0};
	uint64		rows;

	sa_arg_text(&args, application->name);
	rows = sa_run(&read_user_limits, &args);
	application->n_user_limits = (int) rows;
	application->user_limits = rows == 0 ? NULL :
		MemoryContextAllocZero(context, rows * sizeof(SaUserLimit));
	for (uint64 i = 0; i < rows; i++)
	{
		SaUserLimit *limit = &application->user_limits[i];
		char	   *idle = sa_result_text(i, 2);
		char	   *absolute = sa_result_text(i, 3);
		char	   *sessions = sa_result_text(i, 4);
		char	   *choice = sa_result_text(i, 5);
		SaApplication chosen = {0};

		limit->user_key = sa_user_key(sa_result_text(i, 1));
		limit->idle_timeout = idle ? sa_usecs_from_text(idle) : 0;
		limit->absolute_timeout = absolute ? sa_usecs_from_text(absolute) : 0;
		limit->max_sessions = sessions ? sa_int64_from_text(sessions) : NO_LIMIT_OF_THEIR_OWN;
		if (choice != NULL)
			sa_policy_value_set(&chosen, "on_session_limit", choice, context);
		limit->on_session_limit = chosen.on_session_limit;
	}
	if (rows > 0)
		qsort(application->user_limits, application->n_user_limits, sizeof(SaUserLimit), user_limit_compare);
}

/* The policies of this user alone; NULL if there are none. */
static const SaUserLimit *
user_limit_find(const SaApplication *application, uint64 user_key)
{
	SaUserLimit key = {.user_key = user_key};

	if (application->n_user_limits == 0 || user_key == 0)
		return NULL;
	return bsearch(&key, application->user_limits, application->n_user_limits,
				   sizeof(SaUserLimit), user_limit_compare);
}

/*
 * How many sessions may this user have (negative: no limit), and what happens
 * when they open one more?
 */
int64
sa_max_sessions(const SaApplication *application, uint64 user_key, int *on_session_limit)
{
	const SaUserLimit *limit = user_limit_find(application, user_key);

	*on_session_limit = limit && limit->on_session_limit ?
		limit->on_session_limit : application->on_session_limit;
	return limit && limit->max_sessions != NO_LIMIT_OF_THEIR_OWN ?
		limit->max_sessions : application->max_sessions_per_user;
}

/* How long a session of this user lives at most, as far as the policies say. */
int64
sa_absolute_timeout(const SaApplication *application, uint64 user_key)
{
	const SaUserLimit *limit = user_limit_find(application, user_key);

	if (limit != NULL && limit->absolute_timeout > 0)
		return limit->absolute_timeout;
	return user_key ? application->absolute_timeout : application->anonymous_absolute_timeout;
}

/*
 * How long may a session be idle?  user_key is 0 for an anonymous one.  With an idle
 * timeout of its own (not 0) no policy says so.
 */
int64
sa_idle_timeout(const SaApplication *application, uint64 user_key, int64 idle_timeout)
{
	const SaUserLimit *limit;

	if (idle_timeout != 0)
		return idle_timeout;
	if (user_key == 0)
		return application->anonymous_idle_timeout;
	limit = user_limit_find(application, user_key);
	return limit && limit->idle_timeout > 0 ? limit->idle_timeout : application->idle_timeout;
}

/*
 * Is a session of this generation, created and last used at these times, valid
 * now?  user_key is 0 for an anonymous one.  With an idle timeout of its own (not 0)
 * no policy limits its time.
 *
 * Parameters: each touch calls it, with values of an entry that is in shared memory.
 */
bool
sa_times_are_valid(const SaApplication *application, uint64 user_key, int64 generation,
				   TimestampTz created_at, TimestampTz last_access_at, int64 idle_timeout,
				   TimestampTz now)
{
	int64		idle = sa_idle_timeout(application, user_key, idle_timeout);
	int64		absolute = user_key ? application->absolute_timeout :
	application->anonymous_absolute_timeout;
	const SaUserLimit *limit = user_limit_find(application, user_key);

	if (limit != NULL && limit->absolute_timeout > 0)
		absolute = limit->absolute_timeout;
	if (idle_timeout != 0)
		absolute = SA_NO_TIMEOUT;

	return generation == application->generation &&
		last_access_at > now - idle &&	/* infinity is not reckoned with */
		created_at > now - absolute;
}
