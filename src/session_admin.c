/*
 * session_admin.c
 *	  Module magic and _PG_init: one call for each file that has something to
 *	  set up.
 */
#include "session_admin.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	sa_test_point_init();
	sa_guc_init();
	sa_relation_init();
	sa_policy_init();
	sa_live_init();
	sa_probe_init();
	sa_worker_init();
	sa_pending_init();
	sa_attachment_init();
}
