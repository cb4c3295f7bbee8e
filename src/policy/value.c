/*
 * value.c
 *	  A policy from its text.
 */
#include "policy/load.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* Where each time limit goes. */
static const struct
{
	const char *name;
	size_t		offset;
}			interval_policies[] =
{
	{"idle_timeout", offsetof(SaApplication, idle_timeout)},
	{"absolute_timeout", offsetof(SaApplication, absolute_timeout)},
	{"anonymous_idle_timeout", offsetof(SaApplication, anonymous_idle_timeout)},
	{"anonymous_absolute_timeout", offsetof(SaApplication, anonymous_absolute_timeout)},
	{"remember_me_lifetime", offsetof(SaApplication, remember_me_lifetime)},
	{"remember_me_grace", offsetof(SaApplication, remember_me_grace)},
	{"node_lease", offsetof(SaApplication, node_lease)},
};

/* Where each number goes. */
static const struct
{
	const char *name;
	size_t		offset;
}			integer_policies[] =
{
	{"max_sessions_per_user", offsetof(SaApplication, max_sessions_per_user)},
	{"max_sessions", offsetof(SaApplication, max_sessions)},
	{"max_anonymous_sessions", offsetof(SaApplication, max_anonymous_sessions)},
};

/* Where each choice goes. */
static const struct
{
	const char *name;
	size_t		offset;
	const char *value;
	int			choice;
}			choice_policies[] =
{
	{"on_session_limit", offsetof(SaApplication, on_session_limit), "reject", SA_REJECT},
	{"on_session_limit", offsetof(SaApplication, on_session_limit), "evict_oldest", SA_EVICT_OLDEST},
	{"on_theft", offsetof(SaApplication, on_theft), "end_series", SA_END_SERIES},
	{"on_theft", offsetof(SaApplication, on_theft), "end_user", SA_END_USER},
	{"on_theft", offsetof(SaApplication, on_theft), "end_user_and_devices", SA_END_USER_AND_DEVICES},
	{"on_restore", offsetof(SaApplication, on_restore), "invalidate", SA_INVALIDATE},
	{"on_restore", offsetof(SaApplication, on_restore), "keep", SA_KEEP},
	{"on_capture_failure", offsetof(SaApplication, on_capture_failure), "record", SA_RECORD},
	{"on_capture_failure", offsetof(SaApplication, on_capture_failure), "error", SA_ERROR},
	{"captured_logins", offsetof(SaApplication, captured_logins), "count", SA_COUNT},
	{"captured_logins", offsetof(SaApplication, captured_logins), "ignore", SA_IGNORE},
	{"invalidation_durability", offsetof(SaApplication, invalidation_durability), "on", SA_DURABILITY_ON},
	{"invalidation_durability", offsetof(SaApplication, invalidation_durability), "remote_apply", SA_DURABILITY_APPLY},
};

/* An interval as text in microseconds, as extract(epoch) counts. */
int64
sa_usecs_from_text(const char *value)
{
	Interval   *interval = DatumGetIntervalP(DirectFunctionCall3(interval_in,
																 CStringGetDatum(value),
																 ObjectIdGetDatum(InvalidOid),
																 Int32GetDatum(-1)));
	int64		years = interval->month / MONTHS_PER_YEAR;
	int64		months = interval->month % MONTHS_PER_YEAR;

	return interval->time +
		interval->day * USECS_PER_DAY +
		months * DAYS_PER_MONTH * USECS_PER_DAY +
		years * (USECS_PER_DAY / 4 * 1461);
}

/* A number as text. */
int64
sa_int64_from_text(const char *value)
{
	return DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(value)));
}

/*
 * Set one policy of the application from its text. Values that are no numbers are
 * allocated in the context.
 */
void
sa_policy_value_set(SaApplication *application, const char *name, const char *value,
					MemoryContext context)
{
	for (size_t i = 0; i < lengthof(interval_policies); i++)
	{
		if (strcmp(interval_policies[i].name, name) == 0)
		{
			*(int64 *) ((char *) application + interval_policies[i].offset) = sa_usecs_from_text(value);
			return;
		}
	}

	for (size_t i = 0; i < lengthof(integer_policies); i++)
	{
		if (strcmp(integer_policies[i].name, name) == 0)
		{
			*(int64 *) ((char *) application + integer_policies[i].offset) = sa_int64_from_text(value);
			return;
		}
	}

	for (size_t i = 0; i < lengthof(choice_policies); i++)
	{
		if (strcmp(choice_policies[i].name, name) == 0 &&
			strcmp(choice_policies[i].value, value) == 0)
		{
			*(int *) ((char *) application + choice_policies[i].offset) = choice_policies[i].choice;
			return;
		}
	}

	if (strcmp(name, "trusted_proxies") == 0)
	{
		Oid			input;
		Oid			ioparam;
		ArrayType  *proxies;
		MemoryContext old;

		getTypeInputInfo(CIDRARRAYOID, &input, &ioparam);
		proxies = DatumGetArrayTypeP(OidInputFunctionCall(input, pstrdup(value), ioparam, -1));
		if (ARR_NDIM(proxies) == 0)
			return;
		old = MemoryContextSwitchTo(context);
		application->trusted_proxies = DatumGetArrayTypePCopy(PointerGetDatum(proxies));
		MemoryContextSwitchTo(old);
	}
}
