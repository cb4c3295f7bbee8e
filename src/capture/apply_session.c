/*
 * apply_session.c
 *	  What follows of the rows in a product's own table of sessions.
 *
 * Such a session is a row of session like any other, with the product's name in it.  When
 * it ends is the product's to say, by deleting its row or by the time that it gives it.
 * The product's statement has the product's row locked, which orders this against an
 * invalidation: that deletes the product's row before ours.
 */
#include "capture/apply.h"
#include "policy/policy.h"
#include "live/live.h"
#include "session/session.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * Are the logins of this application told by a time of last login, too?  Then a new
 * session is not counted as one again.
 */
static bool
apply_logins_are_told(const char *application)
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
 * Count the login of a user, whose account is locked from here on.  If another
 * transaction has the account, it may need what the product's transaction has locked:
 * it is not waited for, and the login is counted later, unless a policy limits the
 * user's sessions.
 */
static void
apply_log_in(const SaBatch *batch, const SaSessionRow *row, const char *user_name)
{
	const char *application_name = batch->watch->application;
	SaApplication application;
	SaLoginEvent event = {
		.application = application_name,
		.user_name = user_name,
		.event = "login",
		.succeeded = true,
		.session_ref = text_to_cstring(sa_ref_text(row->id.hash))
	};
	bool		counts = !sa_batch_ignores_logins(batch) && !apply_logins_are_told(application_name);
	int			on_session_limit;
	bool		waits;

	event.at = GetCurrentTimestamp();
	sa_application_get(application_name, &application);
	waits = sa_max_sessions(&application, user_name, &on_session_limit) >= 0 ||
		sa_account_enter(application_name, user_name);
	if (counts && waits)
		sa_account_count_login(application_name, user_name, event.at, NULL, NULL);
	else if (counts)
		sa_account_count_login_later(application_name, user_name, event.at);
	else if (waits)
		(void) sa_account_ensure(application_name, user_name);
	if (counts)
		sa_login_event_record(&event);
	/* the lock may have been waited for */
	sa_application_get(application_name, &application);
	sa_limit_user(&application, user_name, row->id.hash, GetCurrentTimestamp());
}

/* Lock the row of this session without waiting; false if somebody else has it. */
static bool
apply_lock_session(const uint8 *hash, const char *application, LockTupleMode mode, SaBusy *busy)
{
	static SaStatement find_session = {.sql =
		"SELECT ctid, session_hash FROM session_admin.session"
		" WHERE session_hash = $1 AND application = $2"
	};
	ArrayBuildState *left = NULL;
	SaArgs		args = {0};

	sa_arg_hash(&args, hash);
	sa_arg_text(&args, application);
	sa_lock_found(SA_TABLE_SESSION, mode, &find_session, &args, BYTEAOID, NULL, &left, busy);
	return left == NULL;
}

/*
 * Is another transaction ending this session? If not, none can from here on.  One that
 * only writes to the row, to flush touches, waits for nobody, and is waited for, for a
 * moment.
 */
static bool
apply_session_is_ending(const uint8 *hash, const char *application)
{
	SaBusy		ending = {0};
	SaBusy		writing = {0};
	SaBusy		again = {0};

	if (!apply_lock_session(hash, application, LockTupleKeyShare, &ending))
		return true;
	if (apply_lock_session(hash, application, LockTupleExclusive, &writing))
		return false;
	(void) sa_wait_for(&writing, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), sa_lock_wait));
	return !apply_lock_session(hash, application, LockTupleExclusive, &again);
}

/* A session that is to be written as the product has it now. */
typedef struct Writing
{
	const SaBatch *batch;
	const SaSessionRow *row;
	const char *user_name;
	bool		same_id;
	SaArgs		args;			/* that all statements have */
	TimestampTz now;
	SaApplication application;
	bool		valid;			/* is the session of the old id, then? */
} Writing;

typedef enum WritingState
{
	WRITING_GOES_ON,
	WRITING_DONE,
	WRITING_REFUSED				/* it has ended, or another transaction ends
								 * it */
} WritingState;

static void
writing_begin(Writing *writing)
{
	const SaSessionRow *row = writing->row;
	const SaWatch *watch = writing->batch->watch;
	Interval   *timeout = palloc0(sizeof(Interval));
	SaArgs	   *args = &writing->args;

	writing->same_id = memcmp(row->id.hash, row->old_id.hash, SA_HASH_LEN) == 0;

	/*
	 * whole seconds: what a product computes from the time of its statement
	 * varies
	 */
	if (row->idle_timeout != SA_NO_TIMEOUT)
		timeout->time = (row->idle_timeout + USECS_PER_SEC - 1) / USECS_PER_SEC * USECS_PER_SEC;
	sa_arg_hash(args, row->id.hash);
	sa_arg_text(args, watch->application);
	sa_arg_text(args, writing->user_name);
	sa_arg_text(args, watch->product);
	sa_arg_text(args, row->key);
	sa_arg(args, INTERVALOID, IntervalPGetDatum(timeout), row->idle_timeout == SA_NO_TIMEOUT);
	sa_arg(args, TIMESTAMPTZOID, TimestampTzGetDatum(row->last_access_at), false);
}

/*
 * Read the session of the old id, and look whether another transaction ends it or the
 * new one.
 */
static WritingState
writing_look(Writing *writing)
{
	const SaSessionRow *row = writing->row;
	const char *application = writing->batch->watch->application;
	bool		backfill = writing->batch->backfill;
	SaEnding	renewed = {.reason = "renewed", .at = writing->now,.options.spares_products = true};
	SaSession	session;

	/* that transaction may be waiting for the product's row, which is locked */
	if (!backfill && apply_session_is_ending(row->id.hash, application))
		return writing->same_id ? WRITING_DONE : WRITING_REFUSED;
	sa_application_get(application, &writing->application);
	writing->valid = sa_session_read(row->old_id.hash, application, &session) &&
		sa_session_is_valid(&session, &writing->application, row->old_id.hash, writing->now);
	if (writing->valid && !writing->same_id && !backfill &&
		apply_session_is_ending(row->old_id.hash, application))
	{
		sa_end_session(row->old_id.hash, application, &renewed, NULL);
		/* a user who logs in goes on without it */
		if (session.user_name != NULL || writing->user_name == NULL)
			return WRITING_REFUSED;
		writing->valid = false;
	}
	return WRITING_GOES_ON;
}

/* Write the session; false if another one has its id, or it is gone. */
static bool
writing_run(Writing *writing)
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
	const SaSessionRow *row = writing->row;
	SaArgs		args = writing->args;

	if (writing->valid && writing->same_id)
		return sa_run(&update_session, &args) > 0;
	sa_arg_text(&args, row->id.log_id);
	if (writing->valid)
	{
		sa_arg_hash(&args, row->old_id.hash);
		return sa_run(&renew_session, &args) > 0;
	}
	sa_arg(&args, INT8OID, Int64GetDatum(writing->application.generation), false);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(row->created_at), false);
	return sa_run(&insert_session, &args) > 0;
}

/* After it was written: end what it replaces. */
static WritingState
writing_finish(Writing *writing)
{
	const SaSessionRow *row = writing->row;
	const char *application = writing->batch->watch->application;
	SaEnding	renewed = {.reason = "renewed", .at = writing->now,.options.spares_products = true};
	SaLiveKey	key;

	if (writing->valid && writing->same_id)
		return WRITING_DONE;
	if (writing->valid)
		sa_end_session(row->old_id.hash, application, &renewed, NULL);

	/* touches of an earlier session of this id do not count */
	sa_live_key(&key, &writing->application, row->id.hash);
	sa_unwritten_forget(&key);
	/* an ending of it had the same key, and was waited for */
	return sa_id_is_remembered(row->id.hash, application) ? WRITING_REFUSED : WRITING_DONE;
}

/* If it was not written: what has this id is over, or came or went meanwhile. */
static WritingState
writing_clear(Writing *writing)
{
	const SaSessionRow *row = writing->row;
	const char *application = writing->batch->watch->application;
	SaEnding	replaced = {.reason = "replaced", .at = writing->now,.options.spares_products = true};
	SaSession	session;

	/*
	 * taking a seat has looked applications up, and may have freed what ours
	 * points to
	 */
	sa_application_get(application, &writing->application);
	if (!(sa_session_read(row->id.hash, application, &session) && writing->same_id &&
		  sa_session_is_valid(&session, &writing->application, row->id.hash, writing->now)))
		sa_end_session(row->id.hash, application, &replaced, NULL);
	else if (writing->batch->backfill && !writing->batch->reconciling)
		return WRITING_DONE;	/* another transaction wrote it from a newer
								 * row */
	return WRITING_GOES_ON;
}

/*
 * Write the session as the product has it now; false if it has ended meanwhile, or
 * another transaction ends it.
 */
static bool
apply_write_session(const SaBatch *batch, const SaSessionRow *row, const char *user_name, bool logged_in)
{
	Writing		writing = {
		.batch = batch,
		.row = row,
		.user_name = user_name
	};
	WritingState state = WRITING_GOES_ON;

	writing_begin(&writing);
	while (state == WRITING_GOES_ON)
	{
		SaSeat		seat;
		bool		written;

		CHECK_FOR_INTERRUPTS();
		writing.now = GetCurrentTimestamp();
		state = writing_look(&writing);
		if (state != WRITING_GOES_ON)
			break;
		if (logged_in)
			sa_seat_take(&seat, batch->watch->application, user_name, row->id.hash);
		written = writing_run(&writing);
		if (logged_in)
			sa_seat_release(&seat);
		state = written ? writing_finish(&writing) : writing_clear(&writing);
	}
	return state == WRITING_DONE;
}

/* A row that is new or changed; false if its session has ended meanwhile. */
static bool
apply_session_row(SaBatch *batch, const SaSessionRow *row, const char *user_name)
{
	const SaWatch *watch = batch->watch;
	SaEnding	ending = {.at = GetCurrentTimestamp(),.options.spares_products = true};
	bool		same_id = memcmp(row->id.hash, row->old_id.hash, SA_HASH_LEN) == 0;
	SaApplication application;
	SaSession	session;
	bool		known;
	bool		logged_in;

	sa_application_get(watch->application, &application);
	known = sa_session_read(row->old_id.hash, watch->application, &session) &&
		sa_session_is_valid(&session, &application, row->old_id.hash, ending.at);
	if (batch->backfill && !batch->reconciling && known && session.idle_timeout != 0)
		return true;

	/*
	 * another user in the same session, or none any more: that of the first
	 * is over
	 */
	if (known && session.user_name != NULL &&
		(user_name == NULL || strcmp(user_name, session.user_name) != 0))
	{
		ending.reason = user_name ? "replaced" : "logout";
		ending.options.may_return = true;
		if (sa_end_session(row->old_id.hash, watch->application, &ending, NULL) == 0 && same_id)
			return false;		/* while that session is locked, no other can
								 * have its id */
		known = false;
	}

	logged_in = user_name != NULL && !batch->backfill &&
		(known ? session.user_name == NULL : row->logged_in);
	if (logged_in)
		apply_log_in(batch, row, user_name);
	return apply_write_session(batch, row, user_name, logged_in);
}

/*
 * Is this the first use after a restore, by which all sessions end?  Then the product's
 * rows have just been deleted, those of this statement with them.
 */
static bool
apply_came_from_a_dump(const char *name)
{
	SaApplication application;
	bool		moved = sa_application_find(name, &application) && application.moved;

	sa_application_ensure(name, &application);
	return moved && application.on_restore == SA_INVALIDATE;
}

/* Apply what the batch tells of sessions. */
void
sa_apply_sessions(SaBatch *batch)
{
	const char *application = batch->watch->application;
	SaValues   *ended[] = {&batch->session_closed, &batch->session_expired};
	SaValues	users = {0};
	int			refused = 0;
	ListCell   *cell;

	for (size_t i = 0; i < lengthof(ended); i++)
	{
		SaEnding	ending = {.reason = i == 0 ? "logout" : "idle_timeout",
		.at = GetCurrentTimestamp(), .options = {.spares_products = true, .may_return = true}};

		if (ended[i]->n > 0)
			sa_end_sessions(sa_array(ended[i]->values, ended[i]->n, BYTEAOID), application, &ending,
							NULL);
	}

	if (batch->session_rows == NIL || apply_came_from_a_dump(application))
	{
		sa_batch_wipe(batch);
		return;
	}
	if (sa_refuse_mark(batch) > 0)
	{
		sa_refuse_rows(batch);
		sa_refuse_leave(batch);
	}
	foreach(cell, batch->session_rows)
		sa_batch_add_text(batch, &users, ((SaSessionRow *) lfirst(cell))->user);
	if (SA_HAS(batch->watch, SA_ROLE_USER_KEY))
	{
		SaValues	keys = users;

		sa_batch_resolve(batch, &keys, &users);
	}
	sa_batch_make_accounts(batch, &users);
	/* of several logins, in the order of names */
	if (list_length(batch->session_rows) > 1 && batch->insertion && !batch->backfill)
		sa_batch_enter_accounts(batch, &users);
	foreach(cell, batch->session_rows)
	{
		int			i = foreach_current_index(cell);
		SaSessionRow *row = lfirst(cell);

		if (!apply_session_row(batch, row,
							   users.nulls[i] ? NULL : TextDatumGetCString(users.values[i])))
			row->refused = true;
		refused += row->refused;
		batch->written += !row->refused;
	}
	if (refused > 0)
		sa_refuse_rows(batch);
	sa_batch_wipe(batch);
}

/* All sessions of the product are gone. */
void
sa_apply_truncated_sessions(SaBatch *batch)
{
	static SaStatement delete_sessions = {.sql =
		"DELETE FROM session_admin.session WHERE application = $1 AND product = $2"
	};
	const SaWatch *watch = batch->watch;
	SaEnding	ending = {.reason = "admin", .at = GetCurrentTimestamp(),
	.options = {.caller_writes_feed = true, .spares_products = true, .may_return = true}};
	SaEnded		ended = {0};
	SaFeedRow	row = {.scope = "application", .application = watch->application};
	SaArgs		args = {0};

	sa_arg_text(&args, watch->application);
	sa_arg_text(&args, watch->product);
	sa_delete_for(&ending, &ended, &delete_sessions, &args);
	sa_feed_write(&row, &ending, &ended);
	sa_feed_queue(&row);
}
