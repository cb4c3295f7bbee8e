/*
 * table.h
 *	  The shared table of live sessions, for the files of this folder alone.
 *
 * It has an array of entries, as many as there may be, and an array of buckets, each of
 * which begins a chain of entries; what belongs together is told by its place in the
 * array, so that it may lie at any address.  README.md has the protocol and the locks.
 */
#ifndef SA_LIVE_TABLE_H
#define SA_LIVE_TABLE_H

#include "live/live.h"

#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#define LIVE_PARTITIONS		64
#define LIVE_STRIPES		4096
#define EPOCH_NONE		PG_UINT64_MAX	/* of an entry that has to be read
										 * again */
#define VERSION_NONE	PG_UINT64_MAX	/* of a limit that was not read */
#define CREATED_CHANGED	DT_NOBEGIN	/* of an entry whose row has changed */
#define NOWHERE			(-1)	/* the place of no entry */
#define KEY_WORDS		(sizeof(SaLiveKey) / sizeof(uint32))
#define LOOKS_MAX		10000	/* entries in one go, which nothing interrupts */

/* Entries that are not in use, and how many are. */
typedef struct LiveFree
{
	slock_t		mutex;
	int32		first;			/* the first of those that were in use before */
	int32		top;			/* from here on, none ever was */
	int32		used;
} LiveFree;

typedef struct LiveShared
{
	SaDoubt		everything;
	pg_atomic_uint64 epoch;
	uint64		seed[KEY_WORDS + 1];
	SaDoubt		stripes[LIVE_STRIPES];
	char		padding[PG_CACHE_LINE_SIZE];	/* what follows changes often */
	LiveFree	free;
} LiveShared;

/* Of an entry that is not in use, there is only next: the next of them. */
typedef struct LiveEntry
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
	SaTimeLimit limit;			/* of its user, */
	uint64		limit_version;	/* if the policies are still of this version */
	/* and these also under the shared one */
	pg_atomic_uint64 last_access_at;
	pg_atomic_uint64 written_access_at; /* the row tells this one, or a later */
	pg_atomic_uint64 requests;	/* that the table does not count yet */
} LiveEntry;

StaticAssertDecl(sizeof(SaLiveKey) == 2 * sizeof(Oid) + sizeof(uint64) + SA_HASH_LEN,
				 "SaLiveKey has gaps, which would be hashed");

/* A touch that was counted, as a pass over the table sees it. */
typedef struct LiveTouch
{
	SaLiveKey	key;
	int32		place;			/* of its entry, when it was seen */
	int64		requests;
	TimestampTz last_access_at;
} LiveTouch;

/* Before a row is read, to be stored: what must not have changed since. */
typedef struct LiveFill
{
	SaLiveKey	key;
	bool		allowed;
	uint64		epoch;
	uint64		everything_begun;
	uint64		stripe_begun;
	uint64		policies_version;
} LiveFill;

/* Symbols that are visible outside of the library cost an indirection. */
#pragma GCC visibility push(hidden)

/* table.c */
extern LiveShared *sa_live_shared;	/* NULL if not preloaded */
extern LWLockPadded *sa_live_locks;
extern int32 *sa_live_buckets;
extern uint32 sa_live_n_buckets;	/* a power of 2 */
extern LiveEntry *sa_live_entries;

extern LiveEntry *sa_live_entry_add(const SaLiveKey *key, uint32 hash_value);
extern void sa_live_entry_remove(LiveEntry *entry);
extern uint32 sa_live_places_in_use(void);
extern void sa_live_table_init(void);

/* live.c */
extern bool sa_live_touch(const SaApplication *application, const SaLiveKey *key,
						  TimestampTz now, int64 requests, int64 idle_timeout);
extern void sa_live_fill_start(LiveFill *fill, const SaLiveKey *key);
extern bool sa_live_fill(LiveFill *fill, const SaSession *session,
						 const SaApplication *application, TimestampTz now, int64 requests);
extern void sa_live_kinds_init(void);

/* unwritten.c */
extern int64 sa_unwritten_count(const SaLiveKey *key, TimestampTz created_at,
								TimestampTz now, int64 requests);
extern void sa_unwritten_set_back(const SaLiveKey *key);
extern void sa_unwritten_read(const SaLiveKey *key, TimestampTz *last_access_at, int64 *requests);

/* scan.c */
extern int	sa_live_unflushed(LiveTouch *touches, int n, uint32 *position, Oid relation);
extern int	sa_live_unflushed_anywhere(LiveTouch *touches, int n, uint32 *position);

/* flush.c, restart.c */
extern void sa_flush_init(void);
extern void sa_restart_init(void);

#pragma GCC visibility pop

/*
 * The hash value of a key. Two different keys have the same one for only one of 2^32 seeds
 * ("multilinear" hashing), and the seed is secret.
 */
static inline uint32
live_hash(const SaLiveKey *key)
{
	uint32		words[KEY_WORDS];
	uint64		sum = sa_live_shared->seed[0];

	memcpy(words, key, sizeof(words));
	for (size_t i = 0; i < KEY_WORDS; i++)
		sum += sa_live_shared->seed[i + 1] * words[i];
#ifdef SA_TEST_POINTS
	/* all keys meet in one chain, and some have the same hash value */
	if (sa_test_collisions)
		sum &= PG_UINT64_MAX << 50;
#endif
	return (uint32) (sum >> 32);
}

static inline LWLock *
live_lock_of(uint32 hash_value)
{
	return &sa_live_locks[hash_value % LIVE_PARTITIONS].lock;
}

static inline SaDoubt *
live_stripe_of(uint32 hash_value)
{
	return &sa_live_shared->stripes[(hash_value / LIVE_PARTITIONS) % LIVE_STRIPES];
}

/* The bucket of the hash value.  All keys of a bucket are of one partition. */
static inline int32 *
live_bucket_of(uint32 hash_value)
{
	return &sa_live_buckets[hash_value & (sa_live_n_buckets - 1)];
}

static inline bool
live_entry_is_used(const LiveEntry *entry)
{
	return OidIsValid(entry->key.database);
}

static inline bool
live_entry_is_of(const LiveEntry *entry, const SaLiveKey *key, uint32 hash_value)
{
	return entry->hash_value == hash_value && memcmp(&entry->key, key, sizeof(*key)) == 0;
}

/* The entry of the key, under its partition's lock; NULL if there is none. */
static inline LiveEntry *
live_entry_find(const SaLiveKey *key, uint32 hash_value)
{
	for (int32 i = *live_bucket_of(hash_value); i != NOWHERE; i = sa_live_entries[i].next)
	{
		if (live_entry_is_of(&sa_live_entries[i], key, hash_value))
			return &sa_live_entries[i];
	}
	return NULL;
}

/* The entry of a key that was seen at this place, where it probably still is. */
static inline LiveEntry *
live_entry_find_at(const LiveTouch *touch, uint32 hash_value)
{
	LiveEntry  *entry = &sa_live_entries[touch->place];

	/*
	 * an entry in use with this hash value belongs to the partition that is
	 * locked
	 */
	if (live_entry_is_used(entry))
	{
		pg_read_barrier();
		if (live_entry_is_of(entry, &touch->key, hash_value))
			return entry;
	}
	return live_entry_find(&touch->key, hash_value);
}

/* Move a time forward, never backward. */
static inline void
live_time_advance(pg_atomic_uint64 *at, TimestampTz now)
{
	uint64		seen = pg_atomic_read_u64(at);

	while ((TimestampTz) seen < now &&
		   !pg_atomic_compare_exchange_u64(at, &seen, (uint64) now))
		;
}

static inline void
live_entry_count(LiveEntry *entry, TimestampTz now, int64 requests)
{
	live_time_advance(&entry->last_access_at, now);
	if (requests != 0)
		pg_atomic_fetch_add_u64(&entry->requests, requests);
}

#endif							/* SA_LIVE_TABLE_H */
