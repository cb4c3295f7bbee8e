--
-- Sessions in a product's own table: each event, seen from the product and from
-- session_admin.  Each product is in a schema and an application of its name.
--
\set VERBOSITY terse
\set SHOW_CONTEXT never
\getenv testdir PG_ABS_SRCDIR
SET TimeZone = 'UTC';
SET session_admin.actor = 'admin';

-- the tables, without a word
\set ECHO none
\set file :testdir '/products/spring_session.sql'
CREATE SCHEMA spring_session;
SET search_path = spring_session;
\i :file
\set file :testdir '/products/connect_pg_simple.sql'
CREATE SCHEMA connect_pg_simple;
SET search_path = connect_pg_simple;
\i :file
-- one of its clones
CREATE SCHEMA clone;
SET search_path = clone;
\i :file
ALTER TABLE session RENAME TO user_sessions;
ALTER TABLE user_sessions ALTER sess TYPE jsonb, ALTER expire TYPE timestamptz;
\set file :testdir '/products/crowd.sql'
CREATE SCHEMA crowd;
SET search_path = crowd;
\i :file
\set file :testdir '/products/django.sql'
CREATE SCHEMA framework;
SET search_path = framework;
\i :file
\set file :testdir '/products/rails.sql'
\i :file
RESET search_path;
\set ECHO all

-- an application that keeps the key of its user in the session
CREATE SCHEMA boutique;
CREATE TABLE boutique.customer (id int PRIMARY KEY, mail text NOT NULL, password text);
CREATE TABLE boutique.basket (token text, content text, customer_id int);
INSERT INTO session_admin_internal.product (product, title) VALUES ('boutique', 'A boutique');
INSERT INTO session_admin_internal.product_part (product, part, relations, key_of, required) VALUES
('boutique', 'account', '{customer}', NULL, true),
('boutique', 'session', '{basket}', 'account', true);
INSERT INTO session_admin_internal.product_column (product, part, role, columns, required) VALUES
('boutique', 'account', 'key', '{id}', true),
('boutique', 'account', 'user_name', '{mail}', true),
('boutique', 'account', 'credential', '{password}', true),
('boutique', 'session', 'secret', '{token}', true),
('boutique', 'session', 'user_key', '{customer_id}', true);
INSERT INTO boutique.customer VALUES (1, 'alice', 'old'), (2, 'bob', 'old'), (3, 'carol', 'old');

-- Of each product: alice and bob log in, and so on; "own" is its table of sessions.
-- The session ids are alice-1, bob-1, and so on.
CREATE TEMP TABLE product (product text, schema text, own text, id text,
    there text, visit text, request text, login text, other text, leave text, second text, expire text);
CREATE FUNCTION pg_temp.ms(after interval DEFAULT '0') RETURNS bigint
LANGUAGE sql RETURN 1000 * extract(epoch FROM clock_timestamp() + after);

INSERT INTO product VALUES
('spring_session', 'spring_session', 'spring_session', 'session_id',
 $$INSERT INTO spring_session SELECT 'p-' || u, u || '-1', pg_temp.ms(), pg_temp.ms(), 1800, pg_temp.ms('30 minutes'), u
   FROM unnest('{alice,bob}'::text[]) AS u$$,
 $$INSERT INTO spring_session VALUES ('p-nobody', 'nobody-1', pg_temp.ms(), pg_temp.ms(), 1800, pg_temp.ms('30 minutes'), NULL)$$,
 $$UPDATE spring_session SET last_access_time = pg_temp.ms(), expiry_time = pg_temp.ms('30 minutes') WHERE session_id = 'alice-1'$$,
 $$UPDATE spring_session SET session_id = 'carol-1', principal_name = 'carol' WHERE session_id = 'nobody-1'$$,
 $$UPDATE spring_session SET principal_name = 'carol' WHERE session_id = 'alice-1'$$,
 $$UPDATE spring_session SET principal_name = NULL WHERE session_id = 'alice-1'$$,
 $$INSERT INTO spring_session VALUES ('p-2', 'alice-2', pg_temp.ms(), pg_temp.ms(), 1800, pg_temp.ms('30 minutes'), 'alice')$$,
 $$expiry_time = pg_temp.ms('-1 minute')$$),
('connect_pg_simple', 'connect_pg_simple', 'session', 'sid',
 $$INSERT INTO session SELECT u || '-1', json_build_object('passport', json_build_object('user', u)), now() + '1 day'
   FROM unnest('{alice,bob}'::text[]) AS u$$,
 $$INSERT INTO session VALUES ('nobody-1', '{"cookie": {}}', now() + '1 day')$$,
 $$UPDATE session SET sess = sess, expire = now() + '23:59:59' WHERE sid = 'alice-1'$$,
 $$UPDATE session SET sess = '{"cookie": {}, "passport": {"user": "carol"}}' WHERE sid = 'nobody-1'$$,
 $$UPDATE session SET sess = '{"passport": {"user": "carol"}}' WHERE sid = 'alice-1'$$,
 $$UPDATE session SET sess = '{"passport": {}}' WHERE sid = 'alice-1'$$,
 $$INSERT INTO session VALUES ('alice-2', '{"passport": {"user": "alice"}}', now() + '1 day')$$,
 $$expire = now() - interval '1 minute'$$),
('clone', 'clone', 'user_sessions', 'sid',
 $$INSERT INTO user_sessions SELECT u || '-1', jsonb_build_object('passport', jsonb_build_object('user', u)), now() + '1 day'
   FROM unnest('{alice,bob}'::text[]) AS u$$,
 $$INSERT INTO user_sessions VALUES ('nobody-1', '{"cookie": {}}', now() + '1 day')$$,
 $$UPDATE user_sessions SET sess = jsonb_set(sess, '{n}', '1'), expire = now() + '23:59:59' WHERE sid = 'alice-1'$$,
 $$UPDATE user_sessions SET sess = '{"passport": {"user": "carol"}}' WHERE sid = 'nobody-1'$$,
 $$UPDATE user_sessions SET sess = '{"passport": {"user": "carol"}}' WHERE sid = 'alice-1'$$,
 $$UPDATE user_sessions SET sess = '{}' WHERE sid = 'alice-1'$$,
 $$INSERT INTO user_sessions VALUES ('alice-2', '{"passport": {"user": "alice"}}', now() + '1 day')$$,
 $$expire = now() - interval '1 minute'$$),
('crowd', 'crowd', 'cwd_token', 'random_hash',
 $$INSERT INTO cwd_token SELECT n, 1, initcap(u), 1, u, u || '-1', now(), now(), pg_temp.ms(), NULL
   FROM unnest('{alice,bob}'::text[]) WITH ORDINALITY AS u (u, n);
   INSERT INTO cwd_token VALUES (7, -1, 'an application', 1, 'a', 'application-1', now(), now(), pg_temp.ms(), NULL)$$,
 NULL,
 $$UPDATE cwd_token SET last_accessed_time = pg_temp.ms('1 second') WHERE id = 1$$,
 NULL, NULL, NULL,
 $$INSERT INTO cwd_token VALUES (3, 1, 'Alice', 1, '2', 'alice-2', now(), now(), pg_temp.ms(), NULL)$$,
 NULL),
('boutique', 'boutique', 'basket', 'token',
 $$INSERT INTO basket VALUES ('alice-1', '', 1), ('bob-1', '', 2)$$,
 $$INSERT INTO basket VALUES ('nobody-1', '')$$,
 $$UPDATE basket SET content = 'shoes' WHERE token = 'alice-1'$$,
 $$UPDATE basket SET customer_id = 3 WHERE token = 'nobody-1'$$,
 $$UPDATE basket SET customer_id = 3 WHERE token = 'alice-1'$$,
 $$UPDATE basket SET customer_id = NULL WHERE token = 'alice-1'$$,
 $$INSERT INTO basket VALUES ('alice-2', '', 1)$$,
 NULL);

SELECT p.product, a.part, a.object, a.state, a.note
FROM product p,
     session_admin.attach_application(replace(p.product, 'clone', 'connect_pg_simple'), p.schema, p.product) a
WHERE a.part IN ('session', 'product')
ORDER BY p.product, a.part, a.object, a.note;

-- Run some statements, show what follows, and roll all of it back.  Before, alice and
-- bob have logged in.
CREATE FUNCTION pg_temp.follows(of_product text, statements text,
    OUT feed text, OUT valid text, OUT own text, OUT ended text, OUT events text, OUT alice text)
LANGUAGE plpgsql AS $$
DECLARE
    p pg_temp.product;
    last_id bigint;
BEGIN
    SELECT * INTO p FROM pg_temp.product WHERE product = of_product;
    PERFORM set_config('session_admin.application', of_product, true),
            set_config('search_path', p.schema, true);
    EXECUTE p.there;
    SELECT max(id) INTO last_id FROM session_admin_internal.invalidation;
    EXECUTE statements;
    SELECT string_agg(concat_ws(' ', i.scope, i.user_name, i.reason, CASE WHEN i.scope <> 'all' THEN i.sessions_ended END),
                      ', ' ORDER BY i.user_name, i.id)
    INTO feed FROM session_admin_internal.invalidation i WHERE i.id > coalesce(last_id, 0);
    SELECT string_agg(s, ' ') INTO valid
    FROM unnest('{alice-1,alice-2,bob-1,carol-1,nobody-1}'::text[]) s WHERE session_admin.touch_session(s);
    EXECUTE format('SELECT string_agg(%I, '' '' ORDER BY %1$I COLLATE "C") FROM %I', p.id, p.own) INTO own;
    SELECT string_agg(concat_ws(' ', coalesce(e.user_name, 'nobody'), e.end_reason, e.actor, e.requests),
                      ', ' ORDER BY e.user_name, e.ended_at)
    INTO ended FROM session_admin_internal.ended_session e WHERE e.application = of_product;
    SELECT string_agg(concat_ws(' ', e.user_name, e.event), ', ' ORDER BY e.user_name, e.at)
    INTO events FROM session_admin_internal.login_event e WHERE e.application = of_product;
    SELECT concat_ws(' ', 'logins', a.login_count, 'requests', s.requests) INTO alice
    FROM session_admin_internal.account a
    LEFT JOIN session_admin.current_sessions s USING (application, user_name)
    WHERE a.application = of_product AND a.user_name = 'alice' LIMIT 1;
    RAISE EXCEPTION 'all back' USING ERRCODE = 'RB000';
EXCEPTION WHEN SQLSTATE 'RB000' THEN
END $$;

-- What happens; {own} and the like are of the product
CREATE TEMP TABLE happens (n serial, what text, statements text);
CREATE FUNCTION pg_temp.filled(statements text, of_product pg_temp.product) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    word record;
BEGIN
    FOR word IN SELECT '{' || key || '}' AS name, value FROM jsonb_each_text(to_jsonb(of_product)) LOOP
        IF strpos(statements, word.name) > 0 THEN
            statements := replace(statements, word.name, word.value);
        END IF;
    END LOOP;
    RETURN statements;
END $$;

-- Run statements and roll them back.
CREATE FUNCTION pg_temp.rolled_back(statements text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statements;
    RAISE EXCEPTION 'back' USING ERRCODE = 'RB001';
EXCEPTION WHEN SQLSTATE 'RB001' THEN
END $$;
-- Run statements that a limit refuses.
CREATE FUNCTION pg_temp.refused(statements text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statements;
    RAISE EXCEPTION 'not refused';
EXCEPTION WHEN SQLSTATE 'PT409' THEN
END $$;

-- by the product itself
INSERT INTO happens (what, statements) VALUES
('nothing more', $$SELECT$$),
('a request', $$ {request} $$),
('three requests', $$ {request}; {request}; {request} $$),
('a visitor', $$ {visit} $$),
('a visitor logs in', $$ {visit}; {login} $$),
('another user in the same session', $$ {other} $$),
('no user any more in the same session', $$ {leave} $$),
('another id for the same session', $$ UPDATE {own} SET {id} = 'alice-2' WHERE {id} = 'alice-1' $$),
('logout', $$ DELETE FROM {own} WHERE {id} = 'alice-1' $$),
('logout, rolled back',
 $$ SELECT pg_temp.rolled_back('DELETE FROM {own}') $$),
('deleted and inserted', $$ DELETE FROM {own}; {there} $$),
('made to expire', $$ UPDATE {own} SET {expire} WHERE {id} = 'alice-1' $$),
('deleted after it expired',
 $$ ALTER TABLE {own} DISABLE TRIGGER USER; UPDATE {own} SET {expire}; ALTER TABLE {own} ENABLE TRIGGER USER;
    DELETE FROM {own} WHERE {id} = 'alice-1' $$),
('TRUNCATE', $$ TRUNCATE {own} CASCADE $$),
('password changed', $$ UPDATE boutique.customer SET password = 'new' WHERE mail = 'alice' AND '{product}' = 'boutique' $$);
-- by us
INSERT INTO happens (what, statements) VALUES
('invalidate_session', $$ SELECT session_admin.invalidate_session(session_admin.session_ref('alice-1')) $$),
('invalidate_session, rolled back',
 $$ SELECT pg_temp.rolled_back($x$ SELECT session_admin.invalidate_session(session_admin.session_ref('alice-1')) $x$) $$),
('invalidate_user', $$ {second}; SELECT session_admin.invalidate_user('alice') $$),
('invalidate_user, but for one', $$ {second}; SELECT session_admin.invalidate_user('alice', keep_session => 'alice-1') $$),
('invalidate_sessions', $$ {second}; SELECT session_admin.invalidate_sessions(user_name => 'alice') $$),
('invalidate_application', $$ SELECT session_admin.invalidate_application() $$),
('invalidate_all', $$ SELECT session_admin.invalidate_all() $$),
('close_session', $$ SELECT session_admin.close_session('alice-1') $$),
('DELETE FROM session', $$ DELETE FROM session_admin.session WHERE user_name = 'alice' AND application = '{product}' $$),
('erase_user', $$ SELECT session_admin.erase_user('alice') $$),
('idle for too long, and maintain',
 $$ UPDATE session_admin.session SET last_access_at = last_access_at - interval '2 days' WHERE application = '{product}';
    SELECT session_admin.maintain() $$),
('our own time limits are not the product''s',
 $$ SELECT session_admin.set_policy('idle_timeout', '1 minute'), session_admin.set_policy('absolute_timeout', '1 minute');
    UPDATE session_admin.session SET last_access_at = last_access_at - interval '10 minutes',
        created_at = created_at - interval '1 day' WHERE application = '{product}';
    SELECT session_admin.maintain() $$),
('one session more than the limit, and the oldest goes',
 $$ SELECT session_admin.set_policy('max_sessions_per_user', '1'),
           session_admin.set_policy('on_session_limit', 'evict_oldest'); {second} $$),
('a login that the application tells of itself',
 $$ SELECT session_admin.set_policy('captured_logins', 'ignore'); {second} $$),
('the first login after a restore from a dump',
 $$ UPDATE session_admin.application SET home = 'elsewhere' WHERE name = '{product}'; {second} $$),
('a login that the limit refuses',
 $$ SELECT session_admin.set_policy('max_sessions_per_user', '1');
    SELECT pg_temp.refused($x$ {second} $x$) $$);

\x on
\pset null -
SELECT p.product, h.what, f.*
FROM product p CROSS JOIN happens h
CROSS JOIN LATERAL pg_temp.filled(h.statements, p) s
CROSS JOIN LATERAL pg_temp.follows(p.product, s) f
WHERE s IS NOT NULL
ORDER BY p.product, h.n;
\x off

-- Crowd tells of a login in an attribute, too: it is counted once
BEGIN;
SET LOCAL session_admin.application = 'crowd';
INSERT INTO crowd.cwd_user (id, user_name, lower_user_name, created_date, updated_date, directory_id, credential, active)
VALUES (1, 'Alice', 'alice', now(), now(), 1, 'secret', 'T');
INSERT INTO crowd.cwd_token VALUES (1, 1, 'Alice', 1, 'a', 'alice-1', now(), now(), pg_temp.ms(), NULL);
INSERT INTO crowd.cwd_user_attribute VALUES (1, 1, 1, 'lastAuthenticated', pg_temp.ms()::text);
SELECT user_name, login_count, live_sessions FROM session_admin.last_login WHERE application = 'crowd';
SELECT user_name, event FROM session_admin.login_history WHERE application = 'crowd';
ROLLBACK;

-- When a session ends is the product's to say
BEGIN;
INSERT INTO spring_session.spring_session VALUES
('p-1', 'alice-1', pg_temp.ms(), pg_temp.ms(), 1800, pg_temp.ms('30 minutes'), 'alice'),
('p-2', 'bob-1', pg_temp.ms(), pg_temp.ms(), -1, 9223372036854775807, 'bob');
INSERT INTO connect_pg_simple.session VALUES ('carol-1', '{"passport": {"user": "carol"}}', now() + '1 day');
SELECT user_name, expires_at - last_access_at BETWEEN '30 minutes' AND '31 minutes' AS after_30_minutes,
       expires_at - last_access_at BETWEEN '23:59:00' AND '24:01:00' AS after_a_day
FROM session_admin.current_sessions WHERE application IN (SELECT product FROM product) ORDER BY user_name;
-- it may say so anew
UPDATE spring_session.spring_session SET max_inactive_interval = 7200, expiry_time = pg_temp.ms('2 hours')
WHERE principal_name = 'alice';
SELECT round(extract(epoch FROM expires_at - last_access_at) / 3600) AS hours
FROM session_admin.current_sessions WHERE application = 'spring_session' AND user_name = 'alice';
ROLLBACK;

-- What is no session is no matter
INSERT INTO boutique.basket VALUES (NULL, 'nothing', 1), ('', 'nothing', 1);
UPDATE boutique.basket SET content = 'something';
INSERT INTO clone.user_sessions VALUES ('odd', '{"passport": {"user": {"id": 1}}}', now() + '1 day'),
    ('long', jsonb_build_object('passport', jsonb_build_object('user', repeat('x', 2000))), now() + '1 day'),
    ('list', '[1, 2]', now() + '1 day'), ('over', '{"passport": {"user": "alice"}}', now() - interval '1 day'),
    ('ever', '{"passport": {"user": "alice"}}', 'infinity');
SELECT user_name, kind, expires_at IS NULL AS for_ever FROM session_admin.current_sessions
WHERE application IN ('boutique', 'clone') AND (expires_at IS NULL OR user_name <> 'alice' OR user_name IS NULL)
ORDER BY user_name;
DELETE FROM boutique.basket;
DELETE FROM clone.user_sessions;
SELECT count(*) FROM session_admin_internal.capture_failure WHERE application IN (SELECT product FROM product);

-- Detached, sessions go on by our own policies
INSERT INTO clone.user_sessions VALUES ('alice-2', '{"passport": {"user": "alice"}}', now() + '1 day');
SELECT count(*) FROM session_admin.detach_application('connect_pg_simple', 'clone', 'clone');
SELECT user_name, expires_at - last_access_at AS idle_timeout FROM session_admin.current_sessions WHERE application = 'clone';
SELECT sessions_ended FROM session_admin.invalidate_user('alice', application => 'clone');
SELECT sid FROM clone.user_sessions;

-- Rows that were there before: from their next request on, or by a backfill
INSERT INTO clone.user_sessions
SELECT 'bob-' || n, '{"passport": {"user": "bob"}}', now() + interval '1 day' * (n - 5) FROM generate_series(1, 30) n;
SELECT object, state FROM session_admin.attach_application('connect_pg_simple', 'clone', 'clone') WHERE part = 'session'
ORDER BY object;
SELECT count(*) FROM session_admin.current_sessions WHERE application = 'clone';
UPDATE clone.user_sessions SET expire = expire + '1 second' WHERE sid = 'bob-20';
SELECT user_name, session_ref = session_admin.session_ref('bob-20') FROM session_admin.current_sessions WHERE application = 'clone';

SELECT session_admin.backfill_batch(10, 'clone'), session_admin.backfill_batch(10, 'clone');
SELECT application, product, table_name, rows_read, percent, finished_at IS NULL AS unfinished
FROM session_admin.backfills;
-- who is not read yet is logged out, too
SELECT sessions_ended < 20 AS partly_known FROM session_admin.invalidate_user('bob', application => 'clone');
SELECT sid FROM clone.user_sessions;
INSERT INTO clone.user_sessions
SELECT 'carol-' || n, '{"passport": {"user": "carol"}}', now() + interval '1 day' * (n - 5) FROM generate_series(1, 30) n;
SET client_min_messages = warning;
CALL session_admin.backfill_sessions(20, 'clone');
RESET client_min_messages;
CALL session_admin.backfill_sessions(application => 'clone');
SELECT rows_read > 20 AS more, percent, finished_at IS NOT NULL AS finished FROM session_admin.backfills;
SELECT user_name, count(*) FROM session_admin.current_sessions WHERE application = 'clone' GROUP BY 1 ORDER BY 1;
CALL session_admin.backfill_sessions(0, 'clone');
CALL session_admin.backfill_sessions(application => 'nobody''s');
BEGIN;
SELECT count(*) FROM session_admin.attach_application('connect_pg_simple', 'clone', 'clone');
CALL session_admin.backfill_sessions(application => 'clone');
ROLLBACK;
SELECT user_name, event, count(*) FROM session_admin.login_history WHERE application = 'clone' GROUP BY 1, 2 ORDER BY 1, 2;

-- Where nobody can see whose session it is, all that can be done is to end all of them
SELECT p.product, a.object, a.state, a.note
FROM (VALUES ('django'), ('devise')) AS p (product),
     session_admin.attach_application(p.product, 'framework', 'framework') a
WHERE a.part = 'session' AND a.object !~ '[.]' OR a.note ~ 'whose'
ORDER BY p.product, a.object;
INSERT INTO framework.auth_user VALUES (1, 'old', now(), false, 'alice', '', '', '', false, true, now());
INSERT INTO framework.django_session VALUES ('alice-1', 'signed', now() + '1 day');
INSERT INTO framework.sessions (session_id, created_at, updated_at) VALUES ('alice-1', now(), now());
SELECT count(*) FROM session_admin.current_sessions WHERE application = 'framework';
SELECT tgrelid::regclass, count(*) FROM pg_trigger WHERE tgname LIKE 'session_admin%' AND tgrelid::regclass::text ~ '^framework'
GROUP BY 1 ORDER BY 1;
SELECT sessions_ended FROM session_admin.invalidate_user('alice', application => 'framework');
SELECT (SELECT count(*) FROM framework.django_session) AS django, (SELECT count(*) FROM framework.sessions) AS rails;
BEGIN;
SELECT sessions_ended FROM session_admin.invalidate_application(application => 'framework');
SELECT (SELECT count(*) FROM framework.django_session) AS django, (SELECT count(*) FROM framework.sessions) AS rails;
ROLLBACK;
SELECT (SELECT count(*) FROM framework.django_session) AS django, (SELECT count(*) FROM framework.sessions) AS rails;
SELECT count(*) FROM session_admin.detach_application(application => 'framework');

-- Nothing of it is left
SELECT p.product, count(d.part) AS parts
FROM product p, session_admin.detach_application(replace(p.product, 'clone', 'connect_pg_simple'), p.schema, p.product) d
GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM session_admin_internal.backfill;
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'session_admin%';
DELETE FROM session_admin_internal.product WHERE product = 'boutique';
DELETE FROM session_admin_internal.product_part WHERE product = 'boutique';
DELETE FROM session_admin_internal.product_column WHERE product = 'boutique';
SET client_min_messages = error;
DROP SCHEMA spring_session, connect_pg_simple, clone, crowd, boutique, framework CASCADE;

-- A part that names no user opens nothing, whoever else watches the same table
CREATE SCHEMA nobody;
CREATE TABLE nobody.s (sid text PRIMARY KEY, who text);
SELECT session_admin.describe_product('nameless', '{"session": {"tables": "s", "columns": {"secret": "sid"}}}'),
    session_admin.describe_product('named', '{"session": {"tables": "s", "columns": {"secret": "sid", "user_name": "who"}}}');
SELECT count(*) FROM session_admin.attach_application('nameless', 'nobody', 'nameless');
SELECT count(*) FROM session_admin.attach_application('named', 'nobody', 'named');
INSERT INTO nobody.s VALUES ('1', 'alice'), ('2', NULL), ('3', 'bob');
UPDATE nobody.s SET who = 'carol' WHERE sid = '2';
DELETE FROM nobody.s WHERE sid = '3';
SELECT application, count(*), count(*) FILTER (WHERE user_name IS NULL) AS anonymous
FROM session_admin.session_history WHERE application IN ('nameless', 'named') GROUP BY 1;
-- everybody out of one: whose row is gone is not in the other one any more
SELECT sessions_ended FROM session_admin.invalidate_application(application => 'nameless');
SELECT count(*) FROM nobody.s;
SELECT user_name, end_reason FROM session_admin.session_history WHERE application = 'named' ORDER BY user_name;
SELECT count(*) FROM session_admin.detach_application(application => 'nameless');
SELECT count(*) FROM session_admin.detach_application(application => 'named');
SELECT session_admin.forget_product('nameless'), session_admin.forget_product('named');
DROP SCHEMA nobody CASCADE;
