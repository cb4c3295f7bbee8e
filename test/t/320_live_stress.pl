# Many at once open, touch, end and do not end sessions, and each answer is checked
# against the order of commits.
#
# Each client has an application of its own, whose sessions it alone opens and ends.
# Before it ends a session, it commits that it is going to (table alive); in the
# transaction that ends it, it says so (table ended).  So whoever reads that a
# session has ended must be told "not valid" from then on; and who reads before and
# after a touch that it is alive must have been told "valid".  The sessions of one
# more application never end, however often that is tried: each touch of them is
# counted.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $clients = 8;
my $seconds = 8;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
session_admin.worker = on
session_admin.flush_interval = 1s
));
$node->start;

$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION session_admin;
CREATE TABLE alive (application text, id text);
CREATE TABLE ended (application text, id text);
CREATE TABLE touched (id text, requests bigint);
CREATE TABLE checks (kind text, passed bigint, failed bigint);

SELECT session_admin.open_session('eternal ' || n, 'eternal ' || n, application => 'eternal')
FROM generate_series(1, 20) n;

-- the many ways to end one of a client's sessions, or all of them
CREATE FUNCTION end_sessions(client text, one text) RETURNS SETOF text LANGUAGE plpgsql AS
$$
BEGIN
	CASE floor(random() * 7)
		WHEN 0 THEN PERFORM session_admin.close_session(one, client);
		WHEN 1 THEN PERFORM session_admin.invalidate_user(one, application => client);
		WHEN 2 THEN DELETE FROM session_admin.session WHERE application = client AND user_name = one;
		WHEN 3 THEN PERFORM session_admin.invalidate_sessions(user_name => one, application => client);
		WHEN 4 THEN PERFORM session_admin.renew_session(one, one || ' renewed', client);
		WHEN 5 THEN UPDATE session_admin.session SET created_at = created_at - interval '1 year'
			WHERE application = client AND user_name = one;
		ELSE
			PERFORM session_admin.invalidate_application(application => client);
			RETURN QUERY SELECT id FROM alive_before WHERE id <> one;
	END CASE;
	RETURN NEXT one;
END
$$;

-- the same, which comes to nothing
CREATE FUNCTION try_to_end(client text, one text) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
	PERFORM end_sessions(client, one);
	RAISE EXCEPTION 'never mind';
EXCEPTION WHEN raise_exception THEN
	NULL;
END
$$;

CREATE PROCEDURE stress(client text, until timestamptz) LANGUAGE plpgsql AS
$$
DECLARE
	n bigint := 0;
	one text;
	asked record;
	answer bool;
	still bool;
	passed bigint[] := '{0,0}';
	failed bigint[] := '{0,0}';
BEGIN
	CREATE TEMP TABLE alive_before (id text);
	COMMIT;
	WHILE clock_timestamp() < until LOOP
		n := n + 1;

		-- open one; its own transaction touches it, too
		PERFORM session_admin.open_session(client || ' ' || n, client || ' ' || n, application => client);
		INSERT INTO alive VALUES (client, client || ' ' || n);
		PERFORM session_admin.touch_session(client || ' ' || n, client);
		IF random() < 0.1 THEN
			ROLLBACK;
		END IF;
		COMMIT;

		-- end one, or all
		IF random() < 0.5 THEN
			SELECT id INTO one FROM alive WHERE application = client ORDER BY random() LIMIT 1;
			CONTINUE WHEN one IS NULL;
			IF random() < 0.5 THEN
				PERFORM try_to_end(client, one);
				IF random() < 0.5 THEN
					ROLLBACK;
				END IF;
				COMMIT;
			ELSE
				TRUNCATE alive_before;
				INSERT INTO alive_before SELECT id FROM alive WHERE application = client;
				DELETE FROM alive WHERE application = client;
				COMMIT;
				INSERT INTO ended SELECT client, end_sessions(client, one);
				COMMIT;
				-- those that have not ended
				INSERT INTO alive SELECT client, b.id FROM alive_before b
				WHERE NOT EXISTS (SELECT FROM ended e WHERE e.id = b.id);
				COMMIT;
			END IF;
		END IF;

		-- what anybody has ended
		PERFORM set_config('default_transaction_isolation',
			CASE WHEN random() < 0.5 THEN 'repeatable read' ELSE 'read committed' END, false);
		COMMIT;
		FOR asked IN SELECT * FROM (SELECT * FROM ended OFFSET greatest(0, (SELECT count(*) FROM ended)
				- 20)) e LOOP
			answer := session_admin.touch_session(asked.id, asked.application);
			IF answer THEN
				failed[1] := failed[1] + 1;
			ELSE
				passed[1] := passed[1] + 1;
			END IF;
		END LOOP;
		RESET default_transaction_isolation;
		COMMIT;

		-- what is alive before and after it was asked for
		FOR asked IN SELECT * FROM alive ORDER BY random() LIMIT 10 LOOP
			answer := cardinality(session_admin.touch_sessions(ARRAY[asked.id], application => asked.application)) = 0;
			still := EXISTS (SELECT FROM alive WHERE id = asked.id);
			IF still AND NOT answer THEN
				failed[2] := failed[2] + 1;
			ELSIF still THEN
				passed[2] := passed[2] + 1;
			END IF;
		END LOOP;
		COMMIT;

		-- what never ends, and is counted
		one := 'eternal ' || 1 + floor(random() * 20);
		INSERT INTO touched SELECT one, 1 WHERE session_admin.touch_session(one, 'eternal');
		COMMIT;
		IF random() < 0.2 THEN
			PERFORM try_to_end('eternal', one);
			COMMIT;
		ELSIF random() < 0.1 THEN
			UPDATE session_admin.session SET device = client WHERE session_hash = sha256(one::bytea);
			COMMIT;
		END IF;
	END LOOP;

	INSERT INTO checks VALUES ('ended', passed[1], failed[1]), ('alive', passed[2], failed[2]);
END
$$;
SQL

my @processes = map {
	IPC::Run::start([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			'-c', "CALL stress('client $_', clock_timestamp() + '$seconds seconds')" ])
} 1 .. $clients;

# meanwhile touches are written to their rows and sessions archived, by the worker
# and by hand
until ($node->safe_psql('postgres', 'SELECT count(*) FROM checks') == 2 * $clients
	|| !grep { $_->pumpable } @processes)
{
	$node->safe_psql('postgres', 'SET client_min_messages = warning; SELECT FROM session_admin.maintain()');
}
ok($_->finish, 'a client came to its end') foreach @processes;

sub sql { return $node->safe_psql('postgres', $_[0]); }
my %kinds = (ended => 'that had ended', alive => 'that were alive');
foreach my $kind (sort keys %kinds)
{
	my $checks = sql("SELECT sum(passed + failed) FROM checks WHERE kind = '$kind'");

	cmp_ok($checks, '>', 0, "$checks touches of sessions $kinds{$kind}");
	is(sql("SELECT sum(failed) FROM checks WHERE kind = '$kind'"), '0', "none was wrong, of those $kinds{$kind}");
}
my $touches = sql('SELECT sum(requests) FROM touched');
is( sql(q{SELECT count(*) FROM session_admin_internal.session_state s
	LEFT JOIN (SELECT id, sum(requests) AS n FROM touched GROUP BY id) t ON s.user_name = t.id
	WHERE s.application = 'eternal' AND s.requests <> coalesce(t.n, 0)}),
	'0', "$touches touches of sessions that did not end: each is counted once");
is(sql("SELECT count(*) FROM session_admin_internal.session_state WHERE application = 'eternal' AND ended_at IS NULL"),
	'20', 'and none has ended');

$node->stop;
done_testing();
