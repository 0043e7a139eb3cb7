/* SPDX-License-Identifier: MIT */
/*
** libsql_pull and libsql_push: a table copied by its primary key. Rows that are
** the same on the other side are not written there, rows that are only on the
** other side stay.
*/
#include "libsql.h"
#ifndef CHOIR_OMIT_NET

enum { COPY_STEPS = 500, COPY_BYTES = 4 << 20 }; /* of one push's transaction */

/* Columns that are copied, all but the generated, as (a,b) or with zEach for
** each, where ~ is the name. */
static void copyColumns(ChoirBuf *p, const ChoirLibsqlColumns *pCols,
                        const char *zEach, const char *zJoin, int bKey,
                        int bRest) {
  int i, n = 0;
  for (i = 0; i < pCols->n; i++) {
    const ChoirLibsqlColumn *pCol = &pCols->a[i];
    const char *z = zEach;
    if (pCol->bGenerated || (pCol->iPk ? !bKey : !bRest)) {
      continue;
    }
    choirBufText(p, n++ ? zJoin : "");
    while (*z) {
      size_t nText = strcspn(z, "~");
      choirBufAppend(p, z, nText);
      z += nText;
      if (*z) {
        choirLibsqlName(p, pCol->zName);
        z++;
      }
    }
  }
}

static int copyHasRest(const ChoirLibsqlColumns *pCols) {
  int i, n = 0;
  for (i = 0; i < pCols->n; i++) {
    n += !pCols->a[i].bGenerated && pCols->a[i].iPk == 0;
  }
  return n > 0;
}

/* INSERT … ON CONFLICT(key) DO UPDATE … WHERE something differs. */
static void copyUpsert(ChoirBuf *p, const ChoirLibsqlColumns *pCols,
                       const char *zSchema, const char *zTable) {
  choirBufText(p, "INSERT INTO ");
  choirBufText(p, zSchema);
  choirLibsqlName(p, zTable);
  choirBufText(p, " AS t(");
  copyColumns(p, pCols, "~", ",", 1, 1);
  choirBufText(p, ") VALUES(");
  copyColumns(p, pCols, "?", ",", 1, 1);
  choirBufText(p, ") ON CONFLICT(");
  copyColumns(p, pCols, "~", ",", 1, 0);
  if (copyHasRest(pCols)) {
    choirBufText(p, ") DO UPDATE SET ");
    copyColumns(p, pCols, "~=excluded.~", ",", 0, 1);
    choirBufText(p, " WHERE ");
    copyColumns(p, pCols, "t.~ IS NOT excluded.~", " OR ", 0, 1);
  } else {
    choirBufText(p, ") DO NOTHING");
  }
}

static void copyCreate(ChoirBuf *p, const ChoirLibsqlColumns *pCols,
                       const char *zSchema, const char *zTable) {
  int i, n = 0;
  choirBufText(p, "CREATE TABLE IF NOT EXISTS ");
  choirBufText(p, zSchema);
  choirLibsqlName(p, zTable);
  choirBufText(p, "(");
  for (i = 0; i < pCols->n; i++) {
    if (!pCols->a[i].bGenerated) {
      choirBufText(p, n++ ? ", " : "");
      choirLibsqlName(p, pCols->a[i].zName);
      choirBufPrintf(p, " %s%s", pCols->a[i].zType,
                     i == pCols->iKey ? " PRIMARY KEY" : "");
    }
  }
  if (pCols->iKey < 0) {
    choirBufText(p, ", PRIMARY KEY(");
    copyColumns(p, pCols, "~", ",", 1, 0);
    choirBufText(p, ")");
  }
  choirBufText(p, ")");
}

/* Sticky unless the table is there and has a primary key. */
static void copyCheck(ChoirErr *pErr, const ChoirLibsqlColumns *pCols,
                      const char *zTable) {
  if (pErr->rc == SQLITE_OK && pCols->n == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "there is no table '%s'", zTable);
  } else if (pErr->rc == SQLITE_OK && pCols->nPk == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s has no primary key, so its rows cannot be told apart",
                zTable);
  }
}

/* ------------------------------------------------------------------- local */

/* The columns of a table here. */
static void copyDescribe(ChoirConn *pConn, ChoirErr *pErr, const char *zTable,
                         ChoirLibsqlColumns *p) {
  sqlite3_stmt *pStmt = choirStmt(
      pConn, pErr,
      "SELECT name, type, pk, hidden FROM temp.pragma_table_xinfo(?1, ?2)"
      " WHERE hidden <> 1 ORDER BY cid");
  memset(p, 0, sizeof(*p));
  p->iKey = -1;
  choirBindText(pErr, pStmt, 1, zTable, -1);
  choirBindText(pErr, pStmt, 2, choirSchema(pConn), -1);
  while (choirStep(pErr, pStmt)) {
    ChoirLibsqlColumn *a =
        choirRealloc(pErr, p->a, ((u64)p->n + 1) * sizeof(*p->a));
    if (a) {
      p->a = a;
      a = &a[p->n++];
      a->zName = choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 0));
      a->zType = choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 1));
      a->iPk = sqlite3_column_int(pStmt, 2);
      a->bGenerated = sqlite3_column_int(pStmt, 3) > 1;
      p->nPk += a->iPk > 0;
      if (a->iPk && a->zType && sqlite3_stricmp(a->zType, "INTEGER") == 0) {
        p->iKey = p->n - 1;
      }
    }
  }
  if (p->nPk != 1) {
    p->iKey = -1;
  }
  choirStmtDone(pConn, pStmt);
}

static void copyResult(ChoirCall *p, i64 nRow, i64 nChanged) {
  char z[96];
  if (p->err.rc == SQLITE_OK) {
    sqlite3_snprintf(sizeof(z), z, "{\"rows\":%lld,\"changed\":%lld}", nRow,
                     nChanged);
    choirResultText(p, z);
  }
}

/* Rows of the stream into the table here. */
static void pullRows(ChoirCall *p, ChoirHrana *pStream,
                     const ChoirLibsqlColumns *pCols, const char *zLocal) {
  ChoirErr *pErr = &p->err;
  ChoirHranaRow row;
  ChoirBuf sql;
  sqlite3_stmt *pStmt;
  i64 nRow = 0, nChanged = 0;
  int i;
  choirHranaRowInit(&row, p->pConn);
  choirBufInit(&sql, pErr, CHOIR_BUF_SQL);
  copyCreate(&sql, pCols, "~.", zLocal);
  if (pErr->rc == SQLITE_OK) {
    choirExecText(p->pConn, pErr, sql.a);
  }
  choirBufFree(&sql);
  choirBufInit(&sql, pErr, CHOIR_BUF_SQL);
  copyUpsert(&sql, pCols, "~.", zLocal);
  pStmt = choirPrepare(p->pConn, pErr, sql.a ? sql.a : "");
  while (choirHranaNext(pStream, &row)) {
    for (i = 0; i < row.n; i++) {
      choirHranaBind(&row, pErr, pStmt, i + 1, i);
    }
    choirStep(pErr, pStmt);
    nRow++;
    nChanged += sqlite3_changes(p->pConn->db) > 0;
    sqlite3_reset(pStmt);
  }
  sqlite3_finalize(pStmt);
  choirHranaRowFree(&row);
  choirBufFree(&sql);
  copyResult(p, nRow, nChanged);
}

/*
** SQL: libsql_pull(url, remote_table, local_table) -> TEXT
**
** Copies a table of a remote libSQL database into one here, by its primary key:
** rows that are new or differ are written, the others are left alone, and rows
** that are only here stay. The table is made when it is missing. One
** transaction; rows are read as they arrive. Gives {"rows":…, "changed":…}.
**
**   url           as for libsql_query
**   remote_table  TEXT, with a primary key
**   local_table   TEXT, in the workspace's schema (main)
**
** NULL: a NULL url means the configured one; the tables must be named.
** Errors: no such table there; no primary key; a table here of other columns or
** another key; the server's.
**
** > SELECT libsql_pull('nowhere', 'a', 'a')
** ! libsql_pull: 'nowhere' is no database; write libsql://host, https://host, http://host:port or the name of a choir_secret of type libsql
*/
static void copyPullFunc(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  const char *zUrl = choirArgTextOrNull(pErr, p->apArg[0], "url");
  const char *zRemote = choirArgText(pErr, p->apArg[1], "remote_table");
  const char *zLocal = choirArgText(pErr, p->apArg[2], "local_table");
  ChoirLibsqlColumns cols;
  ChoirHrana stream;
  ChoirBuf sql, stmt;
  ChoirTxn txn;
  memset(&cols, 0, sizeof(cols));
  if (pErr->rc == SQLITE_OK) {
    choirLibsqlDescribe(p->pConn, pErr, zUrl, zRemote, &cols);
    copyCheck(pErr, &cols, zRemote);
  }
  choirBufInit(&sql, pErr, CHOIR_BUF_SQL);
  choirBufInit(&stmt, pErr, CHOIR_BUF_SQL);
  choirBufText(&sql, "SELECT ");
  copyColumns(&sql, &cols, "~", ",", 1, 1);
  choirBufText(&sql, " FROM ");
  choirLibsqlName(&sql, zRemote ? zRemote : "");
  choirHranaOpen(&stream, p->pConn, pErr, zUrl);
  choirTxnBegin(&txn, p->pConn, pErr);
  if (pErr->rc == SQLITE_OK) {
    choirHranaStmt(&stmt, sql.a, NULL, 1);
    choirHranaBegin(&stream, &stmt);
    pullRows(p, &stream, &cols, zLocal);
  }
  choirTxnEnd(&txn, pErr);
  choirHranaClose(&stream);
  choirLibsqlColumnsFree(&cols);
  choirBufFree(&sql);
  choirBufFree(&stmt);
}

/* -------------------------------------------------------------------- push */

typedef struct CopyPush {
  ChoirCall *pCall;
  const char *zUrl;
  ChoirBuf stmts;
  int nStmt;
  i64 nRow, nChanged;
} CopyPush;

/* What was collected, as one transaction. */
static void pushSome(CopyPush *p) {
  ChoirErr *pErr = &p->pCall->err;
  ChoirHrana stream;
  ChoirBuf reply;
  choirBufInit(&reply, pErr, CHOIR_BUF_JSON);
  choirHranaOpen(&stream, p->pCall->pConn, pErr, p->zUrl);
  if (pErr->rc == SQLITE_OK && p->nStmt > 0) {
    sqlite3_stmt *pStmt;
    choirHranaBatch(&stream, &p->stmts, p->nStmt, p->nRow - p->nStmt + 1,
                    &reply);
    pStmt = choirJsonStmt(p->pCall->pConn, pErr,
                          "SELECT sum(value ->> '$.affected_row_count') FROM"
                          " json_each(?1, '$.step_results')",
                          reply.a ? reply.a : "{}", reply.a ? (i64)reply.n : 2);
    if (choirStep(pErr, pStmt)) {
      p->nChanged += sqlite3_column_int64(pStmt, 0);
    }
    sqlite3_finalize(pStmt);
  }
  choirHranaClose(&stream);
  choirBufFree(&reply);
  choirBufFree(&p->stmts);
  p->stmts.pErr = pErr;
  p->nStmt = 0;
}

static void pushRows(CopyPush *p, const ChoirLibsqlColumns *pCols,
                     const char *zLocal, const char *zRemote) {
  ChoirCall *pCall = p->pCall;
  ChoirErr *pErr = &pCall->err;
  ChoirBuf sql, upsert, args;
  sqlite3_stmt *pStmt;
  int i, n;
  choirBufInit(&sql, pErr, CHOIR_BUF_SQL);
  choirBufInit(&upsert, pErr, CHOIR_BUF_SQL);
  choirBufInit(&args, pErr, CHOIR_HRANA_STEPS);
  choirBufText(&sql, "SELECT ");
  copyColumns(&sql, pCols, "~", ",", 1, 1);
  choirBufText(&sql, " FROM ~.");
  choirLibsqlName(&sql, zLocal);
  copyUpsert(&upsert, pCols, "", zRemote);
  pStmt = choirPrepare(pCall->pConn, pErr, sql.a ? sql.a : "");
  n = pStmt ? sqlite3_column_count(pStmt) : 0;
  while (choirStep(pErr, pStmt)) {
    args.n = 0;
    for (i = 0; i < n; i++) {
      choirBufText(&args, i ? "," : "");
      choirHranaValue(&args, sqlite3_column_value(pStmt, i));
    }
    choirHranaStmt(&p->stmts, upsert.a, args.a, 0);
    choirBufAppend(&p->stmts, "", 1);
    p->nRow++;
    if (++p->nStmt >= COPY_STEPS || p->stmts.n >= COPY_BYTES) {
      pushSome(p);
    }
  }
  pushSome(p);
  sqlite3_finalize(pStmt);
  choirBufFree(&sql);
  choirBufFree(&upsert);
  choirBufFree(&args);
}

/*
** SQL: libsql_push(url, local_table, remote_table) -> TEXT
**
** Copies a table here into one of a remote libSQL database, by its primary key:
** rows that are new or differ are written, the others are left alone, and rows
** that are only there stay. The table is made when it is missing. Every 500 rows
** or 4 MiB are one transaction, so after an error what came before is there; the
** same call again goes on. Gives {"rows":…, "changed":…}.
**
**   url           as for libsql_query
**   local_table   TEXT, in the workspace's schema (main), with a primary key
**   remote_table  TEXT
**
** NULL: a NULL url means the configured one; the tables must be named.
** Errors: no such table here; no primary key; a table there of other columns or
** another key; an infinite number; the server's.
**
** > SELECT libsql_push('http://localhost', 'none', 'none')
** ! libsql_push: there is no table 'none'
*/
static void copyPushFunc(ChoirCall *pCall) {
  ChoirErr *pErr = &pCall->err;
  const char *zLocal = choirArgText(pErr, pCall->apArg[1], "local_table");
  const char *zRemote = choirArgText(pErr, pCall->apArg[2], "remote_table");
  ChoirLibsqlColumns cols;
  CopyPush push;
  ChoirBuf create;
  memset(&push, 0, sizeof(push));
  push.pCall = pCall;
  push.zUrl = choirArgTextOrNull(pErr, pCall->apArg[0], "url");
  choirBufInit(&push.stmts, pErr, CHOIR_HRANA_STEPS);
  choirBufInit(&create, pErr, CHOIR_BUF_SQL);
  copyDescribe(pCall->pConn, pErr, zLocal, &cols);
  copyCheck(pErr, &cols, zLocal);
  if (pErr->rc == SQLITE_OK) {
    copyCreate(&create, &cols, "", zRemote);
    choirHranaStmt(&push.stmts, create.a ? create.a : "", NULL, 0);
    choirBufAppend(&push.stmts, "", 1);
    push.nStmt = 1;
    pushSome(&push);
    pushRows(&push, &cols, zLocal, zRemote);
    copyResult(pCall, push.nRow, push.nChanged);
  }
  choirBufFree(&push.stmts);
  choirBufFree(&create);
  choirLibsqlColumnsFree(&cols);
}

static const ChoirFunc aCopyFunc[] = {
    {"libsql_pull", 3, 3, CHOIR_EFFECT, 0, copyPullFunc, NULL},
    {"libsql_push", 3, 3, CHOIR_EFFECT, 0, copyPushFunc, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirLibsqlCopyRegister(ChoirConn *pConn,
                                                      ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aCopyFunc);
}
#endif /* CHOIR_OMIT_NET */
