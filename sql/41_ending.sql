/*
 * Endings: the triggers through which all leave, and what an administrator calls
 *
 * All that end sessions give the id of the invalidation (for wait_for_nodes), and
 * how many live sessions and remember-me tokens they ended; null where they were
 * too many to be counted at once.
 */

-- A type, not OUT parameters: psql shows a call in a line that fits a screen.
CREATE TYPE session_admin.invalidation_result AS (
    invalidation_id bigint,
    sessions_ended  bigint,
    tokens_revoked  bigint
);
COMMENT ON TYPE session_admin.invalidation_result IS
'what a call has ended';
COMMENT ON COLUMN session_admin.invalidation_result.invalidation_id IS
'id of the invalidation, for wait_for_nodes(); null if nothing ended';
COMMENT ON COLUMN session_admin.invalidation_result.sessions_ended IS
'number of live sessions that ended; null if they were too many to be counted at once';
COMMENT ON COLUMN session_admin.invalidation_result.tokens_revoked IS
'number of valid remember-me tokens that were revoked; null if they were too many to be counted at once';

CREATE FUNCTION session_admin_internal.ended_until(
    application text, user_name text, product text, idle_timeout interval,
    created_at timestamptz, ended_at timestamptz)
RETURNS timestamptz
LANGUAGE c STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_ended_until';
COMMENT ON FUNCTION session_admin_internal.ended_until(text, text, text, interval, timestamptz, timestamptz) IS
'how long a session that ended then could have lived: until then its id cannot be used again';

-- The one place that says it of remember-me tokens, as session_state does of sessions; the
-- triggers that archive rows say the same of rows that are not in the tables any more.
CREATE VIEW session_admin_internal.token_state AS
SELECT t.series, t.application, t.generation, t.user_name, t.device, t.user_agent, t.client_address,
       t.created_at, t.last_used_at, d.lifetime_end AS expires_at,
       e.ended_at,
       CASE WHEN e.ended_at IS NULL THEN NULL
            WHEN e.ended_at = d.late_end THEN late.reason
            WHEN e.ended_at = d.generation_end THEN coalesce(g.reason, a.end_reason)
            ELSE 'absolute_timeout' END AS end_reason,
       t.ctid AS tid
FROM session_admin.remember_me_token t
JOIN session_admin_internal.application_state a ON a.name = t.application
JOIN session_admin_internal.time_limit l ON l.application = t.application
LEFT JOIN session_admin_internal.application_generation g
    ON g.application = t.application AND g.generation = t.generation
LEFT JOIN LATERAL (
    SELECT e.at, e.reason
    FROM session_admin_internal.late_ending e
    WHERE e.tokens AND t.opened_xid < e.before_xid
      AND (e.application IS NULL OR e.application = t.application)
      AND (e.user_name IS NULL OR e.user_name = t.user_name)
    ORDER BY e.at, e.id LIMIT 1) late ON true
CROSS JOIN LATERAL (SELECT
    CASE WHEN late.at IS NOT NULL THEN greatest(late.at, t.created_at) END AS late_end,
    t.created_at + l.remember_me_lifetime AS lifetime_end,
    CASE WHEN t.generation <> a.generation
         THEN greatest(g.ended_at, a.restored_at, t.created_at) END AS generation_end) d
CROSS JOIN LATERAL (SELECT
    CASE WHEN d.lifetime_end <= statement_timestamp()
              OR d.generation_end IS NOT NULL
              OR d.late_end IS NOT NULL
         THEN least(d.lifetime_end, d.generation_end, d.late_end) END AS ended_at) e;
COMMENT ON VIEW session_admin_internal.token_state IS
'each row of remember_me_token with the moment and reason of its end, if it has ended';

-- The door out of session: the row is the truth, whoever deletes it.
CREATE FUNCTION session_admin_internal.session_ended() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_session_ended';
COMMENT ON FUNCTION session_admin_internal.session_ended() IS
'trigger: archives the sessions that left the table, writes the feed and notifies';

CREATE FUNCTION session_admin_internal.truncated() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_truncated';
COMMENT ON FUNCTION session_admin_internal.truncated() IS
'trigger: sends all rows through the same door before TRUNCATE';

CREATE FUNCTION session_admin_internal.token_revoked() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_token_revoked';
COMMENT ON FUNCTION session_admin_internal.token_revoked() IS
'trigger: notes the remember-me tokens that left the table, writes the feed and notifies';

CREATE TRIGGER session_ended AFTER DELETE ON session_admin.session
    REFERENCING OLD TABLE AS old_table
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.session_ended();
CREATE TRIGGER truncated BEFORE TRUNCATE ON session_admin.session
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.truncated();
CREATE TRIGGER token_revoked AFTER DELETE ON session_admin.remember_me_token
    REFERENCING OLD TABLE AS old_table
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.token_revoked();
CREATE TRIGGER truncated BEFORE TRUNCATE ON session_admin.remember_me_token
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.truncated();

-- Also where session_replication_role is replica.
ALTER TABLE session_admin.session ENABLE ALWAYS TRIGGER session_ended;
ALTER TABLE session_admin.session ENABLE ALWAYS TRIGGER truncated;
ALTER TABLE session_admin.remember_me_token ENABLE ALWAYS TRIGGER token_revoked;
ALTER TABLE session_admin.remember_me_token ENABLE ALWAYS TRIGGER truncated;

CREATE FUNCTION session_admin_internal.check_filter(filters integer, idle_for interval) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_check_filter';
COMMENT ON FUNCTION session_admin_internal.check_filter(integer, interval) IS
'true; an error if there is no filter at all, or one that a slip has made to match all';

-- A user's sessions are found by the index: one of the two halves is never executed.
CREATE FUNCTION session_admin_internal.sessions_to_invalidate(
    user_name text, address cidr, user_agent_like text, node text, idle_for interval,
    opened_before timestamptz, anonymous boolean, application text)
RETURNS SETOF session_admin_internal.session_state
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT s.* FROM session_admin_internal.session_state s
    WHERE session_admin_internal.check_filter(num_nonnulls($1, $2, $3, $4, $5, $6, $7), $5)
      AND $1 IS NOT NULL
      AND s.application = $8
      AND s.user_name = $1
      AND s.ended_at IS NULL
      AND ($2 IS NULL OR s.client_address <<= $2)
      AND ($3 IS NULL OR s.user_agent LIKE $3)
      AND ($4 IS NULL OR s.node = $4)
      AND ($5 IS NULL OR s.last_access_at <= statement_timestamp() - $5)
      AND ($6 IS NULL OR s.created_at < $6)
      AND ($7 IS NULL OR (s.user_name IS NULL) = $7)
    UNION ALL
    SELECT s.* FROM session_admin_internal.session_state s
    WHERE session_admin_internal.check_filter(num_nonnulls($1, $2, $3, $4, $5, $6, $7), $5)
      AND $1 IS NULL
      AND s.application = $8
      AND s.ended_at IS NULL
      AND ($2 IS NULL OR s.client_address <<= $2)
      AND ($3 IS NULL OR s.user_agent LIKE $3)
      AND ($4 IS NULL OR s.node = $4)
      AND ($5 IS NULL OR s.last_access_at <= statement_timestamp() - $5)
      AND ($6 IS NULL OR s.created_at < $6)
      AND ($7 IS NULL OR (s.user_name IS NULL) = $7);
END;
COMMENT ON FUNCTION session_admin_internal.sessions_to_invalidate(text, cidr, text, text, interval, timestamptz, boolean, text) IS
'the live sessions that all of these filters match; null is no filter';

CREATE FUNCTION session_admin.invalidate_session(
    session_ref text,
    reason text DEFAULT 'admin',
    application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_session';
COMMENT ON FUNCTION session_admin.invalidate_session(text, text, text) IS
'ends one session, given by at least 8 digits of its session_ref or by its log_id; error PT404 if no valid session has it, 22023 if several do';

CREATE FUNCTION session_admin.invalidate_user(
    user_name text,
    keep_session text DEFAULT NULL,
    keep_remember_me boolean DEFAULT false,
    reason text DEFAULT 'admin',
    application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_user';
COMMENT ON FUNCTION session_admin.invalidate_user(text, text, boolean, text, text) IS
'ends a user''s sessions, except the one with the id keep_session, and revokes the remember-me tokens unless keep_remember_me; error PT404 if the user is not known';

CREATE FUNCTION session_admin.invalidate_user(
    user_name text,
    keep_session bytea,
    keep_remember_me boolean DEFAULT false,
    reason text DEFAULT 'admin',
    application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_user';
COMMENT ON FUNCTION session_admin.invalidate_user(text, bytea, boolean, text, text) IS
'ends a user''s sessions, except the one whose id has the SHA-256 keep_session, and revokes the remember-me tokens unless keep_remember_me; error PT404 if the user is not known';

CREATE FUNCTION session_admin.invalidate_sessions(
    user_name text DEFAULT NULL,
    address cidr DEFAULT NULL,
    user_agent_like text DEFAULT NULL,
    node text DEFAULT NULL,
    idle_for interval DEFAULT NULL,
    opened_before timestamptz DEFAULT NULL,
    anonymous boolean DEFAULT NULL,
    reason text DEFAULT 'admin',
    application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_sessions';
COMMENT ON FUNCTION session_admin.invalidate_sessions(text, cidr, text, text, interval, timestamptz, boolean, text, text) IS
'ends the sessions that match all filters that are not null; error 22023 without a filter; see preview_invalidation';

CREATE FUNCTION session_admin.invalidate_application(
    reason text DEFAULT 'admin',
    application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_application';
COMMENT ON FUNCTION session_admin.invalidate_application(text, text) IS
'ends all sessions and remember-me tokens of an application, at a cost that does not depend on their number; error PT404 if the application does not exist';

CREATE FUNCTION session_admin.invalidate_all(
    reason text DEFAULT 'admin')
RETURNS session_admin.invalidation_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_all';
COMMENT ON FUNCTION session_admin.invalidate_all(text) IS
'ends all sessions and remember-me tokens of all applications';
