/*
 * pending.c
 *	  What this transaction will do to the shared table of live sessions, and the
 *	  callbacks that do it.
 *
 * The triggers on session add the keys of the rows that left or changed.  Only the keys
 * that are still there at commit count: those of a rolled-back savepoint are
 * dropped.  Keys are added in the order of time, and nothing is added to a
 * transaction while a subtransaction of it runs, so that what a subtransaction
 * added is always the end of the list.
 *
 * Nothing can fail in these callbacks, but the notification before commit: memory
 * is taken when keys are added.
 */
#include "session_admin.h"

#include "access/xact.h"
#include "tcop/pquery.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"

/* More keys than this are not kept: everything is put in doubt instead. */
#ifndef KEYS_MAX
#define KEYS_MAX 10000
#endif

typedef enum Kind
{
	KIND_ENDED,					/* this session ends */
	KIND_CHANGED,				/* its row changes */
	KIND_EVERYTHING,			/* any session may */
	KIND_APPLICATIONS,			/* generations or policies change */
	KIND_TOLD,					/* something was written to the feed */
	KIND_FLUSHED,				/* these requests of it are written */
	KIND_PROMISED,				/* the commit waits until it is durable */
	KIND_MAINTAINED				/* housekeeping was done */
} Kind;

typedef struct Pending
{
	SubTransactionId subid;
	Kind		kind;
	SaLiveTouch touch;
	bool		set_back;		/* KIND_CHANGED: its last access, too */

	/*
	 * KIND_TOLD: by which statement, the row of the feed, and its
	 * notification
	 */
	uint64		statement;
	int64		id;
	const char *payload;
	SaDurability durability;	/* KIND_PROMISED */
} Pending;

static Pending *pending = NULL;
static int	n_pending = 0;
static int	max_pending = 0;
static int	n_ended = 0;		/* of them up to KIND_APPLICATIONS */

/* Statements of clients that told something are numbered; is this one? */
static uint64 last_statement = 0;
static bool in_statement = false;

/* Have the sessions that end been counted as started? */
static bool started = false;

/* The key of the item, NULL for everything. */
static const SaLiveKey *
key_of(const Pending *item)
{
	return item->kind == KIND_EVERYTHING ? NULL : &item->touch.key;
}

/* Before commit: what may become visible from now on is in doubt. */
static void
start(const Pending *item)
{
	if (item->kind <= KIND_EVERYTHING)
		sa_live_end_start(key_of(item));
	else if (item->kind == KIND_APPLICATIONS)
		sa_live_applications_start();
	else if (item->kind == KIND_FLUSHED)
		sa_live_flushed(&item->touch, true);
}

static Pending *
add(Kind kind, const SaLiveTouch *touch)
{
	Pending    *item;

	if (n_pending == max_pending)
	{
		int			larger = Max(64, max_pending * 2);

		if (pending == NULL)
			pending = MemoryContextAlloc(TopMemoryContext, larger * sizeof(Pending));
		else
			pending = repalloc_huge(pending, larger * sizeof(Pending));
		max_pending = larger;
	}

	item = &pending[n_pending];
	item->subid = GetCurrentSubTransactionId();
	item->kind = kind;
	item->set_back = false;
	if (touch != NULL)
		item->touch = *touch;
	n_pending++;
	if (kind <= KIND_APPLICATIONS)
		n_ended++;
	/* another callback before commit may end sessions after ours has run */
	if (started)
		start(item);
	return item;
}

/* Is this the last that the current subtransaction has added? */
static bool
added_last(Kind kind)
{
	return n_pending > 0 && pending[n_pending - 1].kind == kind &&
		pending[n_pending - 1].subid == GetCurrentSubTransactionId();
}

/* The session ends, or its row changes. */
static void
add_key(Kind kind, const SaLiveKey *key, bool set_back)
{
	SaLiveTouch touch = {.key = *key};

	if (n_ended < KEYS_MAX)
		add(kind, &touch)->set_back = set_back;
	else if (!added_last(KIND_EVERYTHING))
		add(KIND_EVERYTHING, NULL);
}

/* This session ends with this transaction. */
void
sa_pending_ended(const SaLiveKey *key)
{
	add_key(KIND_ENDED, key, false);
}

/* Its row changes; perhaps its last access is set back, too. */
void
sa_pending_changed(const SaLiveKey *key, bool set_back)
{
	add_key(KIND_CHANGED, key, set_back);
}

/* This transaction changes generations or policies, in this table. */
void
sa_pending_applications(Oid relation)
{
	SaLiveTouch touch = {.key.relation = relation};

	if (!added_last(KIND_APPLICATIONS) || pending[n_pending - 1].touch.key.relation != relation)
		add(KIND_APPLICATIONS, &touch);
}

static void
statement_ended(pg_attribute_unused() void *arg)
{
	in_statement = false;
}

/* The number of the client's statement that runs now. */
static uint64
current_statement(void)
{
	if (!in_statement)
	{
		last_statement++;
		if (ActivePortal != NULL)
		{
			MemoryContextCallback *callback = MemoryContextAlloc(ActivePortal->portalContext,
																 sizeof(MemoryContextCallback));

			callback->func = statement_ended;
			callback->arg = NULL;
			MemoryContextRegisterResetCallback(ActivePortal->portalContext, callback);
			in_statement = true;
		}
	}
	return last_statement;
}

/*
 * This transaction wrote to the feed.  The nodes are notified before commit, once
 * for each statement: with this payload, allocated in TopTransactionContext, if it
 * is all that the statement wrote.
 */
void
sa_pending_told(int64 id, const char *payload)
{
	uint64		statement = current_statement();
	Pending    *item = add(KIND_TOLD, NULL);

	item->statement = statement;
	item->id = id;
	item->payload = payload;
	if (started)
		sa_feed_ring(id, payload);
}

/* Notify of what was written to the feed and not rolled back. */
static void
ring(void)
{
	const Pending *last = NULL; /* of the statement */
	bool		only = true;

	for (int i = 0; i < n_pending; i++)
	{
		if (pending[i].kind != KIND_TOLD)
			continue;
		if (last != NULL && last->statement != pending[i].statement)
			sa_feed_ring(last->id, only ? last->payload : NULL);
		only = last == NULL || last->statement != pending[i].statement;
		last = &pending[i];
	}
	if (last != NULL)
		sa_feed_ring(last->id, only ? last->payload : NULL);
}

/*
 * For this commit only: what is set locally is undone when the transaction has ended,
 * be it by an error of another callback.  A setting that nobody may change here (the
 * worker's, which must not hang on a standby) stays.
 */
static void
raise_synchronous_commit(void)
{
	SaDurability durability = SA_DURABILITY_NONE;
	bool		apply;

	for (int i = 0; i < n_pending; i++)
	{
		if (pending[i].kind == KIND_PROMISED)
			durability = Max(durability, pending[i].durability);
	}
	apply = durability == SA_DURABILITY_APPLY;
	if (durability == SA_DURABILITY_NONE || synchronous_commit >=
		(apply ? SYNCHRONOUS_COMMIT_REMOTE_APPLY : SYNCHRONOUS_COMMIT_REMOTE_FLUSH))
		return;
	(void) set_config_option("synchronous_commit", apply ? "remote_apply" : "on",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Commit as durably as the settings allow: somebody is told of what this transaction
 * did to this application (NULL: to all), and must not see it come back.  It waits for
 * the disk even where the client runs with synchronous_commit = off, and for the
 * standbys in synchronous_standby_names even where it does not wait for these
 * otherwise.
 */
void
sa_commit_durably(const char *application)
{
	SaDurability durability = sa_policy_durability(application);

	if (!added_last(KIND_PROMISED) || pending[n_pending - 1].durability < durability)
		add(KIND_PROMISED, NULL)->durability = durability;
	ForceSyncCommit();
	if (started)
		raise_synchronous_commit();
}

/* These requests will be in the table when this transaction has committed. */
void
sa_pending_flushed(const SaLiveTouch *touch)
{
	add(KIND_FLUSHED, touch);
}

/* This transaction has called maintain(). */
void
sa_pending_maintained(void)
{
	add(KIND_MAINTAINED, NULL);
}

/* Has this transaction written requests already? */
bool
sa_pending_any_flushed(void)
{
	for (int i = 0; i < n_pending; i++)
	{
		if (pending[i].kind == KIND_FLUSHED)
			return true;
	}
	return false;
}

/* Has this transaction ended sessions, or changed what makes them valid? */
bool
sa_pending_any(void)
{
	return n_ended > 0;
}

/* After commit or abort: nothing here can fail. */
static void
finish(bool committed)
{
	for (int i = 0; started && i < n_pending; i++)
	{
		const Pending *item = &pending[i];

		if (item->kind <= KIND_EVERYTHING)
		{
			if (committed)
			{
				sa_live_end_commit(key_of(item), item->kind == KIND_CHANGED);
				if (item->set_back)
					sa_live_set_back(&item->touch.key);
				sa_test_point("removed");
			}
			sa_live_end_finish(key_of(item));
		}
		else if (item->kind == KIND_APPLICATIONS)
		{
			if (committed)
			{
				sa_policy_tell(item->touch.key.relation);
				sa_test_point("told");
			}
			sa_live_applications_finish();
		}
		else if (item->kind == KIND_FLUSHED && !committed)
			sa_live_flushed(&item->touch, false);
	}
	if (committed && n_pending > 0)
		sa_test_point("finished");
	n_pending = 0;
	n_ended = 0;
	started = false;
	if (max_pending > KEYS_MAX)
	{
		pfree(pending);
		pending = NULL;
		max_pending = 0;
	}
}

static void
xact_callback(XactEvent event, pg_attribute_unused() void *arg)
{
	bool		changed = false;
	bool		ended = false;
	bool		promised = false;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			ring();
			raise_synchronous_commit();
			for (int i = 0; i < n_pending; i++)
				start(&pending[i]);
			started = true;
			if (n_pending > 0)
				sa_test_point("pre_commit");
			break;
		case XACT_EVENT_COMMIT:
			if (n_pending > 0)
				sa_test_point("committed");
			finish(true);
			break;
		case XACT_EVENT_ABORT:
			finish(false);
			break;
		case XACT_EVENT_PRE_PREPARE:
			for (int i = 0; i < n_pending; i++)
			{
				/* whoever commits it would not know of the shared table */
				if (pending[i].kind == KIND_FLUSHED || pending[i].kind == KIND_MAINTAINED)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("cannot prepare a transaction that has called session_admin.maintain()")));
				changed = changed || pending[i].kind == KIND_CHANGED;
				promised = promised || pending[i].kind == KIND_PROMISED;
				ended = ended || (pending[i].kind != KIND_APPLICATIONS &&
								  pending[i].kind != KIND_CHANGED &&
								  pending[i].kind != KIND_PROMISED);
			}

			/*
			 * NOTIFY cannot be prepared, and who is logged out "perhaps" is
			 * not
			 */
			if (ended)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot prepare a transaction that has ended sessions or revoked remember-me tokens"),
						 errhint("Commit it instead, or end the sessions in a transaction of their own.")));
			if (changed)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot prepare a transaction that has changed sessions"),
						 errhint("Commit it instead, or change the sessions in a transaction of their own.")));
			/* whoever commits it would not know what that has to wait for */
			if (promised)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot prepare a transaction that has used remember-me tokens or followed the feed")));
			break;
		case XACT_EVENT_PREPARE:
			finish(false);
			break;
		default:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
				 pg_attribute_unused() void *arg)
{
	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = n_pending - 1; i >= 0 && pending[i].subid == subid; i--)
			pending[i].subid = parent;
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (n_pending > 0 && pending[n_pending - 1].subid == subid)
		{
			n_pending--;
			if (pending[n_pending].kind <= KIND_APPLICATIONS)
				n_ended--;
		}
	}
}

/* Watch over the ends of transactions. */
void
sa_pending_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
