/*
 * session.c
 *	  Sessions: open, renew, reauthenticate, close, and failed logins.
 *
 * The touch, which nearly all calls are, is in live/touch.c.
 */
#include "session/session.h"
#include "policy/policy.h"
#include "live/live.h"
#include "ending/ending.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_open_session);
PG_FUNCTION_INFO_V1(sa_renew_session);
PG_FUNCTION_INFO_V1(sa_reauthenticate);
PG_FUNCTION_INFO_V1(sa_close_session);
PG_FUNCTION_INFO_V1(sa_login_failed);

/* Delete the row of a session, which ends so. */
static void
session_delete(const SaEnding *ending, const uint8 *hash, const char *application)
{
	static SaStatement delete_session = {.sql =
		"DELETE FROM session_admin.session WHERE session_hash = $1 AND application = $2"
	};
	SaArgs		args = {0};

	sa_arg_hash(&args, hash);
	sa_arg_text(&args, application);
	sa_delete_for(ending, NULL, &delete_session, &args);
}

/* The arguments of open_session(). */
typedef struct Opening
{
	SaSessionId id;
	char	   *application;
	char	   *user_name;		/* NULL: an anonymous session */
	inet	   *peer;
	inet	   *address;		/* behind proxies */
	char	   *user_agent;
	char	   *device;
	char	   *node;
	char	   *login_method;
	TimestampTz at;
} Opening;

/* Insert the row.  If its id is in use, what it was used for ends. */
static void
session_insert(const Opening *opening, int64 generation)
{
	static SaStatement insert_session = {.sql =
		"INSERT INTO session_admin.session (session_hash, application, generation, created_at,"
		" last_access_at, user_name, login_method, client_address, peer_address, log_id,"
		" user_agent, device, node)"
		" VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
		" ON CONFLICT (session_hash, application) DO NOTHING"
	};
	SaArgs		args = {0};

	sa_arg_hash(&args, opening->id.hash);
	sa_arg_text(&args, opening->application);
	sa_arg(&args, INT8OID, Int64GetDatum(generation), false);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(opening->at), false);
	sa_arg_text(&args, opening->user_name);
	sa_arg_text(&args, opening->login_method);
	sa_arg(&args, INETOID, InetPGetDatum(opening->address), opening->address == NULL);
	sa_arg(&args, INETOID, InetPGetDatum(opening->peer), opening->peer == NULL);
	sa_arg_text(&args, opening->id.log_id[0] ? opening->id.log_id : NULL);
	sa_arg_text(&args, opening->user_agent);
	sa_arg_text(&args, opening->device);
	sa_arg_text(&args, opening->node);

	for (;;)
	{
		SaEnding	ending = {
			.reason = "replaced",
			.at = opening->at,
			.options.spares_products = true
		};
		SaSeat		seat;
		uint64		inserted;

		sa_seat_take(&seat, opening->application, opening->user_name, opening->id.hash);
		inserted = sa_run(&insert_session, &args);
		sa_seat_release(&seat);
		if (inserted > 0)
			break;

		CHECK_FOR_INTERRUPTS();
		if (sa_id_has_ended(opening->id.hash, opening->application))
			sa_refuse_ended_id();
		session_delete(&ending, opening->id.hash, opening->application);
	}
	/* it may have ended while we waited for its key */
	if (sa_id_is_remembered(opening->id.hash, opening->application))
		sa_refuse_ended_id();
}

/* Add the login to the history. */
static void
session_record_login(const Opening *opening)
{
	SaLoginEvent event = {
		.application = opening->application,
		.user_name = opening->user_name,
		.event = "login",
		.succeeded = true,
		.login_method = opening->login_method,
		.client_address = opening->address,
		.user_agent = opening->user_agent,
		.device = opening->device,
		.node = opening->node,
		.session_ref = text_to_cstring(sa_ref_text(opening->id.hash)),
		.at = opening->at
	};

	sa_login_event_record(&event);
}

/*
 * open_session(session_id, user_name, client_address, forwarded_for, user_agent,
 * device, node, login_method, application)
 */
Datum
sa_open_session(PG_FUNCTION_ARGS)
{
	Opening		opening = {
		.user_name = sa_text_or_null(fcinfo, 1),
		.peer = PG_ARGISNULL(2) ? NULL : PG_GETARG_INET_PP(2),
		.user_agent = sa_cleaned_or_null(fcinfo, 4, SA_USER_AGENT_MAX),
		.device = sa_cleaned_or_null(fcinfo, 5, SA_LABEL_MAX),
		.node = sa_cleaned_or_null(fcinfo, 6, SA_LABEL_MAX),
		.login_method = sa_cleaned_or_null(fcinfo, 7, SA_LABEL_MAX),
		.application = sa_application_arg(fcinfo, 8)
	};
	SaApplication application;
	SaLiveKey	key;

	sa_session_id_arg(fcinfo, 0, &opening.id);
	if (opening.user_name != NULL)
		sa_check_user_name(opening.user_name);

	SPI_connect();
	sa_application_ensure(opening.application, &application);
	opening.address = sa_client_address(opening.peer, sa_text_or_null(fcinfo, 3),
										application.trusted_proxies);
	opening.at = GetCurrentTimestamp();
	if (opening.user_name == NULL &&
		sa_probe(&application, opening.user_agent, opening.address, opening.at))
	{
		SPI_finish();
		PG_RETURN_NULL();
	}
	if (sa_id_has_ended(opening.id.hash, opening.application))
		sa_refuse_ended_id();
	if (opening.user_name != NULL)
	{
		sa_account_count_login(opening.application, opening.user_name, opening.at,
							   opening.address, opening.login_method);
		/* the lock may have been waited for */
		sa_application_get(opening.application, &application);
		opening.at = GetCurrentTimestamp();
		sa_limit_user(&application, opening.user_name, opening.id.hash, opening.at);
	}

	session_insert(&opening, application.generation);
	/* what an earlier session of this id was touched is not this one's */
	sa_live_key(&key, &application, opening.id.hash);
	sa_unwritten_forget(&key);
	if (opening.user_name != NULL)
		session_record_login(&opening);
	SPI_finish();

	PG_RETURN_TEXT_P(sa_ref_text(opening.id.hash));
}

/* Give the session a new id; false if it has ended meanwhile. */
static bool
session_copy(const SaSessionId *old_id, const SaSessionId *new_id, const char *application,
			 TimestampTz at)
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
		 * a session that is kept while its user's others end late is kept
		 * under its new id, too
		 */
		"  reauthenticated_at,"
		"  CASE WHEN EXISTS (SELECT FROM session_admin_internal.late_ending WHERE keep_hash = session_hash)"
		"    THEN pg_current_xact_id() ELSE opened_xid END"
		" FROM session_admin.session WHERE session_hash = $1 AND application = $2"
		" FOR NO KEY UPDATE"
	};
	SaSession	in_use;
	SaArgs		args = {0};
	bool		copied;

	if (sa_id_has_ended(new_id->hash, application))
		sa_refuse_ended_id();
	if (sa_session_read(new_id->hash, application, &in_use))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("new session id is in use already")));

	sa_arg_hash(&args, old_id->hash);
	sa_arg_text(&args, application);
	sa_arg_hash(&args, new_id->hash);
	sa_arg_text(&args, new_id->log_id[0] ? new_id->log_id : NULL);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	copied = sa_run(&copy_session, &args) > 0;
	if (copied && sa_id_is_remembered(new_id->hash, application))
		sa_refuse_ended_id();
	return copied;
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
	SaSessionId old_id;
	SaSessionId new_id;
	char	   *application_name = sa_application_arg(fcinfo, 2);
	SaEnding	ending = {.reason = "renewed",.options.spares_products = true};
	SaApplication application;
	SaSession	session;
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
	if (!valid || !sa_application_find(application_name, &application) ||
		!sa_session_is_valid(&session, &application, old_id.hash, ending.at) ||
		!session_copy(&old_id, &new_id, application_name, ending.at))
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("session is not valid"),
				 errhint("It has ended, or was never opened: open a new one.")));

	session_delete(&ending, old_id.hash, application_name);
	SPI_finish();

	PG_RETURN_TEXT_P(sa_ref_text(new_id.hash));
}

/*
 * reauthenticate(session_id, login_method, application)
 *
 * The user has proved their identity once more, in a session that may have been opened by
 * a remember-me token. False if the session is not valid. Its absolute timeout counts from
 * its beginning as before.
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

		sa_arg_hash(&args, id.hash);
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
	SaEnded		ended = {0};

	sa_session_id_arg(fcinfo, 0, &id);

	SPI_connect();
	ending.wait_until = sa_wait_until();
	sa_end_session(id.hash, application, &ending, &ended);
	SPI_finish();

	PG_RETURN_BOOL(ended.sessions_ended > 0);
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
		sa_application_ensure(application_name, &application);
	event.client_address = sa_client_address(peer, sa_text_or_null(fcinfo, 2),
											 known ? application.trusted_proxies : NULL);
	if (known && event.user_name != NULL)
		sa_account_count_failure(application_name, event.user_name, event.at);
	sa_login_event_record(&event);
	SPI_finish();

	PG_RETURN_VOID();
}
