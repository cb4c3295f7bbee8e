\set n random(1, :sessions)
SELECT session_admin.touch_session(bench.hash(:n));
