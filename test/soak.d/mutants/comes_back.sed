# ended_id.c (a): an id that has ended is not remembered
s/\(found = DatumGetTimestampTz(slot_getattr(slot, ENDED_ID_UNTIL, &isnull)) > \)now;/\1Max(now, DT_NOEND);/
