/*
 * login_event.c
 *	  The history of logins.
 */
#include "session_admin.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Add one event.  The caller is connected to SPI. */
void
sa_login_event_record(const SaLoginEvent *event)
{
	static SaStatement insert_event = {.sql =
		"INSERT INTO session_admin_internal.login_event (at, application, user_name, event, succeeded,"
		" login_method, client_address, user_agent, device, node, session_ref, detail)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
	};
	TimestampTz at = event->at ? event->at : GetCurrentTimestamp();
	SaArgs		args = {0};

	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	sa_arg_text(&args, event->application);
	sa_arg_text(&args, event->user_name);
	sa_arg_text(&args, event->event);
	sa_arg(&args, BOOLOID, BoolGetDatum(event->succeeded), false);
	sa_arg_text(&args, event->login_method);
	sa_arg(&args, INETOID, InetPGetDatum(event->client_address), event->client_address == NULL);
	sa_arg_text(&args, event->user_agent);
	sa_arg_text(&args, event->device);
	sa_arg_text(&args, event->node);
	sa_arg_text(&args, event->session_ref);
	sa_arg_text(&args, event->detail);
	sa_run(&insert_event, &args);
}
