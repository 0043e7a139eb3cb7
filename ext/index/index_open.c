/* SPDX-License-Identifier: MIT */
/*
** An index as the file has it, and what the connection keeps of it.
**
** Every change of an index leaves new random numbers behind: _choir_vec.gen for
** all of it, gen of a list for its rows, mark for a pending row. A number that
** is still there proves that what was read with it still holds, whoever wrote,
** rolled back or swapped the file meanwhile. Pending rows are only added, so
** the last one known vouches for all before it.
**
** The triggers are looked for whenever the schema changed. A table that was
** renamed is found by them.
*/
#include "index.h"
#include <math.h>
#include <stdlib.h>

#define OPEN_FORMAT 1
#define OPEN_ROWS ((i64)1 << 40)   /* at most, as many as a list has room for */
#define OPEN_PIECE ((i64)64 << 20) /* bytes for finer codes, at a time, most */
#define OPEN_PIECES 8              /* … and of the memory allowed this part */
#define OPEN_PLACES ((i64)1 << 30) /* of finer codes, at most */
#define OPEN_PENDING ((i64)16 << 20) /* bytes for pending rows, at least */
#define OPEN_HEADS 256 /* blocks of a list whose heads are worth it, at least */

typedef struct OpenState {
  ChoirIndex *pFirst;
} OpenState;

/* --------------------------------------------------------------- memory */

static i64 openBytes(void *a) { return (i64)sqlite3_msize(a); }

/* The heads and the finer codes of all lists. */
static void openForgetFine(ChoirIndex *p) {
  i64 i;
  for (i = 0; i < p->nList; i++) {
    ChoirList *pList = &p->aList[i];
    sqlite3_free(pList->kept.aHead);
    pList->kept.aHead = NULL;
    if (pList->aiFine) {
      memset(pList->aiFine, 0, (size_t)pList->kept.n * 32 * sizeof(i32));
    }
  }
  for (i = 0; i < p->shelf.nPiece; i++) {
    sqlite3_free(p->shelf.apPiece[i]);
  }
  sqlite3_free(p->shelf.apPiece);
  memset(&p->shelf, 0, sizeof(p->shelf));
  p->nCached -= p->nFine;
  p->nFine = 0;
}

/* What its aiFine names stays on the shelf until it is the oldest. */
static void openForgetList(ChoirIndex *p, ChoirList *pList) {
  ChoirKept *k = &pList->kept;
  p->nFine -= openBytes(k->aHead);
  p->nCached -= openBytes(k->aBlock) + openBytes(k->anRow) +
                openBytes(k->aHead) + openBytes(pList->aiFine);
  sqlite3_free(k->aBlock);
  sqlite3_free(k->anRow);
  sqlite3_free(k->aHead);
  sqlite3_free(pList->aiFine);
  memset(k, 0, sizeof(*k));
  pList->aiFine = NULL;
}

static void openForgetPending(ChoirIndex *p) {
  sqlite3_free(p->pend.aBlock);
  choirSetFree(&p->pend.slot);
  memset(&p->pend, 0, sizeof(p->pend));
}

static void openForgetLists(ChoirIndex *p) {
  i64 i;
  for (i = 0; i < p->nList; i++) {
    openForgetList(p, &p->aList[i]);
  }
  sqlite3_free(p->aList);
  sqlite3_free(p->aCentre);
  sqlite3_free(p->aiCentre);
  choirRankFree(p->pRank);
  p->aList = NULL;
  p->aCentre = NULL;
  p->aiCentre = NULL;
  p->pRank = NULL;
  p->nList = p->nCentre = 0;
}

CHOIR_PRIVATE void choirIndexForget(ChoirIndex *p) {
  openForgetPending(p);
  openForgetFine(p);
  openForgetLists(p);
  choirCodeFree(&p->code);
  sqlite3_free(p->aMean);
  sqlite3_free(p->aVec);
  sqlite3_free(p->zTable);
  sqlite3_free(p->zColumn);
  sqlite3_free(p->zPart);
  sqlite3_free(p->zPk);
  sqlite3_free(p->zProbes);
  p->aMean = NULL;
  p->aVec = NULL;
  p->zTable = p->zColumn = p->zPart = p->zPk = p->zProbes = NULL;
  p->bKnown = p->bTrusted = 0;
  p->iSchema = -1;
}

static void openFree(void *pArg) {
  OpenState *pState = pArg;
  int i;
  while (pState->pFirst) {
    ChoirIndex *p = pState->pFirst;
    pState->pFirst = p->pNext;
    choirIndexForget(p);
    for (i = 0; i < INDEX_NSQL; i++) {
      sqlite3_free(p->azSql[i]);
    }
    sqlite3_free(p->zSqlOf);
    sqlite3_free(p->zSchema);
    sqlite3_free(p->zName);
    sqlite3_free(p);
  }
}

static const ChoirStateType openStateType = {"index", sizeof(OpenState),
                                             openFree};

/* ------------------------------------------------------------------ SQL */

#define OPEN_SEG "\"%w\".\"_choir_vec_%w_seg\""
#define OPEN_LIST "\"%w\".\"_choir_vec_%w_list\""
#define OPEN_PEND "\"%w\".\"_choir_vec_%w_pending\""

/* With the schema and the index's name. */
static const char *const azOpenSql[INDEX_NSQL] = {
    [INDEX_SQL_CONF] =
        "SELECT gen, format, tbl, col, part, dim, type, metric, mode, seed,"
        " scale, rows, top, probes, mean FROM \"%w\"._choir_vec"
        " WHERE name='%q'",
    [INDEX_SQL_SCHEMA] = "PRAGMA \"%w\".schema_version",
    [INDEX_SQL_LISTS] =
        "SELECT id, n, gen, stuck, centre FROM " OPEN_LIST " ORDER BY id",
    [INDEX_SQL_PART] = "SELECT id FROM " OPEN_LIST " WHERE part IS ?1",
    [INDEX_SQL_SEGS] = "SELECT id, n, block FROM " OPEN_SEG
                       " WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
    [INDEX_SQL_LAST] = "SELECT id, n, block FROM " OPEN_SEG
                       " WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1",
    [INDEX_SQL_ALL_SEGS] = "SELECT id, n, block FROM " OPEN_SEG " ORDER BY id",
    [INDEX_SQL_SEG_PUT] =
        "INSERT OR REPLACE INTO " OPEN_SEG "(id, n, block) VALUES(?1, ?2, ?3)",
    [INDEX_SQL_SEG_DEL] = "DELETE FROM " OPEN_SEG " WHERE id BETWEEN ?1 AND ?2",
    [INDEX_SQL_LIST_PUT] =
        "INSERT INTO " OPEN_LIST "(id, part, n, gen, stuck, centre)"
        " VALUES(?1, ?2, ?3, random(), ?4, ?5)",
    [INDEX_SQL_LIST_SET] =
        "UPDATE " OPEN_LIST " SET n=?2, gen=random(), stuck=?3 WHERE id=?1",
    [INDEX_SQL_LIST_DEL] = "DELETE FROM " OPEN_LIST " WHERE id=?1",
    [INDEX_SQL_LIST_PART] = "SELECT part FROM " OPEN_LIST " WHERE id=?1",
    [INDEX_SQL_SEG_COUNT] =
        "SELECT count(*) FROM " OPEN_SEG " WHERE id BETWEEN ?1 AND ?2",
    [INDEX_SQL_CONF_PUT] =
        "UPDATE \"%w\"._choir_vec SET gen=random(), rows=?1, top=?2,"
        " probes=?3, tbl=?4 WHERE name='%q'",
    [INDEX_SQL_TAIL] =
        "SELECT seq, mark FROM " OPEN_PEND " ORDER BY seq DESC LIMIT 1",
    [INDEX_SQL_MARK] = "SELECT mark FROM " OPEN_PEND " WHERE seq=?1",
};

/* What also needs the table, known after the registry's row has been read. */
static char *openTableSql(const ChoirIndex *p, ChoirErr *pErr, int iSql) {
  switch (iSql) {
  case INDEX_SQL_PENDING:
    return choirMprintf(pErr,
                        "SELECT p.seq, p.mark, p.id, t.\"%w\" FROM " OPEN_PEND
                        " AS p LEFT JOIN \"%w\".\"%w\" AS t ON t.\"%w\"=p.id"
                        " WHERE p.seq>?1 ORDER BY p.seq",
                        p->zColumn, p->zSchema, p->zName, p->zSchema, p->zTable,
                        p->zPk);
  case INDEX_SQL_TABLE:
    return choirMprintf(pErr, "SELECT \"%w\", \"%w\" FROM \"%w\".\"%w\"",
                        p->zPk, p->zColumn, p->zSchema, p->zTable);
  case INDEX_SQL_TABLE_PART:
    return choirMprintf(
        pErr, "SELECT \"%w\", \"%w\" FROM \"%w\".\"%w\" WHERE \"%w\" IS ?1",
        p->zPk, p->zColumn, p->zSchema, p->zTable, p->zPart);
  default: /* INDEX_SQL_IN_PART */
    return choirMprintf(
        pErr, "SELECT 1 FROM \"%w\".\"%w\" WHERE \"%w\"=?1 AND \"%w\" IS ?2",
        p->zSchema, p->zTable, p->zPk, p->zPart);
  }
}

CHOIR_PRIVATE sqlite3_stmt *choirIndexStmt(ChoirIndex *p, ChoirErr *pErr,
                                           int iSql) {
  if (p->azSql[iSql] == NULL && pErr->rc == SQLITE_OK) {
    p->azSql[iSql] = azOpenSql[iSql] ? choirMprintf(pErr, azOpenSql[iSql],
                                                    p->zSchema, p->zName)
                                     : openTableSql(p, pErr, iSql);
  }
  return choirStmt(p->pConn, pErr, p->azSql[iSql]);
}

CHOIR_PRIVATE void choirIndexDamaged(const ChoirIndex *p, ChoirErr *pErr,
                                     const char *zWhat, i64 iWhich) {
  choirErrSet(pErr, SQLITE_CORRUPT_VTAB,
              "%s %lld of index '%s' is damaged; run select"
              " vec_index_drop('%s') and create it again",
              zWhat, iWhich, p->zName, p->zName);
}

/* ------------------------------------------------------------ the table */

CHOIR_PRIVATE char *choirIndexKey(ChoirConn *pConn, ChoirErr *pErr,
                                  const char *zSchema, const char *zTable) {
  char *zSql =
      choirMprintf(pErr, "PRAGMA \"%w\".table_info(\"%w\")", zSchema, zTable);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(pConn, pErr, zSql) : NULL;
  char *zKey = NULL;
  int nKey = 0, nCol = 0;
  while (choirStep(pErr, pStmt)) {
    const char *zType = (const char *)sqlite3_column_text(pStmt, 2);
    nCol++;
    if (sqlite3_column_int(pStmt, 5) && nKey++ == 0 && zType &&
        sqlite3_stricmp(zType, "INTEGER") == 0) {
      zKey = choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 1));
    }
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  if (zKey && (nKey > 1 || sqlite3_table_column_metadata(
                               pConn->db, zSchema, zTable, "rowid", NULL, NULL,
                               NULL, NULL, NULL) != SQLITE_OK)) {
    sqlite3_free(zKey); /* of two columns, or WITHOUT ROWID */
    zKey = NULL;
  }
  if (nCol == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "no table '%s' in schema %s", zTable,
                zSchema);
  } else if (zKey == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "table '%s' has no INTEGER PRIMARY KEY, so VACUUM may renumber"
                " its rows; copy it into one with id INTEGER PRIMARY KEY",
                zTable);
  }
  return zKey;
}

CHOIR_PRIVATE const char *choirIndexEvent(int i) {
  static const char *const az[] = {"insert", "update", "delete"};
  return az[i];
}

CHOIR_PRIVATE char *choirIndexTrigger(const ChoirIndex *p, ChoirErr *pErr,
                                      int i) {
  ChoirBuf b;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "CREATE TRIGGER \"_choir_vec_%w_%s\" AFTER ", p->zName,
                 choirIndexEvent(i));
  if (i == 1) {
    choirBufPrintf(&b, "UPDATE OF \"%w\", \"%w\"", p->zPk, p->zColumn);
    if (p->zPart) {
      choirBufPrintf(&b, ", \"%w\"", p->zPart);
    }
  } else {
    choirBufText(&b, i == 0 ? "INSERT" : "DELETE");
  }
  choirBufPrintf(&b, " ON \"%w\" BEGIN", p->zTable);
  if (i == 1) {
    choirBufPrintf(&b,
                   " INSERT INTO \"_choir_vec_%w_pending\"(id, mark)"
                   " SELECT old.\"%w\", random() WHERE old.\"%w\"<>new.\"%w\";",
                   p->zName, p->zPk, p->zPk, p->zPk);
  }
  choirBufPrintf(&b,
                 " INSERT INTO \"_choir_vec_%w_pending\"(id, mark)"
                 " VALUES(%s.\"%w\", random()); END",
                 p->zName, i == 2 ? "old" : "new", p->zPk);
  return choirBufTake(&b);
}

/* Is trigger i there, word for word? Its table into *pzTable, if wanted. */
static int openTrigger(ChoirIndex *p, ChoirErr *pErr, int i, char **pzTable) {
  char *zWant = pzTable ? NULL : choirIndexTrigger(p, pErr, i);
  char *zSql = choirMprintf(
      pErr,
      "SELECT sql, tbl_name FROM \"%w\".sqlite_schema WHERE type='trigger'"
      " AND name='_choir_vec_%q_%s'",
      p->zSchema, p->zName, choirIndexEvent(i));
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  int bSame = 0;
  if (choirStep(pErr, pStmt)) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 0);
    bSame = z && zWant && strcmp(z, zWant) == 0;
    if (pzTable) {
      *pzTable = choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 1));
    }
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  sqlite3_free(zWant);
  return bSame;
}

/* The statements that name the table are of another one now: their texts stay
** until the connection ends, because statements are known by them. */
static void openRetire(ChoirIndex *p, ChoirErr *pErr) {
  OpenState *pState = choirState(p->pConn, pErr, &openStateType);
  ChoirIndex *pOld = choirMalloc(pErr, sizeof(*pOld));
  int i;
  if (pOld == NULL || pState == NULL) {
    sqlite3_free(pOld);
    return;
  }
  for (i = INDEX_SQL_PENDING; i < INDEX_NSQL; i++) {
    pOld->azSql[i] = p->azSql[i];
    p->azSql[i] = NULL;
  }
  pOld->iSchema = -1;
  pOld->pNext = pState->pFirst;
  pState->pFirst = pOld;
}

/* After the schema changed: the table's name and key, and the triggers. */
static void openTrust(ChoirIndex *p, ChoirErr *pErr) {
  char *zTable = NULL, *zPk, *zOf;
  ChoirErr err = {SQLITE_OK, NULL};
  int i;
  openTrigger(p, pErr, 0, &zTable);
  if (zTable == NULL && pErr->rc == SQLITE_OK) {
    zTable = choirMprintf(pErr, "%s", p->zTable);
  }
  zPk = zTable ? choirIndexKey(p->pConn, &err, p->zSchema, zTable) : NULL;
  if (err.zMsg) {
    choirErrSet(pErr, err.rc,
                "index '%s': %s; vec_index_drop('%s') removes the index",
                p->zName, err.zMsg, p->zName);
  } else if (err.rc != SQLITE_OK) {
    choirErrNomem(pErr);
  }
  choirErrClear(&err);
  if (pErr->rc != SQLITE_OK) {
    sqlite3_free(zTable);
    sqlite3_free(zPk);
    return;
  }
  zOf = choirMprintf(pErr, "%s\n%s\n%s\n%s", zTable, zPk, p->zColumn,
                     p->zPart ? p->zPart : "");
  if (zOf && p->zSqlOf && strcmp(zOf, p->zSqlOf) != 0) {
    openRetire(p, pErr);
  }
  sqlite3_free(p->zSqlOf);
  p->zSqlOf = zOf;
  sqlite3_free(p->zTable);
  sqlite3_free(p->zPk);
  p->zTable = zTable;
  p->zPk = zPk;
  p->bTrusted = 1;
  for (i = 0; i < 3; i++) {
    p->bTrusted &= openTrigger(p, pErr, i, NULL);
  }
  if (pErr->rc == SQLITE_OK &&
      sqlite3_table_column_metadata(p->pConn->db, p->zSchema, p->zTable,
                                    p->zColumn, NULL, NULL, NULL, NULL,
                                    NULL) != SQLITE_OK) {
    choirErrSet(pErr, SQLITE_ERROR,
                "table '%s' has no column '%s' any more; run select"
                " vec_index_drop('%s')",
                p->zTable, p->zColumn, p->zName);
  }
}

/* -------------------------------------------------------------- reading */

CHOIR_PRIVATE const char *choirIndexModeName(int eMode) {
  static const char *const az[INDEX_NMODE] = {"auto", "flat", "lists"};
  return az[eMode];
}

CHOIR_PRIVATE const char *choirIndexMetricName(int eMetric) {
  static const char *const az[INDEX_NMETRIC] = {"cosine", "l2", "dot"};
  return az[eMetric];
}

/* Which of n names a column has, -1: none. */
static int openName(sqlite3_stmt *pStmt, int iCol, const char *(*xName)(int),
                    int n) {
  const char *z = (const char *)sqlite3_column_text(pStmt, iCol);
  while (--n >= 0 && (z == NULL || strcmp(z, xName(n)) != 0)) {
  }
  return n;
}

static char *openText(ChoirErr *pErr, sqlite3_stmt *pStmt, int i) {
  const char *z = (const char *)sqlite3_column_text(pStmt, i);
  return z ? choirMprintf(pErr, "%s", z) : NULL;
}

/* nPad floats, stored little-endian. */
static int openFloats(float *a, size_t n, sqlite3_stmt *pStmt, int iCol) {
  const u8 *p = sqlite3_column_blob(pStmt, iCol);
  size_t i;
  if (p == NULL || (size_t)sqlite3_column_bytes(pStmt, iCol) != n * 4) {
    return 0;
  }
  memcpy(a, p, n * 4);
  choirLittleEndian(a, n * 4, 4);
  for (i = 0; i < n; i++) {
    if (!(fabsf(a[i]) < 1e30f)) {
      return 0;
    }
  }
  return 1;
}

static void openConf(ChoirIndex *p, ChoirErr *pErr, sqlite3_stmt *pConf) {
  int eType = openName(pConf, 6, choirVecTypeName, VEC_BIT);
  int eMetric = openName(pConf, 7, choirIndexMetricName, INDEX_NMETRIC);
  i64 nDim = sqlite3_column_int64(pConf, 5);
  choirIndexForget(p);
  if (sqlite3_column_int(pConf, 1) > OPEN_FORMAT) {
    choirErrSet(pErr, SQLITE_ERROR,
                "index '%s' has format %d, this choir reads %d; use a newer"
                " choir",
                p->zName, sqlite3_column_int(pConf, 1), OPEN_FORMAT);
    return;
  }
  p->zTable = openText(pErr, pConf, 2);
  p->zColumn = openText(pErr, pConf, 3);
  p->zPart = openText(pErr, pConf, 4);
  p->eMode = openName(pConf, 8, choirIndexModeName, INDEX_NMODE);
  p->iSeed = sqlite3_column_int64(pConf, 9);
  p->rScale = sqlite3_column_double(pConf, 10);
  p->nRow = sqlite3_column_int64(pConf, 11);
  p->iTop = sqlite3_column_int64(pConf, 12);
  p->zProbes = openText(pErr, pConf, 13);
  if (eType < 0 || eMetric < 0 || p->eMode < 0 || nDim < 1 ||
      nDim > INDEX_DIM_MAX || p->nRow < 0 || p->nRow > OPEN_ROWS ||
      !(p->rScale > 1e-30 && p->rScale < 1e30) || p->zTable == NULL ||
      p->zColumn == NULL) {
    choirIndexDamaged(p, pErr, "registry row", 1);
    return;
  }
  choirCodeInit(&p->code, pErr, choirVecKern(p->pConn), eType, eMetric, nDim,
                p->iSeed, p->rScale);
  choirHeadInit(&p->code, &p->head);
  p->aVec = CHOIR_BIG_ENDIAN ? choirMalloc(pErr, (u64)p->code.nVec) : NULL;
  p->aMean = choirMalloc(pErr, p->code.nPad * sizeof(float));
  if (p->aMean && !openFloats(p->aMean, p->code.nPad, pConf, 14)) {
    choirIndexDamaged(p, pErr, "mean", 1);
  }
}

/* Takes over what is cached of a list that is as it was. */
static void openKeep(ChoirList *pNew, ChoirList *aOld, i64 nOld, i64 *piOld) {
  while (*piOld < nOld && aOld[*piOld].iId < pNew->iId) {
    ++*piOld;
  }
  if (*piOld < nOld && aOld[*piOld].iId == pNew->iId &&
      aOld[*piOld].iGen == pNew->iGen) {
    pNew->kept = aOld[*piOld].kept;
    pNew->aiFine = aOld[*piOld].aiFine;
    memset(&aOld[*piOld].kept, 0, sizeof(ChoirKept));
    aOld[*piOld].aiFine = NULL;
  }
}

typedef struct OpenLists { /* while they are read */
  ChoirList *a;
  float *aCentre;
  i32 *aiCentre;
  i64 n, nAlloc, nCentre;
} OpenLists;

static void openListRoom(OpenLists *p, ChoirErr *pErr, size_t nPad) {
  i64 nNew = p->nAlloc ? p->nAlloc * 2 : 16;
  void *a = choirRealloc(pErr, p->a, (u64)nNew * sizeof(ChoirList));
  void *c = choirRealloc(pErr, p->aCentre, (u64)nNew * nPad * sizeof(float));
  void *i = choirRealloc(pErr, p->aiCentre, (u64)nNew * sizeof(i32));
  p->a = a ? a : p->a;
  p->aCentre = c ? c : p->aCentre;
  p->aiCentre = i ? i : p->aiCentre;
  p->nAlloc = pErr->rc == SQLITE_OK ? nNew : p->nAlloc;
}

static void openLists(ChoirIndex *p, ChoirErr *pErr, ChoirList *aOld,
                      i64 nOld) {
  sqlite3_stmt *pStmt = choirIndexStmt(p, pErr, INDEX_SQL_LISTS);
  OpenLists l = {NULL, NULL, NULL, 0, 0, 0};
  size_t nPad = p->code.nPad;
  i64 i, iOld = 0;
  while (choirStep(pErr, pStmt)) {
    ChoirList *pList;
    if (l.n == l.nAlloc) {
      openListRoom(&l, pErr, nPad);
      if (pErr->rc != SQLITE_OK) {
        break;
      }
    }
    pList = &l.a[l.n];
    memset(pList, 0, sizeof(*pList));
    pList->iId = sqlite3_column_int64(pStmt, 0);
    pList->n = sqlite3_column_int64(pStmt, 1);
    pList->iGen = sqlite3_column_int64(pStmt, 2);
    pList->nStuck = sqlite3_column_int64(pStmt, 3);
    if (pList->iId < 0 || pList->iId > (i64)1 << 38 || pList->n < 0 ||
        pList->n > OPEN_ROWS || pList->nStuck < 0 ||
        pList->nStuck > OPEN_ROWS) {
      choirIndexDamaged(p, pErr, "list", pList->iId);
    } else if (sqlite3_column_type(pStmt, 4) != SQLITE_NULL) {
      if (!openFloats(l.aCentre + (size_t)l.nCentre * nPad, nPad, pStmt, 4)) {
        choirIndexDamaged(p, pErr, "list", pList->iId);
      }
      pList->aCentre = p->aMean; /* set below: the array may move */
      l.aiCentre[l.nCentre++] = (i32)l.n;
    }
    openKeep(pList, aOld, nOld, &iOld);
    l.n++;
  }
  choirStmtDone(p->pConn, pStmt);
  for (i = 0; i < l.nCentre; i++) {
    l.a[l.aiCentre[i]].aCentre = l.aCentre + (size_t)i * nPad;
  }
  p->aList = l.a;
  p->nList = l.n;
  p->aCentre = l.aCentre;
  p->aiCentre = l.aiCentre;
  p->nCentre = l.nCentre;
}

/* Everything anew but what lists prove to be as it was. */
static void openRead(ChoirIndex *p, ChoirErr *pErr, sqlite3_stmt *pConf) {
  ChoirList *aOld = p->aList;
  const ChoirCode code = p->code;
  const ChoirShelf shelf = p->shelf;
  i64 i, nOld = p->nList, iSeed = p->iSeed, nFine = p->nFine;
  int bSame;
  p->aList = NULL;
  p->nList = p->nFine = 0;
  memset(&p->shelf, 0, sizeof(p->shelf));
  openConf(p, pErr, pConf);
  p->shelf = shelf;
  p->nFine = nFine;
  bSame = iSeed == p->iSeed && code.nDim == p->code.nDim &&
          code.eType == p->code.eType && code.eMetric == p->code.eMetric;
  openLists(p, pErr, aOld, bSame ? nOld : 0);
  for (i = 0; i < nOld; i++) {
    openForgetList(p, &aOld[i]);
  }
  sqlite3_free(aOld);
  if (!bSame) {
    openForgetFine(p);
  }
  p->iGen = sqlite3_column_int64(pConf, 0);
  p->bKnown = pErr->rc == SQLITE_OK;
}

/* The connection's entry for an index, new where there is none. */
static ChoirIndex *openEntry(ChoirConn *pConn, ChoirErr *pErr,
                             const char *zName) {
  OpenState *pState = choirState(pConn, pErr, &openStateType);
  const char *zDot = strchr(zName, '.'), *zSchema = choirSchema(pConn);
  int nSchema = zDot ? (int)(zDot - zName) : (int)strlen(zSchema);
  ChoirIndex *p;
  if (zDot) {
    zSchema = zName;
    zName = zDot + 1;
  }
  for (p = pState ? pState->pFirst : NULL; p; p = p->pNext) {
    if (p->zName && strcmp(p->zName, zName) == 0 &&
        (int)strlen(p->zSchema) == nSchema &&
        sqlite3_strnicmp(p->zSchema, zSchema, nSchema) == 0) {
      return p;
    }
  }
  p = choirMalloc(pErr, sizeof(*p));
  if (p && pState) {
    p->pConn = pConn;
    p->iSchema = -1;
    p->zSchema = choirMprintf(pErr, "%.*s", nSchema, zSchema);
    p->zName = choirMprintf(pErr, "%s", zName);
    p->pNext = pState->pFirst;
    pState->pFirst = p;
  }
  return pErr->rc == SQLITE_OK ? p : NULL;
}

static i64 openSchema(ChoirIndex *p, ChoirErr *pErr) {
  sqlite3_stmt *pStmt = choirIndexStmt(p, pErr, INDEX_SQL_SCHEMA);
  i64 i = choirStep(pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : -1;
  choirStmtDone(p->pConn, pStmt);
  return i;
}

CHOIR_PRIVATE ChoirIndex *choirIndexFind(ChoirConn *pConn, ChoirErr *pErr,
                                         const char *zName) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirIndex *p = zName ? openEntry(pConn, pErr, zName) : NULL;
  sqlite3_stmt *pConf = p ? choirIndexStmt(p, &err, INDEX_SQL_CONF) : NULL;
  int bThere = choirStep(&err, pConf);
  if ((err.rc & 0xff) == SQLITE_ERROR) { /* no registry, no schema */
    choirErrClear(&err);
    bThere = 0;
  }
  choirStmtDone(pConn, pConf);
  if (pErr->rc == SQLITE_OK) {
    *pErr = err;
  }
  return bThere ? p : NULL;
}

CHOIR_PRIVATE ChoirIndex *choirIndexOpen(ChoirConn *pConn, ChoirErr *pErr,
                                         const char *zName,
                                         sqlite3_stmt **ppHold) {
  ChoirIndex *p = choirIndexFind(pConn, pErr, zName);
  sqlite3_stmt *pConf;
  i64 iSchema;
  *ppHold = NULL;
  if (p == NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "no vector index '%s'%s%s%s", zName,
                zName && strchr(zName, '.') ? "" : " in schema ",
                zName && strchr(zName, '.') ? "" : choirSchema(pConn),
                "; make it by vec_index_create");
    return NULL;
  }
  pConf = choirIndexStmt(p, pErr, INDEX_SQL_CONF);
  if (choirStep(pErr, pConf) &&
      (!p->bKnown || sqlite3_column_int64(pConf, 0) != p->iGen)) {
    openRead(p, pErr, pConf);
  }
  iSchema = openSchema(p, pErr);
  if (pErr->rc == SQLITE_OK && iSchema != p->iSchema) {
    openTrust(p, pErr);
    p->iSchema = pErr->rc == SQLITE_OK ? iSchema : -1;
  }
  p->code.pKern = p->head.pKern = choirVecKern(pConn);
  p->nMost = choirConfigInt(pConn, "vec.cache_bytes", 0);
  *ppHold = pConf;
  if (pErr->rc != SQLITE_OK) {
    p->bKnown = 0;
    return NULL;
  }
  return p;
}

/* -------------------------------------------------------------- pending */

CHOIR_PRIVATE const void *choirIndexVector(const ChoirIndex *p, ChoirErr *pErr,
                                           i64 iRowid, sqlite3_value *pValue) {
  const void *a;
  if (sqlite3_value_type(pValue) != SQLITE_BLOB) {
    choirErrSet(pErr, SQLITE_ERROR,
                "row %lld of '%s' holds %s, not a vector; store a blob, as"
                " vec_f32() makes it",
                iRowid, p->zTable, choirTypeName(pValue));
    return NULL;
  }
  if (sqlite3_value_bytes(pValue) != p->code.nVec) {
    choirErrSet(pErr, SQLITE_ERROR,
                "row %lld of '%s' has %d bytes, the index %lld (%lld"
                " dimensions); mend the row",
                iRowid, p->zTable, sqlite3_value_bytes(pValue), p->code.nVec,
                p->code.nDim);
    return NULL;
  }
  a = sqlite3_value_blob(pValue);
  if (CHOIR_BIG_ENDIAN && a && p->aVec) {
    memcpy(p->aVec, a, (size_t)p->code.nVec);
    choirVecOrder(p->code.eType, p->aVec, p->code.nVec);
    a = p->aVec;
  }
  return a;
}

/* One pending row into its slot. */
static void openPend(ChoirIndex *p, ChoirErr *pErr, i64 iRowid,
                     sqlite3_value *pValue, float *aRot) {
  ChoirPend *e = &p->pend;
  const void *a = NULL;
  i32 iSlot = choirSetGet(&e->slot, iRowid, -1);
  if (sqlite3_value_type(pValue) == SQLITE_NULL) {
    if (iSlot >= 0) { /* the last row takes its place */
      i64 iLast = --e->n;
      choirSetPut(&e->slot, pErr, choirCodeRowid(&p->code, e->aBlock, iLast),
                  iSlot);
      choirCodeMove(&p->code, e->aBlock, iSlot, e->aBlock, iLast);
    }
    choirSetPut(&e->slot, pErr, iRowid, -1);
    return;
  }
  a = choirIndexVector(p, pErr, iRowid, pValue);
  if (iSlot < 0 && e->n == e->nAlloc && a) {
    i64 nNew = e->nAlloc ? e->nAlloc * 2 : 32;
    i64 nByte = choirCodeBytes(&p->code, nNew);
    u8 *aNew;
    e->bOver =
        nByte > OPEN_PENDING &&
        nByte > choirConfigInt(p->pConn, "vec.cache_bytes", OPEN_PENDING);
    aNew = e->bOver ? NULL : choirRealloc(pErr, e->aBlock, (u64)nByte);
    if (aNew == NULL) {
      return;
    }
    memset(aNew + (size_t)(e->nAlloc / 32) * p->code.nBlock, 0,
           (size_t)((nNew - e->nAlloc) / 32) * p->code.nBlock);
    e->aBlock = aNew;
    e->nAlloc = nNew;
  }
  if (a && pErr->rc == SQLITE_OK) {
    iSlot = iSlot < 0 ? (i32)e->n++ : iSlot;
    choirCodeRow(&p->code, choirCodeRotate(&p->code, a, aRot) ? aRot : NULL,
                 p->aMean, e->aBlock, iSlot, iRowid);
    choirSetPut(&e->slot, pErr, iRowid, iSlot);
  }
}

CHOIR_PRIVATE i64 choirIndexListAt(const ChoirIndex *p, i64 iId) {
  i64 lo = 0, hi = p->nList;
  while (lo < hi) {
    i64 mid = (lo + hi) / 2;
    if (p->aList[mid].iId < iId) {
      lo = mid + 1;
    } else {
      hi = mid;
    }
  }
  return lo < p->nList && p->aList[lo].iId == iId ? lo : -1;
}

CHOIR_PRIVATE void choirIndexPending(ChoirIndex *p, ChoirErr *pErr) {
  ChoirPend *e = &p->pend;
  sqlite3_stmt *pStmt = choirIndexStmt(p, pErr, INDEX_SQL_TAIL);
  i64 iSeq = 0, iMark = 0;
  float *aRot = NULL;
  if (choirStep(pErr, pStmt)) {
    iSeq = sqlite3_column_int64(pStmt, 0);
    iMark = sqlite3_column_int64(pStmt, 1);
  }
  choirStmtDone(p->pConn, pStmt);
  if (pErr->rc != SQLITE_OK || (iSeq == e->iSeq && iMark == e->iMark)) {
    return;
  }
  if (e->iSeq) { /* is what we know still the beginning of it? */
    pStmt = choirIndexStmt(p, pErr, INDEX_SQL_MARK);
    choirBindInt(pErr, pStmt, 1, e->iSeq);
    if (!choirStep(pErr, pStmt) || sqlite3_column_int64(pStmt, 0) != e->iMark) {
      openForgetPending(p);
    }
    choirStmtDone(p->pConn, pStmt);
  }
  pStmt = choirIndexStmt(p, pErr, INDEX_SQL_PENDING);
  choirBindInt(pErr, pStmt, 1, e->iSeq);
  aRot = choirMalloc(pErr, p->code.nPad * sizeof(float));
  while (!e->bOver && choirStep(pErr, pStmt)) {
    openPend(p, pErr, sqlite3_column_int64(pStmt, 2),
             sqlite3_column_value(pStmt, 3), aRot);
    e->iSeq = sqlite3_column_int64(pStmt, 0);
    e->iMark = sqlite3_column_int64(pStmt, 1);
  }
  choirStmtDone(p->pConn, pStmt);
  sqlite3_free(aRot);
  if (pErr->rc != SQLITE_OK) {
    openForgetPending(p);
  }
}

/* --------------------------------------------------------------- blocks */

CHOIR_PRIVATE const u8 *choirIndexSeg(const ChoirIndex *p, ChoirErr *pErr,
                                      sqlite3_stmt *pStmt, i64 *pnRow) {
  i64 n = sqlite3_column_int64(pStmt, 1);
  sqlite3_value *pValue = sqlite3_column_value(pStmt, 2);
  const u8 *a = sqlite3_value_blob(pValue);
  i64 nByte = sqlite3_value_bytes(pValue);
  *pnRow = n;
  if (a == NULL || n < 1 || n > (i64)1 << 16 ||
      nByte != choirCodeBytes(&p->code, n)) {
    choirIndexDamaged(p, pErr, "segment", sqlite3_column_int64(pStmt, 0));
    return NULL;
  }
  return a;
}

/* The blocks of a segment into memory. */
static void openKeepSeg(const ChoirIndex *p, ChoirBuf *pBlock, ChoirBuf *pRows,
                        const u8 *a, i64 nRow) {
  choirBufAppend(pBlock, a, (u64)choirCodeBytes(&p->code, nRow));
  for (; nRow > 0; nRow -= 32) {
    u8 n = (u8)(nRow < 32 ? nRow : 32);
    choirBufAppend(pRows, &n, 1);
  }
}

/* Heads for a list that is searched again, if memory allows. */
static void openHeads(ChoirIndex *p, ChoirList *pList) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirKept *k = &pList->kept;
  i64 nByte = k->n * (i64)p->head.nBlock;
  ChoirBuf b;
  if (k->n < OPEN_HEADS || p->nCached + nByte > p->nMost) {
    return;
  }
  choirBufInit(&b, &err, (u64)nByte);
  choirBufReserve(&b, (u64)nByte);
  if (b.a) {
    choirHeadMake(&p->code, &p->head, &err, p->aMean, k->aBlock, k->n,
                  (u8 *)b.a);
  }
  if (err.rc == SQLITE_OK) {
    k->aHead = (u8 *)b.a;
    p->nCached += openBytes(b.a);
    p->nFine += openBytes(b.a);
  } else {
    choirBufFree(&b);
  }
  choirErrClear(&err);
}

CHOIR_PRIVATE void choirIndexSeekList(ChoirIndex *p, ChoirErr *pErr,
                                      ChoirSeek *pSeek, i64 i) {
  ChoirList *pList = &p->aList[i];
  i64 nWant = (pList->n / 32 + pList->n / 64 + 2) * (i64)p->code.nBlock +
              pList->n * (i64)sizeof(i32);
  int bCache = p->nCached - p->nFine + nWant <= p->nMost;
  ChoirErr err = {SQLITE_OK, NULL};
  sqlite3_stmt *pStmt;
  ChoirBuf b, rows;
  i64 nRow, n = 0;
  if (pList->kept.aBlock) {
    if (pSeek->pHead && pList->kept.aHead == NULL) {
      openHeads(p, pList);
    }
    choirSeekKept(pSeek, pErr, &pList->kept, (i32)i);
    return;
  }
  if (bCache && p->nCached + nWant > p->nMost) {
    openForgetFine(p); /* bits come first */
  }
  choirBufInit(&b, &err, (u64)nWant * 2 + 65536);
  choirBufInit(&rows, &err, (u64)nWant);
  if (bCache) { /* read from end to end, from large pages 30 % faster */
    choirBufReserve(&b, (u64)nWant);
  }
  pStmt = choirIndexStmt(p, pErr, INDEX_SQL_SEGS);
  choirBindInt(pErr, pStmt, 1, pList->iId << INDEX_SEG_BITS);
  choirBindInt(pErr, pStmt, 2, ((pList->iId + 1) << INDEX_SEG_BITS) - 1);
  while (choirStep(pErr, pStmt)) {
    const u8 *a = choirIndexSeg(p, pErr, pStmt, &nRow);
    if (a) {
      choirSeekBlocks(pSeek, pErr, a, nRow, (i32)i, n * 32);
      n += (nRow + 31) / 32;
      if (bCache) {
        openKeepSeg(p, &b, &rows, a, nRow);
      }
    }
  }
  choirStmtDone(p->pConn, pStmt);
  if (bCache && pErr->rc == SQLITE_OK && err.rc == SQLITE_OK && n > 0) {
    pList->aiFine = choirMalloc(&err, (u64)n * 32 * sizeof(i32));
    pList->kept.anRow = (u8 *)choirBufTake(&rows);
    pList->kept.aBlock = (u8 *)choirBufTake(&b);
    pList->kept.n = n;
    p->nCached += openBytes(pList->kept.aBlock) + openBytes(pList->kept.anRow) +
                  openBytes(pList->aiFine);
  }
  choirBufFree(&b);
  choirBufFree(&rows);
  choirErrClear(&err);
}

CHOIR_PRIVATE u8 *choirIndexFine(const ChoirIndex *p, const ChoirCand *c) {
  const i32 *ai = c->iFrom < 0 ? NULL : p->aList[c->iFrom].aiFine;
  const ChoirShelf *s = &p->shelf;
  i64 i = ai ? ai[c->iAt] - 1 : -1;
  return i < 0 ? NULL
               : s->apPiece[i >> s->nShift] +
                     (size_t)(i & (((i64)1 << s->nShift) - 1)) *
                         choirFineBytes(&p->code);
}

/* One more piece of the shelf, if memory allows, on large pages: on ordinary
** ones codes were looked at a fifth slower. */
static void openPiece(ChoirIndex *p) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirShelf *s = &p->shelf;
  i64 nMost = p->nMost / OPEN_PIECES, n = (i64)choirFineBytes(&p->code);
  ChoirBuf b;
  u8 **ap;
  nMost = nMost < OPEN_PIECE ? nMost : OPEN_PIECE;
  s->nShift = s->nPiece ? s->nShift : 0;
  while (s->nPiece == 0 && n << (s->nShift + 1) <= nMost) {
    s->nShift++;
  }
  n <<= s->nShift;
  if (p->nCached + n > p->nMost || (s->nPiece + 1) << s->nShift > OPEN_PLACES) {
    return;
  }
  choirBufInit(&b, &err, (u64)n);
  choirBufReserve(&b, (u64)n);
  ap = choirRealloc(&err, s->apPiece, (u64)(s->nPiece + 1) * sizeof(u8 *));
  if (ap) {
    s->apPiece = ap;
    ap[s->nPiece++] = (u8 *)b.a;
    p->nCached += openBytes(b.a);
    p->nFine += openBytes(b.a);
  } else {
    choirBufFree(&b);
  }
  choirErrClear(&err); /* without it, it is only slower */
}

CHOIR_PRIVATE void choirIndexRefine(ChoirIndex *p, ChoirFine *pFine,
                                    const ChoirCand *c, const void *aVec) {
  i32 *ai = c->iFrom < 0 ? NULL : p->aList[c->iFrom].aiFine;
  ChoirShelf *s = &p->shelf;
  if (ai == NULL || choirFineIs(choirIndexFine(p, c), c->iRowid)) {
    return;
  }
  if (s->iNext == s->nPiece << s->nShift) {
    openPiece(p);
    s->iNext = s->iNext < s->nPiece << s->nShift ? s->iNext : 0;
  }
  if (s->nPiece > 0) {
    ai[c->iAt] = (i32)s->iNext + 1;
    if (choirFineRow(pFine, c->iRowid, aVec, choirIndexFine(p, c))) {
      s->iNext++;
    } else {
      ai[c->iAt] = 0;
    }
  }
}

/* ---------------------------------------------------------------- fetch */

CHOIR_PRIVATE void choirIndexFetch(const ChoirIndex *p, ChoirFetch *pFetch,
                                   u8 *a) {
  memset(pFetch, 0, sizeof(*pFetch));
  pFetch->db = p->pConn->db;
  pFetch->zSchema = p->zSchema;
  pFetch->zTable = p->zTable;
  pFetch->zColumn = p->zColumn;
  pFetch->eType = p->code.eType;
  pFetch->nByte = p->code.nVec;
  pFetch->a = a;
}

CHOIR_PRIVATE int choirFetchRow(ChoirFetch *p, ChoirErr *pErr, i64 iRowid) {
  int rc;
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  rc = p->pBlob ? sqlite3_blob_reopen(p->pBlob, iRowid)
                : sqlite3_blob_open(p->db, p->zSchema, p->zTable, p->zColumn,
                                    iRowid, 0, &p->pBlob);
  if (rc == SQLITE_ERROR) { /* no such row, or NULL there */
    choirFetchEnd(p);
    return 0;
  }
  if (rc == SQLITE_OK && sqlite3_blob_bytes(p->pBlob) != p->nByte) {
    choirErrSet(pErr, SQLITE_ERROR,
                "row %lld of '%s' has %d bytes, the index %lld; mend the row",
                iRowid, p->zTable, sqlite3_blob_bytes(p->pBlob), p->nByte);
    return 0;
  }
  if (rc == SQLITE_OK) {
    rc = sqlite3_blob_read(p->pBlob, p->a, (int)p->nByte, 0);
    choirVecOrder(p->eType, p->a, p->nByte);
  }
  choirErrDb(pErr, p->db, rc);
  return rc == SQLITE_OK;
}

CHOIR_PRIVATE void choirFetchEnd(ChoirFetch *p) {
  sqlite3_blob_close(p->pBlob);
  p->pBlob = NULL;
}
