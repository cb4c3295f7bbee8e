/*
 * row_session.c
 *	  What a row of a product's sessions tells.
 */
#include "capture/row.h"
#include "policy/policy.h"
#include "live/live.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* A session that may be idle for longer than this never ends by itself. */
#define IDLE_TIMEOUT_MAX	(INT64CONST(100) * 366 * USECS_PER_DAY)

/*
 * How long the session of this row may be idle, as far as the product tells.  What is
 * not positive is over.  Where its end moves with each access, that is the time from
 * the access to the end.
 */
static int64
row_idle_timeout(const SaWatch *watch, TupleTableSlot *slot, TimestampTz last_access_at,
				 TimestampTz now)
{
	const SaColumn *timeout = &watch->columns[SA_ROLE_IDLE_TIMEOUT];
	TimestampTz expires_at;
	int64		result = SA_NO_TIMEOUT;
	int64		number;

	if (sa_value_read_number(sa_value_text(watch, SA_ROLE_IDLE_TIMEOUT, slot), &number))
	{
		int64		unit = timeout->reading == SA_READING_SECONDS ? USECS_PER_SEC : 1000;

		if (number <= IDLE_TIMEOUT_MAX / unit)
			result = number * unit;
	}
	else if (!SA_HAS(watch, SA_ROLE_IDLE_TIMEOUT) &&
			 sa_value_time(watch, SA_ROLE_EXPIRES_AT, slot, &expires_at) &&
			 expires_at - last_access_at <= IDLE_TIMEOUT_MAX)
		result = expires_at - last_access_at;

	if (sa_value_time(watch, SA_ROLE_EXPIRES_AT, slot, &expires_at) ?
		expires_at <= now : result != SA_NO_TIMEOUT && last_access_at <= now - result)
		return 0;

	/* of touches by other backends, the row may not tell yet */
	if (result != SA_NO_TIMEOUT && !sa_shmem_usable())
		result += Min(sa_touch_interval * USECS_PER_SEC, result / 2);
	return result;
}

/* Read which session this row is, and its times; false if it is none. */
static bool
row_read_session(SaBatch *batch, TupleTableSlot *slot, SaSessionRow *row)
{
	const SaWatch *watch = batch->watch;
	TimestampTz now = GetCurrentTimestamp();
	char	   *id = sa_value_text(watch, SA_ROLE_SECRET, slot);

	memset(row, 0, sizeof(*row));
	if (id == NULL || *id == '\0' || !sa_row_holds_secret(watch, slot))
		return false;
	sa_sha256(id, strlen(id), row->id.hash);
	explicit_bzero(id, strlen(id));

	if (!sa_value_time(watch, SA_ROLE_CREATED_AT, slot, &row->created_at) || row->created_at > now)
		row->created_at = now;
	if (!sa_value_time(watch, SA_ROLE_USED_AT, slot, &row->last_access_at))
		row->last_access_at = now;
	row->idle_timeout = row_idle_timeout(watch, slot, row->last_access_at, now);

	/* a product's clock that is late must not end its sessions earlier */
	if (!batch->backfill || row->last_access_at > now)
		row->last_access_at = now;
	return true;
}

/*
 * Add a session that is not over, with the rest of what its row tells.  Before, it had
 * this id and user.
 */
static void
row_add_session(SaBatch *batch, TupleTableSlot *slot, const SaSessionRow *row,
				const SaSessionId *old_id, const char *old_user)
{
	const SaWatch *watch = batch->watch;
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	SaSessionRow *added = palloc(sizeof(SaSessionRow));
	char	   *id = sa_value_text(watch, SA_ROLE_SECRET, slot);

	*added = *row;
	sa_session_id_from_datum(CStringGetTextDatum(id), TEXTOID, &added->id);
	added->secret = id;
	added->old_id = old_id ? *old_id : added->id;
	added->key = sa_value_text(watch, SA_ROLE_KEY, slot);
	added->user = sa_row_user(watch, slot);
	added->logged_in = added->user != NULL && !batch->backfill &&
		(old_user == NULL || strcmp(old_user, added->user) != 0);
	batch->session_rows = lappend(batch->session_rows, added);
	MemoryContextSwitchTo(old);
}

static void
row_add_ended_session(SaBatch *batch, SaValues *values, const SaSessionId *id)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	Datum		hash = PointerGetDatum(sa_bytea(id->hash, SA_HASH_LEN));

	MemoryContextSwitchTo(old);
	sa_batch_add(batch, values, hash, false);
}

/* Do both rows have the same user? In JSON, most changes are elsewhere. */
static bool
row_same_user(const SaWatch *watch, TupleTableSlot *old, TupleTableSlot *new)
{
	char	   *old_user;
	char	   *new_user;

	if (sa_value_unchanged(watch, SA_ROLE_USER_NAME, old, new) &&
		sa_value_unchanged(watch, SA_ROLE_USER_KEY, old, new))
		return true;
	old_user = sa_row_user(watch, old);
	new_user = sa_row_user(watch, new);
	return old_user && new_user ? strcmp(old_user, new_user) == 0 : old_user == new_user;
}

/* A row that is new. */
void
sa_row_session_inserted(SaBatch *batch, TupleTableSlot *slot)
{
	SaSessionRow row;

	/* what a trigger of the product makes of a row that we delete is no login */
	if (batch->ending != NULL || !row_read_session(batch, slot, &row))
		return;
	if (row.idle_timeout > 0)
		row_add_session(batch, slot, &row, NULL, NULL);
	else if (batch->reconciling)
		row_add_ended_session(batch, &batch->session_expired, &row.id);
}

/* A row that is gone. */
void
sa_row_session_deleted(SaBatch *batch, TupleTableSlot *slot)
{
	SaSessionRow row;

	/* which session it was cannot be told any more */
	if (batch->watch->broken)
		sa_batch_unclear(batch, sa_row_user(batch->watch, slot));

	/* where we delete it ourselves, the ending does the rest */
	if (batch->ending == NULL && row_read_session(batch, slot, &row))
		row_add_ended_session(batch, row.idle_timeout > 0 ? &batch->session_closed :
							  &batch->session_expired, &row.id);
}

/*
 * A row that the product has written: many requests write nothing new but times.  These
 * only count, as touch_session does.
 */
void
sa_row_session_updated(SaBatch *batch, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = batch->watch;
	bool		same_id = sa_value_unchanged(watch, SA_ROLE_SECRET, old, new);
	SaApplication application;
	SaSessionRow old_row;
	SaSessionRow row;

	if (!row_read_session(batch, new, &row))
	{
		if (watch->broken)
			return;
		batch->rows++;
		sa_row_session_deleted(batch, old);
		return;
	}

	if (same_id && row.idle_timeout > 0 && row_same_user(watch, old, new) &&
		sa_value_unchanged(watch, SA_ROLE_KEY, old, new) &&
		sa_application_find(watch->application, &application) &&
		sa_session_touch(row.id.hash, &application, 1, row.idle_timeout))
		return;

	batch->rows++;
	if (same_id || !row_read_session(batch, old, &old_row))
		old_row = row;
	if (row.idle_timeout == 0)
	{
		row_add_ended_session(batch, &batch->session_closed, &old_row.id);
		return;
	}
	row_add_session(batch, new, &row, same_id ? NULL : &old_row.id, sa_row_user(watch, old));
}
