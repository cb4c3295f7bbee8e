--
-- Tokens in a column of the users' table: they are cleared, and no user is ever deleted.
--
\set VERBOSITY default
\set SHOW_CONTEXT never
SET session_admin.application = 'clear';
SET client_min_messages = warning;

-- as Laravel and MediaWiki have them
CREATE SCHEMA laravel;
CREATE TABLE laravel.users (id bigint PRIMARY KEY, name varchar(255) NOT NULL, email varchar(255) UNIQUE NOT NULL,
    password varchar(255) NOT NULL, remember_token varchar(100), updated_at timestamp);
CREATE TABLE laravel.posts (id int PRIMARY KEY, user_id bigint REFERENCES laravel.users ON DELETE CASCADE);
CREATE SCHEMA wiki;
CREATE TABLE wiki.mwuser (user_id int PRIMARY KEY, user_name text NOT NULL, user_password text,
    user_token text NOT NULL DEFAULT '');

-- a description says so, or is refused
\set QUIET on
\set VERBOSITY default
SELECT session_admin.describe_product('laravel', '{
    "account": {"tables": "users", "columns": {"user_name": "email", "credential": "password"}},
    "remember_me": {"tables": "users", "columns": {"user_name": "email", "secret": "remember_token"}}}');
SELECT session_admin.describe_product('laravel', '{
    "account": {"tables": "users", "columns": {"user_name": "email", "credential": "password"}},
    "remember_me": {"tables": ["tokens", "users"], "ends": "delete", "columns": {"user_name": "email", "secret": "remember_token"}}}');
SELECT session_admin.describe_product('laravel', '{
    "identity": {"tables": "users", "columns": {"user_name": "email", "key": "id"}},
    "session": {"tables": "users", "columns": {"user_name": "email", "secret": "remember_token"}}}');
SELECT session_admin.describe_product('laravel', '{"account": {"tables": "users", "ends": "clear", "columns": {"user_name": "email"}}}');
SELECT session_admin.describe_product('laravel', '{"remember_me": {"tables": "users", "ends": "drop", "columns": {"user_name": "email"}}}');
SELECT session_admin.describe_product('laravel', '{"remember_me": {"tables": "users", "ends": null, "columns": {"user_name": "email"}}}');
SELECT session_admin.describe_product('laravel', '{"remember_me": {"tables": "users", "ends": "clear", "columns": {"user_name": "email"}}}');
SELECT session_admin.describe_product('laravel', '{"remember_me": {"tables": "users", "clear_to": "", "columns": {"user_name": "email", "secret": "s"}}}');
SELECT session_admin.describe_product('laravel', '{"remember_me": {"tables": "users", "ends": "clear", "clear_to": 0, "columns": {"user_name": "email", "secret": "s"}}}');

-- alone, it is refused when it is attached: said or not, or matched by what a product has
SELECT session_admin.describe_product('token', '{"remember_me": {"tables": "users", "columns": {"user_name": "email", "secret": "remember_token"}}}');
SELECT * FROM session_admin.attach_application('token', 'laravel');
SELECT session_admin.describe_product('token', '{"session": {"tables": "users", "columns": {"user_key": "id", "secret": "remember_token"},
    "key_of": "account"}, "account": {"tables": "nobody", "required": false, "columns": {"user_name": "email", "key": "id"}}}');
SELECT session_admin.describe_product('token', '{"session": {"tables": "mwuser", "columns": {"user_name": "user_name", "secret": "user_token"}}}');
SELECT * FROM session_admin.attach_application('token', 'wiki');
SELECT session_admin.describe_product('users', '{"account": {"tables": "users", "columns": {"user_name": "email", "credential": "password"}}}');
SELECT session_admin.describe_product('token', '{"remember_me": {"tables": "users", "ends": "delete", "columns": {"user_name": "email", "secret": "remember_token"}}}');
SELECT * FROM session_admin.attach_application('token', 'laravel');
SELECT session_admin.forget_product('users');
-- what else tells that it may be one of users
CREATE SCHEMA hints;
CREATE TABLE hints.a (id int PRIMARY KEY, who text, token text);
CREATE UNIQUE INDEX ON hints.a (lower(who));
CREATE TABLE hints.b (id int PRIMARY KEY, who text, token text);
CREATE TABLE hints.b_of (b int REFERENCES hints.b);
CREATE TABLE hints.c (id int PRIMARY KEY, who text, token text UNIQUE);
CREATE TABLE hints.c_of (c int REFERENCES hints.c);
CREATE FUNCTION hints.try(tables text, ends text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    why text;
BEGIN
    PERFORM session_admin.describe_product('hint', jsonb_build_object('remember_me', jsonb_strip_nulls(jsonb_build_object(
        'tables', tables, 'ends', ends, 'columns', '{"user_name": "who", "secret": "token"}'::jsonb))));
    PERFORM session_admin.attach_application('hint', 'hints');
    PERFORM session_admin.detach_application('hint');
    RETURN 'attached';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS why = PG_EXCEPTION_DETAIL;
    RETURN sqlstate || ' ' || why;
END $$;
SELECT t, hints.try(t, NULL) AS unsaid, hints.try(t, 'delete') AS "delete", hints.try(t, 'clear') AS clear FROM unnest('{a,b,c}'::text[]) AS t;
SELECT session_admin.forget_product('hint');
DROP SCHEMA hints CASCADE;

SELECT session_admin.describe_product('laravel', '{
    "account": {"tables": "users", "columns": {"user_name": "email", "credential": "password"}},
    "remember_me": {"tables": "users", "ends": "clear", "columns": {"user_name": "email", "secret": "remember_token"}}}');
SELECT session_admin.describe_product('wiki', '{
    "account": {"tables": "mwuser", "columns": {"user_name": "user_name", "credential": "user_password"}},
    "remember_me": {"tables": "mwuser", "ends": "clear", "clear_to": "", "columns": {"user_name": "user_name", "secret": "user_token"}}}');
SELECT part, object, state, note FROM session_admin.attach_application('laravel', 'laravel') WHERE note LIKE '%clear%';
SELECT count(*) FROM session_admin.attach_application('wiki', 'wiki', 'clear wiki');
-- and another one may not delete there
SELECT * FROM session_admin.attach_application('token', 'laravel', 'another');
-- nor may a table of users be one from which somebody else deletes
CREATE TABLE wiki.tok (who text, token text);
SELECT session_admin.describe_product('tok', '{"remember_me": {"tables": "tok", "columns": {"user_name": "who", "secret": "token"}}}'),
    session_admin.describe_product('tok users', '{"account": {"tables": "tok", "columns": {"user_name": "who"}}}');
SELECT session_admin.forget_product('tok users');
SELECT count(*) FROM session_admin.attach_application('tok', 'wiki');
SELECT session_admin.describe_product('tok users', '{"account": {"tables": "tok", "columns": {"user_name": "who"}}}');
SELECT * FROM session_admin.attach_application('tok users', 'wiki');

--
-- Each end clears, and deletes nobody
--
CREATE FUNCTION pg_temp.tokens() RETURNS TABLE (users bigint, posts bigint, laravel text, mwuser text, events text) LANGUAGE sql AS $$
    SELECT (SELECT count(*) FROM laravel.users) + (SELECT count(*) FROM wiki.mwuser),
        (SELECT count(*) FROM laravel.posts),
        (SELECT string_agg(coalesce(remember_token, '-'), ' ' ORDER BY id) FROM laravel.users),
        (SELECT string_agg(quote_literal(user_token), ' ' ORDER BY user_id) FROM wiki.mwuser),
        (SELECT string_agg(format('%s %s', user_name, event), ', ' ORDER BY at, user_name, event COLLATE "C") FROM session_admin_internal.login_event
         WHERE application LIKE 'clear%')
$$;
CREATE FUNCTION pg_temp.reset() RETURNS void LANGUAGE sql AS $$
    UPDATE laravel.users SET remember_token = 'token ' || id;
    UPDATE wiki.mwuser SET user_token = 'token ' || user_id;
    DELETE FROM session_admin_internal.login_event WHERE application LIKE 'clear%';
$$;
INSERT INTO laravel.users SELECT n, 'n', u || '@x', 'old', 'token ' || n FROM unnest('{alice,bob}'::text[]) WITH ORDINALITY AS u (u, n);
INSERT INTO laravel.posts SELECT id, id FROM laravel.users;
INSERT INTO wiki.mwuser SELECT n, u, 'old', 'token ' || n FROM unnest('{Alice,Bob}'::text[]) WITH ORDINALITY AS u (u, n);
INSERT INTO wiki.mwuser VALUES (3, 'Carol', 'old');
SELECT * FROM pg_temp.tokens();

SELECT pg_temp.reset();
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_user('alice@x');
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_user('Alice', application => 'clear wiki');
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_user('Carol', application => 'clear wiki');
SELECT * FROM pg_temp.tokens();
SELECT scope, user_name, reason, tokens_revoked FROM session_admin.invalidations WHERE application LIKE 'clear%' ORDER BY id;
SELECT tokens_revoked FROM session_admin.invalidate_user('bob@x', keep_remember_me => true);

-- a new password
SELECT pg_temp.reset();
UPDATE laravel.users SET password = 'new' WHERE id = 1;
UPDATE wiki.mwuser SET user_password = 'new' WHERE user_id = 2;
SELECT * FROM pg_temp.tokens();
-- by what the product does itself
SELECT pg_temp.reset();
UPDATE laravel.users SET remember_token = 'rotated' WHERE id = 1;
UPDATE laravel.users SET remember_token = NULL, updated_at = now() WHERE id = 1;
UPDATE laravel.users SET updated_at = now();
UPDATE laravel.users SET remember_token = 'again' WHERE id = 1;
UPDATE wiki.mwuser SET user_token = '' WHERE user_id = 1;
SELECT * FROM pg_temp.tokens();
-- everybody
SELECT pg_temp.reset();
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_application();
SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_application(application => 'clear wiki');
SELECT * FROM pg_temp.tokens();
SELECT pg_temp.reset();
SELECT invalidation_id IS NOT NULL FROM session_admin.invalidate_all();
SELECT users, posts, laravel, mwuser FROM pg_temp.tokens();
-- in a copy of the database, the first login
SELECT pg_temp.reset();
UPDATE session_admin.application SET home = 'elsewhere' WHERE name LIKE 'clear%';
SELECT session_admin.open_session('clear 1', 'alice@x') IS NOT NULL, session_admin.open_session('clear 2', 'Alice', application => 'clear wiki') IS NOT NULL;
SELECT users, posts, laravel, mwuser FROM pg_temp.tokens();
-- rolled back
SELECT pg_temp.reset();
BEGIN;
SELECT tokens_revoked FROM session_admin.invalidate_user('alice@x');
ROLLBACK;
SELECT laravel FROM pg_temp.tokens();
-- users who go
DELETE FROM laravel.users WHERE id = 2;
SELECT * FROM pg_temp.tokens();

-- A table that became one of users in spite of all that
UPDATE session_admin_internal.attachment SET ends = 'delete' WHERE application = 'clear' AND product = 'laravel' AND part = 'remember_me';
ALTER TABLE laravel.users SET (fillfactor = 90);    -- read what is attached anew
SELECT tokens_revoked FROM session_admin.invalidate_user('alice@x');
SELECT invalidation_id IS NOT NULL FROM session_admin.invalidate_application();
SELECT users, laravel FROM pg_temp.tokens();
SELECT message FROM session_admin.capture_failures WHERE application = 'clear';

--
-- Sessions of this kind
--
CREATE SCHEMA cookie;
CREATE TABLE cookie.person (id int PRIMARY KEY, login text UNIQUE, secret text, cookie text);
SELECT session_admin.describe_product('cookie', '{
    "account": {"tables": "person", "columns": {"user_name": "login", "credential": "secret"}},
    "session": {"tables": "person", "ends": "clear", "columns": {"user_name": "login", "secret": "cookie"}}}');
SET session_admin.application = 'clear cookie';
SELECT count(*) FROM session_admin.attach_application('cookie', 'cookie');
INSERT INTO cookie.person VALUES (1, 'alice', 'x', NULL), (2, 'bob', 'x', NULL), (3, 'carol', 'x', 'cookie of carol');
UPDATE cookie.person SET cookie = 'cookie of ' || login WHERE id < 3;
SELECT user_name FROM session_admin.current_sessions WHERE application = 'clear cookie' ORDER BY 1;
UPDATE cookie.person SET cookie = NULL WHERE id = 2;
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
UPDATE cookie.person SET secret = 'y' WHERE id = 3;
SELECT id, cookie FROM cookie.person ORDER BY id;
SELECT user_name, end_reason FROM session_admin.session_history WHERE application = 'clear cookie' ORDER BY 1;
-- an id that has ended
UPDATE cookie.person SET cookie = 'cookie of alice' WHERE id = 1;
UPDATE cookie.person SET cookie = 'new cookie of alice' WHERE id = 2;
SELECT id, cookie FROM cookie.person ORDER BY id;
SELECT session_admin.touch_session('cookie of alice'), session_admin.touch_session('new cookie of alice');

SET client_min_messages = error;
SELECT count(*) FROM session_admin.detach_application(application => 'clear');
SELECT count(*) FROM session_admin.detach_application(application => 'clear wiki');
SELECT count(*) FROM session_admin.detach_application(application => 'clear cookie');
SELECT session_admin.forget_product(p) FROM unnest('{laravel,wiki,token,cookie,tok,"tok users"}'::text[]) AS p;
DELETE FROM session_admin_internal.capture_failure;
DROP SCHEMA laravel, wiki, cookie CASCADE;
