/* SPDX-License-Identifier: MIT */
/*
** Candidates among blocks of codes, and the nearest of many centres.
**
** Every code gives an estimate and an error. The k least upper ends (estimate
** plus error) bound the k-th distance; whatever has its lower end below that
** bound is a candidate. Its vector is to be looked at unless the k-th distance
** that is known by then is below that end.
*/
#include "index.h"
#include <math.h>
#include <stdlib.h>

#define SEEK_ROOM 1024 /* candidates before the far ones are dropped */
#define SEEK_RUN 64    /* blocks whose heads are looked at together */
#define SEEK_PAUSE                                                             \
  31 /* … and how many such runs they are left alone, at most */

CHOIR_PRIVATE void choirSeekInit(ChoirSeek *p, ChoirErr *pErr,
                                 ChoirProbe *pProbe, i64 k) {
  memset(p, 0, sizeof(*p));
  p->pProbe = pProbe;
  p->k = k;
  p->rBound = INFINITY;
  p->aHigh = choirMalloc(pErr, (u64)k * sizeof(float));
}

CHOIR_PRIVATE void choirSeekFree(ChoirSeek *p) {
  sqlite3_free(p->aHigh);
  sqlite3_free(p->a);
  memset(p, 0, sizeof(*p));
}

CHOIR_PRIVATE void choirSeekAgain(ChoirSeek *p) {
  p->n = p->nGiven = p->nHigh = 0;
  p->rMost = p->rBound;
  choirCodeBound(p->pProbe, p->rMost);
}

/* An upper end into the heap; full, its top is the bound. */
static void seekHigh(ChoirSeek *p, float r) {
  float *a = p->aHigh;
  i64 i, iChild;
  if (p->nHigh < p->k) {
    for (i = p->nHigh++; i > 0 && a[(i - 1) / 2] < r; i = (i - 1) / 2) {
      a[i] = a[(i - 1) / 2];
    }
    a[i] = r;
    if (p->nHigh < p->k) {
      return;
    }
  } else if (r < a[0]) {
    for (i = 0; (iChild = 2 * i + 1) < p->nHigh; i = iChild) {
      iChild += iChild + 1 < p->nHigh && a[iChild + 1] > a[iChild];
      if (a[iChild] <= r) {
        break;
      }
      a[i] = a[iChild];
    }
    a[i] = r;
  }
  choirCodeBound(p->pProbe, a[0] < p->rMost ? a[0] : p->rMost);
}

/* Of those not yet given, what is too far goes. */
static void seekDrop(ChoirSeek *p, float rMost) {
  i64 i, n = p->nGiven;
  for (i = n; i < p->n; i++) {
    if (p->a[i].rLow <= rMost) {
      p->a[n++] = p->a[i];
    }
  }
  p->n = n;
}

static void seekAdd(ChoirSeek *p, ChoirErr *pErr, ChoirCand cand) {
  if (p->n == p->nAlloc) {
    seekDrop(p, p->pProbe->kern.rMax);
  }
  if (p->n * 2 > p->nAlloc || p->nAlloc == 0) {
    i64 nNew = p->nAlloc ? p->nAlloc * 2 : SEEK_ROOM;
    ChoirCand *a = choirRealloc(pErr, p->a, (u64)nNew * sizeof(*a));
    if (a == NULL) {
      return;
    }
    p->a = a;
    p->nAlloc = nNew;
  }
  p->a[p->n++] = cand;
}

static void seekRow(ChoirSeek *p, ChoirErr *pErr, ChoirCand cand, float rErr) {
  float rHigh = cand.rEst + rErr;
  cand.rLow = cand.rEst - rErr;
  if (cand.rLow > p->pProbe->kern.rMax) {
    return; /* the bound moved within the block */
  }
  if ((p->pSkip && choirSetGet(p->pSkip, cand.iRowid, -2) != -2) ||
      (p->pOnly && !choirPickHas(p->pOnly, cand.iRowid)) ||
      (p->xAccept && !p->xAccept(p->pArg, cand.iRowid))) {
    return;
  }
  if (!(fabsf(rHigh) < INFINITY)) {
    cand.rLow = cand.rEst = -INFINITY;
  } else {
    seekHigh(p, rHigh);
  }
  seekAdd(p, pErr, cand);
}

CHOIR_PRIVATE void choirSeekBlocks(ChoirSeek *p, ChoirErr *pErr,
                                   const u8 *aBlock, i64 nRow, i32 iFrom,
                                   i64 iAt) {
  ChoirProbe *pProbe = p->pProbe;
  const ChoirCode *pCode = pProbe->pCode;
  float aEst[32], aErr[32];
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  for (; nRow > 0; nRow -= 32, iAt += 32, aBlock += pCode->nBlock) {
    u32 m = pCode->pKern->xScan(&pProbe->kern, aBlock, aEst, aErr);
    if (nRow < 32) {
      m &= ((u32)1 << nRow) - 1;
    }
    while (m) {
      int i = __builtin_ctz(m);
      m &= m - 1;
      aErr[i] = choirCodeError(pProbe, aBlock, i, &aEst[i]);
      seekRow(p, pErr,
              (ChoirCand){0, aEst[i], iFrom, (i32)(iAt + i),
                          choirCodeRowid(pCode, aBlock, i)},
              aErr[i]);
    }
  }
}

/* Which of n blocks from iFirst have a row that may be near, by their heads; they
** are asked for. Heads that rule out less than half of their blocks are left alone
** for a while. */
static u64 seekHeads(ChoirSeek *p, const ChoirKept *pKept, i64 iFirst, int n) {
  const size_t nBlock = p->pProbe->pCode->nBlock;
  const float rMax = p->pProbe->kern.rMax;
  ChoirProbe *pHead = p->pHead;
  u64 m = ~(u64)0 >> (64 - n);
  float aEst[32], aErr[32];
  const u8 *a;
  int i;
  if (pHead == NULL || pKept->aHead == NULL || !(rMax < INFINITY) ||
      p->nPause-- > 0) {
    return m;
  }
  choirCodeBound(pHead, rMax);
  a = pKept->aHead + (size_t)iFirst * pHead->pCode->nBlock;
  for (i = 0, m = 0; i < n; i++, a += pHead->pCode->nBlock) {
    if (pHead->pCode->pKern->xScan(&pHead->kern, a, aEst, aErr)) {
      m |= (u64)1 << i;
      choirCodeFetch(pKept->aBlock + (size_t)(iFirst + i) * nBlock, nBlock);
    }
  }
  if (2 * __builtin_popcountll(m) <= n) {
    p->nWait = 0;
  } else if (p->nWait < SEEK_PAUSE) {
    p->nWait = 4 * p->nWait + 3;
  }
  p->nPause = p->nWait;
  return m;
}

CHOIR_PRIVATE void choirSeekKept(ChoirSeek *p, ChoirErr *pErr,
                                 const ChoirKept *pKept, i32 iFrom) {
  const size_t nBlock = p->pProbe->pCode->nBlock;
  i64 i;
  p->nWait = p->nPause = 0;
  for (i = 0; i < pKept->n; i += SEEK_RUN) {
    i64 n = pKept->n - i < SEEK_RUN ? pKept->n - i : SEEK_RUN;
    u64 m = seekHeads(p, pKept, i, (int)n);
    for (; m; m &= m - 1) {
      i64 at = i + __builtin_ctzll(m);
      choirSeekBlocks(p, pErr, pKept->aBlock + (size_t)at * nBlock,
                      pKept->anRow[at], iFrom, at * 32);
    }
  }
}

CHOIR_PRIVATE void choirSeekAnew(ChoirSeek *p) {
  p->nHigh = 0;
  p->rMost = p->pProbe->kern.rMax;
}

CHOIR_PRIVATE void choirSeekKnown(ChoirSeek *p, const ChoirCand *c) {
  if (c->rLow > -INFINITY) {
    seekHigh(p, 2 * c->rEst - c->rLow);
  }
}

/* The m least estimates to the front of n, in no order (Hoare's selection). */
static void seekSelect(ChoirCand *a, i64 n, i64 m) {
  i64 lo = 0, hi = n - 1;
  while (lo < hi) {
    float rMid = a[(lo + hi) / 2].rEst;
    i64 i = lo, j = hi;
    while (i <= j) {
      while (a[i].rEst < rMid) {
        i++;
      }
      while (a[j].rEst > rMid) {
        j--;
      }
      if (i <= j) {
        ChoirCand t = a[i];
        a[i++] = a[j];
        a[j--] = t;
      }
    }
    if (m <= j) {
      hi = j;
    } else if (m >= i) {
      lo = i;
    } else {
      return;
    }
  }
}

static int seekOrder(const void *pA, const void *pB) {
  const ChoirCand *a = pA, *b = pB;
  return a->iRowid < b->iRowid ? -1 : a->iRowid > b->iRowid;
}

CHOIR_PRIVATE i64 choirSeekNext(ChoirSeek *p, float rMost, i64 m) {
  i64 n;
  seekDrop(p, fminf(rMost, p->pProbe->kern.rMax));
  n = p->n - p->nGiven;
  if (n > m) {
    seekSelect(&p->a[p->nGiven], n, m);
    n = m;
  }
  if (n > 1) {
    qsort(&p->a[p->nGiven], (size_t)n, sizeof(*p->a), seekOrder);
  }
  p->nGiven += n;
  return n;
}

/* -------------------------------------------------------------- ranking */

#define RANK_FEW 64 /* centres that are compared one by one */

struct ChoirRank {
  ChoirCode code; /* the index's, by l2 */
  i64 n;
  const float *aCentre; /* the caller's */
  const float *aMean;
  double *aNorm; /* |c|^2 */
  u8 *aBlock;    /* NULL: few */
  u8 *aLut;
  ChoirNear *aAll; /* n of them */
  ChoirProbe probe;
  ChoirSeek seek;
};

CHOIR_PRIVATE ChoirRank *choirRankNew(ChoirErr *pErr, const ChoirCode *pCode,
                                      const float *aCentre, i64 n,
                                      const float *aMean) {
  ChoirRank *p = choirMalloc(pErr, sizeof(*p));
  i64 i;
  if (p == NULL) {
    return NULL;
  }
  p->code = *pCode;
  p->code.eMetric = VEC_L2;
  p->n = n;
  p->aCentre = aCentre;
  p->aMean = aMean;
  p->aNorm = choirMalloc(pErr, (u64)n * sizeof(double));
  p->aAll = choirMalloc(pErr, (u64)n * sizeof(ChoirNear));
  p->aLut = choirMalloc(pErr, pCode->nGroup * 16);
  if (n > RANK_FEW) {
    p->aBlock = choirMalloc(pErr, (u64)choirCodeBytes(pCode, n));
  }
  choirSeekInit(&p->seek, pErr, &p->probe, 1);
  if (pErr->rc != SQLITE_OK) {
    choirRankFree(p);
    return NULL;
  }
  for (i = 0; i < n; i++) {
    const float *c = aCentre + (size_t)i * pCode->nPad;
    p->aNorm[i] = pCode->pKern->a[KERN_F32].xDot(c, c, pCode->nPad);
    if (p->aBlock) {
      choirCodeRow(&p->code, c, aMean, p->aBlock, i, i);
    }
  }
  return p;
}

CHOIR_PRIVATE void choirRankFree(ChoirRank *p) {
  if (p) {
    choirSeekFree(&p->seek);
    sqlite3_free(p->aNorm);
    sqlite3_free(p->aAll);
    sqlite3_free(p->aLut);
    sqlite3_free(p->aBlock);
    sqlite3_free(p);
  }
}

static int rankOrder(const void *pA, const void *pB) {
  const ChoirNear *a = pA, *b = pB;
  return a->rSquare != b->rSquare ? (a->rSquare < b->rSquare ? -1 : 1)
                                  : a->iList - b->iList;
}

static ChoirNear rankOne(const ChoirRank *p, const float *aRot, double rNorm,
                         i64 i) {
  const float *c = p->aCentre + (size_t)i * p->code.nPad;
  ChoirNear near;
  near.rInner = p->code.pKern->a[KERN_F32].xDot(aRot, c, p->code.nPad);
  near.rSquare = rNorm + p->aNorm[i] - 2 * near.rInner;
  near.iList = (i32)i;
  return near;
}

/* m of the codes, as the candidates are worth looking at. */
static i64 rankByCode(ChoirRank *p, ChoirErr *pErr, const float *aRot,
                      double rNorm, i64 m) {
  ChoirSeek *pSeek = &p->seek;
  const float rScale2 = p->code.rScale * p->code.rScale;
  i64 i, n = 0;
  if (pSeek->k < m) {
    choirSeekFree(pSeek);
    choirSeekInit(pSeek, pErr, &p->probe, m);
  }
  pSeek->k = m;
  choirCodeProbe(&p->code, aRot, p->aLut, &p->probe);
  p->probe.bNear = 0; /* to compare a centre takes no longer */
  choirCodeAim(&p->probe,
               p->code.pKern->a[KERN_F32].xL2(aRot, p->aMean, p->code.nPad), 0);
  choirSeekAgain(pSeek);
  choirSeekBlocks(pSeek, pErr, p->aBlock, p->n, 0, 0);
  for (i = 0; i < pSeek->n && pErr->rc == SQLITE_OK; i++) {
    float rLow = pSeek->a[i].rLow;
    if (rLow > p->probe.kern.rMax ||
        (n == 1 && m == 1 && (double)(rLow / rScale2) > p->aAll[0].rSquare)) {
      continue;
    }
    p->aAll[n] = rankOne(p, aRot, rNorm, pSeek->a[i].iRowid);
    if (m > 1 || n == 0) {
      n++;
    } else if (p->aAll[1].rSquare < p->aAll[0].rSquare) {
      p->aAll[0] = p->aAll[1];
    }
  }
  return n;
}

CHOIR_PRIVATE i64 choirRankNear(ChoirRank *p, ChoirErr *pErr, const float *aRot,
                                ChoirNear *a, i64 m) {
  double rNorm = p->code.pKern->a[KERN_F32].xDot(aRot, aRot, p->code.nPad);
  i64 i, n;
  m = m < p->n ? m : p->n;
  if (p->aBlock && m * 4 <= p->n) {
    n = rankByCode(p, pErr, aRot, rNorm, m);
  } else {
    for (n = 0; n < p->n; n++) {
      p->aAll[n] = rankOne(p, aRot, rNorm, n);
    }
  }
  if (m == 1 && n > 1) {
    for (i = 1; i < n; i++) {
      if (rankOrder(&p->aAll[i], &p->aAll[0]) < 0) {
        p->aAll[0] = p->aAll[i];
      }
    }
  } else if (n > 1) {
    qsort(p->aAll, (size_t)n, sizeof(*p->aAll), rankOrder);
  }
  n = n < m ? n : m;
  memcpy(a, p->aAll, (size_t)n * sizeof(*a));
  return pErr->rc == SQLITE_OK ? n : 0;
}
