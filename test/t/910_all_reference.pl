# The reference tells of all that people may set, call and read, as it is: the settings and
# policies with their defaults, the functions with their arguments, the views with their
# columns; and doc/operation.md of each line of view health.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $reference = slurp_file('doc/reference.md');
my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->start;
$server->safe_psql('postgres', q{
	CREATE EXTENSION session_admin;
	CREATE ROLE everybody;
	SELECT session_admin.grant_access('everybody', c) FROM unnest('{application,node,administrator}'::text[]) c});

sub rows
{
	my ($query) = @_;
	return map { [ split /\|/, $_, -1 ] } split /\n/, $server->safe_psql('postgres', $query);
}

# The rows of the table that follows this heading or line
sub table_after
{
	my ($start) = @_;
	my ($table) = $reference =~ /^\Q$start\E\n.*?\n((?:\|[^\n]*\n)+)/ms or return '';
	return $table;
}

foreach my $row (rows(q{
	LOAD 'session_admin';
	SELECT name, CASE source WHEN 'configuration file' THEN boot_val ELSE current_setting(name) END
	FROM pg_settings WHERE name ~ '^session_admin[.]' ORDER BY 1}))
{
	my ($name, $default) = @$row;
	like(table_after('## Settings'), qr/^\| `\Q$name\E` \| (`\Q$default\E` )?\|/m, "setting $name");
}

foreach my $row (rows(q{SELECT DISTINCT name, CASE "default" WHEN '{}' THEN 'none' ELSE "default" END
	FROM session_admin.policies ORDER BY 1}))
{
	my ($name, $default) = @$row;
	like(table_after('## Policies'), qr/^\| `$name` \| \Q$default\E \|/m, "policy $name");
}

# Without the argument that all have, and of several functions of a name that which takes text
foreach my $row (rows(q{
	SELECT DISTINCT ON (p.proname) p.proname,
		array_to_string(array(SELECT a.name FROM unnest(p.proargnames[1:p.pronargs]) WITH ORDINALITY AS a (name, n)
			WHERE a.name <> 'application' ORDER BY n), ' ')
	FROM pg_proc p
	WHERE p.pronamespace = 'session_admin'::regnamespace AND p.prorettype <> 'trigger'::regtype
		AND p.proname IN (SELECT f.proname FROM pg_proc f, aclexplode(f.proacl) g WHERE g.grantee = 'everybody'::regrole)
	ORDER BY p.proname, 'bytea'::regtype = ANY (p.proargtypes)}))
{
	my ($name, $arguments) = @$row;
	my ($printed) = $reference =~ /^\| `$name\(([^`]*)\)`/m;

	ok(defined $printed, "function $name") or next;
	# optional ones are in brackets: a, b [, c]
	$printed =~ s/\]$// if $printed =~ s/^\[| \[(?=,)//;
	is(join(' ', map { /^"?(\w+)/ } split /, /, $printed), $arguments, "function $name: arguments");
}

foreach my $row (rows(q{
	SELECT c.relname, string_agg(a.attname, ' ' ORDER BY a.attnum)
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE c.relnamespace = 'session_admin'::regnamespace AND c.relkind = 'v'
		AND EXISTS (SELECT FROM aclexplode(c.relacl) g WHERE g.grantee = 'everybody'::regrole)
	GROUP BY c.relname ORDER BY 1}))
{
	my ($name, $columns) = @$row;
	is(join(' ', table_after("### $name") =~ /^\| `(\w+)` \|/mg), $columns, "view $name: columns");
}

my $operation = slurp_file('doc/operation.md');
foreach my $row (rows('SELECT name FROM session_admin.health'))
{
	like($operation, qr/^\| `\Q$row->[0]\E` \|/m, "operation.md: health, $row->[0]");
}

done_testing();
