/* SPDX-License-Identifier: MIT */
/*
** JSON that is not the host's: replies of servers and secrets are read with
** SQLite's own JSON functions, but on a private `:memory:` connection, so that
** nothing of them reaches the host's trace hooks, authorizer or limits.
*/
#include "core.h"

typedef struct JsonState {
  sqlite3 *db;
} JsonState;

static void jsonFree(void *pArg) { sqlite3_close(((JsonState *)pArg)->db); }

static const ChoirStateType jsonState = {"json", sizeof(JsonState), jsonFree};

CHOIR_PRIVATE sqlite3 *choirJsonDb(ChoirConn *pConn, ChoirErr *pErr) {
  JsonState *p = choirState(pConn, pErr, &jsonState);
  if (p && p->db == NULL) {
    int rc = sqlite3_open_v2(":memory:", &p->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (rc != SQLITE_OK) {
      sqlite3_close(p->db);
      p->db = NULL;
      choirErrNomem(pErr);
    }
  }
  return p ? p->db : NULL;
}

CHOIR_PRIVATE sqlite3_stmt *choirJsonStmt(ChoirConn *pConn, ChoirErr *pErr,
                                          const char *zSql, const char *zJson,
                                          i64 nJson) {
  sqlite3 *db = choirJsonDb(pConn, pErr);
  sqlite3_stmt *p = NULL;
  if (db && pErr->rc == SQLITE_OK) {
    choirErrDb(pErr, db, sqlite3_prepare_v2(db, zSql, -1, &p, NULL));
    choirBindText(pErr, p, 1, zJson, nJson);
  }
  return p;
}

/* json_valid() gives 0 when memory runs out too; json_type() tells the two
** apart, but accepts JSON5 from SQLite 3.42 on. */
CHOIR_PRIVATE int choirJsonValid(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zJson, i64 nJson) {
  static const char *const azSql[] = {
      "SELECT json_valid(?1)", "SELECT json_type(?1)", "SELECT json_valid(?1)"};
  int i, bValid = 0;
  for (i = 0; i < 3 && !bValid && pErr->rc == SQLITE_OK; i++) {
    sqlite3_stmt *p = choirJsonStmt(pConn, pErr, azSql[i], zJson, nJson);
    int rc = pErr->rc == SQLITE_OK ? sqlite3_step(p) & 0xff : SQLITE_OK;
    if (rc == SQLITE_NOMEM) {
      choirErrNomem(pErr);
    }
    bValid = i != 1 && rc == SQLITE_ROW && sqlite3_column_int(p, 0);
    sqlite3_finalize(p);
  }
  return bValid && pErr->rc == SQLITE_OK;
}

CHOIR_PRIVATE char *choirJsonText(ChoirConn *pConn, ChoirErr *pErr,
                                  const char *zJson, i64 nJson,
                                  const char *zPath) {
  char *z = NULL;
  sqlite3_stmt *p = choirJsonStmt(
      pConn, pErr, "SELECT json_extract(?1, ?2), json_valid(?1)", zJson, nJson);
  int rc;
  choirBindText(pErr, p, 2, zPath, -1);
  rc = pErr->rc == SQLITE_OK ? sqlite3_step(p) & 0xff : SQLITE_OK;
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (rc == SQLITE_ERROR ||
             (rc == SQLITE_ROW && !sqlite3_column_int(p, 1))) {
    choirErrSet(pErr, SQLITE_ERROR, "not JSON");
  } else if (rc == SQLITE_ROW && sqlite3_column_type(p, 0) != SQLITE_NULL) {
    const char *zText = (const char *)sqlite3_column_text(p, 0);
    z = zText ? choirMprintf(pErr, "%s", zText) : NULL;
    if (zText == NULL) {
      choirErrNomem(pErr);
    }
  }
  sqlite3_finalize(p);
  return z;
}
