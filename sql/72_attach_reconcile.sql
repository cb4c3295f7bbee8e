/*
 * Reconcile
 *
 * Both sides compared: the sessions of products, and the rows in their own tables.
 */

-- Not dumped: a restored table has its rows in other places.
CREATE TABLE session_admin_internal.reconciliation (
    application     text COLLATE "C" NOT NULL,
    product         text COLLATE "C" NOT NULL,
    -- where the next slice begins: in the rows, or in the sessions
    in_sessions     boolean NOT NULL,
    next_row        tid NOT NULL,
    file            oid,
    last_hash       bytea NOT NULL,
    differences     bigint NOT NULL DEFAULT 0,
    -- there was no row when it was attached: nothing is left to backfill_sessions
    was_empty       boolean NOT NULL DEFAULT false,
    last_at         timestamptz,
    PRIMARY KEY (application, product)
);
COMMENT ON TABLE session_admin_internal.reconciliation IS
'how far housekeeping has come in comparing each table of sessions, and how many differences it found';

CREATE FUNCTION session_admin.reconcile_sessions(
    application text DEFAULT NULL)
RETURNS TABLE (product text, table_name text, rows_read bigint,
               ended bigint, taken bigint, deleted bigint, note text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_reconcile_sessions';
COMMENT ON FUNCTION session_admin.reconcile_sessions(text) IS
'compares sessions with the rows of attached tables: ends those whose row is gone, takes over new and changed rows, deletes rows of ended sessions; returns the counts for each table';
