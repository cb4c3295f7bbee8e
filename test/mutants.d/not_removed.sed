# src/live/live.c: entries stay after the commit
s/^\t\tlive_remove(key);//
