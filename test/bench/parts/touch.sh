# shellcheck shell=bash disable=SC2154
#
# One request of one session: what it costs to ask whether the session is valid and
# to count the request.

# For bench.hash(), and so that all sessions are in the shared table.
prepare_touch() {
	local invalid

	sql "$database" "SELECT encode(session_hash, 'hex') FROM session_admin.session" |
		perl -ne 'chomp; print pack "H*", $_' >"$work/session_hashes"
	chmod a+r "$work/session_hashes"
	as_user cp "$work/session_hashes" "$work/data/"
	invalid=$(sql "$database" 'SELECT count(*) FILTER (WHERE NOT
		session_admin.touch_session(session_hash)) FROM session_admin.session')
	[[ $invalid -eq 0 ]] || die "$invalid sessions are not valid"
	[[ -z ${redis:-} ]] || redis_per_second 4 $((sessions * 5)) -P 100 >/dev/null
}

redis_per_second() { # CLIENTS REQUESTS [redis-benchmark's options…]
	as_user redis-benchmark -s "$redis" -c "$1" -n "$2" -r "$sessions" --csv "${@:3}" \
		HINCRBY session:__rand_int__ requests 1 | sed -n '2s/^"[^"]*","\([0-9.]*\)".*/\1/p'
}

# It counts requests, not seconds.
redis_for_seconds() { # CLIENTS
	local rate

	rate=$(redis_per_second "$1" 20000)
	redis_per_second "$1" $((${rate%.*} * seconds))
}

# Requests a second, with settings for this connection.
touches_with() { # SETTINGS SCRIPT
	PGOPTIONS=$1 per_second "$database" "$2" "$sessions" "$clients" -T "$seconds"
}

measure_touch() { # NAME ROUND
	local not_preloaded='-c session_admin.use_shared_memory=off' value

	case $1 in
		# the next write is a day away, or at each touch
		touch_plain)
			value=$(touches_with "$not_preloaded -c session_admin.touch_interval=1d" touch) ;;
		touch_plain_write)
			value=$(touches_with "$not_preloaded -c session_admin.touch_interval=0" touch) ;;
		update_async)
			value=$(touches_with '-c synchronous_commit=off' update) ;;
		redis)
			value=$(redis_for_seconds "$clients") ;;
		*)
			value=$(touches_with '' "$1") ;;
	esac
	record "$1" "$sessions" "$clients" "$2" "$value" requests/s
}

part_touch() {
	local clients
	local -a names=(empty touch touch_bytea touch_plain touch_plain_write select update update_async spring)

	[[ -z ${redis:-} ]] || names+=(redis)
	for clients in "${clients_list[@]}"; do
		echo "touch, $clients clients"
		take_turns measure_touch "${names[@]}"
	done
}
