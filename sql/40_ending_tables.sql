/*
 * Tables: accounts, remember-me tokens, what has ended, and the feed
 */

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
-- For what is older than its application keeps it.
CREATE INDEX ended_session_default_age_idx
    ON session_admin_internal.ended_session_default (application, ended_at);

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
CREATE INDEX login_event_default_age_idx
    ON session_admin_internal.login_event_default (application, at);

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
'remembered devices, one row a series; the token is revoked when its row is deleted, no matter by whom';
COMMENT ON COLUMN session_admin.remember_me_token.series IS
'name of the device: the part of the token that stays';
COMMENT ON COLUMN session_admin.remember_me_token.application IS
'name of the application';
COMMENT ON COLUMN session_admin.remember_me_token.generation IS
'generation of the application in which it was issued; it is valid in no other';
COMMENT ON COLUMN session_admin.remember_me_token.user_name IS
'name of the user';
COMMENT ON COLUMN session_admin.remember_me_token.validator_hash IS
'hash of the validator that is valid now';
COMMENT ON COLUMN session_admin.remember_me_token.parent_hash IS
'hash of the validator before, accepted for policy remember_me_grace';
COMMENT ON COLUMN session_admin.remember_me_token.salt IS
'random bytes from which the token that follows parent_hash is computed again in that time';
COMMENT ON COLUMN session_admin.remember_me_token.rotated_at IS
'time at which the validator last changed';
COMMENT ON COLUMN session_admin.remember_me_token.created_at IS
'time at which the device was remembered';
COMMENT ON COLUMN session_admin.remember_me_token.last_used_at IS
'time at which the token was last redeemed; null if never';
COMMENT ON COLUMN session_admin.remember_me_token.client_address IS
'address of its last use';
COMMENT ON COLUMN session_admin.remember_me_token.user_agent IS
'header User-Agent of its last use, cut to 1,024 bytes';
COMMENT ON COLUMN session_admin.remember_me_token.device IS
'label of the device';
COMMENT ON COLUMN session_admin.remember_me_token.opened_xid IS
'transaction in which it was issued';

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

SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.account', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.account_seen', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.ended_id', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.ended_session', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.ended_session_default', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.login_event', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.login_event_default', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin.remember_me_token', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.remember_me_ancestor', '');
