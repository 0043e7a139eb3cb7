/* SPDX-License-Identifier: MIT */
/* URLs: the parts lie in the text and make it up, encoding comes undone again,
** no message shows a password. */
#include "fuzz.h"
#include "../../ext/http/http.h"
#include "../../ext/object/object.h"

static void urlPart(const char *zUrl, const char *z, int n) {
  MUST(n >= 0 && (n == 0 || (z >= zUrl && z + n <= zUrl + strlen(zUrl))));
}

FUZZ(url) {
  FuzzIn in = {a, n};
  u64 nUrl;
  char *zUrl = fuzzPart(&in, &nUrl), *z;
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirHttpUrl url;
  ChoirBuf b, c;
  choirHttpUrl(&err, zUrl, &url);
  if (err.rc == SQLITE_OK) {
    MUST(url.nHost > 0 && url.iPort > 0 && url.iPort < 65536);
    urlPart(zUrl, url.zScheme, url.nScheme);
    urlPart(zUrl, url.zHost, url.nHost);
    urlPart(zUrl, url.zPort, url.nPort);
    urlPart(zUrl, url.zPath, url.nPath);
    urlPart(zUrl, url.zQuery, url.nQuery);
    MUST(memchr(url.zHost, '@', (size_t)url.nHost) == NULL);
  }
  choirErrClear(&err);
  z = choirHttpUrlShow(&err, zUrl);
  MUST(z == NULL || strpbrk(z, "?#") == NULL);
  sqlite3_free(z);
  choirErrClear(&err);
  choirObjectUrlCheck(&err, zUrl);
  choirErrClear(&err);
  choirObjectKeyCheck(&err, zUrl);
  choirErrClear(&err);
  choirBufInit(&b, &err, 4 * nUrl + 1);
  choirBufInit(&c, &err, 4 * nUrl + 1);
  choirUrlEncode(&b, zUrl, (i64)nUrl, 1);
  choirUrlDecode(&c, b.a ? b.a : "", (i64)b.n);
  MUST(err.rc == SQLITE_OK && c.n == nUrl);
  MUST(nUrl == 0 || memcmp(c.a, zUrl, nUrl) == 0);
  choirBufFree(&c);
  choirBufFree(&b);
  choirBufInit(&b, &err, nUrl + 1);
  choirUrlDecode(&b, zUrl, (i64)nUrl);
  MUST(b.n <= nUrl);
  choirBufFree(&b);
  sqlite3_free(zUrl);
  choirErrClear(&err);
}
