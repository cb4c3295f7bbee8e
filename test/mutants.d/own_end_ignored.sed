# src/live/live.c: who has ended a session is answered from its entry
s/ || sa_at_end_any())/)/
