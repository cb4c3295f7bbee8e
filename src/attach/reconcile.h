/*
 * reconcile.h
 *	  What the files of reconcile_sessions() share.
 */
#ifndef SA_RECONCILE_H
#define SA_RECONCILE_H

#include "attach/attach.h"
#include "capture/capture.h"

/* Rows that are compared, sessions that end, at a time. */
#define RECONCILE_BATCH		1000

/* What there is to be compared. */
typedef struct Pair
{
	char	   *application;
	char	   *product;
	char	   *table_name;
	Oid			relid;			/* InvalidOid: the table is gone, or nothing
								 * is attached */
	const char *note;
	bool		takes_new;		/* rows of which nothing is known */
	int64		rows_read;
	int64		ended;
	int64		taken;
	int64		deleted;
} Pair;

/* How far it has come: first through the rows, then through the sessions. */
typedef struct Position
{
	bool		in_sessions;
	ItemPointerData next_row;
	uint8		last_hash[SA_HASH_LEN];
	bool		finished;
} Position;

/* reconcile_session.c */
extern void sa_reconcile_end(Pair *pair, const SaWatch *watch, ArrayType *hashes,
							 const char *reason);
extern int64 sa_reconcile_sessions_of(Pair *pair, const SaWatch *watch, Position *position,
									  int64 limit, bool tell);

/* reconcile_row.c */
extern int64 sa_reconcile_rows_of(Pair *pair, const SaWatch *watch, Relation relation,
								  Position *position, int64 limit, bool tell);

static inline void
reconcile_tell(const Pair *pair, const char *of_what, int64 n)
{
	ereport(NOTICE,
			(errmsg("%s of \"%s\": " INT64_FORMAT " so far", of_what, pair->table_name, n)));
}

#endif							/* SA_RECONCILE_H */
