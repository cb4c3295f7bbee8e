# The fast-path protocol calls a function by its OID, with no expression around it:
# each answers as in a query, or with a clear error.

use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'session_admin'");
$node->start;

sub sql
{
	return $node->safe_psql('postgres', @_);
}

sql('CREATE EXTENSION session_admin');

my $socket = IO::Socket::UNIX->new($node->host . '/.s.PGSQL.' . $node->port) or die "could not connect: $!";

# One message of the server: its type and what is in it.
sub receive
{
	my ($head, $body) = ('', '');

	read($socket, $head, 5) == 5 or die 'the server has closed the connection';
	my ($type, $length) = unpack 'aN', $head;
	read($socket, $body, $length - 4) == $length - 4 or die 'the server has closed the connection';
	return ($type, $body);
}

# All until it is ready for the next call: a result as text, or "SQLSTATE message".
sub answer
{
	my $answer;

	while (1)
	{
		my ($type, $body) = receive();

		return $answer if $type eq 'Z';
		if ($type eq 'V')
		{
			my $length = unpack 'N', $body;
			$answer = $length == 0xFFFFFFFF ? undef : substr $body, 4;
		}
		elsif ($type eq 'E')
		{
			my %field = map { substr($_, 0, 1) => substr($_, 1) } split /\0/, $body;
			$answer = "$field{C} $field{M}";
		}
	}
}

# Call a function with these arguments, in their text format.
sub call
{
	my ($signature, @arguments) = @_;
	my $oid = $signature =~ /^\d+$/ ? $signature : sql("SELECT 'session_admin.$signature'::regprocedure::oid");
	my $body = pack('Nnn', $oid, 0, scalar @arguments)
	  . join('', map { defined $_ ? pack('N/a*', $_) : pack('N', 0xFFFFFFFF) } @arguments) . pack('n', 0);

	print $socket 'F' . pack('N', 4 + length $body) . $body;
	$socket->flush;
	return answer();
}

my $startup = pack('N', 196608) . "user\0" . getpwuid($<) . "\0database\0postgres\0\0";
print $socket pack('N', 4 + length $startup) . $startup;
$socket->flush;
answer();


# A session id as text, and by its SHA-256
my $hash = '\x' . sha256_hex('by hash');
my @open = ('alice', '192.0.2.1', undef, 'Firefox', undef, undef, 'password', undef);
is(call('open_session(text,text,inet,text,text,text,text,text,text)', 'by text', @open),
	substr(sha256_hex('by text'), 0, 12), 'a session is opened');
is(call('open_session(bytea,text,inet,text,text,text,text,text,text)', $hash, @open),
	substr(sha256_hex('by hash'), 0, 12), 'and one by the hash of its id');
is(sql("SELECT session_admin.touch_sessions(ARRAY['by text', 'by hash', 'none'])"), '{none}', 'both are live');
is(call('touch_session(text,text)', 'by text', undef), 't', 'touched by its id');
is(call('touch_session(bytea,text)', $hash, undef), 't', 'touched by its hash');
is(call('touch_sessions(bytea[],bigint[],text)', "{\"\\$hash\"}", undef, undef), '{}', 'in an array');
like(call('touch_session(bytea,text)', 'by text', undef), qr/^22023 hash of session id must have 32 bytes/, 'an id is no hash');
like(call('invalidate_user(text,bytea,boolean,text,text)', 'alice', $hash, 'f', 'admin', undef), qr/^\(\d+,1,0\)$/,
	'a row is the result, and the session of that hash goes on');
is(call('close_session(bytea,text)', $hash, undef), 't', 'it is closed');


# Every function, with nulls and with one value for each type
my %value = (
	'text' => 'x', 'bytea' => '\x00', 'text[]' => '{x}', 'bytea[]' => '{x}', 'bigint[]' => '{1}', 'cidr[]' => '{10.0.0.0/8}',
	'inet' => '10.0.0.1', 'cidr' => '10.0.0.0/8', 'interval' => '1 hour', 'timestamp with time zone' => '2026-01-01',
	'boolean' => 't', 'integer' => '1', 'bigint' => '1', 'oid' => '25', 'jsonb' => '{}', 'pg_snapshot' => '1:1:', 'regrole' => '10');
my @functions = split /\n/, sql(q{
	SELECT p.oid || '|' || p.oid::regprocedure || '|' || concat_ws('|', VARIADIC ARRAY(
		SELECT format_type(type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS t (type, n) ORDER BY n))
	FROM pg_proc p
	WHERE pronamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace) AND prorettype <> 'trigger'::regtype ORDER BY 1});
cmp_ok(scalar @functions, '>', 50, 'there are functions');
foreach (@functions)
{
	my ($oid, $name, @types) = split /\|/;
	my @answers = (call($oid, (undef) x @types), call($oid, map { $value{$_} // die "no value for $_" } @types));

	is_deeply([ grep { ($_ // '') =~ /^(XX|58)/ } @answers ], [], $name);
}

$node->stop;
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC/, 'no backend has crashed');
done_testing();
