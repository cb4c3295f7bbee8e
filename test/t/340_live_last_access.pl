# Last accesses that the table session does not tell yet: they are flushed, and outlive
# an orderly restart, also of touches that count no request.  And where the shared table
# is full or there is none, a session that is in use does not end, however short its
# idle timeout is.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
session_admin.worker = off
session_admin.max_live_sessions = 1000
autovacuum = off
));
$node->start;

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', "SET client_min_messages = warning; $query");
}

sql('CREATE EXTENSION session_admin');

# The row gets old without memory noticing: as if the session had been in use for long.
sub grow_old
{
	sql(q{
		BEGIN;
		ALTER TABLE session_admin.session DISABLE TRIGGER session_changed;
		UPDATE session_admin.session SET last_access_at = last_access_at - interval '2 hours';
		ALTER TABLE session_admin.session ENABLE ALWAYS TRIGGER session_changed;
		COMMIT});
}

sub touch
{
	my ($id, $requests) = @_;
	return sql("SELECT session_admin.touch_sessions(ARRAY['$id'], ARRAY[$requests])");
}

my $is_old = q{SELECT last_access_at < now() - interval '1 hour' FROM session_admin.session};
my $flush = q{SELECT done FROM session_admin.maintain() WHERE task = 'touches flushed'};
my $health = q{SELECT value, status FROM session_admin.health WHERE name = 'requests not flushed'};

# Touches that count no request
sql(q{SELECT session_admin.open_session('id', 'alice')});
is(sql($health), '0|ok', 'nothing is to be flushed');
is(touch('id', 0), '{}', 'a touch without a request');
grow_old();
is(sql($health), '0; last access of 1 sessions|call session_admin.maintain(), or set session_admin.worker = on',
	'its last access is to be flushed');
$node->restart;
is(sql($is_old), 't', 'the row does not tell of it');
is(touch('id', 0), '{}', 'it has outlived a restart');
$node->restart;
is(sql($flush), '1', 'it is flushed after another one');
is(sql($is_old), 'f', 'now the row tells');
is(sql($health), '0|ok', 'and nothing is left');

# What was not touched since is not written again.
my $version = q{SELECT xmin, ctid FROM session_admin.session};
my $before = sql($version);
is(sql($flush), '0', 'nothing is flushed again');
$node->restart;
ok(!-e $node->data_dir . '/pg_stat/session_admin.stat', 'nothing was to be saved');
is(sql($flush), '0', 'nor after a restart');
is(sql($version), $before, 'the row is as it was');
is(touch('id', 2), '{}', 'two requests');
is(sql($flush), '1', 'are flushed');
is(sql($flush), '0', 'once');
is(sql('SELECT requests FROM session_admin.session'), '2', 'and counted');

# A flush that fails is done again.
touch('id', 0);
grow_old();
sql("DO \$\$ BEGIN PERFORM session_admin.maintain(); RAISE 'never mind'; EXCEPTION WHEN raise_exception THEN NULL; END \$\$");
is(sql($is_old), 't', 'a flush that is rolled back');
is(sql($flush), '1', 'is done again');
is(sql($is_old), 'f', 'now the row tells');

# Two flushes in one transaction write it once.
touch('id', 5);
sql('DO $$ BEGIN PERFORM session_admin.maintain(); PERFORM session_admin.maintain(); END $$');
is(sql('SELECT requests FROM session_admin.session'), '7', 'flushed twice');
is(sql($flush), '0', 'nothing is left');


# Both see it in time: one touches it all the time, then the other one does.
my @psql = map { $node->background_psql('postgres') } 1 .. 2;
sub keep_in_use
{
	my ($name, $seconds) = @_;
	my $timeout = $seconds + 1;

	sql("SELECT session_admin.set_policy('idle_timeout', '$timeout seconds');
		SELECT session_admin.open_session('$name', 'bob')");
	is($_->query_safe("SELECT session_admin.touch_session('$name')"), 't', "$name: touched by both") foreach @psql;
	$psql[0]->query_safe(qq{
		DO \$\$
		DECLARE
			until timestamptz := clock_timestamp() + interval '2 seconds' * $timeout;
		BEGIN
			WHILE clock_timestamp() < until LOOP
				IF NOT session_admin.touch_session('$name') THEN
					RAISE 'it has ended';
				END IF;
				COMMIT;
			END LOOP;
		END \$\$});
	is($psql[1]->query_safe("SELECT session_admin.touch_session('$name')"), 't', "$name: it goes on for the other one");
	is(sql("SELECT ended_at FROM session_admin_internal.session_state WHERE user_name = 'bob'"), '', "$name: and for all");
	sql("SELECT session_admin.close_session('$name'); SELECT session_admin.set_policy('idle_timeout', NULL)");
}

keep_in_use('in shared memory', 2);
$_->query_safe('SET session_admin.use_shared_memory = off') foreach @psql;
keep_in_use('not in shared memory', 2);
$_->query_safe('RESET session_admin.use_shared_memory') foreach @psql;
sql(q{
	SELECT count(session_admin.open_session('s' || n, 'many')) FROM generate_series(1, 1000) n;
	SELECT session_admin.touch_sessions(array_agg('s' || n)) FROM generate_series(1, 1000) n});
is(sql('SELECT used >= capacity FROM session_admin_internal.live_status()'), 't', 'the shared table is full');
keep_in_use('in a full table', 2);
$_->quit foreach @psql;

$node->stop;
done_testing();
