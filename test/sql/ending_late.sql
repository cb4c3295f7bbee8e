--
-- What has ended although somebody else had it locked: rows of late_ending, which
-- invalidations write where they cannot wait (see specs concurrent_ending_late)
--
SET client_min_messages = warning;
SET session_admin.application = 'late';
CREATE FUNCTION late_end(application text, user_name text, session_id text, tokens boolean) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO session_admin_internal.late_ending
        (application, user_name, session_hash, tokens, before_xid, at, reason, ended_by, actor)
    VALUES ($1, $2, sha256($3::bytea), $4, (pg_current_xact_id()::text::bigint + 1)::text::xid8,
            clock_timestamp(), 'password_changed', 'somebody', 'grace')
$$;
CREATE FUNCTION valid() RETURNS text
LANGUAGE sql AS $$
    SELECT string_agg(id, ' ' ORDER BY id) FROM unnest('{alice1,alice2,bob1,visitor}'::text[]) AS id
    WHERE session_admin.touch_session(id)
$$;
CREATE FUNCTION listed() RETURNS text
LANGUAGE sql AS $$
    SELECT string_agg(coalesce(user_name, 'nobody'), ' ' ORDER BY user_name)
    FROM session_admin.current_sessions WHERE application = 'late'
$$;
SELECT count(session_admin.open_session(id, nullif(rtrim(id, '12'), 'visitor')))
FROM unnest('{alice1,alice2,bob1,visitor}'::text[]) AS id;
SELECT session_admin.issue_remember_me('alice') AS alice, session_admin.issue_remember_me('bob') AS bob \gset
SELECT valid(), listed();

-- one session, of no matter whom
SELECT late_end('late', NULL, 'alice1', false);
SELECT valid(), listed();
-- one user, from now on with tokens; who logs in later is not concerned
SELECT late_end('late', 'alice', NULL, true);
SELECT valid(), listed();
SELECT outcome FROM session_admin.redeem_remember_me(:'alice');
SELECT outcome FROM session_admin.redeem_remember_me(:'bob');
SELECT user_name FROM session_admin.remembered_devices WHERE application = 'late' ORDER BY 1;
SELECT session_admin.open_session('alice3', 'alice') IS NOT NULL AS opened, session_admin.touch_session('alice3');
-- rolled back
BEGIN;
SELECT late_end('late', 'bob', NULL, true);
SELECT valid();
ROLLBACK;
SELECT valid(), listed();
-- another application's, and everybody
SELECT late_end('another', NULL, NULL, true);
SELECT valid();
SELECT late_end(NULL, NULL, NULL, true);
SELECT valid(), listed();
SELECT outcome FROM session_admin.redeem_remember_me(:'bob');
SELECT session_admin.open_session('alice4', 'alice') IS NOT NULL AS opened, session_admin.touch_session('alice4');

-- They end once, as they were told to, and nodes have been told of them.
CREATE TEMP TABLE before AS SELECT coalesce(max(id), 0) AS id FROM session_admin_internal.invalidation;
SELECT count(*) > 0 AS maintained FROM session_admin.maintain();
SELECT valid(), listed(), session_admin.touch_session('alice4');
SELECT user_name, end_reason, ended_by, actor, count(*) FROM session_admin.session_history
WHERE application = 'late' AND ended_at IS NOT NULL GROUP BY 1, 2, 3, 4 ORDER BY 1;
SELECT count(*) FROM session_admin_internal.invalidation i, before WHERE i.id > before.id AND i.application = 'late';
SELECT count(*) FROM session_admin.remember_me_token WHERE application = 'late';
-- and are then forgotten, once no transaction is left that is older
DO $$ BEGIN
    WHILE EXISTS (SELECT FROM session_admin_internal.late_ending) LOOP
        PERFORM session_admin.maintain();
        COMMIT;
    END LOOP;
END $$;

-- Failed logins keep no account locked; what is counted later is shown at once.
BEGIN;
SELECT session_admin.login_failed('alice'), session_admin.login_failed('alice');
SELECT login_count, current_failed_count, total_failed_count, last_failed_login_at IS NOT NULL AS failed
FROM session_admin.last_login WHERE application = 'late' AND user_name = 'alice';
COMMIT;
SELECT session_admin.login_failed('alice');
SELECT current_failed_count, total_failed_count FROM session_admin.last_login
WHERE application = 'late' AND user_name = 'alice';
SELECT count(*) > 0 AS maintained FROM session_admin.maintain();
SELECT current_failed_count, total_failed_count FROM session_admin.last_login
WHERE application = 'late' AND user_name = 'alice';
SELECT count(*) FROM session_admin_internal.account_seen WHERE application = 'late';
BEGIN;
SELECT session_admin.login_failed('alice');
COMMIT;
SELECT session_admin.open_session('alice5', 'alice') IS NOT NULL AS opened;
SELECT current_failed_count, total_failed_count FROM session_admin.last_login
WHERE application = 'late' AND user_name = 'alice';
SELECT count(*) > 0 AS maintained FROM session_admin.maintain();
SELECT current_failed_count, total_failed_count FROM session_admin.last_login
WHERE application = 'late' AND user_name = 'alice';

-- Of several that are the same one is kept, but not of those that keep another session.
INSERT INTO session_admin_internal.late_ending (application, user_name, keep_hash, tokens, before_xid, at, reason, ended_by)
SELECT 'late', 'zoe', keep, true, (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000)::text::xid8, now(), 'admin', 'x'
FROM unnest(ARRAY[NULL, NULL, sha256('zoe1'), sha256('zoe1')]) AS keep;
SELECT count(*) > 0 AS maintained FROM session_admin.maintain();
SELECT keep_hash IS NULL AS everything, count(*) FROM session_admin_internal.late_ending GROUP BY 1 ORDER BY 1;
DELETE FROM session_admin_internal.late_ending;

SELECT sessions_ended FROM session_admin.invalidate_application();
DROP FUNCTION valid, listed, late_end;
