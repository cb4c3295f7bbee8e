--
-- No product has a veto, whatever its triggers raise, call or wait for while its rows
-- are deleted.
--
SET session_admin.application = 'veto';
SET client_min_messages = error;
CREATE SCHEMA veto;
CREATE TABLE veto.spring_session (primary_id char(36) PRIMARY KEY, session_id varchar(36) UNIQUE,
    principal_name varchar(100), max_inactive_interval int);
SELECT count(*) FROM session_admin.attach_application('spring_session', 'veto');

-- errors that look like those of who calls
CREATE TABLE veto.results (n int GENERATED ALWAYS AS IDENTITY, state text, ended bigint, valid boolean, remains bigint);
CREATE FUNCTION veto.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = current_setting('veto.state'); END $$;
CREATE TRIGGER refuse BEFORE DELETE ON veto.spring_session FOR EACH ROW EXECUTE FUNCTION veto.refuse();
DO $$
DECLARE
    state text;
    number bigint;
BEGIN
    FOREACH state IN ARRAY '{57014,57P01,57P02,57P03,53000,53100,53200,55P03,40001,40P01,25P02,XX000,PT410}'::text[] LOOP
        PERFORM set_config('veto.state', state, true);
        INSERT INTO veto.spring_session VALUES (state, state, 'alice', 1800);
        BEGIN
            SELECT sessions_ended INTO number FROM session_admin.invalidate_user('alice');
        EXCEPTION WHEN OTHERS OR query_canceled THEN
            number := NULL;
        END;
        INSERT INTO veto.results (state, ended, valid, remains)
        SELECT state, number, session_admin.touch_session(state), count(*)
        FROM session_admin_internal.product_remains WHERE secret_hash = sha256(state::bytea);
    END LOOP;
END $$;
SELECT state, ended, valid, remains FROM veto.results ORDER BY n;
DROP TRIGGER refuse ON veto.spring_session;
SELECT task, done > 0 AS some FROM session_admin.maintain() WHERE task = 'product rows deleted';
SELECT count(*) FROM veto.spring_session;

-- it ends somebody else in turn, and then goes on for ever: what it did is undone with it
CREATE FUNCTION veto.also() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    PERFORM session_admin.invalidate_user('bob');
    PERFORM pg_sleep(3600);
    RETURN old;
END $$;
INSERT INTO veto.spring_session VALUES ('a', 'a', 'alice', 1800), ('b', 'b', 'bob', 1800);
CREATE TRIGGER also BEFORE DELETE ON veto.spring_session FOR EACH ROW WHEN (old.principal_name = 'alice') EXECUTE FUNCTION veto.also();
SET statement_timeout = '60s';
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
RESET statement_timeout;
SELECT session_admin.touch_session('a') AS a, session_admin.touch_session('b') AS b;
DROP TRIGGER also ON veto.spring_session;

SELECT count(*) FROM session_admin.detach_application(application => 'veto');
DELETE FROM session_admin_internal.product_remains;
DELETE FROM session_admin_internal.ended_id;
DELETE FROM session_admin.session WHERE application = 'veto';
DROP SCHEMA veto CASCADE;
