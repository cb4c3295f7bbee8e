/*
 * spi.c
 *	  Statements that are prepared once in a backend and always see the latest data.
 *
 * What our functions decide must not depend on the age of the caller's snapshot: in a
 * REPEATABLE READ transaction, too, they tell and do what is true now.  So each statement
 * runs with the latest snapshot, as those of foreign keys do.
 */
#include "base/base.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* An array of more elements than this is for a plan of its own. */
#define MANY 100

/* Add one argument. */
void
sa_arg(SaArgs *args, Oid type, Datum value, bool isnull)
{
	Assert(args->n < SA_MAX_ARGS);

	args->types[args->n] = type;
	args->values[args->n] = value;
	args->nulls[args->n] = isnull ? 'n' : ' ';
	args->n++;
}

/* Add one argument of type text. */
void
sa_arg_text(SaArgs *args, const char *value)
{
	sa_arg(args, TEXTOID, value ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

/*
 * Which kind of plan suits the arguments. A plan for arrays of any length expects ten
 * elements, and compares each with each: a long array gets a plan of its own. A short
 * array never does, although that would look cheaper: planning takes longer than all the
 * rest.
 */
static int
spi_cursor_options(const SaStatement *statement, const SaArgs *args)
{
	int			options = statement->generic ? CURSOR_OPT_GENERIC_PLAN : 0;

	for (int i = 0; args != NULL && i < args->n; i++)
	{
		if ((args->types[i] == TEXTARRAYOID || args->types[i] == BYTEAARRAYOID) &&
			args->nulls[i] == ' ')
		{
			ArrayType  *array = DatumGetArrayTypeP(args->values[i]);

			if (ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) > MANY)
				return CURSOR_OPT_CUSTOM_PLAN;
			options = CURSOR_OPT_GENERIC_PLAN;
		}
	}
	return options;
}

/*
 * Run the statement and return the number of rows.  The caller is connected to
 * SPI; args may be NULL.  The types of the first run hold for all others.
 */
uint64
sa_run(SaStatement *statement, SaArgs *args)
{
	int			options = spi_cursor_options(statement, args);
	SPIPlanPtr *plan = options == CURSOR_OPT_CUSTOM_PLAN ?
	&statement->plan_for_many : &statement->plan;
	volatile int result = 0;
	bool		save_jit_enabled = jit_enabled;

	if (*plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare_cursor(statement->sql,
												  args ? args->n : 0,
												  args ? args->types : NULL,
												  options);

		if (prepared == NULL)
			elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(prepared);
		*plan = prepared;
	}

	/*
	 * Estimates of tables that were not analyzed yet are high enough for JIT,
	 * which would compile for seconds what runs for milliseconds.
	 */
	jit_enabled = false;
	PG_TRY();
	{
		result = SPI_execute_snapshot(*plan,
									  args ? args->values : NULL,
									  args ? args->nulls : NULL,
									  GetLatestSnapshot(), InvalidSnapshot,
									  false, true, 0);
	}
	PG_FINALLY();
	{
		jit_enabled = save_jit_enabled;
	}
	PG_END_TRY();
	if (result < 0)
		elog(ERROR, "could not execute statement: %s", SPI_result_code_string(result));

	return SPI_processed;
}

/*
 * Run a statement that is made up now, once; returns what SPI says that it was.  args may
 * be NULL.
 */
int
sa_run_once(const char *sql, SaArgs *args)
{
	SPIPlanPtr	plan = SPI_prepare(sql, args ? args->n : 0, args ? args->types : NULL);
	int			result;

	if (plan == NULL)
		elog(ERROR, "could not prepare statement: %s", SPI_result_code_string(SPI_result));
	result = SPI_execute_snapshot(plan, args ? args->values : NULL, args ? args->nulls : NULL,
								  GetLatestSnapshot(), InvalidSnapshot, false, true, 0);
	if (result < 0)
		elog(ERROR, "could not execute statement: %s", SPI_result_code_string(result));
	SPI_freeplan(plan);
	return result;
}

/* One field of the last result; column counts from 1. */
Datum
sa_result(uint64 row, int column, bool *isnull)
{
	Assert(row < SPI_tuptable->numvals);

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

/* One field of the last result, of type bigint; null is 0. */
int64
sa_result_int64(uint64 row, int column)
{
	bool		isnull;
	Datum		value = sa_result(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

/* One field of the last result, of type text; null is NULL. */
char *
sa_result_text(uint64 row, int column)
{
	bool		isnull;
	Datum		value = sa_result(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * Run a step in a subtransaction. If it fails, all that it did is undone, and the error is
 * returned. To pass it on, call ReThrowError() after this has returned: an error that left
 * the subtransaction open would leave a client that began no transaction in an aborted
 * one.
 */
ErrorData *
sa_attempt(void (*step) (void *), void *argument)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		step(argument);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * Act as the owner of the extension's tables, with a safe search_path, in functions that
 * are not SECURITY DEFINER because most of their calls need no table. An error undoes it
 * by itself.
 */
void
sa_owner_enter(SaOwner *owner)
{
	Oid			relid = sa_relation(SA_TABLE_SESSION);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			userid;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	userid = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	GetUserIdAndSecContext(&owner->save_userid, &owner->save_sec_context);
	SetUserIdAndSecContext(userid, owner->save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	owner->save_nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Go back to the user and the settings before sa_owner_enter(). */
void
sa_owner_leave(SaOwner *owner)
{
	AtEOXact_GUC(false, owner->save_nestlevel);
	SetUserIdAndSecContext(owner->save_userid, owner->save_sec_context);
}
