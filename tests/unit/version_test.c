/* SPDX-License-Identifier: MIT */
/*
** A version of a folder read page by page is, page for page, the file that
** sync_restore() writes; and it costs few requests.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "../../ext/choir.h"
#include "../../ext/sync/sync.h"

static int nGet;
static int (*xRealGet)(ChoirObject *, ChoirErr *, const char *, i64, i64,
                       ChoirObjectMeta *, ChoirObjectWrite, void *);

static int count_get(ChoirObject *p, ChoirErr *pErr, const char *zKey, i64 iOff,
                     i64 nByte, ChoirObjectMeta *pMeta, ChoirObjectWrite x,
                     void *pArg) {
  nGet++;
  return xRealGet(p, pErr, zKey, iOff, nByte, pMeta, x, pArg);
}

static void run(sqlite3 *db, const char *zFmt, ...) {
  va_list ap;
  char *z, *zErr = NULL;
  va_start(ap, zFmt);
  z = sqlite3_vmprintf(zFmt, ap);
  va_end(ap);
  if (sqlite3_exec(db, z, NULL, NULL, &zErr) != SQLITE_OK) {
    fail_msg("%s: %s", z, zErr);
  }
  sqlite3_free(z);
}

static void same(ChoirConn *pConn, const char *zUrl, u64 iTxid,
                 const char *zFile) {
  ChoirErr err = {0, NULL};
  ChoirRemote there;
  ChoirObjectMethods counted;
  ChoirVersion *v;
  FILE *f = fopen(zFile, "rb");
  u32 i;
  static u8 a[65536], aWant[65536];
  assert_non_null(f);
  choirRemoteOpen(pConn, &err, &there, zUrl);
  counted = *there.pStore->pMethods;
  xRealGet = counted.xGet;
  counted.xGet = count_get;
  there.pStore->pMethods = &counted;
  nGet = 0;
  v = choirVersionOpen(&err, &there, iTxid);
  assert_non_null(v);
  assert_true(choirVersionHead(v)->iMax == iTxid);
  assert_true(nGet <= 2 * (int)iTxid);
  for (i = 1; i <= choirVersionHead(v)->nPage; i++) {
    choirVersionPage(v, &err, i, a);
    assert_int_equal(err.rc, SQLITE_OK);
    assert_int_equal(fread(aWant, 1, choirVersionHead(v)->szPage, f),
                     choirVersionHead(v)->szPage);
    assert_memory_equal(a, aWant, choirVersionHead(v)->szPage);
  }
  assert_int_equal(fread(aWant, 1, 1, f), 0);
  choirVersionClose(v);
  assert_null(choirVersionOpen(&err, &there, 99));
  assert_int_equal(err.rc, SQLITE_ERROR);
  choirErrClear(&err);
  choirRemoteClose(&there);
  fclose(f);
}

static void every_page_of_every_version(void **state) {
  char zDir[] = "/tmp/choir-version-XXXXXX", zUrl[80], zFile[80], z[80];
  sqlite3 *db;
  ChoirConn *pConn;
  int i;
  (void)state;
  assert_non_null(mkdtemp(zDir));
  setenv("HOME", zDir, 1);
  snprintf(zUrl, sizeof(zUrl), "file://%s/", zDir);
  assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
  assert_int_equal(sqlite3_choir_init(db, NULL, NULL), SQLITE_OK);
  run(db, "SELECT choir_init(); CREATE TABLE t(a)");
  for (i = 0; i < 3; i++) {
    run(db, "INSERT INTO t VALUES(randomblob(200000)); SELECT sync_push(%Q)",
        zUrl);
    run(db, "SELECT sync_restore(%d, '%s/%d.db', %Q)", i + 1, zDir, i + 1,
        zUrl);
  }
  run(db, "DELETE FROM t; VACUUM; SELECT sync_push(%Q)", zUrl);
  run(db, "SELECT sync_restore(4, '%s/4.db', %Q)", zDir, zUrl);
  pConn = choirConnNew(db, 0);
  for (i = 1; i <= 4; i++) {
    snprintf(zFile, sizeof(zFile), "%s/%d.db", zDir, i);
    same(pConn, zUrl, (u64)i, zFile);
  }
  choirStmtFlush(pConn);
  choirConnUnref(pConn);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  snprintf(z, sizeof(z), "rm -rf '%s'", zDir);
  assert_int_equal(system(z), 0);
}

int main(void) {
  const struct CMUnitTest aTest[] = {
      cmocka_unit_test(every_page_of_every_version),
  };
  return cmocka_run_group_tests(aTest, NULL, NULL);
}
