/*
 * clock.c
 *	  A clock that a test sets, for LD_PRELOAD: the wall clock is off by as many seconds
 *	  as the file TEST_CLOCK says.  CLOCK_MONOTONIC stays as it is.
 *
 * (libfaketime does the same, but not in processes that PostgreSQL 15 forks while it
 * waits, such as background workers.)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long
offset(void)
{
	const char *name = getenv("TEST_CLOCK");
	char		text[32] = {0};
	int			fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	long		seconds = 0;

	if (fd >= 0)
	{
		if (read(fd, text, sizeof(text) - 1) > 0)
			seconds = strtol(text, NULL, 10);
		close(fd);
	}
	return seconds;
}

int
clock_gettime(clockid_t id, struct timespec *now)
{
	int			result = (int) syscall(SYS_clock_gettime, id, now);

	if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		now->tv_sec += offset();
	return result;
}

int
gettimeofday(struct timeval *now, void *zone)
{
	struct timespec exact;

	(void) zone;
	(void) clock_gettime(CLOCK_REALTIME, &exact);
	now->tv_sec = exact.tv_sec;
	now->tv_usec = exact.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *now)
{
	struct timespec exact;

	(void) clock_gettime(CLOCK_REALTIME, &exact);
	if (now != NULL)
		*now = exact.tv_sec;
	return exact.tv_sec;
}
