/*
 * feed.c
 *	  What nodes are told: rows of invalidation, which are the truth, and
 *	  notifications, which are only a bell.
 *
 * A row carries its top-level transaction id, so that nodes can follow the feed
 * by snapshots (see node.c).  It commits synchronously even where the
 * application runs with synchronous_commit = off: who was told that a session
 * has ended must not see it come back after a crash, or after a failover to a
 * synchronous standby (see sa_commit_durably).
 *
 * There is one notification a statement, sent before the commit, whatever number of
 * rows it has ended.  One that cannot be sent costs a poll.  So the queue is looked
 * at first: NOTIFY would fail at commit, and with it the invalidation, when the queue
 * is full.
 */
#include "session_admin.h"

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#define CHANNEL				"session_admin"
#define PAYLOAD_MAX			(BLCKSZ - NAMEDATALEN - 128)	/* as in async.c */
#define QUEUE_USAGE_MAX		0.75

/* Append ,"key":"value" unless there is no value. */
static void
append_pair(StringInfo json, const char *key, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(json, ",\"%s\":", key);
	escape_json(json, value);
}

/*
 * Ring the bell, unless the queue is nearly full; without a payload, for more rows
 * than fit, up to this one.
 */
void
sa_feed_ring(int64 id, const char *payload)
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

/* Write one row of the feed and set its id.  The caller is connected to SPI. */
void
sa_feed_write(SaFeedRow *row, const SaEnding *ending)
{
	static SaStatement insert_invalidation = {.sql =
		"INSERT INTO session_admin.invalidation"
		" (at, scope, application, user_name, session_hash, reason, actor,"
		"  sessions_ended, tokens_revoked)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id"
	};
	SaArgs		args = {0};

	row->reason = ending->reason;

	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending->at), false);
	sa_arg_text(&args, row->scope);
	sa_arg_text(&args, row->application);
	sa_arg_text(&args, row->user_name);
	sa_arg(&args, BYTEAOID,
		   row->session_hash ? PointerGetDatum(sa_bytea(row->session_hash, SA_HASH_LEN)) : (Datum) 0,
		   row->session_hash == NULL);
	sa_arg_text(&args, row->reason);
	sa_arg_text(&args, sa_actor_or_null());
	sa_arg(&args, INT8OID, Int64GetDatum(ending->sessions_ended), ending->sessions_ended < 0);
	sa_arg(&args, INT8OID, Int64GetDatum(ending->tokens_revoked), ending->tokens_revoked < 0);
	sa_run(&insert_invalidation, &args);

	row->id = sa_result_int64(0, 1);
	sa_commit_durably(row->application);
}

/* Tell of one row of the feed, when the transaction commits. */
void
sa_feed_notify(const SaFeedRow *row)
{
	MemoryContext context = MemoryContextSwitchTo(TopTransactionContext);
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"id\":" INT64_FORMAT, row->id);
	append_pair(&json, "scope", row->scope);
	append_pair(&json, "application", row->application);
	append_pair(&json, "user", row->user_name);
	if (row->session_hash != NULL)
	{
		char		hex[SA_HASH_LEN * 2 + 1];

		hex[hex_encode((const char *) row->session_hash, SA_HASH_LEN, hex)] = '\0';
		append_pair(&json, strcmp(row->scope, "session") == 0 ? "session" : "keep", hex);
	}
	append_pair(&json, "reason", row->reason);
	appendStringInfoChar(&json, '}');
	MemoryContextSwitchTo(context);

	sa_pending_told(row->id, json.len < PAYLOAD_MAX ? json.data : NULL);
}

/* Tell of several rows, up to this one. */
void
sa_feed_notify_many(int64 id)
{
	sa_pending_told(id, NULL);
}
