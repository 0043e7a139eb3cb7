/* SPDX-License-Identifier: MIT */
/*
** Vectors that a service has made, kept so that no text is sent twice.
**
** They lie in a database of choir's own outside the workspace (embed.cache,
** mode 0600), shared by all workspaces of the user and safe to lose:
**
**   vector(id, key UNIQUE, used, v)   key: SHA-256 of model, prefix and text;
**                                     used: Unix ms of the last use, by day;
**                                     v: the vector, unit length, f32
**   model(name, dim)                  how long the vectors of a model are
**
** A cache that cannot be read or written is an empty one: nothing here fails.
*/
#include "embed.h"
#ifndef CHOIR_OMIT_NET
#include <sys/stat.h>
#include <unistd.h>

#define CACHE_DAY ((i64)86400000)

static const char zCacheSchema[] =
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=NORMAL;"
    "CREATE TABLE IF NOT EXISTS vector(id INTEGER PRIMARY KEY,"
    " key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, v BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS model(name TEXT PRIMARY KEY,"
    " dim INTEGER NOT NULL) WITHOUT ROWID";

typedef struct CacheState {
  ChoirConn *pFile; /* NULL: not open, or of no use */
  char *zFile;      /* the name it was opened by */
  int pid;
} CacheState;

static void cacheClose(CacheState *p) {
  if (p->pFile && p->pid == choirPid()) { /* after fork() it is the parent's */
    choirConnUnref(p->pFile);
  }
  sqlite3_free(p->zFile);
  memset(p, 0, sizeof(*p));
}

static void cacheStateFree(void *p) { cacheClose(p); }

static const ChoirStateType cacheStateType = {"embed cache", sizeof(CacheState),
                                              cacheStateFree};

static void cacheOpen(CacheState *p, ChoirErr *pErr) {
  choirStateFolder(pErr, p->zFile);
  p->pFile = choirConnFile(pErr, p->zFile);
  if (p->pFile) {
    chmod(p->zFile, 0600); /* before its -wal exists, which takes it over */
    sqlite3_busy_timeout(p->pFile->db, 1000);
    choirExecText(p->pFile, pErr, zCacheSchema);
  }
  if (pErr->rc != SQLITE_OK && p->pFile) {
    choirConnUnref(p->pFile);
    p->pFile = NULL;
  }
}

/* The open cache, or NULL. */
static ChoirConn *cacheFile(ChoirConn *pConn) {
  ChoirErr err = {SQLITE_OK, NULL};
  CacheState *p = choirState(pConn, &err, &cacheStateType);
  const char *zSet = choirConfig(pConn, "embed.cache");
  char *zDir = zSet ? NULL : choirCacheDir(&err);
  char *zFile = zDir ? choirMprintf(&err, "%s/embed.db", zDir)
                     : choirMprintf(&err, "%s", zSet);
  sqlite3_free(zDir);
  if (p && zFile &&
      (p->zFile == NULL || strcmp(p->zFile, zFile) != 0 ||
       p->pid != choirPid())) {
    cacheClose(p);
    p->zFile = zFile;
    p->pid = choirPid();
    zFile = NULL;
    if (strcmp(p->zFile, "off") != 0) {
      cacheOpen(p, &err);
    }
  }
  sqlite3_free(zFile);
  choirErrClear(&err);
  return p ? p->pFile : NULL;
}

CHOIR_PRIVATE int choirEmbedCacheGet(ChoirConn *pConn, const u8 aKey[32],
                                     int nDim, float *aOut) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirConn *pFile = cacheFile(pConn);
  sqlite3_stmt *p;
  int nByte = nDim * (int)sizeof(float), bFound = 0, bOld = 0;
  if (pFile == NULL) {
    return 0;
  }
  p = choirStmt(pFile, &err, "SELECT v, used FROM vector WHERE key=?1");
  choirBindBlob(&err, p, 1, aKey, 32);
  if (choirStep(&err, p) && sqlite3_column_bytes(p, 0) == nByte &&
      sqlite3_column_blob(p, 0)) {
    memcpy(aOut, sqlite3_column_blob(p, 0), (size_t)nByte);
    bFound = 1;
    bOld = sqlite3_column_int64(p, 1) < choirNow() - CACHE_DAY;
  }
  choirStmtDone(pFile, p);
  if (bOld) {
    p = choirStmt(pFile, &err, "UPDATE vector SET used=?1 WHERE key=?2");
    choirBindInt(&err, p, 1, choirNow());
    choirBindBlob(&err, p, 2, aKey, 32);
    choirStep(&err, p);
    choirStmtDone(pFile, p);
  }
  choirErrClear(&err);
  return bFound;
}

/* What was not used for longest makes room, an eighth at a time. */
static void cacheLimit(ChoirConn *pFile, ChoirErr *pErr, i64 nMax) {
  if (choirQueryInt(pFile, pErr,
                    "SELECT (page_count - freelist_count) * page_size"
                    " FROM pragma_page_count, pragma_freelist_count,"
                    " pragma_page_size",
                    0) > nMax) {
    choirExecText(pFile, pErr,
                  "DELETE FROM vector WHERE id IN (SELECT id FROM vector"
                  " ORDER BY used LIMIT (SELECT 1 + count(*)/8 FROM vector))");
  }
}

CHOIR_PRIVATE void choirEmbedCachePut(ChoirConn *pConn, int n,
                                      const u8 (*aKey)[32], int nDim,
                                      const float *a) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirConn *pFile = cacheFile(pConn);
  int i;
  if (pFile == NULL) {
    return;
  }
  choirExecText(pFile, &err, "BEGIN IMMEDIATE");
  for (i = 0; i < n && err.rc == SQLITE_OK; i++) {
    sqlite3_stmt *p = choirStmt(pFile, &err,
                                "INSERT OR REPLACE INTO vector(key, used, v)"
                                " VALUES(?1, ?2, ?3)");
    choirBindBlob(&err, p, 1, aKey[i], 32);
    choirBindInt(&err, p, 2, choirNow());
    choirBindBlob(&err, p, 3, a + (i64)i * nDim, nDim * (i64)sizeof(float));
    choirStep(&err, p);
    choirStmtDone(pFile, p);
  }
  cacheLimit(pFile, &err,
             choirConfigInt(pConn, "embed.cache_bytes", (i64)1 << 28));
  choirExecText(pFile, &err, "COMMIT");
  if (err.rc != SQLITE_OK && !sqlite3_get_autocommit(pFile->db)) {
    choirErrClear(&err);
    choirExecText(pFile, &err, "ROLLBACK");
  }
  choirErrClear(&err);
}

CHOIR_PRIVATE int choirEmbedCacheDim(ChoirConn *pConn, const char *zModel) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirConn *pFile = cacheFile(pConn);
  sqlite3_stmt *p;
  int nDim = 0;
  if (pFile) {
    p = choirStmt(pFile, &err, "SELECT dim FROM model WHERE name=?1");
    choirBindText(&err, p, 1, zModel, -1);
    nDim = choirStep(&err, p) ? sqlite3_column_int(p, 0) : 0;
    choirStmtDone(pFile, p);
  }
  choirErrClear(&err);
  return nDim;
}

CHOIR_PRIVATE void choirEmbedCacheDimPut(ChoirConn *pConn, const char *zModel,
                                         int nDim) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirConn *pFile = cacheFile(pConn);
  sqlite3_stmt *p;
  if (pFile) {
    p = choirStmt(pFile, &err,
                  "INSERT OR REPLACE INTO model(name, dim) VALUES(?1, ?2)");
    choirBindText(&err, p, 1, zModel, -1);
    choirBindInt(&err, p, 2, nDim);
    choirStep(&err, p);
    choirStmtDone(pFile, p);
  }
  choirErrClear(&err);
}

#endif /* CHOIR_OMIT_NET */
