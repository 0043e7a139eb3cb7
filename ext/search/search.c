/* SPDX-License-Identifier: MIT */
/*
** choir_index, and what search reports about itself.
**
** choir_index() is the only writer of _choir_doc, _choir_chunk, _choir_vector
** and _choir_fts. Its place in the log is the consumer 'text' of _choir_cursor.
** In _choir_meta it keeps search.model and search.chunks (what the vectors are
** of, how many chunks there are) and search.text ('fts5', or 'old' after a
** SQLite without FTS5 has written chunks that the text index does not have).
*/
#include "../index/index.h"
#include "search.h"
#include <stdio.h>
#include <stdlib.h>
#if !defined(_WIN32)
#include <unistd.h>
#endif

/* -------------------------------------------------------------- progress */

typedef struct IndexRun {
  SearchStore store; /* first: what xTick gets */
  i64 iShown;        /* when progress was shown last */
  int bShown;
} IndexRun;

/* A line on a terminal once a second, from the second second on. */
static void indexTick(SearchStore *p) {
#if !defined(_WIN32)
  IndexRun *pRun = (IndexRun *)p;
  i64 iNow = choirMonotonic();
  if (iNow - pRun->iShown >= 1000 && isatty(2)) {
    pRun->iShown = iNow;
    pRun->bShown = 1;
    fprintf(stderr, "\rchoir_index: %lld documents, %lld chunks",
            (long long)p->nIndexed, (long long)p->nWritten);
    fflush(stderr);
  }
#else
  (void)p;
#endif
}

/* ----------------------------------------------------------- choir_index */

/* The text index as this SQLite can have it: made where it is missing, built
** anew where it was left behind. */
static void indexText(SearchStore *p, ChoirErr *pErr) {
  char *zHave = choirMetaGet(p->pConn, pErr, "search.text");
  int bOld = zHave == NULL || strcmp(zHave, "fts5") != 0;
  sqlite3_free(zHave);
  if (!choirSearchHasFts(p->pConn, pErr)) {
    if (!bOld) {
      choirMetaSet(p->pConn, pErr, "search.text", "old");
    }
    return;
  }
  if (!choirExists(p->pConn, pErr, "table", "_choir_fts")) {
    choirSearchMakeFts(p->pConn, pErr);
    bOld = 1;
  }
  if (bOld) {
    choirExecText(p->pConn, pErr,
                  "INSERT INTO ~._choir_fts(_choir_fts) VALUES('rebuild')");
    choirMetaSet(p->pConn, pErr, "search.text", "fts5");
  }
  p->bText = 1;
}

/* Vectors of two models cannot be compared: when the model changed, every
** chunk is embedded anew. */
static void indexModel(SearchStore *p, ChoirErr *pErr) {
  char *z = choirMetaGet(p->pConn, pErr, "search.model");
  if (z && strcmp(z, p->pModel->zName) != 0) {
    choirSearchEmbedAll(p, pErr, indexTick);
  }
  choirMetaSet(p->pConn, pErr, "search.model", p->pModel->zName);
  sqlite3_free(z);
}

/* Forgets what was derived; document ids stay. */
static void indexClear(SearchStore *p, ChoirErr *pErr) {
  if (p->bText) {
    choirExecText(p->pConn, pErr,
                  "INSERT INTO ~._choir_fts(_choir_fts) VALUES('delete-all')");
  }
  choirExecText(p->pConn, pErr,
                "DELETE FROM ~._choir_chunk; DELETE FROM ~._choir_vector;"
                "UPDATE ~._choir_doc SET hash=NULL");
  p->nChunk = 0;
}

static i64 indexCount(ChoirConn *pConn, ChoirErr *pErr) {
  char *z = choirMetaGet(pConn, pErr, "search.chunks");
  i64 n = z ? strtoll(z, NULL, 10) : 0;
  sqlite3_free(z);
  return n;
}

static void indexSetCount(ChoirConn *pConn, ChoirErr *pErr, i64 n) {
  char z[24];
  sqlite3_snprintf(sizeof(z), z, "%lld", n);
  choirMetaSet(pConn, pErr, "search.chunks", z);
}

static void indexSetCursor(ChoirConn *pConn, ChoirErr *pErr, i64 iSeq) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "INSERT INTO ~._choir_cursor(consumer, seq) VALUES('text', ?1)"
                " ON CONFLICT(consumer) DO UPDATE SET seq=?1 WHERE seq<>?1");
  choirBindInt(pErr, p, 1, iSeq);
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

static void indexRun(SearchStore *p, ChoirErr *pErr, int bRebuild) {
  ChoirConn *pConn = p->pConn;
  i64 iCursor, iTail;
  /* Writes first, if only in name: the lock is taken before anything is read
  ** that another connection could change. */
  choirExecText(pConn, pErr,
                "INSERT OR IGNORE INTO ~._choir_cursor(consumer, seq)"
                " VALUES('text', -1)");
  if (!choirSearchIsMade(pConn, pErr)) {
    choirSearchMake(pConn, pErr);
    bRebuild = 1; /* whatever is left of an older index */
  }
  iCursor = choirSearchCursor(pConn, pErr);
  iTail = choirQueryInt(pConn, pErr,
                        "SELECT coalesce(max(seq), 0) FROM ~.action_log", 0);
  p->nChunk = indexCount(pConn, pErr);
  indexText(p, pErr);
  if (bRebuild) {
    indexClear(p, pErr);
  }
  indexModel(p, pErr);
  if (bRebuild || iCursor < 0 || !choirSearchTrusted(pConn, pErr)) {
    choirSearchPullAll(p, pErr, indexTick);
  } else if (iTail > iCursor) {
    choirSearchPullLog(p, pErr, iCursor, 1, indexTick);
  }
  choirSearchFlush(p, pErr);
  indexSetCount(pConn, pErr, p->nChunk);
  indexSetCursor(pConn, pErr, iTail);
}

/* What a service has to make is made before the lock is taken: indexRun then
** finds it in the cache, and no other writer waits for the network. */
static void indexWarm(SearchStore *p, ChoirErr *pErr) {
  char *zModel = choirMetaGet(p->pConn, pErr, "search.model");
  int bOther = zModel && strcmp(zModel, p->pModel->zName) != 0;
  sqlite3_stmt *pStmt;
  sqlite3_free(zModel);
  choirSearchLive(p->pConn, pErr, p->pModel);
  if (!bOther || !choirSearchIsMade(p->pConn, pErr)) {
    return;
  }
  pStmt = choirStmt(p->pConn, pErr, "SELECT text FROM ~._choir_chunk");
  while (choirStep(pErr, pStmt)) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 0);
    choirSearchWarm(p, pErr, z ? z : "", sqlite3_column_bytes(pStmt, 0));
  }
  choirStmtDone(p->pConn, pStmt);
  choirSearchWarm(p, pErr, NULL, 0);
}

/* The vector index over the chunks, where there are enough to gain by it; of
** the model's dimensions. */
static void indexVectors(SearchStore *p, ChoirErr *pErr) {
  ChoirIndexOptions opt = {INDEX_AUTO, VEC_COSINE, VEC_I8, NULL};
  int bHave = choirIndexFind(p->pConn, pErr, SEARCH_INDEX) != NULL;
  if (bHave) {
    sqlite3_stmt *pHold;
    ChoirIndex *pIndex = choirIndexOpen(p->pConn, pErr, SEARCH_INDEX, &pHold);
    bHave = pIndex && pIndex->code.nDim == p->pModel->nDim;
    choirStmtDone(p->pConn, pHold);
    if (pIndex && !bHave) {
      choirIndexDrop(p->pConn, pErr, SEARCH_INDEX);
    }
  }
  if (!bHave && p->nChunk >= SEARCH_INDEX_FROM) {
    choirIndexCreate(p->pConn, pErr, SEARCH_INDEX, "_choir_vector", "embedding",
                     p->pModel->nDim, &opt);
  }
}

/*
** SQL: choir_index([what]) -> TEXT
**
** Indexes whatever changed since the last call, so that choir_search() is fast
** on every connection: text is cut into chunks, embedded by the configured
** model, and put into the text index. Returns a JSON object: documents
** indexed and removed, chunks written or embedded again, and pending, which is
** 0. A moved file is not embedded again; when embed.provider changed,
** everything is. All or nothing, and it can be interrupted.
**
**   what  'pending' (default), 'rebuild': everything from the beginning, or
**         'remote': nothing here, but qdrant_flush() and its result
**
** NULL: a NULL what is the default.
** Errors: no workspace; another connection is writing; called inside a
** statement that writes.
**
** > SELECT choir_index()
** = {"indexed":0,"removed":0,"chunks":0,"pending":0}
** > SELECT choir_index('some')
** ! choir_index: what must be pending, rebuild or remote, got 'some'
*/
static void indexFunc(ChoirCall *p) {
  const char *zWhat =
      p->nArg ? choirArgTextOrNull(&p->err, p->apArg[0], "what") : NULL;
  int bRebuild = zWhat && strcmp(zWhat, "rebuild") == 0;
  IndexRun run;
  ChoirTxn txn;
  ChoirBuf b;
  memset(&run, 0, sizeof(run));
  run.iShown = choirMonotonic();
  if (zWhat && strcmp(zWhat, "remote") == 0) {
    choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
    choirSearchSend(p->pConn, &p->err, &b);
    choirBufResult(&b, p->pCtx);
    choirBufFree(&b);
    return;
  }
  if (zWhat && !bRebuild && strcmp(zWhat, "pending") != 0) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "what must be pending, rebuild or remote, got '%s'", zWhat);
  }
  choirNeedWorkspace(p->pConn, &p->err);
  run.store.pHost = run.store.pConn = p->pConn;
  run.store.pModel = choirEmbedModel(p->pConn, &p->err);
  if (p->err.rc == SQLITE_OK && !run.store.pModel->bLocal) {
    indexWarm(&run.store, &p->err);
  }
  choirTxnBegin(&txn, p->pConn, &p->err);
  if (p->err.rc == SQLITE_OK) {
    indexRun(&run.store, &p->err, bRebuild);
    indexVectors(&run.store, &p->err);
    choirIndexAbsorbAll(p->pConn, &p->err);
  }
  choirTxnEnd(&txn, &p->err);
  if (run.bShown) {
    fprintf(stderr, "\n");
  }
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirBufPrintf(&b,
                 "{\"indexed\":%lld,\"removed\":%lld,\"chunks\":%lld,"
                 "\"pending\":0}",
                 run.store.nIndexed, run.store.nRemoved, run.store.nWritten);
  choirBufResult(&b, p->pCtx);
}

/*
** SQL: rrf(rank[, weight[, k]]) -> REAL
**
** A place in a ranked list as a score, weight / (k + rank): summed over several
** lists it is reciprocal rank fusion, what choir_search() does.
**
**   rank    INTEGER, from 1
**   weight  REAL, default 1
**   k       REAL, default 60
**
** NULL: a NULL rank gives NULL, which sum() passes over.
** Errors: a rank below 1; a negative k or one that is no number.
** Source: https://doi.org/10.1145/1571941.1572114
**
** > SELECT round(sum(rrf(value)), 5) FROM json_each('[1, 3]')
** = 0.03227
** > SELECT rrf(0)
** ! rrf: rank must be 1 to 9223372036854775807, got 0
*/
static void indexRrf(ChoirCall *p) {
  double rWeight = 1.0, rK = 60.0;
  i64 iRank;
  if (sqlite3_value_type(p->apArg[0]) == SQLITE_NULL) {
    return;
  }
  iRank = choirArgInt(&p->err, p->apArg[0], "rank", 1, (i64)(~(u64)0 >> 1));
  if (p->nArg > 1) {
    rWeight = choirArgReal(&p->err, p->apArg[1], "weight", -1e100, 1e100);
  }
  if (p->nArg > 2) {
    rK = choirArgReal(&p->err, p->apArg[2], "k", 0.0, 1e100);
  }
  sqlite3_result_double(p->pCtx, rWeight / (rK + (double)iRank));
}

/* ---------------------------------------------------------------- reports */

static i64 indexPending(ChoirConn *pConn, ChoirErr *pErr) {
  return choirQueryInt(
      pConn, pErr,
      "SELECT count(*) FROM (SELECT DISTINCT tbl, pk FROM ~.action_log"
      " WHERE seq > (SELECT coalesce(max(seq), -1) FROM ~._choir_cursor"
      " WHERE consumer='text') AND tbl IN ('artifacts', 'messages',"
      " 'memories'))",
      0);
}

static void indexProblem(ChoirCursor *pCur, const char *zFmt, i64 n) {
  char *z = n ? choirMprintf(&pCur->err, zFmt, n) : NULL;
  if (z) {
    choirRowText(pCur, "search");
    choirRowText(pCur, z);
  }
  sqlite3_free(z);
}

/* FTS5's own comparison of the text index with the chunks. It is a command in
** the form of an INSERT, so it is left out where nothing can be written. */
static void indexCheckText(ChoirConn *pConn, ChoirErr *pErr,
                           ChoirCursor *pCur) {
  ChoirErr err = {0, NULL};
  char *z = choirMetaGet(pConn, pErr, "search.text");
  if (z && strcmp(z, "fts5") == 0 && choirSearchHasFts(pConn, pErr) &&
      sqlite3_db_readonly(pConn->db, choirSchema(pConn)) == 0) {
    choirExecText(pConn, &err,
                  "INSERT INTO ~._choir_fts(_choir_fts, rank)"
                  " VALUES('integrity-check', 1)");
    if ((err.rc & 0xff) == SQLITE_CORRUPT || (err.rc & 0xff) == SQLITE_ERROR) {
      indexProblem(pCur,
                   "the text index does not match its chunks (code %lld);"
                   " run select choir_index('rebuild')",
                   err.rc);
      choirErrClear(&err);
    }
    if (pErr->rc == SQLITE_OK) {
      *pErr = err;
    }
  }
  sqlite3_free(z);
}

static void indexCheck(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  i64 nChunk;
  if (!choirSearchIsMade(pConn, pErr)) {
    return;
  }
  nChunk = choirQueryInt(pConn, pErr, "SELECT count(*) FROM ~._choir_chunk", 0);
  indexProblem(
      pCur,
      "%lld chunks belong to no document; run select choir_index('rebuild')",
      choirQueryInt(pConn, pErr,
                    "SELECT count(*) FROM ~._choir_chunk WHERE id >> 20"
                    " NOT IN (SELECT id FROM ~._choir_doc)",
                    0));
  indexProblem(
      pCur,
      "%lld chunks and vectors do not belong to each other; run select"
      " choir_index('rebuild')",
      choirQueryInt(pConn, pErr,
                    "SELECT (SELECT count(*) FROM ~._choir_chunk"
                    " WHERE (id & 1048575) AND id NOT IN (SELECT id FROM"
                    " ~._choir_vector)) + (SELECT count(*) FROM"
                    " ~._choir_vector WHERE id NOT IN (SELECT id FROM"
                    " ~._choir_chunk))",
                    0));
  indexProblem(pCur,
               "the number of chunks is off by %lld; run select"
               " choir_index('rebuild')",
               nChunk - indexCount(pConn, pErr));
  indexCheckText(pConn, pErr, pCur);
}

static void indexDoctorRow(ChoirCursor *p, const char *zCheck, int bOk,
                           const char *zDetail, const char *zRemedy) {
  choirRowText(p, zCheck);
  choirRowText(p, bOk ? "ok" : "warn");
  choirRowText(p, zDetail);
  choirRowText(p, bOk ? NULL : zRemedy);
}

static void indexDoctor(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  int bFts = choirSearchHasFts(pConn, pErr);
  char *zModel;
  i64 n;
  indexDoctorRow(pCur, "full text", bFts, bFts ? "FTS5" : "no FTS5",
                 "this SQLite was built without FTS5: choir_search() uses"
                 " vectors only");
  if (!choirHasWorkspace(pConn, pErr)) {
    return;
  }
  n = indexPending(pConn, pErr);
  zModel = choirMprintf(pErr, "changed documents not indexed yet: %lld", n);
  indexDoctorRow(pCur, "search index", n < 1000, zModel,
                 "searches of a new connection index them first; run select"
                 " choir_index()");
  sqlite3_free(zModel);
  zModel = choirMetaGet(pConn, pErr, "search.model");
  if (zModel) {
    const char *zWant = choirConfig(pConn, "embed.provider");
    indexDoctorRow(pCur, "embedding model", zWant && strcmp(zWant, zModel) == 0,
                   zModel,
                   "the index was made with this model and embed.provider"
                   " names another; run select choir_index()");
  }
  sqlite3_free(zModel);
}

static void indexMetric(ChoirCursor *p, const char *zName, i64 n,
                        const char *zUnit) {
  choirRowText(p, zName);
  choirRowInt(p, n);
  choirRowText(p, zUnit);
}

static void indexMetrics(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  indexMetric(
      pCur, "search.documents",
      choirSearchIsMade(pConn, pErr)
          ? choirQueryInt(pConn, pErr, "SELECT count(*) FROM ~._choir_doc", 0)
          : 0,
      "documents");
  indexMetric(pCur, "search.chunks", indexCount(pConn, pErr), "chunks");
  indexMetric(pCur, "search.pending", indexPending(pConn, pErr), "documents");
}

static const ChoirPart indexPart = {
    .zName = "search",
    .xCheck = indexCheck,
    .xDoctor = indexDoctor,
    .xMetrics = indexMetrics,
};

static const ChoirFunc aIndexFunc[] = {
    /* EFFECT because the model may be remote; opens its own savepoint. */
    {"choir_index", 0, 1, CHOIR_EFFECT, 0, indexFunc, NULL},
    {"rrf", 1, 3, CHOIR_PURE, CHOIR_SHARED, indexRrf, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirSearchRegister(ChoirConn *pConn,
                                                  ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aIndexFunc);
  choirPartAdd(pConn, &indexPart);
  choirSearchQueryRegister(pConn, pErr);
}
