/* SPDX-License-Identifier: MIT */
/*
** One conversation with a Hrana server: where it is, who is allowed, which
** baton is next, and what its replies say.
**
** A server keeps a stream open as long as it gives a baton; the newest one goes
** with every request, to the base_url that it may have named. The stream is
** closed at the end when there is one.
*/
#include "libsql.h"
#ifndef CHOIR_OMIT_NET
#include <stdlib.h>

enum { STREAM_LINE = 1 << 30 }; /* cap of a line: a row, SQLite's own limit */

/* -------------------------------------------------------------------- open */

/* libsql://host/ and ws(s):// as the HTTP URL that means the same, without a
** '/' at the end; caller frees. */
static char *streamBase(ChoirErr *pErr, const char *zUrl) {
  static const struct {
    const char *zScheme, *zHttp;
  } a[] = {{"libsql://", "https://"},
           {"https://", "https://"},
           {"http://", "http://"},
           {"wss://", "https://"},
           {"ws://", "http://"}};
  int i, nBase = (int)strcspn(zUrl, "?#"), nEnd = nBase, bPlain = 0;
  ChoirHttpUrl url;
  char *z = NULL;
  for (i = 0; i < 5 && z == NULL; i++) {
    int n = (int)strlen(a[i].zScheme);
    if (sqlite3_strnicmp(zUrl, a[i].zScheme, n) == 0) {
      bPlain = i == 0 && strcmp(zUrl + nBase, "?tls=0") == 0;
      while (nEnd > n && zUrl[nEnd - 1] == '/') {
        nEnd--;
      }
      z = choirMprintf(pErr, "%s%.*s", bPlain ? "http://" : a[i].zHttp,
                       nEnd - n, zUrl + n);
    }
  }
  if (z) {
    choirHttpUrl(pErr, z, &url); /* refuses a password, so it may be quoted */
    if (zUrl[nBase] && !bPlain) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%.*s: a query in the URL is refused; give a token by"
                  " choir_secret() or LIBSQL_AUTH_TOKEN",
                  nBase, zUrl);
    }
  } else {
    choirErrSet(
        pErr, SQLITE_ERROR,
        "'%.*s' is no database; write libsql://host, https://host,"
        " http://host:port or the name of a choir_secret of type libsql",
        (int)strcspn(zUrl, ":@?"), zUrl);
  }
  return z;
}

CHOIR_PRIVATE void choirHranaOpen(ChoirHrana *p, ChoirConn *pConn,
                                  ChoirErr *pErr, const char *zWhere) {
  const char *zOwn = choirConfig(pConn, "libsql.url");
  const char *zUrl = zWhere && zWhere[0] ? zWhere : zOwn;
  const char *zToken = NULL;
  const ChoirSecret *pSecret = NULL;
  memset(p, 0, sizeof(*p));
  p->pConn = pConn;
  p->pErr = pErr;
  choirBufInit(&p->text, pErr, STREAM_LINE);
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (zUrl == NULL || zUrl[0] == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no database; name its URL, or set choir_config('libsql.url',"
                " …) or LIBSQL_URL");
    return;
  }
  if (strstr(zUrl, "://") == NULL) {
    pSecret = choirSecretNamed(pConn, pErr, "libsql", zUrl);
    zUrl = pSecret && choirSecretGet(pSecret, "url")
               ? choirSecretGet(pSecret, "url")
               : zUrl;
  } else {
    pSecret = choirSecretFor(pConn, pErr, "libsql", zUrl);
  }
  p->zBase = streamBase(pErr, zUrl);
  if (pSecret) {
    zToken = choirSecretGet(pSecret, "token");
    zToken = zToken ? zToken : choirSecretGet(pSecret, "bearer_token");
  } else {
    zOwn = choirConfigFixed(pConn, "libsql.url");
    if (zOwn && strcmp(zOwn, zUrl) == 0) {
      zToken = choirConfigFixed(pConn, "libsql.token");
    }
  }
  if (zToken && zToken[0]) {
    p->zAuth = choirMprintf(pErr, "Bearer %s", zToken);
  }
}

/* ------------------------------------------------------------------ errors */

/* The server's own words in a reply that is no success. */
static void streamRefused(ChoirHrana *p, const ChoirHttp *pHttp) {
  char *zShow = choirHttpUrlShow(p->pErr, pHttp->zUrl);
  sqlite3_stmt *pStmt = choirJsonReply(
      p->pConn, p->pErr,
      "SELECT coalesce(?1 ->> '$.error.message', ?1 ->> '$.message', ?1 ->>"
      " '$.error'), coalesce(?1 ->> '$.error.code', ?1 ->> '$.code')",
      pHttp->body.a, (i64)pHttp->body.n);
  if (choirStep(p->pErr, pStmt)) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zCode = (const char *)sqlite3_column_text(pStmt, 1);
    choirErrSet(p->pErr,
                pHttp->iStatus == 401 || pHttp->iStatus == 403 ? SQLITE_AUTH
                                                               : SQLITE_ERROR,
                "POST %s: status %d%s%.300s%s%.60s%s", zShow, pHttp->iStatus,
                z ? ": " : "", z ? z : "", zCode ? " (" : "",
                zCode ? zCode : "", zCode ? ")" : "");
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zShow);
}

/* A Hrana error object at zPath of a JSON text, as the error: 1 when there was
** one. iStep > 0: of this statement of several. */
static int streamError(ChoirHrana *p, const char *z, i64 n, const char *zPath,
                       i64 iStep) {
  sqlite3_stmt *pStmt =
      choirJsonStmt(p->pConn, p->pErr,
                    "SELECT e ->> '$.message', e ->> '$.code' FROM"
                    " (SELECT ?1 -> ?2 AS e) WHERE json_type(e) = 'object'",
                    z, n);
  int bError = 0;
  choirBindText(p->pErr, pStmt, 2, zPath, -1);
  if (choirStep(p->pErr, pStmt)) {
    const char *zText = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zCode = (const char *)sqlite3_column_text(pStmt, 1);
    char *zWhich =
        iStep > 0 ? choirMprintf(p->pErr, "statement %lld: ", iStep) : NULL;
    int rc = zCode && strncmp(zCode, "SQLITE_BUSY", 11) == 0 ? SQLITE_BUSY
             : zCode && strncmp(zCode, "SQLITE_CONSTRAINT", 17) == 0
                 ? SQLITE_CONSTRAINT
                 : SQLITE_ERROR;
    choirErrSet(p->pErr, rc, "%s%.500s%s%.60s%s", zWhich ? zWhich : "",
                zText ? zText : "the server gives no reason", zCode ? " (" : "",
                zCode ? zCode : "", zCode ? ")" : "");
    sqlite3_free(zWhich);
    bError = 1;
  }
  sqlite3_finalize(pStmt);
  return bError;
}

/* ---------------------------------------------------------------- requests */

/* The next baton and base_url, at the front of every reply. */
static void streamBaton(ChoirHrana *p, const char *z, i64 n) {
  char *zBaton = choirJsonText(p->pConn, p->pErr, z, n, "$.baton");
  char *zBase = choirJsonText(p->pConn, p->pErr, z, n, "$.base_url");
  choirWipeFree(p->zBaton);
  p->zBaton = zBaton;
  if (zBase) {
    char *zNew = streamBase(p->pErr, zBase);
    /* The token goes with it, so never from TLS to plain text. */
    if (zNew && strncmp(p->zBase, "https:", 6) == 0 &&
        strncmp(zNew, "https:", 6) != 0) {
      choirErrSet(p->pErr, SQLITE_ERROR,
                  "the server sends this stream from %s to %s, which is not"
                  " encrypted",
                  p->zBase, zNew);
    }
    if (zNew && p->pErr->rc == SQLITE_OK) {
      sqlite3_free(p->zBase);
      p->zBase = zNew;
    } else {
      sqlite3_free(zNew);
    }
    sqlite3_free(zBase);
  }
}

/* {"baton":…, and then zRest. */
static void streamBody(ChoirHrana *p, ChoirBuf *pBody, const char *zRest) {
  choirBufText(pBody, "{\"baton\":");
  if (p->zBaton) {
    choirBufJson(pBody, p->zBaton, -1);
  } else {
    choirBufText(pBody, "null");
  }
  choirBufText(pBody, zRest);
}

static void streamHttp(ChoirHrana *p, ChoirHttp *pHttp, const char *zUrl,
                       const ChoirBuf *pBody) {
  choirHttpInit(pHttp, p->pConn, "POST", zUrl ? zUrl : "");
  pHttp->mFlags = CHOIR_HTTP_WHOLE;
  pHttp->pBody = pBody->a;
  pHttp->nBody = (i64)pBody->n;
  choirHttpHeader(pHttp, "Content-Type", "application/json");
  if (p->zAuth) {
    choirHttpHeader(pHttp, "Authorization", p->zAuth);
  }
}

CHOIR_PRIVATE void choirHranaPipeline(ChoirHrana *p, const ChoirBuf *pRequests,
                                      ChoirBuf *pReply) {
  int bAgain = 1;
  while (bAgain && p->pErr->rc == SQLITE_OK) {
    ChoirHttp http;
    ChoirBuf body;
    char *zUrl =
        choirMprintf(p->pErr, "%s/%s/pipeline", p->zBase, p->bV2 ? "v2" : "v3");
    choirBufInit(&body, p->pErr, CHOIR_BUF_JSON);
    streamBody(p, &body, ",\"requests\":[");
    choirBufAppend(&body, pRequests->a, pRequests->n);
    choirBufText(&body, "]}");
    bAgain = 0;
    if (p->pErr->rc == SQLITE_OK) {
      streamHttp(p, &http, zUrl, &body);
      choirHttpRun(&http, p->pErr);
      if (p->pErr->rc == SQLITE_OK && http.iStatus == 404 && !p->bV2 &&
          p->zBaton == NULL) {
        p->bV2 = 1;
        bAgain = 1;
      } else if (p->pErr->rc == SQLITE_OK && http.iStatus != 200) {
        streamRefused(p, &http);
      } else if (p->pErr->rc == SQLITE_OK) {
        streamBaton(p, http.body.a ? http.body.a : "", (i64)http.body.n);
        choirBufAppend(pReply, http.body.a ? http.body.a : "", http.body.n);
      }
      choirHttpFree(&http);
    }
    choirBufFree(&body);
    sqlite3_free(zUrl);
  }
}

/* ------------------------------------------------------------------- batch */

/* A batch of n statements between BEGIN and COMMIT, each on condition that the
** one before it went well. */
static void streamSteps(ChoirBuf *p, const ChoirBuf *pStmts, int n) {
  const char *z = pStmts->a, *zEnd = z + pStmts->n;
  int i;
  choirBufText(p, "{\"type\":\"batch\",\"batch\":{\"steps\":["
                  "{\"stmt\":{\"sql\":\"BEGIN IMMEDIATE\"}}");
  for (i = 0; i < n && p->pErr->rc == SQLITE_OK; i++) {
    const char *zNext = memchr(z, 0, (size_t)(zEnd - z)); /* ends each */
    choirBufPrintf(
        p, ",{\"condition\":{\"type\":\"ok\",\"step\":%d},\"stmt\":", i);
    choirBufAppend(p, z, (u64)(zNext - z));
    choirBufText(p, "}");
    z = zNext + 1;
  }
  choirBufPrintf(p,
                 ",{\"condition\":{\"type\":\"ok\",\"step\":%d},"
                 "\"stmt\":{\"sql\":\"COMMIT\"}}"
                 ",{\"condition\":{\"type\":\"not\",\"cond\":{\"type\":\"ok\","
                 "\"step\":%d}},\"stmt\":{\"sql\":\"ROLLBACK\"}}]}},"
                 "{\"type\":\"close\"}",
                 n, n + 1);
}

CHOIR_PRIVATE void choirHranaBatch(ChoirHrana *p, const ChoirBuf *pStmts, int n,
                                   i64 iFirst, ChoirBuf *pReply) {
  ChoirBuf request, reply;
  char *zResult, zPath[64];
  int i;
  choirBufInit(&request, p->pErr, 2 * CHOIR_HRANA_STEPS);
  choirBufInit(&reply, p->pErr, CHOIR_BUF_JSON);
  streamSteps(&request, pStmts, n);
  choirHranaPipeline(p, &request, &reply);
  if (p->pErr->rc == SQLITE_OK &&
      !streamError(p, reply.a, (i64)reply.n, "$.results[0].error", 0)) {
    /* ROLLBACK may fail where the failure itself has rolled back already. */
    for (i = 0; i <= n + 1; i++) {
      sqlite3_snprintf(sizeof(zPath), zPath,
                       "$.results[0].response.result.step_errors[%d]", i);
      if (streamError(p, reply.a, (i64)reply.n, zPath,
                      i > 0 && i <= n ? iFirst + i - 1 : 0)) {
        break;
      }
    }
    zResult = choirJsonText(p->pConn, p->pErr, reply.a, (i64)reply.n,
                            "$.results[0].response.result");
    sqlite3_snprintf(sizeof(zPath), zPath, "$.step_results[%d]", n + 1);
    if (p->pErr->rc == SQLITE_OK) {
      char *zCommit =
          zResult ? choirJsonText(p->pConn, p->pErr, zResult, -1, zPath) : NULL;
      if (zCommit == NULL) {
        choirErrSet(p->pErr, SQLITE_ERROR,
                    "the server does not say that it committed");
      } else if (pReply) {
        choirBufText(pReply, zResult);
      }
      sqlite3_free(zCommit);
    }
    sqlite3_free(zResult);
  }
  choirBufFree(&request);
  choirBufFree(&reply);
}

/* -------------------------------------------------------------------- rows */

static int streamWrite(void *pArg, i64 iOffset, const void *a, i64 n) {
  ChoirHrana *p = pArg;
  (void)iOffset;
  if (p->iText > 0) { /* what was read makes room */
    memmove(p->text.a, p->text.a + p->iText, (size_t)(p->text.n - p->iText));
    p->text.n -= p->iText;
    p->iText = 0;
  }
  choirBufAppend(&p->text, a, (u64)n);
  return p->pErr->rc != SQLITE_OK;
}

/* The reply is there, or some of it is: does it go well? 0: there is no v3. */
static int streamStatus(ChoirHrana *p) {
  if (!p->bOver) {
    return 1;
  }
  if (p->http.err.rc != SQLITE_OK) {
    if (p->pErr->rc == SQLITE_OK) {
      *p->pErr = p->http.err;
      p->http.err.zMsg = NULL;
    }
  } else if (p->http.iStatus == 404 && p->zBaton == NULL) {
    return 0;
  } else if (p->http.iStatus != 200) {
    streamRefused(p, &p->http);
  }
  return 1;
}

/* JSON is UTF-8; SQLite's functions would pass anything on. */
static void streamUtf8(ChoirErr *pErr, const char *z, i64 n) {
  i64 i = choirUtf8Valid(z, n);
  if (i < n) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the server sent text that is not UTF-8, at byte %lld of %lld",
                i, n);
  }
}

/* The next line of the cursor; NULL at its end. It stays until the next call. */
static const char *streamLine(ChoirHrana *p, i64 *pn) {
  u64 iFrom = p->iText;
  while (p->pErr->rc == SQLITE_OK) {
    char *z = p->text.n > iFrom
                  ? memchr(p->text.a + iFrom, '\n', (size_t)(p->text.n - iFrom))
                  : NULL;
    if (z || (p->bOver && p->text.n > p->iText)) {
      char *zLine = p->text.a + p->iText;
      *pn = (z ? z : p->text.a + p->text.n) - zLine;
      p->iText += (u64)*pn + (z != NULL);
      streamUtf8(p->pErr, zLine, *pn);
      return p->pErr->rc == SQLITE_OK ? zLine : NULL;
    }
    if (p->bOver) {
      return NULL;
    }
    iFrom = p->text.n - p->iText;
    p->bOver = (u8)!choirHttpStep(&p->http);
    iFrom += p->iText; /* streamWrite may have made room */
    if (!streamStatus(p)) {
      return NULL;
    }
  }
  return NULL;
}

/* The kind of a cursor's entry. */
static int streamIs(const char *z, i64 n, const char *zType) {
  char zWant[32];
  int nWant;
  sqlite3_snprintf(sizeof(zWant), zWant, "{\"type\":\"%s\"", zType);
  nWant = (int)strlen(zWant);
  return n >= nWant && memcmp(z, zWant, (size_t)nWant) == 0;
}

/* All rows at once, from a server without v3. */
static void streamWhole(ChoirHrana *p, const ChoirBuf *pStmt) {
  ChoirBuf request;
  choirBufInit(&request, p->pErr, CHOIR_BUF_JSON);
  choirBufText(&request, "{\"type\":\"execute\",\"stmt\":");
  choirBufAppend(&request, pStmt->a, pStmt->n);
  choirBufText(&request, "},{\"type\":\"close\"}");
  p->text.n = 0;
  p->iText = 0;
  choirHranaPipeline(p, &request, &p->text);
  streamUtf8(p->pErr, p->text.a ? p->text.a : "", (i64)p->text.n);
  if (p->pErr->rc == SQLITE_OK &&
      !streamError(p, p->text.a, (i64)p->text.n, "$.results[0].error", 0)) {
    p->zCols = choirJsonText(p->pConn, p->pErr, p->text.a, (i64)p->text.n,
                             "$.results[0].response.result.cols");
    p->pRows = choirJsonStmt(
        p->pConn, p->pErr,
        "SELECT value FROM json_each(?1, '$.results[0].response.result.rows')",
        p->text.a, (i64)p->text.n);
  }
  p->bWhole = 1;
  choirBufFree(&request);
}

/* The normal form of an entry whose first member is not its type. */
static int streamEntry(ChoirHrana *p, const char *z, i64 n,
                       ChoirHranaRow *pRow) {
  char *zType = choirJsonText(p->pConn, p->pErr, z, n, "$.type");
  int bRow = 0;
  if (zType == NULL) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the server sent an entry that has no type");
  } else if (strcmp(zType, "row") == 0) {
    choirHranaRowRead(pRow, p->pErr, z, n, "$.row");
    bRow = 1;
  } else if (strcmp(zType, "step_begin") == 0) {
    sqlite3_free(p->zCols);
    p->zCols = choirJsonText(p->pConn, p->pErr, z, n, "$.cols");
  } else if (strcmp(zType, "step_error") == 0 || strcmp(zType, "error") == 0) {
    if (!streamError(p, z, n, "$.error", 0)) {
      choirErrSet(p->pErr, SQLITE_ERROR, "the server gives no reason");
    }
  } /* step_end, and what later versions may say */
  sqlite3_free(zType);
  return bRow && p->pErr->rc == SQLITE_OK;
}

CHOIR_PRIVATE int choirHranaNext(ChoirHrana *p, ChoirHranaRow *pRow) {
  const char *z;
  i64 n = 0;
  if (p->pErr->rc != SQLITE_OK) {
    return 0;
  }
  if (p->bWhole) {
    if (!choirStep(p->pErr, p->pRows)) {
      return 0;
    }
    z = (const char *)sqlite3_column_text(p->pRows, 0);
    choirHranaRowRead(pRow, p->pErr, z ? z : "",
                      sqlite3_column_bytes(p->pRows, 0), "$");
    return p->pErr->rc == SQLITE_OK;
  }
  while ((z = streamLine(p, &n)) != NULL) {
    if (streamIs(z, n, "row")) {
      choirHranaRowRead(pRow, p->pErr, z, n, "$.row");
      return p->pErr->rc == SQLITE_OK;
    }
    if (n > 0 && streamEntry(p, z, n, pRow)) {
      return 1;
    }
  }
  return 0;
}

CHOIR_PRIVATE void choirHranaBegin(ChoirHrana *p, const ChoirBuf *pStmt) {
  char *zUrl = choirMprintf(p->pErr, "%s/v3/cursor", p->zBase);
  const char *z = NULL;
  i64 n = 0;
  choirBufInit(&p->body, p->pErr, CHOIR_BUF_JSON);
  streamBody(p, &p->body, ",\"batch\":{\"steps\":[{\"stmt\":");
  choirBufAppend(&p->body, pStmt->a, pStmt->n);
  choirBufText(&p->body, "}]}}");
  if (p->pErr->rc == SQLITE_OK && !p->bV2) {
    streamHttp(p, &p->http, zUrl, &p->body);
    p->bHttp = 1;
    p->http.xWrite = streamWrite;
    p->http.pArg = p;
    p->http.nMax = (u64)1 << 62;
    choirHttpStart(&p->http);
    z = streamLine(p, &n);
    if (z) {
      streamBaton(p, z, n);
    } else if (p->pErr->rc == SQLITE_OK && p->http.iStatus == 404) {
      p->bV2 = 1;
    } else {
      choirErrSet(p->pErr, SQLITE_ERROR, "the server sent an empty reply");
    }
  }
  if (p->pErr->rc == SQLITE_OK && p->bV2) {
    streamWhole(p, pStmt);
  }
  if (p->bHttp && (p->bWhole || p->pErr->rc != SQLITE_OK)) {
    choirHttpFree(&p->http);
    p->bHttp = 0;
  }
  sqlite3_free(zUrl);
}

CHOIR_PRIVATE void choirHranaClose(ChoirHrana *p) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirBuf request, reply;
  int i, bAlive = p->zBaton != NULL;
  sqlite3_finalize(p->pRows);
  if (p->bHttp) {
    /* The rest of a reply may be here already; a long one is left, and the
    ** server forgets a stream that it hears nothing more of. */
    p->text.n = p->iText = 0;
    for (i = 0; i < 3 && !p->bOver && p->pErr->rc == SQLITE_OK; i++) {
      p->bOver = (u8)!choirHttpStep(&p->http);
    }
    bAlive = bAlive && p->bOver && p->http.err.rc == SQLITE_OK;
    choirHttpFree(&p->http);
  }
  if (bAlive) {
    p->pErr = &err; /* failing here is no failure of what was done */
    choirBufInit(&request, &err, CHOIR_BUF_SQL);
    choirBufInit(&reply, &err, CHOIR_BUF_JSON);
    choirBufText(&request, "{\"type\":\"close\"}");
    choirHranaPipeline(p, &request, &reply);
    choirBufFree(&request);
    choirBufFree(&reply);
    p->pErr = NULL;
  }
  choirErrClear(&err);
  choirBufFree(&p->text);
  choirBufFree(&p->body);
  sqlite3_free(p->zBase);
  choirWipeFree(p->zAuth);
  choirWipeFree(p->zBaton);
  sqlite3_free(p->zCols);
  memset(p, 0, sizeof(*p));
}
#endif /* CHOIR_OMIT_NET */
