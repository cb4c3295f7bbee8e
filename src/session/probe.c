/*
 * probe.c
 *	  Probes: anonymous sessions of health checks and bots, which are counted and not
 *	  kept.
 *
 * README.md says where they are counted, and why none is written twice.
 */
#include "session/session.h"
#include "policy/policy.h"
#include "ending/ending.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_add_probe_rule);
PG_FUNCTION_INFO_V1(sa_remove_probe_rule);
PG_FUNCTION_INFO_V1(sa_live_probes);

/* Rules that are counted in shared memory; further ones are in each backend. */
#define COUNTERS_MAX	1024
#define PATTERN_MAX		1024	/* bytes */

typedef struct CounterKey
{
	Oid			database;
	Oid			relation;		/* the table session: the extension may be
								 * made again */
	uint64		rule;
} CounterKey;

typedef struct Counter
{
	CounterKey	key;
	pg_atomic_uint64 probes;	/* that the table does not count yet */
	pg_atomic_uint64 last_at;
	TimestampTz written_at;		/* only used in a backend */
} Counter;

/* Written to the table by this transaction. */
typedef struct Written
{
	CounterKey	key;
	uint64		probes;
	bool		is_shared;
} Written;

static HTAB *shared_counters = NULL;
static LWLock *lock = NULL;
static HTAB *own_counters = NULL;

/* After commit: take off what was written, so that it is not written again. */
static void
written_after(const void *data, bool committed)
{
	const Written *item = data;
	Counter    *counter;

	if (!committed)
		return;
	if (item->is_shared)
		LWLockAcquire(lock, LW_SHARED);
	counter = hash_search(item->is_shared ? shared_counters : own_counters,
						  &item->key, HASH_FIND, NULL);
	if (counter != NULL)
	{
		uint64		seen = pg_atomic_read_u64(&counter->probes);

		/* the rule may have been removed and added meanwhile */
		while (!pg_atomic_compare_exchange_u64(&counter->probes, &seen,
											   seen - Min(seen, item->probes)))
			;
	}
	if (item->is_shared)
		LWLockRelease(lock);
}

static const SaAtEndKind written_kind = {
	.size = sizeof(Written),
	.after = written_after,
	/* the session that commits it would not know of them */
	.refuses_prepare = "written counts of probes",
	.refusal_hint = "Try again.",
	.refusal_rank = 5
};

static void
counters_start(void *memory, LWLockPadded *locks, pg_attribute_unused() bool found)
{
	shared_counters = memory;
	lock = &locks->lock;
}

/* All that this folder sets up when the library is loaded: the counters of probes. */
void
sa_session_init(void)
{
	static const SaShmemPart part = {
		.name = "session_admin probes",
		.hash_entries = COUNTERS_MAX,
		.hash_key_size = sizeof(CounterKey),
		.hash_entry_size = sizeof(Counter),
		.n_locks = 1,
		.start = counters_start
	};

	sa_at_end_register(&written_kind);
	sa_shmem_add(&part);
}

static CounterKey
counter_key(Oid session_relid, uint64 rule)
{
	CounterKey	key;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	key.relation = session_relid;
	key.rule = rule;
	return key;
}

/* Count one; times never move backwards. */
static void
counter_count(Counter *counter, TimestampTz now)
{
	uint64		seen = pg_atomic_read_u64(&counter->last_at);

	pg_atomic_fetch_add_u64(&counter->probes, 1);
	while ((TimestampTz) seen < now &&
		   !pg_atomic_compare_exchange_u64(&counter->last_at, &seen, (uint64) now))
		;
}

static void
counter_init(Counter *counter)
{
	pg_atomic_init_u64(&counter->probes, 0);
	pg_atomic_init_u64(&counter->last_at, 0);
	counter->written_at = 0;
}

/* Count it where all see it; false if there is no such place. */
static bool
counter_count_shared(const CounterKey *key, TimestampTz now)
{
	Counter    *counter;
	bool		found;

	if (!sa_use_shared_memory || !sa_shmem_usable() || shared_counters == NULL)
		return false;

	LWLockAcquire(lock, LW_SHARED);
	counter = hash_search(shared_counters, key, HASH_FIND, NULL);
	if (counter != NULL)
		counter_count(counter, now);
	LWLockRelease(lock);
	if (counter != NULL)
		return true;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	counter = hash_search(shared_counters, key, HASH_ENTER_NULL, &found);
	if (counter != NULL)
	{
		if (!found)
			counter_init(counter);
		counter_count(counter, now);
	}
	LWLockRelease(lock);
	return counter != NULL;
}

/* This backend's counter of a rule, made if there is none. */
static Counter *
counter_of_backend(const CounterKey *key)
{
	Counter    *counter;
	bool		found;

	if (own_counters == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(CounterKey);
		ctl.entrysize = sizeof(Counter);
		own_counters = hash_create("session_admin probes", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	counter = hash_search(own_counters, key, HASH_ENTER, &found);
	if (!found)
		counter_init(counter);
	return counter;
}

/*
 * How many probes of a rule one of the places has that are not written, and when the last
 * one was.
 */
static uint64
counter_unwritten(const CounterKey *key, bool is_shared, TimestampTz *last_at)
{
	Counter    *counter = NULL;
	uint64		probes = 0;
	const Written *written;
	int			position = 0;

	if (is_shared && shared_counters != NULL)
	{
		LWLockAcquire(lock, LW_SHARED);
		counter = hash_search(shared_counters, key, HASH_FIND, NULL);
		if (counter != NULL)
		{
			probes = pg_atomic_read_u64(&counter->probes);
			*last_at = (TimestampTz) pg_atomic_read_u64(&counter->last_at);
		}
		LWLockRelease(lock);
	}
	else if (!is_shared && own_counters != NULL)
	{
		counter = hash_search(own_counters, key, HASH_FIND, NULL);
		if (counter != NULL)
		{
			probes = pg_atomic_read_u64(&counter->probes);
			*last_at = (TimestampTz) pg_atomic_read_u64(&counter->last_at);
		}
	}
	/* this transaction's own writes are in the table that it sees */
	while ((written = sa_at_end_next(&written_kind, &position)) != NULL)
	{
		if (written->is_shared == is_shared &&
			memcmp(&written->key, key, sizeof(CounterKey)) == 0)
			probes -= Min(probes, written->probes);
	}
	return probes;
}

/*
 * Write the count of a rule, unless another transaction does. The caller is connected to
 * SPI.
 */
static bool
counter_write(const CounterKey *key, bool is_shared, const char *application,
			  const char *user_agent_like, const char *address)
{
	static SaStatement lock_rule = {.sql =
		"SELECT FROM session_admin_internal.probe_rule WHERE application = $1"
		" AND user_agent_like IS NOT DISTINCT FROM $2"
		" AND address IS NOT DISTINCT FROM $3::cidr FOR NO KEY UPDATE SKIP LOCKED"
	};
	static SaStatement add = {.sql =
		"UPDATE session_admin_internal.probe_rule"
		" SET probes = probes + $4, last_probe_at = greatest(last_probe_at, $5)"
		" WHERE application = $1 AND user_agent_like IS NOT DISTINCT FROM $2"
		" AND address IS NOT DISTINCT FROM $3::cidr"
	};
	SaArgs		args = {0};
	TimestampTz last_at = 0;
	Written		written = {0};
	uint64		probes;

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_agent_like);
	sa_arg_text(&args, address);
	if (sa_run(&lock_rule, &args) == 0)
		return false;

	/* with the lock, so that no other transaction writes the same */
	probes = counter_unwritten(key, is_shared, &last_at);
	if (probes == 0)
		return false;

	sa_arg(&args, INT8OID, Int64GetDatum((int64) probes), false);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(last_at), false);
	sa_run(&add, &args);

	written.key = *key;
	written.probes = probes;
	written.is_shared = is_shared;
	sa_at_end_add(&written_kind, &written);
	return true;
}

/*
 * Is an anonymous session with these properties a probe?  Then count it.  The
 * caller is connected to SPI, and has just looked up the application.
 */
bool
sa_probe(const SaApplication *application, const char *user_agent, inet *address,
		 TimestampTz now)
{
	for (int i = 0; i < application->n_probe_rules; i++)
	{
		const SaProbeRule *rule = &application->probe_rules[i];
		CounterKey	key;
		Counter    *counter;

		if (!sa_probe_rule_matches(rule, user_agent, address))
			continue;

		key = counter_key(application->session_relid, rule->key);
		if (counter_count_shared(&key, now))
			return true;

		counter = counter_of_backend(&key);
		counter_count(counter, now);
		if (now - counter->written_at >= sa_touch_interval * USECS_PER_SEC &&
			!XactReadOnly && !RecoveryInProgress())
		{
			counter->written_at = now;
			counter_write(&key, false, application->name, rule->user_agent_like,
						  rule->address == NULL ? NULL :
						  DatumGetCString(DirectFunctionCall1(cidr_out, InetPGetDatum(rule->address))));
		}
		return true;
	}
	return false;
}

/* Forget the counters in shared memory of rules and databases that are gone. */
static void
counter_forget_stale(Oid session_relid, uint64 *rules, int n_rules)
{
	HASH_SEQ_STATUS status;
	Counter    *counter;
	CounterKey *keys = palloc(COUNTERS_MAX * sizeof(CounterKey));
	int			n = 0;

	LWLockAcquire(lock, LW_SHARED);
	hash_seq_init(&status, shared_counters);
	while ((counter = hash_seq_search(&status)) != NULL)
		keys[n++] = counter->key;
	LWLockRelease(lock);

	for (int i = 0; i < n; i++)
	{
		bool		stale;

		if (keys[i].database != MyDatabaseId)
			stale = !SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(keys[i].database));
		else
		{
			stale = true;
			for (int j = 0; stale && j < n_rules; j++)
				stale = keys[i].relation != session_relid || keys[i].rule != rules[j];
		}
		if (!stale)
			continue;
		LWLockAcquire(lock, LW_EXCLUSIVE);
		hash_search(shared_counters, &keys[i], HASH_REMOVE, NULL);
		LWLockRelease(lock);
	}
}

/* A task of maintain(): write what shared memory and this backend have counted. */
int64
sa_probes_flush(pg_attribute_unused() bool *more)
{
	static SaStatement list_rules = {.sql =
		"SELECT application::text, user_agent_like, address::text FROM session_admin_internal.probe_rule"
	};
	Oid			session_relid = sa_relation(SA_TABLE_SESSION);
	bool		any_shared = sa_shmem_usable() && shared_counters != NULL &&
	hash_get_num_entries(shared_counters) > 0;
	int64		done = 0;
	int			n;
	uint64	   *keys;
	char	  **names;

	if (!any_shared && own_counters == NULL)
		return 0;

	n = (int) sa_run(&list_rules, NULL);
	keys = palloc((n + 1) * sizeof(uint64));
	names = palloc((n + 1) * 3 * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		for (int column = 0; column < 3; column++)
			names[i * 3 + column] = sa_result_text(i, column + 1);
		keys[i] = sa_probe_rule_key(names[i * 3], names[i * 3 + 1], names[i * 3 + 2]);
	}
	for (int i = 0; i < n; i++)
	{
		CounterKey	key = counter_key(session_relid, keys[i]);
		TimestampTz last_at;
		bool		is_written = false;

		CHECK_FOR_INTERRUPTS();
		for (int is_shared = 0; is_shared <= 1; is_shared++)
			if (counter_unwritten(&key, is_shared != 0, &last_at) > 0 &&
				counter_write(&key, is_shared != 0, names[i * 3], names[i * 3 + 1], names[i * 3 + 2]))
				is_written = true;
		if (is_written)
			done++;
	}
	if (any_shared)
		counter_forget_stale(session_relid, keys, n);
	return done;
}

/* The two filters of a rule, checked, as arguments. */
static void
probe_rule_args(FunctionCallInfo fcinfo, SaArgs *args)
{
	char	   *user_agent_like = sa_text_or_null(fcinfo, 0);

	sa_arg_text(args, sa_application_arg(fcinfo, 2));
	if (user_agent_like == NULL && PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("neither a pattern nor an address is given"),
				 errhint("Give user_agent_like, address or both.")));
	if (user_agent_like != NULL)
	{
		size_t		length = strlen(user_agent_like);
		size_t		escapes = 0;

		if (length == 0 || length > PATTERN_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("pattern of user agents must have 1 to %d bytes, not %zu",
							PATTERN_MAX, length)));
		sa_check_printable("pattern of user agents", user_agent_like);
		while (escapes < length && user_agent_like[length - 1 - escapes] == '\\')
			escapes++;
		/* what LIKE would say, with each probe */
		if (escapes % 2 != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_ESCAPE_SEQUENCE),
					 errmsg("LIKE pattern must not end with escape character")));
	}
	sa_arg_text(args, user_agent_like);
	sa_arg(args, CIDROID, PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1), PG_ARGISNULL(1));
}

/* add_probe_rule(user_agent_like, address, application): false if there is such a rule */
Datum
sa_add_probe_rule(PG_FUNCTION_ARGS)
{
	static SaStatement insert_rule = {.sql =
		"INSERT INTO session_admin_internal.probe_rule (application, user_agent_like, address)"
		" VALUES ($1, $2, $3)"
		" ON CONFLICT (application, user_agent_like, address) DO NOTHING"
	};
	SaApplication application;
	SaArgs		args = {0};
	bool		added;

	probe_rule_args(fcinfo, &args);
	SPI_connect();
	sa_application_ensure(sa_application_arg(fcinfo, 2), &application);
	added = sa_run(&insert_rule, &args) > 0;
	SPI_finish();

	PG_RETURN_BOOL(added);
}

/* remove_probe_rule(user_agent_like, address, application): false if there is none */
Datum
sa_remove_probe_rule(PG_FUNCTION_ARGS)
{
	static SaStatement delete_rule = {.sql =
		"DELETE FROM session_admin_internal.probe_rule WHERE application = $1"
		" AND user_agent_like IS NOT DISTINCT FROM $2 AND address IS NOT DISTINCT FROM $3"
	};
	SaArgs		args = {0};
	bool		removed;

	probe_rule_args(fcinfo, &args);
	SPI_connect();
	removed = sa_run(&delete_rule, &args) > 0;
	SPI_finish();

	PG_RETURN_BOOL(removed);
}

/*
 * live_probes(application, user_agent_like, address): how many probes the row of
 * the rule does not count yet, and when the last one was
 */
Datum
sa_live_probes(PG_FUNCTION_ARGS)
{
	char	   *application = sa_text_or_null(fcinfo, 0);
	char	   *user_agent_like = sa_text_or_null(fcinfo, 1);
	char	   *address = PG_ARGISNULL(2) ? NULL :
	DatumGetCString(DirectFunctionCall1(cidr_out, PG_GETARG_DATUM(2)));
	TupleDesc	tupdesc;
	Datum		values[2];
	bool		nulls[2] = {false, true};
	TimestampTz last_at[2] = {0, 0};
	int64		probes = 0;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	if (application != NULL)
	{
		Oid			session_relid =
		sa_relation(SA_TABLE_SESSION);
		CounterKey	key = counter_key(session_relid,
									  sa_probe_rule_key(application, user_agent_like, address));

		probes = (int64) (counter_unwritten(&key, true, &last_at[0]) + counter_unwritten(&key, false, &last_at[1]));
	}

	values[0] = Int64GetDatum(probes);
	nulls[1] = probes == 0;
	values[1] = TimestampTzGetDatum(Max(last_at[0], last_at[1]));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls));
}
