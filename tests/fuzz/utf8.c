/* SPDX-License-Identifier: MIT */
/* Any bytes become a JSON string that SQLite takes, and SHA-256 and CRC-64 do
** not depend on how the bytes arrive. */
#include "fuzz.h"

FUZZ(utf8) {
  static ChoirConn *pConn;
  ChoirErr err = {SQLITE_OK, NULL};
  i64 nValid = choirUtf8Valid((const char *)a, (i64)n);
  u64 i = n / 3;
  u8 aHash[3][32];
  ChoirSha256 sha;
  ChoirBuf b;
  pConn = pConn ? pConn : choirConnPrivate(&err, 0);
  MUST(nValid >= 0 && nValid <= (i64)n);
  choirBufInit(&b, &err, 8 * n + 16);
  choirBufJson(&b, (const char *)a, (i64)n);
  MUST(err.rc == SQLITE_OK && choirUtf8Valid(b.a, (i64)b.n) == (i64)b.n);
  if (n == 0 || memchr(a, 0, n) == NULL) { /* json_valid stops at a NUL */
    MUST(choirJsonValid(pConn, &err, b.a, (i64)b.n));
  }
  choirBufFree(&b);
  choirSha256(a, n, aHash[0]);
  choirSha256Init(&sha);
  choirSha256Update(&sha, a, i);
  choirSha256Update(&sha, a + i, n - i);
  choirSha256Final(&sha, aHash[1]);
  choirSha256Force(1);
  choirSha256(a, n, aHash[2]);
  choirSha256Force(0);
  MUST(memcmp(aHash[0], aHash[1], 32) == 0);
  MUST(memcmp(aHash[0], aHash[2], 32) == 0);
  MUST(choirCrc64(0, a, n) == choirCrc64(choirCrc64(0, a, i), a + i, n - i));
  choirErrClear(&err);
}
