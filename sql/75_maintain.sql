/*
 * Housekeeping
 */

CREATE FUNCTION session_admin.maintain(OUT task text, OUT done bigint) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_maintain';
COMMENT ON FUNCTION session_admin.maintain() IS
'does all housekeeping: archives what has ended, tries remaining rows of products again, makes partitions, drops old ones, purges the feed; for cron, where the worker does not run';
