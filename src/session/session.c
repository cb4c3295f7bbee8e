/*
 * session.c
 *	  Sessions: open, touch, renew, reauthenticate, close, and failed logins.
 *
 * A touch asks one question: is this session still valid?  It reads the row by
 * its key with the latest snapshot, whatever the caller's, and writes no more
 * often than session_admin.touch_interval, or three times in the session's idle
 * timeout if that is shorter; requests in between are counted in this backend
 * (live.c).  It never waits: a row that somebody else has locked is written at a
 * later touch.  Nor does it write in a READ ONLY transaction, which asked for that:
 * a session that is touched in no other ends by its idle timeout for other backends.
 */
#include "session_admin.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

PG_FUNCTION_INFO_V1(sa_open_session);
PG_FUNCTION_INFO_V1(sa_touch_session);
PG_FUNCTION_INFO_V1(sa_touch_sessions);
PG_FUNCTION_INFO_V1(sa_touch_sessions_text);
PG_FUNCTION_INFO_V1(sa_renew_session);
PG_FUNCTION_INFO_V1(sa_reauthenticate);
PG_FUNCTION_INFO_V1(sa_close_session);
PG_FUNCTION_INFO_V1(sa_login_failed);

/* So often is the last access of a session that is in use written in its idle timeout. */
#define WRITES_PER_TIMEOUT	3

/* Are touches being written to their rows? */
bool		sa_session_writing = false;

/* An idle timeout in microseconds, at least one. */
int64
sa_microseconds(const Interval *interval)
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
	return sa_microseconds(timeout);
}

/* The transaction in which the user of a row of session logged in. */
uint64
sa_session_opened_xid(TupleTableSlot *slot)
{
	bool		isnull;

	return U64FromFullTransactionId(DatumGetFullTransactionId(slot_getattr(slot, SA_SESSION_OPENED_XID, &isnull)));
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
		session->generation = DatumGetInt64(slot_getattr(slot, SA_SESSION_GENERATION, &isnull));
		session->created_at = DatumGetTimestampTz(slot_getattr(slot, SA_SESSION_CREATED_AT, &isnull));
		session->last_access_at = DatumGetTimestampTz(slot_getattr(slot, SA_SESSION_LAST_ACCESS_AT, &isnull));
		user_name = slot_getattr(slot, SA_SESSION_USER_NAME, &isnull);
		session->user_name = isnull ? NULL : TextDatumGetCString(user_name);
		session->user_key = sa_user_key(session->user_name);
		session->idle_timeout = sa_session_idle_timeout(slot);
		session->opened_xid = sa_session_opened_xid(slot);
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

/* The same with the latest snapshot. */
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

/* Run a statement that writes touches to their rows, and nothing else. */
uint64
sa_run_writing(SaStatement *statement, SaArgs *args)
{
	uint64		rows;

	sa_session_writing = true;
	PG_TRY();
	{
		rows = sa_run(statement, args);
	}
	PG_FINALLY();
	{
		sa_session_writing = false;
	}
	PG_END_TRY();

	return rows;
}

/* Write last access and requests, unless somebody else has the row locked. */
static void
write_touch(const SaLiveKey *key, const char *application, TimestampTz now, int64 requests)
{
	static SaStatement update_session = {.sql =
		"UPDATE session_admin.session s"
		" SET last_access_at = greatest(s.last_access_at, $3), requests = s.requests + $4"
		" FROM (SELECT session_hash, application FROM session_admin.session"
		"   WHERE session_hash = $1 AND application = $2 FOR NO KEY UPDATE SKIP LOCKED) l"
		" WHERE s.session_hash = l.session_hash AND s.application = l.application"
	};
	SaArgs		args = {0};
	SaOwner		owner;

	sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(key->hash, SA_HASH_LEN)), false);
	sa_arg_text(&args, application);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
	sa_arg(&args, INT8OID, Int64GetDatum(requests), false);

	sa_owner_enter(&owner);
	SPI_connect();
	if (sa_run_writing(&update_session, &args) > 0)
		sa_unwritten_written(key);
	SPI_finish();
	sa_owner_leave(&owner);
}

/*
 * How old may the row's last access be?  Other backends know no other one: by what
 * the row tells, no session that is in use may come near to its end.
 */
static int64
write_interval(const SaApplication *application, const SaSession *session)
{
	int64		idle_timeout = sa_idle_timeout(application, session->user_key, session->idle_timeout);

	return Min(sa_touch_interval * USECS_PER_SEC, idle_timeout / WRITES_PER_TIMEOUT);
}

/*
 * Count requests of a session and tell whether it is still valid, and has got the
 * idle timeout that its product tells (0: no matter).
 */
bool
sa_session_touch(const uint8 *hash, const SaApplication *application, int64 requests,
				 int64 idle_timeout)
{
	TimestampTz now = GetCurrentTimestamp();
	SaLiveFill	fill;
	SaLiveKey	key;
	SaSession	session;
	int64		unwritten;

	if (sa_live_touch(application, hash, now, requests, idle_timeout))
		return true;

	sa_live_fill_start(&fill, application, hash);
	sa_test_point("fill_start");
	if (!sa_session_read(hash, application->name, &session))
		return false;

	sa_live_key(&key, application, hash);
	if (!sa_session_is_valid(&session, application, hash, now) ||
		!sa_idle_timeout_holds(session.idle_timeout, idle_timeout))
		return false;

	sa_test_point("fill_read");
	if (sa_live_fill(&fill, &session, now, requests))
		return true;

	/*
	 * a row of this very transaction is written at no lock's cost, and aborts
	 * with it
	 */
	unwritten = sa_unwritten_count(&key, session.created_at, now, requests);
	if ((now - session.last_access_at >= write_interval(application, &session) ||
		 (session.written_here && sa_use_shared_memory && sa_live_enabled())) &&
		!XactReadOnly && !RecoveryInProgress())
		write_touch(&key, application->name, now, unwritten);
	return true;
}

/* touch_session(session_id, application) */
Datum
sa_touch_session(PG_FUNCTION_ARGS)
{
	uint8		hash[SA_HASH_LEN];
	SaApplication application;

	sa_session_hash_arg(fcinfo, 0, hash);
	PG_RETURN_BOOL(sa_application_find(sa_application_arg(fcinfo, 1), &application) &&
				   sa_session_touch(hash, &application, 1, 0));
}

/* Touch all of them, and give those that are not valid. */
static Datum
touch_all(FunctionCallInfo fcinfo, ArrayType *ids)
{
	Oid			type = ARR_ELEMTYPE(ids);
	char	   *name = sa_application_arg(fcinfo, 2);
	SaApplication application;
	Datum	   *values;
	bool	   *nulls;
	int			n;
	Datum	   *requests = NULL;
	bool	   *no_requests = NULL;
	ArrayBuildState *invalid;
	bool		known;
	TimestampTz now;

	deconstruct_array(ids, type, -1, false, TYPALIGN_INT, &values, &nulls, &n);

	if (!PG_ARGISNULL(1))
	{
		int			n_requests;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
						  &requests, &no_requests, &n_requests);
		if (n_requests != n)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there must be as many request counts as session ids"),
					 errdetail("There are %d session ids and %d request counts.", n, n_requests)));
	}

	/*
	 * what holds when the call starts holds for all of it, as far as memory
	 * tells
	 */
	known = sa_application_find(name, &application);
	now = GetCurrentTimestamp();

	invalid = initArrayResult(type, CurrentMemoryContext, true);
	for (int i = 0; i < n; i++)
	{
		int64		count = requests == NULL ? 1 : no_requests[i] ? 0 : DatumGetInt64(requests[i]);
		uint8		hash[SA_HASH_LEN];

		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("session id must not be null")));
		if (count < 0 || count > SA_REQUESTS_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("request count must be between 0 and %d", SA_REQUESTS_MAX)));

		sa_session_hash_from_datum(values[i], type, hash);
		if (known && sa_live_touch(&application, hash, now, count, 0))
			continue;
		known = sa_application_find(name, &application);
		if (!known || !sa_session_touch(hash, &application, count, 0))
			accumArrayResult(invalid, values[i], false, type, CurrentMemoryContext);
	}

	PG_RETURN_DATUM(makeArrayResult(invalid, CurrentMemoryContext));
}

static void
refuse_null_array(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("array of session ids must not be null")));
}

/* touch_sessions(session_ids, requests, application) */
Datum
sa_touch_sessions(PG_FUNCTION_ARGS)
{
	refuse_null_array(fcinfo);
	return touch_all(fcinfo, PG_GETARG_ARRAYTYPE_P(0));
}

/* The error of the input function shows the ids; ours does not. */
static void
malformed_array_callback(pg_attribute_unused() void *arg)
{
	if (geterrcode() == ERRCODE_INVALID_TEXT_REPRESENTATION)
		errmsg("malformed array of session ids");
}

/*
 * The same with the array as text: what a literal without a type is taken for,
 * which could be an array of ids as well as of hashes.
 */
Datum
sa_touch_sessions_text(PG_FUNCTION_ARGS)
{
	ErrorContextCallback callback = {.callback = malformed_array_callback};
	Oid			input;
	Oid			element;
	Datum		ids;

	refuse_null_array(fcinfo);
	getTypeInputInfo(TEXTARRAYOID, &input, &element);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	ids = OidInputFunctionCall(input, text_to_cstring(PG_GETARG_TEXT_PP(0)), element, -1);
	error_context_stack = callback.previous;
	return touch_all(fcinfo, DatumGetArrayTypeP(ids));
}

/*
 * open_session(session_id, user_name, client_address, forwarded_for, user_agent,
 * device, node, login_method, application)
 */
Datum
sa_open_session(PG_FUNCTION_ARGS)
{
	static SaStatement insert_session = {.sql =
		"INSERT INTO session_admin.session (session_hash, application, generation, created_at,"
		" last_access_at, user_name, login_method, client_address, peer_address, log_id,"
		" user_agent, device, node)"
		" VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
		" ON CONFLICT (session_hash, application) DO NOTHING"
	};
	static SaStatement delete_session = {.sql =
		"DELETE FROM session_admin.session WHERE session_hash = $1 AND application = $2"
	};
	SaSessionId id;
	char	   *user_name = sa_text_or_null(fcinfo, 1);
	inet	   *peer = PG_ARGISNULL(2) ? NULL : PG_GETARG_INET_PP(2);
	char	   *user_agent = sa_cleaned_or_null(fcinfo, 4, SA_USER_AGENT_MAX);
	char	   *device = sa_cleaned_or_null(fcinfo, 5, SA_LABEL_MAX);
	char	   *node = sa_cleaned_or_null(fcinfo, 6, SA_LABEL_MAX);
	char	   *login_method = sa_cleaned_or_null(fcinfo, 7, SA_LABEL_MAX);
	char	   *application_name = sa_application_arg(fcinfo, 8);
	TimestampTz now;
	SaApplication application;
	inet	   *address;
	SaLiveKey	key;
	SaSeat		seat;
	SaArgs		args = {0};
	text	   *ref;

	sa_session_id_arg(fcinfo, 0, &id);
	if (user_name != NULL)
		sa_check_user_name(user_name);

	SPI_connect();
	sa_application_make(application_name, &application);
	address = sa_client_address(peer, sa_text_or_null(fcinfo, 3), application.trusted_proxies);
	now = GetCurrentTimestamp();
	if (user_name == NULL && sa_probe(&application, user_agent, address, now))
	{
		SPI_finish();
		PG_RETURN_NULL();
	}
	if (sa_id_has_ended(id.hash, application_name))
		sa_refuse_ended_id();
	if (user_name != NULL)
	{
		sa_account_logged_in(application_name, user_name, now, address, login_method);
		/* the lock may have been waited for */
		sa_application_get(application_name, &application);
		now = GetCurrentTimestamp();
		sa_limit_user(&application, user_name, id.hash, now);
	}

	sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(id.hash, SA_HASH_LEN)), false);
	sa_arg_text(&args, application_name);
	sa_arg(&args, INT8OID, Int64GetDatum(application.generation), false);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
	sa_arg_text(&args, user_name);
	sa_arg_text(&args, login_method);
	sa_arg(&args, INETOID, InetPGetDatum(address), address == NULL);
	sa_arg(&args, INETOID, InetPGetDatum(peer), peer == NULL);
	sa_arg_text(&args, id.log_id[0] ? id.log_id : NULL);
	sa_arg_text(&args, user_agent);
	sa_arg_text(&args, device);
	sa_arg_text(&args, node);

	for (;;)
	{
		SaEnding	ending = {.reason = "replaced", .at = now, .spares_products = true};
		SaArgs		in_use = {0};
		uint64		inserted;

		sa_seat_take(&seat, application_name, user_name, id.hash);
		inserted = sa_run(&insert_session, &args);
		sa_seat_taken(&seat);
		if (inserted > 0)
			break;

		/* the id is in use: what it was used for ends */
		CHECK_FOR_INTERRUPTS();
		if (sa_id_has_ended(id.hash, application_name))
			sa_refuse_ended_id();
		sa_arg(&in_use, BYTEAOID, args.values[0], false);
		sa_arg_text(&in_use, application_name);
		sa_run_ending(&ending, &delete_session, &in_use);
	}
	/* it may have ended while we waited for its key */
	if (sa_id_is_remembered(id.hash, application_name))
		sa_refuse_ended_id();
	/* what an earlier session of this id was touched is not this one's */
	sa_live_key(&key, &application, id.hash);
	sa_unwritten_written(&key);

	if (user_name != NULL)
	{
		SaLoginEvent event = {
			.application = application_name,
			.user_name = user_name,
			.event = "login",
			.succeeded = true,
			.login_method = login_method,
			.client_address = address,
			.user_agent = user_agent,
			.device = device,
			.node = node,
			.session_ref = text_to_cstring(sa_ref_text(id.hash)),
			.at = now
		};

		sa_login_event_record(&event);
	}
	SPI_finish();

	ref = sa_ref_text(id.hash);
	PG_RETURN_TEXT_P(ref);
}

/*
 * renew_session(old_id, new_id, application)
 *
 * Like a login, it locks the user's account first, so that an invalidation of
 * the user ends the session under one id or the other.
 */
Datum
sa_renew_session(PG_FUNCTION_ARGS)
{
	static SaStatement copy_session = {.sql =
		"INSERT INTO session_admin.session (session_hash, application, generation, created_at,"
		" last_access_at, requests, user_name, login_method, client_address, peer_address,"
		" log_id, user_agent, device, node, reauthenticated_at, opened_xid)"
		" SELECT $3, application, generation, created_at,"
		"  greatest(last_access_at, session_admin_internal.live_last_access(session_hash, application), $5),"
		"  requests + coalesce(session_admin_internal.live_requests(session_hash, application), 0),"
		"  user_name, login_method, client_address, peer_address, $4, user_agent, device, node,"

		/*
		 * what is kept, while its user's others end late, is kept under its
		 * new id, too
		 */
		"  reauthenticated_at,"
		"  CASE WHEN EXISTS (SELECT FROM session_admin_internal.late_ending WHERE keep_hash = session_hash)"
		"    THEN pg_current_xact_id() ELSE opened_xid END"
		" FROM session_admin.session WHERE session_hash = $1 AND application = $2"
		" FOR NO KEY UPDATE"
	};
	static SaStatement delete_session = {.sql =
		"DELETE FROM session_admin.session WHERE session_hash = $1 AND application = $2"
	};
	SaSessionId old_id;
	SaSessionId new_id;
	char	   *application_name = sa_application_arg(fcinfo, 2);
	SaEnding	ending = {.reason = "renewed", .spares_products = true};
	SaApplication application;
	SaSession	session;
	SaArgs		key = {0};
	SaArgs		args = {0};
	bool		valid;

	sa_session_id_arg(fcinfo, 0, &old_id);
	sa_session_id_arg(fcinfo, 1, &new_id);
	if (memcmp(old_id.hash, new_id.hash, SA_HASH_LEN) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("new session id must not be the old one")));

	SPI_connect();
	valid = sa_session_read(old_id.hash, application_name, &session);
	if (valid && session.user_name != NULL)
	{
		sa_account_lock(application_name, session.user_name);
		valid = sa_session_read(old_id.hash, application_name, &session);
	}
	ending.at = GetCurrentTimestamp();
	valid = valid && sa_application_find(application_name, &application) &&
		sa_session_is_valid(&session, &application, old_id.hash, ending.at);
	if (valid)
	{
		SaSession	in_use;

		if (sa_id_has_ended(new_id.hash, application_name))
			sa_refuse_ended_id();
		if (sa_session_read(new_id.hash, application_name, &in_use))
			ereport(ERROR,
					(errcode(ERRCODE_UNIQUE_VIOLATION),
					 errmsg("new session id is in use already")));

		sa_arg(&key, BYTEAOID, PointerGetDatum(sa_bytea(old_id.hash, SA_HASH_LEN)), false);
		sa_arg_text(&key, application_name);

		args = key;
		sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(new_id.hash, SA_HASH_LEN)), false);
		sa_arg_text(&args, new_id.log_id[0] ? new_id.log_id : NULL);
		sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending.at), false);
		valid = sa_run(&copy_session, &args) > 0;
		if (valid && sa_id_is_remembered(new_id.hash, application_name))
			sa_refuse_ended_id();
	}
	if (!valid)
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("session is not valid"),
				 errhint("It has ended, or was never opened: open a new one.")));

	sa_run_ending(&ending, &delete_session, &key);
	SPI_finish();

	PG_RETURN_TEXT_P(sa_ref_text(new_id.hash));
}

/*
 * reauthenticate(session_id, login_method, application)
 *
 * The user has proved who they are once more, in a session that may have been
 * opened by less (a remember-me token).  False if the session is not valid.  Its
 * absolute timeout counts from its beginning as before.
 */
Datum
sa_reauthenticate(PG_FUNCTION_ARGS)
{
	static SaStatement raise = {.sql =
		"UPDATE session_admin.session SET login_method = $3, reauthenticated_at = $4"
		" WHERE session_hash = $1 AND application = $2"
		" RETURNING user_name::text, client_address, user_agent, device, node"
	};
	SaSessionId id;
	char	   *login_method = sa_cleaned_or_null(fcinfo, 1, SA_LABEL_MAX);
	char	   *application_name = sa_application_arg(fcinfo, 2);
	TimestampTz now = GetCurrentTimestamp();
	SaApplication application;
	SaSession	session;
	SaArgs		args = {0};
	bool		raised = false;

	sa_session_id_arg(fcinfo, 0, &id);
	if (login_method == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("login method must not be null")));
	if (strcmp(login_method, "remember_me") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a remember-me token does not reauthenticate a user"),
				 errhint("Ask the user for a password or the like, and name that.")));

	SPI_connect();
	if (sa_application_find(application_name, &application) &&
		sa_session_read(id.hash, application_name, &session) &&
		sa_session_is_valid(&session, &application, id.hash, now))
	{
		if (session.user_name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("session has no user who could be reauthenticated"),
					 errhint("Use open_session() for a login.")));

		sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(id.hash, SA_HASH_LEN)), false);
		sa_arg_text(&args, application_name);
		sa_arg_text(&args, login_method);
		sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
		/* it may have ended meanwhile */
		raised = sa_run(&raise, &args) > 0;
	}
	if (raised)
	{
		bool		isnull;
		Datum		address = sa_result(0, 2, &isnull);
		SaLoginEvent event = {
			.application = application_name,
			.user_name = sa_result_text(0, 1),
			.event = "reauthenticated",
			.succeeded = true,
			.login_method = login_method,
			.client_address = isnull ? NULL : DatumGetInetPP(address),
			.user_agent = sa_result_text(0, 3),
			.device = sa_result_text(0, 4),
			.node = sa_result_text(0, 5),
			.session_ref = text_to_cstring(sa_ref_text(id.hash)),
			.at = now
		};

		sa_login_event_record(&event);
	}
	SPI_finish();

	PG_RETURN_BOOL(raised);
}

/* close_session(session_id, application) */
Datum
sa_close_session(PG_FUNCTION_ARGS)
{
	SaSessionId id;
	char	   *application = sa_application_arg(fcinfo, 1);
	SaEnding	ending = {.reason = "logout", .at = GetCurrentTimestamp()};

	sa_session_id_arg(fcinfo, 0, &id);

	SPI_connect();
	ending.wait_until = sa_wait_until();
	sa_end_session(id.hash, application, &ending);
	SPI_finish();

	PG_RETURN_BOOL(ending.sessions_ended > 0);
}

/*
 * login_failed(user_name, client_address, forwarded_for, user_agent,
 * login_method, application)
 */
Datum
sa_login_failed(PG_FUNCTION_ARGS)
{
	char	   *application_name = sa_application_arg(fcinfo, 5);
	inet	   *peer = PG_ARGISNULL(1) ? NULL : PG_GETARG_INET_PP(1);
	SaApplication application;
	bool		known;
	SaLoginEvent event = {
		.application = application_name,
		.user_name = sa_cleaned_or_null(fcinfo, 0, SA_USER_NAME_MAX),
		.event = "login_failed",
		.user_agent = sa_cleaned_or_null(fcinfo, 3, SA_USER_AGENT_MAX),
		.login_method = sa_cleaned_or_null(fcinfo, 4, SA_LABEL_MAX),
		.at = GetCurrentTimestamp()
	};

	SPI_connect();

	/*
	 * what fails makes no application; of one that there is not, only the
	 * event is kept
	 */
	known = sa_application_find(application_name, &application);
	if (known)
		sa_application_make(application_name, &application);
	event.client_address = sa_client_address(peer, sa_text_or_null(fcinfo, 2),
											 known ? application.trusted_proxies : NULL);
	if (known && event.user_name != NULL)
		sa_account_login_failed(application_name, event.user_name, event.at);
	sa_login_event_record(&event);
	SPI_finish();

	PG_RETURN_VOID();
}

/*
 * What an error says of such a label.  What is longer than people are shown may
 * be a session id that somebody gave by mistake: it must not get into a log.
 */
static char *
shown_ref(const char *ref)
{
	size_t		length = strlen(ref);

	if (length <= SA_REF_LEN)
		return sa_clean(ref, length, SA_REF_LEN);
	return psprintf("%s...", sa_clean(ref, length, 4));
}

/*
 * The live session that people mean by this label: a prefix of the hash of 8
 * digits or more, or a log_id.  The caller is connected to SPI.
 */
void
sa_session_by_ref(const char *ref, const char *application, uint8 *hash)
{
	static SaStatement by_hash = {.sql =
		"SELECT session_hash FROM session_admin_internal.session_state"
		" WHERE application = $1 AND session_hash BETWEEN decode($2, 'hex') AND decode($3, 'hex')"
		"   AND ended_at IS NULL LIMIT 2"
	};
	static SaStatement by_log_id = {.sql =
		"SELECT session_hash FROM session_admin_internal.session_state"
		" WHERE application = $1 AND log_id = $2 AND ended_at IS NULL LIMIT 2"
	};
	size_t		length = strlen(ref);
	bool		is_hex = strspn(ref, "0123456789abcdefABCDEF") == length;
	SaArgs		args = {0};
	uint64		rows;
	bool		isnull;

	if (length == 0 || length > 2 * SA_HASH_LEN || (length >= SA_REF_MIN_LEN && !is_hex))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a session_ref", shown_ref(ref)),
				 errhint("Give %d or more of the hex digits that view session_admin.current_sessions shows, or a log_id.",
						 SA_REF_MIN_LEN)));

	sa_arg_text(&args, application);
	if (length >= SA_REF_MIN_LEN)
	{
		char		bound[2 * SA_HASH_LEN + 1] = {0};

		memcpy(bound, ref, length);
		memset(bound + length, '0', 2 * SA_HASH_LEN - length);
		sa_arg_text(&args, bound);
		memset(bound + length, 'f', 2 * SA_HASH_LEN - length);
		sa_arg_text(&args, bound);
		rows = sa_run(&by_hash, &args);
	}
	else
	{
		sa_arg_text(&args, ref);
		rows = sa_run(&by_log_id, &args);
	}

	if (rows == 0)
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("no live session \"%s\" in application \"%s\"", shown_ref(ref), application),
				 errhint("Give its log_id, or 8 or more digits of its session_ref:"
						 " see view session_admin.current_sessions.")));
	if (rows > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("session_ref \"%s\" is ambiguous", shown_ref(ref)),
				 errhint("Give more of its digits.")));
	memcpy(hash, VARDATA_ANY(DatumGetByteaPP(sa_result(0, 1, &isnull))), SA_HASH_LEN);
}
