# Notifications: what a client hears that has said LISTEN session_admin.
#
# They are a bell, not the truth: each says that the feed has something new, and
# what it is if that fits.  At most one is sent for a statement, whatever number
# of sessions it ended, and none for what is rolled back.

use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

$ENV{PGCLIENTENCODING} = 'UTF8';

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$node->append_conf('postgresql.conf', "session_admin.application = 'wiki'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION session_admin');

my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN session_admin');

# The payloads since the last call.  A notification is sent before COMMIT
# returns, and delivered to an idle session before its next answer.
sub heard
{
	my $output = $listener->query_safe('SELECT');
	return map { decode_json($_) }
		$output =~ /^Asynchronous notification "session_admin" with payload "(.*)" received/mg;
}

# Run it and check what is heard: each payload as a hash, without its id, which
# must be the id of the last row of the feed.
sub rings
{
	my ($name, $sql, @expected) = @_;
	my @got;

	$node->safe_psql('postgres', $sql);
	@got = heard();
	if (@got && $got[-1]{id})
	{
		is($got[-1]{id}, $node->safe_psql('postgres', 'SELECT max(id) FROM session_admin_internal.invalidation'),
			"$name: the id is that of the last row of the feed");
	}
	delete $_->{id} for @got;
	is_deeply(\@got, \@expected, $name) or diag(explain(\@got));
}

# As if these ids had never been used.
my $open = q{
	DELETE FROM session_admin_internal.ended_id;
	SELECT session_admin.open_session('alice 1', 'alice'), session_admin.open_session('alice 2', 'alice'),
		session_admin.open_session('bob 1', 'bob'), session_admin.open_session('visitor 1');
};
my $remember = q{
	INSERT INTO session_admin.remember_me_token
		(series, application, generation, user_name, validator_hash, created_at)
	SELECT s || i, name, generation, u, sha256('x'), now()
	FROM session_admin.application, generate_series(1, 2) i, (VALUES ('a', 'alice'), ('b', 'bob')) v (s, u)
	WHERE name = 'wiki';
};
my %alice = (application => 'wiki', user => 'alice');

# Those who only come and go are not told of: no cache is wrong because of them.
rings('opening sessions and touching them', "$open $remember"
	. q{ SELECT session_admin.touch_session('alice 1'); SELECT session_admin.touch_sessions(ARRAY['bob 1', 'x']);
		SELECT session_admin.login_failed('alice') });

# What each scope says
rings('invalidate_session', q{SELECT session_admin.invalidate_session(session_admin.session_ref('bob 1'))},
	{ scope => 'session', application => 'wiki', user => 'bob', session => sha256_hex('bob 1'), reason => 'admin' });
rings('of an anonymous session', q{SELECT session_admin.close_session('visitor 1')},
	{ scope => 'session', application => 'wiki', session => sha256_hex('visitor 1'), reason => 'logout' });
rings('renew_session: the old id', q{SELECT session_admin.renew_session('alice 1', 'alice 1b')},
	{ %alice, scope => 'session', session => sha256_hex('alice 1'), reason => 'renewed' });
rings('open_session with an id in use', q{SELECT session_admin.open_session('alice 1b', 'alice')},
	{ %alice, scope => 'session', session => sha256_hex('alice 1b'), reason => 'replaced' });
rings('invalidate_user, but one session',
	q{SELECT session_admin.invalidate_user('alice', 'alice 2', reason => 'password_changed')},
	{ %alice, scope => 'user', keep => sha256_hex('alice 2'), reason => 'password_changed' });
rings('invalidate_user', q{SELECT session_admin.invalidate_user('alice')},
	{ %alice, scope => 'user', reason => 'admin' });
rings('invalidate_application', q{SELECT session_admin.invalidate_application('custom:maintenance')},
	{ scope => 'application', application => 'wiki', reason => 'custom:maintenance' });
rings('invalidate_all', q{SELECT session_admin.invalidate_all()}, { scope => 'all', reason => 'admin' });
$node->safe_psql('postgres', "DELETE FROM session_admin.remember_me_token; $remember");
rings('a token that is revoked', q{DELETE FROM session_admin.remember_me_token WHERE series = 'b1'},
	{ scope => 'token', application => 'wiki', user => 'bob', reason => 'admin' });
rings('what has ended with everybody, when it is archived', 'SELECT * FROM session_admin.maintain()');
rings('TRUNCATE of sessions', "$open TRUNCATE session_admin.session", { scope => 'all', reason => 'admin' });
rings('TRUNCATE of tokens', 'TRUNCATE session_admin.remember_me_token', { scope => 'token', reason => 'admin' });

# One for each statement
rings('two sessions of one user', "$open DELETE FROM session_admin.session WHERE user_name = 'alice'",
	{ scope => 'many' });
rings('a user with several sessions and tokens', "$remember SELECT session_admin.invalidate_user('alice')",
	{ %alice, scope => 'user', reason => 'admin' });
rings('a statement that ends nothing', q{DELETE FROM session_admin.session WHERE user_name = 'nobody';
	SELECT session_admin.close_session('nobody'); SELECT session_admin.invalidate_sessions(user_name => 'nobody')});
rings('two statements', q{BEGIN; DELETE FROM session_admin.session WHERE user_name = 'bob';
	SELECT session_admin.invalidate_user('alice'); COMMIT},
	{ scope => 'session', application => 'wiki', user => 'bob', session => sha256_hex('bob 1'), reason => 'admin' },
	{ %alice, scope => 'user', reason => 'admin' });

$node->safe_psql('postgres', q{
	SELECT count(session_admin.open_session('crowd ' || i, 'crowd ' || i)) FROM generate_series(1, 10000) i;
});
rings('10,000 sessions of 10,000 users', q{SELECT session_admin.invalidate_sessions(opened_before => 'infinity')},
	{ scope => 'many' });
is($node->safe_psql('postgres', 'SELECT count(*) FROM session_admin.session'), '0', 'all of them have ended');

# More than fits: a payload has less than 8000 bytes.  No name that the functions
# accept is as long; a DBA's own row may be.
rings('a user name that does not fit', q{
	INSERT INTO session_admin.session (session_hash, application, generation, created_at, last_access_at, user_name)
	SELECT sha256('long'), name, generation, now(), now(), repeat('x', 8000)
	FROM session_admin.application WHERE name = 'wiki';
	DELETE FROM session_admin.session WHERE session_hash = sha256('long')},
	{ scope => 'many' });
my $odd = q!'"}' || chr(10) || '\{"' || chr(233)!;
rings('a user name that is no JSON by itself', "
	SELECT session_admin.open_session('odd', $odd);
	SELECT session_admin.invalidate_user($odd)",
	{ scope => 'user', application => 'wiki', user => qq("}\n\\{"\x{e9}), reason => 'admin' });

# Any role may listen: notify_detail = off tells it nothing.
rings('without details', qq{$open
	SET session_admin.notify_detail = off;
	SELECT session_admin.invalidate_user('alice');
	SELECT session_admin.close_session('bob 1');
	DELETE FROM session_admin.session;
	SELECT session_admin.invalidate_all()},
	({ scope => 'many' }) x 4);
$node->safe_psql('postgres', 'CREATE ROLE anybody LOGIN');
is($node->psql('postgres', 'SET session_admin.notify_detail = on', extra_params => [ '-U', 'anybody' ]), 3,
	'who may listen cannot turn them on');

# Rolled back
rings('a transaction that is rolled back', qq{$open
	BEGIN;
	SELECT session_admin.invalidate_user('alice');
	SELECT session_admin.invalidate_all();
	ROLLBACK});
rings('a savepoint that is rolled back', q{
	BEGIN;
	SAVEPOINT s;
	SELECT session_admin.invalidate_user('alice');
	ROLLBACK TO s;
	SELECT session_admin.close_session('bob 1');
	COMMIT},
	{ scope => 'session', application => 'wiki', user => 'bob', session => sha256_hex('bob 1'), reason => 'logout' });

$listener->quit;
$node->stop;
done_testing();
