# sync_node() waits in the server: it returns when a commit has something new, or when its
# time is over, and holds neither a snapshot nor a row meanwhile.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $logins = 0;

foreach my $preloaded (1, 0)
{
	my $title = $preloaded ? 'preloaded' : 'not preloaded';
	my $server = PostgreSQL::Test::Cluster->new($preloaded ? 'preloaded' : 'plain');
	$server->init;
	$server->append_conf('postgresql.conf', "session_admin.application = 'wiki'\n"
		. ($preloaded ? "shared_preload_libraries = 'session_admin'\n" : ''));
	$server->start;

	my $sql = sub { return $server->safe_psql('postgres', $_[0]) };
	my %position;
	my $log_out = sub {
		$logins++;
		$sql->("SELECT session_admin.open_session('session $logins', 'user $logins')");
		$sql->("SELECT session_admin.invalidate_user('user $logins')");
		return "user $logins";
	};
	# A sync that waits, in the background: what it prints is a row, then "returned"
	my $begin = sub {
		my ($psql, $node, $wait) = @_;
		$psql->query_until(qr/asked/, "\\echo asked\n"
			. "SELECT applied, coalesce(user_name, reason, 'nothing') FROM session_admin.sync_node('$node', '$position{$node}', '$wait');\n"
			. "\\echo returned\n");
	};
	my $end = sub {
		my ($psql, $node) = @_;
		my $printed = $psql->query_until(qr/returned/, '');
		$position{$node} = $1 if $printed =~ /^(\d\S*)\|/m;
		return join(' ', $printed =~ /^\d\S*\|(.*)$/mg);
	};
	my $waiting = sub {
		my ($count) = @_;
		$server->poll_query_until('postgres', "SELECT count(*) = $count FROM pg_stat_activity
			WHERE query LIKE '%sync_node%' AND state = 'active' AND wait_event = 'Extension'")
			or die 'sync_node() does not wait';
	};
	# The same without a background: a row
	my $sync = sub {
		my ($node, $wait) = @_;
		my ($position, $what) = split /\|/, $sql->("SELECT applied, coalesce(user_name, reason, 'nothing')
			FROM session_admin.sync_node('$node', '$position{$node}', '$wait')");
		$position{$node} = $position;
		return $what;
	};

	$sql->(q{CREATE EXTENSION session_admin;
		SELECT session_admin.open_session('first', 'carol'), session_admin.set_policy('node_lease', '1 hour')});
	my @psql = map { $server->background_psql('postgres', on_error_stop => 0) } 1 .. 2;

	$position{$_} = $sql->("SELECT session_admin.join_node('$_')") foreach qw(n1 n2);
	$begin->($psql[0], 'n1', '15 minutes');
	$begin->($psql[1], 'n2', '15 minutes');
	$waiting->(2);

	is($sql->(q{SELECT count(*) FROM pg_stat_activity
		WHERE query LIKE '%sync_node%' AND pid <> pg_backend_pid() AND coalesce(backend_xmin::text, backend_xid::text) IS NOT NULL}), 0,
		"$title: no snapshot and no transaction id is held meanwhile");
	is($sql->(q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE a.query LIKE '%sync_node%' AND pid <> pg_backend_pid() AND l.locktype IN ('object', 'transactionid')}), 0,
		"$title: nor a lock on the node");

	# what is rolled back wakes nobody
	$sql->(q{SELECT session_admin.open_session('rolled back', 'rolled back')});
	$sql->(q{BEGIN; SELECT session_admin.invalidate_user('rolled back'); ROLLBACK});
	$waiting->(2);

	my $user = $log_out->();
	is($end->($psql[0], 'n1'), $user, "$title: a commit wakes one node");
	is($end->($psql[1], 'n2'), $user, "$title: and the other");
	like($psql[0]->{stderr} . $psql[1]->{stderr}, qr/^(background_psql: ready\s*)*$/, "$title: without a warning");

	# The receipt for what it got does not wait, whatever the call says
	is($sync->('n1', '15 minutes'), 'nothing', "$title: a receipt is noted at once");
	is($sql->("SELECT string_agg(node || ' ' || state, ' ' ORDER BY node) FROM session_admin.wait_for_nodes(
		(SELECT max(id) FROM session_admin.invalidations), '0')"), 'n1 applied n2 behind', "$title: and known");

	# What is there already is not waited for
	$user = $log_out->();
	is($sync->('n1', '15 minutes'), $user, "$title: what is new already is returned at once");
	$sync->('n1', '0');
	is($sql->(q{SELECT reason FROM session_admin.sync_node('n1', '1:1:', '15 minutes')}), 'resync',
		"$title: an unknown position is answered at once");
	($position{n1}) = $sql->(q{SELECT applied FROM session_admin.sync_node('n1', NULL)});
	$sync->('n1', '0');

	# In time
	my $begun = Time::HiRes::time();
	is($sync->('n1', '100 milliseconds'), 'nothing', "$title: nothing new");
	cmp_ok(Time::HiRes::time() - $begun, '>=', 0.1, "$title: when the time is over");

	# A third of the lease
	$sql->(q{SELECT session_admin.set_policy('node_lease', '1 second')});
	$begun = Time::HiRes::time();
	is($sync->('n1', '1 day'), 'nothing', "$title: no longer than a third of the lease");
	cmp_ok(Time::HiRes::time() - $begun, '>=', 0.333, "$title: but for that");
	is($sql->(q{SELECT lease_expires_at - last_sync_at FROM session_admin_internal.node WHERE node = 'n1'}), '00:00:01',
		"$title: the lease is whole");
	$sql->(q{SELECT session_admin.set_policy('node_lease', '1 hour')});

	# The lease counts from the start of the call
	$begin->($psql[0], 'n1', '1 second');
	$waiting->(1);
	$sql->('CREATE TABLE IF NOT EXISTS moments AS SELECT clock_timestamp() AS waited');
	$end->($psql[0], 'n1');
	is($sql->(q{SELECT last_sync_at < (SELECT waited FROM moments) FROM session_admin_internal.node WHERE node = 'n1'}), 't',
		"$title: the lease counts from the start of the call");

	# A node that waits on one connection syncs on another, and leaves
	$begin->($psql[0], 'n1', '15 minutes');
	$waiting->(1);
	is($sync->('n1', '0'), 'nothing', "$title: another connection of the node does not wait for that one");
	my $later = $sql->(q{SELECT last_sync_at FROM session_admin_internal.node WHERE node = 'n1'});
	$log_out->();
	$end->($psql[0], 'n1');
	is($sql->(qq{SELECT last_sync_at >= '$later' FROM session_admin_internal.node WHERE node = 'n1'}), 't',
		"$title: whose lease is not cut by that one");

	# Interrupts
	$position{n1} = $sql->("SELECT session_admin.join_node('n1')");
	$begin->($psql[0], 'n1', '15 minutes');
	$waiting->(1);
	$sql->(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%sync_node%' AND state = 'active' AND pid <> pg_backend_pid()});
	$end->($psql[0], 'n1');
	like($psql[0]->{stderr}, qr/canceling statement due to user request/, "$title: can be cancelled");
	$psql[0]->{stderr} = '';
	is($psql[0]->query_safe('SELECT 1 AS one'), 1, "$title: and the connection goes on");

	# in a transaction block its snapshot may be needed later
	$psql[0]->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$begin->($psql[0], 'n1', '15 minutes');
	$waiting->(1);
	is($sql->(q{SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE query LIKE '%sync_node%' AND state = 'active' AND pid <> pg_backend_pid()}),
		't', "$title: a snapshot that is needed later is kept");
	$user = $log_out->();
	is($end->($psql[0], 'n1'), $user, "$title: and does not hide what is new");
	$psql[0]->query_safe('COMMIT');

	# in a query that reads tables, and a cursor that stays open
	$psql[0]->query_safe('BEGIN');
	$psql[0]->query_safe('DECLARE c CURSOR FOR SELECT n FROM generate_series(1, 3) n');
	is($psql[0]->query_safe('FETCH c'), 1, "$title: a cursor");
	$position{n1} = $sql->("SELECT session_admin.join_node('n1')");
	$begin->($psql[0], 'n1', '15 minutes');
	$waiting->(1);
	is($sql->(q{SELECT backend_xmin IS NOT NULL FROM pg_stat_activity WHERE query LIKE '%sync_node%' AND state = 'active' AND pid <> pg_backend_pid()}),
		't', "$title: the snapshot of a cursor is kept");
	$log_out->();
	$end->($psql[0], 'n1');
	is($psql[0]->query_safe('FETCH c'), 2, "$title: and can be read on");
	$psql[0]->query_safe('COMMIT');
	is($psql[0]->query_safe("SELECT count(*) > 0 FROM pg_class c, session_admin.sync_node('n2', '$position{n2}', '10 milliseconds') s WHERE c.relname = 'pg_class'"),
		't', "$title: in a query that reads tables");

	# What came from a dump is adopted by a call that does not wait: nobody waits for the node
	$position{n1} = $sql->("SELECT session_admin.join_node('n1')");
	$sql->(q{UPDATE session_admin.application SET home = 'elsewhere/1'});
	isnt(eval { $sql->("SET statement_timeout = '20s'; SELECT applied FROM session_admin.sync_node('n1', '$position{n1}', '10 minutes')") },
		undef, "$title: a node of an application that came from a dump does not wait");

	# The server shuts down while a node waits
	$psql[0]->{stderr} = '';
	$position{n1} = $sql->("SELECT session_admin.join_node('n1')");
	$begin->($psql[0], 'n1', '15 minutes');
	$waiting->(1);
	$server->stop('fast');
	ok(1, "$title: a node that waits keeps no server from stopping");
	eval { $_->quit } foreach @psql;
}

done_testing();
