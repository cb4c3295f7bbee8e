# No wake-up is missed: what commits between a node's look at the feed and its sleep ends
# that sleep at once.
#
# The library that waits in that window is built here: see 310_live_shared_table.pl.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tree = $ENV{TEST_POINTS_TREE};
if (!$tree)
{
	$tree = PostgreSQL::Test::Utils::tempdir . '/tree';
	mkdir $_ or die $! foreach $tree, "$tree/test";
	system_or_bail('cp', '-R', 'Makefile', 'session_admin.control', 'src', 'sql', $tree);
	system_or_bail('cp', '-R', 'test/points', "$tree/test");
	unlink glob("$tree/src/*.o $tree/src/*/*.o");
}
{
	# nothing of the make that runs this test
	delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS MAKEOVERRIDES)};
	system_or_bail('make', '-s', '-j2', '-C', $tree, 'TEST_POINTS=1', 'COPT=-O0',
		'PG_CONFIG=' . ($ENV{PG_CONFIG} || 'pg_config'), 'session_admin.so');
}

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->append_conf('postgresql.conf', "session_admin.application = 'wiki'");
$server->start;

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

sql(qq{CREATE EXTENSION session_admin; CREATE SCHEMA test_point;
	UPDATE pg_proc SET probin = '$tree/session_admin' WHERE probin = '\$libdir/session_admin'});
$server->append_conf('postgresql.conf', qq(
dynamic_library_path = '$tree:\$libdir'
shared_preload_libraries = 'session_admin'
));
$server->restart;
sql(qq{CREATE FUNCTION test_point.held(text) RETURNS void LANGUAGE c AS '$tree/session_admin', 'sa_test_point_held';
	CREATE FUNCTION test_point.release(text) RETURNS void LANGUAGE c AS '$tree/session_admin', 'sa_test_point_release';
	SELECT session_admin.set_policy('node_lease', '1 hour')});

my $psql = $server->background_psql('postgres');
foreach my $user ('alice', 'bob')
{
	my $position = sql(q{SELECT session_admin.join_node('n')});

	sql("SELECT session_admin.open_session('session of $user', '$user')");
	$psql->query_until(qr/begun/, "SET session_admin.test_points = '';\nSET session_admin.test_points = 'looked';\n\\echo begun\n"
		. "SELECT user_name FROM session_admin.sync_node('n', '$position', '15 minutes');\n\\echo returned\n");
	sql(q{SELECT test_point.held('looked')});
	sql("SELECT session_admin.invalidate_user('$user')");
	sql(q{SELECT test_point.release('looked')});
	like($psql->query_until(qr/returned/, ''), qr/^$user$/m, "what a node did not see of $user when it looked ends its sleep");
}
$psql->quit;
done_testing();
