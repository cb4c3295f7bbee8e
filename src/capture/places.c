/*
 * places.c
 *	  Rows of a product's table: where they are, and the hash of what they hold.
 */
#include "capture/deletion.h"

#include "catalog/pg_type.h"

static int
places_compare_hashes(const void *a, const void *b)
{
	return memcmp(a, b, SA_HASH_LEN);
}

/* The hashes in an array of bytea, sorted. */
uint8 *
sa_hashes_sorted(ArrayType *array, int *n)
{
	Datum	   *values;
	uint8	   *hashes;

	*n = 0;
	if (array == NULL)
		return NULL;
	values = sa_array_values(array, BYTEAOID, n);
	hashes = palloc(*n * SA_HASH_LEN + 1);
	for (int i = 0; i < *n; i++)
		memcpy(hashes + i * SA_HASH_LEN, VARDATA_ANY(DatumGetByteaPP(values[i])), SA_HASH_LEN);
	qsort(hashes, *n, SA_HASH_LEN, places_compare_hashes);
	return hashes;
}

/* Is the hash among these, which are sorted? */
bool
sa_hashes_have(const uint8 *hashes, int n, const uint8 *hash)
{
	return n > 0 && bsearch(hash, hashes, n, SA_HASH_LEN, places_compare_hashes) != NULL;
}

/* Add a row; the hash of what it holds is NULL if that is not known. */
void
sa_places_add(SaPlaces *places, const ItemPointerData * tid, const uint8 *hash, bool by_user)
{
	SaPlace    *row;

	if (places->n == places->allocated)
	{
		places->allocated = places->allocated ? places->allocated * 2 : 16;
		places->rows = places->rows ?
			repalloc_huge(places->rows, places->allocated * sizeof(SaPlace)) :
			palloc(places->allocated * sizeof(SaPlace));
	}
	row = &places->rows[places->n++];
	memset(row, 0, sizeof(*row));
	row->tid = *tid;
	row->by_user = by_user;
	row->has_hash = hash != NULL;
	if (hash != NULL)
		memcpy(row->hash, hash, SA_HASH_LEN);
}

/* Add rows of another list. */
void
sa_places_append(SaPlaces *places, const SaPlace *rows, int n)
{
	for (int i = 0; i < n; i++)
		sa_places_add(places, &rows[i].tid, rows[i].has_hash ? rows[i].hash : NULL,
					  rows[i].by_user);
}

/* The hashes of rows, an array of bytea. */
ArrayType *
sa_places_hashes(const SaPlaces *places)
{
	ArrayBuildState *hashes = initArrayResult(BYTEAOID, CurrentMemoryContext, false);

	for (int i = 0; i < places->n; i++)
	{
		if (places->rows[i].has_hash)
			accumArrayResult(hashes, PointerGetDatum(sa_bytea(places->rows[i].hash, SA_HASH_LEN)),
							 false, BYTEAOID, CurrentMemoryContext);
	}
	return DatumGetArrayTypeP(makeArrayResult(hashes, CurrentMemoryContext));
}

/*
 * Keep the rows that hold one of these, those of which nobody knows what they hold, and
 * (if so wanted) those that were found by their user.
 */
void
sa_places_keep(SaPlaces *places, ArrayType *hashes, bool or_by_user)
{
	int			n_hashes;
	uint8	   *sorted = sa_hashes_sorted(hashes, &n_hashes);
	int			n = 0;

	for (int i = 0; i < places->n; i++)
	{
		SaPlace    *row = &places->rows[i];

		if ((or_by_user && row->by_user) || !row->has_hash ||
			sa_hashes_have(sorted, n_hashes, row->hash))
			places->rows[n++] = *row;
	}
	places->n = n;
}

/* Drop the rows that hold one of these. */
void
sa_places_drop(SaPlaces *places, ArrayType *hashes)
{
	int			n_hashes;
	uint8	   *sorted = sa_hashes_sorted(hashes, &n_hashes);
	int			n = 0;

	for (int i = 0; i < places->n; i++)
	{
		SaPlace    *row = &places->rows[i];

		if (!row->has_hash || !sa_hashes_have(sorted, n_hashes, row->hash))
			places->rows[n++] = *row;
	}
	places->n = n;
}
