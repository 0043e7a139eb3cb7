/* SPDX-License-Identifier: MIT */
/*
** A host in C: whatever it did with choir, a plain sqlite3_close() succeeds.
**
** choir keeps prepared statements on the host's connection; they belong to an
** eponymous table (ext/core/core_stmt.c), so they must be gone before SQLite
** looks for statements left open. sqlite3_close_v2() would hide a mistake.
**
**   cc anchor_test.c -lsqlite3 -lcmocka && CHOIR_SO=./choir.so ./a.out
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

static const char *const azUse[] = {
    "SELECT choir_init()",
    "SELECT artifact_put('/a.md', 'text'), artifact_get('/a.md')",
    "SELECT * FROM artifact_ls('/')",
    "SELECT setting_set('theme', 'dark'), setting_get('theme')",
    "SELECT message_add(conversation_create('talk'), 'user', 'hello')",
    "SELECT log_record('A', '{}')",
    "SELECT * FROM timeline",
    "SELECT choir_index()",
    "SELECT * FROM choir_search('text')",
    "SELECT choir_check()",
    "SELECT * FROM choir_doctor",
    "SELECT * FROM choir_metrics",
    "SELECT artifact_get('/none')", /* fails */
};

static void loadChoir(sqlite3 *db) {
  const char *zSo = getenv("CHOIR_SO");
  char *zErr = NULL;
  sqlite3_enable_load_extension(db, 1);
  if (sqlite3_load_extension(db, zSo ? zSo : "./choir.so", NULL, &zErr) !=
      SQLITE_OK) {
    fail_msg("%s", zErr);
  }
}

static sqlite3 *openHost(const char *zFile) {
  sqlite3 *db = NULL;
  assert_int_equal(sqlite3_open(zFile, &db), SQLITE_OK);
  loadChoir(db);
  return db;
}

static void useAll(sqlite3 *db) {
  size_t i;
  for (i = 0; i < sizeof(azUse) / sizeof(azUse[0]); i++) {
    sqlite3_exec(db, azUse[i], NULL, NULL, NULL);
  }
}

static int nOpen(sqlite3 *db) {
  sqlite3_stmt *p = NULL;
  int n = 0;
  while ((p = sqlite3_next_stmt(db, p)) != NULL) {
    n++;
  }
  return n;
}

static void closeWithoutUse(void **pp) {
  (void)pp;
  assert_int_equal(sqlite3_close(openHost(":memory:")), SQLITE_OK);
}

static void closeAfterUse(void **pp) {
  sqlite3 *db = openHost(":memory:");
  (void)pp;
  useAll(db);
  assert_true(nOpen(db) > 0); /* or the test proves nothing */
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void closeAfterLoadingTwice(void **pp) {
  sqlite3 *db = openHost(":memory:");
  (void)pp;
  useAll(db);
  loadChoir(db);
  useAll(db);
  loadChoir(db);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void aFailedCloseCanBeFollowedByUse(void **pp) {
  sqlite3 *db = openHost(":memory:");
  sqlite3_stmt *p = NULL;
  int i;
  (void)pp;
  useAll(db);
  assert_int_equal(sqlite3_prepare_v2(db, "SELECT * FROM artifacts", -1, &p, 0),
                   SQLITE_OK);
  assert_int_equal(sqlite3_step(p), SQLITE_ROW);
  for (i = 0; i < 3; i++) {
    assert_int_equal(sqlite3_close(db), SQLITE_BUSY);
    useAll(db);
  }
  assert_int_equal(sqlite3_finalize(p), SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* A call of choir that the host leaves half stepped. */
static void aTableFunctionLeftOpenKeepsTheConnection(void **pp) {
  sqlite3 *db = openHost(":memory:");
  sqlite3_stmt *p = NULL;
  (void)pp;
  useAll(db);
  assert_int_equal(
      sqlite3_prepare_v2(db, "SELECT * FROM artifact_ls('/')", -1, &p, 0),
      SQLITE_OK);
  assert_int_equal(sqlite3_step(p), SQLITE_ROW);
  assert_int_equal(sqlite3_close(db), SQLITE_BUSY);
  assert_int_equal(sqlite3_step(p), SQLITE_DONE);
  sqlite3_finalize(p);
  useAll(db);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void aZombieEndsWithItsLastStatement(void **pp) {
  sqlite3 *db = openHost(":memory:");
  sqlite3_stmt *p = NULL;
  sqlite3_int64 nBefore = sqlite3_memory_used();
  (void)pp;
  useAll(db);
  assert_int_equal(sqlite3_prepare_v2(db, "SELECT * FROM artifacts", -1, &p, 0),
                   SQLITE_OK);
  assert_int_equal(sqlite3_close_v2(db), SQLITE_OK);
  sqlite3_finalize(p);
  assert_true(sqlite3_memory_used() < nBefore);
}

static void closeAfterASecondWorkspaceWasDetached(void **pp) {
  sqlite3 *db = openHost(":memory:");
  (void)pp;
  useAll(db);
  assert_int_equal(sqlite3_exec(db,
                                "ATTACH ':memory:' AS other;"
                                "SELECT choir_init('other');"
                                "SELECT artifact_put('/b', 'x');"
                                "SELECT choir_config('schema', 'main')",
                                NULL, NULL, NULL),
                   SQLITE_OK);
  useAll(db);
  assert_int_equal(sqlite3_exec(db, "DETACH other", NULL, NULL, NULL),
                   SQLITE_OK);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void nothingIsLeftInMemory(void **pp) {
  sqlite3_int64 nBefore;
  int i;
  (void)pp;
  closeAfterUse(NULL); /* what SQLite itself keeps */
  nBefore = sqlite3_memory_used();
  for (i = 0; i < 5; i++) {
    closeAfterUse(NULL);
  }
  assert_int_equal(sqlite3_memory_used(), nBefore);
}

int main(void) {
  const struct CMUnitTest aTest[] = {
      cmocka_unit_test(closeWithoutUse),
      cmocka_unit_test(closeAfterUse),
      cmocka_unit_test(closeAfterLoadingTwice),
      cmocka_unit_test(aFailedCloseCanBeFollowedByUse),
      cmocka_unit_test(aTableFunctionLeftOpenKeepsTheConnection),
      cmocka_unit_test(aZombieEndsWithItsLastStatement),
      cmocka_unit_test(closeAfterASecondWorkspaceWasDetached),
      cmocka_unit_test(nothingIsLeftInMemory),
  };
  return cmocka_run_group_tests(aTest, NULL, NULL);
}
