# shellcheck shell=bash disable=SC2154
#
# A request of an application that keeps its sessions in a table of its own and writes
# their row on each: in a table that is watched, against one that is not.

make_spring() { # SCHEMA
	{
		echo "CREATE SCHEMA $1; SET search_path = $1;"
		cat "$tree/test/products/spring_session.sql"
		cat <<-SQL
			SELECT 1000 * extract(epoch FROM now())::bigint AS now \\gset
			INSERT INTO spring_session
			SELECT n, n, :now, :now, 1800, :now + 1800000, 'user' || n FROM generate_series(1, $watched_rows) n;
			VACUUM ANALYZE spring_session;
		SQL
	} | as_user psql -X -q -v ON_ERROR_STOP=1 -d request
}

measure_request() { # SCHEMA ROUND
	record "request_$1" "$watched_rows" "$clients" "$2" "$(PGOPTIONS="-c search_path=$1" \
		per_second request request "$watched_rows" "$clients" -T "$seconds")" requests/s
}

part_request() {
	local clients schema

	fill request 1000
	make_spring unwatched
	make_spring watched
	as_user psql -X -q -d request -o /dev/null \
		-c "SELECT count(*) FROM session_admin.attach_application('spring_session', 'watched')" \
		-c "SET client_min_messages = warning" -c "CALL session_admin.backfill_sessions()"
	# so that all sessions are in the shared table
	for schema in unwatched watched; do
		sql request "UPDATE $schema.spring_session SET expiry_time = expiry_time" >/dev/null
		sql request "VACUUM $schema.spring_session" >/dev/null
	done
	for clients in "${clients_list[@]}"; do
		echo "request, $clients clients"
		take_turns measure_request unwatched watched
	done
	discard request
}
