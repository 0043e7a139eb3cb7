/* SPDX-License-Identifier: MIT */
/*
** Models behind a service: openai (and what speaks its API: llama.cpp, vLLM,
** LocalAI), ollama, tei (Hugging Face text-embeddings-inference). What tells
** them apart is one table, aRemoteDriver.
**
**   openai  POST /embeddings  {model, input:[…]}   -> data[{index, embedding}]
**   ollama  POST /api/embed   {model, input:[…]}   -> embeddings[[…]]
**   tei     POST /embed       {inputs:[…]}         -> [[…]]
**
** Texts go in batches. A batch that is too large (413) is halved; 429 and 503
** wait as Retry-After says (ext/http). What comes back is checked: as many
** vectors as texts, each of the model's length and finite. They are brought to
** length 1 here, whatever the service did, and kept (embed_cache.c). A text of
** white space alone is the zero vector and is not sent.
**
** A model is called provider/name; its vectors' length is embed.dimensions, or
** what the cache remembers, or what the first batch of texts comes back with
** (that of one word, where the length is wanted before there is a text).
*/
#include "embed.h"
#ifndef CHOIR_OMIT_NET
#include "../http/http.h"
#include <math.h>
#include <stdlib.h>

#define REMOTE_BATCH_MAX 256
#define REMOTE_BYTES_MAX ((i64)512 << 10) /* of texts in one request */
#define REMOTE_STALL_MS 300000            /* a model may think for long */
#define REMOTE_DIM_MAX 65536

typedef struct RemoteDriver {
  const char *zName;
  const char *zPath;
  const char *zUrl;    /* default */
  const char *zUrlEnv; /* the variable its own clients read, or NULL */
  const char *zModel;  /* default, or NULL */
  const char *zTexts;  /* the field that takes the texts */
  const char *zRows;   /* SQL: ?1 the reply -> index, vector as a JSON array */
  int nBatch;
  u8 bModel;    /* the request names the model */
  u8 bTruncate; /* the request says whether to cut long texts */
} RemoteDriver;

static const RemoteDriver aRemoteDriver[] = {
    {"openai", "/embeddings", "https://api.openai.com/v1", "OPENAI_BASE_URL",
     "text-embedding-3-small", "input",
     "SELECT json_extract(value, '$.index'), json_extract(value, '$.embedding')"
     " FROM json_each(?1, '$.data')",
     REMOTE_BATCH_MAX, 1, 0},
    {"ollama", "/api/embed", "http://127.0.0.1:11434", "OLLAMA_HOST",
     "all-minilm", "input",
     "SELECT key, value FROM json_each(?1, '$.embeddings')", REMOTE_BATCH_MAX,
     1, 1},
    {"tei", "/embed", "http://127.0.0.1:8080", NULL, NULL, "inputs",
     "SELECT key, value FROM json_each(?1)", 32, 0, 1},
};
#define REMOTE_N ((int)(sizeof(aRemoteDriver) / sizeof(aRemoteDriver[0])))

/* What a call still has to send: each text once. */
typedef struct RemoteWant {
  const char *azText[REMOTE_BATCH_MAX];
  i64 anText[REMOTE_BATCH_MAX];
  u8 aKey[REMOTE_BATCH_MAX][32];
  int aFor[REMOTE_BATCH_MAX]; /* text i of the call -> its place here, or -1 */
  int n;
  float *a; /* n vectors, once their length is known; owned */
} RemoteWant;

/* The configured service; the model's name and url point into it. */
typedef struct RemoteState {
  ChoirEmbedModel model;
  const RemoteDriver *pDriver;
  char *zName; /* provider/model */
  char *zUrl;
  RemoteWant *pLearnt; /* what the length was learnt from, or NULL; owned */
  u8 bOwnUrl;          /* the URL is the driver's, or from its own variable */
} RemoteState;

static void remoteWantFree(RemoteWant *p) {
  if (p) {
    sqlite3_free(p->a);
    sqlite3_free(p);
  }
}

static void remoteStateFree(void *pArg) {
  RemoteState *p = pArg;
  remoteWantFree(p->pLearnt);
  sqlite3_free(p->zName);
  sqlite3_free(p->zUrl);
}

static const ChoirStateType remoteStateType = {
    "embed remote", sizeof(RemoteState), remoteStateFree};

static const RemoteDriver *remoteFind(const char *zProvider) {
  int i;
  for (i = 0; i < REMOTE_N; i++) {
    if (strcmp(aRemoteDriver[i].zName, zProvider) == 0) {
      return &aRemoteDriver[i];
    }
  }
  return NULL;
}

CHOIR_PRIVATE const char *choirRemoteName(int i) {
  return i < REMOTE_N ? aRemoteDriver[i].zName : NULL;
}

CHOIR_PRIVATE char *choirRemoteModelName(ChoirConn *pConn, ChoirErr *pErr,
                                         const char *zProvider) {
  const RemoteDriver *p = remoteFind(zProvider);
  const char *zModel = choirConfig(pConn, "embed.model");
  const char *zDim = choirConfig(pConn, "embed.dimensions");
  zModel = zModel ? zModel : p->zModel;
  if (zModel == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "embed.model is not set and %s does not say which one it"
                " serves; run select choir_config('embed.model', '...')",
                zProvider);
    return NULL;
  }
  return choirMprintf(pErr, "%s/%s%s%s", zProvider, zModel, zDim ? ":" : "",
                      zDim ? zDim : "");
}

/* ----------------------------------------------------------------- request */

/* OLLAMA_HOST may be host:port alone; a '/' at the end is dropped. */
static void remoteUrl(RemoteState *p, ChoirConn *pConn, ChoirErr *pErr) {
  const char *zSet = choirConfig(pConn, "embed.url");
  const char *zEnv = p->pDriver->zUrlEnv ? getenv(p->pDriver->zUrlEnv) : NULL;
  const char *z = zSet ? zSet : zEnv && zEnv[0] ? zEnv : p->pDriver->zUrl;
  int n = (int)strlen(z);
  while (n > 0 && z[n - 1] == '/') {
    n--;
  }
  p->bOwnUrl = zSet == NULL;
  p->zUrl = choirMprintf(pErr, "%s%.*s%s", strstr(z, "://") ? "" : "http://", n,
                         z, p->pDriver->zPath);
}

/* A key goes to the service it belongs to, or where a secret's scope sends it,
** and never in the clear to another machine. */
static void remoteKey(const RemoteState *p, ChoirHttp *pHttp) {
  const char *zKey = getenv("OPENAI_API_KEY");
  const char *zName, *zValue;
  ChoirHttpUrl url;
  int i, bHas = 0;
  choirHttpSecret(pHttp);
  for (i = 0; choirHttpHeaderNth(pHttp, i, &zName, &zValue); i++) {
    bHas |= sqlite3_stricmp(zName, "Authorization") == 0;
  }
  if (bHas || !p->bOwnUrl || p->pDriver != &aRemoteDriver[0] || zKey == NULL ||
      zKey[0] == 0) {
    return;
  }
  choirHttpUrl(&pHttp->err, p->zUrl, &url);
  if (pHttp->err.rc == SQLITE_OK && (url.bTls || choirHttpLoopback(&url))) {
    char *z = choirMprintf(&pHttp->err, "Bearer %s", zKey);
    if (z) {
      choirHttpHeader(pHttp, "Authorization", z);
      choirWipeFree(z);
    }
  } else {
    choirErrSet(&pHttp->err, SQLITE_AUTH,
                "OPENAI_API_KEY is not sent to %.*s without TLS; use https",
                url.nHost, url.zHost);
  }
}

static const char *remotePrefix(ChoirConn *pConn, int eRole) {
  const char *z =
      choirConfig(pConn, eRole == CHOIR_EMBED_QUERY ? "embed.query_prefix"
                                                    : "embed.document_prefix");
  return z ? z : "";
}

static void remoteBody(const RemoteState *p, ChoirConn *pConn, ChoirBuf *pBuf,
                       const char *const *azText, const i64 *anText, int n,
                       int eRole) {
  const RemoteDriver *d = p->pDriver;
  const char *zPrefix = remotePrefix(pConn, eRole);
  const char *zModel = choirConfig(pConn, "embed.model");
  const char *zDim = choirConfig(pConn, "embed.dimensions");
  int bCut = choirConfigInt(pConn, "embed.truncate", 0) != 0, i;
  choirBufText(pBuf, "{");
  if (d->bModel) {
    choirBufText(pBuf, "\"model\":");
    choirBufJson(pBuf, zModel ? zModel : d->zModel, -1);
    choirBufText(pBuf, ",");
  }
  if (zDim) {
    choirBufPrintf(pBuf, "\"dimensions\":%d,", p->model.nDim);
  }
  if (d->bTruncate) {
    choirBufPrintf(pBuf, "\"truncate\":%s,", bCut ? "true" : "false");
  }
  choirBufPrintf(pBuf, "\"%s\":[", d->zTexts);
  for (i = 0; i < n; i++) {
    choirBufText(pBuf, i ? "," : "");
    if (zPrefix[0]) {
      char *z = choirMprintf(pBuf->pErr, "%s%.*s", zPrefix, (int)anText[i],
                             azText[i]);
      choirBufJson(pBuf, z ? z : "", -1);
      sqlite3_free(z);
    } else {
      choirBufJson(pBuf, azText[i], anText[i]);
    }
  }
  choirBufText(pBuf, "]}");
}

/* ------------------------------------------------------------------- reply */

/* The numbers of one vector, nDim of them; a model whose length is not known
** yet gets it here. */
static void remoteVector(RemoteState *p, ChoirErr *pErr, sqlite3_stmt *pNumber,
                         const char *zArray, float *aOut) {
  int n = 0;
  choirBindText(pErr, pNumber, 1, zArray, -1);
  while (choirStep(pErr, pNumber)) {
    int eType = sqlite3_column_type(pNumber, 0);
    float r = (float)sqlite3_column_double(pNumber, 0);
    if (eType != SQLITE_FLOAT && eType != SQLITE_INTEGER) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s gave a vector with a value that is not a number",
                  p->zName);
    } else if (!isfinite(r)) { /* before it is kept */
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s gave a vector with NaN or an infinity", p->zName);
    }
    if (aOut && n < p->model.nDim) {
      aOut[n] = r;
    }
    n++;
  }
  sqlite3_reset(pNumber);
  if (p->model.nDim == 0 && n > 0 && n <= REMOTE_DIM_MAX) {
    p->model.nDim = n;
  } else if (n != p->model.nDim) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s gave a vector of %d numbers, %d were expected; set"
                " embed.dimensions or empty the cache of embed.cache",
                p->zName, n, p->model.nDim);
  }
}

static void remoteReply(RemoteState *p, ChoirConn *pConn, ChoirErr *pErr,
                        const ChoirBuf *pBody, int n, float *aOut) {
  sqlite3_stmt *pRow, *pNumber;
  u8 aSeen[REMOTE_BATCH_MAX] = {0};
  int nRow = 0;
  if (pErr->rc == SQLITE_OK &&
      choirUtf8Valid(pBody->a ? pBody->a : "", (i64)pBody->n) < (i64)pBody->n) {
    choirErrSet(pErr, SQLITE_ERROR, "%s gave a reply that is not UTF-8",
                p->zName);
  }
  pRow = choirJsonStmt(pConn, pErr, p->pDriver->zRows, pBody->a, (i64)pBody->n);
  pNumber =
      choirJsonStmt(pConn, pErr, "SELECT value FROM json_each(?1)", NULL, 0);
  while (choirStep(pErr, pRow)) {
    i64 i = sqlite3_column_int64(pRow, 0);
    const char *z = (const char *)sqlite3_column_text(pRow, 1);
    if (i < 0 || i >= n || aSeen[i] || z == NULL || z[0] != '[') {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s gave no vector where number %d of %d was expected",
                  p->zName, nRow + 1, n);
      break;
    }
    aSeen[i] = 1;
    nRow++;
    remoteVector(p, pErr, pNumber, z, aOut ? aOut + i * p->model.nDim : NULL);
  }
  sqlite3_finalize(pRow);
  sqlite3_finalize(pNumber);
  if (pErr->rc == SQLITE_ERROR && pErr->zMsg &&
      strncmp(pErr->zMsg, "malformed JSON", 14) == 0) {
    choirErrClear(pErr);
    choirErrSet(pErr, SQLITE_ERROR, "%s gave a reply that is not JSON",
                p->zName);
  } else if (nRow < n) {
    choirErrSet(pErr, SQLITE_ERROR, "%s gave %d vectors for %d texts", p->zName,
                nRow, n);
  }
}

/* What the service says is wrong, without the key it may quote. */
static char *remoteComplaint(ChoirConn *pConn, const ChoirHttp *pHttp) {
  ChoirErr err = {SQLITE_OK, NULL};
  const char *zName, *zValue;
  char *z = NULL;
  int i;
  sqlite3_stmt *p = choirJsonReply(
      pConn, &err,
      "SELECT coalesce(json_extract(?1, '$.error.message'),"
      " json_extract(?1, '$.error'), json_extract(?1, '$.message'))",
      pHttp->body.a, (i64)pHttp->body.n);
  if (choirStep(&err, p) && sqlite3_column_type(p, 0) == SQLITE_TEXT) {
    z = choirMprintf(&err, "%.300s", (const char *)sqlite3_column_text(p, 0));
  }
  sqlite3_finalize(p);
  for (i = 0; z && choirHttpHeaderNth(pHttp, i, &zName, &zValue); i++) {
    const char *zKey = strchr(zValue, ' ');
    if (!choirHttpPublicHeader(zName) && strstr(z, zKey ? zKey + 1 : zValue)) {
      sqlite3_free(z);
      z = NULL;
    }
  }
  choirErrClear(&err);
  return z;
}

static void remoteRefused(const RemoteState *p, ChoirConn *pConn,
                          ChoirErr *pErr, const ChoirHttp *pHttp, i64 nText) {
  char *z = remoteComplaint(pConn, pHttp);
  char *zUrl = choirHttpUrlShow(pErr, p->zUrl);
  const char *zRemedy = "";
  switch (pHttp->iStatus) {
  case 401:
  case 403:
    zRemedy = p->pDriver == &aRemoteDriver[0]
                  ? "; set OPENAI_API_KEY, or a choir_secret of type http"
                  : "; give a choir_secret of type http for that URL";
    break;
  case 404:
    zRemedy = "; check embed.url and embed.model";
    break;
  case 400:
  case 413:
  case 422:
    zRemedy = !p->pDriver->bTruncate
                  ? "; a text may be too long for the model: cut it with"
                    " embed_chunks()"
                  : "; a text may be too long for the model: cut it with"
                    " embed_chunks(), or set embed.truncate to 1";
    break;
  default:
    break;
  }
  choirErrSet(pErr, SQLITE_ERROR,
              "%s at %s answered %d%s%s for texts of %lld"
              " bytes%s",
              p->zName, zUrl, pHttp->iStatus, z ? ": " : "", z ? z : "", nText,
              zRemedy);
  sqlite3_free(z);
  sqlite3_free(zUrl);
}

/* The vectors of texts [iFrom, iFrom+n): one request, unless that is too large
** and goes in halves. Their length is learnt here if need be. */
static void remoteSend(RemoteState *p, ChoirConn *pConn, ChoirErr *pErr,
                       RemoteWant *pWant, int iFrom, int n, int eRole) {
  const char *const *azText = pWant->azText + iFrom;
  const i64 *anText = pWant->anText + iFrom;
  ChoirHttp http;
  ChoirBuf body;
  i64 nText = 0;
  int i, bHalve = 0;
  choirBufInit(&body, pErr, CHOIR_BUF_JSON);
  remoteBody(p, pConn, &body, azText, anText, n, eRole);
  choirHttpInit(&http, pConn, "POST", p->zUrl);
  http.mFlags |= CHOIR_HTTP_RETRY | CHOIR_HTTP_GZIP;
  http.nStallMs =
      http.nStallMs < REMOTE_STALL_MS ? REMOTE_STALL_MS : http.nStallMs;
  http.pBody = body.a;
  http.nBody = (i64)body.n;
  choirHttpHeader(&http, "Content-Type", "application/json");
  choirHttpHeader(&http, "Accept", "application/json");
  remoteKey(p, &http);
  if (pErr->rc == SQLITE_OK) {
    choirHttpRun(&http, pErr);
  }
  for (i = 0; i < n; i++) {
    nText += anText[i];
  }
  if (pErr->rc == SQLITE_OK) {
    bHalve = http.iStatus == 413 && n > 1;
    if (http.iStatus != 200 && !bHalve) {
      remoteRefused(p, pConn, pErr, &http, nText);
    } else if (!bHalve && pWant->a == NULL) { /* how long are they? */
      remoteReply(p, pConn, pErr, &http.body, n, NULL);
      pWant->a =
          choirMalloc(pErr, (u64)pWant->n * (u64)p->model.nDim * sizeof(float));
    }
    if (!bHalve && pWant->a) {
      remoteReply(p, pConn, pErr, &http.body, n,
                  pWant->a + (i64)iFrom * p->model.nDim);
    }
  }
  choirHttpFree(&http);
  choirBufFree(&body);
  if (bHalve) {
    remoteSend(p, pConn, pErr, pWant, iFrom, n / 2, eRole);
    remoteSend(p, pConn, pErr, pWant, iFrom + n / 2, n - n / 2, eRole);
  }
}

/* ------------------------------------------------------------------- batch */

static void remoteCacheKey(const RemoteState *p, const char *zPrefix,
                           const char *z, i64 n, u8 aKey[32]) {
  ChoirSha256 sha;
  choirSha256Init(&sha);
  choirSha256Update(&sha, p->zName, strlen(p->zName) + 1);
  choirSha256Update(&sha, zPrefix, strlen(zPrefix) + 1);
  choirSha256Update(&sha, z, (u64)n);
  choirSha256Final(&sha, aKey);
}

static void remoteUnit(float *a, int n) {
  double r = 0.0;
  int i;
  for (i = 0; i < n; i++) {
    r += (double)a[i] * (double)a[i];
  }
  for (i = 0; i < n && r > 0.0; i++) {
    a[i] = (float)((double)a[i] / sqrt(r));
  }
}

/* Is it one of the texts that the length was learnt from? */
static int remoteLearnt(const RemoteState *p, const u8 aKey[32], float *aOut) {
  const RemoteWant *pHave = p->pLearnt;
  int i, nDim = p->model.nDim;
  for (i = 0; pHave && i < pHave->n; i++) {
    if (memcmp(pHave->aKey[i], aKey, 32) == 0) {
      memcpy(aOut, pHave->a + (i64)i * nDim, (size_t)nDim * sizeof(float));
      return 1;
    }
  }
  return 0;
}

static void remoteCollect(const RemoteState *p, ChoirConn *pConn,
                          RemoteWant *pWant, const char *const *azText,
                          const i64 *anText, int n, int eRole, float *aOut) {
  const char *zPrefix = remotePrefix(pConn, eRole);
  int i, j, nDim = p->model.nDim;
  for (i = 0; i < n; i++) {
    u8 *aKey = pWant->aKey[pWant->n];
    pWant->aFor[i] = -1;
    memset(aOut + (i64)i * nDim, 0, (u64)nDim * sizeof(float));
    for (j = 0; j < anText[i] && (u8)azText[i][j] <= ' '; j++) {
    }
    if (j == anText[i]) {
      continue;
    }
    remoteCacheKey(p, zPrefix, azText[i], anText[i], aKey);
    for (j = 0; j < pWant->n && memcmp(pWant->aKey[j], aKey, 32) != 0; j++) {
    }
    if (j == pWant->n) {
      if (remoteLearnt(p, aKey, aOut + (i64)i * nDim) ||
          choirEmbedCacheGet(pConn, aKey, nDim, aOut + (i64)i * nDim)) {
        continue;
      }
      pWant->azText[j] = azText[i];
      pWant->anText[j] = anText[i];
      pWant->n++;
    }
    pWant->aFor[i] = j;
  }
}

/* Sends what is wanted and keeps it. */
static void remoteFetch(RemoteState *p, ChoirConn *pConn, ChoirErr *pErr,
                        RemoteWant *pWant, int eRole) {
  int i, iFrom;
  for (iFrom = 0; iFrom < pWant->n && pErr->rc == SQLITE_OK; iFrom = i) {
    i64 nByte = 0;
    for (i = iFrom; i < pWant->n && (i == iFrom || nByte + pWant->anText[i] <=
                                                       REMOTE_BYTES_MAX);
         i++) {
      nByte += pWant->anText[i];
    }
    remoteSend(p, pConn, pErr, pWant, iFrom, i - iFrom, eRole);
  }
  for (i = 0; i < pWant->n && pErr->rc == SQLITE_OK; i++) {
    remoteUnit(pWant->a + (i64)i * p->model.nDim, p->model.nDim);
  }
  if (pErr->rc == SQLITE_OK && pWant->n > 0) {
    choirEmbedCachePut(pConn, pWant->n, (const u8(*)[32])pWant->aKey,
                       p->model.nDim, pWant->a);
  }
}

static void remoteBatch(ChoirConn *pConn, ChoirErr *pErr,
                        const char *const *azText, const i64 *anText, int n,
                        int eRole, float *aOut) {
  RemoteState *p = choirState(pConn, pErr, &remoteStateType);
  RemoteWant *pWant = choirMalloc(pErr, sizeof(*pWant));
  int i, nDim = p ? p->model.nDim : 0;
  if (pWant == NULL) {
    return;
  }
  remoteCollect(p, pConn, pWant, azText, anText, n, eRole, aOut);
  pWant->a = choirMalloc(pErr, (u64)pWant->n * (u64)nDim * sizeof(float));
  remoteFetch(p, pConn, pErr, pWant, eRole);
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
    if (pWant->aFor[i] >= 0) {
      memcpy(aOut + (i64)i * nDim, pWant->a + (i64)pWant->aFor[i] * nDim,
             (u64)nDim * sizeof(float));
    }
  }
  remoteWantFree(pWant);
  remoteWantFree(p->pLearnt);
  p->pLearnt = NULL;
}

/* Learns the vectors' length from the first batch of the texts that are to be
** embedded, or from a word when there is none. */
static void remoteLearn(RemoteState *p, ChoirConn *pConn, ChoirErr *pErr,
                        const char *const *azText, const i64 *anText, int n,
                        int eRole) {
  static const char *const azWord[] = {"choir"};
  static const i64 anWord[] = {5};
  RemoteWant *pWant = choirMalloc(pErr, sizeof(*pWant));
  float rNone;
  if (pWant) {
    n = n < p->model.nBatch ? n : p->model.nBatch;
    remoteCollect(p, pConn, pWant, azText, anText, n, eRole, &rNone);
    if (pWant->n == 0) {
      remoteCollect(p, pConn, pWant, azWord, anWord, 1, eRole, &rNone);
    }
    remoteFetch(p, pConn, pErr, pWant, eRole);
  }
  if (pErr->rc == SQLITE_OK) {
    choirEmbedCacheDimPut(pConn, p->zName, p->model.nDim);
    p->pLearnt = pWant;
    pWant = NULL;
  } else {
    p->model.nDim = 0;
  }
  remoteWantFree(pWant);
}

/* The vectors' length as configured or remembered, 0: not known. */
static void remoteDim(RemoteState *p, ChoirConn *pConn, ChoirErr *pErr) {
  p->model.nDim = (int)choirConfigInt(pConn, "embed.dimensions", 0);
  if (choirConfig(pConn, "embed.dimensions") &&
      (p->model.nDim < 1 || p->model.nDim > REMOTE_DIM_MAX)) {
    choirErrSet(pErr, SQLITE_ERROR, "embed.dimensions must be 1 to %d, got %s",
                REMOTE_DIM_MAX, choirConfig(pConn, "embed.dimensions"));
  }
  if (p->model.nDim == 0 && pErr->rc == SQLITE_OK) {
    p->model.nDim = choirEmbedCacheDim(pConn, p->zName);
  }
}

CHOIR_PRIVATE const ChoirEmbedModel *
choirRemoteModel(ChoirConn *pConn, ChoirErr *pErr, const char *zProvider,
                 const char *const *azText, const i64 *anText, int n,
                 int eRole) {
  RemoteState *p = choirState(pConn, pErr, &remoteStateType);
  char *zName = choirRemoteModelName(pConn, pErr, zProvider);
  char *zOld;
  if (p == NULL || zName == NULL) {
    sqlite3_free(zName);
    return NULL;
  }
  zOld = p->zName;
  p->zName = zName;
  p->pDriver = remoteFind(zProvider);
  sqlite3_free(p->zUrl);
  p->zUrl = NULL;
  remoteUrl(p, pConn, pErr);
  p->model.zName = p->zName;
  p->model.nBatch = p->pDriver->nBatch;
  p->model.rMaybe = -1.0; /* each model has similarities of its own */
  p->model.rSure = -1.0;
  p->model.xBatch = remoteBatch;
  if (p->model.nDim == 0 || zOld == NULL || strcmp(zOld, zName) != 0) {
    p->model.nDim = 0;
    remoteWantFree(p->pLearnt);
    p->pLearnt = NULL;
    remoteDim(p, pConn, pErr);
  }
  if (p->model.nDim == 0 && pErr->rc == SQLITE_OK) {
    remoteLearn(p, pConn, pErr, azText, anText, n, eRole);
  }
  sqlite3_free(zOld);
  return pErr->rc == SQLITE_OK ? &p->model : NULL;
}

#endif /* CHOIR_OMIT_NET */
