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
'how far backfill_sessions has come';

CREATE FUNCTION session_admin.backfill_batch(
    batch_size integer DEFAULT 1000, application text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_backfill_batch';
COMMENT ON FUNCTION session_admin.backfill_batch(integer, text) IS
'one batch of backfill_sessions; false if nothing was left to do';

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
'takes the rows that are in attached tables of sessions already; each batch is committed: stop it at any time, and call it again to go on';
