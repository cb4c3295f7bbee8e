# archive.c,durability.c (f): an end is committed as the application likes it
s/ForceSyncCommit();/;/
s/if (durability == SA_DURABILITY_NONE || synchronous_commit >=/if (true || synchronous_commit >=/
