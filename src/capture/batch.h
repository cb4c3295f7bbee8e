/*
 * batch.h
 *	  What rows of a product's table tell, in lists that are applied together.
 */
#ifndef SA_BATCH_H
#define SA_BATCH_H

#include "capture/capture.h"
#include "ending/ending.h"

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

struct SaBatch
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

	/* over all batches: users concerned by what cannot be understood */
	bool		unclear;
	bool		unclear_whom;	/* nobody knows */
	ArrayBuildState *unclear_users;

	int64		written;		/* sessions of which rows were written */
	int64		refused;		/* rows of sessions that stay ended */

	/* and what was written to the feed */
	int64		fed;
	bool		flushed;		/* there was a batch before this one */
	SaFeedRow	feed_row;		/* if it was one row, this */
};

extern void sa_batch_add(SaBatch *batch, SaValues *values, Datum value, bool isnull);
extern void sa_batch_add_text(SaBatch *batch, SaValues *values, const char *value);
extern void sa_batch_arg(SaArgs *args, const SaValues *values, Oid element);
extern void sa_batch_arg_keys(SaArgs *args, const SaWatch *watch, SaTablePart part);
extern bool sa_batch_ignores_logins(const SaBatch *batch);
extern void sa_batch_unclear(SaBatch *batch, const char *user_name);
extern ArrayType *sa_batch_users(const SaBatch *batch);
extern void sa_batch_make_accounts(SaBatch *batch, const SaValues *names);
extern void sa_batch_enter_accounts(SaBatch *batch, const SaValues *names);
extern void sa_batch_lock_accounts(SaBatch *batch, const SaValues *names);
extern void sa_batch_resolve(SaBatch *batch, const SaValues *keys, SaValues *users);
extern void sa_batch_fed(SaBatch *batch, const SaFeedRow *row, int64 rows);
extern void sa_batch_reset(SaBatch *batch);
extern void sa_apply_truncated(SaBatch *batch); /* apply.c */

#endif							/* SA_BATCH_H */
