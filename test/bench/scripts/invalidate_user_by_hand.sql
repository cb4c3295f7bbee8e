\set number :number + 1
\set user :number * :clients + :client_id
BEGIN;
DELETE FROM by_hand.session WHERE user_name = 'user' || :user::text AND application = 'default';
DELETE FROM by_hand.remember_me_token WHERE user_name = 'user' || :user::text AND application = 'default';
SELECT pg_notify('by_hand', :user::text);
COMMIT;
