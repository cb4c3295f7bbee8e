/*
 * capture.c
 *	  Triggers on the products' own tables.
 *
 * A trigger fires once a statement, with the rows before and after in transition
 * tables.  They are read here directly, not by a query: of an UPDATE, PostgreSQL
 * adds the old and the new row to the two tables together, so that the rows at
 * the same place belong together.  This holds for UPDATE, for MERGE, which keeps
 * the rows of its UPDATEs apart, and for ON CONFLICT DO UPDATE; not for rows that
 * move to another partition, and attach_application refuses partitioned tables.
 * So nothing depends on a key, only the columns that play a role are compared,
 * and a statement that changes none of them costs one pass over the rows.  And
 * no function of a type or operator of somebody else's runs with our rights.
 *
 * Where changes are applied that come from elsewhere (session_replication_role
 * is replica, as in a subscription), PostgreSQL fires no trigger for a statement,
 * but one for each row, which is there for that alone.
 *
 * A failure in here is not the product's, unless policy on_capture_failure says
 * so: the statement goes on, what could not be understood is recorded in
 * capture_failure, and whom it may have concerned is logged out.  Only what the
 * product itself has to know is passed on, such as a cancelled statement or a
 * deadlock, and that nobody could be logged out.
 */
#include "capture/capture.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "replication/worker_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_capture);

/* Rows that are applied together */
#define BATCH_ROWS		10000

/*
 * Reading the transition tables
 */

/* Start to read from its first row; others read the same table. */
static void
begin_reading(Tuplestorestate *rows)
{
	int			pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);

	tuplestore_select_read_pointer(rows, pointer);
	tuplestore_rescan(rows);
}

static void
capture_rows(SaCaptured *captured, Tuplestorestate *rows, TupleTableSlot *slot,
			 void (*row) (SaCaptured *, TupleTableSlot *))
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);

	begin_reading(rows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);

		CHECK_FOR_INTERRUPTS();
		row(captured, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (++captured->rows >= BATCH_ROWS)
			sa_captured_flush(captured);
	}
	MemoryContextDelete(scratch);
}

static void
capture_pairs(SaCaptured *captured, Tuplestorestate *old_rows, Tuplestorestate *new_rows,
			  TupleTableSlot *old_slot, TupleTableSlot *new_slot)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);

	if (tuplestore_tuple_count(old_rows) != tuplestore_tuple_count(new_rows))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("cannot tell which old row became which new row")));

	begin_reading(old_rows);
	begin_reading(new_rows);
	while (tuplestore_gettupleslot(old_rows, true, false, old_slot) &&
		   tuplestore_gettupleslot(new_rows, true, false, new_slot))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);

		CHECK_FOR_INTERRUPTS();
		sa_row_updated(captured, old_slot, new_slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (captured->rows >= BATCH_ROWS)
			sa_captured_flush(captured);
	}
	MemoryContextDelete(scratch);
}

/* All that one statement tells of one part. */
static void
capture_statement(SaCaptured *captured, TriggerData *trigdata)
{
	TupleDesc	descriptor = RelationGetDescr(trigdata->tg_relation);
	TriggerEvent event = trigdata->tg_event;
	TupleTableSlot *old_slot;
	TupleTableSlot *new_slot;

	if (TRIGGER_FIRED_BY_TRUNCATE(event))
	{
		sa_captured_truncated(captured);
		sa_captured_end(captured);
		return;
	}

	if (TRIGGER_FIRED_FOR_ROW(event))
	{
		captured->rows = 1;
		if (TRIGGER_FIRED_BY_INSERT(event))
			sa_row_inserted(captured, trigdata->tg_trigslot);
		else if (TRIGGER_FIRED_BY_DELETE(event))
			sa_row_deleted(captured, trigdata->tg_trigslot);
		else
			sa_row_updated(captured, trigdata->tg_trigslot, trigdata->tg_newslot);
		captured->complete = true;
		sa_captured_flush(captured);
		sa_captured_end(captured);
		return;
	}

	old_slot = MakeSingleTupleTableSlot(descriptor, &TTSOpsMinimalTuple);
	new_slot = MakeSingleTupleTableSlot(descriptor, &TTSOpsMinimalTuple);
	if (TRIGGER_FIRED_BY_INSERT(event))
		capture_rows(captured, trigdata->tg_newtable, new_slot, sa_row_inserted);
	else if (TRIGGER_FIRED_BY_DELETE(event))
		capture_rows(captured, trigdata->tg_oldtable, old_slot, sa_row_deleted);
	else
		capture_pairs(captured, trigdata->tg_oldtable, trigdata->tg_newtable, old_slot, new_slot);
	ExecDropSingleTupleTableSlot(old_slot);
	ExecDropSingleTupleTableSlot(new_slot);

	captured->complete = !captured->flushed;
	if (captured->rows > 0)
		sa_captured_flush(captured);
	sa_captured_end(captured);
}

static const char *
event_name(TriggerEvent event)
{
	if (TRIGGER_FIRED_BY_INSERT(event))
		return "INSERT";
	if (TRIGGER_FIRED_BY_UPDATE(event))
		return "UPDATE";
	if (TRIGGER_FIRED_BY_DELETE(event))
		return "DELETE";
	return "TRUNCATE";
}

/* Does a subscription copy a table, of which all rows were there before? */
static bool
is_first_copy(void)
{
	return MyLogicalRepWorker != NULL && OidIsValid(MyLogicalRepWorker->relid);
}

/*
 * Failures
 */

/* What the product has to know, and can deal with. */
static bool
is_the_products(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_QUERY_CANCELED:
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case SA_ERRCODE_LIMIT:
			/* the last is a policy, which refuses the login */
			return true;
		default:
			return false;
	}
}

/* The users of the sessions that the batch would have ended. */
static ArrayType *
users_of_sessions(const SaCaptured *captured)
{
	static SaStatement find_users = {.sql =
		"SELECT array_agg(DISTINCT user_name::text) FROM session_admin.session"
		" WHERE application = $1 AND session_hash = ANY ($2) AND user_name IS NOT NULL"
	};
	MemoryContext context = CurrentMemoryContext;
	ArrayBuildState *hashes = initArrayResult(BYTEAOID, context, false);
	ArrayType  *users = construct_empty_array(TEXTOID);
	SaArgs		args = {0};
	Datum		found;
	bool		isnull;
	ListCell   *cell;

	for (int i = 0; i < captured->session_closed.n; i++)
		accumArrayResult(hashes, captured->session_closed.values[i], false, BYTEAOID, context);
	foreach(cell, captured->session_rows)
	{
		SaSessionRow *row = lfirst(cell);

		accumArrayResult(hashes, PointerGetDatum(sa_bytea(row->old_id.hash, SA_HASH_LEN)),
						 false, BYTEAOID, context);
	}
	SPI_connect();
	sa_arg_text(&args, captured->watch->application);
	sa_arg(&args, BYTEAARRAYOID, makeArrayResult(hashes, context), false);
	sa_run(&find_users, &args);
	found = sa_result(0, 1, &isnull);
	if (!isnull)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		users = DatumGetArrayTypePCopy(found);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return users;
}

/* The users whom the batch would have logged out; NULL if nobody knows. */
static ArrayType *
users_concerned(const SaCaptured *captured)
{
	ArrayBuildState *names = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	if (!captured->complete)
		return NULL;
	if (captured->watch->part == SA_PART_SESSION)
		return users_of_sessions(captured);
	for (int i = 0; i < captured->ended_name.n; i++)
		accumArrayResult(names, captured->ended_name.values[i], false, TEXTOID, CurrentMemoryContext);
	for (int i = 0; i < captured->renamed_from.n; i++)
		accumArrayResult(names, captured->renamed_from.values[i], false, TEXTOID, CurrentMemoryContext);
	return DatumGetArrayTypeP(makeArrayResult(names, CurrentMemoryContext));
}

/* Run a step that may fail; returns why, NULL if it did not. */
ErrorData *
sa_capture_attempt(void (*step) (void *), void *argument)
{
	ErrorData  *error = sa_attempt(step, argument);

	if (error && is_the_products(error))
		ReThrowError(error);
	return error;
}

typedef struct Failure
{
	const char *application;
	Oid			relid;
	const char *event;
	const char *message;
	ArrayType  *users;			/* to be logged out; NULL: everybody */
	bool		nobody;
	SaEnding	ending;
} Failure;

/* Record it, with the users whom it may have concerned; NULL: all of them. */
void
sa_capture_failure(const char *application, Oid relid, const char *event, const char *message,
				   ArrayType *users)
{
	static SaStatement insert_failure = {.sql =
		"INSERT INTO session_admin_internal.capture_failure (application, relation, event, message, user_names)"
		" VALUES ($1, $2::regclass::text, $3, $4, $5)"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	sa_arg_text(&args, event);
	sa_arg_text(&args, message);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(users), users == NULL);
	sa_run(&insert_failure, &args);
}

/*
 * The same of what may happen with each statement and concerns no user: once, until
 * somebody has acknowledged it.  False if it is there.  The caller is connected to SPI.
 */
bool
sa_capture_failure_once(const char *application, Oid relid, const char *event, const char *message)
{
	static SaStatement insert_failure = {.sql =
		"INSERT INTO session_admin_internal.capture_failure (application, relation, event, message, user_names)"
		" SELECT $1, $2::regclass::text, $3, $4, '{}'"
		" WHERE NOT EXISTS (SELECT FROM session_admin_internal.capture_failure"
		"  WHERE application IS NOT DISTINCT FROM $1 AND relation = $2::regclass::text"
		"   AND message = $4 AND acknowledged_by IS NULL)"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	sa_arg_text(&args, event);
	sa_arg_text(&args, message);
	return sa_run(&insert_failure, &args) > 0;
}

/* Record what was not understood, and log out whom it may have concerned. */
static void
record_failure(void *argument)
{
	Failure    *failure = argument;

	SPI_connect();
	sa_capture_failure(failure->application, failure->relid, failure->event, failure->message,
					   failure->users);
	if (failure->users == NULL)
		sa_end_generation(failure->application, &failure->ending);
	else if (!failure->nobody)
		sa_end_users(failure->application, failure->users, NULL, false, &failure->ending);
	SPI_finish();
}

/*
 * What was not understood is the product's failure only if the policy says so.
 * Otherwise those whom it may have concerned are logged out; if even that fails,
 * then without touching the product's own rows, and at last everybody.  Only
 * users, their identities and the product's sessions end sessions.
 */
static void
capture_failed(const SaWatch *watch, TriggerData *trigdata, const char *message, ArrayType *users)
{
	const char *name = RelationGetRelationName(trigdata->tg_relation);
	Failure		failure = {
		.application = watch->application,
		.relid = RelationGetRelid(trigdata->tg_relation),
		.event = event_name(trigdata->tg_event),
		.message = message,
		.users = users,
		.ending = {.reason = "custom:capture_failure", .at = GetCurrentTimestamp()}
	};
	ErrorData  *error;
	SaApplication application;

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ||
		(watch->part != SA_PART_ACCOUNT && watch->part != SA_PART_IDENTITY &&
		 watch->part != SA_PART_SESSION))
		failure.users = construct_empty_array(TEXTOID);
	failure.nobody = failure.users != NULL &&
		ArrayGetNItems(ARR_NDIM(failure.users), ARR_DIMS(failure.users)) == 0;

	if (sa_application_find(watch->application, &application) &&
		application.on_capture_failure == SA_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("session_admin could not follow %s of \"%s\": %s", failure.event, name, message),
				 errhint("Policy \"on_capture_failure\" of application \"%s\" makes this an error.",
						 watch->application)));

	error = sa_capture_attempt(record_failure, &failure);
	if (error)
	{
		failure.ending.spares_products = true;
		error = sa_capture_attempt(record_failure, &failure);
	}
	if (error && !failure.nobody)
	{
		failure.users = NULL;
		error = sa_capture_attempt(record_failure, &failure);
		if (error)
			ReThrowError(error);
	}

	ereport(WARNING,
			(errmsg("session_admin could not follow %s of \"%s\": %s", failure.event, name, message),
			 failure.nobody ? 0 :
			 errdetail(failure.users ? "The users concerned are logged out of application \"%s\"." :
					   "All users are logged out of application \"%s\".",
					   watch->application),
			 errhint("See view session_admin.capture_failures, and call session_admin.verify_attachments().")));
}

typedef struct Statement
{
	SaCaptured *captured;
	TriggerData *trigdata;
} Statement;

static void
follow_statement(void *argument)
{
	Statement  *statement = argument;

	capture_statement(statement->captured, statement->trigdata);
}

/* Follow one statement for one part. */
static void
capture_guarded(const SaWatch *watch, TriggerData *trigdata)
{
	SaCaptured *captured = palloc(sizeof(SaCaptured));
	Statement	statement = {captured, trigdata};
	ErrorData  *error;

	sa_captured_begin(captured, watch);
	captured->insertion = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event);
	captured->backfill = is_first_copy();
	captured->forgetting = sa_forgetting(watch);

	error = sa_capture_attempt(follow_statement, &statement);
	if (error)
		capture_failed(watch, trigdata, error->message, users_concerned(captured));
	else if (captured->unclear)
		capture_failed(watch, trigdata, watch->broken,
					   captured->unclear_whom ? NULL :
					   DatumGetArrayTypeP(makeArrayResult(captured->unclear_users,
														  CurrentMemoryContext)));
}

#define UNKNOWN_TABLE "the table is watched, but nothing says as what"

static void
record_unknown(void *argument)
{
	TriggerData *trigdata = argument;
	bool		first;

	SPI_connect();
	first = sa_capture_failure_once(NULL, RelationGetRelid(trigdata->tg_relation),
									event_name(trigdata->tg_event), UNKNOWN_TABLE);
	SPI_finish();
	if (first)
		ereport(WARNING,
				(errmsg("session_admin could not follow %s of \"%s\": %s", event_name(trigdata->tg_event),
						RelationGetRelationName(trigdata->tg_relation), UNKNOWN_TABLE),
				 errhint("Call session_admin.attach_application() again.")));
}

/*
 * Our triggers are there, and what they are for has got lost, in a restore for instance:
 * tell, once, as nobody is logged out by what happens here.
 */
static void
follow_unknown(TriggerData *trigdata)
{
	if (!sa_is_told_unknown(trigdata->tg_relation))
		(void) sa_capture_attempt(record_unknown, trigdata);
}

static bool
has_transition_tables(const TriggerData *trigdata)
{
	return (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) || trigdata->tg_oldtable != NULL) &&
		(TRIGGER_FIRED_BY_DELETE(trigdata->tg_event) || trigdata->tg_newtable != NULL);
}

/* Trigger on a product's table, made by attach_application. */
Datum
sa_capture(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	List	   *watches;
	ListCell   *cell;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		(TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event) &&
		 !TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event) && !has_transition_tables(trigdata)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"capture\" must be fired after a statement, with transition tables"),
				 errhint("Triggers that call it are made by session_admin.attach_application.")));

	/* each change is followed once, whichever triggers somebody has enabled */
	if (!TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event) &&
		(TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) != 0) !=
		(SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA))
		PG_RETURN_POINTER(NULL);

	/* most statements of some products touch no row */
	if ((trigdata->tg_newtable && tuplestore_tuple_count(trigdata->tg_newtable) == 0) ||
		(trigdata->tg_oldtable && tuplestore_tuple_count(trigdata->tg_oldtable) == 0))
		PG_RETURN_POINTER(NULL);

	watches = sa_watches_of(trigdata->tg_relation);
	if (watches == NIL)
		follow_unknown(trigdata);
	foreach(cell, watches)
	{
		const SaWatch *watch = lfirst(cell);

		/* whose sessions these are cannot be seen: there is nothing to follow */
		if (watch->part != SA_PART_SESSION || watch->names_user)
			capture_guarded(watch, trigdata);
	}

	PG_RETURN_POINTER(NULL);
}

/*
 * Rows that are there already
 */

/*
 * Take all rows that the snapshot sees as known, but those that "done" (if any)
 * saw too: they have not changed since.  Returns the number of rows.
 */
int64
sa_capture_existing(const SaWatch *watch, Relation relation, Snapshot snapshot, Snapshot done)
{
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "session_admin row",
												  ALLOCSET_DEFAULT_SIZES);
	SaCaptured	captured;
	int64		rows = 0;

	sa_captured_begin(&captured, watch);
	captured.backfill = true;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (done && table_tuple_satisfies_snapshot(relation, slot, done))
			continue;

		old = MemoryContextSwitchTo(scratch);
		sa_row_inserted(&captured, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		rows++;
		if (++captured.rows >= BATCH_ROWS)
			sa_captured_flush(&captured);
	}
	if (captured.rows > 0)
		sa_captured_flush(&captured);
	sa_captured_end(&captured);

	MemoryContextDelete(scratch);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	return rows;
}
