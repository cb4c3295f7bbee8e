# src/base/pending.c: what a released savepoint had ended is not dropped with the one around it
s/pending\[i\]\.subid = parent;/;/
