/*
 * session.h
 *	  What an application calls: open, renew, close, limits, probes, users.
 */
#ifndef SA_SESSION_H
#define SA_SESSION_H

#include "ending/ending.h"

/* probe.c: anonymous sessions that are counted and not kept */
extern void sa_probe_init(void);
extern void sa_probe_rules_read(SaApplication *application, MemoryContext context);
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
extern void sa_seat_taken(const SaSeat *seat);

/*
 * Is the idle timeout that a product tells (if not 0) as good as the one that we know?
 * A session must not end before the product ends it, so that ours may be a little
 * longer; products round it, or compute it from clocks that differ.
 */
static inline bool
sa_idle_timeout_holds(int64 known, int64 told)
{
	return told == 0 || (told <= known && known - told <= Max(2 * USECS_PER_SEC, known / 64));
}

/* user.c: what becomes of a user's data */
extern bool sa_user_rename(const char *application, const char *old_name, const char *new_name,
						   const char *reason, SaEnding *ending);
extern void sa_user_move(const char *application, const char *old_name, const char *new_name,
						 bool anonymize);

#endif							/* SA_SESSION_H */
