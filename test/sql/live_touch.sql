--
-- Live sessions: touches that cost no table access
--
-- Preloaded they are counted in shared memory, otherwise in this backend.  What
-- people see is the same; this test has one expected output for both.
--
\set SHOW_CONTEXT never
SET session_admin.application = 'live_test';

CREATE TEMP VIEW state AS
SELECT user_name, requests, last_access_at > created_at AS touched
FROM session_admin_internal.session_state
WHERE application = 'live_test'
ORDER BY user_name;

CREATE TEMP VIEW ended AS
SELECT user_name, requests, end_reason
FROM session_admin_internal.ended_session
WHERE application = 'live_test'
ORDER BY ended_at, user_name;

CREATE FUNCTION pg_temp.maintain() RETURNS void
LANGUAGE sql SET client_min_messages = warning
AS 'SELECT FROM session_admin.maintain()';

SELECT session_admin.open_session('id of alice', 'alice') = session_admin.session_ref('id of alice') AS opened;
SELECT session_admin.open_session('id of bob', 'bob') = session_admin.session_ref('id of bob') AS opened;


--
-- Each touch is seen at once
--

SELECT session_admin.touch_session('id of alice');
SELECT count(*) FILTER (WHERE session_admin.touch_session('id of alice')) AS valid
FROM generate_series(1, 9);
SELECT session_admin.touch_sessions(ARRAY['id of alice', 'id of bob', 'no id'], ARRAY[5, 3, 1]);
SELECT * FROM state;
SELECT user_name, requests FROM session_admin.current_sessions
WHERE application = 'live_test' ORDER BY user_name;

-- what never was valid was not counted
SELECT session_admin.touch_session('no id'), session_admin.touch_session('id of alice', 'another application');


--
-- maintain() writes them, once
--

SELECT pg_temp.maintain();
SELECT * FROM state;
SELECT pg_temp.maintain();
SELECT pg_temp.maintain();
SELECT * FROM state;

-- also if the first try fails
SELECT session_admin.touch_session('id of alice');
DO $$ BEGIN PERFORM pg_temp.maintain(); RAISE 'never mind'; END $$;
SELECT * FROM state;
DO $$
BEGIN
	PERFORM pg_temp.maintain();
	RAISE 'never mind';
EXCEPTION WHEN raise_exception THEN
	PERFORM pg_temp.maintain();
END $$;
SELECT * FROM state;

-- in a transaction block it leaves out what others would wait for
SELECT session_admin.touch_session('id of alice');
BEGIN;
SELECT task FROM session_admin.maintain() WHERE done IS NOT NULL;
SAVEPOINT s;
SELECT task FROM session_admin.maintain() WHERE done IS NOT NULL;
COMMIT;
SELECT * FROM state;
-- of several statements in one message, too, if they begin one
BEGIN \; SELECT task FROM session_admin.maintain() WHERE done IS NOT NULL \; COMMIT;
SET client_min_messages = warning \; SELECT count(*) > 2 AS whole FROM session_admin.maintain() WHERE done IS NOT NULL \; RESET client_min_messages;

-- an error of a task is told; the others are done
SELECT FROM session_admin.open_session('id', 'zoe', application => 'live_failure');
UPDATE session_admin.session SET created_at = created_at - interval '1 year' WHERE application = 'live_failure';
CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE 'no % today', TG_OP USING ERRCODE = 'XX123', DETAIL = 'Some other day.'; END $$;
CREATE TRIGGER fail BEFORE DELETE ON session_admin.session EXECUTE FUNCTION pg_temp.fail();
SET client_min_messages = warning;
SELECT task FROM session_admin.maintain() WHERE done IS NULL AND task NOT LIKE 'partitions%';
DROP TRIGGER fail ON session_admin.session;
SELECT done FROM session_admin.maintain() WHERE task = 'sessions archived';
RESET client_min_messages;
SELECT * FROM state;


--
-- What is rolled back has not ended
--

BEGIN;
DELETE FROM session_admin.session WHERE application = 'live_test' AND user_name = 'alice';
-- who has ended it is told so, before anybody else
SELECT session_admin.touch_session('id of alice') AS alice, session_admin.touch_session('id of bob') AS bob;
ROLLBACK;
SELECT session_admin.touch_session('id of alice') AS alice, session_admin.touch_session('id of bob') AS bob;

BEGIN;
SELECT session_admin.touch_session('id of alice');
SAVEPOINT a;
SAVEPOINT b;
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
SELECT session_admin.touch_session('id of alice');
RELEASE b;
SELECT session_admin.touch_session('id of alice');
ROLLBACK TO a;
SELECT session_admin.touch_session('id of alice');
SELECT session_admin.close_session('id of bob');
COMMIT;
SELECT session_admin.touch_session('id of alice') AS alice, session_admin.touch_session('id of bob') AS bob;

-- so with everybody
BEGIN;
SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT session_admin.touch_session('id of alice');
ROLLBACK;
SELECT session_admin.touch_session('id of alice');

-- the touches of rolled-back transactions were requests, too
SELECT * FROM state;
SELECT * FROM ended;


--
-- What is changed by hand is obeyed
--

-- a session of yesterday is too old
BEGIN;
UPDATE session_admin.session SET created_at = created_at - interval '1 day'
WHERE application = 'live_test' AND user_name = 'alice';
SELECT session_admin.touch_session('id of alice');
ROLLBACK;
SELECT session_admin.touch_session('id of alice');
UPDATE session_admin.session SET created_at = created_at - interval '1 day'
WHERE application = 'live_test' AND user_name = 'alice';
SELECT session_admin.touch_session('id of alice');
UPDATE session_admin.session SET created_at = created_at + interval '1 day'
WHERE application = 'live_test' AND user_name = 'alice';
SELECT session_admin.touch_session('id of alice');

-- an idle one has ended, whatever was known of its last access
UPDATE session_admin.session SET last_access_at = last_access_at - interval '2 hours'
WHERE application = 'live_test' AND user_name = 'alice';
SELECT session_admin.touch_session('id of alice');
UPDATE session_admin.session SET last_access_at = now()
WHERE application = 'live_test' AND user_name = 'alice';
SELECT session_admin.touch_session('id of alice');

-- another user's limits hold for a session that was made theirs
SELECT session_admin.set_policy('idle_timeout', '1 minute', 'carol');
UPDATE session_admin.session SET created_at = created_at - interval '5 minutes',
    last_access_at = created_at - interval '5 minutes'
WHERE application = 'live_test' AND user_name = 'alice';
SELECT session_admin.touch_session('id of alice');
UPDATE session_admin.session SET user_name = 'carol', last_access_at = last_access_at - interval '5 minutes'
WHERE application = 'live_test' AND user_name = 'alice';
SELECT session_admin.touch_session('id of alice');
UPDATE session_admin.session SET user_name = 'alice'
WHERE application = 'live_test' AND user_name = 'carol';
SELECT session_admin.touch_session('id of alice');

-- a policy holds at the next touch
BEGIN;
SELECT session_admin.set_policy('absolute_timeout', '1 minute');
SELECT session_admin.touch_session('id of alice');
ROLLBACK;
SELECT session_admin.touch_session('id of alice');

-- nothing was lost meanwhile
SELECT user_name, requests FROM state;


--
-- In one transaction: opened, touched, closed, opened again
--

BEGIN;
SELECT session_admin.open_session('id of dave', 'dave') = session_admin.session_ref('id of dave') AS opened;
SELECT session_admin.touch_session('id of dave') FROM generate_series(1, 2);
SELECT user_name, requests FROM state WHERE user_name = 'dave';
COMMIT;
SELECT session_admin.touch_session('id of dave');
SELECT user_name, requests FROM state WHERE user_name = 'dave';

BEGIN;
SELECT session_admin.close_session('id of dave');
SELECT session_admin.touch_session('id of dave');
-- (long after)
DELETE FROM session_admin_internal.ended_id;
SELECT session_admin.open_session('id of dave', 'erin') = session_admin.session_ref('id of dave') AS opened;
SELECT session_admin.touch_session('id of dave') FROM generate_series(1, 5);
COMMIT;
SELECT session_admin.touch_session('id of dave');
SELECT user_name, requests FROM state WHERE user_name IN ('dave', 'erin');
SELECT * FROM ended WHERE user_name = 'dave';

BEGIN;
SELECT session_admin.open_session('id of frank', 'frank') = session_admin.session_ref('id of frank') AS opened;
SELECT session_admin.touch_session('id of frank');
ROLLBACK;
SELECT session_admin.touch_session('id of frank');

-- renewed: under its new id it goes on counting
SELECT session_admin.renew_session('id of dave', 'id of dave, renewed')
    = session_admin.session_ref('id of dave, renewed') AS renewed;
SELECT session_admin.touch_session('id of dave') AS old, session_admin.touch_session('id of dave, renewed') AS new;
SELECT user_name, requests FROM state WHERE user_name = 'erin';


--
-- Everybody
--

SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT session_admin.touch_sessions(ARRAY['id of alice', 'id of dave, renewed']);
SELECT session_admin.open_session('id of grace', 'grace') = session_admin.session_ref('id of grace') AS opened;
SELECT session_admin.touch_session('id of grace');

-- archived, with all their requests
SELECT pg_temp.maintain();
SELECT * FROM ended WHERE user_name IN ('alice', 'erin');
SELECT * FROM state;

-- TRUNCATE, too
BEGIN;
TRUNCATE session_admin.session;
SELECT session_admin.touch_session('id of grace');
ROLLBACK;
SELECT session_admin.touch_session('id of grace');
TRUNCATE session_admin.session;
SELECT session_admin.touch_session('id of grace');
SELECT * FROM ended WHERE user_name = 'grace';

SELECT session_admin.set_policy('idle_timeout', NULL, 'carol');

-- A touch that answers who
SET session_admin.application = 'who';
SELECT session_admin.open_session('who 1', 'alice', login_method => 'saml') <> '' AS opened,
       session_admin.open_session('who 2') <> '' AS anonymous;
SELECT created_at > now() - interval '1 hour' AS now, valid, user_name, kind, login_method, reauthenticated_at
FROM session_admin.touch_session_user('who 1');
SELECT valid, user_name, kind, login_method FROM session_admin.touch_session_user('who 2');
SELECT valid, user_name, kind FROM session_admin.touch_session_user(sha256('who 1'));
SELECT session_admin.reauthenticate('who 1');
SELECT reauthenticated_at > now() - interval '1 hour' AS stepped_up FROM session_admin.touch_session_user('who 1');
SELECT requests FROM session_admin.current_sessions WHERE application = 'who' AND user_name = 'alice';
-- nothing is told of what is not valid
SELECT * FROM session_admin.touch_session_user('who 3');
SELECT * FROM session_admin.touch_session_user('who 1', application => 'no such application');
BEGIN;
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
SELECT * FROM session_admin.touch_session_user('who 1');
ROLLBACK;
SELECT valid, user_name FROM session_admin.touch_session_user('who 1');
SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT * FROM session_admin.touch_session_user('who 1');
SELECT session_admin.touch_session_user(NULL::text);
