/* SPDX-License-Identifier: MIT */
/*
** Which hosts are this machine, so that a key may go there without TLS.
*/
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "../../ext/http/http.h"

static int isLoopback(const char *zHost) {
  ChoirErr err = {0, NULL};
  ChoirHttpUrl url;
  char z[320];
  int b;
  snprintf(z, sizeof(z), "http://%s:6333/x", zHost);
  choirHttpUrl(&err, z, &url);
  assert_int_equal(err.rc, SQLITE_OK);
  b = choirHttpLoopback(&url);
  snprintf(z, sizeof(z), "http://%s", zHost);
  choirHttpUrl(&err, z, &url);
  assert_int_equal(choirHttpLoopback(&url), b);
  return b;
}

static void onlyThisMachineIsLoopback(void **pp) {
  static const char *const azYes[] = {
      "127.0.0.1", "127.0.0.0", "127.255.255.255", "127.1.2.3", "localhost",
      "LocalHost", "[::1]"};
  static const char *const azNo[] = {"127.1",
                                     "127",
                                     "127.0.0",
                                     "127.0.0.1.",
                                     "127.0.0.0.1",
                                     "127.0.0.256",
                                     "127.0.0.01",
                                     "127.0..1",
                                     "127.0.0.1.evil",
                                     "127.evil.test",
                                     "127.0.0.0x1",
                                     "0127.0.0.1",
                                     "0x7f.0.0.1",
                                     "2130706433",
                                     "128.0.0.1",
                                     "10.0.0.1",
                                     "0.0.0.0",
                                     "localhost.",
                                     "localhost.evil",
                                     "xlocalhost",
                                     "[::]",
                                     "[::1%25eth0]",
                                     "[0:0:0:0:0:0:0:1]",
                                     "[::ffff:127.0.0.1]",
                                     "127.00.0.1",
                                     "127.99999999999.0.1"};
  size_t i;
  (void)pp;
  for (i = 0; i < sizeof(azYes) / sizeof(azYes[0]); i++) {
    if (!isLoopback(azYes[i])) {
      fail_msg("%s is this machine", azYes[i]);
    }
  }
  for (i = 0; i < sizeof(azNo) / sizeof(azNo[0]); i++) {
    if (isLoopback(azNo[i])) {
      fail_msg("%s is not", azNo[i]);
    }
  }
}

int main(void) {
  const struct CMUnitTest aTest[] = {
      cmocka_unit_test(onlyThisMachineIsLoopback),
  };
  return cmocka_run_group_tests(aTest, NULL, NULL);
}
