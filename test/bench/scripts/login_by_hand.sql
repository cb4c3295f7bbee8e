\set id random(1, 1000000000000000000)
\set user random(1, :sessions / 2)
BEGIN;
INSERT INTO by_hand.account AS a (application, user_name, login_count, last_login_at, last_login_address, last_login_method, last_seen_at) VALUES ('default', 'user' || :user::text, 1, now(), '192.0.2.1', 'password', now()) ON CONFLICT (application, user_name) DO UPDATE SET login_count = a.login_count + 1, previous_login_at = a.last_login_at, last_login_at = excluded.last_login_at, last_login_address = excluded.last_login_address, last_login_method = excluded.last_login_method, last_seen_at = excluded.last_seen_at, current_failed_count = 0;
INSERT INTO by_hand.session (session_id, application, generation, created_at, last_access_at, user_name, login_method, client_address, peer_address, log_id, user_agent) VALUES (:id::text, 'default', 1, now(), now(), 'user' || :user::text, 'password', '192.0.2.1', '192.0.2.1', 'p3yo5w', 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0');
INSERT INTO by_hand.login_event (at, application, user_name, event, succeeded, login_method, client_address, user_agent, session_ref) VALUES (now(), 'default', 'user' || :user::text, 'login', true, 'password', '192.0.2.1', 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0', left(:id::text, 12));
COMMIT;
BEGIN;
WITH gone AS (DELETE FROM by_hand.session WHERE session_id = :id::text RETURNING *) INSERT INTO by_hand.ended_session (session_id, application, created_at, last_access_at, requests, user_name, login_method, client_address, peer_address, log_id, user_agent, device, node, ended_at, end_reason, ended_by) SELECT session_id, application, created_at, last_access_at, requests, user_name, login_method, client_address, peer_address, log_id, user_agent, device, node, now(), 'logout', session_user FROM gone;
INSERT INTO by_hand.invalidation (scope, application, user_name, reason, sessions_ended) VALUES ('session', 'default', 'user' || :user::text, 'logout', 1);
SELECT pg_notify('by_hand', :id::text);
COMMIT;
