/* SPDX-License-Identifier: MIT */
/*
** Clock, process and identifiers. Randomness is SQLite's own generator (seeded
** from the operating system), which is what its randomblob() gives.
*/
#include "core.h"
#include <pthread.h>
#include <time.h>
#include <unistd.h>

CHOIR_PRIVATE i64 choirNow(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (i64)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

CHOIR_PRIVATE i64 choirMonotonic(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (i64)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

CHOIR_PRIVATE i64 choirNanos(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (i64)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int idPid; /* 0: unknown */

static void idForked(void) {
  __atomic_store_n(&idPid, getpid(), __ATOMIC_RELAXED);
}

CHOIR_PRIVATE int choirPid(void) {
  static u8 bHooked;
  int iPid = __atomic_load_n(&idPid, __ATOMIC_RELAXED);
  if (iPid == 0) {
    iPid = getpid();
    if (!__atomic_exchange_n(&bHooked, 1, __ATOMIC_SEQ_CST) &&
        pthread_atfork(NULL, NULL, idForked) == 0) {
      __atomic_store_n(&idPid, iPid, __ATOMIC_RELAXED);
    }
  }
  return iPid;
}

CHOIR_PRIVATE void choirUuid(u8 a[16], int iVersion, char z[37]) {
  char zHex[33];
  a[6] = (u8)((a[6] & 0x0f) | (iVersion << 4));
  a[8] = (u8)((a[8] & 0x3f) | 0x80);
  choirHex(a, 16, zHex);
  sqlite3_snprintf(37, z, "%.8s-%.4s-%.4s-%.4s-%.12s", zHex, zHex + 8,
                   zHex + 12, zHex + 16, zHex + 20);
}

CHOIR_PRIVATE void choirUuid4(char z[37]) {
  u8 a[16];
  sqlite3_randomness(16, a);
  choirUuid(a, 4, z);
}

CHOIR_PRIVATE void choirUuid7(char z[37]) {
  u8 a[16];
  struct timespec t;
  i64 ms;
  int i, iSub; /* 1/4096 ms, so that ids made in one millisecond sort too */
  timespec_get(&t, TIME_UTC);
  ms = (i64)t.tv_sec * 1000 + t.tv_nsec / 1000000;
  iSub = (int)((i64)(t.tv_nsec % 1000000) * 4096 / 1000000);
  sqlite3_randomness(16, a);
  for (i = 0; i < 6; i++) {
    a[i] = (u8)(ms >> (40 - 8 * i));
  }
  a[6] = (u8)(iSub >> 8);
  a[7] = (u8)iSub;
  choirUuid(a, 7, z);
}
