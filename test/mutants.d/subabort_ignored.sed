# src/base/at_end.c: what a rolled-back savepoint had ended counts
s/if (event == SUBXACT_EVENT_ABORT_SUB)/if (event == SUBXACT_EVENT_ABORT_SUB \&\& n_items < 0)/
