--
-- The library's own SHA-256 is that of PostgreSQL
--
BEGIN;
SELECT plan(2);

SELECT is_empty($$
    SELECT n FROM generate_series(1, 300) n
    WHERE session_admin.session_ref(repeat('x', n))
        <> left(encode(sha256(repeat('x', n)::bytea), 'hex'), 12)
$$, 'ids of 1 to 300 bytes');

SELECT is_empty($$
    SELECT id FROM (SELECT repeat(md5(n::text), n) FROM generate_series(1, 200) n) AS long(id)
    WHERE session_admin.session_ref(id) <> left(encode(sha256(id::bytea), 'hex'), 12)
$$, 'ids of many blocks');

SELECT * FROM finish();
ROLLBACK;
