# src/base/at_end.c: PREPARE TRANSACTION is not refused
s/^\t\t\tat_end_refuse_prepare();//
