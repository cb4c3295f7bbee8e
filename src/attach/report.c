/*
 * report.c
 *	  The rows that attach_application() and detach_application() give.
 */
#include "attach/match.h"
#include "capture/capture.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"

/* Add one row to the report. */
void
sa_report_row(FunctionCallInfo fcinfo, const char *part, const char *object, const char *state,
			  const char *note)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = CStringGetTextDatum(part);
	values[1] = CStringGetTextDatum(object);
	values[2] = CStringGetTextDatum(state);
	values[3] = CStringGetTextDatum(note);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* What the report says of a part that is attached. */
static const char *
report_note_on_part(const Match *matches, int nmatches, const Match *match)
{
	if (strcmp(match->part, "remember_me") == 0)
		return match->clears ? "tokens are cleared, no row is deleted" : match->note;
	if (strcmp(match->part, "session") != 0)
		return psprintf(INT64_FORMAT " rows read", match->rows);
	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role != NULL && strcmp(matches[i].part, match->part) == 0 &&
			strncmp(matches[i].role, "user_", 5) == 0 && sa_match_is_attached(&matches[i]))
			return "new rows are seen from now on; for those that are there, CALL session_admin.backfill_sessions()";
	}
	return "rows are deleted when everybody is logged out; whose they are is not seen";
}

/* Other attachments of this table; NULL: there are none. */
static char *
report_other_attachments(Oid relid, const char *application, const char *product)
{
	static SaStatement list_others = {.sql =
		"SELECT string_agg(format('also watched as product \"%s\" of application \"%s\"',"
		"   product, application), '; ' ORDER BY application, product)"
		" FROM session_admin_internal.attachment"
		" WHERE relation = $1 AND (application, product) <> ($2, $3)"
	};
	SaArgs		args = {0};

	sa_arg(&args, OIDOID, ObjectIdGetDatum(relid), false);
	sa_arg_text(&args, application);
	sa_arg_text(&args, product);
	sa_run(&list_others, &args);
	return sa_result_text(0, 1);
}

/* Report what may keep rows of sessions or tokens from being deleted. */
static void
report_obstacles(FunctionCallInfo fcinfo, const Match *match)
{
	int			n;
	Datum	   *notes = sa_array_values(sa_table_obstacles(match->relid, match->clears), TEXTOID, &n);

	for (int i = 0; i < n; i++)
		sa_report_row(fcinfo, match->part, match->relation_name, "warning", TextDatumGetCString(notes[i]));
}

/* Report what was found, and what is not seen of the product. */
void
sa_report_matches(FunctionCallInfo fcinfo, Match *matches, int nmatches, const char *application,
				  const char *product)
{
	static SaStatement read_notes = {.sql =
		"SELECT n.note FROM session_admin_internal.product p"
		" CROSS JOIN unnest(p.notes) WITH ORDINALITY AS n (note, n)"
		" WHERE p.product = $1 ORDER BY n.n"
	};
	SaArgs		args = {0};
	uint64		rows;

	for (int i = 0; i < nmatches; i++)
	{
		Match	   *match = &matches[i];

		if (match->role == NULL)
		{
			char	   *others = sa_match_is_attached(match) ?
			report_other_attachments(match->relid, application, product) : NULL;

			sa_report_row(fcinfo, match->part, match->relation_name, match->state,
						  sa_match_is_attached(match) ? report_note_on_part(matches, nmatches, match) : match->note);
			if (others)
				sa_report_row(fcinfo, match->part, match->relation_name, "warning", others);
			if (sa_match_is_attached(match) &&
				(strcmp(match->part, "session") == 0 || strcmp(match->part, "remember_me") == 0))
				report_obstacles(fcinfo, match);
		}
		else if (sa_matches_part(matches, nmatches, match->part) == NULL)
			continue;
		else if (match->column_name == NULL)
			sa_report_row(fcinfo, match->part, match->relation_name, match->state,
						  psprintf("%s: %s", match->role, match->note));
		else
			sa_report_row(fcinfo, match->part,
						  psprintf("%s.%s", match->relation_name, match->column_name), match->state,
						  match->note[0] == '\0' ? match->role :
						  psprintf("%s: %s", match->role, match->note));
	}

	if (sa_matches_part(matches, nmatches, "session") == NULL)
		sa_report_row(fcinfo, "product", product, "not seen",
					  "HTTP sessions are not in these tables: nodes that follow the feed have to end them");
	sa_arg_text(&args, product);
	rows = sa_run(&read_notes, &args);
	for (uint64 i = 0; i < rows; i++)
		sa_report_row(fcinfo, "product", product, "not seen", sa_result_text(i, 1));
}
