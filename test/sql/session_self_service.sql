--
-- Self-service: what an application shows its users of themselves, and lets them do
--
\set SHOW_CONTEXT never
SET session_admin.application = 'self_service_test';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';

SELECT session_admin.open_session('a1', 'alice', '192.0.2.1', user_agent => 'Firefox', device => 'laptop');
SELECT session_admin.open_session('a2', 'alice', '192.0.2.2', user_agent => 'Safari', device => 'phone',
    login_method => 'remember_me');
SELECT session_admin.open_session('b1', 'bob', '192.0.2.3');
SELECT session_admin.open_session('visitor');

-- Where am I logged in, and which of them is this?
SET session_admin.current_session = 'a1';
SELECT session_ref, current, login_method, client_address, user_agent, device,
       last_access_at >= created_at AS used, expires_at - last_access_at AS "expires after"
FROM session_admin.my_sessions('alice');
-- the setting may be the SHA-256 of the id
SELECT set_config('session_admin.current_session', encode(sha256('a2'), 'hex'), false);
SELECT session_ref, current FROM session_admin.my_sessions('alice');
RESET session_admin.current_session;
SELECT session_ref, current FROM session_admin.my_sessions('alice');

-- Nobody else's, and not those without a user
SELECT count(*) FROM session_admin.my_sessions('carol');
SELECT count(*) FROM session_admin.my_sessions(NULL);
SELECT count(*) FROM session_admin.my_sessions('alice', 'elsewhere');

-- End one of them
SELECT session_admin.end_my_session('alice', session_admin.session_ref('a2'));
SELECT session_admin.touch_session('a2');
SELECT session_admin.end_my_session('alice', session_admin.session_ref('a2'));
SELECT scope, user_name, session_ref, reason FROM session_admin.invalidations
WHERE application = 'self_service_test';

-- Not those of others, however named
SELECT session_admin.end_my_session('alice', session_admin.session_ref('b1'));
SELECT session_admin.end_my_session('alice', '%');
SELECT session_admin.end_my_session('alice', '');
SELECT session_admin.end_my_session(NULL, session_admin.session_ref('visitor'));
SELECT session_admin.end_my_session('alice', NULL);
SELECT session_admin.end_my_session('bob', session_admin.session_ref('b1'), 'elsewhere');
SELECT session_admin.touch_session('b1') AS bob, session_admin.touch_session('visitor') AS visitor;

-- My devices
SELECT length(session_admin.issue_remember_me('alice', 'laptop', 'Firefox', '192.0.2.1')) > 0 AS issued,
       length(session_admin.issue_remember_me('bob', 'tablet')) > 0 AS issued;
SELECT device, client_address, user_agent, last_used_at, expires_at - created_at AS lifetime
FROM session_admin.my_devices('alice');

-- All but this one; remembered devices too, unless they are to be kept.
SELECT session_admin.open_session('a3', 'alice') AS a3, session_admin.open_session('a4', 'alice') AS a4;
SELECT sessions_ended, tokens_revoked FROM session_admin.end_my_other_sessions('alice', 'a3', true);
SELECT session_ref = session_admin.session_ref('a3') AS "is a3" FROM session_admin.my_sessions('alice');
SELECT count(*) FROM session_admin.my_devices('alice');
SELECT sessions_ended, tokens_revoked FROM session_admin.end_my_other_sessions('alice', 'a3');
SELECT session_ref = session_admin.session_ref('a3') AS "is a3" FROM session_admin.my_sessions('alice');
SELECT count(*) FROM session_admin.my_devices('alice');
SELECT count(*) FROM session_admin.my_sessions('bob');
SELECT session_admin.end_my_other_sessions('nobody', 'a3');

DELETE FROM session_admin.session WHERE application = 'self_service_test';
DELETE FROM session_admin.remember_me_token WHERE application = 'self_service_test';
