/*
 * compat.h
 *	  Differences between PostgreSQL's major versions, and nothing else: the only
 *	  file that looks at PG_VERSION_NUM.  Each shim has the newest signature.
 */
#ifndef SA_COMPAT_H
#define SA_COMPAT_H

#if PG_VERSION_NUM < 150000
#error session_admin needs PostgreSQL 15 or later
#endif

#include "access/genam.h"
#include "funcapi.h"
#include "utils/rel.h"
#include "utils/relcache.h"

/* 18: stands before the function, and pg_attribute_noreturn() is no more */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 15: InitMaterializedSRF had another name before its first minor releases */
static inline void
sa_init_materialized_srf(FunctionCallInfo fcinfo)
{
#ifdef MAT_SRF_USE_EXPECTED_DESC
	InitMaterializedSRF(fcinfo, 0);
#else
	SetSingleFuncCall(fcinfo, 0);
#endif
}

/* 18: tells whether a deferrable key will do */
static inline Oid
sa_primary_key_index(Relation rel)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(rel, false);
#else
	return RelationGetPrimaryKeyIndex(rel);
#endif
}

/* 18: takes an area for instrumentation */
static inline IndexScanDesc
sa_index_beginscan(Relation rel, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(rel, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(rel, index, snapshot, nkeys, 0);
#endif
}

#endif							/* SA_COMPAT_H */
