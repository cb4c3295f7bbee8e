/*
 * product_rows.c
 *	  Whose rows of products end: what src/ending asks for when sessions and tokens end.
 */
#include "capture/deletion.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* The tables of the application in which sessions and tokens are; all products: NULL. */
List *
sa_deletions_of(const char *application, const char *product)
{
	static SaStatement find_tables = {.sql =
		"SELECT a.application::text, a.product::text, a.part::text, a.relation::oid, a.table_name"
		" FROM session_admin_internal.attachment a JOIN pg_class c ON c.oid = a.relation"
		" WHERE a.application = $1 AND ($2 IS NULL OR a.product = $2)"
		"  AND a.part IN ('session', 'remember_me')"
		/* of a table that was dropped, another one may have the number by now */
		"  AND (a.relation::regclass::text = a.table_name OR EXISTS (SELECT FROM pg_trigger"
		"    WHERE tgrelid = a.relation AND tgfoid = 'session_admin.capture'::regproc))"
		" ORDER BY a.relation::oid, a.product, a.part"
	};
	SaArgs		args = {0};
	List	   *deletions = NIL;
	uint64		rows;

	sa_arg_text(&args, application);
	sa_arg_text(&args, product);
	rows = sa_run(&find_tables, &args);
	for (uint64 i = 0; i < rows; i++)
	{
		SaDeletion *deletion = palloc0(sizeof(SaDeletion));
		bool		isnull;

		deletion->application = sa_result_text(i, 1);
		deletion->product = sa_result_text(i, 2);
		deletion->part = (SaTablePart) sa_find_name(sa_part_names, SA_NPARTS, sa_result_text(i, 3));
		deletion->relid = DatumGetObjectId(sa_result(i, 4, &isnull));
		deletion->table = sa_result_text(i, 5);
		deletions = lappend(deletions, deletion);
	}
	return deletions;
}

/*
 * The tables in which these sessions are.  "which" finds the sessions: it gives
 * application, product, their keys, the hashes of those that have no key, and those of
 * all.  The caller is connected to SPI.
 */
static List *
product_rows_of_sessions(SaStatement *which, SaArgs *args)
{
	uint64		n = sa_run(which, args);
	SaDeletion *told = palloc0((n + 1) * sizeof(SaDeletion));
	List	   *result = NIL;

	for (uint64 i = 0; i < n; i++)
	{
		told[i].application = sa_result_text(i, 1);
		told[i].product = sa_result_text(i, 2);
		told[i].target.keys = sa_result_array(i, 3);
		told[i].target.hashes = sa_result_array(i, 4);
		told[i].target.all_hashes = sa_result_array(i, 5);
	}
	for (uint64 i = 0; i < n; i++)
	{
		ListCell   *cell;

		foreach(cell, sa_deletions_of(told[i].application, told[i].product))
		{
			SaDeletion *deletion = lfirst(cell);

			if (deletion->part != SA_PART_SESSION)
				continue;
			deletion->target = told[i].target;
			result = lappend(result, deletion);
		}
	}
	return result;
}

/* Is somebody else writing rows of sessions that are to end? */
static bool
product_rows_busy(List *deletions)
{
	ListCell   *cell;

	foreach(cell, deletions)
	{
		SaDeletion *deletion = lfirst(cell);

		if (deletion->part == SA_PART_SESSION && deletion->busy.n > 0)
			return true;
	}
	return false;
}

/* Of what is locked, keep the rows of these sessions. */
static List *
product_rows_keep(List *deletions, ArrayType *hashes)
{
	ListCell   *cell;

	foreach(cell, deletions)
	{
		SaDeletion *deletion = lfirst(cell);

		sa_places_keep(&deletion->rows, hashes, false);
		sa_places_keep(&deletion->busy, hashes, false);
	}
	return deletions;
}

/*
 * Delete the rows that sessions have in the products' own tables, as far as that can be
 * done without waiting.  The caller is connected to SPI, and ends the sessions.
 */
static void
product_rows_delete_sessions(SaStatement *which, SaArgs *args, const SaEnding *ending, SaEnded *ended)
{
	List	   *deletions = product_rows_of_sessions(which, args);
	SaEnded		nobody_asks = {0};
	SaBusy		busy = {0};

	sa_deletions_lock(deletions, &busy);
	sa_deletions_run(deletions, ending, ended ? ended : &nobody_asks);
}

/*
 * Delete rows that a statement of the product itself has just written, by the ids in
 * them and the hashes of these.  What cannot be deleted is noted, once; what takes long is
 * not tried again with each such statement.  Returns how many are gone.  The caller is
 * connected to SPI.
 */
uint64
sa_delete_written_rows(const SaWatch *watch, ArrayType *secrets, ArrayType *hashes,
					   const SaEnding *ending)
{
	SaEnded		ended = {0};
	SaDeletion	deletion = {
		.application = watch->application,
		.product = watch->product,
		.part = watch->part,
		.relid = watch->relid,
		.table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(watch->relid)),
											get_rel_name(watch->relid))
	};
	SaBusy		busy = {0};

	hashes = sa_remains_without(watch->application, hashes, true);
	if (sa_array_length(hashes) == 0)
		return 0;
	deletion.target.secrets = secrets;
	deletion.target.hashes = deletion.target.all_hashes = hashes;
	sa_deletions_lock(list_make1(&deletion), &busy);
	if (!deletion.unsearched && deletion.watch != NULL)
		sa_deletion_run(&deletion, ending, &ended);
	sa_places_append(&deletion.left, deletion.busy.rows, deletion.busy.n);
	if (deletion.left.n > 0 || deletion.unsearched)
	{
		deletion.target.all_hashes = sa_remains_without(watch->application, hashes, false);
		sa_places_keep(&deletion.left, deletion.target.all_hashes, false);
		if (deletion.left.n > 0 || deletion.unsearched)
			sa_remains_note(&deletion, ending);
	}
	return deletion.deleted;
}

/* The users' sessions that products have, but for the one that is kept. */
static void
product_rows_add_sessions(List *deletions, const char *application, ArrayType *user_names, const uint8 *keep)
{
	static SaStatement find_sessions_of_users = {.sql =
		"SELECT product::text,"
		"  array_agg(product_key::text) FILTER (WHERE product_key IS NOT NULL),"
		"  array_agg(session_hash) FILTER (WHERE product_key IS NULL),"
		"  array_agg(session_hash)"
		" FROM session_admin.session"
		" WHERE application = $1 AND user_name = ANY ($2) AND product IS NOT NULL"
		"  AND session_hash IS DISTINCT FROM $3"
		" GROUP BY product"
	};
	SaArgs		args = {0};
	uint64		n;

	sa_arg_text(&args, application);
	sa_arg_array(&args, TEXTARRAYOID, user_names);
	sa_arg_hash(&args, keep);
	n = sa_run(&find_sessions_of_users, &args);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *product = sa_result_text(i, 1);
		ListCell   *cell;

		foreach(cell, deletions)
		{
			SaDeletion *deletion = lfirst(cell);

			if (deletion->part != SA_PART_SESSION || strcmp(deletion->product, product) != 0)
				continue;
			deletion->target.keys = sa_result_array(i, 2);
			deletion->target.hashes = sa_result_array(i, 3);
			deletion->target.all_hashes = sa_result_array(i, 4);
		}
	}
}

/*
 * The tables in which these users have rows, but for one session, and for tokens if they
 * are kept.  The caller is connected to SPI.
 */
static List *
product_rows_of_users(const char *application, ArrayType *user_names, const uint8 *keep_session,
					  bool keep_remember_me)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, sa_deletions_of(application, NULL))
	{
		SaDeletion *deletion = lfirst(cell);

		if (deletion->part == SA_PART_REMEMBER_ME && keep_remember_me)
			continue;
		/* by the user, too: not all rows may be known yet */
		deletion->target.user_names = user_names;
		if (deletion->part == SA_PART_SESSION)
			deletion->target.keep = keep_session;
		result = lappend(result, deletion);
	}
	product_rows_add_sessions(result, application, user_names, keep_session);
	return result;
}

/*
 * Empty the products' own tables of sessions and remember-me tokens, and count the
 * tokens.  By DELETE, as TRUNCATE would wait for everybody who reads them, pg_dump for
 * instance, and keep all others out meanwhile.  What is not committed yet, nobody sees:
 * of sessions, it ends with its generation, and is deleted when that is archived.
 */
static void
product_rows_delete_application(const char *application, const SaEnding *ending, SaEnded *ended)
{
	ListCell   *cell;

	foreach(cell, sa_deletions_of(application, NULL))
	{
		SaDeletion *deletion = lfirst(cell);

		sa_deletion_empty(deletion, ending, ended);
		if (deletion->left.n > 0 || deletion->unsearched || deletion->invisible)
			sa_remains_note(deletion, ending);
	}
}

/*
 * Before all that: wait for the transactions that write the tables of an application
 * (NULL: of all), so that what they write is visible.  Nothing is locked yet.  False if
 * that takes too long.
 */
static bool
product_rows_wait_for_writers(const char *application, TimestampTz until)
{
	static SaStatement find_relations = {.sql =
		"SELECT DISTINCT a.relation::oid FROM session_admin_internal.attachment a"
		" WHERE a.part IN ('session', 'remember_me') AND ($1 IS NULL OR a.application = $1)"
		" ORDER BY 1"
	};
	SaArgs		args = {0};
	uint64		n;
	Oid		   *relids;

	if (until == 0)
		return true;
	sa_arg_text(&args, application);
	n = sa_run(&find_relations, &args);
	relids = palloc((n + 1) * sizeof(Oid));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		relids[i] = DatumGetObjectId(sa_result(i, 1, &isnull));
	}
	for (uint64 i = 0; i < n; i++)
	{
		for (VirtualTransactionId *writer = sa_writers_of(relids[i]);
			 VirtualTransactionIdIsValid(*writer); writer++)
		{
			SaBusy		busy = {.any = true, .writer = *writer};

			if (!sa_wait_for(&busy, until))
				return false;
		}
	}
	return true;
}

static const SaProductRows product_rows = {
	.of_users = product_rows_of_users,
	.of_sessions = product_rows_of_sessions,
	.lock = sa_deletions_lock,
	.any_busy = product_rows_busy,
	.keep = product_rows_keep,
	.delete_locked = sa_deletions_run,
	.delete_sessions = product_rows_delete_sessions,
	.delete_application = product_rows_delete_application,
	.wait_for_writers = product_rows_wait_for_writers
};

/* Tell ending/ of the products' rows. */
void
sa_capture_init(void)
{
	sa_product_rows = &product_rows;
}
