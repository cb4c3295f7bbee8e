/*
 * apply_login.c
 *	  Logins, failed logins and counts that a product's rows tell, and its remember-me
 *	  tokens.
 */
#include "capture/apply.h"
#include "policy/policy.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

/*
 * $1 to $3 are what keys belong to, $4 to $9 a table of what is told, a row each; $10: the
 * rows were there before; $11: the application tells of logins itself.
 */
static SaStatement record_logins = {.sql =
	"WITH told AS MATERIALIZED ("
	"  SELECT f.key, f.user_name,"
	"    max(f.at) FILTER (WHERE f.role = 'last_login_at') AS last_login_at,"
	"    max(f.at) FILTER (WHERE f.role = 'previous_login_at') AS previous_login_at,"
	"    max(f.at) FILTER (WHERE f.role = 'last_failed_login_at') AS last_failed_login_at,"
	"    max(f.at) FILTER (WHERE f.role = 'last_seen_at') AS last_seen_at,"
	"    max(f.number) FILTER (WHERE f.role = 'login_count') AS login_count,"
	"    max(f.number) FILTER (WHERE f.role = 'current_failed_count') AS current_failed_count,"
	"    max(f.number) FILTER (WHERE f.role = 'total_failed_count') AS total_failed_count,"
	"    max(f.address::inet) FILTER (WHERE f.role = 'last_login_address') AS address,"
	"    array_agg(DISTINCT f.role) FILTER (WHERE f.number IS NOT NULL) AS counted"
	"  FROM unnest($4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::bigint[], $9::text[])"
	"    AS f (key, user_name, role, at, number, address)"
	"  WHERE f.user_name IS NOT NULL AND (f.role = 'last_seen_at' OR NOT $11)"
	"  GROUP BY f.key, f.user_name"
	"), known AS MATERIALIZED ("
	"  SELECT t.*, coalesce(k.counted, '{}') || coalesce(t.counted, '{}') AS all_counted,"
	/* of a user without a key we know only the account */
	"    t.last_login_at > coalesce(CASE WHEN t.key IS NULL THEN a.last_login_at"
	"      ELSE k.last_login_at END, '-infinity') AS logged_in,"
	"    t.last_failed_login_at > coalesce(CASE WHEN t.key IS NULL THEN a.last_failed_login_at"
	"      ELSE k.last_failed_login_at END, '-infinity') AS failed"
	"  FROM told t"
	"  JOIN session_admin_internal.account a ON a.application = $1 AND a.user_name = t.user_name"
	"  LEFT JOIN session_admin_internal.account_key k"
	"    ON k.application = $1 AND k.product = $2 AND k.part = $3 AND k.key = t.key"
	"), noted AS ("
	"  UPDATE session_admin_internal.account_key k SET"
	"    last_login_at = greatest(k.last_login_at, t.last_login_at),"
	"    last_failed_login_at = greatest(k.last_failed_login_at, t.last_failed_login_at),"
	"    counted = ARRAY(SELECT DISTINCT unnest(t.all_counted) ORDER BY 1)"
	"  FROM known t"
	"  WHERE k.application = $1 AND k.product = $2 AND k.part = $3 AND k.key = t.key"
	"    AND (t.logged_in OR t.failed OR NOT k.counted @> t.all_counted)"
	"), change AS MATERIALIZED ("
	"  SELECT user_name, max(last_login_at) AS last_login_at,"
	"    max(previous_login_at) AS previous_login_at,"
	"    max(last_failed_login_at) AS last_failed_login_at, max(last_seen_at) AS last_seen_at,"
	"    max(login_count) AS login_count, max(current_failed_count) AS current_failed_count,"
	"    max(total_failed_count) AS total_failed_count, max(address) AS address,"
	"    coalesce(bool_or(logged_in), false) AS logged_in,"
	"    coalesce(bool_or(failed), false) AS failed,"
	"    bool_or('login_count' = ANY (all_counted)) AS counts_logins,"
	"    bool_or('current_failed_count' = ANY (all_counted)) AS counts_current,"
	"    bool_or('total_failed_count' = ANY (all_counted)) AS counts_total"
	"  FROM known GROUP BY user_name"
	"), written AS ("
	"  UPDATE session_admin_internal.account a SET"
	"    login_count = coalesce(c.login_count,"
	"      CASE WHEN c.counts_logins THEN a.login_count"
	"        WHEN $10 THEN greatest(a.login_count, c.logged_in::int)"
	"        ELSE a.login_count + c.logged_in::int END),"
	"    last_login_at = greatest(a.last_login_at, c.last_login_at),"
	"    last_login_address = CASE WHEN c.last_login_at > a.last_login_at"
	"      OR a.last_login_at IS NULL THEN c.address ELSE a.last_login_address END,"
	"    last_login_method = CASE WHEN c.last_login_at > a.last_login_at"
	"      THEN NULL ELSE a.last_login_method END,"
	"    previous_login_at = coalesce(c.previous_login_at,"
	"      CASE WHEN c.last_login_at > a.last_login_at THEN a.last_login_at"
	"        WHEN c.logged_in AND c.last_login_at < a.last_login_at"
	"        THEN greatest(a.previous_login_at, c.last_login_at)"
	"        ELSE a.previous_login_at END),"
	"    last_failed_login_at = greatest(a.last_failed_login_at, c.last_failed_login_at),"
	"    current_failed_count = coalesce(c.current_failed_count,"
	"      CASE WHEN c.counts_current OR $10 THEN a.current_failed_count"
	"        WHEN c.logged_in THEN 0 ELSE a.current_failed_count + c.failed::int END),"
	"    total_failed_count = coalesce(c.total_failed_count,"
	"      CASE WHEN c.counts_total OR $10 THEN a.total_failed_count"
	"        ELSE a.total_failed_count + c.failed::int END),"
	"    last_seen_at = greatest(a.last_seen_at, c.last_login_at, c.last_seen_at)"
	"  FROM change c WHERE a.application = $1 AND a.user_name = c.user_name"
	"    AND (NOT $10 OR c.last_login_at > coalesce(a.last_login_at, '-infinity')"
	"      OR c.last_failed_login_at > coalesce(a.last_failed_login_at, '-infinity')"
	"      OR greatest(c.last_login_at, c.last_seen_at) > coalesce(a.last_seen_at, '-infinity')"
	"      OR a.login_count <> coalesce(c.login_count, greatest(a.login_count, c.logged_in::int))"
	"      OR c.previous_login_at IS DISTINCT FROM coalesce(a.previous_login_at, c.previous_login_at)"
	"      OR c.current_failed_count <> a.current_failed_count"
	"      OR c.total_failed_count <> a.total_failed_count)"
	")"
	" INSERT INTO session_admin_internal.login_event"
	"  (at, application, user_name, event, succeeded, client_address)"
	" SELECT last_login_at, $1, user_name, 'login', true, address"
	" FROM change WHERE logged_in AND NOT $10"
	" UNION ALL"
	" SELECT last_failed_login_at, $1, user_name, 'login_failed', false, NULL"
	" FROM change WHERE failed AND NOT $10"
};

/*
 * Logins, failed logins and counts.  They come in any order and in several
 * statements.  So what makes a login is a time of last login that is later than
 * the one we know, however often it is written; and logins are counted here
 * only for users of whom the product does not give a count.
 */
void
sa_apply_logins(SaBatch *batch)
{
	const SaWatch *watch = batch->watch;
	SaValues	users = batch->login_user;
	SaArgs		args = {0};

	if (users.n == 0)
		return;

	if (SA_HAS(watch, SA_ROLE_USER_KEY))
		sa_batch_resolve(batch, &batch->login_key, &users);
	sa_batch_make_accounts(batch, &users);
	/* of rows that were there before, most change nothing */
	if (!batch->backfill)
		sa_batch_lock_accounts(batch, &users);

	sa_batch_arg_keys(&args, watch, SA_HAS(watch, SA_ROLE_USER_KEY) ? watch->key_of : watch->part);
	sa_batch_arg(&args, &batch->login_key, TEXTOID);
	sa_batch_arg(&args, &users, TEXTOID);
	sa_batch_arg(&args, &batch->login_role, TEXTOID);
	sa_batch_arg(&args, &batch->login_at, TIMESTAMPTZOID);
	sa_batch_arg(&args, &batch->login_number, INT8OID);
	sa_batch_arg(&args, &batch->login_address, TEXTOID);
	sa_arg(&args, BOOLOID, BoolGetDatum(batch->backfill), false);
	sa_arg(&args, BOOLOID, BoolGetDatum(sa_batch_ignores_logins(batch)), false);
	sa_run(&record_logins, &args);
}

/*
 * The product's remember-me rows.  A statement that adds one locks the account, as a
 * login does: an invalidation of the user then waits for it, and deletes that row, too.
 * A statement that changes or deletes one does not: the invalidation may be waiting for
 * that very row, and then finds it changed or gone.
 */
void
sa_apply_tokens(SaBatch *batch)
{
	static SaStatement record_tokens = {.sql =
		"WITH token AS MATERIALIZED ("
		/* a successor in a series that we have seen is a use of it */
		"  SELECT t.user_name, d.detail, CASE WHEN t.event = 'remember_me_issued' AND EXISTS ("
		"      SELECT FROM session_admin_internal.login_event e WHERE e.application = $1"
		"        AND e.user_name = t.user_name AND e.detail = d.detail"
		"        AND e.event IN ('remember_me_issued', 'remember_me_used'))"
		"    THEN 'remember_me_used' ELSE t.event END AS event"
		"  FROM unnest($2::text[], $3::text[], $4::text[], $9::text[]) AS t (user_name, event, ref, series)"
		"  CROSS JOIN LATERAL (SELECT coalesce('series ' || t.series, 'token ' || t.ref) AS detail) d"
		"), recorded AS ("
		"  INSERT INTO session_admin_internal.login_event"
		"    (at, application, user_name, event, succeeded, login_method, detail)"
		"  SELECT $5, $1, user_name, event, true, 'remember_me',"
		"    concat_ws(', ', detail, CASE WHEN event = 'remember_me_revoked' THEN $6 END)"
		"  FROM token"
		"), fed AS ("
		"  INSERT INTO session_admin_internal.invalidation"
		"    (at, scope, application, user_name, reason, actor, tokens_revoked)"
		"  SELECT $5, 'token', $1, user_name, $6, $7, count(*)"
		"  FROM token WHERE event = 'remember_me_revoked' AND $8 GROUP BY user_name"
		"  RETURNING id, user_name"
		")"
		" SELECT count(*), max(id), min(user_name)::text FROM fed"
	};
	const SaEnding *ending = batch->ending;
	SaEnded    *ended = batch->ended;
	SaFeedRow	row = {.scope = "token", .application = batch->watch->application};
	SaValues	users = batch->token_user;
	SaArgs		args = {0};

	if (users.n == 0)
		return;

	if (SA_HAS(batch->watch, SA_ROLE_USER_KEY))
		sa_batch_resolve(batch, &batch->token_user, &users);
	if (batch->insertion)
	{
		sa_batch_make_accounts(batch, &users);
		sa_batch_enter_accounts(batch, &users);
	}

	row.reason = ending ? ending->reason : "token_revoked";
	sa_arg_text(&args, batch->watch->application);
	sa_batch_arg(&args, &users, TEXTOID);
	sa_batch_arg(&args, &batch->token_event, TEXTOID);
	sa_batch_arg(&args, &batch->token_ref, TEXTOID);
	sa_arg(&args, TIMESTAMPTZOID,
		   TimestampTzGetDatum(ending ? ending->at : GetCurrentTimestamp()), false);
	sa_arg_text(&args, row.reason);
	sa_arg_text(&args, sa_actor_or_null());
	sa_arg(&args, BOOLOID, BoolGetDatum(ending == NULL), false);
	sa_batch_arg(&args, &batch->token_series, TEXTOID);
	sa_run(&record_tokens, &args);

	if (sa_result_int64(0, 1) > 0)
	{
		row.id = sa_result_int64(0, 2);
		row.user_name = sa_result_text(0, 3);
		sa_batch_fed(batch, &row, sa_result_int64(0, 1));
		sa_commit_durably(batch->watch->application);
	}
	if (ending != NULL)
		ended->tokens_revoked += users.n;
	for (int i = 0; ending != NULL && ending->options.wants_users && i < users.n; i++)
		ended->revoked_users = accumArrayResult(ended->revoked_users,
												users.values[i], users.nulls[i],
												TEXTOID, ended->context);
}

/* All tokens of the product are gone, and nobody knows whose they were. */
void
sa_apply_truncated_tokens(SaBatch *batch)
{
	const char *application = batch->watch->application;
	SaEnding	ending = {.reason = "token_revoked", .at = GetCurrentTimestamp()};
	SaEnded		ended = {.tokens_revoked = -1};
	SaFeedRow	row = {.scope = "token", .application = application};
	SaLoginEvent event = {
		.application = application,
		.event = "remember_me_revoked",
		.succeeded = true,
		.login_method = "remember_me",
		.detail = "all tokens, truncated",
		.at = ending.at
	};

	sa_login_event_record(&event);
	sa_feed_write(&row, &ending, &ended);
	sa_batch_fed(batch, &row, 1);
}
