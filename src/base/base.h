/*
 * base.h
 *	  Statements, arguments, digests, settings and locks: what knows no session.
 */
#ifndef SA_BASE_H
#define SA_BASE_H

#include "postgres.h"

#include "access/relscan.h"
#include "access/skey.h"
#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/lockoptions.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "utils/array.h"
#include "utils/inet.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/doubt.h"

#define SA_SCHEMA			"session_admin" /* what people call and read */
#define SA_INTERNAL_SCHEMA	"session_admin_internal"	/* nobody has USAGE */

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

/* clock.c: a clock that nobody sets */
extern int64 sa_monotonic_now(void);	/* in microseconds */

/* server_run.c: this run of the server, in which that clock has a meaning */
extern const char *sa_server_run(void);
extern int64 sa_server_run_seen(const char *run);
extern void sa_server_run_note(void);
extern int64 sa_clock_ahead(TimestampTz now);

/* shmem.c: the parts of shared memory */
typedef struct SaShmemPart
{
	const char *name;			/* also of its locks */
	Size		(*size) (void); /* NULL: a hash table, or no memory */
	int			hash_entries;	/* of a hash table, the most; 0: it is none */
	Size		hash_key_size;
	Size		hash_entry_size;
	int			n_locks;

	/*
	 * Called by each process that attaches to it, with no lock held; found is
	 * false in the postmaster, which sets it up.
	 */
	void		(*start) (void *memory, LWLockPadded *locks, bool found);
} SaShmemPart;

extern void sa_shmem_add(const SaShmemPart *part);
extern bool sa_shmem_usable(void);

/* at_end.c: what happens at the end of this transaction */
#define SA_AT_END_SIZE	72		/* bytes in an item, at most */

typedef struct SaAtEndKind
{
	Size		size;			/* of an item, which is copied */
	bool		changes_validity;	/* what sa_at_end_any() asks */
	bool		outlives_savepoints;	/* a rollback to one does not undo it */

	/*
	 * Before commit, once, and before all else; it may fail.  Its items are
	 * those from this position on.
	 */
	void		(*announce) (int position);

	/* Before commit, for each item in order; it cannot fail. */
	void		(*before) (const void *item);

	/*
	 * After commit or abort, for each item for which before() was called; it
	 * cannot fail.
	 */
	void		(*after) (const void *item, bool committed);

	/* "cannot prepare a transaction that has …"; NULL: it can be prepared */
	const char *refuses_prepare;
	const char *refusal_hint;	/* or NULL */
	int			refusal_rank;	/* of several reasons, the lowest is given */
} SaAtEndKind;

extern void sa_at_end_register(const SaAtEndKind *kind);
extern void sa_at_end_add(const SaAtEndKind *kind, const void *item);
extern const void *sa_at_end_last(const SaAtEndKind *kind);
extern const void *sa_at_end_next(const SaAtEndKind *kind, int *position);
extern bool sa_at_end_any_of(const SaAtEndKind *kind);
extern int	sa_at_end_changes(void);
extern bool sa_at_end_any(void);

/* dropped.c: what is forgotten with a database */
extern void sa_at_database_drop(const SaAtEndKind *kind);

/* wake.c: there is housekeeping to do soon */
extern void (*sa_wake_hook) (void); /* NULL: nobody listens */
extern void sa_wake_housekeeping(void);

/* relation.c: our own relations by their names */
typedef enum SaRelation
{
	SA_TABLE_SESSION,
	SA_TABLE_REMEMBER_ME_TOKEN,
	SA_TABLE_APPLICATION,
	SA_TABLE_ACCOUNT,
	SA_TABLE_ENDED_ID,
	SA_TABLE_ENDED_SESSION,
	SA_TABLE_NODE,
	SA_TABLE_INSTALLATION,
	SA_TABLE_LATE_ENDING,
	SA_TABLE_POLICY,
	SA_TABLE_POLICY_DEFINITION,
	SA_TABLE_POLICY_SIGNAL,
	SA_TABLE_PROBE_RULE,
	SA_INDEX_APPLICATION_NAME,
	SA_INDEX_POLICY_KEY,
	SA_INDEX_PROBE_RULE_KEY,
	SA_INDEX_SESSION_APPLICATION,
	SA_INDEX_SESSION_KEY,
	SA_INDEX_SESSION_USER_NAME,
	SA_INDEX_ENDED_ID_KEY,
	SA_SEQUENCE_SEAT_TICKET
} SaRelation;

extern Oid	sa_relation(SaRelation which);	/* errors if there is none */
extern Oid	sa_relation_if_any(SaRelation which);

/* scan.c: our own tables, read without a statement */
typedef struct SaScan
{
	Relation	rel;
	Relation	index;			/* NULL: all rows are read */
	Snapshot	snapshot;
	IndexScanDesc index_scan;
	TableScanDesc table_scan;
	TupleTableSlot *slot;		/* the row that was read last */
} SaScan;

extern void sa_scan_key_text(ScanKey key, AttrNumber column, const char *value);	/* NULL is null */
extern void sa_scan_key_hash(ScanKey key, AttrNumber column, const uint8 *hash);
extern void sa_scan_begin(SaScan *scan, SaRelation table);
extern void sa_scan_begin_at(SaScan *scan, SaRelation table, SaRelation index,
							 Snapshot snapshot, ScanKey keys, int nkeys);
extern void sa_scan_begin_by(SaScan *scan, SaRelation table, SaRelation index,
							 ScanKey keys, int nkeys);
extern bool sa_scan_next(SaScan *scan);
extern Datum sa_scan_value(SaScan *scan, AttrNumber column, bool *isnull);
extern char *sa_scan_text(SaScan *scan, AttrNumber column); /* NULL if null */
extern void sa_scan_end(SaScan *scan);
extern void *sa_grown(void *array, int *space, Size element);

/* spi.c: statements that are prepared once, and always see the latest data */
typedef struct SaStatement
{
	const char *sql;
	bool		generic;		/* never planned for its arguments: that takes
								 * longer than to run it */
	SPIPlanPtr	plan;			/* kept from the first run on */
	SPIPlanPtr	plan_for_many;	/* likewise, but planned anew for each run */
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
extern int	sa_run_once(const char *sql, SaArgs *args);

extern ErrorData *sa_attempt(void (*step) (void *), void *argument);

typedef struct SaOwner
{
	Oid			save_userid;
	int			save_sec_context;
	int			save_nestlevel;
} SaOwner;

extern void sa_owner_enter(SaOwner *owner);
extern void sa_owner_leave(SaOwner *owner);

/* released.c: waiting without the snapshot of the client's statement */
struct QueryDesc;
extern struct QueryDesc *sa_lone_statement(FunctionCallInfo fcinfo);
extern bool sa_snapshot_release(struct QueryDesc *query);
extern void sa_snapshot_retake(struct QueryDesc *query);

/* array.c: arrays of text and bytea */
extern ArrayType *sa_array(Datum *values, int n, Oid type);
extern ArrayType *sa_array_of_text(const char *value);
extern Datum *sa_array_values(ArrayType *array, Oid type, int *n);
extern int	sa_array_length(ArrayType *array);
extern bool sa_array_has_text(ArrayType *array, const char *value);
extern void sa_arg_array(SaArgs *args, Oid array_type, ArrayType *array);	/* NULL is null */
extern void sa_arg_hash(SaArgs *args, const uint8 *hash);	/* NULL is null */
extern ArrayType *sa_result_array(uint64 row, int column);	/* NULL if null */

/* rows.c: the rows of a transition table */
typedef struct SaRowReader
{
	Tuplestorestate *rows;
	int			pointer;
	TupleTableSlot *slot;		/* the row that was read last */
} SaRowReader;

extern void sa_rows_begin(SaRowReader *reader, Relation rel, Tuplestorestate *rows);
extern bool sa_rows_next(SaRowReader *reader);
extern void sa_rows_end(SaRowReader *reader);

/* lock.c: locks that are taken without waiting */
typedef enum SaRowLock
{
	SA_ROW_LOCKED,
	SA_ROW_CHANGED,				/* a newer version than the one that was found
								 * is */
	SA_ROW_GONE,
	SA_ROW_BUSY					/* another transaction has it locked */
} SaRowLock;

/* The first that another transaction has locked; all zero if there is none. */
typedef struct SaBusy
{
	bool		stops;			/* nothing is taken after the first */
	bool		any;
	TransactionId holder;		/* of a row */
	VirtualTransactionId writer;	/* that writes a table */
	Oid			relid;			/* a table, for this mode */
	LOCKMODE	mode;
} SaBusy;

/* Is there no use in locking more? */
#define SA_STOPS(busy) ((busy)->any && (busy)->stops)

extern TimestampTz sa_wait_until(void);
extern SaRowLock sa_lock_row(Relation rel, ItemPointer tid, LockTupleMode mode,
							 TupleTableSlot *slot, SaBusy *busy);
extern void sa_lock_found(SaRelation table, LockTupleMode mode, SaStatement *which,
						  SaArgs *args, Oid type, ArrayBuildState **locked,
						  ArrayBuildState **left, SaBusy *busy);
extern bool sa_lock_table(Oid relid, LOCKMODE mode, SaBusy *busy);
extern VirtualTransactionId *sa_writers_of(Oid relid);
extern bool sa_others_write(SaRelation table, SaBusy *busy);
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
extern const char *sa_actor_or_null(void);

/* encoding.c: of the database, of the client, and of neither */
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

/* init.c */
extern void sa_base_init(void);

/* test/points/test_point.c: windows that a test can hold open; nothing in normal builds */
#ifdef SA_TEST_POINTS
extern void sa_test_point(const char *name);
extern void sa_test_point_init(void);
extern bool sa_test_collisions; /* of all keys of the shared table */
#else
#define sa_test_point(name) ((void) 0)
#define sa_test_point_init() ((void) 0)
#endif

#endif							/* SA_BASE_H */
