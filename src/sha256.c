/*
 * sha256.c
 *	  SHA-256 (FIPS 180-4) of a short piece of data, without set-up.
 *
 * A touch that is given a session id as text hashes it, and does little else.
 * PostgreSQL's pg_cryptohash has OpenSSL look up the algorithm anew each time,
 * which takes ten times as long as hashing the one or two blocks of an id.  So
 * this is SHA-256 and nothing more: on x86-64 with the instructions made for it
 * where the processor has them, elsewhere in plain C.
 *
 * It throws nothing and allocates nothing.
 */
#include "session_admin.h"

#include "port/pg_bswap.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define SHA256_X86
#include <cpuid.h>
#include <immintrin.h>
#endif

#define BLOCK_LEN	64
#define WORDS		8			/* of the state */

/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32 k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

/* The same of the square roots of the first 8 primes. */
static const uint32 initial_state[WORDS] = {
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
};

static inline uint32
rotate(uint32 x, int n)
{
	return (x >> n) | (x << (32 - n));
}

/* FIPS 180-4, section 6.2.2 */
static void
add_blocks_plain(uint32 *state, const uint8 *data, Size blocks)
{
	for (; blocks > 0; blocks--, data += BLOCK_LEN)
	{
		uint32		w[64];
		uint32		a = state[0];
		uint32		b = state[1];
		uint32		c = state[2];
		uint32		d = state[3];
		uint32		e = state[4];
		uint32		f = state[5];
		uint32		g = state[6];
		uint32		h = state[7];

		for (int t = 0; t < 16; t++)
		{
			uint32		word;

			memcpy(&word, data + 4 * t, sizeof(word));
			w[t] = pg_ntoh32(word);
		}
		for (int t = 16; t < 64; t++)
		{
			uint32		x = w[t - 15];
			uint32		y = w[t - 2];

			w[t] = w[t - 16] + (rotate(x, 7) ^ rotate(x, 18) ^ (x >> 3)) +
				w[t - 7] + (rotate(y, 17) ^ rotate(y, 19) ^ (y >> 10));
		}

		for (int t = 0; t < 64; t++)
		{
			uint32		t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
				((e & f) ^ (~e & g)) + k[t] + w[t];
			uint32		t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
				((a & b) ^ (a & c) ^ (b & c));

			h = g;
			g = f;
			f = e;
			e = d + t1;
			d = c;
			c = b;
			b = a;
			a = t1 + t2;
		}

		state[0] += a;
		state[1] += b;
		state[2] += c;
		state[3] += d;
		state[4] += e;
		state[5] += f;
		state[6] += g;
		state[7] += h;
	}
}

#ifdef SHA256_X86

/*
 * The same with Intel's SHA extensions.  They keep the state as the words ABEF
 * and CDGH, and do two rounds at a time.
 */
__attribute__((target("sha,sse4.1,ssse3")))
static void
add_blocks_x86(uint32 *state, const uint8 *data, Size blocks)
{
	const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
	__m128i		abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *) &state[0]), 0xb1);
	__m128i		efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *) &state[4]), 0x1b);
	__m128i		abef = _mm_alignr_epi8(abcd, efgh, 8);
	__m128i		cdgh = _mm_blend_epi16(efgh, abcd, 0xf0);

	for (; blocks > 0; blocks--, data += BLOCK_LEN)
	{
		__m128i		abef_before = abef;
		__m128i		cdgh_before = cdgh;
		__m128i		w[4];		/* the last 16 words of the message schedule */

		for (int i = 0; i < 16; i++)
		{
			__m128i		words;

			if (i < 4)
				words = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *) (data + 16 * i)),
										 big_endian);
			else
				words = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]),
														   _mm_alignr_epi8(w[(i + 3) % 4], w[(i + 2) % 4], 4)),
											 w[(i + 3) % 4]);
			w[i % 4] = words;

			words = _mm_add_epi32(words, _mm_loadu_si128((const __m128i *) &k[4 * i]));
			cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
			abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(words, 0x0e));
		}
		abef = _mm_add_epi32(abef, abef_before);
		cdgh = _mm_add_epi32(cdgh, cdgh_before);
	}

	abcd = _mm_shuffle_epi32(abef, 0x1b);
	efgh = _mm_shuffle_epi32(cdgh, 0xb1);
	_mm_storeu_si128((__m128i *) &state[0], _mm_blend_epi16(abcd, efgh, 0xf0));
	_mm_storeu_si128((__m128i *) &state[4], _mm_alignr_epi8(efgh, abcd, 8));
}

/* Has this processor the SHA extensions, and what else is used with them? */
static bool
has_sha_extensions(void)
{
	unsigned int a;
	unsigned int b;
	unsigned int c;
	unsigned int d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSSE3) && (c & bit_SSE4_1) &&
		__get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1 << 29));
}

#endif							/* SHA256_X86 */

typedef void (*AddBlocks) (uint32 *state, const uint8 *data, Size blocks);

static AddBlocks
choose(void)
{
#ifdef SHA256_X86
	if (has_sha_extensions())
		return add_blocks_x86;
#endif
	return add_blocks_plain;
}

/* SHA-256 of the data. */
void
sa_sha256(const void *data, Size length, uint8 *hash)
{
	static AddBlocks add_blocks = NULL;
	uint32		state[WORDS];
	uint8		last[2 * BLOCK_LEN] = {0};
	Size		whole = length / BLOCK_LEN;
	Size		rest = length % BLOCK_LEN;
	Size		last_blocks = rest < BLOCK_LEN - sizeof(uint64) ? 1 : 2;
	uint64		bits = pg_hton64((uint64) length * 8);

	if (add_blocks == NULL)
		add_blocks = choose();

	memcpy(state, initial_state, sizeof(state));
	add_blocks(state, data, whole);

	/* a one bit, zeros, and the length at the end of a block */
	memcpy(last, (const uint8 *) data + whole * BLOCK_LEN, rest);
	last[rest] = 0x80;
	memcpy(last + last_blocks * BLOCK_LEN - sizeof(bits), &bits, sizeof(bits));
	add_blocks(state, last, last_blocks);
	explicit_bzero(last, sizeof(last));

	for (int i = 0; i < WORDS; i++)
	{
		uint32		word = pg_hton32(state[i]);

		memcpy(hash + 4 * i, &word, sizeof(word));
	}
}
