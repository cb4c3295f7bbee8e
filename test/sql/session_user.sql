--
-- Users: renamed, anonymized, erased
--
\set SHOW_CONTEXT never
SET session_admin.application = 'user_test';
SET session_admin.touch_interval = 0;

-- Everything that is known of users, but for the times
CREATE TEMP VIEW known AS
SELECT 'account' AS what, user_name, NULL AS actor,
       concat_ws(', ', last_login_address, last_login_method, login_count || ' logins',
                 total_failed_count || ' failed') AS detail
FROM session_admin_internal.account WHERE application = 'user_test'
UNION ALL
SELECT CASE WHEN ended_at IS NULL THEN 'live session' ELSE 'ended session' END, user_name, actor,
       concat_ws(', ', end_reason, client_address, user_agent, device, log_id)
FROM session_admin.session_history WHERE application = 'user_test'
UNION ALL
SELECT 'event', user_name, NULL, concat_ws(', ', event, client_address, user_agent, device)
FROM session_admin_internal.login_event WHERE application = 'user_test'
UNION ALL
SELECT 'device', user_name, NULL, concat_ws(', ', device, client_address)
FROM session_admin.remember_me_token WHERE application = 'user_test'
UNION ALL
SELECT 'feed: ' || scope, user_name, actor, reason FROM session_admin_internal.invalidation
WHERE application = 'user_test'
UNION ALL
SELECT 'policy', user_name, NULL, name || ': ' || value FROM session_admin_internal.policy
WHERE application = 'user_test'
UNION ALL
SELECT 'failure', unnest(user_names), NULL, NULL FROM session_admin_internal.capture_failure
WHERE application = 'user_test'
ORDER BY 2, 1, 4, 3;

-- One who has everything
CREATE FUNCTION pg_temp.make(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM session_admin.open_session(name || ' 1', name, '192.0.2.1', user_agent => 'Firefox', device => 'laptop');
    PERFORM session_admin.login_failed(name, '192.0.2.2');
    PERFORM session_admin.open_session(name || ' 2', name, '192.0.2.3', user_agent => 'Safari', device => 'phone');
    PERFORM set_config('session_admin.actor', name, true);
    PERFORM session_admin.close_session(name || ' 1');
    PERFORM set_config('session_admin.actor', '', true);
    PERFORM session_admin.issue_remember_me(name, 'phone', client_address => '192.0.2.3');
    PERFORM session_admin.set_policy('idle_timeout', '2 hours', name);
    INSERT INTO session_admin_internal.capture_failure (application, relation, event, message, user_names)
    VALUES ('user_test', 'cwd_user', 'UPDATE', 'it failed', ARRAY[name, 'somebody else']);
END
$$;

--
-- rename_user
--

SELECT pg_temp.make('alice');
SELECT * FROM known;

-- Sessions and remembered devices end under the old name; everything else goes on under
-- the new one. The feed keeps the old name, as nodes know it by no other.
SELECT * FROM session_admin.rename_user('alice', 'alicia') \gset
SELECT id = :invalidation_id AS "this invalidation", :sessions_ended AS sessions_ended,
       :tokens_revoked AS tokens_revoked
FROM session_admin.invalidations ORDER BY id DESC LIMIT 1;
SELECT * FROM known;
SELECT session_admin.touch_session('alice 2');

-- Into an account that is there already: its sessions go on, counters add up, the latest
-- login is the last, and what it has of its own stays.
SELECT session_admin.open_session('mallory 1', 'mallory', '198.51.100.1', login_method => 'sso');
SELECT session_admin.set_policy('idle_timeout', '3 hours', 'mallory');
SELECT last_login_at AS alicia_login FROM session_admin_internal.account
WHERE application = 'user_test' AND user_name = 'alicia' \gset
SELECT sessions_ended, tokens_revoked FROM session_admin.rename_user('alicia', 'mallory');
SELECT user_name, login_count, last_login_method, last_login_address, total_failed_count,
       current_failed_count, previous_login_at = :'alicia_login' AS "previous was alicia's",
       live_sessions
FROM session_admin.last_login WHERE application = 'user_test';
SELECT user_name, value FROM session_admin.policies
WHERE application = 'user_test' AND user_name IS NOT NULL;
SELECT session_admin.touch_session('mallory 1');

-- The other way round
SELECT session_admin.open_session('zoe 1', 'zoe', '203.0.113.1');
SELECT sessions_ended FROM session_admin.rename_user('mallory', 'zoe');
SELECT user_name, login_count, last_login_method, last_login_address, live_sessions
FROM session_admin.last_login WHERE application = 'user_test';

-- A login counts from then on for the new name; the old one may come back as somebody else.
SELECT session_admin.open_session('alice 3', 'alice');
SELECT user_name, login_count FROM session_admin.last_login WHERE application = 'user_test' ORDER BY 1;

-- What is refused
SELECT session_admin.rename_user('nobody', 'somebody');
SELECT count(*) FROM session_admin_internal.account WHERE user_name IN ('nobody', 'somebody');
SELECT session_admin.rename_user('alice', 'alice');
SELECT session_admin.rename_user('alice', NULL);
SELECT session_admin.rename_user('alice', '');
SELECT session_admin.rename_user('alice', repeat('x', 1025));
SELECT session_admin.rename_user('alice', 'bob', 'elsewhere');

-- Rolled back, nothing happened: neither here nor on the nodes.
CREATE TEMP TABLE before AS SELECT * FROM known;
BEGIN;
SELECT sessions_ended FROM session_admin.rename_user('zoe', 'zoey');
ROLLBACK;
SELECT count(*) FROM (SELECT * FROM before EXCEPT SELECT * FROM known) d;


--
-- anonymize_user: the same, and nothing tells who it was
--

DELETE FROM session_admin.session WHERE application = 'user_test';
DELETE FROM session_admin_internal.account WHERE application = 'user_test';
DELETE FROM session_admin_internal.ended_session WHERE application = 'user_test';
DELETE FROM session_admin_internal.login_event WHERE application = 'user_test';
DELETE FROM session_admin_internal.invalidation WHERE application = 'user_test';
DELETE FROM session_admin_internal.policy WHERE application = 'user_test';
SELECT pg_temp.make('bob');
-- what bob did to others is told under the alias too
SELECT session_admin.open_session('carol 1', 'carol', '192.0.2.9');
SET session_admin.actor = 'bob';
SELECT sessions_ended FROM session_admin.invalidate_user('carol');
RESET session_admin.actor;
SELECT sessions_ended, tokens_revoked FROM session_admin.anonymize_user('bob', 'user4711');
SELECT * FROM known;
SELECT session_admin.anonymize_user('bob', 'user4711');


--
-- erase_user: nothing is left
--

SELECT pg_temp.make('dave');
SELECT session_admin.open_session('carol 2', 'carol', '192.0.2.9');
SET session_admin.actor = 'dave';
SELECT session_admin.close_session('carol 2');
RESET session_admin.actor;
SELECT sessions_ended, tokens_revoked FROM session_admin.erase_user('dave');
SELECT * FROM known WHERE user_name = 'dave' OR actor = 'dave' OR user_name = 'carol';
SELECT session_admin.touch_session('dave 2');
SELECT session_admin.erase_user('dave');
SELECT session_admin.erase_user(NULL);

-- Who only failed to log in is known too.
SELECT session_admin.login_failed('only tried');
SELECT sessions_ended, tokens_revoked FROM session_admin.erase_user('only tried');
SELECT count(*) FROM session_admin_internal.login_event WHERE user_name = 'only tried';

-- The name goes from the feed when its time is over.
UPDATE session_admin_internal.invalidation SET at = at - interval '2 days' WHERE application = 'user_test';
SELECT count(*) > 0 AS maintained FROM session_admin.maintain();
SELECT count(*) FROM session_admin_internal.invalidation
WHERE application = 'user_test' AND user_name IN ('bob', 'dave', 'only tried');

-- the next tests begin with nothing to do
SELECT session_admin.acknowledge_failures('user_test') > 0 AS acknowledged;
