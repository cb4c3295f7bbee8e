/*
 * durability.c
 *	  What the commit of an invalidation waits for, whatever synchronous_commit says.
 */
#include "policy/load.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "utils/guc.h"

typedef struct Promise
{
	SaDurability durability;
	XLogRecPtr	written;		/* if not 0: nothing but what was written up
								 * to here, which need not be durable */
} Promise;

static const SaAtEndKind promise_kind;

/*
 * How durably an invalidation commits in this application; NULL: in the strictest of
 * all.
 */
static SaDurability
policy_durability(const char *application)
{
	static SaStatement find_strictest = {.sql =
		"SELECT EXISTS (SELECT FROM session_admin_internal.policy"
		"  WHERE name = 'invalidation_durability' AND value = 'remote_apply')"
	};
	SaApplication found;
	SaOwner		owner;
	bool		isnull;
	bool		apply;

	if (application != NULL)
		return sa_application_find(application, &found) ?
			found.invalidation_durability : SA_DURABILITY_ON;
	sa_owner_enter(&owner);
	SPI_connect();
	sa_run(&find_strictest, NULL);
	apply = DatumGetBool(sa_result(0, 1, &isnull));
	SPI_finish();
	sa_owner_leave(&owner);
	return apply ? SA_DURABILITY_APPLY : SA_DURABILITY_ON;
}

/*
 * For this commit only: a local setting is undone when the transaction has ended, even if
 * an error in another callback ends it. A setting that cannot be changed here stays: that
 * of the worker, which must not hang on a standby.
 */
static void
promise_announce(int position)
{
	SaDurability durability = SA_DURABILITY_NONE;
	XLogRecPtr	written = InvalidXLogRecPtr;
	const Promise *promise;
	bool		apply;

	while ((promise = sa_at_end_next(&promise_kind, &position)) != NULL)
	{
		durability = Max(durability, promise->durability);
		written = Max(written, promise->written);
	}

	/* if the transaction has written anything since, that is not ours to lose */
	if (durability == SA_DURABILITY_NONE && written != InvalidXLogRecPtr &&
		written == XactLastRecEnd && synchronous_commit > SYNCHRONOUS_COMMIT_OFF)
	{
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
		return;
	}
	apply = durability == SA_DURABILITY_APPLY;
	if (durability == SA_DURABILITY_NONE || synchronous_commit >=
		(apply ? SYNCHRONOUS_COMMIT_REMOTE_APPLY : SYNCHRONOUS_COMMIT_REMOTE_FLUSH))
		return;
	(void) set_config_option("synchronous_commit", apply ? "remote_apply" : "on",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * The session that commits a prepared transaction would not know what that has to wait
 * for.
 */
static const SaAtEndKind promise_kind = {
	.size = sizeof(Promise),
	.announce = promise_announce,
	.refuses_prepare = "used remember-me tokens or followed the feed",
	.refusal_rank = 4
};

/*
 * Commit as durably as the settings allow: somebody is told what this transaction did to
 * this application (NULL: to all), and must not see it undone. The commit waits for the
 * disk even if the client runs with synchronous_commit = off, and for the standbys in
 * synchronous_standby_names.
 */
void
sa_commit_durably(const char *application)
{
	Promise		promise = {.durability = policy_durability(application)};
	const Promise *last = sa_at_end_last(&promise_kind);

	if (last == NULL || last->durability < promise.durability)
		sa_at_end_add(&promise_kind, &promise);
	ForceSyncCommit();
}

/*
 * All that this transaction has written up to now may be lost in a crash: its commit need
 * not wait for the disk, unless it writes anything else.
 */
void
sa_commit_lazily(void)
{
	Promise		promise = {.durability = SA_DURABILITY_NONE, .written = XactLastRecEnd};

	sa_at_end_add(&promise_kind, &promise);
}

void
sa_durability_init(void)
{
	sa_at_end_register(&promise_kind);
}
