/* SPDX-License-Identifier: MIT */
/*
** The third list of choir_search: what the user's Qdrant collection finds, one
** hit of each document, in the order of their ranks.
**
** A document of this very workspace that is gone here is left out, also when
** no flush has told the server yet.
*/
#include "search.h"
#ifndef CHOIR_OMIT_NET
#include "../qdrant/qdrant.h"
#endif

CHOIR_PRIVATE void choirSearchRemoteFree(SearchRemote *p) {
  int i;
  for (i = 0; i < p->n; i++) {
    sqlite3_free(p->a[i].zId);
    sqlite3_free(p->a[i].zPath);
    sqlite3_free(p->a[i].zPreview);
  }
  sqlite3_free(p->a);
  sqlite3_free(p->zFailed);
  memset(p, 0, sizeof(*p));
}

CHOIR_PRIVATE int choirSearchRemoteFind(const SearchRemote *p,
                                        const char *zKind, const char *zId) {
  int i;
  for (i = 0; i < p->n; i++) {
    if (strcmp(p->a[i].zId, zId) == 0 &&
        strcmp(choirSearchKind(p->a[i].eKind), zKind) == 0) {
      return i + 1;
    }
  }
  return 0;
}

#ifdef CHOIR_OMIT_NET

CHOIR_PRIVATE void choirSearchSend(ChoirConn *pConn, ChoirErr *pErr,
                                   ChoirBuf *pResult) {
  (void)pConn, (void)pResult;
  choirErrSet(pErr, SQLITE_ERROR,
              "remote needs the network, which this build leaves out");
}

CHOIR_PRIVATE void choirSearchRemote(SearchRemote *p, ChoirConn *pConn,
                                     ChoirErr *pErr, sqlite3_value *pQuery,
                                     const char *zPrefix, i64 nMost) {
  (void)p, (void)pConn, (void)pQuery, (void)zPrefix, (void)nMost;
  choirErrSet(pErr, SQLITE_ERROR,
              "scopes remote and all need the network, which this build leaves"
              " out");
}

#else

CHOIR_PRIVATE void choirSearchSend(ChoirConn *pConn, ChoirErr *pErr,
                                   ChoirBuf *pResult) {
  choirQdrantFlush(pConn, pErr, CHOIR_QDRANT_FLUSH, pResult);
}

/* Is a document of this workspace still there? */
static int remoteLives(ChoirConn *pConn, ChoirErr *pErr, int eKind,
                       const char *zId) {
  sqlite3_stmt *pStmt =
      choirStmt(pConn, pErr,
                "SELECT CASE ?1 WHEN 0 THEN EXISTS (SELECT 1 FROM ~.artifacts"
                " WHERE id=?2 AND deleted_at IS NULL) WHEN 1 THEN EXISTS"
                " (SELECT 1 FROM ~.messages WHERE id=?2) ELSE EXISTS"
                " (SELECT 1 FROM ~.memories WHERE id=?2) END");
  int b;
  choirBindInt(pErr, pStmt, 1, eKind);
  choirBindText(pErr, pStmt, 2, zId, -1);
  b = choirStep(pErr, pStmt) && sqlite3_column_int(pStmt, 0);
  choirStmtDone(pConn, pStmt);
  return b;
}

static int remoteUnder(const char *zPath, const char *zPrefix) {
  int bSlash = zPrefix && zPrefix[0] == '/';
  return zPrefix == NULL || zPrefix[0] == 0 ||
         (zPath && strncmp(zPath + (!bSlash && zPath[0] == '/'), zPrefix,
                           strlen(zPrefix)) == 0);
}

static char *remoteText(ChoirErr *pErr, QdrantSpan payload, const char *zKey) {
  i64 n;
  return choirQdrantText(pErr, choirQdrantGet(payload, zKey), &n);
}

static void remoteHit(SearchRemote *p, ChoirConn *pConn, ChoirErr *pErr,
                      QdrantSpan payload, const char *zLineage,
                      const char *zPrefix) {
  SearchRemoteHit hit = {SEARCH_ARTIFACT, NULL, NULL, NULL};
  QdrantSpan kind = choirQdrantGet(payload, "kind");
  int i, bUse;
  for (i = 0; i < SEARCH_KINDS; i++) {
    hit.eKind = choirQdrantIs(kind, choirSearchKind(i)) ? i : hit.eKind;
  }
  hit.zId = remoteText(pErr, payload, "artifact_id");
  hit.zPath = remoteText(pErr, payload, "path");
  hit.zPreview = remoteText(pErr, payload, "content_preview");
  bUse = hit.zId && remoteUnder(hit.zPath, zPrefix) &&
         !choirSearchRemoteFind(p, choirSearchKind(hit.eKind), hit.zId) &&
         (zLineage == NULL ||
          !choirQdrantIs(choirQdrantGet(payload, "workspace"), zLineage) ||
          remoteLives(pConn, pErr, hit.eKind, hit.zId));
  if (bUse && pErr->rc == SQLITE_OK) {
    SearchRemoteHit *a = choirRealloc(pErr, p->a, (u64)(p->n + 1) * sizeof(*a));
    if (a) {
      p->a = a;
      p->a[p->n++] = hit;
      return;
    }
  }
  sqlite3_free(hit.zId);
  sqlite3_free(hit.zPath);
  sqlite3_free(hit.zPreview);
}

CHOIR_PRIVATE void choirSearchRemote(SearchRemote *p, ChoirConn *pConn,
                                     ChoirErr *pErr, sqlite3_value *pQuery,
                                     const char *zPrefix, i64 nMost) {
  char *zLineage = choirMetaGet(pConn, pErr, "sync.lineage");
  QdrantScan scan;
  QdrantHit hit;
  choirQdrantScanInit(&scan, pErr);
  choirQdrantOpen(pConn, pErr, &scan.to, NULL);
  choirQdrantScanQuery(&scan, pErr, pQuery, "query");
  choirBufText(&scan.payload,
               "[\"user_id\",\"model\",\"artifact_id\",\"kind\",\"path\","
               "\"content_preview\",\"workspace\"]");
  if (zPrefix && zPrefix[0] == '/' &&
      choirQdrantVersion(&scan.to, pErr) >= 1019) {
    choirBufText(&scan.filter, ",{\"key\":\"path\",\"match\":{\"prefix\":");
    choirBufJson(&scan.filter, zPrefix, -1);
    choirBufText(&scan.filter, "}}");
  }
  scan.nK = nMost < 50                 ? 100
            : nMost * 2 > QDRANT_K_MAX ? QDRANT_K_MAX
                                       : nMost * 2;
  while (p->n < nMost && choirQdrantScanNext(&scan, pErr, &hit)) {
    remoteHit(p, pConn, pErr, hit.payload, zLineage, zPrefix);
  }
  choirQdrantScanFree(&scan);
  sqlite3_free(zLineage);
}

#endif
