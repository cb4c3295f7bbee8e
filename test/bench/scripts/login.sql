\set id random(1, 1000000000000000000)
\set user random(1, :sessions / 2)
SELECT session_admin.open_session(:id::text, 'user' || :user::text, '192.0.2.1', NULL, 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0');
SELECT session_admin.close_session(:id::text);
