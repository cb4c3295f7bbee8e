/*
 * session_admin.h
 *	  What the files of session_admin share, grouped by the file that defines it.
 */
#ifndef SESSION_ADMIN_H
#define SESSION_ADMIN_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "executor/tuptable.h"
#include "nodes/lockoptions.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/inet.h"

#include "base/compat.h"

#define SA_HASH_LEN			32	/* SHA-256 */
#define SA_REF_LEN			12	/* hex digits of a session_ref */
#define SA_REF_MIN_LEN		8	/* the shortest prefix that names a session */
#define SA_LOG_ID_LEN		7	/* base 36 digits of a CRC-32, at most */
#define SA_NAME_MAX			63	/* bytes in the name of an application */
#define SA_USER_NAME_MAX	1024	/* bytes in a user name */
#define SA_LABEL_MAX		255 /* bytes kept of device, node, method */
#define SA_REQUESTS_MAX		1000000000	/* in one touch */
#define SA_USER_AGENT_MAX	1024	/* bytes kept of a user agent */

#define SA_ERRCODE_NOT_FOUND	MAKE_SQLSTATE('P', 'T', '4', '0', '4')
#define SA_ERRCODE_LIMIT		MAKE_SQLSTATE('P', 'T', '4', '0', '9')
#define SA_ERRCODE_GONE			MAKE_SQLSTATE('P', 'T', '4', '1', '0')

/* guc.c: the settings */
extern char *sa_application;
extern char *sa_actor;
extern char *sa_current_session;
extern bool sa_notify_detail;
extern int	sa_touch_interval;	/* seconds */
extern int	sa_max_live_sessions;
extern int	sa_flush_interval;	/* seconds */
extern int	sa_lock_wait;		/* milliseconds */
extern bool sa_use_shared_memory;
extern bool sa_worker_enabled;
extern int	sa_max_applications;
extern const char *sa_actor_or_null(void);
extern void sa_guc_init(void);

/* clock.c: a clock that nobody sets */
extern int64 sa_monotonic_now(void);	/* in microseconds */

/* spi.c: statements that are prepared once, and always see the latest data */
typedef struct SaStatement
{
	const char *sql;
	bool		generic;		/* never planned for its arguments: that takes
								 * longer than to run it */
	SPIPlanPtr	plan;			/* kept from the first run on */
	SPIPlanPtr	plan_for_many;	/* the same, planned for each run anew */
} SaStatement;

#define SA_MAX_ARGS 24

typedef struct SaArgs
{
	int			n;
	Oid			types[SA_MAX_ARGS];
	Datum		values[SA_MAX_ARGS];
	char		nulls[SA_MAX_ARGS];
} SaArgs;

extern void sa_arg(SaArgs *args, Oid type, Datum value, bool isnull);
extern void sa_arg_text(SaArgs *args, const char *value);	/* NULL is null */
extern uint64 sa_run(SaStatement *statement, SaArgs *args);
extern Datum sa_result(uint64 row, int column, bool *isnull);
extern int64 sa_result_int64(uint64 row, int column);
extern char *sa_result_text(uint64 row, int column);	/* NULL if null */

extern ErrorData *sa_attempt(void (*step) (void *), void *argument);

typedef struct SaOwner
{
	Oid			save_userid;
	int			save_sec_context;
	int			save_nestlevel;
} SaOwner;

extern void sa_owner_enter(SaOwner *owner);
extern void sa_owner_leave(SaOwner *owner);

/* lock.c: the order of locks, and who waits for one */
typedef enum SaRowLock
{
	SA_ROW_LOCKED,
	SA_ROW_CHANGED,				/* a newer version than the one that was found
								 * is */
	SA_ROW_GONE,
	SA_ROW_BUSY					/* somebody else has it locked */
} SaRowLock;

/* The first that somebody else has locked; all zero if nothing is. */
typedef struct SaBusy
{
	bool		stops;			/* nothing is taken after the first */
	bool		any;
	TransactionId holder;		/* of a row */
	VirtualTransactionId writer;	/* who writes a table */
	Oid			relid;			/* a table, for this mode */
	LOCKMODE	mode;
} SaBusy;

/* Is there no use in locking more? */
#define SA_STOPS(busy) ((busy)->any && (busy)->stops)

extern TimestampTz sa_wait_until(void);
extern SaRowLock sa_lock_row(Relation rel, ItemPointer tid, LockTupleMode mode,
							 TupleTableSlot *slot, SaBusy *busy);
extern void sa_lock_found(const char *table, LockTupleMode mode, SaStatement *which,
						  SaArgs *args, Oid type, ArrayBuildState **locked,
						  ArrayBuildState **left, SaBusy *busy);
extern bool sa_lock_table(Oid relid, LOCKMODE mode, SaBusy *busy);
extern VirtualTransactionId *sa_writers_of(Oid relid);
extern bool sa_others_write(const char *table, SaBusy *busy);
extern bool sa_wait_for(SaBusy *busy, TimestampTz until);
extern bool sa_wait_with(TimestampTz until, void (*step) (SaBusy *, void *), void *argument);
extern void sa_lock_all(TimestampTz until, void (*step) (SaBusy *, void *), void *argument);

/* text.c: arguments and what comes from the internet, made harmless */
extern char *sa_text_or_null(FunctionCallInfo fcinfo, int argno);
extern char *sa_cleaned_or_null(FunctionCallInfo fcinfo, int argno, int max_bytes);
extern char *sa_clean(const char *value, int length, int max_bytes);
extern char *sa_user_name_arg(FunctionCallInfo fcinfo, int argno);	/* errors if null */
extern char *sa_application_arg(FunctionCallInfo fcinfo, int argno);
extern void sa_check_user_name(const char *user_name);
extern void sa_check_printable(const char *what, const char *name);
extern void sa_check_reason(const char *reason);

/* encoding.c: of the database, of the client, and of nobody's */
extern bool sa_is_shown(const char *value);
extern char *sa_shown(const char *value);
extern bool sa_append_json(StringInfo json, const char *value);
extern char *sa_valid_utf8(const char *value, int length, int max_bytes);

/* digest.c: from a session id to what is kept of it */
typedef struct SaSessionId
{
	uint8		hash[SA_HASH_LEN];
	char		log_id[SA_LOG_ID_LEN + 1];	/* empty if only the hash is known */
} SaSessionId;

extern void sa_sha256(const void *data, Size length, uint8 *hash);
extern void sa_session_hash_arg(FunctionCallInfo fcinfo, int argno, uint8 *hash);
extern void sa_session_hash_from_datum(Datum value, Oid type, uint8 *hash);
extern void sa_session_id_arg(FunctionCallInfo fcinfo, int argno, SaSessionId *id);
extern void sa_session_id_from_datum(Datum value, Oid type, SaSessionId *id);
extern text *sa_ref_text(const uint8 *hash);
extern bytea *sa_bytea(const void *data, Size length);

/* address.c: the client's address behind proxies */
extern inet *sa_client_address(inet *peer, const char *forwarded_for, ArrayType *trusted);

/* policy.c: what holds for an application, cached until it changes */
typedef struct SaUserLimit
{
	uint64		user_key;
	int64		idle_timeout;	/* in microseconds; 0: the application's */
	int64		absolute_timeout;
	int64		max_sessions;	/* PG_INT64_MIN: the application's */
	int			on_session_limit;	/* 0: the application's */
} SaUserLimit;

/* What a commit waits for, whatever synchronous_commit says. */
typedef enum SaDurability
{
	SA_DURABILITY_NONE,
	SA_DURABILITY_ON,			/* the disk, and that of synchronous standbys */
	SA_DURABILITY_APPLY			/* and that these show it */
} SaDurability;

/* What a policy of type choice says. */
typedef enum SaChoice
{
	SA_REJECT = 1,
	SA_EVICT_OLDEST,
	SA_END_SERIES,
	SA_END_USER,
	SA_END_USER_AND_DEVICES,
	SA_INVALIDATE,
	SA_KEEP,
	SA_RECORD,
	SA_ERROR,
	SA_COUNT,
	SA_IGNORE
} SaChoice;

typedef struct SaProbeRule
{
	uint64		key;
	char	   *user_agent_like;	/* NULL: any */
	inet	   *address;		/* NULL: any */
} SaProbeRule;

/* late.c: of sessions that somebody had locked when they ended */
typedef struct SaLateEnding
{
	bool		any_user;
	bool		any_session;
	bool		keeps;
	uint64		user_key;		/* unless any_user; 0: anonymous */
	uint8		hash[SA_HASH_LEN];	/* unless any_session */
	uint8		keep[SA_HASH_LEN];	/* if keeps: this one goes on */
	uint64		before_xid;		/* opened by an earlier transaction */
} SaLateEnding;

typedef struct SaApplication
{
	char		name[SA_NAME_MAX + 1];
	uint64		key;			/* the name, hashed */
	Oid			session_relid;	/* the table session */
	int64		generation;		/* none is valid: -1 */
	bool		moved;			/* came from a dump, and was not used since */
	int64		idle_timeout;	/* these are in microseconds */
	int64		absolute_timeout;
	int64		anonymous_idle_timeout;
	int64		anonymous_absolute_timeout;
	int64		remember_me_lifetime;
	int64		remember_me_grace;
	int64		node_lease;
	int64		max_sessions_per_user;	/* negative: no limit, here and below */
	int64		max_sessions;
	int64		max_anonymous_sessions;
	int			on_session_limit;	/* an SaChoice, here and below */
	int			on_theft;
	int			on_restore;
	int			on_capture_failure;
	int			captured_logins;
	int			invalidation_durability;	/* an SaDurability */
	uint64		policies_read;	/* grows each time that policies were read
								 * anew */
	/* valid until the next look-up of an application: */
	SaLateEnding *late_endings;
	int			n_late_endings;
	ArrayType  *trusted_proxies;	/* NULL: none */
	SaUserLimit *user_limits;	/* of users who have their own, by user_key */
	int			n_user_limits;
	SaProbeRule *probe_rules;
	int			n_probe_rules;
} SaApplication;

extern bool sa_application_find(const char *name, SaApplication *application);
extern void sa_application_make(const char *name, SaApplication *application);
extern void sa_application_get(const char *name, SaApplication *application);
extern void sa_settle_all(void);

typedef enum SaSettlement
{
	SA_UNSETTLED,				/* or a restore may be under way */
	SA_UNUSED,
	SA_SETTLED
} SaSettlement;

extern SaSettlement sa_settlement(void);
extern const char *sa_application_of_key(uint64 key);
extern uint64 sa_user_key(const char *user_name);
extern int64 sa_idle_timeout(const SaApplication *application, uint64 user_key,
							 int64 idle_timeout);
extern bool sa_times_are_valid(const SaApplication *application, uint64 user_key,
							   int64 generation, TimestampTz created_at,
							   TimestampTz last_access_at, int64 idle_timeout,
							   TimestampTz now);
extern int64 sa_absolute_timeout(const SaApplication *application, uint64 user_key);
extern int64 sa_max_sessions(const SaApplication *application, uint64 user_key,
							 int *on_session_limit);
extern int64 sa_policy_number(const char *application, const char *user_name,
							  const char *name);
extern uint64 sa_application_key(const char *name);
extern void sa_policy_tell(Oid relation);
extern void sa_policy_settle(void);
extern SaDurability sa_policy_durability(const char *application);
extern void sa_policy_init(void);

/* probe.c: anonymous sessions that are counted and not kept */
extern void sa_probe_init(void);
extern void sa_probe_rules_read(SaApplication *application, MemoryContext context);
extern bool sa_probe(const SaApplication *application, const char *user_agent,
					 inet *address, TimestampTz now);
extern int64 sa_probes_flush(bool *more);	/* a task of maintain() */

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
	"session_admin.late_ending l WHERE " t ".opened_xid < l.before_xid" \
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

/* position.c: what a position in the feed says */
#define SA_POSITION_XID_MIN		147 /* lower ones are the bits of a claim */

typedef struct SaClaim
{
	TimeLineID	timeline;
	XLogRecPtr	place;			/* 0: none is made */
} SaClaim;

extern Datum sa_position_with_claim(Datum position, const SaClaim *claim, const char *key);
extern SaClaim sa_position_claim(Datum position, const char *key);
extern SaClaim sa_claim_now(void);
extern bool sa_claim_is_lost(const SaClaim *claim, XLogRecPtr *left_at);

/* lost.c: invalidations that the server does not remember */
extern bool sa_lost_note(const char *node, const SaClaim *claim);

/* node.c: who follows the feed */
extern char *sa_node_arg(FunctionCallInfo fcinfo, int argno);
extern void sa_node_lock(FunctionCallInfo fcinfo, const char *node);
extern void sa_node_check_role(const char *node, bool joins);

/* lease.c: whether the lease of a node has run out */
extern const char *sa_server_run(void);
extern void sa_note_server_run(void);
extern int64 sa_clock_ahead(TimestampTz now);

/* session.c: open, touch, renew, close */
typedef struct SaSession
{
	int64		generation;
	TimestampTz created_at;
	TimestampTz last_access_at;
	char	   *user_name;		/* NULL: anonymous */
	uint64		user_key;		/* of it; 0: anonymous */
	int64		idle_timeout;	/* that the product gave it, in microseconds;
								 * 0: the policies say */
	uint64		opened_xid;		/* the transaction in which its user logged in */
	bool		written_here;	/* by this very transaction, which may abort */
} SaSession;

/* The columns of session that C looks at; they are its first ones. */
enum
{
	SA_SESSION_HASH = 1,
	SA_SESSION_APPLICATION,
	SA_SESSION_GENERATION,
	SA_SESSION_CREATED_AT,
	SA_SESSION_LAST_ACCESS_AT,
	SA_SESSION_REQUESTS,
	SA_SESSION_USER_NAME,
	SA_SESSION_PRODUCT,
	SA_SESSION_PRODUCT_KEY,
	SA_SESSION_IDLE_TIMEOUT,
	SA_SESSION_OPENED_XID
};

#define SA_NO_TIMEOUT	PG_INT64_MAX	/* an idle_timeout that never ends */

/* The same of remember_me_token. */
enum
{
	SA_TOKEN_SERIES = 1,
	SA_TOKEN_APPLICATION,
	SA_TOKEN_GENERATION,
	SA_TOKEN_USER_NAME,
	SA_TOKEN_VALIDATOR_HASH,
	SA_TOKEN_PARENT_HASH,
	SA_TOKEN_SALT,
	SA_TOKEN_ROTATED_AT,
	SA_TOKEN_CREATED_AT
};

extern bool sa_session_writing; /* this backend writes touches to their rows */
extern uint64 sa_run_writing(SaStatement *statement, SaArgs *args);
extern int64 sa_microseconds(const Interval *interval);
extern int64 sa_session_idle_timeout(TupleTableSlot *slot);
extern uint64 sa_session_opened_xid(TupleTableSlot *slot);
extern bool sa_session_touch(const uint8 *hash, const SaApplication *application,
							 int64 requests, int64 idle_timeout);
extern bool sa_session_read(const uint8 *hash, const char *application, SaSession *session);
extern bool sa_session_read_at(Snapshot snapshot, const uint8 *hash, const char *application,
							   SaSession *session);
extern bool sa_session_is_valid(const SaSession *session, const SaApplication *application,
								const uint8 *hash, TimestampTz now);
extern void sa_session_by_ref(const char *ref, const char *application, uint8 *hash);

/* limit.c: how many sessions there may be */
typedef struct SaSeat
{
	Oid			session_relid;
	uint32		application;
	uint16		kind;
	int			lockmode;
} SaSeat;

extern void sa_limit_user(const SaApplication *application, const char *user_name,
						  const uint8 *hash, TimestampTz now);
extern void sa_seat_take(SaSeat *seat, const char *application, const char *user_name,
						 const uint8 *hash);
extern void sa_seat_taken(const SaSeat *seat);

/*
 * Is the idle timeout that a product tells (if not 0) as good as the one that we know?
 * A session must not end before the product ends it, so that ours may be a little
 * longer; products round it, or compute it from clocks that differ.
 */
static inline bool
sa_idle_timeout_holds(int64 known, int64 told)
{
	return told == 0 || (told <= known && known - told <= Max(2 * USECS_PER_SEC, known / 64));
}

/* live.c: the shared table of live sessions */
typedef struct SaLiveKey
{
	Oid			database;
	Oid			relation;		/* the table session: the extension may be
								 * made again */
	uint64		application;
	uint8		hash[SA_HASH_LEN];
} SaLiveKey;

typedef struct SaLiveTouch
{
	SaLiveKey	key;
	int32		place;			/* of its entry, when it was seen */
	int64		requests;
	TimestampTz last_access_at;
} SaLiveTouch;

typedef struct SaLiveFill
{
	SaLiveKey	key;
	bool		allowed;
	uint64		epoch;
	uint64		everything_started;
	uint64		slot_started;
} SaLiveFill;

/* Whose entries there may be: all databases, and of this one the table session. */
typedef struct SaLiveOwners
{
	Oid			relation;
	int			n_databases;
	const Oid  *databases;
} SaLiveOwners;

extern void sa_live_init(void);
extern bool sa_live_enabled(void);
extern void sa_live_key(SaLiveKey *key, const SaApplication *application, const uint8 *hash);
extern bool sa_live_touch(const SaApplication *application, const uint8 *hash,
						  TimestampTz now, int64 requests, int64 idle_timeout);
extern void sa_live_fill_start(SaLiveFill *fill, const SaApplication *application,
							   const uint8 *hash);
extern bool sa_live_fill(SaLiveFill *fill, const SaSession *session,
						 TimestampTz now, int64 requests);
extern void sa_live_read(const SaLiveKey *key, TimestampTz *last_access_at, int64 *requests);
extern void sa_live_end_start(const SaLiveKey *key);
extern void sa_live_end_commit(const SaLiveKey *key, bool row_remains);
extern void sa_live_set_back(const SaLiveKey *key);
extern void sa_live_end_finish(const SaLiveKey *key);
extern void sa_live_applications_start(void);
extern void sa_live_applications_finish(void);
extern bool sa_live_applications_in_doubt(void);
extern int	sa_live_unflushed(SaLiveTouch *touches, int n, uint32 *position, Oid relation);
extern int	sa_live_forget_stale(SaLiveOwners *owners, uint32 *position);
extern int	sa_live_unflushed_anywhere(SaLiveTouch *touches, int n, uint32 *position);
extern bool sa_live_any_unflushed(Oid database);
extern void sa_live_flushed(const SaLiveTouch *touch, bool flushed);
extern bool sa_live_restore(const SaLiveTouch *touch);
extern void sa_live_usage(int64 *used, int64 *capacity);
extern int64 sa_unwritten_count(const SaLiveKey *key, TimestampTz created_at,
								TimestampTz now, int64 requests);
extern void sa_unwritten_written(const SaLiveKey *key);

/* pending.c: what this transaction will do to that table */
extern void sa_pending_ended(const SaLiveKey *key);
extern void sa_pending_changed(const SaLiveKey *key, bool set_back);
extern void sa_pending_applications(Oid relation);
extern void sa_pending_told(int64 id, const char *payload);
extern void sa_pending_flushed(const SaLiveTouch *touch);
extern void sa_pending_maintained(void);
extern bool sa_pending_any_flushed(void);
extern bool sa_pending_any(void);
extern void sa_commit_durably(const char *application); /* NULL: all of them */
extern void sa_pending_init(void);

/* user.c: what becomes of a user's data */
extern bool sa_user_rename(const char *application, const char *old_name, const char *new_name,
						   const char *reason, SaEnding *ending);
extern void sa_user_move(const char *application, const char *old_name, const char *new_name,
						 bool anonymize);

/* attachment.c: which tables of products are watched */
extern void sa_attachment_init(void);

/* forget.c: rows of sessions and users in the products' own tables */
extern List *sa_forgets_of_sessions(SaStatement *which, SaArgs *args);
extern List *sa_forgets_of_users(const char *application, ArrayType *user_names,
								 const uint8 *keep_session, bool keep_remember_me);
extern bool sa_forgets_busy(List *forgets);
extern List *sa_forgets_keep(List *forgets, ArrayType *hashes);
extern void sa_forget_lock(List *forgets, SaBusy *busy);
extern void sa_forget(List *forgets, SaEnding *ending);
extern void sa_capture_forget_sessions(SaStatement *which, SaArgs *args, SaEnding *ending);
extern void sa_capture_forget_application(const char *application, SaEnding *ending);
extern bool sa_forget_wait_for_writers(const char *application, TimestampTz until);

/* remains.c: rows of products that could not be deleted */
extern ArrayType *sa_remains_not(const char *application, ArrayType *hashes, bool only_slow);
extern int64 sa_remains_retry(bool *more);	/* a task of maintain() */
extern int64 sa_remains_rest(void);
extern void sa_remains_hurry(void);

/* reconcile.c: products' sessions compared with their rows */
extern void sa_reconcile_attached(const char *application, const char *product);
extern int64 sa_reconcile_gone(bool *more); /* tasks of maintain() */
extern int64 sa_reconcile_slice(bool *more);

/* maintain.c: housekeeping */
#define SA_TASKS_MAX		24

typedef struct SaTask
{
	const char *name;
	int64		(*run) (bool *more);	/* one batch; returns rows or
										 * partitions */
	bool		takes_strong_locks;
	int			every;			/* seconds between two runs by the worker; 0:
								 * flush_interval */
	bool		when_unused;	/* also before the first use */
	int64		(*rest) (void); /* microseconds to the next run, at the most;
								 * NULL: as above */
	bool		keeps_locks;	/* that others wait for, until the transaction
								 * ends */
} SaTask;

extern const SaTask *sa_tasks(int *n);
extern bool sa_task_run(const SaTask *task, int64 *rows);
extern int64 sa_forget_stale_entries(bool *more);

/* worker.c: the background worker */
extern void sa_worker_init(void);
extern void sa_worker_note_database(void);
extern void sa_worker_wake(void);

/* restart.c: touches that outlive an orderly restart */
extern void sa_restart_init(void);

/* test/points/test_point.c: windows that a test can hold open; nothing in normal builds */
#ifdef SA_TEST_POINTS
extern void sa_test_point(const char *name);
extern void sa_test_point_init(void);
extern bool sa_test_collisions; /* of all keys of the shared table */
#else
#define sa_test_point(name) ((void) 0)
#define sa_test_point_init() ((void) 0)
#endif

#endif							/* SESSION_ADMIN_H */
