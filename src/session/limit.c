/*
 * limit.c
 *	  How many sessions there may be: of a user, of an application (seats), and without a
 *	  user.
 *
 * No limit is ever exceeded by what is committed, and a login that is under way holds its
 * place.  README.md says how, with no lock that is held until commit.
 */
#include "session/session.h"
#include "policy/policy.h"
#include "live/live.h"
#include "ending/ending.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * Where counting takes long, and there is no room, a backend does not count
 * again before this many times as long has gone by.
 */
#define COUNT_PAUSE		10
#define COUNT_LONG		(5 * 1000)	/* microseconds */
#define COUNT_PAUSE_MAX	USECS_PER_SEC

/* What this backend knows of an application's seats. */
typedef struct EstimateKey
{
	Oid			session_relid;
	int			anonymous;
	uint64		application;
} EstimateKey;

typedef struct Estimate
{
	EstimateKey key;
	uint64		policies_read;	/* what it was counted by; 0: not counted yet */
	int64		counted;		/* sessions, at that ticket */
	int64		ticket;
	TimestampTz full_until;
} Estimate;

/* Of a new version of a row, or a new row, that is not committed yet. */
typedef struct SessionHash
{
	uint8		bytes[SA_HASH_LEN];
} SessionHash;

static HTAB *estimates = NULL;

static Estimate *
limit_find_estimate(const SaApplication *application, bool anonymous)
{
	EstimateKey key = {0};
	Estimate   *estimate;
	bool		found;

	if (estimates == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(EstimateKey);
		ctl.entrysize = sizeof(Estimate);
		estimates = hash_create("session_admin seats", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}

	key.session_relid = application->session_relid;
	key.anonymous = anonymous;
	key.application = application->key;
	estimate = hash_search(estimates, &key, HASH_ENTER, &found);
	if (!found || estimate->policies_read != application->policies_read)
	{
		/* with other time limits, sessions that had ended may be live again */
		estimate->policies_read = 0;
		estimate->full_until = 0;
	}
	return estimate;
}

static int
limit_compare_hashes(const void *a, const void *b)
{
	return memcmp(a, b, SA_HASH_LEN);
}

/*
 * Count the live sessions of this kind in the application, including those that are not
 * committed yet, but not this one. Counting stops at the limit.
 *
 * It looks at all versions of the rows: an MVCC snapshot tells which version counts. A
 * version that was made since the snapshot, or that is not committed, is either of a row
 * that the snapshot has, too, or of a new one.
 */
static int64
limit_count(const SaApplication *application, bool anonymous, const uint8 *except,
			TimestampTz now, int64 limit)
{
	Relation	rel = table_open(application->session_relid, AccessShareLock);
	Relation	index = index_open(sa_relation(SA_INDEX_SESSION_APPLICATION), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	SessionHash *uncommitted = palloc(sizeof(SessionHash));
	int			n_uncommitted = 0;
	int			max_uncommitted = 1;
	IndexScanDesc scan;
	ScanKeyData keys[2];
	int64		n = 0;

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(application->name));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_BOOLEQ, BoolGetDatum(anonymous));
	scan = sa_index_beginscan(rel, index, SnapshotAny, lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);

	while (n < limit && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		bytea	   *value = DatumGetByteaPP(slot_getattr(slot, SA_SESSION_HASH, &isnull));
		uint8	   *hash = (uint8 *) VARDATA_ANY(value);
		TransactionId xmin;

		CHECK_FOR_INTERRUPTS();
		if (memcmp(hash, except, SA_HASH_LEN) == 0 ||
			!sa_session_row_is_valid(slot, application, hash, now))
			continue;
		if (table_tuple_satisfies_snapshot(rel, slot, snapshot))
		{
			n++;
			continue;
		}

		xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber,
													 &isnull));
		if (!TransactionIdIsNormal(xmin) || TransactionIdIsCurrentTransactionId(xmin) ||
			!XidInMVCCSnapshot(xmin, snapshot) || TransactionIdDidAbort(xmin))
			continue;
		if (n_uncommitted == max_uncommitted)
		{
			max_uncommitted *= 2;
			uncommitted = repalloc_huge(uncommitted, max_uncommitted * sizeof(SessionHash));
		}
		memcpy(uncommitted[n_uncommitted++].bytes, hash, SA_HASH_LEN);
	}
	index_endscan(scan);

	qsort(uncommitted, n_uncommitted, sizeof(SessionHash), limit_compare_hashes);
	for (int i = 0; i < n_uncommitted && n < limit; i++)
	{
		const uint8 *hash = uncommitted[i].bytes;
		SaSession	session;

		if (i > 0 && memcmp(hash, uncommitted[i - 1].bytes, SA_HASH_LEN) == 0)
			continue;
		CHECK_FOR_INTERRUPTS();
		if (!sa_session_read_at(snapshot, hash, application->name, &session) ||
			!sa_session_is_valid(&session, application, hash, now))
			n++;
	}

	pfree(uncommitted);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return n;
}

pg_noreturn static void
limit_refuse(const SaApplication *application, bool anonymous)
{
	if (anonymous)
		ereport(ERROR,
				(errcode(SA_ERRCODE_LIMIT),
				 errmsg("limit of anonymous sessions reached in application \"%s\"",
						application->name),
				 errhint("See the policy \"max_anonymous_sessions\".")));
	ereport(ERROR,
			(errcode(SA_ERRCODE_LIMIT),
			 errmsg("session limit reached in application \"%s\"", application->name),
			 errhint("End a session, or see the policy \"max_sessions\".")));
}

/*
 * Before a session with this id is inserted (user_name NULL: an anonymous one),
 * the application made already: take a seat, or refuse.  The caller is connected
 * to SPI, inserts at once, and then calls sa_seat_release.
 */
void
sa_seat_take(SaSeat *seat, const char *application_name, const char *user_name,
			 const uint8 *hash)
{
	bool		anonymous = user_name == NULL;
	Oid			ticket_relid = sa_relation(SA_SEQUENCE_SEAT_TICKET);
	SaApplication application;

	sa_application_get(application_name, &application);
	seat->session_relid = application.session_relid;
	seat->application = (uint32) application.key;
	seat->kind = anonymous ? 2 : 1;
	seat->lockmode = ShareLock;

	for (;;)
	{
		TimestampTz now;
		Estimate   *estimate;
		int64		limit;
		int64		ticket;
		int64		n;
		TimestampTz counted_at;

		/* an object that nothing else locks */
		LockDatabaseObject(seat->session_relid, seat->application, seat->kind, seat->lockmode);

		sa_application_get(application_name, &application);
		limit = anonymous ? application.max_anonymous_sessions : application.max_sessions;
		if (limit < 0)
			return;

		ticket = nextval_internal(ticket_relid, false);
		estimate = limit_find_estimate(&application, anonymous);
		if (estimate->policies_read != 0 &&
			estimate->counted + (ticket - estimate->ticket) <= limit)
			return;

		now = GetCurrentTimestamp();
		if (now < estimate->full_until)
			limit_refuse(&application, anonymous);

		if (seat->lockmode == ShareLock)
		{
			sa_seat_release(seat);
			seat->lockmode = ExclusiveLock;
			continue;
		}

		n = limit_count(&application, anonymous, hash, now, limit);
		counted_at = GetCurrentTimestamp();
		if (n >= limit)
		{
			if (counted_at - now > COUNT_LONG)
				estimate->full_until = counted_at +
					Min(COUNT_PAUSE * (counted_at - now), COUNT_PAUSE_MAX);
			limit_refuse(&application, anonymous);
		}
		estimate->policies_read = application.policies_read;
		estimate->counted = n + 1;
		estimate->ticket = ticket;
		return;
	}
}

/* After that row is in the table, committed or not. */
void
sa_seat_release(const SaSeat *seat)
{
	UnlockDatabaseObject(seat->session_relid, seat->application, seat->kind, seat->lockmode);
}

/*
 * How many live sessions has the user, whose account is locked, not counting one
 * that will be replaced?
 */
static int64
limit_count_of_user(const SaApplication *application, const char *user_name,
					const uint8 *except, TimestampTz now)
{
	Relation	rel = table_open(application->session_relid, AccessShareLock);
	Relation	index = index_open(sa_relation(SA_INDEX_SESSION_USER_NAME), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan;
	ScanKeyData keys[2];
	int64		n = 0;

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(user_name));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(application->name));
	scan = sa_index_beginscan(rel, index, snapshot, lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);

	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		bytea	   *value = DatumGetByteaPP(slot_getattr(slot, SA_SESSION_HASH, &isnull));
		uint8	   *hash = (uint8 *) VARDATA_ANY(value);

		CHECK_FOR_INTERRUPTS();
		if (memcmp(hash, except, SA_HASH_LEN) != 0 && sa_session_row_is_valid(slot, application, hash, now))
			n++;
	}

	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return n;
}

/*
 * Before a session with this id is opened for a user whose account is locked:
 * make room for it, if the policy says so, or refuse.  The caller is connected
 * to SPI.
 */
void
sa_limit_user(const SaApplication *application, const char *user_name, const uint8 *hash,
			  TimestampTz now)
{
	static SaStatement find_oldest = {.sql =
		"SELECT coalesce(array_agg(session_hash), '{}') FROM ("
		"  SELECT session_hash FROM session_admin_internal.session_state"
		"  WHERE application = $1 AND user_name = $2 AND session_hash <> $3 AND ended_at IS NULL"
		"  ORDER BY last_access_at DESC, created_at DESC, session_hash OFFSET $4) o"
	};
	int			on_session_limit;
	int64		limit = sa_max_sessions(application, user_name, &on_session_limit);
	SaApplication current = *application;
	SaArgs		args = {0};

	if (limit < 0)
		return;

	/*
	 * a session that is live by this is live by session_state, too, even if
	 * the clock was set back
	 */
	now = Max(now, GetCurrentStatementStartTimestamp());
	sa_arg_text(&args, application->name);
	sa_arg_text(&args, user_name);
	sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(hash, SA_HASH_LEN)), false);
	for (;;)
	{
		SaEnding	ending = {.reason = "session_limit", .at = now};
		SaArgs		find_args = args;
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (limit > 0 && limit_count_of_user(&current, user_name, hash, now) < limit)
			return;
		if (limit == 0 || on_session_limit != SA_EVICT_OLDEST)
			ereport(ERROR,
					(errcode(SA_ERRCODE_LIMIT),
					 errmsg("session limit reached for user \"%s\"",
							sa_clean(user_name, strlen(user_name), SA_USER_NAME_MAX)),
					 errhint("End one of the user's sessions, or see the policies \"max_sessions_per_user\" and \"on_session_limit\".")));
		sa_arg(&find_args, INT8OID, Int64GetDatum(limit - 1), false);
		sa_run(&find_oldest, &find_args);
		sa_end_sessions(DatumGetArrayTypePCopy(sa_result(0, 1, &isnull)), application->name, &ending,
						NULL);
		/* that looked applications up, and may have freed what ours points to */
		sa_application_get(application->name, &current);
	}
}
