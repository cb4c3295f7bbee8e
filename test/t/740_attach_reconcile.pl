# Reconcile with many rows: in slices by maintain(), as a whole by reconcile_sessions(),
# with progress; and the worker, where a table is gone.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'session_admin'
session_admin.application = 'rec'
session_admin.worker = off
autovacuum = off
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', shift) }

sub slice
{
	return sql(q{SELECT done FROM session_admin.maintain() WHERE task = 'sessions reconciled'});
}

my $differ = q{
	ALTER TABLE session DISABLE TRIGGER ALL;
	DELETE FROM session WHERE sid = 'old 1';
	INSERT INTO session SELECT 'new ' || n, sess, expire FROM session, generate_series(1, 15000) n WHERE sid = 'old 2';
	ALTER TABLE session ENABLE TRIGGER ALL};
sql('CREATE EXTENSION session_admin');
sql(q{
	CREATE TABLE session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL);
	SELECT session_admin.attach_application('connect_pg_simple');
	INSERT INTO session SELECT 'old ' || n, '{"passport": {"user": "alice"}}', now() + interval '1 day' FROM generate_series(1, 10) n});
is(slice(), 0, 'nothing differs');
sql($differ);
my @found = map { slice() } 1 .. 4;
my $sum = 0;
$sum += $_ for @found;
is($sum, 15001, 'all of it is found, a slice at a time');
ok($found[0] <= 10000 && $found[1] > 0, 'no slice is larger than it may be');
is(slice(), 0, 'and nothing is found twice');

# as a whole
sql(q{ALTER TABLE session DISABLE TRIGGER ALL; DELETE FROM session WHERE sid LIKE 'new %'; ALTER TABLE session ENABLE TRIGGER ALL});
my ($out, $err);
$node->psql('postgres', q{SELECT rows_read, ended, taken, deleted FROM session_admin.reconcile_sessions()},
	stdout => \$out, stderr => \$err);
is($out, '9|15000|0|0', 'sessions without rows end');
like($err, qr/NOTICE:  sessions without a row of "public.session": 5000 so far/, 'with progress');

# the worker, at once
is(sql(q{SELECT count(*) FROM session_admin.current_sessions}), 9, 'some are left');
sql('DROP TABLE session');
sql('ALTER SYSTEM SET session_admin.worker = on');
$node->reload;
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM session_admin.session'),
	'the worker ends the sessions of a table that is gone');

done_testing();
