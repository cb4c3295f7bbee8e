/*
 * Sessions: what an application calls
 *
 * Each function that takes a session id also takes its SHA-256 as bytea in the
 * same place, for those who want no secret in a server log.
 */

-- The door out of session: the row is the truth, whoever deletes it.
CREATE FUNCTION session_admin_internal.session_ended() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_session_ended';
COMMENT ON FUNCTION session_admin_internal.session_ended() IS
'trigger: archives the sessions that left the table, writes the feed and notifies';

CREATE FUNCTION session_admin_internal.truncated() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_truncated';
COMMENT ON FUNCTION session_admin_internal.truncated() IS
'trigger: sends all rows through the same door before TRUNCATE';

CREATE FUNCTION session_admin_internal.token_revoked() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_token_revoked';
COMMENT ON FUNCTION session_admin_internal.token_revoked() IS
'trigger: notes the remember-me tokens that left the table, writes the feed and notifies';

CREATE FUNCTION session_admin_internal.session_changed() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_session_changed';
COMMENT ON FUNCTION session_admin_internal.session_changed() IS
'trigger: has the sessions that were updated read from the table again';

CREATE TRIGGER session_changed AFTER UPDATE ON session_admin.session
    REFERENCING OLD TABLE AS old_table NEW TABLE AS new_table
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.session_changed();
CREATE TRIGGER session_ended AFTER DELETE ON session_admin.session
    REFERENCING OLD TABLE AS old_table
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.session_ended();
CREATE TRIGGER truncated BEFORE TRUNCATE ON session_admin.session
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.truncated();
CREATE TRIGGER token_revoked AFTER DELETE ON session_admin.remember_me_token
    REFERENCING OLD TABLE AS old_table
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.token_revoked();
CREATE TRIGGER truncated BEFORE TRUNCATE ON session_admin.remember_me_token
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.truncated();

-- Also where session_replication_role is replica.
ALTER TABLE session_admin.session ENABLE ALWAYS TRIGGER session_changed;
ALTER TABLE session_admin.session ENABLE ALWAYS TRIGGER session_ended;
ALTER TABLE session_admin.session ENABLE ALWAYS TRIGGER truncated;
ALTER TABLE session_admin.remember_me_token ENABLE ALWAYS TRIGGER token_revoked;
ALTER TABLE session_admin.remember_me_token ENABLE ALWAYS TRIGGER truncated;

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

CREATE FUNCTION session_admin.touch_session(
    session_id text,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_session';
COMMENT ON FUNCTION session_admin.touch_session(text, text) IS
'counts a request of a session and tells whether it is still valid';

CREATE FUNCTION session_admin.touch_session(
    session_id bytea,
    application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_session';
COMMENT ON FUNCTION session_admin.touch_session(bytea, text) IS
'counts a request of a session (by the SHA-256 of its id) and tells whether it is still valid';

CREATE FUNCTION session_admin.touch_sessions(
    session_ids text[],
    requests bigint[] DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS text[]
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_sessions';
COMMENT ON FUNCTION session_admin.touch_sessions(text[], bigint[], text) IS
'counts requests of many sessions and gives those that are not valid';

CREATE FUNCTION session_admin.touch_sessions(
    session_ids bytea[],
    requests bigint[] DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS bytea[]
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_sessions';
COMMENT ON FUNCTION session_admin.touch_sessions(bytea[], bigint[], text) IS
'counts requests of many sessions (by the SHA-256 of their ids) and gives those that are not valid';

-- '{a,b}' without a type could be either of these; as in all such cases, text is preferred.
CREATE FUNCTION session_admin.touch_sessions(
    session_ids text,
    requests bigint[] DEFAULT NULL,
    application text DEFAULT NULL)
RETURNS text[]
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_touch_sessions_text';
COMMENT ON FUNCTION session_admin.touch_sessions(text, bigint[], text) IS
'counts requests of many sessions, given as a literal of an array, and gives those that are not valid';

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
