/* SPDX-License-Identifier: MIT */
/*
** choir_check() of the vector indexes: the triggers stand; every row of the
** table is in its index once, or pending; the numbers of rows are right; and
** the codes are those that the vectors give.
*/
#include "index.h"
#include <stdlib.h>

static void checkSay(ChoirCursor *pCur, const ChoirIndex *p, i64 n,
                     const char *zWhat) {
  char *z = n ? choirMprintf(&pCur->err,
                             "index '%s': %lld %s; run select"
                             " vec_index_drop('%s') and create it again",
                             p->zName, n, zWhat, p->zName)
              : NULL;
  if (z) {
    choirRowText(pCur, "vec_index");
    choirRowText(pCur, z);
  }
  sqlite3_free(z);
}

/* Codes of one segment that its vectors do not give. */
static i64 checkCodes(ChoirIndex *p, ChoirErr *pErr, ChoirFetch *pFetch,
                      const u8 *a, i64 n, const float *aCentre, float *aRot) {
  i64 i, nBad = 0;
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
    i64 iRowid = choirCodeRowid(&p->code, a, i);
    if (choirSetGet(&p->pend.slot, iRowid, -2) == -2 &&
        choirFetchRow(pFetch, pErr, iRowid) &&
        choirCodeRotate(&p->code, pFetch->a, aRot)) {
      nBad += !choirCodeSame(&p->code, aRot, aCentre, a, i);
    }
  }
  choirFetchEnd(pFetch);
  return nBad;
}

/* Every rowid of the lists, sorted, into pIds; codes and numbers compared. */
static void checkLists(ChoirIndex *p, ChoirErr *pErr, ChoirCursor *pCur,
                       ChoirBuf *pIds) {
  sqlite3_stmt *pStmt = choirIndexStmt(p, pErr, INDEX_SQL_ALL_SEGS);
  float *aRot = choirMalloc(pErr, p->code.nPad * sizeof(float));
  i64 *anHave = choirMalloc(pErr, (u64)(p->nList + 1) * sizeof(i64));
  u8 *aVec = choirMalloc(pErr, (u64)p->code.nVec);
  i64 nBad = 0, nLost = 0, nOff = 0, iList = 0, i, nRow;
  ChoirFetch fetch;
  choirIndexFetch(p, &fetch, aVec);
  while (choirStep(pErr, pStmt)) {
    i64 iId = sqlite3_column_int64(pStmt, 0) >> INDEX_SEG_BITS;
    const u8 *a = choirIndexSeg(p, pErr, pStmt, &nRow);
    while (iList < p->nList && p->aList[iList].iId < iId) {
      iList++;
    }
    if (a == NULL || iList == p->nList || p->aList[iList].iId != iId) {
      nLost++;
      continue;
    }
    anHave[iList] += nRow;
    nBad += checkCodes(
        p, pErr, &fetch, a, nRow,
        p->aList[iList].aCentre ? p->aList[iList].aCentre : p->aMean, aRot);
    for (i = 0; i < nRow; i++) {
      i64 iRowid = choirCodeRowid(&p->code, a, i);
      choirBufAppend(pIds, &iRowid, sizeof(iRowid));
    }
  }
  choirStmtDone(p->pConn, pStmt);
  for (i = 0; i < p->nList && pErr->rc == SQLITE_OK; i++) {
    nOff += anHave[i] != p->aList[i].n;
  }
  if (pErr->rc == SQLITE_OK && pIds->n) {
    qsort(pIds->a, (size_t)(pIds->n / sizeof(i64)), sizeof(i64),
          choirRowidOrder);
  }
  checkSay(pCur, p, nBad, "rows have codes that are not theirs");
  checkSay(pCur, p, nLost, "segments belong to no list");
  checkSay(pCur, p, nOff, "lists have another number of rows than they say");
  sqlite3_free(aRot);
  sqlite3_free(anHave);
  sqlite3_free(aVec);
}

/* Rows of the table against the sorted rowids of the lists. */
static void checkRows(ChoirIndex *p, ChoirErr *pErr, ChoirCursor *pCur,
                      const i64 *aId, i64 n) {
  sqlite3_stmt *pStmt = choirIndexStmt(p, pErr, INDEX_SQL_TABLE);
  i64 nMissing = 0, nTwice = 0, i;
  while (choirStep(pErr, pStmt)) {
    i64 iRowid = sqlite3_column_int64(pStmt, 0);
    if (sqlite3_column_type(pStmt, 1) != SQLITE_NULL &&
        choirSetGet(&p->pend.slot, iRowid, -2) == -2) {
      nMissing += n == 0 || bsearch(&iRowid, aId, (size_t)n, sizeof(i64),
                                    choirRowidOrder) == NULL;
    }
  }
  choirStmtDone(p->pConn, pStmt);
  for (i = 1; i < n; i++) {
    nTwice += aId[i] == aId[i - 1];
  }
  checkSay(pCur, p, nMissing, "rows of the table are not in it");
  checkSay(pCur, p, nTwice, "rows are in it twice");
}

static void checkIndex(ChoirConn *pConn, ChoirErr *pErr, void *pArg,
                       const char *zName) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirCursor *pCur = pArg;
  sqlite3_stmt *pHold;
  ChoirIndex *p = choirIndexOpen(pConn, &err, zName, &pHold);
  ChoirBuf ids;
  choirBufInit(&ids, &err, (u64)1 << 36);
  if (p && !p->bTrusted) {
    choirRowText(pCur, "vec_index");
    choirRowText(pCur, "an index lost its triggers: it is searched without its"
                       " codes; run select vec_index_optimize of it");
  } else if (p) {
    choirIndexPending(p, &err);
    checkLists(p, &err, pCur, &ids);
    if (err.rc == SQLITE_OK) {
      checkRows(p, &err, pCur, (const i64 *)(void *)ids.a,
                (i64)(ids.n / sizeof(i64)));
    }
  }
  choirBufFree(&ids);
  choirStmtDone(pConn, pHold);
  if (err.rc != SQLITE_OK && err.rc != SQLITE_NOMEM &&
      (err.rc & 0xff) != SQLITE_INTERRUPT) {
    choirRowText(pCur, "vec_index"); /* damage is a finding */
    choirRowText(pCur, err.zMsg);
    choirErrClear(&err);
  }
  if (pErr->rc == SQLITE_OK) {
    *pErr = err;
  } else {
    choirErrClear(&err);
  }
}

CHOIR_PRIVATE void choirIndexEach(ChoirConn *pConn, ChoirErr *pErr, void *pArg,
                                  void (*x)(ChoirConn *, ChoirErr *, void *,
                                            const char *zName)) {
  sqlite3_stmt *pStmt;
  ChoirBuf b;
  const char *z;
  if (!choirExists(pConn, pErr, "table", "_choir_vec")) {
    return;
  }
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  pStmt = choirPrepare(pConn, pErr, "SELECT name FROM ~._choir_vec");
  while (choirStep(pErr, pStmt)) { /* names, each with its NUL */
    choirBufText(&b, (const char *)sqlite3_column_text(pStmt, 0));
    choirBufAppend(&b, "", 1);
  }
  sqlite3_finalize(pStmt);
  for (z = b.a; z && z < b.a + b.n && pErr->rc == SQLITE_OK;
       z += strlen(z) + 1) {
    x(pConn, pErr, pArg, z);
  }
  choirBufFree(&b);
}

CHOIR_PRIVATE void choirIndexCheck(ChoirConn *pConn, ChoirErr *pErr,
                                   ChoirCursor *pCur) {
  choirIndexEach(pConn, pErr, pCur, checkIndex);
}
