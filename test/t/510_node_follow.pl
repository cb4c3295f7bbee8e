# Two nodes follow the feed with pg_session_follow.  One is stopped, killed, or
# cut off while sessions end: it is right after it comes back, and until then
# wait_for_nodes() says what is true of it.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->append_conf('postgresql.conf', "session_admin.application = 'wiki'");
$server->start;

# short, because we wait for one to run out, but long enough for what has to happen before
sql("CREATE EXTENSION session_admin");
sql("SELECT session_admin.set_policy('node_lease', '8 seconds')");

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

# Start pg_session_follow as this node; once more, if it is one that ended.
sub follow
{
	my ($node, @options) = @_;
	my $follower = { node => $node, out => "$dir/$node.out", err => "$dir/$node.err" };

	$follower->{read} = -s $follower->{out} // 0;
	$follower->{process} = IPC::Run::start(
		[
			'pg_session_follow', '-d', $server->connstr('postgres'), '-U', 'node', '-n', $node,
			@options
		],
		'<', \undef, '>>', $follower->{out}, '2>>', $follower->{err});
	return $follower;
}

sub end_by
{
	my ($follower, $signal) = @_;

	$follower->{process}->signal($signal);
	$follower->{process}->finish;
}

# What it has printed since the last call, without ids and times.
sub printed
{
	my ($follower) = @_;
	my $all = slurp_file($follower->{out}, $follower->{read});

	$follower->{read} += length $all;
	$all =~ s/"id":\d+,//g;
	$all =~ s/,"at":"[^"]+"//g;
	return $all;
}

my $sessions = 0;

# A user logs in and is logged out everywhere; the id of that invalidation.
sub log_out
{
	my ($user) = @_;

	$sessions++;
	sql("SELECT session_admin.open_session('session $sessions of $user', '$user')");
	return sql("SELECT invalidation_id FROM session_admin.invalidate_user('$user')");
}

# What wait_for_nodes() says: "n1:applied n2:behind"
sub states
{
	my ($id, $timeout) = @_;

	return sql("SELECT string_agg(node || ':' || state, ' ' ORDER BY node)"
		  . " FROM session_admin.wait_for_nodes($id, '$timeout')");
}

# The same when all have applied it.  A machine that is busy may let the lease of a node run
# out that is at work.
sub settled
{
	my ($id) = @_;
	my $states = states($id, '1 minute');

	return $states unless $states =~ /lease expired/;
	note "at first $states";
	wait_until('all', 'applied', $id);
	return states($id, '1 minute');
}

# Wait until one of them (or "all") is in this state, however long that takes.
sub wait_until
{
	my ($node, $state, $id) = @_;

	$server->poll_query_until('postgres',
		"SELECT count(*) > 0 AND bool_and(state = '$state')"
		  . " FROM session_admin.wait_for_nodes($id, '0') WHERE '$node' IN (node, 'all')")
	  or die "node $node is not: $state";
}

sub line
{
	my ($user) = @_;
	return qq({"scope":"user","application":"wiki","user":"$user","reason":"admin"}\n);
}

program_help_ok('pg_session_follow');
program_version_ok('pg_session_follow');
program_options_handling_ok('pg_session_follow');
command_fails_like(
	[ 'pg_session_follow', '-d', $server->connstr('nowhere') ],
	qr/database "nowhere" does not exist/,
	'what is wrong at the start is not tried again');
sql('CREATE ROLE node LOGIN');
command_fails_like(
	[ 'pg_session_follow', '-d', $server->connstr('postgres'), '-U', 'node' ],
	qr/permission denied/,
	'nor is what is not permitted');
sql("SELECT session_admin.grant_access('node', 'node')");


# Both nodes running
my $n1 = follow('n1');
my $n2 = follow('n2', '--position-file', "$dir/n2.position");
$server->poll_query_until('postgres',
	'SELECT count(applied) = 2 FROM session_admin_internal.node') or die 'nodes did not join';
my $id = log_out('alice');
is(settled($id), 'n1:applied n2:applied', 'both nodes applied it');
is(printed($n1), line('alice'), 'node n1 printed it before it said so');
is(printed($n2), line('alice'), 'node n2, too');

note 'from the commit of an invalidation to both receipts: ', sql(<<'SQL'), ' ms';
SELECT invalidation_id AS id FROM session_admin.invalidate_user('alice') \gset
SELECT clock_timestamp() AS committed, count(*) AS nodes FROM session_admin_internal.node \gset
SELECT round(1000 * extract(epoch FROM clock_timestamp() - :'committed'), 1)
FROM session_admin.wait_for_nodes(:id) HAVING count(*) = :nodes;
SQL
printed($n1);
printed($n2);

# every key, and a name that is awkward in JSON and on a terminal
sql(q{SELECT session_admin.open_session('s1', E'"\\\\\n\u2028\x1b[2J\x7f\u009b O''Hara')});
sql(q{SELECT session_admin.invalidate_user(E'"\\\\\n\u2028\x1b[2J\x7f\u009b O''Hara', keep_session => 's1')});
sql(q{SELECT session_admin.close_session('s1')});
$id = sql('SELECT invalidation_id FROM session_admin.invalidate_all()');
is(settled($id), 'n1:applied n2:applied', 'all scopes are applied');
my $name = qq("\\"\\\\\\n\xe2\x80\xa8\\u001b[2J\\u007f\\u009b O'Hara");
my $hash = sql(q{SELECT encode(sha256('s1'), 'hex')});
is( printed($n1), join('',
		qq({"scope":"user","application":"wiki","user":$name,"keep":"$hash","reason":"admin"}\n),
		qq({"scope":"session","application":"wiki","user":$name,"session":"$hash","reason":"logout"}\n),
		qq({"scope":"all","reason":"admin"}\n)),
	'and printed with the keys that apply');
printed($n2);

# Rolled back, it reaches nobody.
sql("SELECT session_admin.open_session('s2', 'bob');"
	  . " BEGIN; SELECT session_admin.invalidate_user('bob'); ROLLBACK;"
	  . " BEGIN; SAVEPOINT s; SELECT session_admin.invalidate_user('bob'); ROLLBACK TO s; COMMIT;");
$id = log_out('carol');
is(settled($id), 'n1:applied n2:applied', 'after a rollback');
is(printed($_), line('carol'), "node $_->{node} saw only what was committed") foreach $n1, $n2;


# Any role may NOTIFY.  What somebody else writes there is a bell and nothing more,
# whatever it looks like; what harms is that it is looked for in vain.
sql("CREATE ROLE stranger LOGIN");
foreach my $payload (
	'{"id":1,"scope":"all"}', '{"id":9223372036854775807,"scope":"user","application":"wiki","user":"alice","reason":"admin"}',
	'{"scope":"many","id":1}', 'no JSON', '', '\033[2J', 'x' x 7999)
{
	$server->safe_psql('postgres', "SELECT pg_notify('session_admin', E'$payload')", extra_params => [ '-U', 'stranger' ]);
}
$id = log_out('zoe');
is(settled($id), 'n1:applied n2:applied', 'after forged notifications');
is(printed($_), line('zoe'), "node $_->{node} is told only what happened") foreach $n1, $n2;

# Nor does another role with the same capability speak for a node, not even with
# the right position.
sql("CREATE ROLE intruder LOGIN");
sql("SELECT session_admin.grant_access('intruder', 'node')");
$n2->{process}->signal('STOP');
$id = log_out('zoe');
wait_until('n1', 'applied', $id);
my $position = sql("SELECT handed FROM session_admin_internal.node WHERE node = 'n2'");
foreach my $call ("sync_node('n2', '$position')", "sync_node('n2', pg_current_snapshot())", "sync_node('n2', NULL)",
	"leave_node('n2')", "join_node('n2')")
{
	my ($status, $output, $error) = $server->psql('postgres', "SELECT session_admin.$call", extra_params => [ '-U', 'intruder' ]);

	like($error, qr/node "n2" has joined as another role/, "refused: $call");
}
unlike(states($id, '0'), qr/n2:applied/, 'no receipt was given in its name');
$n2->{process}->signal('CONT');
wait_until('n2', 'applied', $id);
is(printed($_), line('zoe'), "node $_->{node} goes on") foreach $n1, $n2;


# One node is stopped.
$n2->{process}->signal('STOP');
$id = log_out('dave');
wait_until('n1', 'applied', $id);
is(states($id, '0'), 'n1:applied n2:behind', 'a stopped node is behind, while its lease runs');
is(states($id, '1 minute'), 'n1:applied n2:lease expired', 'then its lease has expired');
is(printed($n2), '', 'it has done nothing meanwhile');
$n2->{process}->signal('CONT');
wait_until('n2', 'applied', $id);
is(settled($id), 'n1:applied n2:applied', 'when it goes on it applies what it has missed');
is(printed($_), line('dave'), "node $_->{node} has it, once") foreach $n1, $n2;


# One node is killed, and started again.
end_by($n2, 'KILL');
$id = log_out('erin');
is(states($id, '1 minute'), 'n1:applied n2:lease expired', 'a killed node does not delay for longer than its lease');
$n2 = follow('n2', '--position-file', "$dir/n2.position");
wait_until('all', 'applied', $id);
is(settled($id), 'n1:applied n2:applied', 'it goes on from the position in its file');
is(printed($_), line('erin'), "node $_->{node} has it, once") foreach $n1, $n2;

# Without that file it starts with an empty cache, for which nothing was missed.
end_by($n1, 'KILL');
$id = log_out('frank');
$n1 = follow('n1');
wait_until('all', 'applied', $id);
is(settled($id), 'n1:applied n2:applied', 'a node that joins again is right from the start');
is(printed($n1), '', 'it has nothing to forget');
is(printed($n2), line('frank'), 'the other has');


# The server is restarted; and it crashes; n2 hears of it only afterwards.
foreach my $mode ('fast', 'immediate')
{
	$n2->{process}->signal('STOP');
	my $before = log_out("before $mode");
	$server->stop($mode);
	$server->start;
	my $after = log_out("after $mode");
	$n2->{process}->signal('CONT');
	wait_until('all', 'applied', $_) foreach $before, $after;
	is(settled($after), 'n1:applied n2:applied', "both are back after a restart ($mode)");
	is(printed($_), line("before $mode") . line("after $mode"),
		"node $_->{node} has what was before and after it, once") foreach $n1, $n2;
}


# A server that does not remember the node (restored, or promoted too early).  The
# node is halted between two calls, so that it comes back only after all of this.
$n1->{process}->signal('STOP');
$server->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE state <> 'idle' AND query LIKE '%sync_node%' AND pid <> pg_backend_pid()")
  or die 'node is still at work';
sql("DELETE FROM session_admin_internal.node WHERE node = 'n1'");
$id = log_out('grace');
$n1->{process}->signal('CONT');
$server->poll_query_until('postgres', 'SELECT count(applied) = 2 FROM session_admin_internal.node')
  or die 'node was not registered again';
wait_until('all', 'applied', $id);
is(printed($n1), qq({"scope":"all","reason":"resync"}\n), 'an unknown node is told to forget all');
is(printed($n2), line('grace'), 'the other is not');


# A command that fails is run again, and nothing is acknowledged until it succeeds.
my $n3 = follow('n3', '--exec', "cat >> $dir/received; test -e $dir/repaired");
$server->poll_query_until('postgres', 'SELECT count(applied) = 3 FROM session_admin_internal.node')
  or die 'node did not join';
$id = log_out('heidi');
wait_until('n3', 'lease expired', $id);
is(states($id, '0'), 'n1:applied n2:applied n3:lease expired', 'what the command cannot apply is not acknowledged');
like(slurp_file("$dir/n3.err"), qr/command failed: child process exited with exit code 1/, 'and said');
append_to_file("$dir/repaired", '');
wait_until('n3', 'applied', $id);
is(settled($id), 'n1:applied n2:applied n3:applied', 'it is, as soon as the command succeeds');
like(slurp_file("$dir/received"), qr/^(\{"id":$id,"scope":"user",[^\n]*\}\n){2,}$/, 'the command got the line each time');
is(slurp_file($n3->{out}), '', 'and nothing is printed');


# Nodes leave.
foreach my $node ($n1, $n2, $n3)
{
	end_by($node, 'TERM');
	is($node->{process}->result(0), 0, "node $node->{node} ends by SIGTERM");
}
is(sql('SELECT node FROM session_admin_internal.node'), 'n2', 'and leaves, unless it is to go on from its file');

$server->stop;
done_testing();
