/* SPDX-License-Identifier: MIT */
/* .creds files, seeds in base32, a server's nonce: a signature or an error;
** base64 is read back as it was written. */
#include "fuzz.h"
#include "../../ext/nats/nats.h"

FUZZ(nats_key) {
  FuzzIn in = {a, n};
  int bUrl = fuzzByte(&in) & 1;
  u64 nText;
  char *zNonce = fuzzPart(&in, NULL), *zCreds = fuzzPart(&in, &nText);
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirNatsLogin login;
  ChoirBuf b, c;
  memset(&login, 0, sizeof(login));
  choirNatsSign(&err, zCreds, zNonce, &login);
  MUST(err.rc != SQLITE_OK || (login.zPublic[0] == 'U' && login.zSignature[0]));
  MUST(err.rc == SQLITE_OK || err.zMsg == NULL || strlen(zCreds) < 20 ||
       strstr(err.zMsg, zCreds) == NULL);
  choirWipeFree(login.zJwt);
  choirErrClear(&err);
  choirBufInit(&b, &err, 2 * n + 8);
  choirBufInit(&c, &err, 2 * n + 8);
  choirBufBase64(&b, a, n, bUrl);
  MUST(choirBufUnbase64(&c, b.a ? b.a : "", b.n));
  MUST(c.n == n && (n == 0 || memcmp(c.a, a, n) == 0));
  choirBufFree(&b);
  choirBufFree(&c);
  choirBufInit(&c, &err, nText + 8);
  choirBufUnbase64(&c, zCreds, nText);
  MUST(err.rc == SQLITE_OK && c.n <= nText);
  choirBufFree(&c);
  sqlite3_free(zNonce);
  sqlite3_free(zCreds);
}
