/*
 * describe.c
 *	  describe_product(): checks a description, and writes it.
 *
 * Whether there are such tables is seen when the product is attached.  The triggers read
 * what was found then: describing changes nothing that is watched.
 */
#include "products/products.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "regex/regex.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(sa_describe_product);
PG_FUNCTION_INFO_V1(sa_forget_product);

/* All that describes a product. */
#define DELETE_PRODUCT_SQL \
	"WITH marks AS (DELETE FROM session_admin_internal.product_mark WHERE product = $1)," \
	" columns AS (DELETE FROM session_admin_internal.product_column WHERE product = $1)," \
	" parts AS (DELETE FROM session_admin_internal.product_part WHERE product = $1)" \
	" DELETE FROM session_admin_internal.product WHERE product = $1"

/* The argument as the name of a product that may be described. */
static char *
describe_product_arg(FunctionCallInfo fcinfo, int argno)
{
	static SaStatement is_built_in = {.sql =
		"SELECT FROM session_admin_internal.product WHERE product = $1 AND built_in"
	};
	char	   *product = sa_text_or_null(fcinfo, argno);
	SaArgs		args = {0};

	if (product == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("product must not be null")));
	if (product[0] == '\0' || strlen(product) > SA_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of product must have 1 to %d bytes, not %zu",
						SA_NAME_MAX, strlen(product))));
	sa_check_printable("product", product);

	sa_arg_text(&args, product);
	if (sa_run(&is_built_in, &args) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("product \"%s\" came with the extension", product),
				 errhint("Give yours another name.")));
	return product;
}

/* Refuse a description with something wrong in it. */
static void
describe_check(SaArgs *parts)
{
	static SaStatement find_problem = {.sql =
		"SELECT p.problem, p.hint FROM ("
		"  SELECT 0, NULL, NULL, 'parts must be an object, with at least one part',"
		"    '{\"account\": {\"tables\": \"users\", \"columns\": {\"user_name\": \"email\"}}}'"
		"  WHERE $1 = '{}' OR jsonb_typeof($1) <> 'object'"
		"  UNION ALL SELECT 1, part, NULL, problem, hint FROM session_admin_internal.described_parts($1)"
		"  UNION ALL SELECT 2, part, role, problem, hint FROM session_admin_internal.described_columns($1)"
		" ) p (n, part, role, problem, hint)"
		" WHERE p.problem IS NOT NULL ORDER BY p.n, p.part, p.role LIMIT 1"
	};
	char	   *problem;
	char	   *hint;

	if (sa_run(&find_problem, parts) == 0)
		return;
	problem = sa_result_text(0, 1);
	hint = sa_result_text(0, 2);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", sa_clean(problem, strlen(problem), SA_USER_NAME_MAX)),
			 hint ? errhint("%s", hint) : 0));
}

/* Attachments do not change: say so. */
static void
describe_tell_attached(const char *product)
{
	static SaStatement list_applications = {.sql =
		"SELECT string_agg(DISTINCT format('\"%s\"', application), ', ')"
		" FROM session_admin_internal.attachment WHERE product = $1"
	};
	SaArgs		args = {0};
	char	   *applications;

	sa_arg_text(&args, product);
	sa_run(&list_applications, &args);
	applications = sa_result_text(0, 1);
	if (applications)
		ereport(NOTICE,
				(errmsg("tables of product \"%s\" are watched as they were described before, for application %s",
						product, applications),
				 errhint("Call attach_application() again.")));
}

/* describe_product(product, parts, title, notes, alias_pattern) */
Datum
sa_describe_product(PG_FUNCTION_ARGS)
{
	static SaStatement describe[] = {
		{.sql = DELETE_PRODUCT_SQL},
		{.sql = "INSERT INTO session_admin_internal.product (product, title, notes, alias_pattern)"
		" VALUES ($1, coalesce($3, $1), ARRAY(SELECT n FROM unnest($4) AS n WHERE n IS NOT NULL), $5)"},
		{.sql = "INSERT INTO session_admin_internal.product_part (product, part, relations, key_of, required, ends, clear_to)"
			" SELECT $1, part, relations, key_of, required, ends, clear_to"
		" FROM session_admin_internal.described_parts($2)"},
		{.sql = "INSERT INTO session_admin_internal.product_column"
			" (product, part, role, columns, required, reading, path, excludes)"
			" SELECT $1, part, role, columns, required, reading, path, excludes"
		" FROM session_admin_internal.described_columns($2)"}
	};
	char	   *title = sa_cleaned_or_null(fcinfo, 2, SA_LABEL_MAX);
	char	   *alias_pattern = sa_text_or_null(fcinfo, 4);
	char	   *product;
	SaArgs		parts = {0};

	SPI_connect();
	product = describe_product_arg(fcinfo, 0);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("parts must not be null")));
	sa_arg(&parts, JSONBOID, PG_GETARG_DATUM(1), false);
	describe_check(&parts);
	/* an error if it is no regular expression */
	if (alias_pattern)
		(void) RE_compile_and_execute(cstring_to_text(alias_pattern), pstrdup(""), 0,
									  REG_ADVANCED | REG_NOSUB, C_COLLATION_OID, 0, NULL);

	for (size_t i = 0; i < lengthof(describe); i++)
	{
		SaArgs		args = {0};

		sa_arg_text(&args, product);
		sa_arg(&args, JSONBOID, PG_GETARG_DATUM(1), false);
		sa_arg_text(&args, title);
		sa_arg(&args, TEXTARRAYOID, PG_GETARG_DATUM(3), PG_ARGISNULL(3));
		sa_arg_text(&args, alias_pattern);
		sa_run(&describe[i], &args);
	}
	describe_tell_attached(product);
	SPI_finish();
	PG_RETURN_VOID();
}

/* forget_product(product): was there anything to forget? */
Datum
sa_forget_product(PG_FUNCTION_ARGS)
{
	static SaStatement delete_product = {.sql = DELETE_PRODUCT_SQL};
	static SaStatement is_attached = {.sql =
		"SELECT application::text FROM session_admin_internal.attachment WHERE product = $1 LIMIT 1"
	};
	char	   *product;
	SaArgs		attached_args = {0};
	SaArgs		args = {0};
	bool		found;

	SPI_connect();
	product = describe_product_arg(fcinfo, 0);
	sa_arg_text(&attached_args, product);
	if (sa_run(&is_attached, &attached_args) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tables of product \"%s\" are watched for application \"%s\"",
						product, sa_result_text(0, 1)),
				 errhint("Call detach_application() first.")));
	sa_arg_text(&args, product);
	found = sa_run(&delete_product, &args) > 0;
	SPI_finish();
	PG_RETURN_BOOL(found);
}
