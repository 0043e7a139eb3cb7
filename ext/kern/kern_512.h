/* SPDX-License-Identifier: MIT */
/*
** The 512-bit vocabulary of kern_v4.c and kern_vnni.c, included by each before
** kern_tier.h (never guarded). K512_FN(name) makes a function's name. Only
** intrinsics that a test can emulate on a machine without AVX-512 are used:
** tests/kern/emulate512.h (KERN_EMULATE) stands in for <immintrin.h>.
*/

static inline KERN_TARGET float K512_FN(SumHalf)(__m256 v) {
  __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  w = _mm_add_ps(w, _mm_movehl_ps(w, w));
  w = _mm_add_ss(w, _mm_movehdup_ps(w));
  return _mm_cvtss_f32(w);
}

static inline KERN_TARGET float K512_FN(SumF)(__m512 v) {
  const __m512d d = _mm512_castps_pd(v);
  return K512_FN(SumHalf)(
      _mm256_add_ps(_mm256_castpd_ps(_mm512_castpd512_pd256(d)),
                    _mm256_castpd_ps(_mm512_extractf64x4_pd(d, 1))));
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

/* f32 in halves: from memory 512-bit loads came to a tenth less than 256-bit
** ones (Zen 4), and from the cache they were no faster. */
#define KERN_F32(op) KH_##op
#define KH_V __m256
#define KH_N 8
#define KH_LOAD(p) _mm256_loadu_ps((const float *)(const void *)(p))
#define KH_ZERO() _mm256_setzero_ps()
#define KH_ADD(a, b) _mm256_add_ps(a, b)
#define KH_SUB(a, b) _mm256_sub_ps(a, b)
#define KH_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define KH_ABS(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#define KH_SUM(a) K512_FN(SumHalf)(a)

#define KF_SET(a) _mm512_set1_ps(a)
#define KF_STORE(p, v) _mm512_storeu_ps((void *)(p), v)
#define KF_FROM_U16(p) _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(K512_LOADH(p)))
#define KF_NOT_GT(a, b)                                                        \
  (~(uint32_t)_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) & 0xffffu)

#define KB __m512i
#define KB_UNIT 4
#define KB_LOAD(p) K512_LOADI(p)
#define KB_ZERO() _mm512_setzero_si512()
#define KB_SHUF(t, i) _mm512_shuffle_epi8(t, i)
#define KB_LOW(v) _mm512_and_si512(v, _mm512_set1_epi8(15))
#define KB_HIGH(v)                                                             \
  _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15))
#define KB_ADD8(a, b) _mm512_add_epi8(a, b)
#define KB_ADD16(a, b) _mm512_add_epi16(a, b)
#define KB_ODD(v) _mm512_srli_epi16(v, 8)
#define KB_EVEN(e, o) _mm512_sub_epi16(e, _mm512_slli_epi16(o, 8))
#define KB_FOLD(p, e, o) K512_FN(Fold)(p, e, o)

static inline KERN_TARGET __m128i K512_FN(Quarter)(__m512i v) {
  const __m256i h = _mm256_add_epi16(_mm512_castsi512_si256(v),
                                     _mm512_extracti64x4_epi64(v, 1));
  return _mm_add_epi16(_mm256_castsi256_si128(h),
                       _mm256_extracti128_si256(h, 1));
}

static inline KERN_TARGET void K512_FN(Fold)(uint16_t *p, __m512i e,
                                             __m512i o) {
  const __m128i even = K512_FN(Quarter)(e), odd = K512_FN(Quarter)(o);
  _mm_storeu_si128((__m128i *)(void *)p, _mm_unpacklo_epi16(even, odd));
  _mm_storeu_si128((__m128i *)(void *)(p + 8), _mm_unpackhi_epi16(even, odd));
}

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
