/* SPDX-License-Identifier: MIT */
/*
** Exchanges: what happens around the attempts of http_curl.c. Headers of the
** request, the allow-list of hosts, deadlines, the stall limit, retries,
** redirects, decompression, interrupts, progress, and the record of the last
** transfers that choir_transfers shows.
**
** An attempt is tried again when the failure may pass (connection, 408, 429,
** 500, 502, 503, 504) and sending it twice does no harm: the method is
** idempotent, the caller says so, or nothing was sent. The pause doubles from
** 100 ms to 20 s, half of it random; a Retry-After counts instead, up to a
** minute, beyond which the reply is returned as it is.
*/
#include "http.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { RUN_IDLE, RUN_WIRE, RUN_PAUSE, RUN_DONE, RUN_GIVEN };
enum { RUN_TICK_MS = 50, RUN_PROGRESS_MS = 1000, RUN_RECORDS = 32 };

typedef struct HttpHeader {
  char *zName, *zValue; /* in one allocation with the struct */
  struct HttpHeader *pNext;
} HttpHeader;

typedef struct RunRecord {
  u64 iTransfer; /* 0: none */
  char *zUrl;    /* without its query */
  char zMethod[16];
  const char *zState;
  int iStatus, nTried;
  i64 iStart, iEnd; /* Unix milliseconds; iEnd 0: running */
  i64 nSent, nReceived, nTotal;
} RunRecord;

typedef struct RunState {
  RunRecord aRecord[RUN_RECORDS];
  u64 nTransfer;
  i64 iShownMs; /* the last progress line */
  int nShown;   /* its length, 0: none on the terminal */
} RunState;

static void runStateFree(void *pArg) {
  RunState *p = pArg;
  int i;
  for (i = 0; i < RUN_RECORDS; i++) {
    sqlite3_free(p->aRecord[i].zUrl);
  }
}

static const ChoirStateType runState = {"http", sizeof(RunState), runStateFree};

/* ---------------------------------------------------------------- request */

CHOIR_PRIVATE void choirHttpInit(ChoirHttp *p, ChoirConn *pConn,
                                 const char *zMethod, const char *zUrl) {
  memset(p, 0, sizeof(*p));
  p->pConn = pConn;
  p->zMethod = zMethod;
  p->zHttp = "";
  p->zUrl = choirMprintf(&p->err, "%s", zUrl);
  p->nMax = (u64)choirConfigInt(pConn, "http.max_bytes", 64 << 20);
  p->nTimeoutMs = choirConfigInt(pConn, "http.timeout_ms", 0);
  p->nConnectMs = choirConfigInt(pConn, "http.connect_timeout_ms", 10000);
  p->nStallMs = choirConfigInt(pConn, "http.stall_ms", 60000);
  p->nAttempt = (int)choirConfigInt(pConn, "http.attempts", 3);
  choirBufInit(&p->body, &p->err, (u64)1 << 40); /* the cap is nMax */
  choirBufInit(&p->header, &p->err, 1 << 20);
}

static void runHeaderFree(HttpHeader *p) {
  choirWipe(p->zValue, strlen(p->zValue));
  sqlite3_free(p);
}

CHOIR_PRIVATE void choirHttpHeaderAdd(ChoirHttp *p, const char *zName,
                                      const char *zValue) {
  HttpHeader **pp = &p->pHeader, *pNew;
  size_t nName = strlen(zName), nValue = strlen(zValue), i;
  if (nName == 0 || strspn(zName, "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "!#$%&'*+-.^_`|~") != nName) {
    choirErrSet(&p->err, SQLITE_ERROR, "'%.40s' is not a header's name", zName);
    return;
  }
  for (i = 0; i < nValue; i++) {
    if (((u8)zValue[i] < 0x20 && zValue[i] != '\t') || zValue[i] == 0x7f) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "the value of header %s has a control character at byte %lld",
                  zName, (i64)i);
      return;
    }
  }
  pNew = choirMalloc(&p->err, sizeof(*pNew) + nName + nValue + 2);
  if (pNew) {
    pNew->zName = (char *)&pNew[1];
    memcpy(pNew->zName, zName, nName);
    pNew->zValue = pNew->zName + nName + 1;
    memcpy(pNew->zValue, zValue, nValue);
    while (*pp) {
      pp = &(*pp)->pNext;
    }
    *pp = pNew;
  }
}

CHOIR_PRIVATE void choirHttpHeader(ChoirHttp *p, const char *zName,
                                   const char *zValue) {
  HttpHeader **pp = &p->pHeader;
  while (*pp) {
    HttpHeader *pOld = *pp;
    if (sqlite3_stricmp(pOld->zName, zName) == 0) {
      *pp = pOld->pNext;
      runHeaderFree(pOld);
    } else {
      pp = &pOld->pNext;
    }
  }
  if (zValue) {
    choirHttpHeaderAdd(p, zName, zValue);
  }
}

CHOIR_PRIVATE int choirHttpHeaderNth(const ChoirHttp *p, int i,
                                     const char **pzName,
                                     const char **pzValue) {
  const HttpHeader *pHeader = p->pHeader;
  while (pHeader && i-- > 0) {
    pHeader = pHeader->pNext;
  }
  if (pHeader) {
    *pzName = pHeader->zName;
    *pzValue = pHeader->zValue;
  }
  return pHeader != NULL;
}

CHOIR_PRIVATE int choirHttpPublicHeader(const char *zName) {
  static const char *const az[] = {"accept",
                                   "accept-encoding",
                                   "accept-language",
                                   "cache-control",
                                   "content-encoding",
                                   "content-length",
                                   "content-range",
                                   "content-type",
                                   "date",
                                   "host",
                                   "if-match",
                                   "if-modified-since",
                                   "if-none-match",
                                   "if-unmodified-since",
                                   "range",
                                   "user-agent",
                                   "x-amz-content-sha256",
                                   "x-amz-date"};
  int i;
  for (i = 0; i < (int)(sizeof(az) / sizeof(az[0])); i++) {
    if (sqlite3_stricmp(az[i], zName) == 0) {
      return 1;
    }
  }
  return 0;
}

CHOIR_PRIVATE char *choirHttpReply(ChoirHttp *p, const char *zName) {
  const char *z = p->header.a;
  size_t n = strlen(zName);
  while (z && *z) {
    const char *zEnd = strchr(z, '\n');
    if ((z[0] & 31) == (zName[0] & 31) && /* the same letter */
        sqlite3_strnicmp(z, zName, (int)n) == 0 && z[n] == ':') {
      const char *zValue = z + n + 1;
      size_t nValue = zEnd ? (size_t)(zEnd - zValue) : strlen(zValue);
      while (nValue && (*zValue == ' ' || *zValue == '\t')) {
        zValue++;
        nValue--;
      }
      while (nValue && (u8)zValue[nValue - 1] <= ' ') {
        nValue--;
      }
      z = choirMalloc(&p->err, nValue + 1);
      return z ? memcpy((char *)z, zValue, nValue) : NULL;
    }
    z = zEnd ? zEnd + 1 : NULL;
  }
  return NULL;
}

/* Does pattern z[0..n) of http.allow cover the URL's host? `*.a.b` covers
** every name below a.b; a port must match when the pattern has one. */
static int runAllowed(const char *z, size_t n, const ChoirHttpUrl *pUrl) {
  const char *zColon = z[0] == '[' ? memchr(z, ']', n) : z;
  size_t nHost = n;
  zColon = zColon ? memchr(zColon, ':', n - (size_t)(zColon - z)) : NULL;
  if (zColon) {
    char zPort[8];
    nHost = (size_t)(zColon - z);
    sqlite3_snprintf(8, zPort, "%d", pUrl->iPort);
    if (strlen(zPort) != n - nHost - 1 ||
        memcmp(zPort, zColon + 1, n - nHost - 1) != 0) {
      return 0;
    }
  }
  if (nHost > 2 && z[0] == '*' && z[1] == '.') {
    return (size_t)pUrl->nHost > nHost - 1 &&
           sqlite3_strnicmp(pUrl->zHost + pUrl->nHost - (nHost - 1), z + 1,
                            (int)nHost - 1) == 0;
  }
  return (size_t)pUrl->nHost == nHost &&
         sqlite3_strnicmp(pUrl->zHost, z, (int)nHost) == 0;
}

/* Is the list z unset, or the host in it? */
static int runListed(const char *z, const ChoirHttpUrl *pUrl) {
  int bListed = z == NULL || z[0] == 0;
  while (!bListed && *z) {
    size_t n = strcspn(z, ", ");
    bListed = n > 0 && runAllowed(z, n, pUrl);
    z += n + strspn(z + n, ", ");
  }
  return bListed;
}

/* The URL is one that may be reached: whoever asks, for credentials too. What the
** environment or the config file forbids, choir_config() does not allow. */
static void runCheck(ChoirHttp *p) {
  const char *zFixed = choirConfigFixed(p->pConn, "http.allow");
  ChoirHttpUrl url;
  size_t i;
  int bFixed;
  choirHttpUrl(&p->err, p->zUrl, &url);
  for (i = 0; p->err.rc == SQLITE_OK && p->zUrl[i]; i++) {
    if ((u8)p->zUrl[i] <= 0x20 || p->zUrl[i] == 0x7f || p->zUrl[i] == '\\') {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "the URL has a space, control character or backslash at byte"
                  " %lld; percent-encode it",
                  (i64)i);
    }
  }
  if (p->err.rc != SQLITE_OK) {
    return;
  }
  bFixed = runListed(zFixed, &url);
  if (!bFixed || !runListed(choirConfig(p->pConn, "http.allow"), &url)) {
    choirErrSet(&p->err, SQLITE_AUTH,
                "host %.*s port %d is not in the list of http.allow%s",
                url.nHost, url.zHost, url.iPort,
                bFixed ? ""
                       : " of the environment or the config file, which"
                         " choir_config() can only narrow");
  }
}

/* --------------------------------------------------------------- transfers */

static RunRecord *runRecord(ChoirHttp *p) {
  ChoirErr err = {0, NULL};
  RunState *pState = choirState(p->pConn, &err, &runState);
  RunRecord *pRecord =
      pState ? &pState->aRecord[p->iTransfer % RUN_RECORDS] : NULL;
  choirErrClear(&err);
  return pRecord && p->iTransfer && pRecord->iTransfer == p->iTransfer ? pRecord
                                                                       : NULL;
}

static void runRecordStart(ChoirHttp *p) {
  RunState *pState = choirState(p->pConn, &p->err, &runState);
  RunRecord *pRecord;
  if (pState == NULL) {
    return;
  }
  p->iTransfer = ++pState->nTransfer;
  pRecord = &pState->aRecord[p->iTransfer % RUN_RECORDS];
  sqlite3_free(pRecord->zUrl);
  memset(pRecord, 0, sizeof(*pRecord));
  pRecord->iTransfer = p->iTransfer;
  pRecord->zUrl = choirHttpUrlShow(&p->err, p->zUrl);
  sqlite3_snprintf(sizeof(pRecord->zMethod), pRecord->zMethod, "%s",
                   p->zMethod);
  pRecord->zState = "running";
  pRecord->iStart = choirNow();
  pRecord->nTotal = -1;
}

/* One line on the terminal, at most four times a second. */
static void runProgress(ChoirHttp *p, i64 iNow, i64 nMoved, i64 nTotal) {
  ChoirErr err = {0, NULL};
  RunState *pState = choirState(p->pConn, &err, &runState);
  char zTotal[40] = "";
  char *zUrl;
  choirErrClear(&err);
  if (pState && iNow - p->iStartMs > RUN_PROGRESS_MS &&
      iNow - pState->iShownMs > RUN_PROGRESS_MS / 4 && isatty(2)) {
    double rMs = (double)(iNow - p->iStartMs);
    if (nTotal > 0) {
      sqlite3_snprintf(sizeof(zTotal), zTotal, " of %.1f",
                       (double)nTotal / 1e6);
    }
    zUrl = choirHttpUrlShow(&err, p->zUrl);
    pState->iShownMs = iNow;
    pState->nShown = fprintf(stderr, "\r%s %.50s  %.1f%s MB  %.1f MB/s   ",
                             p->zMethod, zUrl ? zUrl : "", (double)nMoved / 1e6,
                             zTotal, (double)nMoved / 1e3 / rMs);
    sqlite3_free(zUrl);
    choirErrClear(&err);
  }
}

/* Wipes that line. */
static void runProgressEnd(ChoirHttp *p) {
  ChoirErr err = {0, NULL};
  RunState *pState = choirState(p->pConn, &err, &runState);
  if (pState && pState->nShown > 0) {
    fprintf(stderr, "\r%*s\r", pState->nShown, "");
    pState->nShown = 0;
  }
  choirErrClear(&err);
}

/*
** SQL: choir_transfers -> TABLE(id, method, url, state, status, attempts,
**   started_at, ms, sent, received, total, bytes_per_s)
**
** The last 32 HTTP transfers of this connection, the running ones included.
** url is shown without its query; sent and received count body bytes; total is
** the announced length, if any.
**
** > SELECT count(*) FROM choir_transfers
** = 0
*/
static void runTransfers(ChoirCursor *pCur) {
  RunState *pState = choirState(pCur->pConn, &pCur->err, &runState);
  u64 i;
  for (i = pState && pState->nTransfer > RUN_RECORDS
               ? pState->nTransfer - RUN_RECORDS + 1
               : 1;
       pState && i <= pState->nTransfer; i++) {
    const RunRecord *p = &pState->aRecord[i % RUN_RECORDS];
    i64 nMs = (p->iEnd ? p->iEnd : choirNow()) - p->iStart;
    choirRowInt(pCur, (i64)p->iTransfer);
    choirRowText(pCur, p->zMethod);
    choirRowText(pCur, p->zUrl);
    choirRowText(pCur, p->zState);
    choirRowInt(pCur, p->iStatus);
    choirRowInt(pCur, p->nTried);
    choirRowInt(pCur, p->iStart);
    choirRowInt(pCur, nMs);
    choirRowInt(pCur, p->nSent);
    choirRowInt(pCur, p->nReceived);
    if (p->nTotal < 0) {
      choirRowText(pCur, NULL);
    } else {
      choirRowInt(pCur, p->nTotal);
    }
    choirRowReal(pCur, (double)(p->nSent + p->nReceived) * 1000.0 /
                           (double)(nMs > 0 ? nMs : 1));
  }
}

/* -------------------------------------------------------------- the course */

static int runIdempotent(const ChoirHttp *p) {
  static const char *const az[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"};
  int i;
  for (i = 0; i < 5; i++) {
    if (strcmp(az[i], p->zMethod) == 0) {
      return 1;
    }
  }
  return (p->mFlags & CHOIR_HTTP_RETRY) != 0;
}

static void runFinish(ChoirHttp *p) {
  RunRecord *pRecord = runRecord(p);
  int bConnected;
  runProgressEnd(p);
  if (pRecord) {
    if (p->pWire) {
      choirHttpWireMoved(p, &pRecord->nTotal, &bConnected);
    }
    pRecord->zState = p->err.rc == SQLITE_OK          ? "done"
                      : p->err.rc == SQLITE_INTERRUPT ? "interrupted"
                                                      : "failed";
    pRecord->iStatus = p->iStatus;
    pRecord->nTried = p->nTried;
    pRecord->iEnd = choirNow();
    pRecord->nReceived = p->nReceived;
    pRecord->nSent = p->err.rc == SQLITE_OK ? p->nBody : pRecord->nSent;
  }
  choirHttpWireStop(p);
  p->eState = RUN_DONE;
}

/* "GET https://host/path: why; after 3 attempts" */
static void runExplain(ChoirHttp *p) {
  ChoirErr err = {0, NULL};
  char *zUrl = choirHttpUrlShow(&err, p->zUrl ? p->zUrl : "");
  const char *zWhy = p->err.zMsg;
  if (zWhy && p->nTried > 1) {
    choirErrSet(&err, p->err.rc, "%s %s: %s; after %d attempts", p->zMethod,
                zUrl, zWhy, p->nTried);
  } else if (zWhy) {
    choirErrSet(&err, p->err.rc, "%s %s: %s", p->zMethod, zUrl, zWhy);
  }
  if (err.rc != SQLITE_OK) { /* that, or no memory for it */
    choirErrClear(&p->err);
    p->err = err;
  }
  sqlite3_free(zUrl);
}

static void runFail(ChoirHttp *p, int rc, const char *zFmt, i64 v) {
  choirErrSet(&p->err, rc, zFmt, v);
  runExplain(p);
  runFinish(p);
}

static void runAttempt(ChoirHttp *p) {
  p->body.n = 0;
  p->header.n = 0;
  p->nReceived = 0;
  p->iStatus = 0;
  p->bDelimited = 0;
  if (p->header.a) {
    p->header.a[0] = 0;
  }
  p->nTried++;
  if (p->xAttempt && p->err.rc == SQLITE_OK) {
    p->xAttempt(p, &p->err);
  }
  runCheck(p);
  if (p->err.rc == SQLITE_OK) {
    choirHttpWireStart(p);
  }
  p->iWindowMs = choirMonotonic();
  p->nWindow = 0;
  p->eState = RUN_WIRE;
  if (p->err.rc != SQLITE_OK) {
    runExplain(p);
    runFinish(p);
  }
}

CHOIR_PRIVATE void choirHttpStart(ChoirHttp *p) {
  if (p->eState == RUN_IDLE) {
    p->iStartMs = choirMonotonic();
    p->nAttempt =
        p->nAttempt < 1 || (p->mFlags & CHOIR_HTTP_ONCE) ? 1 : p->nAttempt;
    if (p->zUrl) {
      runRecordStart(p);
    }
    runAttempt(p);
  }
}

CHOIR_PRIVATE i64 choirHttpSeconds(int iYear, int iMonth, int iDay, int iHour,
                                   int iMinute, int iSecond) {
  /* days of a civil date, the year beginning in March */
  i64 y = iMonth < 3 ? iYear - 1 : iYear;
  i64 nDay = 365 * y + y / 4 - y / 100 + y / 400 +
             (153 * ((iMonth + 9) % 12) + 2) / 5 + iDay - 1 - 719468;
  return ((nDay * 24 + iHour) * 60 + iMinute) * 60 + iSecond;
}

/* The n digits at z, -1: they are none. */
static int runDigits(const char *z, int n) {
  int v = 0;
  while (n-- > 0) {
    if (*z < '0' || *z > '9') {
      return -1;
    }
    v = v * 10 + (*z++ - '0');
  }
  return v;
}

CHOIR_PRIVATE i64 choirHttpDate(const char *z) {
  static const char zMonths[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  const char *zAt = strchr(z, ',');
  int a[5], i, iMonth = 0;
  static const int aAt[5] = {0, 7, 12, 15, 18}; /* 24 May 2013 00:00:00 */
  if (zAt == NULL || strlen(zAt) < 22) {
    return 0;
  }
  zAt += 2;
  for (i = 0; i < 5; i++) {
    a[i] = runDigits(zAt + aAt[i], i == 1 ? 4 : 2);
    if (a[i] < 0) {
      return 0;
    }
  }
  while (iMonth < 12 && memcmp(zAt + 3, zMonths + 3 * iMonth, 3) != 0) {
    iMonth++;
  }
  return iMonth == 12
             ? 0
             : choirHttpSeconds(a[1], iMonth + 1, a[0], a[2], a[3], a[4]);
}

/* Retry-After in milliseconds from now, -1: none. */
static i64 runRetryAfter(ChoirHttp *p) {
  char *z = choirHttpReply(p, "Retry-After");
  i64 nMs = -1;
  if (z && z[0] >= '0' && z[0] <= '9') {
    nMs = strtoll(z, NULL, 10);
    nMs = nMs > 1000000 ? 1000000000 : nMs * 1000;
  } else if (z && choirHttpDate(z)) {
    nMs = choirHttpDate(z) * 1000 - choirNow();
    nMs = nMs < 0 ? 0 : nMs;
  }
  sqlite3_free(z);
  return nMs;
}

/* When to try again, in milliseconds from now; -1: not. */
static i64 runPause(ChoirHttp *p, int bRetry, int bSent) {
  static const int aStatus[] = {408, 429, 500, 502, 503, 504};
  int i;
  i64 nMs = -1, nBase = 100;
  u32 iRandom;
  if (p->err.rc == SQLITE_OK) {
    for (i = 0, bRetry = 0; i < 6; i++) {
      bRetry |= p->iStatus == aStatus[i];
    }
    nMs = bRetry ? runRetryAfter(p) : -1;
  } else if (p->err.rc != SQLITE_ERROR) {
    return -1; /* TOOBIG, AUTH, NOMEM, …: ours, not the network's */
  }
  if (!bRetry || p->nTried >= p->nAttempt || nMs > 60000 ||
      (bSent && !runIdempotent(p))) {
    return -1;
  }
  if (nMs < 0) {
    for (i = 1; i < p->nTried && nBase < 20000; i++) {
      nBase *= 2;
    }
    nBase = nBase > 20000 ? 20000 : nBase;
    sqlite3_randomness(sizeof(iRandom), &iRandom);
    nMs = nBase / 2 + (i64)(iRandom % (u32)(nBase / 2 + 1));
  }
  if (p->nTimeoutMs > 0 &&
      choirMonotonic() + nMs > p->iStartMs + p->nTimeoutMs) {
    return -1;
  }
  return nMs;
}

/* Goes where the reply points, if that is wanted and harmless: GET and HEAD,
** never from https to http; to another host without a header that might be a
** credential. */
static int runRedirect(ChoirHttp *p) {
  ChoirHttpUrl from, to;
  char *zTo;
  HttpHeader **pp;
  if (!(p->mFlags & CHOIR_HTTP_FOLLOW) || p->iStatus / 100 != 3 ||
      p->nRedirect >= choirConfigInt(p->pConn, "http.redirects", 0) ||
      (strcmp(p->zMethod, "GET") != 0 && strcmp(p->zMethod, "HEAD") != 0)) {
    return 0;
  }
  zTo = choirHttpWireRedirect(p);
  if (zTo == NULL) {
    return 0;
  }
  choirHttpUrl(&p->err, p->zUrl, &from);
  choirHttpUrl(&p->err, zTo, &to);
  if (p->err.rc == SQLITE_OK && from.bTls && !to.bTls) {
    choirErrSet(&p->err, SQLITE_AUTH, "a redirect from https to http");
  }
  if (p->err.rc == SQLITE_OK &&
      (from.nHost != to.nHost || from.iPort != to.iPort ||
       from.bTls != to.bTls ||
       sqlite3_strnicmp(from.zHost, to.zHost, to.nHost) != 0)) {
    for (pp = &p->pHeader; *pp;) {
      HttpHeader *pOld = *pp;
      if (choirHttpPublicHeader(pOld->zName)) {
        pp = &pOld->pNext;
      } else {
        *pp = pOld->pNext;
        runHeaderFree(pOld);
      }
    }
  }
  sqlite3_free(p->zUrl);
  p->zUrl = zTo;
  p->nRedirect++;
  return 1;
}

/* The reply is here: whole, unpacked. */
static void runComplete(ChoirHttp *p) {
  char *zEncoding = choirHttpReply(p, "Content-Encoding");
  if (p->bDelimited && (p->mFlags & CHOIR_HTTP_WHOLE) && p->iStatus < 300) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "the reply has no length, so it cannot be told from a cut one");
  }
  if (zEncoding && (p->mFlags & CHOIR_HTTP_GZIP) &&
      (p->body.n > 0 || p->bDelimited) &&
      (sqlite3_stricmp(zEncoding, "gzip") == 0 ||
       sqlite3_stricmp(zEncoding, "x-gzip") == 0)) {
    ChoirBuf b;
    choirBufInit(&b, &p->err, p->nMax);
    choirGunzip(&p->err, p->body.a, (i64)p->body.n, &b);
    choirBufFree(&p->body);
    b.nMax = p->body.nMax;
    p->body = b;
    p->body.pErr = &p->err;
  }
  sqlite3_free(zEncoding);
}

/* One attempt has ended. */
static void runAttemptDone(ChoirHttp *p, int bRetry, int bSent) {
  i64 nPause;
  if (p->err.rc == SQLITE_OK) {
    runComplete(p);
    bRetry = p->err.rc != SQLITE_OK;
  }
  nPause = runPause(p, bRetry, bSent);
  if (nPause >= 0) {
    p->bMaybeSent |=
        (u8)(bSent && (p->err.rc != SQLITE_OK || p->iStatus >= 500));
    choirErrClear(&p->err);
    choirHttpWireStop(p);
    p->iRetryMs = choirMonotonic() + nPause;
    p->eState = RUN_PAUSE;
  } else if (p->err.rc == SQLITE_OK && runRedirect(p)) {
    choirHttpWireStop(p);
    p->nTried = 0;
    if (p->err.rc == SQLITE_OK) {
      runAttempt(p);
    } else {
      runExplain(p);
      runFinish(p);
    }
  } else {
    if (p->err.rc != SQLITE_OK) {
      p->bMaybeSent |= (u8)bSent;
      runExplain(p);
    }
    runFinish(p);
  }
}

/* An attempt is under way: is it moving? */
static void runWatch(ChoirHttp *p, i64 iNow) {
  i64 nTotal, nMoved;
  int bConnected;
  RunRecord *pRecord;
  nMoved = choirHttpWireMoved(p, &nTotal, &bConnected);
  pRecord = runRecord(p);
  if (pRecord) {
    pRecord->nTried = p->nTried;
    pRecord->nReceived = p->nReceived;
    pRecord->nSent = nMoved > p->nReceived ? nMoved - p->nReceived : 0;
    pRecord->nTotal = nTotal;
  }
  runProgress(p, iNow, nMoved, nTotal);
  if (!bConnected) { /* the connect limit is libcurl's to keep */
    p->iWindowMs = iNow;
  } else if (p->nStallMs > 0 && iNow - p->iWindowMs >= p->nStallMs) {
    if (nMoved - p->nWindow < p->nStallMs * 1024 / 1000) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "less than 1 KiB/s for %lld ms (http.stall_ms)", p->nStallMs);
      runAttemptDone(p, 1, 1);
      return;
    }
    p->iWindowMs = iNow;
    p->nWindow = nMoved;
  }
}

static void runStep(ChoirHttp *p, i64 iNow) {
  int bRetry = 0, bSent = 0;
  if ((p->eState == RUN_WIRE || p->eState == RUN_PAUSE) && p->nTimeoutMs > 0 &&
      iNow - p->iStartMs >= p->nTimeoutMs &&
      !(p->eState == RUN_WIRE && choirHttpWireDone(p, &bRetry, &bSent))) {
    p->bMaybeSent = 1;
    runFail(p, SQLITE_ERROR, "not done within %lld ms (http.timeout_ms)",
            p->nTimeoutMs);
  } else if (p->eState == RUN_WIRE) {
    if (choirHttpWireDone(p, &bRetry, &bSent)) {
      runAttemptDone(p, bRetry, bSent);
    } else {
      runWatch(p, iNow);
    }
  } else if (p->eState == RUN_PAUSE && iNow >= p->iRetryMs) {
    runAttempt(p);
  }
}

/* The next of ap that is done and was not given yet; -1: none. *pnLive tells
** whether any is still under way, *pnMs how long there is nothing to do. */
static int runReady(ChoirHttp **ap, int n, int *pnLive, i64 *pnMs) {
  i64 iNow = choirMonotonic();
  i64 iNextMs = iNow + RUN_TICK_MS;
  int i;
  *pnLive = 0;
  for (i = 0; i < n; i++) {
    runStep(ap[i], iNow);
    if (ap[i]->eState == RUN_DONE) {
      ap[i]->eState = RUN_GIVEN;
      return i;
    }
    *pnLive += ap[i]->eState == RUN_WIRE || ap[i]->eState == RUN_PAUSE;
    if (ap[i]->eState == RUN_PAUSE && ap[i]->iRetryMs < iNextMs) {
      iNextMs = ap[i]->iRetryMs;
    }
    if (ap[i]->nTimeoutMs > 0 &&
        ap[i]->iStartMs + ap[i]->nTimeoutMs < iNextMs) {
      iNextMs = ap[i]->iStartMs + ap[i]->nTimeoutMs;
    }
  }
  *pnMs = iNextMs > iNow ? iNextMs - iNow : 1;
  return -1;
}

/* One turn of all: 0 when *piDone says which is done, or -1: none is left. */
static int runTurn(ChoirConn *pConn, ChoirHttp **ap, int n, int *piDone) {
  ChoirErr err = {0, NULL};
  i64 nMs = 0;
  int nLive, nEnded, j;
  *piDone = runReady(ap, n, &nLive, &nMs);
  if (*piDone >= 0 || nLive == 0) {
    return 0;
  }
  nEnded = choirHttpWirePoll(pConn, &err, (int)nMs);
  if (err.rc == SQLITE_OK && nEnded == 0 && choirInterrupted(pConn)) {
    choirErrSet(&err, SQLITE_INTERRUPT, "interrupted");
  }
  for (j = 0; err.rc != SQLITE_OK && j < n; j++) {
    if ((ap[j]->eState == RUN_WIRE || ap[j]->eState == RUN_PAUSE) &&
        !(err.rc == SQLITE_INTERRUPT && (ap[j]->mFlags & CHOIR_HTTP_CLEANUP))) {
      ap[j]->err.rc = err.rc;
      ap[j]->err.zMsg = err.zMsg ? sqlite3_mprintf("%s", err.zMsg) : NULL;
      runFinish(ap[j]);
    }
  }
  choirErrClear(&err);
  return 1;
}

CHOIR_PRIVATE int choirHttpWait(ChoirConn *pConn, ChoirHttp **ap, int n) {
  int i;
  while (runTurn(pConn, ap, n, &i)) {
    /* until one is done */
  }
  return i;
}

CHOIR_PRIVATE int choirHttpStep(ChoirHttp *p) {
  int i;
  return runTurn(p->pConn, &p, 1, &i);
}

CHOIR_PRIVATE void choirHttpAhead(ChoirHttp *p) {
  ChoirErr err = {0, NULL};
  if (p->err.rc == SQLITE_OK) {
    choirHttpStart(p);
  }
  if (p->eState == RUN_WIRE) {
    choirHttpWirePoll(p->pConn, &err, 0);
  }
  choirErrClear(&err); /* what it is, choirHttpRun will find */
}

CHOIR_PRIVATE void choirHttpRun(ChoirHttp *p, ChoirErr *pErr) {
  if (pErr->rc == SQLITE_OK) {
    if (p->err.rc == SQLITE_OK) {
      choirHttpStart(p);
      choirHttpWait(p->pConn, &p, 1);
    }
    *pErr = p->err;
    p->err.zMsg = NULL; /* the code stays: p is of no use after a failure */
  }
}

CHOIR_PRIVATE void choirHttpFree(ChoirHttp *p) {
  if (p->eState == RUN_WIRE || p->eState == RUN_PAUSE) {
    runFinish(p);
  }
  choirHttpWireStop(p);
  while (p->pHeader) {
    HttpHeader *pHeader = p->pHeader;
    p->pHeader = pHeader->pNext;
    runHeaderFree(pHeader);
  }
  choirBufFree(&p->body);
  choirBufFree(&p->header);
  choirWipeFree(p->zUrl); /* a presigned one is a credential */
  p->zUrl = NULL;
  choirErrClear(&p->err);
}

static const ChoirTvf aRunTvf[] = {
    {"choir_transfers",
     "id, method, url, state, status, attempts, started_at, ms, sent,"
     " received, total, bytes_per_s",
     12, 0, 0, CHOIR_READ, 0, 0, runTransfers, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirHttpRunRegister(ChoirConn *pConn,
                                                   ChoirErr *pErr) {
  choirTvfs(pConn, pErr, aRunTvf);
}
