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
'roles that the columns of a part can play in a description of a product';
COMMENT ON COLUMN session_admin.product_role.part IS
'part of a product: account, identity, attribute, login, remember_me or session';
COMMENT ON COLUMN session_admin.product_role.role IS
'role of a column';
COMMENT ON COLUMN session_admin.product_role.needed IS
'whether the part cannot do without it';
COMMENT ON COLUMN session_admin.product_role.readings IS
'ways in which its values can be read, see describe_product';
COMMENT ON COLUMN session_admin.product_role.meaning IS
'what the column holds';

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
