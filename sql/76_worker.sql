/*
 * Worker
 */

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

CREATE FUNCTION session_admin_internal.live_status(
    OUT used bigint,
    OUT capacity bigint,
    OUT unflushed bigint,
    OUT estimated boolean,
    OUT touched bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_live_status';
COMMENT ON FUNCTION session_admin_internal.live_status() IS
'sessions in the shared table of live sessions, room there, requests of this database that the table session does not count yet, and sessions whose last access or requests it does not tell yet: estimated from some of the sessions, where there are many';

CREATE FUNCTION session_admin_internal.note_database() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'sa_note_database';
COMMENT ON FUNCTION session_admin_internal.note_database() IS
'tells the launcher that this database uses the extension';

SELECT session_admin_internal.note_database();
