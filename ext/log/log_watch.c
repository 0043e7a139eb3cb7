/* SPDX-License-Identifier: MIT */
/*
** watch_define(), watch_poll(), watch_wait(), log_versions: queries whose results
** are watched, and waiting for somebody else's commit.
**
** A watch is a view, _choir_watch_<label>, and nothing else. What this connection
** saw of it last is kept in memory. A poll looks at nothing while no commit of
** others (PRAGMA data_version), no change of our own and no change of the schema
** has happened; and not at a watch all of whose tables are tracked with every
** column while the log has no record of them.
**
** Waiting is done on a connection of its own: inside a statement of the host the
** snapshot is pinned. It looks at data_version every few milliseconds, which reads
** a few bytes of shared memory, and sleeps in between.
*/
#include "log.h"

#define WATCH_PREFIX "_choir_watch_"
#define WATCH_SLEEP 20 /* milliseconds, at most */

typedef struct Watch {
  char *zLabel;
  ChoirLogPlan plan; /* the tables that it reads */
  u8 aHash[32];
  i64 nRow;
  i64 iTold;  /* the row of the last poll that told it; -1: none */
  u8 bKnown;  /* a result has been seen */
  u8 bPlan;   /* plan is that of the schema as it is */
  u8 bListed; /* its view is there */
} Watch;

typedef struct WatchState {
  Watch *a;
  int n;
  i64 iData, iSchema, nChange; /* as they were at the last poll */
  i64 iSeq;                    /* last record of the log then, and its id */
  char *zId;
} WatchState;

static void watchFree(Watch *p) {
  sqlite3_free(p->zLabel);
  choirLogPlanFree(&p->plan);
}

static void watchStateFree(void *pArg) {
  WatchState *p = pArg;
  int i;
  for (i = 0; i < p->n; i++) {
    watchFree(&p->a[i]);
  }
  sqlite3_free(p->a);
  sqlite3_free(p->zId);
}

static const ChoirStateType watchState = {"watch", sizeof(WatchState),
                                          watchStateFree};

static const char *watchLabel(ChoirErr *pErr, sqlite3_value *v) {
  const char *z = choirArgText(pErr, v, "label");
  size_t n = z ? strspn(z, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvw"
                           "xyz0123456789_.:$-")
               : 0;
  if (z && (n == 0 || n > 64 || z[n])) {
    choirErrSet(pErr, SQLITE_ERROR,
                "label must be 1 to 64 of A-Z, a-z, 0-9, _, ., :, $ and -, got"
                " '%.80s'",
                z);
  }
  return z;
}

/* ------------------------------------------------------------- watch_define */

/*
** SQL: watch_define(label, sql) -> TEXT
**
** Watches a query: watch_poll() says when its result has changed. It is kept as
** a view, so every program can read it. Gives {"label","tables"}: the tables that
** it reads. Defining a label again replaces it; NULL for sql removes it.
**
**   label  TEXT, 1 to 64 of A-Z, a-z, 0-9, _, ., :, $ and -
**   sql    TEXT, one SELECT over tables of the workspace's schema; with an ORDER
**          BY where order matters
**
** NULL: an error for label; a NULL sql removes the watch.
** Errors: SQL that SQLite does not take for a view.
**
** > SELECT length(watch_define('activePersona$', 'SELECT name, memories FROM active_persona'));
** > SELECT label, rows FROM watch_poll
** = activePersona$|0
** > SELECT watch_define('two words', 'SELECT 1')
** ! watch_define: label must be 1 to 64 of A-Z, a-z, 0-9, _, ., :, $ and -, got 'two words'
*/
static void watchDefineCall(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  ChoirErr *pErr = &p->err;
  const char *zLabel = watchLabel(pErr, p->apArg[0]);
  const char *zSql = choirArgTextOrNull(pErr, p->apArg[1], "sql");
  const char *zTail = NULL;
  ChoirLogPlan plan = {NULL, 0, 0};
  sqlite3_stmt *pStmt = NULL;
  char *zView, *z;
  ChoirBuf b;
  int i;
  choirNeedWorkspace(pConn, pErr);
  zView = choirMprintf(pErr, WATCH_PREFIX "%s", zLabel ? zLabel : "");
  if (zView && choirExists(pConn, pErr, "view", zView)) {
    choirExec(pConn, pErr, "DROP VIEW ~.\"%w\"", zView);
  }
  z = choirMprintf(pErr, "CREATE VIEW \"%w\".\"%w\" AS %s", choirSchema(pConn),
                   zView ? zView : "", zSql ? zSql : "");
  if (z && zSql) {
    choirErrDb(pErr, pConn->db,
               sqlite3_prepare_v2(pConn->db, z, -1, &pStmt, &zTail));
    if (pErr->rc == SQLITE_OK && zTail && zTail[strspn(zTail, " \t\r\n;")]) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "sql must be one SELECT, and goes on with"
                  " '%.40s'",
                  zTail);
    }
    choirStep(pErr, pStmt);
    sqlite3_finalize(pStmt);
    sqlite3_free(z);
    z = choirMprintf(pErr, "SELECT * FROM \"%w\".\"%w\"", choirSchema(pConn),
                     zView);
    choirLogPlanRead(pConn, pErr, &plan, z ? z : "", NULL);
  }
  sqlite3_free(z);
  sqlite3_free(zView);
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "{\"label\":\"%s\",\"tables\":[", zLabel ? zLabel : "");
  for (i = 0; i < plan.n; i++) {
    choirBufText(&b, i ? "," : "");
    choirBufJson(&b, plan.az[i], -1);
  }
  choirBufText(&b, "]}");
  choirBufResult(&b, p->pCtx);
  choirLogPlanFree(&plan);
}

/* ----------------------------------------------- a connection that waits */

#define WATCH_FILE "watched" /* what the file is called on it */

/* NULL where nobody else can commit: no file. choirConnUnref() closes it. */
static ChoirConn *watchOpen(ChoirConn *pConn, ChoirErr *pErr) {
  const char *zFile = sqlite3_db_filename(pConn->db, choirSchema(pConn));
  ChoirConn *pOwn;
  sqlite3_stmt *p;
  if (pErr->rc != SQLITE_OK || zFile == NULL || zFile[0] == 0) {
    return NULL;
  }
  pOwn = choirConnPrivate(pErr, 0);
  if (pOwn) {
    sqlite3_busy_timeout(pOwn->db, 1000);
    p = choirLogPrepare(pOwn, pErr, "ATTACH ?1 AS " WATCH_FILE);
    choirBindText(pErr, p, 1, zFile, -1);
    choirStep(pErr, p);
    sqlite3_finalize(p);
  }
  return pOwn;
}

static i64 watchInt(ChoirConn *pConn, ChoirErr *pErr, const char *zSchema,
                    const char *zSql) {
  sqlite3_stmt *p = choirLogPrepare(pConn, pErr, zSql, zSchema);
  i64 i = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : 0;
  sqlite3_finalize(p);
  return i;
}

#define WATCH_DATA "PRAGMA \"%w\".data_version"
#define WATCH_SEQ "SELECT coalesce(max(seq), 0) FROM \"%w\".action_log"

/* Sleeps until data_version is another than *piData; 0 when time is over. */
static int watchSleep(ChoirConn *pConn, ChoirErr *pErr, ChoirConn *pOwn,
                      i64 *piData, i64 iUntil) {
  sqlite3_stmt *p = choirLogPrepare(pOwn, pErr, WATCH_DATA, WATCH_FILE);
  int nSleep = 1, bNew = 0;
  while (pErr->rc == SQLITE_OK) {
    i64 iData = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : 0;
    i64 nLeft = iUntil - choirMonotonic();
    sqlite3_reset(p);
    bNew = iData != *piData;
    *piData = iData;
    if (bNew || nLeft <= 0) {
      break;
    }
    if (choirInterrupted(pConn)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
    } else {
      sqlite3_sleep((int)(nLeft < nSleep ? nLeft : nSleep));
      nSleep = nSleep * 2 > WATCH_SLEEP ? WATCH_SLEEP : nSleep * 2;
    }
  }
  sqlite3_finalize(p);
  return bNew && pErr->rc == SQLITE_OK;
}

/*
** SQL: watch_wait(since_seq, timeout_ms) -> INTEGER
**
** Waits until the log has a record after since_seq, written by any connection or
** process, and returns the last seq; NULL when the time is over first, or where
** nobody else can write (a database in memory). Sees a commit within 50 ms and
** sleeps meanwhile. Use it in a SELECT of its own, outside a transaction; then ask
** log_changes(since_seq) or watch_poll().
**
**   since_seq   INTEGER, the last record that the caller has seen
**   timeout_ms  INTEGER, at most 3600000
**
** NULL: an error for either argument.
** Errors: interrupted.
**
** > SELECT log_record('A', '{}');
** > SELECT watch_wait(0, 1000), watch_wait(1, 10)
** = 1|NULL
*/
static void watchWaitCall(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  i64 iSince = choirArgInt(pErr, p->apArg[0], "since_seq", 0, INT64_MAX);
  i64 iUntil = choirMonotonic() +
               choirArgInt(pErr, p->apArg[1], "timeout_ms", 0, 3600000);
  i64 iSeq, iData;
  ChoirConn *pOwn;
  choirNeedWorkspace(p->pConn, pErr);
  iSeq = watchInt(p->pConn, pErr, choirSchema(p->pConn), WATCH_SEQ);
  pOwn = iSeq <= iSince ? watchOpen(p->pConn, pErr) : NULL;
  if (pOwn) {
    iData = watchInt(pOwn, pErr, WATCH_FILE, WATCH_DATA);
    do { /* a commit after this look changes iData */
      iSeq = watchInt(pOwn, pErr, WATCH_FILE, WATCH_SEQ);
    } while (iSeq <= iSince &&
             watchSleep(p->pConn, pErr, pOwn, &iData, iUntil));
    choirConnUnref(pOwn);
  }
  if (iSeq > iSince && pErr->rc == SQLITE_OK) {
    sqlite3_result_int64(p->pCtx, iSeq);
  }
}

/* --------------------------------------------------------------- watch_poll */

/* Every watch that has a view, in order of its label. */
static void watchList(ChoirConn *pConn, ChoirErr *pErr, WatchState *pState) {
  sqlite3_stmt *p = choirStmt(pConn, pErr,
                              "SELECT substr(name, 14) FROM ~.sqlite_schema"
                              " WHERE type='view' AND name GLOB"
                              " '" WATCH_PREFIX "*' ORDER BY name");
  int i;
  for (i = 0; i < pState->n; i++) {
    pState->a[i].bListed = 0;
  }
  while (choirStep(pErr, p)) {
    const char *z = (const char *)sqlite3_column_text(p, 0);
    for (i = 0; z && i < pState->n && strcmp(pState->a[i].zLabel, z); i++) {
    }
    if (z && i == pState->n) {
      Watch *a = choirRealloc(pErr, pState->a, (u64)(i + 1) * sizeof(*a));
      if (a == NULL) {
        break;
      }
      pState->a = a;
      memset(&a[i], 0, sizeof(*a));
      a[i].zLabel = choirMprintf(pErr, "%s", z);
      pState->n += a[i].zLabel != NULL;
    }
    if (i < pState->n) {
      pState->a[i].bListed = 1;
    }
  }
  choirStmtDone(pConn, p);
  for (i = pState->n - 1; i >= 0 && pErr->rc == SQLITE_OK; i--) {
    if (!pState->a[i].bListed) {
      watchFree(&pState->a[i]);
      memmove(&pState->a[i], &pState->a[i + 1],
              (size_t)(pState->n - i - 1) * sizeof(Watch));
      pState->n--;
    }
  }
}

/* Does the log record every change of a table, and has it none since iSeq? */
static int watchQuiet(ChoirConn *pConn, ChoirErr *pErr, const char *zTable,
                      i64 iSeq) {
  sqlite3_stmt *p;
  int b;
  if (choirLogSpecOf(zTable) ||
      !choirExists(pConn, pErr, "table", "_choir_track")) {
    return 0; /* what the workspace records leaves out times of change */
  }
  p = choirStmt(pConn, pErr,
                "SELECT 1 FROM ~._choir_track AS t WHERE tbl=?1 COLLATE NOCASE"
                " AND watch IS NULL AND EXISTS(SELECT 1 FROM ~.sqlite_schema"
                " WHERE type='trigger' AND tbl_name=t.tbl AND"
                " name='_choir_log_@' || t.id || '_update') AND NOT EXISTS("
                "SELECT 1 FROM ~.action_log WHERE seq>?2 AND (tbl=?1 COLLATE"
                " NOCASE OR action_type IN('LOG_GAP','LOG_CUT')))");
  choirBindText(pErr, p, 1, zTable, -1);
  choirBindInt(pErr, p, 2, iSeq);
  b = choirStep(pErr, p);
  choirStmtDone(pConn, p);
  return b;
}

/* Runs a watch; 1 when its result is another than the last time. */
static int watchRun(ChoirConn *pConn, ChoirErr *pErr, const char *zSchema,
                    Watch *pWatch) {
  sqlite3_stmt *p = choirLogPrepare(
      pConn, pErr, "SELECT * FROM \"%w\".\"" WATCH_PREFIX "%w\"", zSchema,
      pWatch->zLabel);
  ChoirSha256 hash;
  u8 a[32];
  i64 nRow = 0;
  int i, bSame;
  choirSha256Init(&hash);
  while (choirStep(pErr, p)) {
    choirSha256Update(&hash, "\xff", 1); /* a row begins */
    for (i = 0; i < sqlite3_column_count(p); i++) {
      choirLogHashValue(&hash, p, i);
    }
    nRow++;
  }
  sqlite3_finalize(p);
  choirSha256Final(&hash, a);
  bSame = pWatch->bKnown && pWatch->nRow == nRow &&
          memcmp(a, pWatch->aHash, 32) == 0;
  if (pErr->rc == SQLITE_OK) {
    pWatch->bKnown = 1;
    pWatch->nRow = nRow;
    memcpy(pWatch->aHash, a, 32);
  }
  return !bSame && pErr->rc == SQLITE_OK;
}

static int watchIsQuiet(ChoirConn *pConn, ChoirErr *pErr, Watch *pWatch,
                        i64 iSeq) {
  int i;
  if (!pWatch->bKnown || pWatch->plan.bOther || pWatch->plan.n == 0) {
    return 0;
  }
  for (i = 0; i < pWatch->plan.n; i++) {
    if (!watchQuiet(pConn, pErr, pWatch->plan.az[i], iSeq)) {
      return 0;
    }
  }
  return 1;
}

static void watchPlan(ChoirConn *pConn, ChoirErr *pErr, Watch *pWatch) {
  char *z = choirMprintf(pErr, "SELECT * FROM \"%w\".\"" WATCH_PREFIX "%w\"",
                         choirSchema(pConn), pWatch->zLabel);
  choirLogPlanFree(&pWatch->plan);
  choirLogPlanRead(pConn, pErr, &pWatch->plan, z ? z : "", NULL);
  sqlite3_free(z);
}

static void watchRow(ChoirCursor *p, Watch *pWatch) {
  char z[65];
  pWatch->iTold = p->rows.nCell / 3;
  choirHex(pWatch->aHash, 32, z);
  choirRowText(p, pWatch->zLabel);
  choirRowText(p, z);
  choirRowInt(p, pWatch->nRow);
}

/* The last record of the log; 1 when the one of the last poll is still there. */
static int watchTail(ChoirConn *pConn, ChoirErr *pErr, WatchState *pState) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr,
      "SELECT seq, id, ?1=0 OR EXISTS(SELECT 1 FROM ~.action_log WHERE seq=?1"
      " AND id IS ?2) FROM ~.action_log ORDER BY seq DESC LIMIT 1");
  int bStands = pState->iSeq == 0;
  choirBindInt(pErr, p, 1, pState->iSeq);
  choirBindText(pErr, p, 2, pState->zId, -1);
  if (choirStep(pErr, p)) {
    char *z = choirMprintf(pErr, "%s", sqlite3_column_text(p, 1));
    bStands = sqlite3_column_int(p, 2);
    pState->iSeq = sqlite3_column_int64(p, 0);
    choirStmtDone(pConn, p);
    sqlite3_free(pState->zId);
    pState->zId = z;
  } else {
    choirStmtDone(pConn, p);
    pState->iSeq = 0;
  }
  return bStands;
}

static void watchLook(ChoirCursor *p, WatchState *pState) {
  ChoirConn *pConn = p->pConn;
  const char *zSchema = choirSchema(pConn);
  i64 iData = watchInt(pConn, &p->err, zSchema, WATCH_DATA);
  i64 iSchema =
      watchInt(pConn, &p->err, zSchema, "PRAGMA \"%w\".schema_version");
  i64 nChange = sqlite3_total_changes(pConn->db), iSeq = pState->iSeq;
  int i, bNew = iSchema != pState->iSchema || pState->nChange < 0;
  if (!bNew && iData == pState->iData && nChange == pState->nChange) {
    return;
  }
  if (bNew) {
    watchList(pConn, &p->err, pState);
  }
  bNew |= !watchTail(pConn, &p->err, pState);
  for (i = 0; i < pState->n && p->err.rc == SQLITE_OK; i++) {
    Watch *pWatch = &pState->a[i];
    if (bNew) {
      watchPlan(pConn, &p->err, pWatch);
    } else if (watchIsQuiet(pConn, &p->err, pWatch, iSeq)) {
      continue;
    }
    if (watchRun(pConn, &p->err, zSchema, pWatch)) {
      watchRow(p, pWatch);
    }
  }
  pState->iData = iData;
  pState->iSchema = iSchema;
  /* What was seen of an open transaction may be rolled back without a trace. */
  pState->nChange = p->err.rc == SQLITE_OK && sqlite3_get_autocommit(pConn->db)
                        ? nChange
                        : -1;
}

/* What stands in rows from iFrom on, or in none, has not been told. */
static void watchUntold(WatchState *p, i64 iFrom) {
  int i;
  for (i = 0; i < p->n; i++) {
    if (p->a[i].iTold >= iFrom) {
      p->a[i].bKnown = 0;
      p->nChange = -1;
    }
    p->a[i].iTold = -1;
  }
}

/* Rows that were not fetched (an error, a LIMIT). */
static void watchReset(ChoirCursor *p) {
  ChoirErr err = {SQLITE_OK, NULL};
  WatchState *pState = choirState(p->pConn, &err, &watchState);
  if (pState && p->rows.nCell) {
    watchUntold(pState, p->iRow);
  }
  choirErrClear(&err);
}

/*
** SQL: watch_poll([timeout_ms]) -> TABLE(label, hash, rows)
**
** The watches whose result is another than this connection saw last, all of them
** the first time: SHA-256 of the new result and its number of rows. What was not
** fetched to the end is told again. With a
** timeout it waits for a commit of another connection when nothing has changed;
** in a database that is not in WAL mode that keeps others from committing, so use
** watch_wait() there.
**
**   timeout_ms  INTEGER, at most 3600000; default 0
**
** NULL: a NULL timeout_ms is 0.
** Errors: a view that no longer works; interrupted.
**
** > SELECT length(watch_define('themes', 'SELECT setting_value FROM user_settings'));
** > SELECT label, rows FROM watch_poll;
** > SELECT setting_set('theme', 'dark');
** > SELECT label, rows FROM watch_poll
** = themes|1
*/
static void watchPoll(ChoirCursor *p) {
  WatchState *pState = choirState(p->pConn, &p->err, &watchState);
  i64 nWait = 0, iUntil, iData;
  ChoirConn *pOwn;
  int i;
  if (p->apArg[0] && sqlite3_value_type(p->apArg[0]) != SQLITE_NULL) {
    nWait = choirArgInt(&p->err, p->apArg[0], "timeout_ms", 0, 3600000);
  }
  choirNeedWorkspace(p->pConn, &p->err);
  if (p->err.rc != SQLITE_OK || pState == NULL) {
    return;
  }
  if (pState->zId == NULL && pState->iSchema == 0) {
    pState->nChange = -1; /* the first time */
  }
  iUntil = choirMonotonic() + nWait;
  pOwn = nWait ? watchOpen(p->pConn, &p->err) : NULL;
  iData = pOwn ? watchInt(pOwn, &p->err, WATCH_FILE, WATCH_DATA) : 0;
  watchLook(p, pState);
  while (pOwn && p->rows.nCell == 0 &&
         watchSleep(p->pConn, &p->err, pOwn, &iData, iUntil)) {
    for (i = 0; i < pState->n && p->err.rc == SQLITE_OK; i++) {
      if (watchRun(pOwn, &p->err, WATCH_FILE, &pState->a[i])) {
        watchRow(p, &pState->a[i]);
      }
    }
  }
  if (pOwn) {
    choirConnUnref(pOwn);
  }
  if (p->err.rc != SQLITE_OK) {
    watchUntold(pState, 0);
  }
}

/*
** SQL: log_versions -> TABLE(tbl, version, changes)
**
** For each table of the log, the seq of its last record and how many there are:
** the table has changed exactly when its version is another. (Of the workspace's
** own tables, times of change alone are not recorded.)
**
** > SELECT setting_set('theme', 'dark');
** > SELECT tbl, version, changes FROM log_versions
** = user_settings|1|1
*/
static void watchVersions(ChoirCursor *p) {
  choirNeedWorkspace(p->pConn, &p->err);
  p->pStmt = choirStmt(p->pConn, &p->err,
                       "SELECT tbl, max(seq), count(*) FROM ~.action_log WHERE"
                       " tbl IS NOT NULL GROUP BY tbl ORDER BY tbl");
}

static const ChoirFunc aWatchFunc[] = {
    {"watch_define", 2, 2, CHOIR_WRITE, 0, watchDefineCall, NULL},
    {"watch_wait", 2, 2, CHOIR_READ, 0, watchWaitCall, NULL},
};

static const ChoirTvf aWatchTvf[] = {
    {"watch_poll", "label, hash, rows, timeout_ms HIDDEN", 3, 0, 1, CHOIR_READ,
     0, 0, watchPoll, NULL, NULL, watchReset},
    {"log_versions", "tbl, version, changes", 3, 0, 0, CHOIR_READ, 0, 0,
     watchVersions, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirLogWatchRegister(ChoirConn *pConn,
                                                    ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aWatchFunc);
  choirTvfs(pConn, pErr, aWatchTvf);
}
