/*
 * apply_session.c
 *	  What follows of the rows in a product's own table of sessions.
 *
 * Such a session is a row of session like any other, with the product's name in it.
 * When it ends is the product's to say: by deleting its row, or by the time that it
 * gives it.  A request that the product notes in its row only counts (capture_row.c),
 * and does not come here.
 *
 * A row with the id of a session that has ended here is not one any more: it is deleted
 * by the trigger of the very statement that wrote it (ended_id.c).
 *
 * The product's row is locked by the statement that changed it.  That is what orders
 * this against an invalidation, which deletes that row before ours: see forget.c.
 */
#include "capture/capture.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/*
 * Are the logins of this application told by a time of last login, too?  Then a new
 * session is not counted as one again.
 */
static bool
logins_are_told(const char *application)
{
	static SaStatement find_last_login = {.sql =
		"SELECT FROM session_admin_internal.attachment_column"
		" WHERE application = $1 AND role = 'last_login_at' LIMIT 1"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	return sa_run(&find_last_login, &args) > 0;
}

/*
 * Count the login of a user, whose account is locked from here on.  A product's
 * transaction may have locked what somebody else needs who has the account: then it is
 * not waited for, and counted later, unless a policy limits the user's sessions.
 */
static void
log_in(const SaCaptured *captured, const SaSessionRow *row, const char *user_name)
{
	const char *application_name = captured->watch->application;
	SaApplication application;
	SaLoginEvent event = {
		.application = application_name,
		.user_name = user_name,
		.event = "login",
		.succeeded = true,
		.session_ref = text_to_cstring(sa_ref_text(row->id.hash))
	};
	bool		counts = !sa_captured_ignores_logins(captured) && !logins_are_told(application_name);
	int			on_session_limit;
	bool		waits;

	event.at = GetCurrentTimestamp();
	sa_application_get(application_name, &application);
	waits = sa_max_sessions(&application, sa_user_key(user_name), &on_session_limit) >= 0 ||
		sa_account_enter(application_name, user_name);
	if (counts && waits)
		sa_account_logged_in(application_name, user_name, event.at, NULL, NULL);
	else if (counts)
		sa_account_logged_in_later(application_name, user_name, event.at);
	else if (waits)
		(void) sa_account_make(application_name, user_name);
	if (counts)
		sa_login_event_record(&event);
	/* the lock may have been waited for */
	sa_application_get(application_name, &application);
	sa_limit_user(&application, user_name, row->id.hash, GetCurrentTimestamp());
}

/* Lock the row of this session without waiting; false if somebody else has it. */
static bool
session_lock(const uint8 *hash, const char *application, LockTupleMode mode, SaBusy *busy)
{
	static SaStatement find_session = {.sql =
		"SELECT ctid, session_hash FROM session_admin.session"
		" WHERE session_hash = $1 AND application = $2"
	};
	ArrayBuildState *left = NULL;
	SaArgs		args = {0};

	sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(hash, SA_HASH_LEN)), false);
	sa_arg_text(&args, application);
	sa_lock_found(SA_TABLE_SESSION, mode, &find_session, &args, BYTEAOID, NULL, &left, busy);
	return left == NULL;
}

/*
 * Does somebody else end this session?  If not, nobody can from here on.  Who only writes
 * to its row, as who flushes touches, is waited for a moment: he waits for nobody.
 */
static bool
session_is_ending(const uint8 *hash, const char *application)
{
	SaBusy		ending = {0};
	SaBusy		writing = {0};
	SaBusy		again = {0};

	if (!session_lock(hash, application, LockTupleKeyShare, &ending))
		return true;
	if (session_lock(hash, application, LockTupleExclusive, &writing))
		return false;
	(void) sa_wait_for(&writing, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), sa_lock_wait));
	return !session_lock(hash, application, LockTupleExclusive, &again);
}

/*
 * Write the session as the product has it now; false if it has ended meanwhile, or
 * somebody is about to end it.
 */
static bool
write_session(const SaCaptured *captured, const SaSessionRow *row, const char *user_name, bool logged_in)
{
	static SaStatement insert_session = {.sql =
		"INSERT INTO session_admin.session (session_hash, application, user_name, product,"
		" product_key, idle_timeout, last_access_at, log_id, generation, created_at)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
		" ON CONFLICT (session_hash, application) DO NOTHING"
	};
	static SaStatement update_session = {.sql =
		"UPDATE session_admin.session SET user_name = $3, product = $4, product_key = $5,"
		" idle_timeout = $6, last_access_at = greatest(last_access_at, $7), requests = requests + 1,"
		" opened_xid = CASE WHEN user_name IS DISTINCT FROM $3 THEN pg_current_xact_id() ELSE opened_xid END"
		" WHERE session_hash = $1 AND application = $2"
	};

	/* $9 is the hash that it had before */
	static SaStatement renew_session = {.sql =
		"INSERT INTO session_admin.session (session_hash, application, user_name, product,"
		" product_key, idle_timeout, last_access_at, log_id, generation, created_at, requests,"
		" login_method, client_address, peer_address, user_agent, device, node, reauthenticated_at,"
		" opened_xid)"
		" SELECT $1, application, $3, $4, $5, $6, $7, $8, generation, created_at,"
		"  requests + coalesce(session_admin_internal.live_requests(session_hash, application), 0) + 1,"
		"  login_method, client_address, peer_address, user_agent, device, node, reauthenticated_at,"
		/* as in sa_renew_session, of the same user */
		"  CASE WHEN user_name IS DISTINCT FROM $3"
		"    OR EXISTS (SELECT FROM session_admin_internal.late_ending WHERE keep_hash = session_hash)"
		"    THEN pg_current_xact_id() ELSE opened_xid END"
		" FROM session_admin.session WHERE session_hash = $9 AND application = $2"
		" ON CONFLICT (session_hash, application) DO NOTHING"
	};
	const SaWatch *watch = captured->watch;
	bool		same_id = memcmp(row->id.hash, row->old_id.hash, SA_HASH_LEN) == 0;
	Interval   *timeout = palloc0(sizeof(Interval));
	SaArgs		args = {0};

	/*
	 * whole seconds: what a product computes from the time of its statement
	 * varies
	 */
	if (row->idle_timeout != SA_NO_TIMEOUT)
		timeout->time = (row->idle_timeout + USECS_PER_SEC - 1) / USECS_PER_SEC * USECS_PER_SEC;
	sa_arg(&args, BYTEAOID, PointerGetDatum(sa_bytea(row->id.hash, SA_HASH_LEN)), false);
	sa_arg_text(&args, watch->application);
	sa_arg_text(&args, user_name);
	sa_arg_text(&args, watch->product);
	sa_arg_text(&args, row->key);
	sa_arg(&args, INTERVALOID, IntervalPGetDatum(timeout), row->idle_timeout == SA_NO_TIMEOUT);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(row->last_access_at), false);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		SaEnding	renewed = {.reason = "renewed", .at = now, .spares_products = true};
		SaEnding	replaced = {.reason = "replaced", .at = now, .spares_products = true};
		SaArgs		write_args = args;
		SaApplication application;
		SaSession	session;
		SaSeat		seat;
		bool		valid;
		bool		written;

		CHECK_FOR_INTERRUPTS();
		/* the product's row is locked, for which they may be waiting */
		if (!captured->backfill && session_is_ending(row->id.hash, watch->application))
			return same_id;
		sa_application_get(watch->application, &application);
		valid = sa_session_read(row->old_id.hash, watch->application, &session) &&
			sa_session_is_valid(&session, &application, row->old_id.hash, now);
		if (valid && !same_id && !captured->backfill &&
			session_is_ending(row->old_id.hash, watch->application))
		{
			sa_end_session(row->old_id.hash, watch->application, &renewed);
			/* a user who logs in goes on without it */
			if (session.user_name != NULL || user_name == NULL)
				return false;
			valid = false;
		}

		if (logged_in)
			sa_seat_take(&seat, watch->application, user_name, row->id.hash);
		if (valid && same_id)
			written = sa_run(&update_session, &write_args) > 0;
		else
		{
			sa_arg_text(&write_args, row->id.log_id);
			if (valid)
				sa_arg(&write_args, BYTEAOID,
					   PointerGetDatum(sa_bytea(row->old_id.hash, SA_HASH_LEN)), false);
			else
			{
				sa_arg(&write_args, INT8OID, Int64GetDatum(application.generation), false);
				sa_arg(&write_args, TIMESTAMPTZOID, TimestampTzGetDatum(row->created_at), false);
			}
			written = sa_run(valid ? &renew_session : &insert_session, &write_args) > 0;
		}
		if (logged_in)
			sa_seat_taken(&seat);

		if (written && valid && !same_id)
			sa_end_session(row->old_id.hash, watch->application, &renewed);
		if (written && !(valid && same_id))
		{
			SaLiveKey	key;

			/*
			 * what an earlier session of this id was touched is not this
			 * one's
			 */
			sa_live_key(&key, &application, row->id.hash);
			sa_unwritten_written(&key);
			/* who ended it had the same key, and was waited for */
			return !sa_id_is_remembered(row->id.hash, watch->application);
		}
		if (written)
			return true;

		/*
		 * What has this id is over, or it came or went meanwhile.  Taking a
		 * seat has looked applications up, and may have freed what ours
		 * points to.
		 */
		sa_application_get(watch->application, &application);
		if (!(sa_session_read(row->id.hash, watch->application, &session) && same_id &&
			  sa_session_is_valid(&session, &application, row->id.hash, now)))
			sa_end_session(row->id.hash, watch->application, &replaced);
		else if (captured->backfill && !captured->reconciling)
			return true;		/* who wrote it has seen a newer row than we */
	}
}

/* A row that is new or changed; false if its session has ended meanwhile. */
static bool
apply_row(SaCaptured *captured, const SaSessionRow *row, const char *user_name)
{
	const SaWatch *watch = captured->watch;
	SaEnding	ending = {.at = GetCurrentTimestamp(), .spares_products = true};
	bool		same_id = memcmp(row->id.hash, row->old_id.hash, SA_HASH_LEN) == 0;
	SaApplication application;
	SaSession	session;
	bool		known;
	bool		logged_in;

	sa_application_get(watch->application, &application);
	known = sa_session_read(row->old_id.hash, watch->application, &session) &&
		sa_session_is_valid(&session, &application, row->old_id.hash, ending.at);
	if (captured->backfill && !captured->reconciling && known && session.idle_timeout != 0)
		return true;

	/*
	 * another user in the same session, or none any more: that of the first
	 * is over
	 */
	if (known && session.user_name != NULL &&
		(user_name == NULL || strcmp(user_name, session.user_name) != 0))
	{
		ending.reason = user_name ? "replaced" : "logout";
		ending.may_return = true;
		if (sa_end_session(row->old_id.hash, watch->application, &ending) == 0 && same_id)
			return false;		/* nobody else can have its id while somebody
								 * has it locked */
		known = false;
	}

	logged_in = user_name != NULL && !captured->backfill &&
		(known ? session.user_name == NULL : row->logged_in);
	if (logged_in)
		log_in(captured, row, user_name);
	return write_session(captured, row, user_name, logged_in);
}

/*
 * Ids of sessions that stay ended
 */

/* The applications for which this table is watched as one of sessions. */
static List *
watching_applications(const SaWatch *watch)
{
	Relation	relation = table_open(watch->relid, AccessShareLock);
	List	   *applications = NIL;
	ListCell   *cell;

	foreach(cell, sa_watches_of(relation))
	{
		SaWatch    *other = lfirst(cell);

		if (other->part == SA_PART_SESSION && other->names_user)
			applications = lappend(applications, unconstify(char *, other->application));
	}
	table_close(relation, NoLock);
	return applications;
}

/* Has it ended in one of these applications?  The row then goes from all of them. */
static bool
has_ended_anywhere(const uint8 *hash, List *applications)
{
	ListCell   *cell;

	foreach(cell, applications)
	{
		if (sa_id_has_ended(hash, lfirst(cell)))
			return true;
	}
	return false;
}

/*
 * Mark the rows that bring back what has ended, by the id that they have now or, if
 * they could not be deleted, had before.  Returns how many.
 */
static int
mark_refused(SaCaptured *captured)
{
	List	   *applications = watching_applications(captured->watch);
	int			refused = 0;
	ListCell   *cell;

	foreach(cell, captured->session_rows)
	{
		SaSessionRow *row = lfirst(cell);
		bool		same_id = memcmp(row->id.hash, row->old_id.hash, SA_HASH_LEN) == 0;

		CHECK_FOR_INTERRUPTS();
		row->refused = has_ended_anywhere(row->id.hash, applications) ||
			(!same_id && has_ended_anywhere(row->old_id.hash, applications));
		refused += row->refused;
	}
	return refused;
}

typedef struct Refusal
{
	const SaWatch *watch;
	ArrayType  *secrets;
	ArrayType  *hashes;
	SaEnding	ending;
	uint64		deleted;
} Refusal;

static void
delete_refused_rows(void *argument)
{
	Refusal    *refusal = argument;

	refusal->deleted = sa_capture_forget_rows(refusal->watch, refusal->secrets, refusal->hashes,
											  &refusal->ending);
}

/*
 * Rows of sessions that have ended are still in the product's table.  Nobody is logged
 * in by them: each request that uses one comes here again.
 */
static void
rows_remain(const SaWatch *watch, const char *why)
{
	char	   *message = psprintf("rows of ended sessions were not deleted: %s", why);

	if (sa_capture_failure_once(watch->application, watch->relid, "DELETE", message))
		ereport(WARNING,
				(errmsg("\"%s\": %s", get_rel_name(watch->relid), message)));
}

/*
 * Refuse the rows that are marked: delete them in the product's table and end what
 * went on under another id until now.  The product's statement is no error.
 */
static void
refuse_rows(SaCaptured *captured)
{
	const SaWatch *watch = captured->watch;
	MemoryContext context = CurrentMemoryContext;
	ArrayBuildState *secrets = initArrayResult(TEXTOID, context, false);
	ArrayBuildState *hashes = initArrayResult(BYTEAOID, context, false);
	SaValues	renamed = {0};
	Refusal		refusal = {
		.watch = watch,
		.ending = {.reason = "admin", .at = GetCurrentTimestamp(), .spares_products = true}
	};
	ErrorData  *error;
	ListCell   *cell;

	foreach(cell, captured->session_rows)
	{
		SaSessionRow *row = lfirst(cell);

		if (!row->refused)
			continue;
		accumArrayResult(secrets, CStringGetTextDatum(row->secret), false, TEXTOID, context);
		accumArrayResult(hashes, PointerGetDatum(sa_bytea(row->id.hash, SA_HASH_LEN)),
						 false, BYTEAOID, context);
		if (memcmp(row->id.hash, row->old_id.hash, SA_HASH_LEN) != 0)
			sa_captured_add(captured, &renamed,
							PointerGetDatum(sa_bytea(row->old_id.hash, SA_HASH_LEN)), false);
	}
	refusal.secrets = DatumGetArrayTypeP(makeArrayResult(secrets, context));
	refusal.hashes = DatumGetArrayTypeP(makeArrayResult(hashes, context));
	error = sa_capture_attempt(delete_refused_rows, &refusal);

	if (error)
		rows_remain(watch, error->message);
	else
		captured->refused += refusal.deleted;

	sa_count_refused(refusal.hashes, watch->application);
	if (renamed.n > 0)
	{
		SaEnding	ending = {.reason = "renewed", .at = refusal.ending.at, .spares_products = true};

		sa_end_sessions(construct_array(renamed.values, renamed.n, BYTEAOID, -1, false,
										TYPALIGN_INT), watch->application, &ending);
	}
}

/* Take the refused rows out of the batch. */
static void
leave_refused(SaCaptured *captured)
{
	List	   *left = NIL;
	ListCell   *cell;

	foreach(cell, captured->session_rows)
	{
		SaSessionRow *row = lfirst(cell);

		if (!row->refused)
			left = lappend(left, row);
	}
	captured->session_rows = left;
}

/* The ids themselves have served. */
void
sa_captured_wipe(List *rows)
{
	ListCell   *cell;

	foreach(cell, rows)
	{
		SaSessionRow *row = lfirst(cell);

		explicit_bzero(row->secret, strlen(row->secret));
	}
}

/*
 * Is this the first use after a restore, by which all sessions end?  Then the product's
 * rows have just been deleted, those of this statement with them.
 */
static bool
came_from_a_dump(const char *name)
{
	SaApplication application;
	bool		moved = sa_application_find(name, &application) && application.moved;

	sa_application_make(name, &application);
	return moved && application.on_restore == SA_INVALIDATE;
}

/* Apply what the batch tells of sessions. */
void
sa_captured_flush_sessions(SaCaptured *captured)
{
	const char *application = captured->watch->application;
	SaValues   *ended[] = {&captured->session_closed, &captured->session_expired};
	List	   *rows = captured->session_rows;
	SaValues	users = {0};
	int			refused = 0;
	ListCell   *cell;

	for (size_t i = 0; i < lengthof(ended); i++)
	{
		SaEnding	ending = {.reason = i == 0 ? "logout" : "idle_timeout",
		.at = GetCurrentTimestamp(), .spares_products = true, .may_return = true};

		if (ended[i]->n > 0)
			sa_end_sessions(construct_array(ended[i]->values, ended[i]->n, BYTEAOID, -1, false,
											TYPALIGN_INT), application, &ending);
	}

	if (rows == NIL || came_from_a_dump(application))
	{
		sa_captured_wipe(rows);
		return;
	}
	if (mark_refused(captured) > 0)
	{
		refuse_rows(captured);
		leave_refused(captured);
	}
	foreach(cell, captured->session_rows)
		sa_captured_add_text(captured, &users, ((SaSessionRow *) lfirst(cell))->user);
	if (SA_HAS(captured->watch, SA_ROLE_USER_KEY))
	{
		SaValues	keys = users;

		sa_captured_resolve(captured, &keys, &users);
	}
	sa_captured_make_accounts(captured, &users);
	/* of several logins, in the order of names */
	if (list_length(captured->session_rows) > 1 && captured->insertion && !captured->backfill)
		sa_captured_enter_accounts(captured, &users);
	foreach(cell, captured->session_rows)
	{
		int			i = foreach_current_index(cell);
		SaSessionRow *row = lfirst(cell);

		if (!apply_row(captured, row,
					   users.nulls[i] ? NULL : TextDatumGetCString(users.values[i])))
			row->refused = true;
		refused += row->refused;
		captured->written += !row->refused;
	}
	if (refused > 0)
		refuse_rows(captured);
	sa_captured_wipe(rows);
}

/* All sessions of the product are gone. */
void
sa_captured_truncated_sessions(SaCaptured *captured)
{
	static SaStatement delete_sessions = {.sql =
		"DELETE FROM session_admin.session WHERE application = $1 AND product = $2"
	};
	const SaWatch *watch = captured->watch;
	SaEnding	ending = {.reason = "admin", .at = GetCurrentTimestamp(),
	.caller_writes_feed = true, .spares_products = true, .may_return = true};
	SaFeedRow	row = {.scope = "application", .application = watch->application};
	SaArgs		args = {0};

	SPI_connect();
	sa_arg_text(&args, watch->application);
	sa_arg_text(&args, watch->product);
	sa_run_ending(&ending, &delete_sessions, &args);
	sa_feed_write(&row, &ending);
	sa_feed_notify(&row);
	SPI_finish();
}
