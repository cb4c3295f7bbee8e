-- 300 users for Jira's tables, the same each time; logins lie up to three years back.

INSERT INTO cwd_directory VALUES (1, 'Jira Internal Directory', 'jira internal directory', 1, 'INTERNAL', 0);

CREATE TEMPORARY TABLE person AS
SELECT 10000 + n AS id,
       first || '.' || last AS name, initcap(first) AS first, initcap(last) AS last,
       -- the first users of an old Jira have their name as key
       CASE WHEN n <= 40 THEN first || '.' || last ELSE 'JIRAUSER' || 10000 + n END AS key,
       -- numbers that look like chance
       (n * 7919) % 300 AS a, (n * 104729) % 86400 AS b
FROM (SELECT row_number() OVER (ORDER BY l, f)::int AS n,
             (ARRAY['alice', 'bruno', 'chen', 'dana', 'emil', 'fatima', 'goran', 'hana', 'ivan', 'julia',
                    'karim', 'lena', 'mateo', 'nadia', 'oskar', 'priya', 'quentin', 'rosa', 'samir', 'tove'])[f] AS first,
             (ARRAY['almeida', 'becker', 'costa', 'dubois', 'eriksen', 'ferrari', 'garcia', 'haddad',
                    'ito', 'jansen', 'kowalski', 'lindholm', 'moreau', 'novak', 'okafor'])[l] AS last
      FROM generate_series(1, 20) AS f, generate_series(1, 15) AS l) AS names;

INSERT INTO app_user SELECT id, key, name FROM person;

INSERT INTO cwd_user
SELECT id, 1, name, name, 1, now() - interval '4 years', now() - interval '4 years',
       first, lower(first), last, lower(last), first || ' ' || last, lower(first || ' ' || last),
       name || '@example.com', name || '@example.com', '{PKCS5S2}' || md5(name), 0, id::text
FROM person;

-- 280 have been here: most of them lately, some not for years
INSERT INTO cwd_user_attributes
SELECT id * 10 + t.n, id, 1, t.name, t.value, t.value
FROM (SELECT *, extract(epoch FROM now()) * 1000 - (a * a * a / 20000 * 86400.0 + b) * 1000 AS last_login
      FROM person WHERE a < 280) AS p,
LATERAL (VALUES (1, 'login.lastLoginMillis', (last_login::bigint)::text),
                (2, 'login.previousLoginMillis', ((last_login - 90000000)::bigint)::text),
                (3, 'login.count', (5 + b % 400)::text),
                (4, 'login.totalFailedCount', (b % 5)::text)) AS t (n, name, value);

-- every third has a device that is remembered
INSERT INTO remembermetoken
SELECT id, now() - make_interval(secs => b), md5('remember ' || id), key
FROM person WHERE a % 3 = 2;

DROP TABLE person;
