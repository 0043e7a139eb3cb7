/* SPDX-License-Identifier: MIT */
/*
** Virtual tables: one implementation of their methods for all rooms. A room
** describes a table-valued function in a ChoirTvf and a table whose rows live
** elsewhere in a ChoirModule (core.h), and fills rows in xFilter.
**
** The low CHOIR_ARGS bits of idxNum are a mask: bit i set means argument i is given, in
** order, to xFilter; the bits above are the module's own plan. An argument
** that is an unusable constraint makes the plan impossible
** (SQLITE_CONSTRAINT), so a function is never run without an argument that the
** query states.
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

/* What SQLite has of a module. It destroys a module that is registered again
** before it disconnects the last table of it, through these very methods: so
** tables hold it too. */
typedef struct VtabBind {
  ChoirConn *pConn;
  int nRef; /* the module, and its tables */
  const ChoirTvf *pTvf;
  const ChoirModule *pModule; /* pTvf is inside it, or NULL */
  sqlite3_module methods;     /* those that it has */
} VtabBind;

static void vtabUnbind(void *pArg) {
  VtabBind *p = pArg;
  if (--p->nRef == 0) {
    choirConnUnref(p->pConn);
    sqlite3_free(p);
  }
}

/* ------------------------------------------------------------------ rows */

static ChoirCell *vtabCell(ChoirCursor *p) {
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
  ChoirCell *pCell = vtabCell(p);
  if (pCell && z) {
    pCell->u.z = choirMprintf(&p->err, "%s", z);
    pCell->eType = pCell->u.z ? CELL_TEXT : CELL_NULL;
  }
}

CHOIR_PRIVATE void choirRowInt(ChoirCursor *p, i64 v) {
  ChoirCell *pCell = vtabCell(p);
  if (pCell) {
    pCell->eType = CELL_INT;
    pCell->u.i = v;
  }
}

CHOIR_PRIVATE void choirRowReal(ChoirCursor *p, double v) {
  ChoirCell *pCell = vtabCell(p);
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

CHOIR_PRIVATE char *choirUnquote(char *z) {
  u64 i, j, n;
  char cEnd;
  while (*z == ' ' || *z == '\t' || *z == '\n' || *z == '\r') {
    z++;
  }
  n = strlen(z);
  while (n && (u8)z[n - 1] <= ' ') {
    z[--n] = 0;
  }
  cEnd = (char)(z[0] == '[' ? ']' : z[0]);
  if (n >= 2 && strchr("'\"`[", z[0]) && z[n - 1] == cEnd) {
    z[n - 1] = 0;
    for (i = 1, j = 0; i < n; i++) {
      z[j++] = z[i];
      i += z[i] == cEnd && z[i + 1] == cEnd;
    }
  }
  return z;
}

static void vtabCheckLock(const ChoirConn *pConn, ChoirErr *pErr,
                          const ChoirTvf *pTvf) {
  if (pTvf->eClass == CHOIR_EFFECT && pConn->bLocked) {
    choirErrSet(pErr, SQLITE_AUTH,
                "this connection is locked; effects were turned off by"
                " choir_lock()");
  }
}

/* What every method ends with. */
static int vtabErr(ChoirTable *p, ChoirErr *pErr) {
  choirJsonMemory(p->pConn, pErr);
  return choirErrVtab(pErr, &p->base, p->pTvf->zName);
}

/* What every method ends with that cannot fail. */
static void vtabForgive(ChoirConn *pConn) {
  ChoirErr err = {SQLITE_OK, NULL};
  choirJsonMemory(pConn, &err);
  choirErrClear(&err);
}

/* The arguments of CREATE VIRTUAL TABLE, copied and unquoted, and the columns
** that the room makes of them. */
static void vtabOpen(ChoirTable *p, ChoirErr *pErr, int nArg,
                     const char *const *azRaw, ChoirBuf *pColumns) {
  char **azCopy = choirMalloc(pErr, 2 * (u64)nArg * sizeof(char *));
  char **azArg = azCopy + nArg;
  int i;
  for (i = 0; i < nArg && pErr->rc == SQLITE_OK; i++) {
    azCopy[i] = choirMprintf(pErr, "%s", azRaw[i]);
    azArg[i] = azCopy[i] ? choirUnquote(azCopy[i]) : NULL;
  }
  if (pErr->rc == SQLITE_OK) {
    p->pModule->xOpen(p, pErr, nArg, azArg, pColumns);
  }
  for (i = 0; azCopy && i < nArg; i++) {
    sqlite3_free(azCopy[i]);
  }
  sqlite3_free(azCopy);
}

/* The declaration's columns. argv: module, schema, table, arguments. */
static void vtabColumns(ChoirTable *p, ChoirErr *pErr, int argc,
                        const char *const *argv, ChoirBuf *pColumns) {
  const ChoirTvf *pTvf = p->pTvf;
  int bTemp = sqlite3_stricmp(argv[1], "temp") == 0;
  if (p->pModule && bTemp) {
    p->bCreated = 1;
    vtabCheckLock(p->pConn, pErr, pTvf);
    vtabOpen(p, pErr, argc - 3, argv + 3, pColumns);
  } else if (pTvf->zColumns && argc == 3 &&
             sqlite3_stricmp(argv[2], pTvf->zName) == 0) {
    choirBufText(pColumns, pTvf->zColumns);
  } else {
    choirErrSet(pErr, SQLITE_ERROR,
                "cannot be a table of schema %s; use CREATE VIRTUAL TABLE"
                " temp.%s USING %s(...)",
                argv[1], argv[2], pTvf->zName);
  }
}

static void vtabDeclare(ChoirTable *p, ChoirErr *pErr,
                        const ChoirBuf *pColumns) {
  sqlite3 *db = p->pConn->db;
  int bKeyed = p->bCreated && p->pModule->bKeyed;
  char *zSql = choirMprintf(pErr, "CREATE TABLE x(%s)%s", pColumns->a,
                            bKeyed ? " WITHOUT ROWID" : "");
  if (zSql) {
    choirErrDb(pErr, db, sqlite3_declare_vtab(db, zSql));
  }
  if (pErr->rc == SQLITE_OK) {
    choirErrDb(pErr, db,
               sqlite3_vtab_config(db, p->pTvf->eClass == CHOIR_PURE
                                           ? SQLITE_VTAB_INNOCUOUS
                                           : SQLITE_VTAB_DIRECTONLY));
  }
  if (pErr->rc == SQLITE_OK && p->bCreated) {
    choirErrDb(pErr, db,
               sqlite3_vtab_config(db, SQLITE_VTAB_CONSTRAINT_SUPPORT, 1));
  }
  sqlite3_free(zSql);
}

static void vtabFree(ChoirTable *p) {
  if (p->bCreated && p->pModule->xClose) {
    p->pModule->xClose(p);
  }
  vtabUnbind(p->pBind);
  sqlite3_free(p);
}

static int vtabConnect(sqlite3 *db, void *pAux, int argc,
                       const char *const *argv, sqlite3_vtab **ppVtab,
                       char **pzErr) {
  VtabBind *pBind = pAux;
  ChoirErr err = {SQLITE_OK, NULL};
  u64 n = pBind->pModule ? (u64)pBind->pModule->nTable : 0;
  ChoirTable *p = choirMalloc(&err, n < sizeof(*p) ? sizeof(*p) : n);
  ChoirBuf columns;
  int rc;
  (void)db;
  choirBufInit(&columns, &err, CHOIR_BUF_SQL);
  if (p) {
    p->pBind = pBind;
    pBind->nRef++;
    p->pConn = pBind->pConn;
    p->pModule = pBind->pModule;
    p->pTvf = pBind->pTvf;
    p->nCol = pBind->pTvf->nCol;
    vtabColumns(p, &err, argc, argv, &columns);
    vtabDeclare(p, &err, &columns);
  }
  choirBufFree(&columns);
  choirJsonMemory(pBind->pConn, &err);
  rc = err.rc;
  if (rc == SQLITE_OK) {
    *ppVtab = &p->base;
  } else {
    if (err.zMsg) {
      *pzErr = sqlite3_mprintf("%s: %s", pBind->pTvf->zName, err.zMsg);
      rc = *pzErr ? rc : SQLITE_NOMEM;
    }
    if (p) {
      vtabFree(p);
    }
    choirErrClear(&err);
  }
  return rc;
}

/* Different from vtabConnect by address: SQLite then takes the module for no
** table-valued function. */
static int vtabCreate(sqlite3 *db, void *pAux, int argc,
                      const char *const *argv, sqlite3_vtab **ppVtab,
                      char **pzErr) {
  return vtabConnect(db, pAux, argc, argv, ppVtab, pzErr);
}

static int vtabBestIndex(sqlite3_vtab *pVtab, sqlite3_index_info *pInfo) {
  ChoirTable *p = (ChoirTable *)pVtab;
  const ChoirTvf *pTvf = p->pTvf;
  ChoirErr err = {SQLITE_OK, NULL};
  int aCons[CHOIR_ARGS];
  int i, nArg = 0, iPlan = 0;
  int nMax = p->bCreated ? 0 : pTvf->nMax;
  u32 mUsable = 0, mUnusable = 0;
  for (i = 0; i < CHOIR_ARGS; i++) {
    aCons[i] = -1;
  }
  for (i = 0; i < pInfo->nConstraint; i++) {
    int iArg = pInfo->aConstraint[i].iColumn - pTvf->nCol;
    int eOp = pInfo->aConstraint[i].op;
    if (iArg < 0 || iArg >= nMax ||
        (eOp != SQLITE_INDEX_CONSTRAINT_EQ &&
         eOp != SQLITE_INDEX_CONSTRAINT_IS)) {
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
  for (i = 0; i < nMax; i++) {
    if (aCons[i] >= 0) {
      pInfo->aConstraintUsage[aCons[i]].argvIndex = ++nArg;
      pInfo->aConstraintUsage[aCons[i]].omit = 1;
    }
  }
  pInfo->estimatedCost = 100.0;
  pInfo->estimatedRows = 100;
  if (p->pModule && p->pModule->xPlan) {
    p->pModule->xPlan(p, &err, pInfo, &nArg, &iPlan);
  }
  pInfo->idxNum = (int)mUsable | iPlan << CHOIR_ARGS;
  return vtabErr(p, &err);
}

static int vtabDisconnect(sqlite3_vtab *pVtab) {
  ChoirConn *pConn = ((ChoirTable *)pVtab)->pConn;
  choirConnRef(pConn); /* the table may hold the last reference */
  vtabFree((ChoirTable *)pVtab);
  vtabForgive(pConn);
  choirConnUnref(pConn);
  return SQLITE_OK;
}

static int vtabCursor(sqlite3_vtab *pVtab, sqlite3_vtab_cursor **ppCur) {
  const ChoirTable *pTable = (ChoirTable *)pVtab;
  u64 n = (u64)pTable->pTvf->nCursor;
  ChoirCursor *p;
  n = n < sizeof(ChoirCursor) ? sizeof(ChoirCursor) : n;
  p = sqlite3_malloc64(n);
  if (p == NULL) {
    return SQLITE_NOMEM;
  }
  memset(p, 0, (size_t)n);
  p->pConn = pTable->pConn;
  p->pTvf = pTable->pTvf;
  *ppCur = &p->base;
  return SQLITE_OK;
}

/* Back to the state after vtabCursor. */
static void vtabReset(ChoirCursor *p) {
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
  for (i = 0; i < CHOIR_ARGS; i++) { /* a created table has some of its own */
    if (p->apArg[i]) {
      sqlite3_value_free(p->apArg[i]);
      p->apArg[i] = NULL;
    }
  }
  choirErrClear(&p->err);
  vtabForgive(p->pConn);
  p->bEof = 0;
  p->iRow = 0;
}

static int vtabClose(sqlite3_vtab_cursor *pCur) {
  vtabReset((ChoirCursor *)pCur);
  sqlite3_free(pCur);
  return SQLITE_OK;
}

static int vtabReport(ChoirCursor *p) {
  return vtabErr((ChoirTable *)p->base.pVtab, &p->err);
}

/* The function's arguments, and what xPlan asked for. */
static void vtabValues(ChoirCursor *p, int idxNum, int argc,
                       sqlite3_value **argv) {
  const ChoirTvf *pTvf = p->pTvf;
  int nMax = ((ChoirTable *)p->base.pVtab)->bCreated ? 0 : pTvf->nMax;
  int i, iArg = 0;
  for (i = 0; i < nMax; i++) {
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
  p->iPlan = idxNum >> CHOIR_ARGS;
  p->nValue = argc - iArg;
  p->apValue = argv + iArg;
}

static int vtabFilter(sqlite3_vtab_cursor *pCur, int idxNum, const char *idxStr,
                      int argc, sqlite3_value **argv) {
  ChoirCursor *p = (ChoirCursor *)pCur;
  const ChoirTvf *pTvf = p->pTvf;
  vtabReset(p);
  vtabValues(p, idxNum, argc, argv);
  p->zPlan = idxStr;
  vtabCheckLock(p->pConn, &p->err, pTvf);
  if (p->err.rc == SQLITE_OK) {
    pTvf->xFilter(p);
  }
  p->apValue = NULL;
  p->nValue = 0;
  if (p->err.rc == SQLITE_OK && !pTvf->xNext) {
    p->bEof = p->pStmt ? !choirStep(&p->err, p->pStmt) : p->rows.nCell == 0;
  }
  return vtabReport(p);
}

static int vtabNext(sqlite3_vtab_cursor *pCur) {
  ChoirCursor *p = (ChoirCursor *)pCur;
  p->iRow++;
  if (p->pTvf->xNext) {
    p->pTvf->xNext(p);
  } else if (p->pStmt) {
    p->bEof = !choirStep(&p->err, p->pStmt);
  } else {
    p->bEof = (p->iRow + 1) * ((ChoirTable *)pCur->pVtab)->nCol > p->rows.nCell;
  }
  return vtabReport(p);
}

static int vtabEof(sqlite3_vtab_cursor *pCur) {
  return ((ChoirCursor *)pCur)->bEof;
}

static void vtabCellResult(sqlite3_context *pCtx, const ChoirCell *pCell) {
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

static int vtabColumn(sqlite3_vtab_cursor *pCur, sqlite3_context *pCtx, int i) {
  ChoirCursor *p = (ChoirCursor *)pCur;
  const ChoirTvf *pTvf = p->pTvf;
  int nCol = ((ChoirTable *)pCur->pVtab)->nCol;
  if (i >= nCol) { /* an argument */
    if (i - nCol < CHOIR_ARGS && p->apArg[i - nCol]) {
      sqlite3_result_value(pCtx, p->apArg[i - nCol]);
    }
  } else if (pTvf->xColumn) {
    pTvf->xColumn(p, pCtx, i);
  } else if (p->pStmt) {
    sqlite3_result_value(pCtx, sqlite3_column_value(p->pStmt, i));
  } else {
    vtabCellResult(pCtx, &p->rows.aCell[p->iRow * nCol + i]);
  }
  return vtabReport(p);
}

static int vtabRowid(sqlite3_vtab_cursor *pCur, sqlite3_int64 *pRowid) {
  ChoirCursor *p = (ChoirCursor *)pCur;
  const ChoirModule *pModule = ((ChoirTable *)pCur->pVtab)->pModule;
  *pRowid = pModule && pModule->xRowid ? pModule->xRowid(p) : p->iRow + 1;
  return vtabReport(p);
}

static int vtabUpdate(sqlite3_vtab *pVtab, int argc, sqlite3_value **argv,
                      sqlite3_int64 *pRowid) {
  ChoirTable *p = (ChoirTable *)pVtab;
  ChoirErr err = {SQLITE_OK, NULL};
  if (!p->bCreated) {
    choirErrSet(&err, SQLITE_READONLY,
                "a table-valued function cannot be written; use CREATE VIRTUAL"
                " TABLE temp.name USING %s(...)",
                p->pTvf->zName);
  }
  vtabCheckLock(p->pConn, &err, p->pTvf);
  if (err.rc == SQLITE_OK) {
    p->pModule->xWrite(p, &err, argc, argv, pRowid);
  }
  return vtabErr(p, &err);
}

static int vtabBegin(sqlite3_vtab *pVtab) {
  (void)pVtab;
  return SQLITE_OK;
}

static int vtabSync(sqlite3_vtab *pVtab) {
  ChoirTable *p = (ChoirTable *)pVtab;
  ChoirErr err = {SQLITE_OK, NULL};
  p->pModule->xSync(p, &err);
  return vtabErr(p, &err);
}

static int vtabRollback(sqlite3_vtab *pVtab) {
  ChoirTable *p = (ChoirTable *)pVtab;
  p->pModule->xRollback(p);
  vtabForgive(p->pConn);
  return SQLITE_OK;
}

static int vtabMark(sqlite3_vtab *pVtab, int iSavepoint, int bBack) {
  ChoirTable *p = (ChoirTable *)pVtab;
  ChoirErr err = {SQLITE_OK, NULL};
  if (p->pModule->xSavepoint) {
    p->pModule->xSavepoint(p, &err, iSavepoint, bBack);
  }
  return vtabErr(p, &err);
}

static int vtabSavepoint(sqlite3_vtab *pVtab, int iSavepoint) {
  return vtabMark(pVtab, iSavepoint, 0);
}

static int vtabRelease(sqlite3_vtab *pVtab, int iSavepoint) {
  (void)pVtab, (void)iSavepoint;
  return SQLITE_OK;
}

static int vtabRollbackTo(sqlite3_vtab *pVtab, int iSavepoint) {
  return vtabMark(pVtab, iSavepoint, 1);
}

/* Without xCreate: eponymous only, so it can never be stored in a schema. */
static const sqlite3_module vtabMethods = {
    .iVersion = 1,
    .xConnect = vtabConnect,
    .xBestIndex = vtabBestIndex,
    .xDisconnect = vtabDisconnect,
    .xOpen = vtabCursor,
    .xClose = vtabClose,
    .xFilter = vtabFilter,
    .xNext = vtabNext,
    .xEof = vtabEof,
    .xColumn = vtabColumn,
    .xRowid = vtabRowid,
};

/* ---------------------------------------------------------- registration */

static void vtabRegister(ChoirConn *pConn, ChoirErr *pErr, const ChoirTvf *pTvf,
                         const ChoirModule *pModule) {
  VtabBind *pBind;
  int rc;
  if (pConn->bReadonly && pTvf->eClass >= CHOIR_WRITE &&
      !(pTvf->mFlags & CHOIR_LOCAL)) {
    return;
  }
  pBind = choirMalloc(pErr, sizeof(*pBind));
  if (pBind == NULL) {
    return;
  }
  pBind->pConn = pConn;
  pBind->nRef = 1;
  pBind->pTvf = pTvf;
  pBind->pModule = pModule;
  pBind->methods = vtabMethods;
  if (pModule) {
    if (pModule->xOpen) {
      pBind->methods.xCreate = pTvf->zColumns ? vtabConnect : vtabCreate;
      pBind->methods.xDestroy = vtabDisconnect;
    }
    pBind->methods.xUpdate = pModule->xWrite ? vtabUpdate : NULL;
    if (pModule->xSync) {
      pBind->methods.xBegin = vtabBegin;
      pBind->methods.xSync = vtabSync;
      pBind->methods.xCommit = vtabBegin;
      pBind->methods.xRollback = vtabRollback;
      pBind->methods.iVersion = 2;
      pBind->methods.xSavepoint = vtabSavepoint;
      pBind->methods.xRelease = vtabRelease;
      pBind->methods.xRollbackTo = vtabRollbackTo;
    }
  }
  choirConnRef(pConn); /* vtabUnbind runs on failure too */
  rc = sqlite3_create_module_v2(pConn->db, pTvf->zName, &pBind->methods, pBind,
                                vtabUnbind);
  if (rc != SQLITE_OK) {
    choirErrSet(pErr, rc, "cannot register %s: %s", pTvf->zName,
                sqlite3_errmsg(pConn->db));
  }
}

CHOIR_PRIVATE void choirRegisterTvfs(ChoirConn *pConn, ChoirErr *pErr,
                                     const ChoirTvf *aTvf, int n) {
  int i;
  for (i = 0; i < n; i++) {
    vtabRegister(pConn, pErr, &aTvf[i], NULL);
  }
}

CHOIR_PRIVATE void choirRegisterModule(ChoirConn *pConn, ChoirErr *pErr,
                                       const ChoirModule *pModule) {
  vtabRegister(pConn, pErr, &pModule->tvf, pModule);
}
