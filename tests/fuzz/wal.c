/* SPDX-License-Identifier: MIT */
/* The frames of a WAL: each 12 bytes of the input make one (page, size after
** the commit, salt, damage), its checksums right unless the damage says so. The
** pages that are given are those of committed frames, ascending, each once. */
#include "fuzz.h"
#include "../../ext/sync/sync.h"

#define WAL_PAGE 512

typedef struct WalFile {
  sqlite3_file base;
  u8 *a;
  u64 n;
} WalFile;

static int walFileRead(sqlite3_file *pFile, void *aTo, int n, sqlite3_int64 i) {
  WalFile *p = (WalFile *)pFile;
  MUST(n > 0 && i >= 0);
  if ((u64)i + (u64)n > p->n) {
    return SQLITE_IOERR_SHORT_READ;
  }
  memcpy(aTo, p->a + i, (size_t)n);
  return SQLITE_OK;
}

static void walWord(u8 *a, u32 v) {
  a[0] = (u8)(v >> 24);
  a[1] = (u8)(v >> 16);
  a[2] = (u8)(v >> 8);
  a[3] = (u8)v;
}

static void walChain(const u8 *a, int n, u32 s[2]) { /* little-endian words */
  u32 v[2];
  int i;
  for (i = 0; i < n; i += 8) {
    memcpy(v, a + i, 8);
    s[0] += v[0] + s[1];
    s[1] += v[1] + s[0];
  }
}

/* n frames behind a header; returns their bytes. */
static u64 walMake(FuzzIn *pIn, u8 *a, int nFrame, ChoirWal *p) {
  u32 s[2] = {0, 0};
  u8 *pFrame = a + 32;
  int i;
  memset(a, 0, 32);
  walWord(a, 0x377f0682);
  walWord(a + 8, WAL_PAGE);
  memcpy(a + 16, "saltsalt", 8);
  walChain(a, 24, s);
  walWord(a + 24, s[0]);
  walWord(a + 28, s[1]);
  memcpy(p->aSalt, a + 16, 8);
  memcpy(p->aFirst, a + 24, 8);
  p->szPage = WAL_PAGE;
  for (i = 0; i < nFrame; i++, pFrame += 24 + WAL_PAGE) {
    u8 m;
    memset(pFrame, 0, 24 + WAL_PAGE);
    walWord(pFrame, fuzzByte(pIn) % 64);
    walWord(pFrame + 4, fuzzByte(pIn) % 4 ? 0 : 64);
    memset(pFrame + 24, fuzzByte(pIn), WAL_PAGE);
    memcpy(pFrame + 8, a + 16, 8);
    walChain(pFrame, 8, s);
    walChain(pFrame + 24, WAL_PAGE, s);
    walWord(pFrame + 16, s[0]);
    walWord(pFrame + 20, s[1]);
    m = fuzzByte(pIn);
    if (m > 240) {
      pFrame[m % 24 + (m & 1) * 24] ^= 1;
    }
  }
  return (u64)(pFrame - a);
}

FUZZ(wal) {
  static const sqlite3_io_methods methods = {.iVersion = 1,
                                             .xRead = walFileRead};
  FuzzIn in = {a, n};
  int nFrame = fuzzByte(&in) % 40, nCut = fuzzByte(&in), i;
  u8 *aWal = sqlite3_malloc64(32 + 40 * (24 + WAL_PAGE)), aPage[WAL_PAGE];
  WalFile file = {{&methods}, aWal, 0};
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirWalPage *aGot = NULL;
  ChoirWal wal;
  ChoirWalMark mark;
  u64 nGot = 0, j;
  u32 nPage;
  memset(&wal, 0, sizeof(wal));
  memset(&mark, 0, sizeof(mark));
  wal.pFile = &file.base;
  file.n = walMake(&in, aWal, nFrame, &wal);
  file.n -= nCut > 200 && file.n > 300 ? (u64)nCut : 0;
  memcpy(mark.aSalt, wal.aSalt, 8);
  for (i = 0; i < 2; i++) { /* and again from where it ended */
    choirWalWalk(&err, &wal, &mark, &aGot, &nGot, &nPage);
    MUST(err.rc == SQLITE_OK && mark.nFrame <= (u32)nFrame);
    MUST(i == 0 || nGot == 0);
    for (j = 0; j < nGot; j++) {
      MUST(aGot[j].iPage > 0 && aGot[j].iFrame <= mark.nFrame);
      MUST(j == 0 || aGot[j].iPage > aGot[j - 1].iPage);
      MUST(choirWalRead(&wal, aGot[j].iFrame, aPage));
    }
    sqlite3_free(aGot);
  }
  mark.nFrame += (u32)nCut; /* a mark that does not hold */
  MUST(nCut == 0 || !choirWalWalk(&err, &wal, &mark, &aGot, &nGot, &nPage) ||
       nGot == 0);
  if (nCut) {
    sqlite3_free(aGot);
  }
  choirWalHolds(&wal);
  choirErrClear(&err);
  sqlite3_free(aWal);
}
