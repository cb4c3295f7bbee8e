# What is printed in README.md and doc/*.md works: every block of code in them runs, from
# top to bottom, and prints what the document says that it prints.
#
# See Documents.pm for how a document is read.  A language whose packages are missing is
# skipped, but not where CI is set; PHP and Go are nowhere required.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Documents qw(documents steps database normal);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $jdbc = '/usr/share/java/postgresql.jar';
my $user = getpwuid($>);
my $modules = PostgreSQL::Test::Utils::tempdir;
my $server = PostgreSQL::Test::Cluster->new('main');
$server->init;
# JDBC connects by TCP only
$server->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\ntimezone = 'UTC'");
$server->start;

sub can_run
{
	my @command = @_;
	return eval { IPC::Run::run(\@command, '<', \undef, '>', \my $output, '2>&1') };
}

# How to run a file in each language, or why that cannot be.
my %runner = (
	sql => {},
	sh => { command => 'sh -e' },
	python => { command => '/usr/bin/python3', needs => [ '/usr/bin/python3', '-c', 'import psycopg2' ] },
	js => { command => "NODE_PATH=$modules/node_modules node",
		needs => [ 'npm', 'install', '--prefix', $modules, qw(--no-package-lock --no-audit --no-fund
			--prefer-offline --no-update-notifier --fetch-timeout=20000 --fetch-retries=0 pg@^8.12.0) ] },
	java => { command => "java -cp $jdbc", needs => [ 'sh', '-c', "test -e $jdbc && java -version" ], suffix => '.java',
		before => 'class Main { public static void main(String[] args) throws Exception { String url = "'
		  . 'jdbc:postgresql://127.0.0.1:' . $server->port . '/DATABASE?user=' . $user . "\";\n",
		after => "}}\n", imports => "import java.sql.*;\n" },
	php => { command => 'php', needs => [ 'php', '-r', "exit(extension_loaded('pdo_pgsql') ? 0 : 1);" ], optional => 1 },
	# the modules that it imports are not here: it is parsed
	go => { command => 'gofmt -l', needs => [ 'sh', '-c', 'command -v gofmt' ], suffix => '.go', optional => 1 });

foreach my $language (sort keys %runner)
{
	my ($needs, $optional) = @{ $runner{$language} }{qw(needs optional)};
	next if !$needs || can_run(@$needs);

	# one line, by which it is listed
	my $why = "blocks in $language: what they need is not there";
	$runner{$language}{missing} = 1;
  SKIP:
	{
		skip($why, 1) if $optional || !$ENV{CI};
		fail($why);
	}
}

# The blocks of a document that can be run here
sub run_steps
{
	my ($file) = @_;
	return grep { !$_->{not_run} && $runner{ $_->{language} } && !$runner{ $_->{language} }{missing} } steps($file);
}

# Run a document, step by step, by one psql.
sub run_document
{
	my ($file) = @_;
	my @steps = run_steps($file);
	my $database = database($file);
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $end = 'end of a step';
	my ($typed, $number) = ('', 0);

	$server->safe_psql('postgres', "CREATE DATABASE $database");
	foreach my $step (@steps)
	{
		my $runner = $runner{ $step->{language} };

		$number++;
		if ($runner->{command})
		{
			my $path = "$dir/step_$number" . ($runner->{suffix} // '');
			my $before = ($runner->{imports} // '') . ($runner->{before} // '');

			append_to_file($path, $before =~ s/DATABASE/$database/r . $step->{code} . ($runner->{after} // ''));
			$typed .= "\\! cd $dir && $runner->{command} $path 2>&1 || echo ERROR: status \$?\n";
		}
		else
		{
			$typed .= $step->{code};
		}
		# by a query, since psql keeps what \echo writes until the next one
		$typed .= "SELECT '$end' AS \"$end\";\n";
	}

	{
		local %ENV = (%ENV, PGHOST => $server->host, PGPORT => $server->port, PGUSER => $user, PGDATABASE => $database);
		IPC::Run::run([ 'psql', '-X' ], '<', \$typed, '>&', \my $printed);
		my @printed = split /^ $end *\n-+\n $end\n\(1 row\)\n\n/m, $printed;

		check_step($_, shift @printed) foreach @steps;
	}
	# a document may make others, as the next one may
	foreach my $name (split /\n/, $server->safe_psql('postgres',
		q{SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'}))
	{
		$server->safe_psql('postgres', "DROP DATABASE $name WITH (FORCE)");
	}
	return;
}

sub check_step
{
	my ($step, $printed) = @_;
	my $name = "line $step->{line}: " . ($step->{code} =~ /^(.*)/)[0];

	return fail("$name: not reached") if !defined $printed;
	return is(normal($printed), normal($step->{printed}), $name) if defined $step->{printed};
	return unlike($printed, qr/^(psql:\S+ )?(ERROR|FATAL):|\berror: |^invalid command/m, $name);
}

foreach my $file (documents())
{
	my @unknown = grep { !$_->{not_run} && !$runner{ $_->{language} } && $_->{language} !~ /^(ini|json)$/ } steps($file);

	is(join(' ', map { "$_->{line} ($_->{language})" } @unknown), '', "$file: every block is run, or says why not");
	subtest $file => sub { run_document($file) } if run_steps($file);
}

# Lines of postgresql.conf name settings that there are.
foreach my $file (documents())
{
	foreach my $step (grep { $_->{language} eq 'ini' } steps($file))
	{
		foreach my $name ($step->{code} =~ /^([\w.]+) *=/mg)
		{
			is($server->safe_psql('postgres', "LOAD 'session_admin'; SELECT count(*) FROM pg_settings WHERE name = '$name'"),
				1, "$file: setting $name");
		}
	}
}

done_testing();
