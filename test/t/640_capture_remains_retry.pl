# Rows that remain in a product's table are tried again a few seconds at a time: what is
# gone is committed in between, however slow the product's triggers are.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $sessions = 12;
my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->append_conf('postgresql.conf', q{
	session_admin.worker = off
	session_admin.flush_interval = 1
	session_admin.application = 'shop'
	session_admin.lock_wait = 0
	autovacuum = off
});
$server->start;

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

sql(qq{
	CREATE EXTENSION session_admin;
	CREATE TABLE spring_session (primary_id char(36) PRIMARY KEY, session_id char(36) UNIQUE,
		principal_name varchar(100), max_inactive_interval int);
	SELECT session_admin.attach_application('spring_session');
	INSERT INTO spring_session SELECT i, 's' || i, 'u' || i, 1800 FROM generate_series(1, $sessions) i;
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN PERFORM pg_sleep(0.8); RETURN old; END';
	CREATE TRIGGER slow BEFORE DELETE ON spring_session FOR EACH ROW EXECUTE FUNCTION slow();
});

# each of them is noted apart, by its transaction
my $holder = $server->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE spring_session');
sql("SELECT FROM session_admin.invalidate_user('u$_')") for 1 .. $sessions;
$holder->query_safe('COMMIT');
$holder->quit;
is(sql('SELECT count(*) FROM spring_session'), $sessions, 'all rows remain');

$server->append_conf('postgresql.conf', 'session_admin.worker = on');
$server->reload;
my $left = $sessions;
for (my $i = 0; $i < 10 * $PostgreSQL::Test::Utils::timeout_default && $left == $sessions; $i++)
{
	usleep(100_000);
	$left = sql('SELECT count(*) FROM spring_session');
}
cmp_ok($left, '<', $sessions, 'rows are deleted');
cmp_ok($left, '>', 0, '... and not all of them in one transaction');
ok($server->poll_query_until('postgres', 'SELECT count(*) = 0 FROM spring_session'), '... but in the end');

$server->stop;
done_testing();
