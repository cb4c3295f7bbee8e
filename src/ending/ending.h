/*
 * ending.h
 *	  The one door: how sessions and tokens end, the feed, accounts.
 */
#ifndef SA_ENDING_H
#define SA_ENDING_H

#include "policy/policy.h"

/* account.c: login counters, and the lock that orders what happens to a user */
extern bool sa_account_lock(const char *application, const char *user_name);
extern void sa_accounts_try(const char *application, ArrayType *user_names,
							ArrayBuildState **left, SaBusy *busy);
extern void sa_accounts_lock(const char *application, ArrayType *user_names);
extern bool sa_account_ensure(const char *application, const char *user_name);
extern void sa_account_count_login(const char *application, const char *user_name,
								   TimestampTz at, inet *address, const char *login_method);
extern void sa_login_announce(const char *application, const char *user_name);
extern bool sa_account_enter(const char *application, const char *user_name);
extern void sa_account_count_login_later(const char *application, const char *user_name,
										 TimestampTz at);
extern void sa_account_count_failure(const char *application, const char *user_name,
									 TimestampTz at);

/* account.c: the history of logins */
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

/* first_use.c: an application is made, or adopted after a restore */
typedef enum SaDatabaseState
{
	SA_DATABASE_IN_RESTORE,		/* or one may be under way */
	SA_DATABASE_UNUSED,
	SA_DATABASE_IN_USE
} SaDatabaseState;

extern void sa_application_ensure(const char *name, SaApplication *application);
extern void sa_adopt_all(void);
extern SaDatabaseState sa_database_state(void);

/* archive.c, ending.c, generation.c, invalidate.c: how sessions and tokens end */

/* How an ending differs from the usual one. */
typedef struct SaEndingOptions
{
	bool		caller_writes_feed; /* one row for all, instead of one a
									 * session or token */
	bool		caller_notifies;	/* once, of several endings */
	bool		spares_products;	/* whose own rows stay as they are */
	bool		skips_locked;	/* or those of them that another transaction
								 * has locked */
	bool		first_login;	/* a first login is under way, and its account
								 * not visible yet */
	bool		had_ended;		/* before, by time or with their generation */
	bool		may_return;		/* the product ended them, and may use their
								 * ids again */
	bool		wants_users;	/* of each that ended: see SaEnded */
} SaEndingOptions;

/*
 * Why rows leave session and remember_me_token.  The triggers on these tables
 * read it; without one they see a DBA's own DELETE.
 */
typedef struct SaEnding
{
	const char *reason;
	TimestampTz at;
	const char *ended_by;		/* of a generation; NULL: session_user */
	TimestampTz wait_until;		/* for what others have locked: see lock.c */
	SaEndingOptions options;
} SaEnding;

/* The result of an ending.  Counts are added to it; as an argument it may be NULL. */
typedef struct SaEnded
{
	int64		id;				/* of the last row of the feed, 0 for none */
	int64		sessions_ended; /* negative: too many to be counted at once */
	int64		tokens_revoked;
	MemoryContext context;		/* of the lists; NULL: "found_by_user" is not
								 * wanted */
	ArrayBuildState *ended_users;	/* the names, one a session */
	ArrayBuildState *revoked_users; /* one a token */
	ArrayBuildState *found_by_user; /* sessions whose rows in products' tables
									 * named one of these users, and are gone */
} SaEnded;

extern uint64 sa_delete_for(const SaEnding *ending, SaEnded *ended, SaStatement *statement,
							SaArgs *args);
extern uint64 sa_end_sessions(ArrayType *hashes, const char *application,
							  const SaEnding *ending, SaEnded *ended);
extern uint64 sa_end_session(const uint8 *hash, const char *application,
							 const SaEnding *ending, SaEnded *ended);
extern void sa_end_users(const char *application, ArrayType *user_names,
						 const uint8 *keep_session, bool keep_remember_me,
						 const SaEnding *ending, SaEnded *ended);
extern void sa_end_user(const char *application, const char *user_name,
						const uint8 *keep_session, bool keep_remember_me,
						const SaEnding *ending, SaEnded *ended);
extern void sa_end_generation(const char *application, const SaEnding *ending, SaEnded *ended);
extern Datum sa_ending_result(FunctionCallInfo fcinfo, const SaEnded *ended);

/*
 * The rows of sessions and remember-me tokens in tables of products.  This is the one
 * call upward: src/capture fills it in.  A list names the tables that have such rows;
 * its elements are private to src/capture.
 */
typedef struct SaProductRows
{
	/* Of these users, but for one session, and for tokens if they are kept. */
	List	   *(*of_users) (const char *application, ArrayType *user_names,
							 const uint8 *keep_session, bool keep_remember_me);

	/*
	 * Of the sessions that a statement finds: it gives application, product,
	 * their keys, the hashes of those that have no key, and those of all.
	 */
	List	   *(*of_sessions) (SaStatement *which, SaArgs *args);

	/* Lock them without waiting; the first that is locked goes to *busy. */
	void		(*lock) (List *tables, SaBusy *busy);

	/* Does another transaction have a row of a session locked? */
	bool		(*any_busy) (List *tables);

	/* Of what is locked, keep the rows of these sessions (hashes). */
	List	   *(*keep) (List *tables, ArrayType *hashes);

	/* Delete what is locked, and note what remains. */
	void		(*delete_locked) (List *tables, const SaEnding *ending, SaEnded *ended);

	/* Delete those of the sessions that a statement finds, without waiting. */
	void		(*delete_sessions) (SaStatement *which, SaArgs *args,
									const SaEnding *ending, SaEnded *ended);

	/* Delete all that an application has, and count the tokens. */
	void		(*delete_application) (const char *application, const SaEnding *ending,
									   SaEnded *ended);

	/*
	 * Before delete_application: wait for the transactions that write the
	 * tables of an application (NULL: of all), while nothing is locked. False
	 * if that takes too long.
	 */
	bool		(*wait_for_writers) (const char *application, TimestampTz until);
} SaProductRows;

extern const SaProductRows *sa_product_rows;	/* NULL: there are none */

/* late.c: what has ended although another transaction had it locked */
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

/*
 * In SQL: has a row of remember_me_token called "t" ended?  What tells it is joined to the
 * row as "a" and "l".  View token_state also says when and why, and takes some six times
 * as long.
 */
#define SA_JOIN_TOKEN_LIMITS(t) \
	" JOIN session_admin_internal.application_state a ON a.name = " t ".application" \
	" JOIN session_admin_internal.time_limit l ON l.application = " t ".application"
#define SA_TOKEN_HAS_ENDED(t) \
	"(" t ".generation <> a.generation" \
	" OR " t ".created_at + l.remember_me_lifetime <= clock_timestamp()" \
	" OR " SA_TOKEN_ENDED_LATE(t) ")"

extern int64 sa_late_purge(bool *more); /* a task of maintain() */

/* ended_id.c: ids of sessions that stay ended */
extern bool sa_id_is_remembered(const uint8 *hash, const char *application);
extern bool sa_id_has_ended(const uint8 *hash, const char *application);
pg_noreturn extern void sa_refuse_ended_id(void);
extern void sa_count_refused(ArrayType *hashes, const char *application);
extern int64 sa_ended_ids_purge(bool *more);	/* a task of maintain() */

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

extern void sa_feed_write(SaFeedRow *row, const SaEnding *ending, const SaEnded *ended);
extern void sa_feed_queue(const SaFeedRow *row);
extern void sa_feed_queue_many(int64 id);

/* bell.c: notifies them */
extern void sa_bell_queue(int64 id, const char *payload);
extern void sa_ending_init(void);

/* news.c: wakes who waits for something new in the feed */
extern bool sa_news_usable(void);
extern void sa_news_tell(void);
extern uint64 sa_news_prepare(void);
extern void sa_news_sleep(uint64 seen, long timeout);	/* in milliseconds */
extern bool sa_news_since(uint64 seen);
extern void sa_news_cancel(void);
extern void sa_news_init(void);

extern int64 sa_feed_purge(bool *more); /* a task of maintain(): one batch */

#endif							/* SA_ENDING_H */
