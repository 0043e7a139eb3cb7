/* SPDX-License-Identifier: MIT */
/*
** What the log records about a workspace, and how its triggers are kept.
**
** Owns in the file: the triggers _choir_log_* on the workspace's tables and on
** action_log, the table _choir_log_candidate. docs/log.md has the matrix of
** tables and actions that aLogSpec below is.
**
** Not recorded: server_cache (derived, may go at any time) and sync_state
** (bookkeeping: recording it would make every sync a change to sync).
** Times of change (updated_at, completed_at) and leases are not watched: the
** action they belong to has its own time.
**
** choir_init() compares every trigger with what the generator gives now. When
** one that had been installed is missing or differs, rows may have changed
** unrecorded (a table rebuilt by hand loses its triggers silently): then every
** consumer is sent back to the start and the log says LOG_GAP.
*/
#include "log.h"

#define LOG_SET "CASE WHEN @.deleted_at IS NULL THEN "

/* Not an action: a change to a tombstone; content that only moves to or from
** the object store; the hash that the store's trigger takes away after content
** written by plain SQL, which was recorded itself. */
#define LOG_UNLESS                                                             \
  "OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NOT NULL"                  \
  " OR OLD.path IS NEW.path AND OLD.mime_type IS"                              \
  " NEW.mime_type AND OLD.metadata IS NEW.metadata AND"                        \
  " OLD.deleted_at IS NEW.deleted_at AND (OLD.s3_key IS NOT"                   \
  " NEW.s3_key AND OLD.hash IS NEW.hash OR OLD.content IS"                     \
  " NEW.content AND NEW.hash IS NULL)"

static const ChoirLogSpec aLogSpec[] = {
    {"artifacts",
     LOG_SET "'ARTIFACT_CREATE' ELSE 'ARTIFACT_DELETE' END",
     "CASE WHEN NEW.deleted_at IS NOT NULL THEN 'ARTIFACT_DELETE'"
     " WHEN OLD.deleted_at IS NOT NULL THEN 'ARTIFACT_CREATE'"
     " WHEN OLD.path IS NOT NEW.path COLLATE BINARY THEN"
     " 'ARTIFACT_MOVE' ELSE 'ARTIFACT_UPDATE' END",
     LOG_SET "'ARTIFACT_DELETE' ELSE 'ARTIFACT_PURGE' END",
     LOG_UNLESS,
     {"path", "mime_type", "content", "hash", "metadata", "deleted_at"},
     {{"path", "path", CHOIR_LOG_TEXT},
      {"from", "path", CHOIR_LOG_FROM},
      {"size", "size_bytes", CHOIR_LOG_INT},
      {"hash", "hash", CHOIR_LOG_ID}}},
    {"conversation_history",
     "'CONVERSATION_CREATE'",
     "'CONVERSATION_UPDATE'",
     "'CONVERSATION_DELETE'",
     NULL,
     {"title"},
     {{"title", "title", CHOIR_LOG_TEXT}}},
    {"messages",
     "'MESSAGE_ADD'",
     "'MESSAGE_UPDATE'",
     "'MESSAGE_DELETE'",
     NULL,
     {"conversation_id", "role", "content", "timestamp", "metadata"},
     {{"conversation", "conversation_id", CHOIR_LOG_ID}}},
    {"user_settings",
     "'SETTING_SET'",
     "'SETTING_SET'",
     "'SETTING_DELETE'",
     NULL,
     {"setting_value"},
     {{NULL, NULL, 0}}},
    {"agent_tasks",
     "'TASK_ADD'",
     "CASE WHEN OLD.status IS NEW.status AND OLD.started_at IS"
     " NEW.started_at THEN 'TASK_UPDATE' ELSE CASE NEW.status"
     " WHEN 'RUNNING' THEN 'TASK_START' WHEN 'COMPLETED' THEN 'TASK_DONE'"
     " WHEN 'FAILED' THEN 'TASK_FAIL' ELSE 'TASK_RETRY' END END",
     "'TASK_DELETE'",
     NULL,
     {"status", "task_type", "input", "output", "error", "started_at"},
     {{"type", "task_type", CHOIR_LOG_ID}}},
    {"citations",
     "'CITATION_ADD'",
     "'CITATION_UPDATE'",
     "'CITATION_DELETE'",
     NULL,
     {"source_artifact_id", "citing_run_id", "weight", "reason"},
     {{"artifact", "source_artifact_id", CHOIR_LOG_ID},
      {"weight", "weight", CHOIR_LOG_REAL}}},
    {"state_storage",
     "'STATE_SET'",
     "'STATE_SET'",
     "'STATE_DELETE'",
     NULL,
     {"value_json", "level"},
     {{NULL, NULL, 0}}},
    {"server_state",
     "'SERVER_STATE_SET'",
     "'SERVER_STATE_SET'",
     "'SERVER_STATE_DELETE'",
     NULL,
     {"value"},
     {{NULL, NULL, 0}}},
    {"personas",
     "'PERSONA_CREATE'",
     "CASE WHEN OLD.is_active IS NEW.is_active THEN 'PERSONA_UPDATE'"
     " WHEN NEW.is_active THEN 'PERSONA_ACTIVATE' ELSE"
     " 'PERSONA_DEACTIVATE' END",
     "'PERSONA_DELETE'",
     NULL,
     {"name", "personality", "is_active"},
     {{"name", "name", CHOIR_LOG_TEXT}}},
    {"memories",
     "'MEMORY_ADD'",
     "'MEMORY_UPDATE'",
     "'MEMORY_DELETE'",
     NULL,
     {"persona_id", "content", "importance", "metadata"},
     {{"persona", "persona_id", CHOIR_LOG_ID}}},
};

#define LOG_SPECS ((int)(sizeof(aLogSpec) / sizeof(aLogSpec[0])))

/* Consumers must not miss a change: when log rows that one has not read go
** away or take another place, it looks at everything again. No number is used
** twice: the place of the last record is kept. Candidates: the
** newest of a row counts, old ones go; one that is gone is recorded. */
static const ChoirLogTrigger aLogFixed[] = {
    {"_choir_log_cursor_delete",
     "\"_choir_log_cursor_delete\" AFTER DELETE ON \"action_log\" BEGIN"
     " UPDATE _choir_cursor SET seq=-1 WHERE seq<OLD.seq AND seq<>-1;"
     " INSERT INTO action_log(seq,action_type) SELECT OLD.seq,'LOG_CUT' WHERE"
     " NOT EXISTS(SELECT 1 FROM action_log WHERE seq>=OLD.seq); END"},
    {"_choir_log_cursor_update",
     "\"_choir_log_cursor_update\" AFTER UPDATE OF seq,rowid,oid,_rowid_ ON"
     " \"action_log\" WHEN OLD.seq<>NEW.seq BEGIN"
     " UPDATE _choir_cursor SET seq=-1; END"},
    {"_choir_log_candidate_note",
     "\"_choir_log_candidate_note\" AFTER INSERT ON \"_choir_log_candidate\""
     " BEGIN DELETE FROM _choir_log_candidate WHERE tbl=NEW.tbl AND"
     " (n<=NEW.n-32 OR n<NEW.n AND pk IS NEW.pk); END"},
    {"_choir_log_candidate_gone",
     "\"_choir_log_candidate_gone\" AFTER UPDATE OF gone ON"
     " \"_choir_log_candidate\" BEGIN INSERT INTO "
     "action_log(action_type,"
     "payload,tbl,pk) VALUES(NEW.action_type,NEW.payload,NEW.tbl,NEW.pk);"
     "DELETE FROM _choir_log_candidate WHERE n=NEW.n; END"},
};

#define LOG_FIXED ((int)(sizeof(aLogFixed) / sizeof(aLogFixed[0])))

CHOIR_PRIVATE const ChoirLogSpec *choirLogSpecOf(const char *zTable) {
  int i;
  for (i = 0; i < LOG_SPECS; i++) {
    if (sqlite3_stricmp(aLogSpec[i].zTable, zTable) == 0) {
      return &aLogSpec[i];
    }
  }
  return NULL;
}

/* ----------------------------------------------------------- what is there */

/* 1 when the trigger stands as generated. */
static int logStands(ChoirConn *pConn, ChoirErr *pErr,
                     const ChoirLogTrigger *p) {
  sqlite3_stmt *pStmt =
      choirStmt(pConn, pErr,
                "SELECT 1 FROM ~.sqlite_schema WHERE type='trigger' AND"
                " name=?1 AND sql='CREATE TRIGGER ' || ?2");
  int bRow;
  choirBindText(pErr, pStmt, 1, p->zName, -1);
  choirBindText(pErr, pStmt, 2, p->zSql, -1);
  bRow = choirStep(pErr, pStmt);
  choirStmtDone(pConn, pStmt);
  return bRow;
}

/* Calls x for every trigger that should be there. A table of a shape that the
** log cannot follow is reported to xBad and left as it is. */
typedef struct LogVisit {
  void (*x)(ChoirConn *, ChoirErr *, struct LogVisit *,
            const ChoirLogTrigger *);
  void (*xBad)(ChoirErr *, struct LogVisit *, const char *zTag,
               const char *zWhy);
  void (*xDone)(ChoirConn *, ChoirErr *, struct LogVisit *,
                const ChoirLogSpec *, ChoirLogTrack *); /* of a table */
  ChoirCursor *pCur;                                    /* where reports go */
  ChoirBuf *pKeep;    /* names seen, as a JSON list without brackets */
  const char *zFresh; /* a table whose triggers may be new */
  int nMissing;       /* triggers of this table made again */
  int nOther;         /* … that were not as they should be */
  i64 nGap;           /* triggers that may have missed a change */
} LogVisit;

static void logVisitTable(ChoirConn *pConn, ChoirErr *pErr, LogVisit *pVisit,
                          const ChoirLogSpec *pSpec, ChoirLogTrack *pTrack) {
  const char *zTag = pTrack ? pTrack->zTag : pSpec->zTable;
  ChoirLogTrigger a[CHOIR_LOG_TRIGGERS];
  ChoirErr err = {SQLITE_OK, NULL};
  int i, n = choirLogTriggers(pConn, &err, pSpec,
                              pTrack ? &pTrack->images : NULL, zTag, a);
  pVisit->nMissing = pVisit->nOther = 0;
  if (err.rc == SQLITE_ERROR) {
    pVisit->xBad(pErr, pVisit, zTag, err.zMsg);
    choirErrClear(&err);
  } else if (err.rc != SQLITE_OK) {
    *pErr = err;
  } else {
    for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
      pVisit->x(pConn, pErr, pVisit, &a[i]);
    }
    if (pVisit->xDone && pErr->rc == SQLITE_OK) {
      pVisit->xDone(pConn, pErr, pVisit, pSpec, pTrack);
    }
  }
  choirLogTriggersFree(a);
}

static void logVisit(ChoirConn *pConn, ChoirErr *pErr, LogVisit *pVisit,
                     const ChoirLogTracks *pTracks) {
  int i;
  for (i = 0; i < LOG_SPECS && pErr->rc == SQLITE_OK; i++) {
    logVisitTable(pConn, pErr, pVisit, &aLogSpec[i],
                  choirLogTrackOf(pTracks, aLogSpec[i].zTable));
  }
  for (i = 0; i < pTracks->n && pErr->rc == SQLITE_OK; i++) {
    if (!pTracks->a[i].bOwn) {
      logVisitTable(pConn, pErr, pVisit, &pTracks->a[i].spec, &pTracks->a[i]);
    }
  }
  for (i = 0; i < LOG_FIXED && pErr->rc == SQLITE_OK; i++) {
    pVisit->x(pConn, pErr, pVisit, &aLogFixed[i]);
  }
}

/* Triggers called _choir_log_* that nothing of today's choir asks for; zKeep
** is a JSON array of those it does. The caller finalizes. */
static sqlite3_stmt *logStale(ChoirConn *pConn, ChoirErr *pErr,
                              const char *zKeep) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT name FROM ~.sqlite_schema WHERE type='trigger' AND"
                " name GLOB '_choir_log_*' AND"
                " instr(?1, json_quote(name) || ',')=0");
  choirBindText(pErr, p, 1, zKeep, -1);
  return p;
}

static void logKeep(LogVisit *p, const char *zName) {
  choirBufJson(p->pKeep, zName, -1);
  choirBufText(p->pKeep, ",");
}

/* ------------------------------------------------------------- xInstall */

static void logMend(ChoirConn *pConn, ChoirErr *pErr, LogVisit *pVisit,
                    const ChoirLogTrigger *p) {
  logKeep(pVisit, p->zName);
  if (logStands(pConn, pErr, p) || pErr->rc != SQLITE_OK) {
    return;
  }
  if (choirExists(pConn, pErr, "trigger", p->zName)) {
    choirExec(pConn, pErr, "DROP TRIGGER ~.\"%w\"", p->zName);
    pVisit->nOther++;
  } else {
    pVisit->nMissing++;
  }
  choirExec(pConn, pErr, "CREATE TRIGGER ~.%s", p->zSql);
}

/* Rows may have changed unseen, unless the triggers are new by our own doing or
** SQLite rewrote them for a new name. */
static void logMended(ChoirConn *pConn, ChoirErr *pErr, LogVisit *pVisit,
                      const ChoirLogSpec *pSpec, ChoirLogTrack *pTrack) {
  int n = pVisit->nMissing;
  if (pVisit->zFresh && sqlite3_stricmp(pVisit->zFresh, pSpec->zTable) == 0) {
    return;
  }
  if (pTrack == NULL || !pTrack->bRenamed) {
    n += pVisit->nOther;
  }
  if (n && pTrack) {
    choirLogTrackGap(pConn, pErr, pTrack);
  }
  pVisit->nGap += n;
}

/* The triggers of a table that changed its shape stay as they are. */
static void logLeave(ChoirErr *pErr, LogVisit *pVisit, const char *zTag,
                     const char *zWhy) {
  int i;
  (void)zWhy;
  for (i = 0; i < CHOIR_LOG_TRIGGERS; i++) {
    char *z = choirMprintf(pErr, "_choir_log_%s_%s", zTag, choirLogEvent(i));
    if (z) {
      logKeep(pVisit, z);
    }
    sqlite3_free(z);
  }
}

static void logDropStale(ChoirConn *pConn, ChoirErr *pErr, const char *zKeep) {
  while (pErr->rc == SQLITE_OK) {
    sqlite3_stmt *p = logStale(pConn, pErr, zKeep);
    char *z = choirStep(pErr, p)
                  ? choirMprintf(pErr, "%s", sqlite3_column_text(p, 0))
                  : NULL;
    choirStmtDone(pConn, p);
    if (z == NULL) {
      break;
    }
    choirExec(pConn, pErr, "DROP TRIGGER ~.\"%w\"", z);
    sqlite3_free(z);
  }
}

CHOIR_PRIVATE void choirLogInstall(ChoirConn *pConn, ChoirErr *pErr,
                                   const char *zFresh) {
  LogVisit visit = {logMend, logLeave, logMended, NULL, NULL, zFresh, 0, 0, 0};
  ChoirLogTracks tracks;
  ChoirBuf keep;
  char *zBefore = choirMetaGet(pConn, pErr, "log.installed");
  choirBufInit(&keep, pErr, CHOIR_BUF_SQL);
  visit.pKeep = &keep;
  choirLogTracksRead(pConn, pErr, &tracks, 1);
  logVisit(pConn, pErr, &visit, &tracks);
  if (pErr->rc == SQLITE_OK) {
    logDropStale(pConn, pErr, keep.a);
  }
  choirLogTracksFree(&tracks);
  choirBufFree(&keep);
  if (zBefore && visit.nGap > 0 && pErr->rc == SQLITE_OK) {
    choirExec(pConn, pErr,
              "UPDATE ~._choir_cursor SET seq=-1 WHERE seq<>-1;"
              "INSERT INTO ~.action_log(action_type, payload) VALUES("
              "'LOG_GAP', '{\"triggers\":%lld}')",
              visit.nGap);
  }
  if (zBefore == NULL) {
    choirMetaSet(pConn, pErr, "log.installed", "1");
  }
  sqlite3_free(zBefore);
}

static void logInstall(ChoirConn *pConn, ChoirErr *pErr) {
  choirLogInstall(pConn, pErr, NULL);
}

/* -------------------------------------------------------------- reports */

static void logProblem(ChoirErr *pErr, ChoirCursor *pCur, const char *zFmt,
                       const char *zA, const char *zB) {
  char *z = choirMprintf(pErr, zFmt, zA, zB);
  if (z) {
    choirRowText(pCur, "log");
    choirRowText(pCur, z);
  }
  sqlite3_free(z);
}

static void logCheckOne(ChoirConn *pConn, ChoirErr *pErr, LogVisit *pVisit,
                        const ChoirLogTrigger *p) {
  logKeep(pVisit, p->zName);
  if (!logStands(pConn, pErr, p)) {
    logProblem(pErr, pVisit->pCur, "trigger %s is %s; run select choir_init()",
               p->zName,
               choirExists(pConn, pErr, "trigger", p->zName) ? "not as choir"
                                                               " makes it"
                                                             : "missing");
  }
}

static void logCheckBad(ChoirErr *pErr, LogVisit *pVisit, const char *zTag,
                        const char *zWhy) {
  logLeave(pErr, pVisit, zTag, zWhy);
  logProblem(pErr, pVisit->pCur, "%s; its changes may go unrecorded; %s", zWhy,
             zTag[0] == '@' ? "log_untrack() stops following it"
                            : "run select choir_init()");
}

static void logCheck(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  LogVisit visit = {logCheckOne, logCheckBad, NULL, pCur, NULL, NULL, 0, 0, 0};
  ChoirLogTracks tracks;
  ChoirBuf keep;
  sqlite3_stmt *p;
  choirBufInit(&keep, pErr, CHOIR_BUF_SQL);
  visit.pKeep = &keep;
  choirLogTracksRead(pConn, pErr, &tracks, 0);
  logVisit(pConn, pErr, &visit, &tracks);
  choirLogTracksFree(&tracks);
  p = logStale(pConn, pErr, keep.a);
  while (choirStep(pErr, p)) {
    logProblem(pErr, pCur,
               "trigger %s is no longer used%s; run select"
               " choir_init()",
               (const char *)sqlite3_column_text(p, 0), "");
  }
  choirStmtDone(pConn, p);
  choirBufFree(&keep);
  choirLogEventCheck(pConn, pErr, pCur);
}

/* The doctor says in one row what the check says in many. */
static void logDoctor(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  ChoirCursor cur; /* only its rows and its error are used */
  int n;
  if (!choirHasWorkspace(pConn, pErr)) {
    return;
  }
  memset(&cur, 0, sizeof(cur));
  logCheck(pConn, &cur.err, &cur);
  n = cur.rows.nCell / 2;
  if (cur.err.rc != SQLITE_OK) {
    *pErr = cur.err;
  } else {
    char *z = n ? choirMprintf(pErr, "changes may go unrecorded: %d", n)
                : choirMprintf(pErr, "every change is recorded");
    choirRowText(pCur, "log triggers");
    choirRowText(pCur, n ? "fail" : "ok");
    choirRowText(pCur, z);
    choirRowText(pCur,
                 n ? "select choir_check() says where, and what to do" : NULL);
    sqlite3_free(z);
  }
  choirRowsFree(&cur);
}

static void logMetrics(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  i64 nRow = choirQueryInt(pConn, pErr, "SELECT count(*) FROM ~.action_log", 0);
  i64 nNew = choirQueryInt(
      pConn, pErr, "SELECT count(*) FROM ~.action_log WHERE synced=0", 0);
  choirRowText(pCur, "log.rows");
  choirRowInt(pCur, nRow);
  choirRowText(pCur, "rows");
  choirRowText(pCur, "log.unpublished");
  choirRowInt(pCur, nNew);
  choirRowText(pCur, "rows");
}

static const ChoirPart logPart = {.zName = "log",
                                  .xInstall = logInstall,
                                  .xCheck = logCheck,
                                  .xDoctor = logDoctor,
                                  .xMetrics = logMetrics};

CHOIR_PRIVATE CHOIR_COLD void choirLogWorkRegister(ChoirConn *pConn) {
  choirPartAdd(pConn, &logPart);
}
