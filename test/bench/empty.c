/*
 * empty.c
 *	  What a call costs that does nothing: the most that a touch can reach.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fmgr.h"

#define HASH_LEN	32
#define HASHES		"session_hashes"	/* in the data directory */

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bench_empty);
PG_FUNCTION_INFO_V1(bench_hash);

/* empty(session_id, application) returns boolean, declared as touch_session is */
Datum
bench_empty(pg_attribute_unused() PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(true);
}

/*
 * hash(n bigint) returns bytea: the SHA-256 of the n-th session's id.  pgbench
 * cannot make 32 bytes from a random number; this looks them up in a file.
 */
Datum
bench_hash(PG_FUNCTION_ARGS)
{
	static const char *hashes = NULL;
	static int64 count = 0;
	int64		n = PG_GETARG_INT64(0);
	bytea	   *result = palloc(VARHDRSZ + HASH_LEN);

	if (hashes == NULL)
	{
		int			fd = open(HASHES, O_RDONLY);
		struct stat status;
		void	   *file;

		if (fd < 0 || fstat(fd, &status) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", HASHES)));
		file = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (file == MAP_FAILED)
			ereport(ERROR,
					(errmsg("could not map file \"%s\": %m", HASHES)));
		hashes = file;
		count = status.st_size / HASH_LEN;
	}
	if (n < 1 || n > count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no session %lld", (long long) n)));

	memcpy(VARDATA(result), hashes + (n - 1) * HASH_LEN, HASH_LEN);
	SET_VARSIZE(result, VARHDRSZ + HASH_LEN);
	PG_RETURN_BYTEA_P(result);
}
