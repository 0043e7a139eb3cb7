/* SPDX-License-Identifier: MIT */
/*
** The fuzz target of the vector index over inputs from a seed: INDEX_FUZZ of
** them, 300 by default, every kind of damage among them. After each the index
** answers again as before.
*/
#include "../fuzz/index.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static uint64_t iSeed = 88172645463325252u;

static uint64_t next(void) {
  iSeed ^= iSeed << 13;
  iSeed ^= iSeed >> 7;
  iSeed ^= iSeed << 17;
  return iSeed;
}

static int answer(const char *zSql) {
  sqlite3_stmt *pStmt = NULL;
  int n = -1;
  assert_int_equal(sqlite3_prepare_v2(fuzzDb(), zSql, -1, &pStmt, NULL),
                   SQLITE_OK);
  if (sqlite3_step(pStmt) == SQLITE_ROW) {
    n = sqlite3_column_int(pStmt, 0);
  }
  sqlite3_finalize(pStmt);
  return n;
}

static void damagedRowsNeverCrash(void **ppState) {
  const char *z = getenv("INDEX_FUZZ");
  int i, j, nRound = z ? (int)strtol(z, NULL, 10) : 300;
  uint8_t a[600];
  (void)ppState;
  for (i = 0; i < nRound; i++) {
    size_t n = 10 + next() % (sizeof(a) - 10);
    for (j = 0; j < (int)n; j++) {
      a[j] = (uint8_t)(next() >> 24);
    }
    a[0] = (uint8_t)(i % 192);
    LLVMFuzzerTestOneInput(a, n);
  }
  assert_int_equal(answer("SELECT count(*) FROM vec_search('lists',"
                          " x'0102030405060708', 2000) WHERE recall = 1.0"),
                   1500);
  assert_int_equal(answer("SELECT choir_check() ->> 'ok'"), 1);
}

int main(void) {
  const struct CMUnitTest aTest[] = {cmocka_unit_test(damagedRowsNeverCrash)};
  return cmocka_run_group_tests(aTest, NULL, NULL);
}
