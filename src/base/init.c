/*
 * init.c
 *	  What this folder sets up when the library is loaded.
 */
#include "base/init.h"

void
sa_base_init(void)
{
	sa_guc_init();
	sa_relation_init();
	sa_shmem_init();
	sa_at_end_init();
	sa_dropped_init();
	sa_server_run_init();
}
