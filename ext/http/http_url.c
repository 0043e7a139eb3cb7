/* SPDX-License-Identifier: MIT */
/*
** URLs: taken apart, shown to people, percent-encoded.
**
** Only http and https; no credentials in the authority (they would end up in
** logs); no space or control character (percent-encode them).
*/
#include "http.h"

static int urlPort(ChoirErr *pErr, const ChoirHttpUrl *p) {
  int i, iPort = 0;
  for (i = 0; i < p->nPort && iPort < 65536; i++) {
    if (p->zPort[i] < '0' || p->zPort[i] > '9') {
      iPort = 65536;
    } else {
      iPort = iPort * 10 + (p->zPort[i] - '0');
    }
  }
  if (iPort == 0 || iPort > 65535) {
    choirErrSet(pErr, SQLITE_ERROR, "the URL's port is not 1 to 65535");
  }
  return iPort;
}

/* host or [v6], then :port. */
static void urlAuthority(ChoirErr *pErr, const char *zUrl, const char *z, int n,
                         ChoirHttpUrl *p) {
  int i = 0;
  if (memchr(z, '@', (size_t)n)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "credentials in a URL are refused; send them as a header or"
                " by choir_secret()");
    return;
  }
  if (n > 0 && z[0] == '[') {
    while (i < n && z[i] != ']') {
      i++;
    }
    i += i < n;
  } else {
    while (i < n && z[i] != ':') {
      i++;
    }
  }
  p->zHost = z;
  p->nHost = i;
  if (i < n) {
    p->zPort = z + i + 1;
    p->nPort = n - i - 1;
  }
  if (p->nHost == 0 || p->nHost > 255 || (i < n && z[i] != ':')) {
    choirErrSet(pErr, SQLITE_ERROR, "the URL has no host: %.*s",
                (int)strcspn(zUrl, "?#") > 80 ? 80 : (int)strcspn(zUrl, "?#"),
                zUrl);
  }
}

CHOIR_PRIVATE void choirHttpUrl(ChoirErr *pErr, const char *zUrl,
                                ChoirHttpUrl *p) {
  const char *z = zUrl;
  size_t n;
  memset(p, 0, sizeof(*p));
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  p->zScheme = zUrl;
  if (sqlite3_strnicmp(z, "https://", 8) == 0) {
    p->nScheme = 5;
    p->bTls = 1;
  } else if (sqlite3_strnicmp(z, "http://", 7) == 0) {
    p->nScheme = 4;
  } else {
    /* no more of it than a scheme: what follows may be a password */
    n = strspn(zUrl, "abcdefghijklmnopqrstuvwxyz0123456789+-.");
    n = n < 20 && zUrl[n] == ':' ? n : 0;
    choirErrSet(pErr, SQLITE_ERROR,
                "the URL must start with http:// or https://%s%.*s%s",
                n ? ", got " : "", (int)n, zUrl, n ? ":" : "");
    return;
  }
  z += p->nScheme + 3;
  n = strcspn(z, "/?#\\");
  if (n > 1024 || strlen(zUrl) > 65536) {
    choirErrSet(pErr, SQLITE_TOOBIG, "the URL has %lld bytes, at most 65536",
                (i64)strlen(zUrl));
    return;
  }
  urlAuthority(pErr, zUrl, z, (int)n, p);
  z += n;
  p->zPath = z;
  p->nPath = (int)strcspn(z, "?#");
  z += p->nPath;
  if (*z == '?') {
    p->zQuery = z + 1;
    p->nQuery = (int)strcspn(z + 1, "#");
  }
  p->iPort = p->bTls ? 443 : 80;
  p->bDefaultPort = 1;
  if (p->zPort && pErr->rc == SQLITE_OK) {
    int iPort = urlPort(pErr, p);
    p->bDefaultPort = iPort == p->iPort;
    p->iPort = iPort;
  }
}

/* Other spellings of such an address (127.1, 0x7f.0.0.1, localhost.) are a
** resolver's to read, so they do not count. */
CHOIR_PRIVATE int choirHttpLoopback(const ChoirHttpUrl *p) {
  const char *z = p->zHost;
  int i, nPart = 0, iPart = 0, nDigit = 0;
  if ((p->nHost == 9 && sqlite3_strnicmp(z, "localhost", 9) == 0) ||
      (p->nHost == 5 && memcmp(z, "[::1]", 5) == 0)) {
    return 1;
  }
  if (p->nHost < 9 || memcmp(z, "127.", 4) != 0) {
    return 0;
  }
  for (i = 0; i <= p->nHost; i++) {
    if (i == p->nHost || z[i] == '.') {
      if (nDigit == 0) {
        return 0;
      }
      nPart++;
      iPart = nDigit = 0;
    } else if (z[i] < '0' || z[i] > '9' || (nDigit > 0 && iPart == 0) ||
               (iPart = iPart * 10 + (z[i] - '0')) > 255) {
      return 0;
    } else {
      nDigit++;
    }
  }
  return nPart == 4;
}

CHOIR_PRIVATE char *choirHttpUrlShow(ChoirErr *pErr, const char *zUrl) {
  const char *zHost = strstr(zUrl, "://"), *zAt;
  size_t n = strcspn(zUrl, "?#"), nScheme, nUser = 0, nShow;
  char *z;
  zHost = zHost && zHost < zUrl + n ? zHost + 3 : zUrl;
  zAt = strchr(zHost, '@');
  if (zAt && (size_t)(zAt - zHost) < strcspn(zHost, "/?#")) {
    nUser = (size_t)(zAt - zHost) + 1;
  }
  nScheme = (size_t)(zHost - zUrl);
  n -= nScheme + nUser;
  nShow = n > 200 ? 200 : n;
  z = choirMalloc(pErr, nScheme + nShow + 4);
  if (z) {
    memcpy(z, zUrl, nScheme);
    memcpy(z + nScheme, zHost + nUser, nShow);
    memcpy(z + nScheme + nShow, n > nShow ? "…" : "", n > nShow ? 3 : 0);
  }
  return z;
}

static int urlUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

CHOIR_PRIVATE void choirUrlEncode(ChoirBuf *p, const char *z, i64 n,
                                  int bSlash) {
  static const char aHex[] = "0123456789ABCDEF";
  i64 i, iFrom = 0;
  for (i = 0; i < n; i++) {
    char c = z[i];
    if (!urlUnreserved(c) && !(bSlash && c == '/')) {
      char a[3] = {'%', aHex[(u8)c >> 4], aHex[(u8)c & 15]};
      choirBufAppend(p, z + iFrom, (u64)(i - iFrom));
      choirBufAppend(p, a, 3);
      iFrom = i + 1;
    }
  }
  choirBufAppend(p, z + iFrom, (u64)(n - iFrom));
}

CHOIR_PRIVATE void choirUrlDecode(ChoirBuf *p, const char *z, i64 n) {
  i64 i, iFrom = 0;
  for (i = 0; i + 2 < n; i++) {
    int iHigh = z[i] == '%' ? choirHexDigit(z[i + 1]) : -1;
    int iLow = iHigh >= 0 ? choirHexDigit(z[i + 2]) : -1;
    if (iLow >= 0) {
      char c = (char)(iHigh * 16 + iLow);
      choirBufAppend(p, z + iFrom, (u64)(i - iFrom));
      choirBufAppend(p, &c, 1);
      i += 2;
      iFrom = i + 1;
    }
  }
  choirBufAppend(p, z + iFrom, (u64)(n - iFrom));
}
