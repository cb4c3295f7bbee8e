\set n random(1, :sessions)
\set now 1800000000000 + random(0, 1000000000)
UPDATE spring_session SET session_id = :n::text::bpchar, last_access_time = :now::bigint, max_inactive_interval = 1800, expiry_time = :now::bigint + 1800000, principal_name = 'user' || :n WHERE primary_id = :n::text::bpchar;
