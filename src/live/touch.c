/*
 * touch.c
 *	  Is this session still valid?  Counts its requests, too.
 *
 * Where the shared table does not answer, the row is read, and written no more often than
 * session_admin.touch_interval, or three times in the session's idle timeout if that is
 * shorter.  A touch never waits: a row that is locked is written at a later touch.
 */
#include "live/table.h"
#include "policy/policy.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_touch_session);
PG_FUNCTION_INFO_V1(sa_touch_sessions);
PG_FUNCTION_INFO_V1(sa_touch_sessions_text);

/* So often is the last access of a session that is in use written in its idle timeout. */
#define WRITES_PER_TIMEOUT	3

/* Are touches being written to their rows? */
bool		sa_touch_is_writing = false;

/* Run a statement that writes touches to their rows, and nothing else. */
uint64
sa_run_touch(SaStatement *statement, SaArgs *args)
{
	uint64		rows;

	sa_touch_is_writing = true;
	PG_TRY();
	{
		rows = sa_run(statement, args);
	}
	PG_FINALLY();
	{
		sa_touch_is_writing = false;
	}
	PG_END_TRY();

	return rows;
}

/* Write last access and requests, unless another transaction has the row locked. */
static void
touch_write(const SaLiveKey *key, const char *application, TimestampTz now, int64 requests)
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
	if (sa_run_touch(&update_session, &args) > 0)
		sa_unwritten_forget(key);
	SPI_finish();
	sa_owner_leave(&owner);
}

/*
 * How old may the row's last access be?  Other backends know no other one: by what
 * the row tells, no session that is in use may come near to its end.
 */
static int64
touch_write_interval(const SaApplication *application, const SaSession *session)
{
	int64		idle_timeout = sa_idle_timeout(application, session->user_key, &session->limit,
											   session->idle_timeout);

	return Min(sa_touch_interval * USECS_PER_SEC, idle_timeout / WRITES_PER_TIMEOUT);
}

/*
 * Count requests of a session and tell whether it is still valid, with the idle timeout
 * that its product tells (0: any).
 */
bool
sa_session_touch(const uint8 *hash, const SaApplication *application, int64 requests,
				 int64 idle_timeout)
{
	TimestampTz now = GetCurrentTimestamp();
	LiveFill	fill;
	SaLiveKey	key;
	SaSession	session;
	int64		unwritten;

	sa_live_key(&key, application, hash);
	if (sa_live_touch(application, &key, now, requests, idle_timeout))
		return true;

	sa_live_fill_start(&fill, &key);
	sa_test_point("fill_start");
	if (!sa_session_read(hash, application->name, &session))
		return false;

	if (!sa_session_is_valid(&session, application, hash, now) ||
		!sa_idle_timeout_holds(session.idle_timeout, idle_timeout))
		return false;

	sa_test_point("fill_read");
	if (sa_live_fill(&fill, &session, application, now, requests))
		return true;

	/*
	 * a row of this very transaction is written at no lock's cost, and aborts
	 * with it
	 */
	unwritten = sa_unwritten_count(&key, session.created_at, now, requests);
	if ((now - session.last_access_at >= touch_write_interval(application, &session) ||
		 (session.written_here && sa_use_shared_memory && sa_shmem_usable())) &&
		!XactReadOnly && !RecoveryInProgress())
		touch_write(&key, application->name, now, unwritten);
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

/* Touch all sessions, and return those that are not valid. */
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
		if (known)
		{
			SaLiveKey	key;

			sa_live_key(&key, &application, hash);
			if (sa_live_touch(&application, &key, now, count, 0))
				continue;
		}
		known = sa_application_find(name, &application);
		if (!known || !sa_session_touch(hash, &application, count, 0))
			accumArrayResult(invalid, values[i], false, type, CurrentMemoryContext);
	}

	PG_RETURN_DATUM(makeArrayResult(invalid, CurrentMemoryContext));
}

static void
touch_refuse_null(FunctionCallInfo fcinfo)
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
	touch_refuse_null(fcinfo);
	return touch_all(fcinfo, PG_GETARG_ARRAYTYPE_P(0));
}

/* The error of the input function shows the ids; ours does not. */
static void
touch_malformed_array(pg_attribute_unused() void *arg)
{
	if (geterrcode() == ERRCODE_INVALID_TEXT_REPRESENTATION)
		errmsg("malformed array of session ids");
}

/*
 * touch_sessions(session_ids, requests, application) with the array as text: a literal
 * without a type is taken for text, as it could be an array of ids as well as of hashes.
 */
Datum
sa_touch_sessions_text(PG_FUNCTION_ARGS)
{
	ErrorContextCallback callback = {.callback = touch_malformed_array};
	Oid			input;
	Oid			element;
	Datum		ids;

	touch_refuse_null(fcinfo);
	getTypeInputInfo(TEXTARRAYOID, &input, &element);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	ids = OidInputFunctionCall(input, text_to_cstring(PG_GETARG_TEXT_PP(0)), element, -1);
	error_context_stack = callback.previous;
	return touch_all(fcinfo, DatumGetArrayTypeP(ids));
}
