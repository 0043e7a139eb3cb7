/* SPDX-License-Identifier: MIT */
/*
** The cache: cache_get, cache_set, cache_purge on the table server_cache.
**
** A value keeps its SQLite type and goes at expires_at, or earlier when the
** cache is larger than the setting cache.max_bytes: then those go first that
** were not used for the longest time.
**
** cache_get only reads: it remembers hits in memory, and the next cache_set or
** cache_purge of the connection adds them to hits and used_at. The sizes are
** summed up only when this connection has written a sixteenth of the limit
** since the last time, and then a sixteenth is left free, so the cache of one
** writer never grows over the limit.
*/
#include "store.h"

#define CACHE_HITS 256 /* rows whose hits wait in memory, a power of two */
#define CACHE_TTL_MAX ((i64)100 * 366 * 86400000)

typedef struct StoreHit {
  i64 iRowid, nHit, iUsed; /* nHit 0: free */
} StoreHit;

typedef struct StoreCache {
  StoreHit a[CACHE_HITS]; /* by rowid; a newer row takes the place */
  int nWaiting;
  i64 nHit, nMiss; /* of this connection */
  i64 nWritten;    /* bytes since the sizes were summed up */
  u8 bSummed;      /* they were, once */
} StoreCache;

static const ChoirStateType storeCacheState = {"cache", sizeof(StoreCache),
                                               NULL};

static void cacheHit(StoreCache *p, i64 iRowid, i64 iNow) {
  StoreHit *pHit = &p->a[iRowid & (CACHE_HITS - 1)];
  if (pHit->iRowid != iRowid) {
    p->nWaiting -= pHit->nHit > 0;
    pHit->nHit = 0;
    pHit->iRowid = iRowid;
  }
  p->nWaiting += pHit->nHit == 0;
  pHit->nHit++;
  pHit->iUsed = iNow;
  p->nHit++;
}

/* Writes the waiting hits down. */
static void cacheFlush(ChoirConn *pConn, ChoirErr *pErr, StoreCache *p) {
  int i;
  for (i = 0; p && p->nWaiting && i < CACHE_HITS; i++) {
    if (p->a[i].nHit) {
      sqlite3_stmt *pStmt = choirStmt(
          pConn, pErr,
          "UPDATE ~.server_cache SET hits=hits+?2, used_at=?3 WHERE rowid=?1");
      choirBindInt(pErr, pStmt, 1, p->a[i].iRowid);
      choirBindInt(pErr, pStmt, 2, p->a[i].nHit);
      choirBindInt(pErr, pStmt, 3, p->a[i].iUsed);
      choirStep(pErr, pStmt);
      choirStmtDone(pConn, pStmt);
      if (pErr->rc != SQLITE_OK) {
        return;
      }
      p->a[i].nHit = 0;
      p->nWaiting--;
    }
  }
}

/*
** SQL: cache_get(key[, max_age_ms]) -> any
**
** A value of the cache, with the type it was put with, or NULL when it is not
** there, expired, or too old.
**
**   key         TEXT, at most 1,000 bytes: a URL, a query, …
**   max_age_ms  INTEGER, milliseconds since it was put
**
** NULL: gives NULL for a miss; a NULL max_age_ms means any age.
** Errors: a key that is empty or too long; a negative age.
**
** > WITH s AS MATERIALIZED (SELECT cache_set('https://a.test/', x'0102') AS n)
** > SELECT n, typeof(cache_get('https://a.test/')), cache_get('other') FROM s
** = 1|blob|NULL
*/
static void cacheFind(ChoirCall *p) {
  const char *zKey = choirStoreArgName(&p->err, p->apArg[0], "key");
  StoreCache *pState = choirState(p->pConn, &p->err, &storeCacheState);
  i64 iNow = choirNow(), iSince = INT64_MIN;
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, &p->err);
  if (p->nArg > 1 && sqlite3_value_type(p->apArg[1]) != SQLITE_NULL) {
    iSince = iNow -
             choirArgInt(&p->err, p->apArg[1], "max_age_ms", 0, CACHE_TTL_MAX);
  }
  pStmt = choirStmt(p->pConn, &p->err,
                    "SELECT value, rowid FROM ~.server_cache WHERE key=?1 AND"
                    " (expires_at IS NULL OR expires_at>?2) AND timestamp>=?3");
  choirBindText(&p->err, pStmt, 1, zKey, -1);
  choirBindInt(&p->err, pStmt, 2, iNow);
  choirBindInt(&p->err, pStmt, 3, iSince);
  if (choirStep(&p->err, pStmt)) {
    sqlite3_result_value(p->pCtx, sqlite3_column_value(pStmt, 0));
    cacheHit(pState, sqlite3_column_int64(pStmt, 1), iNow);
  } else if (p->err.rc == SQLITE_OK) {
    pState->nMiss++;
  }
  choirStmtDone(p->pConn, pStmt);
}

/* ----------------------------------------------------------------- writing */

static i64 cacheExpire(ChoirConn *pConn, ChoirErr *pErr) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr, "DELETE FROM ~.server_cache WHERE expires_at<=?1");
  choirBindInt(pErr, p, 1, choirNow());
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
  return pErr->rc == SQLITE_OK ? sqlite3_changes(pConn->db) : 0;
}

#define CACHE_SIZE                                                             \
  "(length(CAST(key AS BLOB)) + CASE typeof(value) WHEN 'blob' THEN"           \
  " length(value) WHEN 'text' THEN length(CAST(value AS BLOB)) ELSE 8 END)"

/* Lets the least recently used go until nKeep bytes are left. */
static void cacheShrink(ChoirConn *pConn, ChoirErr *pErr, i64 nKeep) {
  sqlite3_stmt *p;
  cacheExpire(pConn, pErr);
  if (choirQueryInt(pConn, pErr,
                    "SELECT sum(" CACHE_SIZE ") FROM ~.server_cache",
                    0) <= nKeep) {
    return;
  }
  p = choirStmt(pConn, pErr,
                "DELETE FROM ~.server_cache WHERE rowid IN (SELECT rowid FROM"
                " (SELECT rowid, sum(" CACHE_SIZE ") OVER (ORDER BY"
                " max(timestamp, coalesce(used_at, 0)) DESC, rowid DESC) AS n"
                " FROM ~.server_cache) WHERE n>?1)");
  choirBindInt(pErr, p, 1, nKeep);
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

/* Makes room for n more bytes when it is time to look. */
static void cacheRoom(ChoirConn *pConn, ChoirErr *pErr, StoreCache *p, i64 n) {
  i64 nMax = choirConfigInt(pConn, "cache.max_bytes", 0);
  if (nMax > 0 && n > nMax) {
    choirErrSet(pErr, SQLITE_TOOBIG,
                "key and value have %lld bytes, cache.max_bytes is %lld", n,
                nMax);
  }
  if (pErr->rc == SQLITE_OK && nMax > 0) {
    p->nWritten += n;
    if (!p->bSummed || p->nWritten > nMax / 16) {
      i64 nKeep = nMax - (n > nMax / 16 ? n : nMax / 16);
      cacheShrink(pConn, pErr, nKeep);
      p->bSummed = 1;
      p->nWritten = n > nMax / 16 ? 0 : n;
    }
  }
}

/* As CACHE_SIZE counts. */
static i64 cacheSize(const char *zKey, sqlite3_value *v) {
  int eType = sqlite3_value_type(v);
  return (zKey ? (i64)strlen(zKey) : 0) +
         (eType == SQLITE_BLOB || eType == SQLITE_TEXT ? sqlite3_value_bytes(v)
                                                       : 8);
}

/*
** SQL: cache_set(key, value[, ttl_ms = 300000]) -> INTEGER
**
** Puts a value into the cache, in place of the one there, and returns 1. Where
** the cache would grow over the setting cache.max_bytes, what was not used for
** the longest time goes.
**
**   key     TEXT, at most 1,000 bytes
**   value   any; its type is kept
**   ttl_ms  INTEGER, milliseconds until it expires, 5 minutes by default
**
** NULL: a NULL value removes the key (1 when it was there, else 0); a NULL
** ttl_ms means that it does not expire.
** Errors: a key that is empty or too long; a ttl_ms below 1; key and value
** larger than cache.max_bytes.
**
** > WITH s AS MATERIALIZED (SELECT cache_set('answer', 42, 60000) AS a)
** > SELECT a, cache_get('answer'), cache_get('answer', 60000) FROM s
** = 1|42|42
*/
static void cacheSet(ChoirCall *p) {
  const char *zKey = choirStoreArgName(&p->err, p->apArg[0], "key");
  StoreCache *pState = choirState(p->pConn, &p->err, &storeCacheState);
  i64 iNow = choirNow(), iTtl = 300000;
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, &p->err);
  cacheFlush(p->pConn, &p->err, pState);
  if (p->nArg > 2) {
    iTtl = sqlite3_value_type(p->apArg[2]) == SQLITE_NULL
               ? 0
               : choirArgInt(&p->err, p->apArg[2], "ttl_ms", 1, CACHE_TTL_MAX);
  }
  if (sqlite3_value_type(p->apArg[1]) == SQLITE_NULL) {
    pStmt =
        choirStmt(p->pConn, &p->err, "DELETE FROM ~.server_cache WHERE key=?1");
  } else {
    cacheRoom(p->pConn, &p->err, pState, cacheSize(zKey, p->apArg[1]));
    pStmt = choirStmt(p->pConn, &p->err,
                      "INSERT INTO ~.server_cache(key, value, timestamp,"
                      " expires_at) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(key) DO"
                      " UPDATE SET value=?2, timestamp=?3, expires_at=?4");
    choirBindValue(&p->err, pStmt, 2, p->apArg[1]);
    choirBindInt(&p->err, pStmt, 3, iNow);
    if (iTtl) {
      choirBindInt(&p->err, pStmt, 4, iNow + iTtl);
    }
  }
  choirBindText(&p->err, pStmt, 1, zKey, -1);
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  sqlite3_result_int(p->pCtx, sqlite3_changes(p->pConn->db) > 0);
}

/*
** SQL: cache_purge([glob]) -> INTEGER
**
** Removes what has expired, and with a pattern also every key that fits it;
** returns how many values went.
**
**   glob  TEXT, e.g. api:* or just *
**
** NULL: a NULL pattern means none.
** Errors: a pattern that is not text.
**
** > WITH s AS MATERIALIZED (SELECT cache_set('a:1', 1), cache_set('a:2', 2),
** >   cache_set('b', 3), cache_purge('a:*') AS n)
** > SELECT n, cache_purge() FROM s
** = 2|0
*/
static void cachePurge(ChoirCall *p) {
  const char *zGlob =
      p->nArg > 0 ? choirArgTextOrNull(&p->err, p->apArg[0], "glob") : NULL;
  i64 n;
  choirNeedWorkspace(p->pConn, &p->err);
  cacheFlush(p->pConn, &p->err,
             choirState(p->pConn, &p->err, &storeCacheState));
  n = cacheExpire(p->pConn, &p->err);
  if (zGlob) {
    sqlite3_stmt *pStmt = choirStmt(
        p->pConn, &p->err, "DELETE FROM ~.server_cache WHERE key GLOB ?1");
    choirBindText(&p->err, pStmt, 1, zGlob, -1);
    choirStep(&p->err, pStmt);
    choirStmtDone(p->pConn, pStmt);
    n += sqlite3_changes(p->pConn->db);
  }
  sqlite3_result_int64(p->pCtx, n);
}

CHOIR_PRIVATE void choirStoreCacheMetrics(ChoirConn *pConn, ChoirErr *pErr,
                                          ChoirCursor *pCur) {
  StoreCache *p = choirState(pConn, pErr, &storeCacheState);
  choirRowText(pCur, "cache.hits");
  choirRowInt(pCur, p ? p->nHit : 0);
  choirRowText(pCur, "cache_get on this connection that found a value");
  choirRowText(pCur, "cache.misses");
  choirRowInt(pCur, p ? p->nMiss : 0);
  choirRowText(pCur, "cache_get on this connection that found none");
}

static const ChoirFunc aCacheFunc[] = {
    {"cache_get", 1, 2, CHOIR_READ, 0, cacheFind, NULL},
    {"cache_set", 2, 3, CHOIR_WRITE, 0, cacheSet, NULL},
    {"cache_purge", 0, 1, CHOIR_WRITE, 0, cachePurge, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreCacheRegister(ChoirConn *pConn,
                                                      ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aCacheFunc);
}
