/* SPDX-License-Identifier: MIT */
/*
** The two kernels of the vector index, included by kern_tier.h once per tier
** (never guarded): the rotation and the scan of a block of 32 codes. kern.h
** has the formulas. The byte vectors of the includer:
**
**   KB           KB_UNIT times 16 bytes          KB_LOAD(p) KB_ZERO()
**   KB_SHUF(t,i) byte i of t, in each 16 bytes   KB_LOW(v)  KB_HIGH(v) nibbles
**   KB_ADD8 KB_ADD16   KB_ODD(v)  the odd bytes as 16 bits
**   KB_EVEN(e,o) e - o * 256 in 16 bits
**   KB_FOLD(p,e,o)  sums over the units, e and o in turn: 16 uint16 at p
**   KF_LOAD_FACTOR(p)  halves as a block stores them, little-endian
**
** A tier without a byte shuffle sets KERN_SUMS instead, a function that does
** the same one byte at a time.
*/

#ifndef KERN_SUMS
#define KERN_SUMS KERN_FN(scan, sums)

/* The table's entries are at most 63, so four groups add up in a byte; at most
** KERN_SCAN_GROUPS of them stay below 2^16. */
static KERN_TARGET void KERN_SUMS(const uint8_t *aCode, const uint8_t *aLut,
                                  size_t nGroup, uint16_t *aSum) {
  KB even0 = KB_ZERO(), odd0 = even0, even1 = even0, odd1 = even0;
  size_t i, n = nGroup * 16;
  for (i = 0; i < n; i += 64 * KB_UNIT) {
    const uint8_t *c = aCode + i, *t = aLut + i;
    const KB c0 = KB_LOAD(c), t0 = KB_LOAD(t);
    const KB c1 = KB_LOAD(c + 16 * KB_UNIT), t1 = KB_LOAD(t + 16 * KB_UNIT);
    const KB c2 = KB_LOAD(c + 32 * KB_UNIT), t2 = KB_LOAD(t + 32 * KB_UNIT);
    const KB c3 = KB_LOAD(c + 48 * KB_UNIT), t3 = KB_LOAD(t + 48 * KB_UNIT);
    const KB low =
        KB_ADD8(KB_ADD8(KB_SHUF(t0, KB_LOW(c0)), KB_SHUF(t1, KB_LOW(c1))),
                KB_ADD8(KB_SHUF(t2, KB_LOW(c2)), KB_SHUF(t3, KB_LOW(c3))));
    const KB high =
        KB_ADD8(KB_ADD8(KB_SHUF(t0, KB_HIGH(c0)), KB_SHUF(t1, KB_HIGH(c1))),
                KB_ADD8(KB_SHUF(t2, KB_HIGH(c2)), KB_SHUF(t3, KB_HIGH(c3))));
    even0 = KB_ADD16(even0, low);
    odd0 = KB_ADD16(odd0, KB_ODD(low));
    even1 = KB_ADD16(even1, high);
    odd1 = KB_ADD16(odd1, KB_ODD(high));
  }
  KB_FOLD(aSum, KB_EVEN(even0, odd0), odd0);
  KB_FOLD(aSum + 16, KB_EVEN(even1, odd1), odd1);
}
#endif

#ifndef KF_LOAD_FACTOR
#define KF_LOAD_FACTOR(p) KF_LOAD_F16(p)
#endif

static KERN_TARGET uint32_t KERN_FN(scan, block)(const ChoirKernProbe *p,
                                                 const uint8_t *aBlock,
                                                 float *aEst, float *aErr) {
  const uint8_t *aFactor = aBlock + p->nGroup * 16;
  const KF add = KF_SET(p->rAdd), mul = KF_SET(p->rMul), off = KF_SET(p->rOff);
  const KF errMul = KF_SET(p->rErr), most = KF_SET(p->rMax);
  float aSum[32] = {0};
  uint16_t aPart[32];
  uint32_t m = 0;
  size_t i, g, n;
  for (g = 0; g < p->nGroup; g += n) {
    n = p->nGroup - g < KERN_SCAN_GROUPS ? p->nGroup - g : KERN_SCAN_GROUPS;
    KERN_SUMS(aBlock + g * 16, p->aLut + g * 16, n, aPart);
    for (i = 0; i < 32; i += KF_N) {
      KF_STORE(aSum + i, KF_ADD(KF_FROM_U16(aPart + i), KF_LOAD(aSum + i)));
    }
  }
  for (i = 0; i < 32; i += KF_N) {
    const KF dot = KF_FMA(KF_LOAD(aSum + i), mul, off);
    const KF est = KF_FMA(KF_LOAD_FACTOR(aFactor + 64 + i * 2), dot,
                          KF_ADD(KF_LOAD_FACTOR(aFactor + i * 2), add));
    const KF err =
        KF_FMA(KF_LOAD_FACTOR(aFactor + 128 + i * 2), errMul, KF_ZERO());
    KF_STORE(aEst + i, est);
    KF_STORE(aErr + i, err);
    m |= KF_NOT_GT(KF_SUB(est, err), most) << i;
  }
  return m;
}

/* Hadamard's transform of n values, a power of two of at least 64: strides
** below 16 one by one, the others a vector at a time. */
static KERN_TARGET void KERN_FN(rot, hadamard)(float *a, size_t n,
                                               float rScale) {
  const KF scale = KF_SET(rScale);
  size_t i, j, h;
  for (i = 0; i < n; i += 16) {
    float *p = a + i;
    for (h = 1; h < 16; h *= 2) {
      for (j = 0; j < 8; j++) {
        size_t at = (j & ~(h - 1)) * 2 + (j & (h - 1));
        float x = p[at], y = p[at + h];
        p[at] = x + y;
        p[at + h] = x - y;
      }
    }
  }
  for (h = 16; h < n; h *= 2) {
    for (i = 0; i < n; i += 2 * h) {
      for (j = i; j < i + h; j += KF_N) {
        const KF x = KF_LOAD(a + j), y = KF_LOAD(a + j + h);
        KF_STORE(a + j, KF_ADD(x, y));
        KF_STORE(a + j + h, KF_SUB(x, y));
      }
    }
  }
  for (i = 0; i < n; i += KF_N) {
    KF_STORE(a + i, KF_FMA(KF_LOAD(a + i), scale, KF_ZERO()));
  }
}

static KERN_TARGET void KERN_FN(rot, ate)(float *a, size_t n,
                                          const float *aSign) {
  const KF half = KF_SET(0.70710678118654752f);
  size_t i, nPow = 64;
  float rScale;
  int iRound;
  while (nPow * 2 <= n) {
    nPow *= 2;
  }
  rScale = 1.0f / __builtin_sqrtf((float)nPow);
  for (iRound = 0; iRound < KERN_ROUNDS; iRound++, aSign += n) {
    for (i = 0; i < n; i += KF_N) {
      KF_STORE(a + i, KF_FMA(KF_LOAD(a + i), KF_LOAD(aSign + i), KF_ZERO()));
    }
    KERN_FN(rot, hadamard)(iRound & 1 ? a + (n - nPow) : a, nPow, rScale);
    for (i = 0; nPow < n && i < n / 2; i += KF_N) {
      const KF x = KF_LOAD(a + i), y = KF_LOAD(a + n / 2 + i);
      KF_STORE(a + i, KF_FMA(KF_ADD(x, y), half, KF_ZERO()));
      KF_STORE(a + n / 2 + i, KF_FMA(KF_SUB(x, y), half, KF_ZERO()));
    }
  }
}

#undef KERN_SUMS
#undef KB
#undef KB_UNIT
#undef KB_LOAD
#undef KB_ZERO
#undef KB_SHUF
#undef KB_LOW
#undef KB_HIGH
#undef KB_ADD8
#undef KB_ADD16
#undef KB_ODD
#undef KB_EVEN
#undef KB_FOLD
