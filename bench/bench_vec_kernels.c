/* SPDX-License-Identifier: MIT */
/*
** Bandwidth of every kernel and tier, from the second-level cache and from
** memory, against the rate at which this machine reads memory in the same run.
**
**   gcc -O2 bench/bench_vec_kernels.c ext/kern/[a-z]*.c -o build/bench_kern -lm
**   build/bench_kern [DIMENSIONS [MEGABYTES]]        default 384 512
**
** Best of interleaved rounds, by the thread's CPU time. Rows lie behind each other
** and are taken four at a time, one after the other: read side by side, by one
** kernel for four, they come from memory a fifth slower (docs/performance.md).
** "read" is a plain sum in 256-bit registers.
*/
#include "../ext/kern/kern.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS 7
#define CACHED (256 * 1024) /* bytes that stay in the second-level cache */

static size_t nDim = 384, nMem = (size_t)512 << 20;
static uint8_t *aMem, *aQuery;
static volatile double sink;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef uint64_t Lane __attribute__((vector_size(32), aligned(32)));

#if CHOIR_KERN_X86
__attribute__((target_clones("avx2", "default")))
#endif
static void
readSum(size_t nByte) {
  const Lane *p = (const Lane *)(void *)aMem;
  Lane a = {0}, b = {0}, c = {0}, d = {0};
  size_t i, n = nByte / 32 / 4 * 4;
  for (i = 0; i < n; i += 4) {
    a += p[i];
    b += p[i + 1];
    c += p[i + 2];
    d += p[i + 3];
  }
  a += b + c + d;
  sink = (double)(a[0] + a[1] + a[2] + a[3]);
}

enum { DOT, L2, COS, HAMMING, NOP };
static const char *const azOp[NOP] = {"dot", "l2", "cos", "hamming"};
static const size_t aSize[KERN_NTYPE] = {4, 2, 2, 1};

static void run(const ChoirKern *p, int eType, int eOp, size_t nByte) {
  const ChoirKernOps *k = &p->a[eType];
  size_t nRowByte = eOp == HAMMING ? nDim / 8 : nDim * aSize[eType];
  size_t i, n = nByte / nRowByte / 4 * 4;
  double a[2], sum = 0;
  for (i = 0; i < n; i++) {
    const uint8_t *r = aMem + i * nRowByte;
    switch (eOp) {
    case DOT:
      a[0] = k->xDot(aQuery, r, nDim);
      break;
    case L2:
      a[0] = k->xL2(aQuery, r, nDim);
      break;
    case COS:
      k->xCos(aQuery, r, nDim, a);
      break;
    default:
      a[0] = (double)p->xHamming(aQuery, r, nRowByte);
    }
    sum += a[0];
  }
  sink = sum;
}

/* Seconds for nMem bytes, read again and again when nByte is less. */
static double timed(const ChoirKern *p, int eType, int eOp, size_t nByte) {
  size_t i, nRepeat = nByte < nMem ? (nMem / 8) / nByte : 1;
  double t = now();
  for (i = 0; i < nRepeat; i++) {
    if (p) {
      run(p, eType, eOp, nByte);
    } else {
      readSum(nByte);
    }
  }
  return (now() - t) / ((double)nRepeat * (double)nByte);
}

int main(int argc, char **argv) {
  static const char *const azType[] = {"f32", "f16", "bf16", "i8"};
  static double aBest[8][KERN_NTYPE][NOP][2], aRead[2] = {1, 1};
  const ChoirKern *p;
  int iRound, iTier, eType, eOp, iWhere;
  size_t i;
  nDim = argc > 1 ? (size_t)atol(argv[1]) : nDim;
  nMem = argc > 2 ? (size_t)atol(argv[2]) << 20 : nMem;
  aMem = aligned_alloc(4096, nMem);
  aQuery = malloc(nDim * 4);
  for (i = 0; i < nMem / 2; i++) { /* ordinary numbers, whatever the type */
    uint16_t h = (uint16_t)(0x3c00 | (i * 2654435761u >> 7 & 0x3ff));
    memcpy(aMem + 2 * i, &h, 2);
  }
  memcpy(aQuery, aMem, nDim * 4);
  for (iRound = 0; iRound < ROUNDS; iRound++) {
    for (iWhere = 0; iWhere < 2; iWhere++) {
      size_t nByte = iWhere ? nMem : CACHED;
      double t = timed(NULL, 0, 0, nByte);
      aRead[iWhere] = t < aRead[iWhere] ? t : aRead[iWhere];
      for (iTier = 0; (p = choirKernSupported(iTier)) != NULL; iTier++) {
        if (iWhere && iTier < 2 && choirKernSupported(2)) {
          continue; /* the slow tiers from memory tell nothing */
        }
        for (eType = 0; eType < KERN_NTYPE; eType++) {
          for (eOp = 0; eOp < NOP - (eType != KERN_I8); eOp++) {
            double *pBest = &aBest[iTier][eType][eOp][iWhere];
            t = timed(p, eType, eOp, nByte);
            *pBest = *pBest == 0 || t < *pBest ? t : *pBest;
          }
        }
      }
    }
  }
  printf("%zu dimensions, %zu MB; read: %.1f GB/s from L2, %.1f from memory\n",
         nDim, nMem >> 20, 1e-9 / aRead[0], 1e-9 / aRead[1]);
  printf("%-8s %-5s %-8s %8s %8s %8s\n", "tier", "type", "kernel", "L2 GB/s",
         "memory", "of read");
  for (iTier = 0; (p = choirKernSupported(iTier)) != NULL; iTier++) {
    for (eType = 0; eType < KERN_NTYPE; eType++) {
      for (eOp = 0; eOp < NOP - (eType != KERN_I8); eOp++) {
        const double *t = aBest[iTier][eType][eOp];
        printf("%-8s %-5s %-8s %8.1f", p->zName,
               eOp == HAMMING ? "bit" : azType[eType], azOp[eOp], 1e-9 / t[0]);
        if (t[1] > 0) {
          printf(" %8.1f %8.2f", 1e-9 / t[1], aRead[1] / t[1]);
        }
        printf("\n");
      }
    }
  }
  return 0;
}
