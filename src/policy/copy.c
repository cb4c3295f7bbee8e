/*
 * copy.c
 *	  Copies in shared memory of what was read of applications, for the first call of each
 *	  connection.
 *
 * A copy has the number of transactions that had begun to change anything of that kind
 * when it was read, and is used only while that is the number.  README.md says why it then
 * tells what the tables tell.  What has lists is not copied, and of more applications than
 * there is space for, the rest is read from the tables.
 */
#include "policy/load.h"

#include "miscadmin.h"

#define COPIES	64

typedef struct PolicyCopy
{
	Oid			database;		/* InvalidOid: free */
	Oid			signal;			/* the table policy_signal: the extension may
								 * be made again */
	uint64		version;
	SaApplication application;
} PolicyCopy;

static PolicyCopy *copies = NULL;	/* NULL if not preloaded */
static LWLock *copies_lock;

/* The copy of this application, of whatever version, under the lock; NULL if there is none. */
static PolicyCopy *
copy_find(const char *name, Oid signal)
{
	for (int i = 0; i < COPIES; i++)
	{
		if (copies[i].database == MyDatabaseId && copies[i].signal == signal &&
			strcmp(copies[i].application.name, name) == 0)
			return &copies[i];
	}
	return NULL;
}

/* Get what was read of the application at this version; false if nobody has read it. */
bool
sa_policy_copy_get(SaApplication *application, Oid signal, uint64 version)
{
	PolicyCopy *copy;
	bool		found;

	LWLockAcquire(copies_lock, LW_SHARED);
	copy = copy_find(application->name, signal);
	found = copy != NULL && copy->version == version;
	if (found)
		*application = copy->application;
	LWLockRelease(copies_lock);
	return found;
}

/* Keep what was read of the application at this version, if there is space. */
void
sa_policy_copy_put(const SaApplication *application, Oid signal, uint64 version)
{
	PolicyCopy *copy;

	if (application->trusted_proxies != NULL || application->n_probe_rules > 0 ||
		application->n_late_endings > 0)
		return;
	LWLockAcquire(copies_lock, LW_EXCLUSIVE);
	copy = copy_find(application->name, signal);
	for (int i = 0; copy == NULL && i < COPIES; i++)
	{
		/* versions grow: an older one is of no use to anybody */
		if (!OidIsValid(copies[i].database) || copies[i].version < version)
			copy = &copies[i];
	}
	if (copy != NULL && (!OidIsValid(copy->database) || copy->version <= version))
	{
		copy->database = MyDatabaseId;
		copy->signal = signal;
		copy->version = version;
		copy->application = *application;
	}
	LWLockRelease(copies_lock);
}

static void
copies_start(void *memory, LWLockPadded *locks, bool found)
{
	copies = memory;
	copies_lock = &locks[0].lock;
	if (!found)
		memset(copies, 0, COPIES * sizeof(PolicyCopy));
}

static Size
copies_size(void)
{
	return COPIES * sizeof(PolicyCopy);
}

void
sa_policy_copy_init(void)
{
	static const SaShmemPart part = {
		.name = "session_admin policies",
		.size = copies_size,
		.n_locks = 1,
		.start = copies_start
	};

	sa_shmem_add(&part);
}
