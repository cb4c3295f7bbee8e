--
-- Who may do what: each function, view and table of the extension against each
-- capability.  Whatever is not in this table is a failure, so that nothing can
-- be added without a decision on who gets it.
--
-- a: application, n: node, o: operator, u: auditor, d: administrator;
-- nothing: the owner only.  Of what is internal it says who may execute it within
-- a view or a function: nobody can name it.
--
BEGIN;
SELECT no_plan();
SET client_min_messages = warning;

CREATE TEMP TABLE matrix (kind text, object text, who text, PRIMARY KEY (kind, object));
INSERT INTO matrix VALUES
-- for applications
('function', 'open_session',              'a....'),
('function', 'touch_session',             'a....'),
('function', 'touch_session_user',        'a....'),
('function', 'touch_sessions',            'a....'),
('function', 'renew_session',             'a....'),
('function', 'reauthenticate',            'a....'),
('function', 'close_session',             'a....'),
('function', 'login_failed',              'a....'),
('function', 'issue_remember_me',         'a....'),
('function', 'redeem_remember_me',        'a....'),
('function', 'revoke_remember_me',        'a.o.d'),
('function', 'rename_remembered_device',  'a....'),
('function', 'my_sessions',               'a....'),
('function', 'my_devices',                'a....'),
('function', 'end_my_session',            'a....'),
('function', 'end_my_other_sessions',     'a....'),
('view',     'login_pressure',            'a.oud'),
-- for nodes
('function', 'join_node',                 '.n...'),
('function', 'sync_node',                 '.n...'),
('function', 'leave_node',                '.n...'),
('function', 'witness_invalidations',     '.n...'),
-- for whoever ends sessions
('function', 'preview_invalidation',      '..o.d'),
('function', 'invalidate_session',        '..o.d'),
('function', 'invalidate_user',           '..o.d'),
('function', 'invalidate_sessions',       '..o.d'),
('function', 'invalidate_application',    '..o.d'),
('function', 'invalidate_all',            '..o.d'),
('function', 'wait_for_nodes',            '..o.d'),
('function', 'log_out',                   '..o.d'),
('function', 'maintain',                  '..o.d'),
-- reports
('function', 'dormant_users',             '...ud'),
('function', 'concurrent_sessions',       '...ud'),
('function', 'html_report',               '...ud'),
('view',     'current_sessions',          '..oud'),
('view',     'session_history',           '..oud'),
('view',     'last_login',                '..oud'),
('view',     'login_history',             '...ud'),
('view',     'logins_per_day',            '...ud'),
('view',     'remembered_devices',        '..oud'),
('view',     'invalidations',             '..oud'),
('view',     'nodes',                     '..oud'),
('view',     'health',                    '..oud'),
('view',     'policies',                  '..oud'),
('view',     'probes',                    '..oud'),
('view',     'access',                    '...ud'),
('view',     'capture_failures',          '..oud'),
('view',     'backfills',                 '..oud'),
('function', 'verify_attachments',        '..oud'),
-- for administrators
('function', 'set_policy',                '....d'),
('function', 'add_probe_rule',            '....d'),
('function', 'remove_probe_rule',         '....d'),
('function', 'grant_access',              '....d'),
('function', 'revoke_access',             '....d'),
('function', 'attach_application',        '....d'),
('function', 'detach_application',        '....d'),
('function', 'backfill_sessions',         '....d'),
('function', 'backfill_batch',            '....d'),
('function', 'acknowledge_failures',      '....d'),
('function', 'describe_product',          '....d'),
('function', 'forget_product',            '....d'),
('function', 'detect_product',            '....d'),
('function', 'anonymize_user',            '....d'),
('function', 'rename_user',               '....d'),
('function', 'erase_user',                '....d'),
-- pure functions
('function', 'session_ref',               'anoud'),
('function', 'log_id',                    'anoud'),
('function', 'client_address',            'anoud'),
-- what views and reports call, with the rights of whoever reads them
('function', 'live_last_access',          '..oud'),
('function', 'live_requests',             '..oud'),
('function', 'ended_until',               '.....'),
('function', 'live_probes',               '..oud'),
('function', 'health_lease_is_over',      '..oud'),
('function', 'application_or_current',    '..oud'),
('function', 'health_items',              '..oud'),
('function', 'check_steps',               '...ud'),
('function', 'html',                      '...ud'),
('function', 'html_row',                  '...ud'),
('function', 'html_table',                '...ud'),
('function', 'html_time',                 '...ud'),
-- what tells that a capability was granted
('function', 'capability_application',    'a....'),
('function', 'capability_node',           '.n...'),
('function', 'capability_operator',       '..o..'),
('function', 'capability_auditor',        '...u.'),
('function', 'capability_administrator',  '....d'),
-- inside
('function', 'capture',                   '.....'),
('function', 'check_filter',              '.....'),
('function', 'described_columns',         '.....'),
('function', 'described_parts',           '.....'),
('function', 'json_names',                '.....'),
('function', 'feed_position',             '.....'),
('function', 'live_status',               '.....'),
('function', 'match_product',             '.....'),
('function', 'refused_ending',            '.....'),
('function', 'reconcile_sessions',        '..o.d'),
('function', 'refused_type',              '.....'),
('function', 'note_database',             '.....'),
('function', 'sessions_to_invalidate',    '.....'),
('function', 'policy_changed',            '.....'),
('function', 'session_changed',           '.....'),
('function', 'session_ended',             '.....'),
('function', 'token_revoked',             '.....'),
('function', 'truncated',                 '.....'),
('function', 'worker_status',             '.....'),
('view',     'attachment_trigger',        '.....'),
('view',     'session_state',             '.....'),
('view',     'token_state',               '.....'),
('view',     'installation_mark',         '.....'),
('view',     'application_state',         '.....'),
('view',     'effective_policy',          '.....'),
('view',     'time_limit',                '.....'),
('view',     'user_time_limit',           '.....'),
('view',     'capability_privilege',      '.....'),
('table',    'account',                   '.....'),
('table',    'account_key',               '.....'),
('table',    'account_seen',              '.....'),
('table',    'application',               '.....'),
('table',    'application_generation',    '.....'),
('table',    'attachment',                '.....'),
('table',    'attachment_column',         '.....'),
('table',    'backfill',                  '.....'),
('table',    'capability',                '.....'),
('table',    'capture_failure',           '.....'),
('table',    'capture_trigger',           '.....'),
('table',    'ended_session',             '.....'),
('table',    'ended_id',                  '.....'),
('table',    'reconciliation',            '.....'),
('table',    'ended_session_default',     '.....'),
('table',    'feed_horizon',              '.....'),
('table',    'feed_running',              '.....'),
('table',    'lost_history',              '.....'),
('table',    'server_run',                '.....'),
('view',     'node_state',                '.....'),
('table',    'installation',              '.....'),
('table',    'invalidation',              '.....'),
('table',    'late_ending',               '.....'),
('table',    'login_event',               '.....'),
('table',    'login_event_default',       '.....'),
('table',    'node',                      '.....'),
('table',    'policy',                    '.....'),
('table',    'policy_definition',         '.....'),
('table',    'policy_signal',             '.....'),
('table',    'probe_rule',                '.....'),
('table',    'product_remains',           '.....'),
('table',    'product',                   '.....'),
('table',    'product_column',            '.....'),
('table',    'product_mark',              '.....'),
('table',    'product_part',              '.....'),
('table',    'product_role',              '.....'),
('table',    'remember_me_ancestor',      '.....'),
('table',    'remember_me_token',         '.....'),
('table',    'session',                   '.....'),
('sequence', 'invalidation_id_seq',       '.....'),
('sequence', 'late_ending_id_seq',        '.....'),
('sequence', 'seat_ticket',               '.....');

CREATE TEMP VIEW object AS
SELECT 'function' AS kind, pronamespace::regnamespace::text AS schema, proname::text AS object,
       oid::regprocedure::text AS name, oid, coalesce(proacl, acldefault('f', proowner)) AS acl
FROM pg_proc WHERE pronamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace)
UNION ALL
SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END,
       relnamespace::regnamespace::text, relname, oid::regclass::text, oid,
       coalesce(relacl, acldefault('r', relowner))
FROM pg_class WHERE relnamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace)
  AND relkind NOT IN ('i', 'I', 'c') AND NOT (relispartition AND relname !~ '_default$');

SELECT is_empty(
    'SELECT kind, name FROM object WHERE (kind, object) NOT IN (SELECT kind, object FROM matrix)',
    'every function, view, table and sequence is in the matrix');
SELECT is_empty(
    'SELECT kind, object FROM matrix WHERE (kind, object) NOT IN (SELECT kind, object FROM object)',
    'the matrix has nothing that does not exist');
SELECT is_empty(
    $$SELECT kind, schema, object FROM session_admin_internal.capability
      WHERE (kind, schema, object) NOT IN (SELECT kind, schema, object FROM object)$$,
    'no capability names what does not exist');

CREATE TEMP TABLE role (who text, role name, capability text);
INSERT INTO role VALUES
('-', 'regress_nobody',        NULL),
('a', 'regress_application',   'application'),
('n', 'regress_node',          'node'),
('o', 'regress_operator',      'operator'),
('u', 'regress_auditor',       'auditor'),
('d', 'regress_administrator', 'administrator');
SELECT format('CREATE ROLE %I', role) FROM role \gexec
SELECT count(session_admin.grant_access(role::regrole, capability)) FROM role WHERE who <> '-';

--
-- privileges
--

SELECT is_empty(
    $$SELECT o.kind, o.name, a.privilege_type
      FROM object o CROSS JOIN aclexplode(o.acl) a WHERE a.grantee = 0$$,
    'PUBLIC may use no function, view, table or sequence');
SELECT ok(NOT has_schema_privilege('regress_nobody', 'session_admin', 'USAGE'),
    'PUBLIC may not use the schema');
SELECT is_empty(
    $$SELECT a.grantee::regrole, a.privilege_type
      FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) a
      WHERE n.nspname = 'session_admin_internal' AND a.grantee <> n.nspowner$$,
    'nobody may use the internal schema, whatever was granted to them');
SELECT is_empty(
    format($$SELECT p FROM unnest('{USAGE,CREATE}'::text[]) AS p
             WHERE has_schema_privilege(%L, 'session_admin_internal', p)$$, r.role),
    format('nor may %s', coalesce(r.capability, 'nobody')))
FROM role r;

SELECT is_empty(
    format($$SELECT o.name, m.who
             FROM object o JOIN matrix m USING (kind, object)
             WHERE kind = 'function'
               AND has_function_privilege(%L, o.oid, 'EXECUTE') <> (m.who LIKE %L)$$,
           r.role, '%' || r.who || '%'),
    format('functions of %s', coalesce(r.capability, 'nobody')))
FROM role r;

SELECT is_empty(
    format($$SELECT o.name, m.who
             FROM object o JOIN matrix m USING (kind, object)
             WHERE kind IN ('view', 'table')
               AND has_table_privilege(%L, o.oid, 'SELECT') <> (m.who LIKE %L)$$,
           r.role, '%' || r.who || '%'),
    format('views of %s', coalesce(r.capability, 'nobody')))
FROM role r;

SELECT is_empty(
    format($$SELECT o.name, p.privilege
             FROM object o,
                  unnest('{INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p (privilege)
             WHERE o.kind IN ('view', 'table')
               AND (has_table_privilege(%1$L, o.oid, p.privilege)
                    OR p.privilege IN ('INSERT', 'UPDATE', 'REFERENCES')
                       AND has_any_column_privilege(%1$L, o.oid, p.privilege))
             UNION ALL
             SELECT o.name, 'USAGE' FROM object o
             WHERE CASE o.kind WHEN 'sequence'
                   THEN has_sequence_privilege(%1$L, o.oid, 'USAGE,SELECT,UPDATE') END$$,
           r.role),
    format('%s may write no table', coalesce(r.capability, 'nobody')))
FROM role r;

--
-- the same, done: whoever may call a function is not stopped inside it
--

CREATE FUNCTION pg_temp.outcome_of(role name, command text, OUT state text, OUT message text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('role', role, true);
    EXECUTE command;
    RAISE EXCEPTION 'done';
EXCEPTION WHEN OTHERS THEN
    state := sqlstate;
    message := sqlerrm;
END
$$;
CREATE FUNCTION pg_temp.state_of(role name, command text) RETURNS text
LANGUAGE sql AS 'SELECT state FROM pg_temp.outcome_of(role, command)';
CREATE FUNCTION pg_temp.message_of(role name, command text) RETURNS text
LANGUAGE sql AS 'SELECT message FROM pg_temp.outcome_of(role, command)';

CREATE TEMP VIEW command AS
SELECT m.kind, o.name, CASE o.schema WHEN 'session_admin' THEN m.who ELSE '.....' END AS who,
       format('%s %s.%I(%s)', CASE p.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, o.schema, o.object,
              -- not a constant, so that even a strict function is called
              (SELECT string_agg(format(CASE p.prokind WHEN 'p' THEN 'NULL::%s' ELSE '(SELECT NULL::%s)' END,
                                        format_type(t.type, NULL)),
                                 ', ' ORDER BY t.n)
               FROM unnest(p.proargtypes) WITH ORDINALITY AS t (type, n))) AS command
FROM object o JOIN matrix m USING (kind, object)
JOIN pg_proc p ON p.oid = o.oid
WHERE m.kind = 'function'
UNION ALL
SELECT m.kind, o.name, m.who, format('SELECT count(*) FROM %I.%I', o.schema, o.object)
FROM object o JOIN matrix m USING (kind, object)
WHERE m.kind IN ('view', 'table');

SELECT is_empty(
    format($$SELECT c.command, pg_temp.state_of(%1$L, c.command)
             FROM command c
             WHERE (pg_temp.state_of(%1$L, c.command) = '42501') = (c.who LIKE %2$L)
             ORDER BY 1$$,
           r.role, '%' || r.who || '%'),
    format('calls of %s', coalesce(r.capability, 'nobody')))
FROM role r;

-- what is internal cannot even be named
SELECT is_empty(
    format($$SELECT c.command, pg_temp.message_of(%1$L, c.command) FROM command c
             WHERE c.command LIKE '%% session\_admin\_internal.%%'
               AND pg_temp.message_of(%1$L, c.command) <> 'permission denied for schema session_admin_internal'$$,
           r.role),
    format('%s cannot name what is internal', coalesce(r.capability, 'nobody')))
FROM role r;

-- an internal error is never the answer to a null
SELECT is_empty(
    $$SELECT c.command, pg_temp.state_of(current_user, c.command) FROM command c
      WHERE pg_temp.state_of(current_user, c.command) LIKE 'XX%'$$,
    'no call with nulls is an internal error');

--
-- each can do its part
--

SET ROLE regress_application;
SELECT is(session_admin.open_session('regress', 'regress_user'), session_admin.session_ref('regress'),
    'an application opens a session');
SELECT ok(session_admin.touch_session('regress'), 'and touches it');
RESET ROLE;
SET ROLE regress_auditor;
SELECT is(live_sessions, 1::bigint, 'an auditor sees it')
FROM session_admin.last_login WHERE user_name = 'regress_user';
SELECT matches(session_admin.html_report(), 'regress_user', 'also in the report');
RESET ROLE;
SET ROLE regress_operator;
SELECT is(sessions_ended, 1::bigint, 'an operator ends it')
FROM session_admin.invalidate_user('regress_user');
RESET ROLE;
SET ROLE regress_node;
SELECT lives_ok($$SELECT session_admin.join_node('regress_node')$$, 'a node joins');
RESET ROLE;
SET ROLE regress_administrator;
SELECT lives_ok($$SELECT session_admin.set_policy('idle_timeout', '2 hours')$$,
    'an administrator sets a policy');
SELECT is(ended_by, session_user::text COLLATE "default",
    'the history names the role that connected, not one that it set')
FROM session_admin.session_history WHERE user_name = 'regress_user';
RESET ROLE;

--
-- grant and revoke
--

SELECT set_eq(
    'SELECT role::text, capability FROM session_admin.access',
    'SELECT role::text, capability FROM role WHERE capability IS NOT NULL',
    'view access tells what was granted');

SELECT throws_ok($$SELECT session_admin.grant_access('regress_nobody', 'root')$$, '22023',
    'unknown capability "root"');
SELECT throws_ok($$SELECT session_admin.grant_access('regress_nobody', NULL)$$, '22004');
SELECT throws_ok($$SELECT session_admin.grant_access(NULL, 'auditor')$$, '22004');
SELECT throws_ok($$SELECT session_admin.grant_access('-', 'auditor')$$, '22023',
    'access cannot be granted to PUBLIC');
SELECT throws_ok($$SELECT session_admin.grant_access('public', 'auditor')$$, '42704');
SELECT throws_ok($$SELECT session_admin.grant_access('4294967295', 'auditor')$$, '42704');

-- what the functions do, they do as the owner
SELECT throws_ok(format('SELECT session_admin.revoke_access(%L, %L)', current_user, capability), '22023',
    'access cannot be revoked from the owner of the extension')
FROM role WHERE capability IS NOT NULL;

-- what two capabilities share stays until both are gone
SELECT lives_ok($$SELECT session_admin.grant_access('regress_nobody', 'operator')$$);
SELECT lives_ok($$SELECT session_admin.grant_access('regress_nobody', 'auditor')$$);
SELECT lives_ok($$SELECT session_admin.revoke_access('regress_nobody', 'operator')$$);
SELECT ok(has_table_privilege('regress_nobody', 'session_admin.current_sessions', 'SELECT'),
    'an auditor who was an operator still sees the sessions');
SELECT ok(NOT has_function_privilege('regress_nobody', 'session_admin.invalidate_all(text)', 'EXECUTE'),
    'and ends none any more');
SELECT lives_ok($$SELECT session_admin.revoke_access('regress_nobody', 'auditor')$$);
SELECT lives_ok($$SELECT session_admin.revoke_access('regress_nobody', 'auditor')$$,
    'revoking what is not there is no error');
SELECT is_empty(
    $$SELECT name FROM object WHERE kind = 'function'
        AND has_function_privilege('regress_nobody', oid, 'EXECUTE')$$,
    'nothing is left when the last capability is gone');
SELECT ok(NOT has_schema_privilege('regress_nobody', 'session_admin', 'USAGE'),
    'not even the schema');

-- a capability inside a greater one is still one of its own
SELECT lives_ok($$SELECT session_admin.grant_access('regress_auditor', 'administrator')$$);
SELECT lives_ok($$SELECT session_admin.revoke_access('regress_auditor', 'administrator')$$);
SELECT set_eq(
    $$SELECT capability FROM session_admin.access WHERE role = 'regress_auditor'::regrole$$,
    ARRAY['auditor'],
    'an auditor who was made an administrator for a while is an auditor again');
SELECT ok(has_table_privilege('regress_auditor', 'session_admin.login_history', 'SELECT'),
    'with all that this needs');

-- a name that needs quotes
CREATE ROLE "regress "" quote; DROP TABLE x";
SELECT lives_ok($$SELECT session_admin.grant_access('"regress "" quote; DROP TABLE x"', 'node')$$,
    'the name of a role is never taken for SQL');

SELECT * FROM finish();
ROLLBACK;
