--
-- Invalidation: ending other people's sessions, now
--
\set SHOW_CONTEXT never
SET session_admin.application = 'invalidation_test';
SET session_admin.touch_interval = 0;

-- What became of the sessions: those of view session_state have a row in the
-- table, the others are in the history.
CREATE TEMP VIEW fate AS
SELECT user_name, session_admin.session_ref(session_hash), 'ended' AS state, end_reason,
       CASE ended_by WHEN session_user THEN 'this role' ELSE ended_by END AS ended_by, actor
FROM session_admin_internal.ended_session WHERE application = 'invalidation_test'
UNION ALL
SELECT user_name, session_admin.session_ref(session_hash),
       CASE WHEN ended_at IS NULL THEN 'live' ELSE 'to be archived' END, end_reason,
       CASE ended_by WHEN session_user THEN 'this role' ELSE ended_by END, actor
FROM session_admin_internal.session_state WHERE application = 'invalidation_test'
ORDER BY user_name, session_ref, state;

-- What the nodes are told, since the last time
CREATE TEMP TABLE told (id bigint);
INSERT INTO told SELECT coalesce(max(id), 0) FROM session_admin_internal.invalidation;
CREATE FUNCTION pg_temp.feed(OUT scope text, OUT application text, OUT user_name text,
    OUT session_ref text, OUT reason text, OUT actor text, OUT by_this_role boolean,
    OUT sessions_ended bigint, OUT tokens_revoked bigint)
RETURNS SETOF record
LANGUAGE sql AS $$
    WITH last AS MATERIALIZED (SELECT id FROM told), now AS (
        UPDATE told SET id = (SELECT max(id) FROM session_admin_internal.invalidation))
    SELECT scope, application, user_name, session_admin.session_ref(session_hash), reason,
           actor, invalidated_by = session_user, sessions_ended, tokens_revoked
    FROM session_admin_internal.invalidation WHERE id > (SELECT id FROM last)
    ORDER BY application, user_name, session_hash, id
$$;

-- The users of this test: alice has three sessions, bob and carol one each, and
-- there is a visitor.
CREATE FUNCTION pg_temp.log_in() RETURNS void LANGUAGE sql AS $$
    DELETE FROM session_admin.session WHERE application = 'invalidation_test';
    -- as if these ids had never been used
    DELETE FROM session_admin_internal.ended_id WHERE application = 'invalidation_test';
    SELECT session_admin.open_session('alice 1', 'alice', '192.0.2.1', node => 'node1', user_agent => 'Firefox');
    SELECT session_admin.open_session('alice 2', 'alice', '192.0.2.2', node => 'node2', user_agent => 'Safari');
    SELECT session_admin.open_session('alice 3', 'alice', '198.51.100.1', node => 'node1', user_agent => 'curl/8.0');
    SELECT session_admin.open_session('bob 1', 'bob', '192.0.2.1', node => 'node1', user_agent => 'Firefox');
    SELECT session_admin.open_session('carol 1', 'carol', '2001:db8::1', node => 'node2', user_agent => '100%_Opera');
    SELECT session_admin.open_session('visitor 1', NULL, '203.0.113.1', node => 'node2');
    DELETE FROM session_admin_internal.ended_session WHERE application = 'invalidation_test';
    UPDATE told SET id = (SELECT coalesce(max(id), 0) FROM session_admin_internal.invalidation);
$$;
-- which of these ids are not valid any more
CREATE FUNCTION pg_temp.not_valid() RETURNS text[] LANGUAGE sql AS $$
    SELECT session_admin.touch_sessions(
        ARRAY['alice 1', 'alice 2', 'alice 3', 'bob 1', 'carol 1', 'visitor 1'])
$$;


--
-- One session, by what people see of it
--

SELECT pg_temp.log_in();
SELECT user_name, session_ref FROM fate;

SELECT * FROM session_admin.invalidate_session(session_admin.session_ref('alice 1')) \gset
\echo sessions: :sessions_ended, tokens: :tokens_revoked
SELECT max(id) = :invalidation_id AS "the last of the feed" FROM session_admin_internal.invalidation;
SELECT pg_temp.not_valid();
SELECT * FROM fate WHERE state = 'ended';
SELECT * FROM pg_temp.feed();

-- eight digits or more will do, an odd number of them, in any case, up to all
SELECT left(encode(sha256('alice 2'), 'hex'), 8) AS eight,
       upper(left(encode(sha256('alice 3'), 'hex'), 13)) AS thirteen,
       encode(sha256('bob 1'), 'hex') AS all \gset
SELECT sessions_ended FROM session_admin.invalidate_session(:'eight');
SELECT sessions_ended FROM session_admin.invalidate_session(:'thirteen');
SELECT sessions_ended FROM session_admin.invalidate_session(:'all');
SELECT pg_temp.not_valid();
-- or the label in Jira's access log
SELECT session_admin.log_id('carol 1') \gset
SELECT sessions_ended FROM session_admin.invalidate_session(:'log_id');
SELECT pg_temp.not_valid();

-- What is not the name of one live session
SELECT pg_temp.log_in();
SELECT session_admin.invalidate_session('0123456789ab');
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.invalidate_session('zzzzzzz');
SELECT session_admin.invalidate_session(left(session_admin.session_ref('alice 1'), 7));
SELECT session_admin.invalidate_session('not hex digits');
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.invalidate_session('');
SELECT session_admin.invalidate_session(repeat('0', 65));
-- a session id that is given by mistake gets into no message
SELECT session_admin.invalidate_session('5ABE652343674332');
SELECT session_admin.invalidate_session('id of alice''s session');
SELECT session_admin.invalidate_session(NULL);
-- that of another application
SELECT session_admin.invalidate_session(session_admin.session_ref('alice 1'), application => 'invalidation_test_2');
-- one that has ended
SELECT session_admin.close_session('alice 1');
SELECT session_admin.invalidate_session(session_admin.session_ref('alice 1'));
-- two that begin alike, or have the same label: none is ended
INSERT INTO session_admin.session (session_hash, application, generation, created_at, last_access_at, user_name, log_id)
SELECT decode('ab12cd34' || d || repeat('0', 55), 'hex'), 'invalidation_test', generation, now(), now(), 'twin', 'samelog'
FROM session_admin.application, unnest('{5,6}'::text[]) d WHERE name = 'invalidation_test';
SELECT session_admin.invalidate_session('ab12cd34');
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.invalidate_session('samelog');
SELECT sessions_ended FROM session_admin.invalidate_session('ab12cd345');
SELECT sessions_ended FROM session_admin.invalidate_session('samelog');
SELECT pg_temp.not_valid();


--
-- One user, everywhere
--

SELECT pg_temp.log_in();
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_user('alice');
SELECT pg_temp.not_valid();
SELECT * FROM fate WHERE user_name = 'alice';
-- also when they are not logged in: a node might still think so
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_user('alice');
-- one row for the user, whatever the number of sessions
SELECT * FROM pg_temp.feed();
-- access is not revoked
SELECT session_admin.open_session('alice 4', 'alice') = session_admin.session_ref('alice 4') AS "logged in again";

-- all but the current session, which is given by its id or by its hash
SELECT pg_temp.log_in();
SELECT sessions_ended FROM session_admin.invalidate_user('alice', 'alice 2', reason => 'password_changed');
SELECT pg_temp.not_valid();
SELECT sessions_ended FROM session_admin.invalidate_user('alice', sha256('alice 2'), reason => 'password_changed');
SELECT session_admin.touch_session('alice 2') AS "kept";
SELECT scope, user_name, session_ref AS keep, reason, sessions_ended FROM pg_temp.feed();
-- a session of somebody else, or of nobody, keeps none
SELECT sessions_ended FROM session_admin.invalidate_user('alice', 'bob 1');
SELECT pg_temp.not_valid();

-- Remembered devices go too, unless they are to be kept.
CREATE FUNCTION pg_temp.remember(series text, user_name text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO session_admin.remember_me_token
        (series, application, generation, user_name, validator_hash, created_at)
    SELECT $1, name, generation, $2, sha256($1::bytea), clock_timestamp()
    FROM session_admin.application WHERE name = 'invalidation_test'
$$;
SELECT pg_temp.log_in(), pg_temp.remember('laptop', 'alice'), pg_temp.remember('phone', 'alice'),
       pg_temp.remember('tablet', 'bob');
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_user('alice', keep_remember_me => true);
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_user('alice');
SELECT series FROM session_admin.remember_me_token WHERE application = 'invalidation_test';
SELECT scope, user_name, sessions_ended, tokens_revoked FROM pg_temp.feed();
-- their history is among the logins
SELECT user_name, event, login_method, detail FROM session_admin_internal.login_event
WHERE application = 'invalidation_test' AND event <> 'login' ORDER BY detail;
-- a token revoked alone ends no session, but the nodes are told
SELECT pg_temp.log_in();
DELETE FROM session_admin.remember_me_token WHERE application = 'invalidation_test';
SELECT * FROM pg_temp.feed();
SELECT pg_temp.not_valid();

SELECT session_admin.invalidate_user('nobody');
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.invalidate_user('alice', application => 'invalidation_test_2');
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.invalidate_user(NULL);
SELECT session_admin.invalidate_user('');


--
-- By filter
--

-- every filter that is given must match; the preview shows the same sessions
SELECT pg_temp.log_in();
SELECT user_name, session_ref, client_address, node
FROM session_admin.preview_invalidation(address => '192.0.2.0/24', node => 'node1') ORDER BY 1;
SELECT sessions_ended FROM session_admin.invalidate_sessions(address => '192.0.2.0/24', node => 'node1');
SELECT pg_temp.not_valid();
SELECT * FROM pg_temp.feed();

SELECT pg_temp.log_in();
SELECT sessions_ended FROM session_admin.invalidate_sessions(user_name => 'alice', user_agent_like => 'curl/%');
SELECT pg_temp.not_valid();
SELECT sessions_ended FROM session_admin.invalidate_sessions(user_agent_like => '100\%\_%');
SELECT pg_temp.not_valid();
SELECT sessions_ended FROM session_admin.invalidate_sessions(address => '203.0.113.1', anonymous => true);
SELECT pg_temp.not_valid();
SELECT sessions_ended FROM session_admin.invalidate_sessions(anonymous => false);
SELECT pg_temp.not_valid();

-- what has ended is not shown
SELECT * FROM session_admin.preview_invalidation(user_name => 'alice');

-- by time: not used for 30 minutes; opened before two hours ago
SELECT pg_temp.log_in();
UPDATE session_admin.session SET last_access_at = last_access_at - interval '30 minutes'
WHERE application = 'invalidation_test' AND user_name = 'alice' AND node = 'node1';
UPDATE session_admin.session SET created_at = created_at - interval '2 hours'
WHERE application = 'invalidation_test' AND user_name = 'bob';
SELECT sessions_ended FROM session_admin.invalidate_sessions(idle_for => '30 minutes');
SELECT pg_temp.not_valid();
SELECT sessions_ended FROM session_admin.invalidate_sessions(opened_before => now() - interval '2 hours');
SELECT pg_temp.not_valid();

-- none is no error, and nothing to tell
SELECT * FROM session_admin.invalidate_sessions(user_name => 'nobody');
SELECT * FROM session_admin.invalidate_sessions(user_name => 'carol', application => 'invalidation_test_2');
-- no filter at all is an error, and not everybody
SELECT session_admin.preview_invalidation();
SELECT session_admin.invalidate_sessions();
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.invalidate_sessions(reason => 'admin', application => 'invalidation_test');
SELECT pg_temp.not_valid();


--
-- Everybody
--

-- At a cost that does not depend on how many they are: no session is touched.
SELECT pg_temp.log_in();
SELECT session_admin.open_session('alice 1', 'alice', application => 'invalidation_test_2') IS NOT NULL AS "another application";
SELECT sum(ctid::text::point <-> '(0,0)') AS where_they_are, max(xmin::text) AS last_written
FROM session_admin.session WHERE application = 'invalidation_test' \gset
SET session_admin.actor = 'eve@example.com';
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_application('custom:maintenance window');
RESET session_admin.actor;
SELECT sum(ctid::text::point <-> '(0,0)') = :'where_they_are' AND max(xmin::text) = :'last_written' AS "untouched"
FROM session_admin.session WHERE application = 'invalidation_test';
-- but none of them is valid, and the views say so at once
SELECT pg_temp.not_valid();
SELECT * FROM fate;
SELECT * FROM pg_temp.feed();
SELECT session_admin.touch_session('alice 1', 'invalidation_test_2') AS "another application";
-- they can log in again at once, under a new id
SELECT session_admin.open_session('alice 1', 'alice');
SELECT session_admin.open_session('alice 4', 'alice') IS NOT NULL AS "logged in again";
SELECT pg_temp.not_valid();
SELECT user_name, session_ref, state, end_reason, actor FROM fate WHERE session_ref = session_admin.session_ref('alice 1');
-- what has ended cannot be ended again
SELECT session_admin.invalidate_session(session_admin.session_ref('bob 1'));
SELECT * FROM session_admin.invalidate_sessions(user_name => 'bob');
SELECT * FROM pg_temp.feed();

-- Archived later, they have the time, reason and author of their end, and the
-- nodes are not told again.
SELECT generation, ended_at AS everybody_ended_at FROM session_admin_internal.application_generation
WHERE application = 'invalidation_test' ORDER BY generation DESC LIMIT 1 \gset
DELETE FROM session_admin.session
WHERE application = 'invalidation_test' AND generation = :generation;
SELECT * FROM fate;
SELECT count(*) AS sessions, count(*) FILTER (WHERE ended_at = :'everybody_ended_at') AS "at the right time"
FROM session_admin_internal.ended_session WHERE application = 'invalidation_test';
SELECT * FROM pg_temp.feed();

-- Somebody who had timed out before did so.
SELECT pg_temp.log_in();
UPDATE session_admin.session SET last_access_at = last_access_at - interval '1 hour'
WHERE application = 'invalidation_test' AND user_name = 'bob';
SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT user_name, state, end_reason, ended_by FROM fate WHERE user_name IN ('bob', 'carol');
DELETE FROM session_admin.session WHERE application = 'invalidation_test';
SELECT user_name, state, end_reason, ended_by FROM fate WHERE user_name IN ('bob', 'carol');

-- Remembered devices are forgotten too.
SELECT pg_temp.log_in(), pg_temp.remember('laptop', 'alice');
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_application();
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_application();
DELETE FROM session_admin.remember_me_token WHERE application = 'invalidation_test';
SELECT scope, reason, sessions_ended, tokens_revoked FROM pg_temp.feed();

-- Too many to be counted at no cost are not counted.
SELECT pg_temp.log_in();
SELECT count(session_admin.open_session('crowd ' || i, 'crowd')) FROM generate_series(1, 1000) i;
SELECT sessions_ended IS NULL AS "not counted", tokens_revoked FROM session_admin.invalidate_application();
SELECT scope, sessions_ended, tokens_revoked FROM pg_temp.feed();
SELECT session_admin.touch_session('crowd 1');

SELECT session_admin.invalidate_application(application => 'nothing_of_this_name');
\echo :LAST_ERROR_SQLSTATE

-- Everywhere: one row for all of them
SELECT pg_temp.log_in();
SELECT invalidation_id FROM session_admin.invalidate_all('sso_logout') \gset
SELECT max(id) = :invalidation_id AS "the last of the feed" FROM session_admin_internal.invalidation;
SELECT pg_temp.not_valid();
SELECT session_admin.touch_session('alice 1', 'invalidation_test_2') AS "another application";
SELECT scope, application, user_name, reason FROM pg_temp.feed();
SELECT count(*) = count(ended_at) AS "all ended" FROM session_admin_internal.session_state;


--
-- The one door: the row is the truth, whoever deletes it
--

-- A DBA's own DELETE
SELECT pg_temp.log_in();
SET session_admin.actor = 'the DBA';
DELETE FROM session_admin.session WHERE application = 'invalidation_test' AND user_name IN ('alice', 'bob');
RESET session_admin.actor;
SELECT * FROM fate WHERE state = 'ended';
SELECT * FROM pg_temp.feed();
-- of nothing tells nothing
DELETE FROM session_admin.session WHERE application = 'invalidation_test' AND user_name = 'nobody';
SELECT * FROM pg_temp.feed();
-- also while triggers are off for replication
SET session_replication_role = replica;
DELETE FROM session_admin.session WHERE application = 'invalidation_test' AND user_name = 'carol';
RESET session_replication_role;
SELECT scope, user_name, session_ref, reason FROM pg_temp.feed();

-- TRUNCATE ends everybody, archives them, and says so in one row.
SELECT pg_temp.log_in();
SELECT pg_temp.remember('laptop', 'alice'), pg_temp.remember('phone', 'alice');
TRUNCATE session_admin.session;
SELECT user_name, session_ref, state, end_reason, ended_by FROM fate;
SELECT scope, application, user_name, reason, by_this_role, sessions_ended >= 6 AS "these and others"
FROM pg_temp.feed();
TRUNCATE session_admin.remember_me_token;
SELECT scope, application, user_name, reason, tokens_revoked FROM pg_temp.feed();
SELECT user_name, detail FROM session_admin_internal.login_event
WHERE application = 'invalidation_test' AND detail ~ 'laptop|phone' ORDER BY at DESC, detail LIMIT 2;

-- The functions behind the triggers are of no other use.
SELECT session_admin_internal.session_ended();
CREATE TABLE of_no_use (session_hash bytea);
CREATE TRIGGER of_no_use AFTER INSERT ON of_no_use FOR EACH ROW EXECUTE FUNCTION session_admin_internal.session_ended();
INSERT INTO of_no_use VALUES ('x');
DROP TRIGGER of_no_use ON of_no_use;
CREATE TRIGGER of_no_use BEFORE INSERT ON of_no_use EXECUTE FUNCTION session_admin_internal.truncated();
INSERT INTO of_no_use VALUES ('x');
DROP TRIGGER of_no_use ON of_no_use;
CREATE TRIGGER of_no_use AFTER INSERT ON of_no_use EXECUTE FUNCTION session_admin_internal.token_revoked();
INSERT INTO of_no_use VALUES ('x');
DROP TABLE of_no_use;


--
-- Why, and by whom
--

-- Reasons are of one list; beside it, anything after "custom:".
SELECT pg_temp.log_in();
SELECT sessions_ended FROM session_admin.invalidate_sessions(user_name => 'carol', reason => 'custom:office closed');
SELECT session_admin.invalidate_user('alice', reason => 'because');
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.invalidate_user('alice', reason => 'custom:');
SELECT session_admin.invalidate_application('Admin');
SELECT session_admin.invalidate_all(E'because\nERROR:  it is harmless');
SELECT session_admin.invalidate_session(session_admin.session_ref('alice 1'), 'custom:' || repeat('x', 300));
SELECT sessions_ended FROM session_admin.invalidate_user('bob', reason => NULL);
SELECT user_name, reason FROM pg_temp.feed();

-- The person whom the application names is recorded beside the role, never
-- instead of it, and not where nobody is named. SET ROLE and SECURITY DEFINER
-- do not hide who was connected.
CREATE ROLE regress_invalidation SUPERUSER;
SELECT pg_temp.log_in();
SET ROLE regress_invalidation;
BEGIN;
SET LOCAL session_admin.actor = E'mallory\x1b[2J\n';
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
COMMIT;
SELECT sessions_ended FROM session_admin.invalidate_user('bob');
RESET ROLE;
SELECT user_name, actor, by_this_role FROM pg_temp.feed();
SET SESSION AUTHORIZATION regress_invalidation;
SELECT sessions_ended FROM session_admin.invalidate_user('carol');
RESET SESSION AUTHORIZATION;
SELECT user_name, end_reason, ended_by, actor FROM fate WHERE state = 'ended' ORDER BY user_name, session_ref;
SELECT user_name, by_this_role FROM pg_temp.feed();
DROP ROLE regress_invalidation;


--
-- With the transaction
--

-- Rolled back, it did not happen; so it is with a savepoint.
SELECT pg_temp.log_in();
BEGIN;
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
SELECT pg_temp.not_valid() AS "in this transaction";
ROLLBACK;
SELECT pg_temp.not_valid();
BEGIN;
SELECT sessions_ended FROM session_admin.invalidate_user('bob');
SAVEPOINT perhaps;
SELECT sessions_ended FROM session_admin.invalidate_application();
DELETE FROM session_admin.session WHERE application = 'invalidation_test' AND user_name = 'carol';
SELECT pg_temp.not_valid() AS "at the savepoint";
ROLLBACK TO perhaps;
SELECT pg_temp.not_valid() AS "back at it";
COMMIT;
SELECT pg_temp.not_valid();
SELECT * FROM fate;
SELECT * FROM pg_temp.feed();
SELECT count(*) FROM session_admin_internal.session_state
WHERE application = 'invalidation_test' AND ended_at IS NOT NULL;

-- Nor does it happen "perhaps, later": a transaction that ends sessions cannot
-- be prepared.
BEGIN;
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
PREPARE TRANSACTION 'invalidation';
\echo :LAST_ERROR_SQLSTATE
BEGIN;
SELECT session_admin.close_session('alice 1');
PREPARE TRANSACTION 'invalidation';
BEGIN;
SAVEPOINT released;
DELETE FROM session_admin.session WHERE application = 'invalidation_test';
RELEASE released;
PREPARE TRANSACTION 'invalidation';
SELECT pg_temp.not_valid();
-- one that has only changed them, neither
BEGIN;
SELECT session_admin.reauthenticate('alice 1');
PREPARE TRANSACTION 'invalidation';
-- one that has taken it back, or does something else, can be
BEGIN;
SELECT session_admin.open_session('dave 1', 'dave') IS NOT NULL AS opened;
SAVEPOINT perhaps;
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
ROLLBACK TO perhaps;
SELECT session_admin.close_session('nobody');
PREPARE TRANSACTION 'invalidation';
COMMIT PREPARED 'invalidation';
SELECT session_admin.touch_session('dave 1');
SELECT pg_temp.not_valid();

-- leave no session to the tests that follow
DELETE FROM session_admin.session WHERE application LIKE 'invalidation_test%';
DROP VIEW fate;
DROP TABLE told;

-- An application whose row a DBA deletes is made again by the next login, but what
-- was open does not come back to life.
SELECT session_admin.open_session('id of old', 'olga', application => 'remade');
DELETE FROM session_admin.application WHERE name = 'remade';
SELECT session_admin.touch_session('id of old', 'remade');
SELECT session_admin.open_session('id of new', 'olga', application => 'remade');
SELECT session_admin.touch_session('id of old', 'remade') AS old, session_admin.touch_session('id of new', 'remade') AS new;
SELECT sessions_ended FROM session_admin.invalidate_application(application => 'remade');
SELECT session_admin.touch_session('id of new', 'remade');
