/* SPDX-License-Identifier: MIT */
/* Filters: of names and values of a stranger, and a whole one of theirs. What
** comes out is JSON, and the tenant's condition stays the first. */
#include "fuzz.h"
#include "../../ext/qdrant/qdrant.h"

FUZZ(qdrant_filter) {
  static const int aOp[] = {QDRANT_EQ, QDRANT_LT, QDRANT_LE,      QDRANT_GT,
                            QDRANT_GE, QDRANT_NE, QDRANT_NOTNULL, QDRANT_IN};
  static ChoirConn *pConn;
  FuzzIn in = {a, n};
  u8 c = fuzzByte(&in);
  u64 nUser, nKey, nValue;
  char *zUser = fuzzPart(&in, &nUser), *zKey = fuzzPart(&in, &nKey), *zValue;
  ChoirErr err = {SQLITE_OK, NULL};
  Qdrant to;
  sqlite3_stmt *p = NULL;
  ChoirBuf b;
  zValue = fuzzPart(&in, &nValue);
  pConn = pConn ? pConn : choirConnPrivate(&err, 0);
  memset(&to, 0, sizeof(to));
  to.pConn = pConn;
  to.zUser = zUser;
  MUST(sqlite3_prepare_v2(pConn->db,
                          "SELECT CASE ?2 WHEN 0 THEN ?1 WHEN 1 THEN"
                          " CAST(?1 AS INTEGER) WHEN 2 THEN CAST(?1 AS REAL)"
                          " ELSE CAST(?1 AS BLOB) END",
                          -1, &p, NULL) == SQLITE_OK);
  sqlite3_bind_text64(p, 1, zValue, nValue, SQLITE_STATIC, SQLITE_UTF8);
  sqlite3_bind_int(p, 2, c / 64);
  MUST(sqlite3_step(p) == SQLITE_ROW);
  choirBufInit(&b, &err, CHOIR_BUF_SQL);
  choirBufText(&b, "{");
  choirQdrantFilterOpen(&to, &b, "filter");
  if (c % 10 < 7 && choirQdrantMayPush(1 + c % 7, aOp[c % 8 % 7])) {
    choirQdrantPush(&to, &err, &b, zKey, 1 + c % 7, aOp[c % 8 % 7],
                    sqlite3_column_value(p, 0));
  } else {
    choirQdrantFilterUser(pConn, &b, sqlite3_column_value(p, 0));
  }
  choirBufText(&b, "]}}");
  if (err.rc == SQLITE_OK && memchr(b.a, 0, b.n) == NULL) {
    MUST(choirJsonValid(pConn, &err, b.a, (i64)b.n));
    MUST(strncmp(b.a, "{\"filter\":{\"must\":[{\"key\":\"user_id\"", 35) == 0);
  }
  choirBufFree(&b);
  choirErrClear(&err);
  sqlite3_finalize(p);
  fuzzSql(fuzzDb(),
          "SELECT qdrant_filter(?1, '=', 1), qdrant_filter('k', ?1,"
          " 1), qdrant_filter('k', '=', ?1, 'l', '<', ?4),"
          " qdrant_filter('k', 'in', ?1), qdrant_filter('k', '=', ?2)",
          in.a, in.n);
  sqlite3_free(zUser);
  sqlite3_free(zKey);
  sqlite3_free(zValue);
}
