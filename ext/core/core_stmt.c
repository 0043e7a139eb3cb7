/* SPDX-License-Identifier: MIT */
/*
** Statements kept for the next call, savepoints, and the sticky helpers around
** prepare, bind and step.
**
** The anchor (an eponymous virtual table, see core_conn.c) is connected before
** the first statement is kept. If a table of the host shadows its name,
** nothing is kept: slower, never wrong.
*/
#include "core.h"

/* ------------------------------------------------------------ the anchor */

typedef struct StmtAnchor {
  sqlite3_vtab base;
  ChoirConn *pConn;
} StmtAnchor;

static int anchorConnect(sqlite3 *db, void *pAux, int argc,
                         const char *const *argv, sqlite3_vtab **ppVtab,
                         char **pzErr) {
  ChoirConn *pConn = pAux;
  StmtAnchor *p;
  int rc = sqlite3_declare_vtab(db, "CREATE TABLE x(version)");
  (void)argc, (void)argv, (void)pzErr;
  if (rc != SQLITE_OK) {
    return rc;
  }
  p = sqlite3_malloc64(sizeof(*p));
  if (p == NULL) {
    return SQLITE_NOMEM;
  }
  memset(p, 0, sizeof(*p));
  p->pConn = pConn;
  pConn->bAnchored = 1;
  *ppVtab = &p->base;
  return SQLITE_OK;
}

static int anchorDisconnect(sqlite3_vtab *pVtab) {
  StmtAnchor *p = (StmtAnchor *)pVtab;
  p->pConn->bAnchored = 0;
  if (p->pConn->xClosing) {
    p->pConn->xClosing(p->pConn);
  }
  choirStmtFlush(p->pConn);
  sqlite3_free(p);
  return SQLITE_OK;
}

static int anchorBestIndex(sqlite3_vtab *pVtab, sqlite3_index_info *pInfo) {
  (void)pVtab;
  pInfo->estimatedCost = 1.0;
  return SQLITE_OK;
}

static int anchorOpen(sqlite3_vtab *pVtab, sqlite3_vtab_cursor **ppCur) {
  sqlite3_vtab_cursor *p = sqlite3_malloc64(sizeof(*p));
  (void)pVtab;
  if (p == NULL) {
    return SQLITE_NOMEM;
  }
  memset(p, 0, sizeof(*p));
  *ppCur = p;
  return SQLITE_OK;
}

static int anchorClose(sqlite3_vtab_cursor *pCur) {
  sqlite3_free(pCur);
  return SQLITE_OK;
}

static int anchorFilter(sqlite3_vtab_cursor *pCur, int idxNum,
                        const char *idxStr, int argc, sqlite3_value **argv) {
  (void)pCur, (void)idxNum, (void)idxStr, (void)argc, (void)argv;
  return SQLITE_OK;
}

static int anchorNext(sqlite3_vtab_cursor *pCur) {
  (void)pCur;
  return SQLITE_OK;
}

static int anchorEof(sqlite3_vtab_cursor *pCur) {
  (void)pCur;
  return 1; /* always empty */
}

static int anchorColumn(sqlite3_vtab_cursor *pCur, sqlite3_context *pCtx,
                        int i) {
  (void)pCur, (void)pCtx, (void)i;
  return SQLITE_OK;
}

static int anchorRowid(sqlite3_vtab_cursor *pCur, sqlite3_int64 *pRowid) {
  (void)pCur;
  *pRowid = 0;
  return SQLITE_OK;
}

static const sqlite3_module anchorModule = {
    .iVersion = 1,
    .xConnect = anchorConnect,
    .xBestIndex = anchorBestIndex,
    .xDisconnect = anchorDisconnect,
    .xOpen = anchorOpen,
    .xClose = anchorClose,
    .xFilter = anchorFilter,
    .xNext = anchorNext,
    .xEof = anchorEof,
    .xColumn = anchorColumn,
    .xRowid = anchorRowid,
};

CHOIR_PRIVATE CHOIR_COLD void choirAnchorRegister(ChoirConn *pConn,
                                                  ChoirErr *pErr) {
  if (pErr->rc == SQLITE_OK) {
    choirConnRef(pConn);
    choirErrDb(pErr, pConn->db,
               sqlite3_create_module_v2(pConn->db, "choir_anchor",
                                        &anchorModule, pConn, choirConnUnref));
  }
}

static int stmtAnchored(ChoirConn *pConn) {
  if (pConn->bPrivate) {
    return 1;
  }
  if (!pConn->bAnchored && !pConn->bAnchorFailed) {
    sqlite3_stmt *p = NULL;
    int rc = sqlite3_prepare_v2(pConn->db, "SELECT version FROM choir_anchor",
                                -1, &p, NULL);
    sqlite3_finalize(p);
    /* Prepared without connecting: a table of the host has the name. */
    pConn->bAnchorFailed = rc == SQLITE_OK && !pConn->bAnchored;
  }
  return pConn->bAnchored;
}

/* ------------------------------------------------------- kept statements */

/* zSql with every `~.` replaced by the quoted schema, of which each % is doubled
** where zSql is a format; caller frees. */
static char *stmtExpand(ChoirConn *pConn, ChoirErr *pErr, const char *zSql,
                        int bFormat) {
  ChoirBuf b;
  const char *z, *zName;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  while ((z = strstr(zSql, "~.")) != NULL) {
    choirBufAppend(&b, zSql, (u64)(z - zSql));
    choirBufText(&b, "\"");
    for (zName = choirSchema(pConn); *zName; zName++) {
      choirBufAppend(&b, zName, 1);
      if (*zName == '"' || (bFormat && *zName == '%')) {
        choirBufAppend(&b, zName, 1);
      }
    }
    choirBufText(&b, "\".");
    zSql = z + 2;
  }
  choirBufText(&b, zSql);
  return choirBufTake(&b);
}

static sqlite3_stmt *stmtPrepare(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zSql, unsigned mFlags) {
  sqlite3_stmt *pStmt = NULL;
  char *z = stmtExpand(pConn, pErr, zSql, 0);
  if (z) {
    int rc = sqlite3_prepare_v3(pConn->db, z, -1, mFlags, &pStmt, NULL);
    choirErrDb(pErr, pConn->db, rc);
  }
  sqlite3_free(z);
  return pStmt;
}

CHOIR_PRIVATE sqlite3_stmt *choirPrepare(ChoirConn *pConn, ChoirErr *pErr,
                                         const char *zSql) {
  return stmtPrepare(pConn, pErr, zSql, 0);
}

/* The slot of zSql, new where there is none; NULL when the cache is full. */
static ChoirStmtSlot *stmtSlot(ChoirConn *pConn, ChoirErr *pErr,
                               const char *zSql) {
  int i;
  for (i = 0; i < pConn->nStmt; i++) {
    if (pConn->aStmt[i].zSql == zSql) {
      return &pConn->aStmt[i];
    }
  }
  if (pConn->aStmt == NULL) {
    pConn->aStmt = choirMalloc(pErr, CHOIR_STMT_MAX * sizeof(ChoirStmtSlot));
  }
  if (pConn->aStmt == NULL || pConn->nStmt == CHOIR_STMT_MAX) {
    return NULL;
  }
  pConn->aStmt[i].zSql = zSql;
  pConn->nStmt++;
  return &pConn->aStmt[i];
}

CHOIR_PRIVATE sqlite3_stmt *choirStmt(ChoirConn *pConn, ChoirErr *pErr,
                                      const char *zSql) {
  ChoirStmtSlot *pSlot;
  if (pErr->rc != SQLITE_OK) {
    return NULL;
  }
  if (!stmtAnchored(pConn)) {
    return stmtPrepare(pConn, pErr, zSql, 0);
  }
  pSlot = stmtSlot(pConn, pErr, zSql);
  if (pSlot == NULL || pSlot->bBusy) {
    return stmtPrepare(pConn, pErr, zSql, 0);
  }
  if (pSlot->pStmt == NULL) {
    pSlot->pStmt = stmtPrepare(pConn, pErr, zSql, SQLITE_PREPARE_PERSISTENT);
    if (pSlot->pStmt == NULL) {
      return NULL;
    }
  }
  pSlot->bBusy = 1;
  return pSlot->pStmt;
}

CHOIR_PRIVATE void choirStmtDone(ChoirConn *pConn, sqlite3_stmt *pStmt) {
  int i;
  if (pStmt == NULL) {
    return;
  }
  for (i = 0; i < pConn->nStmt; i++) {
    if (pConn->aStmt[i].pStmt == pStmt) {
      sqlite3_reset(pStmt);
      sqlite3_clear_bindings(pStmt);
      pConn->aStmt[i].bBusy = 0;
      return;
    }
  }
  sqlite3_finalize(pStmt);
}

CHOIR_PRIVATE void choirStmtFlush(ChoirConn *pConn) {
  int i;
  for (i = 0; i < pConn->nStmt; i++) {
    ChoirStmtSlot *p = &pConn->aStmt[i];
    if (!p->bBusy) { /* one in use is finalized by choirStmtDone */
      sqlite3_finalize(p->pStmt);
    }
    memset(p, 0, sizeof(*p));
  }
  pConn->nStmt = 0;
}

/* SQLite refuses to drop a table while a statement reads: the guards of the
** open calls (ChoirTxn) let go for this one step. */
static int stmtExecDrop(ChoirConn *pConn, sqlite3_stmt *pStmt) {
  ChoirTxn *p;
  int rc;
  for (p = pConn->pTxn; p; p = p->pOuter) {
    sqlite3_reset(p->pGuard);
  }
  rc = sqlite3_step(pStmt);
  for (p = pConn->pTxn; p && rc == SQLITE_DONE; p = p->pOuter) {
    rc = sqlite3_step(p->pGuard) == SQLITE_ROW ? SQLITE_DONE : SQLITE_NOMEM;
  }
  return rc;
}

/* Every statement of zSql. */
static void stmtExec(ChoirConn *pConn, ChoirErr *pErr, const char *zSql) {
  const char *z = zSql;
  while (z && *z && pErr->rc == SQLITE_OK) {
    sqlite3_stmt *pStmt = NULL;
    int rc = sqlite3_prepare_v2(pConn->db, z, -1, &pStmt, &z);
    if (pStmt && sqlite3_strnicmp(sqlite3_sql(pStmt), "DROP TABLE", 10) == 0) {
      rc = stmtExecDrop(pConn, pStmt);
    }
    while (pStmt && (rc == SQLITE_OK || rc == SQLITE_ROW)) {
      rc = sqlite3_step(pStmt);
    }
    choirErrDb(pErr, pConn->db, rc);
    sqlite3_finalize(pStmt);
  }
}

CHOIR_PRIVATE void choirExecText(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zSql) {
  char *z = pErr->rc == SQLITE_OK ? stmtExpand(pConn, pErr, zSql, 0) : NULL;
  stmtExec(pConn, pErr, z);
  sqlite3_free(z);
}

CHOIR_PRIVATE void choirExec(ChoirConn *pConn, ChoirErr *pErr, const char *zFmt,
                             ...) {
  char *zAll = pErr->rc == SQLITE_OK ? stmtExpand(pConn, pErr, zFmt, 1) : NULL;
  char *z = NULL;
  va_list ap;
  va_start(ap, zFmt);
  if (zAll) {
    z = choirVmprintf(pErr, zAll, ap);
  }
  va_end(ap);
  stmtExec(pConn, pErr, z);
  sqlite3_free(z);
  sqlite3_free(zAll);
}

CHOIR_PRIVATE int choirStep(ChoirErr *pErr, sqlite3_stmt *pStmt) {
  int rc;
  if (pErr->rc != SQLITE_OK || pStmt == NULL) {
    return 0;
  }
  rc = sqlite3_step(pStmt);
  choirErrDb(pErr, sqlite3_db_handle(pStmt), rc);
  return rc == SQLITE_ROW;
}

static void stmtBound(ChoirErr *pErr, sqlite3_stmt *pStmt, int rc) {
  choirErrDb(pErr, sqlite3_db_handle(pStmt), rc);
}

CHOIR_PRIVATE void choirBindText(ChoirErr *pErr, sqlite3_stmt *pStmt, int i,
                                 const char *z, i64 n) {
  if (pErr->rc == SQLITE_OK) {
    u64 nByte = z == NULL ? 0 : n < 0 ? strlen(z) : (u64)n;
    stmtBound(
        pErr, pStmt,
        sqlite3_bind_text64(pStmt, i, z, nByte, SQLITE_STATIC, SQLITE_UTF8));
  }
}

CHOIR_PRIVATE void choirBindBlob(ChoirErr *pErr, sqlite3_stmt *pStmt, int i,
                                 const void *a, i64 n) {
  if (pErr->rc == SQLITE_OK) {
    /* A NULL pointer with length 0 is an empty blob, not NULL. */
    stmtBound(pErr, pStmt,
              n == 0 ? sqlite3_bind_zeroblob(pStmt, i, 0)
                     : sqlite3_bind_blob64(pStmt, i, a, (u64)n, SQLITE_STATIC));
  }
}

CHOIR_PRIVATE void choirBindInt(ChoirErr *pErr, sqlite3_stmt *pStmt, int i,
                                i64 v) {
  if (pErr->rc == SQLITE_OK) {
    stmtBound(pErr, pStmt, sqlite3_bind_int64(pStmt, i, v));
  }
}

CHOIR_PRIVATE void choirBindReal(ChoirErr *pErr, sqlite3_stmt *pStmt, int i,
                                 double v) {
  if (pErr->rc == SQLITE_OK) {
    stmtBound(pErr, pStmt, sqlite3_bind_double(pStmt, i, v));
  }
}

CHOIR_PRIVATE void choirBindValue(ChoirErr *pErr, sqlite3_stmt *pStmt, int i,
                                  sqlite3_value *v) {
  if (v == NULL) { /* sqlite3_value_dup() without memory */
    choirErrNomem(pErr);
  }
  if (pErr->rc == SQLITE_OK) {
    stmtBound(pErr, pStmt, sqlite3_bind_value(pStmt, i, v));
  }
}

CHOIR_PRIVATE i64 choirQueryInt(ChoirConn *pConn, ChoirErr *pErr,
                                const char *zSql, i64 iDefault) {
  sqlite3_stmt *p = choirStmt(pConn, pErr, zSql);
  i64 v = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : iDefault;
  choirStmtDone(pConn, p);
  return v;
}

CHOIR_PRIVATE int choirExists(ChoirConn *pConn, ChoirErr *pErr,
                              const char *zType, const char *zName) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT 1 FROM ~.sqlite_schema WHERE name=?1 COLLATE NOCASE"
                " AND (?2 IS NULL OR type=?2)");
  int bRow;
  choirBindText(pErr, p, 1, zName, -1);
  choirBindText(pErr, p, 2, zType, -1);
  bRow = choirStep(pErr, p);
  choirStmtDone(pConn, p);
  return bRow;
}

/* ------------------------------------------------------------ savepoints */

static void stmtTxnFree(ChoirTxn *p) {
  choirStmtDone(p->pConn, p->pGuard);
  choirStmtDone(p->pConn, p->pRelease);
  choirStmtDone(p->pConn, p->pUndo);
  choirStmtDone(p->pConn, p->pRollback);
  p->pGuard = p->pRelease = p->pUndo = p->pRollback = NULL;
}

CHOIR_PRIVATE void choirNeedAlone(ChoirConn *pConn, ChoirErr *pErr) {
  if (!sqlite3_get_autocommit(pConn->db)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "this connection is inside a transaction; commit or roll back"
                " first");
  } else if (sqlite3_txn_state(pConn->db, choirSchema(pConn)) !=
             SQLITE_TXN_NONE) {
    choirErrSet(pErr, SQLITE_ERROR,
                "a statement of this connection is reading the database; call"
                " it alone, as SELECT f(…) with no FROM");
  }
}

/* The call's own transaction begins by writing nothing, so that SQLite waits
** for other writers now, by the host's busy timeout: a transaction that has
** read already is told BUSY at once when somebody else is writing. */
static void stmtWaitToWrite(ChoirConn *pConn, ChoirErr *pErr) {
  ChoirErr err = {SQLITE_OK, NULL};
  sqlite3_stmt *p =
      choirStmt(pConn, &err, "UPDATE ~._choir_meta SET value=value WHERE 0");
  choirStep(&err, p);
  choirStmtDone(pConn, p);
  if ((err.rc & 0xff) == SQLITE_ERROR || (err.rc & 0xff) == SQLITE_READONLY) {
    choirErrClear(&err); /* no workspace yet, a read-only file: the call says */
  } else {
    *pErr = err;
  }
}

#define STMT_GUARD(zSchema)                                                    \
  "SELECT (SELECT 1 FROM " zSchema "sqlite_schema LIMIT 1)"

CHOIR_PRIVATE void choirTxnBegin(ChoirTxn *pTxn, ChoirConn *pConn,
                                 ChoirErr *pErr) {
  sqlite3_stmt *p, *pLater = NULL;
  int rc;
  memset(pTxn, 0, sizeof(*pTxn));
  pTxn->pConn = pConn;
  p = choirStmt(pConn, pErr, "SAVEPOINT choir_call");
  pTxn->pRelease = choirStmt(pConn, pErr, "RELEASE choir_call");
  pTxn->pUndo = choirStmt(pConn, pErr, "ROLLBACK TO choir_call");
  pTxn->pGuard = choirStmt(pConn, pErr, STMT_GUARD("~."));
  if (sqlite3_get_autocommit(pConn->db)) {
    /* Until the call may write, a guard that has no snapshot of the file. */
    pLater = pTxn->pGuard;
    pTxn->pGuard = choirStmt(pConn, pErr, STMT_GUARD("temp."));
    pTxn->pRollback = choirStmt(pConn, pErr, "ROLLBACK");
  }
  if (choirStep(pErr, pTxn->pGuard)) {
    pTxn->iRowid = sqlite3_last_insert_rowid(pConn->db);
    rc = sqlite3_step(p);
    if (rc == SQLITE_DONE) {
      pTxn->bOpen = 1;
      pTxn->pOuter = pConn->pTxn;
      pConn->pTxn = pTxn;
    } else if (rc == SQLITE_BUSY) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "a statement that writes is running; call it as SELECT f(…),"
                  " not inside INSERT, UPDATE, DELETE or CREATE TABLE AS");
    } else {
      choirErrDb(pErr, pConn->db, rc);
    }
  }
  choirStmtDone(pConn, p);
  if (pTxn->bOpen && pLater) {
    stmtWaitToWrite(pConn, pErr);
    if (choirStep(pErr, pLater)) {
      p = pTxn->pGuard;
      pTxn->pGuard = pLater;
      pLater = p;
    }
  }
  choirStmtDone(pConn, pLater);
  if (!pTxn->bOpen) {
    stmtTxnFree(pTxn);
  }
}

/* SQLITE_DONE when the savepoint is rolled back and gone. */
static int stmtTxnUndone(ChoirTxn *pTxn) {
  int rc;
  sqlite3_reset(pTxn->pUndo);
  sqlite3_reset(pTxn->pRelease);
  rc = sqlite3_step(pTxn->pUndo);
  return rc == SQLITE_DONE ? sqlite3_step(pTxn->pRelease) : rc;
}

/* While an interrupt is pending no ROLLBACK TO runs, and SQL whose schema has
** changed is not even prepared. But when SQLite interrupts a write it rolls
** the whole transaction back by itself. Opening a blob for writing is the
** write that needs no preparing; interrupted, it writes nothing. */
static void stmtInterruptWrite(ChoirConn *pConn) {
  sqlite3_blob *pBlob = NULL;
  sqlite3_blob_open(pConn->db, choirSchema(pConn), "sqlite_schema", "name", 1,
                    1, &pBlob);
  sqlite3_blob_close(pBlob);
}

/* Returns why it was not done in order, or SQLITE_DONE. */
static int stmtTxnUndo(ChoirTxn *pTxn) {
  int rc = stmtTxnUndone(pTxn);
  if (rc == SQLITE_INTERRUPT) {
    stmtInterruptWrite(pTxn->pConn);
  } else if (rc != SQLITE_DONE) {
    sqlite3_reset(pTxn->pGuard); /* rolls back where memory has run out */
    if (!sqlite3_get_autocommit(pTxn->pConn->db) &&
        stmtTxnUndone(pTxn) != SQLITE_DONE && pTxn->pRollback) {
      sqlite3_step(pTxn->pRollback);
    }
  }
  return rc;
}

CHOIR_PRIVATE void choirTxnEnd(ChoirTxn *pTxn, ChoirErr *pErr) {
  sqlite3 *db;
  if (!pTxn->bOpen) {
    return;
  }
  db = pTxn->pConn->db;
  pTxn->bOpen = 0;
  pTxn->pConn->pTxn = pTxn->pOuter;
  if (pErr->rc == SQLITE_OK) {
    /* BUSY or FULL at the commit of the outermost savepoint, or no memory. */
    choirErrDb(pErr, db, sqlite3_step(pTxn->pRelease));
  }
  if (pErr->rc != SQLITE_OK) {
    sqlite3_reset(pTxn->pRelease);
    if ((stmtTxnUndo(pTxn) & 0xff) == SQLITE_NOMEM) {
      choirErrClear(pErr); /* all is rolled back, the outer calls' work too */
      choirErrNomem(pErr);
    }
  }
  stmtTxnFree(pTxn);
  sqlite3_set_last_insert_rowid(db, pTxn->iRowid);
}
