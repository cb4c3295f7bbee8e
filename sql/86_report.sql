/*
 * Reports
 *
 * They build on the views, and run with the rights of whoever asks: being
 * allowed to call them is of no use without being allowed to read the views.
 */

CREATE VIEW session_admin.logins_per_day WITH (security_barrier) AS
SELECT e.application,
       e.at::date AS day,
       count(*) FILTER (WHERE e.succeeded) AS logins,
       count(DISTINCT e.user_name) FILTER (WHERE e.succeeded) AS users,
       count(*) FILTER (WHERE NOT e.succeeded) AS failed_logins,
       count(DISTINCT e.user_name) FILTER (WHERE NOT e.succeeded) AS failed_users
FROM session_admin_internal.login_event e
WHERE e.event IN ('login', 'login_failed')
GROUP BY e.application, e.at::date;
COMMENT ON VIEW session_admin.logins_per_day IS
'logins and users of each day, in the time zone of the reader';
COMMENT ON COLUMN session_admin.logins_per_day.application IS
'name of the application';
COMMENT ON COLUMN session_admin.logins_per_day.day IS
'day, in the time zone of the reader';
COMMENT ON COLUMN session_admin.logins_per_day.logins IS
'number of logins that succeeded';
COMMENT ON COLUMN session_admin.logins_per_day.users IS
'number of different users who logged in';
COMMENT ON COLUMN session_admin.logins_per_day.failed_logins IS
'number of logins that failed';
COMMENT ON COLUMN session_admin.logins_per_day.failed_users IS
'number of different users as whom somebody failed to log in';

CREATE TYPE session_admin.dormant_user AS (
    application         text,
    user_name           text,
    last_login_at       timestamptz,
    last_seen_at        timestamptz,
    login_count         bigint,
    total_failed_count  bigint
);
COMMENT ON TYPE session_admin.dormant_user IS
'a user in the report dormant_users()';
COMMENT ON COLUMN session_admin.dormant_user.application IS
'name of the application';
COMMENT ON COLUMN session_admin.dormant_user.user_name IS
'name of the user';
COMMENT ON COLUMN session_admin.dormant_user.last_login_at IS
'time of the last login that succeeded; null if there was none';
COMMENT ON COLUMN session_admin.dormant_user.last_seen_at IS
'time of the last request, or of the last login if there was no request after it; null if there was none';
COMMENT ON COLUMN session_admin.dormant_user.login_count IS
'number of logins that succeeded';
COMMENT ON COLUMN session_admin.dormant_user.total_failed_count IS
'number of logins that failed';

CREATE FUNCTION session_admin.dormant_users(since timestamptz, application text DEFAULT NULL)
RETURNS SETOF session_admin.dormant_user
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT l.application, l.user_name, l.last_login_at, l.last_seen_at, l.login_count,
           l.total_failed_count
    FROM session_admin.last_login l
    WHERE l.application = session_admin_internal.application_or_current(dormant_users.application)
      AND coalesce(greatest(l.last_login_at, l.last_seen_at), '-infinity') < since
    ORDER BY greatest(l.last_login_at, l.last_seen_at) NULLS FIRST, l.user_name;
END;
COMMENT ON FUNCTION session_admin.dormant_users(timestamptz, text) IS
'returns the users who have not logged in or sent a request since a time, first those who never did';

CREATE FUNCTION session_admin_internal.check_steps("from" timestamptz, "to" timestamptz, step interval)
RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'sa_check_steps';
COMMENT ON FUNCTION session_admin_internal.check_steps(timestamptz, timestamptz, interval) IS
'true, or an error unless the times are finite and not more than 100,000 positive steps apart';

/*
 * One pass over what happened in time order: an opening counts 1, an end -1, a
 * step 0.  Of equal times all count together.  What was renewed goes on under
 * another id, with the time at which it was first opened.
 */
CREATE FUNCTION session_admin.concurrent_sessions(
    "from" timestamptz, "to" timestamptz, step interval, application text DEFAULT NULL)
RETURNS TABLE (at timestamptz, sessions bigint, peak bigint)
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH seen AS (
        SELECT h.created_at, h.ended_at
        FROM session_admin.session_history h
        WHERE h.application = session_admin_internal.application_or_current(concurrent_sessions.application)
          AND h.end_reason IS DISTINCT FROM 'renewed'
          AND h.created_at < "to"
          AND (h.ended_at IS NULL OR h.ended_at > "from")
    ), change AS (
        SELECT greatest(seen.created_at, "from") AS at, 1 AS delta, 0 AS is_step FROM seen
        UNION ALL
        SELECT seen.ended_at, -1, 0 FROM seen WHERE seen.ended_at < "to"
        UNION ALL
        SELECT s.at, 0, 1
        FROM generate_series("from", "to", step) AS s(at)
        WHERE session_admin_internal.check_steps("from", "to", step) AND s.at < "to"
    ), running AS (
        SELECT change.at, change.is_step,
               sum(change.delta) OVER w AS sessions,
               sum(change.is_step) OVER w AS step_number
        FROM change
        WINDOW w AS (ORDER BY change.at)
    )
    SELECT min(running.at),
           min(running.sessions) FILTER (WHERE running.is_step = 1),
           max(running.sessions)
    FROM running
    GROUP BY running.step_number
    ORDER BY running.step_number;
END;
COMMENT ON FUNCTION session_admin.concurrent_sessions(timestamptz, timestamptz, interval, text) IS
'returns the number of sessions at each step from one time up to another, and the peak until the next step; error 22023 for more than 100,000 steps';

-- In SQL_ASCII a character is a byte, and these above 0x7f are parts of others.
CREATE FUNCTION session_admin_internal.html(value text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN replace(replace(replace(replace(replace(
    regexp_replace(value COLLATE "C",
        CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN '[\x01-\x1f\x7f]'
             ELSE '[\x01-\x1f\x7f-\x9f\ufffe\uffff]' END, ' ', 'g'),
    '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;');
COMMENT ON FUNCTION session_admin_internal.html(text) IS
'the value as text of an HTML or XML page: nothing in it is markup';

CREATE FUNCTION session_admin_internal.html_time(at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN isfinite(at)
            THEN '<time datetime="'
                 || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') || '">'
                 || to_char(at, 'YYYY-MM-DD HH24:MI:SS') || '</time>'
            ELSE '' END;
COMMENT ON FUNCTION session_admin_internal.html_time(timestamptz) IS
'the time as HTML, empty if there is none';

CREATE FUNCTION session_admin_internal.html_row(cells text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '<tr><td>' || array_to_string(cells, '</td><td>', '') || E'</td></tr>\n';
COMMENT ON FUNCTION session_admin_internal.html_row(text[]) IS
'a row of a table, of cells that are HTML';

CREATE FUNCTION session_admin_internal.html_table(
    id text, caption text, headings text[], rows text, shown bigint, max_rows bigint)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '<section aria-labelledby="' || id || E'">\n<h2 id="' || id || '">' || caption || E'</h2>\n'
    || CASE WHEN shown = 0 THEN E'<p>None.</p>\n'
       ELSE '<div class="table" role="region" tabindex="0" aria-labelledby="' || id
            || E'"><table aria-labelledby="' || id || E'">\n<thead><tr><th scope="col">'
            || array_to_string(headings, '</th><th scope="col">')
            || E'</th></tr></thead>\n<tbody>\n' || rows || E'</tbody>\n</table></div>\n'
            || CASE WHEN shown >= max_rows THEN '<p>The first ' || shown || E'.</p>\n' ELSE '' END
       END
    || E'</section>\n';
COMMENT ON FUNCTION session_admin_internal.html_table(text, text, text[], text, bigint, bigint) IS
'a section with a table, of rows that are HTML';

CREATE FUNCTION session_admin.html_report(
    since timestamptz DEFAULT statement_timestamp() - interval '30 days',
    max_rows bigint DEFAULT 1000,
    application text DEFAULT NULL)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH asked AS (
        SELECT session_admin_internal.application_or_current(html_report.application) AS application,
               coalesce(html_report.since, '-infinity') AS since,
               least(greatest(coalesce(html_report.max_rows, 1000), 1), 1000000) AS max_rows
    ), session AS (
        SELECT count(*) AS shown,
               string_agg(session_admin_internal.html_row(ARRAY[
                   session_admin_internal.html(s.session_ref),
                   session_admin_internal.html(coalesce(s.user_name, '(anonymous)')),
                   session_admin_internal.html(host(s.client_address)),
                   session_admin_internal.html(s.user_agent),
                   session_admin_internal.html(s.node),
                   s.requests::text,
                   session_admin_internal.html_time(s.last_access_at),
                   session_admin_internal.html_time(s.created_at),
                   session_admin_internal.html_time(s.expires_at)]), ''
                   ORDER BY s.last_access_at DESC, s.session_ref) AS rows
        FROM (SELECT c.* FROM asked a, session_admin.current_sessions c
              WHERE c.application = a.application
              ORDER BY c.last_access_at DESC, c.session_ref
              LIMIT (SELECT max_rows FROM asked)) s
    ), login AS (
        SELECT count(*) AS shown,
               string_agg(session_admin_internal.html_row(ARRAY[
                   session_admin_internal.html(l.user_name),
                   session_admin_internal.html_time(l.last_login_at),
                   session_admin_internal.html(host(l.last_login_address)),
                   session_admin_internal.html(l.last_login_method),
                   session_admin_internal.html_time(l.last_seen_at),
                   l.login_count::text,
                   l.total_failed_count::text,
                   l.live_sessions::text]), ''
                   ORDER BY l.last_login_at DESC NULLS LAST, l.user_name) AS rows
        FROM (SELECT c.* FROM asked a, session_admin.last_login c
              WHERE c.application = a.application
              ORDER BY c.last_login_at DESC NULLS LAST, c.user_name
              LIMIT (SELECT max_rows FROM asked)) l
    ), day AS (
        SELECT count(*) AS shown,
               string_agg(session_admin_internal.html_row(ARRAY[
                   to_char(d.day, 'YYYY-MM-DD'),
                   d.logins::text,
                   d.users::text,
                   d.failed_logins::text]), ''
                   ORDER BY d.day DESC) AS rows
        FROM (SELECT c.* FROM asked a, session_admin.logins_per_day c
              WHERE c.application = a.application AND c.day >= a.since
              ORDER BY c.day DESC
              LIMIT (SELECT max_rows FROM asked)) d
    ), invalidation AS (
        SELECT count(*) AS shown,
               string_agg(session_admin_internal.html_row(ARRAY[
                   i.id::text,
                   session_admin_internal.html_time(i.at),
                   session_admin_internal.html(i.scope),
                   session_admin_internal.html(i.user_name),
                   session_admin_internal.html(i.session_ref),
                   session_admin_internal.html(i.reason),
                   session_admin_internal.html(i.actor),
                   session_admin_internal.html(i.invalidated_by),
                   i.sessions_ended::text]), ''
                   ORDER BY i.id DESC) AS rows
        FROM (SELECT c.* FROM asked a, session_admin.invalidations c
              WHERE (c.application = a.application OR c.application IS NULL) AND c.at >= a.since
              ORDER BY c.id DESC
              LIMIT (SELECT max_rows FROM asked)) i
    )
    SELECT E'<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml">\n<head>\n'
        || E'<meta charset="utf-8"/>\n'
        || E'<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        || '<title>Sessions of ' || session_admin_internal.html(asked.application) || E'</title>\n'
        || E'<style>\n'
        || E':root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }\n'
        || E'body { margin: 0 auto; max-width: 90rem; padding: 1rem; }\n'
        || E'.table { overflow-x: auto; }\n'
        || E'table { border-collapse: collapse; }\n'
        || E'th, td { border-bottom: 1px solid #8888; padding: .25rem .75rem; text-align: left;'
        || E' vertical-align: top; overflow-wrap: anywhere; }\n'
        || E'th { white-space: nowrap; }\n'
        || E'time { white-space: nowrap; }\n'
        || E'</style>\n</head>\n<body>\n<main>\n'
        || '<h1>Sessions of ' || session_admin_internal.html(asked.application) || E'</h1>\n'
        || '<p>As of ' || session_admin_internal.html_time(statement_timestamp()) || ' ('
        || session_admin_internal.html(current_setting('TimeZone')) || E').</p>\n'
        || session_admin_internal.html_table('sessions', 'Current sessions',
               ARRAY['Session', 'User', 'Address', 'User agent', 'Node', 'Requests',
                     'Last access', 'Opened', 'Ends at'],
               session.rows, session.shown, asked.max_rows)
        || session_admin_internal.html_table('logins', 'Last logins',
               ARRAY['User', 'Last login', 'Address', 'Method', 'Last seen', 'Logins',
                     'Failed logins', 'Sessions now'],
               login.rows, login.shown, asked.max_rows)
        || session_admin_internal.html_table('days', 'Logins per day',
               ARRAY['Day', 'Logins', 'Users', 'Failed logins'],
               day.rows, day.shown, asked.max_rows)
        || session_admin_internal.html_table('invalidations', 'Invalidations',
               ARRAY['Id', 'At', 'Scope', 'User', 'Session', 'Reason', 'Actor', 'By role',
                     'Sessions ended'],
               invalidation.rows, invalidation.shown, asked.max_rows)
        || E'</main>\n</body>\n</html>\n'
    FROM asked, session, login, day, invalidation;
END;
COMMENT ON FUNCTION session_admin.html_report(timestamptz, bigint, text) IS
'returns a self-contained HTML page: current sessions and last logins, and the logins per day and invalidations since a time; max_rows limits each table';
