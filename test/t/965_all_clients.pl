# The clients of test/clients, run as people run them, against one server: an
# Express application of two processes with a cache in each, a Django
# application, and a Java program that follows the feed.
#
# A client whose packages are missing is skipped, but not where CI is set.
#
# SESSION_ADMIN_ROUNDS: how often somebody is logged out while pages are running, 50 if it is
# not set.

use strict;
use warnings;

use File::Copy qw(copy);
use HTTP::Tiny;
use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $jdbc = '/usr/share/java/postgresql.jar';
my $timeout = $PostgreSQL::Test::Utils::timeout_default;
my $rounds = $ENV{SESSION_ADMIN_ROUNDS} || 50;
my $http = HTTP::Tiny->new(timeout => $timeout, max_redirect => 0, agent => 'Firefox');
my $database;
my @running;

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
# as clients mostly connect; JDBC cannot otherwise
$server->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'");
$server->start;
$server->safe_psql('postgres', 'CREATE ROLE app LOGIN');


# Nothing goes on when a test dies.
END
{
	my $status = $?;
	$_->kill_kill foreach @running;
	$? = $status;
}

# Run the tests of one client in a database of its own, which the client owns.
sub client
{
	my ($name, $missing, $tests) = @_;

	if ($missing && !$ENV{CI})
	{
		# one line, by which it is listed
	  SKIP: { skip("$name: " . $missing =~ s/\s+/ /gr, 1); }
		return;
	}
	subtest $name => sub {
		return fail("$name: $missing") if $missing;

		$database = $name;
		$server->safe_psql('postgres', "CREATE DATABASE $name OWNER app");
		sql("ALTER DATABASE $name SET session_admin.application = '$name'");
		sql(q{
			CREATE EXTENSION session_admin;
			SELECT session_admin.grant_access('app', 'application');
			SELECT session_admin.grant_access('app', 'node');
			-- so long that a busy machine does not let it run out: then nodes do not use their caches
			SELECT session_admin.set_policy('node_lease', '1 minute');});
		$tests->();
		stop($_) foreach @running;
		@running = ();
	};
	return;
}

sub sql
{
	my ($query) = @_;
	return $server->safe_psql($database, $query);
}

# Connect as libpq does, as a role that may do what applications may.
sub with_environment
{
	my ($code, %more) = @_;

	local %ENV = (
		%ENV, PGHOST => '127.0.0.1', PGPORT => $server->port, PGDATABASE => $database,
		PGUSER => 'app', SESSION_SECRET => 'not very secret', %more);
	return $code->();
}

# Start a process in a directory; what it writes goes to a log.
sub start
{
	my ($dir, $name, @command) = @_;
	my $log = "$PostgreSQL::Test::Utils::log_path/120_clients_$name.log";
	my $process = with_environment(
		sub {
			IPC::Run::start(\@command, '<', \undef, '>', $log, '2>&1', init => sub { chdir $dir or die });
		});

	push @running, $process;
	return { process => $process, log => $log };
}

sub stop
{
	my ($process) = @_;

	$process->signal('TERM');
	$process->finish;
}

# Run a command to its end: whether it succeeded, and what it wrote.
sub run
{
	my ($dir, @command) = @_;
	my $output = '';
	my $limit = IPC::Run::timeout(2 * $timeout);
	my $ok = with_environment(
		sub {
			eval { IPC::Run::run(\@command, '<', \undef, '>&', \$output, init => sub { chdir $dir or die }, $limit) };
		});

	return ($ok, $output . ($@ // ''));
}

sub wait_until
{
	my ($what, $condition) = @_;
	my $deadline = time + $timeout;

	while (!$condition->())
	{
		if (time > $deadline)
		{
			fail("waited in vain: $what");
			return;
		}
		usleep(20_000);
	}
	pass($what);
}

# Copy a client to where it may write.
sub copied
{
	my ($name) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir;

	copy($_, $dir) or die "could not copy $_: $!" foreach glob "test/clients/$name/*.*";
	return $dir;
}

# A browser, that is a cookie: GET a page, or POST a form; the status, and what is on the page.
sub browse
{
	my ($browser, $url, $form) = @_;
	my %options = (headers => { cookie => $browser->{cookie} // '' });
	my $response = $form ? $http->post_form($url, $form, \%options) : $http->get($url, \%options);
	my $cookies = $response->{headers}{'set-cookie'} // [];

	foreach my $cookie (ref $cookies ? @$cookies : $cookies)
	{
		($browser->{cookie}) = $cookie =~ /^([^;]*)/;
	}
	return $response->{status} == 200 ? "200 $response->{content}" : $response->{status};
}

# Log a user in with a new browser.
sub logged_in
{
	my ($url, $user, $password) = @_;
	my $browser = {};

	is(browse($browser, "$url/login", { user => $user, password => $password }), 204, "$user logs in");
	return $browser;
}

# End sessions with this call, and wait until all nodes said that they have applied it.
sub applied
{
	my ($call) = @_;
	my $id = sql("SELECT invalidation_id FROM session_admin.$call");

	my ($name) = $call =~ /^(\w+)/;

	# of a node that was too busy for a while it says that its lease has expired
	wait_until("$name: all nodes applied it",
		sub { sql("SELECT bool_and(state = 'applied') FROM session_admin.wait_for_nodes($id)") eq 't' });
	return $id;
}

# Wait until as many nodes follow the feed, of the server as it was started last.
sub followed_by
{
	my ($nodes) = @_;

	wait_until("followed by $nodes", sub {
		sql(q{SELECT count(*) FROM session_admin_internal.node WHERE last_sync_at > pg_postmaster_start_time()}) == $nodes;
	});
	return;
}

sub first_that
{
	my ($condition, @candidates) = @_;

	foreach my $candidate (@candidates)
	{
		return $candidate if $condition->($candidate);
	}
	return;
}

sub can_run
{
	my @command = @_;
	return eval { IPC::Run::run(\@command, '<', \undef, '>', \my $output, '2>&1') };
}


# Ask for a page that takes its time, and do not wait for it.
sub page_under_way
{
	my ($browser, $url) = @_;
	my $request = IO::Socket::INET->new($url =~ s{.*/}{}r) or die "could not connect: $!";

	print $request "GET /page HTTP/1.0\r\nCookie: $browser->{cookie}\r\n\r\n";
	return $request;
}

# Log somebody out, in every way, while pages are running on both nodes, which save their session
# when they are done: none of these sessions comes back.
sub logged_out_meanwhile
{
	my @nodes = @_;
	my @of_alice = map { "($_)" } (
		q{SELECT invalidation_id FROM session_admin.invalidate_user('alice')},
		q{SELECT invalidation_id FROM session_admin.invalidate_sessions(user_name => 'alice')},
		q{SELECT invalidation_id FROM session_admin.invalidate_sessions(user_name => 'alice', opened_before => 'infinity')},
		q{SELECT max(i.invalidation_id) FROM session_admin.current_sessions s,
			session_admin.invalidate_session(s.session_ref) i WHERE s.user_name = 'alice'},
		q{SELECT max(id) FROM session_admin.invalidations, (SELECT count(session_admin.close_session(session_hash)) AS n
			FROM session_admin.session WHERE user_name = 'alice' OFFSET 0) c WHERE n >= 0},
		q{SELECT invalidation_id FROM session_admin.invalidate_application()},
		q{SELECT invalidation_id FROM session_admin.invalidate_all()});
	my ($ended, $in_table, $valid, $accepted, $refused) = (0, 0, 0, 0, 0);
	# at hand, as pages do not take long
	my $admin = $server->background_psql($database);
	my $seed = $ENV{SESSION_ADMIN_SEED} || time;

	srand($seed);
	note "seed $seed";
	foreach my $round (1 .. $rounds)
	{
		# a browser with two tabs, and another one
		my @browsers = map { my $b = {}; browse($b, "$nodes[rand 2]/login", { user => 'alice', password => 'wonderland' }); $b } 1, 2;
		my @sids = split /\n/, $admin->query_safe(q{SELECT sid FROM session WHERE sess #>> '{passport,user}' = 'alice'});
		my $sids = "'{" . join(',', map { qq{"$_"} } @sids) . "}'::text[]";
		my @pages;

		foreach my $browser ($browsers[0], @browsers)
		{
			push @pages, page_under_way($browser, $nodes[rand 2]);
			usleep(rand 15_000);
		}
		my $way = $of_alice[rand @of_alice];
		my $id = $admin->query_safe("SELECT coalesce($way, 0)");
		push @pages, page_under_way($_, $nodes[rand 2]) foreach @browsers;
		my @answers = map { join '', <$_> } @pages;

		$ended += @sids;
		my ($there, $touched) = split /\|/, $admin->query_safe(qq{
			SELECT (SELECT count(*) FROM session WHERE sid = ANY ($sids)),
				(SELECT count(*) FILTER (WHERE session_admin.touch_session(sid)) FROM unnest($sids) sid)});
		$in_table += $there;
		$valid += $touched;
		note("round $round: came back after $way") if $there || $touched;
		$admin->query_safe("SELECT FROM session_admin.wait_for_nodes($id)") if $id;
		foreach my $browser (@browsers)
		{
			my $status = browse($browser, $nodes[rand 2]);

			$status eq '401' ? $refused++ : $accepted++;
		}
		$admin->query_safe("DELETE FROM session WHERE sid = ANY ($sids)") if $there;
	}
	$admin->quit;
	is($ended, 2 * $rounds, "$rounds times alice is logged out while her pages are running");
	is($in_table, 0, 'none of these sessions is in the table of the application again');
	is($valid, 0, 'none is valid again');
	is($accepted, 0, 'none is accepted by a node');
	is($refused, 2 * $rounds, 'each is refused');
	return;
}


my $express = copied('express');
my $no_express = 'there is no node and npm'
  unless can_run('node', '--version') && can_run('npm', '--version');
if (!$no_express)
{
	$database = 'postgres';
	# a registry that does not answer is waited for once, not for each package and again
	my @npm = qw(--prefer-offline --no-update-notifier --fetch-timeout=20000 --fetch-retries=0);
	my ($ok, $output) = run($express, qw(npm view express@^5.0.0 name), @npm);

	($ok, $output) = run($express, qw(npm install --no-package-lock --no-audit --no-fund), @npm) if $ok;
	$no_express = "npm could not install its packages: $output" unless $ok;
}

# The application tells session_admin of failed logins, which its table does not have.
client('express', $no_express, sub {
	sql(slurp_file("$express/node_modules/connect-pg-simple/table.sql") . 'ALTER TABLE session OWNER TO app');
	is( sql(q{SELECT object, state FROM session_admin.attach_application('connect_pg_simple')
		WHERE object = 'session'}), 'session|attached', 'attached');
	# so that a test can hold up the application's SELECT after it has found its row
	sql(q{
		CREATE SCHEMA slow;
		GRANT USAGE ON SCHEMA slow TO app;
		CREATE FUNCTION slow.to_timestamp(float8) RETURNS timestamptz LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM pg_advisory_xact_lock_shared(1);
			RETURN pg_catalog.to_timestamp($1);
		END $$;
		ALTER ROLE app IN DATABASE express SET search_path = slow, public, pg_catalog;});

	my ($n1, $n2) = map {
		my $port = PostgreSQL::Test::Cluster::get_free_port();
		my $url = "http://127.0.0.1:$port";
		my $process = start($express, $_, 'node', 'app.js', $_, $port);

		wait_until("$_ answers", sub { browse({}, $url) eq '401' });
		$url;
	} 'n1', 'n2';
	followed_by(2);

	is(browse({}, "$n1/login", { user => 'alice', password => 'guessed' }), 401, 'a wrong password');
	my $alice = logged_in($n1, 'alice', 'wonderland');
	my $bruno = logged_in($n2, 'bruno', 'process');
	is( sql(q{SELECT user_name, expires_at - last_access_at BETWEEN '23:59:00' AND '24:01:00'
		FROM session_admin.current_sessions ORDER BY 1}),
		"alice|t\nbruno|t",
		'the administrator sees them');
	is(sql('SELECT event, user_name, succeeded FROM session_admin.login_history ORDER BY at'),
		"login_failed|alice|f\nlogin|alice|t\nlogin|bruno|t", 'and each login');

	# The first request to a node asks the database, the others don't.
	foreach my $url ($n1, $n2)
	{
		my ($asked) = browse({}, "$url/cache") =~ /"asked":(\d+)/;

		is(browse($alice, $url), '200 {"user":"alice"}', 'the session holds on each node') for 1 .. 3;
		is(browse($bruno, $url), '200 {"user":"bruno"}', 'as does the other') for 1 .. 3;
		like(browse({}, "$url/cache"), qr/"entries":2,"hits":[4-9],"asked":@{[ $asked + 2 ]}\}/,
			'from the cache, after the first request');
	}

	applied(q{invalidate_user('alice')});
	is(browse($alice, $_), 401, 'logged out by SQL, refused on each node') foreach $n1, $n2;
	is(sql('SELECT count(*) FROM session'), 1, 'and gone from the table of the application');
	is(browse($bruno, $_), '200 {"user":"bruno"}', 'the other user is not') foreach $n1, $n2;

	# rolled back, nothing happened
	sql(q{BEGIN; SELECT session_admin.invalidate_user('bruno'); ROLLBACK});
	is(browse($bruno, $n1), '200 {"user":"bruno"}', 'what is rolled back logs nobody out');

	# This browser stays, the user's others don't.
	my $other = logged_in($n2, 'bruno', 'process');
	is(browse($other, $_), '200 {"user":"bruno"}', 'a second browser') foreach $n1, $n2;
	applied(q{invalidate_sessions(user_name => 'bruno', opened_before => (
		SELECT max(created_at) FROM session_admin.current_sessions))});
	is(browse($bruno, $_), 401, 'the older session is refused') foreach $n1, $n2;
	is(browse($other, $_), '200 {"user":"bruno"}', 'the newer goes on') foreach $n1, $n2;

	# The cache rule: a session ends while a node is filling its entry, after the
	# database called it valid and before the answer is there.
	$alice = logged_in($n1, 'alice', 'wonderland');
	my $typed = "SELECT pg_advisory_lock(1), 'locked';\n";
	my $lock = IPC::Run::start([ 'psql', '-XAtq', '-d', $server->connstr($database) ],
		'<', \$typed, '>', \my $locked, IPC::Run::timeout($timeout));
	$lock->pump until $locked =~ /locked/;
	my $request = IO::Socket::INET->new($n2 =~ s{.*/}{}r) or die "could not connect: $!";
	print $request "GET / HTTP/1.0\r\nCookie: $alice->{cookie}\r\n\r\n";
	wait_until('a request that is under way', sub { sql('SELECT count(*) FROM pg_locks WHERE NOT granted') > 0 });
	applied(q{invalidate_user('alice')});
	$typed .= "SELECT pg_advisory_unlock(1);\n";
	$lock->finish;
	like(join('', <$request>), qr/^HTTP\S+ 200 /, 'is answered by what was true when it came');
	is(browse($alice, $n2), 401, 'but that is not kept in the cache');

	# Logout on one node, in the browser
	is(browse($other, "$n1/logout", {}), 204, 'bruno logs out on one node');
	wait_until('and is refused on the other', sub { browse($other, $n2) eq '401' });
	is(sql(q{SELECT end_reason FROM session_admin.session_history ORDER BY ended_at}),
		"admin\nadmin\nadmin\nlogout", 'the history knows why');

	$alice = logged_in($n1, 'alice', 'wonderland');
	is(browse($alice, $n2), '200 {"user":"alice"}', 'alice is back');
	applied('invalidate_all()');
	is(browse($alice, $_), 401, 'everybody is logged out') foreach $n1, $n2;

	logged_out_meanwhile($n1, $n2);

	# A node that is cut off must not answer from its cache for longer than its lease.
	sql(q{SELECT session_admin.set_policy('node_lease', '3 seconds')});
	applied('invalidate_all()');
	$alice = logged_in($n1, 'alice', 'wonderland');
	is(browse($alice, $n2), '200 {"user":"alice"}', 'in the cache of a node') for 1 .. 2;
	# each has got the short lease by now: with its answer it said that it applied the last one
	$server->stop;
	wait_until('without a server, the node refuses when its lease is over',
		sub { browse($alice, $n2) eq '503' });
	$server->start;
	wait_until('and goes on when the server is back', sub { browse($alice, $n2) eq '200 {"user":"alice"}' });
	wait_until('as does the other', sub { browse($alice, $n1) eq '200 {"user":"alice"}' });
	followed_by(2);
	applied(q{invalidate_user('alice')});
	is(browse($alice, $_), 401, 'and nodes apply what comes next') foreach $n1, $n2;

	stop($_) foreach @running;
	is($_->result(0), 0, 'a process ends by SIGTERM') foreach @running;
	@running = ();
	is(sql('SELECT count(*) FROM session_admin_internal.node'), 0, 'and leaves');
});


my $python = first_that(sub { can_run($_[0], '-c', 'import django, psycopg2') }, 'python3', '/usr/bin/python3');

client('django', $python ? undef : 'there is no Django with psycopg2', sub {
	my $dir = copied('django');
	my $manage = sub {
		my ($ok, $output) = run($dir, $python, 'manage.py', @_);
		ok($ok, "manage.py $_[0]") or diag($output);
	};
	my $serve = sub {
		my ($settings) = @_;
		my $port = PostgreSQL::Test::Cluster::get_free_port();

		start($dir, $settings, $python, 'manage.py', 'runserver', '--noreload', "--settings=$settings",
			"127.0.0.1:$port");
		wait_until("Django answers with $settings", sub { browse({}, "http://127.0.0.1:$port") eq '401' });
		return "http://127.0.0.1:$port";
	};
	# the password is typed twice; without a terminal it is read from there
	my $changepassword = sub {
		my ($user, $password) = @_;
		my $typed = "$password\n$password\n";
		my $output = '';

		ok( with_environment(
				sub {
					IPC::Run::run([ 'setsid', '-w', $python, "$dir/manage.py", 'changepassword', $user ],
						'<', \$typed, '>&', \$output, IPC::Run::timeout($timeout));
				}),
			"manage.py changepassword $user") or diag($output);
	};

	$manage->('migrate');
	is( sql(q{SELECT part, state FROM session_admin.attach_application('django')
		WHERE object = 'auth_user'}), 'account|attached', 'attached');
	$manage->('shell', '-c', 'from django.contrib.auth.models import User;'
		  . " User.objects.create_user('alice', password='wonderland');"
		  . " User.objects.create_user('bruno', password='process')");

	# Unchanged
	my $unchanged = $serve->('settings');
	my $alice = logged_in($unchanged, 'alice', 'wonderland');
	is(browse($alice, $unchanged), '200 {"user": "alice"}', 'in an unchanged Django');
	is(sql('SELECT event, user_name, succeeded FROM session_admin.login_history'),
		'login|alice|t', 'the login is in the history');
	$changepassword->('alice', 'looking glass');
	is(browse($alice, $unchanged), 401, 'Django itself ends the session');
	is(sql('SELECT scope, user_name, reason FROM session_admin.invalidations'),
		'user|alice|password_changed', 'and nodes are told');

	# With session_admin
	my $watched = $serve->('settings_session_admin');
	is(browse({}, "$watched/login", { user => 'alice', password => 'wonderland' }), 401, 'the old password');
	$alice = logged_in($watched, 'alice', 'looking glass');
	my $bruno = logged_in($watched, 'bruno', 'process');
	is(browse($alice, $watched), '200 {"user": "alice"}', 'with session_admin');
	is(browse($bruno, $watched), '200 {"user": "bruno"}', 'another user');
	is( sql('SELECT user_name, client_address, user_agent, requests FROM session_admin.current_sessions ORDER BY 1'),
		"alice|127.0.0.1|Firefox|1\nbruno|127.0.0.1|Firefox|1",
		'the administrator sees them');
	is( sql(q{SELECT event, client_address FROM session_admin.login_history
		WHERE user_name = 'alice' AND client_address IS NOT NULL ORDER BY at}),
		"login_failed|127.0.0.1\nlogin|127.0.0.1", 'each login once, and from where');
	is(sql(q{SELECT login_count FROM session_admin.last_login WHERE user_name = 'alice'}), 2, 'and counted once');

	$changepassword->('alice', 'jabberwocky');
	is(browse($alice, $watched), 401, 'a changed password logs out');
	is(browse($bruno, $watched), '200 {"user": "bruno"}', 'nobody else');
	sql(q{SELECT session_admin.invalidate_user('bruno')});
	is(browse($bruno, $watched), 401, 'logged out by SQL, refused');

	$bruno = logged_in($watched, 'bruno', 'process');
	$manage->('shell', '-c', 'from django.contrib.auth.models import User;'
		  . " User.objects.filter(username='bruno').update(is_active=False)");
	is(browse($bruno, $watched), 401, 'deactivated, refused');
	$alice = logged_in($watched, 'alice', 'jabberwocky');
	is(browse($alice, "$watched/logout", {}), 204, 'logout');
	is(sql('SELECT user_name, end_reason FROM session_admin.session_history ORDER BY ended_at'),
		"alice|password_changed\nbruno|admin\nbruno|user_deactivated\nalice|logout", 'the history knows why');
});


my $no_java = !can_run('javac', '-version') ? 'there is no javac'
  : !-e $jdbc ? "there is no $jdbc"
  : undef;

client('java', $no_java, sub {
	my $classes = PostgreSQL::Test::Utils::tempdir;
	my ($compiled, $output) =
	  run('.', 'javac', '-Xlint:all', '-Werror', '-cp', $jdbc, '-d', $classes, 'test/clients/java/Follow.java');
	ok($compiled, 'javac') or diag($output);

	my $follow = start($classes, 'java', 'java', '-cp', "$jdbc:$classes", 'Follow',
		"jdbc:postgresql://127.0.0.1:@{[ $server->port ]}/java?user=app", 'n1', 'java');
	followed_by(1);

	sql(q{SELECT session_admin.open_session('s1', 'alice'), session_admin.open_session('s2', 'bruno')});
	sql(q{BEGIN; SELECT session_admin.invalidate_user('bruno'); ROLLBACK});
	applied(q{invalidate_user('alice', reason => 'password_changed')});
	my $hash = sql(q{SELECT encode(sha256('s2'), 'hex')});
	sql(q{SELECT session_admin.close_session('s2')});
	applied('invalidate_application()');

	# Cut off, it goes on from the position that it holds.
	$server->restart;
	followed_by(1);
	applied('invalidate_all()');
	is( slurp_file($follow->{log}) =~ s/^(?!\w+ application=).*\n//mgr,
		"user application=java user=alice session=null reason=password_changed\n"
		  . "session application=java user=bruno session=$hash reason=logout\n"
		  . "application application=java user=null session=null reason=admin\n"
		  . "all application=null user=null session=null reason=admin\n",
		'it printed each before it said so');

	note 'from the commit to the receipt: ', sql(<<'SQL'), ' ms';
SELECT invalidation_id AS id FROM session_admin.invalidate_all() \gset
SELECT clock_timestamp() AS committed \gset
SELECT round(1000 * extract(epoch FROM clock_timestamp() - :'committed'), 1)
FROM session_admin.wait_for_nodes(:id);
SQL
});

$server->stop;
done_testing();
