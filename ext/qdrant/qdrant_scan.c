/* SPDX-License-Identifier: MIT */
/*
** A query or a scroll, page by page: as many as the host reads rows of.
**
** What the host says it wants (LIMIT) sizes the first page and nothing else;
** k bounds the rows. A query without k that is read beyond QDRANT_K_MAX hits
** is an error, not a short answer. Pages of an approximate search may overlap,
** so the ids that were given are remembered.
**
** Every point is looked at for whose it is before anything of it is shown.
*/
#include "qdrant.h"
#include <math.h>

CHOIR_PRIVATE void choirQdrantScanInit(QdrantScan *p, ChoirErr *pErr) {
  memset(p, 0, sizeof(*p));
  choirBufInit(&p->filter, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->payload, pErr, CHOIR_BUF_SQL);
  p->rMmr = -1.0;
}

CHOIR_PRIVATE void choirQdrantScanFree(QdrantScan *p) {
  choirQdrantReplyFree(&p->reply);
  choirQdrantClose(&p->to);
  choirBufFree(&p->filter);
  choirBufFree(&p->payload);
  sqlite3_free(p->aQuery);
  sqlite3_free(p->zVector);
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

/* A point's vector: by name where there are several. */
static QdrantSpan scanVector(QdrantSpan v, const char *zName) {
  QdrantSpan inside, key, value;
  if (v.z && v.z[0] == '{') {
    if (zName) {
      return choirQdrantGet(v, zName);
    }
    inside = choirQdrantInside(v);
    return choirQdrantNext(&inside, &key, &value) ? value : inside;
  }
  return v;
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
        pErr, scanVector(choirQdrantGet(point, "vector"), p->zVector), &n);
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

CHOIR_PRIVATE void choirQdrantScanSimilar(QdrantScan *p, ChoirErr *pErr,
                                          sqlite3_value *v) {
  const char *z = choirArgText(pErr, v, "artifact");
  QdrantReply reply;
  ChoirBuf b;
  int n;
  double r = 0.0;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "{");
  choirQdrantFilterOpen(&p->to, &b, "filter");
  choirBufText(&b, ",{\"key\":\"artifact_id\",\"match\":{\"value\":");
  choirBufJson(&b, z ? z : "", -1);
  choirBufText(&b, "}}]},\"limit\":64,\"with_vector\":true,"
                   "\"with_payload\":[\"user_id\"]}");
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
  choirBufText(&p->filter, ",{\"must_not\":[{\"key\":\"artifact_id\","
                           "\"match\":{\"value\":");
  choirBufJson(&p->filter, z ? z : "", -1);
  choirBufText(&p->filter, "}}]}");
  p->bQuery = 1;
  p->bByArtifact = 1;
}

/* ------------------------------------------------------------------ pages */

/* How many points to ask for now, 0: no more. */
static i64 scanPage(QdrantScan *p, ChoirErr *pErr) {
  i64 nMost = p->bVector ? 250 : 1000;
  i64 n = p->nPage ? p->nPage * 4 : p->nHint ? p->nHint : p->bQuery ? 16 : 64;
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

static void scanBodyQuery(QdrantScan *p, ChoirBuf *b) {
  choirBufText(b, ",\"query\":");
  choirBufText(b, p->rMmr >= 0.0 ? "{\"nearest\":" : "");
  choirQdrantPutFloats(b, p->aQuery, p->nQuery);
  if (p->rMmr >= 0.0) {
    choirBufPrintf(b, ",\"mmr\":{\"diversity\":%!.9g}}", p->rMmr);
  }
  if (p->zVector) {
    choirBufText(b, ",\"using\":");
    choirBufJson(b, p->zVector, -1);
  }
  if (p->nEf || p->bExact) {
    choirBufText(b, ",\"params\":{");
    if (p->nEf) {
      choirBufPrintf(b, "\"hnsw_ef\":%lld%s", p->nEf, p->bExact ? "," : "");
    }
    choirBufText(b, p->bExact ? "\"exact\":true}" : "}");
  }
  if (p->bThreshold) {
    choirBufPrintf(b, ",\"score_threshold\":%!.17g", p->rThreshold);
  }
  if (p->iOffset) {
    choirBufPrintf(b, ",\"offset\":%lld", p->iOffset);
  }
}

static void scanFetch(QdrantScan *p, ChoirErr *pErr) {
  i64 n = scanPage(p, pErr);
  u64 nAfter = p->bQuery ? 0 : (u64)p->after.n;
  ChoirBuf b;
  if (n == 0) {
    p->bLast = 1;
    return;
  }
  choirBufInit(&b, pErr, QDRANT_REQUEST);
  choirBufText(&b, "{");
  choirQdrantFilterOpen(&p->to, &b, "filter");
  choirBufAppend(&b, p->filter.a ? p->filter.a : "", p->filter.n);
  choirBufPrintf(&b,
                 "]},\"limit\":%lld,\"with_vector\":%s,\"with_payload\":", n,
                 p->bVector ? "true" : "false");
  choirBufText(&b, p->payload.n ? p->payload.a : "true");
  if (p->bQuery) {
    scanBodyQuery(p, &b);
  } else if (p->after.z) {
    choirBufText(&b, ",\"offset\":");
    choirBufAppend(&b, p->after.z, (u64)p->after.n);
  }
  choirBufText(&b, "}");
  choirQdrantReplyFree(&p->reply);
  memset(&p->rest, 0, sizeof(p->rest));
  choirQdrantSend(&p->to, pErr, &p->reply, "POST",
                  p->bQuery ? "points/query" : "points/scroll", &b, 1);
  p->nAsked = 0;
  p->rest = choirQdrantInside(choirQdrantGet(p->reply.result, "points"));
  if (pErr->rc == SQLITE_OK && p->rest.z == NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "the reply of %s has no points",
                p->to.zUrl);
  }
  if (!p->bQuery) {
    p->after = choirQdrantGet(p->reply.result, "next_page_offset");
    p->bLast = p->after.z == NULL || p->after.z[0] == 'n';
    /* The request ends in the place asked for and a brace. */
    if (nAfter && pErr->rc == SQLITE_OK && (u64)p->after.n == nAfter &&
        memcmp(p->after.z, b.a + b.n - 1 - nAfter, nAfter) == 0) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s gives the same page of the scroll again", p->to.zUrl);
    }
  }
  choirBufFree(&b);
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
    }
  }
}

/* ORDER BY score DESC was promised: a page whose scores rise is of distances. */
static void scanOrder(QdrantScan *p, ChoirErr *pErr, QdrantSpan score) {
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
      if (p->bQuery && p->reply.http.pConn && p->nAsked < p->nPage) {
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
    scanOrder(p, pErr, pHit->score);
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
