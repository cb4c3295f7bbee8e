/*
 * expire.c
 *	  Tasks: archive what has ended by time, and note when its users were last seen.
 */
#include "housekeeping/task.h"
#include "ending/ending.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

/* Sessions that have ended by time or with their generation. */
int64
sa_expire_sessions(bool *more)
{
	static SaStatement delete_ended = {.sql =
		"DELETE FROM session_admin.session s USING ("
		"  SELECT l.session_hash, l.application FROM session_admin_internal.session_state e"
		"  JOIN session_admin.session l"
		"    ON l.session_hash = e.session_hash AND l.application = e.application"
		"  WHERE e.ended_at IS NOT NULL LIMIT $1 FOR UPDATE OF l SKIP LOCKED) e"
		" WHERE s.session_hash = e.session_hash AND s.application = e.application"
	};
	SaEnding	ending = {.reason = "idle_timeout", .at = GetCurrentTimestamp(),
	.options = {.skips_locked = true, .had_ended = true}};
	SaArgs		args = {0};

	sa_arg(&args, INT8OID, Int64GetDatum(SA_TASK_BATCH), false);
	return sa_task_batch_done(sa_delete_for(&ending, NULL, &delete_ended, &args), more);
}

/* Remember-me tokens, likewise. */
int64
sa_expire_tokens(bool *more)
{
	static SaStatement delete_ended = {.sql =
		"DELETE FROM session_admin.remember_me_token t USING ("
		"  SELECT series, t.application FROM session_admin.remember_me_token t" SA_JOIN_TOKEN_LIMITS("t")
		"  WHERE " SA_TOKEN_HAS_ENDED("t")
		"  LIMIT $1 FOR UPDATE OF t SKIP LOCKED) e"
		" WHERE t.series = e.series AND t.application = e.application"
	};
	SaEnding	ending = {.reason = "absolute_timeout", .at = GetCurrentTimestamp(),
	.options.had_ended = true};
	SaArgs		args = {0};

	sa_arg(&args, INT8OID, Int64GetDatum(SA_TASK_BATCH), false);
	return sa_task_batch_done(sa_delete_for(&ending, NULL, &delete_ended, &args), more);
}

/*
 * Note when users were last seen, from the sessions that ended. The accounts are locked
 * first: renaming a user also locks the account before these rows.
 */
int64
sa_expire_note_seen(bool *more)
{
	static SaStatement fold = {.sql =
		"WITH seen AS MATERIALIZED ("
		"  SELECT ctid, application, user_name FROM session_admin_internal.account_seen LIMIT $1"
		"), locked AS MATERIALIZED ("
		"  SELECT application, user_name FROM session_admin_internal.account"
		"  WHERE (user_name, application) IN (SELECT user_name, application FROM seen)"
		"  FOR NO KEY UPDATE SKIP LOCKED"
		"), gone AS ("
		"  DELETE FROM session_admin_internal.account_seen s USING seen"
		"  WHERE s.ctid = seen.ctid"
		"    AND ((seen.user_name, seen.application) IN (SELECT user_name, application FROM locked)"
		"      OR NOT EXISTS (SELECT FROM session_admin_internal.account a"
		"        WHERE a.user_name = seen.user_name AND a.application = seen.application))"
		"  RETURNING s.application, s.user_name, s.at, s.login_failed, s.logins"
		"), updated AS ("
		"  UPDATE session_admin_internal.account a SET last_seen_at = greatest(a.last_seen_at, n.at),"
		"    last_failed_login_at = greatest(a.last_failed_login_at, n.last_failed_at),"
		"    login_count = a.login_count + n.logins,"
		"    previous_login_at = CASE WHEN n.last_login_at > a.last_login_at THEN a.last_login_at"
		"      ELSE a.previous_login_at END,"
		"    last_login_at = greatest(a.last_login_at, n.last_login_at),"
		"    current_failed_count = a.current_failed_count + n.failed_since_login,"
		"    total_failed_count = a.total_failed_count + n.failed"
		"  FROM (SELECT g.application, g.user_name, max(g.at) FILTER (WHERE NOT g.login_failed) AS at,"
		"      max(g.at) FILTER (WHERE g.login_failed) AS last_failed_at,"
		"      sum(g.logins) AS logins, max(g.at) FILTER (WHERE g.logins > 0) AS last_login_at,"
		"      count(*) FILTER (WHERE g.login_failed) AS failed,"
		"      count(*) FILTER (WHERE g.login_failed"
		"        AND (g.at > b.last_login_at OR b.last_login_at IS NULL)) AS failed_since_login"
		"    FROM gone g JOIN session_admin_internal.account b USING (application, user_name)"
		"    GROUP BY g.application, g.user_name) n"
		"  WHERE a.application = n.application AND a.user_name = n.user_name"
		")"
		" SELECT count(*) FROM gone"
	};
	SaArgs		args = {0};

	sa_arg(&args, INT8OID, Int64GetDatum(SA_TASK_BATCH), false);
	sa_run(&fold, &args);
	return sa_task_batch_done(sa_result_int64(0, 1), more);
}
