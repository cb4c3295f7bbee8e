/*
 * A wall clock that can be set, for the server of test/tools/soak: preloaded, it adds the
 * seconds that are in a file to the right time.
 *
 * libfaketime does that, too, but reads its file with fopen(), which hangs where a
 * timer's signal interrupts another one; and what PostgreSQL 15 forks in signal
 * handlers, that is inside of libfaketime's select(), has the right time for ever.
 * Here the file is mapped into memory: all processes see a step at once.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t no_offset = 0;
static const volatile int64_t *offset = &no_offset;

__attribute__((constructor)) static void
map_offset(void)
{
	const char *name = getenv("SOAK_CLOCK");
	int			file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	void	   *mapped;

	if (file < 0)
		return;
	mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
	close(file);
	if (mapped != MAP_FAILED)
		offset = mapped;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	int			result = (int) syscall(SYS_clock_gettime, clock, now);

	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += *offset;
	return result;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec time;

	(void) zone;
	(void) clock_gettime(CLOCK_REALTIME, &time);
	now->tv_sec = time.tv_sec;
	now->tv_usec = time.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *now)
{
	struct timespec time;

	(void) clock_gettime(CLOCK_REALTIME, &time);
	if (now != NULL)
		*now = time.tv_sec;
	return time.tv_sec;
}
