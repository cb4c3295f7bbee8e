# src/live/live.c: a touch is answered from an entry whose slot is in doubt
s/!in_doubt(slot_of(hash_value)) &&/true \&\&/
