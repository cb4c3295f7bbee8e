\set id random(1000000000000000001, 1000000000000000000 + :sessions)
SELECT generation, created_at, last_access_at, user_name FROM by_hand.session WHERE session_id = :id::text;
