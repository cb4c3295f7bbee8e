/*
 * capture.h
 *	  What the files share that watch the products' tables: attach.c,
 *	  attachment.c, capture.c, capture_row.c, captured.c and forget.c.
 */
#ifndef SA_CAPTURE_H
#define SA_CAPTURE_H

#include "session_admin.h"

#include "nodes/pg_list.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* As product_part.part; sa_part_names is in the same order. */
typedef enum SaPart
{
	SA_PART_IDENTITY,
	SA_PART_ACCOUNT,
	SA_PART_ATTRIBUTE,
	SA_PART_LOGIN,
	SA_PART_REMEMBER_ME,
	SA_PART_SESSION
} SaPart;

#define SA_NPARTS (SA_PART_SESSION + 1)

/* As product_column.role; sa_role_names is in the same order. */
typedef enum SaRole
{
	SA_ROLE_USER_NAME,
	SA_ROLE_USER_KEY,
	SA_ROLE_KEY,
	SA_ROLE_OTHER_NAME,
	SA_ROLE_CREDENTIAL,
	SA_ROLE_ACTIVE,
	SA_ROLE_LOCKED_AT,
	SA_ROLE_DELETED_AT,
	SA_ROLE_LAST_LOGIN_AT,
	SA_ROLE_PREVIOUS_LOGIN_AT,
	SA_ROLE_LAST_FAILED_LOGIN_AT,
	SA_ROLE_LOGIN_COUNT,
	SA_ROLE_CURRENT_FAILED_COUNT,
	SA_ROLE_TOTAL_FAILED_COUNT,
	SA_ROLE_LAST_SEEN_AT,
	SA_ROLE_LAST_LOGIN_ADDRESS,
	SA_ROLE_ATTRIBUTE_NAME,
	SA_ROLE_ATTRIBUTE_VALUE,
	SA_ROLE_SECRET,
	SA_ROLE_SERIES,
	SA_ROLE_CREATED_AT,
	SA_ROLE_USED_AT,
	SA_ROLE_EXPIRES_AT,
	SA_ROLE_IDLE_TIMEOUT,
	SA_ROLE_REALM
} SaRole;

#define SA_NROLES (SA_ROLE_REALM + 1)
#define SA_NO_ROLE ((SaRole) -1)

#define SA_IS_LOGIN_ROLE(role) \
	((role) >= SA_ROLE_LAST_LOGIN_AT && (role) <= SA_ROLE_LAST_LOGIN_ADDRESS)

extern const char *const sa_part_names[SA_NPARTS];
extern const char *const sa_role_names[SA_NROLES];

/* How a value is to be read, see product_column.reading. */
typedef enum SaReading
{
	SA_READING_DEFAULT,
	SA_READING_SECONDS,
	SA_READING_UTC,
	SA_READING_KEY_OR_NAME,
	SA_READING_ANY_CASE
} SaReading;

typedef struct SaColumn
{
	AttrNumber	attnum;			/* InvalidAttrNumber: not there */
	Oid			type;
	SaReading	reading;
	ArrayType  *path;			/* within JSON; NULL: the value itself */
	ArrayType  *excludes;		/* values of rows that are left alone, or NULL */
} SaColumn;

typedef struct SaAttribute
{
	const char *name;
	SaRole		role;
	SaReading	reading;
} SaAttribute;

/* One table of a product in one application. */
typedef struct SaWatch
{
	const char *application;
	const char *product;
	const char *alias_pattern;	/* NULL: anonymized users cannot be told */
	SaPart		part;
	SaPart		key_of;			/* whose key user_key is */
	Oid			relid;
	bool		clears;			/* what ends there is cleared, not deleted */
	const char *clear_to;		/* to this; NULL: to null */
	bool		names_user;		/* or did, before a column was dropped */
	SaColumn	columns[SA_NROLES];
	SaAttribute *attributes;
	int			nattributes;
	const char *broken;			/* what is missing that tells whose sessions
								 * end; NULL: nothing */
} SaWatch;

#define SA_HAS(watch, role) ((watch)->columns[role].attnum != InvalidAttrNumber)

/* attachment.c */
extern int	sa_find_name(const char *const *names, int n, const char *name);
extern List *sa_watches_of(Relation relation);
extern bool sa_is_told_unknown(Relation relation);
extern List *sa_watches_to_forget(const char *application);

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
extern void sa_captured_lock_accounts(SaCaptured *captured, const SaValues *names);
extern void sa_captured_resolve(SaCaptured *captured, const SaValues *keys, SaValues *users);
extern void sa_captured_flush(SaCaptured *captured);
extern void sa_captured_arg(SaArgs *args, const SaValues *values, Oid element);
extern void sa_captured_truncated(SaCaptured *captured);

/* capture_row.c */
extern void sa_row_inserted(SaCaptured *captured, TupleTableSlot *slot);
extern void sa_row_deleted(SaCaptured *captured, TupleTableSlot *slot);
extern void sa_row_updated(SaCaptured *captured, TupleTableSlot *old, TupleTableSlot *new);

/* captured_session.c */
extern void sa_captured_flush_sessions(SaCaptured *captured);
extern void sa_captured_wipe(List *session_rows);
extern void sa_captured_truncated_sessions(SaCaptured *captured);

/* forget.c */
extern SaEnding *sa_forgetting(const SaWatch *watch);
extern bool sa_capture_is_empty(Oid relid);
extern ArrayType *sa_capture_without_rows(const SaWatch *watch, ArrayType *hashes, int *n);
extern bool sa_capture_forget_rows(const SaWatch *watch, ArrayType *secrets, ArrayType *hashes,
								   SaEnding *ending);

/* capture.c */
extern void sa_capture_failure(const char *application, Oid relid, const char *event,
							   const char *message, ArrayType *users);
extern bool sa_capture_failure_once(const char *application, Oid relid, const char *event,
									const char *message);
extern ErrorData *sa_capture_attempt(void (*step) (void *), void *argument);
extern int64 sa_capture_existing(const SaWatch *watch, Relation relation,
								 Snapshot snapshot, Snapshot done);

#endif							/* SA_CAPTURE_H */
