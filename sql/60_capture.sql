/*
 * Capture: what a product's own tables tell, and what of it could not be followed
 */

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

-- A copy, as the product's own row may be gone when the name is needed: in a
-- cascade, after a deletion, half way through anonymizing.
CREATE TABLE session_admin_internal.account_key (
    application     text COLLATE "C" NOT NULL,
    product         text COLLATE "C" NOT NULL,
    part            text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    user_name       text COLLATE "C" NOT NULL,
    gone_at         timestamptz,
    -- what the product has told last, and which counts it keeps by itself
    last_login_at           timestamptz,
    last_failed_login_at    timestamptz,
    counted                 text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (key, application, product, part)
);
CREATE INDEX account_key_user_name_idx ON session_admin_internal.account_key (user_name, application);
CREATE INDEX account_key_gone_idx ON session_admin_internal.account_key (gone_at) WHERE gone_at IS NOT NULL;
COMMENT ON TABLE session_admin_internal.account_key IS
'the user behind each key of a product, and the last login that was told of the key';

CREATE TABLE session_admin_internal.capture_failure (
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    application     text COLLATE "C",
    relation        text NOT NULL,
    event           text NOT NULL,
    message         text NOT NULL,
    -- who was logged out, as nobody knows what happened to them; null: everybody
    user_names      text[],
    acknowledged_by text
);
CREATE INDEX capture_failure_at_idx ON session_admin_internal.capture_failure (at);
COMMENT ON TABLE session_admin_internal.capture_failure IS
'changes of products'' tables that were not understood; whom they may have concerned was logged out';

CREATE FUNCTION session_admin.capture() RETURNS trigger
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_capture';
COMMENT ON FUNCTION session_admin.capture() IS
'trigger function on products'' tables, set up by attach_application; do not call it';

CREATE VIEW session_admin.capture_failures WITH (security_barrier) AS
SELECT f.at, f.application, f.relation, f.event, f.message, f.user_names, f.acknowledged_by
FROM session_admin_internal.capture_failure f;
COMMENT ON VIEW session_admin.capture_failures IS
'changes of products'' tables that were not understood, and who was logged out for that reason';
COMMENT ON COLUMN session_admin.capture_failures.at IS
'time of the change';
COMMENT ON COLUMN session_admin.capture_failures.application IS
'name of the application; null if it is not known';
COMMENT ON COLUMN session_admin.capture_failures.relation IS
'table that was changed';
COMMENT ON COLUMN session_admin.capture_failures.event IS
'INSERT, UPDATE, DELETE or TRUNCATE';
COMMENT ON COLUMN session_admin.capture_failures.message IS
'why the change was not understood';
COMMENT ON COLUMN session_admin.capture_failures.user_names IS
'users who were logged out, as nobody knows what happened to them; null: everybody';
COMMENT ON COLUMN session_admin.capture_failures.acknowledged_by IS
'role that called acknowledge_failures(); null: nobody yet';

CREATE FUNCTION session_admin.acknowledge_failures(application text DEFAULT NULL) RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH seen AS (
        UPDATE session_admin_internal.capture_failure f SET acknowledged_by = session_user
        WHERE (f.application = session_admin_internal.application_or_current(acknowledge_failures.application)
               OR f.application IS NULL)
          AND f.acknowledged_by IS NULL
        RETURNING 1
    )
    SELECT count(*) FROM seen;
END;
COMMENT ON FUNCTION session_admin.acknowledge_failures(text) IS
'marks the rows of view capture_failures as seen, so that health no longer reports them; returns how many there were';

-- Elsewhere, transactions have other ids.
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.product_remains', 'WHERE secret_hash IS NOT NULL');

SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.account_key', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.capture_failure', '');
