# CALL log_out() prints when each node has confirmed, warns of those that have not, and
# keeps what it ended if the wait for them is cancelled.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->append_conf('postgresql.conf', "shared_preload_libraries = 'session_admin'\nsession_admin.application = 'wiki'");
$server->start;

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

# What psql says of a call, on standard error
sub log_out
{
	my ($arguments) = @_;
	my ($status, $out, $error) = $server->psql('postgres', "CALL session_admin.log_out($arguments)");
	return $error;
}

my $logins = 0;
sub log_in
{
	my ($user) = @_;
	$logins++;
	sql("SELECT session_admin.open_session('session $logins', '$user')");
}

sql(q{
	CREATE EXTENSION session_admin;
	CREATE ROLE operator LOGIN;
	SELECT session_admin.grant_access('operator', 'operator');
	-- a lease that outlives the test
	SELECT session_admin.set_policy('node_lease', '1 hour'), session_admin.open_session('first', 'carol');
});

# A node that does not answer
my $position = sql(q{SELECT session_admin.join_node('slow')});
$position = sql(qq{SELECT applied FROM session_admin.sync_node('slow', '$position')});
log_in('alice');
my $said = log_out(q{'alice', timeout => '20 milliseconds'});
like($said, qr/^(psql:<stdin>:1: )?INFO:  sessions ended: 1, remember-me tokens revoked: 0$/m, 'how much ended');
like($said, qr/WARNING:  slow: still behind after 2\d\.\d ms\n.*HINT:  .*wait_for_nodes\(\d+\)/, 'who is behind');
unlike($said, qr/applied/, 'and nobody has confirmed');

log_in('alice');

# A node that confirms while it is waited for
my $call = $server->background_psql('postgres');
$call->query_until(qr/started/, "\\echo started\nCALL session_admin.log_out('alice', timeout => '10 minutes');\n\\echo returned\n");
$server->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE query LIKE 'CALL%' AND wait_event = 'Extension'}) or die 'log_out() does not wait';
is(sql(q{SELECT count(*) FROM session_admin.current_sessions WHERE user_name = 'alice'}), 0, 'committed before the wait');
is(sql(q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	WHERE a.query LIKE 'CALL%' AND l.locktype = 'transactionid'}), 0, 'no transaction that writes is open meanwhile');
$position = sql(qq{SELECT DISTINCT applied::text FROM session_admin.sync_node('slow', '$position')});
sql(qq{SELECT FROM session_admin.sync_node('slow', '$position')});
$call->query_until(qr/returned/, '');
like($call->{stderr}, qr/INFO:  slow: applied after \d+\.\d ms/, 'a node that confirms ends the wait');
unlike($call->{stderr}, qr/WARNING/, 'without a warning');

# A wait that is cancelled
$call->{stderr} = '';
log_in('alice');
$call->query_until(qr/started/, "\\echo started\nCALL session_admin.log_out('alice', timeout => '10 minutes');\n\\echo returned\n");
$server->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE query LIKE 'CALL%' AND state = 'active' AND wait_event = 'Extension'}) or die 'log_out() does not wait';
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL%'});
$call->query_until(qr/returned/, '');
like($call->{stderr}, qr/canceling statement due to user request/, 'the wait can be cancelled');
is(sql(q{SELECT count(*) FROM session_admin.current_sessions WHERE user_name = 'alice'}), 0, 'what it ended has ended');

$call->quit;
done_testing();
