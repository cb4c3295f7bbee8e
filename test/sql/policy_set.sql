--
-- Policy: what holds for an application, and for users who need something else
--
\set SHOW_CONTEXT never
SET session_admin.application = 'policy_test';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';

-- What there is, and the standard that the default follows
\pset format unaligned
SELECT name, value, "default", meaning, reference FROM session_admin.policies
WHERE application = 'policy_test' ORDER BY name COLLATE "C";
\pset format aligned

-- The answer is what holds now.
SELECT session_admin.set_policy('idle_timeout', '90 min');
SELECT session_admin.set_policy('idle_timeout', '1 day', 'backup');
SELECT session_admin.set_policy('absolute_timeout', '1 year', user_name => 'backup');
SELECT session_admin.set_policy('idle_timeout', '2 hours', application => 'policy_test_2');
SELECT application, user_name, value FROM session_admin.policies
WHERE name = 'idle_timeout' AND application LIKE 'policy\_test%' ORDER BY 1, 2 NULLS FIRST;

-- A name that nobody has used before may be a slip.
SELECT session_admin.set_policy('idle_timeout', '2 hours', application => 'polizy_test');

-- It holds for sessions that are open already; users have their own.
SELECT session_admin.open_session('policy 1', 'alice') AS alice,
       session_admin.open_session('policy 2', 'backup') AS backup;
SELECT user_name, expires_at - last_access_at AS "idle timeout"
FROM session_admin.current_sessions WHERE application = 'policy_test' ORDER BY 1;
UPDATE session_admin.session SET last_access_at = last_access_at - interval '80 minutes',
    created_at = created_at - interval '80 minutes'
WHERE application = 'policy_test';
SELECT session_admin.touch_session('policy 1') AS alice, session_admin.touch_session('policy 2') AS backup;
SELECT session_admin.set_policy('absolute_timeout', '1 hour');
SELECT session_admin.touch_session('policy 1') AS alice, session_admin.touch_session('policy 2') AS backup;

-- null is the default again; for a user, what holds for the others.
SELECT session_admin.set_policy('idle_timeout', NULL, 'backup');
SELECT session_admin.set_policy('idle_timeout', NULL);
SELECT session_admin.set_policy('idle_timeout', NULL);
SELECT name, user_name, value FROM session_admin.policies
WHERE application = 'policy_test' AND value <> "default" ORDER BY 1, 2;

-- A change that is rolled back never was.
BEGIN;
SELECT session_admin.set_policy('absolute_timeout', '10 days');
SELECT session_admin.touch_session('policy 1') AS alice;
ROLLBACK;
SELECT session_admin.touch_session('policy 1') AS alice;

-- Networks, as people write them and as PostgreSQL does
SELECT session_admin.set_policy('trusted_proxies', '10.0.0.0/8, 192.0.2.1 ,2001:db8::/32');
SELECT session_admin.set_policy('trusted_proxies', '{10.0.0.0/8,::1}');
SELECT session_admin.set_policy('trusted_proxies', '');
SELECT session_admin.set_policy('trusted_proxies', NULL);

-- A choice, and a number
SELECT session_admin.set_policy('on_session_limit', 'evict_oldest');
SELECT session_admin.set_policy('on_session_limit', 'reject', 'backup');
SELECT session_admin.set_policy('max_sessions', '100');
SELECT name, user_name, value FROM session_admin.policies
WHERE application = 'policy_test' AND name LIKE '%session%' AND value <> "default"
   OR user_name = 'backup' ORDER BY 1, 2;
SELECT session_admin.set_policy('on_session_limit', NULL, 'backup');
SELECT session_admin.set_policy('on_session_limit', NULL);
SELECT session_admin.set_policy('max_sessions', NULL);

-- Whatever IntervalStyle is set, the value is stored in one form.
SET intervalstyle = iso_8601;
SELECT session_admin.set_policy('node_lease', '90 s');
SELECT session_admin.set_policy('node_lease', 'PT20S');
RESET intervalstyle;

-- What is refused, and what the hint says
SELECT session_admin.set_policy('idle_time', '1 hour');
SELECT session_admin.set_policy(NULL, '1 hour');
SELECT session_admin.set_policy('idle_timeout', 'soon');
SELECT session_admin.set_policy('idle_timeout', '');
SELECT session_admin.set_policy('idle_timeout', '0');
SELECT session_admin.set_policy('idle_timeout', '-1 hour');
SELECT session_admin.set_policy('idle_timeout', '1 month -31 days');
SELECT session_admin.set_policy('idle_timeout', '178000000 years');
SELECT session_admin.set_policy('idle_timeout', '999999999999 years');
SELECT session_admin.set_policy('feed_retention', '1 second');
SELECT session_admin.set_policy('trusted_proxies', 'everybody');
SELECT session_admin.set_policy('trusted_proxies', '10.0.0.1/8');
SELECT session_admin.set_policy('trusted_proxies', '{NULL}');
SELECT session_admin.set_policy('trusted_proxies', '{{10.0.0.0/8}}');
SELECT session_admin.set_policy('trusted_proxies', '10.0.0.0/8}');
SELECT session_admin.set_policy('trusted_proxies', '10.0.0.0/8', 'alice');
SELECT session_admin.set_policy('on_session_limit', 'evict');
SELECT session_admin.set_policy('on_theft', '');
SELECT session_admin.set_policy('on_restore', 'keep', 'alice');
SELECT session_admin.set_policy('max_sessions', '-2');
SELECT session_admin.set_policy('max_sessions', '1e3');
SELECT session_admin.set_policy('max_sessions_per_user', '1000001', 'alice');
SELECT session_admin.set_policy('idle_timeout', '1 hour', '');
SELECT session_admin.set_policy('idle_timeout', '1 hour', NULL, '');
SELECT session_admin.set_policy(E'\x1b[2J'';DROP TABLE x', '1 hour');
\set VERBOSITY sqlstate
SELECT session_admin.set_policy('idle_timeout', 'soon');
SELECT session_admin.set_policy('trusted_proxies', '10.0.0.1/8');
SELECT session_admin.set_policy('trusted_proxies', '{');
SELECT session_admin.set_policy('idle_timeout', repeat('1', 1000000));
SELECT session_admin.set_policy(repeat('1', 1000000), '1 hour');
\set VERBOSITY default

DELETE FROM session_admin.session WHERE application = 'policy_test';
DELETE FROM session_admin.application WHERE name = 'polizy_test';
DELETE FROM session_admin_internal.policy WHERE application = 'polizy_test';
