/*
 * capture.c
 *	  Triggers on the products' own tables: what each changed row tells.
 *
 * A trigger fires once a statement, with the rows before and after in transition
 * tables.  They are read here directly, not by a query: of an UPDATE, PostgreSQL
 * adds the old and the new row to the two tables together, so that the rows at
 * the same place belong together.  This holds for UPDATE, for MERGE, which keeps
 * the rows of its UPDATEs apart, and for ON CONFLICT DO UPDATE; not for rows that
 * move to another partition, and attach_application refuses partitioned tables.
 * So nothing depends on a key, only the columns that play a role are compared,
 * and a statement that changes none of them costs one pass over the rows.  And
 * no function of a type or operator of somebody else's runs with our rights.
 *
 * A failure in here is not the product's: the statement goes on, what could not
 * be understood is recorded in capture_failure, and whom it may have concerned
 * is logged out.  Only what the product itself has to know is passed on, such as
 * a cancelled statement or a deadlock, and the failure of even that.
 */
#include "capture.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/formatting.h"
#include "utils/guc.h"
#include "utils/inet.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_capture);

/* Rows that are applied together */
#define BATCH_ROWS		10000

const char *const sa_part_names[SA_NPARTS] = {
	[SA_PART_IDENTITY] = "identity",
	[SA_PART_ACCOUNT] = "account",
	[SA_PART_ATTRIBUTE] = "attribute",
	[SA_PART_LOGIN] = "login",
	[SA_PART_REMEMBER_ME] = "remember_me",
	[SA_PART_SESSION] = "session"
};

const char *const sa_role_names[SA_NROLES] = {
	[SA_ROLE_USER_NAME] = "user_name",
	[SA_ROLE_USER_KEY] = "user_key",
	[SA_ROLE_KEY] = "key",
	[SA_ROLE_OTHER_NAME] = "other_name",
	[SA_ROLE_CREDENTIAL] = "credential",
	[SA_ROLE_ACTIVE] = "active",
	[SA_ROLE_LOCKED_AT] = "locked_at",
	[SA_ROLE_DELETED_AT] = "deleted_at",
	[SA_ROLE_LAST_LOGIN_AT] = "last_login_at",
	[SA_ROLE_PREVIOUS_LOGIN_AT] = "previous_login_at",
	[SA_ROLE_LAST_FAILED_LOGIN_AT] = "last_failed_login_at",
	[SA_ROLE_LOGIN_COUNT] = "login_count",
	[SA_ROLE_CURRENT_FAILED_COUNT] = "current_failed_count",
	[SA_ROLE_TOTAL_FAILED_COUNT] = "total_failed_count",
	[SA_ROLE_LAST_SEEN_AT] = "last_seen_at",
	[SA_ROLE_LAST_LOGIN_ADDRESS] = "last_login_address",
	[SA_ROLE_ATTRIBUTE_NAME] = "attribute_name",
	[SA_ROLE_ATTRIBUTE_VALUE] = "attribute_value",
	[SA_ROLE_SECRET] = "secret",
	[SA_ROLE_SERIES] = "series",
	[SA_ROLE_CREATED_AT] = "created_at",
	[SA_ROLE_USED_AT] = "used_at"
};

/* The table whose rows we delete ourselves right now. */
static Oid	forgetting_relid = InvalidOid;
static SaForgetting *forgetting = NULL;

/*
 * Reading values
 */

static bool
is_string(Oid type)
{
	return type == TEXTOID || type == VARCHAROID || type == BPCHAROID;
}

/* A value as text; NULL if it is null. */
static char *
value_as_text(Datum value, bool isnull, Oid type)
{
	Oid			output;
	bool		varlena;
	char	   *result;

	if (isnull)
		return NULL;
	if (is_string(type))
		result = TextDatumGetCString(value);
	else
	{
		getTypeOutputInfo(type, &output, &varlena);
		result = OidOutputFunctionCall(output, value);
	}

	if (type == BPCHAROID)
	{
		size_t		length = strlen(result);

		while (length > 0 && result[length - 1] == ' ')
			result[--length] = '\0';
	}
	return result;
}

/* What is in the column that plays this role, as text. */
static char *
role_text(const SaWatch *watch, SaRole role, TupleTableSlot *slot)
{
	const SaColumn *column = &watch->columns[role];
	Datum		value;
	bool		isnull;

	if (column->attnum == InvalidAttrNumber)
		return NULL;
	value = slot_getattr(slot, column->attnum, &isnull);
	return value_as_text(value, isnull, column->type);
}

/* Null before, and not any more? */
static bool
became_set(const SaWatch *watch, SaRole role, TupleTableSlot *old, TupleTableSlot *new)
{
	AttrNumber	attnum = watch->columns[role].attnum;

	return attnum != InvalidAttrNumber &&
		slot_attisnull(old, attnum) && !slot_attisnull(new, attnum);
}

/* The same value in both rows?  True also if no column plays this role. */
static bool
role_unchanged(const SaWatch *watch, SaRole role, TupleTableSlot *old, TupleTableSlot *new)
{
	AttrNumber	attnum = watch->columns[role].attnum;
	Datum		old_value;
	Datum		new_value;
	bool		old_null;
	bool		new_null;
	Form_pg_attribute attribute;

	if (attnum == InvalidAttrNumber)
		return true;

	old_value = slot_getattr(old, attnum, &old_null);
	new_value = slot_getattr(new, attnum, &new_null);
	if (old_null || new_null)
		return old_null && new_null;
	attribute = TupleDescAttr(old->tts_tupleDescriptor, attnum - 1);
	return datum_image_eq(old_value, new_value, attribute->attbyval, attribute->attlen);
}

/* Does a flag of whatever type say yes? */
static bool
role_is_true(const SaWatch *watch, SaRole role, TupleTableSlot *slot)
{
	static const char *const yes[] = {"1", "t", "true", "y", "yes", "on", "active", "enabled"};
	char	   *value = role_text(watch, role, slot);

	for (size_t i = 0; value != NULL && i < lengthof(yes); i++)
	{
		if (pg_strcasecmp(value, yes[i]) == 0)
			return true;
	}
	return false;
}

/* A count as text; false if it is none. */
static bool
read_number(const char *value, int64 *result)
{
	char	   *end;

	if (value == NULL || *value == '\0')
		return false;
	errno = 0;
	*result = strtoll(value, &end, 10);
	/* of a numeric with decimals the whole is enough */
	return errno == 0 && (*end == '\0' || *end == '.') && *result >= 0;
}

/* A time as text: a number since 1970; false if it is none. */
static bool
read_epoch(const char *value, SaReading reading, TimestampTz *result)
{
	const int64 unit = reading == SA_READING_SECONDS ? USECS_PER_SEC : 1000;
	const int64 epoch = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	int64		number;

	/* 0 is how some say "never" */
	if (!read_number(value, &number) || number == 0 || number > PG_INT64_MAX / unit)
		return false;
	*result = number * unit - epoch;
	return IS_VALID_TIMESTAMP(*result);
}

static bool
read_time(Datum value, bool isnull, Oid type, SaReading reading, TimestampTz *result)
{
	if (isnull)
		return false;

	switch (type)
	{
		case TIMESTAMPTZOID:
			*result = DatumGetTimestampTz(value);
			break;
		case TIMESTAMPOID:
			if (reading == SA_READING_UTC)
				*result = DatumGetTimestamp(value);
			else
				*result = DatumGetTimestampTz(DirectFunctionCall1(timestamp_timestamptz, value));
			break;
		default:
			return read_epoch(value_as_text(value, false, type), reading, result);
	}
	return !TIMESTAMP_NOT_FINITE(*result);
}

/*
 * What rows tell
 */

/* The name of the user of this row, as it may stand in account; else NULL. */
static char *
user_name_of(const SaWatch *watch, TupleTableSlot *slot)
{
	char	   *name = role_text(watch, SA_ROLE_USER_NAME, slot);

	if (name != NULL && watch->columns[SA_ROLE_USER_NAME].reading == SA_READING_ANY_CASE)
		name = str_tolower(name, strlen(name), DEFAULT_COLLATION_OID);
	if (name == NULL || *name == '\0' || strlen(name) > SA_USER_NAME_MAX)
		return NULL;
	return name;
}

/* The same, or the key, if the part has keys. */
static char *
user_of(const SaWatch *watch, TupleTableSlot *slot)
{
	if (SA_HAS(watch, SA_ROLE_USER_KEY))
		return role_text(watch, SA_ROLE_USER_KEY, slot);
	return user_name_of(watch, slot);
}

static void
add_ended(SaCaptured *captured, const char *name, SaEndedBy by, SaEndedIf condition)
{
	if (name == NULL)
		return;
	sa_captured_add_text(captured, &captured->ended_name, name);
	sa_captured_add(captured, &captured->ended_by, Int32GetDatum(by), false);
	sa_captured_add(captured, &captured->ended_if, Int32GetDatum(condition), false);
}

/* The sessions of the user of this row end, under all spellings of the name. */
static void
user_ended(SaCaptured *captured, TupleTableSlot *slot, SaEndedBy by, SaEndedIf condition)
{
	const SaWatch *watch = captured->watch;
	char	   *name = user_name_of(watch, slot);
	char	   *other = role_text(watch, SA_ROLE_OTHER_NAME, slot);

	add_ended(captured, name, by, condition);
	if (name && other && strcmp(name, other) != 0)
		add_ended(captured, other, by, SA_ENDED_IF_KNOWN);
}

static void
add_renamed(SaCaptured *captured, const char *from, const char *to)
{
	if (strcmp(from, to) == 0)
		return;
	sa_captured_add_text(captured, &captured->renamed_from, from);
	sa_captured_add_text(captured, &captured->renamed_to, to);
}

static void
add_key(SaCaptured *captured, TupleTableSlot *slot, const char *name)
{
	char	   *key = role_text(captured->watch, SA_ROLE_KEY, slot);

	if (key == NULL)
		return;
	sa_captured_add_text(captured, &captured->key, key);
	sa_captured_add_text(captured, &captured->key_user, name);
}

static void
add_key_gone(SaCaptured *captured, TupleTableSlot *slot)
{
	char	   *key = role_text(captured->watch, SA_ROLE_KEY, slot);

	if (key != NULL)
		sa_captured_add_text(captured, &captured->key_gone, key);
}

/* Add one thing that is told of a user's logins, unless there is no sense in it. */
static void
add_login(SaCaptured *captured, TupleTableSlot *slot, SaRole role, SaReading reading,
		  Datum value, bool isnull, Oid type)
{
	const SaWatch *watch = captured->watch;
	SaRole		key_role = SA_HAS(watch, SA_ROLE_USER_KEY) ? SA_ROLE_USER_KEY : SA_ROLE_KEY;
	char	   *key = role_text(watch, key_role, slot);
	char	   *user = user_name_of(watch, slot);
	TimestampTz at = 0;
	int64		number = 0;
	char	   *address = NULL;
	bool		is_time = false;
	bool		is_number = false;

	switch (role)
	{
		case SA_ROLE_LOGIN_COUNT:
		case SA_ROLE_CURRENT_FAILED_COUNT:
		case SA_ROLE_TOTAL_FAILED_COUNT:
			is_number = read_number(value_as_text(value, isnull, type), &number);
			break;
		case SA_ROLE_LAST_LOGIN_ADDRESS:
			if (type == INETOID)
				address = value_as_text(value, isnull, type);
			break;
		default:
			is_time = read_time(value, isnull, type, reading, &at);
			break;
	}
	if ((key == NULL && user == NULL) || !(is_time || is_number || address))
		return;

	sa_captured_add_text(captured, &captured->login_key, key);
	sa_captured_add_text(captured, &captured->login_user, user);
	sa_captured_add_text(captured, &captured->login_role, sa_role_names[role]);
	sa_captured_add(captured, &captured->login_at, TimestampTzGetDatum(at), !is_time);
	sa_captured_add(captured, &captured->login_number, Int64GetDatum(number), !is_number);
	sa_captured_add_text(captured, &captured->login_address, address);
}

/* Add all that the columns of this row tell of logins. */
static void
add_logins(SaCaptured *captured, TupleTableSlot *slot)
{
	const SaWatch *watch = captured->watch;

	for (SaRole role = 0; role < SA_NROLES; role++)
	{
		const SaColumn *column = &watch->columns[role];
		Datum		value;
		bool		isnull;

		if (!SA_IS_LOGIN_ROLE(role) || column->attnum == InvalidAttrNumber)
			continue;
		value = slot_getattr(slot, column->attnum, &isnull);
		add_login(captured, slot, role, column->reading, value, isnull, column->type);
	}
}

/* A count of failures that goes up, with no time, means now. */
static void
add_failure(SaCaptured *captured, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = captured->watch;
	int64		old_count = 0;
	int64		new_count;

	if (SA_HAS(watch, SA_ROLE_LAST_FAILED_LOGIN_AT) ||
		!read_number(role_text(watch, SA_ROLE_CURRENT_FAILED_COUNT, new), &new_count))
		return;
	if (old != NULL)
		(void) read_number(role_text(watch, SA_ROLE_CURRENT_FAILED_COUNT, old), &old_count);
	if (new_count > old_count)
		add_login(captured, new, SA_ROLE_LAST_FAILED_LOGIN_AT, SA_READING_DEFAULT,
				  TimestampTzGetDatum(GetCurrentTimestamp()), false, TIMESTAMPTZOID);
}

/* Add what an attribute tells of logins, if it is one of those that do. */
static void
add_attribute(SaCaptured *captured, TupleTableSlot *slot)
{
	const SaWatch *watch = captured->watch;
	const SaColumn *column = &watch->columns[SA_ROLE_ATTRIBUTE_VALUE];
	char	   *name = role_text(watch, SA_ROLE_ATTRIBUTE_NAME, slot);

	for (int i = 0; name != NULL && i < watch->nattributes; i++)
	{
		const SaAttribute *attribute = &watch->attributes[i];
		Datum		value;
		bool		isnull;

		if (strcmp(attribute->name, name) != 0)
			continue;
		value = slot_getattr(slot, column->attnum, &isnull);
		add_login(captured, slot, attribute->role, attribute->reading,
				  value, isnull, column->type);
	}
}

/* The first digits of the hash of a secret, to tell one from another. */
static char *
secret_ref(char *secret)
{
	uint8		hash[SA_HASH_LEN];
	char	   *ref;

	if (secret == NULL)
		return NULL;
	sa_sha256(secret, strlen(secret), hash);
	explicit_bzero(secret, strlen(secret));
	ref = palloc0(SA_HASH_LEN * 2 + 1);
	hex_encode((char *) hash, SA_HASH_LEN, ref);
	ref[SA_REF_LEN] = '\0';
	return ref;
}

static void
add_token(SaCaptured *captured, TupleTableSlot *slot, const char *event)
{
	const SaWatch *watch = captured->watch;

	sa_captured_add_text(captured, &captured->token_user, user_of(watch, slot));
	sa_captured_add_text(captured, &captured->token_event, event);
	sa_captured_add_text(captured, &captured->token_ref,
						 secret_ref(role_text(watch, SA_ROLE_SECRET, slot)));
	sa_captured_add_text(captured, &captured->token_series,
						 secret_ref(role_text(watch, SA_ROLE_SERIES, slot)));
}

static void
row_inserted(SaCaptured *captured, TupleTableSlot *slot)
{
	const SaWatch *watch = captured->watch;
	char	   *name;

	switch (watch->part)
	{
		case SA_PART_ACCOUNT:
		case SA_PART_IDENTITY:
			name = user_name_of(watch, slot);
			if (name == NULL)
				return;
			add_key(captured, slot, name);
			if (watch->part == SA_PART_ACCOUNT)
			{
				sa_captured_add_text(captured, &captured->account, name);
				add_logins(captured, slot);
			}
			break;
		case SA_PART_ATTRIBUTE:
			add_attribute(captured, slot);
			break;
		case SA_PART_LOGIN:
			add_logins(captured, slot);
			if (!captured->backfill)
				add_failure(captured, NULL, slot);
			break;
		case SA_PART_REMEMBER_ME:
			if (!captured->backfill)
				add_token(captured, slot, "remember_me_issued");
			break;
		case SA_PART_SESSION:
			break;
	}
}

static void
row_deleted(SaCaptured *captured, TupleTableSlot *slot)
{
	switch (captured->watch->part)
	{
		case SA_PART_ACCOUNT:
			user_ended(captured, slot, SA_ENDED_BY_DELETION, SA_ENDED_ALWAYS);
			add_key_gone(captured, slot);
			break;
		case SA_PART_IDENTITY:
			user_ended(captured, slot, SA_ENDED_BY_DELETION, SA_ENDED_IF_LIVE);
			add_key_gone(captured, slot);
			break;
		case SA_PART_REMEMBER_ME:
			add_token(captured, slot, "remember_me_revoked");
			break;
		case SA_PART_ATTRIBUTE:
		case SA_PART_LOGIN:
		case SA_PART_SESSION:
			break;
	}
}

/* A row of which a column that tells of logins may differ. */
static void
logins_updated(SaCaptured *captured, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = captured->watch;
	bool		unchanged = true;

	for (SaRole role = 0; role < SA_NROLES; role++)
	{
		if (SA_IS_LOGIN_ROLE(role) && !role_unchanged(watch, role, old, new))
			unchanged = false;
	}
	if (unchanged)
		return;

	add_logins(captured, new);

	add_failure(captured, old, new);
}

/* A row of part account or identity, of which at least one column differs. */
static void
user_updated(SaCaptured *captured, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = captured->watch;
	char	   *old_name = user_name_of(watch, old);
	char	   *new_name = user_name_of(watch, new);
	char	   *old_other = role_text(watch, SA_ROLE_OTHER_NAME, old);
	char	   *new_other = role_text(watch, SA_ROLE_OTHER_NAME, new);

	if (new_name == NULL)
	{
		row_deleted(captured, old);
		return;
	}
	if (old_name == NULL)
	{
		row_inserted(captured, new);
		return;
	}

	add_renamed(captured, old_name, new_name);
	if (old_other != NULL && strcmp(old_other, old_name) != 0)
		add_renamed(captured, old_other, new_other ? new_other : new_name);

	/* a new name ends the sessions of the old one anyway */
	if (strcmp(old_name, new_name) == 0)
	{
		if (became_set(watch, SA_ROLE_DELETED_AT, old, new))
			user_ended(captured, old, SA_ENDED_BY_DELETION, SA_ENDED_ALWAYS);
		else if (became_set(watch, SA_ROLE_LOCKED_AT, old, new) ||
				 (SA_HAS(watch, SA_ROLE_ACTIVE) &&
				  role_is_true(watch, SA_ROLE_ACTIVE, old) &&
				  !role_is_true(watch, SA_ROLE_ACTIVE, new)))
			user_ended(captured, old, SA_ENDED_BY_DEACTIVATION, SA_ENDED_ALWAYS);
		else if (!role_unchanged(watch, SA_ROLE_CREDENTIAL, old, new))
			user_ended(captured, old, SA_ENDED_BY_PASSWORD, SA_ENDED_ALWAYS);
	}

	if (!role_unchanged(watch, SA_ROLE_KEY, old, new))
		add_key_gone(captured, old);
	if (!role_unchanged(watch, SA_ROLE_KEY, old, new) || strcmp(old_name, new_name) != 0)
	{
		add_key(captured, new, new_name);
		if (watch->part == SA_PART_ACCOUNT)
			sa_captured_add_text(captured, &captured->account, new_name);
	}

	logins_updated(captured, old, new);
}

static void
row_updated(SaCaptured *captured, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = captured->watch;
	bool		unchanged = true;

	for (SaRole role = 0; role < SA_NROLES && unchanged; role++)
		unchanged = role_unchanged(watch, role, old, new);
	if (unchanged)
		return;

	captured->rows++;
	switch (watch->part)
	{
		case SA_PART_ACCOUNT:
		case SA_PART_IDENTITY:
			user_updated(captured, old, new);
			break;
		case SA_PART_ATTRIBUTE:
			add_attribute(captured, new);
			break;
		case SA_PART_LOGIN:
			logins_updated(captured, old, new);
			break;
		case SA_PART_REMEMBER_ME:
			/* rotated, or marked as used */
			if (!role_unchanged(watch, SA_ROLE_SECRET, old, new) ||
				!role_unchanged(watch, SA_ROLE_USED_AT, old, new))
				add_token(captured, new, "remember_me_used");
			break;
		case SA_PART_SESSION:
			break;
	}
}

/*
 * Reading the transition tables
 */

/* Start to read from its first row; others read the same table. */
static int
begin_reading(Tuplestorestate *rows)
{
	int			pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);

	tuplestore_select_read_pointer(rows, pointer);
	tuplestore_rescan(rows);
	return pointer;
}

static void
capture_rows(SaCaptured *captured, Tuplestorestate *rows, TupleTableSlot *slot,
			 void (*row) (SaCaptured *, TupleTableSlot *))
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);

	begin_reading(rows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);

		CHECK_FOR_INTERRUPTS();
		row(captured, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (++captured->rows >= BATCH_ROWS)
			sa_captured_flush(captured);
	}
	MemoryContextDelete(scratch);
}

static void
capture_pairs(SaCaptured *captured, Tuplestorestate *old_rows, Tuplestorestate *new_rows,
			  TupleTableSlot *old_slot, TupleTableSlot *new_slot)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);

	if (tuplestore_tuple_count(old_rows) != tuplestore_tuple_count(new_rows))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("cannot tell which old row became which new row")));

	begin_reading(old_rows);
	begin_reading(new_rows);
	while (tuplestore_gettupleslot(old_rows, true, false, old_slot) &&
		   tuplestore_gettupleslot(new_rows, true, false, new_slot))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);

		CHECK_FOR_INTERRUPTS();
		row_updated(captured, old_slot, new_slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (captured->rows >= BATCH_ROWS)
			sa_captured_flush(captured);
	}
	MemoryContextDelete(scratch);
}

/* All that one statement tells of one part. */
static void
capture_statement(SaCaptured *captured, TriggerData *trigdata)
{
	TupleDesc	descriptor = RelationGetDescr(trigdata->tg_relation);
	TriggerEvent event = trigdata->tg_event;
	TupleTableSlot *old_slot;
	TupleTableSlot *new_slot;

	if (TRIGGER_FIRED_BY_TRUNCATE(event))
	{
		sa_captured_truncated(captured);
		sa_captured_end(captured);
		return;
	}

	old_slot = MakeSingleTupleTableSlot(descriptor, &TTSOpsMinimalTuple);
	new_slot = MakeSingleTupleTableSlot(descriptor, &TTSOpsMinimalTuple);
	if (TRIGGER_FIRED_BY_INSERT(event))
		capture_rows(captured, trigdata->tg_newtable, new_slot, row_inserted);
	else if (TRIGGER_FIRED_BY_DELETE(event))
		capture_rows(captured, trigdata->tg_oldtable, old_slot, row_deleted);
	else
		capture_pairs(captured, trigdata->tg_oldtable, trigdata->tg_newtable, old_slot, new_slot);
	ExecDropSingleTupleTableSlot(old_slot);
	ExecDropSingleTupleTableSlot(new_slot);

	captured->complete = captured->fed == 0;
	if (captured->rows > 0)
		sa_captured_flush(captured);
	sa_captured_end(captured);
}

static const char *
event_name(TriggerEvent event)
{
	if (TRIGGER_FIRED_BY_INSERT(event))
		return "INSERT";
	if (TRIGGER_FIRED_BY_UPDATE(event))
		return "UPDATE";
	if (TRIGGER_FIRED_BY_DELETE(event))
		return "DELETE";
	return "TRUNCATE";
}

/*
 * Failures
 */

/* What the product has to know, and can deal with. */
static bool
is_the_products(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_QUERY_CANCELED:
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return true;
		default:
			return false;
	}
}

/* The users whom the batch would have logged out; NULL if nobody knows. */
static ArrayType *
users_concerned(const SaCaptured *captured)
{
	ArrayBuildState *names = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	if (!captured->complete)
		return NULL;
	for (int i = 0; i < captured->ended_name.n; i++)
		accumArrayResult(names, captured->ended_name.values[i], false, TEXTOID, CurrentMemoryContext);
	for (int i = 0; i < captured->renamed_from.n; i++)
		accumArrayResult(names, captured->renamed_from.values[i], false, TEXTOID, CurrentMemoryContext);
	return DatumGetArrayTypeP(makeArrayResult(names, CurrentMemoryContext));
}

/*
 * Record what was not understood, and log out whom it may have concerned: if that
 * is not known, everybody.  Only users and their identities end sessions.
 */
static void
capture_failed(const SaCaptured *captured, TriggerData *trigdata, const char *message)
{
	static SaStatement record_failure = {.sql =
		"INSERT INTO session_admin.capture_failure (application, relation, event, message, user_names)"
		" VALUES ($1, $2, $3, $4, $5)"
	};
	const SaWatch *watch = captured->watch;
	bool		ends_sessions = !TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) &&
		(watch->part == SA_PART_ACCOUNT || watch->part == SA_PART_IDENTITY);
	char	   *relation = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(trigdata->tg_relation)),
													  RelationGetRelationName(trigdata->tg_relation));
	ArrayType  *users = ends_sessions ? users_concerned(captured) : construct_empty_array(TEXTOID);
	bool		anybody = users == NULL || ArrayGetNItems(ARR_NDIM(users), ARR_DIMS(users)) > 0;
	SaEnding	ending = {.reason = "custom:capture_failure",.at = GetCurrentTimestamp()};
	SaArgs		args = {0};

	ereport(WARNING,
			(errmsg("session_admin could not follow %s of \"%s\": %s",
					event_name(trigdata->tg_event),
					RelationGetRelationName(trigdata->tg_relation), message),
			 anybody ? errdetail(users ? "The users concerned are logged out of application \"%s\"." :
								 "All users are logged out of application \"%s\".",
								 watch->application) : 0,
			 errhint("See table session_admin.capture_failure.")));

	SPI_connect();
	sa_arg_text(&args, watch->application);
	sa_arg_text(&args, relation);
	sa_arg_text(&args, event_name(trigdata->tg_event));
	sa_arg_text(&args, message);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(users), users == NULL);
	sa_run(&record_failure, &args);
	if (users == NULL)
		sa_end_generation(watch->application, &ending);
	else if (anybody)
		sa_end_users(watch->application, users, NULL, false, &ending);
	SPI_finish();
}

/* The same as capture_statement, in a subtransaction, so that it may fail. */
static void
capture_guarded(const SaWatch *watch, TriggerData *trigdata)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	SaCaptured *captured = palloc(sizeof(SaCaptured));

	sa_captured_begin(captured, watch);
	captured->deletion = TRIGGER_FIRED_BY_DELETE(trigdata->tg_event);
	if (forgetting_relid == RelationGetRelid(trigdata->tg_relation))
		captured->forgetting = forgetting;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		capture_statement(captured, trigdata);

		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (is_the_products(error))
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;

		capture_failed(captured, trigdata, error->message);
	}
	PG_END_TRY();
}

/* Trigger on a product's table, made by attach_application. */
Datum
sa_capture(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	ListCell   *cell;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		(!TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event) &&
		 !TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) && trigdata->tg_oldtable == NULL) ||
		(TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) && trigdata->tg_newtable == NULL) ||
		(TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) && trigdata->tg_newtable == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"capture\" must be fired after a statement, with transition tables"),
				 errhint("Triggers that call it are made by session_admin.attach_application.")));

	/* most statements of some products touch no row */
	if ((trigdata->tg_newtable && tuplestore_tuple_count(trigdata->tg_newtable) == 0) ||
		(trigdata->tg_oldtable && tuplestore_tuple_count(trigdata->tg_oldtable) == 0))
		PG_RETURN_POINTER(NULL);

	foreach(cell, sa_watches_of(trigdata->tg_relation))
		capture_guarded(lfirst(cell), trigdata);

	PG_RETURN_POINTER(NULL);
}

/*
 * Rows that are there already
 */

/*
 * Take all rows that the snapshot sees as known, but those that "done" (if any)
 * saw too: they have not changed since.  Returns the number of rows.
 */
int64
sa_capture_existing(const SaWatch *watch, Relation relation, Snapshot snapshot, Snapshot done)
{
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);
	SaCaptured	captured;
	int64		rows = 0;

	sa_captured_begin(&captured, watch);
	captured.backfill = true;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (done && table_tuple_satisfies_snapshot(relation, slot, done))
			continue;

		old = MemoryContextSwitchTo(scratch);
		row_inserted(&captured, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		rows++;
		if (++captured.rows >= BATCH_ROWS)
			sa_captured_flush(&captured);
	}
	if (captured.rows > 0)
		sa_captured_flush(&captured);
	sa_captured_end(&captured);

	MemoryContextDelete(scratch);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	return rows;
}

/*
 * Forgetting
 */

/*
 * Delete from one of the product's remember-me tables, as the owner of that
 * table: its triggers are not ours and must not run with our rights.  They find
 * the names that they expect in its own schema.
 */
static void
forget(const SaWatch *watch, const char *condition, ArrayType *values, SaForgetting *details)
{
	Relation	relation = table_open(watch->relid, condition ? RowExclusiveLock : ShareRowExclusiveLock);
	char	   *schema = get_namespace_name(RelationGetNamespace(relation));
	Oid			outer_relid = forgetting_relid;
	SaForgetting *outer_forgetting = forgetting;
	Oid			types[1] = {TEXTARRAYOID};
	Datum		arguments[1] = {PointerGetDatum(values)};
	Oid			userid;
	int			sec_context;
	int			nestlevel;
	StringInfoData sql;
	SPIPlanPtr	plan;

	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM ONLY %s",
					 quote_qualified_identifier(schema, RelationGetRelationName(relation)));
	if (condition)
		appendStringInfo(&sql, " WHERE %s", condition);

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(relation->rd_rel->relowner,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path",
							 psprintf("pg_catalog, %s, pg_temp", quote_identifier(schema)),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	/* policies must not hide rows from us silently */
	(void) set_config_option("row_security", "off",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	forgetting_relid = watch->relid;
	forgetting = details;
	PG_TRY();
	{
		plan = SPI_prepare(sql.data, condition ? 1 : 0, types);
		if (plan == NULL)
			elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
		SPI_execute_snapshot(plan, arguments, NULL, GetLatestSnapshot(), InvalidSnapshot,
							 false, true, 0);
		SPI_freeplan(plan);
	}
	PG_FINALLY();
	{
		forgetting_relid = outer_relid;
		forgetting = outer_forgetting;
	}
	PG_END_TRY();

	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
	table_close(relation, NoLock);
}

/* The keys, names, or both, by which the table knows these users. */
static ArrayType *
known_as(const SaWatch *watch, ArrayType *user_names)
{
	static SaStatement keys_of_users = {.sql =
		"SELECT array_agg(key::text) FROM ("
		"  SELECT key FROM session_admin.account_key"
		"  WHERE application = $1 AND product = $2 AND part = $3 AND user_name = ANY ($4)"
		"  UNION SELECT unnest($4) WHERE $5) k"
	};
	bool		isnull;
	SaArgs		args = {0};
	Datum		keys;

	if (!SA_HAS(watch, SA_ROLE_USER_KEY))
		return user_names;

	sa_arg_text(&args, watch->application);
	sa_arg_text(&args, watch->product);
	sa_arg_text(&args, sa_part_names[watch->key_of]);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(user_names), false);
	sa_arg(&args, BOOLOID,
		   BoolGetDatum(watch->columns[SA_ROLE_USER_KEY].reading == SA_READING_KEY_OR_NAME), false);
	sa_run(&keys_of_users, &args);
	keys = sa_result(0, 1, &isnull);
	return isnull ? NULL : DatumGetArrayTypePCopy(keys);
}

/*
 * Delete these users' rows from the products' own remember-me tables.  Returns
 * the names, one for each row.  The caller is connected to SPI and has locked
 * the accounts.
 */
ArrayType *
sa_capture_forget_users(const char *application, ArrayType *user_names, SaEnding *ending)
{
	SaForgetting details = {.ending = ending,.context = CurrentMemoryContext};
	ListCell   *cell;

	foreach(cell, sa_watches_of_part(application, SA_PART_REMEMBER_ME))
	{
		SaWatch    *watch = lfirst(cell);
		SaRole		role = SA_HAS(watch, SA_ROLE_USER_KEY) ? SA_ROLE_USER_KEY : SA_ROLE_USER_NAME;
		ArrayType  *values = known_as(watch, user_names);
		const char *column;
		char	   *condition;

		if (values == NULL || !SA_HAS(watch, role))
			continue;
		column = quote_identifier(get_attname(watch->relid, watch->columns[role].attnum, false));
		if (watch->columns[role].reading == SA_READING_ANY_CASE)
			condition = psprintf("pg_catalog.lower(%s::text) OPERATOR(pg_catalog.=) ANY ($1)", column);
		else
			condition = psprintf("%s OPERATOR(pg_catalog.=) ANY ($1::%s[])", column,
								 format_type_extended(watch->columns[role].type, -1,
													  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		forget(watch, condition, values, &details);
	}

	if (details.users == NULL)
		return construct_empty_array(TEXTOID);
	return DatumGetArrayTypeP(makeArrayResult(details.users, CurrentMemoryContext));
}

/*
 * Empty the products' own remember-me tables and return the number of rows.  By
 * DELETE, as TRUNCATE would wait for everybody who reads them, pg_dump for
 * instance, and keep all others out meanwhile.  The lock waits only for those who
 * write, so that no row of theirs is missed, and lets everybody read.
 */
int64
sa_capture_forget_application(const char *application, SaEnding *ending)
{
	SaForgetting details = {.ending = ending,.context = CurrentMemoryContext};
	ListCell   *cell;

	foreach(cell, sa_watches_of_part(application, SA_PART_REMEMBER_ME))
		forget(lfirst(cell), NULL, NULL, &details);

	return details.users ? details.users->nelems : 0;
}
