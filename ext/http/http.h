/* SPDX-License-Identifier: MIT */
/*
** http: requests over libcurl, for SQL and for the rooms that speak to one
** remote each.
**
**   run     exchanges: retries, deadlines, redirects    http_run.c
**   wire    one attempt; all that knows libcurl         http_curl.c
**   gunzip  RFC 1952, so that a cut reply is an error   http_gunzip.c
**   url     taking URLs apart                           http_url.c
**   sign    AWS Signature Version 4                     http_sigv4.c
**   aws     the AWS credential chain                    http_aws.c, http_ini.c,
**                                                       http_process.c
**   sql     http_get, jsonrpc, choir_transfers, …       http_sql.c
**
** An exchange:
**
**   ChoirHttp http;
**   choirHttpInit(&http, pConn, "GET", zUrl);
**   choirHttpHeader(&http, "Accept", "application/json");
**   choirHttpRun(&http, pErr);           a status of 404 is no error
**   … http.iStatus, http.body, choirHttpReply(&http, "ETag") …
**   choirHttpFree(&http);
**
** Several at once: choirHttpStart() each, then choirHttpWait() until all are
** done. Everything happens on the calling thread, inside these calls.
*/
#ifndef CHOIR_HTTP_H
#define CHOIR_HTTP_H

#include "../core/core.h"

typedef struct ChoirHttp ChoirHttp;
typedef struct ChoirHttpUrl ChoirHttpUrl;
typedef struct ChoirSigv4 ChoirSigv4;
typedef struct ChoirAws ChoirAws;

/* ---------------------------------------------------------------- run ---- */
enum {
  CHOIR_HTTP_RETRY = 1,      /* may be sent twice though the method is not
                             ** idempotent (GET, HEAD, PUT, DELETE, OPTIONS are) */
  CHOIR_HTTP_GZIP = 2,       /* offer gzip; never together with xWrite */
  CHOIR_HTTP_WHOLE = 4,      /* a reply that only the end of the connection ends
                             ** cannot be told from a cut one: refuse it */
  CHOIR_HTTP_LINK_LOCAL = 8, /* 169.254.0.0/16 and the like may be reached */
  CHOIR_HTTP_FOLLOW = 16,    /* follow as many redirects as http.redirects */
  CHOIR_HTTP_ONCE = 32,      /* one attempt whatever http.attempts says */
  CHOIR_HTTP_CLEANUP = 64    /* an interrupt does not end it: for tidying up
                             ** after one, within a short nTimeoutMs */
};

struct ChoirHttp {
  /* The request. Text and bytes belong to the caller and stay until the end.
  ** The body is pBody[0..nBody), or what xRead gives of nBody bytes. xRead
  ** puts n bytes from iOffset at aTo; an attempt starts at 0 again. When xRead
  ** or xWrite gives up, the reason is its own: err is ABORT, without a text. */
  const char *zMethod;
  char *zUrl; /* owned; xAttempt and redirects may replace it */
  const void *pBody;
  i64 nBody;
  int (*xRead)(void *pArg, i64 iOffset, void *aTo, i64 n); /* not 0: give up */
  /* Called before every attempt, to sign it; may set headers and zUrl. */
  void (*xAttempt)(ChoirHttp *, ChoirErr *);
  /* Where a reply of 2xx goes instead of body; others always go to body.
  ** iOffset 0 begins it (again); not 0: give up. */
  int (*xWrite)(void *pArg, i64 iOffset, const void *a, i64 n);
  void *pArg;
  int mFlags;
  u64 nMax;       /* cap of the reply, default http.max_bytes */
  i64 nTimeoutMs; /* of the whole call, 0: none; default http.timeout_ms */
  i64 nConnectMs; /* default http.connect_timeout_ms */
  i64 nStallMs;   /* default http.stall_ms */
  int nAttempt;   /* default http.attempts */

  /* The reply. */
  ChoirErr err;     /* why there is none; choirHttpRun moves it */
  int iStatus;      /* 200, 404, … */
  ChoirBuf body;    /* unless xWrite took it */
  ChoirBuf header;  /* `HTTP/… \r\n Name: value\r\n …`, of the last reply */
  i64 nReceived;    /* bytes of the body, before decompression */
  u8 bDelimited;    /* only the end of the connection ended the body */
  u8 bMaybeSent;    /* an earlier attempt may have reached the server, its reply
                    ** was lost: a 412 may be one's own success */
  int nTried;       /* attempts made */
  char zRemote[64]; /* address and port */
  const char *zHttp; /* 1.0, 1.1, 2, 3 */
  i64 aUs[5];        /* microseconds from the start of the attempt until: name
                    ** lookup, connect, TLS, first byte, end */

  /* Private. */
  ChoirConn *pConn;
  struct HttpHeader *pHeader; /* of the request */
  struct HttpWire *pWire;     /* the attempt under way, or NULL */
  int eState;
  i64 iStartMs, iRetryMs, iWindowMs, nWindow, nRedirect;
  u64 iTransfer; /* its line in choir_transfers */
};

CHOIR_PRIVATE void choirHttpInit(ChoirHttp *, ChoirConn *, const char *zMethod,
                                 const char *zUrl);
/* Sets a header of the request; NULL takes it away. Copied. */
CHOIR_PRIVATE void choirHttpHeader(ChoirHttp *, const char *zName,
                                   const char *zValue);
/* Adds one more of the same name. */
CHOIR_PRIVATE void choirHttpHeaderAdd(ChoirHttp *, const char *zName,
                                      const char *zValue);
/* Header i of the request; 0 past the last. */
CHOIR_PRIVATE int choirHttpHeaderNth(const ChoirHttp *, int i,
                                     const char **pzName, const char **pzValue);
/* Runs it to its end. An HTTP error status is not an error. */
CHOIR_PRIVATE void choirHttpRun(ChoirHttp *, ChoirErr *);
CHOIR_PRIVATE void choirHttpStart(ChoirHttp *);
/* Started, and the request sent as far as that goes without waiting: the server
** works while the caller does something else, then choirHttpRun. */
CHOIR_PRIVATE void choirHttpAhead(ChoirHttp *);
/* Until one of ap[0..n) that was not given before is done: its index, its
** failure in ->err; -1 when none is left. An interrupt ends them all. */
CHOIR_PRIVATE int choirHttpWait(ChoirConn *, ChoirHttp **ap, int n);
/* Started, goes on a little: until xWrite was given something or a tick has
** passed. 0: it is done, as choirHttpWait says. What is not asked for stays in
** the socket, so a reply of any length is read at the caller's pace. */
CHOIR_PRIVATE int choirHttpStep(ChoirHttp *);
/* A header of the reply, sqlite3_malloc'd, or NULL; sticky in p->err. */
CHOIR_PRIVATE char *choirHttpReply(ChoirHttp *, const char *zName);
/* Stops it if need be and releases everything. */
CHOIR_PRIVATE void choirHttpFree(ChoirHttp *);
/* Sets the headers of the secret of type http that covers the URL, but for
** those that are set already. */
CHOIR_PRIVATE void choirHttpSecret(ChoirHttp *);
/* Headers whose values may be shown. */
CHOIR_PRIVATE int choirHttpPublicHeader(const char *zName);

/* Unix seconds of a date and time in UTC. */
CHOIR_PRIVATE i64 choirHttpSeconds(int iYear, int iMonth, int iDay, int iHour,
                                   int iMinute, int iSecond);
/* Unix seconds of an HTTP date (`Fri, 24 May 2013 00:00:00 GMT`), 0: none. */
CHOIR_PRIVATE i64 choirHttpDate(const char *z);

/* --------------------------------------------------------------- wire ----
** One attempt of an exchange, for http_run.c only.
*/
CHOIR_PRIVATE void choirHttpWireStart(ChoirHttp *);
/* Drives every attempt of the connection; how many have ended. If none, waits
** for at most nMs. */
CHOIR_PRIVATE int choirHttpWirePoll(ChoirConn *, ChoirErr *, int nMs);
/* 1: ended, the exchange holds the reply or p->err; *pbRetry: the failure may
** pass, *pbSent: the request may have reached the server. */
CHOIR_PRIVATE int choirHttpWireDone(ChoirHttp *, int *pbRetry, int *pbSent);
/* Bytes moved so far both ways, how many of the reply are announced (-1) and
** whether the connection stands. */
CHOIR_PRIVATE i64 choirHttpWireMoved(ChoirHttp *, i64 *pnTotal,
                                     int *pbConnected);
/* Where a redirect leads, absolute, caller frees; NULL when it does not. */
CHOIR_PRIVATE char *choirHttpWireRedirect(ChoirHttp *);
CHOIR_PRIVATE void choirHttpWireStop(ChoirHttp *);

/* ------------------------------------------------------------- gunzip ----
** Appends what a[0..n) unpacks to; an error when it is cut short, damaged, or
** more than pOut's cap.
*/
CHOIR_PRIVATE void choirGunzip(ChoirErr *, const void *a, i64 n,
                               ChoirBuf *pOut);

/* ---------------------------------------------------------------- url ---- */
struct ChoirHttpUrl {
  const char *zScheme, *zHost, *zPort, *zPath, *zQuery; /* into the text */
  int nScheme, nHost, nPort, nPath, nQuery; /* path starts at its '/' */
  int iPort;                                /* 80 and 443 by default */
  u8 bTls, bDefaultPort;
};
/* Takes an http or https URL apart. Refuses credentials in it. */
CHOIR_PRIVATE void choirHttpUrl(ChoirErr *, const char *zUrl, ChoirHttpUrl *);
/* Is the host this very machine, whatever a resolver says: localhost, [::1] or
** four numbers of 127.0.0.0/8? Keys may go there without TLS. */
CHOIR_PRIVATE int choirHttpLoopback(const ChoirHttpUrl *);
/* The URL for people: without query and fragment. */
CHOIR_PRIVATE char *choirHttpUrlShow(ChoirErr *, const char *zUrl);
/* Appends z[0..n) percent-encoded; letters, digits and -._~ stay, and '/'
** when bSlash. */
CHOIR_PRIVATE void choirUrlEncode(ChoirBuf *, const char *z, i64 n, int bSlash);
/* Appends z[0..n) with %XX undone; a '%' that starts none stays. */
CHOIR_PRIVATE void choirUrlDecode(ChoirBuf *, const char *z, i64 n);

/* --------------------------------------------------------------- sign ----
** AWS Signature Version 4. Fill in the request, sign, read the results.
*/
typedef struct ChoirSigv4Header {
  const char *zName, *zValue;
} ChoirSigv4Header;

struct ChoirSigv4 {
  const char *zMethod, *zUrl;
  const char *zRegion, *zService;
  char zTime[17];       /* 20150830T123600Z; empty: now */
  const char *zPayload; /* hex SHA-256 of the body, or UNSIGNED-PAYLOAD */
  const char *zAccess, *zSecret, *zToken; /* zToken may be NULL */
  const ChoirSigv4Header *aHeader;        /* host is added when absent */
  int nHeader;
  u8 bQuery;     /* a presigned URL */
  u8 bNormalize; /* dot segments resolved, path encoded twice: not for s3 */
  i64 nExpires;  /* seconds, presigned only */

  /* Results; choirSigv4Free releases them. */
  ChoirBuf canonical, toSign, auth, url, signedNames;
  char zSignature[65];
  char zHost[280]; /* value of the host header */
};
CHOIR_PRIVATE void choirSigv4(ChoirErr *, ChoirSigv4 *);
CHOIR_PRIVATE void choirSigv4Free(ChoirSigv4 *);
/* `20150830T123600Z` of Unix seconds. */
CHOIR_PRIVATE void choirSigv4Time(i64 iSec, char z[17]);
/* Signs p as it stands for region and service: sets Authorization,
** X-Amz-Date, X-Amz-Content-Sha256 (s3) and X-Amz-Security-Token. zPayload
** NULL: that of pBody. iSkew: seconds to add to the clock. */
CHOIR_PRIVATE void choirSigv4Http(ChoirErr *, ChoirHttp *, const ChoirAws *,
                                  const char *zService, const char *zPayload,
                                  i64 iSkew);

/* ---------------------------------------------------------------- aws ----
** What signs requests to zUrl ("s3://bucket/key"): from the secret of type s3
** that covers it, or the default chain when there is none. zAccess NULL:
** requests go unsigned (provider none). Kept and refreshed five minutes
** before they expire; bRefresh: now (after ExpiredToken). The strings stay
** until the next call on this connection.
*/
struct ChoirAws {
  const char *zAccess, *zSecret, *zToken, *zRegion, *zEndpoint, *zStyle;
  const char *zSource; /* "secret data", "environment", "profile x", … */
  i64 iExpires;        /* Unix seconds, 0: never */
};
CHOIR_PRIVATE void choirAws(ChoirConn *, ChoirErr *, const char *zUrl,
                            int bRefresh, ChoirAws *);

/* The value of zKey in section zSection of an AWS file's text, or NULL; the
** caller frees. In ~/.aws/config sections are named `profile x`. */
CHOIR_PRIVATE char *choirIniGet(ChoirErr *, const char *zText,
                                const char *zSection, const char *zKey);
/* 1 when the section is there. */
CHOIR_PRIVATE int choirIniHas(const char *zText, const char *zSection);

CHOIR_PRIVATE CHOIR_COLD void choirHttpRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_HTTP_H */
