/*
 * deletion.h
 *	  Rows of sessions and tokens in products' own tables that are to be deleted.
 */
#ifndef SA_DELETION_H
#define SA_DELETION_H

#include "capture/capture.h"
#include "ending/ending.h"

/* Rows that are deleted together, and for how long that may take. */
#define SA_DELETION_ROWS	1000
#define SA_DELETION_TIME	2000	/* milliseconds */

/* Which rows: any of these. */
typedef struct SaTarget
{
	ArrayType  *user_names;		/* text[]: of these users */
	ArrayType  *users;			/* text[]: their names or keys, as the table
								 * has them */
	ArrayType  *keys;			/* text[]: role key */
	ArrayType  *hashes;			/* bytea[]: of role secret, where there is no
								 * key */
	ArrayType  *all_hashes;		/* bytea[]: the same, of all; sorted */
	ArrayType  *secrets;		/* text[]: of these only, to find them by an
								 * index */
	const uint8 *keep;			/* the hash of a session that stays */
} SaTarget;

typedef struct SaPlace
{
	ItemPointerData tid;
	bool		by_user;		/* the row says that it is one of these users' */
	bool		has_hash;
	uint8		hash[SA_HASH_LEN];
} SaPlace;

typedef struct SaPlaces
{
	int			n;
	int			allocated;
	SaPlace    *rows;
} SaPlaces;

/* What is to be deleted from one table, and what becomes of it. */
typedef struct SaDeletion
{
	const char *application;
	const char *product;
	SaTablePart part;
	Oid			relid;
	const char *table;			/* its name when it was attached */
	SaTarget	target;
	TransactionId before;		/* only what transactions before this one
								 * wrote; 0: all */
	int			tries;			/* so often it has failed before */
	int64		deadline;		/* what is not deleted by then (see
								 * sa_monotonic_now) is left; 0: none */
	/* the rest is the result */
	SaWatch    *watch;			/* NULL: it is not watched any more */
	SaPlaces	rows;			/* these are locked */
	SaPlaces	busy;			/* these somebody else has locked */
	SaPlaces	left;			/* these could not be deleted */
	bool		spares_valid;	/* sessions that are valid stay */
	bool		everything;		/* whatever the target */
	bool		unsearched;		/* nor could the table be searched */
	bool		invisible;		/* there may be rows that nobody sees yet */
	uint64		deleted;
	int			failures;		/* failures that took their time */
	int			errors;			/* those that were quick */
	int			sqlstate;
	const char *message;		/* why */
} SaDeletion;

/* places.c */
extern void sa_places_add(SaPlaces *places, const ItemPointerData * tid, const uint8 *hash,
						  bool by_user);
extern void sa_places_append(SaPlaces *places, const SaPlace *rows, int n);
extern ArrayType *sa_places_hashes(const SaPlaces *places);
extern void sa_places_keep(SaPlaces *places, ArrayType *hashes, bool or_by_user);
extern void sa_places_drop(SaPlaces *places, ArrayType *hashes);
extern uint8 *sa_hashes_sorted(ArrayType *array, int *n);
extern bool sa_hashes_have(const uint8 *hashes, int n, const uint8 *hash);

/* product_table.c */
extern bool sa_table_has_users(const SaWatch *watch);
extern bool sa_table_finds_users(const SaWatch *watch);
extern void sa_table_search(const SaWatch *watch, const SaTarget *target, Relation relation,
							SaPlaces *found);
extern int	sa_table_end_rows(const SaWatch *watch, Relation relation, const SaPlace *rows, int n,
							  uint64 *ended);

/* find.c */
extern SaWatch *sa_deletion_open(const SaDeletion *deletion, Relation *relation);
extern bool sa_deletion_concerns(const SaDeletion *deletion, TupleTableSlot *slot);
extern void sa_deletion_failed(SaDeletion *deletion, const ErrorData *error, bool timed_out);
extern ErrorData *sa_deletion_attempt(void (*step) (void *), void *argument);
extern void sa_deletions_lock(List *deletions, SaBusy *busy);

/* deletion.c */
extern const SaEnding *sa_deletion_under_way(const SaWatch *watch, SaEnded **ended);
extern bool sa_deletion_is_over(const SaDeletion *deletion);
extern void sa_deletion_run(SaDeletion *deletion, const SaEnding *ending, SaEnded *ended);
extern void sa_deletions_run(List *deletions, const SaEnding *ending, SaEnded *ended);

/* empty.c */
extern void sa_deletion_empty(SaDeletion *deletion, const SaEnding *ending, SaEnded *ended);

/* product_rows.c */
extern List *sa_deletions_of(const char *application, const char *product);
extern uint64 sa_delete_written_rows(const SaWatch *watch, ArrayType *secrets, ArrayType *hashes,
									 const SaEnding *ending);

/* remains.c: what could not be deleted */
extern void sa_remains_note(const SaDeletion *deletion, const SaEnding *ending);
extern ArrayType *sa_remains_without(const char *application, ArrayType *hashes, bool only_slow);

#endif							/* SA_DELETION_H */
