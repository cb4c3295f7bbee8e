/*
 * apply.c
 *	  Applies an invalidation: prints it, or runs a command with it.
 */
#include "postgres_fe.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/logging.h"
#include "follow.h"

/* Write all of a string; false if it could not be, or if we are to stop */
static bool
write_all(int fd, const char *data)
{
	size_t		length = strlen(data);

	while (length > 0)
	{
		ssize_t		written = write(fd, data, length);

		if (written < 0 && errno == EAGAIN)
		{
			struct pollfd ready = {.fd = fd, .events = POLLOUT};

			written = Min(poll(&ready, 1, -1), 0);
		}
		if (written < 0 && errno == EINTR && !stopping)
			continue;
		if (written < 0)
			return false;
		data += written;
		length -= written;
	}
	return true;
}

/* Run the command with a line on its standard input; whether it exited with 0 */
static bool
run_command(const char *line)
{
	bool		watch = true;
	bool		told = false;
	int			input[2];
	int			status;
	pid_t		child;
	pid_t		ended;

	if (pipe(input) != 0)
		pg_fatal("could not create pipe: %m");
	child = fork();
	if (child < 0)
	{
		pg_log_error("could not create process: %m");
		close(input[0]);
		close(input[1]);
		return false;
	}
	if (child == 0)
	{
		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		signal(SIGCHLD, SIG_DFL);
		signal(SIGPIPE, SIG_DFL);
		if (dup2(input[0], STDIN_FILENO) < 0)
			_exit(126);
		if (input[0] != STDIN_FILENO)
			close(input[0]);
		close(input[1]);
		execl("/bin/sh", "sh", "-c", options.command, (char *) NULL);
		_exit(127);
	}

	/* a command that does not read what it is given may still succeed */
	close(input[0]);
	(void) write_all(input[1], line);
	close(input[1]);

	/* however long it runs, the server must not wait for us to read */
	while ((ended = waitpid(child, &status, WNOHANG)) == 0)
	{
		wait_for_events(watch ? conn : NULL, POLLIN, -1);
		if (watch && conn != NULL && PQconsumeInput(conn) == 0)
			watch = false;
		if (stopping && !told)
		{
			kill(child, SIGTERM);
			told = true;
		}
	}
	if (ended < 0)
		pg_fatal("could not wait for command: %m");
	if (status != 0)
	{
		char	   *reason = wait_result_to_str(status);

		pg_log_error("command failed: %s", reason);
		free(reason);
	}
	return status == 0;
}

/*
 * The JSON as a line.  It has no control characters of ASCII but DEL; this and those
 * of Unicode, which terminals obey, too, are written as numbers.
 */
static char *
json_line(const char *json)
{
	char	   *line = pg_malloc(6 * strlen(json) + 2);
	char	   *to = line;

	for (const unsigned char *c = (const unsigned char *) json; *c; c++)
	{
		if (*c == 0x7f)
			to += sprintf(to, "\\u007f");
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			to += sprintf(to, "\\u00%02x", *++c);
		else
			*to++ = (char) *c;
	}
	strcpy(to, "\n");
	return line;
}

/* Apply one invalidation, however often it takes; false if we are to stop */
bool
apply(const char *json)
{
	char	   *line = json_line(json);
	int			delay = MIN_BACKOFF;
	bool		applied = false;

	if (options.command == NULL)
	{
		applied = write_all(STDOUT_FILENO, line);
		if (!applied && !stopping)
			pg_fatal("could not write to standard output: %m");
	}
	else
	{
		while (!stopping && !(applied = run_command(line)))
			back_off(&delay);
	}
	pg_free(line);
	return applied;
}
