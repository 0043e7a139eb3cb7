/* SPDX-License-Identifier: MIT */
/*
** Aggregates over vectors: vec_sum and vec_avg. Sums are kept in double.
*/
#include "vec.h"

typedef struct AggSum {
  int eType;
  i64 nDim; /* 0: no vector seen */
  i64 nRow;
  double *aSum; /* nDim sums, freed by the final call */
} AggSum;

static void aggStep(ChoirCall *p) {
  AggSum *pSum = sqlite3_aggregate_context(p->pCtx, sizeof(*pSum));
  ChoirVec v;
  i64 i;
  if (sqlite3_value_type(p->apArg[0]) == SQLITE_NULL) {
    return;
  }
  if (pSum == NULL) {
    choirErrNomem(&p->err);
    return;
  }
  choirVecArg(&p->err, &v, p->apArg[0], "vector");
  if (p->err.rc == SQLITE_OK && v.eType == VEC_BIT) {
    choirErrSet(&p->err, SQLITE_ERROR, "cannot add bit vectors");
  } else if (p->err.rc == SQLITE_OK && pSum->nDim == 0) {
    pSum->aSum = choirMalloc(&p->err, (u64)v.nDim * sizeof(double));
    pSum->nDim = pSum->aSum ? v.nDim : 0;
    pSum->eType = v.eType;
  } else if (p->err.rc == SQLITE_OK) {
    ChoirVec first = {.eType = pSum->eType, .nDim = pSum->nDim};
    choirVecSame(&p->err, &first, &v);
  }
  if (p->err.rc == SQLITE_OK) {
    for (i = 0; i < v.nDim; i++) {
      pSum->aSum[i] += (double)choirVecAt(&v, i);
    }
    pSum->nRow++;
  }
  choirVecFree(&v);
}

static void aggFinal(ChoirCall *p, int bAverage) {
  AggSum *pSum = sqlite3_aggregate_context(p->pCtx, 0);
  ChoirVec out;
  i64 i;
  if (pSum == NULL || pSum->nDim == 0) {
    return; /* no rows: NULL */
  }
  choirVecNew(&p->err, &out, VEC_F32, pSum->nDim);
  for (i = 0; i < out.nDim; i++) {
    choirVecPut(&out, i,
                (float)(pSum->aSum[i] / (bAverage ? (double)pSum->nRow : 1.0)));
  }
  sqlite3_free(pSum->aSum);
  pSum->aSum = NULL;
  pSum->nDim = 0;
  if (p->err.rc == SQLITE_OK) {
    choirVecResult(&out, p->pCtx);
  }
  choirVecFree(&out);
}

/*
** SQL: aggregate vec_sum(vector) -> BLOB
**
** The sum of the vectors of a group, element by element, as float32.
**
**   vector  TEXT (JSON) or BLOB, all of one type and length, not bit
**
** Sums are kept in double precision.
** NULL: skipped; a group without vectors gives NULL.
** Errors: different types or dimensions; bit vectors.
**
** > SELECT vec_to_json(vec_sum(value)) FROM json_each('["[1,2]", "[3,4]"]')
** = [4.000000,6.000000]
*/
static void aggSumFinal(ChoirCall *p) { aggFinal(p, 0); }

/*
** SQL: aggregate vec_avg(vector) -> BLOB
**
** The mean of the vectors of a group (their centroid), as float32.
**
**   vector  TEXT (JSON) or BLOB, all of one type and length, not bit
**
** NULL: skipped; a group without vectors gives NULL.
** Errors: different types or dimensions; bit vectors.
**
** > SELECT vec_to_json(vec_avg(value)) FROM json_each('["[1,2]", "[3,4]"]')
** = [2.000000,3.000000]
*/
static void aggAvgFinal(ChoirCall *p) { aggFinal(p, 1); }

static const ChoirFunc aAggFunc[] = {
    {"vec_sum", 1, 1, CHOIR_PURE, CHOIR_SUBTYPE, aggStep, aggSumFinal},
    {"vec_avg", 1, 1, CHOIR_PURE, CHOIR_SUBTYPE, aggStep, aggAvgFinal},
};

CHOIR_PRIVATE CHOIR_COLD void choirVecAggRegister(ChoirConn *pConn,
                                                  ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aAggFunc);
}
