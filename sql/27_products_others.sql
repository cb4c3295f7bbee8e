/*
 * Other products
 *
 * What could not be confirmed is left out, or listed among several names; the
 * report of attach_application says what was found.
 */

INSERT INTO session_admin_internal.product (product, title, notes, built_in) VALUES
('confluence', 'Confluence Data Center and Server', ARRAY[
    'addresses and user agents of logins are not in these tables',
    'anonymizing is seen as a change of name'], true),
('bamboo', 'Bamboo Data Center and Server', ARRAY[
    'times of logins are not in these tables',
    'anonymizing is seen as a change of name'], true),
('bitbucket', 'Bitbucket Data Center and Server', ARRAY[
    'logins are not in these tables, only the last use, Git included',
    'anonymizing is seen as a change of name'], true),
('fecru', 'Fisheye and Crucible', ARRAY[
    'passwords are not in these tables: their changes are not seen',
    'there is no active flag: deactivation is not seen',
    'times of logins are not in these tables, only a count of failures'], true),
('crowd', 'Crowd', ARRAY[
    'addresses and user agents of logins are not in these tables',
    'how long a token of single sign-on lives is not in these tables: one that expires ends as a logout'], true),
('spring_security', 'Spring Security with its JDBC tables', ARRAY[
    'logins are not in these tables'], true),
('spring_session', 'Spring Session with its JDBC tables', ARRAY[
    'addresses and user agents of logins are not in these tables',
    'passwords, and who may log in, are not in these tables: attach those of the application, too'], true),
('connect_pg_simple', 'Express with connect-pg-simple', ARRAY[
    'addresses and user agents of logins are not in these tables',
    'there is no key beside the session id: ending a session reads the whole table, unless it has an index on (sha256(replace(sid, ''\'', ''\\'')::bytea))',
    'passwords, and who may log in, are not in these tables: attach those of the application, too'], true),
('django', 'Django', ARRAY[
    'whose session a row of django_session is cannot be seen, as its payload is signed and not read',
    'failed logins are not in these tables',
    'a password that is only hashed anew at a login counts as changed, as it does for Django'], true),
('devise', 'Rails with Devise', ARRAY[
    'whose session a row of sessions is cannot be seen, as its payload is Ruby''s own',
    'remember-me cookies are not in these tables'], true);

INSERT INTO session_admin_internal.product_part (product, part, relations, key_of, required, unseen) VALUES
('confluence', 'account', '{cwd_user}', NULL, true, NULL),
('confluence', 'identity', '{user_mapping}', NULL, false, 'whose logins they are is not known'),
('confluence', 'login', '{logininfo}', 'identity', false, 'logins and failed logins are not seen'),
('confluence', 'remember_me', '{remembermetoken}', 'identity', false,
 'remember-me rows are neither seen nor deleted'),
('bamboo', 'account', '{cwd_user,users}', NULL, true, NULL),
('bamboo', 'login', '{auth_attempt_info}', NULL, false, 'failed logins are not seen'),
('bamboo', 'remember_me', '{rememberme_token}', NULL, false,
 'remember-me rows are neither seen nor deleted'),
('bitbucket', 'account', '{cwd_user}', NULL, true, NULL),
('bitbucket', 'identity', '{sta_normal_user}', NULL, false, 'whose remember-me rows they are is not known'),
('bitbucket', 'attribute', '{cwd_user_attribute}', 'account', false, 'the last use is not seen'),
('bitbucket', 'remember_me', '{sta_remember_me_token}', 'identity', false,
 'remember-me rows are neither seen nor deleted'),
('fecru', 'account', '{cru_user}', NULL, true, NULL),
('fecru', 'remember_me', '{cru_login_cookie}', 'account', false,
 'remember-me rows are neither seen nor deleted'),
('crowd', 'account', '{cwd_user}', NULL, true, NULL),
('crowd', 'attribute', '{cwd_user_attribute}', 'account', false, 'logins are not seen'),
('crowd', 'remember_me', '{cwd_remember_me_token}', NULL, false,
 'remember-me rows are neither seen nor deleted'),
('spring_security', 'account', '{users}', NULL, false,
 'password changes, deletion and deactivation are not seen'),
('spring_security', 'remember_me', '{persistent_logins}', NULL, false,
 'remember-me rows are neither seen nor deleted'),
('django', 'account', '{auth_user}', NULL, true, NULL),
('django', 'session', '{django_session}', NULL, false, 'sessions are kept elsewhere: they are not deleted'),
('crowd', 'session', '{cwd_token}', NULL, false, 'sessions are neither seen nor deleted'),
('spring_session', 'session', '{spring_session}', NULL, true, NULL),
('connect_pg_simple', 'session', '{session,sessions,user_sessions,express_session,express_sessions}',
 NULL, true, NULL),
('devise', 'session', '{sessions}', NULL, false, 'sessions are kept elsewhere: they are not deleted'),
('devise', 'account', '{users,accounts,admins,members}', NULL, true, NULL);

-- Atlassian's directories of users look alike
INSERT INTO session_admin_internal.product_column (product, part, role, columns, required, reading, unseen)
SELECT p.product, 'account', c.*
FROM (VALUES ('confluence'), ('bamboo'), ('bitbucket'), ('crowd')) AS p (product)
CROSS JOIN (VALUES
    ('key', '{id}'::text[], true, NULL, NULL),
    ('user_name', '{lower_user_name,name}', true, NULL, NULL),
    ('other_name', '{user_name}', false, NULL, NULL),
    ('credential', '{credential,password}', false, NULL, 'password changes are not seen'),
    ('active', '{active,is_active}', false, NULL, 'deactivation is not seen'))
    AS c (role, columns, required, reading, unseen);

INSERT INTO session_admin_internal.product_column (product, part, role, columns, required, reading, unseen) VALUES
('confluence', 'identity', 'key', '{user_key}', true, NULL, NULL),
('confluence', 'identity', 'user_name', '{username}', true, 'any case', NULL),
('confluence', 'login', 'user_key', '{username}', true, NULL, NULL),
('confluence', 'login', 'last_login_at', '{successdate}', false, 'local', 'logins are not seen'),
('confluence', 'login', 'previous_login_at', '{prevsuccessdate}', false, 'local', NULL),
('confluence', 'login', 'last_failed_login_at', '{faileddate}', false, 'local', 'failed logins are not seen'),
('confluence', 'login', 'current_failed_count', '{curfailed}', false, NULL, NULL),
('confluence', 'login', 'total_failed_count', '{totalfailed}', false, NULL, NULL),
('confluence', 'remember_me', 'user_key', '{username}', true, 'key or name', NULL),
('confluence', 'remember_me', 'secret', '{token}', true, NULL, NULL),
('confluence', 'remember_me', 'created_at', '{created}', false, 'ms', NULL),

('bamboo', 'login', 'user_name', '{user_name,username}', true, 'any case', NULL),
('bamboo', 'login', 'current_failed_count', '{auth_count}', true, NULL, NULL),
('bamboo', 'remember_me', 'user_name', '{username,user_name}', true, 'any case', NULL),
('bamboo', 'remember_me', 'secret', '{token}', false, NULL, NULL),
('bamboo', 'remember_me', 'created_at', '{created,created_date}', false, 'ms', NULL),

('bitbucket', 'identity', 'key', '{user_id}', true, NULL, NULL),
('bitbucket', 'identity', 'user_name', '{name}', true, 'any case', NULL),
('bitbucket', 'identity', 'deleted_at', '{deleted_timestamp}', false, NULL, 'deletion is seen in cwd_user only'),
('bitbucket', 'attribute', 'user_key', '{user_id}', true, NULL, NULL),
('bitbucket', 'attribute', 'attribute_name', '{attribute_name}', true, NULL, NULL),
('bitbucket', 'attribute', 'attribute_value', '{attribute_value}', true, NULL, NULL),
('bitbucket', 'attribute', 'last_seen_at', '{lastAuthenticationTimestamp,lastAuthenticated}', false, 'ms', NULL),
('bitbucket', 'remember_me', 'user_key', '{user_id}', true, NULL, NULL),
('bitbucket', 'remember_me', 'series', '{series}', false, NULL, NULL),
('bitbucket', 'remember_me', 'secret', '{token}', true, NULL, NULL),

('fecru', 'account', 'key', '{cru_user_id}', true, NULL, NULL),
('fecru', 'account', 'user_name', '{cru_user_name}', true, NULL, NULL),
('fecru', 'account', 'current_failed_count', '{cru_failedlogincount}', false, NULL, 'failed logins are not seen'),
('fecru', 'remember_me', 'user_key', '{cru_user_id}', true, NULL, NULL),
('fecru', 'remember_me', 'secret', '{cru_rnd}', true, NULL, NULL),
('fecru', 'remember_me', 'created_at', '{cru_create_date}', false, 'ms', NULL),

('crowd', 'attribute', 'user_key', '{user_id}', true, NULL, NULL),
('crowd', 'attribute', 'attribute_name', '{attribute_name}', true, NULL, NULL),
('crowd', 'attribute', 'attribute_value', '{attribute_value}', true, NULL, NULL),
('crowd', 'attribute', 'last_login_at', '{lastAuthenticated}', false, 'ms', NULL),
('crowd', 'attribute', 'last_seen_at', '{lastActive}', false, 'ms', NULL),
('crowd', 'remember_me', 'user_name', '{username}', true, 'any case', NULL),
('crowd', 'remember_me', 'series', '{series}', false, NULL, NULL),
('crowd', 'remember_me', 'secret', '{token}', true, NULL, NULL),
('crowd', 'remember_me', 'created_at', '{created_date}', false, 'local', NULL),

('spring_security', 'account', 'user_name', '{username}', true, NULL, NULL),
('spring_security', 'account', 'credential', '{password}', true, NULL, NULL),
('spring_security', 'account', 'active', '{enabled}', false, NULL, 'deactivation is not seen'),
('spring_security', 'remember_me', 'user_name', '{username}', true, NULL, NULL),
('spring_security', 'remember_me', 'series', '{series}', true, NULL, NULL),
('spring_security', 'remember_me', 'secret', '{token}', true, NULL, NULL),
('spring_security', 'remember_me', 'used_at', '{last_used}', false, 'local', NULL),

('django', 'account', 'key', '{id}', true, NULL, NULL),
('django', 'account', 'user_name', '{username}', true, NULL, NULL),
('django', 'account', 'credential', '{password}', true, NULL, NULL),
('django', 'account', 'active', '{is_active}', false, NULL, 'deactivation is not seen'),
('django', 'account', 'last_login_at', '{last_login}', false, NULL, 'logins are not seen'),

('devise', 'account', 'key', '{id}', true, NULL, NULL),
('devise', 'account', 'user_name', '{email,username}', true, NULL, NULL),
('devise', 'account', 'credential', '{encrypted_password}', true, NULL, NULL),
('devise', 'account', 'locked_at', '{locked_at}', false, NULL, 'locking is not seen'),
('devise', 'account', 'last_login_at', '{current_sign_in_at}', false, 'utc', 'logins are not seen'),
('devise', 'account', 'previous_login_at', '{last_sign_in_at}', false, 'utc', NULL),
('devise', 'account', 'login_count', '{sign_in_count}', false, NULL, NULL),
('devise', 'account', 'current_failed_count', '{failed_attempts}', false, NULL, 'failed logins are not seen'),
('devise', 'account', 'last_login_address', '{current_sign_in_ip}', false, NULL, NULL);

INSERT INTO session_admin_internal.product_column
    (product, part, role, columns, required, reading, path, excludes, unseen) VALUES
-- directory -1 has the tokens of applications, not of users
('crowd', 'session', 'key', '{id}', true, NULL, NULL, NULL, NULL),
('crowd', 'session', 'secret', '{random_hash}', true, NULL, NULL, NULL, NULL),
('crowd', 'session', 'user_name', '{entity_name}', true, 'any case', NULL, NULL, NULL),
('crowd', 'session', 'realm', '{directory_id}', true, NULL, NULL, '{-1}', NULL),
('crowd', 'session', 'created_at', '{created_date}', false, 'local', NULL, NULL, NULL),
('crowd', 'session', 'used_at', '{last_accessed_time}', false, 'ms', NULL, NULL, NULL),

-- the id changes at a login, while primary_id stays
('spring_session', 'session', 'key', '{primary_id}', true, NULL, NULL, NULL, NULL),
('spring_session', 'session', 'secret', '{session_id}', true, NULL, NULL, NULL, NULL),
('spring_session', 'session', 'user_name', '{principal_name}', true, NULL, NULL, '{anonymousUser}', NULL),
('spring_session', 'session', 'created_at', '{creation_time}', false, 'ms', NULL, NULL, NULL),
('spring_session', 'session', 'used_at', '{last_access_time}', false, 'ms', NULL, NULL, NULL),
('spring_session', 'session', 'idle_timeout', '{max_inactive_interval}', false, 's', NULL, NULL, NULL),
('spring_session', 'session', 'expires_at', '{expiry_time}', false, 'ms', NULL, NULL,
 'expired sessions are taken for live'),

-- Passport's user; who keeps it elsewhere describes a product of their own
('connect_pg_simple', 'session', 'secret', '{sid}', true, NULL, NULL, NULL, NULL),
('connect_pg_simple', 'session', 'user_name', '{sess}', true, NULL, '{passport,user}', NULL, NULL),
('connect_pg_simple', 'session', 'expires_at', '{expire}', true, 'local', NULL, NULL, NULL),

('django', 'session', 'secret', '{session_key}', true, NULL, NULL, NULL, NULL),
('django', 'session', 'expires_at', '{expire_date}', true, NULL, NULL, NULL, NULL),
('devise', 'session', 'key', '{id}', false, NULL, NULL, NULL, NULL),
('devise', 'session', 'secret', '{session_id}', true, NULL, NULL, NULL, NULL);

INSERT INTO session_admin_internal.product_mark VALUES
('confluence', '{user_key,username}'),
('confluence', '{curfailed,successdate,prevsuccessdate}'),
('bamboo', '{user_name,auth_count}'),
('bitbucket', '{user_id,name,slug,deleted_timestamp}'),
('fecru', '{cru_user_id,cru_user_name}'),
('crowd', '{entity_name,identifier_hash,random_hash}'),
('crowd', '{username,token,series,remote_address,used_date}'),
('connect_pg_simple', '{sid,sess,expire}'),
('spring_session', '{primary_id,session_id,principal_name,max_inactive_interval}'),
('spring_security', '{username,series,token,last_used}'),
('spring_security', '{username,authority}'),
('django', '{username,is_superuser,is_staff,date_joined}'),
('devise', '{encrypted_password,remember_created_at}'),
('devise', '{encrypted_password,reset_password_sent_at}'),
('devise', '{encrypted_password,sign_in_count}');

-- What these products have there are rows of their own.
UPDATE session_admin_internal.product_part SET ends = 'delete' WHERE part IN ('session', 'remember_me');
