/*
 * series.c
 *	  A series of remember-me tokens: finds, locks and reads it.
 */
#include "session/series.h"
#include "ending/ending.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

/*
 * Whose is this series?  Read without a lock, to know which account to lock.
 */
char *
sa_series_user(const char *application, const char *series)
{
	static SaStatement find = {.sql =
		"SELECT user_name FROM session_admin.remember_me_token"
		" WHERE series = $1 AND application = $2"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, series);
	sa_arg_text(&args, application);
	return sa_run(&find, &args) == 0 ? NULL : sa_result_text(0, 1);
}

/*
 * Lock the account of a series' user; the user's name, or NULL if there is no
 * such series
 *
 * The name may change while we wait for the lock, so look again after it.
 */
char *
sa_series_lock_user(const char *application, const char *series)
{
	char	   *user_name = sa_series_user(application, series);

	while (user_name != NULL)
	{
		char	   *now_of;

		CHECK_FOR_INTERRUPTS();
		if (!sa_account_lock(application, user_name))
			sa_account_ensure(application, user_name);
		now_of = sa_series_user(application, series);
		if (now_of == NULL || strcmp(now_of, user_name) == 0)
			return now_of;
		user_name = now_of;
	}
	return NULL;
}

static void
series_copy_bytes(int column, uint8 *buffer, int length, bool *isnull)
{
	Datum		value = sa_result(0, column, isnull);

	if (!*isnull)
	{
		bytea	   *bytes = DatumGetByteaPP(value);

		/* a constraint of the table, except for the salt */
		if ((int) VARSIZE_ANY_EXHDR(bytes) != length)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("remember-me series has a value of the wrong length")));
		memcpy(buffer, VARDATA_ANY(bytes), length);
	}
}

/*
 * Lock a series and read it; false if there is none
 *
 * The application's generation is read here and not from the cache of
 * policies: it decides whether a token that was ended is honoured.
 */
bool
sa_series_lock(const char *application, const char *series_name, SaSeries *series)
{
	static SaStatement lock = {.sql =
		"SELECT t.user_name, t.generation = a.generation, t.validator_hash,"
		" t.parent_hash, t.salt, t.rotated_at, t.created_at"
		" FROM session_admin.remember_me_token t"
		" JOIN session_admin_internal.application_state a ON a.name = t.application"
		" WHERE t.series = $1 AND t.application = $2"
		"  AND NOT " SA_TOKEN_ENDED_LATE("t")
		" FOR NO KEY UPDATE OF t"
	};
	SaArgs		args = {0};
	bool		isnull;
	bool		no_parent;
	bool		no_salt;
	bool		no_rotation;

	sa_arg_text(&args, series_name);
	sa_arg_text(&args, application);
	if (sa_run(&lock, &args) == 0)
		return false;

	series->user_name = sa_result_text(0, 1);
	series->live = DatumGetBool(sa_result(0, 2, &isnull));
	series_copy_bytes(3, series->current_hash, SA_HASH_LEN, &isnull);
	series_copy_bytes(4, series->parent_hash, SA_HASH_LEN, &no_parent);
	series_copy_bytes(5, series->salt, SALT_LEN, &no_salt);
	series->rotated_at = DatumGetTimestampTz(sa_result(0, 6, &no_rotation));
	series->has_parent = !no_parent && !no_salt && !no_rotation;
	series->created_at = DatumGetTimestampTz(sa_result(0, 7, &isnull));
	return true;
}

/*
 * Tell what a shown validator is to its series
 *
 * The index on ancestors compares hashes byte by byte.  What its timing could
 * tell is a prefix of the SHA-256 of a validator that is worth nothing any more.
 */
SaShown
sa_series_classify(const char *application, const char *series_name, const SaSeries *series,
				   const uint8 *hash)
{
	static SaStatement find = {.sql =
		"SELECT FROM session_admin_internal.remember_me_ancestor"
		" WHERE series = $1 AND application = $2 AND validator_hash = $3"
	};
	SaArgs		args = {0};

	if (timingsafe_bcmp(hash, series->current_hash, SA_HASH_LEN) == 0)
		return SHOWN_CURRENT;
	if (series->has_parent &&
		timingsafe_bcmp(hash, series->parent_hash, SA_HASH_LEN) == 0)
		return SHOWN_PARENT;

	sa_arg_text(&args, series_name);
	sa_arg_text(&args, application);
	sa_arg_hash(&args, hash);
	return sa_run(&find, &args) > 0 ? SHOWN_ANCESTOR : SHOWN_STRANGER;
}
