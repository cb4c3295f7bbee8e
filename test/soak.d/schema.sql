-- Three applications: one that calls session_admin, and two products whose own tables are
-- watched, one with a table of sessions as that of connect-pg-simple, one as Spring's.
CREATE EXTENSION session_admin;

CREATE SCHEMA shop;
CREATE TABLE shop.users (id int PRIMARY KEY, email text UNIQUE, password_hash text, blocked_at timestamptz);
CREATE TABLE shop.http_session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL);
CREATE INDEX ON shop.http_session (sha256(replace(sid, '\', '\\')::bytea));
CREATE INDEX ON shop.http_session ((sess #>> '{passport,user}'));

CREATE SCHEMA spring;
SET search_path = spring;
\i :products/spring_session.sql
\i :products/spring_security.sql
RESET search_path;

INSERT INTO shop.users
SELECT n, format('w%su%s', n / 100, n % 100), 'x' FROM generate_series(0, 100 * :writers - 1) n WHERE n % 100 < :users;
INSERT INTO spring.users SELECT email, 'x', true FROM shop.users;

SELECT session_admin.describe_product('shop', '{
    "account": {"tables": "users", "columns": {
        "user_name": "email", "credential": "password_hash", "locked_at": "blocked_at"}},
    "session": {"tables": "http_session", "columns": {
        "secret": "sid", "user_name": {"column": "sess", "path": ["passport", "user"]}, "expires_at": "expire"}}}');
SELECT part, object, state FROM session_admin.attach_application('shop', 'shop', application => 'shop');
SELECT part, object, state FROM session_admin.attach_application('spring_session', 'spring', application => 'spring');
SELECT part, object, state FROM session_admin.attach_application('spring_security', 'spring', application => 'spring');

-- a clock that is set by hours ends nobody by time, and purges nothing
SELECT session_admin.set_policy(p.name, p.value, application => a.name)
FROM (VALUES ('api'), ('shop'), ('spring')) AS a (name)
CROSS JOIN (VALUES ('idle_timeout', '30 days'), ('absolute_timeout', '60 days'),
    ('anonymous_idle_timeout', '30 days'), ('anonymous_absolute_timeout', '60 days'),
    ('remember_me_grace', '1 hour'), ('remember_me_lifetime', '60 days'),
    ('feed_retention', '30 days'), ('node_lease', '2 seconds')) AS p (name, value);
SELECT session_admin.set_policy('idle_timeout', '3 seconds', application => 'brief');
SELECT session_admin.set_policy('idle_timeout', '30 days', application => 'keeper');
SELECT session_admin.set_policy('absolute_timeout', '60 days', application => 'keeper');

-- each user is known everywhere, so that nobody is told that there is no such user
SELECT count(session_admin.open_session(format('first %s of %s', u.email, a.name), u.email, application => a.name)),
    count(session_admin.close_session(format('first %s of %s', u.email, a.name), a.name))
FROM shop.users u CROSS JOIN (VALUES ('api'), ('shop'), ('spring')) AS a (name);
