/*
 * housekeeping.h
 *	  The list of tasks, the launcher and its workers.
 */
#ifndef SA_HOUSEKEEPING_H
#define SA_HOUSEKEEPING_H

#include "base/base.h"

extern void sa_housekeeping_init(void);

#endif							/* SA_HOUSEKEEPING_H */
