# src/live/live.c: an entry of an older epoch is believed
s/entry->epoch == pg_atomic_read_u64(&sa_live_shared->epoch))/entry->epoch != EPOCH_NONE)/
