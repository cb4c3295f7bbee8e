\set number :number + 1
\set user :number * :clients + :client_id
SELECT invalidation_id FROM session_admin.invalidate_user('user' || :user::text);
