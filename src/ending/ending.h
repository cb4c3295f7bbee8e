/*
 * ending.h
 *	  The one door: how sessions and tokens end, the feed, accounts.
 */
#ifndef SA_ENDING_H
#define SA_ENDING_H

#include "live/live.h"

/* account.c: login counters, and the lock that orders what happens to a user */
extern bool sa_account_lock(const char *application, const char *user_name);
extern void sa_accounts_try(const char *application, ArrayType *user_names,
							ArrayBuildState **left, SaBusy *busy);
extern void sa_accounts_lock(const char *application, ArrayType *user_names);
extern bool sa_account_make(const char *application, const char *user_name);
extern void sa_account_logged_in(const char *application, const char *user_name,
								 TimestampTz at, inet *address, const char *login_method);
extern void sa_login_announce(const char *application, const char *user_name);
extern bool sa_account_enter(const char *application, const char *user_name);
extern void sa_account_logged_in_later(const char *application, const char *user_name,
									   TimestampTz at);
extern void sa_account_login_failed(const char *application, const char *user_name,
									TimestampTz at);

/* login_event.c: what is written to the history of logins */
typedef struct SaLoginEvent
{
	const char *application;
	const char *user_name;
	const char *event;
	bool		succeeded;
	const char *login_method;
	inet	   *client_address;
	const char *user_agent;
	const char *device;
	const char *node;
	const char *session_ref;
	const char *detail;
	TimestampTz at;				/* 0: now */
} SaLoginEvent;

extern void sa_login_event_record(const SaLoginEvent *event);

/* invalidation.c: the one door */

/*
 * Why rows leave session and remember_me_token.  The triggers on these tables
 * read it; without one they see a DBA's own DELETE.
 */
typedef struct SaEnding
{
	const char *reason;
	TimestampTz at;
	const char *ended_by;		/* of a generation; NULL: session_user */
	bool		caller_writes_feed; /* one row for all, instead of one a
									 * session or token */
	bool		caller_notifies;	/* once, of several endings */
	bool		spares_products;	/* whose own rows stay as they are */
	bool		skips_locked;	/* or those of them that somebody has locked */
	TimestampTz wait_until;		/* for what others have locked: see lock.c */
	bool		first_login;	/* somebody makes an account that nobody sees */
	bool		had_ended;		/* before, by themselves: nobody is told so */
	bool		may_return;		/* the product ended them, and may use their
								 * ids again */
	bool		wants_users;	/* of each that ended, in this context */
	MemoryContext context;
	/* the rest is the result */
	int64		id;				/* of the last row of the feed, 0 for none */
	int64		sessions_ended; /* negative: too many to be counted at once */
	int64		tokens_revoked;
	ArrayBuildState *ended_users;	/* the names, one a session */
	ArrayBuildState *revoked_users; /* one a token */
	ArrayBuildState *forgotten; /* sessions whose rows in products' tables are
								 * gone */
} SaEnding;

extern SaEnding *sa_ending;
extern uint64 sa_run_ending(SaEnding *ending, SaStatement *statement, SaArgs *args);
extern uint64 sa_end_sessions(ArrayType *hashes, const char *application, SaEnding *ending);
extern uint64 sa_end_session(const uint8 *hash, const char *application, SaEnding *ending);
extern void sa_end_users(const char *application, ArrayType *user_names,
						 const uint8 *keep_session, bool keep_remember_me,
						 SaEnding *ending);
extern void sa_end_user(const char *application, const char *user_name,
						const uint8 *keep_session, bool keep_remember_me,
						SaEnding *ending);
extern void sa_end_generation(const char *application, SaEnding *ending);
extern Datum sa_ending_result(FunctionCallInfo fcinfo, const SaEnding *ending);

/* late.c: what has ended although somebody else had it locked */
extern void sa_late_end(const char *application, const char *user_name, const uint8 *hash,
						const uint8 *keep, bool tokens, const SaEnding *ending);

/* In SQL: those that may concern a row of session or remember_me_token called "t". */
#define SA_LATE_ENDINGS_OF(t) \
	"session_admin_internal.late_ending l WHERE " t ".opened_xid < l.before_xid" \
	" AND (l.application IS NULL OR l.application = " t ".application)"
#define SA_LATE_ENDINGS_OF_SESSION(t) \
	SA_LATE_ENDINGS_OF(t) \
	" AND (l.user_name IS NULL OR l.user_name = " t ".user_name)" \
	" AND (l.session_hash IS NULL OR l.session_hash = " t ".session_hash)" \
	" AND l.keep_hash IS DISTINCT FROM " t ".session_hash"
#define SA_TOKEN_ENDED_LATE(t) \
	"EXISTS (SELECT FROM " SA_LATE_ENDINGS_OF(t) \
	" AND l.tokens AND (l.user_name IS NULL OR l.user_name = " t ".user_name))"

extern void sa_late_read(SaApplication *application, MemoryContext context);
extern bool sa_late_ended(const SaApplication *application, uint64 user_key, const uint8 *hash,
						  uint64 opened_xid);
extern int64 sa_late_forget(bool *more);	/* a task of maintain() */

/* ended_id.c: ids of sessions that stay ended */
extern bool sa_id_is_remembered(const uint8 *hash, const char *application);
extern bool sa_id_has_ended(const uint8 *hash, const char *application);
extern void sa_refuse_ended_id(void) pg_attribute_noreturn();
extern void sa_count_refused(ArrayType *hashes, const char *application);
extern int64 sa_forget_ended_ids(bool *more);	/* a task of maintain() */

/* feed.c: what nodes are told */
typedef struct SaFeedRow
{
	int64		id;
	const char *scope;
	const char *application;
	const char *user_name;
	const uint8 *session_hash;
	const char *reason;
} SaFeedRow;

extern void sa_feed_write(SaFeedRow *row, const SaEnding *ending);
extern void sa_feed_notify(const SaFeedRow *row);
extern void sa_feed_notify_many(int64 id);
extern void sa_feed_ring(int64 id, const char *payload);

extern int64 sa_feed_purge(bool *more); /* a task of maintain(): one batch */

#endif							/* SA_ENDING_H */
