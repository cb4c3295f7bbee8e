/*
 * init.c
 *	  What this folder sets up when the library is loaded: the table first, then what
 *	  fills it after a restart.
 */
#include "live/table.h"

void
sa_live_init(void)
{
	sa_live_table_init();
	sa_restart_init();
	sa_live_kinds_init();
	sa_flush_init();
}
