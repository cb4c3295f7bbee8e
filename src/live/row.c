/*
 * row.c
 *	  The row of a session: reads it, and tells whether the session is valid.
 */
#include "live/live.h"
#include "policy/policy.h"

#include "access/xact.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
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

/* What sa_session_read_at() gives. */
static void
session_read_slot(TupleTableSlot *slot, void *argument)
{
	SaSession  *session = argument;
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

/*
 * Find the row of a session as the snapshot (NULL: the latest) has it, and call visit()
 * with it; false if there is none.
 */
bool
sa_session_visit(Snapshot snapshot, const uint8 *hash, const char *application,
				 void (*visit) (TupleTableSlot *slot, void *argument), void *argument)
{
	SaScan		scan;
	ScanKeyData keys[2];
	bool		found;

	sa_scan_key_hash(&keys[0], 1, hash);
	sa_scan_key_text(&keys[1], 2, application);
	sa_scan_begin_at(&scan, SA_TABLE_SESSION, SA_INDEX_SESSION_KEY, snapshot, keys, lengthof(keys));

	found = sa_scan_next(&scan);
	if (found)
		visit(scan.slot, argument);
	sa_scan_end(&scan);
	return found;
}

/* Read the row of a session as the snapshot has it; false if there is none. */
bool
sa_session_read_at(Snapshot snapshot, const uint8 *hash, const char *application,
				   SaSession *session)
{
	return sa_session_visit(snapshot, hash, application, session_read_slot, session);
}

/* Read the row of a session as it is now; false if there is none. */
bool
sa_session_read(const uint8 *hash, const char *application, SaSession *session)
{
	return sa_session_read_at(NULL, hash, application, session);
}

/*
 * Is the session, whose row was read, valid now?  The time limit of its user is read, too,
 * unless it has ended late.
 */
bool
sa_session_is_valid(SaSession *session, const SaApplication *application,
					const uint8 *hash, TimestampTz now)
{
	SaLiveKey	key;
	TimestampTz last_access_at;
	int64		requests;

	if (sa_late_ended(application, session->user_key, hash, session->opened_xid))
		return false;
	sa_time_limit_read(application, session->user_name, &session->limit);
	if (sa_times_are_valid(application, session->user_key, &session->limit, session->generation,
						   session->created_at, session->last_access_at,
						   session->idle_timeout, now))
		return true;

	/* perhaps it was used since */
	sa_live_key(&key, application, hash);
	sa_live_read(&key, &last_access_at, &requests);
	return last_access_at > session->last_access_at &&
		sa_times_are_valid(application, session->user_key, &session->limit, session->generation,
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
	{
		if (application->has_user_limits || application->n_late_endings > 0)
			session.user_name = TextDatumGetCString(user_name);
		session.user_key = session.user_name == NULL ? 1 : sa_user_key(session.user_name);
	}
	return sa_session_is_valid(&session, application, hash, now);
}
