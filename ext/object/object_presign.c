/* SPDX-License-Identifier: MIT */
/*
** Presigned URLs as the only credential: an endpoint that the user names mints
** one for each method and key.
**
**   SELECT choir_secret('api', '{"type":"presign",
**     "url":"https://api.test/presign", "bearer_token":"…",
**     "scope":"s3://choiros-data/users/u1/"}');
**
** Every s3:// URL that the scope covers is then reached that way. The endpoint
** gets a POST of {"method":"PUT","bucket":…,"key":…,"user":…}, the user only
** when one is configured, and answers with a JSON object that has the URL as
** url, uploadUrl or downloadUrl, and perhaps headers to send with it. One URL
** serves one request and is kept nowhere.
**
** What presigned URLs cannot do is refused by the s3 backend: list, delete,
** uploads in parts.
*/
#include "object_s3.h"
#ifndef CHOIR_OMIT_NET

/* The request's body; caller frees. */
static char *presignAsk(const ChoirS3Store *p, ChoirErr *pErr,
                        const char *zMethod, const char *zKey) {
  const char *zUser = choirConfig(p->base.pConn, "user");
  char *zFull = choirMprintf(pErr, "%s%s", p->zRoot, zKey);
  ChoirBuf b;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "{\"method\":\"%s\",\"bucket\":", zMethod);
  choirBufJson(&b, p->zBucket, -1);
  choirBufText(&b, ",\"key\":");
  choirBufJson(&b, zFull ? zFull : "", -1);
  if (zUser && zUser[0]) {
    choirBufText(&b, ",\"user\":");
    choirBufJson(&b, zUser, -1);
  }
  choirBufText(&b, "}");
  sqlite3_free(zFull);
  return choirBufTake(&b);
}

/* The URL in the endpoint's reply. */
static char *presignRead(const ChoirS3Store *p, ChoirErr *pErr,
                         const char *zMethod, const ChoirHttp *pHttp,
                         const char *zShow) {
  ChoirHttpUrl url;
  ChoirErr bad = {SQLITE_OK, NULL};
  sqlite3_stmt *pStmt = choirJsonReply(
      p->base.pConn, pErr,
      "SELECT coalesce(?1 ->> '$.url', ?1 ->> ?2, ?1 ->> '$.presignedUrl')",
      pHttp->body.a, (i64)pHttp->body.n);
  const char *z;
  char *zUrl = NULL;
  choirBindText(pErr, pStmt, 2,
                strcmp(zMethod, "PUT") == 0 ? "$.uploadUrl" : "$.downloadUrl",
                -1);
  if (choirStep(pErr, pStmt)) {
    z = (const char *)sqlite3_column_text(pStmt, 0);
    if (z) {
      choirHttpUrl(&bad, z, &url);
    }
    if (pHttp->iStatus != 200) {
      choirErrSet(pErr,
                  pHttp->iStatus == 401 || pHttp->iStatus == 403 ? SQLITE_AUTH
                                                                 : SQLITE_ERROR,
                  "the endpoint %s gave no URL to %s %s: status %d", zShow,
                  zMethod, p->base.zUrl, pHttp->iStatus);
    } else if (z == NULL || bad.rc != SQLITE_OK) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "the endpoint %s gave no URL to %s %s: its reply has no url,"
                  " uploadUrl or downloadUrl that is http or https",
                  zShow, zMethod, p->base.zUrl);
    } else {
      zUrl = choirMprintf(pErr, "%s", z);
    }
  }
  choirErrClear(&bad);
  sqlite3_finalize(pStmt);
  return zUrl;
}

CHOIR_PRIVATE char *choirPresignUrl(const ChoirS3Store *p, ChoirErr *pErr,
                                    const char *zMethod, const char *zKey,
                                    char **pzReply) {
  const ChoirSecret *pSecret;
  const char *zEndpoint, *zToken;
  char *zBody, *zShow, *zAuth = NULL, *zUrl = NULL;
  ChoirHttp http;
  *pzReply = NULL;
  if (p->zFixed) {
    return choirMprintf(pErr, "%s", p->zFixed);
  }
  pSecret = choirSecretFor(p->base.pConn, pErr, "presign", p->base.zUrl);
  zEndpoint = choirSecretGet(pSecret, "url");
  zToken = choirSecretGet(pSecret, "bearer_token");
  if (zEndpoint == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the secret of type presign for %s has no url; it is that of"
                " the endpoint which gives presigned URLs",
                p->base.zUrl);
    return NULL;
  }
  zBody = presignAsk(p, pErr, zMethod, zKey);
  zShow = choirHttpUrlShow(pErr, zEndpoint);
  if (zToken) {
    zAuth = choirMprintf(pErr, "Bearer %s", zToken);
  }
  choirHttpInit(&http, p->base.pConn, "POST", zEndpoint);
  http.mFlags = CHOIR_HTTP_RETRY | CHOIR_HTTP_WHOLE;
  http.nMax = 1 << 16;
  http.pBody = zBody;
  http.nBody = zBody ? (i64)strlen(zBody) : 0;
  choirHttpHeader(&http, "Content-Type", "application/json");
  choirHttpHeader(&http, "Accept", "application/json");
  if (zAuth) {
    choirHttpHeader(&http, "Authorization", zAuth);
  }
  choirHttpRun(&http, pErr);
  zUrl = presignRead(p, pErr, zMethod, &http, zShow);
  if (zUrl) {
    *pzReply = choirMprintf(pErr, "%s", http.body.a);
  }
  choirWipe(http.body.a, http.body.n);
  choirHttpFree(&http);
  choirWipeFree(zAuth);
  sqlite3_free(zBody);
  sqlite3_free(zShow);
  return zUrl;
}

CHOIR_PRIVATE void choirPresignHeaders(ChoirHttp *p, const char *zReply) {
  sqlite3_stmt *pStmt =
      choirJsonStmt(p->pConn, &p->err,
                    "SELECT key, atom FROM json_each(?1, '$.headers')"
                    " WHERE atom IS NOT NULL",
                    zReply, -1);
  while (choirStep(&p->err, pStmt)) {
    choirHttpHeader(p, (const char *)sqlite3_column_text(pStmt, 0),
                    (const char *)sqlite3_column_text(pStmt, 1));
  }
  sqlite3_finalize(pStmt);
}

#endif /* CHOIR_OMIT_NET */
