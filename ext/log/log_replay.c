/* SPDX-License-Identifier: MIT */
/*
** event_replay() and event_compact(): tables rebuilt from their events.
**
** The tables to rebuild are those that the materializers of the chosen events
** write, and all that other events write together with them. They are rebuilt in
** a savepoint: emptied (with triggers and foreign keys off, so that nothing else
** goes with them), filled with the rows from before all events
** (_choir_event_base_<table>), and every event is applied in its order. The
** result is copied to a private database, which SQLite keeps in a temporary file
** when it is large, and the savepoint rolled back. Then what differs from it is
** written to the tables as they are, by ordinary statements. So a replay that
** finds everything right changes nothing, and what it does change has records in
** the log.
*/
#include "log.h"

#define REPLAY_PASSES 5

typedef struct ReplayTable {
  ChoirLogSpec spec;
  ChoirLogShape shape;
  char *zName;
  char **azPlace; /* names of the stored columns, borrowed from the shape */
  int nPlace;
} ReplayTable;

typedef struct Replay {
  ChoirConn *pConn;
  ChoirErr *pErr;
  ChoirConn *pCopy; /* t0, t1, …: the rebuilt rows */
  char *zNames;     /* of events, a comma before and after each */
  ReplayTable *a;
  int n;
  i64 nEvent, nChanged;
} Replay;

/* ------------------------------------------------------------------- base */

/* The stored columns of a table, as `"a","b"`; caller frees. */
static char *replayColumns(ChoirErr *pErr, const ChoirLogShape *p) {
  ChoirBuf b;
  int i, n = 0;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  for (i = 0; i < p->nCol; i++) {
    if (!p->aCol[i].bGenerated) {
      choirBufPrintf(&b, "%s\"%w\"", n++ ? "," : "", p->aCol[i].zName);
    }
  }
  return choirBufTake(&b);
}

/* The columns of the table's base, as `"a","b"`: all, or those that t still has;
** "" when there is no base. Caller frees. */
static char *replayBase(ChoirConn *pConn, ChoirErr *pErr, const char *zTable,
                        const ReplayTable *t) {
  sqlite3_stmt *p = choirLogPrepare(
      pConn, pErr, "PRAGMA \"%w\".table_info(\"_choir_event_base_%w\")",
      choirSchema(pConn), zTable);
  ChoirBuf b;
  int i;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  while (choirStep(pErr, p)) {
    const char *z = (const char *)sqlite3_column_text(p, 1);
    if (z == NULL) {
      choirErrNomem(pErr);
      break;
    }
    for (i = 0; t && i < t->nPlace && sqlite3_stricmp(z, t->azPlace[i]); i++) {
    }
    if (t == NULL || i < t->nPlace) {
      choirBufPrintf(&b, "%s\"%w\"", b.n ? "," : "", z);
    }
  }
  sqlite3_finalize(p);
  return choirBufTake(&b);
}

/* Keeps the rows of zTable as those from before all events. A table that fits
** is emptied, not made again: SQLite cannot roll back a DROP that runs out of
** memory before the host's own statement ends. */
static void replayKeep(ChoirConn *pConn, ChoirErr *pErr, const char *zTable) {
  ChoirLogSpec spec;
  ChoirLogShape shape;
  char *zCols, *zHave;
  memset(&spec, 0, sizeof(spec));
  spec.zTable = zTable;
  choirLogShapeRead(pConn, pErr, &shape, &spec);
  zCols = replayColumns(pErr, &shape);
  zHave = replayBase(pConn, pErr, zTable, NULL);
  if (zHave && strcmp(zHave, zCols) == 0) {
    choirExec(pConn, pErr, "DELETE FROM ~.\"_choir_event_base_%w\"", zTable);
  } else {
    choirExec(pConn, pErr,
              "DROP TABLE IF EXISTS ~.\"_choir_event_base_%w\";"
              "CREATE TABLE ~.\"_choir_event_base_%w\"(%s)",
              zTable, zTable, zCols);
  }
  choirExec(pConn, pErr,
            "INSERT INTO ~.\"_choir_event_base_%w\" SELECT %s FROM ~.\"%w\"",
            zTable, zCols, zTable);
  sqlite3_free(zHave);
  sqlite3_free(zCols);
  choirLogShapeFree(&shape);
}

CHOIR_PRIVATE void choirLogReplayBase(ChoirConn *pConn, ChoirErr *pErr,
                                      const char *zTable) {
  sqlite3_stmt *p;
  int bKnown;
  if (sqlite3_stricmp(zTable, "action_log") == 0 ||
      sqlite3_stricmp(zTable, "event_log") == 0 ||
      sqlite3_strnicmp(zTable, "_choir_", 7) == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "materializer must not write %s", zTable);
  }
  p = choirStmt(pConn, pErr,
                "SELECT 1 FROM ~._choir_event_table WHERE tbl=?1 COLLATE"
                " NOCASE");
  choirBindText(pErr, p, 1, zTable, -1);
  bKnown = choirStep(pErr, p);
  choirStmtDone(pConn, p);
  if (!bKnown && pErr->rc == SQLITE_OK) {
    replayKeep(pConn, pErr, zTable);
  }
}

/* -------------------------------------------------------- what to rebuild */

static void replayAdd(Replay *p, const char *zTable) {
  ReplayTable *a = choirRealloc(p->pErr, p->a, (u64)(p->n + 1) * sizeof(*p->a));
  if (a) {
    p->a = a;
    memset(&a[p->n], 0, sizeof(*a));
    a[p->n].zName = choirMprintf(p->pErr, "%s", zTable);
    p->n++;
  }
}

/* Events and tables that belong together, starting from one event or all. */
static void replayFind(Replay *p, const char *zName) {
  sqlite3_stmt *pStmt = choirStmt(
      p->pConn, p->pErr,
      "WITH r(name) AS (SELECT name FROM ~._choir_event WHERE ?1 IS NULL OR"
      " name=?1 UNION SELECT o.name FROM r JOIN ~._choir_event_table AS w ON"
      " w.name=r.name JOIN ~._choir_event_table AS o ON o.tbl=w.tbl)"
      " SELECT DISTINCT w.tbl, (SELECT ',' || group_concat(name) || ',' FROM r)"
      " FROM r LEFT JOIN ~._choir_event_table AS w ON w.name=r.name");
  choirBindText(p->pErr, pStmt, 1, zName, -1);
  while (choirStep(p->pErr, pStmt)) {
    if (p->zNames == NULL) {
      p->zNames = choirMprintf(p->pErr, "%s", sqlite3_column_text(pStmt, 1));
    }
    if (sqlite3_column_type(pStmt, 0) != SQLITE_NULL) {
      replayAdd(p, (const char *)sqlite3_column_text(pStmt, 0));
    }
  }
  choirStmtDone(p->pConn, pStmt);
  if (p->zNames == NULL && p->pErr->rc == SQLITE_OK) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                zName ? "events %s are not defined" : "no events are defined%s",
                zName ? zName : "");
  }
}

static void replayOpen(Replay *p) {
  int i, j;
  for (i = 0; i < p->n && p->pErr->rc == SQLITE_OK; i++) {
    ReplayTable *t = &p->a[i];
    t->spec.zTable = t->zName;
    choirLogShapeRead(p->pConn, p->pErr, &t->shape, &t->spec);
    t->azPlace =
        choirMalloc(p->pErr, (u64)(t->shape.nCol + 1) * sizeof(char *));
    for (j = 0; j < t->shape.nCol && t->azPlace; j++) {
      if (!t->shape.aCol[j].bGenerated) {
        t->azPlace[t->nPlace++] = t->shape.aCol[j].zName;
      }
    }
  }
}

/* ------------------------------------------------------------- rebuilding */

/* Triggers and foreign keys off; what they were goes to aWas. */
static void replayOff(ChoirConn *pConn, int aWas[2]) {
  sqlite3_db_config(pConn->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, -1, &aWas[0]);
  sqlite3_db_config(pConn->db, SQLITE_DBCONFIG_ENABLE_FKEY, -1, &aWas[1]);
  sqlite3_db_config(pConn->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
  sqlite3_db_config(pConn->db, SQLITE_DBCONFIG_ENABLE_FKEY, 0, NULL);
}

static void replayOn(ChoirConn *pConn, const int aWas[2]) {
  sqlite3_db_config(pConn->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, aWas[0], NULL);
  sqlite3_db_config(pConn->db, SQLITE_DBCONFIG_ENABLE_FKEY, aWas[1], NULL);
}

/* Runs one statement with its names filled in. */
static void replayRun(Replay *p, const char *zFmt, const char *zA,
                      const char *zB, const char *zC) {
  const char *zSchema = choirSchema(p->pConn);
  sqlite3_stmt *pStmt = choirLogPrepare(p->pConn, p->pErr, zFmt, zSchema, zA,
                                        zB, zC, zSchema, zA);
  choirStep(p->pErr, pStmt);
  sqlite3_finalize(pStmt);
}

static void replayEmpty(Replay *p) {
  int i, aWas[2];
  replayOff(p->pConn, aWas);
  for (i = 0; i < p->n && p->pErr->rc == SQLITE_OK; i++) {
    char *zCols = replayBase(p->pConn, p->pErr, p->a[i].zName, &p->a[i]);
    replayRun(p, "DELETE FROM \"%w\".\"%w\"", p->a[i].zName, NULL, NULL);
    if (zCols && zCols[0]) {
      replayRun(p,
                "INSERT INTO \"%w\".\"%w\"(%s) SELECT %s FROM"
                " \"%w\".\"_choir_event_base_%w\"",
                p->a[i].zName, zCols, zCols);
    }
    sqlite3_free(zCols);
  }
  replayOn(p->pConn, aWas);
}

static void replayApply(Replay *p) {
  sqlite3_stmt *pStmt = choirLogPrepare(
      p->pConn, p->pErr,
      "INSERT INTO \"%w\"._choir_event_apply(seq,id,name,payload,timestamp)"
      " SELECT seq,id,name,payload,timestamp FROM \"%w\".event_log WHERE"
      " instr(?1,',' || name || ',') ORDER BY seq",
      choirSchema(p->pConn), choirSchema(p->pConn));
  choirBindText(p->pErr, pStmt, 1, p->zNames, -1);
  choirStep(p->pErr, pStmt);
  sqlite3_finalize(pStmt);
}

/* SELECT rowid, columns of a table, as choirLogRowSet takes them. */
static sqlite3_stmt *replayRows(Replay *p, const ReplayTable *t) {
  char *zCols = replayColumns(p->pErr, &t->shape);
  sqlite3_stmt *pStmt = choirLogPrepare(
      p->pConn, p->pErr, "SELECT %s,%s FROM \"%w\".%s",
      t->shape.zRowid ? t->shape.zRowid : "NULL", zCols ? zCols : "",
      choirSchema(p->pConn), t->shape.zTable);
  sqlite3_free(zCols);
  return pStmt;
}

/* The key of a row in t<i>: the columns of the key, or the rowid, by number. */
static void replayKey(ChoirBuf *b, const ReplayTable *t) {
  int i, j, n = 0;
  for (i = 0; i < t->nPlace && !t->shape.bPseudo; i++) {
    for (j = 0; j < t->shape.nKey; j++) {
      if (sqlite3_stricmp(t->azPlace[i],
                          choirLogKeyColumn(&t->shape, j)->zName) == 0) {
        choirBufPrintf(b, "%sc%d", n++ ? "," : "", i + 1);
      }
    }
  }
  choirBufText(b, n ? "" : "c0");
}

/* Every row of pFrom, rowid and columns, into pTo; both are finalized. */
static void replayMove(Replay *p, const ReplayTable *t, sqlite3_stmt *pFrom,
                       sqlite3_stmt *pTo) {
  int j;
  while (choirStep(p->pErr, pFrom)) {
    for (j = 0; j <= t->nPlace; j++) {
      choirErrDb(
          p->pErr, p->pCopy->db,
          sqlite3_bind_value(pTo, j + 1, sqlite3_column_value(pFrom, j)));
    }
    choirStep(p->pErr, pTo);
    sqlite3_reset(pTo);
  }
  sqlite3_finalize(pFrom);
  sqlite3_finalize(pTo);
}

/* Copies the rebuilt rows to t<i> of the private database. */
static void replayCopy(Replay *p, int i) {
  ReplayTable *t = &p->a[i];
  sqlite3_stmt *pFrom = replayRows(p, t), *pTo = NULL;
  ChoirBuf b, values;
  int j;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  choirBufInit(&values, p->pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "CREATE TABLE t%d(c0", i);
  choirBufText(&values, "?1");
  for (j = 1; j <= t->nPlace; j++) {
    choirBufPrintf(&b, ",c%d", j);
    choirBufPrintf(&values, ",?%d", j + 1);
  }
  choirBufText(&b, ",UNIQUE(");
  replayKey(&b, t);
  choirBufText(&b, "))");
  if (p->pErr->rc == SQLITE_OK) {
    choirExecText(p->pCopy, p->pErr, b.a);
    pTo = choirLogPrepare(p->pCopy, p->pErr, "INSERT INTO t%d VALUES(%s)", i,
                          values.a);
  }
  replayMove(p, t, pFrom, pTo);
  choirBufFree(&b);
  choirBufFree(&values);
}

static void replayRebuild(Replay *p) {
  ChoirTxn txn;
  ChoirErr stop = {SQLITE_ABORT, NULL}; /* rolls back, whatever happened */
  int i;
  p->pCopy = choirConnPrivate(p->pErr, 1);
  if (p->pCopy) {
    choirExecText(p->pCopy, p->pErr,
                  "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN");
  }
  choirTxnBegin(&txn, p->pConn, p->pErr);
  replayEmpty(p);
  replayApply(p);
  for (i = 0; i < p->n && p->pErr->rc == SQLITE_OK; i++) {
    replayCopy(p, i);
  }
  choirTxnEnd(&txn, &stop);
  if (stop.rc != SQLITE_ABORT) {
    choirErrNomem(p->pErr);
  }
}

/* ------------------------------------------------- writing the difference */

/* c1=?2 AND … over the key, ?1 being the rowid. */
static void replayWhere(ChoirBuf *b, const ReplayTable *t) {
  char *z;
  ChoirBuf key;
  choirBufInit(&key, b->pErr, CHOIR_BUF_SQL);
  replayKey(&key, t);
  for (z = key.a; z && *z; z += strcspn(z, ",") + (strchr(z, ',') != NULL)) {
    int i = 0;
    const char *zDigit = z + 1;
    while (*zDigit >= '0' && *zDigit <= '9') {
      i = i * 10 + (*zDigit++ - '0');
    }
    choirBufPrintf(b, "%sc%d=?%d", z == key.a ? "" : " AND ", i, i + 1);
  }
  choirBufFree(&key);
}

/* Copies the rows that were not rebuilt to g<i>: they are to go. */
static void replayFindGone(Replay *p, int i) {
  ReplayTable *t = &p->a[i];
  sqlite3_stmt *pFrom = replayRows(p, t), *pTo = NULL;
  ChoirBuf b;
  int j;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b,
                 "CREATE TABLE IF NOT EXISTS g%d AS SELECT * FROM t%d WHERE"
                 " 0; DELETE FROM g%d",
                 i, i, i);
  if (p->pErr->rc == SQLITE_OK) {
    choirExecText(p->pCopy, p->pErr, b.a);
  }
  choirBufFree(&b);
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "INSERT INTO g%d SELECT ?1", i);
  for (j = 1; j <= t->nPlace; j++) {
    choirBufPrintf(&b, ",?%d", j + 1);
  }
  choirBufPrintf(&b, " WHERE NOT EXISTS(SELECT 1 FROM t%d WHERE ", i);
  replayWhere(&b, t);
  choirBufText(&b, ")");
  if (p->pErr->rc == SQLITE_OK) {
    pTo = choirLogPrepare(p->pCopy, p->pErr, "%s", b.a);
  }
  choirBufFree(&b);
  replayMove(p, t, pFrom, pTo);
}

/* One table, once; returns how many rows were not as they should be. */
static i64 replayWrite(Replay *p, int i, char **pzWhy) {
  ReplayTable *t = &p->a[i];
  ChoirLogRows *pRows =
      choirLogRowsOpen(p->pConn, p->pErr, &t->shape, t->azPlace, t->nPlace);
  i64 n = 0;
  int j;
  replayFindGone(p, i);
  for (j = 0; j < 2; j++) {
    sqlite3_stmt *pStmt = choirLogPrepare(
        p->pCopy, p->pErr, "SELECT * FROM %s%d", j ? "t" : "g", i);
    while (choirStep(p->pErr, pStmt)) {
      n += choirLogRowSet(p->pErr, pRows, pStmt, 0, j ? t->nPlace : 0, pzWhy) !=
           CHOIR_ROW_SAME;
    }
    sqlite3_finalize(pStmt);
  }
  choirLogRowsClose(pRows);
  return n;
}

static void replayDiffer(Replay *p) {
  char *zWhy = NULL;
  i64 n = 1;
  int i, iPass;
  for (iPass = 0; n > 0 && iPass < REPLAY_PASSES; iPass++) {
    n = 0;
    for (i = 0; i < p->n && p->pErr->rc == SQLITE_OK; i++) {
      n += replayWrite(p, i, &zWhy);
    }
    p->nChanged = p->nChanged > n ? p->nChanged : n;
  }
  if (n > 0 && p->pErr->rc == SQLITE_OK) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "%lld rows do not stay as they were rebuilt: %s", n,
                zWhy ? zWhy : "a trigger changes them");
  }
  sqlite3_free(zWhy);
}

static void replayAll(Replay *p, const char *zName) {
  sqlite3_stmt *pStmt;
  choirLogEventNeed(p->pConn, p->pErr);
  replayFind(p, zName);
  replayOpen(p);
  pStmt = choirStmt(p->pConn, p->pErr,
                    "SELECT count(*) FROM ~.event_log WHERE instr(?1,"
                    " ',' || name || ',')");
  choirBindText(p->pErr, pStmt, 1, p->zNames, -1);
  p->nEvent = choirStep(p->pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  choirStmtDone(p->pConn, pStmt);
  if (p->pErr->rc == SQLITE_OK) {
    replayRebuild(p);
    replayDiffer(p);
  }
}

static void replayClose(Replay *p) {
  int i;
  for (i = 0; i < p->n; i++) {
    choirLogShapeFree(&p->a[i].shape);
    sqlite3_free(p->a[i].azPlace);
    sqlite3_free(p->a[i].zName);
  }
  sqlite3_free(p->a);
  sqlite3_free(p->zNames);
  if (p->pCopy) {
    choirConnUnref(p->pCopy);
  }
}

/*
** SQL: event_replay([name]) -> TEXT
**
** Rebuilds the tables that materializers write from the events, so that they
** hold exactly what the events say, and nothing else. What is right already is
** not written; what is not is written by ordinary statements and recorded. Gives
** {"events","tables","changed": rows}. Call it in a SELECT of its own.
**
**   name  TEXT, only the tables of this event and of those that write the same
**         tables; default: all
**
** NULL: a NULL name is all.
** Errors: no such event; a materializer that fails; rows that a trigger or a
** constraint does not let be.
**
** > SELECT event_define('v1.Tea', '{"name":"text"}', 'INSERT INTO user_settings(setting_name, updated_at) VALUES(NEW.payload->>''$.name'', 0)');
** > SELECT event_emit('v1.Tea', '{"name":"oolong"}');
** > UPDATE user_settings SET setting_name = 'sencha';
** > SELECT event_replay();
** > SELECT setting_name FROM user_settings
** = oolong
*/
static void replayCall(ChoirCall *p) {
  Replay run;
  ChoirBuf b;
  memset(&run, 0, sizeof(run));
  run.pConn = p->pConn;
  run.pErr = &p->err;
  replayAll(&run,
            p->nArg ? choirArgTextOrNull(&p->err, p->apArg[0], "name") : NULL);
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "{\"events\":%lld,\"tables\":%d,\"changed\":%lld}",
                 run.nEvent, run.n, run.nChanged);
  choirBufResult(&b, p->pCtx);
  replayClose(&run);
}

/*
** SQL: event_compact() -> TEXT
**
** Rebuilds all tables as event_replay() does, keeps their rows as the state before
** all events, and removes the events that made them. Events of names that are not
** defined stay. Gives {"events": removed, "rows": kept}.
**
** Errors: those of event_replay().
**
** > SELECT event_define('v1.Tea', '{"name":"text"}', 'INSERT INTO user_settings(setting_name) VALUES(NEW.payload->>''$.name'')');
** > SELECT event_emit('v1.Tea', '{"name":"oolong"}');
** > SELECT event_compact()
** = {"events":1,"rows":1}
*/
static void compactCall(ChoirCall *p) {
  Replay run;
  ChoirBuf b;
  i64 nRow = 0;
  int i;
  memset(&run, 0, sizeof(run));
  run.pConn = p->pConn;
  run.pErr = &p->err;
  replayAll(&run, NULL);
  for (i = 0; i < run.n && p->err.rc == SQLITE_OK; i++) {
    sqlite3_stmt *pStmt;
    replayKeep(p->pConn, &p->err, run.a[i].zName);
    pStmt =
        choirLogPrepare(p->pConn, &p->err, "SELECT count(*) FROM \"%w\".\"%w\"",
                        choirSchema(p->pConn), run.a[i].zName);
    nRow += choirStep(&p->err, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
    sqlite3_finalize(pStmt);
  }
  choirExecText(p->pConn, &p->err,
                "DELETE FROM ~.event_log WHERE name IN(SELECT name FROM"
                " ~._choir_event)");
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "{\"events\":%lld,\"rows\":%lld}", run.nEvent, nRow);
  choirBufResult(&b, p->pCtx);
  replayClose(&run);
}

static const ChoirFunc aReplayFunc[] = {
    {"event_replay", 0, 1, CHOIR_WRITE, 0, replayCall, NULL},
    {"event_compact", 0, 0, CHOIR_WRITE, 0, compactCall, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirLogReplayRegister(ChoirConn *pConn,
                                                     ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aReplayFunc);
}
