# src/live/live.c: a fill is stored although a transaction has ended the session since
s/pg_atomic_read_u64(&slot->started) == fill->slot_started &&/true \&\&/
