/*
 * Housekeeping
 */

CREATE FUNCTION session_admin.maintain(OUT task text, OUT done bigint) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'sa_maintain';
COMMENT ON FUNCTION session_admin.maintain() IS
'does the housekeeping where no background worker does it: archives what has ended, deletes remaining rows of products, creates and drops partitions, purges the feed; returns each task with the number of rows done, null if it was not done';

CREATE FUNCTION session_admin_internal.worker_status(
    OUT state text,
    OUT launcher_pid integer,
    OUT worker_pid integer,
    OUT started_at timestamptz,
    OUT ended_at timestamptz,
    OUT succeeded_at timestamptz,
    OUT failures integer,
    OUT sqlstate text,
    OUT done text,
    OUT failing text,
    OUT since_success interval,
    OUT since_flush interval,
    OUT overdue interval)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_worker_status';
COMMENT ON FUNCTION session_admin_internal.worker_status() IS
'how the background worker of this database fares, and what its last run did';

CREATE FUNCTION session_admin_internal.note_database() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_note_database';
COMMENT ON FUNCTION session_admin_internal.note_database() IS
'tells the launcher that this database uses the extension';

SELECT session_admin_internal.note_database();
