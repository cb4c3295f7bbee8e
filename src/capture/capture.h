/*
 * capture.h
 *	  What a statement on a product's table tells, and what follows of it.
 */
#ifndef SA_CAPTURE_H
#define SA_CAPTURE_H

#include "products/products.h"

#include "utils/snapshot.h"

/* product_rows.c */
extern void sa_capture_init(void);

/* capture.c: rows that are there already */
extern int64 sa_capture_existing(const SaWatch *watch, Relation relation,
								 Snapshot snapshot, Snapshot done);

/* batch.c: what rows tell, in lists that are applied together */
typedef enum SaBatchKind
{
	SA_BATCH_CHANGES,			/* the rows were changed by a statement */
	SA_BATCH_BACKFILL,			/* they were there before: no events */
	SA_BATCH_DIFFERENCES		/* and may differ from what is known of them */
} SaBatchKind;

typedef struct SaBatch SaBatch;

extern SaBatch *sa_batch_begin(const SaWatch *watch, SaBatchKind kind);
extern void sa_row_inserted(SaBatch *batch, TupleTableSlot *slot);	/* row.c */
extern int	sa_batch_sessions(const SaBatch *batch);
extern ArrayType *sa_batch_expired(const SaBatch *batch);
extern bool *sa_batch_compare(SaBatch *batch, bool takes_new);	/* compare.c */
extern void sa_batch_wipe(SaBatch *batch);
extern void sa_apply(SaBatch *batch);	/* apply.c */
extern void sa_batch_applied(const SaBatch *batch, int64 *written, int64 *refused);
extern void sa_batch_end(SaBatch *batch);

/* failure.c: what is not understood */
extern bool sa_was_canceled(const ErrorData *error);
extern bool sa_failure_note_once(const char *application, Oid relid, const char *event,
								 const char *message);

/* product_table.c: questions to a product's table */
extern bool sa_table_is_empty(Oid relid);
extern ArrayType *sa_table_without_rows(const SaWatch *watch, ArrayType *hashes, int *n);
extern ArrayType *sa_table_obstacles(Oid relid, bool clears);

/* retry.c: rows of products that could not be deleted; the first is a task of maintain() */
extern int64 sa_remains_retry(bool *more);
extern int64 sa_remains_rest(void);
extern void sa_remains_hurry(void);

#endif							/* SA_CAPTURE_H */
