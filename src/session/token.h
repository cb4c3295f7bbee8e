/*
 * token.h
 *	  Remember-me tokens: selector:validator, 32 and 64 hex digits.
 */
#ifndef SA_TOKEN_H
#define SA_TOKEN_H

#include "base/base.h"

#define SELECTOR_LEN	16		/* bytes; in hex twice that */
#define VALIDATOR_LEN	32
#define SALT_LEN		32
#define SERIES_LEN		(2 * SELECTOR_LEN)
#define TOKEN_LEN		(SERIES_LEN + 1 + 2 * VALIDATOR_LEN)

typedef struct SaToken
{
	char		series[SERIES_LEN + 1];
	uint8		validator[VALIDATOR_LEN];
} SaToken;

extern bool sa_token_parse(Datum value, SaToken *token);
extern text *sa_token_text(const SaToken *token);
extern void sa_token_new(SaToken *token);
extern void sa_token_salt(uint8 *salt);
extern void sa_token_derive(const uint8 *shown, const uint8 *salt, uint8 *next);

#endif							/* SA_TOKEN_H */
