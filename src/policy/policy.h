/*
 * policy.h
 *	  What holds for an application, cached until it changes.
 */
#ifndef SA_POLICY_H
#define SA_POLICY_H

#include "base/base.h"

/* policy.c: what holds for an application, cached until it changes */
typedef struct SaUserLimit
{
	uint64		user_key;
	int64		idle_timeout;	/* in microseconds; 0: the application's */
	int64		absolute_timeout;
	int64		max_sessions;	/* PG_INT64_MIN: the application's */
	int			on_session_limit;	/* 0: the application's */
} SaUserLimit;

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

/* late.c: of sessions that somebody had locked when they ended */
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
	/* valid until the next look-up of an application: */
	SaLateEnding *late_endings;
	int			n_late_endings;
	ArrayType  *trusted_proxies;	/* NULL: none */
	SaUserLimit *user_limits;	/* of users who have their own, by user_key */
	int			n_user_limits;
	SaProbeRule *probe_rules;
	int			n_probe_rules;
} SaApplication;

extern bool sa_application_find(const char *name, SaApplication *application);
extern void sa_application_make(const char *name, SaApplication *application);
extern void sa_application_get(const char *name, SaApplication *application);
extern void sa_settle_all(void);

typedef enum SaSettlement
{
	SA_UNSETTLED,				/* or a restore may be under way */
	SA_UNUSED,
	SA_SETTLED
} SaSettlement;

extern SaSettlement sa_settlement(void);
extern const char *sa_application_of_key(uint64 key);
extern uint64 sa_user_key(const char *user_name);
extern int64 sa_idle_timeout(const SaApplication *application, uint64 user_key,
							 int64 idle_timeout);
extern bool sa_times_are_valid(const SaApplication *application, uint64 user_key,
							   int64 generation, TimestampTz created_at,
							   TimestampTz last_access_at, int64 idle_timeout,
							   TimestampTz now);
extern int64 sa_absolute_timeout(const SaApplication *application, uint64 user_key);
extern int64 sa_max_sessions(const SaApplication *application, uint64 user_key,
							 int *on_session_limit);
extern int64 sa_policy_number(const char *application, const char *user_name,
							  const char *name);
extern uint64 sa_application_key(const char *name);
extern void sa_policy_tell(Oid relation);
extern void sa_policy_settle(void);
extern SaDurability sa_policy_durability(const char *application);
extern void sa_policy_init(void);

#endif							/* SA_POLICY_H */
