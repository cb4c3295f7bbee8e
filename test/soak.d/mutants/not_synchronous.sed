# invalidation.c,feed.c,captured.c,remember_me.c (f): an end is committed as the application likes it
s/ForceSyncCommit();/;/
