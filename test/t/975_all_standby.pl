# A synchronous standby is waited for by what ends sessions, rotates a token or is a
# receipt, whatever synchronous_commit says: a failover brings nothing back.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1, extra => [ '--encoding=UTF8', '--no-locale' ]);
$primary->append_conf('postgresql.conf', "session_admin.application = 'wiki'\nwal_sender_timeout = 0\nautovacuum = off");
$primary->start;

sub sql
{
	my ($query) = @_;
	return $primary->safe_psql('postgres', $query);
}

my @settings = ('off', 'local', 'on');
sql(q{
	CREATE EXTENSION session_admin;
	CREATE TABLE users (id int PRIMARY KEY, email text, password_hash text);
	SELECT session_admin.describe_product('shop', '{"account": {"tables": "users", "columns":
		{"user_name": "email", "credential": "password_hash"}}}');
	INSERT INTO users SELECT n, 'carla ' || s || n, 'old' FROM unnest('{off,local,on}'::text[]) WITH ORDINALITY AS s (s, n);
	SELECT FROM session_admin.attach_application('shop', application => 'shop');
});
my (%token, %position);
foreach my $setting (@settings)
{
	sql("SELECT session_admin.open_session('$setting ' || u, '$setting ' || u)
		FROM unnest('{invalidated,logged out,deleted,filtered,kept}'::text[]) AS u");
	sql("SELECT session_admin.open_session('$setting carla', u.email, application => 'shop') FROM users u WHERE email LIKE 'carla $setting%'");
	$token{$setting} = sql("SELECT session_admin.issue_remember_me('$setting bruno')");
	$position{$setting} = sql("SELECT session_admin.join_node('$setting')");
}
# by the nodes
sql("SELECT session_admin.invalidate_session(session_admin.session_ref('$_ kept'))") foreach @settings;

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'wal_receiver_timeout = 0');
$standby->start;
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'");
$primary->reload;
$primary->poll_query_until('postgres', q{SELECT sync_state = 'sync' FROM pg_stat_replication}, 't')
  or die 'no synchronous standby';
my $receiver = $standby->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');

# Start a client's statement, and wait until it waits for the standby, or has ended.
sub start
{
	my ($setting, $statement) = @_;
	my $client = { out => '', err => '' };

	# the server's own setting is "on": the one that counts is the client's
	local $ENV{PGAPPNAME} = 'client';
	$client->{process} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $primary->connstr('postgres'),
			'-c', "SET synchronous_commit = '$setting'", '-c', $statement, '-c', 'SHOW synchronous_commit' ],
		'>', \$client->{out}, '2>', \$client->{err});
	until (sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'client' AND wait_event = 'SyncRep'}) eq '1')
	{
		last unless $client->{process}->pumpable;
		$client->{process}->pump_nb;
	}
	$client->{waits} = sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'client' AND wait_event = 'SyncRep'});
	return $client;
}

sub finish
{
	my ($client) = @_;

	ok($client->{process}->finish, '... and is answered when it has it') or diag $client->{err};
	return $client->{out};
}

foreach my $setting (@settings)
{
	my %calls = (
		'invalidate_user' => "SELECT FROM session_admin.invalidate_user('$setting invalidated')",
		'close_session' => "SELECT FROM session_admin.close_session('$setting logged out')",
		'invalidate_sessions' => "SELECT FROM session_admin.invalidate_sessions(user_name => '$setting filtered')",
		'DELETE by hand' => "DELETE FROM session_admin.session WHERE user_name = '$setting deleted'",
		'a changed password' => "UPDATE users SET password_hash = 'new' WHERE email LIKE 'carla $setting%'",
		'a savepoint' => "BEGIN; SET LOCAL synchronous_commit = '$setting'; SAVEPOINT s; SELECT FROM session_admin.open_session('s $setting', 'sven');"
		  . " SELECT FROM session_admin.invalidate_user('sven'); RELEASE s; COMMIT",
		'redeem_remember_me' => "SELECT token FROM session_admin.redeem_remember_me('$token{$setting}')",
		'sync_node' => "SELECT DISTINCT applied::text FROM session_admin.sync_node('$setting', '$position{$setting}')",
	);
	foreach my $name (sort keys %calls)
	{
		kill 'STOP', $receiver;
		my $client = start($setting, $calls{$name});

		is($client->{waits}, 1, "$name waits for the standby with synchronous_commit = $setting");
		kill 'CONT', $receiver;
		my $out = finish($client);
		like($out, qr/^$setting$/m, '... which is as it was for what follows');
		$token{$setting} = $1 if $name eq 'redeem_remember_me' && $out =~ /^(\w+:\w+)$/m;
		$position{$setting} = $1 if $name eq 'sync_node' && $out =~ /^(\d+:\d+:\S*)$/m;
	}
}

# What promises nothing does not wait where the client does not want to.
kill 'STOP', $receiver;
foreach my $call ("session_admin.touch_session('off kept')", "session_admin.open_session('new', 'nora')",
	"session_admin.login_failed('nora')",
	"session_admin.maintain()")
{
	my $client = start('off', "SELECT FROM $call");
	is($client->{waits}, 0, "$call does not wait");
	ok($client->{process}->finish, '... and is answered') or diag $client->{err};
}
# nor does what rolls back
my $client = start('off', "BEGIN; SELECT FROM session_admin.invalidate_user('nora'); ROLLBACK");
is($client->{waits}, 0, 'a rollback does not wait');
$client->{process}->finish;
kill 'CONT', $receiver;

# remote_apply
sql("SELECT session_admin.set_policy('invalidation_durability', 'remote_apply')");
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'paused'") or die 'not paused';
foreach my $call ("session_admin.invalidate_user('nora')", "session_admin.invalidate_all()")
{
	my $waiting = start('off', "SELECT FROM $call");
	is($waiting->{waits}, 1, "with remote_apply $call waits until the standby shows it");
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	finish($waiting);
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	$standby->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'paused'") or die 'not paused';
}
$client = start('off', "SELECT FROM session_admin.open_session('other', 'olga', application => 'other');"
	  . " SELECT FROM session_admin.invalidate_user('olga', application => 'other')");
is($client->{waits}, 0, 'in another application it does not');
ok($client->{process}->finish, '... and is answered') or diag $client->{err};
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');

# The primary dies, and the standby takes over.
$primary->stop('immediate');
$standby->promote;
foreach my $setting (@settings)
{
	is($standby->safe_psql('postgres', "SELECT DISTINCT session_admin.touch_session('$setting ' || u)
			FROM unnest('{invalidated,logged out,deleted,filtered,kept}'::text[]) AS u"),
		'f', "what ended with $setting has ended");
	is($standby->safe_psql('postgres', "SELECT session_admin.touch_session('$setting carla', application => 'shop')"),
		'f', '... the changed password, too');
	is($standby->safe_psql('postgres', "SELECT reason FROM session_admin.sync_node('$setting', '$position{$setting}')
			WHERE reason = 'resync'"), '', 'the position of a node is known');
}

$standby->stop;
done_testing();
