/*
 * archive.c
 *	  Rows that leave session and remember_me_token: the triggers that archive them
 *	  and write the feed.
 *
 * Every session and token ends by its row leaving its table, whatever deletes it.
 * sa_delete_for() says why; a DELETE by hand counts as reason "admin".
 */
#include "ending/end.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_session_ended);
PG_FUNCTION_INFO_V1(sa_token_revoked);
PG_FUNCTION_INFO_V1(sa_truncated);

/* Set while the library is loaded, if it knows of products. */
const SaProductRows *sa_product_rows = NULL;

/* Why the rows that leave now do so (NULL: nobody said), and what came of it. */
static const SaEnding *current_ending = NULL;
static SaEnded *current_ended = NULL;

/*
 * Run a statement that deletes from session or remember_me_token; the triggers read why,
 * and count.  The caller is connected to SPI.
 */
uint64
sa_delete_for(const SaEnding *ending, SaEnded *ended, SaStatement *statement, SaArgs *args)
{
	const SaEnding *outer = current_ending;
	SaEnded    *outer_ended = current_ended;
	SaEnded		nobody_asks = {0};
	uint64		rows;

	current_ending = ending;
	current_ended = ended ? ended : &nobody_asks;
	PG_TRY();
	{
		rows = sa_run(statement, args);
	}
	PG_FINALLY();
	{
		current_ending = outer;
		current_ended = outer_ended;
	}
	PG_END_TRY();

	return rows;
}

/* Was the session in this row valid until now? */
static bool
archive_session_was_valid(TupleTableSlot *slot, const SaApplication *application, TimestampTz now)
{
	bool		isnull;
	bytea	   *hash = DatumGetByteaPP(slot_getattr(slot, SA_SESSION_HASH, &isnull));

	return sa_session_row_is_valid(slot, application, (uint8 *) VARDATA_ANY(hash), now);
}

/* Was the remember-me token in this row valid until now? */
static bool
archive_token_was_valid(TupleTableSlot *slot, const SaApplication *application, TimestampTz now)
{
	bool		isnull;

	/* late endings are left to the statement that reads the tables */
	return DatumGetInt64(slot_getattr(slot, SA_TOKEN_GENERATION, &isnull)) == application->generation &&
		application->n_late_endings == 0 &&
		DatumGetTimestampTz(slot_getattr(slot, SA_TOKEN_CREATED_AT, &isnull)) >
		now - application->remember_me_lifetime;
}

/* A table whose rows are archived when they leave it. */
typedef struct Archive
{
	const char *function;		/* the trigger's */
	bool		sessions;		/* or tokens */
	int			user_column;
	bool		(*was_valid) (TupleTableSlot *slot, const SaApplication *application,
							  TimestampTz now);

	/*
	 * These archive old_table, and give one row: how many were live, how many
	 * rows of the feed were written, the highest id of these and (meaningful
	 * of one) the reason, and the users of those that were live, if the
	 * ending wants them.  The second is for rows that were all valid until
	 * now: then nobody has to ask how each of them had ended before, which
	 * costs more than all the rest.
	 */
	SaStatement of_any;
	SaStatement of_valid;
} Archive;

/* Were all of the rows valid until now? */
static bool
archive_all_were_valid(const Archive *archive, TriggerData *trigdata, TimestampTz now)
{
	SaRowReader old;
	bool		valid = true;

	sa_rows_begin(&old, trigdata->tg_relation, trigdata->tg_oldtable);
	while (valid && sa_rows_next(&old))
	{
		SaApplication application;
		char	   *name = sa_row_application(&old);

		valid = sa_application_find(name, &application) &&
			archive->was_valid(old.slot, &application, now);
		pfree(name);
	}
	sa_rows_end(&old);
	return valid;
}

/* Add the users of what has ended, one a session or token, if they are given. */
static void
archive_add_users(ArrayBuildState **users, MemoryContext context)
{
	ArrayType  *added = sa_result_array(0, 5);
	Datum	   *names;
	int			n;

	if (added == NULL)
		return;
	names = sa_array_values(added, TEXTOID, &n);
	for (int i = 0; i < n; i++)
		*users = accumArrayResult(*users, names[i], false, TEXTOID, context);
}

/* Tell of the only row that has left. */
static void
archive_queue_only_row(const Archive *archive, TriggerData *trigdata, int64 id, const char *reason)
{
	SaRowReader old;
	SaFeedRow	row = {.id = id, .reason = reason};
	bool		isnull;
	Datum		user_name;

	sa_rows_begin(&old, trigdata->tg_relation, trigdata->tg_oldtable);
	(void) sa_rows_next(&old);
	row.scope = archive->sessions ? "session" : "token";
	row.application = sa_row_application(&old);
	user_name = slot_getattr(old.slot, archive->user_column, &isnull);
	row.user_name = isnull ? NULL : TextDatumGetCString(user_name);
	if (archive->sessions)
		row.session_hash = (uint8 *) VARDATA_ANY(DatumGetByteaPP(slot_getattr(old.slot, SA_SESSION_HASH,
																			  &isnull)));
	sa_feed_queue(&row);
	sa_rows_end(&old);
}

/* Is any of the rows a session in a product's own table? */
static bool
archive_any_of_products(TriggerData *trigdata)
{
	SaRowReader old;
	bool		any = false;

	sa_rows_begin(&old, trigdata->tg_relation, trigdata->tg_oldtable);
	while (!any && sa_rows_next(&old))
		any = !slot_attisnull(old.slot, SA_SESSION_PRODUCT);
	sa_rows_end(&old);
	return any;
}

/* The application of the row, if there is only one. */
static char *
archive_only_application(TriggerData *trigdata)
{
	SaRowReader old;
	char	   *name;

	if (tuplestore_tuple_count(trigdata->tg_oldtable) != 1)
		return NULL;
	sa_rows_begin(&old, trigdata->tg_relation, trigdata->tg_oldtable);
	(void) sa_rows_next(&old);
	name = sa_row_application(&old);
	sa_rows_end(&old);
	return name;
}

/*
 * Delete the rows that products have of the sessions that have left.  Those of sessions
 * that ended with their generation were deleted then, but for what nobody saw.
 */
static void
archive_delete_of_products(const SaEnding *ending, SaEnded *ended)
{
	static SaStatement of_products = {.sql =
		"SELECT o.application::text, o.product::text,"
		"  array_agg(o.product_key::text) FILTER (WHERE o.product_key IS NOT NULL),"
		"  array_agg(o.session_hash) FILTER (WHERE o.product_key IS NULL),"
		"  array_agg(o.session_hash)"
		" FROM old_table o"
		" JOIN session_admin_internal.application_state a ON a.name = o.application"
		" WHERE o.product IS NOT NULL AND $1 = (a.generation = o.generation"
		"  AND NOT EXISTS (SELECT FROM " SA_LATE_ENDINGS_OF_SESSION("o") "))"
		" GROUP BY o.application, o.product"
	};
	SaEnding	ended_before = {.reason = ending->reason, .at = ending->at};
	SaArgs		current = {0};
	SaArgs		old = {0};

	sa_arg(&current, BOOLOID, BoolGetDatum(true), false);
	sa_product_rows->delete_sessions(&of_products, &current, ending, ended);
	sa_arg(&old, BOOLOID, BoolGetDatum(false), false);
	sa_product_rows->delete_sessions(&of_products, &old, &ended_before, NULL);
}

/* What both triggers do: archive the rows, and tell of what that wrote to the feed. */
static Datum
archive_rows(FunctionCallInfo fcinfo, Archive *archive)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	SaEnding	by_hand = {.reason = "admin"};
	const SaEnding *ending = current_ending;
	SaEnded		nobody_asks = {0};
	SaEnded    *ended = current_ended;
	SaArgs		args = {0};
	int64		fed;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired after DELETE for each statement",
						archive->function)));

	if (tuplestore_tuple_count(trigdata->tg_oldtable) == 0)
		return PointerGetDatum(NULL);

	if (ending == NULL)
	{
		by_hand.at = GetCurrentTimestamp();
		ending = &by_hand;
		ended = &nobody_asks;
	}

	SPI_connect();
	SPI_register_trigger_data(trigdata);

	if (archive->sessions && sa_ending_reaches_products(ending) && archive_any_of_products(trigdata))
		archive_delete_of_products(ending, ended);

	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending->at), false);
	sa_arg_text(&args, ending->reason);
	sa_arg_text(&args, sa_actor_or_null());
	sa_arg(&args, BOOLOID, BoolGetDatum(!ending->options.caller_writes_feed), false);
	sa_arg(&args, BOOLOID, BoolGetDatum(ending->options.wants_users), false);
	sa_arg(&args, BOOLOID, BoolGetDatum(ending->options.may_return), false);
	sa_run(archive_all_were_valid(archive, trigdata, ending->at) ? &archive->of_valid : &archive->of_any,
		   &args);

	*(archive->sessions ? &ended->sessions_ended : &ended->tokens_revoked) += sa_result_int64(0, 1);
	archive_add_users(archive->sessions ? &ended->ended_users : &ended->revoked_users, ended->context);
	fed = sa_result_int64(0, 2);
	if (fed > 0)
		ended->id = sa_result_int64(0, 3);
	if (ending->options.had_ended)
		ForceSyncCommit();
	else if (fed > 0 || ending->options.caller_writes_feed)
		sa_commit_durably(archive_only_application(trigdata));
	if (fed == 1 && tuplestore_tuple_count(trigdata->tg_oldtable) == 1)
		archive_queue_only_row(archive, trigdata, ended->id, sa_result_text(0, 4));
	else if (fed > 0)
		sa_feed_queue_many(ended->id);

	SPI_finish();
	return PointerGetDatum(NULL);
}

/* The result of an Archive's statements. */
#define ARCHIVED_SQL \
	" SELECT (SELECT count(*) FROM gone WHERE ended_before IS NULL), count(*), max(id), min(reason)," \
	"  CASE WHEN $5 THEN ARRAY(SELECT user_name::text FROM gone WHERE ended_before IS NULL) END" \
	" FROM fed"

/*
 * How a row "o" of old_table had ended before, if it had: at e.ended_at, the first of the
 * ends that "d" lists.  View session_state says the same of rows that are there.
 */
#define JOIN_GENERATION_SQL \
	"  LEFT JOIN session_admin_internal.application_state a ON a.name = o.application" \
	"  LEFT JOIN session_admin_internal.time_limit t ON t.application = o.application" \
	"  LEFT JOIN session_admin_internal.application_generation g" \
	"    ON g.application = o.application AND g.generation = o.generation"

#define LATE_AND_GENERATION_END_SQL \
	"    CASE WHEN late.at IS NOT NULL THEN greatest(late.at, o.created_at) END AS late_end," \
	"    CASE WHEN o.generation <> a.generation" \
	"         THEN greatest(g.ended_at, a.restored_at, o.created_at) END AS generation_end"

/* A row that nobody ended has ended by time. */
#define HOW_ENDED_SQL(not_before, late, with_generation, by_time) \
	"CASE WHEN e.ended_at IS NULL THEN " not_before \
	" WHEN e.ended_at = d.late_end THEN " late \
	" WHEN e.ended_at = d.generation_end THEN " with_generation \
	" ELSE " by_time " END"

#define REASON_SQL(by_time) \
	HOW_ENDED_SQL("$2", "late.reason", "coalesce(g.reason, a.end_reason, 'admin')", by_time) \
	" AS end_reason"

/* What becomes of the rows "gone" of sessions: the end of both statements below. */
#define ARCHIVE_SESSIONS_SQL \
	"), archived AS (" \
	"  INSERT INTO session_admin_internal.ended_session (session_hash, application, created_at," \
	"    last_access_at, requests, user_name, login_method, client_address, peer_address," \
	"    log_id, user_agent, device, node, reauthenticated_at, ended_at, end_reason, ended_by," \
	"    actor)" \
	"  SELECT session_hash, application, created_at, last_access, request_count, user_name," \
	"    login_method, client_address, peer_address, log_id, user_agent, device, node," \
	"    reauthenticated_at," \
	"    coalesce(ended_before, $1), end_reason, ended_by, actor" \
	"  FROM gone" \
	"), remembered AS (" \
	"  INSERT INTO session_admin_internal.ended_id (session_hash, application, until)" \
	"  SELECT session_hash, application, until FROM (" \
	"    SELECT session_hash, application, session_admin_internal.ended_until(application, user_name," \
	"      product, idle_timeout, created_at, coalesce(ended_before, $1)) AS until" \
	"    FROM gone WHERE end_reason NOT IN ('idle_timeout', 'absolute_timeout', 'replaced')" \
	"      AND NOT (ended_before IS NULL AND $6)) e" \
	"  WHERE until > $1" \
	"), seen AS (" \
	"  INSERT INTO session_admin_internal.account_seen (application, user_name, at)" \
	"  SELECT application, user_name, last_access FROM gone WHERE user_name IS NOT NULL" \
	"), fed AS (" \
	"  INSERT INTO session_admin_internal.invalidation" \
	"    (at, scope, application, user_name, session_hash, reason, actor, sessions_ended)" \
	"  SELECT coalesce(ended_before, $1), 'session', application, user_name, session_hash," \
	"    end_reason, actor, CASE WHEN ended_before IS NULL THEN 1 ELSE 0 END" \
	"  FROM gone WHERE $4 AND generation_end IS NULL" \
	"  RETURNING id, reason" \
	")" ARCHIVED_SQL

/*
 * Trigger: sessions have left the table.  Which of them had ended before, and
 * how, is told as view session_state tells it.  What ended with its generation
 * is in the feed already.
 */
Datum
sa_session_ended(PG_FUNCTION_ARGS)
{
	static Archive archive = {
		.function = "session_ended",
		.sessions = true,
		.user_column = SA_SESSION_USER_NAME,
		.was_valid = archive_session_was_valid,
		.of_valid.sql =
		"WITH gone AS MATERIALIZED ("
		"  SELECT *, NULL::timestamptz AS generation_end, NULL::timestamptz AS ended_before,"
		"    $2 AS end_reason, session_user AS ended_by, $3 AS actor,"
		"    greatest(last_access_at, session_admin_internal.live_last_access(session_hash, application))"
		"      AS last_access,"
		"    requests + coalesce(session_admin_internal.live_requests(session_hash, application), 0)"
		"      AS request_count"
		"  FROM old_table"
		ARCHIVE_SESSIONS_SQL,
		.of_any.sql =
		"WITH gone AS MATERIALIZED ("
		"  SELECT o.*, least(d.generation_end, d.late_end) AS generation_end,"
		"         e.ended_at AS ended_before,"
		"    " REASON_SQL("CASE WHEN e.ended_at = d.absolute_end THEN 'absolute_timeout'"
						  " ELSE 'idle_timeout' END") ","
		"    " HOW_ENDED_SQL("session_user", "late.ended_by", "coalesce(g.ended_by, 'session_admin')",
							 "'session_admin'") " AS ended_by,"
		"    " HOW_ENDED_SQL("$3", "late.actor", "g.actor", "NULL") " AS actor,"
		"         l.last_access_at AS last_access, l.requests AS request_count"
		"  FROM old_table o"
		JOIN_GENERATION_SQL
		"  LEFT JOIN session_admin_internal.user_time_limit u"
		"    ON u.application = o.application AND u.user_name = o.user_name"
		"  CROSS JOIN LATERAL (SELECT"
		"    greatest(o.last_access_at,"
		"             session_admin_internal.live_last_access(o.session_hash, o.application)) AS last_access_at,"
		"    o.requests + coalesce(session_admin_internal.live_requests(o.session_hash, o.application), 0)"
		"      AS requests) l"
		"  LEFT JOIN LATERAL (SELECT l.at, l.reason, l.ended_by, l.actor"
		"    FROM " SA_LATE_ENDINGS_OF_SESSION("o")
		"    ORDER BY l.at, l.id LIMIT 1) late ON true"
		"  CROSS JOIN LATERAL (SELECT"
		"    l.last_access_at + CASE WHEN o.product IS NOT NULL THEN o.idle_timeout"
		"                            WHEN o.user_name IS NULL THEN t.anonymous_idle_timeout"
		"                            ELSE coalesce(u.idle_timeout, t.idle_timeout) END AS idle_end,"
		"    o.created_at + CASE WHEN o.product IS NOT NULL THEN NULL"
		"                        WHEN o.user_name IS NULL THEN t.anonymous_absolute_timeout"
		"                        ELSE coalesce(u.absolute_timeout, t.absolute_timeout) END AS absolute_end,"
		LATE_AND_GENERATION_END_SQL ") d"
		"  CROSS JOIN LATERAL (SELECT"
		"    CASE WHEN least(d.idle_end, d.absolute_end) <= $1 OR d.generation_end IS NOT NULL"
		"           OR d.late_end IS NOT NULL"
		"         THEN least(d.idle_end, d.absolute_end, d.generation_end, d.late_end) END AS ended_at) e"
		ARCHIVE_SESSIONS_SQL
	};
	Datum		result = archive_rows(fcinfo, &archive);
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	sa_tell_live_ended(trigdata);
	return result;
}

/* What becomes of the rows "gone" of tokens. */
#define ARCHIVE_TOKENS_SQL \
	"), ancestors AS (" \
	"  DELETE FROM session_admin_internal.remember_me_ancestor a USING old_table o" \
	"  WHERE a.series = o.series AND a.application = o.application" \
	"), archived AS (" \
	"  INSERT INTO session_admin_internal.login_event (at, application, user_name, event, succeeded," \
	"    login_method, client_address, user_agent, device, detail)" \
	"  SELECT coalesce(ended_before, $1), application, user_name, 'remember_me_revoked', true," \
	"    'remember_me', client_address, user_agent, device," \
	"    format('series %s, %s', series, end_reason)" \
	"  FROM gone" \
	"), fed AS (" \
	"  INSERT INTO session_admin_internal.invalidation" \
	"    (at, scope, application, user_name, reason, actor, tokens_revoked)" \
	"  SELECT $1, 'token', application, user_name, end_reason, $3, 1" \
	"  FROM gone WHERE $4 AND ended_before IS NULL" \
	"  RETURNING id, reason" \
	")" ARCHIVED_SQL

/*
 * Trigger: remember-me tokens have left the table.  Their history is an event
 * among the logins.
 */
Datum
sa_token_revoked(PG_FUNCTION_ARGS)
{
	static Archive archive = {
		.function = "token_revoked",
		.user_column = SA_TOKEN_USER_NAME,
		.was_valid = archive_token_was_valid,
		.of_valid.sql =
		"WITH gone AS MATERIALIZED ("
		"  SELECT *, NULL::timestamptz AS ended_before, $2 AS end_reason"
		"  FROM old_table"
		ARCHIVE_TOKENS_SQL,
		.of_any.sql =
		"WITH gone AS MATERIALIZED ("
		"  SELECT o.*, e.ended_at AS ended_before, " REASON_SQL("'absolute_timeout'")
		"  FROM old_table o"
		JOIN_GENERATION_SQL
		"  LEFT JOIN LATERAL (SELECT l.at, l.reason FROM " SA_LATE_ENDINGS_OF("o")
		"      AND l.tokens AND (l.user_name IS NULL OR l.user_name = o.user_name)"
		"    ORDER BY l.at, l.id LIMIT 1) late ON true"
		"  CROSS JOIN LATERAL (SELECT"
		"    o.created_at + t.remember_me_lifetime AS lifetime_end,"
		LATE_AND_GENERATION_END_SQL ") d"
		"  CROSS JOIN LATERAL (SELECT"
		"    CASE WHEN d.lifetime_end <= $1 OR d.generation_end IS NOT NULL OR d.late_end IS NOT NULL"
		"         THEN least(d.lifetime_end, d.generation_end, d.late_end) END AS ended_at) e"
		ARCHIVE_TOKENS_SQL
	};

	return archive_rows(fcinfo, &archive);
}

/*
 * Trigger before TRUNCATE of session or remember_me_token: the rows leave by
 * the same door first, as one invalidation.
 */
Datum
sa_truncated(PG_FUNCTION_ARGS)
{
	static SaStatement delete_sessions = {.sql = "DELETE FROM session_admin.session"};
	static SaStatement delete_tokens = {.sql = "DELETE FROM session_admin.remember_me_token"};
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	SaEnding	ending = {.reason = "admin",.options.caller_writes_feed = true};
	SaEnded		ended = {0};
	SaFeedRow	row = {0};
	bool		sessions;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"truncated\" must be fired before TRUNCATE for each statement")));

	sessions = strcmp(RelationGetRelationName(trigdata->tg_relation), "session") == 0;
	ending.at = GetCurrentTimestamp();
	row.scope = sessions ? "all" : "token";

	SPI_connect();
	sa_delete_for(&ending, &ended, sessions ? &delete_sessions : &delete_tokens, NULL);
	sa_feed_write(&row, &ending, &ended);
	sa_feed_queue(&row);
	SPI_finish();

	PG_RETURN_POINTER(NULL);
}
