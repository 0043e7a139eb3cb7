/* SPDX-License-Identifier: MIT */
/*
** Points on their way to the server: qdrant_upsert, qdrant_delete and
** qdrant_set_payload.
**
** A point's id is derived from the user, the artifact and the chunk
** (docs/formats.md), so sending one twice changes nothing, and a request whose
** reply was lost may be sent again. A point that has that id and belongs to
** somebody else is left alone by update_filter, which Qdrant knows since 1.16.
** Deleting and changing is done by the tenant's filter, never by ids.
**
** choir writes user_id, artifact_id, chunk and model of the payload.
*/
#include "qdrant.h"
#include <stdlib.h>

#define WRITE_PREVIEW 300 /* bytes of text in content_preview */

/* -------------------------------------------------------------------- ids */

CHOIR_PRIVATE void choirQdrantId(ChoirErr *pErr, const char *zUser,
                                 const char *zArtifact, i64 iChunk,
                                 char z[37]) {
  /* 9a6e3a5e-51c4-5d0c-9a14-5a1dbd4f3c21: choir's points */
  static const u8 aSpace[16] = {0x9a, 0x6e, 0x3a, 0x5e, 0x51, 0xc4, 0x5d, 0x0c,
                                0x9a, 0x14, 0x5a, 0x1d, 0xbd, 0x4f, 0x3c, 0x21};
  u8 aId[20] = {0};
  ChoirBuf b;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufAppend(&b, aSpace, sizeof(aSpace));
  choirBufPrintf(&b, "%s\x1f%s\x1f%lld", zUser, zArtifact, iChunk);
  if (pErr->rc == SQLITE_OK) {
    choirSha1(b.a, b.n, aId);
  }
  choirBufFree(&b);
  choirUuid(aId, 5, z);
}

/* ----------------------------------------------------------------- points */

CHOIR_PRIVATE void choirQdrantPointFree(QdrantPoint *p) {
  sqlite3_free(p->zArtifact);
  sqlite3_free(p->zText);
  sqlite3_free(p->aVector);
  sqlite3_free(p->zPayload);
  sqlite3_free(p->zVectors);
  memset(p, 0, sizeof(*p));
}

CHOIR_PRIVATE void choirQdrantPointsFree(QdrantPoints *p) {
  while (p->n > 0) {
    choirQdrantPointFree(&p->a[--p->n]);
  }
  p->nByte = 0;
}

/* The vectors of those that have none yet. */
static void writeEmbed(QdrantPoints *p, ChoirErr *pErr) {
  const char *azText[QDRANT_BATCH];
  i64 anText[QDRANT_BATCH];
  int aAt[QDRANT_BATCH];
  int i, n = 0, nDim;
  float *a;
  for (i = 0; i < p->n; i++) {
    if (p->a[i].zText && p->a[i].aVector == NULL) {
      azText[n] = p->a[i].zText;
      anText[n] = p->a[i].nText;
      aAt[n++] = i;
    }
  }
  if (n == 0 || pErr->rc != SQLITE_OK) {
    return;
  }
  nDim = p->pModel->nDim;
  a = choirMalloc(pErr, (u64)n * (u64)nDim * sizeof(float));
  if (a) {
    choirEmbedBatch(p->pTo->pConn, pErr, p->pModel, azText, anText, n,
                    CHOIR_EMBED_DOCUMENT, a);
  }
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
    float *aOne = choirMalloc(pErr, (u64)nDim * sizeof(float));
    if (aOne) {
      memcpy(aOne, a + (i64)i * nDim, (size_t)nDim * sizeof(float));
      p->a[aAt[i]].aVector = aOne;
    }
  }
  sqlite3_free(a);
}

static void writePoint(QdrantPoints *p, ChoirBuf *b,
                       const QdrantPoint *pPoint) {
  char zId[37];
  choirQdrantId(b->pErr, p->pTo->zUser, pPoint->zArtifact, pPoint->iChunk, zId);
  choirBufPrintf(b, "{\"id\":\"%s\",\"vector\":", zId);
  if (p->pTo->zVector || pPoint->zVectors) {
    choirBufText(b, "{");
    choirBufJson(b, p->pTo->zVector ? p->pTo->zVector : "", -1);
    choirBufText(b, ":");
    choirQdrantPutFloats(b, pPoint->aVector, p->nDim);
    choirBufText(b, pPoint->zVectors ? pPoint->zVectors : "");
    choirBufText(b, "}");
  } else {
    choirQdrantPutFloats(b, pPoint->aVector, p->nDim);
  }
  choirBufText(b, ",\"payload\":{\"user_id\":");
  choirBufJson(b, p->pTo->zUser, -1);
  choirBufText(b, ",\"artifact_id\":");
  choirBufJson(b, pPoint->zArtifact, -1);
  choirBufPrintf(b, ",\"chunk\":%lld", pPoint->iChunk);
  if (pPoint->zText) {
    choirBufText(b, ",\"model\":");
    choirBufJson(b, p->pModel->zName, -1);
  }
  choirBufText(b, pPoint->zPayload ? pPoint->zPayload : "");
  choirBufText(b, "}}");
}

CHOIR_PRIVATE void choirQdrantPutEnd(QdrantPoints *p, ChoirErr *pErr) {
  QdrantReply reply;
  ChoirBuf b;
  int i;
  if (p->n == 0 || pErr->rc != SQLITE_OK) {
    choirQdrantPointsFree(p);
    return;
  }
  if (choirQdrantVersion(p->pTo, pErr) < 1016) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s runs Qdrant %d.%d, which would overwrite another user's"
                " point of the same id; 1.16 or newer does not",
                p->pTo->zUrl, choirQdrantVersion(p->pTo, pErr) / 1000,
                choirQdrantVersion(p->pTo, pErr) % 1000);
  }
  writeEmbed(p, pErr);
  choirBufInit(&b, pErr, QDRANT_REQUEST);
  choirBufText(&b, "{");
  choirQdrantFilterOpen(p->pTo, &b, "update_filter");
  choirBufText(&b, "]},\"points\":[");
  for (i = 0; i < p->n && pErr->rc == SQLITE_OK; i++) {
    choirBufText(&b, i ? "," : "");
    writePoint(p, &b, &p->a[i]);
  }
  choirBufText(&b, "]}");
  choirQdrantSend(p->pTo, pErr, &reply, "PUT", "points?wait=true", &b, 1);
  choirQdrantDone(p->pTo, pErr, &reply);
  choirQdrantReplyFree(&reply);
  choirBufFree(&b);
  if (pErr->rc == SQLITE_OK) {
    p->nSent += p->n;
  }
  choirQdrantPointsFree(p);
}

CHOIR_PRIVATE void choirQdrantPut(QdrantPoints *p, ChoirErr *pErr,
                                  QdrantPoint *pPoint) {
  if (pErr->rc == SQLITE_OK && p->nDim == 0) {
    const QdrantInfo *pInfo = choirQdrantInfo(p->pTo, pErr);
    p->nDim = pInfo ? pInfo->nDim : 0;
    if (pInfo && p->nDim == 0 && p->pTo->zVector) {
      choirErrSet(pErr, SQLITE_ERROR, "collection '%s' has no vector '%s'",
                  p->pTo->zCollection, p->pTo->zVector);
    } else if (pInfo && p->nDim == 0) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "collection '%s' has no vector without a name; run select"
                  " choir_config('qdrant.vector', …)",
                  p->pTo->zCollection);
    }
  }
  if (pErr->rc == SQLITE_OK && pPoint->zText && p->pModel == NULL) {
    p->pModel = choirQdrantModel(p->pTo, pErr);
  }
  if (pErr->rc != SQLITE_OK) {
    choirQdrantPointFree(pPoint);
    return;
  }
  p->a[p->n++] = *pPoint;
  p->nByte += pPoint->nText + 12 * (i64)p->nDim +
              (i64)(pPoint->zPayload ? strlen(pPoint->zPayload) : 0) +
              (i64)(pPoint->zVectors ? strlen(pPoint->zVectors) : 0) + 200;
  memset(pPoint, 0, sizeof(*pPoint));
  if (p->n == QDRANT_BATCH || p->nByte >= QDRANT_BATCH_BYTES) {
    choirQdrantPutEnd(p, pErr);
  }
}

CHOIR_PRIVATE void choirQdrantDelete(Qdrant *p, ChoirErr *pErr,
                                     const ChoirBuf *pConditions) {
  QdrantReply reply;
  ChoirBuf b;
  choirBufInit(&b, pErr, QDRANT_REQUEST);
  choirBufText(&b, "{");
  choirQdrantFilterOpen(p, &b, "filter");
  choirBufText(&b, ",{\"should\":[");
  choirBufAppend(&b, pConditions->a, pConditions->n);
  choirBufText(&b, "]}]}}");
  choirQdrantSend(p, pErr, &reply, "POST", "points/delete?wait=true", &b, 1);
  choirQdrantDone(p, pErr, &reply);
  choirQdrantReplyFree(&reply);
  choirBufFree(&b);
}

/* ---------------------------------------------------------------- upsert */

typedef struct WriteRun { /* an aggregate's state */
  int bOpen, bFailed;
  Qdrant to;
  QdrantPoints points;
  ChoirErr err;   /* where the buffer's failures stick */
  ChoirBuf names; /* of qdrant_delete: a JSON list */
  int nName;
  i64 nDeleted;
} WriteRun;

static WriteRun *writeRun(ChoirCall *p) {
  WriteRun *pRun = sqlite3_aggregate_context(p->pCtx, sizeof(*pRun));
  if (pRun == NULL) {
    choirErrNomem(&p->err);
    return NULL;
  }
  if (!pRun->bOpen && p->err.rc == SQLITE_OK) {
    choirQdrantOpen(p->pConn, &p->err, &pRun->to, NULL);
    pRun->points.pTo = &pRun->to;
    choirBufInit(&pRun->names, &pRun->err, QDRANT_REQUEST);
    pRun->bOpen = 1;
  }
  return pRun;
}

static void writeRunFree(WriteRun *p) {
  choirQdrantPointsFree(&p->points);
  choirQdrantClose(&p->to);
  choirBufFree(&p->names);
  choirErrClear(&p->err);
}

/* Members of the user's payload, each after a comma, keys written anew so that
** none can be one of choir's in disguise. */
static char *writePayload(ChoirCall *p, sqlite3_value *v, int *pbPreview) {
  static const char *const azOwn[] = {"user_id", "artifact_id", "chunk",
                                      "model"};
  const char *z = v && sqlite3_value_type(v) != SQLITE_NULL
                      ? choirArgJson(p->pConn, &p->err, v, "payload")
                      : "{}";
  QdrantSpan all = {z, z ? (i64)strlen(z) : 0}, inside, key, value;
  ChoirBuf b;
  choirBufInit(&b, &p->err, QDRANT_BATCH_BYTES);
  choirBufText(&b, "");
  while (all.n && strchr(" \t\r\n", all.z[0])) {
    all.z++;
    all.n--;
  }
  while (all.n && strchr(" \t\r\n", all.z[all.n - 1])) {
    all.n--;
  }
  if (p->err.rc == SQLITE_OK && (all.n < 2 || all.z[0] != '{')) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "payload must be a JSON object, got %.60s", z);
  }
  inside = choirQdrantInside(all);
  while (p->err.rc == SQLITE_OK && choirQdrantNext(&inside, &key, &value)) {
    i64 n;
    int i;
    char *zKey = choirQdrantText(&p->err, key, &n);
    for (i = 0; zKey && i < 4; i++) {
      if (strcmp(zKey, azOwn[i]) == 0) {
        choirErrSet(&p->err, SQLITE_ERROR,
                    "payload has '%s', which choir writes itself", azOwn[i]);
      }
    }
    *pbPreview |= zKey && strcmp(zKey, "content_preview") == 0;
    choirBufText(&b, ",");
    choirBufJson(&b, zKey ? zKey : "", n);
    choirBufText(&b, ":");
    choirBufAppend(&b, value.z, (u64)value.n);
    sqlite3_free(zKey);
  }
  return choirBufTake(&b);
}

/* The first bytes of a text, whole characters. */
static i64 writePreview(const char *z, i64 n) {
  return n <= WRITE_PREVIEW ? n : choirUtf8Valid(z, WRITE_PREVIEW);
}

/* The fifth argument: vectors beside the one that choir writes. */
static char *writeVectors(ChoirCall *p, const Qdrant *pTo, sqlite3_value *v) {
  char *z = choirQdrantObject(p->pConn, &p->err, v, "vectors",
                              "it is name: vector, dense or with indices and"
                              " values");
  QdrantSpan all = {z, z ? (i64)strlen(z) : 0}, inside, key, value;
  ChoirBuf b;
  if (z == NULL) {
    return NULL;
  }
  choirBufInit(&b, &p->err, QDRANT_BATCH_BYTES);
  inside = choirQdrantInside(all);
  while (p->err.rc == SQLITE_OK && choirQdrantNext(&inside, &key, &value)) {
    if (choirQdrantIs(key, pTo->zVector ? pTo->zVector : "")) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "vectors has %.*s, which is the third argument's",
                  (int)(key.n < 60 ? key.n : 60), key.z);
    }
    choirBufText(&b, ",");
    choirBufAppend(&b, key.z, (u64)key.n);
    choirBufText(&b, ":");
    choirQdrantPutVector(&b, key, value);
  }
  sqlite3_free(z);
  z = b.n ? choirBufTake(&b) : NULL;
  choirBufFree(&b);
  return z;
}

/* The third argument: text to embed, or a vector. */
static void writeVector(ChoirCall *p, QdrantPoints *pPoints,
                        QdrantPoint *pPoint, sqlite3_value *v) {
  if (sqlite3_value_type(v) == SQLITE_BLOB) {
    int n = sqlite3_value_bytes(v);
    const QdrantInfo *pInfo = choirQdrantInfo(pPoints->pTo, &p->err);
    if (pInfo && n != 4 * pInfo->nDim) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "the vector of artifact '%.60s' has %d bytes and collection"
                  " '%s' takes %d (%d dimensions)",
                  pPoint->zArtifact, n, pPoints->pTo->zCollection,
                  4 * pInfo->nDim, pInfo->nDim);
    }
    pPoint->aVector = choirMalloc(&p->err, (u64)n);
    if (pPoint->aVector) {
      memcpy(pPoint->aVector, sqlite3_value_blob(v), (size_t)n);
      choirLittleEndian(pPoint->aVector, (u64)n, sizeof(float));
    }
  } else {
    const char *z = choirArgText(&p->err, v, "text_or_vector");
    pPoint->zText = choirMprintf(&p->err, "%s", z ? z : "");
    pPoint->nText = z ? sqlite3_value_bytes(v) : 0;
  }
}

/*
** SQL: aggregate qdrant_upsert(artifact_id, chunk, text_or_vector[, payload[,
**   vectors]]) -> INTEGER
**
** Sends the rows of a query as points of the configured collection, in requests
** of 64, and returns how many. Text is embedded in batches. Every point belongs
** to the configured user; its id follows from user, artifact and chunk, so the
** same row again replaces it. When a row fails, those of earlier requests stay
** sent.
**
**   artifact_id     TEXT
**   chunk           INTEGER, 0 and up, the piece of the artifact
**   text_or_vector  TEXT, or a BLOB of as many 32-bit floats as the collection
**                   has dimensions
**   payload         TEXT, a JSON object without user_id, artifact_id, chunk and
**                   model; content_preview is made from the text where missing
**   vectors         TEXT, a JSON object of the point's other vectors, name:
**                   [1, 2] or name: {"indices":[7],"values":[0.5]}
**
** text_or_vector is the vector that the setting qdrant.vector names, or the one
** without a name.
** NULL: rows whose text_or_vector is NULL are passed over; a NULL payload or
** vectors is none.
** Errors: no user; no server; its refusals; a server before 1.16; another
** model or dimension than the collection's; a payload that is not an object.
** Source: https://api.qdrant.tech/api-reference/points/upsert-points
**
** > SELECT qdrant_upsert('a1', 0, 'text', '{"user_id":"eve"}')
** ! qdrant_upsert: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void writeUpsert(ChoirCall *p) {
  WriteRun *pRun = writeRun(p);
  QdrantPoint point;
  const char *zArtifact;
  int bPreview = 0;
  memset(&point, 0, sizeof(point));
  if (pRun == NULL || sqlite3_value_type(p->apArg[2]) == SQLITE_NULL) {
    return;
  }
  zArtifact = choirArgText(&p->err, p->apArg[0], "artifact_id");
  point.iChunk = choirArgInt(&p->err, p->apArg[1], "chunk", 0, (i64)1 << 40);
  point.zArtifact = choirMprintf(&p->err, "%s", zArtifact ? zArtifact : "");
  if (p->err.rc == SQLITE_OK && (!zArtifact[0] || strlen(zArtifact) > 1000)) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "artifact_id must have 1 to 1000 bytes, got %d",
                (int)strlen(zArtifact));
  }
  point.zPayload = writePayload(p, p->nArg > 3 ? p->apArg[3] : NULL, &bPreview);
  point.zVectors = writeVectors(p, &pRun->to, p->nArg > 4 ? p->apArg[4] : NULL);
  writeVector(p, &pRun->points, &point, p->apArg[2]);
  if (p->err.rc == SQLITE_OK && point.zText && !bPreview) {
    ChoirBuf b;
    choirBufInit(&b, &p->err, QDRANT_BATCH_BYTES);
    choirBufText(&b, point.zPayload);
    choirBufText(&b, ",\"content_preview\":");
    choirBufJson(&b, point.zText, writePreview(point.zText, point.nText));
    sqlite3_free(point.zPayload);
    point.zPayload = choirBufTake(&b);
  }
  choirQdrantPut(&pRun->points, &p->err, &point);
  pRun->bFailed |= p->err.rc != SQLITE_OK;
}

static void writeUpsertFinal(ChoirCall *p) {
  WriteRun *pRun = sqlite3_aggregate_context(p->pCtx, 0);
  if (pRun && pRun->bOpen) {
    if (!pRun->bFailed) {
      choirQdrantPutEnd(&pRun->points, &p->err);
    }
    sqlite3_result_int64(p->pCtx, pRun->points.nSent);
    writeRunFree(pRun);
  } else {
    sqlite3_result_int(p->pCtx, 0);
  }
}

/* ---------------------------------------------------------------- delete */

static void writeDeleteSend(WriteRun *p, ChoirErr *pErr) {
  ChoirBuf b;
  if (p->nName == 0 || pErr->rc != SQLITE_OK) {
    return;
  }
  choirBufInit(&b, pErr, QDRANT_REQUEST);
  choirBufText(&b, "{\"key\":\"artifact_id\",\"match\":{\"any\":[");
  choirBufAppend(&b, p->names.a, p->names.n);
  choirBufText(&b, "]}}");
  choirQdrantDelete(&p->to, pErr, &b);
  choirBufFree(&b);
  p->nDeleted += p->nName;
  p->nName = 0;
  p->names.n = 0;
}

/*
** SQL: aggregate qdrant_delete(artifact_id) -> INTEGER
**
** Deletes all points of the user's artifacts that a query names from the
** configured collection and returns how many artifacts were named. An artifact
** without points is no error.
**
**   artifact_id  TEXT
**
** NULL: passed over.
** Errors: no user; no server; its refusals.
** Source: https://api.qdrant.tech/api-reference/points/delete-points
**
** > SELECT qdrant_delete('a1')
** ! qdrant_delete: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void writeDelete(ChoirCall *p) {
  WriteRun *pRun = writeRun(p);
  const char *z;
  if (pRun == NULL || sqlite3_value_type(p->apArg[0]) == SQLITE_NULL) {
    return;
  }
  z = choirArgText(&p->err, p->apArg[0], "artifact_id");
  if (p->err.rc == SQLITE_OK) {
    choirBufText(&pRun->names, pRun->nName++ ? "," : "");
    choirBufJson(&pRun->names, z, -1);
    if (pRun->err.rc != SQLITE_OK) {
      choirErrSet(&p->err, pRun->err.rc, "%s",
                  pRun->err.zMsg ? pRun->err.zMsg : "out of memory");
    } else if (pRun->nName == QDRANT_BATCH * 4) {
      writeDeleteSend(pRun, &p->err);
    }
  }
  pRun->bFailed |= p->err.rc != SQLITE_OK;
}

static void writeDeleteFinal(ChoirCall *p) {
  WriteRun *pRun = sqlite3_aggregate_context(p->pCtx, 0);
  if (pRun && pRun->bOpen) {
    if (!pRun->bFailed) {
      writeDeleteSend(pRun, &p->err);
    }
    sqlite3_result_int64(p->pCtx, pRun->nDeleted);
    writeRunFree(pRun);
  } else {
    sqlite3_result_int(p->pCtx, 0);
  }
}

/* ---------------------------------------------------------------- payload */

/*
** SQL: qdrant_set_payload(filter, payload[, collection]) -> INTEGER
**
** Sets members of the payload of the user's points that a filter finds and
** returns how many those are. Members that are not named stay as they are.
**
**   filter      TEXT, from qdrant_filter() or Qdrant's JSON; '{}' for all of the
**               user's points
**   payload     TEXT, a JSON object without user_id, artifact_id, chunk and model
**   collection  TEXT, default the setting qdrant.collection
**
** NULL: a NULL filter or payload is an error.
** Errors: no user; no server; its refusals; a payload that is not an object.
** Source: https://api.qdrant.tech/api-reference/points/set-payload
**
** > SELECT qdrant_set_payload(qdrant_filter('path', '=', '/a.md'), '{"lang":"en"}')
** ! qdrant_set_payload: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void writeSetPayload(ChoirCall *p) {
  int bPreview = 0, i;
  char *zPayload;
  QdrantReply reply;
  Qdrant to;
  ChoirBuf b;
  choirQdrantOpen(p->pConn, &p->err, &to,
                  p->nArg > 2
                      ? choirArgTextOrNull(&p->err, p->apArg[2], "collection")
                      : NULL);
  for (i = 0; i < 2; i++) { /* what is missing must not mean everything */
    choirArgText(&p->err, p->apArg[i], i ? "payload" : "filter");
  }
  zPayload = writePayload(p, p->apArg[1], &bPreview);
  choirBufInit(&b, &p->err, QDRANT_REQUEST);
  choirBufText(&b, "{");
  choirQdrantFilterOpen(&to, &b, "filter");
  choirQdrantFilterUser(p->pConn, &b, p->apArg[0]);
  choirBufText(&b, "]},\"payload\":{");
  choirBufText(&b, zPayload && zPayload[0] ? zPayload + 1 : ""); /* a comma */
  choirBufText(&b, "}}");
  choirQdrantSend(&to, &p->err, &reply, "POST", "points/payload?wait=true", &b,
                  1);
  choirQdrantDone(&to, &p->err, &reply);
  choirQdrantReplyFree(&reply);
  choirBufFree(&b);
  sqlite3_free(zPayload);
  sqlite3_result_int64(p->pCtx, choirQdrantCount(&to, &p->err, p->apArg[0]));
  choirQdrantClose(&to);
}

static const ChoirFunc aWriteFunc[] = {
    {"qdrant_upsert", 3, 5, CHOIR_EFFECT, 0, writeUpsert, writeUpsertFinal},
    {"qdrant_delete", 1, 1, CHOIR_EFFECT, 0, writeDelete, writeDeleteFinal},
    {"qdrant_set_payload", 2, 3, CHOIR_EFFECT, 0, writeSetPayload, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirQdrantWriteRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aWriteFunc);
}
