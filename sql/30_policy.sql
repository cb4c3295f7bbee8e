/*
 * Policy
 *
 * What may be set is data; what is set is a row of policy.  C reads both once
 * and keeps them until the trigger tells every backend that they changed.
 */

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

CREATE FUNCTION session_admin_internal.policy_changed() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_policy_changed';
COMMENT ON FUNCTION session_admin_internal.policy_changed() IS
'trigger: makes every backend read applications and policies anew once this transaction commits';

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON session_admin.application
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin.application ENABLE ALWAYS TRIGGER policy_changed;
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON session_admin_internal.policy
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin_internal.policy ENABLE ALWAYS TRIGGER policy_changed;

CREATE VIEW session_admin_internal.effective_policy WITH (security_barrier) AS
SELECT a.name AS application, d.name, coalesce(p.value, d.default_value) AS value
FROM session_admin.application a
CROSS JOIN session_admin_internal.policy_definition d
LEFT JOIN session_admin_internal.policy p
    ON p.application = a.name AND p.user_name IS NULL AND p.name = d.name;
COMMENT ON VIEW session_admin_internal.effective_policy IS
'the value of each policy in each application';

-- pg_upgrade keeps the row and the database's OID.  A copy of the database has
-- the row, too, but another OID.
CREATE VIEW session_admin_internal.installation_mark AS
SELECT i.id || '/' || d.oid AS home, i.id::text AS id, i.since
FROM session_admin_internal.installation i
CROSS JOIN pg_database d WHERE d.datname = current_database();
COMMENT ON VIEW session_admin_internal.installation_mark IS
'the mark of this database';

-- No session and no token has the generation -1.
CREATE VIEW session_admin_internal.application_state AS
SELECT a.name, CASE WHEN r.restored THEN -1 ELSE a.generation END AS generation,
       m.moved, r.restored,
       -- a copy does not say when it was made
       CASE WHEN NOT r.restored THEN NULL
            WHEN starts_with(a.home, h.id) IS NOT FALSE THEN statement_timestamp()
            ELSE h.since END AS restored_at,
       CASE WHEN r.restored THEN 'restored' ELSE 'admin' END AS end_reason
FROM session_admin.application a
LEFT JOIN session_admin_internal.installation_mark h ON true
LEFT JOIN session_admin_internal.policy p
    ON p.application = a.name AND p.user_name IS NULL AND p.name = 'on_restore'
CROSS JOIN LATERAL (SELECT h.home IS NULL OR h.home IS DISTINCT FROM a.home AS moved) m
CROSS JOIN LATERAL (SELECT m.moved AND p.value IS DISTINCT FROM 'keep' AS restored) r;
COMMENT ON VIEW session_admin_internal.application_state IS
'the generation that is valid in each application, none if it came from a dump and nobody has used it since';

-- Months and years count as extract(epoch) counts them, here and in C.
CREATE VIEW session_admin_internal.time_limit AS
SELECT application,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'idle_timeout')::float8) AS idle_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'absolute_timeout')::float8) AS absolute_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'anonymous_idle_timeout')::float8) AS anonymous_idle_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'anonymous_absolute_timeout')::float8) AS anonymous_absolute_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'remember_me_lifetime')::float8) AS remember_me_lifetime
FROM session_admin_internal.effective_policy
WHERE name IN ('idle_timeout', 'absolute_timeout', 'anonymous_idle_timeout',
               'anonymous_absolute_timeout', 'remember_me_lifetime')
GROUP BY application;
COMMENT ON VIEW session_admin_internal.time_limit IS
'the time limits of each application';

CREATE VIEW session_admin_internal.user_time_limit AS
SELECT application, user_name,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'idle_timeout')::float8) AS idle_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'absolute_timeout')::float8) AS absolute_timeout
FROM session_admin_internal.policy
WHERE user_name IS NOT NULL AND name IN ('idle_timeout', 'absolute_timeout')
GROUP BY application, user_name;
COMMENT ON VIEW session_admin_internal.user_time_limit IS
'the time limits of users who have their own';

CREATE FUNCTION session_admin_internal.application_or_current(application text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(application, nullif(current_setting('session_admin.application', true), ''),
                'default');
COMMENT ON FUNCTION session_admin_internal.application_or_current(text) IS
'the argument, or else the setting session_admin.application';

CREATE VIEW session_admin.policies WITH (security_barrier) AS
SELECT d.name, a.name AS application, NULL::text COLLATE "C" AS user_name,
       coalesce(p.value, d.default_value) AS value, d.default_value AS "default",
       d.meaning, d.reference
FROM (SELECT name FROM session_admin.application
      UNION SELECT session_admin_internal.application_or_current(NULL)) a
CROSS JOIN session_admin_internal.policy_definition d
LEFT JOIN session_admin_internal.policy p
    ON p.application = a.name AND p.user_name IS NULL AND p.name = d.name
UNION ALL
SELECT d.name, p.application, p.user_name, p.value, d.default_value, d.meaning, d.reference
FROM session_admin_internal.policy p
JOIN session_admin_internal.policy_definition d ON d.name = p.name
WHERE p.user_name IS NOT NULL;
COMMENT ON VIEW session_admin.policies IS
'what holds in each application, and for users with a policy of their own';
COMMENT ON COLUMN session_admin.policies.user_name IS
'null: what holds for everybody else';
COMMENT ON COLUMN session_admin.policies.reference IS
'the standard that the default follows';

CREATE FUNCTION session_admin.set_policy(
    name text, value text, user_name text DEFAULT NULL, application text DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET intervalstyle = postgres
AS 'MODULE_PATHNAME', 'sa_set_policy';
COMMENT ON FUNCTION session_admin.set_policy(text, text, text, text) IS
'sets a policy of an application or of one of its users, null for the default, and tells what holds now';
