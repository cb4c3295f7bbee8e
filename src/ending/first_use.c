/*
 * first_use.c
 *	  An application is made by its first use, or adopted by its first use after a
 *	  restore.
 *
 * An application that came here by a restore from a dump has the mark of another place.
 * Until somebody uses it, none of its sessions and tokens is valid (or all are, if the
 * policy on_restore says so).  The first use ends its generation, so that what was ended
 * after the dump was made does not come back to life.
 */
#include "ending/ending.h"

#include "miscadmin.h"
#include "storage/procarray.h"

/* This application came from a dump: from now on it lives here. */
static void
application_adopt(const char *name)
{
	static SaStatement make_mark = {.sql =
		"INSERT INTO session_admin_internal.installation DEFAULT VALUES ON CONFLICT DO NOTHING"
	};
	static SaStatement lock_application = {.sql =
		"SELECT FROM session_admin.application WHERE name = $1 FOR NO KEY UPDATE"
	};
	static SaStatement find_state = {.sql =
		"SELECT restored, restored_at FROM session_admin_internal.application_state"
		" WHERE name = $1 AND moved"
	};
	static SaStatement keep = {.sql =

		/*
		 * a late ending is to concern what comes from a cluster that was
		 * ahead, too
		 */
		"WITH sessions AS ("
		"  UPDATE session_admin.session SET opened_xid = pg_current_xact_id()"
		"  WHERE application = $1 AND opened_xid > pg_current_xact_id()"
		"), tokens AS ("
		"  UPDATE session_admin.remember_me_token SET opened_xid = pg_current_xact_id()"
		"  WHERE application = $1 AND opened_xid > pg_current_xact_id()"
		")"
		" UPDATE session_admin.application"
		" SET home = (SELECT home FROM session_admin_internal.installation_mark) WHERE name = $1"
	};
	SaArgs		args = {0};

	sa_run(&make_mark, NULL);
	sa_arg_text(&args, name);
	sa_run(&lock_application, &args);
	/* somebody else may have done it */
	if (sa_run(&find_state, &args) > 0)
	{
		SaEnding	ending = {.reason = "restored", .ended_by = "session_admin"};
		bool		isnull;
		bool		restored = DatumGetBool(sa_result(0, 1, &isnull));

		ending.at = DatumGetTimestampTz(sa_result(0, 2, &isnull));
		if (restored)
			sa_end_generation(name, &ending, NULL);
		else
			sa_run(&keep, &args);
	}
}

/*
 * What holds for the application, which is made if there is none of this name.  One that
 * came from a dump is adopted: its row stays locked until the end of the transaction.
 */
void
sa_application_ensure(const char *name, SaApplication *application)
{
	sa_application_insert(name, application);
	while (application->moved)
	{
		SaOwner		owner;

		CHECK_FOR_INTERRUPTS();
		sa_owner_enter(&owner);
		SPI_connect();
		application_adopt(name);
		SPI_finish();
		sa_owner_leave(&owner);
		sa_application_get(name, application);
	}
}

/* Adopt all applications that came from a dump.  The caller is connected to SPI. */
void
sa_adopt_all(void)
{
	static SaStatement list_moved = {.sql =
		"SELECT name::text FROM session_admin_internal.application_state WHERE moved ORDER BY name"
	};
	uint64		n = sa_run(&list_moved, NULL);
	char	  **names = palloc((n + 1) * sizeof(char *));

	for (uint64 i = 0; i < n; i++)
		names[i] = sa_result_text(i, 1);
	for (uint64 i = 0; i < n; i++)
		application_adopt(names[i]);
}

/*
 * Is this database in use, by applications that all live here?  If not, it may be
 * in the middle of a restore: policies may be missing, and tables that will be
 * made must not be made before.  A restore makes tables in the session that made
 * the extension, and reads applications later.  The caller is connected to SPI.
 */
SaDatabaseState
sa_database_state(void)
{
	static SaStatement find_state = {.sql =
		"SELECT (SELECT bool_and(NOT moved) FROM session_admin_internal.application_state),"
		" (SELECT made_by::bigint FROM session_admin_internal.installation)"
	};
	bool		unused;
	bool		all_here;
	int			made_by;

	sa_run(&find_state, NULL);
	all_here = DatumGetBool(sa_result(0, 1, &unused));
	made_by = (int) sa_result_int64(0, 2);
	if (unused)
		return BackendPidGetProc(made_by) == NULL ? SA_DATABASE_UNUSED : SA_DATABASE_IN_RESTORE;
	return all_here ? SA_DATABASE_IN_USE : SA_DATABASE_IN_RESTORE;
}
