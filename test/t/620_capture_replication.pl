# Watched tables under logical replication, with the extension on the publisher, on
# the subscriber, and on both.  Each keeps a history of its own, in which each event
# is once; what the first copy of the tables brings is no event.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = PostgreSQL::Test::Cluster->new('publisher');
$publisher->init(allows_streaming => 'logical', extra => [ '--encoding=UTF8', '--no-locale' ]);
$publisher->append_conf('postgresql.conf', "session_admin.application = 'jira'");
$publisher->start;
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$subscriber->append_conf('postgresql.conf', "session_admin.application = 'jira'");
$subscriber->start;

my $tables = slurp_file('test/products/jira.sql');
my $users = q{
	INSERT INTO cwd_user (id, user_name, lower_user_name, active, credential) VALUES
		(1, 'alice', 'alice', 1, 'old'), (2, 'bob', 'bob', 1, 'old'),
		(3, 'carol', 'carol', 1, 'old'), (4, 'dave', 'dave', 1, 'old'), (5, 'erin', 'erin', 1, 'old');
	INSERT INTO app_user (id, user_key, lower_user_name) SELECT id, 'JIRAUSER' || id, lower_user_name FROM cwd_user;
	INSERT INTO cwd_user_attributes (id, user_id, attribute_name, attribute_value)
	SELECT id, id, 'login.lastLoginMillis', '1600000000000' FROM cwd_user;
	INSERT INTO remembermetoken (id, created, token, username) VALUES
		(1, now(), 'secret 1', 'JIRAUSER1'), (2, now(), 'secret 2', 'JIRAUSER2');
};

# What the product does: each line is one transaction.
my @events = (
	q{UPDATE cwd_user_attributes SET attribute_value = '1700000000000' WHERE user_id = 1},
	q{INSERT INTO remembermetoken (id, created, token, username) VALUES (3, now(), 'secret 3', 'JIRAUSER1')},
	q{UPDATE cwd_user SET credential = 'new' WHERE id = 2},
	q{UPDATE cwd_user SET active = 0 WHERE id = 3},
	q{DELETE FROM cwd_user WHERE id = 4},
	q{UPDATE cwd_user SET user_name = 'erna', lower_user_name = 'erna' WHERE id = 5},
	q{UPDATE cwd_user SET first_name = 'nobody cares', updated_date = now()},
	q{DELETE FROM remembermetoken WHERE id = 3},
	q{INSERT INTO cwd_user (id, user_name, lower_user_name, active) VALUES (6, 'fred', 'fred', 1)});
my $history = join("\n",
	'alice login', 'alice remember_me_issued', 'alice remember_me_revoked',
	'bob remember_me_revoked');
my $feed = join("\n",
	'user bob password_changed', 'user carol user_deactivated', 'user dave user_deleted',
	'user erin user_renamed', 'token alice token_revoked');
my $names = 'alice bob carol dave erna fred';

# What a server says of logins and remember-me tokens, and what it told its nodes
sub events
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, q{
		SELECT user_name, event FROM session_admin_internal.login_event WHERE login_method IS DISTINCT FROM 'password'
		ORDER BY user_name, event, detail}, extra_params => [ '-F', ' ' ]);
}

sub fed
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, q{
		SELECT scope, user_name, reason FROM session_admin_internal.invalidation ORDER BY id}, extra_params => [ '-F', ' ' ]);
}

sub users
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, q{
		SELECT string_agg(user_name, ' ' ORDER BY user_name) FROM session_admin_internal.account});
}

my %has_extension = (
	publisher_only => [$publisher],
	subscriber_only => [$subscriber],
	on_both => [ $publisher, $subscriber ]);

foreach my $database (sort keys %has_extension)
{
	my @watching = @{ $has_extension{$database} };

	foreach my $node ($publisher, $subscriber)
	{
		$node->safe_psql('postgres', "CREATE DATABASE $database");
		$node->safe_psql($database, $tables);
		next unless grep { $_ == $node } @watching;
		$node->safe_psql($database, q{CREATE EXTENSION session_admin;
			SELECT count(*) FROM session_admin.attach_application('jira')});
	}

	# what the publisher sees of the first users is forgotten: only the copy counts
	$publisher->safe_psql($database, $users);
	$publisher->safe_psql($database, 'DELETE FROM session_admin_internal.login_event') if grep { $_ == $publisher } @watching;
	$publisher->safe_psql($database,
		"CREATE PUBLICATION $database FOR TABLE app_user, cwd_user, cwd_user_attributes, remembermetoken");
	my $connection = $publisher->connstr . " dbname=$database";
	$subscriber->safe_psql($database,
		"CREATE SUBSCRIPTION $database CONNECTION '$connection' PUBLICATION $database");
	$subscriber->wait_for_subscription_sync($publisher, $database, $database);

	foreach my $node (@watching)
	{
		my $name = $node->name;

		is(users($node, $database), 'alice bob carol dave erin', "$database: $name knows the users");
		is(events($node, $database), '', "$database: ... of whom nothing is an event");
		$node->safe_psql($database, q{
			SELECT session_admin.open_session(name || ' 1', name)
			FROM unnest('{alice,bob,carol,dave,erin}'::text[]) AS name});
	}

	$publisher->safe_psql($database, $_) foreach @events;
	$publisher->wait_for_catchup($database);

	foreach my $node (@watching)
	{
		my $name = $node->name;

		is(events($node, $database), $history, "$database: each event is once in the history of $name");
		is(fed($node, $database), $feed, "$database: ... and in its feed");
		is(users($node, $database), $names, "$database: ... and it knows who is new");
		is($node->safe_psql($database, q{
			SELECT string_agg(user_name, ' ' ORDER BY user_name) FROM session_admin.current_sessions}),
			'alice', "$database: ... and whose session goes on");
	}
	is($subscriber->safe_psql($database, 'SELECT username FROM remembermetoken ORDER BY id'), 'JIRAUSER1',
		"$database: the remember-me rows are the same on both")
	  if grep { $_ == $publisher } @watching;

	# TRUNCATE is everybody
	$publisher->safe_psql($database, 'TRUNCATE cwd_user, app_user, cwd_user_attributes, remembermetoken');
	$publisher->wait_for_catchup($database);
	foreach my $node (@watching)
	{
		my $name = $node->name;

		is($node->safe_psql($database, 'SELECT count(*) FROM session_admin.current_sessions'), 0,
			"$database: TRUNCATE ends all sessions of $name");
		is($node->safe_psql($database, 'SELECT count(*) FROM session_admin.capture_failures'), 0,
			"$database: ... and all was understood");
		is($node->safe_psql($database, q{
			SELECT count(*) FROM session_admin.verify_attachments() WHERE status <> 'ok'}), 0,
			"$database: ... and all triggers are as they should be");
	}
	$subscriber->safe_psql($database, "DROP SUBSCRIPTION $database");
}

# A trigger on a subscriber fires only if it is enabled for that
my $database = 'subscriber_only';
$subscriber->safe_psql($database, q{
	ALTER TABLE cwd_user DISABLE TRIGGER ALL; ALTER TABLE cwd_user ENABLE TRIGGER ALL});
like($subscriber->safe_psql($database, q{SELECT object, status FROM session_admin.verify_attachments() WHERE status <> 'ok'}),
	qr/^trigger session_admin_replica on public.cwd_user\|the trigger does not fire where it should/,
	'a trigger that a subscription does not fire is told of');
$subscriber->safe_psql($database, q{SELECT count(*) FROM session_admin.attach_application('jira')});
is($subscriber->safe_psql($database, q{SELECT count(*) FROM session_admin.verify_attachments() WHERE status <> 'ok'}), 0,
	'... and enabled by attach_application');

done_testing();
