# shellcheck shell=bash disable=SC2154
#
# open_session and close_session, against the same rows written by hand: as an
# application does it, a statement for each row; and joined into two statements.

measure_login() { # NAME ROUND
	record "$1" "$sessions" "$clients" "$2" \
		"$(per_second "$database" "$1" "$sessions" "$clients" -T "$seconds")" logins/s
}

part_login() {
	local clients

	for clients in "${clients_list[@]}"; do
		echo "login, $clients clients"
		take_turns measure_login login login_by_hand login_by_hand_joined
	done
}
