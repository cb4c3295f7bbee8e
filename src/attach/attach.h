/*
 * attach.h
 *	  How tables come to be watched.
 */
#ifndef SA_ATTACH_H
#define SA_ATTACH_H

#include "products/products.h"

/* reconcile.c: products' sessions compared with their rows */
extern void sa_reconcile_attached(const char *application, const char *product);
extern int64 sa_reconcile_gone(bool *more); /* tasks of maintain() */
extern int64 sa_reconcile_slice(bool *more);

#endif							/* SA_ATTACH_H */
