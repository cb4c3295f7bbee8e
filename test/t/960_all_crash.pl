# Crashes: what ended a session and was committed stays, also for an application
# that runs with synchronous_commit = off; what was not committed leaves nothing.
#
# Commits that are not synchronous are lost for sure here, or else the test would
# show nothing: the WAL writer, which would soon write them, is stopped first.  A
# row of table "noted" is written after each invalidation, to show that it is lost.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q{
	restart_after_crash = on
	synchronous_commit = off

	# nobody else is to write WAL
	autovacuum = off
	checkpoint_timeout = 1h
	bgwriter_lru_maxpages = 0

	session_admin.application = 'jira'
	session_admin.touch_interval = 0
});
$node->start;
sql('CREATE EXTENSION session_admin');
$node->psql('postgres', '', extra_params => [ '-q', '-f', 'test/products/jira.sql' ]);
sql(q{
	INSERT INTO cwd_directory (id, directory_name, active) VALUES (1, 'internal', 1);
	INSERT INTO app_user VALUES (1, 'JIRAUSER1', 'alice');
	INSERT INTO cwd_user (id, directory_id, user_name, lower_user_name, active, credential)
	VALUES (1, 1, 'alice', 'alice', 1, 'x');
	SELECT session_admin.attach_application('jira');
	CREATE TABLE noted (what text);
});

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# Run it with the WAL writer stopped, and kill that one at once: the server ends
# all its processes and starts again from what is on disk.
sub sql_and_crash
{
	my ($query) = @_;
	my $walwriter = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
	my $offset = -s $node->logfile;
	my $result;

	sql('CHECKPOINT');
	kill 'STOP', $walwriter or die "could not stop the WAL writer: $!";
	$result = sql("$query; INSERT INTO noted VALUES ('after it')");
	kill 'KILL', $walwriter;
	wait_for_restart($offset);
	return $result;
}

sub wait_for_restart
{
	my ($offset) = @_;

	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server did not start again';
}

# What is known of alice's sessions
sub state_of_sessions
{
	return sql(q{
		SELECT session_admin.touch_session('alice 1'), session_admin.touch_session('alice 2'),
			(SELECT count(*) FROM session_admin.session_history WHERE user_name = 'alice' AND ended_at IS NOT NULL),
			(SELECT count(*) FROM session_admin_internal.invalidation),
			(SELECT generation FROM session_admin.application WHERE name = 'jira')});
}


# Each way to end a session, committed without a wait for the disk

my @ways = (
	'close_session' => q{SELECT session_admin.close_session('alice 1')},
	'renew_session' => q{SELECT session_admin.renew_session('alice 1', 'alice 3')},
	'invalidate_session' => q{SELECT session_admin.invalidate_session(session_admin.session_ref('alice 1'))},
	'invalidate_sessions' => q{SELECT session_admin.invalidate_sessions(user_name => 'alice')},
	'invalidate_user' => q{SELECT session_admin.invalidate_user('alice')},
	'invalidate_application' => q{SELECT session_admin.invalidate_application()},
	'invalidate_all' => q{SELECT session_admin.invalidate_all()},
	'DELETE' => q{DELETE FROM session_admin.session WHERE session_hash = sha256('alice 1')},
	'TRUNCATE' => q{TRUNCATE session_admin.session},
	'a password change' => q{UPDATE cwd_user SET credential = credential || 'y'},
);
while (my ($way, $query) = splice @ways, 0, 2)
{
	my $feed = sql(q{
		DELETE FROM session_admin.session;
		DELETE FROM session_admin_internal.ended_id;
		SELECT FROM session_admin.open_session('alice 1', 'alice');
		SELECT count(*) FROM session_admin_internal.invalidation});

	sql_and_crash($query);
	is(sql('SELECT count(*) FROM noted'), '0', "$way: what was committed after it is lost");
	is(sql(q{SELECT session_admin.touch_session('alice 1')}), 'f', "$way: the session stays ended");
	is(sql('SELECT count(*) FROM session_admin_internal.invalidation'), $feed + 1, "$way: the nodes will know");
}

# Remember-me: a client has the new token already, so that the rotation must stay.
my $token = sql(q{SELECT session_admin.issue_remember_me('alice')});
my $next = sql_and_crash("SELECT token FROM session_admin.redeem_remember_me('$token')");
is(sql('SELECT count(*) FROM noted'), '0', 'redeem_remember_me: what was committed after it is lost');
is(sql("SELECT outcome FROM session_admin.redeem_remember_me('$next')"), 'accepted',
	'redeem_remember_me: the next token is accepted');
sql_and_crash("SELECT session_admin.revoke_remember_me('" . substr($next, 0, 32) . "')");
is(sql("SELECT outcome FROM session_admin.redeem_remember_me('$next')"), 'unknown',
	'revoke_remember_me: it stays revoked');


# Not committed: a backend is killed in the middle of a transaction

sql(q{DELETE FROM session_admin_internal.ended_id;
	SELECT session_admin.open_session('alice 1', 'alice'), session_admin.open_session('alice 2', 'alice');
	SELECT session_admin.invalidate_user('alice', 'alice 1'); CHECKPOINT});
foreach my $query (
	q{SELECT session_admin.invalidate_user('alice')},
	q{SELECT session_admin.invalidate_all()},
	q{SAVEPOINT s; SELECT session_admin.close_session('alice 1'); RELEASE s},
	q{TRUNCATE session_admin.session},
	q{UPDATE cwd_user SET credential = 'z'})
{
	my $before = state_of_sessions();
	my $client = $node->background_psql('postgres', on_error_stop => 0);
	my $offset = -s $node->logfile;

	$client->query_safe("BEGIN; $query");
	kill 'KILL', $client->query_safe('SELECT pg_backend_pid()');
	wait_for_restart($offset);
	$client->quit;
	is(state_of_sessions(), $before, "not committed: $query");
}

# Nor where the server is stopped at once.  The committed one stays.
my $before = state_of_sessions();
my $client = $node->background_psql('postgres', on_error_stop => 0);
$client->query_safe(q{BEGIN; SELECT session_admin.invalidate_all()});
$node->stop('immediate');
$node->start;
$client->quit;
is(state_of_sessions(), $before, 'not committed, and stopped: invalidate_all');
sql(q{SELECT session_admin.invalidate_user('alice')});
$node->stop('immediate');
$node->start;
is(sql(q{SELECT session_admin.touch_session('alice 1')}), 'f', 'committed, and stopped: invalidate_user');

$node->stop;
done_testing();
