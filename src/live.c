/*
 * live.c
 *	  Touches that cost no table access: the shared table of live sessions.
 *
 * Preloaded, a table in shared memory keeps of each session what decides whether
 * it is valid, and counts its requests.  It is a cache of the table session:
 * filled by the first touch, and never the truth.  Where it does not answer (not
 * preloaded, full, on a standby, or because an answer is in doubt), the table is
 * asked with the latest snapshot, and requests are counted in this backend.
 *
 * Coherence.  Once an invalidation is visible to anybody, no touch that starts
 * later may accept what it ended.  (Not only once its commit has returned: a node
 * may have been told of it by then, and would keep what it is answered.)
 *
 * 1. A whole generation: each touch compares the entry's generation with that
 *	  of the application as policy.c knows it.  Other backends are told of the
 *	  change by a relcache invalidation, which PostgreSQL sends some time after it
 *	  became visible.  So who changes generations is counted as started before
 *	  the commit, sends that message itself as soon as the change is visible, and
 *	  then is counted as finished.  A backend that sees more started than finished
 *	  reads generations from their table; else what is visible has been sent, and
 *	  is there when it accepts messages next.
 *
 * 2. Rows that left the table.  The trigger gives their keys to pending.c.  Each
 *	  key belongs to one of a fixed number of slots.  Before the transaction
 *	  commits, it counts itself as started in the slots of its keys; after it
 *	  became visible, it removes the entries of its keys, and then counts itself
 *	  as finished; after an abort it only counts itself as finished.  A slot in
 *	  which more are started than finished is in doubt: no touch is answered from
 *	  its entries.
 *
 *	  A touch holds the lock of the entry's partition while it finds the entry and
 *	  then looks at the slot.  If it is not in doubt, then either the transaction
 *	  had not started there yet, so that it had not committed when the touch was
 *	  answered; or it had finished, but then the entry was removed before, and
 *	  the touch would not have found it: removing takes the lock exclusively.
 *
 * 3. Fills.  A backend may read the row before an invalidation commits, and
 *	  store it after the entry was removed.  So it notes the slot's count of
 *	  started transactions before it takes the snapshot, and stores nothing if
 *	  the slot is in doubt then, or if (under the partition's exclusive lock) the
 *	  count has changed since.  Who starts after that check has not committed
 *	  yet, and removes the new entry when it has.
 *	  A row that this very transaction wrote is not stored either: it may abort.
 *	  Nor does it count in the shared table, which may have an earlier session of
 *	  that id: its touches are written to the row.
 *	  What else may not be stored is entered without an epoch, as one that counts
 *	  but answers nobody.
 *
 * 4. A transaction that ends more sessions than pending.c wants to keep keys of
 *	  puts everything in doubt, and after commit starts a new epoch: an entry of
 *	  an older one has to be read from the table again.
 *
 * An invalidation is never prepared (PREPARE TRANSACTION is refused), and a
 * backend that is terminated aborts, so that every start gets its finish.  A
 * backend that is killed takes the shared memory with it.
 *
 * Flushed requests are taken from the entry before the flush commits, and put back
 * if it aborts.  Until then it has the row locked: who archives the session waits,
 * and counts them once.
 *
 * Locks.  Partition locks protect finding, adding and removing entries; fields
 * that change under a shared lock are atomic.  Nothing under these locks throws,
 * allocates or waits.
 */
#include "session_admin.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_live_last_access);
PG_FUNCTION_INFO_V1(sa_live_requests);
PG_FUNCTION_INFO_V1(sa_live_status);

#define PARTITIONS		64
#define SLOTS			4096
#define EPOCH_NONE		PG_UINT64_MAX	/* of an entry that has to be read
										 * again */
#define CREATED_CHANGED	DT_NOBEGIN	/* of an entry whose row has changed */
#define CHAIN_MAX		64		/* no bucket has as many entries */
#define BUCKETS_MAX		1000	/* in one go, while all locks are held */
#define TALLY_MAX		20000	/* entries that live_status() looks at */

/*
 * With more sessions than this counted in one backend, start anew: most of them
 * have ended meanwhile, and of the others some requests are not counted.
 */
#define UNWRITTEN_MAX	10000

/* Transactions that have started and finished ending what belongs here. */
typedef struct Slot
{
	pg_atomic_uint64 started;
	pg_atomic_uint64 finished;
} Slot;

typedef struct Shared
{
	Slot		everything;
	Slot		applications;	/* those that change what holds for one */
	pg_atomic_uint64 epoch;
	Slot		slots[SLOTS];
} Shared;

typedef struct Entry
{
	SaLiveKey	key;
	/* these change only under the exclusive lock */
	uint64		user_key;
	int64		generation;
	TimestampTz created_at;
	int64		idle_timeout;	/* see SaSession */
	uint64		opened_xid;
	uint64		epoch;
	/* and these also under the shared one */
	pg_atomic_uint64 last_access_at;
	pg_atomic_uint64 requests;	/* that the table does not count yet */
} Entry;

/* Counted in this backend only, where the shared table does not. */
typedef struct Unwritten
{
	SaLiveKey	key;
	TimestampTz last_access_at;
	int64		requests;
} Unwritten;

static Shared *shared = NULL;
static LWLockPadded *locks = NULL;
static HTAB *entries = NULL;
static HTAB *unwritten = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* The key's hash value: a SHA-256 has bits to spare. */
static uint32
hash_key(const void *key, pg_attribute_unused() Size keysize)
{
	uint32		value;

	memcpy(&value, ((const SaLiveKey *) key)->hash, sizeof(value));
	return value ^ (uint32) ((const SaLiveKey *) key)->application;
}

static LWLock *
partition_lock(uint32 hash_value)
{
	return &locks[hash_value % PARTITIONS].lock;
}

static Slot *
slot_of(uint32 hash_value)
{
	return &shared->slots[(hash_value / PARTITIONS) % SLOTS];
}

static bool
in_doubt(Slot *slot)
{
	/* finished is read first: a start in between is seen, a finish is not */
	uint64		finished = pg_atomic_read_u64(&slot->finished);

	pg_read_barrier();
	return pg_atomic_read_u64(&slot->started) != finished;
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(add_size(MAXALIGN(sizeof(Shared)),
									hash_estimate_size(sa_max_live_sessions, sizeof(Entry))));
	RequestNamedLWLockTranche("session_admin", PARTITIONS);
}

static void
shmem_startup(void)
{
	HASHCTL		ctl = {0};
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("session_admin", sizeof(Shared), &found);
	if (!found)
	{
		pg_atomic_init_u64(&shared->everything.started, 0);
		pg_atomic_init_u64(&shared->everything.finished, 0);
		pg_atomic_init_u64(&shared->applications.started, 0);
		pg_atomic_init_u64(&shared->applications.finished, 0);
		pg_atomic_init_u64(&shared->epoch, 0);
		for (int i = 0; i < SLOTS; i++)
		{
			pg_atomic_init_u64(&shared->slots[i].started, 0);
			pg_atomic_init_u64(&shared->slots[i].finished, 0);
		}
	}

	ctl.keysize = sizeof(SaLiveKey);
	ctl.entrysize = sizeof(Entry);
	ctl.hash = hash_key;
	ctl.num_partitions = PARTITIONS;
	entries = ShmemInitHash("session_admin live sessions",
							sa_max_live_sessions, sa_max_live_sessions, &ctl,
							HASH_ELEM | HASH_FUNCTION | HASH_PARTITION | HASH_FIXED_SIZE);
	LWLockRelease(AddinShmemInitLock);

	locks = GetNamedLWLockTranche("session_admin");
	if (!found)
		sa_restart_init();
}

/* Ask for the shared memory, if preloaded. */
void
sa_live_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/*
 * Is there a shared table that can be trusted?  On a standby there is not: what
 * the primary ends comes as WAL, which tells nobody here.
 */
bool
sa_live_enabled(void)
{
	return shared != NULL && !RecoveryInProgress();
}

/* The key of a session. */
void
sa_live_key(SaLiveKey *key, const SaApplication *application, const uint8 *hash)
{
	key->database = MyDatabaseId;
	key->relation = application->session_relid;
	key->application = application->key;
	memcpy(key->hash, hash, SA_HASH_LEN);
}

/* Move a time forward, never backward. */
static void
advance(pg_atomic_uint64 *at, TimestampTz now)
{
	uint64		seen = pg_atomic_read_u64(at);

	while ((TimestampTz) seen < now &&
		   !pg_atomic_compare_exchange_u64(at, &seen, (uint64) now))
		;
}

static void
count_requests(Entry *entry, TimestampTz now, int64 requests)
{
	advance(&entry->last_access_at, now);
	if (requests != 0)
		pg_atomic_fetch_add_u64(&entry->requests, requests);
}

/*
 * Answer a touch from the shared table: true means valid, and counted.  False
 * means that the table has to be asked.  A product's idle timeout (if not 0) must be
 * the one that is known of the session.
 */
bool
sa_live_touch(const SaApplication *application, const uint8 *hash,
			  TimestampTz now, int64 requests, int64 idle_timeout)
{
	SaLiveKey	key;
	uint32		hash_value;
	LWLock	   *lock;
	Entry	   *entry;
	bool		valid = false;

	/* who has ended sessions in this very transaction sees it in the table */
	if (!sa_use_shared_memory || !sa_live_enabled() || sa_pending_any())
		return false;

	sa_live_key(&key, application, hash);
	hash_value = hash_key(&key, sizeof(key));
	lock = partition_lock(hash_value);

	LWLockAcquire(lock, LW_SHARED);
	entry = hash_search_with_hash_value(entries, &key, hash_value, HASH_FIND, NULL);
	if (entry != NULL &&
		sa_idle_timeout_holds(entry->idle_timeout, idle_timeout) &&
		!in_doubt(slot_of(hash_value)) &&
		!in_doubt(&shared->everything) &&
		entry->epoch == pg_atomic_read_u64(&shared->epoch))
	{
		valid = !sa_late_ended(application, entry->user_key, hash, entry->opened_xid) &&
			sa_times_are_valid(application, entry->user_key, entry->generation,
							   entry->created_at,
							   (TimestampTz) pg_atomic_read_u64(&entry->last_access_at),
							   entry->idle_timeout, now);
		if (valid)
			count_requests(entry, now, requests);
	}
	LWLockRelease(lock);

	return valid;
}

/* Before a row is read, to be stored by sa_live_fill. */
void
sa_live_fill_start(SaLiveFill *fill, const SaApplication *application, const uint8 *hash)
{
	fill->allowed = false;
	sa_live_key(&fill->key, application, hash);
	if (sa_live_enabled() && !sa_pending_any())
	{
		Slot	   *slot = slot_of(hash_key(&fill->key, sizeof(SaLiveKey)));

		fill->epoch = pg_atomic_read_u64(&shared->epoch);
		fill->everything_started = pg_atomic_read_u64(&shared->everything.started);
		fill->slot_started = pg_atomic_read_u64(&slot->started);
		pg_read_barrier();
		fill->allowed =
			pg_atomic_read_u64(&shared->everything.finished) == fill->everything_started &&
			pg_atomic_read_u64(&slot->finished) == fill->slot_started;
	}
}

/*
 * After the row was read and found valid: store it, and count.  False if the
 * shared table neither has the session nor takes it, or if this transaction wrote
 * the row.
 */
bool
sa_live_fill(SaLiveFill *fill, const SaSession *session, TimestampTz now, int64 requests)
{
	uint32		hash_value;
	Slot	   *slot;
	LWLock	   *lock;
	Entry	   *entry;
	bool		found;

	if (!sa_use_shared_memory || !sa_live_enabled() || session->written_here)
		return false;

	hash_value = hash_key(&fill->key, sizeof(SaLiveKey));
	slot = slot_of(hash_value);
	lock = partition_lock(hash_value);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = hash_search_with_hash_value(entries, &fill->key, hash_value,
										HASH_ENTER_NULL, &found);
	if (entry != NULL)
	{
		/* what an earlier session of this id was touched is not this one's */
		if (!found || (entry->created_at != session->created_at &&
					   entry->created_at != CREATED_CHANGED))
		{
			pg_atomic_init_u64(&entry->last_access_at, (uint64) session->last_access_at);
			pg_atomic_init_u64(&entry->requests, 0);
			entry->created_at = session->created_at;
			entry->idle_timeout = session->idle_timeout;
			entry->epoch = EPOCH_NONE;
		}
		if (fill->allowed &&
			pg_atomic_read_u64(&slot->started) == fill->slot_started &&
			pg_atomic_read_u64(&shared->everything.started) == fill->everything_started)
		{
			entry->user_key = session->user_key;
			entry->generation = session->generation;
			entry->created_at = session->created_at;
			entry->idle_timeout = session->idle_timeout;
			entry->opened_xid = session->opened_xid;
			entry->epoch = fill->epoch;
		}
		count_requests(entry, now, requests);
	}
	LWLockRelease(lock);

	return entry != NULL;
}

/* What this backend counts, for a session that the shared table does not have. */
static Unwritten *
find_unwritten(const SaLiveKey *key, HASHACTION action)
{
	Unwritten  *entry;
	bool		found;

	if (unwritten != NULL && action == HASH_ENTER &&
		hash_get_num_entries(unwritten) >= UNWRITTEN_MAX)
	{
		hash_destroy(unwritten);
		unwritten = NULL;
	}
	if (unwritten == NULL)
	{
		HASHCTL		ctl = {0};

		if (action != HASH_ENTER)
			return NULL;
		ctl.keysize = sizeof(SaLiveKey);
		ctl.entrysize = sizeof(Unwritten);
		ctl.hcxt = TopMemoryContext;
		unwritten = hash_create("session_admin touches", 128, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(unwritten, key, action, &found);
	if (action == HASH_ENTER && !found)
	{
		entry->last_access_at = 0;
		entry->requests = 0;
	}
	return entry;
}

/* pending.c: this transaction is about to commit the end of a session, or of any (NULL). */
void
sa_live_end_start(const SaLiveKey *key)
{
	if (shared == NULL)
		return;
	pg_atomic_fetch_add_u64(key ? &slot_of(hash_key(key, sizeof(SaLiveKey)))->started :
							&shared->everything.started, 1);
}

/* It has committed, and all can see it. */
void
sa_live_end_commit(const SaLiveKey *key, bool row_remains)
{
	uint32		hash_value;
	LWLock	   *lock;
	Entry	   *entry;

	if (key != NULL && row_remains)
	{
		Unwritten  *mine = find_unwritten(key, HASH_FIND);

		if (mine != NULL)
			mine->last_access_at = DT_NOBEGIN;
	}
	if (shared == NULL)
		return;
	if (key == NULL)
	{
		pg_atomic_fetch_add_u64(&shared->epoch, 1);
		return;
	}

	hash_value = hash_key(key, sizeof(SaLiveKey));
	lock = partition_lock(hash_value);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = hash_search_with_hash_value(entries, key, hash_value,
										row_remains ? HASH_FIND : HASH_REMOVE, NULL);
	if (entry != NULL && row_remains)
	{
		/* all but the requests is read from the row again */
		entry->epoch = EPOCH_NONE;
		entry->created_at = CREATED_CHANGED;
		pg_atomic_write_u64(&entry->last_access_at, 0);
	}
	LWLockRelease(lock);
}

/* It has committed and we have obeyed, or it has aborted. */
void
sa_live_end_finish(const SaLiveKey *key)
{
	if (shared == NULL)
		return;
	pg_atomic_fetch_add_u64(key ? &slot_of(hash_key(key, sizeof(SaLiveKey)))->finished :
							&shared->everything.finished, 1);
}

/* pending.c: this transaction is about to commit a change of generations or policies. */
void
sa_live_applications_start(void)
{
	if (shared != NULL)
		pg_atomic_fetch_add_u64(&shared->applications.started, 1);
}

/* All backends have been sent word of it, or it has aborted. */
void
sa_live_applications_finish(void)
{
	if (shared != NULL)
		pg_atomic_fetch_add_u64(&shared->applications.finished, 1);
}

/* Is there a change that may be visible, and of which no word was sent yet? */
bool
sa_live_applications_in_doubt(void)
{
	return shared != NULL && in_doubt(&shared->applications);
}

/*
 * At most n of the entries that are wanted; *position says where to go on, and
 * is 0 at the beginning and again at the end.  All locks are held meanwhile, so
 * that no entry comes or goes, but only shared: touches go on.  Fills and removals
 * wait, but never for more than BUCKETS_MAX buckets.  What they do between two
 * calls cannot confuse a pass: the table never grows, so that each key stays in its
 * bucket, and each bucket is read once, and whole.
 */
static int
scan(SaLiveTouch *touches, int n, uint32 *position,
	 bool (*wanted) (const Entry *entry, void *arg), void *arg)
{
	HASH_SEQ_STATUS status;
	Entry	   *entry;
	uint32		first = *position;
	int			found = 0;

	hash_seq_init(&status, entries);
	status.curBucket = first;
	*position = 0;
	for (int i = 0; i < PARTITIONS; i++)
		LWLockAcquire(&locks[i].lock, LW_SHARED);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (wanted(entry, arg))
		{
			touches[found].key = entry->key;
			touches[found].requests = (int64) pg_atomic_read_u64(&entry->requests);
			touches[found].last_access_at = (TimestampTz) pg_atomic_read_u64(&entry->last_access_at);
			found++;
		}

		/*
		 * stop at the end of a bucket's chain: the next call starts at a
		 * bucket
		 */
		if (found == n ||
			(status.curEntry == NULL &&
			 (found >= n - CHAIN_MAX || status.curBucket - first >= BUCKETS_MAX)))
		{
			*position = status.curBucket;
			break;
		}
	}
	for (int i = 0; i < PARTITIONS; i++)
		LWLockRelease(&locks[i].lock);
	if (entry != NULL)
		hash_seq_term(&status);

	return found;
}

static bool
is_unflushed(const Entry *entry, void *relation)
{
	return entry->key.database == MyDatabaseId &&
		entry->key.relation == *(const Oid *) relation &&
		pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->requests)) != 0;
}

/*
 * Requests that the table session (this one) does not count yet.  There may be
 * more, although there was none, until *position is 0 again.
 */
int
sa_live_unflushed(SaLiveTouch *touches, int n, uint32 *position, Oid relation)
{
	if (!sa_live_enabled())
		return 0;
	return scan(touches, n, position, is_unflushed, &relation);
}

/* With InvalidOid, of any database. */
static bool
is_unflushed_of(const Entry *entry, void *database)
{
	return (*(const Oid *) database == InvalidOid ||
			*(const Oid *) database == entry->key.database) &&
		pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->requests)) != 0;
}

/* The same of all databases, for restart.c. */
int
sa_live_unflushed_anywhere(SaLiveTouch *touches, int n, uint32 *position)
{
	Oid			any = InvalidOid;

	return scan(touches, n, position, is_unflushed_of, &any);
}

/* Are there any of this database? */
bool
sa_live_any_unflushed(Oid database)
{
	SaLiveTouch touches[CHAIN_MAX + 1];
	uint32		position = 0;
	int			n;

	if (!sa_live_enabled())
		return false;
	do
	{
		CHECK_FOR_INTERRUPTS();
		n = scan(touches, lengthof(touches), &position, is_unflushed_of, &database);
	} while (n == 0 && position != 0);
	return n > 0;
}

/*
 * Requests that were not flushed when the server was shut down.  What else there
 * is to know of the session is read from its row at the first touch.
 */
void
sa_live_restore(const SaLiveTouch *touch)
{
	uint32		hash_value = hash_key(&touch->key, sizeof(SaLiveKey));
	bool		found;
	Entry	   *entry = hash_search_with_hash_value(entries, &touch->key, hash_value,
													HASH_ENTER_NULL, &found);

	if (entry == NULL || found)
		return;
	entry->user_key = 0;
	entry->generation = 0;
	entry->created_at = CREATED_CHANGED;
	entry->idle_timeout = 0;
	entry->opened_xid = 0;
	entry->epoch = EPOCH_NONE;
	pg_atomic_init_u64(&entry->last_access_at, (uint64) touch->last_access_at);
	pg_atomic_init_u64(&entry->requests, (uint64) touch->requests);
}

/* Entries that no touch will find, or that it has to read again anyway. */
static bool
is_stale(const Entry *entry, void *arg)
{
	SaLiveOwners *owners = arg;

	for (int i = 0; i < owners->n_databases; i++)
	{
		if (entry->key.database != owners->databases[i])
			continue;
		return entry->key.database == MyDatabaseId &&
			(entry->key.relation != owners->relation ||
			 (entry->epoch != pg_atomic_read_u64(&shared->epoch) &&
			  pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->requests)) == 0));
	}
	return true;				/* its database was dropped */
}

/* Remove a batch of them; returns how many. */
int
sa_live_forget_stale(SaLiveOwners *owners, uint32 *position)
{
	SaLiveTouch touches[CHAIN_MAX * 2];
	int			n = scan(touches, lengthof(touches), position, is_stale, owners);

	for (int i = 0; i < n; i++)
	{
		uint32		hash_value = hash_key(&touches[i].key, sizeof(SaLiveKey));
		LWLock	   *lock = partition_lock(hash_value);
		Entry	   *entry;

		LWLockAcquire(lock, LW_EXCLUSIVE);
		entry = hash_search_with_hash_value(entries, &touches[i].key, hash_value, HASH_FIND, NULL);
		if (entry != NULL && is_stale(entry, owners))
			(void) hash_search_with_hash_value(entries, &touches[i].key, hash_value,
											   HASH_REMOVE, NULL);
		LWLockRelease(lock);
	}
	return n;
}

/*
 * These requests are about to be in the table, or are not after all.  Called
 * before commit, and after abort.
 */
void
sa_live_flushed(const SaLiveTouch *touch, bool flushed)
{
	uint32		hash_value = hash_key(&touch->key, sizeof(SaLiveKey));
	LWLock	   *lock = partition_lock(hash_value);
	Entry	   *entry;

	LWLockAcquire(lock, LW_SHARED);
	entry = hash_search_with_hash_value(entries, &touch->key, hash_value, HASH_FIND, NULL);
	if (entry != NULL)
		pg_atomic_fetch_add_u64(&entry->requests, flushed ? -touch->requests : touch->requests);
	LWLockRelease(lock);
}

/* How full the shared table is. */
void
sa_live_usage(int64 *used, int64 *capacity)
{
	*used = entries ? hash_get_num_entries(entries) : 0;
	*capacity = entries ? sa_max_live_sessions : 0;
}

/* Count requests in this backend; returns how many are not written. */
int64
sa_unwritten_count(const SaLiveKey *key, TimestampTz created_at,
				   TimestampTz now, int64 requests)
{
	Unwritten  *entry = find_unwritten(key, HASH_ENTER);

	/* what an earlier session of this id was touched is not this one's */
	if (entry->last_access_at < created_at && entry->last_access_at != DT_NOBEGIN)
		entry->requests = 0;
	entry->last_access_at = Max(entry->last_access_at, now);
	entry->requests += requests;
	return entry->requests;
}

/* What this backend has counted is in the table. */
void
sa_unwritten_written(const SaLiveKey *key)
{
	(void) find_unwritten(key, HASH_REMOVE);
}

/* Requests and last access that the table does not tell yet. */
void
sa_live_read(const SaLiveKey *key, TimestampTz *last_access_at, int64 *requests)
{
	Unwritten  *mine = find_unwritten(key, HASH_FIND);

	*last_access_at = mine ? mine->last_access_at : DT_NOBEGIN;
	*requests = mine ? mine->requests : 0;

	if (sa_live_enabled())
	{
		uint32		hash_value = hash_key(key, sizeof(SaLiveKey));
		LWLock	   *lock = partition_lock(hash_value);
		Entry	   *entry;

		LWLockAcquire(lock, LW_SHARED);
		entry = hash_search_with_hash_value(entries, key, hash_value, HASH_FIND, NULL);
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
read_args(FunctionCallInfo fcinfo, TimestampTz *last_access_at, int64 *requests)
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

	if (!read_args(fcinfo, &last_access_at, &requests) || last_access_at == DT_NOBEGIN)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(last_access_at);
}

/* live_requests(session_hash bytea, application text) */
Datum
sa_live_requests(PG_FUNCTION_ARGS)
{
	TimestampTz last_access_at;
	int64		requests;

	if (!read_args(fcinfo, &last_access_at, &requests))
		PG_RETURN_NULL();
	PG_RETURN_INT64(requests);
}

/* Of the entries that were looked at, the requests of a database that are not flushed. */
typedef struct Tally
{
	Oid			database;
	int64		looked;
	int64		unflushed;
} Tally;

static bool
add_to_tally(const Entry *entry, void *arg)
{
	Tally	   *tally = arg;

	tally->looked++;
	if (entry->key.database == tally->database)
		tally->unflushed += (int64) pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->requests));
	return false;
}

/*
 * live_status() returns (used, capacity, unflushed, estimated).  The hash spreads
 * the entries of any database evenly: with many, some tell of all.
 */
Datum
sa_live_status(PG_FUNCTION_ARGS)
{
	uint32		position = 0;
	int64		used;
	int64		capacity;
	Tally		tally = {.database = MyDatabaseId};
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false, false, false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	sa_live_usage(&used, &capacity);
	if (sa_live_enabled())
	{
		do
		{
			CHECK_FOR_INTERRUPTS();
			(void) scan(NULL, CHAIN_MAX + 1, &position, add_to_tally, &tally);
		} while (position != 0 && tally.looked < TALLY_MAX);
	}
	/* not all were looked at */
	if (position != 0)
		tally.unflushed = (int64) ((double) tally.unflushed * used / tally.looked);

	values[0] = Int64GetDatum(used);
	values[1] = Int64GetDatum(capacity);
	values[2] = Int64GetDatum(tally.unflushed);
	values[3] = BoolGetDatum(position != 0);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
