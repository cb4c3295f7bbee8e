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
#include "catalog/namespace.h"
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
PG_FUNCTION_INFO_V1(sa_renew_session);
PG_FUNCTION_INFO_V1(sa_reauthenticate);
PG_FUNCTION_INFO_V1(sa_close_session);
PG_FUNCTION_INFO_V1(sa_login_failed);

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
	sa_application_ensure(application_name, &application);
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
		sa_account_count_login(application_name, user_name, now, address, login_method);
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
		SaEnding	ending = {.reason = "replaced", .at = now,.options.spares_products = true};
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
		sa_delete_for(&ending, NULL, &delete_session, &in_use);
	}
	/* it may have ended while we waited for its key */
	if (sa_id_is_remembered(id.hash, application_name))
		sa_refuse_ended_id();
	/* what an earlier session of this id was touched is not this one's */
	sa_live_key(&key, &application, id.hash);
	sa_unwritten_forget(&key);

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
		"  greatest(last_access_at, session_admin.live_last_access(session_hash, application), $5),"
		"  requests + coalesce(session_admin.live_requests(session_hash, application), 0),"
		"  user_name, login_method, client_address, peer_address, $4, user_agent, device, node,"

		/*
		 * what is kept, while its user's others end late, is kept under its
		 * new id, too
		 */
		"  reauthenticated_at,"
		"  CASE WHEN EXISTS (SELECT FROM session_admin.late_ending WHERE keep_hash = session_hash)"
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
	SaEnding	ending = {.reason = "renewed",.options.spares_products = true};
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

	sa_delete_for(&ending, NULL, &delete_session, &key);
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
