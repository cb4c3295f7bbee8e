/*
 * Jira
 *
 * remembermetoken.username holds a key of app_user.  The same name in several
 * directories is one user.
 */

INSERT INTO session_admin_internal.product (product, title, alias_pattern, notes, built_in) VALUES
('jira', 'Jira Data Center and Server', '^jirauser[0-9]+$',
 ARRAY['addresses and user agents of logins are not in these tables'], true);

INSERT INTO session_admin_internal.product_part (product, part, relations, key_of, required, unseen) VALUES
('jira', 'account', '{cwd_user}', NULL, true, NULL),
('jira', 'identity', '{app_user}', NULL, false,
 'whose remember-me rows are deleted is not known'),
('jira', 'attribute', '{cwd_user_attributes,cwd_user_attribute}', 'account', false,
 'logins and failed logins are not seen'),
('jira', 'remember_me', '{remembermetoken}', 'identity', false,
 'remember-me rows are neither seen nor deleted');

INSERT INTO session_admin_internal.product_column (product, part, role, columns, required, reading, unseen) VALUES
('jira', 'account', 'key', '{id}', true, NULL, NULL),
('jira', 'account', 'user_name', '{lower_user_name}', true, NULL, NULL),
('jira', 'account', 'other_name', '{user_name}', false, NULL, NULL),
('jira', 'account', 'credential', '{credential}', false, NULL, 'password changes are not seen'),
('jira', 'account', 'active', '{active,is_active}', false, NULL, 'deactivation is not seen'),
('jira', 'identity', 'key', '{user_key}', true, NULL, NULL),
('jira', 'identity', 'user_name', '{lower_user_name}', true, NULL, NULL),
('jira', 'attribute', 'user_key', '{user_id}', true, NULL, NULL),
('jira', 'attribute', 'attribute_name', '{attribute_name}', true, NULL, NULL),
('jira', 'attribute', 'attribute_value', '{attribute_value}', true, NULL, NULL),
('jira', 'attribute', 'last_login_at', '{login.lastLoginMillis}', false, 'ms', NULL),
('jira', 'attribute', 'previous_login_at', '{login.previousLoginMillis}', false, 'ms', NULL),
('jira', 'attribute', 'last_failed_login_at', '{login.lastFailedLoginMillis}', false, 'ms', NULL),
('jira', 'attribute', 'login_count', '{login.count}', false, NULL, NULL),
('jira', 'attribute', 'current_failed_count', '{login.currentFailedCount}', false, NULL, NULL),
('jira', 'attribute', 'total_failed_count', '{login.totalFailedCount}', false, NULL, NULL),
('jira', 'remember_me', 'user_key', '{username}', true, NULL, NULL),
('jira', 'remember_me', 'secret', '{token}', true, NULL, NULL),
('jira', 'remember_me', 'created_at', '{created}', false, NULL, NULL);

INSERT INTO session_admin_internal.product_mark VALUES ('jira', '{user_key,lower_user_name}');
