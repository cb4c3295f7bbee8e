/*
 * tell_live.c
 *	  Tells the shared table of live sessions which rows of session end or change.
 */
#include "ending/end.h"

#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_session_changed);

/* The rows of session in a transition table, with their keys in the shared table. */
typedef struct KeyReader
{
	SaRowReader reader;
	SaApplication application;	/* of the last row */
	SaLiveKey	key;			/* this and the next are the last row's, too */
	TimestampTz last_access_at;
} KeyReader;

static void
tell_live_begin(KeyReader *keys, Relation rel, Tuplestorestate *rows)
{
	memset(keys, 0, sizeof(*keys));
	sa_rows_begin(&keys->reader, rel, rows);
	keys->application.session_relid = RelationGetRelid(rel);
}

/* Go to the next row; false at the end. */
static bool
tell_live_next(KeyReader *keys)
{
	TupleTableSlot *slot = keys->reader.slot;
	bool		isnull;
	char	   *name;
	bytea	   *hash;

	if (!sa_rows_next(&keys->reader))
		return false;

	name = sa_row_application(&keys->reader);
	/* the application itself may be gone, and be made again later */
	if (strcmp(keys->application.name, name) != 0)
	{
		strlcpy(keys->application.name, name, sizeof(keys->application.name));
		keys->application.key = sa_application_key(name);
	}
	pfree(name);
	hash = DatumGetByteaPP(slot_getattr(slot, SA_SESSION_HASH, &isnull));
	sa_live_key(&keys->key, &keys->application, (uint8 *) VARDATA_ANY(hash));
	keys->last_access_at =
		DatumGetTimestampTz(slot_getattr(slot, SA_SESSION_LAST_ACCESS_AT, &isnull));
	return true;
}

/* Tell the shared table of live sessions which ones end with this transaction. */
void
sa_tell_live_ended(TriggerData *trigdata)
{
	KeyReader	old;

	tell_live_begin(&old, trigdata->tg_relation, trigdata->tg_oldtable);
	while (tell_live_next(&old))
		sa_live_ended(&old.key);
	sa_rows_end(&old.reader);
}

/* Tell it which rows change: both tables have them in the same order. */
static void
tell_live_changed(TriggerData *trigdata)
{
	KeyReader	old;
	KeyReader	new;

	tell_live_begin(&old, trigdata->tg_relation, trigdata->tg_oldtable);
	tell_live_begin(&new, trigdata->tg_relation, trigdata->tg_newtable);
	while (tell_live_next(&old) && tell_live_next(&new))
	{
		bool		same_id = memcmp(&old.key, &new.key, sizeof(SaLiveKey)) == 0;

		/* under its old id there is no session any more */
		if (!same_id)
			sa_live_ended(&old.key);
		sa_live_changed(&new.key, !same_id || new.last_access_at < old.last_access_at);
	}
	sa_rows_end(&old.reader);
	sa_rows_end(&new.reader);
}

/*
 * Trigger: rows of session were updated, other than by a touch.  What the shared
 * table of live sessions has of them is read anew.  It still knows of touches that
 * are not written yet, unless the update has set back the last access.
 */
Datum
sa_session_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"session_changed\" must be fired after UPDATE for each statement")));

	if (!sa_touch_is_writing)
		tell_live_changed(trigdata);
	return PointerGetDatum(NULL);
}
