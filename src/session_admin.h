/*
 * session_admin.h
 *	  The faces of all folders.
 */
#ifndef SESSION_ADMIN_H
#define SESSION_ADMIN_H

#include "base/base.h"
#include "policy/policy.h"
#include "products/products.h"
#include "live/live.h"
#include "ending/ending.h"
#include "session/session.h"
#include "node/node.h"
#include "capture/capture.h"
#include "attach/attach.h"
#include "housekeeping/housekeeping.h"

#endif							/* SESSION_ADMIN_H */
