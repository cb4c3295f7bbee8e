# View health: it is looked at often, so that it costs little however many sessions
# there are.  And on a standby, where nothing can be written.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'autovacuum = off');
$primary->start;

sub sql
{
	my ($query) = @_;
	return $primary->safe_psql('postgres', $query);
}

# One value of health
sub health
{
	my ($item, $node) = @_;
	return ($node // $primary)->safe_psql('postgres',
		"SELECT value FROM session_admin.health WHERE name = '$item'");
}

# Is it said to be about this number?  A sample is not exact: it is of 100 pages.
sub is_about
{
	my ($value, $expected, $name) = @_;
	my ($number) = $value =~ /^about (\d+)$/;

	ok(defined $number && abs($number - $expected) < $expected / 2, $name)
	  or diag("$value instead of about $expected");
}

sub open_sessions
{
	my ($application, $first, $last) = @_;

	sql(qq{
		SELECT session_admin.open_session('$application $first', 'alice', application => '$application');
		INSERT INTO session_admin.session (session_hash, application, generation, created_at, last_access_at, user_name)
		SELECT sha256(convert_to('$application ' || n, 'UTF8')), s.application, s.generation, s.created_at, s.last_access_at, 'user ' || n
		FROM session_admin.session s, generate_series($first + 1, $last) n WHERE s.application = '$application';
		SELECT session_admin.touch_sessions(array_agg('$application ' || n), application => '$application')
		FROM generate_series($first, $last) n});
}


# What is few is counted one by one.
sql('CREATE EXTENSION session_admin');
open_sessions('few', 1, 500);
sql(q{SELECT session_admin.invalidate_application(application => 'few')});
is(health('sessions to archive'), '500', 'a small backlog is exact');
is(health('requests not flushed'), '500', 'so are touches that are not flushed');
is(health('invalidations in the feed'), '1', 'and the feed');
sql(q{SELECT count(*) FROM session_admin.maintain()});
is(health('sessions to archive'), '0', 'no backlog');

# maintain() that fails midway leaves nothing for later.
open_sessions('failing', 1, 5000);
my (undef, undef, $error) = $primary->psql('postgres', q{
	CREATE SEQUENCE batch;
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF nextval('public.batch') = 3 THEN RAISE 'the third batch fails'; END IF; RETURN NULL; END $$;
	CREATE TRIGGER fail BEFORE UPDATE ON session_admin.session EXECUTE FUNCTION fail();
	SELECT FROM session_admin.maintain();
	SELECT FROM session_admin.maintain();
	DROP TRIGGER fail ON session_admin.session}, on_error_stop => 0);
like($error, qr/the third batch fails/, 'maintain() fails midway');
is(health('requests not flushed'), '0', 'the next one flushes all');
is(sql(q{SELECT sum(requests) FROM session_admin.session WHERE application = 'failing'}), '5000', 'each touch once');
sql(q{
	SELECT session_admin.invalidate_application(application => 'failing');
	SELECT FROM session_admin.maintain()});

# Of what is many a part is looked at.
open_sessions('many', 1, 30000);
like(health('sessions to archive'), qr/^about 0$/, 'no backlog among many');
is_about(health('requests not flushed'), 30000, 'touches among many');
sql(q{SELECT session_admin.invalidate_application(application => 'many')});
is_about(health('sessions to archive'), 30000, 'a large backlog');
sql(q{
	INSERT INTO session_admin_internal.invalidation (scope, application, reason)
	SELECT 'application', 'many', 'admin' FROM generate_series(1, 20000)});
is(health('invalidations in the feed'), 'at most 20003', 'a large feed');

# How the backlog is found: no plan reads the table session as a whole.
my $plan = sql(q{
	EXPLAIN (COSTS OFF) SELECT count(*) FROM session_admin_internal.session_state
	WHERE ended_at IS NOT NULL AND tid = ANY (ARRAY(
		SELECT ctid FROM session_admin.session TABLESAMPLE SYSTEM (1)))});
like($plan, qr/Tid Scan on session s/, 'sampled rows are read by their place');
unlike($plan, qr/(Seq|Index|Heap) Scan on session\b/, 'and no others');


# A standby tells the same, and touches answer there without writing.
sql(q{
	SELECT session_admin.open_session('s1', 'alice'), session_admin.open_session('s2', 'bob');
	UPDATE session_admin.session SET created_at = now() - interval '30 minutes', last_access_at = now() - interval '30 minutes'
	WHERE application = 'default'});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'session_admin.worker = on');
$standby->start;

sub replay
{
	$primary->wait_for_catchup($standby);
}

sub on_standby
{
	my ($query) = @_;
	return $standby->safe_psql('postgres', $query);
}

is(health('worker', $standby), 'standby', 'no worker on a standby');
is_about(health('sessions to archive', $standby), 30000, 'the backlog there');
is(on_standby('SELECT string_agg(user_name, $$ $$ ORDER BY user_name) FROM session_admin.current_sessions'),
	'alice bob', 'views there');
is(on_standby(q{SELECT session_admin.touch_session('s1'), session_admin.touch_session('s3'),
		session_admin.touch_sessions('{s2,s3}'::text[])}),
	't|f|{s3}', 'touches there');
is(on_standby(q{SELECT session_admin.touch_session('s1'); SELECT requests FROM session_admin.current_sessions WHERE user_name = 'alice'}),
	"t\n1", 'count for whoever made them');
foreach my $call (q{open_session('s3', 'carol')}, q{close_session('s1')}, q{invalidate_user('alice')},
	q{invalidate_all()}, q{sync_node('n', NULL)}, q{leave_node('n')}, 'maintain()')
{
	my ($code, undef, $error) = $standby->psql('postgres', "SELECT session_admin.$call",
		extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);

	like($error, qr/ERROR:  25006/, "refused there: $call");
}

# What the primary ends is ended there when it has been replayed, also for those who asked before.
my $client = $standby->background_psql('postgres');
is($client->query_safe(q{SELECT session_admin.touch_session('s1'), session_admin.touch_session('s2')}), 't|t', 'asked before');
sql(q{SELECT session_admin.invalidate_user('alice')});
replay();
is($client->query_safe(q{SELECT session_admin.touch_session('s1'), session_admin.touch_session('s2')}), 'f|t', 'a user is ended');
sql(q{SELECT session_admin.invalidate_all()});
replay();
is($client->query_safe(q{SELECT session_admin.touch_session('s2')}), 'f', 'all are ended');
$client->quit;

$standby->stop;
$primary->stop;
done_testing();
