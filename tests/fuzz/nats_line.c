/* SPDX-License-Identifier: MIT */
/*
** The reader of what a NATS server sends, on any bytes.
**
** The first byte says how the rest arrives: in pieces of that many bytes. What
** the reader gives must lie in the bytes it was given, must not depend on how
** they were cut, and every operation must be shorter than what is there.
*/
#include "fuzz.h"
#include "../../ext/nats/nats.h"

static void natsInside(const char *z, u64 n, const char *a, u64 nAll) {
  MUST(z == NULL ? n == 0 : z >= a && n <= nAll && z + n <= a + nAll);
}

/* Operations at the front of a[0..n), the last one's number of bytes used. */
static u64 natsReadAll(const char *a, u64 n, u64 nPiece, u64 *pnHash,
                       int *prc) {
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
    natsInside(f.zSubject, f.nSubject, a + iAt, nUsed);
    natsInside(f.zReply, f.nReply, a + iAt, nUsed);
    natsInside(f.aHead, f.nHead, a + iAt, nUsed);
    natsInside(f.aBody, f.nBody, a + iAt, nUsed);
    if (f.eOp == CHOIR_NATS_MSG) {
      const char *z = choirNatsHeader(&f, "Nats-Msg-Id", &nId);
      int iStatus;
      MUST(f.zSubject && f.nSubject > 0 && f.iSid >= 0);
      natsInside(z, nId, a + iAt, nUsed);
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

FUZZ(nats_line) {
  u64 nHash1, nHash2, nUsed1, nUsed2;
  int rc1, rc2;
  if (n < 1) {
    return;
  }
  nUsed1 = natsReadAll((const char *)a + 1, n - 1, n, &nHash1, &rc1);
  nUsed2 = natsReadAll((const char *)a + 1, n - 1, 1 + a[0], &nHash2, &rc2);
  MUST(nUsed1 == nUsed2 && nHash1 == nHash2 && rc1 == rc2);
}
