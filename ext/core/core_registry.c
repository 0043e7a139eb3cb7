/* SPDX-License-Identifier: MIT */
/*
** Registers SQL functions and gives each call what its risk class demands.
** This is the one place where SQLITE_DIRECTONLY, the lock and the savepoint
** are decided.
*/
#include "core.h"

/* SQLite's names for flags that 3.40.1 ignores and 3.45+ wants. */
#ifndef SQLITE_RESULT_SUBTYPE
#define SQLITE_RESULT_SUBTYPE 0x001000000
#endif

/* One registered function on one connection; the function's user data. */
typedef struct ChoirBind {
  ChoirConn *pConn;
  const ChoirFunc *pFunc;
  struct ChoirBind *pNext;
} ChoirBind;

CHOIR_PRIVATE void choirBindFree(ChoirConn *pConn) {
  while (pConn->pBind) {
    ChoirBind *p = (ChoirBind *)pConn->pBind;
    pConn->pBind = (struct ChoirBind *)p->pNext;
    sqlite3_free(p);
  }
}

static void registryUnref(void *pArg) {
  choirConnUnref(((ChoirBind *)pArg)->pConn);
}

static void registryInvoke(sqlite3_context *pCtx, int nArg,
                           sqlite3_value **apArg, int bFinal) {
  ChoirBind *pBind = sqlite3_user_data(pCtx);
  const ChoirFunc *pFunc = pBind->pFunc;
  ChoirTxn txn;
  ChoirCall call;
  i64 iStart = pFunc->eClass >= CHOIR_READ && !(pFunc->mFlags & CHOIR_INNER)
                   ? choirNanos()
                   : 0;
  call.pConn = pBind->pConn;
  call.pFunc = pFunc;
  call.pCtx = pCtx;
  call.nArg = nArg;
  call.apArg = apArg;
  call.err.rc = SQLITE_OK;
  call.err.zMsg = NULL;
  txn.bOpen = 0;
  if (pFunc->eClass >= CHOIR_WRITE) {
    if (pFunc->eClass == CHOIR_EFFECT && call.pConn->bLocked) {
      choirErrSet(&call.err, SQLITE_AUTH,
                  "this connection is locked; effects were turned off by"
                  " choir_lock()");
    } else if (pFunc->eClass == CHOIR_WRITE) {
      choirTxnBegin(&txn, call.pConn, &call.err);
    }
  }
  if (call.err.rc == SQLITE_OK) {
    if (bFinal) {
      pFunc->xFinal(&call);
    } else {
      pFunc->xCall(&call);
    }
  }
  choirJsonMemory(call.pConn, &call.err);
  if (txn.bOpen) {
    choirTxnEnd(&txn, &call.err);
  }
  choirErrResult(&call.err, pCtx, pFunc->zName);
  if (iStart) {
    call.pConn->nCall++;
    call.pConn->nNanos += choirNanos() - iStart;
  }
}

static void registryCall(sqlite3_context *pCtx, int nArg,
                         sqlite3_value **apArg) {
  registryInvoke(pCtx, nArg, apArg, 0);
}

static void registryFinal(sqlite3_context *pCtx) {
  registryInvoke(pCtx, 0, NULL, 1);
}

static int registryFlags(const ChoirFunc *p) {
  int m = SQLITE_UTF8;
  switch (p->eClass) {
  case CHOIR_PURE:
    m |= SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS;
    break;
  case CHOIR_VOLATILE:
    m |= SQLITE_INNOCUOUS;
    break;
  case CHOIR_READ:
    m |= SQLITE_DIRECTONLY;
    break;
  default:
    m |= SQLITE_DIRECTONLY | SQLITE_DETERMINISTIC;
    break;
  }
  if (p->mFlags & CHOIR_SUBTYPE) {
    m |= SQLITE_SUBTYPE | SQLITE_RESULT_SUBTYPE;
  }
  return m;
}

/* Is name(n arguments) known already? Prepared, never run: no table is named,
** so the schema is not read. */
static int registryTaken(sqlite3 *db, const char *zName, int nArg) {
  sqlite3_stmt *pStmt = NULL;
  char *zSql = sqlite3_mprintf("SELECT %s(%s)", zName,
                               nArg == 0   ? ""
                               : nArg == 1 ? "0"
                               : nArg == 2 ? "0,0"
                                           : "0,0,0");
  int rc = zSql ? sqlite3_prepare_v2(db, zSql, -1, &pStmt, NULL) : SQLITE_OK;
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  if (rc != SQLITE_OK) {
    /* "No such function" must not stay as the connection's error: linked in
    ** statically, choir is loaded by sqlite3_open, which would report it. */
    pStmt = NULL;
    sqlite3_prepare_v2(db, "SELECT 0", -1, &pStmt, NULL);
    sqlite3_finalize(pStmt);
  }
  return rc == SQLITE_OK;
}

static void registryKept(ChoirConn *pConn, const char *zName) {
  char *z = sqlite3_mprintf("%s%s%s", pConn->zKept ? pConn->zKept : "",
                            pConn->zKept ? ", " : "", zName);
  if (z) {
    sqlite3_free(pConn->zKept);
    pConn->zKept = z;
  }
}

static int registryOne(ChoirConn *pConn, const ChoirFunc *p, int nArg) {
  ChoirBind *pBind;
  int rc;
  if ((p->mFlags & CHOIR_ALIAS) && registryTaken(pConn->db, p->zName, nArg)) {
    registryKept(pConn, p->zName);
    return SQLITE_OK;
  }
  pBind = sqlite3_malloc64(sizeof(*pBind));
  if (pBind == NULL) {
    return SQLITE_NOMEM;
  }
  pBind->pConn = pConn;
  pBind->pFunc = p;
  pBind->pNext = (ChoirBind *)pConn->pBind;
  pConn->pBind = (struct ChoirBind *)pBind;
  choirConnRef(pConn); /* registryUnref runs on failure too */
  rc = sqlite3_create_function_v2(
      pConn->db, p->zName, nArg, registryFlags(p), pBind,
      p->xFinal ? NULL : registryCall, p->xFinal ? registryCall : NULL,
      p->xFinal ? registryFinal : NULL, registryUnref);
  if ((rc & 0xff) == SQLITE_BUSY &&
      (p->mFlags & (CHOIR_SHARED | CHOIR_ALIAS))) {
    registryKept(pConn, p->zName);
    rc = SQLITE_OK;
  }
  return rc;
}

CHOIR_PRIVATE void choirRegisterFuncs(ChoirConn *pConn, ChoirErr *pErr,
                                      const ChoirFunc *aFunc, int n) {
  int i, nArg;
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
    int rc = SQLITE_OK;
    const ChoirFunc *p = &aFunc[i];
    if (pConn->bReadonly && p->eClass >= CHOIR_WRITE &&
        !(p->mFlags & CHOIR_LOCAL)) {
      continue;
    }
    for (nArg = p->nMax < 0 ? -1 : p->nMin; rc == SQLITE_OK; nArg++) {
      rc = registryOne(pConn, p, nArg);
      if (nArg >= p->nMax) {
        break;
      }
    }
    if (rc != SQLITE_OK) {
      choirErrSet(pErr, rc, "cannot register %s: %s", p->zName,
                  sqlite3_errmsg(pConn->db));
    }
  }
}

/* ------------------------------------------------------------- arguments */

CHOIR_PRIVATE const char *choirTypeName(sqlite3_value *v) {
  switch (v ? sqlite3_value_type(v) : SQLITE_NULL) {
  case SQLITE_INTEGER:
    return "integer";
  case SQLITE_FLOAT:
    return "real";
  case SQLITE_TEXT:
    return "text";
  case SQLITE_BLOB:
    return "blob";
  default:
    return "null";
  }
}

CHOIR_PRIVATE const char *choirArgText(ChoirErr *pErr, sqlite3_value *v,
                                       const char *zArg) {
  const char *z;
  i64 n, nValid;
  if (pErr->rc != SQLITE_OK) {
    return NULL;
  }
  if (v == NULL || sqlite3_value_type(v) != SQLITE_TEXT) {
    choirErrSet(pErr, SQLITE_ERROR, "%s must be text, got %s", zArg,
                choirTypeName(v));
    return NULL;
  }
  z = (const char *)sqlite3_value_text(v);
  if (z == NULL) {
    choirErrNomem(pErr);
    return NULL;
  }
  n = sqlite3_value_bytes(v);
  nValid = choirUtf8Valid(z, n);
  if (nValid < n) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is not valid UTF-8 at byte %lld", zArg,
                nValid);
    return NULL;
  }
  if ((i64)strlen(z) != n) {
    choirErrSet(pErr, SQLITE_ERROR, "%s has a NUL character at byte %lld", zArg,
                (i64)strlen(z));
    return NULL;
  }
  return z;
}

CHOIR_PRIVATE const char *choirArgTextOrNull(ChoirErr *pErr, sqlite3_value *v,
                                             const char *zArg) {
  if (v == NULL || sqlite3_value_type(v) == SQLITE_NULL) {
    return NULL;
  }
  return choirArgText(pErr, v, zArg);
}

CHOIR_PRIVATE i64 choirArgInt(ChoirErr *pErr, sqlite3_value *v,
                              const char *zArg, i64 iMin, i64 iMax) {
  i64 i;
  if (pErr->rc != SQLITE_OK) {
    return iMin;
  }
  if (v == NULL || sqlite3_value_numeric_type(v) != SQLITE_INTEGER) {
    choirErrSet(pErr, SQLITE_ERROR, "%s must be an integer, got %s", zArg,
                choirTypeName(v));
    return iMin;
  }
  i = sqlite3_value_int64(v);
  if (i < iMin || i > iMax) {
    choirErrSet(pErr, SQLITE_ERROR, "%s must be %lld to %lld, got %lld", zArg,
                iMin, iMax, i);
    return iMin;
  }
  return i;
}

CHOIR_PRIVATE double choirArgReal(ChoirErr *pErr, sqlite3_value *v,
                                  const char *zArg, double rMin, double rMax) {
  double r;
  int eType;
  if (pErr->rc != SQLITE_OK) {
    return rMin;
  }
  eType = v ? sqlite3_value_numeric_type(v) : SQLITE_NULL;
  if (eType != SQLITE_INTEGER && eType != SQLITE_FLOAT) {
    choirErrSet(pErr, SQLITE_ERROR, "%s must be a number, got %s", zArg,
                choirTypeName(v));
    return rMin;
  }
  r = sqlite3_value_double(v);
  if (!(r >= rMin && r <= rMax)) {
    choirErrSet(pErr, SQLITE_ERROR, "%s must be %g to %g, got %g", zArg, rMin,
                rMax, r);
    return rMin;
  }
  return r;
}

CHOIR_PRIVATE int choirIsJson(ChoirConn *pConn, ChoirErr *pErr, const char *z) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr, "SELECT json_valid(?1) OR json_valid(+?1)");
  int bValid;
  choirBindText(pErr, p, 1, z, -1);
  bValid = choirStep(pErr, p) && sqlite3_column_int(p, 0);
  choirStmtDone(pConn, p);
  return bValid;
}

CHOIR_PRIVATE const char *choirArgJson(ChoirConn *pConn, ChoirErr *pErr,
                                       sqlite3_value *v, const char *zArg) {
  const char *z = choirArgText(pErr, v, zArg);
  if (z && !choirIsJson(pConn, pErr, z)) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is not valid JSON: %.60s", zArg, z);
  }
  return pErr->rc == SQLITE_OK ? z : NULL;
}

CHOIR_PRIVATE void choirResultText(ChoirCall *p, const char *z) {
  if (p->err.rc == SQLITE_OK) {
    if (z) {
      /* Copied here and not by SQLite: a call that has no memory for its
      ** result must fail before its savepoint is released. */
      char *zCopy = choirMprintf(&p->err, "%s", z);
      if (zCopy) {
        sqlite3_result_text(p->pCtx, zCopy, -1, sqlite3_free);
      }
    } else {
      sqlite3_result_null(p->pCtx);
    }
  }
}

/* Levenshtein distance of two short names, at most 64 characters each. */
static int registryDistance(const char *zA, const char *zB) {
  int a[65], i, j;
  int nA = (int)strlen(zA), nB = (int)strlen(zB);
  if (nA > 64 || nB > 64) {
    return 99;
  }
  for (j = 0; j <= nB; j++) {
    a[j] = j;
  }
  for (i = 1; i <= nA; i++) {
    int iDiag = a[0];
    a[0] = i;
    for (j = 1; j <= nB; j++) {
      int iSub = iDiag + (zA[i - 1] != zB[j - 1]);
      int iBest = a[j] < a[j - 1] ? a[j] + 1 : a[j - 1] + 1;
      iDiag = a[j];
      a[j] = iSub < iBest ? iSub : iBest;
    }
  }
  return a[nB];
}

CHOIR_PRIVATE const char *choirNearest(const char *z, const char *const *azName,
                                       int nName) {
  const char *zBest = NULL;
  size_t n = strlen(z);
  int i, iBest = n > 64 ? 0 : (int)n / 3 + 2;
  for (i = 0; i < nName; i++) {
    int d = registryDistance(z, azName[i]);
    if (d < iBest) {
      iBest = d;
      zBest = azName[i];
    }
  }
  return zBest;
}
