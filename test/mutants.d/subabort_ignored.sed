# src/base/pending.c: what a rolled-back savepoint had ended counts
s/event == SUBXACT_EVENT_ABORT_SUB)/event == SUBXACT_EVENT_ABORT_SUB \&\& n_pending < 0)/
