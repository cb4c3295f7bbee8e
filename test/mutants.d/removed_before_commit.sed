# src/base/pending.c: entries are removed before the commit, and not restored if it fails
s/^\t\tsa_live_end_start(key_of(item));/\t{ sa_live_end_start(key_of(item)); sa_live_end_commit(key_of(item), item->kind == KIND_CHANGED); }/
s/^\t\t\t\tsa_live_end_commit(key_of(item), item->kind == KIND_CHANGED);//
