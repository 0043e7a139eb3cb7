/* SPDX-License-Identifier: MIT */
/*
** log_record(): what a program wants to remember beside what the triggers see;
** log_changes(): the log for programs; log_prune(): its old end.
**
** The log is pruned from its beginning only: _choir_meta's log.pruned is the
** last record that went. Who asks for what came after an earlier one is told.
*/
#include "log.h"

/* [A-Z0-9_.]{1,64}, so that a type is a word in every system it travels to. */
static const char *logRecordType(ChoirErr *pErr, sqlite3_value *v) {
  const char *z = choirArgText(pErr, v, "type");
  size_t n;
  if (z == NULL) {
    return NULL;
  }
  n = strspn(z, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");
  if (n == 0 || n > 64 || z[n]) {
    choirErrSet(pErr, SQLITE_ERROR,
                "type must be 1 to 64 of A-Z, 0-9, _ and ., got '%.80s'", z);
    return NULL;
  }
  return z;
}

/*
** SQL: log_record(type, payload) -> TEXT
**
** Adds an action of your own to action_log and returns its id. The log's
** triggers write the workspace's own actions; this is for what happened
** elsewhere: a run, a decision, a visit.
**
**   type     TEXT, 1 to 64 characters of A-Z, 0-9, _ and .
**   payload  TEXT, JSON; its path, title, name, key or label is what the view
**            timeline shows
**
** NULL: an error for either argument.
** Errors: a type of other characters; a payload that is not JSON; no workspace
** in the schema.
**
** > SELECT length(log_record('RUN_START', '{"label":"nightly"}'))
** = 36
** > SELECT log_record('run start', '{}')
** ! log_record: type must be 1 to 64 of A-Z, 0-9, _ and ., got 'run start'
*/
static void logRecordCall(ChoirCall *p) {
  const char *zType = logRecordType(&p->err, p->apArg[0]);
  const char *zPayload =
      choirArgJson(p->pConn, &p->err, p->apArg[1], "payload");
  sqlite3_stmt *pStmt;
  char zId[37];
  choirNeedWorkspace(p->pConn, &p->err);
  choirUuid7(zId);
  pStmt = choirStmt(p->pConn, &p->err,
                    "INSERT INTO ~.action_log(id, timestamp, action_type,"
                    " payload) VALUES(?1, ?2, ?3, ?4)");
  choirBindText(&p->err, pStmt, 1, zId, -1);
  choirBindInt(&p->err, pStmt, 2, choirNow());
  choirBindText(&p->err, pStmt, 3, zType, -1);
  choirBindText(&p->err, pStmt, 4, zPayload, -1);
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  choirResultText(p, zId);
}

/*
** SQL: log_changes([since[, table]]) -> TABLE(seq, id, timestamp, action_type,
**   tbl, pk, payload)
**
** Records of the log after record since, oldest first. Keep the last seq and ask
** again with it: nothing is missed.
**
**   since  INTEGER, a seq; 0: from the beginning; left out: all that is there
**   table  TEXT, only of this table
**
** NULL: like an argument left out.
** Errors: records after since were pruned.
**
** > CREATE TABLE tea(id INTEGER PRIMARY KEY, name TEXT);
** > SELECT log_track('tea');
** > INSERT INTO tea(name) VALUES('oolong');
** > SELECT seq, action_type, pk FROM log_changes(0, 'tea')
** = 1|ROW_INSERT|1
*/
static void logChanges(ChoirCursor *p) {
  i64 iSince = 0;
  const char *zTable = NULL;
  choirNeedWorkspace(p->pConn, &p->err);
  if (p->apArg[0] && sqlite3_value_type(p->apArg[0]) != SQLITE_NULL) {
    iSince = choirArgInt(&p->err, p->apArg[0], "since", 0, (i64)1 << 60);
    choirLogNeedSince(p->pConn, &p->err, iSince);
  }
  if (p->apArg[1]) {
    zTable = choirArgTextOrNull(&p->err, p->apArg[1], "table");
  }
  p->pStmt = choirStmt(p->pConn, &p->err,
                       "SELECT seq, id, timestamp, action_type, tbl, pk,"
                       " payload FROM ~.action_log WHERE seq>?1 AND (?2 IS"
                       " NULL OR tbl=?2 COLLATE NOCASE) ORDER BY seq");
  choirBindInt(&p->err, p->pStmt, 1, iSince);
  choirBindText(&p->err, p->pStmt, 2, zTable, -1);
}

/* ------------------------------------------------------------- log_prune */

CHOIR_PRIVATE void choirLogNeedSince(ChoirConn *pConn, ChoirErr *pErr,
                                     i64 iSince) {
  i64 iPruned = choirQueryInt(pConn, pErr,
                              "SELECT CAST(value AS INTEGER) FROM ~._choir_meta"
                              " WHERE key='log.pruned'",
                              0);
  if (iSince < iPruned) {
    choirErrSet(pErr, SQLITE_ERROR,
                "records up to %lld were pruned, so that what came after %lld"
                " is not all there",
                iPruned, iSince);
  }
}

/* A record that has to stay, and why. */
typedef struct PruneHold {
  i64 iSeq; /* the first of them */
  char *zWhy;
} PruneHold;

/* zSql gives the first record that has to stay, and what for. */
static void pruneHold(ChoirConn *pConn, ChoirErr *pErr, PruneHold *pHold,
                      const char *zSql, i64 iBind) {
  sqlite3_stmt *p = choirStmt(pConn, pErr, zSql);
  if (sqlite3_bind_parameter_count(p) > 0) {
    choirBindInt(pErr, p, 1, iBind);
  }
  if (choirStep(pErr, p) && sqlite3_column_type(p, 0) != SQLITE_NULL &&
      sqlite3_column_int64(p, 0) < pHold->iSeq) {
    sqlite3_free(pHold->zWhy);
    pHold->iSeq = sqlite3_column_int64(p, 0);
    pHold->zWhy = choirMprintf(pErr, "%s", sqlite3_column_text(p, 1));
  }
  choirStmtDone(pConn, p);
}

/* Images of before the end of the log are of no use. */
static i64 pruneImages(ChoirConn *pConn, ChoirErr *pErr, i64 iEnd) {
  ChoirLogTracks tracks;
  i64 n = 0;
  int i;
  choirLogTracksRead(pConn, pErr, &tracks, 0);
  for (i = 0; i < tracks.n && pErr->rc == SQLITE_OK; i++) {
    if (tracks.a[i].images.id) {
      choirExec(pConn, pErr, "DELETE FROM ~._choir_undo_%lld WHERE tag<%lld",
                tracks.a[i].id, iEnd);
      n += sqlite3_changes(pConn->db);
    }
  }
  choirLogTracksFree(&tracks);
  return n;
}

/*
** SQL: log_prune(before[, what]) -> TEXT
**
** Removes records from the beginning of the log, up to the first that is not
** older than before or that somebody still needs: one not published (synced 0),
** not read by a consumer (_choir_cursor), not sealed once the log is sealed, or
** the last one. Batches of a sealed log go as a whole; their seals stay. What
** came before can then not be undone. Gives {"removed", "images": rows kept for
** undo that went, "up_to": the last record removed so far, "held_by": who needs
** the next one, or null}.
**
**   before  INTEGER, Unix milliseconds
**   what    'synced' (default), or 'all' where nothing publishes the log
**
** NULL: an error.
**
** > SELECT log_record('A', '{}');
** > SELECT log_record('B', '{}');
** > SELECT log_prune(99999999999999);
** > SELECT log_prune(99999999999999, 'all')
** = {"removed":1,"images":0,"up_to":1,"held_by":"the last record"}
*/
static void logPrune(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  ChoirErr *pErr = &p->err;
  i64 iBefore = choirArgInt(pErr, p->apArg[0], "before", 0, INT64_MAX);
  const char *zWhat =
      p->nArg > 1 ? choirArgText(pErr, p->apArg[1], "what") : "synced";
  PruneHold hold = {INT64_MAX, NULL};
  ChoirBuf b;
  i64 nImage = 0, nGone = 0;
  if (zWhat && strcmp(zWhat, "synced") != 0 && strcmp(zWhat, "all") != 0) {
    choirErrSet(pErr, SQLITE_ERROR, "what must be synced or all, got '%.40s'",
                zWhat);
  }
  choirNeedWorkspace(pConn, pErr);
  pruneHold(pConn, pErr, &hold,
            "SELECT seq, NULL FROM ~.action_log WHERE timestamp>=?1 ORDER BY"
            " seq LIMIT 1",
            iBefore);
  if (zWhat && strcmp(zWhat, "all") != 0) {
    pruneHold(pConn, pErr, &hold,
              "SELECT seq, 'synced=0' FROM ~.action_log WHERE synced=0"
              " ORDER BY seq LIMIT 1",
              0);
  }
  pruneHold(pConn, pErr, &hold,
            "SELECT seq + 1, 'consumer ' || consumer FROM ~._choir_cursor"
            " WHERE seq>=0 ORDER BY seq LIMIT 1",
            0);
  pruneHold(pConn, pErr, &hold,
            "SELECT max(seq), 'the last record' FROM ~.action_log", 0);
  choirLogSealHold(pConn, pErr, &hold.iSeq, &hold.zWhy);
  if (hold.iSeq < INT64_MAX && hold.iSeq > 1) {
    choirExec(pConn, pErr, "DELETE FROM ~.action_log WHERE seq<%lld",
              hold.iSeq);
    nGone = sqlite3_changes(pConn->db);
    nImage = pruneImages(pConn, pErr, hold.iSeq - 1);
    choirExec(pConn, pErr,
              "INSERT INTO ~._choir_meta(key, value) VALUES('log.pruned',"
              " '%lld') ON CONFLICT(key) DO UPDATE SET value=excluded.value"
              " WHERE CAST(value AS INTEGER)<CAST(excluded.value AS INTEGER)",
              hold.iSeq - 1);
  }
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b,
                 "{\"removed\":%lld,\"images\":%lld,\"up_to\":%lld,"
                 "\"held_by\":",
                 nGone, nImage,
                 choirQueryInt(pConn, pErr,
                               "SELECT CAST(value AS INTEGER) FROM"
                               " ~._choir_meta WHERE key='log.pruned'",
                               0));
  if (hold.zWhy && hold.zWhy[0]) {
    choirBufJson(&b, hold.zWhy, -1);
  } else {
    choirBufText(&b, "null");
  }
  choirBufText(&b, "}");
  choirBufResult(&b, p->pCtx);
  sqlite3_free(hold.zWhy);
}

static const ChoirTvf aLogTvf[] = {
    {"log_changes",
     "seq, id, timestamp, action_type, tbl, pk, payload, since HIDDEN,"
     " \"table\" HIDDEN",
     7, 0, 2, CHOIR_READ, 0, 0, logChanges, NULL, NULL, NULL},
};

static const ChoirFunc aLogFunc[] = {
    {"log_prune", 1, 2, CHOIR_WRITE, 0, logPrune, NULL},
    {"log_record", 2, 2, CHOIR_WRITE, 0, logRecordCall, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirLogRegister(ChoirConn *pConn,
                                               ChoirErr *pErr) {
  choirLogWorkRegister(pConn);
  choirFuncs(pConn, pErr, aLogFunc);
  choirTvfs(pConn, pErr, aLogTvf);
  choirLogTrackRegister(pConn, pErr);
  choirLogSealRegister(pConn, pErr);
  choirLogUndoRegister(pConn, pErr);
  choirLogEventRegister(pConn, pErr);
  choirLogReplayRegister(pConn, pErr);
  choirLogWatchRegister(pConn, pErr);
}
