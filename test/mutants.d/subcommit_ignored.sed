# src/base/at_end.c: what a released savepoint had ended is not dropped with the one around it
s/items\[i\]\.subid = parent;/;/
