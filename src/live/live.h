/*
 * live.h
 *	  Is this session valid?  Its row, the shared table, and the touch.
 */
#ifndef SA_LIVE_H
#define SA_LIVE_H

#include "policy/policy.h"

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

/* restart.c: touches that outlive an orderly restart */
extern void sa_restart_init(void);

#endif							/* SA_LIVE_H */
