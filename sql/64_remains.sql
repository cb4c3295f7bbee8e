/*
 * Remains: rows of sessions and remember-me tokens that have ended here, but could not be
 * deleted from a product's own table
 *
 * Something of the product keeps them: a rule, a trigger, a row that refers to them, or
 * somebody has them locked.  They are tried again until they are gone.
 */

-- There is no key of what is in it: who ends a session must not wait for somebody else who
-- ends it, too.
CREATE TABLE session_admin_internal.product_remains (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    application     text COLLATE "C" NOT NULL,
    product         text COLLATE "C" NOT NULL,
    part            text COLLATE "C" NOT NULL,
    table_name      text NOT NULL,
    -- the session or token; where that is not known, whose rows; else all rows
    secret_hash     bytea,
    user_name       text COLLATE "C",
    -- of which transactions, if the session is not known
    before_xid      xid8,
    -- of the invalidation
    xid             xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason          text NOT NULL,
    sqlstate        text,
    message         text NOT NULL,
    tries           integer NOT NULL DEFAULT 0,
    next_try_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX product_remains_hash_idx ON session_admin_internal.product_remains (secret_hash, application)
    WHERE secret_hash IS NOT NULL;
CREATE INDEX product_remains_next_idx ON session_admin_internal.product_remains (next_try_at);
COMMENT ON TABLE session_admin_internal.product_remains IS
'rows that could not be deleted (or tokens, cleared) in products'' tables when their sessions ended, until they are';

-- Elsewhere, transactions have other ids.
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.product_remains', 'WHERE secret_hash IS NOT NULL');
