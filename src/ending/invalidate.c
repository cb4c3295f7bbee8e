/*
 * invalidate.c
 *	  invalidate_session(), invalidate_sessions(), invalidate_user(),
 *	  invalidate_application() and invalidate_all(), and which session a session_ref means.
 */
#include "ending/end.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_check_filter);
PG_FUNCTION_INFO_V1(sa_invalidate_session);
PG_FUNCTION_INFO_V1(sa_invalidate_sessions);
PG_FUNCTION_INFO_V1(sa_invalidate_user);
PG_FUNCTION_INFO_V1(sa_invalidate_application);
PG_FUNCTION_INFO_V1(sa_invalidate_all);

/* (invalidation_id, sessions_ended, tokens_revoked); negative: not counted. */
Datum
sa_ending_result(FunctionCallInfo fcinfo, const SaEnded *ended)
{
	TupleDesc	tupdesc;
	Datum		values[3];
	bool		nulls[3];

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	values[0] = Int64GetDatum(ended->id);
	nulls[0] = ended->id == 0;
	values[1] = Int64GetDatum(ended->sessions_ended);
	nulls[1] = ended->sessions_ended < 0;
	values[2] = Int64GetDatum(ended->tokens_revoked);
	nulls[2] = ended->tokens_revoked < 0;

	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

/* The reason argument; null is "admin". */
static char *
invalidate_reason_arg(FunctionCallInfo fcinfo, int argno)
{
	char	   *reason = sa_text_or_null(fcinfo, argno);

	if (reason == NULL)
		return pstrdup("admin");
	sa_check_reason(reason);
	return reason;
}

/*
 * check_filter(filters, idle_for): no filter at all, or a negative idle_for, is an
 * error and does not mean everybody
 */
Datum
sa_check_filter(PG_FUNCTION_ARGS)
{
	Interval	zero = {0};

	if (PG_ARGISNULL(0) || PG_GETARG_INT32(0) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no filter is given"),
				 errhint("Use invalidate_application() to log everybody out.")));
	if (!PG_ARGISNULL(1) &&
		DatumGetBool(DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(1), IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idle_for must not be negative")));
	PG_RETURN_BOOL(true);
}

/*
 * The label as an error shows it.  One that is longer than those that we show may be a
 * session id, given by mistake: it must not get into a log.
 */
static char *
invalidate_shown_ref(const char *ref)
{
	size_t		length = strlen(ref);

	if (length <= SA_REF_LEN)
		return sa_clean(ref, length, SA_REF_LEN);
	return psprintf("%s...", sa_clean(ref, length, 4));
}

/*
 * Find the live session with this label: a prefix of the hash of 8 digits or more, or a
 * log_id.  The caller is connected to SPI.
 */
static void
invalidate_session_by_ref(const char *ref, const char *application, uint8 *hash)
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
				 errmsg("\"%s\" is not a session_ref", invalidate_shown_ref(ref)),
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
				 errmsg("no live session \"%s\" in application \"%s\"", invalidate_shown_ref(ref), application),
				 errhint("Give its log_id, or 8 or more digits of its session_ref:"
						 " see view session_admin.current_sessions.")));
	if (rows > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("session_ref \"%s\" is ambiguous", invalidate_shown_ref(ref)),
				 errhint("Give more of its digits.")));
	memcpy(hash, VARDATA_ANY(DatumGetByteaPP(sa_result(0, 1, &isnull))), SA_HASH_LEN);
}

/* invalidate_session(session_ref, reason, application) */
Datum
sa_invalidate_session(PG_FUNCTION_ARGS)
{
	char	   *ref = sa_text_or_null(fcinfo, 0);
	SaEnding	ending = {.reason = invalidate_reason_arg(fcinfo, 1)};
	SaEnded		ended = {0};
	char	   *application = sa_application_arg(fcinfo, 2);
	uint8		hash[SA_HASH_LEN];

	if (ref == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("session_ref must not be null")));

	SPI_connect();
	ending.wait_until = sa_wait_until();
	invalidate_session_by_ref(ref, application, hash);
	ending.at = GetCurrentTimestamp();
	sa_end_session(hash, application, &ending, &ended);
	if (ended.sessions_ended == 0)
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("session \"%s\" has just ended or been renewed", text_to_cstring(sa_ref_text(hash))),
				 errhint("See view session_admin.current_sessions for those that are live.")));
	SPI_finish();

	return sa_ending_result(fcinfo, &ended);
}

/*
 * Find the sessions that match the filters; the arguments are those of
 * sessions_to_invalidate.
 */
static ArrayType *
invalidate_find(void *argument)
{
	static SaStatement find_sessions = {.sql =
		"SELECT coalesce(array_agg(session_hash), '{}')"
		" FROM session_admin_internal.sessions_to_invalidate($1, $2, $3, $4, $5, $6, $7, $8)"
	};

	sa_run(&find_sessions, argument);
	return sa_result_array(0, 1);
}

/*
 * invalidate_sessions(user_name, address, user_agent_like, node, idle_for,
 * opened_before, anonymous, reason, application): those that
 * preview_invalidation shows for the same filters, which also checks them.
 */
Datum
sa_invalidate_sessions(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, CIDROID, TEXTOID, TEXTOID, INTERVALOID, TIMESTAMPTZOID, BOOLOID};
	SaEnding	ending = {.reason = invalidate_reason_arg(fcinfo, 7)};
	SaEnded		ended = {0};
	char	   *application = sa_application_arg(fcinfo, 8);
	SaArgs		args = {0};
	SaSessionSearch search = {.find = invalidate_find, .argument = &args, .application = application};

	for (size_t i = 0; i < lengthof(types); i++)
		sa_arg(&args, types[i], PG_GETARG_DATUM(i), PG_ARGISNULL(i));
	sa_arg_text(&args, application);

	SPI_connect();
	ending.wait_until = sa_wait_until();
	ending.at = GetCurrentTimestamp();
	/* with the user as the only filter, it is all that the user has */
	if (!PG_ARGISNULL(0))
	{
		search.user_name = text_to_cstring(PG_GETARG_TEXT_PP(0));
		for (size_t i = 1; i < lengthof(types); i++)
		{
			if (!PG_ARGISNULL(i))
				search.user_name = NULL;
		}
	}
	(void) sa_end_found_sessions(&search, &ending, &ended);
	SPI_finish();

	return sa_ending_result(fcinfo, &ended);
}

typedef struct AccountMaking
{
	const char *application;
	const char *user_name;
	bool		made;
} AccountMaking;

static void
invalidate_make_account(SaBusy *busy, void *argument)
{
	static SaStatement insert_account = {.sql =
		"INSERT INTO session_admin_internal.account (application, user_name) VALUES ($1, $2)"
		" ON CONFLICT (application, user_name) DO NOTHING"
	};
	AccountMaking *making = argument;
	SaArgs		args = {0};

	(void) busy;
	sa_arg_text(&args, making->application);
	sa_arg_text(&args, making->user_name);
	making->made = sa_run(&insert_account, &args) > 0;
}

/*
 * Is there an account of this name? A first login that is under way has made one that
 * is not visible yet; trying to make one waits for it.
 */
static bool
invalidate_user_is_known(const char *application, const char *user_name, SaEnding *ending)
{
	static SaStatement find_account = {.sql =
		"SELECT FROM session_admin_internal.account WHERE application = $1 AND user_name = $2"
	};
	AccountMaking making = {application, user_name, false};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	if (sa_run(&find_account, &args) > 0)
		return true;
	ending->options.first_login = !sa_wait_with(ending->wait_until, invalidate_make_account, &making);
	return ending->options.first_login || !making.made;
}

/* invalidate_user(user_name, keep_session, keep_remember_me, reason, application) */
Datum
sa_invalidate_user(PG_FUNCTION_ARGS)
{
	char	   *user_name = sa_user_name_arg(fcinfo, 0);
	SaSessionId keep;
	bool		has_keep = !PG_ARGISNULL(1);
	bool		keep_remember_me = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	SaEnding	ending = {.reason = invalidate_reason_arg(fcinfo, 3)};
	SaEnded		ended = {0};
	char	   *application = sa_application_arg(fcinfo, 4);

	if (has_keep)
		sa_session_id_arg(fcinfo, 1, &keep);

	SPI_connect();
	ending.wait_until = sa_wait_until();
	if (!invalidate_user_is_known(application, user_name, &ending))
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("user \"%s\" is not known in application \"%s\"",
						sa_clean(user_name, strlen(user_name), SA_USER_NAME_MAX), application),
				 errhint("See view session_admin.last_login for the users that are.")));
	ending.at = GetCurrentTimestamp();
	sa_end_user(application, user_name, has_keep ? keep.hash : NULL, keep_remember_me, &ending,
				&ended);
	SPI_finish();

	return sa_ending_result(fcinfo, &ended);
}

/* invalidate_application(reason, application) */
Datum
sa_invalidate_application(PG_FUNCTION_ARGS)
{
	SaEnding	ending = {.reason = invalidate_reason_arg(fcinfo, 0)};
	SaEnded		ended = {0};
	char	   *application = sa_application_arg(fcinfo, 1);

	SPI_connect();
	ending.wait_until = sa_wait_until();
	ending.at = GetCurrentTimestamp();
	sa_end_generation(application, &ending, &ended);
	SPI_finish();

	return sa_ending_result(fcinfo, &ended);
}

/* invalidate_all(reason) */
Datum
sa_invalidate_all(PG_FUNCTION_ARGS)
{
	SaEnding	ending = {.reason = invalidate_reason_arg(fcinfo, 0)};
	SaEnded		ended = {0};

	SPI_connect();
	ending.wait_until = sa_wait_until();
	ending.at = GetCurrentTimestamp();
	sa_end_generation(NULL, &ending, &ended);
	SPI_finish();

	return sa_ending_result(fcinfo, &ended);
}
