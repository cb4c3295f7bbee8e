# src/live/live.c: an entry goes on with the limits of its user that it was stored with
s/		sa_policies_are_of(entry->limit_version);/		true;/
