# Leases under clocks that are set, restarts and a promoted standby: "lease expired" is
# said only when it is so, and soon after.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# As the clock of a server is set by libfaketime, which leaves the monotonic one alone
my ($faketime) = glob '/usr/lib/*/faketime/libfaketime.so.1';
plan skip_all => 'libfaketime is not installed' unless defined $faketime;

my $clock = PostgreSQL::Test::Utils::tempdir . '/clock';
my $server = PostgreSQL::Test::Cluster->new('main');

# Set the clock, this far from the true time
sub set_clock
{
	my ($offset) = @_;
	my $file = "$clock.new";

	unlink $file;
	append_to_file($file, "$offset\n");
	rename $file, $clock or die "could not rename $file: $!";
	return;
}

sub start
{
	my ($node) = @_;

	local $ENV{LD_PRELOAD} = $faketime;
	local $ENV{FAKETIME_TIMESTAMP_FILE} = $clock;
	local $ENV{FAKETIME_NO_CACHE} = 1;
	local $ENV{DONT_FAKE_MONOTONIC} = 1;
	$node->start;
	return;
}

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

# What is said of the nodes: by wait_for_nodes(), by view nodes, by health
sub states
{
	my ($id, $node) = @_;
	$node //= $server;

	return $node->safe_psql('postgres', "SELECT string_agg(node || ':' || state, ' ' ORDER BY node) FROM session_admin.wait_for_nodes($id, '0')")
	  . ' / ' . $node->safe_psql('postgres', q{SELECT string_agg(node || ':' || state, ' ' ORDER BY node) FROM session_admin.nodes})
	  . ' / ' . $node->safe_psql('postgres', q{SELECT status FROM session_admin.health WHERE name = 'nodes'});
}

my $expired = 'lease expired: 1; look for nodes that are down, and leave_node() for those that are gone';

sub wait_until
{
	my ($id, $state, $node) = @_;
	$node //= $server;

	$node->poll_query_until('postgres', "SELECT state = '$state' FROM session_admin.wait_for_nodes($id, '0')")
	  or die "it is not: $state";
	return;
}

# The node syncs, and somebody is logged out; the id of that
my $users = 0;

sub synced_and_behind
{
	my ($node) = @_;
	$node //= $server;

	$users++;
	$node->safe_psql('postgres', q{SELECT FROM session_admin.sync_node('n', NULL)});
	return $node->safe_psql('postgres', "SELECT FROM session_admin.open_session('s $users', 'user $users');"
		  . " SELECT invalidation_id FROM session_admin.invalidate_user('user $users')");
}

$server->init(allows_streaming => 1);
$server->append_conf('postgresql.conf', "session_admin.application = 'wiki'");
set_clock('+0');
start($server);
sql(q{CREATE EXTENSION session_admin; SELECT session_admin.set_policy('node_lease', '1 day')});
my $now = sql('SELECT extract(epoch FROM clock_timestamp())::bigint');
set_clock('+7200');
cmp_ok(sql("SELECT extract(epoch FROM clock_timestamp())::bigint - $now"), '>', 7000, 'the clock can be set');

# Forward, by more than the lease
set_clock('+0');
my $id = synced_and_behind();
is(states($id), 'n:behind / n:behind / behind: 1', 'a node is behind');
set_clock('+172800');
is(states($id), 'n:behind / n:behind / behind: 1', 'the clock is set forward by two days: it still is');
sql(q{SELECT FROM session_admin.maintain()});
is(sql(q{SELECT node, state FROM session_admin.nodes}), 'n|behind', '... and is not forgotten');
sql(q{CREATE ROLE other LOGIN; SELECT session_admin.grant_access('other', 'node')});
my ($status, $out, $error) = $server->psql('postgres', q{SELECT session_admin.join_node('n')}, extra_params => [ '-U', 'other' ]);
like($error, qr/node "n" has joined as another role/, '... nor taken over');
set_clock('+0');
$id = synced_and_behind();
is(states($id), 'n:behind / n:behind / behind: 1', 'the clock is set back: it is behind');

# Back, by a day: a dead node is not behind for longer than its lease
sql(q{SELECT session_admin.set_policy('node_lease', '2 seconds')});
$id = synced_and_behind();
set_clock('-86400');
wait_until($id, 'lease expired');
is(states($id), "n:lease expired / n:lease expired / $expired", 'the clock is set back by a day: a lease runs out as it should');
set_clock('-172800');
is(states($id), "n:lease expired / n:lease expired / $expired", '... once more: it has');
is($server->safe_psql('postgres', q{SELECT session_admin.join_node('n') IS NOT NULL}, extra_params => [ '-U', 'other' ]), 't',
	'... and another role takes over');
sql(q{SELECT session_admin.leave_node('n')});
is(sql(q{SELECT count(*) FROM session_admin.wait_for_nodes((SELECT max(id) FROM session_admin_internal.invalidation), '1 second')}), 0, 'no node');
set_clock('+0');

# A restart: as long as the lease may run, it is not over
sql(q{SELECT session_admin.set_policy('node_lease', '1 day')});
$id = synced_and_behind();
$server->stop('immediate');
start($server);
is(states($id), 'n:behind / n:behind / behind: 1', 'a node is behind after a restart');
set_clock('+172800');
is(states($id), 'n:behind / n:behind / behind: 1', '... wherever the clock is set');
set_clock('+0');
sql(q{SELECT session_admin.set_policy('node_lease', '2 seconds')});
$id = synced_and_behind();
$server->stop('immediate');
start($server);
wait_until($id, 'lease expired');
is(states($id), "n:lease expired / n:lease expired / $expired", 'and when as long a time has passed, its lease has expired');

# A standby that has been up for long before it is promoted
sql(q{SELECT session_admin.set_policy('node_lease', '1 day')});
$server->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($server, 'backup', has_streaming => 1);
$standby->start;
$id = synced_and_behind();
$server->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT state FROM session_admin.nodes'), 'behind', 'on the standby it is seen');
$server->stop('immediate');
$standby->promote;
is(states($id, $standby), 'n:behind / n:behind / behind: 1', 'and after it was promoted');
is($standby->safe_psql('postgres', "SET default_transaction_read_only = on; SELECT state FROM session_admin.wait_for_nodes($id, '0')"),
	'behind', '... also to who may not write');
$standby->safe_psql('postgres', q{SELECT session_admin.set_policy('node_lease', '1 second')});
$id = synced_and_behind($standby);
wait_until($id, 'lease expired', $standby);
is(states($id, $standby), "n:lease expired / n:lease expired / $expired", '... and then its lease has expired');

# One that has joined and not synced yet keeps its name for as long as a lease
$standby->safe_psql('postgres', q{SELECT session_admin.set_policy('node_lease', '3 seconds'); SELECT session_admin.join_node('fresh');
	CREATE ROLE intruder LOGIN; SELECT session_admin.grant_access('intruder', 'node')});
($status, $out, $error) = $standby->psql('postgres', q{SELECT session_admin.join_node('fresh')}, extra_params => [ '-U', 'intruder' ]);
like($error, qr/node "fresh" has joined as another role/, 'a node that has just joined keeps its name');
is($standby->safe_psql('postgres', q{SELECT joined_by = current_user FROM session_admin_internal.node WHERE node = 'fresh'}), 't', '...');
$standby->poll_query_until('postgres', q{SELECT join_is_over FROM session_admin_internal.node_state WHERE node = 'fresh'}) or die 'it is never over';
is($standby->safe_psql('postgres', q{SELECT session_admin.join_node('fresh') IS NOT NULL}, extra_params => [ '-U', 'intruder' ]), 't',
	'... until as long as a lease has passed');
foreach my $name ('product:shop', 'product:')
{
	foreach my $call ("join_node('$name')", "sync_node('$name', NULL)")
	{
		($status, $out, $error) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT session_admin.$call");
		like($error, qr/22023: name of a node must not begin with "product:"/, "refused: $call");
	}
}

$standby->stop;
done_testing();
