--
-- Applications: who makes them, and how many there may be
--
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE FUNCTION pg_temp.applications() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(name, ' ' ORDER BY name) FROM session_admin.application WHERE name LIKE 'made by%'
$$;

-- A failed login makes none, and nobody's account; the event is kept.
SELECT count(session_admin.login_failed('alice', '192.0.2.1', application => 'made by failure ' || n))
FROM generate_series(1, 20) AS n;
SELECT pg_temp.applications();
SELECT count(*), count(DISTINCT application), min(user_name), min(client_address)
FROM session_admin_internal.login_event WHERE application LIKE 'made by failure%';
SELECT count(*) FROM session_admin_internal.account WHERE application LIKE 'made by failure%';

-- Nor does a node, which may start before the first login, or whoever asks.
SELECT session_admin.join_node('early', 'made by node') AS p \gset
SELECT applied AS p, lease FROM session_admin.sync_node('early', :'p') \gset
\echo :lease
SET session_admin.application = 'made by sync';
SELECT scope, reason, lease FROM session_admin.sync_node('earlier', NULL);
RESET session_admin.application;
SELECT session_admin.touch_session('s', 'made by touch'), session_admin.close_session('s', 'made by close');
SELECT outcome FROM session_admin.redeem_remember_me('x', application => 'made by token');
SELECT pg_temp.applications();

-- A session does, a token and a policy; the node has the lease that holds from then on.
SELECT session_admin.open_session('s', 'alice', application => 'made by session') IS NOT NULL AS opened;
SELECT session_admin.issue_remember_me('alice', application => 'made by token') IS NOT NULL AS issued;
SELECT session_admin.set_policy('node_lease', '3 seconds', application => 'made by node');
SELECT lease FROM session_admin.sync_node('early', :'p');
SELECT pg_temp.applications();
SELECT session_admin.login_failed('alice', application => 'made by session');
SELECT total_failed_count FROM session_admin_internal.account WHERE application = 'made by session';

-- But no more than there may be.
SELECT count(*) + 1 AS maximum FROM session_admin.application \gset
SET session_admin.max_applications = :maximum;
SELECT session_admin.open_session('s', 'alice', application => 'made by the last one') IS NOT NULL AS opened;
\set VERBOSITY sqlstate
SELECT session_admin.open_session('s', 'alice', application => 'made by too many');
SELECT session_admin.issue_remember_me('alice', application => 'made by too many');
SELECT session_admin.set_policy('node_lease', '3 seconds', application => 'made by too many');
SELECT session_admin.add_probe_rule('bot', application => 'made by too many');
\set VERBOSITY terse
-- what there is goes on
SELECT session_admin.open_session('s2', 'alice', application => 'made by session') IS NOT NULL AS opened;
SELECT session_admin.login_failed('alice', application => 'made by too many');
SELECT count(*) FROM session_admin.sync_node('early', NULL);
SELECT pg_temp.applications();
-- an application calls as a role that may not raise it
CREATE ROLE regress_application;
SET ROLE regress_application;
SET session_admin.max_applications = 1000000;
RESET ROLE;
DROP ROLE regress_application;
RESET session_admin.max_applications;

SELECT session_admin.leave_node('early'), session_admin.leave_node('earlier');
DELETE FROM session_admin.session WHERE application LIKE 'made by%';
DELETE FROM session_admin.remember_me_token WHERE application LIKE 'made by%';
DELETE FROM session_admin_internal.account WHERE application LIKE 'made by%';
DELETE FROM session_admin_internal.login_event WHERE application LIKE 'made by%';
DELETE FROM session_admin_internal.policy WHERE application LIKE 'made by%';
DELETE FROM session_admin.application WHERE name LIKE 'made by%';
