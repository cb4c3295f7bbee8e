/*
 * session_admin.h
 *	  What the files of session_admin share, grouped by the file that defines it.
 */
#ifndef SESSION_ADMIN_H
#define SESSION_ADMIN_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/inet.h"

#include "compat.h"

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

/* guc.c: the settings */
extern char *sa_application;
extern char *sa_actor;
extern char *sa_current_session;
extern bool sa_notify_detail;
extern int	sa_touch_interval;	/* seconds */
extern const char *sa_actor_or_null(void);
extern void sa_guc_init(void);

/* spi.c: statements that are prepared once, and always see the latest data */
typedef struct SaStatement
{
	const char *sql;
	SPIPlanPtr	plan;			/* kept from the first run on */
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

typedef struct SaOwner
{
	Oid			save_userid;
	int			save_sec_context;
	int			save_nestlevel;
} SaOwner;

extern void sa_owner_enter(SaOwner *owner);
extern void sa_owner_leave(SaOwner *owner);

/* text.c: arguments and what comes from the internet, made harmless */
extern char *sa_text_or_null(FunctionCallInfo fcinfo, int argno);
extern char *sa_cleaned_or_null(FunctionCallInfo fcinfo, int argno, int max_bytes);
extern char *sa_clean(const char *value, int length, int max_bytes);
extern char *sa_user_name_arg(FunctionCallInfo fcinfo, int argno);	/* errors if null */
extern char *sa_application_arg(FunctionCallInfo fcinfo, int argno);
extern void sa_check_user_name(const char *user_name);
extern void sa_check_printable(const char *what, const char *name);
extern void sa_check_reason(const char *reason);

/* digest.c: from a session id to what is kept of it */
typedef struct SaSessionId
{
	uint8		hash[SA_HASH_LEN];
	char		log_id[SA_LOG_ID_LEN + 1];	/* empty if only the hash is known */
} SaSessionId;

extern void sa_sha256(const void *data, Size length, uint8 *hash);
extern void sa_session_id_arg(FunctionCallInfo fcinfo, int argno, SaSessionId *id);
extern void sa_session_id_from_datum(Datum value, Oid type, SaSessionId *id);
extern text *sa_ref_text(const uint8 *hash);
extern bytea *sa_bytea(const void *data, Size length);

/* address.c: the client's address behind proxies */
extern inet *sa_client_address(inet *peer, const char *forwarded_for, ArrayType *trusted);

/* policy.c: what holds for an application, cached until it changes */
typedef struct SaApplication
{
	char		name[SA_NAME_MAX + 1];
	int64		generation;
	int64		idle_timeout;	/* these are in microseconds */
	int64		absolute_timeout;
	int64		anonymous_idle_timeout;
	int64		remember_me_lifetime;
	int64		remember_me_grace;
	int64		node_lease;
	ArrayType  *trusted_proxies;	/* NULL: none; valid until the next look-up */
} SaApplication;

extern bool sa_application_find(const char *name, SaApplication *application);
extern void sa_application_make(const char *name, SaApplication *application);
extern void sa_application_get(const char *name, SaApplication *application);
extern void sa_limits_of_user(const SaApplication *application, const char *user_name,
							  int64 *idle_timeout, int64 *absolute_timeout);
extern int64 sa_policy_number(const char *application, const char *user_name,
							  const char *name);
extern void sa_policy_init(void);

/* account.c: login counters, and the lock that orders what happens to a user */
extern bool sa_account_lock(const char *application, const char *user_name);
extern bool sa_account_make(const char *application, const char *user_name);
extern void sa_account_logged_in(const char *application, const char *user_name,
								 TimestampTz at, inet *address, const char *login_method);
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
	bool		caller_writes_feed; /* one row for all, instead of one a session or token */
	bool		caller_notifies;	/* once, of several endings */
	/* the rest is the result */
	int64		id;				/* of the last row of the feed, 0 for none */
	int64		sessions_ended; /* negative: too many to be counted at once */
	int64		tokens_revoked;
} SaEnding;

extern SaEnding *sa_ending;
extern uint64 sa_run_ending(SaEnding *ending, SaStatement *statement, SaArgs *args);
extern void sa_end_users(const char *application, ArrayType *user_names,
						 const uint8 *keep_session, bool keep_remember_me,
						 SaEnding *ending);
extern void sa_end_user(const char *application, const char *user_name,
						const uint8 *keep_session, bool keep_remember_me,
						SaEnding *ending);
extern void sa_end_generation(const char *application, SaEnding *ending);
extern void sa_note_invalidation(void);
extern Datum sa_ending_result(FunctionCallInfo fcinfo, const SaEnding *ending);
extern void sa_invalidation_init(void);

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

/* node.c: who follows the feed */
extern int64 sa_feed_purge(void);	/* a task of maintain(): one batch */

/* session.c: open, touch, renew, close */
typedef struct SaSession
{
	int64		generation;
	TimestampTz created_at;
	TimestampTz last_access_at;
	char	   *user_name;		/* NULL: anonymous */
} SaSession;

extern bool sa_session_read(const uint8 *hash, const char *application, SaSession *session);
extern bool sa_session_is_valid(const SaSession *session, const SaApplication *application,
								TimestampTz last_access_at, TimestampTz now);
extern void sa_session_by_ref(const char *ref, const char *application, uint8 *hash);

/* live.c: touches that are not written yet */
extern int64 sa_live_count(const uint8 *hash, const char *application,
						   TimestampTz created_at, TimestampTz now, int64 requests);
extern TimestampTz sa_live_accessed(const uint8 *hash, const char *application);
extern void sa_live_written(const uint8 *hash, const char *application);

/* user.c: what becomes of a user's data */
extern bool sa_user_rename(const char *application, const char *old_name, const char *new_name,
						   const char *reason, SaEnding *ending);

/* attachment.c: which tables of products are watched */
extern void sa_attachment_init(void);

/* capture.c: what the products' own tables hold of users */
extern ArrayType *sa_capture_forget_users(const char *application, ArrayType *user_names,
										  SaEnding *ending);
extern int64 sa_capture_forget_application(const char *application, SaEnding *ending);

/* maintain.c: housekeeping */
typedef struct SaTask
{
	const char *name;
	int64		(*run) (void);	/* one batch; returns rows or partitions */
	bool		takes_strong_locks;
} SaTask;

extern const SaTask *sa_tasks(int *n);
extern bool sa_task_run(const SaTask *task, int64 *rows);

#endif							/* SESSION_ADMIN_H */
