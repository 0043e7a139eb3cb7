/* SPDX-License-Identifier: MIT */
/*
** Artifacts: artifact_put, artifact_get, artifact_delete, artifact_move,
** artifact_purge, artifact_ls.
**
** Owns rows of `artifacts`. A path is unique among live rows; a deleted row
** stays as a tombstone and frees its path. Directories are implied by paths:
** '/a/b.txt' makes '/a/' exist. Nothing here touches the network: content that
** lives in the object store (content NULL, s3_key set) is reported, not read.
*/
#include "store.h"

/* ------------------------------------------------------------------- put */

/* Text, a blob, room for a blob that is written later, or NULL for content that
** lies elsewhere. */
static void artifactBindContent(ChoirErr *pErr, sqlite3_stmt *pStmt, int i,
                                const ChoirStorePut *p) {
  if (p->zKey) {
    choirBindText(pErr, pStmt, i, NULL, 0);
  } else if (p->bText) {
    choirBindText(pErr, pStmt, i, p->n ? p->a : "", p->n);
  } else if (p->a) {
    choirBindBlob(pErr, pStmt, i, p->a, p->n);
  } else if (pErr->rc == SQLITE_OK) {
    choirErrDb(pErr, sqlite3_db_handle(pStmt),
               sqlite3_bind_zeroblob64(pStmt, i, (u64)p->n));
  }
}

static void artifactInsert(ChoirConn *pConn, ChoirErr *pErr, ChoirStorePut *p) {
  char zId[37];
  i64 iNow = choirNow();
  sqlite3_stmt *pStmt = choirStmt(
      pConn, pErr,
      "INSERT INTO ~.artifacts(id, path, name, mime_type, content, size_bytes,"
      " hash, created_at, updated_at, metadata, s3_key)"
      " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, coalesce(?9, '{}'), ?10)");
  if (p->zId == NULL) {
    choirUuid7(zId);
    p->zId = choirMprintf(pErr, "%s", zId);
  }
  choirBindText(pErr, pStmt, 1, p->zId, -1);
  choirBindText(pErr, pStmt, 2, p->zPath, -1);
  choirBindText(pErr, pStmt, 3, choirStoreName(p->zPath), -1);
  choirBindText(pErr, pStmt, 4,
                p->zMime ? p->zMime : choirStoreMime(p->zPath, p->a, p->n), -1);
  artifactBindContent(pErr, pStmt, 5, p);
  choirBindInt(pErr, pStmt, 6, p->n);
  choirBindText(pErr, pStmt, 7, p->zHash, 64);
  choirBindInt(pErr, pStmt, 8, iNow);
  choirBindText(pErr, pStmt, 9, p->zMeta, -1);
  choirBindText(pErr, pStmt, 10, p->zKey, -1);
  choirStep(pErr, pStmt);
  choirStmtDone(pConn, pStmt);
  p->eChange = CHOIR_STORE_NEW;
  p->bStored = 1;
}

/* Content, and what is given of MIME type and metadata. */
static void artifactUpdate(ChoirConn *pConn, ChoirErr *pErr, ChoirStorePut *p,
                           i64 iUpdated) {
  sqlite3_stmt *pStmt = choirStmt(
      pConn, pErr,
      "UPDATE ~.artifacts SET content=?2, s3_key=?8, size_bytes=?3, hash=?4,"
      " mime_type=coalesce(?5, mime_type), metadata=coalesce(?6, metadata),"
      " updated_at=?7 WHERE id=?1");
  choirBindText(pErr, pStmt, 1, p->zId, -1);
  artifactBindContent(pErr, pStmt, 2, p);
  choirBindInt(pErr, pStmt, 3, p->n);
  choirBindText(pErr, pStmt, 4, p->zHash, 64);
  choirBindText(pErr, pStmt, 5, p->zMime, -1);
  choirBindText(pErr, pStmt, 6, p->zMeta, -1);
  choirBindInt(pErr, pStmt, 7, iUpdated);
  choirBindText(pErr, pStmt, 8, p->zKey, -1);
  choirStep(pErr, pStmt);
  choirStmtDone(pConn, pStmt);
  p->eChange = CHOIR_STORE_CHANGED;
  p->bStored = 1;
}

/* MIME type and metadata only: the content stays where it is. */
static void artifactDescribe(ChoirConn *pConn, ChoirErr *pErr, ChoirStorePut *p,
                             i64 iUpdated) {
  sqlite3_stmt *pStmt =
      choirStmt(pConn, pErr,
                "UPDATE ~.artifacts SET mime_type=coalesce(?2, mime_type),"
                " metadata=coalesce(?3, metadata), updated_at=?4 WHERE id=?1");
  choirBindText(pErr, pStmt, 1, p->zId, -1);
  choirBindText(pErr, pStmt, 2, p->zMime, -1);
  choirBindText(pErr, pStmt, 3, p->zMeta, -1);
  choirBindInt(pErr, pStmt, 4, iUpdated);
  choirStep(pErr, pStmt);
  choirStmtDone(pConn, pStmt);
  p->eChange = CHOIR_STORE_CHANGED;
}

/* Is column i the text z, or z not given? */
static int artifactSame(sqlite3_stmt *pStmt, int i, const char *z) {
  const char *zHave = (const char *)sqlite3_column_text(pStmt, i);
  return z == NULL || (zHave && strcmp(z, zHave) == 0);
}

CHOIR_PRIVATE void choirStorePutRow(ChoirConn *pConn, ChoirErr *pErr,
                                    ChoirStorePut *p) {
  sqlite3_stmt *pStmt =
      choirStmt(pConn, pErr,
                "SELECT id, hash, typeof(content), s3_key IS NOT NULL,"
                " mime_type, metadata, updated_at"
                " FROM ~.artifacts WHERE path=?1 AND deleted_at IS NULL");
  int bFound, bContent = 0, bDescribed = 0;
  i64 iUpdated = choirNow();
  choirBindText(pErr, pStmt, 1, p->zPath, -1);
  bFound = choirStep(pErr, pStmt);
  if (bFound) {
    i64 iOld = sqlite3_column_int64(pStmt, 6);
    const char *zType = (const char *)sqlite3_column_text(pStmt, 2);
    int bRemote = sqlite3_column_int(pStmt, 3);
    sqlite3_free(p->zId);
    p->zId = choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 0));
    bContent = artifactSame(pStmt, 1, p->zHash) && zType && !p->zKey &&
               (strcmp(zType, p->bText ? "text" : "blob") == 0 ||
                (bRemote && strcmp(zType, "null") == 0));
    bDescribed =
        artifactSame(pStmt, 4, p->zMime) && artifactSame(pStmt, 5, p->zMeta);
    iUpdated = iUpdated > iOld ? iUpdated : iOld + 1;
  }
  choirStmtDone(pConn, pStmt);
  p->eChange = CHOIR_STORE_SAME;
  p->bStored = 0;
  if (!bFound) {
    artifactInsert(pConn, pErr, p);
  } else if (!bContent) {
    artifactUpdate(pConn, pErr, p, iUpdated);
  } else if (!bDescribed) {
    artifactDescribe(pConn, pErr, p, iUpdated);
  }
}

CHOIR_PRIVATE const char *choirStoreArgMime(ChoirErr *pErr, sqlite3_value *v) {
  const char *z = choirArgTextOrNull(pErr, v, "mime");
  const char *zSlash = z ? strchr(z, '/') : NULL;
  size_t n = z ? strlen(z) : 0, i;
  int bBad = z && (n > 255 || zSlash == NULL || zSlash == z || !zSlash[1]);
  for (i = 0; i < n && !bBad; i++) {
    bBad = (u8)z[i] < 0x20 || z[i] == 0x7f;
  }
  if (bBad) {
    choirErrSet(pErr, SQLITE_ERROR,
                "mime must look like text/plain, got '%.60s'", z);
  }
  return z;
}

static const char *artifactArgMeta(ChoirCall *p, sqlite3_value *v) {
  const char *z = NULL;
  if (sqlite3_value_type(v) != SQLITE_NULL) {
    z = choirArgJson(p->pConn, &p->err, v, "metadata");
  }
  if (z && z[strspn(z, " \t\r\n")] != '{') {
    choirErrSet(&p->err, SQLITE_ERROR,
                "metadata must be a JSON object, got %.60s", z);
  }
  return z;
}

/*
** SQL: artifact_put(path, content[, mime[, metadata]]) -> TEXT
**
** Keeps content under a path and returns the artifact's id. A path that exists
** is updated and keeps its id; content, mime and metadata as they were write
** nothing. Size and SHA-256 are kept with it. A path that was deleted becomes
** a new artifact. The network is never used.
**
**   path      TEXT, '/docs/notes.md'; a missing first '/' is added, '//'
**             becomes '/'; at most 4,096 bytes; directories need no making
**   content   TEXT or BLOB, kept with its type
**   mime      TEXT such as text/plain; default: what is there, or guessed from
**             the name's ending, or else from the content
**   metadata  TEXT, a JSON object; default: what is there, or {}
**
** NULL: path and content must be given; a NULL mime or metadata means the
** default.
** Errors: a path that is empty, has a part '.' or '..' or a control character,
** or ends in '/'; content that is a number; mime without '/'; metadata that is
** no JSON object.
**
** > SELECT length(artifact_put('/docs/notes.md', '# Notes'))
** = 36
** > SELECT artifact_put('a.txt', 'x') = artifact_put('/a.txt', 'y')
** = 1
** > SELECT artifact_put('/docs/../etc', 'x')
** ! artifact_put: path has a part '..': /docs/../etc
*/
static void artifactPut(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  ChoirStorePut put;
  sqlite3_value *v = p->apArg[1];
  int eType = sqlite3_value_type(v);
  char *zPath;
  u8 aHash[32];
  memset(&put, 0, sizeof(put));
  choirNeedWorkspace(p->pConn, pErr);
  zPath = choirStorePath(pErr, choirArgText(pErr, p->apArg[0], "path"), "path",
                         CHOIR_STORE_FILE);
  if (eType != SQLITE_TEXT && eType != SQLITE_BLOB) {
    choirErrSet(pErr, SQLITE_ERROR, "content must be text or a blob, got %s",
                choirTypeName(v));
  }
  put.zMime = p->nArg > 2 ? choirStoreArgMime(pErr, p->apArg[2]) : NULL;
  put.zMeta = p->nArg > 3 ? artifactArgMeta(p, p->apArg[3]) : NULL;
  put.zPath = zPath;
  put.bText = eType == SQLITE_TEXT;
  if (pErr->rc == SQLITE_OK) {
    put.a =
        put.bText ? (const void *)sqlite3_value_text(v) : sqlite3_value_blob(v);
    put.n = sqlite3_value_bytes(v);
    if (put.a == NULL && put.n > 0) {
      choirErrNomem(pErr);
    } else {
      choirSha256(put.a ? put.a : "", (u64)put.n, aHash);
      choirHex(aHash, 32, put.zHash);
      choirStorePutRow(p->pConn, pErr, &put);
      choirResultText(p, put.zId);
    }
  }
  sqlite3_free(put.zId);
  sqlite3_free(zPath);
}

/* ------------------------------------------------------------ get, delete */

CHOIR_PRIVATE sqlite3_stmt *choirStoreFind(ChoirConn *pConn, ChoirErr *pErr,
                                           const char *z) {
  sqlite3_stmt *pStmt = NULL;
  char *zPath = NULL;
  int bRow = 0;
  if (z && z[0] && z[0] != '/') {
    pStmt = choirStmt(pConn, pErr,
                      "SELECT id, path, content, s3_key, size_bytes, hash,"
                      " rowid, mime_type FROM ~.artifacts WHERE id=?1"
                      " AND deleted_at IS NULL");
    choirBindText(pErr, pStmt, 1, z, -1);
    bRow = choirStep(pErr, pStmt);
  }
  if (!bRow) {
    choirStmtDone(pConn, pStmt);
    pStmt = NULL;
    zPath = choirStorePath(pErr, z, "path", CHOIR_STORE_FILE);
    pStmt = choirStmt(pConn, pErr,
                      "SELECT id, path, content, s3_key, size_bytes, hash,"
                      " rowid, mime_type FROM ~.artifacts WHERE path=?1"
                      " AND deleted_at IS NULL");
    if (pStmt && zPath &&
        sqlite3_bind_text(pStmt, 1, zPath, -1, SQLITE_TRANSIENT) != SQLITE_OK) {
      choirErrNomem(pErr);
    }
    bRow = choirStep(pErr, pStmt);
  }
  sqlite3_free(zPath);
  if (!bRow) {
    choirStmtDone(pConn, pStmt);
    pStmt = NULL;
  }
  return pStmt;
}

/*
** SQL: artifact_get(path_or_id) -> TEXT or BLOB
**
** The content of an artifact, with the type it was put with.
**
**   path_or_id  TEXT; what begins with '/' is a path, anything else an id, or
**               a path where no artifact has that id
**
** NULL: gives NULL when there is no such artifact; the argument must be given.
** Errors: the content lies in the object store (the message says how to fetch
** it); a path that artifact_put would refuse.
**
** > SELECT artifact_get('/none.txt') IS NULL
** = 1
** > WITH p AS MATERIALIZED (SELECT artifact_put('/a.txt', 'hello') AS id)
** > SELECT artifact_get(id), artifact_get('/a.txt') FROM p
** = hello|hello
*/
static void artifactGet(ChoirCall *p) {
  sqlite3_stmt *pStmt;
  const char *z = choirArgText(&p->err, p->apArg[0], "path_or_id");
  choirNeedWorkspace(p->pConn, &p->err);
  pStmt = choirStoreFind(p->pConn, &p->err, z);
  if (pStmt && sqlite3_column_type(pStmt, 2) == SQLITE_NULL &&
      sqlite3_column_type(pStmt, 3) != SQLITE_NULL) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "the content of %s is remote (%s); run select"
                " artifact_fetch(%Q)",
                sqlite3_column_text(pStmt, 1), sqlite3_column_text(pStmt, 3),
                sqlite3_column_text(pStmt, 1));
  } else if (pStmt) {
    sqlite3_result_value(p->pCtx, sqlite3_column_value(pStmt, 2));
  }
  choirStmtDone(p->pConn, pStmt);
}

/* Is there anything live below the directory zPath/ ? */
static int artifactIsDir(ChoirConn *pConn, ChoirErr *pErr, const char *zPath) {
  char *zDir = choirMprintf(pErr, "%s/", zPath);
  char *zEnd = zDir ? choirStoreEnd(pErr, zDir) : NULL;
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT 1 FROM ~.artifacts WHERE " CHOIR_STORE_BELOW(
                    "path") " AND deleted_at IS NULL LIMIT 1");
  int bRow;
  choirBindText(pErr, p, 1, zDir, -1);
  choirBindText(pErr, p, 2, zEnd, -1);
  bRow = choirStep(pErr, p);
  choirStmtDone(pConn, p);
  sqlite3_free(zEnd);
  sqlite3_free(zDir);
  return bRow;
}

static void artifactRefuseDir(ChoirConn *pConn, ChoirErr *pErr, const char *z) {
  char *zPath = choirStorePath(pErr, z, "path_or_id", CHOIR_STORE_FILE);
  if (zPath && artifactIsDir(pConn, pErr, zPath)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s is a directory; run select artifact_delete(path) from"
                " artifact_ls('%s', 1)",
                zPath, zPath);
  }
  sqlite3_free(zPath);
}

/*
** SQL: artifact_delete(path_or_id) -> INTEGER
**
** Deletes an artifact and returns 1, or 0 when there is none. A tombstone
** without content stays, so that citations keep what they point at and the
** object store can follow; the path is free at once. artifact_purge() removes
** tombstones.
**
**   path_or_id  TEXT, as for artifact_get
**
** NULL: the argument must be given.
** Errors: a directory (the message says how to delete what is in it); a path
** that artifact_put would refuse.
**
** > SELECT artifact_delete('/none.txt')
** = 0
** > WITH p AS MATERIALIZED (SELECT artifact_put('/a.txt', 'hello') AS id),
** >   d AS MATERIALIZED (SELECT artifact_delete(id) AS n FROM p)
** > SELECT n, artifact_get('/a.txt') IS NULL FROM d
** = 1|1
*/
static void artifactDelete(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  sqlite3_stmt *pFind, *pStmt = NULL;
  const char *z = choirArgText(&p->err, p->apArg[0], "path_or_id");
  choirNeedWorkspace(pConn, &p->err);
  pFind = choirStoreFind(pConn, &p->err, z);
  if (pFind == NULL) {
    artifactRefuseDir(pConn, &p->err, z);
  } else {
    pStmt = choirStmt(pConn, &p->err,
                      "UPDATE ~.artifacts SET content=NULL, deleted_at=?2,"
                      " updated_at=max(?2, updated_at + 1) WHERE id=?1");
    choirBindValue(&p->err, pStmt, 1, sqlite3_column_value(pFind, 0));
    choirBindInt(&p->err, pStmt, 2, choirNow());
  }
  sqlite3_result_int(p->pCtx, pFind != NULL);
  choirStmtDone(pConn, pFind);
  choirStep(&p->err, pStmt);
  choirStmtDone(pConn, pStmt);
}

/*
** SQL: artifact_purge() -> INTEGER
**
** Removes the tombstones of deleted artifacts that no citation points at, and
** returns how many. One whose content still lies in the object store stays
** until artifact_sweep() has removed that.
**
** Errors: no workspace in the schema.
**
** > WITH p AS MATERIALIZED (SELECT artifact_put('/a.txt', 'hello') AS id),
** >   d AS MATERIALIZED (SELECT artifact_delete(id) AS n FROM p)
** > SELECT artifact_purge() FROM d
** = 1
*/
static void artifactPurge(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(pConn, &p->err);
  pStmt =
      choirStmt(pConn, &p->err,
                "DELETE FROM ~.artifacts WHERE deleted_at IS NOT NULL"
                " AND s3_key IS NULL AND NOT EXISTS(SELECT 1 FROM ~.citations"
                " WHERE source_artifact_id=artifacts.id)");
  choirStep(&p->err, pStmt);
  choirStmtDone(pConn, pStmt);
  sqlite3_result_int64(p->pCtx, sqlite3_changes64(pConn->db));
}

/* ------------------------------------------------------------------ move */

/* The first live path below zTo where something from below zFrom would go. */
static void artifactMoveConflict(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zFrom, const char *zEnd,
                                 const char *zTo) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr,
      "SELECT t.path FROM ~.artifacts AS s JOIN ~.artifacts AS t"
      " ON t.path = ?3 || substr(s.path, length(?1) + 1)"
      " AND t.deleted_at IS NULL"
      " WHERE " CHOIR_STORE_BELOW("s.path") " AND s.deleted_at IS NULL"
                                            " LIMIT 1");
  choirBindText(pErr, p, 1, zFrom, -1);
  choirBindText(pErr, p, 2, zEnd, -1);
  choirBindText(pErr, p, 3, zTo, -1);
  if (choirStep(pErr, p)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s exists already; delete or move it first",
                sqlite3_column_text(p, 0));
  }
  choirStmtDone(pConn, p);
  p = choirStmt(
      pConn, pErr,
      "SELECT path FROM ~.artifacts WHERE " CHOIR_STORE_BELOW(
          "path") " AND deleted_at IS NULL AND length(CAST(?3 ||"
                  " substr(path, length(?1) + 1) AS BLOB)) > ?4 LIMIT 1");
  choirBindText(pErr, p, 1, zFrom, -1);
  choirBindText(pErr, p, 2, zEnd, -1);
  choirBindText(pErr, p, 3, zTo, -1);
  choirBindInt(pErr, p, 4, CHOIR_STORE_PATH_MAX);
  if (choirStep(pErr, p)) {
    choirErrSet(pErr, SQLITE_TOOBIG,
                "the new path of %.200s would be longer than %d bytes",
                sqlite3_column_text(p, 0), CHOIR_STORE_PATH_MAX);
  }
  choirStmtDone(pConn, p);
}

static void artifactMoveDir(ChoirCall *p, const char *zFrom, const char *zTo) {
  ChoirErr *pErr = &p->err;
  ChoirConn *pConn = p->pConn;
  char *zEnd;
  sqlite3_stmt *pStmt;
  if (zTo[strlen(zTo) - 1] != '/') {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s is a directory and %s is not; end both with '/'", zFrom,
                zTo);
  } else if (strncmp(zTo, zFrom, strlen(zFrom)) == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "cannot move %s into itself (%s)", zFrom,
                zTo);
  }
  zEnd = choirStoreEnd(pErr, zFrom);
  artifactMoveConflict(pConn, pErr, zFrom, zEnd, zTo);
  pStmt = choirStmt(
      pConn, pErr,
      "UPDATE ~.artifacts SET path=?3 || substr(path, length(?1) + 1),"
      " updated_at=max(?4, updated_at + 1)"
      " WHERE " CHOIR_STORE_BELOW("path") " AND deleted_at IS NULL");
  choirBindText(pErr, pStmt, 1, zFrom, -1);
  choirBindText(pErr, pStmt, 2, zEnd, -1);
  choirBindText(pErr, pStmt, 3, zTo, -1);
  choirBindInt(pErr, pStmt, 4, choirNow());
  choirStep(pErr, pStmt);
  choirStmtDone(pConn, pStmt);
  if (pErr->rc == SQLITE_OK) {
    sqlite3_result_int64(p->pCtx, sqlite3_changes64(pConn->db));
  }
  sqlite3_free(zEnd);
}

static void artifactMoveFile(ChoirCall *p, const char *zFrom, const char *zTo) {
  ChoirErr *pErr = &p->err;
  ChoirConn *pConn = p->pConn;
  sqlite3_stmt *pFind = choirStoreFind(pConn, pErr, zFrom);
  int bInto = zTo[strlen(zTo) - 1] == '/'; /* keep the name, as mv does */
  char *z = choirMprintf(pErr, "%s%s", zTo, bInto ? choirStoreName(zFrom) : "");
  char *zNew = choirStorePath(pErr, z, "to", CHOIR_STORE_FILE);
  sqlite3_stmt *pThere = NULL, *pStmt = NULL;
  if (pFind == NULL && artifactIsDir(pConn, pErr, zFrom)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s is a directory; end both paths with '/'", zFrom);
  }
  if (pFind && zNew && strcmp(zFrom, zNew) != 0) {
    pThere = choirStoreFind(pConn, pErr, zNew);
    if (pThere) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s exists already; delete or move it first", zNew);
    }
    choirStmtDone(pConn, pThere);
    pStmt = choirStmt(pConn, pErr,
                      "UPDATE ~.artifacts SET path=?2, name=?3,"
                      " updated_at=max(?4, updated_at + 1) WHERE id=?1");
    choirBindValue(pErr, pStmt, 1, sqlite3_column_value(pFind, 0));
    choirBindText(pErr, pStmt, 2, zNew, -1);
    choirBindText(pErr, pStmt, 3, choirStoreName(zNew), -1);
    choirBindInt(pErr, pStmt, 4, choirNow());
  }
  choirStmtDone(pConn, pFind);
  choirStep(pErr, pStmt);
  sqlite3_result_int(p->pCtx, pStmt != NULL);
  choirStmtDone(pConn, pStmt);
  sqlite3_free(zNew);
  sqlite3_free(z);
}

/*
** SQL: artifact_move(from, to) -> INTEGER
**
** Moves or renames an artifact, or a whole directory when both end in '/', and
** returns how many artifacts moved. Ids, content and citations stay. Nothing
** is ever overwritten.
**
**   from  TEXT, a path, or a directory ending in '/'
**   to    TEXT, the new path; for a file a directory ending in '/' keeps the
**         file's name
**
** NULL: both must be given.
** Errors: something is there already (the path is named, nothing moves); a
** directory into itself; a path that artifact_put would refuse.
**
** > WITH p AS MATERIALIZED (SELECT artifact_put('/a/x.txt', 'hello') AS id),
** >   m AS MATERIALIZED (SELECT artifact_move('/a/', '/b/') AS n FROM p)
** > SELECT n, artifact_get('/b/x.txt') FROM m
** = 1|hello
** > SELECT artifact_move('/none.txt', '/b.txt')
** = 0
*/
static void artifactMove(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  char *zFrom = choirStorePath(pErr, choirArgText(pErr, p->apArg[0], "from"),
                               "from", CHOIR_STORE_EITHER);
  char *zTo = choirStorePath(pErr, choirArgText(pErr, p->apArg[1], "to"), "to",
                             CHOIR_STORE_EITHER);
  choirNeedWorkspace(p->pConn, pErr);
  if (pErr->rc == SQLITE_OK) {
    if (strcmp(zFrom, zTo) == 0) {
      sqlite3_result_int(p->pCtx, 0);
    } else if (zFrom[strlen(zFrom) - 1] == '/') {
      artifactMoveDir(p, zFrom, zTo);
    } else {
      artifactMoveFile(p, zFrom, zTo);
    }
  }
  sqlite3_free(zTo);
  sqlite3_free(zFrom);
}

/* -------------------------------------------------------------------- ls */

typedef struct ArtifactLs {
  ChoirCursor base;
  char *zDir; /* what is listed, ends in '/' */
  char *zEnd; /* where its range ends */
  char *zSub; /* the sub-directory that is the current row, or NULL */
  int bDeep;  /* recursive: files only, all of them */
} ArtifactLs;

static void artifactLsReset(ChoirCursor *pCur) {
  ArtifactLs *p = (ArtifactLs *)pCur;
  sqlite3_free(p->zDir);
  sqlite3_free(p->zEnd);
  sqlite3_free(p->zSub);
  p->zDir = p->zEnd = p->zSub = NULL;
}

/* The next step is to the first row at or after zFrom. */
static void artifactLsSeek(ArtifactLs *p, const char *zFrom) {
  sqlite3_stmt *pStmt = p->base.pStmt;
  if (p->base.err.rc == SQLITE_OK) {
    sqlite3_reset(pStmt);
    choirErrDb(&p->base.err, p->base.pConn->db,
               sqlite3_bind_text(pStmt, 3, zFrom, -1, SQLITE_TRANSIENT));
  }
}

/* Steps to the next row that is not below zPast (NULL: to the next) and tells a
** file from the first of a sub-directory. */
static void artifactLsStep(ArtifactLs *p, const char *zPast) {
  ChoirErr *pErr = &p->base.err;
  const char *z = NULL, *zSlash;
  do {
    p->base.bEof = (u8)!choirStep(pErr, p->base.pStmt);
    if (!p->base.bEof) {
      z = (const char *)sqlite3_column_text(p->base.pStmt, 0);
    }
  } while (!p->base.bEof && z && zPast &&
           strncmp(z, zPast, strlen(zPast)) == 0);
  if (p->base.bEof || p->bDeep) {
    return;
  }
  zSlash = z && strlen(z) > strlen(p->zDir) ? strchr(z + strlen(p->zDir), '/')
                                            : NULL;
  if (z == NULL) {
    choirErrNomem(pErr);
  } else if (zSlash) {
    p->zSub = choirMprintf(pErr, "%.*s", (int)(zSlash + 1 - z), z);
  }
}

/* Behind a sub-directory: from U+FFFF in it on, which in every encoding is before
** all that is not below it, and behind most that is. */
static void artifactLsNext(ChoirCursor *pCur) {
  ArtifactLs *p = (ArtifactLs *)pCur;
  char *zPast = p->zSub;
  p->zSub = NULL;
  if (zPast) {
    char *zFrom = choirMprintf(&pCur->err, "%s\xef\xbf\xbf", zPast);
    artifactLsSeek(p, zFrom);
    sqlite3_free(zFrom);
  }
  artifactLsStep(p, zPast);
  sqlite3_free(zPast);
}

static void artifactLsColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int i) {
  ArtifactLs *p = (ArtifactLs *)pCur;
  if (i == 2) {
    sqlite3_result_text(pCtx, p->zSub ? "dir" : "file", -1, SQLITE_STATIC);
  } else if (p->zSub && i == 0) {
    sqlite3_result_text(pCtx, p->zSub, -1, SQLITE_TRANSIENT);
  } else if (p->zSub && i == 1) {
    const char *z = p->zSub + strlen(p->zDir);
    sqlite3_result_text(pCtx, z, (int)strlen(z) - 1, SQLITE_TRANSIENT);
  } else if (i == 1) {
    const char *z = (const char *)sqlite3_column_text(pCur->pStmt, 0);
    sqlite3_result_text(pCtx, z ? choirStoreName(z) : "", -1, SQLITE_TRANSIENT);
  } else if (!p->zSub) {
    sqlite3_result_value(pCtx,
                         sqlite3_column_value(pCur->pStmt, i ? i - 2 : 0));
  }
}

/*
** SQL: artifact_ls([dir[, recursive]]) -> TABLE(path, name, kind, size_bytes,
**   mime_type, updated_at, id)
**
** What lies in a directory, in byte order of the path: kind is file or dir; a
** dir's path ends in '/' and its other columns are NULL. Upper and lower case
** differ, '%' and '_' are ordinary characters. Listing a directory costs one
** index seek per sub-directory, however much is below it.
**
**   dir        TEXT, default '/'; a missing '/' at either end is added
**   recursive  INTEGER, 1 lists every file below dir and no directories
**
** NULL: means the default.
** Errors: a path that artifact_put would refuse.
**
** > WITH p AS MATERIALIZED (SELECT artifact_put('/a.md', 'x'),
** >   artifact_put('/docs/b.md', 'yy'))
** > SELECT l.path, name, kind, size_bytes FROM p, artifact_ls('/') AS l
** = /a.md|a.md|file|1
** = /docs/|docs|dir|NULL
*/
static void artifactLs(ChoirCursor *pCur) {
  ArtifactLs *p = (ArtifactLs *)pCur;
  ChoirErr *pErr = &pCur->err;
  const char *z = choirArgTextOrNull(pErr, pCur->apArg[0], "dir");
  if (pCur->apArg[1] && sqlite3_value_type(pCur->apArg[1]) != SQLITE_NULL) {
    p->bDeep = (int)choirArgInt(pErr, pCur->apArg[1], "recursive", 0, 1);
  } else {
    p->bDeep = 0;
  }
  choirNeedWorkspace(pCur->pConn, pErr);
  p->zDir = choirStorePath(pErr, z ? z : "/", "dir", CHOIR_STORE_DIR);
  p->zEnd = p->zDir ? choirStoreEnd(pErr, p->zDir) : NULL;
  pCur->pStmt = choirStmt(pCur->pConn, pErr,
                          "SELECT path, size_bytes, mime_type, updated_at, id"
                          " FROM ~.artifacts WHERE path >= ?3 AND path < ?2"
                          " AND substr(path, 1, length(?1)) = ?1"
                          " AND deleted_at IS NULL ORDER BY path");
  choirBindText(pErr, pCur->pStmt, 1, p->zDir, -1);
  choirBindText(pErr, pCur->pStmt, 2, p->zEnd, -1);
  artifactLsSeek(p, p->zDir);
  artifactLsStep(p, NULL);
}

/* -------------------------------------------------------------- registry */

static const ChoirFunc aArtifactFunc[] = {
    {"artifact_put", 2, 4, CHOIR_WRITE, 0, artifactPut, NULL},
    {"artifact_get", 1, 1, CHOIR_READ, 0, artifactGet, NULL},
    {"artifact_delete", 1, 1, CHOIR_WRITE, 0, artifactDelete, NULL},
    {"artifact_purge", 0, 0, CHOIR_WRITE, 0, artifactPurge, NULL},
    {"artifact_move", 2, 2, CHOIR_WRITE, 0, artifactMove, NULL},
};

static const ChoirTvf aArtifactTvf[] = {
    {"artifact_ls",
     "path, name, kind, size_bytes, mime_type, updated_at, id, dir HIDDEN,"
     " recursive HIDDEN",
     7, 0, 2, CHOIR_READ, 0, (int)sizeof(ArtifactLs), artifactLs,
     artifactLsNext, artifactLsColumn, artifactLsReset},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreArtifactRegister(ChoirConn *pConn,
                                                         ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aArtifactFunc);
  choirTvfs(pConn, pErr, aArtifactTvf);
}
