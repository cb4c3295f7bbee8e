# sync.c (c): what a position has seen comes again
s/"   WHERE xid >= pg_snapshot_xmax(\$1)"/"   WHERE xid >= pg_snapshot_xmin($1)"/
