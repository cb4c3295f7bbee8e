/*
 * generation.c
 *	  Ends everybody at once, in one application or in all.
 *
 * That touches no session: it adds one to the application's generation, which is part of
 * what makes a session or token valid.  The rows are archived later, through the same
 * triggers, which see from the generation when, why and by whom they ended.
 */
#include "ending/end.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * When a whole generation ends, no more sessions than this are counted, and none if the
 * table has more bytes, of all applications.
 */
#define COUNT_MAX 1000
#define COUNT_MAX_BYTES (2 * 1024 * 1024)

/*
 * Count those that are live; the first statement counts all.  Negative if counting
 * would cost more than ending them.
 */
static int64
generation_count_if_few(SaStatement *count_all, SaStatement *count, const char *application)
{
	SaArgs		args = {0};
	int64		n;

	sa_arg_text(&args, application);
	sa_arg(&args, INT8OID, Int64GetDatum(COUNT_MAX_BYTES), false);
	sa_run(count_all, &args);
	n = sa_result_int64(0, 1);
	if (n == 0)
		return 0;
	if (n < 0 || n > COUNT_MAX)
		return -1;

	args.n--;
	sa_run(count, &args);
	return sa_result_int64(0, 1);
}

/* Count what is about to end, see count_if_few. */
static void
generation_count(const char *application, SaEnded *ended)
{
	static SaStatement count_sessions = {.generic = true, .sql =
		"SELECT CASE WHEN pg_relation_size('session_admin.session') <= $2"
		"  THEN (SELECT count(*) FROM session_admin.session"
		"    WHERE $1 IS NULL OR application = $1) ELSE -1 END"
	};
	static SaStatement count_live_sessions = {.generic = true, .sql =
		"SELECT count(*) FROM session_admin_internal.session_state"
		" WHERE ($1 IS NULL OR application = $1) AND ended_at IS NULL"
	};
	static SaStatement count_tokens = {.generic = true, .sql =
		"SELECT CASE WHEN pg_relation_size('session_admin.remember_me_token') <= $2"
		"  THEN (SELECT count(*) FROM session_admin.remember_me_token"
		"    WHERE $1 IS NULL OR application = $1) ELSE -1 END"
	};
	static SaStatement count_live_tokens = {.generic = true, .sql =
		"SELECT count(*) FROM session_admin.remember_me_token t" SA_JOIN_TOKEN_LIMITS("t")
		" WHERE ($1 IS NULL OR t.application = $1) AND NOT " SA_TOKEN_HAS_ENDED("t")
	};

	ended->sessions_ended = generation_count_if_few(&count_sessions, &count_live_sessions, application);
	ended->tokens_revoked = generation_count_if_few(&count_tokens, &count_live_tokens, application);
}

/* What sa_end_generation locks. */
typedef struct GenerationLock
{
	const char *application;	/* NULL: all */
	ArrayBuildState *locked;	/* their names */
	ArrayBuildState *left;		/* of those that another transaction has
								 * locked */
	bool		unseen;			/* another transaction may be making one more */
} GenerationLock;

/*
 * Lock applications, so that concurrent endings of them are serialized.  One that is
 * being made now may have open sessions already.
 */
static void
generation_lock(SaBusy *busy, void *argument)
{
	static SaStatement find_applications = {.sql =
		"SELECT ctid, name::text FROM session_admin.application"
		" WHERE $1 IS NULL OR name = $1 ORDER BY name"
	};
	GenerationLock *lock = argument;
	SaArgs		args = {0};

	lock->locked = lock->left = NULL;
	lock->unseen = lock->application == NULL && sa_others_write(SA_TABLE_APPLICATION, busy);
	if (SA_STOPS(busy))
		return;
	sa_arg_text(&args, lock->application);
	sa_lock_found(SA_TABLE_APPLICATION, LockTupleNoKeyExclusive, &find_applications, &args, TEXTOID,
				  &lock->locked, &lock->left, busy);
}

/* The names as an array, which are read again later. */
static Datum
generation_names(ArrayBuildState *names)
{
	if (names == NULL)
		return (Datum) 0;
	return PointerGetDatum(sa_array(names->dvalues, names->nelems, TEXTOID));
}

/* Begin the next generation of these applications, which are locked. */
static void
generation_begin_next(ArrayBuildState *names, const SaEnding *ending)
{
	static SaStatement next_generation = {.sql =
		"WITH locked AS ("
		"  SELECT name, generation FROM session_admin.application"
		"  WHERE name = ANY ($1) ORDER BY name FOR NO KEY UPDATE"
		"), noted AS ("
		"  INSERT INTO session_admin_internal.application_generation"
		"    (application, generation, ended_at, reason, ended_by, actor)"
		"  SELECT name, generation, $2, $3, coalesce($5, session_user), $4 FROM locked"
		")"
		" UPDATE session_admin.application a SET generation = locked.generation + 1,"
		"  home = (SELECT home FROM session_admin_internal.installation_mark)"
		" FROM locked WHERE a.name = locked.name"
	};
	SaArgs		args = {0};

	sa_arg(&args, TEXTARRAYOID, generation_names(names), names == NULL);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending->at), false);
	sa_arg_text(&args, ending->reason);
	sa_arg_text(&args, sa_actor_or_null());
	sa_arg_text(&args, ending->ended_by);
	sa_run(&next_generation, &args);
}

/* Empty the products' own tables of these applications. */
static void
generation_empty_products(ArrayBuildState *names, bool in_vain, const SaEnding *ending,
						  SaEnded *ended)
{
	for (int i = 0; sa_ending_reaches_products(ending) && names != NULL && i < names->nelems; i++)
	{
		SaEnded		deleted = {0};
		SaEnding	these = {
			.reason = ending->reason,
			.at = ending->at,
			/* transactions that have come since are not waited for */
			.wait_until = in_vain ? ending->wait_until : 0
		};

		sa_product_rows->delete_application(TextDatumGetCString(names->dvalues[i]), &these, &deleted);
		if (ended->tokens_revoked >= 0)
			ended->tokens_revoked += deleted.tokens_revoked;
	}
}

/*
 * End the generation of one application, or of all.  What it ended is counted
 * only as far as that costs nothing, however many they are.  The caller is
 * connected to SPI and has set reason and time.
 */
void
sa_end_generation(const char *application, const SaEnding *asked, SaEnded *ended)
{
	SaFeedRow	row = {.scope = application ? "application" : "all", .application = application};
	GenerationLock lock = {.application = application};
	SaEnding	ending = *asked;
	SaEnded		nobody_asks = {0};
	bool		in_vain = false;

	if (ended == NULL)
		ended = &nobody_asks;
	if (sa_ending_reaches_products(&ending))
		in_vain = !sa_product_rows->wait_for_writers(application, ending.wait_until);

	sa_lock_all(ending.wait_until, generation_lock, &lock);
	if (application != NULL && lock.locked == NULL && lock.left == NULL)
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("application \"%s\" does not exist", application)));

	/* from now on, however long that has taken */
	if (ending.ended_by == NULL)
		ending.at = GetCurrentTimestamp();
	generation_count(application, ended);
	generation_begin_next(lock.locked, &ending);

	generation_empty_products(lock.locked, in_vain, &ending, ended);
	generation_empty_products(lock.left, in_vain, &ending, ended);
	for (int i = 0; lock.left && i < lock.left->nelems; i++)
		sa_late_end(TextDatumGetCString(lock.left->dvalues[i]), NULL, NULL, NULL, true, &ending);
	if (lock.unseen)
		sa_late_end(NULL, NULL, NULL, NULL, true, &ending);

	sa_feed_write(&row, &ending, ended);
	ended->id = row.id;
	sa_feed_queue(&row);
}
