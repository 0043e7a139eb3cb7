/* SPDX-License-Identifier: MIT */
/*
** A closer look at a candidate without its row: codes of one byte a dimension.
**
** Only in memory, within vec.cache_bytes: a row that a search has read because
** one bit a dimension could not rule it out leaves such a code beside those of
** its list, and goes with them. So a connection that searches once pays nothing
** for it, one that goes on reads hardly more rows than it returns.
**
** A vector x (of length 1 under cosine) is s c + e: c whole numbers up to 127.
** The query q is s1 c1 + s2 c2 + e', twice as exact. <x, q> is then estimated by
** s (s1 <c, c1> + s2 <c, c2>), and is never farther from it than
** |e| |q| + |e'| (|x| + |e|): nothing is lost here that the bits had kept.
*/
#include "index.h"
#include <math.h>

#define FINE_MOST 127.0f
#define FINE_ROUND 1e-6 /* of a float, in sums of terms so large */
#define FINE_FAR 1e30   /* beyond, the bits' estimate stays */

typedef struct FineRow { /* followed by nDim bytes */
  i64 iRowid;
  float rStep, rError; /* s, |e| */
  float rNorm;         /* |x|^2 */
} FineRow;

/* Whole numbers for n floats, which become what is left of them. Returns s. */
static float fineRound(float *a, i64 n, signed char *aOut) {
  float rMost = 0, rMul, rStep;
  i64 i;
  for (i = 0; i < n; i++) {
    float r = fabsf(a[i]);
    rMost = r > rMost ? r : rMost;
  }
  rStep = rMost / FINE_MOST;
  rMul = rStep > 0 ? 1 / rStep : 0;
  for (i = 0; i < n; i++) {
    float r = a[i] * rMul;
    aOut[i] = (signed char)(r + (r < 0 ? -0.5f : 0.5f));
    a[i] -= rStep * (float)aOut[i];
  }
  return rStep;
}

/* The vector's floats into a; |a|^2, or -1 when it has no direction or is no
** number. */
static double fineFloats(const ChoirCode *p, const void *aVec, float *a) {
  const ChoirKernOps *pOps = &p->pKern->a[KERN_F32];
  double rNorm, rMul;
  i64 i;
  choirCodeFloats(p, aVec, a);
  rNorm = pOps->xDot(a, a, (size_t)p->nDim);
  if (!(rNorm > 1e-30 && rNorm < 1e30)) {
    return -1;
  }
  if (p->eMetric == VEC_COSINE) {
    rMul = 1 / sqrt(rNorm);
    for (i = 0; i < p->nDim; i++) {
      a[i] = (float)((double)a[i] * rMul);
    }
    rNorm = 1;
  }
  return rNorm;
}

static float fineLength(const ChoirCode *p, const float *a) {
  return (float)sqrt(p->pKern->a[KERN_F32].xDot(a, a, (size_t)p->nDim));
}

CHOIR_PRIVATE void choirFineInit(ChoirFine *p, ChoirErr *pErr,
                                 const ChoirCode *pCode, const void *aQuery) {
  size_t n = (size_t)pCode->nDim;
  p->pCode = pCode;
  p->aRest = choirMalloc(pErr, n * sizeof(float));
  p->aCode = choirMalloc(pErr, 2 * n);
  p->rNorm = pErr->rc == SQLITE_OK ? fineFloats(pCode, aQuery, p->aRest) : -1;
  if (p->rNorm >= 0) {
    p->arStep[0] = fineRound(p->aRest, pCode->nDim, p->aCode);
    p->arStep[1] = fineRound(p->aRest, pCode->nDim, p->aCode + n);
    p->rError = fineLength(pCode, p->aRest);
  }
}

CHOIR_PRIVATE void choirFineFree(ChoirFine *p) {
  sqlite3_free(p->aRest);
  sqlite3_free(p->aCode);
  memset(p, 0, sizeof(*p));
}

CHOIR_PRIVATE size_t choirFineBytes(const ChoirCode *p) {
  return sizeof(FineRow) + (size_t)p->nDim;
}

CHOIR_PRIVATE int choirFineRow(ChoirFine *p, i64 iRowid, const void *aVec,
                               u8 *a) {
  FineRow row;
  memset(&row, 0, sizeof(row));
  row.iRowid = iRowid;
  row.rNorm = (float)fineFloats(p->pCode, aVec, p->aRest);
  if (row.rNorm < 0) {
    return 0;
  }
  row.rStep =
      fineRound(p->aRest, p->pCode->nDim, (signed char *)a + sizeof(FineRow));
  row.rError = fineLength(p->pCode, p->aRest);
  memcpy(a, &row, sizeof(row));
  return 1;
}

CHOIR_PRIVATE int choirFineIs(const u8 *a, i64 iRowid) {
  return a && memcmp(a, &iRowid, sizeof(iRowid)) == 0;
}

CHOIR_PRIVATE void choirFineLook(const ChoirFine *p, const u8 *a,
                                 ChoirCand *pCand) {
  const ChoirCode *c = p->pCode;
  const ChoirKernPair xDot = c->pKern->a[KERN_I8].xDot;
  const size_t n = (size_t)c->nDim;
  double s = (double)c->rScale, rInner, rErr, rEst;
  FineRow row;
  memcpy(&row, a, sizeof(row));
  a += sizeof(row);
  rInner =
      (double)row.rStep * ((double)p->arStep[0] * xDot(a, p->aCode, n) +
                           (double)p->arStep[1] * xDot(a, p->aCode + n, n));
  rErr = (double)row.rError * sqrt(p->rNorm) +
         (double)p->rError * (sqrt((double)row.rNorm) + (double)row.rError);
  rEst = c->eMetric == VEC_DOT ? 0 : (double)row.rNorm + p->rNorm;
  rErr = 2 * rErr + FINE_ROUND * ((double)row.rNorm + p->rNorm);
  rEst = (rEst - 2 * rInner) * s * s;
  rErr *= s * s;
  if (fabs(rEst) + rErr < FINE_FAR &&
      (!(pCand->rLow > -INFINITY) ||
       rErr < (double)(pCand->rEst - pCand->rLow))) {
    pCand->rEst = (float)rEst;
    pCand->rLow = (float)(rEst - rErr);
  }
}
