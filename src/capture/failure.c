/*
 * failure.c
 *	  What is not understood of a product, and whom that logs out.
 *
 * A failure of ours is not the product's, unless policy on_capture_failure says so: its
 * statement goes on, what could not be understood is recorded in capture_failure, and the
 * users whom it may have concerned are logged out.  Only what the product has to know is
 * passed on, such as a cancelled statement or a deadlock.
 */
#include "capture/failure.h"
#include "policy/policy.h"
#include "ending/ending.h"

#include "catalog/pg_type.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/*
 * Was the caller's own statement cancelled? A product may raise an error with any
 * SQLSTATE, so that this alone says nothing.
 */
bool
sa_was_canceled(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED && error->funcname != NULL &&
		strcmp(error->funcname, "ProcessInterrupts") == 0;
}

/* What the product has to know, and can deal with. */
static bool
failure_is_products(const ErrorData *error)
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

/*
 * Run a step that may fail, as sa_attempt does; what the product itself has to know is
 * passed on.
 */
ErrorData *
sa_capture_attempt(void (*step) (void *), void *argument)
{
	ErrorData  *error = sa_attempt(step, argument);

	if (error && failure_is_products(error))
		ReThrowError(error);
	return error;
}

const char *
sa_failure_event(TriggerEvent event)
{
	if (TRIGGER_FIRED_BY_INSERT(event))
		return "INSERT";
	if (TRIGGER_FIRED_BY_UPDATE(event))
		return "UPDATE";
	if (TRIGGER_FIRED_BY_DELETE(event))
		return "DELETE";
	return "TRUNCATE";
}

/*
 * Record a failure, with the users whom it may have concerned; NULL: all of them.  The
 * caller is connected to SPI.
 */
void
sa_failure_note(const char *application, Oid relid, const char *event, const char *message,
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
	sa_arg_array(&args, TEXTARRAYOID, users);
	sa_run(&insert_failure, &args);
}

/*
 * Record what may happen with each statement and concerns no user: once, until somebody
 * has acknowledged it.  False if it is there.  The caller is connected to SPI.
 */
bool
sa_failure_note_once(const char *application, Oid relid, const char *event, const char *message)
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

/* Record what was not understood, and log out whom it may have concerned. */
static void
failure_record(void *argument)
{
	Failure    *failure = argument;

	SPI_connect();
	sa_failure_note(failure->application, failure->relid, failure->event, failure->message,
					failure->users);
	if (failure->users == NULL)
		sa_end_generation(failure->application, &failure->ending, NULL);
	else if (!failure->nobody)
		sa_end_users(failure->application, failure->users, NULL, false, &failure->ending, NULL);
	SPI_finish();
}

/*
 * What was not understood is the product's failure only if the policy says so.
 * Otherwise those whom it may have concerned are logged out; if even that fails,
 * then without touching the product's own rows, and at last everybody.  Only
 * users, their identities and the product's sessions end sessions.
 */
void
sa_failure_of_statement(const SaWatch *watch, TriggerData *trigdata, const char *message, ArrayType *users)
{
	const char *name = RelationGetRelationName(trigdata->tg_relation);
	Failure		failure = {
		.application = watch->application,
		.relid = RelationGetRelid(trigdata->tg_relation),
		.event = sa_failure_event(trigdata->tg_event),
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
	failure.nobody = failure.users != NULL && sa_array_length(failure.users) == 0;

	if (sa_application_find(watch->application, &application) &&
		application.on_capture_failure == SA_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("session_admin could not follow %s of \"%s\": %s", failure.event, name, message),
				 errhint("Policy \"on_capture_failure\" of application \"%s\" makes this an error.",
						 watch->application)));

	error = sa_capture_attempt(failure_record, &failure);
	if (error)
	{
		failure.ending.options.spares_products = true;
		error = sa_capture_attempt(failure_record, &failure);
	}
	if (error && !failure.nobody)
	{
		failure.users = NULL;
		error = sa_capture_attempt(failure_record, &failure);
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
