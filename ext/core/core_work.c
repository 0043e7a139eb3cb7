/* SPDX-License-Identifier: MIT */
/*
** The workspace as a whole: choir_init, choir_uninstall, choir_check,
** choir_doctor, choir_metrics. Rooms add their parts (ChoirPart); this file
** runs them in order.
**
** Owns in the file: _choir_meta(key, value) and _choir_migration. The format
** version there, not PRAGMA user_version, says what the workspace is; the
** pragma is set only on a database that choir_init created from empty,
** because in any other it belongs to the host.
*/
#include "core.h"

static const char *const azWorkSql[] = {
    "CREATE TABLE ~._choir_meta("
    "key TEXT PRIMARY KEY NOT NULL, value TEXT) WITHOUT ROWID",
    "CREATE TABLE ~._choir_migration("
    "version INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL,"
    " applied_at INTEGER NOT NULL)",
    NULL,
};

CHOIR_PRIVATE void choirPartAdd(ChoirConn *pConn, const ChoirPart *pPart) {
  if (pConn->nPart < (int)(sizeof(pConn->apPart) / sizeof(*pConn->apPart))) {
    pConn->apPart[pConn->nPart++] = pPart;
  }
}

CHOIR_PRIVATE void choirPartsSettle(ChoirConn *pConn, ChoirErr *pErr) {
  int i;
  for (i = 0; i < pConn->nPart && pErr->rc == SQLITE_OK; i++) {
    if (pConn->apPart[i]->xSettle) {
      pConn->apPart[i]->xSettle(pConn, pErr);
    }
  }
}

/* A kept statement answers in under a microsecond, and SQLite prepares it anew
** when the schema changed. */
CHOIR_PRIVATE int choirHasWorkspace(ChoirConn *pConn, ChoirErr *pErr) {
  ChoirErr err = {0, NULL};
  sqlite3_stmt *p;
  int bHave;
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  p = choirStmt(pConn, &err, "SELECT 1 FROM ~._choir_meta LIMIT 1");
  choirStep(&err, p);
  choirStmtDone(pConn, p);
  bHave = err.rc == SQLITE_OK;
  if ((err.rc & 0xff) == SQLITE_ERROR) { /* no such table or schema */
    choirErrClear(&err);
  }
  *pErr = err;
  return bHave;
}

CHOIR_PRIVATE void choirNeedWorkspace(ChoirConn *pConn, ChoirErr *pErr) {
  if (!choirHasWorkspace(pConn, pErr)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no workspace in schema %s; run select choir_init()",
                choirSchema(pConn));
  }
}

CHOIR_PRIVATE char *choirMetaGet(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zKey) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr, "SELECT value FROM ~._choir_meta WHERE key=?1");
  char *z = NULL;
  choirBindText(pErr, p, 1, zKey, -1);
  if (choirStep(pErr, p) && sqlite3_column_type(p, 0) != SQLITE_NULL) {
    z = choirMprintf(pErr, "%s", (const char *)sqlite3_column_text(p, 0));
  }
  choirStmtDone(pConn, p);
  return z;
}

CHOIR_PRIVATE void choirMetaSet(ChoirConn *pConn, ChoirErr *pErr,
                                const char *zKey, const char *zValue) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr,
      "INSERT INTO ~._choir_meta(key, value) VALUES(?1, ?2)"
      " ON CONFLICT(key) DO UPDATE SET value=?2 WHERE value IS NOT ?2");
  choirBindText(pErr, p, 1, zKey, -1);
  choirBindText(pErr, p, 2, zValue, -1);
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

/* ------------------------------------------------------------ choir_init */

/* Format version of the workspace in the file. */
static int workVersion(ChoirConn *pConn, ChoirErr *pErr) {
  return (int)choirQueryInt(
      pConn, pErr, "SELECT coalesce(max(version),0) FROM ~._choir_migration",
      0);
}

/* Is there an object that is word for word what zSql creates? One left by
** choir_uninstall() is taken back as it is. */
static int workStands(ChoirConn *pConn, ChoirErr *pErr, const char *zSql) {
  const char *zName = strstr(zSql, " ~.");
  sqlite3_stmt *p;
  char *z;
  int bRow;
  if (zName == NULL || strncmp(zSql, "CREATE ", 7) != 0) {
    return 0;
  }
  z = choirMprintf(pErr, "%.*s%s", (int)(zName + 1 - zSql), zSql, zName + 3);
  p = choirStmt(pConn, pErr, "SELECT 1 FROM ~.sqlite_schema WHERE sql=?1");
  choirBindText(pErr, p, 1, z, -1);
  bRow = choirStep(pErr, p);
  choirStmtDone(pConn, p);
  sqlite3_free(z);
  return bRow;
}

/* Does the object zName stand as one of the migration's statements makes it? */
static int workIsOurs(ChoirConn *pConn, ChoirErr *pErr,
                      const ChoirMigration *pMig, const char *zName) {
  size_t n = strlen(zName);
  int i;
  for (i = 0; pMig->azSql[i]; i++) {
    const char *z = strstr(pMig->azSql[i], " ~.");
    if (z && sqlite3_strnicmp(z + 3, zName, (int)n) == 0 &&
        strchr("( \n", z[3 + n]) && workStands(pConn, pErr, pMig->azSql[i])) {
      return 1;
    }
  }
  return 0;
}

/* Names that migrations after iFrom would create but a host already has. */
static void workConflicts(ChoirConn *pConn, ChoirErr *pErr, int iFrom) {
  ChoirBuf b;
  int i, j, n = 0;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  for (i = iFrom; i < choirMigrationCount; i++) {
    const char *const *az = choirMigrations[i].azObject;
    for (j = 0; az[j]; j++) {
      if (choirExists(pConn, pErr, NULL, az[j]) &&
          !workIsOurs(pConn, pErr, &choirMigrations[i], az[j])) {
        choirBufPrintf(&b, "%s%s", n++ ? ", " : "", az[j]);
      }
    }
  }
  if (n && pErr->rc == SQLITE_OK) {
    choirErrSet(pErr, SQLITE_ERROR,
                "schema %s already has %s; rename %s or attach another file"
                " and choose it by select choir_config('schema', …)",
                choirSchema(pConn), b.a, n == 1 ? "it" : "them");
  }
  choirBufFree(&b);
}

static void workMigrate(ChoirConn *pConn, ChoirErr *pErr,
                        const ChoirMigration *pMig) {
  sqlite3_stmt *p;
  int i;
  for (i = 0; pMig->azSql[i] && pErr->rc == SQLITE_OK; i++) {
    if (!workStands(pConn, pErr, pMig->azSql[i])) {
      choirExecText(pConn, pErr, pMig->azSql[i]);
    }
  }
  p = choirStmt(pConn, pErr,
                "INSERT INTO ~._choir_migration(version, name, sha256,"
                " applied_at) VALUES(?1, ?2, ?3, ?4)");
  choirBindInt(pErr, p, 1, pMig->iVersion);
  choirBindText(pErr, p, 2, pMig->zName, -1);
  choirBindText(pErr, p, 3, pMig->zSha256, -1);
  choirBindInt(pErr, p, 4, choirNow());
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

static i64 workPragma(ChoirConn *pConn, ChoirErr *pErr, const char *zSql) {
  sqlite3_stmt *p = choirPrepare(pConn, pErr, zSql);
  i64 i = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : 0;
  sqlite3_finalize(p);
  return i;
}

/* Is the schema's file empty: no page, or the one page that a call that was cut
** off has left, on which nothing was ever made? */
static int workIsNew(ChoirConn *pConn, ChoirErr *pErr) {
  return workPragma(pConn, pErr, "PRAGMA ~.page_count") <= 1 &&
         workPragma(pConn, pErr, "PRAGMA ~.schema_version") == 0 &&
         workPragma(pConn, pErr, "PRAGMA ~.user_version") == 0 &&
         workPragma(pConn, pErr, "PRAGMA ~.application_id") == 0;
}

/* A new file becomes a WAL database. The pragma is refused while a statement
** of its own connection runs (ours does), so a second connection sets it, with
** the page size that the host chose on its own. */
static void workSetWal(ChoirConn *pConn, ChoirErr *pErr) {
  const char *zFile = sqlite3_db_filename(pConn->db, choirSchema(pConn));
  sqlite3_stmt *p = choirPrepare(pConn, pErr, "PRAGMA ~.page_size");
  int szPage = choirStep(pErr, p) ? sqlite3_column_int(p, 0) : 4096;
  sqlite3 *db = NULL;
  sqlite3_finalize(p);
  if (zFile && zFile[0] && sqlite3_get_autocommit(pConn->db) &&
      sqlite3_open_v2(zFile, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK) {
    char z[80];
    sqlite3_snprintf(sizeof(z), z,
                     "PRAGMA page_size=%d;"
                     "PRAGMA journal_mode=WAL",
                     szPage);
    sqlite3_exec(db, z, NULL, NULL, NULL);
  }
  sqlite3_close(db);
}

/* Makes those of choir's own tables that are gone: somebody dropped them. What
** was in them is derived, and the parts derive it anew. */
static void workTables(ChoirConn *pConn, ChoirErr *pErr,
                       const char *const *azSql) {
  static const char zTable[] = "CREATE TABLE ~.";
  const int nTable = (int)sizeof(zTable) - 1;
  int i;
  for (i = 0; azSql[i] && pErr->rc == SQLITE_OK; i++) {
    const char *zName = azSql[i] + nTable;
    if (strncmp(azSql[i], zTable, (size_t)nTable) == 0 &&
        strncmp(zName, "_choir_", 7) == 0) {
      char *z = choirMprintf(pErr, "%.*s", (int)strcspn(zName, "( \n"), zName);
      if (z && !choirExists(pConn, pErr, NULL, z)) {
        choirExecText(pConn, pErr, azSql[i]);
      }
      sqlite3_free(z);
    }
  }
}

static void workInstall(ChoirConn *pConn, ChoirErr *pErr, int bNew) {
  int i, iHave;
  workTables(pConn, pErr, azWorkSql);
  iHave = workVersion(pConn, pErr);
  if (pErr->rc == SQLITE_OK && iHave > choirMigrationCount) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the workspace in schema %s has format %d and this choir knows"
                " up to %d; load a newer choir",
                choirSchema(pConn), iHave, choirMigrationCount);
  }
  workConflicts(pConn, pErr, iHave);
  for (i = 0; i < iHave && pErr->rc == SQLITE_OK; i++) {
    workTables(pConn, pErr, choirMigrations[i].azSql);
  }
  for (i = iHave; i < choirMigrationCount && pErr->rc == SQLITE_OK; i++) {
    workMigrate(pConn, pErr, &choirMigrations[i]);
  }
  for (i = 0; i < pConn->nPart && pErr->rc == SQLITE_OK; i++) {
    if (pConn->apPart[i]->xInstall) {
      pConn->apPart[i]->xInstall(pConn, pErr);
    }
  }
  if (bNew) {
    choirExec(pConn, pErr, "PRAGMA ~.user_version=%d", choirMigrationCount);
  }
}

/*
** SQL: choir_init([schema]) -> INTEGER
**
** Makes a database a workspace, or brings an older workspace up to date, and
** returns the format version. Safe to call again: it then repairs triggers
** and changes nothing else. A new file is put in WAL mode. All or nothing.
**
**   schema  TEXT, attached database to use from now on on this connection
**           (the same as choir_config('schema', …)); default: the configured
**
** NULL: a NULL schema means the configured one.
** Errors: a table of the host has a name choir needs (the list is given); the
** workspace was made by a newer choir; the database is read-only.
**
** > SELECT choir_init()
** = 4
*/
static void workInit(ChoirCall *p) {
  ChoirTxn txn;
  int bNew;
  if (p->nArg == 1) {
    const char *z = choirArgTextOrNull(&p->err, p->apArg[0], "schema");
    if (z) {
      choirConfigSet(p->pConn, &p->err, "schema", z);
    }
  }
  if (p->err.rc == SQLITE_OK &&
      sqlite3_db_readonly(p->pConn->db, choirSchema(p->pConn)) < 0) {
    choirErrSet(&p->err, SQLITE_ERROR, "no attached database '%s'",
                choirSchema(p->pConn));
  }
  bNew = workIsNew(p->pConn, &p->err);
  if (bNew && p->err.rc == SQLITE_OK) {
    workSetWal(p->pConn, &p->err);
  }
  choirTxnBegin(&txn, p->pConn, &p->err);
  workInstall(p->pConn, &p->err, bNew);
  choirTxnEnd(&txn, &p->err);
  if (p->err.rc == SQLITE_OK) {
    sqlite3_result_int(p->pCtx, choirMigrationCount);
  }
}

/*
** SQL: choir_uninstall() -> INTEGER
**
** Removes choir's triggers and internal tables (_choir_*) from the workspace
** and returns how many objects were dropped. The tables with the user's data
** (artifacts, messages, action_log, …) and the views on it stay; choir_init()
** takes them back as long as nobody altered them.
**
** Errors: no workspace in the schema.
**
** > SELECT choir_uninstall() > 0
** = 1
*/
static void workUninstall(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  i64 nDropped = 0;
  int i;
  choirNeedWorkspace(pConn, &p->err);
  for (i = pConn->nPart - 1; i >= 0 && p->err.rc == SQLITE_OK; i--) {
    if (pConn->apPart[i]->xUninstall) {
      pConn->apPart[i]->xUninstall(pConn, &p->err);
    }
  }
  /* Triggers before tables, virtual tables before the tables they own. */
  while (p->err.rc == SQLITE_OK) {
    sqlite3_stmt *pStmt = choirPrepare(
        pConn, &p->err,
        "SELECT type, name FROM ~.sqlite_schema WHERE type IN"
        " ('trigger','view','table') AND name GLOB '_choir_*'"
        " ORDER BY type='table', sql NOT LIKE 'CREATE VIRTUAL%' LIMIT 1");
    char *zType = NULL, *zName = NULL;
    if (choirStep(&p->err, pStmt)) {
      zType = choirMprintf(&p->err, "%s", sqlite3_column_text(pStmt, 0));
      zName = choirMprintf(&p->err, "%s", sqlite3_column_text(pStmt, 1));
    }
    sqlite3_finalize(pStmt);
    if (zName == NULL) {
      sqlite3_free(zType);
      break;
    }
    choirExec(pConn, &p->err, "DROP %s ~.\"%w\"", zType, zName);
    nDropped++;
    sqlite3_free(zType);
    sqlite3_free(zName);
  }
  choirStmtFlush(pConn);
  sqlite3_result_int64(p->pCtx, nDropped);
}

/* ---------------------------------------------------------------- reports */

static void workCheckMigrations(ChoirConn *pConn, ChoirCursor *pCur) {
  ChoirErr *pErr = &pCur->err;
  int i;
  for (i = 0; i < choirMigrationCount && pErr->rc == SQLITE_OK; i++) {
    sqlite3_stmt *p = choirStmt(
        pConn, pErr,
        "SELECT 1 FROM ~._choir_migration WHERE version=?1 AND sha256=?2");
    choirBindInt(pErr, p, 1, choirMigrations[i].iVersion);
    choirBindText(pErr, p, 2, choirMigrations[i].zSha256, -1);
    if (!choirStep(pErr, p) && pErr->rc == SQLITE_OK) {
      char *z =
          choirMprintf(pErr,
                       "migration %d (%s) is missing or differs;"
                       " run select choir_init()",
                       choirMigrations[i].iVersion, choirMigrations[i].zName);
      choirRowText(pCur, "migrations");
      choirRowText(pCur, z);
      sqlite3_free(z);
    }
    choirStmtDone(pConn, p);
  }
}

/*
** SQL: choir_check() -> TEXT
**
** Verifies every structure that choir derives: migrations, triggers, text
** index, vectors, sync position. Gives a JSON object:
** {"ok":1,"problems":[]}, or ok 0 and one {"part","problem"} each.
**
** Errors: no workspace in the schema.
**
** > SELECT choir_check()
** = {"ok":1,"problems":[]}
*/
static void workCheck(ChoirCall *p) {
  static const char *const azKey[] = {"part", "problem"};
  ChoirCursor cur; /* only its rows and its error are used */
  ChoirBuf b;
  int i;
  memset(&cur, 0, sizeof(cur));
  choirNeedWorkspace(p->pConn, &cur.err);
  workCheckMigrations(p->pConn, &cur);
  for (i = 0; i < p->pConn->nPart && cur.err.rc == SQLITE_OK; i++) {
    if (p->pConn->apPart[i]->xCheck) {
      p->pConn->apPart[i]->xCheck(p->pConn, &cur.err, &cur);
    }
  }
  p->err = cur.err;
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirBufPrintf(&b, "{\"ok\":%d,\"problems\":", cur.rows.nCell == 0);
  choirRowsJson(&cur, &b, azKey, 2);
  choirBufText(&b, "}");
  choirRowsFree(&cur);
  choirBufResult(&b, p->pCtx);
}

/* The WAL-reset race: two connections checkpointing and writing at once. */
static void workDoctorSqlite(ChoirCursor *p) {
  int iVersion = sqlite3_libversion_number();
  int bRace = iVersion >= 3007000 && iVersion < 3051003;
  choirRowText(p, "sqlite");
  choirRowText(p, bRace ? "warn" : "ok");
  choirRowText(p, sqlite3_libversion());
  choirRowText(p, bRace ? "3.51.3 or newer mends a rare corruption when two"
                          " connections checkpoint at once; choir itself"
                          " never checkpoints beside other writers"
                        : NULL);
}

/*
** SQL: choir_doctor -> TABLE(check, status, detail, remedy)
**
** Looks at everything that commonly goes wrong: the SQLite version, the
** workspace and its triggers, names shared with other extensions, the config
** file. status is ok, warn or fail.
**
** > SELECT count(*) FROM choir_doctor WHERE status = 'fail'
** = 0
*/
static void workDoctor(ChoirCursor *p) {
  ChoirConn *pConn = p->pConn;
  int i, bHave;
  char *zWhere;
  workDoctorSqlite(p);
  bHave = choirHasWorkspace(pConn, &p->err);
  zWhere = choirMprintf(&p->err, "%s in schema %s", bHave ? "one" : "none",
                        choirSchema(pConn));
  choirRowText(p, "workspace");
  choirRowText(p, bHave ? "ok" : "warn");
  choirRowText(p, zWhere);
  choirRowText(p, bHave ? NULL : "select choir_init()");
  sqlite3_free(zWhere);
  choirRowText(p, "shared names");
  choirRowText(p, pConn->zKept ? "warn" : "ok");
  choirRowText(p, pConn->zKept ? pConn->zKept : "none");
  choirRowText(p, pConn->zKept ? "these functions belong to another extension"
                                 " on this connection; load choir first to"
                                 " have choir's"
                               : NULL);
  for (i = 0; i < pConn->nPart && p->err.rc == SQLITE_OK; i++) {
    if (pConn->apPart[i]->xDoctor) {
      pConn->apPart[i]->xDoctor(pConn, &p->err, p);
    }
  }
}

/*
** SQL: choir_metrics -> TABLE(name, value, unit)
**
** Counts of the workspace and of this connection, one a row.
**
** > SELECT count(*) = count(DISTINCT name) FROM choir_metrics
** = 1
*/
static void workMetrics(ChoirCursor *p) {
  int i;
  choirNeedWorkspace(p->pConn, &p->err);
  for (i = 0; i < p->pConn->nPart && p->err.rc == SQLITE_OK; i++) {
    if (p->pConn->apPart[i]->xMetrics) {
      p->pConn->apPart[i]->xMetrics(p->pConn, &p->err, p);
    }
  }
}

static const ChoirFunc aWorkFunc[] = {
    /* EFFECT-free, but it opens its own savepoint after setting WAL. */
    {"choir_init", 0, 1, CHOIR_SETTING, 0, workInit, NULL},
    {"choir_check", 0, 0, CHOIR_READ, 0, workCheck, NULL},
    {"choir_uninstall", 0, 0, CHOIR_WRITE, 0, workUninstall, NULL},
};

static const ChoirTvf aWorkTvf[] = {
    {"choir_doctor", "\"check\", status, detail, remedy", 4, 0, 0, CHOIR_READ,
     0, 0, workDoctor, NULL, NULL, NULL},
    {"choir_metrics", "name, value, unit", 3, 0, 0, CHOIR_READ, 0, 0,
     workMetrics, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirWorkRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aWorkFunc);
  choirTvfs(pConn, pErr, aWorkTvf);
}
