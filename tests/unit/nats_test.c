/* SPDX-License-Identifier: MIT */
/*
** What a NATS line may measure; subjects, names and encodings against known
** answers.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../../ext/nats/nats.h"

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
      cmocka_unit_test(lengthsAreCapped), cmocka_unit_test(base64AsInRfc4648)};
  return cmocka_run_group_tests_name("nats", a, NULL, NULL);
}
