/* SPDX-License-Identifier: MIT */
/*
** Eponymous table-valued functions: one implementation of the virtual table
** methods for all rooms. A room describes its function in a ChoirTvf (core.h)
** and fills rows in xFilter.
**
** idxNum is a bit mask: bit i set means argument i is given, in order, to
** xFilter. An argument that is an unusable constraint makes the plan
** impossible (SQLITE_CONSTRAINT), so a function is never run without an
** argument that the query states.
*/
#include "core.h"

typedef struct ChoirCell {
  enum { CELL_NULL, CELL_INT, CELL_REAL, CELL_TEXT } eType;
  union {
    i64 i;
    double r;
    char *z;
  } u;
} ChoirCell;

typedef struct TvfBind {
  ChoirConn *pConn;
  const ChoirTvf *pTvf;
} TvfBind;

typedef struct TvfTable {
  sqlite3_vtab base;
  TvfBind *pBind;
} TvfTable;

static void tvfUnbind(void *pArg) {
  TvfBind *p = pArg;
  choirConnUnref(p->pConn);
  sqlite3_free(p);
}

/* ------------------------------------------------------------------ rows */

static ChoirCell *tvfCell(ChoirCursor *p) {
  ChoirRows *pRows = &p->rows;
  if (pRows->nCell == pRows->nAlloc) {
    int nNew = pRows->nAlloc ? pRows->nAlloc * 2 : 32;
    void *a =
        choirRealloc(&p->err, pRows->aCell, (u64)nNew * sizeof(*pRows->aCell));
    if (a == NULL) {
      return NULL;
    }
    pRows->aCell = a;
    pRows->nAlloc = nNew;
  }
  if (p->err.rc != SQLITE_OK) {
    return NULL;
  }
  memset(&pRows->aCell[pRows->nCell], 0, sizeof(ChoirCell));
  return &pRows->aCell[pRows->nCell++];
}

CHOIR_PRIVATE void choirRowText(ChoirCursor *p, const char *z) {
  ChoirCell *pCell = tvfCell(p);
  if (pCell && z) {
    pCell->u.z = choirMprintf(&p->err, "%s", z);
    pCell->eType = pCell->u.z ? CELL_TEXT : CELL_NULL;
  }
}

CHOIR_PRIVATE void choirRowInt(ChoirCursor *p, i64 v) {
  ChoirCell *pCell = tvfCell(p);
  if (pCell) {
    pCell->eType = CELL_INT;
    pCell->u.i = v;
  }
}

CHOIR_PRIVATE void choirRowReal(ChoirCursor *p, double v) {
  ChoirCell *pCell = tvfCell(p);
  if (pCell) {
    pCell->eType = CELL_REAL;
    pCell->u.r = v;
  }
}

CHOIR_PRIVATE void choirRowsJson(const ChoirCursor *p, ChoirBuf *pBuf,
                                 const char *const *azKey, int nCol) {
  int i;
  choirBufText(pBuf, "[");
  for (i = 0; i < p->rows.nCell; i++) {
    const ChoirCell *pCell = &p->rows.aCell[i];
    choirBufText(pBuf, i == 0 ? "{" : i % nCol == 0 ? "},{" : ",");
    choirBufJson(pBuf, azKey[i % nCol], -1);
    choirBufText(pBuf, ":");
    if (pCell->eType == CELL_TEXT) {
      choirBufJson(pBuf, pCell->u.z, -1);
    } else if (pCell->eType == CELL_NULL) {
      choirBufText(pBuf, "null");
    } else if (pCell->eType == CELL_INT) {
      choirBufPrintf(pBuf, "%lld", pCell->u.i);
    } else {
      choirBufPrintf(pBuf, "%!.17g", pCell->u.r);
    }
  }
  choirBufText(pBuf, p->rows.nCell ? "}]" : "]");
}

CHOIR_PRIVATE void choirRowsFree(ChoirCursor *p) {
  int i;
  for (i = 0; i < p->rows.nCell; i++) {
    if (p->rows.aCell[i].eType == CELL_TEXT) {
      sqlite3_free(p->rows.aCell[i].u.z);
    }
  }
  sqlite3_free(p->rows.aCell);
  memset(&p->rows, 0, sizeof(p->rows));
}

/* --------------------------------------------------------------- methods */

static int tvfConnect(sqlite3 *db, void *pAux, int argc,
                      const char *const *argv, sqlite3_vtab **ppVtab,
                      char **pzErr) {
  TvfBind *pBind = pAux;
  TvfTable *p;
  char *zSql = sqlite3_mprintf("CREATE TABLE x(%s)", pBind->pTvf->zColumns);
  int rc = zSql ? sqlite3_declare_vtab(db, zSql) : SQLITE_NOMEM;
  (void)argc, (void)argv, (void)pzErr;
  sqlite3_free(zSql);
  if (rc != SQLITE_OK) {
    return rc;
  }
  rc = sqlite3_vtab_config(db, pBind->pTvf->eClass == CHOIR_PURE
                                   ? SQLITE_VTAB_INNOCUOUS
                                   : SQLITE_VTAB_DIRECTONLY);
  p = rc == SQLITE_OK ? sqlite3_malloc64(sizeof(*p)) : NULL;
  if (p == NULL) {
    return rc == SQLITE_OK ? SQLITE_NOMEM : rc;
  }
  memset(p, 0, sizeof(*p));
  p->pBind = pBind;
  *ppVtab = &p->base;
  return SQLITE_OK;
}

static int tvfBestIndex(sqlite3_vtab *pVtab, sqlite3_index_info *pInfo) {
  const ChoirTvf *pTvf = ((TvfTable *)pVtab)->pBind->pTvf;
  int aCons[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  int i, nArg = 0;
  u32 mUsable = 0, mUnusable = 0;
  for (i = 0; i < pInfo->nConstraint; i++) {
    int iArg = pInfo->aConstraint[i].iColumn - pTvf->nCol;
    if (iArg < 0 || iArg >= pTvf->nMax ||
        pInfo->aConstraint[i].op != SQLITE_INDEX_CONSTRAINT_EQ) {
      continue;
    }
    if (!pInfo->aConstraint[i].usable) {
      mUnusable |= 1u << iArg;
    } else if (aCons[iArg] < 0) {
      aCons[iArg] = i;
      mUsable |= 1u << iArg;
    }
  }
  if (mUnusable & ~mUsable) {
    return SQLITE_CONSTRAINT;
  }
  for (i = 0; i < pTvf->nMax; i++) {
    if (aCons[i] >= 0) {
      pInfo->aConstraintUsage[aCons[i]].argvIndex = ++nArg;
      pInfo->aConstraintUsage[aCons[i]].omit = 1;
    }
  }
  pInfo->idxNum = (int)mUsable;
  pInfo->estimatedCost = 100.0;
  pInfo->estimatedRows = 100;
  return SQLITE_OK;
}

static int tvfDisconnect(sqlite3_vtab *pVtab) {
  sqlite3_free(pVtab);
  return SQLITE_OK;
}

static int tvfOpen(sqlite3_vtab *pVtab, sqlite3_vtab_cursor **ppCur) {
  TvfBind *pBind = ((TvfTable *)pVtab)->pBind;
  u64 n = (u64)pBind->pTvf->nCursor;
  ChoirCursor *p;
  n = n < sizeof(ChoirCursor) ? sizeof(ChoirCursor) : n;
  p = sqlite3_malloc64(n);
  if (p == NULL) {
    return SQLITE_NOMEM;
  }
  memset(p, 0, (size_t)n);
  p->pConn = pBind->pConn;
  p->pTvf = pBind->pTvf;
  *ppCur = &p->base;
  return SQLITE_OK;
}

/* Back to the state after tvfOpen. */
static void tvfReset(ChoirCursor *p) {
  int i;
  if (p->pTvf->xReset) {
    p->pTvf->xReset(p);
  }
  if (p->bOwnStmt) {
    sqlite3_finalize(p->pStmt);
  } else {
    choirStmtDone(p->pConn, p->pStmt);
  }
  p->pStmt = NULL;
  p->bOwnStmt = 0;
  choirRowsFree(p);
  for (i = 0; i < 8; i++) {
    sqlite3_value_free(p->apArg[i]);
    p->apArg[i] = NULL;
  }
  choirErrClear(&p->err);
  p->bEof = 0;
  p->iRow = 0;
}

static int tvfClose(sqlite3_vtab_cursor *pCur) {
  tvfReset((ChoirCursor *)pCur);
  sqlite3_free(pCur);
  return SQLITE_OK;
}

static int tvfReport(ChoirCursor *p) {
  return choirErrVtab(&p->err, p->base.pVtab, p->pTvf->zName);
}

static int tvfFilter(sqlite3_vtab_cursor *pCur, int idxNum, const char *idxStr,
                     int argc, sqlite3_value **argv) {
  ChoirCursor *p = (ChoirCursor *)pCur;
  const ChoirTvf *pTvf = p->pTvf;
  int i, iArg = 0;
  (void)idxStr, (void)argc;
  tvfReset(p);
  for (i = 0; i < pTvf->nMax; i++) {
    if (idxNum & (1 << i)) {
      p->apArg[i] = sqlite3_value_dup(argv[iArg++]);
      if (p->apArg[i] == NULL) {
        choirErrNomem(&p->err);
      }
    } else if (i < pTvf->nMin) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "needs at least %d argument%s; the arguments are the hidden"
                  " columns of (%s)",
                  pTvf->nMin, pTvf->nMin == 1 ? "" : "s", pTvf->zColumns);
    }
  }
  if (pTvf->eClass == CHOIR_EFFECT && p->pConn->bLocked) {
    choirErrSet(&p->err, SQLITE_AUTH,
                "this connection is locked; effects were turned off by"
                " choir_lock()");
  }
  if (p->err.rc == SQLITE_OK) {
    pTvf->xFilter(p);
  }
  if (p->err.rc == SQLITE_OK && !pTvf->xNext) {
    p->bEof = p->pStmt ? !choirStep(&p->err, p->pStmt) : p->rows.nCell == 0;
  }
  return tvfReport(p);
}

static int tvfNext(sqlite3_vtab_cursor *pCur) {
  ChoirCursor *p = (ChoirCursor *)pCur;
  p->iRow++;
  if (p->pTvf->xNext) {
    p->pTvf->xNext(p);
  } else if (p->pStmt) {
    p->bEof = !choirStep(&p->err, p->pStmt);
  } else {
    p->bEof = (p->iRow + 1) * p->pTvf->nCol > p->rows.nCell;
  }
  return tvfReport(p);
}

static int tvfEof(sqlite3_vtab_cursor *pCur) {
  return ((ChoirCursor *)pCur)->bEof;
}

static void tvfCellResult(sqlite3_context *pCtx, const ChoirCell *pCell) {
  switch (pCell->eType) {
  case CELL_INT:
    sqlite3_result_int64(pCtx, pCell->u.i);
    break;
  case CELL_REAL:
    sqlite3_result_double(pCtx, pCell->u.r);
    break;
  case CELL_TEXT:
    sqlite3_result_text(pCtx, pCell->u.z, -1, SQLITE_TRANSIENT);
    break;
  default:
    break;
  }
}

static int tvfColumn(sqlite3_vtab_cursor *pCur, sqlite3_context *pCtx, int i) {
  ChoirCursor *p = (ChoirCursor *)pCur;
  const ChoirTvf *pTvf = p->pTvf;
  if (i >= pTvf->nCol) {
    if (i - pTvf->nCol < 8 && p->apArg[i - pTvf->nCol]) {
      sqlite3_result_value(pCtx, p->apArg[i - pTvf->nCol]);
    }
  } else if (pTvf->xColumn) {
    pTvf->xColumn(p, pCtx, i);
  } else if (p->pStmt) {
    sqlite3_result_value(pCtx, sqlite3_column_value(p->pStmt, i));
  } else {
    tvfCellResult(pCtx, &p->rows.aCell[p->iRow * pTvf->nCol + i]);
  }
  return tvfReport(p);
}

static int tvfRowid(sqlite3_vtab_cursor *pCur, sqlite3_int64 *pRowid) {
  *pRowid = ((ChoirCursor *)pCur)->iRow + 1;
  return SQLITE_OK;
}

/* No xCreate: eponymous only, so it can never be stored in a schema. */
static const sqlite3_module tvfModule = {
    .iVersion = 1,
    .xConnect = tvfConnect,
    .xBestIndex = tvfBestIndex,
    .xDisconnect = tvfDisconnect,
    .xOpen = tvfOpen,
    .xClose = tvfClose,
    .xFilter = tvfFilter,
    .xNext = tvfNext,
    .xEof = tvfEof,
    .xColumn = tvfColumn,
    .xRowid = tvfRowid,
};

CHOIR_PRIVATE void choirRegisterTvfs(ChoirConn *pConn, ChoirErr *pErr,
                                     const ChoirTvf *aTvf, int n) {
  int i;
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
    TvfBind *pBind;
    int rc;
    if (pConn->bReadonly && aTvf[i].eClass >= CHOIR_WRITE &&
        !(aTvf[i].mFlags & CHOIR_LOCAL)) {
      continue;
    }
    pBind = choirMalloc(pErr, sizeof(*pBind));
    if (pBind == NULL) {
      return;
    }
    pBind->pConn = pConn;
    pBind->pTvf = &aTvf[i];
    choirConnRef(pConn); /* tvfUnbind runs on failure too */
    rc = sqlite3_create_module_v2(pConn->db, aTvf[i].zName, &tvfModule, pBind,
                                  tvfUnbind);
    if (rc != SQLITE_OK) {
      choirErrSet(pErr, rc, "cannot register %s: %s", aTvf[i].zName,
                  sqlite3_errmsg(pConn->db));
    }
  }
}
