/*
 * account.c
 *	  Login counters of each user, and the row lock that orders the logins of a
 *	  user against the invalidations of that user.
 *
 * Whoever opens a session for a user, and whoever ends all sessions of a user,
 * locks the user's account first and keeps the lock until commit.  So an
 * invalidation knows of a login that is under way, and ends its session too, and a
 * login waits for an invalidation and starts after it.  Who waits for whom, in what order
 * and for how long is told in lock.c.
 */
#include "session_admin.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
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
lock_newest(SaArgs *args)
{
	static SaStatement find_account = {.sql =
		"SELECT ctid FROM session_admin_internal.account WHERE application = $1 AND user_name = $2"
	};

	while (sa_run(&find_account, args) > 0)
	{
		bool		isnull;
		ItemPointerData tid = *(ItemPointer) DatumGetPointer(sa_result(0, 1, &isnull));
		Relation	rel = table_open(sa_relation(SA_TABLE_ACCOUNT), RowShareLock);
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
		return lock_newest(&args);
	return sa_run(&lock_account, &args) > 0;
}

/*
 * Lock the account, made if there is none; true if it was made.  The caller is
 * connected to SPI.
 */
bool
sa_account_make(const char *application, const char *user_name)
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
	ArrayBuildState *left;		/* of whom somebody else has it */
} AccountsLock;

/*
 * A lock by the name of a user, which a login shares until the end of its transaction.
 * Nobody keeps it otherwise: no login waits for it.
 */
static void
login_tag(LOCKTAG *tag, const char *application, const char *user_name)
{
	Oid			relid = sa_relation(SA_TABLE_SESSION);

	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, relid,
					   (uint32) (sa_user_key(user_name) ^ sa_application_key(application)), 3);
}

/* Tell of a login of a user whose account somebody else has. */
void
sa_login_announce(const char *application, const char *user_name)
{
	LOCKTAG		tag;

	login_tag(&tag, application, user_name);
	(void) LockAcquire(&tag, ShareLock, false, false);
}

/* Of which of these users does somebody announce a login? */
static void
find_logins(AccountsLock *lock, SaBusy *busy)
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
		login_tag(&tag, lock->application, TextDatumGetCString(names[i]));
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
lock_accounts(SaBusy *busy, void *argument)
{
	static SaStatement find_accounts = {.sql =
		"SELECT ctid, user_name::text FROM session_admin_internal.account"
		" WHERE application = $1 AND user_name = ANY ($2) ORDER BY user_name"
	};
	AccountsLock *lock = argument;
	SaArgs		args = {0};

	lock->left = NULL;
	find_logins(lock, busy);
	if (SA_STOPS(busy))
		return;
	sa_arg_text(&args, lock->application);
	sa_arg(&args, TEXTARRAYOID, PointerGetDatum(lock->user_names), false);
	sa_lock_found(SA_TABLE_ACCOUNT, LockTupleNoKeyExclusive, &find_accounts, &args, TEXTOID, NULL,
				  &lock->left, busy);
}

/*
 * Lock the accounts of these users (an array of text) without waiting; the names of those
 * that somebody else has go to "left".  The caller is connected to SPI.
 */
void
sa_accounts_try(const char *application, ArrayType *user_names, ArrayBuildState **left, SaBusy *busy)
{
	AccountsLock lock = {.application = application, .user_names = user_names};

	lock_accounts(busy, &lock);
	*left = lock.left;
}

/*
 * Lock all accounts that there are of these users (an array of text) at once, for who may
 * wait for them while it holds nothing (see lock.c).  An error if that takes too long.
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
	sa_lock_all(until, lock_accounts, &lock);
	if (lock.left != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the user is locked by another transaction"),
				 errhint("Try again, or see session_admin.lock_wait.")));
}

/* Count a login, and lock the account.  The caller is connected to SPI. */
void
sa_account_logged_in(const char *application, const char *user_name,
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

	/* who has waited for the lock already can write */
	if (IsolationUsesXactSnapshot())
		sa_account_make(application, user_name);

	sa_arg_text(&args, application);
	sa_arg_text(&args, user_name);
	sa_arg(&args, TIMESTAMPTZOID, TimestampTzGetDatum(at), false);
	sa_arg(&args, INETOID, InetPGetDatum(address), address == NULL);
	sa_arg_text(&args, login_method);
	sa_run(&count_login, &args);
}

/*
 * Before a login in a product's transaction: lock the account without waiting, or else
 * announce the login to who has it.  False if somebody else has it.
 */
bool
sa_account_enter(const char *application, const char *user_name)
{
	Datum		name = CStringGetTextDatum(user_name);
	ArrayBuildState *left;
	SaBusy		busy = {0};

	sa_accounts_try(application, construct_array(&name, 1, TEXTOID, -1, false, TYPALIGN_INT),
					&left, &busy);
	if (left == NULL)
		return true;
	sa_login_announce(application, user_name);
	return false;
}

/* Count a login of a user whose account somebody else has: see account_seen. */
void
sa_account_logged_in_later(const char *application, const char *user_name, TimestampTz at)
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
 * or if somebody else has it locked, maintain() counts it later (see account_seen).  Who
 * is unknown gets no account: somebody who guesses names must not fill the table.  The
 * caller is connected to SPI.
 */
void
sa_account_login_failed(const char *application, const char *user_name, TimestampTz at)
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
