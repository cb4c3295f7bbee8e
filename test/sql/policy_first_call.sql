--
-- The first touch of a connection: it prepares no statement, and reads as much where many
-- users have policies of their own as where none has
--
\set VERBOSITY terse

-- pages that a query reads in this connection, with those that its planning reads
CREATE FUNCTION pages(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT json) ' || query INTO plan;
    RETURN (plan->0->'Plan'->>'Shared Hit Blocks')::bigint + (plan->0->'Plan'->>'Shared Read Blocks')::bigint;
END
$$;

SELECT session_admin.open_session('first', 'alice', application => 'first') <> '' AS opened;
SELECT session_admin.touch_session('first', 'first');

\c -
SELECT session_admin.touch_session('first', 'first');
SELECT ident AS prepared FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource';

-- the first touch of a connection, and one after a change of a policy, where one user has some
INSERT INTO session_admin_internal.policy (application, user_name, name, value)
VALUES ('first', 'user 0', 'idle_timeout', '30 minutes');
SELECT session_admin.touch_session('first', 'first');
\c -
-- what the code itself reads of the catalogs, which differs
SELECT session_admin.touch_session('none', 'other');
SELECT pages($$SELECT session_admin.touch_session('first', 'first')$$) AS first \gset
SELECT pages($$SELECT session_admin.touch_session('first', 'first')$$) < 30 AS "few, again";
UPDATE session_admin_internal.policy SET value = '20 minutes' WHERE application = 'first';
SELECT pages($$SELECT session_admin.touch_session('first', 'first')$$) AS changed \gset

-- the same where 20,000 users have some
INSERT INTO session_admin_internal.policy (application, user_name, name, value)
SELECT 'first', 'user ' || n, 'idle_timeout', '30 minutes' FROM generate_series(1, 20000) AS n;
SELECT session_admin.touch_session('first', 'first');
\c -
SELECT session_admin.touch_session('none', 'other');
SELECT pages($$SELECT session_admin.touch_session('first', 'first')$$) - :first < 30 AS "few more";
UPDATE session_admin_internal.policy SET value = '30 minutes' WHERE application = 'first' AND user_name = 'user 0';
SELECT pages($$SELECT session_admin.touch_session('first', 'first')$$) - :changed < 30 AS "few more";

-- a user's own limits hold as soon as they are set, also where memory knew others
SELECT session_admin.touch_session('first', 'first') AS valid;
UPDATE session_admin.session SET created_at = created_at - interval '2 hours' WHERE application = 'first';
SELECT session_admin.touch_session('first', 'first') AS valid,
       session_admin.touch_session('first', 'first') AS "valid again";
SELECT session_admin.set_policy('absolute_timeout', '1 hour', 'alice', 'first');
SELECT session_admin.touch_session('first', 'first') AS valid;
SELECT session_admin.set_policy('absolute_timeout', '3 hours', 'alice', 'first');
SELECT session_admin.touch_session('first', 'first') AS valid,
       session_admin.touch_session('first', 'first') AS "valid again";
SELECT session_admin.set_policy('absolute_timeout', '1 hour', 'bob', 'first');
SELECT session_admin.touch_session('first', 'first') AS valid;
BEGIN;
SELECT session_admin.set_policy('absolute_timeout', '1 hour', 'alice', 'first');
SELECT session_admin.touch_session('first', 'first') AS "valid here";
ROLLBACK;
SELECT session_admin.touch_session('first', 'first') AS valid;

-- the entry of memory would not be told
BEGIN;
SELECT session_admin.set_policy('absolute_timeout', '1 hour', 'alice', 'first');
PREPARE TRANSACTION 'policy';

DELETE FROM session_admin_internal.policy WHERE application = 'first';
SELECT session_admin.close_session('first', 'first');
DROP FUNCTION pages(text);
