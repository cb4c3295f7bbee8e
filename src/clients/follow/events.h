/*
 * events.h
 *	  What pg_session_follow waits for: the server, a signal, a while.
 */
#ifndef EVENTS_H
#define EVENTS_H

#include <signal.h>

#define MIN_BACKOFF		100		/* milliseconds until what failed is tried
								 * again */
#define MAX_BACKOFF		5000

extern volatile sig_atomic_t stopping;	/* by SIGINT or SIGTERM */
extern volatile sig_atomic_t connecting;	/* set while libpq cannot be
											 * interrupted */

extern void handle_signals(void);
extern int64 now_ms(void);
extern void wait_for_events(int socket, short events, int64 timeout);
extern void back_off(int *delay);

#endif							/* EVENTS_H */
