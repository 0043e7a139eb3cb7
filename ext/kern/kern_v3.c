/* SPDX-License-Identifier: MIT */
/*
** x86-64-v3: 256 bits, AVX2 with FMA and F16C.
*/
#include "kern.h"

#if CHOIR_KERN_X86

#include <immintrin.h>

#define KERN_TIER v3
#define KERN_TARGET __attribute__((target("avx2,fma,f16c")))
#define KERN_TABLE choirKernV3
#define KERN_ZNAME "v3"
#define KERN_HAMMING kernV3Hamming

static inline KERN_TARGET float kernV3SumF(__m256 v) {
  __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  w = _mm_add_ps(w, _mm_movehl_ps(w, w));
  w = _mm_add_ss(w, _mm_movehdup_ps(w));
  return _mm_cvtss_f32(w);
}

static inline KERN_TARGET int kernV3SumI(__m256i v) {
  __m128i w =
      _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  w = _mm_add_epi32(w, _mm_shuffle_epi32(w, 0x4e));
  w = _mm_add_epi32(w, _mm_shuffle_epi32(w, 0xb1));
  return _mm_cvtsi128_si32(w);
}

/* Bits per nibble by table look-up; SAD adds the bytes up. */
static KERN_TARGET uint64_t kernV3Hamming(const void *pA, const void *pB,
                                          size_t n) {
  const __m256i table =
      _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                       2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i low = _mm256_set1_epi8(15);
  const uint8_t *a = pA, *b = pB;
  __m256i s = _mm256_setzero_si256();
  uint64_t aLane[4], sum;
  for (; n >= 32; n -= 32, a += 32, b += 32) {
    const __m256i x =
        _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)a),
                         _mm256_loadu_si256((const __m256i *)(const void *)b));
    const __m256i lo = _mm256_shuffle_epi8(table, _mm256_and_si256(x, low));
    const __m256i hi = _mm256_shuffle_epi8(
        table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low));
    s = _mm256_add_epi64(
        s, _mm256_sad_epu8(_mm256_add_epi8(lo, hi), _mm256_setzero_si256()));
  }
  _mm256_storeu_si256((__m256i *)(void *)aLane, s);
  sum = aLane[0] + aLane[1] + aLane[2] + aLane[3];
  return n ? sum + choirKernV2.xHamming(a, b, n) : sum;
}

#define KF __m256
#define KF_N 8
#define KF_LOAD(p) _mm256_loadu_ps((const float *)(const void *)(p))
#define KF_LOAD_F16(p)                                                         \
  _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define KF_LOAD_BF16(p)                                                        \
  _mm256_castsi256_ps(                                                         \
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(                 \
                            (const __m128i *)(const void *)(p))),              \
                        16))
#define KF_ZERO() _mm256_setzero_ps()
#define KF_ADD(a, b) _mm256_add_ps(a, b)
#define KF_SUB(a, b) _mm256_sub_ps(a, b)
#define KF_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define KF_ABS(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#define KF_SUM(a) kernV3SumF(a)

#define KF_SET(a) _mm256_set1_ps(a)
#define KF_STORE(p, v) _mm256_storeu_ps(p, v)
#define KF_FROM_U16(p)                                                         \
  _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(                                    \
      _mm_loadu_si128((const __m128i *)(const void *)(p))))
#define KF_NOT_GT(a, b)                                                        \
  (~(uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) & 255u)

#define KB __m256i
#define KB_UNIT 2
#define KB_LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define KB_ZERO() _mm256_setzero_si256()
#define KB_SHUF(t, i) _mm256_shuffle_epi8(t, i)
#define KB_LOW(v) _mm256_and_si256(v, _mm256_set1_epi8(15))
#define KB_HIGH(v)                                                             \
  _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15))
#define KB_ADD8(a, b) _mm256_add_epi8(a, b)
#define KB_ADD16(a, b) _mm256_add_epi16(a, b)
#define KB_ODD(v) _mm256_srli_epi16(v, 8)
#define KB_EVEN(e, o) _mm256_sub_epi16(e, _mm256_slli_epi16(o, 8))
#define KB_FOLD(p, e, o) kernV3Fold(p, e, o)

static inline KERN_TARGET __m128i kernV3Half(__m256i v) {
  return _mm_add_epi16(_mm256_castsi256_si128(v),
                       _mm256_extracti128_si256(v, 1));
}

static inline KERN_TARGET void kernV3Fold(uint16_t *p, __m256i e, __m256i o) {
  const __m128i even = kernV3Half(e), odd = kernV3Half(o);
  _mm_storeu_si128((__m128i *)(void *)p, _mm_unpacklo_epi16(even, odd));
  _mm_storeu_si128((__m128i *)(void *)(p + 8), _mm_unpackhi_epi16(even, odd));
}

#define KI __m256i
#define KI_N 16
#define KI_LOAD(p)                                                             \
  _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define KI_SUB(a, b) _mm256_sub_epi16(a, b)
#define KI_ABS(a) _mm256_abs_epi16(a)
#define KA __m256i
#define KA_ZERO() _mm256_setzero_si256()
#define KA_ADD(a, b) _mm256_add_epi32(a, b)
#define KA_SUM(a) kernV3SumI(a)
#define KA_MADD(acc, a, b) _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
#define KA_ONES() _mm256_set1_epi16(1)

#include "kern_tier.h"

#endif /* CHOIR_KERN_X86 */
