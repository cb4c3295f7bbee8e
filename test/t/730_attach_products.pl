# attach_application leaves no trace that detach_application does not take away, in
# the schema of any product; and while it reads the tables, nobody has to wait for it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$server->start;

sub sql { return $server->safe_psql('postgres', @_) }

sql('CREATE EXTENSION session_admin');

# What the product's schema is, without the marks of the dump
sub dump_of
{
	my ($schema) = @_;
	my ($out, $err) = run_command([ 'pg_dump', '--schema-only', '-n', $schema, '-d', $server->connstr('postgres') ]);

	die $err if $err;
	$out =~ s/^\\(un)?restrict .*\n//mg;
	return $out;
}

# The products, by the names of the files with their tables
my %product_of = (rails => 'devise');

foreach my $file (sort glob 'test/products/*.sql')
{
	my ($schema) = $file =~ m{([^/]+)\.sql$};
	my $product = $product_of{$schema} // $schema;

	next if sql("SELECT count(*) FROM session_admin_internal.product WHERE product = '$product'") == 0;
	sql("CREATE SCHEMA $schema; SET search_path = $schema; " . slurp_file($file));
	my $before = dump_of($schema);
	foreach my $time ('', ' again')
	{
		sql("SELECT count(*) FROM session_admin.attach_application('$product', '$schema', '$product')");
		is(sql("SELECT count(*) FROM session_admin.verify_attachments() WHERE status <> 'ok'"), 0,
			"$product is attached$time");
		isnt(dump_of($schema), $before, '... which is seen in a dump');
		sql("SELECT count(*) FROM session_admin.detach_application('$product', '$schema', '$product')");
		is(dump_of($schema), $before, '... until it is detached');
	}
	is(sql("SELECT (SELECT count(*) FROM session_admin_internal.attachment)
		+ (SELECT count(*) FROM session_admin_internal.account_key WHERE product = '$product')"), 0,
		"nothing is noted of $product any more");
}

#
# While it reads.  It comes to a halt there, because it waits for a row of ours that
# we hold: the user with number 500 is being added by somebody.
#
sql(q{
	SET search_path = jira;
	INSERT INTO cwd_user (id, user_name, lower_user_name, active, credential)
	SELECT n, 'user ' || n, 'user ' || n, 1, 'old' FROM generate_series(1, 1000) n;
	INSERT INTO app_user (id, user_key, lower_user_name) SELECT id, 'JIRAUSER' || id, lower_user_name FROM cwd_user;
});
my $other = $server->background_psql('postgres', on_error_stop => 1);
$other->query_safe(q{
	BEGIN; INSERT INTO session_admin_internal.account (application, user_name) VALUES ('jira', 'user 500')});

my ($out, $err) = ('', '');
my $attach = IPC::Run::start(
	[ 'psql', '-XAtq', '-d', $server->connstr('postgres'), '-c',
		q{SELECT part, note FROM session_admin.attach_application('jira', 'jira', 'jira') WHERE note LIKE '%read'} ],
	'<', \undef, '>', \$out, '2>', \$err);

my $waits = q{FROM pg_stat_activity WHERE query ~ '^SELECT part, note' AND wait_event_type = 'Lock'};
$server->poll_query_until('postgres', "SELECT count(*) = 1 $waits AND wait_event = 'transactionid'")
  or die "attach_application does not come to a halt: $err";
my $locks = qq{
	SELECT string_agg(DISTINCT l.mode, ' ') FROM pg_locks l
	JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = 'jira' AND l.pid = (SELECT pid $waits)};
is(sql($locks), 'AccessShareLock', 'while it reads, its locks are those of a reader');

# writers go on; what they change is not yet an event, but is known in the end
sql(q{
	SET search_path = jira;
	BEGIN; LOCK TABLE cwd_user, app_user, cwd_user_attributes, remembermetoken IN ROW EXCLUSIVE MODE NOWAIT; COMMIT});
sql(q{
	SET search_path = jira;
	INSERT INTO cwd_user (id, user_name, lower_user_name, active) VALUES (1001, 'late', 'late', 1);
	UPDATE cwd_user SET user_name = 'renamed', lower_user_name = 'renamed' WHERE id = 7});

#
# While it waits for a writer, others don't wait behind it for long
#
my $writer = $server->background_psql('postgres', on_error_stop => 1);
$writer->query_safe(q{BEGIN; UPDATE jira.cwd_user SET first_name = 'x' WHERE id = 1});
$other->query_safe('COMMIT');
$server->poll_query_until('postgres', "SELECT count(*) = 1 $waits AND wait_event = 'relation'")
  or die "attach_application does not wait for the writer: $err";
sql(q{UPDATE jira.cwd_user SET first_name = 'x' WHERE id = 2});
is(sql('SELECT count(*) FROM session_admin_internal.attachment'), 0, 'a writer comes in between');
$writer->query_safe('COMMIT');

$attach->finish;
is($err, '', 'it comes to its end');
like($out, qr/^account\|10\d\d rows read/m, '... and has read all');
is(sql(q{
	SELECT string_agg(k.user_name, ' ' ORDER BY key::int) FROM session_admin_internal.account_key k
	WHERE part = 'account' AND k.key IN ('7', '500', '1001')}), 'renamed user 500 late',
	'... with what was changed meanwhile');
$_->quit foreach ($other, $writer);

done_testing();
