/*
 * application.c
 *	  What holds for an application: its generation and its policies, cached until they
 *	  change.
 *
 * README.md in this folder says how a backend learns of a change in time, and when it
 * may believe its cache.
 */
#include "policy/load.h"

#include "access/transam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(sa_policy_changed);

/*
 * An application in the cache, with a context for what it points to.  Copies are handed
 * out, so that the context lives until the end of the transaction in which the cache is
 * emptied.
 */
typedef struct CachedApplication
{
	SaApplication application;	/* its name is the key */
	MemoryContext lists;		/* NULL: it points to nothing */
} CachedApplication;

/* A transaction has changed generations or policies. */
typedef struct PolicyChange
{
	Oid			relation;		/* the signal */
	bool		of_policies;	/* the table policy has changed, too */
} PolicyChange;

/* What is counted of the changes that may be visible. */
typedef struct PolicyShared
{
	SaDoubt		any;
	SaDoubt		policies;		/* those of the table policy */
} PolicyShared;

void		(*sa_application_loaded_hook) (void) = NULL;

static HTAB *cache = NULL;
static CachedApplication *last_found = NULL;
static bool cache_valid = false;
static bool cache_ready = false;	/* emptied to the end: no error came in
									 * between */
static Oid	signal_relid = InvalidOid;
static Oid	session_relid = InvalidOid;

/* How often the cache was emptied. */
static uint64 policies_read = 0;

/* Is there a change that may be visible, and of which no message was sent yet? */
static PolicyShared *shared = NULL; /* NULL if not preloaded */

static bool
applications_in_doubt(void)
{
	return shared != NULL && sa_in_doubt(&shared->any);
}

static void
cache_relcache_callback(pg_attribute_unused() Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == signal_relid)
		cache_valid = false;
}

/* Tell the other backends of a change.  Runs after commit: it cannot fail. */
static void
policy_change_send(const PolicyChange *change)
{
	SharedInvalidationMessage message = {0};

	message.rc.id = SHAREDINVALRELCACHE_ID;
	message.rc.dbId = MyDatabaseId;
	message.rc.relId = change->relation;
	SendSharedInvalidMessages(&message, 1);
}

/* Before commit: what may become visible from now on is in doubt. */
static void
policy_change_before(const void *item)
{
	if (shared == NULL)
		return;
	sa_doubt_begin(&shared->any);
	if (((const PolicyChange *) item)->of_policies)
		sa_doubt_begin(&shared->policies);
}

/* All backends are sent word of it, or it has aborted. */
static void
policy_change_after(const void *item, bool committed)
{
	if (committed)
	{
		policy_change_send(item);
		sa_test_point("told");
	}
	if (shared == NULL)
		return;
	sa_doubt_finish(&shared->any);
	if (((const PolicyChange *) item)->of_policies)
		sa_doubt_finish(&shared->policies);
}

/* A new application changes nothing that anybody has read. */
static const SaAtEndKind new_application_kind = {
	.size = sizeof(PolicyChange),
	.changes_validity = true,
	.before = policy_change_before,
	.after = policy_change_after
};

/* Whoever commits a prepared transaction would not count itself. */
static const SaAtEndKind policy_change_kind = {
	.size = sizeof(PolicyChange),
	.changes_validity = true,
	.before = policy_change_before,
	.after = policy_change_after,
	.refuses_prepare = "changed policies or applications",
	.refusal_hint = "Commit it instead, or change them in a transaction of their own.",
	.refusal_rank = 6
};

/* A database is dropped: its number, and those of its tables, may be used again. */
static void
policy_dropped_before(pg_attribute_unused() const void *item)
{
	if (shared != NULL)
		sa_doubt_begin(&shared->any);
}

static void
policy_dropped_after(pg_attribute_unused() const void *item, pg_attribute_unused() bool committed)
{
	if (shared != NULL)
		sa_doubt_finish(&shared->any);
}

static const SaAtEndKind policy_dropped_kind = {
	.before = policy_dropped_before,
	.after = policy_dropped_after
};

/*
 * Trigger on application, policy, probe_rule, late_ending, and on what these refer to: tell every backend, once
 * this transaction has committed.
 */
Datum
sa_policy_changed(PG_FUNCTION_ARGS)
{
	const TriggerData *trigger = (const TriggerData *) fcinfo->context;
	PolicyChange change;
	const SaAtEndKind *kind = &policy_change_kind;
	const PolicyChange *last;
	Oid			table;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"policy_changed\" was not called by trigger manager")));

	change.relation = sa_relation(SA_TABLE_POLICY_SIGNAL);
	table = RelationGetRelid(trigger->tg_relation);
	change.of_policies = table == sa_relation(SA_TABLE_POLICY);
	if (table == sa_relation(SA_TABLE_APPLICATION) && TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		kind = &new_application_kind;
	last = sa_at_end_last(kind);
	CacheInvalidateRelcacheByRelid(change.relation);
	if (last == NULL || last->relation != change.relation ||
		(change.of_policies && !last->of_policies))
		sa_at_end_add(kind, &change);
	PG_RETURN_POINTER(NULL);
}

/*
 * How many changes have begun, if none is under way: what is read from now on is no older
 * than the last of them.
 */
static bool
changes_version(SaDoubt *changes, uint64 *version)
{
	/* finished is read first, as in sa_in_doubt() */
	uint64		finished = pg_atomic_read_u64(&changes->finished);

	pg_read_barrier();
	*version = pg_atomic_read_u64(&changes->begun);
	return *version == finished;
}

/*
 * What tells the policies of users that are read from now on from those after a later
 * change; false if a change is under way.
 */
bool
sa_policies_version(uint64 *version)
{
	return changes_version(&shared->policies, version);
}

/* Has no change even begun to commit since policies had this version? */
bool
sa_policies_are_of(uint64 version)
{
	return pg_atomic_read_u64(&shared->policies.begun) == version;
}

/*
 * Wait until every backend has been told of the generations that are visible now:
 * a transaction gives up the lock on its id after that.  The caller is connected
 * to SPI.
 */
void
sa_policy_wait_until_told(void)
{
	static SaStatement last_changes = {.sql =
		"SELECT DISTINCT xmin FROM session_admin.application"
	};
	uint64		rows;

	if (sa_shmem_usable())
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

/*
 * Read an application, or take what another backend has read since the last change. What
 * this transaction itself has written may abort, and is no matter of others.
 */
static bool
application_read_or_copy(SaApplication *application, MemoryContext lists)
{
	uint64		version = 0;
	bool		shares = sa_shmem_usable() && changes_version(&shared->any, &version);

	if (shares && !sa_at_end_any() &&
		sa_policy_copy_get(application, signal_relid, version))
		return true;
	if (!sa_application_read(application, lists))
		return false;
	if (shares && !TransactionIdIsValid(GetTopTransactionIdIfAny()))
		sa_policy_copy_put(application, signal_relid, version);
	return true;
}

/* Read one application into the cache; false if there is none of this name. */
static bool
application_load(const char *name)
{
	SaApplication loaded = {0};
	MemoryContext reading = AllocSetContextCreate(CurrentMemoryContext,
												  "session_admin reads policies",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(reading);
	MemoryContext lists;
	bool		found;

	strlcpy(loaded.name, name, sizeof(loaded.name));
	loaded.key = sa_application_key(name);
	if (sa_application_loaded_hook != NULL)
		sa_application_loaded_hook();

	/* the reader's until all is read: an error frees it */
	lists = AllocSetContextCreate(reading, "session_admin application", ALLOCSET_SMALL_SIZES);
	found = application_read_or_copy(&loaded, lists);
	/* a copy has those of another backend */
	loaded.session_relid = session_relid;
	loaded.policies_read = policies_read;
	if (found)
	{
		CachedApplication *entry = hash_search(cache, name, HASH_ENTER, NULL);

		entry->application = loaded;
		entry->lists = NULL;
		if (loaded.trusted_proxies != NULL || loaded.probe_rules != NULL ||
			loaded.late_endings != NULL)
		{
			MemoryContextSetParent(lists, CacheMemoryContext);
			entry->lists = lists;
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(reading);
	return found;
}

/* Empty the cache, and look up the tables that it depends on. */
static void
cache_reset(void)
{
	HASH_SEQ_STATUS status;
	CachedApplication *entry;

	if (cache == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = SA_NAME_MAX + 1;
		ctl.entrysize = sizeof(CachedApplication);
		ctl.hcxt = CacheMemoryContext;
		cache = hash_create("session_admin policies", 16, &ctl,
							HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}

	cache_ready = false;
	last_found = NULL;
	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		/* copies of this entry may be in use until the end of the transaction */
		if (entry->lists != NULL)
			MemoryContextSetParent(entry->lists, TopTransactionContext);
		(void) hash_search(cache, entry->application.name, HASH_REMOVE, NULL);
	}
	policies_read++;

	signal_relid = sa_relation(SA_TABLE_POLICY_SIGNAL);
	session_relid = sa_relation(SA_TABLE_SESSION);
	cache_ready = true;
}

/* The application in the cache, where it is read into if need be; NULL if there is none. */
static SaApplication *
application_find(const char *name)
{
	CachedApplication *entry;

	/*
	 * look at this first: a change that is not in doubt any more has been
	 * sent
	 */
	if (applications_in_doubt())
		cache_valid = false;
	AcceptInvalidationMessages();
	for (;;)
	{
		if (cache_valid && cache_ready)
		{
			/* nearly always the same application asks again */
			if (last_found != NULL && strcmp(last_found->application.name, name) == 0)
				return &last_found->application;
			entry = hash_search(cache, name, HASH_FIND, NULL);
			if (entry != NULL)
			{
				last_found = entry;
				return &entry->application;
			}
		}
		else
		{
			/* a change that comes from here on makes the cache invalid again */
			cache_valid = true;
			cache_reset();
		}

		CHECK_FOR_INTERRUPTS();
		if (!application_load(name))
			return NULL;
	}
}

/*
 * Tell what holds for the application; false if there is none of this name.
 * *application is a copy; what it points to lives until the end of the transaction.
 */
bool
sa_application_find(const char *name, SaApplication *application)
{
	SaApplication *entry = application_find(name);

	if (entry == NULL)
		return false;
	*application = *entry;
	return true;
}

/* Tell what holds for the application; an error if there is none of this name. */
void
sa_application_get(const char *name, SaApplication *application)
{
	if (!sa_application_find(name, application))
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("application \"%s\" does not exist", name),
				 errhint("An application is made when its first session is opened.")));
}

/* Tell what holds for the application, whose row is inserted if there is none of this name. */
void
sa_application_insert(const char *name, SaApplication *application)
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

/*
 * The number that a policy sets for this user, or else for the application. It is not
 * cached, as it is rarely needed. The caller is connected to SPI.
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

static void
policy_shared_start(void *memory, pg_attribute_unused() LWLockPadded *locks, bool found)
{
	shared = memory;
	if (found)
		return;
	sa_doubt_init(&shared->any);
	sa_doubt_init(&shared->policies);
}

static Size
policy_shared_size(void)
{
	return sizeof(PolicyShared);
}

/* The cache, and the shared memory that goes with it. */
void
sa_application_init(void)
{
	static const SaShmemPart part = {
		.name = "session_admin applications",
		.size = policy_shared_size,
		.start = policy_shared_start
	};

	CacheRegisterRelcacheCallback(cache_relcache_callback, (Datum) 0);
	sa_shmem_add(&part);
	sa_at_end_register(&new_application_kind);
	sa_at_end_register(&policy_change_kind);
	sa_at_end_register(&policy_dropped_kind);
	sa_at_database_drop(&policy_dropped_kind);
}
