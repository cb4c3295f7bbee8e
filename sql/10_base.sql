/*
 * Base: what is kept of a session id, and who is behind the proxies
 */

CREATE FUNCTION session_admin.session_ref(session_id text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_session_ref';
COMMENT ON FUNCTION session_admin.session_ref(text) IS
'what people see of a session: the first 12 hex digits of the SHA-256 of its id';

CREATE FUNCTION session_admin.session_ref(session_hash bytea) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_session_ref_bytea';
COMMENT ON FUNCTION session_admin.session_ref(bytea) IS
'the same, from the SHA-256 of the session id';

CREATE FUNCTION session_admin.log_id(session_id text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_log_id';
COMMENT ON FUNCTION session_admin.log_id(text) IS
'the label of a session in Jira''s access log: CRC-32 of the SHA-1 of its id, in base 36; it may collide';

CREATE FUNCTION session_admin.log_id(session_hash bytea) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_log_id_bytea';
COMMENT ON FUNCTION session_admin.log_id(bytea) IS
'null: a SHA-256 does not tell the log_id';

CREATE FUNCTION session_admin.client_address(peer inet, forwarded_for text, trusted cidr[])
RETURNS inet
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_client_address_sql';
COMMENT ON FUNCTION session_admin.client_address(inet, text, cidr[]) IS
'the client''s address by an X-Forwarded-For or Forwarded header, as far as trusted proxies vouch for it; else the peer''s';
