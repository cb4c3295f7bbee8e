--
-- What a view leaves out is not seen by functions and operators that come before its own
-- conditions because they seem cheaper, nor by EXPLAIN
--
BEGIN;
SELECT no_plan();
SET LOCAL session_admin.application = 'leak';

-- What is seen, and what is not: a session and a device that ended by time, whose rows
-- are still there; another user's; another application's
SELECT session_admin.open_session('leak 1', 'seen', '192.0.2.1', user_agent => 'agent seen', device => 'laptop seen'),
       session_admin.open_session('leak 2', 'hidden', '192.0.2.2', user_agent => 'agent hidden', device => 'laptop hidden'),
       session_admin.open_session('leak 3', 'hidden', '192.0.2.2', user_agent => 'agent hidden', application => 'hidden leak'),
       session_admin.issue_remember_me('seen', 'laptop seen'), session_admin.issue_remember_me('hidden', 'laptop hidden') \g /dev/null
UPDATE session_admin.session SET last_access_at = last_access_at - interval '20 hours'
WHERE application = 'leak' AND user_name = 'hidden';
UPDATE session_admin.remember_me_token SET created_at = created_at - interval '1 year'
WHERE application = 'leak' AND user_name = 'hidden';
-- the planner looks at what is frequent
ANALYZE session_admin.session, session_admin.remember_me_token, session_admin_internal.account;

CREATE SCHEMA leak;
CREATE TABLE leak.seen (value text);
CREATE FUNCTION leak.leak(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
    INSERT INTO leak.seen VALUES (value);
    RETURN true;
END
$$;
CREATE FUNCTION leak.leak(value text, text) RETURNS boolean LANGUAGE sql COST 0.0000001 RETURN leak.leak(value);
CREATE OPERATOR leak.=== (FUNCTION = leak.leak, LEFTARG = text, RIGHTARG = text, RESTRICT = eqsel, JOIN = eqjoinsel);

CREATE ROLE regress_auditor;
CREATE ROLE regress_application;
CREATE ROLE regress_part;
CREATE ROLE regress_nobody;
SELECT session_admin.grant_access('regress_auditor', 'auditor'),
       session_admin.grant_access('regress_application', 'application') \g /dev/null
GRANT USAGE ON SCHEMA leak TO PUBLIC;
GRANT ALL ON leak.seen TO PUBLIC;
-- a part of a view, as a DBA would let somebody see it
CREATE VIEW leak.part WITH (security_barrier) AS
SELECT * FROM session_admin.current_sessions WHERE application = 'leak';
GRANT SELECT ON leak.part TO regress_part;
-- a view checks who may call its functions as if they stood in the query
GRANT USAGE ON SCHEMA session_admin TO regress_part;
GRANT EXECUTE ON FUNCTION session_admin_internal.live_last_access, session_admin_internal.live_requests, session_admin.session_ref(bytea)
    TO regress_part;

-- Runs it as this role and gives what the function has seen
CREATE FUNCTION pg_temp.seen_by(role name, command text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM leak.seen;
    PERFORM set_config('role', role, true);
    EXECUTE command;
    PERFORM set_config('role', 'none', true);
    RETURN QUERY SELECT DISTINCT value FROM leak.seen WHERE value IS NOT NULL;
END
$$;
-- The plan, as this role sees it
CREATE FUNCTION pg_temp.plan_of(role name, command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    plan text := '';
BEGIN
    PERFORM set_config('role', role, true);
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, VERBOSE, TIMING off) ' || command LOOP
        plan := plan || line || E'\n';
    END LOOP;
    PERFORM set_config('role', 'none', true);
    RETURN plan;
END
$$;

SELECT set_has($$SELECT * FROM pg_temp.seen_by(current_user, 'SELECT FROM session_admin.session WHERE leak.leak(user_name)')$$,
    $$VALUES ('seen'), ('hidden')$$, 'the function tells what it sees');

-- Every view that somebody may be granted, with the function on all its columns
CREATE TEMP TABLE reading (view text, columns text, conditions text, operators text);
INSERT INTO reading
SELECT c.object, string_agg(format('%I::text', a.attname), ', '), string_agg(format('leak.leak(%I::text)', a.attname), ' AND '),
       string_agg(format('%I::text OPERATOR(leak.===) ''x''', a.attname), ' AND ')
FROM (SELECT DISTINCT object FROM session_admin_internal.capability WHERE kind = 'view') AS c
JOIN pg_attribute a ON a.attrelid = format('session_admin.%I', c.object)::regclass AND a.attnum > 0
GROUP BY c.object;
SELECT is_empty($$
    SELECT oid::regclass FROM pg_class JOIN reading ON relname = view
    WHERE relnamespace = 'session_admin'::regnamespace AND NOT coalesce('security_barrier=true' = ANY (reloptions), false)
    $$, 'each is a security barrier');
SELECT is_empty(format($$
    SELECT * FROM pg_temp.seen_by('regress_auditor', 'SELECT FROM session_admin.%1$I WHERE %2$s')
    EXCEPT SELECT unnest(ARRAY[%3$s]) FROM session_admin.%1$I
    $$, view, replace(conditions, '''', ''''''), columns), format('%s: a function sees what the view shows', view))
FROM reading WHERE view NOT IN ('health', 'nodes') ORDER BY view;    -- their columns change from one call to the next
SELECT is_empty(format($$
    SELECT * FROM pg_temp.seen_by('regress_auditor', 'EXPLAIN SELECT FROM session_admin.%I WHERE %s')
    $$, view, replace(operators, '''', '''''')), format('%s: an operator sees no statistics', view))
FROM reading ORDER BY view;
SELECT unalike(pg_temp.plan_of('regress_auditor', format('SELECT FROM session_admin.%I WHERE user_name OPERATOR(leak.===) ''x''', view)),
    '%hidden%', format('%s: EXPLAIN tells of no data', view))
FROM reading WHERE view IN ('current_sessions', 'remembered_devices') ORDER BY view;
SELECT results_eq($$SELECT count(*) FROM pg_stats WHERE schemaname = 'session_admin'
    AND has_table_privilege('regress_auditor', format('%I.%I', schemaname, tablename), 'SELECT')$$, $$VALUES (0::bigint)$$,
    'statistics of the tables are not shown to an auditor');

-- Who sees only a part
SELECT set_eq($$SELECT * FROM pg_temp.seen_by('regress_part', 'SELECT FROM leak.part WHERE leak.leak(application) AND leak.leak(user_name)')$$,
    ARRAY['leak', 'seen'], 'a part of a view');
SELECT set_eq(format($$SELECT * FROM pg_temp.seen_by('regress_application', 'SELECT FROM session_admin.%s(''seen'') WHERE leak.leak(device)')$$, f),
    ARRAY['laptop seen'], format('%s: a function sees the user''s own', f))
FROM unnest(ARRAY['my_sessions', 'my_devices']) AS f;
SELECT unalike(pg_temp.plan_of('regress_application', $$SELECT * FROM session_admin.my_sessions('seen')$$), '%session_state%',
    'and EXPLAIN tells nothing of how');
SELECT throws_ok(format($$SELECT pg_temp.plan_of('regress_nobody', 'SELECT * FROM session_admin.%I')$$, view), '42501', NULL,
    format('%s: who may not read it gets no plan of it', view))
FROM reading ORDER BY view;

SELECT * FROM finish();
ROLLBACK;
