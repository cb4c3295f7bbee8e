-- The client's address behind proxies: client_address(peer, forwarded_for, trusted)

BEGIN;

-- Each header is what arrives at the application from the proxy 10.0.0.1, unless
-- another peer is named.  Trusted are 10.0.0.0/8 and fd00::/8.
CREATE TEMPORARY TABLE one_case (
    id          int GENERATED ALWAYS AS IDENTITY,
    about       text NOT NULL,
    header      text,
    expected    inet,
    peer        inet DEFAULT '10.0.0.1',
    trusted     cidr[] DEFAULT '{10.0.0.0/8,fd00::/8}'
);

-- RFC 7239, the examples of its sections
INSERT INTO one_case (about, header, expected) VALUES
    ('section 4: obfuscated', 'for="_gazonk"', '10.0.0.1'),
    ('section 4: name in any case, IPv6 with a port', 'For="[2001:db8:cafe::17]:4711"', '2001:db8:cafe::17'),
    ('section 4: other parameters', 'for=192.0.2.60;proto=http;by=203.0.113.43', '192.0.2.60'),
    ('section 4: elements', 'for=192.0.2.43, for=198.51.100.17', '198.51.100.17'),
    ('section 4: elements, the last is a proxy', 'for=192.0.2.43, for=10.0.0.2', '192.0.2.43'),
    ('section 6: IPv4 with a port', 'for="192.0.2.43:47011"', '192.0.2.43'),
    ('section 6: IPv6 with a port', 'for="[2001:db8:cafe::17]:47011"', '2001:db8:cafe::17'),
    ('section 6: obfuscated port', 'for="192.0.2.43:_p.o-r_t"', '192.0.2.43'),
    ('section 6.1: IPv6 without a port', 'for="[2001:db8:cafe::17]"', '2001:db8:cafe::17'),
    ('section 6.2: unknown', 'for=unknown', '10.0.0.1'),
    ('section 6.2: unknown, in any case', 'for=Unknown', '10.0.0.1'),
    ('section 6.2: unknown with a port', 'for="unknown:80"', '10.0.0.1'),
    ('section 6.3: obfuscated', 'for=_hidden, for=_SEVKISEK', '10.0.0.1'),
    ('section 7.1: elements of one field', 'for=192.0.2.43, for="[2001:db8:cafe::17]", for=unknown', '10.0.0.1'),
    ('section 7.1: two fields joined', 'for=192.0.2.43, for="[fd00::17]",for=10.0.0.2', '192.0.2.43'),
    ('section 7.4: X-Forwarded-For', '192.0.2.43, 2001:db8:cafe::17', '2001:db8:cafe::17'),
    ('section 7.4: the same as Forwarded', 'for=192.0.2.43, for="[2001:db8:cafe::17]"', '2001:db8:cafe::17'),
    ('section 7.5: usage', 'for=192.0.2.43, for=198.51.100.17;by=203.0.113.60;proto=http;host=example.com', '198.51.100.17');

-- The rule: from the right, skip what is trusted, the first other address wins
INSERT INTO one_case (about, header, expected) VALUES
    ('one address', '192.0.2.1', '192.0.2.1'),
    ('one address, IPv6', '2001:db8::1', '2001:db8::1'),
    ('the proxies are skipped', '192.0.2.1, 10.0.0.3, 10.0.0.2', '192.0.2.1'),
    ('proxies of both families are skipped', '192.0.2.1, fd00::3, 10.0.0.2', '192.0.2.1'),
    ('what stands left of the answer is not believed', '198.51.100.1, 192.0.2.1, 10.0.0.2', '192.0.2.1'),
    ('a proxy left of the answer does not matter', '10.0.0.3, 192.0.2.1', '192.0.2.1'),
    ('all are trusted: the leftmost', '10.3.0.1, 10.2.0.1, fd00::2', '10.3.0.1'),
    ('all are trusted: the leftmost, as Forwarded', 'for="[fd00::3]", for=10.2.0.1', 'fd00::3'),
    ('one trusted address', '10.2.0.1', '10.2.0.1');

-- A hop that does not tell: nobody knows who is behind, the last known hop is the answer
INSERT INTO one_case (about, header, expected) VALUES
    ('unknown behind a proxy', 'for=192.0.2.1, for=unknown, for=10.0.0.2', '10.0.0.2'),
    ('obfuscated behind two proxies', 'for=192.0.2.1, for="_a:_b", for=10.0.0.3, for="[fd00::2]"', '10.0.0.3'),
    ('an element that does not say for', 'for=192.0.2.1, by=10.0.0.3;proto=https, for=10.0.0.2', '10.0.0.2'),
    ('unknown in X-Forwarded-For, as Squid writes it', '192.0.2.1, unknown, 10.0.0.2', '10.0.0.2'),
    ('unknown left of the answer', 'for=unknown, for=192.0.2.1', '192.0.2.1');

-- Who is not trusted is not asked
INSERT INTO one_case (about, peer, header, trusted, expected) VALUES
    ('an untrusted peer', '203.0.113.9', '192.0.2.1', DEFAULT, '203.0.113.9'),
    ('an untrusted peer, IPv6', '2001:db8::9', 'for=192.0.2.1', DEFAULT, '2001:db8::9'),
    ('nobody is trusted', DEFAULT, '192.0.2.1', '{}', '10.0.0.1'),
    ('nobody is trusted (NULL)', DEFAULT, '192.0.2.1', NULL, '10.0.0.1'),
    ('a NULL among the trusted', DEFAULT, '192.0.2.1', '{NULL,10.0.0.0/8}', '192.0.2.1'),
    ('trusted in two dimensions', DEFAULT, '192.0.2.1, 172.16.0.1', '{{192.168.0.0/16,10.0.0.0/8},{172.16.0.0/12,fd00::/8}}', '192.0.2.1'),
    ('one host is trusted', DEFAULT, '192.0.2.1, 10.0.0.2', '{10.0.0.1}', '10.0.0.2'),
    ('everybody is trusted: the leftmost', DEFAULT, '192.0.2.1, 198.51.100.7', '{0.0.0.0/0}', '192.0.2.1'),
    ('all of IPv4 is not IPv6', DEFAULT, '192.0.2.1, 2001:db8::5', '{0.0.0.0/0}', '2001:db8::5'),
    ('all of IPv6 is not IPv4', DEFAULT, '192.0.2.1', '{::/0}', '10.0.0.1'),
    ('the last bit of a network counts', '10.0.0.128', '192.0.2.1', '{10.0.0.0/25}', '10.0.0.128'),
    ('no header', DEFAULT, NULL, DEFAULT, '10.0.0.1'),
    ('an empty header', DEFAULT, '', DEFAULT, '10.0.0.1'),
    ('no peer', NULL, '192.0.2.1', DEFAULT, NULL),
    ('nothing at all', NULL, NULL, NULL, NULL);

-- Plain host addresses, of IPv4 where they can be
INSERT INTO one_case (about, peer, header, trusted, expected) VALUES
    ('a peer with a netmask', '203.0.113.9/24', NULL, DEFAULT, '203.0.113.9/32'),
    ('a peer with a netmask, IPv6', '2001:db8::9/64', NULL, DEFAULT, '2001:db8::9/128'),
    ('a trusted peer with a netmask', '10.0.0.1/8', '192.0.2.1', DEFAULT, '192.0.2.1'),
    ('a mapped peer', '::ffff:203.0.113.9', NULL, NULL, '203.0.113.9'),
    ('a mapped peer is trusted', '::ffff:10.0.0.1', '192.0.2.1', DEFAULT, '192.0.2.1'),
    ('a mapped peer in a mapped network', '::ffff:10.0.0.1', '192.0.2.1', '{::ffff:10.0.0.0/104}', '192.0.2.1'),
    ('a mapped network holds plain peers', DEFAULT, '192.0.2.1', '{::ffff:10.0.0.0/104}', '192.0.2.1'),
    ('a mapped network has a limit', '10.1.0.1', '192.0.2.1', '{::ffff:10.0.0.0/112}', '10.1.0.1'),
    ('all mapped addresses are all of IPv4', DEFAULT, '192.0.2.1', '{::ffff:0.0.0.0/96}', '192.0.2.1'),
    ('mapped addresses in the list', DEFAULT, '::ffff:192.0.2.1, ::FFFF:10.0.0.2', DEFAULT, '192.0.2.1'),
    ('mapped, in hexadecimal', DEFAULT, 'for="[::ffff:c000:201]"', DEFAULT, '192.0.2.1'),
    ('compatible is not mapped', DEFAULT, '::192.0.2.1', DEFAULT, '::192.0.2.1');

-- What proxies write, beyond the plainest
INSERT INTO one_case (about, header, expected) VALUES
    ('IPv4 with a port', '192.0.2.1:1234', '192.0.2.1'),
    ('IPv6 in brackets', '[2001:db8::1]', '2001:db8::1'),
    ('IPv6 in brackets with a port', '[2001:db8::1]:443, 10.0.0.2:80', '2001:db8::1'),
    ('IPv6 without brackets has no port', '2001:db8::1:443', '2001:db8::1:443'),
    ('upper case', '2001:DB8::ABCD', '2001:db8::abcd'),
    ('no spaces', '192.0.2.1,10.0.0.2', '192.0.2.1'),
    ('spaces', '  192.0.2.1  ,   10.0.0.2  ', '192.0.2.1'),
    ('tabs', E'\t192.0.2.1\t,\t10.0.0.2\t', '192.0.2.1'),
    ('empty elements', ', ,192.0.2.1, ,,10.0.0.2,', '192.0.2.1'),
    ('only empty elements', ', ,,', '10.0.0.1'),
    ('only spaces', '   ', '10.0.0.1'),
    ('empty elements in Forwarded', ', for=192.0.2.1, ,for=10.0.0.2,,', '192.0.2.1'),
    ('empty pairs', ';;for=192.0.2.1;;proto=http;', '192.0.2.1'),
    ('space around semicolons', 'proto=https ; for=192.0.2.1 ; by=_x', '192.0.2.1'),
    ('for is not the first', 'by="[fd00::1]:80";proto=https;FOR=192.0.2.1', '192.0.2.1'),
    ('by and extensions are not for', 'for=192.0.2.1;by=6.6.6.6;xfor=6.6.6.6;for-x=6.6.6.6', '192.0.2.1'),
    ('quoted though not needed', 'for="192.0.2.1"', '192.0.2.1'),
    ('escapes', 'for="1\92\.0.\2.1"', '192.0.2.1'),
    ('escaped quotes and backslashes elsewhere', 'for=192.0.2.1;host="a\"b\\", for=10.0.0.2;x="\\\""', '192.0.2.1'),
    ('commas and semicolons in quotes', 'for=192.0.2.1;host="a,for=6.6.6.6;for=6.6.6.6"', '192.0.2.1'),
    ('a tab and letters of any language in quotes', E'for=192.0.2.1;host="b\tücher 例え"', '192.0.2.1'),
    ('an empty quoted string', 'for=192.0.2.1;host=""', '192.0.2.1');

-- Tricks: a client sends the header, the proxy 10.0.0.1 appends 192.0.2.1
INSERT INTO one_case (about, header, expected) VALUES
    ('an address', '6.6.6.6, 192.0.2.1', '192.0.2.1'),
    ('an address that is trusted', '10.0.0.5, 192.0.2.1', '192.0.2.1'),
    ('many addresses', repeat('6.6.6.6, ', 500) || '192.0.2.1', '192.0.2.1'),
    ('the header twice, joined', '6.6.6.6,7.7.7.7, 192.0.2.1', '192.0.2.1'),
    ('rubbish does not hide the client', '<script>alert(1)</script>, 192.0.2.1', '192.0.2.1'),
    ('SQL', $$'); DROP TABLE session; --, 192.0.2.1$$, '192.0.2.1'),
    ('an open quote', '"6.6.6.6, 192.0.2.1', '192.0.2.1'),
    ('an open bracket', '[6.6.6.6, 192.0.2.1', '192.0.2.1'),
    ('a backslash', '6.6.6.6\, 192.0.2.1', '192.0.2.1'),
    ('the other header''s syntax', 'for=6.6.6.6, 192.0.2.1', '192.0.2.1'),
    ('a comma at the end', '6.6.6.6,, 192.0.2.1', '192.0.2.1'),
    ('a line end', E'6.6.6.6\r\nX-Forwarded-For: 7.7.7.7, 192.0.2.1', '192.0.2.1'),
    ('letters that look like others', '６.６.６.６, 192.0.2.1', '192.0.2.1'),
    ('no proxies between', 'for=6.6.6.6, for=192.0.2.1', '192.0.2.1'),
    ('a quote that swallows what is appended', 'for=6.6.6.6;x=", for=192.0.2.1', '192.0.2.1'),
    ('the same, and a quoted address is appended', 'for=6.6.6.6;x=", for="[2001:db8::1]:80"', '2001:db8::1'),
    ('an escape before the comma', 'x="\, for=192.0.2.1', '192.0.2.1'),
    ('a quote to be closed by the proxy''s own', 'x=", for=192.0.2.1;host=";for=6.6.6.6;y="', '192.0.2.1'),
    ('the same, and the proxy escapes', 'for=6.6.6.6;x=", for=192.0.2.1;host="\";for=6.6.6.6;y=\""', '192.0.2.1'),
    ('an unterminated escape', 'for="6.6.6.6\, for=192.0.2.1', '192.0.2.1'),
    ('two headers that disagree', '6.6.6.6, for=192.0.2.1', '192.0.2.1'),
    ('a trusted address, to go on to the lie', 'for=6.6.6.6, for=10.0.0.5, for=192.0.2.1', '192.0.2.1');

-- Malformed where it is read: something is wrong with the proxies, so the peer
INSERT INTO one_case (about, header, expected)
SELECT 'malformed: ' || to_json(left(header, 60)), header, '10.0.0.1'
FROM unnest(ARRAY[
    'rubbish', 'localhost', 'example.com', '-', '_', '.', ':', '[]', '[', ']', '=', ';', '"', '\', '""', 'for',
    '192.0.2', '192.0.2.', '.192.0.2.1', '192.0.2.1.', '192.0.2.1.1', '192.0.2.256', '192.0.2.1/32', '3221225985',
    '010.1.1.1', '192.0.2.01', '192.0.2.0x1', '0xc0.0.2.1', '127.1', '192 .0.2.1', '192.0.2.1 192.0.2.2', '+1.2.3.4',
    '192.0.2.1;192.0.2.2', '192.0.2.-1', '192.0.2.1:', '192.0.2.1:x', '192.0.2.1:-1', '192.0.2.1:65536',
    '192.0.2.1:123456', '192.0.2.1: 80', '[192.0.2.1]', '[192.0.2.1]:80', '"192.0.2.1"', '"[2001:db8::1]"',
    '2001:db8::1::2', '2001:db8', ':::', '1:2:3:4:5:6:7:8:9', '12345::', '2001:db8::g', '2001:db8::1/64',
    '::ffff:010.1.1.1', '::ffff:1.2.3.256', '::1.2.3.4.5', 'fe80::1%eth0', '[fe80::1%eth0]', '[fe80::1%25eth0]:80',
    '[2001:db8::1', '2001:db8::1]', '[2001:db8::1]80', '[2001:db8::1]:', '[2001:db8::1]:99999', '[[2001:db8::1]]',
    'unknown:', '_a b', '_ä', 'unknown1', E'192.0.2.1\r\n', E'192.0.2.1\x01', '１92.0.2.1', '192。0。2。1',
    E'192.0.2.1\u00a0', E'192.0.2.1\u200b', repeat('9', 100), repeat(':', 45), repeat('[', 1000),
    'for=', 'for=""', 'for= 192.0.2.1', 'for =192.0.2.1', 'for:192.0.2.1', 'for=192.0.2.1 proto=http',
    'for=192.0.2.1;proto', 'for=192.0.2.1;proto=', 'for=192.0.2.1;=http', 'for=192.0.2.1;for=192.0.2.2',
    'for=192.0.2.1;For=unknown', 'for=192.0.2.1;for=rubbish', 'for=192.0.2.1:80', 'for=2001:db8::1',
    'for=[2001:db8::1]', 'for="2001:db8::1"', 'for="[2001:db8::1"', 'for="192.0.2.1', 'for=192.0.2.1"',
    'for="192.0.2.1\"', 'for="192.0.2.1"x', 'for="192.0.2.1""192.0.2.2"', 'for=''192.0.2.1''', 'for=" 192.0.2.1"',
    'for="192.0.2.1 "', 'for="192.0.2.1, 192.0.2.2"', E'for="192.0.2.1\n"', E'for="192.0.2.1\\\x7f"',
    'for=010.1.1.1', 'for="[fe80::1%eth0]"', 'for="[192.0.2.1]"', 'for=192.0.2.1;ho st=a', 'for=192.0.2.1;hö=a',
    'for=192.0.2.1;host=ö', 'for=192.0.2.1;host=a/b', 'for=192.0.2.1;host="a', 'for=192.0.2.1;x=\"',
    'for=_', 'for=_a/b', 'for="_a b"', 'for=unknown1', 'for="unknown:65536"', 'for="unknown:_"',
    '192.0.2.1, rubbish', '192.0.2.1, rubbish, 10.0.0.2', 'for=192.0.2.1, 10.0.0.2', '192.0.2.1, for=10.0.0.2;x',
    'for=192.0.2.1, for="10.0.0.2', '10.0.0.3, for=10.0.0.2', 'for=10.0.0.3, 10.0.0.2'
]) AS header;

-- Oversized: not read at all
INSERT INTO one_case (about, header, expected) VALUES
    ('8192 bytes are read', lpad('192.0.2.1', 8192, ' '), '192.0.2.1'),
    ('8193 bytes are not', lpad('192.0.2.1', 8193, ' '), '10.0.0.1'),
    ('8192 bytes of Forwarded', 'for=192.0.2.1;x="' || repeat('\"', 4087) || '"', '192.0.2.1'),
    ('1 MB of addresses', repeat('192.0.2.1,', 100000) || '192.0.2.1', '10.0.0.1'),
    ('1 MB of commas', repeat(',', 1000000), '10.0.0.1'),
    ('1 MB of quotes', repeat('"', 1000000), '10.0.0.1'),
    ('1 MB of backslashes', 'for="' || repeat('\', 1000000) || '"', '10.0.0.1'),
    ('8 kB of commas', repeat(',', 8192), '10.0.0.1'),
    ('8 kB of backslashes', repeat('\', 8191) || '"', '10.0.0.1'),
    ('1000 proxies', '192.0.2.1' || repeat(',10.0.0.2', 900), '192.0.2.1');

SELECT plan(count(*)::int + 5) FROM one_case;

SELECT is(session_admin.client_address(peer, header, trusted), expected, about)
FROM one_case ORDER BY id;

SELECT function_returns('session_admin', 'client_address', ARRAY['inet', 'text', 'cidr[]'], 'inet');
SELECT volatility_is('session_admin', 'client_address', ARRAY['inet', 'text', 'cidr[]'], 'immutable');
SELECT isnt_strict('session_admin', 'client_address', ARRAY['inet', 'text', 'cidr[]']);
SELECT is(proparallel, 's', 'client_address is parallel safe')
FROM pg_proc WHERE oid = 'session_admin.client_address(inet, text, cidr[])'::regprocedure;

-- Whatever a client puts before it, the answer of a header stands
SELECT is_empty($$
    SELECT lie.header, truth.header
    FROM one_case AS truth, one_case AS lie
    WHERE NOT truth.expected <<= ANY (truth.trusted)
      AND truth.peer <<= ANY (truth.trusted)
      AND octet_length(lie.header) + octet_length(truth.header) < 8192
      AND session_admin.client_address(truth.peer, lie.header || ',' || truth.header, truth.trusted)
          IS DISTINCT FROM truth.expected
    $$, 'each header above with each other one before it');

SELECT * FROM finish();
ROLLBACK;
