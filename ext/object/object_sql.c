/* SPDX-License-Identifier: MIT */
/*
** s3_get, s3_put, s3_head, s3_delete, s3_copy, s3_put_file, s3_get_file and
** s3_presign: objects from SQL, the same for s3:// and file:// URLs.
**
** Each call opens its store, does one thing and closes it; connections to the
** server are kept by http. Nothing here is undone by ROLLBACK.
*/
#include "object.h"
#include "../store/store.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The store of argument i, or NULL; the caller closes it. */
static ChoirObject *objSqlOpen(ChoirCall *p, int i) {
  const char *zUrl = choirArgText(&p->err, p->apArg[i], "url");
  return zUrl ? choirObjectOpen(p->pConn, &p->err, zUrl) : NULL;
}

/* There was no object: an error that names the URL without a query. */
static void objSqlAbsent(ChoirErr *pErr, const ChoirObject *pObj) {
  choirErrSet(pErr, SQLITE_ERROR, "no object %.*s%s",
              (int)strcspn(pObj->zUrl, "?"), pObj->zUrl,
              pObj->bHidden ? ", or none that may be read: the store says 403"
                              " to both"
                            : "");
}

static void objSqlMeta(ChoirCall *p, const ChoirObjectMeta *pMeta) {
  ChoirBuf b;
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "{\"size\":%llu,\"etag\":", pMeta->nByte);
  choirBufJson(&b, pMeta->zEtag, -1);
  choirBufPrintf(&b, ",\"modified\":%lld}", pMeta->iModified);
  choirBufResult(&b, p->pCtx);
  choirBufFree(&b);
}

/*
** SQL: s3_get(url[, offset, length]) -> BLOB
**
** The content of an object, or a range of it: at most length bytes from offset,
** fewer at its end.
**
**   url     TEXT, s3:// or file://
**   offset  INTEGER, bytes from 0
**   length  INTEGER, bytes; NULL: to the end
**
** NULL: a NULL url is an error.
** Errors: no such object; no access; a reply that is cut short or more than
** SQLite's limit for one value.
**
** > SELECT s3_get('bucket/a')
** ! s3_get: 'bucket/a' is not a URL; write s3://bucket/folder/name or file:///folder/name
*/
static void objSqlGet(ChoirCall *p) {
  ChoirObject *pObj = objSqlOpen(p, 0);
  i64 iOff = 0, nByte = -1;
  ChoirObjectMeta meta;
  ChoirBuf b;
  if (p->nArg > 1) {
    iOff = choirArgInt(&p->err, p->apArg[1], "offset", 0, (i64)1 << 60);
  }
  if (p->nArg > 2 && sqlite3_value_type(p->apArg[2]) != SQLITE_NULL) {
    nByte = choirArgInt(&p->err, p->apArg[2], "length", 0, (i64)1 << 60);
  }
  choirBufInit(&b, &p->err,
               (u64)sqlite3_limit(p->pConn->db, SQLITE_LIMIT_LENGTH, -1));
  if (pObj && choirObjectGet(pObj, &p->err, pObj->zKey, iOff, nByte, &meta,
                             choirObjectToBuf, &b) == CHOIR_OBJECT_ABSENT) {
    objSqlAbsent(&p->err, pObj);
  }
  if (p->err.rc == SQLITE_OK) {
    u64 n = b.n;
    char *a = choirBufTake(&b);
    if (a) {
      sqlite3_result_blob64(p->pCtx, a, n, sqlite3_free);
    }
  }
  choirBufFree(&b);
  choirObjectClose(pObj);
}

/* An option that is not known might have been a condition. */
static void objSqlOptionCheck(ChoirCall *p, const char *zJson) {
  sqlite3_stmt *pStmt = choirJsonStmt(
      p->pConn, &p->err,
      "SELECT coalesce(key, '') FROM json_each(?1) WHERE coalesce(key, '')"
      " NOT IN ('if_none_match', 'if_match')",
      zJson, -1);
  if (choirStep(&p->err, pStmt)) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "no option '%.40s'; there are if_none_match and if_match",
                sqlite3_column_text(pStmt, 0));
  }
  sqlite3_finalize(pStmt);
}

/* The condition that argument i states; *pzMatch: the caller frees. */
static int objSqlCondition(ChoirCall *p, int i, char **pzMatch) {
  char *zAbsent = NULL;
  int bAbsent;
  if (p->nArg > i && sqlite3_value_type(p->apArg[i]) != SQLITE_NULL) {
    const char *z = choirArgJson(p->pConn, &p->err, p->apArg[i], "options");
    objSqlOptionCheck(p, z);
    zAbsent = choirJsonText(p->pConn, &p->err, z, -1, "$.if_none_match");
    *pzMatch = choirJsonText(p->pConn, &p->err, z, -1, "$.if_match");
  }
  bAbsent = zAbsent != NULL;
  if (bAbsent && strcmp(zAbsent, "*") != 0) {
    choirErrSet(&p->err, SQLITE_ERROR, "if_none_match must be '*', got '%.40s'",
                zAbsent);
  } else if (bAbsent && *pzMatch) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "if_none_match and if_match cannot both hold; give one");
  }
  sqlite3_free(zAbsent);
  return *pzMatch ? CHOIR_IF_MATCH : bAbsent ? CHOIR_IF_ABSENT : CHOIR_IF_ANY;
}

/* Puts the source at argument 0 under the conditions of argument iOpts. */
static void objSqlPutSource(ChoirCall *p, const ChoirObjectSource *pSource,
                            int iOpts) {
  ChoirObject *pObj = objSqlOpen(p, 0);
  ChoirObjectMeta meta;
  char *zMatch = NULL;
  int eIf = objSqlCondition(p, iOpts, &zMatch);
  if (pObj && p->err.rc == SQLITE_OK &&
      choirObjectPut(pObj, &p->err, pObj->zKey, pSource, eIf, zMatch, &meta) ==
          CHOIR_OBJECT_CHANGED) {
    choirErrSet(&p->err, SQLITE_BUSY, "%s: %s", pObj->zUrl,
                zMatch ? "it is not the object that if_match names"
                       : "there is an object already");
  }
  if (pObj && p->err.rc == SQLITE_OK) {
    objSqlMeta(p, &meta);
  }
  sqlite3_free(zMatch);
  choirObjectClose(pObj);
}

/*
** SQL: s3_put(url, content[, options]) -> TEXT
**
** Writes an object, all or nothing, and returns {size, etag, modified}.
**
**   url      TEXT, s3:// or file://
**   content  BLOB or TEXT
**   options  TEXT, a JSON object: if_none_match '*' (only when there is none
**            yet) or if_match (only when it still has this etag)
**
** NULL: a NULL url or content is an error.
** Errors: BUSY when the condition does not hold; another option; no access.
**
** > SELECT s3_put('file:///', 'x')
** ! s3_put: the key is empty; in a URL it is what follows the last '/'
*/
static void objSqlPut(ChoirCall *p) {
  ChoirObjectSource source = choirObjectOfValue(&p->err, p->apArg[1]);
  if (p->err.rc == SQLITE_OK) {
    objSqlPutSource(p, &source, 2);
  }
}

/*
** SQL: s3_put_file(url, file[, options]) -> TEXT
**
** Writes an object from a file, a piece at a time; else as s3_put. A file of a
** database that is open on this connection is refused: choir_backup() copies it.
**
**   file  TEXT, a path
**
** > SELECT s3_put_file('file:///tmp/x', '/no/such/file')
** ! s3_put_file: cannot read /no/such/file: No such file or directory
*/
static void objSqlPutFile(ChoirCall *p) {
  const char *zFile = choirArgText(&p->err, p->apArg[1], "file");
  ChoirObjectFd file = {-1, zFile, 0};
  ChoirObjectSource source = {0, choirObjectFromFd, &file};
  ChoirStoreOwn own;
  struct stat st;
  choirStoreOwnInit(&own, p->pConn, &p->err);
  file.fd = choirStoreOpen(&p->err, &own, AT_FDCWD, zFile, 0, zFile, &st);
  if (file.fd >= 0) {
    source.nByte = (u64)st.st_size;
    objSqlPutSource(p, &source, 2);
    close(file.fd);
  }
  choirStoreOwnFree(&own);
}

/*
** SQL: s3_get_file(url, file) -> TEXT
**
** Reads an object into a file, a piece at a time, and returns {size, etag,
** modified}. The file appears under its name when it is complete, replacing
** one of that name; only its owner may read it.
**
**   file  TEXT, a path
**
** > SELECT s3_get_file('file:///no/such/object', '/no/such/folder/x')
** ! s3_get_file: cannot open the folder '/no/such/folder': No such file or directory
*/
static void objSqlGetFile(ChoirCall *p) {
  const char *zFile = choirArgText(&p->err, p->apArg[1], "file");
  ChoirObject *pObj = NULL;
  ChoirObjectFd file = {-1, zFile, 0};
  ChoirObjectMeta meta;
  ChoirTemp temp;
  if (p->err.rc != SQLITE_OK) {
    return;
  }
  choirTempBeside(&temp, &p->err, zFile);
  if (p->err.rc == SQLITE_OK) {
    choirFileNotOwn(&p->err, p->pConn, temp.fdDir, temp.zLast, zFile);
    pObj = objSqlOpen(p, 0);
  }
  if (pObj && p->err.rc == SQLITE_OK) {
    file.fd = temp.fd;
    if (choirObjectGet(pObj, &p->err, pObj->zKey, 0, -1, &meta, choirObjectToFd,
                       &file) == CHOIR_OBJECT_ABSENT) {
      objSqlAbsent(&p->err, pObj);
    }
    if (p->err.rc == SQLITE_OK) {
      choirTempPublish(&temp, &p->err, temp.zLast, 1);
    }
    if (p->err.rc == SQLITE_OK) {
      objSqlMeta(p, &meta);
    }
  }
  choirTempClose(&temp);
  choirObjectClose(pObj);
}

/*
** SQL: s3_head(url) -> TEXT
**
** {size, etag, modified} of an object, or NULL when there is none.
**
** NULL: a NULL url is an error.
** Errors: no access.
**
** > SELECT s3_head('file:///tmp/no-such-object')
** = NULL
*/
static void objSqlHead(ChoirCall *p) {
  ChoirObject *pObj = objSqlOpen(p, 0);
  ChoirObjectMeta meta;
  if (pObj &&
      choirObjectHead(pObj, &p->err, pObj->zKey, &meta) == CHOIR_OBJECT_OK) {
    objSqlMeta(p, &meta);
  }
  choirObjectClose(pObj);
}

/*
** SQL: s3_delete(url[, etag]) -> INTEGER
**
** Deletes an object; 1 when there was one, 0 when not.
**
**   etag  TEXT, only when it still has this etag
**
** NULL: a NULL url is an error.
** Errors: BUSY when the etag is another; no access.
**
** > SELECT s3_delete('file:///tmp/no-such-object')
** = 0
*/
static void objSqlDelete(ChoirCall *p) {
  ChoirObject *pObj = objSqlOpen(p, 0);
  const char *zEtag =
      p->nArg > 1 ? choirArgTextOrNull(&p->err, p->apArg[1], "etag") : NULL;
  int e = pObj ? choirObjectDelete(pObj, &p->err, pObj->zKey, zEtag) : 0;
  if (p->err.rc == SQLITE_OK && e == CHOIR_OBJECT_CHANGED) {
    choirErrSet(&p->err, SQLITE_BUSY, "%s: its etag is not %.80s", pObj->zUrl,
                zEtag);
  }
  sqlite3_result_int(p->pCtx, e == CHOIR_OBJECT_OK);
  choirObjectClose(pObj);
}

/*
** SQL: s3_copy(from, to) -> TEXT
**
** Copies an object, also from one kind of store to another, and returns
** {size, etag, modified} of the copy. Within one endpoint the store copies by
** itself, if it can, with type and metadata; an object of more than 5 GiB (setting
** s3.copy_bytes) in parts, which a call after a crash takes up again. Otherwise
** the bytes pass through this process, by way of a file without a name. In every
** case the copy is of one version of the object.
**
** NULL: a NULL url is an error.
**
** > SELECT s3_copy('file:///tmp/no-such-object', 'file:///tmp/x')
** ! s3_copy: no object file:///tmp/no-such-object
*/
static void objSqlCopy(ChoirCall *p) {
  ChoirObject *pFrom = objSqlOpen(p, 0), *pTo = NULL;
  ChoirObjectMeta meta;
  if (p->err.rc == SQLITE_OK) {
    pTo = objSqlOpen(p, 1);
  }
  if (pTo && choirObjectCopy(pFrom, &p->err, pFrom->zKey, pTo, pTo->zKey,
                             CHOIR_IF_ANY, &meta) == CHOIR_OBJECT_ABSENT) {
    objSqlAbsent(&p->err, pFrom);
  }
  if (p->err.rc == SQLITE_OK) {
    objSqlMeta(p, &meta);
  }
  choirObjectClose(pFrom);
  choirObjectClose(pTo);
}

/*
** SQL: s3_presign(method, url, seconds) -> TEXT
**
** A URL by which anyone may do this one thing with this object until then,
** without credentials. Nothing is sent, but credentials may have to be fetched.
**
**   method   TEXT, GET, PUT, HEAD or DELETE
**   url      TEXT, s3://bucket/key
**   seconds  INTEGER, 1 to 604800
**
** NULL: a NULL argument is an error.
** Errors: no credentials; not an s3:// URL.
**
** > SELECT s3_presign('POST', 's3://bucket/key', 60)
** ! s3_presign: method must be GET, PUT, HEAD or DELETE, got 'POST'
*/
static void objSqlPresign(ChoirCall *p) {
  const char *zMethod = choirArgText(&p->err, p->apArg[0], "method");
  const char *zUrl = choirArgText(&p->err, p->apArg[1], "url");
  i64 nSeconds = choirArgInt(&p->err, p->apArg[2], "seconds", 1, 604800);
  char *z = NULL;
  if (zMethod && strcmp(zMethod, "GET") != 0 && strcmp(zMethod, "PUT") != 0 &&
      strcmp(zMethod, "HEAD") != 0 && strcmp(zMethod, "DELETE") != 0) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "method must be GET, PUT, HEAD or DELETE, got '%.20s'",
                zMethod);
  }
#ifdef CHOIR_OMIT_NET
  (void)zUrl, (void)nSeconds;
  choirErrSet(&p->err, SQLITE_ERROR, "this choir was built without s3://");
#else
  z = choirS3Presign(p->pConn, &p->err, zMethod, zUrl, nSeconds);
#endif
  choirResultText(p, z);
  sqlite3_free(z);
}

static const ChoirFunc aObjSqlFunc[] = {
    {"s3_get", 1, 3, CHOIR_EFFECT, 0, objSqlGet, NULL},
    {"s3_put", 2, 3, CHOIR_EFFECT, 0, objSqlPut, NULL},
    {"s3_put_file", 2, 3, CHOIR_EFFECT, 0, objSqlPutFile, NULL},
    {"s3_get_file", 2, 2, CHOIR_EFFECT, 0, objSqlGetFile, NULL},
    {"s3_head", 1, 1, CHOIR_EFFECT, 0, objSqlHead, NULL},
    {"s3_delete", 1, 2, CHOIR_EFFECT, 0, objSqlDelete, NULL},
    {"s3_presign", 3, 3, CHOIR_EFFECT, 0, objSqlPresign, NULL},
    {"s3_copy", 2, 2, CHOIR_EFFECT, 0, objSqlCopy, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirObjectRegister(ChoirConn *pConn,
                                                  ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aObjSqlFunc);
  choirObjectBlobRegister(pConn, pErr);
  choirObjectProbeRegister(pConn, pErr);
  choirObjectArtifactRegister(pConn, pErr);
}
