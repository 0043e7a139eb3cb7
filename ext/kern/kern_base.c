/* SPDX-License-Identifier: MIT */
/*
** The 128-bit tier that every machine of its kind has: SSE2 on x86-64, NEON on
** 64-bit ARM, SIMD128 in WebAssembly. Written once, through simde.
*/
#include "kern.h"

#if CHOIR_KERN_BASE

#ifdef CHOIR_NO_SIMDE
#include <emmintrin.h>
#else
#include <simde/x86/ssse3.h>
#endif

#if CHOIR_KERN_X86
#define KERN_ZNAME "sse2"
#elif defined(__aarch64__) || defined(__ARM_NEON)
#define KERN_ZNAME "neon"
#elif defined(__wasm_simd128__)
#define KERN_ZNAME "wasm"
#else
#define KERN_ZNAME "simde"
#endif

#define KERN_TIER base
#define KERN_TARGET
#define KERN_TABLE choirKernBase
#define K128_FN(name) kernBase##name
#define K128_WIDEN(v) K128(srai_epi16)(K128(unpacklo_epi8)(v, v), 8)
#define K128_ABS16(a)                                                          \
  K128(max_epi16)(a, K128(sub_epi16)(K128(setzero_si128)(), a))

#if CHOIR_KERN_X86
#define KERN_HAMMING choirKernHamming
#define KERN_SUMS choirKernSums
#else
#define K128_SHUF(t, i) simde_mm_shuffle_epi8(t, i)
#define KERN_HAMMING kernBaseHamming
/* aarch64 and WebAssembly count bits in one instruction. */
static uint64_t kernBaseHamming(const void *pA, const void *pB, size_t n) {
  const uint8_t *a = pA, *b = pB;
  uint64_t sum = 0, x, y;
  for (; n >= 8; n -= 8, a += 8, b += 8) {
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    sum += (uint64_t)__builtin_popcountll(x ^ y);
  }
  for (; n > 0; n--, a++, b++) {
    sum += (uint64_t)__builtin_popcount((unsigned)(*a ^ *b));
  }
  return sum;
}
#endif

#include "kern_128.h"
#include "kern_tier.h"
#undef K128_FN
#undef K128_WIDEN
#undef K128_ABS16
#undef K128_SHUF

#endif /* CHOIR_KERN_BASE */
