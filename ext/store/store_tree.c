/* SPDX-License-Identifier: MIT */
#include "store.h"
CHOIR_PRIVATE int choirStoreTreeRegister(ChoirConn *pConn, char **pzErr) {
  (void)pConn, (void)pzErr;
  return SQLITE_OK;
}
