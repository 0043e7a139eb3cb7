/* SPDX-License-Identifier: MIT */
/*
** libsql_query and libsql_batch.
*/
#include "libsql.h"
#ifndef CHOIR_OMIT_NET

enum { QUERY_CELLS = 16, QUERY_COLUMNS = 2 + QUERY_CELLS };

typedef struct QueryCursor {
  ChoirCursor base;
  ChoirHrana stream;
  ChoirHranaRow row;
  char **azName; /* JSON text of each column's name */
  int nName;
  u8 bOpen;
} QueryCursor;

static void queryReset(ChoirCursor *pCur) {
  QueryCursor *p = (QueryCursor *)pCur;
  int i;
  if (p->bOpen) {
    choirHranaClose(&p->stream);
    choirHranaRowFree(&p->row);
    p->bOpen = 0;
  }
  for (i = 0; i < p->nName; i++) {
    sqlite3_free(p->azName[i]);
  }
  sqlite3_free(p->azName);
  p->azName = NULL;
  p->nName = 0;
}

/* The columns' names, once: they are the keys of data. */
static void queryNames(QueryCursor *p) {
  ChoirErr *pErr = &p->base.err;
  sqlite3_stmt *pStmt =
      choirJsonStmt(p->base.pConn, pErr,
                    "SELECT coalesce(json_quote(value ->> '$.name'), '\"\"'),"
                    " json_array_length(?1) FROM json_each(?1)",
                    p->stream.zCols ? p->stream.zCols : "[]", -1);
  while (choirStep(pErr, pStmt)) {
    if (p->azName == NULL) {
      p->azName = choirMalloc(pErr, (u64)sqlite3_column_int64(pStmt, 1) *
                                        sizeof(char *));
    }
    if (p->azName) {
      p->azName[p->nName] =
          choirMprintf(pErr, "%s", sqlite3_column_text(pStmt, 0));
      p->nName += p->azName[p->nName] != NULL;
    }
  }
  sqlite3_finalize(pStmt);
}

static void queryNext(ChoirCursor *pCur) {
  QueryCursor *p = (QueryCursor *)pCur;
  pCur->bEof = (u8)!choirHranaNext(&p->stream, &p->row);
}

static void queryColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int iCol) {
  QueryCursor *p = (QueryCursor *)pCur;
  ChoirBuf b;
  int i;
  if (iCol == 0) {
    sqlite3_result_int64(pCtx, pCur->iRow + 1);
  } else if (iCol > 1) {
    choirHranaResult(&p->row, &pCur->err, pCtx, iCol - 2);
  } else {
    choirBufInit(&b, &pCur->err, CHOIR_BUF_JSON);
    if (p->azName == NULL) {
      queryNames(p);
    }
    choirBufText(&b, "{");
    for (i = 0; i < p->row.n && pCur->err.rc == SQLITE_OK; i++) {
      choirBufText(&b, i ? "," : "");
      choirBufText(&b, i < p->nName ? p->azName[i] : "\"\"");
      choirBufText(&b, ":");
      choirHranaJson(&p->row, &b, i);
    }
    choirBufText(&b, "}");
    choirBufResult(&b, pCtx);
    sqlite3_result_subtype(pCtx, 'J');
    choirBufFree(&b);
  }
}

/*
** SQL: libsql_query(url, sql[, params]) -> TABLE(row, data, c0, c1, c2, c3, c4,
**   c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15)
**
** Runs one statement on a remote libSQL or Turso database and gives its rows as
** they arrive: row counts from 1, data is a JSON object of all columns, c0 to
** c15 are the first sixteen with their types. Rows are read at the pace of the
** query that uses them, so memory stays the same however many there are.
**
**   url     TEXT, libsql://host, https://host, http://host:port, or the name of
**           a choir_secret of type libsql (url, token); NULL: the database of
**           LIBSQL_URL or TURSO_CONNECTION_URL with its token
**   sql     TEXT, one statement
**   params  TEXT, a JSON array for ?, or an object for :name; {"base64":"…"}
**           in it is a blob
**
** A blob in data is {"base64":"…"}. A statement that writes is run as well; it
** is never sent twice, but after a lost connection nobody knows whether it was
** done: use libsql_batch, or look.
**
** NULL: a NULL url means the configured one; a NULL sql is an error.
** Errors: the server's message and code; no access; a reply that is cut short.
** Source: https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_3_SPEC.md
**
** > SELECT * FROM libsql_query('nowhere', 'SELECT 1')
** ! libsql_query: 'nowhere' is no database; write libsql://host, https://host, http://host:port or the name of a choir_secret of type libsql
*/
static void libsqlQuery(ChoirCursor *pCur) {
  QueryCursor *p = (QueryCursor *)pCur;
  ChoirErr *pErr = &pCur->err;
  const char *zUrl = choirArgTextOrNull(pErr, pCur->apArg[0], "url");
  const char *zSql = choirArgText(pErr, pCur->apArg[1], "sql");
  const char *zParams = NULL;
  ChoirBuf stmt;
  if (pCur->apArg[2] && sqlite3_value_type(pCur->apArg[2]) != SQLITE_NULL) {
    zParams = choirArgJson(pCur->pConn, pErr, pCur->apArg[2], "params");
  }
  choirBufInit(&stmt, pErr, CHOIR_BUF_JSON);
  choirHranaRowInit(&p->row, pCur->pConn);
  choirHranaOpen(&p->stream, pCur->pConn, pErr, zUrl);
  p->bOpen = 1;
  if (pErr->rc == SQLITE_OK) {
    choirHranaParams(pCur->pConn, &stmt, zSql, zParams);
    choirHranaBegin(&p->stream, &stmt);
    queryNext(pCur);
  }
  choirBufFree(&stmt);
}

/* ------------------------------------------------------------------- batch */

/* Does a statement begin or end a transaction? Spaces and comments aside. */
static int batchControls(const char *z) {
  static const char *const az[] = {"BEGIN", "COMMIT", "END", "ROLLBACK"};
  int i;
  for (;;) {
    z += strspn(z, " \t\r\n\f;");
    if (z[0] == '-' && z[1] == '-') {
      z += strcspn(z, "\n");
    } else if (z[0] == '/' && z[1] == '*') {
      z = strstr(z + 2, "*/");
      z = z ? z + 2 : "";
    } else {
      break;
    }
  }
  for (i = 0; i < 4; i++) {
    size_t n = strlen(az[i]);
    if (sqlite3_strnicmp(z, az[i], (int)n) == 0 &&
        strspn(z + n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0"
                      "123456789") == 0) {
      return 1;
    }
  }
  return 0;
}

/* The statements of a JSON array, each with a NUL after it; how many. */
static int batchStmts(ChoirCall *p, const char *zJson, ChoirBuf *pStmts) {
  ChoirErr *pErr = &p->err;
  sqlite3_stmt *pStmt = choirJsonStmt(
      p->pConn, pErr,
      "SELECT CASE type WHEN 'text' THEN atom WHEN 'object' THEN"
      " value ->> '$.sql' WHEN 'array' THEN value ->> '$[0]' END,"
      " CASE type WHEN 'object' THEN coalesce(value -> '$.args',"
      " value -> '$.params') WHEN 'array' THEN value -> '$[1]' END,"
      " json_type(?1) = 'array' FROM json_each(?1)",
      zJson, -1);
  int n = 0;
  while (choirStep(pErr, pStmt)) {
    int bNull = sqlite3_column_type(pStmt, 0) == SQLITE_NULL;
    const char *zSql = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zParams = (const char *)sqlite3_column_text(pStmt, 1);
    n++;
    if (zSql == NULL && !bNull) {
      choirErrNomem(pErr);
    } else if (zSql == NULL || !sqlite3_column_int(pStmt, 2)) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "statements must be a JSON array of texts, [sql, params] or"
                  " {\"sql\":…,\"args\":…}; number %d is none of them",
                  n);
    } else if (batchControls(zSql)) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "statement %d begins or ends a transaction; the batch is one"
                  " by itself",
                  n);
    } else {
      choirHranaParams(p->pConn, pStmts, zSql,
                       zParams && strcmp(zParams, "null") != 0 ? zParams
                                                               : NULL);
      choirBufAppend(pStmts, "", 1);
    }
  }
  sqlite3_finalize(pStmt);
  return n;
}

/* One row of a result as a JSON array. */
static void batchRow(ChoirCall *p, ChoirHranaRow *pRow, ChoirBuf *pTo,
                     const char *z, i64 n) {
  int i;
  choirHranaRowRead(pRow, &p->err, z, n, "$");
  choirBufText(pTo, "[");
  for (i = 0; i < pRow->n; i++) {
    choirBufText(pTo, i ? "," : "");
    choirHranaJson(pRow, pTo, i);
  }
  choirBufText(pTo, "]");
}

/* What each statement came to. */
static void batchResult(ChoirCall *p, const ChoirBuf *pReply, int n,
                        ChoirBuf *pTo) {
  sqlite3_stmt *pStep = choirJsonStmt(
      p->pConn, &p->err,
      "SELECT key, coalesce(value ->> '$.affected_row_count', 0),"
      " coalesce(value ->> '$.last_insert_rowid', 'null'), value ->"
      " '$.rows' FROM json_each(?1, '$.step_results') WHERE key BETWEEN 1 AND"
      " ?2 ORDER BY key",
      pReply->a, (i64)pReply->n);
  sqlite3_stmt *pRows = choirJsonStmt(p->pConn, &p->err,
                                      "SELECT value FROM json_each(?1)", "", 0);
  ChoirHranaRow row;
  choirHranaRowInit(&row, p->pConn);
  choirBindInt(&p->err, pStep, 2, n);
  choirBufText(pTo, "[");
  while (choirStep(&p->err, pStep)) {
    const char *zRows = (const char *)sqlite3_column_text(pStep, 3);
    int i = 0;
    choirBufPrintf(
        pTo, "%s{\"affected\":%lld,\"last_insert_rowid\":%s,\"rows\":[",
        sqlite3_column_int64(pStep, 0) > 1 ? "," : "",
        sqlite3_column_int64(pStep, 1), sqlite3_column_text(pStep, 2));
    choirBindText(&p->err, pRows, 1, zRows ? zRows : "[]", -1);
    while (choirStep(&p->err, pRows)) {
      const char *z = (const char *)sqlite3_column_text(pRows, 0);
      choirBufText(pTo, i++ ? "," : "");
      batchRow(p, &row, pTo, z ? z : "", sqlite3_column_bytes(pRows, 0));
    }
    sqlite3_reset(pRows);
    choirBufText(pTo, "]}");
  }
  choirBufText(pTo, "]");
  choirHranaRowFree(&row);
  sqlite3_finalize(pRows);
  sqlite3_finalize(pStep);
}

/*
** SQL: libsql_batch(url, statements) -> TEXT
**
** Runs statements on a remote libSQL or Turso database as one transaction: all
** or nothing. Gives a JSON array of an object for each: affected,
** last_insert_rowid, rows (arrays of values).
**
**   url         as for libsql_query
**   statements  TEXT, a JSON array; each is the text of a statement, or
**               [sql, params], or {"sql":…, "args":…}, with parameters as for
**               libsql_query
**
** NULL: a NULL url means the configured one; NULL statements are an error.
** Errors: the server's message and code with the number of the statement, after
** which nothing was done; BEGIN, COMMIT, END or ROLLBACK among them. When the
** connection is lost before the reply, nobody knows whether it was done.
**
** > SELECT libsql_batch('http://localhost', '["BEGIN"]')
** ! libsql_batch: statement 1 begins or ends a transaction; the batch is one by itself
*/
static void batchFunc(ChoirCall *p) {
  const char *zUrl = choirArgTextOrNull(&p->err, p->apArg[0], "url");
  const char *zJson =
      choirArgJson(p->pConn, &p->err, p->apArg[1], "statements");
  ChoirHrana stream;
  ChoirBuf stmts, reply, result;
  int n = 0;
  choirBufInit(&stmts, &p->err, CHOIR_HRANA_STEPS);
  choirBufInit(&reply, &p->err, CHOIR_BUF_JSON);
  choirBufInit(&result, &p->err, CHOIR_BUF_JSON);
  if (zJson) {
    n = batchStmts(p, zJson, &stmts);
  }
  choirHranaOpen(&stream, p->pConn, &p->err, zUrl);
  if (p->err.rc == SQLITE_OK && n > 0) {
    choirHranaBatch(&stream, &stmts, n, 1, &reply);
  }
  if (p->err.rc == SQLITE_OK) {
    batchResult(p, &reply, n, &result);
    choirBufResult(&result, p->pCtx);
    sqlite3_result_subtype(p->pCtx, 'J');
  }
  choirHranaClose(&stream);
  choirBufFree(&stmts);
  choirBufFree(&reply);
  choirBufFree(&result);
}

/* ---------------------------------------------------------------- registry */

static const ChoirFunc aLibsqlFunc[] = {
    {"libsql_batch", 2, 2, CHOIR_EFFECT, CHOIR_SUBTYPE, batchFunc, NULL},
};

static const ChoirTvf aLibsqlTvf[] = {
    {"libsql_query",
     "row, data, c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13,"
     " c14, c15, url HIDDEN, sql HIDDEN, params HIDDEN",
     QUERY_COLUMNS, 2, 3, CHOIR_EFFECT, 0, (int)sizeof(QueryCursor),
     libsqlQuery, queryNext, queryColumn, queryReset},
};

CHOIR_PRIVATE CHOIR_COLD void choirLibsqlRegister(ChoirConn *pConn,
                                                  ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aLibsqlFunc);
  choirTvfs(pConn, pErr, aLibsqlTvf);
  choirLibsqlTableRegister(pConn, pErr);
  choirLibsqlCopyRegister(pConn, pErr);
}
#endif /* CHOIR_OMIT_NET */
