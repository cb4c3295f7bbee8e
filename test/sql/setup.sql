--
-- CREATE EXTENSION, and what it refuses
--
\set VERBOSITY terse

-- a schema that somebody else prepared is refused, not used
CREATE SCHEMA session_admin;
CREATE EXTENSION session_admin;
DROP SCHEMA session_admin;

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

-- all that it made is in its own schema
SELECT pg_describe_object(classid, objid, objsubid) AS "elsewhere"
FROM pg_depend, pg_identify_object(classid, objid, objsubid) AS o
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'session_admin')
  AND o.schema IS DISTINCT FROM 'session_admin'
  AND NOT (o.type = 'schema' AND o.name = 'session_admin')
ORDER BY 1;

-- a role without a grant cannot even look
SET ROLE regress_setup;
SELECT count(*) FROM session_admin.session;
RESET ROLE;

-- every function and view says what it is for, and none depends on the caller's search_path
SELECT p.oid::regprocedure AS "without a comment"
FROM pg_proc p
WHERE pronamespace = 'session_admin'::regnamespace
  AND obj_description(p.oid, 'pg_proc') IS NULL
ORDER BY 1::text;
SELECT c.oid::regclass AS "without a comment"
FROM pg_class c
WHERE relnamespace = 'session_admin'::regnamespace AND relkind IN ('v', 'r', 'p')
  AND NOT relispartition AND obj_description(c.oid, 'pg_class') IS NULL
ORDER BY 1::text;
SELECT p.oid::regprocedure AS "with the caller's search_path"
FROM pg_proc p
WHERE pronamespace = 'session_admin'::regnamespace AND prosecdef
  AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)
ORDER BY 1::text;

-- DROP EXTENSION leaves nothing, and it can be made again
DROP EXTENSION session_admin;
SELECT count(*) FROM pg_namespace WHERE nspname = 'session_admin';
CREATE EXTENSION session_admin;
DROP ROLE regress_setup;
