/*
 * Invalidation: what an administrator calls
 *
 * All give the id of the invalidation (for wait_for_nodes), and how many live
 * sessions and remember-me tokens it ended; null where they were too many to be
 * counted at once.
 */

CREATE FUNCTION session_admin_internal.check_filter(filters integer, idle_for interval) RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_check_filter';
COMMENT ON FUNCTION session_admin_internal.check_filter(integer, interval) IS
'true; an error if there is no filter at all, or one that a slip has made to match all';

CREATE FUNCTION session_admin_internal.sessions_to_invalidate(
    user_name text, address cidr, user_agent_like text, node text, idle_for interval,
    opened_before timestamptz, anonymous boolean, application text)
RETURNS SETOF session_admin_internal.session_state
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT s.* FROM session_admin_internal.session_state s
    WHERE session_admin_internal.check_filter(num_nonnulls($1, $2, $3, $4, $5, $6, $7), $5)
      AND s.application = $8
      AND s.ended_at IS NULL
      AND ($1 IS NULL OR s.user_name = $1)
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
    application text DEFAULT NULL,
    OUT invalidation_id bigint,
    OUT sessions_ended bigint,
    OUT tokens_revoked bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_session';
COMMENT ON FUNCTION session_admin.invalidate_session(text, text, text) IS
'ends one session, named by 8 or more digits of its session_ref, or by its log_id';

CREATE FUNCTION session_admin.invalidate_user(
    user_name text,
    keep_session text DEFAULT NULL,
    keep_remember_me boolean DEFAULT false,
    reason text DEFAULT 'admin',
    application text DEFAULT NULL,
    OUT invalidation_id bigint,
    OUT sessions_ended bigint,
    OUT tokens_revoked bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_user';
COMMENT ON FUNCTION session_admin.invalidate_user(text, text, boolean, text, text) IS
'logs one user out everywhere, remembered devices included; keep_session is the id of a session that goes on';

CREATE FUNCTION session_admin.invalidate_user(
    user_name text,
    keep_session bytea,
    keep_remember_me boolean DEFAULT false,
    reason text DEFAULT 'admin',
    application text DEFAULT NULL,
    OUT invalidation_id bigint,
    OUT sessions_ended bigint,
    OUT tokens_revoked bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_user';
COMMENT ON FUNCTION session_admin.invalidate_user(text, bytea, boolean, text, text) IS
'logs one user out everywhere, remembered devices included; keep_session is the SHA-256 of the id of a session that goes on';

CREATE FUNCTION session_admin.invalidate_sessions(
    user_name text DEFAULT NULL,
    address cidr DEFAULT NULL,
    user_agent_like text DEFAULT NULL,
    node text DEFAULT NULL,
    idle_for interval DEFAULT NULL,
    opened_before timestamptz DEFAULT NULL,
    anonymous boolean DEFAULT NULL,
    reason text DEFAULT 'admin',
    application text DEFAULT NULL,
    OUT invalidation_id bigint,
    OUT sessions_ended bigint,
    OUT tokens_revoked bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_sessions';
COMMENT ON FUNCTION session_admin.invalidate_sessions(text, cidr, text, text, interval, timestamptz, boolean, text, text) IS
'ends the sessions that all of the filters match; at least one must be given';

CREATE FUNCTION session_admin.invalidate_application(
    reason text DEFAULT 'admin',
    application text DEFAULT NULL,
    OUT invalidation_id bigint,
    OUT sessions_ended bigint,
    OUT tokens_revoked bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_application';
COMMENT ON FUNCTION session_admin.invalidate_application(text, text) IS
'logs everybody out of one application, remembered devices included, at a cost that does not depend on how many they are';

CREATE FUNCTION session_admin.invalidate_all(
    reason text DEFAULT 'admin',
    OUT invalidation_id bigint,
    OUT sessions_ended bigint,
    OUT tokens_revoked bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_invalidate_all';
COMMENT ON FUNCTION session_admin.invalidate_all(text) IS
'logs everybody out of every application';
