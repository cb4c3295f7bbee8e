/*
 * row.c
 *	  What one row of a product's table tells, before and after a change.
 *
 * Only columns that play a role are looked at, and only types of PostgreSQL's
 * own: no function of anybody else's runs here.  Values are read leniently, as
 * they are other people's: what is not a time or a count tells nothing.
 */
#include "capture/capture.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A session that may be idle for longer than this never ends by itself. */
#define IDLE_TIMEOUT_MAX	(INT64CONST(100) * 366 * USECS_PER_DAY)

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
	if (column->path != NULL)
		return isnull ? NULL : value_at_path(value, column->type, column->path);
	return value_as_text(value, isnull, column->type);
}

/* Is the row one of those that are left alone? */
static bool
is_excluded(const SaWatch *watch, TupleTableSlot *slot)
{
	for (SaRole role = 0; role < SA_NROLES; role++)
	{
		ArrayType  *excludes = watch->columns[role].excludes;
		char	   *value = excludes ? role_text(watch, role, slot) : NULL;
		Datum	   *excluded;
		int			n;

		if (value == NULL)
			continue;
		deconstruct_array(excludes, TEXTOID, -1, false, TYPALIGN_INT, &excluded, NULL, &n);
		for (int i = 0; i < n; i++)
		{
			if (strcmp(TextDatumGetCString(excluded[i]), value) == 0)
				return true;
		}
	}
	return false;
}

/* Is the row one of those that are left alone? */
bool
sa_row_is_excluded(const SaWatch *watch, TupleTableSlot *slot)
{
	return is_excluded(watch, slot);
}

/* The hash of the session id or token in this row; false if there is none. */
bool
sa_row_hash(const SaWatch *watch, TupleTableSlot *slot, uint8 *hash)
{
	char	   *secret = role_text(watch, SA_ROLE_SECRET, slot);

	if (secret == NULL || *secret == '\0')
		return false;
	sa_sha256(secret, strlen(secret), hash);
	explicit_bzero(secret, strlen(secret));
	return true;
}

/* Null before, and not any more? */
static bool
became_set(const SaWatch *watch, SaRole role, TupleTableSlot *old, TupleTableSlot *new)
{
	AttrNumber	attnum = watch->columns[role].attnum;

	return attnum != InvalidAttrNumber &&
		slot_attisnull(old, attnum) && !slot_attisnull(new, attnum);
}

/* Is the value in both rows the same? */
static bool
column_unchanged(AttrNumber attnum, TupleTableSlot *old, TupleTableSlot *new)
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

/* The same value in both rows?  True also if no column plays this role. */
static bool
role_unchanged(const SaWatch *watch, SaRole role, TupleTableSlot *old, TupleTableSlot *new)
{
	AttrNumber	attnum = watch->columns[role].attnum;

	return attnum == InvalidAttrNumber || column_unchanged(attnum, old, new);
}

/* All columns that play no role?  One of them may hold what we miss. */
static bool
others_unchanged(const SaWatch *watch, TupleTableSlot *old, TupleTableSlot *new)
{
	for (AttrNumber attnum = 1; attnum <= old->tts_tupleDescriptor->natts; attnum++)
	{
		bool		plays_role = TupleDescAttr(old->tts_tupleDescriptor, attnum - 1)->attisdropped;

		for (SaRole role = 0; role < SA_NROLES && !plays_role; role++)
			plays_role = watch->columns[role].attnum == attnum;
		if (!plays_role && !column_unchanged(attnum, old, new))
			return false;
	}
	return true;
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

/* A time in the column that plays this role; false if there is none. */
static bool
role_time(const SaWatch *watch, SaRole role, TupleTableSlot *slot, TimestampTz *result)
{
	const SaColumn *column = &watch->columns[role];
	Datum		value;
	bool		isnull;

	if (column->attnum == InvalidAttrNumber)
		return false;
	value = slot_getattr(slot, column->attnum, &isnull);
	return read_time(value, isnull, column->type, column->reading, result);
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

/* The same of a row that somebody else looks at. */
char *
sa_row_user(const SaWatch *watch, TupleTableSlot *slot)
{
	return user_of(watch, slot);
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

	if (!SA_HAS(watch, SA_ROLE_USER_NAME))
		sa_captured_unclear(captured, NULL);
	add_ended(captured, name, by, condition);
	if (name && other && strcmp(name, other) != 0)
		add_ended(captured, other, by, SA_ENDED_IF_KNOWN);
}

static void
add_renamed(SaCaptured *captured, const char *from, const char *to, const char *key)
{
	if (strcmp(from, to) == 0)
		return;
	sa_captured_add_text(captured, &captured->renamed_from, from);
	sa_captured_add_text(captured, &captured->renamed_to, to);
	sa_captured_add_text(captured, &captured->renamed_key, key);
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
	MemoryContext old;

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

	/*
	 * where a Datum has 32 bits, these are allocated, and live as long as the
	 * batch
	 */
	old = MemoryContextSwitchTo(captured->context);
	sa_captured_add(captured, &captured->login_at, TimestampTzGetDatum(at), !is_time);
	sa_captured_add(captured, &captured->login_number, Int64GetDatum(number), !is_number);
	MemoryContextSwitchTo(old);
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

/* Is there anything in the column of the secret?  It may have been cleared. */
static bool
holds_secret(const SaWatch *watch, TupleTableSlot *slot)
{
	char	   *secret;
	bool		result;

	if (!watch->clears)
		return true;
	secret = role_text(watch, SA_ROLE_SECRET, slot);
	if (secret == NULL)
		return false;
	result = *secret != '\0' && (watch->clear_to == NULL || strcmp(secret, watch->clear_to) != 0);
	explicit_bzero(secret, strlen(secret));
	return result;
}

/* The same of a row that somebody else looks at. */
bool
sa_row_holds_secret(const SaWatch *watch, TupleTableSlot *slot)
{
	return holds_secret(watch, slot);
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

/*
 * How long the session of this row may be idle, as far as the product tells.  What is
 * not positive is over.  Where its end moves with each access, that is the time from
 * the access to the end.
 */
static int64
session_idle_timeout(const SaWatch *watch, TupleTableSlot *slot, TimestampTz last_access_at,
					 TimestampTz now)
{
	const SaColumn *timeout = &watch->columns[SA_ROLE_IDLE_TIMEOUT];
	TimestampTz expires_at;
	int64		result = SA_NO_TIMEOUT;
	int64		number;

	if (read_number(role_text(watch, SA_ROLE_IDLE_TIMEOUT, slot), &number))
	{
		int64		unit = timeout->reading == SA_READING_SECONDS ? USECS_PER_SEC : 1000;

		if (number <= IDLE_TIMEOUT_MAX / unit)
			result = number * unit;
	}
	else if (!SA_HAS(watch, SA_ROLE_IDLE_TIMEOUT) &&
			 role_time(watch, SA_ROLE_EXPIRES_AT, slot, &expires_at) &&
			 expires_at - last_access_at <= IDLE_TIMEOUT_MAX)
		result = expires_at - last_access_at;

	if (role_time(watch, SA_ROLE_EXPIRES_AT, slot, &expires_at) ?
		expires_at <= now : result != SA_NO_TIMEOUT && last_access_at <= now - result)
		return 0;

	/* of touches by other backends, the row may not tell yet */
	if (result != SA_NO_TIMEOUT && !sa_live_enabled())
		result += Min(sa_touch_interval * USECS_PER_SEC, result / 2);
	return result;
}

/* Read which session this row is, and its times; false if it is none. */
static bool
read_session(SaCaptured *captured, TupleTableSlot *slot, SaSessionRow *row)
{
	const SaWatch *watch = captured->watch;
	TimestampTz now = GetCurrentTimestamp();
	char	   *id = role_text(watch, SA_ROLE_SECRET, slot);

	memset(row, 0, sizeof(*row));
	if (id == NULL || *id == '\0' || !holds_secret(watch, slot))
		return false;
	sa_sha256(id, strlen(id), row->id.hash);
	explicit_bzero(id, strlen(id));

	if (!role_time(watch, SA_ROLE_CREATED_AT, slot, &row->created_at) || row->created_at > now)
		row->created_at = now;
	if (!role_time(watch, SA_ROLE_USED_AT, slot, &row->last_access_at))
		row->last_access_at = now;
	row->idle_timeout = session_idle_timeout(watch, slot, row->last_access_at, now);

	/* a product's clock that is late must not end its sessions earlier */
	if (!captured->backfill || row->last_access_at > now)
		row->last_access_at = now;
	return true;
}

/*
 * Add a session that is not over, with the rest of what its row tells.  Before, it had
 * this id and user.
 */
static void
add_session(SaCaptured *captured, TupleTableSlot *slot, const SaSessionRow *row,
			const SaSessionId *old_id, const char *old_user)
{
	const SaWatch *watch = captured->watch;
	MemoryContext old = MemoryContextSwitchTo(captured->context);
	SaSessionRow *added = palloc(sizeof(SaSessionRow));
	char	   *id = role_text(watch, SA_ROLE_SECRET, slot);

	*added = *row;
	sa_session_id_from_datum(CStringGetTextDatum(id), TEXTOID, &added->id);
	added->secret = id;
	added->old_id = old_id ? *old_id : added->id;
	added->key = role_text(watch, SA_ROLE_KEY, slot);
	added->user = user_of(watch, slot);
	added->logged_in = added->user != NULL && !captured->backfill &&
		(old_user == NULL || strcmp(old_user, added->user) != 0);
	captured->session_rows = lappend(captured->session_rows, added);
	MemoryContextSwitchTo(old);
}

static void
add_ended_session(SaCaptured *captured, SaValues *values, const SaSessionId *id)
{
	MemoryContext old = MemoryContextSwitchTo(captured->context);
	Datum		hash = PointerGetDatum(sa_bytea(id->hash, SA_HASH_LEN));

	MemoryContextSwitchTo(old);
	sa_captured_add(captured, values, hash, false);
}

/* Is it the same user's?  Of JSON, most changes are elsewhere in it. */
static bool
same_user(const SaWatch *watch, TupleTableSlot *old, TupleTableSlot *new)
{
	char	   *old_user;
	char	   *new_user;

	if (role_unchanged(watch, SA_ROLE_USER_NAME, old, new) &&
		role_unchanged(watch, SA_ROLE_USER_KEY, old, new))
		return true;
	old_user = user_of(watch, old);
	new_user = user_of(watch, new);
	return old_user && new_user ? strcmp(old_user, new_user) == 0 : old_user == new_user;
}

static void
session_inserted(SaCaptured *captured, TupleTableSlot *slot)
{
	SaSessionRow row;

	/* what somebody makes of a row that we delete is no login */
	if (captured->forgetting != NULL || !read_session(captured, slot, &row))
		return;
	if (row.idle_timeout > 0)
		add_session(captured, slot, &row, NULL, NULL);
	else if (captured->reconciling)
		add_ended_session(captured, &captured->session_expired, &row.id);
}

static void
session_deleted(SaCaptured *captured, TupleTableSlot *slot)
{
	SaSessionRow row;

	/* which session it was cannot be told any more */
	if (captured->watch->broken)
		sa_captured_unclear(captured, user_of(captured->watch, slot));

	/* who ends sessions does the rest */
	if (captured->forgetting == NULL && read_session(captured, slot, &row))
		add_ended_session(captured, row.idle_timeout > 0 ? &captured->session_closed :
						  &captured->session_expired, &row.id);
}

/*
 * A row that was written: on many requests, with nothing new in it but times.  These
 * only count, as touch_session does.
 */
static void
session_updated(SaCaptured *captured, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = captured->watch;
	bool		same_id = role_unchanged(watch, SA_ROLE_SECRET, old, new);
	SaApplication application;
	SaSessionRow old_row;
	SaSessionRow row;

	/* nor is it a use */
	if (captured->forgetting != NULL)
		return;
	if (is_excluded(watch, old) || is_excluded(watch, new))
	{
		captured->rows++;
		sa_row_deleted(captured, old);
		sa_row_inserted(captured, new);
		return;
	}
	if (!read_session(captured, new, &row))
	{
		if (watch->broken)
			return;
		captured->rows++;
		session_deleted(captured, old);
		return;
	}

	if (same_id && row.idle_timeout > 0 && same_user(watch, old, new) &&
		role_unchanged(watch, SA_ROLE_KEY, old, new) &&
		sa_application_find(watch->application, &application) &&
		sa_session_touch(row.id.hash, &application, 1, row.idle_timeout))
		return;

	captured->rows++;
	if (same_id || !read_session(captured, old, &old_row))
		old_row = row;
	if (row.idle_timeout == 0)
	{
		add_ended_session(captured, &captured->session_closed, &old_row.id);
		return;
	}
	add_session(captured, new, &row, same_id ? NULL : &old_row.id, user_of(watch, old));
}

/* A row that is new, or that is there when we come. */
void
sa_row_inserted(SaCaptured *captured, TupleTableSlot *slot)
{
	const SaWatch *watch = captured->watch;
	char	   *name;

	if (is_excluded(watch, slot))
		return;

	switch (watch->part)
	{
		case SA_PART_ACCOUNT:
		case SA_PART_IDENTITY:
			name = user_name_of(watch, slot);
			if (name == NULL)
			{
				if (!SA_HAS(watch, SA_ROLE_USER_NAME))
					sa_captured_unclear(captured, NULL);
				return;
			}
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
			if (!captured->backfill && holds_secret(watch, slot))
				add_token(captured, slot, "remember_me_issued");
			break;
		case SA_PART_SESSION:
			session_inserted(captured, slot);
			break;
	}
}

/* A row that is gone. */
void
sa_row_deleted(SaCaptured *captured, TupleTableSlot *slot)
{
	if (is_excluded(captured->watch, slot))
		return;

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
			if (holds_secret(captured->watch, slot))
				add_token(captured, slot, "remember_me_revoked");
			break;
		case SA_PART_SESSION:
			session_deleted(captured, slot);
			break;
		case SA_PART_ATTRIBUTE:
		case SA_PART_LOGIN:
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

	if (!SA_HAS(watch, SA_ROLE_USER_NAME))
	{
		if (!role_unchanged(watch, SA_ROLE_CREDENTIAL, old, new) ||
			!role_unchanged(watch, SA_ROLE_ACTIVE, old, new) ||
			!role_unchanged(watch, SA_ROLE_LOCKED_AT, old, new) ||
			!role_unchanged(watch, SA_ROLE_DELETED_AT, old, new))
			sa_captured_unclear(captured, NULL);
		return;
	}
	if (new_name == NULL)
	{
		sa_row_deleted(captured, old);
		return;
	}
	if (old_name == NULL)
	{
		sa_row_inserted(captured, new);
		return;
	}

	add_renamed(captured, old_name, new_name, role_text(watch, SA_ROLE_KEY, old));
	if (old_other != NULL && strcmp(old_other, old_name) != 0)
		add_renamed(captured, old_other, new_other ? new_other : new_name, NULL);

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

/* A row of a remember-me token: rotated, or marked as used; or one column of many. */
static void
token_updated(SaCaptured *captured, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = captured->watch;
	bool		was_set = holds_secret(watch, old);
	bool		is_set = holds_secret(watch, new);

	if (role_unchanged(watch, SA_ROLE_SECRET, old, new) &&
		role_unchanged(watch, SA_ROLE_USED_AT, old, new))
		return;
	if (was_set && is_set)
		add_token(captured, new, "remember_me_used");
	else if (is_set)
		add_token(captured, new, "remember_me_issued");
	else if (was_set)
		add_token(captured, old, "remember_me_revoked");
}

/* A row that was written, perhaps with nothing new in it. */
void
sa_row_updated(SaCaptured *captured, TupleTableSlot *old, TupleTableSlot *new)
{
	const SaWatch *watch = captured->watch;
	bool		unchanged = true;

	if (watch->part == SA_PART_SESSION)
	{
		session_updated(captured, old, new);
		return;
	}

	if (watch->broken && !others_unchanged(watch, old, new))
		sa_captured_unclear(captured, user_name_of(watch, old));

	for (SaRole role = 0; role < SA_NROLES && unchanged; role++)
		unchanged = role_unchanged(watch, role, old, new);
	if (unchanged)
		return;

	captured->rows++;
	if (is_excluded(watch, old) || is_excluded(watch, new))
	{
		sa_row_deleted(captured, old);
		sa_row_inserted(captured, new);
		return;
	}
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
			token_updated(captured, old, new);
			break;
		case SA_PART_SESSION:
			break;
	}
}
