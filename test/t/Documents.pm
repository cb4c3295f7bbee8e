# The documents for people, README.md and doc/*.md, as the tests 9NN read them.
#
# A document is a list of steps, from top to bottom.  A step is a block of code:
#
#	```sql        is typed into psql: one psql for the whole document, in a fresh database
#	```sh         is run by "sh -e", in an empty directory
#	```python     and js, java and php are run by the interpreter, if it is there
#	```text       right after one of these is what it prints
#
# A block of code with no ```text after it must succeed; what it prints does not matter.
# What differs from run to run may differ from the document: see normal().  Comments in
# HTML, which readers do not see, tell the rest:
#
#	<!-- first: \i test/products/jira.sql -->   typed into psql before what follows
#	<!-- not run: it installs -->               the next block is not run, and why
#	<!-- database: jira -->                     how the database is called, "wiki" if not said

package Documents;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;

our @EXPORT_OK = qw(documents steps database normal without_code);

sub documents
{
	return ('README.md', sort glob 'doc/*.md');
}

# Each step has language, code, line, and may have printed (what the document says that it
# prints), and not_run (why it is not).
sub steps
{
	my ($file) = @_;
	my $text = slurp_file($file);
	my (@steps, $not_run, $end);

	while ($text =~ /^ *<!-- (first|not run): (.*?)\s*-->$|^( *)```(\w*)\n(.*?)^ *```$/msg)
	{
		my ($directive, $argument, $indent, $language, $code) = ($1, $2, $3, $4, $5);
		my $line = 1 + (substr($text, 0, $-[0]) =~ tr/\n//);
		my $between = substr($text, $end // 0, $-[0] - ($end // 0));

		$end = $+[0];
		if ($directive)
		{
			push @steps, { language => 'sql', code => "$argument\n", line => $line, hidden => 1 } if $directive eq 'first';
			$not_run = $argument if $directive eq 'not run';
			next;
		}
		$code =~ s/^$indent//mg;
		if ($language eq 'text' && !$not_run && @steps && !defined $steps[-1]{printed} && $between !~ /\S/)
		{
			$steps[-1]{printed} = $code;
			next;
		}
		push @steps, { language => $language, code => $code, line => $line, not_run => $not_run };
		undef $not_run;
	}
	return @steps;
}

sub database
{
	my ($file) = @_;
	return slurp_file($file) =~ /^<!-- database: (\w+) -->$/m ? $1 : 'wiki';
}

# What differs from run to run, and the widths of columns that depend on it.
my @rules = (
	[ qr/\d{4}-\d\d-\d\d(T| )\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d(:?\d\d)?|Z)?/ => '<time>' ],
	[ qr/\b\d{4}-\d\d-\d\d\b/ => '<date>' ],
	[ qr/(\d+ days? )?\b\d\d:\d\d:\d\d\.\d+/ => '<interval>' ],
	[ qr/\b[0-9a-f]{32}:[0-9a-f]{64}\b/ => '<token>' ],
	[ qr/\b[0-9a-f]{32}\b/ => '<series>' ],
	[ qr/-{2,}/ => '--' ],
	[ qr/[ \t]+/ => ' ' ],
	[ qr/^ | $/m => '' ],
	[ qr/\n{2,}/ => "\n" ],
	[ qr/\A\s+|\s+\z/ => '' ]);

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

# The text of a document without its blocks of code, for what looks at prose alone.
sub without_code
{
	my ($file) = @_;
	return slurp_file($file) =~ s/^ *```\w*\n.*?^ *```$//msgr =~ s/^<!--.*?-->$//msgr;
}

1;
