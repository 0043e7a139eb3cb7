/* SPDX-License-Identifier: MIT */
/*
** A live WAL, where only a host in C can look. Frames that a pull appends: every
** allocation fails in turn, and what SQLite wrote is not what choir expects. Each
** time the file is the old or the new version, whole, and a second pull makes it
** the new one. Frames that a push reads: somebody cuts the WAL off meanwhile.
*/
#include "../../ext/choir.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define ROWS 2000

static char zDir[] = "/tmp/choir-frames-XXXXXX";

/* ------------------------------------------------------------- allocations */

static sqlite3_mem_methods mem;
static int nUntil; /* allocations until one fails; 0: none does */

static int memFails(void) { return nUntil > 0 && --nUntil == 0; }
static void *memMalloc(int n) { return memFails() ? NULL : mem.xMalloc(n); }
static void *memRealloc(void *p, int n) {
  return memFails() ? NULL : mem.xRealloc(p, n);
}

/* --------------------------------------------------------------- what is read */

static int (*xOpen)(sqlite3_vfs *, const char *, sqlite3_file *, int, int *);
static const sqlite3_io_methods *pReal;
static sqlite3_io_methods walMethods;
static int nLie, nLied; /* reads of this many bytes of a WAL are not right */
static int bCut, nCut;  /* a page read after whole frames is not there */

static int lyingRead(sqlite3_file *p, void *a, int n, sqlite3_int64 iOff) {
  static int nBefore;
  int rc = pReal->xRead(p, a, n, iOff);
  if (bCut && n == 4096 && nBefore == 24 + 4096) {
    rc = SQLITE_IOERR_SHORT_READ;
    nCut++;
  }
  nBefore = n;
  if (n == nLie) {
    ((char *)a)[n - 1] ^= 1;
    nLied++;
  }
  return rc;
}

static int lyingOpen(sqlite3_vfs *pVfs, const char *zName, sqlite3_file *p,
                     int flags, int *pOut) {
  int rc = xOpen(pVfs, zName, p, flags, pOut);
  if (rc == SQLITE_OK && (flags & SQLITE_OPEN_WAL)) {
    pReal = p->pMethods;
    walMethods = *pReal;
    walMethods.xRead = lyingRead;
    p->pMethods = &walMethods;
  }
  return rc;
}

/* ------------------------------------------------------------------ helpers */

static sqlite3 *openDb(const char *zName) {
  char z[64];
  char *zErr = NULL;
  sqlite3 *db = NULL;
  snprintf(z, sizeof(z), "%s/%s", zDir, zName);
  assert_int_equal(sqlite3_open(z, &db), SQLITE_OK);
  assert_int_equal(sqlite3_choir_init(db, &zErr, NULL), SQLITE_OK);
  return db;
}

/* The first value, or -1 for an error, whose code is in *pRc. */
static int value(sqlite3 *db, const char *zSql, int *pRc) {
  char z[256];
  sqlite3_stmt *p = NULL;
  int n = -1;
  snprintf(z, sizeof(z), zSql, zDir);
  *pRc = sqlite3_prepare_v2(db, z, -1, &p, NULL);
  if (*pRc == SQLITE_OK && sqlite3_step(p) == SQLITE_ROW) {
    n = sqlite3_column_int(p, 0);
  }
  *pRc = p ? sqlite3_finalize(p) : *pRc;
  return n;
}

static int must(sqlite3 *db, const char *zSql) {
  int rc, n = value(db, zSql, &rc);
  if (rc != SQLITE_OK) {
    print_error("%s: %s\n", zSql, sqlite3_errmsg(db));
  }
  assert_int_equal(rc, SQLITE_OK);
  return n;
}

#define PUSH "SELECT json_extract(sync_push('file://%s/r/'), '$.pushed')"
#define PULL "SELECT json_extract(sync_pull('file://%s/r/'), '$.pulled')"

static long walSize(void) {
  char z[64];
  struct stat st;
  snprintf(z, sizeof(z), "%s/b.db-wal", zDir);
  return stat(z, &st) == 0 ? (long)st.st_size : 0;
}

/* All rows have the number of one version; which? */
static int version(sqlite3 *db) {
  assert_int_equal(must(db, "SELECT count(*) FROM t"), ROWS);
  assert_int_equal(must(db, "SELECT count(*) FROM pragma_integrity_check"
                            " WHERE integrity_check = 'ok'"),
                   1);
  assert_int_equal(must(db, "SELECT min(v) FROM t WHERE i IN (1, 1900)"),
                   must(db, "SELECT max(v) FROM t WHERE i IN (1, 1900)"));
  return must(db, "SELECT v FROM t WHERE i = 1");
}

static void next(sqlite3 *a) {
  must(a, "UPDATE t SET v = v + 1 WHERE i IN (1, 1900)");
  assert_int_equal(must(a, PUSH), 1);
}

/* -------------------------------------------------------------------- tests */

static void every_allocation_fails(void **ppState) {
  sqlite3 *a = openDb("a.db"), *b, *c;
  int n, rc, nFailed = 0, bDone = 0;
  (void)ppState;
  for (n = 1; !bDone; n += 1 + n / 12) { /* all at first */
    int was, got;
    next(a);
    b = openDb("b.db");
    was = version(b);
    nUntil = n;
    got = value(b, PULL, &rc);
    bDone = nUntil > 0;
    nUntil = 0;
    nFailed += got != 1;
    assert_true(got == 1 ? rc == SQLITE_OK : rc == SQLITE_NOMEM);
    assert_int_equal(version(b), got == 1 ? was + 1 : was);
    c = openDb("b.db");
    assert_int_equal(version(c), got == 1 ? was + 1 : was);
    assert_int_equal(must(b, PULL), got != 1);
    assert_int_equal(version(b), was + 1);
    assert_int_equal(version(c), was + 1);
    sqlite3_close(c);
    sqlite3_close(b);
  }
  assert_true(nFailed > 30);
  sqlite3_close(a);
}

static void what_is_not_as_expected_is_left_to_sqlite(void **ppState) {
  sqlite3_vfs *pVfs = sqlite3_vfs_find("unix");
  sqlite3 *a = openDb("a.db"), *b;
  (void)ppState;
  xOpen = pVfs->xOpen;
  pVfs->xOpen = lyingOpen;
  b = openDb("b.db");
  must(b, "PRAGMA wal_checkpoint(TRUNCATE)");
  next(a);
  assert_int_equal(must(b, PULL), 1);
  assert_true(walSize() < 100000 && nLied == 0);
  next(a);
  nLie = 24 + 4096; /* a frame, which SQLite reads in two parts */
  assert_int_equal(must(b, PULL), 1);
  assert_true(nLied > 0);
  assert_true(walSize() > must(b, "PRAGMA page_count") * 4096);
  assert_int_equal(version(b), version(a));
  nLie = 0;
  pVfs->xOpen = xOpen;
  sqlite3_close(b);
  sqlite3_close(a);
}

static void a_wal_that_is_cut_off_under_a_push_is_scanned(void **ppState) {
  sqlite3_vfs *pVfs = sqlite3_vfs_find("unix");
  sqlite3 *a = openDb("a.db"), *b = openDb("b.db");
  (void)ppState;
  xOpen = pVfs->xOpen;
  pVfs->xOpen = lyingOpen;
  next(a);
  bCut = 1;
  next(a);
  assert_true(nCut > 0);
  bCut = 0;
  pVfs->xOpen = xOpen;
  assert_int_equal(must(b, PULL), 1);
  assert_int_equal(version(b), version(a));
  sqlite3_close(b);
  sqlite3_close(a);
}

static int prepare(void **ppState) {
  sqlite3 *db;
  char z[64];
  (void)ppState;
  snprintf(z, sizeof(z), "%s/r", zDir);
  if (mkdtemp(zDir) == NULL) {
    return -1;
  }
  snprintf(z, sizeof(z), "%s/r", zDir);
  mkdir(z, 0700);
  setenv("XDG_STATE_HOME", zDir, 1);
  db = openDb("a.db");
  must(db, "SELECT choir_init() IS NULL");
  must(db, "CREATE TABLE t(i INTEGER PRIMARY KEY, v, x)");
  must(db, "WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 2000)"
           " INSERT INTO t SELECT i, 0, hex(randomblob(100)) FROM n");
  assert_int_equal(must(db, PUSH), 1);
  sqlite3_close(db);
  db = openDb("b.db");
  assert_int_equal(must(db, PULL), 1);
  sqlite3_close(db);
  return 0;
}

static int removed(void **ppState) {
  char z[64];
  (void)ppState;
  snprintf(z, sizeof(z), "rm -rf '%s'", zDir);
  return system(z);
}

int main(void) {
  const struct CMUnitTest aTest[] = {
      cmocka_unit_test(what_is_not_as_expected_is_left_to_sqlite),
      cmocka_unit_test(a_wal_that_is_cut_off_under_a_push_is_scanned),
      cmocka_unit_test(every_allocation_fails),
  };
  sqlite3_mem_methods failing;
  sqlite3_config(SQLITE_CONFIG_GETMALLOC, &mem);
  failing = mem;
  failing.xMalloc = memMalloc;
  failing.xRealloc = memRealloc;
  sqlite3_config(SQLITE_CONFIG_MALLOC, &failing);
  return cmocka_run_group_tests(aTest, prepare, removed);
}
