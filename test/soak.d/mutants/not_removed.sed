# pending.c (a): what has ended stays in the shared table
s/^\t\t\t\tsa_live_end_commit(key_of(item), item->kind == KIND_CHANGED);//
