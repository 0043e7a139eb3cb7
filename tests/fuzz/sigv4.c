/* SPDX-License-Identifier: MIT */
/* A request to be signed: as text (s3_sign_v4), and in C, where the same
** request gives the same signature and no secret is in what is sent. */
#include "fuzz.h"
#include "../../ext/http/http.h"

FUZZ(sigv4) {
  FuzzIn in = {a, n};
  u8 m = fuzzByte(&in);
  char *zUrl = fuzzPart(&in, NULL), *zName = fuzzPart(&in, NULL);
  char *zValue = fuzzPart(&in, NULL), z[65] = {0};
  ChoirSigv4Header header = {zName, zValue};
  int i;
  for (i = 0; i < 2; i++) {
    ChoirErr err = {SQLITE_OK, NULL};
    ChoirSigv4 s;
    memset(&s, 0, sizeof(s));
    s.zMethod = m & 1 ? "GET" : "PUT";
    s.zUrl = zUrl;
    s.zRegion = "us-east-1";
    s.zService = m & 2 ? "s3" : "iam";
    memcpy(s.zTime, "20150830T123600Z", 17);
    s.zPayload = "UNSIGNED-PAYLOAD";
    s.zAccess = "AKIDEXAMPLE";
    s.zSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    s.zToken = m & 4 ? "token" : NULL;
    s.aHeader = &header;
    s.nHeader = (m & 8) != 0;
    s.bQuery = (m & 16) != 0;
    s.bNormalize = (m & 2) == 0;
    s.nExpires = 60;
    choirSigv4(&err, &s);
    if (err.rc == SQLITE_OK) {
      MUST(strlen(s.zSignature) == 64);
      MUST(i == 0 || strcmp(z, s.zSignature) == 0);
      MUST(strstr(zUrl, "K7MDENG") || strstr(zName, "K7MDENG") ||
           strstr(s.bQuery ? s.url.a : s.auth.a, "K7MDENG") == NULL);
      memcpy(z, s.zSignature, 65);
    }
    choirSigv4Free(&s);
    choirErrClear(&err);
  }
  fuzzSql(fuzzDb(), "SELECT s3_sign_v4(?1)", in.a, in.n);
  fuzzSql(fuzzDb(), "SELECT s3_sign_v4(?1)", a, n);
  sqlite3_free(zUrl);
  sqlite3_free(zName);
  sqlite3_free(zValue);
}
