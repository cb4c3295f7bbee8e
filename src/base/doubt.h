/*
 * doubt.h
 *	  Is an answer in doubt?  A pair of counters in shared memory: of those who have
 *	  begun to change what the answer depends on, and of those who have finished.
 *
 * Whoever changes something counts itself as begun before the change becomes visible,
 * and as finished when nobody can take the old answer for a current one any more.
 */
#ifndef SA_DOUBT_H
#define SA_DOUBT_H

#include "port/atomics.h"

typedef struct SaDoubt
{
	pg_atomic_uint64 begun;
	pg_atomic_uint64 finished;
} SaDoubt;

static inline void
sa_doubt_init(SaDoubt *doubt)
{
	pg_atomic_init_u64(&doubt->begun, 0);
	pg_atomic_init_u64(&doubt->finished, 0);
}

static inline void
sa_doubt_begin(SaDoubt *doubt)
{
	pg_atomic_fetch_add_u64(&doubt->begun, 1);
}

static inline void
sa_doubt_finish(SaDoubt *doubt)
{
	pg_atomic_fetch_add_u64(&doubt->finished, 1);
}

static inline bool
sa_in_doubt(SaDoubt *doubt)
{
	/* finished is read first: a begin in between is seen, a finish is not */
	uint64		finished = pg_atomic_read_u64(&doubt->finished);

	pg_read_barrier();
	return pg_atomic_read_u64(&doubt->begun) != finished;
}

#endif							/* SA_DOUBT_H */
