/*
 * capture.h
 *	  What a statement on a product's table tells, and what follows of it.
 */
#ifndef SA_CAPTURE_H
#define SA_CAPTURE_H

#include "session/session.h"
#include "products/products.h"

#include "utils/snapshot.h"

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

/* captured.c: what the rows of one statement tell, and what follows of it */

/* An array that grows; its elements are of one type. */
typedef struct SaValues
{
	int			n;
	int			allocated;
	Datum	   *values;
	bool	   *nulls;
} SaValues;

/* Why a user's sessions end; of several reasons the highest is told. */
typedef enum SaEndedBy
{
	SA_ENDED_BY_PASSWORD,
	SA_ENDED_BY_DEACTIVATION,
	SA_ENDED_BY_DELETION
} SaEndedBy;

/* Whether they do. */
typedef enum SaEndedIf
{
	SA_ENDED_ALWAYS,
	SA_ENDED_IF_KNOWN,			/* there is an account of this very name */
	SA_ENDED_IF_LIVE			/* a row of part account has this name */
} SaEndedIf;

/* A row of a product's own table of sessions, new or changed. */
typedef struct SaSessionRow
{
	SaSessionId id;
	SaSessionId old_id;			/* the same, unless it was changed */
	char	   *secret;			/* the id itself, to find the row: wiped with
								 * the batch */
	char	   *key;			/* NULL: there is none */
	char	   *user;			/* or its key, if the part has a key_of; NULL:
								 * anonymous */
	bool		logged_in;		/* this user was not in the row before */
	TimestampTz created_at;
	TimestampTz last_access_at;
	int64		idle_timeout;	/* SA_NO_TIMEOUT: for ever */
	bool		refused;		/* it is that of a session that stays ended */
} SaSessionRow;

typedef struct SaCaptured
{
	MemoryContext context;		/* emptied with each batch */
	const SaWatch *watch;
	bool		backfill;		/* these rows were there before: no events */
	bool		reconciling;	/* and may differ from what is known of them */
	bool		insertion;		/* these rows are new */
	bool		complete;		/* all rows of the statement are in this batch */
	SaEnding   *forgetting;		/* we delete these rows ourselves, as sessions
								 * end */
	int			rows;

	/* each group of lists is a table with one column a list */
	SaValues	ended_name;
	SaValues	ended_by;
	SaValues	ended_if;

	SaValues	renamed_from;
	SaValues	renamed_to;
	SaValues	renamed_key;	/* null: another spelling, or no keys */

	SaValues	key;
	SaValues	key_user;
	SaValues	key_gone;

	SaValues	account;

	SaValues	login_key;
	SaValues	login_user;		/* unknown yet, if the part has a key_of */
	SaValues	login_role;
	SaValues	login_at;
	SaValues	login_number;
	SaValues	login_address;

	SaValues	token_user;		/* a key, if the part has a key_of */
	SaValues	token_event;
	SaValues	token_ref;		/* digits of the secret's hash */
	SaValues	token_series;	/* of that of the series */

	List	   *session_rows;	/* of SaSessionRow */
	SaValues	session_closed; /* their hashes */
	SaValues	session_expired;

	/* over all batches: who is concerned by what cannot be understood */
	bool		unclear;
	bool		unclear_whom;	/* nobody knows */
	ArrayBuildState *unclear_users;

	int64		written;		/* sessions of which rows were written */
	int64		refused;		/* rows of sessions that stay ended */

	/* and what was written to the feed */
	int64		fed;
	bool		flushed;		/* there was a batch before this one */
	SaFeedRow	feed_row;		/* if it was one row, this */
} SaCaptured;

extern void sa_captured_begin(SaCaptured *captured, const SaWatch *watch);
extern void sa_captured_end(SaCaptured *captured);
extern void sa_captured_add(SaCaptured *captured, SaValues *values, Datum value, bool isnull);
extern void sa_captured_add_text(SaCaptured *captured, SaValues *values, const char *value);
extern bool sa_captured_ignores_logins(const SaCaptured *captured);
extern void sa_captured_unclear(SaCaptured *captured, const char *user_name);
extern void sa_captured_make_accounts(SaCaptured *captured, const SaValues *names);
extern void sa_captured_enter_accounts(SaCaptured *captured, const SaValues *names);
extern void sa_captured_lock_accounts(SaCaptured *captured, const SaValues *names);
extern void sa_captured_resolve(SaCaptured *captured, const SaValues *keys, SaValues *users);
extern void sa_captured_flush(SaCaptured *captured);
extern void sa_captured_arg(SaArgs *args, const SaValues *values, Oid element);
extern void sa_captured_truncated(SaCaptured *captured);

/* capture_row.c */
extern void sa_row_inserted(SaCaptured *captured, TupleTableSlot *slot);
extern void sa_row_deleted(SaCaptured *captured, TupleTableSlot *slot);
extern void sa_row_updated(SaCaptured *captured, TupleTableSlot *old, TupleTableSlot *new);
extern bool sa_row_holds_secret(const SaWatch *watch, TupleTableSlot *slot);
extern bool sa_row_is_excluded(const SaWatch *watch, TupleTableSlot *slot);
extern bool sa_row_hash(const SaWatch *watch, TupleTableSlot *slot, uint8 *hash);
extern char *sa_row_user(const SaWatch *watch, TupleTableSlot *slot);

/* captured_session.c */
extern void sa_captured_flush_sessions(SaCaptured *captured);
extern void sa_captured_wipe(List *session_rows);
extern void sa_captured_truncated_sessions(SaCaptured *captured);

/* forget.c: rows of sessions and users in the products' own tables */

/* Which rows: any of these. */
typedef struct SaTarget
{
	ArrayType  *user_names;		/* text[]: of these users */
	ArrayType  *users;			/* text[]: their names or keys, as the table
								 * has them */
	ArrayType  *keys;			/* text[]: role key */
	ArrayType  *hashes;			/* bytea[]: of role secret, where there is no
								 * key */
	ArrayType  *all_hashes;		/* bytea[]: the same, of all; sorted */
	ArrayType  *secrets;		/* text[]: of these only, to find them by an
								 * index */
	const uint8 *keep;			/* the hash of a session that stays */
} SaTarget;

typedef struct SaForgetRow
{
	ItemPointerData tid;
	bool		by_user;		/* the row says that it is one of these users' */
	bool		has_hash;
	uint8		hash[SA_HASH_LEN];
} SaForgetRow;

typedef struct SaRows
{
	int			n;
	int			allocated;
	SaForgetRow *rows;
} SaRows;

/* What is to be deleted from one table, and what becomes of it. */
typedef struct SaForget
{
	const char *application;
	const char *product;
	SaPart		part;
	Oid			relid;
	const char *table;			/* its name when it was attached */
	SaTarget	target;
	TransactionId before;		/* only what transactions before this one
								 * wrote; 0: all */
	int			tries;			/* so often it has failed before */
	int64		deadline;		/* what is not deleted by then (see
								 * sa_monotonic_now) is left; 0: none */
	/* the rest is the result */
	SaWatch    *watch;			/* NULL: it is not watched any more */
	SaRows		rows;			/* these are locked */
	SaRows		busy;			/* these somebody else has locked */
	SaRows		left;			/* these could not be deleted */
	bool		spares_valid;	/* sessions that are valid stay */
	bool		everything;		/* whatever the target */
	bool		unsearched;		/* nor could the table be searched */
	bool		invisible;		/* there may be rows that nobody sees yet */
	uint64		deleted;
	int			failures;		/* that took their time */
	int			errors;			/* that did not */
	int			sqlstate;
	const char *message;		/* why */
} SaForget;

extern SaEnding *sa_forgetting(const SaWatch *watch);
extern bool sa_was_canceled(const ErrorData *error);
extern List *sa_forgets_of(const char *application, const char *product);
extern void sa_forget_rows(SaForget *forget, SaEnding *ending);
extern bool sa_capture_is_empty(Oid relid);
extern ArrayType *sa_capture_without_rows(const SaWatch *watch, ArrayType *hashes, int *n);
extern uint64 sa_capture_forget_rows(const SaWatch *watch, ArrayType *secrets, ArrayType *hashes,
									 SaEnding *ending);
extern void sa_forget_table(SaForget *forget, SaEnding *ending);
extern ArrayType *sa_forget_obstacles(Oid relid, bool clears);
extern ArrayType *sa_hashes_of(const SaRows *rows);

/* remains.c: what could not be deleted */
extern void sa_remain(const SaForget *forget, const SaEnding *ending);

/* capture.c */
extern void sa_capture_failure(const char *application, Oid relid, const char *event,
							   const char *message, ArrayType *users);
extern bool sa_capture_failure_once(const char *application, Oid relid, const char *event,
									const char *message);
extern ErrorData *sa_capture_attempt(void (*step) (void *), void *argument);
extern int64 sa_capture_existing(const SaWatch *watch, Relation relation,
								 Snapshot snapshot, Snapshot done);

#endif							/* SA_CAPTURE_H */
