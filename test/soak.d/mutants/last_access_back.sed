# session.c,live.c,maintain.c (g): last access moves back with the clock
s/greatest(\(s\.\)\{0,1\}last_access_at, \([^)]*\))/\2/
