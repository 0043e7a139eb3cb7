/* SPDX-License-Identifier: MIT */
/*
** The reader of what a NATS server sends, on any bytes (make fuzz).
**
** The first byte says how the rest arrives: in pieces of that many bytes. What
** the reader gives must lie in the bytes it was given, must not depend on how
** they were cut, and every operation must be shorter than what is there.
** tests/unit/nats_test.c runs the corpus, and mutations of it, without clang.
*/
#include "../../ext/nats/nats.h"
#include <stdio.h>
#include <stdlib.h>

#define MUST(x) ((x) ? (void)0 : (fprintf(stderr, "not: %s\n", #x), abort()))

static void inside(const char *z, u64 n, const char *a, u64 nAll) {
  MUST(z == NULL ? n == 0 : z >= a && n <= nAll && z + n <= a + nAll);
}

/* Operations at the front of a[0..n), the last one's number of bytes used. */
static u64 readAll(const char *a, u64 n, u64 nPiece, u64 *pnHash, int *prc) {
  u64 iAt = 0, nHave = 0;
  ChoirErr err = {SQLITE_OK, NULL};
  *pnHash = 0;
  while (err.rc == SQLITE_OK) {
    ChoirNatsFrame f;
    u64 nUsed = choirNatsParse(&err, a + iAt, nHave - iAt, &f), nId;
    if (nUsed == 0) {
      if (err.rc != SQLITE_OK || nHave == n) {
        break;
      }
      nHave = n - nHave < nPiece ? n : nHave + nPiece;
      continue;
    }
    MUST(nUsed <= nHave - iAt);
    MUST(f.eOp >= CHOIR_NATS_INFO && f.eOp <= CHOIR_NATS_ERROR);
    inside(f.zSubject, f.nSubject, a + iAt, nUsed);
    inside(f.zReply, f.nReply, a + iAt, nUsed);
    inside(f.aHead, f.nHead, a + iAt, nUsed);
    inside(f.aBody, f.nBody, a + iAt, nUsed);
    if (f.eOp == CHOIR_NATS_MSG) {
      const char *z = choirNatsHeader(&f, "Nats-Msg-Id", &nId);
      int iStatus;
      MUST(f.zSubject && f.nSubject > 0 && f.iSid >= 0);
      inside(z, nId, a + iAt, nUsed);
      iStatus = choirNatsStatus(&f, &z, &nId);
      MUST(iStatus >= 0 && iStatus < 1000);
      MUST(nId == 0 || (z >= a + iAt && z + nId <= a + iAt + nUsed));
    }
    *pnHash = *pnHash * 31 + (u64)f.eOp + f.nBody * 7 + f.nSubject;
    iAt += nUsed;
  }
  *prc = err.rc;
  choirErrClear(&err);
  return iAt;
}

int LLVMFuzzerTestOneInput(const uint8_t *a, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *a, size_t n) {
  u64 nHash1, nHash2, nUsed1, nUsed2;
  int rc1, rc2;
  char *aCopy;
  if (n < 1) {
    return 0;
  }
  aCopy = sqlite3_malloc64(n); /* its own bytes, so that a sanitizer sees */
  memcpy(aCopy, a + 1, n - 1);
  nUsed1 = readAll(aCopy, n - 1, n, &nHash1, &rc1);
  nUsed2 = readAll(aCopy, n - 1, 1 + a[0], &nHash2, &rc2);
  MUST(nUsed1 == nUsed2 && nHash1 == nHash2 && rc1 == rc2);
  sqlite3_free(aCopy);
  return 0;
}
