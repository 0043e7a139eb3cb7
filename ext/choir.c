/* SPDX-License-Identifier: MIT */
/*
** Entry points. The list of rooms below is the table of contents of choir: a
** room registers its functions and adds its part of a workspace, in this
** order. Loading writes nothing, opens nothing, starts nothing.
*/
#include "choir.h"
#include "core/core.h"
#include "embed/embed.h"
#include "http/http.h"
#include "index/index.h"
#include "search/search.h"
#include "store/store.h"
#include "sync/sync.h"
#include "vec/vec.h"
#ifndef SQLITE_CORE
#undef SQLITE_EXTENSION_INIT3
SQLITE_EXTENSION_INIT1
#endif

typedef int (*ChoirRoom)(ChoirConn *, char **pzErr);

static const ChoirRoom aChoirRoom[] = {
    choirCoreRegister,  /* config, help, choir_init and the reports */
    choirVecRegister,   /* vec_*: vector values and distances */
    choirIndexRegister, /* vec_scan */
    choirStoreRegister, /* artifacts, conversations, settings */
    choirEmbedRegister, /* words, chunks and vectors of a text */
#ifndef CHOIR_OMIT_NET
    choirHttpRegister, /* requests, JSON services, signatures */
#endif
    choirSearchRegister, /* choir_index, choir_search */
    choirSyncRegister,   /* push, pull, snapshots and backups */
};

static int choirLoad(sqlite3 *db, char **pzErr,
                     const sqlite3_api_routines *pApi, int bReadonly) {
  ChoirConn *pConn;
  int i, rc = SQLITE_OK;
#ifdef SQLITE_CORE
  (void)pApi;
#else
  SQLITE_EXTENSION_INIT2(pApi);
#endif
  if (sqlite3_libversion_number() < 3040001) {
    *pzErr = sqlite3_mprintf("choir: needs SQLite 3.40.1 or newer, this is %s",
                             sqlite3_libversion());
    return SQLITE_ERROR;
  }
  pConn = choirConnNew(db, bReadonly);
  if (pConn == NULL) {
    return SQLITE_NOMEM;
  }
  for (i = 0;
       i < (int)(sizeof(aChoirRoom) / sizeof(aChoirRoom[0])) && rc == SQLITE_OK;
       i++) {
    rc = aChoirRoom[i](pConn, pzErr);
  }
  choirConnUnref(pConn); /* what was registered holds its own references */
  if (rc == SQLITE_OK) {
    /* sqlite3_open() takes the last error of an automatic extension for a
    ** failure, and looking for a free name (CHOIR_ALIAS) leaves one. */
    sqlite3_stmt *pStmt = NULL;
    rc = sqlite3_prepare_v2(db, "SELECT 1", -1, &pStmt, NULL);
    sqlite3_finalize(pStmt);
  }
  if (rc != SQLITE_OK) {
    return rc;
  }
#ifdef SQLITE_CORE
  return SQLITE_OK;
#else
  return SQLITE_OK_LOAD_PERMANENTLY;
#endif
}

int sqlite3_choir_init(sqlite3 *db, char **pzErr,
                       const sqlite3_api_routines *pApi) {
  return choirLoad(db, pzErr, pApi, 0);
}

int sqlite3_extension_init(sqlite3 *db, char **pzErr,
                           const sqlite3_api_routines *pApi) {
  return choirLoad(db, pzErr, pApi, 0);
}

int sqlite3_choir_readonly_init(sqlite3 *db, char **pzErr,
                                const sqlite3_api_routines *pApi) {
  return choirLoad(db, pzErr, pApi, 1);
}
