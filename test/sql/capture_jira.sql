--
-- attach_application('jira'): an unchanged Jira, seen through its own tables
--
\set VERBOSITY terse
\getenv testdir PG_ABS_SRCDIR
\set tables :testdir '/products/jira.sql'

CREATE SCHEMA jira;
SET search_path = jira;
\i :tables
RESET search_path;
SET session_admin.application = 'jira';

-- alice is in two directories; her key is her name, as of all old users
INSERT INTO jira.cwd_directory (id, directory_name, directory_position) VALUES
    (1, 'Internal', 1), (2, 'LDAP', 2);
INSERT INTO jira.cwd_user (id, directory_id, user_name, lower_user_name, active, credential) VALUES
    (10, 1, 'alice', 'alice', 1, 'old'),
    (11, 2, 'alice', 'alice', 1, 'old'),
    (20, 1, 'Bob', 'bob', 1, 'old'),
    (30, 1, 'carol', 'carol', 0, 'old');
INSERT INTO jira.app_user (id, user_key, lower_user_name) VALUES
    (1, 'alice', 'alice'), (2, 'JIRAUSER2', 'bob'), (3, 'JIRAUSER3', 'carol');
INSERT INTO jira.cwd_user_attributes (id, user_id, directory_id, attribute_name, attribute_value) VALUES
    (1, 10, 1, 'login.lastLoginMillis', '1700000000000'),
    (2, 10, 1, 'login.previousLoginMillis', '1600000000000'),
    (3, 10, 1, 'login.count', '7'),
    (4, 10, 1, 'login.totalFailedCount', '3'),
    (5, 10, 1, 'login.currentFailedCount', '0'),
    (6, 20, 1, 'passwordLastChanged', '1700000000000');

-- refused: what is not a product, what is not there
SELECT * FROM session_admin.attach_application('jura', 'jira');
SELECT * FROM session_admin.attach_application(NULL);
SELECT * FROM session_admin.attach_application('jira', 'nowhere');
SELECT * FROM session_admin.attach_application('jira', 'pg_catalog');
SELECT * FROM session_admin.attach_application('jira', 'session_admin');
SELECT * FROM session_admin.attach_application('jira', 'public');
SELECT * FROM session_admin.detach_application('jira', 'jira');

-- it tells what it found, and what it cannot tell
SELECT * FROM session_admin.attach_application('jira', 'jira');

-- who is there already has an account, with what Jira knows of the logins
SELECT user_name, login_count, last_login_at, previous_login_at, total_failed_count
FROM session_admin.last_login WHERE application = 'jira' ORDER BY user_name;
SELECT count(*) AS events FROM session_admin.login_history WHERE application = 'jira';

--
-- Each event alone: what follows of some statements is shown, and all of it
-- rolled back.  Before, each of alice and bob has two sessions and a remember-me
-- row of Jira's.
--
CREATE FUNCTION pg_temp.follows(statements text,
    OUT feed text, OUT history text, OUT alice text, OUT bob text, OUT tokens text, OUT events text)
LANGUAGE plpgsql AS $$
DECLARE
    last_id bigint := coalesce(max(id), 0) FROM session_admin_internal.invalidation;
BEGIN
    PERFORM session_admin.open_session(u || ' ' || n, u)
    FROM unnest('{alice,bob}'::text[]) u, generate_series(1, 2) n;
    INSERT INTO jira.remembermetoken (id, created, token, username) VALUES
        (1, '2026-01-01', 'secret of alice', 'alice'), (2, '2026-01-01', 'secret of bob', 'JIRAUSER2');
    DELETE FROM session_admin_internal.login_event;
    EXECUTE statements;
    SELECT string_agg(concat_ws(' ', scope, coalesce(user_name, '-'), reason, 'by ' || actor,
                                CASE WHEN scope <> 'all' THEN sessions_ended END,
                                CASE WHEN scope <> 'all' THEN tokens_revoked END), E'\n' ORDER BY id)
    INTO feed FROM session_admin_internal.invalidation WHERE id > last_id;
    SELECT string_agg(concat_ws(' ', user_name, end_reason, 'by ' || actor), E'\n'
                      ORDER BY user_name COLLATE "C", end_reason)
    INTO history FROM session_admin_internal.ended_session WHERE application = 'jira';
    SELECT string_agg(session_admin.touch_session('alice ' || n)::text, ' ' ORDER BY n),
           string_agg(session_admin.touch_session('bob ' || n)::text, ' ' ORDER BY n)
    INTO alice, bob FROM generate_series(1, 2) n;
    SELECT string_agg(username, ' ' ORDER BY id) INTO tokens FROM jira.remembermetoken;
    SELECT string_agg(concat_ws(' ', user_name, event, detail), E'\n' ORDER BY event, user_name, detail)
    INTO events FROM session_admin_internal.login_event WHERE application = 'jira';
    RAISE EXCEPTION 'all back' USING ERRCODE = 'RB000';
EXCEPTION WHEN SQLSTATE 'RB000' THEN
END $$;

\pset null -
SET session_admin.actor = 'admin';

CREATE TEMP TABLE happens (n serial, what text, statements text);
INSERT INTO happens (what, statements) VALUES
-- passwords
('admin changes a password',
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 10$$),
('... in the second directory',
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE id = 11$$),
('... in both: once',
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE lower_user_name = 'alice'$$),
('... of everybody',
 $$UPDATE jira.cwd_user SET credential = 'new'$$),
('... to nothing',
 $$UPDATE jira.cwd_user SET credential = NULL WHERE id = 20$$),
('user changes the own',
 $$SET LOCAL session_admin.current_session = 'alice 2'; SET LOCAL session_admin.actor = 'alice';
   UPDATE jira.cwd_user SET credential = 'new' WHERE id = 10$$),
('... named by its SHA-256',
 $$SELECT set_config('session_admin.current_session', encode(sha256('alice 1'), 'hex'), true);
   UPDATE jira.cwd_user SET credential = 'new' WHERE id = 10$$),
('... among others',
 $$SET LOCAL session_admin.current_session = 'alice 2';
   UPDATE jira.cwd_user SET credential = 'new'$$),
('... in a session of somebody else',
 $$SET LOCAL session_admin.current_session = 'bob 1';
   UPDATE jira.cwd_user SET credential = 'new' WHERE id = 10$$),
('nothing that matters changes',
 $$UPDATE jira.cwd_user SET updated_date = now(), first_name = 'x', credential = credential$$),
('nothing changes',
 $$UPDATE jira.cwd_user SET credential = 'new' WHERE false$$),
-- by other statements
('ON CONFLICT DO UPDATE',
 $$INSERT INTO jira.cwd_user (id, directory_id, user_name, lower_user_name, active, credential)
   VALUES (50, 1, 'eve', 'eve', 1, 'x'), (20, 1, 'Bob', 'bob', 1, 'new')
   ON CONFLICT (id) DO UPDATE SET credential = excluded.credential$$),
('MERGE that updates, deletes and inserts',
 $$MERGE INTO jira.cwd_user u USING (VALUES (10, 'new'), (11, 'gone'), (50, 'x')) v (id, credential)
   ON u.id = v.id
   WHEN MATCHED AND v.credential = 'gone' THEN DELETE
   WHEN MATCHED THEN UPDATE SET credential = v.credential
   WHEN NOT MATCHED THEN INSERT (id, directory_id, user_name, lower_user_name, active, credential)
       VALUES (50, 1, 'eve', 'eve', 1, 'x')$$),
('two updates in one statement',
 $$WITH a AS (UPDATE jira.cwd_user SET credential = 'new' WHERE id = 10 RETURNING id)
   UPDATE jira.cwd_user SET first_name = 'x' WHERE id = 20$$),
-- a directory that is synchronised writes everybody, of whom little has changed
('synchronised by UPDATE',
 $$UPDATE jira.cwd_user SET (active, credential, user_name) = (1, 'new', initcap(lower_user_name)) WHERE id = 20;
   UPDATE jira.cwd_user u SET (active, credential, updated_date) = (s.active, s.credential, now())
   FROM jira.cwd_user s WHERE s.id = u.id$$),
('synchronised by MERGE, from what was copied',
 $$CREATE TEMP TABLE staging (LIKE jira.cwd_user);
   INSERT INTO staging SELECT * FROM jira.cwd_user WHERE id <> 20;
   INSERT INTO staging (id, directory_id, user_name, lower_user_name, active)
   SELECT n, 2, 'user ' || n, 'user ' || n, 1 FROM generate_series(1001, 4000) n;
   UPDATE staging SET active = 0 WHERE id = 11;
   MERGE INTO jira.cwd_user u USING staging s ON u.id = s.id
   WHEN MATCHED THEN UPDATE SET active = s.active, updated_date = now()
   WHEN NOT MATCHED THEN INSERT (id, directory_id, user_name, lower_user_name, active)
        VALUES (s.id, s.directory_id, s.user_name, s.lower_user_name, s.active);
   DELETE FROM jira.cwd_user u WHERE NOT EXISTS (SELECT FROM staging s WHERE s.id = u.id);
   DO 'BEGIN ASSERT (SELECT count(*) > 3000 FROM session_admin_internal.account WHERE application = ''jira''); END'$$),
('12,000 users, deactivated at once',
 $$INSERT INTO jira.cwd_user (id, directory_id, user_name, lower_user_name, active)
   SELECT n, 2, 'user ' || n, 'user ' || n, 1 FROM generate_series(100001, 112000) n;
   UPDATE jira.cwd_user SET active = 0 WHERE id > 100000 OR id = 20;
   DO 'BEGIN ASSERT (SELECT count(*) = 12001 FROM session_admin_internal.invalidation
                     WHERE reason = ''user_deactivated'' AND application = ''jira''); END';
   DELETE FROM session_admin_internal.invalidation WHERE user_name LIKE 'user %'$$),
-- may the user come in?
('deactivated',
 $$UPDATE jira.cwd_user SET active = 0 WHERE id = 20$$),
('... and a new password',
 $$UPDATE jira.cwd_user SET active = 0, credential = 'new' WHERE id = 20$$),
('activated again',
 $$UPDATE jira.cwd_user SET active = 1 WHERE id = 30$$),
('deleted',
 $$DELETE FROM jira.cwd_user WHERE id = 20$$),
('... and the identity after it: once',
 $$DELETE FROM jira.cwd_user WHERE id = 20; DELETE FROM jira.app_user WHERE id = 2$$),
('... and the identity before it',
 $$DELETE FROM jira.app_user WHERE id = 2; DELETE FROM jira.cwd_user WHERE id = 20$$),
('deleted in one of two directories',
 $$DELETE FROM jira.cwd_user WHERE id = 11$$),
('all deleted by TRUNCATE',
 $$TRUNCATE jira.cwd_user, jira.app_user$$),
-- names
('renamed',
 $$UPDATE jira.app_user SET lower_user_name = 'robert' WHERE id = 2;
   UPDATE jira.cwd_user SET user_name = 'Robert', lower_user_name = 'robert' WHERE id = 20$$),
('... in the other order',
 $$UPDATE jira.cwd_user SET user_name = 'Robert', lower_user_name = 'robert' WHERE id = 20;
   UPDATE jira.app_user SET lower_user_name = 'robert' WHERE id = 2$$),
('... in one of two directories',
 $$UPDATE jira.cwd_user SET user_name = 'alicia', lower_user_name = 'alicia' WHERE id = 11$$),
('... by case only, of a name that the application does not use',
 $$UPDATE jira.cwd_user SET user_name = 'BOB' WHERE id = 20$$),
('... that it does use',
 $$SELECT session_admin.open_session('Bob 3', 'Bob');
   UPDATE jira.cwd_user SET user_name = 'BOB' WHERE id = 20$$),
('anonymized',
 $$UPDATE jira.app_user SET lower_user_name = 'jirauser10', user_key = 'JIRAUSER10' WHERE id = 1;
   UPDATE jira.cwd_user SET user_name = 'jirauser10', lower_user_name = 'jirauser10'
   WHERE lower_user_name = 'alice'$$),
('... in the other order',
 $$UPDATE jira.cwd_user SET user_name = 'jirauser10', lower_user_name = 'jirauser10'
   WHERE lower_user_name = 'alice';
   UPDATE jira.app_user SET lower_user_name = 'jirauser10', user_key = 'JIRAUSER10' WHERE id = 1$$),
('... the key first, and half way',
 $$UPDATE jira.app_user SET user_key = 'JIRAUSER10' WHERE id = 1;
   UPDATE jira.app_user SET lower_user_name = 'jirauser10' WHERE id = 1$$),
-- remember-me rows of Jira's
('remembered',
 $$INSERT INTO jira.remembermetoken (id, token, username) VALUES (3, 'another secret', 'alice')$$),
('... by an unknown key',
 $$INSERT INTO jira.remembermetoken (id, token, username) VALUES (3, 'another secret', 'nobody')$$),
('forgotten',
 $$DELETE FROM jira.remembermetoken WHERE id = 1$$),
('all forgotten by TRUNCATE',
 $$TRUNCATE jira.remembermetoken$$),
-- the extension's own calls empty them
('invalidate_user',
 $$SELECT session_admin.invalidate_user('alice')$$),
('... keep_remember_me',
 $$SELECT session_admin.invalidate_user('alice', keep_remember_me => true)$$),
('invalidate_application',
 $$SELECT session_admin.invalidate_application()$$),
('invalidate_all',
 $$SELECT session_admin.invalidate_all()$$);

\x on
SELECT h.what, f.* FROM happens h, LATERAL pg_temp.follows(h.statements) f ORDER BY h.n;
\x off

-- nothing of it is left
VACUUM session_admin_internal.account, session_admin_internal.account_key, session_admin_internal.invalidation;
SELECT count(*) FROM session_admin.session WHERE application = 'jira';
SELECT count(*) FROM session_admin_internal.invalidation WHERE application = 'jira';
SELECT user_name FROM session_admin_internal.account WHERE application = 'jira' ORDER BY user_name;

--
-- Logins, as Jira notes them: attributes that it updates, or deletes and inserts,
-- in any order.  Again each alone, and rolled back.  Times are seconds after
-- alice's last login.
--
CREATE FUNCTION pg_temp.follows_login(statements text,
    OUT events text, OUT login_count bigint, OUT last_login numeric, OUT previous_login numeric,
    OUT last_failed numeric, OUT current_failed bigint, OUT total_failed bigint)
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM session_admin_internal.login_event;
    EXECUTE statements;
    SELECT string_agg(format('%s %s +%s', user_name, event, round(extract(epoch FROM at) - 1700000000, 3)),
                      E'\n' ORDER BY at, event)
    INTO events FROM session_admin_internal.login_event WHERE application = 'jira';
    SELECT a.login_count, round(extract(epoch FROM a.last_login_at) - 1700000000),
           round(extract(epoch FROM a.previous_login_at) - 1700000000),
           round(extract(epoch FROM a.last_failed_login_at) - 1700000000),
           a.current_failed_count, a.total_failed_count
    INTO login_count, last_login, previous_login, last_failed, current_failed, total_failed
    FROM session_admin_internal.account a WHERE application = 'jira' AND user_name = 'alice';
    RAISE EXCEPTION 'all back' USING ERRCODE = 'RB000';
EXCEPTION WHEN SQLSTATE 'RB000' THEN
END $$;

CREATE FUNCTION pg_temp.attribute(attribute text, value bigint) RETURNS text
BEGIN ATOMIC
    SELECT format('UPDATE jira.cwd_user_attributes SET attribute_value = %L
                   WHERE user_id = 10 AND attribute_name = %L;', value, attribute);
END;

TRUNCATE happens;
INSERT INTO happens (what, statements) VALUES
('login: the time, then the count',
 pg_temp.attribute('login.previousLoginMillis', 1700000000000) ||
 pg_temp.attribute('login.lastLoginMillis', 1700000060250) || pg_temp.attribute('login.count', 8)),
('... the count first',
 pg_temp.attribute('login.count', 8) || pg_temp.attribute('login.lastLoginMillis', 1700000060250)),
('... deleted and inserted',
 $$DELETE FROM jira.cwd_user_attributes WHERE user_id = 10;
   INSERT INTO jira.cwd_user_attributes (id, user_id, attribute_name, attribute_value) VALUES
     (101, 10, 'login.currentFailedCount', '0'), (102, 10, 'login.lastLoginMillis', '1700000060250'),
     (103, 10, 'login.count', '8'), (104, 10, 'login.totalFailedCount', '3')$$),
('... twice',
 pg_temp.attribute('login.lastLoginMillis', 1700000060250) ||
 pg_temp.attribute('login.lastLoginMillis', 1700000120250)),
('the same written again: no login',
 $$DELETE FROM jira.cwd_user_attributes WHERE id = 1;
   INSERT INTO jira.cwd_user_attributes (id, user_id, attribute_name, attribute_value) VALUES
     (101, 10, 'login.lastLoginMillis', '1700000000000')$$),
('all attributes written, none changed',
 $$UPDATE jira.cwd_user_attributes SET attribute_value = attribute_value$$),
('failed login: the time only',
 $$INSERT INTO jira.cwd_user_attributes (id, user_id, attribute_name, attribute_value) VALUES
     (101, 10, 'login.lastFailedLoginMillis', '1700000030000')$$),
('... and the counts',
 $$INSERT INTO jira.cwd_user_attributes (id, user_id, attribute_name, attribute_value) VALUES
     (101, 10, 'login.lastFailedLoginMillis', '1700000030000');$$ ||
 pg_temp.attribute('login.currentFailedCount', 1) || pg_temp.attribute('login.totalFailedCount', 4)),
('in the other directory: the same user',
 $$INSERT INTO jira.cwd_user_attributes (id, user_id, attribute_name, attribute_value) VALUES
     (101, 11, 'login.lastLoginMillis', '1700000060250')$$),
('somebody of whom no count is written: counted here',
 $$INSERT INTO jira.cwd_user_attributes (id, user_id, attribute_name, attribute_value) VALUES
     (101, 20, 'login.lastLoginMillis', '1700000060250');
   UPDATE jira.cwd_user_attributes SET attribute_value = '1700000070250' WHERE id = 101;
   DO 'BEGIN ASSERT (SELECT login_count = 2 FROM session_admin_internal.account
                     WHERE application = ''jira'' AND user_name = ''bob''); END'$$),
('nonsense',
 pg_temp.attribute('login.lastLoginMillis', 9223372036854775807) ||
 pg_temp.attribute('login.count', -1) ||
 $$UPDATE jira.cwd_user_attributes SET attribute_value = 'yesterday' WHERE id = 2;
   UPDATE jira.cwd_user_attributes SET attribute_value = NULL WHERE id = 1;
   INSERT INTO jira.cwd_user_attributes (id, user_id, attribute_name, attribute_value) VALUES
     (101, NULL, 'login.lastLoginMillis', '1700000060250'),
     (102, 999, 'login.lastLoginMillis', '1700000060250'), (103, 10, NULL, '1')$$);

SELECT h.what, f.* FROM happens h, LATERAL pg_temp.follows_login(h.statements) f ORDER BY h.n;

--
-- New users have an account at once, by whatever statement they come
--
COPY jira.cwd_user (id, directory_id, user_name, lower_user_name, active, credential) FROM stdin;
40	1	Dave	dave	1	old
41	1	erin	erin	1	old
42	1	\N	\N	1	old
43	1			1	old
\.
SELECT user_name, login_count, last_login_at FROM session_admin.last_login
WHERE application = 'jira' AND user_name IN ('dave', 'erin', 'Dave', '') ORDER BY user_name;

-- a user who is known to the application by the name as it was typed is the same
SELECT session_admin.open_session('Dave 1', 'Dave') IS NOT NULL AS opened;
UPDATE jira.cwd_user SET credential = 'new' WHERE id = 40;
SELECT session_admin.touch_session('Dave 1');
SELECT scope, user_name, reason FROM session_admin_internal.invalidation
WHERE application = 'jira' ORDER BY user_name COLLATE "C";

-- an anonymized user leaves no name, not even as a key
BEGIN;
UPDATE jira.app_user SET lower_user_name = 'jirauser10', user_key = 'JIRAUSER10' WHERE id = 1;
UPDATE jira.cwd_user SET user_name = 'jirauser10', lower_user_name = 'jirauser10'
WHERE lower_user_name = 'alice';
SELECT part, key, user_name FROM session_admin_internal.account_key
WHERE 'alice' IN (key, user_name) OR user_name = 'jirauser10' ORDER BY part, key;
ROLLBACK;

-- users who swap names, or pass them on, stay who they are, by whichever table it comes first
SELECT count(session_admin.open_session(n || ' 1', n)) AS opened FROM unnest(ARRAY['bob', 'carol', 'dave']) AS n;
BEGIN;
-- (where no unique index is in the way)
DROP INDEX jira.uk_user_name_dir_id, jira.uk_lower_user_name;
CREATE TEMP VIEW who AS
SELECT coalesce(o.user_name, '-') AS was, count(*) AS logins, e.user_name AS is_now,
       (SELECT login_count FROM session_admin_internal.account a
        WHERE a.application = 'jira' AND a.user_name = e.user_name) AS login_count
FROM session_admin_internal.login_event e
JOIN (VALUES ('bob', 'bob 1'), ('carol', 'carol 1'), ('dave', 'dave 1')) AS o (user_name, id)
    ON e.session_ref = session_admin.session_ref(o.id)
WHERE e.application = 'jira' AND e.event = 'login' GROUP BY 1, 3 ORDER BY 1;
CREATE TEMP TABLE renaming (old_name text, new_name text);
INSERT INTO renaming VALUES ('bob', 'carol'), ('carol', 'dave'), ('dave', 'bob');
UPDATE session_admin_internal.account SET login_count = ascii(user_name)
WHERE application = 'jira' AND user_name IN ('bob', 'carol', 'dave');
SELECT * FROM who;
UPDATE jira.cwd_user SET user_name = new_name, lower_user_name = new_name FROM renaming
WHERE lower_user_name = old_name;
SELECT * FROM who;
UPDATE jira.app_user SET lower_user_name = new_name FROM renaming WHERE lower_user_name = old_name;
SELECT * FROM who;
SELECT part, key, user_name FROM session_admin_internal.account_key
WHERE user_name IN ('bob', 'carol', 'dave') OR user_name ~ '[[:cntrl:]]' ORDER BY part, key;
SELECT user_name FROM session_admin_internal.account WHERE application = 'jira' AND user_name ~ '[[:cntrl:]]';
SELECT session_admin.touch_sessions('{bob 1,carol 1,dave 1}') AS ended;
ROLLBACK;

--
-- What does not concern us, and what goes wrong, is not the product's failure
--

-- a column is renamed, and dropped
ALTER TABLE jira.cwd_user RENAME credential TO password;
UPDATE jira.cwd_user SET password = 'new' WHERE id = 20;
ALTER TABLE jira.cwd_user DROP COLUMN active;
UPDATE jira.cwd_user SET first_name = 'x' WHERE id = 20;
DELETE FROM jira.cwd_user WHERE id = 43;
ALTER TABLE jira.cwd_user ADD active numeric(9,0);
UPDATE jira.cwd_user SET active = 1;
ALTER TABLE jira.cwd_user RENAME password TO credential;
SELECT session_admin.open_session('bob 2', 'bob') IS NOT NULL AS opened;
UPDATE jira.cwd_user SET credential = 'newer' WHERE id = 20;
SELECT session_admin.touch_session('bob 2');
SELECT event, message, user_names FROM session_admin.capture_failures ORDER BY at;
SELECT session_admin.acknowledge_failures();

-- our own tables do not take it: whom it may concern is logged out
CREATE FUNCTION pg_temp.failures(OUT failure text, OUT ended text)
BEGIN ATOMIC
    SELECT (SELECT concat_ws(' ', application, relation, event, message, coalesce(user_names::text, 'everybody'))
            FROM session_admin_internal.capture_failure ORDER BY at DESC LIMIT 1),
           (SELECT concat_ws(' ', scope, user_name, reason)
            FROM session_admin_internal.invalidation WHERE application = 'jira' ORDER BY id DESC LIMIT 1);
END;
BEGIN;
ALTER TABLE session_admin_internal.invalidation ADD CONSTRAINT "no passwords" CHECK (reason <> 'password_changed') NOT VALID;
UPDATE jira.cwd_user SET credential = 'newest' WHERE id = 20;
SELECT * FROM pg_temp.failures();
SELECT credential FROM jira.cwd_user WHERE id = 20;
ROLLBACK;
BEGIN;
ALTER TABLE session_admin_internal.account_key ADD CONSTRAINT "no number 666" CHECK (key <> '666');
INSERT INTO jira.cwd_user (id, user_name, lower_user_name) VALUES (666, 'fred', 'fred');
SELECT failure FROM pg_temp.failures();
SELECT count(*) FROM jira.cwd_user WHERE id = 666;
ROLLBACK;
-- the trigger is nobody else's
CREATE TRIGGER mine AFTER UPDATE ON jira.app_user EXECUTE FUNCTION session_admin.capture();
UPDATE jira.app_user SET user_key = user_key;
DROP TRIGGER mine ON jira.app_user;

--
-- Tables of a product are not ours: their triggers run as their owner
--
CREATE ROLE regress_jira;
GRANT ALL ON SCHEMA jira TO regress_jira;
ALTER TABLE jira.remembermetoken OWNER TO regress_jira;
CREATE TABLE jira.deleted_by (who text, found text);
ALTER TABLE jira.deleted_by OWNER TO regress_jira;
CREATE FUNCTION jira.note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- it finds its own tables, as ever
    INSERT INTO deleted_by VALUES (current_user, old.username);
    RETURN NULL;
END $$;
CREATE TRIGGER note_deletion AFTER DELETE ON jira.remembermetoken
    FOR EACH ROW EXECUTE FUNCTION jira.note_deletion();
INSERT INTO jira.remembermetoken (id, token, username) VALUES (4, 'secret of erin', 'erin');
INSERT INTO jira.app_user (id, user_key, lower_user_name) VALUES (5, 'erin', 'erin');
SELECT tokens_revoked FROM session_admin.invalidate_user('erin');
SELECT * FROM jira.deleted_by;

-- a role that may change the product's tables needs nothing of ours
GRANT SELECT, UPDATE ON jira.cwd_user TO regress_jira;
SET ROLE regress_jira;
UPDATE jira.cwd_user SET credential = 'newest' WHERE id = 41;
RESET ROLE;
SELECT scope, user_name, reason, invalidated_by = session_user AS "by the session's user"
FROM session_admin_internal.invalidation WHERE application = 'jira' ORDER BY id DESC LIMIT 1;

--
-- Attached again, detached, attached by columns that are left
--
SELECT part, object, state FROM session_admin.attach_application('jira', 'jira')
WHERE note LIKE '%rows read';
SELECT count(*) AS triggers FROM pg_trigger
WHERE tgfoid = 'session_admin.capture'::regproc AND tgrelid::regclass::text LIKE 'jira.%';

SELECT * FROM session_admin.detach_application('jira', 'elsewhere');
SELECT * FROM session_admin.detach_application('jira', 'jira');
SELECT count(*) AS triggers FROM pg_trigger WHERE tgname LIKE 'session_admin%';
SELECT count(*) AS attachments FROM session_admin_internal.attachment;
SELECT count(*) AS keys FROM session_admin_internal.account_key WHERE application = 'jira';
UPDATE jira.cwd_user SET credential = 'unseen';
SELECT tokens_revoked FROM session_admin.invalidate_user('erin');

-- without columns: said, not passed over
CREATE DOMAIN jira.flag AS numeric(9,0);
ALTER TABLE jira.cwd_user DROP COLUMN credential, ALTER active TYPE jira.flag;
ALTER TABLE jira.app_user RENAME TO app_users;
DROP TABLE jira.cwd_user_attributes;
CREATE VIEW jira.cwd_user_attributes AS SELECT 1 AS user_id, '' AS attribute_name, '' AS attribute_value;
SELECT * FROM session_admin.attach_application('jira', 'jira', application => 'other');
SELECT part, state FROM session_admin.detach_application(application => 'other');

-- partitions would change unseen
ALTER TABLE jira.cwd_user RENAME TO cwd_user_1;
CREATE TABLE jira.cwd_user (LIKE jira.cwd_user_1) PARTITION BY LIST (directory_id);
\set VERBOSITY default
SELECT * FROM session_admin.attach_application('jira', 'jira');
\set VERBOSITY terse

SET client_min_messages = error;
DROP SCHEMA jira CASCADE;
DROP ROLE regress_jira;
