# src/live/live.c: a touch is answered from an entry whose stripe is in doubt
s/!sa_in_doubt(live_stripe_of(hash_value)) &&/true \&\&/
