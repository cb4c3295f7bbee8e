/*
 * policy.c
 *	  What holds for an application: its generation and its policies.
 *
 * Each backend keeps what it has read.  A change of application, policy or
 * probe_rule sends a relcache invalidation of policy_signal, a table that no
 * statement reads (of another, all plans that read it would be made anew).
 * PostgreSQL delivers it to the other backends after the change is visible and
 * before its COMMIT returns.  So who accepts the pending invalidations first, as
 * sa_application_find does, never takes something for valid that an earlier commit
 * has ended: not even after "everybody out", which is a change of one row of
 * application.
 *
 * Between visible and delivered somebody may know of it already.  Preloaded, that
 * is in doubt (live.c), and the tables are read.  Otherwise, who tells a node the
 * truth waits for it to be over (sa_policy_settle), so that no node is answered,
 * and keeps, what is older than what it was told.
 *
 * An application that came here by a restore from a dump has the mark of another
 * place.  Until somebody uses it, none of its sessions and tokens is valid (or
 * all are, if the policy on_restore says so); who opens the first session then
 * ends its generation, so that what was ended after the dump was made does not
 * come back to life.
 *
 * Rows are read with a snapshot that is taken after the invalidations were
 * accepted; if more of them arrive while reading, it reads again.
 */
#include "session_admin.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_policy_changed);
PG_FUNCTION_INFO_V1(sa_set_policy);

static MemoryContext cache_context = NULL;
static HTAB *cache = NULL;
static SaApplication *last_found = NULL;	/* in the cache */
static bool cache_valid = false;
static Oid	signal_relid = InvalidOid;
static Oid	session_relid = InvalidOid;

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

/* Of a user who has no limit of sessions of their own. */
#define NO_LIMIT_OF_THEIR_OWN	PG_INT64_MIN

/* How often the cache was emptied. */
static uint64 policies_read = 0;

static void
relcache_callback(pg_attribute_unused() Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == signal_relid)
		cache_valid = false;
}

/* Be told of changes. */
void
sa_policy_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
}

/*
 * Trigger on application, policy and probe_rule: tell every backend, once this transaction
 * has committed.
 */
Datum
sa_policy_changed(PG_FUNCTION_ARGS)
{
	Oid			relid;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"policy_changed\" was not called by trigger manager")));

	relid = sa_relation(SA_TABLE_POLICY_SIGNAL);
	CacheInvalidateRelcacheByRelid(relid);
	sa_pending_applications(relid);
	PG_RETURN_POINTER(NULL);
}

/* Tell the other backends of a change of this table.  Runs after commit. */
void
sa_policy_tell(Oid relation)
{
	SharedInvalidationMessage message = {0};

	message.rc.id = SHAREDINVALRELCACHE_ID;
	message.rc.dbId = MyDatabaseId;
	message.rc.relId = relation;
	SendSharedInvalidMessages(&message, 1);
}

/*
 * Wait until every backend has been told of the generations that are visible now:
 * a transaction gives up the lock on its id after that.  The caller is connected
 * to SPI.
 */
void
sa_policy_settle(void)
{
	static SaStatement last_changes = {.sql =
		"SELECT DISTINCT xmin FROM session_admin.application"
	};
	uint64		rows;

	if (sa_live_enabled())
		return;
	rows = sa_run(&last_changes, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		TransactionId xid = DatumGetTransactionId(sa_result(i, 1, &isnull));

		if (TransactionIdIsNormal(xid) && !TransactionIdIsCurrentTransactionId(xid))
			XactLockTableWait(xid, NULL, NULL, XLTW_None);
	}
}

/* An interval as text in microseconds, as extract(epoch) counts. */
static int64
microseconds(const char *value)
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
static int64
number(const char *value)
{
	return DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(value)));
}

/* Set one policy of the application from its text. */
static void
set_policy_value(SaApplication *application, const char *name, const char *value)
{
	for (size_t i = 0; i < lengthof(interval_policies); i++)
	{
		if (strcmp(interval_policies[i].name, name) == 0)
		{
			*(int64 *) ((char *) application + interval_policies[i].offset) = microseconds(value);
			return;
		}
	}

	for (size_t i = 0; i < lengthof(integer_policies); i++)
	{
		if (strcmp(integer_policies[i].name, name) == 0)
		{
			*(int64 *) ((char *) application + integer_policies[i].offset) = number(value);
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
		FmgrInfo	array_in_info;
		Oid			input;
		Oid			ioparam;
		MemoryContext old = MemoryContextSwitchTo(cache_context);

		getTypeInputInfo(CIDRARRAYOID, &input, &ioparam);
		fmgr_info(input, &array_in_info);
		application->trusted_proxies =
			DatumGetArrayTypePCopy(InputFunctionCall(&array_in_info, pstrdup(value), ioparam, -1));
		MemoryContextSwitchTo(old);
	}
}

/* A name in 64 bits, that nobody can make collide with another one. */
uint64
sa_application_key(const char *name)
{
	uint8		hash[SA_HASH_LEN];
	uint64		key;

	sa_sha256(name, strlen(name), hash);
	memcpy(&key, hash, sizeof(key));
	return key;
}

/* The same of a user; 0 stands for an anonymous one (NULL). */
uint64
sa_user_key(const char *user_name)
{
	return user_name ? Max(sa_application_key(user_name), 1) : 0;
}

/* The name of the application with this key; empty if there is none. */
const char *
sa_application_of_key(uint64 key)
{
	static SaStatement list_applications = {.sql =
		"SELECT name::text FROM session_admin.application"
	};
	static uint64 last_key = 0;
	static char last_name[SA_NAME_MAX + 1] = "";
	uint64		rows;

	if (last_name[0] != '\0' && last_key == key)
		return last_name;

	last_name[0] = '\0';
	rows = sa_run(&list_applications, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		char	   *name = sa_result_text(i, 1);

		if (sa_application_key(name) != key)
			continue;
		last_key = key;
		strlcpy(last_name, name, sizeof(last_name));
		break;
	}
	return last_name;
}

static int
compare_limits(const void *a, const void *b)
{
	uint64		left = ((const SaUserLimit *) a)->user_key;
	uint64		right = ((const SaUserLimit *) b)->user_key;

	return left < right ? -1 : left > right ? 1 : 0;
}

/* Read one application into the cache; false if there is none of this name. */
static bool
load(const char *name)
{
	static SaStatement read_policies = {.sql =
		"SELECT a.generation, e.name::text, e.value, a.moved"
		" FROM session_admin_internal.application_state a"
		" JOIN session_admin_internal.effective_policy e ON e.application = a.name"
		" WHERE a.name = $1"
	};
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
	SaApplication loaded = {0};
	SaApplication *entry;
	SaArgs		args = {0};
	bool		isnull;
	uint64		rows;

	strlcpy(loaded.name, name, sizeof(loaded.name));
	loaded.key = sa_application_key(name);
	loaded.session_relid = session_relid;
	loaded.policies_read = policies_read;
	sa_arg_text(&args, name);
	sa_worker_note_database();

	rows = sa_run(&read_policies, &args);
	if (rows == 0)
		return false;
	loaded.generation = sa_result_int64(0, 1);
	loaded.moved = DatumGetBool(sa_result(0, 4, &isnull));
	for (uint64 i = 0; i < rows; i++)
		set_policy_value(&loaded, sa_result_text(i, 2), sa_result_text(i, 3));

	rows = sa_run(&read_user_limits, &args);
	loaded.n_user_limits = (int) rows;
	loaded.user_limits = MemoryContextAllocZero(cache_context, (rows + 1) * sizeof(SaUserLimit));
	for (uint64 i = 0; i < rows; i++)
	{
		SaUserLimit *limit = &loaded.user_limits[i];
		char	   *idle = sa_result_text(i, 2);
		char	   *absolute = sa_result_text(i, 3);
		char	   *sessions = sa_result_text(i, 4);
		char	   *choice = sa_result_text(i, 5);
		SaApplication chosen = {0};

		limit->user_key = sa_user_key(sa_result_text(i, 1));
		limit->idle_timeout = idle ? microseconds(idle) : 0;
		limit->absolute_timeout = absolute ? microseconds(absolute) : 0;
		limit->max_sessions = sessions ? number(sessions) : NO_LIMIT_OF_THEIR_OWN;
		if (choice != NULL)
			set_policy_value(&chosen, "on_session_limit", choice);
		limit->on_session_limit = chosen.on_session_limit;
	}
	qsort(loaded.user_limits, loaded.n_user_limits, sizeof(SaUserLimit), compare_limits);

	sa_probe_rules_read(&loaded, cache_context);
	sa_late_read(&loaded, cache_context);

	entry = hash_search(cache, name, HASH_ENTER, NULL);
	*entry = loaded;
	return true;
}

/* Empty the cache, and know again which tables it depends on */
static void
reset_cache(void)
{
	HASHCTL		ctl = {0};

	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(CacheMemoryContext, "session_admin policies",
											  ALLOCSET_SMALL_SIZES);
	cache = NULL;
	last_found = NULL;
	MemoryContextReset(cache_context);
	policies_read++;

	signal_relid = sa_relation(SA_TABLE_POLICY_SIGNAL);
	session_relid = sa_relation(SA_TABLE_SESSION);

	ctl.keysize = SA_NAME_MAX + 1;
	ctl.entrysize = sizeof(SaApplication);
	ctl.hcxt = cache_context;
	cache = hash_create("session_admin policies", 16, &ctl,
						HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

static SaApplication *
find(const char *name)
{
	SaApplication *entry;

	/* this first: what is not in doubt any more has been sent */
	if (sa_live_applications_in_doubt())
		cache_valid = false;
	AcceptInvalidationMessages();
	for (;;)
	{
		SaOwner		owner;
		bool		found;

		if (cache_valid && cache != NULL)
		{
			/* nearly always the same application asks again */
			if (last_found != NULL && strcmp(last_found->name, name) == 0)
				return last_found;
			entry = hash_search(cache, name, HASH_FIND, NULL);
			if (entry != NULL)
				return last_found = entry;
		}
		else
		{
			/* from here on a change makes what is read invalid again */
			cache_valid = true;
			reset_cache();
		}

		CHECK_FOR_INTERRUPTS();
		sa_owner_enter(&owner);
		SPI_connect();
		found = load(name);
		SPI_finish();
		sa_owner_leave(&owner);
		if (!found)
			return NULL;
	}
}

/*
 * Tell what holds for the application; false if there is none of this name.
 * *application is a copy, but for what it points to.
 */
bool
sa_application_find(const char *name, SaApplication *application)
{
	SaApplication *entry = find(name);

	if (entry == NULL)
		return false;
	*application = *entry;
	return true;
}

/* The same, made on first use. */
static void
make(const char *name, SaApplication *application)
{
	static SaStatement insert_application = {.sql =
		/* after whatever is left of one of this name, whose row a DBA deleted */
		"INSERT INTO session_admin.application (name, home, generation)"
		" SELECT $1, (SELECT home FROM session_admin_internal.installation_mark), 1 + greatest(0,"
		"  (SELECT max(generation) FROM session_admin_internal.application_generation WHERE application = $1),"
		"  (SELECT max(generation) FROM session_admin.session WHERE application = $1),"
		"  (SELECT max(generation) FROM session_admin.remember_me_token WHERE application = $1))"
		" ON CONFLICT (name) DO NOTHING"
	};

	static SaStatement count_applications = {.sql =
		"SELECT count(*) FROM session_admin.application"
	};

	while (!sa_application_find(name, application))
	{
		SaArgs		args = {0};
		SaOwner		owner;

		CHECK_FOR_INTERRUPTS();
		sa_check_printable("name of application", name);
		sa_arg_text(&args, name);
		sa_owner_enter(&owner);
		SPI_connect();
		sa_run(&count_applications, NULL);
		if (sa_result_int64(0, 1) >= sa_max_applications)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("application \"%s\" cannot be made: there are %d already",
							name, sa_max_applications),
					 errhint("If the name is right, raise session_admin.max_applications, or delete applications that are not used from session_admin.application.")));
		sa_run(&insert_application, &args);
		SPI_finish();
		sa_owner_leave(&owner);
	}
}

/* This application came from a dump: from now on it lives here. */
static void
settle(const char *name)
{
	static SaStatement make_mark = {.sql =
		"INSERT INTO session_admin_internal.installation DEFAULT VALUES ON CONFLICT DO NOTHING"
	};
	static SaStatement lock_application = {.sql =
		"SELECT FROM session_admin.application WHERE name = $1 FOR NO KEY UPDATE"
	};
	static SaStatement find_state = {.sql =
		"SELECT restored, restored_at FROM session_admin_internal.application_state"
		" WHERE name = $1 AND moved"
	};
	static SaStatement adopt = {.sql =

		/*
		 * a late ending is to concern what comes from a cluster that was
		 * ahead, too
		 */
		"WITH sessions AS ("
		"  UPDATE session_admin.session SET opened_xid = pg_current_xact_id()"
		"  WHERE application = $1 AND opened_xid > pg_current_xact_id()"
		"), tokens AS ("
		"  UPDATE session_admin.remember_me_token SET opened_xid = pg_current_xact_id()"
		"  WHERE application = $1 AND opened_xid > pg_current_xact_id()"
		")"
		" UPDATE session_admin.application"
		" SET home = (SELECT home FROM session_admin_internal.installation_mark) WHERE name = $1"
	};
	SaArgs		args = {0};

	sa_run(&make_mark, NULL);
	sa_arg_text(&args, name);
	sa_run(&lock_application, &args);
	/* somebody else may have done it */
	if (sa_run(&find_state, &args) > 0)
	{
		SaEnding	ending = {.reason = "restored", .ended_by = "session_admin"};
		bool		isnull;
		bool		restored = DatumGetBool(sa_result(0, 1, &isnull));

		ending.at = DatumGetTimestampTz(sa_result(0, 2, &isnull));
		if (restored)
			sa_end_generation(name, &ending);
		else
			sa_run(&adopt, &args);
	}
}

/* The same, made on first use, and settled if it came from a dump. */
void
sa_application_make(const char *name, SaApplication *application)
{
	make(name, application);
	while (application->moved)
	{
		SaOwner		owner;

		CHECK_FOR_INTERRUPTS();
		sa_owner_enter(&owner);
		SPI_connect();
		settle(name);
		SPI_finish();
		sa_owner_leave(&owner);
		sa_application_get(name, application);
	}
}

/* All of them.  The caller is connected to SPI. */
void
sa_settle_all(void)
{
	static SaStatement list_moved = {.sql =
		"SELECT name::text FROM session_admin_internal.application_state WHERE moved ORDER BY name"
	};
	uint64		n = sa_run(&list_moved, NULL);
	char	  **names = palloc((n + 1) * sizeof(char *));

	for (uint64 i = 0; i < n; i++)
		names[i] = sa_result_text(i, 1);
	for (uint64 i = 0; i < n; i++)
		settle(names[i]);
}

/*
 * Is this database in use, by applications that all live here?  If not, it may be
 * in the middle of a restore: policies may be missing, and tables that will be
 * made must not be made before.  A restore makes tables in the session that made
 * the extension, and reads applications later.  The caller is connected to SPI.
 */
SaSettlement
sa_settlement(void)
{
	static SaStatement find_state = {.sql =
		"SELECT (SELECT bool_and(NOT moved) FROM session_admin_internal.application_state),"
		" (SELECT made_by::bigint FROM session_admin_internal.installation)"
	};
	bool		unused;
	bool		settled;
	int			made_by;

	sa_run(&find_state, NULL);
	settled = DatumGetBool(sa_result(0, 1, &unused));
	made_by = (int) sa_result_int64(0, 2);
	if (unused)
		return BackendPidGetProc(made_by) == NULL ? SA_UNUSED : SA_UNSETTLED;
	return settled ? SA_SETTLED : SA_UNSETTLED;
}

/* The same, an error if there is none of this name. */
void
sa_application_get(const char *name, SaApplication *application)
{
	if (!sa_application_find(name, application))
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("application \"%s\" does not exist", name),
				 errhint("An application is made when its first session is opened.")));
}

/*
 * The number that a policy sets for this user, or else for the application, read
 * from the tables: for what is asked rarely.  The caller is connected to SPI.
 */
int64
sa_policy_number(const char *application, const char *user_name, const char *name)
{
	static SaStatement find_number = {.sql =
		"SELECT coalesce("
		" (SELECT value FROM session_admin_internal.policy"
		"  WHERE application = $1 AND user_name = $2 AND name = $3),"
		" (SELECT value FROM session_admin_internal.policy"
		"  WHERE application = $1 AND user_name IS NULL AND name = $3),"
		" (SELECT default_value FROM session_admin_internal.policy_definition WHERE name = $3))::bigint"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg_text(&args, name);
	sa_run(&find_number, &args);
	return sa_result_int64(0, 1);
}

/*
 * How durably an invalidation commits in this application; NULL: in the strictest of
 * all.
 */
SaDurability
sa_policy_durability(const char *application)
{
	static SaStatement find_strictest = {.sql =
		"SELECT EXISTS (SELECT FROM session_admin_internal.policy"
		"  WHERE name = 'invalidation_durability' AND value = 'remote_apply')"
	};
	SaApplication found;
	SaOwner		owner;
	bool		isnull;
	bool		apply;

	if (application != NULL)
		return sa_application_find(application, &found) ?
			found.invalidation_durability : SA_DURABILITY_ON;
	sa_owner_enter(&owner);
	SPI_connect();
	sa_run(&find_strictest, NULL);
	apply = DatumGetBool(sa_result(0, 1, &isnull));
	SPI_finish();
	sa_owner_leave(&owner);
	return apply ? SA_DURABILITY_APPLY : SA_DURABILITY_ON;
}

/* What is set for this user alone; NULL if nothing is. */
static const SaUserLimit *
find_user_limit(const SaApplication *application, uint64 user_key)
{
	SaUserLimit key = {.user_key = user_key};

	if (application->n_user_limits == 0 || user_key == 0)
		return NULL;
	return bsearch(&key, application->user_limits, application->n_user_limits,
				   sizeof(SaUserLimit), compare_limits);
}

/*
 * How many sessions may this user have (negative: no limit), and what happens
 * when they open one more?
 */
int64
sa_max_sessions(const SaApplication *application, uint64 user_key, int *on_session_limit)
{
	const SaUserLimit *limit = find_user_limit(application, user_key);

	*on_session_limit = limit && limit->on_session_limit ?
		limit->on_session_limit : application->on_session_limit;
	return limit && limit->max_sessions != NO_LIMIT_OF_THEIR_OWN ?
		limit->max_sessions : application->max_sessions_per_user;
}

/* How long a session of this user lives at most, as far as the policies say. */
int64
sa_absolute_timeout(const SaApplication *application, uint64 user_key)
{
	const SaUserLimit *limit = find_user_limit(application, user_key);

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
	limit = find_user_limit(application, user_key);
	return limit && limit->idle_timeout > 0 ? limit->idle_timeout : application->idle_timeout;
}

/*
 * Is a session of this generation, created and last used at these times, valid
 * now?  user_key is 0 for an anonymous one.  With an idle timeout of its own (not 0)
 * no policy limits its time.
 */
bool
sa_times_are_valid(const SaApplication *application, uint64 user_key, int64 generation,
				   TimestampTz created_at, TimestampTz last_access_at, int64 idle_timeout,
				   TimestampTz now)
{
	int64		idle = sa_idle_timeout(application, user_key, idle_timeout);
	int64		absolute = user_key ? application->absolute_timeout :
	application->anonymous_absolute_timeout;
	const SaUserLimit *limit = find_user_limit(application, user_key);

	if (limit != NULL && limit->absolute_timeout > 0)
		absolute = limit->absolute_timeout;
	if (idle_timeout != 0)
		absolute = SA_NO_TIMEOUT;

	return generation == application->generation &&
		last_access_at > now - idle &&	/* infinity is not reckoned with */
		created_at > now - absolute;
}

/* What the value of a policy may be, for the hint. */
static char *
allowed_values(const char *type, const char *lowest, const char *highest, const char *choices)
{
	if (strcmp(type, "choice") == 0)
		return psprintf("Use one of %s.", choices);
	if (strcmp(type, "interval") == 0)
		return psprintf("Use an interval from \"%s\" to \"%s\".", lowest, highest);
	if (strcmp(type, "integer") == 0)
		return psprintf("Use a number from %s to %s.", lowest, highest);
	return pstrdup("Use a list of networks, such as \"10.0.0.0/8, 192.0.2.1\".");
}

/* What is wrong with the value of a policy. */
typedef struct ValueError
{
	char	   *message;
	char	   *hint;
} ValueError;

/* Errors of an input function become ours: theirs repeat the value, however long. */
static void
value_error_callback(void *arg)
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
checked_value(const char *name, const char *value, const char *type,
			  const char *lowest, const char *highest, const char *choices)
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
	SaStatement *check = strcmp(type, "interval") == 0 ? &check_interval :
	strcmp(type, "integer") == 0 ? &check_integer :
	strcmp(type, "choice") == 0 ? &check_choice : &check_networks;
	ValueError	error = {
		.message = psprintf("\"%s\" is not a value for policy \"%s\"",
							sa_clean(value, strlen(value), 64), name),
		.hint = allowed_values(type, lowest, highest, choices)
	};
	ErrorContextCallback callback = {.callback = value_error_callback, .arg = &error};
	SaArgs		args = {0};
	bool		isnull;

	/* braces are for machines */
	if (check == &check_networks && value[strspn(value, " ")] != '{')
		value = psprintf("{%s}", value);

	sa_arg_text(&args, value);
	sa_arg_text(&args, check == &check_choice ? name : lowest);
	if (check != &check_choice)
		sa_arg_text(&args, highest);

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

/* set_policy(name, value, user_name, application) */
Datum
sa_set_policy(PG_FUNCTION_ARGS)
{
	static SaStatement find_definition = {.sql =
		"SELECT type, default_value, lowest, highest, per_user,"
		" (SELECT string_agg(format('\"%s\"', a), ', ' ORDER BY n)"
		"  FROM unnest(allowed) WITH ORDINALITY AS u (a, n))"
		" FROM session_admin_internal.policy_definition WHERE name = $1"
	};
	static SaStatement list_definitions = {.sql =
		"SELECT string_agg(format('\"%s\"', name), ', ' ORDER BY name)"
		" FROM session_admin_internal.policy_definition WHERE per_user OR NOT $1"
	};
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
	char	   *name = sa_text_or_null(fcinfo, 0);
	char	   *value = sa_text_or_null(fcinfo, 1);
	char	   *user_name = PG_ARGISNULL(2) ? NULL : sa_user_name_arg(fcinfo, 2);
	char	   *application_name = sa_application_arg(fcinfo, 3);
	SaApplication application;
	SaArgs		args = {0};
	text	   *result;
	bool		isnull;
	bool		is_new;

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name of policy must not be null")));

	SPI_connect();

	sa_arg_text(&args, name);
	if (sa_run(&find_definition, &args) == 0)
	{
		SaArgs		any = {0};

		sa_arg(&any, BOOLOID, BoolGetDatum(false), false);
		sa_run(&list_definitions, &any);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown policy \"%s\"", sa_clean(name, strlen(name), 64)),
				 errhint("Policies are %s.", sa_result_text(0, 1))));
	}
	if (user_name != NULL && !DatumGetBool(sa_result(0, 5, &isnull)))
	{
		SaArgs		per_user = {0};

		sa_arg(&per_user, BOOLOID, BoolGetDatum(true), false);
		sa_run(&list_definitions, &per_user);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("policy \"%s\" cannot be set for one user", name),
				 errhint("Those that can are %s.", sa_result_text(0, 1))));
	}
	if (value != NULL)
		value = checked_value(name, value, sa_result_text(0, 1),
							  sa_result_text(0, 3), sa_result_text(0, 4), sa_result_text(0, 6));

	/* not settled yet, so that this can still be on_restore */
	is_new = !sa_application_find(application_name, &application);
	make(application_name, &application);
	/* perhaps a slip: the policy of the one that was meant stays as it is */
	if (is_new && strcmp(application_name, sa_application) != 0)
		ereport(NOTICE,
				(errmsg("application \"%s\" was not known and has been made", application_name),
				 errhint("If that was a slip, a superuser can take it back: DELETE FROM session_admin.application WHERE name = %s.",
						 quote_literal_cstr(application_name))));
	memset(&args, 0, sizeof(args));
	sa_arg_text(&args, application_name);
	sa_arg_text(&args, user_name);
	sa_arg_text(&args, name);
	if (value == NULL)
	{
		sa_run(&delete_policy, &args);
		memset(&args, 0, sizeof(args));
		sa_arg_text(&args, application_name);
		sa_arg_text(&args, name);
		sa_run(&find_value, &args);
		value = sa_result_text(0, 1);
	}
	else
	{
		sa_arg_text(&args, value);
		sa_run(&upsert_policy, &args);
	}

	/* to where it outlives SPI_finish() */
	result = SPI_palloc(VARHDRSZ + strlen(value));
	SET_VARSIZE(result, VARHDRSZ + strlen(value));
	memcpy(VARDATA(result), value, strlen(value));
	SPI_finish();

	PG_RETURN_TEXT_P(result);
}
