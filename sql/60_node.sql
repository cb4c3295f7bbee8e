/*
 * Nodes: whoever keeps a cache of sessions, and must know what ended
 */

CREATE FUNCTION session_admin_internal.feed_position() RETURNS pg_snapshot
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_feed_position';
COMMENT ON FUNCTION session_admin_internal.feed_position() IS
'the position in the feed of the statement that calls it; where a node starts is join_node''s to say';

CREATE FUNCTION session_admin_internal.health_lease_is_over(
    begins timestamptz, ends timestamptz, ahead bigint, run text, seen bigint, seen_run text)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_health_lease_is_over';
COMMENT ON FUNCTION session_admin_internal.health_lease_is_over(timestamptz, timestamptz, bigint, text, bigint, text) IS
'has a lease surely run out, by the clock that nobody sets?';

-- The one place that says what is left of a lease.
CREATE VIEW session_admin_internal.node_state AS
SELECT n.*,
       -- one that has not synced yet has nothing to answer from
       n.lease_expires_at IS NULL
       OR session_admin_internal.health_lease_is_over(n.last_sync_at, n.lease_expires_at,
              n.synced_ahead, n.synced_run, (SELECT r.seen FROM session_admin_internal.server_run r),
              (SELECT r.run FROM session_admin_internal.server_run r)) AS lease_is_over,
       coalesce(n.last_sync_at >= n.joined_at, false)
       OR session_admin_internal.health_lease_is_over(n.joined_at, n.joined_at + coalesce(
              (SELECT p.value::interval FROM session_admin_internal.effective_policy p
               WHERE p.application = n.application AND p.name = 'node_lease'),
              (SELECT d.default_value::interval FROM session_admin_internal.policy_definition d
               WHERE d.name = 'node_lease')),
           n.joined_ahead, n.joined_run, (SELECT r.seen FROM session_admin_internal.server_run r),
           (SELECT r.run FROM session_admin_internal.server_run r)) AS join_is_over
FROM session_admin_internal.node n;
COMMENT ON VIEW session_admin_internal.node_state IS
'each node; lease_is_over: its lease has surely run out; join_is_over: it has synced since it joined, or as much time has passed';

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

CREATE FUNCTION session_admin.witness_invalidations(node text, invalidations jsonb)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_witness_invalidations';
COMMENT ON FUNCTION session_admin.witness_invalidations(text, jsonb) IS
'takes back from a node what a server has lost, where policy on_lost_history is witness; how many of them ended something';

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
