/* SPDX-License-Identifier: MIT */
/*
** Stands in for <immintrin.h> where ext/kern/kern_v4.c and kern_vnni.c are
** compiled with -DKERN_EMULATE (and -mavx2 -mfma -mf16c): the AVX-512
** intrinsics become simde's emulation, so their logic runs on a machine
** without AVX-512. What simde 0.7.4 lacks is written out here.
*/
#ifndef EMULATE512_H
#define EMULATE512_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <immintrin.h>
#include <string.h>
#include <simde/x86/avx512.h>

static inline __m512 emulateJoin(__m256 lo, __m256 hi) {
  __m512 v;
  memcpy(&v, &lo, 32);
  memcpy((char *)&v + 32, &hi, 32);
  return v;
}

static inline __m512 emulateCvtphPs(__m256i h) {
  return emulateJoin(_mm256_cvtph_ps(_mm256_castsi256_si128(h)),
                     _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)));
}

static inline __m512i emulateCvtepu16Epi32(__m256i h) {
  return _mm512_castps_si512(emulateJoin(
      _mm256_castsi256_ps(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(h))),
      _mm256_castsi256_ps(
          _mm256_cvtepu16_epi32(_mm256_extracti128_si256(h, 1)))));
}

static inline __m512 emulateCvtepi32Ps(__m512i v) {
  return emulateJoin(_mm256_cvtepi32_ps(_mm512_castsi512_si256(v)),
                     _mm256_cvtepi32_ps(_mm512_extracti64x4_epi64(v, 1)));
}

/* simde's own alias of this one has the wrong number of arguments. */
#undef _mm512_madd_epi16
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(a) emulateCvtphPs(a)
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32(a) emulateCvtepu16Epi32(a)

#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(a) emulateCvtepi32Ps(a)

#endif /* EMULATE512_H */
