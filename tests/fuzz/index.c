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
** `make fuzz` runs it with libFuzzer, tests/unit/index_fuzz_test.c over inputs
** from a seed.
*/
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

int sqlite3_choir_init(sqlite3 *, char **, const void *);
int LLVMFuzzerTestOneInput(const uint8_t *aData, size_t nData);

static const char *const azFuzzMake[] = {
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
static const char *const azFuzzDamage[] = {
    "UPDATE _choir_vec_%s_seg SET block = CAST(substr(block, 1, abs(?2 %% 900))"
    " || ?1 || substr(block, abs(?2 %% 900) + length(?1) + 1) AS BLOB)",
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

static const char *const azFuzzUse[] = {
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

static void fuzzRun(sqlite3 *db, const char *zFmt, const char *zIndex,
                    const uint8_t *a, size_t n, int64_t iValue) {
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
static sqlite3 *fuzzDb(void) {
  static sqlite3 *db = NULL;
  size_t i;
  if (db == NULL) {
    sqlite3_auto_extension((void (*)(void))sqlite3_choir_init);
    if (sqlite3_open(":memory:", &db) != SQLITE_OK) {
      abort();
    }
    for (i = 0; i < sizeof(azFuzzMake) / sizeof(azFuzzMake[0]); i++) {
      if (sqlite3_exec(db, azFuzzMake[i], NULL, NULL, NULL) != SQLITE_OK) {
        fprintf(stderr, "%s\n", sqlite3_errmsg(db));
        abort();
      }
    }
    sqlite3_exec(db, "SELECT choir_init()", NULL, NULL, NULL);
  }
  return db;
}

int LLVMFuzzerTestOneInput(const uint8_t *aData, size_t nData) {
  static const char *const azIndex[] = {"flat", "lists", "parts"};
  sqlite3 *db = fuzzDb();
  const char *zIndex;
  int64_t iValue;
  size_t i;
  if (nData < 10) {
    return 0;
  }
  zIndex = azIndex[aData[0] / 64 % 3];
  memcpy(&iValue, aData + 1, 8);
  if (aData[9] & 1) {
    iValue = (int8_t)aData[1];
  }
  sqlite3_exec(db, "SAVEPOINT fuzz", NULL, NULL, NULL);
  fuzzRun(db,
          azFuzzDamage[aData[0] % 64 % (sizeof(azFuzzDamage) /
                                        sizeof(azFuzzDamage[0]))],
          zIndex, aData + 10, nData - 10, iValue);
  fuzzRun(db, "UPDATE _choir_vec_%s_list SET gen = random()", zIndex, NULL, 0,
          0);
  fuzzRun(db, "UPDATE _choir_vec SET gen = random() WHERE '%s' <> ''", zIndex,
          NULL, 0, 0);
  for (i = 0; i < sizeof(azFuzzUse) / sizeof(azFuzzUse[0]); i++) {
    fuzzRun(db, azFuzzUse[i], zIndex, NULL, 0, 0);
  }
  sqlite3_exec(db, "ROLLBACK TO fuzz; RELEASE fuzz", NULL, NULL, NULL);
  return 0;
}
