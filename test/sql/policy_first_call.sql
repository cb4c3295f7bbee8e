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

\c -
SELECT pages($$SELECT session_admin.touch_session('first', 'first')$$) AS pages \gset
SELECT pages($$SELECT session_admin.touch_session('first', 'first')$$) < 30 AS "few, again";
-- as many as 20,000 set_policy() would
INSERT INTO session_admin_internal.policy (application, user_name, name, value)
SELECT 'first', 'user ' || n, 'idle_timeout', '30 minutes' FROM generate_series(1, 20000) AS n;

-- in this connection, which is told of it, and in the first touch of another one
SELECT pages($$SELECT session_admin.touch_session('first', 'first')$$) - :pages < 30 AS "few more";
\c -
SELECT pages($$SELECT session_admin.touch_session('first', 'first')$$) - :pages < 30 AS "few more";
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
