/* SPDX-License-Identifier: MIT */
/*
** gzip (RFC 1952) and deflate (RFC 1951), whole buffer to whole buffer.
**
** libcurl 7.88 reports success for a gzip body that was cut in half, and its
** size limit does not hold for what a body unpacks to. This one ends at the
** last block's end, checks the CRC-32 and the length, and stops at the
** buffer's cap.
**
** Huffman codes are decoded canonically: aCount[n] codes of n bits, aSymbol in
** order of code. A code of n bits is found when what was read so far is less
** than the first code of n bits plus aCount[n].
*/
#include "http.h"

enum { GZ_BITS = 15, GZ_LENGTHS = 288, GZ_DISTANCES = 32 };

typedef struct GzHuffman {
  u16 aCount[GZ_BITS + 1];
  u16 aSymbol[GZ_LENGTHS];
} GzHuffman;

typedef struct GzIn {
  const u8 *a;
  i64 n, i;
  u32 iHold; /* bits read and not used yet, lowest first */
  int nHold;
  u8 bCut; /* wanted more than there is */
  ChoirBuf *pOut;
  u64 iBase; /* where this member begins in pOut */
} GzIn;

static u32 gzBits(GzIn *p, int n) {
  u32 v;
  while (p->nHold < n) {
    if (p->i >= p->n) {
      p->bCut = 1;
      return 0;
    }
    p->iHold |= (u32)p->a[p->i++] << p->nHold;
    p->nHold += 8;
  }
  v = p->iHold & (((u32)1 << n) - 1);
  p->iHold >>= n;
  p->nHold -= n;
  return v;
}

/* From the lengths of n codes; 0 when they are over-subscribed. */
static int gzHuffman(GzHuffman *p, const u8 *aLength, int n) {
  u16 aOffset[GZ_BITS + 2];
  int i, nLeft = 1;
  memset(p->aCount, 0, sizeof(p->aCount));
  for (i = 0; i < n; i++) {
    p->aCount[aLength[i]]++;
  }
  p->aCount[0] = 0;
  aOffset[1] = 0;
  for (i = 1; i <= GZ_BITS; i++) {
    nLeft = nLeft * 2 - p->aCount[i];
    if (nLeft < 0) {
      return 0;
    }
    aOffset[i + 1] = (u16)(aOffset[i] + p->aCount[i]);
  }
  for (i = 0; i < n; i++) {
    if (aLength[i]) {
      p->aSymbol[aOffset[aLength[i]]++] = (u16)i;
    }
  }
  return 1;
}

/* The next symbol, -1 when there is no such code or no more input. */
static int gzSymbol(GzIn *p, const GzHuffman *pHuffman) {
  int iCode = 0, iFirst = 0, iIndex = 0, nBit;
  for (nBit = 1; nBit <= GZ_BITS; nBit++) {
    int n = pHuffman->aCount[nBit];
    iCode |= (int)gzBits(p, 1);
    if (p->bCut) {
      return -1;
    }
    if (iCode - n < iFirst) {
      return pHuffman->aSymbol[iIndex + (iCode - iFirst)];
    }
    iIndex += n;
    iFirst = (iFirst + n) << 1;
    iCode <<= 1;
  }
  return -1;
}

/* Literals and copies until the end of the block; 0 when damaged. */
static int gzBlock(GzIn *p, const GzHuffman *pLength,
                   const GzHuffman *pDistance) {
  static const u16 aBase[29] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                67, 83, 99, 115, 131, 163, 195, 227, 258};
  static const u8 aExtra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
  static const u16 aFar[30] = {1,    2,    3,    4,     5,     7,    9,    13,
                               17,   25,   33,   49,    65,    97,   129,  193,
                               257,  385,  513,  769,   1025,  1537, 2049, 3073,
                               4097, 6145, 8193, 12289, 16385, 24577};
  for (;;) {
    int iSymbol = gzSymbol(p, pLength);
    u64 n, nFar, i;
    char *aTo;
    if (iSymbol < 0 || iSymbol > 285) {
      return 0;
    }
    if (iSymbol == 256) {
      return 1;
    }
    if (iSymbol < 256) {
      char c = (char)iSymbol;
      choirBufAppend(p->pOut, &c, 1);
    } else {
      n = aBase[iSymbol - 257] + gzBits(p, aExtra[iSymbol - 257]);
      iSymbol = gzSymbol(p, pDistance);
      if (iSymbol < 0 || iSymbol > 29) {
        return 0;
      }
      nFar = aFar[iSymbol] + gzBits(p, iSymbol < 4 ? 0 : (iSymbol - 2) / 2);
      if (p->bCut || nFar > p->pOut->n - p->iBase) {
        return 0;
      }
      aTo = choirBufSpace(p->pOut, n);
      for (i = 0; aTo && i < n; i++) {
        aTo[i] = aTo[(i64)i - (i64)nFar]; /* may overlap: byte by byte */
      }
    }
    if (p->pOut->pErr->rc != SQLITE_OK) {
      return 0;
    }
  }
}

static int gzStored(GzIn *p) {
  u32 n;
  p->iHold = 0;
  p->nHold = 0;
  if (p->n - p->i < 4) {
    p->bCut = 1;
    return 0;
  }
  n = (u32)p->a[p->i] | (u32)p->a[p->i + 1] << 8;
  if (n != (0xffff ^ ((u32)p->a[p->i + 2] | (u32)p->a[p->i + 3] << 8))) {
    return 0;
  }
  p->i += 4;
  if (p->n - p->i < (i64)n) {
    p->bCut = 1;
    return 0;
  }
  choirBufAppend(p->pOut, p->a + p->i, n);
  p->i += n;
  return 1;
}

static int gzFixed(GzIn *p) {
  GzHuffman length, distance;
  u8 a[GZ_LENGTHS];
  memset(a, 8, 144);
  memset(a + 144, 9, 112);
  memset(a + 256, 7, 24);
  memset(a + 280, 8, 8);
  gzHuffman(&length, a, GZ_LENGTHS);
  memset(a, 5, 30);
  gzHuffman(&distance, a, 30);
  return gzBlock(p, &length, &distance);
}

static int gzDynamic(GzIn *p) {
  static const u8 aOrder[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                11, 4,  12, 3, 13, 2, 14, 1, 15};
  GzHuffman length, distance;
  u8 a[GZ_LENGTHS + GZ_DISTANCES];
  int nLength = (int)gzBits(p, 5) + 257;
  int nDistance = (int)gzBits(p, 5) + 1;
  int nCode = (int)gzBits(p, 4) + 4;
  int i = 0;
  memset(a, 0, sizeof(a));
  while (i < nCode) {
    a[aOrder[i++]] = (u8)gzBits(p, 3);
  }
  if (p->bCut || nLength > 286 || nDistance > 30 ||
      !gzHuffman(&length, a, 19)) {
    return 0;
  }
  memset(a, 0, sizeof(a));
  for (i = 0; i < nLength + nDistance;) {
    int iSymbol = gzSymbol(p, &length);
    int n = 1, iValue = iSymbol;
    if (iSymbol < 0) {
      return 0;
    }
    if (iSymbol == 16) {
      if (i == 0) {
        return 0;
      }
      iValue = a[i - 1];
      n = 3 + (int)gzBits(p, 2);
    } else if (iSymbol > 16) {
      iValue = 0;
      n = iSymbol == 17 ? 3 + (int)gzBits(p, 3) : 11 + (int)gzBits(p, 7);
    }
    if (i + n > nLength + nDistance) {
      return 0;
    }
    memset(a + i, iValue, (size_t)n);
    i += n;
  }
  if (a[256] == 0 || !gzHuffman(&length, a, nLength) ||
      !gzHuffman(&distance, a + nLength, nDistance)) {
    return 0;
  }
  return gzBlock(p, &length, &distance);
}

static int gzInflate(GzIn *p) {
  int bLast, bOk;
  do {
    u32 eType;
    bLast = (int)gzBits(p, 1);
    eType = gzBits(p, 2);
    bOk = !p->bCut && (eType == 0   ? gzStored(p)
                       : eType == 1 ? gzFixed(p)
                       : eType == 2 ? gzDynamic(p)
                                    : 0);
  } while (bOk && !bLast);
  return bOk;
}

static u32 gzCrc32(const u8 *a, u64 n) {
  u32 aTable[256], crc = 0xffffffff;
  u32 i;
  int j;
  for (i = 0; i < 256; i++) {
    u32 v = i;
    for (j = 0; j < 8; j++) {
      v = v & 1 ? v >> 1 ^ 0xedb88320 : v >> 1;
    }
    aTable[i] = v;
  }
  while (n-- > 0) {
    crc = aTable[(crc ^ *a++) & 0xff] ^ crc >> 8;
  }
  return ~crc;
}

static u32 gzInt32(const u8 *a) {
  return (u32)a[0] | (u32)a[1] << 8 | (u32)a[2] << 16 | (u32)a[3] << 24;
}

/* Past the member's header; 0 when it is none. */
static int gzHeader(GzIn *p) {
  const u8 *a = p->a + p->i;
  int mFlag, i;
  if (p->n - p->i < 10) {
    p->bCut = 1;
    return 0;
  }
  mFlag = a[3];
  if (a[0] != 0x1f || a[1] != 0x8b || a[2] != 8 || (mFlag & 0xe0)) {
    return 0;
  }
  p->i += 10;
  if (mFlag & 4) { /* extra field */
    i64 n = p->n - p->i < 2 ? 1 << 20 : p->a[p->i] + 256 * p->a[p->i + 1];
    p->i += 2 + n;
  }
  for (i = 0; i < 2; i++) { /* name, comment: up to their NUL */
    if (mFlag & (8 << i)) {
      while (p->i < p->n && p->a[p->i]) {
        p->i++;
      }
      p->i++;
    }
  }
  p->i += mFlag & 2 ? 2 : 0; /* CRC of the header */
  p->bCut = p->i > p->n;
  return !p->bCut;
}

CHOIR_PRIVATE void choirGunzip(ChoirErr *pErr, const void *a, i64 n,
                               ChoirBuf *pOut) {
  GzIn in;
  memset(&in, 0, sizeof(in));
  in.a = a;
  in.n = n;
  in.pOut = pOut;
  choirBufSpace(pOut, 0);
  while (pErr->rc == SQLITE_OK && (in.i < n || in.i == 0)) {
    int bOk;
    in.iBase = pOut->n;
    in.iHold = 0;
    in.nHold = 0;
    bOk = gzHeader(&in) && gzInflate(&in);
    if (bOk && n - in.i < 8) {
      in.bCut = 1;
      bOk = 0;
    }
    if (bOk) {
      u64 nOut = pOut->n - in.iBase;
      bOk = gzInt32(in.a + in.i) ==
                gzCrc32((const u8 *)pOut->a + in.iBase, nOut) &&
            gzInt32(in.a + in.i + 4) == (u32)nOut;
      in.i += 8;
    }
    if (!bOk) {
      choirErrSet(pErr, SQLITE_ERROR,
                  in.bCut ? "the gzip reply is cut short after %lld bytes"
                          : "the gzip reply of %lld bytes is damaged",
                  n);
    }
  }
}
