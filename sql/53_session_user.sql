/*
 * Users
 *
 * What becomes of the data of a user: see src/session/user.c for what remains of the
 * name, and for how long.
 */

CREATE FUNCTION session_admin.rename_user(
    old text, new text, application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_rename_user';
COMMENT ON FUNCTION session_admin.rename_user(text, text, text) IS
'ends a user''s sessions and tokens and moves account, history and policies to the new name; error PT404 if the user is not known';

CREATE FUNCTION session_admin.anonymize_user(
    user_name text, alias text, application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_anonymize_user';
COMMENT ON FUNCTION session_admin.anonymize_user(text, text, text) IS
'renames a user to an alias as rename_user does, and clears addresses, devices and user agents; one row of the feed keeps the old name for feed_retention; error PT404 if the user is not known';

CREATE FUNCTION session_admin.erase_user(
    user_name text, application text DEFAULT NULL)
RETURNS session_admin.invalidation_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_erase_user';
COMMENT ON FUNCTION session_admin.erase_user(text, text) IS
'ends a user''s sessions and tokens and deletes account, history and policies; one row of the feed keeps the name for feed_retention; error PT404 if the user is not known';
