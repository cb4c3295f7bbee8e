/*
 * live.h
 *	  Is this session valid?  Its row, the shared table, and the touch.
 */
#ifndef SA_LIVE_H
#define SA_LIVE_H

#include "policy/policy.h"

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
	SaTimeLimit limit;			/* of its user: see sa_session_is_valid() */
	bool		written_here;	/* by this very transaction, which may abort */
} SaSession;

/* The columns of session that C looks at. */
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
	SA_SESSION_OPENED_XID,
	SA_SESSION_LOGIN_METHOD,
	/* those between are read by SQL alone */
	SA_SESSION_REAUTHENTICATED_AT = 19
};

/* The columns of remember_me_token, likewise. */
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

/* row.c: the row of a session */
extern int64 sa_usecs_of_interval(const Interval *interval);
extern int64 sa_session_idle_timeout(TupleTableSlot *slot);
extern uint64 sa_session_opened_xid(TupleTableSlot *slot);
extern bool sa_session_visit(Snapshot snapshot, const uint8 *hash, const char *application,
							 void (*visit) (TupleTableSlot *slot, void *argument), void *argument);
extern bool sa_session_read(const uint8 *hash, const char *application, SaSession *session);
extern bool sa_session_read_at(Snapshot snapshot, const uint8 *hash, const char *application,
							   SaSession *session);
extern bool sa_session_is_valid(SaSession *session, const SaApplication *application,
								const uint8 *hash, TimestampTz now);
extern bool sa_session_row_is_valid(TupleTableSlot *slot, const SaApplication *application,
									const uint8 *hash, TimestampTz now);

/* touch.c */
extern bool sa_touch_is_writing;	/* this backend writes touches to their
									 * rows */
extern uint64 sa_run_touch(SaStatement *statement, SaArgs *args);
extern bool sa_session_touch(const uint8 *hash, const SaApplication *application,
							 int64 requests, int64 idle_timeout);

/* live.c: the shared table of live sessions */
typedef struct SaLiveKey
{
	Oid			database;
	Oid			relation;		/* the table session: the extension may be
								 * made again */
	uint64		application;
	uint8		hash[SA_HASH_LEN];
} SaLiveKey;

extern void sa_live_key(SaLiveKey *key, const SaApplication *application, const uint8 *hash);
extern void sa_live_read(const SaLiveKey *key, TimestampTz *last_access_at, int64 *requests);
extern void sa_live_ended(const SaLiveKey *key);
extern void sa_live_changed(const SaLiveKey *key, bool set_back);
extern void sa_live_init(void);

/* unwritten.c: what this backend alone has counted */
extern void sa_unwritten_forget(const SaLiveKey *key);

/* scan.c, flush.c: what there is to do for housekeeping */
extern bool sa_live_any_unflushed(Oid database);
extern int64 sa_live_forget(bool *more);	/* a task of maintain() */
extern void sa_live_flush_begin(void);
extern int64 sa_live_flush(bool *more); /* a task of maintain() */

#endif							/* SA_LIVE_H */
