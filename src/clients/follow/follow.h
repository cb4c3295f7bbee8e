/*
 * follow.h
 *	  What the files of pg_session_follow share.
 */
#ifndef FOLLOW_H
#define FOLLOW_H

#include "libpq-fe.h"

#define MIN_BACKOFF		100		/* milliseconds until what failed is tried
								 * again */

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

/* options.c */
extern const char *progname;
extern Options options;

extern void parse_options(int argc, char *argv[]);

/* event.c: signals and time */
extern volatile sig_atomic_t stopping;
extern volatile sig_atomic_t connecting;

extern void handle_signals(void);
extern int64 now_ms(void);
extern void wait_for_events(PGconn *watched, short events, int64 timeout);
extern void back_off(int *delay);

/* connection.c */
extern PGconn *conn;			/* NULL: not connected */

extern bool connect_to_server(void);
extern void disconnect(void);
extern PGresult *query(const char *sql, int nparams, const char *const *params);
extern bool run(const char *sql, int nparams, const char *const *params);

/* position.c */
extern char *position;			/* NULL: not joined, or unknown */

extern void set_position(const char *value);
extern bool position_read(void);
extern void position_write(void);

/* apply.c */
extern bool apply(const char *json);

#endif							/* FOLLOW_H */
