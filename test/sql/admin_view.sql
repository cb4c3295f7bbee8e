--
-- Views: what people read of sessions that are live, ended, and dead but not yet archived
--
\set SHOW_CONTEXT never
SET session_admin.application = 'view_test';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET session_admin.touch_interval = 0;
SET timezone = 'UTC';

-- Time passes: everything becomes this much older, without a request.
CREATE FUNCTION pg_temp.pass_time(interval) RETURNS void
BEGIN ATOMIC
    UPDATE session_admin.session
    SET created_at = created_at - $1, last_access_at = last_access_at - $1
    WHERE application = 'view_test';
    UPDATE session_admin.remember_me_token SET created_at = created_at - $1
    WHERE application = 'view_test';
    UPDATE session_admin_internal.application_generation SET ended_at = ended_at - $1
    WHERE application = 'view_test';
END;

-- What the views say, in whole minutes
CREATE FUNCTION pg_temp.minutes(interval) RETURNS interval IMMUTABLE
RETURN make_interval(mins => round(extract(epoch FROM $1) / 60)::int);
CREATE TEMP VIEW here AS
SELECT user_name, kind, requests, pg_temp.minutes(idle) AS idle,
       pg_temp.minutes(expires_at - statement_timestamp()) AS "expires in",
       pg_temp.minutes(statement_timestamp() - created_at) AS "opened before"
FROM session_admin.current_sessions
WHERE application = 'view_test'
ORDER BY created_at, user_name;
CREATE TEMP VIEW history AS
SELECT user_name, kind,
       pg_temp.minutes(statement_timestamp() - ended_at) AS "ended before",
       end_reason,
       CASE ended_by WHEN session_user THEN 'this role' ELSE ended_by END AS ended_by, actor,
       pg_temp.minutes(duration) AS duration,
       EXISTS (SELECT FROM session_admin.session s
               WHERE s.application = h.application
                 AND session_admin.session_ref(s.session_hash) = h.session_ref) AS "has a row"
FROM session_admin.session_history h
WHERE application = 'view_test'
ORDER BY created_at, user_name;


--
-- current_sessions
--

SELECT session_admin.set_policy('trusted_proxies', '10.0.0.0/8');
SELECT session_admin.open_session('5ABE652343674332', 'alice', '10.0.0.1', '192.0.2.1',
    'Mozilla/5.0 (X11; Linux x86_64)', 'Alice''s laptop', 'node1');
\x on
SELECT application, session_ref, log_id, user_name, kind, login_method, client_address,
       peer_address, user_agent, device, node, requests, created_at = last_access_at AS unused,
       idle BETWEEN '0' AND '1 minute' AS "idle is short", expires_at - last_access_at AS expires
FROM session_admin.current_sessions WHERE application = 'view_test';
\x off

-- Each touch counts at once.
SELECT session_admin.touch_session('5ABE652343674332');
SELECT session_admin.touch_sessions(ARRAY['5ABE652343674332'], ARRAY[41]);
SELECT session_admin.open_session('visitor');
SELECT * FROM here;

-- It expires when it was idle for too long …
SELECT pg_temp.pass_time('5 minutes');
SELECT * FROM here;
SELECT pg_temp.pass_time('10 minutes');
SELECT * FROM here;

-- … or when it is too old, however busy; whichever comes first. Users may have limits of
-- their own.
SELECT session_admin.set_policy('absolute_timeout', '40 minutes');
SELECT * FROM here;
SELECT session_admin.set_policy('absolute_timeout', '10 days', 'alice');
SELECT session_admin.set_policy('idle_timeout', '3 hours', 'alice');
SELECT * FROM here;
SELECT session_admin.set_policy('absolute_timeout', NULL);
SELECT session_admin.set_policy('absolute_timeout', NULL, 'alice');
SELECT session_admin.set_policy('idle_timeout', NULL, 'alice');

-- Clocks that go back make no negative idle time.
BEGIN;
UPDATE session_admin.session SET last_access_at = last_access_at + interval '1 hour'
WHERE application = 'view_test' AND user_name = 'alice';
SELECT idle FROM session_admin.current_sessions
WHERE application = 'view_test' AND user_name = 'alice';
ROLLBACK;
-- A slip of a DBA breaks no view: such a time is refused (check_violation).
\set VERBOSITY sqlstate
UPDATE session_admin.session SET last_access_at = 'infinity' WHERE application = 'view_test';
UPDATE session_admin.session SET created_at = '-infinity' WHERE application = 'view_test';
INSERT INTO session_admin.remember_me_token (series, application, generation, user_name, validator_hash, created_at)
VALUES ('a', 'view_test', 1, 'alice', sha256('a'), '294276-01-01');
\set VERBOSITY default


--
-- session_history
--

-- The live, those that ended by time and have no row in the history yet, and those
-- that have: it makes no difference to who reads it.
SELECT session_admin.open_session('bob', 'bob');
SELECT session_admin.open_session('carol', 'carol');
SELECT session_admin.close_session('carol');
SELECT * FROM history;

-- Everybody at once: no row moves, all views know it.
SELECT session_admin.open_session('dave', 'dave');
SET session_admin.actor = 'ada';
SELECT sessions_ended FROM session_admin.invalidate_application('custom:drill');
RESET session_admin.actor;
SELECT * FROM here;
SELECT * FROM history;

-- Time changes nothing about when, why and by whom they ended; what had ended before, by
-- time, is not ended again.
SELECT pg_temp.pass_time('2 hours');
SELECT session_admin.open_session('erin', 'erin');
SELECT * FROM here;
SELECT * FROM history;

-- Nor does archiving them.
CREATE TEMP TABLE before AS
SELECT * FROM session_admin.session_history WHERE application = 'view_test' AND ended_at IS NOT NULL;
SELECT count(*) > 0 AS maintained FROM session_admin.maintain();
SELECT count(*) FROM session_admin.session WHERE application = 'view_test';
SELECT * FROM history;
SELECT count(*) AS "told otherwise" FROM (
    SELECT * FROM before
    EXCEPT
    SELECT * FROM session_admin.session_history) d;

-- A DBA's DELETE is an end like any other.
DELETE FROM session_admin.session WHERE application = 'view_test';
SELECT * FROM history WHERE user_name = 'erin';


--
-- preview_invalidation: current_sessions, with the filters of invalidate_sessions
--

SELECT session_admin.open_session('a1', 'alice', '192.0.2.1', node => 'node1', user_agent => 'Firefox');
SELECT session_admin.open_session('a2', 'alice', '198.51.100.1', node => 'node2', user_agent => 'curl/8.0');
SELECT session_admin.open_session('b1', 'bob', '192.0.2.2', node => 'node2', user_agent => 'Firefox');
SELECT user_name, client_address, node FROM session_admin.preview_invalidation(user_name => 'alice') ORDER BY 2;
SELECT user_name, client_address, node FROM session_admin.preview_invalidation(address => '192.0.2.0/24') ORDER BY 2;
SELECT user_name, client_address, node
FROM session_admin.preview_invalidation(node => 'node2', user_agent_like => 'curl%');
SELECT count(*) FROM session_admin.preview_invalidation(idle_for => '1 minute');
SELECT count(*) FROM session_admin.preview_invalidation(anonymous => true);
SELECT count(*) FROM session_admin.preview_invalidation(user_name => 'alice', application => 'elsewhere');
SELECT session_admin.preview_invalidation();
SELECT count(*) FROM (
    SELECT * FROM session_admin.preview_invalidation(anonymous => false)
    EXCEPT
    SELECT * FROM session_admin.current_sessions) d;


--
-- last_login, login_history, logins_per_day
--

SELECT session_admin.login_failed('bob', '203.0.113.66');
SELECT session_admin.login_failed('nobody of this name', '203.0.113.66');
SELECT user_name, last_login_address, last_login_method, login_count,
       previous_login_at < last_login_at AS "came before",
       last_failed_login_at > last_login_at AS "failed after it",
       current_failed_count AS failed, total_failed_count AS "failed ever",
       last_seen_at >= last_login_at AS "seen since", live_sessions
FROM session_admin.last_login WHERE application = 'view_test' ORDER BY user_name;

-- Whoever is here was seen when the session was last used.
SELECT pg_temp.pass_time('30 minutes');
SELECT session_admin.touch_session('a1');
SELECT last_seen_at = (SELECT max(last_access_at) FROM session_admin.current_sessions
                       WHERE application = 'view_test' AND user_name = 'alice') AS "seen by the touch"
FROM session_admin.last_login WHERE application = 'view_test' AND user_name = 'alice';

SELECT user_name, event, succeeded, login_method, client_address, node,
       session_ref IS NOT NULL AS "with session"
FROM session_admin.login_history WHERE application = 'view_test' AND at > now() - interval '1 day'
ORDER BY at;

-- Of fixed days: remember-me tokens are not counted as logins.
INSERT INTO session_admin_internal.login_event (at, application, user_name, event, succeeded) VALUES
('2026-01-01 08:00+00', 'view_test', 'alice', 'login', true),
('2026-01-01 08:01+00', 'view_test', 'alice', 'remember_me_issued', true),
('2026-01-01 22:30+00', 'view_test', 'alice', 'login', true),
('2026-01-01 23:30+00', 'view_test', 'bob', 'login', true),
('2026-01-01 23:30+00', 'view_test', 'bob', 'login_failed', false),
('2026-01-02 08:00+00', 'view_test', 'bob', 'login_failed', false),
('2026-01-02 08:01+00', 'view_test', 'eve', 'login_failed', false);
SELECT * FROM session_admin.logins_per_day
WHERE application = 'view_test' AND day < '2026-02-01' ORDER BY day;
-- The days are those of whoever asks.
SET timezone = 'Europe/Vienna';
SELECT * FROM session_admin.logins_per_day
WHERE application = 'view_test' AND day < '2026-02-01' ORDER BY day;
SET timezone = 'UTC';


--
-- login_pressure: who is being guessed, and from where
--

SELECT count(session_admin.login_failed('bob', '203.0.113.66')) FROM generate_series(1, 20);
SELECT count(session_admin.login_failed('user' || n, '203.0.113.67')) FROM generate_series(1, 3) n;
SELECT length(session_admin.open_session('b2', 'bob', '203.0.113.66')) AS guessed;
SELECT session_admin.login_failed('without an address');
-- long ago
INSERT INTO session_admin_internal.login_event (at, application, user_name, event, succeeded, client_address)
SELECT now() - interval '2 hours', 'view_test', 'bob', 'login_failed', false, '203.0.113.68';
CREATE TEMP VIEW pressure AS
SELECT kind, user_name, client_address, failed_logins, logins, users, addresses,
       first_failed_at <= last_failed_at AS "from, to"
FROM session_admin.login_pressure
WHERE application = 'view_test' ORDER BY kind DESC, failed_logins DESC, user_name, client_address;
SELECT * FROM pressure;
SELECT session_admin.set_policy('login_pressure_window', '3 hours');
SELECT * FROM pressure WHERE user_name = 'bob' OR client_address = '203.0.113.68';
SELECT session_admin.set_policy('login_pressure_window', NULL);


--
-- remembered_devices: those whose token is valid
--

CREATE TEMP VIEW devices AS
SELECT user_name, device, user_agent, client_address, last_used_at IS NULL AS unused,
       pg_temp.minutes(expires_at - statement_timestamp()) AS "expires in"
FROM session_admin.remembered_devices WHERE application = 'view_test' ORDER BY device;
SELECT split_part(session_admin.issue_remember_me('alice', 'laptop', 'Firefox', '192.0.2.1'),
                  ':', 1) AS selector \gset
SELECT series = :'selector' AS "series is the selector"
FROM session_admin.remembered_devices WHERE application = 'view_test';
SELECT * FROM devices;
SELECT pg_temp.pass_time('13 days');
SELECT length(session_admin.issue_remember_me('alice', 'phone')) > 0 AS issued;
SELECT * FROM devices;
SELECT pg_temp.pass_time('1 day');
SELECT * FROM devices;
SELECT count(*) FROM session_admin.remember_me_token WHERE application = 'view_test';
SELECT tokens_revoked FROM session_admin.invalidate_application();
SELECT * FROM devices;


--
-- invalidations, nodes
--

SELECT scope, user_name, session_ref, reason, actor, invalidated_by = session_user AS "by this role",
       sessions_ended, tokens_revoked
FROM session_admin.invalidations WHERE application = 'view_test' AND scope <> 'session' ORDER BY id;

-- joined; then current, once it has synced; behind, when there is something new; and at last
-- its lease is over.
SELECT session_admin.join_node('view_node') AS position \gset
SELECT state, pending, last_sync_at IS NULL AS "not synced" FROM session_admin.nodes WHERE node = 'view_node';
SELECT applied AS position FROM session_admin.sync_node('view_node', :'position') LIMIT 1 \gset
SELECT state, pending, lease_expires_at - last_sync_at AS lease FROM session_admin.nodes WHERE node = 'view_node';
SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT state, pending FROM session_admin.nodes WHERE node = 'view_node';
SELECT applied AS position FROM session_admin.sync_node('view_node', :'position') LIMIT 1 \gset
SELECT state, pending FROM session_admin.nodes WHERE node = 'view_node';
SELECT applied AS position FROM session_admin.sync_node('view_node', :'position') LIMIT 1 \gset
SELECT state, pending FROM session_admin.nodes WHERE node = 'view_node';
UPDATE session_admin_internal.node SET lease_expires_at = lease_expires_at - interval '1 minute' WHERE node = 'view_node';
SELECT state, pending FROM session_admin.nodes WHERE node = 'view_node';
SELECT session_admin.leave_node('view_node');


--
-- health
--

-- After maintenance there is nothing to do.
SELECT count(*) > 0 AS maintained FROM session_admin.maintain();
SELECT name, CASE WHEN name NOT IN ('preloaded', 'nodes') THEN status END AS status
FROM session_admin.health ORDER BY name;


--
-- What reads one user's rows among many reaches the index through every view.
--

CREATE FUNCTION pg_temp.plan(view text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE format('EXPLAIN (costs off) SELECT * FROM session_admin.%I WHERE user_name = ''u''', view)
    LOOP
        IF line ~ 'Index Cond: .*user_name = ''u''' THEN
            RETURN NEXT format('%s: by the index', view);
        ELSIF line ~ 'Seq Scan on (session|account|ended_session|login_event|remember_me_token)[_ ]' THEN
            RETURN NEXT format('%s: %s', view, line);
        END IF;
    END LOOP;
END
$$;
BEGIN;
SET LOCAL enable_seqscan = off;
SELECT DISTINCT pg_temp.plan(v)
FROM unnest('{current_sessions,session_history,last_login,login_history,remembered_devices}'::text[]) AS v
ORDER BY 1;
ROLLBACK;

SELECT session_admin.open_session('frank', 'frank');
SELECT session_admin.open_session('visitor');
SELECT pg_temp.pass_time('30 minutes');
-- A function in somebody's WHERE sees no row that the view leaves out.
CREATE FUNCTION pg_temp.spy(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
    RAISE NOTICE 'saw %', $1;
    RETURN true;
END
$$;
SELECT count(*) FROM session_admin.current_sessions
WHERE application = 'view_test' AND pg_temp.spy(user_name);


--
-- Where a plan could be parallel, the views of live sessions are not: a backend that has not
-- looked at an application yet reads it then.
--

\c -
SET session_admin.application = 'view_test';
SELECT session_admin.open_session('parallel', 'u') IS NOT NULL AS opened;
\c -
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(*) > 0 AS "there are sessions" FROM session_admin.current_sessions;
SELECT count(*) > 0 AS "there were sessions" FROM session_admin.session_history;
