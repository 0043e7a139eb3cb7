/* SPDX-License-Identifier: MIT */
/*
** LTX files: pages of an SQLite database, compressed one by one, with an
** index. docs/formats.md, "LTX files", has the bytes; the format is that of
** Litestream 0.5.
**
** The writer needs the pages in ascending order and a file to put them in. The
** header holds a checksum of what follows it, so it is written last; the file's
** checksum, which begins with the header, is put together from its two parts
** (choirCrc64Join).
**
** The reader is fed the file's bytes in order, in pieces of any size, and hands
** out each page as soon as its frame is whole. Pages are believed only after
** choirLtxReadEnd: until then the checksums are not known to hold.
**
** Every byte read is taken for hostile. Nothing here allocates by a size that
** the file states; a frame is at most CHOIR_LTX_FRAME_MAX.
*/
#include "sync.h"

#define LTX_WRITE_BUF ((u64)1 << 20)
#define LTX_INDEX_MAX ((u64)1 << 30) /* some 80 million pages */
#define LTX_FLAG_SUM ((u64)1 << 63)

#define LZ4_FUNCTIONS(X)                                                       \
  X(compress_default, (const char *, char *, int, int))                        \
  X(decompress_safe, (const char *, char *, int, int))

typedef struct Lz4 {
#define X(name, params) int(*name) params;
  LZ4_FUNCTIONS(X)
#undef X
} Lz4;

static void ltxLz4(ChoirErr *pErr, Lz4 *p) {
  static const char *const azFile[] = {"liblz4.so.1", "liblz4.so",
                                       "liblz4.1.dylib", "liblz4.dll", NULL};
#define X(name, params) "LZ4_" #name,
  static const char *const azSymbol[] = {LZ4_FUNCTIONS(X) NULL};
#undef X
  static const ChoirLib lib = {azFile, azSymbol, "liblz4-1"};
  choirLibOpen(pErr, &lib, p);
}

CHOIR_PRIVATE void choirPut32(u8 *a, u32 v) {
  a[0] = (u8)(v >> 24);
  a[1] = (u8)(v >> 16);
  a[2] = (u8)(v >> 8);
  a[3] = (u8)v;
}

CHOIR_PRIVATE void choirPut64(u8 *a, u64 v) {
  choirPut32(a, (u32)(v >> 32));
  choirPut32(a + 4, (u32)v);
}

CHOIR_PRIVATE u32 choirGet32(const u8 *a) {
  return (u32)a[0] << 24 | (u32)a[1] << 16 | (u32)a[2] << 8 | a[3];
}

CHOIR_PRIVATE u64 choirGet64(const u8 *a) {
  return (u64)choirGet32(a) << 32 | choirGet32(a + 4);
}

static u64 ltxVarint(u8 *a, u64 v) {
  u64 n = 0;
  for (; v >= 0x80; v >>= 7) {
    a[n++] = (u8)(v | 0x80);
  }
  a[n++] = (u8)v;
  return n;
}

/* Bytes read, 0: more are needed, or it is longer than 64 bits (bLong). */
static u64 ltxVarintRead(const u8 *a, u64 n, u64 *pv, int *pbLong) {
  u64 i, v = 0;
  for (i = 0; i < n && i < 10; i++) {
    v |= (u64)(a[i] & 0x7f) << (7 * i);
    if (a[i] < 0x80) {
      *pbLong |= i == 9 && a[i] > 1;
      *pv = v;
      return i + 1;
    }
  }
  *pbLong |= i == 10;
  return 0;
}

static void ltxDamaged(ChoirErr *pErr, const char *zWhat) {
  choirErrSet(pErr, SQLITE_CORRUPT, "not a whole LTX file: %s", zWhat);
}

CHOIR_PRIVATE u32 choirLtxLockPage(u32 szPage) {
  return szPage ? 0x40000000 / szPage + 1 : 0;
}

/* ----------------------------------------------------------------- header */

CHOIR_PRIVATE void choirLtxHeadRead(ChoirErr *pErr, const u8 *a, u64 n,
                                    ChoirLtxHead *p) {
  memset(p, 0, sizeof(*p));
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (n < CHOIR_LTX_HEADER) {
    ltxDamaged(pErr, "it ends inside its header");
    return;
  }
  p->szPage = choirGet32(a + 8);
  p->nPage = choirGet32(a + 12);
  p->iMin = choirGet64(a + 16);
  p->iMax = choirGet64(a + 24);
  p->iTime = (i64)choirGet64(a + 32);
  memcpy(p->aId, a + 72, 16);
  p->iCrc = choirGet64(a + 88);
  memcpy(p->aLineage, a + 96, 4);
  p->bChoir = p->iCrc != 0;
  if (memcmp(a, CHOIR_CRYPT_MAGIC, 8) == 0) {
    choirErrSet(pErr, SQLITE_NOTADB, "it is encrypted");
  } else if (memcmp(a, "LTX1", 4) != 0) {
    ltxDamaged(pErr, "it does not begin with LTX1");
  } else if (choirGet32(a + 4) & ~(u32)2) {
    ltxDamaged(pErr, "it has flags of a newer format");
  } else if (p->szPage < 512 || p->szPage > CHOIR_LTX_PAGE_MAX ||
             (p->szPage & (p->szPage - 1))) {
    ltxDamaged(pErr, "its page size is impossible");
  } else if (p->nPage == 0 || p->nPage > 0xfffffffe) {
    ltxDamaged(pErr, "its number of pages is impossible");
  } else if (p->iMin == 0 || p->iMin > p->iMax || p->iMax > LTX_FLAG_SUM) {
    ltxDamaged(pErr, "its transaction ids are impossible");
  }
}

static void ltxHeadWrite(const ChoirLtxHead *p, u64 iCrc, u8 *a) {
  memset(a, 0, CHOIR_LTX_HEADER);
  memcpy(a, "LTX1", 4);
  choirPut32(a + 4, 2);
  choirPut32(a + 8, p->szPage);
  choirPut32(a + 12, p->nPage);
  choirPut64(a + 16, p->iMin);
  choirPut64(a + 24, p->iMax);
  choirPut64(a + 32, (u64)p->iTime);
  memcpy(a + 72, p->aId, 16);
  choirPut64(a + 88, iCrc);
  memcpy(a + 96, p->aLineage, 4);
}

/* ----------------------------------------------------------------- writer */

struct ChoirLtxWriter {
  int fd;
  ChoirLtxHead head;
  Lz4 lz4;
  ChoirBuf index;
  u64 nByte;  /* of the file so far, with those in aBuf */
  u64 nBuf;   /* bytes in aBuf */
  u64 nSum;   /* bytes that iSum covers */
  u64 iSum;   /* file checksum of what follows the header */
  u64 iCrc;   /* of the frames as stored */
  u8 aBuf[1]; /* LTX_WRITE_BUF */
};

CHOIR_PRIVATE ChoirLtxWriter *choirLtxWriteNew(ChoirErr *pErr, int fd,
                                               const ChoirLtxHead *pHead) {
  ChoirLtxWriter *p = choirMalloc(pErr, sizeof(*p) + LTX_WRITE_BUF);
  if (p) {
    p->fd = fd;
    p->head = *pHead;
    p->nByte = CHOIR_LTX_HEADER;
    choirBufInit(&p->index, pErr, LTX_INDEX_MAX);
    ltxLz4(pErr, &p->lz4);
  }
  return p;
}

CHOIR_PRIVATE void choirLtxWriteFree(ChoirLtxWriter *p) {
  if (p) {
    choirBufFree(&p->index);
    sqlite3_free(p);
  }
}

static void ltxSum(ChoirLtxWriter *p, const void *a, u64 n) {
  p->iSum = choirCrc64(p->iSum, a, n);
  p->nSum += n;
}

static void ltxFlush(ChoirLtxWriter *p, ChoirErr *pErr) {
  choirFdWrite(pErr, p->fd, p->nByte - p->nBuf, p->aBuf, p->nBuf);
  p->nBuf = 0;
}

/* Bytes that are neither hashed nor counted by this. */
static void ltxStore(ChoirLtxWriter *p, ChoirErr *pErr, const void *a, u64 n) {
  const u8 *z = a;
  while (n && pErr->rc == SQLITE_OK) {
    u64 nNow = LTX_WRITE_BUF - p->nBuf;
    nNow = nNow < n ? nNow : n;
    memcpy(p->aBuf + p->nBuf, z, (size_t)nNow);
    p->nBuf += nNow;
    p->nByte += nNow;
    z += nNow;
    n -= nNow;
    if (p->nBuf == LTX_WRITE_BUF) {
      ltxFlush(p, pErr);
    }
  }
}

CHOIR_PRIVATE void choirLtxWritePage(ChoirLtxWriter *p, ChoirErr *pErr,
                                     u32 iPage, const u8 *aPage) {
  u8 aIndex[30];
  u8 *a;
  u64 n, iOff = p ? p->nByte : 0;
  int nPack;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (LTX_WRITE_BUF - p->nBuf < CHOIR_LTX_FRAME_MAX) {
    ltxFlush(p, pErr);
  }
  a = p->aBuf + p->nBuf;
  nPack =
      p->lz4.compress_default((const char *)aPage, (char *)a + 10,
                              (int)p->head.szPage, CHOIR_LTX_FRAME_MAX - 10);
  if (nPack <= 0) {
    choirErrSet(pErr, SQLITE_ERROR, "liblz4 could not pack page %u", iPage);
    return;
  }
  choirPut32(a, iPage);
  a[4] = 0;
  a[5] = 1;
  choirPut32(a + 6, (u32)nPack);
  ltxSum(p, a, 10);
  ltxSum(p, aPage, p->head.szPage);
  p->iCrc = choirCrc64(p->iCrc, a, (u64)nPack + 10);
  p->nBuf += (u64)nPack + 10;
  p->nByte += (u64)nPack + 10;
  n = ltxVarint(aIndex, iPage);
  n += ltxVarint(aIndex + n, iOff);
  n += ltxVarint(aIndex + n, (u64)nPack + 10);
  choirBufAppend(&p->index, aIndex, n);
}

CHOIR_PRIVATE u64 choirLtxWriteEnd(ChoirLtxWriter *p, ChoirErr *pErr) {
  u8 aHead[CHOIR_LTX_HEADER], aEnd[CHOIR_LTX_TRAILER] = {0};
  static const u8 aZero[6];
  u64 iCrc, iSum;
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  choirBufAppend(&p->index, aZero, 1);
  choirPut64(aEnd, p->index.n);
  choirBufAppend(&p->index, aEnd, 8);
  memset(aEnd, 0, 8);
  ltxSum(p, aZero, 6);
  ltxSum(p, p->index.a, p->index.n);
  ltxSum(p, aEnd, 8);
  iCrc = p->iCrc ? p->iCrc : 1; /* 0 stands for: made by another tool */
  ltxHeadWrite(&p->head, iCrc, aHead);
  iSum =
      choirCrc64Join(choirCrc64(0, aHead, CHOIR_LTX_HEADER), p->iSum, p->nSum);
  choirPut64(aEnd + 8, iSum | LTX_FLAG_SUM);
  ltxStore(p, pErr, aZero, 6);
  ltxStore(p, pErr, p->index.a, p->index.n);
  ltxStore(p, pErr, aEnd, CHOIR_LTX_TRAILER);
  ltxFlush(p, pErr);
  choirFdWrite(pErr, p->fd, 0, aHead, CHOIR_LTX_HEADER);
  return p->nByte;
}

/* ----------------------------------------------------------------- reader */

enum { LTX_HEAD, LTX_PAGES, LTX_INDEX, LTX_END, LTX_DONE };

struct ChoirLtxReader {
  int eState;
  ChoirLtxHead head;
  Lz4 lz4;
  ChoirLtxPage xPage;
  void *pArg;
  u32 iPage;  /* the last one */
  u64 nPage;  /* frames met */
  u64 nRead;  /* bytes consumed */
  u64 nIndex; /* bytes of the index consumed */
  u64 iSum;   /* file checksum so far */
  u64 iCrc;   /* of the frames as stored */
  u64 iWant;  /* CRC-64 of the index that the frames call for */
  u64 iHave;  /* of the index that is there */
  u64 nBuf;
  u8 aBuf[2 * CHOIR_LTX_FRAME_MAX];
  u8 aPage[CHOIR_LTX_PAGE_MAX];
};

CHOIR_PRIVATE ChoirLtxReader *choirLtxReadNew(ChoirErr *pErr, ChoirLtxPage x,
                                              void *pArg) {
  ChoirLtxReader *p = choirMalloc(pErr, sizeof(*p));
  if (p) {
    p->xPage = x;
    p->pArg = pArg;
    ltxLz4(pErr, &p->lz4);
  }
  return p;
}

CHOIR_PRIVATE void choirLtxReadFree(ChoirLtxReader *p) { sqlite3_free(p); }

CHOIR_PRIVATE const ChoirLtxHead *choirLtxReadHead(const ChoirLtxReader *p) {
  return p->eState > LTX_HEAD ? &p->head : NULL;
}

/* Is iPage the page that may come next? */
static void ltxOrder(ChoirLtxReader *p, ChoirErr *pErr, u32 iPage) {
  u32 iLock = choirLtxLockPage(p->head.szPage);
  u32 iNext = p->iPage + 1 + (p->iPage + 1 == iLock);
  if (iPage <= p->iPage || iPage > p->head.nPage || iPage == iLock) {
    ltxDamaged(pErr, "its pages are out of order");
  } else if (p->head.iMin == 1 && iPage != iNext) {
    ltxDamaged(pErr, "a page is missing");
  }
  p->iPage = iPage;
}

/* Unpacks a frame of n bytes, 10 of them its head. */
static void ltxUnpack(ChoirErr *pErr, const Lz4 *pLz4, const u8 *a, u64 n,
                      u32 szPage, u8 *aOut) {
  if (pErr->rc == SQLITE_OK &&
      pLz4->decompress_safe((const char *)a + 10, (char *)aOut, (int)n - 10,
                            (int)szPage) != (int)szPage) {
    ltxDamaged(pErr, "a page does not unpack");
  }
}

static u64 ltxFrame(ChoirLtxReader *p, ChoirErr *pErr, const u8 *a, u64 n) {
  u8 aIndex[30];
  u64 nFrame, nIndex;
  if (n < 6) {
    return 0;
  }
  if (memcmp(a, "\0\0\0\0\0", 6) == 0) {
    u32 iLock = choirLtxLockPage(p->head.szPage);
    u32 iLast = p->head.nPage - (p->head.nPage == iLock);
    if (p->head.iMin == 1 && p->iPage != iLast) {
      ltxDamaged(pErr, "pages are missing at its end");
    }
    p->iSum = choirCrc64(p->iSum, a, 6);
    p->eState = LTX_INDEX;
    return 6;
  }
  if (n < 10) {
    return 0;
  }
  nFrame = (u64)choirGet32(a + 6) + 10;
  if (a[4] != 0 || a[5] != 1) {
    ltxDamaged(pErr, a[4] || a[5] ? "a page has flags of a newer format"
                                  : "its pages are of the form before sizes");
  } else if (nFrame > CHOIR_LTX_FRAME_MAX || nFrame == 10) {
    ltxDamaged(pErr, "the size of a page is impossible");
  }
  if (pErr->rc != SQLITE_OK || n < nFrame) {
    return 0;
  }
  ltxOrder(p, pErr, choirGet32(a));
  ltxUnpack(pErr, &p->lz4, a, nFrame, p->head.szPage, p->aPage);
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  p->iSum = choirCrc64(p->iSum, a, 10);
  p->iSum = choirCrc64(p->iSum, p->aPage, p->head.szPage);
  p->iCrc = choirCrc64(p->iCrc, a, nFrame);
  nIndex = ltxVarint(aIndex, p->iPage);
  nIndex += ltxVarint(aIndex + nIndex, p->nRead);
  nIndex += ltxVarint(aIndex + nIndex, nFrame);
  p->iWant = choirCrc64(p->iWant, aIndex, nIndex);
  p->nPage++;
  p->xPage(p->pArg, pErr, p->iPage, p->aPage, p->head.szPage);
  return nFrame;
}

/* An entry of the index, or its end with its size. */
static u64 ltxIndexStep(ChoirLtxReader *p, ChoirErr *pErr, const u8 *a, u64 n) {
  u64 aV[3], i, nUsed = 0;
  int bLong = 0;
  if (n >= 9 && a[0] == 0) {
    if (choirGet64(a + 1) != p->nIndex + 1) {
      ltxDamaged(pErr, "the size of its index is wrong");
    } else if (p->iHave != p->iWant) {
      ltxDamaged(pErr, "its index does not match its pages");
    }
    p->iSum = choirCrc64(p->iSum, a, 9);
    p->eState = LTX_END;
    return 9;
  }
  for (i = 0; i < 3 && n && a[0]; i++) {
    u64 nVar = ltxVarintRead(a + nUsed, n - nUsed, &aV[i], &bLong);
    nUsed += nVar;
    if (bLong) {
      ltxDamaged(pErr, "its index does not match its pages");
    }
    if (bLong || nVar == 0) {
      return 0;
    }
  }
  p->iSum = choirCrc64(p->iSum, a, nUsed);
  p->iHave = choirCrc64(p->iHave, a, nUsed);
  p->nIndex += nUsed;
  return nUsed;
}

static u64 ltxEnd(ChoirLtxReader *p, ChoirErr *pErr, const u8 *a, u64 n) {
  if (n < CHOIR_LTX_TRAILER) {
    return 0;
  }
  p->iSum = choirCrc64(p->iSum, a, 8) | LTX_FLAG_SUM;
  if (p->iSum != choirGet64(a + 8)) {
    ltxDamaged(pErr, "its checksum is wrong");
  } else if (p->head.bChoir && p->head.iCrc != (p->iCrc ? p->iCrc : 1)) {
    ltxDamaged(pErr, "the checksum of its stored bytes is wrong");
  }
  p->eState = LTX_DONE;
  return CHOIR_LTX_TRAILER;
}

/* Consumes what it can of a[0..n); 0: more bytes are needed. */
static u64 ltxStep(ChoirLtxReader *p, ChoirErr *pErr, const u8 *a, u64 n) {
  switch (p->eState) {
  case LTX_HEAD:
    if (n < CHOIR_LTX_HEADER) {
      return 0;
    }
    choirLtxHeadRead(pErr, a, n, &p->head);
    p->iSum = choirCrc64(0, a, CHOIR_LTX_HEADER);
    p->eState = LTX_PAGES;
    return CHOIR_LTX_HEADER;
  case LTX_PAGES:
    return ltxFrame(p, pErr, a, n);
  case LTX_INDEX:
    return ltxIndexStep(p, pErr, a, n);
  case LTX_END:
    return ltxEnd(p, pErr, a, n);
  default:
    if (n) {
      ltxDamaged(pErr, "bytes follow its end");
    }
    return 0;
  }
}

CHOIR_PRIVATE void choirLtxReadFeed(void *pReader, ChoirErr *pErr,
                                    const void *a, u64 n) {
  ChoirLtxReader *p = pReader;
  const u8 *z = a;
  while (pErr->rc == SQLITE_OK && n) {
    u64 nNow = sizeof(p->aBuf) - p->nBuf, iAt = 0, nUsed;
    nNow = nNow < n ? nNow : n;
    memcpy(p->aBuf + p->nBuf, z, (size_t)nNow);
    p->nBuf += nNow;
    z += nNow;
    n -= nNow;
    do {
      nUsed = ltxStep(p, pErr, p->aBuf + iAt, p->nBuf - iAt);
      iAt += nUsed;
      p->nRead += nUsed;
    } while (nUsed && pErr->rc == SQLITE_OK);
    memmove(p->aBuf, p->aBuf + iAt, (size_t)(p->nBuf - iAt));
    p->nBuf -= iAt;
  }
}

CHOIR_PRIVATE void choirLtxReadEnd(ChoirLtxReader *p, ChoirErr *pErr) {
  if (pErr->rc == SQLITE_OK && p->eState != LTX_DONE) {
    ltxDamaged(pErr, "it ends too early");
  }
}

/* ---------------------------------------------------------- single pages */

CHOIR_PRIVATE u64 choirLtxIndexSize(ChoirErr *pErr, const u8 *aTail, u64 n,
                                    u64 nFile) {
  u64 nIndex = 0;
  if (pErr->rc == SQLITE_OK && n >= CHOIR_LTX_TRAILER + 8) {
    nIndex = choirGet64(aTail + n - CHOIR_LTX_TRAILER - 8);
  }
  if (pErr->rc == SQLITE_OK &&
      (nIndex == 0 || nIndex > LTX_INDEX_MAX ||
       nIndex + CHOIR_LTX_HEADER + 6 + 8 + CHOIR_LTX_TRAILER > nFile)) {
    ltxDamaged(pErr, "the size of its index is impossible");
  }
  return pErr->rc == SQLITE_OK ? nIndex : 0;
}

CHOIR_PRIVATE void choirLtxIndexRead(ChoirErr *pErr, const u8 *a, u64 n,
                                     const ChoirLtxHead *pHead, ChoirLtxEntry x,
                                     void *pArg) {
  u64 i = 0, iLast = 0, iEnd = CHOIR_LTX_HEADER, aV[3];
  int bLong = 0, k;
  while (pErr->rc == SQLITE_OK) {
    for (k = 0; k < 3; k++) {
      u64 nVar = ltxVarintRead(a + i, n - i, &aV[k], &bLong);
      i += nVar;
      if (nVar == 0 || bLong) {
        ltxDamaged(pErr, "its index is damaged");
        return;
      }
      if (k == 0 && aV[0] == 0) {
        if (i != n) {
          ltxDamaged(pErr, "its index is damaged");
        }
        return;
      }
    }
    if (aV[0] <= iLast || aV[0] > pHead->nPage || aV[1] < iEnd ||
        aV[1] > LTX_FLAG_SUM || aV[2] <= 10 || aV[2] > CHOIR_LTX_FRAME_MAX) {
      ltxDamaged(pErr, "its index is damaged");
      return;
    }
    iLast = aV[0];
    iEnd = aV[1] + aV[2];
    x(pArg, pErr, (u32)aV[0], aV[1], (u32)aV[2]);
  }
}

CHOIR_PRIVATE void choirLtxFrameRead(ChoirErr *pErr, const u8 *a, u64 n,
                                     u32 iPage, u32 szPage, u8 *aOut) {
  Lz4 lz4;
  ltxLz4(pErr, &lz4);
  if (pErr->rc == SQLITE_OK &&
      (n <= 10 || n > CHOIR_LTX_FRAME_MAX || choirGet32(a) != iPage || a[4] ||
       a[5] != 1 || (u64)choirGet32(a + 6) + 10 != n)) {
    ltxDamaged(pErr, "a page is not where its index says");
  }
  ltxUnpack(pErr, &lz4, a, n, szPage, aOut);
}
