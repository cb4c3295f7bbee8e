/*
 * watch.c
 *	  What is noted of the tables of products that are watched.
 *
 * Each backend keeps what it has read of attachment and attachment_column, per
 * table, until PostgreSQL tells that the table was altered: making and dropping
 * a trigger is such a change, and so is the renaming of a column.
 */
#include "products/products.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

const char *const sa_part_names[SA_NPARTS] = {
	[SA_PART_IDENTITY] = "identity",
	[SA_PART_ACCOUNT] = "account",
	[SA_PART_ATTRIBUTE] = "attribute",
	[SA_PART_LOGIN] = "login",
	[SA_PART_REMEMBER_ME] = "remember_me",
	[SA_PART_SESSION] = "session"
};

const char *const sa_role_names[SA_NROLES] = {
	[SA_ROLE_USER_NAME] = "user_name",
	[SA_ROLE_USER_KEY] = "user_key",
	[SA_ROLE_KEY] = "key",
	[SA_ROLE_OTHER_NAME] = "other_name",
	[SA_ROLE_CREDENTIAL] = "credential",
	[SA_ROLE_ACTIVE] = "active",
	[SA_ROLE_LOCKED_AT] = "locked_at",
	[SA_ROLE_DELETED_AT] = "deleted_at",
	[SA_ROLE_LAST_LOGIN_AT] = "last_login_at",
	[SA_ROLE_PREVIOUS_LOGIN_AT] = "previous_login_at",
	[SA_ROLE_LAST_FAILED_LOGIN_AT] = "last_failed_login_at",
	[SA_ROLE_LOGIN_COUNT] = "login_count",
	[SA_ROLE_CURRENT_FAILED_COUNT] = "current_failed_count",
	[SA_ROLE_TOTAL_FAILED_COUNT] = "total_failed_count",
	[SA_ROLE_LAST_SEEN_AT] = "last_seen_at",
	[SA_ROLE_LAST_LOGIN_ADDRESS] = "last_login_address",
	[SA_ROLE_ATTRIBUTE_NAME] = "attribute_name",
	[SA_ROLE_ATTRIBUTE_VALUE] = "attribute_value",
	[SA_ROLE_SECRET] = "secret",
	[SA_ROLE_SERIES] = "series",
	[SA_ROLE_CREATED_AT] = "created_at",
	[SA_ROLE_USED_AT] = "used_at",
	[SA_ROLE_EXPIRES_AT] = "expires_at",
	[SA_ROLE_IDLE_TIMEOUT] = "idle_timeout",
	[SA_ROLE_REALM] = "realm"
};

/* What was read of one table. */
typedef struct CachedTable
{
	Oid			relid;			/* the key */
	bool		valid;
	MemoryContext context;
	List	   *watches;
	bool		told;			/* that nothing is known of it */
} CachedTable;

static HTAB *cache = NULL;

static void
watch_relcache_callback(pg_attribute_unused() Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	CachedTable *table;

	if (cache == NULL)
		return;
	if (relid != InvalidOid)
	{
		table = hash_search(cache, &relid, HASH_FIND, NULL);
		if (table)
			table->valid = false;
		return;
	}
	hash_seq_init(&status, cache);
	while ((table = hash_seq_search(&status)) != NULL)
		table->valid = false;
}

/* Register for changes. */
void
sa_products_init(void)
{
	CacheRegisterRelcacheCallback(watch_relcache_callback, (Datum) 0);
}

/* The place of the name in the list, or -1. */
int
sa_find_name(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
	{
		if (name != NULL && strcmp(names[i], name) == 0)
			return i;
	}
	return -1;
}

static SaReading
watch_reading(const char *reading)
{
	if (reading == NULL)
		return SA_READING_DEFAULT;
	if (strcmp(reading, "s") == 0)
		return SA_READING_SECONDS;
	if (strcmp(reading, "utc") == 0)
		return SA_READING_UTC;
	if (strcmp(reading, "key or name") == 0)
		return SA_READING_KEY_OR_NAME;
	if (strcmp(reading, "any case") == 0)
		return SA_READING_ANY_CASE;
	return SA_READING_DEFAULT;
}

/* Is this role one of the columns, and not the name of an attribute? */
static bool
watch_has_column(SaTablePart part, SaColumnRole role)
{
	return part != SA_PART_ATTRIBUTE ||
		role == SA_ROLE_USER_NAME || role == SA_ROLE_USER_KEY ||
		role == SA_ROLE_ATTRIBUTE_NAME || role == SA_ROLE_ATTRIBUTE_VALUE;
}

/* Does this column tell whose sessions end? */
static bool
watch_ends_sessions(SaTablePart part, SaColumnRole role)
{
	if (part == SA_PART_SESSION)
		return role == SA_ROLE_SECRET;
	return (part == SA_PART_ACCOUNT || part == SA_PART_IDENTITY) &&
		(role == SA_ROLE_USER_NAME || role == SA_ROLE_OTHER_NAME || role == SA_ROLE_CREDENTIAL ||
		 role == SA_ROLE_ACTIVE || role == SA_ROLE_LOCKED_AT || role == SA_ROLE_DELETED_AT);
}

static bool
watch_holds_json(Oid type)
{
	return type == JSONOID || type == JSONBOID || type == TEXTOID || type == VARCHAROID;
}

/*
 * Add one column or attribute. A column that has been dropped or renamed since, or whose
 * type cannot be read any more (see refused_type), plays no role.
 */
static void
watch_add_column(SaWatch *watch, Relation relation, SaColumnRole role, const char *name,
				 const SaColumn *described)
{
	if (watch_has_column(watch->part, role))
	{
		AttrNumber	attnum = get_attnum(watch->relid, name);
		Oid			type = attnum > 0 ?
		TupleDescAttr(RelationGetDescr(relation), attnum - 1)->atttypid : InvalidOid;

		if (attnum <= 0 || type >= FirstNormalObjectId || (described->path && !watch_holds_json(type)))
		{
			if (watch_ends_sessions(watch->part, role))
				watch->broken = psprintf(attnum <= 0 ? "column \"%s\" (%s) is not there any more" :
										 "column \"%s\" (%s) has a type that cannot be read",
										 name, sa_role_names[role]);
			return;
		}
		watch->columns[role] = *described;
		watch->columns[role].attnum = attnum;
		watch->columns[role].type = type;
	}
	else
	{
		SaAttribute *attribute;

		watch->attributes = watch->attributes ?
			repalloc(watch->attributes, (watch->nattributes + 1) * sizeof(SaAttribute)) :
			palloc(sizeof(SaAttribute));
		attribute = &watch->attributes[watch->nattributes++];
		attribute->name = pstrdup(name);
		attribute->role = role;
		attribute->reading = described->reading;
	}
}

/* Read the attachments of the table. */
static List *
watch_load(Relation relation, MemoryContext context)
{
	static SaStatement read_attachments = {.sql =
		"SELECT a.application::text, a.product::text, a.part::text, a.key_of::text,"
		"  a.alias_pattern, c.role::text, c.column_name::text, c.reading,"
		"  c.path, c.excludes, a.ends, a.clear_to"
		" FROM session_admin_internal.attachment a"
		" JOIN session_admin_internal.attachment_column c USING (application, product, part)"
		" WHERE a.relation = $1"
		" ORDER BY a.application, a.product, a.part"
	};
	List	   *watches = NIL;
	SaWatch    *watch = NULL;
	SaArgs		args = {0};
	uint64		rows;

	SPI_connect();
	sa_arg(&args, OIDOID, ObjectIdGetDatum(RelationGetRelid(relation)), false);
	rows = sa_run(&read_attachments, &args);
	for (uint64 i = 0; i < rows; i++)
	{
		char	   *application = sa_result_text(i, 1);
		char	   *product = sa_result_text(i, 2);
		char	   *key_of = sa_result_text(i, 4);
		char	   *alias_pattern = sa_result_text(i, 5);
		char	   *ends = sa_result_text(i, 11);
		char	   *clear_to = sa_result_text(i, 12);
		int			part = sa_find_name(sa_part_names, SA_NPARTS, sa_result_text(i, 3));
		int			role = sa_find_name(sa_role_names, SA_NROLES, sa_result_text(i, 6));
		MemoryContext old = MemoryContextSwitchTo(context);

		if (watch == NULL || strcmp(watch->application, application) != 0 ||
			strcmp(watch->product, product) != 0 || watch->part != (SaTablePart) part)
		{
			watch = palloc0(sizeof(SaWatch));
			watch->application = pstrdup(application);
			watch->product = pstrdup(product);
			watch->alias_pattern = alias_pattern ? pstrdup(alias_pattern) : NULL;
			watch->part = part;
			watch->key_of = Max(sa_find_name(sa_part_names, SA_NPARTS, key_of), 0);
			watch->relid = RelationGetRelid(relation);
			watch->clears = ends != NULL && strcmp(ends, "clear") == 0;
			watch->clear_to = clear_to ? pstrdup(clear_to) : NULL;
			watches = lappend(watches, watch);
		}
		if (role == SA_ROLE_USER_NAME || role == SA_ROLE_USER_KEY)
			watch->names_user = true;
		if (role >= 0)
		{
			SaColumn	described = {
				.reading = watch_reading(sa_result_text(i, 8)),
				.path = sa_result_array(i, 9),
				.excludes = sa_result_array(i, 10)
			};

			watch_add_column(watch, relation, role, sa_result_text(i, 7), &described);
		}
		MemoryContextSwitchTo(old);
	}
	SPI_finish();

	return watches;
}

/*
 * The SaWatches of this table.  They stay until the end of the transaction even
 * if the table is altered meanwhile.
 */
List *
sa_watches_of(Relation relation)
{
	Oid			relid = RelationGetRelid(relation);
	CachedTable *table;
	MemoryContext context;
	List	   *watches;
	bool		found;

	if (cache == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(CachedTable);
		ctl.hcxt = CacheMemoryContext;
		cache = hash_create("session_admin attachments", 16, &ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}

	table = hash_search(cache, &relid, HASH_ENTER, &found);
	if (!found)
	{
		table->valid = false;
		table->context = NULL;
		table->watches = NIL;
	}
	if (table->valid)
		return table->watches;

	/* a caller up the stack may still read the old watches */
	if (table->context != NULL)
		MemoryContextSetParent(table->context, TopTransactionContext);
	table->context = NULL;
	table->watches = NIL;
	table->told = false;

	context = AllocSetContextCreate(CurrentMemoryContext, "session_admin attachment",
									ALLOCSET_SMALL_SIZES);
	/* what changes while this reads makes it invalid again */
	table->valid = true;
	PG_TRY();
	{
		watches = watch_load(relation, context);
	}
	PG_CATCH();
	{
		table->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();

	MemoryContextSetParent(context, CacheMemoryContext);
	table = hash_search(cache, &relid, HASH_FIND, NULL);
	table->context = context;
	table->watches = watches;
	return watches;
}

/*
 * Has it been told already, since it was read, that nothing is known of this table,
 * which has our triggers?  From here on it has.
 */
bool
sa_is_told_unknown(Relation relation)
{
	Oid			relid = RelationGetRelid(relation);
	CachedTable *table = hash_search(cache, &relid, HASH_FIND, NULL);
	bool		told = table->told;

	table->told = true;
	return told;
}
