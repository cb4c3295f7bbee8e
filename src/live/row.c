/*
 * row.c
 *	  The row of a session: reads it, and tells whether the session is valid.
 */
#include "live/live.h"
#include "policy/policy.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

/* An idle timeout in microseconds, at least one: 0 would be none. */
int64
sa_usecs_of_interval(const Interval *interval)
{
	return Max(interval->time +
			   (interval->month * (int64) DAYS_PER_MONTH + interval->day) * USECS_PER_DAY, 1);
}

/* The idle timeout of a row of session, as in SaSession. */
int64
sa_session_idle_timeout(TupleTableSlot *slot)
{
	bool		isnull;
	Interval   *timeout;

	if (slot_attisnull(slot, SA_SESSION_PRODUCT))
		return 0;
	timeout = DatumGetIntervalP(slot_getattr(slot, SA_SESSION_IDLE_TIMEOUT, &isnull));
	if (isnull)
		return SA_NO_TIMEOUT;
	return sa_usecs_of_interval(timeout);
}

/* The transaction in which the user of a row of session logged in. */
uint64
sa_session_opened_xid(TupleTableSlot *slot)
{
	bool		isnull;

	return U64FromFullTransactionId(DatumGetFullTransactionId(slot_getattr(slot, SA_SESSION_OPENED_XID, &isnull)));
}

/* What the row says of a session, but for its user. */
static void
session_from_slot(TupleTableSlot *slot, SaSession *session)
{
	bool		isnull;

	memset(session, 0, sizeof(*session));
	session->generation = DatumGetInt64(slot_getattr(slot, SA_SESSION_GENERATION, &isnull));
	session->created_at = DatumGetTimestampTz(slot_getattr(slot, SA_SESSION_CREATED_AT, &isnull));
	session->last_access_at = DatumGetTimestampTz(slot_getattr(slot, SA_SESSION_LAST_ACCESS_AT, &isnull));
	session->idle_timeout = sa_session_idle_timeout(slot);
	session->opened_xid = sa_session_opened_xid(slot);
}

/* Read the row of a session as the snapshot has it; false if there is none. */
bool
sa_session_read_at(Snapshot snapshot, const uint8 *hash, const char *application,
				   SaSession *session)
{
	Oid			relid = sa_relation(SA_TABLE_SESSION);
	Relation	rel = table_open(relid, AccessShareLock);
	Relation	index = index_open(sa_primary_key_index(rel), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan;
	ScanKeyData keys[2];
	bool		found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_BYTEAEQ,
				PointerGetDatum(sa_bytea(hash, SA_HASH_LEN)));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(application));

	snapshot = RegisterSnapshot(snapshot);
	scan = sa_index_beginscan(rel, index, snapshot, lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);

	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
	{
		bool		isnull;
		Datum		user_name;
		Datum		xmin;

		slot_getsomeattrs(slot, SA_SESSION_OPENED_XID);
		session_from_slot(slot, session);
		user_name = slot_getattr(slot, SA_SESSION_USER_NAME, &isnull);
		session->user_name = isnull ? NULL : TextDatumGetCString(user_name);
		session->user_key = sa_user_key(session->user_name);
		xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull);
		session->written_here = TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
	}

	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);

	return found;
}

/* Read the row of a session as it is now; false if there is none. */
bool
sa_session_read(const uint8 *hash, const char *application, SaSession *session)
{
	return sa_session_read_at(GetLatestSnapshot(), hash, application, session);
}

/* Is the session, whose row was read, valid now? */
bool
sa_session_is_valid(const SaSession *session, const SaApplication *application,
					const uint8 *hash, TimestampTz now)
{
	SaLiveKey	key;
	TimestampTz last_access_at;
	int64		requests;

	if (sa_late_ended(application, session->user_key, hash, session->opened_xid))
		return false;
	if (sa_times_are_valid(application, session->user_key, session->generation,
						   session->created_at, session->last_access_at,
						   session->idle_timeout, now))
		return true;

	/* perhaps it was used since */
	sa_live_key(&key, application, hash);
	sa_live_read(&key, &last_access_at, &requests);
	return last_access_at > session->last_access_at &&
		sa_times_are_valid(application, session->user_key, session->generation,
						   session->created_at, last_access_at,
						   session->idle_timeout, now);
}

/* Is the session in this row valid now? */
bool
sa_session_row_is_valid(TupleTableSlot *slot, const SaApplication *application,
						const uint8 *hash, TimestampTz now)
{
	SaSession	session;
	bool		anonymous;
	Datum		user_name = slot_getattr(slot, SA_SESSION_USER_NAME, &anonymous);

	session_from_slot(slot, &session);

	/*
	 * where nothing is set for single users, it does not matter which one it
	 * is
	 */
	if (!anonymous)
		session.user_key = application->n_user_limits == 0 && application->n_late_endings == 0 ? 1 :
			sa_user_key(TextDatumGetCString(user_name));
	return sa_session_is_valid(&session, application, hash, now);
}
