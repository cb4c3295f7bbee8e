# The background worker: it starts by itself wherever the extension is used,
# flushes, archives and makes partitions, stands in nobody's way, and comes back
# after whatever happens to it.  And an orderly restart loses no request.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init(allows_streaming => 1);
$server->append_conf('postgresql.conf', q{
	session_admin.worker = on
	session_admin.flush_interval = 1
	restart_after_crash = on
	autovacuum = off
	wal_log_hints = off
});
$server->start;

sub sql
{
	my ($query, $database) = @_;
	return $server->safe_psql($database // 'postgres', $query);
}

# Wait until the query gives true.
sub poll_ok
{
	my ($query, $name, $database, $expected) = @_;
	ok($server->poll_query_until($database // 'postgres', $query, $expected // 't'), $name);
}

# Open a session; each touch is a transaction of its own.
sub touch
{
	my ($session, $times, $database) = @_;
	my $touch = "SELECT session_admin.touch_session('$session');";

	return sql($touch x $times, $database);
}

# Requests as the table counts them, without those in shared memory
sub requests
{
	my ($session) = @_;
	return "SELECT requests FROM session_admin.session WHERE session_hash = sha256('$session')";
}

my $launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_admin launcher'";
my $has_run = "SELECT succeeded_at IS NOT NULL FROM session_admin_internal.worker_status()";
my $partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'session_admin_internal.ended_session'::regclass";

sub health
{
	my ($item, $column) = @_;
	return "SELECT $column FROM session_admin.health WHERE name = '$item'";
}


# It starts by itself.
poll_ok("SELECT count(*) = 1 FROM ($launcher) l", 'the launcher is there');
sql('CREATE EXTENSION session_admin');
poll_ok("$partitions", 'CREATE EXTENSION is enough: there are partitions', 'postgres', 4);
sql("SELECT session_admin.open_session('s1', 'alice')");
touch('s1', 3);
poll_ok(requests('s1'), 'touches are flushed', 'postgres', 3);
touch('s1', 2);
poll_ok(requests('s1'), 'and those after them', 'postgres', 5);
is(sql(health('requests not flushed', 'value')), '0', 'health knows it');
is(sql("SELECT string_agg(name || ': ' || status, E'\n') FROM session_admin.health WHERE status <> 'ok'"),
	'', 'all is well');

# In a database that is made later, and in a copy of it, which nobody has used yet
sql('CREATE DATABASE later');
sql("CREATE EXTENSION session_admin", 'later');
poll_ok($partitions, 'a database that was made later', 'later', 4);
sql("SELECT session_admin.open_session('s1', 'bob')", 'later');
touch('s1', 4, 'later');
poll_ok(requests('s1'), 'its touches are flushed', 'later', 4);
sql('CREATE DATABASE copied TEMPLATE later');
poll_ok($has_run, 'the copy of a database', 'copied');

# What has ended by time or with its generation is archived, also after a
# restart after which nobody calls anything.
sql(q{
	SELECT session_admin.open_session('idle', 'carol'), session_admin.open_session('wiki', 'carol', application => 'wiki');
	UPDATE session_admin.session SET last_access_at = now() - interval '2 hours', created_at = now() - interval '2 hours'
	WHERE session_hash = sha256('idle');
	SELECT session_admin.invalidate_application(application => 'wiki');
});
$server->restart;
poll_ok(q{SELECT string_agg(user_name || ' ' || end_reason, ', ' ORDER BY end_reason) FROM session_admin_internal.ended_session},
	'sessions that have ended are archived', 'postgres', 'carol admin, carol idle_timeout');

# Where there is nothing to do, a run writes nothing, but the first one since the server was
# started.
my @databases = ('postgres', 'later', 'copied');
# what is dead in the catalogs would be removed by whoever reads them
sql('VACUUM', $_) foreach @databases;
$server->restart;
poll_ok($has_run, "the worker has run in $_", $_) foreach @databases;
my %ended = map { $_ => sql('SELECT ended_at FROM session_admin_internal.worker_status()', $_) } @databases;
my $xid = sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');
my $lsn = sql('CHECKPOINT; SELECT pg_current_wal_insert_lsn()');
# makes everything due
$server->reload;
poll_ok("SELECT succeeded_at > '$ended{$_}' FROM session_admin_internal.worker_status()", "the worker has run in $_ again", $_)
	foreach @databases;
is(sql('SELECT pg_snapshot_xmax(pg_current_snapshot())'), $xid, 'idle runs use no transaction id');
cmp_ok(sql("SELECT pg_current_wal_insert_lsn() - '$lsn'"), '<', 1000, 'and write no WAL');

# Killed, launcher and worker are there again with the server.
sub kill_and_wait
{
	my ($pid, $what) = @_;
	my $connected = $server->background_psql('postgres', on_error_stop => 0);

	kill 'KILL', $pid or die "could not kill $pid: $!";
	# the server is there again when it has thrown out all
	eval { $connected->query('SELECT 1') while 1 };
	eval { $connected->quit };
	poll_ok("SELECT count(*) = 1 FROM ($launcher) l", "$what was killed; the launcher is there again");
}

# Nobody has to wait for it: here it hangs in a trigger.
sub hang_in_extension
{
	sql(q{
		BEGIN;
		CREATE EXTENSION session_admin;
		SELECT session_admin.open_session('idle', 'carol');
		UPDATE session_admin.session SET last_access_at = now() - interval '2 hours', created_at = now() - interval '2 hours';
		CREATE OR REPLACE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); RETURN NULL; END';
		CREATE TRIGGER hang AFTER DELETE ON session_admin.session FOR EACH STATEMENT EXECUTE FUNCTION hang();
		COMMIT}, 'dropped');
}
my $hanging = q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'
	AND backend_type = 'session_admin worker' AND datname = 'dropped'};
sql('CREATE DATABASE dropped');
hang_in_extension();
poll_ok("SELECT count(*) = 1 FROM ($hanging) h", 'the worker hangs');
touch('s1', 1);
poll_ok(requests('s1'), 'other databases do not wait for it', 'postgres', 6);
is(sql("SELECT count(*) FROM ($hanging) h"), '1', 'it still hangs');

# DROP EXTENSION waits for a batch; when it is over, nobody minds that nothing is left.
my $log = -s $server->logfile;
my $dropper = $server->background_psql('dropped');
$dropper->query_until(qr/now/, "\\echo now\nDROP EXTENSION session_admin;\n");
poll_ok(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DROP EXTENSION%'},
	'the extension is to be dropped');
sql("SELECT pg_terminate_backend(pid) FROM ($hanging) h");
is($dropper->query_safe(q{SELECT count(*) FROM pg_extension WHERE extname = 'session_admin'}), '0', 'it is dropped');
$dropper->quit;
hang_in_extension();
poll_ok("SELECT count(*) = 1 FROM ($hanging) h", 'it is made again, and the worker hangs there');
unlike(slurp_file($server->logfile, $log), qr/ERROR|PANIC/, 'there was no error');

kill_and_wait(sql($hanging), 'the worker');
poll_ok("SELECT count(*) = 1 FROM ($hanging) h", 'the worker hangs again');
kill_and_wait(sql($launcher), 'the launcher');
poll_ok("SELECT count(*) = 1 FROM ($hanging) h", 'and again');
is($server->psql('postgres', 'DROP DATABASE dropped'), 0, 'DROP DATABASE does not wait for it');

# It waits for nobody either, and comes again.
my $requests = 6;
touch('s1', 1);
my $locker = $server->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE session_admin.session IN ACCESS EXCLUSIVE MODE');
touch('s1', 2);
poll_ok("SELECT state = 'locked out' FROM session_admin_internal.worker_status()", 'a table is locked');
$locker->query_safe('COMMIT');
poll_ok(requests('s1'), 'what was not flushed meanwhile is', 'postgres', $requests += 3);

# It leaves alone what it does not know.
sql("UPDATE pg_extension SET extversion = 'later' WHERE extname = 'session_admin'");
touch('s1', 2);
poll_ok(health('worker', "status = 'call ALTER EXTENSION session_admin UPDATE'"),
	'the extension has another version');
is(sql(requests('s1')), $requests, 'nothing is flushed meanwhile');
sql("UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'session_admin'");
poll_ok(requests('s1'), 'now it is', 'postgres', $requests += 2);

# A database that refuses connections
sql("SELECT session_admin.open_session('s2', 'bob')", 'copied');
touch('s2', 1, 'copied');
poll_ok(requests('s2'), 'a database is open', 'copied', 1);
$log = -s $server->logfile;
sql('ALTER DATABASE copied ALLOW_CONNECTIONS false');
$server->restart;
poll_ok($has_run, 'it is closed, and the others are looked after', $_) foreach 'postgres', 'later';
unlike(slurp_file($server->logfile, $log), qr/not currently accepting connections/, 'nobody knocks');
sql('ALTER DATABASE copied ALLOW_CONNECTIONS true');
poll_ok($has_run, 'it is open again', 'copied');

# DROP and CREATE EXTENSION
touch('s2', 1, 'copied');
sql('DROP EXTENSION session_admin', 'copied');
sql('CREATE EXTENSION session_admin', 'copied');
poll_ok($partitions, 'the extension is made again', 'copied', 4);
sql("SELECT session_admin.open_session('s2', 'bob')", 'copied');
touch('s2', 3, 'copied');
poll_ok(requests('s2'), 'and used again', 'copied', 3);
touch('s2', 1, 'copied');
touch('s1', 1);
sql('DROP EXTENSION session_admin', 'copied');
sql('DROP DATABASE later');
poll_ok('SELECT used FROM session_admin_internal.live_status()',
	'nothing is left in shared memory of what was dropped', 'postgres', 1);
poll_ok(requests('s1'), 'the rest is flushed', 'postgres', ++$requests);

# An error is told, and does not end it.
$log = -s $server->logfile;
sql(q{
	CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = 'XX123'; END $$;
	CREATE TRIGGER fail BEFORE UPDATE ON session_admin.session EXECUTE FUNCTION fail()});
touch('s1', 1);
poll_ok(health('worker', "status ~ 'SQLSTATE XX123'"), 'an error');
like(slurp_file($server->logfile, $log), qr/session_admin worker.*exited with exit code 1/, 'is in the log');
sql('DROP TRIGGER fail ON session_admin.session');
poll_ok(requests('s1'), 'and does not stay', 'postgres', ++$requests);

# A task that fails does not keep the others from running: here archiving does, from
# its first row on.
my $archived = q{SELECT count(*) FROM session_admin_internal.ended_session WHERE user_name = 'erin'};
sql(q{
	CREATE TRIGGER fail BEFORE DELETE ON session_admin.session EXECUTE FUNCTION fail();
	SELECT session_admin.open_session('erin', 'erin'), session_admin.open_session('wiki 2', 'erin', application => 'wiki');
	UPDATE session_admin.session SET created_at = created_at - interval '1 year' WHERE user_name = 'erin' AND application <> 'wiki';
	UPDATE session_admin_internal.account_seen SET at = now() + interval '1 minute';
	INSERT INTO session_admin_internal.account_seen VALUES ('wiki', 'erin', now());
	INSERT INTO session_admin_internal.invalidation (at, scope, reason) VALUES (now() - interval '1 year', 'all', 'admin')});
$server->reload;
poll_ok(health('worker', "status ~ 'failing: sessions archived .1 times, SQLSTATE XX123.'"), 'a task fails');
poll_ok(q{SELECT count(*) FROM session_admin_internal.account_seen}, 'tasks after it are done', 'postgres', 0);
poll_ok(q{SELECT count(*) FROM session_admin_internal.invalidation WHERE scope = 'all'}, 'all of them', 'postgres', 0);
touch('s1', 1);
poll_ok(requests('s1'), 'touches are flushed', 'postgres', ++$requests);
touch('s1', 1);
poll_ok(requests('s1'), 'again and again', 'postgres', ++$requests);
is(sql(health('requests not flushed', 'status')), 'ok', 'which is well');
like(sql(health('worker', 'value')), qr/^failed [1-9]/, 'health goes on to tell of the one that fails');
poll_ok(health('worker', "status ~ 'failing: sessions archived .[2-9] times, SQLSTATE XX123.'"), 'it is tried again');
sql('DROP TRIGGER fail ON session_admin.session');
poll_ok($archived, 'until it can be done', 'postgres', 1);
poll_ok(health('worker', 'status'), 'and all is well', 'postgres', 'ok');

# A new interval holds at once.
sub set_flush_interval
{
	my ($seconds) = @_;
	my $last = sql('SELECT ended_at FROM session_admin_internal.worker_status()');

	$server->append_conf('postgresql.conf', "session_admin.flush_interval = $seconds");
	$server->reload;
	poll_ok("SELECT ended_at > '$last' FROM session_admin_internal.worker_status()", "flush_interval = $seconds");
}
set_flush_interval(3600);
touch('s1', 1);
set_flush_interval(1);
poll_ok(requests('s1'), 'it holds at once', 'postgres', ++$requests);

# An orderly restart loses nothing, even of what nobody has written down yet.
set_flush_interval(3600);
$server->restart;
poll_ok($has_run, 'the worker has run');
my $file = $server->data_dir . '/pg_stat/session_admin.stat';
sql("SELECT session_admin.open_session('s' || n, 'dave') FROM generate_series(10, 2009) n");
sql("SELECT session_admin.touch_sessions(array_agg('s' || n), array_agg(n::bigint)) FROM generate_series(10, 2009) n");
my $counted = "SELECT sum(requests) FROM session_admin.session WHERE user_name = 'dave'";
is(sql($counted), '0', 'requests are in shared memory only');
$server->stop;
ok(-e $file, 'the server is shut down: they are in a file');
$server->start;
ok(!-e $file, 'which is read at the start');
poll_ok($counted, 'and flushed', 'postgres', 2019000);
is(sql("SELECT sum(requests) FROM session_admin.current_sessions WHERE user_name = 'dave'"), '2019000',
	'each is counted once');

# A file that belongs to another shutdown is not counted.
touch('s10', 1);
$server->stop;
my $content = slurp_file($file);
$server->start;
poll_ok(requests('s10'), 'one more', 'postgres', 11);
$server->stop;
ok(!-e $file, 'with nothing to flush there is no file');
append_to_file($file, $content);
$server->start;
poll_ok($has_run, 'the worker has run');
is(sql(requests('s10')), '11', 'an old file counts for nothing');

# On a standby there is none, until it is promoted.
$server->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($server, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'session_admin.flush_interval = 1');
$standby->start;
touch('s10', 1);
is($standby->safe_psql('postgres', 'SELECT state, launcher_pid FROM session_admin_internal.worker_status()'),
	'standby|', 'there is no launcher on a standby');
$server->stop;
$standby->promote;
ok($standby->poll_query_until('postgres', $has_run), 'there is when it is promoted');
$standby->safe_psql('postgres', "SELECT session_admin.touch_session('s10')");
ok($standby->poll_query_until('postgres', requests('s10'), 12), 'and it flushes');
$standby->stop;

done_testing();
