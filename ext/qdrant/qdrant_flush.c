/* SPDX-License-Identifier: MIT */
/*
** qdrant_flush: the workspace's artifacts, messages and memories as points.
**
** Its place in the log is the consumer 'qdrant' of _choir_cursor. Two values of
** _choir_meta go with it: qdrant.target (the URL, collection, user, model and
** named vector that the place is of; another one begins anew) and qdrant.full (where a pass
** over everything has got to). A group of documents is read,
** sent, and only then is the place moved on, in a transaction of its own: what
** was sent and not noted is sent again, which changes nothing.
**
** The place moves when there were records of documents, or a thousand others.
** One about a sync or a task does not count, so a workspace at rest stays byte
** for byte as it is.
*/
#include "../store/store.h"
#include "qdrant.h"
#include <stdlib.h>

#define FLUSH_GROUP 64 /* documents between two notes of the place */
#define FLUSH_LAG 1000 /* records of others that the place may be behind */

enum { FLUSH_ARTIFACT, FLUSH_MESSAGE, FLUSH_MEMORY, FLUSH_KINDS };

/* Columns of zOne: content, path, mime type, updated_at, context. */
static const struct {
  const char *zKind, *zTable, *zOne, *zNext;
} aFlushKind[FLUSH_KINDS] = {
    {"artifact", "artifacts",
     "SELECT content, path, mime_type, updated_at, NULL FROM ~.artifacts"
     " WHERE id=?1 AND deleted_at IS NULL",
     "SELECT id FROM ~.artifacts WHERE id > ?1 AND deleted_at IS NULL"
     " ORDER BY id LIMIT ?2"},
    {"message", "messages",
     "SELECT content, NULL, NULL, timestamp, conversation_id FROM ~.messages"
     " WHERE id=?1",
     "SELECT id FROM ~.messages WHERE id > ?1 ORDER BY id LIMIT ?2"},
    {"memory", "memories",
     "SELECT content, NULL, NULL, updated_at, persona_id FROM ~.memories"
     " WHERE id=?1",
     "SELECT id FROM ~.memories WHERE id > ?1 ORDER BY id LIMIT ?2"},
};

typedef struct FlushDoc {
  int eKind;
  char *zId; /* owned */
  i64 iSeq;
} FlushDoc;

typedef struct FlushRun {
  ChoirConn *pConn;
  ChoirErr *pErr;
  Qdrant to;
  QdrantPoints points;
  char *zLineage; /* which workspace these documents are of */
  int n;          /* documents of the group */
  FlushDoc a[FLUSH_GROUP];
  ChoirBuf stale; /* conditions on points that are no longer right */
  int nStale;
  i64 nMax, nSent, nRemoved;
} FlushRun;

/* -------------------------------------------------------------- the place */

static i64 flushCursor(ChoirConn *pConn, ChoirErr *pErr) {
  return choirQueryInt(pConn, pErr,
                       "SELECT seq FROM ~._choir_cursor"
                       " WHERE consumer='qdrant'",
                       -1);
}

static i64 flushTail(ChoirConn *pConn, ChoirErr *pErr) {
  return choirQueryInt(pConn, pErr,
                       "SELECT coalesce(max(seq), 0) FROM ~.action_log", 0);
}

static void flushSetCursor(ChoirConn *pConn, ChoirErr *pErr, i64 iSeq) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "INSERT INTO ~._choir_cursor(consumer, seq) VALUES('qdrant',"
                " ?1) ON CONFLICT(consumer) DO UPDATE SET seq=?1"
                " WHERE seq<>?1");
  choirBindInt(pErr, p, 1, iSeq);
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

/* One transaction of the host's file, short and without a request in it. */
static void flushNote(FlushRun *p, i64 iSeq, const char *zFull) {
  ChoirTxn txn;
  choirTxnBegin(&txn, p->pConn, p->pErr);
  if (iSeq >= 0) {
    flushSetCursor(p->pConn, p->pErr, iSeq);
  }
  if (zFull) {
    choirMetaSet(p->pConn, p->pErr, "qdrant.full", zFull);
  }
  choirTxnEnd(&txn, p->pErr);
}

/* Begins anew when the place is of another target, or is no place. */
static void flushBegin(FlushRun *p) {
  char *zHave = choirMetaGet(p->pConn, p->pErr, "qdrant.target");
  char *zWant = choirMprintf(
      p->pErr, "%s %s %s %s%s%s", p->to.zUrl, p->to.zCollection, p->to.zUser,
      p->points.pModel ? p->points.pModel->zName : "", p->to.zVector ? " " : "",
      p->to.zVector ? p->to.zVector : "");
  i64 iTail = choirQueryInt(
      p->pConn, p->pErr, "SELECT coalesce(max(seq), 0) FROM ~.action_log", 0);
  i64 iSeq = flushCursor(p->pConn, p->pErr);
  if (p->pErr->rc == SQLITE_OK && (zHave == NULL || strcmp(zHave, zWant) != 0 ||
                                   iSeq < 0 || iSeq > iTail)) {
    ChoirTxn txn;
    choirTxnBegin(&txn, p->pConn, p->pErr);
    choirMetaSet(p->pConn, p->pErr, "qdrant.target", zWant);
    choirMetaSet(p->pConn, p->pErr, "qdrant.full", "0 ");
    flushSetCursor(p->pConn, p->pErr, iTail);
    choirTxnEnd(&txn, p->pErr);
  }
  sqlite3_free(zHave);
  sqlite3_free(zWant);
}

/* --------------------------------------------------------------- one group */

static void flushGroupFree(FlushRun *p) {
  while (p->n > 0) {
    sqlite3_free(p->a[--p->n].zId);
  }
}

static void flushAdd(FlushRun *p, int eKind, sqlite3_stmt *pStmt, int iCol,
                     i64 iSeq) {
  const char *z = (const char *)sqlite3_column_text(pStmt, iCol);
  FlushDoc *pDoc = &p->a[p->n];
  pDoc->eKind = eKind;
  pDoc->iSeq = iSeq;
  pDoc->zId = choirMprintf(p->pErr, "%s", z ? z : "");
  p->n += pDoc->zId != NULL;
}

static i64 flushRoom(const FlushRun *p) {
  i64 n = p->nMax - p->nSent - p->nRemoved;
  return n < FLUSH_GROUP ? n : FLUSH_GROUP;
}

/* The next documents that the log names, in the order of their last change:
** when that far is done, every earlier record of them is, too. */
static void flushFromLog(FlushRun *p, i64 iFrom) {
  sqlite3_stmt *pStmt = choirStmt(
      p->pConn, p->pErr,
      "SELECT tbl, pk, max(seq) FROM ~.action_log WHERE seq > ?1 AND tbl IN"
      " ('artifacts', 'messages', 'memories') AND pk IS NOT NULL"
      " GROUP BY tbl, pk ORDER BY 3 LIMIT ?2");
  choirBindInt(p->pErr, pStmt, 1, iFrom);
  choirBindInt(p->pErr, pStmt, 2, flushRoom(p));
  while (choirStep(p->pErr, pStmt)) {
    const char *zTable = (const char *)sqlite3_column_text(pStmt, 0);
    int i;
    for (i = 0; zTable && i < FLUSH_KINDS; i++) {
      if (strcmp(zTable, aFlushKind[i].zTable) == 0) {
        flushAdd(p, i, pStmt, 1, sqlite3_column_int64(pStmt, 2));
      }
    }
  }
  choirStmtDone(p->pConn, pStmt);
}

static void flushFromTable(FlushRun *p, int eKind, const char *zAfter) {
  sqlite3_stmt *pStmt = choirStmt(p->pConn, p->pErr, aFlushKind[eKind].zNext);
  choirBindText(p->pErr, pStmt, 1, zAfter, -1);
  choirBindInt(p->pErr, pStmt, 2, flushRoom(p));
  while (choirStep(p->pErr, pStmt)) {
    flushAdd(p, eKind, pStmt, 0, 0);
  }
  choirStmtDone(p->pConn, pStmt);
}

/* ------------------------------------------------------------- a document */

typedef struct FlushText { /* a document's row, copied: no statement stays
                           ** open while a request runs */
  char *zContent, *zPath, *zMime, *zContext;
  i64 nContent, iTime;
  int bText, bThere;
} FlushText;

static char *flushCopy(ChoirErr *pErr, sqlite3_stmt *pStmt, int i) {
  const char *z = (const char *)sqlite3_column_text(pStmt, i);
  return z ? choirMprintf(pErr, "%s", z) : NULL;
}

static void flushRead(FlushRun *p, const FlushDoc *pDoc, FlushText *t) {
  sqlite3_stmt *pStmt =
      choirStmt(p->pConn, p->pErr, aFlushKind[pDoc->eKind].zOne);
  memset(t, 0, sizeof(*t));
  choirBindText(p->pErr, pStmt, 1, pDoc->zId, -1);
  if (choirStep(p->pErr, pStmt)) {
    int e = sqlite3_column_type(pStmt, 0);
    const void *a = e == SQLITE_BLOB ? sqlite3_column_blob(pStmt, 0)
                                     : sqlite3_column_text(pStmt, 0);
    t->bThere = 1;
    t->nContent = sqlite3_column_bytes(pStmt, 0);
    t->zPath = flushCopy(p->pErr, pStmt, 1);
    t->zMime = flushCopy(p->pErr, pStmt, 2);
    t->iTime = sqlite3_column_int64(pStmt, 3);
    t->zContext = flushCopy(p->pErr, pStmt, 4);
    t->bText = a && choirStoreIsText(t->zMime, a, t->nContent);
    if (t->bText) {
      t->zContent = choirMalloc(p->pErr, (u64)t->nContent + 1);
      if (t->zContent) {
        memcpy(t->zContent, a, (size_t)t->nContent);
      }
    }
  }
  choirStmtDone(p->pConn, pStmt);
}

static void flushTextFree(FlushText *t) {
  sqlite3_free(t->zContent);
  sqlite3_free(t->zPath);
  sqlite3_free(t->zMime);
  sqlite3_free(t->zContext);
}

static void flushMember(ChoirBuf *b, const char *zKey, const char *z, i64 n) {
  if (z) {
    choirBufPrintf(b, ",\"%s\":", zKey);
    choirBufJson(b, z, n);
  }
}

static void flushPoint(FlushRun *p, const FlushDoc *pDoc, const FlushText *t,
                       i64 iChunk, const char *z, i64 n) {
  static const char *const azContext[FLUSH_KINDS] = {"", "conversation_id",
                                                     "persona_id"};
  QdrantPoint point;
  ChoirBuf b;
  i64 nShow = n <= 300 ? n : choirUtf8Valid(z, 300);
  memset(&point, 0, sizeof(point));
  point.iChunk = iChunk;
  point.zArtifact = choirMprintf(p->pErr, "%s", pDoc->zId);
  point.zText = choirMprintf(p->pErr, "%.*s", (int)n, z);
  point.nText = n;
  choirBufInit(&b, p->pErr, QDRANT_BATCH_BYTES);
  flushMember(&b, "kind", aFlushKind[pDoc->eKind].zKind, -1);
  flushMember(&b, "workspace", p->zLineage, -1);
  flushMember(&b, "path", t->zPath, -1);
  flushMember(&b, "mime_type", t->zMime, -1);
  flushMember(&b, azContext[pDoc->eKind], t->zContext, -1);
  choirBufPrintf(&b, ",\"updated_at\":%lld", t->iTime);
  flushMember(&b, "content_preview", z, nShow);
  point.zPayload = choirBufTake(&b);
  choirQdrantPut(&p->points, p->pErr, &point);
}

/* Points of an artifact from a chunk on are to go. */
static void flushStale(FlushRun *p, const char *zId, i64 iFrom) {
  ChoirBuf *b = &p->stale;
  choirBufText(b, p->nStale++ ? ",{\"must\":[" : "{\"must\":[");
  choirBufText(b, "{\"key\":\"artifact_id\",\"match\":{\"value\":");
  choirBufJson(b, zId, -1);
  choirBufText(b, "}}");
  if (iFrom > 0) {
    choirBufPrintf(b, ",{\"key\":\"chunk\",\"range\":{\"gte\":%lld}}", iFrom);
  }
  choirBufText(b, "]}");
}

/* A document's chunks; of one without text its path. */
static void flushDoc(FlushRun *p, const FlushDoc *pDoc) {
  ChoirChunker c;
  FlushText t;
  i64 n = 0;
  flushRead(p, pDoc, &t);
  if (t.zContent) {
    choirChunkInit(&c, t.zContent, t.nContent, CHOIR_CHUNK_BYTES, 0);
    while (p->pErr->rc == SQLITE_OK && choirChunkNext(&c)) {
      flushPoint(p, pDoc, &t, n++, t.zContent + c.iStart, c.iEnd - c.iStart);
    }
  }
  if (t.bThere && n == 0 && t.zPath) {
    flushPoint(p, pDoc, &t, n++, t.zPath, (i64)strlen(t.zPath));
  }
  flushStale(p, pDoc->zId, n);
  p->nSent += t.bThere;
  p->nRemoved += !t.bThere;
  flushTextFree(&t);
  if (choirInterrupted(p->pConn)) {
    choirErrSet(p->pErr, SQLITE_INTERRUPT, "interrupted");
  }
}

static void flushSendStale(FlushRun *p) {
  if (p->nStale && p->pErr->rc == SQLITE_OK) {
    choirQdrantDelete(&p->to, p->pErr, &p->stale);
  }
  p->nStale = 0;
  p->stale.n = 0;
}

static void flushGroup(FlushRun *p) {
  int i;
  for (i = 0; i < p->n && p->pErr->rc == SQLITE_OK; i++) {
    flushDoc(p, &p->a[i]);
  }
  choirQdrantPutEnd(&p->points, p->pErr);
  flushSendStale(p);
}

/* ------------------------------------------------------------ a whole pass */

static int flushHas(FlushRun *p, int eKind, const char *zId) {
  sqlite3_stmt *pStmt = choirStmt(p->pConn, p->pErr, aFlushKind[eKind].zOne);
  int b;
  choirBindText(p->pErr, pStmt, 1, zId, -1);
  b = choirStep(p->pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  return b;
}

/* Points of this workspace whose document is gone: when the log does not tell
** what was deleted, the server is asked what it has. */
static void flushSweep(FlushRun *p) {
  QdrantScan scan;
  QdrantHit hit;
  if (p->zLineage == NULL) { /* somebody took it out of the file */
    return;
  }
  choirQdrantScanInit(&scan, p->pErr);
  choirQdrantOpen(p->pConn, p->pErr, &scan.to, p->to.zCollection);
  choirBufText(&scan.payload, "[\"user_id\",\"artifact_id\",\"kind\"]");
  choirBufText(&scan.filter, ",{\"key\":\"workspace\",\"match\":{\"value\":");
  choirBufJson(&scan.filter, p->zLineage, -1);
  choirBufText(&scan.filter, "}}");
  scan.nHint = 1000;
  while (choirQdrantScanNext(&scan, p->pErr, &hit)) {
    QdrantSpan kind = choirQdrantGet(hit.payload, "kind");
    i64 n;
    int i;
    char *zId = choirQdrantText(p->pErr,
                                choirQdrantGet(hit.payload, "artifact_id"), &n);
    for (i = 0; zId && i < FLUSH_KINDS; i++) {
      if (choirQdrantIs(kind, aFlushKind[i].zKind) && !flushHas(p, i, zId)) {
        flushStale(p, zId, 0);
        p->nRemoved++;
      }
    }
    sqlite3_free(zId);
    if (p->nStale >= FLUSH_GROUP) {
      flushSendStale(p);
    }
  }
  flushSendStale(p);
  choirQdrantScanFree(&scan);
}

/* Goes on with a pass over everything; 1 when it is at its end. qdrant.full is
** the kind and the last id, or empty. */
static int flushFull(FlushRun *p) {
  char *z = choirMetaGet(p->pConn, p->pErr, "qdrant.full");
  int eKind = z && z[0] >= '0' && z[0] <= '3' ? z[0] - '0' : -1;
  int bDone = eKind < 0;
  char *zNext = NULL;
  if (!bDone && eKind < FLUSH_KINDS && flushRoom(p) > 0) {
    flushFromTable(p, eKind, strlen(z) > 2 ? z + 2 : "");
    if (p->n == 0) {
      zNext = choirMprintf(p->pErr, "%d ", eKind + 1);
    } else {
      zNext = choirMprintf(p->pErr, "%d %s", eKind, p->a[p->n - 1].zId);
      flushGroup(p);
    }
    flushNote(p, -1, zNext);
  } else if (eKind == FLUSH_KINDS && flushRoom(p) > 0) {
    flushSweep(p);
    flushNote(p, -1, "");
  }
  flushGroupFree(p);
  sqlite3_free(zNext);
  sqlite3_free(z);
  return bDone;
}

static void flushAll(FlushRun *p) {
  int bFull = 1;
  while (bFull && p->pErr->rc == SQLITE_OK && flushRoom(p) > 0) {
    bFull = !flushFull(p);
  }
  while (!bFull && p->pErr->rc == SQLITE_OK && flushRoom(p) > 0) {
    i64 iTail = flushTail(p->pConn, p->pErr);
    i64 iSeq = flushCursor(p->pConn, p->pErr);
    flushFromLog(p, iSeq);
    if (p->n == 0) {
      if (p->nSent + p->nRemoved > 0 || iTail - iSeq >= FLUSH_LAG) {
        flushNote(p, iTail, NULL);
      }
      break;
    }
    flushGroup(p);
    flushNote(p, p->a[p->n - 1].iSeq, NULL);
    flushGroupFree(p);
  }
  flushGroupFree(p);
}

/* ------------------------------------------------------------ the function */

/* Documents that a flush would look at. */
static i64 flushPending(ChoirConn *pConn, ChoirErr *pErr) {
  char *zFull = choirMetaGet(pConn, pErr, "qdrant.full");
  i64 iSeq = flushCursor(pConn, pErr), n = 0;
  sqlite3_stmt *p;
  if (iSeq < 0 || (zFull && zFull[0])) {
    int eKind = iSeq >= 0 ? zFull[0] - '0' : 0;
    const char *zId = iSeq >= 0 && strlen(zFull) > 2 ? zFull + 2 : "";
    p = choirStmt(pConn, pErr,
                  "SELECT (SELECT count(*) FROM ~.artifacts WHERE deleted_at"
                  " IS NULL AND (?1 < 0 OR ?1 = 0 AND id > ?2)) + (SELECT"
                  " count(*) FROM ~.messages WHERE ?1 < 1 OR ?1 = 1 AND id >"
                  " ?2) + (SELECT count(*) FROM ~.memories WHERE ?1 < 2 OR"
                  " ?1 = 2 AND id > ?2)");
    choirBindInt(pErr, p, 1, eKind);
    choirBindText(pErr, p, 2, zId, -1);
    n = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : 0;
    choirStmtDone(pConn, p);
  }
  if (iSeq >= 0) {
    p = choirStmt(pConn, pErr,
                  "SELECT count(*) FROM (SELECT DISTINCT tbl, pk FROM"
                  " ~.action_log WHERE seq > ?1 AND tbl IN ('artifacts',"
                  " 'messages', 'memories') AND pk IS NOT NULL)");
    choirBindInt(pErr, p, 1, iSeq);
    n += choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : 0;
    choirStmtDone(pConn, p);
  }
  sqlite3_free(zFull);
  return n;
}

static void flushCheck(ChoirConn *pConn, ChoirErr *pErr) {
  choirNeedWorkspace(pConn, pErr);
  if (pErr->rc == SQLITE_OK && !sqlite3_get_autocommit(pConn->db)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "it sends over the network, which no transaction may wait for;"
                " call it outside BEGIN … COMMIT");
  }
  if (pErr->rc == SQLITE_OK &&
      sqlite3_db_readonly(pConn->db, choirSchema(pConn)) == 1) {
    choirErrSet(pErr, SQLITE_READONLY,
                "the workspace is read-only and the place of the flush is"
                " written there");
  }
}

CHOIR_PRIVATE void choirQdrantFlush(ChoirConn *pConn, ChoirErr *pErr, i64 nMax,
                                    ChoirBuf *pResult) {
  FlushRun run;
  memset(&run, 0, sizeof(run));
  run.pConn = pConn;
  run.pErr = pErr;
  run.nMax = nMax;
  flushCheck(pConn, pErr);
  choirBufInit(&run.stale, pErr, QDRANT_REQUEST);
  choirQdrantOpen(pConn, pErr, &run.to, NULL);
  run.points.pTo = &run.to;
  run.points.pModel = choirQdrantModel(&run.to, pErr);
  run.zLineage = choirMetaGet(pConn, pErr, "sync.lineage");
  if (pErr->rc == SQLITE_OK) {
    flushBegin(&run);
    flushAll(&run);
  }
  choirBufPrintf(
      pResult,
      "{\"sent\":%lld,\"removed\":%lld,\"points\":%lld,\"pending\":%lld}",
      run.nSent, run.nRemoved, run.points.nSent,
      pErr->rc == SQLITE_OK ? flushPending(pConn, pErr) : 0);
  choirBufFree(&run.stale);
  choirQdrantPointsFree(&run.points);
  choirQdrantClose(&run.to);
  sqlite3_free(run.zLineage);
}

/*
** SQL: qdrant_flush([max]) -> TEXT
**
** Sends what changed in artifacts, messages and memories since the last flush
** to the configured collection: texts in chunks of about 1,000 bytes, files
** that are not text by their path, deletes as deletes. Returns a JSON object:
** sent and removed (documents), points, and pending, what is left for the next
** call. It can be stopped at any moment and goes on where it was; the first
** one, or one to another collection, sends everything. Nothing it writes is in
** the action log.
**
**   max  INTEGER, documents at most, default 10000
**
** NULL: as not given.
** Errors: no workspace; no user; no server; its refusals; a collection of
** another model; called inside a transaction.
**
** > SELECT qdrant_flush()
** ! qdrant_flush: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
static void flushFunc(ChoirCall *p) {
  i64 nMax = CHOIR_QDRANT_FLUSH;
  ChoirBuf b;
  if (p->nArg && sqlite3_value_type(p->apArg[0]) != SQLITE_NULL) {
    nMax = choirArgInt(&p->err, p->apArg[0], "max", 1, (i64)1 << 40);
  }
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirQdrantFlush(p->pConn, &p->err, nMax, &b);
  choirBufResult(&b, p->pCtx);
  choirBufFree(&b);
}

/* How long the oldest change that the log names and no flush has sent waits. */
static i64 flushLag(ChoirConn *pConn, ChoirErr *pErr) {
  i64 iSeq = flushCursor(pConn, pErr), iOld = 0;
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT min(timestamp) FROM ~.action_log WHERE seq > ?1 AND"
                " tbl IN ('artifacts', 'messages', 'memories')");
  choirBindInt(pErr, p, 1, iSeq);
  iOld = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : 0;
  choirStmtDone(pConn, p);
  return iOld > 0 && choirNow() > iOld ? choirNow() - iOld : 0;
}

static void flushMetrics(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  choirRowText(pCur, "qdrant.pending");
  choirRowInt(pCur, flushPending(pConn, pErr));
  choirRowText(pCur, "documents");
  choirRowText(pCur, "qdrant.lag");
  choirRowInt(pCur, flushLag(pConn, pErr));
  choirRowText(pCur, "ms");
}

static const ChoirPart flushPart = {.zName = "qdrant",
                                    .xMetrics = flushMetrics};

static const ChoirFunc aFlushFunc[] = {
    {"qdrant_flush", 0, 1, CHOIR_EFFECT, 0, flushFunc, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirQdrantFlushRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  choirPartAdd(pConn, &flushPart);
  choirFuncs(pConn, pErr, aFlushFunc);
}
