# src/live/flush.c: requests are in the table and in the entry for a moment
s/live_flushed(touch, true);/;/
s/if (!committed)/if (committed)/
s/live_flushed(touch, false);/live_flushed(touch, true);/
