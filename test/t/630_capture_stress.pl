# An application with its own table of sessions at work, while everybody ends sessions in
# every way: nobody deadlocks, and in the end both have the same sessions of the same users.
#
# STRESS_SECONDS=600 STRESS_CLIENTS=16 is a longer run.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
# long enough, on a slow machine too, to wait for whoever has a row
$server->append_conf('postgresql.conf', "autovacuum = off\nsession_admin.lock_wait = '1min'");
$server->start;

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

sql(slurp_file('test/products/spring_session.sql') . slurp_file('test/products/spring_security.sql'));
sql(q{
	CREATE EXTENSION session_admin;
	SELECT session_admin.attach_application('spring_session'), session_admin.attach_application('spring_security');
	INSERT INTO users SELECT 'user' || n, '', true FROM generate_series(0, 50) n;
	CREATE FUNCTION ms() RETURNS bigint LANGUAGE sql RETURN 1000 * extract(epoch FROM clock_timestamp())});

# Of 300 places for sessions, and 50 users; with how often each is done.
my $start = q{
\set place random(1, 300)
\set user random(1, 50)
\set other random(1, 50)
\set id random(1, 1000000000000000)
};
my @does = (
	[ login => 20, q{
		INSERT INTO spring_session VALUES (:place, 'a:id', ms(), ms(), 1800, ms() + 1800000, 'user:user')
		ON CONFLICT (primary_id) DO UPDATE SET session_id = excluded.session_id, principal_name = excluded.principal_name} ],
	[ visitor => 10, q{
		INSERT INTO spring_session VALUES (:place, 'b:id', ms(), ms(), 1800, ms() + 1800000, NULL) ON CONFLICT DO NOTHING;
		UPDATE spring_session SET session_id = 'c:id', principal_name = 'user:user'
		WHERE primary_id = ':place' AND principal_name IS NULL} ],
	[ request => 40, q{
		UPDATE spring_session SET last_access_time = ms(), expiry_time = ms() + 1800000 WHERE primary_id = ':place'} ],
	[ logout => 10, q{DELETE FROM spring_session WHERE primary_id = ':place'} ],
	[ one_user => 5, q{SELECT session_admin.invalidate_user('user:user')} ],
	[ some => 5, q{SELECT session_admin.invalidate_sessions(user_name => 'user:user')} ],
	[ passwords => 5, q{UPDATE users SET password = md5(random()::text) WHERE username IN ('user:user', 'user:other')} ],
	# in its own order: first its session, then its user
	[ own_password => 5, q{
		BEGIN;
		UPDATE spring_session SET last_access_time = ms(), session_id = 'd:id' WHERE primary_id = ':place' RETURNING primary_id;
		UPDATE users SET password = md5(random()::text) WHERE username = 'user:user';
		UPDATE spring_session SET last_access_time = ms() WHERE primary_id = ':place';
		COMMIT} ],
	[ own_logout => 5, q{
		BEGIN;
		UPDATE users SET password = md5(random()::text) WHERE username = 'user:user';
		DELETE FROM spring_session WHERE principal_name = 'user:user' AND primary_id < ':place';
		COMMIT} ],
	[ in_transaction => 5, q{
		BEGIN;
		SELECT session_admin.open_session('own :id', 'user:user');
		SELECT session_admin.invalidate_user('user:other');
		SELECT session_admin.login_failed('user:user');
		SELECT session_admin.close_session('own :id');
		COMMIT} ],
	[ nobody => 2, q{SELECT session_admin.invalidate_sessions(anonymous => true)} ],
	[ device => 5, q{
		SELECT r.outcome FROM session_admin.issue_remember_me('user:user') AS t (token),
			LATERAL session_admin.redeem_remember_me(t.token) AS r;
		SELECT session_admin.revoke_remember_me(series) FROM session_admin.remember_me_token LIMIT 1} ],
	[ close => 5, q{SELECT session_admin.close_session(session_hash) FROM session_admin.session LIMIT 1} ],
	[ everybody => 1, q{SELECT session_admin.invalidate_application(); SELECT count(*) FROM session_admin.maintain()} ]);
my @scripts;
foreach my $what (@does)
{
	my ($name, $weight, $statements) = @$what;
	my $file = $server->basedir . "/$name.sql";

	# one statement a line, but what is in it may have several
	append_to_file($file, $start . join(";\n", map { s/\s+/ /gr } split /;/, $statements) . ";\n");
	push @scripts, '-f', "$file\@$weight";
}
# each user is known, so that nobody is told that there is no such user
sql(q{SELECT session_admin.open_session('first ' || n, 'user' || n),
	session_admin.close_session('first ' || n) FROM generate_series(0, 50) n});

$server->command_ok(
	[   'pgbench', '-n', '-c', $ENV{STRESS_CLIENTS} // 10, '-T', $ENV{STRESS_SECONDS} // 8, @scripts,
		$server->connstr('postgres') ],
	'many connections at work');
my $log = slurp_file($server->logfile);
is(join("\n", $log =~ /^.*?(?:ERROR|WARNING): .*(?:\n.*DETAIL: .*(?:\n\t.*)*)?/mg), '',
	'no deadlock, no other error and no warning');
# what somebody had locked for a moment is cleared up
sql('SELECT session_admin.maintain()');
is(sql('SELECT count(*) FROM session_admin_internal.product_remains'), 0, 'no row of the product remains');
is( sql(q{
		SELECT count(*) FILTER (WHERE s.session_hash IS NULL), count(*) FILTER (WHERE p.primary_id IS NULL),
			count(*) FILTER (WHERE p.principal_name IS DISTINCT FROM s.user_name)
		FROM spring_session p
		FULL JOIN (SELECT * FROM session_admin_internal.session_state WHERE ended_at IS NULL) s
			ON s.session_hash = sha256(trim(p.session_id)::bytea)}),
	'0|0|0', 'the same sessions, of the same users');
is(sql('SELECT count(*) FROM session_admin_internal.capture_failure'), 0, 'no failure');
is( sql(q{
		SELECT count(*) FROM (SELECT user_name, login_count FROM session_admin_internal.account
			EXCEPT SELECT user_name, count(*) FROM session_admin_internal.login_event
			WHERE event = 'login' GROUP BY user_name) a}), 0, 'as many logins are counted as are in the history');

$server->stop;
done_testing();
