# README.md and doc/*.md as a whole: every link leads somewhere, what is named is there,
# the README is short, and what is installed with the extension is there.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Documents qw(documents without_code);
use File::Basename;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme_lines = 250;

# The anchors of a document, as GitHub makes them of its headings.
my %anchors;

sub anchors
{
	my ($file) = @_;

	return $anchors{$file} //= do
	{
		my (%found, %times);

		foreach my $heading (without_code($file) =~ /^#+ +(.*?) *$/mg)
		{
			my $anchor = lc $heading;

			$anchor =~ s/\[([^]]*)\]\([^)]*\)/$1/g;
			$anchor =~ s/[^\w\- ]//g;
			$anchor =~ tr/ /-/;
			$anchor .= '-' . $times{$anchor} if $times{$anchor}++;
			$found{$anchor} = 1;
		}
		\%found;
	};
}

foreach my $file (documents(), 'CHANGELOG.md')
{
	my @broken;

	foreach my $link (without_code($file) =~ /\]\(([^)\s]+)\)/g)
	{
		next if $link =~ /^https:/;
		my ($path, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
		my $target = $path eq '' ? $file : dirname($file) . "/$path";

		$target =~ s,^\./|[^/]+/\.\./,,g;
		push @broken, "$link: no such file" unless -e $target;
		push @broken, "$link: no such heading" if defined $anchor && -e $target && !anchors($target)->{$anchor};
	}
	# and the files that it names
	foreach my $path (without_code($file) =~ /`((?:test|src|sql|doc|expected)\/[^` ]*)[^`]*`/g)
	{
		push @broken, "$path: no such file" unless grep { -e } glob $path;
	}
	is(join("\n", @broken), '', "$file: links");
}

# What is in doc/ can be found from the README.
foreach my $file (glob 'doc/*.*')
{
	like(slurp_file('README.md'), qr/\(\Q$file\E[)#]/, "README.md leads to $file");
}

my $lines = () = slurp_file('README.md') =~ /\n/g;
cmp_ok($lines, '<', $readme_lines, "README.md has fewer than $readme_lines lines");

foreach my $picture (glob 'doc/*.svg')
{
	my $text = slurp_file($picture);

	unlike($text, qr/\b(href|url\()\W*https?:|\@import|\@font-face|<script/, "$picture loads nothing");
	like($text, qr/prefers-color-scheme: dark/, "$picture has colours for the dark");
  SKIP:
	{
		skip('there is no /usr/bin/python3', 1) unless -x '/usr/bin/python3';
		command_ok([ '/usr/bin/python3', '-c', 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])', $picture ],
			"$picture is well-formed");
	}
}

# doc/ is installed into a directory of its own, and removed from there.
my $dir = PostgreSQL::Test::Utils::tempdir;
my @make = ('make', '-s', "DESTDIR=$dir", ($ENV{PG_CONFIG} ? "PG_CONFIG=$ENV{PG_CONFIG}" : ()));
sub installed
{
	return sort map { basename($_) } grep { m,/extension/session_admin/[^/]+\.(md|svg)$, } split /\n/, `find $dir -type f`;
}

command_ok([ @make, 'install' ], 'make install');
is_deeply([ installed() ], [ sort map { basename($_) } glob 'doc/*.*' ], 'doc/ is installed');
command_ok([ @make, 'uninstall' ], 'make uninstall');
is(join(' ', installed()), '', 'doc/ is removed');

done_testing();
