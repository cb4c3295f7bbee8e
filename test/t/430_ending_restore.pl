# A database that was restored from a dump knows that it is one: what was ended
# after the dump was made does not come back to life.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->append_conf('postgresql.conf', "session_admin.application = 'jira'");
$server->start;
$server->safe_psql('postgres', 'CREATE DATABASE old');

sub in_database
{
	my ($database, $query) = @_;
	return $server->safe_psql($database, $query);
}

sub restored
{
	my ($database) = @_;
	$server->safe_psql('postgres', "CREATE DATABASE $database");
	$server->command_ok([ 'pg_restore', '-e', '-d', $server->connstr($database), "$dir/old.dump" ],
		"pg_restore into $database");
	return;
}

my $touches = q{SELECT session_admin.touch_session('alice 1'), session_admin.touch_session('alice 2'),
	session_admin.touch_session('visitor 1'), session_admin.touch_session('carol 1', 'wiki'),
	session_admin.touch_session('carol 2', 'wiki')};
my $applications = q{SELECT name, generation, home FROM session_admin.application ORDER BY name};
my $reasons = q{SELECT user_name, end_reason, ended_by FROM session_admin.session_history
	WHERE application = 'jira' AND user_name IS NOT NULL ORDER BY session_ref};

in_database('old', q{
	CREATE EXTENSION session_admin;
	SELECT session_admin.set_policy('on_restore', 'keep', application => 'wiki');
	SELECT session_admin.open_session('alice 1', 'alice'), session_admin.open_session('alice 2', 'alice'),
		session_admin.open_session('visitor 1'),
		session_admin.open_session('carol 1', 'carol', application => 'wiki'),
		session_admin.open_session('carol 2', 'carol', application => 'wiki');
});
my $token = in_database('old', q{SELECT session_admin.issue_remember_me('alice', 'laptop')});
my $kept_token = in_database('old', q{SELECT session_admin.issue_remember_me('carol', application => 'wiki')});
$server->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/old.dump", $server->connstr('old') ], 'pg_dump');

# After the dump was made
in_database('old', q{SELECT session_admin.close_session('alice 1');
	SELECT session_admin.invalidate_application('custom:incident', application => 'wiki')});
is(in_database('old', $touches), 'f|t|t|f|f', 'the database goes on');

# Nobody is logged in there, even where nothing can be written.
restored('new');
my $before = in_database('new', $applications);
is(in_database('new', "SET default_transaction_read_only = on; $touches"), 'f|f|f|t|t',
	'no session is honoured, but where the policy says so');
is(in_database('new', q{SELECT application, user_name FROM session_admin.current_sessions ORDER BY 1, 2}),
	"wiki|carol\nwiki|carol", 'none is shown as live');
is(in_database('new', $reasons), "alice|restored|session_admin\nalice|restored|session_admin", 'they ended by the restore');
is(in_database('new', q{SELECT application, user_name FROM session_admin.remembered_devices}), 'wiki|carol',
	'nor is a device remembered');
is(in_database('new', qq{SELECT * FROM session_admin.redeem_remember_me('$token')}), 'unknown||', 'no token opens anything');
is(in_database('new', q{SELECT session_admin.reauthenticate('alice 2')}), 'f', 'no session is raised');
is($server->psql('new', q{SELECT session_admin.renew_session('alice 2', 'alice 3')}), 3, 'none is renewed');
is(in_database('new', $applications), $before, 'all of that has changed nothing: a dump of it is the same');

# With the first login it is a database of its own.
in_database('new', q{SELECT session_admin.open_session('alice 4', 'alice')});
is(in_database('new', q{SELECT session_admin.touch_session('alice 4')}), 't', 'a new session is valid');
is(in_database('new', $touches), 'f|f|f|t|t', 'the others are still not');
is(in_database('new', q{SELECT scope, application, reason FROM session_admin.invalidations}), 'application|jira|restored',
	'nodes are told');
is(in_database('new', q{SELECT end_reason, count(*), bool_and(ended_at > created_at AND ended_at < now())
	FROM session_admin.session_history WHERE application = 'jira' GROUP BY 1 ORDER BY 1}),
	"restored|3|t\n|1|", 'the history says when and why');
in_database('new', q{SELECT session_admin.maintain()});
is(in_database('new', q{SELECT end_reason, ended_by, count(*) FROM session_admin_internal.ended_session GROUP BY 1, 2}),
	'restored|session_admin|3', 'also when they are archived');
is(in_database('new', q{SELECT session_admin.touch_session('alice 4')}), 't', 'once is enough');

# What was kept goes on, and stays when the policy goes.
like(in_database('new', qq{SELECT * FROM session_admin.redeem_remember_me('$kept_token', application => 'wiki')}),
	qr/^accepted/, 'a token that is kept is redeemed');
in_database('new', q{SELECT session_admin.open_session('carol 3', 'carol', application => 'wiki')});
in_database('new', q{SELECT session_admin.set_policy('on_restore', NULL, application => 'wiki')});
is(in_database('new', $touches), 'f|f|f|t|t', 'who was kept is kept');

# It can be decided after the restore, too, and before the first login.
restored('kept');
in_database('kept', q{SELECT session_admin.set_policy('on_restore', 'keep')});
is(in_database('kept', $touches), 't|t|t|t|t', 'all sessions are kept');

# Housekeeping does not wait for a login; an administrator may be the first, too.
restored('maintained');
in_database('maintained', q{SELECT session_admin.maintain()});
is(in_database('maintained', q{SELECT end_reason, count(*) FROM session_admin_internal.ended_session GROUP BY 1}), 'restored|3',
	'maintain() archives them');
is(in_database('maintained', q{SELECT count(*) FROM session_admin.current_sessions}), '2', 'and not those that are kept');
restored('administered');
is(in_database('administered', q{SELECT sessions_ended, tokens_revoked FROM session_admin.invalidate_application()}), '0|0',
	'who was not logged in is not logged out');
is(in_database('administered', $touches), 'f|f|f|t|t', 'and does not come back');

# The first logins, all at once: none ends the session of another.
restored('crowded');
my $script = "$dir/login.sql";
append_to_file($script, "SELECT session_admin.open_session('new ' || :client_id, 'user ' || :client_id);\n");
$server->command_ok([ 'pgbench', '-n', '-c', 20, '-t', 1, '-f', $script, 'crowded' ], '20 first logins');
is(in_database('crowded', q{SELECT count(*) FROM session_admin.current_sessions WHERE application = 'jira'}), '20',
	'all of them are valid');
is(in_database('crowded', q{SELECT generation FROM session_admin.application WHERE name = 'jira'}), '2', 'there is one new generation');

# A copy of the database is as good as a restore: it does not follow the original.
in_database('postgres', 'CREATE DATABASE copy TEMPLATE old');
is(in_database('copy', $touches), 'f|f|f|f|f', 'in a copy no session is honoured');
is(in_database('copy', q{SELECT DISTINCT end_reason FROM session_admin.session_history WHERE session_ref = session_admin.session_ref('alice 2')}),
	'restored', 'it says so');
in_database('copy', q{SELECT session_admin.open_session('alice 5', 'alice')});
is(in_database('copy', q{SELECT bool_and(ended_at > created_at) FROM session_admin.session_history WHERE end_reason = 'restored'}), 't',
	'and when');
is(in_database('old', $touches), 'f|t|t|f|f', 'the original goes on');

$server->stop;
done_testing();
