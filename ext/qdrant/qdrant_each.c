/* SPDX-License-Identifier: MIT */
/*
** qdrant_search_each: many queries, embedded and asked for together.
**
** QDRANT_EACH queries go in one request to /points/query/batch, each with the
** tenant's filter of its own.
*/
#include "qdrant.h"

#define QDRANT_EACH 32       /* queries of a request */
#define QDRANT_EACH_MAX 1000 /* of a call */

typedef struct ManyQuery {
  char *zText; /* to be embedded, or NULL; owned */
  i64 nText;
  float *aVector; /* owned */
  int n;
} ManyQuery;

typedef struct ManyRun {
  ChoirCursor *pCur;
  ChoirErr *pErr;
  QdrantScan scan; /* what the queries have in common */
  ManyQuery *a;
  int n;
} ManyRun;

static void manyFree(ManyRun *p) {
  while (p->n > 0) {
    ManyQuery *q = &p->a[--p->n];
    sqlite3_free(q->zText);
    sqlite3_free(q->aVector);
  }
  sqlite3_free(p->a);
  p->scan.aQuery = NULL; /* it was lent */
  choirQdrantScanFree(&p->scan);
}

static void manyAdd(ManyRun *p, sqlite3_stmt *pStmt) {
  const char *zType = (const char *)sqlite3_column_text(pStmt, 1);
  const char *z = (const char *)sqlite3_column_text(pStmt, 0);
  QdrantSpan all = {z, sqlite3_column_bytes(pStmt, 0)};
  ManyQuery *q = &p->a[p->n];
  if (zType && z && strcmp(zType, "text") == 0) {
    q->zText = choirMprintf(p->pErr, "%s", z);
    q->nText = all.n;
  } else if (choirQdrantIsDense(all)) {
    q->aVector = choirQdrantFloats(p->pErr, all, &q->n);
  } else {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "query %d must be a text or an array of numbers, got %.60s",
                p->n, z ? z : "null");
  }
  p->n++;
}

static void manyRead(ManyRun *p, sqlite3_value *v) {
  ChoirConn *pConn = p->pCur->pConn;
  const char *z = choirArgJson(pConn, p->pErr, v, "queries");
  sqlite3_stmt *pStmt = choirJsonStmt(
      pConn, p->pErr, "SELECT json_array_length(?1), json_type(?1)", z, -1);
  int n = 0;
  if (choirStep(p->pErr, pStmt)) {
    const char *zType = (const char *)sqlite3_column_text(pStmt, 1);
    n = sqlite3_column_int(pStmt, 0);
    if (zType == NULL || strcmp(zType, "array") != 0 || n > QDRANT_EACH_MAX) {
      choirErrSet(p->pErr, SQLITE_ERROR,
                  "queries must be a JSON array of at most %d, got %s of %d",
                  QDRANT_EACH_MAX, zType ? zType : "null", n);
    }
  }
  sqlite3_finalize(pStmt);
  p->a = choirMalloc(p->pErr, ((u64)n + 1) * sizeof(*p->a));
  pStmt = choirJsonStmt(pConn, p->pErr, "SELECT value, type FROM json_each(?1)",
                        z, -1);
  while (p->n < n && choirStep(p->pErr, pStmt)) {
    manyAdd(p, pStmt);
  }
  sqlite3_finalize(pStmt);
}

/* The vectors of the texts, in the model's batches. */
static void manyEmbed(ManyRun *p) {
  const ChoirEmbedModel *pModel;
  const char **azText = choirMalloc(p->pErr, ((u64)p->n + 1) * sizeof(char *));
  i64 *anText = choirMalloc(p->pErr, ((u64)p->n + 1) * sizeof(i64));
  float *a = NULL;
  int i, n = 0;
  for (i = 0; i < p->n && p->pErr->rc == SQLITE_OK; i++) {
    if (p->a[i].zText) {
      azText[n] = p->a[i].zText;
      anText[n++] = p->a[i].nText;
    }
  }
  pModel = n ? choirQdrantModel(&p->scan.to, p->pErr) : NULL;
  if (pModel) {
    p->scan.zModel = pModel->zName;
    a = choirMalloc(p->pErr, (u64)n * (u64)pModel->nDim * sizeof(float));
    choirEmbedBatch(p->scan.to.pConn, p->pErr, pModel, azText, anText,
                    a ? n : 0, CHOIR_EMBED_QUERY, a);
  }
  for (i = n = 0; a && i < p->n && p->pErr->rc == SQLITE_OK; i++) {
    ManyQuery *q = &p->a[i];
    if (q->zText) {
      q->n = pModel->nDim;
      q->aVector = choirMalloc(p->pErr, (u64)q->n * sizeof(float));
      if (q->aVector) {
        memcpy(q->aVector, a + (i64)n++ * q->n, (size_t)q->n * sizeof(float));
      }
    }
  }
  sqlite3_free(a);
  sqlite3_free(azText);
  sqlite3_free(anText);
}

/* A text without words is near to nothing. */
static int manyIsZero(const ManyQuery *q) {
  int i;
  for (i = 0; i < q->n && q->aVector[i] == 0.0f; i++) {
  }
  return q->zText && i == q->n;
}

static void manyHits(ManyRun *p, int iOrd, QdrantSpan one) {
  QdrantSpan hits = choirQdrantInside(choirQdrantGet(one, "points")), hit;
  i64 iRank = 0;
  while (choirQdrantNext(&hits, NULL, &hit) && p->pErr->rc == SQLITE_OK) {
    choirRowInt(p->pCur, iOrd);
    choirQdrantHitRow(p->pCur, &p->scan, hit, ++iRank);
  }
}

/* Queries [iFrom, iTo) in one request. */
static void manySend(ManyRun *p, int iFrom, int iTo) {
  QdrantSpan inside, one;
  QdrantReply reply;
  ChoirBuf b;
  int i, n = 0;
  choirBufInit(&b, p->pErr, QDRANT_REQUEST);
  choirBufText(&b, "{\"searches\":[");
  for (i = iFrom; i < iTo && p->pErr->rc == SQLITE_OK; i++) {
    if (!manyIsZero(&p->a[i])) {
      choirBufText(&b, n++ ? ",{" : "{");
      choirQdrantFilterOpen(&p->scan.to, &b, "filter");
      choirBufAppend(&b, p->scan.filter.a ? p->scan.filter.a : "",
                     p->scan.filter.n);
      choirBufPrintf(&b, "]},\"limit\":%lld,\"with_payload\":true", p->scan.nK);
      p->scan.aQuery = p->a[i].aVector;
      p->scan.nQuery = p->a[i].n;
      choirQdrantScanBody(&p->scan, &b);
      choirBufText(&b, "}");
    }
  }
  choirBufText(&b, "]}");
  memset(&reply, 0, sizeof(reply));
  if (n > 0) {
    choirQdrantSend(&p->scan.to, p->pErr, &reply, "POST", "points/query/batch",
                    &b, 1);
  }
  inside = choirQdrantInside(reply.result);
  for (i = iFrom; i < iTo && p->pErr->rc == SQLITE_OK; i++) {
    if (manyIsZero(&p->a[i])) {
      continue;
    }
    if (choirQdrantNext(&inside, NULL, &one) &&
        choirQdrantGet(one, "points").z) {
      manyHits(p, i, one);
    } else {
      choirErrSet(p->pErr, SQLITE_ERROR,
                  "the reply of %s has fewer answers than %d", p->scan.to.zUrl,
                  n);
    }
  }
  choirQdrantReplyFree(&reply);
  choirBufFree(&b);
}

/*
** SQL: qdrant_search_each(queries[, collection[, k[, filter[, vector_name]]]])
**   -> TABLE(ord, rank, score, id, artifact_id, path, preview, payload)
**
** What qdrant_search finds for each of many queries, ord counting them from 0:
** they are embedded in batches and asked for 32 in a request, where a join with
** qdrant_search sends one for each.
**
**   queries      TEXT, a JSON array of texts and of arrays of numbers, at most
**                1000
**   collection   TEXT, default the setting qdrant.collection
**   k            INTEGER 1 to 1000, hits of each query, default 10
**   filter       TEXT, from qdrant_filter() or Qdrant's JSON
**   vector_name  TEXT, default the setting qdrant.vector
**
** NULL: NULL queries are an error; other arguments NULL are as not given.
** Errors: those of qdrant_search; a query that is neither.
** Source: https://api.qdrant.tech/api-reference/search/query-batch-points
**
** > SELECT ord, path FROM qdrant_search_each('["tax", "travel"]')
** ! qdrant_search_each: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void manyFilter(ChoirCursor *p) {
  ManyRun run;
  int i;
  memset(&run, 0, sizeof(run));
  run.pCur = p;
  run.pErr = &p->err;
  choirQdrantScanInit(&run.scan, &p->err);
  choirQdrantOpen(p->pConn, &p->err, &run.scan.to,
                  choirArgTextOrNull(&p->err, p->apArg[1], "collection"));
  choirQdrantVector(&run.scan.to, &p->err,
                    choirArgTextOrNull(&p->err, p->apArg[4], "vector_name"));
  run.scan.nK = 10;
  if (p->apArg[2] && sqlite3_value_type(p->apArg[2]) != SQLITE_NULL) {
    run.scan.nK = choirArgInt(&p->err, p->apArg[2], "k", 1, QDRANT_K_MAX);
  }
  choirQdrantFilterUser(p->pConn, &run.scan.filter, p->apArg[3]);
  if (p->err.rc == SQLITE_OK) {
    manyRead(&run, p->apArg[0]);
  }
  if (p->err.rc == SQLITE_OK) {
    manyEmbed(&run);
  }
  for (i = 0; i < run.n && p->err.rc == SQLITE_OK; i += QDRANT_EACH) {
    manySend(&run, i, run.n - i < QDRANT_EACH ? run.n : i + QDRANT_EACH);
  }
  manyFree(&run);
}

static const ChoirTvf aManyTvf[] = {
    {"qdrant_search_each",
     "ord, rank, score, id, artifact_id, path, preview, payload,"
     " queries HIDDEN, collection HIDDEN, k HIDDEN, filter HIDDEN,"
     " vector_name HIDDEN",
     8, 1, 5, CHOIR_EFFECT, 0, 0, manyFilter, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirQdrantEachRegister(ChoirConn *pConn,
                                                      ChoirErr *pErr) {
  choirTvfs(pConn, pErr, aManyTvf);
}
