/*
 * Rules of probes
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
    CONSTRAINT probe_rule_key UNIQUE NULLS NOT DISTINCT (application, user_agent_like, address)
) WITH (fillfactor = 50);
COMMENT ON TABLE session_admin_internal.probe_rule IS
'which anonymous sessions are not kept, and how many there were';

-- Not of a new count: that changes nothing for anybody.
CREATE TRIGGER policy_changed
    AFTER INSERT OR DELETE OR UPDATE OF application, user_agent_like, address OR TRUNCATE
    ON session_admin_internal.probe_rule
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin_internal.probe_rule ENABLE ALWAYS TRIGGER policy_changed;

SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.probe_rule', '');
