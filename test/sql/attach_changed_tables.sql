--
-- Attachments: what the product, or a DBA, does to watched tables later.  The
-- product keeps working; who may be concerned by what is not understood is logged
-- out; verify_attachments and health tell what is broken.
--
\set VERBOSITY terse
\set SHOW_CONTEXT never
\getenv testdir PG_ABS_SRCDIR
\set tables :testdir '/products/jira.sql'

\set ECHO none
CREATE SCHEMA jira;
SET search_path = jira;
\i :tables
RESET search_path;
\set ECHO all
SET session_admin.application = 'jira';
SET client_min_messages = error;

CREATE TABLE jira.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp NOT NULL);
INSERT INTO jira.cwd_directory (id, directory_name, directory_position) VALUES (1, 'Internal', 1);
INSERT INTO jira.cwd_user (id, directory_id, user_name, lower_user_name, active, credential) VALUES
    (10, 1, 'alice', 'alice', 1, 'old'), (20, 1, 'bob', 'bob', 1, 'old');
INSERT INTO jira.app_user (id, user_key, lower_user_name) VALUES (1, 'alice', 'alice'), (2, 'JIRAUSER2', 'bob');
SELECT count(*) FROM session_admin.attach_application('jira', 'jira');
SELECT count(*) FROM session_admin.attach_application('connect_pg_simple', 'jira');

-- all is well, in detail
SELECT * FROM session_admin.verify_attachments();
SELECT name, value, status FROM session_admin.health WHERE name IN ('watched tables', 'changes not understood');

-- Do some damage, look what is said of it, and let the product go on; then all is
-- rolled back.  Before, alice and bob have a session and a remember-me row each.
CREATE FUNCTION pg_temp.damaged(damage text, statements text,
    OUT broken text, OUT product text, OUT alice boolean, OUT bob boolean, OUT tokens text,
    OUT feed text, OUT failures text, OUT health text)
LANGUAGE plpgsql AS $$
DECLARE
    last_id bigint := coalesce(max(id), 0) FROM session_admin_internal.invalidation;
BEGIN
    PERFORM session_admin.open_session('alice 1', 'alice'), session_admin.open_session('bob 1', 'bob');
    INSERT INTO jira.remembermetoken (id, created, token, username) VALUES
        (1, '2026-01-01', 'secret of alice', 'alice'), (2, '2026-01-01', 'secret of bob', 'JIRAUSER2');
    EXECUTE damage;
    SELECT string_agg(object || ': ' || status, E'\n' ORDER BY object) INTO broken
    FROM session_admin.verify_attachments() WHERE status <> 'ok';
    BEGIN
        EXECUTE statements;
        product := 'goes on';
    EXCEPTION WHEN OTHERS THEN
        product := sqlstate || ' ' || sqlerrm;
    END;
    alice := session_admin.touch_session('alice 1');
    bob := session_admin.touch_session('bob 1');
    SELECT string_agg(coalesce(t.j ->> 'username', '?'), ' ' ORDER BY t.j ->> 'id') INTO tokens
    FROM (SELECT to_jsonb(r) AS j FROM jira.remembermetoken r) t;
    SELECT string_agg(concat_ws(' ', i.scope, i.user_name, i.reason), E'\n' ORDER BY i.id) INTO feed
    FROM session_admin_internal.invalidation i WHERE id > last_id;
    SELECT string_agg(concat_ws(' ', f.event, f.message, coalesce(f.user_names::text, 'everybody')), E'\n' ORDER BY f.at)
    INTO failures FROM session_admin.capture_failures f;
    SELECT string_agg(h.name || ' ' || h.status, E'\n' ORDER BY h.name) INTO health FROM session_admin.health h
    WHERE h.name IN ('watched tables', 'changes not understood', 'products'' rows that remain') AND h.status <> 'ok';
    RAISE EXCEPTION 'all back' USING ERRCODE = 'RB000';
EXCEPTION WHEN SQLSTATE 'RB000' THEN
END $$;

\pset null -
CREATE TEMP TABLE happens (n serial, what text, damage text, statements text);
INSERT INTO happens (what, damage, statements) VALUES
('nothing', '', $$UPDATE jira.cwd_user SET first_name = 'x'$$),
-- columns
('a column that tells of passwords is renamed',
 $$ALTER TABLE jira.cwd_user RENAME credential TO password$$,
 $$UPDATE jira.cwd_user SET password = 'new' WHERE id = 20$$),
('... what else is understood still is',
 $$ALTER TABLE jira.cwd_user RENAME credential TO password$$,
 $$UPDATE jira.cwd_user SET active = 0 WHERE id = 10;
   UPDATE jira.cwd_user SET password = password;
   INSERT INTO jira.cwd_user (id, user_name, lower_user_name) VALUES (30, 'carol', 'carol');
   DELETE FROM jira.cwd_user WHERE id = 30$$),
('it is dropped, and passwords are kept in another one',
 $$ALTER TABLE jira.cwd_user DROP credential, ADD hash json$$,
 $$UPDATE jira.cwd_user SET hash = '{"sha": 1}' WHERE id = 20$$),
('a column that names users is renamed',
 $$ALTER TABLE jira.cwd_user RENAME lower_user_name TO login$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
('... nothing of concern',
 $$ALTER TABLE jira.cwd_user RENAME lower_user_name TO login$$,
 $$UPDATE jira.cwd_user SET credential = credential;
   INSERT INTO jira.cwd_user (id, user_name, login) VALUES (30, 'carol', 'carol')$$),
('... a user is deleted',
 $$ALTER TABLE jira.cwd_user DROP lower_user_name$$,
 $$DELETE FROM jira.cwd_user WHERE id = 20$$),
('a column gets a type that is not PostgreSQL''s own',
 $$CREATE DOMAIN jira.flag AS numeric(9,0); ALTER TABLE jira.cwd_user ALTER active TYPE jira.flag$$,
 $$UPDATE jira.cwd_user SET active = 0 WHERE id = 20$$),
('a column of remember-me rows is renamed',
 $$ALTER TABLE jira.remembermetoken RENAME username TO user_key$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
-- tables
('a table is renamed',
 $$ALTER TABLE jira.cwd_user RENAME TO cwd_users$$,
 $$UPDATE jira.cwd_users SET credential = 'new' WHERE id = 20$$),
('... and there is a new one',
 $$ALTER TABLE jira.cwd_user RENAME TO cwd_user_old; CREATE TABLE jira.cwd_user AS TABLE jira.cwd_user_old$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
('it is moved to another schema',
 $$CREATE SCHEMA elsewhere; ALTER TABLE jira.cwd_user SET SCHEMA elsewhere$$,
 $$UPDATE elsewhere.cwd_user SET credential = 'new' WHERE id = 20$$),
('it is dropped',
 $$DROP TABLE jira.app_user$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
-- triggers
('a trigger is disabled',
 $$ALTER TABLE jira.cwd_user DISABLE TRIGGER session_admin_update$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
('... and attached again',
 $$ALTER TABLE jira.cwd_user DISABLE TRIGGER session_admin_update;
   SELECT count(*) FROM session_admin.attach_application('jira', 'jira')$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
('it is dropped',
 $$DROP TRIGGER session_admin_update ON jira.cwd_user$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
('all are disabled and enabled, as pg_restore does: nothing is seen twice',
 $$ALTER TABLE jira.cwd_user DISABLE TRIGGER ALL; ALTER TABLE jira.cwd_user ENABLE TRIGGER ALL$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
('applied as a subscription does',
 $$SET LOCAL session_replication_role = replica$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20; DELETE FROM jira.cwd_user WHERE id = 10$$),
('... with all triggers enabled always',
 $$ALTER TABLE jira.cwd_user ENABLE ALWAYS TRIGGER session_admin_update;
   SET LOCAL session_replication_role = replica$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
('... TRUNCATE',
 $$SET LOCAL session_replication_role = replica$$,
 $$TRUNCATE jira.cwd_user$$),
-- what fails in there
('the product does not let us delete its rows',
 $$CREATE FUNCTION jira.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not yours''; END';
   CREATE TRIGGER refuse BEFORE DELETE ON jira.remembermetoken FOR EACH ROW EXECUTE FUNCTION jira.refuse()$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
('sessions cannot be archived: everybody''s generation ends',
 $$CREATE FUNCTION jira.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no room''; END';
   CREATE TRIGGER refuse BEFORE DELETE ON session_admin.session FOR EACH ROW EXECUTE FUNCTION jira.refuse()$$,
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 20$$),
-- sessions in the product's own table
('a column of sessions is renamed, and somebody logs out',
 $$INSERT INTO jira.session VALUES ('bob 2', '{"passport": {"user": "bob"}}', now() + interval '1 hour');
   ALTER TABLE jira.session RENAME sid TO id$$,
 $$UPDATE jira.session SET expire = expire + interval '1 minute'; DELETE FROM jira.session$$),
('a column with JSON gets another type',
 $$INSERT INTO jira.session VALUES ('bob 2', '{"passport": {"user": "bob"}}', now() + interval '1 hour');
   ALTER TABLE jira.session ALTER sess TYPE int USING 1$$,
 $$INSERT INTO jira.session VALUES ('bob 3', 1, now() + interval '1 hour'); UPDATE jira.session SET sess = 2;
   DELETE FROM jira.session$$),
('a logout that is not understood',
 $$INSERT INTO jira.session VALUES ('bob 2', '{"passport": {"user": "bob"}}', now() + interval '1 hour');
   CREATE FUNCTION jira.refuse() RETURNS trigger LANGUAGE plpgsql AS
   'BEGIN IF new.end_reason = ''logout'' THEN RAISE ''no room''; END IF; RETURN new; END';
   CREATE TRIGGER refuse BEFORE INSERT ON session_admin_internal.ended_session FOR EACH ROW EXECUTE FUNCTION jira.refuse()$$,
 $$DELETE FROM jira.session$$),
-- by policy, it is the product's failure
('on_capture_failure = error: a column is renamed',
 $$ALTER TABLE jira.cwd_user RENAME credential TO password; SELECT session_admin.set_policy('on_capture_failure', 'error')$$,
 $$UPDATE jira.cwd_user SET password = 'new' WHERE id = 20$$),
('... what is understood is no failure',
 $$ALTER TABLE jira.cwd_user RENAME credential TO password; SELECT session_admin.set_policy('on_capture_failure', 'error')$$,
 $$UPDATE jira.cwd_user SET active = 0 WHERE id = 20$$),
('... something of ours fails',
 $$ALTER TABLE session_admin_internal.account_key ADD CONSTRAINT "no number 666" CHECK (key <> '666');
   SELECT session_admin.set_policy('on_capture_failure', 'error')$$,
 $$INSERT INTO jira.cwd_user (id, user_name, lower_user_name) VALUES (666, 'fred', 'fred')$$),
('on_capture_failure = record: the same',
 $$ALTER TABLE session_admin_internal.account_key ADD CONSTRAINT "no number 666" CHECK (key <> '666')$$,
 $$INSERT INTO jira.cwd_user (id, user_name, lower_user_name) VALUES (666, 'fred', 'fred')$$);

\x on
SELECT h.what, d.* FROM happens h, LATERAL pg_temp.damaged(h.damage, h.statements) d ORDER BY h.n;
\x off

-- the product's log tells of it
RESET client_min_messages;
\set VERBOSITY default
BEGIN;
ALTER TABLE jira.cwd_user RENAME credential TO password;
UPDATE jira.cwd_user SET password = 'new' WHERE id = 20;
ROLLBACK;
BEGIN;
ALTER TABLE jira.remembermetoken RENAME username TO user_key;
SELECT tokens_revoked FROM session_admin.invalidate_user('bob');
ROLLBACK;
\set VERBOSITY terse

--
-- What is understood by now is acknowledged; what is old is forgotten
--
INSERT INTO session_admin_internal.capture_failure (at, application, relation, event, message) VALUES
    ('2020-01-01', 'jira', 'jira.cwd_user', 'UPDATE', 'long ago'), (now(), 'jira', 'jira.cwd_user', 'UPDATE', 'today'),
    (now(), 'other', 'jira.cwd_user', 'UPDATE', 'of another application');
INSERT INTO session_admin_internal.account_key (application, product, part, key, user_name, gone_at) VALUES
    ('jira', 'jira', 'account', '1', 'long gone', '2020-01-01'), ('jira', 'jira', 'account', '2', 'just gone', now());
SELECT object, status FROM session_admin.verify_attachments() WHERE status <> 'ok';
SELECT session_admin.acknowledge_failures();
SELECT object, status FROM session_admin.verify_attachments() WHERE status <> 'ok';
SELECT task, done FROM session_admin.maintain() WHERE task = 'history forgotten';
SELECT message, acknowledged_by = session_user AS acknowledged FROM session_admin.capture_failures ORDER BY message;
SELECT key, user_name FROM session_admin_internal.account_key WHERE gone_at IS NOT NULL;
SELECT value, status FROM session_admin.health WHERE name = 'changes not understood';
DELETE FROM session_admin_internal.capture_failure;

-- A product whose table is another one now: the old one is left alone
ALTER TABLE jira.cwd_user RENAME TO cwd_user_old;
CREATE TABLE jira.cwd_user (LIKE jira.cwd_user_old INCLUDING ALL);
INSERT INTO jira.cwd_user SELECT * FROM jira.cwd_user_old;
SELECT part, state FROM session_admin.attach_application('jira', 'jira') WHERE object = 'cwd_user';
SELECT tgrelid::regclass, count(*) FROM pg_trigger WHERE tgfoid = 'session_admin.capture'::regproc GROUP BY 1 ORDER BY 1::text;
SELECT object, status FROM session_admin.verify_attachments() WHERE status <> 'ok';

SELECT part, state FROM session_admin.detach_application();
SELECT count(*) FROM session_admin.verify_attachments();
SET client_min_messages = error;
DROP SCHEMA jira CASCADE;
