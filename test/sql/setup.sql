--
-- CREATE EXTENSION, and what it refuses
--
\set VERBOSITY terse

-- a schema that somebody else prepared is refused, not used
CREATE SCHEMA session_admin;
CREATE EXTENSION session_admin;
DROP SCHEMA session_admin;
CREATE SCHEMA session_admin_internal;
CREATE EXTENSION session_admin;
DROP SCHEMA session_admin_internal;

-- so is another schema
CREATE EXTENSION session_admin SCHEMA public;

-- only a superuser creates it: it is not trusted
CREATE ROLE regress_setup;
GRANT CREATE ON DATABASE contrib_regression TO regress_setup;
SET ROLE regress_setup;
CREATE EXTENSION session_admin;
RESET ROLE;
REVOKE CREATE ON DATABASE contrib_regression FROM regress_setup;

CREATE EXTENSION session_admin;
ALTER EXTENSION session_admin SET SCHEMA public;

-- all that it made is in its own schemas
SELECT pg_describe_object(classid, objid, objsubid) AS "elsewhere"
FROM pg_depend, pg_identify_object(classid, objid, objsubid) AS o
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'session_admin')
  AND coalesce(o.schema, '') NOT IN ('session_admin', 'session_admin_internal')
  AND NOT (o.type = 'schema' AND o.name IN ('session_admin', 'session_admin_internal'))
ORDER BY 1;

-- a role without a grant cannot even look
SET ROLE regress_setup;
SELECT count(*) FROM session_admin.session;
SELECT count(*) FROM session_admin_internal.account;
RESET ROLE;

-- every function and view says what it is for, and none depends on the caller's search_path
SELECT p.oid::regprocedure AS "without a comment"
FROM pg_proc p
WHERE pronamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace)
  AND obj_description(p.oid, 'pg_proc') IS NULL
ORDER BY 1::text;
SELECT c.oid::regclass AS "without a comment"
FROM pg_class c
WHERE relnamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace) AND relkind IN ('v', 'r', 'p')
  AND NOT relispartition AND obj_description(c.oid, 'pg_class') IS NULL
ORDER BY 1::text;
SELECT p.oid::regprocedure AS "with the caller's search_path"
FROM pg_proc p
WHERE pronamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace) AND prosecdef
  AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)
ORDER BY 1::text;

-- DROP EXTENSION leaves nothing, and it can be made again, also for a connection that
-- has used the tables of the one before
SELECT session_ref IS NOT NULL AS opened FROM session_admin.open_session('before', 'alice') AS session_ref;
DROP EXTENSION session_admin;
SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'session_admin%';
CREATE EXTENSION session_admin;
SELECT session_admin.touch_session('before');
SELECT session_ref IS NOT NULL AS opened FROM session_admin.open_session('after', 'alice') AS session_ref;
BEGIN;
DROP EXTENSION session_admin;
CREATE EXTENSION session_admin;
SELECT session_admin.touch_session('after');
ROLLBACK;
SELECT session_admin.touch_session('after');
DROP EXTENSION session_admin;
CREATE EXTENSION session_admin;
DROP ROLE regress_setup;
