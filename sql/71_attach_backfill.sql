/*
 * Backfill
 *
 * The sessions that were in a product's own table before it was attached.
 */

-- Not dumped: a restored table has its rows in other places.
CREATE TABLE session_admin_internal.backfill (
    application     text COLLATE "C" NOT NULL,
    product         text COLLATE "C" NOT NULL,
    part            text COLLATE "C" NOT NULL,
    -- where to go on, and in which file of the table
    next_row        tid NOT NULL DEFAULT '(0,1)',
    file            oid NOT NULL,
    blocks          bigint,
    rows_read       bigint NOT NULL DEFAULT 0,
    started_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at         timestamptz,
    finished_at     timestamptz,
    PRIMARY KEY (application, product, part)
);
COMMENT ON TABLE session_admin_internal.backfill IS
'tables of sessions whose rows are read, or were, and how far';

CREATE VIEW session_admin.backfills WITH (security_barrier) AS
SELECT b.application, b.product, a.table_name, b.rows_read,
       CASE WHEN b.finished_at IS NOT NULL THEN 100
            WHEN b.blocks > 0
            THEN least(floor(100.0 * (b.next_row::text::point)[0] / b.blocks), 99)::integer
            ELSE 0 END AS percent,
       b.started_at, b.last_at, b.finished_at
FROM session_admin_internal.backfill b
JOIN session_admin_internal.attachment a USING (application, product, part);
COMMENT ON VIEW session_admin.backfills IS
'how far backfill_sessions has come with each table';
COMMENT ON COLUMN session_admin.backfills.application IS
'name of the application';
COMMENT ON COLUMN session_admin.backfills.product IS
'name of the product';
COMMENT ON COLUMN session_admin.backfills.table_name IS
'table of the product''s sessions';
COMMENT ON COLUMN session_admin.backfills.rows_read IS
'number of rows read so far';
COMMENT ON COLUMN session_admin.backfills.percent IS
'share of the table that was read, in percent';
COMMENT ON COLUMN session_admin.backfills.started_at IS
'time of the first batch';
COMMENT ON COLUMN session_admin.backfills.last_at IS
'time of the last batch';
COMMENT ON COLUMN session_admin.backfills.finished_at IS
'time at which it was done; null until then';

CREATE FUNCTION session_admin.backfill_batch(
    batch_size integer DEFAULT 1000, application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_backfill_batch';
COMMENT ON FUNCTION session_admin.backfill_batch(integer, text) IS
'takes over up to batch_size rows of attached session tables, as backfill_sessions does; returns false when nothing was left to do';

-- A procedure that commits can neither be SECURITY DEFINER nor have settings of its own.
CREATE PROCEDURE session_admin.backfill_sessions(
    batch_size integer DEFAULT 1000, application text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
BEGIN
    WHILE session_admin.backfill_batch(batch_size, application) LOOP
        COMMIT;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE session_admin.backfill_sessions(integer, text) IS
'takes over the sessions that were in attached tables before; commits after every batch_size rows, so that you can stop it at any time and call it again to go on';
