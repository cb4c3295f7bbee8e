/*
 * report.c
 *	  What the reports need that SQL cannot say.
 */
#include "base/base.h"

#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(sa_check_steps);

#define STEPS_MAX 100000

/* check_steps(from, to, step): true, or an error if that is no finite series. */
Datum
sa_check_steps(PG_FUNCTION_ARGS)
{
	TimestampTz from;
	TimestampTz to;
	Interval   *step;
	double		length;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("times and step must not be null")));
	from = PG_GETARG_TIMESTAMPTZ(0);
	to = PG_GETARG_TIMESTAMPTZ(1);
	step = PG_GETARG_INTERVAL_P(2);

	if (TIMESTAMP_NOT_FINITE(from) || TIMESTAMP_NOT_FINITE(to))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("times must be finite")));

	/* mixed signs could go round in circles */
	length = (double) step->time +
		((double) step->day + (double) step->month * DAYS_PER_MONTH) * USECS_PER_DAY;
	if (step->time < 0 || step->day < 0 || step->month < 0 || length <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("step must be positive")));
	if (((double) to - (double) from) / length > STEPS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("more than %d steps", STEPS_MAX),
				 errhint("Use a longer step or a shorter period.")));

	PG_RETURN_BOOL(true);
}
