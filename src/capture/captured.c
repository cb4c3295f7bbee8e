/*
 * captured.c
 *	  What follows of the rows that a statement changed in a product's tables.
 *
 * capture.c reads the rows and lists what they tell; here each list is applied
 * by one statement for all of them, to the extension's own tables only.  The
 * order matters: sessions end while the old keys still lead to the old names.
 *
 * The same name in several directories is one user.  A password that changes in
 * any of them ends the user's sessions, and so does a deletion or deactivation
 * in any, even if the user may still log in by another: nobody can tell which
 * directory a session came from, and logging in again is cheaper than a session
 * that goes on without leave.  The data moves to a new name only when no other
 * directory has the old one.
 */
#include "capture/capture.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "regex/regex.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

static const char *const reasons[] = {
	[SA_ENDED_BY_PASSWORD] = "password_changed",
	[SA_ENDED_BY_DEACTIVATION] = "user_deactivated",
	[SA_ENDED_BY_DELETION] = "user_deleted"
};

/* Start with nothing. */
void
sa_captured_begin(SaCaptured *captured, const SaWatch *watch)
{
	memset(captured, 0, sizeof(*captured));
	captured->context = AllocSetContextCreate(CurrentMemoryContext, "session_admin capture",
											  ALLOCSET_DEFAULT_SIZES);
	captured->watch = watch;
}

/* Add one value, which must live as long as the batch. */
void
sa_captured_add(SaCaptured *captured, SaValues *values, Datum value, bool isnull)
{
	if (values->n == values->allocated)
	{
		int			allocated = values->allocated ? values->allocated * 2 : 16;

		if (values->allocated == 0)
		{
			values->values = MemoryContextAlloc(captured->context, allocated * sizeof(Datum));
			values->nulls = MemoryContextAlloc(captured->context, allocated * sizeof(bool));
		}
		else
		{
			values->values = repalloc(values->values, allocated * sizeof(Datum));
			values->nulls = repalloc(values->nulls, allocated * sizeof(bool));
		}
		values->allocated = allocated;
	}
	values->values[values->n] = value;
	values->nulls[values->n] = isnull;
	values->n++;
}

/* Add one text; NULL is null. */
void
sa_captured_add_text(SaCaptured *captured, SaValues *values, const char *value)
{
	MemoryContext old = MemoryContextSwitchTo(captured->context);
	Datum		datum = value ? CStringGetTextDatum(value) : (Datum) 0;

	MemoryContextSwitchTo(old);
	sa_captured_add(captured, values, datum, value == NULL);
}

/* Are logins left out, as the application tells of them itself? */
bool
sa_captured_ignores_logins(const SaCaptured *captured)
{
	SaApplication application;

	return !captured->backfill &&
		sa_application_find(captured->watch->application, &application) &&
		application.captured_logins == SA_IGNORE;
}

/* What became of this user is not understood; NULL: nobody knows of whom. */
void
sa_captured_unclear(SaCaptured *captured, const char *user_name)
{
	MemoryContext context = MemoryContextGetParent(captured->context);

	captured->unclear = true;
	if (user_name == NULL)
		captured->unclear_whom = true;
	else
		captured->unclear_users = accumArrayResult(captured->unclear_users,
												   CStringGetTextDatum(user_name), false,
												   TEXTOID, context);
}

/* Add the values as an argument, an array of this type. */
void
sa_captured_arg(SaArgs *args, const SaValues *values, Oid element)
{
	int			lower = 1;
	int16		length;
	bool		byval;
	char		align;
	ArrayType  *array;

	get_typlenbyvalalign(element, &length, &byval, &align);
	if (values->n == 0)
		array = construct_empty_array(element);
	else
		array = construct_md_array(values->values, values->nulls, 1, (int *) &values->n, &lower,
								   element, length, byval, align);
	sa_arg(args, get_array_type(element), PointerGetDatum(array), false);
}

/* The application, the product and the name of a part: what a key belongs to. */
static void
arg_key_space(SaArgs *args, const SaWatch *watch, SaPart part)
{
	sa_arg_text(args, watch->application);
	sa_arg_text(args, watch->product);
	sa_arg_text(args, sa_part_names[part]);
}

/* Remember what was written to the feed, to tell of it once at the end. */
static void
note_feed(SaCaptured *captured, const SaFeedRow *row, int64 rows)
{
	MemoryContext old = MemoryContextSwitchTo(MemoryContextGetParent(captured->context));

	captured->fed += rows;
	captured->feed_row = *row;
	if (row->user_name)
		captured->feed_row.user_name = pstrdup(row->user_name);
	if (row->session_hash)
		captured->feed_row.session_hash = memcpy(palloc(SA_HASH_LEN), row->session_hash, SA_HASH_LEN);
	MemoryContextSwitchTo(old);
}

/* End the sessions of these users for one reason. */
static void
end_users(SaCaptured *captured, SaValues *names, const char *reason, const uint8 *keep)
{
	SaEnding	ending = {.reason = reason, .caller_notifies = true};
	SaFeedRow	row = {.scope = "user", .application = captured->watch->application,
	.session_hash = keep, .reason = reason};
	SaArgs		array = {0};

	if (names->n == 0)
		return;
	ending.at = GetCurrentTimestamp();
	sa_captured_arg(&array, names, TEXTOID);
	sa_end_users(captured->watch->application, DatumGetArrayTypeP(array.values[0]), keep, false,
				 &ending);
	row.id = ending.id;
	row.user_name = TextDatumGetCString(names->values[0]);
	note_feed(captured, &row, names->n);
}

/*
 * The session in which its user now changes the own password, if the application
 * has named it in session_admin.current_session; NULL otherwise.  *hash is set.
 */
static char *
user_of_current_session(const char *application, uint8 *hash)
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

/* End the sessions of all users that the batch says so of, once each. */
static void
flush_ended(SaCaptured *captured)
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

	if (captured->ended_name.n == 0)
		return;

	current = user_of_current_session(captured->watch->application, keep);

	arg_key_space(&args, captured->watch, SA_PART_ACCOUNT);
	sa_captured_arg(&args, &captured->ended_name, TEXTOID);
	sa_captured_arg(&args, &captured->ended_by, INT4OID);
	sa_captured_arg(&args, &captured->ended_if, INT4OID);
	rows = sa_run(&who_ends, &args);

	for (uint64 i = 0; i < rows; i++)
	{
		char	   *name = sa_result_text(i, 1);
		bool		isnull;
		int			by = DatumGetInt32(sa_result(i, 2, &isnull));
		bool		keeps = by == SA_ENDED_BY_PASSWORD && current && strcmp(current, name) == 0;

		sa_captured_add_text(captured, keeps ? &keeper : &names[by], name);
	}

	end_users(captured, &keeper, reasons[SA_ENDED_BY_PASSWORD], keep);
	for (size_t by = 0; by < lengthof(reasons); by++)
		end_users(captured, &names[by], reasons[by], NULL);
}

/* Is this the name that an anonymized user gets? */
static bool
is_alias(const SaWatch *watch, const char *name)
{
	return watch->alias_pattern != NULL &&
		RE_compile_and_execute(cstring_to_text(watch->alias_pattern),
							   unconstify(char *, name), strlen(name),
							   REG_ADVANCED | REG_NOSUB, C_COLLATION_OID, 0, NULL);
}

/* Starts a name that nobody has. */
#define MEANWHILE	"\001session_admin meanwhile "

/* Is the name that the user gets in row i one that a later row takes away? */
static bool
is_given_away_later(const SaCaptured *captured, int i)
{
	text	   *to = DatumGetTextPP(captured->renamed_to.values[i]);

	for (int j = i + 1; j < captured->renamed_from.n; j++)
	{
		text	   *from = DatumGetTextPP(captured->renamed_from.values[j]);

		if (VARSIZE_ANY_EXHDR(from) == VARSIZE_ANY_EXHDR(to) &&
			memcmp(VARDATA_ANY(from), VARDATA_ANY(to), VARSIZE_ANY_EXHDR(to)) == 0)
			return true;
	}
	return false;
}

/*
 * Renamed and anonymized users.  A product changes the name in several tables,
 * in any order, perhaps half way today and the rest next week: whichever comes
 * first counts, and for the others no account has the old name any more, or the
 * key has the new one.
 *
 * Two users may swap their names in one statement.  Who gets a name that is still
 * another's has one meanwhile that nobody has.
 */
static void
flush_renamed(SaCaptured *captured)
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
	const SaWatch *watch = captured->watch;
	char	  **meanwhile = palloc0(captured->renamed_from.n * sizeof(char *));

	for (int i = 0; i < captured->renamed_from.n; i++)
	{
		char	   *from = TextDatumGetCString(captured->renamed_from.values[i]);
		char	   *to = TextDatumGetCString(captured->renamed_to.values[i]);
		const char *reason = is_alias(watch, to) ? "user_anonymized" : "user_renamed";
		SaArgs		args = {0};
		bool		isnull;
		bool		known;
		bool		elsewhere;

		arg_key_space(&args, watch, SA_PART_ACCOUNT);
		sa_arg_text(&args, from);
		sa_captured_arg(&args, &captured->key, TEXTOID);
		sa_arg_text(&args, sa_part_names[watch->part]);
		sa_arg(&args, TEXTOID, captured->renamed_key.values[i], captured->renamed_key.nulls[i]);
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

			sa_captured_add_text(captured, &names, from);
			end_users(captured, &names, reason, NULL);
		}
		else
		{
			SaEnding	ending = {.caller_notifies = true};
			SaFeedRow	row = {.scope = "user", .application = watch->application,
			.user_name = from, .reason = reason};

			if (is_given_away_later(captured, i))
				meanwhile[i] = psprintf(MEANWHILE "%d", i);
			sa_user_rename(watch->application, from, meanwhile[i] ? meanwhile[i] : to, reason, &ending);
			row.id = ending.id;
			note_feed(captured, &row, 1);
		}
	}

	for (int i = 0; i < captured->renamed_from.n; i++)
	{
		char	   *to = TextDatumGetCString(captured->renamed_to.values[i]);

		if (meanwhile[i] != NULL)
			sa_user_move(watch->application, meanwhile[i], to, is_alias(watch, to));
	}
}

/* Keep the copy of the product's keys. */
static void
flush_keys(SaCaptured *captured)
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

	if (captured->key_gone.n > 0)
	{
		SaArgs		args = {0};

		arg_key_space(&args, captured->watch, captured->watch->part);
		sa_captured_arg(&args, &captured->key_gone, TEXTOID);
		sa_run(&keys_gone, &args);
	}
	if (captured->key.n > 0)
	{
		SaArgs		args = {0};

		arg_key_space(&args, captured->watch, captured->watch->part);
		sa_captured_arg(&args, &captured->key, TEXTOID);
		sa_captured_arg(&args, &captured->key_user, TEXTOID);
		sa_run(&set_keys, &args);
	}
}

/*
 * Of an anonymized user the keys that are gone may tell the name; they have
 * served once the product's remember-me rows are deleted.
 */
static void
forget_old_keys(SaCaptured *captured, const SaValues *names)
{
	static SaStatement forget_keys = {.sql =
		"DELETE FROM session_admin_internal.account_key"
		" WHERE application = $1 AND user_name = $2 AND gone_at IS NOT NULL"
	};

	for (int i = 0; i < names->n; i++)
	{
		char	   *name = TextDatumGetCString(names->values[i]);
		SaArgs		args = {0};

		if (!is_alias(captured->watch, name))
			continue;
		sa_arg_text(&args, captured->watch->application);
		sa_arg_text(&args, name);
		sa_run(&forget_keys, &args);
	}
}

/* Make the accounts that are not there yet. */
void
sa_captured_make_accounts(SaCaptured *captured, const SaValues *names)
{
	static SaStatement insert_accounts = {.sql =
		"INSERT INTO session_admin_internal.account (application, user_name)"
		" SELECT DISTINCT $1, n.name FROM unnest($2::text[]) AS n (name)"
		" WHERE n.name IS NOT NULL ORDER BY n.name"
		" ON CONFLICT (application, user_name) DO NOTHING"
	};
	SaArgs		args = {0};

	if (names->n == 0)
		return;
	sa_arg_text(&args, captured->watch->application);
	sa_captured_arg(&args, names, TEXTOID);
	sa_run(&insert_accounts, &args);
}

/* Lock the accounts in the order of names, as everybody does. */
void
sa_captured_lock_accounts(SaCaptured *captured, const SaValues *names)
{
	static SaStatement lock = {.sql =
		"SELECT FROM session_admin_internal.account"
		" WHERE application = $1 AND user_name = ANY ($2)"
		" ORDER BY user_name FOR NO KEY UPDATE"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, captured->watch->application);
	sa_captured_arg(&args, names, TEXTOID);
	sa_run(&lock, &args);
}

/* Lock the accounts, or be seen by who has them: see sa_account_enter. */
void
sa_captured_enter_accounts(SaCaptured *captured, const SaValues *names)
{
	ArrayBuildState *left;
	SaBusy		busy = {0};
	SaArgs		args = {0};

	sa_captured_arg(&args, names, TEXTOID);
	sa_accounts_try(captured->watch->application, DatumGetArrayTypeP(args.values[0]), &left, &busy);
	for (int i = 0; left != NULL && i < left->nelems; i++)
		sa_login_announce(captured->watch->application, TextDatumGetCString(left->dvalues[i]));
}

/*
 * Find the users behind these keys; null where nobody is known by the key, or the
 * key itself, if the product is said to use both.
 */
void
sa_captured_resolve(SaCaptured *captured, const SaValues *keys, SaValues *users)
{
	static SaStatement users_of_keys = {.sql =
		"SELECT coalesce((SELECT k.user_name FROM session_admin_internal.account_key k"
		"    WHERE k.application = $1 AND k.product = $2 AND k.part = $3 AND k.key = u.key),"
		"  CASE WHEN $5 THEN u.key END)::text"
		" FROM unnest($4::text[]) WITH ORDINALITY AS u (key, n) ORDER BY u.n"
	};
	const SaWatch *watch = captured->watch;
	SaArgs		args = {0};
	uint64		rows;

	arg_key_space(&args, watch, watch->key_of);
	sa_captured_arg(&args, keys, TEXTOID);
	sa_arg(&args, BOOLOID,
		   BoolGetDatum(watch->columns[SA_ROLE_USER_KEY].reading == SA_READING_KEY_OR_NAME), false);
	rows = sa_run(&users_of_keys, &args);

	memset(users, 0, sizeof(*users));
	for (uint64 i = 0; i < rows; i++)
		sa_captured_add_text(captured, users, sa_result_text(i, 1));
}

/*
 * Logins, failed logins and counts.  They come in any order and in several
 * statements.  So what makes a login is a time of last login that is later than
 * the one we know, however often it is written; and logins are counted here
 * only for users of whom the product does not give a count.
 */
static void
flush_logins(SaCaptured *captured)
{
	static SaStatement record_logins = {.sql =
		"WITH told AS MATERIALIZED ("
		"  SELECT f.key, f.user_name,"
		"    max(f.at) FILTER (WHERE f.role = 'last_login_at') AS last_login_at,"
		"    max(f.at) FILTER (WHERE f.role = 'previous_login_at') AS previous_login_at,"
		"    max(f.at) FILTER (WHERE f.role = 'last_failed_login_at') AS last_failed_login_at,"
		"    max(f.at) FILTER (WHERE f.role = 'last_seen_at') AS last_seen_at,"
		"    max(f.number) FILTER (WHERE f.role = 'login_count') AS login_count,"
		"    max(f.number) FILTER (WHERE f.role = 'current_failed_count') AS current_failed_count,"
		"    max(f.number) FILTER (WHERE f.role = 'total_failed_count') AS total_failed_count,"
		"    max(f.address::inet) FILTER (WHERE f.role = 'last_login_address') AS address,"
		"    array_agg(DISTINCT f.role) FILTER (WHERE f.number IS NOT NULL) AS counted"
		"  FROM unnest($4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::bigint[], $9::text[])"
		"    AS f (key, user_name, role, at, number, address)"
		"  WHERE f.user_name IS NOT NULL AND (f.role = 'last_seen_at' OR NOT $11)"
		"  GROUP BY f.key, f.user_name"
		"), known AS MATERIALIZED ("
		"  SELECT t.*, coalesce(k.counted, '{}') || coalesce(t.counted, '{}') AS all_counted,"
		/* of a user without a key we know only the account */
		"    t.last_login_at > coalesce(CASE WHEN t.key IS NULL THEN a.last_login_at"
		"      ELSE k.last_login_at END, '-infinity') AS logged_in,"
		"    t.last_failed_login_at > coalesce(CASE WHEN t.key IS NULL THEN a.last_failed_login_at"
		"      ELSE k.last_failed_login_at END, '-infinity') AS failed"
		"  FROM told t"
		"  JOIN session_admin_internal.account a ON a.application = $1 AND a.user_name = t.user_name"
		"  LEFT JOIN session_admin_internal.account_key k"
		"    ON k.application = $1 AND k.product = $2 AND k.part = $3 AND k.key = t.key"
		"), noted AS ("
		"  UPDATE session_admin_internal.account_key k SET"
		"    last_login_at = greatest(k.last_login_at, t.last_login_at),"
		"    last_failed_login_at = greatest(k.last_failed_login_at, t.last_failed_login_at),"
		"    counted = ARRAY(SELECT DISTINCT unnest(t.all_counted) ORDER BY 1)"
		"  FROM known t"
		"  WHERE k.application = $1 AND k.product = $2 AND k.part = $3 AND k.key = t.key"
		"    AND (t.logged_in OR t.failed OR NOT k.counted @> t.all_counted)"
		"), change AS MATERIALIZED ("
		"  SELECT user_name, max(last_login_at) AS last_login_at,"
		"    max(previous_login_at) AS previous_login_at,"
		"    max(last_failed_login_at) AS last_failed_login_at, max(last_seen_at) AS last_seen_at,"
		"    max(login_count) AS login_count, max(current_failed_count) AS current_failed_count,"
		"    max(total_failed_count) AS total_failed_count, max(address) AS address,"
		"    coalesce(bool_or(logged_in), false) AS logged_in,"
		"    coalesce(bool_or(failed), false) AS failed,"
		"    bool_or('login_count' = ANY (all_counted)) AS counts_logins,"
		"    bool_or('current_failed_count' = ANY (all_counted)) AS counts_current,"
		"    bool_or('total_failed_count' = ANY (all_counted)) AS counts_total"
		"  FROM known GROUP BY user_name"
		"), written AS ("
		"  UPDATE session_admin_internal.account a SET"
		"    login_count = coalesce(c.login_count,"
		"      CASE WHEN c.counts_logins THEN a.login_count"
		"        WHEN $10 THEN greatest(a.login_count, c.logged_in::int)"
		"        ELSE a.login_count + c.logged_in::int END),"
		"    last_login_at = greatest(a.last_login_at, c.last_login_at),"
		"    last_login_address = CASE WHEN c.last_login_at > a.last_login_at"
		"      OR a.last_login_at IS NULL THEN c.address ELSE a.last_login_address END,"
		"    last_login_method = CASE WHEN c.last_login_at > a.last_login_at"
		"      THEN NULL ELSE a.last_login_method END,"
		"    previous_login_at = coalesce(c.previous_login_at,"
		"      CASE WHEN c.last_login_at > a.last_login_at THEN a.last_login_at"
		"        WHEN c.logged_in AND c.last_login_at < a.last_login_at"
		"        THEN greatest(a.previous_login_at, c.last_login_at)"
		"        ELSE a.previous_login_at END),"
		"    last_failed_login_at = greatest(a.last_failed_login_at, c.last_failed_login_at),"
		"    current_failed_count = coalesce(c.current_failed_count,"
		"      CASE WHEN c.counts_current OR $10 THEN a.current_failed_count"
		"        WHEN c.logged_in THEN 0 ELSE a.current_failed_count + c.failed::int END),"
		"    total_failed_count = coalesce(c.total_failed_count,"
		"      CASE WHEN c.counts_total OR $10 THEN a.total_failed_count"
		"        ELSE a.total_failed_count + c.failed::int END),"
		"    last_seen_at = greatest(a.last_seen_at, c.last_login_at, c.last_seen_at)"
		"  FROM change c WHERE a.application = $1 AND a.user_name = c.user_name"
		"    AND (NOT $10 OR c.last_login_at > coalesce(a.last_login_at, '-infinity')"
		"      OR c.last_failed_login_at > coalesce(a.last_failed_login_at, '-infinity')"
		"      OR greatest(c.last_login_at, c.last_seen_at) > coalesce(a.last_seen_at, '-infinity')"
		"      OR a.login_count <> coalesce(c.login_count, greatest(a.login_count, c.logged_in::int))"
		"      OR c.previous_login_at IS DISTINCT FROM coalesce(a.previous_login_at, c.previous_login_at)"
		"      OR c.current_failed_count <> a.current_failed_count"
		"      OR c.total_failed_count <> a.total_failed_count)"
		")"
		" INSERT INTO session_admin_internal.login_event"
		"  (at, application, user_name, event, succeeded, client_address)"
		" SELECT last_login_at, $1, user_name, 'login', true, address"
		" FROM change WHERE logged_in AND NOT $10"
		" UNION ALL"
		" SELECT last_failed_login_at, $1, user_name, 'login_failed', false, NULL"
		" FROM change WHERE failed AND NOT $10"
	};
	const SaWatch *watch = captured->watch;
	SaValues	users = captured->login_user;
	SaArgs		args = {0};

	if (users.n == 0)
		return;

	if (SA_HAS(watch, SA_ROLE_USER_KEY))
		sa_captured_resolve(captured, &captured->login_key, &users);
	sa_captured_make_accounts(captured, &users);
	/* of rows that were there before, most change nothing */
	if (!captured->backfill)
		sa_captured_lock_accounts(captured, &users);

	arg_key_space(&args, watch, SA_HAS(watch, SA_ROLE_USER_KEY) ? watch->key_of : watch->part);
	sa_captured_arg(&args, &captured->login_key, TEXTOID);
	sa_captured_arg(&args, &users, TEXTOID);
	sa_captured_arg(&args, &captured->login_role, TEXTOID);
	sa_captured_arg(&args, &captured->login_at, TIMESTAMPTZOID);
	sa_captured_arg(&args, &captured->login_number, INT8OID);
	sa_captured_arg(&args, &captured->login_address, TEXTOID);
	sa_arg(&args, BOOLOID, BoolGetDatum(captured->backfill), false);
	sa_arg(&args, BOOLOID, BoolGetDatum(sa_captured_ignores_logins(captured)), false);
	sa_run(&record_logins, &args);
}

/*
 * The product's remember-me rows.  Who adds one locks the account, as who logs
 * in does: an invalidation of the user then waits for it, and deletes it too.
 * Who changes or deletes one does not: that invalidation may be waiting for the
 * very row, and then finds it changed or gone.
 */
static void
flush_tokens(SaCaptured *captured)
{
	static SaStatement record_tokens = {.sql =
		"WITH token AS MATERIALIZED ("
		/* a successor in a series that we have seen is a use of it */
		"  SELECT t.user_name, d.detail, CASE WHEN t.event = 'remember_me_issued' AND EXISTS ("
		"      SELECT FROM session_admin_internal.login_event e WHERE e.application = $1"
		"        AND e.user_name = t.user_name AND e.detail = d.detail"
		"        AND e.event IN ('remember_me_issued', 'remember_me_used'))"
		"    THEN 'remember_me_used' ELSE t.event END AS event"
		"  FROM unnest($2::text[], $3::text[], $4::text[], $9::text[]) AS t (user_name, event, ref, series)"
		"  CROSS JOIN LATERAL (SELECT coalesce('series ' || t.series, 'token ' || t.ref) AS detail) d"
		"), recorded AS ("
		"  INSERT INTO session_admin_internal.login_event"
		"    (at, application, user_name, event, succeeded, login_method, detail)"
		"  SELECT $5, $1, user_name, event, true, 'remember_me',"
		"    concat_ws(', ', detail, CASE WHEN event = 'remember_me_revoked' THEN $6 END)"
		"  FROM token"
		"), fed AS ("
		"  INSERT INTO session_admin_internal.invalidation"
		"    (at, scope, application, user_name, reason, actor, tokens_revoked)"
		"  SELECT $5, 'token', $1, user_name, $6, $7, count(*)"
		"  FROM token WHERE event = 'remember_me_revoked' AND $8 GROUP BY user_name"
		"  RETURNING id, user_name"
		")"
		" SELECT count(*), max(id), min(user_name)::text FROM fed"
	};
	SaEnding   *forgetting = captured->forgetting;
	SaFeedRow	row = {.scope = "token", .application = captured->watch->application};
	SaValues	users = captured->token_user;
	SaArgs		args = {0};

	if (users.n == 0)
		return;

	if (SA_HAS(captured->watch, SA_ROLE_USER_KEY))
		sa_captured_resolve(captured, &captured->token_user, &users);
	if (captured->insertion)
	{
		sa_captured_make_accounts(captured, &users);
		sa_captured_enter_accounts(captured, &users);
	}

	row.reason = forgetting ? forgetting->reason : "token_revoked";
	sa_arg_text(&args, captured->watch->application);
	sa_captured_arg(&args, &users, TEXTOID);
	sa_captured_arg(&args, &captured->token_event, TEXTOID);
	sa_captured_arg(&args, &captured->token_ref, TEXTOID);
	sa_arg(&args, TIMESTAMPTZOID,
		   TimestampTzGetDatum(forgetting ? forgetting->at : GetCurrentTimestamp()), false);
	sa_arg_text(&args, row.reason);
	sa_arg_text(&args, sa_actor_or_null());
	sa_arg(&args, BOOLOID, BoolGetDatum(forgetting == NULL), false);
	sa_captured_arg(&args, &captured->token_series, TEXTOID);
	sa_run(&record_tokens, &args);

	if (sa_result_int64(0, 1) > 0)
	{
		row.id = sa_result_int64(0, 2);
		row.user_name = sa_result_text(0, 3);
		note_feed(captured, &row, sa_result_int64(0, 1));
		sa_commit_durably(captured->watch->application);
	}
	if (forgetting != NULL)
		forgetting->tokens_revoked += users.n;
	for (int i = 0; forgetting != NULL && forgetting->wants_users && i < users.n; i++)
		forgetting->revoked_users = accumArrayResult(forgetting->revoked_users,
													 users.values[i], users.nulls[i],
													 TEXTOID, forgetting->context);
}

/*
 * If users are renamed, lock all accounts of the batch before the first session ends, in
 * the order of names: what follows locks them again, for one reason after the other.
 * Who only ends sessions waits for no account.
 */
static void
lock_users(SaCaptured *captured)
{
	const SaValues *lists[] = {&captured->ended_name, &captured->renamed_from,
	&captured->renamed_to, &captured->login_user};
	SaValues	names = {0};

	if (captured->renamed_from.n == 0)
		return;
	for (size_t list = 0; list < lengthof(lists); list++)
	{
		for (int i = 0; i < lists[list]->n; i++)
			sa_captured_add(captured, &names, lists[list]->values[i], lists[list]->nulls[i]);
	}
	sa_captured_lock_accounts(captured, &names);
}

/* Apply the batch and empty it. */
void
sa_captured_flush(SaCaptured *captured)
{
	SPI_connect();
	lock_users(captured);
	flush_ended(captured);
	flush_renamed(captured);
	flush_keys(captured);
	if (captured->renamed_to.n > 0 || captured->key_gone.n > 0)
	{
		forget_old_keys(captured, &captured->renamed_to);
		forget_old_keys(captured, &captured->key_user);
	}
	sa_captured_make_accounts(captured, &captured->account);
	flush_logins(captured);
	flush_tokens(captured);
	sa_captured_flush_sessions(captured);
	SPI_finish();

	MemoryContextReset(captured->context);
	captured->flushed = true;
	captured->rows = 0;
	memset((char *) captured + offsetof(SaCaptured, ended_name), 0,
		   offsetof(SaCaptured, unclear) - offsetof(SaCaptured, ended_name));
}

/* All rows are gone, and nobody knows which they were. */
void
sa_captured_truncated(SaCaptured *captured)
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
	const SaWatch *watch = captured->watch;
	SaEnding	ending = {0};

	if (watch->part == SA_PART_SESSION)
	{
		sa_captured_truncated_sessions(captured);
		return;
	}

	SPI_connect();
	ending.at = GetCurrentTimestamp();
	if (watch->part == SA_PART_REMEMBER_ME)
	{
		SaFeedRow	row = {.scope = "token", .application = watch->application};
		SaLoginEvent event = {
			.application = watch->application,
			.event = "remember_me_revoked",
			.succeeded = true,
			.login_method = "remember_me",
			.detail = "all tokens, truncated",
			.at = ending.at
		};

		ending.reason = "token_revoked";
		ending.tokens_revoked = -1;
		sa_login_event_record(&event);
		sa_feed_write(&row, &ending);
		note_feed(captured, &row, 1);
	}
	else
	{
		SaArgs		account_args = {0};
		SaArgs		args = {0};
		bool		isnull;

		/* identities without accounts are those of users deleted before */
		arg_key_space(&account_args, watch, SA_PART_ACCOUNT);
		sa_run(&is_anybody_left, &account_args);
		if (watch->part == SA_PART_ACCOUNT || DatumGetBool(sa_result(0, 1, &isnull)))
		{
			ending.reason = reasons[SA_ENDED_BY_DELETION];
			sa_end_generation(watch->application, &ending);
		}
		arg_key_space(&args, watch, watch->part);
		sa_run(&all_keys_gone, &args);
	}
	SPI_finish();
}

/* Tell of all that the statement has written to the feed, once. */
void
sa_captured_end(SaCaptured *captured)
{
	if (captured->fed == 1)
		sa_feed_notify(&captured->feed_row);
	else if (captured->fed > 1)
		sa_feed_notify_many(captured->feed_row.id);
	MemoryContextDelete(captured->context);
}
