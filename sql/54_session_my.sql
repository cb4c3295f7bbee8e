/*
 * Self-service: what an application shows its users of themselves, and lets them do
 *
 * The application says who asks; the functions give and end nothing of anybody
 * else.
 */

CREATE FUNCTION session_admin.my_sessions(user_name text, application text DEFAULT NULL)
RETURNS TABLE (
    session_ref text, current boolean, login_method text, client_address inet, user_agent text,
    device text, created_at timestamptz, last_access_at timestamptz, expires_at timestamptz)
LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT session_admin.session_ref(s.session_hash),
           -- the setting may be the session id or its SHA-256
           encode(s.session_hash, 'hex') IN (
               lower(g.current_session),
               encode(sha256(convert_to(g.current_session, getdatabaseencoding())), 'hex')),
           s.login_method, s.client_address, s.user_agent, s.device,
           s.created_at, s.last_access_at, s.expires_at
    FROM session_admin_internal.session_state s
    CROSS JOIN (SELECT coalesce(current_setting('session_admin.current_session', true), '')
                           AS current_session) g
    WHERE s.user_name = $1
      AND s.application = session_admin_internal.application_or_current($2)
      AND s.ended_at IS NULL
    ORDER BY s.last_access_at DESC, s.session_hash;
END;
COMMENT ON FUNCTION session_admin.my_sessions(text, text) IS
'returns the valid sessions of a user, the one used last first; current marks the one that session_admin.current_session names';

CREATE FUNCTION session_admin.my_devices(user_name text, application text DEFAULT NULL)
RETURNS TABLE (
    series text, device text, client_address inet, user_agent text, created_at timestamptz,
    last_used_at timestamptz, expires_at timestamptz)
LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT d.series, d.device, d.client_address, d.user_agent, d.created_at, d.last_used_at,
           d.expires_at
    FROM session_admin.remembered_devices d
    WHERE d.user_name = $1
      AND d.application = session_admin_internal.application_or_current($2)
    ORDER BY coalesce(d.last_used_at, d.created_at) DESC, d.series;
END;
COMMENT ON FUNCTION session_admin.my_devices(text, text) IS
'returns the devices on which a user is remembered, the one used last first; for a page of the application';

CREATE FUNCTION session_admin.end_my_session(
    user_name text,
    session_ref text,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH ended AS MATERIALIZED (
        SELECT i.sessions_ended
        FROM session_admin_internal.session_state s
        CROSS JOIN LATERAL session_admin.invalidate_session(
            encode(s.session_hash, 'hex'), 'logout', s.application) i
        WHERE s.user_name = $1
          AND s.application = session_admin_internal.application_or_current($3)
          AND session_admin.session_ref(s.session_hash) = lower($2)
          AND s.ended_at IS NULL)
    SELECT coalesce(sum(ended.sessions_ended), 0) > 0 FROM ended;
END;
COMMENT ON FUNCTION session_admin.end_my_session(text, text, text) IS
'ends one session of a user, given by the session_ref that my_sessions shows; returns false if it is not a valid session of that user';

CREATE FUNCTION session_admin.end_my_other_sessions(
    user_name text,
    keep_session text,
    keep_remember_me boolean DEFAULT false,
    application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT i.invalidation_id, i.sessions_ended, i.tokens_revoked
    FROM session_admin.invalidate_user($1, $2, $3, 'logout', $4) i;
END;
COMMENT ON FUNCTION session_admin.end_my_other_sessions(text, text, boolean, text) IS
'ends all sessions of a user but the one with this id, and revokes the user''s remember-me tokens unless keep_remember_me; error PT404 if the user is not known';

CREATE FUNCTION session_admin.end_my_other_sessions(
    user_name text,
    keep_session bytea,
    keep_remember_me boolean DEFAULT false,
    application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT i.invalidation_id, i.sessions_ended, i.tokens_revoked
    FROM session_admin.invalidate_user($1, $2, $3, 'logout', $4) i;
END;
COMMENT ON FUNCTION session_admin.end_my_other_sessions(text, bytea, boolean, text) IS
'ends all sessions of a user but the one whose id has this SHA-256, and revokes the user''s remember-me tokens unless keep_remember_me; error PT404 if the user is not known';
