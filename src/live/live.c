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
 * What is not in the table yet.  An entry counts requests that its row does not, and
 * knows the last access, which the row may not; it also knows what the row tells at
 * least (written_access_at).  Requests, or a later access, make it unflushed: it is
 * written to its row, and by restart.c to a file.
 *
 * The table.  It has an array of entries, as many as there may be, and an array of
 * buckets, each of which begins a chain of entries; what belongs together is told by
 * its place in the array, so that it may lie at any address.  The hash of a key
 * depends on numbers that nobody knows: no ids can be chosen that meet in one
 * chain.  If some do, that costs time and nothing else: who looks at all entries goes
 * along the array and not along the chains.
 *
 * Locks.  Partition locks protect finding, adding and removing entries; fields
 * that change under a shared lock are atomic.  Nothing under these locks throws,
 * allocates or waits.  An entry may be looked at with no lock, to see whether it is
 * worth a closer look.
 */
#include "session_admin.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
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
#define NOWHERE			(-1)	/* the place of no entry */
#define KEY_WORDS		(sizeof(SaLiveKey) / sizeof(uint32))
#define LOOKS_MAX		10000	/* entries in one go, which nothing interrupts */
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

/* Entries that are not in use, and how many are. */
typedef struct Free
{
	slock_t		mutex;
	int32		first;			/* of those that were in use before */
	int32		top;			/* from here on, none ever was */
	int32		used;
} Free;

typedef struct Shared
{
	Slot		everything;
	Slot		applications;	/* those that change what holds for one */
	pg_atomic_uint64 epoch;
	uint64		seed[KEY_WORDS + 1];
	Slot		slots[SLOTS];
	char		padding[PG_CACHE_LINE_SIZE];	/* what follows changes often */
	Free		free;
} Shared;

/* Of an entry that is not in use, there is only next: the next of them. */
typedef struct Entry
{
	uint32		hash_value;
	int32		next;			/* in the chain of its bucket */
	SaLiveKey	key;			/* no database: not in use */
	int32		previous;
	/* these change only under the exclusive lock */
	uint64		user_key;
	int64		generation;
	TimestampTz created_at;
	int64		idle_timeout;	/* see SaSession */
	uint64		opened_xid;
	uint64		epoch;
	/* and these also under the shared one */
	pg_atomic_uint64 last_access_at;
	pg_atomic_uint64 written_access_at; /* the row tells this one, or a later */
	pg_atomic_uint64 requests;	/* that the table does not count yet */
} Entry;

StaticAssertDecl(sizeof(SaLiveKey) == 2 * sizeof(Oid) + sizeof(uint64) + SA_HASH_LEN,
				 "SaLiveKey has gaps, which would be hashed");

/* Counted in this backend only, where the shared table does not. */
typedef struct Unwritten
{
	SaLiveKey	key;
	TimestampTz last_access_at;
	int64		requests;
} Unwritten;

static Shared *shared = NULL;
static LWLockPadded *locks = NULL;
static int32 *buckets = NULL;
static uint32 n_buckets = 0;	/* a power of 2 */
static Entry *entries = NULL;
static HTAB *unwritten = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/*
 * The key's hash value.  Of two keys that are not the same, it is the same for one of
 * 2^32 seeds only ("multilinear" hashing): whoever chooses keys does not know which.
 */
static uint32
hash_key(const SaLiveKey *key)
{
	uint32		words[KEY_WORDS];
	uint64		sum = shared->seed[0];

	memcpy(words, key, sizeof(words));
	for (size_t i = 0; i < KEY_WORDS; i++)
		sum += shared->seed[i + 1] * words[i];
#ifdef SA_TEST_POINTS
	/* all keys meet in one chain, and some have the same hash value */
	if (sa_test_collisions)
		sum &= PG_UINT64_MAX << 50;
#endif
	return (uint32) (sum >> 32);
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

/* The bucket of the hash value.  All keys of a bucket are of one partition. */
static int32 *
bucket_of(uint32 hash_value)
{
	return &buckets[hash_value & (n_buckets - 1)];
}

static bool
is_used(const Entry *entry)
{
	return OidIsValid(entry->key.database);
}

static bool
is_entry_of(const Entry *entry, const SaLiveKey *key, uint32 hash_value)
{
	return entry->hash_value == hash_value && memcmp(&entry->key, key, sizeof(*key)) == 0;
}

/* The entry of the key, under its partition's lock; NULL if there is none. */
static Entry *
find_entry(const SaLiveKey *key, uint32 hash_value)
{
	for (int32 i = *bucket_of(hash_value); i != NOWHERE; i = entries[i].next)
	{
		if (is_entry_of(&entries[i], key, hash_value))
			return &entries[i];
	}
	return NULL;
}

/* The same, of one that was seen at a place where it probably still is. */
static Entry *
find_entry_at(const SaLiveTouch *touch, uint32 hash_value)
{
	Entry	   *entry = &entries[touch->place];

	/* what is in use with this hash value is of the partition that is locked */
	if (is_used(entry))
	{
		pg_read_barrier();
		if (is_entry_of(entry, &touch->key, hash_value))
			return entry;
	}
	return find_entry(&touch->key, hash_value);
}

/* A new one, under its partition's exclusive lock; NULL if there is no room. */
static Entry *
add_entry(const SaLiveKey *key, uint32 hash_value)
{
	int32	   *bucket = bucket_of(hash_value);
	int32		place;
	Entry	   *entry;

	SpinLockAcquire(&shared->free.mutex);
	place = shared->free.first;
	if (place != NOWHERE)
		shared->free.first = entries[place].next;
	else if (shared->free.top < sa_max_live_sessions)
		place = shared->free.top++;
	if (place != NOWHERE)
		shared->free.used++;
	SpinLockRelease(&shared->free.mutex);
	if (place == NOWHERE)
		return NULL;

	entry = &entries[place];
	entry->hash_value = hash_value;
	entry->next = *bucket;
	entry->previous = NOWHERE;
	entry->user_key = 0;
	entry->generation = 0;
	entry->created_at = CREATED_CHANGED;
	entry->idle_timeout = 0;
	entry->opened_xid = 0;
	entry->epoch = EPOCH_NONE;
	pg_atomic_init_u64(&entry->last_access_at, 0);
	pg_atomic_init_u64(&entry->written_access_at, 0);
	pg_atomic_init_u64(&entry->requests, 0);

	/*
	 * who looks at it with another partition's lock finds its hash value
	 * first
	 */
	pg_write_barrier();
	entry->key = *key;
	if (*bucket != NOWHERE)
		entries[*bucket].previous = place;
	*bucket = place;
	return entry;
}

/* Remove it, under its partition's exclusive lock. */
static void
remove_entry(Entry *entry)
{
	if (entry->previous != NOWHERE)
		entries[entry->previous].next = entry->next;
	else
		*bucket_of(entry->hash_value) = entry->next;
	if (entry->next != NOWHERE)
		entries[entry->next].previous = entry->previous;
	entry->key.database = InvalidOid;

	SpinLockAcquire(&shared->free.mutex);
	entry->next = shared->free.first;
	shared->free.first = (int32) (entry - entries);
	shared->free.used--;
	SpinLockRelease(&shared->free.mutex);
}

/* How large each part of the table is, and where it begins. */
static Size
table_size(Size *buckets_at, Size *entries_at)
{
	n_buckets = pg_nextpower2_32(Max(sa_max_live_sessions, PARTITIONS));
	*buckets_at = CACHELINEALIGN(sizeof(Shared));
	*entries_at = CACHELINEALIGN(add_size(*buckets_at, mul_size(n_buckets, sizeof(int32))));
	return add_size(*entries_at, mul_size(sa_max_live_sessions, sizeof(Entry)));
}

static void
shmem_request(void)
{
	Size		buckets_at;
	Size		entries_at;

	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(table_size(&buckets_at, &entries_at));
	RequestNamedLWLockTranche("session_admin", PARTITIONS);
}

static void
init_slot(Slot *slot)
{
	pg_atomic_init_u64(&slot->started, 0);
	pg_atomic_init_u64(&slot->finished, 0);
}

/* An empty table, with a seed of its own. */
static void
init_shared(void)
{
	init_slot(&shared->everything);
	init_slot(&shared->applications);
	for (int i = 0; i < SLOTS; i++)
		init_slot(&shared->slots[i]);
	pg_atomic_init_u64(&shared->epoch, 0);
	if (!pg_strong_random(shared->seed, sizeof(shared->seed)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random numbers")));

	SpinLockInit(&shared->free.mutex);
	shared->free.first = NOWHERE;
	shared->free.top = 0;
	shared->free.used = 0;
	for (uint32 i = 0; i < n_buckets; i++)
		buckets[i] = NOWHERE;
	for (int i = 0; i < sa_max_live_sessions; i++)
		entries[i].key.database = InvalidOid;
}

static void
shmem_startup(void)
{
	Size		buckets_at;
	Size		entries_at;
	Size		size = table_size(&buckets_at, &entries_at);
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("session_admin", size, &found);
	buckets = (int32 *) ((char *) shared + buckets_at);
	entries = (Entry *) ((char *) shared + entries_at);
	if (!found)
		init_shared();
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
	hash_value = hash_key(&key);
	lock = partition_lock(hash_value);

	LWLockAcquire(lock, LW_SHARED);
	entry = find_entry(&key, hash_value);
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
		Slot	   *slot = slot_of(hash_key(&fill->key));

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

	hash_value = hash_key(&fill->key);
	slot = slot_of(hash_value);
	lock = partition_lock(hash_value);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = find_entry(&fill->key, hash_value);
	found = entry != NULL;
	if (!found)
		entry = add_entry(&fill->key, hash_value);
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
			pg_atomic_read_u64(&slot->started) == fill->slot_started &&
			pg_atomic_read_u64(&shared->everything.started) == fill->everything_started)
		{
			entry->user_key = session->user_key;
			entry->generation = session->generation;
			entry->created_at = session->created_at;
			entry->idle_timeout = session->idle_timeout;
			entry->opened_xid = session->opened_xid;
			entry->epoch = fill->epoch;
			pg_atomic_write_u64(&entry->written_access_at, (uint64) session->last_access_at);
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
	pg_atomic_fetch_add_u64(key ? &slot_of(hash_key(key))->started :
							&shared->everything.started, 1);
}

/* It has committed, and all can see it. */
void
sa_live_end_commit(const SaLiveKey *key, bool row_remains)
{
	uint32		hash_value;
	LWLock	   *lock;
	Entry	   *entry;

	if (shared == NULL)
		return;
	if (key == NULL)
	{
		pg_atomic_fetch_add_u64(&shared->epoch, 1);
		return;
	}

	hash_value = hash_key(key);
	lock = partition_lock(hash_value);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = find_entry(key, hash_value);
	if (entry != NULL && !row_remains)
		remove_entry(entry);
	else if (entry != NULL)
	{
		/* all but the touches is read from the row again */
		entry->epoch = EPOCH_NONE;
		entry->created_at = CREATED_CHANGED;
	}
	LWLockRelease(lock);
}

/* It has set back the last access: what is known of a later one is of no use. */
void
sa_live_set_back(const SaLiveKey *key)
{
	Unwritten  *mine = find_unwritten(key, HASH_FIND);
	uint32		hash_value;
	LWLock	   *lock;
	Entry	   *entry;

	if (mine != NULL)
		mine->last_access_at = DT_NOBEGIN;
	if (shared == NULL)
		return;

	hash_value = hash_key(key);
	lock = partition_lock(hash_value);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = find_entry(key, hash_value);
	if (entry != NULL)
	{
		pg_atomic_write_u64(&entry->last_access_at, 0);
		pg_atomic_write_u64(&entry->written_access_at, 0);
	}
	LWLockRelease(lock);
}

/* It has committed and we have obeyed, or it has aborted. */
void
sa_live_end_finish(const SaLiveKey *key)
{
	if (shared == NULL)
		return;
	pg_atomic_fetch_add_u64(key ? &slot_of(hash_key(key))->finished :
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

/* Places of entries that are or were in use: all of them are below this one. */
static uint32
places_in_use(void)
{
	uint32		top;

	SpinLockAcquire(&shared->free.mutex);
	top = shared->free.top;
	SpinLockRelease(&shared->free.mutex);
	return top;
}

static void
copy_entry(SaLiveTouch *touch, const Entry *entry)
{
	touch->key = entry->key;
	touch->place = (int32) (entry - entries);
	touch->requests = (int64) pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->requests));
	touch->last_access_at =
		(TimestampTz) pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->last_access_at));
}

/*
 * At most n of the entries that are wanted; *position says where to go on, and
 * is 0 at the beginning and again at the end.  A pass looks at each place once,
 * whatever comes and goes meanwhile.
 */
static int
scan(SaLiveTouch *touches, int n, uint32 *position,
	 bool (*wanted) (const Entry *entry, void *arg), void *arg)
{
	uint32		top = places_in_use();
	uint32		end = Min(top, *position + LOOKS_MAX);
	uint32		place;
	int			found = 0;

	for (place = *position; place < end && found < n; place++)
	{
		Entry	   *entry = &entries[place];
		uint32		hash_value;
		LWLock	   *lock;

		/* nearly all are found not to be wanted with no lock */
		if (!is_used(entry) || !wanted(entry, arg))
			continue;

		/*
		 * Another key may get this place meanwhile.  If that is of the same
		 * partition, then not while we have its lock; if it is not, its hash
		 * value is there before it is in use.
		 */
		hash_value = *(volatile uint32 *) &entry->hash_value;
		lock = partition_lock(hash_value);
		LWLockAcquire(lock, LW_SHARED);
		if (is_used(entry))
		{
			pg_read_barrier();
			if (*(volatile uint32 *) &entry->hash_value == hash_value && wanted(entry, arg))
				copy_entry(&touches[found++], entry);
		}
		LWLockRelease(lock);
	}
	*position = place < top ? place : 0;
	return found;
}

/* Has it got what the table does not tell yet? */
static bool
has_unflushed(const Entry *entry)
{
	Entry	   *read = unconstify(Entry *, entry);

	return pg_atomic_read_u64(&read->requests) != 0 ||
		(TimestampTz) pg_atomic_read_u64(&read->last_access_at) >
		(TimestampTz) pg_atomic_read_u64(&read->written_access_at);
}

static bool
is_unflushed(const Entry *entry, void *relation)
{
	return entry->key.database == MyDatabaseId &&
		entry->key.relation == *(const Oid *) relation &&
		has_unflushed(entry);
}

/*
 * Touches that the table session (this one) does not tell yet.  There may be
 * more, although there was none, until *position is 0 again.
 */
int
sa_live_unflushed(SaLiveTouch *touches, int n, uint32 *position, Oid relation)
{
	if (!sa_live_enabled())
		return 0;
	return scan(touches, n, position, is_unflushed, &relation);
}

/* Those of all databases, for restart.c: no other process is left. */
int
sa_live_unflushed_anywhere(SaLiveTouch *touches, int n, uint32 *position)
{
	uint32		place;
	int			found = 0;

	for (place = *position; place < (uint32) shared->free.top && found < n; place++)
	{
		if (is_used(&entries[place]) && has_unflushed(&entries[place]))
			copy_entry(&touches[found++], &entries[place]);
	}
	*position = place < (uint32) shared->free.top ? place : 0;
	return found;
}

/* Are there any of this database?  It takes no lock: what comes meanwhile is not seen. */
bool
sa_live_any_unflushed(Oid database)
{
	uint32		top;

	if (!sa_live_enabled())
		return false;
	top = places_in_use();
	for (uint32 place = 0; place < top; place++)
	{
		if (place % LOOKS_MAX == 0)
			CHECK_FOR_INTERRUPTS();
		if (entries[place].key.database == database && has_unflushed(&entries[place]))
			return true;
	}
	return false;
}

/*
 * Touches that were not flushed when the server was shut down.  What else there
 * is to know of the session is read from its row at the first one.  False if there is
 * no room.
 */
bool
sa_live_restore(const SaLiveTouch *touch)
{
	Entry	   *entry = add_entry(&touch->key, hash_key(&touch->key));

	if (entry == NULL)
		return false;
	pg_atomic_write_u64(&entry->last_access_at, (uint64) touch->last_access_at);
	pg_atomic_write_u64(&entry->requests, (uint64) touch->requests);
	return true;
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
			 (entry->epoch != pg_atomic_read_u64(&shared->epoch) && !has_unflushed(entry)));
	}
	return true;				/* its database was dropped */
}

/* Remove a batch of them; returns how many. */
int
sa_live_forget_stale(SaLiveOwners *owners, uint32 *position)
{
	SaLiveTouch touches[128];
	int			n = scan(touches, lengthof(touches), position, is_stale, owners);

	for (int i = 0; i < n; i++)
	{
		uint32		hash_value = hash_key(&touches[i].key);
		LWLock	   *lock = partition_lock(hash_value);
		Entry	   *entry;

		LWLockAcquire(lock, LW_EXCLUSIVE);
		entry = find_entry_at(&touches[i], hash_value);
		if (entry != NULL && is_stale(entry, owners))
			remove_entry(entry);
		LWLockRelease(lock);
	}
	return n;
}

/*
 * These touches are about to be in the table, or are not after all.  Called
 * before commit, and after abort.
 */
void
sa_live_flushed(const SaLiveTouch *touch, bool flushed)
{
	uint32		hash_value = hash_key(&touch->key);
	LWLock	   *lock = partition_lock(hash_value);
	Entry	   *entry;

	LWLockAcquire(lock, LW_SHARED);
	entry = find_entry_at(touch, hash_value);
	if (entry != NULL)
	{
		pg_atomic_fetch_add_u64(&entry->requests, flushed ? -touch->requests : touch->requests);
		/* what the row tells after all is not known: once more does no harm */
		if (flushed)
			advance(&entry->written_access_at, touch->last_access_at);
		else
			pg_atomic_write_u64(&entry->written_access_at, 0);
	}
	LWLockRelease(lock);
}

/* How full the shared table is. */
void
sa_live_usage(int64 *used, int64 *capacity)
{
	*used = shared ? *(volatile int32 *) &shared->free.used : 0;
	*capacity = shared ? sa_max_live_sessions : 0;
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
		uint32		hash_value = hash_key(key);
		LWLock	   *lock = partition_lock(hash_value);
		Entry	   *entry;

		LWLockAcquire(lock, LW_SHARED);
		entry = find_entry(key, hash_value);
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

/* Of the entries that were looked at, what of a database is not flushed. */
typedef struct Tally
{
	int64		looked;
	int64		requests;
	int64		sessions;		/* that were touched since their row was
								 * written */
} Tally;

static void
add_to_tally(Tally *tally, uint32 place)
{
	Entry	   *entry = &entries[place];

	if (!is_used(entry))
		return;
	tally->looked++;
	if (entry->key.database == MyDatabaseId && has_unflushed(entry))
	{
		tally->requests += (int64) pg_atomic_read_u64(&entry->requests);
		tally->sessions++;
	}
}

/*
 * Tally all entries, or where there are many some of them, from all over the array.
 * It takes no lock: there is no moment for which all numbers would hold.
 */
static bool
tally_entries(Tally *tally, int64 used)
{
	uint32		top = places_in_use();
	uint32		step = 1;

	if (used > TALLY_MAX || top > 50 * TALLY_MAX)
		step = (top + TALLY_MAX - 1) / TALLY_MAX;

	for (uint32 place = 0; place < top; place += step)
	{
		uint32		skipped = step == 1 ? 0 :
		pg_prng_uint32(&pg_global_prng_state) % Min(step, top - place);

		if (place % LOOKS_MAX < step)
			CHECK_FOR_INTERRUPTS();
		add_to_tally(tally, place + skipped);
	}
	return step == 1;
}

/* live_status() returns (used, capacity, unflushed, estimated, touched). */
Datum
sa_live_status(PG_FUNCTION_ARGS)
{
	int64		used;
	int64		capacity;
	bool		all = true;
	Tally		tally = {0};
	TupleDesc	desc;
	Datum		values[5];
	bool		nulls[5] = {false, false, false, false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	sa_live_usage(&used, &capacity);
	if (sa_live_enabled())
		all = tally_entries(&tally, used);
	if (!all && tally.looked > 0)
	{
		tally.requests = (int64) ((double) tally.requests * used / tally.looked);
		tally.sessions = (int64) ((double) tally.sessions * used / tally.looked);
	}

	values[0] = Int64GetDatum(used);
	values[1] = Int64GetDatum(capacity);
	values[2] = Int64GetDatum(tally.requests);
	values[3] = BoolGetDatum(!all);
	values[4] = Int64GetDatum(tally.sessions);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
