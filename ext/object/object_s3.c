/* SPDX-License-Identifier: MIT */
/*
** The s3:// backend: any store that speaks S3.
**
**   s3://bucket/folder/key    the key as it is, not percent-encoded
**
** Credentials, region and endpoint come from the secret of type s3 whose scope
** covers the URL, else from the AWS chain (http.h). Without an endpoint it is
** AWS, addressed by host name; with one, or for a bucket whose name makes no
** host name, by path. url_style in the secret (path, vhost) overrides.
**
** What goes wrong once is put right once, and remembered by the connection for
** the bucket: another region (taken from the reply), a clock that differs (from
** the Date header), expired credentials (fetched again), a server that compares
** If-Match with the ETag unquoted. What may pass is tried again by http.
**
** A conditional put whose reply was lost may find its own object in its way:
** every put carries a random x-amz-meta-choir-write, by which a put that is
** refused after a lost reply recognises itself.
**
** A put goes in parts above s3.multipart_bytes (object_s3_parts.c). Under a
** condition it stays one request up to s3.conditional_bytes: there are stores
** (Ceph 16) that check conditions of one request and not those of an upload's
** completion.
*/
#include "object_s3.h"
#ifndef CHOIR_OMIT_NET
#include <stdlib.h>

enum { S3_PAGE = 1000 };
#define S3_PUT_MAX ((u64)5 << 30)

/* ------------------------------------------------------------------ known */

typedef struct S3State {
  ChoirS3Known *pFirst;
} S3State;

static void s3StateFree(void *pArg) {
  ChoirS3Known *p = ((S3State *)pArg)->pFirst, *pNext;
  for (; p; p = pNext) {
    pNext = p->pNext;
    sqlite3_free(p->zBucket);
    sqlite3_free(p->zRegion);
    sqlite3_free(p);
  }
}

static const ChoirStateType s3State = {"s3", sizeof(S3State), s3StateFree};

/* What is known of a bucket; nothing after choir_secret(), which may lead
** elsewhere. Stays with the connection. */
static ChoirS3Known *s3Known(ChoirConn *pConn, ChoirErr *pErr,
                             const char *zBucket) {
  S3State *pState = choirState(pConn, pErr, &s3State);
  i64 iGeneration = choirSecretGeneration(pConn, pErr);
  ChoirS3Known *p = pState ? pState->pFirst : NULL;
  while (p && strcmp(p->zBucket, zBucket) != 0) {
    p = p->pNext;
  }
  if (p == NULL && pState) {
    char *zCopy = choirMprintf(pErr, "%s", zBucket);
    p = choirMalloc(pErr, sizeof(*p));
    if (p == NULL || zCopy == NULL) {
      sqlite3_free(zCopy);
      sqlite3_free(p);
      return NULL;
    }
    p->zBucket = zCopy;
    p->iGeneration = iGeneration;
    p->pNext = pState->pFirst;
    pState->pFirst = p;
  }
  if (p && p->iGeneration != iGeneration) {
    sqlite3_free(p->zRegion);
    p->zRegion = NULL;
    p->iSkew = 0;
    p->bUnquoted = 0;
    p->iGeneration = iGeneration;
  }
  return p;
}

/* ---------------------------------------------------------------- methods */

static void s3Nothing(void *pArg, ChoirErr *pErr, const void *a, u64 n) {
  (void)pArg, (void)pErr, (void)a, (void)n;
}

/* What a HEAD would say, by a GET of nWant bytes: where a presigned URL is good
** for nothing else, and where the reason of a refusal is wanted. */
static int s3HeadByGet(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                       i64 nWant, ChoirObjectMeta *pMeta) {
  ChoirS3Call call;
  int e = CHOIR_OBJECT_OK, iStatus;
  choirS3Begin(&call, pObj, pErr, "GET", zKey);
  call.xWrite = s3Nothing;
  call.nWant = nWant;
  choirS3Send(&call);
  iStatus = call.bHttp ? call.http.iStatus : 0;
  if (choirS3Absent(&call)) {
    e = CHOIR_OBJECT_ABSENT;
  } else if (pErr->rc == SQLITE_OK && iStatus == 416 && nWant > 0) {
    e = s3HeadByGet(pObj, pErr, zKey, -1, pMeta); /* it is empty */
  } else if (pErr->rc == SQLITE_OK && (iStatus == 200 || iStatus == 206)) {
    choirS3Meta(&call, pMeta);
  } else {
    choirS3Fail(&call);
  }
  choirS3Free(&call);
  return e;
}

static int s3Head(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                  ChoirObjectMeta *pMeta) {
  ChoirS3Call call;
  int e = CHOIR_OBJECT_OK;
  if (((ChoirS3Store *)pObj)->bMinted) {
    return s3HeadByGet(pObj, pErr, zKey, 1, pMeta);
  }
  choirS3Begin(&call, pObj, pErr, "HEAD", zKey);
  choirS3Send(&call);
  if (pErr->rc == SQLITE_OK && call.http.iStatus == 404) {
    e = CHOIR_OBJECT_ABSENT;
  } else if (pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
    choirS3Meta(&call, pMeta);
  } else if (pErr->rc == SQLITE_OK && call.http.iStatus >= 300 &&
             call.http.iStatus < 500) { /* and HEAD does not say why */
    e = s3HeadByGet(pObj, pErr, zKey, 1, pMeta);
  } else {
    choirS3Fail(&call);
  }
  choirS3Free(&call);
  return e;
}

static int s3Get(ChoirObject *pObj, ChoirErr *pErr, const char *zKey, i64 iOff,
                 i64 nByte, ChoirObjectMeta *pMeta, ChoirObjectWrite x,
                 void *pArg) {
  ChoirS3Call call;
  int e = CHOIR_OBJECT_OK, iStatus;
  if (nByte == 0) {
    return s3Head(pObj, pErr, zKey, pMeta);
  }
  choirS3Begin(&call, pObj, pErr, "GET", zKey);
  call.xWrite = x;
  call.pWriteArg = pArg;
  call.iFrom = iOff;
  call.nWant = nByte < 0 ? -1 : nByte;
  choirS3Send(&call);
  iStatus = call.bHttp ? call.http.iStatus : 0;
  if (choirS3Absent(&call)) {
    e = CHOIR_OBJECT_ABSENT;
  } else if (pErr->rc == SQLITE_OK && iStatus == 416 && call.iGiven == 0) {
    e = s3Head(pObj, pErr, zKey, pMeta); /* the range begins past its end */
  } else if (pErr->rc == SQLITE_OK && (iStatus == 200 || iStatus == 206)) {
    choirS3Meta(&call, pMeta);
  } else {
    choirS3Fail(&call);
  }
  choirS3Free(&call);
  return e;
}

CHOIR_PRIVATE int choirS3Mine(ChoirObject *pObj, ChoirErr *pErr,
                              const char *zKey, const char *zWrite,
                              ChoirObjectMeta *pNew) {
  ChoirS3Call call;
  int bMine = 0;
  if (((ChoirS3Store *)pObj)->bMinted) {
    return 0; /* a presigned put carries no mark */
  }
  choirS3Begin(&call, pObj, pErr, "HEAD", zKey);
  choirS3Send(&call);
  if (pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
    char *z = choirHttpReply(&call.http, "x-amz-meta-choir-write");
    bMine = z && strcmp(z, zWrite) == 0;
    if (bMine) {
      choirS3Meta(&call, pNew);
    }
    sqlite3_free(z);
  }
  choirS3Free(&call);
  return bMine;
}

CHOIR_PRIVATE void choirS3Condition(ChoirS3Call *p, int eIf,
                                    const char *zEtag) {
  size_t n;
  if (eIf == CHOIR_IF_ABSENT) {
    choirS3Header(p, "If-None-Match", "*");
  } else if (eIf == CHOIR_IF_MATCH) {
    n = strlen(zEtag);
    if (p->pStore->pKnown->bUnquoted && n > 2 && zEtag[0] == '"' &&
        zEtag[n - 1] == '"') {
      sqlite3_snprintf(sizeof(p->zMatch), p->zMatch, "%.*s", (int)n - 2,
                       zEtag + 1);
    } else {
      sqlite3_snprintf(sizeof(p->zMatch), p->zMatch, "%s", zEtag);
    }
    choirS3Header(p, "If-Match", p->zMatch);
  }
}

CHOIR_PRIVATE int choirS3Outcome(ChoirS3Call *p, int eIf, const char *zWrite,
                                 ChoirObjectMeta *pNew) {
  ChoirErr *pErr = p->pErr;
  ChoirObject *pObj = &p->pStore->base;
  int iStatus = p->bHttp ? p->http.iStatus : 0;
  int bSaid = pErr->rc == SQLITE_OK;
  int bRefused = bSaid && (iStatus == 412 || iStatus == 409 ||
                           (iStatus == 404 && eIf == CHOIR_IF_MATCH));
  ChoirErr first = {SQLITE_OK, NULL};
  int bMine = 0;
  if (bSaid && iStatus / 100 == 2) {
    choirS3Meta(p, pNew);
    pNew->iModified = choirNow();
    return CHOIR_OBJECT_OK;
  }
  if (p->bLost && pErr->rc != SQLITE_NOMEM && pErr->rc != SQLITE_INTERRUPT) {
    first = *pErr;
    memset(pErr, 0, sizeof(*pErr));
    bMine = choirS3Mine(pObj, pErr, p->zKey, zWrite, pNew);
    if (!bMine && first.rc != SQLITE_OK) {
      choirErrClear(pErr);
      *pErr = first;
      first.zMsg = NULL;
    }
    choirErrClear(&first);
  }
  if (bMine) {
    return CHOIR_OBJECT_OK;
  }
  if (bRefused && pErr->rc == SQLITE_OK) {
    return CHOIR_OBJECT_CHANGED;
  }
  choirS3Fail(p);
  return CHOIR_OBJECT_FAILED;
}

static int s3PutOnce(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                     const ChoirObjectSource *pSource, int eIf,
                     const char *zEtag, ChoirObjectMeta *pNew) {
  ChoirS3Call call;
  char zWrite[37];
  int e;
  choirS3Begin(&call, pObj, pErr, "PUT", zKey);
  choirUuid4(zWrite);
  call.pSource = pSource;
  call.nWant = (i64)pSource->nByte;
  if (!call.pStore->bMinted) { /* it would have to be signed */
    choirS3Header(&call, "x-amz-meta-choir-write", zWrite);
  }
  if (pObj->zType && !call.pStore->bMinted) {
    choirS3Header(&call, "Content-Type", pObj->zType);
  }
  choirS3Condition(&call, eIf, zEtag);
  choirS3Send(&call);
  e = choirS3Outcome(&call, eIf, zWrite, pNew);
  pNew->nByte = pSource->nByte;
  choirS3Free(&call);
  return e;
}

static int s3Put(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                 const ChoirObjectSource *pSource, int eIf, const char *zEtag,
                 ChoirObjectMeta *pNew) {
  ChoirS3Store *p = (ChoirS3Store *)pObj;
  i64 nOnce =
      eIf == CHOIR_IF_ANY
          ? choirConfigInt(pObj->pConn, "s3.multipart_bytes", 16 << 20)
          : choirConfigInt(pObj->pConn, "s3.conditional_bytes", (i64)5 << 30);
  ChoirObjectMeta now;
  int e;
  if (p->bMinted && pSource->nByte > S3_PUT_MAX) {
    choirErrSet(pErr, SQLITE_TOOBIG,
                "%llu bytes, a presigned URL takes at most %llu",
                pSource->nByte, S3_PUT_MAX);
    return CHOIR_OBJECT_FAILED;
  }
  if (!p->bMinted &&
      (pSource->nByte > (u64)nOnce || pSource->nByte > S3_PUT_MAX)) {
    return choirS3PutParts(pObj, pErr, zKey, pSource, eIf, zEtag, pNew);
  }
  e = s3PutOnce(pObj, pErr, zKey, pSource, eIf, zEtag, pNew);
  if (e == CHOIR_OBJECT_CHANGED && eIf == CHOIR_IF_MATCH &&
      !p->pKnown->bUnquoted && zEtag[0] == '"') {
    /* Ceph compares the quotes too. */
    memset(&now, 0, sizeof(now));
    if (s3Head(pObj, pErr, zKey, &now) == CHOIR_OBJECT_OK &&
        pErr->rc == SQLITE_OK && strcmp(now.zEtag, zEtag) == 0) {
      p->pKnown->bUnquoted = 1;
      e = s3PutOnce(pObj, pErr, zKey, pSource, eIf, zEtag, pNew);
      p->pKnown->bUnquoted = e == CHOIR_OBJECT_OK;
    }
  }
  return e;
}

/* Sticky error where presigned URLs are all there is. */
static int s3NeedsKeys(ChoirObject *pObj, ChoirErr *pErr, const char *zDo) {
  int bMinted = ((ChoirS3Store *)pObj)->bMinted;
  if (bMinted) {
    pObj->bForbidden = 1;
    choirErrSet(pErr, SQLITE_AUTH, "%s: presigned URLs cannot %s", pObj->zUrl,
                zDo);
  }
  return bMinted;
}

static int s3Delete(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                    const char *zEtag) {
  ChoirS3Call call;
  ChoirObjectMeta now;
  int e;
  if (s3NeedsKeys(pObj, pErr, "delete")) {
    return CHOIR_OBJECT_FAILED;
  }
  memset(&now, 0, sizeof(now));
  e = s3Head(pObj, pErr, zKey, &now); /* S3 does not say that it was absent */
  if (e == CHOIR_OBJECT_OK && zEtag && strcmp(zEtag, now.zEtag) != 0) {
    e = CHOIR_OBJECT_CHANGED;
  }
  if (e != CHOIR_OBJECT_OK || pErr->rc != SQLITE_OK) {
    return e;
  }
  choirS3Begin(&call, pObj, pErr, "DELETE", zKey);
  choirS3Condition(&call, zEtag ? CHOIR_IF_MATCH : CHOIR_IF_ANY, zEtag);
  choirS3Send(&call);
  if (pErr->rc == SQLITE_OK && call.http.iStatus == 412) {
    e = CHOIR_OBJECT_CHANGED;
  } else if (pErr->rc != SQLITE_OK || call.http.iStatus >= 300) {
    choirS3Fail(&call);
  }
  choirS3Free(&call);
  return e;
}

typedef struct S3List {
  ChoirS3Store *pStore;
  ChoirErr *pErr;
  ChoirObjectEach xEach;
  void *pArg;
  const char *zFrom;
  i64 nLeft;      /* keys still wanted */
  ChoirBuf token; /* where the next page begins; empty: there is none */
  ChoirBuf key;   /* of the object under way */
  ChoirBuf text;  /* what is being read of it */
  int bEncoded;   /* the store encodes keys, as it was asked to */
} S3List;

/* A key as the store writes it. */
static void s3ListKey(S3List *p, const ChoirXml *pXml) {
  u64 i;
  p->key.n = 0;
  choirBufText(&p->key, "");
  if (!p->bEncoded) {
    choirXmlText(&p->key, pXml);
    return;
  }
  p->text.n = 0;
  choirXmlText(&p->text, pXml);
  for (i = 0; i < p->text.n; i++) {
    p->text.a[i] = p->text.a[i] == '+' ? ' ' : p->text.a[i];
  }
  if (p->text.n && memchr(p->text.a, '%', p->text.n)) {
    choirUrlDecode(&p->key, p->text.a, (i64)p->text.n);
  } else {
    choirBufAppend(&p->key, p->text.a, p->text.n);
  }
}

/* One <Contents>. */
static void s3ListObject(S3List *p, const char *z, const char *zEnd) {
  size_t nRoot = strlen(p->pStore->zRoot), n;
  ChoirObjectMeta meta;
  ChoirXml xml;
  memset(&meta, 0, sizeof(meta));
  p->key.n = 0;
  while (choirXmlNext(&z, zEnd, &xml)) {
    if (choirXmlIs(&xml, "Key")) {
      s3ListKey(p, &xml);
    } else if (choirXmlIs(&xml, "Size")) {
      i64 nSaid = strtoll(xml.zText, NULL, 10);
      meta.nByte = nSaid > 0 ? (u64)nSaid : 0;
    } else if (choirXmlIs(&xml, "LastModified")) {
      meta.iModified = choirXmlTime(&xml);
    } else if (choirXmlIs(&xml, "ETag")) {
      p->text.n = 0;
      choirXmlText(&p->text, &xml);
      n = p->text.n < sizeof(meta.zEtag) - 1 ? p->text.n
                                             : sizeof(meta.zEtag) - 1;
      if (n) {
        memcpy(meta.zEtag, p->text.a, n);
      }
    }
  }
  if (choirUtf8Valid(p->key.a ? p->key.a : "", (i64)p->key.n) < (i64)p->key.n ||
      choirUtf8Valid(meta.zEtag, (i64)strlen(meta.zEtag)) <
          (i64)strlen(meta.zEtag)) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the store lists a key or an etag that is not UTF-8");
  }
  if (p->nLeft > 0 && p->pErr->rc == SQLITE_OK && p->key.n > nRoot &&
      memcmp(p->key.a, p->pStore->zRoot, nRoot) == 0 &&
      (p->zFrom == NULL || strcmp(p->key.a + nRoot, p->zFrom) >= 0)) {
    p->xEach(p->pArg, p->pErr, p->key.a + nRoot, &meta);
    p->nLeft--;
  }
}

/* What stands outside of <Contents>, then each of them. */
static void s3ListPage(S3List *p, const char *zXml) {
  const char *z = zXml, *zEnd;
  char *zEncoding = choirXmlFirst(p->pErr, zXml, "EncodingType");
  char *zMore = choirXmlFirst(p->pErr, zXml, "IsTruncated");
  char *zToken = choirXmlFirst(p->pErr, zXml, "NextContinuationToken");
  p->bEncoded = zEncoding && strcmp(zEncoding, "url") == 0;
  p->token.n = 0;
  if (zMore && strcmp(zMore, "true") == 0 && zToken) {
    choirBufText(&p->token, zToken);
  }
  sqlite3_free(zEncoding);
  sqlite3_free(zMore);
  sqlite3_free(zToken);
  while (p->pErr->rc == SQLITE_OK && (z = strstr(z, "<Contents>")) != NULL) {
    zEnd = strstr(z, "</Contents>");
    if (zEnd == NULL) {
      break;
    }
    s3ListObject(p, z + 10, zEnd);
    z = zEnd;
  }
}

/* S3 begins a listing after a key. To begin with zFrom itself it begins after
** the last key that sorts before it and is likely to exist: its last character
** less one, then the highest of all; s3ListObject leaves out what is before. */
static void s3ListFrom(S3List *p, const ChoirObjectRange *pRange,
                       ChoirBuf *pQuery) {
  const char *zRoot = p->pStore->zRoot;
  i64 n = (i64)strlen(pRange->zFrom);
  char c = n ? pRange->zFrom[n - 1] : 0;
  choirBufText(pQuery, "&start-after=");
  choirUrlEncode(pQuery, zRoot, (i64)strlen(zRoot), 0);
  if (pRange->bAfter) {
    choirUrlEncode(pQuery, pRange->zFrom, n, 0);
  } else if (c > 0x20 && c < 0x7f) {
    c--;
    choirUrlEncode(pQuery, pRange->zFrom, n - 1, 0);
    choirUrlEncode(pQuery, &c, 1, 0);
    choirBufText(pQuery, "%F4%8F%BF%BF");
  } else {
    while (n > 0 && ((u8)pRange->zFrom[--n] & 0xc0) == 0x80) {
      /* to the last character's first byte */
    }
    choirUrlEncode(pQuery, pRange->zFrom, n, 0);
  }
}

/* One request of a listing. */
static void s3ListSome(S3List *p, const ChoirObjectRange *pRange) {
  const char *zRoot = p->pStore->zRoot;
  ChoirS3Call call;
  ChoirBuf query;
  choirBufInit(&query, p->pErr, CHOIR_BUF_SQL);
  choirBufText(&query, "list-type=2&encoding-type=url&prefix=");
  choirUrlEncode(&query, zRoot, (i64)strlen(zRoot), 0);
  choirUrlEncode(&query, pRange->zPrefix, (i64)strlen(pRange->zPrefix), 0);
  if (p->nLeft < S3_PAGE) {
    choirBufPrintf(&query, "&max-keys=%lld", p->nLeft);
  }
  if (p->token.n) {
    choirBufText(&query, "&continuation-token=");
    choirUrlEncode(&query, p->token.a, (i64)p->token.n, 0);
  } else if (pRange->zFrom) {
    s3ListFrom(p, pRange, &query);
  }
  choirS3Begin(&call, &p->pStore->base, p->pErr, "GET", NULL);
  call.zQuery = query.a;
  choirS3Send(&call);
  if (p->pErr->rc != SQLITE_OK || call.http.iStatus != 200) {
    choirS3Fail(&call);
  } else {
    s3ListPage(p, call.http.body.a ? call.http.body.a : "");
  }
  choirS3Free(&call);
  choirBufFree(&query);
}

static int s3List(ChoirObject *pObj, ChoirErr *pErr,
                  const ChoirObjectRange *pRange, ChoirObjectEach x,
                  void *pArg) {
  S3List list;
  if (s3NeedsKeys(pObj, pErr, "list")) {
    return CHOIR_OBJECT_FAILED;
  }
  memset(&list, 0, sizeof(list));
  list.pStore = (ChoirS3Store *)pObj;
  list.pErr = pErr;
  list.xEach = x;
  list.pArg = pArg;
  list.zFrom = pRange->zFrom;
  list.nLeft = pRange->nMax > 0 ? pRange->nMax : INT64_MAX;
  choirBufInit(&list.token, pErr, CHOIR_BUF_SQL);
  choirBufInit(&list.key, pErr, CHOIR_BUF_SQL);
  choirBufInit(&list.text, pErr, CHOIR_BUF_SQL);
  do {
    s3ListSome(&list, pRange);
  } while (pErr->rc == SQLITE_OK && list.token.n && list.nLeft > 0);
  choirBufFree(&list.token);
  choirBufFree(&list.key);
  choirBufFree(&list.text);
  return CHOIR_OBJECT_OK;
}

static int s3SameText(const char *zA, const char *zB) {
  return strcmp(zA ? zA : "", zB ? zB : "") == 0;
}

/* Do the credentials of both lead to one endpoint, as one user? */
static int s3OneEndpoint(ChoirErr *pErr, const ChoirObject *pA,
                         const ChoirObject *pB) {
  ChoirAws aws;
  char *zEndpoint = NULL, *zAccess = NULL;
  int bOne = 0;
  choirAws(pA->pConn, pErr, pA->zUrl, 0, &aws);
  if (pErr->rc == SQLITE_OK && aws.zAccess) {
    zEndpoint = choirMprintf(pErr, "%s", aws.zEndpoint ? aws.zEndpoint : "");
    zAccess = choirMprintf(pErr, "%s", aws.zAccess);
    choirAws(pB->pConn, pErr, pB->zUrl, 0, &aws);
    bOne = pErr->rc == SQLITE_OK && s3SameText(zEndpoint, aws.zEndpoint) &&
           s3SameText(zAccess, aws.zAccess);
  }
  sqlite3_free(zEndpoint);
  choirWipeFree(zAccess);
  return bOne;
}

CHOIR_PRIVATE void choirS3CopySource(const ChoirObject *pObj, const char *zKey,
                                     ChoirBuf *pOut) {
  const ChoirS3Store *p = (const ChoirS3Store *)pObj;
  choirBufPrintf(pOut, "/%s/", p->zBucket);
  choirUrlEncode(pOut, p->zRoot, (i64)strlen(p->zRoot), 1);
  choirUrlEncode(pOut, zKey, (i64)strlen(zKey), 1);
}

/* CopyObject of just the object that the HEAD was about. */
static int s3CopyOnce(ChoirObject *pFrom, ChoirErr *pErr, const char *zFrom,
                      ChoirObject *pTo, const char *zTo,
                      ChoirObjectMeta *pNew) {
  char *zEtag = NULL;
  ChoirS3Call call;
  ChoirBuf path;
  int bDone;
  choirBufInit(&path, pErr, CHOIR_BUF_SQL);
  choirS3CopySource(pFrom, zFrom, &path);
  choirS3Begin(&call, pTo, pErr, "PUT", zTo);
  choirS3Header(&call, "x-amz-copy-source", path.a ? path.a : "");
  choirS3Header(&call, "x-amz-copy-source-if-match", pNew->zEtag);
  choirS3Send(&call);
  if (pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
    zEtag = choirXmlFirst(pErr, call.http.body.a ? call.http.body.a : "",
                          "ETag"); /* not in the error that a 200 may hold */
  }
  choirS3Free(&call);
  choirBufFree(&path);
  if (zEtag) {
    sqlite3_snprintf(sizeof(pNew->zEtag), pNew->zEtag,
                     zEtag[0] == '"' ? "%s" : "\"%s\"", zEtag);
  }
  bDone = zEtag != NULL;
  sqlite3_free(zEtag);
  return bDone;
}

/* By the store itself, in one request or in parts; the object's metadata go with
** it. What the store refuses, and a reply that is lost, is left to the way by
** bytes, which also says what is wrong. */
static int s3Copy(ChoirObject *pFrom, ChoirErr *pErr, const char *zFrom,
                  ChoirObject *pTo, const char *zTo, ChoirObjectMeta *pNew) {
  u64 nOnce = (u64)choirConfigInt(pTo->pConn, "s3.copy_bytes", (i64)S3_PUT_MAX);
  ChoirErr err = {SQLITE_OK, NULL};
  int bDone = 0;
  if (!((ChoirS3Store *)pFrom)->bMinted && !((ChoirS3Store *)pTo)->bMinted &&
      s3OneEndpoint(&err, pFrom, pTo) &&
      s3Head(pFrom, &err, zFrom, pNew) == CHOIR_OBJECT_OK &&
      err.rc == SQLITE_OK) {
    bDone = pNew->nByte > nOnce || pNew->nByte > S3_PUT_MAX
                ? choirS3CopyParts(pFrom, &err, zFrom, pTo, zTo, pNew)
                : s3CopyOnce(pFrom, &err, zFrom, pTo, zTo, pNew);
    pNew->iModified = choirNow();
  }
  if (err.rc == SQLITE_INTERRUPT || err.rc == SQLITE_NOMEM) {
    *pErr = err;
  } else {
    choirErrClear(&err);
  }
  return bDone;
}

static void s3Close(ChoirObject *pObj) {
  ChoirS3Store *p = (ChoirS3Store *)pObj;
  sqlite3_free(p->base.zUrl);
  sqlite3_free(p->base.zKey);
  sqlite3_free(p->zBucket);
  sqlite3_free(p->zRoot);
  choirWipeFree(p->zFixed);
  sqlite3_free(p);
}

static i64 s3Sweep(ChoirObject *pObj, ChoirErr *pErr, const char *zPrefix,
                   i64 iBefore) {
  return ((ChoirS3Store *)pObj)->bMinted
             ? 0
             : choirS3Sweep(pObj, pErr, zPrefix, iBefore);
}

static const ChoirObjectMethods s3Methods = {
    s3Head, s3Get, s3Put, s3Delete, s3List, s3Sweep, s3Copy, s3Close,
};

/* Any http:// or https:// URL, most likely a presigned one: it is got and put
** as it stands. Messages show it without its query. */
CHOIR_PRIVATE ChoirObject *choirUrlOpen(ChoirConn *pConn, ChoirErr *pErr,
                                        const char *zUrl) {
  ChoirS3Store *p = choirMalloc(pErr, sizeof(*p));
  ChoirHttpUrl url;
  const char *zName;
  ChoirBuf key;
  if (p == NULL) {
    return NULL;
  }
  p->base.pMethods = &s3Methods;
  p->base.pConn = pConn;
  p->bMinted = 1;
  p->pKnown = s3Known(pConn, pErr, "");
  p->base.zUrl = choirHttpUrlShow(pErr, zUrl);
  p->zFixed = choirMprintf(pErr, "%s", zUrl);
  choirHttpUrl(pErr, zUrl, &url);
  choirBufInit(&key, pErr, CHOIR_BUF_SQL);
  choirBufText(&key, "");
  if (pErr->rc == SQLITE_OK) {
    zName = url.zPath + url.nPath;
    while (zName > url.zPath && zName[-1] != '/') {
      zName--;
    }
    choirUrlDecode(&key, zName, url.zPath + url.nPath - zName);
  }
  p->base.zKey = choirBufTake(&key);
  if (pErr->rc != SQLITE_OK) {
    choirBufFree(&key);
    s3Close(&p->base);
    return NULL;
  }
  return &p->base;
}

CHOIR_PRIVATE int choirS3Is(const ChoirObject *pObj) {
  return pObj->pMethods == &s3Methods;
}

CHOIR_PRIVATE ChoirObject *choirS3Open(ChoirConn *pConn, ChoirErr *pErr,
                                       const char *zUrl) {
  const char *zPath = zUrl + 5, *zSlash;
  ChoirS3Store *p = choirMalloc(pErr, sizeof(*p));
  size_t nBucket;
  if (p == NULL) {
    return NULL;
  }
  p->base.pMethods = &s3Methods;
  p->base.pConn = pConn;
  nBucket = strncmp(zUrl, "s3://", 5) == 0 ? strcspn(zPath, "/") : 0;
  if (nBucket < 3 || nBucket > 63 ||
      strspn(zPath, "abcdefghijklmnopqrstuvwxyz0123456789.-") < nBucket) {
    choirErrSet(pErr, SQLITE_ERROR,
                "'%.80s' names no bucket (3 to 63 of a-z, 0-9, '.' and"
                " '-'); write s3://bucket/folder/key",
                zUrl);
  } else if (strlen(zPath) - nBucket > CHOIR_S3_KEY_MAX + 1) {
    choirErrSet(pErr, SQLITE_ERROR, "the key has %lld bytes, at most %d",
                (i64)(strlen(zPath) - nBucket - 1), CHOIR_S3_KEY_MAX);
  } else {
    p->base.zUrl = choirMprintf(pErr, "%s", zUrl);
    p->zBucket = choirMprintf(pErr, "%.*s", (int)nBucket, zPath);
    p->pKnown = p->zBucket ? s3Known(pConn, pErr, p->zBucket) : NULL;
    zPath += nBucket + (zPath[nBucket] == '/');
    zSlash = strrchr(zPath, '/');
    zSlash = zSlash ? zSlash + 1 : zPath;
    p->zRoot = choirMprintf(pErr, "%.*s", (int)(zSlash - zPath), zPath);
    p->base.zKey = choirMprintf(pErr, "%s", zSlash);
    p->bMinted = choirSecretFor(pConn, pErr, "presign", zUrl) != NULL;
  }
  if (pErr->rc != SQLITE_OK) {
    s3Close(&p->base);
    return NULL;
  }
  return &p->base;
}

CHOIR_PRIVATE char *choirS3Presign(ChoirConn *pConn, ChoirErr *pErr,
                                   const char *zMethod, const char *zUrl,
                                   i64 nSeconds) {
  ChoirObject *pObj = pErr->rc ? NULL : choirS3Open(pConn, pErr, zUrl);
  char *zMade, *z = NULL;
  ChoirSigv4 sig;
  ChoirS3Call call;
  if (pObj == NULL) {
    return NULL;
  }
  if (s3NeedsKeys(pObj, pErr, "sign")) {
    choirObjectClose(pObj);
    return NULL;
  }
  choirS3Begin(&call, pObj, pErr, zMethod, pObj->zKey);
  choirS3Aws(&call, 0);
  if (pErr->rc == SQLITE_OK && call.aws.zAccess == NULL) {
    choirErrSet(pErr, SQLITE_AUTH, "no credentials to sign with");
  }
  zMade = choirS3Url(&call);
  memset(&sig, 0, sizeof(sig));
  if (zMade && pErr->rc == SQLITE_OK) {
    sig.zMethod = zMethod;
    sig.zUrl = zMade;
    sig.zRegion = call.aws.zRegion;
    sig.zService = "s3";
    sig.zPayload = "UNSIGNED-PAYLOAD";
    sig.zAccess = call.aws.zAccess;
    sig.zSecret = call.aws.zSecret;
    sig.zToken = call.aws.zToken;
    choirSigv4Time(choirNow() / 1000 + call.pStore->pKnown->iSkew, sig.zTime);
    sig.bQuery = 1;
    sig.nExpires = nSeconds;
    choirSigv4(pErr, &sig);
    z = choirBufTake(&sig.url);
    choirSigv4Free(&sig);
  }
  sqlite3_free(zMade);
  choirObjectClose(pObj);
  return z;
}
#endif /* CHOIR_OMIT_NET */
