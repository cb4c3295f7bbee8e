/*
 * shmem.c
 *	  Shared memory: one request hook and one startup hook for all parts of it.
 *
 * The owner of a part adds it when the library is loaded.  Parts are made, and their
 * start functions called, in the order in which they were added.  Not preloaded, there
 * is none.
 */
#include "base/init.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#define PARTS_MAX	16

static const SaShmemPart *parts[PARTS_MAX];
static int	n_parts = 0;
static bool attached = false;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* Add a part, if preloaded.  Called by an init function. */
void
sa_shmem_add(const SaShmemPart *part)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	if (n_parts == PARTS_MAX)
		elog(ERROR, "too many parts of shared memory");
	parts[n_parts++] = part;
}

/*
 * Is there shared memory that can be trusted?  On a standby there is not: what the primary
 * changes arrives as WAL, which tells no backend here.
 */
bool
sa_shmem_usable(void)
{
	return attached && !RecoveryInProgress();
}

static Size
shmem_part_size(const SaShmemPart *part)
{
	if (part->hash_entries > 0)
		return hash_estimate_size(part->hash_entries, part->hash_entry_size);
	return part->size != NULL ? part->size() : 0;
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	for (int i = 0; i < n_parts; i++)
	{
		RequestAddinShmemSpace(MAXALIGN(shmem_part_size(parts[i])));
		if (parts[i]->n_locks > 0)
			RequestNamedLWLockTranche(parts[i]->name, parts[i]->n_locks);
	}
}

/* The memory of a part; *found tells whether it was there already. */
static void *
shmem_part_attach(const SaShmemPart *part, bool *found)
{
	HASHCTL		ctl = {0};

	if (part->hash_entries > 0)
	{
		ctl.keysize = part->hash_key_size;
		ctl.entrysize = part->hash_entry_size;
		return ShmemInitHash(part->name, part->hash_entries, part->hash_entries, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	}
	if (part->size != NULL)
		return ShmemInitStruct(part->name, part->size(), found);
	return NULL;
}

static void
shmem_startup(void)
{
	bool		found = false;	/* of a part without memory: of the one before */

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	for (int i = 0; i < n_parts; i++)
	{
		const SaShmemPart *part = parts[i];
		void	   *memory;

		LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
		memory = shmem_part_attach(part, &found);
		LWLockRelease(AddinShmemInitLock);

		/*
		 * no other process is there yet: the postmaster does this, and may
		 * fail
		 */
		part->start(memory, part->n_locks > 0 ? GetNamedLWLockTranche(part->name) : NULL, found);
	}
	attached = true;
}

/* Hook in, if preloaded. */
void
sa_shmem_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}
