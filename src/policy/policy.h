/*
 * policy.h
 *	  What holds for an application, cached until it changes.
 */
#ifndef SA_POLICY_H
#define SA_POLICY_H

#include "base/base.h"

#define SA_NO_TIMEOUT	PG_INT64_MAX	/* an idle timeout that never ends */

/* The time limits of one user; 0: those of the application. */
typedef struct SaTimeLimit
{
	int64		idle_timeout;	/* in microseconds */
	int64		absolute_timeout;
} SaTimeLimit;

/* What a commit waits for, whatever synchronous_commit says. */
typedef enum SaDurability
{
	SA_DURABILITY_NONE,
	SA_DURABILITY_ON,			/* the disk, and that of synchronous standbys */
	SA_DURABILITY_APPLY			/* and that these show it */
} SaDurability;

/* What a policy of type choice says. */
typedef enum SaChoice
{
	SA_REJECT = 1,
	SA_EVICT_OLDEST,
	SA_END_SERIES,
	SA_END_USER,
	SA_END_USER_AND_DEVICES,
	SA_INVALIDATE,
	SA_KEEP,
	SA_RECORD,
	SA_ERROR,
	SA_COUNT,
	SA_IGNORE
} SaChoice;

typedef struct SaProbeRule
{
	uint64		key;
	char	   *user_agent_like;	/* NULL: any */
	inet	   *address;		/* NULL: any */
} SaProbeRule;

/* An ending of sessions that another transaction had locked */
typedef struct SaLateEnding
{
	bool		any_user;
	bool		any_session;
	bool		keeps;
	uint64		user_key;		/* unless any_user; 0: anonymous */
	uint8		hash[SA_HASH_LEN];	/* unless any_session */
	uint8		keep[SA_HASH_LEN];	/* if keeps: this one goes on */
	uint64		before_xid;		/* opened by an earlier transaction */
} SaLateEnding;

typedef struct SaApplication
{
	char		name[SA_NAME_MAX + 1];
	uint64		key;			/* the name, hashed */
	Oid			session_relid;	/* the table session */
	int64		generation;		/* none is valid: -1 */
	bool		moved;			/* came from a dump, and was not used since */
	bool		has_user_limits;	/* some user has policies of their own */
	int64		idle_timeout;	/* these are in microseconds */
	int64		absolute_timeout;
	int64		anonymous_idle_timeout;
	int64		anonymous_absolute_timeout;
	int64		remember_me_lifetime;
	int64		remember_me_grace;
	int64		node_lease;
	int64		max_sessions_per_user;	/* negative: no limit, here and below */
	int64		max_sessions;
	int64		max_anonymous_sessions;
	int			on_session_limit;	/* an SaChoice, here and below */
	int			on_theft;
	int			on_restore;
	int			on_capture_failure;
	int			captured_logins;
	int			invalidation_durability;	/* an SaDurability */
	uint64		policies_read;	/* grows each time that policies were read
								 * anew */
	/* what these point to lives until the end of the transaction: */
	SaLateEnding *late_endings;
	int			n_late_endings;
	ArrayType  *trusted_proxies;	/* NULL: none */
	SaProbeRule *probe_rules;
	int			n_probe_rules;
} SaApplication;

/* application.c */
extern void (*sa_application_loaded_hook) (void);	/* NULL: nobody listens */

extern bool sa_application_find(const char *name, SaApplication *application);
extern void sa_application_get(const char *name, SaApplication *application);
extern void sa_application_insert(const char *name, SaApplication *application);
extern int64 sa_policy_number(const char *application, const char *user_name,
							  const char *name);
extern void sa_policy_wait_until_told(void);
extern bool sa_policies_version(uint64 *version);
extern bool sa_policies_are_of(uint64 version);

/* key.c */
extern uint64 sa_application_key(const char *name);
extern uint64 sa_user_key(const char *user_name);
extern const char *sa_application_of_key(uint64 key);

/* validity.c: are these times and this generation valid */
extern void sa_time_limit_read(const SaApplication *application, const char *user_name,
							   SaTimeLimit *limit);
extern int64 sa_idle_timeout(const SaApplication *application, uint64 user_key,
							 const SaTimeLimit *limit, int64 idle_timeout);
extern int64 sa_absolute_timeout(const SaApplication *application, const char *user_name);
extern int64 sa_max_sessions(const SaApplication *application, const char *user_name,
							 int *on_session_limit);
extern bool sa_times_are_valid(const SaApplication *application, uint64 user_key,
							   const SaTimeLimit *limit, int64 generation,
							   TimestampTz created_at, TimestampTz last_access_at,
							   int64 idle_timeout, TimestampTz now);

/*
 * Does the idle timeout that a product tells (0: none) agree with the one that we know? A
 * session must not end before the product ends it, so that ours may be a little longer;
 * products round it, or compute it from clocks that differ.
 */
static inline bool
sa_idle_timeout_holds(int64 known, int64 told)
{
	return told == 0 || (told <= known && known - told <= Max(2 * USECS_PER_SEC, known / 64));
}

/* probe_rule.c: which anonymous sessions are probes */
extern uint64 sa_probe_rule_key(const char *application, const char *user_agent_like,
								const char *address);
extern bool sa_probe_rule_matches(const SaProbeRule *rule, const char *user_agent, inet *address);

/* late_ending.c: what has ended although another transaction had it locked */
extern bool sa_late_ended(const SaApplication *application, uint64 user_key, const uint8 *hash,
						  uint64 opened_xid);

/* durability.c */
extern void sa_commit_durably(const char *application); /* NULL: all of them */
extern void sa_commit_lazily(void);

extern void sa_policy_init(void);

#endif							/* SA_POLICY_H */
