/*
 * fuzz_forwarded.c
 *	  Fuzzes src/base/forwarded.c with libFuzzer, and checks what it promises.
 *
 * Input is a header.  Bytes from 0x80 to 0xBF stand for the pieces below, so
 * that the fuzzer soon writes headers that are nearly right; every other byte
 * is itself.  Each header is read with several peers and sets of networks:
 *
 * 1. a peer that is not trusted is the answer;
 * 2. the answer is the peer, or an address that is in the header;
 * 3. an oversized header tells nothing;
 * 4. if the whole header is well-formed, a parser of another build (from the
 *    left, splitting first) finds the same answer;
 * 5. an untrusted answer stands, whatever a client puts before the header;
 * 6. an IPv4 address is never an IPv6 one.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/forwarded.h"

#define MAX_HEADER	(SA_FORWARDED_MAX + 4096)
#define MAX_HOPS	(MAX_HEADER / 2 + 1)

static const char *const pieces[] = {
	"for=", ";for=", ", for=", "For=", ";proto=https", ";by=", "host=", ";", ",", ", ", "\t", " ",
	"\"", "\\", "\\\"", "\\\\", "=", "[", "]", "\"[", "]\"", ":", "::", "%eth0",
	"unknown", "UNKNOWN", "_hidden", "_", ":_port", ":80", ":65536", ":0",
	"10.0.0.1", "10.9.8.7", "192.0.2.1", "198.51.100.17", "203.0.113.60", "1.2.3.4", "010.1.1.1",
	"256.1.1.1", "1.2.3", "127.1", "fd00::1", "2001:db8::17", "2001:db8:cafe::17",
	"::ffff:10.0.0.2", "::ffff:192.0.2.9", "::1", "::", "for=10.0.0.3", "for=192.0.2.60",
	"for=\"[fd00::2]\"", "for=\"[2001:db8::2]:47011\"", "for=\"192.0.2.43:47011\"", "for=unknown",
	"for=_SEVKISEK", "x=\"a,b;for=6.6.6.6\"", ", 10.0.0.4", ", 192.0.2.7", "\x01", "\xc3\xbc", "\r\n"
};

/* What an attacker may send ahead of what the proxies append */
static const char *const prefixes[] = {
	"", "6.6.6.6", "for=6.6.6.6", "for=\"", "\"", "\\", "for=6.6.6.6;x=\"", "x=\"\\", ";", "=",
	"for=6.6.6.6;host=\"a\\\"", "10.0.0.1", "rubbish", "[::1", "for=\"[fd00::1]\""
};

typedef enum Trust
{
	TRUST_PRIVATE, TRUST_ALL, TRUST_NONE
} Trust;

static bool
trusts(const SaAddress *address, const void *networks)
{
	switch (*(const Trust *) networks)
	{
		case TRUST_ALL:
			return true;
		case TRUST_NONE:
			return false;
		default:
			/* 10.0.0.0/8 and fd00::/8 */
			return address->bytes[0] == (address->length == 4 ? 10 : 0xfd);
	}
}

static bool
same(const SaAddress *a, const SaAddress *b)
{
	return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

static void
fail(const char *promise, const char *header, size_t length)
{
	fprintf(stderr, "broken promise: %s\nheader: %.*s\n", promise, (int) length, header);
	abort();
}

static bool
parse(const char *start, size_t length, SaAddress *address)
{
	char		buffer[64];

	if (length == 0 || length >= sizeof(buffer) || memchr(start, '\0', length) != NULL)
		return false;
	memcpy(buffer, start, length);
	buffer[length] = '\0';
	memset(address, 0, sizeof(SaAddress));
	if (inet_pton(AF_INET, buffer, address->bytes) == 1)
		address->length = 4;
	else if (inet_pton(AF_INET6, buffer, address->bytes) == 1)
	{
		struct in6_addr *v6 = (struct in6_addr *) address->bytes;

		address->length = 16;
		if (IN6_IS_ADDR_V4MAPPED(v6))
		{
			memmove(address->bytes, address->bytes + 12, 4);
			address->length = 4;
		}
	}
	else
		return false;
	return true;
}

/* Is the address anywhere in the header?  Looks at every run of its characters. */
static bool
occurs(const SaAddress *address, const char *header, size_t length)
{
	static char plain[MAX_HEADER];
	size_t		n = 0;
	size_t		i,
				j,
				end;
	SaAddress	candidate;

	for (i = 0; i < length; i++)
	{
		if (header[i] != '\\' || (i + 1 < length && header[i + 1] == '\\' && i++))
			plain[n++] = header[i];
	}
	for (i = 0; i < n; i = j + 1)
	{
		for (j = i; j < n && (isxdigit((unsigned char) plain[j]) || plain[j] == ':' || plain[j] == '.'); j++)
			;
		/* the run, or the run without a port */
		end = j;
		do
		{
			if (parse(plain + i, end - i, &candidate) && same(&candidate, address))
				return true;
			while (end > i && plain[end - 1] != ':')
				end--;
		} while (end-- > i);
	}
	return false;
}

/* The other parser.  A hop without an address has length 0. */
typedef struct Hops
{
	int			count;
	SaAddress	hops[MAX_HOPS];
} Hops;

static bool
model_name_ok(const char *s)
{
	return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == strlen(s) &&
		s[0] == '_' && s[1] != '\0';
}

static bool
model_node(char *s, bool forwarded, SaAddress *hop)
{
	char	   *port = NULL;
	size_t		n = strlen(s);

	memset(hop, 0, sizeof(SaAddress));
	if (s[0] == '[')
	{
		char	   *close = strrchr(s, ']');

		if (close == NULL || (close[1] != '\0' && close[1] != ':'))
			return false;
		if (close[1] == ':')
			port = close + 2;
		*close = '\0';
		if (!parse(s + 1, strlen(s + 1), hop) || strchr(s + 1, ':') == NULL)
			return false;
	}
	else if (!forwarded && strchr(s, ':') != strrchr(s, ':'))
		return parse(s, n, hop);
	else
	{
		port = strchr(s, ':');
		if (port != NULL)
			*port++ = '\0';
		if (strcasecmp(s, "unknown") != 0 && !model_name_ok(s) && !parse(s, strlen(s), hop))
			return false;
	}
	if (port != NULL && !model_name_ok(port))
	{
		n = strlen(port);
		if (n == 0 || n > 5 || strspn(port, "0123456789") != n || atoi(port) > 65535)
			return false;
	}
	return true;
}

/* The whole header as X-Forwarded-For, from the left */
static bool
model_list(const char *header, size_t length, Hops *hops)
{
	static char copy[MAX_HEADER + 1];
	char	   *rest = copy;
	char	   *element;

	hops->count = 0;
	if (memchr(header, '\0', length) != NULL)
		return false;
	memcpy(copy, header, length);
	copy[length] = '\0';
	while ((element = strsep(&rest, ",")) != NULL)
	{
		size_t		n;

		element += strspn(element, " \t");
		n = strlen(element);
		while (n > 0 && strchr(" \t", element[n - 1]) != NULL)
			element[--n] = '\0';
		if (n > 0 && !model_node(element, false, &hops->hops[hops->count++]))
			return false;
	}
	return true;
}

/* The whole header as Forwarded, from the left, one state per character */
static bool
model_forwarded(const char *header, size_t length, Hops *hops)
{
	enum
	{
		BEFORE, NAME, VALUE, TOKEN, QUOTED, ESCAPED, AFTER
	}			state = BEFORE;
	static char name[MAX_HEADER + 1];
	static char value[MAX_HEADER + 1];
	size_t		n = 0;
	size_t		i;
	bool		pairs = false;	/* or at least a semicolon, in this element */
	bool		found = false;	/* its "for" */
	SaAddress	hop;

	hops->count = 0;
	memset(&hop, 0, sizeof(hop));
	for (i = 0; i <= length; i++)
	{
		int			c = (i < length) ? (unsigned char) header[i] : -1;
		bool		token = c > ' ' && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", c) == NULL;
		bool		end = (c == -1 || c == ',' || c == ';');

		switch (state)
		{
			case BEFORE:
				if (c == ' ' || c == '\t')
					continue;
				if (token)
				{
					state = NAME;
					name[0] = c;
					n = 1;
					continue;
				}
				break;
			case NAME:
				if (token)
				{
					name[n++] = c;
					continue;
				}
				if (c != '=')
					return false;
				name[n] = '\0';
				n = 0;
				state = VALUE;
				continue;
			case VALUE:
			case TOKEN:
				if (state == VALUE && c == '"')
				{
					state = QUOTED;
					continue;
				}
				if (token)
				{
					value[n++] = c;
					state = TOKEN;
					continue;
				}
				if (state == VALUE)
					return false;
				break;
			case QUOTED:
				if (c == '"')
				{
					state = AFTER;
					break;
				}
				if (c == '\\')
				{
					state = ESCAPED;
					continue;
				}
				/* FALLTHROUGH */
			case ESCAPED:
				if (c == -1 || c == 0x7f || (c < ' ' && c != '\t'))
					return false;
				value[n++] = c;
				state = QUOTED;
				continue;
			case AFTER:
				if (c != ' ' && c != '\t' && !end)
					return false;
				break;
		}

		/* a value is complete */
		if (state == TOKEN || (state == AFTER && n != (size_t) -1))
		{
			value[n] = '\0';
			pairs = true;
			if (strcasecmp(name, "for") == 0)
			{
				if (found || !model_node(value, true, &hop))
					return false;
				found = true;
			}
			if (state == AFTER)
			{
				n = (size_t) -1;	/* seen */
				continue;
			}
			state = AFTER;
			n = (size_t) -1;
			if (c != ' ' && c != '\t' && !end)
				return false;
		}
		if (!end)
		{
			if (state == AFTER)
				continue;
			return false;
		}
		if (c == ';')
			pairs = true;
		else
		{
			if (pairs)
				hops->hops[hops->count++] = hop;
			memset(&hop, 0, sizeof(hop));
			pairs = found = false;
		}
		state = BEFORE;
	}
	return true;
}

static SaAddress
ask(const SaAddress *peer, const char *header, size_t length, Trust trust)
{
	SaAddress	client = *peer;

	/* of the exact size, so that the sanitizer sees who reads beyond it */
	char	   *copy = malloc(length);

	if (copy == NULL && length > 0)
		abort();
	if (length > 0)
		memcpy(copy, header, length);
	sa_forwarded_client(&client, copy, length, trusts, &trust);
	free(copy);
	return client;
}

static void
check(const SaAddress *peer, const char *header, size_t length, Trust trust)
{
	static char prefixed[2 * MAX_HEADER + 2];
	static Hops hops;
	SaAddress	client = ask(peer, header, length, trust);
	SaAddress	again;
	SaAddress	expected;
	size_t		i;

	if (!same(&client, peer))
	{
		if (!trusts(peer, &trust))
			fail("an untrusted peer is the answer", header, length);
		if (length > SA_FORWARDED_MAX)
			fail("an oversized header tells nothing", header, length);
		if (!occurs(&client, header, length))
			fail("the answer is in the header", header, length);
	}
	if (client.length != 4)
	{
		again = client;
		sa_address_unmap(&again);
		if (client.length != 16 || again.length != 16)
			fail("an IPv4 address is never an IPv6 one", header, length);
	}

	if (length <= SA_FORWARDED_MAX &&
		(model_forwarded(header, length, &hops) || model_list(header, length, &hops)))
	{
		expected = *peer;
		for (i = hops.count; i > 0 && trusts(&expected, &trust); i--)
		{
			if (hops.hops[i - 1].length == 0)
				break;
			expected = hops.hops[i - 1];
		}
		if (!same(&client, &expected))
			fail("reading from the left finds the same", header, length);
	}

	if (trusts(peer, &trust) && !trusts(&client, &trust))
	{
		for (i = 0; i <= sizeof(prefixes) / sizeof(prefixes[0]); i++)
		{
			/* the last prefix is the header itself */
			bool		own = i == sizeof(prefixes) / sizeof(prefixes[0]);
			size_t		n = own ? length : strlen(prefixes[i]);

			if (n + 1 + length > SA_FORWARDED_MAX)
				continue;
			memcpy(prefixed, own ? header : prefixes[i], n);
			prefixed[n] = ',';
			memcpy(prefixed + n + 1, header, length);
			again = ask(peer, prefixed, n + 1 + length, trust);
			if (!same(&again, &client))
				fail("what a client puts before it changes nothing", prefixed, n + 1 + length);
		}
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char header[MAX_HEADER];
	static const SaAddress peer4 = {4, {10, 0, 0, 9}};
	static const SaAddress peer6 = {16, {0xfd, 0, 9}};
	static const SaAddress stranger = {4, {203, 0, 113, 99}};
	size_t		length = 0;
	size_t		i;

	for (i = 0; i < size && length < MAX_HEADER; i++)
	{
		size_t		piece = data[i] - 0x80;

		if (data[i] >= 0x80 && piece < sizeof(pieces) / sizeof(pieces[0]))
		{
			size_t		n = strlen(pieces[piece]);

			if (n > MAX_HEADER - length)
				break;
			memcpy(header + length, pieces[piece], n);
			length += n;
		}
		else
			header[length++] = data[i];
	}

	check(&peer4, header, length, TRUST_PRIVATE);
	check(&peer6, header, length, TRUST_PRIVATE);
	check(&stranger, header, length, TRUST_PRIVATE);
	check(&peer4, header, length, TRUST_ALL);
	check(&peer4, header, length, TRUST_NONE);
	return 0;
}
