/*
 * match.c
 *	  Finds the tables of a product in a schema, and checks whether they can be attached.
 */
#include "attach/match.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"

/* Did the product come with the extension?  One that nobody has described is refused. */
bool
sa_product_is_built_in(const char *product)
{
	static SaStatement find_product = {.sql =
		"SELECT (SELECT built_in FROM session_admin_internal.product WHERE product = $1),"
		" (SELECT string_agg(product, ', ' ORDER BY product) FROM session_admin_internal.product)"
	};
	SaArgs		args = {0};
	bool		isnull;
	bool		built_in;

	sa_arg_text(&args, product);
	sa_run(&find_product, &args);
	built_in = DatumGetBool(sa_result(0, 1, &isnull));
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown product \"%s\"", sa_clean(product, strlen(product), SA_NAME_MAX)),
				 errhint("Products are %s.", sa_result_text(0, 2))));
	return built_in;
}

/* Find the product's tables in the schema. */
Match *
sa_matches_find(const char *product, const char *schema, int *nmatches)
{
	static SaStatement match_product = {.sql =
		"SELECT part, relation, relation_name, role, column_name, reading, key_of, state, note,"
		"  path, excludes,"
		"  (SELECT p.ends = 'clear' FROM session_admin_internal.product_part p"
		"    WHERE p.product = $1 AND p.part = m.part)"
		" FROM session_admin_internal.match_product($1, $2) m"
	};
	SaArgs		args = {0};
	Match	   *matches;
	uint64		rows;

	sa_arg_text(&args, product);
	sa_arg_text(&args, schema);
	rows = sa_run(&match_product, &args);
	matches = palloc0((rows + 1) * sizeof(Match));
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		matches[i].part = sa_result_text(i, 1);
		matches[i].relid = DatumGetObjectId(sa_result(i, 2, &isnull));
		matches[i].relation_name = sa_result_text(i, 3);
		matches[i].role = sa_result_text(i, 4);
		matches[i].column_name = sa_result_text(i, 5);
		matches[i].reading = sa_result_text(i, 6);
		matches[i].key_of = sa_result_text(i, 7);
		matches[i].state = sa_result_text(i, 8);
		matches[i].note = sa_result_text(i, 9);
		matches[i].path = sa_result(i, 10, &matches[i].no_path);
		matches[i].excludes = sa_result(i, 11, &matches[i].no_excludes);
		matches[i].clears = DatumGetBool(sa_result(i, 12, &isnull)) && !isnull;
	}
	*nmatches = (int) rows;
	return matches;
}

/* Was it found, and not left out? */
bool
sa_match_is_attached(const Match *match)
{
	return strcmp(match->state, "attached") == 0;
}

/* The match that stands for this part as a whole; NULL if it is not attached. */
Match *
sa_matches_part(Match *matches, int nmatches, const char *part)
{
	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role == NULL && strcmp(matches[i].part, part) == 0)
			return sa_match_is_attached(&matches[i]) ? &matches[i] : NULL;
	}
	return NULL;
}

/* Refuse what is not there; leave out the parts that make no sense alone. */
static void
match_check_parts(Match *matches, int nmatches, const char *product, const char *schema)
{
	int			attached = 0;

	for (int i = 0; i < nmatches; i++)
	{
		Match	   *match = &matches[i];

		if (match->role != NULL)
			continue;
		if (strcmp(match->state, "required") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("schema \"%s\" does not hold the tables of product \"%s\"", schema, product),
					 errdetail("%s: %s.", match->relation_name, match->note)));
		if (sa_match_is_attached(match) && match->key_of != NULL &&
			sa_matches_part(matches, nmatches, match->key_of) == NULL)
		{
			match->state = "missing";
			match->note = psprintf("part \"%s\" is missing, and with it the names of users",
								   match->key_of);
		}
		attached += sa_match_is_attached(match);
	}
	if (attached == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("schema \"%s\" holds no table of product \"%s\"", schema, product)));
}

/* The column that plays this role in the part; NULL if there is none. */
static char *
match_column_of_role(Match *matches, int nmatches, const char *part, const char *role)
{
	for (int i = 0; i < nmatches; i++)
	{
		if (matches[i].role != NULL && sa_match_is_attached(&matches[i]) &&
			strcmp(matches[i].part, part) == 0 && strcmp(matches[i].role, role) == 0)
			return matches[i].column_name;
	}
	return NULL;
}

/* Refuse to have rows deleted that are users. */
static void
match_check_endings(Match *matches, int nmatches, const char *application, const char *product,
					const char *schema)
{
	static SaStatement find_reason = {.sql =
		"SELECT reason, ambiguous FROM session_admin_internal.refused_ending($1, $2, $3, $4, $5, $6, $7)"
	};

	for (int i = 0; i < nmatches; i++)
	{
		Match	   *match = &matches[i];
		SaArgs		args = {0};
		char	   *user;
		char	   *reason;
		bool		isnull;

		if (match->role != NULL || !sa_match_is_attached(match))
			continue;
		user = match_column_of_role(matches, nmatches, match->part, "user_key");
		if (user == NULL)
			user = match_column_of_role(matches, nmatches, match->part, "user_name");
		sa_arg_text(&args, application);
		sa_arg_text(&args, product);
		sa_arg_text(&args, schema);
		sa_arg_text(&args, match->part);
		sa_arg(&args, OIDOID, ObjectIdGetDatum(match->relid), false);
		sa_arg_text(&args, user);
		sa_arg_text(&args, match_column_of_role(matches, nmatches, match->part, "secret"));
		if (sa_run(&find_reason, &args) == 0 || (reason = sa_result_text(0, 1)) == NULL)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" cannot be part \"%s\": rows of users could be deleted",
						match->relation_name, match->part),
				 errdetail("%c%s.", pg_toupper((unsigned char) reason[0]), reason + 1),
				 DatumGetBool(sa_result(0, 2, &isnull)) ?
				 errhint("Describe the part with \"ends\": \"clear\", if its token is one column of a row of users, or \"ends\": \"delete\", if each row is one session or token.") :
				 errhint("A part with \"ends\": \"clear\" sets the token to null, or to \"clear_to\".")));
	}
}

/* Refuse what cannot be attached. */
void
sa_matches_check(Match *matches, int nmatches, const char *application, const char *product,
				 const char *schema)
{
	match_check_parts(matches, nmatches, product, schema);
	match_check_endings(matches, nmatches, application, product, schema);
}

/*
 * What came with the extension reads names and times, compares credentials and
 * keeps of secrets a hash: capability administrator is enough.  What somebody
 * else described could read anything: they must be allowed to.
 */
void
sa_matches_check_privileges(Match *matches, int nmatches)
{
	for (int i = 0; i < nmatches; i++)
	{
		AclMode		needed = ACL_SELECT | ACL_TRIGGER |
		(matches[i].clears ? ACL_UPDATE : ACL_DELETE);

		if (matches[i].role == NULL && sa_match_is_attached(&matches[i]) &&
			pg_class_aclmask(matches[i].relid, GetOuterUserId(), needed, ACLMASK_ALL) != needed)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for table %s", matches[i].relation_name),
					 errhint("To attach what was described, SELECT, TRIGGER and %s are needed on its tables.",
							 matches[i].clears ? "UPDATE" : "DELETE")));
	}
}
