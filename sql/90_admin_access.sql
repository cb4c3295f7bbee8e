/*
 * Privileges
 *
 * PUBLIC has nothing.  A capability is a set of functions and views; what is not
 * in the table capability is for the owner alone.  A view needs the functions
 * that it calls to be granted with it.
 */

CREATE TABLE session_admin_internal.capability (
    capability  text COLLATE "C",
    kind        text CHECK (kind IN ('function', 'view')),
    schema      text COLLATE "C",
    object      text COLLATE "C",
    PRIMARY KEY (capability, kind, schema, object)
);
COMMENT ON TABLE session_admin_internal.capability IS
'what grant_access grants: all functions of a name, or a view';

INSERT INTO session_admin_internal.capability
SELECT c.capability, c.kind, 'session_admin', o.object
FROM (VALUES
    -- opens and checks sessions; sees only what it is told about a session of its own
    ('application', 'function', '{open_session,touch_session,touch_session_user,touch_sessions,renew_session,
        reauthenticate,close_session,login_failed,issue_remember_me,redeem_remember_me,
        revoke_remember_me,rename_remembered_device,my_sessions,my_devices,end_my_session,
        end_my_other_sessions}'),
    ('application', 'view', '{login_pressure}'),
    -- follows the feed
    ('node', 'function', '{join_node,sync_node,leave_node,witness_invalidations}'),
    -- sees who is here, and ends sessions
    ('operator', 'function', '{preview_invalidation,invalidate_session,invalidate_user,
        invalidate_sessions,invalidate_application,invalidate_all,wait_for_nodes,log_out,
        revoke_remember_me,maintain,reconcile_sessions,verify_attachments}'),
    ('operator', 'view', '{current_sessions,session_history,last_login,remembered_devices,
        login_pressure,probes,invalidations,nodes,health,policies,capture_failures,backfills}'),
    -- reads everything and changes nothing
    ('auditor', 'function', '{dormant_users,concurrent_sessions,html_report,verify_attachments}'),
    ('auditor', 'view', '{current_sessions,session_history,last_login,login_history,
        logins_per_day,login_pressure,remembered_devices,probes,
        invalidations,nodes,health,policies,access,capture_failures,backfills}'),
    -- decides who may do what and what holds; is an operator and an auditor too
    ('administrator', 'function', '{set_policy,add_probe_rule,remove_probe_rule,grant_access,
        revoke_access,attach_application,detach_application,backfill_batch,backfill_sessions,
        acknowledge_failures,describe_product,forget_product,detect_product,
        anonymize_user,rename_user,erase_user}'))
    AS c (capability, kind, objects)
CROSS JOIN unnest(c.objects::text[]) AS o (object);

-- pure functions are for everybody who has a capability
INSERT INTO session_admin_internal.capability
SELECT DISTINCT c.capability, 'function', 'session_admin', o.object
FROM session_admin_internal.capability c
CROSS JOIN unnest('{session_ref,log_id,client_address}'::text[]) AS o (object);

-- Nobody can call these by name, but views and functions call them for whoever reads and
-- calls them: EXECUTE is enough, as their names were looked up when those were made.
INSERT INTO session_admin_internal.capability
SELECT c.capability, 'function', 'session_admin_internal', o.object
FROM (VALUES
    ('operator', '{live_last_access,live_requests,live_probes,application_or_current,
        health_items,health_lease_is_over}'),
    ('auditor', '{live_last_access,live_requests,live_probes,application_or_current,
        health_items,health_lease_is_over,
        check_steps,html,html_time,html_row,html_table}'))
    AS c (capability, objects)
CROSS JOIN unnest(c.objects::text[]) AS o (object);

INSERT INTO session_admin_internal.capability
SELECT DISTINCT 'administrator', c.kind, c.schema, c.object
FROM session_admin_internal.capability c
WHERE c.capability IN ('operator', 'auditor')
ON CONFLICT DO NOTHING;

-- what tells, by its grants, who has the capability
INSERT INTO session_admin_internal.capability
SELECT DISTINCT c.capability, 'function', 'session_admin_internal', 'capability_' || c.capability
FROM session_admin_internal.capability c;

CREATE FUNCTION session_admin_internal.capability_application() RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
CREATE FUNCTION session_admin_internal.capability_node() RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
CREATE FUNCTION session_admin_internal.capability_operator() RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
CREATE FUNCTION session_admin_internal.capability_auditor() RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
CREATE FUNCTION session_admin_internal.capability_administrator() RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
COMMENT ON FUNCTION session_admin_internal.capability_application() IS
'whoever may execute this has the capability application';
COMMENT ON FUNCTION session_admin_internal.capability_node() IS
'whoever may execute this has the capability node';
COMMENT ON FUNCTION session_admin_internal.capability_operator() IS
'whoever may execute this has the capability operator';
COMMENT ON FUNCTION session_admin_internal.capability_auditor() IS
'whoever may execute this has the capability auditor';
COMMENT ON FUNCTION session_admin_internal.capability_administrator() IS
'whoever may execute this has the capability administrator';

CREATE VIEW session_admin_internal.capability_privilege AS
SELECT c.capability, 'EXECUTE ON ROUTINE ' || p.oid::regprocedure AS privilege
FROM session_admin_internal.capability c
JOIN pg_proc p ON p.proname = c.object AND p.pronamespace = c.schema::regnamespace
WHERE c.kind = 'function'
UNION ALL
SELECT c.capability, format('SELECT ON TABLE %I.%I', c.schema, r.relname)
FROM session_admin_internal.capability c
JOIN pg_class r ON r.relname = c.object AND r.relnamespace = c.schema::regnamespace
WHERE c.kind = 'view';
COMMENT ON VIEW session_admin_internal.capability_privilege IS
'the privileges that a capability consists of, as GRANT and REVOKE name them';

CREATE VIEW session_admin.access WITH (security_barrier) AS
SELECT g.grantee::regrole AS role, c.capability
FROM (SELECT DISTINCT capability FROM session_admin_internal.capability) c
JOIN pg_proc p
    ON p.proname = 'capability_' || c.capability
    AND p.pronamespace = 'session_admin_internal'::regnamespace
CROSS JOIN aclexplode(p.proacl) g
WHERE g.grantee <> p.proowner AND g.grantee <> 0;
COMMENT ON VIEW session_admin.access IS
'which capability was granted to which role; members of a role have what it has';
COMMENT ON COLUMN session_admin.access.role IS
'role';
COMMENT ON COLUMN session_admin.access.capability IS
'application, node, operator, auditor or administrator';

CREATE FUNCTION session_admin.grant_access(role regrole, capability text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_grant_access';
COMMENT ON FUNCTION session_admin.grant_access(regrole, text) IS
'grants a role a capability: application, node, operator, auditor or administrator; call it again after the extension was updated';

CREATE FUNCTION session_admin.revoke_access(role regrole, capability text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_revoke_access';
COMMENT ON FUNCTION session_admin.revoke_access(regrole, text) IS
'revokes a capability from a role, except what the other capabilities of the role need';

REVOKE ALL ON ALL TABLES IN SCHEMA session_admin, session_admin_internal FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA session_admin, session_admin_internal FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA session_admin, session_admin_internal FROM PUBLIC;
REVOKE ALL ON SCHEMA session_admin, session_admin_internal FROM PUBLIC;
