/* SPDX-License-Identifier: MIT */
/*
** Exact search without an index: every vector of a column is compared with the
** query and the k nearest are kept.
**
**   SELECT rowid, distance FROM vec_scan('docs', 'embedding', ?1, 10)
**
** Reads the table through one statement of its own, whose WHERE clause feeds
** the rows to vec_scan_feed(); owns nothing in the file.
** Each vector is used where SQLite puts it, in the first-level cache. Memory is
** k hits of 16 bytes.
*/
#include "index.h"
#include <math.h>

/* ------------------------------------------------------------- the heap */

/* Does hit a come after hit b? A distance that is not a number is last. */
static inline int scanAfter(const ChoirHit *a, const ChoirHit *b) {
  if (a->rDist < b->rDist) {
    return 0;
  }
  if (a->rDist > b->rDist) {
    return 1;
  }
  if (isnan(a->rDist) != isnan(b->rDist)) {
    return isnan(a->rDist);
  }
  return a->iRowid > b->iRowid;
}

/* Puts hit at i, or below it where its children come after it. */
static void scanSink(ChoirHit *aHit, i64 nHit, i64 i, ChoirHit hit) {
  i64 iChild;
  while ((iChild = 2 * i + 1) < nHit) {
    iChild += iChild + 1 < nHit && scanAfter(&aHit[iChild + 1], &aHit[iChild]);
    if (!scanAfter(&aHit[iChild], &hit)) {
      break;
    }
    aHit[i] = aHit[iChild];
    i = iChild;
  }
  aHit[i] = hit;
}

static void scanPush(ChoirScan *p, ChoirErr *pErr, ChoirHit hit) {
  i64 i;
  if (p->nHit == p->nAlloc) {
    i64 nNew = p->nAlloc ? p->nAlloc * 2 : 64;
    ChoirHit *a = choirRealloc(pErr, p->aHit, (u64)nNew * sizeof(*a));
    if (a == NULL) {
      return;
    }
    p->aHit = a;
    p->nAlloc = nNew;
  }
  for (i = p->nHit++; i > 0 && scanAfter(&hit, &p->aHit[(i - 1) / 2]);
       i = (i - 1) / 2) {
    p->aHit[i] = p->aHit[(i - 1) / 2];
  }
  p->aHit[i] = hit;
}

CHOIR_PRIVATE void choirScanSort(ChoirScan *p) {
  i64 n;
  for (n = p->nHit - 1; n > 0; n--) {
    ChoirHit last = p->aHit[n];
    p->aHit[n] = p->aHit[0];
    scanSink(p->aHit, n, 0, last);
  }
}

CHOIR_PRIVATE void choirScanFree(ChoirScan *p) {
  sqlite3_free(p->aHit);
  memset(p, 0, sizeof(*p));
}

/* ------------------------------------------------------------ the rows */

CHOIR_PRIVATE void choirScanInit(ChoirScan *p, ChoirConn *pConn, ChoirErr *pErr,
                                 int eMetric, int eType, const void *aQuery,
                                 i64 nDim, i64 k) {
  memset(p, 0, sizeof(*p));
  choirVecAllows(pErr, eMetric, eType);
  if (k < 1 || k > CHOIR_SCAN_MAX) {
    choirErrSet(pErr, SQLITE_ERROR, "k must be 1 to %d, got %lld",
                CHOIR_SCAN_MAX, k);
  }
  p->pKern = choirVecKern(pConn);
  p->eMetric = eMetric;
  p->eType = eType;
  p->aQuery = aQuery;
  p->nDim = nDim;
  p->nByte = eType == VEC_BIT  ? nDim / 8
             : eType == VEC_I8 ? nDim
                               : nDim * (eType == VEC_F32 ? 4 : 2);
  p->qq = -1;
  p->k = k;
  if (pErr->rc == SQLITE_OK && eMetric == VEC_COSINE) {
    p->qq = choirVecNorm2(p->pKern, eType, aQuery, nDim);
  }
}

static void scanWrongSize(const ChoirScan *p, ChoirErr *pErr, i64 iRowid,
                          i64 nByte) {
  i64 nDim = choirVecDim(p->eType, nByte);
  if (nDim < 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "row %lld has %lld bytes, which is no %s vector; state the"
                " type of the column",
                iRowid, nByte, choirVecTypeName(p->eType));
  } else {
    choirErrSet(pErr, SQLITE_ERROR,
                "row %lld has %lld dimensions, the query has %lld", iRowid,
                nDim, p->nDim);
  }
}

CHOIR_PRIVATE void choirScanRow(ChoirScan *p, ChoirErr *pErr, i64 iRowid,
                                const void *a, i64 nByte) {
  ChoirHit hit;
  if (nByte != p->nByte || a == NULL) {
    scanWrongSize(p, pErr, iRowid, nByte);
    return;
  }
  p->nRow++;
  hit.iRowid = iRowid;
  hit.rDist = choirVecDistance(p->pKern, p->eMetric, p->eType, p->aQuery, a,
                               p->nDim, p->qq);
  if (p->nHit < p->k) {
    scanPush(p, pErr, hit);
  } else if (scanAfter(&p->aHit[0], &hit)) {
    scanSink(p->aHit, p->nHit, 0, hit);
  }
}

/* One row as SQL values: NULL is skipped, text is read as JSON. */
static void scanValue(ChoirScan *p, ChoirErr *pErr, i64 iRowid,
                      sqlite3_value *pValue) {
  int eType = sqlite3_value_type(pValue);
  i64 nByte = eType == SQLITE_BLOB ? sqlite3_value_bytes(pValue) : 0;
  ChoirVec v;
  if (eType == SQLITE_BLOB &&
      (!CHOIR_BIG_ENDIAN || choirVecDim(p->eType, nByte) != p->nDim)) {
    choirScanRow(p, pErr, iRowid, sqlite3_value_blob(pValue), nByte);
  } else if (eType == SQLITE_TEXT || eType == SQLITE_BLOB) {
    choirVecArgAs(pErr, &v, pValue, p->eType,
                  eType == SQLITE_TEXT ? "text" : "vector");
    if (pErr->rc == SQLITE_OK) {
      choirScanRow(p, pErr, iRowid, v.a, v.nByte);
    } else if (pErr->zMsg) {
      char *z = sqlite3_mprintf("row %lld: %s", iRowid, pErr->zMsg);
      sqlite3_free(pErr->zMsg);
      pErr->zMsg = z;
    }
    choirVecFree(&v);
  } else if (eType != SQLITE_NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "row %lld holds %s, not a vector", iRowid,
                eType == SQLITE_INTEGER ? "an integer" : "a real");
  }
}

CHOIR_PRIVATE void choirScanStmt(ChoirScan *p, ChoirErr *pErr,
                                 sqlite3_stmt *pStmt) {
  while (choirStep(pErr, pStmt)) {
    /* Every sqlite3_column_…() takes the connection's mutex: one look-up for
    ** the value, not one each for its type, bytes and length. */
    sqlite3_value *v = sqlite3_column_value(pStmt, 1);
    scanValue(p, pErr, sqlite3_column_int64(pStmt, 0), v);
  }
}

/* ----------------------------------------------------------- the table */

static int scanIsTable(sqlite3 *db, const char *zSchema, const char *zTable) {
  return sqlite3_table_column_metadata(db, zSchema, zTable, NULL, NULL, NULL,
                                       NULL, NULL, NULL) == SQLITE_OK;
}

/* Why there is no such table: a view has the name, or nothing has. */
static void scanNoTable(ChoirConn *pConn, ChoirErr *pErr, const char *zName) {
  int i, bView = 0;
  const char *zSchema;
  for (i = 0; (zSchema = sqlite3_db_name(pConn->db, i)) != NULL && !bView;
       i++) {
    size_t n = strlen(zSchema);
    char *zSql = choirMprintf(pErr,
                              "SELECT 1 FROM \"%w\".sqlite_schema WHERE"
                              " type='view' AND name=?1 COLLATE NOCASE",
                              zSchema);
    sqlite3_stmt *pStmt = zSql ? choirPrepare(pConn, pErr, zSql) : NULL;
    int bPrefix =
        sqlite3_strnicmp(zName, zSchema, (int)n) == 0 && zName[n] == '.';
    choirBindText(pErr, pStmt, 1, bPrefix ? zName + n + 1 : zName, -1);
    bView = choirStep(pErr, pStmt);
    sqlite3_finalize(pStmt);
    sqlite3_free(zSql);
  }
  choirErrSet(pErr, SQLITE_ERROR,
              bView ? "'%s' is a view; name the table under it"
                    : "no table '%s'",
              zName);
}

/* The schema of zName, and where its table's name starts: the workspace's
** schema first, then temp and the others; or schema.table spelt out. */
static const char *scanResolve(ChoirConn *pConn, ChoirErr *pErr,
                               const char **pzName) {
  static const int aFirst[] = {1, 0}; /* temp hides main, as in SQL */
  sqlite3 *db = pConn->db;
  const char *zName = *pzName, *zSchema = choirSchema(pConn);
  int i;
  if (pErr->rc != SQLITE_OK || scanIsTable(db, zSchema, zName)) {
    return zSchema;
  }
  for (i = 0; (zSchema = sqlite3_db_name(db, i < 2 ? aFirst[i] : i)) != NULL;
       i++) {
    size_t n = strlen(zSchema);
    if (scanIsTable(db, zSchema, zName)) {
      return zSchema;
    }
    if (sqlite3_strnicmp(zName, zSchema, (int)n) == 0 && zName[n] == '.' &&
        scanIsTable(db, zSchema, zName + n + 1)) {
      *pzName = zName + n + 1;
      return zSchema;
    }
  }
  scanNoTable(pConn, pErr, zName);
  return NULL;
}

#define SCAN_ROWID 3

/* Checks the column and finds the name under which the rowid can be read: a
** column of the user may be called rowid. */
static const char *scanRowidName(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zSchema, const char *zTable,
                                 const char *zColumn) {
  static const char *const azRowid[SCAN_ROWID] = {"rowid", "_rowid_", "oid"};
  int i, bFound = 0;
  u32 mTaken = 0;
  char *zSql =
      choirMprintf(pErr, "PRAGMA \"%w\".table_xinfo(\"%w\")", zSchema, zTable);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(pConn, pErr, zSql) : NULL;
  while (choirStep(pErr, pStmt)) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 1);
    bFound |= z && sqlite3_stricmp(z, zColumn) == 0;
    for (i = 0; i < SCAN_ROWID && z; i++) {
      mTaken |= (u32)(sqlite3_stricmp(z, azRowid[i]) == 0) << i;
    }
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  if (!bFound) {
    choirErrSet(pErr, SQLITE_ERROR, "table '%s' has no column '%s'", zTable,
                zColumn);
  }
  for (i = 0; i < SCAN_ROWID; i++) {
    if (!(mTaken >> i & 1)) {
      if (sqlite3_table_column_metadata(pConn->db, zSchema, zTable, azRowid[i],
                                        NULL, NULL, NULL, NULL,
                                        NULL) != SQLITE_OK) {
        break;
      }
      return azRowid[i];
    }
  }
  choirErrSet(pErr, SQLITE_ERROR, "table '%s' has no rowid%s", zTable,
              i < SCAN_ROWID ? " (WITHOUT ROWID)" : " that can be named");
  return NULL;
}

/* zFmt with the rowid's name, the column, the schema and the table; the caller
** finalizes. */
static sqlite3_stmt *scanPrepare(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zFmt, const char *zName,
                                 const char *zColumn) {
  sqlite3_stmt *pStmt = NULL;
  const char *zSchema = scanResolve(pConn, pErr, &zName);
  if (pErr->rc == SQLITE_OK) {
    const char *zRowid = scanRowidName(pConn, pErr, zSchema, zName, zColumn);
    char *zSql = choirMprintf(pErr, zFmt, zRowid, zColumn, zSchema, zName);
    choirErrDb(pErr, pConn->db,
               zSql ? sqlite3_prepare_v2(pConn->db, zSql, -1, &pStmt, NULL)
                    : SQLITE_OK);
    sqlite3_free(zSql);
  }
  return pStmt;
}

/* ------------------------------------------------------------ feeding */

/* What vec_scan_feed() works on, handed to it as a pointer value. */
typedef struct ScanFeed {
  ChoirScan *pScan;
  ChoirErr *pErr;
  u8 bCalled;
} ScanFeed;

#define SCAN_FEED "choir_scan_feed"

/*
** SQL: vec_scan_feed(state, rowid, vector) -> INTEGER
**
** The inner loop of vec_scan, which hands it a state that SQL cannot make;
** there is no other use for it.
**
** vec_scan runs SELECT 1 FROM table WHERE vec_scan_feed(…), which never has a
** row: the loop stays inside one step, a tenth faster than a step a row.
**
** Errors: always, unless vec_scan calls it.
**
** > SELECT vec_scan_feed(NULL, 1, x'00000000')
** ! vec_scan_feed: only vec_scan calls this function
*/
static void scanFeed(ChoirCall *p) {
  ScanFeed *pFeed = sqlite3_value_pointer(p->apArg[0], SCAN_FEED);
  if (pFeed == NULL) {
    choirErrSet(&p->err, SQLITE_ERROR, "only vec_scan calls this function");
    return;
  }
  pFeed->bCalled = 1;
  scanValue(pFeed->pScan, pFeed->pErr, sqlite3_value_int64(p->apArg[1]),
            p->apArg[2]);
  if (pFeed->pErr->rc != SQLITE_OK) {
    choirErrSet(&p->err, SQLITE_ERROR, "stopped"); /* vec_scan knows why */
  }
  sqlite3_result_int(p->pCtx, 0);
}

/* Shows the scan every row of the table. */
static void scanTable(ChoirScan *p, ChoirConn *pConn, ChoirErr *pErr,
                      const char *zTable, const char *zColumn) {
  ScanFeed feed = {p, pErr, 0};
  sqlite3_stmt *pStmt =
      scanPrepare(pConn, pErr,
                  "SELECT 1 FROM (SELECT %s AS i, \"%w\" AS v FROM"
                  " \"%w\".\"%w\") WHERE vec_scan_feed(?1, i, v)",
                  zTable, zColumn);
  if (pStmt) {
    choirErrDb(pErr, pConn->db,
               sqlite3_bind_pointer(pStmt, 1, &feed, SCAN_FEED, NULL));
    choirStep(pErr, pStmt);
    sqlite3_finalize(pStmt);
  }
  if (!feed.bCalled && pErr->rc == SQLITE_OK) {
    /* No rows, or the host has a function of that name: row by row. */
    pStmt = scanPrepare(pConn, pErr, "SELECT %s, \"%w\" FROM \"%w\".\"%w\"",
                        zTable, zColumn);
    choirScanStmt(p, pErr, pStmt);
    sqlite3_finalize(pStmt);
  }
}

/* -------------------------------------------------------- the function */

typedef struct ScanCursor {
  ChoirCursor base;
  ChoirVec query;
  ChoirScan scan;
} ScanCursor;

enum { SCAN_TABLE, SCAN_COLUMN, SCAN_QUERY, SCAN_K, SCAN_METRIC, SCAN_TYPE };

/*
** SQL: vec_scan(table, column, query, k[, metric[, type]])
**   -> TABLE(rowid, distance, rank)
**
** The k rows of a table whose vectors are nearest to the query, nearest first:
** exact, without an index, in one pass.
**
**   table   TEXT, a table of any attached database; 'schema.table' says which
**   column  TEXT, its column of vectors: blobs or JSON text
**   query   TEXT (JSON) or BLOB, as many elements as the column's vectors
**   k       INTEGER, 1 to 1000000
**   metric  TEXT, cosine (default), l2, dot, l1, hamming (default for bit)
**   type    TEXT, what the column holds: float32, float16, bfloat16, int8 or
**           bit; by default what the query is (vec_int8(x): int8)
**
** distance is what vec_distance_cosine and its siblings give; rank counts from
** 1. Equal distances are in the order of rowids. A row without a distance (a
** vector of length 0 under cosine) comes last, with NULL.
** NULL: rows with NULL in the column are skipped; a NULL argument is an error.
** Errors: no such table or column; a view; a table WITHOUT ROWID; a row that is
** not a vector of the query's length (its rowid and both lengths are given).
**
** > CREATE TABLE docs(name, v); INSERT INTO docs VALUES
** >   ('east', vec_f32('[1, 0]')), ('north', vec_f32('[0, 1]')), ('?', NULL);
** > SELECT rowid, distance, rank FROM vec_scan('docs', 'v', '[2, 0]', 10)
** = 1|0.0|1
** = 2|1.0|2
** > SELECT rowid FROM vec_scan('nothing', 'v', '[2, 0]', 10)
** ! vec_scan: no table 'nothing'
*/
static void scanFilter(ChoirCursor *pCur) {
  ScanCursor *p = (ScanCursor *)pCur;
  ChoirErr *pErr = &pCur->err;
  const char *zTable = choirArgText(pErr, pCur->apArg[SCAN_TABLE], "table");
  const char *zColumn = choirArgText(pErr, pCur->apArg[SCAN_COLUMN], "column");
  i64 k = choirArgInt(pErr, pCur->apArg[SCAN_K], "k", 1, CHOIR_SCAN_MAX);
  const char *zMetric =
      choirArgTextOrNull(pErr, pCur->apArg[SCAN_METRIC], "metric");
  const char *zType = choirArgTextOrNull(pErr, pCur->apArg[SCAN_TYPE], "type");
  int eMetric;
  if (zType) {
    choirVecArgAs(pErr, &p->query, pCur->apArg[SCAN_QUERY],
                  choirVecTypeOf(pErr, zType), "query");
  } else {
    choirVecArg(pErr, &p->query, pCur->apArg[SCAN_QUERY], "query");
  }
  eMetric = zMetric                     ? choirVecMetricOf(pErr, zMetric)
            : p->query.eType == VEC_BIT ? VEC_HAMMING
                                        : VEC_COSINE;
  choirScanInit(&p->scan, pCur->pConn, pErr, eMetric, p->query.eType,
                p->query.a, p->query.nDim, k);
  scanTable(&p->scan, pCur->pConn, pErr, zTable, zColumn);
  choirScanSort(&p->scan);
  pCur->bEof = p->scan.nHit == 0;
}

static void scanNext(ChoirCursor *pCur) {
  pCur->bEof = pCur->iRow >= ((ScanCursor *)pCur)->scan.nHit;
}

static void scanColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int iCol) {
  const ChoirHit *pHit = &((ScanCursor *)pCur)->scan.aHit[pCur->iRow];
  if (iCol == 1) {
    sqlite3_result_double(pCtx, pHit->rDist);
  } else {
    sqlite3_result_int64(pCtx, iCol == 0 ? pHit->iRowid : pCur->iRow + 1);
  }
}

static void scanReset(ChoirCursor *pCur) {
  choirScanFree(&((ScanCursor *)pCur)->scan);
  choirVecFree(&((ScanCursor *)pCur)->query);
}

static const ChoirTvf aScanTvf[] = {
    {"vec_scan",
     "rowid, distance, rank, table_name HIDDEN, column_name HIDDEN,"
     " query HIDDEN, k HIDDEN, metric HIDDEN, type HIDDEN",
     3, 4, 6, CHOIR_READ, CHOIR_SUBTYPE, sizeof(ScanCursor), scanFilter,
     scanNext, scanColumn, scanReset},
};

static const ChoirFunc aScanFunc[] = {
    {"vec_scan_feed", 3, 3, CHOIR_READ, CHOIR_INNER, scanFeed, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirIndexRegister(ChoirConn *pConn,
                                                 ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aScanFunc);
  choirTvfs(pConn, pErr, aScanTvf);
  choirIndexSqlRegister(pConn, pErr);
}
