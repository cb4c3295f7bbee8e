--
-- Nodes: join, sync, leave, and waiting for them
--
\set VERBOSITY terse
\pset null '(null)'
SET session_admin.application = 'wiki';

-- what a sync gives, without what differs from run to run
CREATE FUNCTION sync(node text, INOUT applied pg_snapshot, OUT scope text,
                     OUT application text, OUT user_name text, OUT session text, OUT reason text)
RETURNS SETOF record LANGUAGE sql AS $$
    SELECT applied, scope, application, user_name, session_admin.session_ref(session_hash), reason
    FROM session_admin.sync_node(node, applied)
$$;

-- somebody to log out: each call ends what it began, and is one row of the feed
CREATE FUNCTION log_in_and_out(user_name text) RETURNS bigint LANGUAGE sql AS $$
    SELECT session_admin.open_session('session of ' || user_name, user_name);
    SELECT invalidation_id FROM session_admin.invalidate_user(user_name);
$$;


-- A node joins with an empty cache.  What was before does not concern it.
SELECT log_in_and_out('before') > 0 AS fed;
SELECT session_admin.join_node('n1') AS p0 \gset
SELECT node, application, last_sync_at, lease_expires_at, applied,
       handed::text = :'p0' AS "p0 handed"
FROM session_admin_internal.node;

-- nothing new: one row, without an id
SELECT id, scope, application, user_name, session_hash, reason, at, lease
FROM session_admin.sync_node('n1', :'p0');

-- what was committed since
SELECT log_in_and_out('alice') AS id \gset
SELECT scope, application, user_name, session, reason FROM sync('n1', :'p0');

-- Not yet acknowledged, so it comes again: that answer may have been lost.
SELECT applied AS p1, scope, user_name FROM sync('n1', :'p0') \gset
\echo :scope :user_name
SELECT * FROM session_admin.wait_for_nodes(:id, '0');

-- presenting the position that came with it is the receipt
SELECT scope, user_name FROM sync('n1', :'p1');
SELECT * FROM session_admin.wait_for_nodes(:id);

-- The last two positions are taken, and no other: an older one is a resync,
SELECT scope, application, user_name, session, reason FROM sync('n1', :'p0');

-- and so is what was never handed out, or is no position at all
SELECT scope, reason FROM sync('n1', '1:1:');
SELECT scope, reason FROM sync('n1', '9223372036854775806:9223372036854775807:');
SELECT scope, reason FROM sync('n1', NULL);
-- it has an id, 0, so that nobody takes it for "nothing new"
SELECT id FROM session_admin.sync_node('n1', NULL);

-- until the new position is presented, the node has applied nothing
SELECT applied AS p5 FROM sync('n1', NULL) \gset
SELECT * FROM session_admin.wait_for_nodes(:id, '0');
SELECT scope FROM sync('n1', :'p5');
SELECT * FROM session_admin.wait_for_nodes(:id);

-- a position is the node's own
SELECT session_admin.join_node('n2', 'shop') AS q0 \gset
SELECT applied AS p6 FROM sync('n1', NULL) \gset
SELECT scope, reason FROM sync('n2', :'p6');
SELECT session_admin.leave_node('n2');

-- An unknown node (the server was restored, say) is registered, and starts over.
SELECT scope, reason FROM sync('stranger', :'p0');
SELECT node, application, applied FROM session_admin_internal.node WHERE node = 'stranger';
SELECT session_admin.leave_node('stranger'), session_admin.leave_node('stranger') AS again;


-- All scopes.  What is kept of a user's sessions is in session_hash.
SELECT applied AS p FROM sync('n1', NULL) \gset
SELECT session_admin.open_session('s1', 'bob') = session_admin.session_ref('s1');
SELECT session_admin.open_session('s2', 'bob') = session_admin.session_ref('s2');
SELECT session_admin.close_session('s2');
SELECT count(*) FROM session_admin.invalidate_user('bob', keep_session => 's1');
SELECT count(*) FROM session_admin.invalidate_application('custom:upgrade');
SELECT count(*) FROM session_admin.invalidate_all();
SELECT scope, application, user_name, session, reason FROM sync('n1', :'p');

-- ids ascend
SELECT array_agg(id) = array_agg(id ORDER BY id) AS ordered, count(*)
FROM session_admin.sync_node('n1', :'p');


-- Rolled back, it never was, and a savepoint is no different.
SELECT applied AS p FROM sync('n1', NULL) \gset
BEGIN;
SELECT log_in_and_out('carol') > 0;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT log_in_and_out('carol') > 0;
ROLLBACK TO s;
SAVEPOINT s;
SELECT log_in_and_out('dave') > 0;
RELEASE s;
COMMIT;
SELECT scope, user_name FROM sync('n1', :'p');

-- The own transaction: what it does is not committed, so it is not delivered,
SELECT applied AS p FROM sync('n1', NULL) \gset
BEGIN;
SELECT log_in_and_out('erin') AS id \gset
SELECT scope FROM sync('n1', :'p');
-- not waited for (that would be in vain: 55000),
\set VERBOSITY sqlstate
SELECT * FROM session_admin.wait_for_nodes(:id);
\set VERBOSITY terse
ROLLBACK;

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT applied AS p, scope FROM sync('n1', NULL) \gset
SELECT log_in_and_out('erin') AS id \gset
SELECT applied AS p, scope FROM sync('n1', :'p') \gset
SELECT log_in_and_out('frank') AS id \gset
COMMIT;
-- and not missed afterwards, on whichever side of the sync it was done.
SELECT scope, user_name FROM sync('n1', :'p');


-- wait_for_nodes: "behind" only while the node may answer from its cache.
SELECT log_in_and_out('grace') AS id \gset
SELECT * FROM session_admin.wait_for_nodes(:id, '10 milliseconds');
UPDATE session_admin_internal.node SET lease_expires_at = clock_timestamp();
SELECT * FROM session_admin.wait_for_nodes(:id);
-- one that joined and never synced has no lease
SELECT session_admin.join_node('n0') IS NOT NULL AS joined;
SELECT * FROM session_admin.wait_for_nodes(:id);
-- One that joins again keeps what is left of its lease: its predecessor of the
-- same name may still answer.
SELECT scope FROM sync('n1', NULL);
SELECT session_admin.join_node('n1') AS p \gset
SELECT * FROM session_admin.wait_for_nodes(:id, '0');
SELECT count(*) FROM sync('n1', :'p');
SELECT * FROM session_admin.wait_for_nodes(:id, '0');
SELECT session_admin.leave_node('n0');

-- the lease is a policy of the node's application
INSERT INTO session_admin_internal.policy (application, name, value) VALUES ('wiki', 'node_lease', '3 seconds');
SELECT lease FROM session_admin.sync_node('n1', NULL);
SELECT lease_expires_at - last_sync_at AS lease FROM session_admin_internal.node;
DELETE FROM session_admin_internal.policy WHERE application = 'wiki';
SELECT applied AS p, lease FROM session_admin.sync_node('n1', NULL) \gset
\echo :lease
SELECT scope FROM sync('n1', :'p');


-- Purging.  A position that is newer than all that was purged stays good; one
-- that is older is a resync, also if the server remembers it.
SELECT applied AS p FROM sync('n1', NULL) \gset
SELECT applied AS older FROM sync('n1', :'p') \gset
SELECT session_admin.join_node('n2') AS newer FROM log_in_and_out('heidi') \gset
SELECT applied AS newer FROM sync('n2', :'newer') \gset
UPDATE session_admin_internal.invalidation SET at = at - interval '1 day';
UPDATE session_admin_internal.feed_running SET seen_at = seen_at - interval '1 day';
UPDATE session_admin_internal.node SET lease_expires_at = lease_expires_at - interval '2 days' WHERE node = 'n1';
SELECT done > 0 AS purged FROM session_admin.maintain() WHERE task = 'feed purged';
SELECT count(*) FROM session_admin_internal.invalidation;
-- forgotten with its lease a day ago
SELECT node FROM session_admin_internal.node;
-- put back as it would be if it had kept its lease
SELECT scope, reason FROM sync('n1', :'older');
UPDATE session_admin_internal.node SET applied = :'older' WHERE node = 'n1';
SELECT scope, reason FROM sync('n1', :'older');
SELECT count(*) FROM log_in_and_out('ivan');
SELECT scope, user_name FROM sync('n2', :'newer');
SELECT done FROM session_admin.maintain() WHERE task = 'feed purged';
SELECT count(*) FROM session_admin_internal.invalidation;
SELECT session_admin.leave_node('n2');
SELECT invalidation_id AS id FROM session_admin.invalidate_all() \gset
SELECT applied AS p FROM sync('n1', NULL) \gset
SELECT scope FROM sync('n1', :'p');

-- What is refused
SELECT * FROM session_admin.wait_for_nodes(NULL);
SELECT * FROM session_admin.wait_for_nodes(0);
\set VERBOSITY default
SELECT * FROM session_admin.wait_for_nodes(9223372036854775807);
\set VERBOSITY terse
SELECT * FROM session_admin.wait_for_nodes(:id, NULL);
SELECT * FROM session_admin.wait_for_nodes(:id, '-1 second');
SELECT * FROM session_admin.wait_for_nodes(:id, '178000000 years');
SELECT * FROM session_admin.wait_for_nodes(:id, '290000 years');
SELECT session_admin.join_node(NULL);
SELECT session_admin.join_node('');
SELECT session_admin.join_node(repeat('x', 256));
SELECT session_admin.join_node('n', '');
SELECT session_admin.join_node('n', repeat('x', 64));
SELECT * FROM session_admin.sync_node(NULL, NULL);
SELECT * FROM session_admin.sync_node(repeat('x', 1000000), NULL);
SELECT * FROM session_admin.sync_node('n', 'elephant');
SELECT session_admin.leave_node(NULL);
SELECT session_admin.leave_node('nobody');

SELECT session_admin.leave_node('n1');
SELECT count(*) FROM session_admin_internal.node;
DROP FUNCTION sync, log_in_and_out;
