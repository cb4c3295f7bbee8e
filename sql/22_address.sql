/*
 * Address: who is behind the proxies
 */

CREATE FUNCTION session_admin.client_address(peer inet, forwarded_for text, trusted cidr[])
RETURNS inet
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_client_address_sql';
COMMENT ON FUNCTION session_admin.client_address(inet, text, cidr[]) IS
'the client''s address by an X-Forwarded-For or Forwarded header, as far as trusted proxies vouch for it; else the peer''s';
