/*
 * Products
 *
 * What the tables of a product mean is data.  A product has parts; a part is one
 * of the product's tables, known by its columns, and a column plays a role:
 *
 *   account      who may log in: user_name, credential, active ...
 *   identity     how a key of the product becomes the name of a user
 *   attribute    one name and value a row, of a user
 *   login        counts and times of logins, one row a user
 *   remember_me  the product's own remember-me tokens
 *   session      the product's own sessions: secret is the session id, key another
 *                column that tells rows apart and stays when the id changes, created_at,
 *                used_at, expires_at, idle_timeout (a number of seconds or milliseconds)
 *
 * A part names its user by role user_name, or by role user_key, which holds the
 * key of another part (key_of).  In part attribute all roles but those of the
 * three columns are names of attributes.  Role realm is of a column that only tells
 * which rows are left alone.
 *
 * No table refers to another by a foreign key: pg_restore -j fills them in any order.
 * The functions keep them together, and verify_attachments() tells what is not.
 */

CREATE TABLE session_admin.product_role (
    part            text COLLATE "C",
    role            text COLLATE "C",
    -- a part cannot do without
    needed          boolean NOT NULL,
    -- as product_column.reading
    readings        text[] NOT NULL,
    meaning         text NOT NULL,
    PRIMARY KEY (part, role)
);
COMMENT ON TABLE session_admin.product_role IS
'roles that the columns of a part can play';

INSERT INTO session_admin.product_role
SELECT p.part, r.role, p.part = ANY (r.needed_by::text[]), r.readings::text[], r.meaning
FROM (VALUES
    ('{account,identity,attribute,login,remember_me,session}', 'user_name', '{account,identity}',
     '{any case}', 'the name of the user'),
    ('{attribute,login,remember_me,session}', 'user_key', '{}',
     '{key,key or name}', 'the key of the user, as it is in part key_of'),
    ('{account,identity,session}', 'key', '{identity}',
     '{}', 'what other parts refer to; of a session, what stays when its id changes'),
    ('{account,identity}', 'other_name', '{}', '{}', 'another spelling of the name'),
    ('{account,identity}', 'credential', '{}', '{}', 'the password, or a hash of it'),
    ('{account,identity}', 'active', '{}', '{}', 'whether the user may log in'),
    ('{account,identity}', 'locked_at', '{}', '{}', 'null, or since when the user may not'),
    ('{account,identity}', 'deleted_at', '{}', '{}', 'null, or since when the user is gone'),
    ('{account,attribute,login}', 'last_login_at', '{}', '{ms,s,local,utc}', 'time of the last login'),
    ('{account,attribute,login}', 'previous_login_at', '{}', '{ms,s,local,utc}', 'time of the one before'),
    ('{account,attribute,login}', 'last_failed_login_at', '{}', '{ms,s,local,utc}', 'time of the last one that failed'),
    ('{account,attribute,login}', 'last_seen_at', '{}', '{ms,s,local,utc}', 'time of the last use'),
    ('{account,attribute,login}', 'login_count', '{}', '{}', 'number of logins'),
    ('{account,attribute,login}', 'current_failed_count', '{}', '{}', 'failed logins since the last one that did not'),
    ('{account,attribute,login}', 'total_failed_count', '{}', '{}', 'failed logins ever'),
    ('{account,attribute,login}', 'last_login_address', '{}', '{}', 'where it came from, of type inet'),
    ('{attribute}', 'attribute_name', '{attribute}', '{}', 'the name of the attribute'),
    ('{attribute}', 'attribute_value', '{attribute}', '{}', 'its value'),
    ('{remember_me,session}', 'secret', '{session}', '{}', 'the token, or the session id'),
    ('{remember_me}', 'series', '{}', '{}', 'what stays when the token changes'),
    ('{remember_me,session}', 'created_at', '{}', '{ms,s,local,utc}', 'when it was made'),
    ('{remember_me,session}', 'used_at', '{}', '{ms,s,local,utc}', 'when it was last used'),
    ('{session}', 'expires_at', '{}', '{ms,s,local,utc}', 'when it ends'),
    ('{session}', 'idle_timeout', '{}', '{ms,s}', 'how long it lives without a use'),
    ('{account,identity,attribute,login,remember_me,session}', 'realm', '{}',
     '{}', 'tells which rows are left alone, see excludes'))
    AS r (parts, role, needed_by, readings, meaning)
CROSS JOIN unnest(r.parts::text[]) AS p (part);

CREATE TABLE session_admin_internal.product (
    product         text COLLATE "C" PRIMARY KEY,
    title           text NOT NULL,
    -- the name that a user gets who is anonymized, a regular expression
    alias_pattern   text,
    -- what no table of the product tells
    notes           text[] NOT NULL DEFAULT '{}',
    built_in        boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE session_admin_internal.product IS
'products whose own tables attach_application can watch';

CREATE TABLE session_admin_internal.product_part (
    product         text COLLATE "C" NOT NULL,
    part            text COLLATE "C" NOT NULL
                    CHECK (part IN ('account', 'identity', 'attribute', 'login', 'remember_me', 'session')),
    -- names that the table may have, the likeliest first
    relations       text[] NOT NULL,
    -- another part of the product
    key_of          text COLLATE "C",
    required        boolean NOT NULL DEFAULT false,
    -- what is not seen if there is no such table
    unseen          text,
    -- of a session or token: its row is deleted, or role secret cleared, to this value; null:
    -- nobody said, it is deleted where that cannot be a row of users
    ends            text CHECK (ends IN ('delete', 'clear')),
    clear_to        text,
    PRIMARY KEY (product, part)
);
COMMENT ON TABLE session_admin_internal.product_part IS
'which table of a product plays which part';

CREATE TABLE session_admin_internal.product_column (
    product         text COLLATE "C" NOT NULL,
    part            text COLLATE "C" NOT NULL,
    role            text COLLATE "C" NOT NULL,
    -- names that the column (or the attribute) may have, the likeliest first
    columns         text[] NOT NULL,
    required        boolean NOT NULL DEFAULT false,
    -- numbers: ms (the default) or s since 1970; times without zone: local (the default) or utc;
    -- user_key: key (the default) or "key or name"; user_name: as it is or "any case"
    reading         text CHECK (reading IN ('ms', 's', 'local', 'utc', 'key', 'key or name', 'any case')),
    -- within JSON: sess->'passport'->>'user' is {passport,user}
    path            text[],
    -- rows with one of these values are left alone
    excludes        text[],
    -- what is not seen if there is no such column
    unseen          text,
    PRIMARY KEY (product, part, role),
    -- of the extension's own, which no dump brings
    FOREIGN KEY (part, role) REFERENCES session_admin.product_role
);
COMMENT ON TABLE session_admin_internal.product_column IS
'which column of a product''s table plays which role';

CREATE TABLE session_admin_internal.product_mark (
    product         text COLLATE "C",
    columns         text[],
    PRIMARY KEY (product, columns)
);
COMMENT ON TABLE session_admin_internal.product_mark IS
'columns that only this product has in one table; without any, all parts of a product tell it from others';

CREATE TABLE session_admin_internal.attachment (
    application     text COLLATE "C" NOT NULL,
    product         text COLLATE "C" NOT NULL,
    part            text COLLATE "C" NOT NULL,
    relation        regclass NOT NULL,
    -- its name at that time
    table_name      text NOT NULL,
    key_of          text COLLATE "C",
    alias_pattern   text,
    -- as product_part.ends, decided
    ends            text CHECK (ends IN ('delete', 'clear')),
    clear_to        text,
    attached_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    attached_by     text NOT NULL DEFAULT session_user,
    PRIMARY KEY (application, product, part)
);
CREATE INDEX attachment_relation_idx ON session_admin_internal.attachment (relation);
COMMENT ON TABLE session_admin_internal.attachment IS
'tables of products that are watched';

CREATE TABLE session_admin_internal.attachment_column (
    application     text COLLATE "C" NOT NULL,
    product         text COLLATE "C" NOT NULL,
    part            text COLLATE "C" NOT NULL,
    role            text COLLATE "C" NOT NULL,
    column_name     text COLLATE "C" NOT NULL,
    reading         text,
    path            text[],
    excludes        text[],
    PRIMARY KEY (application, product, part, role, column_name)
);
COMMENT ON TABLE session_admin_internal.attachment_column IS
'columns (and attributes) of them, with the role that each plays';

-- A copy, as the product's own row may be gone when the name is needed: in a
-- cascade, after a deletion, half way through anonymizing.
CREATE TABLE session_admin_internal.account_key (
    application     text COLLATE "C" NOT NULL,
    product         text COLLATE "C" NOT NULL,
    part            text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    user_name       text COLLATE "C" NOT NULL,
    gone_at         timestamptz,
    -- what the product has told last, and which counts it keeps by itself
    last_login_at           timestamptz,
    last_failed_login_at    timestamptz,
    counted                 text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (key, application, product, part)
);
CREATE INDEX account_key_user_name_idx ON session_admin_internal.account_key (user_name, application);
CREATE INDEX account_key_gone_idx ON session_admin_internal.account_key (gone_at) WHERE gone_at IS NOT NULL;
COMMENT ON TABLE session_admin_internal.account_key IS
'the user behind each key of a product, and the last login that was told of the key';

CREATE TABLE session_admin_internal.capture_failure (
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    application     text COLLATE "C",
    relation        text NOT NULL,
    event           text NOT NULL,
    message         text NOT NULL,
    -- who was logged out, as nobody knows what happened to them; null: everybody
    user_names      text[],
    acknowledged_by text
);
CREATE INDEX capture_failure_at_idx ON session_admin_internal.capture_failure (at);
COMMENT ON TABLE session_admin_internal.capture_failure IS
'changes of products'' tables that were not understood; whom they may have concerned was logged out';

SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.product', 'WHERE NOT built_in');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.product_part',
    'WHERE product IN (SELECT product FROM session_admin_internal.product WHERE NOT built_in)');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.product_column',
    'WHERE product IN (SELECT product FROM session_admin_internal.product WHERE NOT built_in)');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.product_mark',
    'WHERE product IN (SELECT product FROM session_admin_internal.product WHERE NOT built_in)');
-- Of a table that is gone there would be a number, which is another table's in the new place.
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.attachment',
    'WHERE relation IN (SELECT oid FROM pg_catalog.pg_class)');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.attachment_column', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.account_key', '');
SELECT pg_catalog.pg_extension_config_dump('session_admin_internal.capture_failure', '');

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

CREATE FUNCTION session_admin.capture() RETURNS trigger
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_capture';
COMMENT ON FUNCTION session_admin.capture() IS
'trigger on products'' tables, made by attach_application';

CREATE FUNCTION session_admin.attach_application(
    product text, in_schema text DEFAULT 'public', application text DEFAULT NULL)
RETURNS TABLE (part text, object text, state text, note text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_attach_application';
COMMENT ON FUNCTION session_admin.attach_application(text, text, text) IS
'watches a product''s own tables from now on, and reports what was found, and what these tables cannot tell';

CREATE FUNCTION session_admin.detach_application(
    product text DEFAULT NULL, in_schema text DEFAULT NULL, application text DEFAULT NULL)
RETURNS TABLE (part text, object text, state text, note text)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_detach_application';
COMMENT ON FUNCTION session_admin.detach_application(text, text, text) IS
'watches them no longer and leaves nothing in the product''s schema; null is any product, and any schema';
