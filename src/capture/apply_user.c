/*
 * apply_user.c
 *	  Users who are deleted, deactivated, renamed, or get another password or key.
 *
 * The same name in several directories is one user.  What ends the user's sessions in one
 * of them ends all, as nobody can tell which directory a session came from; the data moves
 * to a new name only when no other directory has the old one.
 */
#include "capture/apply.h"
#include "live/live.h"
#include "session/session.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "regex/regex.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static const char *const reasons[] = {
	[SA_ENDED_BY_PASSWORD] = "password_changed",
	[SA_ENDED_BY_DEACTIVATION] = "user_deactivated",
	[SA_ENDED_BY_DELETION] = "user_deleted"
};

/* End the sessions of these users for one reason. */
static void
apply_end_users(SaBatch *batch, SaValues *names, const char *reason, const uint8 *keep)
{
	SaEnding	ending = {.reason = reason,.options.caller_notifies = true};
	SaEnded		ended = {0};
	SaFeedRow	row = {.scope = "user", .application = batch->watch->application,
	.session_hash = keep, .reason = reason};
	SaArgs		array = {0};

	if (names->n == 0)
		return;
	ending.at = GetCurrentTimestamp();
	sa_batch_arg(&array, names, TEXTOID);
	sa_end_users(batch->watch->application, DatumGetArrayTypeP(array.values[0]), keep, false,
				 &ending, &ended);
	row.id = ended.id;
	row.user_name = TextDatumGetCString(names->values[0]);
	sa_batch_fed(batch, &row, names->n);
}

/*
 * The user of the session in which a password is changed now, if the application has
 * named it in session_admin.current_session; NULL otherwise. *hash is set.
 */
static char *
apply_user_of_current_session(const char *application, uint8 *hash)
{
	SaSession	session = {0};
	size_t		length = strlen(sa_current_session);

	if (length == 0)
		return NULL;

	sa_sha256(sa_current_session, length, hash);
	if (sa_session_read(hash, application, &session))
		return session.user_name;

	/* the digits of its hash will do as well */
	if (length == SA_HASH_LEN * 2 && strspn(sa_current_session, "0123456789abcdefABCDEF") == length)
	{
		hex_decode(sa_current_session, length, (char *) hash);
		if (sa_session_read(hash, application, &session))
			return session.user_name;
	}
	return NULL;
}

/* End the sessions of the users whom the batch names, once each. */
void
sa_apply_ended(SaBatch *batch)
{
	static SaStatement who_ends = {.sql =
		"SELECT DISTINCT ON (e.name) e.name, e.ended_by"
		" FROM unnest($4::text[], $5::int[], $6::int[]) AS e (name, ended_by, ended_if)"
		" WHERE e.ended_if = 0"
		"  OR e.ended_if = 1 AND EXISTS (SELECT FROM session_admin_internal.account a"
		"    WHERE a.application = $1 AND a.user_name = e.name)"
		"  OR e.ended_if = 2 AND (EXISTS (SELECT FROM session_admin_internal.account_key k"
		"      WHERE k.application = $1 AND k.user_name = e.name AND k.product = $2"
		"        AND k.part = 'account' AND k.gone_at IS NULL)"
		"    OR NOT EXISTS (SELECT FROM session_admin_internal.attachment t"
		"      WHERE t.application = $1 AND t.product = $2 AND t.part = 'account'))"
		" ORDER BY e.name, e.ended_by DESC"
	};
	SaValues	names[lengthof(reasons)] = {{0}};
	SaValues	keeper = {0};
	SaArgs		args = {0};
	uint8		keep[SA_HASH_LEN];
	char	   *current;
	uint64		rows;

	if (batch->ended_name.n == 0)
		return;

	current = apply_user_of_current_session(batch->watch->application, keep);

	sa_batch_arg_keys(&args, batch->watch, SA_PART_ACCOUNT);
	sa_batch_arg(&args, &batch->ended_name, TEXTOID);
	sa_batch_arg(&args, &batch->ended_by, INT4OID);
	sa_batch_arg(&args, &batch->ended_if, INT4OID);
	rows = sa_run(&who_ends, &args);

	for (uint64 i = 0; i < rows; i++)
	{
		char	   *name = sa_result_text(i, 1);
		bool		isnull;
		int			by = DatumGetInt32(sa_result(i, 2, &isnull));
		bool		keeps = by == SA_ENDED_BY_PASSWORD && current && strcmp(current, name) == 0;

		sa_batch_add_text(batch, keeps ? &keeper : &names[by], name);
	}

	apply_end_users(batch, &keeper, reasons[SA_ENDED_BY_PASSWORD], keep);
	for (size_t by = 0; by < lengthof(reasons); by++)
		apply_end_users(batch, &names[by], reasons[by], NULL);
}

/* Is this the name that an anonymized user gets? */
static bool
apply_is_alias(const SaWatch *watch, const char *name)
{
	return watch->alias_pattern != NULL &&
		RE_compile_and_execute(cstring_to_text(watch->alias_pattern),
							   unconstify(char *, name), strlen(name),
							   REG_ADVANCED | REG_NOSUB, C_COLLATION_OID, 0, NULL);
}

/* The prefix of a name that nobody has. */
#define MEANWHILE	"\001session_admin meanwhile "

/* Is the name that the user gets in row i one that a later row takes away? */
static bool
apply_is_given_away_later(const SaBatch *batch, int i)
{
	text	   *to = DatumGetTextPP(batch->renamed_to.values[i]);

	for (int j = i + 1; j < batch->renamed_from.n; j++)
	{
		text	   *from = DatumGetTextPP(batch->renamed_from.values[j]);

		if (VARSIZE_ANY_EXHDR(from) == VARSIZE_ANY_EXHDR(to) &&
			memcmp(VARDATA_ANY(from), VARDATA_ANY(to), VARSIZE_ANY_EXHDR(to)) == 0)
			return true;
	}
	return false;
}

/*
 * Renamed and anonymized users.  A product changes the name in several tables, in any
 * order, perhaps some today and the rest next week: the first change counts, and at the
 * others no account has the old name any more, or the key has the new one.  Two users
 * may swap their names in one statement: a user whose new name is still taken gets one
 * meanwhile that nobody has.
 */
void
sa_apply_renamed(SaBatch *batch)
{
	static SaStatement who_has_the_name = {.sql =
		"SELECT EXISTS (SELECT FROM session_admin_internal.account"
		"    WHERE application = $1 AND user_name = $4)"
		"  AND NOT EXISTS (SELECT FROM session_admin_internal.account_key"
		"    WHERE application = $1 AND product = $2 AND part = $6 AND key = $7"
		"      AND (user_name = $8 OR starts_with(user_name, $9))),"
		" EXISTS (SELECT FROM session_admin_internal.account_key"
		"    WHERE application = $1 AND product = $2 AND part = $3 AND user_name = $4"
		"      AND gone_at IS NULL AND key <> ALL ($5))"
	};
	const SaWatch *watch = batch->watch;
	char	  **meanwhile = palloc0(batch->renamed_from.n * sizeof(char *));

	for (int i = 0; i < batch->renamed_from.n; i++)
	{
		char	   *from = TextDatumGetCString(batch->renamed_from.values[i]);
		char	   *to = TextDatumGetCString(batch->renamed_to.values[i]);
		const char *reason = apply_is_alias(watch, to) ? "user_anonymized" : "user_renamed";
		SaArgs		args = {0};
		bool		isnull;
		bool		known;
		bool		elsewhere;

		sa_batch_arg_keys(&args, watch, SA_PART_ACCOUNT);
		sa_arg_text(&args, from);
		sa_batch_arg(&args, &batch->key, TEXTOID);
		sa_arg_text(&args, sa_part_names[watch->part]);
		sa_arg(&args, TEXTOID, batch->renamed_key.values[i], batch->renamed_key.nulls[i]);
		sa_arg_text(&args, to);
		sa_arg_text(&args, MEANWHILE);
		sa_run(&who_has_the_name, &args);
		known = DatumGetBool(sa_result(0, 1, &isnull));
		elsewhere = DatumGetBool(sa_result(0, 2, &isnull)) && watch->part == SA_PART_ACCOUNT;

		if (!known)
			continue;
		if (elsewhere)
		{
			SaValues	names = {0};

			sa_batch_add_text(batch, &names, from);
			apply_end_users(batch, &names, reason, NULL);
		}
		else
		{
			SaEnding	ending = {.reason = reason,.options.caller_notifies = true};
			SaEnded		ended = {0};
			SaFeedRow	row = {.scope = "user", .application = watch->application,
			.user_name = from, .reason = reason};

			if (apply_is_given_away_later(batch, i))
				meanwhile[i] = psprintf(MEANWHILE "%d", i);
			sa_user_rename(watch->application, from, meanwhile[i] ? meanwhile[i] : to, &ending, &ended);
			row.id = ended.id;
			sa_batch_fed(batch, &row, 1);
		}
	}

	for (int i = 0; i < batch->renamed_from.n; i++)
	{
		char	   *to = TextDatumGetCString(batch->renamed_to.values[i]);

		if (meanwhile[i] != NULL)
			sa_user_move(watch->application, meanwhile[i], to, apply_is_alias(watch, to));
	}
}

/*
 * The keys of an anonymized user that are gone may tell the old name.  They are not needed
 * any more once the product's remember-me rows are deleted.
 */
static void
apply_drop_old_keys(SaBatch *batch, const SaValues *names)
{
	static SaStatement delete_keys = {.sql =
		"DELETE FROM session_admin_internal.account_key"
		" WHERE application = $1 AND user_name = $2 AND gone_at IS NOT NULL"
	};

	for (int i = 0; i < names->n; i++)
	{
		char	   *name = TextDatumGetCString(names->values[i]);
		SaArgs		args = {0};

		if (!apply_is_alias(batch->watch, name))
			continue;
		sa_arg_text(&args, batch->watch->application);
		sa_arg_text(&args, name);
		sa_run(&delete_keys, &args);
	}
}

/* Keep the copy of the product's keys. */
void
sa_apply_keys(SaBatch *batch)
{
	static SaStatement keys_gone = {.sql =
		"UPDATE session_admin_internal.account_key SET gone_at = clock_timestamp()"
		" WHERE application = $1 AND product = $2 AND part = $3 AND key = ANY ($4)"
		"  AND gone_at IS NULL"
	};
	static SaStatement set_keys = {.sql =
		"INSERT INTO session_admin_internal.account_key AS k (application, product, part, key, user_name)"
		" SELECT DISTINCT ON (n.key) $1, $2, $3, n.key, n.user_name"
		" FROM unnest($4::text[], $5::text[]) WITH ORDINALITY AS n (key, user_name, n)"
		" ORDER BY n.key, n.n DESC"
		" ON CONFLICT (application, product, part, key)"
		" DO UPDATE SET user_name = excluded.user_name, gone_at = NULL"
		" WHERE k.user_name <> excluded.user_name OR k.gone_at IS NOT NULL"
	};

	if (batch->key_gone.n > 0)
	{
		SaArgs		args = {0};

		sa_batch_arg_keys(&args, batch->watch, batch->watch->part);
		sa_batch_arg(&args, &batch->key_gone, TEXTOID);
		sa_run(&keys_gone, &args);
	}
	if (batch->key.n > 0)
	{
		SaArgs		args = {0};

		sa_batch_arg_keys(&args, batch->watch, batch->watch->part);
		sa_batch_arg(&args, &batch->key, TEXTOID);
		sa_batch_arg(&args, &batch->key_user, TEXTOID);
		sa_run(&set_keys, &args);
	}
	if (batch->renamed_to.n > 0 || batch->key_gone.n > 0)
	{
		apply_drop_old_keys(batch, &batch->renamed_to);
		apply_drop_old_keys(batch, &batch->key_user);
	}
}

/* All users of a part are gone, and nobody knows who they were. */
void
sa_apply_truncated_users(SaBatch *batch)
{
	static SaStatement is_anybody_left = {.sql =
		"SELECT EXISTS (SELECT FROM session_admin_internal.account_key"
		"    WHERE application = $1 AND product = $2 AND part = $3 AND gone_at IS NULL)"
		" OR NOT EXISTS (SELECT FROM session_admin_internal.attachment"
		"    WHERE application = $1 AND product = $2 AND part = $3)"
	};
	static SaStatement all_keys_gone = {.sql =
		"UPDATE session_admin_internal.account_key SET gone_at = clock_timestamp()"
		" WHERE application = $1 AND product = $2 AND part = $3 AND gone_at IS NULL"
	};
	const SaWatch *watch = batch->watch;
	SaEnding	ending = {.reason = reasons[SA_ENDED_BY_DELETION], .at = GetCurrentTimestamp()};
	SaArgs		account_args = {0};
	SaArgs		args = {0};
	bool		isnull;

	/* identities without accounts are those of users deleted before */
	sa_batch_arg_keys(&account_args, watch, SA_PART_ACCOUNT);
	sa_run(&is_anybody_left, &account_args);
	if (watch->part == SA_PART_ACCOUNT || DatumGetBool(sa_result(0, 1, &isnull)))
		sa_end_generation(watch->application, &ending, NULL);
	sa_batch_arg_keys(&args, watch, watch->part);
	sa_run(&all_keys_gone, &args);
}
