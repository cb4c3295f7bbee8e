/*
 * at_end.c
 *	  What happens at the end of this transaction.
 *
 * A list of items, each of a kind.  The owners of the kinds register them when the
 * library is loaded; this file knows none of them.  README.md in this folder has the
 * rules that the functions of a kind keep.
 */
#include "base/init.h"

#include "access/xact.h"
#include "utils/memutils.h"

#define KINDS_MAX	16

/* A list that was longer than this is not kept for the next transaction. */
#define KEPT_MAX	10000

typedef struct AtEndItem
{
	SubTransactionId subid;
	const SaAtEndKind *kind;
	bool		begun;			/* before() was called: after() will be */
	union
	{
		char		bytes[SA_AT_END_SIZE];
		int64		align;
		void	   *align_pointer;
	}			data;
} AtEndItem;

static const SaAtEndKind *kinds[KINDS_MAX];
static int	n_kinds = 0;

/*
 * In the order in which they were added.  Nothing is added to a transaction while a
 * subtransaction of it runs, so that the items of a subtransaction are the last ones;
 * those that outlive savepoints may lie between them.
 */
static AtEndItem *items = NULL;
static int	n_items = 0;
static int	max_items = 0;
static int	n_changes = 0;		/* items that change what is valid */

/* Have before() and announce() been called for what was added by then? */
static bool begun = false;

/* Make a kind known.  Called by an init function, when the library is loaded. */
void
sa_at_end_register(const SaAtEndKind *kind)
{
	if (n_kinds == KINDS_MAX || kind->size > SA_AT_END_SIZE)
		elog(ERROR, "too many or too large kinds of items at the end of a transaction");
	kinds[n_kinds++] = kind;
}

static void
at_end_before(AtEndItem *item)
{
	item->begun = true;
	if (item->kind->before != NULL)
		item->kind->before(item->data.bytes);
}

/* Add a copy of this item. */
void
sa_at_end_add(const SaAtEndKind *kind, const void *data)
{
	AtEndItem  *item;

	if (n_items == max_items)
	{
		int			larger = Max(64, max_items * 2);

		if (items == NULL)
			items = MemoryContextAlloc(TopMemoryContext, larger * sizeof(AtEndItem));
		else
			items = repalloc_huge(items, larger * sizeof(AtEndItem));
		max_items = larger;
	}

	item = &items[n_items];
	item->subid = kind->outlives_savepoints ? TopSubTransactionId : GetCurrentSubTransactionId();
	item->kind = kind;
	item->begun = false;
	memcpy(item->data.bytes, data, kind->size);
	n_items++;
	if (kind->changes_validity)
		n_changes++;

	/* another callback before commit may add items after ours has run */
	if (begun)
	{
		if (kind->announce != NULL)
			kind->announce(n_items - 1);
		at_end_before(&items[n_items - 1]);
	}
}

/* The item that the current subtransaction has added last, if it is of this kind; else NULL. */
const void *
sa_at_end_last(const SaAtEndKind *kind)
{
	if (n_items == 0 || items[n_items - 1].kind != kind ||
		items[n_items - 1].subid != GetCurrentSubTransactionId())
		return NULL;
	return items[n_items - 1].data.bytes;
}

/* The next item of a kind, from *position on; NULL if there is none. */
const void *
sa_at_end_next(const SaAtEndKind *kind, int *position)
{
	while (*position < n_items)
	{
		const AtEndItem *item = &items[(*position)++];

		if (item->kind == kind)
			return item->data.bytes;
	}
	return NULL;
}

/* Has this transaction added any of a kind? */
bool
sa_at_end_any_of(const SaAtEndKind *kind)
{
	int			position = 0;

	return sa_at_end_next(kind, &position) != NULL;
}

/* How many items has this transaction added that change what is valid? */
int
sa_at_end_changes(void)
{
	return n_changes;
}

/* Has this transaction ended sessions, or changed what makes them valid? */
bool
sa_at_end_any(void)
{
	return n_changes > 0;
}

/* Before commit: first all that may fail, then what becomes visible is put in doubt. */
static void
at_end_begin(void)
{
	for (int i = 0; i < n_kinds; i++)
	{
		if (kinds[i]->announce != NULL)
			kinds[i]->announce(0);
	}
	for (int i = 0; i < n_items; i++)
		at_end_before(&items[i]);
	begun = true;
	if (n_items > 0)
		sa_test_point("pre_commit");
}

/*
 * Forget all items. After PREPARE TRANSACTION, those that outlive savepoints stay until a
 * commit or an abort.
 */
static void
at_end_clear(bool is_prepared)
{
	int			n_kept = 0;

	for (int i = 0; is_prepared && i < n_items; i++)
	{
		if (items[i].kind->outlives_savepoints)
			items[n_kept++] = items[i];
	}
	n_items = n_kept;
	n_changes = 0;
	begun = false;
	if (max_items > KEPT_MAX && n_kept == 0)
	{
		pfree(items);
		items = NULL;
		max_items = 0;
	}
}

/* After commit or abort: nothing here can fail. */
static void
at_end_finish(bool committed)
{
	if (committed && n_items > 0)
		sa_test_point("committed");
	for (int i = 0; i < n_items; i++)
	{
		if (items[i].begun && items[i].kind->after != NULL)
			items[i].kind->after(items[i].data.bytes, committed);
	}
	if (committed && n_items > 0)
		sa_test_point("finished");
	at_end_clear(false);
}

/* Refuse PREPARE TRANSACTION if an item does, with the reason that ranks first. */
static void
at_end_refuse_prepare(void)
{
	const SaAtEndKind *refusing = NULL;

	for (int i = 0; i < n_items; i++)
	{
		const SaAtEndKind *kind = items[i].kind;

		if (kind->refuses_prepare != NULL &&
			(refusing == NULL || kind->refusal_rank < refusing->refusal_rank))
			refusing = kind;
	}
	if (refusing != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot prepare a transaction that has %s", refusing->refuses_prepare),
				 refusing->refusal_hint ? errhint("%s", refusing->refusal_hint) : 0));
}

static void
at_end_xact_callback(XactEvent event, pg_attribute_unused() void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			at_end_begin();
			break;
		case XACT_EVENT_COMMIT:
			at_end_finish(true);
			break;
		case XACT_EVENT_ABORT:
			at_end_finish(false);
			break;
		case XACT_EVENT_PRE_PREPARE:
			at_end_refuse_prepare();
			break;
		case XACT_EVENT_PREPARE:
			at_end_clear(true);
			break;
		default:
			break;
	}
}

static void
at_end_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
						pg_attribute_unused() void *arg)
{
	int			first = n_items;
	int			n_kept;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (first > 0 &&
		   (items[first - 1].subid == subid || items[first - 1].kind->outlives_savepoints))
		first--;

	n_kept = first;
	for (int i = first; i < n_items; i++)
	{
		if (items[i].subid == subid)
		{
			if (event == SUBXACT_EVENT_ABORT_SUB)
			{
				if (items[i].kind->changes_validity)
					n_changes--;
				continue;
			}
			items[i].subid = parent;
		}
		items[n_kept++] = items[i];
	}
	n_items = n_kept;
}

/* Watch over the ends of transactions. */
void
sa_at_end_init(void)
{
	RegisterXactCallback(at_end_xact_callback, NULL);
	RegisterSubXactCallback(at_end_subxact_callback, NULL);
}
