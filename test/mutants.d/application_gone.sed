# src/invalidation.c: sessions of an application that is gone keep their entries
s/if (strcmp(application\.name, name) != 0)/if (!sa_application_find(name, \&application)) continue;\n\t\tif (strcmp(application.name, name) != 0)/
