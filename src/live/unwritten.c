/*
 * unwritten.c
 *	  What this backend alone has counted, of sessions that the shared table does not have.
 */
#include "live/table.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

/*
 * With more sessions than this counted in one backend, start anew: most of them
 * have ended meanwhile, and of the others some requests are not counted.
 */
#define UNWRITTEN_MAX	10000

/* Counted in this backend only, where the shared table does not. */
typedef struct Unwritten
{
	SaLiveKey	key;
	TimestampTz last_access_at;
	int64		requests;
} Unwritten;

static HTAB *unwritten = NULL;

/* What this backend counts, for a session that the shared table does not have. */
static Unwritten *
unwritten_find(const SaLiveKey *key, HASHACTION action)
{
	Unwritten  *entry;
	bool		found;

	if (unwritten != NULL && action == HASH_ENTER &&
		hash_get_num_entries(unwritten) >= UNWRITTEN_MAX)
	{
		hash_destroy(unwritten);
		unwritten = NULL;
	}
	if (unwritten == NULL)
	{
		HASHCTL		ctl = {0};

		if (action != HASH_ENTER)
			return NULL;
		ctl.keysize = sizeof(SaLiveKey);
		ctl.entrysize = sizeof(Unwritten);
		ctl.hcxt = TopMemoryContext;
		unwritten = hash_create("session_admin touches", 128, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(unwritten, key, action, &found);
	if (action == HASH_ENTER && !found)
	{
		entry->last_access_at = 0;
		entry->requests = 0;
	}
	return entry;
}

/* Count requests in this backend; returns how many are not written. */
int64
sa_unwritten_count(const SaLiveKey *key, TimestampTz created_at,
				   TimestampTz now, int64 requests)
{
	Unwritten  *entry = unwritten_find(key, HASH_ENTER);

	/* what an earlier session of this id was touched is not this one's */
	if (entry->last_access_at < created_at && entry->last_access_at != DT_NOBEGIN)
		entry->requests = 0;
	entry->last_access_at = Max(entry->last_access_at, now);
	entry->requests += requests;
	return entry->requests;
}

/* What this backend has counted is in the table, or of no use any more. */
void
sa_unwritten_forget(const SaLiveKey *key)
{
	(void) unwritten_find(key, HASH_REMOVE);
}

/* The last access was set back: forget a later one. */
void
sa_unwritten_set_back(const SaLiveKey *key)
{
	Unwritten  *mine = unwritten_find(key, HASH_FIND);

	if (mine != NULL)
		mine->last_access_at = DT_NOBEGIN;
}

/* The last access (DT_NOBEGIN: none) and the requests that are counted here. */
void
sa_unwritten_read(const SaLiveKey *key, TimestampTz *last_access_at, int64 *requests)
{
	const Unwritten *mine = unwritten_find(key, HASH_FIND);

	*last_access_at = mine ? mine->last_access_at : DT_NOBEGIN;
	*requests = mine ? mine->requests : 0;
}
