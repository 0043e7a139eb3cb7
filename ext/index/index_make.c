/* SPDX-License-Identifier: MIT */
/*
** Making an index, taking it away, and putting pending rows where they belong.
**
** Owns in the file: _choir_vec, a row an index, and for index x the tables
** _choir_vec_x_list, _choir_vec_x_seg, _choir_vec_x_pending and the triggers
** _choir_vec_x_insert, _update, _delete on the user's table. docs/formats.md
** has their columns.
*/
#include "index.h"
#include <math.h>
#include <stdlib.h>

#define MAKE_SAMPLE 2048         /* rows for the mean and the scale */
#define MAKE_TRIES 512           /* queries for the calibration, fewer … */
#define MAKE_WORK ((i64)1 << 29) /* … where they look at more codes */
#define MAKE_READ ((i64)1 << 18) /* … or read more vectors */
#define MAKE_FAR 1e15            /* the farthest that is written down */
#define MAKE_SHOWN 20            /* queries for the recall that is shown */
#define MAKE_PROBE_K 10
#define MAKE_NAME 60 /* bytes of a name, at most */

/* ----------------------------------------------------------- the table */

/* One vector in the middle of things: the row at or after rowid i. */
static int makeRowAt(ChoirIndex *p, ChoirErr *pErr, sqlite3_stmt *pStmt, i64 i,
                     float *aRot) {
  int bGood = 0;
  choirBindInt(pErr, pStmt, 1, i);
  if (choirStep(pErr, pStmt) && sqlite3_column_type(pStmt, 1) != SQLITE_NULL) {
    const void *a = choirIndexVector(p, pErr, sqlite3_column_int64(pStmt, 0),
                                     sqlite3_column_value(pStmt, 1));
    bGood = a && choirCodeRotate(&p->code, a, aRot);
  }
  sqlite3_reset(pStmt);
  return bGood;
}

static i64 makeBound(ChoirIndex *p, ChoirErr *pErr, const char *zWhich) {
  char *zSql = choirMprintf(pErr, "SELECT %s(\"%w\") FROM \"%w\".\"%w\"",
                            zWhich, p->zPk, p->zSchema, p->zTable);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  i64 i = choirStep(pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  return i;
}

/* The mean of a sample, rotated, and the power of two that brings the usual
** distance from it to about 1. */
static void makeMean(ChoirIndex *p, ChoirErr *pErr) {
  size_t nPad = p->code.nPad, j;
  float *aRot = choirMalloc(pErr, nPad * sizeof(float));
  i64 iMin = makeBound(p, pErr, "min"), iMax = makeBound(p, pErr, "max");
  char *zSql =
      choirMprintf(pErr,
                   "SELECT \"%w\", \"%w\" FROM \"%w\".\"%w\""
                   " WHERE \"%w\">=?1 ORDER BY \"%w\" LIMIT 1",
                   p->zPk, p->zColumn, p->zSchema, p->zTable, p->zPk, p->zPk);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  double rSum = 0, rStep = ((double)iMax - (double)iMin + 1) / MAKE_SAMPLE;
  i64 i, n = 0;
  for (i = 0; i < MAKE_SAMPLE && pErr->rc == SQLITE_OK; i++) {
    if (makeRowAt(p, pErr, pStmt, iMin + (i64)((double)i * rStep), aRot)) {
      n++;
      for (j = 0; j < nPad; j++) {
        p->aMean[j] += aRot[j];
      }
    }
  }
  for (j = 0; n && j < nPad; j++) {
    p->aMean[j] /= (float)n;
  }
  for (i = 0; i < 64 && pErr->rc == SQLITE_OK; i++) {
    if (makeRowAt(p, pErr, pStmt,
                  iMin + (i64)((double)(i * MAKE_SAMPLE / 64) * rStep), aRot)) {
      rSum +=
          log2(1e-20 + p->code.pKern->a[KERN_F32].xL2(aRot, p->aMean, nPad));
    }
  }
  p->rScale = n ? exp2(-rint(fmax(-60, fmin(60, rSum / 128)))) : 1.0;
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  sqlite3_free(aRot);
}

/* Dimensions of the first vector of the column, 0 when there is none. */
static i64 makeDim(ChoirIndex *p, ChoirErr *pErr, int eType) {
  char *zSql = choirMprintf(pErr,
                            "SELECT \"%w\", length(\"%w\"), typeof(\"%w\")"
                            " FROM \"%w\".\"%w\""
                            " WHERE \"%w\" IS NOT NULL LIMIT 1",
                            p->zPk, p->zColumn, p->zColumn, p->zSchema,
                            p->zTable, p->zColumn);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  i64 nDim = 0;
  if (choirStep(pErr, pStmt)) {
    const char *zType = (const char *)sqlite3_column_text(pStmt, 2);
    i64 nByte = sqlite3_column_int64(pStmt, 1);
    nDim = choirVecDim(eType, nByte);
    if (zType == NULL || strcmp(zType, "blob") != 0) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "row %lld of '%s' holds %s, not a vector; store a blob, as"
                  " vec_f32() makes it",
                  sqlite3_column_int64(pStmt, 0), p->zTable,
                  zType ? zType : "nothing");
    } else if (nDim < 1) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "row %lld of '%s' has %lld bytes, which is no %s vector;"
                  " state the type of the column",
                  sqlite3_column_int64(pStmt, 0), p->zTable, nByte,
                  choirVecTypeName(eType));
    }
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  return nDim;
}

static void makeHasColumn(ChoirIndex *p, ChoirErr *pErr, const char *zColumn) {
  char *zSql = choirMprintf(pErr, "PRAGMA \"%w\".table_info(\"%w\")",
                            p->zSchema, p->zTable);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  int bHave = 0;
  while (choirStep(pErr, pStmt)) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 1);
    bHave |= z && sqlite3_stricmp(z, zColumn) == 0;
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  if (!bHave) {
    choirErrSet(pErr, SQLITE_ERROR, "table '%s' has no stored column '%s'",
                p->zTable, zColumn);
  }
}

/* --------------------------------------------------------------- names */

static void makeName(ChoirErr *pErr, const char *zName) {
  const char *z;
  for (z = zName; *z; z++) {
    if (!((*z >= 'a' && *z <= 'z') || (*z >= 'A' && *z <= 'Z') || *z == '_' ||
          (*z >= '0' && *z <= '9'))) {
      break;
    }
  }
  if (*z || z == zName || z - zName > MAKE_NAME) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the name of an index is 1 to %d letters, digits or '_', got"
                " '%s'",
                MAKE_NAME, zName);
  }
}

static void makeNotView(ChoirIndex *p, ChoirErr *pErr) {
  char *zSql = choirMprintf(pErr,
                            "SELECT type='view' OR sql LIKE 'CREATE VIRTUAL%%'"
                            " FROM \"%w\".sqlite_schema WHERE name=%Q"
                            " COLLATE NOCASE AND type IN ('table', 'view')",
                            p->zSchema, p->zTable);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  if (choirStep(pErr, pStmt) && sqlite3_column_int(pStmt, 0)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "'%s' is a view or a virtual table; index an ordinary table",
                p->zTable);
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  if (strstr(p->zTable, "~.") || strstr(p->zColumn, "~.") ||
      (p->zPart && strstr(p->zPart, "~."))) {
    choirErrSet(pErr, SQLITE_ERROR, "a name with '~.' cannot be indexed");
  }
}

/* ------------------------------------------------------------ rows, all */

/* Rowids, with their partitions if there are any, in order of both. */
static char *makeFillSql(const ChoirIndex *p, ChoirErr *pErr, int bPending) {
  ChoirBuf b;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "SELECT \"%w\"", p->zPk);
  if (p->zPart) {
    choirBufPrintf(&b, ", \"%w\"", p->zPart);
  }
  choirBufPrintf(&b, " FROM \"%w\".\"%w\" WHERE \"%w\" IS NOT NULL", p->zSchema,
                 p->zTable, p->zColumn);
  if (bPending) {
    choirBufPrintf(&b,
                   " AND \"%w\" IN (SELECT id FROM"
                   " \"%w\".\"_choir_vec_%w_pending\")",
                   p->zPk, p->zSchema, p->zName);
  }
  choirBufText(&b, p->zPart ? " ORDER BY 2, 1" : " ORDER BY 1");
  return choirBufTake(&b);
}

/* Every row of the table, partition by partition, into new lists; bPending:
** the pending ones, into the lists there are. */
static void makeFill(ChoirIndex *p, ChoirErr *pErr, ChoirWrite *w, int bPending,
                     int bAll) {
  char *zSql = makeFillSql(p, pErr, bPending);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  sqlite3_stmt *pSame = choirPrepare(p->pConn, pErr, "SELECT ?1 IS ?2");
  sqlite3_value *pPart = NULL;
  ChoirBuf b;
  int bRow = choirStep(pErr, pStmt);
  choirBufInit(&b, pErr, (u64)1 << 36);
  while (bRow && pErr->rc == SQLITE_OK) {
    i64 iRowid = sqlite3_column_int64(pStmt, 0);
    int bSame = 1;
    choirBufAppend(&b, &iRowid, sizeof(iRowid));
    if (p->zPart && pPart == NULL) {
      pPart = sqlite3_value_dup(sqlite3_column_value(pStmt, 1));
    }
    bRow = choirStep(pErr, pStmt);
    if (bRow && p->zPart) {
      choirBindValue(pErr, pSame, 1, pPart);
      choirBindValue(pErr, pSame, 2, sqlite3_column_value(pStmt, 1));
      bSame = choirStep(pErr, pSame) && sqlite3_column_int(pSame, 0);
      sqlite3_reset(pSame);
    }
    if ((!bRow || !bSame) && pErr->rc == SQLITE_OK) {
      const i64 *aId = (const i64 *)(void *)b.a;
      i64 n = (i64)(b.n / sizeof(i64));
      if (bPending) {
        choirWriteRows(w, aId, n, pPart);
      } else {
        choirWriteNew(w, aId, n, pPart, choirWriteLists(p, n, bAll));
      }
      b.n = 0;
      sqlite3_value_free(pPart);
      pPart = NULL;
    }
  }
  sqlite3_value_free(pPart);
  choirBufFree(&b);
  sqlite3_finalize(pSame);
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
}

/* -------------------------------------------------------- calibration */

/* The vector of row i, as the lists come one after the other, into the fetch;
** its rowid in *piRowid. */
static int makeSample(ChoirIndex *p, ChoirErr *pErr, ChoirFetch *pFetch, i64 i,
                      i64 *piRowid) {
  sqlite3_stmt *pStmt;
  i64 iList = 0, iFirst, nSeg, nRow;
  int bHave = 0;
  while (iList < p->nList && i >= p->aList[iList].n) {
    i -= p->aList[iList++].n;
  }
  if (iList == p->nList) {
    return 0;
  }
  iFirst = p->aList[iList].iId << INDEX_SEG_BITS;
  pStmt = choirIndexStmt(p, pErr, INDEX_SQL_SEG_COUNT);
  choirBindInt(pErr, pStmt, 1, iFirst);
  choirBindInt(pErr, pStmt, 2, iFirst + ((i64)1 << INDEX_SEG_BITS) - 1);
  nSeg = choirStep(pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  choirStmtDone(p->pConn, pStmt);
  pStmt = choirIndexStmt(p, pErr, INDEX_SQL_LAST);
  choirBindInt(pErr, pStmt, 1, iFirst);
  choirBindInt(pErr, pStmt, 2,
               iFirst +
                   (i64)((double)nSeg * (double)i / (double)p->aList[iList].n));
  if (choirStep(pErr, pStmt)) {
    const u8 *a = choirIndexSeg(p, pErr, pStmt, &nRow);
    if (a) {
      i = i * 7919 % nRow;
      *piRowid = choirCodeRowid(&p->code, a, i);
      bHave = 1;
    }
  }
  choirStmtDone(p->pConn, pStmt);
  return bHave && choirFetchRow(pFetch, pErr, *piRowid);
}

/* Row n of a sample without an end, of which every beginning is spread evenly
** over all rows. */
static i64 makeSpread(const ChoirIndex *p, i64 n) {
  u64 i = (u64)n * 0x9e3779b97f4a7c15u >> 11;
  return (i64)((double)i * 0x1p-53 * (double)p->nRow);
}

static int makeFarOrder(const void *pA, const void *pB) {
  float a = *(const float *)pA, b = *(const float *)pB;
  return a < b ? -1 : a > b;
}

/* How far lists have to be looked at for each of choirIndexRecall, as rows of
** the index find their neighbours, themselves excluded. What is promised is to
** hold for other queries too: in the sample the share is to be higher by its
** standard error, as if a query found all of its neighbours or none. */
static void makeCalibrate(ChoirIndex *p, ChoirErr *pErr, ChoirBuf *pOut) {
  i64 nTry = MAKE_WORK / (p->nRow + 1), nHit = 0, nRead = 0, n;
  u8 *aVec = choirMalloc(pErr, (u64)p->code.nVec);
  float *arFar;
  ChoirFetch fetch;
  int iRecall;
  nTry = nTry < MAKE_TRIES / 8 ? MAKE_TRIES / 8 : nTry;
  nTry = nTry > MAKE_TRIES ? MAKE_TRIES : nTry;
  nTry = nTry > p->nRow ? p->nRow : nTry;
  arFar = choirMalloc(pErr, (u64)(nTry * MAKE_PROBE_K) * sizeof(float));
  choirIndexFetch(p, &fetch, aVec);
  for (n = 0; n < nTry && nRead < MAKE_READ && pErr->rc == SQLITE_OK; n++) {
    ChoirSearch s = {.aQuery = aVec,
                     .k = MAKE_PROBE_K,
                     .nProbe = p->nCentre,
                     .rRecall = choirIndexRecall(INDEX_PROBES - 1),
                     .rMost = INFINITY,
                     .bBut = 1,
                     .arFar = arFar + nHit};
    ChoirScan scan;
    memset(&scan, 0, sizeof(scan));
    if (makeSample(p, pErr, &fetch, makeSpread(p, n), &s.iBut)) {
      choirFetchEnd(&fetch);
      choirIndexSearch(p, pErr, &s, &scan);
    }
    nHit += scan.nHit;
    nRead += scan.nRow;
    choirScanFree(&scan);
  }
  choirFetchEnd(&fetch);
  if (nHit > 0 && pErr->rc == SQLITE_OK) {
    qsort(arFar, (size_t)nHit, sizeof(float), makeFarOrder);
    for (iRecall = 0; iRecall < INDEX_PROBES; iRecall++) {
      double r = choirIndexRecall(iRecall);
      i64 i;
      r += sqrt(r * (1 - r) / (double)n);
      i = (i64)fmin(ceil(r * (double)nHit), (double)nHit) - 1;
      r = ceil((double)arFar[i] * p->rScale * INDEX_REACH);
      r = fmin(fmax(r, 0), MAKE_FAR); /* centres may be damaged */
      choirBufPrintf(pOut, "%s%lld", iRecall ? " " : "", (i64)r);
    }
  }
  sqlite3_free(arFar);
  sqlite3_free(aVec);
}

static void makeProbes(ChoirConn *pConn, ChoirErr *pErr, const char *zName) {
  sqlite3_stmt *pHold;
  ChoirIndex *p = choirIndexOpen(pConn, pErr, zName, &pHold);
  ChoirBuf b;
  choirStmtDone(pConn, pHold);
  choirBufInit(&b, pErr, 1000);
  if (p && p->nCentre > 0) {
    makeCalibrate(p, pErr, &b);
    choirExec(pConn, pErr,
              "UPDATE \"%w\"._choir_vec SET probes=%Q, gen=random()"
              " WHERE name=%Q",
              p->zSchema, b.n ? b.a : NULL, p->zName);
    p->bKnown = 0;
  }
  choirBufFree(&b);
}

/* -------------------------------------------------------------- create */

static void makeTables(ChoirIndex *p, ChoirErr *pErr,
                       const ChoirIndexOptions *pOpt, i64 nDim) {
  const char *zSchema = p->zSchema, *zName = p->zName;
  choirExec(p->pConn, pErr,
            "CREATE TABLE IF NOT EXISTS \"%w\"._choir_vec("
            "name TEXT PRIMARY KEY NOT NULL, format INTEGER, tbl TEXT,"
            " col TEXT, part TEXT, dim INTEGER, type TEXT, metric TEXT,"
            " mode TEXT, seed INTEGER, scale REAL, rows INTEGER, top INTEGER,"
            " probes TEXT, gen INTEGER, mean BLOB) WITHOUT ROWID",
            zSchema);
  choirExec(p->pConn, pErr,
            "CREATE TABLE \"%w\".\"_choir_vec_%w_list\"(id INTEGER PRIMARY KEY,"
            " part, n INTEGER, gen INTEGER, stuck INTEGER, centre BLOB);"
            "CREATE TABLE \"%w\".\"_choir_vec_%w_seg\"(id INTEGER PRIMARY KEY,"
            " n INTEGER, block BLOB);"
            "CREATE TABLE \"%w\".\"_choir_vec_%w_pending\"("
            "seq INTEGER PRIMARY KEY, id INTEGER, mark INTEGER)",
            zSchema, zName, zSchema, zName, zSchema, zName);
  if (pOpt->zPart) {
    choirExec(p->pConn, pErr,
              "CREATE INDEX \"%w\".\"_choir_vec_%w_part\""
              " ON \"_choir_vec_%w_list\"(part)",
              zSchema, zName, zName);
  }
  choirExec(p->pConn, pErr,
            "INSERT INTO \"%w\"._choir_vec(name, format, tbl, col, part, dim,"
            " type, metric, mode, seed, scale, rows, top, gen)"
            " VALUES(%Q, 1, %Q, %Q, %Q, %lld, %Q, %Q, %Q, random(), 1.0, 0,"
            " -9223372036854775808, random())",
            zSchema, zName, p->zTable, p->zColumn, p->zPart, nDim,
            choirVecTypeName(pOpt->eType), choirIndexMetricName(pOpt->eMetric),
            choirIndexModeName(pOpt->eMode));
}

static void makeTriggers(ChoirIndex *p, ChoirErr *pErr) {
  int i;
  for (i = 0; i < 3; i++) {
    char *z = choirIndexTrigger(p, pErr, i);
    /* "CREATE TRIGGER " is 15 bytes; the schema goes before the name. */
    choirExec(p->pConn, pErr, "CREATE TRIGGER \"%w\".%s", p->zSchema,
              z ? z + 15 : "");
    sqlite3_free(z);
  }
}

/* The rotated mean and the scale into the registry. */
static void makeMeanRow(ChoirIndex *p, ChoirErr *pErr, i64 iSeed) {
  size_t n = p->code.nPad * 4;
  char *zSql = choirMprintf(pErr,
                            "UPDATE \"%w\"._choir_vec SET mean=?1, scale=?2,"
                            " seed=?3, gen=random() WHERE name=%Q",
                            p->zSchema, p->zName);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  u8 *a = choirMalloc(pErr, n);
  if (a) {
    memcpy(a, p->aMean, n);
    choirLittleEndian(a, n, 4);
  }
  choirBindBlob(pErr, pStmt, 1, a, (i64)n);
  choirBindReal(pErr, pStmt, 2, p->rScale);
  choirBindInt(pErr, pStmt, 3, iSeed);
  choirStep(pErr, pStmt);
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  sqlite3_free(a);
}

/* Mean and scale from the table as it is now. p has its table's names. */
static void makeMeasure(ChoirIndex *p, ChoirErr *pErr, int eType, int eMetric,
                        i64 nDim) {
  i64 iSeed;
  sqlite3_randomness(sizeof(iSeed), &iSeed);
  choirCodeFree(&p->code);
  sqlite3_free(p->aMean);
  p->aMean = NULL;
  choirCodeInit(&p->code, pErr, choirVecKern(p->pConn), eType, eMetric, nDim,
                iSeed, 1.0);
  p->aMean = choirMalloc(pErr, p->code.nPad * sizeof(float));
  if (pErr->rc == SQLITE_OK) {
    makeMean(p, pErr);
    makeMeanRow(p, pErr, iSeed);
  }
}

/* All rows anew into empty tables; how many there are. */
static i64 makeBuild(ChoirConn *pConn, ChoirErr *pErr, const char *zName,
                     int bAll) {
  sqlite3_stmt *pHold;
  ChoirIndex *p = choirIndexOpen(pConn, pErr, zName, &pHold);
  ChoirWrite *w;
  i64 nRow;
  choirStmtDone(pConn, pHold);
  if (p == NULL) {
    return 0;
  }
  w = choirWriteBegin(p, pErr);
  if (w) {
    makeFill(p, pErr, w, 0, bAll);
    choirWriteBalance(w, 0);
  }
  choirWriteEnd(w);
  nRow = p->nRow;
  makeProbes(pConn, pErr, zName);
  return nRow;
}

CHOIR_PRIVATE i64 choirIndexCreate(ChoirConn *pConn, ChoirErr *pErr,
                                   const char *zName, const char *zTable,
                                   const char *zColumn, i64 nDim,
                                   const ChoirIndexOptions *pOpt) {
  const char *zDot = zName ? strchr(zName, '.') : NULL;
  ChoirIndex index, *p = &index;
  i64 nHave, nRow = 0;
  memset(p, 0, sizeof(*p));
  makeName(pErr, zDot ? zDot + 1 : zName ? zName : "");
  if (choirIndexFind(pConn, pErr, zName)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "there is an index '%s' already; run select"
                " vec_index_drop('%s') first",
                zName, zName);
  }
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  p->pConn = pConn;
  p->zSchema = zDot ? choirMprintf(pErr, "%.*s", (int)(zDot - zName), zName)
                    : choirMprintf(pErr, "%s", choirSchema(pConn));
  p->zName = choirMprintf(pErr, "%s", zDot ? zDot + 1 : zName);
  p->zTable = choirMprintf(pErr, "%s", zTable);
  p->zColumn = choirMprintf(pErr, "%s", zColumn);
  p->zPart = pOpt->zPart ? choirMprintf(pErr, "%s", pOpt->zPart) : NULL;
  if (pErr->rc == SQLITE_OK) {
    makeNotView(p, pErr);
    p->zPk = choirIndexKey(pConn, pErr, p->zSchema, p->zTable);
    makeHasColumn(p, pErr, p->zColumn);
    if (p->zPart) {
      makeHasColumn(p, pErr, p->zPart);
    }
  }
  nHave = pErr->rc == SQLITE_OK ? makeDim(p, pErr, pOpt->eType) : 0;
  nDim = nHave ? nHave : nDim;
  if (nDim == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "column '%s' of '%s' has no vector yet; state its dimensions:"
                " '{\"dimensions\":384}'",
                zColumn, zTable);
  } else if (nDim < 2 || nDim > INDEX_DIM_MAX) {
    choirErrSet(pErr, SQLITE_ERROR, "an index has 2 to %d dimensions, not %lld",
                INDEX_DIM_MAX, nDim);
  }
  if (pErr->rc == SQLITE_OK) {
    makeTables(p, pErr, pOpt, nDim);
    makeTriggers(p, pErr);
    makeMeasure(p, pErr, pOpt->eType, pOpt->eMetric, nDim);
    nRow = makeBuild(pConn, pErr, zName, 0);
  }
  choirIndexForget(p);
  sqlite3_free(p->zSchema);
  sqlite3_free(p->zName);
  return nRow;
}

/* ---------------------------------------------------------------- drop */

static void makeNoTriggers(const ChoirIndex *p, ChoirErr *pErr) {
  int i;
  for (i = 0; i < 3; i++) {
    choirExec(p->pConn, pErr,
              "DROP TRIGGER IF EXISTS \"%w\".\"_choir_vec_%w_%s\"", p->zSchema,
              p->zName, choirIndexEvent(i));
  }
}

CHOIR_PRIVATE void choirIndexDrop(ChoirConn *pConn, ChoirErr *pErr,
                                  const char *zName) {
  static const char *const azTable[] = {"list", "seg", "pending"};
  ChoirIndex *p = choirIndexFind(pConn, pErr, zName);
  int i;
  if (p == NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "no vector index '%s'", zName);
    return;
  }
  makeNoTriggers(p, pErr);
  for (i = 0; i < 3; i++) {
    choirExec(pConn, pErr, "DROP TABLE IF EXISTS \"%w\".\"_choir_vec_%w_%s\"",
              p->zSchema, p->zName, azTable[i]);
  }
  choirExec(pConn, pErr, "DELETE FROM \"%w\"._choir_vec WHERE name=%Q",
            p->zSchema, p->zName);
  choirIndexForget(p);
}

/* -------------------------------------------------------------- absorb */

/* The ids of pending rows, each once, ascending; caller frees. */
static i64 *makePending(ChoirIndex *p, ChoirErr *pErr, i64 *pn) {
  char *zSql = choirMprintf(pErr,
                            "SELECT DISTINCT id FROM"
                            " \"%w\".\"_choir_vec_%w_pending\" ORDER BY id",
                            p->zSchema, p->zName);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  ChoirBuf b;
  choirBufInit(&b, pErr, (u64)1 << 36);
  while (choirStep(pErr, pStmt)) {
    i64 i = sqlite3_column_int64(pStmt, 0);
    choirBufAppend(&b, &i, sizeof(i));
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  *pn = (i64)(b.n / sizeof(i64));
  return (i64 *)(void *)choirBufTake(&b);
}

static void makeAbsorb(ChoirIndex *p, ChoirErr *pErr, const i64 *aId, i64 n,
                       int bAll) {
  ChoirWrite *w = choirWriteBegin(p, pErr);
  ChoirSet set;
  i64 i;
  memset(&set, 0, sizeof(set));
  for (i = 0; i < n && aId[i] <= p->iTop; i++) {
    choirSetPut(&set, pErr, aId[i], 0);
  }
  if (w && set.n > 0) {
    choirWriteRemove(w, &set);
  }
  choirSetFree(&set);
  if (w) {
    makeFill(p, pErr, w, 1, bAll);
  }
  choirExec(p->pConn, pErr, "DELETE FROM \"%w\".\"_choir_vec_%w_pending\"",
            p->zSchema, p->zName);
  if (w) {
    choirWriteBalance(w, bAll);
  }
  choirWriteEnd(w);
}

/* After the triggers were lost nothing in the index can be trusted. */
static i64 makeAgain(ChoirIndex *p, ChoirErr *pErr, const char *zName,
                     int bAll) {
  ChoirConn *pConn = p->pConn;
  makeNoTriggers(p, pErr);
  choirExec(pConn, pErr,
            "DELETE FROM \"%w\".\"_choir_vec_%w_list\";"
            "DELETE FROM \"%w\".\"_choir_vec_%w_seg\";"
            "DELETE FROM \"%w\".\"_choir_vec_%w_pending\"",
            p->zSchema, p->zName, p->zSchema, p->zName, p->zSchema, p->zName);
  makeTriggers(p, pErr);
  if (pErr->rc == SQLITE_OK) {
    makeMeasure(p, pErr, p->code.eType, p->code.eMetric, p->code.nDim);
  }
  p->bKnown = 0;
  return makeBuild(pConn, pErr, zName, bAll);
}

CHOIR_PRIVATE i64 choirIndexAbsorb(ChoirConn *pConn, ChoirErr *pErr,
                                   const char *zName, int bAll) {
  sqlite3_stmt *pHold;
  ChoirIndex *p = choirIndexOpen(pConn, pErr, zName, &pHold);
  i64 n = 0, nRow, nCentre, *aId;
  choirStmtDone(pConn, pHold);
  if (p == NULL) {
    return 0;
  }
  if (!p->bTrusted || (bAll && p->nRow == 0)) {
    return makeAgain(p, pErr, zName, bAll);
  }
  aId = makePending(p, pErr, &n);
  nRow = p->nRow;
  nCentre = p->nCentre;
  if (pErr->rc == SQLITE_OK && (n > 0 || bAll)) {
    if (nRow == 0) { /* the first rows decide on the mean */
      sqlite3_free(aId);
      return makeAgain(p, pErr, zName, bAll);
    }
    makeAbsorb(p, pErr, aId, n, bAll);
    if (bAll || p->nList > nCentre + nCentre / 4 + 8) {
      makeProbes(pConn, pErr, zName);
    }
  }
  sqlite3_free(aId);
  return n;
}

static void makeAbsorbOne(ChoirConn *pConn, ChoirErr *pErr, void *pArg,
                          const char *zName) {
  *(i64 *)pArg += choirIndexAbsorb(pConn, pErr, zName, 0);
}

CHOIR_PRIVATE i64 choirIndexAbsorbAll(ChoirConn *pConn, ChoirErr *pErr) {
  i64 n = 0;
  choirIndexEach(pConn, pErr, &n, makeAbsorbOne);
  return n;
}

static int makeHasPending(ChoirConn *pConn, ChoirErr *pErr, const char *zName) {
  char *zSql =
      choirMprintf(pErr, "SELECT 1 FROM \"%w\".\"_choir_vec_%w_pending\"",
                   choirSchema(pConn), zName);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(pConn, pErr, zSql) : NULL;
  int bHas = choirStep(pErr, pStmt);
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  return bHas;
}

static void makeSettleOne(ChoirConn *pConn, ChoirErr *pErr, void *pArg,
                          const char *zName) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirTxn txn;
  (void)pArg;
  if (makeHasPending(pConn, &err, zName)) {
    choirTxnBegin(&txn, pConn, &err);
    choirIndexAbsorb(pConn, &err, zName, 0);
    choirTxnEnd(&txn, &err);
  }
  if (err.rc == SQLITE_NOMEM || err.rc == SQLITE_INTERRUPT) {
    *pErr = err;
  } else {
    choirErrClear(&err);
  }
}

CHOIR_PRIVATE void choirIndexSettle(ChoirConn *pConn, ChoirErr *pErr) {
  choirIndexEach(pConn, pErr, NULL, makeSettleOne);
}

/* ----------------------------------------------------------------- info */

/* Of the ten nearest of up to 20 rows, themselves excluded, how many a search
** finds, the truth from all lists with errors allowed for so far that nothing
** is missed; and how many lists it looks at. */
static double makeRecall(ChoirIndex *p, ChoirErr *pErr, i64 *pnList) {
  u8 *aVec = choirMalloc(pErr, (u64)p->code.nVec);
  ChoirFetch fetch;
  i64 i, j, k, nSame = 0, nTrue = 0, nList = 0;
  i64 n = p->nRow < MAKE_SHOWN ? p->nRow : MAKE_SHOWN;
  choirIndexFetch(p, &fetch, aVec);
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
    ChoirSearch s = {.aQuery = aVec,
                     .k = MAKE_PROBE_K,
                     .rMost = INFINITY,
                     .bBut = 1,
                     .pnList = &nList};
    ChoirScan a, b;
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    if (makeSample(p, pErr, &fetch, makeSpread(p, i), &s.iBut)) {
      choirFetchEnd(&fetch);
      choirIndexSearch(p, pErr, &s, &a);
      s.rRecall = 1.0;
      s.pnList = NULL;
      choirIndexSearch(p, pErr, &s, &b);
    }
    nTrue += b.nHit;
    for (j = 0; j < b.nHit; j++) {
      for (k = 0; k < a.nHit && a.aHit[k].iRowid != b.aHit[j].iRowid; k++) {
      }
      nSame += k < a.nHit;
    }
    choirScanFree(&a);
    choirScanFree(&b);
  }
  choirFetchEnd(&fetch);
  sqlite3_free(aVec);
  *pnList = n ? nList / n : 0;
  return nTrue ? (double)nSame / (double)nTrue : 1.0;
}

static i64 makeCount(ChoirIndex *p, ChoirErr *pErr, const char *zSql) {
  char *z = choirMprintf(pErr, zSql, p->zSchema, p->zName);
  sqlite3_stmt *pStmt = z ? choirPrepare(p->pConn, pErr, z) : NULL;
  i64 n = choirStep(pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  sqlite3_finalize(pStmt);
  sqlite3_free(z);
  return n;
}

CHOIR_PRIVATE void choirIndexInfo(ChoirConn *pConn, ChoirErr *pErr,
                                  const char *zName, ChoirBuf *b) {
  sqlite3_stmt *pHold;
  ChoirIndex *p = choirIndexOpen(pConn, pErr, zName, &pHold);
  i64 nList = 0;
  double rRecall = p && p->bTrusted ? makeRecall(p, pErr, &nList) : 1.0;
  if (p) {
    i64 nByte =
        makeCount(p, pErr,
                  "SELECT coalesce(sum(length(block) + 12), 0)"
                  " FROM \"%w\".\"_choir_vec_%w_seg\"") +
        makeCount(p, pErr,
                  "SELECT coalesce(sum(coalesce(length(centre), 0) + 24), 0)"
                  " FROM \"%w\".\"_choir_vec_%w_list\"");
    i64 nPending = makeCount(p, pErr,
                             "SELECT count(DISTINCT id)"
                             " FROM \"%w\".\"_choir_vec_%w_pending\"");
    choirBufText(b, "{\"table\":");
    choirBufJson(b, p->zTable, -1);
    choirBufText(b, ",\"column\":");
    choirBufJson(b, p->zColumn, -1);
    choirBufText(b, ",\"partition\":");
    if (p->zPart) {
      choirBufJson(b, p->zPart, -1);
    } else {
      choirBufText(b, "null");
    }
    choirBufPrintf(
        b,
        ",\"dimensions\":%lld,\"type\":\"%s\",\"metric\":\"%s\",\"mode\":"
        "\"%s\",\"rows\":%lld,\"lists\":%lld,\"pending\":%lld,\"bytes\":%lld,"
        "\"nprobe\":%lld,\"recall\":%.3f,\"trusted\":%d}",
        p->code.nDim, choirVecTypeName(p->code.eType),
        choirIndexMetricName(p->code.eMetric), p->nCentre ? "lists" : "flat",
        p->nRow, p->nCentre, nPending, nByte, nList, rRecall, p->bTrusted);
  }
  choirStmtDone(pConn, pHold);
}
