/*
 * session.h
 *	  What an application calls: open, renew, close, limits, probes, users.
 */
#ifndef SA_SESSION_H
#define SA_SESSION_H

#include "policy/policy.h"
#include "ending/ending.h"

/* probe.c: anonymous sessions that are counted and not kept */
extern void sa_session_init(void);
extern bool sa_probe(const SaApplication *application, const char *user_agent,
					 inet *address, TimestampTz now);
extern int64 sa_probes_flush(bool *more);	/* a task of maintain() */

/* limit.c: how many sessions there may be */
typedef struct SaSeat
{
	Oid			session_relid;
	uint32		application;
	uint16		kind;
	int			lockmode;
} SaSeat;

extern void sa_limit_user(const SaApplication *application, const char *user_name,
						  const uint8 *hash, TimestampTz now);
extern void sa_seat_take(SaSeat *seat, const char *application, const char *user_name,
						 const uint8 *hash);
extern void sa_seat_release(const SaSeat *seat);

/* user.c: what becomes of a user's data */
extern bool sa_user_rename(const char *application, const char *old_name, const char *new_name,
						   const SaEnding *ending, SaEnded *ended);
extern void sa_user_move(const char *application, const char *old_name, const char *new_name,
						 bool anonymize);

#endif							/* SA_SESSION_H */
