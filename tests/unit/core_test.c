/* SPDX-License-Identifier: MIT */
/*
** core by its C interface: what SQL cannot reach. Buffers at their cap, both
** implementations of SHA-256, CRC-64 against its published check value, UTF-8
** at every boundary, sticky errors.
*/
#include "core/core.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void a_buffer_grows_up_to_its_cap_and_names_it(void **state) {
  ChoirErr err = {0, NULL};
  ChoirBuf b;
  (void)state;
  choirBufInit(&b, &err, 1000);
  while (b.n < 1000) {
    choirBufAppend(&b, "x", 1);
  }
  assert_int_equal(err.rc, SQLITE_OK);
  assert_int_equal(b.a[1000], 0);
  choirBufAppend(&b, "y", 1);
  assert_int_equal(err.rc, SQLITE_TOOBIG);
  assert_string_equal(err.zMsg, "1001 bytes are more than the limit of 1000");
  assert_int_equal(b.n, 1000);
  choirErrClear(&err);
  choirBufFree(&b);
}

static void a_length_that_would_wrap_is_refused(void **state) {
  ChoirErr err = {0, NULL};
  ChoirBuf b;
  (void)state;
  choirBufInit(&b, &err, 100);
  choirBufText(&b, "abc");
  assert_null(choirBufSpace(&b, UINT64_MAX - 1));
  assert_int_equal(err.rc, SQLITE_TOOBIG);
  choirErrClear(&err);
  choirBufFree(&b);
}

static void an_empty_buffer_is_still_a_string(void **state) {
  ChoirErr err = {0, NULL};
  ChoirBuf b;
  char *z;
  (void)state;
  choirBufInit(&b, &err, 10);
  z = choirBufTake(&b);
  assert_string_equal(z, "");
  sqlite3_free(z);
}

static void json_strings_are_escaped_and_bad_bytes_replaced(void **state) {
  ChoirErr err = {0, NULL};
  ChoirBuf b;
  (void)state;
  choirBufInit(&b, &err, 1000);
  choirBufJson(&b, "a\"b\\c\n\x01\xff\xc3\xa9\0z", 12);
  assert_string_equal(b.a,
                      "\"a\\\"b\\\\c\\n\\u0001\xef\xbf\xbd\xc3\xa9\\u0000z\"");
  choirBufFree(&b);
}

static void the_first_error_is_kept(void **state) {
  ChoirErr err = {0, NULL};
  (void)state;
  choirErrSet(&err, SQLITE_ERROR, "first %d", 1);
  choirErrSet(&err, SQLITE_CORRUPT, "second");
  choirErrNomem(&err);
  assert_int_equal(err.rc, SQLITE_ERROR);
  assert_string_equal(err.zMsg, "first 1");
  assert_null(choirMalloc(&err, 10));
  choirErrClear(&err);
  assert_int_equal(err.rc, SQLITE_OK);
}

static void utf8_is_valid_up_to_the_first_bad_byte(void **state) {
  static const struct {
    const char *z;
    int n, nValid;
  } a[] = {
      {"", 0, 0},
      {"\x7f", 1, 1},
      {"\xc2\x80", 2, 2},
      {"\xdf\xbf", 2, 2},
      {"\xe0\xa0\x80", 3, 3},
      {"\xed\x9f\xbf", 3, 3},
      {"\xee\x80\x80", 3, 3},
      {"\xef\xbf\xbf", 3, 3},
      {"\xf0\x90\x80\x80", 4, 4},
      {"\xf4\x8f\xbf\xbf", 4, 4},
      {"a\x80", 2, 1},            /* a continuation alone */
      {"\xc1\xbf", 2, 0},         /* overlong */
      {"\xe0\x9f\xbf", 3, 0},     /* overlong */
      {"\xf0\x8f\xbf\xbf", 4, 0}, /* overlong */
      {"\xed\xa0\x80", 3, 0},     /* a surrogate */
      {"\xf4\x90\x80\x80", 4, 0}, /* beyond U+10FFFF */
      {"\xf5\x80\x80\x80", 4, 0},
      {"ab\xe2\x82", 4, 2}, /* cut short */
      {"ab\xe2\x82g", 5, 2},
      {"\xfe", 1, 0},
  };
  size_t i;
  (void)state;
  for (i = 0; i < sizeof(a) / sizeof(a[0]); i++) {
    assert_int_equal(choirUtf8Valid(a[i].z, a[i].n), a[i].nValid);
  }
}

static void both_sha256_agree_for_every_length_and_split(void **state) {
  u8 aData[400], aPortable[32], aBest[32];
  u64 n, nCut;
  (void)state;
  for (n = 0; n < sizeof(aData); n++) {
    aData[n] = (u8)(n * 131 + 7);
  }
  for (n = 0; n <= sizeof(aData); n++) {
    choirSha256Force(1);
    choirSha256(aData, n, aPortable);
    choirSha256Force(0);
    for (nCut = 0; nCut <= n; nCut += 37) {
      ChoirSha256 s;
      choirSha256Init(&s);
      choirSha256Update(&s, aData, nCut);
      choirSha256Update(&s, aData + nCut, n - nCut);
      choirSha256Final(&s, aBest);
      assert_memory_equal(aBest, aPortable, 32);
    }
  }
}

static void sha1_is_right_at_the_ends_of_blocks(void **state) {
  static const struct {
    u64 n;
    const char *zHex; /* of the bytes below, by Python's hashlib */
  } a[] = {
      {0, "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
      {1, "5d1be7e9dda1ee8896be5b7e34a85ee16452a7b4"},
      {55, "9e5a20c2604688df0b1eecf4474b58bfe7227881"},
      {56, "bd367cf3b85dc2cac8f6b4827cb850e4c83c521c"},
      {63, "a8f606c343b26fa851dfd149f7b12fc2dbf1af34"},
      {64, "1abec92bfbde4197236cfba30b6b61c69d605d88"},
      {119, "e7ceee9817914eef9ec7001a43033f16a086b7c7"},
      {120, "9c9d46758300bc1f2c6953d4a2652ed72a202cf3"},
      {300, "2c8cdb4afad42a229e3e2757855c2dcf628a9967"},
  };
  u8 aData[300], aOut[20];
  char zHex[41];
  size_t i;
  (void)state;
  for (i = 0; i < sizeof(aData); i++) {
    aData[i] = (u8)(i * 131 + 7);
  }
  for (i = 0; i < sizeof(a) / sizeof(a[0]); i++) {
    choirSha1(aData, a[i].n, aOut);
    choirHex(aOut, 20, zHex);
    assert_string_equal(zHex, a[i].zHex);
  }
}

static void sha256_gives_the_standards_examples(void **state) {
  static const struct {
    const char *z, *zHex;
  } a[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
  };
  int i, bPortable;
  (void)state;
  for (bPortable = 0; bPortable < 2; bPortable++) {
    choirSha256Force(bPortable);
    for (i = 0; i < 2; i++) {
      u8 aOut[32];
      char zHex[65];
      choirSha256(a[i].z, strlen(a[i].z), aOut);
      choirHex(aOut, 32, zHex);
      assert_string_equal(zHex, a[i].zHex);
    }
  }
  choirSha256Force(0);
}

/* "123456789" is the check value of the CRC catalogue, entry CRC-64/GO-ISO. */
static void crc64_gives_its_published_check_value(void **state) {
  const char *z = "123456789";
  u64 crc = 0;
  int i;
  (void)state;
  assert_true(choirCrc64(0, z, 9) == 0xb90956c775a41001ULL);
  for (i = 0; i < 9; i++) {
    crc = choirCrc64(crc, z + i, 1);
  }
  assert_true(crc == 0xb90956c775a41001ULL);
  assert_true(choirCrc64(0, z, 0) == 0);
}

/* Long data goes another way than single bytes. */
static void crc64_of_any_length_is_that_of_its_bytes(void **state) {
  u8 a[1100];
  u64 crc, n, i;
  int iStart;
  (void)state;
  for (i = 0; i < sizeof(a); i++) {
    a[i] = (u8)(i * 151 + i / 7);
  }
  for (iStart = 0; iStart < 3; iStart++) {
    for (n = 0, crc = 12345; iStart + n < sizeof(a); n++) {
      assert_true(choirCrc64(12345, a + iStart, n) == crc);
      crc = choirCrc64(crc, a + iStart + n, 1);
    }
  }
}

static void the_nearest_name_is_near(void **state) {
  static const char *const az[] = {"user", "schema", "remote"};
  (void)state;
  assert_string_equal(choirNearest("usr", az, 3), "user");
  assert_string_equal(choirNearest("shcema", az, 3), "schema");
  assert_null(choirNearest("entirely different", az, 3));
}

static void a_library_that_is_missing_says_what_to_install(void **state) {
  static const char *const azNone[] = {"libchoir-none.so.1", NULL};
  static const char *const azHere[] = {"libchoir-none.so.1", "libc.so.6", NULL};
  static const char *const azSymbol[] = {"strlen", "choir_no_such", NULL};
  ChoirLib lib = {azNone, azSymbol, "none-1"};
  struct {
    size_t (*strlen)(const char *);
    void (*none)(void);
  } table = {NULL, NULL};
  ChoirErr err = {0, NULL};
  (void)state;
  choirLibOpen(&err, &lib, &table);
  assert_string_equal(err.zMsg,
                      "cannot open libchoir-none.so.1; install none-1");
  choirErrClear(&err);
  lib.azFile = azHere;
  choirLibOpen(&err, &lib, &table);
  assert_string_equal(err.zMsg, "libchoir-none.so.1 has no choir_no_such;"
                                " install none-1");
  assert_int_equal(table.strlen("four"), 4);
  choirErrClear(&err);
}

int main(void) {
  const struct CMUnitTest aTest[] = {
      cmocka_unit_test(a_buffer_grows_up_to_its_cap_and_names_it),
      cmocka_unit_test(a_length_that_would_wrap_is_refused),
      cmocka_unit_test(an_empty_buffer_is_still_a_string),
      cmocka_unit_test(json_strings_are_escaped_and_bad_bytes_replaced),
      cmocka_unit_test(the_first_error_is_kept),
      cmocka_unit_test(utf8_is_valid_up_to_the_first_bad_byte),
      cmocka_unit_test(both_sha256_agree_for_every_length_and_split),
      cmocka_unit_test(sha1_is_right_at_the_ends_of_blocks),
      cmocka_unit_test(sha256_gives_the_standards_examples),
      cmocka_unit_test(crc64_gives_its_published_check_value),
      cmocka_unit_test(crc64_of_any_length_is_that_of_its_bytes),
      cmocka_unit_test(the_nearest_name_is_near),
      cmocka_unit_test(a_library_that_is_missing_says_what_to_install),
  };
  sqlite3_initialize();
  return cmocka_run_group_tests(aTest, NULL, NULL);
}
