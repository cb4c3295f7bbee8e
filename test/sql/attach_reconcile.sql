--
-- Reconcile: whatever was done behind the triggers' back is found.
--
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET session_admin.application = 'rec';
SET client_min_messages = warning;

CREATE SCHEMA rec;
CREATE TABLE rec.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL);
SELECT count(*) FROM session_admin.attach_application('connect_pg_simple', 'rec');
CREATE FUNCTION rec.data(name text) RETURNS json LANGUAGE sql AS
    $$SELECT CASE WHEN name IS NULL THEN '{}' ELSE json_build_object('passport', json_build_object('user', name)) END$$;
CREATE FUNCTION rec.fill() RETURNS void LANGUAGE sql AS $$
    DELETE FROM rec.session;
    DELETE FROM session_admin.session WHERE application = 'rec';
    DELETE FROM session_admin_internal.ended_session WHERE application = 'rec';
    DELETE FROM session_admin_internal.ended_id;
    INSERT INTO rec.session SELECT 'id ' || n, rec.data('user' || n), now() + interval '1 day' FROM generate_series(1, 4) AS n;
$$;

-- Something happens; what is found, and who is logged in then; found once.
CREATE FUNCTION rec.after(what text,
    OUT finding text, OUT again text, OUT live text, OUT product_rows text, OUT reasons text, OUT logins bigint)
LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
BEGIN
    PERFORM rec.fill();
    SELECT sum(login_count) INTO before FROM session_admin_internal.account WHERE application = 'rec';
    EXECUTE what;
    SELECT string_agg(format('%s read, %s ended, %s taken, %s deleted%s', r.rows_read, r.ended, r.taken, r.deleted, ' ' || nullif(r.note, '')), '; ')
    INTO finding FROM session_admin.reconcile_sessions() r;
    SELECT string_agg(format('%s, %s, %s', r.ended, r.taken, r.deleted), '; ')
    INTO again FROM session_admin.reconcile_sessions() r;
    SELECT string_agg(coalesce(c.user_name, 'nobody'), ' ' ORDER BY c.user_name) INTO live
    FROM session_admin.current_sessions c WHERE c.application = 'rec';
    BEGIN
        SELECT string_agg(s.sid, ' ' ORDER BY s.sid) INTO product_rows FROM rec.session s;
    EXCEPTION WHEN undefined_table OR undefined_column THEN
    END;
    SELECT string_agg(DISTINCT h.end_reason, ' ') INTO reasons FROM session_admin_internal.ended_session h WHERE h.application = 'rec';
    SELECT sum(login_count) - before INTO logins FROM session_admin_internal.account WHERE application = 'rec';
    RAISE EXCEPTION 'back' USING ERRCODE = 'RB000';
EXCEPTION WHEN SQLSTATE 'RB000' THEN
END $$;

CREATE FUNCTION rec.unseen(what text) RETURNS text LANGUAGE sql AS
    $$SELECT 'ALTER TABLE rec.session DISABLE TRIGGER ALL; ' || what || '; ALTER TABLE rec.session ENABLE TRIGGER ALL; ALTER TABLE rec.session ENABLE ALWAYS TRIGGER session_admin_truncate; ALTER TABLE rec.session ENABLE REPLICA TRIGGER session_admin_replica'$$;

CREATE TEMP TABLE happens (n serial, what text, statements text);
INSERT INTO happens (what, statements) VALUES
('nothing', $$SELECT$$),
('what the triggers saw', $$DELETE FROM rec.session WHERE sid = 'id 1'; INSERT INTO rec.session VALUES ('id 9', rec.data('user9'), now() + interval '1 day')$$),
('rows are deleted', rec.unseen($$DELETE FROM rec.session WHERE sid IN ('id 1', 'id 2')$$)),
('... applied as a subscription does', $$ALTER TABLE rec.session DISABLE TRIGGER session_admin_replica; SET LOCAL session_replication_role = replica; DELETE FROM rec.session WHERE sid = 'id 1'; SET LOCAL session_replication_role = origin$$),
('... all of them', rec.unseen($$DELETE FROM rec.session$$)),
('TRUNCATE', $$ALTER TABLE rec.session DISABLE TRIGGER session_admin_truncate; TRUNCATE rec.session$$),
('rows are new', rec.unseen($$INSERT INTO rec.session SELECT 'new ' || n, rec.data('new' || n), now() + interval '1 day' FROM generate_series(1, 2) n$$)),
('... nobody''s', rec.unseen($$INSERT INTO rec.session VALUES ('new', '{}', now() + interval '1 day')$$)),
('... expired', rec.unseen($$INSERT INTO rec.session VALUES ('new', rec.data('new'), now() - interval '1 day')$$)),
('another user', rec.unseen($$UPDATE rec.session SET sess = rec.data('other') WHERE sid = 'id 1'$$)),
('... no user any more', rec.unseen($$UPDATE rec.session SET sess = '{}' WHERE sid = 'id 1'$$)),
('another id', rec.unseen($$UPDATE rec.session SET sid = 'moved' WHERE sid = 'id 1'$$)),
('it expired', rec.unseen($$UPDATE rec.session SET expire = now() - interval '1 minute' WHERE sid = 'id 1'$$)),
('the session is gone', $$SELECT session_admin.detach_application(); DELETE FROM session_admin.session WHERE user_name = 'user1';
    DELETE FROM session_admin_internal.ended_id; SELECT session_admin.attach_application('connect_pg_simple', 'rec')$$),
('an ended session comes back', $$SELECT session_admin.invalidate_user('user1'); $$ || rec.unseen($$INSERT INTO rec.session VALUES ('id 1', rec.data('user1'), now() + interval '1 day')$$)),
('... and has another id', $$SELECT session_admin.invalidate_user('user1'); $$ || rec.unseen($$UPDATE rec.session SET sid = 'id 1' WHERE sid = 'id 2'$$)),
('the table is dropped', $$DROP TABLE rec.session$$),
('... and made again', $$DROP TABLE rec.session; CREATE TABLE rec.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL)$$),
('... and attached', $$DROP TABLE rec.session; CREATE TABLE rec.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL);
    INSERT INTO rec.session VALUES ('id 1', rec.data('user1'), now() + interval '1 day'), ('id 9', rec.data('user9'), now() + interval '1 day');
    SELECT session_admin.attach_application('connect_pg_simple', 'rec')$$),
('it is renamed', $$ALTER TABLE rec.session RENAME TO session_old$$),
('... and made again, with some rows of it', $$ALTER TABLE rec.session RENAME TO session_old; CREATE TABLE rec.session AS SELECT * FROM rec.session_old WHERE sid = 'id 1'$$),
('... and attached', $$ALTER TABLE rec.session RENAME TO session_old; CREATE TABLE rec.session AS SELECT * FROM rec.session_old WHERE sid = 'id 1';
    SELECT session_admin.attach_application('connect_pg_simple', 'rec')$$),
('a column is gone', $$ALTER TABLE rec.session RENAME sid TO id$$),
('what is attached got lost', $$DELETE FROM session_admin_internal.attachment WHERE application = 'rec'$$);
SET client_min_messages = error;
\x on
SELECT h.what, a.* FROM happens h, LATERAL rec.after(h.statements) a ORDER BY h.n;
\x off
SET client_min_messages = warning;

-- Housekeeping does it, too: a slice at a time, and at once where a table is gone
SELECT rec.fill();
CREATE FUNCTION rec.housekeeping() RETURNS SETOF text LANGUAGE sql AS
    $$SELECT format('%s: %s', task, done) FROM session_admin.maintain() WHERE task ~ 'reconciled|without table'$$;
SELECT rec.housekeeping();
ALTER TABLE rec.session DISABLE TRIGGER ALL;
DELETE FROM rec.session WHERE sid = 'id 1';
INSERT INTO rec.session VALUES ('id 9', rec.data('user9'), now() + interval '1 day');
SELECT rec.housekeeping();
SELECT rec.housekeeping();
SELECT differences FROM session_admin_internal.reconciliation WHERE application = 'rec';
-- but what was there before is left to backfill_sessions
SELECT count(*) FROM session_admin.detach_application();
DELETE FROM session_admin.session WHERE application = 'rec';
DELETE FROM session_admin_internal.ended_id;
SELECT count(*) FROM session_admin.attach_application('connect_pg_simple', 'rec');
SELECT rec.housekeeping();
CALL session_admin.backfill_sessions();
SELECT count(*) FROM session_admin.current_sessions WHERE application = 'rec';
DROP TABLE rec.session;
SELECT rec.housekeeping();
SELECT count(*) FROM session_admin.current_sessions WHERE application = 'rec';

-- Of nothing there is nothing to compare
RESET client_min_messages;
SELECT * FROM session_admin.reconcile_sessions('nowhere');
SET client_min_messages = error;
SELECT count(*) FROM session_admin.detach_application();
SELECT count(*) FROM session_admin_internal.reconciliation;
DELETE FROM session_admin_internal.ended_id;
DROP SCHEMA rec CASCADE;
