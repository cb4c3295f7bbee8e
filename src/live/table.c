/*
 * table.c
 *	  The shared table of live sessions: adding and removing entries.
 *
 * The hash of a key depends on numbers that nobody knows, so that no ids can be chosen
 * that meet in one chain.  If some do, that costs time and nothing else: a pass over all
 * entries goes along the array and not along the chains.
 */
#include "live/table.h"

#include "port/pg_bitutils.h"

LiveShared *sa_live_shared = NULL;
LWLockPadded *sa_live_locks = NULL;
int32	   *sa_live_buckets = NULL;
uint32		sa_live_n_buckets = 0;
LiveEntry  *sa_live_entries = NULL;

/* A new one, under its partition's exclusive lock; NULL if there is no room. */
LiveEntry *
sa_live_entry_add(const SaLiveKey *key, uint32 hash_value)
{
	int32	   *bucket = live_bucket_of(hash_value);
	int32		place;
	LiveEntry  *entry;

	SpinLockAcquire(&sa_live_shared->free.mutex);
	place = sa_live_shared->free.first;
	if (place != NOWHERE)
		sa_live_shared->free.first = sa_live_entries[place].next;
	else if (sa_live_shared->free.top < sa_max_live_sessions)
		place = sa_live_shared->free.top++;
	if (place != NOWHERE)
		sa_live_shared->free.used++;
	SpinLockRelease(&sa_live_shared->free.mutex);
	if (place == NOWHERE)
		return NULL;

	entry = &sa_live_entries[place];
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
	 * a pass that looks at it with another partition's lock sees its hash
	 * value first
	 */
	pg_write_barrier();
	entry->key = *key;
	if (*bucket != NOWHERE)
		sa_live_entries[*bucket].previous = place;
	*bucket = place;
	return entry;
}

/* Remove it, under its partition's exclusive lock. */
void
sa_live_entry_remove(LiveEntry *entry)
{
	if (entry->previous != NOWHERE)
		sa_live_entries[entry->previous].next = entry->next;
	else
		*live_bucket_of(entry->hash_value) = entry->next;
	if (entry->next != NOWHERE)
		sa_live_entries[entry->next].previous = entry->previous;
	entry->key.database = InvalidOid;

	SpinLockAcquire(&sa_live_shared->free.mutex);
	entry->next = sa_live_shared->free.first;
	sa_live_shared->free.first = (int32) (entry - sa_live_entries);
	sa_live_shared->free.used--;
	SpinLockRelease(&sa_live_shared->free.mutex);
}

/* Places of entries that are or were in use: all of them are below this one. */
uint32
sa_live_places_in_use(void)
{
	uint32		top;

	SpinLockAcquire(&sa_live_shared->free.mutex);
	top = sa_live_shared->free.top;
	SpinLockRelease(&sa_live_shared->free.mutex);
	return top;
}

/* How large each part of the table is, and where it begins. */
static Size
live_table_layout(Size *buckets_at, Size *entries_at)
{
	sa_live_n_buckets = pg_nextpower2_32(Max(sa_max_live_sessions, LIVE_PARTITIONS));
	*buckets_at = CACHELINEALIGN(sizeof(LiveShared));
	*entries_at = CACHELINEALIGN(add_size(*buckets_at, mul_size(sa_live_n_buckets, sizeof(int32))));
	return add_size(*entries_at, mul_size(sa_max_live_sessions, sizeof(LiveEntry)));
}

static Size
live_table_size(void)
{
	Size		buckets_at;
	Size		entries_at;

	return live_table_layout(&buckets_at, &entries_at);
}

/* An empty table, with a seed of its own. */
static void
live_table_reset(void)
{
	sa_doubt_init(&sa_live_shared->everything);
	for (int i = 0; i < LIVE_STRIPES; i++)
		sa_doubt_init(&sa_live_shared->stripes[i]);
	pg_atomic_init_u64(&sa_live_shared->epoch, 0);
	if (!pg_strong_random(sa_live_shared->seed, sizeof(sa_live_shared->seed)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random numbers")));

	SpinLockInit(&sa_live_shared->free.mutex);
	sa_live_shared->free.first = NOWHERE;
	sa_live_shared->free.top = 0;
	sa_live_shared->free.used = 0;
	for (uint32 i = 0; i < sa_live_n_buckets; i++)
		sa_live_buckets[i] = NOWHERE;
	for (int i = 0; i < sa_max_live_sessions; i++)
		sa_live_entries[i].key.database = InvalidOid;
}

static void
live_table_start(void *memory, LWLockPadded *locks, bool found)
{
	Size		buckets_at;
	Size		entries_at;

	(void) live_table_layout(&buckets_at, &entries_at);
	sa_live_shared = memory;
	sa_live_buckets = (int32 *) ((char *) memory + buckets_at);
	sa_live_entries = (LiveEntry *) ((char *) memory + entries_at);
	sa_live_locks = locks;
	if (!found)
		live_table_reset();
}

/* Ask for the shared memory, if preloaded. */
void
sa_live_table_init(void)
{
	static const SaShmemPart part = {
		.name = "session_admin",
		.size = live_table_size,
		.n_locks = LIVE_PARTITIONS,
		.start = live_table_start
	};

	sa_shmem_add(&part);
}
