--
-- What somebody plants in the caller's search_path is never found: functions, operators,
-- tables of the same names, as a caller with all rights would like it least
--
BEGIN;
SELECT no_plan();
SET client_min_messages = warning;
SET LOCAL session_admin.application = 'hostile';

CREATE SCHEMA evil;
CREATE FUNCTION evil.planted() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'planted' USING ERRCODE = 'EV000';
END
$$;

-- Every function of pg_catalog that the extension might use, with the same arguments, found
-- first; a function that is none of SQL's own is enough to tell.
DO $$
DECLARE
    f record;
BEGIN
    FOR f IN
        SELECT DISTINCT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments,
               format_type(p.prorettype, NULL) AS result
        FROM pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
          AND p.proname IN ('coalesce', 'greatest', 'now', 'statement_timestamp', 'clock_timestamp',
              'sha256', 'encode', 'decode', 'substr', 'replace', 'regexp_replace', 'convert_to',
              'getdatabaseencoding', 'current_setting', 'set_config', 'make_interval', 'to_char',
              'date_trunc', 'extract', 'isfinite', 'host', 'length', 'octet_length', 'lower',
              'pg_snapshot_xmin', 'pg_visible_in_snapshot', 'pg_current_xact_id',
              'pg_notification_queue_usage', 'pg_get_expr', 'format', 'quote_ident',
              'array_to_string', 'concat_ws', 'array_ndims', 'timezone')
          AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) t
                          WHERE format_type(t, NULL) IN ('internal', 'cstring', '"any"'))
          AND p.provariadic = 0
    LOOP
        EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE sql AS
                        ''SELECT evil.planted(); SELECT NULL::%s''',
                       f.proname, f.arguments, f.result, f.result);
    END LOOP;
    FOR f IN
        SELECT o.oprname, format_type(o.oprleft, NULL) AS l, format_type(o.oprright, NULL) AS r,
               format_type(o.oprresult, NULL) AS result, row_number() OVER () AS n
        FROM pg_operator o
        WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b'
          AND o.oprname IN ('=', '<>', '<', '<=', '>', '>=', '+', '-', '*', '/', '||', '~', '~~', '<<=')
          AND o.oprleft = ANY ('{text,name,bytea,bigint,integer,boolean,timestamptz,interval,inet,xid8,oid,float8,numeric}'::regtype[])
          AND o.oprright = ANY ('{text,name,bytea,bigint,integer,boolean,timestamptz,interval,inet,xid8,oid,float8,numeric}'::regtype[])
    LOOP
        EXECUTE format('CREATE FUNCTION evil.op%s(%s, %s) RETURNS %s LANGUAGE sql AS
                        ''SELECT evil.planted(); SELECT NULL::%4$s''', f.n, f.l, f.r, f.result);
        EXECUTE format('CREATE OPERATOR evil.%s (FUNCTION = evil.op%s, LEFTARG = %s, RIGHTARG = %s)',
                       f.oprname, f.n, f.l, f.r);
    END LOOP;
END
$$;
SELECT cmp_ok((SELECT count(*) FROM pg_operator WHERE oprnamespace = 'evil'::regnamespace),
              '>', 100::bigint, 'operators are planted');
SELECT cmp_ok((SELECT count(*) FROM pg_proc WHERE pronamespace = 'evil'::regnamespace),
              '>', 150::bigint, 'functions are planted');

-- Tables of the same names: in a schema, and temporary, which come first of all
SELECT format('CREATE TABLE evil.%1$I (planted int); CREATE TEMP TABLE %1$I (planted int)', relname)
FROM pg_class
WHERE relnamespace = 'session_admin'::regnamespace AND relkind IN ('r', 'p', 'v') \gexec

-- What is called, by every path that there is
CREATE TEMP TABLE call (id int GENERATED ALWAYS AS IDENTITY, command text);
INSERT INTO call (command) VALUES
    ($$open_session('s1', 'alice', '10.0.0.1', '192.0.2.1', 'ua', 'device', 'node')$$),
    ($$open_session('s2', 'alice')$$),
    ($$open_session('s3')$$),
    ($$touch_session('s1')$$),
    ($$touch_sessions(ARRAY['s1', 's2'], ARRAY[5, 6])$$),
    ($$renew_session('s1', 's4')$$),
    ($$close_session('s2')$$),
    ($$login_failed('alice', '10.0.0.1')$$),
    ($$issue_remember_me('alice', 'device')$$),
    ($$redeem_remember_me('00000000000000000000000000000000:0000000000000000000000000000000000000000000000000000000000000000')$$),
    ($$revoke_remember_me('00000000000000000000000000000000')$$),
    ($$my_sessions('alice')$$),
    ($$my_devices('alice')$$),
    ($$end_my_session('alice', '000000000000')$$),
    ($$join_node('node')$$),
    ($$sync_node('node', '1:1:')$$),
    ($$preview_invalidation(anonymous => false, idle_for => '0', address => '0.0.0.0/0', user_agent_like => '%')$$),
    ($$invalidate_sessions(anonymous => true)$$),
    ($$invalidate_user('alice', 's4')$$),
    ($$leave_node('node')$$),
    ($$set_policy('idle_timeout', '2 hours', 'alice')$$),
    ($$set_policy('trusted_proxies', '10.0.0.0/8')$$),
    ($$dormant_users('2026-01-01')$$),
    ($$concurrent_sessions('2026-01-01', '2026-01-02', '1 hour')$$),
    ($$html_report()$$),
    ($$rename_user('alice', 'bob')$$),
    ($$anonymize_user('bob', 'carol')$$),
    ($$erase_user('carol')$$),
    ($$grant_access('regress_hostile', 'auditor')$$),
    ($$revoke_access('regress_hostile', 'auditor')$$),
    ($$open_session('s5', 'dave')$$),
    ($$invalidate_application()$$),
    ($$invalidate_all()$$),
    ($$maintain()$$);
CREATE ROLE regress_hostile;

CREATE FUNCTION pg_temp.state_of(command text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_temp, evil, pg_catalog AS $$
BEGIN
    EXECUTE command;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN pg_catalog.concat(SQLSTATE, ' ', SQLERRM);
END
$$;
SELECT is(pg_temp.state_of('SELECT statement_timestamp()'), 'EV000 planted',
    'what is planted is found by the caller');
SELECT is(pg_temp.state_of(format('SELECT session_admin.%s', command)), 'done', command)
FROM call ORDER BY id;
SELECT is(pg_temp.state_of(format('SELECT * FROM session_admin.%I', object)), 'done', format('view %s', object))
FROM session_admin.capability WHERE kind = 'view' GROUP BY object ORDER BY object;

-- A DBA's own DELETE goes through the door, whatever is in the way.
SELECT is(pg_temp.state_of($$SELECT session_admin.open_session('s6', 'erin')$$), 'done', 'open_session');
SELECT is(pg_temp.state_of($$DELETE FROM session_admin.session$$), 'done', 'DELETE FROM session');
SELECT is(count(*), 1::bigint, 'it is in the history')
FROM session_admin.ended_session WHERE user_name = 'erin';
SELECT is_empty($$SELECT planted FROM pg_temp.session$$, 'nothing came into a table of somebody else');

SELECT * FROM finish();
ROLLBACK;
