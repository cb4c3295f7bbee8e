# src/live/live.c: a fill is stored although a transaction has ended the session since
s/pg_atomic_read_u64(&stripe->begun) == fill->stripe_begun &&/true \&\&/
