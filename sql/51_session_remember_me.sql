/*
 * Remember-me
 */

CREATE FUNCTION session_admin.issue_remember_me(
    user_name       text,
    device          text DEFAULT NULL,
    user_agent      text DEFAULT NULL,
    client_address  inet DEFAULT NULL,
    application     text DEFAULT NULL
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_issue_remember_me';
COMMENT ON FUNCTION session_admin.issue_remember_me(text, text, text, inet, text) IS
'remember a device of a user: the token for its cookie, shown once';

CREATE FUNCTION session_admin.redeem_remember_me(
    token           text,
    client_address  inet DEFAULT NULL,
    user_agent      text DEFAULT NULL,
    application     text DEFAULT NULL,
    OUT outcome     text,
    OUT user_name   text,
    OUT token       text
)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_redeem_remember_me';
COMMENT ON FUNCTION session_admin.redeem_remember_me(text, inet, text, text) IS
'the user whom a token remembers, and the token to set next; outcome accepted, expired, unknown or theft';

CREATE FUNCTION session_admin.revoke_remember_me(
    series          text,
    application     text DEFAULT NULL
) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_revoke_remember_me';
COMMENT ON FUNCTION session_admin.revoke_remember_me(text, text) IS
'forget a device; false if there is no such series';

CREATE FUNCTION session_admin.rename_remembered_device(
    series          text,
    device          text,
    application     text DEFAULT NULL
) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_rename_remembered_device';
COMMENT ON FUNCTION session_admin.rename_remembered_device(text, text, text) IS
'give a remembered device another label; false if there is no such series';

CREATE VIEW session_admin.remembered_devices WITH (security_barrier) AS
SELECT t.application,
       t.user_name,
       t.series,
       t.device,
       t.user_agent,
       t.client_address,
       t.created_at,
       t.last_used_at,
       t.created_at + l.remember_me_lifetime AS expires_at
FROM session_admin.remember_me_token t
JOIN session_admin_internal.application_state a ON a.name = t.application AND a.generation = t.generation
JOIN session_admin_internal.time_limit l ON l.application = t.application
WHERE t.created_at + l.remember_me_lifetime > statement_timestamp()
  AND NOT EXISTS (SELECT FROM session_admin_internal.late_ending e
                  WHERE e.tokens AND t.opened_xid < e.before_xid
                    AND (e.application IS NULL OR e.application = t.application)
                    AND (e.user_name IS NULL OR e.user_name = t.user_name));
COMMENT ON VIEW session_admin.remembered_devices IS
'devices whose remember-me token is valid';
