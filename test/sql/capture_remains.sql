--
-- Rows that a product does not let us delete.  No product keeps a session from ending:
-- here it is over, whatever the product writes to its row, and the row is tried again
-- until it is gone.
--
-- the sessions of other tests, which are among everybody's
DELETE FROM session_admin.session;
SET session_admin.application = 'stall';
CREATE SCHEMA shop;
CREATE ROLE regress_shop_owner;
CREATE COLLATION shop.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

CREATE TABLE results (
    n int GENERATED ALWAYS AS IDENTITY, obstacle text, "when" text, ended bigint,
    valid text, their_rows text, nodes text, health text, elsewhere text);

CREATE TABLE warnings (n int GENERATED ALWAYS AS IDENTITY, obstacle text, note text);

-- The ids of sessions that are valid here, and those that the product has.
CREATE FUNCTION note(obstacle text, "when" text, id bigint, ended bigint) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO results (obstacle, "when", ended, valid, their_rows, nodes, health, elsewhere)
    SELECT note.obstacle, note."when", note.ended,
        (SELECT string_agg(i.id, ' ' ORDER BY i.id) FROM unnest('{a1,a2,b1}'::text[]) AS i (id)
         WHERE session_admin.touch_session(i.id)),
        (SELECT query_to_xml('SELECT string_agg(trim(session_id), '' '' ORDER BY session_id) AS s FROM shop.spring_session', true, true, '')::text),
        (SELECT string_agg(w.node || ' ' || w.state, ' ' ORDER BY w.node) FROM session_admin.wait_for_nodes(note.id, '0') w),
        (SELECT h.value || ' ' || h.status FROM session_admin.health h WHERE h.name = 'products'' rows that remain'),
        CASE WHEN session_admin.touch_session('e1', application => 'elsewhere') THEN 'e1' END;
END;

CREATE PROCEDURE obstacle(title text, make text, unmake text, id_type text DEFAULT 'varchar(36)')
LANGUAGE plpgsql
AS $$
DECLARE
    done record;
BEGIN
    -- the same ids serve again
    DELETE FROM session_admin_internal.ended_id;
    PERFORM session_admin.open_session('e1', 'eve', application => 'elsewhere');
    EXECUTE format('CREATE TABLE shop.spring_session (primary_id char(36) PRIMARY KEY, session_id %s UNIQUE,
        principal_name varchar(100), max_inactive_interval int)', id_type);
    EXECUTE make;
    INSERT INTO warnings (obstacle, note) SELECT title, a.note FROM session_admin.attach_application('spring_session', 'shop') a
    WHERE a.state = 'warning';
    INSERT INTO shop.spring_session VALUES ('1', 'a1', 'alice', 1800), ('2', 'a2', 'alice', 1800),
        ('3', 'b1', 'bob', 1800);
    COMMIT;
    SELECT * INTO done FROM session_admin.invalidate_user('alice');
    COMMIT;
    PERFORM note(title, 'alice', done.invalidation_id, done.sessions_ended);
    COMMIT;
    -- a request that brings its cookie
    UPDATE shop.spring_session SET max_inactive_interval = 3600 WHERE session_id = 'a1';
    COMMIT;
    PERFORM note(title, 'a request', done.invalidation_id, NULL);
    SELECT * INTO done FROM session_admin.invalidate_all();
    COMMIT;
    PERFORM note(title, 'everybody', done.invalidation_id, done.sessions_ended);
    COMMIT;
    -- housekeeping goes on
    PERFORM session_admin.maintain();
    COMMIT;
    UPDATE shop.spring_session SET max_inactive_interval = 1800;
    COMMIT;
    PERFORM note(title, 'maintain()', done.invalidation_id, NULL);
    COMMIT;
    EXECUTE unmake;
    COMMIT;
    PERFORM session_admin.maintain();
    COMMIT;
    PERFORM note(title, 'no more', done.invalidation_id, NULL);
    PERFORM session_admin.detach_application(application => 'stall');
    DROP TABLE shop.spring_session;
    -- the next one has the same ids
    DELETE FROM session_admin_internal.ended_id;
    COMMIT;
END;
$$;

CREATE FUNCTION shop.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'session % stays', old.session_id; END $$;
CREATE FUNCTION shop.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION shop.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3600); RETURN old; END $$;
CREATE FUNCTION shop.soft() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN UPDATE shop.spring_session SET max_inactive_interval = 1 + max_inactive_interval WHERE primary_id = old.primary_id; RETURN NULL; END $$;
CREATE FUNCTION shop.stubborn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(3600); RETURN old; EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(3600); RETURN old; END $$;
GRANT USAGE ON SCHEMA shop TO regress_shop_owner;

CALL obstacle('nothing', '', '');
CALL obstacle('a rule',
    'CREATE RULE keep AS ON DELETE TO shop.spring_session DO INSTEAD NOTHING',
    'DROP RULE keep ON shop.spring_session');
CALL obstacle('a soft delete by rule',
    'CREATE RULE keep AS ON DELETE TO shop.spring_session DO INSTEAD UPDATE shop.spring_session
        SET max_inactive_interval = 1 + max_inactive_interval WHERE primary_id = old.primary_id',
    'DROP RULE keep ON shop.spring_session');
CALL obstacle('a trigger that returns null',
    'CREATE TRIGGER keep BEFORE DELETE ON shop.spring_session FOR EACH ROW EXECUTE FUNCTION shop.keep()',
    'DROP TRIGGER keep ON shop.spring_session');
CALL obstacle('a soft delete by trigger',
    'CREATE TRIGGER keep BEFORE DELETE ON shop.spring_session FOR EACH ROW EXECUTE FUNCTION shop.soft()',
    'DROP TRIGGER keep ON shop.spring_session');
CALL obstacle('a trigger that raises an error',
    'CREATE TRIGGER keep BEFORE DELETE ON shop.spring_session FOR EACH ROW EXECUTE FUNCTION shop.refuse()',
    'DROP TRIGGER keep ON shop.spring_session');
CALL obstacle('... for one row',
    $$CREATE TRIGGER keep BEFORE DELETE ON shop.spring_session FOR EACH ROW WHEN (old.session_id = 'a1') EXECUTE FUNCTION shop.refuse()$$,
    'DROP TRIGGER keep ON shop.spring_session');
CALL obstacle('a trigger that sleeps',
    'CREATE TRIGGER keep BEFORE DELETE ON shop.spring_session FOR EACH ROW EXECUTE FUNCTION shop.slow()',
    'DROP TRIGGER keep ON shop.spring_session');
CALL obstacle('... and catches what wakes it',
    'CREATE TRIGGER keep BEFORE DELETE ON shop.spring_session FOR EACH STATEMENT EXECUTE FUNCTION shop.stubborn()',
    'DROP TRIGGER keep ON shop.spring_session');
CALL obstacle('a deferred foreign key of an empty table',
    'CREATE TABLE shop.cart (session_id char(36) REFERENCES shop.spring_session DEFERRABLE INITIALLY DEFERRED)',
    'DROP TABLE shop.cart');
CALL obstacle('a deferred foreign key that cascades',
    'CREATE TABLE shop.cart (session_id char(36) REFERENCES shop.spring_session ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
     CREATE TABLE shop.item (session_id char(36) REFERENCES shop.spring_session ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED)',
    'DROP TABLE shop.cart, shop.item');
CALL obstacle('a row that refers to one of them',
    $$CREATE TABLE shop.cart (session_id char(36));
      CREATE FUNCTION shop.fill() RETURNS trigger LANGUAGE plpgsql AS
      $f$ BEGIN INSERT INTO shop.cart SELECT new.primary_id WHERE new.session_id = 'a1'; RETURN new; END $f$;
      CREATE TRIGGER fill AFTER INSERT ON shop.spring_session FOR EACH ROW EXECUTE FUNCTION shop.fill();
      ALTER TABLE shop.cart ADD FOREIGN KEY (session_id) REFERENCES shop.spring_session$$,
    'DROP TABLE shop.cart; DROP TRIGGER fill ON shop.spring_session; DROP FUNCTION shop.fill()');
CALL obstacle('... by a deferred foreign key',
    $$CREATE TABLE shop.cart (session_id char(36));
      CREATE FUNCTION shop.fill() RETURNS trigger LANGUAGE plpgsql AS
      $f$ BEGIN INSERT INTO shop.cart SELECT new.primary_id WHERE new.session_id = 'a1'; RETURN new; END $f$;
      CREATE TRIGGER fill AFTER INSERT ON shop.spring_session FOR EACH ROW EXECUTE FUNCTION shop.fill();
      ALTER TABLE shop.cart ADD FOREIGN KEY (session_id) REFERENCES shop.spring_session DEFERRABLE INITIALLY DEFERRED$$,
    'DROP TABLE shop.cart; DROP TRIGGER fill ON shop.spring_session; DROP FUNCTION shop.fill()');
CALL obstacle('policies that hold for the owner, too',
    'ALTER TABLE shop.spring_session OWNER TO regress_shop_owner;
     ALTER TABLE shop.spring_session ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.spring_session FORCE ROW LEVEL SECURITY',
    '');
CALL obstacle('the owner may not delete',
    'ALTER TABLE shop.spring_session OWNER TO regress_shop_owner; REVOKE DELETE ON shop.spring_session FROM regress_shop_owner',
    'GRANT DELETE ON shop.spring_session TO regress_shop_owner');
CALL obstacle('a collation in which different ids are equal', '', '', 'varchar(36) COLLATE shop.any_case');

SELECT obstacle, "when", ended, valid, substring(their_rows FROM '<s>(.*)</s>') AS their_rows, nodes, health, elsewhere
FROM results ORDER BY n;

-- what attach_application saw coming
SELECT obstacle, note FROM warnings ORDER BY n;

-- nothing of it remains
SELECT count(*) FROM session_admin_internal.product_remains;
DROP PROCEDURE obstacle;
DROP FUNCTION note;
DROP TABLE results, warnings;
DROP SCHEMA shop CASCADE;
DROP ROLE regress_shop_owner;
