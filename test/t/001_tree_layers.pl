# What test/layers and test/sizes have to find is planted, each in a copy of the sources;
# what is in the sources anyway makes no difference.

use strict;
use warnings;

use Cwd;
use File::Path qw(make_path);
use File::Temp;
use Test::More;

my $top = getcwd;
my $number = 0;
my $dir = File::Temp->newdir;

sub write_to
{
	my ($path, @lines) = @_;

	make_path($path =~ m{^(.*)/});
	open my $file, '>>', $path or die "could not write $path: $!";
	print $file map { "$_\n" } @lines;
	close $file;
	return;
}

# A copy of the sources, older than their objects as they are.
sub copy_of
{
	my ($name) = @_;
	my $copy = "$dir/" . ++$number;

	make_path($copy);
	system('cp', '-pR', "$top/$name", $copy) == 0 or die "could not copy $name";
	return $copy;
}

sub lines_of
{
	return map { chomp; $_ } `@_`;
}

my %before = map { $_ => 1 } lines_of("$top/test/layers");

# What test/layers finds beside what it finds without.
sub planted
{
	my ($file, @lines) = @_;
	my $copy = copy_of('src');

	write_to("$copy/src/$file", @lines);
	my @found = lines_of("$top/test/layers $copy/src");
	is($? == 0, !@found, "test/layers fails if it finds something in $file");
	# a way up may also make a circle
	@found = grep { !$before{$_} && !/ in a circle: / } @found;
	s/:\d+: /: / foreach @found;
	return @found;
}

is_deeply(
	[ planted('policy/planted.c', '#include "postgres.h"', '#include "live/live.h"') ],
	['src/policy/planted.c: must not include "live/live.h": policy/ is below live/'],
	'up');
is_deeply(
	[ planted('session/planted.c', '#include "postgres.h"', '#include "node/node.h"') ],
	['src/session/planted.c: must not include "node/node.h": session/ and node/ are on one floor'],
	'sideways');
is_deeply(
	[ planted('attach/planted.h', '#include "live/planted.h"') ],
	['src/attach/planted.h: must not include "live/planted.h": only live/live.h is for others'],
	'a private header');
is_deeply(
	[ planted('attach/planted.c', '/* extern */', "\textern void planted(int number);") ],
	['src/attach/planted.c: a C file declares nothing extern: include the header'],
	'extern in a C file');
is_deeply(
	[ planted('attach/planted.c', 'void planted(int number);') ],
	['src/attach/planted.c: a C file declares nothing of others: include the header of planted()'],
	'a declaration of what is elsewhere');
is_deeply(
	[ planted('attach/planted.c', 'static int planted(int number);', '/*', ' * extern', ' */',
			'int answer(void);', 'int', 'answer(void)', '{', "\treturn planted(42);", '}') ],
	[],
	'a declaration of what is here');
is_deeply(
	[ planted('planted/planted.c') ],
	['src/planted/: is on no floor of test/layers'],
	'a folder without a floor');
is_deeply(
	[ planted('base/planted.c', '#include "../live/live.h"') ],
	['src/base/planted.c: write the path from src/ on, not "../live/live.h"'],
	'a way around');
is_deeply(
	[ planted('clients/planted/planted.c', '#include "base/base.h"') ],
	['src/clients/planted/planted.c: a client must not include "base/base.h"'],
	'a client');
is_deeply(
	[ planted('live/planted.c', '#if PG_VERSION_NUM < 160000') ],
	["src/live/planted.c: only base/compat.h may ask for PostgreSQL's version"],
	'a version');

# Each pair of the graph is of two folders, and tsort finds an order: there is no circle.
my @graph = lines_of("$top/test/layers --graph");
cmp_ok(scalar @graph, '>', 10, '--graph shows who uses whom');
is_deeply([ grep { !/^[a-z]+ [a-z]+$/ } @graph ], [], 'in pairs');
is(`$top/test/layers --graph | tsort 2>&1 >/dev/null`, '', 'without a circle');

# Calls are seen in objects, whatever declares what they call.
SKIP:
{
	my $cc = (grep { system("command -v $_ >/dev/null") == 0 } qw(cc gcc clang))[0];
	skip 'there is no C compiler', 4 if !defined $cc || system('command -v nm >/dev/null') != 0;
	my $src = "$dir/objects";
	my %code = (
		'base/base' => 'void base(void) { live(); text(); }',
		'base/text' => 'void text(void) { base(); }',
		'policy/policy' => 'void policy(void) { base(); }',
		'live/live' => 'void live(void) { policy(); }');
	foreach my $name (sort keys %code)
	{
		my ($folder) = $name =~ m{^(\w+)};
		write_to("$src/$folder/all.h", 'void base(void), live(void), policy(void), text(void);')
		  if !-e "$src/$folder/all.h";
		write_to("$src/$name.c", "#include \"$folder/all.h\"", $code{$name});
		system("$cc -I$src -c -o $src/$name.o $src/$name.c") == 0 or die "could not compile $name.c";
	}
	my @found = lines_of("$top/test/layers $src");
	my @no_folder = grep { /there is no folder/ } @found;
	is_deeply(
		[ grep { !/there is no folder/ } @found ],
		[   'src/: use each other in a circle: base live policy',
			'src/: use each other in a circle: base/base.c base/text.c',
			'src/base/base.c: must not use live of src/live/live.c: base/ is below live/' ],
		'calls up, and in a circle');
	cmp_ok(scalar @no_folder, '>', 3, 'floors without a folder');
	is_deeply(
		[ lines_of("$top/test/layers --graph $src") ],
		[ 'base live', 'live policy', 'policy base' ],
		'--graph');
	is_deeply(
		[ lines_of("$top/test/layers --files $src") ],
		[   'base/base.c base/text.c',
			'base/base.c live/live.c',
			'base/text.c base/base.c',
			'live/live.c policy/policy.c',
			'policy/policy.c base/base.c' ],
		'--files');
}

# A function of so many lines, in PostgreSQL's format
sub function
{
	my ($name, $lines, $list) = @_;
	return ('static void', "$name($list)", '{', ("\t;") x ($lines - 4), '}');
}

sub too_large
{
	my (%files) = @_;
	my $copy = "$dir/" . ++$number;

	write_to("$copy/$_", @{ $files{$_} }) foreach keys %files;
	my @found = lines_of("$top/test/sizes $copy");
	is($? == 0, !@found, 'test/sizes fails if it finds something');
	return \@found;
}

is_deeply(
	too_large(
		'src/live/a.c' => [ function('short', 80, 'void'), function('long', 81, 'int a') ],
		'src/live/b.c' => [ '/*', ' * Does it.', ' *', ' * Long: it is a list.', ' */', function('list', 81, 'void') ]),
	['src/live/a.c:82: long() has 81 lines, over 80, and no "Long: " in its comment'],
	'a function that is too long, unless its comment says why');
is_deeply(
	too_large(
		'src/live/a.c' => [ function('six', 5, 'int a, int (*b) (int, int), int c, int d, int e, int f'),
			function('seven', 5, 'int a, int b, int c, int d, int e, int f, int g') ],
		'src/live/b.c' => [ '/* Parameters: one a column. */',
			function('columns', 5, 'int a, int b, int c, int d, int e, int f, int g') ]),
	['src/live/a.c:7: seven() has 7 parameters, over 6, and no "Parameters: " in its comment'],
	'too many parameters, unless the comment says why');
is_deeply(
	too_large('src/live/a.c' => [ ('/* { */') x 600 ], 'src/live/b.c' => [ ('') x 601 ]),
	['src/live/b.c has 601 lines, over 600: split it'],
	'a file that is too long');
is_deeply(
	too_large(
		'src/live/a.c' => [ function('load', 5, 'void'), function('live_find', 5, 'void') ],
		'src/policy/a.c' => [ function('load', 5, 'void'), function('policy_find', 5, 'void') ]),
	['load() is static in several files: src/live/a.c src/policy/a.c'],
	'a name in two files');
is_deeply(
	too_large('test/t/010_all_a.pl' => [''], 'test/t/010_all_b.pl' => [''], 'test/t/011_all_c.pl' => ['']),
	['number 010 has several tests: test/t/010_all_a.pl test/t/010_all_b.pl'],
	'a number of two tests');
is_deeply(
	too_large(
		'src/live/a.c' => [''],
		map { $_ => [''] } qw(test/sql/live_a.sql test/sql/life.sql test/specs/concurrent_live_a.spec
		  test/specs/concurrent_a.spec test/t/310_live_a.pl test/t/311_a_b.pl)),
	[ map { "$_: the name does not begin with a folder of src/" }
		  qw(test/sql/life.sql test/specs/concurrent_a.spec test/t/311_a_b.pl) ],
	'a test without a folder in its name');

done_testing();
