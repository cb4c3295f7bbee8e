/*
 * Nodes: whoever keeps a cache of sessions, and must know what ended
 */

CREATE TABLE session_admin_internal.node (
    node                text COLLATE "C" PRIMARY KEY
                        CHECK (node <> '' AND octet_length(node) <= 255),
    application         text COLLATE "C" NOT NULL,
    joined_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_sync_at        timestamptz,
    lease_expires_at    timestamptz,
    applied             pg_snapshot,
    handed              pg_snapshot,
    joined_by           text NOT NULL DEFAULT session_user,
    -- how far the clock that people set was then ahead of the one that nobody sets, in
    -- microseconds, and in which run of the server: see health_lease_is_over
    joined_ahead        bigint,
    joined_run          text,
    synced_ahead        bigint,
    synced_run          text,
    -- the position it was handed came with rows, whose receipt is to be noted at once
    unconfirmed         boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
COMMENT ON TABLE session_admin_internal.node IS
'application nodes with a cache: what each said it applied, and the position it was handed since';

CREATE TABLE session_admin_internal.server_run (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    run         text,
    seen        bigint
);
INSERT INTO session_admin_internal.server_run DEFAULT VALUES;
COMMENT ON TABLE session_admin_internal.server_run IS
'one row: the latest run of the server as primary, and a moment of it, by the clock that nobody sets';

CREATE TABLE session_admin.lost_history (
    timeline        bigint NOT NULL,
    left_timeline   bigint NOT NULL,
    server_start    timestamptz,
    left_at         pg_lsn,
    claimed         pg_lsn NOT NULL,
    found_at        timestamptz NOT NULL,
    node            text COLLATE "C" NOT NULL,
    UNIQUE NULLS NOT DISTINCT (timeline, left_timeline, server_start)
);
COMMENT ON TABLE session_admin.lost_history IS
'timelines on which invalidations were lost, as the position of a node shows';
COMMENT ON COLUMN session_admin.lost_history.timeline IS
'timeline of the server';
COMMENT ON COLUMN session_admin.lost_history.left_timeline IS
'timeline that the node had followed';
COMMENT ON COLUMN session_admin.lost_history.server_start IS
'start of the server, where its timelines alone do not show the loss; null otherwise';
COMMENT ON COLUMN session_admin.lost_history.left_at IS
'place in the WAL at which the server left that timeline; null if it is not known';
COMMENT ON COLUMN session_admin.lost_history.claimed IS
'place in the WAL up to which the node was told of invalidations';
COMMENT ON COLUMN session_admin.lost_history.found_at IS
'time at which the loss was found';
COMMENT ON COLUMN session_admin.lost_history.node IS
'node that showed it';

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
'registers a node that caches sessions; returns the position in the feed from which an empty cache is right; error 42501 if the name is that of another role''s node';

CREATE FUNCTION session_admin.sync_node(
    node text, INOUT applied pg_snapshot, wait interval DEFAULT '0',
    OUT id bigint, OUT scope text, OUT application text, OUT user_name text,
    OUT session_hash bytea, OUT reason text, OUT at timestamptz, OUT lease interval)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_sync_node';
COMMENT ON FUNCTION session_admin.sync_node(text, pg_snapshot, interval) IS
'confirms that a node has applied everything up to a position and renews its lease; if that was known and there is nothing new, waits for news, at most for wait and for a third of the lease; returns what was committed since, at least one row, with the next position; scope all means to start with an empty cache';

CREATE FUNCTION session_admin.witness_invalidations(node text, invalidations jsonb)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_witness_invalidations';
COMMENT ON FUNCTION session_admin.witness_invalidations(text, jsonb) IS
'takes from a node the invalidations that the server has lost, for applications whose policy on_lost_history is witness; returns how many of them ended something; error 55000 if nothing was lost';

CREATE FUNCTION session_admin.leave_node(node text)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_leave_node';
COMMENT ON FUNCTION session_admin.leave_node(text) IS
'removes a node, which from then on must not answer from its cache; returns false if it was not known; error 42501 if it is another role''s';

CREATE FUNCTION session_admin.wait_for_nodes(
    invalidation_id bigint, timeout interval DEFAULT '5 seconds')
RETURNS TABLE (node text, state text)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_wait_for_nodes';
COMMENT ON FUNCTION session_admin.wait_for_nodes(bigint, interval) IS
'waits until no node is behind an invalidation, at most for timeout; returns each node with its state: applied, behind or lease expired; error PT404 if there is no such invalidation, 55000 if it is not committed';

-- With the caller's rights, as otherwise it could not commit.  It has no search_path of its
-- own for the same reason, and needs none: its statements name the schemas.
CREATE PROCEDURE session_admin.log_out(
    user_name text DEFAULT NULL,
    session_ref text DEFAULT NULL,
    address cidr DEFAULT NULL,
    user_agent_like text DEFAULT NULL,
    node text DEFAULT NULL,
    idle_for interval DEFAULT NULL,
    opened_before timestamptz DEFAULT NULL,
    anonymous boolean DEFAULT NULL,
    everybody boolean DEFAULT false,
    reason text DEFAULT 'admin',
    timeout interval DEFAULT '5 seconds',
    application text DEFAULT NULL)
LANGUAGE c
AS 'MODULE_PATHNAME', 'sa_log_out';
COMMENT ON PROCEDURE session_admin.log_out(text, text, cidr, text, text, interval, timestamptz, boolean, boolean, text, interval, text) IS
'ends the sessions of a user, one session, those that match filters, or everybody''s in an application; commits, waits for the nodes, at most for timeout, and prints a line for each; error 2D000 in a transaction block, PT404 if there is no such user or session';
