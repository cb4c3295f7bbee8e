/*
 * Users
 *
 * What becomes of the data of a user: see src/user.c for what remains of the
 * name, and for how long.
 */

CREATE FUNCTION session_admin.rename_user(
    old text, new text, application text DEFAULT NULL,
    OUT invalidation_id bigint, OUT sessions_ended bigint, OUT tokens_revoked bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_rename_user';
COMMENT ON FUNCTION session_admin.rename_user(text, text, text) IS
'ends the user''s sessions and tokens, and gives account, history and policies to the new name';

CREATE FUNCTION session_admin.anonymize_user(
    user_name text, alias text, application text DEFAULT NULL,
    OUT invalidation_id bigint, OUT sessions_ended bigint, OUT tokens_revoked bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_anonymize_user';
COMMENT ON FUNCTION session_admin.anonymize_user(text, text, text) IS
'like rename_user, and forgets addresses, devices and user agents; one row of the feed keeps the old name until feed_retention is over';

CREATE FUNCTION session_admin.erase_user(
    user_name text, application text DEFAULT NULL,
    OUT invalidation_id bigint, OUT sessions_ended bigint, OUT tokens_revoked bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_erase_user';
COMMENT ON FUNCTION session_admin.erase_user(text, text) IS
'ends the user''s sessions and tokens and deletes account, history and policies; one row of the feed keeps the name until feed_retention is over';
