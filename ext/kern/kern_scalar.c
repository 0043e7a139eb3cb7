/* SPDX-License-Identifier: MIT */
/*
** The scalar tier: the abstraction with one lane. It is the fallback where no
** 128-bit unit is known, and what every other tier is tested against.
*/
#include "kern.h"

static inline float kernScalarF32(const uint8_t *p) {
  float f;
  memcpy(&f, p, sizeof(f));
  return f;
}

static inline float kernScalarF16(const uint8_t *p) {
  uint16_t h;
  memcpy(&h, p, sizeof(h));
  return choirF16ToF32(h);
}

/* The one tier that big-endian machines have. */
static inline float kernScalarFactor(const uint8_t *p) {
  return choirF16ToF32((uint16_t)(p[0] | p[1] << 8));
}

static inline float kernScalarBf16(const uint8_t *p) {
  uint16_t h;
  memcpy(&h, p, sizeof(h));
  return choirBf16ToF32(h);
}

static inline int kernScalarI8(const uint8_t *p) { return (int8_t)*p; }

/* Bits set in eight bytes, without a POPCNT instruction. */
static inline uint64_t kernScalarBits(uint64_t x) {
  x -= (x >> 1) & 0x5555555555555555u;
  x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return (x * 0x0101010101010101u) >> 56;
}

CHOIR_PRIVATE uint64_t choirKernHamming(const void *pA, const void *pB,
                                        size_t n) {
  const uint8_t *a = pA, *b = pB;
  uint64_t sum = 0, x, y;
  for (; n >= 8; n -= 8, a += 8, b += 8) {
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    sum += kernScalarBits(x ^ y);
  }
  for (; n > 0; n--, a++, b++) {
    sum += kernScalarBits((uint64_t)(*a ^ *b));
  }
  return sum;
}

CHOIR_PRIVATE void choirKernSums(const uint8_t *aCode, const uint8_t *aLut,
                                 size_t nGroup, uint16_t *aSum) {
  size_t g;
  int i;
  memset(aSum, 0, 32 * sizeof(*aSum));
  for (g = 0; g < nGroup; g++, aCode += 16, aLut += 16) {
    for (i = 0; i < 16; i++) {
      aSum[i] = (uint16_t)(aSum[i] + aLut[aCode[i] & 15]);
      aSum[i + 16] = (uint16_t)(aSum[i + 16] + aLut[aCode[i] >> 4]);
    }
  }
}

#define KERN_TIER scalar
#define KERN_SUMS choirKernSums
#define KERN_TARGET
#define KERN_TABLE choirKernScalar
#define KERN_ZNAME "scalar"
#define KERN_HAMMING choirKernHamming

#define KF float
#define KF_N 1
#define KF_LOAD(p) kernScalarF32((const uint8_t *)(p))
#define KF_LOAD_F16(p) kernScalarF16(p)
#define KF_LOAD_BF16(p) kernScalarBf16(p)
#define KF_LOAD_FACTOR(p) kernScalarFactor(p)
#define KF_ZERO() 0.0f
#define KF_ADD(a, b) ((a) + (b))
#define KF_SUB(a, b) ((a) - (b))
#define KF_FMA(a, b, c) ((a) * (b) + (c))
#define KF_ABS(a) __builtin_fabsf(a)
#define KF_SUM(a) (a)
#define KF_SET(a) (a)
#define KF_STORE(p, v) (*(p) = (v))
#define KF_FROM_U16(p) ((float)*(p))
#define KF_NOT_GT(a, b) ((uint32_t) !((a) > (b)))

#define KI int
#define KI_N 1
#define KI_LOAD(p) kernScalarI8(p)
#define KI_SUB(a, b) ((a) - (b))
#define KI_ABS(a) ((a) < 0 ? -(a) : (a))
#define KA int
#define KA_ZERO() 0
#define KA_ADD(a, b) ((a) + (b))
#define KA_SUM(a) (a)
#define KA_MADD(acc, a, b) ((acc) + (a) * (b))
#define KA_ONES() 1

#include "kern_tier.h"
