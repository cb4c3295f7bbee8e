/*
 * end.h
 *	  What the files of this folder share: sessions that are to be found, and products.
 */
#ifndef SA_END_H
#define SA_END_H

#include "ending/ending.h"
#include "live/live.h"

#include "commands/trigger.h"
#include "utils/builtins.h"

/* Sessions of an application that are to end. */
typedef struct SaSessionSearch
{
	const char *application;
	ArrayType  *hashes;			/* these, */
	ArrayType  *(*find) (void *argument);	/* or those that this finds */
	void	   *argument;
	const char *user_name;		/* all of this user; NULL: no matter whose */
} SaSessionSearch;

/* ending.c */
extern uint64 sa_end_found_sessions(const SaSessionSearch *search, const SaEnding *ending,
									SaEnded *ended);

/* tell_live.c */
extern void sa_tell_live_ended(TriggerData *trigdata);

/* Do rows of products end, too? */
static inline bool
sa_ending_reaches_products(const SaEnding *ending)
{
	return sa_product_rows != NULL && !ending->options.spares_products;
}

/* The application of a row, of session or remember_me_token. */
static inline char *
sa_row_application(const SaRowReader *reader)
{
	bool		isnull;

	StaticAssertStmt((int) SA_SESSION_APPLICATION == (int) SA_TOKEN_APPLICATION,
					 "both tables have the application in the same column");
	return TextDatumGetCString(slot_getattr(reader->slot, SA_SESSION_APPLICATION, &isnull));
}

#endif							/* SA_END_H */
