--
-- What housekeeping and views cost grows with the work, and not with what is beside it
--
SET session_admin.application = 'growth';
SET client_min_messages = warning;

-- Live sessions, of ten times as many users as they have sessions each
CREATE FUNCTION pg_temp.open_many(prefix text, n int, used_before interval) RETURNS void
BEGIN ATOMIC
    INSERT INTO session_admin.session (session_hash, application, generation, created_at,
        last_access_at, user_name, client_address)
    SELECT sha256(convert_to(prefix || i, 'UTF8')), 'growth', 1, now() - used_before,
           now() - used_before, 'user ' || i, '192.0.2.1'
    FROM generate_series(1, n) i;
END;

-- How many pages a query looks at
CREATE FUNCTION pg_temp.buffers(query text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || query INTO plan;
    RETURN (plan->0->'Plan'->>'Shared Hit Blocks')::bigint
           + (plan->0->'Plan'->>'Shared Read Blocks')::bigint;
END
$$;

-- How many rows of a table were read without an index, and how often that began
CREATE FUNCTION pg_temp.rows_read(regclass) RETURNS bigint
RETURN pg_stat_get_tuples_returned($1);
CREATE FUNCTION pg_temp.scans(regclass) RETURNS bigint
RETURN pg_stat_get_numscans($1);

SELECT session_admin.open_session('first', 'first') IS NOT NULL AS opened;


--
-- Archiving: many batches look at each row once
--

SELECT pg_temp.open_many('live', 20000, '0');
SELECT pg_temp.open_many('ended', 20000, '2 hours');
SELECT pg_stat_force_next_flush();
SELECT pg_temp.rows_read('session_admin.session') AS before,
       (SELECT count(*) FROM session_admin.session) AS n \gset
SELECT done >= 20000 AS archived FROM session_admin.maintain() WHERE task = 'sessions archived';
SELECT pg_stat_force_next_flush();
-- other tasks look at the table, too, and autovacuum may: but none once for each of 20 batches
SELECT pg_temp.rows_read('session_admin.session') - :before < 10 * :n AS "a few looks at each row";
SELECT count(*) FROM session_admin.session WHERE application = 'growth';


--
-- Flushing: writing each row again, as a flush does, writes to no index
--

SELECT pg_stat_force_next_flush();
SELECT pg_stat_get_tuples_updated('session_admin.session'::regclass) AS updated,
       pg_stat_get_tuples_hot_updated('session_admin.session'::regclass) AS hot \gset
UPDATE session_admin.session SET requests = requests + 1 WHERE application = 'growth';
SELECT pg_stat_force_next_flush();
SELECT pg_stat_get_tuples_updated('session_admin.session'::regclass) - :updated AS written,
       pg_stat_get_tuples_hot_updated('session_admin.session'::regclass) - :hot > 19000 AS "nearly all on their page";


--
-- Views: what no session needs is not looked up for each of them
--

SELECT pg_stat_force_next_flush();
SELECT pg_temp.scans('session_admin_internal.late_ending') AS before \gset
SELECT count(*) FROM session_admin.current_sessions WHERE application = 'growth';
SELECT pg_stat_force_next_flush();
SELECT pg_temp.scans('session_admin_internal.late_ending') - :before < 10 AS "late endings are looked up once";

-- once to read the catalogs
SELECT pg_temp.buffers($$SELECT * FROM session_admin.preview_invalidation(user_name => 'user 1')$$) > 0 AS read;
SELECT pg_temp.buffers($$SELECT * FROM session_admin.preview_invalidation(user_name => 'user 1')$$)
    < pg_relation_size('session_admin.session') / current_setting('block_size')::int / 2
    AS "a user's sessions are found by the index";


--
-- Nodes: however many they are and however far behind, the feed is not read
--

CREATE FUNCTION pg_temp.feed(n int) RETURNS void
BEGIN ATOMIC
    INSERT INTO session_admin_internal.invalidation (scope, application, user_name, reason)
    SELECT 'user', 'growth', 'user ' || i, 'admin' FROM generate_series(1, n) i;
END;

SELECT count(*) FROM generate_series(1, 20) i, session_admin.join_node('growth_' || i);
SELECT pg_temp.feed(50);
SELECT DISTINCT pending FROM session_admin.nodes WHERE application = 'growth';
SELECT pg_temp.feed(1950);
SELECT pg_temp.buffers('SELECT * FROM session_admin.nodes') AS few \gset
SELECT pg_temp.feed(18000);
SELECT pg_temp.buffers('SELECT * FROM session_admin.nodes') < 2 * :few AS "ten times the feed costs the same";
SELECT DISTINCT pending >= 20000 AS "no fewer than there are" FROM session_admin.nodes WHERE application = 'growth';
SELECT count(session_admin.leave_node('growth_' || i)) FROM generate_series(1, 20) i;


--
-- History: what is kept is not looked at
--

SELECT session_admin.set_policy('history_retention', '1 day');
SELECT format('session_admin_internal.ended_session_%s', to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')) AS month \gset
SELECT pg_stat_force_next_flush();
SELECT pg_temp.rows_read(:'month') AS before \gset
SELECT done FROM session_admin.maintain() WHERE task = 'history forgotten';
SELECT pg_stat_force_next_flush();
SELECT pg_temp.rows_read(:'month') - :before < 10 AS "what is kept is not read";
-- what is older goes
UPDATE session_admin_internal.ended_session SET ended_at = now() - interval '25 hours'
WHERE application = 'growth' AND user_name = 'user 7';
SELECT done FROM session_admin.maintain() WHERE task = 'history forgotten';
SELECT count(*) FROM session_admin_internal.ended_session
WHERE application = 'growth' AND user_name IN ('user 7', 'user 8');
SELECT session_admin.set_policy('history_retention', NULL);

SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT done > 20000 AS archived FROM session_admin.maintain() WHERE task = 'sessions archived';

DELETE FROM session_admin_internal.invalidation WHERE application = 'growth';
DELETE FROM session_admin_internal.ended_session WHERE application = 'growth';
DELETE FROM session_admin_internal.ended_id WHERE application = 'growth';
-- the tests that follow find small tables
VACUUM session_admin.session, session_admin_internal.invalidation;
