/*
 * roster.c
 *	  The databases that use the extension, what was done there and what is due, in shared
 *	  memory.
 *
 * A spinlock protects it, held only to copy.  Any backend adds a database; otherwise the
 * launcher alone changes and removes them.
 */
#include "housekeeping/roster.h"
#include "policy/policy.h"

#include "miscadmin.h"

PG_FUNCTION_INFO_V1(sa_note_database);

/* This database uses the extension. */
typedef struct RosterNote
{
	bool		extension_made; /* in this transaction */
} RosterNote;

/* There is something to do soon. */
typedef struct RosterWake
{
	char		unused;
} RosterWake;

SaRoster   *sa_roster = NULL;

/* In a backend: has this database been noted? */
static bool noted = false;

/* The entry of a database, under the mutex; NULL if there is none, or no room for it. */
SaDatabase *
sa_roster_find(Oid database, bool add)
{
	SaDatabase *entry;

	for (int i = 0; i < sa_roster->n_databases; i++)
	{
		if (sa_roster->databases[i].last.database == database)
			return &sa_roster->databases[i];
	}
	if (!add)
		return NULL;
	if (sa_roster->n_databases == DATABASES_MAX)
	{
		sa_roster->no_room = true;
		return NULL;
	}
	entry = &sa_roster->databases[sa_roster->n_databases++];
	memset(entry, 0, sizeof(*entry));
	entry->last.database = database;
	return entry;
}

/* The run that is under way in a database, under the mutex; NULL if there is none. */
SaWorkerRun *
sa_roster_run(Oid database)
{
	for (int i = 0; i < WORKERS_MAX; i++)
	{
		if (sa_roster->runs[i].database == database)
			return &sa_roster->runs[i];
	}
	return NULL;
}

/* Forget it, under the mutex. */
void
sa_roster_forget(SaDatabase *entry)
{
	*entry = sa_roster->databases[--sa_roster->n_databases];
	sa_roster->no_room = false;
}

/* What has a rest of its own is due now.  Under the mutex. */
void
sa_roster_make_due(SaWorkerRun *run)
{
	int			n;
	const SaTask *tasks = sa_tasks(&n);

	for (int i = 0; i < n; i++)
	{
		if (tasks[i].rest != NULL)
			run->due[i] = 0;
	}
}

static void
roster_wake_after(pg_attribute_unused() const void *item, bool committed)
{
	Latch	   *latch = NULL;
	SaDatabase *entry;

	if (!committed)
		return;
	SpinLockAcquire(&sa_roster->mutex);
	entry = sa_roster_find(MyDatabaseId, false);
	if (entry != NULL)
	{
		sa_roster_make_due(&entry->last);
		entry->wakes++;
		latch = sa_roster->launcher_latch;
	}
	SpinLockRelease(&sa_roster->mutex);
	if (latch != NULL)
		SetLatch(latch);
}

static void
roster_note_after(const void *item, bool committed)
{
	bool		extension_made = ((const RosterNote *) item)->extension_made;
	Latch	   *latch = NULL;
	SaDatabase *entry;

	if (!committed)
		return;
	SpinLockAcquire(&sa_roster->mutex);
	entry = sa_roster_find(MyDatabaseId, true);
	if (entry != NULL)
	{
		/* nothing was done for this one yet, if it was made again */
		if (extension_made)
		{
			memset(entry->last.due, 0, sizeof(entry->last.due));
			memset(entry->last.troubles, 0, sizeof(entry->last.troubles));
		}
		if (entry->notes++ == 0 || extension_made)
			latch = sa_roster->launcher_latch;
	}
	SpinLockRelease(&sa_roster->mutex);
	if (latch != NULL)
		SetLatch(latch);
	noted = true;
}

static const SaAtEndKind note_kind = {
	.size = sizeof(RosterNote),
	.outlives_savepoints = true,
	.after = roster_note_after
};

static const SaAtEndKind wake_kind = {
	.size = sizeof(RosterWake),
	.outlives_savepoints = true,
	.after = roster_wake_after
};

/* The launcher will know, once this transaction has committed. */
static void
roster_note(void)
{
	RosterNote	note = {.extension_made = false};

	if (sa_roster != NULL && !noted && !sa_at_end_any_of(&note_kind))
		sa_at_end_add(&note_kind, &note);
}

/* The launcher will look at what has a rest, once this transaction has committed. */
static void
roster_wake(void)
{
	RosterWake	wake = {0};

	roster_note();
	if (sa_roster != NULL && !sa_at_end_any_of(&wake_kind))
		sa_at_end_add(&wake_kind, &wake);
}

/* note_database(): called by CREATE EXTENSION, which may not be the first one here. */
Datum
sa_note_database(pg_attribute_unused() PG_FUNCTION_ARGS)
{
	RosterNote	note = {.extension_made = true};

	noted = false;
	if (sa_roster != NULL)
		sa_at_end_add(&note_kind, &note);
	PG_RETURN_VOID();
}

static Size
roster_size(void)
{
	return sizeof(SaRoster);
}

static void
roster_start(void *memory, pg_attribute_unused() LWLockPadded *locks, bool found)
{
	sa_roster = memory;
	if (!found)
	{
		memset(sa_roster, 0, sizeof(SaRoster));
		SpinLockInit(&sa_roster->mutex);
	}
}

/* Ask for the shared memory, and register for databases that use the extension. */
void
sa_roster_init(void)
{
	static const SaShmemPart part = {
		.name = "session_admin worker",
		.size = roster_size,
		.start = roster_start
	};

	sa_shmem_add(&part);
	sa_at_end_register(&note_kind);
	sa_at_end_register(&wake_kind);
	sa_application_loaded_hook = roster_note;
	sa_wake_hook = roster_wake;
}
