/*
 * Products: how their tables are found in a schema
 */

-- A type that is not PostgreSQL's own could run its functions with our rights.
CREATE FUNCTION session_admin_internal.refused_type(role text, type oid, path text[]) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN type >= 16384
            THEN format('type %s is not one of PostgreSQL''s own', format_type(type, NULL))
            WHEN path IS NOT NULL AND type <> ALL ('{json,jsonb,text,varchar}'::regtype[])
            THEN format('type %s is not read as JSON', format_type(type, NULL))
            WHEN role ~ '_at$' AND role NOT IN ('locked_at', 'deleted_at') AND path IS NULL
                 AND type <> ALL ('{timestamptz,timestamp,int4,int8,numeric,text,varchar,bpchar}'::regtype[])
            THEN format('type %s is not read as a time', format_type(type, NULL))
            WHEN role = 'idle_timeout' AND path IS NULL
                 AND type <> ALL ('{int2,int4,int8,numeric}'::regtype[])
            THEN format('type %s is not read as a number', format_type(type, NULL)) END;
COMMENT ON FUNCTION session_admin_internal.refused_type(text, oid, text[]) IS
'why a column of this type cannot play this role, null if it can';

CREATE FUNCTION session_admin_internal.match_product(product text, in_schema text)
RETURNS TABLE (part text, relation oid, relation_name text, role text, column_name text,
               reading text, key_of text, state text, note text, path text[], excludes text[])
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    -- each table that has one of the names, with why it cannot be watched
    WITH candidate AS MATERIALIZED (
        SELECT p.part, r.n, c.oid, c.relname,
               CASE WHEN c.relkind = 'p' OR c.relispartition
                    THEN 'is partitioned: changes of a partition would not be seen'
                    WHEN c.relkind <> 'r' THEN 'is not a table'
                    WHEN c.relpersistence = 't' THEN 'is temporary'
                    WHEN EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
                    THEN 'inherits: changes of a parent or child would not be seen'
               END AS refused
        FROM session_admin_internal.product_part p
        CROSS JOIN unnest(p.relations) WITH ORDINALITY AS r (name, n)
        JOIN pg_class c ON c.relname = r.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        JOIN pg_namespace s ON s.oid = c.relnamespace AND s.nspname = match_product.in_schema
        WHERE p.product = match_product.product
    -- each role with the first of the columns that can play it
    ), matched AS MATERIALIZED (
        SELECT c.part, c.n, c.oid, d.role, d.required, d.columns, d.reading, d.path,
               d.excludes, d.unseen,
               a.attname,
               session_admin_internal.refused_type(d.role, a.atttypid, d.path) AS refused
        FROM candidate c
        JOIN session_admin_internal.product_column d ON d.product = match_product.product AND d.part = c.part
        LEFT JOIN LATERAL (
            SELECT a.attname, a.atttypid
            FROM unnest(d.columns) WITH ORDINALITY AS u (name, n)
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = u.name
                AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY u.n LIMIT 1) a ON true
        WHERE c.part <> 'attribute' OR d.role IN ('user_name', 'user_key', 'attribute_name', 'attribute_value')
    -- the first table that has all the columns a part cannot do without
    ), best AS MATERIALIZED (
        SELECT DISTINCT ON (c.part) c.part, c.oid, c.relname
        FROM candidate c
        WHERE c.refused IS NULL
          AND NOT EXISTS (SELECT FROM matched m
                          WHERE m.part = c.part AND m.oid = c.oid AND m.required
                            AND (m.attname IS NULL OR m.refused IS NOT NULL))
        ORDER BY c.part, c.n
    )
    SELECT m.part, b.oid, b.relname::text, m.role, m.attname::text, m.reading, NULL, 
           CASE WHEN m.attname IS NULL THEN 'missing' WHEN m.refused IS NOT NULL THEN 'refused'
                ELSE 'attached' END,
           concat_ws('; ', m.refused,
               CASE WHEN m.attname IS NULL THEN 'there is no column ' || array_to_string(m.columns, ' or ') END,
               CASE WHEN m.attname IS NULL OR m.refused IS NOT NULL THEN m.unseen END),
           m.path, m.excludes
    FROM best b JOIN matched m ON m.part = b.part AND m.oid = b.oid
    UNION ALL
    SELECT b.part, b.oid, b.relname::text, d.role, u.name, d.reading, NULL, 'attached', 'attribute',
           d.path, d.excludes
    FROM best b
    JOIN session_admin_internal.product_column d ON d.product = match_product.product AND d.part = b.part
    CROSS JOIN unnest(d.columns) AS u (name)
    WHERE b.part = 'attribute'
      AND d.role NOT IN ('user_name', 'user_key', 'attribute_name', 'attribute_value')
    UNION ALL
    SELECT p.part, b.oid, coalesce(b.relname::text, array_to_string(p.relations, ' or ')), NULL, NULL,
           NULL, p.key_of,
           CASE WHEN b.oid IS NOT NULL THEN 'attached' WHEN p.required THEN 'required' ELSE 'missing' END,
           CASE WHEN b.oid IS NOT NULL THEN ''
                ELSE concat_ws('; ', coalesce(
                    (SELECT string_agg(format('%s %s', c.relname, c.refused), '; ' ORDER BY c.n)
                     FROM candidate c WHERE c.part = p.part AND c.refused IS NOT NULL),
                    (SELECT string_agg(format('%s has no usable column %s', c.relname,
                                              array_to_string(m.columns, ' or ')),
                                       '; ' ORDER BY c.n, m.role)
                     FROM candidate c JOIN matched m USING (part, oid)
                     WHERE c.part = p.part AND m.required
                       AND (m.attname IS NULL OR m.refused IS NOT NULL)),
                    'there is no such table'), p.unseen) END,
           NULL, NULL
    FROM session_admin_internal.product_part p
    LEFT JOIN best b ON b.part = p.part
    WHERE p.product = match_product.product
    ORDER BY 1, 4 NULLS FIRST, 5;
END;
COMMENT ON FUNCTION session_admin_internal.match_product(text, text) IS
'which tables and columns of a schema play which part and role in the description of a product';

-- Rows of users are never deleted.
CREATE FUNCTION session_admin_internal.refused_ending(
    application text, product text, in_schema text, part text, relation oid,
    user_column text, secret_column text,
    OUT reason text, OUT ambiguous boolean)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH this AS MATERIALIZED (
        SELECT p.part IN ('session', 'remember_me') AND p.ends IS DISTINCT FROM 'clear' AS deletes,
               p.part NOT IN ('session', 'remember_me') AS of_users, p.ends IS NULL AS unsaid, c.relname
        FROM session_admin_internal.product_part p, pg_class c
        WHERE p.product = refused_ending.product AND p.part = refused_ending.part
          AND c.oid = refused_ending.relation
    ), single AS MATERIALIZED (
        SELECT pg_get_indexdef(i.indexrelid, 1, true) AS key
        FROM pg_index i
        WHERE i.indrelid = refused_ending.relation AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL
    )
    SELECT v.reason, v.ambiguous
    FROM this
    CROSS JOIN LATERAL (
        SELECT 1, false, (
            SELECT format('it is watched as part "%s" of product "%s" for application "%s"', a.part, a.product, a.application)
            FROM session_admin_internal.attachment a
            WHERE a.relation = refused_ending.relation
              AND (a.application, a.product) <> (refused_ending.application, refused_ending.product)
              AND CASE WHEN this.deletes THEN a.part NOT IN ('session', 'remember_me')
                       ELSE this.of_users AND a.ends = 'delete' END
            ORDER BY a.application, a.product, a.part LIMIT 1)
        UNION ALL
        SELECT 2, false, (
            SELECT format('it is part "%s" of product "%s"', m.part, q.product)
            FROM session_admin_internal.product q
            CROSS JOIN LATERAL session_admin_internal.match_product(q.product, refused_ending.in_schema) m
            WHERE this.deletes AND m.role IS NULL AND m.state = 'attached'
              AND m.relation = refused_ending.relation AND m.part IN ('account', 'identity')
            ORDER BY q.product LIMIT 1)
        UNION ALL
        SELECT 3, true, CASE
            WHEN NOT (this.deletes AND this.unsaid) THEN NULL
            WHEN EXISTS (SELECT FROM single s WHERE strpos(s.key, quote_ident(user_column)) > 0)
            THEN format('column "%s" is unique: each user has one row', user_column)
            WHEN EXISTS (SELECT FROM pg_attribute a
                         WHERE a.attrelid = refused_ending.relation AND a.attnum > 0 AND NOT a.attisdropped
                           AND a.attname ~* 'passw|pwd|passphrase')
            THEN 'it holds passwords'
            WHEN EXISTS (SELECT FROM session_admin_internal.product_part p
                         WHERE p.part = 'account' AND this.relname = ANY (p.relations))
            THEN 'products have their users in tables of this name'
            WHEN EXISTS (SELECT FROM pg_constraint k WHERE k.confrelid = refused_ending.relation)
                 AND NOT EXISTS (SELECT FROM single s WHERE s.key = quote_ident(secret_column))
            THEN 'other tables refer to its rows' END) AS v (n, ambiguous, reason)
    WHERE v.reason IS NOT NULL
    ORDER BY v.n LIMIT 1;
END;
COMMENT ON FUNCTION session_admin_internal.refused_ending(text, text, text, text, oid, text, text) IS
'why a table cannot play this part, as sessions or tokens end there by their row being deleted, and it holds users; null if it can';
