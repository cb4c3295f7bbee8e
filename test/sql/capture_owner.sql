--
-- What an index of a product's table calls runs with the rights of the table's owner, and
-- not with ours: while rows are planned for, sought, or deleted.
--
\set VERBOSITY terse
SET client_min_messages = error;
CREATE ROLE regress_product;
CREATE SCHEMA owned AUTHORIZATION regress_product;
SET ROLE regress_product;
CREATE FUNCTION owned.spies() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'the index is asked by a superuser';
    END IF;
    RETURN true;
END $$;
CREATE TABLE owned.spring_session (primary_id char(36) PRIMARY KEY, session_id varchar(36) UNIQUE,
    principal_name varchar(100), max_inactive_interval int);
RESET ROLE;
SELECT count(*) FROM session_admin.attach_application('spring_session', 'owned', 'owned');
SET ROLE regress_product;
CREATE INDEX spy ON owned.spring_session (principal_name) WHERE owned.spies();
INSERT INTO owned.spring_session VALUES ('1', 'a', 'alice', 1800), ('2', 'b', 'bob', 1800), ('3', 'c', 'carol', 1800);
RESET ROLE;

-- an index is asked once in each backend
\c
SET client_min_messages = error;
SET session_admin.application = 'owned';
SELECT rows_read, ended, taken, deleted FROM session_admin.reconcile_sessions();
\c
SET client_min_messages = error;
SET session_admin.application = 'owned';
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
\c
SET client_min_messages = error;
SET session_admin.application = 'owned';
SELECT sessions_ended FROM session_admin.invalidate_application();
SET ROLE regress_product;
SELECT count(*) FROM owned.spring_session;
RESET ROLE;
SELECT count(*) FROM session_admin_internal.product_remains;

-- whose owner may not read it is not compared, and nobody is logged out for that
SET ROLE regress_product;
INSERT INTO owned.spring_session VALUES ('4', 'd', 'dave', 1800);
REVOKE SELECT ON owned.spring_session FROM regress_product;
RESET ROLE;
SELECT ended, taken, deleted FROM session_admin.reconcile_sessions();
SELECT session_admin.touch_session('d');

-- and if the index fails, other products are compared all the same
SET ROLE regress_product;
GRANT SELECT ON owned.spring_session TO regress_product;
CREATE OR REPLACE FUNCTION owned.spies() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN RAISE EXCEPTION ''token %'', repeat(''x'', 32) USING ERRCODE = ''query_canceled''; END';
RESET ROLE;
CREATE SCHEMA later;
CREATE TABLE later.spring_session (LIKE owned.spring_session);
SELECT count(*) FROM session_admin.attach_application('spring_session', 'later', 'zebra');
INSERT INTO later.spring_session VALUES ('5', 'z', 'zoe', 1800);
ALTER TABLE later.spring_session DISABLE TRIGGER ALL;
DELETE FROM later.spring_session;
\c
SET client_min_messages = error;
SELECT task, done FROM session_admin.maintain() WHERE task = 'sessions reconciled';
SELECT session_admin.touch_session('z', application => 'zebra') AS z, session_admin.touch_session('d', application => 'owned') AS d;
SELECT application, message FROM session_admin_internal.capture_failure WHERE message ~ 'not compared';
DELETE FROM session_admin_internal.capture_failure WHERE application IN ('owned', 'zebra');

SELECT count(*) FROM session_admin.detach_application(application => 'zebra');
DELETE FROM session_admin.session WHERE application = 'zebra';
SELECT count(*) FROM session_admin.detach_application(application => 'owned');
DELETE FROM session_admin.session WHERE application = 'owned';
DELETE FROM session_admin_internal.product_remains WHERE application = 'owned';
DELETE FROM session_admin_internal.ended_id;
DROP SCHEMA owned, later CASCADE;
DROP ROLE regress_product;
