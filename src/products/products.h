/*
 * products.h
 *	  What is known of products' tables, and which of them are watched.
 */
#ifndef SA_PRODUCTS_H
#define SA_PRODUCTS_H

#include "base/base.h"

#include "nodes/pg_list.h"
#include "utils/rel.h"

/* attachment.c: which tables of products are watched */

/* As product_part.part; sa_part_names is in the same order. */
typedef enum SaTablePart
{
	SA_PART_IDENTITY,
	SA_PART_ACCOUNT,
	SA_PART_ATTRIBUTE,
	SA_PART_LOGIN,
	SA_PART_REMEMBER_ME,
	SA_PART_SESSION
} SaTablePart;

#define SA_NPARTS (SA_PART_SESSION + 1)

/* As product_column.role; sa_role_names is in the same order. */
typedef enum SaColumnRole
{
	SA_ROLE_USER_NAME,
	SA_ROLE_USER_KEY,
	SA_ROLE_KEY,
	SA_ROLE_OTHER_NAME,
	SA_ROLE_CREDENTIAL,
	SA_ROLE_ACTIVE,
	SA_ROLE_LOCKED_AT,
	SA_ROLE_DELETED_AT,
	SA_ROLE_LAST_LOGIN_AT,
	SA_ROLE_PREVIOUS_LOGIN_AT,
	SA_ROLE_LAST_FAILED_LOGIN_AT,
	SA_ROLE_LOGIN_COUNT,
	SA_ROLE_CURRENT_FAILED_COUNT,
	SA_ROLE_TOTAL_FAILED_COUNT,
	SA_ROLE_LAST_SEEN_AT,
	SA_ROLE_LAST_LOGIN_ADDRESS,
	SA_ROLE_ATTRIBUTE_NAME,
	SA_ROLE_ATTRIBUTE_VALUE,
	SA_ROLE_SECRET,
	SA_ROLE_SERIES,
	SA_ROLE_CREATED_AT,
	SA_ROLE_USED_AT,
	SA_ROLE_EXPIRES_AT,
	SA_ROLE_IDLE_TIMEOUT,
	SA_ROLE_REALM
} SaColumnRole;

#define SA_NROLES (SA_ROLE_REALM + 1)
#define SA_NO_ROLE ((SaColumnRole) -1)

#define SA_IS_LOGIN_ROLE(role) \
	((role) >= SA_ROLE_LAST_LOGIN_AT && (role) <= SA_ROLE_LAST_LOGIN_ADDRESS)

extern const char *const sa_part_names[SA_NPARTS];
extern const char *const sa_role_names[SA_NROLES];

/* How a value is to be read, see product_column.reading. */
typedef enum SaReading
{
	SA_READING_DEFAULT,
	SA_READING_SECONDS,
	SA_READING_UTC,
	SA_READING_KEY_OR_NAME,
	SA_READING_ANY_CASE
} SaReading;

typedef struct SaColumn
{
	AttrNumber	attnum;			/* InvalidAttrNumber: not there */
	Oid			type;
	SaReading	reading;
	ArrayType  *path;			/* within JSON; NULL: the value itself */
	ArrayType  *excludes;		/* values of rows that are left alone, or NULL */
} SaColumn;

typedef struct SaAttribute
{
	const char *name;
	SaColumnRole role;
	SaReading	reading;
} SaAttribute;

/* One table of a product in one application. */
typedef struct SaWatch
{
	const char *application;
	const char *product;
	const char *alias_pattern;	/* NULL: anonymized users cannot be recognized */
	SaTablePart part;
	SaTablePart key_of;			/* whose key user_key is */
	Oid			relid;
	bool		clears;			/* what ends there is cleared, not deleted */
	const char *clear_to;		/* to this; NULL: to null */
	bool		names_user;		/* or did, before a column was dropped */
	SaColumn	columns[SA_NROLES];
	SaAttribute *attributes;
	int			nattributes;
	const char *broken;			/* a column that tells whose sessions end, and
								 * is missing; NULL: none */
} SaWatch;

#define SA_HAS(watch, role) ((watch)->columns[role].attnum != InvalidAttrNumber)

/* watch.c: which tables are watched */
extern int	sa_find_name(const char *const *names, int n, const char *name);
extern List *sa_watches_of(Relation relation);
extern bool sa_is_told_unknown(Relation relation);
extern void sa_products_init(void);

#endif							/* SA_PRODUCTS_H */
