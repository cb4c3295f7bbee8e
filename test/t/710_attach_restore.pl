# Dumped and restored in any way, also by several jobs at once, what was watched is
# watched: of a product that the extension knows, and of one that somebody described.
# What has got lost is told.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE old');

sub sql
{
	my ($database, $query) = @_;
	return $node->safe_psql($database, $query);
}

sub broken
{
	return sql(shift, q{SELECT object, status FROM session_admin.verify_attachments() WHERE status <> 'ok' ORDER BY 1, 2});
}

sql('old', 'CREATE EXTENSION session_admin');
$node->psql('old', '', extra_params => [ '-q', '-f', 'test/products/jira.sql' ]);
sql('old', q{
	INSERT INTO cwd_directory (id, directory_name, active) VALUES (1, 'internal', 1);
	INSERT INTO app_user VALUES (1, 'JIRAUSER1', 'alice');
	INSERT INTO cwd_user (id, directory_id, user_name, lower_user_name, active, credential)
	VALUES (1, 1, 'alice', 'alice', 1, 'x');
	SELECT session_admin.attach_application('jira', application => 'jira');

	CREATE SCHEMA shop;
	CREATE TABLE shop.users (id int PRIMARY KEY, email text, password_hash text);
	CREATE TABLE shop.http_session (sid text PRIMARY KEY, sess jsonb, expire timestamptz);
	INSERT INTO shop.users VALUES (1, 'carla', 'old');
	SELECT session_admin.describe_product('shop', '{
		"account": {"tables": "users", "columns": {"user_name": "email", "credential": "password_hash"}},
		"session": {"tables": "http_session", "columns": {
			"secret": "sid", "user_name": {"column": "sess", "path": ["passport", "user"]}, "expires_at": "expire"}}}');
	SELECT session_admin.attach_application('shop', 'shop', application => 'shop');
	-- a table that is gone is no other one there
	CREATE SCHEMA gone;
	CREATE TABLE gone.http_session (LIKE shop.http_session);
	CREATE TABLE gone.users (LIKE shop.users);
	SELECT session_admin.attach_application('shop', 'gone', application => 'gone');
	DROP SCHEMA gone CASCADE;
});
my $attached = sql('old', q{SELECT count(*) FROM session_admin.verify_attachments() WHERE application <> 'gone'});

my %ways = (
	'-j 4' => [ [ '-Fd', '-f', "$dir/j" ], [ '-j', 4, "$dir/j" ] ],
	'-1' => [ [ '-Fd', '-f', "$dir/one" ], [ '-1', "$dir/one" ] ],
	'custom' => [ [ '-Fc', '-f', "$dir/custom" ], ["$dir/custom"] ],
	'plain' => [ [ '-Fp', '-f', "$dir/plain" ], undef ]);
foreach my $way (sort keys %ways)
{
	my ($dump, $restore) = @{ $ways{$way} };
	my $new = "new $way";

	sql('postgres', qq{CREATE DATABASE "$new"});
	command_ok([ 'pg_dump', @{$dump}, $node->connstr('old') ], "$way: dumped");
	if ($restore)
	{
		command_ok([ 'pg_restore', '-e', '-d', $node->connstr($new), @{$restore} ], "$way: restored");
	}
	else
	{
		command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($new), '-f', "$dir/plain" ],
			"$way: restored");
	}
	is(sql($new, q{SELECT count(*) FROM session_admin.verify_attachments()
		WHERE application <> 'gone' AND status = 'ok'}), $attached, "$way: all is watched");
	is(sql($new, q{SELECT count(*) FROM session_admin_internal.product_column WHERE product = 'shop'}), 5,
		"$way: the description is there");

	sql($new, q{
		SELECT session_admin.open_session('alice 1', 'alice', application => 'jira');
		UPDATE cwd_user SET credential = 'new';
		-- the first use ends what came with the dump
		SELECT session_admin.open_session('first', application => 'shop');
		INSERT INTO shop.http_session VALUES ('cookie', '{"passport": {"user": "carla"}}', now() + interval '1 hour')});
	is(sql($new, q{SELECT session_admin.touch_session('alice 1', 'jira'), session_admin.touch_session('cookie', 'shop')}),
		'f|t', "$way: a new password ends the user's sessions, a row is a session");
	sql($new, q{UPDATE shop.users SET password_hash = 'new'});
	is(sql($new, q{SELECT session_admin.touch_session('cookie', 'shop'), count(*) FROM shop.http_session}), 'f|0',
		"$way: also of what somebody described");
}

# What got lost nevertheless
my $lost = 'new -j 4';
sql($lost, q{DELETE FROM session_admin_internal.attachment_column WHERE application = 'jira' AND part = 'account'});
like(broken($lost), qr/^public.cwd_user\|none of its columns is known/m, 'columns that got lost are told');
sql($lost, q{DELETE FROM session_admin_internal.attachment WHERE application = 'jira'});
like(broken($lost), qr/^public.app_user\|the table is watched, but nothing says as what/m,
	'a table that nothing is known of is told');
like(broken($lost), qr/^columns\|no table is known/m, 'columns without a table are told');
like(sql($lost, q{SELECT status FROM session_admin.health WHERE name = 'watched tables'}), qr/^broken: /, 'by health, too');

my ($ret, $out, $err) = $node->psql($lost, q{UPDATE cwd_user SET credential = 'newer'; UPDATE cwd_user SET credential = 'newest'});
is($ret, 0, 'the statement goes on');
is(scalar(() = $err =~ /nothing says as what/g), 1, 'with a warning, once');
$node->psql($lost, q{UPDATE cwd_user SET credential = 'last'}, stderr => \$err);
unlike($err, qr/nothing says as what/, 'not in another connection');
is(sql($lost, q{SELECT application, relation, message, user_names FROM session_admin.capture_failures}),
	'|public.cwd_user|the table is watched, but nothing says as what|{}', 'and a line in capture_failures');
is(sql($lost, q{SELECT session_admin.acknowledge_failures('jira')}), 1, 'which can be acknowledged');
sql($lost, q{SELECT session_admin.attach_application('jira', application => 'jira');
	SELECT session_admin.open_session('alice 2', 'alice', application => 'jira');
	UPDATE cwd_user SET credential = 'changed'});
is(sql($lost, q{SELECT session_admin.touch_session('alice 2', 'jira')}), 'f', 'attached again, it is watched');
is(sql($lost, q{SELECT count(*) FROM session_admin.detach_application(application => 'jira')}), 4, 'and detached');
is(sql($lost, q{SELECT count(*) FROM session_admin_internal.attachment_column WHERE application = 'jira'}), 0, 'nothing is left');

done_testing();
