/* SPDX-License-Identifier: MIT */
/*
** hash-384: the built-in model. A text becomes the sum of the vectors of its
** words, a word the sum of its own feature and of those of its character
** n-grams, a feature one signed coordinate of 384 chosen by a hash. It is
** lexical, not semantic: it finds the same words, their other forms and their
** misspellings, and knows nothing of meaning.
**
** Everything is summed in integers and normalised once by a square root and a
** division that IEEE 754 rounds exactly, so the bytes are the same on every
** machine. docs/formats.md has the algorithm and test vectors; a change here
** needs a new name.
*/
#include "embed.h"
#include <math.h>

#define HASH_DIM 384

/* What the k-th occurrence of a word adds to its weight, in sixteenths. */
static const u8 aHashGain[] = {16, 4, 2};
#define HASH_GAIN_N ((int)sizeof(aHashGain))

/* How much a word of so many characters counts; longer ones as the last. */
static const u8 aHashLength[] = {0, 4, 4, 8, 12, 14, 15, 15, 16};
#define HASH_LENGTH_N ((int)sizeof(aHashLength))

/* Words seen in one text: open addressing on their hash. */
typedef struct HashSeen {
  u64 *aKey; /* 0: free */
  u8 *aCount;
  u64 nSlot; /* a power of two */
  u64 nUsed;
} HashSeen;

static void hashSeenFree(HashSeen *p) {
  sqlite3_free(p->aKey);
  sqlite3_free(p->aCount);
  memset(p, 0, sizeof(*p));
}

static u64 hashSeenSlot(const HashSeen *p, u64 iKey) {
  u64 i = iKey & (p->nSlot - 1);
  while (p->aKey[i] != 0 && p->aKey[i] != iKey) {
    i = (i + 1) & (p->nSlot - 1);
  }
  return i;
}

static void hashSeenGrow(HashSeen *p, ChoirErr *pErr) {
  HashSeen big = {NULL, NULL, p->nSlot ? p->nSlot * 2 : 512, p->nUsed};
  u64 i;
  big.aKey = choirMalloc(pErr, big.nSlot * sizeof(u64));
  big.aCount = choirMalloc(pErr, big.nSlot);
  if (pErr->rc != SQLITE_OK) {
    hashSeenFree(&big);
    return;
  }
  for (i = 0; i < p->nSlot; i++) {
    if (p->aKey[i]) {
      u64 iTo = hashSeenSlot(&big, p->aKey[i]);
      big.aKey[iTo] = p->aKey[i];
      big.aCount[iTo] = p->aCount[i];
    }
  }
  hashSeenFree(p);
  *p = big;
}

/* Notes a word; returns how often it was seen before (saturating). */
static int hashSeenAdd(HashSeen *p, ChoirErr *pErr, u64 iKey) {
  u64 i;
  iKey = iKey ? iKey : 1;
  if (p->nUsed * 2 >= p->nSlot) {
    hashSeenGrow(p, pErr);
  }
  if (pErr->rc != SQLITE_OK) {
    return HASH_GAIN_N;
  }
  i = hashSeenSlot(p, iKey);
  p->nUsed += p->aKey[i] == 0;
  p->aKey[i] = iKey;
  if (p->aCount[i] >= HASH_GAIN_N) {
    return HASH_GAIN_N;
  }
  return p->aCount[i]++;
}

static void hashFeature(i64 *aSum, u64 h, int iWeight) {
  aSum[((h >> 32) * HASH_DIM) >> 32] += h & 1 ? iWeight : -iWeight;
}

/* The n-grams of `<word>`: 3 to 5 characters, or 1 to 3 without the brackets
** for scripts that write many words without a space. */
static void hashGrams(i64 *aSum, const ChoirWords *p, int iWeight) {
  char a[sizeof(p->aFold) + 2];
  int aAt[2 * CHOIR_WORD_MAX + 4];
  int bWide = (u8)p->aFold[0] >= 0xe2 && p->aAt[1] >= 3 &&
              ((u8)p->aFold[0] > 0xe2 || (u8)p->aFold[1] >= 0xba);
  int nMin = bWide ? 1 : 3, nMax = bWide ? 3 : 5;
  int i, n, nChar = 0, nByte = 0;
  if (!bWide) {
    aAt[nChar++] = nByte;
    a[nByte++] = '<';
  }
  for (i = 0; i < p->nChar; i++) {
    aAt[nChar++] = nByte + p->aAt[i];
  }
  memcpy(a + nByte, p->aFold, (size_t)p->nFold);
  nByte += p->nFold;
  if (!bWide) {
    aAt[nChar++] = nByte;
    a[nByte++] = '>';
  }
  aAt[nChar] = nByte;
  for (n = nMin; n <= nMax; n++) {
    for (i = 0; i + n <= nChar; i++) {
      hashFeature(aSum, choirWordHash('g', a + aAt[i], aAt[i + n] - aAt[i]),
                  iWeight);
    }
  }
}

/* Sums to a unit vector. Halving keeps the sum of squares within 63 bits. */
static void hashNormalise(i64 *aSum, float *aOut) {
  i64 iMax = 0, iNorm = 0;
  double rNorm;
  int i;
  for (i = 0; i < HASH_DIM; i++) {
    i64 v = aSum[i] < 0 ? -aSum[i] : aSum[i];
    iMax = v > iMax ? v : iMax;
  }
  for (; iMax >= (i64)1 << 27; iMax /= 2) {
    for (i = 0; i < HASH_DIM; i++) {
      aSum[i] /= 2;
    }
  }
  for (i = 0; i < HASH_DIM; i++) {
    iNorm += aSum[i] * aSum[i];
  }
  rNorm = sqrt((double)iNorm);
  for (i = 0; i < HASH_DIM; i++) {
    aOut[i] = iNorm ? (float)((double)aSum[i] / rNorm) : 0.0f;
  }
}

static void hashText(ChoirErr *pErr, HashSeen *pSeen, const char *z, i64 n,
                     float *aOut) {
  i64 aSum[HASH_DIM] = {0};
  ChoirWords w;
  choirWordInit(&w, z, n);
  while (pErr->rc == SQLITE_OK && choirWordNext(&w)) {
    u64 h = choirWordHash('w', w.aFold, w.nFold);
    int iSeen = hashSeenAdd(pSeen, pErr, h);
    if (iSeen < HASH_GAIN_N) {
      int iLength = w.nChar < HASH_LENGTH_N ? w.nChar : HASH_LENGTH_N - 1;
      int iWeight = aHashGain[iSeen] * aHashLength[iLength];
      hashFeature(aSum, h, 2 * iWeight);
      hashGrams(aSum, &w, iWeight);
    }
  }
  hashNormalise(aSum, aOut);
}

static void hashBatch(ChoirConn *pConn, ChoirErr *pErr,
                      const char *const *azText, const i64 *anText, int n,
                      int eRole, float *aOut) {
  HashSeen seen = {NULL, NULL, 0, 0};
  int i;
  (void)pConn, (void)eRole;
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
    hashText(pErr, &seen, azText[i], anText[i], aOut + (i64)i * HASH_DIM);
    if (seen.nSlot > 4096) {
      hashSeenFree(&seen);
    } else if (seen.nSlot) {
      memset(seen.aKey, 0, (size_t)seen.nSlot * sizeof(u64));
      memset(seen.aCount, 0, (size_t)seen.nSlot);
      seen.nUsed = 0;
    }
  }
  hashSeenFree(&seen);
}

static const ChoirEmbedModel hashModel = {
    .zName = "hash-384",
    .nDim = HASH_DIM,
    .bLocal = 1,
    .nBatch = 64,
    .bLexical = 1,
    .rMaybe = 0.12,
    .rSure = 0.2,
    .xBatch = hashBatch,
};

CHOIR_PRIVATE const ChoirEmbedModel *choirHashModel(void) { return &hashModel; }
