/*
 * news.c
 *	  Wakes the backends that wait for something new in the feed.
 *
 * In shared memory there is a counter and a condition variable for each of a number of
 * slots, of which a database has one; two may share one, and then wake each other for
 * nothing.  A commit that has written to the feed counts and wakes after it has become
 * visible: nothing there fails, allocates, or waits but for a spinlock.
 *
 * No wake-up is missed.  Whoever waits first gets in line (sa_news_prepare()), then reads
 * the counter, then looks at the feed, and then sleeps.  A commit that the look did not see
 * counts after that: its wake-up ends the sleep.  Where something in between has waited
 * for another condition variable, and so left the line, the sleep returns at once.
 */
#include "ending/ending.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "utils/wait_event.h"

#define NEWS_SLOTS	64

typedef struct NewsSlot
{
	pg_atomic_uint64 count;		/* of commits that wrote to the feed */
	ConditionVariable changed;
} NewsSlot;

static NewsSlot *news = NULL;	/* NULL if not preloaded */

static NewsSlot *
news_slot(void)
{
	return &news[MyDatabaseId % NEWS_SLOTS];
}

/* Can news be waited for?  If not, who wants to know looks from time to time. */
bool
sa_news_usable(void)
{
	return news != NULL && sa_shmem_usable();
}

/* There is something new, which all can see.  Called after commit: nothing can fail. */
void
sa_news_tell(void)
{
	if (news == NULL)
		return;
	pg_atomic_fetch_add_u64(&news_slot()->count, 1);
	ConditionVariableBroadcast(&news_slot()->changed);
}

/* Get in line, and give the number of news until now; then look, then sleep. */
uint64
sa_news_prepare(void)
{
	ConditionVariablePrepareToSleep(&news_slot()->changed);
	return pg_atomic_read_u64(&news_slot()->count);
}

/* Sleep until there may be other news than these, or for this many milliseconds. */
void
sa_news_sleep(uint64 seen, long timeout)
{
	if (pg_atomic_read_u64(&news_slot()->count) == seen)
		(void) ConditionVariableTimedSleep(&news_slot()->changed, timeout, PG_WAIT_EXTENSION);
}

/* Is there anything new since? */
bool
sa_news_since(uint64 seen)
{
	return pg_atomic_read_u64(&news_slot()->count) != seen;
}

/* Leave the line. */
void
sa_news_cancel(void)
{
	(void) ConditionVariableCancelSleep();
}

static Size
news_size(void)
{
	return mul_size(NEWS_SLOTS, sizeof(NewsSlot));
}

static void
news_start(void *memory, pg_attribute_unused() LWLockPadded *locks, bool found)
{
	news = memory;
	for (int i = 0; !found && i < NEWS_SLOTS; i++)
	{
		pg_atomic_init_u64(&news[i].count, 0);
		ConditionVariableInit(&news[i].changed);
	}
}

void
sa_news_init(void)
{
	static const SaShmemPart part = {
		.name = "session_admin news",
		.size = news_size,
		.start = news_start
	};

	sa_shmem_add(&part);
}
