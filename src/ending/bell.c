/*
 * bell.c
 *	  Notifies the nodes that there is something new in the feed.
 *
 * There is one notification a statement, sent before the commit, whatever number of
 * rows it has written.  One that cannot be sent costs a poll.  So the queue is looked
 * at first: NOTIFY would fail at commit, and with it the invalidation, when the queue
 * is full.
 */
#include "ending/ending.h"

#include "commands/async.h"
#include "tcop/pquery.h"
#include "utils/fmgrprotos.h"
#include "utils/portal.h"

#define CHANNEL				"session_admin"
#define QUEUE_USAGE_MAX		0.75

/* A statement wrote to the feed. */
typedef struct Bell
{
	uint64		statement;
	int64		id;				/* of the row, or of the last of many */
	const char *payload;		/* NULL: of many */
} Bell;

/* Statements of clients that wrote to the feed are numbered; is this one? */
static uint64 last_statement = 0;
static bool in_statement = false;

/* Does this transaction have news that were not told yet? */
static bool news_to_tell = false;

static const SaAtEndKind bell_kind;

static void
bell_statement_ended(pg_attribute_unused() void *arg)
{
	in_statement = false;
}

/* The number of the client's statement that runs now. */
static uint64
bell_statement(void)
{
	if (!in_statement)
	{
		last_statement++;
		if (ActivePortal != NULL)
		{
			MemoryContextCallback *callback = MemoryContextAlloc(ActivePortal->portalContext,
																 sizeof(MemoryContextCallback));

			callback->func = bell_statement_ended;
			callback->arg = NULL;
			MemoryContextRegisterResetCallback(ActivePortal->portalContext, callback);
			in_statement = true;
		}
	}
	return last_statement;
}

/*
 * Ring the bell, unless the queue is nearly full; without a payload, for more rows
 * than fit, up to this one.
 */
static void
bell_ring(int64 id, const char *payload)
{
	char		many[64];

	if (DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) > QUEUE_USAGE_MAX)
	{
		ereport(WARNING,
				(errmsg("notification queue is nearly full: nodes will learn of this when they poll"),
				 errhint("Look for sessions that listen and stay in a transaction.")));
		return;
	}

	if (!sa_notify_detail)
		payload = "{\"scope\":\"many\"}";
	else if (payload == NULL)
	{
		snprintf(many, sizeof(many), "{\"scope\":\"many\",\"id\":" INT64_FORMAT "}", id);
		payload = many;
	}
	Async_Notify(CHANNEL, payload);
}

/* Notify of what was written and not rolled back: once for each statement. */
static void
bell_announce(int position)
{
	const Bell *last = NULL;	/* of the statement */
	const Bell *next;
	bool		only = true;

	while ((next = sa_at_end_next(&bell_kind, &position)) != NULL)
	{
		news_to_tell = true;
		if (last != NULL && last->statement != next->statement)
			bell_ring(last->id, only ? last->payload : NULL);
		only = last == NULL || last->statement != next->statement;
		last = next;
	}
	if (last != NULL)
		bell_ring(last->id, only ? last->payload : NULL);
}

/* Once, for all that was written: whoever waits in sync_node() looks. */
static void
bell_after(pg_attribute_unused() const void *item, bool committed)
{
	if (committed && news_to_tell)
		sa_news_tell();
	news_to_tell = false;
}

/* NOTIFY cannot be prepared. */
static const SaAtEndKind bell_kind = {
	.size = sizeof(Bell),
	.announce = bell_announce,
	.after = bell_after,
	.refuses_prepare = "ended sessions or revoked remember-me tokens",
	.refusal_hint = "Commit it instead, or end the sessions in a transaction of their own.",
	.refusal_rank = 2
};

/*
 * This transaction wrote to the feed.  The nodes are notified before commit, once for
 * each statement: with this payload, allocated in TopTransactionContext, if it is all
 * that the statement wrote.
 */
void
sa_bell_queue(int64 id, const char *payload)
{
	Bell		bell = {.statement = bell_statement(), .id = id, .payload = payload};

	sa_at_end_add(&bell_kind, &bell);
}

/* All that this folder sets up when the library is loaded. */
void
sa_ending_init(void)
{
	sa_at_end_register(&bell_kind);
	sa_news_init();
}
