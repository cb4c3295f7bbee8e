# The server's clock is set back by a day, and forward: housekeeping goes on, health is
# well, and a crash loses no more than what is younger than the flush interval.
#
# The clock that people read is that of test/points/clock.c, which takes its offset from
# a file.  The clock that nobody sets is the real one.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = PostgreSQL::Test::Utils::tempdir . '/clock.so';
plan skip_all => 'there is no LD_PRELOAD here' if $^O ne 'linux';
system_or_bail('cc', '-shared', '-fPIC', '-O', '-o', $library, 'test/points/clock.c');

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q{
	session_admin.worker = on
	session_admin.flush_interval = 1
	restart_after_crash = on
	autovacuum = off
});

my $clock = $node->basedir . '/clock';
sub set_clock
{
	my ($hours) = @_;
	my $new = "$clock.new";

	append_to_file($new, 3600 * $hours);
	rename $new, $clock or die "could not set the clock: $!";
}
set_clock(0);
{
	local @ENV{qw(LD_PRELOAD TEST_CLOCK)} = ($library, $clock);
	$node->start;
}

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sub poll_ok
{
	my ($query, $name, $expected) = @_;
	ok($node->poll_query_until('postgres', $query, $expected // 't'), $name);
}

# What the server's clock says, in hours from the real one
sub is_off_by
{
	my ($hours) = @_;
	my $now = sql('SELECT extract(epoch FROM clock_timestamp())');

	is(sprintf('%.0f', ($now - time) / 3600), $hours, "the clock is off by $hours hours");
}

sub health
{
	my ($item, $column) = @_;
	return "SELECT $column FROM session_admin.health WHERE name = '$item'";
}

my $requests = 0;
my $written = q{SELECT requests FROM session_admin.session WHERE user_name = 'alice'};

sub touch_and_poll
{
	my ($name) = @_;

	is(sql(q{SELECT session_admin.touch_session('id')}), 't', "$name: a touch");
	poll_ok($written, "$name: it is flushed", ++$requests);
}

sub is_well
{
	my ($name) = @_;

	poll_ok(health('worker', q{value ~ '^(idle|running)'}), "$name: the worker is not said to have failed");
	is(sql(health('worker', 'status')), 'ok', "$name: the worker is well");
	is(sql(health('requests not flushed', 'status')), 'ok', "$name: so are requests");
}

# Tasks that are due each minute are done, too: this one at once, when settings change.
sub poll_purge
{
	my ($name) = @_;

	sql(q{INSERT INTO session_admin_internal.account_seen VALUES ('default', 'alice', '2020-01-01')});
	$node->reload;
	poll_ok('SELECT count(*) FROM session_admin_internal.account_seen', "$name: other tasks are done", 0);
}

sql(q{
	CREATE EXTENSION session_admin;
	SELECT session_admin.set_policy('idle_timeout', '10 days'), session_admin.set_policy('absolute_timeout', '10 days');
	SELECT session_admin.open_session('id', 'alice')});
is_off_by(0);
touch_and_poll('right');

foreach my $hours (-24, -48, 24, 0)
{
	my $name = "off by $hours hours";

	set_clock($hours);
	is_off_by($hours);
	touch_and_poll($name) for 1 .. 3;
	is_well($name);
	poll_purge($name);
}

# A crash after the clock was set back
set_clock(-24);
touch_and_poll('before a crash');
my $offset = -s $node->logfile;
kill 'KILL', sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
poll_ok('SELECT true', 'the server is there again');
is(sql($written), $requests, 'what was flushed is there');
touch_and_poll('after a crash');
is_well('after a crash');

$node->stop;
done_testing();
