# shellcheck shell=bash disable=SC2154
#
# One user logged out everywhere (two sessions, two remember-me tokens), against
# DELETE and NOTIFY by hand, which keep no history and no feed.  Each user once.

measure_invalidate_user() { # NAME ROUND
	record "$1" "$sessions" "$clients" "$2" \
		"$(per_second "$database" "$1" "$sessions" "$clients" -t "$each" \
			-D number=$((first + ($2 - 1) * each)))" invalidations/s
}

part_invalidate_user() {
	local clients each=$((seconds * 100)) first=2000

	for clients in 1 4; do
		echo "invalidate_user, $clients clients"
		take_turns measure_invalidate_user invalidate_user invalidate_user_by_hand
		first=$(((first + rounds * each) * clients))
	done
}
