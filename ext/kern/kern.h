/* SPDX-License-Identifier: MIT */
/*
** kern: distance kernels, one set per instruction set, chosen at run time.
**
** One source (kern_tier.h and what it includes) is written over a small vector
** abstraction and compiled once per tier, by inclusion, under a per-function
** target attribute: no -m flag is needed and nothing above the baseline runs
** before CPUID and XGETBV allow it.
**
**   scalar  plain C                              kern_scalar.c
**   sse2, neon, wasm  128 bits, through simde    kern_base.c
**   v2      SSSE3, SSE4.1, POPCNT                kern_v2.c
**   v3      AVX2, FMA, F16C                      kern_v3.c
**   v4      AVX-512 F, BW, DQ, VL                kern_v4.c
**   vnni    v4 with VNNI and VPOPCNTDQ           kern_vnni.c
**
** Pointers need no alignment. Formulas, for n elements:
**   dot  sum a*b     l2  sum (a-b)^2     l1  sum |a-b|
**   cos  the pair (sum q*r, sum r*r): all of a cosine once |q| is known
** The vector index adds two: xScan estimates distances of 32 rows at once from
** their codes of one bit a dimension, and xRotate is a random rotation in
** O(n log n), by a seed's signs, Hadamard's transform and Givens rotations.
**
** f16 and bf16 are widened to f32. Float sums are kept in f32 lanes over at
** most 32768 elements and added up in double; the error of a sum of terms t is
** at most (n/lanes + 8) * 2^-23 * sum |t| (a scalar tier has one lane). int8
** results are exact. NaN and infinity pass through.
**
** This room includes nothing of the tree.
*/
#ifndef CHOIR_KERN_H
#define CHOIR_KERN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef CHOIR_PRIVATE /* as in core.h */
#if defined(CHOIR_AMALGAMATION)
#define CHOIR_PRIVATE static __attribute__((unused))
#elif defined(__GNUC__)
#define CHOIR_PRIVATE __attribute__((visibility("hidden")))
#else
#define CHOIR_PRIVATE
#endif
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#define CHOIR_KERN_X86 1
#else
#define CHOIR_KERN_X86 0
#endif

/* The 128-bit baseline: simde on little-endian machines, or SSE2 without. */
#if (!defined(CHOIR_NO_SIMDE) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) || \
    CHOIR_KERN_X86
#define CHOIR_KERN_BASE 1
#else
#define CHOIR_KERN_BASE 0
#endif

/* Element types, in the order of ChoirKern.a. */
enum { KERN_F32, KERN_F16, KERN_BF16, KERN_I8, KERN_NTYPE };

typedef double (*ChoirKernPair)(const void *a, const void *b, size_t n);
/* aOut: dot(q,r), dot(r,r). */
typedef void (*ChoirKernCos)(const void *q, const void *r, size_t n,
                             double aOut[2]);
typedef struct ChoirKernOps {
  ChoirKernPair xDot, xL2, xL1;
  ChoirKernCos xCos;
} ChoirKernOps;

/* A block of 32 rows is nGroup * 16 bytes of codes (byte i of group g: four bits
** of row i in the low nibble, of row i + 16 in the high one), then 32 halves
** each of add, mul and err. For a row whose nibbles select the entries of aLut
** that sum up to s:
**   est = add + rAdd + mul * (rMul * s + rOff)    err = err * rErr
** and its bit in the result says that est - err > rMax is not so (NaN: set). */
typedef struct ChoirKernProbe {
  const uint8_t *aLut; /* 16 bytes a group, each at most 63 */
  size_t nGroup;       /* a multiple of 16 */
  float rMul, rOff, rAdd, rErr, rMax;
} ChoirKernProbe;

#define KERN_SCAN_GROUPS ((size_t)1024)
#define KERN_ROUNDS 4

typedef struct ChoirKern {
  const char *zName;
  ChoirKernOps a[KERN_NTYPE];
  /* Bits that differ in nByte bytes. */
  uint64_t (*xHamming)(const void *a, const void *b, size_t nByte);
  uint32_t (*xScan)(const ChoirKernProbe *, const uint8_t *aBlock,
                    float aEst[32], float aErr[32]);
  /* n floats, a multiple of 64, in place; aSign: KERN_ROUNDS * n of 1 or -1. */
  void (*xRotate)(float *a, size_t n, const float *aSign);
} ChoirKern;

/* ----------------------------------------------- kern_dispatch.c ---------
** The best tier that this processor has and that agrees with the scalar tier
** on a small self-test; found once per process, at the first call.
*/
CHOIR_PRIVATE const ChoirKern *choirKernAuto(void);
/* A tier by name; NULL when it is unknown or not on this processor. */
CHOIR_PRIVATE const ChoirKern *choirKernFind(const char *zName);
/* Tier i of those this processor has, 0 is scalar; NULL past the last. */
CHOIR_PRIVATE const ChoirKern *choirKernSupported(int i);
/* A tier that failed its self-test, NULL past the last (for the doctor). */
CHOIR_PRIVATE const ChoirKern *choirKernFailed(int i);
/* 1 when the tier agrees with the scalar one. */
CHOIR_PRIVATE int choirKernSelfTest(const ChoirKern *);
/* Last of apTier[0..n) that passes; bit i of *pmFailed: tier i did not. */
CHOIR_PRIVATE const ChoirKern *choirKernChoose(const ChoirKern *const *apTier,
                                               int n, unsigned *pmFailed);

/* ------------------------------------------------------- kern_half.c ----
** IEEE 754 binary16 and bfloat16, rounded to nearest even.
*/
CHOIR_PRIVATE float choirF16ToF32(uint16_t h);
CHOIR_PRIVATE uint16_t choirF32ToF16(float f);
CHOIR_PRIVATE float choirBf16ToF32(uint16_t h);
CHOIR_PRIVATE uint16_t choirF32ToBf16(float f);

/* ---------------------------------------------------------- the tiers --- */
/* kern_scalar.c: any processor. */
CHOIR_PRIVATE uint64_t choirKernHamming(const void *a, const void *b,
                                        size_t nByte);
#ifdef CHOIR_AMALGAMATION
#define KERN_EXTERN CHOIR_PRIVATE
#else
#define KERN_EXTERN extern CHOIR_PRIVATE
#endif
CHOIR_PRIVATE void choirKernSums(const uint8_t *aCode, const uint8_t *aLut,
                                 size_t nGroup, uint16_t *aSum);
KERN_EXTERN const ChoirKern choirKernScalar;
#if CHOIR_KERN_BASE
KERN_EXTERN const ChoirKern choirKernBase;
#endif
#if CHOIR_KERN_X86
KERN_EXTERN const ChoirKern choirKernV2;
KERN_EXTERN const ChoirKern choirKernV3;
KERN_EXTERN const ChoirKern choirKernV4;
KERN_EXTERN const ChoirKern choirKernVnni;
#endif

#endif /* CHOIR_KERN_H */
