/* SPDX-License-Identifier: MIT */
/*
** One request to the server. Everything here is about where it goes, as whom,
** and what came of it; what it asks for is the business of the other files.
**
** The user is the one that the environment or the config file names, else the
** session's setting at the first request; it then holds for the connection.
** A key goes only where it belongs: QDRANT_API_KEY to the URL that the
** environment or the config file names, a secret of type qdrant to the URLs
** that its scope covers; and never over plain http except to this machine.
*/
#include "qdrant.h"
#include <stdlib.h>

#define WIRE_SERVER "http://127.0.0.1:6333"

typedef struct QdrantState {
  char *zUser;   /* fixed by the first request */
  char *zOf;     /* URL that iVersion is of */
  int iVersion;  /* major * 1000 + minor, 0: not asked */
  char *zInfoOf; /* URL, collection and vector that info is of */
  QdrantInfo info;
} QdrantState;

static void wireForget(QdrantState *p) {
  sqlite3_free(p->zInfoOf);
  sqlite3_free(p->info.zModel);
  p->zInfoOf = NULL;
  memset(&p->info, 0, sizeof(p->info));
}

static void wireFree(void *pArg) {
  QdrantState *p = pArg;
  wireForget(p);
  sqlite3_free(p->zUser);
  sqlite3_free(p->zOf);
}

static const ChoirStateType qdrantState = {"qdrant", sizeof(QdrantState),
                                           wireFree};

CHOIR_PRIVATE void choirQdrantForget(ChoirConn *pConn) {
  ChoirErr err = {0, NULL};
  QdrantState *p = choirState(pConn, &err, &qdrantState);
  if (p) {
    wireForget(p);
  }
  choirErrClear(&err);
}

/* ------------------------------------------------------------------ where */

static void wireUser(Qdrant *p, ChoirErr *pErr) {
  QdrantState *pState = choirState(p->pConn, pErr, &qdrantState);
  const char *zFixed = choirConfigFixed(p->pConn, "user");
  const char *z = choirConfig(p->pConn, "user");
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (z == NULL || z[0] == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no user is set and every point belongs to one; set CHOIR_USER"
                " or run select choir_config('user', …)");
  } else if (zFixed && strcmp(z, zFixed) != 0) {
    choirErrSet(pErr, SQLITE_AUTH,
                "the environment fixes user '%s' and the session says '%s'; run"
                " select choir_config('user', NULL)",
                zFixed, z);
  } else if (pState->zUser && strcmp(z, pState->zUser) != 0) {
    choirErrSet(pErr, SQLITE_AUTH,
                "this connection acts for user '%s' since its first request and"
                " the setting is '%s' now; open another connection",
                pState->zUser, z);
  } else if (strspn(z, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                       "0123456789._-") != strlen(z) ||
             strlen(z) > 128) {
    choirErrSet(pErr, SQLITE_ERROR,
                "user must be 1 to 128 letters, digits, '.', '_' or '-'");
  } else {
    if (pState->zUser == NULL) {
      pState->zUser = choirMprintf(pErr, "%s", z);
    }
    p->zUser = choirMprintf(pErr, "%s", z);
  }
}

static void wireUrl(Qdrant *p, ChoirErr *pErr) {
  const char *z = choirConfig(p->pConn, "qdrant.url");
  ChoirHttpUrl url;
  int n;
  z = z && z[0] ? z : WIRE_SERVER;
  choirHttpUrl(pErr, z, &url);
  if (pErr->rc == SQLITE_OK && url.nQuery > 0) {
    choirErrSet(pErr, SQLITE_ERROR, "qdrant.url must not have a query");
  }
  for (n = (int)strlen(z); n > 0 && z[n - 1] == '/'; n--) {
  }
  p->zUrl = choirMprintf(pErr, "%.*s", n, z);
}

/* Names as the server allows them, none that would leave its path. */
static void wireCollection(Qdrant *p, ChoirErr *pErr, const char *z) {
  size_t i;
  if (z == NULL) {
    z = choirConfig(p->pConn, "qdrant.collection");
  }
  for (i = 0; z && z[i]; i++) {
    if ((u8)z[i] < ' ' || strchr("<>:\"/\\|?*", z[i])) {
      break;
    }
  }
  if (pErr->rc == SQLITE_OK && (z == NULL || i == 0 || i > 255 || z[i] ||
                                strcmp(z, ".") == 0 || strcmp(z, "..") == 0)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "a collection's name has 1 to 255 bytes and none of"
                " <>:\"/\\|?*, got '%.80s'",
                z ? z : "");
  }
  p->zCollection = choirMprintf(pErr, "%s", z ? z : "");
}

CHOIR_PRIVATE void choirQdrantOpen(ChoirConn *pConn, ChoirErr *pErr, Qdrant *p,
                                   const char *zCollection) {
  memset(p, 0, sizeof(*p));
  p->pConn = pConn;
  wireUser(p, pErr);
  wireUrl(p, pErr);
  wireCollection(p, pErr, zCollection);
  choirQdrantVector(p, pErr, choirConfig(pConn, "qdrant.vector"));
}

CHOIR_PRIVATE void choirQdrantVector(Qdrant *p, ChoirErr *pErr,
                                     const char *zVector) {
  if (zVector) {
    sqlite3_free(p->zVector);
    p->zVector = zVector[0] ? choirMprintf(pErr, "%s", zVector) : NULL;
  }
}

CHOIR_PRIVATE void choirQdrantClose(Qdrant *p) {
  sqlite3_free(p->zUrl);
  sqlite3_free(p->zCollection);
  sqlite3_free(p->zUser);
  sqlite3_free(p->zVector);
  memset(p, 0, sizeof(*p));
}

/* -------------------------------------------------------------------- key */

/* The key that belongs to this URL, NULL: none. */
static const char *wireKey(const Qdrant *p, ChoirErr *pErr) {
  char *zScope = choirMprintf(pErr, "%s/", p->zUrl);
  const ChoirSecret *pSecret =
      zScope ? choirSecretFor(p->pConn, pErr, "qdrant", zScope) : NULL;
  const char *z = choirSecretGet(pSecret, "api_key");
  const char *zFixed = choirConfigFixed(p->pConn, "qdrant.url");
  const char *zNow = choirConfig(p->pConn, "qdrant.url");
  ChoirHttpUrl url;
  sqlite3_free(zScope);
  if (z == NULL && zFixed && zNow && strcmp(zFixed, zNow) == 0) {
    z = choirConfigFixed(p->pConn, "qdrant.api_key");
  }
  if (z == NULL || z[0] == 0 || pErr->rc != SQLITE_OK) {
    return NULL;
  }
  choirHttpUrl(pErr, p->zUrl, &url);
  if (pErr->rc == SQLITE_OK && !url.bTls && !choirHttpLoopback(&url)) {
    choirErrSet(pErr, SQLITE_AUTH,
                "a key is not sent to %s without TLS; use https", p->zUrl);
  }
  return z;
}

/* ---------------------------------------------------------------- refusals */

/* What the server says, at most 300 bytes of it, never the key. */
static char *wireSaid(ChoirErr *pErr, QdrantReply *p, const char *zKey) {
  ChoirErr err = {0, NULL};
  QdrantSpan all = {p->http.body.a, (i64)p->http.body.n};
  char *z = NULL;
  i64 n = 0, i;
  if (all.n > 1 && all.z[0] == '{') {
    QdrantSpan status = choirQdrantGet(all, "status");
    z = choirQdrantText(&err, choirQdrantGet(status, "error"), &n);
  } else if (all.n > 0 && all.z[0] != '<') {
    n = all.n < 300 ? all.n : 300;
    z = choirMprintf(&err, "%.*s", (int)n, all.z);
  }
  choirErrClear(&err);
  for (i = 0; z && z[i]; i++) { /* one line, no control characters */
    if ((u8)z[i] < ' ' || z[i] == 0x7f) {
      z[i] = ' ';
    }
  }
  if (z && (zKey == NULL || strstr(z, zKey) == NULL)) {
    i64 nShow = choirUtf8Valid(z, (i64)strlen(z));
    char *zShow =
        choirMprintf(pErr, ": %.*s", (int)(nShow < 300 ? nShow : 300), z);
    sqlite3_free(z);
    return zShow;
  }
  sqlite3_free(z);
  return choirMprintf(pErr, "%s", "");
}

static const struct {
  int iStatus;
  const char *zWhat, *zRemedy;
} aWireStatus[] = {
    {400, "the server refuses the request", ""},
    {401, "the server wants a key",
     "; set QDRANT_API_KEY beside QDRANT_URL, or run choir_secret() with type"
     " qdrant and a scope that covers the URL"},
    {403, "the server does not accept the key", "; check its rights"},
    {404, "not there", "; qdrant_init() makes a collection"},
    {408, "the server gave up", "; try again later"},
    {409, "a conflict with what is there", ""},
    {413, "the request is too large for the server", ""},
    {422, "the server finds the request invalid", ""},
    {429, "the server limits the rate of requests", "; try again later"},
    {500, "the server failed", ""},
    {502, "the gateway failed", "; try again later"},
    {503, "the server is not ready", "; try again later"},
    {504, "the gateway gave up", "; try again later"},
    {507, "the server has no room left", ""},
};

static void wireRefused(Qdrant *p, ChoirErr *pErr, QdrantReply *pReply,
                        const char *zKey) {
  int i, iStatus = pReply->http.iStatus;
  int rc = iStatus == 401 || iStatus == 403 ? SQLITE_AUTH : SQLITE_ERROR;
  char *zSaid = wireSaid(pErr, pReply, zKey);
  const char *zWhat =
      iStatus / 100 == 3 ? "redirects are not followed" : "an unexpected reply";
  const char *zRemedy = "";
  for (i = 0; i < (int)(sizeof(aWireStatus) / sizeof(aWireStatus[0])); i++) {
    if (aWireStatus[i].iStatus == iStatus) {
      zWhat = aWireStatus[i].zWhat;
      zRemedy = aWireStatus[i].zRemedy;
    }
  }
  if (zSaid) {
    choirErrSet(pErr, rc, "%s (status %d from %s)%s%s", zWhat, iStatus, p->zUrl,
                zSaid, zRemedy);
  }
  sqlite3_free(zSaid);
}

/* ---------------------------------------------------------------- requests */

/* Is the reply JSON and UTF-8, and where is its result? */
static void wireRead(Qdrant *p, ChoirErr *pErr, QdrantReply *pReply) {
  const ChoirBuf *b = &pReply->http.body;
  QdrantSpan all = {b->a, (i64)b->n};
  int bOk;
  if (b->n == 0 || choirUtf8Valid(b->a, all.n) != all.n ||
      memchr(b->a, 0, b->n)) {
    choirErrSet(pErr, SQLITE_ERROR, "%s did not answer with JSON", p->zUrl);
    return;
  }
  bOk = choirJsonValid(p->pConn, pErr, b->a, all.n);
  while (all.n && strchr(" \t\r\n", all.z[0])) {
    all.z++;
    all.n--;
  }
  while (all.n && strchr(" \t\r\n", all.z[all.n - 1])) {
    all.n--;
  }
  if (!bOk || all.n == 0 || all.z[0] != '{') {
    choirErrSet(pErr, SQLITE_ERROR, "%s did not answer with JSON", p->zUrl);
    return;
  }
  pReply->result = choirQdrantGet(all, "result");
  if (pReply->result.z == NULL) {
    pReply->result = all; /* of the root */
  }
}

/* Why there is no reply; where no server was named, that one can be. */
static void wireFailed(const Qdrant *p, ChoirErr *pErr, ChoirErr *pWhy) {
  int bUnset = strcmp(p->zUrl, WIRE_SERVER) == 0 && pWhy->zMsg &&
               strstr(pWhy->zMsg, "failed to connect");
  if (pWhy->rc != SQLITE_OK && pWhy->zMsg == NULL) {
    choirErrNomem(pErr);
  } else if (pWhy->rc != SQLITE_OK) {
    choirErrSet(pErr, pWhy->rc, "%s%s", pWhy->zMsg,
                bUnset ? "; QDRANT_URL or choir_config('qdrant.url', …) names"
                         " another server"
                       : "");
  }
  choirErrClear(pWhy);
}

static char *wireTarget(Qdrant *p, ChoirErr *pErr, const char *zTail) {
  ChoirBuf b;
  choirBufInit(&b, pErr, 1 << 16);
  choirBufText(&b, p->zUrl ? p->zUrl : "");
  if (zTail[0] != '/') {
    choirBufText(&b, "/collections/");
    choirUrlEncode(&b, p->zCollection ? p->zCollection : "",
                   (i64)strlen(p->zCollection ? p->zCollection : ""), 0);
    choirBufText(&b, zTail[0] && zTail[0] != '?' ? "/" : "");
  }
  choirBufText(&b, zTail);
  return choirBufTake(&b);
}

CHOIR_PRIVATE void choirQdrantAhead(Qdrant *p, ChoirErr *pErr,
                                    QdrantReply *pReply, const char *zMethod,
                                    const char *zTail, const ChoirBuf *pBody,
                                    int bRetry) {
  char *zTarget = wireTarget(p, pErr, zTail);
  const char *zKey = wireKey(p, pErr);
  memset(pReply, 0, sizeof(*pReply));
  if (pErr->rc == SQLITE_OK) {
    ChoirHttp *pHttp = &pReply->http;
    choirHttpInit(pHttp, p->pConn, zMethod, zTarget);
    pHttp->mFlags =
        CHOIR_HTTP_WHOLE | (bRetry ? CHOIR_HTTP_RETRY : CHOIR_HTTP_ONCE);
    if (pBody) {
      pHttp->pBody = pBody->a;
      pHttp->nBody = (i64)pBody->n;
      choirHttpHeader(pHttp, "Content-Type", "application/json");
    }
    choirHttpHeader(pHttp, "Accept", "application/json");
    if (zKey) {
      choirHttpHeader(pHttp, "api-key", zKey);
    }
    choirHttpAhead(pHttp);
  }
  sqlite3_free(zTarget);
}

CHOIR_PRIVATE void choirQdrantReceive(Qdrant *p, ChoirErr *pErr,
                                      QdrantReply *pReply) {
  ChoirErr why = {0, NULL};
  if (pErr->rc == SQLITE_OK) {
    choirHttpRun(&pReply->http, &why);
    wireFailed(p, pErr, &why);
  }
  if (pErr->rc == SQLITE_OK && pReply->http.iStatus / 100 != 2) {
    wireRefused(p, pErr, pReply, wireKey(p, pErr));
  } else if (pErr->rc == SQLITE_OK) {
    wireRead(p, pErr, pReply);
  }
}

CHOIR_PRIVATE void choirQdrantSend(Qdrant *p, ChoirErr *pErr,
                                   QdrantReply *pReply, const char *zMethod,
                                   const char *zTail, const ChoirBuf *pBody,
                                   int bRetry) {
  choirQdrantAhead(p, pErr, pReply, zMethod, zTail, pBody, bRetry);
  choirQdrantReceive(p, pErr, pReply);
}

/* What was accepted and not yet done cannot be read back: not a success. */
CHOIR_PRIVATE void choirQdrantDone(Qdrant *p, ChoirErr *pErr,
                                   const QdrantReply *pReply) {
  QdrantSpan status = choirQdrantGet(pReply->result, "status");
  if (pErr->rc == SQLITE_OK && !choirQdrantIs(status, "completed")) {
    if (status.z == NULL) {
      status.z = "no status";
      status.n = 9;
    }
    choirErrSet(pErr, SQLITE_ERROR,
                "%s took the change and does not confirm it (%.*s); run it"
                " again",
                p->zUrl, (int)(status.n < 40 ? status.n : 40), status.z);
  }
}

CHOIR_PRIVATE void choirQdrantReplyFree(QdrantReply *p) {
  if (p->http.pConn) {
    choirHttpFree(&p->http);
  }
  memset(p, 0, sizeof(*p));
}

/* ------------------------------------------------------------------- facts */

CHOIR_PRIVATE int choirQdrantVersion(Qdrant *p, ChoirErr *pErr) {
  QdrantState *pState = choirState(p->pConn, pErr, &qdrantState);
  QdrantReply reply;
  char *z, *zEnd = NULL;
  i64 n;
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  if (pState->zOf && strcmp(pState->zOf, p->zUrl) == 0) {
    return pState->iVersion;
  }
  choirQdrantSend(p, pErr, &reply, "GET", "/", NULL, 1);
  z = choirQdrantText(pErr, choirQdrantGet(reply.result, "version"), &n);
  if (pErr->rc == SQLITE_OK && z == NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "%s does not say which Qdrant it is",
                p->zUrl);
  } else if (pErr->rc == SQLITE_OK) {
    long iMajor = z ? strtol(z, &zEnd, 10) : 0;
    long iMinor = zEnd && *zEnd == '.' ? strtol(zEnd + 1, NULL, 10) : 0;
    sqlite3_free(pState->zOf);
    pState->zOf = choirMprintf(pErr, "%s", p->zUrl);
    pState->iVersion =
        iMajor > 0 && iMajor < 1000 && iMinor >= 0 && iMinor < 1000
            ? (int)(iMajor * 1000 + iMinor)
            : 0;
  }
  sqlite3_free(z);
  choirQdrantReplyFree(&reply);
  return pErr->rc == SQLITE_OK ? pState->iVersion : 0;
}

/* Takes the collection's description apart. */
static void wireFacts(const Qdrant *p, ChoirErr *pErr, QdrantSpan result,
                      QdrantInfo *pInfo) {
  QdrantSpan config = choirQdrantGet(result, "config");
  QdrantSpan all = choirQdrantGet(choirQdrantGet(config, "params"), "vectors");
  QdrantSpan vectors = p->zVector ? choirQdrantGet(all, p->zVector) : all;
  QdrantSpan distance = choirQdrantGet(vectors, "distance");
  QdrantSpan metadata = choirQdrantGet(config, "metadata");
  i64 n;
  memset(pInfo, 0, sizeof(*pInfo));
  if (choirQdrantInt(choirQdrantGet(vectors, "size"), &n) && n > 0 &&
      n <= 65536) {
    pInfo->nDim = (int)n;
  }
  pInfo->bSmaller =
      choirQdrantIs(distance, "Euclid") || choirQdrantIs(distance, "Manhattan");
  pInfo->zModel =
      choirQdrantText(pErr, choirQdrantGet(metadata, "choir_model"), &n);
}

CHOIR_PRIVATE const QdrantInfo *choirQdrantInfo(Qdrant *p, ChoirErr *pErr) {
  QdrantState *pState = choirState(p->pConn, pErr, &qdrantState);
  char *zOf = choirMprintf(pErr, "%s %s/%s", p->zUrl, p->zCollection,
                           p->zVector ? p->zVector : "");
  QdrantSpan config;
  QdrantReply reply;
  if (pErr->rc == SQLITE_OK &&
      (pState->zInfoOf == NULL || strcmp(pState->zInfoOf, zOf) != 0)) {
    choirQdrantSend(p, pErr, &reply, "GET", "", NULL, 1);
    config = choirQdrantGet(reply.result, "config");
    if (pErr->rc == SQLITE_OK && choirQdrantGet(config, "params").z == NULL) {
      choirErrSet(pErr, SQLITE_ERROR, "%s does not describe collection '%s'",
                  p->zUrl, p->zCollection);
    } else if (pErr->rc == SQLITE_OK) {
      wireForget(pState);
      wireFacts(p, pErr, reply.result, &pState->info);
      pState->zInfoOf = choirMprintf(pErr, "%s", zOf);
    }
    choirQdrantReplyFree(&reply);
  }
  sqlite3_free(zOf);
  return pErr->rc == SQLITE_OK ? &pState->info : NULL;
}

CHOIR_PRIVATE const ChoirEmbedModel *choirQdrantModel(Qdrant *p,
                                                      ChoirErr *pErr) {
  const ChoirEmbedModel *pModel = choirEmbedModel(p->pConn, pErr);
  const QdrantInfo *pInfo = choirQdrantInfo(p, pErr);
  if (pErr->rc != SQLITE_OK) {
    return NULL;
  }
  if (pInfo->zModel && strcmp(pInfo->zModel, pModel->zName) != 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "collection '%s' has vectors of %s and embed.provider is %s;"
                " vectors of two models cannot be compared",
                p->zCollection, pInfo->zModel, pModel->zName);
  } else if (pInfo->nDim && pInfo->nDim != pModel->nDim) {
    choirErrSet(pErr, SQLITE_ERROR,
                "collection '%s' takes vectors of %d dimensions and %s makes"
                " %d",
                p->zCollection, pInfo->nDim, pModel->zName, pModel->nDim);
  }
  return pErr->rc == SQLITE_OK ? pModel : NULL;
}
