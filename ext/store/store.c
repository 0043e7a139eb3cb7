/* SPDX-License-Identifier: MIT */
/*
** The store's part of a workspace: its triggers, what choir_check,
** choir_doctor and choir_metrics say about it, and the order in which its
** files register.
**
** The tables come from sql/0001_store.sql. The triggers here are SQLite's own
** SQL and so work without choir: deletes cascade whatever PRAGMA foreign_keys
** says, updated_at moves with every change, a new message moves its
** conversation, one persona is active at a time, and an artifact written by
** plain SQL never carries the size, hash or name of what it was before.
*/
#include "store.h"

#define STORE_NOW                                                              \
  "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"

typedef struct StoreTrigger {
  const char *zName;
  const char *zBody; /* what follows the name in CREATE TRIGGER */
} StoreTrigger;

/* An UPDATE that leaves updated_at alone moves it on. The columns named do not
** include updated_at, so the trigger's own UPDATE cannot fire it again. */
#define STORE_TOUCH(zTable, zColumns, zRow)                                    \
  {                                                                            \
    "_choir_" zTable "_touch",                                                 \
        "AFTER UPDATE OF " zColumns " ON " zTable                              \
        " WHEN NEW.updated_at IS OLD.updated_at BEGIN\n"                       \
        "UPDATE " zTable " SET updated_at = max(" STORE_NOW                    \
        ", OLD.updated_at + 1) WHERE " zRow ";\nEND"                           \
  }

static const StoreTrigger aStoreTrigger[] = {
    STORE_TOUCH("conversation_history", "title", "id = NEW.id"),
    STORE_TOUCH("user_settings", "setting_value",
                "setting_name = NEW.setting_name"),
    STORE_TOUCH("server_state", "value",
                "server = NEW.server AND key = NEW.key"),
    STORE_TOUCH("state_storage", "value_json, level",
                "key_name = NEW.key_name"),
    STORE_TOUCH("personas", "name, personality, is_active", "id = NEW.id"),
    STORE_TOUCH("memories", "persona_id, content, importance, metadata",
                "id = NEW.id"),
    /* Moving content to or from the object store (s3_key changes) is not an
    ** edit, for this trigger and the next. */
    {"_choir_artifacts_touch",
     "AFTER UPDATE OF path, mime_type, content, metadata, deleted_at"
     " ON artifacts WHEN NEW.updated_at IS OLD.updated_at"
     " AND NEW.s3_key IS OLD.s3_key BEGIN\n"
     "UPDATE artifacts SET updated_at = max(" STORE_NOW
     ", OLD.updated_at + 1) WHERE id = NEW.id;\nEND"},
    /* Other content under the same hash was written by plain SQL, which has no
    ** SHA-256: better no hash than a wrong one. */
    {"_choir_artifacts_content",
     "AFTER UPDATE OF content ON artifacts WHEN NEW.hash IS OLD.hash"
     " AND NEW.s3_key IS OLD.s3_key AND NEW.deleted_at IS NULL BEGIN\n"
     "UPDATE artifacts SET hash = NULL,"
     " size_bytes = length(CAST(content AS BLOB)) WHERE id = NEW.id;\nEND"},
    {"_choir_artifacts_size",
     "AFTER INSERT ON artifacts WHEN NEW.size_bytes IS NULL"
     " AND NEW.content IS NOT NULL BEGIN\n"
     "UPDATE artifacts SET size_bytes = length(CAST(content AS BLOB))"
     " WHERE id = NEW.id;\nEND"},
    {"_choir_artifacts_name",
     "AFTER UPDATE OF path ON artifacts WHEN NEW.name IS OLD.name"
     " AND NEW.path IS NOT OLD.path BEGIN\n"
     "UPDATE artifacts SET name = substr(path, 1 + length("
     "rtrim(path, replace(path, '/', '')))) WHERE id = NEW.id AND name IS NOT"
     " substr(path, 1 + length(rtrim(path, replace(path, '/', ''))));\nEND"},
    {"_choir_conversation_history_delete",
     "BEFORE DELETE ON conversation_history BEGIN\n"
     "DELETE FROM messages WHERE conversation_id = OLD.id;\nEND"},
    {"_choir_messages_insert",
     "AFTER INSERT ON messages BEGIN\n"
     "UPDATE conversation_history SET updated_at ="
     " max(updated_at, NEW.timestamp) WHERE id = NEW.conversation_id;\nEND"},
    {"_choir_messages_update",
     "AFTER UPDATE OF role, content, metadata ON messages BEGIN\n"
     "UPDATE conversation_history SET updated_at ="
     " max(updated_at + 1, " STORE_NOW
     ") WHERE id = NEW.conversation_id;\nEND"},
    {"_choir_personas_delete",
     "BEFORE DELETE ON personas BEGIN\n"
     "DELETE FROM memories WHERE persona_id = OLD.id;\nEND"},
    {"_choir_personas_active_insert",
     "AFTER INSERT ON personas WHEN NEW.is_active = 1 BEGIN\n"
     "UPDATE personas SET is_active = 0 WHERE is_active = 1 AND id <> NEW.id;\n"
     "END"},
    {"_choir_personas_active_update",
     "AFTER UPDATE OF is_active ON personas WHEN NEW.is_active = 1 BEGIN\n"
     "UPDATE personas SET is_active = 0 WHERE is_active = 1 AND id <> NEW.id;\n"
     "END"},
};
#define STORE_TRIGGERS ((int)(sizeof(aStoreTrigger) / sizeof(aStoreTrigger[0])))

/* 1: stands as written, 0: missing, -1: there, but different. */
static int storeTrigger(ChoirConn *pConn, ChoirErr *pErr,
                        const StoreTrigger *p) {
  char *z = choirMprintf(pErr, "CREATE TRIGGER %s %s", p->zName, p->zBody);
  sqlite3_stmt *pStmt = choirStmt(
      pConn, pErr,
      "SELECT CASE WHEN sql=?2 THEN 1 ELSE -1 END FROM ~.sqlite_schema"
      " WHERE type='trigger' AND name=?1 COLLATE NOCASE");
  int e;
  choirBindText(pErr, pStmt, 1, p->zName, -1);
  choirBindText(pErr, pStmt, 2, z, -1);
  e = choirStep(pErr, pStmt) ? sqlite3_column_int(pStmt, 0) : 0;
  choirStmtDone(pConn, pStmt);
  sqlite3_free(z);
  return e;
}

static void storeInstall(ChoirConn *pConn, ChoirErr *pErr) {
  int i;
  for (i = 0; i < STORE_TRIGGERS && pErr->rc == SQLITE_OK; i++) {
    const StoreTrigger *p = &aStoreTrigger[i];
    int e = storeTrigger(pConn, pErr, p);
    char *z = NULL;
    if (e < 0) {
      choirExec(pConn, pErr, "DROP TRIGGER ~.%s", p->zName);
    }
    if (e < 1) {
      z = choirMprintf(pErr, "CREATE TRIGGER ~.%s %s", p->zName, p->zBody);
    }
    if (z) {
      choirExecText(pConn, pErr, z);
    }
    sqlite3_free(z);
  }
}

/* ---------------------------------------------------------------- reports */

#define STORE_PROBLEMS 100 /* reported at most of each kind */

static void storeProblem(ChoirCursor *p, const char *zFmt, const char *zA,
                         const char *zB) {
  char *z = choirMprintf(&p->err, zFmt, zA ? zA : "", zB ? zB : "");
  choirRowText(p, "store");
  choirRowText(p, z);
  sqlite3_free(z);
}

static void storeCheckTriggers(ChoirConn *pConn, ChoirCursor *pCur) {
  int i;
  for (i = 0; i < STORE_TRIGGERS && pCur->err.rc == SQLITE_OK; i++) {
    int e = storeTrigger(pConn, &pCur->err, &aStoreTrigger[i]);
    if (e < 1) {
      storeProblem(pCur, "trigger %s %s; run select choir_init()",
                   aStoreTrigger[i].zName, e ? "differs" : "is missing");
    }
  }
}

/* Rows that point at nothing. */
static void storeCheckOrphans(ChoirConn *pConn, ChoirCursor *pCur) {
  int n = 0;
  sqlite3_stmt *p = choirStmt(
      pConn, &pCur->err,
      "SELECT 'message', id FROM ~.messages WHERE conversation_id NOT IN"
      " (SELECT id FROM ~.conversation_history)"
      " UNION ALL SELECT 'memory', id FROM ~.memories WHERE persona_id NOT IN"
      " (SELECT id FROM ~.personas)"
      " UNION ALL SELECT 'citation', id FROM ~.citations"
      " WHERE source_artifact_id NOT IN (SELECT id FROM ~.artifacts)");
  while (n++ < STORE_PROBLEMS && choirStep(&pCur->err, p)) {
    storeProblem(pCur, "%s %s points at a row that is gone",
                 (const char *)sqlite3_column_text(p, 0),
                 (const char *)sqlite3_column_text(p, 1));
  }
  choirStmtDone(pConn, p);
}

/* One live artifact on pStmt: path, name, size_bytes, hash, content, and whether
** size_bytes is its content's as the file has it: in UTF-16 that is what plain SQL
** counts. */
static int storeCheckArtifact(ChoirCursor *pCur, sqlite3_stmt *pStmt) {
  const char *zPath = (const char *)sqlite3_column_text(pStmt, 0);
  const char *zName = (const char *)sqlite3_column_text(pStmt, 1);
  const char *zHash = (const char *)sqlite3_column_text(pStmt, 3);
  int eType = sqlite3_column_type(pStmt, 4);
  const void *a = eType == SQLITE_BLOB ? sqlite3_column_blob(pStmt, 4)
                                       : sqlite3_column_text(pStmt, 4);
  i64 n = sqlite3_column_bytes(pStmt, 4);
  ChoirErr err = {0, NULL};
  char *z = choirStorePath(&err, zPath, "path", CHOIR_STORE_FILE);
  const char *zWrong = NULL;
  u8 aHash[32];
  char zHex[65];
  if (z == NULL || strcmp(z, zPath) != 0) {
    zWrong = "is not a path that artifact_put would write";
  } else if (zName == NULL || strcmp(zName, choirStoreName(zPath)) != 0) {
    zWrong = "has the name of another path";
  } else if (eType != SQLITE_NULL) {
    choirSha256(a ? a : "", (u64)n, aHash);
    choirHex(aHash, 32, zHex);
    if (sqlite3_column_type(pStmt, 2) == SQLITE_NULL ||
        (sqlite3_column_int64(pStmt, 2) != n &&
         !sqlite3_column_int(pStmt, 5))) {
      zWrong = "has a size_bytes that is not its content's";
    } else if (zHash && strcmp(zHash, zHex) != 0) {
      zWrong = "has a hash that is not its content's";
    }
  }
  if (zWrong) {
    storeProblem(pCur, "artifact %.200s %s", zPath, zWrong);
  }
  choirErrClear(&err);
  sqlite3_free(z);
  return zWrong != NULL;
}

static void storeCheck(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  sqlite3_stmt *p;
  int n = 0;
  (void)pErr; /* is pCur->err */
  storeCheckTriggers(pConn, pCur);
  storeCheckOrphans(pConn, pCur);
  choirStoreStateCheck(pConn, pCur);
  p = choirStmt(pConn, &pCur->err,
                "SELECT path, name, size_bytes, hash, content,"
                " size_bytes IS length(CAST(content AS BLOB))"
                " FROM ~.artifacts WHERE deleted_at IS NULL");
  while (n < STORE_PROBLEMS && choirStep(&pCur->err, p)) {
    n += storeCheckArtifact(pCur, p);
  }
  choirStmtDone(pConn, p);
}

static void storeDoctor(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  int i, nBad = 0;
  char *z;
  if (!choirHasWorkspace(pConn, pErr)) {
    return;
  }
  for (i = 0; i < STORE_TRIGGERS; i++) {
    nBad += storeTrigger(pConn, pErr, &aStoreTrigger[i]) < 1;
  }
  z = choirMprintf(pErr, "%d of %d stand", STORE_TRIGGERS - nBad,
                   STORE_TRIGGERS);
  choirRowText(pCur, "store triggers");
  choirRowText(pCur, nBad ? "fail" : "ok");
  choirRowText(pCur, z);
  choirRowText(pCur, nBad ? "select choir_init()" : NULL);
  sqlite3_free(z);
}

/* The six metrics of a store that keeps a pool of connections and live queries,
** under their own names, as far as one extension can have them; the unit says
** what each is here. */
static void storeSeedMetrics(ChoirConn *pConn, ChoirErr *pErr,
                             ChoirCursor *pCur) {
  sqlite3_stmt *p;
  choirRowText(pCur, "queryCount");
  choirRowInt(pCur, pConn->nCall);
  choirRowText(pCur, "calls of choir's functions on this connection that read,"
                     " write or reach out");
  choirRowText(pCur, "averageResponseTime");
  choirRowReal(pCur, pConn->nCall
                         ? (double)pConn->nNanos / 1e6 / (double)pConn->nCall
                         : 0.0);
  choirRowText(pCur, "ms, mean of those calls");
  choirRowText(pCur, "connectionPoolUtilization");
  choirRowReal(pCur, (double)pConn->nStmt / CHOIR_STMT_MAX);
  choirRowText(pCur, "0 to 1, share of the statements that this connection may"
                     " keep prepared; the pool of connections is the host's");
  p = choirStmt(pConn, pErr,
                "SELECT 'reactiveQueryCount', count(*), 'watches that are"
                " defined' FROM ~.sqlite_schema WHERE type='view' AND name GLOB"
                " '_choir_watch_*'"
                " UNION ALL SELECT 'eventCount', (SELECT coalesce(max(seq), 0)"
                " FROM ~.action_log), 'actions recorded in action_log since the"
                " workspace was made'"
                " UNION ALL SELECT 'syncStatus', (SELECT status FROM"
                " ~.sync_health), 'never, changed (since the last sync) or"
                " synced'");
  while (choirStep(pErr, p)) {
    choirRowText(pCur, (const char *)sqlite3_column_text(p, 0));
    if (sqlite3_column_type(p, 1) == SQLITE_INTEGER) {
      choirRowInt(pCur, sqlite3_column_int64(p, 1));
    } else {
      choirRowText(pCur, (const char *)sqlite3_column_text(p, 1));
    }
    choirRowText(pCur, (const char *)sqlite3_column_text(p, 2));
  }
  choirStmtDone(pConn, p);
}

static void storeMetrics(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr,
      "SELECT 'artifacts', count(*), 'rows' FROM ~.artifacts"
      " WHERE deleted_at IS NULL"
      " UNION ALL SELECT 'artifacts.size', CAST(total(size_bytes) AS INTEGER),"
      " 'bytes' FROM ~.artifacts WHERE deleted_at IS NULL"
      " UNION ALL SELECT 'artifacts.remote', count(*), 'rows'"
      " FROM ~.artifacts WHERE deleted_at IS NULL AND s3_key IS NOT NULL"
      " UNION ALL SELECT 'artifacts.deleted', count(*), 'rows'"
      " FROM ~.artifacts WHERE deleted_at > 0"
      " UNION ALL SELECT 'conversations', count(*), 'rows'"
      " FROM ~.conversation_history"
      " UNION ALL SELECT 'messages', count(*), 'rows' FROM ~.messages"
      " UNION ALL SELECT 'settings', count(*), 'rows' FROM ~.user_settings"
      " UNION ALL SELECT 'tasks.open', count(*), 'rows' FROM ~.agent_tasks"
      " WHERE status IN ('PENDING', 'RUNNING')"
      " UNION ALL SELECT 'citations', count(*), 'rows' FROM ~.citations"
      " UNION ALL SELECT 'personas', count(*), 'rows' FROM ~.personas"
      " UNION ALL SELECT 'memories', count(*), 'rows' FROM ~.memories");
  while (choirStep(pErr, p)) {
    choirRowText(pCur, (const char *)sqlite3_column_text(p, 0));
    choirRowInt(pCur, sqlite3_column_int64(p, 1));
    choirRowText(pCur, (const char *)sqlite3_column_text(p, 2));
  }
  choirStmtDone(pConn, p);
  choirStoreCacheMetrics(pConn, pErr, pCur);
  storeSeedMetrics(pConn, pErr, pCur);
}

/* Its triggers are named _choir_*, which choir_uninstall() removes. */
static const ChoirPart storePart = {.zName = "store",
                                    .xInstall = storeInstall,
                                    .xCheck = storeCheck,
                                    .xDoctor = storeDoctor,
                                    .xMetrics = storeMetrics};

CHOIR_PRIVATE CHOIR_COLD void choirStoreRegister(ChoirConn *pConn,
                                                 ChoirErr *pErr) {
  choirStoreArtifactRegister(pConn, pErr);
  choirStoreImportRegister(pConn, pErr);
  choirStoreExportRegister(pConn, pErr);
  choirStoreChatRegister(pConn, pErr);
  choirStoreCacheRegister(pConn, pErr);
  choirStoreAgentRegister(pConn, pErr);
  choirStoreStateRegister(pConn, pErr);
  choirStorePointRegister(pConn, pErr);
  choirStoreSeedRegister(pConn, pErr);
  choirStoreForeignRegister(pConn, pErr);
  choirStoreAgentfsRegister(pConn, pErr);
  choirPartAdd(pConn, &storePart);
}
