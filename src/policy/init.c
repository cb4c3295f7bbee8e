/*
 * init.c
 *	  What this folder sets up when the library is loaded.
 */
#include "policy/load.h"

void
sa_policy_init(void)
{
	sa_application_init();
	sa_policy_copy_init();
	sa_durability_init();
}
