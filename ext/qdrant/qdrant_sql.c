/* SPDX-License-Identifier: MIT */
/*
** The functions that are one request each: qdrant_groups, qdrant_facet,
** qdrant_collections, qdrant_count, qdrant_ping, qdrant_index, qdrant_init. And
** the list of what the room registers.
*/
#include "qdrant.h"

static sqlite3_value *sqlArg(ChoirCursor *p, int i) {
  return p->apArg[i] && sqlite3_value_type(p->apArg[i]) != SQLITE_NULL
             ? p->apArg[i]
             : NULL;
}

static const char *sqlArgText(ChoirCursor *p, int i, const char *zArg) {
  return choirArgTextOrNull(&p->err, p->apArg[i], zArg);
}

static i64 sqlArgInt(ChoirCursor *p, int i, const char *zArg, i64 iMax,
                     i64 iDefault) {
  return sqlArg(p, i) ? choirArgInt(&p->err, p->apArg[i], zArg, 1, iMax)
                      : iDefault;
}

/* A scalar as a cell; objects and arrays as JSON. */
static void sqlRowSpan(ChoirCursor *p, QdrantSpan v) {
  char c = v.z && v.n ? v.z[0] : 'n';
  double r;
  i64 i;
  if (c == '"') {
    char *z = choirQdrantText(&p->err, v, &i);
    choirRowText(p, z);
    sqlite3_free(z);
  } else if (c == 't' || c == 'f') {
    choirRowInt(p, c == 't');
  } else if (c == 'n') {
    choirRowText(p, NULL);
  } else if (choirQdrantInt(v, &i)) {
    choirRowInt(p, i);
  } else if (c != '{' && c != '[' && memchr(v.z, '.', (size_t)v.n) &&
             choirQdrantReal(v, &r)) {
    choirRowReal(p, r);
  } else {
    char *z = choirMprintf(&p->err, "%.*s", (int)v.n, v.z);
    choirRowText(p, z);
    sqlite3_free(z);
  }
}

/* ---------------------------------------------------------------- groups */

CHOIR_PRIVATE void choirQdrantHitRow(ChoirCursor *p, const QdrantScan *pScan,
                                     QdrantSpan hit, i64 iRank) {
  QdrantSpan payload = choirQdrantGet(hit, "payload");
  QdrantSpan id = choirQdrantGet(hit, "id");
  double r = 0.0;
  choirQdrantOwn(&pScan->to, &p->err, id, payload, pScan->zModel);
  if (p->err.rc == SQLITE_OK) {
    choirQdrantReal(choirQdrantGet(hit, "score"), &r);
    choirRowInt(p, iRank);
    choirRowReal(p, r);
    sqlRowSpan(p, id);
    sqlRowSpan(p, choirQdrantGet(payload, "artifact_id"));
    sqlRowSpan(p, choirQdrantGet(payload, "path"));
    sqlRowSpan(p, choirQdrantGet(payload, "content_preview"));
    sqlRowSpan(p, payload);
  }
}

static void sqlGroupRows(ChoirCursor *p, QdrantScan *pScan,
                         QdrantReply *pReply) {
  QdrantSpan groups =
      choirQdrantInside(choirQdrantGet(pReply->result, "groups"));
  QdrantSpan group, hits, hit;
  i64 iRank = 0;
  while (choirQdrantNext(&groups, NULL, &group) && p->err.rc == SQLITE_OK) {
    iRank++;
    hits = choirQdrantInside(choirQdrantGet(group, "hits"));
    while (choirQdrantNext(&hits, NULL, &hit) && p->err.rc == SQLITE_OK) {
      sqlRowSpan(p, choirQdrantGet(group, "id"));
      choirQdrantHitRow(p, pScan, hit, iRank);
    }
  }
}

/*
** SQL: qdrant_groups(query[, collection[, group_by[, k[, group_size[,
**   filter[, vector_name[, fusion[, vectors]]]]]]]]) -> TABLE(group_id, rank,
**   score, id, artifact_id, path, preview, payload)
**
** The user's points nearest to a query, grouped by a member of their payload:
** the best k groups, at most group_size points of each. rank is the group's.
** By artifact_id this is the best passages of the best documents.
**
**   query       TEXT or BLOB, as for qdrant_search
**   collection  TEXT, default the setting qdrant.collection
**   group_by    TEXT, default artifact_id
**   k           INTEGER 1 to 1000, groups, default 10
**   group_size  INTEGER 1 to 100, points of a group, default 3
**   filter      TEXT, from qdrant_filter() or Qdrant's JSON
**
** vector_name, fusion and vectors are those of qdrant_search.
** NULL: a NULL query is an error; other arguments NULL are as not given.
** Errors: those of qdrant_search.
** Source: https://api.qdrant.tech/api-reference/search/query-points-groups
**
** > SELECT path FROM qdrant_groups('tax')
** ! qdrant_groups: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void sqlGroups(ChoirCursor *p) {
  const char *zBy = sqlArgText(p, 2, "group_by");
  i64 nK = sqlArgInt(p, 3, "k", QDRANT_K_MAX, 10);
  i64 nSize = sqlArgInt(p, 4, "group_size", 100, 3);
  QdrantScan scan;
  QdrantReply reply;
  ChoirBuf b;
  memset(&reply, 0, sizeof(reply));
  choirQdrantScanInit(&scan, &p->err);
  choirQdrantOpen(p->pConn, &p->err, &scan.to, sqlArgText(p, 1, "collection"));
  choirQdrantVector(&scan.to, &p->err, sqlArgText(p, 6, "vector_name"));
  choirQdrantFilterUser(p->pConn, &scan.filter, p->apArg[5]);
  choirQdrantScanFuse(&scan, &p->err, p->apArg[7], p->apArg[8], p->apArg[0]);
  choirQdrantScanQuery(&scan, &p->err, p->apArg[0], "query");
  scan.nK = nK * nSize;
  choirBufInit(&b, &p->err, QDRANT_REQUEST);
  choirBufText(&b, "{");
  choirQdrantFilterOpen(&scan.to, &b, "filter");
  choirBufAppend(&b, scan.filter.a ? scan.filter.a : "", scan.filter.n);
  choirBufText(&b, "]},\"group_by\":");
  choirQdrantKey(&b, zBy ? zBy : "artifact_id");
  choirBufPrintf(&b,
                 ",\"limit\":%lld,\"group_size\":%lld,\"with_payload\":true",
                 nK, nSize);
  if (!scan.bEmpty && p->err.rc == SQLITE_OK) {
    choirQdrantScanBody(&scan, &b);
    choirBufText(&b, "}");
    choirQdrantSend(&scan.to, &p->err, &reply, "POST", "points/query/groups",
                    &b, 1);
    sqlGroupRows(p, &scan, &reply);
  }
  choirQdrantReplyFree(&reply);
  choirBufFree(&b);
  choirQdrantScanFree(&scan);
}

/*
** SQL: qdrant_facet(key[, collection[, filter[, k]]]) -> TABLE(value, count)
**
** How many of the user's points have each value of a payload member, the most
** frequent first. The server needs an index on it.
**
**   key         TEXT, a member of the payload
**   collection  TEXT, default the setting qdrant.collection
**   filter      TEXT, from qdrant_filter() or Qdrant's JSON
**   k           INTEGER 1 to 1000, values, default 100
**
** NULL: a NULL key is an error.
** Errors: no user; no server; its refusals.
** Source: https://api.qdrant.tech/api-reference/points/facet
**
** > SELECT value, count FROM qdrant_facet('path')
** ! qdrant_facet: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void sqlFacet(ChoirCursor *p) {
  const char *zKey = choirArgText(&p->err, p->apArg[0], "key");
  i64 nK = sqlArgInt(p, 3, "k", QDRANT_K_MAX, 100);
  QdrantSpan hits, hit;
  QdrantReply reply;
  Qdrant to;
  ChoirBuf b;
  choirQdrantOpen(p->pConn, &p->err, &to, sqlArgText(p, 1, "collection"));
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirBufText(&b, "{\"key\":");
  choirBufJson(&b, zKey ? zKey : "", -1);
  choirBufPrintf(&b, ",\"limit\":%lld,\"exact\":true,", nK);
  choirQdrantFilterOpen(&to, &b, "filter");
  choirQdrantFilterUser(p->pConn, &b, p->apArg[2]);
  choirBufText(&b, "]}}");
  choirQdrantSend(&to, &p->err, &reply, "POST", "facet", &b, 1);
  hits = choirQdrantInside(choirQdrantGet(reply.result, "hits"));
  while (choirQdrantNext(&hits, NULL, &hit) && p->err.rc == SQLITE_OK) {
    sqlRowSpan(p, choirQdrantGet(hit, "value"));
    sqlRowSpan(p, choirQdrantGet(hit, "count"));
  }
  choirQdrantReplyFree(&reply);
  choirBufFree(&b);
  choirQdrantClose(&to);
}

/*
** SQL: qdrant_collections() -> TABLE(name, dimensions, distance, model, vector)
**
** The collections of the server that the key may see, a row for each vector of
** their points: vector is its name, NULL that of the one without; dimensions
** and distance are NULL of a sparse one. model is the one that qdrant_init()
** noted. How many points there are is not told: they are of every user.
**
** Errors: no user; no server; its refusals.
**
** > SELECT name FROM qdrant_collections
** ! qdrant_collections: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void sqlVectorRow(ChoirCursor *p, const char *zCollection,
                         QdrantSpan config, QdrantSpan name, QdrantSpan v) {
  choirRowText(p, zCollection);
  sqlRowSpan(p, choirQdrantGet(v, "size"));
  sqlRowSpan(p, choirQdrantGet(v, "distance"));
  sqlRowSpan(p,
             choirQdrantGet(choirQdrantGet(config, "metadata"), "choir_model"));
  sqlRowSpan(p, name);
}

static void sqlVectorRows(ChoirCursor *p, const char *zCollection,
                          QdrantSpan config) {
  QdrantSpan params = choirQdrantGet(config, "params"), none = {NULL, 0};
  QdrantSpan dense = choirQdrantGet(params, "vectors");
  QdrantSpan inside = choirQdrantInside(dense), name, v;
  if (choirQdrantGet(dense, "size").z) {
    sqlVectorRow(p, zCollection, config, none, dense);
    inside = none;
  }
  while (choirQdrantNext(&inside, &name, &v) && p->err.rc == SQLITE_OK) {
    sqlVectorRow(p, zCollection, config, name, v);
  }
  inside = choirQdrantInside(choirQdrantGet(params, "sparse_vectors"));
  while (choirQdrantNext(&inside, &name, &v) && p->err.rc == SQLITE_OK) {
    sqlVectorRow(p, zCollection, config, name, none);
  }
}

static void sqlCollections(ChoirCursor *p) {
  QdrantSpan list, item;
  QdrantReply reply;
  Qdrant to;
  choirQdrantOpen(p->pConn, &p->err, &to, NULL);
  choirQdrantSend(&to, &p->err, &reply, "GET", "/collections", NULL, 1);
  list = choirQdrantInside(choirQdrantGet(reply.result, "collections"));
  while (choirQdrantNext(&list, NULL, &item) && p->err.rc == SQLITE_OK) {
    QdrantReply one;
    i64 n;
    sqlite3_free(to.zCollection);
    to.zCollection = choirQdrantText(&p->err, choirQdrantGet(item, "name"), &n);
    choirQdrantSend(&to, &p->err, &one, "GET", "", NULL, 1);
    if (p->err.rc == SQLITE_OK) {
      sqlVectorRows(p, to.zCollection, choirQdrantGet(one.result, "config"));
    }
    choirQdrantReplyFree(&one);
  }
  choirQdrantReplyFree(&reply);
  choirQdrantClose(&to);
}

/* ---------------------------------------------------------------- scalars */

CHOIR_PRIVATE i64 choirQdrantCount(Qdrant *p, ChoirErr *pErr,
                                   sqlite3_value *pFilter) {
  QdrantReply reply;
  ChoirBuf b;
  i64 n = 0;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "{\"exact\":true,");
  choirQdrantFilterOpen(p, &b, "filter");
  choirQdrantFilterUser(p->pConn, &b, pFilter);
  choirBufText(&b, "]}}");
  choirQdrantSend(p, pErr, &reply, "POST", "points/count", &b, 1);
  if (!choirQdrantInt(choirQdrantGet(reply.result, "count"), &n)) {
    choirErrSet(pErr, SQLITE_ERROR, "the reply of %s has no count", p->zUrl);
  }
  choirQdrantReplyFree(&reply);
  choirBufFree(&b);
  return n;
}

/*
** SQL: qdrant_count([filter[, collection]]) -> INTEGER
**
** How many points the user has in a collection, exactly.
**
**   filter      TEXT, from qdrant_filter() or Qdrant's JSON
**   collection  TEXT, default the setting qdrant.collection
**
** NULL: as not given.
** Errors: no user; no server; its refusals.
** Source: https://api.qdrant.tech/api-reference/points/count-points
**
** > SELECT qdrant_count(qdrant_filter('path', 'prefix', '/docs/'))
** ! qdrant_count: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void sqlCount(ChoirCall *p) {
  const char *zCollection =
      p->nArg > 1 ? choirArgTextOrNull(&p->err, p->apArg[1], "collection")
                  : NULL;
  Qdrant to;
  choirQdrantOpen(p->pConn, &p->err, &to, zCollection);
  sqlite3_result_int64(
      p->pCtx, choirQdrantCount(&to, &p->err, p->nArg ? p->apArg[0] : NULL));
  choirQdrantClose(&to);
}

/* Does the collection exist? */
static int sqlExists(Qdrant *p, ChoirErr *pErr) {
  QdrantReply reply;
  QdrantSpan exists;
  choirQdrantSend(p, pErr, &reply, "GET", "exists", NULL, 1);
  exists = choirQdrantGet(reply.result, "exists");
  if (pErr->rc == SQLITE_OK && exists.z == NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "%s does not answer as Qdrant does",
                p->zUrl);
  }
  choirQdrantReplyFree(&reply);
  return exists.z && exists.n == 4;
}

/*
** SQL: qdrant_ping() -> TEXT
**
** Asks the server who it is: a JSON object of url, version, user, collection
** and exists (1 when the collection is there). From the first request on, this
** one too, the connection acts for that user alone.
**
** Errors: no user; no server; its refusals.
**
** > SELECT qdrant_ping()
** ! qdrant_ping: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void sqlPing(ChoirCall *p) {
  Qdrant to;
  ChoirBuf b;
  int iVersion, bExists;
  choirQdrantOpen(p->pConn, &p->err, &to, NULL);
  iVersion = choirQdrantVersion(&to, &p->err);
  bExists = sqlExists(&to, &p->err);
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirBufText(&b, "{\"url\":");
  choirBufJson(&b, to.zUrl ? to.zUrl : "", -1);
  choirBufPrintf(&b, ",\"version\":\"%d.%d\",\"user\":", iVersion / 1000,
                 iVersion % 1000);
  choirBufJson(&b, to.zUser ? to.zUser : "", -1);
  choirBufText(&b, ",\"collection\":");
  choirBufJson(&b, to.zCollection ? to.zCollection : "", -1);
  choirBufPrintf(&b, ",\"exists\":%d}", bExists);
  choirBufResult(&b, p->pCtx);
  choirBufFree(&b);
  choirQdrantClose(&to);
}

/* What is looked for by value, and the preview by its words. */
static const struct {
  const char *zField, *zSchema;
} aSqlIndex[] = {
    {"user_id", "{\"type\":\"keyword\",\"is_tenant\":true}"},
    {"artifact_id", "\"keyword\""},
    {"path", "\"keyword\""},
    {"updated_at", "\"integer\""},
    {"content_preview",
     "{\"type\":\"text\",\"tokenizer\":\"word\",\"lowercase\":true}"},
};

static void sqlMake(Qdrant *p, ChoirErr *pErr, const char *zSparse) {
  const ChoirEmbedModel *pModel = choirEmbedModel(p->pConn, pErr);
  QdrantReply reply;
  ChoirBuf b;
  if (pModel == NULL) {
    return;
  }
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "{\"vectors\":");
  if (p->zVector) {
    choirBufText(&b, "{");
    choirBufJson(&b, p->zVector, -1);
    choirBufText(&b, ":");
  }
  choirBufPrintf(&b, "{\"size\":%d,\"distance\":\"Cosine\"}%s", pModel->nDim,
                 p->zVector ? "}" : "");
  if (zSparse) {
    choirBufText(&b, ",\"sparse_vectors\":{");
    choirBufJson(&b, zSparse, -1);
    choirBufText(&b, ":{}}");
  }
  choirBufText(&b, ",\"hnsw_config\":{\"m\":0,\"payload_m\":16},"
                   "\"metadata\":{\"choir_model\":");
  choirBufJson(&b, pModel->zName, -1);
  choirBufText(&b, "}}");
  choirQdrantSend(p, pErr, &reply, "PUT", "", &b, 0);
  choirQdrantReplyFree(&reply);
  choirBufFree(&b);
}

/* zSchema: JSON. */
static void sqlMakeIndex(Qdrant *p, ChoirErr *pErr, const char *zField,
                         const char *zSchema) {
  QdrantReply reply;
  ChoirBuf b;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "{\"field_name\":");
  choirBufJson(&b, zField, -1);
  choirBufText(&b, ",\"field_schema\":");
  choirBufText(&b, zSchema);
  choirBufText(&b, "}");
  choirQdrantSend(p, pErr, &reply, "PUT", "index?wait=true", &b, 1);
  choirQdrantDone(p, pErr, &reply);
  choirQdrantReplyFree(&reply);
  choirBufFree(&b);
}

/*
** SQL: qdrant_index(key, type[, collection]) -> INTEGER
**
** Makes the server's index on a member of the payload, which qdrant_facet,
** order_by and fast filters need, and returns 1. One that is there stays.
**
**   key         TEXT, a member of the payload
**   type        TEXT: keyword, integer, float, bool, datetime, uuid, geo or text
**   collection  TEXT, default the setting qdrant.collection
**
** NULL: an error, but for the collection.
** Errors: no user; no server; its refusals; another type.
** Source: https://api.qdrant.tech/api-reference/indexes/create-field-index
**
** > SELECT qdrant_index('lang', 'keyword')
** ! qdrant_index: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void sqlIndex(ChoirCall *p) {
  static const char *const azType[] = {"keyword",  "integer", "float", "bool",
                                       "datetime", "uuid",    "geo",   "text"};
  const char *zCollection =
      p->nArg > 2 ? choirArgTextOrNull(&p->err, p->apArg[2], "collection")
                  : NULL;
  const char *zKey = choirArgText(&p->err, p->apArg[0], "key");
  const char *zType = choirArgText(&p->err, p->apArg[1], "type");
  char zSchema[16] = "";
  Qdrant to;
  int i;
  choirQdrantOpen(p->pConn, &p->err, &to, zCollection);
  for (i = 0; zType && i < 8; i++) {
    if (strcmp(azType[i], zType) == 0) {
      sqlite3_snprintf(sizeof(zSchema), zSchema, "\"%s\"", zType);
    }
  }
  if (zSchema[0] == 0) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "type must be keyword, integer, float, bool, datetime, uuid,"
                " geo or text, got '%.20s'",
                zType ? zType : "");
  }
  sqlMakeIndex(&to, &p->err, zKey ? zKey : "", zSchema);
  sqlite3_result_int(p->pCtx, 1);
  choirQdrantClose(&to);
}

/*
** SQL: qdrant_init([collection[, sparse]]) -> TEXT
**
** Makes the collection when it is not there: vectors of the configured model's
** length, named by the setting qdrant.vector if there is one, Cosine, an index
** of points per user, and indexes on user_id (as the tenant), artifact_id,
** path, updated_at and the words of content_preview. Returns a JSON object:
** collection, created (0: it was there), dimensions and model. Safe to repeat;
** it never changes a collection's vectors.
**
**   collection  TEXT, default the setting qdrant.collection
**   sparse      TEXT, the name of a sparse vector beside the other
**
** NULL: as not given.
** Errors: no user; no server; its refusals; a server before 1.16; a collection
** of another model or dimension.
** Source: https://qdrant.tech/documentation/guides/multitenancy/
**
** > SELECT qdrant_init()
** ! qdrant_init: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void sqlInit(ChoirCall *p) {
  const char *zCollection =
      p->nArg ? choirArgTextOrNull(&p->err, p->apArg[0], "collection") : NULL;
  const ChoirEmbedModel *pModel;
  Qdrant to;
  ChoirBuf b;
  int bMake, iVersion, i;
  choirQdrantOpen(p->pConn, &p->err, &to, zCollection);
  choirQdrantForget(p->pConn);
  iVersion = choirQdrantVersion(&to, &p->err);
  if (p->err.rc == SQLITE_OK && iVersion < 1016) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "%s runs Qdrant %d.%d and choir needs 1.16 or newer", to.zUrl,
                iVersion / 1000, iVersion % 1000);
  }
  bMake = !sqlExists(&to, &p->err);
  if (bMake) {
    sqlMake(&to, &p->err,
            p->nArg > 1 ? choirArgTextOrNull(&p->err, p->apArg[1], "sparse")
                        : NULL);
  }
  pModel = choirQdrantModel(&to, &p->err);
  for (i = 0; i < (int)(sizeof(aSqlIndex) / sizeof(aSqlIndex[0])); i++) {
    sqlMakeIndex(&to, &p->err, aSqlIndex[i].zField, aSqlIndex[i].zSchema);
  }
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirBufText(&b, "{\"collection\":");
  choirBufJson(&b, to.zCollection ? to.zCollection : "", -1);
  choirBufPrintf(&b, ",\"created\":%d,\"dimensions\":%d,\"model\":", bMake,
                 pModel ? pModel->nDim : 0);
  choirBufJson(&b, pModel ? pModel->zName : "", -1);
  choirBufText(&b, "}");
  choirBufResult(&b, p->pCtx);
  choirBufFree(&b);
  choirQdrantClose(&to);
}

static const ChoirFunc aRequestFunc[] = {
    {"qdrant_count", 0, 2, CHOIR_EFFECT, 0, sqlCount, NULL},
    {"qdrant_ping", 0, 0, CHOIR_EFFECT, 0, sqlPing, NULL},
    {"qdrant_index", 2, 3, CHOIR_EFFECT, 0, sqlIndex, NULL},
    {"qdrant_init", 0, 2, CHOIR_EFFECT, 0, sqlInit, NULL},
};

static const ChoirTvf aRequestTvf[] = {
    {"qdrant_groups",
     "group_id, rank, score, id, artifact_id, path, preview, payload,"
     " query HIDDEN, collection HIDDEN, group_by HIDDEN, k HIDDEN,"
     " group_size HIDDEN, filter HIDDEN, vector_name HIDDEN, fusion HIDDEN,"
     " vectors HIDDEN",
     8, 1, 9, CHOIR_EFFECT, 0, 0, sqlGroups, NULL, NULL, NULL},
    {"qdrant_facet",
     "value, count, key HIDDEN, collection HIDDEN, filter HIDDEN, k HIDDEN", 2,
     1, 4, CHOIR_EFFECT, 0, 0, sqlFacet, NULL, NULL, NULL},
    {"qdrant_collections", "name, dimensions, distance, model, vector", 5, 0, 0,
     CHOIR_EFFECT, 0, 0, sqlCollections, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirQdrantSqlRegister(ChoirConn *pConn,
                                                     ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aRequestFunc);
  choirTvfs(pConn, pErr, aRequestTvf);
}

CHOIR_PRIVATE CHOIR_COLD void choirQdrantRegister(ChoirConn *pConn,
                                                  ChoirErr *pErr) {
  choirQdrantTableRegister(pConn, pErr);
  choirQdrantFilterRegister(pConn, pErr);
  choirQdrantWriteRegister(pConn, pErr);
  choirQdrantFlushRegister(pConn, pErr);
  choirQdrantSqlRegister(pConn, pErr);
  choirQdrantEachRegister(pConn, pErr);
}
