/*
 * scan.c
 *	  Passes over the shared table of live sessions.
 *
 * Nearly all entries are looked at with no lock, to see whether they are worth a closer
 * look.
 */
#include "live/table.h"

#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(sa_live_status);

#define TALLY_MAX		20000	/* entries that live_status() looks at */

/* Whose entries there may be: all databases, and of this one the table session. */
typedef struct LiveOwners
{
	Oid			relation;
	int			n_databases;
	const Oid  *databases;
} LiveOwners;

static void
live_entry_copy(LiveTouch *touch, const LiveEntry *entry)
{
	touch->key = entry->key;
	touch->place = (int32) (entry - sa_live_entries);
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
live_scan(LiveTouch *touches, int n, uint32 *position,
		  bool (*wanted) (const LiveEntry *entry, void *arg), void *arg)
{
	uint32		top = sa_live_places_in_use();
	uint32		end = Min(top, *position + LOOKS_MAX);
	uint32		place;
	int			found = 0;

	for (place = *position; place < end && found < n; place++)
	{
		LiveEntry  *entry = &sa_live_entries[place];
		uint32		hash_value;
		LWLock	   *lock;

		/* nearly all are found not to be wanted with no lock */
		if (!live_entry_is_used(entry) || !wanted(entry, arg))
			continue;

		/*
		 * Another key may get this place meanwhile. If it belongs to the same
		 * partition, that does not happen while we have the lock; if it does
		 * not, its hash value is there before the entry is in use.
		 */
		hash_value = *(volatile uint32 *) &entry->hash_value;
		lock = live_lock_of(hash_value);
		LWLockAcquire(lock, LW_SHARED);
		if (live_entry_is_used(entry))
		{
			pg_read_barrier();
			if (*(volatile uint32 *) &entry->hash_value == hash_value && wanted(entry, arg))
				live_entry_copy(&touches[found++], entry);
		}
		LWLockRelease(lock);
	}
	*position = place < top ? place : 0;
	return found;
}

/* Does the entry have something that the table session does not tell yet? */
static bool
live_entry_is_unflushed(const LiveEntry *entry)
{
	LiveEntry  *read = unconstify(LiveEntry *, entry);

	return pg_atomic_read_u64(&read->requests) != 0 ||
		(TimestampTz) pg_atomic_read_u64(&read->last_access_at) >
		(TimestampTz) pg_atomic_read_u64(&read->written_access_at);
}

static bool
live_is_unflushed_here(const LiveEntry *entry, void *relation)
{
	return entry->key.database == MyDatabaseId &&
		entry->key.relation == *(const Oid *) relation &&
		live_entry_is_unflushed(entry);
}

/*
 * Touches that the table session (this one) does not tell yet.  There may be
 * more, although there was none, until *position is 0 again.
 */
int
sa_live_unflushed(LiveTouch *touches, int n, uint32 *position, Oid relation)
{
	if (!sa_shmem_usable())
		return 0;
	return live_scan(touches, n, position, live_is_unflushed_here, &relation);
}

/* Those of all databases, for restart.c: no other process is left. */
int
sa_live_unflushed_anywhere(LiveTouch *touches, int n, uint32 *position)
{
	uint32		place;
	int			found = 0;

	for (place = *position; place < (uint32) sa_live_shared->free.top && found < n; place++)
	{
		if (live_entry_is_used(&sa_live_entries[place]) && live_entry_is_unflushed(&sa_live_entries[place]))
			live_entry_copy(&touches[found++], &sa_live_entries[place]);
	}
	*position = place < (uint32) sa_live_shared->free.top ? place : 0;
	return found;
}

/* Are there any of this database?  It takes no lock: what comes meanwhile is not seen. */
bool
sa_live_any_unflushed(Oid database)
{
	uint32		top;

	if (!sa_shmem_usable())
		return false;
	top = sa_live_places_in_use();
	for (uint32 place = 0; place < top; place++)
	{
		if (place % LOOKS_MAX == 0)
			CHECK_FOR_INTERRUPTS();
		if (sa_live_entries[place].key.database == database && live_entry_is_unflushed(&sa_live_entries[place]))
			return true;
	}
	return false;
}

/* Entries that no touch will find, or that it has to read again anyway. */
static bool
live_is_stale(const LiveEntry *entry, void *arg)
{
	LiveOwners *owners = arg;

	for (int i = 0; i < owners->n_databases; i++)
	{
		if (entry->key.database != owners->databases[i])
			continue;
		return entry->key.database == MyDatabaseId &&
			(entry->key.relation != owners->relation ||
			 (entry->epoch != pg_atomic_read_u64(&sa_live_shared->epoch) && !live_entry_is_unflushed(entry)));
	}
	return true;				/* its database was dropped */
}

/* Remove a batch of them; returns how many. */
static int
live_forget_stale(LiveOwners *owners, uint32 *position)
{
	LiveTouch	touches[128];
	int			n = live_scan(touches, lengthof(touches), position, live_is_stale, owners);

	for (int i = 0; i < n; i++)
	{
		uint32		hash_value = live_hash(&touches[i].key);
		LWLock	   *lock = live_lock_of(hash_value);
		LiveEntry  *entry;

		LWLockAcquire(lock, LW_EXCLUSIVE);
		entry = live_entry_find_at(&touches[i], hash_value);
		if (entry != NULL && live_is_stale(entry, owners))
			sa_live_entry_remove(entry);
		LWLockRelease(lock);
	}
	return n;
}

/*
 * A task of maintain(): remove entries that are of no use.  Where the extension was
 * dropped, these are all of the database.
 */
int64
sa_live_forget(pg_attribute_unused() bool *more)
{
	static SaStatement list_databases = {.sql =
		"SELECT array_agg(oid) FROM pg_database"
	};
	LiveOwners	owners;
	uint32		position = 0;
	int64		n = 0;
	bool		isnull;
	ArrayType  *databases;

	if (!sa_shmem_usable())
		return 0;

	sa_run(&list_databases, NULL);
	databases = DatumGetArrayTypeP(sa_result(0, 1, &isnull));
	owners.relation = sa_relation_if_any(SA_TABLE_SESSION);
	owners.databases = (Oid *) ARR_DATA_PTR(databases);
	owners.n_databases = ArrayGetNItems(ARR_NDIM(databases), ARR_DIMS(databases));
	do
	{
		CHECK_FOR_INTERRUPTS();
		n += live_forget_stale(&owners, &position);
	} while (position != 0);
	return n;
}

/* How full the shared table is. */
static void
live_usage(int64 *used, int64 *capacity)
{
	*used = sa_live_shared ? *(volatile int32 *) &sa_live_shared->free.used : 0;
	*capacity = sa_live_shared ? sa_max_live_sessions : 0;
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
tally_add(Tally *tally, uint32 place)
{
	LiveEntry  *entry = &sa_live_entries[place];

	if (!live_entry_is_used(entry))
		return;
	tally->looked++;
	if (entry->key.database == MyDatabaseId && live_entry_is_unflushed(entry))
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
	uint32		top = sa_live_places_in_use();
	uint32		step = 1;

	if (used > TALLY_MAX || top > 50 * TALLY_MAX)
		step = (top + TALLY_MAX - 1) / TALLY_MAX;

	for (uint32 place = 0; place < top; place += step)
	{
		uint32		skipped = step == 1 ? 0 :
		pg_prng_uint32(&pg_global_prng_state) % Min(step, top - place);

		if (place % LOOKS_MAX < step)
			CHECK_FOR_INTERRUPTS();
		tally_add(tally, place + skipped);
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

	live_usage(&used, &capacity);
	if (sa_shmem_usable())
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
