# shellcheck shell=bash disable=SC2154
#
# What a touch writes, and what a session takes in shared memory.

touch_calls=20000

measure_wal() { # SERVER ROUND
	local before after

	before=$(sql "$1" "$database" "SELECT pg_current_wal_insert_lsn()")
	per_second "$1" "$database" touch "$sessions" 1 -t "$touch_calls" >/dev/null
	after=$(sql "$1" "$database" "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '$before')")
	record "wal_$1" "$sessions" 1 "$2" "$(awk -v b="$after" -v n="$touch_calls" 'BEGIN { printf "%.3f", b / n }')" bytes
}

# Others write too (snapshots of running transactions, autovacuum): they are off, and
# the least of the rounds is what a touch writes.
part_footprint() {
	local server with without

	echo "footprint"
	for server in "${!ports[@]}"; do
		sql "$server" "$database" "ALTER SYSTEM SET autovacuum = off"
		sql "$server" "$database" "SELECT pg_reload_conf()" >/dev/null
		sql "$server" "$database" "CHECKPOINT"
	done
	take_turns measure_wal preloaded
	for server in "${!ports[@]}"; do
		sql "$server" "$database" "ALTER SYSTEM RESET autovacuum"
		sql "$server" "$database" "SELECT pg_reload_conf()" >/dev/null
	done

	# all that the preloaded server has beyond the other
	with=$(sql preloaded postgres 'SELECT sum(allocated_size) FROM pg_shmem_allocations WHERE name IS NOT NULL')
	without=$(sql plain postgres 'SELECT sum(allocated_size) FROM pg_shmem_allocations WHERE name IS NOT NULL')
	record shared_memory "$max_live_sessions" 1 1 \
		"$(awk -v b=$((with - without)) -v n="$max_live_sessions" 'BEGIN { printf "%.1f", b / n }')" bytes
}
