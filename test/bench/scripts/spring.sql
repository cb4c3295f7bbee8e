\set id random(1000000000000000001, 1000000000000000000 + :sessions)
\set now 1800000000000 + random(0, 1000000000)
SELECT s.primary_id, s.session_id, s.creation_time, s.last_access_time, s.max_inactive_interval, sa.attribute_name, sa.attribute_bytes FROM spring.spring_session s LEFT JOIN spring.spring_session_attributes sa ON s.primary_id = sa.session_primary_id WHERE s.session_id = :id::bpchar;
UPDATE spring.spring_session SET session_id = :id::bpchar, last_access_time = :now::bigint, max_inactive_interval = 1800, expiry_time = :now::bigint + 1800000, principal_name = 'user1' WHERE primary_id = :id::bpchar;
