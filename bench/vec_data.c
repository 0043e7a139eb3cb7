/* SPDX-License-Identifier: MIT */
/*
** What bench_vec_index.py needs fast: vectors of a known kind from a seed, and
** the true nearest neighbours. Compiled and called by it through ctypes.
*/
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t i64;

static uint64_t iState;

static uint64_t next(void) { /* splitmix64 */
  uint64_t z = (iState += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static float uniform(void) { return (float)(next() >> 40) / 16777216.0f; }

/* Nearly normal: the sum of four uniform numbers, of variance 1. */
static float normal(void) {
  uint64_t r = next();
  i64 n = (i64)(r & 65535) + (i64)(r >> 16 & 65535) + (i64)(r >> 32 & 65535) +
          (i64)(r >> 48);
  return (float)(n - 131070) * (1.7320508f / 65536.0f);
}

void vec_uniform(float *a, i64 n, uint64_t iSeed) {
  i64 i;
  iState = iSeed;
  for (i = 0; i < n; i++) {
    a[i] = uniform() * 2 - 1;
  }
}

#define LATENT 96

/* n rows of length 1: clusters whose sizes follow Zipf's law, in a latent space
** with a spectrum of the given power, mapped to nDim dimensions, with noise. */
void vec_clusters(float *a, i64 n, int nDim, int nCluster, double rPower,
                  double rSpread, double rNoise, uint64_t iSeed) {
  float *aCentre = malloc(sizeof(float) * LATENT * (size_t)nCluster);
  float *aMap = malloc(sizeof(float) * LATENT * (size_t)nDim);
  double *aSum = malloc(sizeof(double) * (size_t)nCluster), rAll = 0, r2 = 0;
  float aSpec[LATENT], x[LATENT], rScale;
  i64 i;
  int j, k;
  iState = iSeed;
  for (j = 0; j < LATENT; j++) {
    aSpec[j] = (float)pow(j + 1.0, -rPower);
    r2 += (double)(aSpec[j] * aSpec[j]);
  }
  for (i = 0; i < (i64)nCluster * LATENT; i++) {
    aCentre[i] = normal() * aSpec[i % LATENT];
  }
  for (i = 0; i < (i64)nDim * LATENT; i++) {
    aMap[i] = normal() / sqrtf(LATENT);
  }
  for (i = 0; i < nCluster; i++) {
    aSum[i] = rAll += 1 / ((double)i + 10);
  }
  rScale = (float)(rNoise * sqrt(r2 / nDim));
  for (i = 0; i < n; i++) {
    float *v = a + i * nDim, rNorm = 0;
    double at = (double)uniform() * rAll;
    int lo = 0, hi = nCluster - 1;
    while (lo < hi) {
      int mid = (lo + hi) / 2;
      if (aSum[mid] < at) {
        lo = mid + 1;
      } else {
        hi = mid;
      }
    }
    for (j = 0; j < nDim; j++) {
      v[j] = rScale * normal();
    }
    for (k = 0; k < LATENT; k++) {
      x[k] =
          aCentre[(i64)lo * LATENT + k] + (float)rSpread * aSpec[k] * normal();
      for (j = 0; j < nDim; j++) {
        v[j] += x[k] * aMap[k * nDim + j];
      }
    }
    for (j = 0; j < nDim; j++) {
      rNorm += v[j] * v[j];
    }
    for (j = 0, rNorm = 1 / sqrtf(rNorm); j < nDim; j++) {
      v[j] *= rNorm;
    }
  }
  free(aCentre);
  free(aMap);
  free(aSum);
}

/* ---------------------------------------------------------------- truth */

typedef struct Hit {
  float r; /* cosine */
  int i;
} Hit;

static int order(const void *pA, const void *pB) {
  const Hit *a = pA, *b = pB;
  return a->r != b->r ? (a->r > b->r ? -1 : 1) : a->i - b->i;
}

static void push(Hit *a, int n, Hit h) { /* a heap of the k best, worst first */
  int i = 0, c;
  while ((c = 2 * i + 1) < n) {
    c += c + 1 < n && a[c + 1].r < a[c].r;
    if (a[c].r >= h.r) {
      break;
    }
    a[i] = a[c];
    i = c;
  }
  a[i] = h;
}

/* The k nearest of n rows by cosine to each of nq queries: numbers from 0 and
** cosines, nearest first. nDim is a multiple of 16. */
void vec_truth(const float *a, i64 n, int nDim, const float *q, int nq, int k,
               i64 *aId, float *aCos) {
  Hit *aHit = malloc(sizeof(Hit) * (size_t)nq * (size_t)k);
  float *u = malloc(sizeof(float) * (size_t)nq * (size_t)nDim);
  i64 i;
  int j, d, l;
  for (j = 0; j < nq; j++) {
    float s = 0;
    for (d = 0; d < nDim; d++) {
      s += q[j * nDim + d] * q[j * nDim + d];
    }
    for (d = 0; d < nDim; d++) {
      u[j * nDim + d] = q[j * nDim + d] / sqrtf(s);
    }
  }
  for (j = 0; j < nq * k; j++) {
    aHit[j].r = -INFINITY;
    aHit[j].i = -1;
  }
  for (i = 0; i < n; i++) {
    const float *v = a + i * nDim;
    float s = 0;
    for (d = 0; d < nDim; d += 16) {
      for (l = 0; l < 16; l++) {
        s += v[d + l] * v[d + l];
      }
    }
    s = 1 / sqrtf(s);
    for (j = 0; j < nq; j += 4) {
      float t[4][16] = {{0}};
      int m = nq - j < 4 ? nq - j : 4, x;
      for (d = 0; d < nDim; d += 16) {
        for (x = 0; x < m; x++) {
          for (l = 0; l < 16; l++) {
            t[x][l] += v[d + l] * u[(j + x) * nDim + d + l];
          }
        }
      }
      for (x = 0; x < m; x++) {
        Hit h = {0, (int)i};
        for (l = 0; l < 16; l++) {
          h.r += t[x][l];
        }
        h.r *= s;
        if (h.r > aHit[(j + x) * k].r) {
          push(aHit + (j + x) * k, k, h);
        }
      }
    }
  }
  for (j = 0; j < nq; j++) {
    qsort(aHit + j * k, (size_t)k, sizeof(Hit), order);
    for (d = 0; d < k; d++) {
      aId[j * k + d] = aHit[j * k + d].i;
      aCos[j * k + d] = aHit[j * k + d].r;
    }
  }
  free(aHit);
  free(u);
}
