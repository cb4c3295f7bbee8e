# The sessions that were in a product's own table before: read in batches, stopped half
# way, and gone on with, while the product goes on with its work.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rows = 100_000;
my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->append_conf('postgresql.conf', "max_connections = 30\nautovacuum = off");
$server->start;

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

# A procedure that commits, on a connection of its own; ends when it was cancelled.
sub backfill
{
	my ($batch_size) = @_;
	my $process = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $server->connstr('postgres'), '-c',
			"CALL session_admin.backfill_sessions($batch_size)" ],
		'<', \undef, '>', \my $out, '2>', \my $err);

	return $process;
}

sub rows_read
{
	return sql('SELECT coalesce(max(rows_read), 0) FROM session_admin.backfills');
}

sql(slurp_file('test/products/spring_session.sql'));
sql(qq{
	INSERT INTO spring_session
	SELECT n, 's' || n, now, now, 1800, CASE WHEN n % 10 = 0 THEN 1 ELSE now + 1800000 END,
		CASE WHEN n % 3 > 0 THEN 'user' || n % 1000 END
	FROM generate_series(1, $rows) n, (SELECT (1000 * extract(epoch FROM now()))::bigint AS now) t;
	CREATE EXTENSION session_admin;
	SELECT count(*) FROM session_admin.attach_application('spring_session');
	ANALYZE spring_session});

# The product goes on: requests, logouts, logins, and visitors who log in.
my $work = $server->basedir . '/work.sql';
append_to_file($work, <<"SQL");
\\set n random(1, $rows)
\\set m random(1, $rows)
\\set new random(1000000, 900000000)
UPDATE spring_session SET last_access_time = last_access_time + 1, expiry_time = expiry_time + 1 WHERE primary_id = ':n'::text::bpchar;
DELETE FROM spring_session WHERE primary_id = ':m'::text::bpchar;
INSERT INTO spring_session SELECT primary_id || '+:new', session_id || '+:new', creation_time, last_access_time, 1800,
	expiry_time, 'new' FROM spring_session WHERE primary_id = ':n'::text::bpchar;
SQL
my $pgbench = IPC::Run::start(
	[ 'pgbench', '-n', '-c', '2', '-T', '6', '-f', $work, $server->connstr('postgres') ],
	'<', \undef, '>', \my $out, '2>&1');
$server->poll_query_until('postgres', 'SELECT count(*) > 0 FROM session_admin.current_sessions');

my $first = backfill(500);
$server->poll_query_until('postgres', "SELECT rows_read > $rows / 3 FROM session_admin.backfills")
  or die 'no progress';
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL%'});
$first->finish;
my $half = rows_read();
ok($half > $rows / 3 && $half < $rows, 'stopped half way');
is( sql('SELECT percent BETWEEN 20 AND 99, finished_at IS NULL FROM session_admin.backfills'),
	't|t', 'the view says how far it came');

backfill(500)->finish;
is(sql('SELECT percent, finished_at IS NOT NULL FROM session_admin.backfills'), '100|t', 'gone on with, to the end');
ok(rows_read() < 1.2 * $rows, 'from where it was');
$pgbench->finish;
is($pgbench->result(0), 0, 'the product was not disturbed') or diag($out);

# Each session that has not expired is known, with its user, and no other.
is( sql(q{
		SELECT count(*), count(*) FILTER (WHERE s.session_hash IS NULL),
			count(*) FILTER (WHERE p.primary_id IS NULL),
			count(*) FILTER (WHERE p.principal_name IS DISTINCT FROM s.user_name)
		FROM (SELECT * FROM spring_session WHERE expiry_time > 1000 * extract(epoch FROM now())) p
		FULL JOIN session_admin.session s ON s.session_hash = sha256(trim(p.session_id)::bytea)})
	  =~ s/^\d{5}\|//r,
	'0|0|0', 'all sessions of the product, and no others');
is(sql(q{SELECT count(*) FROM session_admin_internal.login_event WHERE user_name <> 'new'}), 0, 'nothing that was there before is a login');
ok(sql(q{SELECT count(*) FROM session_admin_internal.login_event WHERE user_name = 'new'}) > 0, 'what came meanwhile is');
is(sql('SELECT count(*) FROM session_admin_internal.capture_failure'), 0, 'no failure');

$server->stop;
done_testing();
