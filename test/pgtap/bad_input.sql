-- Bad input: a clear error or harmless text, whatever is given to whichever function
--
-- For each function of the schema there is a call that is right.  Every argument
-- of it is then replaced by everything that is wrong for its type, one at a time.
-- A function, or a type of argument, that is missing here fails the test.
--
-- SESSION_ADMIN_BAD_INPUT=10 in the environment tries one in 10 of what is wrong, for
-- a server that is slow (test/tools/sanitize).

BEGIN;
SET LOCAL client_min_messages = error;
SET LOCAL session_admin.application = 'bad input';
-- nothing here takes long; what would never end is stopped, and fails
SET LOCAL statement_timeout = '5min';
\set one_in 1
\getenv one_in SESSION_ADMIN_BAD_INPUT
SELECT set_config('statement_timeout', '1h', true),
       session_admin.set_policy('anonymous_idle_timeout', '1 day'), session_admin.set_policy('idle_timeout', '1 day')
WHERE :one_in > 1 \g /dev/null
SET LOCAL jit = off;

-- What the calls below refer to
SELECT session_admin.open_session('alice''s session', 'alice', '10.0.0.1', user_agent => 'Mozilla/5.0') \g /dev/null
SELECT session_admin.open_session('anonymous session', NULL, '10.0.0.1') \g /dev/null
SELECT session_admin.join_node('node 1') \g /dev/null
SELECT session_admin.issue_remember_me('alice', 'laptop') AS token \gset
CREATE TEMPORARY TABLE remembered AS SELECT :'token' AS token, split_part(:'token', ':', 1) AS series;
CREATE ROLE session_admin_bad_input;
CREATE SCHEMA product;
SET LOCAL search_path = product;
\ir ../products/jira.sql
RESET search_path;
INSERT INTO product.cwd_user (id, directory_id, user_name, lower_user_name, active, credential)
VALUES (1, 1, 'Alice', 'alice', 1, 'secret');
SELECT count(*) FROM session_admin.attach_application('jira', 'product') \g /dev/null

CREATE TEMPORARY TABLE good_call (
    id          int GENERATED ALWAYS AS IDENTITY,
    signature   regprocedure NOT NULL,
    arguments   text NOT NULL,              -- SQL expressions, with | between them
    state       text NOT NULL DEFAULT '00000' -- SQLSTATE of its outcome
);

-- pure functions
INSERT INTO good_call (signature, arguments) VALUES
('session_admin.session_ref(text)', $$'a session'$$),
('session_admin.session_ref(bytea)', $$sha256('a session')$$),
('session_admin.log_id(text)', $$'a session'$$),
('session_admin.log_id(bytea)', $$sha256('a session')$$),
('session_admin.client_address(inet,text,cidr[])', $$'10.0.0.1' | '192.0.2.1, 10.0.0.2' | '{10.0.0.0/8}'$$),
('session_admin_internal.check_filter(integer,interval)', $$1 | '1 hour'$$);

-- sessions
INSERT INTO good_call (signature, arguments) VALUES
('session_admin.open_session(text,text,inet,text,text,text,text,text,text)',
 $$'new session' | 'bob' | '10.0.0.1' | '192.0.2.1' | 'Mozilla/5.0' | 'laptop' | 'node 1' | 'password' | NULL$$),
('session_admin.open_session(bytea,text,inet,text,text,text,text,text,text)',
 $$sha256('new session') | NULL | '10.0.0.1' | '192.0.2.1' | 'Mozilla/5.0' | 'laptop' | 'node 1' | 'password' | NULL$$),
('session_admin.touch_session(text,text)', $$'alice''s session' | NULL$$),
('session_admin.touch_session(bytea,text)', $$sha256('alice''s session') | NULL$$),
('session_admin.touch_session_user(text,text)', $$'alice''s session' | NULL$$),
('session_admin.touch_session_user(bytea,text)', $$sha256('alice''s session') | NULL$$),
('session_admin.touch_sessions(text[],bigint[],text)', $$ARRAY['alice''s session', 'another'] | '{1,2}' | NULL$$),
('session_admin.touch_sessions(bytea[],bigint[],text)', $$ARRAY[sha256('alice''s session')] | '{1}' | NULL$$),
('session_admin.touch_sessions(text,bigint[],text)', $$'{alice''s session,another}' | '{1,2}' | NULL$$),
('session_admin.renew_session(text,text,text)', $$'alice''s session' | 'a new id' | NULL$$),
('session_admin.renew_session(bytea,bytea,text)', $$sha256('alice''s session') | sha256('a new id') | NULL$$),
('session_admin.reauthenticate(text,text,text)', $$'alice''s session' | 'password' | NULL$$),
('session_admin.reauthenticate(bytea,text,text)', $$sha256('alice''s session') | 'password' | NULL$$),
('session_admin.close_session(text,text)', $$'alice''s session' | NULL$$),
('session_admin.close_session(bytea,text)', $$sha256('alice''s session') | NULL$$),
('session_admin.login_failed(text,inet,text,text,text,text)',
 $$'alice' | '10.0.0.1' | '192.0.2.1' | 'Mozilla/5.0' | 'password' | NULL$$),
('session_admin_internal.live_last_access(bytea,text)', $$sha256('alice''s session') | 'bad input'$$),
('session_admin_internal.live_requests(bytea,text)', $$sha256('alice''s session') | 'bad input'$$),
('session_admin_internal.ended_until(text,text,text,interval,timestamptz,timestamptz)',
 $$'bad input' | 'alice' | 'jira' | '1 hour' | now() | now()$$);

-- invalidation
INSERT INTO good_call (signature, arguments) VALUES
('session_admin.invalidate_session(text,text,text)', $$session_admin.session_ref('alice''s session') | 'admin' | NULL$$),
('session_admin.invalidate_user(text,text,boolean,text,text)',
 $$'alice' | 'alice''s session' | true | 'admin' | NULL$$),
('session_admin.invalidate_user(text,bytea,boolean,text,text)',
 $$'alice' | sha256('alice''s session') | true | 'admin' | NULL$$),
('session_admin.invalidate_sessions(text,cidr,text,text,interval,timestamptz,boolean,text,text)',
 $$'alice' | '10.0.0.0/8' | 'Mozilla%' | NULL | NULL | now() + '1 day' | false | 'admin' | NULL$$),
('session_admin.preview_invalidation(text,cidr,text,text,interval,timestamptz,boolean,text)',
 $$'alice' | '10.0.0.0/8' | 'Mozilla%' | NULL | NULL | now() + '1 day' | false | NULL$$),
('session_admin_internal.sessions_to_invalidate(text,cidr,text,text,interval,timestamptz,boolean,text)',
 $$'alice' | '10.0.0.0/8' | 'Mozilla%' | NULL | NULL | now() + '1 day' | false | 'bad input'$$),
('session_admin.invalidate_application(text,text)', $$'admin' | NULL$$),
('session_admin.invalidate_all(text)', $$'admin'$$);

-- nodes; what this transaction ended is not to be waited for yet
INSERT INTO good_call (signature, arguments, state) VALUES
('session_admin.join_node(text,text)', $$'node 2' | NULL$$, '00000'),
('session_admin.sync_node(text,pg_snapshot,interval)',
 $$'node 1' | (SELECT handed FROM session_admin_internal.node WHERE node = 'node 1') | '0'$$, '00000'),
('session_admin.leave_node(text)', $$'node 1'$$, '00000'),
-- here, nothing was lost
('session_admin.witness_invalidations(text,jsonb)', $$'node 1' | '[]'$$, '55000'),
('session_admin_internal.health_lease_is_over(timestamptz,timestamptz,bigint,text,bigint,text)',
 $$now() | now() | 0 | '0/1' | 0 | '0/1'$$, '00000'),
('session_admin.wait_for_nodes(bigint,interval)',
 $$(SELECT invalidation_id FROM session_admin.invalidate_user('alice')) | '1 second'$$, '55000');

-- remember-me
INSERT INTO good_call (signature, arguments) VALUES
('session_admin.issue_remember_me(text,text,text,inet,text)', $$'alice' | 'laptop' | 'Mozilla/5.0' | '10.0.0.1' | NULL$$),
('session_admin.redeem_remember_me(text,inet,text,text)', $$(SELECT token FROM remembered) | '10.0.0.1' | 'Mozilla/5.0' | NULL$$),
('session_admin.revoke_remember_me(text,text)', $$(SELECT series FROM remembered) | NULL$$),
('session_admin.rename_remembered_device(text,text,text)', $$(SELECT series FROM remembered) | 'laptop' | NULL$$);

-- users
INSERT INTO good_call (signature, arguments) VALUES
('session_admin.rename_user(text,text,text)', $$'alice' | 'alicia' | NULL$$),
('session_admin.anonymize_user(text,text,text)', $$'alice' | 'user 1' | NULL$$),
('session_admin.my_sessions(text,text)', $$'alice' | NULL$$),
('session_admin.my_devices(text,text)', $$'alice' | NULL$$),
('session_admin.end_my_session(text,text,text)',
 $$'alice' | session_admin.session_ref('alice''s session') | NULL$$),
('session_admin.end_my_other_sessions(text,text,boolean,text)',
 $$'alice' | 'alice''s session' | true | NULL$$),
('session_admin.end_my_other_sessions(text,bytea,boolean,text)',
 $$'alice' | sha256('alice''s session') | true | NULL$$),
('session_admin.erase_user(text,text)', $$'alice' | NULL$$);

-- policies and access
INSERT INTO good_call (signature, arguments)
SELECT 'session_admin.set_policy(text,text,text,text)',
       format($$%L | %L | %s | NULL$$, name, default_value, CASE WHEN per_user THEN '''alice''' ELSE 'NULL' END)
FROM session_admin_internal.policy_definition;
INSERT INTO good_call (signature, arguments) VALUES
('session_admin.add_probe_rule(text,cidr,text)', $$'kube-probe/%' | '192.0.2.0/24' | NULL$$),
('session_admin.remove_probe_rule(text,cidr,text)', $$'kube-probe/%' | '192.0.2.0/24' | NULL$$),
('session_admin_internal.live_probes(text,text,cidr)', $$'bad input' | 'kube-probe/%' | '192.0.2.0/24'$$),
('session_admin.grant_access(regrole,text)', $$'session_admin_bad_input' | 'auditor'$$),
('session_admin.revoke_access(regrole,text)', $$'session_admin_bad_input' | 'auditor'$$);
INSERT INTO good_call (signature, arguments)
SELECT format('session_admin_internal.capability_%s()', capability)::regprocedure, ''
FROM (SELECT DISTINCT capability FROM session_admin_internal.capability) AS c;

-- products
INSERT INTO good_call (signature, arguments) VALUES
('session_admin_internal.match_product(text,text)', $$'jira' | 'product'$$),
('session_admin_internal.refused_ending(text,text,text,text,oid,text,text)',
 $$'bad input' | 'jira' | 'product' | 'account' | 'session_admin.session'::regclass::oid | 'user_name' | 'token'$$),
('session_admin.describe_product(text,jsonb,text,text[],text)',
 $$'shop' | '{"account": {"tables": "users", "columns": {"user_name": "email"}}}' | 'Shop' | '{"a note"}' | '^x'$$),
('session_admin.forget_product(text)', $$'shop'$$),
('session_admin.detect_product(text)', $$'product'$$),
('session_admin_internal.json_names(jsonb)', $$'["a", "b"]'$$),
('session_admin_internal.described_parts(jsonb)', $$'{"account": {"tables": "users", "columns": {"user_name": "email"}}}'$$),
('session_admin_internal.described_columns(jsonb)', $$'{"account": {"tables": "users", "columns": {"user_name": "email"}}}'$$),
('session_admin_internal.refused_type(text,oid,text[])', $$'created_at' | 25 | NULL$$),
('session_admin.verify_attachments()', ''),
('session_admin.acknowledge_failures(text)', 'NULL'),
('session_admin.backfill_batch(integer,text)', $$1000 | NULL$$),
('session_admin.reconcile_sessions(text)', $$NULL$$),
('session_admin.attach_application(text,text,text)', $$'jira' | 'product' | NULL$$),
('session_admin.detach_application(text,text,text)', $$'jira' | 'product' | NULL$$);

-- housekeeping and reports
INSERT INTO good_call (signature, arguments) VALUES
('session_admin_internal.feed_position()', ''),
('session_admin.maintain()', ''),
('session_admin_internal.health_items()', ''),
('session_admin_internal.worker_status()', ''),
('session_admin_internal.live_status()', ''),
('session_admin_internal.note_database()', ''),
('session_admin_internal.application_or_current(text)', $$'bad input'$$),
('session_admin.dormant_users(timestamptz,text)', $$now() | NULL$$),
('session_admin_internal.check_steps(timestamptz,timestamptz,interval)', $$now() - '1 day'::interval | now() | '1 hour'$$),
('session_admin.concurrent_sessions(timestamptz,timestamptz,interval,text)',
 $$now() - '1 day'::interval | now() | '1 hour' | NULL$$),
('session_admin.html_report(timestamptz,bigint,text)', $$now() - '1 day'::interval | 100 | NULL$$),
('session_admin_internal.html(text)', $$'<>&"'$$),
('session_admin_internal.html_time(timestamptz)', $$now()$$),
('session_admin_internal.html_row(text[])', $$'{a,b}'$$),
('session_admin_internal.html_table(text,text,text[],text,bigint,bigint)',
 $$'t' | 'Title' | '{A,B}' | '<tr><td>a</td><td>b</td></tr>' | 1 | 100$$);

-- triggers cannot be called
INSERT INTO good_call (signature, arguments, state)
SELECT oid, '', '39P01' FROM pg_proc
WHERE pronamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace) AND prorettype = 'trigger'::regtype;

-- What is wrong: as good as everything, for a text
CREATE TEMPORARY TABLE bad_value (
    type        regtype NOT NULL,
    value       text NOT NULL               -- an SQL expression
);
INSERT INTO bad_value VALUES
('text', $$NULL$$),
('text', $$''$$),
('text', $$' '$$),
('text', $$repeat('x', 1000000)$$),
('text', $$repeat('ü', 500000)$$),
('text', $$repeat('"\', 500)$$),
('text', $$E'\x01\b\t\n\r\x1b[2J\x7f\u0085\u009b31m'$$),
('text', $$repeat(E'\x1b]0;title\x07', 1000)$$),
('text', $$E'\u202e\ufeff\u200b\U0010ffff'$$),
('text', $$'''; DROP TABLE session_admin.session; --'$$),
('text', $$'"; DROP TABLE session_admin.session; --'$$),
('text', $$E'\\''; DROP TABLE session_admin.session; --'$$),
('text', $t$'$$; DROP TABLE session_admin.session; --'$t$),
('text', $$''') OR true OR (''x'' = ''x'$$),
('text', $t$'$$"%s%n%1$I'$t$),
('text', $$'\'$$),
('text', $$'%'$$),
('text', $$'<script>alert(1)</script>'$$),
('text', $$'{"json": ['$$),
('text', $$'{1,{2'$$),
('text', $$'infinity'$$),
('text', $$'-1'$$),
('text', $$'9223372036854775808'$$),
('text', $$'2147483647 years'$$),
('text', $$'-1 second'$$),
('text', $$'999.1.1.1/33'$$),
('text', $$'for="[::1, for='$$),
('text', $$'custom:'$$),
('text', $$'custom:' || repeat('x', 1000000)$$),
('text', $$E'custom:\x1b[2J'$$),
('text', $$'00000000'$$),
('text', $$repeat('f', 64)$$),
('text', $$repeat('f', 65)$$),
('text', $$repeat('0', 32) || ':' || repeat('0', 64)$$),
('text', $$repeat('z', 32) || ':' || repeat('z', 64)$$),
('text', $$':'$$),
('text', $$'pg_catalog'$$),
('text', $$'session_admin'$$),
('text', $$'jira'$$),
('jsonb', $$NULL$$),
('jsonb', $$'null'$$),
('jsonb', $$'[]'$$),
('jsonb', $$'{}'$$),
('jsonb', $$'{"": ""}'$$),
('jsonb', $$'{"account": {}}'$$),
('jsonb', $$'{"account": {"tables": [[]], "columns": {"user_name": [{}]}, "key_of": 1, "required": []}}'$$),
('jsonb', $$'{"account": {"tables": {"tables": null}, "columns": {"user_name": {"column": {}, "path": {}}}}}'$$),
('jsonb', $$jsonb_build_object(repeat('x', 1000000), repeat('"', 1000000))$$),
('jsonb', $$jsonb_build_object('account', jsonb_build_object('tables', repeat('x', 1000000), 'columns',
    jsonb_build_object(repeat(E'\x1b', 10000), repeat('x', 1000000))))$$),
('jsonb', $$(repeat('[', 1000) || repeat(']', 1000))::jsonb$$),
('oid', $$NULL$$),
('oid', $$0$$),
('oid', $$4294967295$$),
('bytea', $$NULL$$),
('bytea', $$''$$),
('bytea', $$'\x00'$$),
('bytea', $$decode(repeat('00', 31), 'hex')$$),
('bytea', $$decode(repeat('00', 33), 'hex')$$),
('bytea', $$decode(repeat('ff', 32), 'hex')$$),
('bytea', $$decode(repeat('00', 1000000), 'hex')$$),
('text[]', $$NULL$$),
('text[]', $$'{}'$$),
('text[]', $$'{NULL}'$$),
('text[]', $$'{""}'$$),
('text[]', $$'{{a,b},{c,d}}'$$),
('text[]', $$'[-5:-4]={a,b}'$$),
('text[]', $$ARRAY[repeat('x', 1000000), E'\x1b']$$),
('text[]', $$array_fill('x'::text, ARRAY[10000])$$),
('bytea[]', $$NULL$$),
('bytea[]', $$'{}'$$),
('bytea[]', $$'{NULL}'$$),
('bytea[]', $$'{""}'$$),
('bytea[]', $$ARRAY[[sha256('a')], [sha256('b')]]$$),
('bytea[]', $$ARRAY[decode(repeat('00', 1000000), 'hex')]$$),
('bigint[]', $$NULL$$),
('bigint[]', $$'{}'$$),
('bigint[]', $$'{NULL}'$$),
('bigint[]', $$'{NULL,NULL}'$$),
('bigint[]', $$'{0,-1}'$$),
('bigint[]', $$'{-1}'$$),
('bigint[]', $$'{9223372036854775807}'$$),
('bigint[]', $$'{9223372036854775807,-9223372036854775808}'$$),
('bigint[]', $$'{{1},{2}}'$$),
('bigint[]', $$'{1,2,3}'$$),
('cidr[]', $$NULL$$),
('cidr[]', $$'{}'$$),
('cidr[]', $$'{NULL}'$$),
('cidr[]', $$'{0.0.0.0/0,::/0}'$$),
('cidr[]', $$'{{::ffff:0:0/96},{::/128}}'$$),
('cidr[]', $$array_fill('10.0.0.0/8'::cidr, ARRAY[10000])$$),
('inet', $$NULL$$),
('inet', $$'0.0.0.0/0'$$),
('inet', $$'255.255.255.255'$$),
('inet', $$'::'$$),
('inet', $$'::ffff:1.2.3.4/96'$$),
('inet', $$'2001:db8::1/0'$$),
('cidr', $$NULL$$),
('cidr', $$'0.0.0.0/0'$$),
('cidr', $$'::/0'$$),
('cidr', $$'::ffff:1.2.3.4'$$),
('interval', $$NULL$$),
('interval', $$'0'$$),
('interval', $$'-1 microsecond'$$),
('interval', $$'1 microsecond'$$),
('interval', $$'178000000 years'$$),
('interval', $$'-178000000 years'$$),
('interval', $$make_interval(days => 2147483647)$$),
('interval', $$make_interval(days => -2147483648)$$),
('interval', $$make_interval(secs => 9223372036854)$$),
('interval', $$make_interval(secs => -9223372036854)$$),
('interval', $$make_interval(months => 2147483647, days => 2147483647, secs => 9223372036854)$$),
('timestamptz', $$NULL$$),
('timestamptz', $$'infinity'$$),
('timestamptz', $$'-infinity'$$),
('timestamptz', $$'4714-11-24 00:00:00+00 BC'$$),
('timestamptz', $$'294276-12-31 23:59:59.999999+00'$$),
('boolean', $$NULL$$),
('integer', $$NULL$$),
('integer', $$0$$),
('integer', $$-2147483648$$),
('integer', $$2147483647$$),
('bigint', $$NULL$$),
('bigint', $$0$$),
('bigint', $$-1$$),
('bigint', $$-9223372036854775808$$),
('bigint', $$9223372036854775807$$),
('pg_snapshot', $$NULL$$),
('pg_snapshot', $$'1:1:'$$),
('pg_snapshot', $$'1:9223372036854775807:'$$),
('pg_snapshot', $$'9223372036854775807:9223372036854775807:'$$),
('pg_snapshot', $$'10:20:10,11,12,13,14,15,16,17,18,19'$$),
('pg_snapshot', $$pg_current_snapshot()$$),
('regrole', $$NULL$$),
('regrole', $$0$$),
('regrole', $$4294967295$$),
('regrole', $$10$$);
-- what only PostgreSQL 17 and later can say
INSERT INTO bad_value
SELECT 'interval', format('%L', value) FROM unnest(ARRAY['infinity', '-infinity']) AS value
WHERE current_setting('server_version_num')::int >= 170000;

-- SELECT a function of these arguments, one of them (or with 0 all) put in its place
CREATE FUNCTION pg_temp.call_of(function regprocedure, arguments text, place int, other text)
RETURNS text LANGUAGE sql AS $$
    SELECT format('SELECT %s %s(%s)',
                  CASE WHEN prorettype <> 'trigger'::regtype THEN '* FROM' END,
                  split_part(oid::regprocedure::text, '(', 1),
                  (SELECT string_agg(format('(%s)::%s', CASE WHEN n = place OR place = 0 THEN other ELSE value END,
                                            proargtypes[n - 1]::regtype), ', ' ORDER BY n)
                   FROM unnest(string_to_array(arguments, ' | ')) WITH ORDINALITY AS a (value, n)))
    FROM pg_proc WHERE oid = function
$$;

-- Everything that is wrong, in each place; and nothing at all in all places
CREATE TEMPORARY TABLE wrong_call AS
SELECT c.signature, pg_temp.call_of(c.signature, c.arguments, n::int, v.value) AS call,
       NULL::text AS state, NULL::text AS message
FROM good_call c
JOIN pg_proc p ON p.oid = c.signature
CROSS JOIN unnest(p.proargtypes) WITH ORDINALITY AS t (type, n)
JOIN bad_value v USING (type)
UNION
SELECT signature, pg_temp.call_of(signature, arguments, 0, 'NULL'), NULL, NULL
FROM good_call WHERE arguments <> '';

-- and in each setting that any role may set
INSERT INTO wrong_call (signature, call)
SELECT 'session_admin.invalidate_user(text,text,boolean,text,text)',
       format($$SELECT set_config(%L, %s, true); UPDATE product.cwd_user SET credential = 'new';
                SELECT session_admin.open_session('a', 'alice'), session_admin.invalidate_user('alice')$$, name, v.value)
FROM (SELECT name FROM pg_settings
      WHERE name LIKE 'session\_admin.%' AND vartype = 'string' AND context = 'user'
      UNION VALUES ('session_admin.current_session')) AS s    -- which pg_settings hides
CROSS JOIN bad_value v
WHERE v.type = 'text'::regtype;

-- Is there text that nobody would want on a screen or in a report?
CREATE FUNCTION pg_temp.harmful_text() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT left(kept, 100) FROM (
        SELECT unnest(ARRAY[login_method, user_agent, device, node, log_id]) AS kept FROM session_admin.session
        UNION ALL
        SELECT unnest(ARRAY[login_method, user_agent, device, node, log_id, end_reason, actor]) FROM session_admin_internal.ended_session
        UNION ALL
        SELECT unnest(ARRAY[event, login_method, user_agent, device, node, session_ref, detail]) FROM session_admin_internal.login_event
        UNION ALL
        SELECT user_name FROM session_admin_internal.login_event WHERE event = 'login_failed'
        UNION ALL
        SELECT unnest(ARRAY[user_agent, device]) FROM session_admin.remember_me_token
        UNION ALL
        SELECT node FROM session_admin_internal.node
        UNION ALL
        SELECT name FROM session_admin.application
        UNION ALL
        SELECT unnest(ARRAY[reason, actor]) FROM session_admin_internal.invalidation
        UNION ALL
        SELECT unnest(ARRAY[reason, actor]) FROM session_admin_internal.application_generation
        UNION ALL
        -- a change of a product's table that was not understood is harm, too
        SELECT E'\n' || message FROM session_admin_internal.capture_failure
    ) AS t
    WHERE kept ~ E'[\x01-\x1f\x7f\u0080-\u009f]' OR octet_length(kept) > 1024
    LIMIT 1);
END
$$;

CREATE FUNCTION pg_temp.text_of(expression text, OUT value text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT ' || expression INTO value;
END
$$;

-- Makes a call, undoes it, and tells how it ended
CREATE FUNCTION pg_temp.outcome(call text, OUT state text, OUT message text) LANGUAGE plpgsql AS $$
DECLARE
    harmful text;
BEGIN
    BEGIN
        EXECUTE call;
        harmful := pg_temp.harmful_text();
        RAISE EXCEPTION USING ERRCODE = 'SA000', MESSAGE = 'undone';
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    END;
    IF state = 'SA000' THEN
        state := '00000';
        message := harmful;
    END IF;
END
$$;

DELETE FROM wrong_call WHERE hashtext(call) % :one_in <> 0;

UPDATE wrong_call c SET state = o.state, message = o.message
FROM wrong_call d CROSS JOIN LATERAL pg_temp.outcome(d.call) o
WHERE c.ctid = d.ctid;

-- What is refused, and in which words
CREATE TEMPORARY TABLE refusal (
    id          int GENERATED ALWAYS AS IDENTITY,
    call        text NOT NULL,
    state       text NOT NULL,
    message     text NOT NULL
);
INSERT INTO refusal (call, state, message) VALUES
($$open_session(NULL::text)$$, '22004', 'session id must not be null'),
($$open_session('')$$, '22023', 'session id must not be empty'),
($$open_session('a', '')$$, '22023', 'user name must not be empty'),
($$open_session('a', repeat('x', 1000000))$$, '22023', 'user name is longer than 1024 bytes'),
($$rename_user('alice', E'a\u009b')$$, '22023', 'user name "a  " must not have control characters'),
($$anonymize_user('alice', E'\x7f')$$, '22023', 'user name " " must not have control characters'),
($$invalidate_user(E'a\x1b[2J')$$, 'PT404', 'user "a [2J" is not known in application "bad input"'),
($$open_session('a', application => '')$$, '22023', 'name of application must not be empty'),
($$open_session('a', application => repeat('x', 64))$$, '22023', 'name of application is longer than 63 bytes'),
($$open_session('a', application => E'a\nb')$$, '22023', 'name of application "a b" must not have control characters'),
($$open_session('a', client_address => '999.1.1.1')$$, '22P02', 'invalid input syntax for type inet: "999.1.1.1"'),
($$open_session('\x00'::bytea)$$, '22023', 'hash of session id must have 32 bytes, not 1'),
($$touch_session_user(NULL::text)$$, '22004', 'session id must not be null'),
($$touch_session(NULL::text)$$, '22004', 'session id must not be null'),
($$touch_session(decode(repeat('00', 33), 'hex'))$$, '22023', 'hash of session id must have 32 bytes, not 33'),
($$touch_sessions(NULL::text[])$$, '22004', 'array of session ids must not be null'),
($$touch_sessions(NULL)$$, '22004', 'array of session ids must not be null'),
($$touch_sessions('a secret')$$, '22P02', 'malformed array of session ids'),
($$touch_sessions('{a,NULL}')$$, '22004', 'session id must not be null'),
($$touch_sessions('{a,NULL}'::text[])$$, '22004', 'session id must not be null'),
($$touch_sessions('{a,b}'::text[], '{1}')$$, '22023', 'there must be as many request counts as session ids'),
($$touch_sessions('{a}'::text[], '{-1}')$$, '22023', 'request count must be between 0 and 1000000000'),
($$renew_session('alice''s session', 'alice''s session')$$, '22023', 'new session id must not be the old one'),
($$renew_session('alice''s session', 'anonymous session')$$, '23505', 'new session id is in use already'),
($$renew_session('another', 'a new id')$$, 'PT404', 'session is not valid'),
($$reauthenticate('anonymous session')$$, '55000', 'session has no user who could be reauthenticated'),
($$reauthenticate('alice''s session', 'remember_me')$$, '22023', 'a remember-me token does not reauthenticate a user'),
($$set_policy('on_session_limit', 'maybe')$$, '22023', '"maybe" is not a value for policy "on_session_limit"'),
($$set_policy('max_sessions', '-2')$$, '22023', '"-2" is not a value for policy "max_sessions"'),
($$set_policy('idle_timeout', '-1 second')$$, '22023', '"-1 second" is not a value for policy "idle_timeout"'),
($$set_policy('idle_timeout', 'infinity')$$, '22023', '"infinity" is not a value for policy "idle_timeout"'),
($$set_policy('idle_timeout', '178000000 years')$$, '22023', '"178000000 years" is not a value for policy "idle_timeout"'),
($$set_policy('idle_timeout', '99999999999 years')$$, '22023', '"99999999999 years" is not a value for policy "idle_timeout"'),
($$set_policy('trusted_proxies', '10.0.0.0/33')$$, '22023', '"10.0.0.0/33" is not a value for policy "trusted_proxies"'),
($$set_policy('node_lease', '5 seconds', 'alice')$$, '22023', 'policy "node_lease" cannot be set for one user'),
($$set_policy('timeout', '1 hour')$$, '22023', 'unknown policy "timeout"'),
($$set_policy(NULL, '1 hour')$$, '22004', 'name of policy must not be null'),
($$add_probe_rule()$$, '22023', 'neither a pattern nor an address is given'),
($$add_probe_rule('\')$$, '22025', 'LIKE pattern must not end with escape character'),
($$add_probe_rule('')$$, '22023', 'pattern of user agents must have 1 to 1024 bytes, not 0'),
($$invalidate_session('0000000')$$, 'PT404', 'no live session "0000000" in application "bad input"'),
($$invalidate_session('alice''s session')$$, '22023', '"alic..." is not a session_ref'),
($$invalidate_user(NULL)$$, '22004', 'user name must not be null'),
($$invalidate_user('nobody')$$, 'PT404', 'user "nobody" is not known in application "bad input"'),
($$invalidate_user('alice', reason => 'because')$$, '22023', 'unknown reason "because"'),
($$invalidate_user('alice', reason => E'custom:\x1b[2J')$$, '22023', 'unknown reason "custom: [2J"'),
($$invalidate_sessions()$$, '22023', 'no filter is given'),
($$invalidate_sessions(idle_for => '-30 days')$$, '22023', 'idle_for must not be negative'),
($$invalidate_sessions(idle_for => '178000000 years')$$, '22008', 'timestamp out of range'),
($$preview_invalidation()$$, '22023', 'no filter is given'),
($$preview_invalidation(idle_for => '-30 days')$$, '22023', 'idle_for must not be negative'),
($$invalidate_sessions(user_agent_like => '\')$$, '22025', 'LIKE pattern must not end with escape character'),
($$invalidate_application(application => 'none')$$, 'PT404', 'application "none" does not exist'),
($$sync_node('node 1', NULL, '-1 second')$$, '22023', 'wait must not be negative'),
($$sync_node('node 1', NULL, NULL)$$, '22023', 'wait must not be null'),
($$sync_node('node 1', NULL, make_interval(months => 2147483647))$$, '22023', 'wait is too long'),
($$wait_for_nodes(-1)$$, 'PT404', 'invalidation -1 does not exist'),
($$wait_for_nodes(1, '-1 second')$$, '22023', 'timeout must not be negative'),
($$wait_for_nodes(1, make_interval(months => 2147483647))$$, '22023', 'timeout is too long'),
($$join_node('')$$, '22023', 'name of a node must not be null or empty'),
($$join_node(repeat('x', 256))$$, '22023', 'name of a node is too long'),
($$concurrent_sessions('-infinity', now(), '1 hour')$$, '22023', 'times must be finite'),
($$concurrent_sessions(now(), now(), '0')$$, '22023', 'step must be positive'),
($$attach_application('elephant', 'product')$$, '22023', 'unknown product "elephant"'),
($$attach_application('jira', 'no such schema')$$, '3F000', 'schema "no such schema" does not exist'),
($$grant_access('session_admin_bad_input', 'everything')$$, '22023', 'unknown capability "everything"'),
($$grant_access(0, 'auditor')$$, '22023', 'access cannot be granted to PUBLIC');

-- What comes from the internet is never refused: it is cut and kept as text
CREATE TEMPORARY TABLE from_outside AS
SELECT id, value, octet_length(value) AS bytes
FROM (SELECT row_number() OVER () AS id, pg_temp.text_of(value) AS value FROM bad_value WHERE type = 'text'::regtype) AS v;

SELECT plan((SELECT count(DISTINCT signature)::int * 2 + 3 FROM good_call)
            + (SELECT count(*)::int FROM refusal)
            + (SELECT count(*)::int FROM pg_class WHERE relnamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace) AND relkind = 'v')
            + 6);

SELECT is_empty($$
    SELECT oid::regprocedure FROM pg_proc
    WHERE pronamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace) AND prokind = 'f'
    EXCEPT SELECT signature FROM good_call
    $$, 'every function of the extension is tried');

SELECT is_empty($$
    SELECT DISTINCT type::regtype
    FROM pg_proc, unnest(proargtypes) AS type
    WHERE pronamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace)
    EXCEPT SELECT type FROM bad_value
    $$, 'there is something wrong for every type of argument');

SELECT is_empty(format($$
    SELECT call, o.state, o.message FROM (
        SELECT pg_temp.call_of(signature, arguments, NULL, NULL), state
        FROM good_call WHERE signature = %s::regprocedure) AS c (call, expected)
    CROSS JOIN LATERAL pg_temp.outcome(call) o
    WHERE o.state <> expected OR o.state = '00000' AND o.message IS NOT NULL
    $$, signature::oid), format('%s: a right call', signature))
FROM good_call GROUP BY signature ORDER BY signature::text;

-- A clear error is about the data, a name, a limit, or a permission.  A
-- constraint of a table, an index row that is too long, or an internal error is
-- not, nor is a message that repeats a megabyte, or what a terminal obeys (but 3F000
-- is PostgreSQL's own).
SELECT is_empty(format($$
    SELECT left(call, 300), state, left(message, 300) FROM wrong_call
    WHERE signature = %s::regprocedure
      AND (state = '00000' AND message IS NOT NULL
           OR state !~ '^(00000|22...|PT404|PT409|42501|42704|55000|39P01|3F000)$'
           OR octet_length(message) > 1500
           OR state <> '3F000' AND message ~ E'[\x01-\x1f\x7f\u0080-\u009f]')
    LIMIT 5
    $$, signature::oid), format('%s: wrong calls', signature))
FROM good_call GROUP BY signature ORDER BY signature::text;

SELECT cmp_ok((SELECT count(*) * :one_in FROM wrong_call WHERE state <> '00000'), '>', 300::bigint, 'much of it is refused');

SELECT throws_ok(format('SELECT * FROM session_admin.%s', call), state::char(5), message, call)
FROM refusal ORDER BY id;

SELECT lives_ok($$
    SELECT session_admin.open_session('from outside ' || id, 'user ' || id, '10.0.0.1', value, value, value, value, value)
    FROM from_outside$$, 'a login with any header is a login');
SELECT lives_ok($$
    SELECT session_admin.login_failed(value, '10.0.0.1', value, value, value) FROM from_outside$$,
    'a failed login with any header, as anybody, is a failed login');
SELECT lives_ok($$
    SELECT session_admin.issue_remember_me('user ' || id, value, value, '10.0.0.1') FROM from_outside$$,
    'any device is remembered');
SELECT is_empty($$
    SELECT id, outcome FROM from_outside, session_admin.redeem_remember_me(value, '10.0.0.1', value)
    WHERE outcome <> 'unknown'$$, 'any cookie that is no token is unknown');
SELECT is(pg_temp.harmful_text(), NULL, 'what is kept of it is cut, and has no control characters');
SELECT results_eq($$
    SELECT user_agent, device, client_address FROM session_admin.session
    JOIN from_outside ON user_name = 'user ' || id
    WHERE value LIKE E'%\x1b[2J\x7f%' OR bytes = 1000000 ORDER BY id$$, $$
    VALUES (repeat('x', 1024), repeat('x', 255), inet '10.0.0.1'),
           (repeat('ü', 512), repeat('ü', 127), '10.0.0.1'),
           ('      [2J     31m', '      [2J     31m', '10.0.0.1')$$,
    'for example');

-- and everything that reads it still does, and shows nothing that a terminal obeys
SELECT is_empty(format($$SELECT left(t::text, 300) FROM %s t WHERE t::text ~ E'[\x01-\x1f\x7f\u0080-\u009f]'$$, oid::regclass),
                format('view %s shows it as harmless text', relname))
FROM pg_class WHERE relnamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace)
    AND relkind = 'v' ORDER BY relname;

SELECT * FROM finish();
ROLLBACK;
