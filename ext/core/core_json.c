/* SPDX-License-Identifier: MIT */
/*
** JSON that is not the host's: replies of servers and secrets are read with
** SQLite's own JSON functions, but on a private `:memory:` connection, so that
** nothing of them reaches the host's trace hooks, authorizer or limits.
*/
#include "core.h"

/* Has memory run out since the last look? */
static int jsonShort(const ChoirConn *pConn) {
  return pConn->dbJson &&
         (sqlite3_errcode(pConn->dbJson) & 0xff) == SQLITE_NOMEM;
}

CHOIR_PRIVATE void choirJsonMemory(ChoirConn *pConn, ChoirErr *pErr) {
  if (pConn->bJsonShort || jsonShort(pConn)) {
    pConn->bJsonShort = 0;
    sqlite3_exec(pConn->dbJson, "", NULL, NULL, NULL); /* forgets the code */
    choirErrClear(pErr);
    choirErrNomem(pErr);
  }
}

static sqlite3 *jsonDb(ChoirConn *pConn, ChoirErr *pErr) {
  if (pErr->rc == SQLITE_OK && pConn->dbJson == NULL &&
      sqlite3_open_v2(":memory:", &pConn->dbJson,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                      NULL) != SQLITE_OK) {
    sqlite3_close(pConn->dbJson);
    pConn->dbJson = NULL;
    choirErrNomem(pErr);
  }
  if (jsonShort(pConn)) {
    pConn->bJsonShort = 1;
    choirErrNomem(pErr);
  }
  return pConn->dbJson;
}

CHOIR_PRIVATE sqlite3_stmt *choirJsonStmt(ChoirConn *pConn, ChoirErr *pErr,
                                          const char *zSql, const char *zJson,
                                          i64 nJson) {
  sqlite3 *db = jsonDb(pConn, pErr);
  sqlite3_stmt *p = NULL;
  if (pErr->rc == SQLITE_OK) {
    choirErrDb(pErr, db, sqlite3_prepare_v2(db, zSql, -1, &p, NULL));
    choirBindText(pErr, p, 1, zJson, nJson);
  }
  return p;
}

CHOIR_PRIVATE int choirJsonValid(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zJson, i64 nJson) {
  sqlite3_stmt *p = choirJsonStmt(
      pConn, pErr, "SELECT json_valid(?1) OR json_valid(+?1)", zJson, nJson);
  int bValid = choirStep(pErr, p) && sqlite3_column_int(p, 0);
  sqlite3_finalize(p);
  return bValid;
}

CHOIR_PRIVATE sqlite3_stmt *choirJsonReply(ChoirConn *pConn, ChoirErr *pErr,
                                           const char *zSql, const char *zJson,
                                           i64 nJson) {
  i64 n = nJson < 0 && zJson ? (i64)strlen(zJson) : nJson;
  if (zJson && (choirUtf8Valid(zJson, n) < n ||
                !choirJsonValid(pConn, pErr, zJson, n))) {
    zJson = NULL;
  }
  return choirJsonStmt(pConn, pErr, zSql, zJson, n);
}

CHOIR_PRIVATE char *choirJsonText(ChoirConn *pConn, ChoirErr *pErr,
                                  const char *zJson, i64 nJson,
                                  const char *zPath) {
  char *z = NULL;
  sqlite3_stmt *p = choirJsonReply(
      pConn, pErr, "SELECT json_extract(?1, ?2), ?1 IS NULL", zJson, nJson);
  choirBindText(pErr, p, 2, zPath, -1);
  if (choirStep(pErr, p)) {
    const char *zText = (const char *)sqlite3_column_text(p, 0);
    if (sqlite3_column_int(p, 1)) {
      choirErrSet(pErr, SQLITE_ERROR, "not JSON");
    } else if (zText) {
      z = choirMprintf(pErr, "%s", zText);
    }
  }
  sqlite3_finalize(p);
  return z;
}
