# node.c (c): what a position has seen comes again
s/ AND NOT pg_visible_in_snapshot(xid, \$1)/ AND xid >= pg_snapshot_xmin($1)/
