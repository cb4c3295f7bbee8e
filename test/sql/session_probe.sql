--
-- Probes: health checks and bots, which are counted and not kept
--
\set SHOW_CONTEXT never
SET session_admin.application = 'probe_test';
CREATE TEMP VIEW counted AS
SELECT application, user_agent_like, address, probes, last_probe_at <= now() AS counted FROM session_admin.probes
WHERE application LIKE 'probe\_test%' ORDER BY user_agent_like, address;
CREATE TEMP VIEW kept AS
SELECT client_address, user_agent FROM session_admin.current_sessions WHERE application LIKE 'probe\_test%' ORDER BY 1, 2;

-- By user agent, by address, or both
SELECT session_admin.set_policy('trusted_proxies', '10.0.0.1');
SELECT session_admin.add_probe_rule('kube-probe/%');
SELECT session_admin.add_probe_rule(address => '192.0.2.0/24');
SELECT session_admin.add_probe_rule('%bot%', '198.51.100.0/24');
SELECT session_admin.add_probe_rule('kube-probe/%') AS again;
SELECT session_admin.open_session('p1', client_address => '10.1.1.1', user_agent => 'kube-probe/1.30') AS agent,
       session_admin.open_session('p2', client_address => '192.0.2.7', user_agent => 'curl') AS address,
       session_admin.open_session(sha256('p3'), client_address => '192.0.2.8') AS "no agent",
       session_admin.open_session('p4', client_address => '198.51.100.1', user_agent => 'Good bot/1.0') AS "both",
       session_admin.open_session('p5', client_address => '10.0.0.1', forwarded_for => '192.0.2.9') AS proxied;
SELECT session_admin.touch_session('p1') AS "not kept";
SELECT * FROM counted;

-- Nobody else is one: not users, not half a match, not in another application.
SELECT session_admin.open_session('s1', client_address => '10.1.1.1', user_agent => 'Kube-probe/1.30') IS NOT NULL AS "another agent",
       session_admin.open_session('s2', client_address => '192.0.3.7') IS NOT NULL AS "another address",
       session_admin.open_session('s3', client_address => '198.51.100.1') IS NOT NULL AS "no agent",
       session_admin.open_session('s4', client_address => '10.1.1.1', user_agent => 'Good bot/1.0') IS NOT NULL AS "half",
       session_admin.open_session('s5') IS NOT NULL AS "nothing",
       session_admin.open_session('s6', 'alice', '192.0.2.7', user_agent => 'kube-probe/1.30') IS NOT NULL AS "a user",
       session_admin.open_session('s7', client_address => '192.0.2.7', application => 'probe_test_2') IS NOT NULL AS "elsewhere",
       session_admin.open_session('s8', client_address => '10.0.0.2', forwarded_for => '192.0.2.9') IS NOT NULL AS "claimed";
SELECT * FROM kept;
SELECT * FROM counted;

-- Many leave the tables as they were; what is rolled back was a probe all the same.
SELECT pg_relation_size('session_admin.session') AS size \gset
SELECT count(*) AS asked, count(session_admin.open_session('many ' || i, client_address => '192.0.2.1')) AS kept
FROM generate_series(1, 20000) AS i;
BEGIN;
SELECT session_admin.open_session('p6', client_address => '192.0.2.7');
ROLLBACK;
SELECT pg_relation_size('session_admin.session') = :size AS "as large as before";
SELECT count(*) FROM session_admin.login_history WHERE application = 'probe_test' AND user_name IS NULL;
SELECT * FROM counted;

-- maintain() writes the counts; they are the same before and after it, and while it runs.
BEGIN;
SELECT count(*) FROM session_admin.maintain() WHERE task = 'probes counted';
SELECT probes FROM counted;
SAVEPOINT s;
SELECT session_admin.open_session('p7', client_address => '192.0.2.7');
SELECT count(*) FROM session_admin.maintain() WHERE task = 'probes counted';
ROLLBACK TO s;
SELECT probes FROM counted;
COMMIT;
SELECT probes FROM counted;
SELECT count(*) FROM session_admin.maintain() WHERE task = 'probes counted';
SELECT probes FROM session_admin_internal.probe_rule WHERE application = 'probe_test' ORDER BY user_agent_like, address;
SELECT probes FROM counted;

-- The same where nothing is shared: the backend counts, and writes now and then.
SET session_admin.use_shared_memory = off;
SELECT count(*) AS asked, count(session_admin.open_session('more ' || i, client_address => '192.0.2.1')) AS kept
FROM generate_series(1, 1000) AS i;
SELECT probes FROM counted;
SET session_admin.touch_interval = 0;
BEGIN;
SELECT session_admin.open_session('p8', client_address => '192.0.2.1');
SELECT probes FROM session_admin_internal.probe_rule WHERE address = '192.0.2.0/24';
ROLLBACK;
SELECT probes FROM counted;
SELECT session_admin.open_session('p9', client_address => '192.0.2.1');
SELECT probes FROM session_admin_internal.probe_rule WHERE address = '192.0.2.0/24';
SELECT probes FROM counted;
RESET session_admin.touch_interval;
RESET session_admin.use_shared_memory;

-- A rule that is removed takes its count along, and comes back without.
SELECT session_admin.remove_probe_rule('kube-probe/%');
SELECT session_admin.remove_probe_rule('kube-probe/%') AS again;
SELECT session_admin.remove_probe_rule('%bot%') AS "another rule";
SELECT session_admin.open_session('p10', user_agent => 'kube-probe/1.30') IS NOT NULL AS kept;
SELECT count(*) FROM session_admin.maintain() WHERE task = 'probes counted';
SELECT session_admin.add_probe_rule('kube-probe/%');
SELECT * FROM counted;

-- What is refused
SELECT session_admin.add_probe_rule();
SELECT session_admin.remove_probe_rule(NULL, NULL);
SELECT session_admin.add_probe_rule('');
SELECT session_admin.add_probe_rule(repeat('x', 1025));
SELECT session_admin.add_probe_rule(E'bot\n%');
SELECT session_admin.add_probe_rule('bot\');
SELECT session_admin.add_probe_rule('100\\%\\');
SELECT session_admin.add_probe_rule('bot', application => '');

DELETE FROM session_admin.session WHERE application LIKE 'probe\_test%';
DELETE FROM session_admin_internal.probe_rule WHERE application LIKE 'probe\_test%';
