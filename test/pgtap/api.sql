--
-- The API: every function that people call, and every view that they read
--
BEGIN;
SELECT no_plan();

-- Written as in \df and \d; how the lines are broken does not matter.
CREATE FUNCTION pg_temp.plain(text) RETURNS text IMMUTABLE
RETURN btrim(regexp_replace(regexp_replace(replace(
    $1, 'timestamp with time zone', 'timestamptz'),
    '(DEFAULT (NULL|''[^'']*''))::[a-z]+(\[\])?', '\1', 'g'),
    '\s+', ' ', 'g'));

CREATE TEMP TABLE api (name text, arguments text, result text, traits text);
INSERT INTO api VALUES
-- For applications
('open_session',
    $$session_id text, user_name text DEFAULT NULL, client_address inet DEFAULT NULL,
    forwarded_for text DEFAULT NULL, user_agent text DEFAULT NULL,
    device text DEFAULT NULL, node text DEFAULT NULL,
    login_method text DEFAULT 'password', application text DEFAULT NULL$$,
    'text', 'volatile, definer'),
('open_session',
    $$session_id bytea, user_name text DEFAULT NULL, client_address inet DEFAULT NULL,
    forwarded_for text DEFAULT NULL, user_agent text DEFAULT NULL,
    device text DEFAULT NULL, node text DEFAULT NULL,
    login_method text DEFAULT 'password', application text DEFAULT NULL$$,
    'text', 'volatile, definer'),
('touch_session',
    'session_id text, application text DEFAULT NULL',
    'boolean', 'volatile'),
('touch_session',
    'session_id bytea, application text DEFAULT NULL',
    'boolean', 'volatile'),
('touch_session_user',
    'session_id text, application text DEFAULT NULL',
    'session_admin.touched_session', 'volatile'),
('touch_session_user',
    'session_id bytea, application text DEFAULT NULL',
    'session_admin.touched_session', 'volatile'),
('touch_sessions',
    'session_ids text[], requests bigint[] DEFAULT NULL, application text DEFAULT NULL',
    'text[]', 'volatile'),
('touch_sessions',
    'session_ids bytea[], requests bigint[] DEFAULT NULL, application text DEFAULT NULL',
    'bytea[]', 'volatile'),
('touch_sessions',
    'session_ids text, requests bigint[] DEFAULT NULL, application text DEFAULT NULL',
    'text[]', 'volatile'),
('renew_session',
    'old_id text, new_id text, application text DEFAULT NULL',
    'text', 'volatile, definer'),
('renew_session',
    'old_id bytea, new_id bytea, application text DEFAULT NULL',
    'text', 'volatile, definer'),
('reauthenticate',
    $$session_id text, login_method text DEFAULT 'password', application text DEFAULT NULL$$,
    'boolean', 'volatile, definer'),
('reauthenticate',
    $$session_id bytea, login_method text DEFAULT 'password', application text DEFAULT NULL$$,
    'boolean', 'volatile, definer'),
('close_session',
    'session_id text, application text DEFAULT NULL',
    'boolean', 'volatile, definer'),
('close_session',
    'session_id bytea, application text DEFAULT NULL',
    'boolean', 'volatile, definer'),
('login_failed',
    $$user_name text, client_address inet DEFAULT NULL, forwarded_for text DEFAULT NULL,
    user_agent text DEFAULT NULL, login_method text DEFAULT 'password',
    application text DEFAULT NULL$$,
    'void', 'volatile, definer'),
-- Remember-me
('issue_remember_me',
    'user_name text, device text DEFAULT NULL, user_agent text DEFAULT NULL,
    client_address inet DEFAULT NULL, application text DEFAULT NULL',
    'text', 'volatile, definer'),
('redeem_remember_me',
    'token text, client_address inet DEFAULT NULL, user_agent text DEFAULT NULL,
    application text DEFAULT NULL, OUT outcome text, OUT user_name text,
    OUT token text',
    'record', 'volatile, definer'),
('revoke_remember_me',
    'series text, application text DEFAULT NULL',
    'boolean', 'volatile, definer'),
('rename_remembered_device',
    'series text, device text, application text DEFAULT NULL',
    'boolean', 'volatile, definer'),
-- What an application shows its users of themselves
('my_sessions',
    'user_name text, application text DEFAULT NULL',
    'TABLE(session_ref text, current boolean, login_method text, client_address inet,
        user_agent text, device text, created_at timestamptz,
        last_access_at timestamptz, expires_at timestamptz)', 'stable, definer'),
('my_devices',
    'user_name text, application text DEFAULT NULL',
    'TABLE(series text, device text, client_address inet, user_agent text,
        created_at timestamptz, last_used_at timestamptz, expires_at timestamptz)', 'stable, definer'),
('end_my_session',
    'user_name text, session_ref text, application text DEFAULT NULL',
    'boolean', 'volatile, definer'),
('end_my_other_sessions',
    'user_name text, keep_session text, keep_remember_me boolean DEFAULT false,
    application text DEFAULT NULL',
    'session_admin.invalidation_result', 'volatile, definer'),
('end_my_other_sessions',
    'user_name text, keep_session bytea, keep_remember_me boolean DEFAULT false,
    application text DEFAULT NULL',
    'session_admin.invalidation_result', 'volatile, definer'),
-- Pure functions
('session_ref',
    'session_id text',
    'text', 'immutable, strict'),
('session_ref',
    'session_hash bytea',
    'text', 'immutable, strict'),
('log_id',
    'session_id text',
    'text', 'immutable, strict'),
('log_id',
    'session_hash bytea',
    'text', 'immutable, strict'),
('client_address',
    'peer inet, forwarded_for text, trusted cidr[]',
    'inet', 'immutable'),
-- For nodes
('join_node',
    'node text, application text DEFAULT NULL',
    'pg_snapshot', 'volatile, definer'),
('sync_node',
    $$node text, INOUT applied pg_snapshot, wait interval DEFAULT '00:00:00', OUT id bigint, OUT scope text,
    OUT application text, OUT user_name text, OUT session_hash bytea, OUT reason text,
    OUT at timestamptz, OUT lease interval$$,
    'SETOF record', 'volatile, definer'),
('leave_node',
    'node text',
    'boolean', 'volatile, definer'),
('witness_invalidations',
    'node text, invalidations jsonb',
    'bigint', 'volatile, definer'),
-- For whoever ends sessions
('preview_invalidation',
    'user_name text DEFAULT NULL, address cidr DEFAULT NULL,
    user_agent_like text DEFAULT NULL, node text DEFAULT NULL,
    idle_for interval DEFAULT NULL, opened_before timestamptz DEFAULT NULL,
    anonymous boolean DEFAULT NULL, application text DEFAULT NULL',
    'SETOF session_admin.current_sessions', 'stable, definer'),
('invalidate_session',
    $$session_ref text, reason text DEFAULT 'admin', application text DEFAULT NULL$$,
    'session_admin.invalidation_result', 'volatile, definer'),
('invalidate_user',
    $$user_name text, keep_session text DEFAULT NULL,
    keep_remember_me boolean DEFAULT false, reason text DEFAULT 'admin',
    application text DEFAULT NULL$$,
    'session_admin.invalidation_result', 'volatile, definer'),
('invalidate_user',
    $$user_name text, keep_session bytea, keep_remember_me boolean DEFAULT false,
    reason text DEFAULT 'admin', application text DEFAULT NULL$$,
    'session_admin.invalidation_result', 'volatile, definer'),
('invalidate_sessions',
    $$user_name text DEFAULT NULL, address cidr DEFAULT NULL,
    user_agent_like text DEFAULT NULL, node text DEFAULT NULL,
    idle_for interval DEFAULT NULL, opened_before timestamptz DEFAULT NULL,
    anonymous boolean DEFAULT NULL, reason text DEFAULT 'admin',
    application text DEFAULT NULL$$,
    'session_admin.invalidation_result', 'volatile, definer'),
('invalidate_application',
    $$reason text DEFAULT 'admin', application text DEFAULT NULL$$,
    'session_admin.invalidation_result', 'volatile, definer'),
('invalidate_all',
    $$reason text DEFAULT 'admin'$$,
    'session_admin.invalidation_result', 'volatile, definer'),
('wait_for_nodes',
    $$invalidation_id bigint, timeout interval DEFAULT '00:00:05'$$,
    'TABLE(node text, state text)', 'volatile, definer'),
('log_out',
    $$IN user_name text DEFAULT NULL, IN session_ref text DEFAULT NULL,
    IN address cidr DEFAULT NULL, IN user_agent_like text DEFAULT NULL, IN node text DEFAULT NULL,
    IN idle_for interval DEFAULT NULL, IN opened_before timestamptz DEFAULT NULL,
    IN anonymous boolean DEFAULT NULL, IN everybody boolean DEFAULT false,
    IN reason text DEFAULT 'admin', IN timeout interval DEFAULT '00:00:05',
    IN application text DEFAULT NULL$$,
    'procedure', 'volatile'),
('maintain',
    'OUT task text, OUT done bigint',
    'SETOF record', 'volatile, definer'),
-- Reports
('dormant_users',
    'since timestamptz, application text DEFAULT NULL',
    'SETOF session_admin.dormant_user', 'stable'),
('concurrent_sessions',
    '"from" timestamptz, "to" timestamptz, step interval, application text DEFAULT NULL',
    'TABLE(at timestamptz, sessions bigint, peak bigint)', 'stable'),
('html_report',
    $$since timestamptz DEFAULT (statement_timestamp() - '30 days'::interval),
    max_rows bigint DEFAULT 1000, application text DEFAULT NULL$$,
    'text', 'stable'),
-- For administrators
('set_policy',
    'name text, value text, user_name text DEFAULT NULL, application text DEFAULT NULL',
    'text', 'volatile, definer'),
('add_probe_rule',
    'user_agent_like text DEFAULT NULL, address cidr DEFAULT NULL, application text DEFAULT NULL',
    'boolean', 'volatile, definer'),
('remove_probe_rule',
    'user_agent_like text DEFAULT NULL, address cidr DEFAULT NULL, application text DEFAULT NULL',
    'boolean', 'volatile, definer'),
('grant_access',
    'role regrole, capability text',
    'void', 'volatile, definer'),
('revoke_access',
    'role regrole, capability text',
    'void', 'volatile, definer'),
('attach_application',
    $$product text, in_schema text DEFAULT 'public', application text DEFAULT NULL$$,
    'TABLE(part text, object text, state text, note text)', 'volatile, definer'),
('detach_application',
    'product text DEFAULT NULL, in_schema text DEFAULT NULL,
    application text DEFAULT NULL',
    'TABLE(part text, object text, state text, note text)', 'volatile, definer'),
('describe_product',
    $$product text, parts jsonb, title text DEFAULT NULL, notes text[] DEFAULT '{}',
    alias_pattern text DEFAULT NULL$$,
    'void', 'volatile, definer'),
('forget_product', 'product text', 'boolean', 'volatile, definer'),
('detect_product',
    $$in_schema text DEFAULT 'public'$$,
    'TABLE(product text, title text, matched text[], missing text[])', 'stable, definer'),
('verify_attachments', '',
    'TABLE(application text, product text, part text, object text, status text)', 'stable, definer'),
('backfill_sessions',
    'IN batch_size integer DEFAULT 1000, IN application text DEFAULT NULL',
    'procedure', 'volatile'),
('backfill_batch',
    'batch_size integer DEFAULT 1000, application text DEFAULT NULL',
    'boolean', 'volatile, definer'),
('reconcile_sessions',
    'application text DEFAULT NULL',
    'TABLE(product text, table_name text, rows_read bigint, ended bigint, taken bigint, deleted bigint, note text)',
    'volatile, definer'),
('acknowledge_failures',
    'application text DEFAULT NULL',
    'bigint', 'volatile, definer'),
('rename_user',
    'old text, new text, application text DEFAULT NULL',
    'session_admin.invalidation_result', 'volatile, definer'),
('anonymize_user',
    'user_name text, alias text, application text DEFAULT NULL',
    'session_admin.invalidation_result', 'volatile, definer'),
('erase_user',
    'user_name text, application text DEFAULT NULL',
    'session_admin.invalidation_result', 'volatile, definer');

CREATE TEMP VIEW actual AS
SELECT p.oid, p.proname::text AS name, pg_temp.plain(pg_get_function_arguments(p.oid)) AS arguments,
       coalesce(pg_temp.plain(pg_get_function_result(p.oid)), 'procedure') AS result,
       concat_ws(', ', CASE p.provolatile WHEN 'v' THEN 'volatile' WHEN 's' THEN 'stable' ELSE 'immutable' END,
                 CASE WHEN p.proisstrict THEN 'strict' END,
                 CASE WHEN p.prosecdef THEN 'definer' END) AS traits
FROM pg_proc p WHERE p.pronamespace = 'session_admin'::regnamespace;

SELECT ok(EXISTS (SELECT FROM actual c
                  WHERE c.name = a.name
                    AND c.arguments = pg_temp.plain(a.arguments)
                    AND c.result = pg_temp.plain(a.result)
                    AND c.traits = a.traits),
          format('%s(%s)', a.name, pg_temp.plain(a.arguments)))
FROM api a;

-- a dump of a product's tables names capture()
SELECT is_empty(
    $$SELECT c.name, c.arguments, c.result, c.traits FROM actual c
      WHERE (c.name, c.arguments) NOT IN (SELECT name, pg_temp.plain(arguments) FROM api)
        AND (c.name, c.result) <> ('capture', 'trigger')$$,
    'there is no other function in the schema');

SELECT is_empty(
    $$SELECT a.name, a.arguments FROM actual a JOIN pg_proc p USING (oid)
      WHERE p.prosecdef AND NOT coalesce(p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)$$,
    'what runs with the rights of the owner has a search_path of its own');

-- what a DBA types most; two have more parameters than fit, and are called with names
SELECT cmp_ok(length(format(' session_admin | %s | %s | %s | func', a.name, a.result, pg_get_function_arguments(a.oid))),
    '<=', 200, format('\df of %s is no wider than 200 columns', a.name))
FROM actual a
WHERE a.name IN ('invalidate_session', 'invalidate_application', 'invalidate_all', 'wait_for_nodes', 'set_policy',
                 'attach_application', 'dormant_users', 'grant_access');

-- every call that is about one application names it last
SELECT is_empty(
    $$SELECT name, arguments FROM api
      WHERE pg_temp.plain(arguments) ~ '(^|, )application text'
        AND pg_temp.plain(arguments) !~ 'application text DEFAULT NULL(, OUT .*)?$'$$,
    'the last argument is the application');

-- who takes a session id takes its SHA-256 in the same place (these two call it session_hash)
SELECT is_empty(
    $$SELECT name, arguments FROM api a
      WHERE name NOT IN ('session_ref', 'log_id')
        AND arguments ~ '\m(session_id|session_ids|old_id|keep_session) text'
        AND arguments !~ 'session_ids text,'   -- the literal of an array
        AND NOT EXISTS (
            SELECT FROM api b
            WHERE b.name = a.name
              AND pg_temp.plain(b.arguments) = regexp_replace(pg_temp.plain(a.arguments),
                  '\m(session_id|session_ids|old_id|new_id|keep_session) text(\[\])?( DEFAULT NULL)?',
                  '\1 bytea\2', 'g'))$$,
    'a session id may be given as bytea everywhere');


CREATE TEMP TABLE api_view (name text, columns text);
INSERT INTO api_view VALUES
('current_sessions',
    'application text, session_ref text, log_id text, user_name text, kind text,
    login_method text, client_address inet, peer_address inet, user_agent text,
    device text, node text, requests bigint, created_at timestamptz,
    last_access_at timestamptz, idle interval, expires_at timestamptz'),
('session_history',
    'application text, session_ref text, log_id text, user_name text, kind text,
    login_method text, client_address inet, peer_address inet, user_agent text,
    device text, node text, requests bigint, created_at timestamptz,
    last_access_at timestamptz, ended_at timestamptz, end_reason text, ended_by text,
    duration interval, actor text'),
('last_login',
    'application text, user_name text, last_login_at timestamptz,
    last_login_address inet, last_login_method text, previous_login_at timestamptz,
    login_count bigint, last_failed_login_at timestamptz, current_failed_count bigint,
    total_failed_count bigint, last_seen_at timestamptz, live_sessions bigint'),
('login_history',
    'application text, at timestamptz, user_name text, event text, succeeded boolean,
    login_method text, client_address inet, user_agent text, device text, node text,
    session_ref text, detail text'),
('logins_per_day',
    'application text, day date, logins bigint, users bigint, failed_logins bigint,
    failed_users bigint'),
('login_pressure',
    'application text, kind text, user_name text, client_address inet,
    failed_logins bigint, logins bigint, users bigint, addresses bigint,
    first_failed_at timestamptz, last_failed_at timestamptz'),
('remembered_devices',
    'application text, user_name text, series text, device text, user_agent text,
    client_address inet, created_at timestamptz, last_used_at timestamptz,
    expires_at timestamptz'),
('invalidations',
    'id bigint, at timestamptz, scope text, application text, user_name text,
    session_ref text, reason text, actor text, invalidated_by text,
    sessions_ended bigint, tokens_revoked bigint'),
('nodes',
    'node text, application text, state text, joined_at timestamptz,
    last_sync_at timestamptz, lease_expires_at timestamptz, pending bigint'),
('health',
    'name text, value text, status text'),
('policies',
    'name text, application text, user_name text, value text, "default" text,
    meaning text, reference text'),
('probes',
    'application text, user_agent_like text, address cidr, probes bigint,
    last_probe_at timestamptz, created_at timestamptz'),
('access',
    'role regrole, capability text'),
('backfills',
    'application text, product text, table_name text, rows_read bigint, percent integer,
    started_at timestamptz, last_at timestamptz, finished_at timestamptz'),
('capture_failures',
    'at timestamptz, application text, relation text, event text, message text,
    user_names text[], acknowledged_by text');

SELECT is((SELECT string_agg(format('%I %s', a.attname, pg_temp.plain(format_type(a.atttypid, a.atttypmod))),
                             ', ' ORDER BY a.attnum)
           FROM pg_attribute a
           WHERE a.attrelid = to_regclass('session_admin.' || v.name) AND a.attnum > 0),
          pg_temp.plain(v.columns),
          format('view %s', v.name))
FROM api_view v;

SELECT set_eq(
    $$SELECT relname::text FROM pg_class WHERE relnamespace = 'session_admin'::regnamespace AND relkind = 'v'$$,
    'SELECT name FROM api_view',
    'there is no other view in the schema');

-- of three tables, a DBA may delete rows; two are to be read; the types are results
SELECT set_eq(
    $$SELECT relname::text FROM pg_class
      WHERE relnamespace = 'session_admin'::regnamespace AND relkind NOT IN ('v', 'i')$$,
    ARRAY['session', 'remember_me_token', 'application', 'product_role', 'lost_history',
          'invalidation_result', 'dormant_user', 'touched_session'],
    'nor another table, sequence or type');

SELECT is_empty(
    $$SELECT v.name FROM api_view v JOIN pg_class c ON c.oid = to_regclass('session_admin.' || v.name)
      WHERE NOT coalesce(c.reloptions @> ARRAY['security_barrier=true'], false)$$,
    'every view is a security barrier');

--
-- What psql shows of them
--

SELECT is_empty(
    $$SELECT name, arguments FROM actual WHERE obj_description(oid, 'pg_proc') IS NULL$$,
    'every function says what it takes and gives');
SELECT is_empty(
    $$SELECT relname FROM pg_class
      WHERE relnamespace = 'session_admin'::regnamespace AND relkind NOT IN ('i', 'c')
        AND obj_description(oid, 'pg_class') IS NULL$$,
    'every view and table says what it has');
SELECT is_empty(
    $$SELECT typname FROM pg_type WHERE typnamespace = 'session_admin'::regnamespace AND obj_description(oid, 'pg_type') IS NULL
      AND typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c')$$,
    'every type, too');
SELECT is_empty(
    $$SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
      WHERE c.relnamespace = 'session_admin'::regnamespace AND c.relkind <> 'i' AND a.attnum > 0
        AND col_description(c.oid, a.attnum) IS NULL$$,
    'so does every column of them');
SELECT is_empty(
    $$SELECT d.description FROM pg_description d
      WHERE (classoid, objoid) IN (SELECT 'pg_proc'::regclass::oid, oid FROM pg_proc
                                   WHERE pronamespace = 'session_admin'::regnamespace
                                   UNION SELECT 'pg_class'::regclass::oid, oid FROM pg_class
                                   WHERE relnamespace = 'session_admin'::regnamespace)
        AND (d.description ~ E'\n' OR d.description !~ '^[[:alpha:]]' OR d.description ~ '[.]$')$$,
    'each in one line, without a full stop');
SELECT * FROM finish();
ROLLBACK;
