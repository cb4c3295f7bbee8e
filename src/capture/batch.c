/*
 * batch.c
 *	  What the rows that a statement changed tell, in lists.
 *
 * row.c fills the lists, and apply.c applies each by one statement for all of them.
 */
#include "capture/batch.h"
#include "policy/policy.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* Make an empty batch, for rows of this kind.  The caller frees it, after sa_batch_end. */
SaBatch *
sa_batch_begin(const SaWatch *watch, SaBatchKind kind)
{
	SaBatch    *batch = palloc0(sizeof(SaBatch));

	batch->context = AllocSetContextCreate(CurrentMemoryContext, "session_admin capture",
										   ALLOCSET_DEFAULT_SIZES);
	batch->watch = watch;
	batch->backfill = kind != SA_BATCH_CHANGES;
	batch->reconciling = kind == SA_BATCH_DIFFERENCES;
	return batch;
}

/* Add one value, which must live as long as the batch. */
void
sa_batch_add(SaBatch *batch, SaValues *values, Datum value, bool isnull)
{
	if (values->n == values->allocated)
	{
		int			allocated = values->allocated ? values->allocated * 2 : 16;

		if (values->allocated == 0)
		{
			values->values = MemoryContextAlloc(batch->context, allocated * sizeof(Datum));
			values->nulls = MemoryContextAlloc(batch->context, allocated * sizeof(bool));
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
sa_batch_add_text(SaBatch *batch, SaValues *values, const char *value)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	Datum		datum = value ? CStringGetTextDatum(value) : (Datum) 0;

	MemoryContextSwitchTo(old);
	sa_batch_add(batch, values, datum, value == NULL);
}

/* Are logins left out, as the application tells of them itself? */
bool
sa_batch_ignores_logins(const SaBatch *batch)
{
	SaApplication application;

	return !batch->backfill &&
		sa_application_find(batch->watch->application, &application) &&
		application.captured_logins == SA_IGNORE;
}

/* What became of this user is not understood; NULL: nobody knows of whom. */
void
sa_batch_unclear(SaBatch *batch, const char *user_name)
{
	MemoryContext context = MemoryContextGetParent(batch->context);

	batch->unclear = true;
	if (user_name == NULL)
		batch->unclear_whom = true;
	else
		batch->unclear_users = accumArrayResult(batch->unclear_users,
												CStringGetTextDatum(user_name), false,
												TEXTOID, context);
}

/* The users of the sessions that the batch would have ended. */
static ArrayType *
batch_users_of_sessions(const SaBatch *batch)
{
	static SaStatement find_users = {.sql =
		"SELECT array_agg(DISTINCT user_name::text) FROM session_admin.session"
		" WHERE application = $1 AND session_hash = ANY ($2) AND user_name IS NOT NULL"
	};
	MemoryContext context = CurrentMemoryContext;
	ArrayBuildState *hashes = initArrayResult(BYTEAOID, context, false);
	ArrayType  *users;
	SaArgs		args = {0};
	ArrayType  *found;
	ListCell   *cell;

	for (int i = 0; i < batch->session_closed.n; i++)
		accumArrayResult(hashes, batch->session_closed.values[i], false, BYTEAOID, context);
	foreach(cell, batch->session_rows)
	{
		SaSessionRow *row = lfirst(cell);

		accumArrayResult(hashes, PointerGetDatum(sa_bytea(row->old_id.hash, SA_HASH_LEN)),
						 false, BYTEAOID, context);
	}
	SPI_connect();
	sa_arg_text(&args, batch->watch->application);
	sa_arg(&args, BYTEAARRAYOID, makeArrayResult(hashes, context), false);
	sa_run(&find_users, &args);
	found = sa_result_array(0, 1);
	MemoryContextSwitchTo(context);
	users = found ? DatumGetArrayTypePCopy(PointerGetDatum(found)) : construct_empty_array(TEXTOID);
	SPI_finish();
	return users;
}

/* The users whom the batch would have logged out; NULL if nobody knows. */
ArrayType *
sa_batch_users(const SaBatch *batch)
{
	ArrayBuildState *names = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	if (!batch->complete)
		return NULL;
	if (batch->watch->part == SA_PART_SESSION)
		return batch_users_of_sessions(batch);
	for (int i = 0; i < batch->ended_name.n; i++)
		accumArrayResult(names, batch->ended_name.values[i], false, TEXTOID, CurrentMemoryContext);
	for (int i = 0; i < batch->renamed_from.n; i++)
		accumArrayResult(names, batch->renamed_from.values[i], false, TEXTOID, CurrentMemoryContext);
	return DatumGetArrayTypeP(makeArrayResult(names, CurrentMemoryContext));
}

/* Add the values as an argument, an array of this type. */
void
sa_batch_arg(SaArgs *args, const SaValues *values, Oid element)
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
void
sa_batch_arg_keys(SaArgs *args, const SaWatch *watch, SaTablePart part)
{
	sa_arg_text(args, watch->application);
	sa_arg_text(args, watch->product);
	sa_arg_text(args, sa_part_names[part]);
}

/* Remember what was written to the feed, to tell of it once at the end. */
void
sa_batch_fed(SaBatch *batch, const SaFeedRow *row, int64 rows)
{
	MemoryContext old = MemoryContextSwitchTo(MemoryContextGetParent(batch->context));

	batch->fed += rows;
	batch->feed_row = *row;
	if (row->user_name)
		batch->feed_row.user_name = pstrdup(row->user_name);
	if (row->session_hash)
		batch->feed_row.session_hash = memcpy(palloc(SA_HASH_LEN), row->session_hash, SA_HASH_LEN);
	MemoryContextSwitchTo(old);
}

/* Make the accounts that are not there yet. */
void
sa_batch_make_accounts(SaBatch *batch, const SaValues *names)
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
	sa_arg_text(&args, batch->watch->application);
	sa_batch_arg(&args, names, TEXTOID);
	sa_run(&insert_accounts, &args);
}

/* Lock the accounts in the order of names, as everybody does. */
void
sa_batch_lock_accounts(SaBatch *batch, const SaValues *names)
{
	static SaStatement lock = {.sql =
		"SELECT FROM session_admin_internal.account"
		" WHERE application = $1 AND user_name = ANY ($2)"
		" ORDER BY user_name FOR NO KEY UPDATE"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, batch->watch->application);
	sa_batch_arg(&args, names, TEXTOID);
	sa_run(&lock, &args);
}

/*
 * Lock the accounts, or announce a login to the transactions that have them: see
 * sa_account_enter.
 */
void
sa_batch_enter_accounts(SaBatch *batch, const SaValues *names)
{
	ArrayBuildState *left;
	SaBusy		busy = {0};
	SaArgs		args = {0};

	sa_batch_arg(&args, names, TEXTOID);
	sa_accounts_try(batch->watch->application, DatumGetArrayTypeP(args.values[0]), &left, &busy);
	for (int i = 0; left != NULL && i < left->nelems; i++)
		sa_login_announce(batch->watch->application, TextDatumGetCString(left->dvalues[i]));
}

/*
 * Find the users behind these keys; null where nobody is known by the key, or the
 * key itself, if the product is said to use both.
 */
void
sa_batch_resolve(SaBatch *batch, const SaValues *keys, SaValues *users)
{
	static SaStatement users_of_keys = {.sql =
		"SELECT coalesce((SELECT k.user_name FROM session_admin_internal.account_key k"
		"    WHERE k.application = $1 AND k.product = $2 AND k.part = $3 AND k.key = u.key),"
		"  CASE WHEN $5 THEN u.key END)::text"
		" FROM unnest($4::text[]) WITH ORDINALITY AS u (key, n) ORDER BY u.n"
	};
	const SaWatch *watch = batch->watch;
	SaArgs		args = {0};
	uint64		rows;

	sa_batch_arg_keys(&args, watch, watch->key_of);
	sa_batch_arg(&args, keys, TEXTOID);
	sa_arg(&args, BOOLOID,
		   BoolGetDatum(watch->columns[SA_ROLE_USER_KEY].reading == SA_READING_KEY_OR_NAME), false);
	rows = sa_run(&users_of_keys, &args);

	memset(users, 0, sizeof(*users));
	for (uint64 i = 0; i < rows; i++)
		sa_batch_add_text(batch, users, sa_result_text(i, 1));
}

/* Empty it, but for what concerns all rows since it began. */
void
sa_batch_reset(SaBatch *batch)
{
	MemoryContextReset(batch->context);
	batch->flushed = true;
	batch->rows = 0;
	memset((char *) batch + offsetof(SaBatch, ended_name), 0,
		   offsetof(SaBatch, unclear) - offsetof(SaBatch, ended_name));
}

/* How many sessions the rows have that were read since it was applied. */
int
sa_batch_sessions(const SaBatch *batch)
{
	return list_length(batch->session_rows);
}

/* Sessions that the product has let expire: their hashes; NULL if there are none. */
ArrayType *
sa_batch_expired(const SaBatch *batch)
{
	if (batch->session_expired.n == 0)
		return NULL;
	return sa_array(batch->session_expired.values, batch->session_expired.n, BYTEAOID);
}

/* Sessions of which rows were written, and rows that were refused, since it began. */
void
sa_batch_applied(const SaBatch *batch, int64 *written, int64 *refused)
{
	*written = batch->written;
	*refused = batch->refused;
}

/* Wipe the session ids: they have served. */
void
sa_batch_wipe(SaBatch *batch)
{
	ListCell   *cell;

	foreach(cell, batch->session_rows)
	{
		SaSessionRow *row = lfirst(cell);

		explicit_bzero(row->secret, strlen(row->secret));
	}
}

/* Tell of all that the statement has written to the feed, once. */
void
sa_batch_end(SaBatch *batch)
{
	if (batch->fed == 1)
		sa_feed_queue(&batch->feed_row);
	else if (batch->fed > 1)
		sa_feed_queue_many(batch->feed_row.id);
	MemoryContextDelete(batch->context);
}
