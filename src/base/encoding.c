/*
 * encoding.c
 *	  Text in the encodings of the database, of the client, and of neither.
 *
 * A database in SQL_ASCII keeps any bytes, and a client in another encoding than the
 * database's cannot be shown every character.  What cannot be shown makes the client's
 * whole statement fail: a hostile user agent must not be able to cause that, nor stop a
 * node.
 */
#include "base/base.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"

/* Is it the same in all encodings of clients and databases? */
static bool
encoding_is_ascii(const char *value)
{
	for (const char *c = value; *c; c++)
	{
		if (IS_HIGHBIT_SET(*c))
			return false;
	}
	return true;
}

/* The value in another encoding, NULL if it has no equivalent there. */
static char *
encoding_converted(const char *value, int from, int to)
{
	int			length = strlen(value);
	int			size = length * MAX_CONVERSION_GROWTH + MAX_CONVERSION_INPUT_LENGTH;
	Oid			proc = FindDefaultConversionProc(from, to);
	char	   *result;

	if (!OidIsValid(proc))
		return NULL;
	result = palloc(size);
	if (pg_do_encoding_conversion_buf(proc, from, to, (unsigned char *) unconstify(char *, value),
									  length, (unsigned char *) result, size, true) < length)
		return NULL;
	return result;
}

/* Can the client be sent this text? */
bool
sa_is_shown(const char *value)
{
	int			database = GetDatabaseEncoding();
	int			client = pg_get_client_encoding();

	if (client == database || client == PG_SQL_ASCII || encoding_is_ascii(value))
		return true;
	if (database == PG_SQL_ASCII)
		return pg_verify_mbstr(client, value, strlen(value), true);
	return encoding_converted(value, database, client) != NULL;
}

/* The text as the client can be shown it: what it cannot is '?' */
char *
sa_shown(const char *value)
{
	StringInfoData result;

	if (sa_is_shown(value))
		return pstrdup(value);
	if (GetDatabaseEncoding() == PG_SQL_ASCII && pg_get_client_encoding() == PG_UTF8)
		return sa_valid_utf8(value, strlen(value), strlen(value));
	initStringInfo(&result);
	for (const char *c = value; *c;)
	{
		char	   *character = pnstrdup(c, pg_mblen(c));

		appendStringInfoString(&result, sa_is_shown(character) ? character : "?");
		c += strlen(character);
		pfree(character);
	}
	return result.data;
}

/*
 * Append it as a string of JSON in ASCII, which can be sent to clients of all encodings;
 * false if it is not known which characters it has.
 */
bool
sa_append_json(StringInfo json, const char *value)
{
	int			database = GetDatabaseEncoding();
	const char *utf8 = value;

	if (database == PG_SQL_ASCII)
	{
		if (!pg_verify_mbstr(PG_UTF8, value, strlen(value), true))
			return false;
	}
	else if (database != PG_UTF8 && !encoding_is_ascii(value))
	{
		utf8 = encoding_converted(value, database, PG_UTF8);
		if (utf8 == NULL)
			return false;
	}

	appendStringInfoChar(json, '"');
	for (const unsigned char *c = (const unsigned char *) utf8; *c; c += pg_utf_mblen(c))
	{
		pg_wchar	code = utf8_to_unicode(c);

		if (code == '"' || code == '\\')
			appendStringInfo(json, "\\%c", (char) code);
		else if (code >= 0x20 && code < 0x7f)
			appendStringInfoChar(json, (char) code);
		else if (code == '\n')
			appendStringInfoString(json, "\\n");
		else if (code == '\r')
			appendStringInfoString(json, "\\r");
		else if (code == '\t')
			appendStringInfoString(json, "\\t");
		else if (code < 0x10000)
			appendStringInfo(json, "\\u%04x", code);
		else
			appendStringInfo(json, "\\u%04x\\u%04x",
							 0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
	}
	appendStringInfoChar(json, '"');
	return true;
}

/*
 * Of text that a client sent to a database in SQL_ASCII: valid UTF-8, up to max_bytes,
 * cut at the end of a character.  A byte that is of none is '?'.
 */
char *
sa_valid_utf8(const char *value, int length, int max_bytes)
{
	char	   *result = palloc(Min(length, max_bytes) + 1);
	int			n = 0;

	for (int i = 0; i < length && value[i] != '\0';)
	{
		const unsigned char *c = (const unsigned char *) value + i;
		int			bytes = pg_utf_mblen(c);
		bool		legal = bytes <= length - i && pg_utf8_islegal(c, bytes);

		if (!legal)
			bytes = 1;
		if (n + bytes > max_bytes)
			break;
		if (legal)
			memcpy(result + n, c, bytes);
		else
			result[n] = '?';
		n += bytes;
		i += bytes;
	}
	result[n] = '\0';
	return result;
}
