/*
 * Health
 *
 * What a DBA looks at.  The function reads what its callers may not, so that the
 * view tells an auditor the same as the owner.
 *
 * It may be looked at every few seconds: what there may be millions of is not
 * counted one by one, but estimated from some pages of it.
 */

-- Partitions begin at midnight UTC: so does what is compared with their bounds.
CREATE FUNCTION session_admin_internal.health_items()
RETURNS TABLE (name text, value text, status text)
LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
BEGIN ATOMIC
    WITH sample AS (
        SELECT least(1, 100 * current_setting('block_size')::float8
                        / greatest(pg_relation_size('session_admin.session'), 1)) AS share
    ), backlog AS (
        SELECT count(*) AS rows, min(s.ended_at) AS oldest
        FROM session_admin_internal.session_state s
        WHERE s.ended_at IS NOT NULL
          AND s.tid = ANY (ARRAY(
              SELECT x.ctid
              FROM session_admin.session x
                   TABLESAMPLE SYSTEM (100 * (SELECT sample.share FROM sample))))
    ), feed AS (
        SELECT (SELECT count(*) FROM (SELECT FROM session_admin_internal.invalidation LIMIT 10001) i) AS rows,
               -- those that stay longer, since they were committed late, aside
               (SELECT i.at FROM session_admin_internal.invalidation i
                WHERE NOT EXISTS (SELECT FROM session_admin_internal.feed_running r WHERE r.xid = i.xid)
                ORDER BY i.at LIMIT 1) AS oldest,
               (SELECT max(i.id) - min(i.id) + 1 FROM session_admin_internal.invalidation i) AS ids
    ), retention AS (
        SELECT coalesce(max(p.value::interval), interval '1 day') AS feed
        FROM session_admin_internal.effective_policy p
        WHERE p.name = 'feed_retention'
    ), queue AS (
        SELECT pg_notification_queue_usage() AS usage
    ), node AS (
        SELECT count(*) AS nodes,
               count(*) FILTER (WHERE n.state = 'lease expired') AS expired,
               count(*) FILTER (WHERE n.state = 'behind') AS behind
        FROM session_admin.nodes n
    ), live AS (
        SELECT l.used, l.capacity, l.unflushed, l.estimated, l.touched FROM session_admin_internal.live_status() l
    ), worker AS (
        SELECT w.*, interval '2 minutes'
                    + 3 * current_setting('session_admin.flush_interval')::interval AS patience
        FROM session_admin_internal.worker_status() w
    ), partition AS (
        SELECT count(*) FILTER (
                   WHERE pg_get_expr(c.relpartbound, c.oid) LIKE 'FOR VALUES FROM (''%'
                     AND substring(pg_get_expr(c.relpartbound, c.oid)
                                   FROM 'FROM \(''([^'']+)''\)')::timestamptz
                         = date_trunc('month', statement_timestamp()) + interval '1 month')
                   AS next_month
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('session_admin_internal.ended_session'::regclass,
                              'session_admin_internal.login_event'::regclass)
    ), stray AS (
        -- of older months there may be some: there they are as well kept as elsewhere
        SELECT (SELECT count(*) FROM session_admin_internal.ended_session_default e
                WHERE e.ended_at >= date_trunc('month', statement_timestamp()))
               + (SELECT count(*) FROM session_admin_internal.login_event_default l
                  WHERE l.at >= date_trunc('month', statement_timestamp())) AS rows
    ), watched AS (
        SELECT count(DISTINCT a.relation) AS tables,
               (SELECT count(*) FROM session_admin.verify_attachments() v WHERE v.status <> 'ok') AS broken
        FROM session_admin_internal.attachment a
    ), remains AS (
        SELECT count(*) AS rows,
               (SELECT format('%s: %s', r.table_name, r.message)
                FROM session_admin_internal.product_remains r ORDER BY r.at, r.id LIMIT 1) AS first
        FROM session_admin_internal.product_remains p
    ), failure AS (
        SELECT count(*) AS changes FROM session_admin_internal.capture_failure f WHERE f.acknowledged_by IS NULL
    )
    SELECT 'preloaded',
           CASE WHEN worker.state = 'not preloaded'
                THEN 'no; a touch is faster with it in shared_preload_libraries'
                ELSE 'yes' END,
           'ok'
    FROM worker
    UNION ALL
    SELECT 'worker',
           concat_ws('; ',
               CASE worker.state
                    WHEN 'not preloaded' THEN 'none'
                    WHEN 'failed' THEN format('failed %s times', greatest(worker.failures, 1))
                    ELSE worker.state END,
               'last run ' || worker.ended_at::timestamp(0) || ' UTC',
               nullif(worker.done, '')),
           CASE worker.state
                WHEN 'no launcher' THEN 'look in the server log for "session_admin launcher"; max_worker_processes may be too low'
                WHEN 'no process' THEN 'raise max_worker_processes'
                WHEN 'no room' THEN 'call session_admin.maintain() here: too many databases use the extension'
                WHEN 'other version' THEN 'call ALTER EXTENSION session_admin UPDATE'
                WHEN 'failed' THEN concat_ws('; ', coalesce(
                    format('look in the server log for SQLSTATE %s of "session_admin worker"', worker.sqlstate),
                    'look in the server log for "session_admin worker"'),
                    'failing: ' || worker.failing)
                WHEN 'locked out' THEN CASE
                    WHEN worker.since_success < worker.patience THEN 'ok'
                    ELSE concat_ws('; ', 'look in pg_locks for who holds locks in schema session_admin',
                                   'waiting: ' || worker.failing) END
                ELSE CASE
                    WHEN worker.state IN ('running', 'idle') AND worker.overdue > worker.patience
                    THEN format('look in pg_stat_activity for "session_admin worker": it has stood still for %s',
                                date_trunc('second', worker.overdue))
                    ELSE 'ok' END
                END
    FROM worker
    UNION ALL
    SELECT 'sessions in shared memory',
           format('%s of %s', live.used, live.capacity),
           CASE WHEN live.used > 0.9 * live.capacity THEN 'raise session_admin.max_live_sessions'
                ELSE 'ok' END
    FROM live
    UNION ALL
    SELECT 'requests not flushed',
           concat(CASE WHEN live.estimated THEN 'about ' END, live.unflushed,
                  -- touches may count no request
                  CASE WHEN live.unflushed = 0 AND live.touched > 0
                       THEN format('; last access of %s sessions', live.touched) END),
           CASE WHEN live.touched = 0 THEN 'ok'
                WHEN worker.state = 'off'
                THEN 'call session_admin.maintain(), or set session_admin.worker = on'
                WHEN worker.since_flush > worker.patience
                THEN 'see "worker", or call session_admin.maintain()'
                ELSE 'ok' END
    FROM live, worker
    UNION ALL
    SELECT 'sessions to archive',
           concat(CASE WHEN sample.share < 1 THEN 'about ' END,
                  (backlog.rows / sample.share)::bigint),
           CASE WHEN backlog.oldest < statement_timestamp() - interval '1 hour'
                THEN 'call session_admin.maintain() more often'
                ELSE 'ok' END
    FROM backlog, sample
    UNION ALL
    SELECT 'invalidations in the feed',
           CASE WHEN feed.rows > 10000 THEN 'at most ' || feed.ids ELSE feed.rows::text END,
           CASE WHEN feed.oldest < statement_timestamp() - 2 * retention.feed
                THEN 'call session_admin.maintain() more often'
                ELSE 'ok' END
    FROM feed, retention
    UNION ALL
    SELECT 'notification queue', to_char(100 * queue.usage, 'FM990') || ' %',
           CASE WHEN queue.usage > 0.5
                THEN 'look for sessions that LISTEN and stay in a transaction'
                ELSE 'ok' END
    FROM queue
    UNION ALL
    SELECT 'nodes', node.nodes::text,
           CASE WHEN node.expired > 0
                THEN format('lease expired: %s; look for nodes that are down, and leave_node() for those that are gone',
                            node.expired)
                WHEN node.behind > 0 THEN format('behind: %s', node.behind)
                ELSE 'ok' END
    FROM node
    UNION ALL
    SELECT 'partitions of next month', partition.next_month::text,
           CASE WHEN partition.next_month < 2 THEN 'call session_admin.maintain()' ELSE 'ok' END
    FROM partition
    UNION ALL
    SELECT 'new rows in default partitions', stray.rows::text,
           CASE WHEN stray.rows > 0
                THEN 'call session_admin.maintain(): it moves them to the partition of their month'
                ELSE 'ok' END
    FROM stray
    UNION ALL
    SELECT 'watched tables', watched.tables::text,
           CASE WHEN watched.broken > 0
                THEN format('broken: %s; see session_admin.verify_attachments()', watched.broken)
                ELSE 'ok' END
    FROM watched
    UNION ALL
    SELECT 'changes not understood', failure.changes::text,
           CASE WHEN failure.changes > 0
                THEN 'see view session_admin.capture_failures, then call acknowledge_failures()'
                ELSE 'ok' END
    FROM failure
    UNION ALL
    SELECT 'products'' rows that remain', remains.rows::text,
           CASE WHEN remains.rows > 0
                THEN format('they are tried again until they are gone; rows of %s', remains.first)
                ELSE 'ok' END
    FROM remains
    UNION ALL
    SELECT 'ended sessions written again',
           coalesce(sum(e.refused), 0)::text, 'ok'
    FROM session_admin_internal.ended_id e WHERE e.refused > 0;
END;
COMMENT ON FUNCTION session_admin_internal.health_items() IS
'the rows of view health';

CREATE VIEW session_admin.health WITH (security_barrier) AS
SELECT h.name, h.value, h.status
FROM session_admin_internal.health_items() h;
COMMENT ON VIEW session_admin.health IS
'whether the extension is well, and what to do if not';
COMMENT ON COLUMN session_admin.health.name IS
'what the row is about';
COMMENT ON COLUMN session_admin.health.value IS
'what was found';
COMMENT ON COLUMN session_admin.health.status IS
'ok, or what to do';
