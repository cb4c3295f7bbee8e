/*
 * Tables: live sessions, and what has ended although its row is still there
 */

-- The hash comes first in the key: it tells nearly all rows apart, and a
-- session_ref is a prefix of it.  Each page has room to write all of its rows once more: a
-- flush of all sessions then writes to no index, and a third of the WAL.
CREATE TABLE session_admin.session (
    session_hash    bytea NOT NULL CHECK (octet_length(session_hash) = 32),
    application     text COLLATE "C" NOT NULL,
    generation      bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    last_access_at  timestamptz NOT NULL,
    requests        bigint NOT NULL DEFAULT 0,
    user_name       text COLLATE "C",
    -- of a session in a product's own table: whose, the row's key if it has one, and
    -- how long the product lets it be idle (null: for ever); no policy ends it
    product         text COLLATE "C",
    product_key     text COLLATE "C",
    idle_timeout    interval,
    -- the transaction in which its user logged in: see late_ending
    opened_xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),
    login_method    text,
    client_address  inet,
    peer_address    inet,
    log_id          text,
    user_agent      text,
    device          text,
    node            text,
    reauthenticated_at timestamptz,
    PRIMARY KEY (session_hash, application),
    -- a DBA may write anything, but the sums in the views must not overflow
    CHECK (created_at > '-infinity' AND created_at < '10000-01-01 UTC'
           AND last_access_at > '-infinity' AND last_access_at < '10000-01-01 UTC')
) WITH (fillfactor = 50);

-- The user name first, here and below: people ask for a user more often than
-- for all of an application.
CREATE INDEX session_user_name_idx ON session_admin.session (user_name, application);

-- For the limits of an application, which are apart for users and for others.
CREATE INDEX session_application_idx ON session_admin.session (application, (user_name IS NULL));

-- For the comparison with the products' own tables.
CREATE INDEX session_product_idx ON session_admin.session (application, product, session_hash)
    WHERE product IS NOT NULL;
COMMENT ON TABLE session_admin.session IS
'live sessions; a session ends when its row is deleted, no matter by whom';
COMMENT ON COLUMN session_admin.session.session_hash IS
'SHA-256 of the session id';
COMMENT ON COLUMN session_admin.session.application IS
'name of the application';
COMMENT ON COLUMN session_admin.session.generation IS
'generation of the application in which it was opened; it is valid in no other';
COMMENT ON COLUMN session_admin.session.created_at IS
'time at which the session was opened';
COMMENT ON COLUMN session_admin.session.last_access_at IS
'time of the last request that was written; a later one may be in shared memory';
COMMENT ON COLUMN session_admin.session.requests IS
'number of requests that were written; more may be in shared memory';
COMMENT ON COLUMN session_admin.session.user_name IS
'name of the user; null for an anonymous session';
COMMENT ON COLUMN session_admin.session.product IS
'product in whose own table it is; null if the application opened it by open_session';
COMMENT ON COLUMN session_admin.session.product_key IS
'key of its row in the product''s table';
COMMENT ON COLUMN session_admin.session.idle_timeout IS
'time for which the product lets it be idle; null: for ever, or the application opened it';
COMMENT ON COLUMN session_admin.session.opened_xid IS
'transaction in which the user logged in';
COMMENT ON COLUMN session_admin.session.login_method IS
'how the user logged in, as the application named it';
COMMENT ON COLUMN session_admin.session.client_address IS
'address of the user, behind trusted proxies';
COMMENT ON COLUMN session_admin.session.peer_address IS
'address that connected to the application: the user''s, or the last proxy''s';
COMMENT ON COLUMN session_admin.session.log_id IS
'label of the session in Jira''s access log; null if only the SHA-256 of its id is known';
COMMENT ON COLUMN session_admin.session.user_agent IS
'header User-Agent of the login, cut to 1,024 bytes';
COMMENT ON COLUMN session_admin.session.device IS
'label of the device, as the application named it';
COMMENT ON COLUMN session_admin.session.node IS
'node of the application that opened the session';
COMMENT ON COLUMN session_admin.session.reauthenticated_at IS
'time at which the user logged in again in this session; null if never';

CREATE SEQUENCE session_admin_internal.seat_ticket;
COMMENT ON SEQUENCE session_admin_internal.seat_ticket IS
'tells how many sessions have been opened, at most, since they were counted';

/*
 * Late endings
 *
 * An invalidation waits for nobody's open transaction.  Where it cannot lock what it
 * ends, it says here that everything that was opened by then has ended.
 */

CREATE TABLE session_admin_internal.late_ending (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- null: of all applications, of all users, any session
    application     text COLLATE "C",
    user_name       text COLLATE "C",
    session_hash    bytea,
    -- a session that goes on
    keep_hash       bytea,
    -- and remember-me tokens
    tokens          boolean NOT NULL,
    -- what was opened by an earlier transaction has ended, committed or not
    before_xid      xid8 NOT NULL,
    at              timestamptz NOT NULL,
    reason          text NOT NULL,
    ended_by        text NOT NULL,
    actor           text
);
COMMENT ON TABLE session_admin_internal.late_ending IS
'what has ended although somebody had it locked, until housekeeping has archived it';

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON session_admin_internal.late_ending
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin_internal.late_ending ENABLE ALWAYS TRIGGER policy_changed;

-- Without statistics it would be taken for some hundreds of rows, for each session.
ANALYZE session_admin_internal.late_ending;

SELECT pg_catalog.pg_extension_config_dump('session_admin.session', '');
