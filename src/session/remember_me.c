/*
 * remember_me.c
 *	  Remembered devices: issue, redeem, rotate, revoke.
 *
 * README.md in this folder says how tokens descend from each other, and what is theft.
 */
#include "session/series.h"
#include "policy/policy.h"
#include "ending/ending.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

typedef struct Redemption
{
	/* what the caller says */
	const char *application;
	SaToken		shown;
	inet	   *client_address;
	char	   *user_agent;
	TimestampTz called_at;
	/* the result */
	const char *outcome;
	char	   *user_name;		/* NULL if unknown */
	bool		has_next;
	SaToken		next;
} Redemption;

PG_FUNCTION_INFO_V1(sa_issue_remember_me);
PG_FUNCTION_INFO_V1(sa_redeem_remember_me);
PG_FUNCTION_INFO_V1(sa_revoke_remember_me);
PG_FUNCTION_INFO_V1(sa_rename_remembered_device);

/*
 * A time so much later, infinity beyond the end of time
 */
static TimestampTz
series_time_plus(TimestampTz since, int64 span)
{
	TimestampTz until;

	if (TIMESTAMP_NOT_FINITE(since))
		return since;
	if (pg_add_s64_overflow(since, span, &until) || !IS_VALID_TIMESTAMP(until))
		return DT_NOEND;
	return until;
}

/* Add a line about a series to the history of logins. */
static void
series_record(SaLoginEvent *event, const char *series)
{
	event->login_method = "remember_me";
	event->detail = psprintf("series %s", series);
	sa_login_event_record(event);
}

/*
 * Replace the current validator by its child
 */
static void
series_rotate(Redemption *redemption, const SaSeries *series)
{
	static SaStatement keep_parent = {.sql =
		"INSERT INTO session_admin_internal.remember_me_ancestor (series, application, validator_hash)"
		" SELECT series, application, parent_hash FROM session_admin.remember_me_token"
		" WHERE series = $1 AND application = $2 AND parent_hash IS NOT NULL"
		" ON CONFLICT DO NOTHING"
	};
	static SaStatement replace = {.sql =
		"UPDATE session_admin.remember_me_token"
		" SET parent_hash = validator_hash, validator_hash = $3, salt = $4,"
		" rotated_at = $5, last_used_at = greatest(last_used_at, $5),"
		" client_address = coalesce($6, client_address),"
		" user_agent = coalesce($7, user_agent)"
		" WHERE series = $1 AND application = $2"
	};
	uint8		salt[SALT_LEN];
	uint8		hash[SA_HASH_LEN];
	SaArgs		args = {0};

	sa_token_salt(salt);
	sa_token_derive(redemption->shown.validator, salt, redemption->next.validator);
	sa_sha256(redemption->next.validator, VALIDATOR_LEN, hash);

	sa_arg_text(&args, redemption->shown.series);
	sa_arg_text(&args, redemption->application);
	if (series->has_parent)
		sa_run(&keep_parent, &args);

	sa_arg_hash(&args, hash);
	sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(salt, SALT_LEN)), false);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(GetCurrentTimestamp()), false);
	sa_arg(&args, INETOID, InetPGetDatum(redemption->client_address),
		   redemption->client_address == NULL);
	sa_arg_text(&args, redemption->user_agent);
	sa_run(&replace, &args);

	/* or a crash would bring the shown token back to life */
	sa_commit_durably(redemption->application);
}

/*
 * End the series and what else the policy says: one row of the feed for all of it
 */
static void
series_end_stolen(const Redemption *redemption, int on_theft)
{
	static SaStatement delete_series = {.sql =
		"DELETE FROM session_admin.remember_me_token WHERE series = $1 AND application = $2"
	};
	SaEnding	ending = {.reason = "token_theft"};
	SaEnded		ended = {0};
	SaFeedRow	row = {
		.scope = on_theft == SA_END_SERIES ? "token" : "user",
		.application = redemption->application,
		.user_name = redemption->user_name
	};
	SaLoginEvent event = {
		.application = redemption->application,
		.user_name = redemption->user_name,
		.event = "token_theft",
		.client_address = redemption->client_address,
		.user_agent = redemption->user_agent
	};
	SaArgs		args = {0};

	ending.at = GetCurrentTimestamp();
	if (on_theft == SA_END_USER_AND_DEVICES)
		sa_end_user(redemption->application, redemption->user_name, NULL, false, &ending, NULL);
	else
	{
		ending.options.caller_writes_feed = true;
		if (on_theft != SA_END_SERIES)
			sa_end_user(redemption->application, redemption->user_name, NULL, true, &ending, &ended);
		sa_arg_text(&args, redemption->shown.series);
		sa_arg_text(&args, redemption->application);
		sa_delete_for(&ending, &ended, &delete_series, &args);
		sa_feed_write(&row, &ending, &ended);
		sa_feed_queue(&row);
	}

	series_record(&event, redemption->shown.series);
}

/*
 * Decide what a well-formed token is worth, and do what follows
 */
static void
token_redeem(Redemption *redemption)
{
	SaApplication application;
	SaSeries	series;
	SaShown		shown;
	uint8		hash[SA_HASH_LEN];

	redemption->outcome = "unknown";
	if (!sa_application_find(redemption->application, &application) ||
		sa_series_lock_user(redemption->application, redemption->shown.series) == NULL ||
		!sa_series_lock(redemption->application, redemption->shown.series, &series) ||
		!series.live)
		return;

	sa_sha256(redemption->shown.validator, VALIDATOR_LEN, hash);
	shown = sa_series_classify(redemption->application, redemption->shown.series, &series, hash);
	if (shown == SHOWN_STRANGER)
		return;

	redemption->user_name = series.user_name;
	if (series_time_plus(series.created_at, application.remember_me_lifetime) <=
		redemption->called_at)
	{
		redemption->outcome = "expired";
		return;
	}

	if (shown == SHOWN_CURRENT)
		series_rotate(redemption, &series);
	else if (shown == SHOWN_PARENT &&
			 series_time_plus(series.rotated_at, application.remember_me_grace) >=
			 redemption->called_at)
		sa_token_derive(redemption->shown.validator, series.salt,
						redemption->next.validator);
	else
	{
		redemption->outcome = "theft";
		series_end_stolen(redemption, application.on_theft);
		return;
	}
	redemption->outcome = "accepted";
	memcpy(redemption->next.series, redemption->shown.series, SERIES_LEN + 1);
	redemption->has_next = true;
}

/*
 * Make room for one more device of a user whose account is locked.
 *
 * The device that was used least recently goes. Series that have expired, or ended with
 * their generation, are older than any that lives: they go first.
 */
static void
series_make_room(const char *application, const char *user_name)
{
	static SaStatement delete_oldest = {.sql =
		"DELETE FROM session_admin.remember_me_token t USING ("
		"  SELECT series, application FROM session_admin.remember_me_token"
		"  WHERE application = $1 AND user_name = $2"
		"  ORDER BY greatest(created_at, last_used_at) DESC, series OFFSET $3) o"
		" WHERE t.series = o.series AND t.application = o.application"
	};
	int64		devices = sa_policy_number(application, user_name,
										   "max_remembered_devices_per_user");
	SaEnding	ending = {.reason = "session_limit"};
	SaArgs		args = {0};

	if (devices < 0)
		return;
	if (devices == 0)
		ereport(ERROR,
				(errcode(SA_ERRCODE_LIMIT),
				 errmsg("devices of user \"%s\" are not remembered",
						sa_clean(user_name, strlen(user_name), SA_USER_NAME_MAX)),
				 errhint("See the policy \"max_remembered_devices_per_user\".")));

	ending.at = GetCurrentTimestamp();
	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg(&args, INT8OID, Int64GetDatum(devices - 1), false);
	sa_delete_for(&ending, NULL, &delete_oldest, &args);
}

/*
 * issue_remember_me(user_name, device, user_agent, client_address, application)
 *
 * Starts a series for a device, and returns its first token, which is shown
 * once.  The account is made if it is not known yet.
 */
Datum
sa_issue_remember_me(PG_FUNCTION_ARGS)
{
	static SaStatement insert = {.sql =
		"INSERT INTO session_admin.remember_me_token"
		" (series, application, generation, user_name, validator_hash, created_at,"
		" client_address, user_agent, device)"
		" SELECT $1, a.name, a.generation, $3, $4, $5, $6, $7, $8"
		" FROM session_admin.application a WHERE a.name = $2"
	};
	char	   *user_name = sa_user_name_arg(fcinfo, 0);
	char	   *device = sa_cleaned_or_null(fcinfo, 1, SA_LABEL_MAX);
	char	   *user_agent = sa_cleaned_or_null(fcinfo, 2, SA_USER_AGENT_MAX);
	inet	   *client_address = PG_ARGISNULL(3) ? NULL : PG_GETARG_INET_PP(3);
	char	   *application_name = sa_application_arg(fcinfo, 4);
	SaLoginEvent event = {
		.application = application_name,
		.user_name = user_name,
		.event = "remember_me_issued",
		.succeeded = true,
		.client_address = client_address,
		.user_agent = user_agent,
		.device = device
	};
	SaApplication application;
	SaArgs		args = {0};
	SaToken		token;
	uint8		hash[SA_HASH_LEN];
	text	   *result;

	sa_token_new(&token);
	sa_sha256(token.validator, VALIDATOR_LEN, hash);
	result = sa_token_text(&token);
	explicit_bzero(token.validator, VALIDATOR_LEN);

	SPI_connect();
	sa_application_ensure(application_name, &application);
	sa_account_ensure(application_name, user_name);
	series_make_room(application_name, user_name);

	sa_arg_text(&args, token.series);
	sa_arg_text(&args, application_name);
	sa_arg_text(&args, user_name);
	sa_arg_hash(&args, hash);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(GetCurrentTimestamp()), false);
	sa_arg(&args, INETOID, InetPGetDatum(client_address), client_address == NULL);
	sa_arg_text(&args, user_agent);
	sa_arg_text(&args, device);
	sa_run(&insert, &args);

	series_record(&event, token.series);
	SPI_finish();

	PG_RETURN_TEXT_P(result);
}

/*
 * redeem_remember_me(token, client_address, user_agent, application)
 *
 * Returns an outcome and never an error, whatever a client sends, so that the
 * ending of a stolen series is committed.  user_name is NULL if and only if
 * the outcome is unknown, token is given if and only if it is accepted.  A
 * token that was revoked, by whatever means, is unknown, and so is NULL.
 */
Datum
sa_redeem_remember_me(PG_FUNCTION_ARGS)
{
	MemoryContext caller_context = CurrentMemoryContext;
	Redemption	redemption = {0};
	TupleDesc	tupdesc;
	Datum		values[3] = {0};
	bool		nulls[3] = {false, true, true};
	HeapTuple	tuple;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	redemption.called_at = GetCurrentTimestamp();
	redemption.client_address = PG_ARGISNULL(1) ? NULL : PG_GETARG_INET_PP(1);
	redemption.user_agent = sa_cleaned_or_null(fcinfo, 2, SA_USER_AGENT_MAX);
	redemption.application = sa_application_arg(fcinfo, 3);
	redemption.outcome = "unknown";

	PG_TRY();
	{
		if (!PG_ARGISNULL(0) && sa_token_parse(PG_GETARG_DATUM(0), &redemption.shown))
		{
			SPI_connect();
			token_redeem(&redemption);
			if (redemption.user_name != NULL)
				redemption.user_name = MemoryContextStrdup(caller_context,
														   redemption.user_name);
			SPI_finish();
		}

		values[0] = CStringGetTextDatum(redemption.outcome);
		if (redemption.user_name != NULL)
		{
			values[1] = CStringGetTextDatum(redemption.user_name);
			nulls[1] = false;
		}
		if (redemption.has_next)
		{
			values[2] = PointerGetDatum(sa_token_text(&redemption.next));
			nulls[2] = false;
		}
	}
	PG_FINALLY();
	{
		explicit_bzero(&redemption.shown, sizeof(SaToken));
		explicit_bzero(&redemption.next, sizeof(SaToken));
	}
	PG_END_TRY();

	tuple = heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls);
	if (!nulls[2])
		explicit_bzero(DatumGetPointer(values[2]), TOKEN_LEN + VARHDRSZ);
	PG_RETURN_DATUM(HeapTupleGetDatum(tuple));
}

/*
 * Read the series argument; NULL if no series is called so
 */
static char *
series_arg(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("series must not be null"),
				 errhint("The view session_admin.remembered_devices shows the series.")));
	if (toast_raw_datum_size(PG_GETARG_DATUM(argno)) != SERIES_LEN + VARHDRSZ)
		return NULL;
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/*
 * revoke_remember_me(series, application)
 *
 * Forgets a device; false if there is no such series.
 */
Datum
sa_revoke_remember_me(PG_FUNCTION_ARGS)
{
	static SaStatement delete_series = {.sql =
		"DELETE FROM session_admin.remember_me_token"
		" WHERE series = $1 AND application = $2"
	};
	char	   *series = series_arg(fcinfo, 0);
	char	   *application = sa_application_arg(fcinfo, 1);
	SaEnding	ending = {.reason = "token_revoked"};
	char	   *user_name;
	SaArgs		args = {0};
	bool		revoked = false;

	if (series == NULL)
		PG_RETURN_BOOL(false);

	ending.at = GetCurrentTimestamp();

	SPI_connect();
	user_name = sa_series_user(application, series);
	if (user_name != NULL)
	{
		/* do not wait without end for another session's open transaction */
		sa_accounts_lock(application, sa_array_of_text(user_name));
	}
	if (sa_series_lock_user(application, series) != NULL)
	{
		sa_arg_text(&args, series);
		sa_arg_text(&args, application);
		revoked = sa_delete_for(&ending, NULL, &delete_series, &args) > 0;
	}
	SPI_finish();

	PG_RETURN_BOOL(revoked);
}

/*
 * rename_remembered_device(series, device, application)
 *
 * Gives a device another label; false if there is no such series.
 */
Datum
sa_rename_remembered_device(PG_FUNCTION_ARGS)
{
	static SaStatement rename = {.sql =
		"UPDATE session_admin.remember_me_token SET device = $3"
		" WHERE series = $1 AND application = $2"
	};
	char	   *series = series_arg(fcinfo, 0);
	char	   *device = sa_cleaned_or_null(fcinfo, 1, SA_LABEL_MAX);
	char	   *application = sa_application_arg(fcinfo, 2);
	SaArgs		args = {0};
	bool		renamed = false;

	if (series == NULL)
		PG_RETURN_BOOL(false);

	SPI_connect();
	if (sa_series_lock_user(application, series) != NULL)
	{
		sa_arg_text(&args, series);
		sa_arg_text(&args, application);
		sa_arg_text(&args, device);
		renamed = sa_run(&rename, &args) > 0;
	}
	SPI_finish();

	PG_RETURN_BOOL(renamed);
}
