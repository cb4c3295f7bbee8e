# src/ending/invalidation.c: an UPDATE by hand leaves entries as they are
s/if (!sa_session_writing)/if (false)/
