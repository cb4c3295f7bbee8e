\set id random(1000000000000000001, 1000000000000000000 + :sessions)
UPDATE by_hand.session SET last_access_at = now(), requests = requests + 1 WHERE session_id = :id::text;
