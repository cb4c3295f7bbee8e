/*
 * match.h
 *	  What attach_application() found of a product in a schema.
 */
#ifndef SA_MATCH_H
#define SA_MATCH_H

#include "attach/attach.h"

/* One row of match_product: a part if role is NULL, else a column of it. */
typedef struct Match
{
	char	   *part;
	Oid			relid;
	char	   *relation_name;
	char	   *role;
	char	   *column_name;
	char	   *reading;
	char	   *key_of;
	char	   *state;
	char	   *note;
	Datum		path;			/* arrays of text */
	bool		no_path;
	Datum		excludes;
	bool		no_excludes;
	bool		clears;			/* what ends in this part */
	int64		rows;			/* read of this part */
} Match;

/* match.c */
extern bool sa_product_is_built_in(const char *product);
extern Match *sa_matches_find(const char *product, const char *schema, int *nmatches);
extern bool sa_match_is_attached(const Match *match);
extern Match *sa_matches_part(Match *matches, int nmatches, const char *part);
extern void sa_matches_check(Match *matches, int nmatches, const char *application,
							 const char *product, const char *schema);
extern void sa_matches_check_privileges(Match *matches, int nmatches);

/* lock.c */
extern void sa_attach_lock(List *relids, LOCKMODE mode);

/* report.c */
extern void sa_report_row(FunctionCallInfo fcinfo, const char *part, const char *object,
						  const char *state, const char *note);
extern void sa_report_matches(FunctionCallInfo fcinfo, Match *matches, int nmatches,
							  const char *application, const char *product);

#endif							/* SA_MATCH_H */
