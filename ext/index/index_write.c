/* SPDX-License-Identifier: MIT */
/*
** Rows into lists. One ChoirWrite works inside the caller's savepoint: the
** last segment of every list it touches is kept in memory until it is full, so
** that rows may come in any order and every page is written once.
**
** A list above INDEX_LIST_FULL rows becomes several by k-means over its own
** vectors, one below INDEX_LIST_THIN is given up to its neighbours. There is no
** map from rows to lists: what is to be removed is found by reading the rowids
** of all segments, 15 ms for a million rows, once for all of them.
*/
#include "index.h"
#include <stdlib.h>

#define WRITE_SAMPLE_BYTES ((i64)64 << 20) /* of vectors for k-means */
#define WRITE_SAMPLE_LIST 32               /* vectors a list, for k-means */
#define WRITE_SEG_BLOCKS 8                 /* at most, on large pages */

typedef struct WriteOwn { /* centres of new lists, behind it */
  struct WriteOwn *pNext;
} WriteOwn;

typedef struct WriteTail { /* the last segment of a list */
  u8 *a;                   /* NULL: not loaded */
  i64 n, iSeg;
  int bDirty;
} WriteTail;

struct ChoirWrite {
  ChoirIndex *p;
  ChoirErr *pErr;
  WriteTail *aTail; /* one a list, nTail of them */
  u8 *abTouched;
  i64 nTail;
  i64 nSeg; /* rows of a full segment */
  i64 iNext;
  ChoirFetch fetch;
  u8 *aVec;
  float *aRot;
  WriteOwn *pOwn; /* a chain of them, owned */
  /* Where rows go: the lists of a partition. */
  i32 *aiTo;
  i64 nTo;
  float *aToCentre;
  ChoirRank *pRank; /* NULL: all into the first */
  i64 nDone;
};

typedef struct WriteSample { /* of rows, as they come */
  float *aRot;               /* the good ones, rotated, one behind another */
  u8 *aeRow;                 /* WRITE_GONE … for each */
  i64 n;
} WriteSample;

/* Rows that fit a page of the file, two blocks of 32 where d is 384. */
static i64 writeSegRows(ChoirIndex *p, ChoirErr *pErr) {
  char *zSql = choirMprintf(pErr, "PRAGMA \"%w\".page_size", p->zSchema);
  sqlite3_stmt *pStmt = zSql ? choirPrepare(p->pConn, pErr, zSql) : NULL;
  i64 szPage = choirStep(pErr, pStmt) ? sqlite3_column_int(pStmt, 0) : 4096;
  i64 n = (szPage - 60) / (i64)p->code.nBlock;
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
  n = n < 1 ? 1 : n > WRITE_SEG_BLOCKS ? WRITE_SEG_BLOCKS : n;
  return 32 * n;
}

/* Room for lists nTail to n. */
static void writeRoom(ChoirWrite *w, i64 n) {
  WriteTail *a;
  u8 *ab;
  if (n <= w->nTail) {
    return;
  }
  n = n < 2 * w->nTail ? 2 * w->nTail : n;
  a = choirRealloc(w->pErr, w->aTail, (u64)n * sizeof(*a));
  w->aTail = a ? a : w->aTail;
  ab = choirRealloc(w->pErr, w->abTouched, (u64)n);
  w->abTouched = ab ? ab : w->abTouched;
  if (w->pErr->rc == SQLITE_OK) {
    memset(a + w->nTail, 0, (size_t)(n - w->nTail) * sizeof(*a));
    memset(ab + w->nTail, 0, (size_t)(n - w->nTail));
    w->nTail = n;
  }
}

CHOIR_PRIVATE ChoirWrite *choirWriteBegin(ChoirIndex *p, ChoirErr *pErr) {
  ChoirWrite *w = choirMalloc(pErr, sizeof(*w));
  i64 i;
  if (w == NULL) {
    return NULL;
  }
  w->p = p;
  w->pErr = pErr;
  w->nSeg = writeSegRows(p, pErr);
  w->aVec = choirMalloc(pErr, (u64)p->code.nVec);
  w->aRot = choirMalloc(pErr, p->code.nPad * sizeof(float));
  choirIndexFetch(p, &w->fetch, w->aVec);
  writeRoom(w, p->nList + 1);
  for (i = 0; i < p->nList; i++) {
    w->iNext = p->aList[i].iId + 1;
  }
  return w;
}

static int writeInterrupted(ChoirWrite *w) {
  if ((++w->nDone & 1023) == 0 && choirInterrupted(w->p->pConn)) {
    choirErrSet(w->pErr, SQLITE_INTERRUPT, "interrupted");
  }
  return w->pErr->rc != SQLITE_OK;
}

/* ------------------------------------------------------------- segments */

static void writeSeg(ChoirWrite *w, i64 iSeg, const u8 *a, i64 n) {
  sqlite3_stmt *pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_SEG_PUT);
  choirBindInt(w->pErr, pStmt, 1, iSeg);
  choirBindInt(w->pErr, pStmt, 2, n);
  choirBindBlob(w->pErr, pStmt, 3, a, choirCodeBytes(&w->p->code, n));
  choirStep(w->pErr, pStmt);
  choirStmtDone(w->p->pConn, pStmt);
}

static void writeFlush(ChoirWrite *w, i64 i) {
  WriteTail *t = &w->aTail[i];
  if (t->bDirty && t->n > 0) {
    writeSeg(w, t->iSeg, t->a, t->n);
  }
  t->bDirty = 0;
}

static void writeFlushAll(ChoirWrite *w) {
  i64 i;
  for (i = 0; i < w->p->nList && w->pErr->rc == SQLITE_OK; i++) {
    writeFlush(w, i);
    sqlite3_free(w->aTail[i].a);
    w->aTail[i].a = NULL;
  }
}

static i64 writeFirst(const ChoirList *pList) {
  return pList->iId << INDEX_SEG_BITS;
}

static void writeBindList(ChoirWrite *w, sqlite3_stmt *pStmt, i64 i) {
  const ChoirList *pList = &w->p->aList[i];
  choirBindInt(w->pErr, pStmt, 1, writeFirst(pList));
  choirBindInt(w->pErr, pStmt, 2,
               writeFirst(pList) + ((i64)1 << INDEX_SEG_BITS) - 1);
}

/* Zeroed room for a segment in the tail of list i, loaded from the file when
** there is one with space. */
static WriteTail *writeTail(ChoirWrite *w, i64 i) {
  WriteTail *t = &w->aTail[i];
  size_t nByte = (size_t)choirCodeBytes(&w->p->code, w->nSeg);
  sqlite3_stmt *pStmt;
  if (t->a == NULL && w->pErr->rc == SQLITE_OK) {
    t->a = choirMalloc(w->pErr, nByte);
    t->n = 0;
    t->iSeg = writeFirst(&w->p->aList[i]);
    pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_LAST);
    writeBindList(w, pStmt, i);
    if (t->a && choirStep(w->pErr, pStmt)) {
      i64 nRow;
      const u8 *a = choirIndexSeg(w->p, w->pErr, pStmt, &nRow);
      t->iSeg = sqlite3_column_int64(pStmt, 0);
      if (a && nRow < w->nSeg) {
        memcpy(t->a, a, (size_t)choirCodeBytes(&w->p->code, nRow));
        t->n = nRow;
      } else {
        t->iSeg++;
      }
    }
    choirStmtDone(w->p->pConn, pStmt);
  }
  if (t->a && t->n == w->nSeg) {
    writeFlush(w, i);
    memset(t->a, 0, nByte);
    t->n = 0;
    t->iSeg++;
  }
  return w->pErr->rc == SQLITE_OK ? t : NULL;
}

/* One more row of the tail, which the caller fills. */
static u8 *writeSlot(ChoirWrite *w, i64 i, i64 *piSlot) {
  WriteTail *t = writeTail(w, i);
  if (t == NULL) {
    return NULL;
  }
  *piSlot = t->n++;
  t->bDirty = 1;
  w->p->aList[i].n++;
  w->abTouched[i] = 1;
  return t->a;
}

static void writeAppend(ChoirWrite *w, i64 i, const float *aRot, i64 iRowid) {
  const ChoirList *pList = &w->p->aList[i];
  i64 iSlot;
  u8 *a = writeSlot(w, i, &iSlot);
  if (a) {
    choirCodeRow(&w->p->code, aRot,
                 pList->aCentre ? pList->aCentre : w->p->aMean, a, iSlot,
                 iRowid);
    w->p->iTop = iRowid > w->p->iTop ? iRowid : w->p->iTop;
  }
}

/* ---------------------------------------------------------------- lists */

static void writeListRow(ChoirWrite *w, i64 i, sqlite3_value *pPart) {
  const ChoirList *pList = &w->p->aList[i];
  sqlite3_stmt *pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_LIST_PUT);
  size_t nPad = w->p->code.nPad;
  u8 *a = NULL;
  choirBindInt(w->pErr, pStmt, 1, pList->iId);
  if (pPart) {
    choirBindValue(w->pErr, pStmt, 2, pPart);
  }
  choirBindInt(w->pErr, pStmt, 3, pList->n);
  choirBindInt(w->pErr, pStmt, 4, pList->nStuck);
  if (pList->aCentre) {
    a = choirMalloc(w->pErr, nPad * 4);
    if (a) {
      memcpy(a, pList->aCentre, nPad * 4);
      choirLittleEndian(a, nPad * 4, 4);
    }
    choirBindBlob(w->pErr, pStmt, 5, a, (i64)nPad * 4);
  }
  choirStep(w->pErr, pStmt);
  choirStmtDone(w->p->pConn, pStmt);
  sqlite3_free(a);
}

/* What has changed of list i; its partition and its centre stay. */
static void writeListSet(ChoirWrite *w, i64 i) {
  const ChoirList *pList = &w->p->aList[i];
  sqlite3_stmt *pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_LIST_SET);
  choirBindInt(w->pErr, pStmt, 1, pList->iId);
  choirBindInt(w->pErr, pStmt, 2, pList->n);
  choirBindInt(w->pErr, pStmt, 3, pList->nStuck);
  choirStep(w->pErr, pStmt);
  choirStmtDone(w->p->pConn, pStmt);
}

/* A new list, empty; aCentre (the writer's) or NULL: the mean. */
static i64 writeNewList(ChoirWrite *w, const float *aCentre,
                        sqlite3_value *pPart) {
  ChoirIndex *p = w->p;
  ChoirList *a =
      choirRealloc(w->pErr, p->aList, (u64)(p->nList + 1) * sizeof(*a));
  i64 i = p->nList;
  writeRoom(w, i + 1);
  if (a) {
    p->aList = a;
  }
  if (w->pErr->rc != SQLITE_OK) {
    return 0;
  }
  memset(&a[i], 0, sizeof(*a));
  a[i].iId = w->iNext++;
  a[i].aCentre = (float *)(uintptr_t)aCentre;
  p->nList++;
  memset(&w->aTail[i], 0, sizeof(w->aTail[i]));
  w->abTouched[i] = 1;
  writeListRow(w, i, pPart);
  return i;
}

static void writeDropList(ChoirWrite *w, i64 i) {
  sqlite3_stmt *pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_SEG_DEL);
  writeBindList(w, pStmt, i);
  choirStep(w->pErr, pStmt);
  choirStmtDone(w->p->pConn, pStmt);
  pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_LIST_DEL);
  choirBindInt(w->pErr, pStmt, 1, w->p->aList[i].iId);
  choirStep(w->pErr, pStmt);
  choirStmtDone(w->p->pConn, pStmt);
  sqlite3_free(w->aTail[i].a);
  memset(&w->aTail[i], 0, sizeof(w->aTail[i]));
  w->p->aList[i].n = -1; /* gone */
  w->abTouched[i] = 0;
}

/* The rowids of list i, in no order; caller frees. */
static i64 *writeIds(ChoirWrite *w, i64 i, i64 *pn) {
  i64 *a = choirMalloc(w->pErr, (u64)(w->p->aList[i].n + 1) * sizeof(i64));
  sqlite3_stmt *pStmt;
  i64 n = 0, nRow, j;
  writeFlush(w, i);
  pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_SEGS);
  writeBindList(w, pStmt, i);
  while (choirStep(w->pErr, pStmt)) {
    const u8 *aSeg = choirIndexSeg(w->p, w->pErr, pStmt, &nRow);
    if (aSeg && n + nRow > w->p->aList[i].n) {
      choirIndexDamaged(w->p, w->pErr, "list", w->p->aList[i].iId);
      aSeg = NULL;
    }
    for (j = 0; aSeg && j < nRow; j++) {
      a[n++] = choirCodeRowid(&w->p->code, aSeg, j);
    }
  }
  choirStmtDone(w->p->pConn, pStmt);
  *pn = n;
  return a;
}

/* -------------------------------------------------------------- targets */

static void writeNoTarget(ChoirWrite *w) {
  choirRankFree(w->pRank);
  sqlite3_free(w->aiTo);
  sqlite3_free(w->aToCentre);
  w->pRank = NULL;
  w->aiTo = NULL;
  w->aToCentre = NULL;
  w->nTo = 0;
}

/* Rows go to these lists, to the nearest of those that have a centre. */
static void writeTarget(ChoirWrite *w, const i32 *ai, i64 n) {
  size_t nPad = w->p->code.nPad;
  i64 i, nCentre = 0;
  writeNoTarget(w);
  w->aiTo = choirMalloc(w->pErr, (u64)n * sizeof(i32));
  w->aToCentre =
      choirRealloc(w->pErr, NULL, (u64)(n + 1) * nPad * sizeof(float));
  for (i = 0; i < n && w->pErr->rc == SQLITE_OK; i++) {
    const float *c = w->p->aList[ai[i]].aCentre;
    if (c) {
      memcpy(w->aToCentre + (size_t)nCentre * nPad, c, nPad * sizeof(float));
      w->aiTo[nCentre++] = ai[i];
    }
  }
  if (nCentre == 0 && n > 0 && w->pErr->rc == SQLITE_OK) {
    w->aiTo[0] = ai[0];
    nCentre = 1;
  } else if (w->pErr->rc == SQLITE_OK && n > 0) {
    w->pRank =
        choirRankNew(w->pErr, &w->p->code, w->aToCentre, nCentre, w->p->aMean);
  }
  w->nTo = nCentre;
}

/* The lists of a partition but iBut; one is made when there is none. */
static void writeTargetPart(ChoirWrite *w, sqlite3_value *pPart, i64 iBut) {
  i32 *ai = choirMalloc(w->pErr, (u64)(w->p->nList + 1) * sizeof(i32));
  sqlite3_stmt *pStmt;
  i64 i, n = 0;
  if (w->p->zPart) {
    pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_PART);
    if (pPart) {
      choirBindValue(w->pErr, pStmt, 1, pPart);
    }
    while (ai && choirStep(w->pErr, pStmt)) {
      i32 iList = (i32)choirIndexListAt(w->p, sqlite3_column_int64(pStmt, 0));
      if (iList >= 0 && iList != iBut && w->p->aList[iList].n >= 0) {
        ai[n++] = iList;
      }
    }
    choirStmtDone(w->p->pConn, pStmt);
  } else {
    for (i = 0; ai && i < w->p->nList; i++) {
      if (i != iBut && w->p->aList[i].n >= 0) {
        ai[n++] = (i32)i;
      }
    }
  }
  if (n == 0 && ai && iBut < 0) {
    ai[n++] = (i32)writeNewList(w, NULL, pPart);
  }
  if (w->pErr->rc == SQLITE_OK) {
    writeTarget(w, ai, n);
  }
  sqlite3_free(ai);
}

/* ----------------------------------------------------------------- rows */

enum { WRITE_GONE, WRITE_AIMLESS, WRITE_GOOD };

/* A row's vector, rotated into aRot. */
static u8 writeRotate(ChoirWrite *w, i64 iRowid, float *aRot) {
  if (!choirFetchRow(&w->fetch, w->pErr, iRowid)) {
    return WRITE_GONE; /* or NULL */
  }
  return choirCodeRotate(&w->p->code, w->aVec, aRot) ? WRITE_GOOD
                                                     : WRITE_AIMLESS;
}

/* Each row into the nearest list. Those of a sample of all n are at hand. */
static void writeEach(ChoirWrite *w, const i64 *aRowid, i64 n,
                      const WriteSample *pAll) {
  const float *aNext = pAll ? pAll->aRot : NULL;
  i64 i;
  for (i = 0; i < n && !writeInterrupted(w); i++) {
    u8 eRow = pAll ? pAll->aeRow[i] : writeRotate(w, aRowid[i], w->aRot);
    const float *aRot = pAll ? aNext : w->aRot;
    ChoirNear near = {0, 0, 0};
    if (eRow == WRITE_GOOD) {
      if (w->pRank) {
        (void)choirRankNear(w->pRank, w->pErr, aRot, &near, 1);
      }
      if (pAll) {
        aNext += w->p->code.nPad;
      }
    }
    if (eRow != WRITE_GONE) {
      writeAppend(w, w->aiTo[near.iList], eRow == WRITE_GOOD ? aRot : NULL,
                  aRowid[i]);
    }
  }
  choirFetchEnd(&w->fetch);
}

CHOIR_PRIVATE void choirWriteRows(ChoirWrite *w, const i64 *aRowid, i64 n,
                                  sqlite3_value *pPart) {
  writeTargetPart(w, pPart, -1);
  writeEach(w, aRowid, n, NULL);
  writeNoTarget(w);
}

/* Centres for new lists out of a sample of the rows; the writer's. */
static float *writeCentres(ChoirWrite *w, const i64 *aRowid, i64 n, i64 nList,
                           WriteSample *pSample) {
  const ChoirCode *pCode = &w->p->code;
  size_t nPad = pCode->nPad;
  i64 nMost = WRITE_SAMPLE_BYTES / (i64)(nPad * sizeof(float)), i, nHave = 0;
  i64 nSample = nList * WRITE_SAMPLE_LIST;
  WriteOwn *pOwn;
  float *c;
  nSample = nList == 2 ? n : nSample;
  nSample = nSample > nMost ? nMost : nSample;
  nSample = nSample < 2 * nList ? 2 * nList : nSample;
  nSample = nSample > n ? n : nSample;
  pSample->n = nSample;
  pSample->aRot =
      choirRealloc(w->pErr, NULL, (u64)(nSample + 1) * nPad * sizeof(float));
  pSample->aeRow = choirMalloc(w->pErr, (u64)nSample);
  pOwn =
      choirMalloc(w->pErr, sizeof(*pOwn) + (u64)nList * nPad * sizeof(float));
  for (i = 0; i < nSample && w->pErr->rc == SQLITE_OK; i++) {
    i64 at = i * n / nSample + (i64)((u64)i * 2654435761u % 97);
    at = at < n && n > nSample * 97 ? at : i * n / nSample;
    pSample->aeRow[i] =
        writeRotate(w, aRowid[at], pSample->aRot + (size_t)nHave * nPad);
    nHave += pSample->aeRow[i] == WRITE_GOOD;
  }
  choirFetchEnd(&w->fetch);
  c = pOwn ? (float *)(void *)(pOwn + 1) : NULL;
  if (pOwn) {
    pOwn->pNext = w->pOwn;
    w->pOwn = pOwn;
  }
  if (w->pErr->rc == SQLITE_OK && nHave >= nList) {
    choirMeans(w->p->pConn, w->pErr, pCode, pSample->aRot, nHave, w->p->aMean,
               c, nList);
  } else {
    c = NULL; /* too few that have a direction */
  }
  return c;
}

CHOIR_PRIVATE void choirWriteNew(ChoirWrite *w, const i64 *aRowid, i64 n,
                                 sqlite3_value *pPart, i64 nList) {
  WriteSample sample = {NULL, NULL, 0};
  float *aCentre =
      nList > 1 ? writeCentres(w, aRowid, n, nList, &sample) : NULL;
  i32 *ai = choirMalloc(w->pErr, (u64)nList * sizeof(i32));
  i64 i;
  nList = aCentre ? nList : 1;
  for (i = 0; i < nList && w->pErr->rc == SQLITE_OK; i++) {
    ai[i] = (i32)writeNewList(
        w, aCentre ? aCentre + (size_t)i * w->p->code.nPad : NULL, pPart);
  }
  if (w->pErr->rc == SQLITE_OK) {
    writeTarget(w, ai, nList);
    writeEach(w, aRowid, n, sample.n == n ? &sample : NULL);
    writeNoTarget(w);
  }
  sqlite3_free(sample.aRot);
  sqlite3_free(sample.aeRow);
  for (i = 0; i < nList && w->pErr->rc == SQLITE_OK; i++) {
    ChoirList *pList = &w->p->aList[ai[i]];
    if (pList->n * 20 > n * 19) {
      pList->nStuck = pList->n; /* vectors that are all alike */
    }
  }
  sqlite3_free(ai);
}

/* -------------------------------------------------------------- removal */

static i32 writeListOf(const ChoirIndex *p, i64 iSeg) {
  return (i32)choirIndexListAt(p, iSeg >> INDEX_SEG_BITS);
}

static int writeHas(const ChoirIndex *p, const u8 *aSeg, i64 n,
                    const ChoirSet *pSet) {
  i64 j;
  for (j = 0; j < n; j++) {
    if (choirSetGet(pSet, choirCodeRowid(&p->code, aSeg, j), -2) != -2) {
      return 1;
    }
  }
  return 0;
}

/* One segment without the rows of the set; the last ones take their places. */
static void writeStrip(ChoirWrite *w, i64 iSeg, const ChoirSet *pSet) {
  const ChoirCode *pCode = &w->p->code;
  sqlite3_stmt *pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_SEGS);
  i32 iList = writeListOf(w->p, iSeg);
  i64 n = 0, nOld = 0, j;
  u8 *a = NULL;
  choirBindInt(w->pErr, pStmt, 1, iSeg);
  choirBindInt(w->pErr, pStmt, 2, iSeg);
  if (choirStep(w->pErr, pStmt)) {
    const u8 *aSeg = choirIndexSeg(w->p, w->pErr, pStmt, &n);
    size_t nByte = (size_t)choirCodeBytes(pCode, n);
    a = aSeg ? choirMalloc(w->pErr, nByte) : NULL;
    if (a) {
      memcpy(a, aSeg, nByte);
    }
  }
  choirStmtDone(w->p->pConn, pStmt);
  nOld = n;
  for (j = 0; a && j < n;) {
    if (choirSetGet(pSet, choirCodeRowid(pCode, a, j), -2) == -2) {
      j++;
    } else if (--n > j) {
      choirCodeMove(pCode, a, j, a, n);
    }
  }
  if (a && n > 0) {
    writeSeg(w, iSeg, a, n);
  } else if (a) {
    pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_SEG_DEL);
    choirBindInt(w->pErr, pStmt, 1, iSeg);
    choirBindInt(w->pErr, pStmt, 2, iSeg);
    choirStep(w->pErr, pStmt);
    choirStmtDone(w->p->pConn, pStmt);
  }
  if (iList >= 0 && a) {
    w->p->aList[iList].n -= nOld - n;
    w->abTouched[iList] = 1;
  }
  sqlite3_free(a);
}

CHOIR_PRIVATE void choirWriteRemove(ChoirWrite *w, const ChoirSet *pSet) {
  sqlite3_stmt *pStmt;
  ChoirBuf b;
  i64 i, nRow;
  choirBufInit(&b, w->pErr, (u64)1 << 32);
  writeFlushAll(w);
  pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_ALL_SEGS);
  while (choirStep(w->pErr, pStmt) && !writeInterrupted(w)) {
    i64 iSeg = sqlite3_column_int64(pStmt, 0);
    const u8 *a = choirIndexSeg(w->p, w->pErr, pStmt, &nRow);
    if (a && writeListOf(w->p, iSeg) < 0) {
      choirIndexDamaged(w->p, w->pErr, "segment", iSeg);
    } else if (a && writeHas(w->p, a, nRow, pSet)) {
      choirBufAppend(&b, &iSeg, sizeof(iSeg));
    }
  }
  choirStmtDone(w->p->pConn, pStmt);
  for (i = 0; i < (i64)(b.n / sizeof(i64)) && !writeInterrupted(w); i++) {
    i64 iSeg;
    memcpy(&iSeg, b.a + (size_t)i * sizeof(i64), sizeof(i64));
    writeStrip(w, iSeg, pSet);
  }
  choirBufFree(&b);
}

/* -------------------------------------------------------------- balance */

/* The list's partition; caller frees by sqlite3_value_free. */
static sqlite3_value *writePartOf(ChoirWrite *w, i64 i) {
  sqlite3_stmt *pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_LIST_PART);
  sqlite3_value *pPart = NULL;
  choirBindInt(w->pErr, pStmt, 1, w->p->aList[i].iId);
  if (choirStep(w->pErr, pStmt)) {
    pPart = sqlite3_value_dup(sqlite3_column_value(pStmt, 0));
    if (pPart == NULL) {
      choirErrNomem(w->pErr);
    }
  }
  choirStmtDone(w->p->pConn, pStmt);
  return pPart;
}

/* List i becomes nList new ones, or with 0 its rows go to its neighbours. */
static void writeReplace(ChoirWrite *w, i64 i, i64 nList) {
  sqlite3_value *pPart = writePartOf(w, i);
  i64 n = 0, *aId = writeIds(w, i, &n);
  if (w->pErr->rc == SQLITE_OK) {
    qsort(aId, (size_t)n, sizeof(i64), choirRowidOrder);
    if (nList == 0) {
      writeTargetPart(w, pPart, i);
    }
    if (nList > 0) {
      writeDropList(w, i);
      choirWriteNew(w, aId, n, pPart, nList);
    } else if (w->nTo > 0 && w->pRank) {
      writeDropList(w, i);
      writeEach(w, aId, n, NULL);
    }
    writeNoTarget(w);
  }
  sqlite3_free(aId);
  sqlite3_value_free(pPart);
}

/* Rows of list i into as few segments as they need. */
static void writePack(ChoirWrite *w, i64 i) {
  const ChoirCode *pCode = &w->p->code;
  i64 nRow, j, n = w->p->aList[i].n, nSeg;
  sqlite3_stmt *pStmt;
  ChoirBuf b;
  writeFlush(w, i);
  pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_SEG_COUNT);
  writeBindList(w, pStmt, i);
  nSeg = choirStep(w->pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  choirStmtDone(w->p->pConn, pStmt);
  if (nSeg * w->nSeg <= n + n / 2 + w->nSeg) {
    return;
  }
  choirBufInit(&b, w->pErr, (u64)nSeg * (u64)w->nSeg * pCode->nBlock + 4096);
  pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_SEGS);
  writeBindList(w, pStmt, i);
  while (choirStep(w->pErr, pStmt)) {
    const u8 *a = choirIndexSeg(w->p, w->pErr, pStmt, &nRow);
    choirBufAppend(&b, &nRow, 8);
    choirBufAppend(&b, a, (u64)choirCodeBytes(pCode, nRow));
  }
  choirStmtDone(w->p->pConn, pStmt);
  pStmt = choirIndexStmt(w->p, w->pErr, INDEX_SQL_SEG_DEL);
  writeBindList(w, pStmt, i);
  choirStep(w->pErr, pStmt);
  choirStmtDone(w->p->pConn, pStmt);
  sqlite3_free(w->aTail[i].a);
  memset(&w->aTail[i], 0, sizeof(w->aTail[i]));
  w->p->aList[i].n = 0;
  for (n = 0; w->pErr->rc == SQLITE_OK && (u64)n < b.n;) {
    const u8 *a = (const u8 *)b.a + n + 8;
    memcpy(&nRow, b.a + n, 8);
    for (j = 0; j < nRow; j++) {
      i64 iSlot;
      u8 *aTo = writeSlot(w, i, &iSlot);
      if (aTo) {
        choirCodeMove(pCode, aTo, iSlot, a, j);
      }
    }
    n += 8 + choirCodeBytes(pCode, nRow);
  }
  choirBufFree(&b);
}

CHOIR_PRIVATE i64 choirWriteLists(const ChoirIndex *p, i64 n, int bAll) {
  i64 nFrom = p->eMode == INDEX_LISTS ? 2 * INDEX_LIST_MEAN
              : bAll                  ? INDEX_AUTO_ASKED
                                      : INDEX_AUTO_ROWS;
  return p->eMode == INDEX_FLAT || n < nFrom ? 1 : n / INDEX_LIST_MEAN;
}

/* How many lists a list should be. */
static i64 writeWant(const ChoirWrite *w, const ChoirList *pList, int bAll) {
  i64 n = pList->n;
  if (n <= 2 * pList->nStuck) {
    return 1;
  }
  if (pList->aCentre == NULL) {
    return choirWriteLists(w->p, n, bAll);
  }
  return n <= INDEX_LIST_FULL ? 1 : (n + INDEX_LIST_MEAN / 2) / INDEX_LIST_MEAN;
}

CHOIR_PRIVATE void choirWriteBalance(ChoirWrite *w, int bAll) {
  i64 i;
  for (i = 0; i < w->p->nList && w->pErr->rc == SQLITE_OK; i++) {
    ChoirList *pList = &w->p->aList[i];
    i64 nWant;
    if (pList->n < 0 || (!bAll && !w->abTouched[i])) {
      continue;
    }
    nWant = writeWant(w, pList, bAll);
    if (nWant > 1) {
      writeReplace(w, i, nWant);
    } else if (pList->n == 0 && (w->p->nList > 1 || pList->aCentre)) {
      writeDropList(w, i);
    } else if (pList->aCentre && pList->n < INDEX_LIST_THIN) {
      writeReplace(w, i, 0);
    } else if (bAll) {
      writePack(w, i);
    }
  }
}

/* ------------------------------------------------------------------ end */

static void writeFree(ChoirWrite *w) {
  i64 i;
  writeNoTarget(w);
  choirFetchEnd(&w->fetch);
  for (i = 0; i < w->nTail; i++) {
    sqlite3_free(w->aTail[i].a);
  }
  while (w->pOwn) {
    WriteOwn *pNext = w->pOwn->pNext;
    sqlite3_free(w->pOwn);
    w->pOwn = pNext;
  }
  sqlite3_free(w->aTail);
  sqlite3_free(w->abTouched);
  sqlite3_free(w->aVec);
  sqlite3_free(w->aRot);
  sqlite3_free(w);
}

CHOIR_PRIVATE void choirWriteEnd(ChoirWrite *w) {
  ChoirIndex *p;
  sqlite3_stmt *pStmt;
  i64 i, nRow = 0;
  if (w == NULL) {
    return;
  }
  p = w->p;
  writeFlushAll(w);
  for (i = 0; i < p->nList && w->pErr->rc == SQLITE_OK; i++) {
    if (p->aList[i].n >= 0 && w->abTouched[i]) {
      writeListSet(w, i);
    }
    nRow += p->aList[i].n > 0 ? p->aList[i].n : 0;
  }
  pStmt = choirIndexStmt(p, w->pErr, INDEX_SQL_CONF_PUT);
  choirBindInt(w->pErr, pStmt, 1, nRow);
  choirBindInt(w->pErr, pStmt, 2, p->iTop);
  choirBindText(w->pErr, pStmt, 3, p->zProbes, -1);
  choirBindText(w->pErr, pStmt, 4, p->zTable, -1);
  choirStep(w->pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  p->nRow = nRow;
  p->bKnown = 0; /* read again, whatever becomes of the transaction */
  writeFree(w);
}
