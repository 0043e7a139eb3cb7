/* SPDX-License-Identifier: MIT */
/*
** LTX files: what the writer writes the reader reads, in pieces of any size;
** the lock page, files beyond 4 GiB, damage of every kind.
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
#include "../../ext/sync/sync.h"

typedef struct File {
  u8 *a;
  u64 n;
} File;

/* Pages that compress, do not, or are all the same byte. */
static void page(u32 iPage, u32 szPage, u8 *a) {
  u32 i, x = iPage * 2654435761u;
  for (i = 0; i < szPage; i++) {
    x = x * 1103515245u + 12345;
    a[i] = (u8)(iPage % 3 == 0 ? x >> 16 : iPage % 3 == 1 ? i / 64 : 7);
  }
}

static ChoirLtxHead head(u32 szPage, u32 nPage, u64 iMin, u64 iMax) {
  ChoirLtxHead h;
  memset(&h, 0, sizeof(h));
  h.szPage = szPage;
  h.nPage = nPage;
  h.iMin = iMin;
  h.iMax = iMax;
  h.iTime = 1700000000123;
  memcpy(h.aId, "0123456789abcdef", 16);
  memcpy(h.aLineage, "line", 4);
  return h;
}

static File build(ChoirLtxHead h, const u32 *aPage, u64 nPage) {
  ChoirErr err = {0, NULL};
  char zTmp[] = "/tmp/choir-ltx-XXXXXX";
  int fd = mkstemp(zTmp);
  ChoirLtxWriter *p = choirLtxWriteNew(&err, fd, &h);
  u8 *a = malloc(h.szPage);
  File f;
  u64 i;
  unlink(zTmp);
  for (i = 0; i < nPage; i++) {
    u32 iPage = aPage ? aPage[i] : (u32)i + 1;
    page(iPage, h.szPage, a);
    choirLtxWritePage(p, &err, iPage, a);
  }
  f.n = choirLtxWriteEnd(p, &err);
  f.a = malloc(f.n);
  assert_int_equal(err.rc, SQLITE_OK);
  assert_int_equal(pread(fd, f.a, f.n, 0), (ssize_t)f.n);
  assert_int_equal(lseek(fd, 0, SEEK_END), (off_t)f.n);
  choirLtxWriteFree(p);
  free(a);
  close(fd);
  return f;
}

typedef struct Seen {
  u64 n;
  u32 iLast;
  int bWrong;
} Seen;

static void see(void *pArg, ChoirErr *pErr, u32 iPage, const u8 *a,
                u32 szPage) {
  Seen *p = pArg;
  u8 *aWant = malloc(szPage);
  (void)pErr;
  page(iPage, szPage, aWant);
  p->bWrong |= memcmp(a, aWant, szPage) != 0;
  p->iLast = iPage;
  p->n++;
  free(aWant);
}

/* The reader's verdict; nPiece bytes at a time. */
static int read_it(const u8 *a, u64 n, u64 nPiece, Seen *pSeen,
                   ChoirLtxHead *pHead) {
  ChoirErr err = {0, NULL};
  ChoirLtxReader *p = choirLtxReadNew(&err, see, pSeen);
  u64 i;
  int rc;
  memset(pSeen, 0, sizeof(*pSeen));
  for (i = 0; i < n; i += nPiece) {
    choirLtxReadFeed(p, &err, a + i, n - i < nPiece ? n - i : nPiece);
  }
  choirLtxReadEnd(p, &err);
  if (err.rc == SQLITE_OK && pHead) {
    *pHead = *choirLtxReadHead(p);
  }
  rc = err.rc;
  choirErrClear(&err);
  choirLtxReadFree(p);
  return rc;
}

static void what_is_written_is_read_in_pieces_of_any_size(void **state) {
  static const u32 aSize[] = {512, 1024, 4096, 16384, 65536};
  static const u64 aPiece[] = {1, 7, 99, 4096, 1000003};
  int i, j;
  (void)state;
  for (i = 0; i < 5; i++) {
    File f = build(head(aSize[i], 9, 1, 3), NULL, 9);
    for (j = aSize[i] > 16384; j < 5; j++) {
      Seen seen;
      ChoirLtxHead h;
      assert_int_equal(read_it(f.a, f.n, aPiece[j], &seen, &h), SQLITE_OK);
      assert_int_equal(seen.n, 9);
      assert_false(seen.bWrong);
      assert_int_equal(h.iMin, 1);
      assert_int_equal(h.iMax, 3);
      assert_int_equal(h.iTime, 1700000000123);
      assert_true(h.bChoir);
      assert_memory_equal(h.aId, "0123456789abcdef", 16);
      assert_memory_equal(h.aLineage, "line", 4);
    }
    free(f.a);
  }
}

static void every_flipped_bit_and_every_cut_is_found(void **state) {
  static const u32 aPage[] = {2, 3, 4, 9};
  File f = build(head(512, 9, 5, 5), aPage, 4);
  Seen seen;
  u64 i;
  (void)state;
  assert_int_equal(read_it(f.a, f.n, f.n, &seen, NULL), SQLITE_OK);
  for (i = 0; i < f.n * 8; i++) {
    f.a[i / 8] ^= (u8)(1 << i % 8);
    assert_int_not_equal(read_it(f.a, f.n, f.n, &seen, NULL), SQLITE_OK);
    f.a[i / 8] ^= (u8)(1 << i % 8);
  }
  for (i = 0; i < f.n; i++) {
    assert_int_equal(read_it(f.a, i, f.n, &seen, NULL), SQLITE_CORRUPT);
  }
  f.a = realloc(f.a, f.n + 1);
  f.a[f.n] = 0;
  assert_int_equal(read_it(f.a, f.n + 1, f.n, &seen, NULL), SQLITE_CORRUPT);
  free(f.a);
}

static void pages_out_of_order_missing_or_beyond_the_end_are_refused(
    void **state) {
  static const u32 aBack[] = {3, 2}, aTwice[] = {2, 2}, aGap[] = {1, 3},
                   aFew[] = {1, 2}, aFar[] = {1, 2, 3, 4};
  struct {
    const u32 *a;
    u64 n, iMin;
  } aCase[] = {{aBack, 2, 2}, {aTwice, 2, 2}, {aGap, 2, 1},
               {aFew, 2, 1},  {aFar, 4, 2},   {aFar, 4, 1}};
  int i;
  (void)state;
  for (i = 0; i < 6; i++) {
    File f = build(head(512, 3, aCase[i].iMin, 2), aCase[i].a, aCase[i].n);
    Seen seen;
    assert_int_equal(read_it(f.a, f.n, f.n, &seen, NULL), SQLITE_CORRUPT);
    free(f.a);
  }
}

static void the_lock_page_is_left_out(void **state) {
  u32 iLock = choirLtxLockPage(65536), i;
  u32 *aPage = malloc((iLock + 2) * sizeof(u32));
  File f;
  Seen seen;
  (void)state;
  assert_int_equal(iLock, 16385);
  assert_int_equal(choirLtxLockPage(512), 2097153);
  for (i = 0; i < iLock + 1; i++) {
    aPage[i] = i + 1 + (i + 1 >= iLock);
  }
  /* One GiB of pages: only those of a period of three are stored badly. */
  f = build(head(65536, iLock + 2, 1, 1), aPage, iLock + 1);
  assert_int_equal(read_it(f.a, f.n, 1000003, &seen, NULL), SQLITE_OK);
  assert_int_equal(seen.n, iLock + 1);
  assert_int_equal(seen.iLast, iLock + 2);
  free(f.a);
  aPage[0] = iLock;
  f = build(head(65536, iLock + 2, 2, 2), aPage, 1);
  assert_int_equal(read_it(f.a, f.n, f.n, &seen, NULL), SQLITE_CORRUPT);
  free(f.a);
  free(aPage);
}

typedef struct Entries {
  u64 n, iOff;
  u32 iPage, nByte;
} Entries;

static void entry(void *pArg, ChoirErr *pErr, u32 iPage, u64 iOff, u32 nByte) {
  Entries *p = pArg;
  (void)pErr;
  p->n++;
  p->iPage = iPage;
  p->iOff = iOff;
  p->nByte = nByte;
}

static void single_pages_are_found_by_the_index(void **state) {
  ChoirErr err = {0, NULL};
  ChoirLtxHead h = head(4096, 9, 1, 1);
  File f = build(h, NULL, 9);
  Entries e = {0, 0, 0, 0};
  u8 a[4096], aWant[4096];
  u64 n = choirLtxIndexSize(&err, f.a + f.n - 24, 24, f.n);
  (void)state;
  choirLtxIndexRead(&err, f.a + f.n - 24 - n, n, &h, entry, &e);
  assert_int_equal(err.rc, SQLITE_OK);
  assert_int_equal(e.n, 9);
  choirLtxFrameRead(&err, f.a + e.iOff, e.nByte, e.iPage, 4096, a);
  page(9, 4096, aWant);
  assert_int_equal(err.rc, SQLITE_OK);
  assert_memory_equal(a, aWant, 4096);
  choirLtxFrameRead(&err, f.a + e.iOff, e.nByte, e.iPage - 1, 4096, a);
  assert_int_equal(err.rc, SQLITE_CORRUPT);
  choirErrClear(&err);
  free(f.a);
}

static void offsets_beyond_four_gib_are_read(void **state) {
  ChoirErr err = {0, NULL};
  ChoirLtxHead h = head(4096, 2, 2, 2);
  Entries e = {0, 0, 0, 0};
  /* page 1 at 100, page 2 at 2^33 + 5 */
  static const u8 aIndex[] = {1,    0x64, 20,   2,    0x85, 0x80,
                              0x80, 0x80, 0x20, 0x14, 0};
  (void)state;
  choirLtxIndexRead(&err, aIndex, sizeof(aIndex), &h, entry, &e);
  assert_int_equal(err.rc, SQLITE_OK);
  assert_true(e.iOff == ((u64)1 << 33) + 5);
  assert_int_equal(e.nByte, 20);
}

static void the_checksum_of_two_parts_is_that_of_the_whole(void **state) {
  u8 a[3000];
  u64 i;
  (void)state;
  for (i = 0; i < sizeof(a); i++) {
    a[i] = (u8)(i * i + i / 7);
  }
  for (i = 0; i <= sizeof(a); i += 13) {
    assert_true(choirCrc64Join(choirCrc64(0, a, i),
                               choirCrc64(0, a + i, sizeof(a) - i),
                               sizeof(a) - i) == choirCrc64(0, a, sizeof(a)));
  }
}

int main(void) {
  const struct CMUnitTest aTest[] = {
      cmocka_unit_test(what_is_written_is_read_in_pieces_of_any_size),
      cmocka_unit_test(every_flipped_bit_and_every_cut_is_found),
      cmocka_unit_test(
          pages_out_of_order_missing_or_beyond_the_end_are_refused),
      cmocka_unit_test(the_lock_page_is_left_out),
      cmocka_unit_test(single_pages_are_found_by_the_index),
      cmocka_unit_test(offsets_beyond_four_gib_are_read),
      cmocka_unit_test(the_checksum_of_two_parts_is_that_of_the_whole),
  };
  return cmocka_run_group_tests(aTest, NULL, NULL);
}
