/* SPDX-License-Identifier: MIT */
/*
** A query or a scroll, page by page: as many as the host reads rows of.
**
** While the second page of a scroll and those that follow are read, the server
** is already at work on the next one, unless the host has said how many rows it
** wants. What comes of that is only ever a page sooner: if it has failed by then,
** the page is asked for again in its time.
**
** What the host says it wants (LIMIT) sizes the first page and nothing else;
** k bounds the rows. A query without k that is read beyond QDRANT_K_MAX hits
** is an error, not a short answer. Pages of an approximate search may overlap,
** so the ids that were given are remembered.
**
** A scroll that goes by a member has no cursor at the server: the next page
** starts from the last value and leaves out the ids that were given with it.
**
** Every point is looked at for whose it is before anything of it is shown.
*/
#include "qdrant.h"
#include <math.h>

#define SCAN_LIST 100 /* of each list that is fused, at least */
#define SCAN_WAITED_MS 5000
#define SCAN_TIES 10000 /* points with one value, in a scroll by it */

CHOIR_PRIVATE void choirQdrantScanInit(QdrantScan *p, ChoirErr *pErr) {
  memset(p, 0, sizeof(*p));
  choirBufInit(&p->filter, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->payload, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->orderAt, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->tied, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->ahead, pErr, QDRANT_REQUEST);
  p->rMmr = -1.0;
}

CHOIR_PRIVATE void choirQdrantScanFree(QdrantScan *p) {
  choirQdrantReplyFree(&p->aReply[0]);
  choirQdrantReplyFree(&p->aReply[1]);
  choirQdrantClose(&p->to);
  choirBufFree(&p->ahead);
  choirBufFree(&p->filter);
  choirBufFree(&p->payload);
  choirBufFree(&p->orderAt);
  choirBufFree(&p->tied);
  sqlite3_free(p->aQuery);
  sqlite3_free(p->zWords);
  sqlite3_free(p->zVectors);
  sqlite3_free(p->zOrder);
  sqlite3_free(p->aSeen);
  memset(p, 0, sizeof(*p));
}

/* ------------------------------------------------------------------ whose */

CHOIR_PRIVATE void choirQdrantOwn(const Qdrant *p, ChoirErr *pErr,
                                  QdrantSpan id, QdrantSpan payload,
                                  const char *zModel) {
  QdrantSpan inside = choirQdrantInside(payload), key, value;
  int bOwn = 0;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  while (choirQdrantNext(&inside, &key, &value)) {
    if (choirQdrantIs(key, "user_id")) {
      bOwn = choirQdrantIs(value, p->zUser);
    } else if (zModel && choirQdrantIs(key, "model") && value.z[0] == '"' &&
               !choirQdrantIs(value, zModel)) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "point %.*s has a vector of model %.*s and embed.provider is"
                  " %s; vectors of two models cannot be compared",
                  (int)(id.n < 40 ? id.n : 40), id.z ? id.z : "",
                  (int)(value.n < 60 ? value.n : 60), value.z, zModel);
      return;
    }
  }
  if (!bOwn) {
    choirErrSet(pErr, SQLITE_AUTH,
                "the server sent point %.*s, which is not of user '%s'; nothing"
                " of it is shown",
                (int)(id.n < 40 ? id.n : 40), id.z ? id.z : "", p->zUser);
  }
}

/* ------------------------------------------------------------------ query */

CHOIR_PRIVATE void choirQdrantScanQuery(QdrantScan *p, ChoirErr *pErr,
                                        sqlite3_value *v, const char *zArg) {
  int i, bZero = 1;
  p->bQuery = 1;
  if (pErr->rc == SQLITE_OK && sqlite3_value_type(v) == SQLITE_BLOB) {
    int n = sqlite3_value_bytes(v);
    if (n == 0 || n % 4) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s is a blob of %d bytes, which is no vector of 32-bit"
                  " floats",
                  zArg, n);
    }
    p->aQuery = choirMalloc(pErr, (u64)n);
    p->nQuery = n / 4;
    if (p->aQuery) {
      memcpy(p->aQuery, sqlite3_value_blob(v), (size_t)n);
      choirLittleEndian(p->aQuery, (u64)n, sizeof(float));
    }
    return;
  }
  if (pErr->rc == SQLITE_OK && sqlite3_value_type(v) != SQLITE_TEXT) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s must be text or a blob of 32-bit floats, got %s", zArg,
                choirTypeName(v));
  } else {
    const char *z = choirArgText(pErr, v, zArg);
    const ChoirEmbedModel *pModel = choirQdrantModel(&p->to, pErr);
    if (pModel) {
      i64 n = sqlite3_value_bytes(v);
      p->zModel = pModel->zName;
      p->nQuery = pModel->nDim;
      p->aQuery = choirMalloc(pErr, (u64)pModel->nDim * sizeof(float));
      choirEmbedBatch(p->to.pConn, pErr, pModel, &z, &n, p->aQuery ? 1 : 0,
                      CHOIR_EMBED_QUERY, p->aQuery);
    }
  }
  for (i = 0; pErr->rc == SQLITE_OK && i < p->nQuery; i++) {
    bZero &= p->aQuery[i] == 0.0f;
  }
  p->bEmpty |= (u8)bZero; /* a text without words is near to nothing */
}

/* A point's vector: by name where there are several, "" the one without. */
static QdrantSpan scanVector(QdrantSpan v, const char *zName) {
  return v.z && v.z[0] == '{' ? choirQdrantGet(v, zName ? zName : "") : v;
}

/* Adds the vectors of a page of points up; how many there were. */
static int scanSum(QdrantScan *p, ChoirErr *pErr, QdrantSpan points) {
  QdrantSpan inside = choirQdrantInside(points), point;
  int nPoint = 0, n, i;
  while (choirQdrantNext(&inside, NULL, &point) && pErr->rc == SQLITE_OK) {
    float *a;
    choirQdrantOwn(&p->to, pErr, choirQdrantGet(point, "id"),
                   choirQdrantGet(point, "payload"), NULL);
    a = choirQdrantFloats(
        pErr, scanVector(choirQdrantGet(point, "vector"), p->to.zVector), &n);
    if (a && p->aQuery == NULL) {
      p->aQuery = a;
      p->nQuery = n;
      nPoint = 1;
      continue;
    }
    for (i = 0; a && n == p->nQuery && i < n; i++) {
      p->aQuery[i] += a[i];
    }
    nPoint += a && n == p->nQuery;
    sqlite3_free(a);
  }
  return nPoint;
}

static void scanWithVector(const QdrantScan *p, ChoirBuf *b) {
  if (p->to.zVector) {
    choirBufText(b, "[");
    choirBufJson(b, p->to.zVector, -1);
    choirBufText(b, "]");
  } else {
    choirBufText(b, "true");
  }
}

CHOIR_PRIVATE void choirQdrantScanSimilar(QdrantScan *p, ChoirErr *pErr,
                                          sqlite3_value *v) {
  const char *z = choirArgText(pErr, v, "artifact");
  const char *zKey = z && z[0] == '/' ? "path" : "artifact_id";
  QdrantReply reply;
  ChoirBuf b;
  int n;
  double r = 0.0;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "{");
  choirQdrantFilterOpen(&p->to, &b, "filter");
  choirBufPrintf(&b, ",{\"key\":\"%s\",\"match\":{\"value\":", zKey);
  choirBufJson(&b, z ? z : "", -1);
  choirBufText(&b, "}}]},\"limit\":64,\"with_vector\":");
  scanWithVector(p, &b);
  choirBufText(&b, ",\"with_payload\":[\"user_id\"]}");
  choirQdrantSend(&p->to, pErr, &reply, "POST", "points/scroll", &b, 1);
  choirBufFree(&b);
  n = scanSum(p, pErr, choirQdrantGet(reply.result, "points"));
  choirQdrantReplyFree(&reply);
  if (pErr->rc == SQLITE_OK && n == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "collection '%s' has no points of artifact '%.100s' of user"
                " '%s'; qdrant_flush() sends what changed",
                p->to.zCollection, z, p->to.zUser);
  }
  for (n = 0; pErr->rc == SQLITE_OK && n < p->nQuery; n++) {
    r += (double)p->aQuery[n] * (double)p->aQuery[n];
  }
  for (n = 0; r > 0.0 && n < p->nQuery; n++) {
    p->aQuery[n] = (float)((double)p->aQuery[n] / sqrt(r));
  }
  choirBufPrintf(&p->filter,
                 ",{\"must_not\":[{\"key\":\"%s\",\"match\":{\"value\":", zKey);
  choirBufJson(&p->filter, z ? z : "", -1);
  choirBufText(&p->filter, "}}]}");
  p->bQuery = 1;
  p->bByArtifact = 1;
}

/* ----------------------------------------------------------------- fusion */

CHOIR_PRIVATE void choirQdrantScanFuse(QdrantScan *p, ChoirErr *pErr,
                                       sqlite3_value *pFusion,
                                       sqlite3_value *pVectors,
                                       sqlite3_value *pQuery) {
  const char *z = choirArgTextOrNull(pErr, pFusion, "fusion");
  p->zVectors =
      choirQdrantObject(p->to.pConn, pErr, pVectors, "vectors",
                        "it is name: vector, dense or with indices and values");
  if (p->zVectors && strcmp(p->zVectors, "{}") == 0) {
    sqlite3_free(p->zVectors);
    p->zVectors = NULL;
  }
  if ((z == NULL && p->zVectors == NULL) || pErr->rc != SQLITE_OK) {
    return;
  }
  p->eFusion = z && strcmp(z, "dbsf") == 0 ? QDRANT_DBSF : QDRANT_RRF;
  if (z && strcmp(z, "dbsf") != 0 && strcmp(z, "rrf") != 0) {
    choirErrSet(pErr, SQLITE_ERROR, "fusion must be rrf or dbsf, got '%.20s'",
                z);
  } else if (p->rMmr >= 0.0) {
    choirErrSet(pErr, SQLITE_ERROR, "fusion and mmr exclude each other");
  } else if (pQuery == NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "fusion needs a query");
  } else if (p->zVectors == NULL && sqlite3_value_type(pQuery) != SQLITE_TEXT) {
    choirErrSet(pErr, SQLITE_ERROR,
                "fusion needs a second list: a query that is text, whose words"
                " are looked for, or vectors");
  } else if (p->zVectors == NULL) {
    const char *zWords = choirArgText(pErr, pQuery, "query");
    p->zWords = choirMprintf(pErr, "%s", zWords ? zWords : "");
  }
}

static void scanParams(const QdrantScan *p, ChoirBuf *b) {
  if (p->nEf || p->bExact) {
    choirBufText(b, ",\"params\":{");
    if (p->nEf) {
      choirBufPrintf(b, "\"hnsw_ef\":%lld%s", p->nEf, p->bExact ? "," : "");
    }
    choirBufText(b, p->bExact ? "\"exact\":true}" : "}");
  }
}

/* The start of a list that is fused, and its tenant. */
static void scanList(const QdrantScan *p, ChoirBuf *b, const char *zWords) {
  i64 n = p->nK * 2 < SCAN_LIST ? SCAN_LIST : p->nK * 2;
  choirBufText(b, "{");
  choirQdrantFilterOpen(&p->to, b, "filter");
  choirBufAppend(b, p->filter.a ? p->filter.a : "", p->filter.n);
  if (zWords) {
    choirBufText(b, ",{\"key\":\"content_preview\",\"match\":{\"text\":");
    choirBufJson(b, zWords, -1);
    choirBufText(b, "}}");
  }
  choirBufPrintf(b, "]},\"limit\":%lld", n < QDRANT_K_MAX ? n : QDRANT_K_MAX);
  scanParams(p, b);
  choirBufText(b, ",\"query\":");
}

/* A list by the query's own vector. */
static void scanListQuery(const QdrantScan *p, ChoirBuf *b,
                          const char *zWords) {
  scanList(p, b, zWords);
  choirQdrantPutFloats(b, p->aQuery, p->nQuery);
  if (p->to.zVector) {
    choirBufText(b, ",\"using\":");
    choirBufJson(b, p->to.zVector, -1);
  }
  choirBufText(b, "}");
}

/* choir's reciprocal rank fusion is 1/(60 + rank), ranks from 1; Qdrant's
** counts positions from 0. */
static void scanFused(const QdrantScan *p, ChoirBuf *b) {
  const char *z = p->zVectors ? p->zVectors : "{}";
  QdrantSpan all = {z, (i64)strlen(z)};
  QdrantSpan inside = choirQdrantInside(all), name, v;
  choirBufText(b, ",\"prefetch\":[");
  scanListQuery(p, b, NULL);
  if (p->zWords) {
    choirBufText(b, ",");
    scanListQuery(p, b, p->zWords);
  }
  while (choirQdrantNext(&inside, &name, &v) && b->pErr->rc == SQLITE_OK) {
    choirBufText(b, ",");
    scanList(p, b, NULL);
    choirQdrantPutVector(b, name, v);
    choirBufText(b, ",\"using\":");
    choirBufAppend(b, name.z, (u64)name.n);
    choirBufText(b, "}");
  }
  choirBufText(b, p->eFusion == QDRANT_DBSF
                      ? "],\"query\":{\"fusion\":\"dbsf\"}"
                      : "],\"query\":{\"rrf\":{\"k\":61}}");
}

/* ------------------------------------------------------------------ order */

CHOIR_PRIVATE void choirQdrantScanOrder(QdrantScan *p, ChoirErr *pErr,
                                        sqlite3_value *v) {
  const char *z = choirArgTextOrNull(pErr, v, "order_by");
  const char *zEnd = z ? strrchr(z, ' ') : NULL;
  if (zEnd && (sqlite3_stricmp(zEnd, " desc") == 0 ||
               sqlite3_stricmp(zEnd, " asc") == 0)) {
    p->bOrderFalls = zEnd[1] == 'd' || zEnd[1] == 'D';
  } else {
    zEnd = z ? z + strlen(z) : NULL;
  }
  if (z && zEnd == z) {
    choirErrSet(pErr, SQLITE_ERROR,
                "order_by must be a member of the payload, got '%.20s'", z);
  } else if (z) {
    p->zOrder = choirMprintf(pErr, "%.*s", (int)(zEnd - z), z);
  }
}

static void scanOrderBody(const QdrantScan *p, ChoirBuf *b) {
  choirBufText(b, ",\"order_by\":{\"key\":");
  choirBufJson(b, p->zOrder, -1);
  choirBufPrintf(b, ",\"direction\":\"%s\"", p->bOrderFalls ? "desc" : "asc");
  if (p->nTied) {
    choirBufText(b, ",\"start_from\":");
    choirBufAppend(b, p->orderAt.a, p->orderAt.n);
  }
  choirBufText(b, "}");
}

/* Remembers where a scroll by a member has got to. */
static void scanOrderAt(QdrantScan *p, ChoirErr *pErr, const QdrantHit *pHit) {
  double r;
  if (pErr->rc == SQLITE_OK && !choirQdrantReal(pHit->order, &r)) {
    choirErrSet(pErr, SQLITE_ERROR, "the reply of %s has no order_value",
                p->to.zUrl);
  } else if (pErr->rc == SQLITE_OK) {
    if (p->nTied == 0 || p->orderAt.n != (u64)pHit->order.n ||
        memcmp(p->orderAt.a, pHit->order.z, p->orderAt.n) != 0) {
      p->nTied = 0;
      p->tied.n = p->orderAt.n = 0;
      choirBufAppend(&p->orderAt, pHit->order.z, (u64)pHit->order.n);
    }
    choirBufText(&p->tied, p->nTied++ ? "," : "");
    choirBufAppend(&p->tied, pHit->id.z, (u64)pHit->id.n);
    if (p->nTied > SCAN_TIES) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "more than %d points have the same '%.60s'; scroll without"
                  " order_by and say ORDER BY",
                  SCAN_TIES, p->zOrder);
    }
  }
}

/* ------------------------------------------------------------------ pages */

/* How many points to ask for after the first nHave, 0: no more. */
static i64 scanPage(QdrantScan *p, ChoirErr *pErr, i64 nHave) {
  i64 nMost = p->bVector ? 250 : 1000;
  i64 n = p->nPage ? p->nPage * 4 : p->nHint ? p->nHint : p->bQuery ? 16 : 64;
  if (!p->bQuery && p->nHint > nHave) {
    n = p->nHint - nHave;
  }
  if (p->nPage == 0 && p->bByArtifact) {
    n *= 4; /* several chunks of each */
  }
  if (p->nK && !p->bByArtifact) {
    n = p->nPage ? p->nK - p->nGiven : p->nK;
  }
  n = n < 1 ? 1 : n > nMost ? nMost : n;
  if (p->bQuery && p->iOffset + n > QDRANT_K_MAX) {
    n = QDRANT_K_MAX - p->iOffset;
    if (n == 0 && p->nK) {
      return 0;
    }
    if (n == 0) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%d hits were read and there may be more; say LIMIT n or"
                  " WHERE k = n",
                  QDRANT_K_MAX);
    }
  }
  p->nPage = n;
  return n;
}

CHOIR_PRIVATE void choirQdrantScanBody(QdrantScan *p, ChoirBuf *b) {
  if (p->eFusion) {
    scanFused(p, b);
  } else {
    choirBufText(b, ",\"query\":");
    choirBufText(b, p->rMmr >= 0.0 ? "{\"nearest\":" : "");
    choirQdrantPutFloats(b, p->aQuery, p->nQuery);
    if (p->rMmr >= 0.0) {
      choirBufPrintf(b, ",\"mmr\":{\"diversity\":%!.9g}}", p->rMmr);
    }
    if (p->to.zVector) {
      choirBufText(b, ",\"using\":");
      choirBufJson(b, p->to.zVector, -1);
    }
    scanParams(p, b);
  }
  if (p->bThreshold) {
    choirBufPrintf(b, ",\"score_threshold\":%!.17g", p->rThreshold);
  }
  if (p->iOffset) {
    choirBufPrintf(b, ",\"offset\":%lld", p->iOffset);
  }
}

/* The request for the next nPage points. */
static void scanBody(QdrantScan *p, ChoirBuf *b) {
  choirBufText(b, "{");
  choirQdrantFilterOpen(&p->to, b, "filter");
  choirBufAppend(b, p->filter.a ? p->filter.a : "", p->filter.n);
  if (p->nTied) {
    choirBufText(b, ",{\"must_not\":[{\"has_id\":[");
    choirBufAppend(b, p->tied.a, p->tied.n);
    choirBufText(b, "]}]}");
  }
  choirBufPrintf(b, "]},\"limit\":%lld,\"with_vector\":", p->nPage);
  if (p->bVector) {
    scanWithVector(p, b);
  } else {
    choirBufText(b, "false");
  }
  choirBufText(b, ",\"with_payload\":");
  choirBufText(b, p->payload.n ? p->payload.a : "true");
  if (p->bQuery) {
    choirQdrantScanBody(p, b);
  } else if (p->zOrder) {
    scanOrderBody(p, b);
  } else if (p->after.z) {
    choirBufText(b, ",\"offset\":");
    choirBufAppend(b, p->after.z, (u64)p->after.n);
  }
  choirBufText(b, "}");
}

/* The page that was asked for ahead; 0: there is none, or that went wrong while
** nobody waited for it. */
static int scanArrived(QdrantScan *p, ChoirErr *pErr, QdrantReply *pReply) {
  ChoirErr err = {0, NULL};
  i64 iStart = choirMonotonic();
  if (p->ahead.n == 0) {
    return 0;
  }
  choirQdrantReceive(&p->to, &err, pReply);
  p->ahead.n = 0;
  if (err.rc == SQLITE_OK || err.rc == SQLITE_INTERRUPT ||
      err.rc == SQLITE_NOMEM || choirMonotonic() - iStart > SCAN_WAITED_MS) {
    *pErr = err;
    return 1;
  }
  choirErrClear(&err);
  choirQdrantReplyFree(pReply);
  return 0;
}

/* Asks for the page after the one that has just come, if it will be read: the
** host wants more rows, or has not said and is at its second page already. */
static void scanAhead(QdrantScan *p, ChoirErr *pErr, int bFirst) {
  QdrantReply *pNext = &p->aReply[!p->iReply];
  i64 nHave = p->nGiven + p->nPage;
  if (p->bLast || p->nK || (p->nHint ? p->nHint <= nHave : bFirst)) {
    return;
  }
  scanPage(p, pErr, nHave);
  scanBody(p, &p->ahead);
  choirQdrantReplyFree(pNext);
  choirQdrantAhead(&p->to, pErr, pNext, "POST", "points/scroll", &p->ahead, 1);
}

static void scanFetch(QdrantScan *p, ChoirErr *pErr) {
  int bFirst = p->nPage == 0;
  int bScroll = !p->bQuery && !p->zOrder;
  QdrantSpan inside, key, value;
  QdrantReply *pReply = &p->aReply[!p->iReply];
  ChoirBuf b;
  if (!scanArrived(p, pErr, pReply)) {
    if (scanPage(p, pErr, p->nGiven) == 0) {
      p->bLast = 1;
      return;
    }
    choirBufInit(&b, pErr, QDRANT_REQUEST);
    scanBody(p, &b);
    choirQdrantSend(&p->to, pErr, pReply, "POST",
                    p->bQuery ? "points/query" : "points/scroll", &b, 1);
    choirBufFree(&b);
  }
  choirQdrantReplyFree(&p->aReply[p->iReply]);
  p->iReply = !p->iReply;
  p->nAsked = 0;
  memset(&p->rest, 0, sizeof(p->rest));
  memset(&p->after, 0, sizeof(p->after));
  for (inside = choirQdrantInside(pReply->result);
       choirQdrantNext(&inside, &key, &value);) {
    if (choirQdrantIs(key, "points")) {
      p->rest = choirQdrantInside(value);
    } else if (choirQdrantIs(key, "next_page_offset")) {
      p->after = value;
    }
  }
  if (pErr->rc == SQLITE_OK && p->rest.z == NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "the reply of %s has no points",
                p->to.zUrl);
  }
  if (bScroll && pErr->rc == SQLITE_OK) {
    p->bLast = p->after.z == NULL || p->after.z[0] == 'n';
    scanAhead(p, pErr, bFirst);
  }
}

/* Was a hit of this id given before? Remembers it, by its SHA-256. */
static int scanSeen(QdrantScan *p, ChoirErr *pErr, QdrantSpan id) {
  u8 a[32];
  int i;
  choirSha256(id.z ? id.z : "", (u64)id.n, a);
  for (i = 0; i < p->nSeen; i++) {
    if (memcmp(p->aSeen[i], a, sizeof(*p->aSeen)) == 0) {
      return 1;
    }
  }
  if (p->aSeen == NULL) {
    p->aSeen = choirMalloc(pErr, QDRANT_K_MAX * sizeof(*p->aSeen));
  }
  if (p->aSeen && p->nSeen < QDRANT_K_MAX) {
    memcpy(p->aSeen[p->nSeen++], a, sizeof(*p->aSeen));
  }
  return 0;
}

static void scanHit(QdrantSpan point, QdrantHit *pHit) {
  QdrantSpan inside = choirQdrantInside(point), key, value;
  memset(pHit, 0, sizeof(*pHit));
  while (choirQdrantNext(&inside, &key, &value)) {
    if (choirQdrantIs(key, "id")) {
      pHit->id = value;
    } else if (choirQdrantIs(key, "score")) {
      pHit->score = value;
    } else if (choirQdrantIs(key, "payload")) {
      pHit->payload = value;
    } else if (choirQdrantIs(key, "vector")) {
      pHit->vector = value;
    } else if (choirQdrantIs(key, "order_value")) {
      pHit->order = value;
    }
  }
}

/* ORDER BY score DESC was promised: a page whose scores rise is of distances. */
static void scanFalls(QdrantScan *p, ChoirErr *pErr, QdrantSpan score) {
  double r;
  QdrantSpan next = p->rest, point;
  double rNext;
  if (p->bScoreFalls && choirQdrantReal(score, &r) &&
      choirQdrantNext(&next, NULL, &point) &&
      choirQdrantReal(choirQdrantGet(point, "score"), &rNext) && rNext > r) {
    choirErrSet(pErr, SQLITE_ERROR,
                "scores of collection '%s' are distances, the smallest is best;"
                " say ORDER BY rank",
                p->to.zCollection);
  }
}

CHOIR_PRIVATE int choirQdrantScanNext(QdrantScan *p, ChoirErr *pErr,
                                      QdrantHit *pHit) {
  QdrantSpan point;
  while (pErr->rc == SQLITE_OK && !p->bEmpty) {
    if (p->nK && p->nGiven >= p->nK) {
      return 0;
    }
    if (!choirQdrantNext(&p->rest, NULL, &point)) {
      if ((p->bQuery || p->zOrder) && p->aReply[p->iReply].http.pConn &&
          p->nAsked < p->nPage) {
        return 0; /* a short page is the last one */
      }
      if (p->bLast) {
        return 0;
      }
      scanFetch(p, pErr);
      continue;
    }
    p->nAsked++;
    p->iOffset++;
    scanHit(point, pHit);
    choirQdrantOwn(&p->to, pErr, pHit->id, pHit->payload, p->zModel);
    scanFalls(p, pErr, pHit->score);
    if (p->zOrder) {
      scanOrderAt(p, pErr, pHit);
    }
    if (p->bQuery && pErr->rc == SQLITE_OK &&
        scanSeen(p, pErr,
                 p->bByArtifact ? choirQdrantGet(pHit->payload, "artifact_id")
                                : pHit->id)) {
      continue;
    }
    if (pErr->rc == SQLITE_OK) {
      p->nGiven++;
      return 1;
    }
  }
  return 0;
}
