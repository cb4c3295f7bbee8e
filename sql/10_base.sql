/*
 * Base: what is kept of a session id, and who is behind the proxies
 */

CREATE FUNCTION session_admin.session_ref(session_id text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_session_ref';
COMMENT ON FUNCTION session_admin.session_ref(text) IS
'returns the public name of a session: the first 12 hex digits of the SHA-256 of its id';

CREATE FUNCTION session_admin.session_ref(session_hash bytea) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_session_ref_bytea';
COMMENT ON FUNCTION session_admin.session_ref(bytea) IS
'returns the public name of a session: the first 12 hex digits of the SHA-256 of its id, given that SHA-256';

CREATE FUNCTION session_admin.log_id(session_id text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_log_id';
COMMENT ON FUNCTION session_admin.log_id(text) IS
'returns the label of a session in Jira''s access log: the CRC-32 of the SHA-1 of its id in base 36; two sessions may have the same';

CREATE FUNCTION session_admin.log_id(session_hash bytea) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_log_id_bytea';
COMMENT ON FUNCTION session_admin.log_id(bytea) IS
'returns null, as the SHA-256 of a session id does not tell its log_id';

CREATE FUNCTION session_admin.client_address(peer inet, forwarded_for text, trusted cidr[])
RETURNS inet
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_client_address_sql';
COMMENT ON FUNCTION session_admin.client_address(inet, text, cidr[]) IS
'returns the client''s address from the header X-Forwarded-For or Forwarded, as far as the trusted proxies vouch for it, otherwise the peer''s address';
