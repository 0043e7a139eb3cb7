/* SPDX-License-Identifier: MIT */
/*
** A row of a Hrana reply on any bytes: it is read or refused, and
** what was read can be bound, asked for and written as JSON that is valid.
** tests/libsql/test_libsql.py sends 5,000 spoilt replies through the whole of
** the client.
*/
#include "fuzz.h"
#include "../../ext/libsql/libsql.h"

static void hranaUse(ChoirHranaRow *pRow, ChoirConn *pConn) {
  ChoirErr err = {SQLITE_OK, NULL};
  sqlite3_stmt *pStmt = choirPrepare(pConn, &err, "SELECT ?1");
  ChoirBuf b;
  int i;
  for (i = 0; i < pRow->n; i++) {
    ChoirErr own = {SQLITE_OK, NULL};
    choirBufInit(&b, &own, CHOIR_BUF_JSON);
    choirHranaBind(pRow, &own, pStmt, 1, i);
    choirHranaJson(pRow, &b, i);
    choirHranaInt(pRow, i);
    choirHranaText(pRow, i);
    if (own.rc == SQLITE_OK) {
      sqlite3_stmt *p =
          choirJsonStmt(pConn, &own, "SELECT json_valid(?1)", b.a, (i64)b.n);
      MUST(choirStep(&own, p) && sqlite3_column_int(p, 0));
      sqlite3_finalize(p);
    }
    choirBufFree(&b);
    choirErrClear(&own);
  }
  sqlite3_finalize(pStmt);
  choirErrClear(&err);
}

FUZZ(hrana) {
  static ChoirConn *pConn;
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirHranaRow row;
  pConn = pConn ? pConn : choirConnPrivate(&err, 0);
  if (choirUtf8Valid((const char *)a, (i64)n) < (i64)n) {
    return; /* refused before it gets here */
  }
  choirHranaRowInit(&row, pConn);
  choirHranaRowRead(&row, &err, (const char *)a, (i64)n, "$.row");
  if (err.rc == SQLITE_OK) {
    hranaUse(&row, pConn);
  }
  choirHranaRowFree(&row);
  choirErrClear(&err);
}
