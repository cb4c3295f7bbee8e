# src/ending/tell_live.c: an UPDATE by hand leaves entries as they are
s/if (!sa_touch_is_writing)/if (false)/
