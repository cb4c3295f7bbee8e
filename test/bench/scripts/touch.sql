\set id random(1000000000000000001, 1000000000000000000 + :sessions)
SELECT session_admin.touch_session(:id::text);
