/*
 * options.h
 *	  What the command line of pg_session_follow says.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

typedef struct Options
{
	const char *dbname;
	const char *host;
	const char *port;
	const char *user;
	enum trivalue
	{
		TRI_DEFAULT, TRI_NO, TRI_YES
	}			prompt_password;
	const char *node;
	const char *application;
	const char *command;
	const char *position_file;
	bool		verbose;
} Options;

extern const char *progname;
extern Options options;

extern void parse_options(int argc, char *argv[]);

#endif							/* OPTIONS_H */
