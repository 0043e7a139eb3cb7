/* SPDX-License-Identifier: MIT */
/*
** The 512-bit vocabulary of kern_v4.c and kern_vnni.c, included by each before
** kern_tier.h (never guarded). K512_FN(name) makes a function's name. Only
** intrinsics that a test can emulate on a machine without AVX-512 are used:
** tests/kern/emulate512.h (KERN_EMULATE) stands in for <immintrin.h>.
*/

static inline KERN_TARGET float K512_FN(SumF)(__m512 v) {
  const __m512d d = _mm512_castps_pd(v);
  const __m256 h =
      _mm256_add_ps(_mm256_castpd_ps(_mm512_castpd512_pd256(d)),
                    _mm256_castpd_ps(_mm512_extractf64x4_pd(d, 1)));
  __m128 w = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  w = _mm_add_ps(w, _mm_movehl_ps(w, w));
  w = _mm_add_ss(w, _mm_movehdup_ps(w));
  return _mm_cvtss_f32(w);
}

static inline KERN_TARGET int K512_FN(SumI)(__m512i v) {
  const __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(v),
                                     _mm512_extracti64x4_epi64(v, 1));
  __m128i w =
      _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  w = _mm_add_epi32(w, _mm_shuffle_epi32(w, 0x4e));
  w = _mm_add_epi32(w, _mm_shuffle_epi32(w, 0xb1));
  return _mm_cvtsi128_si32(w);
}

#define K512_LOADI(p) _mm512_loadu_si512((const void *)(p))
#define K512_LOADH(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))

#define KF __m512
#define KF_N 16
#define KF_LOAD(p) _mm512_loadu_ps((const void *)(p))
#define KF_LOAD_F16(p) _mm512_cvtph_ps(K512_LOADH(p))
#define KF_LOAD_BF16(p)                                                        \
  _mm512_castsi512_ps(                                                         \
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(K512_LOADH(p)), 16))
#define KF_ZERO() _mm512_setzero_ps()
#define KF_ADD(a, b) _mm512_add_ps(a, b)
#define KF_SUB(a, b) _mm512_sub_ps(a, b)
#define KF_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define KF_ABS(a) _mm512_abs_ps(a)
#define KF_SUM(a) K512_FN(SumF)(a)

#define KI __m512i
#define KI_N 32
#define KI_LOAD(p) _mm512_cvtepi8_epi16(K512_LOADH(p))
#define KI_SUB(a, b) _mm512_sub_epi16(a, b)
#define KI_ABS(a) _mm512_abs_epi16(a)
#define KA __m512i
#define KA_ZERO() _mm512_setzero_si512()
#define KA_ADD(a, b) _mm512_add_epi32(a, b)
#define KA_SUM(a) K512_FN(SumI)(a)
#define KA_MADD(acc, a, b) _mm512_add_epi32(acc, _mm512_madd_epi16(a, b))
#define KA_ONES() _mm512_set1_epi16(1)
