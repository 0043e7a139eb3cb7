/* SPDX-License-Identifier: MIT */
/*
** k-means over rotated vectors, each compared with the centres by their codes.
*/
#include "index.h"

#define MEANS_ROUNDS 8

static u64 meansRandom(u64 *p) { /* xorshift64 */
  *p ^= *p << 13;
  *p ^= *p >> 7;
  *p ^= *p << 17;
  return *p;
}

/* Sums by centre; a centre that nothing is near to becomes some vector. */
static void meansMove(const ChoirCode *pCode, const float *a, i64 n,
                      const i32 *aiNear, float *aCentre, i64 *anNear, i64 nList,
                      u64 *piSeed) {
  size_t nPad = pCode->nPad, j;
  i64 i;
  memset(aCentre, 0, (size_t)nList * nPad * sizeof(float));
  memset(anNear, 0, (size_t)nList * sizeof(i64));
  for (i = 0; i < n; i++) {
    float *c = aCentre + (size_t)aiNear[i] * nPad;
    const float *x = a + (size_t)i * nPad;
    anNear[aiNear[i]]++;
    for (j = 0; j < nPad; j++) {
      c[j] += x[j];
    }
  }
  for (i = 0; i < nList; i++) {
    float *c = aCentre + (size_t)i * nPad, r = 1.0f / (float)anNear[i];
    if (anNear[i] == 0) {
      i64 iFrom = (i64)(meansRandom(piSeed) % (u64)n);
      memcpy(c, a + (size_t)iFrom * nPad, nPad * sizeof(float));
      continue;
    }
    for (j = 0; j < nPad; j++) {
      c[j] *= r;
    }
  }
}

CHOIR_PRIVATE void choirMeans(ChoirConn *pConn, ChoirErr *pErr,
                              const ChoirCode *pCode, const float *a, i64 n,
                              const float *aMean, float *aCentre, i64 nList) {
  i32 *aiNear = choirMalloc(pErr, (u64)n * sizeof(i32));
  i64 *anNear = choirMalloc(pErr, (u64)nList * sizeof(i64));
  size_t nPad = pCode->nPad;
  u64 iSeed = 0x9e3779b97f4a7c15u;
  i64 i;
  int iRound;
  for (i = 0; i < nList && pErr->rc == SQLITE_OK; i++) {
    i64 iFrom = i * n / nList + (i64)(meansRandom(&iSeed) % 7);
    iFrom = iFrom < n ? iFrom : n - 1;
    memcpy(aCentre + (size_t)i * nPad, a + (size_t)iFrom * nPad,
           nPad * sizeof(float));
  }
  for (iRound = 0; iRound < MEANS_ROUNDS && pErr->rc == SQLITE_OK; iRound++) {
    ChoirRank *pRank = choirRankNew(pErr, pCode, aCentre, nList, aMean);
    for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
      ChoirNear near = {0, 0, 0};
      (void)choirRankNear(pRank, pErr, a + (size_t)i * nPad, &near, 1);
      aiNear[i] = near.iList;
      if ((i & 1023) == 0 && choirInterrupted(pConn)) {
        choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
      }
    }
    choirRankFree(pRank);
    if (pErr->rc == SQLITE_OK) {
      meansMove(pCode, a, n, aiNear, aCentre, anNear, nList, &iSeed);
    }
  }
  sqlite3_free(aiNear);
  sqlite3_free(anNear);
}
