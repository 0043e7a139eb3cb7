/* SPDX-License-Identifier: MIT */
/*
** Documents that choir_index() has not seen: chunked, embedded and indexed in
** a private database of the connection, in the tables of the workspace, so
** that a search is right before any index exists and never stale. Whatever is
** in there supersedes what the workspace's index says of the same document; a
** document that is gone is in there without chunks.
**
** It is kept between searches and follows the log. What is in the log up to a
** row can only change by taking that row away (a roll-back, a pruning), and a
** row that comes in its place has another id. So:
**
**   cursor, last row the same          nothing to do
**   cursor the same, last row stands   read what came after it
**   (without a cursor also: no row is missing since)
**   otherwise                          read everything that is pending anew;
**                                      what is unchanged (by its hash) stays
**
** Without the log's triggers, or with an empty log, nothing can be known from
** the log: then every search looks at every document's hash.
**
** The database is in a temporary file that SQLite writes when 64 MB do not
** hold it, has no journal, and is thrown away after an error.
*/
#include "search.h"

static void liveDrop(SearchLive *p) {
  if (p->store.pConn) {
    choirConnUnref(p->store.pConn);
  }
  sqlite3_free(p->zFile);
  sqlite3_free(p->zTail);
  sqlite3_free(p->zModel);
  memset(p, 0, sizeof(*p));
}

static void liveFree(void *pArg) { liveDrop(pArg); }

static const ChoirStateType liveState = {"search", sizeof(SearchLive),
                                         liveFree};

/* The tables of the workspace in the private database. */
static void liveOpen(SearchLive *p, ChoirConn *pHost, ChoirErr *pErr,
                     const ChoirEmbedModel *pModel) {
  p->store.pHost = pHost;
  p->store.pModel = pModel;
  p->zModel = choirMprintf(pErr, "%s", pModel->zName);
  p->store.pConn = choirConnPrivate(pErr, 1);
  if (p->store.pConn == NULL) {
    return;
  }
  choirExecText(p->store.pConn, pErr,
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
                "PRAGMA cache_size=-65536");
  choirSearchMake(p->store.pConn, pErr);
  p->store.bText = choirSearchHasFts(pHost, pErr);
  if (p->store.bText) {
    choirSearchMakeFts(p->store.pConn, pErr);
  }
}

/* The last row of the log: 0 and "" when there is none. */
static i64 liveTail(ChoirConn *pConn, ChoirErr *pErr, char **pzId) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT seq, id FROM ~.action_log ORDER BY seq DESC LIMIT 1");
  int bRow = choirStep(pErr, p);
  i64 iSeq = bRow ? sqlite3_column_int64(p, 0) : 0;
  const char *z = bRow ? (const char *)sqlite3_column_text(p, 1) : "";
  *pzId = choirMprintf(pErr, "%s", z ? z : "");
  choirStmtDone(pConn, p);
  return iSeq;
}

static int liveStands(ChoirConn *pConn, ChoirErr *pErr, i64 iSeq,
                      const char *zId) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr, "SELECT 1 FROM ~.action_log WHERE seq=?1 AND id=?2");
  int bRow;
  choirBindInt(pErr, p, 1, iSeq);
  choirBindText(pErr, p, 2, zId, -1);
  bRow = choirStep(pErr, p);
  choirStmtDone(pConn, p);
  return bRow;
}

/* The text index of the workspace cannot be used: it is missing, or was left
** behind by a SQLite without FTS5. */
static int liveTextIsOld(ChoirConn *pConn, ChoirErr *pErr) {
  char *z = choirMetaGet(pConn, pErr, "search.text");
  int bOld = z == NULL || strcmp(z, "fts5") != 0 ||
             !choirExists(pConn, pErr, "table", "_choir_fts");
  sqlite3_free(z);
  return bOld;
}

/* Is no row missing among those after iSeq? While the text index has no place
** in the log, nothing else tells of a pruning there. */
static int liveIsWhole(ChoirConn *pConn, ChoirErr *pErr, i64 iSeq, i64 iTail) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT count(*) FROM ~.action_log WHERE seq > ?1 AND"
                " action_type <> 'LOG_CUT'");
  i64 n;
  choirBindInt(pErr, p, 1, iSeq);
  n = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : -1;
  choirStmtDone(pConn, p);
  return n == iTail - iSeq;
}

/* This moment's view of the workspace. */
typedef struct LiveView {
  char *zFile;
  i64 iCursor, iTail;
  char *zTail;
  int bTrusted, bAll;
} LiveView;

static void liveLook(LiveView *p, ChoirConn *pConn, ChoirErr *pErr) {
  const char *zName = sqlite3_db_filename(pConn->db, choirSchema(pConn));
  p->zFile =
      choirMprintf(pErr, "%s/%s", choirSchema(pConn), zName ? zName : "");
  p->iCursor = choirSearchCursor(pConn, pErr);
  p->iTail = liveTail(pConn, pErr, &p->zTail);
  p->bTrusted = choirSearchTrusted(pConn, pErr) && p->iTail > 0;
  p->bAll = p->iCursor < 0 || !p->bTrusted || !choirSearchIsMade(pConn, pErr) ||
            (choirSearchHasFts(pConn, pErr) && liveTextIsOld(pConn, pErr));
}

/* Does the log up to p's last row still stand, read for the same purpose? */
static int liveFollows(const SearchLive *p, const LiveView *pView,
                       ChoirConn *pConn, ChoirErr *pErr) {
  return pView->bTrusted && p->iTail > 0 && p->bAll == pView->bAll &&
         (p->bAll || p->iCursor == pView->iCursor) &&
         liveStands(pConn, pErr, p->iTail, p->zTail) &&
         (!p->bAll || liveIsWhole(pConn, pErr, p->iTail, pView->iTail));
}

static void liveRefresh(SearchLive *p, const LiveView *pView, ChoirConn *pConn,
                        ChoirErr *pErr, const ChoirEmbedModel *pModel) {
  int bFollows = p->store.pConn && liveFollows(p, pView, pConn, pErr);
  if (bFollows && p->iTail == pView->iTail) {
    return;
  }
  if (!bFollows && !(p->bAll && pView->bAll)) {
    liveDrop(p); /* it may hold documents that are not pending any more */
  }
  if (p->store.pConn == NULL) {
    liveOpen(p, pConn, pErr, pModel);
  }
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  choirExecText(p->store.pConn, pErr, "BEGIN");
  if (bFollows) {
    choirSearchPullLog(&p->store, pErr, p->iTail, 0, NULL);
  } else if (pView->bAll) {
    choirSearchPullAll(&p->store, pErr, NULL);
  } else {
    choirSearchPullLog(&p->store, pErr, pView->iCursor, 0, NULL);
  }
  choirExecText(p->store.pConn, pErr, "COMMIT");
}

CHOIR_PRIVATE SearchLive *choirSearchLive(ChoirConn *pConn, ChoirErr *pErr,
                                          const ChoirEmbedModel *pModel) {
  SearchLive *p = choirState(pConn, pErr, &liveState);
  LiveView view = {NULL, -1, 0, NULL, 0, 0};
  liveLook(&view, pConn, pErr);
  if (pErr->rc == SQLITE_OK) {
    if (p->store.pConn &&
        (p->zModel == NULL || strcmp(p->zModel, pModel->zName) != 0 ||
         p->zFile == NULL || strcmp(p->zFile, view.zFile) != 0)) {
      liveDrop(p);
    }
    liveRefresh(p, &view, pConn, pErr, pModel);
  }
  if (pErr->rc != SQLITE_OK) {
    if (p) {
      liveDrop(p);
    }
    sqlite3_free(view.zFile);
    sqlite3_free(view.zTail);
    return NULL;
  }
  sqlite3_free(p->zFile);
  sqlite3_free(p->zTail);
  p->zFile = view.zFile;
  p->zTail = view.zTail;
  p->iTail = view.iTail;
  p->iCursor = view.iCursor;
  p->bAll = view.bAll;
  return p;
}
