/*
 * node.h
 *	  What an application node calls: join, sync, leave, wait.  No other folder uses it.
 */
#ifndef SA_NODE_H
#define SA_NODE_H

#include "base/base.h"

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

/* name.c: the name of a node, which is its role's */
#define SA_PRODUCT_PREFIX	"product:"	/* no node's name begins so */

extern char *sa_node_arg(FunctionCallInfo fcinfo, int argno);
extern void sa_node_refuse_standby(FunctionCallInfo fcinfo);
extern void sa_node_lock(FunctionCallInfo fcinfo, const char *node);
extern void sa_node_check_role(const char *node, bool joins);

/* node.c: join and leave */
extern SaStatement sa_position_now;

/* lease.c: how long a node may answer from its cache */
extern int64 sa_node_lease(const char *application);
extern TimestampTz sa_time_after(TimestampTz at, int64 microseconds);

/* sleep.c: waiting for something new in the feed */
typedef struct SaFollow
{
	const char *node;
	Datum		presented;
	struct QueryDesc *statement;	/* of the client, which only calls us; or
									 * NULL */
} SaFollow;

extern void sa_sleep_until_news(const SaFollow *follow, int64 wait);

/*
 * Of SQL in which $1 is a position: is everything known that came after it?  h is the
 * horizon.
 */
#define SA_FEED_COMPLETE \
	"pg_snapshot_xmax($1) > h.purged_xid AND NOT EXISTS (" \
	"     SELECT FROM pg_snapshot_xip($1) AS p (xid)" \
	"     WHERE p.xid <= h.purged_xid AND p.xid >= '" CppAsString2(SA_POSITION_XID_MIN) "'" \
	"       AND NOT EXISTS (SELECT FROM session_admin_internal.feed_running r WHERE r.xid = p.xid))"

/*
 * The rows of transactions that were running there, or came later. Only such rows are
 * read, by the index: two bounds of which the planner knows nothing let it expect few
 * rows, whatever it knows of the table.
 */
#define SA_FEED_AFTER \
	"SELECT * FROM session_admin_internal.invalidation" \
	"   WHERE xid >= pg_snapshot_xmax($1)" \
	"     AND xid < greatest(pg_snapshot_xmax($1), '9223372036854775807')" \
	"   UNION ALL" \
	"   SELECT r.* FROM pg_snapshot_xip($1) AS p (xid)" \
	"   CROSS JOIN LATERAL (SELECT * FROM session_admin_internal.invalidation" \
	"     WHERE xid >= p.xid AND xid <= p.xid OFFSET 0) AS r" \
	"   WHERE p.xid >= '" CppAsString2(SA_POSITION_XID_MIN) "'"

/* wait.c: waiting for nodes */
extern int64 sa_node_interval_arg(FunctionCallInfo fcinfo, int argno, const char *name);

#endif							/* SA_NODE_H */
