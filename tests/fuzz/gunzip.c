/* SPDX-License-Identifier: MIT */
/* gzip of a stranger: within its cap, and nothing of a cut one. The first byte
** gives the cap. */
#include "fuzz.h"
#include "../../ext/http/http.h"

FUZZ(gunzip) {
  FuzzIn in = {a, n};
  u64 nMax = (u64)1 << (fuzzByte(&in) % 20);
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirBuf b;
  choirBufInit(&b, &err, nMax);
  choirGunzip(&err, in.a, (i64)in.n, &b);
  MUST(b.n <= nMax);
  if (err.rc == SQLITE_OK && in.n) { /* the same without its last byte */
    b.n = 0;
    choirGunzip(&err, in.a, (i64)in.n - 1, &b);
    MUST(err.rc != SQLITE_OK);
  }
  choirBufFree(&b);
  choirErrClear(&err);
}
