# src/live/live.c: a row is stored that its own transaction may roll back
s/ || session->written_here)/)/
