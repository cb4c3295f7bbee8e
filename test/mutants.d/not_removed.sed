# src/base/pending.c: entries stay after the commit
s/^\t\t\t\tsa_live_end_commit(key_of(item), item->kind == KIND_CHANGED);//
