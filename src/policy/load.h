/*
 * load.h
 *	  For the files of this folder alone: what is read when an application is loaded into
 *	  the cache.  All but numbers goes into a memory context of its own.
 */
#ifndef SA_POLICY_LOAD_H
#define SA_POLICY_LOAD_H

#include "policy/policy.h"

/* value.c: a policy from its text */
extern int64 sa_usecs_from_text(const char *value);
extern int64 sa_int64_from_text(const char *value);
extern void sa_policy_value_set(SaApplication *application, const char *name, const char *value,
								MemoryContext context);

/* The columns of the table policy. */
enum
{
	SA_POLICY_APPLICATION = 1,
	SA_POLICY_USER_NAME,
	SA_POLICY_NAME,
	SA_POLICY_VALUE
};

/* read.c: all of it */
extern bool sa_application_read(SaApplication *application, MemoryContext context);

/* copy.c: copies in shared memory, if there is any */
extern bool sa_policy_copy_get(SaApplication *application, Oid signal, uint64 version);
extern void sa_policy_copy_put(const SaApplication *application, Oid signal, uint64 version);
extern void sa_policy_copy_init(void);

/* probe_rule.c, late_ending.c: what has rows of its own */
extern void sa_probe_rules_read(SaApplication *application, MemoryContext context);
extern void sa_late_endings_read(SaApplication *application, MemoryContext context);

/* application.c, durability.c: see init.c */
extern void sa_application_init(void);
extern void sa_durability_init(void);

#endif							/* SA_POLICY_LOAD_H */
