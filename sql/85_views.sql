/*
 * Views
 *
 * What people read.  Each is a security barrier, so that a cheap function in
 * somebody's WHERE sees no row that the view leaves out; comparisons still reach
 * the indexes, as those of text, time and bigint are leakproof.
 */

CREATE VIEW session_admin.current_sessions WITH (security_barrier) AS
SELECT s.application,
       session_admin.session_ref(s.session_hash) AS session_ref,
       s.log_id,
       s.user_name,
       CASE WHEN s.user_name IS NULL THEN 'anonymous' ELSE 'user' END AS kind,
       s.login_method,
       s.client_address,
       s.peer_address,
       s.user_agent,
       s.device,
       s.node,
       s.requests,
       s.created_at,
       s.last_access_at,
       greatest(statement_timestamp() - s.last_access_at, interval '0') AS idle,
       s.expires_at
FROM session_admin_internal.session_state s
WHERE s.ended_at IS NULL;
COMMENT ON VIEW session_admin.current_sessions IS
'the valid sessions: who is logged in now';
COMMENT ON COLUMN session_admin.current_sessions.application IS
'name of the application';
COMMENT ON COLUMN session_admin.current_sessions.session_ref IS
'public name of the session, for calls such as invalidate_session: the start of the SHA-256 of its id';
COMMENT ON COLUMN session_admin.current_sessions.log_id IS
'label of the session in Jira''s access log; null if only the SHA-256 of its id is known';
COMMENT ON COLUMN session_admin.current_sessions.user_name IS
'name of the user; null for an anonymous session';
COMMENT ON COLUMN session_admin.current_sessions.kind IS
'user, or anonymous';
COMMENT ON COLUMN session_admin.current_sessions.login_method IS
'how the user logged in, as the application named it';
COMMENT ON COLUMN session_admin.current_sessions.client_address IS
'address of the user, behind trusted proxies';
COMMENT ON COLUMN session_admin.current_sessions.peer_address IS
'address that connected to the application: the user''s, or the last proxy''s';
COMMENT ON COLUMN session_admin.current_sessions.user_agent IS
'header User-Agent of the login, cut to 1,024 bytes';
COMMENT ON COLUMN session_admin.current_sessions.device IS
'label of the device, as the application named it';
COMMENT ON COLUMN session_admin.current_sessions.node IS
'node of the application that opened the session';
COMMENT ON COLUMN session_admin.current_sessions.requests IS
'number of requests';
COMMENT ON COLUMN session_admin.current_sessions.created_at IS
'time at which the session was opened';
COMMENT ON COLUMN session_admin.current_sessions.last_access_at IS
'time of the last request';
COMMENT ON COLUMN session_admin.current_sessions.idle IS
'time since the last request';
COMMENT ON COLUMN session_admin.current_sessions.expires_at IS
'time at which the session ends unless it is used before, and at the latest; null: never';

-- Not a function of the invoker: it reads more than the view shows.
CREATE FUNCTION session_admin.preview_invalidation(
    user_name text DEFAULT NULL,
    address cidr DEFAULT NULL,
    user_agent_like text DEFAULT NULL,
    node text DEFAULT NULL,
    idle_for interval DEFAULT NULL,
    opened_before timestamptz DEFAULT NULL,
    anonymous boolean DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS SETOF session_admin.current_sessions
LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT s.application, session_admin.session_ref(s.session_hash), s.log_id, s.user_name,
           CASE WHEN s.user_name IS NULL THEN 'anonymous' ELSE 'user' END,
           s.login_method, s.client_address, s.peer_address, s.user_agent, s.device, s.node,
           s.requests, s.created_at, s.last_access_at,
           greatest(statement_timestamp() - s.last_access_at, interval '0'), s.expires_at
    FROM session_admin_internal.sessions_to_invalidate(
             $1, $2, $3, $4, $5, $6, $7, session_admin_internal.application_or_current($8)) s;
END;
COMMENT ON FUNCTION session_admin.preview_invalidation(text, cidr, text, text, interval, timestamptz, boolean, text) IS
'returns the sessions that invalidate_sessions would end with the same filters; error 22023 without a filter';

CREATE VIEW session_admin.session_history WITH (security_barrier) AS
SELECT s.application,
       session_admin.session_ref(s.session_hash) AS session_ref,
       s.log_id,
       s.user_name,
       CASE WHEN s.user_name IS NULL THEN 'anonymous' ELSE 'user' END AS kind,
       s.login_method,
       s.client_address,
       s.peer_address,
       s.user_agent,
       s.device,
       s.node,
       s.requests,
       s.created_at,
       s.last_access_at,
       s.ended_at,
       s.end_reason,
       s.ended_by,
       coalesce(s.ended_at, statement_timestamp()) - s.created_at AS duration,
       s.actor
FROM session_admin_internal.session_state s
UNION ALL
SELECT e.application,
       session_admin.session_ref(e.session_hash),
       e.log_id,
       e.user_name,
       CASE WHEN e.user_name IS NULL THEN 'anonymous' ELSE 'user' END,
       e.login_method,
       e.client_address,
       e.peer_address,
       e.user_agent,
       e.device,
       e.node,
       e.requests,
       e.created_at,
       e.last_access_at,
       e.ended_at,
       e.end_reason,
       e.ended_by,
       e.ended_at - e.created_at,
       e.actor
FROM session_admin_internal.ended_session e;
COMMENT ON VIEW session_admin.session_history IS
'all sessions, valid and ended: when, why and by whom they ended';
COMMENT ON COLUMN session_admin.session_history.application IS
'name of the application';
COMMENT ON COLUMN session_admin.session_history.session_ref IS
'public name of the session, for calls such as invalidate_session: the start of the SHA-256 of its id';
COMMENT ON COLUMN session_admin.session_history.log_id IS
'label of the session in Jira''s access log; null if only the SHA-256 of its id is known';
COMMENT ON COLUMN session_admin.session_history.user_name IS
'name of the user; null for an anonymous session';
COMMENT ON COLUMN session_admin.session_history.kind IS
'user, or anonymous';
COMMENT ON COLUMN session_admin.session_history.login_method IS
'how the user logged in, as the application named it';
COMMENT ON COLUMN session_admin.session_history.client_address IS
'address of the user, behind trusted proxies';
COMMENT ON COLUMN session_admin.session_history.peer_address IS
'address that connected to the application: the user''s, or the last proxy''s';
COMMENT ON COLUMN session_admin.session_history.user_agent IS
'header User-Agent of the login, cut to 1,024 bytes';
COMMENT ON COLUMN session_admin.session_history.device IS
'label of the device, as the application named it';
COMMENT ON COLUMN session_admin.session_history.node IS
'node of the application that opened the session';
COMMENT ON COLUMN session_admin.session_history.requests IS
'number of requests';
COMMENT ON COLUMN session_admin.session_history.created_at IS
'time at which the session was opened';
COMMENT ON COLUMN session_admin.session_history.last_access_at IS
'time of the last request';
COMMENT ON COLUMN session_admin.session_history.ended_at IS
'time at which the session ended; null while it is valid';
COMMENT ON COLUMN session_admin.session_history.end_reason IS
'reason, for example logout, idle_timeout or admin; null while it is valid';
COMMENT ON COLUMN session_admin.session_history.ended_by IS
'database role that ended it; session_admin for what ended by time';
COMMENT ON COLUMN session_admin.session_history.duration IS
'time from the login to the end, or until now';
COMMENT ON COLUMN session_admin.session_history.actor IS
'person who ended it, as the application named them in session_admin.actor';

CREATE VIEW session_admin.last_login WITH (security_barrier) AS
SELECT a.application,
       a.user_name,
       greatest(a.last_login_at, n.last_login_at) AS last_login_at,
       a.last_login_address,
       a.last_login_method,
       a.previous_login_at,
       a.login_count + coalesce(n.logins, 0) AS login_count,
       greatest(a.last_failed_login_at, n.last_failed_at) AS last_failed_login_at,
       a.current_failed_count + coalesce(n.failed_since_login, 0) AS current_failed_count,
       a.total_failed_count + coalesce(n.failed, 0) AS total_failed_count,
       greatest(a.last_seen_at, n.at, s.last_access_at) AS last_seen_at,
       coalesce(s.live_sessions, 0) AS live_sessions
FROM session_admin_internal.account a
LEFT JOIN (
    SELECT l.user_name, l.application,
           count(*) AS live_sessions,
           max(l.last_access_at) AS last_access_at
    FROM session_admin_internal.session_state l
    WHERE l.ended_at IS NULL AND l.user_name IS NOT NULL
    GROUP BY l.user_name, l.application) s
    ON s.user_name = a.user_name AND s.application = a.application
LEFT JOIN (
    SELECT t.user_name, t.application,
           max(t.at) FILTER (WHERE NOT t.login_failed) AS at,
           max(t.at) FILTER (WHERE t.login_failed) AS last_failed_at,
           sum(t.logins) AS logins,
           max(t.at) FILTER (WHERE t.logins > 0) AS last_login_at,
           count(*) FILTER (WHERE t.login_failed) AS failed,
           count(*) FILTER (WHERE t.login_failed
                            AND (t.at > b.last_login_at OR b.last_login_at IS NULL)) AS failed_since_login
    FROM session_admin_internal.account_seen t
    JOIN session_admin_internal.account b ON b.user_name = t.user_name AND b.application = t.application
    GROUP BY t.user_name, t.application) n
    ON n.user_name = a.user_name AND n.application = a.application;
COMMENT ON VIEW session_admin.last_login IS
'each user once, also those who never logged in: logins, failures, last request';
COMMENT ON COLUMN session_admin.last_login.application IS
'name of the application';
COMMENT ON COLUMN session_admin.last_login.user_name IS
'name of the user';
COMMENT ON COLUMN session_admin.last_login.last_login_at IS
'time of the last login that succeeded; null if there was none';
COMMENT ON COLUMN session_admin.last_login.last_login_address IS
'address of that login';
COMMENT ON COLUMN session_admin.last_login.last_login_method IS
'how the user logged in then';
COMMENT ON COLUMN session_admin.last_login.previous_login_at IS
'time of the login before the last';
COMMENT ON COLUMN session_admin.last_login.login_count IS
'number of logins that succeeded';
COMMENT ON COLUMN session_admin.last_login.last_failed_login_at IS
'time of the last login that failed';
COMMENT ON COLUMN session_admin.last_login.current_failed_count IS
'number of failed logins since the last one that succeeded';
COMMENT ON COLUMN session_admin.last_login.total_failed_count IS
'number of logins that failed';
COMMENT ON COLUMN session_admin.last_login.last_seen_at IS
'time of the last request, or of the last login if there was no request after it';
COMMENT ON COLUMN session_admin.last_login.live_sessions IS
'number of valid sessions';

CREATE VIEW session_admin.login_history WITH (security_barrier) AS
SELECT e.application,
       e.at,
       e.user_name,
       e.event,
       e.succeeded,
       e.login_method,
       e.client_address,
       e.user_agent,
       e.device,
       e.node,
       e.session_ref,
       e.detail
FROM session_admin_internal.login_event e;
COMMENT ON VIEW session_admin.login_history IS
'logins that succeeded and failed, and what happened to remember-me tokens';
COMMENT ON COLUMN session_admin.login_history.application IS
'name of the application';
COMMENT ON COLUMN session_admin.login_history.at IS
'time of the event';
COMMENT ON COLUMN session_admin.login_history.user_name IS
'name of the user, as it was given';
COMMENT ON COLUMN session_admin.login_history.event IS
'login, login_failed, or an event of a remember-me token such as remember_me_issued';
COMMENT ON COLUMN session_admin.login_history.succeeded IS
'whether it succeeded';
COMMENT ON COLUMN session_admin.login_history.login_method IS
'how the user logged in';
COMMENT ON COLUMN session_admin.login_history.client_address IS
'address of the user, behind trusted proxies';
COMMENT ON COLUMN session_admin.login_history.user_agent IS
'header User-Agent, cut to 1,024 bytes';
COMMENT ON COLUMN session_admin.login_history.device IS
'label of the device';
COMMENT ON COLUMN session_admin.login_history.node IS
'node of the application';
COMMENT ON COLUMN session_admin.login_history.session_ref IS
'public name of the session that it opened; null if none';
COMMENT ON COLUMN session_admin.login_history.detail IS
'more about the event';

CREATE VIEW session_admin.login_pressure WITH (security_barrier) AS
SELECT e.application,
       CASE WHEN grouping(e.user_name) = 0 THEN 'user' ELSE 'address' END AS kind,
       e.user_name,
       e.client_address,
       count(*) FILTER (WHERE NOT e.succeeded) AS failed_logins,
       count(*) FILTER (WHERE e.succeeded) AS logins,
       count(DISTINCT e.user_name) FILTER (WHERE NOT e.succeeded) AS users,
       count(DISTINCT e.client_address) FILTER (WHERE NOT e.succeeded) AS addresses,
       min(e.at) FILTER (WHERE NOT e.succeeded) AS first_failed_at,
       max(e.at) FILTER (WHERE NOT e.succeeded) AS last_failed_at
FROM session_admin_internal.login_event e
JOIN session_admin.application a ON a.name = e.application
JOIN session_admin_internal.effective_policy p
    ON p.application = e.application AND p.name = 'login_pressure_window'
WHERE e.event IN ('login', 'login_failed')
  -- no window is longer: older partitions are not even looked at
  AND e.at > statement_timestamp() - interval '7 days'
  AND e.at > statement_timestamp() - p.value::interval
GROUP BY GROUPING SETS ((e.application, e.user_name), (e.application, e.client_address))
HAVING count(*) FILTER (WHERE NOT e.succeeded) > 0
   AND (grouping(e.user_name) = 0 OR e.client_address IS NOT NULL);
COMMENT ON VIEW session_admin.login_pressure IS
'failed logins within policy login_pressure_window, once by user and once by address: who is being guessed, and from where';
COMMENT ON COLUMN session_admin.login_pressure.application IS
'name of the application';
COMMENT ON COLUMN session_admin.login_pressure.kind IS
'user or address: what the row counts by';
COMMENT ON COLUMN session_admin.login_pressure.user_name IS
'name of the user; null in rows by address';
COMMENT ON COLUMN session_admin.login_pressure.client_address IS
'address; null in rows by user';
COMMENT ON COLUMN session_admin.login_pressure.failed_logins IS
'number of logins that failed';
COMMENT ON COLUMN session_admin.login_pressure.logins IS
'number of logins that succeeded in the same time: of a guessed user perhaps one too many, of an address perhaps a whole office';
COMMENT ON COLUMN session_admin.login_pressure.users IS
'number of different users as whom somebody failed to log in';
COMMENT ON COLUMN session_admin.login_pressure.addresses IS
'number of different addresses from which somebody failed to log in';
COMMENT ON COLUMN session_admin.login_pressure.first_failed_at IS
'time of the first failed login in the window';
COMMENT ON COLUMN session_admin.login_pressure.last_failed_at IS
'time of the last failed login';
COMMENT ON COLUMN session_admin.remembered_devices.series IS
'names the device in revoke_remember_me; not a secret: it opens nothing without its validator';

CREATE VIEW session_admin.invalidations WITH (security_barrier) AS
SELECT i.id,
       i.at,
       i.scope,
       i.application,
       i.user_name,
       session_admin.session_ref(i.session_hash) AS session_ref,
       i.reason,
       i.actor,
       i.invalidated_by,
       i.sessions_ended,
       i.tokens_revoked
FROM session_admin_internal.invalidation i;
COMMENT ON VIEW session_admin.invalidations IS
'the feed: what nodes were told to drop, for as long as policy feed_retention says';
COMMENT ON COLUMN session_admin.invalidations.id IS
'id of the invalidation, for wait_for_nodes';
COMMENT ON COLUMN session_admin.invalidations.at IS
'time at which it was made';
COMMENT ON COLUMN session_admin.invalidations.scope IS
'session, token, user, application or all';
COMMENT ON COLUMN session_admin.invalidations.application IS
'name of the application; null in scope all';
COMMENT ON COLUMN session_admin.invalidations.user_name IS
'name of the user; null if it is about no user or all';
COMMENT ON COLUMN session_admin.invalidations.session_ref IS
'session that ended; in scope user, the one that goes on, if any';
COMMENT ON COLUMN session_admin.invalidations.reason IS
'reason, for example logout or admin';
COMMENT ON COLUMN session_admin.invalidations.actor IS
'person behind it, as the application named them in session_admin.actor';
COMMENT ON COLUMN session_admin.invalidations.invalidated_by IS
'database role that made it';
COMMENT ON COLUMN session_admin.invalidations.sessions_ended IS
'number of sessions that ended; null if everybody was logged out at once and not counted';
COMMENT ON COLUMN session_admin.invalidations.tokens_revoked IS
'number of remember-me tokens revoked; null if they were not counted';

-- What a node has not seen is looked up by the index, from its position on, and counted up to
-- a limit.  Of more, their ids tell how many they are at most: no look at this view reads the
-- feed, however long it is and however far the nodes are behind.
CREATE VIEW session_admin.nodes WITH (security_barrier) AS
SELECT n.node,
       n.application,
       CASE WHEN n.lease_expires_at IS NULL THEN 'joined'
            WHEN n.lease_is_over THEN 'lease expired'
            WHEN n.applied IS NULL OR n.pending > 0 THEN 'behind'
            ELSE 'current' END AS state,
       n.joined_at,
       n.last_sync_at,
       n.lease_expires_at,
       n.pending
FROM (
    SELECT s.*,
           CASE WHEN later.n <= 100 THEN later.n
                -- of later transactions with lower ids none is counted
                ELSE greatest(later.n, later.last_id - later.first_id + 1) END
           + coalesce(running.n, 0) AS pending
    FROM session_admin_internal.node_state s
    CROSS JOIN LATERAL (SELECT coalesce(s.applied, s.handed) AS place) p
    CROSS JOIN LATERAL (
        SELECT count(*) AS n, min(i.id) AS first_id,
               (SELECT max(m.id) FROM session_admin_internal.invalidation m) AS last_id
        FROM (SELECT f.id FROM session_admin_internal.invalidation f
              WHERE f.xid >= pg_snapshot_xmax(p.place)
              ORDER BY f.xid, f.id LIMIT 101) i) later
    LEFT JOIN LATERAL (
        SELECT sum(least(r.n, 100))::bigint AS n
        FROM pg_snapshot_xip(p.place) AS x (xid)
        CROSS JOIN LATERAL (
            SELECT count(*) AS n
            FROM (SELECT FROM session_admin_internal.invalidation f
                  WHERE f.xid = x.xid ORDER BY f.xid, f.id LIMIT 101) i) r) running ON true
    OFFSET 0) n;
COMMENT ON VIEW session_admin.nodes IS
'the nodes that cache sessions, and how far each has come';
COMMENT ON COLUMN session_admin.nodes.node IS
'name of the node';
COMMENT ON COLUMN session_admin.nodes.application IS
'name of the application whose sessions it caches';
COMMENT ON COLUMN session_admin.nodes.state IS
'joined: has not synced yet; current: has applied everything; behind: has not applied what is pending; lease expired: does not answer from its cache';
COMMENT ON COLUMN session_admin.nodes.joined_at IS
'time at which it joined';
COMMENT ON COLUMN session_admin.nodes.last_sync_at IS
'time of its last call of sync_node; null if there was none';
COMMENT ON COLUMN session_admin.nodes.lease_expires_at IS
'time until which it may answer from its cache';
COMMENT ON COLUMN session_admin.nodes.pending IS
'number of invalidations that it has not confirmed; more than 100 are estimated from their ids';
