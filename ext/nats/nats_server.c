/* SPDX-License-Identifier: MIT */
/*
** The list of servers (nats.url) and what lets us in at one of them.
**
** A server is [nats://|tls://][user[:password]@]host[:port], or by WebSocket
** ws:// or wss:// and the same with [/path]; a user without a password is a
** token. In this order: a secret of type nats whose scope covers
** nats://host:port, the URL, the file of nats.creds. Messages show host:port
** and nothing else of a URL.
*/
#include "nats.h"

CHOIR_PRIVATE void choirNatsServerFree(ChoirNatsServer *p) {
  choirWipeFree(p->zUser);
  choirWipeFree(p->zPassword);
  p->zUser = p->zPassword = NULL;
}

/* z[0..n) with %XX undone; caller wipes and frees. */
static char *serverDecode(ChoirErr *pErr, const char *z, size_t n) {
  char *zOut = choirMalloc(pErr, n + 1);
  size_t i, j = 0;
  for (i = 0; zOut && i < n; i++) {
    int iHigh = z[i] == '%' && i + 2 < n ? choirHexDigit(z[i + 1]) : -1;
    int iLow = iHigh >= 0 ? choirHexDigit(z[i + 2]) : -1;
    if (iLow >= 0 && iHigh + iLow > 0) {
      zOut[j++] = (char)(iHigh << 4 | iLow);
      i += 2;
    } else {
      zOut[j++] = z[i];
    }
  }
  return zOut;
}

static void serverUser(ChoirErr *pErr, const char *z, size_t n,
                       ChoirNatsServer *p) {
  const char *zColon = memchr(z, ':', n);
  size_t nUser = zColon ? (size_t)(zColon - z) : n;
  p->zUser = serverDecode(pErr, z, nUser);
  if (zColon) {
    p->zPassword = serverDecode(pErr, zColon + 1, n - nUser - 1);
  }
}

/* z[0..n) up to its path, which goes into a request: printable ASCII. */
static size_t serverPath(ChoirErr *pErr, const char *z, size_t n,
                         ChoirNatsServer *p) {
  size_t nHost = 0, i;
  while (nHost < n && z[nHost] != '/') {
    nHost++;
  }
  sqlite3_snprintf(sizeof(p->zPath), p->zPath, "%s%.*s", nHost < n ? "" : "/",
                   (int)(n - nHost), z + nHost);
  for (i = nHost; i < n; i++) {
    if (z[i] <= ' ' || z[i] > '~' || n - nHost >= sizeof(p->zPath)) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "the path of a server of nats.url is not up to %d printable"
                  " characters",
                  (int)sizeof(p->zPath) - 1);
      break;
    }
  }
  return nHost;
}

static void serverHost(ChoirErr *pErr, const char *z, size_t n,
                       ChoirNatsServer *p) {
  const char *zPort = !p->bWs ? "4222" : p->bTls ? "443" : "80";
  const char *zEnd = z + n, *zClose;
  size_t nHost = n, nPort = strlen(zPort);
  int bBracket = n > 0 && z[0] == '[';
  while (n > 0 && z[n - 1] == '/') {
    nHost = --n;
    zEnd = z + n;
  }
  zClose = bBracket ? memchr(z, ']', n) : memchr(z, ':', n);
  if (bBracket && zClose) {
    nHost = (size_t)(zClose - ++z);
    zClose = zClose + 1 < zEnd ? zClose + 1 : NULL;
  } else if (zClose) {
    nHost = (size_t)(zClose - z);
  }
  if (zClose) {
    zPort = zClose + 1;
    nPort = (size_t)(zEnd - zPort);
  }
  if ((bBracket && nHost == n) || nHost == 0 || nHost >= sizeof(p->zHost) ||
      nPort == 0 || nPort > 5 || (zClose && *zClose != ':') ||
      strspn(zPort, "0123456789") < nPort) {
    choirErrSet(pErr, SQLITE_ERROR,
                "a server of nats.url is not nats://host:port");
    return;
  }
  memcpy(p->zHost, z, nHost);
  memcpy(p->zPort, zPort, nPort);
  sqlite3_snprintf(sizeof(p->zName), p->zName, bBracket ? "[%s]:%s" : "%s:%s",
                   p->zHost, p->zPort);
}

CHOIR_PRIVATE int choirNatsServer(ChoirErr *pErr, const char *z, int i,
                                  ChoirNatsServer *p) {
  const char *zEnd, *zAt, *zScheme;
  size_t n;
  memset(p, 0, sizeof(*p));
  for (; z && i > 0; i--) {
    z = strchr(z, ',');
    z = z ? z + 1 : NULL;
  }
  if (z == NULL || pErr->rc != SQLITE_OK) {
    return 0;
  }
  zEnd = z + strcspn(z, ",");
  z += strspn(z, " \t");
  while (zEnd > z && (zEnd[-1] == ' ' || zEnd[-1] == '\t')) {
    zEnd--;
  }
  n = (size_t)(zEnd - z);
  zScheme = strstr(z, "://");
  if (zScheme && zScheme < zEnd) {
    static const char *const azScheme[] = {"nats", "tls", "ws", "wss"};
    int e;
    for (e = 0; e < 4 && (sqlite3_strnicmp(z, azScheme[e],
                                           (int)strlen(azScheme[e])) != 0 ||
                          (size_t)(zScheme - z) != strlen(azScheme[e]));
         e++) {
    }
    p->bTls = e == 1 || e == 3;
    p->bWs = e == 2 || e == 3;
    if (e == 4) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "a server of nats.url has the scheme '%.*s'; it is nats://,"
                  " tls://, ws:// or wss://",
                  (int)(zScheme - z > 12 ? 12 : zScheme - z), z);
      return 0;
    }
    n -= (size_t)(zScheme + 3 - z);
    z = zScheme + 3;
    n = p->bWs ? serverPath(pErr, z, n, p) : n;
  }
  for (zAt = z + n; zAt > z && zAt[-1] != '@'; zAt--) {
  }
  if (zAt > z) {
    serverUser(pErr, z, (size_t)(zAt - z) - 1, p);
    n -= (size_t)(zAt - z);
    z = zAt;
  }
  serverHost(pErr, z, n, p);
  if (pErr->rc != SQLITE_OK) {
    choirNatsServerFree(p);
  }
  return pErr->rc == SQLITE_OK;
}

/* ------------------------------------------------------------------- auth */

static void serverPair(ChoirBuf *b, const char *zKey, const char *zValue) {
  choirBufText(b, ",\"");
  choirBufText(b, zKey);
  choirBufText(b, "\":");
  choirBufJson(b, zValue, -1);
}

/* zCreds (wiped and freed), or the text of a file. */
static void serverKey(ChoirErr *pErr, const char *zCreds, const char *zFile,
                      const char *zNonce, ChoirBuf *b) {
  ChoirNatsLogin login;
  char *zRead = zCreds ? NULL : choirNatsFile(pErr, zFile);
  memset(&login, 0, sizeof(login));
  if (zNonce == NULL || zNonce[0] == 0) {
    choirErrSet(pErr, SQLITE_AUTH,
                "the server asks for no signature; it does not use nkeys");
  }
  choirNatsSign(pErr,
                zCreds  ? zCreds
                : zRead ? zRead
                        : "",
                zNonce ? zNonce : "", &login);
  if (pErr->rc == SQLITE_OK) {
    if (login.zJwt) {
      serverPair(b, "jwt", login.zJwt);
    } else {
      serverPair(b, "nkey", login.zPublic);
    }
    serverPair(b, "sig", login.zSignature);
  }
  choirWipeFree(login.zJwt);
  choirWipeFree(zRead);
}

CHOIR_PRIVATE void choirNatsAuth(ChoirConn *pConn, ChoirErr *pErr,
                                 const ChoirNatsServer *p, const char *zNonce,
                                 ChoirBuf *b) {
  char *zUrl = choirMprintf(pErr, "nats://%s", p->zName);
  const ChoirSecret *pSecret =
      zUrl ? choirSecretFor(pConn, pErr, "nats", zUrl) : NULL;
  const char *zFile = choirConfig(pConn, "nats.creds"), *z;
  sqlite3_free(zUrl);
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (pSecret) {
    if ((z = choirSecretGet(pSecret, "creds")) != NULL ||
        (z = choirSecretGet(pSecret, "nkey")) != NULL) {
      serverKey(pErr, z, NULL, zNonce, b);
    } else if ((z = choirSecretGet(pSecret, "creds_file")) != NULL) {
      serverKey(pErr, NULL, z, zNonce, b);
    } else if ((z = choirSecretGet(pSecret, "token")) != NULL) {
      serverPair(b, "auth_token", z);
    } else if ((z = choirSecretGet(pSecret, "user")) != NULL) {
      const char *zPassword = choirSecretGet(pSecret, "password");
      serverPair(b, "user", z);
      serverPair(b, "pass", zPassword ? zPassword : "");
    } else {
      choirErrSet(pErr, SQLITE_AUTH,
                  "the secret '%s' gives none of creds, creds_file, nkey, token"
                  " and user",
                  choirSecretName(pSecret));
    }
  } else if (p->zUser && p->zPassword) {
    serverPair(b, "user", p->zUser);
    serverPair(b, "pass", p->zPassword);
  } else if (p->zUser) {
    serverPair(b, "auth_token", p->zUser);
  } else if (zFile && zFile[0]) {
    serverKey(pErr, NULL, zFile, zNonce, b);
  }
}
