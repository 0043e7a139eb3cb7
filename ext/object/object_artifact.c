/* SPDX-License-Identifier: MIT */
/*
** Large artifacts: their content lies in the object store, their row stays.
** artifact_flush, artifact_fetch, artifact_put_file, artifact_sweep.
**
**   users/{user}/artifacts/{id}           the content that was stored first
**   users/{user}/artifacts/{id}-{sha256}  each later one
**
** An object is never replaced: every put is on condition that there is none.
** So whoever holds an older row (another device, a restored version) still
** finds the content of that row, and two devices that change one artifact
** cannot overwrite each other.
**
** Content first goes into a private file, where it is hashed; no transaction
** stays open while it travels. Then the object, then the row, in one UPDATE
** that asks whether the row is still what was read: a crash in between leaves
** an object that nothing refers to. The next flush takes it for its own when
** its bytes are the same, artifact_sweep() finds the others.
**
** Keys are made of the configured user and the id. A row whose s3_key is not
** one of the two is not followed.
*/
#include "object.h"
#include "../store/store.h"

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARTIFACT_LOCAL_MAX ((i64)1 << 20) /* content up to here stays */

/* ------------------------------------------------------------------ place */

typedef struct ArtifactPlace {
  ChoirConn *pConn;
  ChoirObject *pStore;
  char *zFolder; /* users/{user}/artifacts/ */
  char *zBelow;  /* zFolder as far as pStore does not stand in it */
} ArtifactPlace;

/* The root of the store: what is configured, or what the remote begins with
** when it follows the layout. NULL: neither. Caller frees. */
static char *artifactRoot(ChoirConn *pConn, ChoirErr *pErr, const char *zUser) {
  const char *zRoot = choirConfig(pConn, "remote.artifacts");
  const char *zRemote = choirConfig(pConn, "remote");
  char *zPart, *z = NULL;
  const char *zAt;
  if (zRoot && zRoot[0]) {
    return choirMprintf(pErr, "%s%s", zRoot,
                        zRoot[strlen(zRoot) - 1] == '/' ? "" : "/");
  }
  zPart = zUser && zRemote ? choirMprintf(pErr, "/users/%s/", zUser) : NULL;
  zAt = zPart ? strstr(zRemote, zPart) : NULL;
  if (zAt) {
    z = choirMprintf(pErr, "%.*s/", (int)(zAt - zRemote), zRemote);
  }
  sqlite3_free(zPart);
  return z;
}

static void artifactPlaceClose(ArtifactPlace *p) {
  choirObjectClose(p->pStore);
  sqlite3_free(p->zFolder);
  sqlite3_free(p->zBelow);
  p->pStore = NULL;
  p->zFolder = p->zBelow = NULL;
}

/* 1: the store is open. 0: none is configured, an error when bMust. */
static int artifactPlaceOpen(ChoirConn *pConn, ChoirErr *pErr, ArtifactPlace *p,
                             int bMust) {
  const char *zUser = choirConfig(pConn, "user");
  char *zRoot = artifactRoot(pConn, pErr, zUser);
  char *zUrl;
  int bFile;
  memset(p, 0, sizeof(*p));
  p->pConn = pConn;
  if (zRoot == NULL) {
    if (bMust) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "no object store; name one by"
                  " choir_config('remote.artifacts', 's3://bucket/') or"
                  " CHOIR_REMOTE_ARTIFACTS");
    }
    return 0;
  }
  zUser = choirUser(pConn, pErr);
  p->zFolder = choirMprintf(pErr, "users/%s/artifacts/", zUser);
  /* A file:// root must exist, what is below it is made with the key. */
  bFile = sqlite3_strnicmp(zRoot, "file:", 5) == 0;
  p->zBelow = choirMprintf(pErr, "%s", bFile ? p->zFolder : "");
  zUrl = choirMprintf(pErr, "%s%s", zRoot, bFile ? "" : p->zFolder);
  if (pErr->rc == SQLITE_OK) {
    p->pStore = choirObjectOpen(pConn, pErr, zUrl);
  }
  sqlite3_free(zUrl);
  sqlite3_free(zRoot);
  if (pErr->rc != SQLITE_OK) {
    artifactPlaceClose(p);
  }
  return pErr->rc == SQLITE_OK;
}

/* The name of an object below the folder, as a key of the store. */
static char *artifactKey(const ArtifactPlace *p, ChoirErr *pErr,
                         const char *zName) {
  return choirMprintf(pErr, "%s%s", p->zBelow, zName);
}

/* The object's name when s3_key is one that this artifact may have, a pointer
** into zKey; NULL when it is not. */
static const char *artifactName(const ArtifactPlace *p, const char *zId,
                                const char *zKey) {
  size_t nFolder = strlen(p->zFolder), nId = strlen(zId);
  const char *zEnd;
  if (!choirNameFits(zId) || strncmp(zKey, p->zFolder, nFolder) != 0 ||
      strncmp(zKey + nFolder, zId, nId) != 0) {
    return NULL;
  }
  zEnd = zKey + nFolder + nId;
  if (zEnd[0] && (zEnd[0] != '-' || strlen(zEnd) != 65 ||
                  strspn(zEnd + 1, "0123456789abcdef") != 64)) {
    return NULL;
  }
  return zKey + nFolder;
}

/* ------------------------------------------------------------------ spool
** Content on its way: a file without a name, and the hash of what is in it.
*/
typedef struct ArtifactSpool {
  ChoirConn *pConn;
  int fd; /* -1: only hashed */
  i64 n;
  ChoirSha256 sha;
  char zHash[65];
} ArtifactSpool;

static void artifactSpoolInit(ArtifactSpool *p, ChoirConn *pConn,
                              ChoirErr *pErr, int bKeep) {
  memset(p, 0, sizeof(*p));
  p->pConn = pConn;
  p->fd = bKeep && pErr->rc == SQLITE_OK ? choirTempAnonymous(pErr) : -1;
  choirSha256Init(&p->sha);
}

static void artifactSpoolAdd(void *pArg, ChoirErr *pErr, const void *a, u64 n) {
  ArtifactSpool *p = pArg;
  if (p->fd >= 0) {
    choirFdWrite(pErr, p->fd, (u64)p->n, a, n);
  }
  choirSha256Update(&p->sha, a, n);
  p->n += (i64)n;
  if (choirInterrupted(p->pConn)) {
    choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
  }
}

static void artifactSpoolEnd(ArtifactSpool *p) {
  u8 aHash[32];
  choirSha256Final(&p->sha, aHash);
  choirHex(aHash, 32, p->zHash);
}

static void artifactSpoolClose(ArtifactSpool *p) {
  if (p->fd >= 0) {
    close(p->fd);
  }
}

static void artifactSpoolRead(void *pArg, ChoirErr *pErr, u64 iOff, void *a,
                              u64 n) {
  choirFdRead(pErr, ((ArtifactSpool *)pArg)->fd, iOff, a, n);
}

/* Out of a row. */
static void artifactSpoolRow(ArtifactSpool *p, ChoirErr *pErr, i64 iRowid) {
  ChoirStoreContent content;
  i64 i;
  artifactSpoolInit(p, p->pConn, pErr, 1);
  choirStoreContentOpen(p->pConn, pErr, &content, iRowid);
  for (i = 0; i < content.n && pErr->rc == SQLITE_OK; i += CHOIR_STORE_CHUNK) {
    i64 n =
        content.n - i < CHOIR_STORE_CHUNK ? content.n - i : CHOIR_STORE_CHUNK;
    const char *a = choirStoreContentAt(pErr, &content, i, n);
    if (pErr->rc == SQLITE_OK) {
      artifactSpoolAdd(p, pErr, a, (u64)n);
    }
  }
  choirStoreContentClose(&content);
  artifactSpoolEnd(p);
}

/* Out of an open file of n bytes. */
static void artifactSpoolFile(ArtifactSpool *p, ChoirErr *pErr, int fd, i64 n) {
  char *a = choirRealloc(pErr, NULL, (u64)CHOIR_STORE_CHUNK);
  i64 i;
  artifactSpoolInit(p, p->pConn, pErr, 1);
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i += CHOIR_STORE_CHUNK) {
    i64 nNow = n - i < CHOIR_STORE_CHUNK ? n - i : CHOIR_STORE_CHUNK;
    choirFdRead(pErr, fd, (u64)i, a, (u64)nNow);
    if (pErr->rc == SQLITE_OK) {
      artifactSpoolAdd(p, pErr, a, (u64)nNow);
    }
  }
  sqlite3_free(a);
  artifactSpoolEnd(p);
}

/* ----------------------------------------------------------------- upload */

/* Does this object hold these bytes? One left by a crash does. */
static int artifactHolds(const ArtifactPlace *p, ChoirErr *pErr,
                         const char *zKey, const ArtifactSpool *pSpool) {
  ChoirObjectMeta meta;
  ArtifactSpool have;
  int e = choirObjectHead(p->pStore, pErr, zKey, &meta);
  if (e != CHOIR_OBJECT_OK || meta.nByte != (u64)pSpool->n) {
    return 0;
  }
  artifactSpoolInit(&have, p->pConn, pErr, 0);
  e = choirObjectGet(p->pStore, pErr, zKey, 0, -1, &meta, artifactSpoolAdd,
                     &have);
  artifactSpoolEnd(&have);
  return e == CHOIR_OBJECT_OK && have.n == pSpool->n &&
         strcmp(have.zHash, pSpool->zHash) == 0;
}

/* Stores it under this name. 0: other bytes have that name. */
static int artifactPutAs(const ArtifactPlace *p, ChoirErr *pErr,
                         const char *zName, ArtifactSpool *pSpool) {
  ChoirObjectSource source = {(u64)pSpool->n, artifactSpoolRead, pSpool};
  ChoirObjectMeta meta;
  char *zKey = artifactKey(p, pErr, zName);
  int e = choirObjectPut(p->pStore, pErr, zKey, &source, CHOIR_IF_ABSENT, NULL,
                         &meta);
  int bThere = e == CHOIR_OBJECT_OK || (e == CHOIR_OBJECT_CHANGED &&
                                        artifactHolds(p, pErr, zKey, pSpool));
  sqlite3_free(zKey);
  return bThere;
}

/* Stores content of the artifact zId; what its s3_key becomes, caller frees. */
static char *artifactUpload(const ArtifactPlace *p, ChoirErr *pErr,
                            const char *zId, ArtifactSpool *pSpool) {
  char *zName = choirMprintf(pErr, "%s", zId);
  char *zKey = NULL;
  if (pErr->rc == SQLITE_OK && !artifactPutAs(p, pErr, zName, pSpool)) {
    sqlite3_free(zName);
    zName = choirMprintf(pErr, "%s-%s", zId, pSpool->zHash);
    if (pErr->rc == SQLITE_OK && !artifactPutAs(p, pErr, zName, pSpool)) {
      choirErrSet(pErr, SQLITE_CORRUPT,
                  "the object %s%s does not hold what its name says; remove it",
                  p->zFolder, zName);
    }
  }
  zKey = choirMprintf(pErr, "%s%s", p->zFolder, zName);
  sqlite3_free(zName);
  return zKey;
}

/* ------------------------------------------------------------------ flush */

typedef struct ArtifactRow {
  char *zId, *zPath, *zHash; /* zHash NULL: unknown */
  i64 iRowid, iUpdated;
} ArtifactRow;

static void artifactRowFree(ArtifactRow *p) {
  sqlite3_free(p->zId);
  sqlite3_free(p->zPath);
  sqlite3_free(p->zHash);
}

/* The next large one behind zAfter; 0: none. */
static int artifactNext(ChoirConn *pConn, ChoirErr *pErr, const char *zAfter,
                        ArtifactRow *p) {
  sqlite3_stmt *pStmt = choirStmt(
      pConn, pErr,
      "SELECT id, path, hash, rowid, updated_at FROM ~.artifacts"
      " WHERE deleted_at IS NULL AND path > ?1 AND size_bytes > ?2"
      " AND s3_key IS NULL AND content IS NOT NULL ORDER BY path LIMIT 1");
  int bRow;
  choirBindText(pErr, pStmt, 1, zAfter ? zAfter : "", -1);
  choirBindInt(pErr, pStmt, 2, ARTIFACT_LOCAL_MAX);
  bRow = choirStep(pErr, pStmt);
  memset(p, 0, sizeof(*p));
  if (bRow) {
    p->zId = choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 0));
    p->zPath = choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 1));
    if (sqlite3_column_type(pStmt, 2) != SQLITE_NULL) {
      p->zHash = choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 2));
    }
    p->iRowid = sqlite3_column_int64(pStmt, 3);
    p->iUpdated = sqlite3_column_int64(pStmt, 4);
  }
  choirStmtDone(pConn, pStmt);
  return bRow && pErr->rc == SQLITE_OK;
}

/* The content lies there now, unless the row was changed meanwhile: 1 or 0. */
static int artifactMoved(ChoirConn *pConn, ChoirErr *pErr, const ArtifactRow *p,
                         const char *zKey, const ArtifactSpool *pSpool) {
  ChoirTxn txn;
  sqlite3_stmt *pStmt;
  int bMoved;
  choirTxnBegin(&txn, pConn, pErr);
  pStmt =
      choirStmt(pConn, pErr,
                "UPDATE ~.artifacts SET content=NULL, s3_key=?2, hash=?3,"
                " size_bytes=?4 WHERE id=?1 AND updated_at=?5 AND hash IS"
                " ?6 AND s3_key IS NULL AND deleted_at IS NULL RETURNING 1");
  choirBindText(pErr, pStmt, 1, p->zId, -1);
  choirBindText(pErr, pStmt, 2, zKey, -1);
  choirBindText(pErr, pStmt, 3, pSpool->zHash, 64);
  choirBindInt(pErr, pStmt, 4, pSpool->n);
  choirBindInt(pErr, pStmt, 5, p->iUpdated);
  choirBindText(pErr, pStmt, 6, p->zHash, -1);
  bMoved = choirStep(pErr, pStmt);
  choirStep(pErr, bMoved ? pStmt : NULL);
  choirStmtDone(pConn, pStmt);
  choirTxnEnd(&txn, pErr);
  return bMoved && pErr->rc == SQLITE_OK;
}

/* 1: moved. 0: it must stay, or was changed meanwhile. */
static int artifactFlushOne(ArtifactPlace *p, ChoirErr *pErr,
                            const ArtifactRow *pRow, i64 *pnByte) {
  ArtifactSpool spool;
  char *zKey;
  int bMoved = 0;
  if (!choirNameFits(pRow->zId)) {
    return 0;
  }
  spool.pConn = p->pConn;
  artifactSpoolRow(&spool, pErr, pRow->iRowid);
  if (pErr->rc == SQLITE_OK && pRow->zHash &&
      strcmp(pRow->zHash, spool.zHash) != 0) {
    artifactSpoolClose(&spool); /* changed since, or damaged: not for now */
    return 0;
  }
  zKey = artifactUpload(p, pErr, pRow->zId, &spool);
  if (pErr->rc == SQLITE_OK) {
    bMoved = artifactMoved(p->pConn, pErr, pRow, zKey, &spool);
    *pnByte += bMoved ? spool.n : 0;
  }
  sqlite3_free(zKey);
  artifactSpoolClose(&spool);
  return bMoved;
}

CHOIR_PRIVATE void choirArtifactFlush(ChoirConn *pConn, ChoirErr *pErr,
                                      int bMust, ChoirArtifactFlushed *p) {
  ArtifactPlace place;
  ArtifactRow row;
  char *zAfter = NULL;
  memset(p, 0, sizeof(*p));
  if (pErr->rc != SQLITE_OK || !artifactPlaceOpen(pConn, pErr, &place, bMust)) {
    return;
  }
  while (artifactNext(pConn, pErr, zAfter, &row)) {
    int bMoved = artifactFlushOne(&place, pErr, &row, &p->nByte);
    p->nMoved += bMoved;
    p->nLeft += !bMoved;
    sqlite3_free(zAfter);
    zAfter = row.zPath;
    row.zPath = NULL;
    artifactRowFree(&row);
  }
  artifactRowFree(&row);
  sqlite3_free(zAfter);
  artifactPlaceClose(&place);
}

/*
** SQL: artifact_flush() -> TEXT
**
** Moves content over 1 MiB (1,048,576 bytes) to the object store, each artifact
** on its own: first the object users/{user}/artifacts/{id}, then the row, whose
** content becomes NULL and whose s3_key names the object. Everything else of
** the row stays, and its updated_at. sync_push() does the same. An object is
** never replaced: content that comes later gets a name of its own,
** {id}-{sha256}.
**
** Gives a JSON object: moved, bytes, left (large artifacts that stay: changed
** meanwhile, or an id that is not fit to be a key) and ms.
**
** The place is choir_config('remote.artifacts'), by default what stands before
** users/{user}/ in choir_config('remote'); the user is choir_config('user').
**
** Errors: no place or no user is configured; the store refuses. What was moved
** before an error stays moved, the rest stays here.
**
** > SELECT artifact_flush()
** ! artifact_flush: no object store; name one by choir_config('remote.artifacts', 's3://bucket/') or CHOIR_REMOTE_ARTIFACTS
*/
static void artifactFlushFunc(ChoirCall *p) {
  ChoirArtifactFlushed flushed;
  i64 iStart = choirMonotonic();
  ChoirBuf b;
  choirNeedWorkspace(p->pConn, &p->err);
  if (p->err.rc == SQLITE_OK &&
      sqlite3_db_readonly(p->pConn->db, choirSchema(p->pConn)) == 1) {
    choirErrSet(&p->err, SQLITE_READONLY,
                "the database is read-only, and what is moved is noted in it");
  }
  choirArtifactFlush(p->pConn, &p->err, 1, &flushed);
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "{\"moved\":%d,\"bytes\":%lld,\"left\":%d,\"ms\":%lld}",
                 flushed.nMoved, flushed.nByte, flushed.nLeft,
                 choirMonotonic() - iStart);
  if (p->err.rc == SQLITE_OK) {
    choirBufResult(&b, p->pCtx);
  }
  choirBufFree(&b);
}

/* ------------------------------------------------------------------ fetch */

/* The remote content of the row on pFind, checked; NULL on failure. */
static char *artifactRead(ChoirConn *pConn, ChoirErr *pErr, sqlite3_stmt *pFind,
                          i64 *pn) {
  const char *zId = (const char *)sqlite3_column_text(pFind, 0);
  const char *zKey = (const char *)sqlite3_column_text(pFind, 3);
  const char *zHash = (const char *)sqlite3_column_text(pFind, 5);
  const char *zName;
  ArtifactPlace place;
  ChoirObjectMeta meta;
  ChoirBuf b;
  u8 aHash[32];
  char zHex[65], *zStored;
  i64 nRow = sqlite3_column_int64(pFind, 4);
  i64 nMax = sqlite3_limit(pConn->db, SQLITE_LIMIT_LENGTH, -1);
  int e;
  choirBufInit(&b, pErr, (u64)nMax);
  if (!artifactPlaceOpen(pConn, pErr, &place, 1)) {
    return NULL;
  }
  zName = zId && zKey ? artifactName(&place, zId, zKey) : NULL;
  if (zName == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the row says %.200s, which is not below %s or not of this"
                " artifact; it is not followed",
                zKey, place.zFolder);
  } else if (nRow > nMax) {
    choirErrSet(pErr, SQLITE_TOOBIG,
                "%s has %lld bytes, a value holds at most %lld; s3_get_file()"
                " writes it to a file",
                zKey, nRow, nMax);
  }
  zStored = artifactKey(&place, pErr, zName);
  choirBufAppend(&b, "", 0);
  e = choirObjectGet(place.pStore, pErr, zStored, 0, -1, &meta,
                     choirObjectToBuf, &b);
  if (e == CHOIR_OBJECT_ABSENT) {
    choirErrSet(pErr, SQLITE_ERROR, "no object %s: it was removed%s", zKey,
                place.pStore->bHidden
                    ? ", or may not be read: the store says 403 to both"
                    : "");
  } else if (e == CHOIR_OBJECT_OK) {
    choirSha256(b.a ? b.a : "", b.n, aHash);
    choirHex(aHash, 32, zHex);
    if (zHash && strcmp(zHash, zHex) != 0) {
      choirErrSet(pErr, SQLITE_CORRUPT,
                  "the object %s has SHA-256 %.16s… and %llu bytes, its row"
                  " says %.16s… and %lld",
                  zKey, zHex, b.n, zHash, nRow);
    } else if (zHash == NULL && nRow != (i64)b.n) {
      choirErrSet(pErr, SQLITE_CORRUPT,
                  "the object %s has %llu bytes, its row says %lld", zKey, b.n,
                  nRow);
    }
  }
  sqlite3_free(zStored);
  artifactPlaceClose(&place);
  *pn = (i64)b.n;
  return choirBufTake(&b);
}

/*
** SQL: artifact_fetch(path_or_id) -> TEXT or BLOB
**
** The content of an artifact, wherever it lies: from the row, or from the
** object store, checked against the row's SHA-256. Remote content is TEXT when
** the MIME type says text and the bytes are valid UTF-8, else a BLOB. Nothing
** is written here.
**
**   path_or_id  TEXT, as for artifact_get
**
** NULL: gives NULL when there is no such artifact; the argument must be given.
** Errors: no store or user is configured; no such object; content that is not
** what the row says (CORRUPT); an s3_key that is not this artifact's or this
** user's; content larger than SQLite's limit for one value.
**
** > WITH p AS MATERIALIZED (SELECT artifact_put('/a.txt', 'hello') AS id)
** > SELECT artifact_fetch(id), artifact_fetch('/none.txt') FROM p
** = hello|NULL
*/
static void artifactFetch(ChoirCall *p) {
  const char *z = choirArgText(&p->err, p->apArg[0], "path_or_id");
  sqlite3_stmt *pFind;
  i64 n = 0;
  char *a;
  choirNeedWorkspace(p->pConn, &p->err);
  pFind = choirStoreFind(p->pConn, &p->err, z);
  if (pFind && sqlite3_column_type(pFind, 2) == SQLITE_NULL &&
      sqlite3_column_type(pFind, 3) != SQLITE_NULL) {
    const char *zMime = (const char *)sqlite3_column_text(pFind, 7);
    a = artifactRead(p->pConn, &p->err, pFind, &n);
    if (p->err.rc != SQLITE_OK) {
      sqlite3_free(a);
    } else if (choirStoreIsText(zMime, a ? a : "", n)) {
      sqlite3_result_text64(p->pCtx, a ? a : "", (u64)n,
                            a ? sqlite3_free : SQLITE_STATIC, SQLITE_UTF8);
    } else {
      sqlite3_result_blob64(p->pCtx, a ? a : "", (u64)n,
                            a ? sqlite3_free : SQLITE_STATIC);
    }
  } else if (pFind) {
    sqlite3_result_value(p->pCtx, sqlite3_column_value(pFind, 2));
  }
  choirStmtDone(p->pConn, pFind);
}

/* --------------------------------------------------------------- put_file */

/* The live artifact at this path, when there is one: its id, and whether its
** content is in the store under this hash. */
static int artifactThere(ChoirConn *pConn, ChoirErr *pErr,
                         ChoirStorePut *pPut) {
  sqlite3_stmt *pStmt = choirStoreFind(pConn, pErr, pPut->zPath);
  int bSame = 0;
  if (pStmt) {
    const char *zHash = (const char *)sqlite3_column_text(pStmt, 5);
    pPut->zId = choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 0));
    bSame = sqlite3_column_type(pStmt, 3) != SQLITE_NULL && zHash &&
            strcmp(zHash, pPut->zHash) == 0;
  }
  choirStmtDone(pConn, pStmt);
  return bSame;
}

/* A large file: the object, then the row. */
static void artifactPutLarge(ArtifactPlace *p, ChoirErr *pErr,
                             ChoirStorePut *pPut, int fd, i64 n) {
  ArtifactSpool spool;
  ChoirTxn txn;
  char zNew[37], *zId = NULL, *zKey = NULL;
  spool.pConn = p->pConn;
  artifactSpoolFile(&spool, pErr, fd, n);
  memcpy(pPut->zHash, spool.zHash, sizeof(pPut->zHash));
  pPut->n = spool.n;
  if (!artifactThere(p->pConn, pErr, pPut)) {
    choirUuid7(zNew);
    pPut->zId = pPut->zId ? pPut->zId : choirMprintf(pErr, "%s", zNew);
    zKey = artifactUpload(p, pErr, pPut->zId, &spool);
    pPut->zKey = zKey;
  }
  zId = choirMprintf(pErr, "%s", pPut->zId);
  choirTxnBegin(&txn, p->pConn, pErr);
  if (pErr->rc == SQLITE_OK) {
    choirStorePutRow(p->pConn, pErr, pPut);
  }
  if (pErr->rc == SQLITE_OK && strcmp(zId, pPut->zId) != 0) {
    choirErrSet(pErr, SQLITE_BUSY,
                "another connection made %s meanwhile; try again", pPut->zPath);
  }
  choirTxnEnd(&txn, pErr);
  artifactSpoolClose(&spool);
  sqlite3_free(zId);
  sqlite3_free(zKey);
}

/*
** SQL: artifact_put_file(path, file[, mime]) -> TEXT
**
** Puts a file of this machine under a path, as artifact_put would, and returns
** the artifact's id. A file over 1 MiB goes straight to the object store when
** one is configured (see artifact_flush): the object first, then the row. Else
** text is kept as TEXT; anything else, and whatever is larger than 16 MiB, as a
** BLOB that is streamed.
**
**   path  TEXT, as for artifact_put; ending in '/', the file's name is added
**   file  TEXT, absolute or relative to the process; symbolic links are
**         followed
**   mime  TEXT, as for artifact_put
**
** NULL: path and file must be given; a NULL mime means the default.
** Errors: no such file, not a regular file, larger than SQLite's limit for a
** row (1 GB by default) without an object store, changed while it was read; a
** file of a database that is open on this connection (it is not touched); the
** store refuses.
**
** > SELECT artifact_put_file('/a', '/no/such/file')
** ! artifact_put_file: cannot read /no/such/file: No such file or directory
** > SELECT artifact_put_file('/a', '/')
** ! artifact_put_file: / is a directory, not a file
*/
static void artifactPutFile(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  ChoirStorePut put;
  ChoirStoreOwn own;
  ChoirTxn txn;
  ArtifactPlace place;
  struct stat st;
  const char *zFile = choirArgText(pErr, p->apArg[1], "file");
  const char *zArg = choirArgText(pErr, p->apArg[0], "path");
  int bInto = zArg && zArg[0] && zArg[strlen(zArg) - 1] == '/';
  char *z = zFile && bInto
                ? choirMprintf(pErr, "%s%s", zArg, choirStoreName(zFile))
                : NULL;
  char *zPath =
      choirStorePath(pErr, bInto ? z : zArg, "path", CHOIR_STORE_FILE);
  int fd;
  memset(&put, 0, sizeof(put));
  put.zPath = zPath;
  put.zMime = p->nArg > 2 ? choirStoreArgMime(pErr, p->apArg[2]) : NULL;
  choirNeedWorkspace(p->pConn, pErr);
  choirStoreOwnInit(&own, p->pConn, pErr);
  fd = choirStoreOpen(pErr, &own, AT_FDCWD, zFile, 0, zFile, &st);
  if (pErr->rc == SQLITE_OK && st.st_size > ARTIFACT_LOCAL_MAX &&
      artifactPlaceOpen(p->pConn, pErr, &place, 0)) {
    artifactPutLarge(&place, pErr, &put, fd, st.st_size);
    artifactPlaceClose(&place);
  } else if (pErr->rc == SQLITE_OK) {
    choirTxnBegin(&txn, p->pConn, pErr);
    if (pErr->rc == SQLITE_OK) {
      choirStorePutFd(p->pConn, pErr, &put, fd, st.st_size);
    }
    choirTxnEnd(&txn, pErr);
  }
  choirResultText(p, put.zId);
  if (fd >= 0) {
    close(fd);
  }
  choirStoreOwnFree(&own);
  sqlite3_free(put.zId);
  sqlite3_free(zPath);
  sqlite3_free(z);
}

/* ------------------------------------------------------------------ sweep */

typedef struct ArtifactSweep {
  ArtifactPlace place;
  ChoirErr *pErr;
  i64 iBefore; /* what is not younger goes; -1: nothing goes */
  i64 nObject; /* in the folder */
  i64 nOrphan; /* of them, referred to by no live row */
  i64 nByte;   /* of orphans */
  i64 nDeleted;
  i64 nForbidden; /* the store refused to delete */
  i64 nUpload;    /* unfinished uploads that were removed */
  u8 bListed;
  ChoirBuf gone; /* names to delete, each with its NUL */
} ArtifactSweep;

/* Which row refers to this object: 2 a live one, 1 a tombstone, 0 none. */
static int artifactUsed(ArtifactSweep *p, const char *zName) {
  sqlite3_stmt *pStmt =
      choirStmt(p->place.pConn, p->pErr,
                "SELECT 1 + (deleted_at IS NULL) FROM ~.artifacts"
                " WHERE id=?1 AND s3_key=?2");
  char *zKey = choirMprintf(p->pErr, "%s%s", p->place.zFolder, zName);
  size_t n = strlen(zName);
  int eUsed;
  if (n > 65 && zName[n - 65] == '-') { /* {id}-{sha256} */
    n -= 65;
  }
  choirBindText(p->pErr, pStmt, 1, zName, (i64)n);
  choirBindText(p->pErr, pStmt, 2, zKey, -1);
  eUsed = choirStep(p->pErr, pStmt) ? sqlite3_column_int(pStmt, 0) : 0;
  choirStmtDone(p->place.pConn, pStmt);
  sqlite3_free(zKey);
  return eUsed;
}

static void artifactSweepObject(void *pArg, ChoirErr *pErr, const char *zKey,
                                const ChoirObjectMeta *pMeta) {
  ArtifactSweep *p = pArg;
  const char *zName = zKey + strlen(p->place.zBelow);
  int eUsed = artifactUsed(p, zName);
  p->nObject++;
  if (eUsed < 2) {
    p->nOrphan++;
    p->nByte += (i64)pMeta->nByte;
  }
  if (eUsed == 0 && pMeta->iModified <= p->iBefore && pErr->rc == SQLITE_OK) {
    choirBufAppend(&p->gone, zName, strlen(zName) + 1);
  }
}

/* Tombstones know an object of theirs even where nothing may be listed. */
static void artifactSweepTombstones(ArtifactSweep *p) {
  sqlite3_stmt *pStmt = choirStmt(
      p->place.pConn, p->pErr,
      "SELECT id, s3_key, deleted_at <= ?1, coalesce(size_bytes, 0)"
      " FROM ~.artifacts WHERE deleted_at > 0 AND s3_key IS NOT NULL");
  choirBindInt(p->pErr, pStmt, 1, p->iBefore);
  while (choirStep(p->pErr, pStmt)) {
    const char *zId = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zKey = (const char *)sqlite3_column_text(pStmt, 1);
    const char *zName = zId && zKey ? artifactName(&p->place, zId, zKey) : NULL;
    if (zName && !p->bListed) {
      p->nOrphan++;
      p->nByte += sqlite3_column_int64(pStmt, 3);
    }
    if (zName && sqlite3_column_int(pStmt, 2)) {
      choirBufAppend(&p->gone, zName, strlen(zName) + 1);
    }
  }
  choirStmtDone(p->place.pConn, pStmt);
}

/* The object is gone: its tombstone need not remember it. */
static void artifactSweepForget(ArtifactSweep *p, const char *zName) {
  ChoirTxn txn;
  sqlite3_stmt *pStmt;
  char *zKey = choirMprintf(p->pErr, "%s%s", p->place.zFolder, zName);
  choirTxnBegin(&txn, p->place.pConn, p->pErr);
  pStmt = choirStmt(p->place.pConn, p->pErr,
                    "UPDATE ~.artifacts SET s3_key=NULL"
                    " WHERE deleted_at > 0 AND s3_key=?1");
  choirBindText(p->pErr, pStmt, 1, zKey, -1);
  choirStep(p->pErr, pStmt);
  choirStmtDone(p->place.pConn, pStmt);
  choirTxnEnd(&txn, p->pErr);
  sqlite3_free(zKey);
}

static void artifactSweepDelete(ArtifactSweep *p) {
  u64 i = 0;
  while (i < p->gone.n && p->pErr->rc == SQLITE_OK) {
    const char *zName = p->gone.a + i;
    char *zKey = artifactKey(&p->place, p->pErr, zName);
    ChoirErr err = {SQLITE_OK, NULL};
    int e;
    if (zKey == NULL) {
      break;
    }
    e = choirObjectDelete(p->place.pStore, &err, zKey, NULL);
    if (err.rc == SQLITE_AUTH && p->place.pStore->bForbidden) {
      p->nForbidden++;
    } else if (err.rc != SQLITE_OK) {
      choirErrSet(p->pErr, err.rc, "%s", err.zMsg ? err.zMsg : "out of memory");
    } else {
      p->nDeleted += e == CHOIR_OBJECT_OK;
      artifactSweepForget(p, zName);
    }
    choirErrClear(&err);
    sqlite3_free(zKey);
    i += strlen(zName) + 1;
  }
}

/*
** SQL: artifact_sweep([older_ms]) -> TEXT
**
** Finds objects of this user's artifacts that no live artifact refers to: left
** by a crash, by content that was replaced, by artifacts that were deleted.
** With older_ms it deletes those that are at least that old, and lets their
** tombstones go (see artifact_purge). An object that another device has stored
** and not pushed yet looks the same, and so does content that only an older
** version of the workspace refers to: take an age that is longer than any
** device stays away, for example 30 days.
**
**   older_ms  INTEGER, milliseconds, 0 or more; default: delete nothing
**
** Gives a JSON object: objects, orphans, bytes (of orphans), deleted, forbidden
** (the store allows no deletion; their tombstones stay), uploads (that broke off
** and were removed), listed (0: the store allows no listing; then only
** tombstones were looked at).
**
** NULL: means the default.
** Errors: no place or no user is configured; the store cannot be reached.
**
** > SELECT artifact_sweep()
** ! artifact_sweep: no object store; name one by choir_config('remote.artifacts', 's3://bucket/') or CHOIR_REMOTE_ARTIFACTS
*/
static void artifactSweep(ChoirCall *p) {
  ArtifactSweep run;
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirBuf b;
  memset(&run, 0, sizeof(run));
  run.pErr = &p->err;
  run.iBefore = -1;
  if (p->nArg > 0 && sqlite3_value_type(p->apArg[0]) != SQLITE_NULL) {
    run.iBefore = choirNow() - choirArgInt(&p->err, p->apArg[0], "older_ms", 0,
                                           (i64)1 << 50);
  }
  choirNeedWorkspace(p->pConn, &p->err);
  choirBufInit(&run.gone, &p->err, CHOIR_BUF_JSON);
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  if (p->err.rc == SQLITE_OK &&
      artifactPlaceOpen(p->pConn, &p->err, &run.place, 1)) {
    choirObjectList(run.place.pStore, &err, run.place.zBelow,
                    artifactSweepObject, &run);
    run.bListed = err.rc == SQLITE_OK;
    if (err.rc != SQLITE_OK &&
        !(err.rc == SQLITE_AUTH && run.place.pStore->bForbidden)) {
      choirErrSet(&p->err, err.rc, "%s", err.zMsg ? err.zMsg : "out of memory");
    }
    choirErrClear(&err);
    artifactSweepTombstones(&run);
    artifactSweepDelete(&run);
    if (run.iBefore >= 0) { /* where that is not allowed, it is left */
      run.nUpload = choirObjectSweepUploads(run.place.pStore, &err,
                                            run.place.zBelow, run.iBefore);
      choirErrClear(&err);
    }
    choirBufPrintf(&b,
                   "{\"objects\":%lld,\"orphans\":%lld,\"bytes\":%lld,"
                   "\"deleted\":%lld,\"forbidden\":%lld,\"uploads\":%lld,"
                   "\"listed\":%d}",
                   run.nObject, run.nOrphan, run.nByte, run.nDeleted,
                   run.nForbidden, run.nUpload, run.bListed);
    if (p->err.rc == SQLITE_OK) {
      choirBufResult(&b, p->pCtx);
    }
    artifactPlaceClose(&run.place);
  }
  choirBufFree(&run.gone);
  choirBufFree(&b);
}

static const ChoirFunc aObjectArtifactFunc[] = {
    {"artifact_put_file", 2, 3, CHOIR_EFFECT, 0, artifactPutFile, NULL},
    {"artifact_flush", 0, 0, CHOIR_EFFECT, 0, artifactFlushFunc, NULL},
    {"artifact_fetch", 1, 1, CHOIR_EFFECT, 0, artifactFetch, NULL},
    {"artifact_sweep", 0, 1, CHOIR_EFFECT, 0, artifactSweep, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirObjectArtifactRegister(ChoirConn *pConn,
                                                          ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aObjectArtifactFunc);
}

#else
CHOIR_PRIVATE void choirArtifactFlush(ChoirConn *pConn, ChoirErr *pErr,
                                      int bMust, ChoirArtifactFlushed *p) {
  (void)pConn, (void)pErr, (void)bMust;
  memset(p, 0, sizeof(*p));
}
CHOIR_PRIVATE CHOIR_COLD void choirObjectArtifactRegister(ChoirConn *pConn,
                                                          ChoirErr *pErr) {
  (void)pConn, (void)pErr;
}
#endif
