/*
 * sleep.c
 *	  sync_node() waits until there is something new for a node, or a time is over.
 *
 * No row is locked and nothing is written meanwhile, so that the call that follows on
 * the wait finds the node as any other call does, and another connection may sync or
 * leave under its name.  What its looks at the feed have locked are three tables, against
 * nothing but their change.  It decides by itself what is new: this only says when to look.
 */
#include "node/node.h"
#include "ending/ending.h"
#include "policy/policy.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#define LEASE_SHARE			3	/* no wait is longer than this part of the
								 * lease */
#define POLL_FIRST_DELAY	50	/* milliseconds between two looks without
								 * shared memory */
#define POLL_LAST_DELAY		250

/*
 * Is there nothing to say to the node? Then how long it may wait for that, in
 * microseconds; else -1. A receipt for rows is something: whoever waits for it must not
 * wait for the next news, too. So is an application that came from a dump, which the call
 * that follows adopts.
 */
static int64
sleep_longest(const SaFollow *follow)
{
	static SaStatement nothing_new = {.generic = true, .sql =
		"SELECT n.application"
		" FROM session_admin_internal.node n CROSS JOIN session_admin_internal.feed_horizon h"
		" WHERE n.node = $2 AND $1::text IN (n.handed::text, n.applied::text)"
		"   AND NOT (n.unconfirmed AND $1::text = n.handed::text)"
		"   AND " SA_FEED_COMPLETE
		"   AND NOT EXISTS (SELECT FROM (" SA_FEED_AFTER ") AS i"
		"     WHERE i.xid IS DISTINCT FROM pg_current_xact_id_if_assigned())"
	};
	SaApplication application;
	SaArgs		args = {0};
	char	   *name = NULL;

	sa_arg(&args, PG_SNAPSHOTOID, follow->presented, false);
	sa_arg_text(&args, follow->node);
	if (sa_run(&nothing_new, &args) > 0)
		name = sa_result_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	if (name == NULL)
		return -1;
	if (!sa_application_find(name, &application))
		return sa_node_lease(name) / LEASE_SHARE;
	return application.moved ? -1 : application.node_lease / LEASE_SHARE;
}

/*
 * Wait until there may be something new for the node that presents this position, at most
 * for this time, in microseconds, and for a third of its lease.  The caller is connected
 * to SPI.
 */
void
sa_sleep_until_news(const SaFollow *follow, int64 wait)
{
	int64		start = sa_monotonic_now();
	bool		shared = sa_news_usable();
	bool		released = false;
	long		delay = POLL_FIRST_DELAY;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin wait",
												  ALLOCSET_SMALL_SIZES);

	for (;;)
	{
		uint64		seen = shared ? sa_news_prepare() : 0;
		MemoryContext old = MemoryContextSwitchTo(scratch);
		int64		longest = sleep_longest(follow);
		int64		left;

		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);

		if (longest < 0)
			break;
		sa_test_point("looked");
		if (!released)
			released = sa_snapshot_release(follow->statement);
		InvalidateCatalogSnapshot();

		do
		{
			CHECK_FOR_INTERRUPTS();
			left = Min(wait, longest) - (sa_monotonic_now() - start);
			if (left <= 0)
				break;
			if (shared)
				sa_news_sleep(seen, (long) (left / 1000 + 1));
			else
			{
				(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								 Min(delay, (long) (left / 1000 + 1)), PG_WAIT_EXTENSION);
				ResetLatch(MyLatch);
				delay = Min(delay * 2, POLL_LAST_DELAY);
			}
		} while (shared && !sa_news_since(seen));
		if (left <= 0)
			break;
	}

	MemoryContextDelete(scratch);
	if (shared)
		sa_news_cancel();
	if (released)
		sa_snapshot_retake(follow->statement);
}
