/*
 * address.c
 *	  The client's address behind proxies, as an inet.
 *
 * The parser is in forwarded.c.  Here are the proxies that are trusted, and the
 * conversion to and from PostgreSQL's types.  Nothing here throws on any header:
 * it comes from the internet, and must not stop a login.
 */
#include "base/base.h"
#include "base/forwarded.h"

#include <sys/socket.h>

#include "catalog/pg_type.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sa_client_address_sql);

typedef struct Network
{
	SaAddress	address;
	int			bits;
} Network;

typedef struct Networks
{
	int			count;
	Network    *networks;
} Networks;

static void
address_from_inet(SaAddress *address, inet *value)
{
	memset(address, 0, sizeof(SaAddress));
	address->length = ip_addrsize(value);
	memcpy(address->bytes, ip_addr(value), address->length);
}

static inet *
inet_from_address(const SaAddress *address)
{
	inet	   *value = palloc0(sizeof(inet));

	ip_family(value) = address->length == 4 ? PGSQL_AF_INET : PGSQL_AF_INET6;
	ip_bits(value) = ip_maxbits(value);
	memcpy(ip_addr(value), address->bytes, address->length);
	SET_INET_VARSIZE(value);
	return value;
}

/* IPv4 networks written as IPv6 (::ffff:10.0.0.0/104) are IPv4 networks. */
static void
networks_from_array(Networks *networks, ArrayType *array)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
	int			i;

	deconstruct_array(array, CIDROID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	networks->networks = palloc0(sizeof(Network) * Max(count, 1));
	networks->count = 0;
	for (i = 0; i < count; i++)
	{
		Network    *network = &networks->networks[networks->count];
		inet	   *value;

		if (nulls[i])
			continue;
		value = DatumGetInetPP(values[i]);
		address_from_inet(&network->address, value);
		network->bits = ip_bits(value);
		if (network->bits >= 96)
		{
			sa_address_unmap(&network->address);
			if (network->address.length == 4 && ip_family(value) == PGSQL_AF_INET6)
				network->bits -= 96;
		}
		networks->count++;
	}
}

static bool
networks_trust(const SaAddress *address, const void *arg)
{
	const Networks *networks = arg;
	int			i;

	for (i = 0; i < networks->count; i++)
	{
		const Network *network = &networks->networks[i];

		if (network->address.length == address->length &&
			bitncmp(network->address.bytes, address->bytes, network->bits) == 0)
			return true;
	}
	return false;
}

/*
 * Find the client's address, in the current memory context. Arguments that are not known
 * are NULL. The result is always a plain host address, of IPv4 if it can be.
 */
inet *
sa_client_address(inet *peer, const char *forwarded_for, ArrayType *trusted)
{
	SaAddress	client;
	Networks	networks;

	if (peer == NULL)
		return NULL;
	address_from_inet(&client, peer);
	sa_address_unmap(&client);
	if (forwarded_for != NULL && trusted != NULL)
	{
		networks_from_array(&networks, trusted);
		sa_forwarded_client(&client, forwarded_for,
							strnlen(forwarded_for, SA_FORWARDED_MAX + 1), networks_trust, &networks);
	}
	return inet_from_address(&client);
}

/* client_address(peer, forwarded_for, trusted) */
Datum
sa_client_address_sql(PG_FUNCTION_ARGS)
{
	inet	   *peer = PG_ARGISNULL(0) ? NULL : PG_GETARG_INET_PP(0);
	char	   *forwarded_for = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	ArrayType  *trusted = PG_ARGISNULL(2) ? NULL : PG_GETARG_ARRAYTYPE_P(2);
	inet	   *client = sa_client_address(peer, forwarded_for, trusted);

	if (client == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INET_P(client);
}
