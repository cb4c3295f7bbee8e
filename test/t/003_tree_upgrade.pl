# An extension that was updated from a version that has been released is the same as one that
# is made anew: see "Versions and upgrades" in CONTRIBUTING.md.  That a difference is found, of
# each kind, is shown with two versions that are made here.

use strict;
use warnings;

use File::Basename;
use File::Copy qw(copy);
use File::Path qw(make_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;

sub write_to
{
	my ($path, $text) = @_;

	open my $file, '>', $path or die "could not write $path: $!";
	print $file $text;
	close $file;
	return;
}

sub pg_config
{
	my ($what) = @_;

	chomp(my $path = `pg_config --$what`);
	return $path;
}

# A PostgreSQL that takes its extensions from a directory of ours.  It finds its files from where
# it lies itself, so that its programs have to be copies; the rest are links.
my ($bindir, $sharedir, $pkglibdir) = map { pg_config($_) } qw(bindir sharedir pkglibdir);
my $extensions = "$dir$sharedir/extension";
make_path("$dir$bindir", $extensions, dirname("$dir$pkglibdir"));
symlink($pkglibdir, "$dir$pkglibdir") if !-e "$dir$pkglibdir";
foreach my $path (glob("$bindir/*"))
{
	copy($path, "$dir$bindir") && chmod(0755, "$dir$bindir/" . basename($path)) or die "could not copy $path: $!";
}
foreach my $path (grep { basename($_) ne 'extension' } glob("$sharedir/*"))
{
	symlink($path, "$dir$path") or die "could not link $path: $!";
}
foreach my $path (grep { basename($_) !~ /^session_admin/ } glob("$sharedir/extension/*"))
{
	symlink($path, "$extensions/" . basename($path)) or die "could not link $path: $!";
}
$ENV{PATH} = "$dir$bindir:$ENV{PATH}";

# Ours are those of this tree.
my ($version) = slurp_file('session_admin.control') =~ /^default_version = '([^']+)'/m;
my $script = join('', map { slurp_file($_) } sort glob('sql/[0-9][0-9]_*.sql'));
copy('session_admin.control', $extensions) or die;
foreach my $path (glob('sql/session_admin--*.sql'))
{
	copy($path, $extensions) or die;
}
write_to("$extensions/session_admin--$version.sql", $script);

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->start;

sub sql
{
	my ($database, $query) = @_;
	return $server->safe_psql($database, $query);
}

sub make_extension
{
	my ($database, $of) = @_;

	sql('postgres', "CREATE DATABASE $database");
	sql($database, "CREATE EXTENSION session_admin VERSION '$of'");
	return;
}

# All that can be told of the extension in a database, fact after fact
sub facts
{
	my ($database) = @_;
	my ($out, $err);

	my $result = $server->psql($database, '', stdout => \$out, stderr => \$err,
		extra_params => [ '-q', '-v', 'extension=session_admin', '-v', 'ON_ERROR_STOP=1',
			'-f', 'test/tools/extension.sql' ]);
	die "could not describe the extension: $err" if $result != 0 || $err =~ /ERROR/;
	return $out;
}

# The lines in which they differ, less those that both have
sub difference
{
	my ($one, $other) = @_;
	my %count;

	$count{$_}++ foreach split /\n/, $one;
	$count{$_}-- foreach split /\n/, $other;
	return join("\n", map { ($count{$_} > 0 ? '- ' : '+ ') . $_ } grep { $count{$_} } sort keys %count);
}

# Versions that have been released

my @released = grep { /^\d[^-]*$/ } map { /--(.*)\.sql$/ } glob('sql/session_admin--*.sql');
make_extension('fresh', $version);
foreach my $old (@released)
{
	if ($old eq $version)
	{
		is($script, slurp_file("sql/session_admin--$old.sql"),
			"nothing has changed since $old was released, or the next version is begun");
		next;
	}
	(my $database = "from_$old") =~ tr/./_/;
	make_extension($database, $old);
	sql($database, "ALTER EXTENSION session_admin UPDATE TO '$version'");
	is(difference(facts('fresh'), facts($database)), '', "$version is the same if it was $old before");
}

# Two versions that differ in each kind of fact, and the statements that lead from one to the
# other; before each, what is to be told where it was forgotten

my $old = q{
	CREATE TABLE session_admin.planted (a int, b text);
	CREATE TABLE session_admin.planted_last (z int);
	COMMENT ON TABLE session_admin.planted IS 'old';
	CREATE INDEX planted_b ON session_admin.planted (b);
	CREATE SEQUENCE session_admin.planted_id;
	CREATE FUNCTION session_admin.planted(x int) RETURNS int LANGUAGE sql AS 'SELECT 1';
	CREATE FUNCTION session_admin.planted_gone() RETURNS int LANGUAGE sql AS 'SELECT 1';
	CREATE VIEW session_admin.planted_view AS SELECT a FROM session_admin.planted;
	INSERT INTO session_admin.planted_last VALUES (1);
	SELECT pg_catalog.pg_extension_config_dump('session_admin.planted', 'WHERE a > 0');
};
my $new = q{
	CREATE TABLE session_admin.planted (a int NOT NULL, b text COLLATE "C" DEFAULT 'b', c bigint, CHECK (a > 0));
	CREATE TABLE session_admin.planted_last (z int);
	COMMENT ON TABLE session_admin.planted IS 'new';
	COMMENT ON COLUMN session_admin.planted.c IS 'new, too';
	CREATE INDEX planted_b ON session_admin.planted (b, c);
	CREATE SEQUENCE session_admin.planted_id CACHE 10;
	CREATE FUNCTION session_admin.planted(x int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 2';
	REVOKE EXECUTE ON FUNCTION session_admin.planted(int) FROM PUBLIC;
	CREATE VIEW session_admin.planted_view WITH (security_barrier) AS SELECT a, c FROM session_admin.planted;
	CREATE TRIGGER planted BEFORE UPDATE ON session_admin.planted
		FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
	ALTER TABLE session_admin.planted ENABLE ALWAYS TRIGGER planted;
	GRANT SELECT ON session_admin.planted TO pg_monitor;
	CREATE TABLE session_admin.planted_new ();
	INSERT INTO session_admin.planted_last VALUES (1), (2);
	SELECT pg_catalog.pg_extension_config_dump('session_admin.planted', '');
	SELECT pg_catalog.pg_extension_config_dump('session_admin.planted_last', '');
};
my @statements = (
	qr/column 1, a integer.* not null/ => 'ALTER TABLE session_admin.planted ALTER a SET NOT NULL',
	qr/column 2, b text, collation "C"/ => 'ALTER TABLE session_admin.planted ALTER b TYPE text COLLATE "C"',
	qr/column 2, b text.* default 'b'/ => q{ALTER TABLE session_admin.planted ALTER b SET DEFAULT 'b'},
	undef, 'ALTER TABLE session_admin.planted ADD c bigint',
	qr/column 3, c bigint.* comment 'new, too'/ => q{COMMENT ON COLUMN session_admin.planted.c IS 'new, too'},
	qr/constraint planted_a_check CHECK \(\(a > 0\)\)/ => 'ALTER TABLE session_admin.planted ADD CHECK (a > 0)',
	qr/table session_admin.planted: comment 'new'/ => q{COMMENT ON TABLE session_admin.planted IS 'new'},
	undef, 'DROP INDEX session_admin.planted_b',
	qr/CREATE INDEX planted_b .*\(b, c\)/ => 'CREATE INDEX planted_b ON session_admin.planted (b, c)',
	qr/S session_admin.planted_id: .*cache 10/ => 'ALTER SEQUENCE session_admin.planted_id CACHE 10',
	qr/function session_admin.planted\(.*privileges/ => 'REVOKE EXECUTE ON FUNCTION session_admin.planted(int) FROM PUBLIC',
	qr/STABLE|SELECT 2/ => q{CREATE OR REPLACE FUNCTION session_admin.planted(x int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 2'},
	qr/function session_admin.planted_gone\(\)/ => 'DROP FUNCTION session_admin.planted_gone()',
	qr/v session_admin.planted_view: column 2, c bigint/ =>
	  'CREATE OR REPLACE VIEW session_admin.planted_view WITH (security_barrier) AS SELECT a, c FROM session_admin.planted',
	undef, 'CREATE TRIGGER planted BEFORE UPDATE ON session_admin.planted'
	  . ' FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	qr/CREATE TRIGGER planted .*, enabled A/ => 'ALTER TABLE session_admin.planted ENABLE ALWAYS TRIGGER planted',
	qr/r session_admin.planted: privileges .*pg_monitor/ => 'GRANT SELECT ON session_admin.planted TO pg_monitor',
	qr/table session_admin.planted_new/ => 'CREATE TABLE session_admin.planted_new ()',
	qr/session_admin.planted_last has \(2\)/ => 'INSERT INTO session_admin.planted_last VALUES (2)',
	qr/dumped: session_admin.planted $/m => q{SELECT pg_catalog.pg_extension_config_dump('session_admin.planted', '')},
	qr/dumped: session_admin.planted_last/ => q{SELECT pg_catalog.pg_extension_config_dump('session_admin.planted_last', '')});

write_to("$extensions/session_admin--9999.0.sql", $script . $old);
write_to("$extensions/session_admin--9999.1.sql", $script . $new);
make_extension('old', '9999.0');
make_extension('new', '9999.1');
my $expected = facts('new');

# What differs after an update by these statements
sub updated
{
	write_to("$extensions/session_admin--9999.0--9999.1.sql", join('', map { "$_;\n" } @_));
	sql('postgres', 'CREATE DATABASE updated TEMPLATE old');
	sql('updated', "ALTER EXTENSION session_admin UPDATE TO '9999.1'");
	my $difference = difference($expected, facts('updated'));
	sql('postgres', 'DROP DATABASE updated');
	return $difference;
}

isnt(difference(facts('old'), $expected), '', 'the two versions differ');
my @all = map { $statements[ 2 * $_ + 1 ] } 0 .. $#statements / 2;
is(updated(@all), '', 'an update leads from one to the other');
foreach my $i (0 .. $#statements / 2)
{
	my ($fact, $statement) = @statements[ 2 * $i, 2 * $i + 1 ];
	my @others = @all;

	# later ones need it
	next if !defined $fact;
	splice @others, $i, 1;
	like(updated(@others), $fact, "told without: $statement");
}
like(
	updated(@all, 'ALTER EXTENSION session_admin DROP TABLE session_admin.planted_new'),
	qr/\+ not a member: table session_admin.planted_new/,
	'what the extension has lost is told');

done_testing();
