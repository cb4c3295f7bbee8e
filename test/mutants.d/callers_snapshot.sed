# src/live/row.c: the row is read with the caller's snapshot
s/return sa_session_read_at(GetLatestSnapshot(), /return sa_session_read_at(GetTransactionSnapshot(), /
