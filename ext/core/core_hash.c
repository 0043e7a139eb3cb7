/* SPDX-License-Identifier: MIT */
/*
** SHA-256 (FIPS 180-4) with the SHA-NI instructions where the processor has
** them, SHA-1 for the standards that want it, and CRC-64 with the ISO polynomial
** (the checksum of LTX files).
*/
#include "core.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define HASH_SHANI 1
#include <cpuid.h>
#include <immintrin.h>
#endif

static const u32 aSha256K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
    0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
    0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static u32 hashRotr(u32 x, int n) { return (x >> n) | (x << (32 - n)); }

static void hashSha256Portable(u32 h[8], const u8 *a, u64 nBlock) {
  for (; nBlock > 0; nBlock--, a += 64) {
    u32 w[64], s[8];
    int i;
    for (i = 0; i < 16; i++) {
      w[i] = (u32)a[i * 4] << 24 | (u32)a[i * 4 + 1] << 16 |
             (u32)a[i * 4 + 2] << 8 | a[i * 4 + 3];
    }
    for (; i < 64; i++) {
      u32 x = w[i - 15], y = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] +
             (hashRotr(x, 7) ^ hashRotr(x, 18) ^ (x >> 3)) +
             (hashRotr(y, 17) ^ hashRotr(y, 19) ^ (y >> 10));
    }
    memcpy(s, h, sizeof(s));
    for (i = 0; i < 64; i++) {
      u32 t1 = s[7] +
               (hashRotr(s[4], 6) ^ hashRotr(s[4], 11) ^ hashRotr(s[4], 25)) +
               ((s[4] & s[5]) ^ (~s[4] & s[6])) + aSha256K[i] + w[i];
      u32 t2 = (hashRotr(s[0], 2) ^ hashRotr(s[0], 13) ^ hashRotr(s[0], 22)) +
               ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
      memmove(s + 1, s, 7 * sizeof(u32));
      s[4] += t1;
      s[0] = t1 + t2;
    }
    for (i = 0; i < 8; i++) {
      h[i] += s[i];
    }
  }
}

#ifdef HASH_SHANI
/* Four rounds with the schedule words w; the next four words into a. Written
** out, because the words must stay in registers: the chain of rounds alone
** should decide the speed. */
#define HASH_ROUNDS(pK, w)                                                     \
  k = _mm_add_epi32(w, _mm_loadu_si128((const __m128i *)(pK)));                \
  cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);                                 \
  abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(k, 0x0e))
#define HASH_WORDS(a, b, c, d)                                                 \
  a = _mm_sha256msg2_epu32(                                                    \
      _mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8(d, c, 4)), d)
#define HASH_LOAD(p) _mm_shuffle_epi8(_mm_loadu_si128(p), mSwap)

__attribute__((target("sha,sse4.1,ssse3"))) static void
hashSha256Ni(u32 h[8], const u8 *a, u64 nBlock) {
  const __m128i mSwap =
      _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
  __m128i x = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)h), 0xb1);
  __m128i y =
      _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(h + 4)), 0x1b);
  __m128i abef = _mm_alignr_epi8(x, y, 8);
  __m128i cdgh = _mm_blend_epi16(y, x, 0xf0);
  for (; nBlock > 0; nBlock--, a += 64) {
    const __m128i *p = (const __m128i *)a;
    __m128i abef0 = abef, cdgh0 = cdgh, k;
    __m128i m0 = HASH_LOAD(p), m1 = HASH_LOAD(p + 1);
    __m128i m2 = HASH_LOAD(p + 2), m3 = HASH_LOAD(p + 3);
    int i;
    HASH_ROUNDS(aSha256K, m0);
    HASH_ROUNDS(aSha256K + 4, m1);
    HASH_ROUNDS(aSha256K + 8, m2);
    HASH_ROUNDS(aSha256K + 12, m3);
    for (i = 16; i < 64; i += 16) {
      HASH_WORDS(m0, m1, m2, m3);
      HASH_ROUNDS(aSha256K + i, m0);
      HASH_WORDS(m1, m2, m3, m0);
      HASH_ROUNDS(aSha256K + i + 4, m1);
      HASH_WORDS(m2, m3, m0, m1);
      HASH_ROUNDS(aSha256K + i + 8, m2);
      HASH_WORDS(m3, m0, m1, m2);
      HASH_ROUNDS(aSha256K + i + 12, m3);
    }
    abef = _mm_add_epi32(abef, abef0);
    cdgh = _mm_add_epi32(cdgh, cdgh0);
  }
  x = _mm_shuffle_epi32(abef, 0x1b);
  y = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128((__m128i *)h, _mm_blend_epi16(x, y, 0xf0));
  _mm_storeu_si128((__m128i *)(h + 4), _mm_alignr_epi8(y, x, 8));
}

static int hashHasShaNi(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 9)) ||
      !(c & (1u << 19))) {
    return 0; /* SSSE3, SSE4.1 */
  }
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29));
}
#endif

typedef void (*HashBlocks)(u32 h[8], const u8 *a, u64 nBlock);

/* Chosen at the first use; two threads that meet here choose the same. */
static HashBlocks hashBlocks;

CHOIR_PRIVATE void choirSha256Force(int bPortable) {
  HashBlocks x = hashSha256Portable;
#ifdef HASH_SHANI
  if (!bPortable && hashHasShaNi()) {
    x = hashSha256Ni;
  }
#else
  (void)bPortable;
#endif
  __atomic_store_n(&hashBlocks, x, __ATOMIC_RELAXED);
}

CHOIR_PRIVATE void choirSha256Init(ChoirSha256 *p) {
  static const u32 h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memset(p, 0, sizeof(*p));
  memcpy(p->h, h, sizeof(h));
  if (__atomic_load_n(&hashBlocks, __ATOMIC_RELAXED) == NULL) {
    choirSha256Force(0);
  }
}

CHOIR_PRIVATE void choirSha256Update(ChoirSha256 *p, const void *pData, u64 n) {
  HashBlocks xBlocks = __atomic_load_n(&hashBlocks, __ATOMIC_RELAXED);
  const u8 *a = pData;
  u64 nHave = p->n % 64;
  p->n += n;
  if (nHave) {
    u64 nTake = 64 - nHave < n ? 64 - nHave : n;
    memcpy(p->a + nHave, a, (size_t)nTake);
    a += nTake;
    n -= nTake;
    if (nHave + nTake < 64) {
      return;
    }
    xBlocks(p->h, p->a, 1);
  }
  xBlocks(p->h, a, n / 64);
  if (n % 64) {
    memcpy(p->a, a + n / 64 * 64, (size_t)(n % 64));
  }
}

CHOIR_PRIVATE void choirSha256Final(ChoirSha256 *p, u8 aOut[32]) {
  u8 aPad[72] = {0x80};
  u64 nBit = p->n * 8;
  u64 nPad = (p->n % 64 < 56 ? 56 : 120) - p->n % 64;
  int i;
  for (i = 0; i < 8; i++) {
    aPad[nPad + (u64)i] = (u8)(nBit >> (56 - 8 * i));
  }
  choirSha256Update(p, aPad, nPad + 8);
  for (i = 0; i < 32; i++) {
    aOut[i] = (u8)(p->h[i / 4] >> (24 - 8 * (i % 4)));
  }
}

CHOIR_PRIVATE void choirSha256(const void *a, u64 n, u8 aOut[32]) {
  ChoirSha256 s;
  choirSha256Init(&s);
  choirSha256Update(&s, a, n);
  choirSha256Final(&s, aOut);
}

CHOIR_PRIVATE void choirHmacSha256(const void *aKey, u64 nKey, const void *a,
                                   u64 n, u8 aOut[32]) {
  u8 aPad[64];
  ChoirSha256 sha;
  int i;
  memset(aPad, 0, sizeof(aPad));
  if (nKey > 64) {
    choirSha256(aKey, nKey, aPad);
  } else {
    memcpy(aPad, aKey, (size_t)nKey);
  }
  for (i = 0; i < 64; i++) {
    aPad[i] ^= 0x36;
  }
  choirSha256Init(&sha);
  choirSha256Update(&sha, aPad, 64);
  choirSha256Update(&sha, a, n);
  choirSha256Final(&sha, aOut);
  for (i = 0; i < 64; i++) {
    aPad[i] ^= 0x36 ^ 0x5c;
  }
  choirSha256Init(&sha);
  choirSha256Update(&sha, aPad, 64);
  choirSha256Update(&sha, aOut, 32);
  choirSha256Final(&sha, aOut);
  choirWipe(aPad, sizeof(aPad));
  choirWipe(&sha, sizeof(sha));
}

/* ------------------------------------------------------------------ SHA-1 */

static void hashSha1Block(u32 h[5], const u8 *a) {
  static const u32 aK[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
  u32 w[80], v[5];
  int i;
  for (i = 0; i < 16; i++) {
    w[i] = (u32)a[4 * i] << 24 | (u32)a[4 * i + 1] << 16 |
           (u32)a[4 * i + 2] << 8 | a[4 * i + 3];
  }
  for (; i < 80; i++) {
    u32 x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
    w[i] = x << 1 | x >> 31;
  }
  memcpy(v, h, sizeof(v));
  for (i = 0; i < 80; i++) {
    u32 f = i < 20   ? (v[1] & v[2]) | (~v[1] & v[3])
            : i < 40 ? v[1] ^ v[2] ^ v[3]
            : i < 60 ? (v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3])
                     : v[1] ^ v[2] ^ v[3];
    u32 x = (v[0] << 5 | v[0] >> 27) + f + v[4] + aK[i / 20] + w[i];
    v[4] = v[3];
    v[3] = v[2];
    v[2] = v[1] << 30 | v[1] >> 2;
    v[1] = v[0];
    v[0] = x;
  }
  for (i = 0; i < 5; i++) {
    h[i] += v[i];
  }
}

CHOIR_PRIVATE void choirSha1(const void *a, u64 n, u8 aOut[20]) {
  u32 h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  u64 nTail = n % 64, nLast = nTail < 56 ? 64 : 128, i;
  u8 aLast[128] = {0};
  for (i = 0; i + 64 <= n; i += 64) {
    hashSha1Block(h, (const u8 *)a + i);
  }
  if (nTail) {
    memcpy(aLast, (const u8 *)a + i, (size_t)nTail);
  }
  aLast[nTail] = 0x80;
  for (i = 0; i < 8; i++) {
    aLast[nLast - 8 + i] = (u8)(n * 8 >> (56 - 8 * i));
  }
  for (i = 0; i < nLast; i += 64) {
    hashSha1Block(h, aLast + i);
  }
  for (i = 0; i < 20; i++) {
    aOut[i] = (u8)(h[i / 4] >> (24 - 8 * (i % 4)));
  }
}

/* Slicing by eight, and carry-less multiplication where the processor has it and
** the data is long: the tables are built by the first caller of a process. */
#define CRC64_POLY 0xd800000000000000ULL
static u64 aCrc64[8][256];
static int bCrc64;

static void crc64FoldInit(void);

static void crc64Fill(void) {
  int j, k;
  for (j = 0; j < 256; j++) {
    u64 v = (u64)j;
    for (k = 0; k < 8; k++) {
      v = (v >> 1) ^ ((v & 1) ? CRC64_POLY : 0);
    }
    aCrc64[0][j] = v;
  }
  for (k = 1; k < 8; k++) {
    for (j = 0; j < 256; j++) {
      u64 v = aCrc64[k - 1][j];
      aCrc64[k][j] = aCrc64[0][(u8)v] ^ (v >> 8);
    }
  }
  crc64FoldInit();
}

static void crc64Init(void) {
  sqlite3_mutex *pMutex = sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_APP1);
  sqlite3_mutex_enter(pMutex);
  if (!__atomic_load_n(&bCrc64, __ATOMIC_RELAXED)) {
    crc64Fill();
    __atomic_store_n(&bCrc64, 1, __ATOMIC_RELEASE);
  }
  sqlite3_mutex_leave(pMutex);
}

/* a*b modulo the polynomial; bit 63 is the coefficient of x^0. */
static u64 crc64Times(u64 a, u64 b) {
  u64 m = 0;
  for (; a; a <<= 1) {
    m ^= (a >> 63) ? b : 0;
    b = (b >> 1) ^ ((b & 1) ? CRC64_POLY : 0);
  }
  return m;
}

#if defined(HASH_SHANI)
/* x^511 and x^575: what 64 bytes further on is worth to a half of a lane (one
** less than 512 and 576, because a product of mirrored words is shifted). 0: no
** carry-less multiplication here. */
static u64 aCrc64Fold[2];

static void crc64FoldInit(void) {
  unsigned a, b, c, d;
  u64 x = (u64)1 << 62;
  int i;
  if (__get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 1))) {
    for (i = 1; i < 511; i++) {
      x = crc64Times(x, (u64)1 << 62);
    }
    aCrc64Fold[0] = x;
    for (; i < 575; i++) {
      x = crc64Times(x, (u64)1 << 62);
    }
    aCrc64Fold[1] = x;
  }
}

/* 64 bytes with the same remainder as the crc and a[0..n), n a multiple of 64
** and not 0. */
__attribute__((target("pclmul,sse2"))) static void
crc64Fold(u64 crc, const u8 *a, u64 n, u8 aOut[64]) {
  const __m128i k =
      _mm_set_epi64x((long long)aCrc64Fold[0], (long long)aCrc64Fold[1]);
  __m128i v[4];
  int i;
  for (i = 0; i < 4; i++) {
    v[i] = _mm_loadu_si128((const __m128i *)(const void *)(a + 16 * i));
  }
  v[0] = _mm_xor_si128(v[0], _mm_set_epi64x(0, (long long)crc));
  for (a += 64, n -= 64; n; a += 64, n -= 64) {
    for (i = 0; i < 4; i++) {
      __m128i w = _mm_loadu_si128((const __m128i *)(const void *)(a + 16 * i));
      v[i] =
          _mm_xor_si128(_mm_xor_si128(w, _mm_clmulepi64_si128(v[i], k, 0x00)),
                        _mm_clmulepi64_si128(v[i], k, 0x11));
    }
  }
  for (i = 0; i < 4; i++) {
    _mm_storeu_si128((__m128i *)(void *)(aOut + 16 * i), v[i]);
  }
}
#else
static void crc64FoldInit(void) {}
#endif

static u64 crc64Slice(u64 crc, const u8 *a, u64 n) {
  for (; n >= 8; a += 8, n -= 8) {
    crc ^= (u64)a[0] | (u64)a[1] << 8 | (u64)a[2] << 16 | (u64)a[3] << 24 |
           (u64)a[4] << 32 | (u64)a[5] << 40 | (u64)a[6] << 48 |
           (u64)a[7] << 56;
    crc = aCrc64[7][(u8)crc] ^ aCrc64[6][(u8)(crc >> 8)] ^
          aCrc64[5][(u8)(crc >> 16)] ^ aCrc64[4][(u8)(crc >> 24)] ^
          aCrc64[3][(u8)(crc >> 32)] ^ aCrc64[2][(u8)(crc >> 40)] ^
          aCrc64[1][(u8)(crc >> 48)] ^ aCrc64[0][crc >> 56];
  }
  for (; n > 0; a++, n--) {
    crc = aCrc64[0][(u8)crc ^ *a] ^ (crc >> 8);
  }
  return crc;
}

CHOIR_PRIVATE u64 choirCrc64(u64 crc, const void *pData, u64 n) {
  const u8 *a = pData;
  if (!__atomic_load_n(&bCrc64, __ATOMIC_ACQUIRE)) {
    crc64Init();
  }
  crc = ~crc;
#if defined(HASH_SHANI)
  if (n >= 256 && aCrc64Fold[1]) {
    u8 aFold[64];
    u64 nFold = n & ~(u64)63;
    crc64Fold(crc, a, nFold, aFold);
    crc = crc64Slice(0, aFold, 64);
    a += nFold;
    n -= nFold;
  }
#endif
  return ~crc64Slice(crc, a, n);
}

CHOIR_PRIVATE u64 choirCrc64Join(u64 crcA, u64 crcB, u64 nB) {
  u64 x = (u64)1 << 55; /* x^8: one byte */
  for (; nB; nB >>= 1) {
    if (nB & 1) {
      crcA = crc64Times(crcA, x);
    }
    x = crc64Times(x, x);
  }
  return crcA ^ crcB;
}

CHOIR_PRIVATE void choirHex(const u8 *a, int n, char *z) {
  static const char aHex[] = "0123456789abcdef";
  int i;
  for (i = 0; i < n; i++) {
    *z++ = aHex[a[i] >> 4];
    *z++ = aHex[a[i] & 15];
  }
  *z = 0;
}

CHOIR_PRIVATE int choirHexDigit(int c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}
