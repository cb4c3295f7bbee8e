# The windows of a commit, held open one after the other: what every other backend
# is told of a session that ends there.
#
# A touch that starts once the end is visible to anybody must say "not valid"; one
# before must say "valid", since the end may never come.  That holds in every
# backend, under every isolation level, whatever the shared table has of the
# session, and while its entry is being filled.
#
# The library that waits in these windows is built here (see test/points), and lies
# in a directory of its own.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# TEST_POINTS_TREE is where somebody has prepared it (test/tools/mutants).
my $tree = $ENV{TEST_POINTS_TREE};
if (!$tree)
{
	$tree = PostgreSQL::Test::Utils::tempdir . '/tree';
	mkdir $_ or die $! foreach $tree, "$tree/test";
	system_or_bail('cp', '-R', 'Makefile', 'session_admin.control', 'src', 'sql', $tree);
	system_or_bail('cp', '-R', 'test/points', "$tree/test");
	unlink glob("$tree/src/*.o $tree/src/*/*.o");
}
{
	# nothing of the make that runs this test
	delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS MAKEOVERRIDES)};
	system_or_bail('make', '-s', '-j2', '-C', $tree, 'TEST_POINTS=1', 'COPT=-O0',
		'PG_CONFIG=' . ($ENV{PG_CONFIG} || 'pg_config'), 'session_admin.so');
}

# The extension is made as always; then its functions are to be found in that
# library.  The second database is a copy of the first.
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
shared_preload_libraries = ''
autovacuum = off
max_prepared_transactions = 10
));
$node->start;
$node->safe_psql('postgres', <<"SQL");
CREATE EXTENSION session_admin;
CREATE SCHEMA test_point;
UPDATE pg_proc SET probin = '$tree/session_admin' WHERE probin = '\$libdir/session_admin';
CREATE TABLE skew (n int);
SQL
$node->append_conf('postgresql.conf', qq(
dynamic_library_path = '$tree:\$libdir'
shared_preload_libraries = 'session_admin'
));
$node->restart;
$node->safe_psql('postgres', <<"SQL");
CREATE FUNCTION test_point.held(text) RETURNS void
LANGUAGE c AS '$tree/session_admin', 'sa_test_point_held';
CREATE FUNCTION test_point.release(text) RETURNS void
LANGUAGE c AS '$tree/session_admin', 'sa_test_point_release';
SQL
$node->safe_psql('template1', 'CREATE DATABASE other TEMPLATE postgres');

# Who asks: two at READ COMMITTED, one in a REPEATABLE READ transaction that is as
# old as the session, and one in another database.  One more, "late", asks when
# nothing is in doubt any more, and has not asked since the beginning.
my %psql = map { $_ => $node->background_psql($_ eq 'other' ? 'other' : 'postgres') }
  qw(admin one many old late other filler skew);
$_->set_query_timer_restart foreach values %psql;
my ($ender, $ender_pid);
new_ender();

# who ends sessions, and may be terminated
sub new_ender
{
	$ender = $node->background_psql('postgres', on_error_stop => 0);
	$ender->set_query_timer_restart;
	$ender_pid = $ender->query_safe('SELECT pg_backend_pid()');
}

my $n = 0;        # each case has sessions of its own, numbered
my $counted;      # touches of alice's that were told "valid"

sub touch_by
{
	my ($who, $id) = @_;
	my $valid = $psql{$who}->query_safe($who eq 'many'
		? "SELECT session_admin.touch_sessions(ARRAY['$id']) = '{}'"
		: "SELECT session_admin.touch_session('$id')");

	$counted++ if $valid eq 't' && $id eq "alice $n" && $who ne 'other';
	return $valid;
}

# alice's session, and the same id in the other database; bob's, which nobody ends
# but with everybody; all are in the shared table, but for alice's with fill => 0
sub begin_case
{
	my (%options) = @_;

	$n++;
	$counted = 0;
	$psql{admin}->query_safe(
		"SELECT session_admin.open_session('alice $n', 'alice'), session_admin.open_session('bob $n', 'bob')");
	$psql{other}->query_safe("SELECT session_admin.open_session('alice $n', 'alice')");
	touch_by('other', "alice $n");
	touch_by('one', "bob $n");
	touch_by($_, $options{fill} // 1 ? "alice $n" : "bob $n") foreach qw(one late);
	$psql{old}->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT');
}

sub end_case
{
	$psql{old}->query_safe('COMMIT');
	# one failure is enough to tell a mutant
	die 'a test has failed' if $ENV{TEST_POINTS_TREE} && !Test::More->builder->is_passing;
}

# what all are told: is alice's session valid, and are the others?
sub told
{
	my ($others) = @_;
	my @answers = map { touch_by($_, "alice $n") } qw(one many old);
	my @others = (touch_by('one', "bob $n"), touch_by('old', "bob $n"), touch_by('other', "alice $n"));

	return "@answers, others @others";
}

my $valid = 't t t, others t t t';
my $alice_ended = 'f f f, others t t t';
my $all_ended = 'f f f, others f f t';

# each "valid" that alice was told is a request that was counted
sub is_counted
{
	my ($name) = @_;
	is( $psql{admin}->query_safe("SELECT requests FROM session_admin_internal.session_state
			WHERE session_hash = sha256('alice $n')"),
		$counted, "$name: all touches are counted");
}

sub held { $psql{admin}->query_safe("SELECT test_point.held('$_[0]')"); }
sub release { $psql{admin}->query_safe("SELECT test_point.release('$_[0]')"); }

# in the background: begin a statement that will be held
sub start
{
	my ($psql, $points, $sql) = @_;
	$psql->{stderr} = '';
	$psql->query_until(qr/^begun$/m,
		"SET session_admin.test_points = '$points';\n\\echo begun\n$sql;\n");
}

# its end
sub finish
{
	my ($psql) = @_;
	my $output = $psql->query("SELECT 'done'");
	my $error = $psql->{stderr};
	$psql->{stderr} = '';
	like($output, qr/done/, 'it came to its end');
	return $error;
}

# Whatever ends sessions: with all that they match, alice's is number N.
my @endings = (
	[ invalidate_user => q{SELECT FROM session_admin.invalidate_user('alice')} ],
	[ invalidate_session => q{SELECT FROM session_admin.invalidate_session(session_admin.session_ref('alice N'))} ],
	[ invalidate_sessions => q{SELECT FROM session_admin.invalidate_sessions(user_name => 'alice')} ],
	[ close_session => q{SELECT session_admin.close_session('alice N')} ],
	[ renew_session => q{SELECT session_admin.renew_session('alice N', 'alice N, renewed')} ],
	[ DELETE => q{DELETE FROM session_admin.session WHERE user_name = 'alice'} ],
	[ 'UPDATE by hand' => q{UPDATE session_admin.session SET created_at = created_at - interval '2 days'
		WHERE user_name = 'alice'} ],
	[ 'UPDATE of its id' => q{UPDATE session_admin.session SET session_hash = sha256('another N')
		WHERE session_hash = sha256('alice N')} ],
	[ 'a savepoint that is released' => q{BEGIN; SAVEPOINT s; SELECT session_admin.close_session('alice N');
		RELEASE s; COMMIT} ],
	[ 'more than are kept track of' => q{BEGIN;
		SELECT count(session_admin.open_session('crowd N ' || i, 'crowd')) FROM generate_series(1, 150) i;
		DELETE FROM session_admin.session WHERE user_name = 'crowd';
		DELETE FROM session_admin.session WHERE user_name = 'alice'; COMMIT} ],
	[ invalidate_application => q{SELECT FROM session_admin.invalidate_application()}, $all_ended, 'told' ],
	[ invalidate_all => q{SELECT FROM session_admin.invalidate_all()}, $all_ended, 'told' ],
	[ set_policy => q{SELECT session_admin.set_policy('absolute_timeout', '2 minutes', 'alice')}, undef, 'told' ],
);

# set_policy ends what is older than that
sub let_pass
{
	my ($name) = @_;
	return if $name ne 'set_policy';
	$psql{admin}->query_safe("SELECT session_admin.set_policy('absolute_timeout', NULL, 'alice');
		UPDATE session_admin.session SET created_at = created_at - interval '5 minutes'
		WHERE session_hash = sha256('alice $n')");
	touch_by('one', "alice $n");
}

foreach my $ending (@endings)
{
	my ($name, $sql, $after, $told) = @$ending;
	my @points = ('pre_commit', 'committed', $told // 'removed', 'finished');
	my $statement;

	$after //= $alice_ended;

	# It commits
	begin_case();
	let_pass($name);
	($statement = $sql) =~ s/\bN\b/$n/g;
	start($ender, join(',', @points), $statement);
	foreach my $point (@points)
	{
		held($point);
		is(touch_by('late', "alice $n"), 'f', "$name, asked late") if $point eq 'finished';
		is(told(), $point eq 'pre_commit' ? $valid : $after, "$name, held at \"$point\"");
		release($point);
	}
	is(finish($ender), '', "$name commits");
	is(told(), $after, "$name has committed");
	end_case();

	# It is asked to stop when it is too late
	begin_case();
	let_pass($name);
	($statement = $sql) =~ s/\bN\b/$n/g;
	start($ender, 'committed', $statement);
	held('committed');
	$psql{admin}->query_safe("SELECT pg_terminate_backend($ender_pid)");
	is(told(), $after, "$name, terminated after its commit");
	release('committed');
	eval { $ender->{run}->finish };
	new_ender();
	is(told(), $after, "$name, terminated after its commit and gone");
	end_case();

	# It fails between pre-commit and commit: by an error, or terminated
	begin_case();
	let_pass($name);
	($statement = $sql) =~ s/\bN\b/$n/g;
	start($ender, 'pre_commit:error', $statement);
	like(finish($ender), qr/error at test point/, "$name fails at its commit");
	is(told(), $valid, "$name has failed at its commit");
	start($ender, 'pre_commit', $statement);
	held('pre_commit');
	is(told(), $valid, "$name, to be terminated before its commit");
	$psql{admin}->query_safe("SELECT pg_terminate_backend($ender_pid, 60000)");
	eval { $ender->{run}->finish };
	new_ender();
	is(told(), $valid, "$name, terminated before its commit");

	# It is rolled back: all of it, to a savepoint, or to one further out
	$statement =~ s/^BEGIN;|COMMIT$//g;
	$ender->query_safe("BEGIN; $statement; ROLLBACK");
	is(told(), $valid, "$name is rolled back");
	$ender->query_safe("BEGIN; SAVEPOINT a; $statement; ROLLBACK TO a; COMMIT");
	is(told(), $valid, "$name is rolled back to a savepoint");
	$ender->query_safe("BEGIN; SAVEPOINT a; SAVEPOINT b; $statement; RELEASE b; ROLLBACK TO a; COMMIT");
	is(told(), $valid, "$name is rolled back to a savepoint further out");
	is_counted($name);
	end_case();

	# The entry is being filled meanwhile.  What the filler is told does not matter:
	# it came before the commit.
	foreach my $point (qw(fill_start fill_read))
	{
		begin_case(fill => 0);
		let_pass($name);
		($statement = $sql) =~ s/\bN\b/$n/g;
		# what let_pass has made of the entry is to be read again
		$psql{admin}->query_safe("UPDATE session_admin.session SET node = 'x' WHERE session_hash = sha256('alice $n')");
		start($psql{filler}, $point, "SELECT session_admin.touch_session('alice $n')");
		held($point);
		$ender->query_safe($statement);
		release($point);
		finish($psql{filler});
		is(told(), $after, "$name while the entry was filled, from \"$point\" on");
		end_case();
	}

	# The same, when it was in doubt at the beginning
	begin_case(fill => 0);
	let_pass($name);
	($statement = $sql) =~ s/\bN\b/$n/g;
	$psql{admin}->query_safe("UPDATE session_admin.session SET node = 'x' WHERE session_hash = sha256('alice $n')");
	start($ender, 'pre_commit', $statement);
	held('pre_commit');
	start($psql{filler}, 'fill_read', "SELECT session_admin.touch_session('alice $n')");
	held('fill_read');
	release('pre_commit');
	is(finish($ender), '', "$name commits");
	release('fill_read');
	finish($psql{filler});
	is(told(), $after, "$name while the entry was filled in doubt");
	end_case();
}

# TRUNCATE has the table locked: who cannot be answered from memory waits for it,
# and is told what has become of it.
begin_case();
start($ender, 'pre_commit,committed', 'TRUNCATE session_admin.session');
held('pre_commit');
start($psql{one}, '', "SELECT session_admin.touch_session('alice $n')");
release('pre_commit');
held('committed');
start($psql{many}, '', "SELECT session_admin.touch_sessions(ARRAY['alice $n']) = '{}'");
is(touch_by('other', "alice $n"), 't', 'TRUNCATE of another database');
release('committed');
is(finish($ender), '', 'TRUNCATE commits');
like($psql{one}->query_safe('SELECT'), qr/^f$/m, 'who was in doubt before the commit of TRUNCATE');
like($psql{many}->query_safe('SELECT'), qr/^f$/m, 'who came after it');
is(told(), $all_ended, 'TRUNCATE has committed');
end_case();

begin_case();
$ender->query_safe('BEGIN; TRUNCATE session_admin.session; ROLLBACK');
is(told(), $valid, 'TRUNCATE is rolled back');
is_counted('TRUNCATE');
end_case();

# A serialization failure at commit comes after pre-commit
begin_case();
foreach ($psql{skew}, $ender)
{
	$_->query_safe('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM skew');
}
$ender->query_safe("INSERT INTO skew VALUES (1); SELECT session_admin.close_session('alice $n')");
$psql{skew}->query_safe('INSERT INTO skew VALUES (2); COMMIT');
$ender->query('COMMIT');
like($ender->{stderr}, qr/could not serialize access/, 'the commit fails to serialize');
$ender->{stderr} = '';
is(told(), $valid, 'a commit that failed to serialize');
is_counted('a commit that failed to serialize');
end_case();

# What a transaction itself has opened, ended or written is not for others
begin_case();
is( $ender->query_safe("BEGIN; SELECT session_admin.close_session('alice $n')
		UNION ALL SELECT session_admin.touch_session('alice $n')"),
	"t\nf", 'a session that this transaction has ended');
is(told(), $valid, 'a session that another transaction has ended, but not committed');
$ender->query_safe('ROLLBACK');
$ender->query_safe("BEGIN; SELECT session_admin.open_session('mine $n', 'alice');
	SELECT session_admin.touch_session('mine $n') FROM generate_series(1, 2)");
is(touch_by('one', "mine $n"), 'f', 'a session that is not committed');
$ender->query_safe('ROLLBACK');
is(touch_by('one', "mine $n"), 'f', 'a session that was rolled back');
is($ender->query_safe("SELECT session_admin.touch_session('mine $n')"), 'f', 'in its own backend, too');

$ender->query_safe("BEGIN; SELECT session_admin.open_session('mine $n', 'alice');
	SELECT session_admin.touch_session('mine $n') FROM generate_series(1, 2); COMMIT");
is(touch_by('one', "mine $n"), 't', 'a session that was committed');
is( $psql{admin}->query_safe("SELECT requests FROM session_admin_internal.session_state
		WHERE session_hash = sha256('mine $n')"),
	'3', 'with the touches of its own transaction');

# its id is used again: the touches of one are not the other's
$ender->query_safe("BEGIN; SELECT session_admin.open_session('alice $n', 'carol');
	SELECT session_admin.touch_session('alice $n'); ROLLBACK");
is_counted('a replacement that was rolled back');
$ender->query_safe("BEGIN; SELECT session_admin.open_session('alice $n', 'carol');
	SELECT session_admin.touch_session('alice $n') FROM generate_series(1, 3); COMMIT");
is($psql{admin}->query_safe("SELECT user_name, requests FROM session_admin_internal.session_state
		WHERE session_hash = sha256('alice $n')"), 'carol|3', 'the new one of this id');
is( $psql{admin}->query_safe("SELECT user_name, requests FROM session_admin_internal.ended_session
		WHERE session_hash = sha256('alice $n')"),
	"alice|$counted", 'the replaced one');
end_case();

# An application that is made again does not bring back what ended with the old one,
# though it begins with the same generation
my $forget_application = q{BEGIN; DELETE FROM session_admin.application;
	DELETE FROM session_admin_internal.application_generation; DELETE FROM session_admin.session; COMMIT};
$ender->query_safe($forget_application);
begin_case();
is(told(), $valid, 'the first generation of an application');
$ender->query_safe($forget_application);
end_case();
begin_case();
$n--;
is(told(), $all_ended, 'an application that was made again');
$n++;
is(told(), $valid, 'and its new sessions');
end_case();

# Prepared transactions: none that ends sessions
begin_case();
foreach my $sql ("SELECT session_admin.close_session('alice $n')", 'SELECT FROM session_admin.invalidate_all()',
	'SELECT count(*) FROM session_admin.maintain()')
{
	$ender->query("BEGIN; $sql; PREPARE TRANSACTION 'p'");
	like($ender->{stderr}, qr/cannot prepare a transaction/, "PREPARE TRANSACTION is refused: $sql");
	$ender->{stderr} = '';
	is(told(), $valid, 'nothing has ended');
}
is_counted('PREPARE TRANSACTION');
$ender->query_safe("BEGIN; SELECT session_admin.open_session('prepared $n', 'alice');
	SELECT session_admin.touch_session('prepared $n'); PREPARE TRANSACTION 'p'");
is(touch_by('one', "prepared $n"), 'f', 'a session that is prepared');
$psql{skew}->query_safe("COMMIT PREPARED 'p'");
is(touch_by('one', "prepared $n"), 't', 'a session that was prepared and committed');
end_case();

# Requests that are being written are counted once, whenever the session ends
foreach my $point (qw(pre_commit committed finished))
{
	begin_case();
	start($ender, $point, 'SELECT FROM session_admin.maintain()');
	held($point);
	is(told(), $valid, "requests are written, held at \"$point\"");
	# before the commit it waits for the row
	start($psql{skew}, '', "SELECT session_admin.close_session('alice $n')");
	$psql{skew}->query_safe('SELECT') if $point ne 'pre_commit';
	release($point);
	is(finish($ender), '', 'it commits');
	finish($psql{skew});
	is( $psql{admin}->query_safe("SELECT requests FROM session_admin_internal.ended_session
			WHERE session_hash = sha256('alice $n')"),
		$counted, "archived while requests were written, held at \"$point\"");
	end_case();
}
begin_case();
$ender->query("SET session_admin.test_points = 'pre_commit:error'");
$ender->query('SELECT FROM session_admin.maintain()');
like($ender->{stderr}, qr/error at test point/, 'writing requests fails');
$ender->{stderr} = '';
is_counted('after that');
$ender->query_safe('SELECT FROM session_admin.maintain(); SELECT FROM session_admin.maintain()') for 1 .. 2;
is_counted('written');
is( $psql{admin}->query_safe("SELECT requests FROM session_admin.session WHERE session_hash = sha256('alice $n')"),
	$counted, 'once');
end_case();

$_->quit foreach values %psql, $ender;
$node->stop;
done_testing();
