# Databases and clients of different encodings: nothing that comes from the internet
# makes a client's statement fail, and no name stops a node.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = PostgreSQL::Test::Cluster->new('main');
$server->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
$server->append_conf('postgresql.conf', "session_admin.application = 'wiki'");
$server->start;

# What a client with this encoding is answered, in bytes; its error if it fails
sub as
{
	my ($encoding, $database, $query) = @_;
	my ($out, $err) = ('', '');

	local $ENV{PGCLIENTENCODING} = $encoding;
	IPC::Run::run([ 'psql', '-XAtq', '-d', $server->connstr($database) ], '<', \$query, '>', \$out, '2>', \$err);
	chomp $out;
	return $err eq '' ? $out : "failed: $err";
}

my @views = qw(current_sessions session_history last_login login_history login_pressure remembered_devices invalidations
  nodes health policies my_sessions('alice') my_devices('alice') html_report() dormant_users(now())
  preview_invalidation(anonymous=>false));

# All views can be read, by clients with each of these encodings
sub readable
{
	my ($database, @encodings) = @_;

	foreach my $encoding (@encodings)
	{
		my @broken = grep { as($encoding, $database, "SELECT * FROM session_admin.$_") =~ /^failed/ } @views;
		is("@broken", '', "$database: a client in $encoding can read all");
	}
	return;
}

my %position;

# What a node with this encoding is told
sub told
{
	my ($encoding, $database, $node) = @_;
	my $position = $position{$database}{$node} // as($encoding, $database, "SELECT session_admin.join_node('$node')");
	my $out = as($encoding, $database, "SELECT applied, id IS NULL, scope, application, user_name, session_hash IS NOT NULL, reason
		FROM session_admin.sync_node('$node', '$position')");
	my @told;

	return $out if $out =~ /^failed/;
	foreach my $row (split /\n/, $out)
	{
		($position, my $nothing, my @row) = split /\|/, $row, -1;
		push @told, join '|', @row if $nothing eq 'f';
	}
	$position{$database}{$node} = $position;
	return join "\n", @told;
}

foreach my $encoding (qw(SQL_ASCII LATIN1 UTF8))
{
	$server->safe_psql('postgres', "CREATE DATABASE \L$encoding\E ENCODING '$encoding' TEMPLATE template0 LOCALE 'C'");
	is(as($encoding, lc $encoding, 'CREATE EXTENSION session_admin'), '', "the extension in $encoding");
}

# Bytes that are no characters, in everything that comes from outside, and characters
# across the place where they are cut
my $e = "\xc3\xa9";        # é in UTF-8
my $nippon = "\xe6\x97\xa5\xe6\x9c\xac";
foreach my $database (qw(sql_ascii latin1 utf8))
{
	my $n = 0;

	foreach my $client ([ 'SQL_ASCII', "\xe9\xe8 \xf0\x9f\x98 \xff\xc3" ], [ 'LATIN1', "\xe9\xe8 \x9b31m \xc2" ],
		[ 'UTF8', 'x' . $e x 1000 ], [ 'UTF8', $e x 1000 ], [ 'SQL_ASCII', 'xx' . $nippon x 1000 ])
	{
		my ($encoding, $text) = @$client;

		next if $database eq 'utf8' && $encoding eq 'SQL_ASCII' && $text =~ /\xff/;    # refused by the server
		$n++;
		unlike(
			as($encoding, $database,
				"SELECT session_admin.open_session('s$n', 'alice', user_agent => '$text', device => '$text', node => '$text', login_method => '$text');
				SELECT session_admin.issue_remember_me('alice', '$text', '$text');
				SELECT session_admin.login_failed('$text', user_agent => '$text', login_method => '$text');
				SELECT session_admin.login_failed('alice', user_agent => '$text');
				SET session_admin.actor = '$text'; SELECT session_admin.close_session('s$n');
				SELECT session_admin.open_session('t$n', 'alice', user_agent => '$text', device => '$text', node => '$text')"),
			qr/^failed/, "$database: what a client in $encoding sends is taken ($n)");
	}
	readable($database, $database eq 'utf8' ? ('UTF8', 'SQL_ASCII') : ('UTF8', 'LATIN1', 'SQL_ASCII'));
}
is(as('UTF8', 'sql_ascii', q{SELECT user_agent FROM session_admin.current_sessions
	WHERE user_agent LIKE '%?%' GROUP BY 1 ORDER BY user_agent COLLATE "C"}),
	"?? ?31m ?\n?? ??? ??", 'what is no character is a question mark');
is(as('UTF8', 'sql_ascii', q{SELECT count(*), bool_and(octet_length(user_agent) BETWEEN 1022 AND 1024), bool_and(octet_length(device) BETWEEN 253 AND 255)
	FROM session_admin.current_sessions WHERE octet_length(user_agent) > 1000}), '3|t|t', 'characters are cut as a whole');
is(as('SQL_ASCII', 'latin1', q{SELECT count(*) FROM session_admin.session WHERE user_agent ~ E'[\x80-\x9f]'}), 0,
	'no terminal escape of LATIN1 is kept');

# Names are kept as they are; a node that cannot be shown one goes on, and drops more
told('UTF8', 'sql_ascii', 'n');
told('LATIN1', 'utf8', 'n');
told('UTF8', 'utf8', 'u');
told('UTF8', 'latin1', 'n');
as('LATIN1', 'sql_ascii', "SELECT session_admin.open_session('j', 'J\xf6rg'); SELECT session_admin.invalidate_user('J\xf6rg');
	SELECT session_admin.open_session('j2', 'J\xf6rg'); SELECT session_admin.close_session('j2')");
is(told('UTF8', 'sql_ascii', 'n'), "application|wiki||f|admin\nsession|wiki||t|logout", 'SQL_ASCII: a name in no encoding');
is(told('UTF8', 'sql_ascii', 'n'), '', '... once');
as('LATIN1', 'latin1', "SELECT session_admin.open_session('j', 'J\xf6rg'); SELECT session_admin.invalidate_user('J\xf6rg')");
is(told('UTF8', 'latin1', 'n'), "user|wiki|J\xc3\xb6rg|f|admin", 'LATIN1: a name that can be shown is');

as('UTF8', 'utf8', "SELECT session_admin.open_session('j', '$nippon'); SELECT session_admin.open_session('j2', '$nippon');
	SELECT session_admin.issue_remember_me('$nippon') \\g /dev/null
	SELECT session_admin.close_session('j2');
	SELECT session_admin.invalidate_user('$nippon', keep_session => 'j', reason => 'custom:$nippon');
	SELECT session_admin.open_session('j', 'J\xc3\xb6rg', application => '$nippon');
	SELECT session_admin.open_session('j3', 'jim', application => '$nippon');
	SELECT session_admin.close_session('j', '$nippon');
	SELECT session_admin.invalidate_user('J\xc3\xb6rg', application => '$nippon');
	SELECT session_admin.invalidate_application(application => '$nippon');
	SELECT session_admin.open_session('j4', 'J\xc3\xb6rg'); SELECT session_admin.invalidate_user('J\xc3\xb6rg')");
is(told('LATIN1', 'utf8', 'n'), join("\n", 'session|wiki||t|logout', 'application|wiki||f|custom:??', 'all|||f|logout', 'all|||f|admin',
		'all|||f|admin', "user|wiki|J\xf6rg|f|admin"), 'UTF8: to a client in LATIN1');
is(told('LATIN1', 'utf8', 'n'), '', '... once');
is(told('UTF8', 'utf8', 'u'), join("\n", "session|wiki|$nippon|t|logout", "user|wiki|$nippon|t|custom:$nippon",
		"session|$nippon|J\xc3\xb6rg|t|logout", "user|$nippon|J\xc3\xb6rg|f|admin", "application|$nippon||f|admin",
		"user|wiki|J\xc3\xb6rg|f|admin"), '... and to one in UTF8');
as('UTF8', 'utf8', "SELECT session_admin.join_node('$nippon')");
is(as('LATIN1', 'utf8', q{SELECT node FROM session_admin.wait_for_nodes((SELECT max(id) FROM session_admin_internal.invalidation), '0') ORDER BY node COLLATE "C"}),
	"??\nn\nu", 'nor does the name of a node stop who waits for nodes');

# Notifications are ASCII, for whoever listens
my $emoji = "\xf0\x9f\x98\x80";
my $listen = 'LISTEN session_admin;';
my $begin = qr/Asynchronous notification "session_admin" with payload "/;
like(as('LATIN1', 'utf8', "$listen SELECT session_admin.open_session('j', U&'\\+01F600 \\65E5 \"\\\\ \\000B\\0085') \\g /dev/null
	SELECT session_admin.close_session('j')"),
	qr/$begin\{"id":\d+,"scope":"session","application":"wiki","user":"\\ud83d\\ude00 \\u65e5 \\"\\\\ \\u000b\\u0085","session":"[0-9a-f]{64}","reason":"logout"\}/,
	'a notification to a client in LATIN1');
like(as('UTF8', 'latin1', "$listen SELECT session_admin.invalidate_user('J\xc3\xb6rg')"),
	qr/$begin\{"id":\d+,"scope":"user","application":"wiki","user":"J\\u00f6rg","reason":"admin"\}/, 'of a database in LATIN1');
like(as('UTF8', 'sql_ascii', "$listen SELECT session_admin.open_session('k', 'J\xc3\xb6rg'); SELECT session_admin.close_session('k')"),
	qr/$begin\{"id":\d+,"scope":"session","application":"wiki","user":"J\\u00f6rg"/, 'of a database in SQL_ASCII, if it is UTF-8');
like(as('UTF8', 'sql_ascii', "$listen SELECT session_admin.invalidate_user(convert_from('\\x4af67267', 'SQL_ASCII'))"),
	qr/$begin\{"scope":"many","id":\d+\}/, 'and only a bell, if it is nothing');

$server->stop;
done_testing();
