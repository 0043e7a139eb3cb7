/* SPDX-License-Identifier: MIT */
/*
** choir_import: what other programs keep in SQLite files, or in folders of
** JSON, becomes rows of the workspace.
**
** A file is known by its tables and columns (aForeign). It is opened by a
** connection of its own, read-only and without trust in its schema, and only
** real tables are read. Rows keep their ids, or get one made of theirs, and
** rows that are there already are left alone, so an import can be repeated.
** One savepoint: an error leaves nothing half done.
*/
#include "store.h"
#include <errno.h>
#include <sys/stat.h>

#define FOREIGN_FILE_MAX ((u64)512 << 20) /* bytes of one file of AgentFS */

/* A time as milliseconds: text as SQLite reads it, numbers below 1e11 are
** seconds. NULL when there is none. */
#define MS(x)                                                                  \
  "CASE WHEN typeof(" x ") IN ('integer', 'real') THEN CAST(" x                \
  " * iif(abs(" x ") < 1e11, 1000, 1) AS INTEGER) ELSE"                        \
  " CAST(round((julianday(" x ") - 2440587.5) * 86400000) AS INTEGER) END"
#define JSON(x) "iif(json_valid(" x ") OR json_valid(" x "), " x ", NULL)"
#define ROLE(x)                                                                \
  "CASE lower(" x ") WHEN 'user' THEN 'user' WHEN 'human' THEN 'user'"         \
  " WHEN 'assistant' THEN 'assistant' WHEN 'ai' THEN 'assistant'"              \
  " WHEN 'bot' THEN 'assistant' WHEN 'model' THEN 'assistant'"                 \
  " WHEN 'system' THEN 'system' WHEN 'tool' THEN 'tool'"                       \
  " WHEN 'function' THEN 'tool' END"
#define NOW "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"

#define TO_CONVERSATION                                                        \
  "INSERT INTO ~.conversation_history(id, title, created_at, updated_at)"      \
  " VALUES(?1, ?2, coalesce(?3, " NOW "), coalesce(?4, ?3, " NOW "))"          \
  " ON CONFLICT(id) DO NOTHING"
#define TO_MESSAGE                                                             \
  "INSERT INTO ~.messages(id, conversation_id, role, content, timestamp,"      \
  " metadata) VALUES(?1, ?2, ?3, ?4, coalesce(?5, " NOW "), ?6)"               \
  " ON CONFLICT(id) DO NOTHING"
#define TO_STATE                                                               \
  "INSERT INTO ~.state_storage(key_name, value_json, created_at, updated_at)"  \
  " VALUES(?1, ?2, coalesce(?3, " NOW "), coalesce(?4, " NOW "))"              \
  " ON CONFLICT(key_name) DO NOTHING"

/* {table.a|b} in zFrom is column a, or b, of the table, or NULL where neither
** is. The columns of zFrom are the parameters of zTo. */
typedef struct ForeignStep {
  const char *zWhat;  /* counted under this name */
  const char *zTable; /* whose other rows are left, or NULL */
  const char *zFrom;
  const char *zTo; /* NULL: files of AgentFS, path and inode */
} ForeignStep;

typedef struct ForeignKind {
  const char *zName;
  const char *zNeed;   /* table.column, separated by spaces */
  const char *zTables; /* those that are read */
  ForeignStep aStep[4];
} ForeignKind;

static const char zForeignVectors[] =
    "CREATE TABLE IF NOT EXISTS ~.llm_embeddings(\n"
    "  id INTEGER PRIMARY KEY,\n  collection TEXT NOT NULL,\n"
    "  name TEXT NOT NULL,\n  model TEXT,\n  embedding BLOB,\n"
    "  content TEXT,\n  metadata JSON,\n  updated_at INTEGER,\n"
    "  UNIQUE(collection, name)\n)";

/* By hand: clang-format cuts a text with macros in it to crumbs. */
/* clang-format off */
static const ForeignKind aForeign[] = {
    {"agentfs",
     "fs_inode.mode fs_dentry.parent_ino fs_data.chunk_index",
     " fs_config fs_inode fs_dentry fs_data kv_store tool_calls ",
     /* A tree has as many paths as entries; folders in themselves have no end. */
     {{"files", NULL,
       "WITH RECURSIVE t(ino, path) AS (VALUES(1, '') UNION SELECT d.ino,"
       " t.path || '/' || d.name FROM t JOIN fs_dentry AS d"
       " ON d.parent_ino=t.ino WHERE d.ino<>1 AND length(t.path)<4096"
       " LIMIT (SELECT count(*) + 1 FROM fs_dentry))"
       " SELECT t.path, i.ino, i.size FROM t JOIN fs_inode AS i ON i.ino=t.ino"
       " WHERE i.mode & 61440 = 32768 ORDER BY 1",
       NULL},
      {"keys", "kv_store",
       "SELECT key, value, " MS("{kv_store.created_at}") ", "
       MS("{kv_store.updated_at}") " FROM kv_store WHERE (json_valid(value) OR"
       " json_valid(value)) AND key<>''",
       TO_STATE},
      {"tasks", "tool_calls",
       "SELECT 'agentfs:' || id || ':' || started_at, name,"
       " coalesce({tool_calls.parameters}, 'null'), {tool_calls.result},"
       " {tool_calls.error}, " MS("started_at") ", "
       MS("{tool_calls.completed_at}") " FROM tool_calls",
       "INSERT INTO ~.agent_tasks(id, task_type, input, output, error,"
       " created_at, started_at, completed_at, attempts, status) VALUES(?1, ?2,"
       " ?3, ?4, ?5, ?6, ?6, ?7, 1, CASE WHEN ?5 IS NOT NULL THEN 'FAILED'"
       " WHEN ?7 IS NULL THEN 'PENDING' ELSE 'COMPLETED' END)"
       " ON CONFLICT(id) DO NOTHING"}}},
    {"llm embeddings",
     "collections.name embeddings.collection_id embeddings.embedding",
     " collections embeddings ",
     {{"embeddings", "embeddings",
       "SELECT c.name, e.id, c.model, e.embedding, e.content, e.metadata,"
       " {embeddings.updated} * 1000 FROM embeddings AS e JOIN collections AS c"
       " ON c.id=e.collection_id",
       "INSERT INTO ~.llm_embeddings(collection, name, model, embedding,"
       " content, metadata, updated_at) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
       " ON CONFLICT(collection, name) DO UPDATE SET model=?3, embedding=?4,"
       " content=?5, metadata=?6, updated_at=?7"
       " WHERE embedding IS NOT ?4 OR content IS NOT ?5 OR metadata IS NOT"
       " ?6"}}},
    {"llm logs",
     "conversations.name responses.prompt responses.response"
     " responses.conversation_id",
     " conversations responses ",
     {{"conversations", "conversations",
       "SELECT c.id, c.name, min(" MS("r.datetime_utc") "), max("
       MS("r.datetime_utc") ") FROM conversations AS c JOIN responses AS r"
       " ON r.conversation_id=c.id GROUP BY c.id",
       TO_CONVERSATION},
      {"messages", NULL,
       "SELECT id || ':' || role, conversation_id, role, content, t, NULL FROM"
       " (SELECT id, conversation_id, 'system' AS role, system AS content, "
       MS("datetime_utc") " AS t, 0 AS n FROM responses UNION ALL"
       " SELECT id, conversation_id, 'user', prompt, " MS("datetime_utc") ", 1"
       " FROM responses) WHERE content<>'' AND conversation_id IN"
       " (SELECT id FROM conversations) ORDER BY t, id, n",
       TO_MESSAGE},
      {"messages", "responses",
       "SELECT id, conversation_id, 'assistant', response, " MS("datetime_utc")
       " + coalesce({responses.duration_ms}, 0),"
       " json_object('model', model, 'options', json("
       JSON("{responses.options_json}") "), 'duration_ms',"
       " {responses.duration_ms}, 'input_tokens', {responses.input_tokens},"
       " 'output_tokens', {responses.output_tokens}) FROM responses WHERE"
       " conversation_id IN (SELECT id FROM conversations)"
       " ORDER BY datetime_utc",
       TO_MESSAGE}}},
    {"nola",
     "state_storage.key_name state_storage.value_json",
     " state_storage ",
     {{"keys", "state_storage",
       "SELECT key_name, value_json, " MS("{state_storage.created_at}") ", "
       MS("{state_storage.updated_at}") " FROM state_storage"
       " WHERE (json_valid(value_json) OR json_valid(value_json))"
       " AND key_name<>''",
       TO_STATE}}},
    {"nola",
     "conversation_history.user_id conversation_history.message"
     " conversation_history.speaker",
     " conversation_history ",
     {{"conversations", NULL,
       "SELECT 'nola:' || coalesce(user_id, ''), user_id, min("
       MS("timestamp") "), max(" MS("timestamp") ") FROM conversation_history"
       " GROUP BY user_id",
       TO_CONVERSATION},
      {"messages", "conversation_history",
       "SELECT 'nola:' || coalesce(user_id, '') || ':' || id || ':' || coalesce"
       "(timestamp, ''), 'nola:' || coalesce(user_id, ''),"
       " CASE WHEN speaker=user_id THEN 'user' ELSE coalesce(" ROLE("speaker")
       ", 'assistant') END, message, " MS("timestamp") ","
       " json_object('speaker', speaker) FROM conversation_history ORDER BY id",
       TO_MESSAGE}}},
    /* Its tables are not published: assumed from the routes. */
    {"omni-ai",
     "conversations.title messages.role messages.content",
     " conversations messages ",
     {{"conversations", "conversations",
       "SELECT CAST(id AS TEXT), title, "
       MS("{conversations.created_at|createdAt}") ", "
       MS("{conversations.updated_at|updatedAt}") " FROM conversations"
       " WHERE id IS NOT NULL",
       TO_CONVERSATION},
      {"messages", "messages",
       "SELECT CAST(id AS TEXT),"
       " CAST({messages.conversation_id|conversationId} AS TEXT), "
       ROLE("role") ", content, "
       MS("{messages.timestamp|created_at|createdAt}") ", "
       JSON("{messages.metadata}") " FROM messages WHERE " ROLE("role")
       " IS NOT NULL AND id IS NOT NULL AND"
       " {messages.conversation_id|conversationId} IN"
       " (SELECT id FROM conversations)"
       " ORDER BY {messages.timestamp|created_at|createdAt}, rowid",
       TO_MESSAGE}}},
};
/* clang-format on */
#define FOREIGN_KINDS ((int)(sizeof(aForeign) / sizeof(aForeign[0])))

typedef struct ForeignRun {
  ChoirConn *pConn;
  ChoirErr *pErr;
  sqlite3 *db; /* the foreign file */
  ChoirBuf kinds, took, left;
  ChoirBuf tables; /* those that were read */
} ForeignRun;

static sqlite3_stmt *foreignPrepare(ForeignRun *p, const char *zSql) {
  sqlite3_stmt *pStmt = NULL;
  if (p->pErr->rc == SQLITE_OK) {
    choirErrDb(p->pErr, p->db,
               sqlite3_prepare_v2(p->db, zSql, -1, &pStmt, NULL));
  }
  return pStmt;
}

/* Has the real table (nTable bytes) this column? */
static int foreignHas(ForeignRun *p, const char *zTable, int nTable,
                      const char *zColumn, int nColumn) {
  sqlite3_stmt *pStmt = foreignPrepare(
      p, "SELECT 1 FROM sqlite_schema AS s JOIN temp.pragma_table_info(s.name) "
         "AS c"
         " WHERE s.type='table' AND s.sql NOT LIKE 'CREATE VIRTUAL%'"
         " AND s.name=?1 COLLATE NOCASE AND c.name=?2 COLLATE NOCASE");
  int b;
  choirBindText(p->pErr, pStmt, 1, zTable, nTable);
  choirBindText(p->pErr, pStmt, 2, zColumn, nColumn);
  b = choirStep(p->pErr, pStmt);
  sqlite3_finalize(pStmt);
  return b;
}

static int foreignTable(ForeignRun *p, const char *zTable) {
  sqlite3_stmt *pStmt =
      foreignPrepare(p, "SELECT 1 FROM sqlite_schema WHERE type='table' AND"
                        " name=?1 COLLATE NOCASE");
  int b;
  choirBindText(p->pErr, pStmt, 1, zTable, -1);
  b = choirStep(p->pErr, pStmt);
  sqlite3_finalize(pStmt);
  return b;
}

static int foreignIs(ForeignRun *p, const ForeignKind *pKind) {
  const char *z = pKind->zNeed;
  int bHas = 1;
  while (*z && bHas) {
    int nTable = (int)strcspn(z, "."), n = (int)strcspn(z, " ");
    bHas = foreignHas(p, z, nTable, z + nTable + 1, n - nTable - 1);
    z += n + (z[n] == ' ');
  }
  return bHas;
}

/* zFrom with its {table.a|b}; caller frees. */
static char *foreignSql(ForeignRun *p, const char *z) {
  ChoirBuf b;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  while (*z && p->pErr->rc == SQLITE_OK) {
    int n = (int)strcspn(z, "{"), nTable, bHas = 0;
    choirBufAppend(&b, z, (u64)n);
    z += n;
    if (*z == '{') {
      const char *zTable = ++z;
      nTable = (int)strcspn(z, ".");
      for (z += nTable + 1; z[-1] != '}'; z += n + 1) {
        n = (int)strcspn(z, "|}");
        if (!bHas && foreignHas(p, zTable, nTable, z, n)) {
          choirBufPrintf(&b, "\"%.*w\"", n, z);
          bHas = 1;
        }
      }
      choirBufText(&b, bHas ? "" : "NULL");
    }
  }
  return choirBufTake(&b);
}

/* ------------------------------------------------------- files of AgentFS */

static void foreignZeros(ChoirBuf *pBuf, u64 n) {
  char *z = choirBufSpace(pBuf, n);
  if (z) {
    memset(z, 0, (size_t)n);
  }
}

/* The bytes of an inode: chunks in order, zeros where one is missing. */
static void foreignContent(ForeignRun *p, ChoirBuf *pBuf, i64 iNode, i64 nSize,
                           i64 nChunk) {
  sqlite3_stmt *pStmt = foreignPrepare(
      p, "SELECT chunk_index, data FROM fs_data WHERE ino=?1 ORDER BY 1");
  choirBindInt(p->pErr, pStmt, 1, iNode);
  while (choirStep(p->pErr, pStmt)) {
    i64 iChunk = sqlite3_column_int64(pStmt, 0);
    i64 n = sqlite3_column_bytes(pStmt, 1);
    i64 i = iChunk < 0 || iChunk > (i64)FOREIGN_FILE_MAX / nChunk
                ? -1
                : iChunk * nChunk;
    if (i < (i64)pBuf->n) {
      choirErrSet(p->pErr, SQLITE_CORRUPT_VTAB,
                  "the chunks of inode %lld do not follow each other", iNode);
      break;
    }
    foreignZeros(pBuf, (u64)i - pBuf->n);
    choirBufAppend(pBuf, sqlite3_column_blob(pStmt, 1), (u64)n);
  }
  sqlite3_finalize(pStmt);
  if (p->pErr->rc == SQLITE_OK && nSize > (i64)pBuf->n) {
    foreignZeros(pBuf, (u64)nSize - pBuf->n);
  }
}

/* One row of path, inode, size; returns 1 when that wrote something. */
static int foreignFile(ForeignRun *p, sqlite3_stmt *pFrom, i64 nChunk) {
  ChoirStorePut put;
  ChoirBuf b;
  u8 aHash[32];
  char *zPath =
      choirStorePath(p->pErr, (const char *)sqlite3_column_text(pFrom, 0),
                     "a file's path", CHOIR_STORE_FILE);
  choirBufInit(&b, p->pErr, FOREIGN_FILE_MAX);
  foreignContent(p, &b, sqlite3_column_int64(pFrom, 1),
                 sqlite3_column_int64(pFrom, 2), nChunk);
  memset(&put, 0, sizeof(put));
  if (p->pErr->rc == SQLITE_OK) {
    put.zPath = zPath;
    put.a = b.a ? b.a : "";
    put.n = (i64)b.n;
    put.bText =
        choirStoreIsText(choirStoreMime(zPath, put.a, put.n), put.a, put.n);
    choirSha256(put.a, b.n, aHash);
    choirHex(aHash, 32, put.zHash);
    choirStorePutRow(p->pConn, p->pErr, &put);
  }
  choirBufFree(&b);
  sqlite3_free(put.zId);
  sqlite3_free(zPath);
  return put.eChange != CHOIR_STORE_SAME;
}

static i64 foreignChunk(ForeignRun *p) {
  sqlite3_stmt *pStmt =
      foreignPrepare(p, "SELECT (SELECT CAST(value AS INTEGER) FROM fs_config"
                        " WHERE key='chunk_size')");
  i64 n = choirStep(p->pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  sqlite3_finalize(pStmt);
  return n > 0 && n <= (1 << 26) ? n : 4096;
}

/* ------------------------------------------------------------------- steps */

static void foreignCount(ChoirBuf *pBuf, const char *zName, i64 n) {
  if (n > 0) {
    choirBufText(pBuf, pBuf->n ? "," : "");
    choirBufJson(pBuf, zName, -1);
    choirBufPrintf(pBuf, ":%lld", n);
  }
}

static i64 foreignRows(ForeignRun *p, const char *zTable) {
  char *z = choirMprintf(p->pErr, "SELECT count(*) FROM \"%w\"", zTable);
  sqlite3_stmt *pStmt = z ? foreignPrepare(p, z) : NULL;
  i64 n = choirStep(p->pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  sqlite3_finalize(pStmt);
  sqlite3_free(z);
  return n;
}

/* Runs one step; adds to *pnTook and *pnSeen. */
static void foreignStep(ForeignRun *p, const ForeignStep *pStep, i64 *pnTook,
                        i64 *pnSeen) {
  char *zSql = foreignSql(p, pStep->zFrom);
  sqlite3_stmt *pFrom = zSql ? foreignPrepare(p, zSql) : NULL;
  i64 nChunk = pStep->zTo ? 0 : foreignChunk(p);
  while (choirStep(p->pErr, pFrom)) {
    if ((++*pnSeen & 255) == 0 && choirInterrupted(p->pConn)) {
      choirErrSet(p->pErr, SQLITE_INTERRUPT, "interrupted");
    } else if (pStep->zTo) {
      sqlite3_stmt *pTo = choirStmt(p->pConn, p->pErr, pStep->zTo);
      int i, n = sqlite3_column_count(pFrom);
      for (i = 0; i < n; i++) {
        choirBindValue(p->pErr, pTo, i + 1, sqlite3_column_value(pFrom, i));
      }
      choirStep(p->pErr, pTo);
      choirStmtDone(p->pConn, pTo);
      *pnTook += p->pErr->rc == SQLITE_OK && sqlite3_changes(p->pConn->db) > 0;
    } else {
      *pnTook += foreignFile(p, pFrom, nChunk);
    }
  }
  sqlite3_finalize(pFrom);
  sqlite3_free(zSql);
}

static void foreignKind(ForeignRun *p, const ForeignKind *pKind) {
  i64 nTook = 0;
  int i;
  if (strcmp(pKind->zName, "llm embeddings") == 0) {
    choirExecText(p->pConn, p->pErr, zForeignVectors);
  }
  choirBufText(&p->kinds, p->kinds.n ? "," : "");
  choirBufJson(&p->kinds, pKind->zName, -1);
  choirBufText(&p->tables, pKind->zTables);
  for (i = 0; i < 4 && pKind->aStep[i].zWhat; i++) {
    const ForeignStep *pStep = &pKind->aStep[i];
    int bMore =
        i < 3 && pStep[1].zWhat && strcmp(pStep[1].zWhat, pStep->zWhat) == 0;
    i64 nSeen = 0;
    if (pStep->zTable && !foreignTable(p, pStep->zTable)) {
      continue; /* a part of AgentFS that nobody used */
    }
    foreignStep(p, pStep, &nTook, &nSeen);
    if (pStep->zTable) {
      foreignCount(&p->left, pStep->zTable,
                   foreignRows(p, pStep->zTable) - nSeen);
    }
    if (!bMore) {
      foreignCount(&p->took, pStep->zWhat, nTook);
      nTook = 0;
    }
  }
}

/* Tables that nothing was read from. */
static void foreignLeft(ForeignRun *p) {
  sqlite3_stmt *pStmt = foreignPrepare(
      p, "SELECT name FROM sqlite_schema WHERE type='table' AND sql NOT LIKE"
         " 'CREATE VIRTUAL%' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND"
         " name NOT GLOB '*_fts_*' AND name NOT GLOB '_*' ORDER BY 1");
  while (choirStep(p->pErr, pStmt)) {
    const char *zName = (const char *)sqlite3_column_text(pStmt, 0);
    char *z = choirMprintf(p->pErr, " %s ", zName);
    if (z && p->tables.a && strstr(p->tables.a, z) == NULL) {
      foreignCount(&p->left, zName, foreignRows(p, zName));
    }
    sqlite3_free(z);
  }
  sqlite3_finalize(pStmt);
}

static void foreignFileImport(ForeignRun *p, const char *zFile) {
  int i, n = 0;
  ChoirTxn txn;
  struct stat st;
  int rc;
  if (stat(zFile, &st) == 0 && !S_ISREG(st.st_mode)) {
    choirErrSet(p->pErr, SQLITE_ERROR, "%s is not a file", zFile);
    return; /* a pipe would keep SQLite waiting for ever */
  }
  rc = sqlite3_open_v2(zFile, &p->db, SQLITE_OPEN_READONLY, NULL);
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(p->pErr);
  } else if (rc != SQLITE_OK) {
    choirErrSet(p->pErr, SQLITE_ERROR, "cannot open %s: %s", zFile,
                sqlite3_errmsg(p->db));
  }
  if (rc != SQLITE_OK) {
    return;
  }
  sqlite3_db_config(p->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  sqlite3_db_config(p->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
  if (foreignHas(p, "_choir_meta", -1, "key", -1)) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "%s is a workspace; attach it and choose it by"
                " select choir_config('schema', …)",
                zFile);
  }
  choirTxnBegin(&txn, p->pConn, p->pErr);
  if (p->pErr->rc == SQLITE_OK) {
    /* One moment of the file, whoever else writes it. */
    choirErrDb(p->pErr, p->db, sqlite3_exec(p->db, "BEGIN", NULL, NULL, NULL));
  }
  for (i = 0; i < FOREIGN_KINDS && p->pErr->rc == SQLITE_OK; i++) {
    if (foreignIs(p, &aForeign[i])) {
      foreignKind(p, &aForeign[i]);
      n++;
    }
  }
  if (n == 0) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "%s has no tables of omni-ai, nola, llm or agentfs", zFile);
  }
  foreignLeft(p);
  choirTxnEnd(&txn, p->pErr);
}

/*
** SQL: choir_import(file) -> TEXT
**
** Takes over what another program keeps: the file is known by its tables, a
** folder is one of JSON files (see state_import). One savepoint: nothing is
** half imported. Rows that are here already stay as they are, so an import can
** be repeated, and takes what is new.
**
**   file  TEXT, a SQLite file, which is only read, or a folder
**
** | from | becomes |
** |--|--|
** | omni-ai: conversations, messages (schema assumed: id, title; id, conversation_id, role, content; times and metadata where they are) | conversations and messages |
** | Nola: state_storage; conversation_history with user_id, message, speaker | keys of the state; a conversation for each user, which the view nola_conversation_history shows in Nola's columns |
** | llm: conversations and responses (logs.db) | conversations; system, user and assistant messages, with model, options, tokens |
** | llm: collections and embeddings | the table llm_embeddings, vectors as they are (float32), for vec_scan and vec_index_create |
** | AgentFS 0.4: files, kv_store, tool_calls | artifacts, keys of the state, tasks |
**
** Gives {"from","kinds","took":{what:rows},"left":{table:rows},"problems"}:
** took counts rows that were written, left what was not understood (a role of
** no kind, a value that is not JSON, tables that have no place here).
**
** NULL: the file must be given.
** Errors: a file that cannot be read or is of no known kind; a workspace; a
** file that is open on this connection.
**
** > SELECT choir_import('/no/such/file')
** ! choir_import: cannot open /no/such/file: No such file or directory
*/
static void foreignImport(ChoirCall *pCall) {
  ChoirErr *pErr = &pCall->err;
  const char *zFile = choirArgText(pErr, pCall->apArg[0], "file");
  struct stat st;
  ForeignRun run;
  ChoirStoreOwn own;
  ChoirStoreReport report;
  char *z;
  memset(&run, 0, sizeof(run));
  run.pConn = pCall->pConn;
  run.pErr = pErr;
  choirNeedWorkspace(run.pConn, pErr);
  if (zFile && pErr->rc == SQLITE_OK && stat(zFile, &st) != 0) {
    choirErrSet(pErr, SQLITE_ERROR, "cannot open %s: %s", zFile,
                strerror(errno));
  }
  if (zFile && pErr->rc == SQLITE_OK && S_ISDIR(st.st_mode)) {
    choirStoreSeedImport(pCall, zFile, 0);
    return;
  }
  choirStoreOwnInit(&own, run.pConn, pErr);
  if (pErr->rc == SQLITE_OK && choirStoreIsOwn(&own, &st)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s belongs to a database that is open on this connection",
                zFile);
  }
  choirStoreReportInit(&report, pErr, "choir_import");
  choirBufInit(&run.kinds, pErr, CHOIR_BUF_SQL);
  choirBufInit(&run.took, pErr, CHOIR_BUF_SQL);
  choirBufInit(&run.left, pErr, CHOIR_BUF_JSON);
  choirBufInit(&run.tables, pErr, CHOIR_BUF_SQL);
  if (pErr->rc == SQLITE_OK) {
    foreignFileImport(&run, zFile);
  }
  z = choirMprintf(pErr, "\"kinds\":[%s],\"took\":{%s},\"left\":{%s}",
                   run.kinds.a ? run.kinds.a : "", run.took.a ? run.took.a : "",
                   run.left.a ? run.left.a : "");
  choirStoreReportResult(&report, "from", zFile, z, pCall->pCtx);
  sqlite3_close(run.db);
  sqlite3_free(z);
  choirBufFree(&run.kinds);
  choirBufFree(&run.took);
  choirBufFree(&run.left);
  choirBufFree(&run.tables);
  choirBufFree(&report.problems);
  choirStoreOwnFree(&own);
}

static const ChoirFunc aForeignFunc[] = {
    {"choir_import", 1, 1, CHOIR_EFFECT, 0, foreignImport, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreForeignRegister(ChoirConn *pConn,
                                                        ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aForeignFunc);
}
