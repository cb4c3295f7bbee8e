# shellcheck shell=bash disable=SC2154
#
# Everybody out: sessions and remember-me tokens, all of them known to the live table,
# against DELETE by hand, without history and feed.

# The rows as they were before the last round, and known to the live table again.
revive() { # SESSIONS
	sql "everyone_$1" 'UPDATE session_admin.session s SET generation = a.generation
		FROM session_admin.application a WHERE a.name = s.application'
	sql "everyone_$1" 'SELECT count(session_admin.touch_session(session_hash))
		FROM session_admin.session' >/dev/null
}

# A connection's first call reads the catalog and plans; one of another application
# does that for the second.
measure_everyone() { # SESSIONS ROUND
	local everyone='SELECT FROM session_admin.invalidate_all()'
	local nobody="SELECT FROM session_admin.invalidate_application(application => 'nobody')"

	revive "$1"
	record everyone "$1" 1 "$2" "$(milliseconds "everyone_$1" "$nobody" "$everyone")" ms
	record everyone_first "$1" 1 "$2" "$(milliseconds "everyone_$1" 'SELECT 1' "$everyone")" ms
}

part_invalidate_all() {
	local size

	for size in "${everyone_sizes[@]}"; do
		echo "invalidate_all, $size sessions"
		fill "everyone_$size" "$size"
		sql "everyone_$size" "INSERT INTO session_admin.application (name, home) SELECT 'nobody', home FROM session_admin_internal.installation_mark"
	done
	take_turns measure_everyone "${everyone_sizes[@]}"
	for size in "${everyone_sizes[@]}"; do
		record everyone_by_hand "$size" 1 1 "$(milliseconds "everyone_$size" \
			'CHECKPOINT' 'WITH t AS (DELETE FROM by_hand.remember_me_token) DELETE FROM by_hand.session')" ms
		discard "everyone_$size"
	done
}
