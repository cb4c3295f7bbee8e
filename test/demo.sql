-- The story that test/demo plays: Jira with 300 users, two nodes that follow, and an
-- admin.  What psql echoes is what the admin types.

\pset footer off

\echo
\echo '== 1. A Jira that knows nothing of all this: watch its tables'
\echo
SELECT part, object, state, note FROM session_admin.attach_application('jira') WHERE object !~ '[.]';

\echo '== 2. Two nodes follow with pg_session_follow; people come from behind a proxy'
\echo
SELECT session_admin.set_policy('trusted_proxies', '{10.0.0.0/8}');

\set ECHO none
DO $$
BEGIN
    FOR i IN 1..200 LOOP
        EXIT WHEN (SELECT count(*) = 2 FROM session_admin.nodes WHERE state = 'current');
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
\set ECHO queries
SELECT node, state FROM session_admin.nodes ORDER BY node;

\echo '   A login, as the application tells of it:'
\echo
SELECT session_admin.open_session('5ABE652343674332', 'alice.almeida', client_address => '10.0.0.5',
    forwarded_for => '203.0.113.7', user_agent => 'Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0');

\echo '   And 183 more. (The demo sets the clock of all back by hand, to the middle of a'
\echo '   morning.)'
\echo
\set ECHO none
SELECT setseed(0.42) \g /dev/null
SELECT session_admin.open_session(
    md5('session ' || n),
    CASE WHEN n % 12 <> 0 THEN lower_user_name END,
    '10.0.0.5',
    forwarded_for => '203.0.113.' || n,
    user_agent => (ARRAY['Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0',
                         'Mozilla/5.0 (Windows NT 10.0) Chrome/142.0',
                         'Mozilla/5.0 (iPhone) Safari/605.1'])[1 + n % 3],
    node => 'node' || 1 + n % 2)
FROM (SELECT row_number() OVER (ORDER BY id)::int AS n, lower_user_name FROM cwd_user) AS u
WHERE n BETWEEN 2 AND 181 \g /dev/null
SELECT session_admin.open_session(id, name, '10.0.0.5', '198.51.100.' || n,
    'Mozilla/5.0 (iPhone) Safari/605.1', node => 'node2')
FROM (VALUES ('alice at home', 'alice.almeida', 17), ('alice in the train', 'alice.almeida', 94),
             ('bruno in the train', 'bruno.almeida', 95)) AS s (id, name, n) \g /dev/null
UPDATE session_admin.session
SET created_at = created_at - age, requests = 1 + round(random() ^ 4 * 900),
    last_access_at = last_access_at - age * random() ^ 6 * 0.3
FROM (SELECT session_hash AS hash, random() * interval '150 minutes' AS age
      FROM (SELECT session_hash FROM session_admin.session ORDER BY session_hash) AS s) AS a
WHERE session_hash = hash;
\set ECHO queries

\echo '== 3. Who is logged in? The page that Jira calls "User Sessions":'
\echo
CREATE TEMPORARY VIEW user_sessions AS
SELECT session_ref AS session, user_name AS "user", kind AS type, client_address AS ip, requests,
       '(' || CASE WHEN idle < '1 minute' THEN extract(second FROM idle)::int || 's ago)'
                   ELSE extract(epoch FROM idle)::int / 60 || 'm ago)' END AS "last accessed",
       '(' || extract(epoch FROM now() - created_at)::int / 60 || 'm ago)' AS created
FROM session_admin.current_sessions;

SELECT * FROM user_sessions ORDER BY session LIMIT 8;

\echo '   Who is busiest?'
\echo
SELECT * FROM user_sessions ORDER BY requests DESC LIMIT 5;

\echo '== 4. Log one user out, everywhere, now, and know that every node did it'
\echo
SELECT * FROM user_sessions WHERE "user" = 'alice.almeida' ORDER BY ip;

\timing on
SELECT * FROM session_admin.invalidate_user('alice.almeida');
\timing off
\set ECHO none
SELECT max(id) AS id FROM session_admin.invalidations \gset
\set ECHO queries
\timing on
SELECT * FROM session_admin.wait_for_nodes(:id);
\timing off
\set heard `tail -n 1 node1.log`
\echo
\echo '   That was the receipt of both nodes. What node1 was told:'
\echo '  ' :heard
\echo
SELECT session_admin.touch_session('5ABE652343674332') AS "is her session still valid?";
SELECT count(*) AS "her remember-me rows in Jira"
FROM remembermetoken JOIN app_user ON user_key = username WHERE lower_user_name = 'alice.almeida';

\echo '== 5. Bruno changes his password in Jira: the session he does it in goes on, no other'
\echo
BEGIN;
SET LOCAL session_admin.actor = 'bruno.almeida';
SET LOCAL session_admin.current_session = 'bruno in the train';
UPDATE cwd_user SET credential = '{PKCS5S2}new' WHERE lower_user_name = 'bruno.almeida';
COMMIT;
SELECT * FROM user_sessions WHERE "user" = 'bruno.almeida';

\echo '   The same for many, rolled back, reaches nobody:'
\echo
BEGIN;
UPDATE cwd_user SET credential = '{PKCS5S2}new' WHERE lower_user_name LIKE '%.becker';
SELECT count(*) AS "sessions of Beckers" FROM user_sessions WHERE "user" LIKE '%.becker';
ROLLBACK;
SELECT count(*) AS "sessions of Beckers" FROM user_sessions WHERE "user" LIKE '%.becker';

\echo '== 6. Everybody out: one row is written, however many they are'
\echo
\timing on
SELECT * FROM session_admin.invalidate_application();
\timing off
\set ECHO none
SELECT max(id) AS id FROM session_admin.invalidations \gset
\set ECHO queries
\timing on
SELECT * FROM session_admin.wait_for_nodes(:id);
\timing off
\echo
SELECT count(*) AS "logged in" FROM session_admin.current_sessions;
\set heard `cat node2.log`
\echo '   All that node2 was told:'
\echo :heard
\echo

\echo '== 7. What stays: who was here, who ended it, and why'
\echo
SELECT end_reason, ended_by, actor, count(*) AS sessions, sum(requests) AS requests,
       date_trunc('second', max(duration)) AS longest
FROM session_admin.session_history GROUP BY 1, 2, 3 ORDER BY sessions DESC;

SELECT user_name, last_login_at::date, last_login_address, previous_login_at::date, login_count
FROM session_admin.last_login ORDER BY last_login.last_login_at DESC NULLS LAST LIMIT 5;

\echo '   Who has not logged in this calendar year?'
\echo
SELECT user_name, last_login_at::date, login_count
FROM session_admin.dormant_users(since => date_trunc('year', now())) AS d
ORDER BY d.last_login_at DESC NULLS LAST LIMIT 5;
SELECT count(*) AS "not this year", count(*) FILTER (WHERE last_login_at IS NULL) AS "never"
FROM session_admin.dormant_users(since => date_trunc('year', now()));
