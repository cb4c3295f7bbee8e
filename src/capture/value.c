/*
 * value.c
 *	  Values in rows of a product's table, by the role that their column plays.
 *
 * They are read leniently, as they are other people's: what is not a time or a count tells
 * nothing.  Only types of PostgreSQL's own are looked at: no function of anybody else's
 * runs here.
 */
#include "capture/row.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

static bool
value_is_string(Oid type)
{
	return type == TEXTOID || type == VARCHAROID || type == BPCHAROID;
}

/* A value as text; NULL if it is null. */
char *
sa_value_as_text(const SaValue *value)
{
	Oid			output;
	bool		varlena;
	char	   *result;

	if (value->isnull)
		return NULL;
	if (value_is_string(value->type))
		result = TextDatumGetCString(value->value);
	else
	{
		getTypeOutputInfo(value->type, &output, &varlena);
		result = OidOutputFunctionCall(output, value->value);
	}

	if (value->type == BPCHAROID)
	{
		size_t		length = strlen(result);

		while (length > 0 && result[length - 1] == ' ')
			result[--length] = '\0';
	}
	return result;
}

/* What is at the end of the path within a JSON value, as text; NULL if nothing is. */
static char *
value_at_path(Datum value, Oid type, ArrayType *path)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, NULL, 2, DEFAULT_COLLATION_OID, NULL, NULL);
	fcinfo->args[0].value = value;
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = PointerGetDatum(path);
	fcinfo->args[1].isnull = false;
	/* json is kept as text is */
	result = type == JSONBOID ? jsonb_extract_path_text(fcinfo) : json_extract_path_text(fcinfo);
	return fcinfo->isnull ? NULL : TextDatumGetCString(result);
}

/* What is in the column that plays this role; false if none does. */
bool
sa_value_get(const SaWatch *watch, SaColumnRole role, TupleTableSlot *slot, SaValue *value)
{
	const SaColumn *column = &watch->columns[role];

	if (column->attnum == InvalidAttrNumber)
		return false;
	value->value = slot_getattr(slot, column->attnum, &value->isnull);
	value->type = column->type;
	value->reading = column->reading;
	return true;
}

/* What is in the column that plays this role, as text. */
char *
sa_value_text(const SaWatch *watch, SaColumnRole role, TupleTableSlot *slot)
{
	ArrayType  *path = watch->columns[role].path;
	SaValue		value;

	if (!sa_value_get(watch, role, slot, &value))
		return NULL;
	if (path != NULL)
		return value.isnull ? NULL : value_at_path(value.value, value.type, path);
	return sa_value_as_text(&value);
}

/* Was the value null, and is it not any more? */
bool
sa_value_became_set(const SaWatch *watch, SaColumnRole role, TupleTableSlot *old, TupleTableSlot *new)
{
	AttrNumber	attnum = watch->columns[role].attnum;

	return attnum != InvalidAttrNumber &&
		slot_attisnull(old, attnum) && !slot_attisnull(new, attnum);
}

/* Is the value in both rows the same? */
static bool
value_unchanged_in(AttrNumber attnum, TupleTableSlot *old, TupleTableSlot *new)
{
	Form_pg_attribute attribute = TupleDescAttr(old->tts_tupleDescriptor, attnum - 1);
	Datum		old_value;
	Datum		new_value;
	bool		old_null;
	bool		new_null;

	old_value = slot_getattr(old, attnum, &old_null);
	new_value = slot_getattr(new, attnum, &new_null);
	if (old_null || new_null)
		return old_null && new_null;
	return datum_image_eq(old_value, new_value, attribute->attbyval, attribute->attlen);
}

/* Is the value in both rows the same? True also if no column plays this role. */
bool
sa_value_unchanged(const SaWatch *watch, SaColumnRole role, TupleTableSlot *old, TupleTableSlot *new)
{
	AttrNumber	attnum = watch->columns[role].attnum;

	return attnum == InvalidAttrNumber || value_unchanged_in(attnum, old, new);
}

/* All columns that play no role?  One of them may hold what we miss. */
bool
sa_value_others_unchanged(const SaWatch *watch, TupleTableSlot *old, TupleTableSlot *new)
{
	for (AttrNumber attnum = 1; attnum <= old->tts_tupleDescriptor->natts; attnum++)
	{
		bool		plays_role = TupleDescAttr(old->tts_tupleDescriptor, attnum - 1)->attisdropped;

		for (SaColumnRole role = 0; role < SA_NROLES && !plays_role; role++)
			plays_role = watch->columns[role].attnum == attnum;
		if (!plays_role && !value_unchanged_in(attnum, old, new))
			return false;
	}
	return true;
}

/* Does a flag of whatever type say yes? */
bool
sa_value_is_true(const SaWatch *watch, SaColumnRole role, TupleTableSlot *slot)
{
	static const char *const yes[] = {"1", "t", "true", "y", "yes", "on", "active", "enabled"};
	char	   *value = sa_value_text(watch, role, slot);

	for (size_t i = 0; value != NULL && i < lengthof(yes); i++)
	{
		if (pg_strcasecmp(value, yes[i]) == 0)
			return true;
	}
	return false;
}

/* A count as text; false if it is none. */
bool
sa_value_read_number(const char *value, int64 *result)
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
value_read_epoch(const char *value, SaReading reading, TimestampTz *result)
{
	const int64 unit = reading == SA_READING_SECONDS ? USECS_PER_SEC : 1000;
	const int64 epoch = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	int64		number;

	/* 0 is how some say "never" */
	if (!sa_value_read_number(value, &number) || number == 0 || number > PG_INT64_MAX / unit)
		return false;
	*result = number * unit - epoch;
	return IS_VALID_TIMESTAMP(*result);
}

/* A value as a time; false if it is none. */
bool
sa_value_read_time(const SaValue *value, TimestampTz *result)
{
	if (value->isnull)
		return false;

	switch (value->type)
	{
		case TIMESTAMPTZOID:
			*result = DatumGetTimestampTz(value->value);
			break;
		case TIMESTAMPOID:
			if (value->reading == SA_READING_UTC)
				*result = DatumGetTimestamp(value->value);
			else
				*result = DatumGetTimestampTz(DirectFunctionCall1(timestamp_timestamptz,
																  value->value));
			break;
		default:
			return value_read_epoch(sa_value_as_text(value), value->reading, result);
	}
	return !TIMESTAMP_NOT_FINITE(*result);
}

/* A time in the column that plays this role; false if there is none. */
bool
sa_value_time(const SaWatch *watch, SaColumnRole role, TupleTableSlot *slot, TimestampTz *result)
{
	SaValue		value;

	return sa_value_get(watch, role, slot, &value) && sa_value_read_time(&value, result);
}

/* Is the row one of those that are left alone? */
bool
sa_row_is_excluded(const SaWatch *watch, TupleTableSlot *slot)
{
	for (SaColumnRole role = 0; role < SA_NROLES; role++)
	{
		ArrayType  *excludes = watch->columns[role].excludes;

		if (excludes != NULL && sa_array_has_text(excludes, sa_value_text(watch, role, slot)))
			return true;
	}
	return false;
}

/* The hash of the session id or token in this row; false if there is none. */
bool
sa_row_hash(const SaWatch *watch, TupleTableSlot *slot, uint8 *hash)
{
	char	   *secret = sa_value_text(watch, SA_ROLE_SECRET, slot);

	if (secret == NULL || *secret == '\0')
		return false;
	sa_sha256(secret, strlen(secret), hash);
	explicit_bzero(secret, strlen(secret));
	return true;
}

/* Is there a session id or token in this row?  It may have been cleared. */
bool
sa_row_holds_secret(const SaWatch *watch, TupleTableSlot *slot)
{
	char	   *secret;
	bool		result;

	if (!watch->clears)
		return true;
	secret = sa_value_text(watch, SA_ROLE_SECRET, slot);
	if (secret == NULL)
		return false;
	result = *secret != '\0' && (watch->clear_to == NULL || strcmp(secret, watch->clear_to) != 0);
	explicit_bzero(secret, strlen(secret));
	return result;
}

/* The name of the user of this row, as it may stand in account; else NULL. */
char *
sa_row_user_name(const SaWatch *watch, TupleTableSlot *slot)
{
	char	   *name = sa_value_text(watch, SA_ROLE_USER_NAME, slot);

	if (name != NULL && watch->columns[SA_ROLE_USER_NAME].reading == SA_READING_ANY_CASE)
		name = str_tolower(name, strlen(name), DEFAULT_COLLATION_OID);
	if (name == NULL || *name == '\0' || strlen(name) > SA_USER_NAME_MAX)
		return NULL;
	return name;
}

/* The name of the user of this row, or the key, if the part has keys. */
char *
sa_row_user(const SaWatch *watch, TupleTableSlot *slot)
{
	if (SA_HAS(watch, SA_ROLE_USER_KEY))
		return sa_value_text(watch, SA_ROLE_USER_KEY, slot);
	return sa_row_user_name(watch, slot);
}
