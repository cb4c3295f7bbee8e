/*
 * series.h
 *	  A series of remember-me tokens: one per device.  For the files of this folder alone.
 */
#ifndef SA_SERIES_H
#define SA_SERIES_H

#include "session/token.h"

/* What a shown validator is to its series. */
typedef enum SaShown
{
	SHOWN_STRANGER,
	SHOWN_CURRENT,
	SHOWN_PARENT,
	SHOWN_ANCESTOR
} SaShown;

typedef struct SaSeries
{
	char	   *user_name;
	bool		live;			/* its generation is the application's */
	uint8		current_hash[SA_HASH_LEN];
	bool		has_parent;		/* and with it salt and rotated_at */
	uint8		parent_hash[SA_HASH_LEN];
	uint8		salt[SALT_LEN];
	TimestampTz rotated_at;
	TimestampTz created_at;
} SaSeries;

extern char *sa_series_user(const char *application, const char *series);
extern char *sa_series_lock_user(const char *application, const char *series);
extern bool sa_series_lock(const char *application, const char *series_name, SaSeries *series);
extern SaShown sa_series_classify(const char *application, const char *series_name,
								  const SaSeries *series, const uint8 *hash);

#endif							/* SA_SERIES_H */
