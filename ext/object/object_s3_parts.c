/* SPDX-License-Identifier: MIT */
/*
** Uploads in parts: an object too large for one request, or for one that would
** have to begin again from the start.
**
** The upload is created, s3.parallel parts are under way at a time over the
** connection's one multi handle, each read from the source as it is sent (so
** memory does not grow with the object) and tried again by itself; completion
** makes the object, all of it or nothing. Parts are s3.part_bytes, or as much
** as makes them 10,000.
**
** Whatever ends it early (an error, an interrupt) ends the upload at the store
** too, for up to five seconds. What a crash leaves behind, or a creation whose
** reply was lost, is found by choirS3Sweep.
**
** A condition hangs on the completion, and is looked at before, because not
** every store checks it there.
*/
#include "object_s3.h"
#ifndef CHOIR_OMIT_NET

enum {
  PARTS_MAX = 10000,
  PARTS_AT_ONCE = 16,
  PARTS_ID_MAX = 2048,
  PARTS_ABORTS = 4
};
#define PARTS_MIN ((i64)5 << 20)
#define PARTS_OBJECT_MAX ((u64)5 << 40)

typedef struct S3Part {
  ChoirS3Call call;
  int iPart; /* 1, 2, … */
  char *zQuery;
} S3Part;

typedef struct S3Parts {
  ChoirObject *pObj;
  ChoirErr *pErr;
  const char *zKey;
  const ChoirObjectSource *pSource;
  i64 nPartByte;
  int nPart, nSent; /* nSent: parts that were begun */
  char *zId; /* the upload's name, percent-encoded; NULL: there is none */
  char (*azEtag)[96];
  S3Part *aPart; /* nAtOnce of them */
  int nAtOnce;
  char zWrite[37];
} S3Parts;

/* ?uploadId=…, after zBefore; caller frees. */
static char *partsQuery(S3Parts *p, const char *zBefore) {
  return choirMprintf(p->pErr, "%suploadId=%s", zBefore, p->zId ? p->zId : "");
}

static void partsPlan(S3Parts *p) {
  ChoirConn *pConn = p->pObj->pConn;
  u64 n = p->pSource->nByte;
  i64 nByte = choirConfigInt(pConn, "s3.part_bytes", 8 << 20);
  i64 nAtOnce = choirConfigInt(pConn, "s3.parallel", 4);
  if (n > PARTS_OBJECT_MAX) {
    choirErrSet(p->pErr, SQLITE_TOOBIG,
                "%llu bytes, an object takes at most %llu", n,
                PARTS_OBJECT_MAX);
    return;
  }
  nByte = nByte < PARTS_MIN ? PARTS_MIN : nByte;
  if ((i64)(n / PARTS_MAX) >= nByte) {
    nByte = ((i64)(n / PARTS_MAX) | ((1 << 20) - 1)) + 1; /* whole MiB */
  }
  p->nPartByte = nByte;
  p->nPart = n ? (int)((n + (u64)nByte - 1) / (u64)nByte) : 1;
  p->nAtOnce = nAtOnce < 1               ? 1
               : nAtOnce > PARTS_AT_ONCE ? PARTS_AT_ONCE
                                         : (int)nAtOnce;
  p->azEtag = choirMalloc(p->pErr, (u64)p->nPart * sizeof(*p->azEtag));
  p->aPart = choirMalloc(p->pErr, (u64)p->nAtOnce * sizeof(*p->aPart));
}

static void partsCreate(S3Parts *p) {
  ChoirS3Call call;
  choirS3Begin(&call, p->pObj, p->pErr, "POST", p->zKey);
  call.zQuery = "uploads=";
  choirS3Header(&call, "x-amz-meta-choir-write", p->zWrite);
  choirS3Send(&call);
  if (p->pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
    char *z = choirXmlFirst(p->pErr, call.http.body.a, "UploadId");
    size_t n = z ? strlen(z) : 0;
    if (n == 0 || n > PARTS_ID_MAX) {
      choirErrSet(p->pErr, SQLITE_ERROR, "the store gave the upload no name");
    } else {
      ChoirBuf b;
      choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
      choirUrlEncode(&b, z, (i64)n, 0);
      p->zId = choirBufTake(&b);
    }
    sqlite3_free(z);
  } else {
    choirS3Fail(&call);
  }
  choirS3Free(&call);
}

/* Begins the next part, if there is one, in a free place. */
static void partsNext(S3Parts *p, S3Part *pPart) {
  u64 iFrom = (u64)p->nSent * (u64)p->nPartByte;
  u64 nLeft = p->pSource->nByte - iFrom;
  char zBefore[32];
  if (p->nSent == p->nPart || p->pErr->rc != SQLITE_OK) {
    return;
  }
  pPart->iPart = ++p->nSent;
  sqlite3_snprintf(sizeof(zBefore), zBefore, "partNumber=%d&", pPart->iPart);
  sqlite3_free(pPart->zQuery);
  pPart->zQuery = partsQuery(p, zBefore);
  choirS3Begin(&pPart->call, p->pObj, p->pErr, "PUT", p->zKey);
  pPart->call.zQuery = pPart->zQuery;
  pPart->call.pSource = p->pSource;
  pPart->call.iFrom = (i64)iFrom;
  pPart->call.nWant = nLeft < (u64)p->nPartByte ? (i64)nLeft : p->nPartByte;
  choirS3Start(&pPart->call);
}

/* A part has arrived, or not. */
static void partsArrived(S3Parts *p, S3Part *pPart) {
  ChoirS3Call *pCall = &pPart->call;
  if (p->pErr->rc == SQLITE_OK && pCall->http.iStatus == 200) {
    ChoirObjectMeta meta;
    choirS3Meta(pCall, &meta);
    if (meta.zEtag[0] == 0) {
      choirErrSet(p->pErr, SQLITE_ERROR, "the store gave part %d no etag",
                  pPart->iPart);
    }
    memcpy(p->azEtag[pPart->iPart - 1], meta.zEtag, sizeof(meta.zEtag));
  } else {
    choirS3Fail(pCall);
  }
  choirS3Free(pCall);
}

static void partsSend(S3Parts *p) {
  ChoirHttp *ap[PARTS_AT_ONCE];
  int i;
  for (i = 0; i < p->nAtOnce && p->pErr->rc == SQLITE_OK; i++) {
    ap[i] = &p->aPart[i].call.http;
    partsNext(p, &p->aPart[i]);
  }
  while (p->pErr->rc == SQLITE_OK &&
         (i = choirHttpWait(p->pObj->pConn, ap, p->nAtOnce)) >= 0) {
    if (choirS3Settled(&p->aPart[i].call)) {
      partsArrived(p, &p->aPart[i]);
      partsNext(p, &p->aPart[i]);
    }
  }
  for (i = 0; i < p->nAtOnce && p->aPart; i++) {
    choirS3Free(&p->aPart[i].call); /* those under way are broken off */
    sqlite3_free(p->aPart[i].zQuery);
  }
}

static void partsXml(S3Parts *p, ChoirBuf *pXml) {
  int i;
  choirBufText(pXml, "<CompleteMultipartUpload xmlns="
                     "\"http://s3.amazonaws.com/doc/2006-03-01/\">");
  for (i = 0; i < p->nPart; i++) {
    const char *z = p->azEtag[i];
    choirBufPrintf(pXml, "<Part><PartNumber>%d</PartNumber><ETag>", i + 1);
    for (; *z; z++) {
      if (*z == '&' || *z == '<') {
        choirBufText(pXml, *z == '&' ? "&amp;" : "&lt;");
      } else {
        choirBufAppend(pXml, z, 1);
      }
    }
    choirBufText(pXml, "</ETag></Part>");
  }
  choirBufText(pXml, "</CompleteMultipartUpload>");
}

/* Does the condition hold now? */
static int partsHolds(S3Parts *p, int eIf, const char *zEtag) {
  ChoirObjectMeta now;
  int e;
  if (eIf == CHOIR_IF_ANY || ((ChoirS3Store *)p->pObj)->bBlind) {
    return 1;
  }
  e = choirObjectHead(p->pObj, p->pErr, p->zKey, &now);
  return eIf == CHOIR_IF_ABSENT
             ? e == CHOIR_OBJECT_ABSENT
             : e == CHOIR_OBJECT_OK && strcmp(now.zEtag, zEtag) == 0;
}

/* The reply to a completion may say 200 before the store has done it, and
** then that it could not: 1 to ask again. */
static int partsRefused(S3Parts *p, ChoirS3Call *pCall, int nTry,
                        ChoirObjectMeta *pNew) {
  const char *zXml = pCall->http.body.a;
  char *zEtag, *zCode;
  int bAgain = 0;
  if (p->pErr->rc != SQLITE_OK || pCall->http.iStatus != 200) {
    return 0;
  }
  zCode = choirXmlFirst(p->pErr, zXml, "Code");
  zEtag = zCode ? NULL : choirXmlFirst(p->pErr, zXml, "ETag");
  if (zEtag) {
    sqlite3_snprintf(sizeof(pNew->zEtag), pNew->zEtag, "%s", zEtag);
  } else if (nTry < choirConfigInt(p->pObj->pConn, "http.attempts", 3) &&
             (zCode == NULL || strcmp(zCode, "InternalError") == 0 ||
              strcmp(zCode, "SlowDown") == 0 ||
              strcmp(zCode, "ServiceUnavailable") == 0)) {
    bAgain = 1;
    sqlite3_sleep(100 << nTry);
  } else {
    choirS3Fail(pCall);
  }
  sqlite3_free(zCode);
  sqlite3_free(zEtag);
  return bAgain;
}

static int partsComplete(S3Parts *p, int eIf, const char *zEtag,
                         ChoirObjectMeta *pNew) {
  ChoirObjectMeta said;
  ChoirS3Call call;
  ChoirBuf xml;
  char *zQuery = partsQuery(p, "");
  int e = CHOIR_OBJECT_FAILED, nTry = 1, bAgain, bLost = 0;
  memset(&said, 0, sizeof(said));
  choirBufInit(&xml, p->pErr, CHOIR_BUF_JSON);
  partsXml(p, &xml);
  do {
    choirS3Begin(&call, p->pObj, p->pErr, "POST", p->zKey);
    call.zQuery = zQuery;
    call.pText = &xml;
    call.bLost = (u8)bLost;
    choirS3Condition(&call, eIf, zEtag);
    choirS3Send(&call);
    bAgain = partsRefused(p, &call, nTry++, &said);
    bLost |= bAgain;
    e = bAgain ? e : choirS3Outcome(&call, eIf, p->zWrite, pNew);
    choirS3Free(&call);
  } while (bAgain && p->pErr->rc == SQLITE_OK);
  if (e == CHOIR_OBJECT_OK && said.zEtag[0]) {
    memcpy(pNew->zEtag, said.zEtag, sizeof(said.zEtag));
  } else if (e == CHOIR_OBJECT_OK && pNew->zEtag[0] == 0) {
    choirS3Mine(p->pObj, p->pErr, p->zKey, p->zWrite, pNew); /* Ceph: empty */
  }
  sqlite3_free(zQuery);
  choirBufFree(&xml);
  return e;
}

/* Tells the store to forget an upload: the status of its reply. */
static int partsAbort(ChoirObject *pObj, const char *zKey, const char *zQuery) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirS3Call call;
  int iStatus;
  choirS3Begin(&call, pObj, &err, "DELETE", zKey);
  call.zQuery = zQuery;
  call.bCleanup = 1;
  choirS3Send(&call);
  iStatus = err.rc == SQLITE_OK && call.bHttp ? call.http.iStatus : 0;
  choirS3Free(&call);
  choirErrClear(&err);
  return iStatus;
}

/* Gives the upload up. A part that was broken off may still arrive and bring
** it back, so it is asked again until there is none; a sweep finds what is left
** after that. */
static void partsGiveUp(S3Parts *p) {
  ChoirErr err = {SQLITE_OK, NULL};
  char *zQuery = choirMprintf(&err, "uploadId=%s", p->zId);
  int nTry;
  for (nTry = 0; zQuery && nTry < PARTS_ABORTS &&
                 partsAbort(p->pObj, p->zKey, zQuery) != 404;
       nTry++) {
    if (p->nSent == 0) {
      break;
    }
    sqlite3_sleep(20 << nTry);
  }
  sqlite3_free(zQuery);
  choirErrClear(&err);
}

CHOIR_PRIVATE int choirS3PutParts(ChoirObject *pObj, ChoirErr *pErr,
                                  const char *zKey,
                                  const ChoirObjectSource *pSource, int eIf,
                                  const char *zEtag, ChoirObjectMeta *pNew) {
  S3Parts parts;
  int e = CHOIR_OBJECT_FAILED;
  memset(&parts, 0, sizeof(parts));
  parts.pObj = pObj;
  parts.pErr = pErr;
  parts.zKey = zKey;
  parts.pSource = pSource;
  choirUuid4(parts.zWrite);
  partsPlan(&parts);
  if (pErr->rc == SQLITE_OK && !partsHolds(&parts, eIf, zEtag)) {
    e = CHOIR_OBJECT_CHANGED;
  } else if (pErr->rc == SQLITE_OK) {
    partsCreate(&parts);
    if (parts.zId) {
      partsSend(&parts);
    }
    if (pErr->rc == SQLITE_OK) {
      e = partsHolds(&parts, eIf, zEtag)
              ? partsComplete(&parts, eIf, zEtag, pNew)
              : CHOIR_OBJECT_CHANGED;
    }
    if (parts.zId && (pErr->rc != SQLITE_OK || e != CHOIR_OBJECT_OK)) {
      partsGiveUp(&parts);
    }
  }
  pNew->nByte = pSource->nByte;
  sqlite3_free(parts.zId);
  sqlite3_free(parts.azEtag);
  sqlite3_free(parts.aPart);
  return e;
}

/* ------------------------------------------------------------------ sweep */

typedef struct S3Stale {
  ChoirS3Store *pStore;
  ChoirErr *pErr;
  i64 iBefore, nSwept;
  ChoirBuf key, id; /* of the upload under way, then where the next page is */
  int bEncoded;
} S3Stale;

static void staleText(S3Stale *p, ChoirBuf *pOut, const ChoirXml *pXml) {
  ChoirBuf b;
  pOut->n = 0;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  choirXmlText(&b, pXml);
  if (p->bEncoded && pOut == &p->key) {
    choirUrlDecode(pOut, b.a ? b.a : "", (i64)b.n);
  } else {
    choirBufAppend(pOut, b.a ? b.a : "", b.n);
  }
  choirBufFree(&b);
}

/* One <Upload>. */
static void staleUpload(S3Stale *p, const char *z, const char *zEnd) {
  size_t nRoot = strlen(p->pStore->zRoot);
  i64 iBegun = 0;
  ChoirXml xml;
  ChoirBuf query;
  p->key.n = p->id.n = 0;
  while (choirXmlNext(&z, zEnd, &xml)) {
    if (choirXmlIs(&xml, "Key")) {
      staleText(p, &p->key, &xml);
    } else if (choirXmlIs(&xml, "UploadId")) {
      staleText(p, &p->id, &xml);
    } else if (choirXmlIs(&xml, "Initiated")) {
      iBegun = choirXmlTime(&xml);
    }
  }
  if (iBegun == 0 || iBegun >= p->iBefore || p->id.n == 0 ||
      p->key.n <= nRoot || memcmp(p->key.a, p->pStore->zRoot, nRoot) != 0) {
    return;
  }
  choirBufInit(&query, p->pErr, CHOIR_BUF_SQL);
  choirBufText(&query, "uploadId=");
  choirUrlEncode(&query, p->id.a, (i64)p->id.n, 0);
  if (p->pErr->rc == SQLITE_OK) {
    p->nSwept +=
        partsAbort(&p->pStore->base, p->key.a + nRoot, query.a) / 100 == 2;
  }
  choirBufFree(&query);
}

/* The uploads of one page; 1 when there is another, which begins at key and
** id. */
static int stalePage(S3Stale *p, const char *zXml) {
  char *zEncoding = choirXmlFirst(p->pErr, zXml, "EncodingType");
  char *zMore = choirXmlFirst(p->pErr, zXml, "IsTruncated");
  int bMore = zMore && strcmp(zMore, "true") == 0;
  const char *z = zXml, *zEnd;
  ChoirXml xml;
  p->bEncoded = zEncoding && strcmp(zEncoding, "url") == 0;
  sqlite3_free(zEncoding);
  sqlite3_free(zMore);
  while (p->pErr->rc == SQLITE_OK && (z = strstr(z, "<Upload>")) != NULL &&
         (zEnd = strstr(z, "</Upload>")) != NULL) {
    staleUpload(p, z + 8, zEnd);
    z = zEnd;
  }
  p->key.n = p->id.n = 0;
  while (bMore && choirXmlNext(&zXml, NULL, &xml)) {
    if (choirXmlIs(&xml, "NextKeyMarker")) {
      staleText(p, &p->key, &xml);
    } else if (choirXmlIs(&xml, "NextUploadIdMarker")) {
      staleText(p, &p->id, &xml);
    }
  }
  return bMore && p->key.n > 0 && p->pErr->rc == SQLITE_OK;
}

CHOIR_PRIVATE i64 choirS3Sweep(ChoirObject *pObj, ChoirErr *pErr,
                               const char *zPrefix, i64 iBefore) {
  S3Stale stale;
  const char *zRoot = ((ChoirS3Store *)pObj)->zRoot;
  int bMore = 0;
  memset(&stale, 0, sizeof(stale));
  stale.pStore = (ChoirS3Store *)pObj;
  stale.pErr = pErr;
  stale.iBefore = iBefore;
  choirBufInit(&stale.key, pErr, CHOIR_BUF_SQL);
  choirBufInit(&stale.id, pErr, CHOIR_BUF_SQL);
  do {
    ChoirS3Call call;
    ChoirBuf query;
    choirBufInit(&query, pErr, CHOIR_BUF_SQL);
    choirBufText(&query, "uploads=&encoding-type=url&prefix=");
    choirUrlEncode(&query, zRoot, (i64)strlen(zRoot), 0);
    choirUrlEncode(&query, zPrefix, (i64)strlen(zPrefix), 0);
    if (bMore) {
      choirBufText(&query, "&key-marker=");
      choirUrlEncode(&query, stale.key.a, (i64)stale.key.n, 0);
      choirBufText(&query, "&upload-id-marker=");
      choirUrlEncode(&query, stale.id.a, (i64)stale.id.n, 0);
    }
    choirS3Begin(&call, pObj, pErr, "GET", NULL);
    call.zQuery = query.a;
    choirS3Send(&call);
    if (pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
      bMore = stalePage(&stale, call.http.body.a ? call.http.body.a : "");
    } else {
      choirS3Fail(&call);
    }
    choirS3Free(&call);
    choirBufFree(&query);
  } while (bMore && pErr->rc == SQLITE_OK);
  choirBufFree(&stale.key);
  choirBufFree(&stale.id);
  return stale.nSwept;
}
#endif /* CHOIR_OMIT_NET */
