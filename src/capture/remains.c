/*
 * remains.c
 *	  Rows of products that could not be deleted when their sessions ended.
 *
 * They are noted in the transaction that ends the sessions, by the hash of the session id;
 * where that is not known, as the table could not be read, by whose rows they are and by
 * which transaction they were written at the latest: a later login is not ended.
 */
#include "capture/deletion.h"

#include "catalog/pg_type.h"

/* Is this what is noted without the session's hash? */
static bool
remains_have_unknown(const SaDeletion *deletion)
{
	if (deletion->invisible || (deletion->unsearched && (deletion->everything || deletion->target.user_names)))
		return true;
	for (int i = 0; i < deletion->left.n; i++)
	{
		if (!deletion->left.rows[i].has_hash)
			return true;
	}
	return false;
}

/* Warn of it, unless a row was only locked for a moment, and not waited for. */
static void
remains_warn(const SaDeletion *deletion, const SaEnding *ending)
{
	if ((deletion->left.n == 0 && !deletion->unsearched) ||
		(deletion->message == NULL && ending->wait_until == 0))
		return;
	ereport(WARNING,
			(errmsg("rows of \"%s\" could not be deleted: %s", deletion->table,
					deletion->message ? deletion->message : "somebody has them locked"),
			 errdetail("Their sessions have ended in application \"%s\".", deletion->application),
			 errhint("They are tried again until they are gone; see session_admin.health.")));
}

/* Note what could not be deleted.  The caller is connected to SPI. */
void
sa_remains_note(const SaDeletion *deletion, const SaEnding *ending)
{
	static SaStatement note = {.sql =
		"INSERT INTO session_admin_internal.product_remains (application, product, part, table_name,"
		"  secret_hash, user_name, before_xid, reason, sqlstate, message)"
		" SELECT $1, $2, $3, $4, r.secret_hash, r.user_name,"
		"  CASE WHEN r.secret_hash IS NULL THEN pg_snapshot_xmax(pg_current_snapshot()) END, $5, $6, $7"
		" FROM (SELECT h AS secret_hash, NULL AS user_name FROM unnest($8) AS h"
		"  UNION ALL SELECT h, NULL FROM unnest($9) AS h"
		"  UNION ALL SELECT NULL, u FROM unnest($10) AS u"
		"  UNION ALL SELECT NULL, NULL WHERE $11) r"
	};
	bool		unknown = remains_have_unknown(deletion);
	ArrayType  *searched = deletion->unsearched ? deletion->target.all_hashes : NULL;
	ArrayType  *users = unknown && !deletion->everything ? deletion->target.user_names : NULL;
	SaArgs		args = {0};

	sa_arg_text(&args, deletion->application);
	sa_arg_text(&args, deletion->product);
	sa_arg_text(&args, sa_part_names[deletion->part]);
	sa_arg_text(&args, deletion->table);
	sa_arg_text(&args, ending->reason);
	sa_arg_text(&args, deletion->sqlstate ? unpack_sql_state(deletion->sqlstate) : NULL);
	sa_arg_text(&args, deletion->message ? deletion->message : "somebody has them locked");
	sa_arg_array(&args, BYTEAARRAYOID, sa_places_hashes(&deletion->left));
	sa_arg_array(&args, BYTEAARRAYOID, searched);
	sa_arg_array(&args, TEXTARRAYOID, users);
	sa_arg(&args, BOOLOID, BoolGetDatum(unknown && deletion->everything), false);
	sa_run(&note, &args);
	sa_wake_housekeeping();
	remains_warn(deletion, ending);
}

/*
 * Those of these sessions (an array of hashes) of which no row is noted, or none that it
 * takes long to try again.
 */
ArrayType *
sa_remains_without(const char *application, ArrayType *hashes, bool only_slow)
{
	static SaStatement find = {.sql =
		"SELECT coalesce(array_agg(h), '{}') FROM unnest($1) AS h"
		" WHERE NOT EXISTS (SELECT FROM session_admin_internal.product_remains"
		"  WHERE secret_hash = h AND application = $2 AND part = 'session'"
		"   AND (sqlstate IN ('57014', '55P03') OR NOT $3))"
	};
	SaArgs		args = {0};

	sa_arg_array(&args, BYTEAARRAYOID, hashes);
	sa_arg_text(&args, application);
	sa_arg(&args, BOOLOID, BoolGetDatum(only_slow), false);
	sa_run(&find, &args);
	return sa_result_array(0, 1);
}
