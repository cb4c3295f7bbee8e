/*
 * restart.c
 *	  Touches that outlive an orderly restart.
 *
 * The postmaster, the last process that is left, writes what is unflushed to a file, and
 * counts it again when it starts.  README.md says to which state of the data directory
 * such a file belongs.
 */
#include "live/table.h"

#include <unistd.h>

#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#define FILE_NAME		PGSTAT_STAT_PERMANENT_DIRECTORY "/session_admin.stat"
#define TEMPORARY_NAME	FILE_NAME ".tmp"
#define FILE_VERSION	0x53410002
#define RESTART_BATCH	1000

typedef struct RestartHeader
{
	uint32		version;
	uint32		entry_size;
	uint64		system_identifier;
	XLogRecPtr	checkpoint;
	int64		n_touches;
} RestartHeader;

/* What a file that belongs to this state has to begin with; false if it is no orderly one. */
static bool
restart_header(RestartHeader *header)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		orderly = crc_ok && control->state == DB_SHUTDOWNED;

	memset(header, 0, sizeof(*header));
	header->version = FILE_VERSION;
	header->entry_size = sizeof(LiveTouch);
	header->system_identifier = control->system_identifier;
	header->checkpoint = control->checkPoint;
	pfree(control);
	return orderly;
}

/* At the end of the postmaster, after all others and the shutdown checkpoint. */
static void
restart_save(int code, pg_attribute_unused() Datum arg)
{
	LiveTouch  *touches;
	RestartHeader header;
	uint32		position = 0;
	FILE	   *file;
	bool		ok;

	if (code != 0 || !restart_header(&header))
		return;

	file = AllocateFile(TEMPORARY_NAME, PG_BINARY_W);
	touches = palloc0(RESTART_BATCH * sizeof(LiveTouch));
	/* the header is complete, and written again, when all is counted */
	ok = file != NULL && fwrite(&header, sizeof(header), 1, file) == 1;
	while (ok)
	{
		int			n = sa_live_unflushed_anywhere(touches, RESTART_BATCH, &position);

		ok = fwrite(touches, sizeof(LiveTouch), n, file) == (size_t) n;
		header.n_touches += n;
		if (position == 0)
			break;
	}
	ok = ok && fseeko(file, 0, SEEK_SET) == 0 &&
		fwrite(&header, sizeof(header), 1, file) == 1;
	if (file != NULL && FreeFile(file) != 0)
		ok = false;
	if (!ok)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", TEMPORARY_NAME)));
	if (!ok || header.n_touches == 0)
		(void) unlink(TEMPORARY_NAME);
	else
		(void) durable_rename(TEMPORARY_NAME, FILE_NAME, LOG);
}

/*
 * Touches that were not flushed when the server was shut down.  What else there
 * is to know of the session is read from its row at the first one.  False if there is
 * no room.
 */
static bool
live_restore(const LiveTouch *touch)
{
	LiveEntry  *entry = sa_live_entry_add(&touch->key, live_hash(&touch->key));

	if (entry == NULL)
		return false;
	pg_atomic_write_u64(&entry->last_access_at, (uint64) touch->last_access_at);
	pg_atomic_write_u64(&entry->requests, (uint64) touch->requests);
	return true;
}

/* When the postmaster starts: the shared table is empty, and there is no other process. */
static void
restart_load(void)
{
	FILE	   *file = AllocateFile(FILE_NAME, PG_BINARY_R);
	RestartHeader expected;
	RestartHeader header;
	LiveTouch	touch;
	int64		n = 0;
	int64		n_lost = 0;

	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", FILE_NAME)));
		return;
	}

	if (restart_header(&expected) && fread(&header, sizeof(header), 1, file) == 1)
	{
		expected.n_touches = header.n_touches;
		if (memcmp(&header, &expected, sizeof(header)) == 0)
		{
			for (; n < header.n_touches && fread(&touch, sizeof(touch), 1, file) == 1; n++)
				n_lost += !live_restore(&touch);
		}
	}
	if (n == 0)
		ereport(LOG,
				(errmsg("ignored file \"%s\", which is not of the last shutdown", FILE_NAME)));
	if (n_lost > 0)
		ereport(LOG,
				(errmsg("touches of " INT64_FORMAT " sessions were not counted", n_lost),
				 errhint("session_admin.max_live_sessions was lower than before.")));
	FreeFile(file);
	/* it must not be counted twice */
	if (unlink(FILE_NAME) != 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", FILE_NAME)));
}

/* Restore what the last shutdown left, and save at the next. */
static void
restart_start(pg_attribute_unused() void *memory, pg_attribute_unused() LWLockPadded *locks,
			  bool found)
{
	if (found || IsUnderPostmaster)
		return;
	restart_load();
	on_shmem_exit(restart_save, (Datum) 0);
}

/* Starts after the table, without memory of its own. */
void
sa_restart_init(void)
{
	static const SaShmemPart part = {.name = "session_admin restart", .start = restart_start};

	sa_shmem_add(&part);
}
