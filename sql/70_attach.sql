/*
 * Attachments
 *
 * What is watched, and whether it still is as attach_application left it.
 */

CREATE TABLE session_admin_internal.capture_trigger (
    name            text COLLATE "C" PRIMARY KEY,
    definition      text NOT NULL,
    -- as in pg_trigger: o(rigin), r(eplica) or a(lways)
    enabled         "char" NOT NULL,
    parts           text[] NOT NULL
);
COMMENT ON TABLE session_admin_internal.capture_trigger IS
'triggers that attach_application makes on the tables that play these parts';

-- A subscription fires no trigger for a statement but TRUNCATE: it has one of its own.
INSERT INTO session_admin_internal.capture_trigger VALUES
('session_admin_insert', 'AFTER INSERT ON %s REFERENCING NEW TABLE AS new_table FOR EACH STATEMENT',
 'O', '{account,identity,attribute,login,remember_me,session}'),
('session_admin_update', 'AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_table NEW TABLE AS new_table FOR EACH STATEMENT',
 'O', '{account,identity,attribute,login,remember_me,session}'),
('session_admin_delete', 'AFTER DELETE ON %s REFERENCING OLD TABLE AS old_table FOR EACH STATEMENT',
 'O', '{account,identity,remember_me,session}'),
('session_admin_truncate', 'AFTER TRUNCATE ON %s FOR EACH STATEMENT',
 'A', '{account,identity,remember_me,session}'),
('session_admin_replica', 'AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW',
 'R', '{account,identity,attribute,login,remember_me,session}');

CREATE VIEW session_admin_internal.attachment_trigger AS
SELECT a.application, a.product, a.part, a.relation, w.name, t.tgenabled AS enabled,
       CASE WHEN t.oid IS NULL
            THEN format('CREATE TRIGGER %I ' || w.definition || ' EXECUTE FUNCTION session_admin.capture()',
                        w.name, a.relation) END AS make,
       CASE WHEN coalesce(t.tgenabled, 'O') <> w.enabled
            THEN format('ALTER TABLE %s ENABLE %s TRIGGER %I', a.relation,
                        CASE w.enabled WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' END, w.name)
            END AS enable
FROM session_admin_internal.attachment a
JOIN session_admin_internal.capture_trigger w ON a.part = ANY (w.parts)
    -- of sessions without a user there is nothing to follow
    AND (a.part <> 'session' OR EXISTS (
        SELECT FROM session_admin_internal.attachment_column c
        WHERE c.application = a.application AND c.product = a.product AND c.part = a.part
          AND c.role IN ('user_name', 'user_key')))
LEFT JOIN pg_trigger t
    ON t.tgrelid = a.relation AND t.tgname = w.name AND t.tgfoid = 'session_admin.capture'::regproc;
COMMENT ON VIEW session_admin_internal.attachment_trigger IS
'the triggers of each attached table, and the statements that make and enable what is missing';

CREATE FUNCTION session_admin.verify_attachments()
RETURNS TABLE (application text, product text, part text, object text, status text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off
BEGIN ATOMIC
    WITH attached AS (
        SELECT a.*, c.oid IS NOT NULL AS there
        FROM session_admin_internal.attachment a
        LEFT JOIN pg_class c ON c.oid = a.relation
    ), failed AS (
        SELECT f.application, f.relation, count(*) AS n
        FROM session_admin_internal.capture_failure f
        WHERE f.acknowledged_by IS NULL
        GROUP BY f.application, f.relation
    )
    SELECT a.application, a.product, a.part, a.table_name,
           CASE WHEN NOT EXISTS (SELECT FROM session_admin_internal.attachment_column c
                                 WHERE c.application = a.application AND c.product = a.product AND c.part = a.part)
                THEN 'none of its columns is known: attach_application() finds them again'
                WHEN NOT a.there THEN 'the table is gone: attach_application() if there is a new one, or detach_application()'
                WHEN a.relation::text <> a.table_name
                THEN format('the table is now %s: attach_application() if there is a new one', a.relation)
                WHEN f.n IS NOT NULL
                THEN format('changes not understood: %s; see capture_failures, then acknowledge_failures()', f.n)
                ELSE 'ok' END
    FROM attached a
    LEFT JOIN failed f ON f.application = a.application AND f.relation = a.relation::text
    UNION ALL
    SELECT DISTINCT c.application, c.product, c.part, 'columns',
           'no table is known: attach_application() finds it again, detach_application() forgets them'
    FROM session_admin_internal.attachment_column c
    WHERE NOT EXISTS (SELECT FROM session_admin_internal.attachment a
                      WHERE a.application = c.application AND a.product = c.product AND a.part = c.part)
    UNION ALL
    SELECT DISTINCT NULL, NULL, NULL, t.tgrelid::regclass::text,
           'the table is watched, but nothing says as what: attach_application() finds it again'
    FROM pg_trigger t
    WHERE t.tgfoid = 'session_admin.capture'::regproc
      AND NOT EXISTS (SELECT FROM session_admin_internal.attachment a WHERE a.relation = t.tgrelid)
    UNION ALL
    SELECT a.application, a.product, a.part, format('%s.%I', a.table_name, c.column_name),
           CASE WHEN t.attname IS NULL
                THEN format('the column is gone (%s): attach_application() tells what is seen without it', c.role)
                ELSE coalesce(session_admin_internal.refused_type(c.role, t.atttypid, c.path), 'ok') END
    FROM attached a
    JOIN session_admin_internal.attachment_column c USING (application, product, part)
    LEFT JOIN pg_attribute t
        ON t.attrelid = a.relation AND t.attname = c.column_name AND t.attnum > 0 AND NOT t.attisdropped
    WHERE a.there
      AND (a.part <> 'attribute' OR c.role IN ('user_name', 'user_key', 'attribute_name', 'attribute_value'))
    UNION ALL
    SELECT a.application, a.product, a.part, format('trigger %I on %s', t.name, a.table_name),
           CASE WHEN t.make IS NOT NULL THEN 'the trigger is missing: attach_application() makes it'
                WHEN t.enabled = 'D' THEN 'the trigger is disabled: attach_application() enables it'
                WHEN t.enable IS NOT NULL THEN 'the trigger does not fire where it should: attach_application() enables it'
                ELSE 'ok' END
    FROM attached a
    JOIN session_admin_internal.attachment_trigger t USING (application, product, part)
    WHERE a.there
    ORDER BY 1, 2, 3, 4;
END;
COMMENT ON FUNCTION session_admin.verify_attachments() IS
'returns each watched table, column and trigger with its status: ok, or what is broken and what to do';
COMMENT ON COLUMN session_admin.capture_failures.user_names IS
'null: everybody';

CREATE FUNCTION session_admin.attach_application(
    product text, in_schema text DEFAULT 'public', application text DEFAULT NULL)
RETURNS TABLE (part text, object text, state text, note text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_attach_application';
COMMENT ON FUNCTION session_admin.attach_application(text, text, text) IS
'starts watching a product''s own tables in a schema; returns a row for each part and column, with what was found and what these tables cannot tell; error 42P01 if the tables, 3F000 if the schema do not exist';

CREATE FUNCTION session_admin.detach_application(
    product text DEFAULT NULL, in_schema text DEFAULT NULL, application text DEFAULT NULL)
RETURNS TABLE (part text, object text, state text, note text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_detach_application';
COMMENT ON FUNCTION session_admin.detach_application(text, text, text) IS
'stops watching tables and removes the triggers from them; null stands for any product and any schema; returns a row for each; error PT404 if none is attached';
