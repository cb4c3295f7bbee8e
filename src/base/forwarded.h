/*
 * forwarded.h
 *	  The client's address in X-Forwarded-For and Forwarded headers.
 *
 * Free of PostgreSQL, so that the fuzzer can compile the parser alone.
 */
#ifndef SA_FORWARDED_H
#define SA_FORWARDED_H

#include <stdbool.h>
#include <stddef.h>

#define SA_FORWARDED_MAX	8192	/* bytes of a header that is read at all */

typedef struct SaAddress
{
	int			length;			/* 4: IPv4, 16: IPv6 */
	unsigned char bytes[16];
} SaAddress;

typedef bool (*SaTrusts) (const SaAddress *address, const void *networks);

extern void sa_address_unmap(SaAddress *address);
extern void sa_forwarded_client(SaAddress *client, const char *header, size_t length,
								SaTrusts trusts, const void *networks);

#endif							/* SA_FORWARDED_H */
