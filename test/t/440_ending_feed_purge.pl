# The feed is purged, however long some transaction is open, and nothing of it is missed
# or comes twice: nodes in touch go on from their positions.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->append_conf('postgresql.conf', "session_admin.application = 'wiki'\nmax_prepared_transactions = 5");
$server->start;

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

# A node that keeps its position; what it was told since the last call
my %position;

sub joined
{
	my ($node) = @_;

	$position{$node} = sql("SELECT session_admin.join_node('$node')");
	return;
}

sub told
{
	my ($node) = @_;
	my ($status, $out) = $server->psql('postgres', "SELECT applied, coalesce(user_name, reason) FROM session_admin.sync_node('$node', '$position{$node}')");
	my @told;

	foreach my $row (split /\n/, $out)
	{
		($position{$node}, my $what) = split /\|/, $row;
		push @told, $what if defined $what && $what ne '';
	}
	return join ' ', @told;
}

# A transaction that is left open
my %open;

sub begin
{
	my ($name, $statement) = @_;
	my ($in, $out) = ('', '');
	my $process = IPC::Run::start([ 'psql', '-XAtq', '-d', $server->connstr('postgres') ], '<', \$in, '>', \$out);

	$in = "BEGIN;\n$statement;\n\\echo begun\n";
	$process->pump until $out =~ /begun/;
	$open{$name} = { process => $process, in => \$in, out => \$out };
	return;
}

sub commit
{
	my ($name) = @_;

	${ $open{$name}{in} } = "COMMIT;\n\\echo done\n";
	$open{$name}{process}->pump until ${ $open{$name}{out} } =~ /done/;
	$open{$name}{process}->finish;
	return;
}

sub log_out
{
	my ($user) = @_;

	return "SELECT FROM session_admin.open_session('session of $user', '$user'); SELECT FROM session_admin.invalidate_user('$user')";
}

# Two days pass, but not for what is to be committed later
sub age
{
	sql(q{UPDATE session_admin_internal.invalidation SET at = at - interval '2 days'});
	return;
}

sub purged
{
	return sql(q{SELECT done FROM session_admin.maintain() WHERE task = 'feed purged'});
}

my $rows = 'SELECT count(*) FROM session_admin_internal.invalidation';

sql('CREATE EXTENSION session_admin; CREATE DATABASE other');

# An open transaction, here or in another database, or a prepared one
joined('n');
joined('away');
begin('idle', 'SELECT pg_current_xact_id()');
sql(q{BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'prepared'});
sql(log_out("user$_")) foreach 1 .. 3;
is(told('n'), 'user1 user2 user3', 'a node is told, while transactions are open');
is(told('n'), '', '... and says so');
age();
is(purged(), 3, 'the feed is purged');
is(sql($rows), 0, '... to the last row');
is(told('n'), '', 'the node in touch has missed nothing');
sql(log_out('user4'));
is(told('n'), 'user4', '... and goes on');
age();
is(purged(), 1, 'once more');
is(told('n'), '', '... the same');
is(told('away'), 'resync', 'one that was away starts over');

# A transaction that wrote early and commits late
begin('long', log_out('early') . q{; UPDATE session_admin_internal.invalidation SET at = at - interval '2 days' WHERE user_name = 'early'});
is(told('n'), '', 'nothing of it is told');
sql(log_out('user7'));
is(told('n'), 'user7', '... but what is committed');
is(told('n'), '', '... once');
age();
cmp_ok(purged(), '>', 0, 'the feed is purged beyond it');
is(told('n'), '', 'the node in touch goes on');
commit('long');
is(purged(), 0, 'what was committed late is kept, however old it looks');
is(purged(), 0, '... also the next time');
is(told('n'), 'early', 'the node is told of it');
is(told('n'), '', '... once');
is(sql($rows), 1, 'it is there');
sql(q{UPDATE session_admin_internal.feed_running SET seen_at = seen_at - interval '2 days'});
is(purged(), 1, 'it is purged, when the retention is over');
is(sql($rows), 0, '... to the last row');
is(told('n'), '', 'the node goes on');

# more of them than a batch, of two transactions that end at different times
begin('first', q{INSERT INTO session_admin_internal.invalidation (at, scope, user_name, reason) SELECT now() - interval '2 days', 'user', 'first', 'admin' FROM generate_series(1, 1500)});
begin('second', log_out('second'));
sql(log_out('third'));
is(told('n'), 'third', 'a third one overtakes them');
age();
is(purged(), 1, '... and is purged');
commit('first');
sql(log_out('fourth'));
my $told = told('n');
is(($told =~ s/first ?//g), 1500, 'the first is told of, each row once');
is($told, 'fourth', '... and the fourth');
is(told('n'), '', '... once');
age();
is(purged(), 1, 'what is kept is no obstacle, whatever its number');
is(told('n'), '', 'the node goes on');
commit('second');
like(told('n'), qr/^second$/, 'the second, too');
is(told('n'), '', '... once');
sql(q{ROLLBACK PREPARED 'prepared'});
commit('idle');
is(purged(), 0, 'nothing more is to be purged now');
is(told('n'), '', 'the node is in touch');
sql(q{UPDATE session_admin_internal.feed_running SET seen_at = seen_at - interval '2 days'; UPDATE session_admin_internal.invalidation SET at = at - interval '2 days'});
cmp_ok(purged(), '>', 1500, 'but later');
is(sql($rows), 0, '... to the last row');
is(told('n'), '', 'the node goes on');
sql(q{UPDATE session_admin_internal.feed_running SET seen_at = seen_at - interval '10 seconds'; SELECT FROM session_admin.maintain()});
is(sql('SELECT count(*) FROM session_admin_internal.feed_running'), 0, 'and no transaction is remembered for ever');
is(told('n'), '', 'the node goes on');

# Rows from the future do not keep others
sql(log_out('now'));
sql(q{INSERT INTO session_admin_internal.invalidation (at, scope, user_name, reason)
	SELECT now() + interval '1 year', 'user', 'future', 'admin' FROM generate_series(1, 2500)});
sql(log_out('then'));
sql(q{UPDATE session_admin_internal.invalidation SET at = at - interval '2 days' WHERE user_name IN ('now', 'then')});
is(purged(), 2, 'what is old is purged, behind whatever comes from the future');
is(sql('SELECT count(*) FROM session_admin_internal.invalidation WHERE at > now()'), 0, 'what comes from there is from now');
age();
is(purged(), 2500, '... and is purged in its time');

# What is idle costs nothing
sql(q{UPDATE session_admin_internal.feed_running SET seen_at = seen_at - interval '10 seconds'});
sql('SELECT FROM session_admin.maintain()') foreach 1 .. 2;
is(sql('SELECT count(*) FROM session_admin_internal.feed_running'), 0, 'an empty feed notes nothing');

# An old transaction costs nothing, however many rows came since
sql(q{SELECT session_admin.leave_node(node) FROM session_admin.nodes WHERE node <> 'n'});
sql(q{BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'old'});
told('n');
sql(q{INSERT INTO session_admin_internal.invalidation (scope, user_name, reason) SELECT 'user', 'u' || n, 'admin' FROM generate_series(1, 20000) AS n});
told('n') foreach 1 .. 2;

# what was read is told for sure after a restart
sub rows_read
{
	$server->restart;
	return sql(q{SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'invalidation')
		+ (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'invalidation')});
}
my $before = rows_read();
told('n') foreach 1 .. 3;
is(sql('SELECT pending FROM session_admin.nodes'), 0, 'nothing is pending');
cmp_ok(rows_read() - $before, '<', 100, 'a sync reads what is new, and not all since an old transaction');
sql(q{ROLLBACK PREPARED 'old'});

$server->stop;
done_testing();
