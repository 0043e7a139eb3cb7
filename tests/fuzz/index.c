/* SPDX-License-Identifier: MIT */
/*
** Internal rows of a vector index with bytes that nobody wrote: whatever they
** are, a search, a check and an optimize answer or fail, and nothing is read or
** written out of bounds. The damages, by the input's first byte:
**
**   segment bytes overwritten, replaced, cut, or of another length; its number
**   of rows; a list's centre, number of rows, id, partition; the registry's
**   mean, dimensions, scale, table; pending rows
**
** And once all is taken back, it answers as before.
*/
#include "fuzz.h"

static const char *const azIndexMake[] = {
    "CREATE TABLE docs(id INTEGER PRIMARY KEY, e BLOB, p)",
    "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)"
    " INSERT INTO docs SELECT i, randomblob(8), i % 3 FROM n",
    "SELECT vec_index_create('flat', 'docs', 'e', '{\"type\":\"int8\","
    "\"mode\":\"flat\"}')",
    "SELECT vec_index_create('lists', 'docs', 'e', '{\"type\":\"int8\","
    "\"mode\":\"lists\",\"metric\":\"l2\"}')",
    "SELECT vec_index_create('parts', 'docs', 'e', '{\"type\":\"int8\","
    "\"partition\":\"p\",\"metric\":\"dot\"}')",
    "UPDATE docs SET e = randomblob(8) WHERE id < 20",
};

/* ?1 the input's bytes, ?2 a number of it; %s the index. */
static const char *const azIndexDamage[] = {
    ("UPDATE _choir_vec_%s_seg SET block = CAST(substr(block, 1, abs(?2 %% "
     "900))"
     " || ?1 || substr(block, abs(?2 %% 900) + length(?1) + 1) AS BLOB)"),
    "UPDATE _choir_vec_%s_seg SET block = ?1",
    "UPDATE _choir_vec_%s_seg SET block = substr(block, 1, abs(?2 %% 3000))",
    "UPDATE _choir_vec_%s_seg SET n = ?2",
    "UPDATE _choir_vec_%s_seg SET n = abs(?2 %% 200)",
    "UPDATE OR IGNORE _choir_vec_%s_seg SET id = ?2 + id",
    "UPDATE OR IGNORE _choir_vec_%s_seg SET id = id + abs(?2 %% 5)",
    "UPDATE _choir_vec_%s_list SET centre = ?1",
    "UPDATE _choir_vec_%s_list SET centre = CAST(?1 || zeroblob(256) AS BLOB)",
    "UPDATE _choir_vec_%s_list SET n = ?2",
    "UPDATE OR IGNORE _choir_vec_%s_list SET id = ?2 + id",
    "UPDATE _choir_vec_%s_list SET part = ?2, stuck = ?2",
    "UPDATE _choir_vec SET mean = ?1 WHERE name = '%s'",
    "UPDATE _choir_vec SET dim = abs(?2 %% 200) WHERE name = '%s'",
    "UPDATE _choir_vec SET scale = ?2, seed = ?2 WHERE name = '%s'",
    "UPDATE _choir_vec SET rows = ?2, top = ?2, probes = ?1 WHERE name = '%s'",
    "UPDATE _choir_vec SET tbl = ?1, col = 'p' WHERE name = '%s'",
    "INSERT INTO _choir_vec_%s_pending(id, mark) VALUES(?2, ?2)",
    "INSERT OR REPLACE INTO _choir_vec_%s_pending VALUES(?2, ?1, ?1)",
    "DELETE FROM _choir_vec_%s_list WHERE id %% 2 = abs(?2 %% 2)",
};

static const char *const azIndexUse[] = {
    "SELECT count(*) FROM vec_search('%s', x'0102030405060708', 10)",
    "SELECT count(*) FROM vec_search('%s', x'0102030405060708', 2000)"
    " WHERE recall = 1.0",
    "SELECT count(*) FROM vec_search('%s', x'ff02f304f5060708', 5) WHERE"
    " rowid IN (1, 2, 3) OR distance < 1",
    "SELECT vec_index_info('%s')",
    "SELECT choir_check()",
    "DELETE FROM docs WHERE id %% 7 = 1",
    "SELECT vec_index_optimize('%s')",
    "SELECT count(*) FROM vec_search('%s', x'0102030405060708', 10)",
};

static void indexRun(sqlite3 *db, const char *zFmt, const char *zIndex,
                     const u8 *a, u64 n, i64 iValue) {
  char *zSql = sqlite3_mprintf(zFmt, zIndex);
  sqlite3_stmt *pStmt = NULL;
  if (zSql && sqlite3_prepare_v2(db, zSql, -1, &pStmt, NULL) == SQLITE_OK) {
    sqlite3_bind_blob64(pStmt, 1, a ? a : (const void *)"", n, SQLITE_STATIC);
    sqlite3_bind_int64(pStmt, 2, iValue);
    while (sqlite3_step(pStmt) == SQLITE_ROW) {
    }
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zSql);
}

/* Made once; every input works on it inside a savepoint. */
static sqlite3 *indexDb(void) {
  static sqlite3 *db = NULL;
  size_t i;
  if (db == NULL) {
    db = fuzzOpen(":memory:");
    for (i = 0; i < sizeof(azIndexMake) / sizeof(azIndexMake[0]); i++) {
      fuzzMust(db, "%s", azIndexMake[i]);
    }
  }
  return db;
}

FUZZ(index) {
  static const char *const azIndex[] = {"flat", "lists", "parts"};
  sqlite3 *db = indexDb();
  FuzzIn in = {a, n};
  u8 c = fuzzByte(&in);
  const char *zIndex = azIndex[c / 64 % 3];
  i64 iValue = fuzzInt(&in);
  size_t i;
  if (fuzzByte(&in) & 1) {
    iValue >>= 56;
  }
  fuzzMust(db, "SAVEPOINT fuzz");
  indexRun(db,
           azIndexDamage[c % 64 %
                         (sizeof(azIndexDamage) / sizeof(azIndexDamage[0]))],
           zIndex, in.a, in.n, iValue);
  indexRun(db, "UPDATE _choir_vec_%s_list SET gen = random()", zIndex, NULL, 0,
           0);
  indexRun(db, "UPDATE _choir_vec SET gen = random() WHERE '%s' <> ''", zIndex,
           NULL, 0, 0);
  for (i = 0; i < sizeof(azIndexUse) / sizeof(azIndexUse[0]); i++) {
    indexRun(db, azIndexUse[i], zIndex, NULL, 0, 0);
  }
  fuzzMust(db, "ROLLBACK TO fuzz; RELEASE fuzz");
  if (c % 16 == 0) {
    char *z = fuzzOne(db, "SELECT (SELECT count(*) FROM vec_search('lists',"
                          " x'0102030405060708', 2000) WHERE recall = 1.0) ||"
                          " (choir_check() ->> 'ok')");
    MUST(strcmp(z, "15001") == 0);
    sqlite3_free(z);
  }
}
