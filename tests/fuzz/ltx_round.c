/* SPDX-License-Identifier: MIT */
/* Pages made of the input, written as an LTX file and read back: the same. Then
** with one byte changed: refused. */
#define _GNU_SOURCE
#include "fuzz.h"
#include "../../ext/sync/sync.h"
#include <sys/mman.h>
#include <unistd.h>

static u8 aRound[8][4096];

static void roundPage(void *pArg, ChoirErr *pErr, u32 iPage, const u8 *aPage,
                      u32 szPage) {
  u64 *pn = pArg;
  MUST(pErr->rc == SQLITE_OK && szPage == 4096 && iPage == *pn + 1);
  MUST(memcmp(aPage, aRound[iPage - 1], szPage) == 0);
  *pn += 1;
}

static void roundNone(void *pArg, ChoirErr *pErr, u32 iPage, const u8 *aPage,
                      u32 szPage) {
  (void)pArg, (void)pErr, (void)iPage, (void)aPage, (void)szPage;
}

static int roundRead(const u8 *a, u64 n, ChoirLtxPage x, u64 *pn) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirLtxReader *p = choirLtxReadNew(&err, x, pn);
  int rc;
  choirLtxReadFeed(p, &err, a, n);
  choirLtxReadEnd(p, &err);
  choirLtxReadFree(p);
  rc = err.rc;
  choirErrClear(&err);
  return rc;
}

FUZZ(ltx_round) {
  FuzzIn in = {a, n};
  u32 nPage = 1 + fuzzByte(&in) % 8, i;
  u64 iFlip = (u64)fuzzInt(&in), nByte, nGot = 0, j = 0;
  int fd = memfd_create("ltx", 0);
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirLtxHead head;
  ChoirLtxWriter *p;
  u8 *aFile;
  memset(&head, 0, sizeof(head));
  head.szPage = 4096;
  head.nPage = nPage;
  head.iMin = 1;
  head.iMax = 1;
  head.bChoir = 1;
  p = choirLtxWriteNew(&err, fd, &head);
  for (i = 0; i < nPage; i++) {
    u64 nRun;
    for (nRun = 0; nRun < 4096; nRun++) { /* the input, again and again */
      aRound[i][nRun] = in.n ? in.a[j++ % in.n] : 0;
    }
    choirLtxWritePage(p, &err, i + 1, aRound[i]);
  }
  nByte = choirLtxWriteEnd(p, &err);
  choirLtxWriteFree(p);
  MUST(err.rc == SQLITE_OK && nByte > 0);
  aFile = sqlite3_malloc64(nByte);
  MUST(pread(fd, aFile, nByte, 0) == (ssize_t)nByte);
  close(fd);
  MUST(roundRead(aFile, nByte, roundPage, &nGot) == SQLITE_OK);
  MUST(nGot == nPage);
  aFile[iFlip % nByte] ^= (u8)(1 + iFlip / nByte % 255);
  MUST(roundRead(aFile, nByte, roundNone, NULL) != SQLITE_OK);
  sqlite3_free(aFile);
}
