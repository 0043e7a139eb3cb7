/* SPDX-License-Identifier: MIT */
/*
** Sticky errors: the first one is kept, everything after it is a no-op.
** Allocation helpers live here because failing is most of what they do.
*/
#include "core.h"

CHOIR_PRIVATE void choirErrNomem(ChoirErr *pErr) {
  if (pErr->rc == SQLITE_OK) {
    pErr->rc = SQLITE_NOMEM;
  }
}

/* A host that reads a message expects UTF-8: bytes that are not (a character
** cut by %.60s, the user's own text) become '?'. */
static void errPlain(char *z) {
  i64 i = 0, n = z ? (i64)strlen(z) : 0;
  while ((i += choirUtf8Valid(z + i, n - i)) < n) {
    z[i++] = '?';
  }
}

/* A message quotes what the user gave, which may be a megabyte: of a long one
** the middle is left out. */
enum { ERR_HEAD = 1500, ERR_TAIL = 300 };

static void errShort(char *z) {
  size_t n = z ? strlen(z) : 0;
  if (n > ERR_HEAD + 3 + ERR_TAIL) {
    memcpy(z + ERR_HEAD, "\xe2\x80\xa6", 3); /* an ellipsis */
    memmove(z + ERR_HEAD + 3, z + n - ERR_TAIL, ERR_TAIL + 1);
  }
}

CHOIR_PRIVATE void choirErrSet(ChoirErr *pErr, int rc, const char *zFmt, ...) {
  va_list ap;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  va_start(ap, zFmt);
  pErr->zMsg = sqlite3_vmprintf(zFmt, ap);
  va_end(ap);
  errShort(pErr->zMsg);
  errPlain(pErr->zMsg);
  pErr->rc = pErr->zMsg ? rc : SQLITE_NOMEM;
}

/* What to do about another connection that writes. A reader that has fallen
** behind it can never write, so SQLite does not wait. */
static const char *errBusy(sqlite3 *db, int rc) {
  if ((rc & 0xff) != SQLITE_BUSY) {
    return "";
  }
  return sqlite3_extended_errcode(db) == SQLITE_BUSY_SNAPSHOT
             ? ": another connection wrote since the statement around this, or"
               " its transaction, began to read; call it alone, as SELECT f(…),"
               " or after BEGIN IMMEDIATE"
             : "; PRAGMA busy_timeout says how long to wait for the connection"
               " that writes";
}

CHOIR_PRIVATE void choirErrDb(ChoirErr *pErr, sqlite3 *db, int rc) {
  if (rc == SQLITE_OK || rc == SQLITE_ROW || rc == SQLITE_DONE) {
    return;
  }
  if ((rc & 0xff) == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else {
    choirErrSet(pErr, rc, "%s%s", sqlite3_errmsg(db), errBusy(db, rc));
  }
}

CHOIR_PRIVATE void choirErrClear(ChoirErr *pErr) {
  sqlite3_free(pErr->zMsg);
  pErr->zMsg = NULL;
  pErr->rc = SQLITE_OK;
}

CHOIR_PRIVATE void choirErrResult(ChoirErr *pErr, sqlite3_context *pCtx,
                                  const char *zName) {
  if (pErr->rc == SQLITE_OK) {
    return;
  }
  if (pErr->zMsg) {
    char *z = sqlite3_mprintf("%s: %s", zName, pErr->zMsg);
    if (z) {
      sqlite3_result_error(pCtx, z, -1);
      sqlite3_result_error_code(pCtx, pErr->rc);
    } else {
      sqlite3_result_error_nomem(pCtx);
    }
    sqlite3_free(z);
  } else {
    sqlite3_result_error_nomem(pCtx);
  }
  choirErrClear(pErr);
}

CHOIR_PRIVATE int choirErrVtab(ChoirErr *pErr, sqlite3_vtab *pVtab,
                               const char *zName) {
  int rc = pErr->rc;
  if (rc != SQLITE_OK && pErr->zMsg) {
    sqlite3_free(pVtab->zErrMsg);
    pVtab->zErrMsg = sqlite3_mprintf("%s: %s", zName, pErr->zMsg);
    if (pVtab->zErrMsg == NULL) {
      rc = SQLITE_NOMEM;
    }
  }
  choirErrClear(pErr);
  return rc;
}

CHOIR_PRIVATE void *choirMalloc(ChoirErr *pErr, u64 n) {
  void *p = NULL;
  if (pErr->rc == SQLITE_OK) {
    p = sqlite3_malloc64(n ? n : 1);
    if (p == NULL) {
      choirErrNomem(pErr);
    } else {
      memset(p, 0, (size_t)(n ? n : 1));
    }
  }
  return p;
}

CHOIR_PRIVATE void *choirRealloc(ChoirErr *pErr, void *p, u64 n) {
  void *pNew = NULL;
  if (pErr->rc == SQLITE_OK) {
    pNew = sqlite3_realloc64(p, n);
    if (pNew == NULL) {
      choirErrNomem(pErr);
    }
  }
  return pNew;
}

CHOIR_PRIVATE char *choirVmprintf(ChoirErr *pErr, const char *zFmt,
                                  va_list ap) {
  char *z;
  if (pErr->rc != SQLITE_OK) {
    return NULL;
  }
  z = sqlite3_vmprintf(zFmt, ap);
  if (z == NULL) {
    choirErrNomem(pErr);
  }
  return z;
}

CHOIR_PRIVATE char *choirMprintf(ChoirErr *pErr, const char *zFmt, ...) {
  va_list ap;
  char *z;
  va_start(ap, zFmt);
  z = choirVmprintf(pErr, zFmt, ap);
  va_end(ap);
  return z;
}
