/*
 * row.h
 *	  What one row of a product's table holds, and what a change of it tells.
 */
#ifndef SA_ROW_H
#define SA_ROW_H

#include "capture/batch.h"

/* A value in a column. */
typedef struct SaValue
{
	Datum		value;
	bool		isnull;
	Oid			type;
	SaReading	reading;
} SaValue;

/* value.c: a column by its role */
extern bool sa_value_get(const SaWatch *watch, SaColumnRole role, TupleTableSlot *slot,
						 SaValue *value);
extern char *sa_value_as_text(const SaValue *value);
extern char *sa_value_text(const SaWatch *watch, SaColumnRole role, TupleTableSlot *slot);
extern bool sa_value_time(const SaWatch *watch, SaColumnRole role, TupleTableSlot *slot,
						  TimestampTz *result);
extern bool sa_value_is_true(const SaWatch *watch, SaColumnRole role, TupleTableSlot *slot);
extern bool sa_value_became_set(const SaWatch *watch, SaColumnRole role, TupleTableSlot *old,
								TupleTableSlot *new);
extern bool sa_value_unchanged(const SaWatch *watch, SaColumnRole role, TupleTableSlot *old,
							   TupleTableSlot *new);
extern bool sa_value_others_unchanged(const SaWatch *watch, TupleTableSlot *old,
									  TupleTableSlot *new);
extern bool sa_value_read_number(const char *value, int64 *result);
extern bool sa_value_read_time(const SaValue *value, TimestampTz *result);

/* value.c: the row as a whole */
extern bool sa_row_is_excluded(const SaWatch *watch, TupleTableSlot *slot);
extern bool sa_row_holds_secret(const SaWatch *watch, TupleTableSlot *slot);
extern bool sa_row_hash(const SaWatch *watch, TupleTableSlot *slot, uint8 *hash);
extern char *sa_row_user_name(const SaWatch *watch, TupleTableSlot *slot);
extern char *sa_row_user(const SaWatch *watch, TupleTableSlot *slot);

/* row.c: what it tells of users, logins and tokens; the first is in capture.h */
extern void sa_row_deleted(SaBatch *batch, TupleTableSlot *slot);
extern void sa_row_updated(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new);

/* row_session.c: and of sessions, unless it is one of those that are left alone */
extern void sa_row_session_inserted(SaBatch *batch, TupleTableSlot *slot);
extern void sa_row_session_deleted(SaBatch *batch, TupleTableSlot *slot);
extern void sa_row_session_updated(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new);

#endif							/* SA_ROW_H */
