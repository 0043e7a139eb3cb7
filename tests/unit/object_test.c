/* SPDX-License-Identifier: MIT */
/*
** The object store's contract, on the file:// backend: conditions, ranges,
** listings, keys that are refused, and compare-and-swap by many processes.
*/
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "../../ext/object/object.h"

typedef struct Fixture {
  sqlite3 *db;
  ChoirConn *pConn;
  ChoirErr err;
  ChoirObject *p;
  char zDir[64];
  char zUrl[128];
} Fixture;

static int setUp(void **pp) {
  Fixture *f = calloc(1, sizeof(*f));
  strcpy(f->zDir, "/tmp/choir-object-XXXXXX");
  assert_non_null(mkdtemp(f->zDir));
  snprintf(f->zUrl, sizeof(f->zUrl), "file://%s/", f->zDir);
  assert_int_equal(sqlite3_open(":memory:", &f->db), SQLITE_OK);
  f->pConn = choirConnNew(f->db, 0);
  f->p = choirObjectOpen(f->pConn, &f->err, f->zUrl);
  assert_non_null(f->p);
  *pp = f;
  return 0;
}

static int tearDown(void **pp) {
  Fixture *f = *pp;
  char z[128];
  choirObjectClose(f->p);
  choirErrClear(&f->err);
  choirStmtFlush(f->pConn);
  choirConnUnref(f->pConn);
  assert_int_equal(sqlite3_close(f->db), SQLITE_OK);
  snprintf(z, sizeof(z), "rm -rf '%s'", f->zDir);
  assert_int_equal(system(z), 0);
  free(f);
  return 0;
}

static void sourceRead(void *pArg, ChoirErr *pErr, u64 iOff, void *a, u64 n) {
  (void)pErr;
  memcpy(a, (const char *)pArg + iOff, (size_t)n);
}

static int put(Fixture *f, const char *zKey, const char *zText, int eIf,
               const char *zEtag, ChoirObjectMeta *pMeta) {
  ChoirObjectSource src = {strlen(zText), sourceRead, (void *)(size_t)zText};
  return choirObjectPut(f->p, &f->err, zKey, &src, eIf, zEtag, pMeta);
}

typedef struct Got {
  char a[256];
  size_t n;
} Got;

static void gotWrite(void *pArg, ChoirErr *pErr, const void *a, u64 n) {
  Got *g = pArg;
  (void)pErr;
  assert_true(g->n + n < sizeof(g->a));
  memcpy(g->a + g->n, a, (size_t)n);
  g->n += (size_t)n;
}

static const char *get(Fixture *f, const char *zKey, i64 iOff, i64 n) {
  static Got g;
  ChoirObjectMeta meta;
  memset(&g, 0, sizeof(g));
  assert_int_equal(
      choirObjectGet(f->p, &f->err, zKey, iOff, n, &meta, gotWrite, &g),
      CHOIR_OBJECT_OK);
  return g.a;
}

static void test_a_put_is_read_back_whole_and_in_ranges(void **pp) {
  Fixture *f = *pp;
  ChoirObjectMeta m, h;
  assert_int_equal(put(f, "k", "0123456789", CHOIR_IF_ANY, NULL, &m),
                   CHOIR_OBJECT_OK);
  assert_string_equal(get(f, "k", 0, -1), "0123456789");
  assert_string_equal(get(f, "k", 3, 4), "3456");
  assert_string_equal(get(f, "k", 8, 100), "89");
  assert_string_equal(get(f, "k", 100, 5), "");
  assert_string_equal(get(f, "k", 0, 0), "");
  assert_int_equal(choirObjectHead(f->p, &f->err, "k", &h), CHOIR_OBJECT_OK);
  assert_int_equal(h.nByte, 10);
  assert_string_equal(h.zEtag, m.zEtag);
}

static void test_conditions_hold(void **pp) {
  Fixture *f = *pp;
  ChoirObjectMeta m1, m2, m3;
  assert_int_equal(put(f, "k", "a", CHOIR_IF_MATCH, "none", &m1),
                   CHOIR_OBJECT_CHANGED);
  assert_int_equal(put(f, "k", "a", CHOIR_IF_ABSENT, NULL, &m1),
                   CHOIR_OBJECT_OK);
  assert_int_equal(put(f, "k", "b", CHOIR_IF_ABSENT, NULL, &m2),
                   CHOIR_OBJECT_CHANGED);
  assert_int_equal(put(f, "k", "a", CHOIR_IF_MATCH, m1.zEtag, &m2),
                   CHOIR_OBJECT_OK);
  assert_string_not_equal(m1.zEtag, m2.zEtag); /* a write, if of the same */
  assert_int_equal(put(f, "k", "c", CHOIR_IF_MATCH, m1.zEtag, &m3),
                   CHOIR_OBJECT_CHANGED);
  assert_string_equal(get(f, "k", 0, -1), "a");
  assert_int_equal(choirObjectDelete(f->p, &f->err, "k", m1.zEtag),
                   CHOIR_OBJECT_CHANGED);
  assert_int_equal(choirObjectDelete(f->p, &f->err, "k", m2.zEtag),
                   CHOIR_OBJECT_OK);
  assert_int_equal(choirObjectDelete(f->p, &f->err, "k", NULL),
                   CHOIR_OBJECT_ABSENT);
  assert_int_equal(choirObjectHead(f->p, &f->err, "k", &m3),
                   CHOIR_OBJECT_ABSENT);
  assert_int_equal(choirObjectHead(f->p, &f->err, "no/such/k", &m3),
                   CHOIR_OBJECT_ABSENT);
  assert_int_equal(f->err.rc, SQLITE_OK);
}

static void eachKey(void *pArg, ChoirErr *pErr, const char *zKey,
                    const ChoirObjectMeta *pMeta) {
  (void)pErr, (void)pMeta;
  strcat(pArg, zKey);
  strcat(pArg, " ");
}

static void test_listings_are_in_the_order_of_keys(void **pp) {
  Fixture *f = *pp;
  static const char *const az[] = {"b", "a/z", "a.b", "a/b/c", "a0", "c/d"};
  char z[256] = "";
  struct stat st;
  char zDir[128];
  size_t i;
  ChoirObjectMeta m;
  for (i = 0; i < sizeof(az) / sizeof(az[0]); i++) {
    assert_int_equal(put(f, az[i], "x", CHOIR_IF_ANY, NULL, &m),
                     CHOIR_OBJECT_OK);
  }
  choirObjectList(f->p, &f->err, "", eachKey, z);
  assert_string_equal(z, "a.b a/b/c a/z a0 b c/d ");
  z[0] = 0;
  choirObjectList(f->p, &f->err, "a/", eachKey, z);
  assert_string_equal(z, "a/b/c a/z ");
  z[0] = 0;
  choirObjectList(f->p, &f->err, "a/b/cc", eachKey, z);
  assert_string_equal(z, "");
  snprintf(zDir, sizeof(zDir), "%s/a", f->zDir);
  assert_int_equal(stat(zDir, &st), 0);
  assert_int_equal(st.st_mode & 0777, 0700);
}

static void test_no_key_leads_out_of_the_folder(void **pp) {
  Fixture *f = *pp;
  static const char *const az[] = {
      "",   "..",  "../x", "a/../../x",   "/etc/passwd",   "a//b",
      "a/", "./a", "a/.",  ".choir-lock", "a/.choir-tmp-1"};
  ChoirObjectMeta m;
  char z[128];
  size_t i;
  for (i = 0; i < sizeof(az) / sizeof(az[0]); i++) {
    assert_int_equal(put(f, az[i], "x", CHOIR_IF_ANY, NULL, &m),
                     CHOIR_OBJECT_FAILED);
    assert_int_equal(f->err.rc, SQLITE_ERROR);
    choirErrClear(&f->err);
  }
  snprintf(z, sizeof(z), "%s/link", f->zDir);
  assert_int_equal(symlink("/tmp", z), 0);
  assert_int_equal(put(f, "link/x", "x", CHOIR_IF_ANY, NULL, &m),
                   CHOIR_OBJECT_FAILED);
  choirErrClear(&f->err);
  assert_int_equal(put(f, "link", "x", CHOIR_IF_ANY, NULL, &m),
                   CHOIR_OBJECT_FAILED);
  choirErrClear(&f->err);
  z[0] = 0;
  choirObjectList(f->p, &f->err, "", eachKey, z);
  assert_string_equal(z, "");
}

enum { NPROC = 6, NADD = 25 };

/* Adds NADD to the counter in "n", each by its own swap. */
static void addMany(Fixture *f) {
  int i;
  ChoirObject *p = choirObjectOpen(f->pConn, &f->err, f->zUrl);
  for (i = 0; i < NADD && f->err.rc == SQLITE_OK;) {
    ChoirObjectMeta m, mNew;
    Got g;
    char z[32];
    ChoirObjectSource src = {0, sourceRead, z};
    memset(&g, 0, sizeof(g));
    choirObjectGet(p, &f->err, "n", 0, -1, &m, gotWrite, &g);
    snprintf(z, sizeof(z), "%d", atoi(g.a) + 1);
    src.nByte = strlen(z);
    i += choirObjectPut(p, &f->err, "n", &src, CHOIR_IF_MATCH, m.zEtag,
                        &mNew) == CHOIR_OBJECT_OK;
  }
  i = f->err.rc != SQLITE_OK;
  choirObjectClose(p);
  choirErrClear(&f->err);
  _exit(i);
}

static void test_swaps_by_many_processes_lose_nothing(void **pp) {
  Fixture *f = *pp;
  ChoirObjectMeta m;
  int i, iStatus;
  assert_int_equal(put(f, "n", "0", CHOIR_IF_ABSENT, NULL, &m),
                   CHOIR_OBJECT_OK);
  for (i = 0; i < NPROC; i++) {
    if (fork() == 0) {
      addMany(f);
    }
  }
  for (i = 0; i < NPROC; i++) {
    assert_true(wait(&iStatus) > 0);
    assert_int_equal(iStatus, 0);
  }
  assert_int_equal(atoi(get(f, "n", 0, -1)), NPROC * NADD);
}

static void test_a_temporary_file_in_use_is_not_swept(void **pp) {
  Fixture *f = *pp;
  ChoirTemp tmp;
  ChoirObjectMeta m;
  struct stat st;
  char z[128];
  int fdDir = open(f->zDir, O_RDONLY);
  assert_true(fdDir >= 0);
  choirTempOpen(&tmp, &f->err, fdDir, "x");
  assert_int_equal(f->err.rc, SQLITE_OK);
  put(f, "k", "x", CHOIR_IF_ANY, NULL, &m); /* sweeps */
  snprintf(z, sizeof(z), "%s/%s", f->zDir, tmp.zName);
  assert_int_equal(stat(z, &st), 0);
  choirTempClose(&tmp);
  assert_int_not_equal(stat(z, &st), 0);
  close(fdDir);
}

int main(void) {
#define CASE(x) cmocka_unit_test_setup_teardown(x, setUp, tearDown)
  const struct CMUnitTest aTest[] = {
      CASE(test_a_put_is_read_back_whole_and_in_ranges),
      CASE(test_conditions_hold),
      CASE(test_listings_are_in_the_order_of_keys),
      CASE(test_no_key_leads_out_of_the_folder),
      CASE(test_swaps_by_many_processes_lose_nothing),
      CASE(test_a_temporary_file_in_use_is_not_swept),
  };
  return cmocka_run_group_tests_name("object", aTest, NULL, NULL);
}
