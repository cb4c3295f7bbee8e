/*
 * Products of one's own
 *
 * describe_product takes a description as JSON, which these two functions take
 * apart, with the first thing that is wrong with each part and column of it.
 */

CREATE FUNCTION session_admin_internal.json_names(value jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT array_agg(n.name #>> '{}' ORDER BY n.n)
    FROM jsonb_array_elements(CASE jsonb_typeof(value)
                              WHEN 'array' THEN value
                              WHEN 'string' THEN jsonb_build_array(value) ELSE '[]' END)
        WITH ORDINALITY AS n (name, n)
    HAVING bool_and(jsonb_typeof(n.name) = 'string' AND n.name #>> '{}' <> '');
END;
COMMENT ON FUNCTION session_admin_internal.json_names(jsonb) IS
'a name, or an array of names; null if it is neither';

CREATE FUNCTION session_admin_internal.described_parts(parts jsonb)
RETURNS TABLE (part text, relations text[], key_of text, required boolean, ends text, clear_to text,
               problem text, hint text)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH described AS MATERIALIZED (
        SELECT p.part, p.d, session_admin_internal.json_names(p.d -> 'tables') AS relations,
               CASE WHEN jsonb_typeof(p.d -> 'columns') = 'object' THEN p.d -> 'columns' ELSE '{}' END AS columns
        FROM jsonb_each(CASE WHEN jsonb_typeof(parts) = 'object' THEN parts ELSE '{}' END) AS p (part, d)
    )
    SELECT d.part, d.relations, d.d ->> 'key_of', d.d -> 'required' IS DISTINCT FROM 'false',
           d.d ->> 'ends', d.d ->> 'clear_to', w.problem, w.hint
    FROM described d
    CROSS JOIN LATERAL (SELECT
        (SELECT string_agg(DISTINCT r.part, ', ') FROM session_admin.product_role r) AS known,
        (SELECT min(k.key) FROM jsonb_object_keys(CASE WHEN jsonb_typeof(d.d) = 'object' THEN d.d ELSE '{}' END) AS k (key)
         WHERE k.key NOT IN ('tables', 'columns', 'key_of', 'required', 'ends', 'clear_to')) AS unknown_key,
        (SELECT min(r.role) FROM session_admin.product_role r
         WHERE r.part = d.part AND r.needed AND NOT d.columns ? r.role) AS missing,
        (SELECT min(o.part) FROM described o
         WHERE o.part NOT IN ('session', 'remember_me') AND o.relations && d.relations) AS users) k
    LEFT JOIN LATERAL (
        SELECT v.problem, v.hint
        FROM (VALUES
            (1, NOT EXISTS (SELECT FROM session_admin.product_role r WHERE r.part = d.part),
             format('unknown part "%s"', left(d.part, 63)), format('Parts are %s.', k.known)),
            (2, k.unknown_key IS NOT NULL,
             format('unknown key "%s" in part "%s"', left(k.unknown_key, 63), d.part),
             'A part has "tables", "columns", and may have "key_of", "required", "ends" and "clear_to".'),
            (3, d.relations IS NULL,
             format('part "%s" does not name its table', d.part),
             '"tables" is a name, or an array of names that the table may have.'),
            (4, d.columns = '{}',
             format('part "%s" does not name its columns', d.part),
             '"columns" is an object of roles, each with the name of its column.'),
            (5, k.missing IS NOT NULL,
             format('part "%s" has no column for role "%s"', d.part, k.missing),
             'See table session_admin.product_role for the roles of each part.'),
            (6, d.part <> 'session' AND NOT d.columns ?| '{user_name,user_key}',
             format('part "%s" has no column for role "user_name" or "user_key"', d.part),
             'A user_key is the key of the user in another part, which key_of names.'),
            (7, (d.columns ? 'user_key' OR d.d ? 'key_of')
                AND NOT (d.columns ? 'user_key' AND d.d ->> 'key_of' <> d.part
                         AND coalesce(parts -> (d.d ->> 'key_of') -> 'columns' ? 'key', false)),
             format('part "%s" needs both a column for role "user_key" and key_of, a part with role "key"', d.part),
             'Or name the user by role "user_name".'),
            (8, jsonb_typeof(d.d -> 'required') <> 'boolean',
             format('"required" of part "%s" must be true or false', d.part), NULL),
            (9, d.d ?| '{ends,clear_to}' AND d.part NOT IN ('session', 'remember_me'),
             format('nothing ends in part "%s"', d.part), '"ends" is for parts session and remember_me.'),
            (10, d.d ? 'ends' AND (d.d ->> 'ends' IN ('delete', 'clear')) IS NOT TRUE,
             format('"ends" of part "%s" must be "delete" or "clear"', d.part),
             'A row is deleted, or its column of role "secret" is set to "clear_to".'),
            (11, d.d ? 'clear_to' AND (d.d ->> 'ends' IS DISTINCT FROM 'clear'
                                       OR jsonb_typeof(d.d -> 'clear_to') NOT IN ('string', 'null')),
             format('"clear_to" of part "%s" must be a string, with "ends": "clear"', d.part), NULL),
            (12, d.d ->> 'ends' = 'clear' AND NOT d.columns ? 'secret',
             format('part "%s" has no column for role "secret", which could be cleared', d.part), NULL),
            (13, d.part IN ('session', 'remember_me') AND d.d ->> 'ends' IS DISTINCT FROM 'clear'
                 AND k.users IS NOT NULL,
             format('part "%s" would delete rows of part "%s"', d.part, k.users),
             'With "ends": "clear", a token in a table of users is set to null, or to "clear_to".'))
            AS v (n, is_so, problem, hint)
        WHERE v.is_so ORDER BY v.n LIMIT 1) w ON true;
END;
COMMENT ON FUNCTION session_admin_internal.described_parts(jsonb) IS
'the parts of a description, and what is wrong with them';

CREATE FUNCTION session_admin_internal.described_columns(parts jsonb)
RETURNS TABLE (part text, role text, columns text[], required boolean, reading text,
               path text[], excludes text[], problem text, hint text)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH described AS MATERIALIZED (
        SELECT p.part, c.role,
               CASE WHEN jsonb_typeof(c.d) = 'object' THEN c.d
                    ELSE jsonb_build_object('column', c.d) END AS d
        FROM jsonb_each(CASE WHEN jsonb_typeof(parts) = 'object' THEN parts ELSE '{}' END) AS p (part, d)
        CROSS JOIN jsonb_each(CASE WHEN jsonb_typeof(p.d -> 'columns') = 'object'
                              THEN p.d -> 'columns' ELSE '{}' END) AS c (role, d)
    ), read AS MATERIALIZED (
        SELECT d.part, d.role, d.d, r.readings,
               session_admin_internal.json_names(d.d -> 'column') AS columns,
               session_admin_internal.json_names(d.d -> 'path') AS path,
               session_admin_internal.json_names(d.d -> 'excludes') AS excludes,
               (SELECT session_admin_internal.json_names(s.d -> 'column') FROM described s
                WHERE s.part = d.part AND s.role = 'secret') AS secrets,
               (SELECT string_agg(r.role, ', ' ORDER BY r.role) FROM session_admin.product_role r
                WHERE r.part = d.part) AS known,
               (SELECT min(k.key) FROM jsonb_object_keys(d.d) AS k (key)
                WHERE k.key NOT IN ('column', 'path', 'reading', 'excludes', 'required')) AS unknown_key
        FROM described d
        LEFT JOIN session_admin.product_role r ON r.part = d.part AND r.role = d.role
    )
    SELECT r.part, r.role, r.columns, r.d -> 'required' IS DISTINCT FROM 'false', r.d ->> 'reading',
           r.path, r.excludes, w.problem, w.hint
    FROM read r
    LEFT JOIN LATERAL (
        SELECT v.problem, v.hint
        FROM (VALUES
            (1, r.readings IS NULL,
             format('part "%s" has no role "%s"', r.part, left(r.role, 63)),
             format('Roles of part "%s" are %s.', r.part, r.known)),
            (2, r.unknown_key IS NOT NULL,
             format('unknown key "%s" in role "%s"', left(r.unknown_key, 63), r.role),
             'A role has "column", and may have "path", "reading", "excludes" and "required".'),
            (3, r.columns IS NULL,
             format('role "%s" of part "%s" does not name its column', r.role, r.part),
             'It is a name, or an array of names that the column may have, or an object with them in "column".'),
            (4, r.d -> 'path' IS NOT NULL AND r.path IS NULL,
             format('"path" of role "%s" must be an array of names', r.role),
             'For sess->''passport''->>''user'', it is ["passport", "user"].'),
            (5, r.d -> 'excludes' IS NOT NULL AND r.excludes IS NULL,
             format('"excludes" of role "%s" must be an array of values', r.role), NULL),
            (6, r.d -> 'reading' IS NOT NULL AND (r.d ->> 'reading' = ANY (r.readings)) IS NOT TRUE,
             format('role "%s" cannot be read as "%s"', r.role, left(r.d ->> 'reading', 63)),
             CASE WHEN r.readings <> '{}'
                  THEN format('It can be read as: %s.', array_to_string(r.readings, ', ')) END),
            (7, jsonb_typeof(r.d -> 'required') <> 'boolean',
             format('"required" of role "%s" must be true or false', r.role), NULL),
            (8, r.path IS NOT NULL AND (r.role IN ('secret', 'key') OR r.role ~ '_at$' OR r.excludes IS NOT NULL),
             format('role "%s" of part "%s" cannot be within JSON', r.role, r.part), NULL),
            (9, r.role <> 'secret' AND r.part IN ('session', 'remember_me') AND r.path IS NULL
                AND r.columns && r.secrets,
             format('role "%s" must not be the column of role "secret"', r.role),
             'Of a secret only the hash is kept.'))
            AS v (n, is_so, problem, hint)
        WHERE v.is_so ORDER BY v.n LIMIT 1) w ON true;
END;
COMMENT ON FUNCTION session_admin_internal.described_columns(jsonb) IS
'the columns of a description, and what is wrong with them';

CREATE FUNCTION session_admin.describe_product(
    product text, parts jsonb, title text DEFAULT NULL, notes text[] DEFAULT '{}',
    alias_pattern text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_describe_product';
COMMENT ON FUNCTION session_admin.describe_product(text, jsonb, text, text[], text) IS
'describes a product of your own, or describes it anew; parts is {part: {"tables": name, "columns": {role: name}}}; error 22023 says what is wrong in it';

CREATE FUNCTION session_admin.forget_product(product text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_forget_product';
COMMENT ON FUNCTION session_admin.forget_product(text) IS
'deletes the description of a product of your own; returns false if there is none; error 55000 while its tables are attached';

CREATE FUNCTION session_admin.detect_product(in_schema text DEFAULT 'public')
RETURNS TABLE (product text, title text, matched text[], missing text[])
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off
BEGIN ATOMIC
    WITH schema AS MATERIALIZED (
        SELECT quote_ident(in_schema)::regnamespace::oid AS oid
    ), matched AS MATERIALIZED (
        SELECT p.product, p.title, m.part, m.relation_name, m.column_name, m.role, m.state, m.note
        FROM session_admin_internal.product p
        CROSS JOIN LATERAL session_admin_internal.match_product(p.product, in_schema) m
        -- names of attributes are found in no catalog
        WHERE m.note <> 'attribute'
    ), part AS (
        SELECT m.product, m.title, m.part, m.relation_name,
               count(*) FILTER (WHERE m.state = 'attached') AS found, count(*) AS sought,
               string_agg(m.column_name, ', ' ORDER BY m.column_name) FILTER (WHERE m.state = 'attached') AS columns,
               array_agg(format('%s: %s', m.relation_name, m.note) ORDER BY m.role)
                   FILTER (WHERE m.state <> 'attached') AS missing,
               bool_or(m.role IS NULL AND m.state <> 'attached') AS is_missing,
               bool_or(m.state = 'required') AS is_another
        FROM matched m
        GROUP BY m.product, m.title, m.part, m.relation_name
    ), summary AS (
        SELECT p.product, p.title, sum(p.found) / sum(p.sought) AS share,
               array_agg(format('%s (%s)', p.relation_name, p.columns) ORDER BY p.part)
                   FILTER (WHERE p.columns IS NOT NULL) AS matched,
               bool_and(NOT p.is_missing) AS complete,
               ARRAY(SELECT unnest(q.missing) FROM part q WHERE q.product = p.product ORDER BY q.part) AS missing
        FROM part p
        GROUP BY p.product, p.title
        HAVING NOT bool_or(p.is_another)
    ), mark AS (
        SELECT k.product, bool_or(EXISTS (
                   SELECT FROM pg_class c
                   WHERE c.relnamespace = schema.oid AND c.relkind IN ('r', 'p')
                     AND (SELECT count(*) FROM pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attname = ANY (k.columns) AND NOT a.attisdropped)
                         = cardinality(k.columns))) AS found
        FROM session_admin_internal.product_mark k CROSS JOIN schema
        GROUP BY k.product
    )
    SELECT s.product, s.title, s.matched, s.missing
    FROM schema CROSS JOIN summary s
    LEFT JOIN mark ON mark.product = s.product
    WHERE schema.oid IS NOT NULL AND s.matched IS NOT NULL AND coalesce(mark.found, s.complete)
    ORDER BY s.share DESC, s.product;
END;
COMMENT ON FUNCTION session_admin.detect_product(text) IS
'returns the products that the tables of a schema may belong to, judged by their columns, the most likely first';
