# Remember-me tokens: what random histories lead to, compared with a model that
# knows nothing of hashes; many browsers' tabs that show one token at once; and
# crashes.
#
# SESSION_ADMIN_OPERATIONS and SESSION_ADMIN_ROUNDS set how many of each.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $operations = $ENV{SESSION_ADMIN_OPERATIONS} || 20_000;
my $rounds = $ENV{SESSION_ADMIN_ROUNDS} || 200;
my $seed = $ENV{SESSION_ADMIN_SEED} || 20261122;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', 'max_connections = 40');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION session_admin');

# Part 1: random histories

# Time passes in steps of 20 minutes, forwards and backwards, and limits lie
# between the steps: how long the test itself takes makes no difference.
my $step = 20;
my $grace = 50;
my $lifetime = 10 * 24 * 60 + 10;

$node->safe_psql('postgres', qq{
	SET session_admin.application = 'model';
	SELECT session_admin.set_policy('remember_me_grace', '$grace minutes');
	SELECT session_admin.set_policy('remember_me_lifetime', '$lifetime minutes');

	CREATE TABLE operation (id int PRIMARY KEY, world int, kind text, who text, token int, minutes int);
	CREATE TABLE result (id int PRIMARY KEY, line text);

	-- Tokens go by the number of their first appearance in their world.
	CREATE PROCEDURE play() LANGUAGE plpgsql AS \$\$
	DECLARE
		o operation;
		r record;
		in_world int := 0;
		tokens text[];
		token_no int;
		answer text;
		series_name text;
	BEGIN
		FOR o IN SELECT * FROM operation ORDER BY id LOOP
			IF o.world <> in_world THEN
				in_world := o.world;
				tokens := '{}';
			END IF;
			r := (NULL::text, NULL::text, NULL::text);
			SELECT NULL::text AS outcome, NULL::text AS user_name, NULL::text AS token INTO r;
			series_name := split_part(tokens[o.token], ':', 1);
			CASE o.kind
			WHEN 'issue' THEN
				r.token := session_admin.issue_remember_me(o.who);
			WHEN 'redeem' THEN
				SELECT * FROM session_admin.redeem_remember_me(tokens[o.token]) INTO r;
			WHEN 'redeem and roll back' THEN
				BEGIN
					SELECT * FROM session_admin.redeem_remember_me(tokens[o.token]) INTO r;
					RAISE SQLSTATE 'P0099';
				EXCEPTION WHEN SQLSTATE 'P0099' THEN
					NULL;
				END;
			WHEN 'guess' THEN
				SELECT * FROM session_admin.redeem_remember_me(series_name || ':' ||
					encode(sha256(tokens[o.token]::bytea), 'hex')) INTO r;
			WHEN 'open' THEN
				r.outcome := session_admin.open_session(o.id::text, o.who) IS NOT NULL;
			WHEN 'revoke' THEN
				r.outcome := session_admin.revoke_remember_me(series_name);
			WHEN 'invalidate' THEN
				r.outcome := tokens_revoked FROM session_admin.invalidate_user(o.who);
			WHEN 'invalidate sessions' THEN
				r.outcome := tokens_revoked
					FROM session_admin.invalidate_user(o.who, keep_remember_me => true);
			WHEN 'pass' THEN
				UPDATE session_admin.remember_me_token t
				SET created_at = created_at - make_interval(mins => o.minutes),
					rotated_at = rotated_at - make_interval(mins => o.minutes)
				WHERE application = 'model' AND user_name IN ('alice ' || o.world, 'bob ' || o.world);
			END CASE;
			token_no := array_position(tokens, r.token);
			IF token_no IS NULL AND r.token IS NOT NULL THEN
				tokens := tokens || r.token;
				token_no := cardinality(tokens);
			END IF;
			-- What is left of the two users of this world
			SELECT string_agg(format('%s %s',
				(SELECT count(*) FROM session_admin.session s
				 WHERE s.application = 'model' AND s.user_name = u),
				(SELECT count(*) FROM session_admin.remember_me_token t
				 WHERE t.application = 'model' AND t.user_name = u)),
				' ' ORDER BY u)
			FROM unnest(ARRAY['alice ' || o.world, 'bob ' || o.world]) u INTO answer;
			INSERT INTO result VALUES (o.id, format('%s %s [%s] [%s] [%s] -> [%s] [%s] [%s] %s', o.id,
				o.kind, o.who, o.token, o.minutes, r.outcome, r.user_name, token_no, answer));
			COMMIT;
		END LOOP;
	END
	\$\$;
});

# The model: a series is a line of token numbers.
my ($world, $now, $tokens, @series, %series_of, %sessions);

sub new_world
{
	$world++;
	$now = 0;
	$tokens = 0;
	@series = ();
	%series_of = ();
	%sessions = ("alice $world" => 0, "bob $world" => 0);
}

sub issue
{
	my ($who) = @_;
	my $series = { who => $who, line => [ ++$tokens ], created => $now, held => $tokens };
	push @series, $series;
	$series_of{$tokens} = $series;
	return ('', '', $tokens);
}

sub redeem
{
	my ($token, $rolled_back) = @_;
	my $series = $series_of{$token};
	my @line = @{ $series->{line} };
	my ($age) = grep { $line[ -1 - $_ ] == $token } 0 .. $#line;

	return ('unknown', '', '') if $series->{ended} || !defined $age;
	return ('expired', $series->{who}, '') if $now - $series->{created} > $lifetime;
	if ($age == 0)
	{
		$tokens++;
		$series_of{$tokens} = $series;
		unless ($rolled_back)
		{
			push @{ $series->{line} }, $tokens;
			$series->{rotated} = $now;
		}
		return ('accepted', $series->{who}, $tokens);
	}
	return ('accepted', $series->{who}, $line[-1])
		if $age == 1 && $now - $series->{rotated} <= $grace;
	unless ($rolled_back)
	{
		$series->{ended} = 1;
		$sessions{ $series->{who} } = 0;
	}
	return ('theft', $series->{who}, '');
}

sub invalidate
{
	my ($who, $keep) = @_;
	my @of_user = grep { $_->{who} eq $who && !$_->{ended} } @series;

	$sessions{$who} = 0;
	return ('0', '', '') if $keep;
	$_->{ended} = 1 foreach @of_user;
	# those that had expired are not counted
	return (scalar(grep { $now - $_->{created} <= $lifetime } @of_user), '', '');
}

sub revoke
{
	my ($series) = @_;
	my $was = !$series->{ended};

	$series->{ended} = 1;
	return ($was ? 'true' : 'false', '', '');
}

srand($seed);
note "seed $seed";

sub pick { return $_[ int rand @_ ]; }

my (@script, @expected, %seen);
foreach my $id (1 .. $operations)
{
	new_world() if $id % 100 == 1;

	my @users = ("alice $world", "bob $world");
	my $dice = int rand 100;
	my ($kind, $who, $token, $minutes, @answer) = ('', '', '', '');
	my @live = grep { !$_->{ended} } @series;
	# mostly what lives, sometimes what has ended
	my $series = @live && rand() < 0.9 ? pick(@live) : pick(@series);
	my @line = $series ? @{ $series->{line} } : ();

	if (!@series || (@live < 4 && $dice < 20) || $dice < 2)
	{
		($kind, $who) = ('issue', pick(@users));
		@answer = issue($who);
	}
	elsif ($dice < 55)
	{
		# a browser that shows what it has, and does not get every answer
		($kind, $token) = ('redeem', $series->{held});
		@answer = redeem($token);
		$series->{held} = $answer[2] if $answer[2] && rand() < 0.8;
	}
	elsif ($dice < 65)
	{
		# a tab that is late
		($kind, $token) = ('redeem', $line[-2] || $line[-1]);
		@answer = redeem($token);
	}
	elsif ($dice < 67)
	{
		# whoever found an old one, or one that has not been committed
		($kind, $token) = ('redeem', 1 + int rand $tokens);
		@answer = redeem($token);
	}
	elsif ($dice < 71)
	{
		($kind, $token) = ('redeem and roll back', pick(@line));
		@answer = redeem($token, 1);
	}
	elsif ($dice < 75)
	{
		($kind, $token) = ('guess', $line[-1]);
		@answer = ('unknown', '', '');
	}
	elsif ($dice < 85)
	{
		($kind, $who) = ('open', pick(@users));
		$sessions{$who}++;
		@answer = ('true', '', '');
	}
	elsif ($dice < 86)
	{
		($kind, $token) = ('revoke', $line[-1]);
		@answer = revoke($series);
	}
	elsif ($dice < 87)
	{
		my $keep = rand() < 0.5;
		($kind, $who) = ($keep ? 'invalidate sessions' : 'invalidate', $series->{who});
		@answer = invalidate($who, $keep);
	}
	else
	{
		($kind, $minutes) = ('pass', $step * pick(1, 1, 1, 1, 2, 2, 3, 100, 300, -1, -1, -200));
		$now += $minutes;
		@answer = ('', '', '');
	}

	my @left = map {
		my $user = $_;
		($sessions{$user}, scalar grep { $_->{who} eq $user && !$_->{ended} } @series)
	} @users;
	$seen{ $answer[0] =~ /^[a-z]{5,}$/ && $answer[1] ne '' || $answer[0] eq 'unknown' ? $answer[0] : $kind }++;
	push @script, join("\t", $id, $world, $kind, map { $_ eq '' ? '\N' : $_ } $who, $token, $minutes);
	push @expected,
	  sprintf('%s %s [%s] [%s] [%s] -> [%s] [%s] [%s] %s', $id, $kind, $who, $token, $minutes,
		@answer, join(' ', @left));
}
note join(', ', map { "$_ $seen{$_}" } sort keys %seen);
cmp_ok($seen{$_}, '>', $operations / 1000, "the histories lead to \"$_\" often enough")
  foreach qw(accepted unknown expired theft);

my $script = $node->basedir . '/operations';
append_to_file($script, join("\n", @script, ''));
$node->safe_psql('postgres', "COPY operation FROM '$script'");
my $began = time;
$node->safe_psql('postgres', q{SET session_admin.application = 'model'; CALL play()});
note "$operations operations took " . (time - $began) . ' s';

my @result = split /\n/, $node->safe_psql('postgres', 'SELECT line FROM result ORDER BY id');
my @different = grep { ($result[$_] // 'nothing') ne $expected[$_] } 0 .. $#expected;
is(scalar @result, $operations, 'every operation has a result');
is(scalar @different, 0, 'no result differs from what the model says');
diag "expected: $expected[$_]\nfound:    " . ($result[$_] // 'nothing')
  foreach splice @different, 0, 5;

is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM session_admin_internal.login_event
		WHERE application = 'model' AND event = 'token_theft'}),
	scalar(grep { / redeem \[.*\[theft\]/ } @expected),
	'one event for each theft that was committed');
is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM session_admin_internal.invalidation
		WHERE application = 'model' AND reason = 'token_theft' AND scope = 'user'}),
	scalar(grep { / redeem \[.*\[theft\]/ } @expected),
	'and one line in the feed');
is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM session_admin_internal.remember_me_ancestor a
		WHERE NOT EXISTS (SELECT FROM session_admin.remember_me_token t
			WHERE t.series = a.series AND t.application = a.application)}),
	'0',
	'nothing is left of the series that ended');

# Part 2: twenty tabs that show one token at once

# In each round all tabs wait for one advisory lock, "go", which the umpire
# gives up; each holds another, "done", until it has its answer.
my $tabs = 20;
$node->safe_psql('postgres', qq{
	CREATE TABLE cookie (token text);
	CREATE TABLE answer (round int, tab int, outcome text, token text, PRIMARY KEY (round, tab));

	CREATE PROCEDURE tab(tab int, rounds int) LANGUAGE plpgsql AS \$\$
	DECLARE
		shown text;
	BEGIN
		IF tab % 2 = 1 THEN
			SET default_transaction_isolation = 'repeatable read';
			COMMIT;
		END IF;
		PERFORM pg_advisory_lock_shared(2, 1);
		WHILE NOT EXISTS (SELECT FROM cookie) LOOP
			COMMIT;
			PERFORM pg_sleep(0.01);
		END LOOP;
		FOR round IN 1 .. rounds LOOP
			PERFORM pg_advisory_lock_shared(1, round);
			PERFORM pg_advisory_unlock_shared(1, round);
			COMMIT;
			SELECT token FROM cookie INTO shown;
			INSERT INTO answer SELECT round, tab, outcome, token
			FROM session_admin.redeem_remember_me(shown, application => 'tabs');
			COMMIT;
			PERFORM pg_advisory_lock_shared(2, round + 1);
			PERFORM pg_advisory_unlock_shared(2, round);
		END LOOP;
	END
	\$\$;

	CREATE PROCEDURE umpire(rounds int) LANGUAGE plpgsql AS \$\$
	BEGIN
		PERFORM pg_advisory_lock(1, 1);
		INSERT INTO cookie SELECT session_admin.issue_remember_me('alice', application => 'tabs');
		COMMIT;
		WHILE (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
			   AND classid = 2 AND objid = 1 AND granted) < $tabs LOOP
			COMMIT;
			PERFORM pg_sleep(0.01);
		END LOOP;
		FOR this_round IN 1 .. rounds LOOP
			PERFORM pg_advisory_lock(1, this_round + 1);
			PERFORM pg_advisory_unlock(1, this_round);
			PERFORM pg_advisory_lock(2, this_round);
			PERFORM pg_advisory_unlock(2, this_round);
			COMMIT;
			UPDATE cookie SET token = (SELECT token FROM answer a
									   WHERE (a.round, a.tab) = (this_round, 0));
			COMMIT;
		END LOOP;
		PERFORM pg_advisory_unlock_all();
	END
	\$\$;
});

$began = time;
$node->pgbench(
	'--client=' . ($tabs + 1) . ' --jobs=2 --transactions=1 --no-vacuum',
	0,
	[qr/actually processed: @{[$tabs + 1]}\/@{[$tabs + 1]}/],
	[qr/^(?!.*(?:ERROR|aborted))/s],
	"$tabs tabs and an umpire play $rounds rounds",
	{
		'tabs' => qq{
\\if :client_id = $tabs
CALL umpire($rounds);
\\else
CALL tab(:client_id, $rounds);
\\endif
}
	});
note "$rounds rounds of $tabs redemptions took " . (time - $began) . ' s';

is( $node->safe_psql('postgres', qq{
		SELECT count(*) FROM (
			SELECT FROM answer GROUP BY round
			HAVING count(*) = $tabs AND count(DISTINCT token) = 1 AND bool_and(outcome = 'accepted')) r}),
	$rounds,
	'all tabs were given the same token in every round');
is( $node->safe_psql('postgres', q{
		SELECT (SELECT count(*) FROM session_admin.remember_me_token WHERE application = 'tabs'),
			(SELECT count(*) FROM session_admin_internal.remember_me_ancestor WHERE application = 'tabs'),
			(SELECT count(*) FROM session_admin_internal.invalidation WHERE application = 'tabs'),
			(SELECT count(*) FROM session_admin_internal.login_event
			 WHERE application = 'tabs' AND event = 'token_theft')}),
	join('|', 1, $rounds - 1, 0, 0),
	'one line of descent, and no theft');

# Part 3: what was answered outlives a crash, even where commits are not waited for

$node->append_conf('postgresql.conf', "synchronous_commit = off\nwal_writer_delay = 10s");
$node->restart;

sub redeem_and_crash
{
	my ($token) = @_;
	my $answer = $node->safe_psql('postgres',
		"SELECT outcome, token FROM session_admin.redeem_remember_me('$token', application => 'crash')");

	$node->stop('immediate');
	$node->start;
	return split /\|/, $answer;
}

my $first = $node->safe_psql('postgres',
	"SELECT session_admin.issue_remember_me('alice', application => 'crash')");
my ($outcome, $second) = redeem_and_crash($first);
is($outcome, 'accepted', 'a token is redeemed, and the server crashes');
($outcome) = redeem_and_crash($second);
is($outcome, 'accepted', 'the token that replaced it is known after the crash');
($outcome) = redeem_and_crash($first);
is($outcome, 'theft', 'and so is that the first was replaced twice');
is( $node->safe_psql('postgres', q{
		SELECT (SELECT count(*) FROM session_admin.remember_me_token WHERE application = 'crash'),
			(SELECT count(*) FROM session_admin_internal.invalidation WHERE application = 'crash')}),
	'0|1',
	'a theft outlives a crash');

$node->stop;
done_testing();
