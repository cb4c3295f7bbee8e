--
-- Ended ids: what has ended here stays ended, whoever writes its id again.
--
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET session_admin.application = 'ids';
SET client_min_messages = warning;

CREATE SCHEMA ids;
CREATE TABLE ids.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL);
CREATE TABLE ids.users (id int PRIMARY KEY, email text, password text);
SELECT session_admin.describe_product('ids users',
    '{"account": {"tables": "users", "columns": {"user_name": "email", "credential": "password"}}}');
SELECT count(*) FROM session_admin.attach_application('connect_pg_simple', 'ids');
SELECT count(*) FROM session_admin.attach_application('ids users', 'ids');

-- as connect-pg-simple saves a session, and a store that looks first
CREATE FUNCTION ids.save(sid text, name text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO ids.session (sess, expire, sid)
    VALUES (CASE WHEN name IS NULL THEN '{}' ELSE json_build_object('passport', json_build_object('user', name)) END,
            now() + interval '1 day', sid)
    ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire
$$;
CREATE FUNCTION ids.look_and_save(sid text, name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM ids.session s WHERE s.sid = look_and_save.sid) THEN
        UPDATE ids.session s SET sess = json_build_object('passport', json_build_object('user', name))
        WHERE s.sid = look_and_save.sid;
    ELSE
        INSERT INTO ids.session VALUES (sid, json_build_object('passport', json_build_object('user', name)),
                                        now() + interval '1 day');
    END IF;
END $$;
INSERT INTO ids.users SELECT n, 'user' || n, 'old' FROM generate_series(1, 20) AS n;

-- A login, an end, and a request that was under way and saves: is it back?
CREATE FUNCTION ids.try(n int, ending text,
    OUT ended text, OUT is_back boolean, OUT product_rows bigint, OUT logins bigint, OUT reason text, OUT refused bigint)
LANGUAGE plpgsql AS $$
DECLARE
    id text := 'id ' || n;
    name text := 'user' || n;
BEGIN
    PERFORM ids.save(id, name);
    IF NOT session_admin.touch_session(id) THEN
        RAISE 'no session';
    END IF;
    EXECUTE replace(replace(replace(ending, '{id}', id), '{name}', name), '{n}', n::text);
    ended := NOT session_admin.touch_session(id);
    PERFORM ids.save(id, name), ids.look_and_save(id, name);
    is_back := session_admin.touch_session(id);
    SELECT count(*) INTO product_rows FROM ids.session s WHERE s.sid = id;
    SELECT count(*) INTO logins FROM session_admin_internal.login_event e
    WHERE e.application = 'ids' AND e.user_name = name AND e.event = 'login';
    SELECT min(h.end_reason) INTO reason FROM session_admin.session_history h
    WHERE h.application = 'ids' AND h.user_name = name;
    SELECT sum(e.refused) INTO refused FROM session_admin_internal.ended_id e
    WHERE e.session_hash = sha256(id::bytea);
END $$;

SELECT t.what, r.* FROM (VALUES
    (1, 'invalidate_user', $$SELECT session_admin.invalidate_user('{name}')$$),
    (2, 'invalidate_session', $$SELECT session_admin.invalidate_session(session_admin.session_ref('{id}'))$$),
    (3, 'invalidate_sessions', $$SELECT session_admin.invalidate_sessions('{name}')$$),
    (4, 'close_session', $$SELECT session_admin.close_session('{id}')$$),
    (5, 'a new password', $$UPDATE ids.users SET password = 'new' WHERE id = {n}$$),
    (6, 'a user who goes', $$DELETE FROM ids.users WHERE id = {n}$$),
    (7, 'a DBA', $$DELETE FROM session_admin.session WHERE user_name = '{name}'$$),
    (8, 'invalidate_application', $$SELECT session_admin.invalidate_application()$$),
    (9, 'invalidate_all', $$SELECT session_admin.invalidate_all()$$),
    (10, '... and archived', $$SELECT session_admin.invalidate_application(), session_admin.maintain()$$),
    (11, 'rename_user', $$SELECT session_admin.rename_user('{name}', 'renamed')$$),
    -- these end by the product, which may use the id again
    (12, 'a logout by the product', $$DELETE FROM ids.session WHERE sid = '{id}'$$),
    (13, '... which takes the user out', $$UPDATE ids.session SET sess = '{}' WHERE sid = '{id}'$$),
    (14, '... which truncates', $$TRUNCATE ids.session$$),
    (15, 'its time is up', $$UPDATE session_admin.session SET idle_timeout = '1 microsecond' WHERE user_name = '{name}'$$)
) AS t (n, what, ending), LATERAL ids.try(t.n, t.ending) r ORDER BY t.n;

-- an anonymous session; one that is renewed; the id of another
SELECT ids.save('anonymous', NULL);
SELECT sessions_ended FROM session_admin.invalidate_sessions(anonymous => true);
SELECT ids.save('anonymous', NULL), ids.save('anonymous', 'user1');
SELECT count(*) FROM ids.session WHERE sid = 'anonymous';
SELECT ids.save('old', 'user1');
UPDATE ids.session SET sid = 'new' WHERE sid = 'old';
SELECT session_admin.touch_session('old'), session_admin.touch_session('new');
SELECT ids.save('old', 'user1');
SELECT session_admin.touch_session('old'), session_admin.touch_session('new'), (SELECT count(*) FROM ids.session WHERE sid = 'old');
UPDATE ids.session SET sid = 'anonymous' WHERE sid = 'new';
SELECT session_admin.touch_session('anonymous'), session_admin.touch_session('new'),
    (SELECT count(*) FROM ids.session WHERE sid IN ('new', 'anonymous'));

-- rolled back, nothing has ended
SELECT ids.save('kept', 'user16');
BEGIN;
SELECT sessions_ended FROM session_admin.invalidate_user('user16');
SAVEPOINT s;
SELECT ids.save('kept', 'user16');
SELECT session_admin.touch_session('kept');
ROLLBACK;
SELECT ids.save('kept', 'user16');
SELECT session_admin.touch_session('kept');

-- many in one statement, some of which have ended
INSERT INTO ids.session SELECT 'many ' || n, '{"passport": {"user": "user17"}}', now() + interval '1 day'
FROM generate_series(1, 50) AS n;
SELECT sessions_ended FROM session_admin.invalidate_user('user17');
INSERT INTO ids.session SELECT 'many ' || n, '{"passport": {"user": "user17"}}', now() + interval '1 day'
FROM generate_series(41, 60) AS n;
SELECT count(*), min(sid), max(sid) FROM ids.session WHERE sid LIKE 'many %';
SELECT count(*) FROM session_admin.current_sessions WHERE user_name = 'user17';

-- with other rows of the same table as another application's
SELECT count(*) FROM session_admin.attach_application('connect_pg_simple', 'ids', application => 'ids too');
SELECT ids.save('two', 'user18');
SELECT application, session_admin.touch_session('two', application) FROM (VALUES ('ids'), ('ids too')) AS a (application);
SELECT sessions_ended FROM session_admin.invalidate_user('user18', application => 'ids too');
SELECT ids.save('two', 'user18');
SELECT session_admin.touch_session('two', 'ids too'), (SELECT count(*) FROM ids.session WHERE sid = 'two');
SELECT part FROM session_admin.detach_application(application => 'ids too');

-- a row that the product does not let us delete logs nobody in, and is no error
CREATE FUNCTION ids.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not yours''; END';
SELECT ids.save('stays', 'user19');
SELECT sessions_ended FROM session_admin.invalidate_user('user19');
CREATE TRIGGER refuse BEFORE DELETE ON ids.session FOR EACH ROW EXECUTE FUNCTION ids.refuse();
SELECT ids.save('stays', 'user19');
SELECT ids.save('stays', 'user19');
SELECT session_admin.touch_session('stays'), (SELECT count(*) FROM ids.session WHERE sid = 'stays');
SELECT value, status FROM session_admin.health WHERE name = 'products'' rows that remain';
-- not under a new id either
UPDATE ids.session SET sid = 'goes on' WHERE sid = 'stays';
SELECT session_admin.touch_session('goes on');
DROP TRIGGER refuse ON ids.session;
SELECT ids.save('stays', 'user19');
SELECT count(*) FROM ids.session WHERE sid = 'stays';

-- it shows as a count
SELECT name, value > '0' AS any, status FROM session_admin.health WHERE name = 'ended sessions written again';

--
-- Of our own
--
SET session_admin.application = 'own';
SELECT session_admin.open_session('a', 'alice') IS NOT NULL;
SELECT session_admin.close_session('a');
SELECT session_admin.open_session('a', 'alice');
SELECT session_admin.open_session(sha256('a'), 'bob');
SELECT session_admin.open_session('a');
\echo :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE
\set VERBOSITY default
SELECT session_admin.open_session('a', 'alice');
\set VERBOSITY terse
SELECT login_count FROM session_admin.last_login WHERE application = 'own' AND user_name = 'alice';
-- elsewhere it is another session
SELECT session_admin.open_session('a', 'alice', application => 'own too') IS NOT NULL;
-- with everybody else
SELECT session_admin.open_session('b', 'alice') IS NOT NULL;
SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT session_admin.open_session('b', 'alice');
SELECT count(*) > 0 FROM session_admin.maintain();
SELECT session_admin.open_session('b', 'alice');
-- renewed: neither may the old one be used, nor one that has ended be the new one
SELECT session_admin.open_session('c', 'alice') IS NOT NULL;
SELECT session_admin.renew_session('c', 'a');
SELECT session_admin.renew_session('c', 'd') IS NOT NULL;
SELECT session_admin.open_session('c', 'alice');
SELECT session_admin.renew_session('d', 'c');
-- an id that is in use, or whose time was up, may be used again
SELECT session_admin.open_session('d', 'bob') IS NOT NULL;
SELECT session_admin.touch_session('d');
UPDATE session_admin.session SET created_at = now() - interval '2 days' WHERE session_hash = sha256('d');
SELECT session_admin.touch_session('d');
SELECT session_admin.open_session('d', 'bob') IS NOT NULL;
-- for as long as the session could have lived
SELECT session_admin.set_policy('absolute_timeout', '10 days', user_name => 'carol');
SELECT session_admin.open_session('e', 'carol') IS NOT NULL, session_admin.open_session('f', 'bob') IS NOT NULL,
    session_admin.open_session('g') IS NOT NULL;
SELECT sessions_ended FROM session_admin.invalidate_sessions(opened_before => 'tomorrow');
SELECT i.id, round(extract(epoch FROM e.until - now()) / 3600) AS hours
FROM (VALUES ('e'), ('f'), ('g')) AS i (id) JOIN session_admin_internal.ended_id e ON e.session_hash = sha256(i.id::bytea) ORDER BY i.id;
UPDATE session_admin_internal.ended_id SET until = now() WHERE session_hash IN (sha256('e'), sha256('f'));
SELECT session_admin.open_session('e', 'carol') IS NOT NULL;
SELECT done FROM session_admin.maintain() WHERE task = 'ended ids forgotten';

SET client_min_messages = error;
SELECT count(*) FROM session_admin.detach_application(application => 'ids');
SELECT session_admin.forget_product('ids users');
DELETE FROM session_admin_internal.ended_id;
DELETE FROM session_admin_internal.capture_failure;
DROP SCHEMA ids CASCADE;
