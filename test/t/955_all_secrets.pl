# Secrets: after a run with every call, no session id, token or validator that was
# used is found in a dump, in the data directory or in the server log at default
# settings; nor is it shown by a view, an answer of the feed or a notification.
#
# What no extension can help: the server logs the text of statements that fail
# (log_min_error_statement), and all of them if log_statement says so.  A session
# id that is a literal in such a statement is in the log then.  Whoever wants it
# never to be gives it as a parameter, which is logged only if
# log_parameter_max_length_on_error (or log_statement) says so, or gives its
# SHA-256 instead.  The calls that fail are tried in these ways here.

use strict;
use warnings;

use Digest::SHA qw(sha256 sha256_hex);
use File::Find;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
# the defaults, which the tests' own configuration changes
$node->append_conf('postgresql.conf', q{
	log_statement = none
	log_replication_commands = off
	session_admin.application = 'jira'
	session_admin.touch_interval = 0
});
$node->start;
is($node->safe_psql('postgres', q{SELECT string_agg(name || '=' || setting, ' ') FROM pg_settings
	WHERE name IN ('log_statement', 'log_min_error_statement', 'log_min_messages', 'log_min_duration_statement',
		'log_parameter_max_length_on_error') AND setting <> boot_val}), '', 'the settings of the log are the defaults');
$node->safe_psql('postgres', 'CREATE EXTENSION session_admin');

# What must be found nowhere: name => secret
my %secrets;

sub secret
{
	my ($name) = @_;
	return $secrets{$name} = sha256_hex("$name $$ " . time . rand);
}

# A token is selector:validator; the selector is known as the series.
sub token
{
	my ($name, $token) = @_;
	my ($selector, $validator) = split /:/, $token;

	like($token, qr/^[0-9a-f]{32}:[0-9a-f]{64}$/, "$name is a token");
	$secrets{$name} = $token;
	$secrets{"the validator of $name"} = $validator;
	$secrets{"the bytes of the validator of $name"} = pack('H*', $validator);
	return $token;
}

# Run it with the secrets as literals.
sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# Run it with the secrets as parameters, which :name stands for.
sub bind_sql
{
	my ($query, %parameters) = @_;
	my $script = "$dir/script.sql";
	my @options = map { ('-D', "$_=$parameters{$_}") } sort keys %parameters;

	open my $file, '>', $script or die $!;
	print $file "$query;\n";
	close $file;
	return PostgreSQL::Test::Utils::run_log([ 'pgbench', '-n', '-c', '1', '-t', '1', '-M', 'extended', '-f', $script,
		@options, $node->connstr('postgres') ]);
}

my $listener = $node->background_psql('postgres');
my $heard = '';
$listener->query_safe('LISTEN session_admin');


# Every call that takes or gives a secret, and what works

my $alice = secret('the id of alice');
my $renewed = secret('the renewed id of alice');
my $bob = secret('the id of bob');
my $carol = secret('the id of carol');
my $short = $secrets{'a short id'} = '5ABE652343' . sprintf('%06X', rand 2**24);
my $visitor = secret('the id of a visitor');

sql(qq{
	SELECT session_admin.session_ref('$alice'), session_admin.log_id('$alice');
	SELECT session_admin.open_session('$alice', 'alice', '192.0.2.1', user_agent => 'Firefox');
	SELECT session_admin.open_session('$visitor'), session_admin.open_session('$short', 'alice');
	SELECT session_admin.touch_session('$alice'), session_admin.touch_sessions(ARRAY['$alice', '$visitor', 'x']);
	SELECT session_admin.renew_session('$alice', '$renewed');
	SELECT session_admin.open_session('$visitor', 'bob');
	SELECT session_admin.close_session('$visitor');
	SELECT session_admin.invalidate_user('alice', '$renewed');
});
ok(bind_sql('SELECT session_admin.open_session(:id, :user_name)', id => $bob, user_name => 'bob'),
	'with parameters');
ok(bind_sql('SELECT session_admin.touch_session(:id), session_admin.touch_sessions(ARRAY[:id])', id => $bob), 'with parameters');
ok(bind_sql('SELECT session_admin.close_session(:id)', id => $bob), 'with parameters');
sql(qq{SELECT session_admin.open_session(decode('} . sha256_hex($carol) . qq{', 'hex'), 'carol');
	SELECT session_admin.invalidate_user('carol', decode('} . sha256_hex($carol) . qq{', 'hex'))});
is(sql("SELECT session_admin.touch_session('$carol')"), 't', 'a session opened by its hash goes by its id');

# Remember-me: issued, redeemed, shown again within the grace, expired, stolen, revoked
my $token = token('a token', sql(q{SELECT session_admin.issue_remember_me('alice', 'laptop', 'Firefox')}));
my $second = token('the second token', sql("SELECT token FROM session_admin.redeem_remember_me('$token')"));
is(sql("SELECT token FROM session_admin.redeem_remember_me('$token')"), $second, 'within the grace');
my $third = token('the third token', sql("SELECT token FROM session_admin.redeem_remember_me('$second')"));
is(sql("SELECT outcome FROM session_admin.redeem_remember_me('$token')"), 'theft', 'a stolen token');
is(sql("SELECT outcome FROM session_admin.redeem_remember_me('$third')"), 'unknown', 'a revoked token');
my $phone = token('the token of the phone', sql(q{SELECT session_admin.issue_remember_me('bob', 'phone')}));
my $guess = token('a guess', substr($phone, 0, 33) . sha256_hex('guess' . rand));
ok(bind_sql('SELECT outcome FROM session_admin.redeem_remember_me(:token)', token => $guess), 'a guess');
ok(bind_sql('SELECT session_admin.revoke_remember_me(:token)', token => $phone), 'a whole token in the place of its series');
sql("SELECT session_admin.revoke_remember_me('" . substr($phone, 0, 32) . "')");
my $expired = token('an expired token', sql(q{SELECT session_admin.issue_remember_me('bob', 'tablet')}));
sql(q{UPDATE session_admin.remember_me_token SET created_at = created_at - interval '1 year'});
is(sql("SELECT outcome FROM session_admin.redeem_remember_me('$expired')"), 'expired', 'an expired token');
my $kept = token('a token that stays', sql(q{SELECT session_admin.issue_remember_me('carol', 'watch')}));
ok(bind_sql('SELECT outcome FROM session_admin.redeem_remember_me(:token)', token => $kept), 'redeemed as a parameter');

# session_admin.current_session, while the own password is changed on Jira's tables
my $own = secret('the id of dave, who changes the own password');
$node->psql('postgres', '', extra_params => [ '-q', '-f', 'test/products/jira.sql' ]);
sql(qq{
	INSERT INTO cwd_directory (id, directory_name, active) VALUES (1, 'internal', 1);
	INSERT INTO app_user VALUES (1, 'JIRAUSER1', 'dave');
	INSERT INTO cwd_user (id, directory_id, user_name, lower_user_name, active, credential)
	VALUES (1, 1, 'dave', 'dave', 1, 'old');
	SELECT session_admin.attach_application('jira');
	SELECT session_admin.open_session('$own', 'dave'), session_admin.open_session('another of dave', 'dave');
	SET session_admin.current_session = '$own';
	UPDATE cwd_user SET credential = 'new' WHERE id = 1;
});
is(sql("SELECT session_admin.touch_sessions(ARRAY['$own', 'another of dave'])"), '{"another of dave"}',
	'the current session is kept');
# by its SHA-256, which statements may show: in either case
foreach my $digits ('lower', 'upper')
{
	sql(qq{
		SELECT session_admin.open_session('another of dave, $digits', 'dave');
		SELECT $digits(encode(sha256('$own'), 'hex')) AS hash \\gset
		BEGIN; SET LOCAL session_admin.current_session = :'hash';
		UPDATE cwd_user SET credential = credential || 'er' WHERE id = 1; COMMIT;
	});
	is( sql("SELECT session_admin.touch_sessions(ARRAY['$own', 'another of dave, $digits'])"),
		qq({"another of dave, $digits"}), "the current session is kept, by its SHA-256 in $digits case");
}
unlike(sql("SET session_admin.current_session = '$own'; SHOW ALL"), qr/\Q$own/, 'SHOW ALL does not show it');


# Calls that fail, with the secret as a parameter or as its hash

my $long = 'x' x 64;
my %failing = (
	'an empty user name' => [ q{SELECT session_admin.open_session(:id, '')}, 'id' ],
	'too long a name' => [ qq{SELECT session_admin.open_session(:id, 'alice', application => '$long')}, 'id' ],
	'an address that is none' => [ q{SELECT session_admin.open_session(:id, 'alice', '1.2.3')}, 'id' ],
	'a null among the ids' => [ q{SELECT session_admin.touch_sessions(ARRAY[:id, NULL])}, 'id' ],
	'a count too many' => [ q{SELECT session_admin.touch_sessions(ARRAY[:id], ARRAY[1, 2])}, 'id' ],
	'an id where a hash is due' => [ q{SELECT session_admin.touch_session(:id::bytea)}, 'id' ],
	'an unknown session to renew' => [ q{SELECT session_admin.renew_session(:id, 'new')}, 'id' ],
	'the same id to renew' => [ q{SELECT session_admin.renew_session(:id, :id)}, 'id' ],
	'an id in use' => [ q{SELECT session_admin.renew_session(:id, :own)}, 'own' ],
	'an id where a session_ref is due' => [ q{SELECT session_admin.invalidate_session(:id)}, 'id' ],
	'a short id where a session_ref is due' => [ q{SELECT session_admin.invalidate_session(:short)}, 'short' ],
	'an id and an unknown user' => [ q{SELECT session_admin.invalidate_user('nobody', :id)}, 'id' ],
	'an id and an unknown reason' => [ q{SELECT session_admin.invalidate_user('carol', :id, reason => 'because')}, 'id' ],
	'a token and an unknown column' => [ q{SELECT nothing FROM session_admin.redeem_remember_me(:token)}, 'token' ],
	'a token, and then an error' => [ q{SELECT 1 / (length(outcome) - length(outcome)) FROM session_admin.redeem_remember_me(:token)}, 'token' ],
	'a token in the place of a user' => [ q{SELECT session_admin.issue_remember_me(:token, application => repeat('x', 64))}, 'token' ],
	'an id, and then an error' => [ q{SELECT 1 / (length(session_admin.close_session(:own)::text) - 4)}, 'own' ],
);
my $failed = secret('an id in a call that fails');
my %parameters = (id => $failed, own => $own, short => $short, token => $kept);
foreach my $name (sort keys %failing)
{
	my ($query) = @{ $failing{$name} };
	my %used = map { $_ => $parameters{$_} } grep { $query =~ /:$_\b/ } keys %parameters;

	ok(!bind_sql($query, %used), "fails: $name");
}
$node->psql('postgres', q{SELECT session_admin.renew_session(decode('} . sha256_hex($failed)
		. q{', 'hex'), sha256('x'))});
$node->psql('postgres', q{SELECT session_admin.open_session(decode('} . sha256_hex($failed) . q{', 'hex'), '')});

# What the functions run inside is logged only by those who ask for it, and its
# parameters are no secrets either.
my $nested = secret('an id whose nested statements are logged');
my $nested_token = secret('no token, whose nested statements are logged');
{
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_" } 'session_preload_libraries=auto_explain',
		'auto_explain.log_min_duration=0', 'auto_explain.log_nested_statements=on', 'auto_explain.log_verbose=on',
		'log_parameter_max_length_on_error=-1', "secret.id=$nested", "secret.token=" . substr($kept, 0, 33) . $nested_token;

	sql(q{
		SELECT session_admin.open_session(current_setting('secret.id'), 'erin');
		SELECT session_admin.touch_session(current_setting('secret.id'));
		SELECT session_admin.renew_session(current_setting('secret.id'), current_setting('secret.id') || '2');
		SELECT session_admin.invalidate_user('erin', current_setting('secret.id') || '2');
		SELECT outcome FROM session_admin.redeem_remember_me(current_setting('secret.token'));
		SELECT session_admin.close_session(current_setting('secret.id') || '2')});
	$node->psql('postgres', q{SELECT session_admin.open_session(current_setting('secret.id'), 'erin', application => repeat('x', 64))});
}
like(slurp_file($node->logfile), qr/Query Text: INSERT INTO session_admin\.session /, 'nested statements are in the log');


# The caveat: this is in the log, as a literal in a statement that failed.
my $literal = sha256_hex("literal $$ " . rand);
$node->psql('postgres', "SELECT session_admin.renew_session('$literal', 'new')");
like(slurp_file($node->logfile), qr/STATEMENT:.*$literal/, 'the server logs literals of statements that fail');


# The search

sub found_in
{
	my ($text) = @_;
	my %name_of = map { $secrets{$_} => $_ } keys %secrets;
	my $any = join '|', map { quotemeta } keys %name_of;
	my %found;

	$found{ $name_of{$1} }++ while $text =~ /($any)/g;
	return join ', ', sort keys %found;
}

sub slurp_raw
{
	my ($path) = @_;
	open my $file, '<:raw', $path or return '';
	local $/;
	return <$file> // '';
}

is(found_in("$literal $kept"), 'a token that stays', 'the search finds what there is');

# what people and nodes are shown
$heard .= $listener->query_safe('SELECT');
like($heard, qr/"scope":"session"/, 'there are notifications');
is(found_in($heard), '', 'no secret in a notification');
$listener->quit;
foreach my $view (split /\n/, sql(q{SELECT oid::regclass FROM pg_class
	WHERE relnamespace IN ('session_admin'::regnamespace, 'session_admin_internal'::regnamespace) AND relkind IN ('v', 'r', 'p') ORDER BY 1::text}))
{
	is(found_in(sql("SELECT * FROM $view")), '', "no secret in $view");
}
is(found_in(sql(q{SELECT * FROM session_admin.sync_node('n', session_admin.join_node('n'))})), '', 'none in the feed');

# a dump, the log, and every file of the server
$node->command_ok([ 'pg_dump', '-f', "$dir/dump.sql", $node->connstr('postgres') ], 'pg_dump');
my $dump = slurp_raw("$dir/dump.sql");
like($dump, qr/\\\\x@{[sha256_hex($own)]}/, 'the dump has the hashes');
is(found_in($dump), '', 'no secret in the dump');

sql('CHECKPOINT');
my (%found, $files, $hash);
find({
	no_chdir => 1,
	wanted => sub {
		return unless -f $_;
		my $content = slurp_raw($_);
		my $secret = found_in($content);

		$files++;
		$hash ||= index($content, sha256($own)) >= 0;
		$found{$_} = $secret if $secret;
	}
}, $node->data_dir);
cmp_ok($files, '>', 500, "$files files of the data directory were read");
ok($hash, 'the hashes are in them');
is_deeply(\%found, {}, 'no secret in the data directory') or diag(explain(\%found));

my $log = slurp_raw($node->logfile);
cmp_ok(scalar(() = $log =~ /ERROR: /g), '>=', scalar keys %failing, 'the log has the errors');
is(found_in($log), '', 'no secret in the log');

$node->stop;
is(found_in(slurp_raw($node->logfile)), '', 'nor when the server has stopped');
done_testing();
