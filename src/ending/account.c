/*
 * account.c
 *	  Login counters of each user, the row lock that orders the logins of a user against
 *	  the endings of that user, and the history of logins.
 *
 * A login and an invalidation of a user both lock the user's account first, and keep it
 * until commit.  README.md has the order of locks.
 */
#include "ending/ending.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * The lock for transactions that keep their snapshot.  FOR UPDATE would fail in
 * them if somebody wrote to the row while they waited, as every login does.  We
 * need the lock and not the row as it was: follow it to its newest version, then
 * look again whether that is still this account.
 *
 * The transaction's snapshot keeps what the address found leads to from being
 * removed.
 */
static bool
account_lock_newest(SaArgs *args)
{
	static SaStatement find_account = {.sql =
		"SELECT ctid FROM session_admin_internal.account WHERE application = $1 AND user_name = $2"
	};

	while (sa_run(&find_account, args) > 0)
	{
		bool		isnull;
		ItemPointerData tid = *(ItemPointer) DatumGetPointer(sa_result(0, 1, &isnull));
		Relation	rel = table_open(sa_relation(SA_TABLE_ACCOUNT),
									 RowShareLock);
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		TM_FailureData failure = {0};
		TM_Result	result;

		CHECK_FOR_INTERRUPTS();
		result = table_tuple_lock(rel, &tid, GetLatestSnapshot(), slot,
								  GetCurrentCommandId(false), LockTupleNoKeyExclusive,
								  LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
								  &failure);
		ExecDropSingleTupleTableSlot(slot);
		table_close(rel, NoLock);

		if (result == TM_Ok && !failure.traversed)
			return true;
		if (result != TM_Ok && result != TM_Deleted)
			elog(ERROR, "could not lock account: unexpected result %d", (int) result);
	}
	return false;
}

/* Lock the account; false if there is none.  The caller is connected to SPI. */
bool
sa_account_lock(const char *application, const char *user_name)
{
	static SaStatement lock_account = {.sql =
		"SELECT FROM session_admin_internal.account"
		" WHERE application = $1 AND user_name = $2 FOR NO KEY UPDATE"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	if (IsolationUsesXactSnapshot())
		return account_lock_newest(&args);
	return sa_run(&lock_account, &args) > 0;
}

/*
 * Lock the account, made if there is none; true if it was made.  The caller is
 * connected to SPI.
 */
bool
sa_account_ensure(const char *application, const char *user_name)
{
	static SaStatement insert_account = {.sql =
		"INSERT INTO session_admin_internal.account (application, user_name) VALUES ($1, $2)"
		" ON CONFLICT (application, user_name) DO NOTHING"
	};

	bool		made = false;

	while (!sa_account_lock(application, user_name))
	{
		SaArgs		args = {0};

		CHECK_FOR_INTERRUPTS();
		sa_arg_text(&args, application);
		sa_arg_text(&args, user_name);
		made = sa_run(&insert_account, &args) > 0;
	}
	return made;
}

typedef struct AccountsLock
{
	const char *application;
	ArrayType  *user_names;
	ArrayBuildState *left;		/* users whose account another transaction has
								 * locked */
} AccountsLock;

/*
 * A lock by the name of a user, which a login shares until the end of its transaction.
 * Nobody keeps it otherwise: no login waits for it.
 */
static void
account_login_tag(LOCKTAG *tag, const char *application, const char *user_name)
{
	Oid			relid = sa_relation(SA_TABLE_SESSION);

	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, relid,
					   (uint32) (sa_user_key(user_name) ^ sa_application_key(application)), 3);
}

/* Announce the login of a user whose account another transaction has locked. */
void
sa_login_announce(const char *application, const char *user_name)
{
	LOCKTAG		tag;

	account_login_tag(&tag, application, user_name);
	(void) LockAcquire(&tag, ShareLock, false, false);
}

/* Find those of these users whose login another transaction announces. */
static void
account_find_logins(AccountsLock *lock, SaBusy *busy)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;

	deconstruct_array(lock->user_names, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	for (int i = 0; i < n && !SA_STOPS(busy); i++)
	{
		LOCKTAG		tag;

		if (nulls[i])
			continue;
		account_login_tag(&tag, lock->application, TextDatumGetCString(names[i]));
		if (LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
		{
			LockRelease(&tag, ExclusiveLock, false);
			continue;
		}
		lock->left = accumArrayResult(lock->left, names[i], false, TEXTOID, CurrentMemoryContext);
		if (!busy->any)
		{
			busy->any = true;
			busy->writer = GetLockConflicts(&tag, ExclusiveLock, NULL)[0];
		}
	}
}

static void
account_lock_step(SaBusy *busy, void *argument)
{
	static SaStatement find_accounts = {.sql =
		"SELECT ctid, user_name::text FROM session_admin_internal.account"
		" WHERE application = $1 AND user_name = ANY ($2) ORDER BY user_name"
	};
	AccountsLock *lock = argument;
	SaArgs		args = {0};

	lock->left = NULL;
	account_find_logins(lock, busy);
	if (SA_STOPS(busy))
		return;
	sa_arg_text(&args, lock->application);
	sa_arg_array(&args, TEXTARRAYOID, lock->user_names);
	sa_lock_found(SA_TABLE_ACCOUNT, LockTupleNoKeyExclusive, &find_accounts, &args, TEXTOID, NULL,
				  &lock->left, busy);
}

/*
 * Lock the accounts of these users (an array of text) without waiting; the names of
 * those that another transaction has locked go to "left".  The caller is connected to
 * SPI.
 */
void
sa_accounts_try(const char *application, ArrayType *user_names, ArrayBuildState **left, SaBusy *busy)
{
	AccountsLock lock = {.application = application, .user_names = user_names};

	account_lock_step(busy, &lock);
	*left = lock.left;
}

/*
 * Lock all existing accounts of these users (an array of text) at once, waiting for
 * them while nothing else is held (see lock.c).  It is an error if that takes too long.
 * The caller is connected to SPI.
 */
void
sa_accounts_lock(const char *application, ArrayType *user_names)
{
	AccountsLock lock = {.application = application, .user_names = user_names};
	TimestampTz until = sa_wait_until();

	/* later, it has to wait as long as it takes */
	if (until == 0)
		return;
	sa_lock_all(until, account_lock_step, &lock);
	if (lock.left != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the user is locked by another transaction"),
				 errhint("Try again, or see session_admin.lock_wait.")));
}

/* Count a login, and lock the account.  The caller is connected to SPI. */
void
sa_account_count_login(const char *application, const char *user_name,
					   TimestampTz at, inet *address, const char *login_method)
{
	static SaStatement count_login = {.sql =
		"INSERT INTO session_admin_internal.account AS a (application, user_name, login_count,"
		" last_login_at, last_login_address, last_login_method, last_seen_at)"
		" VALUES ($1, $2, 1, $3, $4, $5, $3)"
		" ON CONFLICT (application, user_name) DO UPDATE SET"
		" login_count = a.login_count + 1, previous_login_at = a.last_login_at,"
		" last_login_at = greatest(a.last_login_at, excluded.last_login_at),"
		" last_login_address = excluded.last_login_address,"
		" last_login_method = excluded.last_login_method,"
		" last_seen_at = greatest(a.last_seen_at, excluded.last_seen_at),"
		" current_failed_count = 0"
	};
	SaArgs		args = {0};

	/* once the lock is held, the row can be written */
	if (IsolationUsesXactSnapshot())
		sa_account_ensure(application, user_name);

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	sa_arg(&args, INETOID, InetPGetDatum(address), address == NULL);
	sa_arg_text(&args, login_method);
	sa_run(&count_login, &args);
}

/*
 * Before a login in a product's transaction: lock the account without waiting, or else
 * announce the login to the transaction that has it locked, and return false.
 */
bool
sa_account_enter(const char *application, const char *user_name)
{
	ArrayBuildState *left;
	SaBusy		busy = {0};

	sa_accounts_try(application, sa_array_of_text(user_name), &left, &busy);
	if (left == NULL)
		return true;
	sa_login_announce(application, user_name);
	return false;
}

/* Count a login of a user whose account another transaction has locked: see account_seen. */
void
sa_account_count_login_later(const char *application, const char *user_name, TimestampTz at)
{
	static SaStatement note_login = {.sql =
		"INSERT INTO session_admin_internal.account_seen (application, user_name, at, logins)"
		" VALUES ($1, $2, $3, 1)"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	sa_run(&note_login, &args);
}

/*
 * Count a failed login.  The account is not kept locked: in a transaction that goes on,
 * or if another one has it locked, maintain() counts it later (see account_seen).  An
 * unknown name gets no account, so that guessing names does not fill the table.  The
 * caller is connected to SPI.
 */
void
sa_account_count_failure(const char *application, const char *user_name, TimestampTz at)
{
	static SaStatement count_failure = {.sql =
		"WITH free AS ("
		"  SELECT application, user_name FROM session_admin_internal.account"
		"  WHERE application = $1 AND user_name = $2 FOR NO KEY UPDATE SKIP LOCKED"
		")"
		" UPDATE session_admin_internal.account a SET"
		" last_failed_login_at = greatest(a.last_failed_login_at, $3),"
		" current_failed_count = a.current_failed_count + 1,"
		" total_failed_count = a.total_failed_count + 1"
		" FROM free WHERE a.application = free.application AND a.user_name = free.user_name"
	};
	static SaStatement note_failure = {.sql =
		"INSERT INTO session_admin_internal.account_seen (application, user_name, at, login_failed)"
		" SELECT application, user_name, $3, true FROM session_admin_internal.account"
		" WHERE application = $1 AND user_name = $2"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	if (IsTransactionBlock() || IsolationUsesXactSnapshot() || sa_run(&count_failure, &args) == 0)
		sa_run(&note_failure, &args);
}

/* Add one event.  The caller is connected to SPI. */
void
sa_login_event_record(const SaLoginEvent *event)
{
	static SaStatement insert_event = {.sql =
		"INSERT INTO session_admin_internal.login_event (at, application, user_name, event, succeeded,"
		" login_method, client_address, user_agent, device, node, session_ref, detail)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
	};
	TimestampTz at = event->at ? event->at : GetCurrentTimestamp();
	SaArgs		args = {0};

	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	sa_arg_text(&args, event->application);
	sa_arg_text(&args, event->user_name);
	sa_arg_text(&args, event->event);
	sa_arg(&args, BOOLOID, BoolGetDatum(event->succeeded), false);
	sa_arg_text(&args, event->login_method);
	sa_arg(&args, INETOID, InetPGetDatum(event->client_address), event->client_address == NULL);
	sa_arg_text(&args, event->user_agent);
	sa_arg_text(&args, event->device);
	sa_arg_text(&args, event->node);
	sa_arg_text(&args, event->session_ref);
	sa_arg_text(&args, event->detail);
	sa_run(&insert_event, &args);
}
