# The feed with 16 writers that delay, abort and use savepoints: each reader gets
# every committed invalidation once, and nothing else.
#
# How a reader that remembers the highest id misses some, in one interleaving, is
# in test/specs/concurrent_ending_feed.spec; here it reads along, for comparison.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $writers = 16;
my $transactions = 40;    # of each

my $dir = PostgreSQL::Test::Utils::tempdir;
my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->start;

sub sql
{
	my ($query) = @_;
	return $server->safe_psql('postgres', $query);
}

sql(<<'SQL');
CREATE EXTENSION session_admin;

-- one user for each writer: the lock on a user would line them up
SELECT session_admin.open_session('session of ' || n, 'user ' || n) FROM generate_series(0, 63) AS n;

CREATE FUNCTION log_out(writer int) RETURNS void LANGUAGE sql AS
$$ SELECT session_admin.invalidate_user('user ' || writer) $$;

-- more subtransactions than a snapshot lists, each second one aborted
CREATE FUNCTION log_out_often(writer int) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	FOR i IN 1 .. 80 LOOP
		BEGIN
			PERFORM log_out(writer);
			IF i % 2 = 0 THEN
				RAISE EXCEPTION 'never mind';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
END
$$;

CREATE TABLE received (reader text, id bigint);
CREATE TABLE writers_done ();

-- a node that fetches as fast as it can, until the writers are done and nothing is new
CREATE PROCEDURE read_by_position(reader text, place pg_snapshot) LANGUAGE plpgsql AS
$$
DECLARE
	last bool := false;
	new bool;
	row record;
BEGIN
	LOOP
		new := false;
		FOR row IN SELECT * FROM session_admin.sync_node(reader, place) LOOP
			place := row.applied;
			IF row.id IS NOT NULL THEN
				new := true;
				INSERT INTO received VALUES (reader, row.id);
			END IF;
		END LOOP;
		EXIT WHEN last AND NOT new;
		last := EXISTS (SELECT FROM writers_done);
		COMMIT;
	END LOOP;
END
$$;

-- the same, but its position is the highest id
CREATE PROCEDURE read_by_highest_id(reader text, highest bigint) LANGUAGE plpgsql AS
$$
DECLARE
	last bool := false;
	ids bigint[];
BEGIN
	LOOP
		ids := ARRAY(SELECT id FROM session_admin_internal.invalidation WHERE id > highest);
		INSERT INTO received SELECT reader, unnest(ids);
		highest := greatest(highest, (SELECT max(id) FROM unnest(ids) AS id));
		EXIT WHEN last AND ids = '{}';
		last := EXISTS (SELECT FROM writers_done);
		COMMIT;
	END LOOP;
END
$$;
SQL

# what a transaction of a writer may be, and how often
my %kinds = (
	commit => [ 6, 'SELECT log_out(:client_id); :delay; COMMIT;' ],
	abort => [ 3, 'SELECT log_out(:client_id); :delay; ROLLBACK;' ],
	savepoint => [ 3, 'SAVEPOINT s; SELECT log_out(:client_id); :delay; RELEASE s; COMMIT;' ],
	rollback_to => [ 3,
		'SAVEPOINT s; SELECT log_out(:client_id); ROLLBACK TO s; :delay; SELECT log_out(:client_id); COMMIT;'
	],
	late => [ 3, 'SELECT pg_current_xact_id(); :delay; SELECT log_out(:client_id); COMMIT;' ],
	often => [ 1, 'SELECT log_out_often(:client_id); :delay; COMMIT;' ]);
my @scripts;
foreach my $kind (sort keys %kinds)
{
	my ($weight, $script) = @{ $kinds{$kind} };

	$script =~ s/:delay/SELECT pg_sleep(random() * 0.01)/;
	append_to_file("$dir/$kind.sql", "BEGIN; $script\n");
	push @scripts, '-f', "$dir/$kind.sql\@$weight";
}

# the readers join before the writers begin
sub start_reader
{
	my ($call, %settings) = @_;
	my @options = map { "-c $_=$settings{$_}" } keys %settings;

	local $ENV{PGOPTIONS} = "@options";
	return IPC::Run::start([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1',
			'-d', $server->connstr('postgres'), '-c', $call ]);
}
my @readers = ('read committed', 'repeatable read', 'follow');
my $first = sql('SELECT coalesce(max(id), 0) FROM session_admin_internal.invalidation');
my $p1 = sql("SELECT session_admin.join_node('read committed')");
my $p2 = sql("SELECT session_admin.join_node('repeatable read')");
my @processes = (
	start_reader("CALL read_by_position('read committed', '$p1')"),
	start_reader("CALL read_by_position('repeatable read', '$p2')",
		default_transaction_isolation => 'repeatable\\ read'),
	start_reader("CALL read_by_highest_id('highest id', $first)"));
my $follow = IPC::Run::start(
	[ 'pg_session_follow', '-d', $server->connstr('postgres'), '-n', 'follow' ],
	'>', "$dir/follow.out");
$server->poll_query_until('postgres',
	"SELECT applied IS NOT NULL FROM session_admin_internal.node WHERE node = 'follow'")
  or die 'pg_session_follow did not join';

command_ok(
	[ 'pgbench', '-n', '-c', $writers, '-j', 2, '-t', $transactions, '--random-seed=1', '-M', 'simple',
		@scripts, $server->connstr('postgres') ],
	"$writers writers");

# all is read
sql('INSERT INTO writers_done DEFAULT VALUES');
ok($_->finish, 'a reader ended') foreach @processes;
my $id = sql('SELECT invalidation_id FROM session_admin.invalidate_all()');
is(sql("SELECT state FROM session_admin.wait_for_nodes($id, '1 minute') WHERE node = 'follow'"),
	'applied', 'pg_session_follow has caught up');
$follow->signal('TERM');
ok($follow->finish, 'pg_session_follow ended');
my $lines = slurp_file("$dir/follow.out");
my @ids = $lines =~ /^\{"id":(\d+),/mg;
sql("INSERT INTO received SELECT 'follow', unnest('{" . join(',', @ids) . "}'::bigint[])");

# what they received, against what was committed
sql(<<"SQL");
CREATE TABLE committed AS
	SELECT id FROM session_admin_internal.invalidation WHERE id > $first AND id < $id;
DELETE FROM received WHERE id = $id;
SQL
my $committed = sql('SELECT count(*) FROM committed');
my $aborted = sql('SELECT max(id) - min(id) + 1 - count(*) FROM committed');
cmp_ok($committed, '>', $writers * $transactions / 2, "$committed invalidations were committed");
cmp_ok($aborted, '>', 0, "$aborted were not");
foreach my $reader (@readers)
{
	is(sql("SELECT count(*) FROM committed WHERE id NOT IN (SELECT id FROM received WHERE reader = '$reader')"),
		'0', "$reader: none was missed");
	is(sql("SELECT count(*) - count(DISTINCT id) FROM received WHERE reader = '$reader'"),
		'0', "$reader: none came twice");
	is(sql("SELECT count(*) FROM received WHERE reader = '$reader' AND id NOT IN (SELECT id FROM committed)"),
		'0', "$reader: nothing else came");
}
note 'a reader that remembered the highest id missed ',
  sql("SELECT count(*) FROM committed WHERE id NOT IN (SELECT id FROM received WHERE reader = 'highest id')");

$server->stop;
done_testing();
