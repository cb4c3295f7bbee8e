/*
 * guc.c
 *	  Every setting.
 */
#include "base/init.h"

#include "miscadmin.h"
#include "utils/guc.h"

char	   *sa_application = NULL;
char	   *sa_actor = NULL;
char	   *sa_current_session = NULL;
bool		sa_notify_detail = true;
int			sa_touch_interval = 60;
int			sa_max_live_sessions = 100000;
int			sa_flush_interval = 60;
int			sa_lock_wait = 1000;
bool		sa_use_shared_memory = true;
bool		sa_worker_enabled = true;
int			sa_max_applications = 1000;

/*
 * Define the settings and reserve their prefix.
 *
 * Long: one call for each setting.
 */
void
sa_guc_init(void)
{
	DefineCustomStringVariable("session_admin.application",
							   "Names the application where a call does not.",
							   NULL,
							   &sa_application,
							   "default",
							   PGC_USERSET, 0,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("session_admin.actor",
							   "Names the person behind a change, as the application knows them.",
							   "It is recorded beside session_user, never instead of it.",
							   &sa_actor,
							   "",
							   PGC_USERSET, 0,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("session_admin.current_session",
							   "Id of the session that a user who changes the own password keeps.",
							   "Either the session id or the hex digits of its SHA-256.",
							   &sa_current_session,
							   "",
							   PGC_USERSET, GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							   NULL, NULL, NULL);

	DefineCustomBoolVariable("session_admin.notify_detail",
							 "Tells in a notification which session or user was ended.",
							 "Any role may listen; when off, notifications only say that there is something new.",
							 &sa_notify_detail,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("session_admin.touch_interval",
							"Least time between two writes of a session's last access.",
							NULL,
							&sa_touch_interval,
							60, 0, 24 * 60 * 60,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);

	/* loaded later, there is no table and nothing to set: any context will do */
	DefineCustomIntVariable("session_admin.max_live_sessions",
							"Sessions in the shared table of live sessions.",
							"Beyond it sessions are as right, but each touch reads its table.",
							&sa_max_live_sessions,
							100000, 1000, 100000000,
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP, 0,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("session_admin.use_shared_memory",
							 "Answers touches from the shared table of live sessions.",
							 "When off, each touch of this session reads the table session, as where the library is not preloaded.",
							 &sa_use_shared_memory,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("session_admin.flush_interval",
							"Time between two writes of requests and last accesses by the worker.",
							"A crash loses no more than that of them.",
							&sa_flush_interval,
							60, 1, 3600,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable("session_admin.lock_wait",
							"Time that an invalidation waits for transactions of others.",
							"What they have locked longer ends all the same, and is cleared up later.",
							&sa_lock_wait,
							1000, 0, 60 * 60 * 1000,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("session_admin.worker",
							 "Does the housekeeping in the background.",
							 "When off, something has to call session_admin.maintain().",
							 &sa_worker_enabled,
							 true,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("session_admin.max_applications",
							"Applications that there may be.",
							"One is made by its first session, token or policy, unless there are as many.",
							&sa_max_applications,
							1000, 1, 1000000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);

	MarkGUCPrefixReserved("session_admin");
}
