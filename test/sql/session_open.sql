--
-- Sessions: open, touch, renew, close, time limits, and failed logins
--
\set SHOW_CONTEXT never
SET session_admin.application = 'session_test';
-- Touches go to the table here, and each is written, but where the interval
-- between two writes is tested; live.sql has those that stay in memory.
SET session_admin.use_shared_memory = off;
SET session_admin.touch_interval = 0;

-- What is in the table of this application; nothing here depends on the time.
CREATE TEMP VIEW live AS
SELECT session_admin.session_ref(session_hash), log_id, user_name, login_method,
       client_address, peer_address, user_agent, device, node, requests
FROM session_admin.session
WHERE application = 'session_test'
ORDER BY user_name, session_hash;

CREATE TEMP VIEW ended AS
SELECT session_admin.session_ref(session_hash), user_name, requests, end_reason,
       ended_by = session_user AS "by this role", ended_at >= created_at AS "ended after it began"
FROM session_admin_internal.ended_session
WHERE application = 'session_test'
ORDER BY ended_at, user_name, session_hash;

-- Time passes: the sessions become this much older, without a request.
CREATE FUNCTION pg_temp.pass_time(interval) RETURNS void
BEGIN ATOMIC
    UPDATE session_admin.session
    SET created_at = created_at - $1, last_access_at = last_access_at - $1
    WHERE application = 'session_test';
END;


--
-- Open
--

-- The answer is what people see of the session: the session_ref, which is not secret.
SELECT session_admin.open_session('id of alice', 'alice');
SELECT left(encode(sha256('id of alice'), 'hex'), 12) AS session_ref;

-- The application is made on first use, with generation 1.
SELECT name, generation FROM session_admin.application WHERE name = 'session_test';

-- The id is not kept, only its SHA-256; the clock is that of the call.
SELECT session_hash = sha256('id of alice') AS "only the hash",
       created_at = last_access_at AS "just now",
       created_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS "by the clock"
FROM session_admin.session WHERE application = 'session_test';

-- All that an application can say of a session
\x on
SELECT session_admin.open_session(
    session_id => '5ABE652343674332',
    user_name => 'bob',
    client_address => '192.0.2.7',
    forwarded_for => NULL,
    user_agent => 'Mozilla/5.0 (X11; Linux x86_64)',
    device => 'Bob''s laptop',
    node => 'node1',
    login_method => 'sso',
    application => 'session_test');
SELECT * FROM live WHERE user_name = 'bob';
\x off

-- Without a user it is an anonymous session: no login is counted.
SELECT session_admin.open_session('id of a visitor', client_address => '198.51.100.1');
SELECT session_ref, user_name, client_address FROM live WHERE user_name IS NULL;
SELECT user_name, login_count, last_login_method, last_login_address
FROM session_admin_internal.account WHERE application = 'session_test' ORDER BY user_name;

-- The SHA-256 in the place of the id: no secret gets to the server. It is the
-- same session, but its log_id cannot be known.
SELECT session_admin.open_session(sha256('id of carol'), 'carol');
SELECT session_ref, log_id, user_name FROM live WHERE user_name = 'carol';
SELECT session_admin.touch_session('id of carol') AS "by its id",
       session_admin.touch_session(sha256('id of carol')) AS "by its hash";

-- An id that is in use already: what it was used for ends.
SELECT session_admin.open_session('id of carol', 'dave');
SELECT session_ref, log_id, user_name, requests FROM live WHERE user_name IN ('carol', 'dave');
SELECT * FROM ended;

-- The same id in another application is another session.
SELECT session_admin.open_session('id of carol', 'carol', application => 'session_test_2');
SELECT application, user_name FROM session_admin.session
WHERE session_hash = sha256('id of carol') ORDER BY application;
SELECT session_admin.close_session('id of carol', 'session_test_2');

-- What comes from the internet is cut and kept as harmless text.
SELECT session_admin.open_session('id of eve', 'eve',
    user_agent => E'x\n\x1b[2J' || U&'\009B' || repeat('é', 1000),
    device => repeat('d', 1000), node => E'n\t1');
SELECT left(user_agent, 8) AS user_agent, octet_length(user_agent) AS bytes,
       octet_length(device) AS device_bytes, node
FROM live WHERE user_name = 'eve';

-- What the application itself says is checked.
SELECT session_admin.open_session(NULL::text, 'alice');
SELECT session_admin.open_session('', 'alice');
SELECT session_admin.open_session('\x00'::bytea, 'alice');
SELECT session_admin.open_session('x', '');
SELECT session_admin.open_session('x', repeat('a', 1025));
SELECT session_admin.open_session('x', 'alice', application => '');
SELECT session_admin.open_session('x', 'alice', application => repeat('a', 64));
SELECT session_admin.touch_session('x') AS "nothing was opened";


--
-- Behind proxies
--

-- By default the header is not believed: any client can write one.
SELECT session_admin.open_session('id of frank', 'frank', '10.0.0.1', '203.0.113.9');
SELECT client_address, peer_address FROM live WHERE user_name = 'frank';

-- From a proxy that is trusted it is: the last address that is not a trusted
-- proxy's. The change is obeyed at once.
SELECT session_admin.set_policy('trusted_proxies', '{10.0.0.0/8}');
SELECT session_admin.open_session('id of frank', 'frank', '10.0.0.1', '198.51.100.66, 203.0.113.9, 10.0.0.2');
SELECT client_address, peer_address FROM live WHERE user_name = 'frank';

-- Not from somebody else
SELECT session_admin.open_session('id of frank', 'frank', '192.0.2.1', '203.0.113.9');
SELECT client_address, peer_address FROM live WHERE user_name = 'frank';
SELECT client_address, event FROM session_admin_internal.login_event
WHERE application = 'session_test' AND user_name = 'frank' ORDER BY at;
SELECT session_admin.set_policy('trusted_proxies', NULL);
SELECT session_admin.close_session('id of frank');


--
-- Touch
--

-- It counts a request and tells whether the session is still valid.
SELECT session_admin.touch_session('id of alice');
SELECT session_admin.touch_session('id of alice');
SELECT user_name, requests FROM live WHERE user_name = 'alice';

-- Nobody's id, nobody's application: not valid, and nothing is made
SELECT session_admin.touch_session('id of nobody');
SELECT session_admin.touch_session('id of alice', 'session_test_unknown');
SELECT count(*) FROM session_admin.application WHERE name = 'session_test_unknown';
SELECT session_admin.touch_session(NULL::text);
SELECT session_admin.touch_session('');
SELECT session_admin.touch_session('\xdeadbeef'::bytea);

-- Many at once: the answer are those that are not valid.
SELECT session_admin.touch_sessions(ARRAY['id of alice', 'id of nobody', '5ABE652343674332', 'id of ghost']);
SELECT session_admin.touch_sessions(ARRAY[sha256('id of alice'), sha256('id of nobody')])
     = ARRAY[sha256('id of nobody')] AS "by hash";
-- each with the requests since the last time (0 or null: is it valid?)
SELECT session_admin.touch_sessions(ARRAY['id of alice', '5ABE652343674332', 'id of dave'], ARRAY[10, 20, 0]);
SELECT session_admin.touch_sessions(ARRAY['id of alice', 'id of alice'], ARRAY[100, NULL]);
SELECT user_name, requests FROM live WHERE user_name IN ('alice', 'bob') ORDER BY 1;
SELECT session_admin.touch_sessions('{}'::text[]) AS "none of none";
SELECT session_admin.touch_sessions('{id of alice,id of nobody}', '{0,0}') AS "a literal without a type";
-- a mistake counts nothing
SELECT session_admin.touch_sessions(NULL::text[]);
SELECT session_admin.touch_sessions(ARRAY['id of alice', NULL]);
SELECT session_admin.touch_sessions(ARRAY['id of alice', '']);
SELECT session_admin.touch_sessions(ARRAY['id of alice'], ARRAY[1, 2]);
SELECT session_admin.touch_sessions(ARRAY['id of alice', '5ABE652343674332'], ARRAY[1, -1]);
SELECT session_admin.touch_sessions(ARRAY['id of alice'], ARRAY[1000000001]);
SELECT user_name, requests FROM live WHERE user_name IN ('alice', 'bob') ORDER BY 1;

-- A transaction that cannot write is told the same.
BEGIN READ ONLY;
SELECT session_admin.touch_session('id of alice') AS alice,
       session_admin.touch_session('id of nobody') AS nobody;
SELECT session_admin.touch_sessions(ARRAY['id of alice', 'id of nobody']);
COMMIT;
-- so is one whose snapshot is older than the session
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM session_admin.session WHERE user_name = 'grace';
SELECT session_admin.open_session('id of grace', 'grace');
SELECT session_admin.touch_session('id of grace');
SELECT session_admin.close_session('id of grace');
SELECT session_admin.touch_session('id of grace');
COMMIT;

-- A touch writes only when the last write is older than the interval; what is
-- not written yet is counted in the meantime, and seen in the views.
SET session_admin.touch_interval = '1min';
SELECT session_admin.open_session('id of heidi', 'heidi');
SELECT ctid AS written_ctid, xmin AS written_xmin FROM session_admin.session
WHERE session_hash = sha256('id of heidi') \gset
SELECT session_admin.touch_session('id of heidi') FROM generate_series(1, 3);
SELECT session_admin.touch_sessions(ARRAY['id of heidi'], ARRAY[7]);
SELECT ctid = :'written_ctid' AND xmin = :'written_xmin' AS "not written", requests
FROM session_admin.session WHERE session_hash = sha256('id of heidi');
SELECT requests, last_access_at > created_at AS "last access moved"
FROM session_admin_internal.session_state WHERE session_hash = sha256('id of heidi');
-- once the interval is over, the next touch writes all
SELECT pg_temp.pass_time('1 minute');
SELECT session_admin.touch_session('id of heidi');
SELECT requests, last_access_at > now() - interval '1 minute' AS "last access written"
FROM session_admin.session WHERE session_hash = sha256('id of heidi');
-- those that are not written are in the history too
SELECT session_admin.touch_session('id of heidi');
SELECT session_admin.close_session('id of heidi');
SELECT user_name, requests FROM ended WHERE user_name = 'heidi';
-- and are not counted for what comes after, when the id may be used again
DELETE FROM session_admin_internal.ended_id;
SELECT session_admin.open_session('id of heidi', 'heidi');
SELECT requests FROM session_admin_internal.session_state WHERE session_hash = sha256('id of heidi');
SELECT session_admin.close_session('id of heidi');
SET session_admin.touch_interval = 0;


--
-- Renew: a new id for the same session, against session fixation
--

SELECT session_admin.renew_session('id of alice', 'new id of alice');
SELECT session_admin.touch_session('id of alice') AS "the old id",
       session_admin.touch_session('new id of alice') AS "the new one";
-- who knows only the new hash gives both as hashes
SELECT session_admin.renew_session(sha256('new id of alice'), sha256('newer id of alice'));
SELECT session_ref, log_id, user_name, requests FROM live WHERE user_name = 'alice';
-- the history has a row for each id, but it was one login
SELECT * FROM ended WHERE user_name = 'alice';
SELECT login_count FROM session_admin_internal.account
WHERE application = 'session_test' AND user_name = 'alice';

-- An anonymous session can be renewed as well.
SELECT session_admin.renew_session('id of a visitor', 'new id of a visitor');
SELECT session_ref, client_address FROM live WHERE user_name IS NULL;
SELECT session_admin.close_session('new id of a visitor');

-- Not one that has ended or never was, and not to an id in use
SELECT session_admin.renew_session('id of alice', 'newest id of alice');
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.renew_session('id of nobody', 'new id of nobody');
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.renew_session('newer id of alice', '5ABE652343674332');
\echo :LAST_ERROR_SQLSTATE
SELECT session_admin.renew_session('newer id of alice', 'newer id of alice');
SELECT session_admin.renew_session('newer id of alice', NULL);
SELECT session_admin.touch_session('newer id of alice') AS "as it was";

-- The absolute time limit goes on: renewing does not make a session younger.
SELECT pg_temp.pass_time('50 minutes');
DELETE FROM session_admin_internal.ended_id;
SELECT session_admin.renew_session('newer id of alice', 'id of alice');
SELECT last_access_at > now() - interval '1 minute' AS "used now",
       created_at < now() - interval '50 minutes' AS "opened long ago"
FROM session_admin.session WHERE session_hash = sha256('id of alice');
SELECT session_admin.close_session('id of alice');


--
-- Close
--

SELECT session_admin.close_session('5ABE652343674332');
SELECT session_admin.touch_session('5ABE652343674332');
SELECT * FROM ended WHERE user_name = 'bob';
-- what is not live cannot be closed
SELECT session_admin.close_session('5ABE652343674332') AS again,
       session_admin.close_session('id of nobody') AS nobody;
-- by hash: this was opened with its id
SELECT session_admin.close_session(sha256('id of carol'));
SELECT session_admin.close_session(NULL::text);
-- each end is in the feed, with the person whom the application named
SET session_admin.actor = 'eve, at her own wish';
SELECT session_admin.close_session('id of eve');
RESET session_admin.actor;
SELECT scope, application, user_name, session_admin.session_ref(session_hash), reason,
       actor, invalidated_by = session_user AS "by this role", sessions_ended
FROM session_admin_internal.invalidation
WHERE application = 'session_test' AND user_name = 'eve';
SELECT count(*) AS "still live" FROM live;


--
-- Time limits
--

-- An hour without a request, one day at most. They hold at the moment of the
-- touch, whether or not anybody has looked before.
SELECT session_admin.open_session('id of ivan', 'ivan');
SELECT pg_temp.pass_time('59 minutes');
SELECT session_admin.touch_session('id of ivan') AS "used within the hour";
SELECT pg_temp.pass_time('60 minutes');
SELECT session_admin.touch_session('id of ivan') AS "not used for an hour";
-- a touch that comes too late does not bring it back
SELECT session_admin.touch_session('id of ivan');
SELECT session_admin.renew_session('id of ivan', 'new id of ivan');
-- the row is still there; it shows as ended, at the moment when it did
SELECT user_name, ended_at - last_access_at AS "ended after", end_reason, ended_by, requests
FROM session_admin_internal.session_state WHERE user_name = 'ivan';
-- closing it now changes nothing but where it is kept
SELECT session_admin.close_session('id of ivan') AS "was live";
SELECT ended_at - last_access_at AS "ended after", end_reason, ended_by
FROM session_admin_internal.ended_session WHERE application = 'session_test' AND user_name = 'ivan';

-- However often it is used, it ends after a day.
SELECT session_admin.open_session('id of judy', 'judy');
DO $$
BEGIN
    FOR i IN 1 .. 35 LOOP
        PERFORM pg_temp.pass_time('40 minutes');
        ASSERT session_admin.touch_session('id of judy'), 'used within the hour';
    END LOOP;
END $$;
SELECT pg_temp.pass_time('40 minutes');
SELECT session_admin.touch_session('id of judy') AS "opened 24 hours ago";
SELECT ended_at - created_at AS "ended after", end_reason
FROM session_admin_internal.session_state WHERE user_name = 'judy';
SELECT session_admin.close_session('id of judy') AS "was live";

-- An anonymous session ends after ten minutes.
DELETE FROM session_admin_internal.ended_id;
SELECT session_admin.open_session('id of a visitor');
SELECT pg_temp.pass_time('9 minutes');
SELECT session_admin.touch_session('id of a visitor') AS "used within ten minutes";
SELECT pg_temp.pass_time('10 minutes');
SELECT session_admin.touch_session('id of a visitor') AS "not used for ten minutes";

-- An id whose session ran out can be used again: the old one has timed out, it
-- was not replaced.
SELECT session_admin.open_session('id of a visitor', 'karl');
SELECT user_name, end_reason FROM ended
WHERE session_ref = session_admin.session_ref('id of a visitor') AND end_reason <> 'renewed';

-- Other limits: obeyed by the sessions that are live already
SELECT session_admin.set_policy('idle_timeout', '5 minutes');
SELECT pg_temp.pass_time('4 minutes');
SELECT session_admin.touch_session('id of a visitor');
SELECT pg_temp.pass_time('5 minutes');
SELECT session_admin.touch_session('id of a visitor');
-- a user can have limits of their own, longer or shorter
SELECT session_admin.set_policy('idle_timeout', '10 minutes', 'karl');
SELECT session_admin.set_policy('absolute_timeout', '3 minutes', 'kiosk');
SELECT session_admin.touch_session('id of a visitor');
SELECT session_admin.open_session('id of the kiosk', 'kiosk');
SELECT session_admin.touch_session('id of the kiosk');
SELECT user_name, expires_at - last_access_at AS "ends after"
FROM session_admin_internal.session_state WHERE application = 'session_test' AND user_name = 'karl';
SELECT user_name, expires_at - created_at AS "ends after"
FROM session_admin_internal.session_state WHERE application = 'session_test' AND user_name = 'kiosk';
SELECT pg_temp.pass_time('3 minutes');
SELECT session_admin.touch_session('id of the kiosk') AS kiosk,
       session_admin.touch_session('id of a visitor') AS karl;
-- without them, the application's
SELECT session_admin.set_policy('absolute_timeout', NULL, 'kiosk');
SELECT session_admin.touch_session('id of the kiosk') AS kiosk;
-- a change that is rolled back changes nothing
BEGIN;
SELECT session_admin.set_policy('absolute_timeout', '1 second');
SELECT session_admin.touch_session('id of the kiosk') AS "in this transaction";
ROLLBACK;
SELECT session_admin.touch_session('id of the kiosk') AS "after it";
SELECT session_admin.close_session('id of the kiosk'), session_admin.close_session('id of a visitor');
SELECT session_admin.set_policy('idle_timeout', NULL), session_admin.set_policy('idle_timeout', NULL, 'karl');


--
-- Logins
--

-- Each is counted; the last and the one before are kept with the user.
SELECT session_admin.open_session('id 1 of lena', 'lena', '192.0.2.1', login_method => 'password');
SELECT session_admin.open_session('id 2 of lena', 'lena', '192.0.2.2', login_method => 'sso');
SELECT login_count, last_login_address, last_login_method,
       previous_login_at < last_login_at AS "previous login", last_seen_at = last_login_at AS seen
FROM session_admin_internal.account WHERE application = 'session_test' AND user_name = 'lena';

-- So are failed ones: in all, and since the last that succeeded.
SELECT session_admin.login_failed('lena', '203.0.113.5', NULL, 'curl/8.0', 'password');
SELECT session_admin.login_failed('lena', '203.0.113.5');
SELECT login_count, current_failed_count, total_failed_count, last_failed_login_at > last_login_at AS later
FROM session_admin_internal.account WHERE application = 'session_test' AND user_name = 'lena';
SELECT session_admin.open_session('id 3 of lena', 'lena', '192.0.2.1');
SELECT login_count, current_failed_count, total_failed_count
FROM session_admin_internal.account WHERE application = 'session_test' AND user_name = 'lena';

-- A name that nobody has gets no account: guessing names fills no table.
SELECT session_admin.login_failed('lema', '203.0.113.5');
SELECT session_admin.login_failed(E'robert\'); \n--' || repeat('x', 2000), '203.0.113.5', user_agent => repeat('x', 2000));
SELECT session_admin.login_failed(NULL);
SELECT count(*) FROM session_admin_internal.account
WHERE application = 'session_test' AND (user_name = 'lema' OR user_name LIKE 'robert%');

-- All of them are in the history.
SELECT left(user_name, 14) AS user_name, event, succeeded, login_method, client_address,
       left(user_agent, 8) AS user_agent, session_ref
FROM session_admin_internal.login_event
WHERE application = 'session_test' AND (user_name ~ '^(le|robert)' OR user_name IS NULL)
ORDER BY at;
SELECT max(octet_length(user_name)) AS name_bytes, max(octet_length(user_agent)) AS agent_bytes
FROM session_admin_internal.login_event WHERE application = 'session_test' AND NOT succeeded;

-- What is rolled back was no login.
BEGIN;
SELECT session_admin.open_session('id of mallory', 'mallory');
SELECT session_admin.touch_session('id of mallory') AS "in its transaction";
ROLLBACK;
SELECT session_admin.touch_session('id of mallory') AS "after it";
SELECT count(*) FROM session_admin_internal.account WHERE application = 'session_test' AND user_name = 'mallory';

-- A session that a remember-me token opened is raised by a password; the
-- session stays what it was, and gets a new id.
SELECT session_admin.open_session('id of nina', 'nina', '192.0.2.4', user_agent => 'Firefox', login_method => 'remember_me');
SELECT session_admin.reauthenticate('id of nina');
SELECT session_admin.touch_session('id of nina') AS valid;
SELECT user_name, login_method, client_address, created_at < now() AS "as old as before"
FROM session_admin.current_sessions WHERE application = 'session_test' AND user_name = 'nina';
SELECT session_admin.reauthenticate(sha256('id of nina'), 'webauthn');
SELECT session_admin.renew_session('id of nina', 'new id of nina');
SELECT event, succeeded, login_method, client_address, user_agent,
       session_ref = session_admin.session_ref('id of nina') AS "its session"
FROM session_admin.login_history WHERE application = 'session_test' AND user_name = 'nina' ORDER BY at;
SELECT login_count FROM session_admin.last_login WHERE application = 'session_test' AND user_name = 'nina';
SELECT session_admin.close_session('new id of nina');
SELECT end_reason, login_method, reauthenticated_at > created_at AS reauthenticated
FROM session_admin_internal.ended_session WHERE application = 'session_test' AND user_name = 'nina' ORDER BY ended_at;

-- not where there is nothing to raise, and not by less
SELECT session_admin.reauthenticate('new id of nina') AS ended, session_admin.reauthenticate('unheard of') AS unknown,
       session_admin.reauthenticate('id', application => 'unheard of') AS nowhere;
DELETE FROM session_admin_internal.ended_id;
SELECT session_admin.open_session('id of a visitor') IS NOT NULL AS opened;
SELECT session_admin.reauthenticate('id of a visitor');
SELECT session_admin.reauthenticate('id of a visitor', 'remember_me');
SELECT session_admin.reauthenticate('id of a visitor', NULL);
SELECT count(*) FROM session_admin_internal.login_event WHERE application = 'session_test' AND event = 'reauthenticated';

-- leave no session to the tests that follow
DELETE FROM session_admin.session WHERE application = 'session_test';
DROP VIEW live, ended;
