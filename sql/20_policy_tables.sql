/*
 * Tables: what holds in which application
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
'applications whose sessions are kept, one row each, made on first use';
COMMENT ON COLUMN session_admin.application.name IS
'name of the application';
COMMENT ON COLUMN session_admin.application.generation IS
'part of what makes a session or token valid: a new one ends them all';
COMMENT ON COLUMN session_admin.application.created_at IS
'time at which the application was first used';
COMMENT ON COLUMN session_admin.application.home IS
'mark of the database where its sessions live; a different one shows that the row came from a dump';

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

CREATE TABLE session_admin_internal.policy (
    application     text COLLATE "C" NOT NULL,
    user_name       text COLLATE "C",
    name            text COLLATE "C" NOT NULL,
    value           text NOT NULL,
    CONSTRAINT policy_key UNIQUE NULLS NOT DISTINCT (application, user_name, name)
);
COMMENT ON TABLE session_admin_internal.policy IS
'policies that differ from their default, for an application or for one of its users';

CREATE TABLE session_admin_internal.policy_definition (
    name            text COLLATE "C" PRIMARY KEY,
    type            text NOT NULL,
    default_value   text NOT NULL,
    lowest          text,
    highest         text,
    allowed         text[],
    per_user        boolean NOT NULL DEFAULT false,
    meaning         text NOT NULL,
    reference       text
);
COMMENT ON TABLE session_admin_internal.policy_definition IS
'policies that there are: type, default, bounds or allowed values, meaning';

INSERT INTO session_admin_internal.policy_definition
    (name, type, default_value, lowest, highest, per_user, meaning, reference) VALUES
('idle_timeout',           'interval', '1 hour',     '1 second', '10 years', true,
 'a session of a user ends when it was not used for this long',
 'OWASP ASVS 5.0 V7.3.1; NIST SP 800-63B-4 2.2.3: at most 1 hour at AAL2'),
('absolute_timeout',       'interval', '24 hours',   '1 second', '10 years', true,
 'a session ends this long after it was opened, used or not',
 'OWASP ASVS 5.0 V7.3.2; NIST SP 800-63B-4 2.2.3: at most 24 hours at AAL2'),
('anonymous_idle_timeout', 'interval', '10 minutes', '1 second', '10 years', false,
 'a session without a user ends when it was not used for this long',
 'OWASP ASVS 5.0 V7.3.1'),
('anonymous_absolute_timeout', 'interval', '24 hours', '1 second', '10 years', false,
 'a session without a user ends this long after it was opened, used or not',
 'OWASP ASVS 5.0 V7.3.2'),
('remember_me_lifetime',   'interval', '14 days',    '1 second', '10 years', false,
 'a remembered device has to log in again this long after it was remembered',
 'NIST SP 800-63B-4 2.1.3: at most 30 days at AAL1, and 5.1 on "remember my browser"'),
('remember_me_grace',      'interval', '30 seconds', '0 seconds', '1 hour', false,
 'the remember-me token before the current one is still accepted for this long', NULL),
('max_remembered_devices_per_user', 'integer', '-1', '-1', '1000000', true,
 'beyond this number, the device used least recently is forgotten; -1: no limit, 0: none is remembered',
 'OWASP ASVS 5.0 V7.1.2'),
('max_sessions_per_user',  'integer',  '-1', '-1', '1000000', true,
 'a user has no more live sessions than this; -1: no limit, 0: none is opened',
 'OWASP ASVS 5.0 V7.1.2'),
('max_sessions',           'integer',  '-1', '-1', '100000000', false,
 'the users of the application together have no more live sessions than this (seats); -1: no limit, 0: none is opened',
 NULL),
('max_anonymous_sessions', 'integer',  '-1', '-1', '100000000', false,
 'there are no more live sessions without a user than this; -1: no limit, 0: none is opened',
 NULL),
('trusted_proxies',        'cidr[]',   '{}',         NULL, NULL, false,
 'proxies whose X-Forwarded-For or Forwarded header is believed',
 'OWASP ASVS 5.0 V4.1.3; RFC 7239 8.1'),
('login_pressure_window',  'interval', '1 hour',     '1 minute', '7 days', false,
 'failed logins within this time are counted in view login_pressure', 'OWASP ASVS 5.0 V6.3.1'),
('node_lease',             'interval', '10 seconds', '1 second', '1 day', false,
 'a node may answer from its cache this long after the start of its last sync_node', NULL),
('history_retention',      'interval', '2 years',    '1 day', '100 years', false,
 'ended sessions are kept for this long',
 'OWASP ASVS 5.0 V14.2.7; NIST SP 800-63B-4 2.4.2'),
('login_event_retention',  'interval', '2 years',    '1 day', '100 years', false,
 'logins are kept for this long',
 'OWASP ASVS 5.0 V16.1.1, V16.3.1; NIST SP 800-63B-4 2.4.2'),
('feed_retention',         'interval', '1 day',      '1 minute', '1 year', false,
 'a node that was away for longer starts over with an empty cache', NULL);

INSERT INTO session_admin_internal.policy_definition
    (name, type, default_value, allowed, per_user, meaning, reference) VALUES
('on_session_limit',       'choice', 'reject', '{reject,evict_oldest}', true,
 'a login beyond max_sessions_per_user is refused, or ends the session of the user that was used least recently',
 'OWASP ASVS 5.0 V7.1.2'),
('on_theft',               'choice', 'end_user', '{end_series,end_user,end_user_and_devices}', false,
 'a stolen remember-me token ends its series; end_user: and the user''s sessions; end_user_and_devices: and the other series, too',
 'OWASP ASVS 5.0 V7.4.1'),
('on_restore',             'choice', 'invalidate', '{invalidate,keep}', false,
 'sessions and tokens in a database that was restored from a dump are not honoured, or are',
 'OWASP ASVS 5.0 V7.4.1'),
('on_capture_failure',     'choice', 'record', '{record,error}', false,
 'a change of a product''s table that is not understood is recorded, and whom it may concern is logged out; error: the product''s statement fails',
 'OWASP ASVS 5.0 V16.5.3'),
('on_lost_history',        'choice', 'invalidate', '{invalidate,keep,witness}', false,
 'after a failover or restore that has lost invalidations of which nodes were told, everybody logs in again; witness: nodes tell what they remember',
 'OWASP ASVS 5.0 V7.4.1'),
('invalidation_durability', 'choice', 'on', '{on,remote_apply}', false,
 'what ends sessions waits for the disks of the synchronous standbys, whatever synchronous_commit says; remote_apply: until these show it',
 NULL),
('captured_logins',        'choice', 'count', '{count,ignore}', false,
 'logins that a product''s tables tell of are counted; ignore: for an application that tells of each by open_session itself',
 NULL);

CREATE TABLE session_admin_internal.policy_signal ();
COMMENT ON TABLE session_admin_internal.policy_signal IS
'always empty: backends that are told that it changed read applications and policies anew';

-- Without statistics each would be taken for hundreds of rows, and views over all sessions
-- would look up the mark for each of them.
ANALYZE session_admin_internal.installation, session_admin_internal.policy_definition,
    session_admin.application, session_admin_internal.application_generation,
    session_admin_internal.policy;

-- one statement each: two of them in one would update the same row twice
SELECT pg_catalog.pg_extension_config_dump('session_admin.application', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.application_generation', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.policy', '');
