/* SPDX-License-Identifier: MIT */
/*
** Vectors as codes of one bit a dimension (RaBitQ), in blocks of 32 rows.
**
** A vector x (of length 1 under cosine) is padded with zeros to nPad elements
** and rotated by a seed. Relative to a centre c it is stored as the signs b of
** x - c, and with r = |x - c|, g = r^2 / sum |x - c|, the inner product of
** x - c with any y is estimated by g <b, y>; the standard deviation is
** r |y| sqrt((1/o^2 - 1) / (nPad - 1)), o = sum |x - c| / (r sqrt(nPad)),
** whatever the direction of y.
**
** It is less for a near row: what of y lies along x - c is no matter of chance,
** so that the deviation is sqrt(1 - p^2) of that, p their cosine. With p' the
** estimated cosine and z the whole error as a cosine, the ends of p are the roots
** of (p - p')^2 = z^2 (1 - p^2), as in Wilson's interval. And |q - c| sqrt(1 -
** p^2) is at most |q - x|: the scan's own test has its error cut down by the
** bound on distances. (An estimate of dot does not tell p; its error stays whole.)
**
** The centre's part of every estimate is folded into the row's own numbers, so
** one table per query serves all lists:
**
**   l2, cosine   |x - q|^2 = add + |q - c|^2 - 2 g <b, q>
**   dot          -2 <x, q> = add - 2 <c, q>  - 2 g <b, q>
**
** Bytes: docs/formats.md. All numbers are stored as halves of about 1, by the
** index's scale; what does not fit (or is no number) has an infinite error and
** is always looked at itself.
*/
#include "index.h"
#include <math.h>

#define CODE_EPSILON 1.9f /* errors beyond: 1 in 35, and only near the k-th */
#define CODE_STEPS 59.0f  /* entries of the table stay below 64 when rounded */
#define CODE_KEEP 0.1f /* of the variance, kept however near: rounding, … */
#define CODE_FLAT 0.1f /* o^2 below which a row's numbers do not tell r */

static u64 codeNext(u64 *p) { /* splitmix64 */
  u64 z = (*p += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

CHOIR_PRIVATE void choirCodeInit(ChoirCode *p, ChoirErr *pErr,
                                 const ChoirKern *pKern, int eType, int eMetric,
                                 i64 nDim, i64 iSeed, double rScale) {
  u64 iState = (u64)iSeed, mBits = 0;
  size_t i;
  memset(p, 0, sizeof(*p));
  p->pKern = pKern;
  p->eType = eType;
  p->eMetric = eMetric;
  p->nDim = nDim;
  p->nVec = eType == VEC_I8 ? nDim : nDim * (eType == VEC_F32 ? 4 : 2);
  p->nPad = ((size_t)nDim + 63) / 64 * 64;
  p->nGroup = p->nPad / 4;
  p->nBlock = p->nGroup * 16 + 32 * (3 * 2 + 8);
  p->rScale = (float)rScale;
  p->aSign = choirMalloc(pErr, KERN_ROUNDS * p->nPad * sizeof(float));
  for (i = 0; p->aSign && i < KERN_ROUNDS * p->nPad; i++) {
    mBits = i % 64 ? mBits >> 1 : codeNext(&iState);
    p->aSign[i] = mBits & 1 ? 1.0f : -1.0f;
  }
}

CHOIR_PRIVATE void choirCodeFree(ChoirCode *p) {
  sqlite3_free(p->aSign);
  memset(p, 0, sizeof(*p));
}

static float codeElement(const ChoirCode *p, const u8 *a, i64 i) {
  u16 h;
  if (p->eType == VEC_I8) {
    return (float)(signed char)a[i];
  }
  memcpy(&h, a + i * 2, 2);
  return p->eType == VEC_F16 ? choirF16ToF32(h) : choirBf16ToF32(h);
}

CHOIR_PRIVATE void choirCodeFloats(const ChoirCode *p, const void *aVec,
                                   float *aOut) {
  i64 i;
  if (p->eType == VEC_F32) {
    memcpy(aOut, aVec, (size_t)p->nVec);
  } else {
    for (i = 0; i < p->nDim; i++) {
      aOut[i] = codeElement(p, aVec, i);
    }
  }
}

CHOIR_PRIVATE int choirCodeRotate(const ChoirCode *p, const void *aVec,
                                  float *aOut) {
  double rNorm = choirVecNorm2(p->pKern, p->eType, aVec, p->nDim);
  float rMul;
  i64 i;
  choirCodeFloats(p, aVec, aOut);
  memset(aOut + p->nDim, 0, (p->nPad - (size_t)p->nDim) * sizeof(float));
  if (!(rNorm < 1e36) || (p->eMetric == VEC_COSINE && !(rNorm > 1e-36))) {
    return 0;
  }
  if (p->eMetric == VEC_COSINE) {
    rMul = (float)(1.0 / sqrt(rNorm));
    for (i = 0; i < p->nDim; i++) {
      aOut[i] *= rMul;
    }
  }
  p->pKern->xRotate(aOut, p->nPad, p->aSign);
  return 1;
}

/* ----------------------------------------------------------------- rows */

CHOIR_PRIVATE i64 choirCodeBytes(const ChoirCode *p, i64 nRow) {
  return (nRow + 31) / 32 * (i64)p->nBlock;
}

CHOIR_PRIVATE void choirCodeFetch(const u8 *a, size_t n) {
#if defined(__GNUC__)
  size_t i;
  for (i = 0; i < n; i += 64) {
    __builtin_prefetch(a + i, 0, 2);
  }
#else
  (void)a;
  (void)n;
#endif
}

/* Where row i's block begins. */
static size_t codeBlock(const ChoirCode *p, i64 i) {
  return (size_t)(i / 32) * p->nBlock;
}

static u8 *codeFactor(const ChoirCode *p, u8 *aBlock, int iFactor, int i) {
  return aBlock + p->nGroup * 16 + 64 * iFactor + 2 * i;
}

static size_t codeId(const ChoirCode *p, int i) {
  return p->nGroup * 16 + 192 + 8 * (size_t)i;
}

/* Stored little-endian whatever the machine. */
static void codePut16(u8 *a, u16 h) {
  a[0] = (u8)h;
  a[1] = (u8)(h >> 8);
}

static float codeGet16(const u8 *a) {
  return choirF16ToF32((u16)(a[0] | a[1] << 8));
}

CHOIR_PRIVATE i64 choirCodeRowid(const ChoirCode *p, const u8 *a, i64 i) {
  u64 v = 0;
  int j;
  a += codeBlock(p, i) + codeId(p, (int)(i & 31));
  for (j = 7; j >= 0; j--) {
    v = v << 8 | a[j];
  }
  return (i64)v;
}

static void codePutId(const ChoirCode *p, u8 *aBlock, int i, i64 iRowid) {
  u8 *a = aBlock + codeId(p, i);
  int j;
  for (j = 0; j < 8; j++) {
    a[j] = (u8)((u64)iRowid >> 8 * j);
  }
}

/* Signs of four elements at a time, row i of the block. */
static void codePutSigns(const ChoirCode *p, u8 *aBlock, int i, const float *a,
                         const float *c) {
  int iShift = i < 16 ? 0 : 4;
  u8 mKeep = i < 16 ? 0xf0 : 0x0f, *pByte = aBlock + (i & 15);
  size_t g;
  for (g = 0; g < p->nGroup; g++, a += 4, c += 4, pByte += 16) {
    int m = (a[0] > c[0]) | (a[1] > c[1]) << 1 | (a[2] > c[2]) << 2 |
            (a[3] > c[3]) << 3;
    *pByte = (u8)((*pByte & mKeep) | m << iShift);
  }
}

typedef struct CodeSums { /* with d = a - c: */
  float rSum, rSquare;    /* of |d|, d^2 */
  float rSigned, rInner;  /* of c with the sign of d, and times d */
} CodeSums;

/* In four lanes and without branches: half of all signs are a surprise. */
static CodeSums codeSums(const float *a, const float *c, size_t n) {
  float aSum[4] = {0}, aSquare[4] = {0}, aSigned[4] = {0}, aInner[4] = {0};
  CodeSums out = {0, 0, 0, 0};
  size_t j;
  int i;
  for (j = 0; j < n; j += 4) {
    for (i = 0; i < 4; i++) {
      float x = c[j + (size_t)i], d = a[j + (size_t)i] - x;
      aSum[i] += fabsf(d);
      aSquare[i] += d * d;
      aSigned[i] += x * (float)(2 * (d > 0) - 1);
      aInner[i] += d * x;
    }
  }
  for (i = 0; i < 4; i++) {
    out.rSum += aSum[i];
    out.rSquare += aSquare[i];
    out.rSigned += aSigned[i];
    out.rInner += aInner[i];
  }
  return out;
}

CHOIR_PRIVATE void choirCodeRow(const ChoirCode *p, const float *aRot,
                                const float *aCentre, u8 *a, i64 iRow,
                                i64 iRowid) {
  u8 *aBlock = a + codeBlock(p, iRow);
  int i = (int)(iRow & 31);
  float s = p->rScale;
  CodeSums n;
  float add = 0, g, o, rRoot = sqrtf((float)p->nPad);
  float aF[3];
  size_t j;
  codePutId(p, aBlock, i, iRowid);
  if (aRot == NULL) { /* no number in it: always looked at */
    codePut16(codeFactor(p, aBlock, 0, i), 0);
    codePut16(codeFactor(p, aBlock, 1, i), 0);
    codePut16(codeFactor(p, aBlock, 2, i), 0x7c00);
    return;
  }
  n = codeSums(aRot, aCentre, p->nPad);
  codePutSigns(p, aBlock, i, aRot, aCentre);
  g = n.rSum > 0 ? n.rSquare / n.rSum : 0;
  o = n.rSquare > 0 ? n.rSum / (sqrtf(n.rSquare) * rRoot) : 1;
  add = 2 * g * n.rSigned + (p->eMetric == VEC_DOT ? -2 * n.rInner : n.rSquare);
  aF[0] = add * s * s;
  aF[1] = g * rRoot * s;
  aF[2] =
      2 * sqrtf(n.rSquare * fmaxf(1 / (o * o) - 1, 0) / (float)(p->nPad - 1)) *
          rRoot * s +
      1e-3f; /* what rounding to halves costs */
  if (!(fabsf(aF[0]) < 60000) || !(aF[1] < 60000) || !(aF[2] < 60000)) {
    aF[0] = aF[1] = 0;
    aF[2] = INFINITY;
  }
  for (j = 0; j < 3; j++) {
    codePut16(codeFactor(p, aBlock, (int)j, i), choirF32ToF16(aF[j]));
  }
}

CHOIR_PRIVATE void choirCodeMove(const ChoirCode *p, u8 *aTo, i64 iToRow,
                                 const u8 *aFrom, i64 iFromRow) {
  int iTo = (int)(iToRow & 31), iFrom = (int)(iFromRow & 31);
  int iShift = iTo < 16 ? 0 : 4, iHave = iFrom < 16 ? 0 : 4, j;
  u8 mKeep = iTo < 16 ? 0xf0 : 0x0f;
  size_t g;
  aTo += codeBlock(p, iToRow);
  aFrom += codeBlock(p, iFromRow);
  for (g = 0; g < p->nGroup; g++) {
    u8 *pByte = aTo + g * 16 + (iTo & 15);
    int m = aFrom[g * 16 + (size_t)(iFrom & 15)] >> iHave & 15;
    *pByte = (u8)((*pByte & mKeep) | m << iShift);
  }
  for (j = 0; j < 3; j++) {
    size_t at = p->nGroup * 16 + 64 * (size_t)j;
    memcpy(aTo + at + 2 * iTo, aFrom + at + 2 * iFrom, 2);
  }
  memcpy(aTo + codeId(p, iTo), aFrom + codeId(p, iFrom), 8);
}

CHOIR_PRIVATE int choirCodeSame(const ChoirCode *p, const float *aRot,
                                const float *aCentre, const u8 *a, i64 iRow) {
  const u8 *aBlock = a + codeBlock(p, iRow);
  int i = (int)(iRow & 31), iShift = i < 16 ? 0 : 4;
  float rMost = 0;
  size_t j;
  for (j = 0; aRot && j < p->nPad; j++) {
    rMost = fmaxf(rMost, fabsf(aRot[j]) + fabsf(aCentre[j]));
  }
  for (j = 0; aRot && j < p->nPad; j++) {
    int b = aBlock[j / 4 * 16 + (size_t)(i & 15)] >> iShift >> (j & 3) & 1;
    float d = aRot[j] - aCentre[j];
    if (b != (d > 0) && fabsf(d) > rMost * 1e-4f) {
      return 0; /* another tier may round the smallest the other way */
    }
  }
  return 1;
}

/* --------------------------------------------------------------- queries */

/* Bytes of 1 where bit i of the byte's number is set, or is not. */
static const u64 aCodeOnes[4][2][2] = {
    {{0x0001000100010001u, 0x0001000100010001u},
     {0x0100010001000100u, 0x0100010001000100u}},
    {{0x0000010100000101u, 0x0000010100000101u},
     {0x0101000001010000u, 0x0101000001010000u}},
    {{0x0000000001010101u, 0x0000000001010101u},
     {0x0101010100000000u, 0x0101010100000000u}},
    {{0x0101010101010101u, 0}, {0, 0x0101010101010101u}}};

CHOIR_PRIVATE void choirCodeProbe(const ChoirCode *p, const float *aRot,
                                  u8 *aLut, ChoirProbe *pProbe) {
  float rMost = 0, rPer, rRoot = sqrtf((float)p->nPad);
  double rNorm = 0;
  i64 nSum = 0;
  size_t g;
  int i;
  for (g = 0; g < p->nPad; g += 4) {
    float r = fabsf(aRot[g]) + fabsf(aRot[g + 1]) + fabsf(aRot[g + 2]) +
              fabsf(aRot[g + 3]);
    rMost = r > rMost ? r : rMost;
  }
  rPer = rMost > 0 ? CODE_STEPS / rMost : 0;
  for (g = 0; g < p->nGroup; g++) {
    u64 lo = 0, hi = 0;
    for (i = 0; i < 4; i++) {
      float q = aRot[g * 4 + (size_t)i];
      int w = (int)(fabsf(q) * rPer + 0.5f), b = q > 0;
      lo += aCodeOnes[i][b][0] * (u64)w;
      hi += aCodeOnes[i][b][1] * (u64)w;
      nSum += w;
    }
    memcpy(aLut + g * 16, &lo, 8);
    memcpy(aLut + g * 16 + 8, &hi, 8);
  }
  choirLittleEndian(aLut, p->nGroup * 16, 8);
  for (g = 0; g < p->nPad; g++) {
    rNorm += (double)aRot[g] * (double)aRot[g];
  }
  memset(pProbe, 0, sizeof(*pProbe));
  pProbe->pCode = p;
  pProbe->rStep = rMost > 0 ? 2 * rMost / CODE_STEPS : 0;
  pProbe->rEpsilon = CODE_EPSILON;
  pProbe->bNear = p->eMetric != VEC_DOT;
  pProbe->kern.aLut = aLut;
  pProbe->kern.nGroup = p->nGroup;
  pProbe->kern.rMul = -2 * p->rScale * pProbe->rStep / rRoot;
  pProbe->kern.rOff = p->rScale * pProbe->rStep * (float)nSum / rRoot;
  pProbe->kern.rMax = INFINITY;
  pProbe->rNorm = rNorm;
}

CHOIR_PRIVATE void choirCodeAim(ChoirProbe *p, double rSquare, double rInner) {
  const ChoirCode *pCode = p->pCode;
  double s = (double)pCode->rScale;
  double rTable = 0.24 * (double)p->rStep;
  rSquare = rSquare > 0 ? rSquare : 0;
  p->kern.rAdd =
      (float)(s * s * (pCode->eMetric == VEC_DOT ? -2 * rInner : rSquare));
  p->rErr = (float)((double)p->rEpsilon * s *
                    sqrt(rSquare / (double)pCode->nPad + rTable * rTable));
  choirCodeBound(p, p->kern.rMax);
}

CHOIR_PRIVATE void choirCodeBound(ChoirProbe *p, float rMax) {
  float v2 = p->kern.rAdd, rSine = 1;
  if (p->bNear && rMax < v2) {
    rSine = sqrtf(fminf(fmaxf(rMax, 0) / v2 + CODE_KEEP, 1));
  }
  p->kern.rMax = rMax;
  p->kern.rErr = p->rErr * rSine;
}

CHOIR_PRIVATE float choirCodeError(const ChoirProbe *p, const u8 *aBlock, int i,
                                   float *prEst) {
  const u8 *a = aBlock + p->pCode->nGroup * 16 + 2 * i;
  float e = codeGet16(a + 128), rErr = e * p->rErr, v2 = p->kern.rAdd;
  float m, r2, rTwice, rCosine, z, t;
  if (!p->bNear || !(*prEst < v2)) {
    return rErr;
  }
  m = codeGet16(a + 64);
  r2 = m * m - e * e / 4;
  rTwice = 2 * sqrtf(r2 * v2);
  rCosine = (r2 + v2 - *prEst) / rTwice;
  z = rErr / rTwice;
  t = 1 + CODE_KEEP + z * z - rCosine * rCosine;
  if (!(r2 > CODE_FLAT * m * m) || !(t > 0 && t < 1)) {
    return rErr;
  }
  *prEst = r2 + v2 - rTwice * rCosine / (1 + z * z);
  return rTwice * z * sqrtf(t) / (1 + z * z);
}

/* ----------------------------------------------------------------- heads
**
** A scan takes as long as its blocks take to come from memory. The head of a
** block is a block of fewer elements: by it most blocks of clustered vectors are
** far, and need not come. With v = q - c, and v' and b' of the first n' of the n
** elements, <x - c, v> is estimated by g <b', v'> |v|^2 / |v'|^2. To the variance,
** n / n' times what it was, comes that of a sample of elements: together e^2 +
** 4 (n / n' - 1) g^2 n, where e is the row's error. The centre's part of a whole
** estimate is whole: so a head has x's own part only, and takes v for the query.
*/

CHOIR_PRIVATE void choirHeadInit(const ChoirCode *p, ChoirCode *pHead) {
  *pHead = *p;
  pHead->aSign = NULL;
  pHead->nPad = p->nPad >= 192 ? p->nPad / 192 * 64 : p->nPad / 128 * 64;
  pHead->nGroup = pHead->nPad / 4;
  pHead->nBlock = pHead->nGroup * 16 + 192;
}

CHOIR_PRIVATE void choirHeadMake(const ChoirCode *p, const ChoirCode *pHead,
                                 ChoirErr *pErr, const float *aCentre,
                                 const u8 *aBlock, i64 nBlock, u8 *aTo) {
  const float rMore = 4 * ((float)p->nPad / (float)pHead->nPad - 1);
  u8 *aLut = choirMalloc(pErr, p->nGroup * 16);
  ChoirProbe probe;
  float aEst[32], aErr[32];
  int i;
  if (aLut == NULL) {
    return;
  }
  choirCodeProbe(p, aCentre, aLut, &probe); /* the centre's part is taken out */
  probe.kern.rErr = 1;
  for (; nBlock > 0; nBlock--, aBlock += p->nBlock, aTo += pHead->nBlock) {
    const u8 *aMul = aBlock + p->nGroup * 16 + 64;
    p->pKern->xScan(&probe.kern, aBlock, aEst, aErr);
    memcpy(aTo, aBlock, pHead->nGroup * 16);
    memcpy(codeFactor(pHead, aTo, 1, 0), aMul, 64);
    for (i = 0; i < 32; i++) {
      float m = codeGet16(aMul + 2 * i);
      float e = sqrtf(aErr[i] * aErr[i] + rMore * m * m);
      int bFits = fabsf(aEst[i]) < 60000 && e < 60000;
      codePut16(codeFactor(pHead, aTo, 0, i),
                bFits ? choirF32ToF16(aEst[i]) : 0);
      codePut16(codeFactor(pHead, aTo, 2, i),
                bFits ? choirF32ToF16(e) : 0x7c00);
    }
  }
  sqlite3_free(aLut);
}

CHOIR_PRIVATE void choirHeadProbe(const ChoirProbe *pAll,
                                  const ChoirCode *pHead, const float *aRot,
                                  const float *aCentre, float *aWork, u8 *aLut,
                                  ChoirProbe *p) {
  const size_t n = pAll->pCode->nPad;
  size_t i;
  float rMul;
  for (i = 0; i < n; i++) {
    aWork[i] = aRot[i] - aCentre[i];
  }
  choirCodeProbe(pHead, aWork, aLut, p);
  rMul = (float)(pHead->pKern->a[KERN_F32].xDot(aWork, aWork, n) / p->rNorm *
                 sqrt((double)pHead->nPad / (double)n));
  p->kern.rMul *= rMul;
  p->kern.rOff *= rMul;
  p->kern.rAdd = pAll->kern.rAdd;
  p->rErr = pAll->rErr;
}
