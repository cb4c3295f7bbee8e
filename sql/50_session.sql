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
'opens a session, an anonymous one if user_name is null; returns its session_ref, null for a probe that is not kept; error PT409 at a session limit, PT410 if the id has ended other than by time';

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
'opens a session, given by the SHA-256 of its id, an anonymous one if user_name is null; returns its session_ref, null for a probe that is not kept; error PT409 at a session limit, PT410 if the id has ended other than by time';

CREATE FUNCTION session_admin.renew_session(
    old_id text,
    new_id text,
    application text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_renew_session';
COMMENT ON FUNCTION session_admin.renew_session(text, text, text) IS
'gives a session a new id, against session fixation; returns the new session_ref; error PT404 if the session is not valid, PT410 if the new id has ended';

CREATE FUNCTION session_admin.renew_session(
    old_id bytea,
    new_id bytea,
    application text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_renew_session';
COMMENT ON FUNCTION session_admin.renew_session(bytea, bytea, text) IS
'gives a session a new id, both given by their SHA-256; returns the new session_ref; error PT404 if the session is not valid, PT410 if the new id has ended';

CREATE FUNCTION session_admin.reauthenticate(
    session_id text,
    login_method text DEFAULT 'password',
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_reauthenticate';
COMMENT ON FUNCTION session_admin.reauthenticate(text, text, text) IS
'records that the user of a session, for example one that a remember-me token opened, has logged in again; returns false if the session is not valid; renew the session afterwards';

CREATE FUNCTION session_admin.reauthenticate(
    session_id bytea,
    login_method text DEFAULT 'password',
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_reauthenticate';
COMMENT ON FUNCTION session_admin.reauthenticate(bytea, text, text) IS
'records that the user of a session, given by the SHA-256 of its id, has logged in again; returns false if the session is not valid; renew the session afterwards';

CREATE FUNCTION session_admin.close_session(
    session_id text,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_close_session';
COMMENT ON FUNCTION session_admin.close_session(text, text) IS
'ends a session because its user logs out; returns false if the session was not valid';

CREATE FUNCTION session_admin.close_session(
    session_id bytea,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_close_session';
COMMENT ON FUNCTION session_admin.close_session(bytea, text) IS
'ends a session, given by the SHA-256 of its id, because its user logs out; returns false if the session was not valid';

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
'records a login that failed; the failure counts in last_login if the user is known';
