/*
 * digest.c
 *	  From a session id to what is kept of it: its SHA-256, the session_ref that
 *	  people see, and the log_id of Jira's access log.
 */
#include "base/base.h"

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha1.h"
#include "common/sha2.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_crc.h"

#ifdef USE_OPENSSL
#include <openssl/evp.h>
#endif

PG_FUNCTION_INFO_V1(sa_session_ref);
PG_FUNCTION_INFO_V1(sa_session_ref_bytea);
PG_FUNCTION_INFO_V1(sa_log_id);
PG_FUNCTION_INFO_V1(sa_log_id_bytea);

/* One digest of one piece of data. */
static void
digest_compute(pg_cryptohash_type type, const void *data, Size length, uint8 *hash, Size hash_length)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(type);

	if (context == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (pg_cryptohash_init(context) < 0 ||
		pg_cryptohash_update(context, data, length) < 0 ||
		pg_cryptohash_final(context, hash, hash_length) < 0)
	{
		const char *reason = pg_cryptohash_error(context);

		pg_cryptohash_free(context);
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute hash: %s", reason)));
	}
	pg_cryptohash_free(context);
}

#ifdef USE_OPENSSL
/* What OpenSSL hashes with, looked up once in a backend; NULL if it cannot. */
static EVP_MD_CTX *
digest_sha256_context(void)
{
	static EVP_MD_CTX *context = NULL;

	if (context == NULL && (context = EVP_MD_CTX_new()) != NULL)
	{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
		EVP_MD	   *algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
#else
		const EVP_MD *algorithm = EVP_sha256();
#endif

		if (algorithm == NULL || EVP_DigestInit_ex(context, algorithm, NULL) != 1)
		{
			EVP_MD_CTX_free(context);
			context = NULL;
		}
	}
	return context;
}
#endif

/*
 * SHA-256 (FIPS 180-4).  Every touch hashes, and pg_cryptohash looks the algorithm
 * up anew each time, which takes OpenSSL several times as long as to hash.
 */
void
sa_sha256(const void *data, Size length, uint8 *hash)
{
#ifdef USE_OPENSSL
	EVP_MD_CTX *context = digest_sha256_context();

	if (context != NULL &&
		EVP_DigestInit_ex(context, NULL, NULL) == 1 &&
		EVP_DigestUpdate(context, data, length) == 1 &&
		EVP_DigestFinal_ex(context, hash, NULL) == 1)
		return;
#endif
	/* or the error, if there is one */
	StaticAssertStmt(SA_HASH_LEN == PG_SHA256_DIGEST_LENGTH, "length of SHA-256");
	digest_compute(PG_SHA256, data, length, hash, SA_HASH_LEN);
}

/*
 * The label by which Jira's access log names a session: CRC-32 of the SHA-1 of
 * the session id, unsigned, in base 36.
 */
static void
digest_log_id(const void *data, Size length, char *result)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	uint8		hash[SHA1_DIGEST_LENGTH];
	char		reversed[SA_LOG_ID_LEN];
	pg_crc32	crc;
	int			n = 0;

	digest_compute(PG_SHA1, data, length, hash, sizeof(hash));

	INIT_TRADITIONAL_CRC32(crc);
	COMP_TRADITIONAL_CRC32(crc, hash, sizeof(hash));
	FIN_TRADITIONAL_CRC32(crc);

	do
	{
		reversed[n++] = digits[crc % 36];
		crc /= 36;
	} while (crc > 0);

	while (n > 0)
		*result++ = reversed[--n];
	*result = '\0';
}

/* The SHA-256 of a session id (text), or this itself (bytea). */
void
sa_session_hash_from_datum(Datum value, Oid type, uint8 *hash)
{
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);
	Size		length = VARSIZE_ANY_EXHDR(bytes);

	if (type == BYTEAOID)
	{
		if (length != SA_HASH_LEN)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("hash of session id must have %d bytes, not %zu", SA_HASH_LEN, length),
					 errhint("Give sha256() of the session id, or the session id as text.")));
		memcpy(hash, VARDATA_ANY(bytes), SA_HASH_LEN);
	}
	else
	{
		if (length == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("session id must not be empty")));
		sa_sha256(VARDATA_ANY(bytes), length, hash);
	}
}

/* All that is kept of a session id; of its SHA-256 there is no log_id. */
void
sa_session_id_from_datum(Datum value, Oid type, SaSessionId *id)
{
	memset(id, 0, sizeof(SaSessionId));
	sa_session_hash_from_datum(value, type, id->hash);
	if (type != BYTEAOID)
	{
		struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

		digest_log_id(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), id->log_id);
	}
}

static void
digest_refuse_null(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("session id must not be null")));
}

/*
 * Text or bytea: a call by the fast-path protocol has no expression to tell, but
 * then the function has no other type than it was declared with.
 */
static Oid
digest_arg_type(FunctionCallInfo fcinfo, int argno)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, argno);
	Oid		   *types;
	int			n;

	if (!OidIsValid(type))
	{
		(void) get_func_signature(fcinfo->flinfo->fn_oid, &types, &n);
		type = types[argno];
	}
	return type;
}

/* The argument as a session id, of which only the hash matters. */
void
sa_session_hash_arg(FunctionCallInfo fcinfo, int argno, uint8 *hash)
{
	digest_refuse_null(fcinfo, argno);
	sa_session_hash_from_datum(PG_GETARG_DATUM(argno), digest_arg_type(fcinfo, argno), hash);
}

/* The argument as a session id; null is an error. */
void
sa_session_id_arg(FunctionCallInfo fcinfo, int argno, SaSessionId *id)
{
	digest_refuse_null(fcinfo, argno);
	sa_session_id_from_datum(PG_GETARG_DATUM(argno), digest_arg_type(fcinfo, argno), id);
}

/* The session_ref: the first digits of the hash, in hex. */
text *
sa_ref_text(const uint8 *hash)
{
	text	   *result = palloc(VARHDRSZ + SA_REF_LEN);

	hex_encode((const char *) hash, SA_REF_LEN / 2, VARDATA(result));
	SET_VARSIZE(result, VARHDRSZ + SA_REF_LEN);
	return result;
}

/* A bytea of these bytes. */
bytea *
sa_bytea(const void *data, Size length)
{
	bytea	   *result = palloc(VARHDRSZ + length);

	memcpy(VARDATA(result), data, length);
	SET_VARSIZE(result, VARHDRSZ + length);
	return result;
}

/* session_ref(session_id text) returns text */
Datum
sa_session_ref(PG_FUNCTION_ARGS)
{
	SaSessionId id;

	sa_session_id_from_datum(PG_GETARG_DATUM(0), TEXTOID, &id);
	PG_RETURN_TEXT_P(sa_ref_text(id.hash));
}

/* session_ref(session_hash bytea) returns text */
Datum
sa_session_ref_bytea(PG_FUNCTION_ARGS)
{
	SaSessionId id;

	sa_session_id_from_datum(PG_GETARG_DATUM(0), BYTEAOID, &id);
	PG_RETURN_TEXT_P(sa_ref_text(id.hash));
}

/* log_id(session_id text) returns text */
Datum
sa_log_id(PG_FUNCTION_ARGS)
{
	SaSessionId id;

	sa_session_id_from_datum(PG_GETARG_DATUM(0), TEXTOID, &id);
	PG_RETURN_TEXT_P(cstring_to_text(id.log_id));
}

/* log_id(session_hash bytea) returns text: null, since the hash does not tell */
Datum
sa_log_id_bytea(PG_FUNCTION_ARGS)
{
	SaSessionId id;

	sa_session_id_from_datum(PG_GETARG_DATUM(0), BYTEAOID, &id);
	PG_RETURN_NULL();
}
