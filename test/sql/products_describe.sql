--
-- describe_product: an application that nobody thought of
--
\set VERBOSITY default
\set SHOW_CONTEXT never
\getenv testdir PG_ABS_SRCDIR
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET session_admin.application = 'shop';

CREATE SCHEMA shop;
CREATE TABLE shop.people (
    id serial PRIMARY KEY, email text NOT NULL, password_hash text, enabled text, tenant text, seen bigint);
CREATE TABLE shop.devices (person int, token text, added timestamp);
INSERT INTO shop.people (email, password_hash, enabled, tenant) VALUES
    ('Alice@example.com', 'old', 'yes', 'shop'), ('bob@example.com', 'old', 'yes', 'shop'),
    ('robot@example.com', 'old', 'yes', 'machines');

-- One call
SELECT session_admin.describe_product('shop', $${
    "account": {
        "tables": ["users", "people"],
        "columns": {
            "key": "id",
            "user_name": {"column": ["mail", "email"], "reading": "any case"},
            "credential": "password_hash",
            "active": "enabled",
            "last_login_at": {"column": "seen", "reading": "s"},
            "locked_at": {"column": "locked", "required": false},
            "realm": {"column": "tenant", "excludes": ["machines"]}
        }
    },
    "remember_me": {
        "tables": "devices",
        "key_of": "account",
        "columns": {"user_key": "person", "secret": "token", "created_at": {"column": "added", "reading": "utc"}}
    }
}$$, title => 'Our shop', notes => '{"addresses are not in these tables",NULL}');
SELECT * FROM session_admin_internal.product WHERE product = 'shop';
SELECT part, relations, key_of, required FROM session_admin_internal.product_part WHERE product = 'shop' ORDER BY part;
SELECT part, role, columns, required, reading, path, excludes
FROM session_admin_internal.product_column WHERE product = 'shop' ORDER BY part, role;

-- it is found, attached and followed as the others are
SELECT * FROM session_admin.detect_product('shop');
SELECT * FROM session_admin.attach_application('shop', 'shop');
SELECT user_name FROM session_admin.last_login WHERE application = 'shop' ORDER BY 1;
SELECT session_admin.open_session('alice 1', 'alice@example.com') <> '' AS alice,
       session_admin.open_session('bob 1', 'bob@example.com') <> '' AS bob;
INSERT INTO shop.devices VALUES (1, 'secret', now()), (2, 'secret 2', now());
UPDATE shop.people SET password_hash = 'new', seen = 1700000000 WHERE email ~ 'robot|Alice';
UPDATE shop.people SET enabled = 'no' WHERE email ~ 'bob';
SELECT user_name, reason, sessions_ended, tokens_revoked FROM session_admin.invalidations
WHERE application = 'shop' ORDER BY id;
SELECT count(*) FROM shop.devices;
SELECT user_name, event, at FROM session_admin.login_history WHERE application = 'shop' AND at < '2024-01-01';

-- Described again, it is another description; what is attached stays as it was
SELECT session_admin.describe_product('shop', '{"account": {"tables": "people", "columns": {"user_name": "email"}}}');
SELECT part, role, columns FROM session_admin_internal.product_column WHERE product = 'shop';
SELECT title, notes FROM session_admin_internal.product WHERE product = 'shop';
SELECT count(*) FROM session_admin_internal.attachment_column WHERE application = 'shop';
SELECT part, object, state, note FROM session_admin.attach_application('shop', 'shop');
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgfoid = 'session_admin.capture'::regproc ORDER BY 1, 2;

-- Who describes a product needs leave to read what it names
CREATE ROLE regress_describe;
SELECT session_admin.grant_access('regress_describe', 'administrator');
SET ROLE regress_describe;
SELECT session_admin.describe_product('nosy', '{"account": {"tables": "people", "columns": {"user_name": "password_hash"}}}');
SELECT count(*) FROM session_admin.attach_application('nosy', 'shop');
SELECT session_admin.forget_product('nosy');
RESET ROLE;
DROP OWNED BY regress_describe;
DROP ROLE regress_describe;

-- a table may be watched twice, but is it meant to be?
SELECT part, object, state, note FROM session_admin.attach_application('shop', 'shop', application => 'shop 2')
WHERE state = 'warning';
-- what was watched before is followed for the second one, too, by those who know the table already
SELECT user_name FROM session_admin.last_login WHERE application = 'shop 2' ORDER BY 1;
SELECT session_admin.open_session('bob of shop 2', 'bob@example.com', application => 'shop 2') IS NOT NULL AS opened;
DELETE FROM shop.people WHERE email ~ 'bob';
SELECT session_admin.touch_session('bob of shop 2', 'shop 2');
SELECT count(*) FROM session_admin.detach_application(application => 'shop 2');

-- a column that was described and is not there is said
SELECT session_admin.describe_product('typo', '{"account": {"tables": "people", "columns": {"user_name": "e_mail"}}}');
SELECT * FROM session_admin.attach_application('typo', 'shop');
SELECT session_admin.forget_product('typo'), session_admin.forget_product('typo');
SELECT session_admin.forget_product('shop');
SELECT count(*) FROM session_admin.detach_application();
SELECT session_admin.forget_product('shop');
SELECT count(*) FROM session_admin_internal.product_column WHERE product = 'shop';

--
-- What is refused
--
CREATE FUNCTION pg_temp.refusal(product text, parts jsonb, alias_pattern text DEFAULT NULL,
    OUT message text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM session_admin.describe_product(product, parts, alias_pattern => refusal.alias_pattern);
    message := 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    message := sqlstate || ' ' || message;
END $$;
CREATE TEMP TABLE refused (n serial, parts jsonb);
INSERT INTO refused (parts) VALUES
('{}'), ('[]'), ('"account"'), ('null'),
('{"accounts": {"tables": "t", "columns": {"user_name": "c"}}}'),
('{"account": "users"}'),
('{"account": {"columns": {"user_name": "c"}}}'),
('{"account": {"tables": ["t", 1], "columns": {"user_name": "c"}}}'),
('{"account": {"tables": [""], "columns": {"user_name": "c"}}}'),
('{"account": {"tables": "t"}}'),
('{"account": {"tables": "t", "columns": ["c"]}}'),
('{"account": {"table": "t", "columns": {"user_name": "c"}}}'),
('{"account": {"tables": "t", "columns": {"credential": "c"}}}'),
('{"account": {"tables": "t", "columns": {"user_name": "c", "password": "p"}}}'),
('{"account": {"tables": "t", "columns": {"user_name": "c", "secret": "s"}}}'),
('{"account": {"tables": "t", "columns": {"user_name": 1}}}'),
('{"account": {"tables": "t", "columns": {"user_name": {"columns": "c"}}}}'),
('{"account": {"tables": "t", "columns": {"user_name": {"column": "c", "path": "user"}}}}'),
('{"account": {"tables": "t", "columns": {"user_name": {"column": "c", "path": []}}}}'),
('{"session": {"tables": "t", "columns": {"secret": {"column": "c", "path": ["sid"]}}}}'),
('{"session": {"tables": "t", "columns": {"secret": "sid", "expires_at": {"column": "c", "path": ["until"]}}}}'),
('{"session": {"tables": "t", "columns": {"secret": "sid", "realm": {"column": "c", "path": ["r"], "excludes": ["1"]}}}}'),
('{"session": {"tables": "t", "columns": {"secret": ["id", "sid"], "key": "sid"}}}'),
('{"account": {"tables": "t", "columns": {"user_name": {"column": "c", "reading": "lower"}}}}'),
('{"account": {"tables": "t", "columns": {"user_name": "c", "active": {"column": "a", "reading": "ms"}}}}'),
('{"account": {"tables": "t", "columns": {"user_name": {"column": "c", "required": "no"}}}}'),
('{"account": {"tables": "t", "required": 1, "columns": {"user_name": "c"}}}'),
('{"account": {"tables": "t", "columns": {"user_name": "c", "realm": {"column": "r", "excludes": 1}}}}'),
('{"remember_me": {"tables": "t", "columns": {"secret": "s"}}}'),
('{"remember_me": {"tables": "t", "columns": {"secret": "s", "user_key": "c"}}}'),
('{"remember_me": {"tables": "t", "columns": {"secret": "s", "user_key": "c"}, "key_of": "account"},
   "account": {"tables": "t", "columns": {"user_name": "c"}}}'),
('{"remember_me": {"tables": "t", "columns": {"secret": "s", "user_name": "c"}, "key_of": "account"}}'),
('{"attribute": {"tables": "t", "columns": {"user_name": "s", "attribute_name": "n"}}}'),
('{"identity": {"tables": "t", "columns": {"user_name": "n"}}}');
\pset null -
SELECT r.parts, f.* FROM refused r, LATERAL pg_temp.refusal('shop', r.parts) f ORDER BY r.n;
SELECT f.* FROM (VALUES ('jira', NULL), (NULL, NULL), ('', NULL), (repeat('x', 64), NULL), (E'a\nb', NULL), ('shop', '(')) v (p, a),
    LATERAL pg_temp.refusal(v.p, '{"account": {"tables": "t", "columns": {"user_name": "c"}}}', v.a) f;
SELECT f.* FROM pg_temp.refusal('shop', NULL) f;
SELECT session_admin.forget_product('jira');
SELECT count(*) FROM session_admin_internal.product WHERE NOT built_in;

--
-- detect_product: what the tables of a schema look like.  One schema for each of
-- the products, and some that only have a name in common with them.
--
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
\set file :testdir '/products/connect_pg_simple.sql'
CREATE SCHEMA connect_pg_simple;
SET search_path = connect_pg_simple;
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
\set file :testdir '/products/jira.sql'
CREATE SCHEMA jira;
SET search_path = jira;
\i :file
\set file :testdir '/products/rails.sql'
CREATE SCHEMA rails;
SET search_path = rails;
\i :file
\set file :testdir '/products/spring_security.sql'
CREATE SCHEMA spring_security;
SET search_path = spring_security;
\i :file
\set file :testdir '/products/spring_session.sql'
CREATE SCHEMA spring_session;
SET search_path = spring_session;
\i :file
RESET search_path;
\set ECHO all

CREATE SCHEMA symfony;
CREATE TABLE symfony.users (id int, name text, email text, password text);
CREATE TABLE symfony.rememberme_token (series char(88), value char(88), lastused timestamp, class varchar(100), username varchar(200));
CREATE SCHEMA unrelated;
CREATE TABLE unrelated.users (id int, username text, password text, email text, active boolean);
CREATE TABLE unrelated.accounts (id int, user_name text, user_id int, name text, created_at timestamptz);
CREATE TABLE unrelated.session (id int, username text, token text);
CREATE TABLE unrelated.cwd_user (shape text);
CREATE SCHEMA "empty";
-- a part of a product
CREATE SCHEMA half_jira;
CREATE TABLE half_jira.cwd_user (id int, lower_user_name text);
CREATE TABLE half_jira.app_user (user_key text, lower_user_name text);
-- two in one schema
CREATE SCHEMA two;
CREATE TABLE two.cru_user (LIKE fecru.cru_user);
CREATE TABLE two.auth_user (LIKE django.auth_user);

SELECT s.schema, d.product, cardinality(d.matched) AS matched, cardinality(d.missing) AS missing
FROM unnest('{bamboo,bitbucket,confluence,connect_pg_simple,crowd,django,fecru,jira,rails,
              spring_security,spring_session,symfony,unrelated,empty,half_jira,two}'::text[]) AS s (schema)
LEFT JOIN LATERAL session_admin.detect_product(s.schema) WITH ORDINALITY AS d (product, title, matched, missing, n) ON true
ORDER BY s.schema, d.n;
\x on
SELECT * FROM session_admin.detect_product('half_jira');
\x off
SELECT * FROM session_admin.detect_product('nowhere');

SET client_min_messages = error;
DROP SCHEMA shop, bamboo, bitbucket, confluence, connect_pg_simple, crowd, django, fecru, jira, rails,
    spring_security, spring_session, symfony, unrelated, "empty", half_jira, two CASCADE;
