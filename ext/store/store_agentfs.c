/* SPDX-License-Identifier: MIT */
/*
** choir_export: the workspace as a new file of AgentFS (its specification 0.4),
** what choir_import() takes back: artifacts as files in chunks of 4,096 bytes,
** the state as its key-value store, finished tasks as tool calls.
**
** The file is written by a connection of its own, in one transaction; it must
** not be there before, and is removed when something fails.
*/
#include "store.h"

#if !defined(_WIN32)
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define AGENTFS_CHUNK 4096

static const char zAgentfsSchema[] =
    "PRAGMA journal_mode=WAL;BEGIN;"
    "CREATE TABLE fs_config(key TEXT PRIMARY KEY, value TEXT NOT NULL);"
    "CREATE TABLE fs_inode(ino INTEGER PRIMARY KEY AUTOINCREMENT,"
    " mode INTEGER NOT NULL, nlink INTEGER NOT NULL DEFAULT 0,"
    " uid INTEGER NOT NULL DEFAULT 0, gid INTEGER NOT NULL DEFAULT 0,"
    " size INTEGER NOT NULL DEFAULT 0, atime INTEGER NOT NULL,"
    " mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,"
    " rdev INTEGER NOT NULL DEFAULT 0, atime_nsec INTEGER NOT NULL DEFAULT 0,"
    " mtime_nsec INTEGER NOT NULL DEFAULT 0,"
    " ctime_nsec INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE fs_dentry(id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " name TEXT NOT NULL, parent_ino INTEGER NOT NULL, ino INTEGER NOT NULL,"
    " UNIQUE(parent_ino, name));"
    "CREATE INDEX idx_fs_dentry_parent ON fs_dentry(parent_ino, name);"
    "CREATE TABLE fs_data(ino INTEGER NOT NULL, chunk_index INTEGER NOT NULL,"
    " data BLOB NOT NULL, PRIMARY KEY(ino, chunk_index));"
    "CREATE TABLE fs_symlink(ino INTEGER PRIMARY KEY, target TEXT NOT NULL);"
    "CREATE TABLE kv_store(key TEXT PRIMARY KEY, value TEXT NOT NULL,"
    " created_at INTEGER DEFAULT (unixepoch()),"
    " updated_at INTEGER DEFAULT (unixepoch()));"
    "CREATE INDEX idx_kv_store_created_at ON kv_store(created_at);"
    "CREATE TABLE tool_calls(id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " name TEXT NOT NULL, parameters TEXT, result TEXT, error TEXT,"
    " status TEXT NOT NULL DEFAULT 'pending', started_at INTEGER NOT NULL,"
    " completed_at INTEGER, duration_ms INTEGER);"
    "CREATE INDEX idx_tool_calls_name ON tool_calls(name);"
    "CREATE INDEX idx_tool_calls_started_at ON tool_calls(started_at);"
    "INSERT INTO fs_config VALUES('chunk_size', '4096'),"
    " ('schema_version', '0.4');"
    "INSERT INTO fs_inode(ino, mode, nlink, atime, mtime, ctime)"
    " VALUES(1, 16877, 1, unixepoch(), unixepoch(), unixepoch())";

enum {
  AGENTFS_FIND,
  AGENTFS_INODE,
  AGENTFS_ENTRY,
  AGENTFS_DATA,
  AGENTFS_KEY,
  AGENTFS_CALL,
  AGENTFS_STMTS
};
static const char *const azAgentfsSql[AGENTFS_STMTS] = {
    "SELECT ino, mode FROM fs_dentry JOIN fs_inode USING(ino)"
    " WHERE parent_ino=?1 AND name=?2",
    "INSERT INTO fs_inode(mode, nlink, size, atime, mtime, ctime)"
    " VALUES(?1, 1, ?2, ?3 / 1000, ?3 / 1000, ?3 / 1000)",
    "INSERT INTO fs_dentry(name, parent_ino, ino) VALUES(?2, ?1, ?3)",
    "INSERT INTO fs_data(ino, chunk_index, data)"
    " VALUES(?1, ?2, CAST(?3 AS BLOB))",
    "INSERT INTO kv_store(key, value, created_at, updated_at)"
    " VALUES(?1, ?2, ?3 / 1000, ?4 / 1000)",
    "INSERT INTO tool_calls(name, parameters, result, error, status,"
    " started_at, completed_at, duration_ms) VALUES(?1, ?2, ?3, ?4, ?5,"
    " ?6 / 1000, ?7 / 1000, ?7 - ?6)",
};

typedef struct AgentfsRun {
  ChoirConn *pConn;
  ChoirErr *pErr;
  sqlite3 *db;
  sqlite3_stmt *a[AGENTFS_STMTS];
  ChoirStoreReport report;
  i64 nFile, nKey, nCall, nRemote;
} AgentfsRun;

static void agentfsDone(AgentfsRun *p, int i) {
  if (p->a[i]) {
    sqlite3_reset(p->a[i]);
    sqlite3_clear_bindings(p->a[i]);
  }
}

/* What zName (n bytes) of folder iParent is, made where it is missing. 0: it
** is there and something else. */
static i64 agentfsNode(AgentfsRun *p, i64 iParent, const char *zName, i64 n,
                       int mMode, i64 nSize, i64 iTime) {
  i64 iNode = 0;
  int bThere;
  choirBindInt(p->pErr, p->a[AGENTFS_FIND], 1, iParent);
  choirBindText(p->pErr, p->a[AGENTFS_FIND], 2, zName, n);
  bThere = choirStep(p->pErr, p->a[AGENTFS_FIND]);
  if (bThere && sqlite3_column_int(p->a[AGENTFS_FIND], 1) == mMode) {
    iNode = sqlite3_column_int64(p->a[AGENTFS_FIND], 0);
  }
  agentfsDone(p, AGENTFS_FIND);
  if (!bThere && p->pErr->rc == SQLITE_OK) {
    choirBindInt(p->pErr, p->a[AGENTFS_INODE], 1, mMode);
    choirBindInt(p->pErr, p->a[AGENTFS_INODE], 2, nSize);
    choirBindInt(p->pErr, p->a[AGENTFS_INODE], 3, iTime);
    choirStep(p->pErr, p->a[AGENTFS_INODE]);
    iNode = sqlite3_last_insert_rowid(p->db);
    agentfsDone(p, AGENTFS_INODE);
    choirBindInt(p->pErr, p->a[AGENTFS_ENTRY], 1, iParent);
    choirBindText(p->pErr, p->a[AGENTFS_ENTRY], 2, zName, n);
    choirBindInt(p->pErr, p->a[AGENTFS_ENTRY], 3, iNode);
    choirStep(p->pErr, p->a[AGENTFS_ENTRY]);
    agentfsDone(p, AGENTFS_ENTRY);
  }
  return iNode;
}

/* One artifact: path, updated_at, rowid. */
static void agentfsFile(AgentfsRun *p, sqlite3_stmt *pRow) {
  const char *z = (const char *)sqlite3_column_text(pRow, 0);
  i64 iTime = sqlite3_column_int64(pRow, 1), iNode = 1, i;
  ChoirStoreContent content;
  choirStoreContentOpen(p->pConn, p->pErr, &content,
                        sqlite3_column_int64(pRow, 2));
  while (iNode && z && *z && p->pErr->rc == SQLITE_OK) {
    i64 n = (i64)strcspn(++z, "/");
    iNode = z[n] ? agentfsNode(p, iNode, z, n, 16877, 0, iTime)
                 : agentfsNode(p, iNode, z, n, 33188, content.n, iTime);
    z += n;
  }
  if (iNode == 0 && p->pErr->rc == SQLITE_OK) {
    choirStoreProblem(&p->report, (const char *)sqlite3_column_text(pRow, 0),
                      "a file is in its folder's place");
  }
  p->nFile += iNode != 0;
  for (i = 0; iNode && i < content.n && p->pErr->rc == SQLITE_OK;
       i += AGENTFS_CHUNK) {
    i64 n = content.n - i < AGENTFS_CHUNK ? content.n - i : AGENTFS_CHUNK;
    const char *a = choirStoreContentAt(p->pErr, &content, i, n);
    choirBindInt(p->pErr, p->a[AGENTFS_DATA], 1, iNode);
    choirBindInt(p->pErr, p->a[AGENTFS_DATA], 2, i / AGENTFS_CHUNK);
    choirBindBlob(p->pErr, p->a[AGENTFS_DATA], 3, a, n);
    choirStep(p->pErr, p->a[AGENTFS_DATA]);
    agentfsDone(p, AGENTFS_DATA);
  }
  choirStoreContentClose(&content);
  if (choirInterrupted(p->pConn)) {
    choirErrSet(p->pErr, SQLITE_INTERRUPT, "interrupted");
  }
}

static void agentfsFiles(AgentfsRun *p) {
  sqlite3_stmt *pRow = choirStmt(
      p->pConn, p->pErr,
      "SELECT path, updated_at, rowid, content IS NULL FROM ~.artifacts"
      " WHERE deleted_at IS NULL ORDER BY path");
  while (choirStep(p->pErr, pRow)) {
    const char *zPath = (const char *)sqlite3_column_text(pRow, 0);
    ChoirErr one = {SQLITE_OK, NULL};
    char *z = choirStorePath(&one, zPath, "path", CHOIR_STORE_FILE);
    if (zPath == NULL || one.rc == SQLITE_NOMEM) {
      choirErrNomem(p->pErr);
    } else if (z == NULL || strcmp(z, zPath) != 0) { /* written by plain SQL */
      choirStoreProblem(&p->report, zPath,
                        one.zMsg ? one.zMsg : "not a plain path");
    } else if (sqlite3_column_int(pRow, 3)) {
      p->nRemote++;
    } else {
      agentfsFile(p, pRow);
    }
    choirErrClear(&one);
    sqlite3_free(z);
  }
  choirStmtDone(p->pConn, pRow);
}

/* The rows of zFrom into statement i; returns how many. */
static i64 agentfsRows(AgentfsRun *p, const char *zFrom, int i) {
  sqlite3_stmt *pRow = choirStmt(p->pConn, p->pErr, zFrom);
  i64 n = 0;
  int j;
  while (choirStep(p->pErr, pRow)) {
    for (j = 0; j < sqlite3_column_count(pRow); j++) {
      choirBindValue(p->pErr, p->a[i], j + 1, sqlite3_column_value(pRow, j));
    }
    choirStep(p->pErr, p->a[i]);
    agentfsDone(p, i);
    n++;
  }
  choirStmtDone(p->pConn, pRow);
  return n;
}

static void agentfsWrite(AgentfsRun *p, const char *zFile) {
  int i, rc = sqlite3_open_v2(zFile, &p->db,
                              SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(p->pErr);
  } else if (rc != SQLITE_OK) {
    choirErrSet(p->pErr, SQLITE_ERROR, "cannot write %s: %s", zFile,
                sqlite3_errmsg(p->db));
  }
  if (rc != SQLITE_OK) {
    return;
  }
  choirErrDb(p->pErr, p->db,
             sqlite3_exec(p->db, zAgentfsSchema, NULL, NULL, NULL));
  for (i = 0; i < AGENTFS_STMTS && p->pErr->rc == SQLITE_OK; i++) {
    choirErrDb(p->pErr, p->db,
               sqlite3_prepare_v2(p->db, azAgentfsSql[i], -1, &p->a[i], NULL));
  }
  agentfsFiles(p);
  p->nKey = agentfsRows(
      p,
      "SELECT key_name, coalesce(value_json, 'null'), created_at, updated_at"
      " FROM ~.state_storage",
      AGENTFS_KEY);
  p->nCall = agentfsRows(
      p,
      "SELECT task_type, input, output, CASE status WHEN 'FAILED' THEN"
      " coalesce(error, '') END, CASE status WHEN 'FAILED' THEN 'error' ELSE"
      " 'success' END, coalesce(started_at, created_at), completed_at"
      " FROM ~.agent_tasks WHERE status IN ('COMPLETED', 'FAILED')"
      " ORDER BY created_at, id",
      AGENTFS_CALL);
  for (i = 0; i < AGENTFS_STMTS; i++) {
    sqlite3_finalize(p->a[i]);
  }
  if (p->pErr->rc == SQLITE_OK) {
    choirErrDb(p->pErr, p->db, sqlite3_exec(p->db, "COMMIT", NULL, NULL, NULL));
  }
}

/* May the export be written there: no file, or a database without a table, as
** an export that was killed leaves it? *pbMade: there was no file; an empty one
** that only its owner reads is made, because SQLite's would be everybody's. */
static int agentfsIsFree(const char *zFile, int *pbMade) {
  struct stat st;
  sqlite3 *db = NULL;
  sqlite3_stmt *p = NULL;
  int bFree;
  int fd = open(zFile, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  *pbMade = fd >= 0;
  if (fd >= 0) {
    close(fd);
    return 1;
  }
  if (lstat(zFile, &st) != 0) {
    return 1; /* SQLite says why it cannot be made */
  }
  if (!S_ISREG(st.st_mode)) {
    return 0;
  }
  bFree =
      sqlite3_open_v2(zFile, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
      sqlite3_prepare_v2(db, "SELECT 1 FROM sqlite_schema", -1, &p, NULL) ==
          SQLITE_OK &&
      sqlite3_step(p) == SQLITE_DONE;
  sqlite3_finalize(p);
  sqlite3_close(db);
  return bFree;
}

/*
** SQL: choir_export(file) -> TEXT
**
** Writes the workspace as a new file of AgentFS (specification 0.4), which
** AgentFS opens and choir_import() takes back: live artifacts as files, the
** keys of the state as its key-value store, finished tasks as tool calls.
** Conversations, citations and memories have no place there.
**
**   file  TEXT, must not be there, or be an empty database
**
** Gives {"file","took":{"files","keys","tasks"},"left":{"remote"},"problems"};
** remote counts artifacts whose content is in the object store; problems names
** those whose path artifact_put() would refuse or leads through a file.
**
** NULL: the file must be given.
** Errors: there is such a file; it cannot be written, and is removed then.
**
** > SELECT choir_export('/no/such/folder/x.db')
** ! choir_export: cannot write /no/such/folder/x.db: unable to open database file
*/
static void agentfsExport(ChoirCall *pCall) {
  ChoirErr *pErr = &pCall->err;
  const char *zFile = choirArgText(pErr, pCall->apArg[0], "file");
  AgentfsRun run;
  char *z;
  int bMade = 0;
  memset(&run, 0, sizeof(run));
  run.pConn = pCall->pConn;
  run.pErr = pErr;
  choirNeedWorkspace(run.pConn, pErr);
  choirStoreReportInit(&run.report, pErr, "choir_export");
  if (pErr->rc == SQLITE_OK && !agentfsIsFree(zFile, &bMade)) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is there already", zFile);
  }
  if (pErr->rc == SQLITE_OK) {
    agentfsWrite(&run, zFile);
  }
  sqlite3_close(run.db);
  if (bMade && pErr->rc != SQLITE_OK) {
    unlink(zFile);
  }
  z = choirMprintf(pErr,
                   "\"took\":{\"files\":%lld,\"keys\":%lld,\"tasks\":%lld},"
                   "\"left\":{\"remote\":%lld}",
                   run.nFile, run.nKey, run.nCall, run.nRemote);
  choirStoreReportResult(&run.report, "file", zFile, z, pCall->pCtx);
  choirBufFree(&run.report.problems);
  sqlite3_free(z);
}

static const ChoirFunc aAgentfsFunc[] = {
    {"choir_export", 1, 1, CHOIR_EFFECT, 0, agentfsExport, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreAgentfsRegister(ChoirConn *pConn,
                                                        ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aAgentfsFunc);
}

#else
CHOIR_PRIVATE CHOIR_COLD void choirStoreAgentfsRegister(ChoirConn *pConn,
                                                        ChoirErr *pErr) {
  (void)pConn, (void)pErr;
}
#endif
