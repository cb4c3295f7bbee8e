/*
 * server_run.c
 *	  The run of the server as primary, and since when it is known.
 *
 * A time by the monotonic clock means something only in the run in which it was taken.
 * The table server_run has the first moment that is known of the current one.
 */
#include "base/init.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#define RUN_LEN		72

/*
 * When shared memory was made, by the monotonic clock: anew after each crash, also one of
 * a backend, which takes what was not on the disk.  NULL if not preloaded: then nothing
 * may rely on that.
 */
static int64 *memory_made = NULL;

/*
 * The run of the server as primary: another one after a restart, and after a standby
 * was promoted; if preloaded, also after a crash.
 */
const char *
sa_server_run(void)
{
	static char run[RUN_LEN];

	snprintf(run, sizeof(run), INT64_FORMAT "/%u/" INT64_FORMAT, PgStartTime,
			 GetWALInsertionTimeLine(), memory_made != NULL ? *memory_made : 0);
	return run;
}

/* The first moment at which this backend has looked at a clock in this run. */
int64
sa_server_run_seen(const char *run)
{
	static char seen_run[RUN_LEN] = "";
	static int64 seen = 0;

	if (strcmp(seen_run, run) != 0)
	{
		seen = sa_monotonic_now();
		strlcpy(seen_run, run, sizeof(seen_run));
	}
	return seen;
}

/*
 * Remember since when this run is known, unless it is known already. If another backend is
 * doing so, this one does not wait. The caller is connected to SPI.
 */
void
sa_server_run_note(void)
{
	static SaStatement find_run = {.sql =
		"SELECT FROM session_admin_internal.server_run WHERE run = $1"
	};
	static SaStatement note_run = {.sql =
		"UPDATE session_admin_internal.server_run SET run = $1, seen = $2"
		" WHERE singleton IN (SELECT singleton FROM session_admin_internal.server_run FOR UPDATE SKIP LOCKED)"
	};
	const char *run = sa_server_run();
	SaArgs		args = {0};

	sa_arg_text(&args, run);
	if (sa_run(&find_run, &args) > 0)
		return;
	sa_arg(&args, INT8OID, Int64GetDatum(sa_server_run_seen(run)), false);
	sa_run(&note_run, &args);
}

/* How far the clock that can be set is ahead of the monotonic one, in microseconds. */
int64
sa_clock_ahead(TimestampTz now)
{
	return now - sa_monotonic_now();
}

static void
server_run_start(void *memory, pg_attribute_unused() LWLockPadded *locks, bool found)
{
	memory_made = memory;
	if (!found)
		*memory_made = sa_monotonic_now();
}

static Size
server_run_size(void)
{
	return sizeof(int64);
}

void
sa_server_run_init(void)
{
	static const SaShmemPart part = {
		.name = "session_admin run",
		.size = server_run_size,
		.start = server_run_start
	};

	sa_shmem_add(&part);
}
