/*
 * token.c
 *	  Remember-me tokens: from and to text, random and derived.  No table is read here.
 *
 * Digits are read and written without a table or a branch that depends on them.
 */
#include "session/token.h"

#include "access/detoast.h"
#include "common/hmac.h"
#include "common/sha2.h"

/* Write bytes as hex digits. */
static void
token_put_hex(const uint8 *bytes, int length, char *digits)
{
	int			i;

	for (i = 0; i < 2 * length; i++)
	{
		int			nibble = (bytes[i / 2] >> ((i & 1) ? 0 : 4)) & 0xF;

		/* 39 lies between the digit after 9 and a */
		digits[i] = (char) ('0' + nibble + (((9 - nibble) >> 8) & 39));
	}
}

/* Read bytes from lower-case hex digits, likewise; false if they are not. */
static bool
token_get_hex(const char *digits, int length, uint8 *bytes)
{
	uint32		wrong = 0;
	int			i;

	for (i = 0; i < length; i++)
	{
		uint32		value = 0;
		int			j;

		for (j = 0; j < 2; j++)
		{
			uint32		c = (unsigned char) digits[2 * i + j];
			uint32		is_digit = (c - '0') < 10;
			uint32		is_letter = (c - 'a') < 6;

			value = (value << 4) | ((c - '0') & (0 - is_digit)) |
				((c - 'a' + 10) & (0 - is_letter));
			wrong |= 1 ^ (is_digit | is_letter);
		}
		bytes[i] = (uint8) value;
	}
	return wrong == 0;
}

/*
 * Take a token apart; false if the value does not look like one
 *
 * It comes from a cookie, so it may be anything of any length, and that is
 * never an error.
 */
bool
sa_token_parse(Datum value, SaToken *token)
{
	text	   *shown;
	const char *digits;
	uint8		selector[SELECTOR_LEN];

	if (toast_raw_datum_size(value) != TOKEN_LEN + VARHDRSZ)
		return false;
	shown = DatumGetTextPP(value);
	digits = VARDATA_ANY(shown);
	if (digits[SERIES_LEN] != ':' ||
		!token_get_hex(digits, SELECTOR_LEN, selector) ||
		!token_get_hex(digits + SERIES_LEN + 1, VALIDATOR_LEN, token->validator))
		return false;
	memcpy(token->series, digits, SERIES_LEN);
	token->series[SERIES_LEN] = '\0';
	return true;
}

/* Build the text of a token. */
text *
sa_token_text(const SaToken *token)
{
	text	   *result = palloc(TOKEN_LEN + VARHDRSZ);
	char	   *digits = VARDATA(result);

	SET_VARSIZE(result, TOKEN_LEN + VARHDRSZ);
	memcpy(digits, token->series, SERIES_LEN);
	digits[SERIES_LEN] = ':';
	token_put_hex(token->validator, VALIDATOR_LEN, digits + SERIES_LEN + 1);
	return result;
}

static void
token_random(void *buffer, size_t length)
{
	if (!pg_strong_random(buffer, length))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values for a remember-me token")));
}

/* A token of a new series. */
void
sa_token_new(SaToken *token)
{
	uint8		selector[SELECTOR_LEN];

	token_random(selector, SELECTOR_LEN);
	token_put_hex(selector, SELECTOR_LEN, token->series);
	token->series[SERIES_LEN] = '\0';
	token_random(token->validator, VALIDATOR_LEN);
}

/* What the next validator is derived with. */
void
sa_token_salt(uint8 *salt)
{
	token_random(salt, SALT_LEN);
}

/* Derive the validator that follows the one shown. */
void
sa_token_derive(const uint8 *shown, const uint8 *salt, uint8 *next)
{
	pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);
	bool		done;

	StaticAssertStmt(VALIDATOR_LEN == PG_SHA256_DIGEST_LENGTH,
					 "a validator is as long as an HMAC-SHA256");

	done = context != NULL &&
		pg_hmac_init(context, shown, VALIDATOR_LEN) >= 0 &&
		pg_hmac_update(context, salt, SALT_LEN) >= 0 &&
		pg_hmac_final(context, next, VALIDATOR_LEN) >= 0;
	pg_hmac_free(context);
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute an HMAC for a remember-me token")));
}
