/*
 * node.h
 *	  What an application node calls: join, sync, leave, wait.
 */
#ifndef SA_NODE_H
#define SA_NODE_H

#include "ending/ending.h"

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

/* node.c: who follows the feed */
extern char *sa_node_arg(FunctionCallInfo fcinfo, int argno);
extern void sa_node_lock(FunctionCallInfo fcinfo, const char *node);
extern void sa_node_check_role(const char *node, bool joins);

/* lease.c: whether the lease of a node has run out */
extern const char *sa_server_run(void);
extern void sa_note_server_run(void);
extern int64 sa_clock_ahead(TimestampTz now);

#endif							/* SA_NODE_H */
