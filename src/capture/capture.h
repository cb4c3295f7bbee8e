/*
 * capture.h
 *	  What a statement on a product's table tells, and what follows of it.
 */
#ifndef SA_CAPTURE_H
#define SA_CAPTURE_H

#include "session/session.h"
#include "products/products.h"

#include "utils/snapshot.h"

/* deletion.c: rows of sessions and users in the products' own tables */
extern void sa_capture_init(void);
extern void sa_deletions_lock(List *deletions, SaBusy *busy);
extern void sa_deletions_run(List *deletions, const SaEnding *ending, SaEnded *ended);

/* remains.c: rows of products that could not be deleted */
extern ArrayType *sa_remains_without(const char *application, ArrayType *hashes, bool only_slow);
extern int64 sa_remains_retry(bool *more);	/* a task of maintain() */
extern int64 sa_remains_rest(void);
extern void sa_remains_hurry(void);

/* batch.c: what the rows of one statement tell, and what follows of it */

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

typedef struct SaBatch
{
	MemoryContext context;		/* emptied with each batch */
	const SaWatch *watch;
	bool		backfill;		/* these rows were there before: no events */
	bool		reconciling;	/* and may differ from what is known of them */
	bool		insertion;		/* these rows are new */
	bool		complete;		/* all rows of the statement are in this batch */
	const SaEnding *ending;		/* we delete these rows ourselves, for this */
	SaEnded    *ended;
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
} SaBatch;

extern void sa_batch_begin(SaBatch *batch, const SaWatch *watch);
extern void sa_batch_end(SaBatch *batch);
extern void sa_batch_add(SaBatch *batch, SaValues *values, Datum value, bool isnull);
extern void sa_batch_add_text(SaBatch *batch, SaValues *values, const char *value);
extern bool sa_batch_ignores_logins(const SaBatch *batch);
extern void sa_batch_unclear(SaBatch *batch, const char *user_name);
extern void sa_batch_make_accounts(SaBatch *batch, const SaValues *names);
extern void sa_batch_enter_accounts(SaBatch *batch, const SaValues *names);
extern void sa_batch_lock_accounts(SaBatch *batch, const SaValues *names);
extern void sa_batch_resolve(SaBatch *batch, const SaValues *keys, SaValues *users);
extern void sa_apply(SaBatch *batch);
extern void sa_batch_arg(SaArgs *args, const SaValues *values, Oid element);
extern void sa_apply_truncated(SaBatch *batch);

/* capture_row.c */
extern void sa_row_inserted(SaBatch *batch, TupleTableSlot *slot);
extern void sa_row_deleted(SaBatch *batch, TupleTableSlot *slot);
extern void sa_row_updated(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new);
extern bool sa_row_holds_secret(const SaWatch *watch, TupleTableSlot *slot);
extern bool sa_row_is_excluded(const SaWatch *watch, TupleTableSlot *slot);
extern bool sa_row_hash(const SaWatch *watch, TupleTableSlot *slot, uint8 *hash);
extern char *sa_row_user(const SaWatch *watch, TupleTableSlot *slot);

/* captured_session.c */
extern void sa_apply_sessions(SaBatch *batch);
extern void sa_batch_wipe(List *session_rows);
extern void sa_apply_truncated_sessions(SaBatch *batch);

/* deletion.c: rows of sessions and users in the products' own tables */

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

typedef struct SaPlace
{
	ItemPointerData tid;
	bool		by_user;		/* the row says that it is one of these users' */
	bool		has_hash;
	uint8		hash[SA_HASH_LEN];
} SaPlace;

typedef struct SaPlaces
{
	int			n;
	int			allocated;
	SaPlace    *rows;
} SaPlaces;

/* What is to be deleted from one table, and what becomes of it. */
typedef struct SaDeletion
{
	const char *application;
	const char *product;
	SaTablePart part;
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
	SaPlaces	rows;			/* these are locked */
	SaPlaces	busy;			/* these somebody else has locked */
	SaPlaces	left;			/* these could not be deleted */
	bool		spares_valid;	/* sessions that are valid stay */
	bool		everything;		/* whatever the target */
	bool		unsearched;		/* nor could the table be searched */
	bool		invisible;		/* there may be rows that nobody sees yet */
	uint64		deleted;
	int			failures;		/* that took their time */
	int			errors;			/* that did not */
	int			sqlstate;
	const char *message;		/* why */
} SaDeletion;

extern const SaEnding *sa_deletion_under_way(const SaWatch *watch, SaEnded **ended);
extern bool sa_was_canceled(const ErrorData *error);
extern List *sa_deletions_of(const char *application, const char *product);
extern void sa_deletion_run(SaDeletion *deletion, const SaEnding *ending, SaEnded *ended);
extern bool sa_table_is_empty(Oid relid);
extern ArrayType *sa_table_without_rows(const SaWatch *watch, ArrayType *hashes, int *n);
extern uint64 sa_delete_written_rows(const SaWatch *watch, ArrayType *secrets, ArrayType *hashes,
									 const SaEnding *ending);
extern void sa_deletion_empty(SaDeletion *deletion, const SaEnding *ending, SaEnded *ended);
extern ArrayType *sa_table_obstacles(Oid relid, bool clears);
extern ArrayType *sa_places_hashes(const SaPlaces *rows);

/* remains.c: what could not be deleted */
extern void sa_remains_note(const SaDeletion *deletion, const SaEnding *ending);

/* capture.c */
extern void sa_failure_note(const char *application, Oid relid, const char *event,
							const char *message, ArrayType *users);
extern bool sa_failure_note_once(const char *application, Oid relid, const char *event,
								 const char *message);
extern ErrorData *sa_capture_attempt(void (*step) (void *), void *argument);
extern int64 sa_capture_existing(const SaWatch *watch, Relation relation,
								 Snapshot snapshot, Snapshot done);

#endif							/* SA_CAPTURE_H */
