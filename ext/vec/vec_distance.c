/* SPDX-License-Identifier: MIT */
/*
** Distances: vec_distance_l2, _l1, _cosine, _hamming, _dot; libSQL's
** vector_distance_cos; pgvector's cosine_distance, l2_distance, inner_product.
**
** In `ORDER BY vec_distance_cosine(column, ?)` one argument is constant. What
** was made of it (the numbers of its JSON text, the square of its length) is
** kept by SQLite as auxiliary data until the statement ends; a blob is read
** where it lies, without a copy.
*/
#include "vec.h"
#include <math.h>

CHOIR_PRIVATE double choirVecNorm2(const ChoirKern *pKern, int eType,
                                   const void *a, i64 nDim) {
  return pKern->a[eType].xDot(a, a, (size_t)nDim);
}

CHOIR_PRIVATE double choirVecDistance(const ChoirKern *pKern, int eMetric,
                                      int eType, const void *a, const void *b,
                                      i64 nDim, double qq) {
  const ChoirKernOps *p = &pKern->a[eType == VEC_BIT ? VEC_I8 : eType];
  const size_t n = (size_t)nDim;
  double aCos[2], r;
  switch (eMetric) {
  case VEC_L2:
    return sqrt(p->xL2(a, b, n));
  case VEC_L1:
    return p->xL1(a, b, n);
  case VEC_DOT:
    return -p->xDot(a, b, n);
  case VEC_HAMMING:
    return (double)pKern->xHamming(a, b, n / 8);
  default:
    p->xCos(a, b, n, aCos);
    qq = qq < 0 ? p->xDot(a, a, n) : qq;
    r = 1.0 - aCos[0] / sqrt(qq * aCos[1]);
    /* Rounding may lead out of 0 to 2; what is far outside or NaN comes from
    ** lengths that no float holds, and stays. */
    return r < 0.0 && r > -1e-3 ? 0.0 : r > 2.0 && r < 2.001 ? 2.0 : r;
  }
}

/* What is kept of a constant argument. */
typedef struct DistanceAux {
  ChoirVec v; /* from text: owned; from a blob: only its length is used */
  double qq;  /* dot(v,v), -1 when the metric does not need it */
  const ChoirKern *pKern;
  u8 bUsed; /* a row came after the one that made it */
} DistanceAux;

static void distanceAuxFree(void *pArg) {
  choirVecFree(&((DistanceAux *)pArg)->v);
  sqlite3_free(pArg);
}

/* Calls in a row for which SQLite had kept nothing: the first of a statement
** whose argument is constant, every one of vec_distance_l2(t.a, u.b). */
typedef struct DistanceState {
  u32 nMiss;
} DistanceState;

static const ChoirStateType distanceStateType = {"vec_distance",
                                                 sizeof(DistanceState), NULL};

static DistanceState *distanceState(ChoirConn *pConn) {
  ChoirErr err = {SQLITE_OK, NULL};
  DistanceState *p = choirState(pConn, &err, &distanceStateType);
  choirErrClear(&err);
  return p;
}

/* Keeping costs as much as a distance, so where it was in vain it is tried for
** one call in sixteen. */
static int distanceMayKeep(ChoirConn *pConn) {
  DistanceState *p = distanceState(pConn);
  return p && (p->nMiss++ < 16 || p->nMiss % 16 == 0);
}

static DistanceAux *distanceKept(ChoirCall *p, int i) {
  DistanceAux *pAux = sqlite3_get_auxdata(p->pCtx, i);
  if (pAux && !pAux->bUsed) {
    DistanceState *pState = distanceState(p->pConn);
    pAux->bUsed = 1;
    if (pState) {
      pState->nMiss = 0;
    }
  }
  return pAux;
}

/* The i-th vector: what is kept of it, or the argument itself. */
static void distanceArg(ChoirCall *p, int i, const DistanceAux *pAux,
                        ChoirVec *pVec) {
  if (pAux && pAux->v.pOwn) {
    *pVec = pAux->v;
    pVec->pOwn = NULL;
  } else {
    choirVecArg(&p->err, pVec, p->apArg[i], i ? "2nd vector" : "1st vector");
  }
}

/* Keeps argument i for the next row; SQLite forgets it when it is not
** constant. The vector's memory moves to what is kept. */
static void distanceKeep(ChoirCall *p, int i, ChoirVec *pVec,
                         const ChoirKern *pKern, double qq) {
  DistanceAux *pAux;
  if (pVec->pOwn == NULL && qq < 0) {
    return; /* a blob without its length squared: nothing worth keeping */
  }
  pAux = sqlite3_malloc64(sizeof(*pAux));
  if (pAux) { /* without memory it is made again for the next row */
    pAux->v = *pVec;
    pAux->qq = qq;
    pAux->pKern = pKern;
    pAux->bUsed = 0;
    pVec->pOwn = NULL;
    sqlite3_set_auxdata(p->pCtx, i, pAux, distanceAuxFree);
  }
}

static void distanceCall(ChoirCall *p, int eMetric) {
  DistanceAux *pAux1 = distanceKept(p, 1);
  DistanceAux *pAux0 = pAux1 ? NULL : distanceKept(p, 0);
  ChoirVec a, b;
  distanceArg(p, 0, pAux0, &a);
  distanceArg(p, 1, pAux1, &b);
  choirVecSame(&p->err, &a, &b);
  if (p->err.rc == SQLITE_OK) {
    choirVecAllows(&p->err, eMetric, a.eType);
  }
  if (p->err.rc == SQLITE_OK) {
    const DistanceAux *pAux = pAux0 ? pAux0 : pAux1;
    const ChoirKern *pKern = pAux ? pAux->pKern : choirVecKern(p->pConn);
    const int bNorm = eMetric == VEC_COSINE;
    /* q is the one that may be constant */
    const void *q = pAux0 ? a.a : b.a, *r = pAux0 ? b.a : a.a;
    double qq = pAux    ? pAux->qq
                : bNorm ? choirVecNorm2(pKern, b.eType, b.a, b.nDim)
                        : -1;
    double rDist = choirVecDistance(pKern, eMetric, a.eType, q, r, a.nDim, qq);
    if (a.eType == VEC_I8 && eMetric == VEC_L1) {
      sqlite3_result_int64(p->pCtx, (i64)rDist);
    } else {
      sqlite3_result_double(p->pCtx, rDist);
    }
    if (pAux == NULL && distanceMayKeep(p->pConn)) {
      double aa = bNorm ? choirVecNorm2(pKern, a.eType, a.a, a.nDim) : -1;
      distanceKeep(p, 1, &b, pKern, qq);
      distanceKeep(p, 0, &a, pKern, aa);
    }
  }
  choirVecFree(&b);
  choirVecFree(&a);
}

/*
** SQL: vec_distance_l2(a, b) -> REAL
** SQL: l2_distance(a, b) -> REAL
**
** The Euclidean distance: the root of the sum of (a - b) squared.
**
**   a, b  TEXT (JSON) or BLOB, same type and length, any type but bit
**
** Two float32 results may differ in the last digits between processors.
** l2_distance is pgvector's name, registered only where it is free.
** NULL: an error. A NaN in a vector gives NULL.
** Errors: different types or dimensions; bit vectors.
** Source: sqlite-vec vec_distance_l2, pgvector l2_distance.
**
** > SELECT vec_distance_l2('[1, 2]', '[4, 6]')
** = 5.0
** > SELECT vec_distance_l2('[1, 2]', '[1, 2, 3]')
** ! vec_distance_l2: vectors have different dimensions, 2 and 3
*/
static void distanceL2(ChoirCall *p) { distanceCall(p, VEC_L2); }

/*
** SQL: vec_distance_l1(a, b) -> REAL
**
** The sum of the absolute differences; an integer for int8 vectors.
**
**   a, b  TEXT (JSON) or BLOB, same type and length, any type but bit
**
** NULL: an error. A NaN in a vector gives NULL.
** Errors: different types or dimensions; bit vectors.
** Source: sqlite-vec vec_distance_l1.
**
** > SELECT vec_distance_l1('[1, 2]', '[4, 6]')
** = 7.0
*/
static void distanceL1(ChoirCall *p) { distanceCall(p, VEC_L1); }

/*
** SQL: vec_distance_cosine(a, b) -> REAL
** SQL: vector_distance_cos(a, b) -> REAL
** SQL: cosine_distance(a, b) -> REAL
**
** 1 - cos of the angle between the vectors: 0 same direction, 1 at right
** angles, 2 opposite.
**
**   a, b  TEXT (JSON) or BLOB, same type and length, any type but bit
**
** vector_distance_cos is libSQL's and cosine_distance pgvector's name; both are
** registered only where they are free.
** NULL: an error. A vector of length 0, or a NaN, gives NULL.
** Errors: different types or dimensions; bit vectors.
** Source: sqlite-vec vec_distance_cosine, libSQL vector_distance_cos, pgvector
** cosine_distance.
**
** > SELECT vec_distance_cosine('[1, 0]', '[0, 2]')
** = 1.0
** > SELECT vec_distance_cosine('[0, 0]', '[0, 2]') IS NULL
** = 1
*/
static void distanceCosine(ChoirCall *p) { distanceCall(p, VEC_COSINE); }

/*
** SQL: vec_distance_hamming(a, b) -> REAL
**
** The number of bits in which two bit vectors differ.
**
**   a, b  BLOB from vec_bit or vec_quantize_binary, same length
**
** NULL: an error.
** Errors: different dimensions; vectors of another type.
** Source: sqlite-vec vec_distance_hamming.
**
** > SELECT vec_distance_hamming(vec_bit(x'0f'), vec_bit(x'1e'))
** = 2.0
*/
static void distanceHamming(ChoirCall *p) { distanceCall(p, VEC_HAMMING); }

/*
** SQL: vec_distance_dot(a, b) -> REAL
**
** The negative inner product, so that the nearest comes first in ORDER BY: for
** vectors of length 1 the same order as cosine, with less work.
**
**   a, b  TEXT (JSON) or BLOB, same type and length, any type but bit
**
** NULL: an error. A NaN in a vector gives NULL.
** Errors: different types or dimensions; bit vectors.
** Source: pgvector's operator <#>.
**
** > SELECT vec_distance_dot('[1, 2]', '[3, 4]')
** = -11.0
*/
static void distanceDot(ChoirCall *p) { distanceCall(p, VEC_DOT); }

/*
** SQL: inner_product(a, b) -> REAL
**
** The inner product, the sum of a * b. pgvector's name, registered only where
** it is free; vec_distance_dot is its negative.
**
**   a, b  TEXT (JSON) or BLOB, same type and length, any type but bit
**
** NULL: an error.
** Errors: different types or dimensions; bit vectors.
** Source: pgvector inner_product.
**
** > SELECT inner_product('[1, 2]', '[3, 4]')
** = 11.0
*/
static void distanceInner(ChoirCall *p) {
  ChoirVec a, b;
  choirVecArg(&p->err, &a, p->apArg[0], "1st vector");
  choirVecArg(&p->err, &b, p->apArg[1], "2nd vector");
  choirVecSame(&p->err, &a, &b);
  if (p->err.rc == SQLITE_OK) {
    choirVecAllows(&p->err, VEC_DOT, a.eType);
  }
  if (p->err.rc == SQLITE_OK) {
    sqlite3_result_double(p->pCtx,
                          -choirVecDistance(choirVecKern(p->pConn), VEC_DOT,
                                            a.eType, a.a, b.a, a.nDim, -1));
  }
  choirVecFree(&b);
  choirVecFree(&a);
}

#define DISTANCE_SHARED CHOIR_SUBTYPE | CHOIR_SHARED
#define DISTANCE_ALIAS CHOIR_SUBTYPE | CHOIR_ALIAS

static const ChoirFunc aDistanceFunc[] = {
    {"vec_distance_l2", 2, 2, CHOIR_PURE, DISTANCE_SHARED, distanceL2, NULL},
    {"vec_distance_l1", 2, 2, CHOIR_PURE, DISTANCE_SHARED, distanceL1, NULL},
    {"vec_distance_cosine", 2, 2, CHOIR_PURE, DISTANCE_SHARED, distanceCosine,
     NULL},
    {"vec_distance_hamming", 2, 2, CHOIR_PURE, DISTANCE_SHARED, distanceHamming,
     NULL},
    {"vec_distance_dot", 2, 2, CHOIR_PURE, CHOIR_SUBTYPE, distanceDot, NULL},
    {"vector_distance_cos", 2, 2, CHOIR_PURE, DISTANCE_ALIAS, distanceCosine,
     NULL},
    {"cosine_distance", 2, 2, CHOIR_PURE, DISTANCE_ALIAS, distanceCosine, NULL},
    {"l2_distance", 2, 2, CHOIR_PURE, DISTANCE_ALIAS, distanceL2, NULL},
    {"inner_product", 2, 2, CHOIR_PURE, DISTANCE_ALIAS, distanceInner, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirVecDistanceRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aDistanceFunc);
}
