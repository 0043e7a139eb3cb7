/* SPDX-License-Identifier: MIT */
/*
** Requests of the s3:// backend: where they go, how they are signed, what is
** put right and sent again, and what is said when they fail.
*/
#include "object_s3.h"
#ifndef CHOIR_OMIT_NET
#include <stdlib.h>

enum { S3_HASH_BYTES = 1 << 16, S3_CLEANUP_MS = 5000 };
/* Bits of mDone. */
enum {
  S3_REGION = 1,
  S3_SKEW = 2,
  S3_EXPIRED = 4,
  S3_REFRESH = 8, /* the credentials are to be fetched again */
  S3_CONFLICT = 16
};

/* A bucket whose name can be the first label of a host. */
static int s3HostName(const char *z) {
  return strspn(z, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(z);
}

CHOIR_PRIVATE char *choirS3Url(ChoirS3Call *p) {
  const ChoirS3Store *pStore = p->pStore;
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

CHOIR_PRIVATE void choirS3Aws(ChoirS3Call *p, int bRefresh) {
  ChoirS3Store *pStore = p->pStore;
  if (pStore->bMinted) {
    return;
  }
  choirAws(pStore->base.pConn, p->pErr, pStore->base.zUrl, bRefresh, &p->aws);
  if (pStore->pKnown->zRegion) {
    p->aws.zRegion = pStore->pKnown->zRegion;
  }
}

/* Before every attempt. A get that broke off goes on where it did. */
static void s3Attempt(ChoirHttp *pHttp, ChoirErr *pErr) {
  ChoirS3Call *p = pHttp->pArg;
  i64 iFrom = p->iFrom + p->iGiven;
  p->iBase = 0;
  if (p->xWrite && (iFrom > 0 || p->nWant >= 0)) {
    char zRange[64];
    i64 iLast =
        p->nWant > INT64_MAX - p->iFrom ? INT64_MAX : p->iFrom + p->nWant - 1;
    sqlite3_snprintf(sizeof(zRange), zRange,
                     p->nWant < 0 ? "bytes=%lld-" : "bytes=%lld-%lld", iFrom,
                     iLast);
    choirHttpHeader(pHttp, "Range", zRange);
  }
  choirS3Aws(p, 0);
  if (p->aws.zAccess && p->pErr->rc == SQLITE_OK) {
    p->nFetched = p->pStore->pKnown->nFetched;
    choirSigv4Http(pErr, pHttp, &p->aws, "s3", p->zHash[0] ? p->zHash : NULL,
                   p->pStore->pKnown->iSkew);
  }
}

static int s3Read(void *pArg, i64 iOffset, void *aTo, i64 n) {
  ChoirS3Call *p = pArg;
  p->pSource->xRead(p->pSource->pArg, p->pErr, (u64)(p->iFrom + iOffset), aTo,
                    (u64)n);
  if (p->bCrc && p->pErr->rc == SQLITE_OK) {
    p->crc = choirCrc64(iOffset ? p->crc : 0, aTo, (u64)n);
    p->nCrc = iOffset + n;
  }
  return p->pErr->rc != SQLITE_OK;
}

/* The first bytes of a reply: is it what was asked for, and still the object
** whose beginning is already given? */
static void s3WriteFirst(ChoirS3Call *p) {
  char *zEtag = choirHttpReply(&p->http, "ETag");
  char *zRange = choirHttpReply(&p->http, "Content-Range");
  i64 iWant = p->iFrom + p->iGiven;
  if (p->http.err.rc == SQLITE_NOMEM) { /* no header was read */
    choirErrNomem(p->pErr);
  }
  if (p->http.iStatus == 206) {
    if (zRange == NULL || strncmp(zRange, "bytes ", 6) != 0 ||
        strtoll(zRange + 6, NULL, 10) != iWant) {
      choirErrSet(p->pErr, SQLITE_ERROR,
                  "the store sent the range '%.60s', asked for bytes from %lld",
                  zRange ? zRange : "", iWant);
    }
    p->iBase = p->iGiven;
  } else if (p->iFrom > 0 || p->nWant >= 0) {
    choirErrSet(p->pErr, SQLITE_ERROR, "the store ignores ranges");
  }
  if (p->iGiven > 0 && strcmp(zEtag ? zEtag : "", p->zEtag) != 0) {
    choirErrSet(p->pErr, SQLITE_BUSY,
                "the object was replaced while it was read; read it again");
  }
  sqlite3_snprintf(sizeof(p->zEtag), p->zEtag, "%s", zEtag ? zEtag : "");
  sqlite3_free(zEtag);
  sqlite3_free(zRange);
}

/* Gives on what was not given yet. */
static int s3Write(void *pArg, i64 iOffset, const void *a, i64 n) {
  ChoirS3Call *p = pArg;
  i64 nSkip;
  if (iOffset == 0) {
    s3WriteFirst(p);
  }
  iOffset += p->iBase;
  nSkip = p->iGiven > iOffset ? p->iGiven - iOffset : 0;
  if (p->nWant >= 0 && iOffset + n > p->nWant) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the store sent more than the %lld bytes asked for", p->nWant);
  }
  if (nSkip < n && p->pErr->rc == SQLITE_OK) {
    p->xWrite(p->pWriteArg, p->pErr, (const char *)a + nSkip, (u64)(n - nSkip));
    p->iGiven += n - nSkip;
  }
  return p->pErr->rc != SQLITE_OK;
}

CHOIR_PRIVATE void choirS3Header(ChoirS3Call *p, const char *zName,
                                 const char *zValue) {
  if (p->nHeader < CHOIR_S3_HEADERS) {
    p->aHeader[p->nHeader].zName = zName;
    p->aHeader[p->nHeader++].zValue = zValue;
  }
}

CHOIR_PRIVATE void choirS3Free(ChoirS3Call *p) {
  if (p->bHttp) {
    choirHttpFree(&p->http);
    p->bHttp = 0;
  }
}

/* The hash of what is put, if the request is signed. Over TLS a large body goes
** without: TLS protects it, and it is read once. */
static void s3Hash(ChoirS3Call *p, const char *zUrl) {
  const ChoirObjectSource *pSource = p->pSource;
  ChoirSha256 sha;
  u8 aHash[32];
  i64 i;
  char *a;
  if (p->aws.zAccess == NULL ||
      (p->nWant > 1 << 20 && sqlite3_strnicmp(zUrl, "https:", 6) == 0)) {
    memcpy(p->zHash, "UNSIGNED-PAYLOAD", 17);
    return;
  }
  a = choirMalloc(p->pErr, S3_HASH_BYTES);
  choirSha256Init(&sha);
  for (i = 0; a && i < p->nWant && p->pErr->rc == SQLITE_OK;) {
    i64 n = p->nWant - i > S3_HASH_BYTES ? S3_HASH_BYTES : p->nWant - i;
    pSource->xRead(pSource->pArg, p->pErr, (u64)(p->iFrom + i), a, (u64)n);
    choirSha256Update(&sha, a, (u64)n);
    i += n;
  }
  choirSha256Final(&sha, aHash);
  choirHex(aHash, 32, p->zHash);
  sqlite3_free(a);
}

/* What is sent. A large body waits for the store's consent, unless it is a part
** of an upload that the store has agreed to. */
static void s3Body(ChoirS3Call *p, const char *zUrl) {
  if (p->pSource) {
    if (!p->pStore->bMinted) {
      s3Hash(p, zUrl);
    }
    p->http.nBody = p->nWant;
    p->http.xRead = p->nWant ? s3Read : NULL;
    if (p->nWant > 1 << 20 && p->zQuery == NULL) {
      choirHttpHeader(&p->http, "Expect", "100-continue");
    }
  } else if (p->pText) {
    p->http.pBody = p->pText->a;
    p->http.nBody = (i64)p->pText->n;
  }
}

/* Did the exchange fail? Then that is the call's error, unless it has one, which
** is why the exchange broke off. */
static int s3Broke(ChoirS3Call *p) {
  int bBroke = p->http.err.rc != SQLITE_OK;
  if (bBroke && p->pErr->rc == SQLITE_OK) {
    *p->pErr = p->http.err;
    p->http.err.zMsg = NULL;
  }
  return bBroke;
}

CHOIR_PRIVATE void choirS3Start(ChoirS3Call *p) {
  char *zUrl, *zReply = NULL;
  int i;
  choirS3Aws(p, p->mDone & S3_REFRESH);
  p->mDone &= ~S3_REFRESH;
  zUrl = p->pStore->bMinted
             ? choirPresignUrl(p->pStore, p->pErr, p->zMethod, p->zKey, &zReply)
             : choirS3Url(p);
  choirS3Free(p);
  /* What the endpoint gives no URL for may be what is not there. */
  p->pStore->base.bForbidden =
      (u8)(p->pStore->bMinted && p->pErr->rc == SQLITE_AUTH);
  if (zUrl == NULL || p->pErr->rc != SQLITE_OK) {
    choirWipeFree(zReply);
    choirWipeFree(zUrl);
    return;
  }
  choirHttpInit(&p->http, p->pStore->base.pConn, p->zMethod, zUrl);
  p->bHttp = 1;
  p->http.pArg = p;
  p->http.xAttempt = s3Attempt;
  p->http.mFlags = CHOIR_HTTP_WHOLE | CHOIR_HTTP_RETRY;
  s3Body(p, zUrl);
  if (p->xWrite) {
    p->http.xWrite = s3Write;
    p->http.nMax = (u64)1 << 62;
  }
  if (p->bCleanup || p->pStore->bCleanup) {
    p->http.mFlags |= CHOIR_HTTP_CLEANUP | CHOIR_HTTP_ONCE;
    p->http.nTimeoutMs = S3_CLEANUP_MS;
  }
  for (i = 0; i < p->nHeader; i++) {
    choirHttpHeader(&p->http, p->aHeader[i].zName, p->aHeader[i].zValue);
  }
  if (zReply) {
    choirPresignHeaders(&p->http, zReply);
  }
  choirWipeFree(zReply);
  choirWipeFree(zUrl);
  if (p->pErr->rc == SQLITE_OK) {
    choirHttpStart(&p->http);
  }
}

/* The first element zTag of the reply; caller frees. */
static char *s3Said(ChoirS3Call *p, const char *zTag) {
  return choirXmlFirst(p->pErr, p->http.body.a, zTag);
}

static int s3Is(const char *z, const char *zCode) {
  return z && strcmp(z, zCode) == 0;
}

/* Sets p's clock right by the reply's Date; 0 when that is no help. */
static int s3Skew(ChoirS3Call *p) {
  char *zDate = choirHttpReply(&p->http, "Date");
  i64 iSkew = 0, iThen = zDate ? choirHttpDate(zDate) : 0;
  sqlite3_free(zDate);
  if (iThen > 0) {
    iSkew = iThen - choirNow() / 1000;
  }
  if (iThen == 0 || iSkew == p->pStore->pKnown->iSkew) {
    return 0;
  }
  p->pStore->pKnown->iSkew = iSkew;
  return 1;
}

/* What the reply says has to change before the request is sent again; each
** cause once. */
static int s3Correct(ChoirS3Call *p) {
  char *zCode = s3Said(p, "Code");
  char *zRegion = choirHttpReply(&p->http, "x-amz-bucket-region");
  int iStatus = p->http.iStatus, bAgain = 0;
  if (zRegion == NULL && s3Is(zCode, "AuthorizationHeaderMalformed")) {
    zRegion = s3Said(p, "Region");
  }
  if (iStatus >= 300 && zRegion && strcmp(zRegion, p->aws.zRegion) != 0 &&
      !(p->mDone & S3_REGION)) {
    p->mDone |= S3_REGION;
    sqlite3_free(p->pStore->pKnown->zRegion);
    p->pStore->pKnown->zRegion = zRegion;
    zRegion = NULL;
    bAgain = 1;
  } else if (iStatus == 403 && !(p->mDone & S3_SKEW) &&
             (s3Is(zCode, "RequestTimeTooSkewed") ||
              (zCode == NULL && p->http.body.n == 0))) {
    /* the reply to HEAD has no body to say why */
    p->mDone |= S3_SKEW;
    bAgain = s3Skew(p) && (zCode || p->pStore->pKnown->iSkew > 300 ||
                           p->pStore->pKnown->iSkew < -300);
  } else if ((s3Is(zCode, "ExpiredToken") ||
              s3Is(zCode, "TokenRefreshRequired") ||
              (iStatus == 400 && p->aws.zToken && p->http.body.n == 0)) &&
             !(p->mDone & S3_EXPIRED)) {
    p->mDone |= S3_EXPIRED;
    if (p->nFetched ==
        p->pStore->pKnown->nFetched) { /* else another call has */
      p->mDone |= S3_REFRESH;
      p->pStore->pKnown->nFetched++;
    }
    bAgain = 1;
  } else if (iStatus == 409 && !(p->mDone & S3_CONFLICT) &&
             (s3Is(zCode, "ConditionalRequestConflict") ||
              s3Is(zCode, "OperationAborted"))) {
    p->mDone |= S3_CONFLICT;
    bAgain = 1;
  }
  sqlite3_free(zCode);
  sqlite3_free(zRegion);
  return bAgain && p->pErr->rc == SQLITE_OK;
}

CHOIR_PRIVATE int choirS3Settled(ChoirS3Call *p) {
  p->bLost |= p->http.bMaybeSent;
  if (s3Broke(p)) {
    return 1;
  }
  choirS3Aws(p, 0);
  if (p->pErr->rc == SQLITE_OK && !p->pStore->bMinted && s3Correct(p)) {
    choirS3Start(p);
    return p->pErr->rc != SQLITE_OK;
  }
  return 1;
}

CHOIR_PRIVATE void choirS3Send(ChoirS3Call *p) {
  ChoirHttp *pHttp = &p->http;
  choirS3Start(p);
  while (p->bHttp && choirHttpWait(p->pStore->base.pConn, &pHttp, 1) == 0 &&
         !choirS3Settled(p)) {
    /* it was sent again */
  }
}

CHOIR_PRIVATE int choirS3Absent(ChoirS3Call *p) {
  int iStatus = p->bHttp && p->pErr->rc == SQLITE_OK ? p->http.iStatus : 0;
  char *zCode = NULL;
  int bAbsent = 0;
  p->pStore->base.bHidden = 0;
  if (iStatus == 404 || iStatus == 403) {
    zCode = s3Said(p, "Code");
    bAbsent = iStatus == 404 ? !s3Is(zCode, "NoSuchBucket")
                             : p->pStore->zFixed || s3Is(zCode, "AccessDenied");
    p->pStore->base.bHidden = (u8)(bAbsent && iStatus == 403);
    sqlite3_free(zCode);
  }
  return bAbsent && p->pErr->rc == SQLITE_OK;
}

/* Does the store not know who asks? Then it says so of every request. */
static int s3Stranger(const char *zCode) {
  static const char *const az[] = {
      "SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken",
      "InvalidSecurity",       "ExpiredToken",       "TokenRefreshRequired",
      "RequestTimeTooSkewed",  "AccountProblem"};
  int i, b = 0;
  for (i = 0; i < (int)(sizeof(az) / sizeof(az[0])); i++) {
    b |= s3Is(zCode, az[i]);
  }
  return b;
}

/* The reply as an error: what the store says, and where. */
CHOIR_PRIVATE void choirS3Fail(ChoirS3Call *p) {
  ChoirS3Store *pStore = p->pStore;
  char *zCode, *zText, *zId, *zShow, *zName;
  int iStatus = p->http.iStatus;
  choirS3Aws(p, 0);
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  zCode = s3Said(p, "Code");
  pStore->base.bForbidden = (u8)(iStatus == 403 && !s3Stranger(zCode));
  zText = s3Said(p, "Message");
  zId = choirHttpReply(&p->http, "x-amz-request-id");
  zShow = choirHttpUrlShow(p->pErr, p->http.zUrl);
  zName = pStore->zFixed
              ? choirMprintf(p->pErr, "%s", pStore->base.zUrl)
              : choirMprintf(p->pErr, "s3://%s/%s%s", pStore->zBucket,
                             pStore->zRoot, p->zKey ? p->zKey : "");
  choirErrSet(
      p->pErr, iStatus == 401 || iStatus == 403 ? SQLITE_AUTH : SQLITE_ERROR,
      "%s: %d %s%s%.200s (%s %s, %s%s%s%s)", zName, iStatus,
      zCode ? zCode : "without a code", zText ? ": " : "", zText ? zText : "",
      p->zMethod, zShow, pStore->bMinted ? "by a presigned URL" : "region ",
      pStore->bMinted ? "" : p->aws.zRegion, zId ? ", request " : "",
      zId ? zId : "");
  sqlite3_free(zCode);
  sqlite3_free(zText);
  sqlite3_free(zId);
  sqlite3_free(zShow);
  sqlite3_free(zName);
}

CHOIR_PRIVATE void choirS3Begin(ChoirS3Call *p, ChoirObject *pObj,
                                ChoirErr *pErr, const char *zMethod,
                                const char *zKey) {
  memset(p, 0, sizeof(*p));
  pObj->bForbidden = 0;
  p->pStore = (ChoirS3Store *)pObj;
  p->pErr = pErr;
  p->zMethod = zMethod;
  p->zKey = zKey;
}

/* Size, ETag and time from the headers of a reply. */
CHOIR_PRIVATE void choirS3Meta(ChoirS3Call *p, ChoirObjectMeta *pMeta) {
  char *zEtag = choirHttpReply(&p->http, "ETag");
  char *zTime = choirHttpReply(&p->http, "Last-Modified");
  char *zRange = choirHttpReply(&p->http, "Content-Range");
  char *zLength = choirHttpReply(&p->http, "Content-Length");
  const char *zSlash = zRange ? strchr(zRange, '/') : NULL;
  i64 n = strtoll(zSlash ? zSlash + 1 : zLength ? zLength : "", NULL, 10);
  pMeta->nByte = n > 0 ? (u64)n : 0;
  pMeta->iModified = zTime ? choirHttpDate(zTime) * 1000 : 0;
  sqlite3_snprintf(sizeof(pMeta->zEtag), pMeta->zEtag, "%s",
                   zEtag ? zEtag : "");
  sqlite3_free(zEtag);
  sqlite3_free(zTime);
  sqlite3_free(zRange);
  sqlite3_free(zLength);
  if (p->http.err.rc == SQLITE_NOMEM) {
    choirErrNomem(p->pErr);
  }
}

#endif /* CHOIR_OMIT_NET */
