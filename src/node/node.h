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
extern void sa_node_lock(FunctionCallInfo fcinfo, const char *node);
extern void sa_node_check_role(const char *node, bool joins);

/* node.c: join and leave */
extern SaStatement sa_position_now;

/* lease.c: how long a node may answer from its cache */
extern int64 sa_node_lease(const char *application);
extern TimestampTz sa_time_after(TimestampTz at, int64 microseconds);

#endif							/* SA_NODE_H */
