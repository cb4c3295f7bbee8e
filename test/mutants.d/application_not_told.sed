# src/base/pending.c: a changed generation is not in doubt any more, but others are not told yet
s/sa_policy_tell(item->touch\.key\.relation);//
