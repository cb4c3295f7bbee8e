/*
 * lost.c
 *	  What the server does when it learns that there were invalidations which it does not
 *	  remember.
 *
 * The nodes are the witnesses, by what their positions claim (position.c).  README.md says
 * when history is lost, and what follows.
 */
#include "node/node.h"
#include "ending/ending.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/jsonb.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_witness_invalidations);

/* End everything in the applications of which the policy says so. */
static void
lost_end_all(TimestampTz at)
{
	static SaStatement list_applications = {.sql =
		"SELECT CASE WHEN value = 'invalidate' THEN application::text END"
		" FROM session_admin_internal.effective_policy WHERE name = 'on_lost_history' ORDER BY 1"
	};
	uint64		n;
	uint64		n_ended = 0;
	char	  **names;

	n = sa_run(&list_applications, NULL);
	names = palloc((n + 1) * sizeof(char *));
	for (uint64 i = 0; i < n; i++)
	{
		names[n_ended] = sa_result_text(i, 1);
		if (names[n_ended] != NULL)
			n_ended++;
	}
	/* in all of them: at once, also where nothing is open yet */
	if (n_ended == n)
	{
		names[0] = NULL;
		n_ended = 1;
	}
	for (uint64 i = 0; i < n_ended; i++)
	{
		SaEnding	ending = {.reason = "restored", .ended_by = "session_admin", .at = at};

		sa_end_generation(names[i], &ending, NULL);
	}
}

/*
 * A node presents a position that this server does not remember. Does its claim show that
 * the server has lost something? If that was not known yet, do what the policy says. The
 * caller is connected to SPI.
 */
bool
sa_lost_note(const char *node, const SaClaim *claim)
{
	static SaStatement note_loss = {.sql =
		"INSERT INTO session_admin.lost_history"
		"  (timeline, left_timeline, server_start, left_at, claimed, found_at, node)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING"
	};
	XLogRecPtr	left_at;
	TimestampTz now = GetCurrentTimestamp();
	bool		taken_away;
	SaArgs		args = {0};

	if (!sa_claim_is_lost(claim, &left_at))
		return false;

	taken_away = left_at == InvalidXLogRecPtr || claim->timeline == sa_claim_now().timeline;
	sa_arg(&args, INT8OID, Int64GetDatum(sa_claim_now().timeline), false);
	sa_arg(&args, INT8OID, Int64GetDatum(claim->timeline), false);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(PgStartTime), !taken_away);
	sa_arg(&args, PG_LSNOID, LSNGetDatum(left_at), left_at == InvalidXLogRecPtr);
	sa_arg(&args, PG_LSNOID, LSNGetDatum(claim->place), false);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(now), false);
	sa_arg_text(&args, node);
	if (sa_run(&note_loss, &args) == 0)
		return true;

	lost_end_all(now);
	ereport(WARNING,
			(errmsg("this server has lost invalidations that node \"%s\" was told of", node),
			 errdetail("The node has followed timeline %u up to %X/%X.",
					   claim->timeline, LSN_FORMAT_ARGS(claim->place)),
			 errhint("Policy \"on_lost_history\" says what becomes of the sessions.")));
	return true;
}

/* What a node remembers of one invalidation. */
typedef struct Witnessed
{
	char	   *scope;
	char	   *application;
	char	   *user_name;
	Datum		session;		/* 0: none */
	Datum		keep;			/* 0: none */
	char	   *reason;
	TimestampTz at;
} Witnessed;

/*
 * End the sessions and tokens of an application that were there before it ended them. Are
 * there any?
 */
static bool
lost_end_witnessed(const Witnessed *witnessed, const char *application)
{
	static SaStatement find_sessions = {.sql =
		"SELECT coalesce(array_agg(session_hash), '{}') FROM session_admin.session"
		" WHERE application = $1 AND created_at <= $2"
		"  AND (session_hash = $4 OR user_name = $3 AND session_hash IS DISTINCT FROM $5)"
	};
	static SaStatement delete_tokens = {.sql =
		"DELETE FROM session_admin.remember_me_token"
		" WHERE application = $1 AND created_at <= $2 AND user_name = $3"
	};
	static SaStatement find_any = {.sql =
		"SELECT FROM session_admin.application a WHERE name = $1"
		"  AND (EXISTS (SELECT FROM session_admin.session s WHERE s.application = a.name"
		"        AND s.generation = a.generation AND s.created_at <= $2)"
		"    OR EXISTS (SELECT FROM session_admin.remember_me_token t WHERE t.application = a.name"
		"        AND t.generation = a.generation AND t.created_at <= $2))"
	};
	SaEnding	ending = {.reason = witnessed->reason, .at = GetCurrentTimestamp()};
	SaEnded		ended = {0};
	bool		of_session = strcmp(witnessed->scope, "session") == 0;
	bool		of_user = strcmp(witnessed->scope, "user") == 0;
	bool		of_token = strcmp(witnessed->scope, "token") == 0;
	SaArgs		args = {0};
	bool		isnull;

	sa_arg_text(&args, application);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(witnessed->at), false);
	if (!of_session && !of_user && !of_token)
	{
		if (sa_run(&find_any, &args) == 0)
			return false;
		sa_end_generation(application, &ending, NULL);
		return true;
	}

	sa_arg_text(&args, of_session ? NULL : witnessed->user_name);
	if (of_user || of_token)
		ended.tokens_revoked = (int64) sa_delete_for(&ending, &ended, &delete_tokens, &args);
	if (of_user || of_session)
	{
		ArrayType  *hashes;

		sa_arg(&args, BYTEAOID, witnessed->session, !of_session || witnessed->session == 0);
		sa_arg(&args, BYTEAOID, witnessed->keep, witnessed->keep == 0);
		sa_run(&find_sessions, &args);
		hashes = DatumGetArrayTypePCopy(sa_result(0, 1, &isnull));
		if (ArrayGetNItems(ARR_NDIM(hashes), ARR_DIMS(hashes)) > 0)
			sa_end_sessions(hashes, application, &ending, &ended);
	}
	return ended.sessions_ended != 0 || ended.tokens_revoked != 0;
}

/*
 * witness_invalidations(node, invalidations)
 *		Take back from a node what this server has lost.
 *
 * invalidations is an array of objects with the keys of a notification, and "at".  What
 * they ended ends again, in applications of which policy on_lost_history is "witness".
 * Told twice, it ends nothing the second time; and nothing that began after it.
 * Returns how many of them ended something.
 */
Datum
sa_witness_invalidations(PG_FUNCTION_ARGS)
{
	static SaStatement find_loss = {.sql =
		"SELECT max(found_at) FROM session_admin.lost_history WHERE timeline = $1"
	};
	static SaStatement read_witnessed = {.sql =
		"SELECT w.scope, a.name::text, w.\"user\", decode(w.session, 'hex'), decode(w.keep, 'hex'),"
		"  coalesce(w.reason, 'restored'), least(w.at, $2)"
		" FROM jsonb_to_recordset($1) AS w (scope text, application text, \"user\" text,"
		"   session text, keep text, reason text, at timestamptz)"
		" JOIN session_admin.application a"
		"   ON w.application = a.name OR w.application IS NULL AND w.scope NOT IN ('user', 'session', 'token')"
		" JOIN session_admin_internal.effective_policy p ON p.application = a.name"
		"   AND p.name = 'on_lost_history' AND p.value = 'witness'"
		" WHERE w.scope IS NOT NULL AND w.reason IS DISTINCT FROM 'resync'"
	};
	char	   *node = sa_node_arg(fcinfo, 0);
	SaArgs		args = {0};
	SaArgs		witnessed_args = {0};
	Witnessed  *all;
	uint64		n;
	int64		ended = 0;
	bool		isnull;
	Datum		found_at;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("invalidations must not be null")));

	SPI_connect();
	sa_node_lock(fcinfo, node);
	sa_node_check_role(node, false);
	sa_arg(&args, INT8OID, Int64GetDatum(sa_claim_now().timeline), false);
	sa_run(&find_loss, &args);
	found_at = sa_result(0, 1, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server has lost no invalidation"),
				 errhint("It learns of a loss from a node that syncs with the position that it holds.")));

	sa_arg(&witnessed_args, JSONBOID, PG_GETARG_DATUM(1), false);
	sa_arg(&witnessed_args, TIMESTAMPTZOID, found_at, false);
	n = sa_run(&read_witnessed, &witnessed_args);
	all = palloc0((n + 1) * sizeof(Witnessed));
	for (uint64 i = 0; i < n; i++)
	{
		Datum		value;

		all[i].scope = sa_result_text(i, 1);
		all[i].application = sa_result_text(i, 2);
		all[i].user_name = sa_result_text(i, 3);
		value = sa_result(i, 4, &isnull);
		all[i].session = isnull ? 0 : value;
		value = sa_result(i, 5, &isnull);
		all[i].keep = isnull ? 0 : value;
		all[i].reason = sa_result_text(i, 6);
		all[i].at = DatumGetTimestampTz(sa_result(i, 7, &isnull));
		sa_check_reason(all[i].reason);
	}
	for (uint64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		ended += lost_end_witnessed(&all[i], all[i].application);
	}
	SPI_finish();
	PG_RETURN_INT64(ended);
}
