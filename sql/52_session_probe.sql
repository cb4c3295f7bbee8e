/*
 * Probes: the rules, and what was counted
 */

CREATE FUNCTION session_admin.add_probe_rule(
    user_agent_like text DEFAULT NULL,
    address cidr DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_add_probe_rule';
COMMENT ON FUNCTION session_admin.add_probe_rule(text, cidr, text) IS
'stops keeping anonymous sessions whose user agent matches the LIKE pattern and whose address is in the network; null matches all; returns false if the rule exists; error 22023 if both are null';

CREATE FUNCTION session_admin.remove_probe_rule(
    user_agent_like text DEFAULT NULL,
    address cidr DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_remove_probe_rule';
COMMENT ON FUNCTION session_admin.remove_probe_rule(text, cidr, text) IS
'removes the rule with exactly this pattern and network, and its count; returns false if there is none';

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
COMMENT ON COLUMN session_admin.probes.application IS
'name of the application';
COMMENT ON COLUMN session_admin.probes.user_agent_like IS
'LIKE pattern for user agents; null: any';
COMMENT ON COLUMN session_admin.probes.address IS
'network of the clients; null: any';
COMMENT ON COLUMN session_admin.probes.probes IS
'number of sessions that were not kept; without shared_preload_libraries, those of other connections appear after session_admin.touch_interval';
COMMENT ON COLUMN session_admin.probes.last_probe_at IS
'time of the last of them';
COMMENT ON COLUMN session_admin.probes.created_at IS
'time at which the rule was added';
