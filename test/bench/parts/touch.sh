# shellcheck shell=bash disable=SC2154
#
# One request of one session: what it costs to ask whether the session is valid and
# to count the request.

# For bench.hash(), and so that all sessions are in the live table.
prepare_touch() {
	local server invalid

	for server in "${!ports[@]}"; do
		sql "$server" "$database" 'SELECT encode(session_hash, $$hex$$) FROM session_admin.session' |
			perl -ne 'chomp; print pack "H*", $_' >"$work/session_hashes"
		chmod a+r "$work/session_hashes"
		as_user cp "$work/session_hashes" "$work/$server/"
		invalid=$(sql "$server" "$database" 'SELECT count(*) FILTER (WHERE NOT
			session_admin.touch_session(session_hash)) FROM session_admin.session')
		[[ $invalid -eq 0 ]] || die "$invalid sessions are not valid"
	done
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

measure_touch() { # NAME ROUND
	local value

	case $1 in
		touch_plain)
			# the time of a write is far away
			value=$(PGOPTIONS='-c session_admin.touch_interval=1d' \
				per_second plain "$database" touch "$sessions" "$clients" -T "$seconds") ;;
		touch_plain_write)
			value=$(PGOPTIONS='-c session_admin.touch_interval=0' \
				per_second plain "$database" touch "$sessions" "$clients" -T "$seconds") ;;
		update_async)
			value=$(PGOPTIONS='-c synchronous_commit=off' \
				per_second plain "$database" update "$sessions" "$clients" -T "$seconds") ;;
		select | update | spring)
			value=$(per_second plain "$database" "$1" "$sessions" "$clients" -T "$seconds") ;;
		redis)
			value=$(redis_for_seconds "$clients") ;;
		*)
			value=$(per_second preloaded "$database" "$1" "$sessions" "$clients" -T "$seconds") ;;
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
