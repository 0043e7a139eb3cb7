/* SPDX-License-Identifier: MIT */
/*
** The reader of LTX files on bytes of a stranger: fed whole and in pieces, its
** index and its frames. The same verdict both ways, and nothing else happens.
**
** The checksums are looked at last, so all of the parser is within reach of a
** mutation.
*/
#include "fuzz.h"
#include "../../ext/sync/sync.h"

static void ltxPage(void *pArg, ChoirErr *pErr, u32 iPage, const u8 *a,
                    u32 szPage) {
  u64 *pSum = pArg;
  (void)pErr;
  *pSum = choirCrc64(*pSum ^ iPage, a, szPage);
}

static void ltxEntry(void *pArg, ChoirErr *pErr, u32 iPage, u64 iOff,
                     u32 nByte) {
  u64 *pSum = pArg;
  (void)pErr;
  *pSum += iPage + iOff + nByte;
}

static int ltxRead(const u8 *a, u64 n, u64 nPiece, u64 *pSum) {
  ChoirErr err = {0, NULL};
  ChoirLtxReader *p = choirLtxReadNew(&err, ltxPage, pSum);
  u64 i;
  int rc;
  for (i = 0; i < n; i += nPiece) {
    choirLtxReadFeed(p, &err, a + i, n - i < nPiece ? n - i : nPiece);
  }
  choirLtxReadEnd(p, &err);
  rc = err.rc;
  choirErrClear(&err);
  choirLtxReadFree(p);
  return rc;
}

FUZZ(ltx) {
  ChoirErr err = {0, NULL};
  ChoirLtxHead head;
  u64 aSum[3] = {0, 0, 0}, nIndex;
  static u8 aOut[CHOIR_LTX_PAGE_MAX];
  MUST(ltxRead(a, n, n ? n : 1, &aSum[0]) == ltxRead(a, n, 13, &aSum[1]));
  MUST(aSum[0] == aSum[1]);
  choirLtxHeadRead(&err, a, n, &head);
  nIndex = n > 124 ? choirLtxIndexSize(&err, a + n - 24, 24, n) : 0;
  if (nIndex && nIndex <= n - 24) {
    choirLtxIndexRead(&err, a + n - 24 - nIndex, nIndex, &head, ltxEntry,
                      &aSum[2]);
  }
  choirErrClear(&err);
  if (n > 104) {
    choirLtxFrameRead(&err, a + 100, n - 100,
                      (u32)a[100] << 24 | (u32)a[101] << 16 | (u32)a[102] << 8 |
                          a[103],
                      4096, aOut);
    choirErrClear(&err);
  }
}
