/*
 * capture.c
 *	  What the products' own tables hold of users.
 */
#include "session_admin.h"

void
sa_capture_forget_users(const char *application, ArrayType *user_names, SaEnding *ending)
{
	(void) application;
	(void) user_names;
	(void) ending;
}

void
sa_capture_forget_application(const char *application, SaEnding *ending)
{
	(void) application;
	(void) ending;
}
