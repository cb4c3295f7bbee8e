/*
 * clock.c
 *	  A clock that nobody sets.
 *
 * What has to happen some time from now is reckoned with it: the clock that people
 * read may be set forward or back meanwhile.
 */
#include "base/base.h"

#include <time.h>

/*
 * Microseconds since some moment before this machine's processes began: it never
 * goes back, all processes of the machine read the same, and it starts anew with
 * the machine.
 */
int64
sa_monotonic_now(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}
