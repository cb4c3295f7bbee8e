/*
 * Live sessions: are they valid, and when were they used
 *
 * A session whose row is still there may have ended already: with its whole
 * generation, or by time.
 */

CREATE FUNCTION session_admin_internal.live_last_access(session_hash bytea, application text)
RETURNS timestamptz
LANGUAGE c STABLE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_live_last_access';
COMMENT ON FUNCTION session_admin_internal.live_last_access(bytea, text) IS
'last access of a session if it is later than what its row says, else null';

CREATE FUNCTION session_admin_internal.live_requests(session_hash bytea, application text)
RETURNS bigint
LANGUAGE c STABLE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_live_requests';
COMMENT ON FUNCTION session_admin_internal.live_requests(bytea, text) IS
'requests of a session that its row does not count yet';

-- The one place that says whether, when and why a session has ended.  All views and functions
-- read it, but for the trigger that archives rows, which are not in the table any more.
CREATE VIEW session_admin_internal.session_state AS
SELECT s.session_hash, s.application, s.generation, s.created_at, l.last_access_at,
       l.requests, s.user_name, s.login_method, s.client_address, s.peer_address, s.log_id,
       s.user_agent, s.device, s.node,
       least(d.idle_end, d.absolute_end) AS expires_at,
       e.ended_at,
       CASE WHEN e.ended_at IS NULL THEN NULL
            WHEN e.ended_at = d.late_end THEN (late.e).reason
            WHEN e.ended_at = d.generation_end THEN coalesce(g.reason, a.end_reason)
            WHEN e.ended_at = d.absolute_end THEN 'absolute_timeout'
            ELSE 'idle_timeout' END AS end_reason,
       CASE WHEN e.ended_at IS NULL THEN NULL
            WHEN e.ended_at = d.late_end THEN (late.e).ended_by
            WHEN e.ended_at = d.generation_end THEN coalesce(g.ended_by, 'session_admin')
            ELSE 'session_admin' END AS ended_by,
       CASE WHEN e.ended_at = d.late_end THEN (late.e).actor
            WHEN e.ended_at = d.generation_end THEN g.actor END AS actor,
       s.ctid AS tid
FROM session_admin.session s
JOIN session_admin_internal.application_state a ON a.name = s.application
JOIN session_admin_internal.time_limit t ON t.application = s.application
LEFT JOIN session_admin_internal.user_time_limit u
    ON u.application = s.application AND u.user_name = s.user_name
LEFT JOIN session_admin_internal.application_generation g
    ON g.application = s.application AND g.generation = s.generation
CROSS JOIN LATERAL (SELECT
    greatest(s.last_access_at, session_admin_internal.live_last_access(s.session_hash, s.application))
        AS last_access_at,
    s.requests + coalesce(session_admin_internal.live_requests(s.session_hash, s.application), 0)
        AS requests,
    CASE WHEN s.product IS NOT NULL THEN s.idle_timeout
         WHEN s.user_name IS NULL THEN t.anonymous_idle_timeout
         ELSE coalesce(u.idle_timeout, t.idle_timeout) END AS idle_timeout) l
-- there is hardly ever one: then no row costs a look
CROSS JOIN LATERAL (
    SELECT CASE WHEN (SELECT EXISTS (SELECT FROM session_admin_internal.late_ending)) THEN (
        SELECT e
        FROM session_admin_internal.late_ending e
        WHERE s.opened_xid < e.before_xid
          AND (e.application IS NULL OR e.application = s.application)
          AND (e.user_name IS NULL OR e.user_name = s.user_name)
          AND (e.session_hash IS NULL OR e.session_hash = s.session_hash)
          AND e.keep_hash IS DISTINCT FROM s.session_hash
        ORDER BY e.at, e.id LIMIT 1) END AS e
    OFFSET 0) late
CROSS JOIN LATERAL (SELECT
    CASE WHEN (late.e).at IS NOT NULL THEN greatest((late.e).at, s.created_at) END AS late_end,
    l.last_access_at + l.idle_timeout AS idle_end,
    s.created_at + CASE WHEN s.product IS NOT NULL THEN NULL
                        WHEN s.user_name IS NULL THEN t.anonymous_absolute_timeout
                        ELSE coalesce(u.absolute_timeout, t.absolute_timeout) END AS absolute_end,
    CASE WHEN s.generation <> a.generation
         THEN greatest(g.ended_at, a.restored_at, s.created_at) END AS generation_end) d
CROSS JOIN LATERAL (SELECT
    -- the row comes first: of most sessions it tells enough
    CASE WHEN (s.last_access_at + l.idle_timeout <= statement_timestamp()
               AND d.idle_end <= statement_timestamp())
              OR d.absolute_end <= statement_timestamp()
              OR d.generation_end IS NOT NULL
              OR d.late_end IS NOT NULL
         THEN least(d.idle_end, d.absolute_end, d.generation_end, d.late_end) END AS ended_at) e;
COMMENT ON VIEW session_admin_internal.session_state IS
'each row of session with the moment, reason and author of its end, if it has ended';

CREATE FUNCTION session_admin_internal.session_changed() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_session_changed';
COMMENT ON FUNCTION session_admin_internal.session_changed() IS
'trigger: has the sessions that were updated read from the table again';

CREATE TRIGGER session_changed AFTER UPDATE ON session_admin.session
    REFERENCING OLD TABLE AS old_table NEW TABLE AS new_table
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.session_changed();

-- Also where session_replication_role is replica.
ALTER TABLE session_admin.session ENABLE ALWAYS TRIGGER session_changed;

CREATE FUNCTION session_admin.touch_session(
    session_id text,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_session';
COMMENT ON FUNCTION session_admin.touch_session(text, text) IS
'counts a request of a session; returns whether the session is valid';

CREATE FUNCTION session_admin.touch_session(
    session_id bytea,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_session';
COMMENT ON FUNCTION session_admin.touch_session(bytea, text) IS
'counts a request of a session, given by the SHA-256 of its id; returns whether the session is valid';

CREATE TYPE session_admin.touched_session AS (
    valid               boolean,
    user_name           text,
    kind                text,
    login_method        text,
    created_at          timestamptz,
    reauthenticated_at  timestamptz
);
COMMENT ON TYPE session_admin.touched_session IS
'whether a session is valid, and whose it is';
COMMENT ON COLUMN session_admin.touched_session.valid IS
'whether the session is valid; if not, all else is null';
COMMENT ON COLUMN session_admin.touched_session.user_name IS
'name of the user; null for an anonymous session';
COMMENT ON COLUMN session_admin.touched_session.kind IS
'user or anonymous';
COMMENT ON COLUMN session_admin.touched_session.login_method IS
'how the user logged in, as the application named it; remember-me for a remembered device';
COMMENT ON COLUMN session_admin.touched_session.created_at IS
'time of the login';
COMMENT ON COLUMN session_admin.touched_session.reauthenticated_at IS
'time at which the user last logged in again in this session; null if never';

CREATE FUNCTION session_admin.touch_session_user(
    session_id text,
    application text DEFAULT NULL)
RETURNS session_admin.touched_session
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_session_user';
COMMENT ON FUNCTION session_admin.touch_session_user(text, text) IS
'counts a request of a session; returns whether the session is valid, and whose it is';

CREATE FUNCTION session_admin.touch_session_user(
    session_id bytea,
    application text DEFAULT NULL)
RETURNS session_admin.touched_session
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_session_user';
COMMENT ON FUNCTION session_admin.touch_session_user(bytea, text) IS
'counts a request of a session, given by the SHA-256 of its id; returns whether the session is valid, and whose it is';

CREATE FUNCTION session_admin.touch_sessions(
    session_ids text[],
    requests bigint[] DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS text[]
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_sessions';
COMMENT ON FUNCTION session_admin.touch_sessions(text[], bigint[], text) IS
'counts requests of many sessions, one each or as given; returns the ids that are not valid';

CREATE FUNCTION session_admin.touch_sessions(
    session_ids bytea[],
    requests bigint[] DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS bytea[]
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_sessions';
COMMENT ON FUNCTION session_admin.touch_sessions(bytea[], bigint[], text) IS
'counts requests of many sessions, given by the SHA-256 of their ids, one each or as given; returns those that are not valid';

-- '{a,b}' without a type could be either of these; as in all such cases, text is preferred.
CREATE FUNCTION session_admin.touch_sessions(
    session_ids text,
    requests bigint[] DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS text[]
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_sessions_text';
COMMENT ON FUNCTION session_admin.touch_sessions(text, bigint[], text) IS
'counts requests of many sessions, given as an array literal such as ''{id1,id2}''; returns the ids that are not valid';

CREATE FUNCTION session_admin_internal.live_status(
    OUT used bigint,
    OUT capacity bigint,
    OUT unflushed bigint,
    OUT estimated boolean,
    OUT touched bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_live_status';
COMMENT ON FUNCTION session_admin_internal.live_status() IS
'sessions in the shared table of live sessions, room there, requests of this database that the table session does not count yet, and sessions whose last access or requests it does not tell yet: estimated from some of the sessions, where there are many';
