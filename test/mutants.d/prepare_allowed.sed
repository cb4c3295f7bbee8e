# src/base/pending.c: PREPARE TRANSACTION is not refused
s/case XACT_EVENT_PRE_PREPARE:/&\n\t\t\tbreak;/
