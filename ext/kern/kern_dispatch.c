/* SPDX-License-Identifier: MIT */
/*
** Which tier runs. The processor is asked by CPUID, the operating system by
** XGETBV (a register it does not save must not be used), and every tier above
** the first must agree with it on a small input before it is trusted: a wrong
** instruction or a miscompiled kernel costs speed, never results.
*/
#include "kern.h"

#if CHOIR_KERN_X86
#include <cpuid.h>

#define KERN_BIT(v, i) ((v) >> (i)&1u)

static uint64_t kernXcr0(void) {
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

/* 0: only the baseline, 2, 3, 4: x86-64-v2 …, 5: v4 with VNNI. */
static int kernCpuLevel(void) {
  uint32_t a, b, c, d, b7, c7, xcr0 = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !KERN_BIT(c, 9) || !KERN_BIT(c, 19) ||
      !KERN_BIT(c, 20) || !KERN_BIT(c, 23)) {
    return 0; /* SSSE3, SSE4.1, SSE4.2, POPCNT */
  }
  if (KERN_BIT(c, 27)) { /* OSXSAVE */
    xcr0 = (uint32_t)kernXcr0();
  }
  if ((xcr0 & 0x06) != 0x06 || !KERN_BIT(c, 28) || !KERN_BIT(c, 12) ||
      !KERN_BIT(c, 29) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d) ||
      !KERN_BIT(b7, 5)) {
    return 2; /* AVX, FMA, F16C; AVX2 */
  }
  if ((xcr0 & 0xe6) != 0xe6 || !KERN_BIT(b7, 16) || !KERN_BIT(b7, 17) ||
      !KERN_BIT(b7, 30) || !KERN_BIT(b7, 31)) {
    return 3; /* AVX-512 F, DQ, BW, VL */
  }
  return KERN_BIT(c7, 11) && KERN_BIT(c7, 14) ? 5 : 4;
}

#undef KERN_BIT
#endif

static const ChoirKern *const apKernTier[] = {
    &choirKernScalar,
#if CHOIR_KERN_BASE
    &choirKernBase,
#endif
#if CHOIR_KERN_X86
    &choirKernV2,     &choirKernV3, &choirKernV4, &choirKernVnni,
#endif
};

#define KERN_NTIER ((int)(sizeof(apKernTier) / sizeof(apKernTier[0])))

/* How many of apKernTier this machine can run. */
static int kernSupported(void) {
#if CHOIR_KERN_X86
  int iLevel = kernCpuLevel();
  return iLevel == 0 ? 2 : iLevel + 1;
#else
  return KERN_NTIER;
#endif
}

CHOIR_PRIVATE const ChoirKern *choirKernSupported(int i) {
  return i >= 0 && i < kernSupported() ? apKernTier[i] : NULL;
}

CHOIR_PRIVATE const ChoirKern *choirKernFind(const char *zName) {
  int i, n = kernSupported();
  for (i = 0; i < n; i++) {
    if (strcmp(apKernTier[i]->zName, zName) == 0) {
      return apKernTier[i];
    }
  }
  return NULL;
}

/* ------------------------------------------------------------ self-test */

#define KERN_TEST_N 150 /* two blocks of 64 and a tail, in the widest tier */

/* Element i of vector iVec: small mixed values, exact in every type. */
static void kernTestFill(uint8_t *a, int eType, int iVec) {
  int i;
  for (i = 0; i < KERN_TEST_N; i++) {
    int v = (i * 37 + iVec * 53 + i * i) % 256 - 128;
    float f = (float)v / 64.0f;
    uint16_t h = eType == KERN_F16 ? choirF32ToF16(f) : choirF32ToBf16(f);
    if (eType == KERN_F32) {
      memcpy(a + i * 4, &f, 4);
    } else if (eType == KERN_I8) {
      a[i] = (uint8_t)v;
    } else {
      memcpy(a + i * 2, &h, 2);
    }
  }
}

static int kernClose(double x, double y) {
  double d = x > y ? x - y : y - x;
  return d <= 1e-3 * (1.0 + (y < 0 ? -y : y)); /* false for NaN */
}

static int kernSame(const ChoirKernOps *p, const ChoirKernOps *pRef,
                    const uint8_t *q, const uint8_t *r, size_t n) {
  double a[2], b[2];
  p->xCos(q, r, n, a);
  pRef->xCos(q, r, n, b);
  return kernClose(p->xDot(q, r, n), pRef->xDot(q, r, n)) &&
         kernClose(p->xL2(q, r, n), pRef->xL2(q, r, n)) &&
         kernClose(p->xL1(q, r, n), pRef->xL1(q, r, n)) &&
         kernClose(a[0], b[0]) && kernClose(a[1], b[1]);
}

#define KERN_TEST_GROUP 48

/* The rotation of 192 values, and a block of 32 rows of 48 groups. */
static int kernSameCodes(const ChoirKern *p, const ChoirKern *pRef) {
  uint8_t aBlock[KERN_TEST_GROUP * 16 + 192], aLut[KERN_TEST_GROUP * 16];
  ChoirKernProbe probe = {aLut, KERN_TEST_GROUP, 0.25f, -9.0f, 1.5f, 2.0f, 9};
  float aA[192], aB[192], aFlip[KERN_ROUNDS * 192];
  int i, bOk;
  for (i = 0; i < (int)sizeof(aLut); i++) {
    aBlock[i] = (uint8_t)(i * 37 + i / 7);
    aLut[i] = (uint8_t)(i * 11 % 64);
  }
  for (i = 0; i < 96; i++) {
    uint16_t h = choirF32ToF16((float)(i * 29 % 64) / 32.0f - 0.5f);
    aBlock[(int)sizeof(aLut) + i * 2] = (uint8_t)h;
    aBlock[(int)sizeof(aLut) + i * 2 + 1] = (uint8_t)(h >> 8);
  }
  for (i = 0; i < KERN_ROUNDS * 192; i++) {
    aFlip[i] = i * i % 7 < 3 ? 1.0f : -1.0f;
    aA[i % 192] = aB[i % 192] = (float)(i % 192 * 5 % 23) - 11.0f;
  }
  p->xRotate(aA, 192, aFlip);
  pRef->xRotate(aB, 192, aFlip);
  for (i = 0, bOk = 1; i < 192; i++) {
    bOk = bOk && kernClose((double)aA[i], (double)aB[i]);
  }
  bOk = bOk && p->xScan(&probe, aBlock, aA, aA + 32) ==
                   pRef->xScan(&probe, aBlock, aB, aB + 32);
  for (i = 0; i < 64; i++) {
    bOk = bOk && kernClose((double)aA[i], (double)aB[i]);
  }
  return bOk;
}

CHOIR_PRIVATE int choirKernSelfTest(const ChoirKern *p) {
  static const size_t anTest[] = {1, 21, KERN_TEST_N};
  uint8_t aVec[2][KERN_TEST_N * 4];
  int i, eType, bOk = 1;
  for (eType = 0; eType < KERN_NTYPE; eType++) {
    kernTestFill(aVec[0], eType, 0);
    kernTestFill(aVec[1], eType, 1);
    for (i = 0; i < 3; i++) {
      bOk = bOk && kernSame(&p->a[eType], &choirKernScalar.a[eType], aVec[0],
                            aVec[1], anTest[i]);
    }
  }
  for (i = 0; i < 3; i++) {
    bOk = bOk && p->xHamming(aVec[0], aVec[1], anTest[i]) ==
                     choirKernScalar.xHamming(aVec[0], aVec[1], anTest[i]);
  }
  return bOk && kernSameCodes(p, &choirKernScalar);
}

CHOIR_PRIVATE const ChoirKern *choirKernChoose(const ChoirKern *const *apTier,
                                               int n, unsigned *pmFailed) {
  int i;
  *pmFailed = 0;
  for (i = n - 1; i > 0; i--) {
    if (choirKernSelfTest(apTier[i])) {
      return apTier[i];
    }
    *pmFailed |= 1u << i;
  }
  return apTier[0];
}

/* Set once; two threads that meet here find the same answer. */
static const ChoirKern *pKernBest = NULL;
static unsigned mKernFailed = 0;

CHOIR_PRIVATE const ChoirKern *choirKernAuto(void) {
  const ChoirKern *p = __atomic_load_n(&pKernBest, __ATOMIC_ACQUIRE);
  if (p == NULL) {
    unsigned mFailed;
    p = choirKernChoose(apKernTier, kernSupported(), &mFailed);
    __atomic_store_n(&mKernFailed, mFailed, __ATOMIC_RELAXED);
    __atomic_store_n(&pKernBest, p, __ATOMIC_RELEASE);
  }
  return p;
}

CHOIR_PRIVATE const ChoirKern *choirKernFailed(int i) {
  int iTier;
  unsigned m;
  (void)choirKernAuto();
  m = __atomic_load_n(&mKernFailed, __ATOMIC_RELAXED);
  for (iTier = 0; iTier < KERN_NTIER; iTier++) {
    if ((m >> iTier & 1u) && i-- == 0) {
      return apKernTier[iTier];
    }
  }
  return NULL;
}
