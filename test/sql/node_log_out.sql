--
-- CALL log_out(): ends sessions, commits, and waits for the nodes
--
SET session_admin.application = 'log out';
CREATE ROLE regress_log_out;
SELECT session_admin.grant_access('regress_log_out', 'operator');

CREATE SEQUENCE login;
CREATE FUNCTION log_in(name text, sessions integer) RETURNS void LANGUAGE sql AS $$
    SELECT session_admin.open_session('log out ' || nextval('login'), name, '192.0.2.7', user_agent => 'Mozilla')
    FROM generate_series(1, sessions) n;
$$;
CREATE VIEW here AS
SELECT user_name, count(*) FROM session_admin.current_sessions WHERE application = 'log out' GROUP BY 1 ORDER BY 1;
GRANT SELECT ON here TO regress_log_out;

SELECT log_in('alice', 2), log_in('bob', 3), log_in('carol', 1);
SELECT FROM session_admin.issue_remember_me('alice');
SELECT session_ref AS ref FROM session_admin.current_sessions WHERE user_name = 'bob' LIMIT 1 \gset

-- an operator's rights are enough, and a search_path that misleads does no harm
SET ROLE regress_log_out;
CREATE DOMAIN pg_temp.text AS integer CHECK (VALUE IS NULL);
SET search_path = pg_temp, public, pg_catalog;
CALL session_admin.log_out('alice');
SELECT * FROM here;

-- one session
CALL session_admin.log_out(session_ref => :'ref', reason => 'custom:lost phone');
SELECT * FROM here;

-- filters
CALL session_admin.log_out(address => '192.0.2.0/24', user_agent_like => 'Opera%');
CALL session_admin.log_out(address => '192.0.2.0/24', user_agent_like => 'Mozilla%', node => NULL);
SELECT * FROM here;
RESET search_path;
DROP DOMAIN pg_temp.text;
RESET ROLE;

-- everybody, whose number is not counted
SELECT log_in('alice', 2), log_in('bob', 1);
SET ROLE regress_log_out;
CALL session_admin.log_out(everybody => true, application => 'log out');
SELECT * FROM here;
SELECT scope, user_name, reason, invalidated_by, sessions_ended
FROM session_admin.invalidations WHERE application = 'log out' ORDER BY id;

-- it says what became of the nodes; this one has never synced, and has nothing to answer from
RESET ROLE;
SELECT log_in('alice', 1);
SELECT FROM session_admin.join_node('log out node');
SET ROLE regress_log_out;
CALL session_admin.log_out('alice');

-- what is refused ends nothing
RESET ROLE;
SELECT log_in('alice', 1);
SET ROLE regress_log_out;
CALL session_admin.log_out();
CALL session_admin.log_out('alice', everybody => true);
CALL session_admin.log_out('alice', address => '192.0.2.7');
CALL session_admin.log_out('alice', timeout => NULL);
CALL session_admin.log_out('alice', timeout => '-1 second');
CALL session_admin.log_out('alice', timeout => '178000000 years');
CALL session_admin.log_out('alice', reason => 'because');
CALL session_admin.log_out('nobody');
\echo :LAST_ERROR_SQLSTATE
CALL session_admin.log_out(session_ref => '00000000');
\echo :LAST_ERROR_SQLSTATE
CALL session_admin.log_out(everybody => true, application => 'no such application');
\echo :LAST_ERROR_SQLSTATE

-- it commits, which is not possible here
BEGIN;
CALL session_admin.log_out('alice');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
\set VERBOSITY terse
CREATE FUNCTION pg_temp.wrapped() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL session_admin.log_out('alice'); END $$;
SELECT pg_temp.wrapped();
DROP FUNCTION pg_temp.wrapped();
\set VERBOSITY default
SELECT * FROM here;

-- but it is here
DO $$ BEGIN CALL session_admin.log_out('alice'); END $$;
SELECT * FROM here;

-- without the capability
RESET ROLE;
SELECT log_in('alice', 1);
SELECT session_admin.revoke_access('regress_log_out', 'operator');
SET ROLE regress_log_out;
CALL session_admin.log_out('alice');
RESET ROLE;
SELECT count(*) FROM here;

SELECT session_admin.leave_node('log out node');
DROP VIEW here;
DROP FUNCTION log_in;
DROP SEQUENCE login;
DROP ROLE regress_log_out;
