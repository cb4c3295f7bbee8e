# shellcheck shell=bash disable=SC2154
#
# UPDATE of all rows of a table of Jira that is watched, against one that is not.

make_jira() { # SCHEMA
	{
		echo "CREATE SCHEMA $1; SET search_path = $1;"
		cat "$tree/test/products/jira.sql"
		cat <<-SQL
			INSERT INTO cwd_directory VALUES (1, 'internal', 'internal', 1, 'INTERNAL', 0);
			INSERT INTO app_user SELECT n, 'JIRAUSER' || n, 'user' || n FROM generate_series(1, $watched_rows) n;
			INSERT INTO cwd_user (id, directory_id, user_name, lower_user_name, active, created_date,
				updated_date, display_name, lower_display_name, email_address, lower_email_address, credential)
			SELECT n, 1, 'user' || n, 'user' || n, 1, now(), now(), 'User ' || n, 'user ' || n,
				'user' || n || '@example.com', 'user' || n || '@example.com', '{PKCS5S2}' || md5(n::text)
			FROM generate_series(1, $watched_rows) n;
			VACUUM ANALYZE cwd_user;
		SQL
	} | as_user psql -X -q -v ON_ERROR_STOP=1 -d watched
}

measure_watched() { # SCHEMA ROUND
	local change value

	for change in nothing passwords; do
		value="updated_date = now()"
		[[ $change = nothing ]] || value="credential = '{PKCS5S2}' || md5(credential)"
		record "${1}_$change" "$watched_rows" 1 "$2" "$(milliseconds watched \
			"VACUUM $1.cwd_user" 'CHECKPOINT' "UPDATE $1.cwd_user SET $value")" ms
	done
}

part_watched() {
	echo "watched table"
	fill watched 1000
	make_jira unwatched
	make_jira watched
	sql watched "SELECT * FROM session_admin.attach_application('jira', 'watched')" >/dev/null
	take_turns measure_watched unwatched watched
	discard watched
}
