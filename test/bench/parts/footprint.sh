# shellcheck shell=bash disable=SC2154
#
# What a touch writes, and what a session takes in shared memory.

touch_calls=20000

# Others write too (autovacuum, the worker, snapshots of what runs): the first two
# wait, and the least of the rounds is what touches write.
measure_wal() { # NAME ROUND
	local before after

	before=$(sql "$database" 'SELECT pg_current_wal_insert_lsn()')
	per_second "$database" touch "$sessions" 1 -t "$touch_calls" >/dev/null
	after=$(sql "$database" "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '$before')")
	record "$1" "$sessions" 1 "$2" \
		"$(awk -v bytes="$after" -v n="$touch_calls" 'BEGIN { printf "%.3f", bytes / n }')" bytes
}

# Megabytes of shared memory that a server with these settings would take.
shared_memory() { # SETTING…
	as_user postgres -D "$work/unused" -C shared_memory_size "${@/#/-c}"
}

part_footprint() {
	local with without

	echo "footprint"
	sql postgres 'ALTER SYSTEM SET autovacuum = off'
	sql postgres "ALTER SYSTEM SET session_admin.flush_interval = '1h'"
	sql postgres 'SELECT pg_reload_conf()' >/dev/null
	# what the worker had begun
	sql "$database" 'SET client_min_messages = warning; SELECT session_admin.maintain()' >/dev/null
	take_turns measure_wal wal
	sql postgres 'ALTER SYSTEM RESET ALL'
	sql postgres 'SELECT pg_reload_conf()' >/dev/null

	quietly as_user initdb -D "$work/unused" -A trust --no-sync
	without=$(shared_memory)
	with=$(shared_memory shared_preload_libraries=session_admin \
		session_admin.max_live_sessions="$max_live_sessions")
	record shared_memory "$max_live_sessions" 1 1 \
		"$(awk -v mb=$((with - without)) -v n="$max_live_sessions" 'BEGIN { printf "%.1f", mb * 1048576 / n }')" bytes
}
