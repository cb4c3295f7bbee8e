/*
 * session_admin.c
 *	  Module magic and _PG_init: one call for each file that has something to
 *	  set up.
 */
#include "session_admin.h"

/* PostgreSQL 18 shows them in pg_get_loaded_modules() */
#ifdef PG_MODULE_MAGIC_EXT
PG_MODULE_MAGIC_EXT(
					.name = "session_admin",
					.version = SA_VERSION
);
#else
PG_MODULE_MAGIC;
#endif

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
