#
# Limits of sessions hold at any committed moment, with 50 connections that log
# in at once, and nobody waits for a deadlock.
#
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $connections = 50;
my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->append_conf('postgresql.conf', <<'CONF');
max_connections = 100
# whoever waits for longer than this in a test of limits is told
deadlock_timeout = 100ms
CONF
$server->start;

$server->safe_psql('postgres', <<'SQL');
CREATE EXTENSION session_admin;
ALTER DATABASE postgres SET session_admin.application = 'wiki';
SELECT session_admin.open_session('first', 'first');

-- a login that may be refused, but may not fail in any other way
CREATE FUNCTION login(id text, user_name text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- as if it had never been used
    DELETE FROM session_admin_internal.ended_id WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM session_admin_internal.ended_id WHERE session_hash = sha256(id::bytea) FOR UPDATE SKIP LOCKED));
    PERFORM session_admin.open_session(id, user_name);
    RETURN true;
EXCEPTION WHEN SQLSTATE 'PT409' OR SQLSTATE 'PT410' THEN
    RETURN false;
END
$$;

-- what was seen of a limit that was exceeded, and how far it was filled
CREATE TABLE seen (what text, sessions bigint);
CREATE FUNCTION look(what text, who text, allowed bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO seen
    SELECT what, count(*) FROM session_admin.current_sessions
    WHERE user_name LIKE who AND user_name <> 'first' OR who IS NULL AND user_name IS NULL
    HAVING count(*) >= allowed
$$;
SQL

sub write_script
{
	my ($name, $sql) = @_;
	my $file = $server->basedir . "/$name.sql";
	append_to_file($file, $sql);
	return $file;
}

# All these scripts, each as often as its weight says, from all connections.
sub run_scripts
{
	my ($what, $transactions, %scripts) = @_;
	my @files = map { ('-f', write_script("$what $_", $scripts{$_}[1]) . '@' . $scripts{$_}[0]) }
	  sort keys %scripts;

	my ($out, $err);
	my $done = IPC::Run::run(
		[
			'pgbench', '-n', '-c', $connections, '-j', 2, '-t', $transactions, @files,
			'-h', $server->host, '-p', $server->port, 'postgres'
		],
		'>', \$out, '2>', \$err);
	ok($done, "$what: every call returns") or diag($err);
	unlike($err, qr/deadlock/, "$what: no deadlock");
	return;
}

sub value
{
	return $server->safe_psql('postgres', shift);
}

sub filled_exactly
{
	my ($what, $allowed) = @_;
	is(value("SELECT max(sessions) FROM seen WHERE what = '$what'"),
		$allowed, "$what: as many as allowed, and never more");
	return;
}

# One user
value("SELECT session_admin.set_policy('max_sessions_per_user', '5')");
my $random_id = "\\set id random(1, 60)\n";
run_scripts(
	'one user', 40,
	login => [ 6, "$random_id SELECT login('one ' || :id, 'alice');" ],
	logout => [ 2, "$random_id SELECT session_admin.close_session('one ' || :id);" ],
	renew => [ 1, "$random_id SELECT session_admin.touch_session('one ' || :id);" ],
	look => [ 2, "SELECT look('one user', 'alice', 5);" ]);
filled_exactly('one user', 5);

# The same, where the oldest makes room: everybody gets in
value("SELECT session_admin.set_policy('on_session_limit', 'evict_oldest')");
run_scripts(
	'evicted', 40,
	login => [ 6, "\\set id random(1, 1000000000)\nSELECT session_admin.open_session('evicted ' || :id, 'alice');" ],
	touch => [ 1, "$random_id SELECT session_admin.touch_session('one ' || :id);" ],
	look => [ 2, "SELECT look('evicted', 'alice', 5);" ]);
filled_exactly('evicted', 5);
is(value("SELECT count(*) FROM session_admin.current_sessions WHERE user_name = 'alice'"),
	5, 'the user has as many as allowed');
is( value(
		"SELECT count(*) FROM session_admin.session_history
		 WHERE user_name = 'alice' AND end_reason = 'session_limit'"),
	value("SELECT count(*) FROM session_admin.invalidations WHERE reason = 'session_limit'"),
	'and of each that made room the nodes hear');

# Seats, with transactions that log in two, that change their mind, and that wait
value("SELECT session_admin.invalidate_application()");
value("SELECT session_admin.set_policy('max_sessions_per_user', NULL)");
value("SELECT session_admin.set_policy('max_sessions', '41')");
value("SELECT session_admin.open_session('second', 'first')");
my $random_user = "\\set id random(1, 300)\n\\set next :id + 1\n";
run_scripts(
	'seats', 60,
	login => [ 6, "$random_user SELECT login('seat ' || :id, 'seat user ' || :id);" ],
	two => [ 2, "$random_user BEGIN; SELECT login('seat ' || :id, 'seat user ' || :id);
			SELECT login('seat ' || :next, 'seat user ' || :next); COMMIT;" ],
	changed_mind => [ 1, "$random_user BEGIN; SELECT login('seat ' || :id, 'seat user ' || :id); ROLLBACK;" ],
	logout => [ 4, "$random_user SELECT session_admin.close_session('seat ' || :id);" ],
	renew => [ 1, "$random_user SELECT session_admin.touch_session('seat ' || :id);" ],
	look => [ 2, "SELECT look('seats', 'seat user %', 40);" ]);
value("SELECT count(login('seat ' || i, 'seat user ' || i)) FROM generate_series(1, 300) AS i");
value("SELECT look('seats', 'seat user %', 40)");
filled_exactly('seats', 40);

# All at once for the last seats: each of them is taken, no more
value("SELECT session_admin.invalidate_application()");
value("SELECT session_admin.open_session('third', 'first')");
run_scripts('last seats', 1,
	login => [ 1, "SELECT login('last ' || :client_id, 'last user ' || :client_id);" ]);
value("SELECT look('last seats', 'last user %', 0)");
filled_exactly('last seats', 40);

# Visitors, who have a limit of their own
value("SELECT session_admin.set_policy('max_anonymous_sessions', '10')");
run_scripts(
	'visitors', 20,
	visit => [ 4, "$random_id SELECT login('visitor ' || :id, NULL);" ],
	leave => [ 1, "$random_id SELECT session_admin.close_session('visitor ' || :id);" ],
	look => [ 1, "SELECT look('visitors', NULL, 10);" ]);
filled_exactly('visitors', 10);

# A login that is only prepared holds its seat too
SKIP:
{
	value("SELECT session_admin.invalidate_application()");
	skip 'max_prepared_transactions is 0', 2
	  if value("SELECT current_setting('max_prepared_transactions')") eq '0';
	value("SELECT session_admin.set_policy('max_sessions', '1')");
	value("BEGIN; SELECT session_admin.open_session('prepared', 'alice'); PREPARE TRANSACTION 'login'");
	is(value("SELECT login('late', 'bruno')"), 'f', 'a prepared login holds its seat');
	value("ROLLBACK PREPARED 'login'");
	is(value("SELECT login('late', 'bruno')"), 't', 'until it is rolled back');
}

$server->stop;
done_testing();
