/*
 * Nodes: whoever keeps a cache of sessions, and must know what ended
 */

CREATE FUNCTION session_admin.feed_position() RETURNS pg_snapshot
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_feed_position';
COMMENT ON FUNCTION session_admin.feed_position() IS
'the position in the feed of the statement that calls it; where a node starts is join_node''s to say';

CREATE FUNCTION session_admin.join_node(node text, application text DEFAULT NULL)
RETURNS pg_snapshot
LANGUAGE c VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_join_node';
COMMENT ON FUNCTION session_admin.join_node(text, text) IS
'registers a node; the position in the feed from which an empty cache is right';

CREATE FUNCTION session_admin.sync_node(
    node text, INOUT applied pg_snapshot,
    OUT id bigint, OUT scope text, OUT application text, OUT user_name text,
    OUT session_hash bytea, OUT reason text, OUT at timestamptz, OUT lease interval)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_sync_node';
COMMENT ON FUNCTION session_admin.sync_node(text, pg_snapshot) IS
'says that a node applied everything up to a position, renews its lease, and gives what was committed since';

CREATE FUNCTION session_admin.leave_node(node text)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_leave_node';
COMMENT ON FUNCTION session_admin.leave_node(text) IS
'forgets a node, which no longer answers from its cache; was it known?';

CREATE FUNCTION session_admin.wait_for_nodes(
    invalidation_id bigint, timeout interval DEFAULT '5 seconds')
RETURNS TABLE (node text, state text)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_wait_for_nodes';
COMMENT ON FUNCTION session_admin.wait_for_nodes(bigint, interval) IS
'waits until no node is behind an invalidation, or for the timeout; what each node said: applied, behind, or lease expired; product:NAME is behind while rows remain in its tables';
