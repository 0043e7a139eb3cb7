/* SPDX-License-Identifier: MIT */
/*
** The floor under a search of the vector index: what SQLite alone needs to hand
** out the bytes that the search cannot do without. bench_vec_floor.py compiles
** it and calls it through ctypes. Results are milliseconds of CPU time; less
** than 0: SQLite failed.
*/
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile unsigned char bareSeen;

static double bareNow(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

sqlite3 *bare_open(const char *zPath, sqlite3_int64 nMap) {
  sqlite3 *db = NULL;
  char aSql[80];
  snprintf(aSql, sizeof(aSql), "PRAGMA mmap_size=%lld", (long long)nMap);
  if (sqlite3_open(zPath, &db) || sqlite3_exec(db, aSql, NULL, NULL, NULL)) {
    sqlite3_close(db);
    return NULL;
  }
  return db;
}

/* Every row of a statement, a byte of each line of its blob in column 0. */
double bare_step(sqlite3 *db, const char *zSql) {
  double t = bareNow();
  unsigned char sum = 0;
  sqlite3_stmt *pStmt = NULL;
  int i, n, rc = sqlite3_prepare_v2(db, zSql, -1, &pStmt, NULL);
  while (rc == SQLITE_OK && sqlite3_step(pStmt) == SQLITE_ROW) {
    const unsigned char *a = sqlite3_column_blob(pStmt, 0);
    for (i = 0, n = sqlite3_column_bytes(pStmt, 0); i < n; i += 64) {
      sum ^= a[i];
    }
  }
  rc = sqlite3_finalize(pStmt);
  bareSeen = sum;
  return rc == SQLITE_OK ? bareNow() - t : -1;
}

/* The blobs of n rows of docs.e, one by one, nothing done with them. */
double bare_rows(sqlite3 *db, const sqlite3_int64 *aRowid, int n) {
  double t = bareNow();
  sqlite3_blob *p = NULL;
  int i, rc = sqlite3_blob_open(db, "main", "docs", "e", aRowid[0], 0, &p);
  int nByte = rc == SQLITE_OK ? sqlite3_blob_bytes(p) : 0;
  char *a = malloc((size_t)nByte + 1);
  for (i = 0; i < n && a && rc == SQLITE_OK; i++) {
    rc = sqlite3_blob_reopen(p, aRowid[i]);
    rc = rc == SQLITE_OK ? sqlite3_blob_read(p, a, nByte, 0) : rc;
  }
  sqlite3_blob_close(p);
  free(a);
  return rc == SQLITE_OK ? bareNow() - t : -1;
}
