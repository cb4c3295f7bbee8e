/*
 * test_point.c
 *	  Windows that a test can hold open, in builds with TEST_POINTS=1 only.
 *
 * In the source, sa_test_point("name") marks a window.  A backend that has that
 * name in the list session_admin.test_points waits there, once for each time it is
 * set, until another backend calls release('name').  "name:error" throws there
 * instead.  Commit callbacks have such windows, too: nothing here allocates, and
 * what waits is only interrupted where interrupts are.
 *
 * With session_admin.test_collisions, all keys of the shared table of live sessions
 * meet in one chain.
 *
 * The functions are made by the test (test/t/310_live_shared_table.pl); the extension knows
 * nothing of them.
 */
#include "base/base.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_FUNCTION_INFO_V1(sa_test_point_held);
PG_FUNCTION_INFO_V1(sa_test_point_release);

static const char *const names[] = {
	"fill_start",				/* before the row of a session is read */
	"fill_read",				/* after that, before it is stored */
	"pre_commit",				/* what ends is in doubt; nothing is visible yet */
	"committed",				/* all is visible, nothing else is done */
	"removed",					/* the entry is gone, its slot still in doubt */
	"told",						/* a message was sent, applications still in doubt */
	"finished",					/* nothing is in doubt any more; COMMIT goes on */
	"looked",					/* a node has found nothing new, and will sleep */
};

typedef struct Point
{
	pg_atomic_uint32 held;		/* backends that wait there */
	pg_atomic_uint32 releases;
} Point;

static Point *points = NULL;
static char *test_points = NULL;
bool		sa_test_collisions = false;
static int	waits = 0;			/* a bit for each point */
static int	throws = 0;

static Size
points_size(void)
{
	return sizeof(Point) * lengthof(names);
}

static void
points_start(void *memory, pg_attribute_unused() LWLockPadded *locks, bool found)
{
	points = memory;
	for (size_t i = 0; !found && i < lengthof(names); i++)
	{
		pg_atomic_init_u32(&points[i].held, 0);
		pg_atomic_init_u32(&points[i].releases, 0);
	}
}

/* Is this in the list? */
static bool
is_listed(const char *list, const char *name, const char *suffix)
{
	while (*list != '\0')
	{
		size_t		length = strcspn(list, ",");

		if (length == strlen(name) + strlen(suffix) &&
			strncmp(list, name, strlen(name)) == 0 &&
			strncmp(list + strlen(name), suffix, strlen(suffix)) == 0)
			return true;
		list += length;
		list += strspn(list, ",");
	}
	return false;
}

static void
assign_test_points(const char *newval, pg_attribute_unused() void *extra)
{
	waits = throws = 0;
	for (size_t i = 0; i < lengthof(names); i++)
	{
		waits |= is_listed(newval, names[i], "") << i;
		throws |= is_listed(newval, names[i], ":error") << i;
	}
}

/* Preloaded, and only then, there are windows. */
void
sa_test_point_init(void)
{
	static const SaShmemPart part = {
		.name = "session_admin test points",
		.size = points_size,
		.start = points_start
	};

	DefineCustomStringVariable("session_admin.test_points",
							   "Names the windows in which this session waits.",
							   NULL,
							   &test_points,
							   "",
							   PGC_USERSET, 0,
							   NULL, assign_test_points, NULL);

	DefineCustomBoolVariable("session_admin.test_collisions",
							 "Lets all keys of the shared table of live sessions collide.",
							 NULL,
							 &sa_test_collisions,
							 false,
							 process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_USERSET, 0,
							 NULL, NULL, NULL);

	sa_shmem_add(&part);
}

static int
find_point(const char *name)
{
	for (size_t i = 0; i < lengthof(names); i++)
	{
		if (strcmp(names[i], name) == 0)
			return i;
	}
	elog(ERROR, "there is no test point \"%s\"", name);
}

static void
leave(pg_attribute_unused() int code, Datum point)
{
	pg_atomic_fetch_sub_u32(&((Point *) DatumGetPointer(point))->held, 1);
}

/* The window of this name. */
void
sa_test_point(const char *name)
{
	Point	   *point;
	uint32		releases;
	int			bit;

	if ((waits == 0 && throws == 0) || points == NULL)
		return;
	bit = 1 << find_point(name);
	if (throws & bit)
	{
		throws &= ~bit;
		elog(ERROR, "error at test point \"%s\"", name);
	}
	if (!(waits & bit))
		return;

	waits &= ~bit;
	point = &points[find_point(name)];
	releases = pg_atomic_read_u32(&point->releases);
	pg_atomic_fetch_add_u32(&point->held, 1);
	/* also if it is terminated here */
	PG_ENSURE_ERROR_CLEANUP(leave, PointerGetDatum(point));
	{
		while (pg_atomic_read_u32(&point->releases) == releases)
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(500);
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave, PointerGetDatum(point));
	leave(0, PointerGetDatum(point));
}

/* held(name): waits until some backend does so there */
Datum
sa_test_point_held(PG_FUNCTION_ARGS)
{
	Point	   *point = &points[find_point(text_to_cstring(PG_GETARG_TEXT_PP(0)))];

	while (pg_atomic_read_u32(&point->held) == 0)
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(500);
	}
	PG_RETURN_VOID();
}

/* release(name): those who wait there go on */
Datum
sa_test_point_release(PG_FUNCTION_ARGS)
{
	Point	   *point = &points[find_point(text_to_cstring(PG_GETARG_TEXT_PP(0)))];

	pg_atomic_fetch_add_u32(&point->releases, 1);
	while (pg_atomic_read_u32(&point->held) != 0)
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(500);
	}
	PG_RETURN_VOID();
}
