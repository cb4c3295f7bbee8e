# A receipt needs no disk: the commit of a sync_node() that is all its transaction does
# waits neither for the disk nor for a standby.  Whatever else a transaction does is as
# durable as ever, and what a crash takes costs a resync.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
# nothing reaches the disk by itself
$server->append_conf('postgresql.conf', q{
session_admin.application = 'wiki'
session_admin.worker = off
wal_level = replica
max_wal_senders = 2
wal_writer_delay = '10s'
checkpoint_timeout = '1h'
autovacuum = off
});
$server->start;

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

my $position;
my $sync = sub { $position = sql("SELECT DISTINCT applied::text FROM session_admin.sync_node('n', '$position')") };

sql(q{CREATE EXTENSION session_admin; CREATE TABLE note (n int);
	SELECT session_admin.open_session('session ' || n, 'user ' || n) FROM generate_series(1, 3) n});
$position = sql(q{SELECT session_admin.join_node('n')});
$sync->();

# The commits that must not be lost hang from now on: the standby does not exist
sql(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$server->reload;
$server->poll_query_until('postgres', q{SELECT current_setting('synchronous_standby_names') = 'nobody'});

# What a transaction waits for: nothing, or a standby
sub waits_for_standby
{
	my ($query) = @_;
	my $psql = $server->background_psql('postgres', on_error_stop => 0);
	my $waits;

	$psql->query_until(qr/begun/, "\\echo begun\n$query\nSET application_name = 'finished';\n\\echo done\n");
	$server->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity
		WHERE wait_event = 'SyncRep' OR application_name = 'finished'});
	$waits = sql(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
	sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
	$psql->query_until(qr/done/, '');
	$psql->quit;
	return $waits;
}

my $call = sub { "SELECT FROM session_admin.sync_node('n', '$position')" };

$sync->();
ok(1, 'a receipt does not wait');
is(sql(q{SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()}), 't', 'nor is it on the disk');
$sync->();
is(sql(q{SELECT applied IS NOT NULL FROM session_admin_internal.node}), 't', 'but it is known');

is(waits_for_standby($call->() . ';'), 0, 'a receipt alone');
is(waits_for_standby($call->() . q{ \; SELECT FROM session_admin.invalidate_user('user 1');}), 1, 'with an invalidation in one message');
is(waits_for_standby('BEGIN; ' . $call->() . q{; SELECT session_admin.invalidate_user('user 2'); COMMIT;}), 1, 'in a transaction block');
is(waits_for_standby('BEGIN; ' . $call->() . '; COMMIT;'), 1, 'in a transaction block of which nobody knows the rest');
is(waits_for_standby("WITH i AS (INSERT INTO note VALUES (1) RETURNING n) SELECT FROM i, session_admin.sync_node('n', '$position');"), 1,
	'in a statement that writes');
is(waits_for_standby(q{SELECT FROM session_admin.sync_node('new', NULL);}), 1, 'a node that was not known');
is(waits_for_standby(q{SELECT FROM session_admin.sync_node('n', '1:1:');}), 1, 'a position that was not known');


sql(q{ALTER SYSTEM RESET synchronous_standby_names});
$server->reload;
$server->poll_query_until('postgres', q{SELECT current_setting('synchronous_standby_names') = ''});

# in one implicit transaction with what comes after it
sub pipeline
{
	my (@queries) = @_;
	my $script = $server->basedir . '/pipeline.sql';

	open(my $file, '>', $script) or die "could not write $script: $!";
	print $file "\\startpipeline\n", map({ "$_;\n" } @queries), "\\endpipeline\n";
	close $file;
	$server->command_ok([ 'pgbench', '-n', '-t', '1', '-M', 'extended', '-f', $script, $server->connstr('postgres') ], 'a pipeline');
	return sql(q{SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()});
}

$position = sql(q{SELECT session_admin.join_node('n')});
$sync->();
is(pipeline($call->()), 't', 'a receipt that is alone in a pipeline needs no disk');
is(pipeline($call->(), 'INSERT INTO note VALUES (2)'), 'f', 'a pipeline that writes afterwards does');
is(pipeline('INSERT INTO note VALUES (3)', $call->()), 'f', 'and one that has written before');

# A crash takes receipts and positions, and no invalidation
$position = sql(q{SELECT session_admin.join_node('n')});
$sync->() foreach 1 .. 2;
sql(q{SELECT session_admin.invalidate_user('user 3')});
my $durable = $position;
like(sql("SELECT user_name FROM session_admin.sync_node('n', '$position')"), qr/^user 3$/, 'an invalidation is delivered');
$sync->();
my $noted = sql(q{SELECT last_sync_at FROM session_admin_internal.node WHERE node = 'n'});
is(sql(q{SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()}), 't', 'a receipt is not on the disk yet');
$server->stop('immediate');
$server->start;
is(sql(qq{SELECT last_sync_at < '$noted' FROM session_admin_internal.node WHERE node = 'n'}), 't', 'a crash takes a receipt');
is(sql("SELECT reason FROM session_admin.sync_node('n', '$position')"), 'resync', 'the position is not known, and costs a resync');
is(sql(q{SELECT count(*) FROM session_admin.invalidations WHERE user_name = 'user 3'}), 1, 'no invalidation is lost');
is(sql(q{SELECT count(*) FROM session_admin.lost_history}), 0, 'and none is thought to be');

# So does the crash of one process: times of before are those of another run of the server
$server->append_conf('postgresql.conf', 'restart_after_crash = on');
$server->reload;
$position = sql(q{SELECT session_admin.join_node('n')});
my $run = sql(q{SELECT joined_run FROM session_admin_internal.node WHERE node = 'n'});
my $walwriter = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
kill 'KILL', $walwriter;
$server->poll_query_until('postgres', "SELECT pid <> $walwriter FROM pg_stat_activity WHERE backend_type = 'walwriter'");
sql(q{SELECT session_admin.join_node('after')});
isnt(sql(q{SELECT joined_run FROM session_admin_internal.node WHERE node = 'after'}), $run, 'after a crash of a process it is another run');

$server->stop;
done_testing();
