--
-- Limits: how many sessions a user may have, an application, and nobody
--
\set SHOW_CONTEXT never
SET session_admin.application = 'limit_test';

-- One more than a user may have is refused, and leaves nothing.
SELECT session_admin.set_policy('max_sessions_per_user', '2');
SELECT session_admin.open_session('limit 1', 'alice') AS "1", session_admin.open_session('limit 2', 'alice') AS "2";
SELECT session_admin.open_session('limit 3', 'alice');
\set VERBOSITY sqlstate
SELECT session_admin.open_session('limit 3', 'alice');
\set VERBOSITY default
SELECT session_admin.touch_session('limit 1') AS "1", session_admin.touch_session('limit 2') AS "2",
       session_admin.touch_session('limit 3') AS "3";
SELECT user_name, login_count, live_sessions FROM session_admin.last_login WHERE application = 'limit_test';

-- It is each user's own; a session that is replaced or renewed is not one more.
SELECT session_admin.open_session('limit 4', 'bruno');
SELECT session_admin.open_session('limit 2', 'alice');
SELECT session_admin.renew_session('limit 2', 'limit 2 renewed');
SELECT session_admin.open_session('limit 3', 'alice');

-- Who has ended by time, or by an administrator, is not here.
UPDATE session_admin.session SET last_access_at = last_access_at - interval '2 hours'
WHERE session_hash = sha256('limit 1');
SELECT session_admin.open_session('limit 3', 'alice');
SELECT session_admin.open_session('limit 1', 'alice');

-- The oldest by last access makes room, and its node hears of it.
SELECT session_admin.set_policy('on_session_limit', 'evict_oldest');
UPDATE session_admin.session SET last_access_at = last_access_at - interval '1 minute'
WHERE session_hash = sha256('limit 3');
SELECT session_admin.join_node('limit node') AS position \gset
SELECT session_admin.open_session('limit 5', 'alice');
SELECT session_ref, end_reason FROM session_admin.session_history
WHERE application = 'limit_test' AND user_name = 'alice' AND end_reason = 'session_limit';
SELECT scope, user_name, reason, session_hash = sha256('limit 3') AS "it"
FROM session_admin.sync_node('limit node', :'position');
SELECT session_admin.leave_node('limit node');

-- After the limit was lowered, as many as needed; a user's own limit comes first.
SELECT session_admin.set_policy('max_sessions_per_user', '5');
SELECT count(session_admin.open_session('limit many ' || i, 'alice')) FROM generate_series(1, 6) AS i;
SELECT live_sessions FROM session_admin.last_login
WHERE application = 'limit_test' AND user_name = 'alice';
SELECT session_admin.set_policy('max_sessions_per_user', '1');
SELECT session_admin.set_policy('max_sessions_per_user', '3', 'alice');
SELECT session_admin.open_session('limit one', 'alice');
SELECT live_sessions FROM session_admin.last_login
WHERE application = 'limit_test' AND user_name = 'alice';
SELECT session_admin.set_policy('on_session_limit', 'reject', 'alice');
SELECT session_admin.open_session('limit more', 'alice');
SELECT session_admin.set_policy('max_sessions_per_user', '-1', 'alice');
SELECT session_admin.open_session('limit more', 'alice') IS NOT NULL AS opened;
SELECT session_admin.set_policy('max_sessions_per_user', '0');
SELECT session_admin.open_session('limit 6', 'carol');
SELECT session_admin.set_policy('max_sessions_per_user', NULL);

-- Seats: all users together.  What a rollback takes back was not taken.
SELECT count(*) FROM session_admin.current_sessions WHERE application = 'limit_test';
SELECT session_admin.set_policy('max_sessions', '7');
SELECT session_admin.open_session('limit 7', 'carol') IS NOT NULL AS opened;
BEGIN;
SELECT session_admin.open_session('limit 8', 'dora') IS NOT NULL AS opened;
ROLLBACK;
SELECT session_admin.open_session('limit 8', 'dora') IS NOT NULL AS opened;
SELECT session_admin.open_session('limit 9', 'emma');
SELECT session_admin.open_session('limit 8', 'emma') IS NOT NULL AS "replaced, not one more";
SELECT session_admin.close_session('limit 8');
SELECT session_admin.open_session('limit 9', 'emma') IS NOT NULL AS opened;
SELECT session_admin.open_session('limit 10', 'fred');
BEGIN;
SELECT session_admin.close_session('limit 9');
SELECT session_admin.open_session('limit 10', 'fred') IS NOT NULL AS "in its place";
SAVEPOINT one;
SELECT session_admin.open_session('limit 11', 'gina');
ROLLBACK TO one;
SELECT session_admin.touch_session('limit 10');
COMMIT;
SELECT count(*) FROM session_admin.current_sessions WHERE application = 'limit_test';

-- Those without a user have a limit of their own, and take nobody's seat.
SELECT session_admin.set_policy('max_anonymous_sessions', '2');
SELECT session_admin.open_session('limit visitor 1') IS NOT NULL AS opened,
       session_admin.open_session('limit visitor 2') IS NOT NULL AS opened;
SELECT session_admin.open_session('limit visitor 3');
UPDATE session_admin.session SET last_access_at = last_access_at - interval '20 minutes'
WHERE session_hash = sha256('limit visitor 1');
SELECT session_admin.open_session('limit visitor 3') IS NOT NULL AS opened;
SELECT session_admin.close_session('limit 10');
SELECT session_admin.open_session('limit visitor 3', 'gina') IS NOT NULL AS "logged in",
       session_admin.open_session('limit visitor 4') IS NOT NULL AS "room for another";
SELECT coalesce(user_name, 'visitor') AS who, count(*) FROM session_admin.current_sessions
WHERE application = 'limit_test' GROUP BY 1 ORDER BY 1;

-- They also have an end of their own.
SELECT session_admin.set_policy('anonymous_absolute_timeout', '1 hour');
UPDATE session_admin.session SET created_at = created_at - interval '2 hours'
WHERE session_hash IN (sha256('limit visitor 4'), sha256('limit one'));
SELECT session_admin.touch_session('limit visitor 4') AS visitor, session_admin.touch_session('limit one') AS alice;
SELECT DISTINCT end_reason FROM session_admin.session_history
WHERE application = 'limit_test' AND user_name IS NULL AND session_ref = session_admin.session_ref('limit visitor 4');

-- After everybody has gone, all seats are free.
SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT count(session_admin.open_session('limit again ' || i, 'user ' || i)) FROM generate_series(1, 7) AS i;
SELECT session_admin.open_session('limit again 8', 'user 8');
SELECT session_admin.open_session('limit again 9', 'user 9', application => 'limit_test_2') IS NOT NULL AS "elsewhere";

DELETE FROM session_admin.session WHERE application LIKE 'limit\_test%';
