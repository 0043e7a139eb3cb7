/* SPDX-License-Identifier: MIT */
/*
** v4 with VNNI (int8 dot products without widening) and VPOPCNTDQ.
**
** VPDPBUSD multiplies unsigned by signed bytes, so a row is biased by 128 and
** the bias taken back: sum (r+128)*q - 128 * sum q. Exact.
*/
#include "kern.h"

#if CHOIR_KERN_X86

#ifdef KERN_EMULATE
#include <emulate512.h>
#else
#include <immintrin.h>
#endif

#ifdef KERN_EMULATE
#define KERN_TARGET
#else
#define KERN_TARGET                                                            \
  __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,"    \
                        "avx512vnni,avx512vpopcntdq")))
#endif
#define KERN_TIER vnni
#define KERN_TABLE choirKernVnni
#define KERN_ZNAME "vnni"
#define KERN_HAMMING kernVnniHamming
#define KERN_I8_OWN
#define K512_FN(name) kernVnni##name

#include "kern_512.h"

/* n bytes (at most 64) with zeros after them. */
static inline KERN_TARGET __m512i kernVnniTail(const uint8_t *p, size_t n) {
  uint8_t a[64] = {0};
  memcpy(a, p, n);
  return K512_LOADI(a);
}

static KERN_TARGET uint64_t kernVnniHamming(const void *pA, const void *pB,
                                            size_t n) {
  const uint8_t *a = pA, *b = pB;
  __m512i s = _mm512_setzero_si512();
  uint64_t aLane[8], sum = 0;
  int i;
  if (n < 64) { /* short rows do not pay for the lanes */
    return choirKernV2.xHamming(a, b, n);
  }
  for (; n >= 64; n -= 64, a += 64, b += 64) {
    s = _mm512_add_epi64(
        s, _mm512_popcnt_epi64(_mm512_xor_si512(K512_LOADI(a), K512_LOADI(b))));
  }
  _mm512_storeu_si512((void *)aLane, s);
  for (i = 0; i < 8; i++) {
    sum += aLane[i];
  }
  return n ? sum + choirKernV2.xHamming(a, b, n) : sum;
}

#define VNNI_BLOCK ((size_t)32768) /* 32768 * 255 * 128 stays below 2^31 */
#define VNNI_BIASED(v) _mm512_xor_si512(v, _mm512_set1_epi8(-128))

/* Sum of n int8. */
static KERN_TARGET int64_t kernVnniSum(const uint8_t *p, size_t n) {
  const __m512i one = _mm512_set1_epi8(1);
  int64_t sum = 0;
  while (n > 0) {
    size_t m = n < VNNI_BLOCK ? n : VNNI_BLOCK;
    __m512i s = _mm512_setzero_si512();
    for (n -= m; m >= 64; m -= 64, p += 64) {
      s = _mm512_dpbusd_epi32(s, one, K512_LOADI(p));
    }
    if (m > 0) {
      s = _mm512_dpbusd_epi32(s, one, kernVnniTail(p, m));
    }
    sum += kernVnniSumI(s);
  }
  return sum;
}

/* One block: adds sum (r+128)*q, sum (r+128)*r and sum r to aOut. */
static KERN_TARGET void kernVnniBlock(const uint8_t *q, const uint8_t *r,
                                      size_t n, int64_t aOut[3]) {
  const __m512i one = _mm512_set1_epi8(1);
  __m512i s = _mm512_setzero_si512(), s2 = s, s1 = s;
  for (; n >= 64; n -= 64, q += 64, r += 64) {
    const __m512i v = K512_LOADI(r), u = VNNI_BIASED(v);
    s = _mm512_dpbusd_epi32(s, u, K512_LOADI(q));
    s2 = _mm512_dpbusd_epi32(s2, u, v);
    s1 = _mm512_dpbusd_epi32(s1, one, v);
  }
  if (n > 0) {
    const __m512i v = kernVnniTail(r, n), u = VNNI_BIASED(v);
    s = _mm512_dpbusd_epi32(s, u, kernVnniTail(q, n));
    s2 = _mm512_dpbusd_epi32(s2, u, v);
    s1 = _mm512_dpbusd_epi32(s1, one, v);
  }
  aOut[0] += kernVnniSumI(s);
  aOut[1] += kernVnniSumI(s2);
  aOut[2] += kernVnniSumI(s1);
}

static KERN_TARGET void kern_i8_cos_pair_vnni(const void *pQ, const void *pR,
                                              size_t n, double aOut[2]) {
  const uint8_t *q = pQ, *r = pR;
  const int64_t bias = 128 * kernVnniSum(q, n);
  int64_t a[3] = {0, 0, 0};
  while (n > 0) {
    size_t m = n < VNNI_BLOCK ? n : VNNI_BLOCK;
    kernVnniBlock(q, r, m, a);
    q += m, r += m, n -= m;
  }
  aOut[0] = (double)(a[0] - bias);
  aOut[1] = (double)(a[1] - 128 * a[2]);
}

/* The biased products through the common pattern, then the bias. */
#define KERN_BLOCK VNNI_BLOCK
#define KERN_FN(name, form) kernVnni_##form
#define KX_NAME i8_biased
#define KX_N 64
#define KX_BYTE 1
#define KX_VEC __m512i
#define KX_LOAD(p) K512_LOADI(p)
#define KX_ACC __m512i
#define KX_ZERO() _mm512_setzero_si512()
#define KX_ADD(a, b) _mm512_add_epi32(a, b)
#define KX_STEP(acc, q, r) acc = _mm512_dpbusd_epi32(acc, VNNI_BIASED(r), q)
#define KX_SUM(a) kernVnniSumI(a)
#include "kern_pair.h"
#undef KX_N
#undef KX_BYTE
#undef KX_VEC
#undef KX_LOAD
#undef KX_ACC
#undef KX_ZERO
#undef KX_ADD
#undef KX_SUM
#undef KERN_FN
#undef KERN_BLOCK
#undef VNNI_BLOCK
#undef VNNI_BIASED

static KERN_TARGET double kern_i8_dot_pair_vnni(const void *q, const void *r,
                                                size_t n) {
  return kernVnni_pair(q, r, n) - 128.0 * (double)kernVnniSum(q, n);
}

#include "kern_tier.h"
#undef K512_FN
#undef K512_LOADI
#undef K512_LOADH

#endif /* CHOIR_KERN_X86 */
