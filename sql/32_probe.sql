/*
 * Probes
 *
 * What health checks and bots open is not kept, only counted.
 */

CREATE TABLE session_admin_internal.probe_rule (
    application     text COLLATE "C" NOT NULL,
    user_agent_like text COLLATE "C"
                    CHECK (octet_length(user_agent_like) BETWEEN 1 AND 1024),
    address         cidr,
    probes          bigint NOT NULL DEFAULT 0,
    last_probe_at   timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (num_nonnulls(user_agent_like, address) > 0),
    UNIQUE NULLS NOT DISTINCT (application, user_agent_like, address)
) WITH (fillfactor = 50);
COMMENT ON TABLE session_admin_internal.probe_rule IS
'which anonymous sessions are not kept, and how many there were';
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.probe_rule', '');

-- Not of a new count: that changes nothing for anybody.
CREATE TRIGGER policy_changed
    AFTER INSERT OR DELETE OR UPDATE OF application, user_agent_like, address OR TRUNCATE
    ON session_admin_internal.probe_rule
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin_internal.probe_rule ENABLE ALWAYS TRIGGER policy_changed;

CREATE FUNCTION session_admin.add_probe_rule(
    user_agent_like text DEFAULT NULL,
    address cidr DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_add_probe_rule';
COMMENT ON FUNCTION session_admin.add_probe_rule(text, cidr, text) IS
'keeps no anonymous session whose user agent is like this, from this network; false if there is such a rule';

CREATE FUNCTION session_admin.remove_probe_rule(
    user_agent_like text DEFAULT NULL,
    address cidr DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_remove_probe_rule';
COMMENT ON FUNCTION session_admin.remove_probe_rule(text, cidr, text) IS
'removes a rule and its count; false if there is no such rule';

CREATE FUNCTION session_admin_internal.live_probes(
    application text,
    user_agent_like text,
    address cidr,
    OUT probes bigint,
    OUT last_probe_at timestamptz)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_live_probes';
COMMENT ON FUNCTION session_admin_internal.live_probes(text, text, cidr) IS
'probes that the row of their rule does not count yet';

CREATE VIEW session_admin.probes WITH (security_barrier) AS
SELECT r.application,
       r.user_agent_like,
       r.address,
       r.probes + l.probes AS probes,
       greatest(r.last_probe_at, l.last_probe_at) AS last_probe_at,
       r.created_at
FROM session_admin_internal.probe_rule r
CROSS JOIN LATERAL session_admin_internal.live_probes(r.application, r.user_agent_like, r.address) l;
COMMENT ON VIEW session_admin.probes IS
'health checks and bots: the rules by which their sessions are not kept, and how many there were';
COMMENT ON COLUMN session_admin.probes.user_agent_like IS
'null: whatever the user agent is';
COMMENT ON COLUMN session_admin.probes.address IS
'null: from anywhere';
COMMENT ON COLUMN session_admin.probes.probes IS
'up to now; not preloaded, what other connections have counted comes with a delay of session_admin.touch_interval';
