--
-- Reports: who did not come, how many were here at once, and all of it as a page
--
\set SHOW_CONTEXT never
SET session_admin.application = 'report_test';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET timezone = 'UTC';


--
-- dormant_users
--

INSERT INTO session_admin_internal.account
    (application, user_name, login_count, last_login_at, last_seen_at, total_failed_count) VALUES
('report_test', 'came this year',  3, '2026-03-01', '2026-03-02', 0),
('report_test', 'came last year',  2, '2025-12-31', '2025-12-31 23:59', 1),
('report_test', 'only stayed',     1, '2025-12-31', '2026-01-01', 0),
('report_test', 'came long ago',   1, '2019-05-05', NULL, 7),
('report_test', 'never came',      0, NULL, NULL, 0),
('elsewhere',   'came long ago',   1, '2019-05-05', NULL, 0);

-- Who has not been here this year? Those who never came are the first.
SELECT * FROM session_admin.dormant_users('2026-01-01');
SELECT user_name FROM session_admin.dormant_users('2020-01-01', 'elsewhere');
SELECT count(*) FROM session_admin.dormant_users('-infinity');
SELECT count(*) FROM session_admin.dormant_users('infinity');
SELECT count(*) FROM session_admin.dormant_users(NULL);

-- Whoever is here now is not dormant, however long ago the login was.
SELECT session_admin.set_policy('absolute_timeout', '10 years') AS absolute,
       session_admin.set_policy('idle_timeout', '10 years') AS idle;
SELECT length(session_admin.open_session('r1', 'came long ago')) AS opened;
UPDATE session_admin_internal.account SET last_login_at = '2019-05-05', last_seen_at = NULL
WHERE application = 'report_test' AND user_name = 'came long ago';
SELECT user_name FROM session_admin.dormant_users('2026-01-01');


--
-- concurrent_sessions
--

DELETE FROM session_admin.session WHERE application = 'report_test';
DELETE FROM session_admin_internal.ended_session WHERE application = 'report_test';
INSERT INTO session_admin_internal.ended_session (session_hash, application, created_at, last_access_at,
    requests, user_name, ended_at, end_reason, ended_by)
SELECT sha256(s.about::bytea), 'report_test', s.created_at, s.created_at, 1, 'someone', s.ended_at,
       s.end_reason, 'somebody'
FROM (VALUES
    ('before',         '2026-01-01 00:00'::timestamptz, '2026-01-01 08:00'::timestamptz, 'logout'),
    ('all the time',   '2026-01-01 07:00', '2026-01-01 13:00', 'logout'),
    ('at a step',      '2026-01-01 09:00', '2026-01-01 10:00', 'logout'),
    ('takes its seat', '2026-01-01 10:00', '2026-01-01 10:10', 'logout'),
    ('short 1',        '2026-01-01 10:20', '2026-01-01 10:30', 'logout'),
    ('short 2',        '2026-01-01 10:25', '2026-01-01 10:35', 'logout'),
    -- goes on under a new id, which has the time of the first login
    ('renewed',        '2026-01-01 10:25', '2026-01-01 10:26', 'renewed'),
    ('after',          '2026-01-01 12:00', '2026-01-01 12:30', 'logout'))
    AS s (about, created_at, ended_at, end_reason);

-- At each step, and at most until the next; a session is there from its start to before
-- its end.
SELECT * FROM session_admin.concurrent_sessions(
    '2026-01-01 08:00', '2026-01-01 12:00', '1 hour');
SELECT * FROM session_admin.concurrent_sessions(
    "from" => '2026-01-01', "to" => '2026-03-01', step => '1 month', application => 'report_test');
SELECT * FROM session_admin.concurrent_sessions('2026-01-01', '2026-01-01', '1 hour');
SELECT count(*) FROM session_admin.concurrent_sessions('2026-01-02', '2026-01-01', '1 hour');

-- It ends, or says why not.
SELECT session_admin.concurrent_sessions('-infinity', '2026-01-01', '1 hour');
SELECT session_admin.concurrent_sessions('2026-01-01', 'infinity', '1 hour');
SELECT session_admin.concurrent_sessions('2026-01-01', '2026-01-02', '0');
SELECT session_admin.concurrent_sessions('2026-01-01', '2026-01-02', '-1 hour');
SELECT session_admin.concurrent_sessions('2026-01-01', '2026-01-02', '1 month -30 days');
SELECT session_admin.concurrent_sessions('2026-01-01', '2026-01-02', '1 microsecond');
SELECT session_admin.concurrent_sessions('2026-01-01', NULL, '1 hour');


--
-- html_report
--

-- Well-formed, whatever is in it; what names and user agents say is text and nothing else.
CREATE TEMP VIEW hostile (value) AS VALUES
    ('<script>alert(1)</script>'),
    ('"onmouseover="alert(1)'),
    (''' onclick=''alert(1)'),
    ('</td></tr></table>'),
    ('<!-- '),
    (']]>'),
    ('&lt;b&gt; &amp; &#60;'),
    (E'bell \x07 escape \x1b[31m newline \n tab \t'),
    (U&'right to left \202E mark \FFFE none \0085 next line'),
    (repeat('x', 300));
SELECT count(session_admin.open_session('html' || row_number, h.value, user_agent => h.value,
                                        node => h.value, login_method => h.value))
FROM (SELECT value, row_number() OVER () FROM hostile) h;
SELECT count(session_admin.login_failed(value)) FROM hostile;
SET session_admin.actor = '<i>ada</i>';
SELECT sessions_ended FROM session_admin.invalidate_user('<!-- ', reason => 'custom:<b>');
RESET session_admin.actor;
CREATE TEMP TABLE page AS
SELECT xmlparse(DOCUMENT html) AS page, html FROM session_admin.html_report(max_rows => 50) AS html;
SELECT xpath_exists('/h:html/h:body/h:main/h:section', page, '{{h,http://www.w3.org/1999/xhtml}}')
       AS "is a page" FROM page;
-- no element but those of the page itself
SELECT DISTINCT m[1] AS element FROM page, regexp_matches(html, '<([a-zA-Z!]+)', 'g') AS m ORDER BY 1;
SELECT count(*) AS "control characters" FROM page WHERE html ~ '[\x01-\x09\x0b-\x1f\x7f-\x9f]';
-- everybody is in it
SELECT count(*) AS "missing" FROM (
    SELECT user_name::text FROM session_admin.last_login WHERE application = 'report_test'
    EXCEPT
    SELECT unnest(xpath('//h:td/text()', page, '{{h,http://www.w3.org/1999/xhtml}}'))::text
    FROM page) m
WHERE user_name !~ '[[:cntrl:]<>&"'']';
-- it takes nothing from elsewhere
SELECT html ~* '(src|href|url|@import|<link|<script)' AS "refers to something" FROM page;

-- Nobody, nothing: still a page, also for an application that does not exist.
SELECT regexp_count(session_admin.html_report('infinity', application => '<nowhere>'),
                    '<p>None.</p>') AS none,
       session_admin.html_report(application => '<nowhere>') ~ '<title>Sessions of &lt;nowhere&gt;</title>'
       AS title;
SELECT session_admin.html_report(max_rows => 2) ~ 'The first 2\.' AS "says that there is more";
SELECT length(session_admin.html_report('infinity', -1)) > 0 AS "a page",
       length(session_admin.html_report('-infinity', NULL, NULL)) > 0 AS "a page";

DELETE FROM session_admin.session WHERE application = 'report_test';
