#include "session_admin.h"
inet *sa_client_address(inet *peer, const char *f, ArrayType *t){ (void) f; (void) t; return peer; }
