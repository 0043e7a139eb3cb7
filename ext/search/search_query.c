/* SPDX-License-Identifier: MIT */
/*
** choir_search: two ranked lists, one of chunks that have the query's words
** (FTS5 proposes, search_term.c scores) and one of chunks whose vectors are
** near the query's (an exact scan), each reduced to the best chunk of a
** document and fused by reciprocal rank: a document's score is the sum of
** 1/(60 + rank) over the lists it is in, ranks counted from 1.
**
** FTS5 is asked for the chunks that have all the words, best first, and for the
** chunks of each word, which are merged here by the weight of the words they
** have: its own ranking of chunks with any of the words costs ten times more.
**
** Both lists are gathered from the workspace and from the connection's private
** database (search_live.c), which supersedes the former.
*/
#include "../index/index.h"
#include "search.h"
#include <math.h>
#include <stdlib.h>

#define QUERY_RRF 60.0
#define QUERY_K_MAX 1000
#define QUERY_CANDIDATES 100 /* chunks from each list and place, at least */
#define QUERY_MANY 50000     /* chunks that a word proposes, at most */

enum { QUERY_WORKSPACE, QUERY_LIVE, QUERY_PLACES, QUERY_REMOTE };
enum { QUERY_HERE = 1, QUERY_THERE = 2 }; /* what a scope asks */

typedef struct QueryHit {
  int iPlace;
  i64 iChunk;
  double r;
} QueryHit;

typedef struct QueryHits {
  QueryHit *a;
  int n, nAlloc;
} QueryHits;

typedef struct QueryDocs { /* ids of documents or chunks, ascending */
  i64 *a;
  int n, nAlloc;
} QueryDocs;

typedef struct QueryAnswer {
  int iPlace;
  i64 iChunk;
  double r;
  int iText, iVector; /* ranks from 1; 0: not in that list */
  int iRemote;        /* the same; iPlace QUERY_REMOTE: in that list alone */
} QueryAnswer;

typedef struct Query {
  ChoirConn *pHost;
  ChoirErr *pErr;
  ChoirConn *apConn[QUERY_PLACES]; /* NULL: not asked */
  const ChoirEmbedModel *pModel;
  int bText;
  int nCand;
  QueryDocs skip;                /* of the workspace, superseded */
  QueryDocs aOnly[QUERY_PLACES]; /* under the prefix, when bOnly */
  int bOnly;
  SearchTerms terms;
  int bWhole; /* some chunk has all the words */
  QueryDocs aList[QUERY_PLACES][SEARCH_TERM_MAX]; /* chunks of each word */
  QueryHits text, vector;
  SearchRemote remote;
} Query;

/* ------------------------------------------------------------ documents */

static void queryDocAdd(QueryDocs *p, ChoirErr *pErr, i64 iDoc) {
  if (p->n == p->nAlloc) {
    int nNew = p->nAlloc ? p->nAlloc * 2 : 64;
    void *a = choirRealloc(pErr, p->a, (u64)nNew * sizeof(i64));
    if (a == NULL) {
      return;
    }
    p->a = a;
    p->nAlloc = nNew;
  }
  p->a[p->n++] = iDoc;
}

static int queryDocOrder(const void *pA, const void *pB) {
  i64 a = *(const i64 *)pA, b = *(const i64 *)pB;
  return a < b ? -1 : a > b;
}

static int queryDocHas(const QueryDocs *p, i64 iDoc) {
  return p->n > 0 &&
         bsearch(&iDoc, p->a, (size_t)p->n, sizeof(i64), queryDocOrder) != NULL;
}

static void queryDocSort(QueryDocs *p) {
  if (p->n > 1) {
    qsort(p->a, (size_t)p->n, sizeof(i64), queryDocOrder);
  }
}

/* The documents of the workspace's index that the live ones supersede. */
static void querySkip(Query *p) {
  ChoirConn *pLive = p->apConn[QUERY_LIVE];
  sqlite3_stmt *pDoc =
      choirStmt(pLive, p->pErr, "SELECT kind, doc FROM ~._choir_doc");
  while (choirStep(p->pErr, pDoc)) {
    sqlite3_stmt *pStmt =
        choirStmt(p->pHost, p->pErr,
                  "SELECT id FROM ~._choir_doc WHERE kind=?1 AND doc=?2");
    choirBindValue(p->pErr, pStmt, 1, sqlite3_column_value(pDoc, 0));
    choirBindValue(p->pErr, pStmt, 2, sqlite3_column_value(pDoc, 1));
    if (choirStep(p->pErr, pStmt)) {
      queryDocAdd(&p->skip, p->pErr, sqlite3_column_int64(pStmt, 0));
    }
    choirStmtDone(p->pHost, pStmt);
  }
  choirStmtDone(pLive, pDoc);
  queryDocSort(&p->skip);
}

/* The documents whose path starts with a prefix: a range of the path index. */
static void queryOnly(Query *p, const char *zPrefix) {
  int i;
  p->bOnly = zPrefix != NULL && zPrefix[0] != 0;
  for (i = 0; p->bOnly && i < QUERY_PLACES; i++) {
    sqlite3_stmt *pStmt;
    if (p->apConn[i] == NULL) {
      continue;
    }
    pStmt = choirStmt(p->apConn[i], p->pErr,
                      "SELECT id FROM ~._choir_doc"
                      " WHERE path >= ?1 AND path < ?1 || char(1114111)"
                      " OR path >= '/' || ?1"
                      " AND path < '/' || ?1 || char(1114111)");
    choirBindText(p->pErr, pStmt, 1, zPrefix, -1);
    while (choirStep(p->pErr, pStmt)) {
      queryDocAdd(&p->aOnly[i], p->pErr, sqlite3_column_int64(pStmt, 0));
    }
    choirStmtDone(p->apConn[i], pStmt);
    queryDocSort(&p->aOnly[i]);
  }
}

static int queryAccepts(const Query *p, int iPlace, i64 iChunk) {
  i64 iDoc = iChunk >> SEARCH_CHUNK_BITS;
  return !(iPlace == QUERY_WORKSPACE && queryDocHas(&p->skip, iDoc)) &&
         (!p->bOnly || queryDocHas(&p->aOnly[iPlace], iDoc));
}

/* ----------------------------------------------------------------- hits */

static void queryHitAdd(QueryHits *p, ChoirErr *pErr, int iPlace, i64 iChunk,
                        double r) {
  QueryHit hit = {iPlace, iChunk, r};
  if (p->n == p->nAlloc) {
    int nNew = p->nAlloc ? p->nAlloc * 2 : 256;
    void *a = choirRealloc(pErr, p->a, (u64)nNew * sizeof(QueryHit));
    if (a == NULL) {
      return;
    }
    p->a = a;
    p->nAlloc = nNew;
  }
  p->a[p->n++] = hit;
}

static int queryHitByChunk(const void *pA, const void *pB) {
  const QueryHit *a = pA, *b = pB;
  return a->iPlace != b->iPlace   ? a->iPlace - b->iPlace
         : a->iChunk != b->iChunk ? (a->iChunk < b->iChunk ? -1 : 1)
                                  : 0;
}

static int queryHitByScore(const void *pA, const void *pB) {
  const QueryHit *a = pA, *b = pB;
  return a->r != b->r ? (a->r > b->r ? -1 : 1) : queryHitByChunk(pA, pB);
}

static int queryHitSameDoc(const QueryHit *a, const QueryHit *b) {
  return a->iPlace == b->iPlace &&
         a->iChunk >> SEARCH_CHUNK_BITS == b->iChunk >> SEARCH_CHUNK_BITS;
}

/* Keeps the best chunk of each document, best first. */
static void queryHitReduce(QueryHits *p) {
  int i, n = 0;
  if (p->n < 2) {
    return;
  }
  qsort(p->a, (size_t)p->n, sizeof(QueryHit), queryHitByChunk);
  for (i = 0; i < p->n; i++) {
    if (n && queryHitSameDoc(&p->a[n - 1], &p->a[i])) {
      if (p->a[i].r > p->a[n - 1].r) {
        p->a[n - 1] = p->a[i];
      }
    } else {
      p->a[n++] = p->a[i];
    }
  }
  p->n = n;
  qsort(p->a, (size_t)p->n, sizeof(QueryHit), queryHitByScore);
}

/* ----------------------------------------------------------------- text */

/* The chunks of each word, and with them how many have it. A word in more than
** QUERY_MANY chunks of a place is taken to be in half of all. */
static void queryCollect(Query *p, i64 nChunk) {
  int i, iPlace;
  for (i = 0; i < p->terms.n; i++) {
    char *zMatch = choirSearchMatch(&p->terms, p->pErr, 1u << i, "");
    SearchTerm *t = &p->terms.a[i];
    t->nDf = 0;
    for (iPlace = 0; iPlace < QUERY_PLACES; iPlace++) {
      QueryDocs *pList = &p->aList[iPlace][i];
      sqlite3_stmt *pStmt;
      pList->n = 0;
      if (p->apConn[iPlace] == NULL) {
        continue;
      }
      pStmt = choirStmt(p->apConn[iPlace], p->pErr,
                        "SELECT rowid FROM ~._choir_fts"
                        " WHERE _choir_fts MATCH ?1 LIMIT ?2");
      choirBindText(p->pErr, pStmt, 1, zMatch, -1);
      choirBindInt(p->pErr, pStmt, 2, QUERY_MANY);
      while (choirStep(p->pErr, pStmt)) {
        queryDocAdd(pList, p->pErr, sqlite3_column_int64(pStmt, 0));
      }
      choirStmtDone(p->apConn[iPlace], pStmt);
      t->nDf += pList->n < QUERY_MANY ? pList->n : nChunk / 2;
      pList->n = pList->n < QUERY_MANY ? pList->n : 0;
    }
    sqlite3_free(zMatch);
  }
  choirSearchWeigh(&p->terms, nChunk);
}

/* The nCand heaviest so far as a heap over a[iFirst..], the lightest on top. */
static void queryHeap(Query *p, int iFirst, QueryHit hit) {
  QueryHit *a;
  int i, iChild, n = p->text.n - iFirst;
  if (n < p->nCand) {
    queryHitAdd(&p->text, p->pErr, hit.iPlace, hit.iChunk, hit.r);
    if (p->pErr->rc != SQLITE_OK) {
      return;
    }
    a = p->text.a + iFirst;
    for (i = n; i > 0 && a[(i - 1) / 2].r > hit.r; i = (i - 1) / 2) {
      a[i] = a[(i - 1) / 2];
    }
    a[i] = hit;
    return;
  }
  a = p->text.a + iFirst;
  if (hit.r <= a[0].r) {
    return;
  }
  for (i = 0; (iChild = 2 * i + 1) < n; i = iChild) {
    iChild += iChild + 1 < n && a[iChild + 1].r < a[iChild].r;
    if (hit.r <= a[iChild].r) {
      break;
    }
    a[i] = a[iChild];
  }
  a[i] = hit;
}

/* Proposes the chunks of one place with the most of the query's weight. */
static void queryMerge(Query *p, int iPlace) {
  int aAt[SEARCH_TERM_MAX] = {0};
  int i, iFirst = p->text.n;
  while (p->pErr->rc == SQLITE_OK) {
    QueryHit hit = {iPlace, INT64_MAX, 0.0};
    for (i = 0; i < p->terms.n; i++) {
      const QueryDocs *pList = &p->aList[iPlace][i];
      if (aAt[i] < pList->n && pList->a[aAt[i]] <= hit.iChunk) {
        hit.r = pList->a[aAt[i]] < hit.iChunk ? 0.0 : hit.r;
        hit.iChunk = pList->a[aAt[i]];
        hit.r += p->terms.a[i].rIdf;
      }
    }
    if (hit.iChunk == INT64_MAX) {
      break;
    }
    for (i = 0; i < p->terms.n; i++) {
      const QueryDocs *pList = &p->aList[iPlace][i];
      aAt[i] += aAt[i] < pList->n && pList->a[aAt[i]] == hit.iChunk;
    }
    if (queryAccepts(p, iPlace, hit.iChunk)) {
      queryHeap(p, iFirst, hit);
    }
  }
}

/* Proposes the chunks of one place with all the words, by FTS5's rank. */
static void queryPropose(Query *p, int iPlace) {
  ChoirConn *pConn = p->apConn[iPlace];
  char *zMatch = choirSearchMatch(&p->terms, p->pErr,
                                  (u32)(((u64)1 << p->terms.n) - 1), " AND ");
  sqlite3_stmt *pStmt = choirStmt(pConn, p->pErr,
                                  "SELECT rowid FROM ~._choir_fts"
                                  " WHERE _choir_fts MATCH ?1 ORDER BY rank");
  int n = 0;
  choirBindText(p->pErr, pStmt, 1, zMatch, -1);
  while (n < p->nCand && choirStep(p->pErr, pStmt)) {
    i64 iChunk = sqlite3_column_int64(pStmt, 0);
    if (queryAccepts(p, iPlace, iChunk)) {
      queryHitAdd(&p->text, p->pErr, iPlace, iChunk, 0.0);
      n++;
    }
  }
  choirStmtDone(pConn, pStmt);
  sqlite3_free(zMatch);
}

/* The text of a chunk; the statement (choirStmtDone) keeps it. */
static sqlite3_stmt *queryChunk(Query *p, int iPlace, i64 iChunk) {
  sqlite3_stmt *pStmt = choirStmt(p->apConn[iPlace], p->pErr,
                                  "SELECT text FROM ~._choir_chunk"
                                  " WHERE id=?1");
  choirBindInt(p->pErr, pStmt, 1, iChunk);
  if (!choirStep(p->pErr, pStmt)) {
    choirStmtDone(p->apConn[iPlace], pStmt);
    pStmt = NULL;
  }
  return pStmt;
}

static void queryText(Query *p) {
  int i, n = 0;
  for (i = 0; i < QUERY_PLACES; i++) {
    if (p->apConn[i]) {
      queryPropose(p, i);
      queryMerge(p, i);
    }
  }
  if (p->text.n > 1) {
    qsort(p->text.a, (size_t)p->text.n, sizeof(QueryHit), queryHitByChunk);
  }
  for (i = 0; i < p->text.n && p->pErr->rc == SQLITE_OK; i++) {
    QueryHit *pHit = &p->text.a[i];
    sqlite3_stmt *pStmt;
    if (n && queryHitByChunk(&p->text.a[n - 1], pHit) == 0) {
      continue; /* proposed twice */
    }
    p->text.a[n] = *pHit;
    pStmt = queryChunk(p, pHit->iPlace, pHit->iChunk);
    if (pStmt) {
      const char *z = (const char *)sqlite3_column_text(pStmt, 0);
      int bAll = 0;
      p->text.a[n++].r = choirSearchScore(
          &p->terms, z ? z : "", sqlite3_column_bytes(pStmt, 0), &bAll);
      p->bWhole |= bAll;
      choirStmtDone(p->apConn[pHit->iPlace], pStmt);
    }
  }
  p->text.n = n;
  queryHitReduce(&p->text);
}

/* --------------------------------------------------------------- vectors */

static int queryAcceptsChunk(void *pArg, i64 iChunk) {
  return queryAccepts(pArg, QUERY_WORKSPACE, iChunk);
}

/* By the vector index over the workspace's chunks: 0 when there is none to
** use. */
static int queryIndexed(Query *p, const signed char *aQuery, ChoirScan *pScan) {
  ChoirSearch s = {.aQuery = aQuery,
                   .k = p->nCand,
                   .rMost = INFINITY,
                   .xAccept = queryAcceptsChunk,
                   .pArg = p};
  ChoirErr err = {SQLITE_OK, NULL};
  sqlite3_stmt *pHold = NULL;
  ChoirIndex *pIndex = choirIndexFind(p->pHost, &err, SEARCH_INDEX);
  if (pIndex) {
    pIndex = choirIndexOpen(p->pHost, &err, SEARCH_INDEX, &pHold);
  }
  if (pIndex && pIndex->bTrusted && pIndex->code.nDim == p->pModel->nDim) {
    choirIndexSearch(pIndex, &err, &s, pScan);
  } else {
    pIndex = NULL;
  }
  choirStmtDone(p->pHost, pHold);
  if (err.rc == SQLITE_CORRUPT_VTAB) { /* choir_check() tells */
    choirErrClear(&err);
    choirScanFree(pScan);
    pIndex = NULL;
  }
  if (p->pErr->rc == SQLITE_OK) {
    *p->pErr = err;
  } else {
    choirErrClear(&err);
  }
  return pIndex != NULL;
}

/* By all of them, one by one. */
static void queryEach(Query *p, int iPlace, const signed char *aQuery,
                      ChoirScan *pScan) {
  sqlite3_stmt *pStmt = choirStmt(p->apConn[iPlace], p->pErr,
                                  "SELECT id, embedding FROM ~._choir_vector");
  choirScanInit(pScan, p->pHost, p->pErr, VEC_COSINE, VEC_I8, aQuery,
                p->pModel->nDim, p->nCand);
  while (choirStep(p->pErr, pStmt)) {
    i64 iChunk = sqlite3_column_int64(pStmt, 0);
    if (queryAccepts(p, iPlace, iChunk)) {
      sqlite3_value *v = sqlite3_column_value(pStmt, 1);
      choirScanRow(pScan, p->pErr, iChunk, sqlite3_value_blob(v),
                   sqlite3_value_bytes(v));
    }
  }
  choirStmtDone(p->apConn[iPlace], pStmt);
}

/* The distance is 1 - cosine; a vector without content has none. */
static void queryScan(Query *p, int iPlace, const signed char *aQuery,
                      double rLeast) {
  ChoirScan scan;
  i64 i;
  memset(&scan, 0, sizeof(scan));
  if (iPlace != QUERY_WORKSPACE || aQuery == NULL ||
      !queryIndexed(p, aQuery, &scan)) {
    queryEach(p, iPlace, aQuery, &scan);
  }
  for (i = 0; i < scan.nHit; i++) {
    double r = 1.0 - scan.aHit[i].rDist;
    if (r >= rLeast) { /* not so when there is no distance */
      queryHitAdd(&p->vector, p->pErr, iPlace, scan.aHit[i].iRowid, r);
    }
  }
  choirScanFree(&scan);
}

/* The query's vector. For a lexical model it is the sum of its words' vectors
** by weight, so that a rare word (or a misspelt one, which no chunk has) counts
** more than a common one; other models get the query as it is. */
static float *queryEmbed(Query *p) {
  const SearchTerms *t = &p->terms;
  const char *azText[SEARCH_TERM_MAX];
  i64 anText[SEARCH_TERM_MAX];
  int i, j, n = p->pModel->bLexical ? t->n : 1, nDim = p->pModel->nDim;
  float *a = choirMalloc(p->pErr, (u64)nDim * (u64)n * sizeof(float));
  double rSum = 0.0;
  for (i = 0; i < n; i++) {
    azText[i] = p->pModel->bLexical ? t->a[i].a : t->zQuery;
    anText[i] = p->pModel->bLexical ? t->a[i].n : t->nQuery;
  }
  if (a == NULL) {
    return NULL;
  }
  choirEmbedBatch(p->pHost, p->pErr, p->pModel, azText, anText, n,
                  CHOIR_EMBED_QUERY, a);
  if (p->pErr->rc != SQLITE_OK || !p->pModel->bLexical) {
    return a;
  }
  for (j = 0; j < nDim; j++) {
    double r = 0.0;
    for (i = 0; i < n; i++) {
      r += t->a[i].rIdf * (double)a[i * nDim + j];
    }
    a[j] = (float)r;
    rSum += r * r;
  }
  for (j = 0; j < nDim && rSum > 0.0; j++) {
    a[j] = (float)((double)a[j] / sqrt(rSum));
  }
  return a;
}

static void queryVectors(Query *p, double rLeast) {
  float *a = queryEmbed(p);
  signed char *aQuery = choirMalloc(p->pErr, (u64)p->pModel->nDim);
  int i;
  p->vector.n = 0;
  if (a && aQuery) {
    choirSearchQuantize(a, p->pModel->nDim, aQuery);
  }
  for (i = 0; i < QUERY_PLACES && p->pErr->rc == SQLITE_OK; i++) {
    if (p->apConn[i]) {
      queryScan(p, i, aQuery, rLeast);
    }
  }
  sqlite3_free(aQuery);
  sqlite3_free(a);
  queryHitReduce(&p->vector);
}

/* Words that no chunk has are looked for, a letter or two apart, in the chunks
** whose vectors are near; the search goes on with what was found. */
static void queryMend(Query *p, i64 nChunk) {
  int i, bMissing = 0;
  for (i = 0; i < p->terms.n; i++) {
    bMissing |= p->terms.a[i].nDf == 0;
  }
  if (!bMissing) {
    return;
  }
  queryVectors(p, 0.0);
  for (i = 0; i < p->vector.n && i < QUERY_CANDIDATES; i++) {
    const QueryHit *h = &p->vector.a[i];
    sqlite3_stmt *pStmt = queryChunk(p, h->iPlace, h->iChunk);
    if (pStmt) {
      const char *z = (const char *)sqlite3_column_text(pStmt, 0);
      choirSearchNear(&p->terms, p->pErr, z ? z : "",
                      sqlite3_column_bytes(pStmt, 0));
      choirStmtDone(p->apConn[h->iPlace], pStmt);
    }
  }
  if (choirSearchMend(&p->terms)) {
    queryCollect(p, nChunk);
  }
}

/* ---------------------------------------------------------------- fusion */

static int queryAnswerOrder(const void *pA, const void *pB) {
  const QueryAnswer *a = pA, *b = pB;
  int iA = a->iText ? a->iText : QUERY_K_MAX * 8 + a->iVector + a->iRemote;
  int iB = b->iText ? b->iText : QUERY_K_MAX * 8 + b->iVector + b->iRemote;
  return a->r != b->r ? (a->r > b->r ? -1 : 1) : iA - iB;
}

/* Adds the remote list to n answers, which have room for it; how many there are
** then. */
static int queryFuseRemote(Query *p, QueryAnswer *a, int n) {
  int i, j, nLocal = n;
  for (i = 0; i < nLocal; i++) {
    ChoirConn *pConn = p->apConn[a[i].iPlace];
    sqlite3_stmt *pStmt = choirStmt(
        pConn, p->pErr, "SELECT kind, doc FROM ~._choir_doc WHERE id=?1");
    choirBindInt(p->pErr, pStmt, 1, a[i].iChunk >> SEARCH_CHUNK_BITS);
    if (choirStep(p->pErr, pStmt)) {
      const char *zKind = (const char *)sqlite3_column_text(pStmt, 0);
      const char *zId = (const char *)sqlite3_column_text(pStmt, 1);
      a[i].iRemote =
          choirSearchRemoteFind(&p->remote, zKind ? zKind : "", zId ? zId : "");
      a[i].r += a[i].iRemote ? 1.0 / (QUERY_RRF + a[i].iRemote) : 0.0;
    }
    choirStmtDone(pConn, pStmt);
  }
  for (i = 1; i <= p->remote.n; i++) {
    QueryAnswer answer = {QUERY_REMOTE, 0, 1.0 / (QUERY_RRF + i), 0, 0, i};
    for (j = 0; j < nLocal && a[j].iRemote != i; j++) {
    }
    if (j == nLocal) {
      a[n++] = answer;
    }
  }
  return n;
}

/* The answers, best first; *pn of them; caller frees. */
static QueryAnswer *queryFuse(Query *p, int *pn) {
  int i, j, n = 0, nMost = p->text.n + p->vector.n + p->remote.n;
  QueryAnswer *a = choirMalloc(p->pErr, (u64)nMost * sizeof(QueryAnswer));
  for (i = 0; a && i < p->text.n; i++) {
    const QueryHit *h = &p->text.a[i];
    QueryAnswer answer = {h->iPlace, h->iChunk, 1.0 / (QUERY_RRF + n + 1),
                          i + 1,     0,         0};
    a[n++] = answer;
  }
  for (i = 0; a && i < p->vector.n; i++) {
    const QueryHit *h = &p->vector.a[i];
    QueryAnswer answer = {h->iPlace, h->iChunk, 0.0, 0, 0, 0};
    for (j = 0; j < p->text.n; j++) {
      if (queryHitSameDoc(&p->text.a[j], h)) {
        break;
      }
    }
    if (j == p->text.n) {
      j = n;
      a[n++] = answer;
    }
    a[j].iVector = i + 1;
    a[j].r += 1.0 / (QUERY_RRF + i + 1);
  }
  if (a && p->remote.n) {
    n = queryFuseRemote(p, a, n);
  }
  if (n > 1) {
    qsort(a, (size_t)n, sizeof(QueryAnswer), queryAnswerOrder);
  }
  *pn = n;
  return a;
}

/* A hit by its path shows how the document begins, or else the path. */
static char *queryPreview(Query *p, const QueryAnswer *pAnswer,
                          const char *zPath) {
  i64 iChunk = pAnswer->iChunk;
  sqlite3_stmt *pStmt;
  char *z;
  iChunk += (iChunk & SEARCH_CHUNK_MOST) == 0;
  pStmt = queryChunk(p, pAnswer->iPlace, iChunk);
  if (pStmt) {
    const char *zText = (const char *)sqlite3_column_text(pStmt, 0);
    z = choirSearchPreview(&p->terms, p->pErr, zText ? zText : "",
                           sqlite3_column_bytes(pStmt, 0));
    choirStmtDone(p->apConn[pAnswer->iPlace], pStmt);
  } else {
    z = choirMprintf(p->pErr, "%s", zPath ? zPath : "");
  }
  return z;
}

/* The lists that found it, and why the remote one is missing. */
static void querySource(Query *p, ChoirCursor *pCur,
                        const QueryAnswer *pAnswer) {
  char *z = choirMprintf(
      p->pErr, "%s%s%s%s%s%s%s", pAnswer->iText ? "text" : "",
      pAnswer->iText && pAnswer->iVector ? "+" : "",
      pAnswer->iVector ? "vector" : "",
      pAnswer->iRemote && (pAnswer->iText || pAnswer->iVector) ? "+" : "",
      pAnswer->iRemote ? "remote" : "",
      p->remote.zFailed ? "; without remote: " : "",
      p->remote.zFailed ? p->remote.zFailed : "");
  choirRowText(pCur, z);
  sqlite3_free(z);
}

static void queryRemoteRow(Query *p, ChoirCursor *pCur,
                           const QueryAnswer *pAnswer, int iRank) {
  const SearchRemoteHit *h = &p->remote.a[pAnswer->iRemote - 1];
  const char *zText = h->zPreview ? h->zPreview : h->zPath ? h->zPath : "";
  char *zPreview =
      choirSearchPreview(&p->terms, p->pErr, zText, (i64)strlen(zText));
  choirRowInt(pCur, iRank);
  choirRowReal(pCur, pAnswer->r);
  choirRowText(pCur, choirSearchKind(h->eKind));
  choirRowText(pCur, h->zId);
  choirRowText(pCur, h->zPath);
  choirRowText(pCur, zPreview);
  querySource(p, pCur, pAnswer);
  sqlite3_free(zPreview);
}

static void queryRow(Query *p, ChoirCursor *pCur, const QueryAnswer *pAnswer,
                     int iRank) {
  ChoirConn *pConn = p->apConn[pAnswer->iPlace];
  sqlite3_stmt *pStmt = choirStmt(
      pConn, p->pErr, "SELECT kind, doc, path FROM ~._choir_doc WHERE id=?1");
  choirBindInt(p->pErr, pStmt, 1, pAnswer->iChunk >> SEARCH_CHUNK_BITS);
  if (choirStep(p->pErr, pStmt)) {
    const char *zPath = (const char *)sqlite3_column_text(pStmt, 2);
    char *zPreview = queryPreview(p, pAnswer, zPath);
    choirRowInt(pCur, iRank);
    choirRowReal(pCur, pAnswer->r);
    choirRowText(pCur, (const char *)sqlite3_column_text(pStmt, 0));
    choirRowText(pCur, (const char *)sqlite3_column_text(pStmt, 1));
    choirRowText(pCur, zPath);
    choirRowText(pCur, zPreview);
    querySource(p, pCur, pAnswer);
    sqlite3_free(zPreview);
  }
  choirStmtDone(pConn, pStmt);
}

/* ---------------------------------------------------------- choir_search */

/* QUERY_HERE, QUERY_THERE or both. */
static int queryScope(ChoirConn *pConn, ChoirErr *pErr, sqlite3_value *v) {
  const char *z = choirArgTextOrNull(pErr, v, "scope");
  int bAll = z && strcmp(z, "all") == 0;
  if (z == NULL || strcmp(z, "local") == 0) {
    return QUERY_HERE;
  }
  if (!bAll && strcmp(z, "remote") != 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "scope must be local, remote or all, got '%s'", z);
  } else if (pConn->bReadonly) {
    choirErrSet(pErr, SQLITE_AUTH,
                "scope '%s' reaches the network and this connection is"
                " read-only; use scope 'local'",
                z);
  }
  return bAll ? QUERY_HERE | QUERY_THERE : QUERY_THERE;
}

/* Of scope all, a remote that fails is told in `source`; one that the host
** interrupted, or for want of memory, is an error all the same. */
static void queryRemote(Query *p, sqlite3_value *pQuery, const char *zPrefix,
                        i64 nRow, int bMust) {
  ChoirErr err = {SQLITE_OK, NULL};
  i64 nMost = nRow < 25 ? 50 : nRow * 2 < QUERY_K_MAX ? nRow * 2 : QUERY_K_MAX;
  if (p->pErr->rc == SQLITE_OK) {
    choirSearchRemote(&p->remote, p->pHost, &err, pQuery, zPrefix, nMost);
  }
  if (bMust || err.rc == SQLITE_NOMEM || err.rc == SQLITE_INTERRUPT) {
    if (err.rc != SQLITE_OK) {
      *p->pErr = err;
    }
  } else if (err.rc != SQLITE_OK) {
    choirSearchRemoteFree(&p->remote);
    p->remote.zFailed = err.zMsg;
  }
}

/* Chunks of the workspace's index, whose model must be the query's. */
static i64 queryWorkspace(Query *p) {
  char *zModel = choirMetaGet(p->pHost, p->pErr, "search.model");
  char *zChunk = choirMetaGet(p->pHost, p->pErr, "search.chunks");
  i64 n = zChunk ? strtoll(zChunk, NULL, 10) : 0;
  if (zModel && strcmp(zModel, p->pModel->zName) != 0) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the index has vectors of %s and embed.provider is %s; run"
                " select choir_index()",
                zModel, p->pModel->zName);
  }
  sqlite3_free(zModel);
  sqlite3_free(zChunk);
  return n;
}

/* The two lists of the workspace. */
static void queryRun(Query *p, const char *zPrefix) {
  SearchLive *pLive = choirSearchLive(p->pHost, p->pErr, p->pModel);
  i64 nChunk;
  if (pLive == NULL) {
    return;
  }
  p->bText = pLive->store.bText;
  p->apConn[QUERY_LIVE] = pLive->store.pConn;
  nChunk = pLive->store.nChunk;
  if (!pLive->bAll) {
    p->apConn[QUERY_WORKSPACE] = p->pHost;
    nChunk += queryWorkspace(p);
    querySkip(p);
  }
  queryOnly(p, zPrefix);
  if (p->bText) {
    queryCollect(p, nChunk);
    queryMend(p, nChunk);
    queryText(p);
  } else {
    choirSearchWeigh(&p->terms, 1);
  }
  /* Where the words already answer, only what is surely near may add to them;
  ** where they do not, what may be near is better than nothing. */
  queryVectors(p, p->bWhole ? p->pModel->rSure : p->pModel->rMaybe);
}

static void queryAnswers(Query *p, ChoirCursor *pCur, i64 nRow) {
  int i, n = 0;
  QueryAnswer *a = queryFuse(p, &n);
  for (i = 0; i < n && i < nRow && p->pErr->rc == SQLITE_OK; i++) {
    if (a[i].iPlace == QUERY_REMOTE) {
      queryRemoteRow(p, pCur, &a[i], i + 1);
    } else {
      queryRow(p, pCur, &a[i], i + 1);
    }
  }
  sqlite3_free(a);
}

/*
** SQL: choir_search(query[, k[, scope[, prefix]]]) -> TABLE(rank, score, kind,
**   id, path, preview, source)
**
** The documents of the workspace (artifacts, messages, memories) that answer a
** query best: by their words (FTS5), and by vectors of the configured model,
** which find other forms and misspellings. rank counts from 1; score is the
** sum of 1/(60 + place) over the lists, larger is better; kind is
** artifact, message or memory and id its id; path is an artifact's; preview is
** the best passage on one line; source says which list found it: text, vector
** or text+vector. Never stale: what choir_index() has not seen is searched
** too, and kept indexed in this connection's memory.
**
** Words are compared without case and diacritics. The last word also finds
** longer ones that start with it. Files that are not text are found by their
** path. Write choir_search('…') with WHERE prefix = '/docs/' to look under a
** path only.
**
** Scope remote asks the Qdrant collection of qdrant_search instead, all asks
** both: the remote list is the third, a document that several lists have is one
** row, and source says remote too. When the remote fails, all answers from here
** and says so in source.
**
**   query   TEXT; quotes and operators have no special meaning
**   k       INTEGER 1 to 1000, documents to return, default 10; WHERE and LIMIT
**           choose among these
**   scope   'local' (default), 'remote' or 'all'
**   prefix  TEXT, only artifacts whose path starts with it, byte by byte; the
**           path's first '/' may be left out
**
** NULL: a NULL query is an error; k, scope or prefix NULL is the default. A
** query without letters or digits finds nothing.
** Errors: no workspace; query not text, not UTF-8 or with a NUL character; the
** index was made with another embed.provider; with scope remote those of
** qdrant_search.
**
** > SELECT artifact_put('/law/mit.txt', 'Permission is hereby granted');
** > SELECT artifact_put('/law/gpl.txt', 'Everyone is permitted to copy');
** > SELECT rank, path, preview, source FROM choir_search('permision granted')
** = 1|/law/mit.txt|Permission is hereby granted|text+vector
** > SELECT path FROM choir_search('copy') WHERE k = 3 AND prefix = '/notes/'
** > UNION ALL SELECT count(*) FROM choir_search('copy')
** = 0
** > SELECT * FROM choir_search('copy', 10, 'both')
** ! choir_search: scope must be local, remote or all, got 'both'
*/
static void queryFilter(ChoirCursor *pCur) {
  Query q;
  ChoirErr *pErr = &pCur->err;
  const char *z, *zPrefix;
  i64 nRow = 10;
  int i, mScope;
  memset(&q, 0, sizeof(q));
  q.pHost = pCur->pConn;
  q.pErr = pErr;
  z = choirArgText(pErr, pCur->apArg[0], "query");
  if (pCur->apArg[1] && sqlite3_value_type(pCur->apArg[1]) != SQLITE_NULL) {
    nRow = choirArgInt(pErr, pCur->apArg[1], "k", 1, QUERY_K_MAX);
  }
  mScope = queryScope(q.pHost, pErr, pCur->apArg[2]);
  zPrefix = choirArgTextOrNull(pErr, pCur->apArg[3], "prefix");
  choirNeedWorkspace(q.pHost, pErr);
  q.pModel = choirEmbedModel(q.pHost, pErr);
  q.nCand = nRow > QUERY_CANDIDATES / 2 ? (int)nRow * 2 : QUERY_CANDIDATES;
  if (pErr->rc == SQLITE_OK) {
    choirSearchTerms(&q.terms, z, sqlite3_value_bytes(pCur->apArg[0]));
    if (q.terms.n > 0 && (mScope & QUERY_THERE)) {
      queryRemote(&q, pCur->apArg[0], zPrefix, nRow, !(mScope & QUERY_HERE));
    }
    if (q.terms.n > 0 && (mScope & QUERY_HERE)) {
      queryRun(&q, zPrefix);
    }
    queryAnswers(&q, pCur, nRow);
  }
  for (i = 0; i < QUERY_PLACES; i++) {
    int j;
    sqlite3_free(q.aOnly[i].a);
    for (j = 0; j < SEARCH_TERM_MAX; j++) {
      sqlite3_free(q.aList[i][j].a);
    }
  }
  choirSearchRemoteFree(&q.remote);
  choirSearchTermsFree(&q.terms);
  sqlite3_free(q.skip.a);
  sqlite3_free(q.text.a);
  sqlite3_free(q.vector.a);
}

static const ChoirTvf aQueryTvf[] = {
    /* EFFECT because the model may be remote; hash-384 never is. */
    {"choir_search",
     "rank, score, kind, id, path, preview, source, query HIDDEN, k HIDDEN,"
     " scope HIDDEN, prefix HIDDEN",
     7, 1, 4, CHOIR_EFFECT, CHOIR_LOCAL, 0, queryFilter, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirSearchQueryRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  choirTvfs(pConn, pErr, aQueryTvf);
}
