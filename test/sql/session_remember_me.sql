-- Remembered devices: a series for each, whose token is replaced at every use
SET session_admin.application = 'remember_me';
SET search_path = session_admin, session_admin_internal;

-- What the tests below look at: the series of a user, with no secret in it
CREATE TEMP VIEW series AS
    SELECT user_name, device, user_agent, client_address, last_used_at IS NOT NULL AS used
    FROM remember_me_token WHERE application = 'remember_me'
    ORDER BY user_name, device;

-- As if that much time had passed for all tokens
CREATE FUNCTION pg_temp.pass(span interval) RETURNS void
BEGIN ATOMIC
    UPDATE remember_me_token SET created_at = created_at - span, rotated_at = rotated_at - span
    WHERE application = 'remember_me';
END;

-- A token is shown once; what is kept is a hash of its second half
SELECT issue_remember_me('alice', 'Firefox on Linux', 'Mozilla/5.0 (X11)', '192.0.2.1') AS token0 \gset
SELECT :'token0' ~ '^[0-9a-f]{32}:[0-9a-f]{64}$' AS well_formed,
    split_part(:'token0', ':', 1) AS alices_series \gset
\echo :well_formed
SELECT * FROM series;
SELECT validator_hash = sha256(decode(split_part(:'token0', ':', 2), 'hex')) AS is_hash
FROM remember_me_token WHERE series = :'alices_series';
SELECT count(*) FROM remember_me_token t
WHERE t::text LIKE '%' || split_part(:'token0', ':', 2) || '%';

-- The user need not have been known before
SELECT user_name, login_count FROM account WHERE application = 'remember_me';

-- Redeeming tells the user, and gives the token that replaces the one shown
SELECT outcome, user_name, token AS token1
FROM redeem_remember_me(:'token0', '192.0.2.2', 'Mozilla/5.0 (X11; rv 2)') \gset
\echo :outcome :user_name
SELECT :'token1' ~ '^[0-9a-f]{32}:[0-9a-f]{64}$' AS well_formed,
    split_part(:'token1', ':', 1) = :'alices_series' AS same_series,
    :'token1' <> :'token0' AS replaced;
SELECT * FROM series;

-- The token shown before leads to the very same one for a while: two tabs, or
-- an answer that got lost
SELECT outcome, user_name, token = :'token1' AS same FROM redeem_remember_me(:'token0');
SELECT pg_temp.pass('20 seconds');
SELECT outcome, user_name, token = :'token1' AS same FROM redeem_remember_me(:'token0');

-- What is not said is kept
SELECT token AS token2 FROM redeem_remember_me(:'token1') \gset
SELECT * FROM series;

-- Whatever a cookie holds is answered, not raised
SELECT value, outcome, user_name, token
FROM unnest(ARRAY[NULL, '', ':', 'secret', 'ü', repeat('0', 32) || ':', ':' || repeat('0', 64),
                  repeat('0', 32) || ':' || repeat('0', 64), repeat('0', 97), repeat(':', 97),
                  repeat('g', 32) || ':' || repeat('0', 64), repeat('0', 32) || ':' || repeat('`', 64),
                  repeat('ä', 48) || 'x']) AS value,
    redeem_remember_me(value);
SELECT outcome, user_name FROM redeem_remember_me(repeat(:'token2', 10000));
SELECT outcome, user_name FROM redeem_remember_me(upper(:'token2'));
SELECT outcome, user_name FROM redeem_remember_me(:'token2' || ' ');

-- A series can be seen; with a guessed validator it is worth nothing, and
-- nothing comes of trying
SELECT open_session('alice''s session', 'alice') IS NOT NULL AS opened;
SELECT outcome, user_name, token FROM redeem_remember_me(:'alices_series' || ':' || repeat('0', 64));
SELECT touch_session('alice''s session');
-- Nor is it worth anything in another application
SELECT outcome, user_name FROM redeem_remember_me(:'token2', application => 'other');
SELECT outcome, user_name FROM redeem_remember_me(:'token2', application => 'never heard of');
SELECT count(*) FROM application WHERE name = 'never heard of';

-- An older ancestor was copied by somebody: the series and the user's sessions
-- end, the user's other devices stay remembered
SELECT issue_remember_me('alice', 'Telephone') AS telephone \gset
SELECT issue_remember_me('bob') AS bobs \gset
SELECT open_session('bob''s session', 'bob') IS NOT NULL AS opened;
SELECT outcome, user_name, token FROM redeem_remember_me(:'token0', '198.51.100.66', 'Thief/1.0');
SELECT touch_session('alice''s session') AS alice, touch_session('bob''s session') AS bob;
SELECT * FROM series;
SELECT count(*) FROM remember_me_ancestor WHERE series = :'alices_series';
-- One line in the feed, one in the history of logins
SELECT scope, user_name, reason, sessions_ended, tokens_revoked
FROM invalidation WHERE application = 'remember_me' ORDER BY id;
SELECT end_reason FROM ended_session WHERE application = 'remember_me';
SELECT event, user_name, succeeded, client_address, user_agent, device,
    starts_with(detail, 'series ' || :'alices_series') AS names_series
FROM login_event WHERE application = 'remember_me' AND event ~ 'remember|theft' ORDER BY at;
-- No token of the series is worth anything any more
SELECT outcome, user_name FROM redeem_remember_me(:'token0');
SELECT outcome, user_name FROM redeem_remember_me(:'token2');

-- The immediate parent after the grace is theft as well
SELECT token AS telephone1 FROM redeem_remember_me(:'telephone') \gset
SELECT pg_temp.pass('31 seconds');
SELECT outcome, user_name, token FROM redeem_remember_me(:'telephone');
SELECT outcome, user_name, token FROM redeem_remember_me(:'telephone1');

-- An ending that is rolled back has not been
SELECT token AS bobs1 FROM redeem_remember_me(:'bobs') \gset
SELECT pg_temp.pass('31 seconds');
BEGIN;
SELECT outcome, user_name FROM redeem_remember_me(:'bobs');
ROLLBACK;
SELECT touch_session('bob''s session');
SELECT outcome, user_name, token AS bobs2 FROM redeem_remember_me(:'bobs1') \gset
\echo :outcome :user_name

-- A device is remembered for a fortnight from its login, however often it is used
SELECT pg_temp.pass('13 days 23 hours');
SELECT outcome, user_name, token AS bobs3 FROM redeem_remember_me(:'bobs2') \gset
\echo :outcome :user_name
SELECT pg_temp.pass('1 hour');
SELECT outcome, user_name, token FROM redeem_remember_me(:'bobs3');
-- and after that an old token raises no alarm
SELECT outcome, user_name, token FROM redeem_remember_me(:'bobs');
SELECT touch_session('bob''s session');

-- Both times are policies
SELECT set_policy('remember_me_lifetime', '30 days');
SELECT outcome, user_name, token AS bobs4 FROM redeem_remember_me(:'bobs3') \gset
\echo :outcome :user_name
SELECT set_policy('remember_me_grace', '5 minutes');
SELECT pg_temp.pass('4 minutes');
SELECT outcome, user_name, token = :'bobs4' AS same FROM redeem_remember_me(:'bobs3');
SELECT set_policy('remember_me_grace', NULL), set_policy('remember_me_lifetime', NULL);

-- Invalidating a user forgets the user's devices, unless told to keep them
SELECT issue_remember_me('carol') AS carols \gset
SELECT tokens_revoked FROM invalidate_user('carol', keep_remember_me => true);
SELECT outcome, token AS carols FROM redeem_remember_me(:'carols') \gset
\echo :outcome
SELECT tokens_revoked FROM invalidate_user('carol');
SELECT outcome, user_name, token FROM redeem_remember_me(:'carols');

-- Invalidating an application touches no row, and forgets all its devices
SELECT issue_remember_me('carol') AS carols \gset
SELECT FROM invalidate_application();
SELECT count(*) FROM remember_me_token WHERE application = 'remember_me' AND user_name = 'carol';
SELECT outcome, user_name, token FROM redeem_remember_me(:'carols');
SELECT issue_remember_me('carol') AS carols \gset
SELECT outcome, user_name FROM redeem_remember_me(:'carols');

-- One device is revoked by its series; so does a plain DELETE
SELECT issue_remember_me('dave', 'Laptop') AS laptop \gset
SELECT issue_remember_me('dave', 'Tablet') AS tablet \gset
SELECT open_session('dave''s session', 'dave') IS NOT NULL AS opened;
SELECT revoke_remember_me(split_part(:'laptop', ':', 1));
SELECT revoke_remember_me(split_part(:'laptop', ':', 1));
SELECT revoke_remember_me(split_part(:'tablet', ':', 1), 'other');
SELECT revoke_remember_me('laptop'), revoke_remember_me(''), revoke_remember_me(repeat('0', 1000000));
SELECT outcome, user_name, token FROM redeem_remember_me(:'laptop');
SELECT outcome, user_name FROM redeem_remember_me(:'tablet');
SELECT touch_session('dave''s session');
DELETE FROM remember_me_token WHERE application = 'remember_me' AND user_name = 'dave';
SELECT count(*) FROM remember_me_ancestor WHERE series = split_part(:'tablet', ':', 1);
SELECT scope, user_name, reason, sessions_ended, tokens_revoked
FROM invalidation WHERE application = 'remember_me' AND user_name = 'dave' ORDER BY id;

-- A device can be given another name
SELECT issue_remember_me('erin', 'Phone') AS phone \gset
SELECT rename_remembered_device(split_part(:'phone', ':', 1), E'Erin''s\x1b[31m phone');
SELECT device FROM series WHERE user_name = 'erin';
SELECT rename_remembered_device(split_part(:'phone', ':', 1), NULL);
SELECT device FROM series WHERE user_name = 'erin';
SELECT rename_remembered_device('phone', 'Phone');

-- A limit of devices per user: the one used least recently makes room
SELECT set_policy('max_remembered_devices_per_user', '2');
SELECT issue_remember_me('grace', 'First') AS first \gset
SELECT issue_remember_me('grace', 'Second') AS second \gset
SELECT outcome FROM redeem_remember_me(:'first');
SELECT issue_remember_me('grace', 'Third') IS NOT NULL AS issued;
SELECT device FROM series WHERE user_name = 'grace';
SELECT outcome FROM redeem_remember_me(:'second');
SELECT scope, reason, tokens_revoked FROM invalidation
WHERE application = 'remember_me' AND user_name = 'grace';
-- What exceeds a new limit goes with the next device; some users have their own
SELECT set_policy('max_remembered_devices_per_user', '1');
SELECT issue_remember_me('grace', 'Fourth') IS NOT NULL AS issued;
SELECT device FROM series WHERE user_name = 'grace';
SELECT set_policy('max_remembered_devices_per_user', '0', 'backup');
SELECT issue_remember_me('backup');
SELECT set_policy('max_remembered_devices_per_user', '-2');
SELECT set_policy('max_remembered_devices_per_user', 'many');
SELECT set_policy('max_remembered_devices_per_user', NULL);

-- What else ends with a stolen series is a policy
CREATE PROCEDURE pg_temp.steal(on_theft text) LANGUAGE plpgsql AS $$
DECLARE
    stolen text := session_admin.issue_remember_me('heidi', 'stolen');
    other text := session_admin.issue_remember_me('heidi', 'other');
    session text := on_theft || ' of heidi';
    current text;
BEGIN
    PERFORM session_admin.set_policy('on_theft', on_theft);
    PERFORM session_admin.open_session(session, 'heidi');
    SELECT token INTO current FROM session_admin.redeem_remember_me(stolen);
    PERFORM session_admin.redeem_remember_me(current);
    RAISE NOTICE '%: %, then session %, stolen series %, other series %', on_theft,
        (SELECT outcome FROM session_admin.redeem_remember_me(stolen)),
        CASE WHEN session_admin.touch_session(session) THEN 'lives' ELSE 'ended' END,
        (SELECT outcome FROM session_admin.redeem_remember_me(current)),
        (SELECT outcome FROM session_admin.redeem_remember_me(other));
END
$$;
CALL pg_temp.steal('end_series');
CALL pg_temp.steal('end_user');
CALL pg_temp.steal('end_user_and_devices');
SELECT set_policy('on_theft', NULL);
SELECT scope, reason, sessions_ended, tokens_revoked
FROM invalidation WHERE application = 'remember_me' AND user_name = 'heidi' ORDER BY id;

-- Refusals
SELECT issue_remember_me(NULL);
SELECT issue_remember_me('');
SELECT issue_remember_me(repeat('x', 1025));
SELECT revoke_remember_me(NULL);
SELECT rename_remembered_device(NULL, 'Phone');

-- What a client says of itself is cut
SELECT issue_remember_me('frank', repeat('d', 1000000), repeat('u', 1000000)) IS NOT NULL AS issued;
SELECT octet_length(device), octet_length(user_agent) FROM series WHERE user_name = 'frank';

-- TRUNCATE is no way round the door
BEGIN;
TRUNCATE remember_me_token;
SELECT count(*) FROM remember_me_ancestor;
ROLLBACK;

RESET search_path;
RESET session_admin.application;
