/*
 * Tables
 *
 * Names compare bytewise (COLLATE "C"): they are identifiers of other systems,
 * not words of a language.  There are no foreign keys to application: each
 * login would lock its one row.
 */

-- Not dumped, so that a database that was restored from a dump has another one.
CREATE TABLE session_admin_internal.installation (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id          uuid NOT NULL DEFAULT gen_random_uuid(),
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_by     integer NOT NULL DEFAULT pg_backend_pid()
);
INSERT INTO session_admin_internal.installation DEFAULT VALUES;
COMMENT ON TABLE session_admin_internal.installation IS
'one row: a mark of the place where this data lives, and since when';

CREATE TABLE session_admin.application (
    name        text COLLATE "C" PRIMARY KEY
                CHECK (name <> '' AND octet_length(name) <= 63),
    -- part of what makes a session or token valid: adding one ends them all
    generation  bigint NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- the mark of the place where it lives; another one came from a dump
    home        text COLLATE "C"
);
COMMENT ON TABLE session_admin.application IS
'products whose sessions are kept; made on first use';

CREATE TABLE session_admin_internal.application_generation (
    application     text COLLATE "C" NOT NULL,
    generation      bigint NOT NULL,
    ended_at        timestamptz NOT NULL,
    reason          text NOT NULL,
    ended_by        text NOT NULL,
    actor           text,
    PRIMARY KEY (application, generation)
);
COMMENT ON TABLE session_admin_internal.application_generation IS
'generations that were ended at once: when, why and by whom, until the last of their rows is archived';

CREATE TABLE session_admin_internal.account (
    application             text COLLATE "C" NOT NULL,
    user_name               text COLLATE "C" NOT NULL
                            CHECK (user_name <> '' AND octet_length(user_name) <= 1024),
    login_count             bigint NOT NULL DEFAULT 0,
    last_login_at           timestamptz,
    last_login_address      inet,
    last_login_method       text,
    previous_login_at       timestamptz,
    last_failed_login_at    timestamptz,
    current_failed_count    bigint NOT NULL DEFAULT 0,
    total_failed_count      bigint NOT NULL DEFAULT 0,
    last_seen_at            timestamptz,
    created_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_name, application)
) WITH (fillfactor = 80);
COMMENT ON TABLE session_admin_internal.account IS
'one row per application and user; its row lock orders the logins of a user against the invalidations of that user';

-- Ending a session must lock no account (a DBA's DELETE would deadlock with
-- logins), so that it notes here when the user was last seen.  Nor does a failed
-- login keep it locked, or whoever guesses would keep the user's own logins waiting.
CREATE TABLE session_admin_internal.account_seen (
    application     text COLLATE "C" NOT NULL,
    user_name       text COLLATE "C" NOT NULL,
    at              timestamptz NOT NULL,
    login_failed    boolean NOT NULL DEFAULT false,
    -- of a product's login, if somebody had the account locked
    logins          integer NOT NULL DEFAULT 0
);
CREATE INDEX account_seen_user_idx ON session_admin_internal.account_seen (user_name, application);
COMMENT ON TABLE session_admin_internal.account_seen IS
'last access in ended sessions, failed logins, and logins of users whom somebody had locked, until maintain() adds them to account';

-- The hash comes first in the key: it tells nearly all rows apart, and a
-- session_ref is a prefix of it.
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
) WITH (fillfactor = 80);
-- The user name first, here and below: people ask for a user more often than
-- for all of an application.
CREATE INDEX session_user_name_idx ON session_admin.session (user_name, application);
-- For the limits of an application, which are apart for users and for others.
CREATE INDEX session_application_idx ON session_admin.session (application, (user_name IS NULL));
-- For the comparison with the products' own tables.
CREATE INDEX session_product_idx ON session_admin.session (application, product, session_hash)
    WHERE product IS NOT NULL;
COMMENT ON TABLE session_admin.session IS
'live sessions; a session ends by its row leaving this table, whoever deletes it';

-- Not unique: who ends a session must not wait for who counts or forgets others.
CREATE TABLE session_admin_internal.ended_id (
    session_hash    bytea NOT NULL,
    application     text COLLATE "C" NOT NULL,
    until           timestamptz NOT NULL,
    refused         bigint NOT NULL DEFAULT 0
);
CREATE INDEX ended_id_key_idx ON session_admin_internal.ended_id (session_hash, application);
CREATE INDEX ended_id_until_idx ON session_admin_internal.ended_id (until);
CREATE INDEX ended_id_refused_idx ON session_admin_internal.ended_id (refused) WHERE refused > 0;
COMMENT ON TABLE session_admin_internal.ended_id IS
'ids (by their hash) of sessions that have ended and stay ended, for as long as the session could have lived; how often a product has written one again';

CREATE SEQUENCE session_admin_internal.seat_ticket;
COMMENT ON SEQUENCE session_admin_internal.seat_ticket IS
'tells how many sessions have been opened, at most, since they were counted';

-- Partitioned parents that belong to an extension must carry no key and no
-- index, or pg_restore fails; each partition has its own.
CREATE TABLE session_admin_internal.ended_session (
    session_hash    bytea NOT NULL,
    application     text COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL,
    last_access_at  timestamptz NOT NULL,
    requests        bigint NOT NULL,
    user_name       text COLLATE "C",
    login_method    text,
    client_address  inet,
    peer_address    inet,
    log_id          text,
    user_agent      text,
    device          text,
    node            text,
    reauthenticated_at timestamptz,
    ended_at        timestamptz NOT NULL,
    end_reason      text NOT NULL,
    ended_by        text NOT NULL,
    actor           text
) PARTITION BY RANGE (ended_at);
COMMENT ON TABLE session_admin_internal.ended_session IS
'sessions that ended: when, why and by whom; one partition a month';

CREATE TABLE session_admin_internal.ended_session_default
    PARTITION OF session_admin_internal.ended_session DEFAULT;
CREATE INDEX ended_session_default_user_idx
    ON session_admin_internal.ended_session_default (user_name, application, ended_at);

CREATE TABLE session_admin_internal.login_event (
    at              timestamptz NOT NULL,
    application     text COLLATE "C" NOT NULL,
    user_name       text COLLATE "C",
    event           text NOT NULL,
    succeeded       boolean NOT NULL,
    login_method    text,
    client_address  inet,
    user_agent      text,
    device          text,
    node            text,
    session_ref     text,
    detail          text
) PARTITION BY RANGE (at);
COMMENT ON TABLE session_admin_internal.login_event IS
'logins, failed logins and what happened to remember-me tokens; one partition a month';

CREATE TABLE session_admin_internal.login_event_default
    PARTITION OF session_admin_internal.login_event DEFAULT;
CREATE INDEX login_event_default_user_idx
    ON session_admin_internal.login_event_default (user_name, application, at);

CREATE TABLE session_admin.remember_me_token (
    series          text COLLATE "C" NOT NULL,
    application     text COLLATE "C" NOT NULL,
    generation      bigint NOT NULL,
    user_name       text COLLATE "C" NOT NULL,
    validator_hash  bytea NOT NULL CHECK (octet_length(validator_hash) = 32),
    parent_hash     bytea CHECK (octet_length(parent_hash) = 32),
    salt            bytea,
    rotated_at      timestamptz,
    created_at      timestamptz NOT NULL,
    last_used_at    timestamptz,
    client_address  inet,
    user_agent      text,
    device          text,
    opened_xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (series, application),
    CHECK (created_at > '-infinity' AND created_at < '10000-01-01 UTC')
) WITH (fillfactor = 80);
CREATE INDEX remember_me_token_user_idx ON session_admin.remember_me_token (user_name, application);
COMMENT ON TABLE session_admin.remember_me_token IS
'remembered devices, one row per series; a series ends by its row leaving this table, whoever deletes it';

CREATE TABLE session_admin_internal.remember_me_ancestor (
    series          text COLLATE "C" NOT NULL,
    application     text COLLATE "C" NOT NULL,
    validator_hash  bytea NOT NULL CHECK (octet_length(validator_hash) = 32),
    PRIMARY KEY (series, application, validator_hash)
);
COMMENT ON TABLE session_admin_internal.remember_me_ancestor IS
'hashes of the validators that a series had before its current one and that one''s parent: who shows one of these stole it';

-- The feed and the nodes are not dumped: after a restore every node starts over.
CREATE TABLE session_admin_internal.invalidation (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid             xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    scope           text NOT NULL CHECK (scope IN ('session', 'token', 'user', 'application', 'all')),
    application     text COLLATE "C",
    user_name       text COLLATE "C",
    session_hash    bytea,
    reason          text NOT NULL,
    actor           text,
    invalidated_by  text NOT NULL DEFAULT session_user,
    sessions_ended  bigint,
    tokens_revoked  bigint
);
CREATE INDEX invalidation_xid_idx ON session_admin_internal.invalidation (xid, id);
CREATE INDEX invalidation_at_idx ON session_admin_internal.invalidation (at);
COMMENT ON TABLE session_admin_internal.invalidation IS
'the feed: every invalidation, with the transaction that made it';

CREATE TABLE session_admin_internal.feed_horizon (
    purged_xid  xid8 NOT NULL
);
INSERT INTO session_admin_internal.feed_horizon VALUES ('0');
COMMENT ON TABLE session_admin_internal.feed_horizon IS
'one row: the highest transaction of which rows were purged from the feed; a position that may not have seen it is too old';

CREATE TABLE session_admin_internal.feed_running (
    xid         xid8 PRIMARY KEY,
    seen_at     timestamptz NOT NULL
);
COMMENT ON TABLE session_admin_internal.feed_running IS
'transactions that a purge of the feed saw running, and when last: of these nothing was purged';

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
    synced_run          text
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
'timelines that were left before a place up to which a node was told of invalidations: these are lost';

CREATE TABLE session_admin_internal.policy (
    application     text COLLATE "C" NOT NULL,
    user_name       text COLLATE "C",
    name            text COLLATE "C" NOT NULL,
    value           text NOT NULL,
    UNIQUE NULLS NOT DISTINCT (application, user_name, name)
);
COMMENT ON TABLE session_admin_internal.policy IS
'policies that differ from their default, for an application or for one of its users';

-- one statement each: two of them in one would update the same row twice
SELECT pg_catalog.pg_extension_config_dump('session_admin.application', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.application_generation', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.account', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.account_seen', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin.session', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.ended_id', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.ended_session', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.ended_session_default', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.login_event', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.login_event_default', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin.remember_me_token', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.remember_me_ancestor', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.policy', '');
