/* SPDX-License-Identifier: MIT */
/*
** binary16 and bfloat16, one value at a time. Wide loads are in the tiers.
*/
#include "kern.h"

static inline float kernFloatOf(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof(f));
  return f;
}

static inline uint32_t kernBitsOf(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof(u));
  return u;
}

/* The same steps as the 128-bit load in kern_128.h. */
CHOIR_PRIVATE float choirF16ToF32(uint16_t h) {
  uint32_t mag = (uint32_t)(h & 0x7fff) << 13;
  uint32_t u = kernBitsOf(kernFloatOf(mag) * 5.192296858534828e33f); /* 2^112 */
  if (mag > 0x0f7fffff) {
    u |= 0x7f800000; /* infinity or NaN */
  }
  return kernFloatOf(u | (uint32_t)(h & 0x8000) << 16);
}

CHOIR_PRIVATE uint16_t choirF32ToF16(float f) {
  uint32_t u = kernBitsOf(f), sign = u >> 16 & 0x8000, mag = u & 0x7fffffff;
  uint32_t h;
  if (mag > 0x7f800000) {
    h = 0x7e00 | (mag >> 13 & 0x1ff); /* a quiet NaN */
  } else if (mag >= 0x477ff000) {     /* 65520 and more round to infinity */
    h = 0x7c00;
  } else if (mag < 0x38800000) { /* below 2^-14: the adder rounds subnormals */
    h = kernBitsOf(kernFloatOf(mag) + 0.5f) - 0x3f000000;
  } else {
    h = (mag - 0x38000000 + 0xfff + (mag >> 13 & 1)) >> 13;
  }
  return (uint16_t)(sign | h);
}

CHOIR_PRIVATE float choirBf16ToF32(uint16_t h) {
  return kernFloatOf((uint32_t)h << 16);
}

CHOIR_PRIVATE uint16_t choirF32ToBf16(float f) {
  uint32_t u = kernBitsOf(f);
  if ((u & 0x7fffffff) > 0x7f800000) {
    return (uint16_t)(u >> 16 | 0x40); /* keep it a NaN */
  }
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
