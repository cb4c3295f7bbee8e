/*
 * wake.c
 *	  Tells housekeeping, which is far above, that there is something to do soon.
 */
#include "base/base.h"

void		(*sa_wake_hook) (void) = NULL;

/* There is something to do soon, once this transaction has committed. */
void
sa_wake_housekeeping(void)
{
	if (sa_wake_hook != NULL)
		sa_wake_hook();
}
