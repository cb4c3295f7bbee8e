/*
 * position.c
 *	  The position in the feed, and the file that keeps it.
 */
#include "postgres_fe.h"

#include <signal.h>

#include "common/logging.h"
#include "common/string.h"
#include "follow.h"

char	   *position = NULL;

void
set_position(const char *value)
{
	char	   *copy = pg_strdup(value);

	pg_free(position);
	position = copy;
}

/*
 * Read the position that an earlier run left; false if there is no such file.
 * An empty file is a position that no server remembers.
 */
bool
position_read(void)
{
	char		buffer[65536];
	size_t		length;
	FILE	   *file = fopen(options.position_file, "r");

	if (file == NULL)
	{
		if (errno != ENOENT)
			pg_fatal("could not open file \"%s\": %m", options.position_file);
		return false;
	}
	length = fread(buffer, 1, sizeof(buffer) - 1, file);
	if (ferror(file))
		pg_fatal("could not read file \"%s\": %m", options.position_file);
	fclose(file);

	buffer[length] = '\0';
	(void) pg_strip_crlf(buffer);
	if (strspn(buffer, "0123456789:,") != strlen(buffer))
		pg_fatal("file \"%s\" does not contain a position", options.position_file);
	if (buffer[0] != '\0')
		set_position(buffer);
	return true;
}

/*
 * Write the position before it is presented.  Should a crash of the machine
 * leave an older one, or an empty file, the server does not remember that, and
 * answers with a resync: there is no need to wait for the disk.
 */
void
position_write(void)
{
	char		temporary[MAXPGPATH];
	FILE	   *file;

	snprintf(temporary, sizeof(temporary), "%s.tmp", options.position_file);
	file = fopen(temporary, "w");
	if (file == NULL)
		pg_fatal("could not open file \"%s\": %m", temporary);
	if (fprintf(file, "%s\n", position) < 0 || fclose(file) != 0)
		pg_fatal("could not write file \"%s\": %m", temporary);
	if (rename(temporary, options.position_file) != 0)
		pg_fatal("could not rename file \"%s\" to \"%s\": %m", temporary, options.position_file);
}
