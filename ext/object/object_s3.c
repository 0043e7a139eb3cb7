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
** What goes wrong once is put right once, and remembered while the store is
** open: another region (taken from the reply), a clock that differs (from the
** Date header), expired credentials (fetched again), a server that compares
** If-Match with the ETag unquoted. What may pass is tried again by http.
**
** A conditional put whose reply was lost may find its own object in its way:
** every put carries a random x-amz-meta-choir-write, by which a put that is
** refused after a lost reply recognises itself.
**
** One put is one request, so at most 5 GiB.
*/
#include "object.h"
#ifndef CHOIR_OMIT_NET
#include "../http/http.h"
#include <stdio.h>
#include <stdlib.h>

enum { S3_HEADERS = 8, S3_KEY_MAX = 1024, S3_LIST_MAX = 16 << 20 };
#define S3_PUT_MAX ((u64)5 << 30)

typedef struct S3Store {
  ChoirObject base;
  char *zBucket;
  char *zRoot;   /* "" or "folder/" */
  char *zRegion; /* learnt from the store, or NULL */
  i64 iSkew;     /* seconds to add to the clock */
  u8 bUnquoted;  /* wants If-Match without quotes */
} S3Store;

typedef struct S3Call {
  /* The request. */
  S3Store *pStore;
  const char *zMethod;
  const char *zKey;   /* NULL: the bucket */
  const char *zQuery; /* encoded, or NULL */
  ChoirSigv4Header aHeader[S3_HEADERS];
  int nHeader;
  const ChoirObjectSource *pSource;
  ChoirObjectWrite xWrite;
  void *pWriteArg;
  /* The course. */
  ChoirErr *pErr;
  ChoirAws aws;
  ChoirHttp http; /* the reply, until s3Free */
  u8 bHttp;       /* http is in use */
  char zHash[65];
  i64 iGiven;     /* how much xWrite got */
  char zEtag[96]; /* of the reply that it got */
} S3Call;

/* --------------------------------------------------------------- requests */

/* A bucket whose name can be the first label of a host. */
static int s3HostName(const char *z) {
  return strspn(z, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(z);
}

static char *s3Url(S3Call *p) {
  const S3Store *pStore = p->pStore;
  const char *zEnd = p->aws.zEndpoint;
  int bPath = p->aws.zStyle ? strcmp(p->aws.zStyle, "path") == 0
                            : zEnd != NULL || !s3HostName(pStore->zBucket);
  char *zMade = zEnd ? NULL
                     : choirMprintf(p->pErr, "https://s3.%s.amazonaws.com",
                                    p->aws.zRegion);
  const char *zHost;
  size_t n;
  ChoirBuf b;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  zEnd = zEnd ? zEnd : zMade ? zMade : "";
  n = strlen(zEnd);
  n -= n > 0 && zEnd[n - 1] == '/';
  zHost = strstr(zEnd, "://");
  if (bPath || zHost == NULL) {
    choirBufAppend(&b, zEnd, n);
    choirBufText(&b, "/");
    choirUrlEncode(&b, pStore->zBucket, (i64)strlen(pStore->zBucket), 0);
  } else {
    zHost += 3;
    choirBufAppend(&b, zEnd, (u64)(zHost - zEnd));
    choirBufPrintf(&b, "%s.%.*s", pStore->zBucket,
                   (int)(n - (size_t)(zHost - zEnd)), zHost);
  }
  choirBufText(&b, "/");
  if (p->zKey) {
    choirUrlEncode(&b, pStore->zRoot, (i64)strlen(pStore->zRoot), 1);
    choirUrlEncode(&b, p->zKey, (i64)strlen(p->zKey), 1);
  }
  if (p->zQuery) {
    choirBufText(&b, "?");
    choirBufText(&b, p->zQuery);
  }
  sqlite3_free(zMade);
  return choirBufTake(&b);
}

static void s3Sign(ChoirHttp *pHttp, ChoirErr *pErr) {
  S3Call *p = pHttp->pArg;
  if (p->aws.zAccess) {
    choirSigv4Http(pErr, pHttp, &p->aws, "s3", p->zHash[0] ? p->zHash : NULL,
                   p->pStore->iSkew);
  }
}

static i64 s3Read(void *pArg, i64 iOffset, void *aTo, i64 n) {
  S3Call *p = pArg;
  p->pSource->xRead(p->pSource->pArg, p->pErr, (u64)iOffset, aTo, (u64)n);
  return p->pErr->rc == SQLITE_OK ? n : -1;
}

/* A reply that begins again gives only what was not given yet, provided that
** it is still the same object. */
static int s3Write(void *pArg, i64 iOffset, const void *a, i64 n) {
  S3Call *p = pArg;
  i64 nSkip = p->iGiven > iOffset ? p->iGiven - iOffset : 0;
  if (iOffset == 0) {
    char *z = choirHttpReply(&p->http, "ETag");
    if (p->iGiven > 0 && strcmp(z ? z : "", p->zEtag) != 0) {
      choirErrSet(p->pErr, SQLITE_BUSY,
                  "the object was replaced while it was read; read it again");
    }
    sqlite3_snprintf(sizeof(p->zEtag), p->zEtag, "%s", z ? z : "");
    sqlite3_free(z);
  }
  if (nSkip < n && p->pErr->rc == SQLITE_OK) {
    p->xWrite(p->pWriteArg, p->pErr, (const char *)a + nSkip, (u64)(n - nSkip));
    p->iGiven += n - nSkip;
  }
  return p->pErr->rc != SQLITE_OK;
}

static void s3Header(S3Call *p, const char *zName, const char *zValue) {
  if (p->nHeader < S3_HEADERS) {
    p->aHeader[p->nHeader].zName = zName;
    p->aHeader[p->nHeader++].zValue = zValue;
  }
}

static void s3Free(S3Call *p) {
  if (p->bHttp) {
    choirHttpFree(&p->http);
    p->bHttp = 0;
  }
}

/* The hash of what is put. Over TLS a large body goes unsigned: TLS protects
** it, and it is read once. */
static void s3Hash(S3Call *p, const char *zUrl) {
  const ChoirObjectSource *pSource = p->pSource;
  ChoirSha256 sha;
  u8 aHash[32];
  u64 i;
  char *a;
  if (pSource->nByte > 1 << 20 && sqlite3_strnicmp(zUrl, "https:", 6) == 0) {
    memcpy(p->zHash, "UNSIGNED-PAYLOAD", 17);
    return;
  }
  a = choirMalloc(p->pErr, 1 << 16);
  choirSha256Init(&sha);
  for (i = 0; a && i < pSource->nByte && p->pErr->rc == SQLITE_OK;) {
    u64 n = pSource->nByte - i > 1 << 16 ? 1 << 16 : pSource->nByte - i;
    pSource->xRead(pSource->pArg, p->pErr, i, a, n);
    choirSha256Update(&sha, a, n);
    i += n;
  }
  choirSha256Final(&sha, aHash);
  choirHex(aHash, 32, p->zHash);
  sqlite3_free(a);
}

static void s3Once(S3Call *p) {
  char *zUrl = s3Url(p);
  int i;
  s3Free(p);
  if (zUrl == NULL || p->pErr->rc != SQLITE_OK) {
    sqlite3_free(zUrl);
    return;
  }
  choirHttpInit(&p->http, p->pStore->base.pConn, p->zMethod, zUrl);
  p->bHttp = 1;
  p->http.pArg = p;
  p->http.xAttempt = s3Sign;
  p->http.mFlags = CHOIR_HTTP_WHOLE;
  if (p->pSource) {
    s3Hash(p, zUrl);
    p->http.nBody = (i64)p->pSource->nByte;
    p->http.xRead = p->pSource->nByte ? s3Read : NULL;
    if (p->pSource->nByte > 1 << 20) {
      choirHttpHeader(&p->http, "Expect", "100-continue");
    }
  }
  if (p->xWrite) {
    p->http.xWrite = s3Write;
    p->http.nMax = (u64)1 << 62;
  }
  for (i = 0; i < p->nHeader; i++) {
    choirHttpHeader(&p->http, p->aHeader[i].zName, p->aHeader[i].zValue);
  }
  sqlite3_free(zUrl);
  choirHttpRun(&p->http, p->pErr);
}

/* Appends what the entity at z stands for; its length, 0: it is none. */
static size_t s3Entity(ChoirBuf *pOut, const char *z) {
  static const char *const az[] = {"&amp;", "&",      "&lt;", "<",      "&gt;",
                                   ">",     "&quot;", "\"",   "&apos;", "'"};
  char *zEnd;
  long c;
  int i;
  for (i = 0; i < 10; i += 2) {
    if (strncmp(z, az[i], strlen(az[i])) == 0) {
      choirBufText(pOut, az[i + 1]);
      return strlen(az[i]);
    }
  }
  if (z[1] != '#') {
    return 0;
  }
  c = z[2] == 'x' ? strtol(z + 3, &zEnd, 16) : strtol(z + 2, &zEnd, 10);
  if (*zEnd != ';' || c <= 0 || c > 0x10ffff) {
    return 0;
  }
  if (c < 0x80) {
    choirBufPrintf(pOut, "%c", (int)c);
  } else {
    u8 a[4] = {(u8)(0xf0 | c >> 18), (u8)(0x80 | (c >> 12 & 0x3f)),
               (u8)(0x80 | (c >> 6 & 0x3f)), (u8)(0x80 | (c & 0x3f))};
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    a[4 - n] = n == 2   ? (u8)(0xc0 | c >> 6)
               : n == 3 ? (u8)(0xe0 | c >> 12)
                        : a[0];
    choirBufAppend(pOut, a + 4 - n, (u64)n);
  }
  return (size_t)(zEnd + 1 - z);
}

/* The text of the first element zTag from *pz on, entities undone; moves *pz
** past it. NULL when there is none before zEnd. Caller frees. */
static char *s3Xml(ChoirErr *pErr, const char **pz, const char *zEnd,
                   const char *zTag) {
  size_t n = strlen(zTag);
  const char *z = *pz;
  ChoirBuf b;
  while ((z = strchr(z, '<')) != NULL && (zEnd == NULL || z < zEnd)) {
    z++;
    if (strncmp(z, zTag, n) != 0 || (z[n] != '>' && z[n] != ' ')) {
      continue;
    }
    z += strcspn(z, ">");
    z += *z == '>';
    choirBufInit(&b, pErr, CHOIR_BUF_SQL);
    choirBufText(&b, "");
    while (*z && *z != '<') {
      size_t nRun = *z == '&' ? s3Entity(&b, z) : 0;
      if (nRun == 0) {
        nRun = 1 + strcspn(z + 1, "&<");
        choirBufAppend(&b, z, nRun);
      }
      z += nRun;
    }
    *pz = z;
    return choirBufTake(&b);
  }
  return NULL;
}

static char *s3XmlFirst(ChoirErr *pErr, const ChoirHttp *pHttp,
                        const char *zTag) {
  const char *z = pHttp->body.a;
  return z ? s3Xml(pErr, &z, NULL, zTag) : NULL;
}

static int s3Is(const char *z, const char *zCode) {
  return z && strcmp(z, zCode) == 0;
}

/* Sets p's clock right by the reply's Date; 0 when that is no help. */
static int s3Skew(S3Call *p) {
  char *zDate = choirHttpReply(&p->http, "Date");
  i64 iSkew = 0, iThen = zDate ? choirHttpDate(zDate) : 0;
  sqlite3_free(zDate);
  if (iThen > 0) {
    iSkew = iThen - choirNow() / 1000;
  }
  if (iThen == 0 || iSkew == p->pStore->iSkew) {
    return 0;
  }
  p->pStore->iSkew = iSkew;
  return 1;
}

/* What the reply says has to change before the request is sent again; each
** cause once (bits of *pmDone). */
static int s3Correct(S3Call *p, int *pmDone) {
  char *zCode = s3XmlFirst(p->pErr, &p->http, "Code");
  char *zRegion = choirHttpReply(&p->http, "x-amz-bucket-region");
  int iStatus = p->http.iStatus, bAgain = 0;
  if (zRegion == NULL && s3Is(zCode, "AuthorizationHeaderMalformed")) {
    zRegion = s3XmlFirst(p->pErr, &p->http, "Region");
  }
  if (iStatus >= 300 && zRegion && strcmp(zRegion, p->aws.zRegion) != 0 &&
      !(*pmDone & 1)) {
    *pmDone |= 1;
    sqlite3_free(p->pStore->zRegion);
    p->pStore->zRegion = zRegion;
    zRegion = NULL;
    bAgain = 1;
  } else if (iStatus == 403 && !(*pmDone & 2) &&
             (s3Is(zCode, "RequestTimeTooSkewed") ||
              (zCode == NULL && p->http.body.n == 0))) {
    /* the reply to HEAD has no body to say why */
    *pmDone |= 2;
    bAgain = s3Skew(p) &&
             (zCode || p->pStore->iSkew > 300 || p->pStore->iSkew < -300);
  } else if ((s3Is(zCode, "ExpiredToken") ||
              s3Is(zCode, "TokenRefreshRequired")) &&
             !(*pmDone & 4)) {
    *pmDone |= 4 | 8; /* 8: fetch them again */
    bAgain = 1;
  } else if (iStatus == 409 && !(*pmDone & 16) &&
             (s3Is(zCode, "ConditionalRequestConflict") ||
              s3Is(zCode, "OperationAborted"))) {
    *pmDone |= 16;
    bAgain = 1;
  }
  sqlite3_free(zCode);
  sqlite3_free(zRegion);
  return bAgain && p->pErr->rc == SQLITE_OK;
}

/* The request and its corrections. */
static void s3Send(S3Call *p) {
  S3Store *pStore = p->pStore;
  int mDone = 0;
  do {
    choirAws(pStore->base.pConn, p->pErr, pStore->base.zUrl, mDone & 8,
             &p->aws);
    mDone &= ~8;
    if (pStore->zRegion) {
      p->aws.zRegion = pStore->zRegion;
    }
    s3Once(p);
  } while (p->pErr->rc == SQLITE_OK && s3Correct(p, &mDone));
}

/* The reply as an error: what the store says, and where. */
static void s3Fail(S3Call *p) {
  char *zCode, *zText, *zId, *zShow;
  int iStatus = p->http.iStatus;
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  zCode = s3XmlFirst(p->pErr, &p->http, "Code");
  zText = s3XmlFirst(p->pErr, &p->http, "Message");
  zId = choirHttpReply(&p->http, "x-amz-request-id");
  zShow = choirHttpUrlShow(p->pErr, p->http.zUrl);
  choirErrSet(p->pErr,
              iStatus == 401 || iStatus == 403 ? SQLITE_AUTH : SQLITE_ERROR,
              "s3://%s/%s%s: %d %s%s%.200s (%s %s, region %s%s%s)",
              p->pStore->zBucket, p->pStore->zRoot, p->zKey ? p->zKey : "",
              iStatus, zCode ? zCode : "without a code", zText ? ": " : "",
              zText ? zText : "", p->zMethod, zShow, p->aws.zRegion,
              zId ? ", request " : "", zId ? zId : "");
  sqlite3_free(zCode);
  sqlite3_free(zText);
  sqlite3_free(zId);
  sqlite3_free(zShow);
}

static void s3Begin(S3Call *p, ChoirObject *pObj, ChoirErr *pErr,
                    const char *zMethod, const char *zKey) {
  memset(p, 0, sizeof(*p));
  p->pStore = (S3Store *)pObj;
  p->pErr = pErr;
  p->zMethod = zMethod;
  p->zKey = zKey;
}

/* Size, ETag and time from the headers of a reply. */
static void s3Meta(S3Call *p, ChoirObjectMeta *pMeta) {
  char *zEtag = choirHttpReply(&p->http, "ETag");
  char *zTime = choirHttpReply(&p->http, "Last-Modified");
  char *zRange = choirHttpReply(&p->http, "Content-Range");
  char *zLength = choirHttpReply(&p->http, "Content-Length");
  const char *zSlash = zRange ? strchr(zRange, '/') : NULL;
  long long n = 0;
  if (sscanf(zSlash    ? zSlash + 1
             : zLength ? zLength
                       : "",
             "%lld", &n) == 1 &&
      n > 0) {
    pMeta->nByte = (u64)n;
  }
  pMeta->iModified = zTime ? choirHttpDate(zTime) * 1000 : 0;
  sqlite3_snprintf(sizeof(pMeta->zEtag), pMeta->zEtag, "%s",
                   zEtag ? zEtag : "");
  sqlite3_free(zEtag);
  sqlite3_free(zTime);
  sqlite3_free(zRange);
  sqlite3_free(zLength);
}

/* ---------------------------------------------------------------- methods */

static int s3Head(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                  ChoirObjectMeta *pMeta) {
  S3Call call;
  int e = CHOIR_OBJECT_OK;
  s3Begin(&call, pObj, pErr, "HEAD", zKey);
  s3Send(&call);
  if (pErr->rc == SQLITE_OK && call.http.iStatus == 404) {
    e = CHOIR_OBJECT_ABSENT;
  } else if (pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
    s3Meta(&call, pMeta);
  } else {
    s3Fail(&call);
  }
  s3Free(&call);
  return e;
}

static int s3Get(ChoirObject *pObj, ChoirErr *pErr, const char *zKey, i64 iOff,
                 i64 nByte, ChoirObjectMeta *pMeta, ChoirObjectWrite x,
                 void *pArg) {
  S3Call call;
  char zRange[64];
  int e = CHOIR_OBJECT_OK;
  if (nByte == 0) {
    return s3Head(pObj, pErr, zKey, pMeta);
  }
  s3Begin(&call, pObj, pErr, "GET", zKey);
  call.xWrite = x;
  call.pWriteArg = pArg;
  if (iOff > 0 || nByte > 0) {
    if (nByte > 0) {
      sqlite3_snprintf(sizeof(zRange), zRange, "bytes=%lld-%lld", iOff,
                       nByte > ((i64)1 << 62) ? ((i64)1 << 62) + iOff
                                              : iOff + nByte - 1);
    } else {
      sqlite3_snprintf(sizeof(zRange), zRange, "bytes=%lld-", iOff);
    }
    s3Header(&call, "Range", zRange);
  }
  s3Send(&call);
  if (pErr->rc == SQLITE_OK && call.http.iStatus == 404) {
    e = CHOIR_OBJECT_ABSENT;
  } else if (pErr->rc == SQLITE_OK && call.http.iStatus == 416) {
    e = s3Head(pObj, pErr, zKey, pMeta); /* the range begins past its end */
  } else if (pErr->rc == SQLITE_OK && call.http.iStatus == 200 &&
             call.nHeader && call.iGiven > 0) {
    choirErrSet(pErr, SQLITE_ERROR, "s3://%s/%s%s: the store ignores ranges",
                call.pStore->zBucket, call.pStore->zRoot, zKey);
  } else if (pErr->rc == SQLITE_OK &&
             (call.http.iStatus == 200 || call.http.iStatus == 206)) {
    s3Meta(&call, pMeta);
  } else {
    s3Fail(&call);
  }
  s3Free(&call);
  return e;
}

/* Was it this very write that made the object? After a lost reply. */
static int s3Mine(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                  const char *zWrite, ChoirObjectMeta *pNew) {
  S3Call call;
  int bMine = 0;
  s3Begin(&call, pObj, pErr, "HEAD", zKey);
  s3Send(&call);
  if (pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
    char *z = choirHttpReply(&call.http, "x-amz-meta-choir-write");
    bMine = z && strcmp(z, zWrite) == 0;
    if (bMine) {
      s3Meta(&call, pNew);
    }
    sqlite3_free(z);
  }
  s3Free(&call);
  return bMine;
}

/* The ETag as this store compares it. */
static void s3EtagFor(const S3Store *p, const char *zEtag, char zOut[100]) {
  size_t n = strlen(zEtag);
  if (p->bUnquoted && n > 2 && zEtag[0] == '"' && zEtag[n - 1] == '"') {
    sqlite3_snprintf(100, zOut, "%.*s", (int)n - 2, zEtag + 1);
  } else {
    sqlite3_snprintf(100, zOut, "%s", zEtag);
  }
}

static int s3PutOnce(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                     const ChoirObjectSource *pSource, int eIf,
                     const char *zEtag, ChoirObjectMeta *pNew) {
  S3Call call;
  char zWrite[37], zMatch[100];
  int e = CHOIR_OBJECT_OK, bRefused;
  s3Begin(&call, pObj, pErr, "PUT", zKey);
  choirUuid4(zWrite);
  call.pSource = pSource;
  s3Header(&call, "x-amz-meta-choir-write", zWrite);
  if (eIf == CHOIR_IF_ABSENT) {
    s3Header(&call, "If-None-Match", "*");
  } else if (eIf == CHOIR_IF_MATCH) {
    s3EtagFor(call.pStore, zEtag, zMatch);
    s3Header(&call, "If-Match", zMatch);
  }
  s3Send(&call);
  bRefused =
      call.bHttp && (call.http.iStatus == 412 || call.http.iStatus == 409 ||
                     (call.http.iStatus == 404 && eIf == CHOIR_IF_MATCH));
  if (pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
    s3Meta(&call, pNew);
    pNew->nByte = pSource->nByte;
    pNew->iModified = choirNow();
  } else if (pErr->rc == SQLITE_OK && bRefused) {
    e = call.http.bMaybeSent && s3Mine(pObj, pErr, zKey, zWrite, pNew)
            ? CHOIR_OBJECT_OK
            : CHOIR_OBJECT_CHANGED;
  } else if (call.bHttp && call.http.bMaybeSent && pErr->rc != SQLITE_NOMEM &&
             pErr->rc != SQLITE_INTERRUPT) {
    /* no reply at all in the end: look whether it is there */
    ChoirErr first = *pErr;
    pErr->rc = SQLITE_OK;
    pErr->zMsg = NULL;
    if (s3Mine(pObj, pErr, zKey, zWrite, pNew)) {
      choirErrClear(&first);
    } else {
      choirErrClear(pErr);
      *pErr = first;
      s3Fail(&call);
    }
  } else {
    s3Fail(&call);
  }
  s3Free(&call);
  return e;
}

static int s3Put(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                 const ChoirObjectSource *pSource, int eIf, const char *zEtag,
                 ChoirObjectMeta *pNew) {
  S3Store *p = (S3Store *)pObj;
  ChoirObjectMeta now;
  int e;
  if (pSource->nByte > S3_PUT_MAX) {
    choirErrSet(pErr, SQLITE_TOOBIG, "%llu bytes, one put takes at most %llu",
                pSource->nByte, S3_PUT_MAX);
    return CHOIR_OBJECT_FAILED;
  }
  e = s3PutOnce(pObj, pErr, zKey, pSource, eIf, zEtag, pNew);
  if (e == CHOIR_OBJECT_CHANGED && eIf == CHOIR_IF_MATCH && !p->bUnquoted &&
      zEtag[0] == '"') {
    /* Ceph compares the quotes too. */
    memset(&now, 0, sizeof(now));
    if (s3Head(pObj, pErr, zKey, &now) == CHOIR_OBJECT_OK &&
        pErr->rc == SQLITE_OK && strcmp(now.zEtag, zEtag) == 0) {
      p->bUnquoted = 1;
      e = s3PutOnce(pObj, pErr, zKey, pSource, eIf, zEtag, pNew);
      p->bUnquoted = e == CHOIR_OBJECT_OK;
    }
  }
  return e;
}

static int s3Delete(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                    const char *zEtag) {
  S3Call call;
  ChoirObjectMeta now;
  char zMatch[100];
  int e;
  memset(&now, 0, sizeof(now));
  e = s3Head(pObj, pErr, zKey, &now); /* S3 does not say that it was absent */
  if (e == CHOIR_OBJECT_OK && zEtag && strcmp(zEtag, now.zEtag) != 0) {
    e = CHOIR_OBJECT_CHANGED;
  }
  if (e != CHOIR_OBJECT_OK || pErr->rc != SQLITE_OK) {
    return e;
  }
  s3Begin(&call, pObj, pErr, "DELETE", zKey);
  if (zEtag) {
    s3EtagFor(call.pStore, zEtag, zMatch);
    s3Header(&call, "If-Match", zMatch);
  }
  s3Send(&call);
  if (pErr->rc == SQLITE_OK && call.http.iStatus == 412) {
    e = CHOIR_OBJECT_CHANGED;
  } else if (pErr->rc != SQLITE_OK || call.http.iStatus >= 300) {
    s3Fail(&call);
  }
  s3Free(&call);
  return e;
}

/* A key of a listing; encoded when the store did what it was asked for. */
static char *s3ListKey(ChoirErr *pErr, char *z, int bEncoded) {
  ChoirBuf b;
  char *zAt;
  if (!bEncoded) {
    return z;
  }
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "");
  for (zAt = z; zAt && *zAt; zAt++) {
    *zAt = *zAt == '+' ? ' ' : *zAt;
  }
  choirUrlDecode(&b, z ? z : "", z ? (i64)strlen(z) : 0);
  sqlite3_free(z);
  return choirBufTake(&b);
}

/* The <Contents> of one page. */
static void s3ListPage(S3Call *p, ChoirObjectEach x, void *pArg) {
  const char *z = p->http.body.a ? p->http.body.a : "";
  size_t nRoot = strlen(p->pStore->zRoot);
  char *zEncoding = s3XmlFirst(p->pErr, &p->http, "EncodingType");
  int bEncoded = s3Is(zEncoding, "url");
  sqlite3_free(zEncoding);
  while (p->pErr->rc == SQLITE_OK && (z = strstr(z, "<Contents")) != NULL) {
    const char *zEnd = strstr(z, "</Contents>"), *zAt;
    ChoirObjectMeta meta;
    char *az[4];
    static const char *const azTag[4] = {"Key", "Size", "ETag", "LastModified"};
    int i, y, mon, d, h, m, s;
    long long n = 0;
    for (i = 0; i < 4; i++) {
      zAt = z;
      az[i] = s3Xml(p->pErr, &zAt, zEnd, azTag[i]);
    }
    az[0] = s3ListKey(p->pErr, az[0], bEncoded);
    memset(&meta, 0, sizeof(meta));
    if (az[1] && sscanf(az[1], "%lld", &n) == 1 && n > 0) {
      meta.nByte = (u64)n;
    }
    sqlite3_snprintf(sizeof(meta.zEtag), meta.zEtag, "%s", az[2] ? az[2] : "");
    if (az[3] && sscanf(az[3], "%4d-%2d-%2dT%2d:%2d:%2d", &y, &mon, &d, &h, &m,
                        &s) == 6) {
      meta.iModified = choirHttpSeconds(y, mon, d, h, m, s) * 1000;
    }
    if (az[0] && p->pErr->rc == SQLITE_OK &&
        strncmp(az[0], p->pStore->zRoot, nRoot) == 0 && az[0][nRoot]) {
      x(pArg, p->pErr, az[0] + nRoot, &meta);
    }
    for (i = 0; i < 4; i++) {
      sqlite3_free(az[i]);
    }
    z = zEnd ? zEnd : z + 9;
  }
}

static int s3List(ChoirObject *pObj, ChoirErr *pErr, const char *zPrefix,
                  ChoirObjectEach x, void *pArg) {
  S3Store *pStore = (S3Store *)pObj;
  char *zToken = NULL;
  int bMore = 1;
  while (bMore && pErr->rc == SQLITE_OK) {
    S3Call call;
    ChoirBuf query;
    char *zMore;
    choirBufInit(&query, pErr, CHOIR_BUF_SQL);
    choirBufText(&query, "list-type=2&encoding-type=url&prefix=");
    choirUrlEncode(&query, pStore->zRoot, (i64)strlen(pStore->zRoot), 0);
    choirUrlEncode(&query, zPrefix, (i64)strlen(zPrefix), 0);
    if (zToken) {
      choirBufText(&query, "&continuation-token=");
      choirUrlEncode(&query, zToken, (i64)strlen(zToken), 0);
    }
    s3Begin(&call, pObj, pErr, "GET", NULL);
    call.zQuery = query.a;
    s3Send(&call);
    if (pErr->rc != SQLITE_OK || call.http.iStatus != 200) {
      s3Fail(&call);
    } else {
      s3ListPage(&call, x, pArg);
      zMore = s3XmlFirst(pErr, &call.http, "IsTruncated");
      bMore = s3Is(zMore, "true");
      sqlite3_free(zMore);
      sqlite3_free(zToken);
      zToken = s3XmlFirst(pErr, &call.http, "NextContinuationToken");
      bMore = bMore && zToken != NULL;
    }
    s3Free(&call);
    choirBufFree(&query);
  }
  sqlite3_free(zToken);
  return CHOIR_OBJECT_OK;
}

static void s3Close(ChoirObject *pObj) {
  S3Store *p = (S3Store *)pObj;
  sqlite3_free(p->base.zUrl);
  sqlite3_free(p->base.zKey);
  sqlite3_free(p->zBucket);
  sqlite3_free(p->zRoot);
  sqlite3_free(p->zRegion);
  sqlite3_free(p);
}

static const ChoirObjectMethods s3Methods = {s3Head,   s3Get,  s3Put,
                                             s3Delete, s3List, s3Close};

CHOIR_PRIVATE ChoirObject *choirS3Open(ChoirConn *pConn, ChoirErr *pErr,
                                       const char *zUrl) {
  const char *zPath = zUrl + 5, *zSlash;
  S3Store *p = choirMalloc(pErr, sizeof(*p));
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
                "'%.80s' names no bucket; write s3://bucket/folder/key", zUrl);
  } else if (strlen(zPath) - nBucket > S3_KEY_MAX + 1) {
    choirErrSet(pErr, SQLITE_ERROR, "the key has %lld bytes, at most %d",
                (i64)(strlen(zPath) - nBucket - 1), S3_KEY_MAX);
  } else {
    p->base.zUrl = choirMprintf(pErr, "%s", zUrl);
    p->zBucket = choirMprintf(pErr, "%.*s", (int)nBucket, zPath);
    zPath += nBucket + (zPath[nBucket] == '/');
    zSlash = strrchr(zPath, '/');
    zSlash = zSlash ? zSlash + 1 : zPath;
    p->zRoot = choirMprintf(pErr, "%.*s", (int)(zSlash - zPath), zPath);
    p->base.zKey = choirMprintf(pErr, "%s", zSlash);
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
  S3Call call;
  if (pObj == NULL) {
    return NULL;
  }
  s3Begin(&call, pObj, pErr, zMethod, pObj->zKey);
  choirAws(pConn, pErr, zUrl, 0, &call.aws);
  if (pErr->rc == SQLITE_OK && call.aws.zAccess == NULL) {
    choirErrSet(pErr, SQLITE_AUTH, "no credentials to sign with");
  }
  zMade = s3Url(&call);
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
