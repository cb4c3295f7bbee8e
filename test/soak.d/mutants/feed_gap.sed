# sync.c (c): what was under way at a position is skipped
s/WHERE xid >= p\.xid AND xid <= p\.xid/WHERE xid > p.xid AND xid <= p.xid/
