/*
 * forwarded.c
 *	  Who is at the far end of a chain of proxies: X-Forwarded-For and Forwarded.
 *
 * The header is read from its end, as long as the addresses are those of trusted proxies;
 * README.md says why, and by which grammar.  Nothing here needs PostgreSQL.
 */
#include "base/forwarded.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

typedef enum Node
{
	NODE_ADDRESS,
	NODE_HIDDEN,				/* unknown, obfuscated, or not told */
	NODE_MALFORMED
} Node;

static bool
is_space(char c)
{
	return c == ' ' || c == '\t';
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_letter_or_digit(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* tchar of RFC 9110, section 5.6.2 */
static bool
is_token(char c)
{
	return is_letter_or_digit(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* What may stand in a quoted string, plainly or after a backslash */
static bool
is_text(char c)
{
	unsigned char u = (unsigned char) c;

	return u == '\t' || (u >= ' ' && u != 0x7F);
}

/* Compare with a word of lower case letters, whatever the case and the locale */
static bool
is_word(const char *start, const char *end, const char *word)
{
	size_t		length = strlen(word);
	size_t		i;

	if ((size_t) (end - start) != length)
		return false;
	for (i = 0; i < length; i++)
	{
		if ((start[i] | 0x20) != word[i])
			return false;
	}
	return true;
}

static const char *
skip_space(const char *p, const char *end)
{
	while (p < end && is_space(*p))
		p++;
	return p;
}

static const char *
forwarded_find(const char *start, const char *end, char c)
{
	return start < end ? memchr(start, c, end - start) : NULL;
}

/* Is it an obfnode or obfport: an underscore and a name? */
static bool
is_obfuscated(const char *p, const char *end)
{
	if (end - p < 2 || *p != '_')
		return false;
	while (++p < end)
	{
		if (!is_letter_or_digit(*p) && *p != '.' && *p != '_' && *p != '-')
			return false;
	}
	return true;
}

static bool
is_port(const char *p, const char *end)
{
	int			port = 0;

	if (is_obfuscated(p, end))
		return true;
	if (p == end || end - p > 5)
		return false;
	for (; p < end; p++)
	{
		if (!is_digit(*p))
			return false;
		port = port * 10 + (*p - '0');
	}
	return port <= 65535;
}

/* An IPv4 address written as IPv6 (::ffff:192.0.2.1) is an IPv4 address. */
void
sa_address_unmap(SaAddress *address)
{
	static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	if (address->length == 16 && memcmp(address->bytes, mapped, sizeof(mapped)) == 0)
	{
		memmove(address->bytes, address->bytes + 12, 4);
		memset(address->bytes + 4, 0, 12);
		address->length = 4;
	}
}

static Node
forwarded_read_address(const char *start, const char *end, int family, SaAddress *address)
{
	char		buffer[INET6_ADDRSTRLEN];
	size_t		length = end - start;

	if (length >= sizeof(buffer))
		return NODE_MALFORMED;
	memcpy(buffer, start, length);
	buffer[length] = '\0';
	memset(address, 0, sizeof(SaAddress));
	if (strlen(buffer) != length || inet_pton(family, buffer, address->bytes) != 1)
		return NODE_MALFORMED;
	address->length = (family == AF_INET) ? 4 : 16;
	sa_address_unmap(address);
	return NODE_ADDRESS;
}

/* Read a node of RFC 7239, section 6: a name and perhaps a port. */
static Node
forwarded_read_node(const char *start, const char *end, bool bare_ipv6, SaAddress *address)
{
	const char *name = start;
	const char *name_end;
	const char *p;				/* behind the name */
	int			family = AF_INET;

	if (start < end && *start == '[')
	{
		family = AF_INET6;
		name = start + 1;
		name_end = forwarded_find(name, end, ']');
		if (name_end == NULL)
			return NODE_MALFORMED;
		p = name_end + 1;
	}
	else
	{
		name_end = forwarded_find(start, end, ':');
		if (name_end == NULL)
			name_end = end;
		else if (bare_ipv6 && forwarded_find(name_end + 1, end, ':') != NULL)
		{
			family = AF_INET6;
			name_end = end;
		}
		p = name_end;
	}

	if (p < end && (*p != ':' || !is_port(p + 1, end)))
		return NODE_MALFORMED;
	if (family == AF_INET && (is_word(name, name_end, "unknown") || is_obfuscated(name, name_end)))
		return NODE_HIDDEN;
	return forwarded_read_address(name, name_end, family, address);
}

/*
 * Read a forwarded-element: the node that its "for" names.  An element without
 * one tells that there was a node, but not which.
 */
static Node
forwarded_read_element(const char *p, const char *end, SaAddress *address)
{
	char		value[SA_FORWARDED_MAX];
	size_t		length;
	Node		node = NODE_HIDDEN;
	bool		found = false;
	const char *name;
	const char *name_end;

	for (;;)
	{
		p = name = skip_space(p, end);
		while (p < end && is_token(*p))
			p++;
		name_end = p;

		if (name_end > name)
		{
			if (p == end || *p++ != '=')
				return NODE_MALFORMED;

			length = 0;
			if (p < end && *p == '"')
			{
				for (p++; p < end && *p != '"'; p++)
				{
					if (*p == '\\' && ++p == end)
						return NODE_MALFORMED;
					if (!is_text(*p))
						return NODE_MALFORMED;
					value[length++] = *p;
				}
				if (p++ == end)
					return NODE_MALFORMED;
			}
			else
			{
				while (p < end && is_token(*p))
					value[length++] = *p++;
				if (length == 0)
					return NODE_MALFORMED;
			}

			if (is_word(name, name_end, "for"))
			{
				/* each parameter may occur once; two nodes would be a riddle */
				if (found)
					return NODE_MALFORMED;
				found = true;
				node = forwarded_read_node(value, value + length, false, address);
				if (node == NODE_MALFORMED)
					return NODE_MALFORMED;
			}
		}

		p = skip_space(p, end);
		if (p == end)
			return node;
		if (*p++ != ';')
			return NODE_MALFORMED;
	}
}

/* Is the quote at p, within a quoted string, a character of it? */
static bool
is_escaped(const char *start, const char *p)
{
	const char *first = p;

	while (first > start && first[-1] == '\\')
		first--;
	return (p - first) % 2 != 0;
}

/*
 * Find where the last element before end begins.  Outside of quoted strings a
 * quote can only be the end of one; within it, one that is not escaped can only
 * be its beginning.  What breaks these rules is malformed when it is read.
 */
static const char *
forwarded_last_element(const char *start, const char *end, bool quoted_strings)
{
	const char *p = end;

	while (p > start && p[-1] != ',')
	{
		p--;
		if (quoted_strings && *p == '"')
		{
			do
			{
				if (p == start)
					return start;
				p--;
			} while (*p != '"' || is_escaped(start, p));
		}
	}
	return p;
}

/*
 * Find the client's address. *client is the peer on entry.
 *
 * The answer is the first untrusted address from the right, or the leftmost one if all are
 * trusted. A hop that does not tell its peer (RFC 7239, sections 6.2 and 6.3) ends the
 * search, too: it is not known who is behind it, and nobody vouches for what stands to its
 * left; the answer is the last hop known. If the search meets anything malformed, or the
 * header is oversized, then something is wrong with the proxies, and the answer is the
 * peer.
 */
void
sa_forwarded_client(SaAddress *client, const char *header, size_t length,
					SaTrusts trusts, const void *networks)
{
	SaAddress	peer = *client;
	SaAddress	hop;
	const char *end = header + length;
	const char *start;
	const char *p;
	bool		kind_known = false;
	bool		has_pairs = true;	/* Forwarded, not X-Forwarded-For */
	Node		node;

	if (length > SA_FORWARDED_MAX)
		return;

	while (trusts(client, networks))
	{
		/* the next element that is not empty */
		for (;;)
		{
			start = forwarded_last_element(header, end, has_pairs);
			p = skip_space(start, end);
			while (end > p && is_space(end[-1]))
				end--;
			if (p < end)
				break;
			if (start == header)
				return;
			end = start - 1;
		}

		if (!kind_known)
		{
			has_pairs = forwarded_find(p, end, '=') != NULL || forwarded_find(p, end, ';') != NULL;
			kind_known = true;
		}
		node = has_pairs ? forwarded_read_element(p, end, &hop) : forwarded_read_node(p, end, true, &hop);

		if (node == NODE_MALFORMED)
			*client = peer;
		if (node != NODE_ADDRESS)
			return;
		*client = hop;
		if (start == header)
			return;
		end = start - 1;
	}
}
