/*
 * session_admin.c
 *	  Module magic and _PG_init: one call for each folder that has something to set up,
 *	  lowest first.
 */
#include "base/base.h"
#include "policy/policy.h"
#include "products/products.h"
#include "live/live.h"
#include "ending/ending.h"
#include "session/session.h"
#include "capture/capture.h"
#include "housekeeping/housekeeping.h"

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
	/* before the prefix of settings is reserved */
	sa_test_point_init();
	sa_base_init();
	sa_policy_init();
	sa_products_init();
	sa_live_init();
	sa_ending_init();
	sa_session_init();
	sa_capture_init();
	sa_housekeeping_init();
}
