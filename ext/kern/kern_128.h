/* SPDX-License-Identifier: MIT */
/*
** The 128-bit vocabulary of kern_base.c and kern_v2.c, included by each before
** kern_tier.h (never guarded). K128(f) is simde's f, which is SSE2 itself on
** x86-64, NEON on ARM and SIMD128 in WebAssembly; without simde it is SSE2.
** The includer sets K128_FN(name), a function's name; K128_WIDEN(v), the low
** eight int8 of v widened; K128_ABS16(v); and K128_SHUF(t,i), a byte shuffle, or
** KERN_SUMS.
*/

#ifdef CHOIR_NO_SIMDE
#define K128(f) _mm_##f
#define K128_F __m128
#define K128_I __m128i
#else
#define K128(f) simde_mm_##f
#define K128_F simde__m128
#define K128_I simde__m128i
#endif

#define K128_LOADI(p) K128(loadl_epi64)((const K128_I *)(const void *)(p))

#define KF K128_F
#define KF_N 4
#define KF_LOAD(p) K128(loadu_ps)((const float *)(const void *)(p))
#define KF_LOAD_F16(p) K128_FN(LoadF16)(p)
#define KF_LOAD_BF16(p)                                                        \
  K128(castsi128_ps)                                                           \
  (K128(unpacklo_epi16)(K128(setzero_si128)(), K128_LOADI(p)))
#define KF_ZERO() K128(setzero_ps)()
#define KF_ADD(a, b) K128(add_ps)(a, b)
#define KF_SUB(a, b) K128(sub_ps)(a, b)
#define KF_FMA(a, b, c) K128(add_ps)(K128(mul_ps)(a, b), c)
#define KF_ABS(a) K128(andnot_ps)(K128(set1_ps)(-0.0f), a)
#define KF_SUM(a) K128_FN(SumF)(a)

#define KF_SET(a) K128(set1_ps)(a)
#define KF_STORE(p, v) K128(storeu_ps)(p, v)
#define KF_FROM_U16(p)                                                         \
  K128(cvtepi32_ps)(K128(unpacklo_epi16)(K128_LOADI(p), K128(setzero_si128)()))
#define KF_NOT_GT(a, b)                                                        \
  (~(uint32_t)K128(movemask_ps)(K128(cmpgt_ps)(a, b)) & 15u)

#ifdef K128_SHUF
#define KB K128_I
#define KB_UNIT 1
#define KB_LOAD(p) K128(loadu_si128)((const K128_I *)(const void *)(p))
#define KB_ZERO() K128(setzero_si128)()
#define KB_SHUF(t, i) K128_SHUF(t, i)
#define KB_LOW(v) K128(and_si128)(v, K128(set1_epi8)(15))
#define KB_HIGH(v) K128(and_si128)(K128(srli_epi16)(v, 4), K128(set1_epi8)(15))
#define KB_ADD8(a, b) K128(add_epi8)(a, b)
#define KB_ADD16(a, b) K128(add_epi16)(a, b)
#define KB_ODD(v) K128(srli_epi16)(v, 8)
#define KB_EVEN(e, o) K128(sub_epi16)(e, K128(slli_epi16)(o, 8))
#define KB_FOLD(p, e, o) K128_FN(Fold)(p, e, o)

static inline KERN_TARGET void K128_FN(Fold)(uint16_t *p, K128_I e, K128_I o) {
  K128(storeu_si128)((K128_I *)(void *)p, K128(unpacklo_epi16)(e, o));
  K128(storeu_si128)((K128_I *)(void *)(p + 8), K128(unpackhi_epi16)(e, o));
}
#endif

#define KI K128_I
#define KI_N 8
#define KI_LOAD(p) K128_WIDEN(K128_LOADI(p))
#define KI_SUB(a, b) K128(sub_epi16)(a, b)
#define KI_ABS(a) K128_ABS16(a)
#define KA K128_I
#define KA_ZERO() K128(setzero_si128)()
#define KA_ADD(a, b) K128(add_epi32)(a, b)
#define KA_MADD(acc, a, b) K128(add_epi32)(acc, K128(madd_epi16)(a, b))
#define KA_ONES() K128(set1_epi16)(1)
#define KA_SUM(a) K128_FN(SumI)(a)

static inline KERN_TARGET float K128_FN(SumF)(K128_F v) {
  K128_F w = K128(add_ps)(v, K128(movehl_ps)(v, v));
  w = K128(add_ss)(w, K128(shuffle_ps)(w, w, 1));
  return K128(cvtss_f32)(w);
}

static inline KERN_TARGET int K128_FN(SumI)(K128_I v) {
  v = K128(add_epi32)(v, K128(shuffle_epi32)(v, 0x4e));
  v = K128(add_epi32)(v, K128(shuffle_epi32)(v, 0xb1));
  return K128(cvtsi128_si32)(v);
}

/* Four halves: the 15 magnitude bits move into a float's exponent and
** fraction, a multiplication by 2^112 moves the exponent's bias (subnormals
** included), and infinity and NaN get the exponent they need. */
static inline KERN_TARGET K128_F K128_FN(LoadF16)(const uint8_t *p) {
  const K128_I h = K128(unpacklo_epi16)(K128_LOADI(p), K128(setzero_si128)());
  const K128_I mag =
      K128(slli_epi32)(K128(and_si128)(h, K128(set1_epi32)(0x7fff)), 13);
  const K128_I sign =
      K128(slli_epi32)(K128(and_si128)(h, K128(set1_epi32)(0x8000)), 16);
  const K128_I bSpecial = K128(cmpgt_epi32)(mag, K128(set1_epi32)(0x0f7fffff));
  const K128_F v = K128(mul_ps)(K128(castsi128_ps)(mag),
                                K128(set1_ps)(5.192296858534828e33f));
  const K128_I special =
      K128(and_si128)(bSpecial, K128(set1_epi32)(0x7f800000));
  return K128(castsi128_ps)(
      K128(or_si128)(K128(or_si128)(K128(castps_si128)(v), special), sign));
}
