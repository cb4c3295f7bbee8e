/*
 * position.c
 *	  What a position in the feed says: which transactions it has seen, and up to where
 *	  in which history of the server.
 *
 * README.md says what a position claims, and how that is kept in a snapshot.
 */
#include "node/node.h"

#include "access/timeline.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"

#define TIMELINE_BITS	32
#define PLACE_BITS		64
#define SIGNATURE_BITS	48
#define CLAIM_BITS		(TIMELINE_BITS + PLACE_BITS + SIGNATURE_BITS)
#define CLAIM_FIRST		FirstNormalTransactionId

/* SQL that leaves the claim aside compares with this. */
StaticAssertDecl(CLAIM_FIRST + CLAIM_BITS == SA_POSITION_XID_MIN, "SA_POSITION_XID_MIN is wrong");

/* A snapshot without its xmin, which is the first running transaction, or else xmax. */
typedef struct SaSnapshot
{
	uint64		xmax;
	int			n_running;
	uint64	   *running;		/* in order */
	bool		bits[CLAIM_BITS];
	bool		any_bit;
} SaSnapshot;

PG_FUNCTION_INFO_V1(sa_feed_position);

/* Take it apart. */
static void
position_snapshot_read(Datum datum, SaSnapshot *snapshot)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(pg_snapshot_out, datum));
	char	   *next;

	memset(snapshot, 0, sizeof(SaSnapshot));
	/* xmin:xmax:xid,xid... */
	snapshot->running = palloc((strlen(text) / 2 + 1) * sizeof(uint64));
	(void) strtou64(text, &next, 10);
	snapshot->xmax = strtou64(next + 1, &next, 10);
	for (next++; *next != '\0'; next += *next == ',')
	{
		uint64		xid = strtou64(next, &next, 10);

		if (xid < CLAIM_FIRST + CLAIM_BITS && xid >= CLAIM_FIRST)
		{
			snapshot->bits[xid - CLAIM_FIRST] = true;
			snapshot->any_bit = true;
		}
		else
			snapshot->running[snapshot->n_running++] = xid;
	}
}

/* As text, without the bits of a claim. */
static char *
position_snapshot_text(const SaSnapshot *snapshot)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, UINT64_FORMAT ":" UINT64_FORMAT ":",
					 snapshot->n_running > 0 ? snapshot->running[0] : snapshot->xmax, snapshot->xmax);
	for (int i = 0; i < snapshot->n_running; i++)
		appendStringInfo(&text, i == 0 ? UINT64_FORMAT : "," UINT64_FORMAT, snapshot->running[i]);
	return text.data;
}

/*
 * feed_position(): the position of the statement that this is part of.
 *
 * That is its snapshot, with its own transaction listed as running.
 */
Datum
sa_feed_position(pg_attribute_unused() PG_FUNCTION_ARGS)
{
	FullTransactionId own = GetTopFullTransactionIdIfAny();
	uint64		xid = U64FromFullTransactionId(own);
	Datum		datum = DirectFunctionCall1(pg_current_snapshot, (Datum) 0);
	SaSnapshot	snapshot;
	int			place;

	if (!FullTransactionIdIsValid(own))
		return datum;
	position_snapshot_read(datum, &snapshot);
	if (xid >= snapshot.xmax)
		return datum;

	for (place = snapshot.n_running; place > 0 && snapshot.running[place - 1] > xid; place--)
		snapshot.running[place] = snapshot.running[place - 1];
	snapshot.running[place] = xid;
	snapshot.n_running++;
	return DirectFunctionCall1(pg_snapshot_in, CStringGetDatum(position_snapshot_text(&snapshot)));
}

static void
claim_write_bits(bool *bits, int n, uint64 value)
{
	for (int i = 0; i < n; i++)
		bits[i] = (value >> i) & 1;
}

static uint64
claim_read_bits(const bool *bits, int n)
{
	uint64		value = 0;

	for (int i = 0; i < n; i++)
		value |= (uint64) bits[i] << i;
	return value;
}

/* The signature of a claim that is made with this snapshot, in this database. */
static uint64
claim_signature(const SaSnapshot *snapshot, const SaClaim *claim, const char *key)
{
	char	   *signed_text = psprintf("%s/%u/%u/%X/%X/%s/%s", key, MyDatabaseId, claim->timeline,
									   LSN_FORMAT_ARGS(claim->place), position_snapshot_text(snapshot), key);
	uint8		hash[SA_HASH_LEN];
	uint64		result = 0;

	sa_sha256(signed_text, strlen(signed_text), hash);
	for (int i = 0; i < SIGNATURE_BITS / 8; i++)
		result = result << 8 | hash[i];
	return result;
}

/* The position with this claim; as it is, if that is none. */
Datum
sa_position_with_claim(Datum position, const SaClaim *claim, const char *key)
{
	SaSnapshot	snapshot;
	StringInfoData text;
	char	   *rest;
	bool		first = true;

	if (claim->place == InvalidXLogRecPtr || key == NULL)
		return position;
	position_snapshot_read(position, &snapshot);
	claim_write_bits(snapshot.bits, TIMELINE_BITS, claim->timeline);
	claim_write_bits(snapshot.bits + TIMELINE_BITS, PLACE_BITS, claim->place);
	claim_write_bits(snapshot.bits + TIMELINE_BITS + PLACE_BITS, SIGNATURE_BITS,
					 claim_signature(&snapshot, claim, key));

	initStringInfo(&text);
	for (int i = 0; i < CLAIM_BITS; i++)
	{
		if (!snapshot.bits[i])
			continue;
		if (first)
			appendStringInfo(&text, "%d:" UINT64_FORMAT ":", CLAIM_FIRST + i, snapshot.xmax);
		appendStringInfo(&text, first ? "%d" : ",%d", CLAIM_FIRST + i);
		first = false;
	}
	rest = strrchr(position_snapshot_text(&snapshot), ':') + 1;
	if (*rest != '\0')
		appendStringInfo(&text, ",%s", rest);
	return DirectFunctionCall1(pg_snapshot_in, CStringGetDatum(text.data));
}

/* The claim of a position; none (place 0) if it makes none, or one that we have not signed. */
SaClaim
sa_position_claim(Datum position, const char *key)
{
	SaClaim		none = {0};
	SaClaim		claim;
	SaSnapshot	snapshot;

	if (key == NULL)
		return none;
	position_snapshot_read(position, &snapshot);
	if (!snapshot.any_bit)
		return none;
	claim.timeline = (TimeLineID) claim_read_bits(snapshot.bits, TIMELINE_BITS);
	claim.place = claim_read_bits(snapshot.bits + TIMELINE_BITS, PLACE_BITS);
	if (claim_read_bits(snapshot.bits + TIMELINE_BITS + PLACE_BITS, SIGNATURE_BITS) !=
		claim_signature(&snapshot, &claim, key))
		return none;
	return claim;
}

/*
 * The claim of a node that is told now of everything visible. Invalidations are on the
 * disk before they are visible, so that this place is past the commits of all of them.
 */
SaClaim
sa_claim_now(void)
{
	SaClaim		claim;

	claim.timeline = GetWALInsertionTimeLine();
	claim.place = GetFlushRecPtr(NULL);
	return claim;
}

/*
 * Has this server left the timeline of the claim before its place?  *left_at is where
 * it did so, 0 if it never was on that timeline.
 */
bool
sa_claim_is_lost(const SaClaim *claim, XLogRecPtr *left_at)
{
	TimeLineID	current = GetWALInsertionTimeLine();
	ListCell   *cell;

	*left_at = InvalidXLogRecPtr;
	if (claim->place == InvalidXLogRecPtr)
		return false;
	foreach(cell, readTimeLineHistory(current))
	{
		TimeLineHistoryEntry *entry = lfirst(cell);

		if (entry->tli != claim->timeline)
			continue;
		/* a timeline of another server that was given the same number */
		if (claim->place < entry->begin)
			return true;

		/*
		 * beyond the end of the current one, if the disk was put back as it
		 * had been
		 */
		*left_at = claim->timeline == current ? GetXLogInsertRecPtr() : entry->end;
		return claim->place > *left_at;
	}
	return true;
}
