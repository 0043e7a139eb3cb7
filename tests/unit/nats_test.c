/* SPDX-License-Identifier: MIT */
/*
** The NATS line reader on its corpus, on every beginning of it and on half a
** million mutations; subjects, names and encodings against known answers.
*/
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../fuzz/nats_line.c"

#define CORPUS "tests/fuzz/corpus/nats_line"

static u8 aSeed[64][1024];
static size_t anSeed[64];
static int nSeed;

static int readCorpus(void **pp) {
  DIR *pDir = opendir(CORPUS);
  struct dirent *p;
  (void)pp;
  assert_non_null(pDir);
  while ((p = readdir(pDir)) != NULL && nSeed < 64) {
    char z[512];
    FILE *pFile;
    snprintf(z, sizeof(z), "%s/%s", CORPUS, p->d_name);
    if (p->d_name[0] != '.' && (pFile = fopen(z, "rb")) != NULL) {
      anSeed[nSeed] = fread(aSeed[nSeed], 1, sizeof(aSeed[0]), pFile);
      nSeed++;
      fclose(pFile);
    }
  }
  closedir(pDir);
  assert_true(nSeed >= 8);
  return 0;
}

static void corpusAndEveryBeginning(void **pp) {
  int i;
  size_t n;
  (void)pp;
  for (i = 0; i < nSeed; i++) {
    for (n = 0; n <= anSeed[i]; n++) {
      LLVMFuzzerTestOneInput(aSeed[i], n);
    }
  }
}

static u32 next(u32 *p) {
  *p = *p * 1664525 + 1013904223;
  return *p >> 8;
}

static void mutations(void **pp) {
  static const char *const azWord[] = {
      "MSG ", "HMSG ", "\r\n", " ",     "0",  "-1", "9999",
      "\0",   "INFO ", "+OK",  "-ERR ", "\t", ":",  "NATS/1.0"};
  u32 x = 1;
  int i, j;
  (void)pp;
  for (i = 0; i < 500000; i++) {
    u8 a[2048];
    u32 k = next(&x) % (u32)nSeed;
    size_t n = anSeed[k];
    memcpy(a, aSeed[k], n);
    for (j = (int)(next(&x) % 4); j >= 0 && n > 1; j--) {
      const char *z = azWord[next(&x) % 14];
      size_t at = next(&x) % n, nWord = strlen(z) ? strlen(z) : 1;
      switch (next(&x) % 3) {
      case 0:
        a[at] = (u8)next(&x);
        break;
      case 1:
        memmove(a + at, a + at + 1, n - at - 1);
        n--;
        break;
      default:
        memmove(a + at + nWord, a + at, n - at);
        memcpy(a + at, z, nWord);
        n += nWord;
      }
    }
    LLVMFuzzerTestOneInput(a, n);
  }
}

static void lengthsAreCapped(void **pp) {
  static char a[CHOIR_NATS_LINE_INFO + 10];
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirNatsFrame f;
  (void)pp;
  memset(a, 'x', sizeof(a));
  assert_true(choirNatsParse(&err, a, CHOIR_NATS_LINE - 1, &f) == 0);
  assert_int_equal(err.rc, SQLITE_OK);
  assert_true(choirNatsParse(&err, a, CHOIR_NATS_LINE, &f) == 0);
  assert_int_equal(err.rc, SQLITE_TOOBIG);
  choirErrClear(&err);
  memcpy(a, "INFO ", 5);
  assert_true(choirNatsParse(&err, a, CHOIR_NATS_LINE_INFO - 1, &f) == 0);
  assert_int_equal(err.rc, SQLITE_OK);
  choirNatsParse(&err, a, CHOIR_NATS_LINE_INFO + 5, &f);
  assert_int_equal(err.rc, SQLITE_TOOBIG);
  choirErrClear(&err);
}

static void base64AsInRfc4648(void **pp) {
  static const struct {
    const char *z, *zOut, *zUrl;
  } a[] = {{"", "", ""},
           {"f", "Zg==", "Zg"},
           {"fo", "Zm8=", "Zm8"},
           {"foo", "Zm9v", "Zm9v"},
           {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
           {"\xfb\xff\xfe", "+//+", "-__-"}};
  int i;
  (void)pp;
  for (i = 0; i < 6; i++) {
    ChoirErr err = {SQLITE_OK, NULL};
    ChoirBuf b;
    char *z;
    choirBufInit(&b, &err, 100);
    choirBufBase64(&b, a[i].z, strlen(a[i].z), 0);
    z = choirBufTake(&b);
    assert_string_equal(z, a[i].zOut);
    sqlite3_free(z);
    choirBufInit(&b, &err, 100);
    choirBufBase64(&b, a[i].z, strlen(a[i].z), 1);
    z = choirBufTake(&b);
    assert_string_equal(z, a[i].zUrl);
    sqlite3_free(z);
  }
}

int main(void) {
  const struct CMUnitTest a[] = {
      cmocka_unit_test(corpusAndEveryBeginning), cmocka_unit_test(mutations),
      cmocka_unit_test(lengthsAreCapped), cmocka_unit_test(base64AsInRfc4648)};
  return cmocka_run_group_tests_name("nats", a, readCorpus, NULL);
}
