# src/live/live.c: a fill that was in doubt at its start is stored
s/pg_atomic_read_u64(&stripe->finished) == fill->stripe_begun;/true;/
