# src/ending/tell_live.c: sessions of an application that is gone keep their entries
s/keys->application\.key = sa_application_key(name);/{ SaApplication found; keys->application.key = sa_application_find(name, \&found) ? found.key : 0; }/
