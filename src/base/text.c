/*
 * text.c
 *	  Text arguments: what the application names is checked, what comes from the
 *	  internet is cut and kept as harmless text.
 */
#include "base/base.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"

/* The reasons for which a session ends; beside them anything after "custom:". */
static const char *const reasons[] = {
	"logout", "renewed", "replaced", "idle_timeout", "absolute_timeout",
	"session_limit", "admin", "password_changed", "user_deleted",
	"user_deactivated", "user_anonymized", "user_renamed", "token_theft",
	"token_revoked", "sso_logout", "restored"
};

#define CUSTOM_REASON "custom:"

/* The argument as a C string, NULL if it is null. */
char *
sa_text_or_null(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return NULL;
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/* Are the bytes 0x80 to 0x9f the control characters C1, as in the parts of ISO 8859? */
static bool
text_has_c1_bytes(int encoding)
{
	switch (encoding)
	{
		case PG_LATIN1:
		case PG_LATIN2:
		case PG_LATIN3:
		case PG_LATIN4:
		case PG_LATIN5:
		case PG_LATIN6:
		case PG_LATIN7:
		case PG_LATIN8:
		case PG_LATIN9:
		case PG_LATIN10:
		case PG_ISO_8859_5:
		case PG_ISO_8859_6:
		case PG_ISO_8859_7:
		case PG_ISO_8859_8:
			return true;
		default:
			return false;
	}
}

/*
 * How many bytes has the control character (C0, DEL or C1) here? 0: it is none. Text in a
 * database in SQL_ASCII is taken for UTF-8.
 */
static inline int
text_control_character(const char *c)
{
	unsigned char byte = (unsigned char) c[0];
	unsigned char next = (unsigned char) c[1];
	int			encoding = GetDatabaseEncoding();

	if (byte < 0x20 || byte == 0x7f)
		return 1;
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return byte == 0xc2 && next >= 0x80 && next < 0xa0 ? 2 : 0;
	return byte >= 0x80 && byte < 0xa0 && text_has_c1_bytes(encoding) ? 1 : 0;
}

/*
 * Cut to max_bytes, at the end of a character, and replace control characters
 * by blanks: no newline or terminal escape gets from a header into a log or onto
 * a screen.  In a database that takes any bytes, only characters are kept.
 */
char *
sa_clean(const char *value, int length, int max_bytes)
{
	char	   *result;

	if (GetDatabaseEncoding() == PG_SQL_ASCII)
		result = sa_valid_utf8(value, length, max_bytes);
	else
	{
		if (length > max_bytes)
			length = pg_mbcliplen(value, length, max_bytes);
		result = pnstrdup(value, length);
	}
	for (char *c = result; *c; c++)
	{
		int			bytes = text_control_character(c);

		if (bytes > 0)
		{
			memset(c, ' ', bytes);
			c += bytes - 1;
		}
	}
	return result;
}

/* The argument made harmless, NULL if it is null. */
char *
sa_cleaned_or_null(FunctionCallInfo fcinfo, int argno, int max_bytes)
{
	text	   *value;
	char	   *result;

	if (PG_ARGISNULL(argno))
		return NULL;

	/* a slice is enough, however long a header somebody sends */
	value = DatumGetTextPSlice(PG_GETARG_DATUM(argno), 0, max_bytes + MAX_MULTIBYTE_CHAR_LEN);
	result = sa_clean(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), max_bytes);
	return result;
}

/* Refuse what cannot be the name of a user. */
void
sa_check_user_name(const char *user_name)
{
	if (user_name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("user name must not be empty"),
				 errhint("Use NULL for an anonymous session.")));
	if (strlen(user_name) > SA_USER_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("user name is longer than %d bytes", SA_USER_NAME_MAX)));
}

/* The argument as the name of a user; null is an error. */
char *
sa_user_name_arg(FunctionCallInfo fcinfo, int argno)
{
	char	   *user_name = sa_text_or_null(fcinfo, argno);

	if (user_name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("user name must not be null")));
	sa_check_user_name(user_name);
	return user_name;
}

/* The argument as the name of an application; null is session_admin.application. */
char *
sa_application_arg(FunctionCallInfo fcinfo, int argno)
{
	char	   *application = sa_text_or_null(fcinfo, argno);

	if (application == NULL)
		application = pstrdup(sa_application);
	if (application[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of application must not be empty"),
				 errhint("Give it in the call or set session_admin.application.")));
	if (strlen(application) > SA_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of application is longer than %d bytes", SA_NAME_MAX)));
	sa_check_printable("name of application", application);
	return application;
}

/* Refuse control characters in a name. */
void
sa_check_printable(const char *what, const char *name)
{
	for (const char *c = name; *c; c++)
	{
		if (text_control_character(c) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s \"%s\" must not have control characters", what,
							sa_clean(name, strlen(name), strlen(name)))));
	}
}

/* Refuse a reason that is not in the list. */
void
sa_check_reason(const char *reason)
{
	StringInfoData list;

	for (size_t i = 0; i < lengthof(reasons); i++)
	{
		if (strcmp(reason, reasons[i]) == 0)
			return;
	}
	if (strncmp(reason, CUSTOM_REASON, strlen(CUSTOM_REASON)) == 0 &&
		reason[strlen(CUSTOM_REASON)] != '\0' &&
		strcmp(reason, sa_clean(reason, strlen(reason), SA_LABEL_MAX)) == 0)
		return;

	initStringInfo(&list);
	for (size_t i = 0; i < lengthof(reasons); i++)
		appendStringInfo(&list, "\"%s\", ", reasons[i]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown reason \"%s\"", sa_clean(reason, strlen(reason), 64)),
			 errhint("Reasons are %sor \"%s\" and a text of your own.", list.data, CUSTOM_REASON)));
}

/* The person behind a change, made harmless; NULL if none is named. */
const char *
sa_actor_or_null(void)
{
	if (sa_actor[0] == '\0')
		return NULL;
	return sa_clean(sa_actor, strlen(sa_actor), SA_LABEL_MAX);
}
