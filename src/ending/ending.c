/*
 * ending.c
 *	  Ends sessions, and everything of users: locks what that takes, deletes, and ends
 *	  late what somebody else has locked.
 *
 * The rows of products come first, then accounts, sessions and tokens; base/lock.c says
 * who waits.  The triggers in archive.c do the rest.
 */
#include "ending/end.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* How often sessions that match a filter are searched again while some get new ids. */
#define FIND_MAX 3

/* Is somebody else writing rows of sessions that are to end? */
static bool
ending_products_busy(List *rows)
{
	return sa_product_rows != NULL && sa_product_rows->any_busy(rows);
}

/* Add names as an argument, an array; null if there are none. */
static void
ending_arg_users(SaArgs *args, ArrayBuildState *users)
{
	sa_arg(args, TEXTARRAYOID,
		   users ? makeArrayResult(users, CurrentMemoryContext) : (Datum) 0, users == NULL);
}

/* What sa_end_users locks, and deletes. */
typedef struct UsersLock
{
	const char *application;
	ArrayType  *user_names;
	const uint8 *keep_session;
	bool		keep_remember_me;
	const SaEnding *ending;
	SaEnded    *ended;
	List	   *tables;			/* of products, with their rows */
	ArrayBuildState *left;		/* users whose account another transaction has
								 * locked */
	ArrayBuildState *sessions_left; /* users of sessions that it has locked,
									 * one a session */
	ArrayBuildState *tokens_left;
} UsersLock;

static void
ending_lock_users(SaBusy *busy, void *argument)
{
	static SaStatement find_sessions = {.sql =
		"SELECT ctid, user_name::text FROM session_admin.session"
		" WHERE application = $1 AND user_name = ANY ($2)"
		"   AND session_hash IS DISTINCT FROM $3"
		" ORDER BY session_hash"
	};
	static SaStatement find_tokens = {.sql =
		"SELECT ctid, user_name::text FROM session_admin.remember_me_token"
		" WHERE application = $1 AND user_name = ANY ($2) ORDER BY series"
	};
	UsersLock  *lock = argument;
	const uint8 *keep = lock->keep_session;
	SaArgs		args = {0};
	SaArgs		session_args;

	lock->left = lock->sessions_left = lock->tokens_left = NULL;
	if (sa_ending_reaches_products(lock->ending))
	{
		lock->tables = sa_product_rows->of_users(lock->application, lock->user_names, keep,
												 lock->keep_remember_me);
		sa_product_rows->lock(lock->tables, busy);
	}
	sa_arg_text(&args, lock->application);
	sa_arg_array(&args, TEXTARRAYOID, lock->user_names);
	session_args = args;
	sa_arg_hash(&session_args, keep);
	if (!SA_STOPS(busy))
		sa_accounts_try(lock->application, lock->user_names, &lock->left, busy);
	if (!SA_STOPS(busy))
		sa_lock_found(SA_TABLE_SESSION, LockTupleExclusive, &find_sessions, &session_args, TEXTOID,
					  NULL, &lock->sessions_left, busy);
	if (!SA_STOPS(busy) && !lock->keep_remember_me)
		sa_lock_found(SA_TABLE_REMEMBER_ME_TOKEN, LockTupleExclusive, &find_tokens, &args, TEXTOID,
					  NULL, &lock->tokens_left, busy);
}

/* Of the names in all these lists, each one once. */
static ArrayType *
ending_all_names(ArrayBuildState **lists, int n)
{
	static SaStatement collect = {.sql =
		"SELECT coalesce(array_agg(DISTINCT name), '{}') FROM unnest($1::text[]) AS name"
	};
	ArrayBuildState *all = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	SaArgs		args = {0};
	bool		isnull;

	for (int list = 0; list < n; list++)
	{
		for (int i = 0; lists[list] != NULL && i < lists[list]->nelems; i++)
			accumArrayResult(all, lists[list]->dvalues[i], false, TEXTOID, CurrentMemoryContext);
	}
	sa_arg(&args, TEXTARRAYOID, makeArrayResult(all, CurrentMemoryContext), false);
	sa_run(&collect, &args);
	return DatumGetArrayTypePCopy(sa_result(0, 1, &isnull));
}

/*
 * End late all that these users have by now, of whom another transaction has something
 * locked: a login under way has the account.  Their sessions are counted here.
 */
static void
ending_users_late(UsersLock *lock)
{
	ArrayBuildState *lists[] = {lock->left, lock->sessions_left, lock->tokens_left};
	const SaEnding *ending = lock->ending;
	SaEnded    *ended = lock->ended;
	ArrayType  *names = ending->options.first_login || ending_products_busy(lock->tables) ?
	lock->user_names : ending_all_names(lists, lengthof(lists));
	Datum	   *values;
	int			n;

	values = sa_array_values(names, TEXTOID, &n);
	for (int i = 0; i < n; i++)
	{
		sa_late_end(lock->application, TextDatumGetCString(values[i]), NULL, lock->keep_session,
					!lock->keep_remember_me, ending);
	}
	for (int i = 0; lock->sessions_left && i < lock->sessions_left->nelems; i++)
	{
		ended->sessions_ended++;
		if (ending->options.wants_users)
			ended->ended_users = accumArrayResult(ended->ended_users,
												  lock->sessions_left->dvalues[i], false,
												  TEXTOID, ended->context);
	}
	for (int i = 0; lock->tokens_left && i < lock->tokens_left->nelems; i++)
	{
		ended->tokens_revoked++;
		if (ending->options.wants_users)
			ended->revoked_users = accumArrayResult(ended->revoked_users,
													lock->tokens_left->dvalues[i], false,
													TEXTOID, ended->context);
	}
}

/*
 * Delete what is locked of these users, the rows of products first: they tell which
 * sessions are theirs, too.
 */
static void
ending_delete_of_users(UsersLock *lock)
{
	static SaStatement end_sessions = {.sql =
		"DELETE FROM session_admin.session WHERE ctid = ANY (ARRAY("
		"  SELECT ctid FROM session_admin.session"
		"  WHERE application = $1 AND user_name = ANY ($2)"
		"    AND session_hash IS DISTINCT FROM $3 FOR UPDATE SKIP LOCKED))"
	};
	static SaStatement end_tokens = {.sql =
		"DELETE FROM session_admin.remember_me_token WHERE ctid = ANY (ARRAY("
		"  SELECT ctid FROM session_admin.remember_me_token"
		"  WHERE application = $1 AND user_name = ANY ($2) FOR UPDATE SKIP LOCKED))"
	};

	/* sessions whose row in a product's table was one of these users' */
	static SaStatement end_found = {.sql =
		"DELETE FROM session_admin.session WHERE ctid = ANY (ARRAY("
		"  SELECT ctid FROM session_admin.session"
		"  WHERE application = $1 AND session_hash = ANY ($2) FOR UPDATE SKIP LOCKED))"
	};
	SaEnding	rest = *lock->ending;
	SaArgs		args = {0};

	if (sa_ending_reaches_products(lock->ending))
		sa_product_rows->delete_locked(lock->tables, lock->ending, lock->ended);
	rest.options.spares_products = true;

	sa_arg_text(&args, lock->application);
	sa_arg_array(&args, TEXTARRAYOID, lock->user_names);
	if (!lock->keep_remember_me)
		sa_delete_for(&rest, lock->ended, &end_tokens, &args);
	sa_arg_hash(&args, lock->keep_session);
	sa_delete_for(&rest, lock->ended, &end_sessions, &args);
	if (lock->ended->found_by_user != NULL)
	{
		SaArgs		found = {0};

		sa_arg_text(&found, lock->application);
		sa_arg(&found, BYTEAARRAYOID,
			   makeArrayResult(lock->ended->found_by_user, CurrentMemoryContext), false);
		sa_delete_for(&rest, lock->ended, &end_found, &found);
	}
}

/* Write one row of the feed a user, and tell of them unless the caller does. */
static void
ending_feed_users(UsersLock *lock, bool caller_notifies)
{
	static SaStatement insert_users = {.sql =
		"INSERT INTO session_admin_internal.invalidation (at, scope, application, user_name,"
		"  session_hash, reason, actor, sessions_ended, tokens_revoked)"
		" SELECT $4, 'user', $1, u.name, $3, $5, $6, coalesce(e.n, 0), coalesce(r.n, 0)"
		" FROM unnest($2) WITH ORDINALITY AS u (name, n)"
		" LEFT JOIN (SELECT name, count(*) AS n FROM unnest($7) AS e (name) GROUP BY name) e"
		"   ON e.name = u.name"
		" LEFT JOIN (SELECT name, count(*) AS n FROM unnest($8) AS r (name) GROUP BY name) r"
		"   ON r.name = u.name"
		" ORDER BY u.n"
		" RETURNING id"
	};
	const SaEnding *ending = lock->ending;
	SaEnded    *ended = lock->ended;
	SaArgs		args = {0};
	Datum	   *names;
	int			n;

	names = sa_array_values(lock->user_names, TEXTOID, &n);
	if (n == 1)
	{
		SaFeedRow	row = {
			.scope = "user",
			.application = lock->application,
			.user_name = TextDatumGetCString(names[0]),
			.session_hash = lock->keep_session
		};

		sa_feed_write(&row, ending, ended);
		ended->id = row.id;
		if (!caller_notifies)
			sa_feed_queue(&row);
		return;
	}
	sa_arg_text(&args, lock->application);
	sa_arg_array(&args, TEXTARRAYOID, lock->user_names);
	sa_arg_hash(&args, lock->keep_session);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending->at), false);
	sa_arg_text(&args, ending->reason);
	sa_arg_text(&args, sa_actor_or_null());
	ending_arg_users(&args, ended->ended_users);
	ending_arg_users(&args, ended->revoked_users);
	ended->id = sa_result_int64(sa_run(&insert_users, &args) - 1, 1);
	sa_commit_durably(lock->application);
	if (!caller_notifies)
		sa_feed_queue_many(ended->id);
}

/*
 * End all sessions of these users (an array of text, all of one application)
 * and, unless kept, their remember-me tokens, ours and the product's own.  Each
 * user gets one row of the feed; there is one notification.  What somebody has locked is
 * waited for only as lock.c says.  The caller is connected to SPI and has set reason and
 * time.
 */
void
sa_end_users(const char *application, ArrayType *user_names, const uint8 *keep_session,
			 bool keep_remember_me, const SaEnding *ending, SaEnded *ended)
{
	int			n_users = sa_array_length(user_names);
	SaEnding	these = {
		.reason = ending->reason,
		.at = ending->at,
		.wait_until = ending->wait_until,
		.options = {
			.caller_writes_feed = true,
			.spares_products = ending->options.spares_products,
			.first_login = ending->options.first_login,
			.wants_users = n_users > 1
		}
	};
	SaEnded		these_ended = {.context = CurrentMemoryContext};
	UsersLock	lock = {
		.application = application,
		.user_names = user_names,
		.keep_session = keep_session,
		.keep_remember_me = keep_remember_me,
		.ending = &these,
		.ended = &these_ended
	};

	if (n_users == 0)
		return;

	sa_lock_all(ending->wait_until, ending_lock_users, &lock);
	ending_delete_of_users(&lock);

	/*
	 * a product's row that is written now may be about to go on under another
	 * id
	 */
	if (lock.left || lock.sessions_left || lock.tokens_left || these.options.first_login ||
		ending_products_busy(lock.tables))
		ending_users_late(&lock);
	if (!ending->options.caller_writes_feed)
		ending_feed_users(&lock, ending->options.caller_notifies);

	if (ended == NULL)
		return;
	if (!ending->options.caller_writes_feed)
		ended->id = these_ended.id;
	ended->sessions_ended += these_ended.sessions_ended;
	ended->tokens_revoked += these_ended.tokens_revoked;
}

/* End all of one user, as sa_end_users does. */
void
sa_end_user(const char *application, const char *user_name, const uint8 *keep_session,
			bool keep_remember_me, const SaEnding *ending, SaEnded *ended)
{
	sa_end_users(application, sa_array_of_text(user_name), keep_session, keep_remember_me, ending, ended);
}

/* What sa_end_found_sessions locks. */
typedef struct SessionsLock
{
	const SaSessionSearch *search;
	ArrayType  *hashes;			/* those that were found */
	bool		reaches_products;
	List	   *tables;
	ArrayBuildState *left;		/* hashes, of what somebody has locked */
	ArrayBuildState *account_left;	/* that of the user */
} SessionsLock;

/* Lock the sessions of lock->hashes, and the rows that products have of them. */
static void
ending_lock_hashes(SessionsLock *lock, SaBusy *busy)
{
	static SaStatement of_products = {.sql =
		"SELECT application::text, product::text,"
		"  array_agg(product_key::text) FILTER (WHERE product_key IS NOT NULL),"
		"  array_agg(session_hash) FILTER (WHERE product_key IS NULL),"
		"  array_agg(session_hash)"
		" FROM session_admin.session"
		" WHERE session_hash = ANY ($1) AND application = $2 AND product IS NOT NULL"
		" GROUP BY application, product"
	};
	static SaStatement find_sessions = {.sql =
		"SELECT ctid, session_hash FROM session_admin.session"
		" WHERE session_hash = ANY ($1) AND application = $2 ORDER BY session_hash"
	};
	SaArgs		args = {0};

	lock->left = NULL;
	sa_arg_array(&args, BYTEAARRAYOID, lock->hashes);
	sa_arg_text(&args, lock->search->application);
	if (lock->reaches_products)
	{
		lock->tables = sa_product_rows->of_sessions(&of_products, &args);
		sa_product_rows->lock(lock->tables, busy);
	}
	if (!SA_STOPS(busy))
		sa_lock_found(SA_TABLE_SESSION, LockTupleExclusive, &find_sessions, &args, BYTEAOID, NULL,
					  &lock->left, busy);
}

/* Those that are in both arrays; *all: all of the second. */
static ArrayType *
ending_in_both(ArrayType *a, ArrayType *b, bool *all)
{
	static SaStatement intersect = {.sql =
		"SELECT array_agg(h) FILTER (WHERE h = ANY ($1)), coalesce(bool_and(h = ANY ($1)), true)"
		" FROM unnest($2) AS h"
	};
	SaArgs		args = {0};
	ArrayType  *both;
	bool		isnull;

	sa_arg_array(&args, BYTEAARRAYOID, a);
	sa_arg_array(&args, BYTEAARRAYOID, b);
	sa_run(&intersect, &args);
	*all = DatumGetBool(sa_result(0, 2, &isnull));
	both = sa_result_array(0, 1);
	return both ? both : construct_empty_array(BYTEAOID);
}

/*
 * Lock sessions.  A search is repeated under the lock, as a session may be another
 * user's by now, or go on under a new id.
 */
static void
ending_lock_sessions(SaBusy *busy, void *argument)
{
	SessionsLock *lock = argument;
	bool		all;

	lock->account_left = NULL;
	if (lock->search->user_name != NULL)
		sa_accounts_try(lock->search->application, sa_array_of_text(lock->search->user_name),
						&lock->account_left, busy);
	if (SA_STOPS(busy))
		return;
	if (lock->search->find != NULL)
		lock->hashes = lock->search->find(lock->search->argument);
	for (int i = 0; i < FIND_MAX; i++)
	{
		ArrayType  *again;

		ending_lock_hashes(lock, busy);
		if (lock->search->find == NULL || SA_STOPS(busy))
			return;
		again = lock->search->find(lock->search->argument);
		lock->hashes = ending_in_both(lock->hashes, again, &all);
		if (all)
			break;
		lock->hashes = again;
	}
	/* only now is it known which these are */
	if (lock->reaches_products)
		lock->tables = sa_product_rows->keep(lock->tables, lock->hashes);
}

/* End late the sessions that another transaction has locked; nodes are told of them now. */
static void
ending_sessions_late(SessionsLock *lock, const SaEnding *ending, SaEnded *ended)
{
	for (int i = 0; i < lock->left->nelems; i++)
	{
		bytea	   *hash = DatumGetByteaPP(lock->left->dvalues[i]);
		SaFeedRow	row = {
			.scope = "session",
			.application = lock->search->application,
			.session_hash = (uint8 *) VARDATA_ANY(hash)
		};
		SaEnded		one = {.sessions_ended = 1};
		SaApplication application;
		SaSession	session;

		/* a session that has ended by itself does not end once more */
		if (!sa_application_find(lock->search->application, &application) ||
			!sa_session_read(row.session_hash, lock->search->application, &session) ||
			!sa_session_is_valid(&session, &application, row.session_hash, ending->at))
			continue;
		row.user_name = session.user_name;
		sa_late_end(lock->search->application, NULL, row.session_hash, NULL, false, ending);
		ended->sessions_ended++;
		if (ending->options.caller_writes_feed)
			continue;
		sa_feed_write(&row, ending, &one);
		ended->id = row.id;
		sa_feed_queue(&row);
	}
}

/*
 * End the sessions of a search; those that another transaction has locked end late.
 * Returns how many rows were deleted.
 */
uint64
sa_end_found_sessions(const SaSessionSearch *search, const SaEnding *ending, SaEnded *ended)
{
	static SaStatement delete_sessions = {.sql =
		"DELETE FROM session_admin.session WHERE ctid = ANY (ARRAY("
		"  SELECT ctid FROM session_admin.session"
		"  WHERE session_hash = ANY ($1) AND application = $2 FOR UPDATE SKIP LOCKED))"
	};
	SessionsLock lock = {
		.search = search,
		.hashes = search->hashes,
		.reaches_products = sa_ending_reaches_products(ending)
	};
	SaEnding	rest = *ending;
	SaEnded		nobody_asks = {0};
	SaArgs		args = {0};
	uint64		rows;

	if (ended == NULL)
		ended = &nobody_asks;
	sa_lock_all(ending->wait_until, ending_lock_sessions, &lock);
	if (lock.reaches_products)
		sa_product_rows->delete_locked(lock.tables, ending, ended);
	rest.options.spares_products = true;
	sa_arg_array(&args, BYTEAARRAYOID, lock.hashes);
	sa_arg_text(&args, search->application);
	rows = sa_delete_for(&rest, ended, &delete_sessions, &args);
	if (lock.left != NULL)
		ending_sessions_late(&lock, ending, ended);

	/*
	 * the transaction that has the account or a session locked may have
	 * another one, not visible yet
	 */
	if (search->user_name != NULL &&
		(lock.left || lock.account_left || ending_products_busy(lock.tables)))
		sa_late_end(search->application, search->user_name, NULL, NULL, false, ending);
	return rows;
}

/*
 * End these sessions (an array of hashes, all of one application).  The caller is
 * connected to SPI and has set reason and time.  Returns how many rows there were.
 */
uint64
sa_end_sessions(ArrayType *hashes, const char *application, const SaEnding *ending,
				SaEnded *ended)
{
	SaSessionSearch search = {.hashes = hashes, .application = application};

	return sa_end_found_sessions(&search, ending, ended);
}

/* End one session, as sa_end_sessions does. */
uint64
sa_end_session(const uint8 *hash, const char *application, const SaEnding *ending,
			   SaEnded *ended)
{
	Datum		value = PointerGetDatum(sa_bytea(hash, SA_HASH_LEN));

	return sa_end_sessions(sa_array(&value, 1, BYTEAOID), application, ending, ended);
}
