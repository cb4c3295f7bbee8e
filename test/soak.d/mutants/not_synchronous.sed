# archive.c,pending.c (f): an end is committed as the application likes it
s/ForceSyncCommit();/;/
s/^\(\t*\)raise_synchronous_commit();/\1;/
