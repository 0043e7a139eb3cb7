/* SPDX-License-Identifier: MIT */
/*
** A search: candidates from the pending rows and from the nearest lists; what
** their finer codes say of them; then the vectors themselves, first of those
** that probably are the k nearest, then of all that may be nearer than these.
**
** Few rows that count are fetched and compared without the codes. Without
** triggers to trust, or with a query that has no direction, the whole table is
** read. Lists are added while fewer than k rows have been found.
*/
#include "index.h"
#include <math.h>
#include <stdlib.h>

#define SEARCH_FEW 2048   /* rowids that are fetched, not searched for … */
#define SEARCH_RATIO 500  /* … when the codes of so many rows cost as much */
#define SEARCH_SMALL 4096 /* rows of an index whose errors are allowed for … */
#define SEARCH_SURE 4.5f  /* … so far that a search is as good as exact */
#define SEARCH_NEARLY 2.7f /* misses 1 in 2,000; by default it is 1 in 250 */
#define SEARCH_LEAST 8     /* lists to probe, at least */
#define SEARCH_FIRST 16    /* vectors read at first, besides k and half of it */

#define SEARCH_AHEAD 16 /* candidates whose finer codes are asked for early */

CHOIR_PRIVATE double choirIndexRecall(int i) {
  static const double ar[INDEX_PROBES] = {0.90, 0.95, 0.97, 0.98, 0.99, 0.995};
  return ar[i];
}

typedef struct SearchRun {
  ChoirIndex *p;
  ChoirErr *pErr;
  const ChoirSearch *s;
  ChoirScan *pScan;
  ChoirProbe probe, head;
  ChoirSeek seek;
  ChoirFetch fetch;
  ChoirFine fine;
  float *aRot;
  u8 *aLut, *aVec;
  double rMeanSquare, rMeanInner;
  i32 *aiFlat; /* lists without a centre */
  i64 nFlat;
  ChoirNear *aNear; /* the others, nearest first: nNear of nCentre known */
  i64 nNear, nCentre;
  i32 *aiPart; /* lists of the partition, when there is one */
  i64 nPart;
  i64 nMissing;
  i64 nProbe; /* lists that were looked at */
} SearchRun;

/* -------------------------------------------------------- what counts */

static int searchInPart(SearchRun *r, i64 iRowid) {
  sqlite3_stmt *pStmt;
  int bIn;
  if (r->s->pPart == NULL) {
    return 1;
  }
  pStmt = choirIndexStmt(r->p, r->pErr, INDEX_SQL_IN_PART);
  choirBindInt(r->pErr, pStmt, 1, iRowid);
  choirBindValue(r->pErr, pStmt, 2, r->s->pPart);
  bIn = choirStep(r->pErr, pStmt);
  choirStmtDone(r->p->pConn, pStmt);
  return bIn;
}

static int searchCounts(void *pArg, i64 iRowid) {
  const ChoirSearch *s = ((SearchRun *)pArg)->s;
  return !(s->bBut && iRowid == s->iBut) &&
         (s->xAccept == NULL || s->xAccept(s->pArg, iRowid));
}

static int searchPendingAccept(void *pArg, i64 iRowid) {
  SearchRun *r = pArg;
  return searchCounts(r, iRowid) && searchInPart(r, iRowid);
}

/* --------------------------------------------------- without the codes */

/* Is fetching these rows cheaper than looking through the codes for them? */
static int searchIsFew(const ChoirIndex *p, const ChoirPick *pOnly) {
  return pOnly && pOnly->n <= SEARCH_FEW &&
         (pOnly->n <= SEARCH_FEW / 16 || pOnly->n * SEARCH_RATIO <= p->nRow);
}

static void searchFew(SearchRun *r) {
  const ChoirPick *pOnly = r->s->pOnly;
  i64 i;
  for (i = 0; i < pOnly->n && r->pErr->rc == SQLITE_OK; i++) {
    if (searchPendingAccept(r, pOnly->a[i]) &&
        choirFetchRow(&r->fetch, r->pErr, pOnly->a[i])) {
      choirScanRow(r->pScan, r->pErr, pOnly->a[i], r->aVec, r->fetch.nByte);
    }
  }
  choirFetchEnd(&r->fetch);
}

static void searchTable(SearchRun *r) {
  int iSql = r->s->pPart ? INDEX_SQL_TABLE_PART : INDEX_SQL_TABLE;
  sqlite3_stmt *pStmt = choirIndexStmt(r->p, r->pErr, iSql);
  if (r->s->pPart) {
    choirBindValue(r->pErr, pStmt, 1, r->s->pPart);
  }
  while (choirStep(r->pErr, pStmt)) {
    sqlite3_value *v = sqlite3_column_value(pStmt, 1);
    i64 iRowid = sqlite3_column_int64(pStmt, 0);
    if (sqlite3_value_type(v) != SQLITE_NULL && searchCounts(r, iRowid) &&
        (r->s->pOnly == NULL || choirPickHas(r->s->pOnly, iRowid))) {
      choirScanRow(r->pScan, r->pErr, iRowid,
                   choirIndexVector(r->p, r->pErr, iRowid, v), r->fetch.nByte);
    }
  }
  choirStmtDone(r->p->pConn, pStmt);
}

/* ----------------------------------------------------------- distances */

/* A distance as estimates are: |x - q|^2, or -2 <x, q>, times scale^2. */
static float searchScaled(const SearchRun *r, double rDist) {
  double s = (double)r->p->code.rScale;
  double d = r->p->code.eMetric == VEC_L2 ? rDist * rDist : 2 * rDist;
  return (float)((d + fabs(d) * 1e-6) * s * s);
}

/* Rows that were read before are known better by now: they bound the others,
** and what is beyond that bound is not looked at. */
static void searchRefine(SearchRun *r) {
  ChoirSeek *p = &r->seek;
  const float *prMax = &r->probe.kern.rMax;
  size_t n = choirFineBytes(&r->p->code);
  i64 i;
  if (r->p->shelf.nPiece == 0 || r->fine.rNorm < 0) {
    return;
  }
  choirSeekAnew(p);
  for (i = 0; i < p->n; i++) {
    const u8 *a = NULL;
    if (i + SEARCH_AHEAD < p->n && p->a[i + SEARCH_AHEAD].rLow <= *prMax) {
      a = choirIndexFine(r->p, &p->a[i + SEARCH_AHEAD]);
    }
    choirCodeFetch(a, a ? n : 0);
    if (p->a[i].rLow <= *prMax) {
      a = choirIndexFine(r->p, &p->a[i]);
      if (choirFineIs(a, p->a[i].iRowid)) {
        choirFineLook(&r->fine, a, &p->a[i]);
      }
      choirSeekKnown(p, &p->a[i]);
    }
  }
}

/* The vectors of the candidates themselves: first of those that probably are
** the k nearest, then of all that may still be nearer than the k-th of them. */
static void searchRerank(SearchRun *r) {
  ChoirScan *pScan = r->pScan;
  float rMost = INFINITY;
  i64 i, n, m = pScan->k + pScan->k / 2 + SEARCH_FIRST;
  r->nMissing = 0;
  pScan->nHit = 0;
  while ((n = choirSeekNext(&r->seek, rMost, m)) > 0) {
    for (i = r->seek.nGiven - n; i < r->seek.nGiven; i++) {
      const ChoirCand *c = &r->seek.a[i];
      if (choirFetchRow(&r->fetch, r->pErr, c->iRowid)) {
        choirScanRow(pScan, r->pErr, c->iRowid, r->aVec, r->fetch.nByte);
        if (r->fine.rNorm >= 0) {
          choirIndexRefine(r->p, &r->fine, c, r->aVec);
        }
      } else {
        r->nMissing++; /* displaced by a REPLACE, which fires no trigger */
      }
    }
    if (pScan->nHit == pScan->k) {
      rMost = searchScaled(r, pScan->aHit[0].rDist);
    }
    m = r->seek.n;
  }
  choirFetchEnd(&r->fetch);
}

/* --------------------------------------------------------------- lists */

static void searchDistance(const SearchRun *r, const float *c, double *prSquare,
                           double *prInner) {
  const ChoirKernOps *k = &r->p->code.pKern->a[KERN_F32];
  *prSquare = k->xL2(r->aRot, c, r->p->code.nPad);
  *prInner = k->xDot(r->aRot, c, r->p->code.nPad);
}

static int searchNearOrder(const void *pA, const void *pB) {
  const ChoirNear *a = pA, *b = pB;
  return a->rSquare < b->rSquare ? -1 : a->rSquare > b->rSquare;
}

static int searchInnerOrder(const void *pA, const void *pB) {
  const ChoirNear *a = pA, *b = pB;
  return a->rInner > b->rInner ? -1 : a->rInner < b->rInner;
}

/* All lists with a centre among ai[0..n), or of the index, nearest first. */
static void searchRankAll(SearchRun *r, const i32 *ai, i64 n) {
  i64 i;
  for (i = 0, r->nNear = 0; i < n; i++) {
    i32 iList = ai[i];
    const float *c = r->p->aList[iList].aCentre;
    if (c) {
      ChoirNear *pNear = &r->aNear[r->nNear++];
      searchDistance(r, c, &pNear->rSquare, &pNear->rInner);
      pNear->iList = iList;
    }
  }
  if (r->nNear > 1) {
    qsort(r->aNear, (size_t)r->nNear, sizeof(ChoirNear),
          r->p->code.eMetric == VEC_DOT ? searchInnerOrder : searchNearOrder);
  }
}

/* The m nearest lists into aNear. */
static void searchRank(SearchRun *r, i64 m) {
  ChoirIndex *p = r->p;
  i64 i;
  if (r->nNear >= m || r->nNear == r->nCentre) {
    return;
  }
  if (r->s->pPart) {
    searchRankAll(r, r->aiPart, r->nPart);
  } else if (p->code.eMetric == VEC_DOT) {
    searchRankAll(r, p->aiCentre, p->nCentre);
  } else {
    if (p->pRank == NULL) {
      p->pRank =
          choirRankNew(r->pErr, &p->code, p->aCentre, p->nCentre, p->aMean);
    }
    if (p->pRank) {
      r->nNear = choirRankNear(p->pRank, r->pErr, r->aRot, r->aNear, m);
      for (i = 0; i < r->nNear; i++) {
        r->aNear[i].iList = p->aiCentre[r->aNear[i].iList];
      }
    }
  }
}

/* Which lists there are to look at. */
static void searchLists(SearchRun *r) {
  ChoirIndex *p = r->p;
  i64 i, iList;
  r->aiFlat = choirMalloc(r->pErr, (u64)(p->nList + 1) * sizeof(i32));
  r->aiPart = choirMalloc(r->pErr, (u64)(p->nList + 1) * sizeof(i32));
  r->aNear = choirMalloc(r->pErr, (u64)(p->nCentre + 1) * sizeof(ChoirNear));
  if (r->pErr->rc != SQLITE_OK) {
    return;
  }
  if (r->s->pPart) {
    sqlite3_stmt *pStmt = choirIndexStmt(p, r->pErr, INDEX_SQL_PART);
    choirBindValue(r->pErr, pStmt, 1, r->s->pPart);
    while (choirStep(r->pErr, pStmt)) {
      iList = choirIndexListAt(p, sqlite3_column_int64(pStmt, 0));
      if (iList >= 0) {
        r->aiPart[r->nPart++] = (i32)iList;
      }
    }
    choirStmtDone(p->pConn, pStmt);
    for (i = 0; i < r->nPart; i++) {
      if (p->aList[r->aiPart[i]].aCentre) {
        r->nCentre++;
      } else {
        r->aiFlat[r->nFlat++] = r->aiPart[i];
      }
    }
    return;
  }
  r->nCentre = p->nCentre;
  for (i = 0; i < p->nList && p->nCentre < p->nList; i++) {
    if (p->aList[i].aCentre == NULL) {
      r->aiFlat[r->nFlat++] = (i32)i;
    }
  }
}

/* The candidates of pending rows, flat lists, and the nProbe nearest lists. */
static void searchSeek(SearchRun *r, i64 nProbe) {
  ChoirIndex *p = r->p;
  i64 i;
  choirSeekAgain(&r->seek);
  choirCodeAim(&r->probe, r->rMeanSquare, r->rMeanInner);
  r->seek.pSkip = NULL;
  r->seek.pArg = r;
  r->seek.xAccept =
      r->s->pPart || r->s->bBut || r->s->xAccept ? searchPendingAccept : NULL;
  choirSeekBlocks(&r->seek, r->pErr, p->pend.aBlock, p->pend.n, -1, 0);
  r->seek.pSkip = p->pend.slot.n ? &p->pend.slot : NULL;
  r->seek.xAccept = r->s->bBut || r->s->xAccept ? searchCounts : NULL;
  if (r->nFlat > 0 && p->head.nPad > 0) {
    choirHeadProbe(&r->probe, &p->head, r->aRot, p->aMean,
                   r->aRot + p->code.nPad, r->aLut + p->code.nGroup * 16,
                   &r->head);
    r->seek.pHead = &r->head;
  }
  for (i = 0; i < r->nFlat && r->pErr->rc == SQLITE_OK; i++) {
    choirIndexSeekList(p, r->pErr, &r->seek, r->aiFlat[i]);
  }
  r->seek.pHead = NULL;
  searchRank(r, nProbe);
  for (i = 0; i < nProbe && i < r->nNear && r->pErr->rc == SQLITE_OK; i++) {
    choirCodeAim(&r->probe, r->aNear[i].rSquare, r->aNear[i].rInner);
    choirIndexSeekList(p, r->pErr, &r->seek, r->aNear[i].iList);
  }
}

/* -------------------------------------------------------------- by code */

/* How much farther the n-th nearest list is than the nearest one. */
static float searchFar(const SearchRun *r, i64 n) {
  const ChoirNear *a = r->aNear;
  return (float)(r->p->code.eMetric == VEC_DOT
                     ? (a[0].rInner - a[n].rInner) / sqrt(r->probe.rNorm)
                     : sqrt(fmax(a[n].rSquare, 0)) -
                           sqrt(fmax(a[0].rSquare, 0)));
}

/* How far lists may be for a recall, as the index learned about itself. */
static double searchReach(const ChoirIndex *p, double rRecall) {
  const char *z = p->zProbes;
  double rReach = INFINITY;
  int i;
  rRecall = rRecall > 0 ? rRecall : INDEX_RECALL;
  for (i = 0; z && i < INDEX_PROBES; i++) { /* "12000 20000 …" */
    char *zEnd;
    i64 n = strtoll(z, &zEnd, 10);
    if (zEnd == z) {
      break;
    }
    if (rRecall <= choirIndexRecall(i)) {
      rReach = (double)n / INDEX_REACH / p->rScale;
      break;
    }
    z = zEnd;
  }
  return rReach;
}

/* How many lists to look at. More where few rows count or many are wanted: they
** are spread over more than the ten that the index learned from. */
static i64 searchProbes(SearchRun *r) {
  double f = (double)r->pScan->k / 10;
  double rReach = searchReach(r->p, r->s->rRecall);
  i64 n = 0, m = SEARCH_LEAST;
  if (r->s->nProbe > 0 || !(rReach < INFINITY)) {
    n = r->s->nProbe > 0 ? r->s->nProbe : r->nCentre;
    return n < r->nCentre ? n : r->nCentre;
  }
  do {
    m *= 4;
    searchRank(r, m);
    while (n < r->nNear && (double)searchFar(r, n) <= rReach) {
      n++;
    }
  } while (n == m && r->pErr->rc == SQLITE_OK);
  n = n < SEARCH_LEAST ? SEARCH_LEAST : n;
  if (r->s->pOnly && r->s->pOnly->n < r->p->nRow) {
    f *= (double)r->p->nRow / (double)(r->s->pOnly->n + 1);
  }
  n = (i64)((double)n * fmin(8.0, fmax(1.0, pow(f, 0.4))));
  return n < r->nCentre ? n : r->nCentre;
}

/* How far the list was that gave each of the hits. */
static void searchTally(const SearchRun *r) {
  i64 i, j, iNear;
  for (i = 0; i < r->pScan->nHit; i++) {
    r->s->arFar[i] = 0;
    for (j = 0; j < r->seek.n; j++) {
      if (r->seek.a[j].iRowid == r->pScan->aHit[i].iRowid) {
        break;
      }
    }
    for (iNear = 0; j < r->seek.n && iNear < r->nNear; iNear++) {
      if (r->aNear[iNear].iList == r->seek.a[j].iFrom) {
        r->s->arFar[i] = searchFar(r, iNear);
        break;
      }
    }
  }
}

static void searchCodes(SearchRun *r) {
  int bAgain = 1;
  choirCodeProbe(&r->p->code, r->aRot, r->aLut, &r->probe);
  if (r->s->rRecall > choirIndexRecall(INDEX_PROBES - 1) ||
      r->p->nRow + r->p->pend.n <= SEARCH_SMALL) {
    r->probe.rEpsilon = SEARCH_SURE;
  } else if (r->s->rRecall > INDEX_RECALL) {
    r->probe.rEpsilon = SEARCH_NEARLY;
  }
  searchDistance(r, r->p->aMean, &r->rMeanSquare, &r->rMeanInner);
  choirSeekInit(&r->seek, r->pErr, &r->probe, r->pScan->k);
  r->fine.rNorm = -1;
  if (r->p->bAgain) {
    choirFineInit(&r->fine, r->pErr, &r->p->code, r->s->aQuery);
  }
  r->p->bAgain = 1;
  r->seek.pOnly = r->s->pOnly;
  if (r->s->rMost < INFINITY) {
    r->seek.rBound = searchScaled(r, r->s->rMost);
  }
  searchLists(r);
  r->nProbe = searchProbes(r);
  while (bAgain && r->pErr->rc == SQLITE_OK) {
    int bFull;
    searchSeek(r, r->nProbe);
    searchRefine(r);
    searchRerank(r);
    bFull = r->pScan->nHit == r->pScan->k;
    bAgain = 0;
    if (r->nMissing > 0 && r->seek.nHigh == r->seek.k &&
        (!bFull ||
         searchScaled(r, r->pScan->aHit[0].rDist) > r->probe.kern.rMax)) {
      /* Rows that are no more made the bound too low. */
      i64 k = r->seek.k + 2 * r->nMissing;
      float *a = choirRealloc(r->pErr, r->seek.aHigh, (u64)k * sizeof(float));
      r->seek.aHigh = a ? a : r->seek.aHigh;
      r->seek.k = a ? k : r->seek.k;
      bAgain = 1;
    } else if (!bFull && r->nProbe < r->nCentre) {
      r->nProbe = r->nProbe * 4 < r->nCentre ? r->nProbe * 4 : r->nCentre;
      bAgain = 1;
    }
  }
}

/* Hits beyond the wanted distance go; they are sorted. */
static void searchCut(const ChoirSearch *s, ChoirScan *pScan) {
  if (!(s->rMost < INFINITY)) {
    return;
  }
  while (pScan->nHit > 0) {
    double d = pScan->aHit[pScan->nHit - 1].rDist;
    if (s->bLess ? d < s->rMost : d <= s->rMost) {
      break;
    }
    pScan->nHit--;
  }
}

CHOIR_PRIVATE void choirIndexSearch(ChoirIndex *p, ChoirErr *pErr,
                                    const ChoirSearch *s, ChoirScan *pScan) {
  SearchRun run;
  i64 k = s->k;
  memset(&run, 0, sizeof(run));
  run.p = p;
  run.pErr = pErr;
  run.s = s;
  run.pScan = pScan;
  run.aRot = choirMalloc(pErr, 2 * p->code.nPad * sizeof(float));
  run.aLut = choirMalloc(pErr, 2 * p->code.nGroup * 16);
  run.aVec = choirMalloc(pErr, (u64)p->code.nVec);
  choirIndexFetch(p, &run.fetch, run.aVec);
  if (p->bTrusted && !s->bExact) {
    choirIndexPending(p, pErr);
    if (k > p->nRow + p->pend.n) {
      k = p->nRow + p->pend.n + 1;
    }
  }
  choirScanInit(pScan, p->pConn, pErr, p->code.eMetric, p->code.eType,
                s->aQuery, p->code.nDim, k);
  if (pErr->rc == SQLITE_OK) {
    if (searchIsFew(p, s->pOnly)) {
      searchFew(&run);
    } else if (s->bExact || !p->bTrusted || p->pend.bOver ||
               !choirCodeRotate(&p->code, s->aQuery, run.aRot)) {
      searchTable(&run);
    } else {
      searchCodes(&run);
    }
  }
  choirScanSort(pScan);
  searchCut(s, pScan);
  if (s->arFar && pErr->rc == SQLITE_OK) {
    searchTally(&run);
  }
  if (s->pnList) {
    *s->pnList += run.nProbe;
  }
  choirSeekFree(&run.seek);
  choirFineFree(&run.fine);
  sqlite3_free(run.aRot);
  sqlite3_free(run.aLut);
  sqlite3_free(run.aVec);
  sqlite3_free(run.aiFlat);
  sqlite3_free(run.aiPart);
  sqlite3_free(run.aNear);
}
