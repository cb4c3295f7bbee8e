# pg_dump | pg_restore -1 -e into a new database: all that the extension keeps of
# people is there, in the partitions that were made at run time too, and a second
# dump is the same.  The feed and the nodes are not dumped, so that a node that
# comes back starts over.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$node->append_conf('postgresql.conf', "session_admin.application = 'jira'");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE old');
$node->safe_psql('postgres', 'CREATE DATABASE new');

sub old { return $node->safe_psql('old', @_) }
sub new { return $node->safe_psql('new', @_) }

# Something in every table
old('CREATE EXTENSION session_admin');
$node->psql('old', '', extra_params => [ '-q', '-f', 'test/products/jira.sql' ]);
old(q{
	INSERT INTO cwd_directory (id, directory_name, active) VALUES (1, 'internal', 1);
	INSERT INTO app_user VALUES (1, 'JIRAUSER1', 'alice'), (2, 'JIRAUSER2', 'bob');
	INSERT INTO cwd_user (id, directory_id, user_name, lower_user_name, active, credential)
	VALUES (1, 1, 'alice', 'alice', 1, 'x'), (2, 1, 'bob', 'bob', 1, 'y');
	SELECT session_admin.attach_application('jira');

	-- made now: the rows of this month go to a partition of their own
	SELECT session_admin.maintain();
	-- of last year's, too
	CREATE TABLE session_admin_internal.ended_session_2025_01 PARTITION OF session_admin_internal.ended_session
		FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2025-02-01 00:00+00');

	SELECT session_admin.set_policy('idle_timeout', '2 hours');
	SELECT session_admin.set_policy('on_restore', 'keep');
	SELECT session_admin.add_probe_rule('kube-probe/%', '10.0.0.0/8'), session_admin.add_probe_rule('%bot%');
	SELECT session_admin.set_policy('absolute_timeout', '8 hours', 'alice');
	SELECT session_admin.open_session('alice ' || i, 'alice', '192.0.2.1',
		user_agent => 'Mozilla "1" \x', device => 'léger') FROM generate_series(1, 3) i;
	SELECT session_admin.open_session('bob 1', 'bob'), session_admin.open_session('visitor 1');
	SELECT session_admin.open_session('carol 1', 'carol', application => 'wiki');
	SELECT session_admin.touch_session('alice 1'), session_admin.login_failed('alice');
	SELECT session_admin.issue_remember_me('bob', 'phone');
	SELECT r.* FROM (SELECT session_admin.issue_remember_me('alice', 'laptop') AS token) t,
		LATERAL session_admin.redeem_remember_me(t.token) r1, LATERAL session_admin.redeem_remember_me(r1.token) r;
	SELECT session_admin.close_session('alice 2');
	SELECT session_admin.invalidate_application('custom:maintenance', 'wiki');
	UPDATE session_admin_internal.ended_session SET ended_at = '2025-01-15', created_at = '2025-01-15'
	WHERE session_hash = sha256('alice 2');

	-- a product that somebody described, and a change that was not understood
	SELECT session_admin.describe_product('own',
		'{"account": {"tables": "people", "columns": {"user_name": {"column": "data", "path": ["who"]}}}}', 'our own');
	INSERT INTO session_admin_internal.product_mark VALUES ('own', '{data}');
	INSERT INTO session_admin_internal.capture_failure (application, relation, event, message)
	VALUES ('jira', 'public.cwd_user', 'UPDATE', 'unclear');

	-- a row of a product that could not be deleted
	INSERT INTO session_admin_internal.product_remains (application, product, part, table_name, secret_hash, reason, message)
	VALUES ('jira', 'jira', 'remember_me', 'public.remembermetoken', sha256('remains'), 'admin', 'somebody has them locked');

	-- who may do what
	CREATE ROLE helpdesk LOGIN;
	SELECT session_admin.grant_access('helpdesk', 'operator');
});
# rows where no partition was made for them
old(q{
	INSERT INTO session_admin_internal.ended_session (session_hash, application, created_at, last_access_at,
		requests, user_name, ended_at, end_reason, ended_by)
	VALUES (sha256('old'), 'jira', '1999-12-31', '1999-12-31', 1, 'alice', '1999-12-31', 'logout', 'x');
	INSERT INTO session_admin_internal.login_event (at, application, user_name, event, succeeded)
	VALUES ('1999-12-31', 'jira', 'alice', 'login', true);
});
my $position = old(q{SELECT session_admin.join_node('n1', 'jira')});
old(q{SELECT session_admin.invalidate_user('bob', keep_remember_me => true)});
$position = old(qq{SELECT DISTINCT applied::text FROM session_admin.sync_node('n1', '$position')});
is(old(qq{SELECT scope FROM session_admin.sync_node('n1', '$position')}), '',
	'before, the node has nothing to start over');

# Every table that the extension says is to be dumped must be tried here: a new
# one asks for rows above.
my @dumped = split /\n/, old(q{
	SELECT unnest(extconfig)::regclass FROM pg_extension WHERE extname = 'session_admin' ORDER BY 1::text});
my @partitions = split /\n/, old(q{
	SELECT inhrelid::regclass FROM pg_inherits
	WHERE inhparent IN ('session_admin_internal.ended_session'::regclass, 'session_admin_internal.login_event'::regclass)
	ORDER BY 1::text});
my @not_dumped = split /\n/, old(q{
	SELECT c.oid::regclass FROM pg_extension e, pg_class c
	WHERE extname = 'session_admin' AND relnamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace) AND relkind IN ('r', 'p')
	AND NOT relispartition AND NOT c.oid = ANY (extconfig) ORDER BY 1::text});

foreach my $table (@dumped)
{
	cmp_ok(old("SELECT count(*) FROM $table"), '>', 0, "there are rows in $table");
}
cmp_ok(scalar(grep { /_\d{4}_\d{2}$/ } @partitions), '>=', 3, 'there are partitions made at run time');
foreach my $table (grep { /_\d{4}_\d{2}$/ } @partitions)
{
	is(old(qq{SELECT count(*) FROM pg_depend WHERE objid = '$table'::regclass AND deptype = 'e'}), '0',
		"$table is no member of the extension, which would lose its rows");
}

# There and back
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/old.dump", $node->connstr('old') ], 'pg_dump');
$node->command_ok([ 'pg_restore', '-1', '-e', '-d', $node->connstr('new'), "$dir/old.dump" ],
	'pg_restore -1 -e');

foreach my $table (@dumped, @partitions)
{
	my $query = "SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\")) FROM $table t";
	is(new($query), old($query), "the rows of $table");
}

# A second dump has the same lines, but for the keys that pg_dump makes up.
foreach my $database ('old', 'new')
{
	$node->command_ok([ 'pg_dump', '-f', "$dir/$database.sql", $node->connstr($database) ],
		"dump of $database");
}
my ($old, $new) = map { my $dump = slurp_file("$dir/$_.sql"); $dump =~ s/^\\(un)?restrict .*\n//mg; $dump } 'old', 'new';
cmp_ok(length $old, '>', 10_000, 'a dump has something in it');
ok($old eq $new, 'a second dump is identical') or diag(`diff $dir/old.sql $dir/new.sql`);

# What is not dumped is as in a new extension: the feed and the nodes, and what
# the script itself fills
$node->safe_psql('postgres', 'CREATE DATABASE empty');
$node->safe_psql('empty', 'CREATE EXTENSION session_admin');
foreach my $table (grep { $_ ne 'session_admin_internal.installation' } @not_dumped)
{
	my $query = "SELECT md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\")) FROM $table t";
	is(new($query), $node->safe_psql('empty', $query), "$table is as in a new extension");
}
isnt(new('SELECT id FROM session_admin_internal.installation'), old('SELECT id FROM session_admin_internal.installation'),
	'the restored database knows that it is another one');
cmp_ok(old('SELECT count(*) FROM session_admin_internal.invalidation'), '>', 0, 'there was a feed');
cmp_ok(old('SELECT count(*) FROM session_admin_internal.node'), '>', 0, 'there was a node');

# The restored database goes on where the old one was.
is(new(q{SELECT session_admin.touch_sessions(ARRAY['alice 1', 'alice 2', 'alice 3', 'bob 1', 'visitor 1'])}),
	old(q{SELECT session_admin.touch_sessions(ARRAY['alice 1', 'alice 2', 'alice 3', 'bob 1', 'visitor 1'])}),
	'the same sessions are valid');
is(new(q{SELECT session_admin.touch_session('carol 1', 'wiki')}), 'f', 'whole generations stay ended');
is(new(q{SELECT done FROM session_admin.maintain() WHERE task = 'partitions made'}), '0',
	'maintain() knows the partitions');
is(new(q{SELECT tableoid::regclass FROM session_admin_internal.ended_session WHERE session_hash = sha256('alice 2')}),
	'session_admin_internal.ended_session_2025_01', 'a row is in its partition');
new(q{SELECT session_admin.close_session('alice 1')});
is(new(q{SELECT end_reason FROM session_admin_internal.ended_session WHERE session_hash = sha256('alice 1')}), 'logout',
	'sessions are archived');
is(new(q{UPDATE cwd_user SET credential = 'z' WHERE id = 1;
	SELECT reason FROM session_admin_internal.invalidation ORDER BY id DESC LIMIT 1}), 'password_changed',
	'the tables of the product are watched');
is(new(q{SELECT object, status FROM session_admin.verify_attachments() WHERE status !~ '^(ok|changes not understood)'}), '',
	'all of it is as attach_application left it');
is($node->psql('new', q{SELECT session_admin.invalidate_user('alice')}, extra_params => [ '-U', 'helpdesk' ]), 0,
	'who was granted a capability has it');
isnt($node->psql('new', q{SELECT * FROM session_admin.session}, extra_params => [ '-U', 'helpdesk' ]), 0,
	'and no more');

# A node that comes with its old position is told to start over.
is(new(qq{SELECT scope, reason FROM session_admin.sync_node('n1', '$position')}), 'all|resync',
	'the node starts over');

$node->stop;
done_testing();
