/* SPDX-License-Identifier: MIT */
/*
** Documents into a store: content is cut into chunks, every chunk gets a row
** in _choir_chunk, one in _choir_fts and, but for the path, a vector.
**
** A document whose content has the hash that is stored is left alone, so
** moving a file, or looking at everything again, embeds nothing. Its path is
** chunk 0: searchable by its words, without a vector, and all that is searched
** of a file that is not text.
**
** Content that has moved to the object store stays searchable as it was indexed,
** as long as its hash is the same; what was never here is found by its path.
**
** Text is what has no NUL byte and at most one byte in 32 that is not UTF-8;
** those become '?', which keeps every offset.
*/
#include "search.h"

#define SEARCH_HASH 16 /* bytes of SHA-256 that are kept */
#define SEARCH_REMOTE                                                          \
  " CASE WHEN content IS NULL AND s3_key IS NOT NULL THEN coalesce(hash, '')"  \
  " END"

static const struct {
  const char *zKind, *zTable, *zOne, *zAll, *zGone;
} aSearchKind[SEARCH_KINDS] = {
    {"artifact", "artifacts",
     "SELECT id, content, path," SEARCH_REMOTE " FROM ~.artifacts"
     " WHERE id=?1 AND deleted_at IS NULL",
     "SELECT id, content, path," SEARCH_REMOTE " FROM ~.artifacts"
     " WHERE deleted_at IS NULL",
     "SELECT 1 FROM ~.artifacts WHERE id=?1 AND deleted_at IS NULL"},
    {"message", "messages",
     "SELECT id, content, NULL, NULL FROM ~.messages WHERE id=?1",
     "SELECT id, content, NULL, NULL FROM ~.messages",
     "SELECT 1 FROM ~.messages WHERE id=?1"},
    {"memory", "memories",
     "SELECT id, content, NULL, NULL FROM ~.memories WHERE id=?1",
     "SELECT id, content, NULL, NULL FROM ~.memories",
     "SELECT 1 FROM ~.memories WHERE id=?1"},
};

CHOIR_PRIVATE const char *choirSearchKind(int eKind) {
  return aSearchKind[eKind].zKind;
}

CHOIR_PRIVATE int choirSearchKindOf(const char *zTable) {
  int i;
  for (i = 0; i < SEARCH_KINDS; i++) {
    if (zTable && strcmp(aSearchKind[i].zTable, zTable) == 0) {
      return i;
    }
  }
  return -1;
}

static int storeKind(const char *zKind) {
  int i;
  for (i = 0; i < SEARCH_KINDS; i++) {
    if (zKind && strcmp(aSearchKind[i].zKind, zKind) == 0) {
      return i;
    }
  }
  return -1;
}

/* ------------------------------------------------------------ text index */

/* PRAGMA module_list, and not the table of that name, which a table of the
** host could shadow. */
CHOIR_PRIVATE int choirSearchHasFts(ChoirConn *pConn, ChoirErr *pErr) {
  sqlite3_stmt *p = choirStmt(pConn, pErr, "PRAGMA module_list");
  int bHave = 0;
  while (!bHave && choirStep(pErr, p)) {
    const char *z = (const char *)sqlite3_column_text(p, 0);
    bHave = z && strcmp(z, "fts5") == 0;
  }
  choirStmtDone(pConn, p);
  return bHave;
}

/* A chunk's id is its document's id times 2^20 plus its number: 0 is the path,
** 1 and up are pieces of the content. Vectors lie apart, so that a scan of them
** reads nothing else. */
CHOIR_PRIVATE void choirSearchMake(ChoirConn *pConn, ChoirErr *pErr) {
  choirExecText(
      pConn, pErr,
      "CREATE TABLE IF NOT EXISTS ~._choir_doc(id INTEGER PRIMARY KEY,"
      " kind TEXT NOT NULL, doc TEXT NOT NULL, path TEXT, hash BLOB,"
      " UNIQUE(kind, doc));"
      "CREATE INDEX IF NOT EXISTS ~._choir_doc_path ON _choir_doc(path)"
      " WHERE path IS NOT NULL;"
      "CREATE TABLE IF NOT EXISTS ~._choir_chunk(id INTEGER PRIMARY KEY,"
      " start INTEGER NOT NULL, text TEXT NOT NULL);"
      "CREATE TABLE IF NOT EXISTS ~._choir_vector(id INTEGER PRIMARY KEY,"
      " embedding BLOB NOT NULL)");
}

CHOIR_PRIVATE int choirSearchIsMade(ChoirConn *pConn, ChoirErr *pErr) {
  return choirQueryInt(pConn, pErr,
                       "SELECT count(*) FROM ~.sqlite_schema WHERE name IN"
                       " ('_choir_doc', '_choir_chunk', '_choir_vector')"
                       " AND type='table'",
                       0) == 3;
}

CHOIR_PRIVATE void choirSearchMakeFts(ChoirConn *pConn, ChoirErr *pErr) {
  choirExecText(pConn, pErr,
                "CREATE VIRTUAL TABLE ~._choir_fts USING fts5(text,"
                " content='_choir_chunk', content_rowid='id',"
                " tokenize='unicode61 remove_diacritics 2')");
}

/* --------------------------------------------------------------- vectors */

CHOIR_PRIVATE void choirSearchQuantize(const float *a, int n,
                                       signed char *aTo) {
  float rMax = 0.0f;
  int i;
  for (i = 0; i < n; i++) {
    float r = a[i] < 0.0f ? -a[i] : a[i];
    rMax = r > rMax ? r : rMax;
  }
  for (i = 0; i < n; i++) {
    float r = rMax > 0.0f ? a[i] * (127.0f / rMax) : 0.0f;
    aTo[i] = (signed char)(r < 0.0f ? r - 0.5f : r + 0.5f);
  }
}

/* The vectors of the batch, or NULL; the batch is emptied. */
static float *storeBatch(SearchStore *p, ChoirErr *pErr) {
  int i, n = p->nBatch;
  float *a =
      n ? choirMalloc(pErr, (u64)n * (u64)p->pModel->nDim * sizeof(float))
        : NULL;
  if (a) {
    choirEmbedBatch(p->pHost, pErr, p->pModel, (const char *const *)p->azText,
                    p->anText, n, CHOIR_EMBED_DOCUMENT, a);
  }
  for (i = 0; i < n; i++) {
    sqlite3_free(p->azText[i]);
    p->azText[i] = NULL;
  }
  p->nBatch = 0;
  return a;
}

/* Adds a text to the batch; 1 when it is full. */
static int storeBatchAdd(SearchStore *p, ChoirErr *pErr, i64 iId, const char *z,
                         i64 n) {
  char *zCopy = choirMalloc(pErr, (u64)n + 1);
  if (zCopy) {
    memcpy(zCopy, z, (size_t)n);
    p->aId[p->nBatch] = iId;
    p->azText[p->nBatch] = zCopy;
    p->anText[p->nBatch++] = n;
  }
  return p->nBatch == SEARCH_BATCH;
}

CHOIR_PRIVATE void choirSearchFlush(SearchStore *p, ChoirErr *pErr) {
  int i, n = p->nBatch, nDim = p->pModel->nDim;
  float *a = storeBatch(p, pErr);
  for (i = 0; i < n; i++) {
    sqlite3_stmt *pStmt = choirStmt(
        p->pConn, pErr,
        "INSERT OR REPLACE INTO ~._choir_vector(id, embedding) VALUES(?1, ?2)");
    choirBindInt(pErr, pStmt, 1, p->aId[i]);
    if (a) { /* in place: a byte never reaches a float that is still needed */
      signed char *aByte = (signed char *)(a + (i64)i * nDim);
      choirSearchQuantize(a + (i64)i * nDim, nDim, aByte);
      choirBindBlob(pErr, pStmt, 2, aByte, nDim);
    }
    choirStep(pErr, pStmt);
    choirStmtDone(p->pConn, pStmt);
  }
  sqlite3_free(a);
}

CHOIR_PRIVATE void choirSearchWarm(SearchStore *p, ChoirErr *pErr,
                                   const char *z, i64 n) {
  if (z == NULL || storeBatchAdd(p, pErr, 0, z, n)) {
    sqlite3_free(storeBatch(p, pErr));
  }
}

/* Chunks of one document are embedded together with those of the next ones,
** because a model behind a network wants full batches. */
static void storeEmbed(SearchStore *p, ChoirErr *pErr, i64 iId, const char *z,
                       i64 n) {
  if (storeBatchAdd(p, pErr, iId, z, n)) {
    choirSearchFlush(p, pErr);
  }
}

CHOIR_PRIVATE void choirSearchEmbedAll(SearchStore *p, ChoirErr *pErr,
                                       void (*xTick)(SearchStore *)) {
  sqlite3_stmt *pStmt;
  choirExecText(p->pConn, pErr, "DELETE FROM ~._choir_vector");
  pStmt = choirStmt(p->pConn, pErr, "SELECT id, text FROM ~._choir_chunk");
  while (choirStep(pErr, pStmt)) {
    i64 iId = sqlite3_column_int64(pStmt, 0);
    const char *z = (const char *)sqlite3_column_text(pStmt, 1);
    if (z && (iId & SEARCH_CHUNK_MOST)) {
      storeEmbed(p, pErr, iId, z, sqlite3_column_bytes(pStmt, 1));
      p->nWritten++;
    }
    if (xTick) {
      xTick(p);
    }
  }
  choirStmtDone(p->pConn, pStmt);
  choirSearchFlush(p, pErr);
}

/* ---------------------------------------------------------------- chunks */

static void storeText(SearchStore *p, ChoirErr *pErr, const char *zSql, i64 iId,
                      const char *z, i64 n) {
  sqlite3_stmt *pStmt;
  if (!p->bText) {
    return;
  }
  pStmt = choirStmt(p->pConn, pErr, zSql);
  choirBindInt(pErr, pStmt, 1, iId);
  choirBindText(pErr, pStmt, 2, z, n);
  choirStep(pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
}

static void storeAdd(SearchStore *p, ChoirErr *pErr, i64 iId, i64 iStart,
                     const char *z, i64 n) {
  sqlite3_stmt *pStmt = choirStmt(p->pConn, pErr,
                                  "INSERT INTO ~._choir_chunk(id, start, text)"
                                  " VALUES(?1, ?2, ?3)");
  choirBindInt(pErr, pStmt, 1, iId);
  choirBindInt(pErr, pStmt, 2, iStart);
  choirBindText(pErr, pStmt, 3, z, n);
  choirStep(pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  storeText(p, pErr, "INSERT INTO ~._choir_fts(rowid, text) VALUES(?1, ?2)",
            iId, z, n);
  p->nChunk++;
  p->nWritten++;
}

/* Takes away the chunks iFirst..iLast: the text index wants the very text that
** it was given. */
static void storeRemove(SearchStore *p, ChoirErr *pErr, i64 iFirst, i64 iLast) {
  sqlite3_stmt *pStmt;
  int i;
  choirSearchFlush(p, pErr);
  pStmt = choirStmt(p->pConn, pErr,
                    "SELECT id, text FROM ~._choir_chunk"
                    " WHERE id BETWEEN ?1 AND ?2");
  choirBindInt(pErr, pStmt, 1, iFirst);
  choirBindInt(pErr, pStmt, 2, iLast);
  while (choirStep(pErr, pStmt)) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 1);
    storeText(p, pErr,
              "INSERT INTO ~._choir_fts(_choir_fts, rowid, text)"
              " VALUES('delete', ?1, ?2)",
              sqlite3_column_int64(pStmt, 0), z ? z : "",
              sqlite3_column_bytes(pStmt, 1));
    p->nChunk--;
  }
  choirStmtDone(p->pConn, pStmt);
  for (i = 0; i < 2; i++) {
    pStmt =
        choirStmt(p->pConn, pErr,
                  i ? "DELETE FROM ~._choir_vector WHERE id BETWEEN ?1 AND ?2"
                    : "DELETE FROM ~._choir_chunk WHERE id BETWEEN ?1 AND ?2");
    choirBindInt(pErr, pStmt, 1, iFirst);
    choirBindInt(pErr, pStmt, 2, iLast);
    choirStep(pErr, pStmt);
    choirStmtDone(p->pConn, pStmt);
  }
}

/* ------------------------------------------------------------- documents */

/* Is this text? Then *pzCopy is NULL, or a copy (sqlite3_free) with '?' for
** what is not UTF-8. */
static int storeIsText(ChoirErr *pErr, const char *z, i64 n, char **pzCopy) {
  i64 i = 0, nBad = 0;
  *pzCopy = NULL;
  if (z == NULL || memchr(z, 0, (size_t)n) != NULL) {
    return 0;
  }
  while ((i += choirUtf8Valid(z + i, n - i)) < n) {
    if (++nBad > n / 32) {
      sqlite3_free(*pzCopy);
      *pzCopy = NULL;
      return 0;
    }
    if (*pzCopy == NULL) {
      *pzCopy = choirMalloc(pErr, (u64)n + 1);
      if (*pzCopy == NULL) {
        return 0;
      }
      memcpy(*pzCopy, z, (size_t)n);
    }
    (*pzCopy)[i++] = '?';
  }
  return 1;
}

static void storeChunks(SearchStore *p, ChoirErr *pErr, i64 iDoc,
                        const SearchDoc *pDoc) {
  ChoirChunker c;
  char *zCopy;
  const char *z;
  if (!storeIsText(pErr, pDoc->aText, pDoc->nText, &zCopy)) {
    return;
  }
  z = zCopy ? zCopy : pDoc->aText;
  choirChunkInit(&c, z, pDoc->nText, CHOIR_CHUNK_BYTES, 0);
  while (pErr->rc == SQLITE_OK && choirChunkNext(&c)) {
    i64 iId = iDoc << SEARCH_CHUNK_BITS | (c.iOrd + 1);
    i64 n = c.iEnd - c.iStart;
    if (c.iOrd + 1 > SEARCH_CHUNK_MOST) {
      break; /* over half a gigabyte: the rest is not searched */
    }
    storeAdd(p, pErr, iId, c.iStart, z + c.iStart, n);
    storeEmbed(p, pErr, iId, z + c.iStart, n);
    if (c.iOrd % 256 == 255 && choirInterrupted(p->pHost)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
    }
  }
  sqlite3_free(zCopy);
}

/* What the store has of a document: its id (0: nothing), whether the path and
** the hash are these. */
typedef struct StoreHave {
  i64 iDoc;
  int bPath, bHash;
} StoreHave;

/* ?1 kind, ?2 document, ?3 path, ?4 hash */
static void storeBindDoc(ChoirErr *pErr, sqlite3_stmt *pStmt,
                         const SearchDoc *pDoc, const u8 *aHash) {
  choirBindText(pErr, pStmt, 1, choirSearchKind(pDoc->eKind), -1);
  choirBindText(pErr, pStmt, 2, pDoc->zId, pDoc->nId);
  if (pDoc->zPath) {
    choirBindText(pErr, pStmt, 3, pDoc->zPath, pDoc->nPath);
  }
  if (aHash) {
    choirBindBlob(pErr, pStmt, 4, aHash, SEARCH_HASH);
  }
}

static StoreHave storeFind(SearchStore *p, ChoirErr *pErr,
                           const SearchDoc *pDoc, const u8 *aHash) {
  StoreHave have = {0, 0, 0};
  sqlite3_stmt *pStmt =
      choirStmt(p->pConn, pErr,
                "SELECT id, path IS ?3, hash IS ?4 FROM ~._choir_doc"
                " WHERE kind=?1 AND doc=?2");
  storeBindDoc(pErr, pStmt, pDoc, aHash);
  if (choirStep(pErr, pStmt)) {
    have.iDoc = sqlite3_column_int64(pStmt, 0);
    have.bPath = sqlite3_column_int(pStmt, 1);
    have.bHash = sqlite3_column_int(pStmt, 2);
  }
  choirStmtDone(p->pConn, pStmt);
  return have;
}

static i64 storeWriteDoc(SearchStore *p, ChoirErr *pErr, const SearchDoc *pDoc,
                         const u8 *aHash) {
  sqlite3_stmt *pStmt =
      choirStmt(p->pConn, pErr,
                "INSERT INTO ~._choir_doc(kind, doc, path, hash)"
                " VALUES(?1, ?2, ?3, ?4) ON CONFLICT(kind, doc)"
                " DO UPDATE SET path=?3, hash=?4 RETURNING id");
  i64 iDoc = 0;
  storeBindDoc(pErr, pStmt, pDoc, aHash);
  if (choirStep(pErr, pStmt)) {
    iDoc = sqlite3_column_int64(pStmt, 0);
    choirStep(pErr, pStmt);
  }
  choirStmtDone(p->pConn, pStmt);
  return iDoc;
}

/* The hash of a document's content: computed, or read from the row. */
static void storeHash(const SearchDoc *pDoc, u8 aHash[32]) {
  int i;
  if (pDoc->zRemote == NULL || strlen(pDoc->zRemote) != 64) {
    choirSha256(pDoc->aText ? pDoc->aText : "", (u64)pDoc->nText, aHash);
    return;
  }
  for (i = 0; i < 64; i++) {
    int c = (u8)pDoc->zRemote[i];
    c = (c | 32) >= 'a' ? (c | 32) - 'a' + 10 : c - '0';
    aHash[i / 2] = (u8)(i % 2 ? aHash[i / 2] << 4 | (c & 15) : c & 15);
  }
}

/* Content that is elsewhere, into the private store as the workspace's index has
** it: 1 when it does. */
static int storeBorrow(SearchStore *p, ChoirErr *pErr, i64 iDoc,
                       const SearchDoc *pDoc, const u8 *aHash) {
  sqlite3_stmt *pStmt;
  int bHave = 0;
  if (p->pConn == p->pHost || !choirSearchIsMade(p->pHost, pErr)) {
    return 0;
  }
  pStmt = choirStmt(p->pHost, pErr,
                    "SELECT c.id & 1048575, c.start, c.text FROM ~._choir_doc"
                    " AS d LEFT JOIN ~._choir_chunk AS c ON c.id > d.id << 20"
                    " AND c.id < (d.id + 1) << 20 WHERE d.kind=?1 AND d.doc=?2"
                    " AND d.hash IS ?4");
  storeBindDoc(pErr, pStmt, pDoc, aHash);
  while (choirStep(pErr, pStmt)) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 2);
    i64 n = sqlite3_column_bytes(pStmt, 2);
    i64 iId = iDoc << SEARCH_CHUNK_BITS | sqlite3_column_int64(pStmt, 0);
    bHave = 1;
    if (z) {
      storeAdd(p, pErr, iId, sqlite3_column_int64(pStmt, 1), z, n);
      storeEmbed(p, pErr, iId, z, n);
    }
  }
  choirStmtDone(p->pHost, pStmt);
  return bHave;
}

CHOIR_PRIVATE void choirSearchPut(SearchStore *p, ChoirErr *pErr,
                                  const SearchDoc *pDoc) {
  u8 aHash[32];
  StoreHave have;
  i64 iDoc, iFirst;
  int bUnseen; /* its content is elsewhere and was not indexed in this store */
  storeHash(pDoc, aHash);
  have = storeFind(p, pErr, pDoc, aHash);
  bUnseen = pDoc->zRemote && !have.bHash;
  if (pErr->rc != SQLITE_OK || (have.iDoc && have.bPath && have.bHash)) {
    return;
  }
  if (choirInterrupted(p->pHost)) {
    choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
  }
  iFirst = have.iDoc << SEARCH_CHUNK_BITS;
  if (have.iDoc) {
    storeRemove(p, pErr, iFirst,
                have.bHash ? iFirst : iFirst | SEARCH_CHUNK_MOST);
  }
  iDoc = storeWriteDoc(p, pErr, pDoc, bUnseen ? NULL : aHash);
  if (pDoc->zPath) {
    storeAdd(p, pErr, iDoc << SEARCH_CHUNK_BITS, 0, pDoc->zPath, pDoc->nPath);
  }
  if (bUnseen && storeBorrow(p, pErr, iDoc, pDoc, aHash)) {
    storeWriteDoc(p, pErr, pDoc, aHash);
  } else if (!have.bHash) {
    storeChunks(p, pErr, iDoc, pDoc);
  }
  p->nIndexed++;
}

CHOIR_PRIVATE void choirSearchDrop(SearchStore *p, ChoirErr *pErr, int eKind,
                                   const char *zId, int nId, int bForget) {
  SearchDoc doc = {eKind, zId, nId, NULL, 0, NULL, 0, NULL};
  i64 iDoc = storeFind(p, pErr, &doc, NULL).iDoc;
  sqlite3_stmt *pStmt;
  if (iDoc) {
    storeRemove(p, pErr, iDoc << SEARCH_CHUNK_BITS,
                iDoc << SEARCH_CHUNK_BITS | SEARCH_CHUNK_MOST);
    p->nRemoved++;
  }
  if (!bForget) {
    storeWriteDoc(p, pErr, &doc, NULL);
  } else if (iDoc) {
    pStmt = choirStmt(p->pConn, pErr, "DELETE FROM ~._choir_doc WHERE id=?1");
    choirBindInt(pErr, pStmt, 1, iDoc);
    choirStep(pErr, pStmt);
    choirStmtDone(p->pConn, pStmt);
  }
}

/* ------------------------------------------------- out of the workspace */

/* The document in a row of zOne or zAll; what it points at lives until the
** statement steps on. */
static SearchDoc storeRow(sqlite3_stmt *pStmt, int eKind) {
  SearchDoc doc = {eKind, NULL, 0, NULL, 0, NULL, 0, NULL};
  doc.zId = (const char *)sqlite3_column_text(pStmt, 0);
  doc.nId = sqlite3_column_bytes(pStmt, 0);
  doc.aText = sqlite3_column_type(pStmt, 1) == SQLITE_BLOB
                  ? sqlite3_column_blob(pStmt, 1)
                  : (const void *)sqlite3_column_text(pStmt, 1);
  doc.nText = sqlite3_column_bytes(pStmt, 1);
  doc.zPath = (const char *)sqlite3_column_text(pStmt, 2);
  doc.nPath = sqlite3_column_bytes(pStmt, 2);
  doc.zRemote = (const char *)sqlite3_column_text(pStmt, 3);
  return doc;
}

CHOIR_PRIVATE void choirSearchPull(SearchStore *p, ChoirErr *pErr, int eKind,
                                   sqlite3_value *pId, int bForget) {
  sqlite3_stmt *pStmt = choirStmt(p->pHost, pErr, aSearchKind[eKind].zOne);
  choirBindValue(pErr, pStmt, 1, pId);
  if (choirStep(pErr, pStmt)) {
    SearchDoc doc = storeRow(pStmt, eKind);
    choirSearchPut(p, pErr, &doc);
  } else if (pErr->rc == SQLITE_OK) {
    const char *z = (const char *)sqlite3_value_text(pId);
    if (z) {
      choirSearchDrop(p, pErr, eKind, z, sqlite3_value_bytes(pId), bForget);
    }
  }
  choirStmtDone(p->pHost, pStmt);
}

/* Drops the documents of the store that the workspace no longer has. */
static void storeSweep(SearchStore *p, ChoirErr *pErr) {
  sqlite3_stmt *pDoc =
      choirStmt(p->pConn, pErr, "SELECT kind, doc FROM ~._choir_doc");
  while (choirStep(pErr, pDoc)) {
    int eKind = storeKind((const char *)sqlite3_column_text(pDoc, 0));
    const char *zId = (const char *)sqlite3_column_text(pDoc, 1);
    int bHave = 0;
    if (eKind >= 0) {
      sqlite3_stmt *pStmt = choirStmt(p->pHost, pErr, aSearchKind[eKind].zGone);
      choirBindText(pErr, pStmt, 1, zId, sqlite3_column_bytes(pDoc, 1));
      bHave = choirStep(pErr, pStmt);
      choirStmtDone(p->pHost, pStmt);
    }
    if (!bHave && pErr->rc == SQLITE_OK && zId) {
      choirSearchDrop(p, pErr, eKind < 0 ? 0 : eKind, zId,
                      sqlite3_column_bytes(pDoc, 1), 1);
    }
  }
  choirStmtDone(p->pConn, pDoc);
}

CHOIR_PRIVATE void choirSearchPullAll(SearchStore *p, ChoirErr *pErr,
                                      void (*xTick)(SearchStore *)) {
  int i;
  for (i = 0; i < SEARCH_KINDS; i++) {
    sqlite3_stmt *pStmt = choirStmt(p->pHost, pErr, aSearchKind[i].zAll);
    while (choirStep(pErr, pStmt)) {
      SearchDoc doc = storeRow(pStmt, i);
      choirSearchPut(p, pErr, &doc);
      if (xTick) {
        xTick(p);
      }
    }
    choirStmtDone(p->pHost, pStmt);
  }
  storeSweep(p, pErr);
  choirSearchFlush(p, pErr);
}

CHOIR_PRIVATE void choirSearchPullLog(SearchStore *p, ChoirErr *pErr, i64 iFrom,
                                      int bForget,
                                      void (*xTick)(SearchStore *)) {
  sqlite3_stmt *pStmt =
      choirStmt(p->pHost, pErr,
                "SELECT DISTINCT tbl, pk FROM ~.action_log WHERE seq > ?1"
                " AND tbl IN ('artifacts', 'messages', 'memories')"
                " AND pk IS NOT NULL");
  choirBindInt(pErr, pStmt, 1, iFrom);
  while (choirStep(pErr, pStmt)) {
    int eKind = choirSearchKindOf((const char *)sqlite3_column_text(pStmt, 0));
    sqlite3_value *pId = sqlite3_value_dup(sqlite3_column_value(pStmt, 1));
    if (pId == NULL) {
      choirErrNomem(pErr);
    } else if (eKind >= 0) {
      choirSearchPull(p, pErr, eKind, pId, bForget);
    }
    sqlite3_value_free(pId);
    if (xTick) {
      xTick(p);
    }
  }
  choirStmtDone(p->pHost, pStmt);
  choirSearchFlush(p, pErr);
}

/* ------------------------------------------------------------- the log */

/* The names that the log room gives its triggers. Other ones it has there serve
** cases that these do not see (REPLACE); choir_check() looks after them. */
CHOIR_PRIVATE int choirSearchTrusted(ChoirConn *pConn, ChoirErr *pErr) {
  return choirQueryInt(
             pConn, pErr,
             "SELECT count(*) FROM ~.sqlite_schema WHERE type='trigger'"
             " AND name IN ('_choir_log_artifacts_insert',"
             " '_choir_log_artifacts_update', '_choir_log_artifacts_delete',"
             " '_choir_log_artifacts_displaced', '_choir_log_artifacts_rekey',"
             " '_choir_log_messages_rekey', '_choir_log_memories_rekey',"
             " '_choir_log_messages_insert',"
             " '_choir_log_messages_update', '_choir_log_messages_delete',"
             " '_choir_log_memories_insert', '_choir_log_memories_update',"
             " '_choir_log_memories_delete', '_choir_log_cursor_delete')",
             0) == 14;
}

CHOIR_PRIVATE i64 choirSearchCursor(ChoirConn *pConn, ChoirErr *pErr) {
  return choirQueryInt(
      pConn, pErr, "SELECT seq FROM ~._choir_cursor WHERE consumer='text'", -1);
}
