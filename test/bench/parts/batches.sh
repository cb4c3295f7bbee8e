# shellcheck shell=bash disable=SC2154
#
# Many sessions in one call, from one connection.

measure_batch() { # FORM ROUND
	record "batch_$1" "$sessions" 1 "$2" \
		"$(as_user test/bench/batches "dbname=$database" "$1" 1000 "$seconds")" ids/s
}

part_batches() {
	echo "touch_sessions by 1,000"
	take_turns measure_batch text bytea
}
