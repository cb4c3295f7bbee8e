/*
 * compare.c
 *	  Compares rows of a product's sessions with the sessions that are known.
 */
#include "capture/batch.h"
#include "policy/policy.h"
#include "live/live.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

/*
 * Which of the batch's sessions are not as their rows are, or have ended; NULL: none.
 * Those of which nothing is known count if it takes new ones.
 */
bool *
sa_batch_compare(SaBatch *batch, bool takes_new)
{
	static SaStatement find_differences = {.sql =
		"SELECT array_agg(r.n) FROM unnest($3::bytea[], $4::text[], $5::text[])"
		"  WITH ORDINALITY AS r (hash, key, user_name, n)"

		/*
		 * by the key, whatever the planner thinks of a table that nobody has
		 * analyzed
		 */
		" LEFT JOIN LATERAL (SELECT * FROM session_admin.session s"
		"   WHERE s.session_hash = r.hash AND s.application = $1 LIMIT 1) s ON true"
		" WHERE ($6 OR s.session_hash IS NOT NULL)"
		"  AND (s.product IS DISTINCT FROM $2"
		"   OR s.user_name IS DISTINCT FROM r.user_name OR s.product_key IS DISTINCT FROM r.key)"
	};
	const SaWatch *watch = batch->watch;
	SaValues	hashes = {0};
	SaValues	keys = {0};
	SaValues	users = {0};
	SaArgs		args = {0};
	bool	   *doubtful = palloc0(list_length(batch->session_rows) * sizeof(bool));
	bool		any = false;
	bool		isnull;
	Datum		result;
	SaApplication application;
	ListCell   *cell;

	foreach(cell, batch->session_rows)
	{
		SaSessionRow *row = lfirst(cell);

		sa_batch_add(batch, &hashes, PointerGetDatum(sa_bytea(row->id.hash, SA_HASH_LEN)), false);
		sa_batch_add_text(batch, &keys, row->key);
		sa_batch_add_text(batch, &users, row->user);
	}
	if (SA_HAS(watch, SA_ROLE_USER_KEY))
	{
		SaValues	user_keys = users;

		sa_batch_resolve(batch, &user_keys, &users);
	}
	sa_arg_text(&args, watch->application);
	sa_arg_text(&args, watch->product);
	sa_batch_arg(&args, &hashes, BYTEAOID);
	sa_batch_arg(&args, &keys, TEXTOID);
	sa_batch_arg(&args, &users, TEXTOID);
	sa_arg(&args, BOOLOID, BoolGetDatum(takes_new), false);
	sa_run(&find_differences, &args);
	result = sa_result(0, 1, &isnull);
	if (!isnull)
	{
		Datum	   *numbers;
		int			n;

		deconstruct_array(DatumGetArrayTypeP(result), INT8OID, 8, FLOAT8PASSBYVAL,
						  TYPALIGN_DOUBLE, &numbers, NULL, &n);
		for (int i = 0; i < n; i++)
			doubtful[DatumGetInt64(numbers[i]) - 1] = any = true;
	}
	foreach(cell, batch->session_rows)
	{
		SaSessionRow *row = lfirst(cell);
		SaSession	session;

		CHECK_FOR_INTERRUPTS();
		sa_application_get(watch->application, &application);
		if (!doubtful[foreach_current_index(cell)] &&
			sa_session_read(row->id.hash, watch->application, &session) &&
			!sa_session_is_valid(&session, &application, row->id.hash, GetCurrentTimestamp()))
			doubtful[foreach_current_index(cell)] = any = true;
	}
	return any ? doubtful : NULL;
}
