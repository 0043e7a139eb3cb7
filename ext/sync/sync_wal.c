/* SPDX-License-Identifier: MIT */
/*
** The frames of a live WAL, read without disturbing anybody: through the file
** that SQLite itself has open on a connection of ours, inside a read
** transaction of that connection. Nothing is opened, locked or closed here, and
** the -shm is not looked at.
**
** Frames count as in SQLite's recovery: their salts are the header's, the
** checksum chain from the header on holds, and a commit follows. A mark is a
** frame with the checksum it had; when a writer has replaced that frame (after
** a rolled back or failed commit) or begun the WAL anew, the mark does not hold
** and the caller scans the database instead. A writer may begin anew even while
** we read, when all was checkpointed before our transaction: choirWalHolds()
** tells afterwards.
*/
#include "sync.h"
#include <stdlib.h>

#define WAL_HEADER 32
#define WAL_FRAMES_MAX 100000 /* then a scan is no slower */

CHOIR_PRIVATE void choirWalSum(int bBig, const u8 *a, u64 n, u32 s[2]) {
  u64 i;
  for (i = 0; i < n; i += 8) {
    u32 x, y;
    if (bBig) {
      x = choirGet32(a + i);
      y = choirGet32(a + i + 4);
    } else {
      x = (u32)a[i] | (u32)a[i + 1] << 8 | (u32)a[i + 2] << 16 |
          (u32)a[i + 3] << 24;
      y = (u32)a[i + 4] | (u32)a[i + 5] << 8 | (u32)a[i + 6] << 16 |
          (u32)a[i + 7] << 24;
    }
    s[0] += x + s[1];
    s[1] += y + s[0];
  }
}

CHOIR_PRIVATE u64 choirWalOffset(const ChoirWal *p, u64 iFrame) {
  return WAL_HEADER + (iFrame - 1) * (CHOIR_WAL_FRAME + p->szPage);
}

/* 1: n bytes were there. */
static int walBytes(const ChoirWal *p, u64 iOff, void *a, u64 n) {
  return p->pFile->pMethods->xRead(p->pFile, a, (int)n, (sqlite3_int64)iOff) ==
         SQLITE_OK;
}

CHOIR_PRIVATE int choirPragmaIs(sqlite3 *db, const char *zSql,
                                const char *zWant) {
  sqlite3_stmt *p = NULL;
  int bIs = 0;
  if (sqlite3_prepare_v2(db, zSql, -1, &p, NULL) == SQLITE_OK &&
      sqlite3_step(p) == SQLITE_ROW) {
    const char *z = (const char *)sqlite3_column_text(p, 0);
    bIs = z && strcmp(z, zWant) == 0;
  }
  sqlite3_finalize(p);
  return bIs;
}

CHOIR_PRIVATE int choirWalOpen(sqlite3 *db, ChoirWal *p) {
  u8 a[WAL_HEADER];
  u32 s[2] = {0, 0};
  memset(p, 0, sizeof(*p));
  if (!choirPragmaIs(db, "PRAGMA journal_mode", "wal") ||
      sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER,
                           &p->pFile) != SQLITE_OK ||
      p->pFile == NULL || p->pFile->pMethods == NULL ||
      !walBytes(p, 0, a, WAL_HEADER)) {
    return 0;
  }
  p->bBig = a[3] & 1;
  p->szPage = choirGet32(a + 8);
  memcpy(p->aSalt, a + 16, 8);
  memcpy(p->aFirst, a + 24, 8);
  choirWalSum(p->bBig, a, 24, s);
  return (choirGet32(a) & ~(u32)1) == 0x377f0682 && p->szPage >= 512 &&
         p->szPage <= 65536 && choirGet32(a + 24) == s[0] &&
         choirGet32(a + 28) == s[1];
}

CHOIR_PRIVATE int choirWalHolds(const ChoirWal *p) {
  u8 a[WAL_HEADER];
  return walBytes(p, 0, a, WAL_HEADER) && memcmp(a + 16, p->aSalt, 8) == 0;
}

CHOIR_PRIVATE int choirWalRead(const ChoirWal *p, u32 iFrame, u8 *aPage) {
  return walBytes(p, choirWalOffset(p, iFrame) + CHOIR_WAL_FRAME, aPage,
                  p->szPage);
}

/* By page, then by frame. */
static int walOrder(const void *pA, const void *pB) {
  const ChoirWalPage *a = pA, *b = pB;
  return a->iPage != b->iPage ? (a->iPage < b->iPage ? -1 : 1)
                              : (a->iFrame < b->iFrame ? -1 : 1);
}

/* Sorts, and leaves the last frame of each page. */
static u64 walLast(ChoirWalPage *a, u64 n) {
  u64 i, nOut = 0;
  if (n) {
    qsort(a, (size_t)n, sizeof(*a), walOrder);
  }
  for (i = 0; i < n; i++) {
    if (i + 1 == n || a[i + 1].iPage != a[i].iPage) {
      a[nOut++] = a[i];
    }
  }
  return nOut;
}

/* Is there a frame, with its page, into a? s: the checksum before it, then its. */
static int walNext(const ChoirWal *p, u32 iFrame, u8 *a, u32 s[2]) {
  if (!walBytes(p, choirWalOffset(p, iFrame), a, CHOIR_WAL_FRAME + p->szPage)) {
    return 0;
  }
  choirWalSum(p->bBig, a, 8, s);
  choirWalSum(p->bBig, a + CHOIR_WAL_FRAME, p->szPage, s);
  return memcmp(a + 8, p->aSalt, 8) == 0 && choirGet32(a + 16) == s[0] &&
         choirGet32(a + 20) == s[1] && choirGet32(a) != 0;
}

CHOIR_PRIVATE int choirWalFrame(const ChoirWal *p, u32 iFrame, u8 *a,
                                u32 s[2]) {
  u8 aWas[CHOIR_WAL_FRAME];
  const u8 *aSum = p->aFirst;
  if (iFrame > 1) {
    if (!walBytes(p, choirWalOffset(p, iFrame - 1), aWas, sizeof(aWas)) ||
        memcmp(aWas + 8, p->aSalt, 8) != 0) {
      return 0;
    }
    aSum = aWas + 16;
  }
  s[0] = choirGet32(aSum);
  s[1] = choirGet32(aSum + 4);
  return walNext(p, iFrame, a, s);
}

/* Does the mark hold? Gives the checksum there. */
static int walAt(const ChoirWal *p, const ChoirWalMark *pMark, u32 s[2]) {
  const u8 *aSum = pMark->nFrame ? pMark->aSum : p->aFirst;
  u8 a[CHOIR_WAL_FRAME];
  s[0] = choirGet32(aSum);
  s[1] = choirGet32(aSum + 4);
  return memcmp(pMark->aSalt, p->aSalt, 8) == 0 &&
         (pMark->nFrame == 0 ||
          (walBytes(p, choirWalOffset(p, pMark->nFrame), a, CHOIR_WAL_FRAME) &&
           memcmp(a + 8, p->aSalt, 8) == 0 && memcmp(a + 16, aSum, 8) == 0));
}

CHOIR_PRIVATE int choirWalWalk(ChoirErr *pErr, const ChoirWal *p,
                               ChoirWalMark *pMark, ChoirWalPage **paPage,
                               u64 *pn, u32 *pnPage) {
  ChoirWalPage *aPage = NULL;
  u8 *a = choirMalloc(pErr, CHOIR_WAL_FRAME + p->szPage);
  u64 n = 0, nAlloc = 0, nCommit = 0;
  u32 s[2], iFrame = pMark->nFrame + 1;
  int bHold = a != NULL && walAt(p, pMark, s);
  *pnPage = 0;
  while (bHold && pErr->rc == SQLITE_OK && walNext(p, iFrame, a, s)) {
    if (n == nAlloc) {
      ChoirWalPage *aNew;
      nAlloc = nAlloc ? nAlloc * 2 : 256;
      aNew = choirRealloc(pErr, aPage, nAlloc * sizeof(*aPage));
      if (aNew == NULL) {
        break;
      }
      aPage = aNew;
    }
    aPage[n].iPage = choirGet32(a);
    aPage[n++].iFrame = iFrame;
    if (choirGet32(a + 4)) { /* a commit */
      *pnPage = choirGet32(a + 4);
      nCommit = n;
      pMark->nFrame = iFrame;
      choirPut32(pMark->aSum, s[0]);
      choirPut32(pMark->aSum + 4, s[1]);
    }
    iFrame++;
    bHold = n < WAL_FRAMES_MAX;
  }
  sqlite3_free(a);
  *pn = walLast(aPage, nCommit);
  *paPage = aPage;
  return bHold && pErr->rc == SQLITE_OK;
}
