/* SPDX-License-Identifier: MIT */
/*
** x86-64-v4: 512 bits, AVX-512 F, BW, DQ, VL.
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
  __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")))
#endif
#define KERN_TIER v4
#define KERN_TABLE choirKernV4
#define KERN_ZNAME "v4"
#define KERN_HAMMING kernV4Hamming
#define K512_FN(name) kernV4##name

#include "kern_512.h"

/* Bits per nibble by table look-up; SAD adds the bytes up. */
static KERN_TARGET uint64_t kernV4Hamming(const void *pA, const void *pB,
                                          size_t n) {
  const __m512i table = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m512i low = _mm512_set1_epi8(15);
  const uint8_t *a = pA, *b = pB;
  __m512i s = _mm512_setzero_si512();
  uint64_t aLane[8], sum = 0;
  int i;
  for (; n >= 64; n -= 64, a += 64, b += 64) {
    const __m512i x = _mm512_xor_si512(K512_LOADI(a), K512_LOADI(b));
    const __m512i lo = _mm512_shuffle_epi8(table, _mm512_and_si512(x, low));
    const __m512i hi = _mm512_shuffle_epi8(
        table, _mm512_and_si512(_mm512_srli_epi16(x, 4), low));
    s = _mm512_add_epi64(
        s, _mm512_sad_epu8(_mm512_add_epi8(lo, hi), _mm512_setzero_si512()));
  }
  _mm512_storeu_si512((void *)aLane, s);
  for (i = 0; i < 8; i++) {
    sum += aLane[i];
  }
  return n ? sum + choirKernV2.xHamming(a, b, n) : sum;
}

#include "kern_tier.h"
#undef K512_FN
#undef K512_LOADI
#undef K512_LOADH

#endif /* CHOIR_KERN_X86 */
