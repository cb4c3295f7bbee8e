/*
 * init.h
 *	  For the files of this folder alone: what each sets up when the library is loaded.
 */
#ifndef SA_BASE_INIT_H
#define SA_BASE_INIT_H

#include "base/base.h"

extern void sa_guc_init(void);
extern void sa_relation_init(void);
extern void sa_shmem_init(void);
extern void sa_at_end_init(void);
extern void sa_dropped_init(void);
extern void sa_server_run_init(void);

#endif							/* SA_BASE_INIT_H */
