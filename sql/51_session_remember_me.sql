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
'remembers a device of a user; returns the token for its cookie, which is not shown again; error PT409 if max_remembered_devices_per_user is 0';

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
'checks a remember-me token; outcome is accepted, expired, unknown or theft; if accepted, returns the user and the token to set next';

CREATE FUNCTION session_admin.revoke_remember_me(
    series          text,
    application     text DEFAULT NULL
) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_revoke_remember_me';
COMMENT ON FUNCTION session_admin.revoke_remember_me(text, text) IS
'revokes the token of a remembered device; returns false if there is no such series';

CREATE FUNCTION session_admin.rename_remembered_device(
    series          text,
    device          text,
    application     text DEFAULT NULL
) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_rename_remembered_device';
COMMENT ON FUNCTION session_admin.rename_remembered_device(text, text, text) IS
'sets the label of a remembered device; returns false if there is no such series';

CREATE VIEW session_admin.remembered_devices WITH (security_barrier) AS
SELECT t.application,
       t.user_name,
       t.series,
       t.device,
       t.user_agent,
       t.client_address,
       t.created_at,
       t.last_used_at,
       t.expires_at
FROM session_admin_internal.token_state t
WHERE t.ended_at IS NULL;
COMMENT ON VIEW session_admin.remembered_devices IS
'devices whose remember-me token is valid';
COMMENT ON COLUMN session_admin.remembered_devices.application IS
'name of the application';
COMMENT ON COLUMN session_admin.remembered_devices.user_name IS
'name of the user';
COMMENT ON COLUMN session_admin.remembered_devices.series IS
'name of the device for revoke_remember_me; not a secret, as it opens nothing without its validator';
COMMENT ON COLUMN session_admin.remembered_devices.device IS
'label of the device';
COMMENT ON COLUMN session_admin.remembered_devices.user_agent IS
'header User-Agent of its last use, cut to 1,024 bytes';
COMMENT ON COLUMN session_admin.remembered_devices.client_address IS
'address of its last use';
COMMENT ON COLUMN session_admin.remembered_devices.created_at IS
'time at which it was remembered';
COMMENT ON COLUMN session_admin.remembered_devices.last_used_at IS
'time at which its token was last redeemed; null if never';
COMMENT ON COLUMN session_admin.remembered_devices.expires_at IS
'time after which the user has to log in again';
