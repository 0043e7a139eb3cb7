/* SPDX-License-Identifier: MIT */
/*
** Every kernel of every tier against a reference in double precision.
**
** Prints one line per tier: executed, or why not. Needs nothing but libc, so
** the same program runs natively, under qemu-user (NEON) and in node
** (WebAssembly). With -DKERN_EMULATE the AVX-512 tiers, compiled with the
** intrinsics emulated by simde, run on any x86-64 processor.
**
** The bound (kern.h): (n/lanes + 8) * 2^-23 * sum |t|; int8 and bits exact.
*/
#include "../../ext/kern/kern.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_N 70000

static uint8_t aMem[2][MAX_N * 4 + 16]; /* query and row, unaligned */
static uint64_t iSeed = 0x9e3779b97f4a7c15u;
static int nFail = 0;
static long nCheck = 0;

static uint32_t rnd(void) {
  iSeed ^= iSeed << 13;
  iSeed ^= iSeed >> 7;
  iSeed ^= iSeed << 17;
  return (uint32_t)(iSeed >> 32);
}

static const int aByte[KERN_NTYPE] = {4, 2, 2, 1};
static const char *const azType[KERN_NTYPE] = {"f32", "f16", "bf16", "i8"};

static void put(uint8_t *p, int eType, float f) {
  uint16_t h = eType == KERN_F16 ? choirF32ToF16(f) : choirF32ToBf16(f);
  if (eType == KERN_F32) {
    memcpy(p, &f, 4);
  } else if (eType == KERN_I8) {
    *p = (uint8_t)(int)f;
  } else {
    memcpy(p, &h, 2);
  }
}

static double get(const uint8_t *p, int eType) {
  float f;
  uint16_t h;
  if (eType == KERN_F32) {
    memcpy(&f, p, 4);
    return (double)f;
  }
  if (eType == KERN_I8) {
    return (double)(int8_t)*p;
  }
  memcpy(&h, p, 2);
  return (double)(eType == KERN_F16 ? choirF16ToF32(h) : choirBf16ToF32(h));
}

static void fill(uint8_t *p, int eType, size_t n) {
  size_t i;
  for (i = 0; i < n; i++, p += aByte[eType]) {
    float f = (float)((double)rnd() / 4294967296.0 * 2.0 - 1.0);
    put(p, eType, eType == KERN_I8 ? (float)((int)(rnd() & 255) - 128) : f);
  }
}

enum { M_DOT, M_L2, M_L1, M_NORM };

/* The sum and the sum of magnitudes, in double. */
static double reference(int eMetric, int eType, const uint8_t *a,
                        const uint8_t *b, size_t n, double *pMag) {
  double sum = 0, mag = 0;
  size_t i;
  for (i = 0; i < n; i++) {
    double x = get(a + i * (size_t)aByte[eType], eType);
    double y = get(b + i * (size_t)aByte[eType], eType);
    double t = eMetric == M_DOT  ? x * y
               : eMetric == M_L2 ? (x - y) * (x - y)
               : eMetric == M_L1 ? fabs(x - y)
                                 : y * y;
    sum += t;
    mag += fabs(t);
  }
  *pMag = mag;
  return sum;
}

static void check(const ChoirKern *p, const char *zWhat, int eType, size_t n,
                  double got, double want, double mag) {
  size_t nLane = strcmp(p->zName, "scalar") == 0 ? 1 : 4;
  double bound = eType == KERN_I8 ? 0.0
                                  : ((double)n / (double)nLane + 8.0) *
                                        1.1920928955078125e-7 * mag;
  nCheck++;
  if (!(fabs(got - want) <= bound)) {
    nFail++;
    printf("  FAIL %s %s %s n=%d: %.17g, reference %.17g, bound %g\n", p->zName,
           azType[eType], zWhat, (int)n, got, want, bound);
  }
}

static void testDim(const ChoirKern *p, int eType, size_t n, size_t iShift) {
  const ChoirKernOps *k = &p->a[eType];
  uint8_t *q = aMem[0] + iShift;
  double a[2], want, mag;
  int i;
  fill(q, eType, n);
  for (i = 0; i < 4; i++) {
    /* Each row at another offset from an aligned address. */
    uint8_t *r = aMem[1] + (iShift * (size_t)(i + 3)) % 13;
    fill(r, eType, n);
    want = reference(M_L1, eType, q, r, n, &mag);
    check(p, "l1", eType, n, k->xL1(q, r, n), want, mag);
    want = reference(M_L2, eType, q, r, n, &mag);
    check(p, "l2", eType, n, k->xL2(q, r, n), want, mag);
    want = reference(M_DOT, eType, q, r, n, &mag);
    check(p, "dot", eType, n, k->xDot(q, r, n), want, mag);
    k->xCos(q, r, n, a);
    check(p, "cos dot", eType, n, a[0], want, mag);
    want = reference(M_NORM, eType, q, r, n, &mag);
    check(p, "cos norm", eType, n, a[1], want, mag);
  }
}

static void testHamming(const ChoirKern *p, size_t n, size_t iShift) {
  uint8_t *a = aMem[0] + iShift, *b = aMem[1] + (iShift * 3) % 13;
  uint64_t want = 0, got;
  size_t i;
  for (i = 0; i < n; i++) {
    int x;
    a[i] = (uint8_t)rnd();
    b[i] = (uint8_t)rnd();
    for (x = a[i] ^ b[i]; x; x &= x - 1) {
      want++;
    }
  }
  got = p->xHamming(a, b, n);
  nCheck++;
  if (got != want) {
    nFail++;
    printf("  FAIL %s hamming n=%d: %d, reference %d\n", p->zName, (int)n,
           (int)got, (int)want);
  }
}

#define CODE_MAX 2048 /* groups */

static uint8_t aBlock[CODE_MAX * 16 + 192], aLut[CODE_MAX * 16];

static double half(size_t nGroup, int iFactor, int i) {
  uint16_t h;
  memcpy(&h, aBlock + nGroup * 16 + 64 * iFactor + 2 * i, 2);
  return (double)choirF16ToF32(h);
}

/* Sums of table entries are exact, so estimates are within float rounding. */
static void testScan(const ChoirKern *p, size_t nGroup) {
  ChoirKernProbe probe = {aLut, nGroup, 0.003f, -1.5f, 0.25f, 1.75f, 0.5f};
  float aEst[32], aErr[32];
  uint32_t m, want = 0;
  size_t g;
  int i;
  for (g = 0; g < nGroup * 16; g++) {
    aBlock[g] = (uint8_t)rnd();
    aLut[g] = g % 5 ? (uint8_t)(rnd() % 64) : 63;
  }
  for (i = 0; i < 96; i++) {
    uint16_t h = choirF32ToF16((float)((double)rnd() / 4294967296.0));
    memcpy(aBlock + nGroup * 16 + 2 * i, &h, 2);
  }
  m = p->xScan(&probe, aBlock, aEst, aErr);
  for (i = 0; i < 32; i++) {
    double sum = 0, est, err, mul = half(nGroup, 1, i);
    for (g = 0; g < nGroup; g++) {
      int b = aBlock[g * 16 + (size_t)(i & 15)];
      sum += aLut[g * 16 + (size_t)(i < 16 ? b & 15 : b >> 4)];
    }
    est = half(nGroup, 0, i) + 0.25 + mul * (sum * (double)0.003f - 1.5);
    err = half(nGroup, 2, i) * 1.75;
    nCheck += 2;
    if (!(fabs((double)aEst[i] - est) <= 1e-6 * (2 + sum * 0.003)) ||
        !(fabs((double)aErr[i] - err) <= 1e-6)) {
      nFail++;
      printf("  FAIL %s scan of %d groups, row %d: %g, reference %g\n",
             p->zName, (int)nGroup, i, (double)aEst[i], est);
    }
    want |= (uint32_t) !(aEst[i] - aErr[i] > 0.5f) << i;
  }
  nCheck++;
  if (m != want) {
    nFail++;
    printf("  FAIL %s scan mask %08x, reference %08x\n", p->zName, m, want);
  }
}

/* The rotation in double precision, as kern_scan.h states it. */
static void rotate(double *a, size_t n, const float *aSign) {
  size_t i, j, h, nPow = 64;
  int iRound;
  while (nPow * 2 <= n) {
    nPow *= 2;
  }
  for (iRound = 0; iRound < KERN_ROUNDS; iRound++) {
    double *p = iRound & 1 ? a + (n - nPow) : a;
    for (i = 0; i < n; i++) {
      a[i] *= (double)aSign[(size_t)iRound * n + i];
    }
    for (h = 1; h < nPow; h *= 2) {
      for (i = 0; i < nPow; i += 2 * h) {
        for (j = i; j < i + h; j++) {
          double x = p[j], y = p[j + h];
          p[j] = x + y;
          p[j + h] = x - y;
        }
      }
    }
    for (i = 0; i < nPow; i++) {
      p[i] /= sqrt((double)nPow);
    }
    for (i = 0; nPow < n && i < n / 2; i++) {
      double x = a[i], y = a[n / 2 + i];
      a[i] = (x + y) * sqrt(0.5);
      a[n / 2 + i] = (x - y) * sqrt(0.5);
    }
  }
}

static void testRotate(const ChoirKern *p, size_t n) {
  static float a[8192], aSign[KERN_ROUNDS * 8192];
  static double aWant[8192];
  double norm = 0, normWant = 0, worst = 0;
  size_t i;
  for (i = 0; i < KERN_ROUNDS * n; i++) {
    aSign[i] = rnd() & 1 ? 1.0f : -1.0f;
  }
  for (i = 0; i < n; i++) {
    a[i] = (float)((double)rnd() / 4294967296.0 - 0.5);
    aWant[i] = (double)a[i];
    normWant += aWant[i] * aWant[i];
  }
  p->xRotate(a, n, aSign);
  rotate(aWant, n, aSign);
  for (i = 0; i < n; i++) {
    double d = fabs((double)a[i] - aWant[i]);
    worst = d > worst ? d : worst;
    norm += (double)a[i] * (double)a[i];
  }
  nCheck++;
  if (!(worst < 1e-5) || !(fabs(norm / normWant - 1) < 1e-5)) {
    nFail++;
    printf("  FAIL %s rotation of %d: off by %g, length %g of %g\n", p->zName,
           (int)n, worst, norm, normWant);
  }
}

static void expect(const ChoirKern *p, const char *zWhat, int bOk) {
  nCheck++;
  if (!bOk) {
    nFail++;
    printf("  FAIL %s %s\n", p->zName, zWhat);
  }
}

/* A NaN or infinity anywhere (vector part, tail) comes out again. */
static void testSpecial(const ChoirKern *p) {
  static const size_t anPos[] = {0, 31, 64, 99};
  int eType, i;
  for (eType = 0; eType < KERN_I8; eType++) {
    const ChoirKernOps *k = &p->a[eType];
    for (i = 0; i < 4; i++) {
      uint8_t *q = aMem[0] + 1, *r = aMem[1] + 3;
      double a[2];
      size_t at = anPos[i] * (size_t)aByte[eType];
      fill(q, eType, 100);
      fill(r, eType, 100);
      put(r + at, eType, NAN);
      expect(p, "NaN in dot", isnan(k->xDot(q, r, 100)));
      expect(p, "NaN in l2", isnan(k->xL2(q, r, 100)));
      expect(p, "NaN in l1", isnan(k->xL1(q, r, 100)));
      k->xCos(q, r, 100, a);
      expect(p, "NaN in cos", isnan(a[0]) && isnan(a[1]));
      put(q + at, eType, 0.5f);
      put(r + at, eType, -INFINITY);
      expect(p, "-Inf in dot", k->xDot(q, r, 100) == -INFINITY);
      expect(p, "Inf in l2", k->xL2(q, r, 100) == INFINITY);
      expect(p, "Inf in l1", k->xL1(q, r, 100) == INFINITY);
      k->xCos(q, r, 100, a);
      expect(p, "Inf in cos", a[0] == -INFINITY && a[1] == INFINITY);
    }
  }
}

/* The extremes of int8 over more than one block do not overflow. */
static void testExtremes(const ChoirKern *p) {
  const ChoirKernOps *k = &p->a[KERN_I8];
  const size_t n = 65536 + 77;
  uint8_t *q = aMem[0] + 1, *r = aMem[1] + 2;
  double a[2];
  memset(q, 0x80, n);
  memset(r, 0x80, n);
  expect(p, "i8 dot of -128", k->xDot(q, r, n) == 16384.0 * (double)n);
  k->xCos(q, r, n, a);
  expect(p, "i8 norm of -128", a[1] == 16384.0 * (double)n);
  memset(r, 0x7f, n);
  expect(p, "i8 l2 extreme", k->xL2(q, r, n) == 65025.0 * (double)n);
  expect(p, "i8 l1 extreme", k->xL1(q, r, n) == 255.0 * (double)n);
  expect(p, "i8 dot extreme", k->xDot(q, r, n) == -16256.0 * (double)n);
}

static void testTier(const ChoirKern *p) {
  static const size_t anBig[] = {384, 768, 1536, 32768, 32769, 65536};
  size_t n, i;
  int eType;
  nCheck = 0;
  for (eType = 0; eType < KERN_NTYPE; eType++) {
    for (n = 1; n <= 130; n++) {
      testDim(p, eType, n, n % 11);
    }
    for (i = 0; i < sizeof(anBig) / sizeof(anBig[0]); i++) {
      testDim(p, eType, anBig[i], i + 1);
    }
  }
  for (n = 1; n <= 300; n++) {
    testHamming(p, n, n % 11);
  }
  testHamming(p, 65536 + 5, 1);
  for (n = 16; n <= 400; n += 16) {
    testScan(p, n);
  }
  testScan(p, 1024);
  testScan(p, 1040);
  testScan(p, CODE_MAX);
  for (n = 64; n <= 8192; n += n < 1024 ? 64 : 1792) {
    testRotate(p, n);
  }
  testSpecial(p);
  testExtremes(p);
  expect(p, "self-test", choirKernSelfTest(p));
  printf("kern: tier %-7s executed, %ld checks\n", p->zName, nCheck);
}

/* Every half converts to f32 and back; rounding is to nearest even. */
static void testHalves(void) {
  const ChoirKern *p = &choirKernScalar;
  uint32_t h;
  for (h = 0; h < 65536; h++) {
    float f = choirF16ToF32((uint16_t)h), b = choirBf16ToF32((uint16_t)h);
    int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
    double want = e == 31 ? (m ? NAN : INFINITY)
                  : e     ? ldexp(1024 + m, e - 25)
                          : ldexp(m, -24);
    want = h & 0x8000 ? -want : want;
    expect(p, "f16 value", isnan(want) ? isnan(f) : (double)f == want);
    expect(p, "f16 there and back",
           isnan(f) ? isnan(choirF16ToF32(choirF32ToF16(f)))
                    : choirF32ToF16(f) == h);
    expect(p, "bf16 there and back",
           isnan(b) ? isnan(choirBf16ToF32(choirF32ToBf16(b)))
                    : choirF32ToBf16(b) == h);
  }
  for (h = 0; h < 0x7bff; h++) { /* half way between two neighbours */
    double mid = ((double)choirF16ToF32((uint16_t)h) +
                  (double)choirF16ToF32((uint16_t)(h + 1))) /
                 2;
    expect(p, "f16 ties go to even",
           choirF32ToF16((float)mid) == (uint16_t)(h + (h & 1)));
  }
  expect(p, "f16 overflows to infinity",
         choirF32ToF16(65520.0f) == 0x7c00 &&
             choirF32ToF16(65519.9f) == 0x7bff);
}

static double badDot(const void *a, const void *b, size_t n) {
  (void)a, (void)b, (void)n;
  return 1.0;
}

/* A tier that computes nonsense is passed over, and the one below it used. */
static void testFallback(void) {
  ChoirKern bad = choirKernScalar;
  const ChoirKern *apTier[] = {&choirKernScalar, &choirKernBase, &bad};
  unsigned mFailed;
  bad.zName = "bad";
  bad.a[KERN_F16].xDot = badDot;
  expect(&bad, "is refused",
         choirKernChoose(apTier, 3, &mFailed) == &choirKernBase &&
             mFailed == 4);
  expect(&bad, "is not missed",
         choirKernChoose(apTier, 2, &mFailed) == &choirKernBase &&
             mFailed == 0);
  expect(&bad, "auto picks the best",
         choirKernFailed(0) == NULL && choirKernAuto() != NULL);
}

int main(void) {
#ifdef KERN_EMULATE
  testTier(&choirKernV4);
  testTier(&choirKernVnni);
#else
  static const char *const azAll[] = {"v2", "v3", "v4", "vnni"};
  int i;
  testHalves();
  testFallback();
  for (i = 0; choirKernSupported(i); i++) {
    testTier(choirKernSupported(i));
  }
#if CHOIR_KERN_X86
  for (i = 0; i < 4; i++) {
    if (choirKernFind(azAll[i]) == NULL) {
      printf("kern: tier %-7s not on this CPU\n", azAll[i]);
    }
  }
#else
  (void)azAll;
#endif
  printf("kern: automatic choice: %s\n", choirKernAuto()->zName);
#endif
  printf("kern: %d failures\n", nFail);
  return nFail != 0;
}
