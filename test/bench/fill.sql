-- A database of :sessions sessions, and as many remember-me tokens, of half as
-- many users; and the same by hand, without our functions and triggers.
\set ON_ERROR_STOP on
SET client_min_messages = warning;

CREATE EXTENSION session_admin;
INSERT INTO session_admin.application (name, home) SELECT 'default', home FROM session_admin_internal.installation_mark;

-- as touch_session is declared
CREATE SCHEMA bench;
CREATE FUNCTION bench.empty(session_id text, application text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS :'library', 'bench_empty';
CREATE FUNCTION bench.hash(n bigint) RETURNS bytea
LANGUAGE c VOLATILE PARALLEL UNSAFE AS :'library', 'bench_hash';

-- 19 digits, since pgbench can make these
CREATE TABLE bench.session_id AS
SELECT (1000000000000000000 + n)::text COLLATE "C" AS id, 'user' || (n + 1) / 2 AS user_name
FROM generate_series(1, :sessions) n;

INSERT INTO session_admin_internal.account (application, user_name)
SELECT 'default', 'user' || n FROM generate_series(1, :sessions / 2) n;

INSERT INTO session_admin.session (session_hash, application, generation, created_at,
    last_access_at, user_name, login_method, client_address, peer_address, log_id, user_agent)
SELECT sha256(id::bytea), 'default', generation, clock_timestamp(), clock_timestamp(),
    user_name, 'password', '192.0.2.1', '192.0.2.1', 'p3yo5w',
    'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0'
FROM bench.session_id, session_admin.application;

INSERT INTO session_admin.remember_me_token (series, application, generation, user_name,
    validator_hash, created_at, user_agent)
SELECT md5(id), 'default', generation, user_name, sha256(id::bytea), clock_timestamp(),
    'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0'
FROM bench.session_id, session_admin.application;

-- By hand: the same tables, with the session id for a key as people do it
CREATE SCHEMA by_hand;
CREATE TABLE by_hand.account (LIKE session_admin_internal.account INCLUDING ALL);
CREATE TABLE by_hand.session (LIKE session_admin.session INCLUDING ALL);
CREATE TABLE by_hand.remember_me_token (LIKE session_admin.remember_me_token INCLUDING ALL);
CREATE TABLE by_hand.login_event (LIKE session_admin_internal.login_event_default INCLUDING ALL);
CREATE TABLE by_hand.ended_session (LIKE session_admin_internal.ended_session_default INCLUDING ALL);
CREATE TABLE by_hand.invalidation (LIKE session_admin_internal.invalidation INCLUDING ALL);
ALTER TABLE by_hand.session DROP session_hash, ADD session_id text COLLATE "C";
ALTER TABLE by_hand.ended_session DROP session_hash, ADD session_id text COLLATE "C";

INSERT INTO by_hand.account SELECT * FROM session_admin_internal.account;
INSERT INTO by_hand.remember_me_token SELECT * FROM session_admin.remember_me_token;
INSERT INTO by_hand.session (session_id, application, generation, created_at, last_access_at,
    user_name, login_method, client_address, peer_address, log_id, user_agent)
SELECT i.id, s.application, s.generation, s.created_at, s.last_access_at, s.user_name,
    s.login_method, s.client_address, s.peer_address, s.log_id, s.user_agent
FROM session_admin.session s JOIN bench.session_id i ON sha256(i.id::bytea) = s.session_hash;
ALTER TABLE by_hand.session ADD PRIMARY KEY (session_id);

-- Spring Session JDBC: its own table, without attributes: it reads nothing but the row
CREATE SCHEMA spring;
CREATE TABLE spring.spring_session (
    primary_id char(36) NOT NULL,
    session_id char(36) NOT NULL,
    creation_time bigint NOT NULL,
    last_access_time bigint NOT NULL,
    max_inactive_interval int NOT NULL,
    expiry_time bigint NOT NULL,
    principal_name varchar(100)
);
CREATE TABLE spring.spring_session_attributes (
    session_primary_id char(36) NOT NULL,
    attribute_name varchar(200) NOT NULL,
    attribute_bytes bytea NOT NULL,
    CONSTRAINT spring_session_attributes_pk PRIMARY KEY (session_primary_id, attribute_name)
);
INSERT INTO spring.spring_session
SELECT id, id, now_ms, now_ms, 1800, now_ms + 1800000, user_name
FROM bench.session_id, CAST(extract(epoch FROM now()) * 1000 AS bigint) AS now_ms;
ALTER TABLE spring.spring_session
    ADD CONSTRAINT spring_session_pk PRIMARY KEY (primary_id);
CREATE UNIQUE INDEX spring_session_ix1 ON spring.spring_session (session_id);
CREATE INDEX spring_session_ix2 ON spring.spring_session (expiry_time);
CREATE INDEX spring_session_ix3 ON spring.spring_session (principal_name);

VACUUM (ANALYZE);
CHECKPOINT;
