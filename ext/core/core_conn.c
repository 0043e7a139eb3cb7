/* SPDX-License-Identifier: MIT */
/*
** What one connection owns, and the anchor that lets it go in time.
**
** A prepared statement that choir keeps on the host's connection would make
** the host's sqlite3_close() return SQLITE_BUSY. SQLite disconnects every
** virtual table before it looks for open statements, so the kept statements
** belong to an eponymous table, choir_anchor: its xDisconnect finalizes them.
** A connection that goes on after a failed close anchors again at the next
** statement.
*/
#include "core.h"

struct ChoirState {
  const ChoirStateType *pType;
  void *p;
  struct ChoirState *pNext;
};

struct ChoirConfig;
CHOIR_PRIVATE void choirConfigFree(ChoirConn *pConn);
CHOIR_PRIVATE void choirBindFree(ChoirConn *pConn);

CHOIR_PRIVATE ChoirConn *choirConnNew(sqlite3 *db, int bReadonly) {
  ChoirConn *p = sqlite3_malloc64(sizeof(*p));
  if (p) {
    memset(p, 0, sizeof(*p));
    p->db = db;
    p->nRef = 1;
    p->bReadonly = (u8)bReadonly;
  }
  return p;
}

CHOIR_PRIVATE ChoirConn *choirConnPrivate(ChoirErr *pErr, int bSpill) {
  return choirConnFile(pErr, bSpill ? "" : ":memory:");
}

CHOIR_PRIVATE ChoirConn *choirConnFile(ChoirErr *pErr, const char *zFile) {
  ChoirConn *p = NULL;
  sqlite3 *db = NULL;
  int rc;
  if (pErr->rc != SQLITE_OK) {
    return NULL;
  }
  rc = sqlite3_open_v2(zFile, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                       NULL);
  if (rc == SQLITE_OK) {
    p = choirConnNew(db, 0);
    if (p == NULL) {
      choirErrNomem(pErr);
    }
  } else if (db) {
    choirErrDb(pErr, db, rc);
  } else {
    choirErrNomem(pErr);
  }
  if (p == NULL) {
    sqlite3_close(db);
  } else {
    p->bPrivate = 1;
  }
  return p;
}

CHOIR_PRIVATE void choirConfigCopy(ChoirConn *pTo, ChoirErr *,
                                   ChoirConn *pFrom);
CHOIR_PRIVATE void choirSecretCopy(ChoirConn *pTo, ChoirErr *,
                                   ChoirConn *pFrom);

CHOIR_PRIVATE ChoirConn *choirConnAgent(ChoirConn *pConn, ChoirErr *pErr) {
  ChoirConn *p = choirConnPrivate(pErr, 0);
  if (p) {
    choirConfigCopy(p, pErr, pConn);
    choirSecretCopy(p, pErr, pConn);
  }
  return p;
}

CHOIR_PRIVATE sqlite3 *choirConnTwin(ChoirConn *pConn, ChoirErr *pErr) {
  const char *zFile = sqlite3_db_filename(pConn->db, choirSchema(pConn));
  ChoirConn *pTwin;
  sqlite3 *db = NULL;
  int rc;
  if (pErr->rc != SQLITE_OK) {
    return NULL;
  }
  if (zFile == NULL || zFile[0] == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "schema %s has no file that another connection could open",
                choirSchema(pConn));
    return NULL;
  }
  rc = sqlite3_open_v2(zFile, &db, SQLITE_OPEN_READWRITE, NULL);
  if (rc != SQLITE_OK) {
    choirErrDb(pErr, db, db ? rc : SQLITE_NOMEM);
  }
  pTwin = pErr->rc == SQLITE_OK ? pConn->xLoad(db, pErr, 0) : NULL;
  if (pTwin) {
    choirConfigCopy(pTwin, pErr, pConn);
    choirSecretCopy(pTwin, pErr, pConn);
  }
  if (pErr->rc != SQLITE_OK) {
    sqlite3_close(db);
    db = NULL;
  }
  return db;
}

CHOIR_PRIVATE void choirConnRef(ChoirConn *pConn) { pConn->nRef++; }

CHOIR_PRIVATE void choirConnUnref(void *pArg) {
  ChoirConn *p = pArg;
  if (--p->nRef > 0) {
    return;
  }
  choirStmtFlush(p);
  while (p->pState) {
    struct ChoirState *pState = p->pState;
    p->pState = pState->pNext;
    if (pState->pType->xFree) {
      pState->pType->xFree(pState->p);
    }
    sqlite3_free(pState->p);
    sqlite3_free(pState);
  }
  choirConfigFree(p);
  choirBindFree(p);
  sqlite3_close(p->dbJson);
  sqlite3_free(p->aStmt);
  sqlite3_free(p->zKept);
  if (p->bPrivate) {
    sqlite3_close(p->db);
  }
  sqlite3_free(p);
}

CHOIR_PRIVATE void *choirState(ChoirConn *pConn, ChoirErr *pErr,
                               const ChoirStateType *pType) {
  struct ChoirState *p;
  for (p = pConn->pState; p; p = p->pNext) {
    if (p->pType == pType) {
      return p->p;
    }
  }
  p = choirMalloc(pErr, sizeof(*p));
  if (p == NULL) {
    return NULL;
  }
  p->pType = pType;
  p->p = choirMalloc(pErr, pType->nByte);
  if (p->p == NULL) {
    sqlite3_free(p);
    return NULL;
  }
  p->pNext = pConn->pState;
  pConn->pState = p;
  return p->p;
}

CHOIR_PRIVATE const char *choirSchema(ChoirConn *pConn) {
  return pConn->bPrivate ? "main" : choirConfig(pConn, "schema");
}

CHOIR_PRIVATE int choirInterrupted(ChoirConn *pConn) {
  ChoirErr err = {0, NULL};
  sqlite3_stmt *p = choirStmt(pConn, &err, "SELECT 1");
  int bStop;
  choirStep(&err, p);
  choirStmtDone(pConn, p);
  bStop = (err.rc & 0xff) == SQLITE_INTERRUPT; /* out of memory is not */
  choirErrClear(&err);
  return bStop;
}
