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

#endif							/* SA_COMPAT_H */
