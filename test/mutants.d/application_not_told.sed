# src/policy/application.c: a changed generation is not in doubt any more, but others are not told yet
s/policy_change_send(item);//
