/*
 * name.c
 *	  The name of a node, which is its role's.
 */
#include "node/node.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"

#define NODE_NAME_MAX		255 /* bytes; as the table checks */

/* The argument as the name of a node; an error if it is null, empty or too long. */
char *
sa_node_arg(FunctionCallInfo fcinfo, int argno)
{
	char	   *node = sa_text_or_null(fcinfo, argno);

	if (node == NULL || node[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a node must not be null or empty")));
	if (strlen(node) > NODE_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a node is too long"),
				 errdetail("The maximum is %d bytes.", NODE_NAME_MAX)));
	if (strncmp(node, SA_PRODUCT_PREFIX, strlen(SA_PRODUCT_PREFIX)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a node must not begin with \"%s\"", SA_PRODUCT_PREFIX),
				 errdetail("wait_for_nodes() names the products so of which rows remain.")));
	sa_check_printable("name of node", node);
	return node;
}

/* Clients that look for the primary know this error, and not that of a lock. */
void
sa_node_refuse_standby(FunctionCallInfo fcinfo)
{
	PreventCommandDuringRecovery(get_func_name(fcinfo->flinfo->fn_oid));
}

/* One call at a time for each node, until the end of the transaction. */
void
sa_node_lock(FunctionCallInfo fcinfo, const char *node)
{
	Oid			relid;
	uint32		key;

	sa_node_refuse_standby(fcinfo);
	relid = sa_relation(SA_TABLE_NODE);
	key = DatumGetUInt32(hash_any((const unsigned char *) node, strlen(node)));
	LockDatabaseObject(relid, key, 0, ExclusiveLock);
}

/*
 * A node belongs to its role: no other role gives receipts in its name, or says that it
 * has left, unless it may act as that role. A node that joins may take over a name when
 * its lease is over, or, if it has never synced, when that much time has passed.
 */
void
sa_node_check_role(const char *node, bool joins)
{
	static SaStatement node_of_another = {.sql =
		"SELECT FROM session_admin_internal.node_state n WHERE node = $1 AND joined_by <> session_user"
		"  AND NOT ($2 AND lease_is_over AND join_is_over)"
		"  AND NOT EXISTS (SELECT FROM pg_roles"
		"    WHERE rolname = n.joined_by AND pg_has_role(session_user, oid, 'MEMBER'))"
	};
	SaArgs		args = {0};

	sa_arg_text(&args, node);
	sa_arg(&args, BOOLOID, BoolGetDatum(joins), false);
	if (sa_run(&node_of_another, &args) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("node \"%s\" has joined as another role", node),
				 errhint("Use another name, or join when its lease has expired.")));
}
