/*
 * apply.h
 *	  What follows of a batch, by what it tells of.
 */
#ifndef SA_APPLY_H
#define SA_APPLY_H

#include "capture/batch.h"

/* apply_user.c */
extern void sa_apply_ended(SaBatch *batch);
extern void sa_apply_renamed(SaBatch *batch);
extern void sa_apply_keys(SaBatch *batch);
extern void sa_apply_truncated_users(SaBatch *batch);

/* apply_login.c */
extern void sa_apply_logins(SaBatch *batch);
extern void sa_apply_tokens(SaBatch *batch);
extern void sa_apply_truncated_tokens(SaBatch *batch);

/* apply_session.c */
extern void sa_apply_sessions(SaBatch *batch);
extern void sa_apply_truncated_sessions(SaBatch *batch);

/* refuse.c: rows of sessions that stay ended */
extern int	sa_refuse_mark(SaBatch *batch);
extern void sa_refuse_rows(SaBatch *batch);
extern void sa_refuse_leave(SaBatch *batch);

#endif							/* SA_APPLY_H */
