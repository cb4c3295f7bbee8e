/*
 * live.c
 *	  Touches that cost no table access: they are answered from the shared table of live
 *	  sessions, which is a cache of the table session and never the truth.
 *
 * README.md in this folder has the protocol that keeps its answers right.
 */
#include "live/table.h"
#include "policy/policy.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"

PG_FUNCTION_INFO_V1(sa_live_last_access);
PG_FUNCTION_INFO_V1(sa_live_requests);

/* Keys of more sessions are not kept: everything is put in doubt instead. */
#ifndef KEYS_MAX
#define KEYS_MAX 10000
#endif

/* The row of a session changes with this transaction. */
typedef struct LiveChange
{
	SaLiveKey	key;
	bool		set_back;		/* its last access, too */
} LiveChange;

/* Any session may end. */
typedef struct LiveEverything
{
	char		unused;
} LiveEverything;

/* The key of a session. */
void
sa_live_key(SaLiveKey *key, const SaApplication *application, const uint8 *hash)
{
	key->database = MyDatabaseId;
	key->relation = application->session_relid;
	key->application = application->key;
	memcpy(key->hash, hash, SA_HASH_LEN);
}

/* Does the entry tell the time limits of its user, as they are now? */
static inline bool
live_limit_is_known(const LiveEntry *entry, const SaApplication *application)
{
	return !application->has_user_limits || entry->user_key == 0 ||
		sa_policies_are_of(entry->limit_version);
}

/*
 * Answer a touch from the shared table: true means valid, and counted.  False
 * means that the table has to be asked.  A product's idle timeout (if not 0) must be
 * the one that is known of the session.
 */
bool
sa_live_touch(const SaApplication *application, const SaLiveKey *key,
			  TimestampTz now, int64 requests, int64 idle_timeout)
{
	uint32		hash_value;
	LWLock	   *lock;
	LiveEntry  *entry;
	bool		valid = false;

	/* what this very transaction has ended, only the table tells */
	if (!sa_use_shared_memory || !sa_shmem_usable() || sa_at_end_any())
		return false;

	hash_value = live_hash(key);
	lock = live_lock_of(hash_value);

	LWLockAcquire(lock, LW_SHARED);
	entry = live_entry_find(key, hash_value);
	if (entry != NULL &&
		sa_idle_timeout_holds(entry->idle_timeout, idle_timeout) &&
		live_limit_is_known(entry, application) &&
		!sa_in_doubt(live_stripe_of(hash_value)) &&
		!sa_in_doubt(&sa_live_shared->everything) &&
		entry->epoch == pg_atomic_read_u64(&sa_live_shared->epoch))
	{
		valid = !sa_late_ended(application, entry->user_key, key->hash, entry->opened_xid) &&
			sa_times_are_valid(application, entry->user_key, &entry->limit, entry->generation,
							   entry->created_at,
							   (TimestampTz) pg_atomic_read_u64(&entry->last_access_at),
							   entry->idle_timeout, now);
		if (valid)
			live_entry_count(entry, now, requests);
	}
	LWLockRelease(lock);

	return valid;
}

/* Before a row is read, to be stored by sa_live_fill. */
void
sa_live_fill_start(LiveFill *fill, const SaLiveKey *key)
{
	fill->allowed = false;
	fill->key = *key;
	if (sa_shmem_usable() && !sa_at_end_any())
	{
		SaDoubt    *stripe = live_stripe_of(live_hash(&fill->key));

		fill->epoch = pg_atomic_read_u64(&sa_live_shared->epoch);
		fill->everything_begun = pg_atomic_read_u64(&sa_live_shared->everything.begun);
		fill->stripe_begun = pg_atomic_read_u64(&stripe->begun);
		pg_read_barrier();
		fill->allowed =
			pg_atomic_read_u64(&sa_live_shared->everything.finished) == fill->everything_begun &&
			pg_atomic_read_u64(&stripe->finished) == fill->stripe_begun;
		if (!sa_policies_version(&fill->policies_version))
			fill->policies_version = VERSION_NONE;
	}
}

/*
 * After the row was read and found valid: store it, and count.  False if the
 * shared table neither has the session nor takes it, or if this transaction wrote
 * the row.
 */
bool
sa_live_fill(LiveFill *fill, const SaSession *session, const SaApplication *application,
			 TimestampTz now, int64 requests)
{
	uint32		hash_value;
	SaDoubt    *stripe;
	LWLock	   *lock;
	LiveEntry  *entry;
	bool		found;

	if (!sa_use_shared_memory || !sa_shmem_usable() || session->written_here)
		return false;

	hash_value = live_hash(&fill->key);
	stripe = live_stripe_of(hash_value);
	lock = live_lock_of(hash_value);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = live_entry_find(&fill->key, hash_value);
	found = entry != NULL;
	if (!found)
		entry = sa_live_entry_add(&fill->key, hash_value);
	if (entry != NULL)
	{
		/* what an earlier session of this id was touched is not this one's */
		if (!found || (entry->created_at != session->created_at &&
					   entry->created_at != CREATED_CHANGED))
		{
			pg_atomic_write_u64(&entry->last_access_at, (uint64) session->last_access_at);
			pg_atomic_write_u64(&entry->written_access_at, (uint64) session->last_access_at);
			pg_atomic_write_u64(&entry->requests, 0);
			entry->created_at = session->created_at;
			entry->idle_timeout = session->idle_timeout;
			entry->epoch = EPOCH_NONE;
		}
		if (fill->allowed &&
			pg_atomic_read_u64(&stripe->begun) == fill->stripe_begun &&
			pg_atomic_read_u64(&sa_live_shared->everything.begun) == fill->everything_begun)
		{
			entry->user_key = session->user_key;
			entry->generation = session->generation;
			entry->created_at = session->created_at;
			entry->idle_timeout = session->idle_timeout;
			entry->opened_xid = session->opened_xid;
			entry->epoch = fill->epoch;
			entry->limit = session->limit;

			/*
			 * where no user has limits, none was read: the first one may have
			 * been set since the application was looked up
			 */
			entry->limit_version = application->has_user_limits ?
				fill->policies_version : VERSION_NONE;
			pg_atomic_write_u64(&entry->written_access_at, (uint64) session->last_access_at);
		}
		live_entry_count(entry, now, requests);
	}
	LWLockRelease(lock);

	return entry != NULL;
}

/* Before commit: what becomes visible to others from now on is in doubt. */
static void
live_doubt(const void *key)
{
	if (sa_live_shared != NULL)
		sa_doubt_begin(live_stripe_of(live_hash(key)));
}

/* It has committed and the entry obeys, or it has aborted. */
static void
live_settled(const SaLiveKey *key)
{
	if (sa_live_shared != NULL)
		sa_doubt_finish(live_stripe_of(live_hash(key)));
}

/* The end of a session has committed, and all can see it. */
static void
live_remove(const SaLiveKey *key)
{
	uint32		hash_value;
	LWLock	   *lock;
	LiveEntry  *entry;

	if (sa_live_shared == NULL)
		return;

	hash_value = live_hash(key);
	lock = live_lock_of(hash_value);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = live_entry_find(key, hash_value);
	if (entry != NULL)
		sa_live_entry_remove(entry);
	LWLockRelease(lock);
}

/*
 * The change of a row has committed: everything but the touches is read from it again. If
 * it has set back the last access, a later one that is known here is forgotten.
 */
static void
live_reread(const LiveChange *change)
{
	uint32		hash_value;
	LWLock	   *lock;
	LiveEntry  *entry;

	if (change->set_back)
		sa_unwritten_set_back(&change->key);
	if (sa_live_shared == NULL)
		return;

	hash_value = live_hash(&change->key);
	lock = live_lock_of(hash_value);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = live_entry_find(&change->key, hash_value);
	if (entry != NULL)
	{
		entry->epoch = EPOCH_NONE;
		entry->created_at = CREATED_CHANGED;
		if (change->set_back)
		{
			pg_atomic_write_u64(&entry->last_access_at, 0);
			pg_atomic_write_u64(&entry->written_access_at, 0);
		}
	}
	LWLockRelease(lock);
}

static void
live_ended_after(const void *key, bool committed)
{
	if (committed)
	{
		live_remove(key);
		sa_test_point("removed");
	}
	live_settled(key);
}

static void
live_changed_after(const void *change, bool committed)
{
	if (committed)
	{
		live_reread(change);
		sa_test_point("removed");
	}
	live_settled(&((const LiveChange *) change)->key);
}

static void
live_everything_doubt(pg_attribute_unused() const void *item)
{
	if (sa_live_shared != NULL)
		sa_doubt_begin(&sa_live_shared->everything);
}

static void
live_everything_after(pg_attribute_unused() const void *item, bool committed)
{
	if (sa_live_shared == NULL)
		return;
	if (committed)
	{
		pg_atomic_fetch_add_u64(&sa_live_shared->epoch, 1);
		sa_test_point("removed");
	}
	sa_doubt_finish(&sa_live_shared->everything);
}

/* NOTIFY cannot be prepared, and whether somebody is logged out cannot be left open. */
#define ENDED_REFUSAL \
	.refuses_prepare = "ended sessions or revoked remember-me tokens", \
	.refusal_hint = "Commit it instead, or end the sessions in a transaction of their own.", \
	.refusal_rank = 2

static const SaAtEndKind ended_kind = {
	.size = sizeof(SaLiveKey),
	.changes_validity = true,
	.before = live_doubt,
	.after = live_ended_after,
	ENDED_REFUSAL
};

static const SaAtEndKind changed_kind = {
	.size = sizeof(LiveChange),
	.changes_validity = true,
	.before = live_doubt,		/* the key is its first member */
	.after = live_changed_after,
	.refuses_prepare = "changed sessions",
	.refusal_hint = "Commit it instead, or change the sessions in a transaction of their own.",
	.refusal_rank = 3
};

static const SaAtEndKind everything_kind = {
	.size = sizeof(LiveEverything),
	.changes_validity = true,
	.before = live_everything_doubt,
	.after = live_everything_after,
	ENDED_REFUSAL
};

/* Add this, or that everything changes if it would be too many. */
static void
live_at_end_add(const SaAtEndKind *kind, const void *item)
{
	LiveEverything everything = {0};

	if (sa_at_end_changes() < KEYS_MAX)
		sa_at_end_add(kind, item);
	else if (sa_at_end_last(&everything_kind) == NULL)
		sa_at_end_add(&everything_kind, &everything);
}

/* This session ends with this transaction. */
void
sa_live_ended(const SaLiveKey *key)
{
	live_at_end_add(&ended_kind, key);
}

/* Its row changes with this transaction; perhaps its last access is set back, too. */
void
sa_live_changed(const SaLiveKey *key, bool set_back)
{
	LiveChange	change = {.key = *key, .set_back = set_back};

	live_at_end_add(&changed_kind, &change);
}

/* Requests and last access that the table does not tell yet. */
void
sa_live_read(const SaLiveKey *key, TimestampTz *last_access_at, int64 *requests)
{
	sa_unwritten_read(key, last_access_at, requests);

	if (sa_shmem_usable())
	{
		uint32		hash_value = live_hash(key);
		LWLock	   *lock = live_lock_of(hash_value);
		LiveEntry  *entry;

		LWLockAcquire(lock, LW_SHARED);
		entry = live_entry_find(key, hash_value);
		if (entry != NULL)
		{
			TimestampTz at = (TimestampTz) pg_atomic_read_u64(&entry->last_access_at);

			*last_access_at = Max(*last_access_at, at);
			*requests += (int64) pg_atomic_read_u64(&entry->requests);
		}
		LWLockRelease(lock);
	}
}

/* The arguments (session_hash bytea, application text); false: no such application. */
static bool
live_read_args(FunctionCallInfo fcinfo, TimestampTz *last_access_at, int64 *requests)
{
	SaApplication application;
	uint8		hash[SA_HASH_LEN];
	SaLiveKey	key;

	sa_session_hash_from_datum(PG_GETARG_DATUM(0), BYTEAOID, hash);
	if (!sa_application_find(sa_application_arg(fcinfo, 1), &application))
		return false;
	sa_live_key(&key, &application, hash);
	sa_live_read(&key, last_access_at, requests);
	return true;
}

/* live_last_access(session_hash bytea, application text) */
Datum
sa_live_last_access(PG_FUNCTION_ARGS)
{
	TimestampTz last_access_at;
	int64		requests;

	if (!live_read_args(fcinfo, &last_access_at, &requests) || last_access_at == DT_NOBEGIN)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(last_access_at);
}

/* live_requests(session_hash bytea, application text) */
Datum
sa_live_requests(PG_FUNCTION_ARGS)
{
	TimestampTz last_access_at;
	int64		requests;

	if (!live_read_args(fcinfo, &last_access_at, &requests))
		PG_RETURN_NULL();
	PG_RETURN_INT64(requests);
}

void
sa_live_kinds_init(void)
{
	sa_at_end_register(&ended_kind);
	sa_at_end_register(&changed_kind);
	sa_at_end_register(&everything_kind);
	sa_at_database_drop(&everything_kind);
}
