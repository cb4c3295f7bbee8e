/*
 * failure.h
 *	  What is not understood of a product, and whom that logs out.
 */
#ifndef SA_FAILURE_H
#define SA_FAILURE_H

#include "capture/capture.h"

#include "commands/trigger.h"

extern ErrorData *sa_capture_attempt(void (*step) (void *), void *argument);
extern const char *sa_failure_event(TriggerEvent event);
extern void sa_failure_note(const char *application, Oid relid, const char *event,
							const char *message, ArrayType *users);
extern void sa_failure_of_statement(const SaWatch *watch, TriggerData *trigdata,
									const char *message, ArrayType *users);

#endif							/* SA_FAILURE_H */
