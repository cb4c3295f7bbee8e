--
-- Rows that cannot be deleted keep none of the others from being deleted
--
SET client_min_messages = error;
SET session_admin.application = 'many';
CREATE SCHEMA many;
CREATE TABLE many.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL);
CREATE TABLE many.cart (sid varchar REFERENCES many.session);
SELECT count(*) > 0 AS attached FROM session_admin.attach_application('connect_pg_simple', 'many');
INSERT INTO many.session SELECT 'id' || n, json_build_object('passport', json_build_object('user', 'user' || n % 3)), '2100-01-01'
FROM generate_series(1, 100) n;
INSERT INTO many.cart SELECT 'id' || n FROM generate_series(1, 40) n;

-- 40 of 100, the first ones, are referred to
SELECT sessions_ended FROM session_admin.invalidate_application();
SELECT count(*), count(c.sid) AS kept FROM many.session s LEFT JOIN many.cart c USING (sid);
SELECT count(DISTINCT secret_hash) FROM session_admin_internal.product_remains;
-- each time they are tried again they are told once
SELECT task, done FROM session_admin.maintain() WHERE task IN ('product rows deleted', 'sessions reconciled');
SELECT deleted FROM session_admin.reconcile_sessions();
DELETE FROM many.cart;
SELECT done > 0 AS any FROM session_admin.maintain() WHERE task = 'product rows deleted';
SELECT count(*) FROM many.session;
SELECT count(*) FROM session_admin_internal.product_remains;

-- a trigger that keeps some and fails for others
CREATE FUNCTION many.keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF old.sid ~ '^fails' THEN RAISE 'no'; END IF;
    IF old.sid ~ '^stays' THEN RETURN NULL; END IF;
    RETURN old;
END $$;
CREATE TRIGGER keep BEFORE DELETE ON many.session FOR EACH ROW EXECUTE FUNCTION many.keep();
INSERT INTO many.session SELECT id || n, json_build_object('passport', json_build_object('user', 'alice')), '2100-01-01'
FROM generate_series(1, 5) n, unnest('{stays,fails,goes}'::text[]) AS id;
SELECT sessions_ended FROM session_admin.invalidate_user('alice');
DO $$ BEGIN
    FOR i IN 1 .. 10 LOOP
        PERFORM session_admin.maintain();
        COMMIT;
    END LOOP;
END $$;
SELECT left(sid, 5) AS what, count(*) FROM many.session GROUP BY 1 ORDER BY 1;
DROP TRIGGER keep ON many.session;
SELECT task, done > 0 AS any FROM session_admin.maintain() WHERE task = 'product rows deleted';
SELECT count(*) FROM many.session;
SELECT count(*) FROM session_admin_internal.product_remains;

SELECT count(*) > 0 AS detached FROM session_admin.detach_application();
DROP SCHEMA many CASCADE;
