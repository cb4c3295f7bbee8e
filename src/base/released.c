/*
 * released.c
 *	  Waits in a function without holding the snapshot of the statement that calls it, so
 *	  that vacuum goes on meanwhile.
 *
 * Three references hold that snapshot while a SELECT runs: the portal's QueryDesc, the
 * executor's state and the stack of active snapshots.  They are given up, and after the
 * wait made anew, of a newer snapshot, by the functions that the portal and the executor
 * use themselves.  This is safe because
 *
 * - it is done only if the statement reads no table: there is nothing in its plan that has
 *	 read with the old snapshot, or keeps a pointer to it.  What it calls afterwards sees
 *	 the newer one, as the next statement would.
 * - it is the statement of a client: what calls us is the active portal's own executor,
 *	 not a function that this calls, whose snapshot the caller would miss.
 * - PostgreSQL sets the backend's xmin, and does it only if no snapshot at all is left.
 *	 Whatever else holds one (a cursor, a function that is suspended, an exported snapshot)
 *	 goes on to be protected, and then this has no effect.  What it does not count, the
 *	 snapshot for catalogs, is invalidated first.
 * - an error leaves no reference behind: a portal that has failed drops its executor
 *	 without looking at its snapshots.
 *
 * In any other case the snapshot is kept.
 */
#include "base/base.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "executor/execdesc.h"
#include "nodes/execnodes.h"
#include "nodes/plannodes.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* Does a statement read nothing but what functions give? */
static bool
released_reads_no_table(const PlannedStmt *plan)
{
	ListCell   *cell;

	if (plan->commandType != CMD_SELECT || plan->hasModifyingCTE || plan->rowMarks != NIL)
		return false;
	foreach(cell, plan->rtable)
	{
		RTEKind		kind = lfirst_node(RangeTblEntry, cell)->rtekind;

		if (kind != RTE_FUNCTION && kind != RTE_RESULT && kind != RTE_VALUES)
			return false;
	}
	return true;
}

/*
 * The statement of the client, if it is what calls this function that returns a set, and
 * reads no table; else NULL.
 */
QueryDesc *
sa_lone_statement(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	QueryDesc  *query;

	if (ActivePortal == NULL || ActivePortal->strategy != PORTAL_ONE_SELECT ||
		ActivePortal->queryDesc == NULL || IsInParallelMode() ||
		rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) || rsinfo->econtext == NULL)
		return NULL;
	query = ActivePortal->queryDesc;
	if (query->estate == NULL || query->estate != rsinfo->econtext->ecxt_estate ||
		CurrentResourceOwner != ActivePortal->resowner ||
		GetCurrentTransactionNestLevel() != 1)
		return NULL;
	return released_reads_no_table(query->plannedstmt) ? query : NULL;
}

/*
 * Give up the snapshot of the statement, which may be NULL; false if that is not possible.
 * After that, only what takes a snapshot of its own may be run until sa_snapshot_retake().
 */
bool
sa_snapshot_release(QueryDesc *query)
{
	Snapshot	snapshot;

	if (query == NULL || IsolationUsesXactSnapshot() || !ActiveSnapshotSet())
		return false;
	snapshot = query->snapshot;
	if (GetActiveSnapshot() != snapshot || query->estate->es_snapshot != snapshot ||
		query->crosscheck_snapshot != InvalidSnapshot)
		return false;

	query->snapshot = InvalidSnapshot;
	query->estate->es_snapshot = InvalidSnapshot;
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	UnregisterSnapshot(snapshot);
	return true;
}

/* Give the statement a snapshot again, that of now. */
void
sa_snapshot_retake(QueryDesc *query)
{
	query->snapshot = RegisterSnapshot(GetTransactionSnapshot());
	query->estate->es_snapshot = RegisterSnapshot(query->snapshot);
	PushActiveSnapshot(query->snapshot);
}
