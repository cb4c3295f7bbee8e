--
-- attach_application of the products beside Jira: each event, seen through the
-- product's own tables.  Each product is in a schema and an application of its name.
--
\set VERBOSITY terse
\set SHOW_CONTEXT never
\getenv testdir PG_ABS_SRCDIR
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET session_admin.actor = 'admin';

-- the tables, without a word
\set ECHO none
\set file :testdir '/products/bamboo.sql'
CREATE SCHEMA bamboo;
SET search_path = bamboo;
\i :file
\set file :testdir '/products/bitbucket.sql'
CREATE SCHEMA bitbucket;
SET search_path = bitbucket;
\i :file
\set file :testdir '/products/confluence.sql'
CREATE SCHEMA confluence;
SET search_path = confluence;
\i :file
\set file :testdir '/products/crowd.sql'
CREATE SCHEMA crowd;
SET search_path = crowd;
\i :file
\set file :testdir '/products/django.sql'
CREATE SCHEMA django;
SET search_path = django;
\i :file
\set file :testdir '/products/fecru.sql'
CREATE SCHEMA fecru;
SET search_path = fecru;
\i :file
\set file :testdir '/products/rails.sql'
CREATE SCHEMA rails;
SET search_path = rails;
\i :file
\set file :testdir '/products/spring_security.sql'
CREATE SCHEMA spring_security;
SET search_path = spring_security;
\i :file
RESET search_path;
\set ECHO all

-- Who is there, of each product: alice, with a remember-me row if it has any
CREATE TEMP TABLE product (product text, schema text, tokens text, there text);
-- What happens
CREATE TEMP TABLE happens (n serial, product text, what text, statements text);

-- Run some statements, show what follows, and roll all of it back.  Before, alice
-- has a session.
CREATE FUNCTION pg_temp.follows(of_product text, statements text,
    OUT feed text, OUT alice boolean, OUT tokens bigint, OUT events text, OUT account text)
LANGUAGE plpgsql AS $$
DECLARE
    last_id bigint := coalesce(max(id), 0) FROM session_admin_internal.invalidation;
    table_name text := (SELECT p.tokens FROM pg_temp.product p WHERE p.product = of_product);
BEGIN
    PERFORM set_config('session_admin.application', of_product, true),
            set_config('search_path', schema, true)
    FROM pg_temp.product p WHERE p.product = of_product;
    PERFORM session_admin.open_session('alice 1', 'alice');
    DELETE FROM session_admin_internal.login_event;
    UPDATE session_admin_internal.account SET login_count = 0, last_login_at = NULL;
    EXECUTE statements;
    SELECT string_agg(concat_ws(' ', scope, user_name, reason, sessions_ended, tokens_revoked), E'\n' ORDER BY id)
    INTO feed FROM session_admin_internal.invalidation WHERE id > last_id;
    alice := session_admin.touch_session('alice 1');
    IF table_name IS NOT NULL THEN
        EXECUTE format('SELECT count(*) FROM %I', table_name) INTO tokens;
    END IF;
    SELECT string_agg(concat_ws(' ', e.user_name, e.event,
                                CASE WHEN e.at < '2026-01-01' THEN e.at END, e.client_address, e.detail),
                      E'\n' ORDER BY e.event, e.user_name, e.detail)
    INTO events FROM session_admin_internal.login_event e WHERE e.application = of_product;
    SELECT concat_ws(', ', a.user_name, 'logins ' || a.login_count, 'last ' || a.last_login_at,
                     'previous ' || a.previous_login_at, 'failed ' || a.current_failed_count || '/' || a.total_failed_count)
    INTO account FROM session_admin_internal.account a
    WHERE a.application = of_product AND a.user_name <> 'bob' ORDER BY a.created_at DESC LIMIT 1;
    RAISE EXCEPTION 'all back' USING ERRCODE = 'RB000';
EXCEPTION WHEN SQLSTATE 'RB000' THEN
END $$;

--
-- Atlassian's directories of users, which differ in little
--
INSERT INTO bitbucket.cwd_directory (id, directory_name, is_active) VALUES (1, 'Internal', 'T');
INSERT INTO bitbucket.cwd_user (id, user_name, lower_user_name, created_date, updated_date, directory_id, credential, is_active)
VALUES (1, 'Alice', 'alice', now(), now(), 1, 'old', 'T');
INSERT INTO bitbucket.stash_user VALUES (7);
INSERT INTO bitbucket.sta_normal_user (user_id, name, slug) VALUES (7, 'Alice', 'alice');
INSERT INTO confluence.cwd_directory (id, directory_name, active) VALUES (1, 'Internal', 'T');
INSERT INTO confluence.cwd_user (id, user_name, lower_user_name, created_date, updated_date, directory_id, credential, active)
VALUES (1, 'Alice', 'alice', now(), now(), 1, 'old', 'T');
INSERT INTO confluence.user_mapping VALUES ('4028b881', 'Alice', 'alice');
INSERT INTO confluence.logininfo (id, curfailed, totalfailed, successdate, username)
VALUES (1, 0, 4, '2025-05-01 10:00', '4028b881');
INSERT INTO crowd.cwd_user (id, user_name, lower_user_name, created_date, updated_date, directory_id, credential, active)
VALUES (1, 'Alice', 'alice', now(), now(), 1, 'old', 'T');
INSERT INTO bamboo.cwd_directory (id, directory_name, active) VALUES (1, 'Internal', 'T');
INSERT INTO bamboo.cwd_user (id, user_name, lower_user_name, created_date, updated_date, directory_id, credential, active)
VALUES (1, 'Alice', 'alice', now(), now(), 1, 'old', 'T');
INSERT INTO fecru.cru_user (cru_user_id, cru_user_name, cru_failedlogincount) VALUES (1, 'alice', 0);
INSERT INTO spring_security.users VALUES ('alice', 'old', true);
INSERT INTO django.auth_user (id, password, is_superuser, username, first_name, last_name, email, is_staff, is_active, date_joined, last_login)
VALUES (1, 'old', false, 'alice', '', '', '', false, true, now(), '2025-05-01 10:00+00');
INSERT INTO rails.users (id, email, encrypted_password, sign_in_count, current_sign_in_at, last_sign_in_at, created_at, updated_at)
VALUES (1, 'alice', 'old', 3, '2025-05-01 10:00', '2025-04-01 10:00', now(), now());

INSERT INTO product VALUES
('bamboo', 'bamboo', 'rememberme_token',
 $$INSERT INTO rememberme_token VALUES (1, 'Alice', 'secret', 1700000000000)$$),
('bitbucket', 'bitbucket', 'sta_remember_me_token',
 $$INSERT INTO sta_remember_me_token VALUES (1, 's1', 'secret', 7, now(), false)$$),
('confluence', 'confluence', 'remembermetoken',
 $$INSERT INTO remembermetoken VALUES (1, 'alice', 1700000000000, 'secret')$$),
('crowd', 'crowd', 'cwd_remember_me_token',
 $$INSERT INTO cwd_remember_me_token VALUES (1, 'Alice', NULL, 'secret', 's1', '2025-01-01', NULL, 1)$$),
('devise', 'rails', NULL, ''),
('django', 'django', NULL, ''),
('fecru', 'fecru', 'cru_login_cookie',
 $$INSERT INTO cru_login_cookie VALUES (1, 1, 'secret', 1700000000000)$$),
('spring_security', 'spring_security', 'persistent_logins',
 $$INSERT INTO persistent_logins VALUES ('alice', 's1', 'secret', '2025-01-01')$$);

-- What was found, and what is not seen
SELECT p.product, a.part, a.object, a.state, a.note
FROM product p, session_admin.attach_application(p.product, p.schema, p.product) a
WHERE a.state <> 'attached' OR a.note LIKE '%rows read'
ORDER BY p.product, a.part, a.object, a.note;

-- What was known of logins already; nothing of it is an event
SELECT application, user_name, login_count, last_login_at, previous_login_at, total_failed_count
FROM session_admin.last_login WHERE application IN (SELECT product FROM product) ORDER BY application;
SELECT count(*) FROM session_admin.login_history WHERE application IN (SELECT product FROM product);

-- What all of them have, but for some
INSERT INTO happens (product, what, statements)
SELECT product, what, there || ';' || format(s.statements, t, c)
FROM product
JOIN (VALUES ('bamboo', 'cwd_user', 'credential'), ('bitbucket', 'cwd_user', 'credential'),
             ('confluence', 'cwd_user', 'credential'), ('crowd', 'cwd_user', 'credential'),
             ('devise', 'users', 'encrypted_password'), ('django', 'auth_user', 'password'),
             ('spring_security', 'users', 'password')) AS v (product, t, c) USING (product)
CROSS JOIN (VALUES ('password changed', 'UPDATE %1$I SET %2$I = ''new'''),
                   ('nothing that matters changed', 'UPDATE %1$I SET %2$I = %2$I'),
                   ('deleted', 'DELETE FROM %1$I')) AS s (what, statements)
UNION ALL
SELECT product, 'logged out by an admin', there || ';SELECT session_admin.invalidate_user(''alice'')' FROM product
UNION ALL
SELECT product, 'remembered', there FROM product WHERE there <> ''
UNION ALL
SELECT product, 'forgotten', there || '; DELETE FROM ' || tokens FROM product WHERE there <> ''
ORDER BY 1, 2;

-- What some of them have
INSERT INTO happens (product, what, statements) VALUES
('bamboo', 'deactivated', $$UPDATE cwd_user SET active = 'F'$$),
('bamboo', 'renamed', $$UPDATE cwd_user SET user_name = 'Alicia', lower_user_name = 'alicia'$$),
('bamboo', 'failed login', $$INSERT INTO auth_attempt_info VALUES (1, 'Alice', 1); UPDATE auth_attempt_info SET auth_count = 2$$),
('bitbucket', 'deactivated', $$UPDATE cwd_user SET is_active = 'F'$$),
('bitbucket', 'marked as deleted', $$UPDATE sta_normal_user SET deleted_timestamp = now()$$),
('bitbucket', 'deleted in a cascade',
 $$INSERT INTO sta_remember_me_token VALUES (1, 's1', 'secret', 7, now(), false); DELETE FROM stash_user$$),
('bitbucket', 'used', $$INSERT INTO cwd_user_attribute VALUES (1, 1, 1, 'lastAuthenticationTimestamp', '1746093600000')$$),
('confluence', 'deactivated', $$UPDATE cwd_user SET active = 'F'$$),
('confluence', 'remembered by key',
 $$INSERT INTO remembermetoken VALUES (1, '4028b881', 1700000000000, 'secret'); SELECT session_admin.invalidate_user('alice')$$),
('confluence', 'login',
 $$UPDATE logininfo SET prevsuccessdate = successdate, successdate = '2025-05-02 11:00'$$),
('confluence', 'failed login',
 $$UPDATE logininfo SET faileddate = '2025-05-02 11:00', curfailed = 1, totalfailed = 5$$),
('crowd', 'deactivated', $$UPDATE cwd_user SET active = 'F'$$),
('crowd', 'login', $$INSERT INTO cwd_user_attribute VALUES (1, 1, 1, 'lastAuthenticated', '1746183600000')$$),
('crowd', 'remembered, and used',
 $$INSERT INTO cwd_remember_me_token VALUES (1, 'Alice', NULL, 'secret', 's1', '2025-01-01', NULL, 1);
   UPDATE cwd_remember_me_token SET used_date = now(), remote_address = '192.0.2.1';
   INSERT INTO cwd_remember_me_token VALUES (2, 'Alice', NULL, 'next secret', 's1', '2025-01-01', NULL, 1)$$),
('devise', 'login', $$UPDATE users SET sign_in_count = 4, last_sign_in_at = current_sign_in_at,
   current_sign_in_at = '2025-05-02 11:00', current_sign_in_ip = '192.0.2.7'$$),
('devise', 'failed login', $$UPDATE users SET failed_attempts = 1$$),
('devise', 'locked', $$UPDATE users SET failed_attempts = 5, locked_at = now()$$),
('devise', 'renamed', $$UPDATE users SET email = 'alicia'$$),
('django', 'deactivated', $$UPDATE auth_user SET is_active = false$$),
('django', 'login', $$UPDATE auth_user SET last_login = '2025-05-02 11:00+00'$$),
('django', 'login, of which the application tells itself',
 $$SELECT session_admin.set_policy('captured_logins', 'ignore'); UPDATE auth_user SET last_login = '2025-05-02 11:00+00'$$),
('fecru', 'failed login', $$UPDATE cru_user SET cru_failedlogincount = 1$$),
('fecru', 'deleted', $$DELETE FROM cru_user$$),
('spring_security', 'deactivated', $$UPDATE users SET enabled = false$$),
('spring_security', 'remembered, and used',
 $$INSERT INTO persistent_logins VALUES ('alice', 's1', 'secret', '2025-01-01');
   UPDATE persistent_logins SET token = 'next secret', last_used = now()$$);

\x on
\pset null -
SELECT h.product, h.what, f.* FROM happens h, LATERAL pg_temp.follows(h.product, h.statements) f
ORDER BY h.product, h.n;
\x off

-- Nothing of it is left, in the extension or in the products' schemas
SELECT count(*) FROM session_admin_internal.capture_failure WHERE application IN (SELECT product FROM product);
SELECT p.product, count(d.part) AS parts
FROM product p, session_admin.detach_application(p.product, p.schema, p.product) d
GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'session_admin%';
SET client_min_messages = error;
DROP SCHEMA bamboo, bitbucket, confluence, crowd, django, fecru, rails, spring_security CASCADE;
