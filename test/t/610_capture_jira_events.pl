# Jira's events, on two nodes.  An unchanged Jira writes its own tables; whatever
# ends a user's sessions reaches both nodes, with why and by whom, and nothing
# that is rolled back does.  The milliseconds from COMMIT to each node are told.

use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

$ENV{PGCLIENTENCODING} = 'UTF8';

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$server->append_conf('postgresql.conf', "session_admin.application = 'jira'");
$server->start;

my $admin = $server->background_psql('postgres', on_error_stop => 1);
$admin->query_safe('CREATE EXTENSION session_admin');
$admin->query_safe(slurp_file('test/products/jira.sql'));
$admin->query_safe(q{SELECT count(*) FROM session_admin.attach_application('jira')});
$admin->query_safe(q{SELECT session_admin.open_session('session of marker', 'marker')});

# A node prints one JSON object a line.
sub follow
{
	my ($name) = @_;
	my $node = { name => $name, out => '', err => '', timer => IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default) };

	$node->{process} = IPC::Run::start(
		[ 'pg_session_follow', '-d', $server->connstr('postgres'), '-n', $name, '-a', 'jira' ],
		'<', \undef, '>', \$node->{out}, '2>', \$node->{err}, $node->{timer});
	return $node;
}

# The next n lines of this node, and when the last of them came.
sub next_lines
{
	my ($node, $n) = @_;
	my @lines;

	$node->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	$node->{process}->pump until $node->{out} =~ /^(?:.*\n){$n}/;
	my $came = time;
	$node->{out} =~ s/^((?:.*\n){$n})//;
	@lines = map { decode_json($_) } split /\n/, $1;
	return ($came, @lines);
}

my @nodes = (follow('node1'), follow('node2'));
$server->poll_query_until('postgres', 'SELECT count(*) = 2 FROM session_admin.nodes')
  or die 'the nodes do not join';

# Nobody hears of what did not happen: of a marker that comes after it, at once.
sub hears_nothing
{
	my ($name) = @_;

	$admin->query_safe(q{SELECT session_admin.invalidate_user('marker')});
	for my $node (@nodes)
	{
		my (undef, $line) = next_lines($node, 1);
		is($line->{user}, 'marker', "$name: $node->{name} hears nothing");
	}
}

# What is there of this user: live sessions, Jira's remember-me rows, feed rows
sub state_of
{
	my ($user, $key) = @_;

	return $admin->query_safe(qq{
		SELECT concat_ws(' ', session_admin.touch_session('$user 1'), session_admin.touch_session('$user 2'),
			(SELECT count(*) FROM remembermetoken WHERE username = '$key'),
			(SELECT count(*) FROM session_admin_internal.invalidation WHERE user_name = '$user'))});
}

my $id = 0;

sub new_user
{
	my ($user) = @_;

	$id++;
	$admin->query_safe(qq{
		INSERT INTO cwd_user (id, directory_id, user_name, lower_user_name, active, credential)
			VALUES ($id, 1, '$user', '$user', 1, 'old');
		INSERT INTO app_user (id, user_key, lower_user_name) VALUES ($id, 'JIRAUSER$id', '$user');
		INSERT INTO remembermetoken (id, created, token, username)
			VALUES ($id * 2, now(), 'secret 1 of $user', 'JIRAUSER$id'),
			       ($id * 2 + 1, now(), 'secret 2 of $user', 'JIRAUSER$id');
		SELECT session_admin.open_session('$user 1', '$user'), session_admin.open_session('$user 2', '$user');
	});
	return $id;
}

# One event: it happens to a user of its own, is rolled back in both ways, and
# then committed.
sub event
{
	my ($name, %event) = @_;
	my ($user) = $name =~ /(\w+)$/;
	my $id = new_user($user);
	my $sql = $event{sql} =~ s/ID/$id/gr =~ s/USER/$user/gr;
	my $begin = "BEGIN; SET LOCAL session_admin.actor = '$event{actor}'; "
	  . ($event{keeps} ? "SET LOCAL session_admin.current_session = '$user 2'; " : '');
	my $before = state_of($user, "JIRAUSER$id");
	my ($committed, @times);

	is($before, 't t 2 0', "$name: logged in and remembered");

	$admin->query_safe("$begin $sql; ROLLBACK");
	is(state_of($user, "JIRAUSER$id"), $before, "$name: rolled back, nothing has changed");
	$admin->query_safe("$begin SAVEPOINT s; $sql; ROLLBACK TO s; COMMIT");
	is(state_of($user, "JIRAUSER$id"), $before, "$name: rolled back to a savepoint, nothing has changed");
	hears_nothing("$name, rolled back");

	$admin->query_safe("$begin $sql");
	$committed = time;
	$admin->query_safe('COMMIT');
	for my $node (@nodes)
	{
		my ($came, $line) = next_lines($node, 1);

		push @times, sprintf('%s %.1f ms', $node->{name}, ($came - $committed) * 1000);
		is_deeply(
			[ @$line{qw(scope application user reason)}, defined $line->{keep} ? 'keeps one' : 'keeps none' ],
			[ 'user', 'jira', $user, $event{reason}, $event{keeps} ? 'keeps one' : 'keeps none' ],
			"$name: $node->{name} hears of it") or diag(explain($line));
	}
	note "$name: from COMMIT to ", join(', ', @times);

	is(state_of($user, "JIRAUSER$id"), $event{keeps} ? 'f t 0 1' : 'f f 0 1',
		"$name: logged out and forgotten");
	is( $admin->query_safe(qq{SELECT concat_ws(' ', reason, actor, sessions_ended, tokens_revoked)
			FROM session_admin.invalidations WHERE user_name = '$user'}),
		"$event{reason} $event{actor} " . ($event{keeps} ? 1 : 2) . ' 2',
		"$name: the feed tells why, by whom and how many");
	my $named = $event{named} ? $event{named} =~ s/ID/$id/r : $user;
	is( $admin->query_safe(qq{SELECT DISTINCT end_reason || ' ' || actor
			FROM session_admin_internal.ended_session WHERE user_name = '$named'}),
		"$event{reason} $event{actor}", "$name: and so does the history");
	return;
}

event('an admin changes the password of alice',
	actor => 'root', reason => 'password_changed',
	sql => q{UPDATE cwd_user SET credential = 'new', updated_date = now() WHERE id = ID});
event('the own password is changed by bob',
	actor => 'bob', reason => 'password_changed', keeps => 1,
	sql => q{UPDATE cwd_user SET credential = 'new', updated_date = now() WHERE id = ID;
		DELETE FROM remembermetoken WHERE username = 'JIRAUSERID'});
event('anonymized: carol',
	actor => 'root', reason => 'user_anonymized', named => 'jirauserID',
	sql => q{UPDATE app_user SET lower_user_name = 'jirauserID' WHERE id = ID;
		UPDATE cwd_user SET user_name = 'jirauserID', lower_user_name = 'jirauserID',
			display_name = 'user-00000' WHERE id = ID});
event('deleted: dave',
	actor => 'root', reason => 'user_deleted',
	sql => q{DELETE FROM cwd_user WHERE id = ID});
event('invalidate_user of erin',
	actor => 'helpdesk', reason => 'admin',
	sql => q{SELECT session_admin.invalidate_user('USER')});
event('deactivated: frank',
	actor => 'ldap', reason => 'user_deactivated',
	sql => q{UPDATE cwd_user SET active = 0 WHERE id = ID});

# In bulk: a statement is one notification, however many it concerns
my $users = 10_000;
$admin->query_safe(qq{
	INSERT INTO cwd_user (id, directory_id, user_name, lower_user_name, active, credential)
		SELECT 100000 + i, 2, 'user' || i, 'user' || i, 1, 'old' FROM generate_series(1, $users) i;
	SELECT count(session_admin.open_session('session ' || i, 'user' || i)) FROM generate_series(1, $users) i;
});
my $listener = $server->background_psql('postgres');
$listener->query_safe('LISTEN session_admin');

sub heard
{
	my $output = $listener->query_safe('SELECT');
	return map { decode_json($_) }
		$output =~ /^Asynchronous notification "session_admin" with payload "(.*)" received/mg;
}

my $before = $admin->query_safe('SELECT max(id) FROM session_admin_internal.invalidation');
$admin->query_safe(q{UPDATE cwd_user SET updated_date = now(), first_name = 'x', active = 1, credential = credential});
is(scalar heard(), 0, 'all rows written, no password changed: no notification');
is($admin->query_safe('SELECT max(id) FROM session_admin_internal.invalidation'), $before, '... and no row of the feed');
is($admin->query_safe('SELECT count(*) FROM session_admin.current_sessions'), $users + 1, '... and all are still here');

my $started = time;
$admin->query_safe(q{UPDATE cwd_user SET credential = 'new' WHERE directory_id = 2});
note sprintf('%d passwords changed by one UPDATE: %.0f ms', $users, (time - $started) * 1000);
my @heard = heard();
is_deeply([ map { $_->{scope} } @heard ], ['many'], "$users passwords changed: one notification");
is($heard[0]{id}, $admin->query_safe('SELECT max(id) FROM session_admin_internal.invalidation'), '... up to the last row');
is( $admin->query_safe(qq{SELECT concat_ws(' ', count(*), count(DISTINCT user_name), min(scope), max(reason), sum(sessions_ended))
		FROM session_admin_internal.invalidation WHERE id > $before}),
	"$users $users user password_changed $users", '... one row of the feed for each of them');
is( $admin->query_safe(q{SELECT count(*) FROM session_admin_internal.ended_session WHERE user_name LIKE 'user%' AND end_reason = 'password_changed'}),
	$users, '... their sessions are history');
is($admin->query_safe('SELECT count(*) FROM session_admin.current_sessions'), 1, '... and nobody else\'s');
for my $node (@nodes)
{
	my ($came, @lines) = next_lines($node, $users);
	my %names = map { $_->{user} => 1 } @lines;

	is(scalar keys %names, $users, "... each of them reaches $node->{name}");
	note sprintf('%s has them after %.0f ms', $node->{name}, ($came - $started) * 1000);
}

$_->{process}->signal('TERM') for @nodes;
$_->{process}->finish for @nodes;
is($_->{err}, '', "$_->{name} has nothing to complain of") for @nodes;
$listener->quit;
$admin->quit;
$server->stop;
done_testing();
