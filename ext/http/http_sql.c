/* SPDX-License-Identifier: MIT */
/*
** http_get, http_post, http_do, http_headers, jsonrpc, graphql.
**
** The table-valued functions have the columns of sqlite-http. Their row is one
** exchange; a status of 404 is a row, a broken connection an error. Headers
** come as wire text (`Name: value` lines, what http_headers() makes) or as a
** JSON object. A secret of type http whose scope covers the URL adds its
** headers; those given explicitly win.
**
** What request_headers shows is an allow-list: other values read ********.
*/
#include "http.h"

CHOIR_PRIVATE CHOIR_COLD void choirHttpRunRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirSigv4Register(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirAwsRegister(ChoirConn *, ChoirErr *);

/* --------------------------------------------------------------- arguments */

/* `Name: value` lines, CRLF or LF. */
static void sqlHeaderLines(ChoirHttp *p, const char *z) {
  while (*z && p->err.rc == SQLITE_OK) {
    size_t nLine = strcspn(z, "\n");
    size_t n = nLine && z[nLine - 1] == '\r' ? nLine - 1 : nLine;
    const char *zColon = memchr(z, ':', n);
    if (n > 0 && zColon == NULL) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "headers has a line without a colon; use http_headers('Name',"
                  " 'value', …)");
    } else if (n > 0) {
      char *zName = choirMprintf(&p->err, "%.*s", (int)(zColon - z), z);
      const char *zValue = zColon + 1 + strspn(zColon + 1, " \t");
      char *zCopy =
          zValue <= z + n
              ? choirMprintf(&p->err, "%.*s", (int)(z + n - zValue), zValue)
              : choirMprintf(&p->err, "%s", "");
      if (p->err.rc == SQLITE_OK) {
        choirHttpHeaderAdd(p, zName, zCopy);
      }
      sqlite3_free(zName);
      choirWipeFree(zCopy);
    }
    z += nLine + (z[nLine] == '\n');
  }
}

static void sqlHeaderJson(ChoirHttp *p, const char *z) {
  sqlite3_stmt *pStmt = choirJsonReply(
      p->pConn, &p->err,
      "SELECT key, atom, ?1 IS NOT NULL FROM json_each(coalesce(?1, '[0]'))", z,
      -1);
  while (choirStep(&p->err, pStmt)) {
    const char *zName = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zValue = (const char *)sqlite3_column_text(pStmt, 1);
    if (!sqlite3_column_int(pStmt, 2) || zName == NULL || zValue == NULL) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "headers is neither `Name: value` lines nor a JSON object of"
                  " names and values");
    } else {
      choirHttpHeaderAdd(p, zName, zValue);
    }
  }
  sqlite3_finalize(pStmt);
}

static void sqlHeaders(ChoirHttp *p, sqlite3_value *v) {
  const char *z = choirArgTextOrNull(&p->err, v, "headers");
  if (z && p->err.rc == SQLITE_OK) {
    z += strspn(z, " \t\r\n");
    if (*z == '{') {
      sqlHeaderJson(p, z);
    } else {
      sqlHeaderLines(p, z);
    }
  }
}

/* {"name":"value"} as one Cookie header. */
static void sqlCookies(ChoirHttp *p, sqlite3_value *v) {
  const char *z = choirArgTextOrNull(&p->err, v, "cookies");
  sqlite3_stmt *pStmt;
  ChoirBuf b;
  if (z == NULL) {
    return;
  }
  choirBufInit(&b, &p->err, 1 << 16);
  pStmt = choirJsonReply(p->pConn, &p->err,
                         "SELECT key, atom FROM json_each(coalesce(?1, '[0]'))",
                         z, -1);
  while (choirStep(&p->err, pStmt)) {
    const char *zName = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zValue = (const char *)sqlite3_column_text(pStmt, 1);
    if (sqlite3_column_type(pStmt, 0) != SQLITE_TEXT || zName == NULL ||
        zValue == NULL || strpbrk(zName, "=; ") || strpbrk(zValue, ";, ")) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "cookies must be a JSON object of names and values without"
                  " ';', ',' or spaces");
    } else {
      choirBufText(&b, b.n ? "; " : "");
      choirBufText(&b, zName);
      choirBufText(&b, "=");
      choirBufText(&b, zValue);
    }
  }
  sqlite3_finalize(pStmt);
  if (b.n && p->err.rc == SQLITE_OK) {
    choirHttpHeader(p, "Cookie", b.a);
  }
  choirBufFree(&b);
}

static int sqlHasHeader(const ChoirHttp *p, const char *zHeader) {
  const char *zName, *zValue;
  int i;
  for (i = 0; choirHttpHeaderNth(p, i, &zName, &zValue); i++) {
    if (sqlite3_stricmp(zName, zHeader) == 0) {
      return 1;
    }
  }
  return 0;
}

CHOIR_PRIVATE void choirHttpSecret(ChoirHttp *p) {
  const ChoirSecret *pSecret =
      p->err.rc == SQLITE_OK
          ? choirSecretFor(p->pConn, &p->err, "http", p->zUrl)
          : NULL;
  const char *zKey, *zValue;
  int i;
  for (i = 0; choirSecretNth(pSecret, i, &zKey, &zValue); i++) {
    if (zValue == NULL) {
      choirErrSet(&p->err, SQLITE_AUTH,
                  "secret %s: the environment variable of %s is not set",
                  choirSecretName(pSecret), zKey);
    } else if (strcmp(zKey, "bearer_token") == 0 &&
               !sqlHasHeader(p, "Authorization")) {
      char *z = choirMprintf(&p->err, "Bearer %s", zValue);
      if (z) {
        choirHttpHeader(p, "Authorization", z);
        choirWipeFree(z);
      }
    } else if (strncmp(zKey, "headers.", 8) == 0 &&
               !sqlHasHeader(p, zKey + 8)) {
      choirHttpHeader(p, zKey + 8, zValue);
    }
  }
}

/* --------------------------------------------------------------- exchanges */

typedef struct SqlCursor {
  ChoirCursor base;
  ChoirHttp http;
  i64 iEnd;   /* Unix milliseconds */
  u8 bShared; /* http.body.a is counted: see bodyHolds */
} SqlCursor;

enum {
  COL_URL,
  COL_METHOD,
  COL_HEADERS,
  COL_COOKIES,
  COL_BODY,
  COL_STATUS,
  COL_STATUS_CODE,
  COL_REPLY_HEADERS,
  COL_REPLY_COOKIES,
  COL_REPLY_BODY,
  COL_REMOTE,
  COL_TIMINGS,
  COL_META,
  COL_N
};
#define SQL_COLUMNS                                                            \
  "request_url, request_method, request_headers, request_cookies,"             \
  " request_body, response_status, response_status_code, response_headers,"    \
  " response_cookies, response_body, remote_address, timings, meta, "

/* A large body becomes an SQL value without being copied, as often as its column
** is read. How many values and cursors hold it is kept in the last bytes of its
** own allocation, because a value's destructor is told nothing else. All of them
** are of one connection. */
static u32 *bodyHolds(char *a) {
  return (u32 *)(void *)(a + (sqlite3_msize(a) & ~(u64)3) - sizeof(u32));
}

static void bodyRelease(void *a) {
  if (--*bodyHolds(a) == 0) {
    sqlite3_free(a);
  }
}

/* The body, held once more; NULL on failure. */
static char *bodyShare(SqlCursor *p) {
  ChoirBuf *pBody = &p->http.body;
  if (!p->bShared) {
    pBody->pErr = &p->base.err;
    choirBufReserve(pBody, pBody->n + 2 * sizeof(u32));
    if (p->base.err.rc != SQLITE_OK) {
      return NULL;
    }
    *bodyHolds(pBody->a) = 1;
    p->bShared = 1;
  }
  ++*bodyHolds(pBody->a);
  return pBody->a;
}

static void sqlReset(ChoirCursor *pCur) {
  SqlCursor *p = (SqlCursor *)pCur;
  if (p->bShared) {
    bodyRelease(p->http.body.a);
    p->http.body.a = NULL;
    p->bShared = 0;
  }
  choirHttpFree(&p->http);
  memset(&p->http, 0, sizeof(ChoirHttp));
}

#define SQL_SHARE 65536 /* bytes of a body that is not copied */

static void sqlNext(ChoirCursor *pCur) { pCur->bEof = 1; }

static u64 sqlLimit(ChoirConn *pConn, u64 nMax) {
  u64 n = (u64)sqlite3_limit(pConn->db, SQLITE_LIMIT_LENGTH, -1);
  return n < nMax ? n : nMax;
}

static void sqlBody(ChoirHttp *p, sqlite3_value *v) {
  if (v == NULL || sqlite3_value_type(v) == SQLITE_NULL) {
    return;
  }
  p->pBody = sqlite3_value_type(v) == SQLITE_BLOB
                 ? sqlite3_value_blob(v)
                 : (const void *)sqlite3_value_text(v);
  p->nBody = sqlite3_value_bytes(v);
  if (p->pBody == NULL && p->nBody > 0) {
    choirErrNomem(&p->err);
  }
  p->pBody = p->pBody ? p->pBody : "";
}

static void sqlExchange(ChoirCursor *pCur, const char *zMethod, int iUrl,
                        int iHeaders, int iBody, int iCookies) {
  SqlCursor *p = (SqlCursor *)pCur;
  const char *zUrl = choirArgText(&pCur->err, pCur->apArg[iUrl], "url");
  if (pCur->err.rc != SQLITE_OK) {
    return;
  }
  choirHttpInit(&p->http, pCur->pConn, zMethod, zUrl);
  p->http.nMax = sqlLimit(pCur->pConn, p->http.nMax);
  p->http.mFlags = CHOIR_HTTP_GZIP | CHOIR_HTTP_FOLLOW;
  sqlHeaders(&p->http, pCur->apArg[iHeaders]);
  sqlCookies(&p->http, pCur->apArg[iCookies]);
  if (iBody >= 0) {
    sqlBody(&p->http, pCur->apArg[iBody]);
  }
  choirHttpSecret(&p->http);
  if (p->http.err.rc == SQLITE_OK &&
      sqlHasHeader(&p->http, "Accept-Encoding")) {
    p->http.mFlags &= ~CHOIR_HTTP_GZIP; /* the caller unpacks */
  }
  choirHttpRun(&p->http, &pCur->err);
  p->iEnd = choirNow();
}

/*
** SQL: http_get(url[, headers[, cookies]]) -> TABLE(request_url,
**   request_method, request_headers, request_cookies, request_body,
**   response_status, response_status_code, response_headers,
**   response_cookies, response_body, remote_address, timings, meta)
**
** One GET as one row; an HTTP error status is a row too. response_body is text
** when its Content-Type says text, JSON or XML and it is valid UTF-8, else a
** blob. timings and meta are JSON objects; meta.complete is false when only
** the end of the connection ended the reply, so that it may be cut short.
**
**   url      TEXT, http or https, without credentials
**   headers  TEXT, `Name: value` lines as http_headers() makes them, or a JSON
**            object
**   cookies  TEXT, a JSON object
**
** A secret of type http whose scope covers the url adds its headers. Limits,
** retries, redirects, proxy and the list of allowed hosts are the settings
** http.* of choir_settings. Link-local addresses are refused.
**
** Errors: no connection, a limit, a reply that is cut short; the message names
** method and url without its query.
**
** > SELECT response_body FROM http_get('http://169.254.169.254/')
** ! http_get: GET http://169.254.169.254/: a link-local address is refused
*/
static void sqlGet(ChoirCursor *p) { sqlExchange(p, "GET", 0, 1, -1, 2); }

/*
** SQL: http_post(url[, headers[, body[, cookies]]]) -> TABLE(request_url,
**   request_method, request_headers, request_cookies, request_body,
**   response_status, response_status_code, response_headers,
**   response_cookies, response_body, remote_address, timings, meta)
**
** One POST as one row; see http_get. It is never sent twice.
**
**   body  TEXT or BLOB; say what it is by a Content-Type header
**
** > SELECT response_body FROM http_post('http:///', NULL, '{}')
** ! http_post: POST http:///: the URL has no host: http:///
*/
static void sqlPost(ChoirCursor *p) { sqlExchange(p, "POST", 0, 1, 2, 3); }

/*
** SQL: http_do(method, url[, headers[, body[, cookies]]]) -> TABLE(
**   request_url, request_method, request_headers, request_cookies,
**   request_body, response_status, response_status_code, response_headers,
**   response_cookies, response_body, remote_address, timings, meta)
**
** One request of any method as one row; see http_get. GET, HEAD, PUT, DELETE
** and OPTIONS are tried again when the failure may pass.
**
**   method  TEXT, 1 to 15 capital letters
**
** > SELECT response_status_code FROM http_do('TRACE', 'http://localhost/')
** ! http_do: method 'TRACE' is not 1 to 15 capital letters, or not allowed
*/
static void sqlDo(ChoirCursor *p) {
  const char *z = choirArgText(&p->err, p->apArg[0], "method");
  if (z && (strlen(z) < 1 || strlen(z) > 15 ||
            strspn(z, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != strlen(z) ||
            strcmp(z, "TRACE") == 0 || strcmp(z, "CONNECT") == 0)) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "method '%.40s' is not 1 to 15 capital letters, or not allowed",
                z);
  }
  sqlExchange(p, z, 1, 2, 3, 4);
}

/* ----------------------------------------------------------------- columns */

static void sqlRequestHeaders(SqlCursor *p, sqlite3_context *pCtx) {
  const char *zName, *zValue;
  ChoirBuf b;
  int i;
  choirBufInit(&b, &p->base.err, CHOIR_BUF_SQL);
  for (i = 0; choirHttpHeaderNth(&p->http, i, &zName, &zValue); i++) {
    choirBufText(&b, zName);
    choirBufText(&b, ": ");
    choirBufText(&b, choirHttpPublicHeader(zName) ? zValue : "********");
    choirBufText(&b, "\r\n");
  }
  choirBufResult(&b, pCtx);
}

/* Set-Cookie lines as a JSON array. */
static void sqlReplyCookies(SqlCursor *p, sqlite3_context *pCtx) {
  const char *z = p->http.header.a;
  ChoirBuf b;
  choirBufInit(&b, &p->base.err, CHOIR_BUF_SQL);
  while (z && *z) {
    size_t n = strcspn(z, "\r\n");
    if (sqlite3_strnicmp(z, "Set-Cookie:", 11) == 0) {
      size_t nSkip = 11 + strspn(z + 11, " \t");
      choirBufText(&b, b.n ? "," : "[");
      choirBufJson(&b, z + nSkip, nSkip < n ? (i64)(n - nSkip) : 0);
    }
    z += n;
    z += strspn(z, "\r\n");
  }
  if (b.n) {
    choirBufText(&b, "]");
    choirBufResult(&b, pCtx);
  }
  choirBufFree(&b);
}

static int sqlIsText(ChoirHttp *p) {
  static const char *const az[] = {"text/%",     "%json%",
                                   "%xml%",      "%javascript%",
                                   "%charset=%", "%x-www-form-urlencoded%"};
  char *zType = choirHttpReply(p, "Content-Type");
  int i, b = 0;
  for (i = 0; zType && i < 6 && !b; i++) {
    b = sqlite3_strlike(az[i], zType, 0) == 0;
  }
  sqlite3_free(zType);
  return b && choirUtf8Valid(p->body.a, (i64)p->body.n) == (i64)p->body.n &&
         (p->body.n == 0 || memchr(p->body.a, 0, p->body.n) == NULL);
}

static void sqlReplyBody(SqlCursor *p, sqlite3_context *pCtx) {
  const ChoirBuf *pBody = &p->http.body;
  int bShare = pBody->n >= SQL_SHARE, bText = sqlIsText(&p->http);
  const char *a = bShare ? bodyShare(p) : pBody->a ? pBody->a : "";
  void (*xFree)(void *) = bShare ? bodyRelease : SQLITE_TRANSIENT;
  if (a && bText) {
    sqlite3_result_text64(pCtx, a, pBody->n, xFree, SQLITE_UTF8);
  } else if (a) {
    sqlite3_result_blob64(pCtx, a, pBody->n, xFree);
  }
}

/* Times of the last attempt, in the form of SQLite's datetime(). */
static void sqlTimings(SqlCursor *p, sqlite3_context *pCtx) {
  static const char *const azKey[] = {
      "dns_end", "connect_end", "tls_handshake_end", "first_byte", "body_end"};
  i64 iStart = p->iEnd - p->http.aUs[4] / 1000;
  ChoirBuf b;
  int i;
  choirBufInit(&b, &p->base.err, CHOIR_BUF_SQL);
  for (i = -1; i < 5; i++) {
    i64 iMs = iStart + (i < 0 ? 0 : p->http.aUs[i] / 1000);
    char z[17];
    if (i == 2 && p->http.aUs[2] == 0) {
      continue; /* no TLS, or a connection used again */
    }
    choirSigv4Time(iMs / 1000, z);
    choirBufPrintf(&b, "%s\"%s\":\"%.4s-%.2s-%.2s %.2s:%.2s:%.2s.%03d\"",
                   i < 0 ? "{" : ",", i < 0 ? "start" : azKey[i], z, z + 4,
                   z + 6, z + 9, z + 11, z + 13, (int)(iMs % 1000));
  }
  choirBufText(&b, "}");
  choirBufResult(&b, pCtx);
}

static void sqlText(sqlite3_context *pCtx, const char *z, size_t n) {
  sqlite3_result_text(pCtx, z, (int)n, SQLITE_TRANSIENT);
}

/* response_status is what follows `HTTP/1.1 ` ("200 OK"); response_headers
** what follows that line. */
static void sqlReplyHead(ChoirHttp *p, sqlite3_context *pCtx, int iCol) {
  const char *z = p->header.a ? p->header.a : "";
  size_t nLine = strcspn(z, "\r\n");
  if (iCol == COL_STATUS) {
    size_t nSkip = strcspn(z, " \r\n");
    nSkip += z[nSkip] == ' ';
    while (nLine > nSkip && z[nLine - 1] == ' ') {
      nLine--;
    }
    sqlText(pCtx, z + nSkip, nLine - nSkip);
  } else {
    size_t n = strlen(z);
    nLine += strspn(z + nLine, "\r\n");
    while (n >= nLine + 4 && memcmp(z + n - 4, "\r\n\r\n", 4) == 0) {
      n -= 2;
    }
    sqlText(pCtx, z + nLine, n - nLine);
  }
}

static void sqlColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int iCol) {
  SqlCursor *p = (SqlCursor *)pCur;
  ChoirHttp *pHttp = &p->http;
  switch (iCol) {
  case COL_URL:
    sqlText(pCtx, pHttp->zUrl, strlen(pHttp->zUrl));
    break;
  case COL_METHOD:
    sqlText(pCtx, pHttp->zMethod, strlen(pHttp->zMethod));
    break;
  case COL_HEADERS:
    sqlRequestHeaders(p, pCtx);
    break;
  case COL_COOKIES:
    if (sqlHasHeader(pHttp, "Cookie")) {
      sqlText(pCtx, "********", 8);
    }
    break;
  case COL_BODY:
    if (pHttp->pBody) {
      sqlite3_result_blob64(pCtx, pHttp->pBody, (u64)pHttp->nBody,
                            SQLITE_TRANSIENT);
    }
    break;
  case COL_STATUS:
  case COL_REPLY_HEADERS:
    sqlReplyHead(pHttp, pCtx, iCol);
    break;
  case COL_STATUS_CODE:
    sqlite3_result_int(pCtx, pHttp->iStatus);
    break;
  case COL_REPLY_COOKIES:
    sqlReplyCookies(p, pCtx);
    break;
  case COL_REPLY_BODY:
    sqlReplyBody(p, pCtx);
    break;
  case COL_REMOTE:
    sqlText(pCtx, pHttp->zRemote, strlen(pHttp->zRemote));
    break;
  case COL_TIMINGS:
    sqlTimings(p, pCtx);
    break;
  default: {
    char z[160];
    sqlite3_snprintf(sizeof(z), z,
                     "{\"http\":\"%s\",\"attempts\":%d,\"redirects\":%lld,"
                     "\"received\":%lld,\"complete\":%s}",
                     pHttp->zHttp, pHttp->nTried, pHttp->nRedirect,
                     pHttp->nReceived, pHttp->bDelimited ? "false" : "true");
    sqlText(pCtx, z, strlen(z));
    break;
  }
  }
  if (pHttp->err.rc == SQLITE_NOMEM) { /* a header was not read */
    choirErrNomem(&pCur->err);
  }
}

/*
** SQL: http_headers(name, value, ...) -> TEXT
**
** Headers in wire form, `Name: value` lines, for http_get, http_post and
** http_do.
**
**   name, value  TEXT; a NULL value leaves the header out
**
** NULL: a NULL name is an error. Errors: an odd number of arguments; a name
** that is not a token; a value with a control character.
**
** > SELECT replace(http_headers('Accept', 'a/b', 'X-Id', 7), char(13,10), '|')
** = Accept: a/b|X-Id: 7|
*/
static void sqlHeadersFunc(ChoirCall *pCall) {
  ChoirHttp http; /* checks names and values */
  const char *zName, *zValue;
  ChoirBuf b;
  int i;
  memset(&http, 0, sizeof(http));
  if (pCall->nArg % 2) {
    choirErrSet(&pCall->err, SQLITE_ERROR,
                "takes pairs of name and value, got %d arguments", pCall->nArg);
  }
  for (i = 0; i + 1 < pCall->nArg && pCall->err.rc == SQLITE_OK; i += 2) {
    zName = choirArgText(&pCall->err, pCall->apArg[i], "name");
    zValue = (const char *)sqlite3_value_text(pCall->apArg[i + 1]);
    if (pCall->err.rc == SQLITE_OK && zValue) {
      choirHttpHeaderAdd(&http, zName, zValue);
      pCall->err = http.err;
      memset(&http.err, 0, sizeof(http.err));
    }
  }
  choirBufInit(&b, &pCall->err, CHOIR_BUF_SQL);
  for (i = 0; choirHttpHeaderNth(&http, i, &zName, &zValue); i++) {
    choirBufPrintf(&b, "%s: %s\r\n", zName, zValue);
  }
  choirBufResult(&b, pCall->pCtx);
  choirBufFree(&b);
  choirHttpFree(&http);
}

/* ------------------------------------------------------------ JSON services */

/* The bare value as the result, JSON text with its subtype. */
static void sqlJsonResult(ChoirCall *pCall, sqlite3_stmt *pStmt, int iCol) {
  sqlite3_result_text(pCall->pCtx,
                      (const char *)sqlite3_column_text(pStmt, iCol),
                      sqlite3_column_bytes(pStmt, iCol), SQLITE_TRANSIENT);
  sqlite3_result_subtype(pCall->pCtx, 'J');
}

/* Posts zBody and gives the value at ?2, or the error at ?3. */
static void sqlService(ChoirCall *pCall, const char *zUrl,
                       const ChoirBuf *pBody, sqlite3_value *pHeaders,
                       const char *zValue, const char *zMessage) {
  ChoirHttp http;
  sqlite3_stmt *pStmt;
  char *zShow;
  if (pCall->err.rc != SQLITE_OK) {
    return;
  }
  choirHttpInit(&http, pCall->pConn, "POST", zUrl);
  http.nMax = sqlLimit(pCall->pConn, http.nMax);
  http.mFlags = CHOIR_HTTP_GZIP;
  http.pBody = pBody->a;
  http.nBody = (i64)pBody->n;
  choirHttpHeader(&http, "Content-Type", "application/json");
  choirHttpHeader(&http, "Accept", "application/json");
  sqlHeaders(&http, pHeaders);
  choirHttpSecret(&http);
  choirHttpRun(&http, &pCall->err);
  pStmt = choirJsonReply(pCall->pConn, &pCall->err,
                         "SELECT ?1 -> ?2, json_extract(?1, ?3)", http.body.a,
                         (i64)http.body.n);
  choirBindText(&pCall->err, pStmt, 2, zValue, -1);
  choirBindText(&pCall->err, pStmt, 3, zMessage, -1);
  if (choirStep(&pCall->err, pStmt)) {
    zShow = choirHttpUrlShow(&pCall->err, zUrl);
    if (sqlite3_column_type(pStmt, 1) != SQLITE_NULL) {
      choirErrSet(&pCall->err, SQLITE_ERROR, "POST %s: the server says: %.300s",
                  zShow, sqlite3_column_text(pStmt, 1));
    } else if (http.iStatus >= 300 ||
               sqlite3_column_type(pStmt, 0) == SQLITE_NULL) {
      choirErrSet(&pCall->err, SQLITE_ERROR,
                  "POST %s: status %d with a reply that has no %s", zShow,
                  http.iStatus, zValue + 2);
    } else {
      sqlJsonResult(pCall, pStmt, 0);
    }
    sqlite3_free(zShow);
  }
  sqlite3_finalize(pStmt);
  choirHttpFree(&http);
}

/*
** SQL: jsonrpc(url, method[, params[, headers]]) -> TEXT
**
** Calls a method of a JSON-RPC 2.0 service and returns its result as JSON
** (->> '$' unwraps a string).
**
**   params   TEXT, a JSON array or object, or NULL
**   headers  as for http_get
**
** NULL: a NULL url or method is an error.
** Errors: the service's own error message; no connection; a reply without
** result. It is never sent twice.
** Source: https://www.jsonrpc.org/specification
**
** > SELECT jsonrpc('http://localhost/', 'ping', '[')
** ! jsonrpc: params is not valid JSON: [
*/
static void sqlJsonrpc(ChoirCall *p) {
  const char *zUrl = choirArgText(&p->err, p->apArg[0], "url");
  const char *zMethod = choirArgText(&p->err, p->apArg[1], "method");
  ChoirBuf b;
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirBufText(&b, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":");
  choirBufJson(&b, zMethod ? zMethod : "", -1);
  if (p->nArg > 2 && sqlite3_value_type(p->apArg[2]) != SQLITE_NULL) {
    const char *z = choirArgJson(p->pConn, &p->err, p->apArg[2], "params");
    choirBufText(&b, ",\"params\":");
    choirBufText(&b, z ? z : "");
  }
  choirBufText(&b, "}");
  sqlService(p, zUrl, &b, p->nArg > 3 ? p->apArg[3] : NULL, "$.result",
             "$.error.message");
  choirBufFree(&b);
}

/*
** SQL: graphql(url, query[, variables[, headers]]) -> TEXT
**
** Sends a query to a GraphQL service and returns its data as JSON.
**
**   query      TEXT
**   variables  TEXT, a JSON object, or NULL
**   headers    as for http_get
**
** NULL: a NULL url or query is an error.
** Errors: the first of the service's errors, also when it gave a part of the
** data; no connection; a reply without data. It is never sent twice.
** Source: https://spec.graphql.org/
**
** > SELECT graphql('http://localhost/', '{ a }', '{')
** ! graphql: variables is not valid JSON: {
*/
static void sqlGraphql(ChoirCall *p) {
  const char *zUrl = choirArgText(&p->err, p->apArg[0], "url");
  const char *zQuery = choirArgText(&p->err, p->apArg[1], "query");
  ChoirBuf b;
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirBufText(&b, "{\"query\":");
  choirBufJson(&b, zQuery ? zQuery : "", -1);
  if (p->nArg > 2 && sqlite3_value_type(p->apArg[2]) != SQLITE_NULL) {
    const char *z = choirArgJson(p->pConn, &p->err, p->apArg[2], "variables");
    choirBufText(&b, ",\"variables\":");
    choirBufText(&b, z ? z : "");
  }
  choirBufText(&b, "}");
  sqlService(p, zUrl, &b, p->nArg > 3 ? p->apArg[3] : NULL, "$.data",
             "$.errors[0].message");
  choirBufFree(&b);
}

static const ChoirFunc aSqlFunc[] = {
    {"http_headers", 0, -1, CHOIR_PURE, 0, sqlHeadersFunc, NULL},
    {"jsonrpc", 2, 4, CHOIR_EFFECT, CHOIR_SUBTYPE, sqlJsonrpc, NULL},
    {"graphql", 2, 4, CHOIR_EFFECT, CHOIR_SUBTYPE, sqlGraphql, NULL},
};

static const ChoirTvf aSqlTvf[] = {
    {"http_get", SQL_COLUMNS "url HIDDEN, headers HIDDEN, cookies HIDDEN",
     COL_N, 1, 3, CHOIR_EFFECT, 0, sizeof(SqlCursor), sqlGet, sqlNext,
     sqlColumn, sqlReset},
    {"http_post",
     SQL_COLUMNS "url HIDDEN, headers HIDDEN, body HIDDEN, cookies HIDDEN",
     COL_N, 1, 4, CHOIR_EFFECT, 0, sizeof(SqlCursor), sqlPost, sqlNext,
     sqlColumn, sqlReset},
    {"http_do",
     SQL_COLUMNS "method HIDDEN, url HIDDEN, headers HIDDEN, body HIDDEN,"
                 " cookies HIDDEN",
     COL_N, 2, 5, CHOIR_EFFECT, 0, sizeof(SqlCursor), sqlDo, sqlNext, sqlColumn,
     sqlReset},
};

CHOIR_PRIVATE CHOIR_COLD void choirHttpRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aSqlFunc);
  choirTvfs(pConn, pErr, aSqlTvf);
  choirHttpRunRegister(pConn, pErr);
  choirSigv4Register(pConn, pErr);
  choirAwsRegister(pConn, pErr);
}
