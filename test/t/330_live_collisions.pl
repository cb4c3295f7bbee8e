# Session ids that meet in one place of the shared table of live sessions cost time
# and nothing else: each request is written once, and the server stops and starts.
#
# First ids that somebody has chosen: their hashes begin with the same bytes.  Then,
# since nobody can choose ids that do collide, a library in which all do (see
# test/points).

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
session_admin.worker = off
session_admin.max_live_sessions = 200000
autovacuum = off
fsync = off
));
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION session_admin;
	CREATE ROLE shop LOGIN;
	SELECT session_admin.grant_access('shop', 'application')});

sub sql
{
	my ($query, @options) = @_;
	return $node->safe_psql('postgres', "SET client_min_messages = warning; $query", @options);
}

# What the application does: each id is the hash of a session id.
my $ids;

sub open_and_touch
{
	my ($n, $id) = @_;

	$ids = "array(SELECT $id FROM generate_series(1, $n) i)";
	sql("SELECT count(session_admin.open_session(id, 'u' || n % 50)) FROM unnest($ids) WITH ORDINALITY AS u (id, n)",
		extra_params => [ '-U', 'shop' ]);
	is(touch(), '{}', "$n sessions are touched");
}

sub touch
{
	return sql("SELECT session_admin.touch_sessions($ids)", extra_params => [ '-U', 'shop' ]);
}

sub flushed
{
	return sql(q{SELECT done FROM session_admin.maintain() WHERE task = 'touches flushed'});
}

# Requests as the table counts them, and with those that it does not count yet
sub requests
{
	my ($view) = @_;
	return sql("SELECT sum(requests), max(requests) FROM $view");
}

# A stop that never ends is an error.
sub stop_and_start
{
	my ($mode) = @_;
	my $log = -s $node->logfile;

	is(system_log('pg_ctl', 'stop', '-D', $node->data_dir, '-m', $mode, '-t', '120', '-s'), 0, "it stops: $mode");
	$node->_update_pid(0);
	cmp_ok(-s $node->data_dir . '/pg_stat/session_admin.stat' // 0, '<', 30_000_000, 'the file has an end');
	$node->start;
	unlike(slurp_file($node->logfile, $log), qr/PANIC|TRAP|ignored file/, 'and starts');
}

sub count_over_restarts
{
	my ($n) = @_;

	is(flushed(), $n, 'each request is written');
	is(requests('session_admin.session'), "$n|1", 'once');
	is(flushed(), '0', 'and not again');
	touch();
	stop_and_start('fast');
	is(requests('session_admin.session'), "$n|1", 'the table does not know of those after it');
	is(requests('session_admin_internal.session_state'), 2 * $n . '|2', 'they outlive a restart');
	touch();
	stop_and_start('smart');
	is(requests('session_admin_internal.session_state'), 3 * $n . '|3', 'and another one');
	is(flushed(), $n, 'each session is written once');
	is(requests('session_admin.session'), 3 * $n . '|3', 'with all of its requests');
	is(sql('SELECT used, unflushed FROM session_admin_internal.live_status()'), "$n|0", 'nothing else is left in memory');
	sql('DELETE FROM session_admin.session');
	is(sql('SELECT used FROM session_admin_internal.live_status()'), '0', 'and nothing after their end');
}

# Chosen ids: of many, and of one whole hash but for its end
open_and_touch(2500, q{('\x00000000' || encode(substr(sha256(i::text::bytea), 1, 28), 'hex'))::bytea});
count_over_restarts(2500);
open_and_touch(5000, q{decode(lpad(to_hex(i), 64, '0'), 'hex')});
count_over_restarts(5000);


# All collide.
my $tree = PostgreSQL::Test::Utils::tempdir . '/tree';
mkdir $_ or die $! foreach $tree, "$tree/test";
system_or_bail('cp', '-R', 'Makefile', 'session_admin.control', 'src', 'sql', $tree);
system_or_bail('cp', '-R', 'test/points', "$tree/test");
unlink glob("$tree/src/*.o $tree/src/*/*.o");
{
	# nothing of the make that runs this test
	delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS MAKEOVERRIDES)};
	system_or_bail('make', '-s', '-j2', '-C', $tree, 'TEST_POINTS=1',
		'PG_CONFIG=' . ($ENV{PG_CONFIG} || 'pg_config'), 'session_admin.so');
}
sql(qq{UPDATE pg_proc SET probin = '$tree/session_admin' WHERE probin = '\$libdir/session_admin'});
$node->append_conf('postgresql.conf', qq(
dynamic_library_path = '$tree:\$libdir'
session_admin.test_collisions = on
));
$node->restart;
my $all = $ENV{SESSION_ADMIN_COLLISIONS} // 20000;
$ids = qq{array(SELECT sha256(i::text::bytea) FROM generate_series(1, $all) i)};
# none ends by itself, however long this takes
sql(qq{
	SELECT session_admin.set_policy(name, '1 day')
	FROM unnest('{anonymous_idle_timeout,anonymous_absolute_timeout,idle_timeout,absolute_timeout}'::text[]) AS name;
	SELECT session_admin.open_session('one', 'alice');
	INSERT INTO session_admin.session (session_hash, application, generation, created_at, last_access_at)
	SELECT id, s.application, s.generation, s.created_at, s.last_access_at
	FROM session_admin.session s, unnest($ids) AS id;
	SELECT session_admin.close_session('one')});
is(touch(), '{}', "$all sessions are touched");
is(flushed(), $all, 'each request is written');
is(requests('session_admin.session'), "$all|1", 'once');
is(flushed(), '0', 'and not again');
# a look at one of them goes over half of the others: touch some
$ids = qq{array(SELECT sha256(i::text::bytea) FROM generate_series(1, $all, $all / 1000) i)};
touch();
stop_and_start('fast');
is(requests('session_admin.session'), "$all|1", 'the table does not know of those after it');
is(flushed(), '1000', 'they outlive a restart, and are written');
is(requests('session_admin.session'), ($all + 1000) . "|2", 'once');
is(flushed(), '0', 'and not again');
touch();
stop_and_start('smart');
is(flushed(), '1000', 'another restart');
is(requests('session_admin.session'), ($all + 2000) . "|3", 'counts them');

$node->stop;
done_testing();
