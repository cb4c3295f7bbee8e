/*
 * live.c
 *	  Touches that are not written to the table yet.
 *
 * They are counted in this backend until one of its touches writes the row.
 */
#include "session_admin.h"

#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_live_last_access);
PG_FUNCTION_INFO_V1(sa_live_requests);

/*
 * With more sessions than this, start anew: most of them have ended meanwhile,
 * and of the others some requests are not counted.
 */
#define UNWRITTEN_MAX 10000

typedef struct Key
{
	uint8		hash[SA_HASH_LEN];
	char		application[SA_NAME_MAX + 1];
} Key;

typedef struct Unwritten
{
	Key			key;
	TimestampTz last_access_at;
	int64		requests;
} Unwritten;

static HTAB *unwritten = NULL;

static Unwritten *
look_up(const uint8 *hash, const char *application, HASHACTION action)
{
	Key			key;
	Unwritten  *entry;
	bool		found;

	memset(&key, 0, sizeof(key));
	memcpy(key.hash, hash, SA_HASH_LEN);
	strlcpy(key.application, application, sizeof(key.application));

	if (unwritten != NULL && hash_get_num_entries(unwritten) >= UNWRITTEN_MAX &&
		action == HASH_ENTER)
	{
		hash_destroy(unwritten);
		unwritten = NULL;
	}
	if (unwritten == NULL)
	{
		HASHCTL		ctl = {0};

		if (action != HASH_ENTER)
			return NULL;
		ctl.keysize = sizeof(Key);
		ctl.entrysize = sizeof(Unwritten);
		ctl.hcxt = TopMemoryContext;
		unwritten = hash_create("session_admin touches", 128, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}

	entry = hash_search(unwritten, &key, action, &found);
	if (action == HASH_ENTER && !found)
	{
		entry->last_access_at = 0;
		entry->requests = 0;
	}
	return entry;
}

/* Count requests now; returns how many are not written. */
int64
sa_live_count(const uint8 *hash, const char *application, TimestampTz created_at,
			  TimestampTz now, int64 requests)
{
	Unwritten  *entry = look_up(hash, application, HASH_ENTER);

	/* what an earlier session of this id was touched is not this one's */
	if (entry->last_access_at < created_at)
		entry->requests = 0;
	entry->last_access_at = Max(entry->last_access_at, now);
	entry->requests += requests;
	return entry->requests;
}

/* The last access that is not written; the earliest of all times if none. */
TimestampTz
sa_live_accessed(const uint8 *hash, const char *application)
{
	Unwritten  *entry = look_up(hash, application, HASH_FIND);

	return entry ? entry->last_access_at : DT_NOBEGIN;
}

/* What was counted is in the table. */
void
sa_live_written(const uint8 *hash, const char *application)
{
	look_up(hash, application, HASH_REMOVE);
}

static Unwritten *
entry_of_args(FunctionCallInfo fcinfo)
{
	SaSessionId id;

	sa_session_id_arg(fcinfo, 0, &id);
	return look_up(id.hash, sa_application_arg(fcinfo, 1), HASH_FIND);
}

/* live_last_access(session_hash bytea, application text) */
Datum
sa_live_last_access(PG_FUNCTION_ARGS)
{
	Unwritten  *entry = entry_of_args(fcinfo);

	if (entry == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(entry->last_access_at);
}

/* live_requests(session_hash bytea, application text) */
Datum
sa_live_requests(PG_FUNCTION_ARGS)
{
	Unwritten  *entry = entry_of_args(fcinfo);

	if (entry == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(entry->requests);
}
