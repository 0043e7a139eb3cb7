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
#include "libsql/libsql.h"
#include "log/log.h"
#include "nats/nats.h"
#include "object/object.h"
#include "qdrant/qdrant.h"
#include "search/search.h"
#include "store/store.h"
#include "sync/sync.h"
#include "vec/vec.h"
#ifndef SQLITE_CORE
#undef SQLITE_EXTENSION_INIT3
SQLITE_EXTENSION_INIT1
#endif

typedef void (*ChoirRoom)(ChoirConn *, ChoirErr *);

static const ChoirRoom aChoirRoom[] = {
    choirCoreRegister,  /* config, help, choir_init and the reports */
    choirVecRegister,   /* vec_*: vector values and distances */
    choirIndexRegister, /* vec_scan, vec_search and its indexes */
    choirStoreRegister, /* artifacts, conversations, settings, state, tasks */
    choirLogRegister,   /* the action log, undo, seals, events, watches */
    choirEmbedRegister, /* words, chunks and vectors of a text */
#ifndef CHOIR_OMIT_NET
    choirHttpRegister,   /* requests, JSON services, signatures */
    choirQdrantRegister, /* qdrant_*: the user's points of a server */
    choirLibsqlRegister, /* remote SQL databases */
    choirNatsRegister,   /* messages, streams, the log going out */
#endif
    choirSearchRegister, /* choir_index, choir_search */
    choirObjectRegister, /* s3_*: objects of s3:// and file:// */
    choirSyncRegister,   /* push, pull, snapshots and backups */
};

/* SQLite asks what a function may do in a schema (SQLITE_DIRECTONLY) while it
** reads the schema, and lets a name pass that it does not know yet. A schema
** read before choir's functions were there is therefore read again. The
** pragma works when it is prepared; stepping it would only expire the host's
** statements. It also leaves the connection without an error, which
** sqlite3_open() would take for a failed automatic extension. */
static int choirSchemaForget(sqlite3 *db) {
  static const char *const azSql[] = {"PRAGMA writable_schema",
                                      "PRAGMA writable_schema=RESET",
                                      "PRAGMA writable_schema=ON"};
  int i, bOn = 0, rc = SQLITE_OK;
  for (i = 0; i < (bOn ? 3 : 2) && rc == SQLITE_OK; i++) {
    sqlite3_stmt *p = NULL;
    rc = sqlite3_prepare_v2(db, azSql[i], -1, &p, NULL);
    if (i == 0 && rc == SQLITE_OK && sqlite3_step(p) == SQLITE_ROW) {
      bOn = sqlite3_column_int(p, 0);
    }
    sqlite3_finalize(p);
  }
  return rc;
}

/* Everything on db; the connection's own references keep the result. */
static ChoirConn *choirLoadRooms(sqlite3 *db, ChoirErr *pErr, int bReadonly) {
  ChoirConn *pConn = choirConnNew(db, bReadonly);
  int i;
  if (pConn == NULL) {
    choirErrNomem(pErr);
    return NULL;
  }
  pConn->xLoad = choirLoadRooms;
  for (i = 0; i < (int)(sizeof(aChoirRoom) / sizeof(aChoirRoom[0])); i++) {
    aChoirRoom[i](pConn, pErr);
  }
  choirConnUnref(pConn); /* what was registered holds its own references */
  return pErr->rc == SQLITE_OK ? pConn : NULL;
}

static int choirLoad(sqlite3 *db, char **pzErr,
                     const sqlite3_api_routines *pApi, int bReadonly) {
  ChoirErr err = {SQLITE_OK, NULL};
  int rc;
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
  choirLoadRooms(db, &err, bReadonly);
  rc = err.rc == SQLITE_OK ? choirSchemaForget(db) : err.rc;
  rc = rc == SQLITE_OK ? choirAtPublish() : rc;
  if (err.zMsg) {
    *pzErr = sqlite3_mprintf("choir: %s", err.zMsg);
  }
  choirErrClear(&err);
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
