/* SPDX-License-Identifier: MIT */
/*
** Rows of a table, set to given values: what log_undo() and event_replay() do
** to the user's tables. Values are compared and bound as SQLite has them, so
** they come out bit for bit. Only what differs is written, and by ordinary
** statements: triggers of the host fire, and the log records it.
**
** Writes are OR REPLACE. Where the rows to be set are a state that was valid, a
** row on its way out may hold a UNIQUE value of one on its way in; it is
** displaced and set in its turn.
*/
#include "log.h"

struct ChoirLogRows {
  ChoirConn *pConn;
  const ChoirLogShape *pShape;
  char *const *azPlace;
  int nPlace;
  int aKey[CHOIR_LOG_KEY]; /* place of each part of the key; 0: the rowid */
  sqlite3_stmt *pFind;     /* rowid, places 1… of the row of a key */
  sqlite3_stmt *pDelete;
  sqlite3_stmt *pInsert; /* of the last form that was needed */
  int nInsert;           /* its places; negative: without the rowid */
  sqlite3_stmt *pUpdate; /* of the columns in aMask */
  u8 *aMask;             /* one for each place; then what is wanted next */
};

/* ----------------------------------------------------------------- values */

static int rowsSame(sqlite3_stmt *p, int i, sqlite3_stmt *q, int j) {
  int eType = sqlite3_column_type(p, i);
  double x, y;
  int n;
  const void *a, *b;
  if (eType != sqlite3_column_type(q, j)) {
    return 0;
  }
  switch (eType) {
  case SQLITE_NULL:
    return 1;
  case SQLITE_INTEGER:
    return sqlite3_column_int64(p, i) == sqlite3_column_int64(q, j);
  case SQLITE_FLOAT:
    x = sqlite3_column_double(p, i);
    y = sqlite3_column_double(q, j);
    return memcmp(&x, &y, sizeof(x)) == 0;
  default:
    break;
  }
  a = eType == SQLITE_TEXT ? (const void *)sqlite3_column_text(p, i)
                           : sqlite3_column_blob(p, i);
  b = eType == SQLITE_TEXT ? (const void *)sqlite3_column_text(q, j)
                           : sqlite3_column_blob(q, j);
  n = sqlite3_column_bytes(p, i);
  return n == sqlite3_column_bytes(q, j) &&
         (n == 0 || (a && b && memcmp(a, b, (size_t)n) == 0));
}

static void rowsBind(ChoirErr *pErr, sqlite3_stmt *p, int iBind,
                     sqlite3_stmt *pFrom, int iCol) {
  if (pErr->rc == SQLITE_OK && p) {
    choirErrDb(pErr, sqlite3_db_handle(p),
               sqlite3_bind_value(p, iBind, sqlite3_column_value(pFrom, iCol)));
  }
}

/* The key of pFrom's row, from parameter iBind on. */
static void rowsBindKey(ChoirErr *pErr, ChoirLogRows *p, sqlite3_stmt *pStmt,
                        int iBind, sqlite3_stmt *pFrom, int iFrom) {
  int i;
  for (i = 0; i < p->pShape->nKey; i++) {
    rowsBind(pErr, pStmt, iBind + i, pFrom, iFrom + p->aKey[i]);
  }
}

/* ------------------------------------------------------------- statements */

/* "schema".table */
static void rowsTable(ChoirBuf *b, const ChoirLogRows *p) {
  choirBufPrintf(b, "\"%w\".%s", choirSchema(p->pConn), p->pShape->zTable);
}

/* key=?iBind AND … as the key's index compares. */
static void rowsWhere(ChoirBuf *b, const ChoirLogRows *p, int iBind) {
  int i;
  choirBufText(b, " WHERE ");
  for (i = 0; i < p->pShape->nKey; i++) {
    const ChoirLogColumn *pCol = choirLogKeyColumn(p->pShape, i);
    choirBufPrintf(b, "%s%s", i ? " AND " : "", pCol->zSql);
    choirLogCollate(b, pCol, p->pShape->aKey[i].zColl);
    choirBufPrintf(b, "=?%d", iBind + i);
  }
}

/* The column at a place as SQL has it, NULL where there is none; caller
** frees. */
static char *rowsColumn(ChoirErr *pErr, const ChoirLogRows *p, int iPlace) {
  const char *z = p->azPlace[iPlace - 1];
  return z ? choirLogQuote(pErr, z) : NULL;
}

static sqlite3_stmt *rowsPrepare(ChoirLogRows *p, ChoirBuf *b) {
  sqlite3_stmt *pStmt = choirLogPrepare(p->pConn, b->pErr, "%s", b->a);
  choirBufFree(b);
  return pStmt;
}

static sqlite3_stmt *rowsFind(ChoirErr *pErr, ChoirLogRows *p) {
  ChoirBuf b;
  int i;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "SELECT %s",
                 p->pShape->zRowid ? p->pShape->zRowid : "NULL");
  for (i = 1; i <= p->nPlace; i++) {
    char *z = rowsColumn(pErr, p, i);
    choirBufPrintf(&b, ",%s", z ? z : "NULL");
    sqlite3_free(z);
  }
  choirBufText(&b, " FROM ");
  rowsTable(&b, p);
  rowsWhere(&b, p, 1);
  return rowsPrepare(p, &b);
}

static sqlite3_stmt *rowsDelete(ChoirErr *pErr, ChoirLogRows *p) {
  ChoirBuf b;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "DELETE FROM ");
  rowsTable(&b, p);
  rowsWhere(&b, p, 1);
  return rowsPrepare(p, &b);
}

/* INSERT of the first n places, ?1 the rowid where bRowid, ?2… the places. */
static sqlite3_stmt *rowsInsert(ChoirErr *pErr, ChoirLogRows *p, int n,
                                int bRowid) {
  ChoirBuf b;
  int i, j, nCol = bRowid;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "INSERT OR REPLACE INTO ");
  rowsTable(&b, p);
  choirBufPrintf(&b, "(%s", bRowid ? p->pShape->zRowid : "");
  for (j = 0; j < 2; j++) {
    for (i = 1; i <= n; i++) {
      char *z = rowsColumn(pErr, p, i);
      if (z) {
        choirBufText(&b, nCol++ ? "," : "");
        if (j) {
          choirBufPrintf(&b, "?%d", i + 1);
        } else {
          choirBufText(&b, z);
        }
      }
      sqlite3_free(z);
    }
    nCol = bRowid;
    choirBufText(&b, j ? ")" : bRowid ? ")VALUES(?1" : ")VALUES(");
  }
  return rowsPrepare(p, &b);
}

/* UPDATE of the places in aMask[nPlace…], the key last. */
static sqlite3_stmt *rowsUpdate(ChoirErr *pErr, ChoirLogRows *p) {
  ChoirBuf b;
  int i, n = 0;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "UPDATE OR REPLACE ");
  rowsTable(&b, p);
  choirBufText(&b, " SET ");
  for (i = 1; i <= p->nPlace; i++) {
    if (p->aMask[i - 1]) {
      char *z = rowsColumn(pErr, p, i);
      choirBufPrintf(&b, "%s%s=?%d", n++ ? "," : "", z ? z : "", i);
      sqlite3_free(z);
    }
  }
  rowsWhere(&b, p, p->nPlace + 1);
  return rowsPrepare(p, &b);
}

CHOIR_PRIVATE ChoirLogRows *choirLogRowsOpen(ChoirConn *pConn, ChoirErr *pErr,
                                             const ChoirLogShape *pShape,
                                             char *const *azPlace, int nPlace) {
  ChoirLogRows *p = choirMalloc(pErr, sizeof(*p));
  int i, j;
  if (p == NULL) {
    return NULL;
  }
  p->pConn = pConn;
  p->pShape = pShape;
  p->azPlace = azPlace;
  p->nPlace = nPlace;
  p->aMask = choirMalloc(pErr, (u64)nPlace * 2 + 1);
  for (i = 0; i < pShape->nKey && !pShape->bPseudo; i++) {
    for (j = 0; j < nPlace; j++) {
      if (azPlace[j] &&
          sqlite3_stricmp(azPlace[j], choirLogKeyColumn(pShape, i)->zName) ==
              0) {
        p->aKey[i] = j + 1;
      }
    }
  }
  p->pFind = rowsFind(pErr, p);
  p->pDelete = rowsDelete(pErr, p);
  return p;
}

CHOIR_PRIVATE void choirLogRowsClose(ChoirLogRows *p) {
  if (p) {
    sqlite3_finalize(p->pFind);
    sqlite3_finalize(p->pDelete);
    sqlite3_finalize(p->pInsert);
    sqlite3_finalize(p->pUpdate);
    sqlite3_free(p->aMask);
    sqlite3_free(p);
  }
}

/* ----------------------------------------------------------------- writing */

/* Runs a write; what a constraint or RAISE() refuses is no error of ours. */
static int rowsRun(ChoirErr *pErr, ChoirLogRows *p, sqlite3_stmt *pStmt,
                   char **pzWhy) {
  int rc;
  if (pErr->rc != SQLITE_OK) {
    return CHOIR_ROW_SAME;
  }
  rc = sqlite3_step(pStmt);
  if ((rc & 0xff) == SQLITE_CONSTRAINT &&
      !sqlite3_get_autocommit(p->pConn->db)) {
    if (*pzWhy == NULL) {
      *pzWhy = choirMprintf(pErr, "%s", sqlite3_errmsg(p->pConn->db));
    }
    sqlite3_reset(pStmt);
    return CHOIR_ROW_REFUSED;
  }
  choirErrDb(pErr, p->pConn->db, rc);
  sqlite3_reset(pStmt);
  return CHOIR_ROW_SET;
}

/* Is the rowid free? Where it is not the key it need not be had. */
static int rowsFree(ChoirErr *pErr, ChoirLogRows *p, sqlite3_stmt *pFrom,
                    int iFrom) {
  const ChoirLogShape *s = p->pShape;
  sqlite3_stmt *pStmt;
  int b;
  if (s->bPseudo) {
    return 1;
  }
  if (s->zRowid == NULL || s->bRowid ||
      sqlite3_column_type(pFrom, iFrom) != SQLITE_INTEGER) {
    return 0;
  }
  pStmt = choirLogPrepare(p->pConn, pErr, "SELECT 1 FROM \"%w\".%s WHERE %s=?1",
                          choirSchema(p->pConn), s->zTable, s->zRowid);
  rowsBind(pErr, pStmt, 1, pFrom, iFrom);
  b = !choirStep(pErr, pStmt);
  sqlite3_finalize(pStmt);
  return b;
}

static int rowsPut(ChoirErr *pErr, ChoirLogRows *p, sqlite3_stmt *pFrom,
                   int iFrom, int n, char **pzWhy) {
  int bRowid = rowsFree(pErr, p, pFrom, iFrom);
  int i, nForm = bRowid ? n : -n;
  if (p->pInsert == NULL || p->nInsert != nForm) {
    sqlite3_finalize(p->pInsert);
    p->pInsert = rowsInsert(pErr, p, n, bRowid);
    p->nInsert = nForm;
  }
  for (i = bRowid ? 0 : 1; i <= n; i++) {
    if (i == 0 || p->azPlace[i - 1]) {
      rowsBind(pErr, p->pInsert, i + 1, pFrom, iFrom + i);
    }
  }
  i = rowsRun(pErr, p, p->pInsert, pzWhy);
  return i == CHOIR_ROW_SET ? CHOIR_ROW_PUT : i;
}

static int rowsChange(ChoirErr *pErr, ChoirLogRows *p, sqlite3_stmt *pFrom,
                      int iFrom, int n, char **pzWhy) {
  int i;
  u8 *aWant = p->aMask + p->nPlace;
  if (p->pUpdate == NULL || memcmp(p->aMask, aWant, (size_t)p->nPlace) != 0) {
    sqlite3_finalize(p->pUpdate);
    memcpy(p->aMask, aWant, (size_t)p->nPlace);
    p->pUpdate = rowsUpdate(pErr, p);
  }
  for (i = 1; i <= n; i++) {
    if (p->aMask[i - 1]) {
      rowsBind(pErr, p->pUpdate, i, pFrom, iFrom + i);
    }
  }
  rowsBindKey(pErr, p, p->pUpdate, p->nPlace + 1, pFrom, iFrom);
  return rowsRun(pErr, p, p->pUpdate, pzWhy);
}

/* Marks the places that differ from the row found; returns how many. */
static int rowsDiffer(ChoirLogRows *p, sqlite3_stmt *pFrom, int iFrom, int n) {
  u8 *aWant = p->aMask + p->nPlace;
  int i, nDiffer = 0;
  memset(aWant, 0, (size_t)p->nPlace);
  for (i = 1; i <= n; i++) {
    if (p->azPlace[i - 1] && !rowsSame(p->pFind, i, pFrom, iFrom + i)) {
      aWant[i - 1] = 1;
      nDiffer++;
    }
  }
  return nDiffer;
}

/* Is the row of pFrom's key as it should be? What differs is marked; *pbHere
** says whether there is a row. */
static int rowsIsSet(ChoirErr *pErr, ChoirLogRows *p, sqlite3_stmt *pFrom,
                     int iFrom, int n, int *pbHere) {
  int nDiffer = 0;
  if (n < 0 || n > p->nPlace) { /* the images are in the file: anyone's bytes */
    choirErrSet(pErr, SQLITE_CORRUPT_VTAB,
                "an image of a row of %s has %d columns instead of %d",
                p->pShape->zTable, n, p->nPlace);
    *pbHere = 0;
    return 0;
  }
  rowsBindKey(pErr, p, p->pFind, 1, pFrom, iFrom);
  *pbHere = choirStep(pErr, p->pFind);
  if (*pbHere && n > 0) {
    nDiffer = rowsDiffer(p, pFrom, iFrom, n);
  }
  sqlite3_reset(p->pFind);
  return *pbHere ? n > 0 && nDiffer == 0 : n == 0;
}

CHOIR_PRIVATE int choirLogRowIs(ChoirErr *pErr, ChoirLogRows *p,
                                sqlite3_stmt *pFrom, int iFrom, int n) {
  int bHere;
  return rowsIsSet(pErr, p, pFrom, iFrom, n, &bHere);
}

CHOIR_PRIVATE int choirLogRowSet(ChoirErr *pErr, ChoirLogRows *p,
                                 sqlite3_stmt *pFrom, int iFrom, int n,
                                 char **pzWhy) {
  int e, bHere = 0;
  if (pErr->rc != SQLITE_OK || rowsIsSet(pErr, p, pFrom, iFrom, n, &bHere) ||
      pErr->rc != SQLITE_OK) {
    return CHOIR_ROW_SAME;
  }
  if (n == 0) {
    rowsBindKey(pErr, p, p->pDelete, 1, pFrom, iFrom);
    e = rowsRun(pErr, p, p->pDelete, pzWhy);
  } else {
    e = bHere ? rowsChange(pErr, p, pFrom, iFrom, n, pzWhy)
              : rowsPut(pErr, p, pFrom, iFrom, n, pzWhy);
  }
  if (e != CHOIR_ROW_REFUSED && sqlite3_changes(p->pConn->db) == 0 &&
      !rowsIsSet(pErr, p, pFrom, iFrom, n, &bHere)) {
    *pzWhy = *pzWhy ? *pzWhy : choirMprintf(pErr, "a trigger ignores it");
    return CHOIR_ROW_REFUSED;
  }
  return e;
}
