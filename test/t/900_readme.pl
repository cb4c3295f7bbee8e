# The README's walk-through, typed into psql from top to bottom in a fresh
# database, prints what the README says.  A block ```sql is typed; the block
# ```text after it is what comes.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# What differs from run to run, and the widths of columns that depend on it.
my @rules = (
	[ qr/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?([+-]\d\d(:\d\d)?)?/ => '<time>' ],
	[ qr/\b\d\d:\d\d:\d\d\.\d+/ => '<interval>' ],
	[ qr/\b[0-9a-f]{32}:[0-9a-f]{64}\b/ => '<token>' ],
	[ qr/\b[0-9a-f]{32}\b/ => '<series>' ],
	[ qr/-{2,}/ => '--' ],
	[ qr/[ \t]+/ => ' ' ],
	[ qr/^ | $/m => '' ],
	[ qr/\s+\z/ => '' ]);

sub normal
{
	my ($text) = @_;

	foreach my $rule (@rules)
	{
		my ($pattern, $instead) = @$rule;
		$text =~ s/$pattern/$instead/g;
	}
	return $text;
}

my $readme = slurp_file('README.md');
my ($walk) = $readme =~ /^## A walk-through\n(.*?)^## /ms or die "no walk-through in README.md";
my @blocks;
push @blocks, { typed => $1, printed => $2 // '' }
  while $walk =~ /^```sql\n(.*?)^```\n(?:\s*^```text\n(.*?)^```\n)?/msg;
cmp_ok(scalar @blocks, '>', 5, 'the walk-through has steps');

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
$server->start;

my $marker = '=== end of a step ===';
my $typed = join('', map { "$_->{typed}\\echo $marker\n" } @blocks);
IPC::Run::run([ 'psql', '-X', '-d', $server->connstr('postgres') ], '<', \$typed, '>&', \my $printed);
my @printed = split /^$marker\n/m, $printed;

foreach my $block (@blocks)
{
	my ($first) = $block->{typed} =~ /^(.*)/;
	is(normal(shift @printed // ''), normal($block->{printed}), $first);
}

# What people may set, call and read is in the reference, with the defaults that hold.
sub rows
{
	my ($query) = @_;
	return split /\n/, $server->safe_psql('postgres', $query);
}

# Functions that only serve views and reports are granted too, but not for people.
foreach my $name (rows(q{SELECT DISTINCT object FROM session_admin_internal.capability
	WHERE object !~ '^((capability|html|health|check|live)_|html$|application_or_current)' ORDER BY 1}))
{
	ok($readme =~ /`$name[`(]/, "README tells of $name");
}
foreach my $row (rows("SELECT name || '|' || default_value FROM session_admin_internal.policy_definition ORDER BY 1"))
{
	my ($name, $default) = split /\|/, $row;
	$default = 'none' if $default eq '{}';
	ok($readme =~ /^\| `$name` \| $default \|/m, "README tells of policy $name");
}
foreach my $row (rows("LOAD 'session_admin';
	SELECT name || '|' || CASE source WHEN 'configuration file' THEN boot_val ELSE current_setting(name) END
	FROM pg_settings WHERE name ~ '^session_admin[.]' ORDER BY 1"))
{
	my ($name, $default) = split /\|/, $row;
	$default = qr/(`\Q$default\E` )?/;
	ok($readme =~ /^\| `$name` \| $default\|/m, "README tells of setting $name");
}

done_testing();
