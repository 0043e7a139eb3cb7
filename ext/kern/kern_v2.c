/* SPDX-License-Identifier: MIT */
/*
** x86-64-v2: the 128-bit tier with SSSE3 and SSE4.1 widening and POPCNT.
*/
#include "kern.h"

#if CHOIR_KERN_X86

#include <immintrin.h>
#ifndef CHOIR_NO_SIMDE
#include <simde/x86/sse2.h>
#endif

#define KERN_TIER v2
#define KERN_TARGET __attribute__((target("ssse3,sse4.1,sse4.2,popcnt")))
#define KERN_TABLE choirKernV2
#define KERN_ZNAME "v2"
#define KERN_HAMMING kernV2Hamming
#define K128_FN(name) kernV2##name
#define K128_WIDEN(v) _mm_cvtepi8_epi16(v)
#define K128_ABS16(a) _mm_abs_epi16(a)
#define K128_SHUF(t, i) _mm_shuffle_epi8(t, i)

static KERN_TARGET uint64_t kernV2Hamming(const void *pA, const void *pB,
                                          size_t n) {
  const uint8_t *a = pA, *b = pB;
  uint64_t aX[4], aY[4], sum = 0;
  for (; n >= 32; n -= 32, a += 32, b += 32) {
    memcpy(aX, a, 32);
    memcpy(aY, b, 32);
    sum += (uint64_t)_mm_popcnt_u64(aX[0] ^ aY[0]) +
           (uint64_t)_mm_popcnt_u64(aX[1] ^ aY[1]) +
           (uint64_t)_mm_popcnt_u64(aX[2] ^ aY[2]) +
           (uint64_t)_mm_popcnt_u64(aX[3] ^ aY[3]);
  }
  for (; n >= 8; n -= 8, a += 8, b += 8) {
    memcpy(aX, a, 8);
    memcpy(aY, b, 8);
    sum += (uint64_t)_mm_popcnt_u64(aX[0] ^ aY[0]);
  }
  for (; n > 0; n--, a++, b++) {
    sum += (uint64_t)_mm_popcnt_u64((uint64_t)(*a ^ *b));
  }
  return sum;
}

#include "kern_128.h"
#include "kern_tier.h"
#undef K128_FN
#undef K128_WIDEN
#undef K128_ABS16
#undef K128_SHUF

#endif /* CHOIR_KERN_X86 */
