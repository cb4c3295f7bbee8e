/*
 * Policy
 *
 * What may be set is data; what is set is a row of policy.  C reads both once
 * and keeps them until the trigger tells every backend that they changed.
 */

CREATE FUNCTION session_admin_internal.policy_changed() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_policy_changed';
COMMENT ON FUNCTION session_admin_internal.policy_changed() IS
'trigger: makes every backend read applications and policies anew once this transaction commits';

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON session_admin.application
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin.application ENABLE ALWAYS TRIGGER policy_changed;
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON session_admin_internal.policy
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin_internal.policy ENABLE ALWAYS TRIGGER policy_changed;
-- What an update of the extension changes, and a DBA who makes a copy a place of its own.
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON session_admin_internal.policy_definition
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin_internal.policy_definition ENABLE ALWAYS TRIGGER policy_changed;
CREATE TRIGGER policy_changed AFTER UPDATE OR DELETE OR TRUNCATE
    ON session_admin_internal.installation
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin_internal.installation ENABLE ALWAYS TRIGGER policy_changed;

CREATE VIEW session_admin_internal.effective_policy WITH (security_barrier) AS
SELECT a.name AS application, d.name, coalesce(p.value, d.default_value) AS value
FROM session_admin.application a
CROSS JOIN session_admin_internal.policy_definition d
LEFT JOIN session_admin_internal.policy p
    ON p.application = a.name AND p.user_name IS NULL AND p.name = d.name;
COMMENT ON VIEW session_admin_internal.effective_policy IS
'the value of each policy in each application';

-- pg_upgrade keeps the row and the database's OID.  A copy of the database has
-- the row, too, but another OID.
CREATE VIEW session_admin_internal.installation_mark AS
SELECT i.id || '/' || d.oid AS home, i.id::text AS id, i.since
FROM session_admin_internal.installation i
CROSS JOIN pg_database d WHERE d.datname = current_database();
COMMENT ON VIEW session_admin_internal.installation_mark IS
'the mark of this database';

-- No session and no token has the generation -1.
CREATE VIEW session_admin_internal.application_state AS
SELECT a.name, CASE WHEN r.restored THEN -1 ELSE a.generation END AS generation,
       m.moved, r.restored,
       -- a copy does not say when it was made
       CASE WHEN NOT r.restored THEN NULL
            WHEN starts_with(a.home, h.id) IS NOT FALSE THEN statement_timestamp()
            ELSE h.since END AS restored_at,
       CASE WHEN r.restored THEN 'restored' ELSE 'admin' END AS end_reason
FROM session_admin.application a
LEFT JOIN session_admin_internal.installation_mark h ON true
LEFT JOIN session_admin_internal.policy p
    ON p.application = a.name AND p.user_name IS NULL AND p.name = 'on_restore'
CROSS JOIN LATERAL (SELECT h.home IS NULL OR h.home IS DISTINCT FROM a.home AS moved) m
CROSS JOIN LATERAL (SELECT m.moved AND p.value IS DISTINCT FROM 'keep' AS restored) r;
COMMENT ON VIEW session_admin_internal.application_state IS
'the generation that is valid in each application, none if it came from a dump and nobody has used it since';

-- Months and years count as extract(epoch) counts them, here and in C.
CREATE VIEW session_admin_internal.time_limit AS
SELECT application,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'idle_timeout')::float8) AS idle_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'absolute_timeout')::float8) AS absolute_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'anonymous_idle_timeout')::float8) AS anonymous_idle_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'anonymous_absolute_timeout')::float8) AS anonymous_absolute_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'remember_me_lifetime')::float8) AS remember_me_lifetime
FROM session_admin_internal.effective_policy
WHERE name IN ('idle_timeout', 'absolute_timeout', 'anonymous_idle_timeout',
               'anonymous_absolute_timeout', 'remember_me_lifetime')
GROUP BY application;
COMMENT ON VIEW session_admin_internal.time_limit IS
'the time limits of each application';

CREATE VIEW session_admin_internal.user_time_limit AS
SELECT application, user_name,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'idle_timeout')::float8) AS idle_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'absolute_timeout')::float8) AS absolute_timeout
FROM session_admin_internal.policy
WHERE user_name IS NOT NULL AND name IN ('idle_timeout', 'absolute_timeout')
GROUP BY application, user_name;
COMMENT ON VIEW session_admin_internal.user_time_limit IS
'the time limits of users who have their own';

CREATE FUNCTION session_admin_internal.application_or_current(application text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(application, nullif(current_setting('session_admin.application', true), ''),
                'default');
COMMENT ON FUNCTION session_admin_internal.application_or_current(text) IS
'the argument, or else the setting session_admin.application';

CREATE VIEW session_admin.policies WITH (security_barrier) AS
SELECT d.name, a.name AS application, NULL::text COLLATE "C" AS user_name,
       coalesce(p.value, d.default_value) AS value, d.default_value AS "default",
       d.meaning, d.reference
FROM (SELECT name FROM session_admin.application
      UNION SELECT session_admin_internal.application_or_current(NULL)) a
CROSS JOIN session_admin_internal.policy_definition d
LEFT JOIN session_admin_internal.policy p
    ON p.application = a.name AND p.user_name IS NULL AND p.name = d.name
UNION ALL
SELECT d.name, p.application, p.user_name, p.value, d.default_value, d.meaning, d.reference
FROM session_admin_internal.policy p
JOIN session_admin_internal.policy_definition d ON d.name = p.name
WHERE p.user_name IS NOT NULL;
COMMENT ON VIEW session_admin.policies IS
'the policies that hold in each application, and for users who have their own';
COMMENT ON COLUMN session_admin.policies.name IS
'name of the policy, for set_policy';
COMMENT ON COLUMN session_admin.policies.application IS
'name of the application';
COMMENT ON COLUMN session_admin.policies.user_name IS
'name of the user for whom it holds; null: everybody else';
COMMENT ON COLUMN session_admin.policies.value IS
'value that holds';
COMMENT ON COLUMN session_admin.policies."default" IS
'value that holds if none is set';
COMMENT ON COLUMN session_admin.policies.meaning IS
'what the policy does';
COMMENT ON COLUMN session_admin.policies.reference IS
'standard that the default follows; null if there is none';
COMMENT ON COLUMN session_admin.policies."default" IS
'value that holds if none is set';

CREATE FUNCTION session_admin.set_policy(
    name text, value text, user_name text DEFAULT NULL, application text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET intervalstyle = postgres
AS 'MODULE_PATHNAME', 'sa_set_policy';
COMMENT ON FUNCTION session_admin.set_policy(text, text, text, text) IS
'sets a policy of an application, or of one of its users; null restores the default; returns the value that now holds; error 22023 for an unknown policy or a wrong value; see view policies';
