/*
 * Policy
 *
 * What may be set is data; what is set is a row of policy.  C reads both once
 * and keeps them until the trigger tells every backend that they changed.
 */

CREATE TABLE session_admin.policy_definition (
    name            text COLLATE "C" PRIMARY KEY,
    type            text NOT NULL,
    default_value   text NOT NULL,
    lowest          text,
    highest         text,
    per_user        boolean NOT NULL DEFAULT false,
    meaning         text NOT NULL,
    reference       text
);
COMMENT ON TABLE session_admin.policy_definition IS
'policies that there are: type, default, bounds, meaning';

INSERT INTO session_admin.policy_definition
    (name, type, default_value, lowest, highest, per_user, meaning, reference) VALUES
('idle_timeout',           'interval', '1 hour',     '1 second', '10 years', true,
 'a session of a user ends when it was not used for this long', NULL),
('absolute_timeout',       'interval', '24 hours',   '1 second', '10 years', true,
 'a session ends this long after it was opened, used or not', NULL),
('anonymous_idle_timeout', 'interval', '10 minutes', '1 second', '10 years', false,
 'a session without a user ends when it was not used for this long', NULL),
('remember_me_lifetime',   'interval', '14 days',    '1 second', '10 years', false,
 'a remembered device has to log in again this long after it was remembered', NULL),
('remember_me_grace',      'interval', '30 seconds', '0 seconds', '1 hour', false,
 'the remember-me token before the current one is still accepted for this long', NULL),
('trusted_proxies',        'cidr[]',   '{}',         NULL, NULL, false,
 'proxies whose X-Forwarded-For or Forwarded header is believed', NULL),
('node_lease',             'interval', '10 seconds', '1 second', '1 day', false,
 'a node may answer from its cache this long after the start of its last sync_node', NULL),
('history_retention',      'interval', '2 years',    '1 day', '100 years', false,
 'ended sessions are kept for this long', NULL),
('login_event_retention',  'interval', '2 years',    '1 day', '100 years', false,
 'logins are kept for this long', NULL),
('feed_retention',         'interval', '1 day',      '1 minute', '1 year', false,
 'a node that was away for longer starts over with an empty cache', NULL);

CREATE FUNCTION session_admin.policy_changed() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_policy_changed';
COMMENT ON FUNCTION session_admin.policy_changed() IS
'trigger: makes every backend read applications and policies anew once this transaction commits';

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON session_admin.application
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin.policy_changed();
ALTER TABLE session_admin.application ENABLE ALWAYS TRIGGER policy_changed;
CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON session_admin.policy
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin.policy_changed();
ALTER TABLE session_admin.policy ENABLE ALWAYS TRIGGER policy_changed;

CREATE VIEW session_admin.effective_policy WITH (security_barrier) AS
SELECT a.name AS application, d.name, coalesce(p.value, d.default_value) AS value
FROM session_admin.application a
CROSS JOIN session_admin.policy_definition d
LEFT JOIN session_admin.policy p
    ON p.application = a.name AND p.user_name IS NULL AND p.name = d.name;
COMMENT ON VIEW session_admin.effective_policy IS
'the value of each policy in each application';

-- Months and years count as extract(epoch) counts them, here and in C.
CREATE VIEW session_admin.time_limit AS
SELECT application,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'idle_timeout')::float8) AS idle_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'absolute_timeout')::float8) AS absolute_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'anonymous_idle_timeout')::float8) AS anonymous_idle_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'remember_me_lifetime')::float8) AS remember_me_lifetime
FROM session_admin.effective_policy
WHERE name IN ('idle_timeout', 'absolute_timeout', 'anonymous_idle_timeout', 'remember_me_lifetime')
GROUP BY application;
COMMENT ON VIEW session_admin.time_limit IS
'the time limits of each application';

CREATE VIEW session_admin.user_time_limit AS
SELECT application, user_name,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'idle_timeout')::float8) AS idle_timeout,
       make_interval(secs => max(extract(epoch FROM value::interval))
                     FILTER (WHERE name = 'absolute_timeout')::float8) AS absolute_timeout
FROM session_admin.policy
WHERE user_name IS NOT NULL AND name IN ('idle_timeout', 'absolute_timeout')
GROUP BY application, user_name;
COMMENT ON VIEW session_admin.user_time_limit IS
'the time limits of users who have their own';
