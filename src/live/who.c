/*
 * who.c
 *	  touch_session_user(): a touch that answers whose session it is.
 *
 * The shared table has no names, which may be long.  So the touch comes first, and decides;
 * then the row is read by its key, with the latest snapshot and without SPI.  If it has gone
 * since, the session has ended, and nothing is told of it.  Who a session belongs to never
 * changes while it lasts.
 */
#include "live/live.h"
#include "policy/policy.h"

#include "access/htup_details.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"
#include "utils/builtins.h"

/* The columns of session_admin.touched_session */
enum
{
	WHO_VALID, WHO_USER_NAME, WHO_KIND, WHO_LOGIN_METHOD, WHO_CREATED_AT,
	WHO_REAUTHENTICATED_AT, WHO_COLUMNS
};

typedef struct Who
{
	Datum		values[WHO_COLUMNS];
	bool		nulls[WHO_COLUMNS];
} Who;

PG_FUNCTION_INFO_V1(sa_touch_session_user);

/* Copy a column of the row. */
static void
who_copy(Who *who, int column, TupleTableSlot *slot, int attribute, int16 length)
{
	Datum		value = slot_getattr(slot, attribute, &who->nulls[column]);

	if (!who->nulls[column])
		who->values[column] = length < 0 ?
			PointerGetDatum(PG_DETOAST_DATUM_COPY(value)) : datumCopy(value, FLOAT8PASSBYVAL, length);
}

/* Keep what the row tells of its user. */
static void
who_read(TupleTableSlot *slot, void *argument)
{
	Who		   *who = argument;

	slot_getsomeattrs(slot, SA_SESSION_REAUTHENTICATED_AT);
	who_copy(who, WHO_USER_NAME, slot, SA_SESSION_USER_NAME, -1);
	who_copy(who, WHO_LOGIN_METHOD, slot, SA_SESSION_LOGIN_METHOD, -1);
	who_copy(who, WHO_CREATED_AT, slot, SA_SESSION_CREATED_AT, sizeof(TimestampTz));
	who_copy(who, WHO_REAUTHENTICATED_AT, slot, SA_SESSION_REAUTHENTICATED_AT, sizeof(TimestampTz));
	who->values[WHO_KIND] = CStringGetTextDatum(who->nulls[WHO_USER_NAME] ? "anonymous" : "user");
	who->nulls[WHO_KIND] = false;
}

/* touch_session_user(session_id, application) */
Datum
sa_touch_session_user(PG_FUNCTION_ARGS)
{
	uint8		hash[SA_HASH_LEN];
	SaApplication application;
	Who			who;
	bool		valid;
	TupleDesc	tupdesc;
	HeapTuple	tuple;

	sa_session_hash_arg(fcinfo, 0, hash);
	memset(who.nulls, true, sizeof(who.nulls));
	valid = sa_application_find(sa_application_arg(fcinfo, 1), &application) &&
		sa_session_touch(hash, &application, 1, 0) &&
		sa_session_visit(NULL, hash, application.name, who_read, &who);
	who.values[WHO_VALID] = BoolGetDatum(valid);
	who.nulls[WHO_VALID] = false;

	tupdesc = lookup_rowtype_tupdesc(get_func_rettype(fcinfo->flinfo->fn_oid), -1);
	tuple = heap_form_tuple(tupdesc, who.values, who.nulls);
	ReleaseTupleDesc(tupdesc);
	PG_RETURN_DATUM(HeapTupleGetDatum(tuple));
}
