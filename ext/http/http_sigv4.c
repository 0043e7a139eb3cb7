/* SPDX-License-Identifier: MIT */
/*
** AWS Signature Version 4, in headers or in the query of a presigned URL, and
** s3_sign_v4() that shows its steps.
**
**   canonical request   method, path, sorted query, headers, names, payload
**   string to sign      AWS4-HMAC-SHA256, time, scope, hash of the above
**   key                 HMAC chain: secret, day, region, service, aws4_request
**
** For the service s3 the path is taken as it is and encoded once; for every
** other one dot segments are resolved and what the URL holds is encoded again.
** The query's parts are decoded and encoded in one way (%XX upper-case, only
** letters, digits and -._~ bare) and sorted in that form: what is signed is
** what is sent, so the URL that comes out is the one to use.
*/
#include "http.h"
#include <stdlib.h>

static const char zSigAlgorithm[] = "AWS4-HMAC-SHA256";

CHOIR_PRIVATE void choirSigv4Time(i64 iSec, char z[17]) {
  /* civil date of a day number; era of 400 years beginning in March */
  i64 iDay = iSec / 86400 + 719468, iRest = iSec % 86400;
  i64 iEra = iDay / 146097, iDoe = iDay % 146097;
  i64 iYoe = (iDoe - iDoe / 1460 + iDoe / 36524 - iDoe / 146096) / 365;
  i64 iDoy = iDoe - (365 * iYoe + iYoe / 4 - iYoe / 100);
  i64 iMp = (5 * iDoy + 2) / 153;
  i64 iMonth = iMp < 10 ? iMp + 3 : iMp - 9;
  sqlite3_snprintf(17, z, "%04d%02d%02dT%02d%02d%02dZ",
                   (int)(iYoe + iEra * 400 + (iMonth <= 2)), (int)iMonth,
                   (int)(iDoy - (153 * iMp + 2) / 5 + 1), (int)(iRest / 3600),
                   (int)(iRest / 60 % 60), (int)(iRest % 60));
}

static void sigHashHex(const void *a, u64 n, char z[65]) {
  u8 aHash[32];
  choirSha256(a, n, aHash);
  choirHex(aHash, 32, z);
}

/* ------------------------------------------------------------------- path */

/* Dot segments and empty ones taken away: "/a//./b/../c/" is "/a/c/". */
static void sigNormalize(ChoirBuf *pOut, const char *z, int n) {
  int i = 0;
  while (i < n) {
    int iFrom, nSegment;
    while (i < n && z[i] == '/') {
      i++;
    }
    iFrom = i;
    while (i < n && z[i] != '/') {
      i++;
    }
    nSegment = i - iFrom;
    if (nSegment == 2 && memcmp(z + iFrom, "..", 2) == 0) {
      while (pOut->n > 0 && pOut->a[--pOut->n] != '/') {
      }
    } else if (nSegment > 0 && !(nSegment == 1 && z[iFrom] == '.')) {
      choirBufText(pOut, "/");
      choirBufAppend(pOut, z + iFrom, (u64)nSegment);
    }
  }
  if (pOut->n == 0 || (n > 0 && z[n - 1] == '/')) {
    choirBufText(pOut, "/");
  }
}

/* pSent: the path to send; pSigned: the one in the canonical request. */
static void sigPath(const ChoirSigv4 *p, const ChoirHttpUrl *pUrl,
                    ChoirBuf *pSent, ChoirBuf *pSigned) {
  ChoirBuf b;
  const char *zPath = pUrl->nPath ? pUrl->zPath : "/";
  int nPath = pUrl->nPath ? pUrl->nPath : 1;
  choirBufInit(&b, pSent->pErr, CHOIR_BUF_SQL);
  if (p->bNormalize) {
    sigNormalize(&b, zPath, nPath);
    choirUrlEncode(pSigned, b.a ? b.a : "", (i64)b.n, 1);
    choirBufAppend(pSent, zPath, (u64)nPath);
  } else {
    choirUrlDecode(&b, zPath, nPath);
    choirUrlEncode(pSigned, b.a ? b.a : "", (i64)b.n, 1);
    choirBufAppend(pSent, pSigned->a ? pSigned->a : "", pSigned->n);
  }
  choirBufFree(&b);
}

/* ------------------------------------------------------------------ query */

typedef struct SigPair {
  char *zKey, *zValue; /* encoded */
} SigPair;

static int sigPairCompare(const void *a, const void *b) {
  const SigPair *p = a, *q = b;
  int c = strcmp(p->zKey, q->zKey);
  return c ? c : strcmp(p->zValue, q->zValue);
}

/* The one way of encoding z[0..n), which may be encoded already. */
static char *sigRecode(ChoirErr *pErr, const char *z, i64 n) {
  ChoirBuf plain, coded;
  choirBufInit(&plain, pErr, CHOIR_BUF_SQL);
  choirBufInit(&coded, pErr, CHOIR_BUF_SQL);
  choirUrlDecode(&plain, z, n);
  choirUrlEncode(&coded, plain.a ? plain.a : "", (i64)plain.n, 0);
  choirBufFree(&plain);
  return choirBufTake(&coded);
}

static void sigPairAdd(ChoirErr *pErr, SigPair **pa, int *pn, char *zKey,
                       char *zValue) {
  void *a = choirRealloc(pErr, *pa, (u64)(*pn + 1) * sizeof(SigPair));
  if (a && zKey && zValue) {
    *pa = a;
    (*pa)[*pn].zKey = zKey;
    (*pa)[(*pn)++].zValue = zValue;
  } else {
    *pa = a ? a : *pa;
    sqlite3_free(zKey);
    sqlite3_free(zValue);
  }
}

static void sigQueryPlain(ChoirErr *pErr, SigPair **pa, int *pn,
                          const char *zKey, const char *zValue) {
  sigPairAdd(pErr, pa, pn, choirMprintf(pErr, "%s", zKey),
             sigRecode(pErr, zValue, (i64)strlen(zValue)));
}

/* The URL's query, plus what a presigned URL carries; sorted. */
static void sigQuery(ChoirErr *pErr, ChoirSigv4 *p, const ChoirHttpUrl *pUrl,
                     const char *zCredential, ChoirBuf *pOut) {
  SigPair *a = NULL;
  int n = 0, i = 0;
  char zExpires[24];
  while (i < pUrl->nQuery && pErr->rc == SQLITE_OK) {
    const char *z = pUrl->zQuery + i;
    const char *zAmp = memchr(z, '&', (size_t)(pUrl->nQuery - i));
    int nPart = zAmp ? (int)(zAmp - z) : pUrl->nQuery - i;
    const char *zEq = memchr(z, '=', (size_t)nPart);
    int nKey = zEq ? (int)(zEq - z) : nPart;
    if (nPart > 0) {
      sigPairAdd(
          pErr, &a, &n, sigRecode(pErr, z, nKey),
          sigRecode(pErr, zEq ? zEq + 1 : "", zEq ? nPart - nKey - 1 : 0));
    }
    i += nPart + 1;
  }
  if (p->bQuery) {
    sqlite3_snprintf(sizeof(zExpires), zExpires, "%lld", p->nExpires);
    sigQueryPlain(pErr, &a, &n, "X-Amz-Algorithm", zSigAlgorithm);
    sigQueryPlain(pErr, &a, &n, "X-Amz-Credential", zCredential);
    sigQueryPlain(pErr, &a, &n, "X-Amz-Date", p->zTime);
    sigQueryPlain(pErr, &a, &n, "X-Amz-Expires", zExpires);
    sigQueryPlain(pErr, &a, &n, "X-Amz-SignedHeaders",
                  p->signedNames.a ? p->signedNames.a : "");
    if (p->zToken) {
      sigQueryPlain(pErr, &a, &n, "X-Amz-Security-Token", p->zToken);
    }
  }
  if (n > 0) {
    qsort(a, (size_t)n, sizeof(SigPair), sigPairCompare);
  }
  for (i = 0; i < n; i++) {
    choirBufText(pOut, i ? "&" : "");
    choirBufText(pOut, a[i].zKey);
    choirBufText(pOut, "=");
    choirBufText(pOut, a[i].zValue);
    sqlite3_free(a[i].zKey);
    choirWipeFree(a[i].zValue);
  }
  sqlite3_free(a);
}

/* ---------------------------------------------------------------- headers */

/* Headers that may change on the way are not signed. */
static int sigSkipped(const char *zName) {
  static const char *const az[] = {"authorization",
                                   "baggage",
                                   "connection",
                                   "expect",
                                   "keep-alive",
                                   "proxy-authenticate",
                                   "proxy-authorization",
                                   "te",
                                   "traceparent",
                                   "tracestate",
                                   "trailer",
                                   "transfer-encoding",
                                   "upgrade",
                                   "user-agent",
                                   "x-amzn-trace-id"};
  int i;
  for (i = 0; i < (int)(sizeof(az) / sizeof(az[0])); i++) {
    if (sqlite3_stricmp(zName, az[i]) == 0) {
      return 1;
    }
  }
  return 0;
}

/* Runs of white space, line breaks included, count as one space. */
static void sigHeaderValue(ChoirBuf *pOut, const char *z) {
  int bSpace = 0, bAny = 0;
  for (; *z; z++) {
    if (*z == ' ' || (*z >= '\t' && *z <= '\r')) {
      bSpace = bAny;
    } else {
      if (bSpace) {
        choirBufText(pOut, " ");
      }
      choirBufAppend(pOut, z, 1);
      bSpace = 0;
      bAny = 1;
    }
  }
}

static int sigHeaderCompare(const void *a, const void *b) {
  const ChoirSigv4Header *p = a, *q = b;
  int c = sqlite3_stricmp(p->zName, q->zName);
  /* equal names keep their order: both point into one array of values */
  return c ? c : p->zValue < q->zValue ? -1 : p->zValue > q->zValue;
}

/* Sorted `name:value,value\n` lines into pOut, names into p->signedNames. */
static void sigHeaders(ChoirErr *pErr, ChoirSigv4 *p, ChoirBuf *pOut) {
  ChoirSigv4Header *a = choirMalloc(pErr, (u64)(p->nHeader + 6) * sizeof(*a));
  const char **azValue =
      choirMalloc(pErr, (u64)(p->nHeader + 6) * sizeof(char *));
  int i, n = 0, bHost = 0, bDate = 0, bSha = 0, bToken = 0;
  for (i = 0; a && azValue && i < p->nHeader; i++) {
    const char *zName = p->aHeader[i].zName;
    if (!sigSkipped(zName)) {
      bHost |= sqlite3_stricmp(zName, "host") == 0;
      bDate |= sqlite3_stricmp(zName, "x-amz-date") == 0;
      bSha |= sqlite3_stricmp(zName, "x-amz-content-sha256") == 0;
      bToken |= sqlite3_stricmp(zName, "x-amz-security-token") == 0;
      a[n].zName = zName;
      azValue[n++] = p->aHeader[i].zValue;
    }
  }
  if (a && azValue) {
    const char *const azAdd[8] = {"host",
                                  p->zHost,
                                  "x-amz-date",
                                  p->zTime,
                                  "x-amz-content-sha256",
                                  p->zPayload,
                                  "x-amz-security-token",
                                  p->zToken};
    const int abAdd[4] = {!bHost, !bDate && !p->bQuery,
                          !bSha && !p->bQuery && strcmp(p->zService, "s3") == 0,
                          !bToken && !p->bQuery && p->zToken != NULL};
    for (i = 0; i < 4; i++) {
      if (abAdd[i]) {
        a[n].zName = azAdd[2 * i];
        azValue[n++] = azAdd[2 * i + 1];
      }
    }
    for (i = 0; i < n; i++) {
      a[i].zValue = (const char *)&azValue[i]; /* sort keeps their order */
    }
    qsort(a, (size_t)n, sizeof(*a), sigHeaderCompare);
    for (i = 0; i < n; i++) {
      const char *zValue = *(const char *const *)(const void *)a[i].zValue;
      if (i > 0 && sqlite3_stricmp(a[i].zName, a[i - 1].zName) == 0) {
        choirBufText(pOut, ",");
      } else {
        char *zLower = choirMprintf(pErr, "%s", a[i].zName);
        char *z;
        for (z = zLower; z && *z; z++) {
          *z = *z >= 'A' && *z <= 'Z' ? (char)(*z + 32) : *z;
        }
        choirBufText(pOut, i ? "\n" : "");
        choirBufText(pOut, zLower ? zLower : "");
        choirBufText(pOut, ":");
        choirBufText(&p->signedNames, i ? ";" : "");
        choirBufText(&p->signedNames, zLower ? zLower : "");
        sqlite3_free(zLower);
      }
      sigHeaderValue(pOut, zValue);
    }
    choirBufText(pOut, "\n");
  }
  sqlite3_free(a);
  sqlite3_free(azValue);
}

/* ------------------------------------------------------------------- sign */

static void sigKey(const ChoirSigv4 *p, u8 aKey[32]) {
  char zStart[264];
  sqlite3_snprintf(sizeof(zStart), zStart, "AWS4%s", p->zSecret);
  choirHmacSha256(zStart, strlen(zStart), p->zTime, 8, aKey);
  choirHmacSha256(aKey, 32, p->zRegion, strlen(p->zRegion), aKey);
  choirHmacSha256(aKey, 32, p->zService, strlen(p->zService), aKey);
  choirHmacSha256(aKey, 32, "aws4_request", 12, aKey);
  choirWipe(zStart, sizeof(zStart));
}

static void sigCheck(ChoirErr *pErr, const ChoirSigv4 *p) {
  if (strlen(p->zSecret) > 256) {
    choirErrSet(pErr, SQLITE_ERROR, "secret_key has %lld bytes, at most 256",
                (i64)strlen(p->zSecret));
  }
  if (strlen(p->zTime) != 16 || strspn(p->zTime, "0123456789") != 8 ||
      p->zTime[8] != 'T' || strspn(p->zTime + 9, "0123456789") != 6 ||
      p->zTime[15] != 'Z') {
    choirErrSet(pErr, SQLITE_ERROR,
                "time must look like 20150830T123600Z, got %.20s", p->zTime);
  }
  if (p->bQuery && (p->nExpires < 1 || p->nExpires > 604800)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "expires must be 1 to 604800 seconds, got %lld", p->nExpires);
  }
}

CHOIR_PRIVATE void choirSigv4(ChoirErr *pErr, ChoirSigv4 *p) {
  ChoirBuf path, signedPath, query, headers;
  ChoirHttpUrl url;
  char *zScope, *zCredential, *z, zHash[65];
  u8 aKey[32], aMac[32];
  choirBufInit(&p->canonical, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->toSign, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->auth, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->url, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->signedNames, pErr, CHOIR_BUF_SQL);
  choirBufInit(&path, pErr, CHOIR_BUF_SQL);
  choirBufInit(&signedPath, pErr, CHOIR_BUF_SQL);
  choirBufInit(&query, pErr, CHOIR_BUF_SQL);
  choirBufInit(&headers, pErr, CHOIR_BUF_SQL);
  if (p->zTime[0] == 0) {
    choirSigv4Time(choirNow() / 1000, p->zTime);
  }
  choirHttpUrl(pErr, p->zUrl, &url);
  sigCheck(pErr, p);
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  sqlite3_snprintf(sizeof(p->zHost), p->zHost,
                   url.bDefaultPort ? "%.*s" : "%.*s:%d", url.nHost, url.zHost,
                   url.iPort);
  for (z = p->zHost; *z; z++) {
    *z = *z >= 'A' && *z <= 'Z' ? (char)(*z + 32) : *z;
  }
  zScope = choirMprintf(pErr, "%.8s/%s/%s/aws4_request", p->zTime, p->zRegion,
                        p->zService);
  zCredential = choirMprintf(pErr, "%s/%s", p->zAccess, zScope ? zScope : "");
  sigPath(p, &url, &path, &signedPath);
  sigHeaders(pErr, p, &headers);
  sigQuery(pErr, p, &url, zCredential ? zCredential : "", &query);
  choirBufPrintf(&p->canonical, "%s\n%s\n%s\n%s\n%s\n%s", p->zMethod,
                 signedPath.a, query.a ? query.a : "", headers.a,
                 p->signedNames.a, p->zPayload);
  sigHashHex(p->canonical.a ? p->canonical.a : "", p->canonical.n, zHash);
  choirBufPrintf(&p->toSign, "%s\n%s\n%s\n%s", zSigAlgorithm, p->zTime, zScope,
                 zHash);
  sigKey(p, aKey);
  choirHmacSha256(aKey, 32, p->toSign.a ? p->toSign.a : "", p->toSign.n, aMac);
  choirWipe(aKey, sizeof(aKey));
  choirHex(aMac, 32, p->zSignature);
  choirBufPrintf(&p->url, "%.*s://%.*s", url.nScheme, url.zScheme,
                 (int)(url.zPath - url.zHost), url.zHost);
  choirBufText(&p->url, path.a ? path.a : "/");
  if (query.n) {
    choirBufText(&p->url, "?");
    choirBufText(&p->url, query.a);
  }
  if (p->bQuery) {
    choirBufPrintf(&p->url, "&X-Amz-Signature=%s", p->zSignature);
  } else {
    choirBufPrintf(&p->auth, "%s Credential=%s, SignedHeaders=%s, Signature=%s",
                   zSigAlgorithm, zCredential, p->signedNames.a, p->zSignature);
  }
  sqlite3_free(zScope);
  sqlite3_free(zCredential);
  choirBufFree(&path);
  choirBufFree(&signedPath);
  choirBufFree(&query);
  choirBufFree(&headers);
}

CHOIR_PRIVATE void choirSigv4Free(ChoirSigv4 *p) {
  choirBufFree(&p->canonical);
  choirBufFree(&p->toSign);
  choirBufFree(&p->auth);
  choirBufFree(&p->url);
  choirBufFree(&p->signedNames);
}

CHOIR_PRIVATE void choirSigv4Http(ChoirErr *pErr, ChoirHttp *pHttp,
                                  const ChoirAws *pAws, const char *zService,
                                  const char *zPayload, i64 iSkew) {
  ChoirSigv4 sig;
  ChoirSigv4Header *a;
  const char *zName, *zValue;
  char zHash[65];
  int i, n = 0;
  choirHttpHeader(pHttp, "Authorization", NULL);
  choirHttpHeader(pHttp, "X-Amz-Date", NULL);
  choirHttpHeader(pHttp, "X-Amz-Content-Sha256", NULL);
  choirHttpHeader(pHttp, "X-Amz-Security-Token", NULL);
  while (choirHttpHeaderNth(pHttp, n, &zName, &zValue)) {
    n++;
  }
  a = choirMalloc(pErr, (u64)(n + 1) * sizeof(*a));
  if (a == NULL || pHttp->zUrl == NULL) {
    sqlite3_free(a);
    return;
  }
  for (i = 0; i < n; i++) {
    choirHttpHeaderNth(pHttp, i, &a[i].zName, &a[i].zValue);
  }
  if (zPayload == NULL) {
    sigHashHex(pHttp->pBody ? pHttp->pBody : "", (u64)pHttp->nBody, zHash);
    zPayload = zHash;
  }
  memset(&sig, 0, sizeof(sig));
  sig.zMethod = pHttp->zMethod;
  sig.zUrl = pHttp->zUrl;
  sig.zRegion = pAws->zRegion;
  sig.zService = zService;
  sig.zPayload = zPayload;
  sig.zAccess = pAws->zAccess;
  sig.zSecret = pAws->zSecret;
  sig.zToken = pAws->zToken;
  sig.aHeader = a;
  sig.nHeader = n;
  sig.bNormalize = strcmp(zService, "s3") != 0;
  choirSigv4Time(choirNow() / 1000 + iSkew, sig.zTime);
  choirSigv4(pErr, &sig);
  if (pErr->rc == SQLITE_OK) {
    choirHttpHeader(pHttp, "X-Amz-Date", sig.zTime);
    if (!sig.bNormalize) {
      choirHttpHeader(pHttp, "X-Amz-Content-Sha256", zPayload);
    }
    if (pAws->zToken) {
      choirHttpHeader(pHttp, "X-Amz-Security-Token", pAws->zToken);
    }
    choirHttpHeader(pHttp, "Authorization", sig.auth.a);
    choirWipeFree(pHttp->zUrl);
    pHttp->zUrl = choirBufTake(&sig.url);
  }
  choirSigv4Free(&sig);
  sqlite3_free(a);
}

/* -------------------------------------------------------------------- SQL */

typedef struct SigArgs {
  ChoirErr *pErr;
  ChoirConn *pConn;
  const char *zJson;
  char *azField[16];
  int nField;
} SigArgs;

/* A field of the argument, owned by p; zDefault NULL: it must be there. */
static const char *sigField(SigArgs *p, const char *zPath,
                            const char *zDefault) {
  char *z = choirJsonText(p->pConn, p->pErr, p->zJson, -1, zPath);
  if (z) {
    p->azField[p->nField++] = z;
  } else if (zDefault == NULL) {
    choirErrSet(p->pErr, SQLITE_ERROR, "json lacks %s", zPath + 2);
  }
  return z ? z : zDefault ? zDefault : "";
}

/* headers: {"a": "1", "b": ["2", "3"]}; the statement keeps the texts until it
** ends, so they are copied into pHold. */
static int sigJsonHeaders(SigArgs *pArgs, ChoirBuf *pHold, ChoirSigv4Header *a,
                          int nMax) {
  sqlite3_stmt *p = choirJsonStmt(
      pArgs->pConn, pArgs->pErr,
      "SELECT h.key, v.atom FROM json_each(?1, '$.headers') h,"
      " json_each(iif(h.type = 'array', h.value, json_array(h.atom))) v"
      " WHERE v.atom IS NOT NULL ORDER BY h.id, v.id",
      pArgs->zJson, -1);
  i64 aAt[2 * 128];
  int i, n = 0;
  while (choirStep(pArgs->pErr, p)) {
    if (n == nMax) {
      choirErrSet(pArgs->pErr, SQLITE_ERROR, "more than %d headers", nMax);
      break;
    }
    for (i = 0; i < 2; i++) {
      const char *z = (const char *)sqlite3_column_text(p, i);
      aAt[2 * n + i] = (i64)pHold->n;
      choirBufText(pHold, z ? z : "");
      choirBufAppend(pHold, "", 1);
    }
    n++;
  }
  sqlite3_finalize(p);
  for (i = 0; i < n && pHold->a; i++) {
    a[i].zName = pHold->a + aAt[2 * i];
    a[i].zValue = pHold->a + aAt[2 * i + 1];
  }
  return pHold->a ? n : 0;
}

static void sigJsonOut(ChoirCall *pCall, const ChoirSigv4 *p,
                       const char *zSha) {
  ChoirBuf b;
  choirBufInit(&b, &pCall->err, CHOIR_BUF_JSON);
  choirBufText(&b, "{\"canonical_request\":");
  choirBufJson(&b, p->canonical.a ? p->canonical.a : "", -1);
  choirBufText(&b, ",\"string_to_sign\":");
  choirBufJson(&b, p->toSign.a ? p->toSign.a : "", -1);
  choirBufPrintf(&b, ",\"signature\":\"%s\",\"authorization\":", p->zSignature);
  if (p->bQuery) {
    choirBufText(&b, "null,\"headers\":{\"host\":");
    choirBufJson(&b, p->zHost, -1);
  } else {
    choirBufJson(&b, p->auth.a ? p->auth.a : "", -1);
    choirBufText(&b, ",\"headers\":{\"host\":");
    choirBufJson(&b, p->zHost, -1);
    choirBufPrintf(&b, ",\"x-amz-date\":\"%s\"", p->zTime);
    if (strcmp(p->zService, "s3") == 0) {
      choirBufText(&b, ",\"x-amz-content-sha256\":");
      choirBufJson(&b, zSha, -1);
    }
    if (p->zToken) {
      choirBufText(&b, ",\"x-amz-security-token\":");
      choirBufJson(&b, p->zToken, -1);
    }
    choirBufText(&b, ",\"authorization\":");
    choirBufJson(&b, p->auth.a ? p->auth.a : "", -1);
  }
  choirBufText(&b, "},\"url\":");
  choirBufJson(&b, p->url.a ? p->url.a : "", -1);
  choirBufText(&b, "}");
  choirBufResult(&b, pCall->pCtx);
  choirBufFree(&b);
}

/*
** SQL: s3_sign_v4(json) -> TEXT
**
** Signs a request by AWS Signature Version 4 and returns the steps as a JSON
** object: canonical_request, string_to_sign, signature, authorization (null
** when mode is query), headers (those to send, besides the given ones) and url
** (the one to send). Nothing is sent.
**
**   json  TEXT, an object of: method (GET), url, headers (an object; an array
**         of values repeats the header), body or payload_sha256 (hex, or
**         UNSIGNED-PAYLOAD), region (us-east-1), service (s3), time
**         (20150830T123600Z), access_key, secret_key, session_token, mode
**         (header or query), expires (seconds, 3600), normalize (resolve dot
**         segments and encode the path twice; true unless service is s3)
**
** NULL: gives NULL.
** Errors: not a JSON object; url, time, access_key or secret_key missing; a
** time or expires of another form. No message shows a key.
** Source: Amazon S3 API reference, "Signature Version 4".
**
** > SELECT json_extract(s3_sign_v4(json_object(
** >   'url', 'https://examplebucket.s3.amazonaws.com/test.txt',
** >   'headers', json_object('Range', 'bytes=0-9'),
** >   'time', '20130524T000000Z', 'access_key', 'AKIAIOSFODNN7EXAMPLE',
** >   'secret_key', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY')),
** >   '$.signature')
** = f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41
*/
static void sigFunc(ChoirCall *pCall) {
  SigArgs args = {&pCall->err, pCall->pConn, NULL, {NULL}, 0};
  ChoirSigv4Header aHeader[128];
  ChoirSigv4 sig;
  ChoirBuf hold;
  const char *zBody, *zMode, *zNormalize, *zToken;
  char zHash[65];
  int i;
  args.zJson = choirArgTextOrNull(&pCall->err, pCall->apArg[0], "json");
  if (args.zJson == NULL) {
    return;
  }
  memset(&sig, 0, sizeof(sig));
  choirBufInit(&hold, &pCall->err, CHOIR_BUF_SQL);
  sig.zUrl = sigField(&args, "$.url", NULL);
  sig.zMethod = sigField(&args, "$.method", "GET");
  sig.zRegion = sigField(&args, "$.region", "us-east-1");
  sig.zService = sigField(&args, "$.service", "s3");
  sig.zAccess = sigField(&args, "$.access_key", NULL);
  sig.zSecret = sigField(&args, "$.secret_key", NULL);
  zToken = sigField(&args, "$.session_token", "");
  sig.zToken = zToken[0] ? zToken : NULL;
  sqlite3_snprintf(sizeof(sig.zTime), sig.zTime, "%s",
                   sigField(&args, "$.time", NULL));
  zMode = sigField(&args, "$.mode", "header");
  sig.bQuery = strcmp(zMode, "query") == 0;
  if (!sig.bQuery && strcmp(zMode, "header") != 0) {
    choirErrSet(&pCall->err, SQLITE_ERROR,
                "mode must be header or query, got '%.20s'", zMode);
  }
  sig.nExpires = strtoll(sigField(&args, "$.expires", "3600"), NULL, 10);
  zNormalize = sigField(&args, "$.normalize",
                        strcmp(sig.zService, "s3") == 0 ? "0" : "1");
  sig.bNormalize = strcmp(zNormalize, "0") != 0;
  zBody = sigField(&args, "$.body", "");
  sigHashHex(zBody, strlen(zBody), zHash);
  sig.zPayload = sigField(&args, "$.payload_sha256",
                          sig.bQuery && strcmp(sig.zService, "s3") == 0
                              ? "UNSIGNED-PAYLOAD"
                              : zHash);
  sig.nHeader = sigJsonHeaders(&args, &hold, aHeader, 128);
  sig.aHeader = aHeader;
  choirSigv4(&pCall->err, &sig);
  sigJsonOut(pCall, &sig, sig.zPayload);
  choirSigv4Free(&sig);
  choirBufFree(&hold);
  for (i = 0; i < args.nField; i++) {
    choirWipeFree(args.azField[i]);
  }
}

static const ChoirFunc aSigFunc[] = {
    {"s3_sign_v4", 1, 1, CHOIR_PURE, 0, sigFunc, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirSigv4Register(ChoirConn *pConn,
                                                 ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aSigFunc);
}
