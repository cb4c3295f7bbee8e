# src/live/live.c: entries are removed before the commit, and not restored if it fails
s/^\t\tlive_remove(key);//
s/\.before = live_doubt,$/.before = live_doubt_and_remove,/
s/^static const SaAtEndKind ended_kind = {/static void live_doubt_and_remove(const void *key) { live_doubt(key); live_remove(key); }\n\n&/
