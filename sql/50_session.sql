/*
 * Sessions: what an application calls
 *
 * Each function that takes a session id also takes its SHA-256 as bytea in the
 * same place, for those who want no secret in a server log.
 */

CREATE FUNCTION session_admin.open_session(
    session_id text,
    user_name text DEFAULT NULL,
    client_address inet DEFAULT NULL,
    forwarded_for text DEFAULT NULL,
    user_agent text DEFAULT NULL,
    device text DEFAULT NULL,
    node text DEFAULT NULL,
    login_method text DEFAULT 'password',
    application text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_open_session';
COMMENT ON FUNCTION session_admin.open_session(text, text, inet, text, text, text, text, text, text) IS
'opens a session; user_name null is an anonymous one; gives its session_ref, null for a probe that is not kept; refuses an id that has ended, other than by time';

CREATE FUNCTION session_admin.open_session(
    session_id bytea,
    user_name text DEFAULT NULL,
    client_address inet DEFAULT NULL,
    forwarded_for text DEFAULT NULL,
    user_agent text DEFAULT NULL,
    device text DEFAULT NULL,
    node text DEFAULT NULL,
    login_method text DEFAULT 'password',
    application text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_open_session';
COMMENT ON FUNCTION session_admin.open_session(bytea, text, inet, text, text, text, text, text, text) IS
'opens a session (by the SHA-256 of its id); user_name null is an anonymous one; gives its session_ref, null for a probe that is not kept; refuses an id that has ended, other than by time';

CREATE FUNCTION session_admin.renew_session(
    old_id text,
    new_id text,
    application text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_renew_session';
COMMENT ON FUNCTION session_admin.renew_session(text, text, text) IS
'gives a session a new id, against session fixation; gives its new session_ref';

CREATE FUNCTION session_admin.renew_session(
    old_id bytea,
    new_id bytea,
    application text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_renew_session';
COMMENT ON FUNCTION session_admin.renew_session(bytea, bytea, text) IS
'gives a session a new id (both by their SHA-256), against session fixation; gives its new session_ref';

CREATE FUNCTION session_admin.reauthenticate(
    session_id text,
    login_method text DEFAULT 'password',
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_reauthenticate';
COMMENT ON FUNCTION session_admin.reauthenticate(text, text, text) IS
'raises a session that a token opened, after the user has logged in again; false if it is not valid; then give it a new id with renew_session';

CREATE FUNCTION session_admin.reauthenticate(
    session_id bytea,
    login_method text DEFAULT 'password',
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_reauthenticate';
COMMENT ON FUNCTION session_admin.reauthenticate(bytea, text, text) IS
'raises a session (by the SHA-256 of its id) that a token opened, after the user has logged in again; false if it is not valid; then give it a new id with renew_session';

CREATE FUNCTION session_admin.close_session(
    session_id text,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_close_session';
COMMENT ON FUNCTION session_admin.close_session(text, text) IS
'ends a session at the wish of its user; false if it was not live';

CREATE FUNCTION session_admin.close_session(
    session_id bytea,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_close_session';
COMMENT ON FUNCTION session_admin.close_session(bytea, text) IS
'ends a session (by the SHA-256 of its id) at the wish of its user; false if it was not live';

CREATE FUNCTION session_admin.login_failed(
    user_name text,
    client_address inet DEFAULT NULL,
    forwarded_for text DEFAULT NULL,
    user_agent text DEFAULT NULL,
    login_method text DEFAULT 'password',
    application text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_login_failed';
COMMENT ON FUNCTION session_admin.login_failed(text, inet, text, text, text, text) IS
'notes a failed login';
