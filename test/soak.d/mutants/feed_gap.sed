# node.c (c): what was under way at a position is skipped
s/NOT pg_visible_in_snapshot(xid, \$1)/xid >= pg_snapshot_xmax($1)/
