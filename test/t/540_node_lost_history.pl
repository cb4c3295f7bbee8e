# A server that has lost invalidations of which nodes were told knows it from their
# positions: after a failover to a standby that lagged, and after a restore.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1, has_archiving => 1);
$primary->append_conf('postgresql.conf', "session_admin.application = 'wiki'\nautovacuum = off\nwal_sender_timeout = 0");
$primary->start;
my %position;

sub joined
{
	my ($server, $node, $application) = @_;
	$position{$node} = $server->safe_psql('postgres', "SELECT session_admin.join_node('$node', '$application')");
	return;
}

# What a node is told
sub told
{
	my ($server, $node) = @_;
	my $out = $server->safe_psql('postgres',
		"SELECT applied, coalesce(user_name, reason) FROM session_admin.sync_node('$node', '$position{$node}')");
	my @told;

	foreach my $row (split /\n/, $out)
	{
		($position{$node}, my $what) = split /\|/, $row;
		push @told, $what if defined $what && $what ne '';
	}
	return join ' ', @told;
}

sub log_out
{
	my ($server, $user) = @_;
	return $server->safe_psql('postgres', "SELECT FROM session_admin.invalidate_user('$user')");
}

# Each login has an id of its own.
my $logins = 0;
sub log_in
{
	my ($server, @users) = @_;
	$logins++;
	return $server->safe_psql('postgres', join ';', map { "SELECT session_admin.open_session('$_ $logins', '$_')" } @users);
}

sub logged_in
{
	my ($server) = @_;
	return $server->safe_psql('postgres', qq{
		SELECT coalesce(string_agg(DISTINCT u, ' ' ORDER BY u), '')
		FROM unnest('{alice,bob,carol,dave}'::text[]) AS u, generate_series(1, $logins) AS n
		WHERE session_admin.touch_session(concat_ws(' ', u, n))});
}

sub lost
{
	my ($server) = @_;
	return $server->safe_psql('postgres', 'SELECT count(*) FROM session_admin.lost_history');
}

$primary->safe_psql('postgres', q{
	CREATE EXTENSION session_admin;
	SELECT session_admin.open_session('kept', 'kim', application => 'kept');
	SELECT session_admin.open_session('witnessed 1', 'wanda', application => 'witnessed');
	SELECT session_admin.open_session('witnessed 2', 'wilma', application => 'witnessed');
	SELECT session_admin.open_session('witnessed 3', 'wendy', application => 'witnessed');
	SELECT session_admin.set_policy('on_lost_history', 'keep', application => 'kept');
	SELECT session_admin.set_policy('on_lost_history', 'witness', application => 'witnessed');
});
log_in($primary, qw(alice bob carol dave));
joined($primary, 'n1', 'wiki');
joined($primary, 'n2', 'wiki');
joined($primary, 'n3', 'wiki');
joined($primary, 'idle', 'wiki');
$primary->backup('backup');

sub standby
{
	my ($name, $upstream) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);

	$upstream->backup("backup of $name");
	$standby->init_from_backup($upstream, "backup of $name", has_streaming => 1);
	$standby->append_conf('postgresql.conf', "wal_receiver_timeout = 0\nprimary_slot_name = ''");
	$standby->start;
	$upstream->wait_for_catchup($standby);
	return $standby;
}

# The standby gets nothing more from here on
sub cut_off
{
	my ($standby) = @_;
	$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
	$standby->reload;
	$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver') or die 'it still streams';
	return;
}

# 1. A failover that has lost nothing.
my $second = standby('second', $primary);
log_out($primary, 'alice');
is(told($primary, 'n1'), 'alice', 'a node is told');
is(told($primary, 'n1'), '', '... and says so');
like($position{n1}, qr/^\d+:\d+:[\d,]*$/, 'its position is one');
is($primary->safe_psql('postgres', "SELECT pg_visible_in_snapshot(xid, '$position{n1}') FROM session_admin_internal.invalidation"),
	't', '... as good as any');
$primary->wait_for_catchup($second);
$primary->stop('immediate');
$second->promote;
is(told($second, 'n1'), '', 'a node goes on after a failover that lost nothing');
is(told($second, 'n2'), 'alice', '... and another is told what it has not been told of');
is(told($second, 'n2'), '', '... once');
is(logged_in($second), 'bob carol dave', 'nobody else has to log in again');
is(lost($second), 0, '... since nothing was lost');

# 2. One that lost what no node was told of, or had only its heartbeat: the node starts over.
my $third = standby('third', $second);
cut_off($third);
is(told($second, 'n1'), '', 'a heartbeat');
is(told($second, 'n1'), '', '... and another');
$second->safe_psql('postgres', q{SELECT session_admin.open_session('lost', 'leo')});
$second->stop('immediate');
$third->promote;
is(told($third, 'n1'), 'resync', 'a node whose heartbeats are lost starts over');
is(logged_in($third), 'bob carol dave', 'nobody has to log in again');
is(lost($third), 0, '... since nothing was lost that it was told');

# a claim is signed
is($third->safe_psql('postgres', q{SELECT reason FROM session_admin.sync_node('forger', '3:2000000000:3,4,5,6,50,60,70,71,72,73,80,90')}),
	'resync', 'a forged position is only forgotten');
is(logged_in($third), 'bob carol dave', '... and logs nobody out');
is(lost($third), 0, '... and is no loss');

# 3. One that lost what nodes were told.
my $fourth = standby('fourth', $third);
told($third, $_) foreach qw(n1 n2 n3);
is(told($third, $_), '', "node $_ is up to date") foreach qw(n1 n2);
$third->wait_for_catchup($fourth);
cut_off($fourth);
log_out($third, 'bob');
$third->safe_psql('postgres', q{SELECT session_admin.close_session('witnessed 1', 'witnessed')});
$third->safe_psql('postgres', q{SELECT FROM session_admin.invalidate_user('wilma', application => 'witnessed')});
is(told($third, 'n1'), 'bob wanda wilma', 'node n1 is told');
is(told($third, 'n1'), '', '... and says so');
is(told($third, 'n2'), 'bob wanda wilma', 'node n2 is told, and may have applied it');
my $witnessed = $third->safe_psql('postgres', q{
	SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('id', id, 'scope', scope, 'application', application, 'user', user_name,
		'session', encode(session_hash, 'hex'), 'reason', reason, 'at', at))) FROM session_admin_internal.invalidation
		WHERE application = 'witnessed'});
my ($status, $out, $error) = $third->psql('postgres', "SELECT session_admin.witness_invalidations('n1', '$witnessed')");
like($error, qr/this server has lost no invalidation/, 'there is nothing to take back');
$third->stop('immediate');
$fourth->promote;
is(logged_in($fourth), 'bob carol dave', 'the failover has brought back who was logged out');
is(told($fourth, 'n3'), '', 'a node that was not told does not know it');
is(logged_in($fourth), 'bob carol dave', '... and nobody else can');
($status, $out, $error) = $fourth->psql('postgres', "SELECT reason FROM session_admin.sync_node('n1', '$position{n1}')");
is($out, 'resync', 'one that was starts over');
like($error, qr/WARNING:  this server has lost invalidations that node "n1" was told of/, '... and is said to have told it');
is(logged_in($fourth), '', 'everybody has to log in again');
is(lost($fourth), 1, 'the loss is on record');
is($fourth->safe_psql('postgres', q{SELECT DISTINCT end_reason, ended_by FROM session_admin.session_history WHERE application = 'wiki' AND user_name = 'carol'}),
	'restored|session_admin', '... and in the history');
is($fourth->safe_psql('postgres', q{SELECT session_admin.touch_session('kept', 'kept')}), 't', '... where the policy says so');
is(told($fourth, 'n3'), 'restored', 'nodes are told');
log_in($fourth, qw(alice bob carol dave));
is(told($fourth, 'n2'), 'resync', 'the next node with a lost position starts over');
is(logged_in($fourth), 'alice bob carol dave', '... and ends nobody once more');
is(told($fourth, 'n2'), '', '... from there on all is well');

# What nodes remember is taken back.
sub witnesses
{
	return $fourth->safe_psql('postgres', q{SELECT coalesce(string_agg(n, ' ' ORDER BY n), '') FROM unnest('{1,2,3}'::text[]) AS n
		WHERE session_admin.touch_session('witnessed ' || n, 'witnessed')});
}
is(witnesses(), '1 2 3', 'those of whom nodes are witnesses are logged in');
$fourth->safe_psql('postgres', q{SELECT session_admin.open_session('witnessed 4', 'wilma', application => 'witnessed')});
is($fourth->safe_psql('postgres', "SELECT session_admin.witness_invalidations('n1', '$witnessed')"), 2, 'a node tells of two');
is(witnesses(), '3', '... who are logged out again');
is($fourth->safe_psql('postgres', q{SELECT session_admin.touch_session('witnessed 4', 'witnessed')}), 't', '... and who has logged in since is not');
is($fourth->safe_psql('postgres', "SELECT session_admin.witness_invalidations('n2', '$witnessed')"), 0, 'told again, it ends nobody');
is($fourth->safe_psql('postgres', q{SELECT session_admin.witness_invalidations('n1', '[{"scope": "all", "reason": "admin"}, {"scope": "user", "application": "kept", "user": "kim"}]')}),
	1, 'a witness ends all where the policy says so');
is($fourth->safe_psql('postgres', q{SELECT session_admin.touch_session('kept', 'kept')}), 't', '... and nowhere else');
is(logged_in($fourth), 'alice bob carol dave', '... at all');
$fourth->safe_psql('postgres', q{CREATE ROLE stranger LOGIN; SELECT session_admin.grant_access('stranger', 'node')});
($status, $out, $error) = $fourth->psql('postgres', q{SELECT session_admin.witness_invalidations('n1', '[]')}, extra_params => [ '-U', 'stranger' ]);
like($error, qr/node "n1" has joined as another role/, 'another role is no witness in its name');
like($fourth->safe_psql('postgres', q{SELECT reason FROM session_admin.sync_node('idle', '} . $position{idle} . q{')}), qr/resync|restored/, 'who only joined claims nothing');
is(lost($fourth), 1, 'there was one loss');

# 4. A base backup, restored to a point in time, is another history.
told($fourth, $_) foreach qw(n1 n2);
log_out($fourth, 'dave');
foreach my $node (qw(n1 n2))
{
	is(told($fourth, $node), 'dave', "node $node is told");
	is(told($fourth, $node), '', '... and says so');
}
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($primary, 'backup', has_restoring => 1);
$restored->append_conf('postgresql.conf', "recovery_target = 'immediate'\nrecovery_target_action = 'promote'");
$restored->start;
$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'not restored';
is(logged_in($restored), 'alice bob carol dave', 'all are logged in, in a base backup');
is(told($restored, 'n1'), 'resync', 'a node comes with what it was told since');
is(logged_in($restored), '', '... and they are no more');
log_in($restored, 'alice');
is(told($restored, 'n2'), 'resync', 'a second one');
is(logged_in($restored), 'alice', '... changes nothing');
is(lost($restored), 1, 'it is one loss');

# 5. A disk that is put back as it was, on the same timeline.
log_in($restored, 'bob');
$restored->stop;
$restored->backup_fs_cold('cold');
$restored->start;
told($restored, 'n1') foreach 1 .. 2;
log_out($restored, $_) foreach qw(carol dave bob);
is(told($restored, 'n1'), 'carol dave bob', 'a node is told');
is(told($restored, 'n1'), '', '... and says so');
is(logged_in($restored), 'alice', 'who is logged out');
$restored->stop;
my $put_back = PostgreSQL::Test::Cluster->new('put_back');
$put_back->init_from_backup($restored, 'cold');
$put_back->start;
is(logged_in($put_back), 'alice bob', 'the disk is put back, and who was logged out is logged in');
is(told($put_back, 'n1'), 'resync', 'the node comes');
is(logged_in($put_back), '', '... and all have to log in again');
is(lost($put_back), 2, 'it is another loss');

$_->stop foreach $fourth, $put_back;
done_testing();
