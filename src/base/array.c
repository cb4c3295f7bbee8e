/*
 * array.c
 *	  Arrays of text and of bytea: names and hashes, as arguments and in results.
 */
#include "base/base.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

/* An array of values of type text, bytea, bigint, timestamptz or tid. */
ArrayType *
sa_array(Datum *values, int n, Oid type)
{
	if (type == INT8OID || type == TIMESTAMPTZOID)
		return construct_array(values, n, type, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	if (type == TIDOID)
		return construct_array(values, n, type, sizeof(ItemPointerData), false, TYPALIGN_SHORT);
	Assert(type == TEXTOID || type == BYTEAOID);
	return construct_array(values, n, type, -1, false, TYPALIGN_INT);
}

/* An array of one text. */
ArrayType *
sa_array_of_text(const char *value)
{
	Datum		datum = CStringGetTextDatum(value);

	return sa_array(&datum, 1, TEXTOID);
}

/* The values of an array of text or bytea; none may be null. */
Datum *
sa_array_values(ArrayType *array, Oid type, int *n)
{
	Datum	   *values;

	Assert(type == TEXTOID || type == BYTEAOID);
	deconstruct_array(array, type, -1, false, TYPALIGN_INT, &values, NULL, n);
	return values;
}

/* How many elements it has. */
int
sa_array_length(ArrayType *array)
{
	return ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
}

/* Is this text in an array of text?  Nothing is in NULL, nor is NULL in anything. */
bool
sa_array_has_text(ArrayType *array, const char *value)
{
	Datum	   *values;
	int			n;

	if (array == NULL || value == NULL)
		return false;
	values = sa_array_values(array, TEXTOID, &n);
	for (int i = 0; i < n; i++)
	{
		if (strcmp(TextDatumGetCString(values[i]), value) == 0)
			return true;
	}
	return false;
}

/* Add an array as an argument; NULL is null. */
void
sa_arg_array(SaArgs *args, Oid array_type, ArrayType *array)
{
	sa_arg(args, array_type, PointerGetDatum(array), array == NULL);
}

/* Add the hash of a session id as an argument; NULL is null. */
void
sa_arg_hash(SaArgs *args, const uint8 *hash)
{
	sa_arg(args, BYTEAOID, hash ? PointerGetDatum(sa_bytea(hash, SA_HASH_LEN)) : (Datum) 0,
		   hash == NULL);
}

/* A field of the last result that is an array; null is NULL. */
ArrayType *
sa_result_array(uint64 row, int column)
{
	bool		isnull;
	Datum		value = sa_result(row, column, &isnull);

	return isnull ? NULL : DatumGetArrayTypePCopy(value);
}
