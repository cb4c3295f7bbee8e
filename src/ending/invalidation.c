/*
 * invalidation.c
 *	  The one door: how sessions and remember-me tokens end.
 *
 * A session ends by its row leaving the table session, whoever deletes it, and
 * a remembered device by its row leaving remember_me_token.  The statement
 * triggers here archive the rows, write the feed and notify.  A function that
 * ends sessions only says why, in an SaEnding, and deletes; a DBA's own DELETE
 * has no SaEnding and counts as reason "admin".
 *
 * A session in a product's own table ends there, too: by who ends it, before the row
 * of session is locked, or else by the trigger; see forget.c.
 *
 * Everybody at once (invalidate_application, invalidate_all) touches no session:
 * it adds one to the application's generation, which is part of what makes a
 * session or a token valid.  The rows are archived later, through the same
 * triggers, which see from the generation when, why and by whom they ended.
 */
#include "session_admin.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

PG_FUNCTION_INFO_V1(sa_session_ended);
PG_FUNCTION_INFO_V1(sa_session_changed);
PG_FUNCTION_INFO_V1(sa_token_revoked);
PG_FUNCTION_INFO_V1(sa_truncated);
PG_FUNCTION_INFO_V1(sa_check_filter);
PG_FUNCTION_INFO_V1(sa_invalidate_session);
PG_FUNCTION_INFO_V1(sa_invalidate_sessions);
PG_FUNCTION_INFO_V1(sa_invalidate_user);
PG_FUNCTION_INFO_V1(sa_invalidate_application);
PG_FUNCTION_INFO_V1(sa_invalidate_all);

/*
 * When a whole generation ends, no more sessions than this are counted, and none in
 * a table of more bytes, whoever's they are.
 */
#define COUNT_MAX 1000
#define COUNT_MAX_BYTES (2 * 1024 * 1024)

/* So often sessions that match a filter are looked for while others get new ids. */
#define FIND_MAX 3

/* Why the rows that leave now do so; NULL: nobody said. */
SaEnding   *sa_ending = NULL;

/* Run a statement that deletes; the triggers learn why, and count. */
uint64
sa_run_ending(SaEnding *ending, SaStatement *statement, SaArgs *args)
{
	SaEnding   *outer = sa_ending;
	uint64		rows;

	sa_ending = ending;
	PG_TRY();
	{
		rows = sa_run(statement, args);
	}
	PG_FINALLY();
	{
		sa_ending = outer;
	}
	PG_END_TRY();

	return rows;
}

/* Was the session in this row valid until now? */
static bool
session_was_valid(TupleTableSlot *slot, const SaApplication *application, TimestampTz now)
{
	bool		isnull;
	Datum		user_name = slot_getattr(slot, SA_SESSION_USER_NAME, &isnull);
	SaSession	session = {0};
	bytea	   *hash;
	bool		valid;

	session.user_name = isnull ? NULL : TextDatumGetCString(user_name);
	session.user_key = sa_user_key(session.user_name);
	session.generation = DatumGetInt64(slot_getattr(slot, SA_SESSION_GENERATION, &isnull));
	session.created_at = DatumGetTimestampTz(slot_getattr(slot, SA_SESSION_CREATED_AT, &isnull));
	session.last_access_at = DatumGetTimestampTz(slot_getattr(slot, SA_SESSION_LAST_ACCESS_AT, &isnull));
	session.idle_timeout = sa_session_idle_timeout(slot);
	session.opened_xid = sa_session_opened_xid(slot);
	hash = DatumGetByteaPP(slot_getattr(slot, SA_SESSION_HASH, &isnull));

	valid = sa_session_is_valid(&session, application, (uint8 *) VARDATA_ANY(hash), now);
	if (session.user_name != NULL)
		pfree(session.user_name);
	return valid;
}

/* The same of a remember-me token. */
static bool
token_was_valid(TupleTableSlot *slot, const SaApplication *application, TimestampTz now)
{
	bool		isnull;

	/* of late endings, the tables tell */
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
all_were_valid(const Archive *archive, TriggerData *trigdata, TimestampTz now)
{
	Tuplestorestate *rows = trigdata->tg_oldtable;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(trigdata->tg_relation),
													&TTSOpsMinimalTuple);
	bool		valid = true;

	tuplestore_select_read_pointer(rows, tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND));
	tuplestore_rescan(rows);
	while (valid && tuplestore_gettupleslot(rows, true, false, slot))
	{
		bool		isnull;
		SaApplication application;

		/* the same column of both */
		char	   *name = TextDatumGetCString(slot_getattr(slot, SA_SESSION_APPLICATION, &isnull));

		valid = sa_application_find(name, &application) &&
			archive->was_valid(slot, &application, now);
		CHECK_FOR_INTERRUPTS();
		pfree(name);
	}
	tuplestore_select_read_pointer(rows, 0);
	ExecDropSingleTupleTableSlot(slot);
	return valid;
}

/* Add the users of what has ended, one a session or token, if they are given. */
static void
add_users(ArrayBuildState **users, MemoryContext context)
{
	bool		isnull;
	Datum		added = sa_result(0, 5, &isnull);
	Datum	   *names;
	int			n;

	if (isnull)
		return;
	deconstruct_array(DatumGetArrayTypeP(added), TEXTOID, -1, false, TYPALIGN_INT,
					  &names, NULL, &n);
	for (int i = 0; i < n; i++)
		*users = accumArrayResult(*users, names[i], false, TEXTOID, context);
}

/* As an array, null if there are none. */
static void
arg_users(SaArgs *args, ArrayBuildState *users)
{
	sa_arg(args, TEXTARRAYOID,
		   users ? makeArrayResult(users, CurrentMemoryContext) : (Datum) 0, users == NULL);
}

/* Tell of the only row that has left. */
static void
notify_only_row(const Archive *archive, TriggerData *trigdata, int64 id, const char *reason)
{
	Tuplestorestate *rows = trigdata->tg_oldtable;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(trigdata->tg_relation),
													&TTSOpsMinimalTuple);
	SaFeedRow	row = {.id = id, .reason = reason};
	bool		isnull;
	Datum		user_name;

	tuplestore_select_read_pointer(rows, tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND));
	tuplestore_rescan(rows);
	(void) tuplestore_gettupleslot(rows, true, false, slot);
	row.scope = archive->sessions ? "session" : "token";
	row.application = TextDatumGetCString(slot_getattr(slot, SA_SESSION_APPLICATION, &isnull));
	user_name = slot_getattr(slot, archive->user_column, &isnull);
	row.user_name = isnull ? NULL : TextDatumGetCString(user_name);
	if (archive->sessions)
		row.session_hash = (uint8 *) VARDATA_ANY(DatumGetByteaPP(slot_getattr(slot, SA_SESSION_HASH, &isnull)));
	sa_feed_notify(&row);
	tuplestore_select_read_pointer(rows, 0);
	ExecDropSingleTupleTableSlot(slot);
}

/* Is any of the rows a session in a product's own table? */
static bool
any_of_products(TriggerData *trigdata)
{
	Tuplestorestate *rows = trigdata->tg_oldtable;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(trigdata->tg_relation),
													&TTSOpsMinimalTuple);
	bool		any = false;

	tuplestore_select_read_pointer(rows, tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND));
	tuplestore_rescan(rows);
	while (!any && tuplestore_gettupleslot(rows, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		any = !slot_attisnull(slot, SA_SESSION_PRODUCT);
	}
	tuplestore_select_read_pointer(rows, 0);
	ExecDropSingleTupleTableSlot(slot);
	return any;
}

/* The application of the row, if there is only one. */
static char *
only_application(TriggerData *trigdata)
{
	Tuplestorestate *rows = trigdata->tg_oldtable;
	TupleTableSlot *slot;
	char	   *name;
	bool		isnull;

	if (tuplestore_tuple_count(rows) != 1)
		return NULL;
	slot = MakeSingleTupleTableSlot(RelationGetDescr(trigdata->tg_relation), &TTSOpsMinimalTuple);
	tuplestore_select_read_pointer(rows, tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND));
	tuplestore_rescan(rows);
	(void) tuplestore_gettupleslot(rows, true, false, slot);
	/* the same column of both tables */
	name = TextDatumGetCString(slot_getattr(slot, SA_SESSION_APPLICATION, &isnull));
	tuplestore_select_read_pointer(rows, 0);
	ExecDropSingleTupleTableSlot(slot);
	return name;
}

/* Both triggers: archive the rows, and tell of what that wrote to the feed. */
static Datum
archive_rows(FunctionCallInfo fcinfo, Archive *archive)
{
	/*
	 * what ended with its generation was deleted there then, but for what
	 * nobody saw
	 */
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
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	SaEnding	by_hand = {.reason = "admin"};
	SaEnding   *ending = sa_ending;
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
	}

	SPI_connect();
	SPI_register_trigger_data(trigdata);

	if (archive->sessions && !ending->spares_products && any_of_products(trigdata))
	{
		SaEnding	ended_before = {.reason = ending->reason, .at = ending->at};
		SaArgs		current = {0};
		SaArgs		old = {0};

		sa_arg(&current, BOOLOID, BoolGetDatum(true), false);
		sa_capture_forget_sessions(&of_products, &current, ending);
		sa_arg(&old, BOOLOID, BoolGetDatum(false), false);
		sa_capture_forget_sessions(&of_products, &old, &ended_before);
	}

	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending->at), false);
	sa_arg_text(&args, ending->reason);
	sa_arg_text(&args, sa_actor_or_null());
	sa_arg(&args, BOOLOID, BoolGetDatum(!ending->caller_writes_feed), false);
	sa_arg(&args, BOOLOID, BoolGetDatum(ending->wants_users), false);
	sa_arg(&args, BOOLOID, BoolGetDatum(ending->may_return), false);
	sa_run(all_were_valid(archive, trigdata, ending->at) ? &archive->of_valid : &archive->of_any,
		   &args);

	*(archive->sessions ? &ending->sessions_ended : &ending->tokens_revoked) += sa_result_int64(0, 1);
	add_users(archive->sessions ? &ending->ended_users : &ending->revoked_users, ending->context);
	fed = sa_result_int64(0, 2);
	if (fed > 0)
		ending->id = sa_result_int64(0, 3);
	if (ending->had_ended)
		ForceSyncCommit();
	else if (fed > 0 || ending->caller_writes_feed)
		sa_commit_durably(only_application(trigdata));
	if (fed == 1 && tuplestore_tuple_count(trigdata->tg_oldtable) == 1)
		notify_only_row(archive, trigdata, ending->id, sa_result_text(0, 4));
	else if (fed > 0)
		sa_feed_notify_many(ending->id);

	SPI_finish();
	return PointerGetDatum(NULL);
}

/* The rows of a transition table. */
typedef struct SessionRows
{
	Tuplestorestate *rows;
	int			read_pointer;
	TupleTableSlot *slot;
	int			hash_column;
	int			application_column;
	int			last_access_column;
	SaApplication application;	/* of the last row */
	SaLiveKey	key;			/* this and the next are the last row's, too */
	TimestampTz last_access_at;
} SessionRows;

static void
session_rows_begin(SessionRows *rows, Relation rel, Tuplestorestate *table)
{
	memset(rows, 0, sizeof(*rows));
	rows->rows = table;
	rows->read_pointer = tuplestore_alloc_read_pointer(table, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(table, rows->read_pointer);
	tuplestore_rescan(table);
	rows->slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsMinimalTuple);
	rows->hash_column = SPI_fnumber(RelationGetDescr(rel), "session_hash");
	rows->application_column = SPI_fnumber(RelationGetDescr(rel), "application");
	rows->last_access_column = SPI_fnumber(RelationGetDescr(rel), "last_access_at");
	rows->application.session_relid = RelationGetRelid(rel);
}

static void
session_rows_end(SessionRows *rows)
{
	tuplestore_select_read_pointer(rows->rows, 0);
	ExecDropSingleTupleTableSlot(rows->slot);
}

/* Go to the next row; false at the end. */
static bool
session_rows_next(SessionRows *rows)
{
	bool		isnull;
	char	   *name;
	bytea	   *hash;

	CHECK_FOR_INTERRUPTS();
	tuplestore_select_read_pointer(rows->rows, rows->read_pointer);
	if (!tuplestore_gettupleslot(rows->rows, true, false, rows->slot))
		return false;

	name = TextDatumGetCString(slot_getattr(rows->slot, rows->application_column, &isnull));
	/* the application itself may be gone, and be made again later */
	if (strcmp(rows->application.name, name) != 0)
	{
		strlcpy(rows->application.name, name, sizeof(rows->application.name));
		rows->application.key = sa_application_key(name);
	}
	pfree(name);
	hash = DatumGetByteaPP(slot_getattr(rows->slot, rows->hash_column, &isnull));
	sa_live_key(&rows->key, &rows->application, (uint8 *) VARDATA_ANY(hash));
	rows->last_access_at =
		DatumGetTimestampTz(slot_getattr(rows->slot, rows->last_access_column, &isnull));
	return true;
}

/*
 * Tell the shared table of live sessions which sessions end with this
 * transaction.
 */
static void
add_ended(TriggerData *trigdata)
{
	SessionRows old;

	session_rows_begin(&old, trigdata->tg_relation, trigdata->tg_oldtable);
	while (session_rows_next(&old))
		sa_pending_ended(&old.key);
	session_rows_end(&old);
}

/* And which rows change: both tables have them in the same order. */
static void
add_changed(TriggerData *trigdata)
{
	SessionRows old;
	SessionRows new;

	session_rows_begin(&old, trigdata->tg_relation, trigdata->tg_oldtable);
	session_rows_begin(&new, trigdata->tg_relation, trigdata->tg_newtable);
	while (session_rows_next(&old) && session_rows_next(&new))
	{
		bool		same_id = memcmp(&old.key, &new.key, sizeof(SaLiveKey)) == 0;

		/* under its old id there is no session any more */
		if (!same_id)
			sa_pending_ended(&old.key);
		sa_pending_changed(&new.key, !same_id || new.last_access_at < old.last_access_at);
	}
	session_rows_end(&old);
	session_rows_end(&new);
}

/*
 * Trigger: rows of session were updated, other than by a touch.  What the shared
 * table of live sessions has of them is read anew.  It still knows of touches that
 * are not written yet, unless the update has set back the last access.
 */
Datum
sa_session_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"session_changed\" must be fired after UPDATE for each statement")));

	if (!sa_session_writing)
		add_changed(trigdata);
	return PointerGetDatum(NULL);
}

/* The result of an Archive's statements. */
#define ARCHIVED_SQL \
	" SELECT (SELECT count(*) FROM gone WHERE ended_before IS NULL), count(*), max(id), min(reason)," \
	"  CASE WHEN $5 THEN ARRAY(SELECT user_name::text FROM gone WHERE ended_before IS NULL) END" \
	" FROM fed"

/* What becomes of the rows "gone": the end of both statements below. */
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
		.was_valid = session_was_valid,
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
		"         CASE WHEN e.ended_at IS NULL THEN $2"
		"              WHEN e.ended_at = d.late_end THEN late.reason"
		"              WHEN e.ended_at = d.generation_end THEN coalesce(g.reason, a.end_reason, 'admin')"
		"              WHEN e.ended_at = d.absolute_end THEN 'absolute_timeout'"
		"              ELSE 'idle_timeout' END AS end_reason,"
		"         CASE WHEN e.ended_at IS NULL THEN session_user"
		"              WHEN e.ended_at = d.late_end THEN late.ended_by"
		"              WHEN e.ended_at = d.generation_end THEN coalesce(g.ended_by, 'session_admin')"
		"              ELSE 'session_admin' END AS ended_by,"
		"         CASE WHEN e.ended_at IS NULL THEN $3"
		"              WHEN e.ended_at = d.late_end THEN late.actor"
		"              WHEN e.ended_at = d.generation_end THEN g.actor END AS actor,"
		"         l.last_access_at AS last_access, l.requests AS request_count"
		"  FROM old_table o"
		"  LEFT JOIN session_admin_internal.application_state a ON a.name = o.application"
		"  LEFT JOIN session_admin_internal.time_limit t ON t.application = o.application"
		"  LEFT JOIN session_admin_internal.user_time_limit u"
		"    ON u.application = o.application AND u.user_name = o.user_name"
		"  LEFT JOIN session_admin_internal.application_generation g"
		"    ON g.application = o.application AND g.generation = o.generation"
		"  CROSS JOIN LATERAL (SELECT"
		"    greatest(o.last_access_at,"
		"             session_admin_internal.live_last_access(o.session_hash, o.application)) AS last_access_at,"
		"    o.requests + coalesce(session_admin_internal.live_requests(o.session_hash, o.application), 0)"
		"      AS requests) l"
		"  LEFT JOIN LATERAL (SELECT l.at, l.reason, l.ended_by, l.actor"
		"    FROM " SA_LATE_ENDINGS_OF_SESSION("o")
		"    ORDER BY l.at, l.id LIMIT 1) late ON true"
		"  CROSS JOIN LATERAL (SELECT"
		"    CASE WHEN late.at IS NOT NULL THEN greatest(late.at, o.created_at) END AS late_end,"
		"    l.last_access_at + CASE WHEN o.product IS NOT NULL THEN o.idle_timeout"
		"                            WHEN o.user_name IS NULL THEN t.anonymous_idle_timeout"
		"                            ELSE coalesce(u.idle_timeout, t.idle_timeout) END AS idle_end,"
		"    o.created_at + CASE WHEN o.product IS NOT NULL THEN NULL"
		"                        WHEN o.user_name IS NULL THEN t.anonymous_absolute_timeout"
		"                        ELSE coalesce(u.absolute_timeout, t.absolute_timeout) END AS absolute_end,"
		"    CASE WHEN o.generation <> a.generation"
		"         THEN greatest(g.ended_at, a.restored_at, o.created_at) END AS generation_end) d"
		"  CROSS JOIN LATERAL (SELECT"
		"    CASE WHEN least(d.idle_end, d.absolute_end) <= $1 OR d.generation_end IS NOT NULL"
		"           OR d.late_end IS NOT NULL"
		"         THEN least(d.idle_end, d.absolute_end, d.generation_end, d.late_end) END AS ended_at) e"
		ARCHIVE_SESSIONS_SQL
	};
	Datum		result = archive_rows(fcinfo, &archive);
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	add_ended(trigdata);
	return result;
}

/* The same of tokens. */
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
		.was_valid = token_was_valid,
		.of_valid.sql =
		"WITH gone AS MATERIALIZED ("
		"  SELECT *, NULL::timestamptz AS ended_before, $2 AS end_reason"
		"  FROM old_table"
		ARCHIVE_TOKENS_SQL,
		.of_any.sql =
		"WITH gone AS MATERIALIZED ("
		"  SELECT o.*, e.ended_at AS ended_before,"
		"         CASE WHEN e.ended_at IS NULL THEN $2"
		"              WHEN e.ended_at = d.late_end THEN late.reason"
		"              WHEN e.ended_at = d.generation_end THEN coalesce(g.reason, a.end_reason, 'admin')"
		"              ELSE 'absolute_timeout' END AS end_reason"
		"  FROM old_table o"
		"  LEFT JOIN session_admin_internal.application_state a ON a.name = o.application"
		"  LEFT JOIN session_admin_internal.time_limit t ON t.application = o.application"
		"  LEFT JOIN session_admin_internal.application_generation g"
		"    ON g.application = o.application AND g.generation = o.generation"
		"  LEFT JOIN LATERAL (SELECT l.at, l.reason FROM " SA_LATE_ENDINGS_OF("o")
		"      AND l.tokens AND (l.user_name IS NULL OR l.user_name = o.user_name)"
		"    ORDER BY l.at, l.id LIMIT 1) late ON true"
		"  CROSS JOIN LATERAL (SELECT"
		"    CASE WHEN late.at IS NOT NULL THEN greatest(late.at, o.created_at) END AS late_end,"
		"    o.created_at + t.remember_me_lifetime AS lifetime_end,"
		"    CASE WHEN o.generation <> a.generation"
		"         THEN greatest(g.ended_at, a.restored_at, o.created_at) END AS generation_end) d"
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
	SaEnding	ending = {.reason = "admin", .caller_writes_feed = true};
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
	sa_run_ending(&ending, sessions ? &delete_sessions : &delete_tokens, NULL);
	sa_feed_write(&row, &ending);
	sa_feed_notify(&row);
	SPI_finish();

	PG_RETURN_POINTER(NULL);
}

/* The one name in an array of text. */
static char *
only_name(ArrayType *names)
{
	Datum	   *values;
	int			n;

	deconstruct_array(names, TEXTOID, -1, false, TYPALIGN_INT, &values, NULL, &n);
	return TextDatumGetCString(values[0]);
}

/* What sa_end_users locks. */
typedef struct UsersLock
{
	const char *application;
	ArrayType  *user_names;
	const uint8 *keep_session;
	bool		keep_remember_me;
	SaEnding   *ending;
	List	   *forgets;		/* the products' rows */
	ArrayBuildState *left;		/* users, of whom somebody has something
								 * locked */
	ArrayBuildState *sessions_left; /* the same, one a session */
	ArrayBuildState *tokens_left;
} UsersLock;

static void
lock_users(SaBusy *busy, void *argument)
{
	static SaStatement find_sessions = {.sql =
		"SELECT ctid, user_name::text FROM session_admin.session"
		" WHERE application = $1 AND user_name = ANY ($2)"
		"   AND session_hash IS DISTINCT FROM $3"
		" ORDER BY session_hash"
	};
	static SaStatement find_tokens = {.sql =
		"SELECT ctid, user_name::text FROM session_admin.remember_me_token"
		" WHERE application = $1 AND user_name = ANY ($2) ORDER BY series"
	};
	UsersLock  *lock = argument;
	const uint8 *keep = lock->keep_session;
	SaArgs		args = {0};
	SaArgs		session_args;

	lock->left = lock->sessions_left = lock->tokens_left = NULL;
	if (!lock->ending->spares_products)
	{
		lock->forgets = sa_forgets_of_users(lock->application, lock->user_names, keep,
											lock->keep_remember_me);
		sa_forget_lock(lock->forgets, busy);
	}
	sa_arg_text(&args, lock->application);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(lock->user_names), false);
	session_args = args;
	sa_arg(&session_args, BYTEAOID,
		   keep ? PointerGetDatum(sa_bytea(keep, SA_HASH_LEN)) : (Datum) 0, keep == NULL);
	if (!SA_STOPS(busy))
		sa_accounts_try(lock->application, lock->user_names, &lock->left, busy);
	if (!SA_STOPS(busy))
		sa_lock_found(SA_TABLE_SESSION, LockTupleExclusive, &find_sessions, &session_args, TEXTOID,
					  NULL, &lock->sessions_left, busy);
	if (!SA_STOPS(busy) && !lock->keep_remember_me)
		sa_lock_found(SA_TABLE_REMEMBER_ME_TOKEN, LockTupleExclusive, &find_tokens, &args, TEXTOID,
					  NULL, &lock->tokens_left, busy);
}

/* Of the names in all these lists, each one once. */
static ArrayType *
all_names(ArrayBuildState **lists, int n)
{
	static SaStatement collect = {.sql =
		"SELECT coalesce(array_agg(DISTINCT name), '{}') FROM unnest($1::text[]) AS name"
	};
	ArrayBuildState *all = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	SaArgs		args = {0};
	bool		isnull;

	for (int list = 0; list < n; list++)
	{
		for (int i = 0; lists[list] != NULL && i < lists[list]->nelems; i++)
			accumArrayResult(all, lists[list]->dvalues[i], false, TEXTOID, CurrentMemoryContext);
	}
	sa_arg(&args, TEXTARRAYOID, makeArrayResult(all, CurrentMemoryContext), false);
	sa_run(&collect, &args);
	return DatumGetArrayTypePCopy(sa_result(0, 1, &isnull));
}

/*
 * Users of whom somebody has something locked, be it only the account, as who logs in
 * has: all that they have by now ends late.  Their sessions are counted here.
 */
static void
end_users_late(UsersLock *lock)
{
	ArrayBuildState *lists[] = {lock->left, lock->sessions_left, lock->tokens_left};
	SaEnding   *ending = lock->ending;
	ArrayType  *names = ending->first_login || sa_forgets_busy(lock->forgets) ?
	lock->user_names : all_names(lists, lengthof(lists));
	Datum	   *values;
	int			n;

	deconstruct_array(names, TEXTOID, -1, false, TYPALIGN_INT, &values, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		sa_late_end(lock->application, TextDatumGetCString(values[i]), NULL, lock->keep_session,
					!lock->keep_remember_me, ending);
	}
	for (int i = 0; lock->sessions_left && i < lock->sessions_left->nelems; i++)
	{
		ending->sessions_ended++;
		if (ending->wants_users)
			ending->ended_users = accumArrayResult(ending->ended_users,
												   lock->sessions_left->dvalues[i], false,
												   TEXTOID, ending->context);
	}
	for (int i = 0; lock->tokens_left && i < lock->tokens_left->nelems; i++)
	{
		ending->tokens_revoked++;
		if (ending->wants_users)
			ending->revoked_users = accumArrayResult(ending->revoked_users,
													 lock->tokens_left->dvalues[i], false,
													 TEXTOID, ending->context);
	}
}

/*
 * End all sessions of these users (an array of text, all of one application)
 * and, unless kept, their remember-me tokens, ours and the product's own.  Each
 * user gets one row of the feed; there is one notification.  What somebody has locked is
 * waited for only as lock.c says.  The caller is connected to SPI and has set reason and
 * time.
 */
void
sa_end_users(const char *application, ArrayType *user_names, const uint8 *keep_session,
			 bool keep_remember_me, SaEnding *ending)
{
	static SaStatement end_sessions = {.sql =
		"DELETE FROM session_admin.session WHERE ctid = ANY (ARRAY("
		"  SELECT ctid FROM session_admin.session"
		"  WHERE application = $1 AND user_name = ANY ($2)"
		"    AND session_hash IS DISTINCT FROM $3 FOR UPDATE SKIP LOCKED))"
	};
	static SaStatement end_tokens = {.sql =
		"DELETE FROM session_admin.remember_me_token WHERE ctid = ANY (ARRAY("
		"  SELECT ctid FROM session_admin.remember_me_token"
		"  WHERE application = $1 AND user_name = ANY ($2) FOR UPDATE SKIP LOCKED))"
	};

	/* whose row in a product's table was one of these users' */
	static SaStatement end_forgotten = {.sql =
		"DELETE FROM session_admin.session WHERE ctid = ANY (ARRAY("
		"  SELECT ctid FROM session_admin.session"
		"  WHERE application = $1 AND session_hash = ANY ($2) FOR UPDATE SKIP LOCKED))"
	};
	static SaStatement feed_users = {.sql =
		"INSERT INTO session_admin_internal.invalidation (at, scope, application, user_name,"
		"  session_hash, reason, actor, sessions_ended, tokens_revoked)"
		" SELECT $4, 'user', $1, u.name, $3, $5, $6, coalesce(e.n, 0), coalesce(r.n, 0)"
		" FROM unnest($2) WITH ORDINALITY AS u (name, n)"
		" LEFT JOIN (SELECT name, count(*) AS n FROM unnest($7) AS e (name) GROUP BY name) e"
		"   ON e.name = u.name"
		" LEFT JOIN (SELECT name, count(*) AS n FROM unnest($8) AS r (name) GROUP BY name) r"
		"   ON r.name = u.name"
		" ORDER BY u.n"
		" RETURNING id"
	};
	int			n_users = ArrayGetNItems(ARR_NDIM(user_names), ARR_DIMS(user_names));
	SaEnding	these = {
		.reason = ending->reason,
		.at = ending->at,
		.caller_writes_feed = true,
		.spares_products = ending->spares_products,
		.wait_until = ending->wait_until,
		.first_login = ending->first_login,
		.wants_users = n_users > 1,
		.context = CurrentMemoryContext
	};
	UsersLock	lock = {
		.application = application,
		.user_names = user_names,
		.keep_session = keep_session,
		.keep_remember_me = keep_remember_me,
		.ending = &these
	};
	SaArgs		args = {0};

	if (n_users == 0)
		return;

	sa_lock_all(ending->wait_until, lock_users, &lock);
	sa_forget(lock.forgets, &these);
	these.spares_products = true;

	sa_arg_text(&args, application);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(user_names), false);
	if (!keep_remember_me)
		sa_run_ending(&these, &end_tokens, &args);
	sa_arg(&args, BYTEAOID,
		   keep_session ? PointerGetDatum(sa_bytea(keep_session, SA_HASH_LEN)) : (Datum) 0,
		   keep_session == NULL);
	sa_run_ending(&these, &end_sessions, &args);
	if (these.forgotten != NULL)
	{
		SaArgs		forgotten = {0};

		sa_arg_text(&forgotten, application);
		sa_arg(&forgotten, BYTEAARRAYOID, makeArrayResult(these.forgotten, CurrentMemoryContext),
			   false);
		sa_run_ending(&these, &end_forgotten, &forgotten);
	}

	/*
	 * a product's row that is written now may be about to go on under another
	 * id
	 */
	if (lock.left || lock.sessions_left || lock.tokens_left || these.first_login ||
		sa_forgets_busy(lock.forgets))
		end_users_late(&lock);

	if (ending->caller_writes_feed)
		these.id = ending->id;
	else if (n_users == 1)
	{
		SaFeedRow	row = {
			.scope = "user",
			.application = application,
			.user_name = only_name(user_names),
			.session_hash = keep_session
		};

		sa_feed_write(&row, &these);
		these.id = row.id;
		if (!ending->caller_notifies)
			sa_feed_notify(&row);
	}
	else
	{
		sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending->at), false);
		sa_arg_text(&args, ending->reason);
		sa_arg_text(&args, sa_actor_or_null());
		arg_users(&args, these.ended_users);
		arg_users(&args, these.revoked_users);
		these.id = sa_result_int64(sa_run(&feed_users, &args) - 1, 1);
		sa_commit_durably(application);
		if (!ending->caller_notifies)
			sa_feed_notify_many(these.id);
	}
	ending->id = these.id;
	ending->sessions_ended += these.sessions_ended;
	ending->tokens_revoked += these.tokens_revoked;
}

/* The same for one user. */
void
sa_end_user(const char *application, const char *user_name, const uint8 *keep_session,
			bool keep_remember_me, SaEnding *ending)
{
	Datum		name = CStringGetTextDatum(user_name);

	sa_end_users(application, construct_array(&name, 1, TEXTOID, -1, false, TYPALIGN_INT),
				 keep_session, keep_remember_me, ending);
}

/* What sa_end_sessions locks: these, or those that are found. */
typedef struct SessionsLock
{
	ArrayType  *hashes;
	ArrayType  *(*find) (void *);
	void	   *argument;
	const char *application;
	const char *user_name;		/* all of this user, NULL: no matter whose */
	bool		spares_products;
	List	   *forgets;
	ArrayBuildState *left;		/* hashes, of what somebody has locked */
	ArrayBuildState *account_left;	/* that of the user */
} SessionsLock;

static void
lock_these_sessions(SessionsLock *lock, SaBusy *busy)
{
	static SaStatement of_products = {.sql =
		"SELECT application::text, product::text,"
		"  array_agg(product_key::text) FILTER (WHERE product_key IS NOT NULL),"
		"  array_agg(session_hash) FILTER (WHERE product_key IS NULL),"
		"  array_agg(session_hash)"
		" FROM session_admin.session"
		" WHERE session_hash = ANY ($1) AND application = $2 AND product IS NOT NULL"
		" GROUP BY application, product"
	};
	static SaStatement find_sessions = {.sql =
		"SELECT ctid, session_hash FROM session_admin.session"
		" WHERE session_hash = ANY ($1) AND application = $2 ORDER BY session_hash"
	};
	SaArgs		args = {0};

	lock->left = NULL;

	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(lock->hashes), false);
	sa_arg_text(&args, lock->application);
	if (!lock->spares_products)
	{
		lock->forgets = sa_forgets_of_sessions(&of_products, &args);
		sa_forget_lock(lock->forgets, busy);
	}
	if (!SA_STOPS(busy))
		sa_lock_found(SA_TABLE_SESSION, LockTupleExclusive, &find_sessions, &args, BYTEAOID, NULL,
					  &lock->left, busy);
}

/* Those that are in both arrays; *all: all of the second. */
static ArrayType *
in_both(ArrayType *a, ArrayType *b, bool *all)
{
	static SaStatement intersect = {.sql =
		"SELECT array_agg(h) FILTER (WHERE h = ANY ($1)), coalesce(bool_and(h = ANY ($1)), true)"
		" FROM unnest($2) AS h"
	};
	SaArgs		args = {0};
	Datum		result;
	bool		isnull;

	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(a), false);
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(b), false);
	sa_run(&intersect, &args);
	*all = DatumGetBool(sa_result(0, 2, &isnull));
	result = sa_result(0, 1, &isnull);
	return isnull ? construct_empty_array(BYTEAOID) : DatumGetArrayTypePCopy(result);
}

/*
 * Lock sessions.  Those that are looked for are looked for again, as they may be somebody
 * else's by now, or go on under a new id.
 */
static void
lock_sessions(SaBusy *busy, void *argument)
{
	SessionsLock *lock = argument;
	bool		all;

	lock->account_left = NULL;
	if (lock->user_name != NULL)
	{
		Datum		name = CStringGetTextDatum(lock->user_name);

		sa_accounts_try(lock->application,
						construct_array(&name, 1, TEXTOID, -1, false, TYPALIGN_INT),
						&lock->account_left, busy);
	}
	if (SA_STOPS(busy))
		return;
	if (lock->find != NULL)
		lock->hashes = lock->find(lock->argument);
	for (int i = 0; i < FIND_MAX; i++)
	{
		ArrayType  *again;

		lock_these_sessions(lock, busy);
		if (lock->find == NULL || SA_STOPS(busy))
			return;
		again = lock->find(lock->argument);
		lock->hashes = in_both(lock->hashes, again, &all);
		if (all)
			break;
		lock->hashes = again;
	}
	/* only now is it known which these are */
	if (!lock->spares_products)
		lock->forgets = sa_forgets_keep(lock->forgets, lock->hashes);
}

/* Sessions that somebody has locked end late; nodes are told of them now. */
static void
end_sessions_late(SessionsLock *lock, SaEnding *ending)
{
	for (int i = 0; i < lock->left->nelems; i++)
	{
		bytea	   *hash = DatumGetByteaPP(lock->left->dvalues[i]);
		SaFeedRow	row = {
			.scope = "session",
			.application = lock->application,
			.session_hash = (uint8 *) VARDATA_ANY(hash)
		};
		SaEnding	one = {.reason = ending->reason, .at = ending->at, .sessions_ended = 1};
		SaApplication application;
		SaSession	session;

		/* what has ended by itself is not ended once more */
		if (!sa_application_find(lock->application, &application) ||
			!sa_session_read(row.session_hash, lock->application, &session) ||
			!sa_session_is_valid(&session, &application, row.session_hash, ending->at))
			continue;
		row.user_name = session.user_name;
		sa_late_end(lock->application, NULL, row.session_hash, NULL, false, ending);
		ending->sessions_ended++;
		if (ending->caller_writes_feed)
			continue;
		sa_feed_write(&row, &one);
		ending->id = row.id;
		sa_feed_notify(&row);
	}
}

static uint64
end_sessions(SessionsLock *lock, SaEnding *ending)
{
	static SaStatement delete_sessions = {.sql =
		"DELETE FROM session_admin.session WHERE ctid = ANY (ARRAY("
		"  SELECT ctid FROM session_admin.session"
		"  WHERE session_hash = ANY ($1) AND application = $2 FOR UPDATE SKIP LOCKED))"
	};
	bool		spares_products = ending->spares_products;
	SaArgs		args = {0};
	uint64		rows;

	lock->spares_products = spares_products;
	sa_lock_all(ending->wait_until, lock_sessions, lock);
	sa_forget(lock->forgets, ending);
	ending->spares_products = true;
	sa_arg(&args, BYTEAARRAYOID, PointerGetDatum(lock->hashes), false);
	sa_arg_text(&args, lock->application);
	rows = sa_run_ending(ending, &delete_sessions, &args);
	if (lock->left != NULL)
		end_sessions_late(lock, ending);
	/* whoever has the account, or a session, may have one that nobody sees */
	if (lock->user_name != NULL &&
		(lock->left || lock->account_left || sa_forgets_busy(lock->forgets)))
		sa_late_end(lock->application, lock->user_name, NULL, NULL, false, ending);
	ending->spares_products = spares_products;
	return rows;
}

/*
 * End these sessions (an array of hashes, all of one application).  The caller is
 * connected to SPI and has set reason and time.  Returns how many rows there were.
 */
uint64
sa_end_sessions(ArrayType *hashes, const char *application, SaEnding *ending)
{
	SessionsLock lock = {.hashes = hashes, .application = application};

	return end_sessions(&lock, ending);
}

/* The same for one session. */
uint64
sa_end_session(const uint8 *hash, const char *application, SaEnding *ending)
{
	Datum		value = PointerGetDatum(sa_bytea(hash, SA_HASH_LEN));

	return sa_end_sessions(construct_array(&value, 1, BYTEAOID, -1, false, TYPALIGN_INT),
						   application, ending);
}

/* (invalidation_id, sessions_ended, tokens_revoked); negative: not counted. */
Datum
sa_ending_result(FunctionCallInfo fcinfo, const SaEnding *ending)
{
	TupleDesc	tupdesc;
	Datum		values[3];
	bool		nulls[3];

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	values[0] = Int64GetDatum(ending->id);
	nulls[0] = ending->id == 0;
	values[1] = Int64GetDatum(ending->sessions_ended);
	nulls[1] = ending->sessions_ended < 0;
	values[2] = Int64GetDatum(ending->tokens_revoked);
	nulls[2] = ending->tokens_revoked < 0;

	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

/* The reason argument; null is "admin". */
static char *
reason_arg(FunctionCallInfo fcinfo, int argno)
{
	char	   *reason = sa_text_or_null(fcinfo, argno);

	if (reason == NULL)
		return pstrdup("admin");
	sa_check_reason(reason);
	return reason;
}

/*
 * check_filter(filters, idle_for): no filter at all, or sessions that were used
 * before the future, is a slip, not everybody
 */
Datum
sa_check_filter(PG_FUNCTION_ARGS)
{
	Interval	zero = {0};

	if (PG_ARGISNULL(0) || PG_GETARG_INT32(0) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no filter is given"),
				 errhint("Use invalidate_application() to log everybody out.")));
	if (!PG_ARGISNULL(1) &&
		DatumGetBool(DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(1), IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idle_for must not be negative")));
	PG_RETURN_BOOL(true);
}

/* invalidate_session(session_ref, reason, application) */
Datum
sa_invalidate_session(PG_FUNCTION_ARGS)
{
	char	   *ref = sa_text_or_null(fcinfo, 0);
	SaEnding	ending = {.reason = reason_arg(fcinfo, 1)};
	char	   *application = sa_application_arg(fcinfo, 2);
	uint8		hash[SA_HASH_LEN];

	if (ref == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("session_ref must not be null")));

	SPI_connect();
	ending.wait_until = sa_wait_until();
	sa_session_by_ref(ref, application, hash);
	ending.at = GetCurrentTimestamp();
	sa_end_session(hash, application, &ending);
	if (ending.sessions_ended == 0)
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("session \"%s\" has just ended or been renewed", text_to_cstring(sa_ref_text(hash))),
				 errhint("See view session_admin.current_sessions for those that are live.")));
	SPI_finish();

	return sa_ending_result(fcinfo, &ending);
}

/* Those that match the filters; the arguments are of sessions_to_invalidate. */
static ArrayType *
find_matching(void *argument)
{
	static SaStatement find_sessions = {.sql =
		"SELECT coalesce(array_agg(session_hash), '{}')"
		" FROM session_admin_internal.sessions_to_invalidate($1, $2, $3, $4, $5, $6, $7, $8)"
	};
	bool		isnull;

	sa_run(&find_sessions, argument);
	return DatumGetArrayTypePCopy(sa_result(0, 1, &isnull));
}

/*
 * invalidate_sessions(user_name, address, user_agent_like, node, idle_for,
 * opened_before, anonymous, reason, application): those that
 * preview_invalidation shows for the same filters, which also checks them.
 */
Datum
sa_invalidate_sessions(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, CIDROID, TEXTOID, TEXTOID, INTERVALOID, TIMESTAMPTZOID, BOOLOID};
	SaEnding	ending = {.reason = reason_arg(fcinfo, 7)};
	char	   *application = sa_application_arg(fcinfo, 8);
	SaArgs		args = {0};
	SessionsLock lock = {.find = find_matching, .argument = &args, .application = application};

	for (size_t i = 0; i < lengthof(types); i++)
		sa_arg(&args, types[i], PG_GETARG_DATUM(i), PG_ARGISNULL(i));
	sa_arg_text(&args, application);

	SPI_connect();
	ending.wait_until = sa_wait_until();
	ending.at = GetCurrentTimestamp();
	/* with the user as the only filter, it is all that the user has */
	if (!PG_ARGISNULL(0))
	{
		lock.user_name = text_to_cstring(PG_GETARG_TEXT_PP(0));
		for (size_t i = 1; i < lengthof(types); i++)
		{
			if (!PG_ARGISNULL(i))
				lock.user_name = NULL;
		}
	}
	(void) end_sessions(&lock, &ending);
	SPI_finish();

	return sa_ending_result(fcinfo, &ending);
}

typedef struct AccountMaking
{
	const char *application;
	const char *user_name;
	bool		made;
} AccountMaking;

static void
make_account(SaBusy *busy, void *argument)
{
	static SaStatement insert_account = {.sql =
		"INSERT INTO session_admin_internal.account (application, user_name) VALUES ($1, $2)"
		" ON CONFLICT (application, user_name) DO NOTHING"
	};
	AccountMaking *making = argument;
	SaArgs		args = {0};

	(void) busy;
	sa_arg_text(&args, making->application);
	sa_arg_text(&args, making->user_name);
	making->made = sa_run(&insert_account, &args) > 0;
}

/*
 * Is there an account of this name?  A first login that is under way has made one that
 * nobody sees: it is waited for, by making one, too.
 */
static bool
user_is_known(const char *application, const char *user_name, SaEnding *ending)
{
	static SaStatement find_account = {.sql =
		"SELECT FROM session_admin_internal.account WHERE application = $1 AND user_name = $2"
	};
	AccountMaking making = {application, user_name, false};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	if (sa_run(&find_account, &args) > 0)
		return true;
	ending->first_login = !sa_wait_with(ending->wait_until, make_account, &making);
	return ending->first_login || !making.made;
}

/* invalidate_user(user_name, keep_session, keep_remember_me, reason, application) */
Datum
sa_invalidate_user(PG_FUNCTION_ARGS)
{
	char	   *user_name = sa_user_name_arg(fcinfo, 0);
	SaSessionId keep;
	bool		has_keep = !PG_ARGISNULL(1);
	bool		keep_remember_me = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	SaEnding	ending = {.reason = reason_arg(fcinfo, 3)};
	char	   *application = sa_application_arg(fcinfo, 4);

	if (has_keep)
		sa_session_id_arg(fcinfo, 1, &keep);

	SPI_connect();
	ending.wait_until = sa_wait_until();
	if (!user_is_known(application, user_name, &ending))
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("user \"%s\" is not known in application \"%s\"",
						sa_clean(user_name, strlen(user_name), SA_USER_NAME_MAX), application),
				 errhint("See view session_admin.last_login for the users that are.")));
	ending.at = GetCurrentTimestamp();
	sa_end_user(application, user_name, has_keep ? keep.hash : NULL, keep_remember_me, &ending);
	SPI_finish();

	return sa_ending_result(fcinfo, &ending);
}

/*
 * How many are live; the first statement counts them all.  Negative if that would
 * cost more than the rest, however many they are.
 */
static int64
count_live(SaStatement *count_all, SaStatement *count, const char *application)
{
	SaArgs		args = {0};
	int64		n;

	sa_arg_text(&args, application);
	sa_arg(&args, INT8OID, Int64GetDatum(COUNT_MAX_BYTES), false);
	sa_run(count_all, &args);
	n = sa_result_int64(0, 1);
	if (n == 0)
		return 0;
	if (n < 0 || n > COUNT_MAX)
		return -1;

	args.n--;
	sa_run(count, &args);
	return sa_result_int64(0, 1);
}

/* What sa_end_generation locks. */
typedef struct GenerationLock
{
	const char *application;	/* NULL: all */
	ArrayBuildState *locked;	/* their names */
	ArrayBuildState *left;		/* of those that somebody else has locked */
	bool		unseen;			/* somebody may be making one more */
} GenerationLock;

/*
 * Lock applications: who ends them at the same time does so first.  Of one that is being
 * made now, sessions may be open already.
 */
static void
lock_applications(SaBusy *busy, void *argument)
{
	static SaStatement find_applications = {.sql =
		"SELECT ctid, name::text FROM session_admin.application"
		" WHERE $1 IS NULL OR name = $1 ORDER BY name"
	};
	GenerationLock *lock = argument;
	SaArgs		args = {0};

	lock->locked = lock->left = NULL;
	lock->unseen = lock->application == NULL && sa_others_write(SA_TABLE_APPLICATION, busy);
	if (SA_STOPS(busy))
		return;
	sa_arg_text(&args, lock->application);
	sa_lock_found(SA_TABLE_APPLICATION, LockTupleNoKeyExclusive, &find_applications, &args, TEXTOID,
				  &lock->locked, &lock->left, busy);
}

/* The names as an array, which are read again later. */
static Datum
names_array(ArrayBuildState *names)
{
	if (names == NULL)
		return (Datum) 0;
	return PointerGetDatum(construct_array(names->dvalues, names->nelems, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* Empty the products' own tables of these applications. */
static void
forget_applications(ArrayBuildState *names, bool in_vain, SaEnding *ending)
{
	for (int i = 0; names != NULL && i < names->nelems; i++)
	{
		SaEnding	forgotten = {
			.reason = ending->reason,
			.at = ending->at,
			.spares_products = ending->spares_products,
			/* who came since then is not told of */
			.wait_until = in_vain ? ending->wait_until : 0
		};

		sa_capture_forget_application(TextDatumGetCString(names->dvalues[i]), &forgotten);
		if (ending->tokens_revoked >= 0)
			ending->tokens_revoked += forgotten.tokens_revoked;
	}
}

/*
 * End the generation of one application, or of all.  What it ended is counted
 * only as far as that costs nothing, however many they are.  The caller is
 * connected to SPI and has set reason and time.
 */
void
sa_end_generation(const char *application, SaEnding *ending)
{
	static SaStatement count_sessions = {.generic = true, .sql =
		"SELECT CASE WHEN pg_relation_size('session_admin.session') <= $2"
		"  THEN (SELECT count(*) FROM session_admin.session"
		"    WHERE $1 IS NULL OR application = $1) ELSE -1 END"
	};
	static SaStatement count_live_sessions = {.generic = true, .sql =
		"SELECT count(*) FROM session_admin_internal.session_state"
		" WHERE ($1 IS NULL OR application = $1) AND ended_at IS NULL"
	};
	static SaStatement count_tokens = {.generic = true, .sql =
		"SELECT CASE WHEN pg_relation_size('session_admin.remember_me_token') <= $2"
		"  THEN (SELECT count(*) FROM session_admin.remember_me_token"
		"    WHERE $1 IS NULL OR application = $1) ELSE -1 END"
	};
	static SaStatement count_live_tokens = {.generic = true, .sql =
		"SELECT count(*) FROM session_admin.remember_me_token t"
		" JOIN session_admin_internal.application_state a"
		"   ON a.name = t.application AND a.generation = t.generation"
		" JOIN session_admin_internal.time_limit l ON l.application = t.application"
		"   AND t.created_at + l.remember_me_lifetime > clock_timestamp()"
		" WHERE ($1 IS NULL OR t.application = $1)"
		"   AND NOT " SA_TOKEN_ENDED_LATE("t")
	};
	static SaStatement next_generation = {.sql =
		"WITH locked AS ("
		"  SELECT name, generation FROM session_admin.application"
		"  WHERE name = ANY ($1) ORDER BY name FOR NO KEY UPDATE"
		"), noted AS ("
		"  INSERT INTO session_admin_internal.application_generation"
		"    (application, generation, ended_at, reason, ended_by, actor)"
		"  SELECT name, generation, $2, $3, coalesce($5, session_user), $4 FROM locked"
		")"
		" UPDATE session_admin.application a SET generation = locked.generation + 1,"
		"  home = (SELECT home FROM session_admin_internal.installation_mark)"
		" FROM locked WHERE a.name = locked.name"
	};
	SaFeedRow	row = {.scope = application ? "application" : "all", .application = application};
	GenerationLock lock = {.application = application};
	SaArgs		args = {0};
	bool		in_vain = false;

	if (!ending->spares_products)
		in_vain = !sa_forget_wait_for_writers(application, ending->wait_until);

	sa_lock_all(ending->wait_until, lock_applications, &lock);
	if (application != NULL && lock.locked == NULL && lock.left == NULL)
		ereport(ERROR,
				(errcode(SA_ERRCODE_NOT_FOUND),
				 errmsg("application \"%s\" does not exist", application)));

	/* from now on, however long that has taken */
	if (ending->ended_by == NULL)
		ending->at = GetCurrentTimestamp();
	ending->sessions_ended = count_live(&count_sessions, &count_live_sessions, application);
	ending->tokens_revoked = count_live(&count_tokens, &count_live_tokens, application);

	sa_arg(&args, TEXTARRAYOID, names_array(lock.locked), lock.locked == NULL);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(ending->at), false);
	sa_arg_text(&args, ending->reason);
	sa_arg_text(&args, sa_actor_or_null());
	sa_arg_text(&args, ending->ended_by);
	sa_run(&next_generation, &args);

	forget_applications(lock.locked, in_vain, ending);
	forget_applications(lock.left, in_vain, ending);
	for (int i = 0; lock.left && i < lock.left->nelems; i++)
		sa_late_end(TextDatumGetCString(lock.left->dvalues[i]), NULL, NULL, NULL, true, ending);
	if (lock.unseen)
		sa_late_end(NULL, NULL, NULL, NULL, true, ending);

	sa_feed_write(&row, ending);
	ending->id = row.id;
	sa_feed_notify(&row);
}

/* invalidate_application(reason, application) */
Datum
sa_invalidate_application(PG_FUNCTION_ARGS)
{
	SaEnding	ending = {.reason = reason_arg(fcinfo, 0)};
	char	   *application = sa_application_arg(fcinfo, 1);

	SPI_connect();
	ending.wait_until = sa_wait_until();
	ending.at = GetCurrentTimestamp();
	sa_end_generation(application, &ending);
	SPI_finish();

	return sa_ending_result(fcinfo, &ending);
}

/* invalidate_all(reason) */
Datum
sa_invalidate_all(PG_FUNCTION_ARGS)
{
	SaEnding	ending = {.reason = reason_arg(fcinfo, 0)};

	SPI_connect();
	ending.wait_until = sa_wait_until();
	ending.at = GetCurrentTimestamp();
	sa_end_generation(NULL, &ending);
	SPI_finish();

	return sa_ending_result(fcinfo, &ending);
}
