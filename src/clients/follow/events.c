/*
 * events.c
 *	  Wait for the server, a signal or a while.
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "common/logging.h"

#include "events.h"

volatile	sig_atomic_t stopping = false;
volatile	sig_atomic_t connecting = false;

static int	wake[2];			/* a pipe: signals end a poll() that would
								 * begin after them */

static void
handle_signal(int signo)
{
	int			save_errno = errno;

	if (signo != SIGCHLD)
	{
		/*
		 * libpq is not to be interrupted, and there is nothing to leave
		 * cleanly
		 */
		if (connecting || stopping)
			_exit(1);
		stopping = true;
	}
	(void) !write(wake[1], "", 1);
	errno = save_errno;
}

void
handle_signals(void)
{
	struct sigaction action = {0};

	if (pipe(wake) != 0)
		pg_fatal("could not create pipe: %m");
	for (int i = 0; i < 2; i++)
	{
		if (fcntl(wake[i], F_SETFL, O_NONBLOCK) != 0 ||
			fcntl(wake[i], F_SETFD, FD_CLOEXEC) != 0)
			pg_fatal("could not set up pipe: %m");
	}

	/* no SA_RESTART: a write to a reader that does not read must end */
	sigemptyset(&action.sa_mask);
	action.sa_handler = handle_signal;
	if (sigaction(SIGINT, &action, NULL) != 0 ||
		sigaction(SIGTERM, &action, NULL) != 0 ||
		sigaction(SIGCHLD, &action, NULL) != 0)
		pg_fatal("could not set signal handler: %m");
	action.sa_handler = SIG_IGN;
	if (sigaction(SIGPIPE, &action, NULL) != 0)
		pg_fatal("could not set signal handler: %m");
}

/* A clock that nobody sets, in milliseconds */
int64
now_ms(void)
{
	struct timespec now;

	if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
		pg_fatal("could not read clock: %m");
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Wait for a socket, unless that is negative, for a signal, or a while; forever if that is
 * negative.
 */
void
wait_for_events(int socket, short events, int64 timeout)
{
	struct pollfd fds[2] = {{.fd = wake[0], .events = POLLIN}, {.fd = socket, .events = events}};
	char		drain[64];

	if (poll(fds, 2, timeout < 0 ? -1 : (int) Min(timeout, 3600 * 1000)) < 0 && errno != EINTR)
		pg_fatal("%s() failed: %m", "poll");
	while (read(wake[0], drain, sizeof(drain)) > 0)
		;
}

/* Wait longer each time; a signal ends it */
void
back_off(int *delay)
{
	int64		until = now_ms() + *delay;

	*delay = Min(*delay * 2, MAX_BACKOFF);
	while (!stopping && now_ms() < until)
		wait_for_events(-1, 0, until - now_ms());
}
