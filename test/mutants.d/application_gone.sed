# src/ending/invalidation.c: sessions of an application that is gone keep their entries
s/rows->application\.key = sa_application_key(name);/{ SaApplication found; rows->application.key = sa_application_find(name, \&found) ? found.key : 0; }/
