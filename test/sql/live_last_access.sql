--
-- Last access never moves backwards, unless somebody sets it back
--
-- What a row does not tell yet, the shared table of live sessions knows, or this
-- backend (after a touch that it did not write).  Here a row gets old without them
-- noticing: that is the state after a session was in use for a long time.
--
\set SHOW_CONTEXT never
SET session_admin.application = 'last_access_test';

CREATE PROCEDURE pg_temp.grow_old(of_user text, age interval)
LANGUAGE plpgsql AS $$
BEGIN
	ALTER TABLE session_admin.session DISABLE TRIGGER session_changed;
	UPDATE session_admin.session SET last_access_at = clock_timestamp() - age
	WHERE application = 'last_access_test' AND user_name IS NOT DISTINCT FROM of_user;
	ALTER TABLE session_admin.session ENABLE ALWAYS TRIGGER session_changed;
END $$;

CREATE FUNCTION pg_temp.is_old() RETURNS boolean LANGUAGE sql
AS $$ SELECT last_access_at < clock_timestamp() - interval '3 seconds' FROM session_admin.session
	WHERE application = 'last_access_test' $$;

SELECT session_admin.open_session('id', 'alice') = session_admin.session_ref('id') AS opened;


--
-- Whatever else of the row is updated, the session goes on
--

SELECT session_admin.touch_session('id');
CALL pg_temp.grow_old('alice', '2 hours');
SELECT session_admin.reauthenticate('id', 'password');
SELECT session_admin.touch_session('id');

SELECT session_admin.touch_session('id');
CALL pg_temp.grow_old('alice', '2 hours');
UPDATE session_admin.session SET device = 'laptop' WHERE application = 'last_access_test';
SELECT session_admin.touch_session('id');

-- without a touch in between
SELECT session_admin.touch_session('id');
CALL pg_temp.grow_old('alice', '2 hours');
UPDATE session_admin.session SET device = 'phone' WHERE application = 'last_access_test';
UPDATE session_admin.session SET node = 'n' WHERE application = 'last_access_test';
SELECT session_admin.reauthenticate('id', 'password');
SELECT ended_at IS NULL AS live, last_access_at > now() - interval '1 minute' AS recent
FROM session_admin_internal.session_state WHERE application = 'last_access_test';

-- later, but not as late as is known
UPDATE session_admin.session SET last_access_at = last_access_at + interval '1 minute' WHERE application = 'last_access_test';
SELECT session_admin.touch_session('id');

-- and with a new id
SELECT session_admin.touch_session('id');
CALL pg_temp.grow_old('alice', '2 hours');
SELECT session_admin.renew_session('id', 'new id') = session_admin.session_ref('new id') AS renewed;
SELECT session_admin.touch_session('new id');
SELECT session_admin.touch_session('new id');
CALL pg_temp.grow_old('alice', '2 hours');
SELECT session_admin.touch_session('new id');

-- what is rolled back changes nothing
SELECT session_admin.touch_session('new id');
CALL pg_temp.grow_old('alice', '2 hours');
BEGIN;
UPDATE session_admin.session SET last_access_at = last_access_at - interval '2 hours' WHERE application = 'last_access_test';
ROLLBACK;
SELECT session_admin.touch_session('new id');


--
-- Who sets it back ends the session
--

UPDATE session_admin.session SET device = 'x', last_access_at = last_access_at - interval '2 hours'
WHERE application = 'last_access_test';
SELECT session_admin.touch_session('new id');
-- sets nothing back now
UPDATE session_admin.session SET device = 'y', last_access_at = clock_timestamp() WHERE application = 'last_access_test';
SELECT session_admin.touch_session('new id');

-- of several rows, each its own
SELECT session_admin.open_session('b', 'bob') = session_admin.session_ref('b') AS opened,
	session_admin.open_session('c', 'carol') = session_admin.session_ref('c') AS opened;
SELECT session_admin.touch_sessions(ARRAY['b', 'c', 'new id']);
SELECT session_admin.touch_session('new id');
CALL pg_temp.grow_old('alice', '2 hours');
CALL pg_temp.grow_old('bob', '2 hours');
UPDATE session_admin.session SET last_access_at = last_access_at - CASE user_name WHEN 'carol' THEN interval '2 hours' ELSE '0' END
WHERE application = 'last_access_test';
SELECT session_admin.touch_sessions(ARRAY['b', 'c', 'new id']);

-- another id: under the old one there is nothing
UPDATE session_admin.session SET session_hash = sha256('b, by hand'), last_access_at = clock_timestamp()
WHERE application = 'last_access_test' AND user_name = 'bob';
SELECT session_admin.touch_sessions(ARRAY['b', 'b, by hand']);
SELECT session_admin.close_session('b, by hand'), session_admin.close_session('c'), session_admin.close_session('new id');
DELETE FROM session_admin.session WHERE application = 'last_access_test';


--
-- Where memory is not shared, the row is written before it is too late: after a third
-- of the idle timeout that holds, if that is less than session_admin.touch_interval.
--

SET session_admin.use_shared_memory = off;
SHOW session_admin.touch_interval;
DELETE FROM session_admin_internal.ended_id;
SELECT session_admin.open_session('id', 'alice') = session_admin.session_ref('id') AS opened;

-- an hour: not before the interval
CALL pg_temp.grow_old('alice', '15 seconds');
SELECT session_admin.touch_session('id'), pg_temp.is_old();
CALL pg_temp.grow_old('alice', '61 seconds');
SELECT session_admin.touch_session('id'), pg_temp.is_old();

-- 30 seconds: after 10
SELECT session_admin.set_policy('idle_timeout', '30 seconds');
CALL pg_temp.grow_old('alice', '5 seconds');
SELECT session_admin.touch_session('id'), pg_temp.is_old();
CALL pg_temp.grow_old('alice', '15 seconds');
SELECT session_admin.touch_session('id'), pg_temp.is_old();
CALL pg_temp.grow_old('alice', '15 seconds');
SELECT session_admin.touch_sessions(ARRAY['id'], ARRAY[0]), pg_temp.is_old();
SELECT requests FROM session_admin.session WHERE application = 'last_access_test';

-- what the user has of their own holds
SELECT session_admin.set_policy('idle_timeout', '2 hours', 'alice');
CALL pg_temp.grow_old('alice', '15 seconds');
SELECT session_admin.touch_session('id'), pg_temp.is_old();
SELECT session_admin.set_policy('idle_timeout', NULL), session_admin.set_policy('idle_timeout', '30 seconds', 'alice');
SELECT session_admin.touch_session('id'), pg_temp.is_old();
SELECT session_admin.close_session('id');

-- an anonymous session
SELECT session_admin.set_policy('anonymous_idle_timeout', '30 seconds');
DELETE FROM session_admin_internal.ended_id;
SELECT session_admin.open_session('id') = session_admin.session_ref('id') AS opened;
CALL pg_temp.grow_old(NULL, '15 seconds');
SELECT session_admin.touch_session('id'), pg_temp.is_old();
SELECT session_admin.close_session('id');

-- that of a product
DELETE FROM session_admin_internal.ended_id;
SELECT session_admin.open_session('id', 'bob') = session_admin.session_ref('id') AS opened;
UPDATE session_admin.session SET product = 'p', idle_timeout = '30 seconds' WHERE application = 'last_access_test';
CALL pg_temp.grow_old('bob', '15 seconds');
SELECT session_admin.touch_session('id'), pg_temp.is_old();
UPDATE session_admin.session SET idle_timeout = NULL WHERE application = 'last_access_test';
CALL pg_temp.grow_old('bob', '15 seconds');
SELECT session_admin.touch_session('id'), pg_temp.is_old();

-- a transaction that is READ ONLY writes nothing; the next one does
CALL pg_temp.grow_old('bob', '2 minutes');
BEGIN READ ONLY;
SELECT session_admin.touch_session('id');
COMMIT;
SELECT pg_temp.is_old();
SELECT session_admin.touch_session('id'), pg_temp.is_old();

RESET session_admin.use_shared_memory;
DELETE FROM session_admin.session WHERE application = 'last_access_test';
DELETE FROM session_admin.application WHERE name = 'last_access_test';
DELETE FROM session_admin_internal.policy WHERE application = 'last_access_test';
DELETE FROM session_admin_internal.account WHERE application = 'last_access_test';
