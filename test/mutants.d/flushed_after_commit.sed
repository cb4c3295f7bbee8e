# src/base/pending.c: requests are in the table and in the entry for a moment
s/sa_live_flushed(&item->touch, true);/;/
s/item->kind == KIND_FLUSHED && !committed)/item->kind == KIND_FLUSHED \&\& committed)/
s/sa_live_flushed(&item->touch, false);/sa_live_flushed(\&item->touch, true);/
